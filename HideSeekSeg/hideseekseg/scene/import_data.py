"""Images of the library as nodes of the scene, and the scene emptied for the next patient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util import numpy_support

from ..imaging.segmentation import Segmentation
from ..imaging.volume import Volume, content_hash, scan_identity
from ..output.segment_description import PREFIX
from .geometry import LABELMAP, asMatrix, localGrid
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


_SCAN = PREFIX + "Scan"


def addCt(volume: Volume, name: str) -> Any:
    """Add a CT as a volume node that knows which scan it is."""
    array = np.ascontiguousarray(volume.array)
    node = slicer.util.addVolumeFromArray(array, asMatrix(volume.grid), name)
    node.CreateDefaultDisplayNodes()
    node.SetAttribute(_SCAN, json.dumps({**scan_identity(volume), "name": name}))
    return node


def scanOf(ctNode: Any) -> dict[str, str]:
    """Return which scan a volume node is, as ``imaging.volume.scan_identity`` does.

    One that was not read by the library says what Slicer knows of it: its file, its DICOM series,
    and nothing that names a patient.
    """
    kept = ctNode.GetAttribute(_SCAN)
    if kept:
        return {str(key): str(value) for key, value in json.loads(kept).items()}
    storage = ctNode.GetStorageNode()
    scan = {
        "name": ctNode.GetName() or "",
        "path": (storage.GetFileName() or "") if storage else "",
    }
    scan["sha256"] = content_hash(slicer.util.arrayFromVolume(ctNode), localGrid(ctNode))
    scene = ctNode.GetScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(ctNode) if hierarchy else 0
    while item and item != hierarchy.GetSceneItemID():
        if hierarchy.GetItemLevel(item) == "Study":
            scan["study_uid"] = hierarchy.GetItemUID(item, "DICOM")
            scan["study_date"] = hierarchy.GetItemAttribute(item, "DICOM.StudyDate")
        elif "series_uid" not in scan:
            scan["series_uid"] = hierarchy.GetItemUID(item, "DICOM")
        item = hierarchy.GetItemParent(item)
    return {key: value for key, value in scan.items() if value}


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
    # Where an earlier save put removed nodes: a scene that names that place would not open again.
    nodes = slicer.util.getNodesByClass("vtkMRMLStorableNode", scene)
    used = {
        node.GetNthStorageNodeID(n) for node in nodes for n in range(node.GetNumberOfStorageNodes())
    }
    for storage in slicer.util.getNodesByClass("vtkMRMLStorageNode", scene):
        if storage.GetID() not in used:
            scene.RemoveNode(storage)


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
