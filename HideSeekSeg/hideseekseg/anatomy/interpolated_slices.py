"""Slices of a CT that are interpolated between others: they show no more than these.

Linear resampling, of thick slices to thin ones or to equal edges, gives every slice between two
measured ones as their mean.  The header then tells a distance at which nothing was measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Mask, Volume
from .repeated_slices import columns_through

Floats = npt.NDArray[np.floating[Any]]

# A slice on the straight line between its neighbours lies there in so many of its pixels, but for
# rounding, and one that was measured in no more: noise takes it elsewhere.
ON_LINE, OFF_LINE = 0.9, 0.8
ROUNDING = 1.0  # of whole numbers: that of the slice and that of the mean of its neighbours
ROUNDING_SHARE = 0.002  # of the deviation of values in a slice, of other numbers
FEWEST_MEASURED = 4  # slices, that tell a distance
FEWEST_BETWEEN = 3  # fewer may be single ones that a program filled in
# Two slices bend at one that was measured between them, in the same pixels and the same way.  The
# noise of slices that were measured makes neighbours bend in opposite ways (correlation -2/3).
ONE_BEND = 0.8
UNEVEN = 0.3  # of a slice, by which measured ones may lie beside their place


def measured_mm(view: Volume, body: Mask) -> tuple[float, float, float]:
    """Return how far apart along each array axis (K, J, I) slices around a body were measured.

    In mm; the CT's own distance where they are not interpolated, or not at equal distances.
    ``body`` (bool) lies on the CT's grid.
    """
    k, j, i = (_distance(axis, view, body) for axis in range(3))
    return k, j, i


def _distance(axis: int, view: Volume, body: Mask) -> float:
    spacing = float(view.grid.spacing[2 - axis])
    slices = _measured_part(columns_through(axis, view, body)[0])
    if len(slices) < 3:
        return spacing
    bend = slices[1:-1] - (slices[:-2] + slices[2:]) / 2
    is_whole = bool((slices == np.round(slices)).all())
    tolerance = ROUNDING if is_whole else ROUNDING_SHARE * float(slices.std(axis=1).max())
    on_line = (np.abs(bend) <= tolerance).mean(axis=1)
    # Padding and copies lie on a line as well, and say nothing.
    told = (bend != 0).any(axis=1) | (slices[2:] != slices[:-2]).any(axis=1)
    between = (on_line >= ON_LINE) & told
    if between.sum() < FEWEST_BETWEEN:
        return spacing
    places = _places(bend, on_line)
    if len(places) < FEWEST_MEASURED or not np.isfinite(places).all():
        return spacing
    first, last = places[0], places[-1]
    step = (last - first) / (len(places) - 1)
    off = np.abs(places - np.linspace(first, last, len(places)))
    inside = between[int(first) : int(last) + 1]
    if off.max() > UNEVEN or inside.sum() < FEWEST_BETWEEN or step < 2 - UNEVEN / len(places):
        return spacing
    return float(step) * spacing


def _measured_part(slices: Floats) -> Floats:
    """Return the slices without padding at either end: those of one value, or like the next."""
    differ = np.flatnonzero((slices[1:] != slices[:-1]).any(axis=1))
    if not differ.size:
        return slices[:0]
    slices = slices[differ[0] : differ[-1] + 2]
    full = np.flatnonzero(np.ptp(slices, axis=1) > 0)
    return slices[full[0] : full[-1] + 1] if full.size else slices[:0]


def _places(bend: Floats, on_line: Floats) -> Floats:
    """Return where slices were measured, in slices; empty where that cannot be told.

    One that was measured between two of the grid bends both, the nearer one more.
    """
    found: list[float] = []
    size = np.abs(bend).mean(axis=1)
    n, stop = 0, len(bend)
    while n < stop:
        if on_line[n] >= ON_LINE:
            n += 1
            continue
        both = n + 1 < stop and on_line[n + 1] < ON_LINE and _is_one(bend[n], bend[n + 1])
        end = n + 1 if both else n
        goes_on = both and end + 1 < stop and on_line[end + 1] < ON_LINE
        if goes_on and _is_one(bend[end], bend[end + 1]):
            return np.empty(0)  # smooth values bend so, over many slices
        if n > 0 and end < stop - 1 and on_line[n : end + 1].min() <= OFF_LINE:
            found.append(n + float(size[end] / (size[n] + size[end])) if both else float(n))
        n = end + 1
    return np.array(found)


def _is_one(a: Floats, b: Floats) -> bool:
    """Return whether two slices bend in the same pixels the same way."""
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return scale > 0 and float(a @ b) > ONE_BEND * scale
