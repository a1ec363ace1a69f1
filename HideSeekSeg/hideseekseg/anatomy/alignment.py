"""Whether CT, segmentation and anatomy agree, before any vertebra is looked at.

The outlines of a segmentation follow the bone of the CT or lie beside it.  All vertebrae are judged
together: one alone may be destroyed, all of them shift together where a header is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..imaging.reading import two_places
from ..imaging.segmentation import Segmentation
from ..imaging.volume import FRAME_OF_REFERENCE, Box, Grid, Volume
from .labelling import Assignment, assign
from .orientation import ACCEPTED, GO_ON, contradiction

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

INSIDE_MM, OUTSIDE_MM = 1.5, 2.5  # from the surface, where bone and what is around it are read
FACES = 60  # of each vertebra and each of six directions
BODY_POINTS = 5000
STEP_MM, REACH_STEPS = 4.0, 3
# In 22 real scans a shift of 5 mm leaves 0.77 of the contrast at most, one of 8 mm 0.68.
LEAST_SHARE = 0.8
# So far beside the bone a body is half disc or muscle.  Fewer vertebrae may all be destroyed.
REFUSED_MM, FEWEST = 6.0, 3
# Contrast at the outlines beside the spread of all values there: 22 real scans have 0.19 and more,
# outlines that lie anywhere else 0.1 and less.
FOLLOWS, NOWHERE = 0.16, 0.08
# Quartiles from the median beyond which a value is that of metal.
METAL_QUARTILES = 4.0
OTHER_FRAME = "{}: states another frame of reference than the CT: was it made on another scan?"
DIRECTIONS = (
    *(("to the patient's left", "to the patient's right"), ("behind", "in front of")),
    ("above", "below"),
)


@dataclass(frozen=True)
class Misfit:
    """``shift`` (3,) is LPS mm from where the outlines lie to where they fit the bone.

    ``share`` is the contrast at the outlines as they lie, as a share of that where they fit;
    ``edge`` and ``edge_there`` are both beside the spread of all values.
    """

    shift: Floats
    share: float
    edge: float
    edge_there: float

    def __str__(self) -> str:
        if self.is_elsewhere:
            return f"the outlines follow no edge of bone within {STEP_MM * REACH_STEPS:.0f} mm"
        axis = int(np.argmax(np.abs(self.shift)))
        side = DIRECTIONS[axis][0 if self.shift[axis] < 0 else 1]
        place = f"{side} of" if axis == 0 else side
        return f"the outlines lie about {self.distance:.0f} mm {place} the bone"

    @property
    def is_elsewhere(self) -> bool:
        """Return whether the outlines fit neither where they lie nor nearby.

        Bone darker than what is around it is not a shift: then the volume may not be a CT.
        """
        return self.edge < NOWHERE and (self.edge_there < FOLLOWS or self.edge < -NOWHERE)

    @property
    def is_grave(self) -> bool:
        """Return whether the outlines surely lie far beside the bone."""
        return self.distance >= REFUSED_MM and self.edge_there >= FOLLOWS and not self.is_elsewhere

    @property
    def distance(self) -> float:
        """Return the length of the shift in mm."""
        return float(np.linalg.norm(self.shift))


@dataclass(frozen=True)
class Agreement:
    """What the reader of a result should know of its files.

    ``notes`` concern the files, ``flags`` every vertebra.  ``refusal`` is why the segmentation
    cannot be that of the CT, if the CT is one: empty where it may be.
    """

    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    refusal: str = ""


def check_agreement(
    ct: Volume,
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    bodies: Segmentation | None = None,
    accept_orientation: bool = False,
) -> Agreement:
    """Return what is doubtful about CT and segmentation as a whole.

    Raises InputError where the CT's header contradicts the anatomy, and where the outlines of three
    vertebrae and more lie ``REFUSED_MM`` beside the bone, unless that is accepted.
    """
    others = (*segmentation.layers[:1], *(() if bodies is None else bodies.layers[:1]))
    notes = [note for note in file_notes(ct, *others) if note not in ct.doubts]
    notes += [
        OTHER_FRAME.format(one.name)
        for one in others
        if are_of_other_frames(*(x.identity.get(FRAME_OF_REFERENCE, "") for x in (one, ct)))
    ]
    flags = list(ct.doubts)
    misfit = find_misfit(ct, segmentation, assignments)
    refusal = ""
    if misfit is not None:
        count = len({a.level for a in assignments if a.level and a.kind != "other"})
        if count >= FEWEST and not accept_orientation:
            refusal = f"does not fit the CT {ct.name}: {misfit}, in all vertebrae together {GO_ON}"
        if refusal and misfit.is_grave:
            raise InputError(segmentation.source, refusal)
        refusal = refusal if misfit.is_elsewhere else ""
        flags.append(str(misfit))
    if misfit is not None and misfit.is_grave:  # what lies around such outlines tells nothing
        return Agreement((*dict.fromkeys(notes), *flags), tuple(flags))
    wrong, lean = contradiction(ct, segmentation, assignments)
    if wrong and not accept_orientation:
        raise InputError(ct.source, f"its header contradicts the anatomy: {wrong} {GO_ON}")
    if wrong:
        flags.append(f"{ACCEPTED}: {wrong}")
    elif lean:
        flags.append(lean)
    return Agreement((*dict.fromkeys(notes), *flags), tuple(flags), refusal)


def are_of_other_frames(first: str, second: str) -> bool:
    """Return whether the frames of reference of two DICOM objects, where stated, are others.

    Their positions have nothing to do with each other then; where the outlines fit all the same, a
    program may have invented the one.
    """
    return bool(first and second) and first != second


def file_notes(*volumes: Volume) -> tuple[str, ...]:
    """Return what is odd about the files of some volumes, a line each."""
    notes = [f"{volume.name}: {note}" for volume in volumes for note in volume.notes]
    return tuple(dict.fromkeys([*notes, *(doubt for v in volumes for doubt in v.doubts)]))


def find_misfit(
    ct: Volume, segmentation: Segmentation, assignments: Sequence[Assignment]
) -> Misfit | None:
    """Return how far the outlines of all vertebrae lie beside the bone; None where they fit.

    Nothing is said where few of them lie in the CT.  Shifts below ``STEP_MM`` are not sought, nor
    those beyond ``STEP_MM * REACH_STEPS`` along an axis: so far away the next vertebra would fit
    as well.
    """
    edges = _Edges(ct, _faces(segmentation, assignments))
    if not edges.count:
        return None
    here = edges.contrast(np.zeros(3))
    spread = max(edges.high - edges.low, 1e-12)
    steps = STEP_MM * np.arange(-REACH_STEPS, REACH_STEPS + 1)
    along_axes = [step * axis for axis in np.eye(3) for step in steps if step]
    if here >= NOWHERE * spread and all(
        _no_better(edges.contrast(shift), here) for shift in along_axes
    ):
        return None
    shifts = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    best, value = _best(edges, shifts)
    finer = STEP_MM / 2 * (np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), axis=-1).reshape(-1, 3))
    best, value = _best(edges, best + finer)
    if not np.isfinite(here) or not np.isfinite(value):
        return None
    found = Misfit(best, here / value if value > 0 else 0.0, here / spread, value / spread)
    if found.is_elsewhere:
        return found
    is_near = np.linalg.norm(best) < STEP_MM or here >= LEAST_SHARE * value
    return None if value <= 0 or is_near else found


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
        self.low, self.high = -np.inf, np.inf
        values, _ = self._read(np.concatenate([self._inside, self._outside]))
        if len(values) and np.isfinite(values).any():
            # Metal and air would outweigh all edges of bone.
            self.low, self.high = _usual_range(values)

    def clipped(self, low: float, high: float) -> _Edges:
        """Return the same with values clipped to other limits, to compare places by them."""
        other = copy(self)
        other.low, other.high = low, high
        return other

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
        values = np.clip(self._ct[k, j, i].astype(np.float32), self.low, self.high)
        return np.asarray(values, np.float32), np.asarray(there)


def _usual_range(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return between which values soft tissue and bone lie, metal and air left out."""
    low, first, middle, third, high = np.nanpercentile(values, [5, 25, 50, 75, 97])
    reach = METAL_QUARTILES * (third - first)
    return max(low, middle - reach), min(high, middle + reach)


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
                at = _some(_bordering(mask, free, axis, side), chance, FACES) + start
                normal = side * np.eye(3)[axis] / segmentation.grid.spacing[::-1][axis]
                surface = at + side * np.eye(3)[axis] / 2
                inside.append(segmentation.grid.lps((surface - INSIDE_MM * normal)[:, ::-1]))
                outside.append(segmentation.grid.lps((surface + OUTSIDE_MM * normal)[:, ::-1]))
    return np.concatenate(inside), np.concatenate(outside)


