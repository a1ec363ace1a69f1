"""One review, two windows: the same reader's steps in the panel and in the browser's page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from desktop import Desktop
from helpers.findings import (
    LEVELS,
    ball,
    body_centre,
    make_ct,
    make_evidence,
    make_grid,
    make_result,
    positions,
)
from helpers.panel import add_review
from helpers.reviews import open_review
from helpers.scene import add_segmentation
from hideseekseg.findings import unstable
from hideseekseg.imaging.volume import Patch
from hideseekseg.output.result_folder import EXPORTED

LAYOUT = 7061  # of the review: a large sagittal view
GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
RESULT = make_result(GRID)
WAITING = ["to review"] * 3


@pytest.fixture(params=["panel", "browser"])
def window(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def review(window: str, desktop: Desktop) -> Iterator[Any]:
    """Three findings above the threshold and one below it."""
    with open_review(window, desktop, add_review(RESULT.vertebrae, GRID)) as opened:
        yield opened


def states(review: Any) -> list[str]:
    return [cells[5] for cells in review.rows]


def visible() -> list[str]:
    """Ids of the lesions that the scene shows."""
    import slicer.util

    from hideseekseg.scene.results import Results

    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    [node] = [node for node in nodes if Results.isOne(node)]
    names = node.GetSegmentation().GetSegmentIDs()
    return [name for name in names if node.GetDisplayNode().GetSegmentVisibility(name)]


def test_best_candidate_comes_first(review: Any) -> None:
    assert [cells[0] for cells in review.rows] == ["T10", "T10", "L1"]
    assert review.words["counts"] == "3 of 4 shown"
    assert review.chosen == 0
    assert visible() == ["T10-1"]
    assert review.words["detail"].startswith("T10 blastic 1")


def test_verdicts_move_on_and_can_be_undone(review: Any) -> None:
    review.press("accept")
    review.press("reject")
    assert states(review) == ["✓ accepted", "✗ rejected", "to review"]
    assert review.chosen == 2
    review.press("undo")
    assert (states(review)[1], review.chosen) == ("to review", 1)
    review.press("undo")
    assert (states(review), review.chosen) == (WAITING, 0)
    review.press("undo")
    review.press("redo")
    assert states(review)[0] == "✓ accepted"


def test_undo_and_redo_say_what_they_do(review: Any) -> None:
    assert (review.words["undo"], review.words["redo"]) == ("", "")
    review.press("accept")
    steps = ["T10 blastic 1: ✓ accepted"]
    assert review.words["undo"] == steps[-1]
    review.reject_as("haemangioma")
    steps.append(f"{review.controller.review.items[1].name}: ✗ rejected, haemangioma")
    assert review.words["undo"] == steps[-1]
    review.comment("of the third one")
    steps.append(f"{review.controller.review.items[2].name}: comment")
    assert review.words["undo"] == steps[-1]
    review.press("switchType")
    assert review.words["undo"].endswith(": type switched")
    review.press("undo")
    review.slide(0.7)
    steps.append("threshold 0.50 → 0.70")
    assert review.words["undo"] == steps[-1]
    review.controller.add_missed("T11", "lytic")
    steps.append("“T11 lytic added 1” added")
    assert review.words["undo"] == steps[-1]
    review.rest()
    for n in range(len(steps) - 1, -1, -1):
        assert review.words["undo"] == steps[n]
        review.press("undo")
        assert review.words["redo"] == steps[n]
    assert review.words["undo"] == ""
    review.press("redo")
    assert (review.words["undo"], review.words["redo"]) == tuple(steps[:2])


@pytest.mark.parametrize("shown", [True, False])
def test_step_that_the_list_does_not_show_is_said(review: Any, shown: bool) -> None:
    review.press("accept")
    if not shown:
        review.filter("level", "L1")
    for way in ("undo", "redo"):
        review.press(way)
        step = "T10 blastic 1: ✓ accepted. The list as it is filtered does not show it."
        said = f"{'Undone' if way == 'undo' else 'Redone'}: {step}"
        assert review.words["message"] == ("" if shown else said)
    assert review.controller.review.items[0].verdict == "accepted"


def test_next_and_previous_stop_at_the_ends(review: Any) -> None:
    review.press("previous")
    assert review.chosen == 0
    for _ in range(4):
        review.press("next")
    assert review.chosen == 2
    review.press("previous")
    assert review.chosen == 1


def test_type_is_switched(review: Any) -> None:
    review.press("switchType")
    assert review.rows[0][1] == "lytic"
    assert review.words["detail"].startswith("T10 lytic")


@pytest.mark.parametrize(
    ("asked", "given", "rows"), [(0.7, 0.7, 2), (7, 1.0, 0), (-3, 0.0, 4), (math.nan, 0.5, 3)]
)
def test_threshold_is_clamped(review: Any, asked: float, given: float, rows: int) -> None:
    if isinstance(asked, float) and math.isnan(asked):
        review.controller.set_threshold(asked)
    else:
        review.slide(asked)
    assert review.threshold == pytest.approx(given)
    assert len(review.rows) == rows


def test_verdicts_survive_the_threshold(review: Any) -> None:
    review.press("accept")
    review.slide(1.0)
    assert states(review) == ["✓ accepted"]
    review.press("undo")
    assert len(review.rows) == 3, "a drag of the slider is one step"


def test_unknown_ids_choose_nothing(review: Any) -> None:
    review.controller.choose("C1-99")
    assert review.chosen == -1
    review.press("accept")
    assert states(review) == WAITING
    review.press("next")
    assert review.chosen == 0


def test_filters_narrow_the_list(review: Any) -> None:
    review.filter("type", "lytic")
    assert [cells[1] for cells in review.rows] == ["lytic", "lytic"]
    assert review.chosen == -1, "the chosen one is not listed any more"
    review.filter("level", "L1")
    assert [cells[0] for cells in review.rows] == ["L1"]
    review.filter("level", "")
    review.filter("type", "")
    review.click(0)
    review.press("reject")
    review.filter("verdict", "rejected")
    assert states(review) == ["✗ rejected"]


def test_rejecting_within_a_filter_goes_on(review: Any) -> None:
    review.filter("verdict", "unreviewed")
    review.press("reject")
    assert (len(review.rows), review.chosen) == (2, 0)
    review.press("reject")
    review.press("reject")
    assert review.rows == []
    assert review.chosen == -1


def test_comment_is_kept(review: Any) -> None:
    review.comment("soft tissue")
    assert states(review)[0] == "to review ✎"
    assert review.words["comment"] == "soft tissue"
    review.click(1)
    assert review.words["comment"] == ""


def test_another_vertebra_keeps_what_is_chosen(review: Any) -> None:
    review.click(1)
    review.controller.renew()
    review.controller.begin()
    review.controller.settle()
    assert review.chosen == 1


def test_removed_results_come_back(review: Any) -> None:
    controller = review.controller
    for finding in RESULT.vertebrae:
        controller.results.addVertebra(finding)
    review.press("accept")
    remove_results(review)
    assert review.offered
    review.put_back()
    assert states(review) == ["✓ accepted", "to review", "to review"]
    assert not review.offered
    assert review.words["message"].endswith("is back, with all verdicts.")


def test_removed_results_come_back_with_drawn_and_corrected_outlines(review: Any) -> None:
    controller = review.controller
    for finding in RESULT.vertebrae:
        controller.results.addVertebra(finding)
    drawn = controller.add_missed("T11", "blastic")
    review.comment("no doubt")
    controller.leave()
    draw(controller.results.node, drawn, 5)
    draw(controller.results.node, "T10-1", 6)
    controller.enter()
    before = [cells[4] for cells in review.rows]
    for _ in range(2):
        remove_results(review)
        review.put_back()
        assert [cells[4] for cells in review.rows] == before
        assert controller.review.item(drawn).volume_mm3 == pytest.approx(125 * GRID.voxel_mm3)
        assert controller.review.item(drawn).comment == "no doubt"
        assert controller.review.item("T10-1").verdict == "unreviewed", "no verdict of Slicer's"
        voxels = {x: int(p.array.sum()) for x, p in controller.results.patches().items()}
        assert (voxels[drawn], voxels["T10-1"]) == (125, 216)


def remove_results(review: Any) -> None:
    """As a reader of Slicer's Data module does."""
    import slicer

    controller = review.controller
    kept, results = controller.review, controller.results
    slicer.mrmlScene.RemoveNode(results.node)
    if controller.session is not None:  # nobody but the panel listens to the scene
        controller.clear()
        controller.keep_removed(kept, results)


