"""Scans and positions that cannot be right, as the user of the command line is told of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from hideseekseg.cli.main import main

Array = np.ndarray
T11, T12, L1 = 33, 32, 31
LEVELS = {"T11", "T12", "L1"}


@pytest.fixture
def run(calm_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``hideseekseg segment``; return its exit status, what it printed, and candidates.json."""

    outs = (tmp_path / f"out{n}" for n in count())

    def segment(ct: Path, segmentation: Path, *more: str) -> tuple[int, str, dict[str, Any]]:
        out = next(outs)
        files = (str(ct), str(segmentation), "--out", str(out), "--no-picture")
        labels = () if "--labels" in more else ("--labels", "totalsegmentator")
        status = main(["segment", *files, "--weights", str(calm_weights), *labels, *more])
        printed = capsys.readouterr()
        result = out / "candidates.json"
        text = printed.err + printed.out
        return status, text, json.loads(result.read_text("utf-8")) if result.exists() else {}

    return segment


@pytest.fixture
def finding(tiny_weights: Path) -> tuple[str, str]:
    """Words for ``run`` with which it finds lesions; without them it never does."""
    return "--weights", str(tiny_weights)


@pytest.fixture
def write(box_files: tuple[Path, Path], tmp_path: Path) -> Any:
    """Write the CT of the drawn spine with other values; labels are given to the change."""
    images = [sitk.ReadImage(str(path)) for path in box_files]
    hu, labels = (sitk.GetArrayFromImage(image) for image in images)

    def change(make: Callable[[Array, Array], Array]) -> Path:
        made = sitk.GetImageFromArray(make(hu.astype(np.float32), labels))
        made.CopyInformation(images[0])
        sitk.WriteImage(made, str(tmp_path / "changed.nii.gz"))
        return tmp_path / "changed.nii.gz"

    return change


def screws(*values: int, hu: float = 9000.0) -> Callable[[Array, Array], Array]:
    def make(array: Array, labels: Array) -> Array:
        array = array.copy()
        for value in values:
            k, j, i = (int(n.mean()) for n in np.nonzero(labels == value))
            for side in (-5, 4):
                array[k - 1 : k + 2, j - 6 :, i + side : i + side + 2] = hu
        return array

    return make


def cement(*values: int, hu: float = 1800.0) -> Callable[[Array, Array], Array]:
    def make(array: Array, labels: Array) -> Array:
        array = array.copy()
        for value in values:
            k, j, i = (int(n.mean()) for n in np.nonzero(labels == value))
            lump = array[k - 2 : k + 3, j - 4 : j + 5, i - 4 : i + 5]
            lump[:] = np.random.default_rng(value).normal(hu, 60, lump.shape)
        return array

    return make


SCALES: dict[str, tuple[float, float]] = {
    "HU": (1.0, 0.0),
    "stored values": (1.0, 1024.0),
    "0 to 1": (1 / 12000, 0.1),
    "small": (0.01, 7.0),
}


@pytest.mark.parametrize(
    ("values", "scale"),
    [((L1,), "HU"), ((L1,), "small"), *(((T11, T12, L1), scale) for scale in SCALES)],
)
@pytest.mark.parametrize("metal", [screws, cement])
def test_metal_and_cement_are_told_in_their_vertebrae_alone(
    box_files: tuple[Path, Path], write: Any, run: Any, metal: Any, values: Any, scale: str
) -> None:
    slope, offset = SCALES[scale]
    ct = write(lambda hu, labels: metal(*values)(hu, labels) * slope + offset)
    status, printed, result = run(ct, box_files[1])
    words = {
        v["level"]: [w for w in (v["reason"], *v["flags"]) if "metal" in w]
        for v in result["vertebrae"]
    }
    told = {level: said for level, said in words.items() if said}
    assert status == 0
    assert set(told) == ({"L1"} if len(values) == 1 else LEVELS)
    assert all(word in printed for said in told.values() for word in said)
    assert result["run"]["hounsfield"] == (scale == "HU"), "metal does not switch HU off"
    assert "cut off" not in printed


