"""Whether the labels of a segmentation can be what they are called: one label, one vertebra.

Costs a few milliseconds for each vertebra, and needs no voxel of the CT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError
from ..imaging.segmentation import Segment, Segmentation
from ..imaging.volume import Grid
from .field_of_view import is_cut
from .label_conventions import CONVENTIONS, LEVELS, Kind
from .labelling import Assignment, fitting_conventions
from .level_order import PITCH_MM, OrderReport, check_order
from .localization import LocatedBody
from .orientation import ACCEPTED, GO_ON
from .vertebra_shape import VertebraShape, shape_of

Vector = npt.NDArray[np.float64]

# Adult volumes in cm3, C1 to C7, T1 to T13, L1 to L6 and S1, of whole vertebrae and of bodies.
WHOLE_CM3 = dict(
    zip(
        LEVELS,
        (
            *(12.0, 13.0, 10.0, 10.0, 11.0, 12.0, 14.5),
            *(18.0, 19.0, 18.5, 19.0, 20.5, 22.0, 25.0, 26.5, 28.0, 31.5, 35.0, 40.0, 42.0),
            *(45.0, 50.0, 55.0, 58.0, 58.0, 58.0, 60.0),
        ),
    )
)
BODY_CM3 = dict(
    zip(
        LEVELS,
        (
            *(3.0, 6.0, 4.5, 4.5, 5.0, 5.5, 6.5),
            *(8.5, 9.5, 9.0, 10.0, 11.0, 13.0, 15.0, 17.0, 19.0, 22.0, 24.5, 27.0, 29.0),
            *(31.0, 34.0, 36.0, 38.0, 37.0, 37.0, 37.0),
        ),
    )
)

TWO_BODIES = 0.5  # of the largest piece's thickness: a piece as thick as that is not a process
TOO_LARGE = 1.6  # times the volume that its neighbours suggest, and
TOO_LONG = 1.3  # times the length, is more than one vertebra
TOO_SMALL = {"vertebra": 0.55, "body": 0.45}  # a body that has collapsed is not smaller
LARGEST = 2.6  # times an average adult's: no vertebra is larger
LONGEST_MM = 110.0
SLIVER = 0.25  # of the usual volume: what the border left of a vertebra tells no place
# Of the usual volume, beside that of thick labels: scattered voxels, or the rim that rounding
# leaves around other labels of an interpolated label map.  They are no vertebra and tell no place.
SPECK = 0.1
RIM, RIM_THICK = 0.4, 0.25  # a rim may be larger, but is thin beside the thickest body
NEIGHBOURS = 4
SLAB_MM, PIXEL_MM, RING_MM2, OPEN_MM = 4.0, 2.5, 50.0, 8.0

NOT_SEGMENTED = "not segmented"
EMPTY = "its segment is empty"
HOLLOW = "its label is an outline without its inside"


@dataclass(frozen=True)
class SpineChecks:
    """What a segmentation's labels have against them.

    ``obstacles`` says by level why a label cannot be analysed, ``flags`` what the reader ought to
    know of others; ``missing`` are levels without a label between others; ``strangers`` are
    segments without a level that lie where no vertebra does; of the levels ``specks`` the label
    holds so little that it does not say where the vertebra is, and those of ``islands`` hold small
    parts beside the rest.
    """

    obstacles: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    strangers: tuple[Segment, ...] = ()
    specks: frozenset[str] = field(default=frozenset(), compare=False)
    islands: frozenset[str] = field(default=frozenset(), compare=False)

    def telling(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Return the assignments without those that are specks."""
        return [a for a in assignments if a.level not in self.specks]

    def applied(self, site: LocatedBody) -> LocatedBody:
        """Return a body with what the checks say of its level."""
        flags = (*self.flags.get(site.level, ()), *site.flags)
        obstacle = self.obstacles.get(site.level, "")
        return replace(site, flags=flags, obstacle=obstacle or site.obstacle)

    def why_not(self, levels: Sequence[str]) -> str:
        """Return why these levels cannot be analysed, in one line."""
        return "; ".join(f"{level}: {self.obstacles[level]}" for level in levels)

    def notes(self) -> tuple[str, ...]:
        """Return what concerns the run as a whole, in a line each."""
        lines = []
        if self.missing:
            lines.append(f"{', '.join(self.missing)}: {NOT_SEGMENTED}")
        shared = [set(flags) for flags in self.flags.values()]
        for doubt in sorted(set().union(*shared)) if shared else ():
            levels = [level for level, flags in self.flags.items() if doubt in flags]
            lines.append(f"{_span(levels)}: {doubt}")
        return tuple(lines)


