"""Cutting a vertebra out of the CT, and bringing masks back.

A crop is an array (S, P, I): slices run to the patient's right, rows from anterior to posterior,
columns from superior to inferior.  Its slices are the sagittal images of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.volume import (
    Grid,
    Patch,
    Volume,
    bounding_box,
    move_patch,
    patch_of,
    reach,
    resample,
    triple,
)
from ..model.profile import Geometry

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# Raised by one whenever the same files give other crops, bodies or HU than before: what was kept of
# vertebrae (prepared shards, packed vertebrae, simulated sets) is then made anew.
PREPARATION = 2

# Patient axes of a crop's (i, j, k) = (inferior, posterior, right), as LPS columns.
PATIENT_AXES: Floats = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])

TURNS = [float(turn) for turn in np.radians(np.arange(-40, 41, 4))]
CLEARLY_LIKER = 0.02
SYMMETRIC = 0.85
MIRROR_MM = 1.5


@dataclass(frozen=True)
class Crop:
    """Intensities of the CT (float32, not yet scaled) and the body, both (S, P, I) on ``grid``."""

    image: npt.NDArray[np.float32]
    body: Mask
    grid: Grid

    @property
    def analysed(self) -> npt.NDArray[np.intp]:
        """Indices of the sagittal slices that pass through the body."""
        return np.flatnonzero(self.body.any(axis=(1, 2)))


def body_axes(points: Floats, rounds: int = 5, start: Floats = PATIENT_AXES) -> Floats:
    """Return unit vectors (columns, LPS) to the body's inferior, posterior and right.

    ``points`` (N, 3) are the body's voxel centres in LPS mm.  The craniocaudal axis is the normal
    of the surface half-way between the endplates: unlike either endplate it ignores wedging, and
    unlike principal axes it does not depend on which of the body's extents is largest.  It is
    sought from the axes ``start``, and right stays as near to theirs as it can.
    """
    axes = start
    for _ in range(rounds):
        local = (points - points.mean(axis=0)) @ axes
        slope = _middle_surface_slope(local)
        if slope is None:
            break
        inferior = axes @ np.array([1.0, -slope[0], -slope[1]])
        axes = _frame(inferior, start[:, 2])
        if np.abs(slope).max() < 0.005:
            break
    return axes


def as_crop_axes(vertebra: Floats) -> Floats:
    """Return a vertebra's axes (rows: superior, posterior, left; LPS) as those of ``body_axes``."""
    return np.asarray((vertebra * [[-1.0], [1.0], [-1.0]]).T)


def _frame(inferior: Floats, right: Floats) -> Floats:
    inferior = inferior / np.linalg.norm(inferior)
    right = right - (right @ inferior) * inferior
    right = right / np.linalg.norm(right)
    return np.stack([inferior, np.cross(inferior, right), right], axis=1)


def turned_to_symmetry(points: Floats, axes: Floats) -> Floats:
    """Return the axes (columns: inferior, posterior, right) turned so that left mirrors right.

    ``points`` (N, 3) are a vertebral body's voxel centres in LPS mm.  The turn about the inferior
    axis is the one at which the body, seen along that axis, is most like its mirror image; it is
    left alone where that is hardly more so than as it is, and where the body is cut short.
    """
    seen = (points - points.mean(axis=0)) @ axes[:, 1:]
    likeness = [_mirror_likeness(seen, turn) for turn in TURNS]
    best = int(np.argmax(likeness))
    clearly = likeness[best] > likeness[TURNS.index(0.0)] + CLEARLY_LIKER
    if not clearly or likeness[best] < SYMMETRIC:
        return axes
    turn = TURNS[best]
    if 0 < best < len(TURNS) - 1:  # the top of the parabola through the best and its neighbours
        before, at, after = likeness[best - 1 : best + 2]
        turn += (TURNS[1] - TURNS[0]) * 0.5 * (before - after) / (before - 2 * at + after)
    cosine, sine = np.cos(turn), np.sin(turn)
    posterior, right = axes[:, 1], axes[:, 2]
    return np.stack(
        [axes[:, 0], cosine * posterior + sine * right, cosine * right - sine * posterior], axis=1
    )


def _mirror_likeness(seen: Floats, turn: float) -> float:
    """Return the share (0 to 1) of points (N, 2: posterior, right, mm) with a mirror image.

    The mirror is the posterior axis turned by ``turn`` (radians) towards the right.
    """
    posterior = seen @ [np.cos(turn), np.sin(turn)]
    right = seen @ [-np.sin(turn), np.cos(turn)]
    pixels = np.rint(np.stack([posterior, right], axis=1) / MIRROR_MM).astype(np.intp)
    half = int(np.abs(pixels).max())
    width = 2 * half + 1
    count = np.bincount((pixels[:, 0] + half) * width + pixels[:, 1] + half, minlength=width**2)
    thickness = count.reshape(width, width)
    return float(np.minimum(thickness, thickness[:, ::-1]).sum() / len(seen))


def _middle_surface_slope(local: Floats, bin_mm: float = 2.5) -> Floats | None:
    """Slope (posterior, right) of the surface between the endplates, or None where too few columns.

    ``local`` holds points (N, 3) along (inferior, posterior, right).  Columns that are cut short by
    the rim of the body are left out: their middle lies on the side wall and not between endplates.
    """
    bins = np.floor((local[:, 1:] - local[:, 1:].min(axis=0)) / bin_mm).astype(int)
    column = bins[:, 0] * (bins[:, 1].max() + 1) + bins[:, 1]
    order = np.argsort(column, kind="stable")
    _, first = np.unique(column[order], return_index=True)
    heights = local[order, 0]
    top, bottom = np.minimum.reduceat(heights, first), np.maximum.reduceat(heights, first)
    full = bottom - top >= 0.8 * np.percentile(bottom - top, 75)
    if full.sum() < 6:
        return None
    where = (bins[order[first], :] + 0.5) * bin_mm
    design = np.column_stack([np.ones(full.sum()), where[full]])
    fit, *_ = np.linalg.lstsq(design, ((top + bottom) / 2)[full], rcond=None)
    return np.asarray(fit[1:])


