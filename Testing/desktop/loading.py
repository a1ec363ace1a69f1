"""``qt.QUiLoader``: makes the widgets of a .ui file, stand-ins for the custom ones."""

from __future__ import annotations

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtUiTools import QUiLoader as _Loader

from . import ctk_widgets, mrml_widgets

CUSTOM: dict[str, Any] = {kind.__name__: kind for kind in ctk_widgets.WIDGETS}
CUSTOM |= {kind.__name__: kind for kind in mrml_widgets.WIDGETS}


class QUiLoader(_Loader):
    """Keeps every widget it made alive for as long as the loaded one lives."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._made: list[Any] = []

    def createWidget(self, kind: str, parent: Any = None, name: str = "") -> Any:
        make = CUSTOM.get(kind) or getattr(QtWidgets, kind, None)
        if make is None:
            raise RuntimeError(f"the harness has no stand-in for {kind}")
        widget = make(parent)
        widget.setObjectName(name)
        self._made.append(widget)
        return widget

    def load(self, file: Any, parent: Any = None) -> Any:
        widget = super().load(file, parent)
        if widget is not None:
            widget.__dict__["_loaded_with"] = self
        return widget
