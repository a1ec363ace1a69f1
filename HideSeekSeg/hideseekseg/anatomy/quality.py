"""Whether a vertebra looks like those that the weights were trained on, and what to say if not.

Measured on one vertebra as it is handed to the network; rules stand here by name, and limits of a
training come from the weights' profile.
Each rule has a short name under which its alarms are counted (``hideseekseg benchmark range``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Grid, Volume, bounding_box
from ..model.profile import Geometry, Limits, Profile
from .crop import Crop, Mask, feathered
from .intensity import METAL_HU, Calibration, highest
from .interpolated_slices import measured_mm
from .repeated_slices import Repeats, find_repeats
from .vertebra_shape import REACH_MM, SurfaceDistance, depth_of, surface_distance_of

Floats = npt.NDArray[np.float32]

METAL_SHARE = 0.01  # of the body: above it the picture shows the metal's artefacts, not the bone
METAL_NEARBY = "metal nearby"
# Marrow of training and validation holds at most 0.3 % above 1200 HU, sclerotic lesions included.
CEMENT_HU = 1400.0
CEMENT_SHARE = 0.02  # of what lies deep in the body
# Bodies of 23 real scans hold at most 1 in 1000 voxels at the highest value around them.
SATURATED_SHARE = 0.005
NOT_HU = "intensities are not HU: their scale was estimated"

# A body of which 95 % lies below this is none; the faintest of training and validation has 340.
BONE_HU = 150.0
NO_BONE = "no bone in the segmented body"
# How much brighter the body's rim is than what lies around it, in the median: at least 165 in
# training and validation, mostly below 90 where the outline has slipped off the bone.
EDGE_HU = 100.0
NO_EDGE = "the outline does not follow an edge of bone"
# No tissue and no artefact in bone is as dark: it stands for what was not measured.
LOWEST_HU = -1500.0
AIR_HU = -500.0
AIR_SHARE = 0.01  # of the body; no body of training or validation holds any
OUTSIDE_SHARE = 0.05  # of what the network sees

# Steps that noise is read from: the crops' slices are so far apart, and finer pixels of one scan
# are not independent of each other.
NOISE_STEP_MM = 1.6
MARROW_MM = 3.0  # from the body's surface
FEWEST_STEPS = 30
STEP = 0.25  # of percentiles


# Of simulated sets that did not record them.  ``simulation.acquisition`` adds up to 50 HU to noise
# that is there already, and sharpens: of vertebrae drawn for training 99.5 % measure less than 80.
# Slices reach 3 mm, bodies begin at 15.
SIMULATED = Limits(noise_hu=80.0, slice_mm=3.0, layers=5)
UNKNOWN = Limits()
SLICE_TOLERANCE_MM = 0.05
NOISE_SHARE = 0.995


def limits_of(profile: Profile) -> Limits:
    """Return the limits of weights, by what they were trained on.

    Those that did not record them and name their patients learned from simulated ones.  Of patients
    who are only counted, and of the authors' weights, nothing is known.
    """
    if profile.limits is not None:
        return profile.limits
    return SIMULATED if profile.provenance.get("patients") else UNKNOWN


def limits_over(noise_hu: npt.ArrayLike, slice_mm: npt.ArrayLike, layers: npt.ArrayLike) -> Limits:
    """Return the limits that some vertebrae (N,) make; noise may be NaN, where none was measured.

    Noise that at most one vertebra in 200 exceeds, in whole HU: so a single artefact does not stand
    for a set.
    """
    noise, thickness, counts = (np.asarray(v, float) for v in (noise_hu, slice_mm, layers))
    known = noise[np.isfinite(noise)]
    return Limits(
        math.ceil(np.quantile(known, NOISE_SHARE, method="inverted_cdf")) if known.size else None,
        float(thickness.max()) if thickness.size else None,
        int(counts.min()) if counts.size else None,
    )


def limits_of_both(a: Limits, b: Limits) -> Limits:
    """Return the limits of weights that learned from two sets; unknown where one of them is."""

    def joined(x: float | None, y: float | None, of: Callable[[float, float], float]) -> Any:
        return None if x is None or y is None else of(x, y)

    return Limits(
        joined(a.noise_hu, b.noise_hu, max),
        joined(a.slice_mm, b.slice_mm, max),
        joined(a.layers, b.layers, min),
    )


@dataclass(frozen=True)
class Quality:
    """Measured properties of one vertebra; intensities in the units of the CT.

    ``noise``: deviation of the noise in the marrow, NaN where too little of it is seen; ``body``
    and ``deep``: percentiles (0 to 100 in steps of ``STEP``) of the body and of its inside;
    ``brightest_near``: highest value within REACH_MM; ``saturated``: share of the body at the
    highest value of the CT; ``edge``: the body's rim minus what lies around it, in the medians;
    ``outside_share``: of what the network sees, outside the CT; ``slice_mm``: the CT's largest
    voxel edge; ``layers``: the fewest voxels that the body measures along an axis of the CT: both
    by what was measured, where slices are ``repeated``, empty or interpolated; then
    ``interpolated_mm`` is what the header says of those that are farthest apart.
    """

    noise: float
    body: tuple[float, ...]
    deep: tuple[float, ...]
    brightest_near: float
    saturated: float
    edge: float
    outside_share: float
    slice_mm: float
    layers: int
    repeated: tuple[Repeats, ...] = ()
    interpolated_mm: float | None = None

    @property
    def bright(self) -> float:
        """Return the 95th percentile of the body."""
        return self.body[round(95 / STEP)]


def share_above(percentiles: tuple[float, ...], limit: float) -> float:
    """Return which share of a sample lies above a limit, by its percentiles."""
    return 1 - float(np.searchsorted(percentiles, limit, "right")) / len(percentiles)


def measure(
    view: Volume, body: Mask, crop: Crop, geometry: Geometry, outline: SurfaceDistance | None = None
) -> Quality:
    """Measure a vertebra: the CT around it without NaN, its body in it, and its crop.

    ``outline`` is that of the body where it is known already.
    """
    at = outline or surface_distance_of(view, body)
    own = at.values[at.inside]
    deep = at.values[at.inner > min(MARROW_MM, 0.6 * float(at.inner.max()))]
    steps = np.arange(0, 100 + STEP / 2, STEP)
    top = highest(view)
    repeated = find_repeats(view, body)
    apart = np.array(measured_mm(view, body))
    heights = np.array([s.stop - s.start for s in bounding_box(body)])
    farthest = int(apart.argmax())
    stated = float(view.grid.spacing[2 - farthest])
    layers = measured_layers(heights, view.grid.spacing[::-1], apart)
    thickest = max((one.real_mm for one in repeated), default=0.0)
    return Quality(
        noise=noise_of(crop.image, crop.body, crop.grid.spacing[::-1]),
        body=tuple(np.percentile(own, steps).tolist()),
        deep=tuple(np.percentile(deep, steps).tolist()),
        brightest_near=float(at.values[at.outer <= REACH_MM].max()),
        saturated=float((own >= top).mean()),
        edge=_edge(at),
        outside_share=_outside_share(crop, view.grid, geometry),
        slice_mm=max(*apart.tolist(), thickest),
        layers=min([*layers, *(one.measured for one in repeated)]),
        repeated=repeated,
        interpolated_mm=stated if apart[farthest] > max(stated, thickest) else None,
    )


def noise_of(image: Floats, body: Mask, spacing: npt.NDArray[np.float64]) -> float:
    """Deviation of the noise in a body's marrow; image, body and spacing (mm) along (S, P, I).

    From second differences over NOISE_STEP_MM: slopes cancel, edges of lesions are few and do not
    move the median, fine trabeculae count as noise.  The middle one of three axes: one may run
    across thick slices or along an interpolated direction.  NaN where too little marrow is seen.
    """
    depth = depth_of(body, spacing)
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


def measured_layers(
    heights: npt.NDArray[np.intp], spacing: npt.NDArray[np.float64], apart: npt.NDArray[np.float64]
) -> list[int]:
    """Return how many slices were measured through a body that is so many voxels high, by axis.

    ``spacing`` (mm) is that of the voxels, ``apart`` (mm) that of what was measured.
    """
    # 54 of a sixth are 9: rounded first, as the product of such fractions may lie just above.
    return [int(n) for n in np.ceil(np.round(heights * (spacing / apart), 6))]


def _edge(at: SurfaceDistance) -> float:
    around = at.values[at.near]
    return float(np.median(at.values[at.rim]) - np.median(around)) if around.size else float("nan")


def _outside_share(crop: Crop, ct: Grid, geometry: Geometry) -> float:
    """Return the share outside the CT of what is seen: an aligned crop is blanked off the body."""

    def inside(points: npt.NDArray[np.float64]) -> Mask:
        ijk = ct.ijk(points)
        there = (ijk >= -0.5) & (ijk <= np.array(ct.shape[::-1]) - 0.5)
        return np.asarray(there.all(axis=1))

    if inside(crop.grid.corners).all():  # then all between them is
        return 0.0
    seen = np.ones(crop.body.shape, bool)
    if geometry.kind == "aligned":
        seen = feathered(crop.body, geometry.margin_pixels) > 0
    return float(1 - inside(crop.grid.lps(np.argwhere(seen)[:, ::-1])).mean())


def obstacles(found: Quality, scale: Calibration) -> dict[str, str]:
    """Return what forbids an analysis, by the rule's name."""
    said = {}
    metal = share_above(found.body, _in_units(METAL_HU, scale))
    if metal > METAL_SHARE:
        said["metal in the body"] = f"metal in {metal:.0%} of the body"
    if scale.slope * found.bright + scale.intercept < BONE_HU:
        said["no bone"] = NO_BONE
    if scale.slope * found.body[0] + scale.intercept < LOWEST_HU:
        said["not measured"] = f"values that no tissue has ({found.body[0]:g}) in its body"
    return said


