"""Metrics of a set of vertebrae, for many bootstrap weightings of them at once.

``weights`` (B, N) say how often each of N vertebrae counts; every metric is an array (B,), NaN
where it is not defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...findings import LesionType
from ...training.evaluation import TYPES
from ...training.lesion_matching import Floats
from .bootstrap import Weights, interval
from .outcomes import Outcome, Thresholds, count

IOUS = (0.1, 0.5)
FALSE_PER_VERTEBRA = (0.125, 0.25, 0.5, 1.0)
BINS = 10


@dataclass(frozen=True)
class Estimate:
    """A metric and the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def estimates(
    outcomes: Sequence[Outcome], thresholds: Thresholds, weights: Weights
) -> dict[str, Estimate]:
    """All metrics by name, with intervals."""
    plain = measure(outcomes, thresholds, np.ones((1, len(outcomes))))
    drawn = measure(outcomes, thresholds, weights)
    return {name: Estimate(float(plain[name][0]), *interval(drawn[name])) for name in plain}


def measure(
    outcomes: Sequence[Outcome], thresholds: Thresholds, weights: Weights
) -> dict[str, Floats]:
    """All metrics by name, each (B,)."""
    metrics: dict[str, Floats] = {}
    for kind in TYPES:
        for least_iou in IOUS:
            counts = count(outcomes, kind, thresholds[kind], least_iou)
            found, missed, false = (
                weights @ c for c in (counts.found, counts.missed, counts.false)
            )
            at = f"(IoU >= {least_iou})"
            # Without a true lesion there is nothing to be precise about.
            some = np.where(found + missed > 0, 1.0, 0.0)
            metrics[f"{kind} F1 {at}"] = _ratio(2 * found, (2 * found + missed + false) * some)
            metrics[f"{kind} precision {at}"] = _ratio(found, (found + false) * some)
            metrics[f"{kind} recall {at}"] = _ratio(found, found + missed)
        metrics[f"{kind} Dice"] = weighted_mean(counts.dice, weights)
    diseased = np.array([one.diseased for one in outcomes], bool)
    p = np.array([one.p for one in outcomes], float)
    accepted = np.array([one.accepted(thresholds) for one in outcomes], float)
    metrics["vertebra AUC"] = auc(p, diseased, weights)
    error = (p - diseased) ** 2 if diseased.any() else np.full(len(p), np.nan)
    metrics["Brier score"] = weighted_mean(error, weights)
    metrics["false findings per healthy vertebra"] = weighted_mean(
        np.where(diseased, np.nan, accepted), weights
    )
    return metrics


def auc(p: Floats, diseased: npt.NDArray[np.bool_], weights: Weights) -> Floats:
    """The chance that a diseased vertebra has a higher P than a healthy one; ties count half."""
    if not np.isfinite(p).all():
        return np.full(len(weights), np.nan)
    ill, well = weights[:, diseased], weights[:, ~diseased]
    difference = p[diseased][:, None] - p[~diseased][None]
    wins = np.asarray((difference > 0) + 0.5 * (difference == 0), float)
    return _ratio(((ill @ wins) * well).sum(axis=1), ill.sum(axis=1) * well.sum(axis=1))


@dataclass(frozen=True, eq=False)
class Curve:
    """Free response: false findings per vertebra and sensitivity as the threshold falls."""

    false: Floats
    sensitivity: Floats

    def at(self, false: float) -> float:
        """The highest sensitivity with at most so many false findings per vertebra."""
        return float(self.sensitivity[self.false <= false].max(initial=0.0))


def free_response(
    outcomes: Sequence[Outcome], kinds: Sequence[LesionType], least_iou: float
) -> Curve:
    """From the stored scores of all candidates; starts where nothing is accepted."""
    matches = [one.matches[kind] for one in outcomes for kind in kinds]
    found = np.concatenate([np.empty(0), *(m.found_at(least_iou) for m in matches)])
    false = np.concatenate([np.empty(0), *(m.false_at(least_iou) for m in matches)])
    scores = np.unique(np.concatenate([found[np.isfinite(found)], false]))[::-1]
    per_vertebra = [(false >= s).sum() / max(len(outcomes), 1) for s in scores]
    sensitivity = [(found >= s).sum() / max(len(found), 1) for s in scores]
    return Curve(np.array([0.0, *per_vertebra]), np.array([0.0, *sensitivity]))


@dataclass(frozen=True)
class Bin:
    """Vertebrae whose P lies in one tenth: their number, mean P, and the share diseased."""

    count: int
    p: float
    diseased: float


def reliability(outcomes: Sequence[Outcome]) -> list[Bin]:
    """The bins of P(malignant) that hold vertebrae, lowest first; empty where P is not known."""
    p = np.array([one.p for one in outcomes], float)
    if not np.isfinite(p).all():
        return []
    diseased = np.array([one.diseased for one in outcomes], float)
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    return [
        Bin(int((bins == b).sum()), float(p[bins == b].mean()), float(diseased[bins == b].mean()))
        for b in np.unique(bins)
    ]


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def weighted_mean(values: Floats, weights: Weights) -> Floats:
    """Weighted mean of the values that are numbers."""
    known = np.isfinite(values)
    chosen = weights[:, known]
    return _ratio(chosen @ values[known], chosen.sum(axis=1))
