"""Segmentations as folders of masks, DICOM SEG and RT structure sets, as tools write them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom", reason="pydicom reads DICOM segmentations")

from hideseekseg.anatomy.alignment import OTHER_FRAME, check_agreement  # noqa: E402
from hideseekseg.anatomy.labelling import assign  # noqa: E402
from hideseekseg.anatomy.segment_names import may_be_vertebra  # noqa: E402
from hideseekseg.errors import InputError  # noqa: E402
from hideseekseg.imaging.dicom_seg import SEG, STRUCTURE_SET  # noqa: E402
from hideseekseg.imaging.reading import check_segmentation, read_segmentation  # noqa: E402
from hideseekseg.imaging.segmentation import Segmentation  # noqa: E402
from hideseekseg.imaging.volume import FRAME_OF_REFERENCE, Grid, Volume, to_sitk  # noqa: E402

GRID = Grid(
    (24, 30, 40),
    np.array([[0.8, 0, 0, -20], [0, 0.8, 0, -30], [0, 0, 1.5, 100], [0, 0, 0, 1.0]]),
)
Mask = np.ndarray


def masks() -> dict[str, Mask]:
    found = {name: np.zeros(GRID.shape, bool) for name in ("T12", "L1")}
    found["T12"][14:20, 6:20, 8:30] = True
    found["L1"][4:12, 5:22, 10:32] = True
    return found


def positions(segmentation: Segmentation) -> dict[str | None, np.ndarray]:
    """Where (LPS mm) the voxels of each level lie."""
    return {
        a.level: segmentation.grid.lps(np.argwhere(segmentation.mask(a.segment))[:, ::-1])
        for a in assign(segmentation)
    }


def assert_same(segmentation: Segmentation, expected: dict[str, Mask], mm: float = 1e-3) -> None:
    found = positions(segmentation)
    assert set(found) == set(expected)
    for level, mask in expected.items():
        at = GRID.lps(np.argwhere(mask)[:, ::-1])
        for of in (np.min, np.max, np.mean):
            np.testing.assert_allclose(of(found[level], axis=0), of(at, axis=0), atol=mm)


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as refused:
        read_segmentation(path, may_be_vertebra)
    assert "\n" not in str(refused.value)
    return refused.value


def write_mask(path: Path, mask: Mask, grid: Grid = GRID) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(to_sitk(Volume(mask.astype(np.uint8), grid)), str(path))
    return path


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_folder_of_masks_is_read_by_file_name(tmp_path: Path, suffix: str) -> None:
    for name, mask in masks().items():
        write_mask(tmp_path / f"vertebrae_{name}{suffix}", mask)
    write_mask(tmp_path / f"vertebrae_L2{suffix}", np.zeros(GRID.shape, bool))
    (tmp_path / "statistics.json").write_text("{}")
    (tmp_path / f"liver{suffix}").write_text("not read, as no name of a vertebra")
    found = read_segmentation(tmp_path, may_be_vertebra)
    assert_same(found, masks())
    assert len(found.layers) == 1


def test_masks_that_overlap_keep_all_their_voxels(tmp_path: Path) -> None:
    both = masks()
    both["L1"][12:16] = both["L1"][6]
    for name, mask in both.items():
        write_mask(tmp_path / f"{name}.nii.gz", mask)
    found = read_segmentation(tmp_path)
    assert len(found.layers) == 2
    assert_same(found, both)


def test_a_name_that_is_not_understood_is_kept(tmp_path: Path) -> None:
    write_mask(tmp_path / "vertebrae_L1.nii.gz", masks()["L1"])
    write_mask(tmp_path / "Knochen 7b.nii.gz", masks()["T12"])
    found = assign(read_segmentation(tmp_path, may_be_vertebra))
    assert [(a.name, a.level) for a in found] == [("Knochen 7b", None), ("vertebrae_L1", "L1")]


def several_labels(folder: Path) -> None:
    write_mask(folder / "T12.nii.gz", masks()["T12"])
    two = (masks()["T12"] + 2 * masks()["L1"]).astype(np.uint8)
    sitk.WriteImage(to_sitk(Volume(two, GRID)), str(folder / "L1.nii.gz"))


def other_grid(folder: Path) -> None:
    write_mask(folder / "L1.nii.gz", masks()["L1"])
    write_mask(folder / "T12.nii.gz", masks()["T12"], GRID.cut((1, 0, 0), GRID.shape))


def only_empty(folder: Path) -> None:
    write_mask(folder / "vertebrae_L1.nii.gz", np.zeros(GRID.shape, bool))


def only_organs(folder: Path) -> None:
    write_mask(folder / "liver.nii.gz", masks()["L1"])


@pytest.mark.parametrize(
    ("make", "file", "cause"),
    [
        (several_labels, "L1.nii.gz", "contains several labels"),
        (other_grid, "T12.nii.gz", "another grid than L1.nii.gz"),
        (only_empty, "", "only empty masks"),
        (only_organs, "", "no mask of a vertebra"),
        (lambda folder: None, "", "without a segmentation"),
    ],
)
def test_other_folders_are_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], file: str, cause: str
) -> None:
    make(tmp_path)
    error = refusal(tmp_path)
    assert cause in error.cause
    assert error.path == str(tmp_path / file if file else tmp_path)


def item(**fields: Any) -> Any:
    made = pydicom.Dataset()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def dicom(path: Path, kind: str, **fields: Any) -> Path:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, "1.2.3.4"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(
        None, item(SOPClassUID=kind, SOPInstanceUID="1.2.3.4", **fields), file_meta=meta
    )
    dataset.preamble = b"\0" * 128
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def code(value: str, meaning: str) -> list[Any]:
    return [item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)]


SNOMED = {"T12": "23215003", "L1": "66794005"}


def dicom_seg(
    path: Path, kind: str = "BINARY", names: dict[str, str] | None = None, **changes: Any
) -> Path:
    """Frames of the slices that a segment has, the last segment first, as some writers do."""
    segments, groups, frames = [], [], []
    chosen = [] if kind == "LABELMAP" else list(enumerate(masks().items(), 1))[::-1]
    for number, level in enumerate(masks(), 1):
        label = (names or {}).get(level, level)
        about = item(SegmentNumber=number, SegmentLabel=label)
        about.SegmentedPropertyCategoryCodeSequence = code("123037004", "Anatomical Structure")
        coded = code(SNOMED[level], level) if names is None else code("85756007", "Tissue")
        about.SegmentedPropertyTypeCodeSequence = coded
        segments.append(about)
    for number, (_, mask) in chosen:
        for k in np.flatnonzero(mask.any(axis=(1, 2))):
            which = [item(ReferencedSegmentNumber=number)]
            groups.append(frame(int(k), SegmentIdentificationSequence=which))
            frames.append(mask[k])
    if kind == "LABELMAP":
        label_map = sum(n * mask for n, mask in enumerate(masks().values(), 1))
        groups = [frame(k) for k in range(GRID.shape[0])]
        frames = list(np.asarray(label_map))
    stack = np.stack(frames)
    bits = 1 if kind == "BINARY" else 8
    scaled = stack * 200 if kind == "FRACTIONAL" else stack
    data = np.packbits(stack.ravel(), bitorder="little") if bits == 1 else scaled.astype(np.uint8)
    raw = data.tobytes()
    measures = item(PixelSpacing=[0.8, 0.8], SliceThickness=1.5, SpacingBetweenSlices=1.5)
    orientation = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared = item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    fields = {
        "Modality": "SEG",
        "SegmentationType": kind,
        "MaximumFractionalValue": 200,
        "Rows": GRID.shape[1],
        "Columns": GRID.shape[2],
        "NumberOfFrames": len(frames),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": 0,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "SegmentSequence": segments,
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
        "PixelData": raw + b"\0" * (len(raw) % 2),
        **changes,
    }
    return dicom(path, SEG[kind == "LABELMAP"], **fields)


def frame(k: int, **more: Any) -> Any:
    where = [round(float(x), 4) for x in GRID.lps((0, 0, k))]
    return item(PlanePositionSequence=[item(ImagePositionPatient=where)], **more)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_dicom_seg_is_read_with_its_labels_and_codes(tmp_path: Path, kind: str) -> None:
    found = read_segmentation(dicom_seg(tmp_path / "seg.dcm", kind), may_be_vertebra)
    assert_same(found, masks())
    assert {a.source for a in assign(found)} == {"code"}
    assert np.allclose(found.grid.spacing, [0.8, 0.8, 1.5])


def test_a_dicom_seg_without_codes_of_levels_is_read_by_its_labels(tmp_path: Path) -> None:
    names = {"T12": "Brustwirbel 12", "L1": "L1 (edited)"}
    found = read_segmentation(dicom_seg(tmp_path / "seg", names=names))
    assert_same(found, masks())
    assert {a.source for a in assign(found)} == {"name"}


def test_segments_that_end_with_the_object_are_not_cut_by_it(tmp_path: Path) -> None:
    """A SEG holds only the slices in which something lies: its end is not the scan's."""
    found = read_segmentation(dicom_seg(tmp_path / "seg.dcm"))
    for segment in found.segments:
        box = found.box(segment)
        assert box is not None
        assert box[0].start > 0 and box[0].stop < found.grid.shape[0]