def test_a_missed_lesion_is_accepted_and_can_be_undone(review: Any) -> None:
    assert review.controller.add_missed("T11", "blastic") == "T11-added-1"
    assert review.rows[-1][:3] == ["T11", "blastic", "added"]
    assert review.rows[-1][5] == "✓ added"
    review.press("undo")
    assert len(review.rows) == 3
    assert review.controller.add_missed("C1", "lytic") == "", "a level that was not analysed"


@pytest.mark.parametrize("rests", [True, False])
def test_a_lesion_that_is_added_again_is_drawn_anew(review: Any, rests: bool) -> None:
    """Nothing is left of the one that was undone; until then it can be redone as it was drawn."""
    controller = review.controller
    results = controller.results
    identity = controller.add_missed("T11", "blastic")
    draw(results.node, identity, 5)
    controller.take_over_outlines()
    for action in ("undo", "redo", "undo"):
        review.press(action)
        if rests:
            review.rest()
    assert controller.add_missed("T11", "lytic") == identity
    assert results.patches([identity]) == {}
    assert [cells[4] for cells in review.rows if cells[2] == "added"] == [""]
    results.draw(identity, ball(GRID, body_centre(1), 4.0))
    controller.take_over_outlines()
    assert results.patches()[identity].array.sum() == ball(GRID, body_centre(1), 4.0).array.sum()