def check_vertebrae(
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    accept_orientation: bool = False,
    ct: Grid | None = None,
) -> SpineChecks:
    """Check the labels that have a level, and where those lie that have none.

    ``ct`` is the CT's grid, where it is known: a label is cut where that ends, not where an image
    ends that is no larger than what is segmented.

    Raises InputError where the levels run from foot to head, unless that is accepted, and where no
    label can be a vertebra.
    """
    if not segmentation.layers:
        return SpineChecks()
    groups = _groups(assignments)
    shapes = {
        level: shape_of(segmentation, [a.segment for a in own]) for level, own in groups.items()
    }
    for level, shape in shapes.items():
        if ct is not None and shape is not None and shape.is_cut:
            cut = is_cut(level, groups[level], assignments, segmentation, ct)
            shapes[level] = replace(shape, is_cut=cut)
    kinds: dict[str, Kind] = {level: own[0].kind for level, own in groups.items()}
    seen = {level: shape for level, shape in shapes.items() if shape is not None}
    islands = frozenset(level for level, shape in seen.items() if shape.has_islands)
    obstacles = {level: EMPTY for level, shape in shapes.items() if shape is None}
    obstacles |= {level: HOLLOW for level, shape in seen.items() if shape.is_hollow}
    flags: dict[str, list[str]] = {level: [] for level in seen}
    usual = {level: _usual(level, kinds[level]) for level in seen}
    # What the border left of a vertebra is none: it says less, but says where the spine goes on.
    specks = frozenset(level for level in _specks(seen, usual) if not seen[level].is_cut)
    for level in specks:
        mm3 = seen.pop(level).mm3
        obstacles[level] = f"only a speck or a rim of it is segmented ({_size(mm3)})"
    telling = {
        level: shape.centre
        for level, shape in seen.items()
        if not (shape.is_cut and shape.mm3 < SLIVER * usual[level])
    }
    order = check_order(telling)
    accepted = _accepted_order(order, segmentation, assignments, telling, accept_orientation)
    for level, own in groups.items():
        flags.setdefault(level, []).extend(flag for a in own for flag in a.flags)
        flags[level].extend(order.flags.get(level, ()))
    for level in seen:
        obstacle, said = _one_vertebra(level, seen, usual, order.scale or 1.0, kinds)
        if obstacle:
            obstacles.setdefault(level, obstacle)
        flags[level].extend(said)
    if groups and len(obstacles) == len(groups):
        why = SpineChecks(obstacles).why_not(list(obstacles))
        raise InputError(segmentation.source, f"no vertebra can be analysed: {why}")
    doubt = _misread(segmentation, assignments, seen)
    for level in seen:
        flags[level].extend(said for said in (accepted, doubt) if said)
    unknown, strangers = _without_level(segmentation, assignments, seen)
    missing = tuple(level for level in order.missing if level not in groups)
    missing = _not_filled(missing, telling, unknown)
    found = {level: tuple(dict.fromkeys(said)) for level, said in flags.items() if said}
    return SpineChecks(obstacles, found, missing, strangers, specks, islands)


def _accepted_order(
    order: OrderReport,
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    centres: Mapping[str, Vector],
    accept: bool,
) -> str:
    """Return a flag for levels that run from foot to head, empty where they do not.

    Raises InputError where that is not accepted.
    """
    if not order.reversed:
        return ""
    cause = _reversed(segmentation, assignments, centres)
    if not accept:
        raise InputError(segmentation.source, f"{cause} {GO_ON}")
    return f"{ACCEPTED}: {cause}"


