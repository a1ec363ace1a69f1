"""From a scan's intensities to what the network sees.

The aligned profile wants Hounsfield units.  Research crops are often rescaled; any affine image of
HU is brought back by two landmarks: the soft tissue around the vertebrae, and air where the volume
shows some, which is right to a tenth.  Where it shows none, as in a crop, the second is
dense cortex, which every vertebra has but which varies between people by a third or so: then the
scale is known by and large only, and dense bone is taken for usual bone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import NotCTError
from ..imaging.volume import Volume
from ..model.profile import Intensity, Profile
from ..plain_data import counted
from .crop import Crop, Mask, feathered
from .vertebra_shape import SurfaceDistance, surface_distance_of

# Medians over 17 CTs in HU, those of training and validation: 60th percentile of the tissue 2-10 mm
# around the body (51 to 136), 95th percentile inside it (333 to 797).
SOFT_TISSUE_HU = 90.0
DENSE_BONE_HU = 430.0

METAL_HU = 3000.0
# What is brighter than bone by so many times the contrast of bone is metal: 1500 HU and more.
METAL_CONTRAST = 6.0
# Bodies of real scans hold at most 1 in 1000 voxels at the highest value around them.
SATURATED_SHARE = 0.2
LEAST_SATURATED = 0.002
# Shares of the contrast of bone: 23 real scans have 0.36 and more, and 0.54 and more.
LEAST_EDGE = 0.1
LEAST_CORTEX = 0.1
DEEP_MM = 3.0  # from the body's surface, where marrow is
LOWEST_AIR, HIGHEST_AIR = -1100.0, -900.0
AIR_HU = -1000.0
# What is darkest is air if dense bone is then as dense as that of people is.
THINNEST_BONE_HU, DENSEST_BONE_HU = 220.0, 900.0
PADDING_GAP = 0.15  # from the lowest value to the next, as a share of that to soft tissue
FEWEST_VALUES = 30


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
    """Of one body: tissue around it, dense bone, marrow, and the bright part of the body's rim.

    ``edge`` is the median of the rim minus that of what lies around it (NaN: not known);
    ``saturated`` the share of the body at the highest value of the CT.  Metal and cement
    are left out of all but the last.
    """

    soft: float
    dense: float
    marrow: float
    rim: float
    edge: float = float("nan")
    saturated: float = 0.0


def landmarks(ct: Volume, body: Mask, outline: SurfaceDistance | None = None) -> Landmarks:
    """Measure a body (bool, on the CT's grid); NaN are left out.

    ``outline`` is its outline where that is known already.
    """
    at = outline or surface_distance_of(ct, body)
    values = np.where(np.isfinite(at.values), at.values, np.nan)
    saturated = float((values[at.inside] >= highest(ct)).mean())
    values = _without_metal(values, at)
    shell = values[(at.outer > 2) & (at.outer < 10)]
    deep = values[at.inner > min(DEEP_MM, 0.6 * float(at.inner.max()))]
    rim = values[at.rim]
    return Landmarks(
        _percentile(shell, 60),
        _percentile(values[at.inside], 95),
        _percentile(deep, 50),
        _percentile(rim, 90),
        _percentile(rim, 50) - _percentile(values[at.near], 50),
        saturated,
    )


def highest(ct: Volume) -> float:
    """Return the highest finite value of a volume, NaN where there is none."""
    largest = float(ct.array.max())
    if np.isfinite(largest):
        return largest
    finite = ct.array[np.isfinite(ct.array)]
    return float(finite.max()) if finite.size else float("nan")


def _percentile(sample: npt.NDArray[np.float32], q: float) -> float:
    return float(np.nanpercentile(sample, q)) if np.isfinite(sample).any() else float("nan")


def _without_metal(values: npt.NDArray[np.float32], at: SurfaceDistance) -> npt.NDArray[np.float32]:
    """Return the values with NaN for what stands out from bone as metal does, whatever the scale.

    Medians and the 80th percentile are those of bone also where screws cross a body.  Marrow is
    not denser than nearly all of the body's rim: there it is cement, or a disease.
    """
    marrow = at.inner > min(DEEP_MM, 0.6 * float(at.inner.max()))
    values = np.where(
        marrow & (values > _percentile(values[at.rim], 99)), np.float32(np.nan), values
    )
    soft = _percentile(values[(at.outer > 2) & (at.outer < 10)], 60)
    bone = max(_percentile(values[at.inside], 80), _percentile(values[at.rim], 50))
    limit = soft + METAL_CONTRAST * (bone - soft)
    if not bone > soft or not float(np.nanmax(values)) > limit:
        return values
    return np.where(values > limit, np.float32(np.nan), values)


def surely_hounsfield(ct: Volume, found: Sequence[Landmarks], total: int) -> bool:
    """Return whether ``calibrate`` will find HU whatever is still to come of ``total`` vertebrae.

    The median lies where more than half of all lie.
    """
    if 2 * len(found) <= total:
        return False
    has_air, lowest = _lowest(ct)
    usual = [
        m
        for m in found
        if _is_usual(lowest, m.soft, m.dense, has_air) and m.saturated < SATURATED_SHARE
    ]
    return 2 * len(usual) > total


def calibrate(ct: Volume, found: Sequence[Landmarks]) -> Calibration:
    """Decide whether the volume is in HU, else how to bring it there.

    Uses the median over all vertebrae, so that one diseased vertebra does not set the scale.
    Raises NotCTError where dense bone is not brighter than soft tissue, the rim of the bodies is
    not brighter than what lies around them, or darker than their marrow (as in MR, where cortex is
    black), and where much of the bone is cut off at the volume's highest value.
    """
    soft, dense, marrow, rim, edge, saturated = (
        float(x)
        for x in _medians([[m.soft, m.dense, m.marrow, m.rim, m.edge, m.saturated] for m in found])
    )
    has_air, lowest = _lowest(ct)
    slipped = _has_slipped(soft, dense, has_air)
    # The rim is cut off first; marrow that is brightest of all is that of an MR image.
    if dense > soft and rim >= dense and saturated > SATURATED_SHARE and not slipped:
        top = highest(ct)
        raise NotCTError(
            ct.source,
            f"{saturated:.0%} of the bone is cut off at the highest value ({top:g}): the CT was "
            "saved through a window, which cannot be undone",
        )
    plausible = ct.stated_hu and -150 < soft < 300 and dense > soft
    if plausible or slipped or _is_usual(lowest, soft, dense, has_air):
        return HOUNSFIELD
    if not dense > soft:
        raise NotCTError(ct.source, "bone is not brighter than the tissue around it: is this a CT?")
    if edge < LEAST_EDGE * (dense - soft):
        raise NotCTError(
            ct.source,
            "the rim of the vertebral bodies is not brighter than the tissue around them: an MR "
            "image, an inverted CT, or a segmentation of another scan?",
        )
    if rim - marrow < LEAST_CORTEX * (dense - soft):
        raise NotCTError(
            ct.source,
            "the rim of the vertebral bodies is not brighter than their marrow: an MR image?",
        )
    slope = (DENSE_BONE_HU - SOFT_TISSUE_HU) / (dense - soft)
    for darkest in _darkest(ct, soft):
        from_air = (SOFT_TISSUE_HU - AIR_HU) / (soft - darkest)
        if THINNEST_BONE_HU <= SOFT_TISSUE_HU + from_air * (dense - soft) <= DENSEST_BONE_HU:
            slope = from_air
            break
    return Calibration(slope, SOFT_TISSUE_HU - slope * soft, is_hu=False)


def cut_off(ct: Volume, found: Sequence[Landmarks], scale: Calibration) -> str:
    """Return words for a CT of which every body reaches the highest value, empty for others.

    Of bodies of whole scans less than 1 in 1000 voxels do so, and in most of them none.  A value
    that bone does not have is metal's, and said of each vertebra.
    """
    shares, top = [m.saturated for m in found], highest(ct)
    if not shares or min(shares) < LEAST_SATURATED:
        return ""
    if scale.slope * top + scale.intercept > METAL_HU:
        return ""
    return f"the CT seems to be cut off at its highest value ({top:g})"


def _medians(rows: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """Medians of columns without NaN; NaN for a column that holds nothing else."""
    columns = np.array(rows, float).T
    return np.array(
        [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else np.nan for c in columns]
    )


def _lowest(ct: Volume) -> tuple[bool, float]:
    """Tell whether air near -1000 is seen beside tissue, and the lowest value besides padding.

    Scanners fill what lies outside their field with one value far below air, such as -2000.  A
    volume without any value above water's is in no HU, wherever its values lie.
    """
    sample = ct.array[tuple(slice(None, None, max(n // 64, 1)) for n in ct.array.shape)]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return False, float("nan")
    lowest = float(np.nanmin(ct.array))
    inside = sample[sample > max(lowest, -1e30)] if lowest < LOWEST_AIR else sample
    bottom = float(np.percentile(inside, 0.1)) if inside.size else lowest
    near_air = LOWEST_AIR < bottom < HIGHEST_AIR or LOWEST_AIR < lowest < HIGHEST_AIR
    has_air = near_air and float(sample.max()) > 0
    return has_air, bottom if lowest < LOWEST_AIR else lowest


def _darkest(ct: Volume, soft: float) -> list[float]:
    """Return what may be air: the darkest value, before it the one above a lone value far below.

    That lone value is padding or, where air was cut off, air itself.
    """
    sample = ct.array[tuple(slice(None, None, max(n // 64, 1)) for n in ct.array.shape)]
    sample = sample[np.isfinite(sample) & (sample < soft)]
    if not sample.size:
        return []
    lowest = float(sample.min())
    rest = sample[sample > lowest]
    found = [float(np.percentile(sample, 0.1))]
    if rest.size and rest.min() - lowest > PADDING_GAP * (soft - lowest):
        found.insert(0, float(np.percentile(rest, 0.1)))
    return found


def check_values(ct: Volume) -> None:
    """Raise NotCTError for a volume of a handful of values: a label map or a picture."""
    sample = ct.array[tuple(slice(None, None, max(n // 64, 1)) for n in ct.array.shape)]
    if len(np.unique(sample)) < FEWEST_VALUES:
        values = np.unique(ct.array[np.isfinite(ct.array)])
        if 0 < len(values) < FEWEST_VALUES:
            raise NotCTError(
                ct.source,
                f"only {counted(len(values), 'different value')}: a label map or a mask, not a CT",
            )


def _has_slipped(soft: float, dense: float, has_air: bool) -> bool:
    """Return whether the scale is HU, as air tells, but the segmentation lies off the bone.

    Else muscle or lung would be stretched until it looks like bone.
    """
    return has_air and dense <= 180 and (-60 < soft < 160 or soft < -600)


def _is_usual(lowest: float, soft: float, dense: float, has_air: bool) -> bool:
    """Contrast medium and bone around a body lift ``soft``: with air there is less doubt."""
    return lowest < -50 and -60 < soft < (250 if has_air else 160) and 180 < dense < 2500


def network_input(
    crop: Crop, profile: Profile, calibration: Calibration
) -> npt.NDArray[np.float32]:
    """Return the crop as network input x, (S, P, I) float32.

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
    """Return x where ``weight`` is 1, -1 where it is 0."""
    return np.asarray((x + 1.0) * weight - 1.0, np.float32)
