"""What a vertebra's label and crop tell of its shape: size, pieces, heights, posterior wall.

Elements of stability are measured on the vertebra's own crop, whose slices run to its right, rows
from anterior to posterior and columns from superior to inferior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..findings import Evidence
from ..imaging.segmentation import Segment, Segmentation
from ..imaging.volume import Grid, Volume, bounding_box

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FINE_MM = 0.7  # voxels are not looked at closer than this for pieces,
COARSE_MM = 2.5  # nor than this for thickness and extent
ISLAND_SHARE = 0.05  # smaller pieces are islands, which are dropped
# A label that is nowhere thicker than twice this may be an outline without its inside: bodies are
# 7 mm and more from their middle to the surface.  Slices of such a label, filled, hold so many
# times the pixels; the canal alone adds a quarter to a vertebra.
THIN_MM, FILLED = 4.0, 1.7


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
    the border of the segmentation's volume, or is cut there where the CT is known.  ``has_islands``
    tells that some were left out; ``is_hollow``: it is an outline without its inside.
    """

    centre: Vector
    mm3: float
    half_mm: float
    pieces: tuple[Piece, ...]
    points: npt.NDArray[np.float64]
    is_cut: bool
    has_islands: bool = False
    is_hollow: bool = False

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
    full = np.any([segmentation.mask(segment, box) for segment in segments], axis=0)
    spacing = segmentation.grid.spacing[::-1]
    fine = _steps(spacing, FINE_MM)
    mask = full[tuple(slice(None, None, step) for step in fine)]
    if not mask.any():
        fine, mask = (1, 1, 1), full
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
        has_islands=bool(len(kept) < np.count_nonzero(sizes)),
        is_hollow=bool(depth.max() < THIN_MM) and _is_hollow(full),
    )


def _is_hollow(mask: Mask) -> bool:
    """Return whether slices of a mask across some axis are outlines without their inside."""
    filled = [
        sum(int(ndimage.binary_fill_holes(one).sum()) for one in np.moveaxis(mask, axis, 0))
        for axis in range(3)
    ]
    return max(filled) > FILLED * int(mask.sum())


