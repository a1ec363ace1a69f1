"""``slicer.app``, its windows and views, as far as a module's panel asks for them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtWidgets

VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


@dataclass
class SliceWidget:
    """One slice view without a picture: its nodes and logic are real."""

    logic: Any

    def sliceLogic(self) -> Any:
        return self.logic

    def mrmlSliceNode(self) -> Any:
        return self.logic.GetSliceNode()


@dataclass
class LayoutManager:
    """The slice views of the "four-up" layout."""

    widgets: dict[str, SliceWidget] = field(default_factory=dict)
    layout: int = 3

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self.widgets)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        return self.widgets.get(name)

    def mrmlSliceLogics(self) -> Any:
        import vtk

        logics = vtk.vtkCollection()
        for widget in self.widgets.values():
            logics.AddItem(widget.logic)
        return logics

    def setLayout(self, layout: int) -> None:
        self.layout = layout


class ModuleSelector(QtCore.QObject):
    """Which module is shown; ``_leave`` is called at once when another one is, as ``exit`` is."""

    def __init__(self) -> None:
        super().__init__()
        self._chosen: list[str] = []
        self._leave: Callable[[], None] = lambda: None

    def selectModule(self, name: str) -> None:
        self._leave()
        self._chosen.append(name)


class ModuleManager(QtCore.QObject):
    """Tells when a module goes."""

    moduleAboutToBeUnloaded = QtCore.Signal(str)


class CoreIOManager:
    """Reads files into the scene by MRML's own readers."""

    _KINDS = {
        "VolumeFile": "vtkMRMLScalarVolumeNode",
        "SegmentationFile": "vtkMRMLSegmentationNode",
    }

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: Any) -> bool:
        import slicer

        node = slicer.mrmlScene.AddNewNodeByClass(self._KINDS[kind], properties["name"])
        node.AddDefaultStorageNode(properties["fileName"])
        read = bool(node.GetStorageNode().ReadData(node))
        if read:
            loaded.AddItem(node)
        return read


class qSlicerMainWindow(QtWidgets.QMainWindow):
    """Slicer's window: only a place for the panel and the module selector."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = ModuleSelector()

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


class qSlicerApplication(QtWidgets.QApplication):
    """The one application of the process."""

    startupCompleted = QtCore.Signal()

    def __init__(self) -> None:
        super().__init__(["Slicer"])
        self._folder = tempfile.mkdtemp(prefix="desktop-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        self._manager = LayoutManager()
        self._modules = ModuleManager()
        self._logic: Any = None
        self._version = (5, 12)
        self.setApplicationName("Slicer")

    def _get_temporary(self) -> str:
        return self._folder

    def _set_temporary(self, folder: str) -> None:
        self._folder = folder

    def _get_major(self) -> int:
        return self._version[0]

    def _get_minor(self) -> int:
        return self._version[1]

    majorVersion = QtCore.Property(int, _get_major)
    minorVersion = QtCore.Property(int, _get_minor)
    temporaryPath = QtCore.Property(str, _get_temporary, _set_temporary)

    def layoutManager(self) -> LayoutManager:
        return self._manager

    def applicationLogic(self) -> Any:
        return self._logic

    def coreIOManager(self) -> CoreIOManager:
        return CoreIOManager()

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def translate(self, _context: str, text: str) -> str:  # type: ignore[override]
        return text

    def testingEnabled(self) -> bool:
        return False

    def userSettings(self) -> QtCore.QSettings:
        path = Path(self._folder) / "settings.ini"
        return QtCore.QSettings(str(path), QtCore.QSettings.Format.IniFormat)

    def settings(self) -> QtCore.QSettings:
        return self.userSettings()

    def _open(self, scene: Any, logic: Any) -> None:
        """Slice views on the scene of a test."""
        import slicer

        self._logic = logic
        self._manager.widgets = {}
        for name, orientation in VIEWS.items():
            view = slicer.vtkMRMLSliceLogic()
            view.SetMRMLApplicationLogic(logic)
            view.SetMRMLScene(scene)
            view.AddSliceNode(name)
            node = view.GetSliceNode()
            node.SetName(name)
            node.SetOrientation(orientation)
            node.SetMappedInLayout(True)
            self._manager.widgets[name] = SliceWidget(view)

    def _close(self) -> None:
        for widget in self._manager.widgets.values():
            widget.logic.SetMRMLScene(None)
        self._manager.widgets = {}


def make_ctk() -> types.ModuleType:
    """The module ``ctk``."""
    from .ctk_widgets import WIDGETS

    module = types.ModuleType("ctk")
    module.__dict__.update({kind.__name__: kind for kind in WIDGETS})
    return module