def draw(node: Any, identity: str, edge: int) -> None:
    """A cube, as a brush would leave it."""
    import slicer.util

    array = np.zeros(GRID.shape, np.uint8)
    array[30 : 30 + edge, 20 : 20 + edge, 20 : 20 + edge] = 1
    ct = slicer.util.getNode("CT")
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, identity, ct)


@pytest.mark.parametrize("identity", ["T10-1", "T11-added-1"])
def test_lesion_whose_segment_was_removed_is_erased(
    review: Any, identity: str, tmp_path: Path
) -> None:
    """As all of it erased: it has no size, says so in the export, and can be drawn again."""
    controller = review.controller
    node = controller.results.node
    controller.add_missed("T11", "blastic")
    draw(node, "T11-added-1", 4)
    controller.take_over_outlines()
    controller.review.judge(identity, "accepted")
    burden = controller.review.burden()[-1].volume_mm3
    size = controller.review.item(identity).volume_mm3
    assert size > 0
    controller.leave()
    node.GetSegmentation().RemoveSegment(identity)
    controller.enter()
    item = controller.review.item(identity)
    assert (item.volume_mm3, item.diameter_mm, item.verdict) == (0.0, None, "accepted")
    assert controller.review.burden()[-1].volume_mm3 == pytest.approx(burden - size)
    assert export(controller, tmp_path / "out", "") == ()
    assert "draw it, or reject it" in review.words["message"]
    controller.leave()
    draw(node, identity, 5)
    controller.enter()
    assert controller.review.item(identity).volume_mm3 == pytest.approx(125 * GRID.voxel_mm3)
    assert len(export(controller, tmp_path / "out", "")) == len(EXPORTED)


def test_removed_segment_stays_erased_as_a_corrected_outline_does(review: Any) -> None:
    """Also of a candidate that nobody judged, and where a review is opened from the scene."""
    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import restore
    from hideseekseg.ui.review_session import ReviewSession

    controller = review.controller
    for finding in RESULT.vertebrae:
        controller.results.addVertebra(finding)
    node = controller.results.node
    controller.leave()
    for identity in ("T10-1", "L1-1"):
        node.GetSegmentation().RemoveSegment(identity)
    stored = restore(node)
    assert stored is not None
    session = ReviewSession(stored, Results.of(node))
    assert session.sync_from_scene()
    assert session.corrected(["T10", "L1"]) == {"T10-1": None, "L1-1": None}
    assert {x.id: x.verdict for x in session.review.items}["T10-1"] == "unreviewed"
    controller.enter()
    remove_results(review)
    review.put_back()
    assert controller.review.item("T10-1").volume_mm3 == 0.0
    assert controller.session.corrected(["T10", "L1"]) == {"T10-1": None, "L1-1": None}


def own_segment(node: Any, name: str, at: tuple[int, int, int] | None, edge: int = 4) -> str:
    """A segment as "Add" and a brush of Segment Editor leave it; empty without a place."""
    identity = str(node.GetSegmentation().AddEmptySegment("", name))
    if at is not None:
        array = np.zeros(GRID.shape, np.uint8)
        k, j, i = at
        array[k : k + edge, j : j + edge, i : i + edge] = 1
        import slicer.util

        ct = slicer.util.getNode("CT")
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, identity, ct)
    node.GetDisplayNode().SetSegmentVisibility(identity, True)
    return identity


def test_segment_of_the_readers_own_is_taken_over_as_a_lesion(review: Any, tmp_path: Path) -> None:
    """Its level is that of its name; it is listed, shown, exported, and can be undone."""
    controller = review.controller
    node = controller.results.node
    controller.leave()
    own_segment(node, "T11 sclerotic", (30, 20, 20))
    empty = own_segment(node, "Segment_2", None)
    controller.enter()
    assert review.words["message"] == (
        "“T11 sclerotic” is listed as “T11 blastic added 1”, accepted: check level and type."
    )
    assert review.rows[-1][:3] == ["T11", "blastic", "added"]
    item = controller.review.item("T11-added-1")
    assert item.volume_mm3 == pytest.approx(64 * GRID.voxel_mm3)
    controller.choose("")
    controller.leave()
    assert "T11-added-1" in visible() and empty in visible(), "an empty one may yet be drawn in"
    controller.enter()
    assert len(export(controller, tmp_path / "out", "")) == len(EXPORTED)
    names = list(node.GetSegmentation().GetSegmentIDs())
    assert [x for x in names if not x.startswith(("T10-", "L1-"))] == [empty, "T11-added-1"]
    review.press("undo")
    controller.leave()
    controller.enter()
    assert len(review.rows) == 3, "what was undone is no segment of the reader's own"
    review.press("redo")
    assert controller.review.item("T11-added-1").volume_mm3 == pytest.approx(64 * GRID.voxel_mm3)


