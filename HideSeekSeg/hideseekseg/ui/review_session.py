"""A review and its results in the scene: what every window does with the two."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import slicer.util

from ..errors import SceneError
from ..imaging.volume import Patch
from ..output.review_export import export_accepted, measured_item
from ..review.review import Filter, Item, Reason, Review, Verdict
from ..scene.import_data import hashOf, scanOf
from ..scene.results import Results
from ..scene.review_storage import restore, store
from ..scene.review_views import ReviewViews
from ..scene.segments import isolate, judgedElsewhere, notJudged


class ReviewSession:
    """Carries out what the reader says; which finding is chosen is the window's to know."""

    def __init__(self, review: Review, results: Results) -> None:
        self.review, self.results = review, results
        self.views = ReviewViews(results)
        # Outlines that the reader corrected in vertebrae for which the review holds what was said.
        self.held_outlines: dict[str, Patch | None] = {}
        self._measured: dict[str, int] = {}

    @property
    def alive(self) -> bool:
        """Return whether the results are still in their scene."""
        return self.results.alive

    @property
    def notes(self) -> list[str]:
        """Return what the run remarked on the scan as a whole."""
        notes = self.results.run.get("notes", [])
        return [str(note) for note in notes] if isinstance(notes, list) else []

    def sync_from_scene(self) -> bool:
        """Take over outlines that were edited, and verdicts of Slicer's own table of segments.

        False: there was nothing new.
        """
        if not self.alive:
            return False
        measured = self.measure()  # first: editing an outline is no verdict
        said = judgedElsewhere(self.results.node.GetSegmentation(), self.review.items)
        for identity, verdict in said.items():
            self.review.judge(identity, verdict)
        return measured or bool(said)

    def judge(
        self, identity: str, verdict: Verdict, wanted: Filter, reason: Reason = ""
    ) -> str | None:
        """Set a verdict; return the id of the next finding without one, or None."""
        following = self.review.next_to_review(identity, wanted)
        self.review.judge(identity, verdict, reason)
        return following

    def step(self, identity: str, way: int, wanted: Filter) -> str | None:
        """Id of the next finding that is listed (``way`` 1), or of the one before (-1)."""
        step = self.review.next_after if way > 0 else self.review.previous_before
        return step(identity, wanted)

    def flush(self, identity: str) -> None:
        """Bring the scene up to date: visibility, tags and the stored review."""
        if self.alive:
            self.results.apply(self.review)
            store(self.results.node, self.review)
            self.isolate(identity)

    def isolate(self, identity: str) -> None:
        """Only the chosen finding is drawn; without one, all that are shown."""
        if self.alive:
            isolate(self.results.node, identity or None)

    def visit(self, item: Item) -> None:
        """All views go there."""
        if self.alive and item.volume_mm3 > 0:  # a lesion that is not drawn yet is nowhere
            self.views.visit(self.results.here(item.centroid_lps))

    def visit_vertebra(self, level: str) -> None:
        """All views go to a vertebra, where the scene knows where it is."""
        centre = self.results.centreOf(level) if self.alive else None
        if centre is not None:
            self.views.visit(centre)

    def make_accepted(self) -> Any:
        """Return a new segmentation node of the accepted lesions, None where there is none."""
        accepted = [item.id for item in self.review.items if item.verdict == "accepted"]
        return self.results.copyOf(accepted) if accepted else None

    def measure(self) -> bool:
        """Take over size and place of lesions whose outlines were edited; False: none was.

        A lesion whose segment was removed is erased: its segment is there again, empty.
        """
        if not self.alive:
            return False
        self.results.remake(self.review.items)
        now, before = self.results.outlineTimes(), self._measured
        edited = {x for x, time in now.items() if before.get(x) != time}
        self._measured = now
        known = {item.id: item for item in self.review.items if item.id in edited}
        patches = self.results.patches(known) if known else {}
        hounsfield = self.results.hounsfield() if known else None
        corrected, changed = [], False
        for identity, item in known.items():
            patch = patches.get(identity)  # None: nothing is drawn any more
            new = measured_item(item, patch, self.results.grid, hounsfield)
            moved = _moved(item, new, self.results.grid.voxel_mm3)
            if moved:
                corrected.append(identity)
            if item.diameter_mm is None or moved:
                self.review.measure(identity, new)
                changed = True
        self.results.noteCorrected(corrected)
        touched = self._painted({*corrected}, edited & before.keys(), known)
        notJudged(self.results.node.GetSegmentation(), [known[x] for x in touched])
        return changed

    def _painted(
        self, corrected: set[str], edited: set[str], known: Mapping[str, Item]
    ) -> set[str]:
        """Return the lesions that were painted on, also where nothing came of it.

        Slicer's editor says "in progress" of these.  But a stroke changes images of other segments,
        too, of which the reader may have said it.  Where no outline is another one and segments
        share an image, it was painted on the only one that is said to be so; of several nobody can
        tell.
        """
        if corrected:
            return corrected
        shared = self.results.inSharedImages()
        painted = edited - shared.keys()
        for image in {shared[x] for x in edited & shared.keys()}:
            inside = {x for x, other in shared.items() if other == image}
            said = judgedElsewhere(
                self.results.node.GetSegmentation(),
                [known[x] for x in inside & known.keys() if known[x].verdict == "unreviewed"],
            )
            uncertain = {x for x, verdict in said.items() if verdict == "uncertain"}
            painted |= uncertain if len(uncertain) == 1 else set()
        return painted & known.keys()

    def corrected(self, levels: Collection[str]) -> dict[str, Patch | None]:
        """Return the outlines in these levels that the reader corrected, held ones as well.

        By candidate id; None where all of one was erased.
        """
        self.measure()  # an outline may have been edited just now
        return {**self.held_outlines, **self.results.corrected(levels)}

    def redraw(self, outlines: Mapping[str, Patch | None], before: Mapping[str, str]) -> list[str]:
        """Draw candidates as the reader had corrected them; return their names.

        ``outlines`` as of ``corrected``; ``before`` is the id that each candidate had then, by its
        id now.  Raises SceneError where the results were removed from the scene.
        """
        again = {now: outlines[old] for now, old in before.items() if old in outlines}
        for identity, patch in again.items():
            self.results.draw(identity, patch)
        if again:
            self.measure()
        return [self.review.item(identity).name for identity in again]

    @property
    def scan(self) -> dict[str, str]:
        """Return which scan it is of, as ``scan_identity`` returns it; empty where nobody knows."""
        known = self.results.run.get("scan")
        if known is None and self.results.ctNode is not None:  # a scene of version 0.1
            known = scanOf(self.results.ctNode)
        return dict(known or {})

    def export(
        self,
        folder: Path,
        reviewer: str,
        overwrite: bool = False,
        beside: Callable[[Path], None] = lambda folder: None,
    ) -> tuple[Path, ...]:
        """Write the accepted findings and every verdict; raises InputError and NoVoxelsError.

        ``overwrite`` replaces the result of another scan.  ``beside`` as of ``export_accepted``.
        """
        results, when = self.results, datetime.datetime.now().astimezone()
        run = {**results.run, "scan": self.scan}
        files = (folder, self.review, results.patches(), results.grid, run)
        return export_accepted(*files, reviewer, when, results.hounsfield(), overwrite, beside)


