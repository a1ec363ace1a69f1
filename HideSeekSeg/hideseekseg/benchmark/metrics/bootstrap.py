"""Bootstrap weights: how often each vertebra is drawn when patients and vertebrae are redrawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

REPLICATES = 1000
LEVEL = 0.95


def draw_weights(
    patients: Sequence[str],
    vertebrae: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 1,
) -> Weights:
    """Weights (replicates, N): the times each of N cases is drawn.

    Patients are drawn with replacement, then each drawn patient's vertebrae, then each drawn
    vertebra's cases (a simulation shows a vertebra many times): what is alike stays together.  One
    patient stands for himself alone, and only his vertebrae are drawn.
    """
    rng = np.random.default_rng(seed)
    tree: dict[str, dict[str, list[int]]] = {}
    for case, (patient, vertebra) in enumerate(zip(patients, vertebrae)):
        tree.setdefault(patient, {}).setdefault(vertebra, []).append(case)
    weights = np.zeros((replicates, len(patients)))
    drawn = _redraw(rng, np.ones(replicates, int), len(tree))
    for patient, own in zip(drawn.T, tree.values()):
        for vertebra, cases in zip(_redraw(rng, patient, len(own)).T, own.values()):
            weights[:, cases] = _redraw(rng, vertebra, len(cases))
    return weights


def _redraw(rng: np.random.Generator, times: Counts, size: int) -> Counts:
    """Draw ``size`` of ``size`` things with replacement, ``times`` (B,) times over: (B, size)."""
    return rng.multinomial(times * size, np.full(size, 1 / size))


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of a metric's replicates; NaN where most of them are undefined."""
    known = values[np.isfinite(values)]
    if len(known) <= len(values) / 2:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
