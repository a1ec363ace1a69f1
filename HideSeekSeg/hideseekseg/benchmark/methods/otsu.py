"""Otsu's thresholds in the vertebral body: alone, and as candidates for hide and seek.

Needs scikit-image (the optional group ``benchmark``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ...attribution import encode, score
from ...findings import LESION_TYPES, LesionType
from ...lesions import Lesion3D, SliceCandidate, p_of_vertebra
from ...model.weights import Model
from ...simulation.random_fields import Field, Mask
from ...training.evaluation import Case
from ..cases import BenchmarkCase
from .method import ByMaps, Chosen, Level, Maps, Tuned, joined, parts_above, supervision

SMOOTHING = 1.0  # pixels: noise is no lesion
MARGINS = (1, 3)  # pixels of the body's rim left out: cortex and endplates are dense
CONTRASTS_HU = (0.0, 60.0, 120.0, 240.0)


def otsu() -> ByMaps:
    """Return the method of Otsu's thresholds in the body."""
    return ByMaps("Otsu in the body", "nothing", draw, CONTRASTS_HU, len(MARGINS))


def draw(subject: BenchmarkCase) -> list[Maps]:
    """Evidence: HU below (lytic) or above (blastic) the body's median, in Otsu's outer classes.

    Three classes, so that the marrow between both kinds of lesion is neither.  One variant per
    margin.  There is no P(malignant).
    """
    smooth = ndimage.gaussian_filter(subject.hu, (0, SMOOTHING, SMOOTHING))
    return [_maps(subject.case, smooth, margin) for margin in MARGINS]


def _maps(case: Case, hu: Field, margin: int) -> Maps:
    from skimage.filters import threshold_multiotsu

    inside = ndimage.binary_erosion(case.body, np.ones((1, 3, 3), bool), margin)
    values = hu[inside]
    none: Field = np.zeros(case.body.shape, np.float32)
    if len(np.unique(values)) < 3:
        return Maps(case, dict.fromkeys(LESION_TYPES, none), float("nan"))
    low, high = threshold_multiotsu(values, classes=3)
    contrast = np.asarray(hu - np.median(values), np.float32)
    evidence: dict[LesionType, Field] = {
        "lytic": np.where(inside & (hu < low), -contrast, none),
        "blastic": np.where(inside & (hu > high), contrast, none),
    }
    return Maps(case, evidence, float("nan"))


@dataclass(frozen=True, eq=False)
class OtsuHiding:
    """Otsu's candidates with hide and seek, what is hidden filled with the median: no diffusion.

    The fill is the median of what no candidate covers in the slice's body.  Classifier, gate and
    score are those of the weights.
    """

    model: Model
    name: str = "Otsu candidates, hide and seek, median fill"
    fixed: Tuned | None = None

    @property
    def learnt_from(self) -> str:
        return supervision(self.model)

    @property
    def settings(self) -> Sequence[Level]:
        return otsu().settings

    def prepare(self, subject: BenchmarkCase) -> tuple[Sequence[Maps], npt.NDArray[np.float64]]:
        return draw(subject), encode(subject.case.x, self.model).p.numpy()

    def detect(
        self, seen: tuple[Sequence[Maps], npt.NDArray[np.float64]], chosen: Chosen
    ) -> tuple[list[Lesion3D], float]:
        maps, p = seen
        gate = self.model.profile.decision.gate_p
        parts = [
            part
            for kind in LESION_TYPES
            for part in parts_above(maps[chosen[kind].variant], kind, chosen[kind].floor)
            if p[part.slice] >= gate
        ]
        return joined(self._scored(maps[0].case, parts, p), chosen), p_of_vertebra(p)

    def _scored(
        self, case: Case, parts: Sequence[SliceCandidate], p: npt.NDArray[np.float64]
    ) -> list[SliceCandidate]:
        """All candidates of a vertebra, each alone left to see, and each slice with none."""
        if not parts:
            return []
        changed = _changed(case.body.shape, parts)
        slices = sorted({part.slice for part in parts})
        none = np.zeros(case.body.shape[1:], bool)
        shown = [(part.slice, part.mask) for part in parts] + [(index, none) for index in slices]
        images = [_filled(case, index, changed[index], keep) for index, keep in shown]
        revealed = encode(torch.stack(images), self.model).p.numpy()
        hidden: Mapping[int, float] = dict(zip(slices, revealed[len(parts) :].tolist()))
        least = self.model.profile.decision.least_span
        return [
            SliceCandidate(
                *(part.slice, part.type, part.mask),
                score(float(own), float(p[part.slice]), hidden[part.slice], least),
            )
            for part, own in zip(parts, revealed)
        ]


def _changed(shape: tuple[int, ...], parts: Sequence[SliceCandidate]) -> Mask:
    changed = np.zeros(shape, bool)
    for part in parts:
        changed[part.slice] |= part.mask
    return changed


def _filled(case: Case, index: int, changed: Mask, keep: Mask) -> torch.Tensor:
    """Return a slice (1, P, I) with the median in all candidates but those to keep."""
    x = case.x[index]
    rest = torch.from_numpy(case.body[index] & ~changed)
    fill = x[0][rest].median() if rest.any() else x[0].median()
    return torch.where(torch.from_numpy(changed & ~keep), fill, x)