def _groups(assignments: Sequence[Assignment]) -> dict[str, list[Assignment]]:
    """Return what stands for each level: its body where it has a label, else the vertebra."""
    groups: dict[str, list[Assignment]] = {}
    for level in sorted({a.level for a in assignments if a.level}, key=LEVELS.index):
        own = [a for a in assignments if a.level == level and a.kind != "other"]
        if own:
            groups[level] = [a for a in own if a.kind == "body"] or own
    return groups


def _specks(shapes: Mapping[str, VertebraShape], usual: Mapping[str, float]) -> frozenset[str]:
    """Return the levels whose labels are next to nothing beside the others."""
    shares = {level: shape.mm3 / usual[level] for level, shape in shapes.items()}
    thickest = max((shape.half_mm for shape in shapes.values()), default=0.0)
    thick = [shares[level] for level, shape in shapes.items() if shape.half_mm > thickest / 2]
    whole = float(np.median(thick)) if thick else 0.0  # one that was merged does not count
    return frozenset(
        level
        for level, share in shares.items()
        if share < (RIM if shapes[level].half_mm < RIM_THICK * thickest else SPECK) * whole
    )


def _size(mm3: float) -> str:
    return f"{mm3 / 1000:.1f} cm3" if mm3 >= 100 else f"{mm3:.1f} mm3"


def _usual(level: str, kind: Kind) -> float:
    return 1000.0 * (BODY_CM3 if kind == "body" else WHOLE_CM3)[level]


def _one_vertebra(
    level: str,
    shapes: Mapping[str, VertebraShape],
    usual: Mapping[str, float],
    scale: float,
    kinds: Mapping[str, Kind],
) -> tuple[str, list[str]]:
    """Return why a label cannot be one vertebra, and what else to say of it."""
    shape = shapes[level]
    axis = _axis(level, shapes)
    length = shape.extent(axis)
    ratio, relative = _beside_neighbours(level, shapes, usual, axis)
    bodies = [p for p in shape.pieces if p.half_mm > TWO_BODIES * shape.half_mm]
    two = ratio is not None and ratio > TOO_LARGE and relative > TOO_LONG
    if two or shape.mm3 > LARGEST * usual[level] or length > LONGEST_MM:
        size = f"{shape.mm3 / 1000:.0f} cm3 and {length:.0f} mm long"
        return f"its label contains more than one vertebra ({size})", []
    if len(bodies) > 1:
        pieces = f"its label is in {len(shape.pieces)} pieces"
        apart = abs((bodies[1].centre - bodies[0].centre) @ axis)
        if apart > 0.75 * scale * PITCH_MM[level]:
            return f"{pieces}, {apart:.0f} mm apart along the spine: more than one vertebra", []
        return f"{pieces}, none of which is its whole body", []
    said = []
    if len(shape.pieces) > 1:
        share = 1 - shape.pieces[0].mm3 / shape.mm3
        said.append(f"its label is in {len(shape.pieces)} pieces ({share:.0%} lies apart)")
    # An arch may close twice by itself: without neighbours to compare, the label must be long too.
    alone = ratio is None and length > TOO_LONG * scale * PITCH_MM[level]
    larger = ratio is not None and (ratio > 1.3 or relative > TOO_LONG)
    if (alone or larger) and canals(shape, axis) > 1:
        return "its label encloses the spinal canal twice: more than one vertebra", []
    if ratio is not None and not shape.is_cut:
        if ratio > TOO_LARGE:
            said.append(f"its label is {ratio:.1f} times as large as its neighbours suggest")
        elif ratio < TOO_SMALL[kinds[level]]:
            said.append(f"its label has {ratio:.0%} of the volume that its neighbours suggest")
        elif relative > TOO_LONG * 1.1:
            said.append(f"its label is {relative:.1f} times as long as its neighbours suggest")
    return "", said


