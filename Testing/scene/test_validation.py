"""What a run is given: the user's data as they lie in the patient, themselves untouched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.findings import Floats, body_centre, make_ct, make_grid, positions
from helpers.scene import Slicer, add_ct, add_segmentation, add_transform, everything_of
from hideseekseg.anatomy.labelling import assign
from hideseekseg.errors import InputError
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.segmentation import Segmentation
from hideseekseg.imaging.volume import Grid

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
reading = pytest.importorskip("hideseekseg.scene.export_inputs", reason="slicer-core is missing")


def turned(degrees: float) -> Floats:
    """RAS 4x4: a turn about an oblique axis and a shift."""
    a, b = np.deg2rad([degrees, degrees / 2])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = x @ z
    matrix[:3, 3] = (12.0, -7.5, 30.0)
    return matrix


CT_GRID = make_grid((60, 40, 40), (1.5, 1.5, 2.0), turned(20)[:3, :3])
FINE_GRID = make_grid((70, 60, 60), (1.0, 1.0, 1.6), turned(-15)[:3, :3], (2.0, 3.0, -1.0))


@pytest.fixture(autouse=True)
def scene(mrml: Slicer) -> Iterator[Slicer]:
    mrml.scene.Clear(False)
    yield mrml
    mrml.scene.Clear(False)


def boxes(grid: Grid, names: tuple[str, ...] = ("T10", "T11", "T12", "L1")) -> dict[str, Any]:
    """The bodies of the drawn spine on any grid."""
    where = positions(grid)
    inside = [(np.abs(where - body_centre(n)) < (14.0, 12.0, 11.0)).all(axis=-1) for n in range(4)]
    return {f"vertebrae_{name}": mask for name, mask in zip(names, inside)}


def centre_of(name: str) -> Floats:
    """LPS; the last body is cut by the CT's end."""
    return CT_GRID.lps(np.argwhere(boxes(CT_GRID)[name])[:, ::-1]).mean(axis=0)


def make_scene(segments: Grid = CT_GRID) -> tuple[Any, Any]:
    ct = add_ct(make_ct(CT_GRID).array.astype(np.int16), CT_GRID.ijk_to_lps)
    return ct, add_segmentation(boxes(segments), segments.ijk_to_lps, "vertebrae")


def levels_in(path: Path) -> dict[str, Floats]:
    """LPS centre of what the library reads as each level."""
    segmentation = read_segmentation(path)
    centres = {}
    for a in assign(segmentation, "names"):
        if a.level:
            kji = np.argwhere(segmentation.mask(a.segment))
            centres[a.level] = segmentation.grid.lps(kji[:, ::-1]).mean(axis=0)
    return centres


def in_lps(ras: Floats, point: Floats) -> Floats:
    flip = np.array([-1.0, -1.0, 1.0])
    return np.asarray(flip * (ras[:3, :3] @ (flip * point) + ras[:3, 3]))


def test_files_are_what_lies_in_the_scene(tmp_path: Path) -> None:
    ct, segmentation = make_scene()
    inputs = reading.writeInputs(ct, segmentation, {}, tmp_path)
    read = read_ct(inputs.ct)
    np.testing.assert_array_equal(read.array, slicer.util.arrayFromVolume(ct))
    assert read.grid.matches(CT_GRID)
    written = read_segmentation(inputs.segmentation)
    masks = {a.level: written.mask(a.segment) for a in assign(written, inputs.labels)}
    for name, mask in boxes(CT_GRID).items():
        expected = CT_GRID.lps(np.argwhere(mask)[:, ::-1])
        found = written.grid.lps(np.argwhere(masks[name[10:]])[:, ::-1])
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_segmentation_on_another_lattice_keeps_it(tmp_path: Path) -> None:
    ct, segmentation = make_scene(FINE_GRID)
    inputs = reading.writeInputs(ct, segmentation, {}, tmp_path)
    written = read_segmentation(inputs.segmentation)
    np.testing.assert_allclose(written.grid.spacing, FINE_GRID.spacing)
    for n, centre in enumerate(levels_in(inputs.segmentation).values()):
        np.testing.assert_allclose(centre, body_centre(n), atol=0.6)