def clipped(low: float, high: float) -> Callable[[Array, Array], Array]:
    return lambda hu, labels: np.clip(hu, low, high)


@pytest.mark.parametrize(
    ("high", "scale"), [(240, "HU"), (300, "bytes"), (420, "bytes"), (440, "HU")]
)
def test_a_window_is_refused_or_flagged_everywhere(
    box_files: tuple[Path, Path], write: Any, run: Any, high: float, scale: str
) -> None:
    """Up to 450, all the bone there is in the rim of the drawn bodies."""

    def make(hu: Array, labels: Array) -> Array:
        cut = np.clip(hu, -160, high)
        return cut if scale == "HU" else np.rint((cut + 160) / (high + 160) * 255)

    status, printed, result = run(write(make), box_files[1])
    if status == 2:
        assert "saved through a window" in printed.splitlines()[-1]
        return
    assert all("cut off" in " ".join(v["flags"]) for v in result["vertebrae"])


def mr(marrow: float, cortex: float, fluid: float) -> Callable[[Array, Array], Array]:
    def make(hu: Array, labels: Array) -> Array:
        chance = np.random.default_rng(1)
        signal = np.where(hu < -300, 5.0, fluid)
        signal[labels > 0] = cortex
        signal[(labels > 0) & (hu < 330)] = marrow
        return signal + chance.normal(0, 10, hu.shape)

    return make


NO_CT: dict[str, tuple[Callable[[Array, Array], Array], str]] = {
    "inverted": (lambda hu, labels: -hu, "is this a CT"),
    "inverted, 0 to 1": (lambda hu, labels: 1 - (hu + 1000) / 2500, "is this a CT"),
    "inverted, stored": (lambda hu, labels: 3000 - hu, "is this a CT"),
    "MR, bright marrow": (mr(400, 60, 200), "CT"),
    "MR, dark cortex": (mr(250, 20, 240), "CT"),
    "MR, bright fluid": (mr(150, 30, 500), "CT"),
    "labels": (lambda hu, labels: labels.astype(np.float32), "a label map or a mask"),
    "labels times 100": (lambda hu, labels: 100.0 * labels, "a label map or a mask"),
    "a mask": (lambda hu, labels: (hu > 200) * 1.0, "a label map or a mask"),
    "twenty values": (lambda hu, labels: np.round(np.clip(hu, -100, 900) / 50), "label map"),
    "one value": (lambda hu, labels: np.full(hu.shape, 40.0), "label map"),
    "no bone": (lambda hu, labels: np.where(labels > 0, -20 + hu / 90, hu), "CT"),
}


@pytest.mark.parametrize("kind", NO_CT)
def test_what_is_no_ct_is_refused_in_one_line(
    box_files: tuple[Path, Path], write: Any, run: Any, kind: str
) -> None:
    make, words = NO_CT[kind]
    ct = write(make)
    status, printed, result = run(ct, box_files[1], "--quiet")
    assert (status, result) == (2, {})
    assert printed.count("\n") == 1 and str(ct) in printed and words in printed


def padded(value: float) -> Callable[[Array, Array], Array]:
    def make(hu: Array, labels: Array) -> Array:
        hu = hu.copy()
        hu[:, :, :3] = hu[:, :, -3:] = value
        return hu

    return make


@pytest.mark.parametrize(
    "make",
    [
        lambda hu, labels: hu,
        padded(-1024),
        padded(-2000),
        padded(-3024),
        padded(float("nan")),
        lambda hu, labels: np.where(hu < -300, -1000, hu),
        lambda hu, labels: np.maximum(hu, -120),
    ],
    ids=["as it is", "-1024", "-2000", "-3024", "NaN", "air", "fat alone"],
)
def test_hu_with_air_fat_or_padding_stay_hu_without_a_word(
    box_files: tuple[Path, Path], write: Any, run: Any, make: Any
) -> None:
    status, _, result = run(write(make), box_files[1])
    assert status == 0 and result["run"]["hounsfield"] is True
    assert result["run"]["notes"] == []
    for vertebra in result["vertebrae"]:
        assert not any("cut off" in f or "metal" in f or "HU" in f for f in vertebra["flags"])


