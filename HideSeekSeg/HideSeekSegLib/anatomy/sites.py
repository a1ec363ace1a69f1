"""Where the vertebral bodies of a segmentation lie in the CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..findings import BodySource, Patch
from ..imaging.files import Segmentation
from ..imaging.volume import Grid, Volume, resample
from .bodies import CUT, find_body
from .crops import bounding_box
from .levels import Assignment, order

Mask = npt.NDArray[np.bool_]

# What surrounds a body in its close-up: more than the largest crop shows of it.
MARGIN_MM = 60.0
# A body of which less than this share lies within the CT is called cut.
WHOLE = 0.99


@dataclass(frozen=True)
class Site:
    """The body of one vertebra on the CT's grid; ``body`` is None where none of it is in the CT."""

    level: str
    body: Patch | None
    source: BodySource
    flags: tuple[str, ...]


def levels_of(assignments: Sequence[Assignment]) -> tuple[str, ...]:
    """The levels that are segmented, from the head down."""
    return tuple(sorted({a.level for a in assignments if a.level and a.kind != "other"}, key=order))


def find_site(
    level: str,
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    ct: Grid,
    bodies: Mask,
) -> Site:
    """The body of one level, sought on the segmentation's grid and moved to the CT's.

    ``bodies`` (K, J, I) on the segmentation's grid marks bodies of any level, nothing where there
    are none.  Segments of the body itself are preferred to those of the whole vertebra.
    """
    own = [a for a in assignments if a.level == level]
    given = [a for a in own if a.kind == "body"]
    mask = _union(segmentation, given or own)
    body = find_body(mask, segmentation.grid, bodies, "body" if given else "vertebra")
    moved, share = move(body.mask, segmentation.grid, ct)
    cut = (CUT,) if share < WHOLE and CUT not in body.flags else ()
    return Site(level, moved, body.source, (*body.flags, *cut))


def all_bodies(
    segmentation: Segmentation, assignments: Sequence[Assignment], others: Segmentation | None
) -> Mask:
    """Voxels (K, J, I) on the segmentation's grid that are in some vertebral body.

    From segments that hold the bodies of all vertebrae, and from every segment of ``others``.
    """
    marked = _union(segmentation, [a for a in assignments if a.kind == "body"])
    if others is not None:
        everything = np.any([layer.array > 0 for layer in others.layers], axis=0)
        patch, _ = move(everything, others.grid, segmentation.grid)
        if patch is not None:
            patch.paint(marked)
    return marked


def _union(segmentation: Segmentation, assignments: Sequence[Assignment]) -> Mask:
    mask = np.zeros(segmentation.grid.shape, bool)
    for assignment in assignments:
        mask |= segmentation.mask(assignment.segment)
    return mask


def move(mask: Mask, grid: Grid, target: Grid) -> tuple[Patch | None, float]:
    """A mask (K, J, I) on another grid, and which share of it lies in that grid's volume.

    Linear interpolation at one half, so that the outline of a coarse mask does not turn to stairs.
    None where nothing arrives.
    """
    if not mask.any():
        return None, 0.0
    box = bounding_box(mask)
    if grid.matches(target):
        return Patch(mask[box].copy(), _starts(box)), 1.0
    source = _grown(grid.cut(_starts(box), mask[box].shape))
    reach = _reach(source, target)
    if any(s.start >= s.stop for s in reach):
        return None, 0.0
    part = target.cut(_starts(reach), tuple(s.stop - s.start for s in reach))
    soft = np.pad(mask[box], 1).astype(np.float32)
    hit = resample(Volume(soft, source), part, 1, 0.0).array >= 0.5
    if not hit.any():
        return None, 0.0
    tight = bounding_box(hit)
    start = tuple(r.start + t.start for r, t in zip(reach, tight))
    return Patch(hit[tight], start), _share_inside(mask, grid, target)


def _share_inside(mask: Mask, grid: Grid, target: Grid) -> float:
    """The share of the mask's voxel centres that lie in the target's volume."""
    ijk = target.ijk(grid.lps(np.argwhere(mask)[:, ::-1]))
    inside = (ijk >= -0.5) & (ijk <= np.array(target.shape[::-1]) - 0.5)
    return float(inside.all(axis=1).mean())


def _grown(grid: Grid) -> Grid:
    k, j, i = grid.shape
    return grid.cut((-1, -1, -1), (k + 2, j + 2, i + 2))


def _starts(box: Sequence[slice]) -> tuple[int, int, int]:
    k, j, i = (int(s.start) for s in box)
    return k, j, i


def _reach(source: Grid, target: Grid) -> tuple[slice, ...]:
    """The box (k, j, i) of ``target`` that the source's voxels cover."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in source.shape[::-1]])).reshape(3, -1).T
    kji = target.ijk(source.lps(corners))[:, ::-1]
    low = np.clip(np.floor(kji.min(axis=0)), 0, target.shape).astype(int)
    high = np.clip(np.ceil(kji.max(axis=0)) + 1, 0, target.shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high))


def close_up(ct: Volume, body: Patch) -> tuple[Volume, Mask, tuple[int, int, int]]:
    """The CT around a body (a view, no copy), the body in it, and where it begins (k, j, i)."""
    margin = np.ceil(MARGIN_MM / ct.grid.spacing[::-1]).astype(int)
    low = np.maximum(np.array(body.start) - margin, 0)
    high = np.minimum(np.add(body.start, body.array.shape) + margin, ct.grid.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    array = ct.array[box]
    mask = np.zeros(array.shape, bool)
    Patch(body.array, _starts([slice(s - b.start, None) for s, b in zip(body.start, box)])).paint(
        mask
    )
    return Volume(array, ct.grid.cut(_starts(box), array.shape), ct.name), mask, _starts(box)
