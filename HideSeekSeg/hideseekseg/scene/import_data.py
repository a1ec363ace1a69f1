"""Images of the library as nodes of the scene, and the scene emptied for the next patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from ..imaging.segmentation import Segmentation
from ..imaging.volume import Volume
from .geometry import LABELMAP, asMatrix
from .results import Results

TERMINOLOGY = Path(__file__).resolve().with_name("vertebrae.term.json")


def loadVertebrae() -> str:
    """Add the vertebrae to Slicer's regions; the list's name, empty where Slicer refused it."""
    logic = slicer.modules.terminologies.logic()
    return str(logic.LoadRegionContextFromFile(str(TERMINOLOGY)))


_DATA = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLTableNode",
    "vtkMRMLModelNode",
    "vtkMRMLTransformNode",
    "vtkMRMLMarkupsNode",
)


def addCt(volume: Volume, name: str) -> Any:
    """Add a CT as a volume node."""
    array = np.ascontiguousarray(volume.array)
    node = slicer.util.addVolumeFromArray(array, asMatrix(volume.grid), name)
    node.CreateDefaultDisplayNodes()
    return node


def addSegmentation(segmentation: Segmentation, name: str, ctNode: Any) -> Any:
    """Add a segmentation; segments keep their names, values, codes and shared layers."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(ctNode)
    images = [_image(layer) for layer in segmentation.layers]
    modifying = node.StartModify()
    for number, said in enumerate(segmentation.segments):
        segment = slicer.vtkSegment()
        segment.SetName(said.name or f"Segment_{said.value}")
        segment.SetLabelValue(said.value)
        if said.terminology:
            segment.SetTerminology(said.terminology)
        segment.AddRepresentation(LABELMAP, images[said.layer])
        node.GetSegmentation().AddSegment(segment, said.id or f"Segment_{number}")
    node.EndModify(modifying)
    return node


def removeData() -> None:
    """Remove what belongs to a patient; views and their settings stay."""
    scene = slicer.mrmlScene
    removeResults()
    for kind in _DATA:
        for node in slicer.util.getNodesByClass(kind, scene):
            if not _isPartOfView(node):
                scene.RemoveNode(node)


def removeResults(keep: Any = None) -> None:
    """Remove the results of earlier runs with all that belongs to them; the patient stays.

    ``keep`` is a segmentation node of results that stay.
    """
    scene = slicer.mrmlScene
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene):
        if Results.isOne(node) and node is not keep:
            for part in Results.partsOf(node):
                scene.RemoveNode(part)
            scene.RemoveNode(node)


def _isPartOfView(node: Any) -> bool:
    """Return whether it is the plane that a slice view draws in 3D, or its transform."""
    return (bool(node.GetHideFromEditors()) and not node.GetSaveWithScene()) or _ofSlice(node)


def _ofSlice(node: Any) -> bool:
    return (node.GetName() or "").endswith((" Volume Slice", " Slice Model", " Transform"))


def _image(layer: Volume) -> Any:
    """Labels (K, J, I) as Slicer keeps segments that share a layer."""
    array = np.ascontiguousarray(layer.array)
    array = array.astype(np.min_scalar_type(max(int(array.max()), 1)), copy=False)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*array.shape[::-1])
    image.SetImageToWorldMatrix(asMatrix(layer.grid))
    image.AllocateScalars(_TYPES[array.dtype.name], 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = array.ravel()
    return image


_TYPES = {
    "uint8": vtk.VTK_UNSIGNED_CHAR,
    "uint16": vtk.VTK_UNSIGNED_SHORT,
    "uint32": vtk.VTK_UNSIGNED_INT,
}