def _too_bright(found: Quality, scale: Calibration) -> dict[str, str]:
    """Metal, cement and a scale that is cut off: the first that explains what is seen."""
    if share_above(found.body, _in_units(METAL_HU, scale)) > METAL_SHARE:
        return {"metal nearby": METAL_NEARBY}
    said = {}
    if found.brightest_near > _in_units(METAL_HU, scale):
        said["metal nearby"] = METAL_NEARBY
    cement = share_above(found.deep, _in_units(CEMENT_HU, scale))
    if cement > CEMENT_SHARE:
        said["cement"] = f"cement or metal: {cement:.0%} of its inside is denser than bone"
    elif found.saturated > SATURATED_SHARE and found.body[-1] > _in_units(CEMENT_HU, scale):
        said["saturated"] = (
            f"{found.saturated:.1%} of the body is at the highest value "
            f"({found.body[-1]:g}): cut off there, or metal"
        )
    return said


def _in_units(hounsfield: float, scale: Calibration) -> float:
    """Return HU in the units of the CT."""
    return (hounsfield - scale.intercept) / scale.slope


def remarks(found: Quality, scale: Calibration, limits: Limits) -> dict[str, str]:
    """Return what the reader of the result ought to know, by the rule's name."""
    said = {}
    if not scale.is_hu:
        said["not HU"] = NOT_HU
    said |= _too_bright(found, scale)
    if scale.slope * found.edge < EDGE_HU:
        said["no edge"] = NO_EDGE
    air = 1 - share_above(found.body, _in_units(AIR_HU, scale))
    if scale.is_hu and air > AIR_SHARE:
        said["air"] = f"air in {air:.0%} of the body"
    if found.outside_share > OUTSIDE_SHARE:
        said["outside"] = f"{found.outside_share:.0%} of the crop lies outside the CT"
    noise = scale.slope * found.noise
    if limits.noise_hu is not None and noise > limits.noise_hu:
        said["noise"] = f"noise beyond training ({noise:.0f} HU)"
    if limits.slice_mm is not None and found.slice_mm > limits.slice_mm + SLICE_TOLERANCE_MM:
        mm, stated = found.slice_mm, found.interpolated_mm
        said["thick slices"] = (
            f"slices thicker than in training ({mm:.1f} mm)"
            if stated is None
            else f"slices thicker than in training ({mm:.1f} mm, interpolated to {stated:.1f})"
        )
    said |= _not_measured(found.repeated)
    if limits.layers is not None and found.layers < limits.layers:
        said["few slices"] = f"only {found.layers} slices of the CT through the body"
    return said


def _not_measured(repeated: Sequence[Repeats]) -> dict[str, str]:
    """Return what is to be said of slices that are copies of others or empty."""
    how = "; ".join(str(one) for one in repeated if one.copies)
    said = {"repeated": f"slices of the CT are repeated {how}"} if how else {}
    empty = max(repeated, key=lambda one: one.empty / one.layers, default=None)
    if empty is not None and empty.empty:
        share = f"{empty.empty} of {empty.layers}"
        said["empty slices"] = f"{share} slices of the CT through the body are empty"
    return said
