"""The module Segment Editor without a window: Slicer's own logic and parameter node, a brush."""

from __future__ import annotations

import types
from typing import Any


class SegmentEditor:
    """As ``qMRMLSegmentEditorWidget``, as far as a module that opens it calls it."""

    def __init__(self, scene: Any) -> None:
        import slicer

        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(scene)
        self._node = slicer.vtkMRMLSegmentEditorNode()
        self._node.SetSingletonTag("SegmentEditor")
        self._node = scene.AddNode(self._node)
        self.logic.SetSegmentEditorNode(self._node)
        self.effect = ""

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        self.logic.SetSegmentationNode(node)

    def setSourceVolumeNode(self, node: Any) -> None:
        self.logic.SetSourceVolumeNode(node)

    def setCurrentSegmentID(self, identity: str) -> None:
        self.logic.SetCurrentSegmentID(identity)

    def setActiveEffectByName(self, name: str) -> None:
        self.effect = name

    def paint(self, image: Any) -> None:
        """Add an oriented image of ones to the current segment, as a stroke of the brush does."""
        assert self.effect == "Paint"
        self.logic.ModifySegmentByLabelmap(
            self.logic.GetSegmentationNode(),
            self.logic.GetCurrentSegmentID(),
            image,
            self.logic.ModificationModeAdd,
            False,
            False,
        )


def make_module(scene: Any) -> types.SimpleNamespace:
    """What ``slicer.modules.segmenteditor`` is; ``editor`` is the widget in it."""
    editor = SegmentEditor(scene)
    widget = types.SimpleNamespace(editor=editor)
    representation = types.SimpleNamespace(self=lambda: widget)
    return types.SimpleNamespace(editor=editor, widgetRepresentation=lambda: representation)
