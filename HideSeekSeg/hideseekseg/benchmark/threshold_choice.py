"""Thresholds of the methods that are compared, chosen on validation vertebrae.

Per type the setting, and the score threshold, that are worth most: the mean of F1 (IoU >= 0.1) and
Dice, less what false findings in healthy vertebrae cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..findings import LESION_TYPES, LesionType
from ..training.evaluation import LEAST_IOU
from ..training.evaluation import worth as worth_of
from .cases import BenchmarkCase
from .methods.method import Method, Setting, Tuned
from .methods.trained import spread
from .metrics import Outcome, count, outcome

TRIED_THRESHOLDS = 20


def tuning_cases(folder: Path, subjects: Sequence[BenchmarkCase], most: int) -> list[BenchmarkCase]:
    """Return at most ``most`` of the subjects, evenly spread, to choose thresholds on.

    Raises InputError where these show no lesion of a type, or no healthy vertebra: any threshold
    would be as good as any other, and a baseline be worse than it is.
    """
    some = [subjects[i] for i in spread(len(subjects), most)] if subjects else []
    among = f"among the {len(some)} vertebrae that choose thresholds"
    for kind in LESION_TYPES:
        if not any(subject.case.lesions(kind) for subject in some):
            raise InputError(folder, f"shows no {kind} lesion {among}")
    if all(subject.case.diseased for subject in some):
        raise InputError(folder, f"shows no healthy vertebra {among}")
    return some


def choose(
    method: Method,
    subjects: Sequence[BenchmarkCase],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Tuned:
    """Return the method's own thresholds where they are fixed, else the best on the subjects."""
    if method.fixed is not None:
        return method.fixed
    outcomes: list[list[Outcome]] = [[] for _ in method.settings]
    for number, subject in enumerate(subjects):
        seen = method.prepare(subject)
        for own, setting in zip(outcomes, method.settings):
            lesions, p = method.detect(seen, dict.fromkeys(LESION_TYPES, setting))
            own.append(outcome(subject.case, subject.vertebra, lesions, p))
        tell(number + 1, len(subjects))
    settings: dict[LesionType, Setting] = {}
    thresholds: dict[LesionType, float] = {}
    for kind in LESION_TYPES:
        best = -np.inf
        for setting, own in zip(method.settings, outcomes):
            for threshold in _thresholds(own, kind):
                value = worth(own, kind, threshold)
                if value > best:
                    best, settings[kind], thresholds[kind] = value, setting, threshold
    return Tuned(settings, thresholds)


def worth(outcomes: Sequence[Outcome], kind: LesionType, threshold: float) -> float:
    """As in tuning, for one type; 0 where there is none of it."""
    counted = count(outcomes, kind, threshold, LEAST_IOU)
    found, missed, false = (float(c.sum()) for c in (counted.found, counted.missed, counted.false))
    if found + missed == 0:
        return 0.0
    healthy = np.array([not one.diseased for one in outcomes])
    per_healthy = float(counted.false[healthy].sum()) / max(int(healthy.sum()), 1)
    f1 = 2 * found / (2 * found + missed + false)
    return worth_of(f1, float(np.nanmean(counted.dice)), per_healthy)


def _thresholds(outcomes: Sequence[Outcome], kind: LesionType) -> list[float]:
    """Quantiles of the candidates' scores, from below all of them."""
    scores = np.concatenate([np.empty(0), *(one.matches[kind].scores for one in outcomes)])
    if len(scores) == 0:
        return [0.0]
    levels = np.linspace(0, 1, TRIED_THRESHOLDS, endpoint=False)
    return [float(scores.min()) - 1.0, *np.unique(np.quantile(scores, levels)).tolist()]