def _widened(box: Box, grid: Grid) -> Box:
    k, j, i = (slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, grid.shape))
    return k, j, i


def _bordering(mask: Mask, free: Mask, axis: int, side: int) -> Indices:
    """Return the voxels (n, 3) of a mask whose next one along an axis is free."""
    found = np.zeros_like(mask)
    first, second = [slice(None)] * 3, [slice(None)] * 3
    first[axis], second[axis] = slice(None, -1), slice(1, None)
    here, there = (tuple(first), tuple(second)) if side > 0 else (tuple(second), tuple(first))
    found[here] = mask[here] & free[there]
    # Three times as fast as np.argwhere.
    return np.stack(np.unravel_index(np.flatnonzero(found), found.shape), axis=1)


def _some(at: Indices, chance: np.random.Generator, most: int) -> Indices:
    return at if len(at) <= most else at[chance.choice(len(at), most, replace=False)]


def settled(
    ct: Volume, segmentation: Segmentation, bodies: Segmentation | None, labels: str | None
) -> tuple[Volume, Segmentation, Segmentation | None]:
    """Return CT, segmentation and bodies, each at one place, where their files state two.

    The outlines of all vertebrae decide whether sform or qform is right, else that a segmentation
    was made on the CT's own voxels, else the anatomy; the choice is a note on the file.  ``labels``
    as of ``labelling.assign``.  Raises InputError, naming the file, where nothing decides.
    """
    if ct.rival is not None or segmentation.layers[0].rival is not None:
        ct, segmentation = _settle_pair(ct, segmentation, labels)
    if bodies is not None and bodies.layers[0].rival is not None:
        bodies = _settle_bodies(bodies, segmentation)
    return ct, segmentation, bodies


