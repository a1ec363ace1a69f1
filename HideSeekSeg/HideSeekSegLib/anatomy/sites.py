"""Where the vertebral bodies of a segmentation lie in the CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..findings import BodySource
from ..imaging.files import Segmentation
from ..imaging.patches import Patch, move_patch, patch_of, triple
from ..imaging.volume import Grid, Volume
from .bodies import CUT, find_body
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

    None where nothing arrives.
    """
    patch = patch_of(mask)
    moved = None if patch is None else move_patch(patch, grid, target)
    return (None, 0.0) if moved is None else (moved, _share_inside(mask, grid, target))


def _share_inside(mask: Mask, grid: Grid, target: Grid) -> float:
    """The share of the mask's voxel centres that lie in the target's volume."""
    ijk = target.ijk(grid.lps(np.argwhere(mask)[:, ::-1]))
    inside = (ijk >= -0.5) & (ijk <= np.array(target.shape[::-1]) - 0.5)
    return float(inside.all(axis=1).mean())


def close_up(ct: Volume, body: Patch) -> tuple[Volume, Mask, tuple[int, int, int]]:
    """The CT around a body (a view, no copy), the body in it, and where it begins (k, j, i)."""
    margin = np.ceil(MARGIN_MM / ct.grid.spacing[::-1]).astype(int)
    low = np.maximum(np.array(body.start) - margin, 0)
    high = np.minimum(np.add(body.start, body.array.shape) + margin, ct.grid.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    array = ct.array[box]
    mask = np.zeros(array.shape, bool)
    start = triple(low)
    Patch(body.array, triple(np.subtract(body.start, start))).paint(mask)
    return Volume(array, ct.grid.cut(start, array.shape), ct.name), mask, start
