"""Results that were removed from the scene, and the button that puts them back."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from hideseekseg.review.review import Review
from hideseekseg.scene.results import Results, SceneError
from hideseekseg.ui.review_session import AtWork

from .review_view import ReviewPane
from .status_bar import Messages


class Lost:
    """Keeps what was removed until something else takes its place."""

    def __init__(self, ui: Any, pane: ReviewPane, messages: Messages) -> None:
        self._button, self._pane, self._messages = ui.putBackButton, pane, messages
        self._kept: tuple[Review, Results] | None = None
        self._button.connect("clicked()", self._putBack)

    def keep(self, review: Review, results: Results) -> bool:
        """Offer to put them back; False where that cannot be done."""
        self._kept = (review, results) if results.canReturn else None
        self._button.setVisible(self._kept is not None)
        return self._kept is not None

    def forget(self) -> None:
        self._kept = None
        self._button.setVisible(False)

    def _putBack(self) -> None:
        kept = self._kept
        self.forget()
        if kept is None:
            return
        try:
            results = kept[1].recreated()
            results.apply(kept[0])  # before the review looks at what the segments say
        except SceneError as error:
            self._messages.show(str(error), "error")
            return
        self._pane.show(AtWork(kept[0], results))
        self._pane.flush()
        text = _("“{name}” is back, with all verdicts.")
        self._messages.show(text.format(name=results.node.GetName()))
