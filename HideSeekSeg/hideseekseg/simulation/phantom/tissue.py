"""Soft tissue, vessels, lung and spinal canal around a drawn spine, in clean HU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from .settings import SpineSettings
from .vertebra import LEVELS, Field

_T10, _T11, _L1, _L2 = (float(LEVELS.index(level)) for level in ("T10", "T11", "L1", "L2"))


@dataclass(frozen=True)
class Surroundings:
    """Where the spine runs, seen from each voxel of a fine grid (arrays broadcast to K, J, I).

    ``x`` (K,1,I) and ``y`` (K,J,1) are mm to the Left of and behind the centre of the bodies at
    that height; ``level`` (K,1,1) is the fractional index into LEVELS, growing downwards;
    ``half_width``, ``half_depth`` of the bodies and ``canal_width``, ``canal_depth``: (K,1,1).
    """

    x: Field
    y: Field
    level: Field
    half_width: Field
    half_depth: Field
    canal_width: Field
    canal_depth: Field

    def ellipse(
        self,
        centre: tuple[npt.ArrayLike, npt.ArrayLike],
        half_axes: tuple[npt.ArrayLike, npt.ArrayLike],
    ) -> Field:
        """Below 1 inside an elliptical column that follows the spine."""
        x = (self.x - np.asarray(centre[0], np.float32)) / np.asarray(half_axes[0], np.float32)
        y = (self.y - np.asarray(centre[1], np.float32)) / np.asarray(half_axes[1], np.float32)
        return np.asarray(x * x + y * y, np.float32)


def smooth_noise(
    shape: tuple[int, int, int], step: tuple[float, float, float], rng: np.random.Generator
) -> Field:
    """Noise of unit variance, linear between random values every ``step`` voxels (k, j, i)."""
    coarse = [int(np.ceil(n / s)) + 2 for n, s in zip(shape, step, strict=True)]
    noise = rng.standard_normal(coarse, dtype=np.float32)
    for axis, (n, s) in enumerate(zip(shape, step, strict=True)):
        position = np.arange(n, dtype=np.float32) / np.float32(s)
        left = position.astype(int)
        part = (
            (position - left).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        )
        noise = noise.take(left, axis) * (1 - part) + noise.take(left + 1, axis) * part
    return noise / np.float32(noise.std())


def draw_tissue(
    around: Surroundings,
    step_mm: tuple[float, float, float],
    settings: SpineSettings,
    rng: np.random.Generator,
) -> Field:
    """HU (K, J, I) of all but bone and discs; ``step_mm`` is the voxel size along k, j, i."""
    shape = np.broadcast_shapes(around.x.shape, around.y.shape)
    k, j, i = step_mm
    grain = smooth_noise(shape, (9 / k, 2.2 / j, 2.8 / i), rng)
    patch = smooth_noise(shape, (14 / k, 14 / j, 14 / i), rng)
    hu = np.full(shape, -105, np.float32) + 6 * grain
    _trunk(hu, around, patch, settings)
    _chest(hu, around, grain)
    _vessels(hu, around, settings)
    _muscles(hu, around, grain, patch, settings)
    _canal(hu, around)
    _skin(hu, around)
    return hu


def _fill(hu: Field, where: npt.NDArray[np.bool_], value: npt.ArrayLike) -> None:
    np.copyto(hu, value, where=where, casting="same_kind")


def _trunk(hu: Field, around: Surroundings, patch: Field, settings: SpineSettings) -> None:
    """Viscera before the spine: parted by fat; liver, spleen, kidneys about their levels."""
    front = around.y < -around.half_depth - 14 - 0.0015 * around.x**2
    _fill(hu, front & (patch > -0.4), 42 + 4 * patch)
    organ = 55 + 55 * settings.contrast
    for side, axes in ((-1, (70, 62)), (1, (48, 50))):  # liver on the right, spleen on the left
        inside = around.ellipse((side * 92, -48), axes) < 1 + 0.05 * patch
        _fill(hu, inside & (around.level < _L2), organ)
    for side, lower in ((-1, 0.35), (1, 0.0)):
        height = ((around.level - _L1 - lower - 0.3) / 1.5) ** 2
        kidney = around.ellipse((side * 64, -4), (25, 21)) + height + 0.05 * patch
        _fill(hu, kidney < 1.2, -105)
        _fill(hu, kidney < 0.9, 34 + 140 * settings.contrast)
        _fill(hu, kidney < 0.16, -60)


def _chest(hu: Field, around: Surroundings, grain: Field) -> None:
    """Chest wall and lungs; the recess behind reaches lowest."""
    bottom = _T11 - 2.4 + 2.4 * np.clip((around.y + 45) / 70, 0, 1)
    bottom = bottom + np.minimum((np.abs(around.x) - 68) ** 2 / 2500, 1.2)  # two domes
    width = 76 - 2.0 * np.maximum(4 - around.level, 0) ** 1.5
    for side in (-1, 1):
        column = around.ellipse((side * 84, -48), (width - 6, 84))
        wall = (column < 1.28) & (column >= 1.0) & (around.y > -20) & (around.level < _L1)
        _fill(hu, wall, 45 + 12 * grain - 60 * (grain > 1.0))
        free = (around.x * side > around.half_width + 3) | (around.y < -around.half_depth - 2)
        lung = (column < 1) & free & (around.level < bottom)
        _fill(hu, lung, -860 + 25 * grain + 500 * np.clip(grain - 2.1, 0, 1.5))


def _vessels(hu: Field, around: Surroundings, settings: SpineSettings) -> None:
    """Aorta from the left of T5 to before L4, inferior vena cava from T12, azygos, oesophagus."""
    front = -around.half_depth
    blood = 42 + 220 * settings.contrast
    left = np.interp(around.level, [3, 9, 14], [24, 11, 7])
    before = np.interp(around.level, [3, 9, 14], [6, -11, -14])
    low = around.level > LEVELS.index("T4")
    sleeve = around.ellipse((left, front + before), (16, 15)) < 1
    _fill(hu, sleeve & low, 15)
    _fill(hu, (around.ellipse((left, front + before), (12, 12)) < 1) & low, blood)
    cava = (around.ellipse((-17, front - 12), (12, 10)) < 1) & (around.level > _T11 + 0.5)
    _fill(hu, cava, 40 + 90 * settings.contrast)
    azygos = around.ellipse((-5, front - 5), (3.6, 3.6)) < 1
    _fill(hu, azygos & (around.level < _L1), 40 + 70 * settings.contrast)
    gullet = around.ellipse((6, front - 30), (9, 6)) < 1
    _fill(hu, gullet & (around.level < _T11), 40)


def _muscles(
    hu: Field, around: Surroundings, grain: Field, patch: Field, settings: SpineSettings
) -> None:
    """Erector spinae and multifidus, psoas, quadratus, crura, and the flat layers of the back."""
    behind = around.half_depth + around.canal_depth
    lumbar = np.clip((around.level - _T10) / 4, 0, 1)
    psoas = np.clip((around.level - _L1 + 0.6) / 4, 0, 1)
    absent = np.float32(9)  # added where a muscle is not at this level
    below_t12 = np.where(around.level < _L1, absent, np.float32(0))
    crural = np.where((around.level < _T10) | (around.level > _L2 + 0.5), absent, np.float32(0))
    layers = []
    for side in (-1, 1):
        beside = side * (around.half_width + 4 + 13 * psoas)
        layers += [
            around.ellipse((side * 15.5, behind + 15), (14, 15 + 6 * lumbar)),
            around.ellipse((side * 39, behind + 13 + 4 * lumbar), (22, 12 + 9 * lumbar)),
            around.ellipse((beside, 4), (4 + 13 * psoas, 5 + 17 * psoas))
            + np.where(psoas > 0, np.float32(0), absent),
            around.ellipse((side * (around.half_width + 44), 27), (21, 8)) + below_t12,
            around.ellipse((side * 12, -around.half_depth - 5), (10, 5)) + crural,
        ]
    flat = np.abs(around.y - (behind + 36 + 6 * lumbar - np.float32(0.0022) * around.x**2)) / 5
    layers.append(flat + np.where(np.abs(around.x) < 3, absent, np.float32(0)))
    # Fat marbles the muscle in soft streaks, more of it towards the midline and the fasciae.
    flesh = 57 - 75 * np.clip(grain * np.float32(0.7) + (4.2 * settings.fat - 1.3), 0, 1)
    wobble = 1 + np.float32(0.07) * patch
    inside = reduce(np.minimum, layers)
    edge = np.clip((wobble - inside) * 6, 0, 1)
    hu += edge * (flesh - hu)


def _canal(hu: Field, around: Surroundings) -> None:
    """Epidural and foraminal fat, thecal sac, and the cord down to L1."""
    middle = around.half_depth + around.canal_depth / 2
    for side in (-1, 1):
        exit_ = (side * (around.canal_width / 2 + 4), around.half_depth + 4)
        _fill(hu, around.ellipse(exit_, (9, 9)) < 1, -85)
        _fill(hu, around.ellipse(exit_, (3, 4)) < 1, 25)
    wide, deep = around.canal_width / 2, around.canal_depth / 2
    _fill(hu, around.ellipse((0, middle), (wide + 2, deep + 3)) < 1, -70)
    _fill(hu, around.ellipse((0, middle - 0.7), (wide - 1.2, deep - 1.0)) < 1, 22)
    cord = around.ellipse((0, middle - 1), (5.2, 3.9)) < 1
    _fill(hu, cord & (around.level < _L1 + 0.4), 42)


def _skin(hu: Field, around: Surroundings) -> None:
    """Return the surface of the back, with its furrow; air behind it."""
    furrow = 5 * np.exp(-((around.x / 14) ** 2))
    surface = around.half_depth + around.canal_depth + 58 - furrow - 0.0028 * around.x**2
    _fill(hu, around.y > surface - 2, 15)
    _fill(hu, around.y > surface, -1000)