def _axis(level: str, shapes: Mapping[str, VertebraShape]) -> Vector:
    """Return the direction of the spine at a level: from the next body below to the next above."""
    levels = list(shapes)
    at = levels.index(level)
    above, below = levels[max(at - 1, 0)], levels[min(at + 1, len(levels) - 1)]
    along = shapes[above].centre - shapes[below].centre
    length = float(np.linalg.norm(along))
    return along / length if length > 1.0 else np.array([0.0, 0.0, 1.0])


def _beside_neighbours(
    level: str, shapes: Mapping[str, VertebraShape], usual: Mapping[str, float], axis: Vector
) -> tuple[float | None, float]:
    """Return volume and length as multiples of what the nearest whole vertebrae suggest."""
    others = [name for name, shape in shapes.items() if name != level and not shape.is_cut]
    others.sort(key=lambda name: abs(LEVELS.index(name) - LEVELS.index(level)))
    near = others[:NEIGHBOURS]
    if not near:
        return None, 1.0
    volumes = np.median([shapes[name].mm3 / usual[name] for name in near])
    lengths = np.median([shapes[n].extent(_axis(n, shapes)) / PITCH_MM[n] for n in near])
    shape = shapes[level]
    own = shape.extent(axis) / PITCH_MM[level]
    return float(shape.mm3 / usual[level] / volumes), float(own / lengths)


def canals(shape: VertebraShape, axis: Vector) -> int:
    """Return how often a label closes around the spinal canal, seen slab by slab along the spine.

    One vertebra closes once, between its pedicles and laminae; the next one does so again, and
    between the two the canal is open at the sides.
    """
    side = np.cross(axis, [0.0, 1.0, 0.0])
    side /= max(float(np.linalg.norm(side)), 1e-6)
    local = shape.points @ np.array([axis, side, np.cross(axis, side)]).T
    slabs = np.floor((local[:, 0] - local[:, 0].min()) / SLAB_MM).astype(int)
    pixels = np.rint((local[:, 1:] - local[:, 1:].min(axis=0)) / PIXEL_MM).astype(int) + 1
    size = pixels.max(axis=0) + 2
    closed = []
    for n in range(slabs.max() + 1):
        image = np.zeros(size, bool)
        image[tuple(pixels[slabs == n].T)] = True
        hole = ndimage.binary_fill_holes(image) & ~image
        labels, count = ndimage.label(hole)
        area = np.bincount(labels.ravel())[1:].max() * PIXEL_MM**2 if count else 0.0
        closed.append(area >= RING_MM2)
    runs, gap = 0, np.inf
    for is_closed in closed:
        if is_closed and gap * SLAB_MM >= OPEN_MM:
            runs += 1
        gap = 0 if is_closed else gap + 1
    return runs


def _without_level(
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    shapes: Mapping[str, VertebraShape],
) -> tuple[list[VertebraShape], tuple[Segment, ...]]:
    """Return those segments without a level that may be vertebrae, and those that cannot be.

    A liver whose name is in a language that nobody taught us is large, or far from the spine.
    """
    unknown, strangers = [], []
    for assignment in assignments:
        if assignment.level or assignment.kind != "vertebra":
            continue
        shape = shape_of(segmentation, [assignment.segment])
        if shape is None or not _may_be_vertebra(shape, shapes):
            strangers.append(assignment.segment)
        else:
            unknown.append(shape)
    return unknown, tuple(strangers)


