"""Exports to DICOM: what highdicom and this library read is what lies on the source's slices."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from hideseekseg.cli.main import main
from hideseekseg.findings import Result
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Grid, Volume, scan_identity, to_sitk
from hideseekseg.output.review_export import export_accepted
from hideseekseg.output.seg_nrrd import write_segmentation
from hideseekseg.output.tables import write_json
from hideseekseg.review.review import Review

pydicom: Any = pytest.importorskip("pydicom", reason="pydicom is not installed")
hd: Any = pytest.importorskip("highdicom", reason="highdicom is not installed")
from helpers.dicom import ROOT, item, save, write_series  # noqa: E402
from helpers.findings import RUN, make_ct, make_grid, make_result  # noqa: E402

ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
TILT = np.radians(20)
OBLIQUE = np.array(
    [[1, 0, 0], [0, np.cos(TILT), -np.sin(TILT)], [0, np.sin(TILT), np.cos(TILT)]]
) @ np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])


def whole_hu(grid: Grid) -> Volume:
    """The made-up CT in whole HU, as DICOM stores it."""
    ct = make_ct(grid)
    return replace(ct, array=np.clip(np.rint(ct.array), -1000, 3000).astype(np.int16))


def write_oblique(folder: Path, **fields: Any) -> Path:
    grid = make_grid((44, 40, 50), (2.0, 2.25, 3.0), OBLIQUE)
    axes = [float(x) for x in OBLIQUE[:, :2].T.ravel()]
    return write_series(folder, whole_hu(grid), ImageOrientationPatient=axes, **fields)


def store(folder: Path, ct: Volume, result: Result | None = None) -> Result:
    """Write a result as a run does, of the scan ``ct``."""
    result = result or make_result(ct.grid)
    facts = {"scan": scan_identity(ct), "versions": {"hideseekseg": "0.1.7"}}
    result = replace(result, run={**RUN, **facts})
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "candidates.json", result)
    write_segmentation(folder / "lesions.seg.nrrd", ct.grid, result)
    return result


def accepted_review(folder: Path, ct: Volume, result: Result) -> Review:
    """Accept T10-1, reject T10-2, leave L1 open, add a lesion in T11 of the reader's own."""
    review = Review(result.threshold)
    for vertebra in result.vertebrae:
        review.add_vertebra(vertebra)
    review.judge("T10-1", "accepted")
    review.judge("T10-2", "rejected")
    review.comment("T10-1", "sclerotic rim")
    added = review.add_missed("T11", "lytic")
    patches = {c.id: c.patch for v in result.vertebrae for c in v.candidates if c.patch}
    patches[added] = patches["L1-1"]
    when = datetime(2026, 3, 4, 5, 6, 7)
    export_accepted(folder, review, patches, ct.grid, result.run, "R. Ader", when)
    return review


def export(result: Path, ct: Path, seg: Path, *more: str) -> int:
    return main(["export", str(result), "--ct", str(ct), "--dicom-seg", str(seg), *more])


def refusal(capsys: pytest.CaptureFixture[str], result: Path, ct: Path, *more: str) -> str:
    seg = result / "refused.dcm"
    assert export(result, ct, seg, *more) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and not seg.exists()
    return err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An oblique series, its result, the result's SEG."""
    folder = tmp_path_factory.mktemp("oblique")
    write_oblique(folder / "ct")
    ct = read_ct(folder / "ct")
    result = store(folder / "result", ct)
    assert export(folder / "result", folder / "ct", folder / "seg.dcm") == 0
    seg = hd.seg.segread(folder / "seg.dcm")
    return {"folder": folder, "ct": ct, "result": result, "seg": seg}


def test_every_voxel_lies_on_the_source_slice_it_was_found_on(made: dict[str, Any]) -> None:
    """Also where lesions overlap, and on an oblique series."""
    seg, ct, result = made["seg"], made["ct"], made["result"]
    slices = [pydicom.dcmread(file) for file, _ in ct.planes]
    uids = [str(one.SOPInstanceUID) for one in slices]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    outlined = [c for v in result.vertebrae for c in v.accepted(0.5)]
    assert [c.id for c in outlined] == ["T10-1", "T10-2", "L1-1"]
    labels = [item.SegmentLabel for item in seg.SegmentSequence]
    names = {"T10-1": "T10 blastic 1", "T10-2": "T10 lytic 1", "L1-1": "L1 lytic 1"}
    for candidate in outlined:
        expected = np.zeros(ct.grid.shape, bool)
        candidate.patch.paint(expected)
        np.testing.assert_array_equal(
            pixels[..., labels.index(names[candidate.id])].astype(bool), expected
        )
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(
            place, slices[uids.index(source)].ImagePositionPatient, atol=1e-9
        )


