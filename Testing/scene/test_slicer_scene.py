"""A real MRML scene, as in 3D Slicer but without a window, reads what the library writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.findings import Floats, make_grid, make_result
from helpers.scene import Slicer
from hideseekseg.findings import Candidate, Result, Status
from hideseekseg.imaging.reading import read_segmentation
from hideseekseg.imaging.volume import Grid
from hideseekseg.output.seg_nrrd import write_segmentation

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("slicer.util", reason="slicer-core is not installed")
import vtk  # noqa: E402  (comes with slicer-core)
from vtk.util import numpy_support  # noqa: E402

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def rotation(degrees: tuple[float, float, float]) -> Floats:
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(x @ y @ z)


FLIPPED = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
SAGITTAL = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])
GRIDS = {
    "axial": make_grid((70, 50, 50), (1.2, 1.1, 2.0)),
    "flipped": make_grid((70, 50, 50), (1.2, 1.1, 2.0), FLIPPED, (3.25, 2.0, 5.5)),
    "sagittal": make_grid((30, 80, 60), (1.1, 1.7, 2.5), SAGITTAL, (5.0, 0.0, 10.0)),
    "oblique": make_grid((66, 60, 60), (1.15, 1.15, 2.1), rotation((17.0, -9.0, 31.0))),
    "oblique sagittal": make_grid((40, 80, 60), (1.1, 1.7, 2.2), rotation((-8, 21, 4)) @ SAGITTAL),
}


@pytest.fixture(params=list(GRIDS))
def grid(request: pytest.FixtureRequest) -> Grid:
    return GRIDS[request.param]


@pytest.fixture
def axial() -> Grid:
    return GRIDS["axial"]


def read(mrml: Slicer, path: Path) -> Any:
    """The file as a segmentation node, read by Slicer's own code, which must not complain."""
    mrml.scene.Clear(False)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    mrml.scene.AddNode(storage)
    storage.SetFileName(str(path))
    node = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(node) == 1
    assert storage.GetUserMessages().GetNumberOfMessages() == 0
    return node


def accepted(result: Result) -> list[tuple[str, Candidate]]:
    """Levels and candidates that are to be found in the file."""
    return [(v.level, c) for v in result.vertebrae for c in v.accepted(result.threshold)]


def tag(segment: Any, name: str) -> str:
    value = vtk.reference("")
    assert segment.GetTag(name, value), f"no tag {name}"
    return str(value)


def world_voxels(segment: Any) -> Floats:
    """LPS (N, 3) of the segment's voxels, from Slicer's labelmap and its own geometry."""
    image = segment.GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_ras = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    low = np.array(image.GetExtent()[::2])
    scalars = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    array = scalars.reshape(image.GetDimensions()[::-1])
    ijk = np.argwhere(array == segment.GetLabelValue())[:, ::-1] + low
    points = np.column_stack([ijk, np.ones(len(ijk))]) @ (RAS_FROM_LPS @ to_ras).T
    return np.asarray(points[:, :3])


def test_every_voxel_lies_where_it_lay_in_the_patient(
    mrml: Slicer, tmp_path: Path, grid: Grid
) -> None:
    result = make_result(grid)
    write_segmentation(tmp_path / "lesions.seg.nrrd", grid, result)
    segmentation = read(mrml, tmp_path / "lesions.seg.nrrd").GetSegmentation()
    for _, candidate in accepted(result):
        assert candidate.patch is not None
        ijk = (np.argwhere(candidate.patch.array) + candidate.patch.start)[:, ::-1]
        seen = world_voxels(segmentation.GetSegment(candidate.id))
        assert len(seen) == len(ijk) > 50
        assert np.abs(seen - grid.lps(ijk)).max() < 1e-3


def test_on_the_ct_in_the_scene_masks_equal_and_overlaps_stay(
    mrml: Slicer, tmp_path: Path, grid: Grid
) -> None:
    result = make_result(grid)
    write_segmentation(tmp_path / "lesions.seg.nrrd", grid, result)
    node = read(mrml, tmp_path / "lesions.seg.nrrd")
    ct = slicer.util.addVolumeFromArray(
        np.zeros(grid.shape, np.int16), ijkToRAS=RAS_FROM_LPS @ grid.ijk_to_lps
    )
    masks = {}
    for _, candidate in accepted(result):
        assert candidate.patch is not None
        expected = np.zeros(grid.shape, np.uint8)
        candidate.patch.paint(expected)
        seen = slicer.util.arrayFromSegmentBinaryLabelmap(node, candidate.id, ct)
        np.testing.assert_array_equal(seen != 0, expected != 0)
        masks[candidate.id] = seen != 0
    assert (masks["T10-1"] & masks["T10-2"]).any()
    assert node.GetSegmentation().GetNumberOfLayers() == 2


def test_names_colours_and_order(mrml: Slicer, tmp_path: Path, axial: Grid) -> None:
    result = make_result(axial)
    write_segmentation(tmp_path / "lesions.seg.nrrd", axial, result)
    segmentation = read(mrml, tmp_path / "lesions.seg.nrrd").GetSegmentation()
    assert segmentation.GetSegmentIDs() == ("T10-1", "T10-2", "L1-1")
    segments = [segmentation.GetSegment(name) for name in segmentation.GetSegmentIDs()]
    assert [s.GetName() for s in segments] == ["T10 blastic 1", "T10 lytic 1", "L1 lytic 1"]
    assert not any(s.GetNameAutoGenerated() or s.GetColorAutoGenerated() for s in segments)
    blastic, lytic, other_lytic = (s.GetColor() for s in segments)
    assert lytic == other_lytic
    red, green, blue = blastic
    assert red > green > blue, "blastic is orange"
    assert lytic[2] > lytic[1] > lytic[0], "lytic is blue"


