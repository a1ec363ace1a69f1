"""Opens a scripted module as Slicer does: its file, its icon and help, its widget."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtWidgets

from .module_base import make_modules
from .mrml_widgets import qMRMLWidget

OWN = ("ScriptedLoadableModule", "i18n", "parameterNodeWrapper", "packaging")


@dataclass
class ModuleDescription:
    """What a module's first class fills in."""

    path: str
    title: str = ""
    categories: list[str] = field(default_factory=list)
    dependencies: list[str] = field(default_factory=list)
    contributors: list[str] = field(default_factory=list)
    helpText: str = ""
    acknowledgementText: str = ""
    icon: Any = None


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The place in the module panel where a module's widget is put."""

    def __init__(self) -> None:
        super().__init__()
        self._entered = False
        self._rows = QtWidgets.QVBoxLayout(self)

    def _get(self) -> bool:
        return self._entered

    isEntered = QtCore.Property(bool, _get)

    def fill(self, name: str) -> Any:
        """Make the widget of a module, as it is loaded now, in this place."""
        import slicer

        widget = getattr(sys.modules[name], f"{name}Widget")(self)
        setattr(slicer.modules, f"{name}Widget", widget)
        self._name = name
        widget.setup()
        return widget

    def reload(self) -> None:
        self.fill(self._name)


@contextmanager
def loaded(path: Path, sources: Path | None = None) -> Iterator[types.ModuleType]:
    """A module's Python file, on stand-ins or on the Python files of Slicer's own ``sources``."""
    import slicer

    before_path, before = list(slicer.__path__), dict(sys.modules)
    names = [f"slicer.{name}" for name in OWN]
    for name in [n for n in sys.modules if n.startswith(tuple(names))]:
        del sys.modules[name]
    if sources is None:
        for name, module in make_modules().items():
            sys.modules[name] = module
            setattr(slicer, name.partition(".")[2], module)
    else:
        slicer.__path__.append(str(sources / "slicer"))
        _name_missing_widgets(sources)
        for name in names:
            if importlib.util.find_spec(name) is not None:  # Slicer 5.10 has no "packaging"
                importlib.import_module(name)
    description = types.SimpleNamespace(path=str(path))
    setattr(slicer.modules, path.stem.lower(), description)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    try:
        specification.loader.exec_module(module)
        yield module
    finally:
        slicer.__path__[:] = before_path
        for name in [n for n in sys.modules if n.startswith(tuple(names)) or n == path.stem]:
            if name in before:
                sys.modules[name] = before[name]
            else:
                del sys.modules[name]
        for name in (path.stem.lower(), f"{path.stem}Widget"):
            if hasattr(slicer.modules, name):
                delattr(slicer.modules, name)


def _name_missing_widgets(sources: Path) -> None:
    """Slicer's files name widgets in their signatures that this harness does not have."""
    for path in (sources / "slicer" / "parameterNodeWrapper").glob("*.py"):
        words = r"\b(ctk|slicer)\.((?:ctk|q[MS])\w+)"
        for owner, name in re.findall(words, path.read_text("utf-8")):
            if not hasattr(sys.modules[owner], name):
                setattr(sys.modules[owner], name, type(name, (), {}))


class Opened:
    """A module's widget in its place, with what Slicer tells it."""

    def __init__(self, module: types.ModuleType) -> None:
        import slicer

        name = module.__name__
        self.description = ModuleDescription(str(module.__file__))
        self.module = getattr(module, name)(self.description)
        self.parent = qSlicerScriptedLoadableModuleWidget()
        self.parent.setMRMLScene(slicer.mrmlScene)
        getattr(slicer.modules, name.lower()).widgetRepresentation = lambda: self.parent
        self.widget = self.parent.fill(name)

    def enter(self) -> None:
        self.parent._entered = True
        self.widget.enter()

    def exit(self) -> None:
        self.parent._entered = False
        self.widget.exit()

    def close(self) -> None:
        """Slicer is closed: the module is unloaded."""
        import slicer

        slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(self.widget.moduleName)
        self.parent.deleteLater()
