"""What leaves the review: a missed lesion to Segment Editor, accepted findings to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.output.review_export import EXPORTED
from hideseekseg.ui.review_controller import ReviewController

from .review_view import TYPES

REVIEWER_KEY = "HideSeekSeg/reviewer"


class ReviewActions:
    """The buttons "Add missed lesion" and "Export"."""

    def __init__(self, ui: Any, review: ReviewController) -> None:
        self._ui, self._review = ui, review
        self._editing: tuple[Any, int] | None = None
        ui.missedButton.connect("clicked()", self.addMissed)
        ui.exportButton.connect("clicked()", self._chooseAndExport)
        ui.reviewerEdit.text = slicer.app.userSettings().value(REVIEWER_KEY) or ""
        ui.reviewerEdit.connect("editingFinished()", self._named)

    def addMissed(self) -> None:
        """Open Segment Editor on an empty segment with the right name and terminology."""
        type = TYPES[self._ui.missedType.currentIndex]
        identity = self._review.add_missed(self._ui.missedLevel.currentText, type)
        results = self._review.results
        if identity and results is not None:
            self._openEditor(results.node, results.ctNode, identity)

    def finishEditing(self) -> None:
        """Give Segment Editor the overwrite mode back that its user had."""
        if self._editing is not None:
            node, before = self._editing
            if node.GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone:
                node.SetOverwriteMode(before)
        self._editing = None

    def export(self, folder: Path) -> bool:
        """Write the accepted findings to a folder; False, with a message, where none is."""
        return bool(self._review.export(folder, self._ui.reviewerEdit.text.strip()))

    def _chooseAndExport(self) -> None:
        title = _("Folder for {files}").format(files=", ".join(EXPORTED))
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if folder:
            self.export(Path(folder))

    def _named(self) -> None:
        slicer.app.userSettings().setValue(REVIEWER_KEY, self._ui.reviewerEdit.text.strip())

    def _openEditor(self, node: Any, ctNode: Any, segmentID: str) -> None:
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
        # By default, painting erases all other segments where it goes, hidden ones as well.
        settings = editor.mrmlSegmentEditorNode()
        if settings is not None:
            self._editing = settings, settings.GetOverwriteMode()
            settings.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        editor.setActiveEffectByName("Paint")
