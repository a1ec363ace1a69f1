"""The review in the panel: keys, buttons, slider and filters, and what the scene shows of it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from desktop import Desktop
from desktop.module_base import ctkDICOMDatabase
from helpers.dicom import write_series
from helpers.findings import make_ct, make_evidence, make_grid, make_result
from helpers.panel import Opened, add_review, open_panel
from helpers.scene import add_ct, image_of
from hideseekseg.findings import Status, VertebraFinding
from hideseekseg.imaging.reading import read_segmentation

GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
RESULT = make_result(GRID)
FLAGGED = "⚠ T10: cut by the field of view"
ROWS = [["T10", "blastic", "0.91"], ["T10", "lytic", "0.72"], ["L1", "lytic", "0.66"]]


@pytest.fixture
def opened(desktop: Desktop) -> Iterator[Opened]:
    """A review with three findings above the threshold and one below it."""
    ct = add_review(RESULT.vertebrae, GRID)
    with open_panel(desktop) as panel:
        panel.ui.ctSelector.setCurrentNode(ct)
        yield panel


def node_of(opened: Opened) -> Any:
    return opened.panel.review.results.node


def tag(opened: Opened, identity: str, name: str) -> str:
    import vtk

    opened.rest()
    value = vtk.reference("")
    node_of(opened).GetSegmentation().GetSegment(identity).GetTag(name, value)
    return str(value)


def visible(opened: Opened) -> list[str]:
    node = node_of(opened)
    names = node.GetSegmentation().GetSegmentIDs()
    return [name for name in names if node.GetDisplayNode().GetSegmentVisibility(name)]


def centre_of_views() -> list[list[float]]:
    import slicer

    views = [slicer.app.layoutManager().sliceWidget(n) for n in ("Red", "Yellow", "Green")]
    matrices = [view.mrmlSliceNode().GetSliceToRAS() for view in views]
    return [[m.GetElement(r, 3) for r in range(3)] for m in matrices]


def test_rows_are_sorted_by_score_and_the_best_is_shown_first(opened: Opened) -> None:
    assert [row[:3] for row in opened.rows()] == ROWS
    assert opened.ui.countsLabel.text == "3 of 4 shown"
    assert opened.row() == 0
    assert visible(opened) == ["T10-1"], "the chosen finding is not isolated"
    x, y, z = RESULT.vertebrae[0].candidates[0].centroid_lps
    for centre in centre_of_views():
        assert np.allclose(centre, (-x, -y, z), atol=0.01)


def test_ct_is_shown_in_a_bone_window(opened: Opened) -> None:
    display = opened.ui.ctSelector.currentNode().GetDisplayNode()
    assert display.GetWindow() > 1000


def test_quiet_vertebrae_are_listed(opened: Opened) -> None:
    assert opened.ui.quietLabel.text.splitlines() == [
        "Unremarkable: T11",
        "Not analysed (metal): T12",
        FLAGGED,
    ]


def test_vertebrae_whose_findings_were_rejected_are_listed_apart(opened: Opened) -> None:
    opened.ui.candidatesTable.selectRow(2)
    opened.key("X")
    assert opened.ui.quietLabel.text.splitlines() == [
        "Unremarkable: T11",
        "Not analysed (metal): T12",
        "Unremarkable, findings rejected: L1",
        FLAGGED,
    ]


def test_messages_of_the_last_run_go(opened: Opened) -> None:
    """With the next step of the review, and with another scan."""
    messages = opened.panel.messages
    messages.show("Done: 4 vertebrae, 2 with findings.")
    opened.key("N")
    assert opened.message == ""
    messages.show("Done: 4 vertebrae, 2 with findings.")
    opened.ui.thresholdSlider.value = 0.6
    assert opened.message == ""
    messages.show("Done: 4 vertebrae, 2 with findings.")
    opened.ui.ctSelector.setCurrentNode(add_review(RESULT.vertebrae[:1], GRID, "Another CT"))
    assert opened.message == ""
    assert opened.ui.quietLabel.text == FLAGGED, "nothing of the other scan"


def test_level_of_a_missed_lesion_stays_as_chosen(opened: Opened) -> None:
    box = opened.ui.missedLevel
    box.setCurrentIndex(box.findText("T11"))
    opened.panel.review.renew()
    opened.ui.thresholdSlider.value = 0.6
    assert box.currentText == "T11"


def test_missed_lesion_is_in_the_chosen_vertebra_with_findings_or_without(opened: Opened) -> None:
    box = opened.ui.missedLevel
    assert box.currentText == "T10"
    opened.key("Shift+N")
    assert opened.ui.detailLabel.text.startswith("T11: unremarkable")
    assert box.currentText == "T11"
    opened.key("M")
    assert node_of(opened).GetSegmentation().GetSegment("T11-added-1") is not None


def test_vertebra_of_a_review_is_not_run_again_on_another_ct(opened: Opened) -> None:
    opened.ui.ctSelector.setCurrentNode(add_ct(make_ct(GRID).array, GRID.ijk_to_lps, "Other"))
    assert [row[:3] for row in opened.rows()] == ROWS, "the review of the first CT stays open"
    opened.ui.rerunButton.click()
    assert opened.message.startswith("This review is of “CT”: choose that as the CT")
    assert not opened.panel.running


def test_review_says_whose_it_is_where_another_ct_is_chosen(opened: Opened) -> None:
    """Its keys and its export stay those of its own CT, which nothing in the list tells."""
    own, title = opened.ui.ctSelector.currentNode(), opened.ui.reviewButton
    assert (title.text, opened.message) == ("Review of “CT”", "")
    opened.ui.ctSelector.setCurrentNode(add_ct(make_ct(GRID).array, GRID.ijk_to_lps, "Other"))
    assert title.text == "Review of “CT”, not of “Other”"
    assert opened.message.startswith("“Other” has no review yet: what is listed is of “CT”")
    opened.key("A")
    assert (title.text, opened.message) == ("Review of “CT”, not of “Other”", "")
    opened.ui.ctSelector.setCurrentNode(own)
    assert (title.text, opened.message) == ("Review of “CT”", "")
    opened.ui.ctSelector.setCurrentNode(add_review(RESULT.vertebrae[:1], GRID, "Third"))
    assert (title.text, opened.message) == ("Review of “Third”", "")


def test_keys_judge_and_move_on(opened: Opened) -> None:
    opened.key("A")
    assert opened.row() == 1
    opened.key("X")
    assert opened.row() == 2
    assert [row[5] for row in opened.rows()] == ["✓ accepted", "✗ rejected", "to review"]
    assert tag(opened, "T10-1", "Segmentation.Status") == "completed"
    assert tag(opened, "T10-2", "Segmentation.Status") == "flagged"
    assert "1 accepted, 1 to review" in opened.ui.summaryLabel.text


def test_held_key_judges_one_finding(opened: Opened) -> None:
    """The next one was not looked at yet; to step through findings, a key may be held."""
    from PySide6.QtGui import QShortcut

    keys = opened.desktop.window.findChildren(QShortcut)
    found = {each.key.toString(): each.property("autoRepeat") for each in keys}
    assert not any(found[key] for key in "AXKLME")
    assert found["N"] and found["Shift+N"] and found["U"]


@pytest.mark.parametrize("name", ["acceptButton", "uncertainButton", "rejectButton"])
def test_double_click_judges_one_finding(opened: Opened, name: str) -> None:
    double_click(opened, name)
    assert opened.row() == 1, "nobody has looked at the second one yet"
    assert [row[5] for row in opened.rows()][1:] == ["to review", "to review"]
    for _ in range(2):  # each of them alone
        click(opened, name)
    assert "to review" not in [row[5] for row in opened.rows()]


def test_double_click_switches_the_type_once_and_steps_twice(opened: Opened) -> None:
    double_click(opened, "switchTypeButton")
    assert opened.rows()[0][1] == "lytic"
    double_click(opened, "nextButton")
    assert opened.row() == 2


def click(opened: Opened, name: str, gesture: str = "mouseClick") -> None:
    """Press a button in the window that holds it, where Qt tells a double click from two."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    button = getattr(opened.ui, name)
    window, middle = button.window(), button.rect.center()
    where = button.mapTo(window, middle)
    getattr(QTest, gesture)(
        window.windowHandle(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, where
    )
    opened.desktop.settle()


def double_click(opened: Opened, name: str) -> None:
    click(opened, name, "mouseDClick")


def test_wheel_and_arrows_over_the_reasons_reject_nothing(opened: Opened) -> None:
    from PySide6.QtCore import QPoint, QPointF, Qt
    from PySide6.QtGui import QWheelEvent
    from PySide6.QtWidgets import QApplication

    button, turn, none = opened.ui.reasonButton, QPoint(0, -120), Qt.MouseButton.NoButton
    rest = (Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False)
    QApplication.sendEvent(
        button, QWheelEvent(QPointF(5, 5), QPointF(5, 5), turn, turn, none, *rest)
    )
    button.setFocus()
    for key in ("Down", "H"):
        opened.desktop.key(button, key)
    assert {row[5] for row in opened.rows()} == {"to review"}
    button.menu().actions()[1].trigger()
    assert opened.rows()[0][5] == "✗ rejected (haemangioma)"


def test_undo_and_redo_go_back_to_the_finding(opened: Opened) -> None:
    opened.key("A")
    opened.key("X")
    opened.key("U")
    assert opened.row() == 1
    assert [row[5] for row in opened.rows()] == ["✓ accepted", "to review", "to review"]
    opened.key("U")
    assert opened.row() == 0
    assert tag(opened, "T10-1", "Segmentation.Status") == "notstarted"
    opened.key("Shift+U")
    assert opened.rows()[0][5] == "✓ accepted"
    assert not opened.ui.acceptButton.isDown()


def test_next_and_previous_walk_over_what_is_shown(opened: Opened) -> None:
    opened.key("N")
    opened.key("N")
    assert opened.row() == 2
    opened.key("N")
    assert opened.row() == 2, "there is nothing after the last"
    opened.key("P")
    assert opened.row() == 1


def test_the_type_is_switched_and_the_name_follows(opened: Opened) -> None:
    opened.key("L")
    assert opened.rows()[0][1] == "lytic"
    opened.rest()
    segment = node_of(opened).GetSegmentation().GetSegment("T10-1")
    assert "lytic" in segment.GetName()
    opened.key("U")
    assert opened.rows()[0][1] == "blastic"


def test_slider_shows_more_or_less_and_spares_verdicts(opened: Opened) -> None:
    opened.key("A")
    opened.ui.thresholdSlider.value = 0.95
    assert [row[5] for row in opened.rows()] == ["✓ accepted"]
    assert opened.ui.countsLabel.text == "1 of 4 shown"
    opened.ui.thresholdSlider.value = 0.1
    assert opened.ui.countsLabel.text == "4 of 4 shown"
    assert "T11" in opened.ui.quietLabel.text
    opened.key("U")
    assert opened.ui.thresholdSlider.value == pytest.approx(0.5), "a drag is one step"
    assert opened.ui.countsLabel.text == "3 of 4 shown"


def test_the_scene_follows_the_slider_when_it_rests(opened: Opened, desktop: Desktop) -> None:
    opened.ui.candidatesTable.clearSelection()
    assert sorted(visible(opened)) == ["L1-1", "T10-1", "T10-2"]
    opened.ui.thresholdSlider.value = 0.7
    desktop.wait(lambda: sorted(visible(opened)) == ["T10-1", "T10-2"], 3)


def test_filters(opened: Opened) -> None:
    ui = opened.ui
    ui.levelFilter.setCurrentIndex(ui.levelFilter.findText("L1"))
    assert [row[:3] for row in opened.rows()] == ROWS[2:]
    assert ui.countsLabel.text == "1 of 4 shown"
    ui.levelFilter.setCurrentIndex(0)
    ui.typeFilter.setCurrentIndex(ui.typeFilter.findText("blastic"))
    assert [row[:3] for row in opened.rows()] == ROWS[:1]
    ui.typeFilter.setCurrentIndex(0)
    opened.ui.candidatesTable.selectRow(2)
    opened.key("X")
    ui.verdictFilter.setCurrentIndex(ui.verdictFilter.findText("✗ rejected"))
    assert [row[:3] for row in opened.rows()] == ROWS[2:]


def test_a_comment_is_typed_without_pressing_keys_of_the_review(
    opened: Opened, desktop: Desktop
) -> None:
    opened.key("C")
    for letter in "anx":
        desktop.key(desktop.app.focusWidget(), letter)
    desktop.key(opened.ui.commentEdit, "Return")
    assert opened.ui.commentEdit.text == "anx"
    assert opened.rows()[0][5] == "to review ✎"
    assert opened.row() == 0
    assert tag(opened, "T10-1", "HideSeekSeg.Comment") == "anx"


@pytest.mark.parametrize("then", ["A", "slider", "row", "vertebra", "undo", "end", "new"])
def test_a_half_typed_comment_is_kept(opened: Opened, then: str) -> None:
    """Also where the field keeps the focus, as on a Mac, where buttons do not take it."""
    import qt

    edit, controller = opened.ui.commentEdit, opened.panel.review
    review = controller.review
    opened.ui.acceptButton.setFocusPolicy(qt.Qt.NoFocus)
    controller.begin()
    opened.key("C")
    for letter in "bone":
        opened.desktop.key(edit, letter)
    if then == "A":
        opened.ui.acceptButton.click()
    elif then == "slider":
        opened.ui.thresholdSlider.value = 0.2
    elif then == "row":
        opened.ui.candidatesTable.selectRow(1)
    elif then == "undo":
        opened.ui.undoButton.click()
    elif then == "end":
        controller.settle()
        assert edit.text == "bone" and opened.row() == 0
    elif then == "new":
        controller.clear()
    else:
        controller.renew()
        assert edit.text == "bone", "the field was overwritten while it was typed in"
        return
    first = review.item("T10-1")
    assert first.comment == ("" if then == "undo" else "bone")


def test_a_half_typed_comment_stays_with_its_ct_where_another_is_chosen(opened: Opened) -> None:
    """Findings of the other one have the same ids."""
    first, ui = opened.panel.review.review, opened.ui
    opened.panel.review.begin()
    opened.key("C")
    for letter in "bone":
        opened.desktop.key(ui.commentEdit, letter)
    before = ui.ctSelector.currentNode()
    ui.ctSelector.setCurrentNode(add_review(RESULT.vertebrae, GRID, "the next one"))
    second = opened.panel.review.review
    assert second is not first and ui.commentEdit.text == ""
    assert not any(item.comment for item in second.items)
    ui.ctSelector.setCurrentNode(before)
    assert tag(opened, "T10-1", "HideSeekSeg.Comment") == ui.commentEdit.text == "bone"


@pytest.mark.parametrize("key", ["Return", "Enter", "Escape"])
@pytest.mark.parametrize("field", ["commentEdit", "thresholdSlider"])
def test_keys_are_the_reviews_again_after_typing(opened: Opened, field: str, key: str) -> None:
    widget = getattr(opened.ui, field)
    target = widget if field == "commentEdit" else widget._box
    target.setFocus()
    opened.desktop.key(target, "5")
    opened.desktop.key(target, key)
    focus = opened.desktop.app.focusWidget()
    assert focus is opened.ui.candidatesTable
    opened.desktop.key(focus, "A")
    assert opened.rows()[0][5].startswith("✓ accepted")


def test_outlines_are_hidden_and_shown(opened: Opened) -> None:
    opened.key("O")
    assert not node_of(opened).GetDisplayNode().GetVisibility()
    opened.key("O")
    assert node_of(opened).GetDisplayNode().GetVisibility()


def test_flick_to_the_healthy_edit_and_back(opened: Opened) -> None:
    import slicer

    evidence = make_evidence(make_ct_volume(), RESULT)
    for level, seen in evidence.items():
        opened.panel.review.results.kept.put(level, seen)
    opened.panel.review.results.kept.save()
    opened.panel.review.renew()
    view = slicer.app.layoutManager().sliceWidget("Yellow").sliceLogic().GetSliceCompositeNode()
    opened.key("H")
    assert opened.ui.healthyButton.checked
    shown = slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID())
    assert "T10 healthy edit" in shown.GetName()
    opened.key("D")
    assert not opened.ui.healthyButton.checked
    shown = slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID())
    assert "T10 difference" in shown.GetName()
    opened.key("D")
    assert not view.GetForegroundVolumeID()
    opened.key("H")
    opened.ui.candidatesTable.selectRow(2)
    assert not opened.ui.healthyButton.checked, "another vertebra, and still the old picture"
    assert not view.GetForegroundVolumeID()