def test_a_folder_with_one_dicom_seg_among_others(tmp_path: Path) -> None:
    dicom_seg(tmp_path / "seg" / "IM1")
    dicom(tmp_path / "seg" / "report", "1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    assert_same(read_segmentation(tmp_path / "seg"), masks())
    shutil.copy(tmp_path / "seg" / "IM1", tmp_path / "seg" / "IM0")
    again = pydicom.dcmread(tmp_path / "seg" / "IM1")
    again.file_meta.SourceApplicationEntityTitle = "ARCHIVE"
    again.save_as(tmp_path / "seg" / "IM3")
    found = read_segmentation(tmp_path / "seg")
    assert_same(found, masks())
    assert found.layers[0].notes == ("2 files are copies of others and were left out",)
    assert check_segmentation(tmp_path / "seg").names_labels
    (tmp_path / "seg" / "IM0").unlink()
    (tmp_path / "seg" / "IM3").unlink()
    dicom_seg(tmp_path / "seg" / "IM2", ContentLabel="OTHER")
    assert "contains 2 segmentations, give one of them: IM1, IM2" in refusal(tmp_path / "seg").cause


def test_other_and_damaged_dicom_is_refused_in_one_line(tmp_path: Path) -> None:
    report = dicom(tmp_path / "report", "1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    assert "modality SR, not a segmentation" in refusal(report).cause
    whole = dicom_seg(tmp_path / "seg.dcm")
    short = tmp_path / "short.dcm"
    for share in (0.3, 0.6, 0.9):
        short.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        assert refusal(short).path == str(short)
    nothing = dicom_seg(tmp_path / "empty.dcm", SegmentSequence=[])
    assert "empty" in refusal(nothing).cause or "damaged" in refusal(nothing).cause


def test_uneven_frames_are_refused(tmp_path: Path) -> None:
    path = dicom_seg(tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        plane = group.PlanePositionSequence[0]
        x, y, z = plane.ImagePositionPatient
        plane.ImagePositionPatient = [x, y, round(float(z) + 0.02 * (float(z) - 100) ** 2, 4)]
    dataset.save_as(path)
    assert "unevenly spaced" in refusal(path).cause


@pytest.mark.parametrize("thickness", [0.5, 0.75, 1.5, 3.0])
def test_slices_may_be_thinner_or_thicker_than_they_lie_apart(
    tmp_path: Path, thickness: float
) -> None:
    """Else every second slice would be empty where they are half as thick."""
    path = dicom_seg(tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(path)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SliceThickness = thickness
    del measures.SpacingBetweenSlices
    dataset.save_as(path)
    found = read_segmentation(path)
    assert_same(found, masks())
    for a in assign(found):
        assert a.level
        mm3 = found.mask(a.segment).sum() * found.grid.voxel_mm3
        assert mm3 == pytest.approx(masks()[a.level].sum() * GRID.voxel_mm3)


@pytest.mark.parametrize(
    ("step", "decimals"),
    [(0.7999878, 6), (0.6666667, 6), (0.6666667, 3), (2.4999, 4), (1.25, 1), (3.27, 2), (0.7, 1)],
)
def test_even_steps_that_are_no_round_number_are_read(
    tmp_path: Path, step: float, decimals: int
) -> None:
    """The two vertebrae are 200 slices apart: errors of one step would add up."""

    def moved(z: float) -> float:
        k = round((z - 100) / 1.5)
        return round(-1203.5 + step * (k + 200 * (k > 12)), decimals)

    seg, contours = dicom_seg(tmp_path / "seg.dcm"), structure_set(tmp_path / "rs.dcm")
    dataset = pydicom.dcmread(seg)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        plane = group.PlanePositionSequence[0]
        x, y, z = plane.ImagePositionPatient
        plane.ImagePositionPatient = [x, y, moved(float(z))]
    dataset.save_as(seg)
    dataset = pydicom.dcmread(contours)
    for structure in dataset.ROIContourSequence:
        for contour in structure.ContourSequence:
            data = np.array(contour.ContourData, float).reshape(-1, 3)
            data[:, 2] = [moved(z) for z in data[:, 2]]
            contour.ContourData = data.ravel().tolist()
    dataset.save_as(contours)
    for path in (seg, contours):
        found = read_segmentation(path, may_be_vertebra)
        assert found.grid.spacing[2] == pytest.approx(step, abs=10.0**-decimals)
        for a in assign(found):
            assert a.level
            slices = found.mask(a.segment).any(axis=(1, 2))
            assert slices.sum() == masks()[a.level].any(axis=(1, 2)).sum()
            assert np.ptp(np.flatnonzero(slices)) + 1 == slices.sum(), "no slice between is empty"


def ring(mask: Mask, k: int) -> list[float]:
    """The outline of a box-shaped mask in one slice, half a voxel around its centres."""
    j, i = np.argwhere(mask[k]).min(axis=0), np.argwhere(mask[k]).max(axis=0)
    low, high = np.array([j[1], j[0]]) - 0.5, np.array([i[1], i[0]]) + 0.5
    corners = [low, [high[0], low[1]], high, [low[0], high[1]], low]
    dense = [a + (b - a) * t for a, b in pairwise(map(np.asarray, corners)) for t in (0, 0.3, 0.7)]
    lps = GRID.lps(np.column_stack([np.array(dense), np.full(len(dense), k)]))
    return [round(float(x), 3) for x in lps.ravel()]


def structure_set(path: Path, hole: bool = False) -> Path:
    rois, outlines = [], []
    for number, (level, mask) in enumerate(masks().items(), 1):
        rois.append(item(ROINumber=number, ROIName=f"{level} vertebra"))
        contours = []
        for k in np.flatnonzero(mask.any(axis=(1, 2))):
            shapes = [mask]
            if hole:
                inner = np.zeros_like(mask)
                inner[k, 10:14, 16:24] = True
                shapes.append(inner)
            for shape in shapes:
                data = ring(shape, int(k))
                about = {"NumberOfContourPoints": len(data) // 3, "ContourData": data}
                contours.append(item(ContourGeometricType="CLOSED_PLANAR", **about))
        outlines.append(item(ReferencedROINumber=number, ContourSequence=contours))
    fields = {"StructureSetROISequence": rois, "ROIContourSequence": outlines}
    return dicom(path, STRUCTURE_SET, Modality="RTSTRUCT", **fields)


@pytest.mark.parametrize("hole", [False, True])
def test_a_structure_set_is_filled_on_its_own_planes(tmp_path: Path, hole: bool) -> None:
    expected = masks()
    if hole:
        for mask in expected.values():
            mask[:, 10:14, 16:24] = False
    found = read_segmentation(structure_set(tmp_path / "rs.dcm", hole), may_be_vertebra)
    assert_same(found, expected, mm=0.85)
    for a in assign(found):
        assert a.level
        mm3 = found.mask(a.segment).sum() * found.grid.voxel_mm3
        assert mm3 == pytest.approx(expected[a.level].sum() * GRID.voxel_mm3, rel=0.06)


def test_a_structure_set_without_a_vertebra_is_refused(tmp_path: Path) -> None:
    path = structure_set(tmp_path / "rs.dcm")
    dataset = pydicom.dcmread(path)
    for roi in dataset.StructureSetROISequence:
        roi.ROIName = "Liver"
    dataset.save_as(path)
    assert "no closed contour of a vertebra" in refusal(path).cause


def change(path: Path, edit: Callable[[Any], None]) -> Path:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)
    return path


def volumes(segmentation: Segmentation) -> list[tuple[str, float]]:
    """Names and mm3 of all segments."""
    grid = segmentation.grid
    return [(x.name, segmentation.mask(x).sum() * grid.voxel_mm3) for x in segmentation.segments]


@pytest.mark.parametrize("kept", [8, 5], ids=["a copy", "a part"])
def test_two_structures_of_one_name_are_two_segments(tmp_path: Path, kept: int) -> None:
    """As two readers draw them: contours of one would cut holes into the other."""
    path = structure_set(tmp_path / "rs.dcm")
    alone = dict(volumes(read_segmentation(path)))

    def draw_again(dataset: Any) -> None:
        dataset.StructureSetROISequence.append(item(ROINumber=7, ROIName="L1 vertebra"))
        drawn = dataset.ROIContourSequence[1].ContourSequence[:kept]
        dataset.ROIContourSequence.append(item(ReferencedROINumber=7, ContourSequence=drawn))

    found = read_segmentation(change(path, draw_again), may_be_vertebra)
    assert [x.name for x in found.segments] == ["T12 vertebra", "L1 vertebra", "L1 vertebra"]
    (_, t12), (_, first), (_, second) = volumes(found)
    assert (t12, first) == pytest.approx((alone["T12 vertebra"], alone["L1 vertebra"]), rel=0.01)
    assert second == pytest.approx(first * kept / 8, rel=0.01)
    assigned = assign(found)
    assert [a.level for a in assigned] == ["T12", "L1", None] and assigned[2].problem


@pytest.mark.parametrize("apart", [False, True], ids=["in one item", "in two items"])
def test_contours_that_stand_twice_in_a_structure_count_once(tmp_path: Path, apart: bool) -> None:
    def copy(dataset: Any) -> None:
        drawn = dataset.ROIContourSequence[1]
        if apart:
            dataset.ROIContourSequence.append(drawn)
        else:
            drawn.ContourSequence = [*drawn.ContourSequence, *drawn.ContourSequence]

    path = structure_set(tmp_path / "rs.dcm")
    alone = volumes(read_segmentation(path))
    assert volumes(read_segmentation(change(path, copy))) == alone


def test_contours_that_are_declared_to_cut_out_each_other_are_read(tmp_path: Path) -> None:
    path = structure_set(tmp_path / "rs.dcm", hole=True)
    alone = volumes(read_segmentation(path))

    def declare(dataset: Any) -> None:
        for structure in dataset.ROIContourSequence:
            for contour in structure.ContourSequence:
                contour.ContourGeometricType = "CLOSEDPLANAR_XOR"

    assert volumes(read_segmentation(change(path, declare))) == alone


@pytest.mark.parametrize(
    ("planes", "filled"),
    [([0, 2, 4, 6, 7], "3 planes"), ([0, 1, 2, 4, 5, 6, 7], "1 plane"), ([0, 7], "6 planes")],
    ids=["every second", "one is missing", "both ends"],
)
@pytest.mark.parametrize("hole", [False, True])
def test_a_structure_on_fewer_planes_than_others_has_no_stripes(
    tmp_path: Path, planes: list[int], filled: str, hole: bool
) -> None:
    """L1 is drawn on 8 planes, 1.5 mm apart."""
    path = structure_set(tmp_path / "rs.dcm", hole)
    alone = read_segmentation(path)

    def leave_out(dataset: Any) -> None:
        structure = dataset.ROIContourSequence[1]
        heights = sorted({float(x.ContourData[2]) for x in structure.ContourSequence})
        kept = [heights[n] for n in planes]
        structure.ContourSequence = [
            x for x in structure.ContourSequence if float(x.ContourData[2]) in kept
        ]

    found = read_segmentation(change(path, leave_out), may_be_vertebra)
    for before, after in zip(alone.segments, found.segments):
        np.testing.assert_array_equal(found.mask(after), alone.mask(before))
    note = f"L1 vertebra: was filled in on {filled} between its contours"
    assert found.layers[0].notes == (note,)
    assert not alone.layers[0].notes


def test_parts_of_a_structure_that_lie_far_apart_stay_apart_and_are_named(tmp_path: Path) -> None:
    """Here a contour of T12 lies where L1 is, as a slip of the hand leaves it."""

    def slip(dataset: Any) -> None:
        upper, lower = dataset.ROIContourSequence
        upper.ContourSequence = [*upper.ContourSequence, lower.ContourSequence[0]]

    path = structure_set(tmp_path / "rs.dcm")
    found = read_segmentation(change(path, slip), may_be_vertebra)
    assert found.mask(found.segments[0]).any(axis=(1, 2)).sum() == 7
    assert found.layers[0].notes == ("T12 vertebra: is drawn in parts 15.0 mm apart",)


def test_between_two_planes_an_outline_is_their_mean(tmp_path: Path) -> None:
    """A square of 24 mm that is 8 mm further left, and one of 12 mm, two planes above."""
    path = structure_set(tmp_path / "rs.dcm")

    def square(x: float, half: float, z: float) -> Any:
        corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
        data = [float(v) for dx, dy in corners for v in (x + dx, dy - 10, z)]
        about = {"NumberOfContourPoints": 4, "ContourData": data}
        return item(ContourGeometricType="CLOSED_PLANAR", **about)

    def draw(dataset: Any) -> None:
        heights = [float(x.ContourData[2]) for x in dataset.ROIContourSequence[1].ContourSequence]
        dataset.ROIContourSequence[0].ContourSequence = [
            *(square(8.0 * n, 12.0, heights[2 * n]) for n in range(2)),
            square(8.0, 6.0, heights[4]),
        ]

    found = read_segmentation(change(path, draw), may_be_vertebra)
    mask = found.mask(found.segments[0])
    drawn = np.flatnonzero(mask.any(axis=(1, 2)))
    assert drawn.tolist() == list(range(drawn[0], drawn[0] + 5))
    voxels = np.argwhere(mask)
    at = [found.grid.lps(voxels[voxels[:, 0] == k][:, ::-1]) for k in drawn]
    centres = [float(x[:, 0].mean()) for x in at]
    widths = [float(np.ptp(x[:, 1])) for x in at]
    np.testing.assert_allclose(centres, [0, 4, 8, 8, 8], atol=0.5)
    np.testing.assert_allclose(widths, [23.2, 23.2, 23.2, 17.2, 11.2], atol=1.7)


def test_a_single_slice_of_unknown_thickness_is_refused(tmp_path: Path) -> None:
    def leave_one(dataset: Any) -> None:
        lower = dataset.ROIContourSequence[1]
        dataset.ROIContourSequence = [lower]
        lower.ContourSequence = lower.ContourSequence[:1]

    path = change(structure_set(tmp_path / "rs.dcm"), leave_one)
    assert "a single slice, and does not state how thick" in refusal(path).cause


def stated(path: Path, keyword: str, uid: str, inside: str = "") -> Path:
    """The same object with its frame of reference stated there and nowhere else."""
    dataset = pydicom.dcmread(path)
    for structure in dataset.get("StructureSetROISequence") or ():
        structure.ReferencedFrameOfReferenceUID = ""
    for keep in ("FrameOfReferenceUID", "ReferencedFrameOfReferenceSequence"):
        if keep in dataset:
            del dataset[keep]
    holders = [dataset]
    if inside == "ReferencedFrameOfReferenceSequence":
        dataset.ReferencedFrameOfReferenceSequence = holders = [pydicom.Dataset()]
    elif inside:
        holders = dataset[inside].value
    for holder in holders:
        setattr(holder, keyword, uid)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("make", "keyword", "inside"),
    [
        ("seg", "FrameOfReferenceUID", ""),
        ("contours", "FrameOfReferenceUID", ""),
        ("contours", "FrameOfReferenceUID", "ReferencedFrameOfReferenceSequence"),
        ("contours", "ReferencedFrameOfReferenceUID", "StructureSetROISequence"),
    ],
)
def test_what_was_drawn_on_another_scan_is_told(
    tmp_path: Path, make: str, keyword: str, inside: str
) -> None:
    path = tmp_path / "labels.dcm"
    path = dicom_seg(path) if make == "seg" else structure_set(path)
    found = read_segmentation(stated(path, keyword, "1.2.3.4", inside), may_be_vertebra)
    grid = found.layers[0].grid
    dark = np.zeros(grid.shape, np.int16)
    for uid, expected in {
        "1.2.3.4": [],
        "1.2.3.5": [OTHER_FRAME.format("labels.dcm")],
        "": [],
    }.items():
        ct = Volume(dark, grid, "ct", identity={FRAME_OF_REFERENCE: uid} if uid else {})
        notes = check_agreement(ct, found, [], accept_orientation=True).notes
        assert [note for note in notes if "frame of reference" in note] == expected
