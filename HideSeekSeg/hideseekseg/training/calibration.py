"""Fit the probabilities of a set of weights on vertebrae of patients who were not in training.

From their ``observations`` alone: no network is run.  Then the thresholds that go with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import optimize

from ..confidence import candidate_probability, reference_logit, sigmoid, vertebra_probability
from ..findings import LESION_TYPES, LesionType
from ..lesions import log_odds
from ..model.profile import FEATURES, Confidence
from .observations import SeenCandidate, SeenVertebra

Floats = npt.NDArray[np.float64]

PENALTY = 1e-2
VERTEBRA_LOGIT = FEATURES.index("log odds of the vertebra")
DISEASED_SHARE = 0.1  # of the vertebrae that candidates' probabilities are true for
# Weight of a simulated healthy vertebra beside real ones: most have a look-alike painted, to teach.
SIMULATED_HEALTHY_WEIGHT = 0.05
# Neither P of a candidate alone nor of the vertebra speaks against it, however few are seen.
LEAST_SLOPES = np.full(len(FEATURES), -np.inf)
LEAST_SLOPES[[FEATURES.index("log odds of P with it alone revealed"), VERTEBRA_LOGIT]] = 0.0
LONE_SHARE = 0.25  # weight of each vertebra judged alone, beside the same with its patient's others


@dataclass(frozen=True)
class Judged:
    """A vertebra with its P(malignant), and the probability of each of its candidates."""

    seen: SeenVertebra
    p: float
    candidates: tuple[float, ...]

    def accepted(self, threshold: float, gate: float = 0.0) -> list[SeenCandidate]:
        """Return the candidates above a threshold; none where P is below the gate."""
        if self.p < gate:
            return []
        return [c for c, p in zip(self.seen.candidates, self.candidates) if p > threshold]


def fit(seen: Sequence[SeenVertebra], distances: Sequence[float] = ()) -> Confidence:
    """Fit vertebra and candidate probabilities; ``distances`` are those of training vertebrae.

    The candidates of a type are fitted against what the truth says of them: one that finds a lesion
    is true, and healthy vertebrae count as often as ``healthy_weights`` says.  Where a type has no
    true candidate, or no false one, its coefficients stay empty.
    """
    vertebra, usual = _fit_vertebra(seen)
    start = Confidence(vertebra=vertebra, usual_logit=usual)
    p = vertebra_probabilities(start, seen)
    limit = float(np.quantile(distances, 0.99)) if len(distances) else 0.0
    return replace(
        start,
        lytic=_fit_candidates(seen, p, "lytic"),
        blastic=_fit_candidates(seen, p, "blastic"),
        features=FEATURES,
        distance_limit=limit,
    )


def missing(seen: Sequence[SeenVertebra]) -> str:
    """Return what nothing can be fitted without, in words; empty where all is there."""
    for diseased, words in ((True, "diseased"), (False, "healthy")):
        if not any(one.diseased == diseased for one in seen):
            return f"no {words} vertebra was observed"
    for kind in LESION_TYPES:
        if not any(c.true for one in seen for c in one.candidates if c.type == kind):
            return f"no {kind} lesion was found"
    return ""


def others_of(seen: Sequence[SeenVertebra]) -> list[list[float]]:
    """Return the log odds of the other vertebrae of each vertebra's group."""
    groups: dict[str, list[int]] = {}
    for number, one in enumerate(seen):
        groups.setdefault(one.group, []).append(number)
    return [
        [seen[other].logit for other in groups[one.group] if other != number]
        for number, one in enumerate(seen)
    ]


def vertebra_probabilities(confidence: Confidence, seen: Sequence[SeenVertebra]) -> Floats:
    """P(malignant) of each, beside the others of its group."""
    others = others_of(seen)
    return np.array(
        [vertebra_probability(confidence, one.logit, own) for one, own in zip(seen, others)]
    )


def judge(confidence: Confidence, seen: Sequence[SeenVertebra]) -> list[Judged]:
    """Compute all probabilities of vertebrae that were observed."""
    p = vertebra_probabilities(confidence, seen)
    return [
        Judged(one, float(own), tuple(_probability(confidence, c, own) for c in one.candidates))
        for one, own in zip(seen, p)
    ]


def as_they_are(seen: Sequence[SeenVertebra]) -> list[Judged]:
    """Judge by what weights without probabilities go by: their own P and attribution scores."""
    return [Judged(one, sigmoid(one.logit), tuple(c.score for c in one.candidates)) for one in seen]


def _probability(confidence: Confidence, candidate: SeenCandidate, vertebra_p: float) -> float:
    coefficients = confidence.lytic if candidate.type == "lytic" else confidence.blastic
    return candidate_probability(coefficients, _features(candidate, vertebra_p))


def _features(candidate: SeenCandidate, vertebra_p: float) -> tuple[float, ...]:
    """Return the features with the vertebra's calibrated log odds in their place."""
    features = list(candidate.features)
    features[VERTEBRA_LOGIT] = float(np.clip(log_odds(float(vertebra_p)), -7.0, 7.0))
    return tuple(features)