def test_this_library_reads_the_same_voxels_in_the_same_places(made: dict[str, Any]) -> None:
    ct, result = made["ct"], made["result"]
    read = read_segmentation(made["folder"] / "seg.dcm")
    found = {segment.name: segment for segment in read.segments}
    assert set(found) == {"T10 blastic 1", "T10 lytic 1", "L1 lytic 1"}
    (candidate,) = result.vertebrae[3].candidates
    mask = read.mask(found["L1 lytic 1"])
    ours = np.sort(read.grid.lps(np.argwhere(mask)[:, ::-1]).round(2), axis=0)
    kji = np.argwhere(candidate.patch.array) + candidate.patch.start
    theirs = np.sort(ct.grid.lps(kji[:, ::-1]).round(2), axis=0)
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert "SCT^66794005" in found["L1 lytic 1"].terminology


def test_codes_say_what_is_known_and_private_ones_are_declared(made: dict[str, Any]) -> None:
    seg = made["seg"]
    (scheme,) = seg.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99HIDESEEKSEG"
    first = seg.SegmentSequence[0]
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    kind = first.SegmentedPropertyTypeCodeSequence[0]
    assert kind.CodeValue == "52988006", "a candidate is no metastasis until a reader says so"
    modifier = kind.SegmentedPropertyTypeModifierCodeSequence[0]
    assert (modifier.CodeValue, modifier.CodingSchemeDesignator) == ("BLASTIC", "99HIDESEEKSEG")
    assert first.AnatomicRegionSequence[0].CodeValue == "7610001"
    assert first.SegmentAlgorithmType == "AUTOMATIC" and seg.PatientName == "Doe^Jane"
    (method,) = first.SegmentationAlgorithmIdentificationSequence
    assert method.AlgorithmName == "HideSeekSeg" and method.AlgorithmVersion == "0.1.7"
    assert "example 0123456789ab" in method.AlgorithmParameters


def test_tracking_uids_survive_a_second_export_and_a_review(made: dict[str, Any]) -> None:
    folder = made["folder"]
    assert export(folder / "result", folder / "ct", folder / "again.dcm") == 0
    again = hd.seg.segread(folder / "again.dcm")
    before = {x.TrackingID: x.TrackingUID for x in made["seg"].SegmentSequence}
    assert {x.TrackingID: x.TrackingUID for x in again.SegmentSequence} == before
    assert len(set(before.values())) == 3
    assert again.SOPInstanceUID != made["seg"].SOPInstanceUID

    reviewed = folder / "reviewed"
    accepted_review(reviewed, made["ct"], store(reviewed, made["ct"]))
    assert export(reviewed, folder / "ct", reviewed / "seg.dcm") == 0
    seg = hd.seg.segread(reviewed / "seg.dcm")
    first, added = seg.SegmentSequence
    assert first.SegmentLabel == "T10 blastic 1" and first.TrackingUID == before["T10 blastic 1"]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "14799000"
    assert first.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert "sclerotic rim" in first.SegmentDescription
    assert added.SegmentLabel == "T11 lytic added 1" and added.SegmentAlgorithmType == "MANUAL"
    assert seg.ContentCreatorName == "R. Ader"
    assert export(reviewed, folder / "ct", reviewed / "all.dcm", "--unreviewed") == 0
    assert len(hd.seg.segread(reviewed / "all.dcm").SegmentSequence) == 3


def test_a_result_of_a_nifti_copy_goes_onto_the_dicom_slices(
    made: dict[str, Any], tmp_path: Path
) -> None:
    """Axes that run in another order, and halves in place of whole numbers, are the same scan."""
    image = sitk.DICOMOrient(to_sitk(made["ct"]), "RAI")
    image = sitk.PermuteAxes(sitk.Flip(image, [False, True, True]), [1, 2, 0])
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), tmp_path / "ct.nrrd")
    copy = read_ct(tmp_path / "ct.nrrd")
    assert copy.grid.shape != made["ct"].grid.shape
    result = store(tmp_path / "result", copy)
    assert export(tmp_path / "result", made["folder"] / "ct", tmp_path / "seg.dcm") == 0
    read = read_segmentation(tmp_path / "seg.dcm")
    mask = read.mask(next(x for x in read.segments if x.name == "L1 lytic 1"))
    patch = result.vertebrae[3].candidates[0].patch
    assert patch is not None
    theirs = copy.grid.lps((np.argwhere(patch.array) + patch.start)[:, ::-1])
    ours = read.grid.lps(np.argwhere(mask)[:, ::-1])
    key = tuple(ours.round(1).T[::-1])
    ours, theirs = ours[np.lexsort(key)], theirs[np.lexsort(tuple(theirs.round(1).T[::-1]))]
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize(
    "name", ["山田^太郎", "Пётр^Иванов", ""], ids=["japanese", "cyrillic", "none"]
)
def test_names_of_any_script_and_none_at_all_in_a_compressed_series(
    made: dict[str, Any], tmp_path: Path, name: str
) -> None:
    charset = {"山": ["", "ISO 2022 IR 87"], "П": "ISO_IR 144"}.get(name[:1], "ISO_IR 192")
    names = {"PatientName": name, "SpecificCharacterSet": charset} if name else {"PatientName": ""}
    write_oblique(tmp_path / "ct", **names)
    if not name:  # and compressed
        for file in (tmp_path / "ct").iterdir():
            one = pydicom.dcmread(file)
            one.compress(pydicom.uid.RLELossless)
            one.save_as(file)
    store(tmp_path / "result", read_ct(tmp_path / "ct"))
    assert export(tmp_path / "result", tmp_path / "ct", tmp_path / "seg.dcm") == 0
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert str(seg.PatientName) == name
    assert not (tmp_path / "result" / "candidates.json").read_text("utf-8").count("Doe")


