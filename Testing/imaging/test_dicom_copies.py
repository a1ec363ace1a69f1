"""DICOM objects in several files, as archives leave them: read once, and said; none is guessed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hideseekseg.errors import InputError
from hideseekseg.imaging import dicom_copies
from hideseekseg.imaging.dicom_series import list_series
from hideseekseg.imaging.reading import check_ct, read_ct

pydicom: Any = pytest.importorskip("pydicom", reason="pydicom is not installed")
from helpers.dicom import ROOT, item, one, save, series  # noqa: E402

EVEN = [100 + 2.5 * n for n in range(12)]


def changed(folder: Path, change: Callable[[Any], None]) -> None:
    for n, file in enumerate(sorted(folder.iterdir())):
        made = pydicom.dcmread(file)
        made.n = n
        change(made)
        made.save_as(file)


def said_by_archive(made: Any) -> None:
    """What an archive writes into a header that passes through it."""
    made.InstitutionName, made.RetrieveAETitle = "CITY", "ARCHIVE"
    made.file_meta.SourceApplicationEntityTitle = "ARCHIVE"


def compressed(made: Any) -> None:
    made.compress(pydicom.uid.RLELossless)
    made.SOPInstanceUID = f"{ROOT}.7.{made.n}"


def renamed(made: Any) -> None:
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.8.{made.n}"


def without_uid(made: Any) -> None:
    del made.SOPInstanceUID


CHANGES = [None, said_by_archive, compressed, renamed, without_uid]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", ["beside", "in folders"])
def test_copies_are_read_once_and_counted(
    tmp_path: Path, change: Callable[[Any], None] | None, where: str
) -> None:
    first = series(tmp_path / "ct" / "a", EVEN)
    plain = read_ct(first)
    copy = shutil.copytree(first, tmp_path / "ct" / "b")
    if change is not None:
        changed(copy, change)
    if where == "beside":
        for file in sorted(copy.iterdir()):
            file.rename(first / f"copy-{file.name}")
    (info,) = list_series(tmp_path / "ct")
    if change not in (renamed, without_uid):
        assert (info.slices, info.spacing[2]) == (12, 2.5)
    check_ct(tmp_path / "ct")
    for path in [tmp_path / "ct", *([first / "000.dcm"] if where == "beside" else [])]:
        ct = read_ct(path)
        assert ct.notes == ("12 files are copies of others and were left out",)
        assert ct.grid.matches(plain.grid)
        np.testing.assert_array_equal(ct.array, plain.array)


def test_one_copy_of_one_slice(tmp_path: Path) -> None:
    shutil.copy(series(tmp_path, EVEN) / "003.dcm", tmp_path / "003 (2).dcm")
    assert read_ct(tmp_path).notes == ("1 file is a copy of another and was left out",)


def test_three_copies_of_a_multi_frame_image(tmp_path: Path) -> None:
    def frame(z: float) -> Any:
        return item(
            PlanePositionSequence=[item(ImagePositionPatient=[-10, 20, z])],
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=2.5)],
            PixelValueTransformationSequence=[
                item(RescaleIntercept=-1000, RescaleSlope=1, RescaleType="HU")
            ],
        )

    kind = "1.2.840.10008.5.1.4.1.1.2.1"
    pixels = np.stack([np.full((8, 10), 1000 + n, "<u2") for n in range(12)])
    made = one(0, 0, SOPClassUID=kind, NumberOfFrames=12, PixelData=pixels.tobytes())
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(made, name)
    made.file_meta.MediaStorageSOPClassUID = kind
    made.PerFrameFunctionalGroupsSequence = [frame(z) for z in EVEN]
    made.SharedFunctionalGroupsSequence = [item()]
    for name in "abc":
        made.InstitutionName = name
        save(made, tmp_path / name)
    ct = read_ct(tmp_path)
    assert ct.notes == ("2 files are copies of others and were left out",)
    np.testing.assert_array_equal(ct.array[:, 3, 3], np.arange(12))
    made.PixelData = (pixels + 1).tobytes()
    save(made, tmp_path / "d")
    with pytest.raises(InputError, match=r"one SOP Instance UID for a and d, whose contents"):
        read_ct(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"PixelData": np.full((8, 10), 7, "<u2").tobytes()},
        {"RescaleIntercept": -1024},
        {"RescaleType": "HU"},
        {"SliceThickness": 5},
    ],
    ids=["pixels", "intercept", "unit", "thickness"],
)
@pytest.mark.parametrize("ask", [check_ct, read_ct])
def test_one_instance_with_two_contents_is_refused(
    tmp_path: Path, fields: dict[str, Any], ask: Callable[[Path], Any]
) -> None:
    shutil.copytree(series(tmp_path / "a", EVEN), tmp_path / "b")
    save(one(5, EVEN[5], **fields), tmp_path / "b" / "005.dcm")
    with pytest.raises(InputError) as refused:
        ask(tmp_path)
    said = "states one SOP Instance UID for a/005.dcm and b/005.dcm, whose contents differ"
    assert said in str(refused.value) and str(refused.value).startswith(str(tmp_path))


def test_slices_of_two_instances_at_one_place_stay_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two phases in one series: of one pair alone the pixels are read to find that out."""
    series(tmp_path / "a", EVEN)
    pixels = np.full((8, 10), 7, "<u2").tobytes()
    series(tmp_path / "b", EVEN, PixelData=pixels)
    changed(tmp_path / "b", renamed)
    read, asked = dicom_copies.read_pixels, []

    def counted(path: Path) -> Any:
        asked.append(path)
        return read(path)

    monkeypatch.setattr(dicom_copies, "read_pixels", counted)
    with pytest.raises(InputError, match="several slices at the same position"):
        read_ct(tmp_path)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"PixelData": bytes(160)}, "position: a/000.dcm and b/000.dcm at 100.0 mm"),
        ({"SliceThickness": 5}, r"thickness: [ab]/000.dcm is the odd one"),
        ({"RescaleIntercept": None}, r"rescaling to HU: [ab]/000.dcm is the odd one"),
        ({"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"]}, None),
    ],
    ids=["place", "thickness", "rescaling", "left out"],
)
def test_files_of_one_name_in_two_folders_are_told_apart(
    tmp_path: Path, fields: dict[str, Any], said: str | None
) -> None:
    """Another reconstruction with the series' UID: every disc numbers its files from 000 on."""
    series(tmp_path / "a", EVEN)
    save(one(0, EVEN[0], number=90, **fields), tmp_path / "b" / "000.dcm")
    if said is None:
        (note,) = read_ct(tmp_path).notes
        assert note == "b/000.dcm was left out: it is a localizer"
    else:
        with pytest.raises(InputError, match=said):
            read_ct(tmp_path)