def crop_grid(
    body: Mask,
    grid: Grid,
    geometry: Geometry,
    vertebra: Floats | None = None,
    turn_known: bool = False,
) -> Grid:
    """Return where the crop of a vertebra lies.

    ``body`` is the vertebral body on the CT's grid.  A crop holds ``geometry.size`` rows and
    columns, and as many slices as the body is wide (at least one).  An aligned crop turns with the
    vertebra: ``vertebra`` are the axes (rows: superior, posterior, left; LPS) near which its own
    are sought, the patient's if None; ``turn_known`` says that its turn about the superior axis is
    theirs, else the body's symmetry tells it.
    """
    box = bounding_box(body)
    part = np.argwhere(body[box])[:, ::-1] + [s.start for s in box[::-1]]
    points = grid.lps(part)
    start = PATIENT_AXES if vertebra is None else as_crop_axes(vertebra)
    if geometry.kind == "aligned":
        axes = body_axes(points, start=start)
        axes = axes if turn_known else turned_to_symmetry(points, axes)
    else:
        axes = PATIENT_AXES
    local = points @ axes
    # Half a voxel on either side: centres understate the extent of thick-sliced bodies.
    half = np.abs(axes.T @ grid.direction) @ grid.spacing / 2
    low = np.quantile(local, 0.005, axis=0) - half
    high = np.quantile(local, 0.995, axis=0) + half
    extent, centre = high - low, (high + low) / 2
    if geometry.kind == "aligned":
        pixel = float(max(extent[0], extent[1])) / geometry.body_pixels
        rows, columns = pixel, pixel
    else:
        rows, columns = geometry.pixel_mm
    slices = max(int(np.ceil(extent[2] / geometry.slice_mm)), 1)
    spacing = np.array([columns, rows, geometry.slice_mm])
    shape = (slices, geometry.size, geometry.size)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing
    matrix[:3, 3] = axes @ (centre - (np.array(shape[::-1]) - 1) / 2 * spacing)
    return Grid(shape, matrix)


def take_crop(ct: Volume, body: Mask, grid: Grid) -> Crop:
    """Resample CT and body (on the CT's grid) to the crop's grid.

    Where the crop is coarser than the CT it averages the voxels it covers, so that noise falls as
    in a thicker slice and nothing between two samples is missed.  Outside the CT the crop repeats
    the lowest intensity of its inside.
    """
    fine, factors = oversampled(grid, ct.grid.spacing)
    box = reach(fine, ct.grid)
    part = ct.grid.cut([s.start for s in box], triple(s.stop - s.start for s in box))
    image = Volume(ct.array[box].astype(np.float32), part)
    mask = Volume(body[box].astype(np.float32), part)
    low = float(np.nanmin(image.array)) if image.array.size else 0.0
    return Crop(
        pooled(resample(image, fine, 1, low).array, factors),
        pooled(resample(mask, fine, 1, 0.0).array, factors) >= 0.5,
        grid,
    )


def oversampled(grid: Grid, spacing: Floats) -> tuple[Grid, tuple[int, int, int]]:
    """Return the grid split so finely that every CT voxel is sampled, and the factors (k, j, i)."""
    factors = np.clip(np.round(grid.spacing / spacing.min()), 1, 4).astype(int)
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, :3] = matrix[:3, :3] / factors
    matrix[:3, 3] = grid.lps((1 / factors - 1) / 2)
    k, j, i = (int(n * f) for n, f in zip(grid.shape, factors[::-1]))
    return Grid((k, j, i), matrix), (int(factors[2]), int(factors[1]), int(factors[0]))


def pooled(
    array: npt.NDArray[np.float32], factors: tuple[int, int, int]
) -> npt.NDArray[np.float32]:
    """Average blocks of ``factors`` voxels."""
    k, j, i = (n // f for n, f in zip(array.shape, factors))
    split = array.reshape(k, factors[0], j, factors[1], i, factors[2])
    return np.asarray(split.mean(axis=(1, 3, 5)), np.float32)


def to_ct(mask: Mask, grid: Grid, ct: Grid, body: Mask) -> Patch | None:
    """Bring a mask (S, P, I) on a crop's grid to the CT's grid, inside the body (K, J, I).

    None where nothing of it lies in the body.
    """
    own = patch_of(mask)
    moved = None if own is None else move_patch(own, grid, ct)
    return None if moved is None else patch_of(moved.array & body[moved.box], moved.start)


def feathered(body: Mask, margin: float) -> npt.NDArray[np.float32]:
    """Return a weight (S, P, I): 1 in the body and ``margin`` pixels around it, then falling to 0.

    Each slice on its own: what the network sees of one slice must not depend on its neighbours.
    """
    distance = np.stack([_distance(s) for s in body])
    return np.asarray(np.clip(margin + 1.5 - distance, 0.0, 1.0), np.float32)


def _distance(mask: Mask) -> Floats:
    """Distance in pixels to the mask; large everywhere where the mask is empty."""
    return ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, 1e3)
