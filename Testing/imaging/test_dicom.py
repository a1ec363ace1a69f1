"""DICOM series and enhanced images: every slice where it says, odd ones named, none guessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from hideseekseg.errors import InputError
from hideseekseg.imaging.dicom_series import list_series
from hideseekseg.imaging.reading import check_ct, read_ct, read_ct_apart, read_segmentation

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
from helpers.dicom import ROOT, dicom, item, one, save, series  # noqa: E402
from helpers.permissions import as_another_user, closed, posix  # noqa: E402

ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"


def refusal(path: Path, series: str = "", patient_names: bool = False) -> str:
    with pytest.raises(InputError) as refused:
        read_ct(path, series, patient_names)
    text = str(refused.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text


EVEN = [100 + 2.5 * n for n in range(12)]


def test_small_deviations_that_add_up_are_refused_with_the_slice(tmp_path: Path) -> None:
    heights = np.cumsum([0.0, *[1.0] * 60, *[1.09] * 60])
    text = refusal(series(tmp_path / "ct", heights.tolist()))
    assert "1.00 to 1.09 mm" in text and "060.dcm lies 2.7 mm" in text


def test_rounded_positions_are_read(tmp_path: Path) -> None:
    heights = [round(100 + 0.625 * n, 1) for n in range(40)]
    ct = read_ct(series(tmp_path / "ct", heights))
    np.testing.assert_allclose(ct.grid.spacing[2], 0.625, atol=0.002)


def test_half_a_degree_of_tilt_is_refused_where_it_adds_up(tmp_path: Path) -> None:
    for n in range(120):
        place = [-10, 20 + 2.5 * n * np.tan(np.radians(0.5)), 2.5 * n]
        save(one(n, 0, ImagePositionPatient=place), tmp_path / f"{n:03d}.dcm")
    text = refusal(tmp_path)
    assert "tilted gantry (0.5 degrees, 2.6 mm" in text


def test_slices_of_different_types_are_read_to_one_that_holds_all(tmp_path: Path) -> None:
    """A slope of its own makes one slice fractional, a large intercept another one wide."""
    series(tmp_path, EVEN)
    save(one(5, EVEN[5], RescaleSlope=0.5, RescaleIntercept=-500.25), tmp_path / "005.dcm")
    save(one(7, EVEN[7], RescaleIntercept=70_000), tmp_path / "007.dcm")
    ct = read_ct(tmp_path)
    expected = np.arange(12.0)
    expected[5], expected[7] = 1005 / 2 - 500.25, 71_007
    np.testing.assert_allclose(ct.array[:, 3, 3], expected, atol=0.01)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "an intensity projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "IODINE_MAP"]}, "a material map"),
        ({"RescaleType": "MGML"}, "in MGML and not in HU"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "of another direction"),
    ],
    ids=["localizer", "MIP", "iodine", "unit", "untagged localizer"],
)
def test_what_is_no_slice_of_the_volume_is_left_out_and_named(
    tmp_path: Path, fields: dict[str, Any], kind: str
) -> None:
    series(tmp_path, EVEN)
    save(one(50, 130.0, **fields), tmp_path / "odd.dcm")
    ct = read_ct(tmp_path)
    np.testing.assert_array_equal(ct.array[:, 3, 3], np.arange(12))
    (note,) = ct.notes
    assert note.startswith("odd.dcm was left out: it is ") and kind in note


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "an intensity projection"),
        ({"SeriesDescription": "Iodine map 1.0"}, "a material map"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
    ],
)
def test_a_whole_series_that_is_no_ct_volume_is_refused_and_passed_over(
    tmp_path: Path, fields: dict[str, Any], kind: str
) -> None:
    other = dict(SeriesInstanceUID=f"{ROOT}.9", SeriesNumber=9, **fields)
    series(tmp_path / "map", EVEN, **other)
    assert kind in refusal(tmp_path / "map")
    series(tmp_path / "ct", EVEN, number=500)
    assert read_ct(tmp_path).array.shape == (12, 8, 10)


def test_the_odd_file_is_named(tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "thickness": {"SliceThickness": 5},
        "size": {"Rows": 4, "Columns": 20},
        "spacing": {"PixelSpacing": [0.7, 0.5]},
        "direction": {"ImageOrientationPatient": [1, 0, 0, 0, 0.98, 0.199]},
        "rescal": {"RescaleIntercept": None, "RescaleSlope": None},
    }
    for name, fields in changes.items():
        folder = series(tmp_path / name, EVEN)
        changed = one(4, EVEN[4])
        for key, value in fields.items():
            if value is None:
                delattr(changed, key)
            else:
                setattr(changed, key, value)
        save(changed, folder / "004.dcm")
        text = refusal(folder)
        assert "004.dcm is the odd one" in text and name in text


@pytest.mark.parametrize(
    ("fields", "of"),
    [
        ({"PixelSpacing": None}, range(12)),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.75, 0.5]}, range(12)),
        ({"PixelSpacing": None}, [4]),
        ({"PixelSpacing": ""}, range(12)),
        ({"PixelSpacing": [0.75]}, range(12)),
        ({"PixelSpacing": [0, 0.5]}, range(12)),
    ],
    ids=["none", "of the detector", "in one slice", "empty", "one number", "zero"],
)
def test_slices_without_a_pixel_spacing_are_refused(
    tmp_path: Path, fields: dict[str, Any], of: Sequence[int]
) -> None:
    """ITK takes 1 mm then, and every volume and diameter would be wrong."""
    for n, z in enumerate(EVEN):
        changed = one(n, z, **(fields if n in of else {}))
        for name in [key for key, value in fields.items() if value is None and n in of]:
            delattr(changed, name)
        save(changed, tmp_path / f"{n:03d}.dcm")
    text = refusal(tmp_path)
    assert f"states no pixel spacing in {of[0]:03d}.dcm" in text
    with pytest.raises(InputError, match="states no pixel spacing"):
        check_ct(tmp_path)
    (listed,) = list_series(tmp_path)
    assert listed.spacing[2] == 2.5 and (0 in listed.spacing) == (of[0] == 0)


OTHERS: dict[str, dict[str, Any]] = {
    "patient": {"PatientID": "B"},
    "patient's name": {"PatientName": "Roe^Richard"},
    "study": {"StudyInstanceUID": f"{ROOT}.21"},
    "frame of reference": {"FrameOfReferenceUID": f"{ROOT}.23"},
    "modality": {"Modality": "PT"},
}
UNNAMED: dict[str, dict[str, Any]] = {
    "series number": {"SeriesNumber": 3},
    "description": {"SeriesDescription": "soft"},
    "kernel": {"ConvolutionKernel": "B30f"},
}
MORE = [EVEN[-1] + 2.5 * n for n in range(1, 9)]  # heights that continue the first series


def two_under_one_uid(folder: Path, fields: dict[str, Any], heights: Sequence[float]) -> Path:
    """A series, and other files beside it that state its UID."""
    common = {"PatientID": "A"}
    for n, z in enumerate(EVEN):
        save(one(n, z, **common), folder / f"a{n:02d}.dcm")
    for n, z in enumerate(heights):
        save(one(12 + n, z, **{**common, **fields}), folder / f"b{n:02d}.dcm")
    return folder


def without_uid(folder: Path, *keywords: str) -> Path:
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        for keyword in keywords:
            if keyword in dataset:
                delattr(dataset, keyword)
        dataset.save_as(file)
    return folder


@pytest.mark.parametrize("named", [True, False], ids=["one UID", "no UID"])
@pytest.mark.parametrize("what", [*OTHERS, *UNNAMED])
def test_slices_of_two_series_are_no_volume_though_they_state_one_uid(
    tmp_path: Path, what: str, named: bool
) -> None:
    """Their heights make an even stack; what tells them apart is in the headers alone."""
    folder = two_under_one_uid(tmp_path, {**OTHERS, **UNNAMED}[what], MORE)
    if not named:
        without_uid(folder, "SeriesInstanceUID")
    elif what in UNNAMED:  # a description may vary: the UID says that they are one series
        assert read_ct(folder).array.shape[0] == 20
        return
    kind = what.split("'")[0]
    ours = "files with the series UID of the others were left out: of another"
    if what == "modality":
        ct = read_ct(folder)
        assert ct.array.shape[0] == 12 and ct.notes == (f"8 {ours} modality",)
    else:
        text = refusal(folder)
        said = "one series UID" if named else "no series UID"
        assert f"of which two state {said} but are of another {kind}" in text
        assert "a00.dcm" in text and "b00.dcm" in text and "Roe" not in text
        with pytest.raises(InputError, match="2 CT series"):
            check_ct(folder)
    assert len(list_series(folder)) == 2
    ct = read_ct(folder / "a03.dcm")
    assert ct.array[:, 3, 3].tolist() == list(range(12))
    assert ct.notes == (f"8 {ours} {kind}",)
    if what != "modality":
        assert read_ct(folder / "b03.dcm").array[:, 3, 3].tolist() == list(range(12, 20))


def test_a_few_slices_of_another_patient_are_left_out_and_named(tmp_path: Path) -> None:
    ct = read_ct(two_under_one_uid(tmp_path, {"PatientID": "B"}, MORE[:2]))
    assert ct.array.shape[0] == 12
    assert ct.notes == (
        "2 files with the series UID of the others were left out: of another patient",
    )


def test_frames_of_two_patients_are_no_volume_though_they_state_one_uid(tmp_path: Path) -> None:
    def of_another(dataset: Any) -> None:
        dataset.PatientID = "B"

    enhanced(tmp_path / "IM1", EVEN)
    enhanced(tmp_path / "IM2", MORE, change=of_another, number=901)
    assert "two state one series UID but are of another patient" in refusal(tmp_path)
    assert read_ct(tmp_path / "IM2").array.shape[0] == 8


@pytest.mark.parametrize(
    "keywords",
    [
        ("FrameOfReferenceUID",),
        ("StudyInstanceUID", "PatientID", "PatientName"),
        ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "FrameOfReferenceUID"),
    ],
    ids=["no frame of reference", "no study and patient", "no series"],
)
def test_a_series_may_lack_in_all_slices_what_says_whose_it_is(
    tmp_path: Path, keywords: tuple[str, ...]
) -> None:
    ct = read_ct(without_uid(series(tmp_path, EVEN), *keywords))
    assert ct.array.shape[0] == 12 and not ct.notes


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "PatientID"])
def test_uids_that_were_invented_for_every_slice_tell_nothing_apart(
    tmp_path: Path, keyword: str
) -> None:
    for n, z in enumerate(EVEN):
        save(one(n, z, **{keyword: f"{ROOT}.70.{n}"}), tmp_path / f"{n:03d}.dcm")
    assert read_ct(tmp_path).array.shape[0] == 12


def test_a_name_in_other_letters_is_the_same_patient(tmp_path: Path) -> None:
    same = {"PatientName": "DOE^JANE^^^", "PatientID": "A"}
    assert read_ct(two_under_one_uid(tmp_path, same, MORE)).array.shape[0] == 20


@posix
def test_slices_in_a_linked_folder_belong_to_the_series(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN[:8])
    for n in range(8, 12):
        save(one(n, EVEN[n]), tmp_path / "more" / f"{n:03d}.dcm")
    (folder / "rest").symlink_to(tmp_path / "more")
    (folder / "a-loop").symlink_to(folder)
    ct = read_ct(folder)
    assert ct.array[:, 3, 3].tolist() == list(range(12)) and not ct.notes
    assert list_series(folder)[0].slices == 12
    (tmp_path / "more" / "011.dcm").rename(tmp_path / "moved.dcm")
    (tmp_path / "more" / "011.dcm").symlink_to(tmp_path / "nothing.dcm")
    with pytest.raises(InputError, match=r"011\.dcm: is a link to what is not there"):
        read_ct(folder)


@posix
def test_a_series_with_a_folder_that_is_closed_is_refused(tmp_path: Path) -> None:
    """What lies in it may be the last slices of the series: nothing else would tell."""
    folder = series(tmp_path / "ct", EVEN[:8])
    for n in range(8, 12):
        save(one(n, EVEN[n]), folder / "rest" / f"{n:03d}.dcm")
    (folder / "lost+found").mkdir()
    with closed(folder / "lost+found"), as_another_user(tmp_path):
        assert read_ct(folder).array.shape[0] == 12
    reads: list[Callable[[Path], object]] = [read_ct, check_ct, list_series]
    with closed(folder / "rest"), as_another_user(tmp_path):
        for read in reads:
            with pytest.raises(InputError, match="rest: cannot be looked into: Permission denied"):
                read(folder)
    with closed(folder), as_another_user(tmp_path):
        assert "cannot be looked into: Permission denied" in refusal(folder)
    with (
        closed(folder, 0o744),  # names may be seen, nothing else
        as_another_user(tmp_path),
        pytest.raises(InputError, match="Permission denied"),
    ):
        read_ct(folder)


def test_a_series_is_chosen_from_a_list(tmp_path: Path) -> None:
    series(tmp_path / "a", EVEN)
    soft = dict(SeriesInstanceUID=f"{ROOT}.4", SeriesNumber=4, SeriesDescription="soft")
    series(tmp_path / "b", EVEN[:8], number=900, **soft)
    save(item_report(), tmp_path / "report.dcm")
    (tmp_path / "AUTORUN.INF").write_text("[autorun]")
    first, second = list_series(tmp_path)
    assert (first.number, first.description, first.slices) == ("2", "bone", 12)
    assert (second.number, second.description, second.slices) == ("4", "soft", 8)
    assert first.spacing == (0.5, 0.75, 2.5) and first.fault == second.fault == ""
    text = refusal(tmp_path)
    assert "2: " in text and "4: " in text and "--series" in text
    assert read_ct(tmp_path, "4").array.shape[0] == 8
    assert read_ct(tmp_path, f"{ROOT}.2").array.shape[0] == 12
    assert "has no series 7" in refusal(tmp_path, series="7")


def item_report() -> Any:
    report = dicom("1.2.840.10008.5.1.4.1.1.88.11", 77, Modality="SR")
    for name in ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"):
        delattr(report, name)
    return report


def test_identity_and_scale_come_along_and_no_name(tmp_path: Path) -> None:
    ct = read_ct(series(tmp_path / "ct", EVEN))
    assert ct.stated_hu
    assert ct.identity["series_uid"] == f"{ROOT}.2"
    assert ct.identity["study_date"] == "20240102"
    assert "Doe" not in str(dict(ct.identity))


@pytest.mark.parametrize(
    ("character_set", "name", "read"),
    [
        ("ISO_IR 192", "山田^太郎", "山田 太郎"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "Yamada Tarou=山田 太郎"),
        ("ISO_IR 144", "Пётр^Иванов", "Пётр Иванов"),
        ("ISO_IR 100", "Jürgen^Groß", "Jürgen Groß"),
    ],
    ids=["utf-8", "japanese", "cyrillic", "latin"],
)
def test_names_are_read_in_the_character_set_of_the_file(
    character_set: Any, name: str, read: str, tmp_path: Path
) -> None:
    series(tmp_path / "x", range(5), SpecificCharacterSet=character_set, PatientName=name)
    assert read_ct(tmp_path / "x", patient_names=True).identity["patient_name"] == read


@pytest.mark.parametrize(
    ("uid", "as_ct", "as_segmentation"),
    [
        ("1.2.840.10008.1.3.10", "a DICOMDIR", "a DICOMDIR"),
        # A structure set is a segmentation; this one lacks its structures.
        ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT", "a damaged DICOM object"),
        ("1.2.840.10008.5.1.4.1.1.88.33", "a DICOM report", "not a segmentation"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "a PDF document", "not a segmentation"),
    ],
)
def test_dicom_objects_that_are_no_images_are_named(
    tmp_path: Path, uid: str, as_ct: str, as_segmentation: str
) -> None:
    report = item_report()
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = uid
    path = save(report, tmp_path / "object")
    assert as_ct in refusal(path)
    with pytest.raises(InputError, match=as_segmentation):
        read_segmentation(path)


# Enhanced multi-frame images


def enhanced(
    path: Path,
    heights: Sequence[float],
    intercepts: Sequence[float] | None = None,
    change: Callable[[Any], None] = lambda dataset: None,
    number: int = 900,
) -> Path:
    """Frame n holds n HU, whatever its own rescaling is."""
    intercepts = intercepts or [-1000.0] * len(heights)
    groups = []
    for z, b in zip(heights, intercepts):
        rescale = [item(RescaleIntercept=b, RescaleSlope=1, RescaleType="HU")]
        groups.append(
            item(
                PlanePositionSequence=[item(ImagePositionPatient=[-10, 20, z])],
                PixelValueTransformationSequence=rescale,
                CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME"])],
            )
        )
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
    )
    stored = [np.full((8, 10), n - b, "<u2") for n, b in enumerate(intercepts)]
    made = dicom(ENHANCED, number)
    made.Rows, made.Columns, made.NumberOfFrames = 8, 10, len(heights)
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = groups
    made.PixelData = b"".join(frame.tobytes() for frame in stored)
    change(made)
    return save(made, path)


@pytest.mark.parametrize("turn", [1, -1], ids=["upwards", "downwards"])
def test_frames_are_put_in_order(tmp_path: Path, turn: int) -> None:
    order = [0, 5, 1, 4, 2, 3][::turn]
    path = enhanced(tmp_path / "IM1", [100 + 2.5 * n for n in order])
    for source in (tmp_path, path):
        ct = read_ct(source)
        np.testing.assert_array_equal(ct.array[:, 3, 3], np.argsort(order))
        np.testing.assert_allclose(ct.grid.spacing, (0.5, 0.75, 2.5))
        np.testing.assert_allclose(ct.grid.lps([0, 0, 0]), (-10, 20, 100))


def test_every_frame_has_its_own_rescaling(tmp_path: Path) -> None:
    enhanced(tmp_path / "IM1", EVEN, [-1000.0 - 40 * (n % 3) for n in range(12)])
    ct = read_ct(tmp_path)
    np.testing.assert_allclose(ct.array[:, 3, 3], np.arange(12))
    assert ct.stated_hu


def drop_orientation(dataset: Any) -> None:
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence


def drop_groups(dataset: Any) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[3:]


def turn_one(dataset: Any) -> None:
    group = dataset.PerFrameFunctionalGroupsSequence[4]
    group.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])]


@pytest.mark.parametrize(
    ("heights", "change", "words"),
    [
        ([*EVEN[:5], *EVEN[6:]], None, "lacks slices"),
        ([*EVEN, 100.0], None, "same position"),
        ([*EVEN[:8], 121.5, 125.5], None, "uneven steps"),
        (EVEN, drop_orientation, "no position or orientation"),
        (EVEN, drop_groups, "3 of its 12 frames"),
        (EVEN, turn_one, "differ in orientation: frame 5 is the odd one"),
    ],
    ids=["missing", "doubled", "uneven", "no orientation", "no groups", "turned"],
)
def test_frames_pass_the_same_checks_as_slices(
    tmp_path: Path, heights: list[float], change: Callable[[Any], None] | None, words: str
) -> None:
    enhanced(tmp_path / "IM1", heights, change=change or (lambda dataset: None))
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("stated_by", ["all", "each", "some"])
def test_frames_state_their_pixel_spacing_together_or_one_by_one(
    tmp_path: Path, stated_by: str
) -> None:
    def state(dataset: Any) -> None:
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        if stated_by != "all":
            del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
            frames = dataset.PerFrameFunctionalGroupsSequence
            for group in frames if stated_by == "each" else frames[:7]:
                group.PixelMeasuresSequence = measures

    path = enhanced(tmp_path / "IM1", EVEN, change=state)
    if stated_by == "some":
        assert "states no pixel spacing in frame 8" in refusal(path)
    else:
        np.testing.assert_allclose(read_ct(path).grid.spacing, (0.5, 0.75, 2.5))


@pytest.mark.parametrize("unit", ["Z_EFF", "MGML", "HU", "HU_MOD", "US", None])
@pytest.mark.parametrize("stated_by", ["all", "each"])
def test_frames_in_another_unit_than_hu_are_refused(
    tmp_path: Path, unit: str | None, stated_by: str
) -> None:
    def state(dataset: Any) -> None:
        for group in dataset.PerFrameFunctionalGroupsSequence:
            (rescale,) = group.PixelValueTransformationSequence
            if unit is None:
                del rescale.RescaleType
            else:
                rescale.RescaleType = unit
            if stated_by == "all":
                del group.PixelValueTransformationSequence
        if stated_by == "all":
            shared = dataset.SharedFunctionalGroupsSequence[0]
            shared.PixelValueTransformationSequence = [rescale]

    path = enhanced(tmp_path / "IM1", EVEN, change=state)
    if unit in ("Z_EFF", "MGML"):
        assert f"frame 1 was left out: it is in {unit} and not in HU" in refusal(path)
        return
    ct = read_ct(path)
    np.testing.assert_array_equal(ct.array[:, 3, 3], np.arange(12))
    assert ct.stated_hu and not ct.notes


def test_one_frame_in_another_unit_is_left_out_and_named(tmp_path: Path) -> None:
    def state(dataset: Any) -> None:
        last = dataset.PerFrameFunctionalGroupsSequence[11]
        last.PixelValueTransformationSequence[0].RescaleType = "Z_EFF"

    ct = read_ct(enhanced(tmp_path / "IM1", EVEN, change=state))
    assert ct.notes == ("frame 12 was left out: it is in Z_EFF and not in HU",)
    assert ct.array.shape[0] == 11


@pytest.mark.parametrize("count", [12, 5])
def test_frames_without_a_rescaling_are_not_called_hu(tmp_path: Path, count: int) -> None:
    """As slices without one: all of them are judged by what they show, some would be 1000 off."""

    def drop(dataset: Any) -> None:
        for group in dataset.PerFrameFunctionalGroupsSequence[-count:]:
            del group.PixelValueTransformationSequence

    path = enhanced(tmp_path / "IM1", EVEN, change=drop)
    if count == 12:
        assert not read_ct(path).stated_hu
    else:
        assert "with and without rescaling to HU: frame 8 is the odd one" in refusal(path)


def test_a_frame_that_is_a_localizer_is_left_out(tmp_path: Path) -> None:
    def tag(dataset: Any) -> None:
        group = dataset.PerFrameFunctionalGroupsSequence[11]
        group.CTImageFrameTypeSequence = [item(FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER"])]

    enhanced(tmp_path / "IM1", [*EVEN[:11], 300.0], change=tag)
    ct = read_ct(tmp_path)
    assert ct.array.shape[0] == 11
    assert ct.notes == ("frame 12 was left out: it is a localizer",)


def test_frames_of_several_files_make_one_volume(tmp_path: Path) -> None:
    enhanced(tmp_path / "IM1", EVEN[:6])
    enhanced(tmp_path / "IM2", EVEN[6:], number=901)
    assert read_ct(tmp_path).array.shape[0] == 12
    enhanced(tmp_path / "IM2", EVEN[7:], number=901)
    assert "lacks slices" in refusal(tmp_path)


def test_frames_agree_with_the_same_volume_as_slices(tmp_path: Path) -> None:
    frames = read_ct(enhanced(tmp_path / "e" / "IM1", EVEN))
    slices = read_ct(series(tmp_path / "s", EVEN))
    assert frames.grid.matches(slices.grid)
    np.testing.assert_array_equal(frames.array, slices.array)


def test_a_mask_of_pixels_survives_compression(tmp_path: Path) -> None:
    """GDCM unpacks RLE; the frames' own rescaling is undone and done after that."""
    path = enhanced(tmp_path / "IM1", EVEN, [-1000.0 - n for n in range(12)])
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)
    values: npt.NDArray[Any] = read_ct(tmp_path).array[:, 3, 3]
    np.testing.assert_allclose(values, np.arange(12))


