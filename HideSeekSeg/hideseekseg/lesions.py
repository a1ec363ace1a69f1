"""From candidates on slices to lesions in 3D.

Candidates of the same type on neighbouring slices are one lesion where they share at least a third
of the smaller one's pixels.  The lesion's score is the mean of its slices' scores weighted by their
areas, so that the slices that show most of it say most about it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .anatomy.crop import Mask, to_ct
from .findings import LESION_TYPES, Candidate, LesionType, SliceCandidate
from .imaging.volume import Grid, Volume, measure_patch
from .model.profile import Decision

LEAST_OVERLAP = 1 / 3
LEAST_CHANGE, LEAST_CONTRAST = 0.02, 0.1  # in units of x
GAP, RING = np.ones((1, 3, 3)), np.ones((1, 7, 7))  # surroundings: two pixels, one away from it
SURFACE, SURFACE_PIXELS = np.ones((1, 3, 3)), 2  # what lies so near to it is at the surface
MOST_LOGIT, LEAST_P = 7.0, 1e-6
STRONG = 90  # percentile of the change in a candidate that stands for it, whatever its size
LESION_SLICES = 3  # neighbouring slices whose mean P stands for the vertebra


class OnSlice(Protocol):
    """What stands on one slice: of one type, with a mask (P, I)."""

    @property
    def slice(self) -> int: ...
    @property
    def type(self) -> LesionType: ...
    @property
    def mask(self) -> Mask: ...


Part = TypeVar("Part", bound=OnSlice)


@dataclass(frozen=True)
class Lesion3D:
    """Candidates of one type that continue each other from slice to slice.

    ``outline`` (S, P, I) is what of them is drawn; None where that is all of them.
    """

    type: LesionType
    parts: tuple[SliceCandidate, ...]

    probability: float | None = None
    stability: float | None = None
    outline: Mask | None = None

    @property
    def score(self) -> float:
        """Return what thresholds are compared with: the probability where there is one."""
        return self.attribution_score if self.probability is None else self.probability

    @property
    def attribution_score(self) -> float:
        """The mean score of the slices, weighted by area."""
        areas = [int(p.mask.sum()) for p in self.parts]
        return float(np.average([p.score for p in self.parts], weights=areas))

    def mean_p(self, name: str) -> float | None:
        """Return the mean of a P of its slices, weighted by area; None where one has none."""
        values = [float(getattr(part, name)) for part in self.parts]
        if not np.isfinite(values).all():
            return None
        return float(np.average(values, weights=[int(p.mask.sum()) for p in self.parts]))

    @property
    def slices(self) -> tuple[int, ...]:
        """Return the indices of its slices, ascending."""
        return tuple(sorted({p.slice for p in self.parts}))

    def mask(self, shape: tuple[int, int, int]) -> Mask:
        """Return the lesion as it is drawn (S, P, I)."""
        return self.whole(shape) if self.outline is None else self.outline

    def whole(self, shape: tuple[int, int, int]) -> Mask:
        """All parts in one array (S, P, I): what hide and seek reveals."""
        whole = np.zeros(shape, bool)
        for part in self.parts:
            whole[part.slice] |= part.mask
        return whole


def join_slices(parts: Sequence[SliceCandidate], min_slices: int = 1) -> list[Lesion3D]:
    """Group the scored candidates of one vertebra's slices into lesions, best score first.

    Those that stand on fewer than ``min_slices`` slices are noise and dropped.
    """
    lesions = [Lesion3D(own[0].type, tuple(own)) for own in continued(parts, min_slices)]
    return sorted(lesions, key=lambda lesion: -lesion.score)


def continued(parts: Sequence[Part], min_slices: int = 1) -> list[list[Part]]:
    """Group what continues each other from slice to slice, and stands on so many at least."""
    group = list(range(len(parts)))
    for a, first in enumerate(parts):
        for b, second in enumerate(parts):
            if (
                second.slice == first.slice + 1
                and second.type == first.type
                and _overlap(first.mask, second.mask)
            ):
                old, new = group[b], group[a]
                group = [new if g == old else g for g in group]
    joined = [[part for part, own in zip(parts, group) if own == g] for g in dict.fromkeys(group)]
    return [own for own in joined if len({part.slice for part in own}) >= min_slices]


def lesions_of(
    parts: Sequence[SliceCandidate], difference: npt.NDArray[np.float32], decision: Decision
) -> list[Lesion3D]:
    """Group the scored candidates of one vertebra's slices into lesions, and outline each.

    ``difference`` (S, P, I) is edit minus reconstruction, with the slices that the parts count.
    """
    return outlined(join_slices(parts, decision.min_slices), difference, decision)


def outlined(
    lesions: Sequence[Lesion3D], difference: npt.NDArray[np.float32], decision: Decision
) -> list[Lesion3D]:
    """Draw each lesion where it changed by at least ``outline_share`` of its strong change.

    Candidates reach as far as anything changes, so that hide and seek hides all of a lesion: a
    faint rim of bone around it is shown and hidden with it, but is not part of it.  Pieces of fewer
    than ``min_pixels`` voxels that this cuts off are not drawn.
    """
    if not lesions or decision.outline_share == 0:
        return list(lesions)
    change = smoothed(difference, decision)
    drawn = []
    for lesion in lesions:
        whole = lesion.whole((change.shape[0], change.shape[1], change.shape[2]))
        own = change if lesion.type == "lytic" else -change
        strong = float(np.percentile(own[whole], STRONG))
        pieces, count = ndimage.label(whole & (own >= decision.outline_share * strong))
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        kept = sizes >= min(decision.min_pixels, sizes.max())
        drawn.append(replace(lesion, outline=np.asarray(kept[pieces])))
    return drawn


def smoothed(difference: npt.NDArray[np.float32], decision: Decision) -> npt.NDArray[np.float32]:
    """Return edit minus reconstruction (..., P, I) without its noise, each slice by itself."""
    if decision.smooth_pixels == 0 or not difference.any():
        return difference
    within = (decision.smooth_pixels,) * 2
    return np.asarray(ndimage.gaussian_filter(difference, (0,) * (difference.ndim - 2) + within))


def _overlap(a: Mask, b: Mask) -> bool:
    shared = int((a & b).sum())
    return shared > 0 and shared >= LEAST_OVERLAP * min(int(a.sum()), int(b.sum()))


def measure(
    lesions: Sequence[Lesion3D],
    level: str,
    crop_grid: Grid,
    ct: Volume,
    body: Mask,
    hounsfield: bool,
) -> tuple[Candidate, ...]:
    """Return the lesions of one vertebra as candidates on the CT's grid, best score first.

    ``body`` (K, J, I) is the vertebral body on the CT's grid; candidates stay inside it, and one
    that leaves no voxel there is dropped.  ``hounsfield``: whether intensities are HU.
    """
    candidates = []
    counts = dict.fromkeys(LESION_TYPES, 0)
    body_voxels = int(body.sum())
    for lesion in lesions:
        mask = lesion.mask(crop_grid.shape)
        patch = to_ct(mask, crop_grid, ct.grid, body)
        if patch is None:
            continue
        counts[lesion.type] += 1
        size = measure_patch(patch, ct.grid)
        candidates.append(
            Candidate(
                id=f"{level}-{lesion.type}-{counts[lesion.type]}",
                type=lesion.type,
                score=lesion.score,
                attribution_score=lesion.attribution_score,
                probability=lesion.probability,
                stability=lesion.stability,
                volume_mm3=size.volume_mm3,
                centroid_lps=size.centroid_lps,
                box_lps=size.box_lps,
                share_of_body=int(patch.array.sum()) / body_voxels,
                mean_hu=patch.mean(ct.array) if hounsfield else None,
                slices=tuple(int(s) for s in np.flatnonzero(mask.any(axis=(1, 2)))),
                diameter_mm=size.diameter_mm,
                p_all=lesion.mean_p("p_all"),
                p_hidden=lesion.mean_p("p_hidden"),
                p_alone=lesion.mean_p("p"),
                p_without=lesion.mean_p("p_without"),
                patch=patch,
            )
        )
    return tuple(candidates)


def p_of_vertebra(slice_p: npt.NDArray[np.float64]) -> float:
    """P(malignant) of a vertebra: the highest mean over three neighbouring slices.

    A lesion spans several slices; a single slice that stands out is noise more often than disease.
    """
    width = min(LESION_SLICES, len(slice_p))
    return float(np.convolve(slice_p, np.full(width, 1 / width), "valid").max())


def candidate_features(
    lesion: Lesion3D,
    x: npt.NDArray[np.float32],
    difference: npt.NDArray[np.float32],
    body: Mask,
    vertebra_logit: float,
) -> tuple[float, ...]:
    """Return the ``model.profile.FEATURES`` of a candidate.

    ``x`` is the network's input, ``difference`` edit minus reconstruction, both (S, P, I), with the
    slices that the candidate's parts count; ``vertebra_logit`` the log odds of its calibrated P.
    Changes and contrasts are told in that of the vertebra's own dense bone to its median, so that
    they stay the same where a scan's scale of HU is only known by and large.  What lies at the
    surface of the body is often degeneration of a disc or joint.
    """
    middle, dense = np.percentile(x[body], [50, 95])
    bone = max(float(dense - middle), LEAST_CONTRAST)
    # On its slices alone: nothing here looks at those beside them.
    own = slice(lesion.slices[0], lesion.slices[-1] + 1)
    mask = lesion.whole((body.shape[0], body.shape[1], body.shape[2]))[own]
    x_of_it, change, body_of_it = x[own], difference[own], body[own]
    sign = 1.0 if lesion.type == "lytic" else -1.0
    mean_change = max(sign * float(change[mask].mean()), LEAST_CHANGE)
    ring = ndimage.binary_dilation(mask, RING) & ~ndimage.binary_dilation(mask, GAP) & body_of_it
    beside = float(x_of_it[ring].mean()) if ring.any() else float(middle)
    inner = ndimage.binary_erosion(body_of_it, SURFACE, SURFACE_PIXELS)
    return (
        _bounded(log_odds(lesion.mean_p("p") or 0.0)),
        _bounded(vertebra_logit),
        float(np.log(mask.sum() / body.sum())),
        float(np.log(mean_change / bone)),
        sign * (beside - float(x_of_it[mask].mean())) / bone,
        float((~inner[mask]).mean()),
    )


def log_odds(p: float, least: float = LEAST_P) -> float:
    """Return the logit of a probability, finite at 0 and 1."""
    p = min(max(p, least), 1 - least)
    return math.log(p / (1 - p))


def _bounded(logit: float) -> float:
    return float(np.clip(logit, -MOST_LOGIT, MOST_LOGIT))
