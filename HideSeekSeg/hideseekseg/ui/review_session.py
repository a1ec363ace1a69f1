"""A review and its results in the scene: what every window does with the two."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer.util

from ..errors import SceneError
from ..output.review_export import export_accepted, measured_item
from ..review.review import Filter, Item, Review, Verdict
from ..scene.results import Results
from ..scene.review_storage import restore, store
from ..scene.review_views import ReviewViews
from ..scene.segments import isolate, judgedElsewhere


class ReviewSession:
    """Carries out what the reader says; which finding is chosen is the window's to know."""

    def __init__(self, review: Review, results: Results) -> None:
        self.review, self.results = review, results
        self.views = ReviewViews(results)
        self._measured: dict[str, int] = {}

    @property
    def alive(self) -> bool:
        """Whether the results are still in their scene."""
        return self.results.alive

    @property
    def notes(self) -> list[str]:
        """What the run remarked on the scan as a whole."""
        notes = self.results.run.get("notes", [])
        return [str(note) for note in notes] if isinstance(notes, list) else []

    def sync_verdicts_from_scene(self) -> bool:
        """Take over verdicts that were given in Slicer's own table of segments."""
        if not self.alive:
            return False
        said = judgedElsewhere(self.results.node.GetSegmentation(), self.review.items)
        for identity, verdict in said.items():
            self.review.judge(identity, verdict)
        return bool(said)

    def judge(self, identity: str, verdict: Verdict, wanted: Filter) -> str | None:
        """Set a verdict; return the id of the next finding without one, or None."""
        following = self.review.next_to_review(identity, wanted)
        self.review.judge(identity, verdict)
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

    def details(self, item: Item) -> str:
        """Its name, and what the run remarked on its vertebra."""
        vertebra = self.review.vertebrae.get(item.level)
        flags = vertebra.flags if vertebra is not None else ()
        return f"{item.name} ({', '.join(flags)})" if flags else item.name

    def measure(self) -> bool:
        """Take over size and place of lesions whose outlines were edited; False: none was."""
        if not self.alive:
            return False
        now = self.results.outlineTimes()
        edited = {x for x, time in now.items() if self._measured.get(x) != time}
        self._measured = now
        known = {item.id: item for item in self.review.items if item.id in edited}
        patches = self.results.patches(known) if known else {}
        changed = False
        for identity, patch in patches.items():
            item = known[identity]
            new = measured_item(item, patch, self.results.grid)
            if _moved(item, new, self.results.grid.voxel_mm3):
                place = (new.volume_mm3, new.centroid_lps, new.box_lps)
                self.review.measure_missed(identity, *place)
                changed = True
        return changed

    def export(self, folder: Path, reviewer: str) -> tuple[Path, ...]:
        """Write the accepted findings and every verdict; raises InputError and NoVoxelsError."""
        results, when = self.results, datetime.datetime.now().astimezone()
        return export_accepted(
            *(folder, self.review, results.patches(), results.grid, results.run, reviewer, when)
        )


def latest(complain: Callable[[str], None], ctNode: Any = None) -> ReviewSession | None:
    """Return the latest review in the scene, of a CT if one is given, or None.

    ``complain`` is told of each review that cannot be read.
    """
    for node in reversed(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")):
        if not Results.isOne(node):
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
            return ReviewSession(review, results)
    return None


def _moved(before: Item, now: Item, voxel_mm3: float) -> bool:
    """Whether an outline is another one than before, beyond rounding."""
    steps = (abs(a - b) for a, b in zip(before.centroid_lps, now.centroid_lps))
    return abs(before.volume_mm3 - now.volume_mm3) > voxel_mm3 / 2 or max(steps) > 0.01  # mm
