"""Export of a review: the accepted lesions, and every verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import NoVoxelsError
from ..files import locked, make_folder, together
from ..imaging.volume import Grid, Patch, case_name, measure_patch
from ..review.burden import BURDEN_COLUMNS, Burden, lesion_burden
from ..review.review import Item, Review
from .result_folder import EXPORTED, claim
from .seg_nrrd import Outlined, write_segments
from .segment_description import describe_item
from .tables import POSITION_COLUMNS, write_plain, write_rows

SCHEMA = 1
__all__ = ["EXPORTED", "NoVoxelsError", "export_accepted", "measured_item"]
SAME_PLACE_MM = 0.01
_COLUMNS = (
    "case",
    *("name", "id", "level", "type", "score", "p_malignant", "volume_mm3"),
    *("diameter_mm", "mean_hu", *POSITION_COLUMNS),
    *("added_by_reader", "comment", "flags", "reviewer", "reviewed"),
)


def export_accepted(
    folder: str | Path,
    review: Review,
    patches: Mapping[str, Patch],
    ct_grid: Grid,
    run: Mapping[str, Any],
    reviewer: str,
    when: datetime,
    hounsfield: npt.NDArray[Any] | None = None,
    overwrite: bool = False,
    beside: Callable[[Path], None] = lambda folder: None,
) -> tuple[Path, ...]:
    """Write ``EXPORTED`` to ``folder``, once all are complete; returns their paths.

    ``patches`` are the voxels on ``ct_grid`` by lesion id.  Volume and place of the accepted
    lesions are those of the voxels, which the reader may have corrected.  ``run`` is
    ``Result.run``, or the fields of ``events.Started``; its key ``scan`` says which scan it is.
    ``hounsfield`` as in ``measured_item``.  ``beside`` writes more files to the folder that it is
    given, which take their place with these, or not at all.

    Raises NoVoxelsError for an accepted lesion without voxels, InputError where nothing can be
    written, and where the folder holds the result of another scan, unless ``overwrite``: then that
    is removed.
    """
    accepted = [x for x in review.items if x.verdict == "accepted"]
    missing = [x.name for x in accepted if x.id not in patches or not patches[x.id].array.any()]
    if missing:
        raise NoVoxelsError(", ".join(missing), "nothing is drawn; draw it, or reject it")
    measured = [measured_item(x, patches[x.id], ct_grid, hounsfield) for x in accepted]
    folder, at = Path(folder), when.isoformat(timespec="seconds")
    make_folder(folder)
    measures = (asdict(row) for row in burden_of(review, measured))
    with locked(folder), together(folder) as part:
        ours = claim(folder, run.get("scan", {}), overwrite)
        lesions = [Outlined(x.id, describe_item(x), patches[x.id]) for x in measured]
        write_segments(part / EXPORTED[0], ct_grid, lesions)
        told = {"case": case_name(run.get("scan", {})), "reviewer": reviewer, "reviewed": at}
        flags = {level: "; ".join(v.flags) for level, v in review.vertebrae.items()}
        rows = ({**_row(x), **told, "flags": flags.get(x.level, "")} for x in measured)
        write_rows(part / EXPORTED[1], _COLUMNS, rows)
        write_rows(part / EXPORTED[3], ("case", *BURDEN_COLUMNS), ({**told, **x} for x in measures))
        facts = {"reviewer": reviewer, "reviewed": at, "run": dict(run)}
        write_plain(part / EXPORTED[2], {"schema": SCHEMA, **facts, **_verdicts(review, measured)})
        beside(part)
        ours.clear()
    return tuple(folder / name for name in EXPORTED)


def burden_of(review: Review, accepted: Sequence[Item]) -> list[Burden]:
    """Return the burden of the accepted lesions as they were measured."""
    bodies = {v.level: v.body_mm3 for v in review.vertebrae.values() if v.analysed}
    return lesion_burden(accepted, bodies)


def measured_item(
    item: Item, patch: Patch | None, ct_grid: Grid, hounsfield: npt.NDArray[Any] | None = None
) -> Item:
    """Return the item with volume, place, diameter and HU of its voxels.

    Without a voxel it has no size, and stays where it was.
    ``hounsfield`` (K, J, I) is the CT, None where it is not at hand: the mean then stays that of
    the run, and is not known where the outline is another one.  Voxels without a value (NaN) do not
    count; without any other there is no mean.
    """
    if patch is None:
        return replace(item, volume_mm3=0.0, diameter_mm=None, mean_hu=None)
    size = measure_patch(patch, ct_grid)
    mean = item.mean_hu
    grown = abs(size.volume_mm3 - item.volume_mm3) > ct_grid.voxel_mm3 / 2
    moved = not np.allclose(size.centroid_lps, item.centroid_lps, atol=SAME_PLACE_MM)
    if grown or moved:
        mean = None
    if hounsfield is not None:
        mean = patch.mean(hounsfield)
    return replace(item, **vars(size), mean_hu=mean)


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