def _steps(spacing: npt.NDArray[np.float64], target: float) -> tuple[int, int, int]:
    k, j, i = (max(int(target // mm), 1) for mm in spacing)
    return k, j, i


def depth_of(mask: Mask, spacing: npt.ArrayLike = (1.0, 1.0, 1.0)) -> npt.NDArray[np.float64]:
    """Return how far each voxel of a mask (K, J, I) lies from what is outside it, 0 there.

    In units of ``spacing`` (k, j, i).  Beyond the array nothing is known, so that its border is no
    outside.  Only the box around the mask is looked at.
    """
    depth = np.zeros(mask.shape)
    if mask.any():
        box = bounding_box(mask, margin=1)
        depth[box] = ndimage.distance_transform_edt(mask[box], sampling=np.asarray(spacing))
    return depth


REACH_MM = 10.0


@dataclass(frozen=True)
class SurfaceDistance:
    """A body and ``REACH_MM`` around it, all (K, J, I).

    ``inside`` is the body, ``values`` the CT as float32; ``outer`` is the distance in mm to the
    body, ``inner`` that to what is not body.
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
        depth_of(inside, spacing),
        spacing,
    )


Triple = tuple[float, float, float]

# Where heights are taken, as shares of the body's depth, and of its width around its middle.
BANDS = ((0.08, 0.28), (0.4, 0.6), (0.72, 0.92))
MIDDLE_HALF = 0.5
CLEAR_LOSS = 0.2  # of height, from which on it is called a loss
WALL_MM = 1.5  # as near to the posterior wall as this reaches it
PLACES = (
    ("left", "central", "right"),
    ("anterior", "middle", "posterior"),
    ("upper", "middle", "lower"),
)


@dataclass(frozen=True)
class Alignment:
    """Angles between the vertebrae above and below (degrees).

    ``kyphosis`` is negative in lordosis; ``tilt`` is that to the side.
    """

    kyphosis: float
    tilt: float


def body_heights(body: Mask, grid: Grid) -> Triple | None:
    """Return the heights of a body (S, P, I) in front, in its middle and behind, in mm.

    None where it reaches the border of its crop, or is too small to be measured.
    """
    columns = body.sum(axis=2) * float(grid.spacing[0])
    if not columns.any() or _touches_border(body):
        return None
    across = np.flatnonzero(columns.any(axis=1))
    middle, half = across.mean(), max(MIDDLE_HALF * len(across) / 2, 0.5)
    columns = columns[(np.abs(np.arange(len(columns)) - middle) <= half)]
    depth = np.flatnonzero(columns.any(axis=0))
    first, size = depth[0], len(depth)
    heights = []
    for low, high in BANDS:
        band = columns[:, int(first + low * size) : int(np.ceil(first + high * size))]
        if not band.any():
            return None
        heights.append(float(np.median(band[band > 0])))
    return heights[0], heights[1], heights[2]


def _touches_border(body: Mask) -> bool:
    """Return whether a body ends at the upper, lower, front or rear border of its crop."""
    return bool(body[:, [0, -1], :].any() or body[:, :, [0, -1]].any())


def height_loss(own: Triple, neighbours: Sequence[Triple]) -> Triple:
    """Return the share of its height that a body lacks, in front, in its middle and behind.

    What it should have is the mean of its neighbours (at least one); negative where it is higher.
    """
    front, middle, rear = 1 - np.array(own) / np.mean(neighbours, axis=0)
    return float(front), float(middle), float(rear)


def alignment(above: Grid, own: Grid, below: Grid) -> Alignment:
    """Return how two vertebrae stand to each other, seen from the one between them."""
    seen = [own.direction.T @ -grid.direction[:, 0] for grid in (above, below)]
    # Superior axes as (inferior, posterior, right): both lean forward in front of a kyphosis.
    forward = [np.degrees(np.arctan2(-axis[1], -axis[0])) for axis in seen]
    sideways = [np.degrees(np.arctan2(axis[2], -axis[0])) for axis in seen]
    return Alignment(float(forward[0] - forward[1]), abs(float(sideways[0] - sideways[1])))


def reaches_posterior_wall(lesion: Mask, evidence: Evidence) -> bool:
    """Return whether a lesion (S, P, I) comes within ``WALL_MM`` of the wall to the canal.

    Only the middle half of the body's width counts: further out there are the pedicles.
    """
    body = evidence.body
    across = np.flatnonzero(body.any(axis=(1, 2)))
    if not len(across):
        return False
    half = max(MIDDLE_HALF * len(across) / 2, 0.5)
    central = np.abs(np.arange(len(body)) - across.mean()) <= half
    last = body.shape[1] - 1 - np.argmax(body[:, ::-1, :], axis=1)  # (S, I)
    depth = (last[:, None, :] - np.arange(body.shape[1])[:, None]) * evidence.grid.spacing[1]
    near = (depth < WALL_MM) & central[:, None, None] & body
    return bool((lesion & near).any())


def place_in_body(lesion: Mask, body: Mask) -> Triple:
    """Return the middle of a lesion (S, P, I) as shares of the body's extents.

    From 0 to 1: from its left to its right, from anterior to posterior, from superior to inferior.
    Both masks have at least one voxel.
    """
    at, inside = np.argwhere(lesion), np.argwhere(body)
    low, size = inside.min(axis=0), np.ptp(inside, axis=0) + 1
    right, back, down = (at.mean(axis=0) + 0.5 - low) / size
    return float(right), float(back), float(down)


def describe_place(place: Triple) -> str:
    """Return a place in the body in words, such as "left, posterior, upper third"."""
    side, depth, height = (
        words[min(int(np.clip(share, 0, 1) * 3), 2)] for words, share in zip(PLACES, place)
    )
    return f"{side}, {'mid-depth' if depth == 'middle' else depth}, {height} third"