@pytest.fixture
def shift(box_files: tuple[Path, Path], tmp_path: Path) -> Any:
    """Write the labels of the drawn spine at another place (LPS mm)."""

    def write(mm: tuple[float, float, float]) -> Path:
        image = sitk.ReadImage(str(box_files[1]))
        image.SetOrigin([a + b for a, b in zip(image.GetOrigin(), mm)])
        sitk.WriteImage(image, str(tmp_path / "shifted.nii.gz"))
        return tmp_path / "shifted.nii.gz"

    return write


@pytest.mark.parametrize(
    ("mm", "words"),
    [
        ((0, 0, 8), "8 mm above the bone"),
        ((0, 0, -8), "8 mm below the bone"),
        ((0, -8, 0), "8 mm in front of the bone"),
        ((-10, 0, 0), "10 mm to the patient's right of the bone"),
    ],
)
def test_shifted_outlines_are_refused_and_accepted_with_a_flag_on_all(
    box_files: tuple[Path, Path], shift: Any, run: Any, mm: Any, words: str
) -> None:
    labels = shift(mm)
    status, printed, result = run(box_files[0], labels)
    assert (status, result) == (2, {})
    last = printed.splitlines()[-1]
    assert str(labels) in last and words in last and "--accept-orientation" in last
    status, printed, result = run(box_files[0], labels, "--accept-orientation")
    assert status == 0
    assert {v["level"] for v in result["vertebrae"]} == LEVELS
    assert all(any(words in flag for flag in v["flags"]) for v in result["vertebrae"])
    assert any(words in note for note in result["run"]["notes"])
    assert words in printed.splitlines()[-1], "the last thing that is read"


def test_one_vertebra_beside_its_bone_is_flagged_and_not_refused(
    box_files: tuple[Path, Path], shift: Any, run: Any, tmp_path: Path
) -> None:
    """It may be destroyed; that all of a spine are destroyed alike is not believed."""
    labels = shift((0, 0, 8))
    image = sitk.ReadImage(str(labels))
    sitk.WriteImage(image * sitk.Cast(image == T12, image.GetPixelID()), str(labels))
    status, _, result = run(box_files[0], labels)
    assert status == 0
    assert any("8 mm above the bone" in flag for flag in result["vertebrae"][0]["flags"])


def test_levels_from_foot_to_head_are_accepted_with_a_flag_on_all(
    box_files: tuple[Path, Path], run: Any, tmp_path: Path
) -> None:
    image = sitk.ReadImage(str(box_files[1]))
    array = sitk.GetArrayFromImage(image)
    turned = np.where(np.isin(array, (T11, L1)), T11 + L1 - array, array).astype(np.uint8)
    made = sitk.GetImageFromArray(turned)
    made.CopyInformation(image)
    sitk.WriteImage(made, str(tmp_path / "turned.nii.gz"))
    status, printed, _ = run(box_files[0], tmp_path / "turned.nii.gz")
    assert status == 2 and "from foot to head" in printed and "--accept-orientation" in printed
    status, printed, result = run(box_files[0], tmp_path / "turned.nii.gz", "--accept-orientation")
    assert status == 0
    for vertebra in result["vertebrae"]:
        assert any("from foot to head" in flag for flag in vertebra["flags"])
    assert {v["level"] for v in result["vertebrae"] if v["status"] != "not analysed"} == LEVELS


