"""Flicking between the CT and the method's own evidence: the healthy edit, and what changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hideseekseg.findings import Evidence
from hideseekseg.scene import views
from hideseekseg.ui.texts import not_kept

from .review_view import ReviewPane
from .status_bar import Messages


class Flick:
    """Two buttons that stay down while their picture is shown instead of the CT.

    ``evidence`` gives what the method saw of a vertebra, or None where it is not kept.
    """

    def __init__(self, ui: Any, pane: ReviewPane, messages: Messages) -> None:
        self._pane, self._messages = pane, messages
        self._buttons = ui.healthyButton, ui.differenceButton
        self.evidence: Callable[[str], Evidence | None] = lambda level: None
        self._level = ""
        self._changing = False
        for number, button in enumerate(self._buttons):
            button.connect("toggled(bool)", self._slot(number))
        pane.whenChosen(self.follow)
        self.follow()

    def follow(self) -> None:
        """Another finding was chosen: back to the CT where it is in another vertebra."""
        item = self._pane.current
        for button in self._buttons:
            button.setEnabled(item is not None)
        if self._level and (item is None or item.level != self._level):
            self._show(-1)

    def _slot(self, number: int) -> Callable[[bool], None]:
        def toggled(down: bool) -> None:
            if not self._changing:
                self._show(number if down else -1)

        return toggled

    def _show(self, number: int) -> None:
        """Show the edit (0), the difference (1) or the CT (-1)."""
        item, results = self._pane.current, self._pane.results
        node = None
        if number >= 0 and item is not None and results is not None and results.alive:
            evidence = self.evidence(item.level)
            if evidence is None:
                self._messages.show(not_kept(item.level), "warning")
            else:
                node = results.evidenceVolumes(evidence, item.level)[number]
        self._level = item.level if node is not None and item is not None else ""
        self._changing = True
        for n, button in enumerate(self._buttons):
            button.setChecked(node is not None and n == number)
        self._changing = False
        shown = node if node is not None or results is None else results.ctNode
        if shown is not None:
            views.showBackground(shown)