@pytest.mark.parametrize("moved", ["ct", "segmentation", "both"])
def test_transforms_are_applied_to_copies(tmp_path: Path, moved: str) -> None:
    ct, segmentation = make_scene(FINE_GRID)
    transform = add_transform(turned(33))
    for name, node in (("ct", ct), ("segmentation", segmentation)):
        if moved in (name, "both"):
            node.SetAndObserveTransformNodeID(transform.GetID())
    before = everything_of(segmentation)
    inputs = reading.writeInputs(ct, segmentation, {}, tmp_path)
    assert everything_of(segmentation) == before
    corner = read_ct(inputs.ct).grid.lps((3.0, 5.0, 7.0))
    here = CT_GRID.lps((3.0, 5.0, 7.0))
    expected = here if moved == "segmentation" else in_lps(turned(33), here)
    np.testing.assert_allclose(corner, expected, atol=1e-3)
    for n, centre in enumerate(levels_in(inputs.segmentation).values()):
        there = np.array(body_centre(n))
        expected = there if moved == "ct" else in_lps(turned(33), there)
        np.testing.assert_allclose(centre, expected, atol=0.6)


@pytest.mark.parametrize("kind", ["shear", "bend"])
def test_a_transform_that_bends_the_segmentation_lands_on_the_ct(tmp_path: Path, kind: str) -> None:
    ct, segmentation = make_scene(FINE_GRID)
    if kind == "shear":
        matrix = np.eye(4)
        matrix[0, 2], matrix[2, 3] = 0.2, 4.0
        node = add_transform(matrix)
    else:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
        node.SetAndObserveTransformFromParent(_thin_plate(np.array([0.0, 0.0, 4.0])))
        matrix = np.eye(4)
        matrix[2, 3] = 4.0
    segmentation.SetAndObserveTransformNodeID(node.GetID())
    before = everything_of(segmentation)
    inputs = reading.writeInputs(ct, segmentation, {}, tmp_path)
    assert everything_of(segmentation) == before
    assert read_segmentation(inputs.segmentation).grid.matches(CT_GRID)
    inner = list(levels_in(inputs.segmentation).items())[1:3]
    for n, (level, centre) in enumerate(inner, 1):
        assert level == ("T10", "T11", "T12")[n]
        np.testing.assert_allclose(centre, in_lps(matrix, np.array(body_centre(n))), atol=1.5)


def _thin_plate(shift: Floats) -> Any:
    import vtk

    points, moved = vtk.vtkPoints(), vtk.vtkPoints()
    for corner in np.ndindex(2, 2, 2):
        at = 200.0 * (np.array(corner) - 0.5)
        points.InsertNextPoint(*(at + shift))
        moved.InsertNextPoint(*at)
    transform = vtk.vtkThinPlateSplineTransform()
    transform.SetBasisToR()
    transform.SetSourceLandmarks(points)
    transform.SetTargetLandmarks(moved)
    return transform


def test_surfaces_alone_are_enough(tmp_path: Path) -> None:
    ct, segmentation = make_scene(FINE_GRID)
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.SetSourceRepresentationToClosedSurface()
    segmentation.RemoveBinaryLabelmapRepresentation()
    mtime = segmentation.GetSegmentation().GetMTime()
    inputs = reading.writeInputs(ct, segmentation, {}, tmp_path)
    assert not segmentation.GetSegmentation().ContainsRepresentation("Binary labelmap")
    assert segmentation.GetSegmentation().GetMTime() == mtime
    centres = levels_in(inputs.segmentation)
    assert list(centres) == ["T10", "T11", "T12", "L1"]
    for n, centre in enumerate(centres.values()):
        np.testing.assert_allclose(centre, body_centre(n), atol=1.5)


def test_overlapping_segments_and_shared_layers(tmp_path: Path) -> None:
    ct, _ = make_scene()
    grown = boxes(CT_GRID)["vertebrae_T10"]
    grown[:, :, 5:20] |= boxes(CT_GRID)["vertebrae_T11"][:, :, 5:20]
    again = add_segmentation({**boxes(CT_GRID), "T9 body": grown}, CT_GRID.ijk_to_lps)
    again.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert again.GetSegmentation().GetNumberOfLayers() == 2
    before = everything_of(again)
    inputs = reading.writeInputs(ct, again, {}, tmp_path)
    assert everything_of(again) == before
    written = read_segmentation(inputs.segmentation)
    assert len(written.layers) == 2
    sizes = {a.level: int(written.mask(a.segment).sum()) for a in assign(written)}
    assert sizes["T9"] == grown.sum()
    assert sizes["T11"] == boxes(CT_GRID)["vertebrae_T11"].sum()


