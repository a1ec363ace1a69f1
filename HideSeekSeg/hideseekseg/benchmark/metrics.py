"""Metrics of a set of vertebrae, for many bootstrap weightings of them at once.

``weights`` (B, N) say how often each of N vertebrae counts; every metric is an array (B,), NaN
where it is not defined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..findings import LESION_TYPES, LesionType
from ..lesions import Lesion3D
from ..training.evaluation import Case, Floats, Match, match
from .cases import BenchmarkCase

Thresholds = Mapping[LesionType, float]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Candidates of one vertebra against the truth; ``p`` is P(malignant), NaN where not asked.

    ``vertebra`` names the patient's own vertebra, of which a simulation may show many versions.
    """

    patient: str
    vertebra: str
    diseased: bool
    p: float
    matches: Mapping[LesionType, Match]

    def accepted(self, thresholds: Thresholds) -> int:
        """Candidates of both types above their thresholds."""
        return sum(int((self.matches[k].scores > thresholds[k]).sum()) for k in LESION_TYPES)


def outcome(case: Case, vertebra: str, lesions: Sequence[Lesion3D], p: float) -> Outcome:
    """Match the lesions found in a case with its true ones."""
    matches = {
        kind: match(case.truth[kind], [lesion for lesion in lesions if lesion.type == kind])
        for kind in LESION_TYPES
    }
    return Outcome(case.patient, vertebra, case.diseased, p, matches)


@dataclass(frozen=True, eq=False)
class Counts:
    """Per vertebra (N,) of one type: lesions found and missed, false findings, Dice (or NaN)."""

    found: Floats
    missed: Floats
    false: Floats
    dice: Floats


def count(
    outcomes: Sequence[Outcome], kind: LesionType, threshold: float, least_iou: float
) -> Counts:
    """Return the counts at one threshold of the scores."""
    matches = [one.matches[kind] for one in outcomes]
    found = np.array([(m.found_at(least_iou) > threshold).sum() for m in matches], float)
    true = np.array([len(m.iou) for m in matches], float)
    false = np.array([(m.false_at(least_iou) > threshold).sum() for m in matches], float)
    return Counts(found, true - found, false, np.array([m.dice(threshold) for m in matches]))


Weights = npt.NDArray[np.float64]
DrawCounts = npt.NDArray[np.int64]

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
    patient stands alone, and only the vertebrae are drawn.
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


def _redraw(rng: np.random.Generator, times: DrawCounts, size: int) -> DrawCounts:
    """Draw ``size`` of ``size`` things with replacement, ``times`` (B,) times over: (B, size)."""
    return rng.multinomial(times * size, np.full(size, 1 / size))


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the middle 95 % of a metric's replicates; NaN where most of them are undefined."""
    known = values[np.isfinite(values)]
    if len(known) <= len(values) / 2:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class TrueLesion:
    """A true lesion: its share of the body, and the mean of its |HU - HU of the twin|."""

    type: LesionType
    share: float
    contrast_hu: float


STRATA: dict[str, Callable[[TrueLesion], bool]] = {
    "below 3 % of the body": lambda one: one.share < 0.03,
    "3 to 15 %": lambda one: 0.03 <= one.share < 0.15,
    "15 % and more": lambda one: one.share >= 0.15,
    "below 120 HU": lambda one: one.contrast_hu < 120,
    "120 to 200 HU": lambda one: 120 <= one.contrast_hu < 200,
    "200 HU and more": lambda one: one.contrast_hu >= 200,
}


def lesions_of(subject: BenchmarkCase) -> list[TrueLesion]:
    """Return the true lesions of a simulated vertebra, in the order in which they are matched."""
    assert subject.twin_hu is not None
    change = np.abs(subject.hu - subject.twin_hu)
    body = float(subject.case.body.sum())
    return [
        TrueLesion(kind, float(mask.sum()) / body, float(change[mask].mean()))
        for kind in LESION_TYPES
        for mask in subject.case.lesions(kind)
    ]


def recall_by_stratum(
    lesions: Sequence[Sequence[TrueLesion]], outcomes: Sequence[Outcome], thresholds: Thresholds
) -> dict[str, dict[str, tuple[int, int]]]:
    """Per type and stratum (lesions found at the lowest IoU, lesions): of one method.

    ``lesions`` are those of each outcome's vertebra.
    """
    counts = {kind: dict.fromkeys(STRATA, (0, 0)) for kind in LESION_TYPES}
    for own, one in zip(lesions, outcomes):
        for kind in LESION_TYPES:
            found = one.matches[kind].found_at(IOUS[0]) > thresholds[kind]
            for lesion, hit in zip((o for o in own if o.type == kind), found):
                for name, within in STRATA.items():
                    if within(lesion):
                        hits, total = counts[kind][name]
                        counts[kind][name] = hits + int(hit), total + 1
    return {str(kind): own for kind, own in counts.items()}


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
    for kind in LESION_TYPES:
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
    """Return the AUC of P over vertebrae: how often diseased ones have a higher P; ties half."""
    if not np.isfinite(p).all():
        return np.full(len(weights), np.nan)
    if not len(p):
        return np.full(len(weights), np.nan)
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(p[order]) > 0])  # of each value of P
    ill = np.add.reduceat((weights * diseased)[:, order], starts, axis=1)
    well = np.add.reduceat((weights * ~diseased)[:, order], starts, axis=1)
    wins = (ill * (np.cumsum(well, axis=1) - 0.5 * well)).sum(axis=1)
    return _ratio(wins, ill.sum(axis=1) * well.sum(axis=1))


@dataclass(frozen=True, eq=False)
class Curve:
    """Free response: false findings per vertebra and sensitivity as the threshold falls."""

    false: Floats
    sensitivity: Floats

    def at(self, false: float) -> float:
        """Return the highest sensitivity with at most so many false findings per vertebra."""
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
    """Return the bins of P(malignant) that contain vertebrae, lowest first; empty without P."""
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
