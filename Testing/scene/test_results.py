"""The results in a real scene: where they lie, what they say, and that nothing of them is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from helpers.findings import (
    Floats,
    ball,
    body_centre,
    make_candidate,
    make_ct,
    make_evidence,
    make_grid,
    make_result,
)
from helpers.scene import (
    RAS_FROM_LPS,
    Slicer,
    add_ct,
    add_segmentation,
    add_transform,
    everything_of,
)
from hideseekseg.findings import Evidence, Result, Status, VertebraFinding
from hideseekseg.imaging.volume import Grid, Patch, Volume

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("slicer.util", reason="slicer-core is not installed")

from hideseekseg.anatomy.label_conventions import LEVELS, SNOMED, VERTEBRA_CODE  # noqa: E402
from hideseekseg.review.review import Review  # noqa: E402
from hideseekseg.scene import import_data as vocabulary  # noqa: E402
from hideseekseg.scene import views  # noqa: E402
from hideseekseg.scene.results import Results, SceneError  # noqa: E402
from hideseekseg.scene.review_storage import restore, store  # noqa: E402
from hideseekseg.scene.segments import tag  # noqa: E402


def turned(degrees: float) -> Floats:
    """RAS 4x4: a turn about the patient's long axis and a shift."""
    a = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    matrix[:3, 3] = (12.0, -7.5, 30.0)
    return matrix


GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0), turned(25)[:3, :3])


@cache
def result_of_run() -> Result:
    return make_result(GRID)


@cache
def volume_and_evidence() -> tuple[Volume, Evidence]:
    """A CT with bodies, and what the method saw of its L1."""
    volume, result = make_ct(GRID), result_of_run()
    silent = [VertebraFinding(v.level, Status.NOT_ANALYSED) for v in result.vertebrae[:-1]]
    last = replace(result, vertebrae=(*silent, result.vertebrae[-1]))
    return volume, make_evidence(volume, last)["L1"]


@pytest.fixture(autouse=True)
def scene(mrml: Slicer) -> Iterator[Any]:
    mrml.scene.Clear(False)
    yield mrml.scene
    mrml.scene.Clear(False)


@pytest.fixture
def ct() -> Any:
    return add_ct(np.zeros(GRID.shape, np.int16), GRID.ijk_to_lps, "Chest")


def run(ct: Any, result: Result | None = None) -> tuple[Results, Review]:
    """Results and review after a whole run."""
    result = result or result_of_run()
    results, review = Results.create(ct, None, result.run), Review(result.threshold)
    for finding in result.vertebrae:
        review.add_vertebra(finding)
        results.addVertebra(finding)
    results.apply(review)
    return results, review


def candidates(result: Result) -> dict[str, Any]:
    return {c.id: c for v in result.vertebrae for c in v.candidates}


def visible(results: Results) -> set[str]:
    display = results.node.GetDisplayNode()
    names = results.node.GetSegmentation().GetSegmentIDs()
    return {name for name in names if display.GetSegmentVisibility(name)}


def segment(results: Results, name: str) -> Any:
    return results.node.GetSegmentation().GetSegment(name)


