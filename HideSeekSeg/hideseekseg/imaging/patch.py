"""Masks in a box of a larger grid, and the way from one grid to another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .volume import Grid, Volume, resample

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
_MOST_POINTS, _DIRECTIONS = 400, 1000
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Patch:
    """A mask in a box of a grid: ``array`` (bool) begins at voxel ``start``, both k j i."""

    array: Mask
    start: tuple[int, int, int]

    def paint(self, target: npt.NDArray[Any], value: int = 1) -> None:
        """Set the patch's voxels in an array (K, J, I) of the whole grid to ``value``."""
        target[self.box][self.array] = value

    @property
    def box(self) -> Box:
        """Where the patch lies in an array of the whole grid."""
        k, j, i = (slice(s, s + n) for s, n in zip(self.start, self.array.shape))
        return k, j, i

    def grid(self, whole: Grid) -> Grid:
        """Return the patch's own part of the whole grid."""
        return whole.cut(self.start, triple(self.array.shape))


@dataclass(frozen=True)
class PatchSize:
    """Size and place of a patch; positions in LPS mm.

    ``diameter_mm`` is the largest, from outer face to outer face.

    ``box_lps`` is ``(x_min, y_min, z_min, x_max, y_max, z_max)`` and reaches to the voxels' outer
    faces.
    """

    volume_mm3: float
    centroid_lps: tuple[float, float, float]
    box_lps: tuple[float, float, float, float, float, float]
    diameter_mm: float


def measure_patch(patch: Patch, whole: Grid) -> PatchSize:
    """Measure a patch with at least one voxel on the grid that it is a part of."""
    at = whole.lps((np.argwhere(patch.array) + patch.start)[:, ::-1])
    half = np.abs(whole.direction) @ whole.spacing / 2
    low, high = at.min(axis=0) - half, at.max(axis=0) + half
    x, y, z = (float(v) for v in at.mean(axis=0))
    a, b, c, d, e, f = (float(v) for v in (*low, *high))
    diameter = _span(at[_ends(patch.array)]) + whole.voxel_mm3 ** (1 / 3)
    volume = float(len(at) * whole.voxel_mm3)
    return PatchSize(volume, (x, y, z), (a, b, c, d, e, f), diameter)


def _ends(mask: Mask) -> npt.NDArray[np.bool_]:
    """Return which voxels of the mask are first or last of their line along i.

    The two that lie farthest apart are among these.
    """
    before, after = np.zeros_like(mask), np.zeros_like(mask)
    before[..., 1:], after[..., :-1] = mask[..., :-1], mask[..., 1:]
    ends: npt.NDArray[np.bool_] = ~(before & after)[mask]
    return ends


def _span(points: npt.NDArray[np.float64]) -> float:
    """Return the largest distance between two of the points (N, 3)."""
    if len(points) > _MOST_POINTS:
        # The farthest points in many directions: within a thousandth of the largest distance.
        n = np.arange(_DIRECTIONS) + 0.5
        up, turn = 1 - n / _DIRECTIONS, n * np.pi * (1 + 5**0.5)
        flat = np.sqrt(1 - up**2)
        along = points @ np.stack([flat * np.cos(turn), flat * np.sin(turn), up])
        points = points[np.unique([along.argmin(axis=0), along.argmax(axis=0)])]
    squares = (points**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * points @ points.T
    return float(np.sqrt(max(distances.max(), 0.0)))


def bounding_box(mask: Mask, margin: int = 0) -> Box:
    """Return the smallest box around the mask, grown by ``margin`` voxels inside the array."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        stop = min(int(hit[-1]) + 1 + margin, mask.shape[axis])
        box.append(slice(max(int(hit[0]) - margin, 0), stop))
    return box[0], box[1], box[2]


def patch_of(mask: Mask, start: Iterable[int] = (0, 0, 0)) -> Patch | None:
    """Return the tight patch of a mask that begins at voxel ``start``; None for an empty mask."""
    if not mask.any():
        return None
    box = bounding_box(mask)
    at = triple(int(first) + int(s.start) for first, s in zip(start, box))
    return Patch(np.ascontiguousarray(mask[box]), at)


def move_patch(patch: Patch, source: Grid, target: Grid) -> Patch | None:
    """Return a patch of one grid on another; None where none of it gets there.

    Linear interpolation at one half keeps outlines smooth.  A mask that is too thin for the
    target's voxels loses most of its volume that way: then the voxels nearest to its own are taken.
    """
    if source.matches(target):
        return patch_of(patch.array, patch.start)
    nearest = _nearest(patch, source, target)
    own = patch.grid(source)
    # A rim of zeros: without it voxels at the patch's border would end abruptly.
    rimmed = own.cut((-1, -1, -1), triple(n + 2 for n in own.shape))
    box = reach(rimmed, target)
    if any(s.start >= s.stop for s in box):
        return None
    start = triple(s.start for s in box)
    part = target.cut(start, triple(s.stop - s.start for s in box))
    soft = Volume(np.pad(patch.array, 1).astype(np.float32), rimmed)
    hit = np.asarray(resample(soft, part, 1, 0.0).array >= 0.5)
    if hit.sum() * target.voxel_mm3 < len(nearest) * source.voxel_mm3 / 2:
        hit = np.zeros(part.shape, bool)
        hit[tuple((nearest - start).T)] = True
    return patch_of(hit, start)


def reach(inner: Grid, outer: Grid) -> Box:
    """Return the voxels of ``outer`` that samples within ``inner`` can touch; may be empty."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in inner.shape[::-1]])).reshape(3, -1).T
    kji = outer.ijk(inner.lps(corners))[:, ::-1]
    low = np.clip(np.floor(kji.min(axis=0)), 0, outer.shape).astype(int)
    high = np.clip(np.ceil(kji.max(axis=0)) + 1, 0, outer.shape).astype(int)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high))
    return k, j, i


def triple(values: Iterable[int]) -> tuple[int, int, int]:
    """Return three whole numbers as a tuple."""
    k, j, i = (int(v) for v in values)
    return k, j, i


def _nearest(patch: Patch, source: Grid, target: Grid) -> npt.NDArray[np.intp]:
    """Return the target's voxel (N, 3), k j i, nearest to each voxel of the patch inside it."""
    at = np.argwhere(patch.array) + patch.start
    kji = np.rint(target.ijk(source.lps(at[:, ::-1]))[:, ::-1]).astype(np.intp)
    return kji[((kji >= 0) & (kji < target.shape)).all(axis=1)]
