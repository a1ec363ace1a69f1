"""Whether a vertebra looks like those that the weights were trained on, and what to say if not.

Measured on one vertebra as it is handed to the network; the limits stand here by name.
Each rule has a short name under which its alarms are counted (``hideseekseg benchmark range``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.patch import bounding_box
from ..imaging.volume import Grid, Volume
from ..model.profile import Geometry, Profile
from .crop import Crop, Mask, feathered
from .intensity import Calibration
from .surface_distance import REACH_MM, SurfaceDistance, surface_distance_of

Floats = npt.NDArray[np.float32]

METAL_HU = 3000.0
METAL_SHARE = 0.01  # of the body: above it the picture shows the metal's artefacts, not the bone
METAL_NEARBY = "metal nearby"

# A body of which 95 % lies below this is none; the faintest of training and validation has 340.
BONE_HU = 150.0
NO_BONE = "no bone in the segmented body"
# How much brighter the body's rim is than what lies around it, in the median: at least 165 in
# training and validation, mostly below 90 where the outline has slipped off the bone.
EDGE_HU = 100.0
NO_EDGE = "the outline does not follow an edge of bone"
AIR_HU = -500.0
AIR_SHARE = 0.01  # of the body; no body of training or validation holds any
OUTSIDE_SHARE = 0.05  # of what the network sees

# Steps that noise is read from: the crops' slices are so far apart, and finer pixels of one scan
# are not independent of each other.
NOISE_STEP_MM = 1.6
MARROW_MM = 3.0  # from the body's surface
FEWEST_STEPS = 30


@dataclass(frozen=True)
class Limits:
    """What training drew at most; None where nobody knows.

    ``noise_hu``: deviation of the marrow's noise in the crop; ``slice_mm``: the CT's largest voxel
    edge; ``layers``: the fewest CT slices through a body.
    """

    noise_hu: float | None = None
    slice_mm: float | None = None
    layers: int | None = None


# ``learning.acquisition`` adds up to 50 HU to noise that is there already, and sharpens: of
# vertebrae drawn for training 99.5 % measure less than 80.  Slices reach 3 mm, bodies begin at 15.
SIMULATED = Limits(noise_hu=80.0, slice_mm=3.0, layers=5)
UNKNOWN = Limits()
SLICE_TOLERANCE_MM = 0.05


def limits_of(profile: Profile) -> Limits:
    """The limits of some weights: those in percentiles (the published ones) tell none."""
    return SIMULATED if profile.intensity.kind == "asinh" else UNKNOWN


@dataclass(frozen=True)
class Quality:
    """Measured properties of one vertebra; intensities in the units of the CT.

    ``noise``: deviation of the noise in the marrow, NaN where too little of it is seen;
    ``bright``: 95th percentile of the body; ``edge``: the body's rim minus what lies around it, in
    the medians; ``metal_share`` and ``air_share``: of the body, above METAL_HU and below AIR_HU if
    the CT is in HU; ``metal_nearby``: any metal within REACH_MM; ``outside_share``: of what the
    network sees, outside the CT; ``slice_mm``: the CT's largest voxel edge; ``layers``: the fewest
    voxels that the body measures along an axis of the CT.
    """

    noise: float
    bright: float
    edge: float
    metal_share: float
    metal_nearby: bool
    air_share: float
    outside_share: float
    slice_mm: float
    layers: int


def measure(
    view: Volume, body: Mask, crop: Crop, geometry: Geometry, outline: SurfaceDistance | None = None
) -> Quality:
    """Measure a vertebra: the CT around it without NaN, its body in it, and its crop.

    ``outline`` is that of the body where it is known already.
    """
    at = outline or surface_distance_of(view, body)
    own = at.values[at.inside]
    return Quality(
        noise=noise_of(crop.image, crop.body, crop.grid.spacing[::-1]),
        bright=float(np.percentile(own, 95)),
        edge=_edge(at),
        metal_share=float((own > METAL_HU).mean()),
        metal_nearby=bool((at.values[at.outer <= REACH_MM] > METAL_HU).any()),
        air_share=float((own < AIR_HU).mean()),
        outside_share=_outside_share(crop, view.grid, geometry),
        slice_mm=float(at.spacing.max()),
        layers=min(s.stop - s.start for s in bounding_box(body)),
    )


def noise_of(image: Floats, body: Mask, spacing: npt.NDArray[np.float64]) -> float:
    """Deviation of the noise in a body's marrow; image, body and spacing (mm) along (S, P, I).

    From second differences over NOISE_STEP_MM: slopes cancel, edges of lesions are few and do not
    move the median, fine trabeculae count as noise.  The middle one of three axes: one may run
    across thick slices or along an interpolated direction.  NaN where too little marrow is seen.
    """
    depth = ndimage.distance_transform_edt(body, sampling=spacing)
    marrow = depth > min(MARROW_MM, 0.6 * float(depth.max()))
    found = [_differences(image, marrow, axis, spacing[axis]) for axis in range(3)]
    known = [value for value in found if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def _differences(image: Floats, marrow: Mask, axis: int, spacing: float) -> float:
    step = max(round(NOISE_STEP_MM / spacing), 1)
    if image.shape[axis] <= 2 * step:
        return float("nan")
    a, m = np.moveaxis(image, axis, 0), np.moveaxis(marrow, axis, 0)
    seen = m[: -2 * step] & m[step:-step] & m[2 * step :]
    if seen.sum() < FEWEST_STEPS:
        return float("nan")
    curve = (a[: -2 * step] - 2 * a[step:-step] + a[2 * step :])[seen]
    # 1.4826: from median to deviation; a second difference has six times the noise's variance.
    return float(1.4826 * np.median(np.abs(curve)) / np.sqrt(6))


def _edge(at: SurfaceDistance) -> float:
    width = max(1.5, float(at.spacing.max()))
    rim = at.values[at.inside & (at.inner <= width)]
    around = at.values[(at.outer > width) & (at.outer <= 2 * width + 1)]
    return float(np.median(rim) - np.median(around)) if around.size else float("nan")


def _outside_share(crop: Crop, ct: Grid, geometry: Geometry) -> float:
    """An aligned crop is blanked away from the body: only what is left is seen."""
    seen = np.ones(crop.body.shape, bool)
    if geometry.kind == "aligned":
        seen = feathered(crop.body, geometry.margin_pixels) > 0
    ijk = ct.ijk(crop.grid.lps(np.argwhere(seen)[:, ::-1]))
    there = (ijk >= -0.5) & (ijk <= np.array(ct.shape[::-1]) - 0.5)
    return float(1 - there.all(axis=1).mean())


def obstacles(found: Quality, scale: Calibration) -> dict[str, str]:
    """What forbids an analysis, by the rule's name; metal is seen only where the CT is in HU."""
    said = {}
    if scale.is_hu and found.metal_share > METAL_SHARE:
        said["metal in the body"] = f"metal in {found.metal_share:.0%} of the body"
    if scale.slope * found.bright + scale.intercept < BONE_HU:
        said["no bone"] = NO_BONE
    return said


def remarks(found: Quality, scale: Calibration, limits: Limits) -> dict[str, str]:
    """What the reader of the result ought to know, by the rule's name."""
    said = {}
    if scale.is_hu and found.metal_nearby:
        said["metal nearby"] = METAL_NEARBY
    if scale.slope * found.edge < EDGE_HU:
        said["no edge"] = NO_EDGE
    if scale.is_hu and found.air_share > AIR_SHARE:
        said["air"] = f"air in {found.air_share:.0%} of the body"
    if found.outside_share > OUTSIDE_SHARE:
        said["outside"] = f"{found.outside_share:.0%} of the crop lies outside the CT"
    noise = scale.slope * found.noise
    if limits.noise_hu is not None and noise > limits.noise_hu:
        said["noise"] = f"noise beyond training ({noise:.0f} HU)"
    if limits.slice_mm is not None and found.slice_mm > limits.slice_mm + SLICE_TOLERANCE_MM:
        said["thick slices"] = f"slices thicker than in training ({found.slice_mm:.1f} mm)"
    if limits.layers is not None and found.layers < limits.layers:
        said["few slices"] = f"only {found.layers} slices of the CT through the body"
    return said