def _misread(
    segmentation: Segmentation,
    assignments: Sequence[Assignment],
    shapes: Mapping[str, VertebraShape],
) -> str:
    """Return a doubt where a convention calls labels no vertebrae that go on with the spine.

    Versions of a program share values: what is L3 to one is an organ to the next.
    """
    sizes = [np.ptp(shape.points, axis=0).max() for shape in shapes.values() if not shape.is_cut]
    if len(sizes) < 2:
        return ""
    centres = np.array([shape.centre for shape in shapes.values()])
    volume = np.median([shape.mm3 for shape in shapes.values() if not shape.is_cut])
    half = np.median([shape.half_mm for shape in shapes.values() if not shape.is_cut])
    found: list[str] = []
    values: list[int] = []
    for assignment in assignments:
        box = segmentation.box(assignment.segment)
        if assignment.kind != "other" or assignment.source in ("name", "code") or box is None:
            continue
        extent = [(s.stop - s.start) * mm for s, mm in zip(box, segmentation.grid.spacing[::-1])]
        if not 0.5 * np.median(sizes) < max(extent) < 2 * np.median(sizes):
            continue  # spares the look at lungs and bowels
        shape = shape_of(segmentation, [assignment.segment])
        if shape is None or not 0.5 < shape.half_mm / half < 1.6:
            continue
        nearest = float(np.linalg.norm(centres - shape.centre, axis=1).min())
        on_line = _distance_from_line(shape.centre, centres) < 20.0
        if 0.5 < shape.mm3 / volume < 2.5 and on_line and nearest < 1.5 * max(PITCH_MM.values()):
            found.append(assignment.name)
            values.append(assignment.segment.value)
    # The upper part of a sacrum looks like a vertebra too: another convention must know it as one.
    fitting = [
        name
        for name in (fitting_conventions(segmentation) if found else ())
        if all(CONVENTIONS[name].meanings[value].level for value in values)
    ]
    if not fitting:
        return ""
    return (
        f"levels may be wrong: {_span(found)} looks like a vertebra, but is none by this "
        f"convention ({', '.join(fitting)} would fit)"
    )


def _may_be_vertebra(shape: VertebraShape, shapes: Mapping[str, VertebraShape]) -> bool:
    centres = np.array([other.centre for other in shapes.values()])
    volumes = [other.mm3 for other in shapes.values()]
    near = float(np.linalg.norm(centres - shape.centre, axis=1).min())
    line = _distance_from_line(shape.centre, centres)
    is_near = near < 3 * max(PITCH_MM.values()) or line < 40.0
    return is_near and line < 60.0 and 0.1 * min(volumes) < shape.mm3 < 4 * max(volumes)


def _distance_from_line(point: Vector, centres: npt.NDArray[np.float64]) -> float:
    """Return how far (mm) a point lies from the line of best fit through the bodies."""
    middle = centres.mean(axis=0)
    if len(centres) < 2:
        return float(np.linalg.norm(point - middle))
    axis = np.linalg.svd(centres - middle)[2][0]
    nearest = float(np.linalg.norm(centres - point, axis=1).min())
    offset = point - middle - ((point - middle) @ axis) * axis
    return min(float(np.linalg.norm(offset)), nearest)


def _not_filled(
    missing: tuple[str, ...], centres: Mapping[str, Vector], unknown: Sequence[VertebraShape]
) -> tuple[str, ...]:
    """Return the missing levels less those in whose place a segment without a level lies."""
    left = []
    for level in missing:
        above = [name for name in centres if LEVELS.index(name) < LEVELS.index(level)][-1]
        below = next(name for name in centres if LEVELS.index(name) > LEVELS.index(level))
        steps = LEVELS.index(below) - LEVELS.index(above)
        share = (LEVELS.index(level) - LEVELS.index(above)) / steps
        place = (1 - share) * centres[above] + share * centres[below]
        reach = PITCH_MM[level] / 2
        if not any(np.linalg.norm(shape.centre - place) < reach for shape in unknown):
            left.append(level)
    return tuple(left)


def _reversed(
    segmentation: Segmentation, assignments: Sequence[Assignment], centres: Mapping[str, Vector]
) -> str:
    top = max(centres, key=lambda level: float(centres[level][2]))
    bottom = min(centres, key=lambda level: float(centres[level][2]))
    fitting = fitting_conventions(segmentation)
    hint = f" ({', '.join(fitting)} would fit)" if fitting else ""
    by_value = any(a.source not in ("name", "code") for a in assignments if a.level)
    cause = f"its labels follow another convention{hint}" if by_value else "its names are wrong"
    return (
        f"its levels run from foot to head: {top} lies highest and {bottom} lowest; either "
        f"{cause}, or its header turns the patient upside down"
    )


def _span(levels: Sequence[str]) -> str:
    return ", ".join(levels) if len(levels) < 4 else f"{levels[0]} to {levels[-1]}"
