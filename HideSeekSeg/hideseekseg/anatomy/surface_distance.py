"""How far voxels lie from a body's surface: several measures need it, and it costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.patch import bounding_box
from ..imaging.volume import Volume
from .crop import Mask

REACH_MM = 10.0


@dataclass(frozen=True)
class SurfaceDistance:
    """A body and ``REACH_MM`` around it, all (K, J, I).

    ``inside`` is the body, ``values`` the CT as float32; ``outer`` is the distance in mm to the
    body, ``inner`` that to what is no body.
    """

    inside: Mask
    values: npt.NDArray[np.float32]
    outer: npt.NDArray[np.float64]
    inner: npt.NDArray[np.float64]
    spacing: npt.NDArray[np.float64]

    @property
    def width(self) -> float:
        """Return how thick (mm) a layer must be to hold voxels all around the body."""
        return max(1.5, float(self.spacing.max()))

    @property
    def rim(self) -> Mask:
        """Return the outermost layer of the body."""
        return self.inside & (self.inner <= self.width)

    @property
    def near(self) -> Mask:
        """Return what lies around the body, without the layer that its surface blurs into."""
        return (self.outer > self.width) & (self.outer <= 2 * self.width + 1)


def surface_distance_of(ct: Volume, body: Mask) -> SurfaceDistance:
    """Return the outline of a body (bool, on the CT's grid)."""
    spacing = ct.grid.spacing[::-1]
    box = bounding_box(body, margin=int(np.ceil(REACH_MM / spacing.min())))
    inside = body[box]
    return SurfaceDistance(
        inside,
        ct.array[box].astype(np.float32),
        ndimage.distance_transform_edt(~inside, sampling=spacing),
        ndimage.distance_transform_edt(inside, sampling=spacing),
        spacing,
    )
