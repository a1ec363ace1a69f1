"""Headers that are wrong, contradict themselves or hide what the file is: one line, true cause."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from hideseekseg.errors import InputError
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.text_headers import UNSTATED
from hideseekseg.imaging.volume import from_sitk

LIBRARY = Path(__file__).parents[2] / "HideSeekSeg"
FIELDS = {"pixdim": (76, "8f"), "units": (123, "b"), "qform_code": (252, "h")}
FIELDS |= {"sform_code": (254, "h"), "quaternion": (256, "6f"), "sform": (280, "12f")}


def image(spacing: tuple[float, float, float] = (0.8, 0.9, 2.0)) -> sitk.Image:
    array = np.random.default_rng(3).integers(0, 3, (12, 14, 16)).astype(np.int16)
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(spacing)
    made.SetOrigin((-30.0, 12.0, 400.0))
    return made


def nifti(path: Path, **fields: Any) -> Path:
    sitk.WriteImage(image(), str(path))
    raw = bytearray(path.read_bytes())
    for name, numbers in fields.items():
        at, form = FIELDS[name]
        struct.pack_into("<" + form, raw, at, *np.ravel(numbers).tolist())
    path.write_bytes(raw)
    return path


def sform(move: tuple[float, float, float] = (0, 0, 0), scale: float = 1.0) -> npt.NDArray[Any]:
    """The matrix (3, 4) to RAS of ``image``, moved by LPS mm, its third axis scaled."""
    matrix = np.zeros((3, 4))
    matrix[:, :3] = np.diag([-0.8, -0.9, 2.0 * scale])
    matrix[:, 3] = np.array([30.0, -12.0, 400.0]) + np.array(move) * (-1, -1, 1)
    return matrix


def refusal(path: Path, read: Callable[[Path], object] = read_ct) -> str:
    with pytest.raises(InputError) as refused:
        read(path)
    text = str(refused.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < 400
    return text


@pytest.mark.parametrize("read", [read_ct, read_segmentation], ids=["ct", "segmentation"])
@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"qform_code": 1, "sform_code": 1, "sform": sform((0, 0, 32))}, "32 mm apart"),
        ({"qform_code": 1, "sform_code": 2, "sform": sform((3, 0, 0))}, "3 mm apart"),
        ({"qform_code": 1, "sform_code": 1, "quaternion": [1, 0, 0, 30, -12, 400]}, "mm apart"),
        ({"qform_code": 0, "sform_code": 1, "sform": sform(scale=1.25)}, "by pixdim"),
        ({"qform_code": 1, "sform_code": 1, "sform": sform(scale=0.5)}, "by pixdim"),
        ({"pixdim": [1, 0, 0.9, 2, 0, 0, 0, 0]}, "impossible voxel size"),
        ({"pixdim": [1, np.nan, 0.9, 2, 0, 0, 0, 0]}, "impossible voxel size"),
    ],
)
def test_statements_that_contradict_each_other_are_refused(
    tmp_path: Path, fields: dict[str, Any], cause: str, read: Callable[[Path], object]
) -> None:
    assert cause in refusal(nifti(tmp_path / "ct.nii", **fields), read)


@pytest.mark.parametrize(
    "fields",
    [
        {"qform_code": 1, "sform_code": 2, "sform": sform()},
        {"qform_code": 1, "sform_code": 1, "sform": sform((0.3, 0, 0.3))},
        {"qform_code": 0, "sform_code": 1, "sform": sform()},
        {"qform_code": 1, "sform_code": 0, "sform": sform((0, 0, 50))},
    ],
    ids=["equal", "within a millimetre", "sform alone", "qform alone"],
)
def test_statements_that_agree_are_read_as_stated(tmp_path: Path, fields: dict[str, Any]) -> None:
    ct = read_ct(nifti(tmp_path / "ct.nii", **fields))
    np.testing.assert_allclose(ct.grid.lps([0, 0, 0]), (-30, 12, 400), atol=0.5)
    np.testing.assert_allclose(ct.grid.spacing, (0.8, 0.9, 2.0), atol=1e-5)
    assert ct.notes == ()


def test_real_files_keep_their_place_in_every_axis_order(tmp_path: Path) -> None:
    """The quaternion is read as ITK writes it, for rotations and for mirrored axes."""
    for n, flips in enumerate([(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)]):
        made = image()
        turn = np.array([[0, 0.6, -0.8], [1, 0, 0], [0, -0.8, -0.6]]) * flips
        made.SetDirection(turn.ravel().tolist())
        path = tmp_path / f"{n}.nii.gz"
        sitk.WriteImage(made, str(path))
        np.testing.assert_allclose(
            read_ct(path).grid.ijk_to_lps, from_sitk(made).grid.ijk_to_lps, atol=1e-4
        )


@pytest.mark.parametrize(("code", "unit"), [(1, "metres"), (3, "micrometres")])
def test_a_wrong_unit_is_named(tmp_path: Path, code: int, unit: str) -> None:
    text = refusal(nifti(tmp_path / "ct.nii", units=code))
    assert unit in text and "voxels of" in text


def test_metres_that_are_metres_are_read(tmp_path: Path) -> None:
    path = nifti(
        tmp_path / "ct.nii",
        units=1,
        pixdim=[1, 0.0008, 0.0009, 0.002, 0, 0, 0, 0],
        quaternion=[0, 0, 1, 0.03, -0.012, 0.4],
        qform_code=1,
        sform_code=0,
    )
    np.testing.assert_allclose(read_ct(path).grid.spacing, (0.8, 0.9, 2.0), rtol=1e-4)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
@pytest.mark.parametrize(
    "spacing", [(800.0, 800.0, 1500.0), (8e-4, 8e-4, 1.5e-3), (0.8, 0.8, 40.0)]
)
def test_sizes_that_no_body_has(
    tmp_path: Path, suffix: str, spacing: tuple[float, float, float]
) -> None:
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(image(spacing), str(path))
    assert "voxels of" in refusal(path)


def nrrd(path: Path, fields: dict[str, str], data: bytes | None = None) -> Path:
    array = sitk.GetArrayFromImage(image())
    usual = {"type": "int16", "dimension": "3", "sizes": "16 14 12", "endian": "little"}
    usual |= {"encoding": "raw", "space": "left-posterior-superior"}
    usual |= {"space directions": "(0.8,0,0) (0,0.9,0) (0,0,2)", "space origin": "(-30,12,400)"}
    lines = [f"{k}: {v}" for k, v in {**usual, **fields}.items() if v]
    content = array.tobytes() if data is None else data
    path.write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode() + content)
    return path


NO_SPACE = {"space": "", "space directions": "", "space origin": ""}


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"space units": '"cm" "cm" "cm"'}, "sizes in cm"),
        ({"space units": '"m" "m" "m"'}, "sizes in m"),
        ({"space units": '"um" "um" "um"'}, "sizes in um"),
        ({"encoding": "bzip2"}, "bzip2"),
        ({"encoding": "zstd"}, "encoding"),
        ({"sizes": "16 14 -12"}, "impossible size"),
        ({"sizes": "16 14 9999"}, "truncated"),
        ({"sizes": "16 14"}, "sizes is 16 14"),
        ({"type": "block"}, "type"),
        ({"dimension": "99"}, "dimension"),
        ({"space directions": "(nan,0,0) (0,0.9,0) (0,0,2)"}, "impossible voxel size"),
        ({"space origin": "(1e300,0,0)"}, "impossible voxel size"),
        ({"data file": "/etc/hostname"}, "outside its own folder"),
        ({"data file": "../x.raw"}, "outside its own folder"),
        ({"data file": "C:\\x.raw"}, "outside its own folder"),
        ({"data file": "lost.raw"}, "data file is missing"),
        ({"x" * 5000: "1"}, "unknown header field"),
        ({"content": "x" * 5000}, "damaged header line"),
    ],
)
def test_nrrd_headers_are_checked_before_itk_sees_them(
    tmp_path: Path, fields: dict[str, str], cause: str
) -> None:
    (tmp_path.parent / "x.raw").write_bytes(b"\0" * 6000)
    assert cause in refusal(nrrd(tmp_path / "ct.nrrd", fields))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(b"\0" * 6000)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "data.raw").symlink_to(secret)
    path = nrrd(tmp_path / "inside" / "ct.nhdr", {"data file": "data.raw"}, b"")
    assert "outside its own folder" in refusal(path)


def test_units_of_millimetres_are_read(tmp_path: Path) -> None:
    ct = read_ct(nrrd(tmp_path / "ct.nrrd", {"space units": '"mm" "mm" "mm"'}))
    np.testing.assert_allclose(ct.grid.spacing, (0.8, 0.9, 2.0))
    assert ct.notes == ()


@pytest.mark.parametrize(
    ("key", "value", "cause"),
    [
        ("NDims", "-3", "NDims"),
        ("NDims", "100", "NDims"),
        ("DimSize", "16 14 0", "impossible size"),
        ("DimSize", "16 14 9999", "truncated"),
        ("ElementSpacing", "0.8 0.9 nan", "ElementSpacing"),
        ("ElementSpacing", "0.8 0.9 -2", "impossible voxel size"),
        ("TransformMatrix", "1 0 0 0 1 0 0 0 inf", "TransformMatrix"),
        ("ElementType", "MET_STRING", "type"),
        ("ElementNumberOfChannels", "100000000", "ElementNumberOfChannels"),
        ("ElementDataFile", "/etc/hostname", "outside its own folder"),
        ("ElementDataFile", "%s%s%n.raw", "ElementDataFile"),
    ],
)
def test_metaimage_headers_are_checked_before_itk_sees_them(
    tmp_path: Path, key: str, value: str, cause: str
) -> None:
    path = tmp_path / "ct.mha"
    sitk.WriteImage(image(), str(path))
    head, data = path.read_bytes().split(b"LOCAL\n", 1)
    fields = dict(line.split(" = ", 1) for line in (head + b"LOCAL").decode().split("\n"))
    fields = {**fields, "ElementNumberOfChannels": "1"} if key not in fields else fields
    fields[key] = value
    last = fields.pop("ElementDataFile")
    lines = [f"{k} = {v}" for k, v in fields.items()] + [f"ElementDataFile = {last}", ""]
    path.write_bytes("\n".join(lines).encode() + data)
    assert cause in refusal(path)


def without_orientation(path: Path) -> Path:
    if path.suffix == ".nii":
        return nifti(path, qform_code=0, sform_code=0)
    if path.suffix == ".nrrd":
        return nrrd(path, {**NO_SPACE, "spacings": "0.8 0.9 2"})
    sitk.WriteImage(image(), str(path))
    lines = path.read_bytes().split(b"\n")
    kept = [line for line in lines if not line.startswith((b"TransformMatrix", b"AnatomicalO"))]
    path.write_bytes(b"\n".join(kept))
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_an_orientation_that_is_not_stated_is_said(tmp_path: Path, suffix: str) -> None:
    path = without_orientation(tmp_path / f"ct{suffix}")
    assert read_ct(path).notes == (UNSTATED,)
    assert read_segmentation(path).layers[0].notes == (UNSTATED,)
    np.testing.assert_allclose(read_ct(path).grid.spacing, (0.8, 0.9, 2.0), rtol=1e-5)


def test_a_right_handed_frame_of_no_patient_is_said(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "ct.nrrd", {"space": "3D-right-handed"})
    assert read_ct(path).notes == (UNSTATED,)


def as_nifti(path: Path) -> bytes:
    sitk.WriteImage(image(), str(path.with_name("whole.nii")))
    return path.with_name("whole.nii").read_bytes()


def zipped(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ct.nii", as_nifti(path))
    return path.read_bytes()


HIDDEN: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "packed, named nii": ("ct.nii", lambda p: gzip.compress(as_nifti(p)), "name it ct.nii.gz"),
    "packed, no suffix": ("ct", lambda p: gzip.compress(as_nifti(p)), "gzip-compressed"),
    "NIfTI without suffix": ("ct", as_nifti, "a NIfTI file, which its name hides"),
    "NIfTI named nrrd": ("ct.nrrd", as_nifti, "a NIfTI file, which its name hides"),
    "NRRD named nii": ("ct.nii", lambda p: b"NRRD0004\ntype: short\n", "a NRRD file"),
    "MetaImage named nii.gz": ("ct.nii.gz", lambda p: b"ObjectType = Image\n", "a MetaImage file"),
    "ZIP": ("ct.nii.gz", zipped, "a ZIP archive: unpack it first"),
    "bzip2": ("ct.nii", lambda p: bz2.compress(as_nifti(p)), "compressed by bzip2"),
    "PDF": ("ct.nii.gz", lambda p: b"%PDF-1.7 report", "a PDF document"),
    "NumPy": ("ct.npy", lambda p: b"\x93NUMPY\x01\0", "a NumPy array"),
    "JSON": ("labels.nii", lambda p: b'{"20": "L1"}', "a text file"),
}


@pytest.mark.parametrize("read", [read_ct, read_segmentation], ids=["ct", "segmentation"])
@pytest.mark.parametrize("case", HIDDEN)
def test_what_a_name_hides_is_named(
    tmp_path: Path, case: str, read: Callable[[Path], object]
) -> None:
    name, content, cause = HIDDEN[case]
    path = tmp_path / name
    path.write_bytes(content(path))
    assert cause in refusal(path, read)


@pytest.mark.parametrize("name", ["n" * 300 + ".nii.gz", "a\0b.nii"])
def test_names_that_no_system_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as refused:
        read_ct(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("off", [0.0001, -0.0001, 0.005])
def test_labels_that_arithmetic_left_inexact_are_rounded(tmp_path: Path, off: float) -> None:
    labels = np.zeros((6, 7, 8), np.float32)
    labels[1, 2:4, 3:5], labels[3] = 29, 30
    path = tmp_path / "seg.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.where(labels > 0, labels + off, 0)), str(path))
    found = read_segmentation(path)
    assert [segment.value for segment in found.segments] == [29, 30]
    np.testing.assert_array_equal(found.layers[0].array, labels)


def test_interpolated_labels_are_refused_with_the_value_that_tells(tmp_path: Path) -> None:
    labels = np.full((6, 7, 8), 29.87, np.float32)
    path = tmp_path / "seg.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(path))
    text = refusal(path, read_segmentation)
    assert "29.87" in text and "nearest-neighbour" in text


CHILD = """
import sys
from hideseekseg.errors import InputError
from hideseekseg.imaging.reading import read_ct, read_segmentation
for path in sys.argv[1:]:
    for read in (read_ct, read_segmentation):
        try:
            read(path)
        except InputError as error:
            assert chr(10) not in str(error), error
print("alive")
"""
WORDS = [
    "-1",
    "0",
    "nan",
    "1e308",
    "4294967296",
    "",
    "%d",
    "none",
    "(1,0",
    "hex",
    "ascii",
    "x" * 999,
]


@settings(max_examples=2, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([".nrrd", ".mha"]))
def test_no_damaged_text_header_ends_the_process(
    tmp_path_factory: pytest.TempPathFactory, chance: Any, suffix: str
) -> None:
    """Forty damaged headers in a child: before the check one in two thousand killed it."""
    folder = tmp_path_factory.mktemp("damaged")
    seed = folder / f"seed{suffix}"
    sitk.WriteImage(image(), str(seed))
    paths = []
    for n in range(40):
        lines = seed.read_bytes().split(b"\n", 12)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(lines) - 1)
            words = lines[at].split(b" ")
            words[chance.randrange(len(words))] = chance.choice(WORDS).encode()
            lines[at] = b" ".join(words)
        paths.append(folder / f"{n}{suffix}")
        paths[-1].write_bytes(b"\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert child.stdout.strip() == "alive", child.stderr[-500:]
