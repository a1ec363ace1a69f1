"""Reviews that a crash left: put into a scene again, and offered in Slicer with their CT.

What is on disk of them is in ``autosave``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError, UserError
from ..review.review import Review
from ..scene.export_inputs import worldGrid
from ..scene.import_data import hashOf
from ..scene.results import Results
from ..scene.review_storage import as_text
from ..scene.same_bodies import isOfRun
from .autosave import Autosave, Kept, ScanSource, Unfinished, discard, read, told_apart, unfinished
from .review_controller import ReviewController
from .review_session import ReviewSession, sessions
from .texts import _, told


def restored(kept: Kept, ct: Any, vertebrae: Any, results: Results | None = None) -> ReviewSession:
    """Return a review that was kept, in ``results`` or, without any, in new ones of this CT.

    Raises SceneError where it cannot be put into the scene.
    """
    again = results or Results.create(ct, vertebrae, kept.facts, kept.grid)
    for finding, evidence in kept.vertebrae:
        again.addVertebra(finding, evidence)
    if results is None and vertebrae is not None and not _are_of_run(again, vertebrae, ct):
        again.disown()  # else its segments would be taken for those of the run
    results = again
    results.apply(kept.review)
    known = {item.id for item in kept.review.items}
    drawn = known & kept.outlines.keys()  # adding a lesion can be undone once it is drawn
    for identity in sorted(drawn):
        results.draw(identity, kept.outlines[identity])
    results.noteCorrected(drawn)
    return ReviewSession(kept.review, results)


def _are_of_run(results: Results, vertebrae: Any, ct: Any) -> bool:
    """Return whether vertebrae lie where the run had them, as far as that can be told."""
    try:
        return isOfRun(results, vertebrae, worldGrid(ct))
    except InputError:  # as under a transform that bends the CT
        return True


def matching(kept: Kept, ct: Any) -> ReviewSession | None:
    """Return the scene's review of the results of a CT that were kept, None where it has none.

    Raises InputError where the copy alone does not have all of them: it was taken of a scene.
    """
    again = {finding.level for finding, _evidence in kept.vertebrae}
    whole = {item.level for item in kept.review.items if not item.missed} <= again
    found = _same(kept.review, ct, set() if whole else again)
    if found is None and not whole:
        cause = _("this review is of a saved scene: open that scene, then restore it")
        raise InputError("", cause)
    return found


class Recovery:
    """Keeps the reviews of Slicer's scene on disk, and offers those that a crash left.

    Each review has a copy, brought up to date when the scene is, and removed at a clean end: then
    it is in the scene, or was given up.  ``draw`` shows a line for each review of the CT that is
    offered, the latest first, and the number of the chosen one; ``ask`` asks before something is
    lost.
    """

    def __init__(
        self,
        review: ReviewController,
        draw: Callable[[Sequence[str], int], None],
        ask: Callable[[str], bool],
    ) -> None:
        self._review, self._draw, self._ask = review, draw, ask
        self._copies: list[tuple[Any, Autosave]] = []  # by the node of the results
        self._first: list[tuple[Any, str]] = []  # reviews that a scene brought, as they were
        self._recovered: set[Path] = set()  # copies of a crash that were opened again
        self._offers: list[Unfinished] = []
        self._chosen: Path | None = None
        self._scan: tuple[Any, Any] = (None, None)
        review.flushed = self.keep

    def keep(self, work: ReviewSession | None = None) -> None:
        """Write what has changed in a review, else in the one that is open.

        Says why where it cannot, as long as that is so.
        """
        work = work or self._review.session
        if work is None or not work.alive:
            return
        text = as_text(work.review)
        try:
            copy = self._copy(work, text)
            if copy is not None:
                copy.keep(work, ScanSource(slicer=True), text, saved=False)
            self._review.say_kept()
        except (UserError, OSError) as error:
            self._review.say_kept(error)

    def look(self, ct: Any, vertebrae: Any) -> None:
        """Offer the reviews of a CT that a crash left; the latest is chosen, or the same again."""
        self._scan, self._offers = (ct, vertebrae), []
        for one in unfinished() if ct is not None and ct.GetImageData() is not None else ():
            known = one.sha256 and one.sha256 == hashOf(ct)
            if known and not self._scene_has(one, ct):
                self._offers.append(one)
        if self._offered is None:
            self._chosen = self._offers[0].folder if self._offers else None
        self._draw_offers()

    def choose(self, number: int) -> None:
        """Choose one of the reviews that are offered, by its place in the list."""
        if 0 <= number < len(self._offers):
            self._chosen = self._offers[number].folder
            self._draw_offers()

    @property
    def _offered(self) -> Unfinished | None:
        """The review that is chosen of those offered."""
        return next((one for one in self._offers if one.folder == self._chosen), None)

    def _draw_offers(self) -> None:
        offered = self._offered
        number = self._offers.index(offered) if offered is not None else -1
        self._draw(told_apart(self._offers), number)

    def restore(self) -> None:
        """Open the review that is offered, with its verdicts, comments, outlines and threshold."""
        offered, (ct, vertebrae) = self._offered, self._scan
        if offered is None:
            return
        self._review.commit_comment()
        self._review.flush()  # the scene then says whether it has verdicts of its own
        try:
            kept = read(offered.folder)
            open_ = matching(kept, ct)
            if open_ is not None and open_.review.has_work:
                text = _("Restoring replaces the verdicts of the same results in the scene: {old}.")
                if self._is_recovered(open_.results.node):
                    text += _(" They stay offered.")
                if not self._ask(text.format(old=open_.review.summary())):
                    return
            session = restored(kept, ct, vertebrae, open_.results if open_ is not None else None)
            self._end(session.results.node)
            self._copies.append((session.results.node, Autosave(offered.folder)))
            self._recovered.add(offered.folder)
        except UserError as error:
            self._review.say(f"{told(error)}.", "error")
            return
        self._review.show(session)
        self._review.say(_("Restored: {summary}.").format(summary=kept.review.summary()))
        self.look(ct, vertebrae)

    def discard(self) -> None:
        """Remove the review that is offered, after asking."""
        offered = self._offered
        if offered is None:
            return
        line = told_apart(self._offers)[self._offers.index(offered)]
        if not self._ask(_("Discard this review for good? {review}").format(review=line)):
            return
        try:
            discard(offered.folder)
        except UserError as error:
            self._review.say(f"{told(error)}.", "error")
        self.look(*self._scan)

    def end(self) -> None:
        """Remove all copies: the scene or the window is closed, and nothing crashed."""
        for _node, copy in self._copies:
            copy.close(remove=True)
        self._copies, self._first = [], []

    def _end(self, node: Any = None) -> None:
        """Remove the copy of these results, and of those that are not in a scene any more.

        Where another copy takes the place of one that a crash left, both are there again.
        """
        for pair in [*self._copies]:
            if pair[0] is node or pair[0].GetScene() is None:
                pair[1].close(remove=pair[0] is not node or not self._is_recovered(node))
                self._copies.remove(pair)
        self._first = [pair for pair in self._first if pair[0].GetScene() is not None]

    def _is_recovered(self, node: Any) -> bool:
        """Return whether the copy of these results is one that a crash left."""
        return any(known is node and copy.folder in self._recovered for known, copy in self._copies)

    def _scene_has(self, one: Unfinished, ct: Any) -> bool:
        """Return whether the scene that was saved has all of a review, which then goes.

        A review of the scene that has a copy of its own is not known to be saved.
        """
        there = _same(one.review, ct)
        if there is None or as_text(there.review) != as_text(one.review):
            return False
        if any(node is there.results.node for node, _copy in self._copies):
            return False
        with suppress(UserError):  # another Slicer has it
            discard(one.folder)
        return True

    def _copy(self, work: ReviewSession, text: str) -> Autosave | None:
        """Return the copy of a review; None while a scene that was loaded has all of it."""
        node = work.results.node
        for known, copy in self._copies:
            if known is node:
                return copy
        first = next((one for known, one in self._first if known is node), None)
        if first is None and not work.results.findings:
            self._first.append((node, text))
        if not work.results.findings and first in (None, text):
            return None
        copy = Autosave()
        self._end()  # results that others take the place of
        self._copies.append((node, copy))
        return copy


def _same(review: Review, ct: Any, but: Collection[str] = ()) -> ReviewSession | None:
    """Return the scene's review of the same results of a CT, ``but`` for some levels, or None."""

    def found(one: Review) -> set[tuple[str, float | None]]:
        lesions = {(x.id, x.score) for x in one.items if not x.missed and x.level not in but}
        return lesions | {(x, v.p_malignant) for x, v in one.vertebrae.items() if x not in but}

    there = reversed(sessions(lambda text: None, ct))
    return next((work for work in there if found(work.review) == found(review)), None)
