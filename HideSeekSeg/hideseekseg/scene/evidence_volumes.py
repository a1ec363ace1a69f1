"""The method's own pictures of one vertebra as volumes: the healthy edit and the difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import slicer.util

from ..findings import Evidence
from ..imaging.volume import Grid
from ..output.figures.drawing import reach, window
from ..output.segment_description import TYPE_COLOURS
from .geometry import asMatrix
from .views import setWindow

_COLOURS = "HideSeekSeg difference"
_COUNT = 255


def fillEdit(node: Any, evidence: Evidence, grid: Grid) -> None:
    """Fill in the healthy edit; ``grid`` (LPS) is that of the node, not the world."""
    _fill(node, evidence.edit, grid)
    # The original's window: what differs between the two is then not the window.
    setWindow(node.GetDisplayNode(), *window(evidence.image))


def fillDifference(node: Any, evidence: Evidence, grid: Grid) -> None:
    """Fill in the difference: blue where density was added (lytic), orange where removed."""
    _fill(node, evidence.difference, grid)
    most = reach(evidence.difference[evidence.body])
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
