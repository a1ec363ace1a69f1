"""A voxel array that knows where it stands in the patient, and masks in a box of its grid.

Arrays are in numpy order ``(k, j, i)``, as SimpleITK and Slicer give them.  Positions are
millimetres in LPS (x to the patient's Left, y Posterior, z Superior), the frame of DICOM and ITK.
SimpleITK is imported where it is used: machines that only simulate and train may have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import SimpleITK as sitk


Array = npt.NDArray[Any]

# Voxel edges that a CT of a person can have.
MIN_VOXEL_MM, MAX_VOXEL_MM = 0.1, 15.0
MAX_FIELD_MM = 3000.0
FRAME_OF_REFERENCE = "frame_of_reference_uid"  # in the identity of what was read from DICOM
LEAST_DETERMINANT = 1e-12  # of a matrix that can be inverted


@dataclass(frozen=True)
class Grid:
    """A rectangular lattice of voxel centres.

    ``shape`` is ``(K, J, I)``; ``ijk_to_lps`` is 4x4 and maps ``(i, j, k, 1)`` to LPS mm.
    Its axes are orthogonal: sheared grids are refused where files are read.
    """

    shape: tuple[int, int, int]
    ijk_to_lps: npt.NDArray[np.float64]

    @property
    def spacing(self) -> npt.NDArray[np.float64]:
        """Voxel size in mm along i, j, k."""
        return np.linalg.norm(self.ijk_to_lps[:3, :3], axis=0)

    @property
    def direction(self) -> npt.NDArray[np.float64]:
        """3x3; column n is the unit vector (LPS) along which index n (of i, j, k) grows."""
        return self.ijk_to_lps[:3, :3] / self.spacing

    @property
    def voxel_mm3(self) -> float:
        return float(np.prod(self.spacing))

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """Positions (8, 3) in LPS mm of the centres of the corner voxels."""
        ijk = np.meshgrid(*[(0, n - 1) for n in self.shape[::-1]])
        return self.lps(np.array(ijk).reshape(3, -1).T)

    def lps(self, ijk: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., 3) in LPS mm of indices (..., 3) in i, j, k order, fractions allowed."""
        return np.asarray(ijk, float) @ self.ijk_to_lps[:3, :3].T + self.ijk_to_lps[:3, 3]

    def ijk(self, lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Fractional indices (..., 3) in i, j, k order of positions (..., 3) in LPS mm."""
        inverse = np.linalg.inv(self.ijk_to_lps)
        return np.asarray(lps, float) @ inverse[:3, :3].T + inverse[:3, 3]

    def matches(self, other: Grid, tolerance_mm: float = 1e-2) -> bool:
        """Tell whether shapes are equal and no voxel centre is further off than the tolerance."""
        return self.shape == other.shape and self.distance(other) <= tolerance_mm

    def distance(self, other: Grid) -> float:
        """Return how far apart (mm) another grid of this shape places a voxel at most."""
        return float(np.linalg.norm(self.corners - other.corners, axis=1).max())

    def cut(self, start_kji: npt.ArrayLike, shape: tuple[int, int, int]) -> Grid:
        """Return the sub-grid that begins at voxel ``start_kji`` (k, j, i)."""
        matrix = self.ijk_to_lps.copy()
        matrix[:3, 3] = self.lps(np.asarray(start_kji)[::-1])
        return Grid(shape, matrix)


MatrixRow = tuple[float, float, float, float]


@dataclass(frozen=True)
class StoredGrid:
    """A grid as plain data, as a scene or a file keeps it; fields as of ``Grid``."""

    shape: tuple[int, int, int]
    ijk_to_lps: tuple[MatrixRow, MatrixRow, MatrixRow, MatrixRow]

    def grid(self) -> Grid:
        """Return the grid; raises ValueError where it is none."""
        matrix = np.array(self.ijk_to_lps)
        if min(self.shape) < 1 or abs(np.linalg.det(matrix)) < LEAST_DETERMINANT:
            raise ValueError("its lattice is damaged")
        return Grid(self.shape, matrix)


@dataclass(frozen=True)
class Volume:
    """An array on a grid; ``array.shape == grid.shape``.

    ``path`` is the file that it was read from; ``notes`` are remarks for the reader of a result on
    that file; ``stated_hu`` tells that the file itself states HU (DICOM's rescaling); ``identity``
    holds what DICOM says of study, series and frame of reference, and the patient's name and number
    only where ``read_ct`` was asked for them.  ``planes`` are the DICOM file and its frame (counted
    from 1) of each slice k; empty where it was not read from DICOM.  ``rival`` is another place
    that the file states as well: a NIfTI file's qform where ``grid`` is its sform; None where the
    statements agree.  ``doubts`` are remarks on where the volume lies, for every position in it.
    """

    array: Array = field(repr=False)
    grid: Grid
    name: str = ""
    path: str = ""
    notes: tuple[str, ...] = ()
    stated_hu: bool = False
    identity: Mapping[str, str] = field(default_factory=dict, compare=False)
    planes: tuple[tuple[str, int], ...] = field(default=(), repr=False, compare=False)
    rival: Grid | None = None
    doubts: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Return the file it was read from, else its name: what an error names."""
        return self.path or self.name

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"array {self.array.shape} does not fit the grid {self.grid.shape}")


def scan_identity(volume: Volume) -> dict[str, str]:
    """Return which scan a volume is: ``name``, ``path``, ``sha256`` and what DICOM says of it.

    The hash is of voxels and geometry (to 0.001 mm), so that the same scan has the same one as
    DICOM, as NIfTI and in a scene.
    """
    path = str(Path(volume.path).absolute()) if volume.path else ""
    hashed = content_hash(volume.array, volume.grid)
    return {"name": volume.name, "path": path, "sha256": hashed, **volume.identity}


def content_hash(array: Array, grid: Grid) -> str:
    """Return the SHA-256 of voxels (K, J, I), whatever type they are stored in, and their grid."""
    matrix = np.round(grid.ijk_to_lps, 3) + 0.0  # no -0
    digest = hashlib.sha256(np.ascontiguousarray(matrix, "<f8").tobytes())
    digest.update(np.array(array.shape, "<i8").tobytes())
    stored = "<f4" if array.dtype.kind == "f" else "<i4"
    for plane in array:  # one at a time: a copy of the whole would double the memory
        digest.update(np.ascontiguousarray(plane, stored).data)
    return digest.hexdigest()


def case_name(scan: Mapping[str, str]) -> str:
    """Return one line that says which scan it is, such as "ct, Thorax, 2024-01-02 [1a2b3c4d]".

    Empty where nothing is known of the scan, as in results of versions before 0.2.
    """
    date = scan.get("study_date", "")
    if len(date) == 8 and date.isdigit():
        date = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    words = [scan.get(key, "") for key in ("patient_name", "patient_id", "name")]
    words += [scan.get("series_description", ""), date]
    said = ", ".join(word for word in dict.fromkeys(words) if word)
    hashed = scan.get("sha256", "")[:8]
    return f"{said} [{hashed}]".strip() if hashed else said


def from_sitk(
    image: sitk.Image, name: str = "", path: str = "", notes: tuple[str, ...] = ()
) -> Volume:
    """Return a 3D scalar SimpleITK image as a volume (its array is copied)."""
    import SimpleITK as sitk

    matrix = np.eye(4)
    spacing = np.array(image.GetSpacing())
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * spacing
    matrix[:3, 3] = image.GetOrigin()
    array = sitk.GetArrayFromImage(image)
    return Volume(array, Grid(array.shape, matrix), name, path, notes)


def to_sitk(volume: Volume) -> sitk.Image:
    """Return the same voxels and geometry as a SimpleITK image (booleans become uint8)."""
    import SimpleITK as sitk

    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = sitk.GetImageFromArray(array)
    _place(image, volume.grid)
    return image


def _place(image: sitk.Image, grid: Grid) -> None:
    # ITK fails to invert directions that hold subnormal numbers, and only prints that it did.
    direction = np.where(np.abs(grid.direction) < 1e-12, 0.0, grid.direction)
    image.SetSpacing([float(s) for s in grid.spacing])
    image.SetDirection([float(d) for d in direction.ravel()])
    image.SetOrigin([float(o) for o in grid.ijk_to_lps[:3, 3]])


def bounds(grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Least and largest LPS coordinates (mm) of the voxel centres."""
    return grid.corners.min(axis=0), grid.corners.max(axis=0)


def overlap(a: Grid, b: Grid) -> bool:
    """Return whether the boxes around two grids, along the patient's axes, share a point."""
    (low_a, high_a), (low_b, high_b) = bounds(a), bounds(b)
    return bool(np.all(low_a <= high_b) and np.all(low_b <= high_a))


def resample(volume: Volume, grid: Grid, order: int = 1, fill: float = 0.0) -> Volume:
    """Read the volume at the voxel centres of another grid.

    ``order`` 0 is nearest neighbour (labels), 1 linear (CT, and masks as float32).  Voxels outside
    the volume get ``fill``.  Coarser grids are not smoothed first: see ``anatomy.crop.take_crop``.
    """
    import SimpleITK as sitk

    interpolator = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear}[order]
    like = sitk.Image([int(n) for n in grid.shape[::-1]], sitk.sitkUInt8)
    _place(like, grid)
    source = to_sitk(volume)
    moved = sitk.Resample(source, like, sitk.Transform(), interpolator, fill, source.GetPixelID())
    array = sitk.GetArrayFromImage(moved)
    return Volume(array.astype(bool) if volume.array.dtype == bool else array, grid, volume.name)


Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
_MOST_POINTS, _DIRECTIONS = 400, 1000
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Patch:
    """A mask in a box of a grid: ``array`` (bool) begins at voxel ``start``, both k j i."""

    array: Mask
    start: tuple[int, int, int]

    def paint(self, target: npt.NDArray[Any], value: int = 1) -> None:
        """Set the patch's voxels in an array (K, J, I) of the whole grid to ``value``."""
        target[self.box][self.array] = value

    @property
    def box(self) -> Box:
        """Return where the patch lies in an array of the whole grid."""
        k, j, i = (slice(s, s + n) for s, n in zip(self.start, self.array.shape))
        return k, j, i

    def mean(self, values: npt.NDArray[Any]) -> float | None:
        """Return the mean of an array (K, J, I) of the whole grid over the patch's voxels.

        Those without a value (NaN, infinity) do not count; None where none has one.
        """
        own = values[self.box][self.array]
        own = own[np.isfinite(own)]
        return float(own.mean()) if own.size else None

    def grid(self, whole: Grid) -> Grid:
        """Return the patch's own part of the whole grid."""
        return whole.cut(self.start, triple(self.array.shape))


def shared_voxels(a: Patch, b: Patch) -> int:
    """Return how many voxels two patches of one grid have in common."""
    low = np.maximum(a.start, b.start)
    high = np.minimum(np.add(a.start, a.array.shape), np.add(b.start, b.array.shape))
    if np.any(low >= high):
        return 0
    first, second = (
        p.array[tuple(slice(lo - s, hi - s) for lo, hi, s in zip(low, high, p.start))]
        for p in (a, b)
    )
    return int((first & second).sum())


NO_VOXELS = Patch(np.zeros((1, 1, 1), bool), (0, 0, 0))


@dataclass(frozen=True)
class PatchSize:
    """Size and place of a patch; positions in LPS mm.

    ``diameter_mm`` is the largest distance between two points of its voxels, these as wide as they
    are: so it is the same for thin and for thick slices of one thing.

    ``box_lps`` is ``(x_min, y_min, z_min, x_max, y_max, z_max)`` and reaches to the voxels' outer
    faces.
    """

    volume_mm3: float
    centroid_lps: tuple[float, float, float]
    box_lps: tuple[float, float, float, float, float, float]
    diameter_mm: float


def measure_patch(patch: Patch, whole: Grid) -> PatchSize:
    """Measure a patch with at least one voxel on the grid that it is a part of."""
    at = whole.lps((np.argwhere(patch.array) + patch.start)[:, ::-1])
    half = np.abs(whole.direction) @ whole.spacing / 2
    low, high = at.min(axis=0) - half, at.max(axis=0) + half
    x, y, z = (float(v) for v in at.mean(axis=0))
    a, b, c, d, e, f = (float(v) for v in (*low, *high))
    spacing = whole.spacing[::-1]
    diameter = _span(np.argwhere(patch.array)[_ends(patch.array)] * spacing, spacing)
    volume = float(len(at) * whole.voxel_mm3)
    return PatchSize(volume, (x, y, z), (a, b, c, d, e, f), diameter)


def _ends(mask: Mask) -> npt.NDArray[np.bool_]:
    """Return which voxels of the mask are first or last of their line along i.

    The two that lie farthest apart are among these.
    """
    before, after = np.zeros_like(mask), np.zeros_like(mask)
    before[..., 1:], after[..., :-1] = mask[..., :-1], mask[..., 1:]
    ends: npt.NDArray[np.bool_] = ~(before & after)[mask]
    return ends


def _span(centres: npt.NDArray[np.float64], spacing: npt.NDArray[np.float64]) -> float:
    """Return the largest distance between two corners of voxels, by their centres (N, 3).

    Centres and edges (3,) are in mm along the grid's axes, which are at right angles.
    """
    if len(centres) > _MOST_POINTS:
        # The farthest points in many directions: within a thousandth of the largest distance.
        n = np.arange(_DIRECTIONS) + 0.5
        up, turn = 1 - n / _DIRECTIONS, n * np.pi * (1 + 5**0.5)
        flat = np.sqrt(1 - up**2)
        along = centres @ np.stack([flat * np.cos(turn), flat * np.sin(turn), up])
        centres = centres[np.unique([along.argmin(axis=0), along.argmax(axis=0)])]
    squares = np.zeros((len(centres), len(centres)))
    for axis, edge in zip(centres.T, spacing):
        squares += (np.abs(axis[:, None] - axis[None]) + edge) ** 2
    return float(np.sqrt(squares.max()))


def bounding_box(mask: Mask, margin: int = 0) -> Box:
    """Return the smallest box around the mask, grown by ``margin`` voxels inside the array."""
    section = np.asarray(mask.any(axis=0))
    box: list[slice] = []
    for hits in (mask.any(axis=(1, 2)), section.any(axis=1), section.any(axis=0)):
        hit = np.flatnonzero(hits)
        stop = min(int(hit[-1]) + 1 + margin, mask.shape[len(box)])
        box.append(slice(max(int(hit[0]) - margin, 0), stop))
    return box[0], box[1], box[2]


def patch_of(mask: Mask, start: Iterable[int] = (0, 0, 0)) -> Patch | None:
    """Return the tight patch of a mask that begins at voxel ``start``; None for an empty mask."""
    if not mask.any():
        return None
    box = bounding_box(mask)
    at = triple(int(first) + int(s.start) for first, s in zip(start, box))
    return Patch(np.ascontiguousarray(mask[box]), at)


def move_patch(patch: Patch, source: Grid, target: Grid) -> Patch | None:
    """Return a patch of one grid on another; None where none of it gets there.

    Linear interpolation at one half keeps outlines smooth.  A mask that is too thin for the
    target's voxels loses most of its volume that way: then the voxels nearest to its own are taken.
    """
    if source.matches(target):
        return patch_of(patch.array, patch.start)
    nearest = _nearest(patch, source, target)
    own = patch.grid(source)
    # A rim of zeros: without it voxels at the patch's border would end abruptly.
    rimmed = own.cut((-1, -1, -1), triple(n + 2 for n in own.shape))
    box = reach(rimmed, target)
    if any(s.start >= s.stop for s in box):
        return None
    start = triple(s.start for s in box)
    part = target.cut(start, triple(s.stop - s.start for s in box))
    soft = Volume(np.pad(patch.array, 1).astype(np.float32), rimmed)
    hit = np.asarray(resample(soft, part, 1, 0.0).array >= 0.5)
    if hit.sum() * target.voxel_mm3 < len(nearest) * source.voxel_mm3 / 2:
        hit = np.zeros(part.shape, bool)
        hit[tuple((nearest - start).T)] = True
    return patch_of(hit, start)


def reach(inner: Grid, outer: Grid) -> Box:
    """Return the voxels of ``outer`` that samples within ``inner`` can touch; may be empty."""
    kji = outer.ijk(inner.corners)[:, ::-1]
    low = np.clip(np.floor(kji.min(axis=0)), 0, outer.shape).astype(int)
    high = np.clip(np.ceil(kji.max(axis=0)) + 1, 0, outer.shape).astype(int)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high))
    return k, j, i


def triple(values: Iterable[int]) -> tuple[int, int, int]:
    """Return three whole numbers as a tuple."""
    k, j, i = (int(v) for v in values)
    return k, j, i


def _nearest(patch: Patch, source: Grid, target: Grid) -> npt.NDArray[np.intp]:
    """Return the target's voxel (N, 3), k j i, nearest to each voxel of the patch inside it."""
    at = np.argwhere(patch.array) + patch.start
    kji = np.rint(target.ijk(source.lps(at[:, ::-1]))[:, ::-1]).astype(np.intp)
    return kji[((kji >= 0) & (kji < target.shape)).all(axis=1)]