def test_own_segment_is_of_the_nearest_vertebra_by_its_density(
    window: str, desktop: Desktop
) -> None:
    """Dense beside its body: blastic.  A copy of a finding is one of the reader's own, too."""
    import slicer
    import slicer.util

    evidence = make_evidence(make_ct(GRID), RESULT)["T10"]
    ct = add_review(RESULT.vertebrae, GRID, evidence={"T10": evidence})
    middle = (np.array(evidence.grid.shape[::-1]) - 1) / 2
    at = np.rint(GRID.ijk(evidence.grid.lps(middle[None])[0]))[::-1].astype(int)
    k, j, i = (int(n) for n in at)
    array = slicer.util.arrayFromVolume(ct)
    body = float(evidence.image[evidence.body].mean())
    array[k : k + 4, j : j + 4, i : i + 4] = body + 300
    array[k - 6 : k - 2, j : j + 4, i : i + 4] = body - 90
    slicer.util.arrayFromVolumeModified(ct)
    with open_review(window, desktop, ct) as opened:
        controller = opened.controller
        node = controller.results.node
        controller.leave()
        own_segment(node, "Segment_1", (k, j, i))
        own_segment(node, "Segment_2", (k - 6, j, i))
        copy = slicer.vtkSegment()
        copy.DeepCopy(node.GetSegmentation().GetSegment("T10-1"))
        copy.SetName("Copy")
        assert node.GetSegmentation().AddSegment(copy, "T10-1 copy")
        controller.enter()
        found = {x.name: x.verdict for x in controller.review.items if x.missed}
        assert list(found) == ["T10 blastic added 1", "T10 lytic added 2", "T10 lytic added 3"]
        assert set(found.values()) == {"accepted"}


def test_own_segment_far_from_every_vertebra_is_named(review: Any) -> None:
    controller = review.controller
    controller.leave()
    identity = own_segment(controller.results.node, "Liver lesion", (2, 2, 2))
    controller.enter()
    assert "“Liver lesion” lies in no vertebra" in review.words["message"]
    controller.choose("")
    controller.leave()
    assert identity in visible()


@pytest.mark.parametrize("kind", ["voxels", "surface"])
def test_own_segment_that_does_not_reach_the_ct_is_named(review: Any, kind: str) -> None:
    """As a box that was drawn, or imported, somewhere else."""
    import slicer
    import vtk

    controller = review.controller
    node = controller.results.node
    controller.leave()
    segment = slicer.vtkSegment()
    segment.SetName("Box")
    if kind == "voxels":
        patch = Patch(np.ones((4, 4, 4), bool), (500, 0, 0))
        from hideseekseg.scene.geometry import imageOfPatch

        segment.AddRepresentation("Binary labelmap", imageOfPatch(patch, GRID))
    else:
        box = vtk.vtkCubeSource()
        box.SetBounds(0, 20, 0, 20, 2000, 2020)
        box.Update()
        segment.AddRepresentation("Closed surface", box.GetOutput())
    assert node.GetSegmentation().AddSegment(segment, "Box")
    controller.enter()
    assert review.words["message"] == (
        "“Box” lies in no vertebra of this review: it is neither listed nor exported."
    )
    assert len(review.rows) == 3


@pytest.mark.parametrize("at", [(2, 2, 2), (55, 20, 20)])
def test_vertebra_that_a_segment_names_is_not_believed_where_it_lies_elsewhere(
    window: str, desktop: Desktop, at: tuple[int, int, int]
) -> None:
    evidence = make_evidence(make_ct(GRID), RESULT)
    ct = add_review(RESULT.vertebrae, GRID, evidence={"T10": evidence["T10"]})
    with open_review(window, desktop, ct) as opened:
        controller = opened.controller
        controller.leave()
        own_segment(controller.results.node, "T10 box", at)
        controller.enter()
        if at == (2, 2, 2):
            assert "“T10 box” lies in no vertebra" in opened.words["message"]
            assert len(opened.rows) == 3
        else:
            assert "“T10 box” is listed as “T10 lytic added 1”" in opened.words["message"]


@pytest.mark.parametrize("parts", ["vertebra", "body", "none"])
def test_drawn_lesion_that_is_not_in_its_vertebra_is_named(
    window: str, desktop: Desktop, parts: str
) -> None:
    """Drawn in another vertebra, beside all of them, and where it belongs."""
    where = positions(GRID)
    masks = {
        f"vertebrae_{level}" + (" body" if parts == "body" else ""): (
            np.abs(where - body_centre(n)) < (20.0, 15.0, 12.0)
        ).all(axis=-1)
        for n, level in enumerate(LEVELS)
    }
    source = None if parts == "none" else add_segmentation(masks, GRID.ijk_to_lps, "Vertebrae")
    evidence = make_evidence(make_ct(GRID), RESULT)
    ct = add_review(RESULT.vertebrae, GRID, source=source, evidence=evidence)
    elsewhere = "“T10 lytic added 1” is drawn in L1, not in T10: check its level."
    nowhere = "“T10 lytic added 1” is drawn outside of T10 and of every other vertebra"
    with open_review(window, desktop, ct) as opened:
        controller = opened.controller
        name = controller.add_missed("T10", "lytic")
        for place, said in (
            (body_centre(3), elsewhere),
            ((0.0, 0.0, 45.0), ""),
            ((0.0, 22.0, 45.0), nowhere if parts == "vertebra" else ""),
            ((0.0, 0.0, -63.0), nowhere),
            ((0.0, 6.0, 45.0), ""),
        ):
            controller.results.draw(name, ball(GRID, place, 4.0))
            controller.take_over_outlines()
            told = opened.words["message"]
            assert told.startswith(said) if said else "is drawn" not in told, place
        controller.leave()
        controller.results.draw(name, ball(GRID, body_centre(3), 4.0))
        controller.enter()
        assert elsewhere in opened.words["message"]


