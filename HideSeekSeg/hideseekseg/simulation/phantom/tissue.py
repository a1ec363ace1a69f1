"""What a drawn spine consists of, in clean HU: bone on a fine grid, and the tissue around it.

Bone comes from distances first, then HU from cortex, marrow and texture; around it soft tissue,
vessels, lung and spinal canal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .vertebra import (
    LEVELS,
    Field,
    Limb,
    Shape,
    SpineSettings,
    arch,
    body_distances,
    ribs,
    smooth_min,
)

Slices = tuple[slice, slice, slice]
FAR = 12.0  # mm; distances are not followed beyond
CORTEX_HU = 1250.0
ARCH_CORTEX_MM = 1.1


def _box(slices: Iterable[slice]) -> Slices:
    k, j, i = slices
    return k, j, i


@dataclass(frozen=True)
class Axes:
    """Voxel centres in LPS mm of an unrotated grid: x (I,), y (J,), z (K,), all growing."""

    x: Field
    y: Field
    z: Field

    @property
    def step(self) -> tuple[float, float, float]:
        """Voxel size along k, j, i."""
        k, j, i = (float(a[1] - a[0]) for a in (self.z, self.y, self.x))
        return k, j, i

    def box(self, points: npt.NDArray[np.float64], reach: float) -> Slices:
        """Return the voxels within ``reach`` of the box around points (N, 3)."""
        low, high = points.min(0) - reach, points.max(0) + reach
        return _box(
            slice(int(np.searchsorted(a, lo)), int(np.searchsorted(a, hi)))
            for a, lo, hi in zip((self.z, self.y, self.x), low[::-1], high[::-1], strict=True)
        )


@dataclass(frozen=True)
class Placed:
    """A shape in the patient: ``centre`` of the body (LPS mm), columns of ``frame`` are u, v, w."""

    shape: Shape
    centre: npt.NDArray[np.float64]
    frame: npt.NDArray[np.float64]

    def world(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.asarray(points, float) @ self.frame.T + self.centre

    def local(self, axes: Axes, box: Slices) -> tuple[Field, Field, Field]:
        """u, v, w of each voxel of the box."""
        z = (axes.z[box[0]] - np.float32(self.centre[2]))[:, None, None]
        y = (axes.y[box[1]] - np.float32(self.centre[1]))[None, :, None]
        x = (axes.x[box[2]] - np.float32(self.centre[0]))[None, None, :]
        f = self.frame.astype(np.float32)
        return tuple(f[0, n] * x + f[1, n] * y + f[2, n] * z for n in range(3))


@dataclass
class DrawnVertebra:
    """Distances of a placed vertebra: ``whole`` in ``box``; ``side``, ``cap`` in ``body_box``."""

    placed: Placed
    box: Slices
    whole: Field
    body_box: Slices
    side: Field
    cap: Field

    @property
    def body(self) -> Field:
        return -smooth_min(-self.side, -self.cap, 1.2)

    @property
    def body_in_box(self) -> Slices:
        """The body box as seen from the whole box."""
        return _box(
            slice(b.start - w.start, b.stop - w.start)
            for b, w in zip(self.body_box, self.box, strict=True)
        )


def _union(into: Field, box: Slices, placed: Placed, limbs: list[Limb], axes: Axes) -> None:
    """Join limbs to the distances ``into`` that cover ``box``."""
    for limb in limbs:
        near = axes.box(placed.world([limb.start, limb.end]), limb.reach + 3)
        near = _box(
            slice(max(n.start, b.start), min(n.stop, b.stop))
            for n, b in zip(near, box, strict=True)
        )
        if any(n.stop <= n.start for n in near):
            continue
        here = _box(
            slice(n.start - b.start, n.stop - b.start) for n, b in zip(near, box, strict=True)
        )
        into[here] = smooth_min(into[here], limb.distance(*placed.local(axes, near)), 2.5)


def measure(placed: Placed, axes: Axes) -> DrawnVertebra:
    """Distances of one vertebra to its surface."""
    shape, limbs = placed.shape, arch(placed.shape)
    w, d, h = max(shape.width) / 2, max(shape.depth) / 2, shape.height / 2
    corners = np.array([(a, b, c) for a in (-w, w) for b in (-d, d) for c in (-h, h)])
    joints = np.array([p for limb in limbs for p in (limb.start, limb.end)])
    box = axes.box(placed.world(np.vstack([corners, joints])), 11)
    body_box = axes.box(placed.world(corners), 7)
    whole = np.full([s.stop - s.start for s in box], FAR, np.float32)
    _union(whole, box, placed, limbs, axes)
    u, v, _ = placed.local(axes, box)
    middle = shape.back + shape.canal[1] / 2
    canal = np.hypot(u / (shape.canal[0] / 2), (v - middle) / (shape.canal[1] / 2)) - 1
    whole = np.maximum(whole, -canal * (min(shape.canal) / 2))
    side, cap = body_distances(shape, *placed.local(axes, body_box))
    vertebra = DrawnVertebra(placed, box, whole, body_box, side, cap)
    inner = vertebra.body_in_box
    whole[inner] = smooth_min(whole[inner], vertebra.body, 3.0)
    return vertebra


def part_joints(upper: DrawnVertebra, lower: DrawnVertebra, gap: float = 1.4) -> None:
    """Open a joint space of ``gap`` mm wherever two neighbours touch or overlap (in place)."""
    shared = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(upper.box, lower.box, strict=True)
    )
    if any(s.stop <= s.start for s in shared):
        return
    views = []
    for vertebra in (upper, lower):
        own = tuple(
            slice(s.start - b.start, s.stop - b.start)
            for s, b in zip(shared, vertebra.box, strict=True)
        )
        views.append(vertebra.whole[own])
    split = (views[0] - views[1]) / 2
    views[0][...] = np.maximum(views[0], split + gap / 2)
    views[1][...] = np.maximum(views[1], gap / 2 - split)


def rib_distance(vertebrae: list[DrawnVertebra], axes: Axes) -> Field:
    """Distances (K, J, I) to the ribs, which keep 1.2 mm from every vertebra."""
    shape = (len(axes.z), len(axes.y), len(axes.x))
    distance = np.full(shape, FAR, np.float32)
    everything = _box(slice(0, n) for n in shape)
    for vertebra in vertebrae:
        limbs = ribs(vertebra.placed.shape)
        _union(distance, everything, vertebra.placed, limbs, axes)
    for vertebra in vertebrae:
        view = distance[vertebra.box]
        np.maximum(view, 1.2 - vertebra.whole, out=view)
    return distance


def _coverage(distance: Field, step: float) -> Field:
    """Return the part of a voxel that lies inside a surface at this distance from its centre."""
    return np.clip(np.float32(0.5) - distance / np.float32(step), 0, 1)


def shell(
    hu: Field, distance: Field, thickness: Field | float, marrow: Field | float, step: float
) -> None:
    """Lay bone over ``hu`` in place: a cortex of ``thickness`` mm at the surface, then marrow."""
    outer, inner = _coverage(distance, step), _coverage(distance + thickness, step)
    hu *= 1 - outer
    hu += CORTEX_HU * (outer - inner) + marrow * inner


def _texture(shape: tuple[int, ...], axes: Axes, rng: np.random.Generator) -> tuple[Field, Field]:
    """Trabecular pattern (finer across than along the spine) and broad patches; unit variance."""
    white = rng.standard_normal(shape, dtype=np.float32)
    if not white.size:  # a neighbour of which only the arch is in the picture
        return white, white
    k, j, i = axes.step
    fine = ndimage.gaussian_filter(white, (1.1 / k, 0.5 / j, 0.5 / i), truncate=2.5)
    broad = ndimage.gaussian_filter(white, (3.5 / k, 2.5 / j, 2.5 / i), truncate=2.5)
    return fine / fine.std(), broad / broad.std()


def _vein(shape: Shape, u: Field, v: Field, w: Field) -> Field:
    """Strength 0..1 of the basivertebral vein: a cleft at mid height, widest at the back wall."""
    long = 0.8 * shape.depth[0] / 2
    near = np.clip((v - shape.back + long) / long, 0, 1.2)
    thick, wide = 0.9 + 1.5 * near**2, 2.0 + 4.5 * near
    return np.asarray(np.minimum(1.3 * near, 1) * np.exp(-((w / thick) ** 2) - (u / wide) ** 2))


def _body_material(
    vertebra: DrawnVertebra, axes: Axes, settings: SpineSettings, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Marrow HU and cortex thickness (mm) in the body box.

    Marrow grows denser towards the endplates and the wall; the cortex thins and thickens.
    """
    shape = vertebra.placed.shape
    u, v, w = vertebra.placed.local(axes, vertebra.body_box)
    base, depth = settings.marrow_hu, np.maximum(-vertebra.cap, 0)
    fine, broad = _texture(u.shape, axes, rng)
    marrow = base * (1 + 0.4 * np.exp(-depth / 2) + 0.2 * np.exp(np.minimum(vertebra.side, 0) / 2))
    marrow += (settings.texture * (base + 60)) * (fine + 0.35 * broad)
    if rng.uniform() < settings.sclerosis_chance:
        end = rng.choice([-1, 1])
        marrow += rng.uniform(150, 350) * np.exp(-depth / rng.uniform(1.5, 4)) * (w * end > 0)
    vein = _vein(shape, u, v, w)
    marrow += vein * (10 - marrow)
    ended = np.clip((vertebra.cap - vertebra.side) / 1.5 + 0.5, 0, 1)
    thickness = settings.cortex + (settings.endplate - settings.cortex) * ended
    thickness *= np.clip(1 + 0.35 * broad, 0.25, 2) * (1 - 0.8 * vein)
    return marrow.astype(np.float32), thickness.astype(np.float32)


