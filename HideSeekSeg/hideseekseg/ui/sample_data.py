"""The embedded example in the scene: a drawn CT, its vertebrae named as by TotalSegmentator."""

from __future__ import annotations

from functools import cache
from typing import Any

import slicer
import slicer.util

from ..scene.geometry import asMatrix
from ..simulation.example import LESIONS, painter
from ..simulation.phantom.spine import Phantom, example_spine
from .texts import _

CT, VERTEBRAE = _("Example CT"), _("Example vertebrae")


def loadExample() -> tuple[Any, Any]:
    """Add the example; return its CT and segmentation nodes. The first time takes seconds."""
    example = draw()
    ct = slicer.util.addVolumeFromArray(example.ct.array, asMatrix(example.ct.grid), CT)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", VERTEBRAE)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    for value, level in sorted(example.levels.items(), reverse=True):
        identity = f"vertebrae_{level}"
        node.GetSegmentation().AddEmptySegment(identity, f"{level} vertebra")
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            (example.vertebrae.array == value).astype("uint8"), node, identity, ct
        )
    return ct, node


@cache
def draw() -> Phantom:
    """Once for all: it needs no scene, so that another thread may do it."""
    return example_spine(paint=painter(LESIONS))
