"""Between Slicer's frame and the library's: RAS and LPS, images of segments and patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from ..imaging.volume import Grid, Patch, move_patch, patch_of, triple

Matrix = npt.NDArray[np.float64]

# The same flip leads from LPS to RAS and back.
RAS_FROM_LPS: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
# Role by which results and pictures refer to their CT.
CT_REFERENCE = "HideSeekSeg.CT"
LABELMAP = "Binary labelmap"
SURFACE = "Closed surface"
# Largest cosine between two axes of a grid that still counts as rectangular.
MAX_COSINE = 1e-3


def toWorld(node: Any) -> Matrix | None:
    """Return the 4x4 from a node's RAS to the world's, None if its transform is not linear."""
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        return None
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return np.asarray(slicer.util.arrayFromVTKMatrix(matrix))


def localGrid(volumeNode: Any) -> Grid:
    """Return the volume's voxels (LPS) without the transform that it is under."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    i, j, k = volumeNode.GetImageData().GetDimensions()
    return Grid((k, j, i), RAS_FROM_LPS @ slicer.util.arrayFromVTKMatrix(matrix))


def moved(grid: Grid, toWorldRas: npt.NDArray[Any]) -> Grid:
    """Return the grid (LPS) after a transform given in RAS; it may not be rectangular any more."""
    return Grid(grid.shape, RAS_FROM_LPS @ toWorldRas @ RAS_FROM_LPS @ grid.ijk_to_lps)


def voxelAt(node: Any, grid: Grid, ras: tuple[float, float, float]) -> Matrix:
    """Return where a place of the world (RAS mm) is on a node's own ``grid``: i, j, k, fractions.

    The transform that the node is under now counts, linear or not.
    """
    fromWorld = vtk.vtkGeneralTransform()
    parent = node.GetParentTransformNode()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, parent, fromWorld)
    return grid.ijk(RAS_FROM_LPS[:3, :3] @ np.array(fromWorld.TransformPoint(ras)))


def valueAt(volumeNode: Any, ras: tuple[float, float, float]) -> float | None:
    """Return a volume's value at a place of the world (RAS mm), None outside it."""
    i, j, k = np.rint(voxelAt(volumeNode, localGrid(volumeNode), ras)).astype(int)
    array = slicer.util.arrayFromVolume(volumeNode)
    inside = all(0 <= n < size for n, size in zip((k, j, i), array.shape))
    return float(array[k, j, i]) if inside else None


def isRectangular(grid: Grid) -> bool:
    """Return whether the axes are at right angles, as files and the method want them."""
    cosines = grid.direction.T @ grid.direction - np.eye(3)
    return bool(np.abs(cosines).max() < MAX_COSINE)


def asMatrix(grid: Grid) -> vtk.vtkMatrix4x4:
    """IJK to RAS of a grid, for Slicer."""
    return slicer.util.vtkMatrixFromArray(RAS_FROM_LPS @ grid.ijk_to_lps)


def gridOfImage(image: Any) -> Grid:
    """Return where a segment's image (vtkOrientedImageData) lies; its first voxel is index 0."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent = image.GetExtent()
    shape = triple(extent[n + 1] - extent[n] + 1 for n in (4, 2, 0))
    whole = Grid(shape, RAS_FROM_LPS @ slicer.util.arrayFromVTKMatrix(matrix))
    return whole.cut([extent[4], extent[2], extent[0]], shape)


def arrayOfImage(image: Any) -> npt.NDArray[Any]:
    """Return the image's own memory as an array (K, J, I): to read, not to write."""
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return np.asarray(values.reshape(image.GetDimensions()[::-1]))


def hasVoxels(image: Any) -> bool:
    """Return whether an image has any voxels."""
    return image is not None and image.GetNumberOfPoints() > 0 and bool(image.GetScalarPointer())


def imageOfPatch(patch: Patch, grid: Grid) -> Any:
    """Return a segment's image with no more than the patch, on the lattice of ``grid``."""
    image = slicer.vtkOrientedImageData()
    (k, j, i), (depth, height, width) = patch.start, patch.array.shape
    image.SetImageToWorldMatrix(asMatrix(grid))
    image.SetExtent(i, i + width - 1, j, j + height - 1, k, k + depth - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = patch.array.ravel()
    return image


def patchOfSegment(segment: Any, grid: Grid) -> Patch | None:
    """Return the segment's voxels on ``grid``, which may differ from its own, or None."""
    image = segment.GetRepresentation(LABELMAP)
    if not hasVoxels(image):
        return None
    own = gridOfImage(image)
    found = patch_of(arrayOfImage(image) == segment.GetLabelValue())
    if found is None:
        return None
    start = startOn(grid, own)
    if start is None:
        return move_patch(found, own, grid)
    first = np.add(found.start, start)
    low = np.maximum(first, 0)
    high = np.minimum(first + found.array.shape, grid.shape)
    inside = tuple(slice(int(a - f), int(max(b - f, 0))) for a, b, f in zip(low, high, first))
    return patch_of(found.array[inside], triple(low))


def startOn(grid: Grid, part: Grid) -> tuple[int, int, int] | None:
    """Return the voxel (k, j, i) of ``grid`` at which ``part`` begins; None for another lattice."""
    start = np.rint(grid.ijk(part.lps((0, 0, 0))))[::-1]
    if grid.cut(start, part.shape).matches(part):
        return triple(start)
    return None
