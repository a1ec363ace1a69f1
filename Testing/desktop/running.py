"""Opens the desktop for a test, and closes it."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.scene import Slicer

ANSWERS = ("confirmOkCancelDisplay", "confirmYesNoDisplay", "confirmRetryCloseDisplay")
CHOOSERS = ("getExistingDirectory", "getOpenFileName", "getOpenFileNames", "getSaveFileName")
TOLD = ("infoDisplay", "warningDisplay", "errorDisplay", "messageBox", "delayDisplay")
_made: list[Any] = []


@dataclass
class Desktop:
    """What a test does as a user, and what it sees."""

    app: Any
    window: Any
    mrml: Slicer
    messages: list[str] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)
    paths: list[Any] = field(default_factory=list)

    @property
    def selected(self) -> list[str]:
        """Modules that were switched to."""
        return list(self.window.moduleSelector()._chosen)

    def settle(self) -> None:
        """Let all waiting events happen, deferred deletions as well."""
        for _ in range(3):
            self.app.processEvents()
        self.app.sendPostedEvents(None, 52)  # QEvent::DeferredDelete

    def wait(self, until: Callable[[], Any], seconds: float = 10.0) -> None:
        """Run the event loop until something holds; AssertionError when it never does."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"nothing happened within {seconds} s"
            self.app.processEvents()
            time.sleep(0.005)

    def key(self, widget: Any, keys: str) -> None:
        """Press a key, such as "A" or "Ctrl+Z", in a widget that is shown."""
        from PySide6 import QtGui, QtTest

        combination = QtGui.QKeySequence(keys)[0]
        QtTest.QTest.keyClick(widget, combination.key(), combination.keyboardModifiers())
        self.settle()

    def show(self, widget: Any, width: int = 420, height: int = 0) -> None:
        """Put a widget on the (invisible) screen and give it the keyboard."""
        from PySide6 import QtTest

        widget.resize(width, height or max(40, widget.sizeHint.height()))
        widget.show()
        widget.activateWindow()
        QtTest.QTest.qWaitForWindowActive(widget, 1000)
        self.settle()

    def picture(self, widget: Any, path: Path, width: int = 420, height: int = 0) -> None:
        """A PNG of a widget as it stands."""
        self.show(widget, width, height)
        assert widget.grab().save(str(path))


def start() -> tuple[Any, Any]:
    """The application and its window, once per process; ``qt`` and ``ctk`` can be imported then."""
    if not _made:
        _keep_none()
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        from . import application, module_base, pythonqt

        qt = pythonqt.make_module()
        from .loading import QUiLoader

        qt.__dict__["QUiLoader"] = QUiLoader
        sys.modules["qt"], sys.modules["ctk"] = qt, application.make_ctk()
        sys.modules["slicer.i18n"] = module_base.make_i18n()
        app = application.qSlicerApplication()
        _made.extend((app, application.qSlicerMainWindow()))
    return _made[0], _made[1]


def _keep_none() -> None:
    """Make None immortal, as Python 3.12 does: PySide6 gives up a reference to it at each call."""
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


@contextmanager
def open_desktop(mrml: Slicer) -> Iterator[Desktop]:
    """The desktop on a scene that is empty at first; errors in slots are raised at the end."""
    import slicer
    import slicer.util

    app, window = start()
    from . import mrml_widgets, pythonqt, segment_editor

    desktop = Desktop(app, window, mrml)
    mrml.scene.Clear(True)
    slicer.app = app
    for kind in mrml_widgets.WIDGETS:
        setattr(slicer, kind.__name__, kind)
    app._open(mrml.scene, mrml.application)
    slicer.modules.segmenteditor = segment_editor.make_module(mrml.scene)
    before = {name: getattr(slicer.util, name) for name in (*TOLD, *ANSWERS)}

    def tell(text: str, *_: Any, **__: Any) -> None:
        desktop.messages.append(text)

    def ask(text: str, *_: Any, **__: Any) -> bool:
        desktop.messages.append(text)
        return desktop.answers.pop(0) if desktop.answers else True

    def choose(*_: Any, **__: Any) -> Any:
        return desktop.paths.pop(0) if desktop.paths else ""

    for name in CHOOSERS:
        setattr(sys.modules["qt"].QFileDialog, name, staticmethod(choose))
    for name in before:
        setattr(slicer.util, name, ask if name in ANSWERS else tell)
    window.moduleSelector()._chosen.clear()
    window.moduleSelector()._leave = lambda: None
    pythonqt.slot_errors.clear()
    try:
        yield desktop
        desktop.settle()
        assert not pythonqt.slot_errors, pythonqt.slot_errors[0]
    finally:
        for name, function in before.items():
            setattr(slicer.util, name, function)
        for widget in app.topLevelWidgets():
            if widget is not window:
                widget.close()
                widget.deleteLater()
        desktop.settle()
        del slicer.modules.segmenteditor
        app._close()
        mrml.scene.Clear(True)
