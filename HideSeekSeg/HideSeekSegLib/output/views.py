"""What a picture shows, as arrays: its grey window, masks on its grid, the slice to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Grid, Patch, Volume, resample

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


def move_patch(patch: Patch, source: Grid, target: Grid) -> Patch | None:
    """The patch of one grid on another; None where it does not get there.

    Linear at one half, for smooth outlines; what is too thin for that gets its nearest voxels.
    """
    own = source.cut(patch.start, _shape(patch.array.shape))
    corners = np.array(np.meshgrid(*[(-1, n) for n in own.shape[::-1]])).reshape(3, -1).T
    reached = target.ijk(own.lps(corners))[:, ::-1]
    start = np.clip(np.floor(reached.min(axis=0)), 0, target.shape).astype(int)
    stop = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, target.shape).astype(int)
    if np.any(stop <= start):
        return None
    part = target.cut(start, _shape(stop - start))
    # A rim of zeros: without it voxels at the patch's border would end abruptly.
    padded = Volume(np.pad(patch.array, 1).astype(np.float32), _grown(own))
    array = np.asarray(resample(padded, part, 1).array >= 0.5)
    if not array.any():
        array = np.asarray(resample(padded, part, 0).array >= 0.5)
    return Patch(array, _shape(start)) if array.any() else None


def _grown(grid: Grid) -> Grid:
    return grid.cut((-1, -1, -1), _shape(np.add(grid.shape, 2)))


def _shape(values: Iterable[int]) -> tuple[int, int, int]:
    k, j, i = (int(v) for v in values)
    return k, j, i


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
