"""How well the vertebral body is derived from whole vertebrae, where the true body is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..anatomy.body import CUT, find_body
from ..anatomy.labelling import assign
from ..errors import InputError
from ..imaging.reading import read_segmentation
from ..imaging.volume import Grid

Mask = npt.NDArray[np.bool_]

WHOLE, TRUTH = "vertebrae.nii.gz", "subregions.nii.gz"
CORPUS = (49, 50)  # SPINEPS: border and inside of the vertebral body


@dataclass(frozen=True)
class BodyAccuracy:
    """One vertebra: overlap with its true body, and the surfaces' mean distance in mm."""

    scan: str
    level: str
    dice: float
    surface_mm: float
    whole: bool


def measure(data: Path) -> list[BodyAccuracy]:
    """Every vertebra of every scan under ``data`` that has whole vertebrae and true bodies.

    A scan is a folder with ``vertebrae.nii.gz`` (VerSe values) and ``subregions.nii.gz`` (SPINEPS
    values) on one grid.  Raises InputError where there is none.
    """
    folders = sorted(path.parent for path in data.glob(f"*/{TRUTH}"))
    rows = [row for folder in folders for row in _measure_scan(folder)]
    if not rows:
        raise InputError(data, f"no folder in it holds {WHOLE} and {TRUTH} with the same vertebra")
    return rows


def report(data: Path) -> str:
    """Return the measurement as a table with one line per vertebra and their mean."""
    rows = measure(data)
    lines = [f"{'scan':<14}{'level':<7}{'Dice':>7}{'distance':>12}"]
    for row in rows:
        remark = "" if row.whole else f"   {CUT}"
        lines.append(_line(row.scan, row.level, row.dice, row.surface_mm) + remark)
    mean = np.mean([(row.dice, row.surface_mm) for row in rows], axis=0)
    lines.append(_line("mean", f"n={len(rows)}", *mean))
    return "\n".join(lines)


def _line(scan: str, level: str, dice: float, surface_mm: float) -> str:
    return f"{scan:<14}{level:<7}{dice:>7.3f}{surface_mm:>9.2f} mm"


def _measure_scan(folder: Path) -> list[BodyAccuracy]:
    vertebrae = read_segmentation(folder / WHOLE)
    subregions = read_segmentation(folder / TRUTH)
    if not subregions.grid.matches(vertebrae.grid):
        raise InputError(folder / TRUTH, f"does not have the grid of {WHOLE}")
    corpus = np.isin(subregions.layers[0].array, CORPUS)
    rows = []
    for assignment in assign(vertebrae, "verse"):
        vertebra = vertebrae.mask(assignment.segment)
        truth = vertebra & corpus
        if assignment.level is None or not truth.any():
            continue
        body = find_body(vertebra, vertebrae.grid)
        distance = surface_distance_mm(body.mask, truth, vertebrae.grid)
        dice = overlap(body.mask, truth)
        rows.append(
            BodyAccuracy(folder.name, assignment.level, dice, distance, CUT not in body.flags)
        )
    return rows


def overlap(one: Mask, other: Mask) -> float:
    """Dice's coefficient of two masks that are not both empty."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def surface_distance_mm(one: Mask, other: Mask, grid: Grid) -> float:
    """Mean distance of each mask's surface voxels to the other's surface, both ways together.

    Faces on the border of the volume are no surface; infinite where a mask has no surface.
    """
    surfaces = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (one, other)]
    if not all(surface.any() for surface in surfaces):
        return float("inf")
    sampling = grid.spacing[::-1]
    to_one, to_other = (ndimage.distance_transform_edt(~s, sampling=sampling) for s in surfaces)
    return float(np.concatenate([to_other[surfaces[0]], to_one[surfaces[1]]]).mean())
