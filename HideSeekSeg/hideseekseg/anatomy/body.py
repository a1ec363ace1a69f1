"""The vertebral body, which is what the method looks at, from whatever segmentation there is.

A whole vertebra is cut in its own frame (see ``vertebra_frame``): the posterior wall of the body is
followed where it is free and bridged by a plane where pedicles leave it; what then still sticks out
behind (roots of pedicles and of transverse processes) is removed by a morphological opening.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..findings import BodySource
from ..imaging.volume import Grid, Volume, bounding_box, resample, triple
from .crop import as_crop_axes, body_axes
from .vertebra_frame import (
    PATIENT_AXES,
    STEP_MM,
    Frame,
    axes_of,
    find_frame,
    solid_on,
    working_grid,
)
from .vertebra_shape import depth_of

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]
Axes = npt.NDArray[np.float64]


class BodyFlag(str, Enum):
    """Remark on how a body was found; its value is the text for the reader."""

    CUT = "cut by the field of view"
    NO_CANAL = "no canal found: body cut by shape"

    __str__ = str.__str__


CUT, NO_CANAL = BodyFlag

MIDDLE_MM = 5.0  # half width of the stretch of wall that is surely between the pedicles
FREE_WALL_MM = 2.5  # how far the wall may bulge behind its plane: beyond begins a pedicle
OPENING = 0.4  # radius of the opening, as a share of the body's largest inscribed ball
ROOT_MM = 2.5  # what may stand out beyond the opening at the wall, where processes begin
OSTEOPHYTE_SLOPE = 0.5  # and how much more for each mm before it, where only osteophytes do
BODY_ONLY_SHARE = 0.97  # a mask of which less than 3 % would be cut off is a body
AROUND_CORE = 6  # voxels of the working grid
SPECK_SHARE = 0.05
SMALLEST_OVERLAP = 0.1
CUT_SHARE = 0.05


@dataclass(frozen=True)
class Body:
    """A vertebral body on the grid of the vertebra it was found in.

    ``mask`` is bool (K, J, I); ``source`` says how it was found; ``flags`` are remarks for the
    reader of the result.  ``axes`` (rows: unit vectors in LPS to the vertebra's superior, posterior
    and left) are the vertebra's own where its canal shows them (``turn_known``), else those it was
    sought with.
    """

    mask: Mask
    source: BodySource
    flags: tuple[BodyFlag, ...]
    axes: Axes = field(default_factory=PATIENT_AXES.copy, repr=False, compare=False)
    turn_known: bool = False


def find_body(
    vertebra: Mask,
    grid: Grid,
    body: Mask | None = None,
    kind: Literal["vertebra", "body"] = "vertebra",
    reference: Axes = PATIENT_AXES,
) -> Body:
    """Return the body of one vertebra.

    ``vertebra`` is bool (K, J, I) on ``grid``: a whole vertebra or, with ``kind`` "body", a body.
    ``body`` may mark the bodies of several vertebrae on the same grid: it is intersected, unless
    it misses this vertebra.  A mask that is called a vertebra but has no posterior elements is
    taken as the body that it is; so is one in which no body can be told from the rest.
    ``reference`` are axes as of ``Body.axes`` near which the vertebra's own are sought.
    """
    if kind == "body" or not vertebra.any():
        return Body(vertebra, "given", cut_flags(vertebra), reference)
    box = bounding_box(vertebra)
    small = vertebra[box]
    if body is not None:
        both = small & body[box]
        if both.sum() > SMALLEST_OVERLAP * small.sum():
            part = grid.cut([s.start for s in box], small.shape)
            whole = find_frame(_without_specks(small), part, reference)
            axes, known = _own_axes(both, part, whole, reference)
            return _body(both, box, vertebra.shape, "intersected", axes, known)
    derived = _derive(small, grid.cut([s.start for s in box], small.shape), reference)
    if derived is None:
        return Body(vertebra, "given", cut_flags(vertebra), reference)
    return _body(derived[0], box, vertebra.shape, "derived", *derived[1:])


def _own_axes(body: Mask, grid: Grid, frame: Frame | None, reference: Axes) -> tuple[Axes, bool]:
    """Return the axes of a vertebra of which posterior runs from its body to its canal.

    The middles of the two are known to a fraction of a millimetre, so that the crop turns with the
    vertebra; superior is what the endplates face, as light through the canal leaves it uncertain.
    ``reference`` and False where no canal was found.
    """
    if frame is None or frame.canal is None:
        return reference, False
    points = grid.lps(np.argwhere(body)[:, ::-1])
    behind = frame.canal - points.mean(axis=0)
    start = as_crop_axes(axes_of(frame.axes[0], behind))
    return axes_of(-body_axes(points, start=start)[:, 0], behind), True


def cut_flags(body: Mask) -> tuple[BodyFlag, ...]:
    """Return a flag where a body (K, J, I) ends at its volume's border and not where bone does."""
    if not body.any():
        return ()
    box = bounding_box(body)
    small = body[box]
    for axis, side in enumerate(box):
        sections = small.sum(axis=tuple(a for a in range(3) if a != axis))
        first = sections[0] if side.start == 0 else 0
        last = sections[-1] if side.stop == body.shape[axis] else 0
        if max(first, last) > CUT_SHARE * sections.max():
            return (CUT,)
    return ()


