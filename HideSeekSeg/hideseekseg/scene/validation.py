"""Whether a run can start with the user's CT and segmentation, and what it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import slicer
import vtk

from .export_inputs import Inputs, writeInputs
from .geometry import isRectangular, localGrid, moved, toWorld
from .level_rows import LevelRow, RowProblem, levelRows

__all__ = ["Inputs", "LevelRow", "levelRows", "modality", "problems", "writeInputs"]

# What Slicer's DICOM reader says that voxels are (DICOM part 16).
_QUANTITIES = {"110852": "MR", "112031": "CT"}


def problems(
    ctNode: Any,
    segmentationNode: Any,
    corrections: Mapping[str, str] | None = None,
    bodiesNode: Any = None,
) -> list[str]:
    """Why a run cannot start, one line each, for the user; empty where it can."""
    found = [*_problemsOfCt(ctNode), *_problemsOfSegmentation(segmentationNode, corrections or {})]
    if bodiesNode is not None and not any(r.kind == "body" for r in levelRows(bodiesNode)):
        found.append(
            f'No segment of "{bodiesNode.GetName()}" is understood as a vertebral body: choose'
            " another segmentation of the bodies, or none."
        )
    if not found and not _overlap(ctNode, segmentationNode):
        found.append(
            f'"{segmentationNode.GetName()}" does not overlap with the CT "{ctNode.GetName()}":'
            " choose the segmentation of this CT."
        )
    return found


def modality(volumeNode: Any) -> str:
    """Return the DICOM modality ("CT", "MR", ...) where the scene knows it, else ""."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy else 0
    while item and item != hierarchy.GetSceneItemID():
        said = hierarchy.GetItemAttribute(item, attribute)
        if said:
            return str(said)
        item = hierarchy.GetItemParent(item)
    quantity = volumeNode.GetVoxelValueQuantity()
    return _QUANTITIES.get(quantity.GetCodeValue() or "", "") if quantity else ""


def _problemsOfCt(ctNode: Any) -> list[str]:
    if ctNode is None or ctNode.GetScene() is None:
        return ["Choose a CT volume."]
    name = f'"{ctNode.GetName()}"'
    if ctNode.IsA("vtkMRMLLabelMapVolumeNode"):
        return [f"{name} is a label map: choose the CT itself."]
    image = ctNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or not image.GetNumberOfPoints():
        return [f"{name} is empty: load the CT again or choose another volume."]
    if image.GetNumberOfScalarComponents() > 1:
        count = image.GetNumberOfScalarComponents()
        return [f"{name} has {count} values per voxel, a CT has one: choose another volume."]
    if min(image.GetDimensions()) < 2:
        return [f"{name} is a single slice: choose a CT volume."]
    said = modality(ctNode)
    if said not in ("", "CT"):
        return [f"{name} is {said} by its DICOM data, and only CT can be analysed."]
    matrix = toWorld(ctNode)
    if matrix is None:
        return [
            f"{name} is under a transform that bends it: harden the transform first"
            " (in the module Transforms)."
        ]
    if not isRectangular(moved(localGrid(ctNode), matrix)):
        return [
            f"{name} has slanted axes (gantry tilt or a shearing transform): resample it first."
        ]
    return []


def _problemsOfSegmentation(node: Any, corrections: Mapping[str, str]) -> list[str]:
    if node is None or node.GetScene() is None:
        return ["Choose a segmentation of the vertebrae."]
    name = f'"{node.GetName()}"'
    segmentation = node.GetSegmentation()
    if segmentation is None or segmentation.GetNumberOfSegments() == 0:
        return [f"{name} has no segments: segment the vertebrae first."]
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    if bounds[0] > bounds[1]:
        return [f"{name} is empty: no segment has a voxel."]
    rows = levelRows(node, corrections)
    wrong = [
        f"{r.name}: {r.why}: use C1 to C7, T1 to T13, L1 to L6 or S1."
        for r in rows
        if r.segmentID in corrections and r.problem is RowProblem.NOT_A_LEVEL
    ]
    twice = [
        f"{r.name}: {r.why}. Give each level once."
        for r in rows
        if r.segmentID in corrections and r.problem is RowProblem.TAKEN
    ]
    if not wrong + twice and not any(row.level for row in rows):
        return [f"No segment of {name} is understood as a vertebra: set the levels in the table."]
    return [*wrong, *twice]


def _overlap(ctNode: Any, segmentationNode: Any) -> bool:
    boxes = []
    for node in (ctNode, segmentationNode):
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        boxes.append(vtk.vtkBoundingBox(bounds))
    return bool(boxes[0].Intersects(boxes[1]))