def _fit_vertebra(seen: Sequence[SeenVertebra]) -> tuple[tuple[float, ...], float]:
    diseased = np.array([one.diseased for one in seen])
    logit = np.array([one.logit for one in seen])
    usual = float(np.median(logit[~diseased]))
    beside = np.array([reference_logit(own, usual) for own in others_of(seen)])
    # Each vertebra twice: among the others of its patient, and alone.
    rows = np.concatenate([[logit, logit - beside], [logit, logit - usual]], axis=1).T
    weight = np.repeat([1 - LONE_SHARE, LONE_SHARE], len(seen))
    return logistic(rows, np.tile(diseased, 2), weight, least=np.zeros(2)), usual


def _fit_candidates(seen: Sequence[SeenVertebra], p: Floats, kind: LesionType) -> tuple[float, ...]:
    rows: list[tuple[float, ...]] = []
    true: list[bool] = []
    weight: list[float] = []
    of_real, of_simulated = healthy_weights(seen)
    for one, own in zip(seen, p):
        counts = 1.0 if one.diseased else of_real if one.real else of_simulated
        for candidate in one.candidates:
            if candidate.type == kind:
                rows.append(_features(candidate, own))
                true.append(candidate.true)
                weight.append(counts)
    if not any(true) or all(true):
        return ()
    return logistic(np.array(rows), np.array(true), np.array(weight), LEAST_SLOPES)


def healthy_weights(seen: Sequence[SeenVertebra]) -> tuple[float, float]:
    """Return how often a real and a simulated healthy vertebra count, a diseased one counting once.

    So ``DISEASED_SHARE`` is diseased (or more, if the healthy are fewer), and healthy bone mostly
    as patients have it: simulated sets have many times as many diseased vertebrae as a reader sees,
    more look-alikes, as these are painted to teach, and none of the degenerative changes that
    nobody thought of.  Without real vertebrae all count alike.
    """
    diseased, real = sum(one.diseased for one in seen), sum(one.real for one in seen)
    if not real:
        return 1.0, 1.0
    healthy = diseased * (1 - DISEASED_SHARE) / DISEASED_SHARE
    simulated = SIMULATED_HEALTHY_WEIGHT * (len(seen) - diseased - real)
    return max((healthy - simulated) / real, 1.0), SIMULATED_HEALTHY_WEIGHT


def logistic(
    rows: Floats, true: npt.NDArray[np.bool_], weight: Floats, least: Floats | None = None
) -> tuple[float, ...]:
    """Intercept and slopes of a logistic regression with a small penalty on standardised slopes.

    No slope falls below ``least``, where given.
    """
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    z = (rows - mean) / scale
    share = weight / weight.sum()

    def loss(values: Floats) -> tuple[float, Floats]:
        score = values[0] + z @ values[1:]
        error = np.logaddexp(0.0, score) - true * score
        wrong = share * (1 / (1 + np.exp(-score)) - true)
        slopes = values[1:]
        gradient = np.concatenate([[wrong.sum()], z.T @ wrong + 2 * PENALTY * slopes])
        return float(share @ error + PENALTY * slopes @ slopes), gradient

    bounds: list[tuple[float | None, None]] = [(None, None)] * (z.shape[1] + 1)
    if least is not None:
        bounds[1:] = [(float(value), None) for value in least]
    fitted = optimize.minimize(
        loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds
    ).x
    slopes = fitted[1:] / scale
    return (float(fitted[0] - slopes @ mean), *(float(slope) for slope in slopes))


