"""Exports to DICOM: what highdicom and this library read is what lies on the source's slices."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from hideseekseg.cli.main import main
from hideseekseg.findings import Result
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Grid, Patch, Volume, to_sitk
from hideseekseg.output.dicom_seg_export import tracking_uid
from hideseekseg.output.dicom_sr_export import dicom_report
from hideseekseg.output.result_folder import read_result, title_of
from hideseekseg.output.seg_nrrd import write_segmentation
from hideseekseg.review.review import Item

pydicom: Any = pytest.importorskip("pydicom", reason="pydicom is not installed")
hd: Any = pytest.importorskip("highdicom", reason="highdicom is not installed")
from helpers.dicom import ROOT, item, save, write_series  # noqa: E402
from helpers.findings import (  # noqa: E402
    accepted_review,
    make_candidate,
    make_ct,
    make_grid,
    make_result,
    store_result,
)
from helpers.scene import Slicer  # noqa: E402

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
    result = store_result(folder / "result", ct)
    assert export(folder / "result", folder / "ct", folder / "seg.dcm") == 0
    seg = hd.seg.segread(folder / "seg.dcm")
    return {"folder": folder, "ct": ct, "result": result, "seg": seg}


def test_only_a_dicom_seg_or_sr_is_replaced(
    made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names without a suffix, and .dcm, are also those of a CT's files."""
    folder = tmp_path / "made"
    shutil.copytree(made["folder"], folder)
    first = sorted(file for file in (folder / "ct").rglob("*") if file.is_file())[0]
    capsys.readouterr()
    for target in (first, folder / "result" / "candidates.json", folder / "seg.dcm"):
        for option in ("--dicom-seg", "--dicom-sr"):
            before = target.read_bytes()
            words = ["export", str(folder / "result"), "--ct", str(folder / "ct")]
            words += [option, str(target)]
            words += ["--dicom-seg", str(tmp_path / "new")] if option == "--dicom-sr" else []
            is_own = target.name == "seg.dcm" and option == "--dicom-seg"
            assert main(words) == (0 if is_own else 2), words
            said = capsys.readouterr().err
            assert is_own or f"{option}: {target} is there already" in said
            assert is_own or target.read_bytes() == before
    assert not (tmp_path / "new").exists()


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


def test_slicers_segmentation_has_the_same_voxels(made: dict[str, Any], mrml: Slicer) -> None:
    """By this library's reader: the one of DICOM SEG is an extension's, not of slicer-core."""
    import slicer.util

    from hideseekseg.scene.import_data import addCt, addSegmentation

    mrml.scene.Clear(True)
    ct = addCt(made["ct"], "CT")
    node = addSegmentation(read_segmentation(made["folder"] / "seg.dcm"), "SEG", ct)
    segmentation = node.GetSegmentation()
    ids = {segmentation.GetSegment(x).GetName(): x for x in segmentation.GetSegmentIDs()}
    assert {*ids} == {"T10 blastic 1", "T10 lytic 1", "L1 lytic 1"}
    for vertebra in made["result"].vertebrae:
        for candidate in vertebra.accepted(0.5):
            name = f"{vertebra.level} {candidate.type} 1"
            expected = np.zeros(made["ct"].grid.shape, bool)
            candidate.patch.paint(expected)
            found = slicer.util.arrayFromSegmentBinaryLabelmap(node, ids[name], ct)
            np.testing.assert_array_equal(found.astype(bool), expected)


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
    accepted_review(reviewed, made["ct"], store_result(reviewed, made["ct"]))
    assert export(reviewed, folder / "ct", reviewed / "seg.dcm") == 0
    seg = hd.seg.segread(reviewed / "seg.dcm")
    first, added = seg.SegmentSequence
    assert first.SegmentLabel == "T10 blastic 1" and first.TrackingUID == before["T10 blastic 1"]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "14799000"
    assert first.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert "sclerotic <b>rim</b>" in first.SegmentDescription
    assert added.SegmentLabel == "T11 lytic added 1" and added.SegmentAlgorithmType == "MANUAL"
    assert seg.ContentCreatorName == "R. Ader^"
    assert export(reviewed, folder / "ct", reviewed / "all.dcm", "--unreviewed") == 0
    assert len(hd.seg.segread(reviewed / "all.dcm").SegmentSequence) == 3


