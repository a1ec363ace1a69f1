"""Where the vertebral bodies of a segmentation lie in the CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..findings import BodySource
from ..imaging.segmentation import Segmentation
from ..imaging.volume import EVERYWHERE, Box, Grid, Patch, Volume, move_patch, patch_of, triple
from .body import CUT, CUT_SHARE, Axes, Body, find_body
from .field_of_view import whole_sides
from .labelling import Assignment, body_segments, order
from .vertebra_frame import PATIENT_AXES, axes_of

Mask = npt.NDArray[np.bool_]

# What surrounds a body in its close-up: more than the largest crop shows of it.
MARGIN_MM = 60.0
# A body of which less than this share lies within the CT is called cut.
WHOLE = 0.99
# Marked bodies that hold so much of a vertebra are not bodies, if the vertebra has an arch.
WHOLE_MARKED = 0.9
# The third moment of whole vertebrae is 0.13 to 0.39 of their size, that of bodies at most 0.04.
ONE_SIDED = 0.1
NEAR_POSTERIOR = 0.5  # cosine
MARKED_WHOLE = "the given bodies contain arch and processes too: body cut out instead"


@dataclass(frozen=True)
class LocatedBody:
    """The body of one vertebra on the CT's grid; ``body`` is None where none of it is in the CT.

    ``axes`` and ``turn_known`` as of ``body.Body``.
    ``obstacle`` says why it cannot be analysed although it is there.
    """

    level: str
    body: Patch | None
    source: BodySource
    flags: tuple[str, ...]
    axes: Axes | None = field(default=None, repr=False, compare=False)
    turn_known: bool = False
    obstacle: str = ""


def levels_of(assignments: Sequence[Assignment]) -> tuple[str, ...]:
    """Return the levels that are segmented, from the head down."""
    return tuple(sorted({a.level for a in assignments if a.level and a.kind != "other"}, key=order))


def locate_body(
    level: str,
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    ct: Grid,
    bodies: Mask,
    reference: Axes = PATIENT_AXES,
) -> LocatedBody:
    """Find the body of one level, sought on the segmentation's grid and moved to the CT's.

    ``bodies`` (K, J, I) on the segmentation's grid marks bodies of any level, nothing where there
    are none.  Segments of the body itself are preferred to those of the whole vertebra.
    """
    own = [a for a in assignments if a.level == level]
    given = [a for a in own if a.kind == "body"]
    box = _surroundings(segmentation, given or own)
    if box is None:
        return LocatedBody(level, None, "given", (CUT,))
    # A body is cut where its array ends: not where the vertebra is whole and only the image ends.
    whole = whole_sides(level, given or own, assignments, segmentation, ct)
    room = [(int(low), int(high)) for low, high in whole]
    start = triple(s.start - low for s, (low, _) in zip(box, room))
    mask = np.pad(_union(segmentation, given or own, box), room)
    part = segmentation.grid.cut(start, triple(mask.shape))
    body, remarks = _find(mask, part, np.pad(bodies[box], room), bool(given), reference)
    moved, share = _move(patch_of(body.mask, start), segmentation.grid, ct)
    is_cut = share < WHOLE or (moved is not None and ends_at_border(moved, ct))
    cut = (CUT,) if is_cut and CUT not in body.flags else ()
    return LocatedBody(
        level, moved, body.source, (*body.flags, *remarks, *cut), body.axes, body.turn_known
    )


def spine_axes(segmentation: Segmentation, assignments: Sequence[Assignment]) -> dict[str, Axes]:
    """Return for every level the axes (rows: superior, posterior, left; LPS) of the spine there.

    They turn with the patient.  Superior follows the line through the middles of a vertebra's
    neighbours, so that a vertebra of a severely bent spine is sought where it can be; posterior is
    where its arch lies, as far as the label holds one, else as near to the patient's as superior
    allows.  A vertebra without neighbours has the patient's superior axis.
    """
    middles: dict[str, npt.NDArray[np.float64]] = {}
    behind: dict[str, npt.NDArray[np.float64]] = {}
    for level in levels_of(assignments):
        own = [a for a in assignments if a.level == level and a.kind != "other"]
        box = _surroundings(segmentation, own)
        if box is not None:
            at = np.argwhere(_union(segmentation, own, box)) + [s.start for s in box]
            points = segmentation.grid.lps(at[:, ::-1])
            middles[level] = points.mean(axis=0)
            behind[level] = _arch_side(points - middles[level])
    levels = list(middles)
    axes = dict.fromkeys(levels_of(assignments), PATIENT_AXES)
    for n, level in enumerate(levels):
        line = middles[levels[max(n - 1, 0)]] - middles[levels[min(n + 1, len(levels) - 1)]]
        length = float(np.linalg.norm(line))
        superior = line / length if length > 0 else PATIENT_AXES[0]
        # Levels that run backwards are another check's to find: here up is up.
        superior = superior if superior @ PATIENT_AXES[0] >= 0 else -superior
        axes[level] = axes_of(superior, behind[level])
    return axes


def _arch_side(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the unit vector (LPS) towards the arch of points (n, 3: mm from their middle).

    Arch and processes reach far from the middle on one side, which the third moment shows.  The
    patient's posterior axis where there is no such side, as in a label of the body alone, and where
    it lies far from that axis.
    """
    squares = (points**2).sum(axis=1)
    moment = squares @ points / len(points) / squares.mean() ** 1.5
    size = float(np.linalg.norm(moment))
    if size < ONE_SIDED or moment @ PATIENT_AXES[1] < NEAR_POSTERIOR * size:
        return PATIENT_AXES[1]
    return np.asarray(moment / size)