Pair = tuple[Volume, Segmentation]


def _settle_pair(ct: Volume, segmentation: Segmentation, labels: str | None) -> Pair:
    layer = segmentation.layers[0]
    pairs = [
        (_placed(ct, one), _all_placed(segmentation, other))
        for one in _statements(ct)
        for other in _statements(layer)
    ]
    try:
        assignments = assign(segmentation, labels)
    except InputError:  # what the labels are is said later; here any outline helps
        assignments = [Assignment(s, None, "vertebra", "") for s in segmentation.segments]
    left, why = _fitting(pairs, assignments)
    if len(left) == 1:
        scan, vertebrae = left[0]
        layers = tuple(_explained(layer, why) for layer in vertebrae.layers)
        return _explained(scan, why), replace(vertebrae, layers=layers)
    doubtful, other = (ct, layer) if ct.rival is not None else (layer, ct)
    raise _undecided(doubtful, f"{'both fit' if left else 'neither fits'} {other.name}")


def _statements(volume: Volume) -> tuple[str, ...]:
    return ("",) if volume.rival is None else ("sform", "qform")


def _placed(volume: Volume, statement: str) -> Volume:
    """Return a volume where one statement of its file puts it, which is a doubt of its place."""
    if volume.rival is None:
        return volume
    grid = volume.grid if statement == "sform" else volume.rival
    other = "qform" if statement == "sform" else "sform"
    apart = volume.grid.distance(volume.rival)
    doubt = f"{volume.name} is placed by its {statement}, {apart:.0f} mm from its {other}"
    return replace(volume, grid=grid, rival=None, doubts=(*volume.doubts, doubt))


def _all_placed(segmentation: Segmentation, statement: str) -> Segmentation:
    layers = tuple(_placed(layer, statement) for layer in segmentation.layers)
    return replace(segmentation, layers=layers)


def _explained(volume: Volume, why: str) -> Volume:
    """Return a volume with the reason for its place added to what is doubtful about that."""
    return replace(volume, doubts=tuple(f"{doubt} ({why})" for doubt in volume.doubts))


def _undecided(volume: Volume, how: str) -> InputError:
    cause = f"{two_places(volume)}, and {how}: keep the right one in its header first"
    return InputError(volume.source, cause)


def _fitting(pairs: Sequence[Pair], assignments: Sequence[Assignment]) -> tuple[list[Pair], str]:
    """Return the pairs that may be right, none where no outline fits, and what decided."""
    every = [_Edges(ct, _faces(segmentation, assignments)) for ct, segmentation in pairs]
    low, high = min(edges.low for edges in every), max(edges.high for edges in every)
    values = [edges.clipped(low, high).contrast(np.zeros(3)) for edges in every]
    best = max((value for value in values if value >= NOWHERE * (high - low)), default=np.inf)
    left = [pair for pair, value in zip(pairs, values) if value >= LEAST_SHARE * best]
    if len(left) < 2:
        return left, "the outlines follow the bone there"
    own = [pair for pair in left if pair[1].grid.matches(pair[0].grid)]
    left = own or left
    if len(left) == 1:
        return left, "CT and segmentation share their voxels there"
    usual = [pair for pair in left if not contradiction(*pair, assignments)[0]]
    return usual or left, "there the patient lies as anatomy has it"


def _settle_bodies(bodies: Segmentation, segmentation: Segmentation) -> Segmentation:
    """Return marked bodies where they lie within vertebrae."""
    layer = bodies.layers[0]
    marked = np.argwhere(np.any([x.array > 0 for x in bodies.layers], axis=0))
    marked = _some(marked, np.random.default_rng(0), BODY_POINTS)[:, ::-1]
    found: list[tuple[float, Segmentation]] = []
    for statement in _statements(layer):
        placed = _all_placed(bodies, statement)
        at = np.rint(segmentation.grid.ijk(placed.grid.lps(marked))).astype(np.intp)[:, ::-1]
        k, j, i = at[((at >= 0) & (at < segmentation.grid.shape)).all(axis=1)].T
        inside = np.any([x.array[k, j, i] > 0 for x in segmentation.layers], axis=0)
        found.append((float(inside.sum()) / len(at), placed))
    (less, _), (most, right) = sorted(found, key=lambda one: one[0])
    if less >= LEAST_SHARE * most:
        raise _undecided(layer, f"{'both fit' if most else 'neither fits'} {segmentation.name}")
    layers = tuple(_explained(x, "there bodies lie within vertebrae") for x in right.layers)
    return replace(right, layers=layers)