def test_other_lesions_of_the_same_name_have_other_tracking_uids(made: dict[str, Any]) -> None:
    """Two readers each drew a "T10 lytic added 1"; another run of the CT found another L1-lytic-1.

    Reports and segmentations of one result agree, and so they do after its lesion was measured.
    """
    instance = pydicom.dcmread(next((made["folder"] / "ct").iterdir()))
    stored = read_result(made["folder"] / "result")
    found = stored.lesions[0]
    drawn = replace(found, id="T10-added-1", missed=True, centroid_lps=(0.0, 0.0, -50.0))

    def uid(lesion: Item, reviewer: str = "") -> str:
        return tracking_uid(replace(stored, lesions=(lesion,), reviewer=reviewer), lesion, instance)

    elsewhere = replace(drawn, centroid_lps=(15.0, 5.0, -40.0))
    assert len({uid(drawn, "Anna"), uid(elsewhere, "Anna"), uid(drawn, "Ben"), uid(found)}) == 4
    assert uid(replace(found, score=found.score / 2)) != uid(found)
    judged = replace(found, verdict="accepted", comment="typical", mean_hu=1.0)
    assert uid(judged, "Anna") == uid(found)
    measured = replace(drawn, centroid_lps=(0.3, 0.0, -50.0))
    one = replace(stored, lesions=(drawn,), reviewer="Anna")
    assert tracking_uid(one, measured, instance) == tracking_uid(one, drawn, instance)


def test_a_result_of_a_nifti_copy_goes_onto_the_dicom_slices(
    made: dict[str, Any], tmp_path: Path
) -> None:
    """Axes that run in another order, and halves in place of whole numbers, are the same scan."""
    image = sitk.DICOMOrient(to_sitk(made["ct"]), "RAI")
    image = sitk.PermuteAxes(sitk.Flip(image, [False, True, True]), [1, 2, 0])
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), tmp_path / "ct.nrrd")
    copy = read_ct(tmp_path / "ct.nrrd")
    assert copy.grid.shape != made["ct"].grid.shape
    result = store_result(tmp_path / "result", copy)
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
    store_result(tmp_path / "result", read_ct(tmp_path / "ct"))
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

    for file in (tmp_path / "placeless").iterdir():
        one = pydicom.dcmread(file)
        one.FrameOfReferenceUID = f"{ROOT}.77.{one.InstanceNumber}"
        one.save_as(file)
    text = refusal(capsys, result, tmp_path / "placeless")
    assert "states 44 different frame of reference UIDs in one series" in text

    write_oblique(tmp_path / "alike", number=3)
    for file in sorted((tmp_path / "alike").iterdir())[2:4]:
        one = pydicom.dcmread(file)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.78"
        one.save_as(file)
    text = refusal(capsys, result, tmp_path / "alike")
    assert "alike: states one instance UID for 002.dcm and 003.dcm" in text

    write_oblique(tmp_path / "numbered")
    for file in (tmp_path / "numbered").iterdir():
        one = pydicom.dcmread(file)
        one.PatientID = f"slice {one.InstanceNumber}"
        one.save_as(file)
    text = refusal(capsys, result, tmp_path / "numbered")
    assert "states 44 different patient numbers in one series" in text

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
    assert "is not a DICOM series" in refusal(capsys, result, tmp_path / "ct.nrrd")
    (tmp_path / "empty").mkdir()
    text = refusal(capsys, tmp_path / "empty", made["folder"] / "ct")
    assert "is not a results folder" in text


