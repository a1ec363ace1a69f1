"""The vertebral body, which is what the method looks at, from whatever segmentation there is.

A whole vertebra is cut in its own frame (see ``canal``): the posterior wall of the body is followed
where it is free and bridged by a plane where pedicles leave it; what then still sticks out behind
(roots of pedicles and of transverse processes) is opened away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..findings import BodySource
from ..imaging.volume import Grid, Volume, resample
from .canal import STEP_MM, find_frame, working_volume

Mask = npt.NDArray[np.bool_]

CUT = "cut by the field of view"
NO_CANAL = "no canal found: body cut by shape"

FREE_WALL_MM = 2.5  # how far the wall may bulge behind its plane: beyond begins a pedicle
STUMP_MM = 2.5  # what may stand out beyond the opening's ball, behind the middle of the body
OSTEOPHYTE_MM = 10.0  # and before it, where there are no processes but there are osteophytes
OPENING = 0.4  # radius of the opening, as a share of the body's largest inscribed ball
BODY_ONLY_SHARE = 0.95
SMALLEST_OVERLAP = 0.1
CUT_SHARE = 0.05


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
    ``body`` may mark the bodies of several vertebrae on the same grid: it is intersected, unless
    it misses this vertebra.  A mask that is called a vertebra but has no posterior elements is
    taken as the body that it is.
    """
    if kind == "body" or not vertebra.any():
        return Body(vertebra, "given", cut_flags(vertebra))
    if body is not None:
        both = vertebra & body
        if both.sum() > SMALLEST_OVERLAP * vertebra.sum():
            return Body(both, "intersected", cut_flags(both))
    box = _bounding_box(vertebra)
    small = vertebra[box]
    derived = _derive(small, grid.cut([s.start for s in box], small.shape))
    if derived is None:
        return Body(vertebra, "given", cut_flags(vertebra))
    mask = np.zeros_like(vertebra)
    mask[box], flags = derived
    return Body(mask, "derived", flags + cut_flags(mask))


def cut_flags(body: Mask) -> tuple[str, ...]:
    """Whether a body (K, J, I) ends at the border of its volume and not where the bone ends."""
    for axis in range(3):
        sections = body.sum(axis=tuple(a for a in range(3) if a != axis))
        if max(sections[0], sections[-1]) > CUT_SHARE * sections.max():
            return (CUT,)
    return ()


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    """The box of a mask that is not empty."""
    rows = np.flatnonzero(mask.any(axis=(1, 2)))
    k = slice(int(rows[0]), int(rows[-1]) + 1)
    j, i = ndimage.find_objects(mask[k].any(axis=0).astype(np.uint8))[0]
    return k, j, i


def _derive(mask: Mask, grid: Grid) -> tuple[Mask, tuple[str, ...]] | None:
    """The body within a whole vertebra and its flags; None where all of the mask is body."""
    mask = _without_specks(mask)
    frame = find_frame(mask, grid)
    working = working_volume(mask, grid, frame)
    solid = np.asarray(working.array) > 0.5
    centre = np.rint(working.grid.ijk(frame.centre)).astype(int)[::-1]
    core = _open(solid & _before_wall(solid, centre), centre)
    if not frame.canal and core.sum() > BODY_ONLY_SHARE * solid.sum():
        return None
    flags = () if frame.canal else (NO_CANAL,)
    return mask & _nearer(core, solid & ~core, working.grid, grid), flags


def _without_specks(mask: Mask) -> Mask:
    """A mask without islands below a twentieth of its largest part (mislabelled voxels)."""
    labels, n = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= 0.05 * sizes.max())[labels])


def _before_wall(solid: Mask, centre: npt.NDArray[np.int_]) -> Mask:
    """Where the working grid (superior, posterior, left) lies in front of the posterior wall.

    Every column is followed backwards from the middle of the body to the first air.  A plane
    through these ends, from which columns that run into a pedicle or leave the body at its rounded
    side are dropped, is the wall where a column does not end close to it.
    """
    k, i = np.nonzero(solid[:, centre[1], :])
    end = np.argmax(~solid[:, centre[1] :, :], axis=1)[k, i].astype(float)
    design = np.stack([np.ones(len(k)), k - centre[0], i - centre[2]], axis=1)
    middle = np.abs(design[:, 2]) * STEP_MM < 5
    used = middle & (end < np.median(end[middle]) + 3 / STEP_MM)
    for _ in range(5):
        plane = np.linalg.lstsq(design[used], end[used], rcond=None)[0]
        used = np.abs(end - design @ plane) * STEP_MM < FREE_WALL_MM
    kji = [n - c for n, c in zip(np.indices(solid.shape, sparse=True), centre)]
    wall = np.asarray(plane[0] + plane[1] * kji[0] + plane[2] * kji[2])
    free = (end > wall[k, 0, i]) & (end < wall[k, 0, i] + FREE_WALL_MM / STEP_MM)
    wall[k[free], 0, i[free]] = end[free]
    return np.asarray(kji[1] < wall)


def _open(front: Mask, centre: npt.NDArray[np.int_]) -> Mask:
    """The body without the roots of its processes, its own edges and osteophytes kept.

    ``front`` is what lies before the wall, on the working grid; the ball that fits everywhere in
    the body does not fit into the processes, which leave it in its posterior half.
    """
    depth = ndimage.distance_transform_edt(front) * STEP_MM
    radius = OPENING * depth.max()
    labels, _ = ndimage.label(depth > radius)
    seed = labels == labels[np.unravel_index(np.argmax(depth), depth.shape)]
    beyond = ndimage.distance_transform_edt(~seed) * STEP_MM - radius
    posterior = np.arange(front.shape[1])[None, :, None] >= centre[1]
    return np.asarray(front & (beyond < np.where(posterior, STUMP_MM, OSTEOPHYTE_MM)))


def _nearer(core: Mask, rest: Mask, working: Grid, grid: Grid) -> Mask:
    """Where (voxels of ``grid``) the core is nearer than the rest of the working solid."""
    if not rest.any():
        return np.ones(grid.shape, bool)
    to_core, to_rest = (ndimage.distance_transform_edt(~part) for part in (core, rest))
    nearer = Volume((to_rest - to_core).astype(np.float32), working)
    return np.asarray(resample(nearer, grid, fill=-1.0).array) > 0
