"""Results whose levels were corrected since their run, and how a new run brings them up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..findings import Evidence, VertebraFinding
from ..scene.export_inputs import LevelRow
from .level_choices import LevelChanges, as_read, changed_since
from .review_session import ReviewSession


def changes_of(work: ReviewSession | None, rows: Sequence[LevelRow] | None) -> LevelChanges:
    """Return what was corrected since the run of a review.

    ``rows`` are those of its segmentation, None where another one is at hand.
    """
    ran = work.results.run.get("levels") if work is not None and work.alive else None
    if rows is None or not isinstance(ran, dict):  # a scene of version 0.1 does not say
        return LevelChanges()
    return changed_since(ran, rows)


@dataclass(frozen=True)
class Exchanged:
    """What became of the reader's work, by names.

    ``lost``: what could not be taken along; ``redrawn``: candidates with corrected outlines.
    """

    lost: list[str]
    redrawn: list[str]


def exchange(
    work: ReviewSession,
    changes: LevelChanges,
    chain: frozenset[str],
    vertebrae: Sequence[tuple[VertebraFinding, Evidence | None]],
    rows: Sequence[LevelRow],
) -> Exchanged:
    """Put vertebrae that were run again in place of all that a chain of levels had.

    What the reader said, outlines that the reader corrected, and the lesions that the reader added
    follow the segments to their levels of now.  Raises SceneError where the results were removed
    from the scene.
    """
    review, results = work.review, work.results
    corrected = work.corrected(chain)
    added = [item for item in review.items if item.missed and item.level in chain]
    patches = results.patches([item.id for item in added])
    aside = review.set_aside(chain)
    for level in chain:
        results.removeLevel(level)
    for item in added:
        results.forget(item.id)
    same: dict[str, str] = {}
    for finding, evidence in vertebrae:
        same |= review.add_vertebra(finding, aside, changes.before(finding.level))
        results.addVertebra(finding, evidence)
    for item in added:
        level = changes.after(item.level)
        if level:
            now = review.adopt(aside, item.id, level)
            results.addDrawn(review.item(now), patches.get(item.id))
    ran = dict(results.run.get("levels") or {})
    for row in rows:
        if {ran.get(row.segmentID, "").partition(" ")[0], row.level} & chain:
            ran[row.segmentID] = as_read(row)
    results.tell(levels=ran)
    moved = {before: after for before, after in changes.moved.items() if before in chain}
    return Exchanged(review.not_taken(aside, moved, same.values()), work.redraw(corrected, same))
