"""What a run is of, whatever happens to the scene: segmentation, place of the CT, weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from desktop import Desktop
from helpers.panel import Opened, add_boxes, open_panel
from helpers.scene import add_segmentation, add_transform, image_of
from hideseekseg.imaging.volume import Patch, Volume

Spine = tuple[Volume, Volume]
RIGHT = {"vertebrae_T12": 33, "vertebrae_L1": 32, "vertebrae_L2": 31}  # of boxes: one further down
SAME = {"vertebrae_T11": 33, "vertebrae_T12": 32, "vertebrae_L1": 31}
SHIFT = np.array([[1, 0, 0, 40], [0, 1, 0, 25], [0, 0, 1, 10], [0, 0, 0, 1]], float)
OUTDATED = "out of date: its level was changed after the run"


@pytest.fixture
def opened(
    desktop: Desktop, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opened]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with open_panel(desktop, tiny_weights, sys.executable) as panel:
        yield panel


def run_boxes(opened: Opened, box_spine: Spine) -> tuple[Any, Any]:
    """Add the boxes' CT and segmentation, and run them; return their nodes."""
    ct, segmentation = add_boxes(box_spine)
    opened.choose(ct, segmentation)
    opened.run()
    return ct, segmentation


def add_named(spine: Spine, names: Mapping[str, int], name: str) -> Any:
    labels = spine[1]
    masks = {key: labels.array == value for key, value in names.items()}
    return add_segmentation(masks, labels.grid.ijk_to_lps, name)


def run_again(opened: Opened, level: str) -> None:
    opened.panel.review.choose_vertebra(level)
    opened.ui.rerunButton.click()
    if opened.panel.running:
        opened.wait_for_end()


def accept_all(opened: Opened) -> int:
    """Accept every finding that is listed, each with a comment; return how many."""
    review = opened.panel.review
    for n, identity in enumerate(review.shown):
        review.choose(identity)
        review.judge("accepted")
        review.comment(f"finding {n}", identity)
    opened.rest()
    return len(review.shown)


def told(opened: Opened) -> dict[tuple[str, str], tuple[str, int]]:
    """Verdict, and number of voxels, of what has a comment or was added, by that and its type."""
    review = opened.panel.review
    patches = review.results.patches()
    return {
        (x.comment or "added", x.type): (x.verdict, int(patches[x.id].array.sum()))
        for x in review.review.items
        if x.comment or x.missed
    }


def levels_of(opened: Opened) -> dict[str, str]:
    """The level of each finding that has a comment, or was added, by that."""
    items = opened.panel.review.review.items
    return {x.comment or "added": x.level for x in items if x.comment or x.missed}


def move(*nodes: Any, ras: Any = SHIFT) -> None:
    transform = add_transform(ras)
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())


def check_place(opened: Opened, ct: Any) -> None:
    """What the review says of a finding, its segment, and its healthy edit lie in one place."""
    control = opened.panel.review
    item = next(x for x in control.review.items if not x.missed)
    control.choose(item.id)
    segment = np.array(control.results.node.GetSegmentCenterRAS(item.id))
    x, y, z = control.results.here(item.centroid_lps)
    np.testing.assert_allclose((-x, -y, z), segment, atol=4.0)
    control.show_picture("healthy")
    assert control.picture == "healthy", opened.message
    edit = control.results.node.GetNodeReference("HideSeekSeg.HealthyEdit")
    bounds, around = [0.0] * 6, [0.0] * 6
    edit.GetRASBounds(bounds)
    ct.GetRASBounds(around)
    low, high = np.reshape(bounds, (3, 2)).T
    assert (low <= segment).all() and (segment <= high).all(), (low, high, segment)
    middle = (low + high) / 2
    low, high = np.reshape(around, (3, 2)).T
    assert (low <= middle).all() and (middle <= high).all()
    control.show_picture("ct")


# --- another segmentation of the same CT ----------------------------------------------------------