def test_layers_on_different_lattices_come_together(tmp_path: Path) -> None:
    ct, segmentation = make_scene()
    other = add_segmentation({"L1 body": boxes(FINE_GRID)["vertebrae_L1"]}, FINE_GRID.ijk_to_lps)
    segmentation.GetSegmentation().CopySegmentFromSegmentation(other.GetSegmentation(), "L1 body")
    inputs = reading.writeInputs(ct, segmentation, {"vertebrae_L1": "L2"}, tmp_path)
    centres = levels_in(inputs.segmentation)
    assert list(centres) == ["T10", "T11", "T12", "L2", "L1"]
    np.testing.assert_allclose(centres["L1"], body_centre(3), atol=0.8)
    np.testing.assert_allclose(centres["L2"], centre_of("vertebrae_L1"), atol=1e-3)


def test_bodies_of_another_segmentation_go_to_a_file_of_their_own(tmp_path: Path) -> None:
    ct, segmentation = make_scene()
    masks = boxes(FINE_GRID)
    bodies = {"vertebral bodies": masks["vertebrae_T10"] | masks["vertebrae_L1"]}
    other = add_segmentation({**bodies, "liver": masks["vertebrae_T11"]}, FINE_GRID.ijk_to_lps)
    other.GetSegmentation().CollapseBinaryLabelmaps(False)
    inputs = reading.writeInputs(ct, segmentation, {}, tmp_path, other)
    written = read_segmentation(inputs.bodies)
    marked = sum(int((layer.array > 0).sum()) for layer in written.layers)
    assert marked == bodies["vertebral bodies"].sum()


def test_long_and_foreign_paths(tmp_path: Path) -> None:
    ct, segmentation = make_scene()
    ct.SetName("Wirbelsäule: 脊椎/1")
    folder = tmp_path / ("Jürgen Müller 脊椎 " + "x" * 60) / ("y" * 80) / "Läufe"
    inputs = reading.writeInputs(ct, segmentation, {}, folder)
    assert list(levels_in(inputs.segmentation)) == ["T10", "T11", "T12", "L1"]
    assert sorted(p.name for p in folder.iterdir()) == ["ct.nrrd", "vertebrae.seg.nrrd"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ct, segmentation = make_scene()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="file"):
        reading.writeInputs(ct, segmentation, {}, tmp_path / "file")


def test_rows_say_what_was_understood_and_why() -> None:
    masks = list(boxes(CT_GRID).values())
    names = ("vertebrae_T10", "L1 vertebral body", "liver", "Segment_9")
    node = add_segmentation(dict(zip(names, masks)), CT_GRID.ijk_to_lps)
    rows = {r.name: (r.level, r.kind, r.why) for r in reading.levelRows(node)}
    assert rows == {
        "vertebrae_T10": ("T10", "vertebra", "by its name"),
        "L1 vertebral body": ("L1", "body", "by its name"),
        "liver": ("", "other", "by its name"),
        "Segment_9": ("", "vertebra", "has no name"),
    }
    said = {"Segment_9": "T11", "L1 vertebral body": "L2", "vertebrae_T10": "", "liver": "L2"}
    rows = {r.name: (r.level, r.kind, r.why) for r in reading.levelRows(node, said)}
    assert rows == {
        "vertebrae_T10": ("", "other", "set by you"),
        "L1 vertebral body": ("L2", "body", "set by you"),
        "liver": ("L2", "vertebra", "set by you"),
        "Segment_9": ("T11", "vertebra", "set by you"),
    }


def test_a_level_set_by_the_user_is_taken_from_another(tmp_path: Path) -> None:
    ct, segmentation = make_scene()
    said = {"vertebrae_L1": "T12"}
    rows = {r.segmentID: (r.level, r.why) for r in reading.levelRows(segmentation, said)}
    assert rows["vertebrae_L1"] == ("T12", "set by you")
    assert rows["vertebrae_T12"] == ("", '"vertebrae_L1" is T12 already')
    assert reading.problems(ct, segmentation, said) == []
    inputs = reading.writeInputs(ct, segmentation, said, tmp_path)
    centres = levels_in(inputs.segmentation)
    np.testing.assert_allclose(centres["T12"], centre_of("vertebrae_L1"), atol=1e-3)
    assert list(centres) == ["T10", "T11", "T12"]


def test_names_that_tell_nothing_can_be_read_by_a_convention() -> None:
    masks = dict(zip(("Segment_32", "Segment_31"), boxes(CT_GRID).values()))
    node = add_segmentation(masks, CT_GRID.ijk_to_lps)
    for value, name in zip((32, 31), masks):
        node.GetSegmentation().GetSegment(name).SetLabelValue(value)
    assert [r.level for r in reading.levelRows(node)] == ["", ""]
    rows = reading.levelRows(node, convention="totalsegmentator")
    assert [(r.level, r.value, r.why) for r in rows] == [
        ("T12", 32, "by totalsegmentator"),
        ("L1", 31, "by totalsegmentator"),
    ]


