"""One line below the button says what happened and what to do; no window pops up."""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["info", "warning", "error"]
COLOURS = {"info": "70, 130, 180", "warning": "214, 150, 30", "error": "200, 69, 59"}


class Messages:
    """The panel's message; a new one takes the place of the old."""

    def __init__(self, ui: Any) -> None:
        self._label = ui.messageLabel

    def show(self, text: str, kind: Kind = "info") -> None:
        colour = COLOURS[kind]
        self._label.setStyleSheet(
            f"border-left: 4px solid rgb({colour}); background: rgba({colour}, 40); padding: 6px;"
        )
        self._label.text = text
        self._label.setVisible(bool(text))

    def clear(self) -> None:
        self.show("")