@pytest.mark.parametrize("first", ["kept", "removed"])
def test_a_vertebra_of_another_segmentation_is_not_put_among_those_of_the_first(
    opened: Opened, box_spine: Spine, first: str
) -> None:
    """Its level may be that of another body; the same bodies under another name may."""
    import slicer

    ct, segmentation = run_boxes(opened, box_spine)
    control = opened.panel.review
    before, run = control.review.items, control.results.run
    if first == "removed":
        slicer.mrmlScene.RemoveNode(segmentation)
    opened.choose(ct, add_named(box_spine, RIGHT, "Other"))
    for level in ("L1", "T12"):
        run_again(opened, level)
        assert "another segmentation, “Boxes vertebrae”" in opened.message
        assert control.review.items == before and control.results.run == run
    copy = add_named(box_spine, SAME, "Copy")
    move(copy, ras=np.eye(4))
    opened.choose(ct, copy)
    run_again(opened, "L1")
    assert opened.message.startswith("Done"), opened.message
    assert [x.box_lps for x in control.review.items] == [x.box_lps for x in before]


def test_words_and_drawings_follow_the_body_into_another_segmentation(
    opened: Opened, box_spine: Spine
) -> None:
    ct, segmentation = run_boxes(opened, box_spine)
    control = opened.panel.review
    assert accept_all(opened) >= 3
    corrected = next(x for x in control.review.items if x.level == "T12")
    start = control.results.patches([corrected.id])[corrected.id].start
    control.results.draw(corrected.id, Patch(np.ones((2, 3, 2), bool), start))
    drawn = control.add_missed("T12", "lytic")
    control.results.draw(drawn, Patch(np.ones((4, 4, 4), bool), (38, 18, 18)))
    control.take_over_outlines()
    before, levels = told(opened), levels_of(opened)
    further = {"T11": "T12", "T12": "L1", "L1": "L2"}
    opened.choose(ct, add_named(box_spine, RIGHT, "Corrected"))
    opened.run()
    assert told(opened) == before
    assert levels_of(opened) == {text: further[level] for text, level in levels.items()}
    assert control.review.item("L1-added-1").name == "L1 lytic added 1"
    assert "kept for" not in opened.ui.summaryLabel.text
    assert "not taken along" not in opened.ui.quietLabel.text
    # And back, once the segmentation that they came from is gone: by what was seen of each body.
    import slicer

    slicer.mrmlScene.RemoveNode(opened.ui.segmentationSelector.currentNode())
    opened.choose(ct, segmentation)
    opened.run()
    assert (told(opened), levels_of(opened)) == (before, levels)


def test_segments_that_were_replaced_in_the_same_node(opened: Opened, box_spine: Spine) -> None:
    """As another model does that writes into it: ids and names are the same, bodies are not."""
    _, segmentation = run_boxes(opened, box_spine)
    assert accept_all(opened) >= 3
    before, levels = told(opened), levels_of(opened)
    labels, segments = box_spine[1], segmentation.GetSegmentation()
    turned = {"vertebrae_T11": 33, "vertebrae_T12": 31, "vertebrae_L1": 32}
    for name, value in turned.items():
        image = image_of(labels.array == value, labels.grid.ijk_to_lps)
        segments.GetSegment(name).AddRepresentation("Binary labelmap", image)
        segments.GetSegment(name).SetLabelValue(1)
    run_again(opened, "L1")
    assert "L1 has the body now that was T12: segment metastases again" in opened.message
    assert (told(opened), levels_of(opened)) == (before, levels)
    run_again(opened, "T11")
    assert opened.message.startswith("Done"), opened.message
    opened.run()
    assert told(opened) == before
    other = {"T11": "T11", "T12": "L1", "L1": "T12"}
    assert levels_of(opened) == {text: other[level] for text, level in levels.items()}


def test_what_another_segmentation_has_no_body_for_is_named(
    opened: Opened, box_spine: Spine
) -> None:
    """T11's body is not in it, and T12's is T11 there; L1's is as it was."""
    ct, _ = run_boxes(opened, box_spine)
    control = opened.panel.review
    control.set_threshold(0.0)
    accept_all(opened)
    drawn = control.add_missed("T11", "lytic")
    control.results.draw(drawn, Patch(np.ones((4, 4, 4), bool), (50, 18, 18)))
    control.take_over_outlines()
    before = {x.comment: x for x in control.review.items if x.comment}
    opened.choose(ct, add_named(box_spine, {"vertebrae_T11": 32, "vertebrae_L1": 31}, "Part"))
    opened.run()
    now = levels_of(opened)
    assert now == {
        text: {"T12": "T11"}.get(x.level, x.level) for text, x in before.items() if x.level != "T11"
    }
    lost = ", ".join([*(x.name for x in before.values() if x.level == "T11"), "T11 lytic added 1"])
    text = f"The segmentation is another one, and not taken along: {lost}."
    assert text in opened.ui.quietLabel.text


