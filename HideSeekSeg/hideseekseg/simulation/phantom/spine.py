"""CT of a spine drawn from a seed: for the embedded example, and for variety in training.

Three stages: ``draw_clean`` draws true HU on a fine grid, lesions may then be painted into them,
and ``acquire`` blurs, samples and adds noise as a scanner would.  ``draw_spine`` does all three.
The grid is LPS, axial, with k growing towards the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ...imaging.volume import Grid, Volume, triple
from .tissue import (
    Axes,
    Placed,
    Surroundings,
    draw_disc,
    draw_tissue,
    draw_vertebra,
    measure,
    part_joints,
    rib_distance,
    shell,
)
from .vertebra import LEVELS, Field, Shape, SpineSettings, mean_shape, vary

# (clean HU float32, bodies as label values, their grid, rng) -> HU with lesions
Labels = npt.NDArray[np.uint8]
Paint = Callable[[Field, Labels, Grid, np.random.Generator], Field]

FINE_MM = 0.7  # aim of the fine grid; surfaces inside a voxel are drawn by coverage


def label_value(level: str) -> int:
    """TotalSegmentator v2 value of a level: T1 is 43 down to T12 32, L1 31 down to L5 27."""
    return 43 - LEVELS.index(level)


@dataclass(frozen=True)
class CleanSpine:
    """True HU before the scanner, with labels, on a fine grid (all K, J, I)."""

    hu: Field
    vertebrae: Labels
    bodies: Labels
    grid: Grid
    levels: dict[int, str]


@dataclass(frozen=True)
class Phantom:
    """A drawn CT (int16 HU) with whole vertebrae and bodies; ``levels`` maps value to level."""

    ct: Volume
    vertebrae: Volume
    bodies: Volume
    levels: dict[int, str]


def draw_spine(
    settings: SpineSettings, rng: np.random.Generator, paint: Paint | None = None
) -> Phantom:
    """Draw a spine; ``paint`` may put lesions into the clean HU before the scanner sees them."""
    clean = draw_clean(settings, rng)
    hu = clean.hu if paint is None else paint(clean.hu, clean.bodies, clean.grid, rng)
    factors = _factors(settings)
    grid = _coarse_grid(clean.grid, factors)
    return Phantom(
        acquire(Volume(hu, clean.grid, "phantom"), settings, rng),
        Volume(_sample_labels(clean.vertebrae, factors), grid, "vertebrae"),
        Volume(_sample_labels(clean.bodies, factors), grid, "vertebral_bodies"),
        clean.levels,
    )


def example_spine(seed: int = 7, paint: Paint | None = None) -> Phantom:
    """Return the embedded example: T10 to L2 of a person of about 60, 0.8 x 0.8 x 1.5 mm.

    The settings are fixed; ``seed`` moves measures by some percent, and texture and noise.
    """
    settings = SpineSettings(marrow_hu=165.0, fat=0.18, osteophyte=1.2, contrast=0.5, scoliosis=4.0)
    return draw_spine(settings, np.random.default_rng(seed), paint)


def draw_clean(settings: SpineSettings, rng: np.random.Generator) -> CleanSpine:
    """Draw true HU and labels.  Beyond either end the spine goes on, unlabelled, and is cut off.

    Above T1 stand more of T1 and below L5 more of L5: neck and sacrum have no shape here.
    """
    placed, asked = stack(settings, rng)
    axes, grid = _fine_grid(placed[asked], settings)
    first = LEVELS.index(settings.levels[0]) - asked.start
    factors = k, j, i = _factors(settings)
    # Soft tissue has no detail finer than the picture: drawn at its resolution, it costs little.
    coarse = Axes(axes.x[i // 2 :: i], axes.y[j // 2 :: j], axes.z[k // 2 :: k])
    around = _surroundings(placed, first, coarse)
    hu = draw_tissue(around, coarse.step, settings, rng)
    for axis, factor in enumerate(factors):
        hu = hu.repeat(factor, axis)
    for upper, lower in pairwise(placed):
        draw_disc(hu, upper, lower, axes, settings, rng)
    drawn = [measure(one, axes) for one in placed]
    for above, below in pairwise(drawn):
        part_joints(above, below)
    step = float(np.mean(axes.step))
    shell(hu, rib_distance(drawn, axes), 1.2, settings.marrow_hu + 60, step)
    vertebrae, bodies = np.zeros(hu.shape, np.uint8), np.zeros(hu.shape, np.uint8)
    for vertebra in drawn:
        draw_vertebra(hu, vertebra, axes, settings, rng)
    for vertebra in drawn[asked]:
        value = label_value(vertebra.placed.shape.level)
        vertebrae[vertebra.box][vertebra.whole < 0] = value
        inside = (vertebra.body < 0) & (vertebra.whole[vertebra.body_in_box] < 0)
        bodies[vertebra.body_box][inside] = value
    levels = {label_value(level): level for level in settings.levels}
    return CleanSpine(hu, vertebrae, bodies, grid, levels)


def acquire(clean: Volume, settings: SpineSettings, rng: np.random.Generator) -> Volume:
    """Return what a scanner makes of clean HU (fine grid): kernel, slices, noise; int16 HU.

    A voxel is the mean of a block of fine voxels, softened along k as well: the sensitivity
    profile of a slice is not a box.
    """
    fine = clean.grid.spacing[::-1]
    sigma = settings.blur / 2.355 / fine
    sigma[0] = np.hypot(0.4 * sigma[0], 0.3 * settings.spacing_mm[2] / fine[0])
    hu = ndimage.gaussian_filter(clean.array.astype(np.float32), sigma, truncate=3)
    if settings.sharpen > 0:
        wide = ndimage.gaussian_filter(hu, (0, 1.1 / fine[1], 1.1 / fine[2]), truncate=2.5)
        hu += np.float32(settings.sharpen) * (hu - wide)
    factors = _factors(settings)
    hu = _block_mean(hu, factors)
    grid = _coarse_grid(clean.grid, factors)
    hu += scanner_noise(grid, settings, rng)
    return Volume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), grid, clean.name)


def scanner_noise(grid: Grid, settings: SpineSettings, rng: np.random.Generator) -> Field:
    """CT noise (K, J, I): in-plane power grows with frequency (ramp) and falls with the kernel.

    Low-dose streaks run from side to side, where the photons have the longest way.
    """
    _, rows, columns = grid.shape
    fy = np.fft.fftfreq(rows, grid.spacing[1])[:, None]
    fx = np.fft.rfftfreq(columns, grid.spacing[0])[None, :]
    frequency = np.hypot(fy, fx)
    cutoff = (0.42 + 0.35 * settings.sharpen) / settings.blur
    weight = np.sqrt(frequency + 0.02) * np.exp(-((frequency / cutoff) ** 2))
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    white = ndimage.gaussian_filter1d(white, 0.35 / grid.spacing[2], axis=0, truncate=3)
    noise = np.fft.irfft2(np.fft.rfft2(white) * weight, s=(rows, columns)).astype(np.float32)
    noise *= settings.noise_hu / noise.std()
    if settings.streak_hu > 0:
        streak = rng.standard_normal(grid.shape, dtype=np.float32)
        streak = ndimage.gaussian_filter(streak, (0, 0.4, 25 / grid.spacing[0]), truncate=2)
        noise += streak * np.float32(settings.streak_hu / streak.std())
    return noise


def _factors(settings: SpineSettings) -> tuple[int, int, int]:
    """Fine voxels per voxel along k, j, i: odd, so that a block has a voxel in its middle."""
    i, j, k = (1 + 2 * max(0, round((s / FINE_MM - 1) / 2)) for s in settings.spacing_mm)
    return k, j, i


def _fine_grid(placed: list[Placed], settings: SpineSettings) -> tuple[Axes, Grid]:
    """Return a fine grid around the asked vertebrae, with the bodies a little before its middle."""
    factors = _factors(settings)
    spacing = np.array(settings.spacing_mm)
    centres = np.array([p.centre for p in placed])
    ends = (
        placed[0].shape.height / 2 + settings.margin,
        placed[-1].shape.height / 2 + settings.margin,
    )
    low_z, high_z = centres[-1, 2] - ends[1], centres[0, 2] + ends[0]
    middle = (centres.min(0) + centres.max(0)) / 2
    size = np.array([*settings.field, high_z - low_z])
    count = np.maximum(np.rint(size / spacing).astype(int), 1) * np.array(factors[::-1])
    step = spacing / factors[::-1]
    origin = np.array([middle[0] - size[0] / 2, middle[1] - 0.42 * size[1], low_z])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.diag(step), origin
    lines = [(origin[n] + step[n] * np.arange(count[n])).astype(np.float32) for n in range(3)]
    i, j, k = (int(n) for n in count)
    return Axes(*lines), Grid((k, j, i), matrix)


def _surroundings(placed: list[Placed], first: int, axes: Axes) -> Surroundings:
    """Run the spine smoothly through a grid and its bodies; ``first`` is a level's index."""
    upwards = placed[::-1]
    heights = [p.centre[2] for p in upwards]

    def course(values: list[float]) -> Field:
        line = np.interp(axes.z, heights, values)
        smooth = ndimage.gaussian_filter1d(line, 6.0 / axes.step[0], mode="nearest")
        return smooth.astype(np.float32)[:, None, None]

    return Surroundings(
        x=axes.x[None, None, :] - course([p.centre[0] for p in upwards]),
        y=axes.y[None, :, None] - course([p.centre[1] for p in upwards]),
        level=course([float(first + n) for n in range(len(placed))][::-1]),
        half_width=course([float(np.mean(p.shape.width)) / 2 for p in upwards]),
        half_depth=course([p.shape.back for p in upwards]),
        canal_width=course([p.shape.canal[0] for p in upwards]),
        canal_depth=course([p.shape.canal[1] for p in upwards]),
    )