def _body(
    small: Mask,
    box: Box,
    shape: tuple[int, ...],
    source: BodySource,
    axes: Axes,
    turn_known: bool,
    flags: tuple[BodyFlag, ...] = (),
) -> Body:
    """Put a body found in a box on the whole grid."""
    mask = np.zeros(shape, bool)
    mask[box] = small
    return Body(mask, source, flags + cut_flags(mask), axes, turn_known)


def _derive(
    mask: Mask, grid: Grid, reference: Axes
) -> tuple[Mask, Axes, bool, tuple[BodyFlag, ...]] | None:
    """Return the body within a whole vertebra, the vertebra's axes and flags.

    None where there is nothing to cut off.
    """
    mask = _without_specks(mask)
    frame = find_frame(mask, grid, reference)
    if frame is None:
        return None
    work, solid = _working(mask, grid, frame)
    frame = frame.turned(_wall_plane(_columns(solid, work, frame))[2])
    work, solid = _working(mask, grid, frame)
    core = _without_roots(solid, _room_before_wall(solid, _columns(solid, work, frame)))
    body_only = frame.canal is None and core.sum() > BODY_ONLY_SHARE * solid.sum()
    if body_only or not core.any():
        return None
    flags: tuple[BodyFlag, ...] = () if frame.canal is not None else (NO_CANAL,)
    body = mask & _nearer(core, solid & ~core, work, grid)
    return (body, *_own_axes(body, grid, frame, reference), flags) if body.any() else None


def _working(mask: Mask, grid: Grid, frame: Frame) -> tuple[Grid, Mask]:
    """Return the working grid of a frame and the vertebra on it (superior, posterior, left)."""
    work = working_grid(mask, grid, frame)
    return work, solid_on(work, mask, grid)


def _without_specks(mask: Mask) -> Mask:
    """Return a mask without islands that are small beside its largest part (mislabelled voxels)."""
    labels, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= SPECK_SHARE * sizes.max())[labels])


@dataclass(frozen=True)
class _Columns:
    """Where the columns end that run backwards from the middle of the body to the first air.

    ``k``, ``i`` are their indices on the working grid; ``end`` is the index j of the air.
    ``origin`` (k, j, i) is a voxel in the body, ``middle`` the index i of the midline.
    """

    k: npt.NDArray[np.int_]
    i: npt.NDArray[np.int_]
    end: npt.NDArray[np.int_]
    origin: tuple[int, int, int]
    middle: float


def _columns(solid: Mask, work: Grid, frame: Frame) -> _Columns:
    i0, j0, k0 = (round(float(n)) for n in work.ijk(frame.centre))
    k, i = np.nonzero(solid[:, j0, :])
    end = j0 + np.argmax(~solid[:, j0:, :], axis=1)[k, i]
    midline = frame.centre if frame.canal is None else frame.canal
    return _Columns(k, i, end, (k0, j0, i0), float(work.ijk(midline)[0]))


