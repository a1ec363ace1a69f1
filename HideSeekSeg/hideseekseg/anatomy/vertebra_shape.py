"""What can be measured of a label in passing: where its body lies, its size, pieces and depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.segmentation import Segment, Segmentation
from ..imaging.volume import Volume, bounding_box

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FINE_MM = 0.7  # voxels are not looked at closer than this for pieces,
COARSE_MM = 2.5  # nor than this for thickness and extent
ISLAND_SHARE = 0.05  # smaller pieces are islands, which are dropped


@dataclass(frozen=True)
class Piece:
    """One connected part of a label: volume (mm3), half its thickness (mm), middle (LPS mm)."""

    mm3: float
    half_mm: float
    centre: Vector


@dataclass(frozen=True)
class VertebraShape:
    """A label as it lies in the patient; islands are left out.

    ``centre`` (LPS mm) is the middle of the thickest part, which is the body.  ``points`` (n, 3:
    LPS mm) are its voxels on a coarse grid.  ``pieces`` come largest first.  ``is_cut``: it ends at
    the border of the segmentation's volume.
    """

    centre: Vector
    mm3: float
    half_mm: float
    pieces: tuple[Piece, ...]
    points: npt.NDArray[np.float64]
    is_cut: bool

    def extent(self, axis: Vector) -> float:
        """Return how far (mm) the label reaches along a unit vector, its last percents left out."""
        along = self.points @ axis
        low, high = np.quantile(along, (0.01, 0.99))
        return float(high - low)


def shape_of(segmentation: Segmentation, segments: Sequence[Segment]) -> VertebraShape | None:
    """Return the shape of the union of some segments; None where they have no voxel."""
    boxes = [box for box in map(segmentation.box, segments) if box is not None]
    if not boxes:
        return None
    box = tuple(
        slice(min(b[axis].start for b in boxes), max(b[axis].stop for b in boxes))
        for axis in range(3)
    )
    box = (box[0], box[1], box[2])
    mask = np.any([segmentation.mask(segment, box) for segment in segments], axis=0)
    spacing = segmentation.grid.spacing[::-1]
    fine = _steps(spacing, FINE_MM)
    mask = mask[tuple(slice(None, None, step) for step in fine)]
    if not mask.any():
        fine, mask = (1, 1, 1), np.any([segmentation.mask(s, box) for s in segments], axis=0)
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = np.flatnonzero(sizes >= max(ISLAND_SHARE * sizes.max(), 1))
    kept = kept[np.argsort(-sizes[kept], kind="stable")]
    coarse = _steps(spacing * fine, COARSE_MM)
    small = labels[tuple(slice(None, None, step) for step in coarse)]
    small = np.where(np.isin(small, kept), small, 0)
    step = np.multiply(fine, coarse)
    if not small.any():
        small, step = np.where(np.isin(labels, kept), labels, 0), np.array(fine)
    first = np.array([s.start for s in box])
    depth = ndimage.distance_transform_edt(np.pad(small > 0, 1), sampling=spacing * step)
    depth = depth[1:-1, 1:-1, 1:-1]
    voxel = float(np.prod(spacing * fine))

    def lps(kji: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        return segmentation.grid.lps((kji * step + first)[:, ::-1])

    pieces = []
    for label in kept:
        own = small == label
        at = lps(np.argwhere(own)) if own.any() else np.empty((0, 3))
        if len(at):
            half = float(depth[own].max())
            pieces.append(Piece(float(sizes[label]) * voxel, half, at.mean(axis=0)))
    inside = small > 0
    thick = np.argwhere(depth > 0.7 * depth.max())
    whole = segmentation.grid.shape
    return VertebraShape(
        centre=lps(thick).mean(axis=0),
        mm3=float(sizes[kept].sum()) * voxel,
        half_mm=float(depth.max()),
        pieces=tuple(pieces),
        points=lps(np.argwhere(inside)),
        is_cut=any(s.start == 0 or s.stop == n for s, n in zip(box, whole)),
    )


def _steps(spacing: npt.NDArray[np.float64], target: float) -> tuple[int, int, int]:
    k, j, i = (max(int(target // mm), 1) for mm in spacing)
    return k, j, i


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
