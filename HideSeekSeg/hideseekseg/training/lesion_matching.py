"""When a candidate is right: the one matching rule of tuning and benchmarks.

A true lesion is found where a candidate of its type overlaps it in 3D with an intersection over
union (IoU) of at least a given value; a candidate that so overlaps no true lesion is false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from ..simulation.random_fields import Mask

Floats = npt.NDArray[np.float64]

LEAST_IOU = 0.1  # from here on a lesion counts as found
LEAST_TRUE_VOXELS = 24
RULE = (
    f"A true lesion (at least {LEAST_TRUE_VOXELS} voxels of one type, joined by their faces) is"
    " found if an accepted candidate of its type overlaps it in 3D with at least the stated IoU;"
    " an accepted candidate that so overlaps no true lesion of its type is a false finding."
)


class ScoredRegion(Protocol):
    """What can be matched, such as a ``Lesion3D``: voxels and a score."""

    @property
    def score(self) -> float: ...

    def mask(self, shape: tuple[int, int, int]) -> Mask: ...


@dataclass(frozen=True, eq=False)
class Match:
    """The candidates of one type against the true lesions of one vertebra, for any threshold.

    ``scores`` (C,) and ``iou`` (T, C) belong to C candidates and T true lesions.  ``inside`` and
    ``outside`` hold, for each voxel in and beside the ``truth`` voxels that candidates claim, the
    highest score of those that do.
    """

    scores: Floats
    iou: Floats
    inside: Floats
    outside: Floats
    truth: int

    def found_at(self, least_iou: float) -> Floats:
        """Per true lesion the highest score of a candidate that finds it, -inf where none does."""
        scores = np.where(self.iou >= least_iou, self.scores, -np.inf)
        return np.asarray(scores.max(axis=1, initial=-np.inf))

    def false_at(self, least_iou: float) -> Floats:
        """Scores of the false candidates."""
        return self.scores[~(self.iou >= least_iou).any(axis=0)]

    def lowered(self, threshold: float) -> Match:
        """Return the same with scores told as what they exceed a threshold by."""
        scores, inside, outside = (
            values - threshold for values in (self.scores, self.inside, self.outside)
        )
        return Match(scores, self.iou, inside, outside, self.truth)

    def dice(self, threshold: float) -> float:
        """Overlap of truth and all candidates above the threshold; NaN without a true lesion."""
        if len(self.iou) == 0:
            return float("nan")
        right = int((self.inside > threshold).sum())
        return 2 * right / (self.truth + right + int((self.outside > threshold).sum()))


def true_lesions(truth: Mask) -> list[Mask]:
    """Return the lesions (S, P, I) of one type that are large enough to ask for."""
    labels, count = ndimage.label(truth)
    parts = [labels == i for i in range(1, count + 1)]
    return [part for part in parts if part.sum() >= LEAST_TRUE_VOXELS]


def match(truth: Mask, lesions: Sequence[ScoredRegion]) -> Match:
    """Compare candidates of one type with the true voxels (S, P, I) of that type."""
    true = true_lesions(truth)
    shape = (truth.shape[0], truth.shape[1], truth.shape[2])
    claimed = np.full(shape, -np.inf)
    iou = np.zeros((len(true), len(lesions)))
    for c, lesion in enumerate(lesions):
        mask = lesion.mask(shape)
        claimed[mask] = np.maximum(claimed[mask], lesion.score)
        size = int(mask.sum())
        for t, part in enumerate(true):
            shared = int(part[mask].sum())
            iou[t, c] = shared / (int(part.sum()) + size - shared)
    scores = np.array([lesion.score for lesion in lesions], float)
    touched = np.isfinite(claimed)
    inside, outside = claimed[touched & truth], claimed[touched & ~truth]
    return Match(scores, iou, inside, outside, int(truth.sum()))


def auc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative."""
    a, b = np.asarray(positive, float), np.asarray(negative, float)
    if len(a) == 0 or len(b) == 0:
        return float("nan")
    ranks = stats.rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))