def test_missing_uids_foreign_series_and_tilted_gantries_are_refused(
    made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = made["folder"] / "result"
    write_oblique(tmp_path / "other", RescaleIntercept=-999)
    assert "is another scan, not the one of the result (ct" in refusal(
        capsys, result, tmp_path / "other"
    )
    write_oblique(tmp_path / "renamed", SeriesInstanceUID=f"{ROOT}.55")
    assert f"has no series {ROOT}.2" in refusal(capsys, result, tmp_path / "renamed")

    write_oblique(tmp_path / "placeless")
    for file in (tmp_path / "placeless").iterdir():
        one = pydicom.dcmread(file)
        del one.FrameOfReferenceUID
        one.save_as(file)
    text = refusal(capsys, result, tmp_path / "placeless")
    assert "000.dcm: states no frame of reference UID" in text

    write_oblique(tmp_path / "tilted")
    for n, file in enumerate(sorted((tmp_path / "tilted").iterdir())):
        one = pydicom.dcmread(file)
        one.ImagePositionPatient = [
            float(x) + 0.4 * n * (m == 1) for m, x in enumerate(one.ImagePositionPatient)
        ]
        one.save_as(file)
    text = refusal(capsys, result, tmp_path / "tilted")
    assert "was taken with a tilted gantry" in text and "corrected copy" in text

    sitk.WriteImage(to_sitk(made["ct"]), tmp_path / "ct.nrrd")
    assert "is no DICOM series" in refusal(capsys, result, tmp_path / "ct.nrrd")
    (tmp_path / "empty").mkdir()
    text = refusal(capsys, tmp_path / "empty", made["folder"] / "ct")
    assert "is no folder of results" in text


def test_files_that_contradict_each_other_and_a_result_without_lesions(
    made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct = made["ct"]
    mixed = store(tmp_path / "mixed", ct)
    write_segmentation(tmp_path / "mixed" / "lesions.seg.nrrd", ct.grid, mixed.with_threshold(0.7))
    text = refusal(capsys, tmp_path / "mixed", made["folder"] / "ct")
    assert "lesions.seg.nrrd: is not of the same result as candidates.json: it lacks L1" in text
    store(tmp_path / "none", ct, make_result(ct.grid).with_threshold(0.99))
    text = refusal(capsys, tmp_path / "none", made["folder"] / "ct")
    assert "has no lesion, and a DICOM SEG cannot be empty" in text


def enhanced(ct: Volume, path: Path) -> Path:
    """Write a CT as one multi-frame image, its frames from the head down."""
    first = pydicom.dcmread(ct.planes[0][0])
    made = pydicom.dcmread(ct.planes[0][0])
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = ENHANCED
    frames = list(reversed(range(ct.grid.shape[0])))
    made.NumberOfFrames = len(frames)
    for name in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleIntercept",
        "RescaleSlope",
    ):
        delattr(made, name)
    axes = item(ImageOrientationPatient=first.ImageOrientationPatient)
    measure = item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    rescale = item(RescaleIntercept=-1000, RescaleSlope=1, RescaleType="HU")
    made.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[axes],
            PixelMeasuresSequence=[measure],
            PixelValueTransformationSequence=[rescale],
        )
    ]
    made.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[
                item(ImagePositionPatient=[float(x) for x in ct.grid.lps([0, 0, k])])
            ]
        )
        for k in frames
    ]
    made.PixelData = (ct.array[frames].astype(int) + 1000).astype("<u2").tobytes()
    return save(made, path)


def test_a_multi_frame_source_is_referred_to_frame_by_frame(
    made: dict[str, Any], tmp_path: Path
) -> None:
    enhanced(made["ct"], tmp_path / "ct" / "all.dcm")
    ct = read_ct(tmp_path / "ct")
    result = store(tmp_path / "result", ct)
    assert export(tmp_path / "result", tmp_path / "ct", tmp_path / "seg.dcm") == 0
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    count = ct.grid.shape[0]
    source = pydicom.dcmread(tmp_path / "ct" / "all.dcm").SOPInstanceUID
    pixels = seg.get_pixels_by_source_frame(
        source, list(range(1, count + 1)), assert_missing_frames_are_empty=True
    )
    expected = np.zeros(ct.grid.shape, bool)
    patch = result.vertebrae[3].candidates[0].patch
    assert patch is not None
    patch.paint(expected)
    np.testing.assert_array_equal(pixels[::-1, ..., 2].astype(bool), expected)