def test_tags_and_review_status(mrml: Slicer, tmp_path: Path, axial: Grid) -> None:
    result = make_result(axial)
    write_segmentation(tmp_path / "lesions.seg.nrrd", axial, result)
    segmentation = read(mrml, tmp_path / "lesions.seg.nrrd").GetSegmentation()
    by_level = {v.level: v for v in result.vertebrae}
    for level, candidate in accepted(result):
        segment = segmentation.GetSegment(candidate.id)
        assert tag(segment, "HideSeekSeg.Level") == level
        assert tag(segment, "HideSeekSeg.Type") == candidate.type
        assert float(tag(segment, "HideSeekSeg.Score")) == pytest.approx(candidate.score, abs=1e-4)
        volume = float(tag(segment, "HideSeekSeg.VolumeMm3"))
        assert volume == pytest.approx(candidate.volume_mm3, abs=0.05)
        p = float(tag(segment, "HideSeekSeg.PMalignant"))
        assert p == pytest.approx(by_level[level].p_malignant, abs=1e-4)
        logic = mrml.logics["Segmentations"]
        assert tag(segment, logic.GetStatusTagName()) == "notstarted"
        assert logic.GetSegmentStatus(segment) == logic.NotStarted


def test_terminology_is_what_slicer_understands(mrml: Slicer, tmp_path: Path, axial: Grid) -> None:
    write_segmentation(tmp_path / "lesions.seg.nrrd", axial, make_result(axial))
    segmentation = read(mrml, tmp_path / "lesions.seg.nrrd").GetSegmentation()
    expected = {"T10-1": ("7610001", "T10 vertebra"), "L1-1": ("66794005", "L1 vertebra")}
    for name, region in expected.items():
        entry = slicer.vtkSlicerTerminologyEntry()
        text = segmentation.GetSegment(name).GetTerminology()
        assert mrml.logics["Terminologies"].DeserializeTerminologyEntry(text, entry)
        codes = [
            (part.GetCodingSchemeDesignator(), part.GetCodeValue(), part.GetCodeMeaning())
            for part in (entry.GetCategoryObject(), entry.GetTypeObject(), entry.GetRegionObject())
        ]
        assert codes == [
            ("SCT", "49755003", "Morphologically Altered Structure"),
            ("SCT", "52988006", "Lesion"),
            ("SCT", *region),
        ]


def test_surfaces_are_made_on_loading(mrml: Slicer, tmp_path: Path, axial: Grid) -> None:
    result = make_result(axial)
    write_segmentation(tmp_path / "lesions.seg.nrrd", axial, result)
    node = read(mrml, tmp_path / "lesions.seg.nrrd")
    for _, candidate in accepted(result):
        bounds = node.GetClosedSurfaceInternalRepresentation(candidate.id).GetBounds()
        middle = np.add(bounds[::2], bounds[1::2]) / 2
        np.testing.assert_allclose(middle * (-1, -1, 1), candidate.centroid_lps, atol=1.5)


def test_a_run_without_lesions_opens_as_an_empty_segmentation(
    mrml: Slicer, tmp_path: Path, grid: Grid
) -> None:
    write_segmentation(tmp_path / "lesions.seg.nrrd", grid, make_result(grid).with_threshold(0.99))
    node = read(mrml, tmp_path / "lesions.seg.nrrd")
    assert node.GetSegmentation().GetNumberOfSegments() == 0


def test_what_slicer_saves_again_is_read_back(mrml: Slicer, tmp_path: Path, grid: Grid) -> None:
    result = make_result(grid)
    write_segmentation(tmp_path / "lesions.seg.nrrd", grid, result)
    node = read(mrml, tmp_path / "lesions.seg.nrrd")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    mrml.scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "saved.seg.nrrd"))
    assert storage.WriteData(node) == 1
    ours = read_segmentation(tmp_path / "lesions.seg.nrrd")
    again = read_segmentation(tmp_path / "saved.seg.nrrd")
    assert [s.name for s in again.segments] == [s.name for s in ours.segments]
    assert [s.terminology for s in again.segments] == [s.terminology for s in ours.segments]
    for before, after in zip(ours.segments, again.segments):
        a = ours.grid.lps(np.argwhere(ours.mask(before))[:, ::-1])
        b = again.grid.lps(np.argwhere(again.mask(after))[:, ::-1])
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_name_cannot_break_the_header(mrml: Slicer, tmp_path: Path, axial: Grid) -> None:
    result = make_result(axial)
    first = replace(result.vertebrae[0], level="odd|name:\nSegment9_ID:=x")
    write_segmentation(tmp_path / "l.seg.nrrd", axial, replace(result, vertebrae=(first,)))
    segmentation = read(mrml, tmp_path / "l.seg.nrrd").GetSegmentation()
    assert first.status is Status.FINDINGS
    assert segmentation.GetSegmentIDs() == ("T10-1", "T10-2")
    segment = segmentation.GetSegment("T10-1")
    assert segment.GetName() == "odd name  Segment9_ID =x blastic 1"
    assert tag(segment, "HideSeekSeg.Level") == "odd name  Segment9_ID =x"
    assert tag(segment, "HideSeekSeg.Type") == "blastic"