def test_files_that_contradict_each_other_and_a_result_without_lesions(
    made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct = made["ct"]
    mixed = store_result(tmp_path / "mixed", ct)
    write_segmentation(tmp_path / "mixed" / "lesions.seg.nrrd", ct.grid, mixed.with_threshold(0.7))
    text = refusal(capsys, tmp_path / "mixed", made["folder"] / "ct")
    assert "lesions.seg.nrrd: is not of the same result as candidates.json: it lacks L1" in text
    store_result(tmp_path / "none", ct, make_result(ct.grid).with_threshold(0.99))
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
    result = store_result(tmp_path / "result", ct)
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


def measurements(group: Any) -> dict[tuple[str, str], float]:
    """Values by name and derivation, as a reader of the SR gets them."""
    found = {}
    for one in group.get_measurements():
        how = one.derivation.meaning if one.derivation else ""
        found[one.name.meaning, how] = float(one.value)
    return found


def test_an_sr_says_per_lesion_and_level_what_was_measured(
    made: dict[str, Any], tmp_path: Path
) -> None:
    ct, folder = made["ct"], tmp_path / "reviewed"
    accepted_review(folder, ct, store_result(folder, ct))
    sr_file, seg_file = folder / "sr.dcm", folder / "seg.dcm"
    assert export(folder, made["folder"] / "ct", seg_file, "--dicom-sr", str(sr_file)) == 0
    sr, seg = hd.sr.srread(sr_file), hd.seg.segread(seg_file)
    report = sr.content
    assert sr.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    groups = report.get_volumetric_roi_measurement_groups()
    assert [g.tracking_identifier for g in groups] == ["T10 blastic 1", "T11 lytic added 1"]
    first = groups[0]
    assert first.tracking_uid == seg.SegmentSequence[0].TrackingUID
    assert first.reference_type.meaning == "Referenced Segment"
    assert first.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    candidate = made["result"].vertebrae[0].candidates[0]
    voxels = ct.array[candidate.patch.box][candidate.patch.array]
    said = measurements(first)
    assert said["Volume", ""] == pytest.approx(candidate.volume_mm3, rel=1e-4)
    assert said["Diameter", "Maximum"] == pytest.approx(14, abs=2)
    assert said["Attenuation Coefficient", "Mean"] == pytest.approx(voxels.mean(), abs=0.01)
    deviation = said["Attenuation Coefficient", "Standard Deviation"]
    assert deviation == pytest.approx(voxels.std(), abs=0.01)
    assert said["Score of the method", ""] == 0.91
    assert said["Probability that the vertebra is malignant", ""] == 0.983
    evaluated = {x.name.meaning: x.value.meaning for x in first.get_qualitative_evaluations()}
    assert evaluated["Type of lesion"] == "Osteoblastic lesion"
    assert evaluated["Verdict of the reader"] == "Accepted"
    assert first.finding_type.value == "14799000"
    assert first.finding_sites[0].topographical_modifier is None
    assert first.finding_sites[0].value.value == "7610001"
    assert ("Score of the method", "") not in measurements(groups[1]), "drawn by the reader"

    burden = {g.tracking_identifier: measurements(g) for g in report.get_image_measurement_groups()}
    assert burden["T10, blastic lesions"]["Number of lesions", ""] == 1
    assert burden["all levels, all lesions"]["Number of lesions", ""] == 2
    observers = {x.observer_type.meaning for x in report.get_observer_contexts()}
    assert observers == {"Person", "Device"}
    assert "R. Ader" in str(sr)
    cited = {
        image.ReferencedSOPInstanceUID
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for one in study.ReferencedSeriesSequence
        for image in one.ReferencedSOPSequence
    }
    assert seg.SOPInstanceUID in cited and len(cited) == 1 + ct.grid.shape[0]


def lesions_of(sr: Any) -> list[Any]:
    return list(sr.content.get_volumetric_roi_measurement_groups())


def with_one_lesion(ct: Volume, slices: int = 0) -> Result:
    """A result whose only lesion is that of L1, or so many of its slices."""
    result = make_result(ct.grid)
    (lesion,) = result.vertebrae[3].candidates
    assert lesion.patch is not None
    if slices:
        k, j, i = lesion.patch.start
        patch = Patch(lesion.patch.array[2 : 2 + slices], (k + 2, j, i))
        lesion = make_candidate("L1-1", "lytic", 0.66, patch, ct.grid)
    return replace(result, vertebrae=(replace(result.vertebrae[3], candidates=(lesion,)),))


@pytest.mark.parametrize("slices", [0, 1, 2], ids=["whole", "one slice", "two slices"])
@pytest.mark.parametrize("is_multi_frame", [False, True], ids=["slices", "frames"])
def test_the_only_lesion_is_referred_to_with_the_images_it_lies_on(
    made: dict[str, Any], tmp_path: Path, is_multi_frame: bool, slices: int
) -> None:
    """A SEG describes what all its frames have in common once, as the number of its segment."""
    source = made["folder"] / "ct"
    if is_multi_frame:
        source = enhanced(made["ct"], tmp_path / "ct" / "all.dcm").parent
    ct = read_ct(source)
    result = store_result(tmp_path, ct, with_one_lesion(ct, slices))
    sr_file, seg_file = tmp_path / "sr.dcm", tmp_path / "seg.dcm"
    assert export(tmp_path, source, seg_file, "--dicom-sr", str(sr_file)) == 0
    (group,) = lesions_of(hd.sr.srread(sr_file))
    assert group.referenced_segment.referenced_segment_numbers == [1]
    patch = result.vertebrae[0].candidates[0].patch
    assert patch is not None
    expected: dict[str, list[int] | None] = {}
    for k in sorted(set((np.argwhere(patch.array) + patch.start)[:, 0].tolist())):
        file, frame = ct.planes[k]
        uid = str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)
        if is_multi_frame:
            expected[uid] = sorted([*(expected.get(uid) or []), frame])
        else:
            expected[uid] = None
    images = group.referenced_segment.source_images_for_segmentation
    assert len(images) == len(expected)
    assert {
        str(x.referenced_sop_instance_uid): x.referenced_frame_numbers for x in images
    } == expected
    read = read_segmentation(seg_file)
    (segment,) = read.segments
    volume = read.mask(segment).sum() * read.grid.voxel_mm3
    assert volume == pytest.approx(patch.array.sum() * ct.grid.voxel_mm3, rel=1e-3)