# --- the CT's place -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["this vertebra", "all"])
def test_verdicts_stay_when_the_ct_was_moved_between_two_runs(
    opened: Opened, box_spine: Spine, how: str
) -> None:
    ct, segmentation = run_boxes(opened, box_spine)
    control = opened.panel.review
    assert accept_all(opened) >= 3
    drawn = control.add_missed("T12", "lytic")
    control.results.draw(drawn, Patch(np.ones((4, 4, 4), bool), (38, 18, 18)))
    control.take_over_outlines()
    before = told(opened)
    move(ct, segmentation)
    if how == "all":
        opened.run()
    else:
        run_again(opened, control.review.items[0].level)
    assert opened.message.startswith("Done"), opened.message
    assert told(opened) == before
    check_place(opened, ct if how == "all" else control.results.node)
    grid, patches = control.results.grid, control.results.patches()
    for item in control.review.items:
        voxels = np.argwhere(patches[item.id].array) + patches[item.id].start
        np.testing.assert_allclose(item.centroid_lps, grid.lps(voxels[:, ::-1]).mean(0), atol=0.1)


@pytest.mark.parametrize("how", ["a transform", "for good", "back"])
def test_a_ct_that_is_moved_before_the_first_vertebra(
    opened: Opened, box_spine: Spine, how: str
) -> None:
    """What the child says is of where the CT lay at the click."""
    ct, segmentation = add_boxes(box_spine)
    if how == "back":
        move(ct, segmentation)
    opened.choose(ct, segmentation)
    opened.ui.segmentButton.click()
    if how == "back":
        ct.SetAndObserveTransformNodeID(None)
    else:
        move(ct)
    if how == "for good":
        ct.HardenTransform()
    opened.wait_for_end()
    assert opened.message.startswith("Done"), opened.message
    check_place(opened, ct)


def test_results_are_put_back_where_the_ct_lies_now(opened: Opened, box_spine: Spine) -> None:
    import slicer

    ct, _ = run_boxes(opened, box_spine)
    control = opened.panel.review
    drawn = control.add_missed("T12", "lytic")
    control.results.draw(drawn, Patch(np.ones((4, 4, 4), bool), (38, 18, 18)))
    control.take_over_outlines()
    before = {name: patch.start for name, patch in control.results.patches().items()}
    slicer.mrmlScene.RemoveNode(control.results.node)
    move(ct)
    ct.HardenTransform()
    opened.ui.putBackButton.click()
    assert {name: patch.start for name, patch in control.results.patches().items()} == before
    check_place(opened, ct)


def test_a_review_is_restored_where_the_ct_lies_now(opened: Opened, box_spine: Spine) -> None:
    """Also by a copy of an earlier version, which does not say where the CT lay."""
    from hideseekseg.ui import autosave, recovery

    ct, segmentation = add_boxes(box_spine)
    move(ct, segmentation)
    opened.choose(ct, segmentation)
    opened.run()
    accept_all(opened)
    before, grid = told(opened), opened.panel.review.results.grid
    [folder] = autosave.place().iterdir()
    kept = autosave.read(folder)
    for node in (ct, segmentation):
        node.SetAndObserveTransformNodeID(None)
    session = recovery.restored(kept, ct, segmentation)
    opened.panel.review.show(session)
    assert session.results.grid.matches(grid)
    assert session.results.segmentationNode is segmentation
    assert told(opened) == before
    check_place(opened, ct)
    about = (folder / autosave.ABOUT).read_text("utf-8")
    (folder / autosave.ABOUT).write_text(about.replace('"place"', '"unknown"'), "utf-8")
    old = recovery.restored(autosave.read(folder), ct, segmentation)
    assert {x.id for x in old.review.items} == {x.id for x in session.review.items}