def test_itk_reads_a_plain_series_alike(tmp_path: Path) -> None:
    ct = read_ct(series(tmp_path / "ct", EVEN))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    np.testing.assert_array_equal(ct.array, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(ct.grid.lps([0, 0, 0]), image.GetOrigin())


def test_a_series_is_the_same_from_a_process_of_its_own(tmp_path: Path) -> None:
    folder = series(tmp_path / "series", [2.5 * n for n in range(5)])
    here, apart = read_ct(folder, "2", True), read_ct_apart(folder, "2", True)
    assert np.array_equal(apart.array, here.array) and apart.array.dtype == here.array.dtype
    assert np.array_equal(apart.grid.ijk_to_lps, here.grid.ijk_to_lps)
    assert (apart.identity, apart.planes) == (here.identity, here.planes)
    assert (apart.stated_hu, apart.notes, apart.path) == (True, here.notes, str(folder))
    with pytest.raises(InputError, match="has no series 3"):
        read_ct_apart(folder, "3")


def stored_as(hu: np.ndarray, **fields: Any) -> dict[str, Any]:
    """The fields of a slice that stores HU as it says, with the usual rescaling of the helper."""
    bits, alloc = fields.get("BitsStored", 16), fields.get("BitsAllocated", 16)
    low = float(fields.get("RescaleIntercept", -1000))
    stored = np.round((hu - low) / float(fields.get("RescaleSlope", 1))).astype(np.int64)
    kind = "u1" if alloc == 8 else "<u2"
    return fields | dict(
        HighBit=fields.get("HighBit", bits - 1),
        PixelData=(stored & ((1 << bits) - 1)).astype(kind).tobytes(),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"BitsStored": 12},
        {"BitsStored": 12, "RescaleSlope": 2, "RescaleIntercept": -1024},
        {"BitsStored": 12, "RescaleSlope": "0.5", "RescaleIntercept": "-1000.5"},
        {"PixelRepresentation": 1, "RescaleIntercept": 0},
        {"BitsAllocated": 8, "BitsStored": 8, "RescaleSlope": 8},
    ],
    ids=["16 bits", "12 bits", "slope", "fraction", "signed", "8 bits"],
)
@pytest.mark.parametrize("which", ["all", "some"])
def test_slices_for_an_inverted_display_have_the_hu_that_they_state(
    tmp_path: Path, fields: dict[str, Any], which: str
) -> None:
    """GDCM turns the values of MONOCHROME1 upside down: soft tissue became bone and bone air."""
    hu = np.random.default_rng(0).integers(-1000, 1000, (6, 8, 10)) // 8 * 8
    for n, plane in enumerate(hu):
        shown = "MONOCHROME1" if which == "all" or n % 2 else "MONOCHROME2"
        values = stored_as(plane, PhotometricInterpretation=shown, **fields)
        save(one(n, 2.5 * n, **values), tmp_path / f"{n}.dcm")
    np.testing.assert_allclose(read_ct(tmp_path).array, hu, atol=0.51)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "a colour picture"),
        ({"BitsStored": 12, "HighBit": 15}, "stored with shifted bits"),
    ],
    ids=["colour", "shifted"],
)
def test_pixels_that_are_no_hu_are_refused_and_left_out(
    tmp_path: Path, fields: dict[str, Any], cause: str
) -> None:
    """Colours became a volume with a fourth axis, and shifted values lost their highest bits."""
    pixels = np.zeros((8, 10, fields.get("SamplesPerPixel", 1)), "<u2").tobytes()
    series(tmp_path / "all", EVEN, PixelData=pixels, PlanarConfiguration=0, **fields)
    assert cause in refusal(tmp_path / "all")
    series(tmp_path / "one", EVEN)
    odd = one(50, 130.0, PixelData=pixels, PlanarConfiguration=0, **fields)
    save(odd, tmp_path / "one" / "odd.dcm")
    (note,) = read_ct(tmp_path / "one").notes
    assert note.startswith("odd.dcm was left out: it is ") and cause in note


