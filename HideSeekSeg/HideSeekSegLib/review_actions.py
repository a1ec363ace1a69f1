"""What leaves the review: a missed lesion to Segment Editor, accepted findings to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.errors import InputError
from hideseekseg.findings import Evidence
from hideseekseg.output.review_export import EXPORTED, NoVoxelsError
from hideseekseg.review.review import Review
from hideseekseg.scene import views
from hideseekseg.scene.results import Results, SceneError
from hideseekseg.ui.review_session import ReviewSession
from hideseekseg.ui.texts import exported, not_kept

from .review_view import TYPES, ReviewPanel
from .status_bar import StatusBar


class EvidenceToggle:
    """Two buttons that stay down while their picture is shown instead of the CT.

    ``evidence`` gives what the method saw of a vertebra, or None where it is not kept.
    """

    def __init__(self, ui: Any, pane: ReviewPanel, messages: StatusBar) -> None:
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


class RemovedResults:
    """Keeps what was removed until something else takes its place."""

    def __init__(self, ui: Any, pane: ReviewPanel, messages: StatusBar) -> None:
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
        self._pane.show(ReviewSession(kept[0], results))
        self._pane.flush()
        text = _("“{name}” is back, with all verdicts.")
        self._messages.show(text.format(name=results.node.GetName()))


REVIEWER_KEY = "HideSeekSeg/reviewer"


class ReviewActions:
    """The buttons "Add missed lesion" and "Export"."""

    def __init__(self, ui: Any, pane: ReviewPanel, messages: StatusBar) -> None:
        self._ui, self._pane, self._messages = ui, pane, messages
        ui.missedButton.connect("clicked()", self.addMissed)
        ui.exportButton.connect("clicked()", self._chooseAndExport)
        ui.reviewerEdit.text = slicer.app.userSettings().value(REVIEWER_KEY) or ""
        ui.reviewerEdit.connect("editingFinished()", self._named)

    def addMissed(self) -> None:
        """An empty segment with the right name and terminology, ready to paint on."""
        review, results = self._pane.review, self._pane.results
        level = self._ui.missedLevel.currentText
        if review is None or results is None or not results.alive or not level:
            return
        identity = review.add_missed(level, TYPES[self._ui.missedType.currentIndex])
        self._pane.renew()
        self._pane.flush()
        self._pane.select(identity)
        text = _("Paint “{name}” in Segment Editor, then come back here: it counts as accepted.")
        self._messages.show(text.format(name=review.item(identity).name))
        _openEditor(results.node, results.ctNode, identity)

    def measure(self) -> None:
        """Size and place of the lesions that were drawn, as they are now."""
        if self._pane.work is not None and self._pane.work.measure():
            self._pane.renew()

    def export(self, folder: Path) -> bool:
        """Write the accepted findings to a folder; says what was written, or why not."""
        work = self._pane.work
        if work is None or not work.alive:
            return False
        self.measure()
        try:
            files = work.export(folder, self._ui.reviewerEdit.text.strip())
        except (InputError, NoVoxelsError) as error:
            self._messages.show(_("Nothing was exported: {error}.").format(error=error), "error")
            return False
        accepted = sum(item.verdict == "accepted" for item in work.review.items)
        names = ", ".join(file.name for file in files)
        self._messages.show(exported(accepted, str(folder), names))
        return True

    def _chooseAndExport(self) -> None:
        title = _("Folder for {files}").format(files=", ".join(EXPORTED))
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if folder:
            self.export(Path(folder))

    def _named(self) -> None:
        slicer.app.userSettings().setValue(REVIEWER_KEY, self._ui.reviewerEdit.text.strip())


def _openEditor(node: Any, ctNode: Any, segmentID: str) -> None:
    """Segment Editor on this segment, with the CT to paint on."""
    slicer.util.selectModule("SegmentEditor")
    module = getattr(slicer.modules, "segmenteditor", None)
    if module is None:
        return
    editor = module.widgetRepresentation().self().editor
    editor.setSegmentationNode(node)
    if ctNode is not None:
        editor.setSourceVolumeNode(ctNode)
    editor.setCurrentSegmentID(segmentID)
    editor.setActiveEffectByName("Paint")