@pytest.mark.parametrize("is_multi_frame", [False, True], ids=["slices", "frames"])
def test_every_lesion_is_referred_to_with_all_images_its_segment_names(
    made: dict[str, Any], tmp_path: Path, is_multi_frame: bool
) -> None:
    source = made["folder"] / "ct"
    if is_multi_frame:
        source = enhanced(made["ct"], tmp_path / "ct" / "all.dcm").parent
    store_result(tmp_path, read_ct(source))
    sr_file, seg_file = tmp_path / "sr.dcm", tmp_path / "seg.dcm"
    assert export(tmp_path, source, seg_file, "--dicom-sr", str(sr_file)) == 0
    named: dict[int, set[tuple[str, int]]] = {1: set(), 2: set(), 3: set()}
    for frame in hd.seg.segread(seg_file).PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found = str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber", 0))
        named[number].add(found)
    for n, group in enumerate(lesions_of(hd.sr.srread(sr_file)), start=1):
        images = group.referenced_segment.source_images_for_segmentation
        assert named[n] == {
            (str(x.referenced_sop_instance_uid), frame)
            for x in images
            for frame in x.referenced_frame_numbers or [0]
        }


def test_a_review_without_a_name_is_a_review_in_every_object(
    made: dict[str, Any], tmp_path: Path
) -> None:
    ct = made["ct"]
    accepted_review(tmp_path, ct, store_result(tmp_path, ct), reviewer="")
    assert read_result(tmp_path).is_reviewed
    sr_file, seg_file = tmp_path / "sr.dcm", tmp_path / "seg.dcm"
    assert export(tmp_path, made["folder"] / "ct", seg_file, "--dicom-sr", str(sr_file)) == 0
    seg, sr = hd.seg.segread(seg_file), hd.sr.srread(sr_file)
    assert seg.SeriesDescription == "HideSeekSeg lesions, reviewed"
    assert seg.ContentLabel == "METASTASES" and "ContentCreatorName" not in seg
    kinds = [segment.SegmentAlgorithmType for segment in seg.SegmentSequence]
    assert kinds == ["SEMIAUTOMATIC", "MANUAL"]
    assert [x.observer_type.meaning for x in sr.content.get_observer_contexts()] == ["Device"]
    assert export(tmp_path, made["folder"] / "ct", seg_file, "--unreviewed") == 0
    assert hd.seg.segread(seg_file).SeriesDescription == "HideSeekSeg lesions, not reviewed"


