"""How drawn vertebrae stand upon each other, and which benign deformities each has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .bone import Placed
from .settings import SpineSettings
from .vertebra import LEVELS, Shape, mean_shape, vary


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