def with_two_places(
    source: Path,
    path: Path,
    sform_mm: tuple[float, float, float],
    turn: tuple[int, ...] = (1, 1, 1),
) -> Path:
    """Copy an image as NIfTI; its qform stays, its sform moves by LPS mm and is turned."""
    image = sitk.ReadImage(str(source))
    sitk.WriteImage(image, str(path))
    raw = bytearray(path.read_bytes())
    direction = np.diag(turn) @ np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix = np.column_stack([direction, np.diag(turn) @ image.GetOrigin() + sform_mm])
    matrix[:2] *= -1
    struct.pack_into("<2h", raw, 252, 1, 2)
    struct.pack_into("<12f", raw, 280, *matrix.ravel())
    path.write_bytes(raw)
    return path


Files = dict[str, Path]


@pytest.fixture
def files(box_files: tuple[Path, Path]) -> Files:
    return dict(zip(("ct", "segmentation"), box_files))


@pytest.mark.parametrize(
    ("doubtful", "mm"),
    [("ct", (0.0, 0.0, 32.0)), ("ct", (9.0, 0.0, 0.0)), ("segmentation", (0.0, -60.0, 0.0))],
)
def test_of_two_places_the_one_that_fits_is_taken_and_said(
    files: Files,
    run: Any,
    finding: tuple[str, str],
    tmp_path: Path,
    doubtful: str,
    mm: tuple[float, float, float],
) -> None:
    """The drawn spine's own position is the qform's."""
    right = run(*files.values(), *finding)[2]
    assert all(vertebra["candidates"] for vertebra in right["vertebrae"])
    path = with_two_places(files[doubtful], tmp_path / "two.nii", mm)
    status, printed, result = run(*{**files, doubtful: path}.values(), *finding)
    assert status == 0
    apart = f"{np.linalg.norm(mm):.0f} mm from its sform"
    assert "warning: two.nii is placed by its qform" in printed and apart in printed
    assert any(apart in note for note in result["run"]["notes"])
    for one, other in zip(result["vertebrae"], right["vertebrae"]):
        assert one["candidates"] == other["candidates"]
        assert any(apart in flag for flag in one["flags"]) == (doubtful == "ct")


def test_the_sform_is_taken_where_that_one_fits(
    files: Files, run: Any, finding: tuple[str, str], tmp_path: Path
) -> None:
    """As a segmenter writes that kept the CT's sform alone."""
    ct = with_two_places(files["ct"], tmp_path / "two.nii", (0.0, 0.0, 32.0))
    image = sitk.ReadImage(str(files["segmentation"]))
    image.SetOrigin([0.0, 0.0, 32.0])
    sitk.WriteImage(image, str(tmp_path / "moved.nii"))
    status, _, result = run(ct, tmp_path / "moved.nii", *finding)
    assert status == 0
    assert all(
        "placed by its sform, 32 mm from its qform" in v["flags"][0] for v in result["vertebrae"]
    )
    right = run(*files.values(), *finding)[2]
    assert all(vertebra["candidates"] for vertebra in right["vertebrae"])
    for one, other in zip(result["vertebrae"], right["vertebrae"]):
        for a, b in zip(one["candidates"], other["candidates"]):
            np.testing.assert_allclose(
                np.subtract(a["centroid_lps"], b["centroid_lps"]), (0, 0, 32)
            )


def test_where_both_fit_or_neither_the_file_and_both_statements_are_named(
    files: Files, run: Any, tmp_path: Path
) -> None:
    both = [with_two_places(p, tmp_path / f"{k}2.nii", (0.0, 0.0, 32.0)) for k, p in files.items()]
    status, printed, result = run(*both)
    assert (status, result) == (2, {}) and printed.count("\n") == 1
    for word in (str(both[0]), "sform", "qform", "32 mm apart", "both fit", both[1].name):
        assert word in printed
    far = with_two_places(files["ct"], tmp_path / "far.nii", (0.0, 0.0, 500.0))
    image = sitk.ReadImage(str(files["segmentation"]))
    image.SetOrigin([-500.0, 0.0, 0.0])
    sitk.WriteImage(image, str(tmp_path / "elsewhere.nii"))
    status, printed, _ = run(far, tmp_path / "elsewhere.nii")
    assert status == 2 and printed.count("\n") == 1
    assert "sform" in printed and "qform" in printed and "neither fits elsewhere.nii" in printed