def test_lesion_that_was_erased_has_no_size_until_it_is_drawn_again(review: Any) -> None:
    controller = review.controller
    node, wanted = controller.results.node, 125 * GRID.voxel_mm3
    [before] = [item for item in controller.review.items if item.id == "T10-1"]
    for edge, volume in ((0, 0.0), (5, wanted)):
        controller.leave()
        draw(node, "T10-1", edge)
        controller.enter()
        [item] = [item for item in controller.review.items if item.id == "T10-1"]
        assert item.volume_mm3 == pytest.approx(volume)
        assert (item.diameter_mm is None) == (edge == 0)
        if edge == 0:
            assert item.centroid_lps == before.centroid_lps and item.mean_hu is None
            assert review.rows[0][4] == "", "no size is shown"


def test_edited_outlines_reach_list_and_table(review: Any) -> None:
    controller = review.controller
    node, table = controller.results.node, controller.results.tableNode
    controller.leave()
    draw(node, "T10-1", 5)
    controller.enter()
    wanted = 125 * GRID.voxel_mm3
    assert float(review.rows[0][4]) == pytest.approx(wanted / 1000, abs=0.006)
    assert table.GetTable().GetValueByName(0, "volume (mm3)").ToDouble() == pytest.approx(wanted)
    assert controller.review.items[0].volume_mm3 == pytest.approx(wanted)


def export(controller: Any, folder: Path, reviewer: str) -> tuple[Path, ...]:
    from hideseekseg.ui.exports import ReviewExport

    return ReviewExport(controller).write(folder, reviewer)


def keep_evidence(review: Any) -> None:
    for level, seen in make_evidence(make_ct(GRID), RESULT).items():
        review.controller.results.kept.put(level, seen)
    review.controller.results.kept.save()
    review.controller.renew()


def foregrounds() -> set[str]:
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    found = (slicer.mrmlScene.GetNodeByID(n.GetForegroundVolumeID() or "") for n in nodes)
    return {node.GetName() if node else "" for node in found}


def test_pictures_are_toggled_and_go_with_their_vertebra(review: Any) -> None:
    keep_evidence(review)
    review.press("healthy")
    assert (review.picture, foregrounds()) == ("healthy", {"CT T10 healthy edit"})
    review.press("difference")
    assert (review.picture, foregrounds()) == ("difference", {"CT T10 difference"})
    review.press("difference")
    assert (review.picture, foregrounds()) == ("ct", {""})
    review.press("healthy")
    review.click(2)
    assert (review.picture, foregrounds()) == ("ct", {""})


def test_pictures_that_were_not_kept_are_explained(review: Any) -> None:
    review.press("healthy")
    assert review.picture == "ct"
    assert "was not kept" in review.words["message"]


def test_a_foreground_of_the_user_comes_back_after_a_picture(review: Any) -> None:
    import slicer

    pet = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "PET")
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        view.SetForegroundVolumeID(pet.GetID())
        view.SetForegroundOpacity(0.3)
    keep_evidence(review)
    review.press("healthy")
    review.press("healthy")
    assert foregrounds() == {"PET"}
    opacities = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert {view.GetForegroundOpacity() for view in opacities} == {0.3}


def test_evidence_is_saved_with_the_scene(window: str, desktop: Desktop, tmp_path: Path) -> None:
    import slicer

    file = str(tmp_path / "scene.mrb")
    evidence = make_evidence(make_ct(GRID), RESULT)["T10"]
    with open_review(window, desktop, add_review(RESULT.vertebrae, GRID)) as review:
        keep_evidence(review)
        review.press("healthy")
        review.rest()
        assert slicer.mrmlScene.WriteToMRB(file)
    slicer.mrmlScene.Clear(False)
    assert slicer.mrmlScene.ReadFromMRB(file, True)
    with open_review(window, desktop, slicer.util.getNode("CT")) as review:
        assert review.picture == "ct"
        review.press("healthy")
        assert review.picture == "healthy"
        kept = review.controller.evidence("T10")
        for name in ("image", "edit", "difference", "body", "lytic", "blastic"):
            was, now = getattr(evidence, name), getattr(kept, name)
            assert now.dtype == was.dtype
            assert np.allclose(now, was, atol=np.ptp(was.astype(float)) / 60_000)


def test_pictures_are_no_ct_to_choose_and_are_not_saved(review: Any) -> None:
    keep_evidence(review)
    review.press("difference")
    volumes = [
        node
        for node in _nodes("vtkMRMLScalarVolumeNode")
        if node.GetName().endswith(("edit", "difference"))
    ]
    assert len(volumes) == 2
    assert all(node.GetHideFromEditors() and not node.GetSaveWithScene() for node in volumes)