_opened: dict[Any, ReviewSession] = {}  # by the node of the results


def remember(session: ReviewSession) -> None:
    """Make it the one that ``sessions`` returns for its node, as long as that is in the scene.

    Read from the scene anew, a review would lack the findings of its run, and what a run still
    adds to it.
    """
    for node in [node for node, work in _opened.items() if not work.alive]:
        del _opened[node]
    _opened[session.results.node] = session


def opened() -> list[ReviewSession]:
    """Return the reviews of the scene that were opened."""
    return [work for work in _opened.values() if work.alive]


def sessions(complain: Callable[[str], None], ctNode: Any = None) -> list[ReviewSession]:
    """Return all reviews in the scene, of a CT if one is given, the latest last.

    One that was opened before is the same again, others are read from the scene.
    ``complain`` is told of each review that cannot be read.
    """
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if not Results.isOne(node):
            continue
        known = _opened.get(node)
        if known is not None:
            if ctNode is None or known.results.ctNode is ctNode:
                found.append(known)
            continue
        try:
            results = Results.of(node)
        except SceneError as error:
            complain(str(error))
            continue
        if ctNode is not None and results.ctNode is not ctNode:
            continue
        try:
            review = restore(node)
        except ValueError as error:
            complain(f"“{node.GetName()}”: {error}.")
            continue
        if review is not None:
            found.append(ReviewSession(review, results))
    return found


def latest(complain: Callable[[str], None], ctNode: Any = None) -> ReviewSession | None:
    """Return the latest review in the scene, as ``sessions``, or None."""
    found = sessions(complain, ctNode)
    return found[-1] if found else None


def is_of_scan(work: ReviewSession, ctNode: Any) -> bool:
    """Return whether a review is of the scan that a CT is, whatever node it was made with."""
    scan = work.results.run.get("scan")
    known = scan.get("sha256") if isinstance(scan, dict) else ""
    return bool(known) and known == hashOf(ctNode)


def of_scan(ctNode: Any) -> ReviewSession | None:
    """Return the latest review in the scene of a scan that was loaded again, as another node.

    It refers to the new node from then on where the first one was removed.
    """
    found = [work for work in sessions(lambda text: None) if is_of_scan(work, ctNode)]
    work = found[-1] if found else None
    if work is not None and work.results.ctNode is None:
        work.results.adopt(ctNode)
    return work


def _moved(before: Item, now: Item, voxel_mm3: float) -> bool:
    """Return whether an outline is another one than before, beyond rounding."""
    steps = (abs(a - b) for a, b in zip(before.centroid_lps, now.centroid_lps))
    return abs(before.volume_mm3 - now.volume_mm3) > voxel_mm3 / 2 or max(steps) > 0.01  # mm