def _wall_plane(columns: _Columns) -> npt.NDArray[np.float64]:
    """Return the posterior wall as j = p[0] + p[1] k + p[2] i, indices counted from the origin.

    Fitted to the ends of the columns, leaving out those that run into a pedicle or leave the body
    at its rounded side.  The frame's left is given the weight of a second witness for p[2]: a short
    or uneven wall alone leaves the turn about the superior axis uncertain by 10 degrees.
    """
    k0, j0, i0 = columns.origin
    end = (columns.end - j0).astype(float)
    if not len(end):  # a thin mask, turned, may miss the plane through its middle
        return np.zeros(3)
    design = np.stack([np.ones(len(end)), columns.k - k0, columns.i - i0], axis=1)
    slack = FREE_WALL_MM / STEP_MM
    middle = np.abs(columns.i - columns.middle) * STEP_MM < MIDDLE_MM
    middle = middle if middle.any() else np.ones_like(middle)
    used = middle & (end < np.median(end[middle]) + slack)
    for _ in range(5):
        witness = [0.0, 0.0, float(np.linalg.norm(design[used, 2]))]
        rows = np.vstack([design[used], witness])
        plane = np.linalg.lstsq(rows, np.append(end[used], 0.0), rcond=None)[0]
        used = np.abs(end - design @ plane) < slack
    return np.asarray(plane)


def _room_before_wall(solid: Mask, columns: _Columns) -> npt.NDArray[np.float64]:
    """Distance (mm, negative behind) of each voxel of the working grid from the posterior wall.

    The wall is the plane, but for columns that end just behind it: there it is where they end.
    """
    plane = _wall_plane(columns)
    k, j, i = (np.arange(n) - o for n, o in zip(solid.shape, columns.origin))
    wall = plane[0] + plane[1] * k[:, None] + plane[2] * i[None, :]
    at = columns.k, columns.i
    end = columns.end - columns.origin[1]
    free = (end > wall[at]) & (end < wall[at] + FREE_WALL_MM / STEP_MM)
    wall[at] = np.where(free, end, wall[at])
    return np.asarray((wall[:, None, :] - j[None, :, None]) * STEP_MM)


def _without_roots(solid: Mask, room: npt.NDArray[np.float64]) -> Mask:
    """Cut the body: what lies before the wall, less the roots of the processes, osteophytes kept.

    A ball that fits into the body all over does not fit into the processes.  What it does not reach
    is kept by how near it is, and the further before the wall (``room``, mm) the more generously.
    """
    core = solid & (room > 0)
    if not core.any():
        return core
    box = bounding_box(core, margin=1)
    front = core[box]
    depth = depth_of(front) * STEP_MM
    radius = OPENING * depth.max()
    labels, _ = ndimage.label(depth > radius)
    seed = labels == labels[np.unravel_index(np.argmax(depth), depth.shape)]
    beyond = ndimage.distance_transform_edt(~seed) * STEP_MM - radius
    core[box] = front & (beyond < ROOT_MM + OSTEOPHYTE_SLOPE * room[box])
    return np.asarray(core)


def _nearer(core: Mask, rest: Mask, work: Grid, grid: Grid) -> Mask:
    """Return where (voxels of ``grid``) the core is nearer than the rest of the working solid.

    Nothing beyond ``AROUND_CORE`` is: distances in the whole solid would take several times longer.
    """
    box = bounding_box(core, margin=AROUND_CORE)
    core, rest = core[box], rest[box]
    if not rest.any():
        return np.ones(grid.shape, bool)
    to_core, to_rest = (ndimage.distance_transform_edt(~part) for part in (core, rest))
    near_core = work.cut([s.start for s in box], triple(core.shape))
    nearer = Volume((to_rest - to_core).astype(np.float32), near_core)
    return np.asarray(resample(nearer, grid, fill=-1.0).array > np.float32(0))
