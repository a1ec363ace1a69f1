"""What leaves the review: a missed lesion to Segment Editor, accepted findings to files."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.findings import LESION_TYPES
from hideseekseg.output.review_export import EXPORTED
from hideseekseg.scene.results import Results
from hideseekseg.scene.segments import addSurfaces, removeSurfaces
from hideseekseg.ui.documents import Document, DocumentKind, MakeJob, ReviewDocuments
from hideseekseg.ui.exports import ReviewExport
from hideseekseg.ui.review_controller import ReviewController

from .logic import temporaryFolder
from .qt_process import QtProcess

REVIEWER_KEY = "HideSeekSeg/reviewer"


class FaintVertebrae:
    """Faint surfaces of a review's vertebrae in 3D, made one at a time while Slicer is idle."""

    def __init__(self, parent: Any) -> None:
        self._timer = qt.QTimer(parent)
        self._timer.connect("timeout()", self._next)
        self._work: Iterator[Any] = iter(())
        self._node: Any = None

    def show(self, results: Results | None) -> None:
        """Show those of these results, where their segmentation is still in the scene."""
        node = results.segmentationNode if results is not None else None
        if results is None or node is None or node is self._node:
            return
        self.hide()
        self._node = node
        self._work = addSurfaces(node, results.levelRows())
        self._timer.start(20)

    def hide(self) -> None:
        """Remove them from the scene."""
        self._timer.stop()
        self._work, self._node = iter(()), None
        removeSurfaces()

    def _next(self) -> None:
        gone = self._node is None or self._node.GetScene() is None
        if gone or next(self._work, None) is None:
            self._timer.stop()


class ReviewActions:
    """The buttons "Add missed lesion", "Export", "Report" and "DICOM SEG"."""

    def __init__(self, ui: Any, review: ReviewController, makeJob: MakeJob = QtProcess) -> None:
        self._ui, self._review = ui, review
        self._exports = ReviewExport(review)
        self.documents = ReviewDocuments(review, makeJob, temporaryFolder)
        self._editing: tuple[Any, int] | None = None
        ui.missedButton.connect("clicked()", self.addMissed)
        ui.exportButton.connect("clicked()", self._chooseAndExport)
        ui.reportButton.connect("clicked()", self._report)
        ui.dicomSegButton.connect("clicked()", self._dicomSeg)
        ui.reviewerEdit.text = slicer.app.userSettings().value(REVIEWER_KEY) or ""
        ui.reviewerEdit.connect("editingFinished()", self._named)

    def addMissed(self) -> None:
        """Open Segment Editor on an empty segment with the right name and terminology."""
        type = LESION_TYPES[self._ui.missedType.currentIndex]
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
        """Write the accepted findings to a folder, after asking before others are replaced.

        False, with a message unless the answer was no, where nothing was written.
        """
        question, foreign = self._exports.replaced(folder)
        if question and not slicer.util.confirmOkCancelDisplay(question):
            return False
        reviewer = self._ui.reviewerEdit.text.strip()
        return bool(self._exports.write(folder, reviewer, foreign))

    def _chooseAndExport(self) -> None:
        title = _("Folder for {files}").format(files=", ".join(EXPORTED))
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if folder:
            self.export(Path(folder))

    def write(self, kind: DocumentKind, file: Path) -> None:
        """Begin to write a report or a DICOM SEG of the review; the panel says how it ends."""
        reviewer = self._ui.reviewerEdit.text.strip()
        self.documents.write(Document(kind, (file,), reviewer))

    def _report(self) -> None:
        self._ask("report", _("Report"), "report.html", "HTML (*.html);;PDF (*.pdf)")

    def _dicomSeg(self) -> None:
        if self.documents.writing or self._hasHighdicom():
            self._ask("seg", _("DICOM SEG"), "lesions.dcm", "DICOM (*.dcm)")

    def _ask(self, kind: DocumentKind, title: str, name: str, kinds: str) -> None:
        """Ask for a place and write there; while something is written: stop that."""
        if self.documents.writing:
            self.write(kind, Path())
            return
        window = slicer.util.mainWindow()
        file = qt.QFileDialog.getSaveFileName(window, title, name, kinds)
        if file:
            self.write(kind, Path(file))

    def _hasHighdicom(self) -> bool:
        """Return whether highdicom is there, which is installed once the user agrees."""
        if importlib.util.find_spec("highdicom") is not None:
            return True
        text = _(
            "DICOM SEG is written by the Python package highdicom. Install it into Slicer now?"
        )
        if not slicer.util.confirmOkCancelDisplay(text):
            return False
        try:
            with slicer.util.WaitCursor():
                slicer.util.pip_install("highdicom>=0.23")
        except Exception as error:  # of pip, in a process of its own
            text = _("highdicom cannot be installed: {error}.").format(error=error)
            self._review.say(text, "error")
            return False
        importlib.invalidate_caches()
        return importlib.util.find_spec("highdicom") is not None

    def _named(self) -> None:
        slicer.app.userSettings().setValue(REVIEWER_KEY, self._ui.reviewerEdit.text.strip())

    def _openEditor(self, node: Any, ctNode: Any, segmentID: str) -> None:
        """Segment Editor on this segment, with the CT to paint on, where this Slicer can show it.

        Elsewhere its user was asked to paint, and does so in whatever editor there is.
        """
        module = getattr(slicer.modules, "segmenteditor", None)
        if module is None or slicer.util.mainWindow() is None:
            return
        slicer.util.selectModule("SegmentEditor")
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
