"""Whether a label ends because its segmentation's image does, or because the vertebra does.

Programs save segmentations no larger than what is segmented: labels then touch the border of the
image although none is cut.  Where the CT goes on beyond that border, a cut label ends there in a
broad face and is shorter than its neighbours suggest; one that is merely wrapped tightly is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..imaging.segmentation import Segmentation
from ..imaging.volume import Box, Grid
from .label_conventions import LEVELS
from .labelling import Assignment
from .level_order import PITCH_MM

# Whole bodies seldom end in a face of half of their largest section in thin slices, but often in
# those of 3 mm and more; arch and processes make the largest section of a vertebra larger.
BROAD = {True: 0.5, False: 0.25}  # of a label of the body alone, of a whole vertebra
SHORT = 0.95  # of the extent that its neighbours suggest, of the label and a voxel more
NEIGHBOURS = 3

Sides = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]


def is_cut(
    level: str,
    own: Sequence[Assignment],
    assignments: Sequence[Assignment],
    segmentation: Segmentation,
    ct: Grid,
) -> bool:
    """Return whether a level's label touches the border of its image where it may be cut there."""
    box = _box_of(segmentation, own)
    if box is None:
        return False
    whole = whole_sides(level, own, assignments, segmentation, ct)
    touched = _touched(box, segmentation.grid.shape)
    return any(there and not known for a, b in zip(touched, whole) for there, known in zip(a, b))


def whole_sides(
    level: str,
    own: Sequence[Assignment],
    assignments: Sequence[Assignment],
    segmentation: Segmentation,
    ct: Grid,
) -> Sides:
    """Return at which sides (low, high of k, j, i) a label is whole although its image ends.

    ``own`` are the assignments that the label is made of, all of one kind; ``assignments`` are all
    of the segmentation, whose labels tell how long this one ought to be.
    """
    found = [[False, False] for _ in range(3)]
    box, grid = _box_of(segmentation, own), segmentation.grid
    touched = _touched(box, grid.shape) if box is not None else ()
    if box is None or not any(any(pair) for pair in touched):
        return _sides(found)
    mask = np.any([segmentation.mask(a.segment, box) for a in own], axis=0)
    for axis, pair in enumerate(touched):
        sections = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        for end in (0, 1):
            if not pair[end] or not _goes_on(mask, box, axis, end, grid, ct):
                continue
            broad = sections[-end] > BROAD[own[0].kind == "body"] * sections.max()
            short = broad and _is_short(level, own, assignments, segmentation, axis)
            found[axis][end] = not short
    return _sides(found)


def _sides(found: Sequence[Sequence[bool]]) -> Sides:
    k, j, i = ((low, high) for low, high in found)
    return k, j, i


def _box_of(segmentation: Segmentation, own: Sequence[Assignment]) -> Box | None:
    boxes = [box for box in (segmentation.box(a.segment) for a in own) if box is not None]
    if not boxes:
        return None
    k, j, i = (slice(min(s.start for s in b), max(s.stop for s in b)) for b in zip(*boxes))
    return k, j, i


def _touched(box: Box, shape: tuple[int, int, int]) -> list[tuple[bool, bool]]:
    return [(side.start == 0, side.stop == n) for side, n in zip(box, shape)]


def _goes_on(
    mask: npt.NDArray[np.bool_], box: Box, axis: int, end: int, grid: Grid, ct: Grid
) -> bool:
    """Return whether the CT shows what lies beyond a label's last voxels at a side of its image.

    A whole voxel of the segmentation: a coarser image ends by less than that before the CT does.
    """
    face = np.argwhere(np.take(mask, [-end], axis=axis)).astype(float)
    face[:, axis] = mask.shape[axis] - 1 + 1.5 if end else -1.5
    beyond = face + [side.start for side in box]
    ijk = ct.ijk(grid.lps(beyond[:, ::-1]))
    inside = (ijk >= -0.51) & (ijk <= np.array(ct.shape[::-1]) - 0.49)  # rounded headers
    return bool(inside.all(axis=1).mean() > 0.5)


def _is_short(
    level: str,
    own: Sequence[Assignment],
    assignments: Sequence[Assignment],
    segmentation: Segmentation,
    axis: int,
) -> bool:
    """Return whether a label is shorter along an axis than its neighbours suggest.

    Those that touch the border at that axis are no witnesses.  Without any it is taken to be.
    """
    kind, n = own[0].kind, segmentation.grid.shape[axis]
    extents: dict[str, float] = {}
    for other in dict.fromkeys(a.level for a in assignments if a.level and a.level != level):
        parts = [a for a in assignments if a.level == other and a.kind == kind]
        box = _box_of(segmentation, parts)
        if other is not None and box is not None and box[axis].start > 0 and box[axis].stop < n:
            extents[other] = (box[axis].stop - box[axis].start) / PITCH_MM[other]
    at = LEVELS.index(level)
    near = sorted(extents, key=lambda other: abs(LEVELS.index(other) - at))[:NEIGHBOURS]
    box = _box_of(segmentation, own)
    if not near or box is None:
        return True
    usual = float(np.median([extents[other] for other in near])) * PITCH_MM[level]
    return box[axis].stop - box[axis].start + 1 < SHORT * usual
