"""One line below the button says what happened and what to do; no window pops up."""

from __future__ import annotations

from typing import Any, Literal

from slicer.i18n import tr as _

from ..imaging.files import InputError
from ..review import Review

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


def told(error: InputError) -> str:
    """The error as a sentence's beginning, also where no file is at fault."""
    return str(error) if error.path else error.cause[:1].upper() + error.cause[1:]


def quietText(review: Review) -> str:
    """Vertebrae without a finding in one line, those that were not analysed in one each."""
    said = review.quiet()
    healthy = [level for level, text in said if text == "no finding"]
    lines = []
    if healthy:
        lines = [_("No finding: {levels}").format(levels=", ".join(healthy))]
    return "\n".join(
        [*lines, *(f"{level}: {text}" for level, text in said if level not in healthy)]
    )