def test_another_scene_that_is_imported_leaves_the_open_review(opened: Opened) -> None:
    import slicer

    for level, seen in make_evidence(make_ct_volume(), RESULT).items():
        opened.panel.review.results.kept.put(level, seen)
    opened.panel.review.results.kept.save()
    opened.key("N")
    opened.key("H")
    slicer.mrmlScene.InvokeEvent(slicer.vtkMRMLScene.EndImportEvent)
    assert opened.ui.healthyButton.checked
    assert opened.row() == 1


def make_ct_volume() -> Any:
    from helpers.findings import make_ct

    return make_ct(GRID)


def test_a_healthy_edit_that_was_not_kept_is_explained(opened: Opened) -> None:
    opened.key("H")
    assert "was not kept" in opened.message
    assert not opened.ui.healthyButton.checked


def test_missed_lesion_goes_to_segment_editor_and_counts(opened: Opened, tmp_path: Path) -> None:
    ui = opened.ui
    ui.missedLevel.setCurrentIndex(ui.missedLevel.findText("T11"))
    ui.missedType.setCurrentIndex(1)
    opened.key("M")  # which takes the keys away, its own as well
    assert opened.desktop.selected == ["SegmentEditor"]
    assert not opened.panel.keys.installed
    identity = "T11-added-1"
    assert "14799000" in tag(opened, identity, "TerminologyEntry")
    assert opened.rows()[-1][:3] == ["T11", "blastic", "added"]
    assert not opened.panel.handover.export(tmp_path)
    assert "nothing is drawn" in opened.message
    draw(opened, identity)
    opened.panel.enter()
    assert float(opened.rows()[-1][4]) == pytest.approx(27 * GRID.voxel_mm3 / 1000, abs=0.01)
    assert opened.panel.handover.export(tmp_path)
    with (tmp_path / "accepted.csv").open(encoding="utf-8") as file:
        assert [row["id"] for row in csv.DictReader(file)] == [identity]