def draw_vertebra(
    hu: Field,
    vertebra: DrawnVertebra,
    axes: Axes,
    settings: SpineSettings,
    rng: np.random.Generator,
) -> None:
    """Lay one vertebra over the clean HU field in place."""
    fine, broad = _texture(vertebra.whole.shape, axes, rng)
    marrow = (settings.marrow_hu + 60) * (1.6 + 0.4 * broad) + 40 * fine
    thickness = ARCH_CORTEX_MM * np.clip(1 + 0.45 * broad, 0.35, 2.2)
    body_marrow, body_thickness = _body_material(vertebra, axes, settings, rng)
    inner, near = vertebra.body_in_box, np.clip(0.5 - vertebra.body / 3, 0, 1)
    marrow[inner] += near * (body_marrow - marrow[inner])
    thickness[inner] += near * (body_thickness - thickness[inner])
    rough = vertebra.whole + np.float32(0.25) * broad  # no surface is as smooth as a formula
    shell(hu[vertebra.box], rough, thickness, marrow, float(np.mean(axes.step)))


def draw_disc(
    hu: Field,
    upper: Placed,
    lower: Placed,
    axes: Axes,
    settings: SpineSettings,
    rng: np.random.Generator,
) -> None:
    """Lay the disc between two bodies over the clean HU field (before the bodies themselves)."""
    centre = (upper.centre + lower.centre) / 2
    tall = float(np.linalg.norm(upper.centre - lower.centre))
    width, depth = upper.shape.width[1], upper.shape.depth[1]
    shape = Shape(
        upper.shape.level,
        (width, lower.shape.width[0]),
        (depth, lower.shape.depth[0]),
        tall,
        upper.shape.canal,
        upper.shape.pedicle,
        0.0,
        (0.0, 0.0),
        waist=0.0,
        dish=(0.0, 0.0),
        ripple=upper.shape.ripple,
    )
    placed = Placed(shape, centre, (upper.frame + lower.frame) / 2)
    reach = np.array([(a, b, c) for a in (-30, 30) for b in (-22, 22) for c in (-0.5, 0.5)])
    box = axes.box(placed.world(reach * (1, 1, tall)), 1)
    u, v, w = placed.local(axes, box)
    side, _ = body_distances(shape, u, v, w)
    fill = np.clip(0.5 - (side - 0.3), 0, 1)
    value = 78 + 28 * np.clip(1 + side / 6, 0, 1)
    if rng.uniform() < settings.vacuum_chance:
        gas = np.exp(-(((w - 0.08 * u) / 1.2) ** 2) - (u / 10) ** 2 - ((v + 2) / 7) ** 2)
        value = value - 700 * np.clip(1.6 * gas - 0.4, 0, 1)
    view = hu[box]
    view += fill * (value - view)


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