def expected_calibration_error(p: Floats, true: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance between what is said and what is, over bins of equal width."""
    number = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [
        abs(p[number == n].mean() - true[number == n].mean()) * (number == n).mean()
        for n in np.unique(number)
    ]
    return float(np.sum(gaps))


@dataclass(frozen=True)
class TypeCounts:
    """Lesions found, missed and false findings of one type; Dice per vertebra with true voxels."""

    found: int
    missed: int
    false: int
    dice: float

    @property
    def f1(self) -> float:
        return 2 * self.found / max(2 * self.found + self.missed + self.false, 1)


def tally(
    judged: Sequence[Judged],
    kind: LesionType,
    threshold: float,
    gate: float = 0.0,
    least_mm: float = 0.0,
    most_mm: float = np.inf,
) -> TypeCounts:
    """Count at a threshold; lesions of other diameters are neither asked for nor wrong."""
    found = missed = false = 0
    dice = []
    for one in judged:
        accepted = [c for c in one.accepted(threshold, gate) if c.type == kind]
        sizes = one.seen.lesions[kind]
        hit = [any(c.ious[n] >= 0.1 for c in accepted) for n in range(len(sizes))]
        asked = [least_mm <= size < most_mm for size in sizes]
        found += sum(h for h, a in zip(hit, asked) if a)
        missed += sum(not h for h, a in zip(hit, asked) if a)
        false += sum(not c.true for c in accepted)
        if any(asked):
            right, claimed = sum(c.right for c in accepted), sum(c.voxels for c in accepted)
            dice.append(2 * right / max(claimed + one.seen.voxels[kind], 1))
    return TypeCounts(found, missed, false, float(np.mean(dice)) if dice else float("nan"))


def false_per_healthy(judged: Sequence[Judged], threshold: float, gate: float = 0.0) -> float:
    """Count accepted candidates per healthy vertebra."""
    healthy = [one for one in judged if not one.seen.diseased]
    return sum(len(one.accepted(threshold, gate)) for one in healthy) / max(len(healthy), 1)


def judge_apart(confidence: Confidence, seen: Sequence[SeenVertebra]) -> list[Judged]:
    """Judge each patient by probabilities that were fitted on the others.

    Patients are left out one by one, or in ``MOST_PARTS`` parts where there are more.  A part
    without which nothing can be fitted is judged by ``confidence``.
    """
    patients = sorted({one.patient for one in seen})
    judged: dict[int, Judged] = {}
    for part in (set(patients[n::MOST_PARTS]) for n in range(min(MOST_PARTS, len(patients)))):
        inside = [number for number, one in enumerate(seen) if one.patient in part]
        others = [one for one in seen if one.patient not in part]
        own = confidence if missing(others) else fit(others)
        judged |= dict(zip(inside, judge(own, [seen[number] for number in inside])))
    return [judged[number] for number in range(len(seen))]


THRESHOLDS = tuple(round(0.01 * n, 2) for n in range(20, 96))
# What a false finding in every healthy vertebra takes from the mean F1: a reader has to reject each
# of them, and most of a spine is healthy.
FALSE_COST = 1.0
MOST_FALSE = 0.03  # false findings per real healthy vertebra
MOST_PARTS = 20
GATE_LOSS = 0.01  # share of diseased vertebrae that need not be edited
LEAST_FINDINGS = 5  # from which something is said of findings of little stability
LEAST_TRUE = 2 / 3  # of them, else a reader is told to look
SUSPICIOUS_SHARE = 0.05  # of healthy vertebrae that may be called suspicious


@dataclass(frozen=True)
class Choice:
    """Probabilities with their gates and limits, the threshold, and what it was chosen by.

    ``false_per_real`` are false findings per real healthy vertebra at the threshold, each patient
    judged by probabilities of the others; None where no real vertebra was observed.
    """

    confidence: Confidence
    threshold: float
    real: int
    false_per_real: float | None


def choose(confidence: Confidence, seen: Sequence[SeenVertebra]) -> Choice:
    """Choose the gate, the suspicious P, the threshold and the least stability of candidates.

    The threshold is the one worth most by the mean F1 of both types, less what false findings in
    healthy vertebrae cost, of those that leave at most ``MOST_FALSE`` false findings per real
    healthy vertebra; the highest where none does.  F1 and findings are counted with each patient
    judged by the others: no patient is judged by a fit to it.
    """
    p = vertebra_probabilities(confidence, seen)
    diseased = np.array([one.diseased for one in seen])
    gate = float(np.quantile(p[diseased], GATE_LOSS))
    suspicious = max(0.5, float(np.quantile(p[~diseased], 1 - SUSPICIOUS_SHARE)))
    judged = judge_apart(confidence, seen)
    real = [one for one in judged if one.seen.real]

    def worth(threshold: float) -> float:
        f1 = np.mean([tally(judged, kind, threshold, gate).f1 for kind in LESION_TYPES])
        return float(f1) - FALSE_COST * false_per_healthy(judged, threshold, gate)

    quiet = [t for t in THRESHOLDS if false_per_healthy(real, t, gate) <= MOST_FALSE]
    threshold = max(quiet or THRESHOLDS[-1:], key=worth)
    least = least_stability(judged, threshold, gate)
    return Choice(
        replace(confidence, gate_p=gate, suspicious_p=suspicious, least_stability=least),
        threshold,
        len(real),
        false_per_healthy(real, threshold, gate) if real else None,
    )


def findings_by_stability(
    judged: Sequence[Judged], threshold: float, gate: float = 0.0
) -> dict[float, tuple[int, int]]:
    """Return how many accepted candidates of each stability are true, and how many there are."""
    counts: dict[float, tuple[int, int]] = {}
    for one in judged:
        for candidate in one.accepted(threshold, gate):
            if candidate.stability is not None:
                true, number = counts.get(candidate.stability, (0, 0))
                counts[candidate.stability] = true + candidate.true, number + 1
    return dict(sorted(counts.items()))


def least_stability(judged: Sequence[Judged], threshold: float, gate: float = 0.0) -> float:
    """Return the highest stability below which more than one finding in three is false; or 0."""
    least, true, number = 0.0, 0, 0
    counts = findings_by_stability(judged, threshold, gate)
    for stability, following in zip(counts, [*list(counts)[1:], 1.0]):
        true, number = true + counts[stability][0], number + counts[stability][1]
        if number >= LEAST_FINDINGS and true < LEAST_TRUE * number and stability < 1:
            least = following
    return least
