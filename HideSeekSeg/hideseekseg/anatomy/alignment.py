"""Whether CT, segmentation and anatomy agree, before any vertebra is looked at.

The outlines of a segmentation follow the bone of the CT or lie beside it.  All vertebrae are judged
together: one alone may be destroyed, all of them shift together where a header is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..imaging.patch import Box
from ..imaging.segmentation import Segmentation
from ..imaging.volume import Grid, Volume
from .labelling import Assignment
from .orientation import GO_ON, contradiction

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

INSIDE_MM, OUTSIDE_MM = 1.5, 2.5  # from the surface, where bone and what is around it are read
FACES = 60  # of each vertebra and each of six directions
STEP_MM, REACH_STEPS = 4.0, 3
# In 23 real scans a shift of 5 mm leaves 0.74 of the contrast at most.
LEAST_SHARE = 0.8
DIRECTIONS = (
    *(("to the patient's left", "to the patient's right"), ("behind", "in front of")),
    ("above", "below"),
)


@dataclass(frozen=True)
class Misfit:
    """``shift`` (3,) is LPS mm from where the outlines lie to where they fit the bone.

    ``share`` is the contrast at the outlines as they lie, as a share of that where they fit.
    """

    shift: Floats
    share: float

    def __str__(self) -> str:
        axis = int(np.argmax(np.abs(self.shift)))
        side = DIRECTIONS[axis][0 if self.shift[axis] < 0 else 1]
        distance = float(np.linalg.norm(self.shift))
        place = f"{side} of" if axis == 0 else side
        return f"the outlines lie about {distance:.0f} mm {place} the bone"


@dataclass(frozen=True)
class Agreement:
    """What the reader of a result should know of its files.

    ``notes`` concern the files, ``flags`` every vertebra.
    """

    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def check_agreement(
    ct: Volume,
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    bodies: Segmentation | None = None,
    accept_orientation: bool = False,
) -> Agreement:
    """Return what is doubtful about CT and segmentation as a whole.

    Raises InputError where the CT's header contradicts the anatomy, unless that is accepted.
    """
    others = () if bodies is None else bodies.layers[:1]
    volumes = (ct, *segmentation.layers[:1], *others)
    notes = [f"{volume.name}: {note}" for volume in volumes for note in volume.notes]
    flags: list[str] = []
    wrong, lean = contradiction(ct, segmentation, assignments)
    if wrong and not accept_orientation:
        raise InputError(ct.source, f"its header contradicts the anatomy: {wrong} {GO_ON}")
    if lean and not wrong:
        flags.append(lean)
    if wrong:
        flags.append(f"accepted against the anatomy: {wrong}")
    misfit = find_misfit(ct, segmentation, assignments)
    if misfit is not None:
        flags.append(str(misfit))
    return Agreement((*dict.fromkeys(notes), *flags), tuple(flags))


def find_misfit(
    ct: Volume, segmentation: Segmentation, assignments: Sequence[Assignment]
) -> Misfit | None:
    """Return how far the outlines of all vertebrae lie beside the bone; None where they fit.

    Shifts below ``STEP_MM`` are not sought, nor those beyond ``STEP_MM * REACH_STEPS`` along an
    axis: so far away the next vertebra would fit as well.
    """
    edges = _Edges(ct, _faces(segmentation, assignments))
    if not edges.count:
        return None
    here = edges.contrast(np.zeros(3))
    steps = STEP_MM * np.arange(-REACH_STEPS, REACH_STEPS + 1)
    along_axes = [step * axis for axis in np.eye(3) for step in steps if step]
    if all(_no_better(edges.contrast(shift), here) for shift in along_axes):
        return None
    shifts = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    best, value = _best(edges, shifts)
    finer = STEP_MM / 2 * (np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), axis=-1).reshape(-1, 3))
    best, value = _best(edges, best + finer)
    if value <= 0 or np.linalg.norm(best) < STEP_MM or here >= LEAST_SHARE * value:
        return None
    return Misfit(best, here / value)


def _no_better(there: float, here: float) -> bool:
    return not there > 0 or here >= LEAST_SHARE * there


def _best(edges: _Edges, shifts: Floats) -> tuple[Floats, float]:
    values = [edges.contrast(shift) for shift in shifts]
    at = int(np.nanargmax(values)) if np.isfinite(values).any() else 0
    return shifts[at], values[at]


class _Edges:
    """The CT on either side of faces, wherever these are moved to."""

    def __init__(self, ct: Volume, faces: tuple[Floats, Floats]) -> None:
        self.count = len(faces[0])
        self._ct, self._size = ct.array, np.array(ct.array.shape[::-1])
        self._inside, self._outside = (ct.grid.ijk(lps) for lps in faces)
        self._to_ijk = np.linalg.inv(ct.grid.ijk_to_lps)[:3, :3]
        self._low, self._high = -np.inf, np.inf
        values, _ = self._read(np.concatenate([self._inside, self._outside]))
        if len(values) and np.isfinite(values).any():
            # Metal and air would outweigh all edges of bone.
            self._low, self._high = np.nanpercentile(values, [5, 97])

    def contrast(self, shift: Floats) -> float:
        """Return by how much faces, moved by a shift (LPS mm), are brighter inside than outside.

        NaN where fewer than half of them lie in the CT.
        """
        moved = self._to_ijk @ shift
        bone, here = self._read(self._inside + moved)
        around, there = self._read(self._outside + moved)
        both = here & there & np.isfinite(bone) & np.isfinite(around)
        if both.mean() < 0.5:
            return float("nan")
        return float((bone - around)[both].mean())

    def _read(self, ijk: Floats) -> tuple[npt.NDArray[np.float32], Mask]:
        """Values at the nearest voxels, clipped, and which of them lie in the CT."""
        at = np.rint(ijk).astype(np.intp)
        there = ((at >= 0) & (at < self._size)).all(axis=1)
        i, j, k = np.clip(at, 0, self._size - 1).T
        values = np.clip(self._ct[k, j, i].astype(np.float32), self._low, self._high)
        return np.asarray(values, np.float32), np.asarray(there)


def _faces(segmentation: Segmentation, assignments: Iterable[Assignment]) -> tuple[Floats, Floats]:
    """Points (N, 3: LPS mm) just inside and just outside the outlines of all vertebrae."""
    chance = np.random.default_rng(0)
    inside, outside = [np.empty((0, 3))], [np.empty((0, 3))]
    for assignment in assignments:
        box = segmentation.box(assignment.segment)
        if assignment.kind == "other" or box is None:
            continue
        wide = _widened(box, segmentation.grid)
        mask = segmentation.mask(assignment.segment, wide)
        free = segmentation.layers[assignment.segment.layer].array[wide] == 0
        start = np.array([s.start for s in wide])
        for axis in range(3):
            for side in (1, -1):
                at = _some(np.argwhere(_bordering(mask, free, axis, side)), chance) + start
                normal = side * np.eye(3)[axis] / segmentation.grid.spacing[::-1][axis]
                surface = at + side * np.eye(3)[axis] / 2
                inside.append(segmentation.grid.lps((surface - INSIDE_MM * normal)[:, ::-1]))
                outside.append(segmentation.grid.lps((surface + OUTSIDE_MM * normal)[:, ::-1]))
    return np.concatenate(inside), np.concatenate(outside)


def _widened(box: Box, grid: Grid) -> Box:
    k, j, i = (slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, grid.shape))
    return k, j, i


def _bordering(mask: Mask, free: Mask, axis: int, side: int) -> Mask:
    """Voxels of a mask whose next one along an axis is free."""
    found = np.zeros_like(mask)
    first, second = [slice(None)] * 3, [slice(None)] * 3
    first[axis], second[axis] = slice(None, -1), slice(1, None)
    here, there = (tuple(first), tuple(second)) if side > 0 else (tuple(second), tuple(first))
    found[here] = mask[here] & free[there]
    return found


def _some(at: npt.NDArray[np.intp], chance: np.random.Generator) -> npt.NDArray[np.intp]:
    if len(at) <= FACES:
        return at
    return at[chance.choice(len(at), FACES, replace=False)]