def _nodes(kind: str) -> list[Any]:
    import slicer.util

    return list(slicer.util.getNodesByClass(kind))


def test_views_are_the_users_again(window: str, desktop: Desktop) -> None:
    """The lesion is seen alone; other segmentations, window, layout come back."""
    import slicer

    ct = add_review(RESULT.vertebrae, GRID)
    mask = make_ct(GRID).array > 300
    vertebrae = add_segmentation({"vertebrae": mask}, GRID.ijk_to_lps, "Vertebrae")
    hidden = add_segmentation({"skin": mask}, GRID.ijk_to_lps, "Skin")
    hidden.GetDisplayNode().SetVisibility(False)
    display = ct.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(80, 40)
    layout = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutOneUpRedSliceView)
    for view in _nodes("vtkMRMLSliceNode"):
        view.SetMappedInLayout(view.GetName() == "Red")
    with open_review(window, desktop, ct) as review:
        assert not vertebrae.GetDisplayNode().GetVisibility()
        assert display.GetWindow() > 1000
        assert layout.GetViewArrangement() == LAYOUT
        review.controller.leave()
        assert vertebrae.GetDisplayNode().GetVisibility()
        assert not hidden.GetDisplayNode().GetVisibility()
        assert (display.GetWindow(), display.GetLevel()) == (80, 40)
        assert layout.GetViewArrangement() == layout.SlicerLayoutOneUpRedSliceView
        assert visible() == ["T10-1", "T10-2", "L1-1"]
        places = _places()
        review.click(1)
        review.rest()
        assert (_places(), display.GetWindow()) == (places, 80), "another module is shown"
        review.controller.enter()
        assert visible() == ["T10-2"]
        display.SetWindowLevel(500, 100)
        review.controller.leave()
        assert display.GetWindow() == 500, "the user's own change is undone"


def test_bare_lesion(window: str, desktop: Desktop) -> None:
    """Zoomed to, under the crosshair, in linked views of a sagittal layout; all comes back."""
    import slicer

    scene = slicer.mrmlScene
    ct = add_review(RESULT.vertebrae, GRID)
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode") or scene.AddNewNodeByClass(
        "vtkMRMLCrosshairNode"
    )
    crosshair.SetCrosshairMode(crosshair.NoCrosshair)
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode") or scene.AddNewNodeByClass(
        "vtkMRMLLayoutNode"
    )
    before = layout.GetViewArrangement()
    slices = _nodes("vtkMRMLSliceNode")
    for view in slices:
        view.SetFieldOfView(400.0, 400.0, 1.0)
    with open_review(window, desktop, ct) as review:
        assert layout.GetViewArrangement() == LAYOUT
        text = layout.GetLayoutDescription(LAYOUT)
        assert text.index("Sagittal") < text.index("Axial") < text.index("Coronal")
        links = _nodes("vtkMRMLSliceCompositeNode")
        assert all(view.GetLinkedControl() for view in links)
        heights = {view.GetOrientation(): view.GetFieldOfView()[1] for view in slices}
        assert heights == pytest.approx({"Sagittal": 150.0, "Axial": 110.0, "Coronal": 110.0})
        assert crosshair.GetCrosshairMode() != crosshair.NoCrosshair
        x, y, z = RESULT.vertebrae[0].candidates[0].centroid_lps
        assert np.allclose(crosshair.GetCrosshairRAS(), (-x, -y, z), atol=0.01)
        slices[0].SetFieldOfView(60.0, 60.0, 1.0)
        review.click(1)
        assert slices[0].GetFieldOfView()[1] == 60.0, "from then on the zoom is the reader's"
        review.controller.leave()
        assert layout.GetViewArrangement() == before
        assert not any(view.GetLinkedControl() for view in links)
        assert [v.GetFieldOfView()[1] for v in slices] == pytest.approx([60.0, 400.0, 400.0])
        assert crosshair.GetCrosshairMode() == crosshair.NoCrosshair


@pytest.mark.parametrize("change", ["layout", "window", "none"])
def test_zoom_comes_back_where_views_changed_their_size(
    window: str, desktop: Desktop, change: str
) -> None:
    """Slicer resizes its views after a layout was chosen: they keep their height in mm alone."""
    import slicer

    def resize(width: int, height: int) -> None:
        views = slicer.app.layoutManager().mrmlSliceLogics()
        for n in range(views.GetNumberOfItems()):
            views.GetItemAsObject(n).ResizeSliceNode(width, height)

    ct = add_review(RESULT.vertebrae, GRID)
    slices = _nodes("vtkMRMLSliceNode")
    resize(400, 300)
    for view in slices:
        view.SetFieldOfView(400.0, 300.0, 1.0)
    with open_review(window, desktop, ct) as review:
        if change != "none":
            resize(300, 900)
        heights = sorted(view.GetFieldOfView()[1] for view in slices)
        assert heights == pytest.approx([110.0, 110.0, 150.0])
        slices[0].SetFieldOfView(60.0, 60.0, 1.0)
        review.controller.leave()
        if change == "layout":
            resize(400, 300)
        found = [view.GetFieldOfView()[:2] for view in slices[1:]]
        wide = 100.0 if change == "window" else 400.0
        assert found == [pytest.approx((wide, 300.0))] * 2
        assert slices[0].GetFieldOfView()[1] == 60.0, "the user's own zoom"


