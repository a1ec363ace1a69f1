"""What a method made of one vertebra, reduced to what the metrics need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...findings import LesionType
from ...lesions import Joined
from ...training.evaluation import TYPES, Case
from ...training.lesion_matching import Floats, Match, match

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
        return sum(int((self.matches[k].scores > thresholds[k]).sum()) for k in TYPES)


def outcome(case: Case, vertebra: str, lesions: Sequence[Joined], p: float) -> Outcome:
    matches = {
        kind: match(case.truth[kind], [lesion for lesion in lesions if lesion.type == kind])
        for kind in TYPES
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
    """Counts at one threshold of the scores."""
    matches = [one.matches[kind] for one in outcomes]
    found = np.array([(m.found_at(least_iou) > threshold).sum() for m in matches], float)
    true = np.array([len(m.iou) for m in matches], float)
    false = np.array([(m.false_at(least_iou) > threshold).sum() for m in matches], float)
    return Counts(found, true - found, false, np.array([m.dice(threshold) for m in matches]))