def test_a_segment_without_a_known_level_is_reported_not_lost(tmp_path: Path) -> None:
    ct, _ = make_scene()
    masks = dict(zip(("T10", "Segment_2", "liver"), boxes(CT_GRID).values()))
    node = add_segmentation(masks, CT_GRID.ijk_to_lps)
    inputs = reading.writeInputs(ct, node, {}, tmp_path)
    read: Segmentation = read_segmentation(inputs.segmentation)
    assert [(a.segment.name, a.level, a.kind) for a in assign(read, "names")] == [
        ("T10 vertebra", "T10", "vertebra"),
        ("Segment_2", None, "vertebra"),
    ]


def test_a_run_can_start() -> None:
    ct, segmentation = make_scene()
    assert reading.problems(ct, segmentation) == []


def one(found: list[str]) -> str:
    assert len(found) == 1
    assert "\n" not in found[0] and found[0].endswith(".")
    return found[0]


def test_what_is_missing_is_said() -> None:
    ct, segmentation = make_scene()
    assert reading.problems(None, None) == [
        "Choose a CT volume.",
        "Choose a segmentation of the vertebrae.",
    ]
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    assert '"nothing" is empty' in one(reading.problems(empty, segmentation))
    none = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "none")
    assert '"none" has no segments' in one(reading.problems(ct, none))
    none.GetSegmentation().AddEmptySegment("L1", "L1")
    assert '"none" is empty' in one(reading.problems(ct, none))
    slicer.mrmlScene.RemoveNode(ct)
    assert one(reading.problems(ct, segmentation)) == "Choose a CT volume."


def test_what_is_no_ct_is_refused(scene: Slicer) -> None:
    ct, segmentation = make_scene()
    quantity = slicer.vtkCodedEntry()
    quantity.SetValueSchemeMeaning("110852", "DCM", "MR signal intensity")
    ct.SetVoxelValueQuantity(quantity)
    assert "is MR by its DICOM data" in one(reading.problems(ct, segmentation))
    ct.SetVoxelValueQuantity(None)
    assert reading.problems(ct, segmentation) == []
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene.scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    series = hierarchy.CreateItem(study, ct)
    hierarchy.SetItemAttribute(series, "DICOM.Modality", "PT")
    assert "is PT by its DICOM data" in one(reading.problems(ct, segmentation))
    hierarchy.SetItemAttribute(series, "DICOM.Modality", "CT")
    assert reading.problems(ct, segmentation) == []


def test_colours_slices_and_label_maps_are_refused() -> None:
    _, segmentation = make_scene()
    colour = slicer.util.addVolumeFromArray(
        np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
    )
    assert "3 values per voxel" in one(reading.problems(colour, segmentation))
    flat = add_ct(np.zeros((1, 5, 6), np.int16), CT_GRID.ijk_to_lps)
    assert "single slice" in one(reading.problems(flat, segmentation))
    labels = slicer.util.addVolumeFromArray(
        np.zeros((4, 5, 6), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    assert "label map" in one(reading.problems(labels, segmentation))


def test_a_ct_that_is_bent_or_slanted_is_refused() -> None:
    ct, segmentation = make_scene()
    bend = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    bend.SetAndObserveTransformFromParent(_thin_plate(np.zeros(3)))
    ct.SetAndObserveTransformNodeID(bend.GetID())
    assert "harden the transform" in one(reading.problems(ct, segmentation))
    shear = np.eye(4)
    shear[1, 2] = 0.2
    ct.SetAndObserveTransformNodeID(add_transform(shear).GetID())
    assert "slanted axes" in one(reading.problems(ct, segmentation))


def test_levels_that_are_none_and_levels_twice_are_named() -> None:
    ct, segmentation = make_scene()
    wrong = one(reading.problems(ct, segmentation, {"vertebrae_T10": "Q7"}))
    assert wrong.startswith('vertebrae_T10: "Q7" is not a level')
    twice = {"vertebrae_T10": "L3", "vertebrae_T11": "L3"}
    assert "L3 already" in one(reading.problems(ct, segmentation, twice))
    nothing = add_segmentation({"liver": boxes(CT_GRID)["vertebrae_L1"]}, CT_GRID.ijk_to_lps)
    assert "set the levels in the table" in one(reading.problems(ct, nothing))


def test_another_patients_segmentation_is_noticed() -> None:
    ct, segmentation = make_scene()
    away = np.eye(4)
    away[0, 3] = 900.0
    segmentation.SetAndObserveTransformNodeID(add_transform(away).GetID())
    assert "does not overlap" in one(reading.problems(ct, segmentation))