@pytest.mark.parametrize(
    ("said", "burned"),
    [({"patient_name": "Doe^Jane"}, "YES"), ({"patient_id": "4711"}, "YES"), ({}, "NO")],
)
def test_a_report_that_names_the_patient_says_so_in_its_header(
    made: dict[str, Any], said: dict[str, str], burned: str
) -> None:
    stored = read_result(made["folder"] / "result")
    stored = replace(stored, run={**stored.run, "scan": {**stored.scan, **said}})
    instances = [pydicom.dcmread(made["ct"].planes[0][0], stop_before_pixels=True)]
    written = dicom_report(stored, instances, b"%PDF", title_of(stored))
    assert all(word in written.DocumentTitle for word in said.values())
    assert written.BurnedInAnnotation == burned


def test_an_sr_alone_says_that_nothing_was_found(
    made: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct = made["ct"]
    store_result(tmp_path, ct, make_result(ct.grid).with_threshold(0.99))
    words = ["export", str(tmp_path), "--ct", str(made["folder"] / "ct")]
    assert main([*words, "--dicom-sr", str(tmp_path / "sr.dcm")]) == 0
    (group,) = hd.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    assert measurements(group)["Number of lesions", ""] == 0
    capsys.readouterr()
    words[1] = str(made["folder"] / "result")
    assert main([*words, "--dicom-sr", str(tmp_path / "no.dcm")]) == 2
    assert main(words) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "refers to the segments of a DICOM SEG" in first and "nothing to write" in second
    assert not (tmp_path / "no.dcm").exists()


def tool(name: str, package: str) -> str:
    """Return the path of a program beside Python or on the path; skips where there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed: pip install {package}")
    return found


def test_dcmqi_reads_the_same_voxels_and_the_measurements(
    made: dict[str, Any], tmp_path: Path
) -> None:
    reader, sr_reader = tool("segimage2itkimage", "dcmqi"), tool("tid1500reader", "dcmqi")
    source = made["folder"]
    files = [str(tmp_path / name) for name in ("seg.dcm", "sr.dcm", "sr.json")]
    assert export(source / "result", source / "ct", Path(files[0]), "--dicom-sr", files[1]) == 0
    words = [reader, "--inputDICOM", files[0], "--outputDirectory", str(tmp_path), "-t", "nrrd"]
    subprocess.run(words, check=True, capture_output=True)
    labels = [x.SegmentLabel for x in made["seg"].SegmentSequence]
    read = read_segmentation(tmp_path / f"{1 + labels.index('L1 lytic 1')}.nrrd")
    ours = read.grid.lps(np.argwhere(read.layers[0].array)[:, ::-1])
    patch = made["result"].vertebrae[3].candidates[0].patch
    theirs = made["ct"].grid.lps((np.argwhere(patch.array) + patch.start)[:, ::-1])
    ours, theirs = (x[np.lexsort(tuple(x.round(1).T[::-1]))] for x in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=0.02)

    words = [sr_reader, "--inputDICOM", files[1], "--outputMetadata", files[2]]
    subprocess.run(words, check=True, capture_output=True)
    groups = json.loads(Path(files[2]).read_text("utf-8"))["Measurements"]
    assert [g["TrackingIdentifier"] for g in groups[:3]] == labels, "then the burden"
    assert [g["ReferencedSegment"] for g in groups[:3]] == [1, 2, 3]


@pytest.mark.parametrize("is_alone", [False, True], ids=["three lesions", "one lesion"])
def test_dciodvfy_finds_no_error(made: dict[str, Any], tmp_path: Path, is_alone: bool) -> None:
    """Its warnings are of private codes, which are declared, and of what the source lacks."""
    checker, source = tool("dciodvfy", "dicom3tools"), made["folder"]
    files = [str(tmp_path / name) for name in ("seg.dcm", "sr.dcm")]
    result = tmp_path if is_alone else source / "result"
    if is_alone:
        store_result(result, made["ct"], with_one_lesion(made["ct"]))
    assert export(result, source / "ct", Path(files[0]), "--dicom-sr", files[1]) == 0
    for file in files:
        done = subprocess.run([checker, file], capture_output=True, text=True)
        errors = [x for x in (done.stdout + done.stderr).splitlines() if x.startswith("Error")]
        assert not errors
