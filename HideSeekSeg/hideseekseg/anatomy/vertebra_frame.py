"""The frame of one vertebra: its axes from its spinal canal, or else from its shape.

All work happens on an isotropic working grid that is laid around the mask along the axes of the
spine there, so that it does not matter how the voxels are stored, how far apart they are or how the
patient lies.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.volume import Grid, Volume, resample
from .vertebra_shape import depth_of

Mask = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]

STEP_MM = 1.5
MARGIN_MM = 6.0
FORWARD = np.radians(np.arange(-50, 51, 10))
SIDEWAYS = np.radians(np.arange(-40, 41, 10))
FINE = np.radians(np.arange(-6, 7, 3))
# The first, coarse look at all tilts sees every voxel of a grid that is so many times coarser; the
# best tilts of it are looked at again in full.
COARSE = 2
RECONSIDERED = 12
# The coarse look may miss a hole as small as this: then every tilt is looked at in full.
CLEAR_CANAL_MM2 = 150.0
SMALLEST_CANAL_MM2 = 60.0
# The walls beside the canal: so far before and behind its middle, so far to the left and right.
WALL_MM, BESIDE_MM = 4.0, 16.0
PATIENT_AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class Frame:
    """A vertebra's own axes: ``axes`` rows are unit vectors in LPS (superior, posterior, left).

    ``centre`` (LPS mm) is the middle of the thickest part, which is the body.  ``canal`` (LPS mm)
    is the middle of the spinal canal between its walls, where one is enclosed.
    """

    centre: Vector
    axes: npt.NDArray[np.float64]
    canal: Vector | None

    def coordinates(self, lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., 3) in LPS mm as (superior, posterior, left) mm from the centre."""
        return (np.asarray(lps) - self.centre) @ self.axes.T

    def lps(self, coordinates: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the inverse of ``coordinates``."""
        return np.asarray(coordinates) @ self.axes + self.centre

    def turned(self, slope: float) -> Frame:
        """Turn it about the superior axis, so that what lay along (0, slope, 1) lies left."""
        left = self.axes[2] + slope * self.axes[1]
        left /= np.linalg.norm(left)
        return replace(self, axes=np.array([self.axes[0], np.cross(self.axes[0], left), left]))


def find_frame(
    mask: Mask, grid: Grid, reference: npt.NDArray[np.float64] = PATIENT_AXES
) -> Frame | None:
    """Return the frame of a mask (K, J, I): look through the canal, then to the body.

    Superior is the direction in which most light falls through the vertebral foramen; the body lies
    in front of it.  Where no foramen is closed (a body alone, a crop without the arch), superior is
    that which the endplates face, and posterior that of ``reference``: axes as of ``Frame.axes``
    from which the vertebra is tilted by 50 degrees at most, the patient's where nothing is known.
    None where the mask is too thin to be seen on the working grid.
    """
    anywhere = Frame(_positions(mask, grid).mean(axis=0), reference, None)
    work = working_grid(mask, grid, anywhere)
    solid = solid_on(work, mask, grid)
    if not solid.any():
        return None
    centre = _thickest(depth_of(solid), work)
    points = _positions(solid, work) - centre
    coarse = _thinned(points)
    superior, area = _search(
        lambda axes: _hole(points, axes)[0],
        reference,
        glance=lambda axes: _hole(coarse, axes, COARSE * STEP_MM)[0],
    )
    if area >= SMALLEST_CANAL_MM2:
        seen_along = axes_of(superior, reference[1])
        behind = _hole(points, seen_along)[1]
        height = _height_of_canal(points, seen_along, behind)
        return Frame(centre, axes_of(superior, behind), centre + behind + height * superior)
    normals, areas = _normals(solid, work)

    def facing(axes: npt.NDArray[np.float64]) -> float:
        # The power lets a surface count within some 20 degrees of the axis.
        return float(areas @ (((((normals @ axes[0]) ** 2) ** 2) ** 2) ** 2))

    superior, _ = _search(facing, reference)
    return Frame(centre, axes_of(superior, reference[1]), None)


def _thinned(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the middles (n, 3, mm) of the coarse voxels that points (n, 3, mm) lie in."""
    step = COARSE * STEP_MM
    at = np.rint(points / step).astype(np.int64)
    low = at.min(axis=0)
    shape = tuple(int(n) for n in np.ptp(at, axis=0) + 1)
    filled = np.zeros(shape, bool)
    filled[tuple((at - low).T)] = True
    return (np.argwhere(filled) + low) * step


def axes_of(superior: Vector, behind: Vector) -> npt.NDArray[np.float64]:
    """Return axes (rows: superior, posterior, left) with posterior as near to ``behind`` as can be.

    Both are directions (3,) in LPS; ``superior`` is a unit vector.
    """
    left = _cross(behind, superior)
    left = left / np.sqrt(left @ left)
    return np.array([superior, _cross(superior, left), left])


def _cross(a: Vector, b: Vector) -> Vector:
    """Return the cross product of two vectors (3,): numpy's takes longer than all that follows."""
    return np.array(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


def working_grid(mask: Mask, grid: Grid, frame: Frame) -> Grid:
    """Return an isotropic grid along the frame's axes around a mask (K, J, I).

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
    """Return a mask (K, J, I) as it is on another grid, its surface interpolated between voxels."""
    moved = resample(Volume(mask.astype(np.float32), grid), work)
    return np.asarray(moved.array > np.float32(0.5))


def _positions(mask: Mask, grid: Grid) -> npt.NDArray[np.float64]:
    """Return where (n, 3: LPS mm) the voxels of a mask lie."""
    return grid.lps(np.argwhere(mask)[:, ::-1])


def _thickest(depth: npt.NDArray[np.float64], grid: Grid) -> Vector:
    """Return the middle (LPS mm) of the thickest part, by the depth under the surface."""
    labels, _ = ndimage.label(depth > 0.6 * depth.max())
    thick = np.argwhere(labels == labels[np.unravel_index(np.argmax(depth), depth.shape)])
    nearest = thick[np.argmin(((thick - thick.mean(axis=0)) ** 2).sum(axis=1))]
    return grid.lps(nearest[::-1])


Score = Callable[[npt.NDArray[np.float64]], float]


def _search(
    look: Score, reference: npt.NDArray[np.float64], glance: Score | None = None
) -> tuple[Vector, float]:
    """Return the tilt of the superior axis that scores best by ``look``, and its score.

    With ``glance``, a cheap stand-in, only the coarse tilts that do best by it are looked at,
    unless none of them shows a clear canal.
    """
    axes = functools.partial(axes_of, behind=reference[1])
    coarse = [_tilted(reference[0], reference, f, s) for f in FORWARD for s in SIDEWAYS]
    chosen = coarse
    if glance is not None:
        order = np.argsort([-glance(axes(tilt)) for tilt in coarse], kind="stable")
        chosen = [coarse[n] for n in np.sort(order[:RECONSIDERED])]
    scores = [look(axes(tilt)) for tilt in chosen]
    if chosen is not coarse and max(scores) < CLEAR_CANAL_MM2:
        chosen, scores = coarse, [look(axes(tilt)) for tilt in coarse]
    best = chosen[int(np.argmax(scores))]
    fine = [best, *(_tilted(best, reference, f, s) for f in FINE for s in FINE)]
    scores = [max(scores), *(look(axes(tilt)) for tilt in fine[1:])]
    return fine[int(np.argmax(scores))], max(scores)


def _tilted(
    superior: Vector, reference: npt.NDArray[np.float64], forward: float, sideways: float
) -> Vector:
    tilted = superior + np.tan(sideways) * reference[2] + np.tan(forward) * reference[1]
    return np.asarray(tilted / np.linalg.norm(tilted))


def _shadow(
    points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], step: float
) -> tuple[Mask, int]:
    """Return what points (n, 3, mm) cover, seen along the superior axis, and the origin's index.

    The picture's axes are posterior and left, its pixels ``step`` mm wide, with a free rim.
    """
    pixels = np.rint(points @ (axes[1:].T / step)).astype(np.intp)
    origin = int(np.abs(pixels).max()) + 1
    width = 2 * origin + 1
    covered = np.zeros(width * width, bool)
    covered[(pixels[:, 0] + origin) * width + (pixels[:, 1] + origin)] = True
    return covered.reshape(width, width), origin


def _hole(
    points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], step: float = STEP_MM
) -> tuple[float, Vector]:
    """Return area (mm2) and middle (mm) of the largest hole behind the origin in the shadow."""
    covered, origin = _shadow(points, axes, step)
    labels, n = ndimage.label(~covered)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    sizes[[0, labels[0, 0]]] = 0
    for label in np.argsort(-sizes, kind="stable"):
        if sizes[label] == 0:
            break
        middle = np.argwhere(labels == label).mean(axis=0) - origin
        if middle[0] > 0:
            return float(sizes[label]) * step**2, step * middle @ axes[1:]
    return 0.0, axes[1]


def _height_of_canal(
    points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], behind: Vector
) -> float:
    """Return how far (mm) the middle of the canal lies above the origin.

    ``behind`` (mm) is the middle of its shadow.  The canal's walls beside it are half-way between
    where they begin and end; a tilt of the view turns the shadow about that height, so that only
    there it says where the canal is.
    """
    heights, aside = points @ axes[0], (points - behind) @ axes[1:].T
    walls = (np.abs(aside[:, 0]) < WALL_MM) & (np.abs(aside[:, 1]) < BESIDE_MM)
    sides = [heights[walls & side] for side in (aside[:, 1] < 0, aside[:, 1] > 0)]
    ends = [np.quantile(h, (0.05, 0.95)).mean() for h in sides if len(h)]
    return float(np.mean(ends)) if ends else 0.0


def _normals(solid: Mask, grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return unit normals (n, 3: LPS) of a solid's surface on an isotropic grid, and areas."""
    smooth = ndimage.gaussian_filter(solid.astype(float), 1.0)
    normals = np.stack(np.gradient(smooth)[::-1], axis=-1).reshape(-1, 3) @ grid.direction.T
    areas = np.linalg.norm(normals, axis=1)
    surface = areas > 0.1
    return normals[surface] / areas[surface, None], areas[surface]
