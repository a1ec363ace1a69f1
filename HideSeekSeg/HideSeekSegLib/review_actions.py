"""What leaves the review: a missed lesion to Segment Editor, accepted findings to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.imaging.reading import InputError
from hideseekseg.output.review_export import EXPORTED, NoVoxelsError
from hideseekseg.ui.texts import exported

from .review_view import TYPES, ReviewPane
from .status_bar import Messages

REVIEWER_KEY = "HideSeekSeg/reviewer"


class Handover:
    """The buttons "Add missed lesion" and "Export"."""

    def __init__(self, ui: Any, pane: ReviewPane, messages: Messages) -> None:
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
