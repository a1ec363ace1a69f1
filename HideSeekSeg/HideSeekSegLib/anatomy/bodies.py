"""The vertebral body, which is what the method looks at, from whatever segmentation there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..findings import BodySource
from ..imaging.volume import Grid, Volume, resample
from .canal import STEP_MM, Frame, find_frame, working_volume

Mask = npt.NDArray[np.bool_]

CUT = "cut by the field of view"
NO_CANAL = "no canal found: body cut by shape"

BODY_ONLY_SHARE = 0.9


@dataclass(frozen=True)
class Body:
    """A vertebral body on the grid of the vertebra it was found in.

    ``mask`` is bool (K, J, I); ``source`` says how it was found; ``flags`` are remarks for the
    reader of the result.
    """

    mask: Mask
    source: BodySource
    flags: tuple[str, ...]


def find_body(
    vertebra: Mask,
    grid: Grid,
    body: Mask | None = None,
    kind: Literal["vertebra", "body"] = "vertebra",
) -> Body:
    """The body of one vertebra.

    ``vertebra`` is bool (K, J, I) on ``grid``: a whole vertebra or, with ``kind`` "body", a body.
    ``body`` may mark the bodies of several vertebrae on the same grid: it is intersected.  A mask
    that is called a vertebra but has no posterior elements is taken as the body that it is.
    """
    if kind == "body":
        return Body(vertebra, "given", cut_flags(vertebra))
    if body is not None and (vertebra & body).any():
        both = vertebra & body
        return Body(both, "intersected", cut_flags(both))
    if not vertebra.any():
        return Body(vertebra, "derived", ())
    box = _bounding_box(vertebra)
    small = vertebra[box]
    found = _derive(small, grid.cut([s.start for s in box], small.shape))
    if found is None:
        return Body(vertebra, "given", cut_flags(vertebra))
    mask = np.zeros_like(vertebra)
    mask[box], flags = found
    return Body(mask, "derived", flags + cut_flags(mask))


def cut_flags(mask: Mask) -> tuple[str, ...]:
    """Whether a body (K, J, I) ends at the border of its volume and not where the bone ends."""
    faces = [np.take(mask, end, axis) for axis in range(3) for end in (0, -1)]
    return (CUT,) if any(face.any() for face in faces) else ()


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    """The box of a mask with one voxel of air, where the volume has it."""
    boxes = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        boxes.append(slice(max(0, int(used[0]) - 1), int(used[-1]) + 2))
    return boxes[0], boxes[1], boxes[2]


def _derive(mask: Mask, grid: Grid) -> tuple[Mask, tuple[str, ...]] | None:
    """The body within a whole vertebra and its flags; None where all of the mask is body."""
    frame = find_frame(mask, grid)
    working = working_volume(mask, grid, frame)
    solid = np.asarray(working.array) > 0.5
    depth = ndimage.distance_transform_edt(solid) * STEP_MM
    if not frame.canal:
        core = _open(solid, depth, 0.5)
        if core.sum() > BODY_ONLY_SHARE * solid.sum():
            return None
        flags: tuple[str, ...] = (NO_CANAL,)
    else:
        front = solid & _before_wall(solid, working.grid, frame)
        core = _open(front, ndimage.distance_transform_edt(front) * STEP_MM, 0.4)
        flags = ()
    return mask & _nearest(core, solid & ~core, working.grid, grid), flags


def _before_wall(solid: Mask, grid: Grid, frame: Frame) -> Mask:
    """Where (working grid) a voxel lies in front of the posterior wall of the body."""
    origin = np.rint(grid.ijk(frame.centre)).astype(int)[::-1]
    k, j, i = np.indices(solid.shape, sparse=True)
    # First air behind the middle of the body, met going backwards: the posterior wall.
    gap = np.argmax(~solid[:, origin[1] :, :], axis=1)
    wall = np.where(solid[:, origin[1], :], gap, -1)
    near = (np.abs(i - origin[2]) * STEP_MM < 6)[0, 0]
    kk, ii = np.nonzero((wall >= 0) & near[None, :])
    level = wall[kk, ii]
    keep = level < np.median(level) + 4
    design = np.stack([np.ones(keep.sum()), kk[keep], ii[keep]], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, level[keep], rcond=None)
    plane = coefficients[0] + coefficients[1] * k + coefficients[2] * i
    return np.asarray(j - origin[1] < plane)


def _open(solid: Mask, depth: npt.NDArray[np.float64], share: float) -> Mask:
    """What is left of a solid when thin parts are cut off, its own edges kept."""
    radius = share * depth.max()
    labels, n = ndimage.label(depth > radius)
    sizes = np.bincount(labels.ravel())[1:]
    seed = labels == 1 + int(np.argmax(sizes))
    return np.asarray(solid & (ndimage.distance_transform_edt(~seed) * STEP_MM < radius + 2.5))


def _nearest(core: Mask, rest: Mask, working: Grid, grid: Grid) -> Mask:
    """Voxels of ``grid`` that are nearer to the core than to the rest of the working solid."""
    if not rest.any():
        return np.ones(grid.shape, bool)
    to_core = ndimage.distance_transform_edt(~core)
    to_rest = ndimage.distance_transform_edt(~rest)
    nearer = Volume((to_rest - to_core).astype(np.float32), working)
    return np.asarray(resample(nearer, grid, fill=-1.0).array) > 0