def test_slices_of_one_uid_at_places_of_their_own_are_no_copies(tmp_path: Path) -> None:
    """Careless anonymisation gives all slices one UID, and air looks alike in many."""
    pixels = np.zeros((8, 10), "<u2").tobytes()
    series(tmp_path, EVEN, SOPInstanceUID=f"{ROOT}.9", PixelData=pixels)
    ct = read_ct(tmp_path)
    assert (ct.array.shape[0], ct.notes) == (12, ())


def test_copies_make_no_volume_of_two_slices(tmp_path: Path) -> None:
    shutil.copytree(series(tmp_path / "a", EVEN[:2]), tmp_path / "b")
    with pytest.raises(InputError, match="a CT series of 2 slices: not a volume"):
        read_ct(tmp_path)
    changed(tmp_path / "b", renamed)
    with pytest.raises(InputError, match=r"a CT series of 2 slices: not a volume \(2 files are"):
        read_ct(tmp_path)


def test_an_invented_frame_of_reference_of_each_slice_has_copies_as_well(tmp_path: Path) -> None:
    """A value for every slice tells nothing apart, though each of them stands there twice."""
    for n, z in enumerate(EVEN):
        save(one(n, z, FrameOfReferenceUID=f"{ROOT}.3.{n}"), tmp_path / "a" / f"{n}.dcm")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert read_ct(tmp_path).notes == ("12 files are copies of others and were left out",)


def test_a_series_without_copies_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise AssertionError("headers tell that there is no copy")

    monkeypatch.setattr(dicom_copies, "_is_copy", refuse)
    assert read_ct(series(tmp_path, EVEN)).notes == ()
