"""Thoracic and lumbar vertebrae as signed distances, and the settings of a drawn spine.

Vertebrae are drawn from measures, not from a scan.  Each has its own frame in mm, centred in its
body: ``u`` to the Left, ``v`` Posterior, ``w`` towards the head.  Distances are negative inside
bone and true to about a tenth near the surface, which is all that a cortex of half a millimetre
needs.

Mean measures by level, rounded to half a millimetre, are set after Panjabi et al., "Thoracic human
vertebrae", Spine 16 (1991) 888, and "Human lumbar vertebrae", Spine 17 (1992) 299, without their
tables at hand.  Lengths and slopes of spinous processes, waist and endplate depth are set by eye
against CT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Limb:
    """From ``start`` to ``end`` (u, v, w in mm), with half axes across it at either end.

    The first half axis lies along ``up`` (made square to the limb), the second across it.
    """

    start: Point
    end: Point
    up: Point
    radii_start: tuple[float, float]
    radii_end: tuple[float, float]

    @property
    def reach(self) -> float:
        return max(*self.radii_start, *self.radii_end)

    def distance(self, u: Field, v: Field, w: Field) -> Field:
        """Signed distance in mm (true along the half axes, short of it between them)."""
        start, end = np.array(self.start), np.array(self.end)
        length = float(np.linalg.norm(end - start))
        along = (end - start) / length
        first = np.array(self.up) - np.dot(self.up, along) * along
        first /= np.linalg.norm(first)
        second = np.cross(along, first)

        def component(axis: npt.NDArray[np.float64]) -> Field:
            x, y, z = (np.float32(value) for value in axis)
            offset = np.float32(np.dot(axis, start))
            return np.asarray(x * u + y * v + z * w - offset)

        run = component(along)
        part = np.clip(run / np.float32(length), 0, 1)
        over = run - part * np.float32(length)
        thin = min(*self.radii_start, *self.radii_end)
        r1 = self.radii_start[0] + part * np.float32(self.radii_end[0] - self.radii_start[0])
        r2 = self.radii_start[1] + part * np.float32(self.radii_end[1] - self.radii_start[1])
        q = (component(first) / r1) ** 2 + (component(second) / r2) ** 2 + (over / thin) ** 2
        return np.asarray((np.sqrt(q) - 1) * np.minimum(r1, r2), np.float32)


UP: Point = (0.0, 0.0, 1.0)
BACK: Point = (0.0, 1.0, 0.0)


def _mirrored(limbs: list[Limb]) -> list[Limb]:
    """Each limb of the left side, and its twin on the right."""
    twins = []
    for limb in limbs:
        (a, b, c), (d, e, f), (g, h, i) = limb.start, limb.end, limb.up
        twins.append(Limb((-a, b, c), (-d, e, f), (-g, h, i), limb.radii_start, limb.radii_end))
    return limbs + twins


def _transverse_tip(shape: Shape) -> Point:
    canal_back = shape.back + shape.canal[1]
    if shape.thoracic:
        return shape.span / 2 - 4, canal_back + 3.0, 4.0
    return shape.span / 2 - 2, shape.back + 0.75 * shape.canal[1], 4.0


def _thoracic_sides(shape: Shape) -> list[Limb]:
    edge, behind = shape.canal[0] / 2, shape.back + shape.canal[1]
    h = shape.height / 2
    tip = _transverse_tip(shape)
    return [
        Limb((edge + 2.5, behind - 5, 2), tip, UP, (5.0, 4.5), (5.5, 5.0)),
        Limb((edge + 1, behind - 3, 2), (edge + 1.5, behind - 1.5, h + 5), BACK, (3, 5), (2.2, 5)),
        Limb((edge, behind + 1, 0), (edge - 0.5, behind + 2.6, -h - 5), BACK, (3, 5.5), (2.2, 5)),
    ]


def _lumbar_sides(shape: Shape) -> list[Limb]:
    edge, behind = shape.canal[0] / 2, shape.back + shape.canal[1]
    h = shape.height / 2
    top, bottom = (edge + 5.5, behind - 1, h + 5), (edge - 1.5, behind + 2.5, -h - 9)
    pars = (edge + 2.0, behind - 1, 0)
    return [
        Limb((edge + 4, behind - 4, 4), _transverse_tip(shape), UP, (5.5, 4.0), (4.0, 2.6)),
        Limb((edge + 4, behind - 4, 3), top, BACK, (6, 5), (6, 3.8)),
        Limb((edge + 4, behind - 4, 3), pars, BACK, (5, 5), (4, 4)),
        Limb(pars, bottom, BACK, (4, 4.5), (5.5, 4.2)),
    ]


def _sides(shape: Shape) -> list[Limb]:
    return _thoracic_sides(shape) if shape.thoracic else _lumbar_sides(shape)


def arch(shape: Shape) -> list[Limb]:
    """Pedicles, processes, laminae and spinous process of a vertebra, in its frame."""
    edge, behind = shape.canal[0] / 2, shape.back + shape.canal[1]
    wide, tall = shape.pedicle[0] / 2, shape.pedicle[1] / 2
    high = shape.height / 2 - tall + (2.0 if shape.thoracic else 0.5)
    root = edge + wide - 1.2
    pedicle = Limb(
        (root, shape.back - 5, high),
        (root + 1.5, behind - 5, high),
        UP,
        (tall, wide + 1.2),
        (tall, wide + 1.0),
    )
    lower = 5.0 if shape.thoracic else 6.0
    lamina_tall = 0.42 * shape.height + (1.5 if shape.thoracic else -0.5)
    lamina = Limb(
        (edge + 1.5, behind - 2, 1),
        (0, behind + 4.5, -lower),
        UP,
        (lamina_tall, 3.0),
        (lamina_tall, 3.2),
    )
    return [*_mirrored([pedicle, *_sides(shape), lamina]), *_spinous(shape, behind + 4, -lower)]


def _spinous(shape: Shape, v: float, w: float) -> list[Limb]:
    """Return the spinous process from its root in the midline: a waisted blade with a thick tip."""
    length, drop = shape.spinous[0], np.deg2rad(shape.spinous[1])
    if not shape.thoracic:
        root, blade, tip = (part * shape.height for part in (0.33, 0.34, 0.38))
    elif LEVELS.index(shape.level) >= LEVELS.index("T11"):
        root, blade, tip = 6.0, 6.0, 6.8
    else:
        root, blade, tip = 6.0, 5.0, 4.4
    middle = (0.0, v + 0.55 * length * np.cos(drop), w - 0.5 * length * np.sin(drop))
    end = (0.0, v + length * np.cos(drop), w - length * np.sin(drop) - 1.0)
    return [
        Limb((0.0, v, w), middle, UP, (root, 3.8), (blade, 2.9)),
        Limb(middle, end, UP, (blade, 2.9), (tip, 3.7)),
    ]


def ribs(shape: Shape) -> list[Limb]:
    """Both ribs of a thoracic vertebra out to the lateral chest wall, cut off there; else none."""
    if not shape.thoracic:
        return []
    side, half = max(shape.width) / 2, shape.height / 2
    tip_u, tip_v, tip_w = _transverse_tip(shape)
    floating = LEVELS.index(shape.level) >= LEVELS.index("T11")
    head = (side + 3, shape.back - 3, 2) if floating else (side + 1.5, shape.back - 3, half - 1)
    neck = (tip_u + 3, tip_v - (3 if floating else 8), tip_w)
    path = [
        head,
        neck,
        (tip_u + 24, tip_v + 4, tip_w - 8),
        (tip_u + 46, tip_v - 6, tip_w - 20),
        (tip_u + 66, tip_v - 34, tip_w - 36),
    ]
    limbs = [
        Limb(a, b, UP, (4.5, 4.5) if a == head else (6.0, 3.6), (6.0, 3.6))
        for a, b in pairwise(path)
    ]
    return _mirrored(limbs)


Field = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating]

LEVELS = tuple(f"T{n}" for n in range(1, 13)) + tuple(f"L{n}" for n in range(1, 6))

# Columns: endplate width upper, lower; depth upper, lower; body height (posterior); canal width,
# depth; pedicle width, height; span of the transverse processes; spinous length, slope (degrees).
_MEASURES = np.array(
    [
        (24.5, 28.0, 18.5, 19.5, 14.0, 22.0, 16.5, 8.5, 9.5, 75.0, 28.0, 30.0),  # T1
        (25.0, 27.5, 19.5, 21.5, 15.5, 19.5, 15.5, 8.0, 11.5, 69.5, 27.0, 35.0),
        (24.5, 26.0, 22.5, 23.5, 15.5, 18.0, 16.0, 7.0, 12.0, 61.0, 28.0, 42.0),
        (24.5, 26.0, 23.5, 24.5, 16.0, 17.0, 16.0, 6.5, 12.0, 59.0, 30.0, 48.0),
        (25.0, 27.0, 24.5, 26.0, 16.0, 17.0, 16.0, 6.0, 12.0, 61.0, 32.0, 54.0),
        (26.0, 28.0, 26.0, 27.0, 17.5, 17.5, 16.0, 6.0, 12.0, 61.0, 33.0, 57.0),
        (28.0, 29.0, 27.5, 28.5, 18.0, 17.5, 16.0, 6.0, 12.0, 60.5, 33.0, 57.0),
        (29.5, 30.5, 28.0, 29.5, 18.5, 18.0, 16.0, 6.5, 12.5, 60.0, 32.0, 53.0),
        (30.5, 33.0, 29.5, 31.0, 19.5, 18.0, 16.0, 7.5, 14.0, 59.5, 30.0, 46.0),
        (32.0, 35.5, 30.5, 31.5, 20.0, 18.0, 15.5, 9.0, 15.0, 58.5, 27.0, 36.0),
        (35.0, 39.0, 32.0, 32.0, 21.5, 19.5, 16.0, 10.0, 17.5, 52.0, 24.0, 22.0),
        (39.0, 42.0, 33.0, 33.5, 22.5, 22.0, 18.0, 9.0, 16.5, 47.0, 24.0, 12.0),
        (41.0, 43.5, 34.0, 35.5, 24.0, 23.5, 19.0, 8.5, 16.0, 71.0, 28.0, 8.0),  # L1
        (42.5, 45.5, 34.5, 35.0, 24.5, 24.0, 18.0, 8.5, 15.0, 76.0, 30.0, 8.0),
        (44.0, 48.0, 35.0, 35.0, 24.0, 24.5, 17.5, 10.0, 14.5, 85.5, 30.0, 8.0),
        (46.5, 49.5, 35.5, 34.0, 24.0, 25.5, 18.5, 14.0, 15.5, 79.5, 27.0, 9.0),
        (47.5, 49.5, 34.5, 33.0, 23.0, 27.0, 19.5, 18.5, 19.5, 92.5, 23.0, 12.0),
    ]
)


@dataclass(frozen=True)
class Shape:
    """One vertebra in its own frame; lengths in mm.

    ``wedge`` is the loss of anterior against posterior height (0.1 is a tenth), ``waist`` the
    loss of radius at mid height, ``dish`` the depth of the (upper, lower) endplate.  ``beaks``
    are osteophytes (angle from the Left in radians, length, +1 upper or -1 lower rim), ``nodes``
    Schmorl nodes (u, v, depth, radius, +1 or -1), ``ripple`` phases of the outline's unevenness.
    """

    level: str
    width: tuple[float, float]
    depth: tuple[float, float]
    height: float
    canal: tuple[float, float]
    pedicle: tuple[float, float]
    span: float
    spinous: tuple[float, float]
    wedge: float = 0.0
    waist: float = 0.11
    dish: tuple[float, float] = (1.3, 1.7)
    beaks: tuple[tuple[float, float, int], ...] = ()
    nodes: tuple[tuple[float, float, float, float, int], ...] = ()
    ripple: tuple[float, float, float] = (0.0, 2.0, 4.0)

    @property
    def thoracic(self) -> bool:
        return self.level.startswith("T")

    @property
    def back(self) -> float:
        """Coordinate v of the posterior wall in the midline, where the canal begins."""
        return 0.46 * float(np.mean(self.depth))


def mean_shape(level: str, scale: float = 1.0) -> Shape:
    """Return the average vertebra of a level; raises KeyError for a level outside T1..L5."""
    if level not in LEVELS:
        raise KeyError(level)
    m = [float(value) * scale for value in _MEASURES[LEVELS.index(level)]]
    return Shape(
        level,
        width=(m[0], m[1]),
        depth=(m[2], m[3]),
        height=m[4],
        canal=(m[5], m[6]),
        pedicle=(m[7], m[8]),
        span=m[9],
        spinous=(m[10], m[11] / scale),
    )


def vary(shape: Shape, rng: np.random.Generator, spread: float = 0.03) -> Shape:
    """Return the same vertebra in another person: every measure moved by about ``spread``."""

    def pair(values: tuple[float, float]) -> tuple[float, float]:
        moved = np.asarray(values) * rng.normal(1.0, spread) * rng.normal(1.0, spread / 3, 2)
        return float(moved[0]), float(moved[1])

    phases = rng.uniform(0, 2 * np.pi, 3)
    return replace(
        shape,
        width=pair(shape.width),
        depth=pair(shape.depth),
        height=float(shape.height * rng.normal(1.0, spread / 2)),
        canal=pair(shape.canal),
        pedicle=pair(shape.pedicle),
        span=float(shape.span * rng.normal(1.0, spread)),
        spinous=pair(shape.spinous),
        waist=float(rng.uniform(0.07, 0.15)),
        dish=(float(rng.uniform(0.8, 1.8)), float(rng.uniform(1.0, 2.4))),
        ripple=(float(phases[0]), float(phases[1]), float(phases[2])),
    )


def smooth_min(a: Array, b: Array, radius: float) -> Field:
    """Minimum of two distances, their meeting edge filled with a fillet of about ``radius`` mm."""
    blend = np.maximum(radius - np.abs(a - b), 0)
    return (np.minimum(a, b) - blend * blend / (4 * radius)).astype(np.float32)


def _outline(shape: Shape) -> Field:
    """Axial outline as 361 relative radii over the angle -pi..pi from the Left (pi/2 is behind)."""
    angle = np.linspace(-np.pi, np.pi, 361)
    c, s = np.cos(angle), np.sin(angle)
    power = 2.12
    radius = (np.abs(c) ** power + np.abs(s) ** power) ** (-1 / power)
    wall = 0.92 + 0.09 * np.minimum((c / 0.55) ** 2, 1)  # flat back, hollow in the midline
    behind = wall / np.maximum(s, 1e-3)
    radius = np.where(s > 0.2, smooth_min(radius, behind, 0.2), radius)
    p0, p1, p2 = shape.ripple
    uneven = np.sin(3 * angle + p0) + 0.7 * np.sin(5 * angle + p1) + 0.5 * np.sin(8 * angle + p2)
    return (radius * (1 + 0.01 * uneven)).astype(np.float32)


def body_distances(shape: Shape, u: Field, v: Field, w: Field) -> tuple[Field, Field]:
    """Distances to the side wall and to the nearer endplate; the body is where both are below 0."""
    half = shape.height / 2
    s = np.clip(w / half, -1, 1)
    a = (shape.width[1] + (shape.width[0] - shape.width[1]) * (s + 1) / 2) / 2
    b = (shape.depth[1] + (shape.depth[0] - shape.depth[1]) * (s + 1) / 2) / 2
    un, vn = u / a, v / b
    un = un / (1 + (0.12 if shape.thoracic else 0.04) * np.clip(vn, -1, 1))
    angle = np.arctan2(vn, un)
    slot = ((angle + np.pi) * (360 / (2 * np.pi))).astype(np.int16)
    q = np.hypot(un, vn) / _outline(shape)[slot]
    # The back wall is nearly straight from rim to rim; front and sides are waisted.
    waist = shape.waist * (1 - s * s) * np.where(v > 0, 1 - 0.6 * np.clip(vn, 0, 1), 1)
    scale = np.sqrt(a * b)
    side = (q / (1 - waist) - 1) * scale

    hollow = (1 - np.clip(q / 0.92, 0, 1) ** 2) ** 1.3
    slope = half * shape.wedge * np.clip(1 - vn, 0, 2.2) / 2
    fine = 0.18 * np.sin(u / 2.9 + shape.ripple[1]) * np.sin(v / 3.3 + shape.ripple[2])
    upper = half - slope - shape.dish[0] * hollow + fine
    lower = -half + slope + shape.dish[1] * hollow - fine
    for node_u, node_v, depth, radius, end in shape.nodes:
        dent = depth * np.exp(-((u - node_u) ** 2 + (v - node_v) ** 2) / (2 * radius**2))
        upper, lower = (upper - dent, lower) if end > 0 else (upper, lower + dent)
    for where, length, end in shape.beaks:
        near = np.exp(-((((angle - where + np.pi) % (2 * np.pi) - np.pi) / 0.35) ** 2))
        bump = length * near * np.exp(-(((w - end * half) / 3.0) ** 2))
        side = side - bump
        upper, lower = (upper + 0.35 * bump, lower) if end > 0 else (upper, lower - 0.35 * bump)
    cap = np.maximum(w - upper, lower - w)
    return side.astype(np.float32), cap.astype(np.float32)


@dataclass(frozen=True)
class SpineSettings:
    """A person, the state of the spine, and the scan.  Lengths in mm, angles in degrees.

    ``levels`` run downwards and are adjacent.  ``marrow_hu`` is the mean of trabecular bone in
    the middle of a body; ``kyphosis`` is T1 to T12 and ``lordosis`` L1 to L5; ``scoliosis`` the
    Cobb angle over the drawn levels (positive bends to the Left).  Osteophytes have a mean
    length; the other degenerative changes a chance per vertebra or disc.  ``noise_hu`` is the
    standard deviation in uniform tissue; ``blur`` the full width at half maximum of the kernel,
    ``sharpen`` its overshoot (0 soft, 0.6 a bone kernel); ``streak_hu`` the strength of
    low-dose streaks from side to side.  ``field`` is the width and depth of the picture.
    """

    levels: tuple[str, ...] = ("T10", "T11", "T12", "L1", "L2")
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 1.5)
    field: tuple[float, float] = (168.0, 156.0)
    margin: float = 14.0
    scale: float = 1.0
    marrow_hu: float = 180.0
    texture: float = 0.22
    cortex: float = 0.35
    endplate: float = 0.55
    kyphosis: float = 36.0
    lordosis: float = 36.0
    scoliosis: float = 0.0
    disc: float = 1.0
    fat: float = 0.15
    contrast: float = 0.0
    osteophyte: float = 0.0
    schmorl_chance: float = 0.0
    wedge_chance: float = 0.0
    biconcave_chance: float = 0.0
    sclerosis_chance: float = 0.0
    vacuum_chance: float = 0.0
    noise_hu: float = 26.0
    blur: float = 1.1
    sharpen: float = 0.15
    streak_hu: float = 0.0

    def __post_init__(self) -> None:
        first = LEVELS.index(self.levels[0]) if self.levels and self.levels[0] in LEVELS else -1
        if first < 0 or self.levels != LEVELS[first : first + len(self.levels)]:
            raise ValueError(f"levels must be adjacent, downwards, within T1..L5: {self.levels}")


def random_settings(
    rng: np.random.Generator,
    levels: tuple[str, ...] = ("T10", "T11", "T12", "L1", "L2"),
    spacing_mm: tuple[float, float, float] | None = None,
) -> SpineSettings:
    """Draw a random adult of 20 to 90 in a random scanner.

    Trabecular HU fall by about 2.5 a year from 270 at 20, with a spread of 40 between people of
    an age; degeneration and fatty muscle grow with age.  Slices are 0.5 to 3 mm; noise grows
    as they become thinner (with the inverse root) and as the kernel becomes sharper.
    """
    age = rng.uniform(20, 90)
    worn = max(0.0, (age - 35) / 55) * rng.uniform(0.2, 1.2)
    marrow = float(np.clip(270 - 2.5 * (age - 20) + rng.normal(0, 40), 50, 300))
    plane, thickness = (
        rng.uniform(0.55, 0.98),
        rng.choice([0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0]),
    )
    spacing = spacing_mm or (float(plane), float(plane), float(thickness))
    sharpen = float(max(0.0, rng.normal(0.2, 0.2)))
    noise = rng.uniform(12, 32) * (1 + 0.8 * sharpen) / np.sqrt(spacing[2] / 1.5)
    return SpineSettings(
        levels=levels,
        spacing_mm=spacing,
        scale=float(rng.normal(1.0, 0.07)),
        marrow_hu=marrow,
        texture=float(rng.uniform(0.15, 0.3)),
        cortex=float(rng.uniform(0.2, 0.4) + 0.0007 * marrow),
        endplate=float(rng.uniform(0.35, 0.6) + 0.0009 * marrow),
        kyphosis=float(np.clip(rng.normal(36 + 10 * worn, 9), 15, 70)),
        lordosis=float(np.clip(rng.normal(36, 9), 10, 60)),
        scoliosis=float(rng.normal(0, 5)),
        disc=float(np.clip(rng.normal(1 - 0.25 * worn, 0.12), 0.45, 1.25)),
        fat=float(np.clip(0.08 + 0.3 * worn * rng.uniform(), 0.03, 0.4)),
        contrast=float(rng.uniform(0.4, 1.0)) if rng.uniform() < 0.5 else 0.0,
        osteophyte=float(4.0 * worn * rng.uniform()),
        schmorl_chance=0.08,
        wedge_chance=0.08 + 0.12 * worn,
        biconcave_chance=0.05 + (0.15 if marrow < 120 else 0.0),
        sclerosis_chance=0.15 * worn,
        vacuum_chance=0.15 * worn,
        noise_hu=float(np.clip(noise, 8, 70)),
        blur=float(rng.uniform(0.8, 1.5)),
        sharpen=sharpen,
        streak_hu=float(max(0.0, rng.normal(0, 6))),
    )