def test_a_restored_review_is_not_of_another_segmentation(opened: Opened, box_spine: Spine) -> None:
    """That has segments of the same ids at other bodies."""
    from hideseekseg.ui import autosave, recovery

    ct, _ = run_boxes(opened, box_spine)
    [folder] = autosave.place().iterdir()
    other = {"vertebrae_T11": 32, "vertebrae_T12": 31, "vertebrae_L1": 33}
    kept = autosave.read(folder)
    again = recovery.restored(kept, ct, add_named(box_spine, other, "Other"))
    assert again.results.segmentationNode is None
    again = recovery.restored(kept, ct, add_named(box_spine, SAME, "Copy"))
    assert again.results.segmentationNode is not None


# --- weights, names, and a CT that is gone --------------------------------------------------------


@pytest.mark.parametrize("what", ["weights", "slices"])
def test_a_vertebra_by_another_model_does_not_join_the_review(
    opened: Opened, box_spine: Spine, slow_weights: Path, tiny_weights: Path, what: str
) -> None:
    opened.choose(*add_boxes(box_spine))
    opened.run()
    control = opened.panel.review
    before, run = control.review.items, control.results.run
    slices = opened.ui.slicesSelector
    if what == "weights":
        assert opened.panel.settings.use(slow_weights)
    else:
        slices.setCurrentIndex(1 - slices.currentIndex)
    run_again(opened, "T12")
    asked = {"weights": "were made by the weights “tiny” (", "slices": "from the central slices"}
    assert asked[what] in opened.message
    assert opened.message.endswith("are chosen: choose the same, or segment metastases again.")
    assert control.review.items == before and control.results.run == run
    if what == "weights":
        assert opened.panel.settings.use(tiny_weights)
    else:
        slices.setCurrentIndex(1 - slices.currentIndex)
    run_again(opened, "T12")
    assert opened.message.startswith("Done"), opened.message


def test_segments_renamed_during_a_run_are_out_of_date_after_it(
    opened: Opened, box_spine: Spine
) -> None:
    ct, segmentation = add_boxes(box_spine)
    opened.choose(ct, segmentation)
    opened.ui.segmentButton.click()
    segments = segmentation.GetSegmentation()
    segments.GetSegment("vertebrae_T12").SetName("L1 vertebra")
    segments.GetSegment("vertebrae_L1").SetName("T12 vertebra")
    opened.wait_for_end()
    ran = opened.panel.review.results.run["levels"]
    assert ran == {name: f"{name.removeprefix('vertebrae_')} vertebra" for name in SAME}
    opened.panel.exit()
    opened.panel.enter()
    assert f"⚠ T12, L1: {OUTDATED}" in opened.ui.quietLabel.text


def test_a_vertebra_of_a_ct_that_is_gone_is_not_run_on_another(
    opened: Opened, box_spine: Spine
) -> None:
    import slicer

    ct, segmentation = add_boxes(box_spine, "A")
    opened.choose(ct, segmentation)
    opened.run()
    before = opened.panel.review.review.items
    other = add_boxes(box_spine, "B")
    slicer.util.arrayFromVolume(other[0])[0, 0, 0] += 1  # else it were the same scan
    slicer.util.arrayFromVolumeModified(other[0])
    slicer.mrmlScene.RemoveNode(ct)
    opened.choose(*other)
    run_again(opened, "T12")
    assert "The CT of this review was removed" in opened.message
    assert not opened.panel.segment(("T12",))
    assert "The CT of this review is not the one that is chosen" in opened.message
    assert opened.panel.review.review.items == before


def test_views_go_to_the_vertebra_that_a_corrected_level_was(
    opened: Opened, box_spine: Spine
) -> None:
    """Where nothing was kept of it, as of one that could not be analysed."""
    from hideseekseg.findings import Status, VertebraFinding
    from hideseekseg.review.review import Review
    from hideseekseg.scene.results import Results

    ct, segmentation = add_boxes(box_spine)
    levels = {"vertebrae_T11": "T12 vertebra", "vertebrae_T12": "L1 vertebra"}
    results, review = Results.create(ct, segmentation, {"levels": levels}), Review(0.5)
    for level in ("T12", "L1"):
        review.add_vertebra(VertebraFinding(level, Status.NOT_ANALYSED, "metal"))
    results.apply(review)
    for segment, level in levels.items():
        x, y, z = segmentation.GetSegmentCenterRAS(segment)
        assert results.centreOf(level.removesuffix(" vertebra")) == pytest.approx((-x, -y, z))
    assert [row.level for row in results.levelRows()] == ["T12", "L1", ""]
