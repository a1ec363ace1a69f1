"""Keyboard shortcuts of the review: each belongs to a button, and the button shows it.

They are installed only while the module is open, so that no other module loses a key.
"""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from hideseekseg.ui.shortcuts import KEYS as DESK_KEYS
from hideseekseg.ui.shortcuts import shown

# The widget that a key of the desk works.
WIDGETS = {
    action: f"{action}Edit" if action == "comment" else f"{action}Button" for action in DESK_KEYS
}
KEYS = {WIDGETS[action]: key for action, key in DESK_KEYS.items()}


class Shortcuts:
    """The keys of one panel; ``ui`` holds its widgets by name."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._shortcuts: list[Any] = []
        for name, key in KEYS.items():
            widget = getattr(ui, name)
            if name != "commentEdit":
                widget.text = f"{widget.text} [{shown(key)}]"
            widget.toolTip = f"{widget.toolTip} ({_('key')} {key})"

    @property
    def installed(self) -> bool:
        return bool(self._shortcuts)

    def install(self, window: Any) -> None:
        """Make the keys act in the whole window: the reader looks at the views."""
        self.remove()
        if window is None:  # as in Slicer without a main window
            return
        for name, key in KEYS.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.connect("activated()", self._action(name))
            self._shortcuts.append(shortcut)

    def remove(self) -> None:
        """Release the keys: they are any module's again."""
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.disconnect("activated()")
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    def _action(self, name: str) -> Any:
        widget = getattr(self._ui, name)

        def press() -> None:
            if name == "commentEdit":
                widget.setFocus()
            else:
                widget.click()

        return press