def test_list_is_sorted_by_any_column(review: Any) -> None:
    """By a click on its heading; a second one turns it round; the keys follow the list."""
    assert [cells[2] for cells in review.rows] == ["0.91", "0.72", "0.66"]
    review.sort("level")
    assert [cells[0] for cells in review.rows] == ["T10", "T10", "L1"]
    review.sort("level")
    assert [cells[0] for cells in review.rows] == ["L1", "T10", "T10"]
    assert review.chosen == 1, "what is chosen stays chosen"
    review.press("previous")
    assert review.chosen == 0
    review.sort("volume")
    sizes = [float(cells[4]) for cells in review.rows]
    assert sizes == sorted(sizes, reverse=True)
    review.sort("verdict")
    review.click(0)
    review.press("reject")
    assert states(review) == ["to review", "to review", "✗ rejected"]


def test_every_vertebra_is_listed_and_can_be_gone_to(review: Any) -> None:
    assert [cells[:3] for cells in review.vertebrae] == [
        ["T10", "2 lesions outlined", "0.98"],
        ["T11", "unremarkable", "0.02"],
        ["T12", "not analysed: metal", ""],
        ["L1", "lesion outlined", "0.81"],
    ]
    assert review.vertebrae[0][3] == "cut by the field of view"
    keep_evidence(review)
    review.press("nextVertebra")
    assert (review.chosen, review.words["detail"]) == (-1, "T11: unremarkable, P(malignant) 0.02")
    x, y, z = body_centre(1)
    assert np.allclose(_places(), [-x, -y, z] * 3, atol=1.0)
    review.press("nextVertebra")
    assert review.words["detail"] == "T12: not analysed: metal"
    review.press("nextVertebra")
    assert (review.chosen, review.rows[2][0]) == (2, "L1")
    review.press("nextVertebra")
    assert review.chosen == 2, "there is nothing below"
    review.press("previousVertebra")
    review.click_vertebra(0)
    assert review.chosen == 0


def test_vertebrae_and_burden_follow_the_verdicts(review: Any) -> None:
    assert review.burden[-1][:3] == ["all", "all", "3"]
    review.click(2)
    review.press("reject")
    review.rest()
    assert review.vertebrae[3][1] == "unremarkable, findings rejected"
    assert [cells[:3] for cells in review.burden] == [
        ["T10", "lytic", "1"],
        ["T10", "blastic", "1"],
        ["all", "lytic", "1"],
        ["all", "blastic", "1"],
        ["all", "all", "2"],
    ]
    patch = RESULT.vertebrae[0].candidates[0].patch
    assert patch is not None
    ml, share, mm, hu = review.burden[1][3:]
    volume = patch.array.sum() * GRID.voxel_mm3
    assert float(ml) == pytest.approx(volume / 1000, abs=0.006)
    assert float(share) == pytest.approx(100 * volume / 28800.0, abs=0.06)
    assert float(mm) == pytest.approx(12.0, abs=2.0)
    assert float(hu) == pytest.approx(make_ct(GRID).array[patch.box][patch.array].mean(), abs=1.0)
    node = review.controller.results.burdenNode
    table = node.GetTable()
    assert [table.GetValueByName(n, "level").ToString() for n in range(5)] == ["T10"] * 2 + [
        "all"
    ] * 3
    assert table.GetValueByName(4, "volume_mm3").ToDouble() > volume
    assert node in _nodes("vtkMRMLTableNode")


def test_verdict_with_a_reason_and_uncertain(review: Any) -> None:
    review.reject_as("haemangioma")
    review.press("uncertain")
    assert states(review)[:2] == ["✗ rejected (haemangioma)", "? uncertain"]
    assert review.chosen == 2
    review.click(0)
    assert "haemangioma" in review.words["detail"]
    review.press("undo")
    review.press("undo")
    assert states(review)[:2] == ["to review"] * 2
    review.filter("verdict", "uncertain")
    assert review.rows == []


def test_accepted_findings_become_a_segmentation_of_their_own(review: Any) -> None:
    import slicer.util

    review.controller.make_accepted()
    assert review.words["message"] == "Nothing is accepted yet."
    review.press("accept")
    review.press("reject")
    review.controller.make_accepted()
    node = slicer.util.getNode("* accepted")
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["T10-1"]
    segment = node.GetSegmentation().GetSegment("T10-1")
    assert segment.GetName() == "T10 blastic 1"
    patch = RESULT.vertebrae[0].candidates[0].patch
    ct = slicer.util.getNode("CT")
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, "T10-1", ct)
    assert patch is not None and array.sum() == patch.array.sum()