def test_where_both_files_were_turned_the_anatomy_decides(
    files: Files, run: Any, tmp_path: Path
) -> None:
    """Both files of one program: by their sforms the patient hangs head down."""
    both = [
        with_two_places(p, tmp_path / f"{k}2.nii", (0.0, 0.0, 0.0), (1, -1, -1))
        for k, p in files.items()
    ]
    status, printed, result = run(*both)
    assert status == 0
    assert "is placed by its qform" in printed and "the patient lies as anatomy has it" in printed
    assert {v["level"] for v in result["vertebrae"]} == LEVELS


def test_bodies_at_two_places_are_taken_where_they_lie_in_vertebrae(
    files: Files, run: Any, tmp_path: Path
) -> None:
    bodies = with_two_places(files["segmentation"], tmp_path / "two.nii", (0.0, 70.0, 0.0))
    status, printed, _ = run(*files.values(), "--bodies", str(bodies))
    assert status == 0 and "two.nii is placed by its qform" in printed
    near = with_two_places(files["segmentation"], tmp_path / "near.nii", (2.0, 0.0, 0.0))
    status, printed, _ = run(*files.values(), "--bodies", str(near))
    assert status == 2 and str(near) in printed and "both fit" in printed


def test_a_name_of_300_letters_for_the_results_is_refused_in_one_line(
    files: Files, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (tmp_path / ("n" * 300), tmp_path / ("m" * 300) / "below"):
        words = [*map(str, files.values()), "--out", str(out), "--weights", str(tiny_weights)]
        assert main(["segment", *words, "--labels", "totalsegmentator"]) == 2
        assert (
            capsys.readouterr().err
            == f"hideseekseg: {out}: cannot be written: File name too long\n"
        )


@pytest.fixture
def all_bodies(box_files: tuple[Path, Path], tmp_path: Path) -> Path:
    """All bodies in one label, as TotalSegmentator's vertebrae_body has them."""
    image = sitk.ReadImage(str(box_files[1])) > 0
    sitk.WriteImage(image, str(tmp_path / "all.nii.gz"))
    return tmp_path / "all.nii.gz"


@pytest.mark.parametrize("labels", ["totalsegmentator-body", "totalsegmentator", "verse"])
def test_all_bodies_in_one_label_alone_are_refused_and_said_how_to_be_used(
    files: Files, all_bodies: Path, run: Any, labels: str
) -> None:
    status, printed, result = run(files["ct"], all_bodies, "--labels", labels)
    assert (status, result) == (2, {}) and printed.count("\n") == 1
    assert str(all_bodies) in printed
    if labels == "totalsegmentator-body":
        assert "all vertebrae in one label" in printed and "--bodies" in printed


def test_all_bodies_in_one_label_are_intersected_with_the_vertebrae(
    files: Files, all_bodies: Path, run: Any, tmp_path: Path
) -> None:
    """Whole vertebrae, of which the marks hold the front."""
    image = sitk.ReadImage(str(files["segmentation"]))
    bodies = sitk.GetArrayFromImage(image)
    whole = bodies.copy()
    for value in (T11, T12, L1):
        k, j, i = (slice(n.min(), n.max() + 1) for n in np.nonzero(bodies == value))
        whole[k.start + 2 : k.stop - 2, j.stop : j.stop + 6, i] = value
    made = sitk.GetImageFromArray(whole)
    made.CopyInformation(image)
    sitk.WriteImage(made, str(tmp_path / "whole.nii.gz"))
    status, _, result = run(files["ct"], tmp_path / "whole.nii.gz", "--bodies", str(all_bodies))
    assert status == 0
    voxel = float(np.prod(image.GetSpacing()))
    for vertebra, value in zip(result["vertebrae"], (T11, T12, L1)):
        assert vertebra["body_source"] == "intersected"
        assert vertebra["body_mm3"] == pytest.approx((bodies == value).sum() * voxel)