def _block_mean(array: Field, factors: tuple[int, int, int]) -> Field:
    """Means over blocks of fine voxels (k, j, i)."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            shape = array.shape
            split = (*shape[:axis], shape[axis] // factor, factor, *shape[axis + 1 :])
            array = array.reshape(split).mean(axis + 1, dtype=np.float32)
    return array


def _sample_labels(labels: Labels, factors: tuple[int, int, int]) -> Labels:
    """Return the label in the middle of each block of fine voxels."""
    k, j, i = factors
    return labels[k // 2 :: k, j // 2 :: j, i // 2 :: i].copy()


def _coarse_grid(fine: Grid, factors: tuple[int, int, int]) -> Grid:
    """Return the grid of block centres."""
    k, j, i = factors
    matrix = fine.ijk_to_lps.copy()
    matrix[:3, :3] *= np.array([i, j, k])
    matrix[:3, 3] = fine.lps(((i - 1) / 2, (j - 1) / 2, (k - 1) / 2))
    return Grid(triple(n // f for n, f in zip(fine.shape, factors, strict=True)), matrix)


def _shape(level: str, settings: SpineSettings, rng: np.random.Generator) -> Shape:
    """Return a varied vertebra with its benign deformities."""
    shape = vary(mean_shape(level, settings.scale), rng)
    if rng.uniform() < settings.wedge_chance:
        shape = replace(shape, wedge=float(rng.uniform(0.06, 0.22)))
    if rng.uniform() < settings.biconcave_chance:
        shape = replace(shape, dish=(float(rng.uniform(2.5, 5)), float(rng.uniform(2.5, 5))))
    beaks = tuple(
        (float(angle), float(rng.gamma(2.0, settings.osteophyte / 2)), end)
        for end in (-1, 1)
        for angle in rng.uniform(-np.pi, 0.2, 4)  # right side, front, left side; rare behind
    )
    if settings.osteophyte > 0:
        shape = replace(shape, beaks=beaks)
    nodes = tuple(
        (
            float(rng.normal(0, 5)),
            float(rng.normal(2, 4)),
            float(rng.uniform(3, 6)),
            float(rng.uniform(2.2, 4)),
            end,
        )
        for end in (-1, 1)
        if rng.uniform() < settings.schmorl_chance
    )
    return replace(shape, nodes=nodes)


def _frame(lean: float, tilt: float, turn: float) -> npt.NDArray[np.float64]:
    """Columns u, v, w (LPS) of a vertebra leaning forward, tilted Left, turned (degrees)."""
    (cl, ct, cr), (sl, st, sr) = (
        np.cos(np.deg2rad((lean, tilt, turn))),
        np.sin(np.deg2rad((lean, tilt, turn))),
    )
    forward = np.array([(1, 0, 0), (0, cl, -sl), (0, sl, cl)])
    sideways = np.array([(ct, 0, st), (0, 1, 0), (-st, 0, ct)])
    around = np.array([(cr, -sr, 0), (sr, cr, 0), (0, 0, 1)])
    return np.asarray(sideways @ forward @ around)


def stack(settings: SpineSettings, rng: np.random.Generator) -> tuple[list[Placed], slice]:
    """Vertebrae stood upon each other, top first, and which of them were asked for.

    Neighbours continue the spine at either end, as far as the margin shows.
    """
    more = 1 + int(settings.margin // 20)
    first = LEVELS.index(settings.levels[0])
    indices = np.arange(first - more, first + len(settings.levels) + more)
    names = [LEVELS[int(np.clip(n, 0, len(LEVELS) - 1))] for n in indices]
    shapes = [_shape(name, settings, rng) for name in names]
    k, lordosis = settings.kyphosis, settings.lordosis
    lean = np.interp(
        indices, [0, 11, 12, 16], [0.65 * k, -0.35 * k, -0.35 * lordosis, 0.65 * lordosis]
    )
    phase = np.linspace(0, np.pi, len(indices))
    tilt, turn = settings.scoliosis / 2 * np.cos(phase), 0.4 * settings.scoliosis * np.sin(phase)
    disc = (
        np.interp(indices, [0, 4, 9, 12, 15, 16], [4, 4, 5, 8, 11, 10.5])
        * settings.disc
        * settings.scale
    )
    centre = np.zeros(3)
    placed: list[Placed] = []
    for n, shape in enumerate(shapes):
        frame = _frame(float(lean[n] + rng.normal(0, 0.7)), float(tilt[n]), float(turn[n]))
        if placed:
            above = placed[-1]
            gap = disc[n] * (above.frame[:, 2] + frame[:, 2]) / 2
            centre = centre - above.frame[:, 2] * above.shape.height / 2 - gap
            centre = centre - frame[:, 2] * shape.height / 2
        placed.append(Placed(shape, centre, frame))
    return placed, slice(more, more + len(settings.levels))
