"""The vertebral arch and the ribs as limbs: straight pieces with an elliptical cross-section."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .vertebra import LEVELS, Field, Shape

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
    """The spinous process from its root in the midline: a waisted blade with a thick tip."""
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