def on_ct(results: Results, name: str, ct: Any) -> Any:
    """The segment as Slicer itself shows it on the CT."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(results.node, name, ct) != 0


def test_lesions_lie_on_the_voxels_of_the_ct(ct: Any) -> None:
    results, _ = run(ct)
    assert results.node.GetName() == "Chest metastases"
    for name, candidate in candidates(result_of_run()).items():
        expected = np.zeros(GRID.shape, bool)
        candidate.patch.paint(expected)
        np.testing.assert_array_equal(on_ct(results, name, ct), expected)
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert results.node.GetNodeReference(role) is ct


def test_overlapping_lesions_keep_all_their_voxels(ct: Any) -> None:
    results, _ = run(ct)
    assert (on_ct(results, "T10-1", ct) & on_ct(results, "T10-2", ct)).any()


def test_a_ct_under_a_transform_carries_its_lesions(ct: Any) -> None:
    transform = add_transform(turned(40))
    ct.SetAndObserveTransformNodeID(transform.GetID())
    results, _ = run(ct)
    expected = np.zeros(GRID.shape, bool)
    candidates(result_of_run())["L1-1"].patch.paint(expected)
    np.testing.assert_array_equal(on_ct(results, "L1-1", ct), expected)
    middle = np.argwhere(expected)[:, ::-1].mean(axis=0)
    bounds = [0.0] * 6
    results.node.GetRASBounds(bounds)
    world = (turned(40) @ RAS_FROM_LPS @ np.array([*GRID.lps(middle), 1.0]))[:3]
    assert all(a <= x <= b for x, a, b in zip(world, bounds[::2], bounds[1::2]))
    here = results.here(tuple(world * (-1, -1, 1)))
    np.testing.assert_allclose(here, world * (-1, -1, 1), atol=1e-6)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.eye(4)))
    moved = results.here(tuple(world * (-1, -1, 1)))
    np.testing.assert_allclose(moved, GRID.lps(middle), atol=1e-6)


def test_results_stand_beside_the_ct_in_subject_hierarchy(scene: Any, ct: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, ct)
    results, _ = run(ct)
    for node in (results.node, results.tableNode):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_names_colours_tags_and_terminology(scene: Any, ct: Any, mrml: Slicer) -> None:
    results, review = run(ct)
    first = segment(results, "T10-1")
    assert first.GetName() == "T10 blastic 1"
    red, green, blue = first.GetColor()
    assert red > green > blue, "blastic is orange"
    assert float(tag(first, "HideSeekSeg.Score") or "") == pytest.approx(0.91)
    assert tag(first, "HideSeekSeg.PMalignant") == "0.9830"
    assert tag(first, "HideSeekSeg.Level") == "T10"
    logic = mrml.logics["Segmentations"]
    assert logic.GetSegmentStatus(first) == logic.NotStarted

    review.judge("T10-1", "accepted")
    review.judge("T10-2", "rejected")
    review.comment("T10-1", "rim: sclerotic | old")
    review.switch_type("L1-1")
    results.apply(review)
    assert logic.GetSegmentStatus(first) == logic.Completed
    assert logic.GetSegmentStatus(segment(results, "T10-2")) == logic.Flagged
    assert tag(first, "HideSeekSeg.Verdict") == "accepted"
    assert tag(first, "HideSeekSeg.Comment") == "rim  sclerotic   old"
    entry = slicer.vtkSlicerTerminologyEntry()
    assert mrml.logics["Terminologies"].DeserializeTerminologyEntry(first.GetTerminology(), entry)
    assert entry.GetTypeObject().GetCodeValue() == "14799000"
    assert entry.GetRegionObject().GetCodeMeaning() == "T10 vertebra"
    switched = segment(results, "L1-1")
    assert switched.GetName() == "L1 blastic 1"
    assert switched.GetColor()[0] > switched.GetColor()[2]
    review.undo()
    results.apply(review)
    assert switched.GetName() == "L1 lytic 1"


def test_threshold_and_verdicts_decide_what_is_seen(ct: Any) -> None:
    results, review = run(ct)
    assert visible(results) == {"T10-1", "T10-2", "L1-1"}
    review.judge("T10-3", "accepted")
    review.judge("T10-1", "rejected")
    review.set_threshold(0.7)
    results.apply(review)
    assert visible(results) == {"T10-2", "T10-3"}
    views.isolate(results.node, "T10-1")
    assert visible(results) == {"T10-1"}, "also one that is rejected can be looked at"
    results.apply(review)
    assert visible(results) == {"T10-1"}
    views.isolate(results.node, None)
    assert visible(results) == {"T10-2", "T10-3"}
    views.showOverlay(results.node, False)
    assert not results.node.GetDisplayNode().GetVisibility()


def test_table_lists_all_candidates(ct: Any) -> None:
    results, review = run(ct)
    table = results.tableNode
    assert table.GetName() == "Chest metastases candidates"
    assert table.GetNumberOfRows() == 4
    review.judge("T10-3", "accepted")
    results.apply(review)
    column = {table.GetColumnName(n): n for n in range(table.GetNumberOfColumns())}
    rows = [{name: table.GetCellText(row, n) for name, n in column.items()} for row in range(4)]
    assert [r["name"] for r in rows] == [
        "T10 blastic 1",
        "T10 lytic 1",
        "L1 lytic 1",
        "T10 lytic 2",
    ]
    assert [r["verdict"] for r in rows] == ["unreviewed"] * 3 + ["accepted"]
    x, y, z = candidates(result_of_run())["T10-1"].centroid_lps
    seen = [float(rows[0][name]) for name in ("R (mm)", "A (mm)", "S (mm)")]
    np.testing.assert_allclose(seen, (-x, -y, z), atol=1e-3)


def test_users_segmentation_stays_as_it_was(ct: Any) -> None:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[20:40, 20:30, 20:30] = 1
    own = add_segmentation({"vertebrae_T10": mask}, GRID.ijk_to_lps)
    before = everything_of(own)
    results = Results.create(ct, own, {})
    for finding in result_of_run().vertebrae:
        results.addVertebra(finding)
    review = Review()
    review.add_vertebra(result_of_run().vertebrae[0])
    results.apply(review)
    store(results.node, review)
    views.isolate(results.node, "T10-1")
    assert everything_of(own) == before


def test_lesions_show_in_3d_until_the_user_says_no(ct: Any) -> None:
    result = result_of_run()
    results = Results.create(ct, None, {})
    first, *rest = result.vertebrae
    results.addVertebra(first)
    bounds = results.node.GetClosedSurfaceInternalRepresentation("T10-1").GetBounds()
    middle = np.add(bounds[::2], bounds[1::2]) / 2 * (-1, -1, 1)
    np.testing.assert_allclose(middle, candidates(result)["T10-1"].centroid_lps, atol=1.5)
    results.node.RemoveClosedSurfaceRepresentation()
    for finding in rest:
        results.addVertebra(finding)
    assert not results.node.GetSegmentation().ContainsRepresentation("Closed surface")


def test_a_vertebra_that_comes_again_replaces_the_first(ct: Any) -> None:
    results, review = run(ct)
    review.judge("T10-1", "accepted")
    finding = result_of_run().vertebrae[0]
    again = replace(finding, candidates=finding.candidates[:1])
    review.add_vertebra(again)
    results.addVertebra(again)
    results.apply(review)
    assert set(results.node.GetSegmentation().GetSegmentIDs()) == {"T10-1", "L1-1"}
    assert tag(segment(results, "T10-1"), "HideSeekSeg.Verdict") == "accepted"


def test_a_missed_lesion_is_drawn_by_the_reader(ct: Any) -> None:
    results, review = run(ct)
    name = review.add_missed("T11", "lytic")
    results.apply(review)
    assert segment(results, name).GetName() == review.item(name).name
    assert "14799000" in segment(results, name).GetTerminology()
    assert name not in results.patches()
    drawn = np.zeros(GRID.shape, np.uint8)
    drawn[30:34, 20:25, 20:26] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, results.node, name, ct)
    patch = results.patches([name])[name]
    seen = np.zeros(GRID.shape, np.uint8)
    patch.paint(seen)
    np.testing.assert_array_equal(seen, drawn)
    assert name in visible(results)
    results.addVertebra(result_of_run().vertebrae[1])
    assert name in results.patches(), "a new run of the level leaves it"
    review.undo()
    results.apply(review)
    assert name not in visible(results)
    review.redo()
    results.apply(review)
    assert name in visible(results)


def test_patches_come_back_as_they_were_and_as_they_were_edited(ct: Any) -> None:
    results, _ = run(ct)
    assert results.grid.matches(GRID)
    for name, patch in results.patches().items():
        given = candidates(result_of_run())[name].patch
        assert patch.start == given.start
        np.testing.assert_array_equal(patch.array, given.array)
    edited = on_ct(results, "L1-1", ct).astype(np.uint8)
    edited[:, :, ::2] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, results.node, "L1-1", ct)
    patch = results.patches(["L1-1"])["L1-1"]
    assert patch.array.sum() == edited.sum()


@pytest.mark.parametrize("transformed", [False, True])
def test_pictures_lie_on_the_anatomy(scene: Any, transformed: bool) -> None:
    volume, evidence = volume_and_evidence()
    ct = add_ct(volume.array, GRID.ijk_to_lps, "Chest")
    matrix = np.eye(4)
    if transformed:
        matrix = turned(40)
        ct.SetAndObserveTransformNodeID(add_transform(matrix).GetID())
        lps = RAS_FROM_LPS @ matrix @ RAS_FROM_LPS @ evidence.grid.ijk_to_lps
        evidence = replace(evidence, grid=Grid(evidence.grid.shape, lps))
    results, _ = run(ct)
    edit, difference = results.evidenceVolumes(evidence, "L1")
    assert (edit.GetName(), difference.GetName()) == (
        "Chest L1 healthy edit",
        "Chest L1 difference",
    )
    marked = np.unravel_index(np.argmax(evidence.difference), evidence.difference.shape)
    ras = RAS_FROM_LPS @ np.array([*evidence.grid.lps(marked[::-1]), 1.0])
    for node, array in ((edit, evidence.edit), (difference, evidence.difference)):
        inverse = vtk_inverse(node)
        local = np.linalg.inv(matrix) @ ras
        i, j, k = np.rint((inverse @ local)[:3]).astype(int)
        np.testing.assert_allclose((inverse @ local)[:3], (i, j, k), atol=1e-3)
        assert slicer.util.arrayFromVolume(node)[k, j, i] == array[marked]
        assert node.GetTransformNodeID() == ct.GetTransformNodeID()
    low, high = (
        difference.GetDisplayNode().GetWindowLevelMin(),
        difference.GetDisplayNode().GetWindowLevelMax(),
    )
    assert low == pytest.approx(-high)
    again, _ = results.evidenceVolumes(evidence, "T10")
    assert again is edit
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 3


def vtk_inverse(node: Any) -> Floats:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetRASToIJKMatrix(matrix)
    return np.asarray(slicer.util.arrayFromVTKMatrix(matrix))


def test_views_jump_and_flick(scene: Any) -> None:
    volume, evidence = volume_and_evidence()
    ct = add_ct(volume.array, GRID.ijk_to_lps, "Chest")
    slices = [scene.AddNewNodeByClass("vtkMRMLSliceNode") for _ in range(2)]
    for node, orientation in zip(slices, ("Sagittal", "Axial")):
        node.SetOrientation(orientation)
    camera = scene.AddNewNodeByClass("vtkMRMLCameraNode")
    layers = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    distance = np.subtract(camera.GetPosition(), camera.GetFocalPoint())
    told: list[str] = []
    camera.AddObserver(camera.ResetCameraClippingEvent, lambda *_: told.append("depth"))
    views.jumpTo((10.0, -20.0, 30.0))
    assert told == ["depth"], "Slicer's 3D views would cut what they did not reach before"
    for node in slices:
        to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
        np.testing.assert_allclose(to_ras[:3, 3], (-10, 20, 30))
    np.testing.assert_allclose(camera.GetFocalPoint(), (-10, 20, 30))
    np.testing.assert_allclose(np.subtract(camera.GetPosition(), camera.GetFocalPoint()), distance)
    results, _ = run(ct)
    edit, _ = results.evidenceVolumes(evidence, "L1")
    views.showBackground(ct)
    assert (layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID()) == (ct.GetID(), None)
    views.showBackground(edit)
    assert layers.GetBackgroundVolumeID() == ct.GetID()
    assert layers.GetForegroundVolumeID() == edit.GetID()
    assert layers.GetForegroundOpacity() == 1.0
    views.boneWindow(ct)
    display = ct.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel()) == (1800.0, 400.0)
    assert not display.GetAutoWindowLevel()


def judged(ct: Any) -> tuple[Results, Review]:
    results, review = run(ct)
    review.judge("T10-1", "accepted")
    review.judge("T10-2", "rejected")
    review.comment("T10-2", 'a; "quoted" % comment: Rückwand | 骨')
    review.set_threshold(0.35)
    review.switch_type("L1-1")
    review.undo()
    results.apply(review)
    store(results.node, review)
    return results, review


def check_restored(review: Review | None, before: Review) -> None:
    assert review is not None
    assert review.to_json() == before.to_json()
    assert review.item("T10-1").verdict == "accepted"
    assert review.threshold == 0.35
    assert review.redo() == ("L1-1",)
    assert review.item("L1-1").type == "blastic"
    review.undo()
    review.undo()
    assert review.threshold == 0.5


def test_a_saved_scene_brings_the_review_back(mrml: Slicer, ct: Any, tmp_path: Path) -> None:
    results, review = judged(ct)
    views.isolate(results.node, "T10-2")
    patches = results.patches()
    path = tmp_path / "Läufe 脊椎.mrb"
    assert mrml.scene.WriteToMRB(str(path))
    mrml.scene.Clear(False)
    mrml.scene.SetURL(str(path))
    assert mrml.scene.ReadFromMRB(str(path), True)
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert len(nodes) == 1
    again = Results.of(nodes[0])
    check_restored(restore(again.node), review)
    assert again.ctNode.GetName() == "Chest"
    assert again.run == result_of_run().run
    assert again.tableNode.GetNumberOfRows() == 4
    assert visible(again) == {"T10-2"}
    for name, patch in again.patches().items():
        assert patch.start == patches[name].start
        np.testing.assert_array_equal(patch.array, patches[name].array)
    views.isolate(again.node, None)
    assert visible(again) == {"T10-1", "L1-1"}
    fresh = restore(again.node)
    assert fresh is not None
    fresh.judge("T10-2", "accepted")
    again.apply(fresh)
    assert visible(again) == {"T10-1", "T10-2", "L1-1"}


def test_the_segmentation_file_alone_brings_the_review_back(
    mrml: Slicer, ct: Any, tmp_path: Path
) -> None:
    results, review = judged(ct)
    path = tmp_path / "lesions.seg.nrrd"
    storage = slicer.vtkMRMLSegmentationStorageNode()
    mrml.scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.WriteData(results.node) == 1
    mrml.scene.Clear(False)
    mrml.scene.AddNode(storage)
    storage.SetFileName(str(path))
    node = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(node) == 1
    check_restored(restore(node), review)
    first = node.GetSegmentation().GetSegment("T10-1")
    assert tag(first, "HideSeekSeg.Verdict") == "accepted"


def test_a_mean_that_an_earlier_version_wrote_as_nan_is_not_known(ct: Any) -> None:
    results, review = judged(ct)
    data = review.to_json()
    data["lesions"][0]["mean_hu"] = float("nan")
    results.node.SetAttribute("HideSeekSeg.Review", json.dumps(data))
    again = restore(results.node)
    assert again is not None and again.items[0].mean_hu is None
    again.judge(again.items[0].id, "rejected")
    store(results.node, again)
    assert "NaN" not in results.node.GetAttribute("HideSeekSeg.Review")


def test_a_damaged_review_is_refused_in_one_line(ct: Any) -> None:
    results, _ = judged(ct)
    results.node.SetAttribute("HideSeekSeg.Review", '{"threshold": ')
    with pytest.raises(ValueError, match="cannot be read") as caught:
        restore(results.node)
    assert "\n" not in str(caught.value)
    assert restore(ct) is None


def test_ct_removed_in_the_middle_loses_nothing(scene: Any, ct: Any) -> None:
    result = result_of_run()
    results, review = Results.create(ct, None, {}), Review()
    first, *rest = result.vertebrae
    results.addVertebra(first)
    review.add_vertebra(first)
    scene.RemoveNode(ct)
    assert results.ctNode is None
    for finding in rest:
        results.addVertebra(finding)
        review.add_vertebra(finding)
    results.apply(review)
    assert set(results.patches()) == set(candidates(result))
    patch = results.patches()["L1-1"]
    given = candidates(result)["L1-1"].patch
    assert patch.start == given.start
    edit, _ = results.evidenceVolumes(volume_and_evidence()[1], "L1")
    assert edit.GetImageData() is not None
    with pytest.raises(SceneError, match=r"^The CT was removed[^\n]*$"):
        Results.create(ct, None, {})


def test_results_removed_in_the_middle_can_be_put_back(scene: Any, ct: Any) -> None:
    result = result_of_run()
    results, review = Results.create(ct, None, result.run), Review()
    first, *rest = result.vertebrae
    results.addVertebra(first)
    scene.RemoveNode(results.node)
    assert not results.alive
    for finding in rest:
        review.add_vertebra(finding)
        with pytest.raises(SceneError, match=r"^The results were removed[^\n]*$"):
            results.addVertebra(finding)
    with pytest.raises(SceneError):
        results.apply(review)
    again = results.recreated()
    again.apply(review)
    assert set(again.patches()) == set(candidates(result))
    assert again.run == result.run


def test_outlines_of_the_reader_are_put_back(scene: Any, ct: Any) -> None:
    """Drawn, corrected, erased; also one whose addition was undone, as it can be redone."""
    results, review = run(ct)
    drawn, undone = review.add_missed("T11", "lytic"), review.add_missed("T12", "blastic")
    results.apply(review)
    results.draw(drawn, ball(GRID, body_centre(1), 5.0))
    results.draw(undone, ball(GRID, body_centre(2), 4.0))
    results.draw("L1-1", ball(GRID, body_centre(3), 3.0))
    results.draw("T10-3", Patch(np.zeros((4, 4, 4), bool), (0, 0, 0)))
    review.undo()
    results.apply(review)
    before = results.patches()
    assert set(before) == {"T10-1", "T10-2", "L1-1", drawn, undone}
    for _ in range(2):  # and once more, from what was put back
        scene.RemoveNode(results.node)
        results = results.recreated()
        results.apply(review)
        check_outlines(results.patches(), before)
        assert undone not in visible(results) and drawn in visible(results)
        assert segment(results, drawn).GetName() == review.item(drawn).name
        bounds = results.node.GetClosedSurfaceInternalRepresentation("L1-1").GetBounds()
        np.testing.assert_allclose(np.ptp(np.reshape(bounds, (3, 2)), axis=1), 6.0, atol=2.0)
    review.redo()
    results.apply(review)
    assert undone in visible(results)


def test_outlines_of_an_earlier_run_are_not_put_back(scene: Any, ct: Any) -> None:
    """Where a vertebra came again after the results were removed: ids may be the same."""
    results, review = run(ct)
    scene.RemoveNode(results.node)
    small = ball(GRID, body_centre(3), 4.0)
    lesion = make_candidate("L1-1", "lytic", 0.8, small, GRID)
    first, *_rest = result_of_run().vertebrae
    for finding in (
        VertebraFinding("L1", Status.FINDINGS, candidates=(lesion,)),
        replace(first, candidates=first.candidates[:1]),
    ):
        review.add_vertebra(finding)
        with pytest.raises(SceneError):
            results.addVertebra(finding)
    again = results.recreated()
    again.apply(review)
    known = candidates(result_of_run())
    check_outlines(again.patches(), {"T10-1": known["T10-1"].patch, "L1-1": small})


def check_outlines(now: dict[str, Patch], before: dict[str, Patch]) -> None:
    assert now.keys() == before.keys()
    for name, patch in now.items():
        assert patch.start == before[name].start
        np.testing.assert_array_equal(patch.array, before[name].array)


def test_scene_closed_in_the_middle(scene: Any, ct: Any) -> None:
    results, review = run(ct)
    scene.Clear(False)
    assert not results.alive
    assert results.ctNode is None and results.tableNode is None
    with pytest.raises(SceneError):
        results.addVertebra(result_of_run().vertebrae[0])
    with pytest.raises(SceneError):
        results.apply(review)
    with pytest.raises(SceneError):
        results.recreated()


def test_table_removed_by_the_user_is_not_missed(scene: Any, ct: Any) -> None:
    results, review = run(ct)
    scene.RemoveNode(results.tableNode)
    review.judge("T10-1", "accepted")
    results.apply(review)
    assert tag(segment(results, "T10-1"), "HideSeekSeg.Verdict") == "accepted"


def test_a_second_run_stands_beside_the_first(ct: Any) -> None:
    first, _ = run(ct)
    second, _ = run(ct)
    assert first.node is not second.node
    assert first.node.GetName() != second.node.GetName()
    assert len(first.patches()) == len(second.patches()) == 4


def test_foreign_segmentations_are_no_results(ct: Any) -> None:
    own = add_segmentation({"T10": np.ones(GRID.shape, np.uint8)}, GRID.ijk_to_lps)
    assert not Results.isOne(own)
    assert not Results.isOne(ct)
    with pytest.raises(SceneError):
        Results.of(own)


def test_500_candidates_follow_the_slider(ct: Any) -> None:
    rng = np.random.default_rng(4)
    patches = [ball(GRID, body_centre(n), 2.5) for n in range(4)]
    results, review = Results.create(ct, None, {}), Review()
    for level in LEVELS[:20]:
        found = [
            make_candidate(f"{level}-{n}", "lytic", float(rng.uniform()), patches[n % 4], GRID)
            for n in range(25)
        ]
        finding = VertebraFinding(level, Status.FINDINGS, candidates=tuple(found))
        review.add_vertebra(finding)
        results.addVertebra(finding)
        results.node.RemoveClosedSurfaceRepresentation()  # 3D has no part in this
    results.apply(review)
    events: list[int] = []
    display = results.node.GetDisplayNode()
    display.AddObserver("ModifiedEvent", lambda *_: events.append(1))
    seconds = []
    for threshold in (0.1, 0.9, 0.3, 0.55, 0.8, 0.2, 0.6):
        began = time.perf_counter()
        review.set_threshold(threshold)
        results.apply(review)
        seconds.append(time.perf_counter() - began)
        assert len(visible(results)) == sum(x.score > threshold for x in review.items)
    assert np.median(seconds) < 0.05
    assert len(events) == len(seconds), "views are told once for each move"


def test_layout_of_a_review_has_a_large_sagittal_view(scene: Any) -> None:
    layout = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(7)
    views.showSagittal()
    views.showSagittal()
    assert layout.GetViewArrangement() == views.LAYOUT
    root = ElementTree.fromstring(layout.GetLayoutDescription(views.LAYOUT))
    assert root.get("type") == "horizontal"
    first, second = root.findall("item")
    assert next(text.text for text in first.iter("property")) == "Sagittal"
    assert [view.get("class") for view in second.iter("view")] == [
        *["vtkMRMLSliceNode"] * 2,
        "vtkMRMLViewNode",
    ]


def test_single_vertebrae_can_be_chosen_in_slicer(mrml: Slicer) -> None:
    name = vocabulary.loadVertebrae()
    assert name == "Single vertebrae - HideSeekSeg"
    logic = mrml.logics["Terminologies"]
    found = {}
    for n in range(logic.GetNumberOfRegionsInRegionContext(name)):
        region = slicer.vtkSlicerTerminologyType()
        assert logic.GetNthRegionInRegionContext(name, n, region)
        assert region.GetCodingSchemeDesignator() == "SCT"
        found[region.GetCodeMeaning()] = region.GetCodeValue()
    expected = {f"{k} vertebra": v for k, v in SNOMED.items() if v != VERTEBRA_CODE}
    assert found == expected


def test_patch_is_cut_where_the_segment_leaves_the_ct(ct: Any) -> None:
    results, review = run(ct)
    name = review.add_missed("T11", "lytic")
    results.apply(review)
    from hideseekseg.scene.geometry import imageOfPatch

    over = Patch(np.ones((6, 4, 4), bool), (-3, 2, 48))
    segment(results, name).AddRepresentation("Binary labelmap", imageOfPatch(over, GRID))
    patch = results.patches([name])[name]
    assert (patch.start, patch.array.shape) == ((0, 2, 48), (3, 4, 2))
