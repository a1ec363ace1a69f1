"""The frame of one vertebra: its axes from its spinal canal, or else from its shape.

All work happens on an isotropic working grid that is laid around the mask along the axes of the
spine there, so that it does not matter how the voxels are stored, how far apart they are or how the
patient lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
# Neighbours of a pixel in a stack of pictures that have nothing to do with each other.
WITHIN_A_VIEW = np.zeros((3, 3, 3), bool)
WITHIN_A_VIEW[1] = ndimage.generate_binary_structure(2, 1)
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
        lambda axes: _hole_areas(points, axes),
        reference,
        glance=lambda axes: _hole_areas(coarse, axes, COARSE * STEP_MM),
    )
    if area >= SMALLEST_CANAL_MM2:
        seen_along = axes_of(superior, reference[1])
        behind = _middle_of_hole(points, seen_along)
        height = _height_of_canal(points, seen_along, behind)
        return Frame(centre, axes_of(superior, behind), centre + behind + height * superior)
    normals, areas = _normals(solid, work)

    def facing(axes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # The power lets a surface count within some 20 degrees of the axis.
        return np.array([areas @ (((((normals @ one[0]) ** 2) ** 2) ** 2) ** 2) for one in axes])

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
    extent = frame.coordinates(grid.lps(_ends_of_rows(mask)[:, ::-1])) / STEP_MM
    low = np.floor(extent.min(axis=0) - MARGIN_MM / STEP_MM)
    high = np.ceil(extent.max(axis=0) + MARGIN_MM / STEP_MM)
    matrix = np.eye(4)
    matrix[:3, :3] = frame.axes[::-1].T * STEP_MM
    matrix[:3, 3] = frame.lps(low * STEP_MM)
    k, j, i = (int(n) for n in high - low + 1)
    return Grid((k, j, i), matrix)


def _ends_of_rows(mask: Mask) -> npt.NDArray[np.intp]:
    """Return the first and last voxel (n, 3: k, j, i) of each row: the rest lies between them."""
    k, j = np.nonzero(mask.any(axis=2))
    rows = mask[k, j]
    first, last = rows.argmax(axis=1), mask.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([k, j, i], axis=1) for i in (first, last)])


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


# How well each of several views does; axes (n, 3, 3) as of ``Frame.axes``.
Score = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def _search(
    look: Score, reference: npt.NDArray[np.float64], glance: Score | None = None
) -> tuple[Vector, float]:
    """Return the tilt of the superior axis that scores best by ``look``, and its score.

    With ``glance``, a cheap stand-in, only the coarse tilts that do best by it are looked at,
    unless none of them shows a clear canal.
    """

    def views(tilts: Sequence[Vector]) -> npt.NDArray[np.float64]:
        return np.array([axes_of(tilt, reference[1]) for tilt in tilts])

    coarse = [_tilted(reference[0], reference, f, s) for f in FORWARD for s in SIDEWAYS]
    chosen = coarse
    if glance is not None:
        order = np.argsort(-glance(views(coarse)), kind="stable")
        chosen = [coarse[n] for n in np.sort(order[:RECONSIDERED])]
    scores = look(views(chosen))
    if chosen is not coarse and scores.max() < CLEAR_CANAL_MM2:
        chosen, scores = coarse, look(views(coarse))
    best = chosen[int(np.argmax(scores))]
    fine = [best, *(_tilted(best, reference, f, s) for f in FINE for s in FINE)]
    scores = np.append(scores.max(), look(views(fine[1:])))
    return fine[int(np.argmax(scores))], float(scores.max())


def _tilted(
    superior: Vector, reference: npt.NDArray[np.float64], forward: float, sideways: float
) -> Vector:
    tilted = superior + np.tan(sideways) * reference[2] + np.tan(forward) * reference[1]
    return np.asarray(tilted / np.linalg.norm(tilted))


def _shadows(
    points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], step: float
) -> tuple[Mask, tuple[int, int]]:
    """Return what points (n, 3, mm) cover, seen along superior axes, and where the origin is.

    ``axes`` (v, 3, 3) are those of each view.  The pictures (v, H, W) run along posterior and left,
    their pixels are ``step`` mm wide, with a free rim; the origin is one of their pixels.
    """
    row, column = (np.rint((axes[:, a] / step) @ points.T).astype(np.intp) for a in (1, 2))
    origin = 1 - int(row.min()), 1 - int(column.min())
    height, width = int(row.max()) + origin[0] + 2, int(column.max()) + origin[1] + 2
    covered = np.zeros((len(axes), height * width), bool)
    pixels = (row + origin[0]) * width + (column + origin[1])
    covered[np.arange(len(axes))[:, None], pixels] = True
    return covered.reshape(-1, height, width), origin


@dataclass(frozen=True)
class _Holes:
    """The largest hole behind the origin in each of several shadows (v, H, W).

    ``labels`` are those of all that is not covered; ``largest`` (v,) is the hole's, ``pixels`` (v,)
    its size, 0 where there is none; ``origin`` is a pixel.
    """

    labels: npt.NDArray[np.int32]
    largest: npt.NDArray[np.intp]
    pixels: npt.NDArray[np.intp]
    origin: tuple[int, int]


def _holes(points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], step: float) -> _Holes:
    """Find the holes in the shadows of points (n, 3, mm), as of ``_shadows``."""
    covered, origin = _shadows(points, axes, step)
    labels, count = ndimage.label(~covered, WITHIN_A_VIEW)
    flat = labels.ravel()
    sizes = np.bincount(flat, minlength=count + 1)
    rows = np.broadcast_to(np.arange(covered.shape[1])[:, None], covered.shape).ravel()
    behind = np.bincount(flat, rows, count + 1) > origin[0] * sizes
    sizes = np.where(behind, sizes, 0)
    sizes[labels[:, 0, 0]] = 0  # what lies around the vertebra
    sizes[0] = 0
    # Labels are counted from view to view, and each view has one: its rim is free.
    last = labels.max(axis=(1, 2))
    first = np.append(0, last[:-1]) + 1
    largest = np.array([a + int(np.argmax(sizes[a : b + 1])) for a, b in zip(first, last)])
    return _Holes(labels, largest, sizes[largest], origin)


def _hole_areas(
    points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64], step: float = STEP_MM
) -> npt.NDArray[np.float64]:
    """Return the area (mm2) of the largest hole behind the origin in each shadow, 0 for none."""
    return np.asarray(_holes(points, axes, step).pixels * step**2, np.float64)


def _middle_of_hole(points: npt.NDArray[np.float64], axes: npt.NDArray[np.float64]) -> Vector:
    """Return the middle (mm) of the largest hole behind the origin in one shadow, which has one."""
    holes = _holes(points, axes[None], STEP_MM)
    middle = np.argwhere(holes.labels[0] == holes.largest[0]).mean(axis=0) - holes.origin
    return np.asarray(STEP_MM * middle @ axes[1:])


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
