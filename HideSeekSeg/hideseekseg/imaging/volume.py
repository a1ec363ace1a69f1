"""A voxel array that knows where it stands in the patient.

Arrays are in numpy order ``(k, j, i)``, as SimpleITK and Slicer give them.  Positions are
millimetres in LPS (x to the patient's Left, y Posterior, z Superior), the frame of DICOM and ITK.
SimpleITK is imported where it is used: machines that only simulate and train may have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import SimpleITK as sitk

Array = npt.NDArray[Any]

# Voxel edges that a CT of a person can have.
MIN_VOXEL_MM, MAX_VOXEL_MM = 0.1, 15.0
MAX_FIELD_MM = 3000.0


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

    def lps(self, ijk: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions (..., 3) in LPS mm of indices (..., 3) in i, j, k order, fractions allowed."""
        return np.asarray(ijk, float) @ self.ijk_to_lps[:3, :3].T + self.ijk_to_lps[:3, 3]

    def ijk(self, lps: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Fractional indices (..., 3) in i, j, k order of positions (..., 3) in LPS mm."""
        inverse = np.linalg.inv(self.ijk_to_lps)
        return np.asarray(lps, float) @ inverse[:3, :3].T + inverse[:3, 3]

    def matches(self, other: Grid, tolerance_mm: float = 1e-2) -> bool:
        """Same shape, and no voxel centre further apart than the tolerance."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape[::-1]])).reshape(3, -1).T
        return bool(np.abs(self.lps(corners) - other.lps(corners)).max() <= tolerance_mm)

    def cut(self, start_kji: npt.ArrayLike, shape: tuple[int, int, int]) -> Grid:
        """The sub-grid that begins at voxel ``start_kji`` (k, j, i)."""
        matrix = self.ijk_to_lps.copy()
        matrix[:3, 3] = self.lps(np.asarray(start_kji)[::-1])
        return Grid(shape, matrix)


@dataclass(frozen=True)
class Volume:
    """An array on a grid; ``array.shape == grid.shape``.

    ``path`` is the file that it was read from; ``notes`` are remarks for the reader of a result on
    that file; ``stated_hu`` tells that the file itself states HU (DICOM's rescaling); ``identity``
    holds what DICOM says of study, series and frame of reference, and no name of a patient.
    """

    array: Array
    grid: Grid
    name: str = ""
    path: str = ""
    notes: tuple[str, ...] = ()
    stated_hu: bool = False
    identity: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def source(self) -> str:
        """Return the file it was read from, else its name: what an error names."""
        return self.path or self.name

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise ValueError(f"array {self.array.shape} does not fit the grid {self.grid.shape}")


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
    """The same voxels and geometry as a SimpleITK image (booleans become uint8)."""
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


def resample(volume: Volume, grid: Grid, order: int = 1, fill: float = 0.0) -> Volume:
    """Read the volume at the voxel centres of another grid.

    ``order`` 0 is nearest neighbour (labels), 1 linear (CT, and masks as float32).  Voxels outside
    the volume get ``fill``.  Coarser grids are not smoothed first: see ``crops.take_crop``.
    """
    import SimpleITK as sitk

    interpolator = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear}[order]
    like = sitk.Image([int(n) for n in grid.shape[::-1]], sitk.sitkUInt8)
    _place(like, grid)
    source = to_sitk(volume)
    moved = sitk.Resample(source, like, sitk.Transform(), interpolator, fill, source.GetPixelID())
    array = sitk.GetArrayFromImage(moved)
    return Volume(array.astype(bool) if volume.array.dtype == bool else array, grid, volume.name)