def test_missed_lesion_is_added_where_segment_editor_cannot_be_shown(opened: Opened) -> None:
    """As in a Slicer without its main window."""
    window = opened.desktop.window
    window.setObjectName("another window")
    try:
        opened.panel.handover.addMissed()
    finally:
        window.setObjectName("qSlicerMainWindow")
    assert opened.rows()[-1][2] == "added"
    assert opened.message.startswith("Paint “")
    assert opened.desktop.selected == []
    assert opened.panel.keys.installed, "no other module was opened"


def test_heading_names_a_ct_as_it_is_called(opened: Opened) -> None:
    """A button underlines the letter behind a "&", and takes Alt with it as a key."""
    import slicer

    ct = opened.ui.ctSelector.currentNode()
    ct.SetName("Thorax & Abdomen")
    slicer.app.processEvents()
    opened.panel.enter()
    assert opened.ui.reviewButton.text == "Review of “Thorax && Abdomen”"


def test_painting_a_missed_lesion_spares_all_others(opened: Opened) -> None:
    """By default Segment Editor erases what it paints over, of hidden segments as well."""
    import slicer
    import slicer.util

    node = node_of(opened)
    ct = opened.ui.ctSelector.currentNode()
    editor = slicer.modules.segmenteditor.editor
    settings = editor.mrmlSegmentEditorNode()
    assert settings.GetOverwriteMode() == settings.OverwriteAllSegments
    names = ("T10-1", "T10-2", "L1-1")
    before = {n: voxels(node, n, ct) for n in names}
    opened.key("M")
    editor.paint(image_of(np.ones(GRID.shape, bool), GRID.ijk_to_lps))
    [added] = [n for n in node.GetSegmentation().GetSegmentIDs() if n not in (*names, "T10-3")]
    assert voxels(node, added, ct) == np.prod(GRID.shape)
    assert {n: voxels(node, n, ct) for n in names} == before
    opened.panel.exit()
    opened.panel.enter()
    assert settings.GetOverwriteMode() == settings.OverwriteAllSegments, "the user's own choice"


