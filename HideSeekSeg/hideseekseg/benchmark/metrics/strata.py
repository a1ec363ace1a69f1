"""Which lesions are found: by their size and by how much they differ from the bone they replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...findings import LesionType
from ...training.evaluation import TYPES
from ..cases import Subject
from .detection import IOUS
from .outcomes import Outcome, Thresholds


@dataclass(frozen=True)
class Lesion:
    """A true lesion: its share of the body, and the mean of its |HU - HU of the twin|."""

    type: LesionType
    share: float
    contrast_hu: float


STRATA: dict[str, Callable[[Lesion], bool]] = {
    "below 3 % of the body": lambda one: one.share < 0.03,
    "3 to 15 %": lambda one: 0.03 <= one.share < 0.15,
    "15 % and more": lambda one: one.share >= 0.15,
    "below 120 HU": lambda one: one.contrast_hu < 120,
    "120 to 200 HU": lambda one: 120 <= one.contrast_hu < 200,
    "200 HU and more": lambda one: one.contrast_hu >= 200,
}


def lesions_of(subject: Subject) -> list[Lesion]:
    """The true lesions of a simulated vertebra, in the order in which they are matched."""
    assert subject.twin_hu is not None
    change = np.abs(subject.hu - subject.twin_hu)
    body = float(subject.case.body.sum())
    return [
        Lesion(kind, float(mask.sum()) / body, float(change[mask].mean()))
        for kind in TYPES
        for mask in subject.case.lesions(kind)
    ]


def recall_by_stratum(
    lesions: Sequence[Sequence[Lesion]], outcomes: Sequence[Outcome], thresholds: Thresholds
) -> dict[str, dict[str, tuple[int, int]]]:
    """Per type and stratum (lesions found at the lowest IoU, lesions): of one method.

    ``lesions`` are those of each outcome's vertebra.
    """
    counts = {kind: dict.fromkeys(STRATA, (0, 0)) for kind in TYPES}
    for own, one in zip(lesions, outcomes):
        for kind in TYPES:
            found = one.matches[kind].found_at(IOUS[0]) > thresholds[kind]
            for lesion, hit in zip((o for o in own if o.type == kind), found):
                for name, within in STRATA.items():
                    if within(lesion):
                        hits, total = counts[kind][name]
                        counts[kind][name] = hits + int(hit), total + 1
    return {str(kind): own for kind, own in counts.items()}