def test_frames_for_an_inverted_display_are_refused(tmp_path: Path) -> None:
    """The standard allows them for slices alone."""

    def invert(made: Any) -> None:
        made.PhotometricInterpretation = "MONOCHROME1"

    enhanced(tmp_path / "e.dcm", EVEN, change=invert)
    assert "inverted display" in refusal(tmp_path)


@pytest.mark.parametrize("tilt", ["15", "-20.5"])
def test_a_tilt_that_directions_do_not_show_is_said(tmp_path: Path, tilt: str) -> None:
    series(tmp_path, EVEN, GantryDetectorTilt=tilt)
    (note,) = read_ct(tmp_path).notes
    assert f"tilted by {tilt.lstrip('-')} degrees" in note


def test_nothing_is_said_of_slices_that_lean_as_their_tilt_says(tmp_path: Path) -> None:
    cos, sin = float(np.cos(np.radians(15))), float(np.sin(np.radians(15)))
    for n in range(6):
        place = [-10, 20 + 2.5 * n * sin, 2.5 * n * cos]
        axes = [1, 0, 0, 0, cos, -sin]
        fields = dict(ImagePositionPatient=place, ImageOrientationPatient=axes)
        save(one(n, 0, GantryDetectorTilt="15", **fields), tmp_path / f"{n}.dcm")
    assert read_ct(tmp_path).notes == ()
    series(tmp_path / "straight", EVEN, GantryDetectorTilt="0", number=500)
    assert read_ct(tmp_path / "straight").notes == ()