def test_evidence_in_words(window: str, desktop: Desktop) -> None:
    first = RESULT.vertebrae[0]
    seen = replace(first.candidates[0], p_all=0.96, p_hidden=0.12, p_alone=0.91, diameter_mm=12.4)
    told = replace(first, candidates=(seen, *first.candidates[1:]))
    with open_review(window, desktop, add_review((told,), GRID)) as review:
        head, size, evidence = review.words["detail"].splitlines()
        assert head == "T10 blastic 1 (cut by the field of view)"
        assert size.endswith("12 mm, 712 HU") and " mL" in size
        assert evidence == (
            "P 0.96 → 0.12 with all candidates hidden, 0.91 with this one alone shown"
        )
        review.click(1)
        assert "→" not in review.words["detail"]
    fuller = replace(told, candidates=(replace(seen, p_without=0.41), *first.candidates[1:]))
    with open_review(window, desktop, add_review((fuller,), GRID)) as review:
        assert review.words["detail"].splitlines()[-1] == (
            "P 0.96 → 0.41 with this one alone hidden, 0.12 with all candidates hidden,"
            " 0.91 with this one alone shown"
        )


def test_results_of_a_scene_can_be_chosen(window: str, desktop: Desktop) -> None:
    """Those of the CT that is open: with another one, the next run would be of the wrong scan."""
    add_review(RESULT.vertebrae[:2], GRID, "Another CT")
    ct = add_review(RESULT.vertebrae[:1], GRID)
    add_review(RESULT.vertebrae[3:], GRID, ct=ct)
    with open_review(window, desktop, ct) as review:
        assert len(review.results) == 2, "not those of the other CT"
        assert all(name.startswith("CT metastases") for name in review.results)
        assert [cells[0] for cells in review.rows] == ["L1"]
        review.press("accept")
        review.choose_results(0)
        assert [cells[0] for cells in review.rows] == ["T10", "T10"]
        review.choose_results(1)
        assert states(review) == ["✓ accepted"]


def test_results_that_are_gone_are_not_offered(window: str, desktop: Desktop) -> None:
    """Where they are asked for all the same, the name that is shown stays that of the open ones."""
    import slicer

    ct = add_review(RESULT.vertebrae[:1], GRID)
    add_review(RESULT.vertebrae[1:2], GRID, ct=ct)
    add_review(RESULT.vertebrae[3:], GRID, ct=ct)
    with open_review(window, desktop, ct) as review:
        controller = review.controller
        first, second, third = (work.results for work in sessions_of(ct))
        gone = first.node.GetID()
        for results, left in ((first, 2), (second, 1)):
            slicer.mrmlScene.RemoveNode(results.node)
            if window == "browser":  # its page removes results by itself
                controller.drop_results()
            assert len(review.results) == left
            assert review.results[-1] == third.node.GetName()
        controller.choose_results(gone)
        assert review.words["message"] == "These results are no longer in the scene."
        assert controller.results.node is third.node and len(review.results) == 1


def sessions_of(ct: Any) -> list[Any]:
    from hideseekseg.ui.review_session import sessions

    return sessions(lambda text: None, ct)


def _places() -> list[float]:
    return [
        node.GetSliceToRAS().GetElement(r, 3)
        for node in _nodes("vtkMRMLSliceNode")
        for r in range(3)
    ]


def test_export_holds_what_was_accepted(review: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    review.press("accept")
    assert export(review.controller, tmp_path / "file", "A. Reader") == ()
    assert review.words["message"].startswith("Nothing was exported")
    files = export(review.controller, tmp_path, "A. Reader")
    assert {file.name for file in files} == set(EXPORTED)
    assert json.loads((tmp_path / "review.json").read_text("utf-8"))["reviewer"] == "A. Reader"


def test_flags_of_every_vertebra_are_seen_whatever_is_chosen(window: str, desktop: Desktop) -> None:
    """Also of vertebrae without a finding; each flag once, with all levels that it concerns."""
    shifted = "the outlines lie about 8 mm above the bone"
    flagged = [replace(v, flags=(*v.flags, shifted)) for v in RESULT.vertebrae]
    flagged[-1] = replace(flagged[-1], flags=(*flagged[-1].flags, "its label is in 2 pieces"))
    with open_review(window, desktop, add_review(tuple(flagged), GRID)) as opened:
        said = opened.words["quiet"].splitlines()
        levels = ", ".join(v.level for v in flagged)
        assert f"⚠ {levels}: {shifted}" in said
        assert f"⚠ {flagged[-1].level}: its label is in 2 pieces" in said


def test_what_is_said_of_one_finding_does_not_stand_with_another(
    window: str, desktop: Desktop
) -> None:
    first, *others = RESULT.vertebrae
    flagged = replace(first, flags=(*first.flags, unstable("T10-2")))
    with open_review(window, desktop, add_review((flagged, *others), GRID)) as opened:
        best = opened.words["detail"]
        opened.click(1)
        second = opened.words["detail"]
        assert f"⚠ T10: {unstable('T10-2')}" in opened.words["quiet"].splitlines()
    assert best.splitlines()[0] == "T10 blastic 1 (cut by the field of view)"
    assert unstable("T10-2") in second and "cut by the field of view" in second
