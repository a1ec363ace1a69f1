"""Slices of a CT that are interpolated between others: they show no more than these.

Linear resampling, of thick slices to thin ones or to equal edges, gives every slice between two
measured ones as their mean.  The header then tells a distance at which nothing was measured.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Mask, Volume
from .repeated_slices import columns_through

# A slice on the straight line between its neighbours lies there in so many of its pixels, but for
# rounding, and one that was measured in no more: noise takes it elsewhere.
ON_LINE, OFF_LINE = 0.9, 0.8
ROUNDING = 1.0  # of whole numbers: that of the slice and that of the mean of its neighbours
ROUNDING_SHARE = 0.002  # of the deviation of values in a slice, of other numbers
FEWEST_MEASURED = 4  # slices, that tell a distance


def measured_mm(view: Volume, body: Mask) -> tuple[float, float, float]:
    """Return how far apart along each array axis (K, J, I) slices around a body were measured.

    In mm; the CT's own distance where they are not interpolated, or not at equal distances.
    ``body`` (bool) lies on the CT's grid.
    """
    k, j, i = (_distance(axis, view, body) for axis in range(3))
    return k, j, i


def _distance(axis: int, view: Volume, body: Mask) -> float:
    spacing = float(view.grid.spacing[2 - axis])
    slices, _ = columns_through(axis, view, body)
    if len(slices) < 3:
        return spacing
    bend = np.abs(slices[1:-1] - (slices[:-2] + slices[2:]) / 2)
    is_whole = bool((slices == np.round(slices)).all())
    tolerance = ROUNDING if is_whole else ROUNDING_SHARE * float(slices.std(axis=1).max())
    on_line = (bend <= tolerance).mean(axis=1)
    # Padding and copies lie on a line as well, and say nothing.
    told = (bend > 0).any(axis=1) | (np.abs(slices[2:] - slices[:-2]) > 0).any(axis=1)
    between, measured = (on_line >= ON_LINE) & told, on_line <= OFF_LINE
    if not (between | measured)[told].all():
        return spacing
    steps = _steps(measured, between)
    if len(steps) + 1 < FEWEST_MEASURED or np.ptp(steps) > 1:
        return spacing
    return float(np.mean(steps)) * spacing


def _steps(measured: Mask, between: Mask) -> npt.NDArray[np.intp]:
    """Return the distances of measured slices, in slices; empty where they cannot be told.

    Where one was measured between two of the grid, both bend: they count as one, and more of them
    in a row are several.
    """
    edges = np.diff(np.concatenate([[False], measured, [False]]).astype(int))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    whole = (begins > 0) & (ends < len(measured))
    begins, ends = begins[whole], ends[whole]
    if not between.any() or (ends - begins > 2).any():
        return np.empty(0, np.intp)
    return np.diff(begins)
