"""The layout of a review in scenes that are saved and opened again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.scene import Slicer

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from hideseekseg.scene import layout  # noqa: E402


@pytest.fixture
def logic(mrml: Slicer) -> Iterator[Any]:
    """Slicer's own, which fills the node of layouts as it does in the application."""
    mrml.scene.Clear(True)
    found = slicer.vtkMRMLLayoutLogic()
    found.SetMRMLScene(mrml.scene)
    yield found
    found.SetMRMLScene(None)
    mrml.scene.Clear(True)


def save_in_a_review(path: Path) -> Path:
    """A scene that was saved while the review's layout was shown."""
    scene, found = slicer.vtkMRMLScene(), slicer.vtkMRMLLayoutLogic()
    found.SetMRMLScene(scene)
    node = found.GetLayoutNode()
    node.AddLayoutDescription(layout.LAYOUT, "<layout/>")
    node.SetViewArrangement(layout.LAYOUT)
    scene.SetURL(str(path))
    assert scene.Commit()
    found.SetMRMLScene(None)
    return path


@pytest.mark.parametrize("known", ["before", "after"])
def test_scene_that_was_saved_in_a_review_has_its_views(
    mrml: Slicer, logic: Any, tmp_path: Path, known: str
) -> None:
    """Slicer opens a scene in a layout that it does not know without any view."""
    node = logic.GetLayoutNode()
    if known == "before":
        assert layout.registerLayout() is node
    mrml.scene.SetURL(str(save_in_a_review(tmp_path / "review.mrml")))
    assert mrml.scene.Import()
    assert node.GetViewArrangement() == layout.LAYOUT
    if known == "after":  # as one that was named when Slicer was started
        assert not node.GetCurrentLayoutDescription()
        layout.registerLayout()
    assert "Sagittal" in node.GetCurrentLayoutDescription()


def test_another_layout_stays_when_the_own_one_gets_known(logic: Any) -> None:
    node = logic.GetLayoutNode()
    node.SetViewArrangement(node.SlicerLayoutOneUpRedSliceView)
    layout.registerLayout()
    layout.registerLayout()
    assert node.GetViewArrangement() == node.SlicerLayoutOneUpRedSliceView


def test_without_a_window_there_is_no_layout(mrml: Slicer) -> None:
    mrml.scene.Clear(True)
    assert layout.registerLayout() is None
    layout.showSagittal()
