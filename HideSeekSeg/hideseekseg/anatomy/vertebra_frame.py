"""The frame of one vertebra: its axes from its spinal canal, or else from its shape.

All work happens on an isotropic working grid that is laid around the mask in LPS, so that it does
not matter how the voxels are stored, how far apart they are or how the patient lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.volume import Grid, Volume, resample

Mask = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]

STEP_MM = 1.5
MARGIN_MM = 6.0
FORWARD = np.radians(np.arange(-50, 51, 10))
SIDEWAYS = np.radians(np.arange(-40, 41, 10))
FINE = np.radians(np.arange(-6, 7, 3))
SMALLEST_CANAL_MM2 = 60.0
PATIENT_AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class Frame:
    """A vertebra's own axes: ``axes`` rows are unit vectors in LPS (superior, posterior, left).

    ``centre`` (LPS mm) is the middle of the thickest part, which is the body.  ``canal`` (LPS mm)
    is the middle of the spinal canal, where one is enclosed.
    """

    centre: Vector
    axes: npt.NDArray[np.float64]
    canal: Vector | None

    def coordinates(self, lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., 3) in LPS mm as (superior, posterior, left) mm from the centre."""
        return (np.asarray(lps) - self.centre) @ self.axes.T

    def lps(self, coordinates: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The inverse of ``coordinates``."""
        return np.asarray(coordinates) @ self.axes + self.centre

    def turned(self, slope: float) -> Frame:
        """Turned about the superior axis, so that what lay along (0, slope, 1) lies left."""
        left = self.axes[2] + slope * self.axes[1]
        left /= np.linalg.norm(left)
        return replace(self, axes=np.array([self.axes[0], np.cross(self.axes[0], left), left]))


def find_frame(mask: Mask, grid: Grid) -> Frame | None:
    """The vertebra's frame from its mask (K, J, I): look through the canal, then to the body.

    Superior is the direction in which most light falls through the vertebral foramen; the body lies
    in front of it.  Where no foramen is closed (a body alone, a crop without the arch), superior is
    that which the endplates face, and posterior the patient's.  None where the mask is too
    thin to be seen on the working grid.
    """
    anywhere = Frame(_positions(mask, grid).mean(axis=0), PATIENT_AXES, None)
    work = working_grid(mask, grid, anywhere)
    solid = solid_on(work, mask, grid)
    depth = ndimage.distance_transform_edt(solid)
    if not solid.any():
        return None
    centre = _thickest(depth, work)
    points = _positions(solid, work) - centre
    superior, area = _search(lambda axes: _hole(points, axes)[0])
    if area >= SMALLEST_CANAL_MM2:
        behind = _hole(points, _axes(superior, PATIENT_AXES[1]))[1]
        return Frame(centre, _axes(superior, behind), centre + behind)
    normals, areas = _normals(solid)
    # The power lets a surface count within some 20 degrees of the axis.
    superior, _ = _search(lambda axes: float(areas @ (normals @ axes[0]) ** 16))
    return Frame(centre, _axes(superior, PATIENT_AXES[1]), None)


def _axes(superior: Vector, behind: Vector) -> npt.NDArray[np.float64]:
    """Axes (rows: superior, posterior, left) of which posterior points as far behind as can be."""
    left = np.cross(behind, superior)
    left /= np.linalg.norm(left)
    return np.array([superior, np.cross(superior, left), left])


def working_grid(mask: Mask, grid: Grid, frame: Frame) -> Grid:
    """An isotropic grid along the frame's axes around a mask (K, J, I).

    Index k grows superior, j posterior, i left; the frame's centre is a voxel centre.
    """
    extent = frame.coordinates(_positions(mask, grid)) / STEP_MM
    low = np.floor(extent.min(axis=0) - MARGIN_MM / STEP_MM)
    high = np.ceil(extent.max(axis=0) + MARGIN_MM / STEP_MM)
    matrix = np.eye(4)
    matrix[:3, :3] = frame.axes[::-1].T * STEP_MM
    matrix[:3, 3] = frame.lps(low * STEP_MM)
    k, j, i = (int(n) for n in high - low + 1)
    return Grid((k, j, i), matrix)


def solid_on(work: Grid, mask: Mask, grid: Grid) -> Mask:
    """A mask (K, J, I) as it is on another grid, its surface interpolated between voxels."""
    moved = resample(Volume(mask.astype(np.float32), grid), work)
    return np.asarray(moved.array > np.float32(0.5))


def _positions(mask: Mask, grid: Grid) -> npt.NDArray[np.float64]:
    """Where (n, 3: LPS mm) the voxels of a mask lie."""
    return grid.lps(np.argwhere(mask)[:, ::-1])


def _thickest(depth: npt.NDArray[np.float64], grid: Grid) -> Vector:
    """The voxel (LPS mm) in the middle of the thickest part, by the depth under the surface."""
    labels, _ = ndimage.label(depth > 0.6 * depth.max())
    thick = np.argwhere(labels == labels[np.unravel_index(np.argmax(depth), depth.shape)])
    nearest = thick[np.argmin(((thick - thick.mean(axis=0)) ** 2).sum(axis=1))]
    return grid.lps(nearest[::-1])


def _search(score: Callable[[npt.NDArray[np.float64]], float]) -> tuple[Vector, float]:
    """The tilt of the superior axis that scores best, coarse to fine, and its score."""
    best, best_score = PATIENT_AXES[0], -np.inf
    for forwards, sidewards in ((FORWARD, SIDEWAYS), (FINE, FINE)):
        axis = best
        for forward in forwards:
            for sideways in sidewards:
                tilted = axis + np.array([np.tan(sideways), np.tan(forward), 0.0])
                tilted /= np.linalg.norm(tilted)
                found = score(_axes(tilted, PATIENT_AXES[1]))
                if found > best_score:
                    best, best_score = tilted, found
    return best, best_score


def _shadow(points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64]) -> tuple[Mask, Vector]:
    """What points (n, 3, mm) cover, seen along the superior axis, and the picture's first pixel.

    The picture's axes are posterior and left, its pixels ``STEP_MM`` wide, with a free rim.
    """
    pixels = np.rint(points @ axes[1:].T / STEP_MM).astype(int)
    low = pixels.min(axis=0) - 1
    covered = np.zeros(pixels.max(axis=0) - low + 2, bool)
    covered[tuple((pixels - low).T)] = True
    return covered, low


def _hole(points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64]) -> tuple[float, Vector]:
    """Area (mm2) and middle (mm) of the largest hole behind the origin in the points' shadow."""
    covered, low = _shadow(points, axes)
    labels, n = ndimage.label(~covered)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    sizes[[0, labels[0, 0]]] = 0
    for label in np.argsort(-sizes, kind="stable"):
        middle = np.argwhere(labels == label).mean(axis=0) + low
        if sizes[label] == 0:
            break
        if middle[0] > 0:
            return float(sizes[label]) * STEP_MM**2, STEP_MM * middle @ axes[1:]
    return 0.0, axes[1]


def _normals(solid: Mask) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unit normals (n, 3: x, y, z) of a solid's surface on the patient's axes, and their areas."""
    smooth = ndimage.gaussian_filter(solid.astype(float), 1.0)
    normals = np.stack(np.gradient(smooth)[::-1], axis=-1).reshape(-1, 3)
    areas = np.linalg.norm(normals, axis=1)
    surface = areas > 0.1
    return normals[surface] / areas[surface, None], areas[surface]
