"""Vertebrae as smooth translucent surfaces to look at; the user's segmentation is not touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from ..imaging.patch import Patch, patch_of
from ..imaging.volume import Grid
from .geometry import LABELMAP, arrayOfImage, asMatrix, gridOfImage, hasVoxels
from .level_rows import LevelRow

BONE = (0.86, 0.82, 0.73)
OPACITY = 0.35
ROLE = "HideSeekSeg.Surface"
_STEP_MM = 1.0  # finer voxels are thinned out first: a surface to look through needs no more


def addSurfaces(segmentationNode: Any, rows: list[LevelRow]) -> Iterator[Any]:
    """Yield a model node for each vertebra, one at a time, for other work in between.

    They are not saved with the scene.
    """
    segmentation = segmentationNode.GetSegmentation()
    for row in rows:
        segment = segmentation.GetSegment(row.segmentID)
        image = segment.GetRepresentation(LABELMAP) if segment is not None else None
        if not row.level or not hasVoxels(image):
            continue
        patch = patch_of(arrayOfImage(image) == segment.GetLabelValue())
        if patch is not None:
            node = _model(_surface(patch, gridOfImage(image)), f"{row.level} surface")
            node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
            yield node


def removeSurfaces() -> None:
    """Remove the surfaces of vertebrae that were made before."""
    scene = slicer.mrmlScene
    for node in slicer.util.getNodesByClass("vtkMRMLModelNode", scene):
        if node.GetAttribute(ROLE):
            scene.RemoveNode(node)


def _model(surface: Any, name: str) -> Any:
    scene = slicer.mrmlScene
    node = scene.AddNewNodeByClass("vtkMRMLModelNode", name)
    node.SetAttribute(ROLE, "1")
    node.SetAndObservePolyData(surface)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*BONE)
    display.SetOpacity(OPACITY)
    display.SetVisibility2D(False)
    display.SetBackfaceCulling(True)
    for part in (node, display):
        part.SetSaveWithScene(False)
    return node


def _surface(patch: Patch, grid: Grid) -> Any:
    """Return the patch's rim in RAS mm."""
    strides = [max(int(_STEP_MM / mm), 1) for mm in grid.spacing[::-1]]
    k, j, i = (slice(None, None, stride) for stride in strides)
    mask = np.pad(patch.array[k, j, i], 1)
    edges = vtk.vtkFlyingEdges3D()
    edges.SetInputData(_image(mask))
    edges.SetValue(0, 0.5)
    edges.ComputeNormalsOff()
    edges.ComputeScalarsOff()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(edges.GetOutputPort())
    smooth.SetNumberOfIterations(30)
    smooth.SetPassBand(0.02)
    smooth.NormalizeCoordinatesOn()
    place = vtk.vtkTransformPolyDataFilter()
    place.SetInputConnection(smooth.GetOutputPort())
    place.SetTransform(_toRas(patch, grid, strides))
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(place.GetOutputPort())
    normals.SplittingOff()
    normals.Update()
    return normals.GetOutput()


def _image(mask: npt.NDArray[np.bool_]) -> Any:
    image = vtk.vtkImageData()
    image.SetDimensions(*mask.shape[::-1])
    values = numpy_support.numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=True)
    image.GetPointData().SetScalars(values)
    return image


def _toRas(patch: Patch, grid: Grid, strides: list[int]) -> Any:
    """From voxels of the padded, thinned mask to RAS."""
    inner = np.eye(4)
    inner[:3, :3] = np.diag(strides[::-1])
    inner[:3, 3] = np.subtract(patch.start, strides)[::-1]
    transform = vtk.vtkTransform()
    transform.SetMatrix(asMatrix(grid))
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(inner.ravel())
    transform.Concatenate(matrix)
    return transform
