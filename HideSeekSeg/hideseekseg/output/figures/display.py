"""What a picture shows, as arrays: its grey window, masks on its grid, the slice to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...imaging.volume import Grid

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Width 1800 HU, level 400 HU: the usual bone window.
BONE_WINDOW = (-500.0, 1300.0)


def is_hounsfield(values: npt.NDArray[np.floating]) -> bool:
    """Whether intensities around vertebrae look like HU: fat below 0, bone above 150."""
    low, high = np.nanpercentile(values, [0.1, 99.5])
    return bool(low < 0 and high > 150)


def window(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Black and white for display: the bone window for HU, else the bulk of the values."""
    if is_hounsfield(values):
        return BONE_WINDOW
    low, high = (float(v) for v in np.nanpercentile(values, [0.5, 99.5]))
    return low, max(high, low + 1e-6)


def reach(differences: npt.NDArray[np.floating]) -> float:
    """How far a signed display goes to either side of zero."""
    sizes = np.abs(differences)
    return max(float(np.nanpercentile(sizes, 99.5)) if sizes.size else 1.0, 1e-6)


def busiest_slice(lesions: Sequence[Mask], body: Mask) -> int:
    """Index of the slice with the largest lesion area; the body's middle slice without lesions.

    Masks are (S, P, I).
    """
    area = np.sum([mask.sum(axis=(1, 2)) for mask in lesions], axis=0)
    if np.any(area):
        return int(np.argmax(area))
    through = np.flatnonzero(body.any(axis=(1, 2)))
    return int(through[len(through) // 2]) if len(through) else len(body) // 2


def bounds(grid: Grid) -> tuple[Floats, Floats]:
    """Least and largest LPS coordinates (mm) of the voxel centres."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape[::-1]])).reshape(3, -1).T
    positions = grid.lps(corners)
    return positions.min(axis=0), positions.max(axis=0)
