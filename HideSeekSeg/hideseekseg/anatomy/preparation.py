"""One vertebra made ready for the method, or the reason why it cannot be analysed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Volume
from ..model.profile import Geometry, Limits
from .body import CUT
from .crop import Crop, crop_grid, take_crop
from .intensity import Calibration, Landmarks, landmarks
from .localization import LocatedBody, close_up
from .quality import UNKNOWN, Quality, limits_over, measure, obstacles, remarks
from .vertebra_shape import surface_distance_of

LEAST_BODY_VOXELS = 100
LEAST_EXTENT_MM = 6.0  # along each axis of the CT: less is a rim, not a body
OUTSIDE = "outside the CT"
LATERAL = "lateral slices were not in the training of these weights"


@dataclass(frozen=True)
class Prepared:
    """A vertebra, its crop, landmarks and quality; ``obstacle`` says why it has none."""

    site: LocatedBody
    obstacle: str = ""
    crop: Crop | None = None
    landmarks: Landmarks | None = None
    quality: Quality | None = None

    def obstacle_in(self, scale: Calibration) -> str:
        """Return the obstacle, also what only a known intensity scale shows: metal, no bone."""
        if self.obstacle or self.quality is None:
            return self.obstacle
        return ", ".join(obstacles(self.quality, scale).values())

    def flags_in(self, scale: Calibration, limits: Limits = UNKNOWN) -> tuple[str, ...]:
        """Remarks for the reader; ``limits`` are those of the weights."""
        if self.quality is None:
            return self.site.flags
        said = remarks(self.quality, scale, limits)
        if CUT in self.site.flags:
            said.pop("outside", None)  # the same in other words
        return (*self.site.flags, *said.values())

    def limits_in(self, scale: Calibration) -> Limits:
        """Return the limits that this vertebra alone would make."""
        if self.quality is None:
            return UNKNOWN
        found = self.quality
        return limits_over([scale.slope * found.noise], [found.slice_mm], [found.layers])


def prepare(site: LocatedBody, ct: Volume, geometry: Geometry) -> Prepared:
    """Cut the vertebra out of the CT and look for what forbids an analysis."""
    if site.obstacle:
        return Prepared(site, site.obstacle)
    if site.body is None:
        return Prepared(site, OUTSIDE)
    view, body, _ = close_up(ct, site.body)
    extent = np.array(site.body.array.shape) * ct.grid.spacing[::-1]
    if body.sum() < LEAST_BODY_VOXELS or extent.min() < LEAST_EXTENT_MM:
        cause = f"too few voxels ({body.sum()}) of its body are in the CT"
        if body.sum() >= LEAST_BODY_VOXELS and CUT not in site.flags:
            cause = f"its body measures {extent.min():.1f} mm along an axis of the CT: too little"
        return Prepared(site, cause)
    if not np.isfinite(view.array[body]).all():
        return Prepared(site, "values that are not finite (NaN) in its body")
    view = without_gaps(view)
    crop = take_crop(view, body, crop_grid(body, view.grid, geometry, site.axes, site.turn_known))
    if not crop.body.any():
        return Prepared(site, "too few voxels of its body are in the CT")
    outline = surface_distance_of(view, body)
    return Prepared(
        site,
        crop=crop,
        landmarks=landmarks(view, body, outline),
        quality=measure(view, body, crop, geometry, outline),
    )


def learned_slices(
    slices: npt.NDArray[np.intp], areas: npt.NDArray[np.int_], geometry: Geometry
) -> npt.NDArray[np.intp]:
    """Return those slices of a vertebra that weights of this geometry learn from, and analyse.

    ``slices`` (N,) are the ascending numbers of all that pass through the body, ``areas`` (N,) its
    pixels in each.  The central ones lie nearest to the middle of the body's extent.
    """
    broad = slices[areas >= geometry.least_share * areas.max()]
    if geometry.central_slices is None:
        return broad
    middle = (slices[0] + slices[-1] + 1) // 2
    nearest = np.argsort(np.abs(broad - middle), kind="stable")[: geometry.central_slices]
    return broad[np.sort(nearest)]


def slices_of(
    crop: Crop, geometry: Geometry, all_slices: bool
) -> tuple[npt.NDArray[np.intp], tuple[str, ...]]:
    """Choose the sagittal slices to analyse, and a remark where training had not all of them.

    They are those that training had, or with ``all_slices`` all that pass through the body.
    """
    slices = crop.analysed
    learned = learned_slices(slices, crop.body[slices].sum(axis=(1, 2)), geometry)
    if len(learned) == len(slices):
        return slices, ()
    if all_slices:
        return slices, (LATERAL,)
    central = geometry.central_slices
    if central is not None and len(learned) == central:
        return learned, (f"only the {central} central slices were analysed",)
    share = f"{len(slices) - len(learned)} of {len(slices)}"
    return learned, (f"lateral slices were not analysed: training had none of them ({share})",)


def without_gaps(view: Volume) -> Volume:
    """Fill what lies outside the field of view, NaN in some files, with the lowest value."""
    if view.array.dtype.kind != "f":
        return view
    finite = np.isfinite(view.array)
    if finite.all():
        return view
    return replace(view, array=np.where(finite, view.array, view.array[finite].min()))