def all_bodies(
    segmentation: Segmentation, assignments: Sequence[Assignment], others: Segmentation | None
) -> Mask:
    """Return the voxels (K, J, I) on the segmentation's grid that are in some vertebral body.

    From segments that hold the bodies of all vertebrae, and from those of ``others`` that are
    bodies (see ``body_segments``).
    """
    marked = _union(segmentation, [a for a in assignments if a.kind == "body"])
    if others is not None:
        own = np.any([others.mask(segment) for segment in body_segments(others)], axis=0)
        patch, _ = move(own, others.grid, segmentation.grid)
        if patch is not None:
            patch.paint(marked)
    return marked


def _find(
    mask: Mask, grid: Grid, bodies: Mask, is_body: bool, reference: Axes
) -> tuple[Body, tuple[str, ...]]:
    """Find the body in a label, and remarks on how.

    Marks of bodies that take arch and processes along are not used.
    """
    if is_body:
        return find_body(mask, grid, None, "body", reference), ()
    body = find_body(mask, grid, bodies, "vertebra", reference)
    if body.source == "intersected" and body.mask.sum() > WHOLE_MARKED * mask.sum():
        derived = find_body(mask, grid, None, "vertebra", reference)
        if derived.source == "derived" and derived.mask.sum() < WHOLE_MARKED * body.mask.sum():
            return derived, (MARKED_WHOLE,)
    return body, ()


def _surroundings(segmentation: Segmentation, assignments: Sequence[Assignment]) -> Box | None:
    """Return the box around some segments and a voxel more; None where they are empty.

    A body touches the border of this box only where it touches that of the whole grid.  Whole
    grids hold a hundred times a vertebra, and every step would go through all of it.
    """
    boxes = [segmentation.box(assignment.segment) for assignment in assignments]
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    k, j, i = (
        slice(max(min(s.start for s in own) - 1, 0), min(max(s.stop for s in own) + 1, n))
        for own, n in zip(zip(*found), segmentation.grid.shape)
    )
    return k, j, i


def _union(
    segmentation: Segmentation, assignments: Sequence[Assignment], box: Box = EVERYWHERE
) -> Mask:
    mask = np.zeros(segmentation.grid.shape, bool)[box]
    for assignment in assignments:
        mask |= segmentation.mask(assignment.segment, box)
    return mask


def move(mask: Mask, grid: Grid, target: Grid) -> tuple[Patch | None, float]:
    """Return a mask (K, J, I) on another grid, and which share of it lies in that grid's volume.

    None where nothing arrives.
    """
    return _move(patch_of(mask), grid, target)


def _move(patch: Patch | None, grid: Grid, target: Grid) -> tuple[Patch | None, float]:
    moved = None if patch is None else move_patch(patch, grid, target)
    if patch is None or moved is None:
        return None, 0.0
    return moved, _share_inside(patch, grid, target)


def ends_at_border(body: Patch, ct: Grid) -> bool:
    """Return whether a body on the CT's grid ends where the CT does and not where the bone ends.

    As ``body.cut_flags`` on the segmentation's grid, which may be larger than the CT.
    """
    for axis, side in enumerate(body.box):
        sections = body.array.sum(axis=tuple(a for a in range(3) if a != axis))
        first = sections[0] if side.start == 0 else 0
        last = sections[-1] if side.stop == ct.shape[axis] else 0
        if max(first, last) > CUT_SHARE * sections.max():
            return True
    return False


def _share_inside(patch: Patch, grid: Grid, target: Grid) -> float:
    """Return the share of the patch's voxel centres that lie in the target's volume."""
    ijk = target.ijk(grid.lps((np.argwhere(patch.array) + patch.start)[:, ::-1]))
    inside = (ijk >= -0.5) & (ijk <= np.array(target.shape[::-1]) - 0.5)
    return float(inside.all(axis=1).mean())


def close_up(ct: Volume, body: Patch) -> tuple[Volume, Mask, tuple[int, int, int]]:
    """Return the CT around a body (a view), the body in it, and where it begins (k, j, i)."""
    margin = np.ceil(MARGIN_MM / ct.grid.spacing[::-1]).astype(int)
    low = np.maximum(np.array(body.start) - margin, 0)
    high = np.minimum(np.add(body.start, body.array.shape) + margin, ct.grid.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    array = ct.array[box]
    mask = np.zeros(array.shape, bool)
    start = triple(low)
    Patch(body.array, triple(np.subtract(body.start, start))).paint(mask)
    return Volume(array, ct.grid.cut(start, array.shape), ct.name), mask, start
