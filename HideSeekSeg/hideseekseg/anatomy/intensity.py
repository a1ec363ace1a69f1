"""From a scan's intensities to what the network sees.

The aligned profile wants Hounsfield units.  Research crops are often rescaled; any affine image of
HU is brought back to approximate HU by two landmarks that every vertebra has: the soft tissue
around it and its dense cortex.  They vary between people by a third or so, hence "approximate":
training varies scale and offset by as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import NotCTError
from ..imaging.volume import Volume
from ..model.profile import Intensity, Profile
from .crop import Crop, Mask, feathered
from .surface_distance import SurfaceDistance, surface_distance_of

# Medians over the vertebrae of four CTs in HU: 60th percentile of the tissue 2-10 mm around the
# body, 95th percentile inside it.
SOFT_TISSUE_HU = 50.0
DENSE_BONE_HU = 560.0


@dataclass(frozen=True)
class Calibration:
    """HU = slope * intensity + intercept.  ``is_hu``: the volume is in HU already (slope 1)."""

    slope: float
    intercept: float
    is_hu: bool

    def hounsfield(self, intensity: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.is_hu:
            return intensity
        return np.asarray(self.slope * intensity + self.intercept, np.float32)


HOUNSFIELD = Calibration(1.0, 0.0, is_hu=True)


@dataclass(frozen=True)
class Landmarks:
    """Of one body: tissue around it, dense bone, marrow, and the bright part of the body's rim."""

    soft: float
    dense: float
    marrow: float
    rim: float


def landmarks(ct: Volume, body: Mask, outline: SurfaceDistance | None = None) -> Landmarks:
    """Measure a body (bool, on the CT's grid); NaN are left out.

    ``outline`` is its outline where that is known already.
    """
    at = outline or surface_distance_of(ct, body)
    values = np.where(np.isfinite(at.values), at.values, np.nan)
    shell = values[(at.outer > 2) & (at.outer < 10)]
    deep = values[at.inner > min(3.0, 0.6 * float(at.inner.max()))]
    rim = values[at.inside & (at.inner <= max(1.5, float(at.spacing.max())))]

    def percentile(sample: npt.NDArray[np.float32], q: float) -> float:
        return float(np.nanpercentile(sample, q)) if np.isfinite(sample).any() else float("nan")

    return Landmarks(
        percentile(shell, 60),
        percentile(values[at.inside], 95),
        percentile(deep, 50),
        percentile(rim, 90),
    )


def surely_hounsfield(ct: Volume, found: Sequence[Landmarks], total: int) -> bool:
    """Whether ``calibrate`` will find HU whatever is still to come of ``total`` vertebrae.

    The median lies where more than half of all lie.
    """
    lowest = float(np.nanmin(ct.array)) if 2 * len(found) > total else 0.0
    usual = [m for m in found if _is_usual(lowest, m.soft, m.dense)]
    return 2 * len(usual) > total


def calibrate(ct: Volume, found: Sequence[Landmarks]) -> Calibration:
    """Decide whether the volume is in HU, else how to bring it there.

    Uses the median over all vertebrae, so that one diseased vertebra does not set the scale.
    Raises NotCTError where dense bone is not brighter than soft tissue, or the rim of the bodies
    is darker than their marrow (as in MR, where cortex is black).
    """
    soft, dense, marrow, rim = np.nanmedian(
        [[m.soft, m.dense, m.marrow, m.rim] for m in found], axis=0
    )
    lowest = float(np.nanmin(ct.array))
    if _is_hu(lowest, float(soft), float(dense)):
        return HOUNSFIELD
    if not dense > soft:
        raise NotCTError(ct.source, "bone is not brighter than the tissue around it: is this a CT?")
    if rim < marrow:
        raise NotCTError(
            ct.source, "the rim of the vertebral bodies is darker than their marrow: an MR image?"
        )
    slope = (DENSE_BONE_HU - SOFT_TISSUE_HU) / (dense - soft)
    return Calibration(slope, SOFT_TISSUE_HU - slope * soft, is_hu=False)


def _is_hu(lowest: float, soft: float, dense: float) -> bool:
    """Also where the segmentation has slipped off the bone: air tells that its scale is HU.

    Else muscle or lung would be stretched until it looks like bone.
    """
    air = -1100 < lowest < -900
    slipped = air and dense <= 180 and (-60 < soft < 160 or soft < -600)
    return slipped or _is_usual(lowest, soft, dense)


def _is_usual(lowest: float, soft: float, dense: float) -> bool:
    return lowest < -50 and -60 < soft < 160 and 180 < dense < 2500


def network_input(
    crop: Crop, profile: Profile, calibration: Calibration
) -> npt.NDArray[np.float32]:
    """The crop as network input x, (S, P, I) float32.

    "percentile" scales each slice on its own as published.  "asinh" compresses HU so that lytic and
    blastic contrasts are both visible; an aligned crop is blanked to -1 away from the body.
    """
    scaling = profile.intensity
    if scaling.kind == "percentile":
        low, high = np.percentile(
            crop.image, [scaling.lower, scaling.upper], axis=(1, 2), keepdims=True
        )
        return np.asarray((crop.image - low) / np.maximum(high - low, 1e-6), np.float32)
    x = compressed(calibration.hounsfield(crop.image), scaling)
    if profile.geometry.kind == "aligned":
        x = blanked(x, feathered(crop.body, profile.geometry.margin_pixels))
    return x


def compressed(hounsfield: npt.NDArray[np.float32], scaling: Intensity) -> npt.NDArray[np.float32]:
    """HU of any shape to x in [-1, 1]: nearly linear around ``centre``, logarithmic far from it."""
    x = (np.arcsinh((hounsfield - scaling.centre) / scaling.width) - scaling.offset) / scaling.scale
    return np.asarray(np.clip(x, -1.0, 1.0), np.float32)


def blanked(x: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """x where ``weight`` is 1, -1 where it is 0."""
    return np.asarray((x + 1.0) * weight - 1.0, np.float32)
