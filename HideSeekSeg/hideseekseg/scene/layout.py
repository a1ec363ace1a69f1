"""The layout of a review; light, as Slicer loads it when it starts."""

from __future__ import annotations

from typing import Any

import slicer

LAYOUT = 7061  # number of the review's own layout among Slicer's


def registerLayout() -> Any:
    """Let Slicer know the layout; its node of layouts, None where there is no window.

    A scene that is saved during a review names the layout by its number alone: where Slicer does
    not know that, it opens the scene without any view.
    """
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    new = node is not None and node.AddLayoutDescription(LAYOUT, _layoutText())
    if new and node.GetViewArrangement() == LAYOUT:  # of a scene that was loaded before
        node.SetViewArrangement(LAYOUT)
    return node


def showSagittal() -> None:
    """Show the layout of a review: a large sagittal view, beside it axial, coronal and 3D."""
    node = registerLayout()
    if node is not None:
        node.SetViewArrangement(LAYOUT)


def _layoutText() -> str:
    """Return the layout as Slicer reads it; view names and colours are those of its own layouts."""
    views = [
        f'<item><view class="vtkMRMLSliceNode" singletontag="{tag}">'
        f'<property name="orientation" action="default">{orientation}</property>'
        f'<property name="viewlabel" action="default">{tag[0]}</property>'
        f'<property name="viewcolor" action="default">{colour}</property></view></item>'
        for tag, orientation, colour in (
            ("Yellow", "Sagittal", "#EDD54C"),
            ("Red", "Axial", "#F34A33"),
            ("Green", "Coronal", "#6EB04B"),
        )
    ]
    threed = (
        '<item><view class="vtkMRMLViewNode" singletontag="1">'
        '<property name="viewlabel" action="default">1</property></view></item>'
    )
    right = f'<item><layout type="vertical">{views[1]}{views[2]}{threed}</layout></item>'
    return f'<layout type="horizontal" split="true">{views[0]}{right}</layout>'