def voxels(node: Any, identity: str, ct: Any) -> int:
    import slicer.util

    return int(slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, ct).sum())


def draw(opened: Opened, identity: str) -> None:
    """A cube of 27 voxels, as a brush would leave it."""
    import slicer.util

    array = np.zeros(GRID.shape, np.uint8)
    array[30:33, 20:23, 20:23] = 1
    ct = opened.ui.ctSelector.currentNode()
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node_of(opened), identity, ct)


@pytest.fixture
def of_dicom(desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """The review of a CT that Slicer loaded from its DICOM database, with evidence of two levels.

    The children are real processes.
    """
    import slicer

    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    made = make_ct(GRID)
    whole = replace(made, array=np.clip(np.rint(made.array), -1000, 3000).astype(np.int16))
    folder = write_series(tmp_path / "a", whole)
    (tmp_path / "b").mkdir()
    files = {}
    for n, file in enumerate(sorted(folder.iterdir())):
        place = tmp_path / ("a" if n % 2 else "b") / file.name
        uid = str(pydicom.dcmread(file).SOPInstanceUID)
        files[uid] = file.rename(place)
    monkeypatch.setattr(slicer, "dicomDatabase", ctkDICOMDatabase(files), raising=False)
    result = make_result(GRID)
    evidence = make_evidence(whole, result)
    ct = add_ct(whole.array, GRID.ijk_to_lps, "CT")
    ct.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    add_review(result.vertebrae, GRID, ct=ct, evidence=evidence)
    with open_panel(desktop, program=sys.executable) as panel:
        panel.ui.ctSelector.setCurrentNode(ct)
        yield panel


def written(opened: Opened, file: Path) -> str:
    """Choose this file, and return what the panel says once it is written, or is not."""
    documents = opened.panel.handover.documents
    if documents.writing:
        opened.desktop.wait(lambda: not documents.writing, 60)
    opened.desktop.settle()
    return opened.message


def test_report_and_dicom_seg_of_a_ct_from_slicers_database(
    of_dicom: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, ui = of_dicom, of_dicom.ui
    ui.reviewerEdit.text = "Ada Löwe"
    ui.dicomSegButton.click()
    assert opened.message == "", "no place was chosen"
    opened.desktop.paths.append(str(tmp_path / "seg.dcm"))
    ui.dicomSegButton.click()
    assert "none is accepted" in opened.message and not opened.panel.handover.documents.writing

    opened.key("A")
    opened.desktop.paths.append(str(tmp_path / "seg.dcm"))
    ui.dicomSegButton.click()
    assert "Writing the DICOM SEG" in opened.message
    assert written(opened, tmp_path / "seg.dcm") == f"Wrote {tmp_path / 'seg.dcm'}."
    segmentation = read_segmentation(tmp_path / "seg.dcm")
    assert [segment.name for segment in segmentation.segments] == ["T10 blastic 1"]
    patch = RESULT.vertebrae[0].candidates[0].patch
    assert patch is not None
    assert int(segmentation.mask(segmentation.segments[0]).sum()) == int(patch.array.sum())

    heard: list[str] = []
    say = opened.panel.review.say

    def listen(text: str, kind: Any = "info") -> None:
        heard.append(text)
        say(text, kind)

    monkeypatch.setattr(opened.panel.review, "say", listen)
    opened.desktop.paths.append(str(tmp_path / "report.html"))
    ui.reportButton.click()
    opened.key("N")  # the reader goes on meanwhile
    assert opened.row() == 2, "the window did not answer"
    assert written(opened, tmp_path / "report.html") == f"Wrote {tmp_path / 'report.html'}."
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "Reviewed by Ada Löwe" in text and text.count("<figure>") == 1
    shares = [int(x) for text in heard for x in re.findall(r"Writing the report… (\d+) %", text)]
    assert len(shares) > 2 and shares == sorted({*shares}), "how far it was, in tenths"

    opened.desktop.paths.append(str(tmp_path / "report.pdf"))
    ui.reportButton.click()
    ui.reportButton.click()
    assert opened.message == "Stopped: nothing was written."
    assert not (tmp_path / "report.pdf").exists()
    import slicer

    assert not list(Path(slicer.app.temporaryPath).glob("hideseekseg-*")), "a copy was left"


def test_dicom_seg_without_dicom_files_says_so(of_dicom: Opened, tmp_path: Path) -> None:
    import slicer

    opened = of_dicom
    opened.key("A")
    slicer.dicomDatabase.isOpen = False
    opened.panel.handover.write("seg", tmp_path / "seg.dcm")
    assert "this CT was not read from DICOM" in opened.message
    slicer.dicomDatabase.isOpen = True
    ct = opened.ui.ctSelector.currentNode()
    array = slicer.util.arrayFromVolume(ct)
    array[0, 0, 0] += 1  # as after smoothing the volume: it is not the series any more
    slicer.util.arrayFromVolumeModified(ct)
    opened.panel.handover.write("seg", tmp_path / "seg.dcm")
    assert "is another scan" in written(opened, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_export_by_its_key(opened: Opened, tmp_path: Path) -> None:
    opened.ui.reviewerEdit.text = "Ada Löwe"
    opened.key("A")
    opened.key("X")
    folder = tmp_path / "für die Besprechung"
    opened.desktop.paths.append(str(folder))
    opened.key("E")
    assert opened.message.startswith("Exported 1 accepted finding to")
    data = json.loads((folder / "review.json").read_text("utf-8"))
    assert data["reviewer"] == "Ada Löwe"
    assert data["run"]["weights_hash"] == "0123456789abcdef" * 4
    segments = read_segmentation(folder / "accepted.seg.nrrd").segments
    assert [segment.name for segment in segments] == ["T10 blastic 1"]
    assert "14799000" in segments[0].terminology


def test_export_asks_before_it_replaces_a_review(opened: Opened, tmp_path: Path) -> None:
    """That of another reader, not the one that was exported here before."""
    desktop, ui = opened.desktop, opened.ui
    desktop.paths.extend([str(tmp_path)] * 5)

    def reader() -> str:
        return str(json.loads((tmp_path / "review.json").read_text("utf-8"))["reviewer"])

    ui.reviewerEdit.text = "Ada Löwe"
    opened.key("A")
    for _ in range(2):
        opened.key("E")
    assert desktop.messages == [] and reader() == "Ada Löwe"
    said = json.loads((tmp_path / "review.json").read_text("utf-8"))
    said["reviewer"] = "Bea Katz"
    before = tmp_path.with_name("before")
    (tmp_path / "review.json").write_text(json.dumps(said), "utf-8")
    shutil.copytree(tmp_path, before)
    desktop.answers.append(False)
    opened.key("E")
    [question] = desktop.messages
    assert "contains the review by Bea Katz of 20" in question and "Replace it?" in question
    assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == {
        x.name: x.read_bytes() for x in before.iterdir()
    }
    opened.key("E")
    assert len(desktop.messages) == 2 and reader() == "Ada Löwe"
    said["run"]["scan"] = {"name": "other", "sha256": "f" * 64}
    (tmp_path / "review.json").write_text(json.dumps(said), "utf-8")
    desktop.answers.append(False)
    opened.key("E")
    assert "contains the result of another scan (other [ffffffff])" in desktop.messages[-1]
    assert reader() == "Bea Katz"


def test_nothing_is_lost_where_the_export_cannot_be_written(opened: Opened, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    opened.key("A")
    assert not opened.panel.handover.export(blocked)
    assert opened.message.startswith("Nothing was exported")
    assert opened.rows()[0][5] == "✓ accepted"


def test_a_saved_scene_comes_back_with_verdicts_threshold_and_undo(
    desktop: Desktop, tmp_path: Path
) -> None:
    import slicer

    from hideseekseg.scene.review_storage import restore

    ct = add_review(RESULT.vertebrae, GRID)
    file = tmp_path / "scene.mrb"
    with open_panel(desktop) as opened:
        opened.ui.ctSelector.setCurrentNode(ct)
        opened.key("A")
        opened.ui.thresholdSlider.value = 0.2
        node = node_of(opened)
        desktop.wait(lambda: (kept := restore(node)) and kept.threshold == 0.2, 3)
        assert slicer.mrmlScene.WriteToMRB(str(file))
    slicer.mrmlScene.Clear(False)
    with open_panel(desktop) as opened:
        assert not opened.ui.reviewButton.visible
        slicer.mrmlScene.SetURL(str(file))
        assert slicer.mrmlScene.ReadFromMRB(str(file), True)
        assert opened.ui.reviewButton.visible
        assert [row[5] for row in opened.rows()] == ["✓ accepted", *["to review"] * 3]
        assert opened.ui.thresholdSlider.value == pytest.approx(0.2)
        opened.key("U")
        opened.key("U")
        assert [row[5] for row in opened.rows()] == ["to review"] * 3


def test_keys_are_free_again_when_the_module_is_left(opened: Opened) -> None:
    opened.panel.exit()
    opened.key("A")
    assert opened.rows()[0][5] == "to review"
    opened.panel.enter()
    opened.key("A")
    assert opened.rows()[0][5] == "✓ accepted"


def leave(opened: Opened, scene: Path | None) -> None:
    """Leave the module; where a file is given, once more after the scene was saved and read."""
    import slicer

    opened.panel.exit()
    if scene is not None:
        assert slicer.mrmlScene.WriteToMRB(str(scene))
        slicer.mrmlScene.Clear(0)
        assert slicer.mrmlScene.ReadFromMRB(str(scene))
        opened.panel.enter()
        opened.panel.exit()


@pytest.mark.parametrize("saved", [False, True])
def test_verdict_of_a_segment_stays_when_another_of_its_image_is_drawn(
    opened: Opened, saved: bool, tmp_path: Path
) -> None:
    """In a scene that was saved, segments share images: a change is not that of each of them."""
    import slicer

    leave(opened, tmp_path / "scene.mrb" if saved else None)
    node = node_of(opened)
    segmentation, ct = node.GetSegmentation(), slicer.util.getNode("CT")
    layers = [segmentation.GetLayerIndex(name) for name in ("T10-1", "L1-1")]
    assert (layers[0] == layers[1]) == saved, "this Slicer keeps other segments in one image"
    stroke = voxels(node, "T10-1", ct)
    editor = slicer.modules.segmenteditor.editor
    editor.setSegmentationNode(node)
    editor.setCurrentSegmentID("T10-1")
    editor.setActiveEffectByName("Paint")
    mask = np.zeros(GRID.shape, bool)
    mask[2:5, 2:5, 2:5] = True
    editor.paint(image_of(mask, GRID.ijk_to_lps))
    assert voxels(node, "T10-1", ct) == stroke + 27
    for identity, status in (("T10-2", "flagged"), ("L1-1", "inprogress")):
        segmentation.GetSegment(identity).SetTag("Segmentation.Status", status)
    opened.panel.enter()
    assert [row[5] for row in opened.rows()] == ["to review", "✗ rejected", "? uncertain"]
    assert tag(opened, "T10-1", "Segmentation.Status") == "notstarted"
    assert tag(opened, "L1-1", "Segmentation.Status") == "inprogress"
    opened.panel.exit()
    for name in ("T10-1", "T10-2"):  # nothing moves, as a stroke that was taken back
        segmentation.GetSegment(name).GetRepresentation("Binary labelmap").Modified()
    opened.panel.enter()
    assert [row[5] for row in opened.rows()] == ["to review", "✗ rejected", "? uncertain"]


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("beside", ["nothing", "flagged", "in progress"])
def test_stroke_that_was_taken_back_is_no_verdict(
    opened: Opened, saved: bool, beside: str, tmp_path: Path
) -> None:
    """Slicer's editor says "in progress" all the same, also where segments share an image."""

    leave(opened, tmp_path / "scene.mrb" if saved else None)
    segmentation = node_of(opened).GetSegmentation()
    stroke_taken_back(opened, "T10-1")
    assert tag(opened, "T10-1", "Segmentation.Status") == "inprogress"
    other, status = "to review", {"flagged": "flagged", "in progress": "inprogress"}.get(beside)
    if status is not None:
        segmentation.GetSegment("L1-1").SetTag("Segmentation.Status", status)
        other = "✗ rejected" if beside == "flagged" else "? uncertain"
    opened.panel.enter()
    # Of two in one image, nobody can tell which was said: both are kept, and the reader is told.
    both = saved and beside == "in progress"
    names = ["T10 blastic 1"] if both else []
    if beside != "nothing":
        names.append("L1 lytic 1")
    assert bool(names) == opened.message.startswith("From the status of")
    assert all(f"“{name}” {other}" in opened.message for name in names)
    assert [row[5] for row in opened.rows()] == [
        *("? uncertain" if both else "to review", "to review", other)
    ]
    kept = "inprogress" if both else "notstarted"
    assert tag(opened, "T10-1", "Segmentation.Status") == kept


def stroke_taken_back(opened: Opened, name: str) -> None:
    """Paint where nothing comes of it."""
    import slicer

    editor = slicer.modules.segmenteditor.editor
    editor.setSegmentationNode(node_of(opened))
    editor.setCurrentSegmentID(name)
    editor.setActiveEffectByName("Paint")
    settings = editor.mrmlSegmentEditorNode()
    settings.SetOverwriteMode(settings.OverwriteNone)
    editor.paint(image_of(np.zeros(GRID.shape, bool), GRID.ijk_to_lps))


def test_results_that_are_removed_end_the_review(opened: Opened) -> None:
    import slicer

    slicer.mrmlScene.RemoveNode(node_of(opened))
    assert not opened.ui.reviewButton.visible
    assert not opened.ui.putBackButton.visible, "nobody has these outlines any more"
    assert "removed" in opened.message
    opened.key("A")


def test_results_of_this_session_are_put_back_with_all_verdicts(opened: Opened) -> None:
    import slicer

    panel = opened.panel
    for finding in RESULT.vertebrae:
        panel.review.results.addVertebra(finding)
    opened.key("A")
    slicer.mrmlScene.RemoveNode(node_of(opened))
    assert opened.ui.putBackButton.visible
    opened.ui.putBackButton.click()
    assert opened.message.endswith("is back, with all verdicts.")
    assert not opened.ui.putBackButton.visible
    assert [row[5] for row in opened.rows()] == ["✓ accepted", "to review", "to review"]
    assert tag(opened, "T10-1", "Segmentation.Status") == "completed"


def test_a_status_set_in_slicers_own_table_is_a_verdict(opened: Opened) -> None:
    opened.panel.exit()
    segmentation = node_of(opened).GetSegmentation()
    for identity, status in (("T10-2", "flagged"), ("L1-1", "inprogress")):
        segmentation.GetSegment(identity).SetTag("Segmentation.Status", status)
    opened.panel.enter()
    assert [row[5] for row in opened.rows()] == ["to review", "✗ rejected", "? uncertain"]
    opened.key("U")
    opened.key("U")
    assert tag(opened, "T10-2", "Segmentation.Status") == "notstarted"


@pytest.mark.parametrize("ends", ["drawn", "taken back", "saved scene"])
def test_a_corrected_outline_is_no_verdict(opened: Opened, ends: str) -> None:
    """Slicer's editor says "in progress" of a segment that it changes, and nobody has judged."""
    import slicer

    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import restore
    from hideseekseg.ui.review_session import ReviewSession

    node, editor = node_of(opened), slicer.modules.segmenteditor.editor
    ct = opened.ui.ctSelector.currentNode()
    opened.key("A")
    opened.panel.exit()
    before = {name: voxels(node, name, ct) for name in ("T10-1", "T10-2")}
    for name in before:
        editor.setSegmentationNode(node)
        editor.setCurrentSegmentID(name)
        editor.setActiveEffectByName("Paint")
        editor.mrmlSegmentEditorNode().SetOverwriteMode(
            editor.mrmlSegmentEditorNode().OverwriteNone
        )
        stroke = np.zeros(GRID.shape, bool)
        stroke[30:33, 20:23, 20:23] = ends != "taken back"
        editor.paint(image_of(stroke, GRID.ijk_to_lps))
        if ends != "taken back":
            assert voxels(node, name, ct) > before[name]
    node.GetSegmentation().GetSegment("L1-1").SetTag("Segmentation.Status", "inprogress")
    assert tag(opened, "T10-2", "Segmentation.Status") == "inprogress"
    if ends == "saved scene":
        stored = restore(node)
        assert stored is not None
        opened.panel.review.show(ReviewSession(stored, Results.of(node)))
    opened.panel.enter()
    assert [row[5] for row in opened.rows()] == ["✓ accepted", "to review", "? uncertain"]
    assert tag(opened, "T10-2", "Segmentation.Status") == "notstarted"
    wanted = voxels(node, "T10-2", ct) * GRID.voxel_mm3 / 1000
    assert float(opened.rows()[1][4]) == pytest.approx(wanted, abs=0.006)


def test_each_ct_has_its_own_review(opened: Opened) -> None:
    opened.key("A")
    first = opened.ui.ctSelector.currentNode()
    other = add_review(RESULT.vertebrae[3:], GRID, "Other")
    opened.ui.ctSelector.setCurrentNode(other)
    assert [row[:3] for row in opened.rows()] == ROWS[2:]
    opened.ui.ctSelector.setCurrentNode(first)
    assert [row[5] for row in opened.rows()] == ["✓ accepted", "to review", "to review"]


def test_five_hundred_candidates_follow_the_slider(desktop: Desktop) -> None:
    many = tuple(many_candidates(500))
    ct = add_review(many, GRID)
    with open_panel(desktop) as opened:
        opened.ui.ctSelector.setCurrentNode(ct)
        assert opened.ui.countsLabel.text == "250 of 500 shown"
        seconds = []
        for value in np.linspace(0.1, 0.9, 15):
            began = time.perf_counter()
            opened.ui.thresholdSlider.value = float(value)
            seconds.append(time.perf_counter() - began)
        assert opened.ui.countsLabel.text == "50 of 500 shown"
        assert min(seconds) < 0.05
        assert float(np.median(seconds)) < 0.05


def many_candidates(count: int) -> Iterator[VertebraFinding]:
    """Scores from 0 to 1, spread over 20 vertebrae."""
    pattern = RESULT.vertebrae[3].candidates[0]
    levels = [f"T{n}" for n in range(1, 13)] + [f"C{n}" for n in range(4, 8)]
    levels += [f"L{n}" for n in range(1, 5)]
    scores = (np.arange(count) + 0.5) / count
    for n, level in enumerate(levels):
        found = [
            replace(pattern, id=f"{level}-{i}", score=float(score), patch=None)
            for i, score in enumerate(scores[n :: len(levels)])
        ]
        found.sort(key=lambda c: -c.score)
        yield VertebraFinding(level, Status.FINDINGS, p_malignant=0.9, candidates=tuple(found))


def test_five_hundred_candidates_wait_for_nothing(desktop: Desktop) -> None:
    """Next, verdict with the scene's share, undo, a new list and another order: 100 ms each."""
    ct = add_review(tuple(many_candidates(500)), GRID)
    with open_panel(desktop) as opened:
        opened.ui.ctSelector.setCurrentNode(ct)
        review = opened.panel.review
        for name, act in (
            ("next", lambda: review.step(1)),
            ("verdict", lambda: (review.judge("accepted"), review.flush())),
            ("undo", lambda: (review.travel(forward=False), review.flush())),
            ("renew", review.renew),
            ("sort", lambda: review.sort("level")),
            ("vertebra", lambda: review.step_vertebra(1)),
        ):
            seconds = []
            for _ in range(5):
                began = time.process_time()  # other work on the machine is not the panel's
                act()
                seconds.append(time.process_time() - began)
            assert np.median(seconds) < 0.1, name
