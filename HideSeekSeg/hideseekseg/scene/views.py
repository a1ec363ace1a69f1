"""Display in the views: position, window, image, and the volumes of healthy edit and difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import slicer.util

from ..findings import Evidence
from ..imaging.volume import Grid
from ..output.figures.drawing import difference_limit, is_hounsfield, window
from ..output.segment_description import TYPE_COLOURS
from .geometry import CT_REFERENCE, RAS_FROM_LPS, asMatrix
from .layout import LAYOUT, showSagittal
from .segments import isolate

__all__ = [
    "LAYOUT",
    "boneWindow",
    "closeUp",
    "fillDifference",
    "fillEdit",
    "fillLesions",
    "isolate",
    "jumpTo",
    "showBackground",
    "showOverlay",
    "showSagittal",
]

_COLOURS = "HideSeekSeg difference"
_COUNT = 255

# Voxels looked at to choose a window: a sample of a large CT is as good as all of it.
_SAMPLE = 2_000_000
# Cosine between a view's normal and the patient's left-right axis, from which it is sagittal.
_SAGITTAL = 0.7
# Heights of the views around a finding: a vertebra with its neighbours.
_SAGITTAL_MM, _ACROSS_MM = 150.0, 110.0


def jumpTo(centroidLps: Sequence[float]) -> None:
    """Centre every slice view, and turn every 3D view, on a point in LPS mm."""
    ras = RAS_FROM_LPS[:3, :3] @ np.asarray(centroidLps, float)
    scene = slicer.mrmlScene
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode", scene):
        step = ras - camera.GetFocalPoint()
        camera.SetPosition(*(step + camera.GetPosition()))
        camera.SetFocalPoint(*ras)
        camera.ResetClippingRange()  # what lies before and behind would be cut as at the old place


def closeUp(sliceNode: Any) -> None:
    """Zoom a view so that a vertebra and its neighbours fill it; the centre stays."""
    width, height, depth = sliceNode.GetFieldOfView()
    if height > 0:
        factor = (_SAGITTAL_MM if _isSagittal(sliceNode) else _ACROSS_MM) / height
        sliceNode.SetFieldOfView(width * factor, height * factor, depth)


def _isSagittal(sliceNode: Any) -> bool:
    return abs(sliceNode.GetSliceToRAS().GetElement(0, 2)) > _SAGITTAL


def inHounsfield(ctNode: Any) -> bool:
    """Return whether a volume's values look like HU."""
    return bool(is_hounsfield(_sample(ctNode)))


def boneWindow(ctNode: Any) -> None:
    """Set the bone window for Hounsfield units, else one for the bulk of the values."""
    if ctNode is None or ctNode.GetImageData() is None:
        return
    ctNode.CreateDefaultDisplayNodes()
    low, high = window(_sample(ctNode))
    setWindow(ctNode.GetDisplayNode(), low, high)


def _sample(ctNode: Any) -> npt.NDArray[np.float32]:
    values = slicer.util.arrayFromVolume(ctNode).ravel()
    return np.asarray(values[:: max(len(values) // _SAMPLE, 1)], np.float32)


def setWindow(displayNode: Any, low: float, high: float) -> None:
    """Black at ``low``, white at ``high``."""
    modifying = displayNode.StartModify()
    displayNode.SetAutoWindowLevel(False)
    displayNode.SetWindowLevelMinMax(low, high)
    displayNode.EndModify(modifying)


def showOverlay(segmentationNode: Any, shown: bool) -> None:
    """Show or hide all lesions at once, in slices and in 3D."""
    display = segmentationNode.GetDisplayNode()
    if display is not None:
        display.SetVisibility(shown)


def fillLesions(segmentationNode: Any, opacity: float) -> None:
    """Set how much of a lesion's colour (0 to 1) lies over the slices; its outline stays."""
    display = segmentationNode.GetDisplayNode()
    if display is not None:
        modifying = display.StartModify()
        display.SetOpacity2DFill(opacity)
        display.SetSliceIntersectionThickness(2)
        display.EndModify(modifying)


def showBackground(volumeNode: Any) -> None:
    """Show the CT, or a picture of one vertebra (``Results.evidenceVolumes``) over its CT.

    The views keep their place and zoom: to flick between two of them shows what differs.
    """
    ct = volumeNode.GetNodeReference(CT_REFERENCE)
    scene = volumeNode.GetScene()
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene):
        modifying = view.StartModify()
        view.SetBackgroundVolumeID((ct or volumeNode).GetID())
        view.SetForegroundVolumeID(volumeNode.GetID() if ct else None)
        view.SetForegroundOpacity(1.0 if ct else 0.0)
        view.EndModify(modifying)


def fillEdit(node: Any, evidence: Evidence, grid: Grid) -> None:
    """Fill in the healthy edit; ``grid`` (LPS) is that of the node, not the world."""
    _fill(node, evidence.edit, grid)
    # The original's window: what differs between the two is then not the window.
    setWindow(node.GetDisplayNode(), *window(evidence.image))


def fillDifference(node: Any, evidence: Evidence, grid: Grid) -> None:
    """Fill in the difference: blue where density was added (lytic), orange where removed."""
    _fill(node, evidence.difference, grid)
    most = difference_limit(evidence.image, evidence.difference[evidence.body])
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_colours(node.GetScene()).GetID())
    setWindow(display, -most, most)


def _fill(node: Any, array: npt.NDArray[np.float32], grid: Grid) -> None:
    node.SetIJKToRASMatrix(asMatrix(grid))
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(array))
    node.CreateDefaultDisplayNodes()


def _colours(scene: Any) -> Any:
    """Return the colours blastic, black, lytic; made once in a scene."""
    node = scene.GetFirstNode(_COLOURS, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = scene.AddNewNodeByClass("vtkMRMLColorTableNode", _COLOURS)
    node.SetTypeToUser()
    node.SetNumberOfColors(_COUNT)
    for n, t in enumerate(np.linspace(-1, 1, _COUNT)):
        colour = TYPE_COLOURS["lytic" if t > 0 else "blastic"]
        node.SetColor(n, f"{t:.2f}", *(abs(float(t)) * c for c in colour), 1.0)
    return node
