"""The stand-in for Slicer's desktop behaves as PythonQt, CTK and MRML widgets do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from desktop import Desktop

FORM = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Form</class>
<widget class="qMRMLWidget" name="Form"><layout class="QVBoxLayout" name="rows">
<item><widget class="qMRMLNodeComboBox" name="ct">
<property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist>
</property>
<property name="noneEnabled"><bool>true</bool></property></widget></item>
<item><widget class="ctkCollapsibleButton" name="advanced">
<property name="text"><string>Advanced</string></property>
<property name="collapsed"><bool>true</bool></property>
<layout class="QFormLayout" name="inner">
<item row="0" column="1"><widget class="ctkSliderWidget" name="threshold">
<property name="singleStep"><double>0.01</double></property>
<property name="maximum"><double>1.0</double></property></widget></item>
<item row="1" column="1"><widget class="ctkPathLineEdit" name="weights"/></item>
</layout></widget></item>
<item><widget class="QPushButton" name="apply"><property name="text"><string>Go</string></property>
</widget></item></layout></widget></ui>"""


def test_form_with_custom_widgets(desktop: Desktop, tmp_path: Path) -> None:
    import slicer

    path = tmp_path / "form.ui"
    path.write_text(FORM, "utf-8")
    form = slicer.util.loadUI(str(path))
    ui = slicer.util.childWidgetVariables(form)
    pressed: list[bool] = []
    ui.apply.connect("clicked(bool)", pressed.append)
    ui.apply.click()
    assert pressed == [False]
    assert ui.apply.text == "Go"
    ui.apply.text = "Cancel"
    assert ui.apply.text == "Cancel"
    with pytest.raises(ValueError, match="no signal"):
        ui.apply.connect("clickd(bool)", pressed.append)
    with pytest.raises(AttributeError):
        ui.apply.txet = "x"
    moved: list[float] = []
    ui.threshold.connect("valueChanged(double)", moved.append)
    ui.threshold.value = 0.5
    assert moved == [0.5]
    chosen: list[Any] = []
    ui.ct.connect("currentNodeChanged(vtkMRMLNode*)", chosen.append)
    ui.ct.setMRMLScene(slicer.mrmlScene)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    ui.ct.setCurrentNode(node)
    assert chosen[-1] is node and ui.ct.currentNodeID == node.GetID()
    slicer.mrmlScene.RemoveNode(node)
    assert ui.ct.currentNode() is None
    assert ui.advanced.collapsed
    ui.advanced.collapsed = False
    desktop.picture(form, tmp_path / "form.png", 360)
    assert (tmp_path / "form.png").stat().st_size > 1000


def test_keys_reach_shortcuts(desktop: Desktop) -> None:
    import qt

    widget = qt.QWidget()
    hit: list[int] = []
    shortcut = qt.QShortcut(qt.QKeySequence("Ctrl+Z"), widget)
    shortcut.connect("activated()", lambda: hit.append(1))
    desktop.show(widget)
    desktop.key(widget, "Ctrl+Z")
    assert hit == [1]


def test_views_jump(desktop: Desktop) -> None:
    import slicer

    manager = slicer.app.layoutManager()
    assert manager.sliceViewNames() == ("Red", "Yellow", "Green")
    node = manager.sliceWidget("Red").mrmlSliceNode()
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, 1.0, 2.0, 3.0, 1)
    assert node.GetSliceToRAS().GetElement(2, 3) == 3.0


def test_object_without_a_parent_dies_with_its_last_reference(desktop: Desktop) -> None:
    import qt

    hit: list[str] = []
    parent = qt.QObject()
    for name, timer in (("alone", qt.QTimer()), ("owned", qt.QTimer(parent))):
        timer.connect("timeout()", lambda name=name: hit.append(name))
        timer.setSingleShot(True)
        timer.start(20)
    del timer
    desktop.wait(lambda: hit, 2)
    desktop.settle()
    assert hit == ["owned"]


@pytest.mark.parametrize("owned", [True, False])
def test_object_that_is_forgotten_inside_its_own_signal(desktop: Desktop, owned: bool) -> None:
    """In Slicer, PythonQt would delete it there, and Slicer would crash."""
    import qt

    from desktop.pythonqt import slot_errors

    parent = qt.QObject()
    kept = [qt.QTimer(parent) if owned else qt.QTimer()]
    kept[0].setSingleShot(True)
    kept[0].connect("timeout()", kept.clear)
    kept[0].start(0)
    desktop.wait(lambda: not kept, 2)
    assert slot_errors == ([] if owned else ["QTimer deleted inside its signal timeout()"])
    slot_errors.clear()
