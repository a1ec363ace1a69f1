"""One line below the button says what happened and what to do; no window pops up."""

from __future__ import annotations

from typing import Any, Literal

from hideseekseg.events import Progress
from hideseekseg.ui.texts import CANCEL, START, STARTING, STOPPING, progress

# What a run was started with stays as it was until it is over.
INPUTS = ("ctSelector", "segmentationSelector", "levelsTable", "conventionSelector")


class RunButton:
    """Which of the two it is, and how far the run has come."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._stopping = False

    def busy(self) -> None:
        """Show that a run has begun."""
        self._stopping = False
        self._show(running=True)
        self._ui.progressBar.value = 0
        self._ui.progressBar.setFormat(STARTING)

    def progress(self, event: Progress) -> None:
        """Show the current vertebra and the time left."""
        self._ui.progressBar.value = round(1000 * event.fraction)
        if not self._stopping:
            self._ui.progressBar.setFormat(progress(event))

    def stopping(self) -> None:
        """Cancel was pressed; the process may take a moment."""
        self._stopping = True
        self._ui.segmentButton.setEnabled(False)
        self._ui.progressBar.setFormat(STOPPING)

    def idle(self) -> None:
        """No run is going on; whether one can be started is not said by this."""
        self._show(running=False)

    def _show(self, running: bool) -> None:
        self._ui.segmentButton.text = CANCEL if running else START
        self._ui.progressBar.setVisible(running)
        self._ui.estimateLabel.setVisible(not running)
        for name in INPUTS:
            getattr(self._ui, name).setEnabled(not running)
        self._ui.advancedButton.setEnabled(not running)


Kind = Literal["info", "warning", "error"]
COLOURS = {"info": "70, 130, 180", "warning": "214, 150, 30", "error": "200, 69, 59"}


class StatusBar:
    """The panel's message; a new one takes the place of the old."""

    def __init__(self, ui: Any) -> None:
        self._label = ui.messageLabel

    @property
    def text(self) -> str:
        """Return what is shown now."""
        return str(self._label.text)

    def show(self, text: str, kind: Kind = "info") -> None:
        colour = COLOURS[kind]
        self._label.setStyleSheet(
            f"border-left: 4px solid rgb({colour}); background: rgba({colour}, 40); padding: 6px;"
        )
        self._label.text = text
        self._label.setVisible(bool(text))

    def clear(self) -> None:
        self.show("")
