"""The spinal canal of one vertebra, and the frame that it gives the vertebra.

All work happens on an isotropic working grid that is laid around the mask in LPS, so that it does
not matter how the voxels are stored, how far apart they are or how the patient lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.volume import Grid, Volume, resample

Mask = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]

STEP_MM = 1.5
TILTS = np.radians(np.arange(-40, 41, 10))
FINE_TILTS = np.radians(np.arange(-6, 7, 3))
SMALLEST_CANAL_MM2 = 40.0
MARGIN_MM = 6.0


@dataclass(frozen=True)
class Frame:
    """A vertebra's own axes: ``axes`` rows are unit vectors in LPS (superior, posterior, left).

    ``centre`` (LPS mm) is the middle of the thickest part, which is the body.  ``canal`` says
    whether a closed canal was seen; without it the axes are those of the patient.
    """

    centre: Vector
    axes: npt.NDArray[np.float64]
    canal: bool

    def coordinates(self, lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., 3) in LPS mm as (superior, posterior, left) mm from the centre."""
        return (np.asarray(lps) - self.centre) @ self.axes.T

    def lps(self, coordinates: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The inverse of ``coordinates``."""
        return np.asarray(coordinates) @ self.axes + self.centre


def find_frame(mask: Mask, grid: Grid) -> Frame:
    """The vertebra's frame from its mask (K, J, I): look through the canal, then to the body.

    The superior axis is the direction in which most light falls through the vertebral foramen.
    """
    working = working_volume(mask, grid, Frame(centre_of_mass(mask, grid), LPS_AXES, False))
    solid = np.asarray(working.array) > 0.5
    centre = body_centre(solid, working.grid)
    points = working.grid.lps(np.argwhere(solid)[:, ::-1])
    area, superior, canal = _look_through(points, centre)
    if area < SMALLEST_CANAL_MM2:
        return Frame(centre, LPS_AXES, False)
    posterior = canal - centre
    posterior -= superior * (posterior @ superior)
    posterior /= np.linalg.norm(posterior)
    return Frame(centre, np.array([superior, posterior, np.cross(posterior, superior)]), True)


LPS_AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def centre_of_mass(mask: Mask, grid: Grid) -> Vector:
    """Mean position (LPS mm) of the voxels of a mask (K, J, I)."""
    return np.asarray(grid.lps(np.argwhere(mask)[:, ::-1]).mean(axis=0))


def working_volume(mask: Mask, grid: Grid, frame: Frame, step: float = STEP_MM) -> Volume:
    """The mask as float32 in 0..1 on an isotropic grid along the frame's axes.

    Index k grows superior, j posterior, i left; a frame's centre is a voxel centre.
    """
    corners = frame.coordinates(grid.lps(np.argwhere(mask)[:, ::-1]))
    low = np.floor((corners.min(axis=0) - MARGIN_MM) / step).astype(int)
    high = np.ceil((corners.max(axis=0) + MARGIN_MM) / step).astype(int)
    matrix = np.eye(4)
    matrix[:3, :3] = frame.axes[::-1].T * step
    matrix[:3, 3] = frame.lps(low * step)
    n = high - low + 1
    work = Grid((int(n[0]), int(n[1]), int(n[2])), matrix)
    return resample(Volume(mask.astype(np.float32), grid), work)


def body_centre(solid: Mask, grid: Grid) -> Vector:
    """Centre (LPS mm) of the thickest part of a solid on an isotropic grid."""
    depth = ndimage.distance_transform_edt(solid)
    thick = np.argwhere(depth > 0.75 * depth.max())
    weights = depth[tuple(thick.T)]
    return np.asarray(grid.lps(np.average(thick, axis=0, weights=weights)[::-1]))


def _look_through(points: npt.NDArray[np.float64], centre: Vector) -> tuple[float, Vector, Vector]:
    """Largest hole seen in any direction: its area (mm2), the direction, a point in its middle."""
    best = (0.0, LPS_AXES[0], centre)
    for tilts in (TILTS, FINE_TILTS):
        axis = best[1]
        for forward in tilts:
            for sideways in tilts:
                direction = axis + np.array([np.tan(sideways), np.tan(forward), 0.0])
                direction /= np.linalg.norm(direction)
                area, middle = _hole(points, centre, direction)
                if area > best[0]:
                    best = (area, direction, middle)
    return best


def _hole(
    points: npt.NDArray[np.float64], centre: Vector, direction: Vector
) -> tuple[float, Vector]:
    """Area (mm2) and middle (LPS mm) of the largest hole behind the body, seen along a direction."""
    left = np.cross(LPS_AXES[1], direction)
    left /= np.linalg.norm(left)
    back = np.cross(direction, left)
    seen = np.round((points - centre) @ np.array([back, left]).T / STEP_MM).astype(int)
    low = seen.min(axis=0) - 1
    shadow = np.zeros(seen.max(axis=0) - low + 2, bool)
    shadow[tuple((seen - low).T)] = True
    labels, n = ndimage.label(~shadow)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    sizes[[0, labels[0, 0]]] = 0
    for label in np.argsort(-sizes, kind="stable"):
        if sizes[label] == 0:
            break
        middle = np.argwhere(labels == label).mean(axis=0) + low
        if middle[0] > 0:
            position = centre + STEP_MM * (middle @ np.array([back, left]))
            return float(sizes[label]) * STEP_MM**2, position
    return 0.0, centre
