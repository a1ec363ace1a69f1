"""Export of a review: the accepted lesions, and every verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import NoVoxelsError
from ..files import make_folder, together
from ..imaging.patch import Patch, measure_patch
from ..imaging.volume import Grid, case_name
from ..review.review import Item, Review
from .result_folder import EXPORTED
from .seg_nrrd import Outlined, write_segments
from .segment_description import describe_item
from .tables import POSITION_COLUMNS, write_plain, write_rows

SCHEMA = 1
__all__ = ["EXPORTED", "NoVoxelsError", "export_accepted", "measured_item"]
_COLUMNS = (
    "case",
    *("name", "id", "level", "type", "score", "p_malignant", "volume_mm3"),
    *(*POSITION_COLUMNS, "added_by_reader", "comment", "reviewer", "reviewed"),
)


def export_accepted(
    folder: str | Path,
    review: Review,
    patches: Mapping[str, Patch],
    ct_grid: Grid,
    run: Mapping[str, Any],
    reviewer: str,
    when: datetime,
) -> tuple[Path, ...]:
    """Write ``EXPORTED`` to ``folder``, once all are complete; returns their paths.

    ``patches`` are the voxels on ``ct_grid`` by lesion id.  Volume and place of the accepted
    lesions are those of the voxels, which the reader may have corrected.  ``run`` is
    ``Result.run``, or the fields of ``events.Started``; its key ``scan`` says which scan it is.

    Raises NoVoxelsError for an accepted lesion without voxels, InputError where nothing can be
    written.
    """
    accepted = [x for x in review.items if x.verdict == "accepted"]
    missing = [x.name for x in accepted if x.id not in patches or not patches[x.id].array.any()]
    if missing:
        raise NoVoxelsError(", ".join(missing), "nothing is drawn; draw it, or reject it")
    measured = [measured_item(item, patches[item.id], ct_grid) for item in accepted]
    folder, at = Path(folder), when.isoformat(timespec="seconds")
    make_folder(folder)
    with together(folder) as part:
        lesions = [Outlined(x.id, describe_item(x), patches[x.id]) for x in measured]
        write_segments(part / EXPORTED[0], ct_grid, lesions)
        told = {"case": case_name(run.get("scan", {})), "reviewer": reviewer, "reviewed": at}
        rows = ({**_row(item), **told} for item in measured)
        write_rows(part / EXPORTED[1], _COLUMNS, rows)
        facts = {"reviewer": reviewer, "reviewed": at, "run": dict(run)}
        write_plain(part / EXPORTED[2], {"schema": SCHEMA, **facts, **_verdicts(review, measured)})
    return tuple(folder / name for name in EXPORTED)


def measured_item(item: Item, patch: Patch, ct_grid: Grid) -> Item:
    """Return the item with volume, centroid and box of its voxels (at least one)."""
    return replace(item, **vars(measure_patch(patch, ct_grid)))


def _row(item: Item) -> dict[str, Any]:
    """Plain data; what the reader added has no score."""
    values = asdict(item)
    values["added_by_reader"] = values.pop("missed")
    values["score"] = None if item.missed else item.score
    del values["number"]
    return {**values, **dict(zip(POSITION_COLUMNS, item.centroid_lps))}


def _verdicts(review: Review, measured: list[Item]) -> dict[str, Any]:
    """Every candidate, accepted or not, and what is said of every vertebra."""
    known = {item.id: item for item in measured}
    lesions = []
    for item in review.items:
        row = _row(known.get(item.id, item))
        lesions.append({k: v for k, v in row.items() if k not in POSITION_COLUMNS})
    words = {state.level: state.words for state in review.states()}
    vertebrae = [{**asdict(v), "state": words[v.level]} for v in review.vertebrae.values()]
    return {
        "summary": review.summary(),
        "threshold": review.threshold,
        "vertebrae": vertebrae,
        "lesions": lesions,
    }
