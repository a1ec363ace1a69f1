"""Reviews of the page, saved while the reader works, and those that earlier sessions left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, UserError
from ..scene.review_storage import as_text
from ..ui import autosave
from ..ui.autosave import Autosave
from ..ui.review_controller import ReviewController
from ..ui.review_session import ReviewSession, opened
from .page import PageState
from .slicer_scene import Patient
from .uploads import Uploads
from .work_list import CaseAutosave, CaseDesk


class KeptReviews:
    """The automatic copies of the reviews in the scene, and what the reader has saved of them.

    ``patient`` gives whom the page shows; a review of the work list is kept in its case's folder.
    """

    def __init__(
        self,
        page: PageState,
        review: ReviewController,
        patient: Callable[[], Patient],
        uploads: Uploads,
        desk: CaseDesk | None,
    ) -> None:
        self._page, self._review, self._patient = page, review, patient
        self._uploads, self._desk = uploads, desk
        self._copies: dict[Any, Autosave] = {}  # by the node of the results
        self._saved_as: dict[Any, str] = {}  # each review as a file of the reader has it

    def unsaved(self) -> list[ReviewSession]:
        """Return the reviews of the scene that no file of the reader has as they are."""
        return [work for work in opened() if work.review.has_work and not self._has(work)]

    def _has(self, work: ReviewSession) -> bool:
        """Return whether a file of the reader has a review as it is."""
        node, text = work.results.node, as_text(work.review)
        copy = self._copies.get(node)
        return text == self._saved_as.get(node) or (copy is not None and copy.holds(text))

    def take_down(self, works: Iterable[ReviewSession]) -> None:
        """Take down that a file of the reader has these reviews as they are."""
        self._saved_as |= {work.results.node: as_text(work.review) for work in works}

    def keep_in(self, work: ReviewSession, copy: Autosave) -> None:
        """Keep a review in a copy that is there already."""
        self._copies[work.results.node] = copy

    def shown(self) -> Autosave | None:
        """Return the copy of the review that the page shows, None where there is none."""
        results = self._review.results
        return self._copies.get(results.node) if results is not None else None

    def keep(self) -> None:
        """Save the reviews of the scene automatically; what ends one removes that again."""
        try:
            for work in opened():
                if work.results.node not in self._copies:
                    self._copies[work.results.node] = Autosave()
            self._drop_replaced()
            for work in opened():
                copy = self._copies[work.results.node]
                saved = work.review.has_work and self._has(work)
                patient = self._patient()
                source = replace(patient.source, corrections=dict(patient.corrections))
                copy.keep(work, source, as_text(work.review), saved)
                if self._desk is not None and isinstance(copy, CaseAutosave):
                    self._desk.update(copy)
            self._review.say_kept()
        except (UserError, OSError) as error:
            self._review.say_kept(error)
        unsaved = bool(self.unsaved())
        if unsaved != self._page.get("unsaved"):
            self._page.show(unsaved=unsaved)

    def _drop_replaced(self) -> None:
        """Remove copies of results that others have replaced; the one that is shown inherits."""
        results = self._review.results
        heir = self.shown() if results is not None and results.alive else None
        if heir is None:
            return
        gone = [node for node in self._copies if node.GetScene() is None]
        before = [self._copies.pop(node) for node in gone]
        self._adopt(heir, before)
        for copy in before:
            copy.close(True)

    def _adopt(self, copy: Autosave, before: Sequence[Autosave]) -> None:
        """Move uploaded files, which are nowhere else, to a copy; also from those ``before``."""
        patient = self._patient()
        source = patient.source
        places = [self._uploads.folder.parent, *(older.folder for older in before)]

        def moved(path: str) -> str:
            ours = any(Path(path).is_relative_to(place) for place in places)
            return str(copy.adopt(Path(path))) if path and ours and Path(path).exists() else path

        patient.source = replace(source, ct=moved(source.ct), vertebrae=moved(source.vertebrae))

    def end(self, but: Sequence[ReviewSession] = ()) -> None:
        """Remove all copies ``but`` those of some reviews, which are offered at the next start."""
        stay = [work.results.node for work in but]
        for node, copy in self._copies.items():
            copy.close(remove=node not in stay)
        self._copies, self._saved_as = {}, {}

    def offer(self) -> None:
        """Show which reviews earlier sessions left."""
        found = [one for one in autosave.unfinished() if not one.slicer]
        offers = zip(found, autosave.told_apart(found))
        self._page.show(offers=[{"id": one.folder.name, "text": line} for one, line in offers])

    def offered(self, name: str) -> Path:
        """Return the folder of a review that is offered; the page names it, and no other."""
        if name not in [offer["id"] for offer in self._page.get("offers")]:
            raise InputError("", "this review is not there any more")
        return autosave.place() / name

    def discard(self, name: str) -> None:
        """Remove a review that is offered."""
        autosave.discard(self.offered(name))
        self.offer()
