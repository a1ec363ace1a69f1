"""Reading CT and segmentations from real files, and writing without leaving half of one."""

from __future__ import annotations

import gzip
import itertools
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.permissions import as_another_user, posix
from hideseekseg.errors import InputError
from hideseekseg.files import atomic
from hideseekseg.imaging.image_file import Printed, captured
from hideseekseg.imaging.reading import check_ct, read_ct, read_segmentation
from hideseekseg.imaging.volume import Grid, Volume, to_sitk
from hideseekseg.simulation.example import write_example

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LIBRARY = Path(__file__).parents[2] / "HideSeekSeg"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not here")

SHAPE = (4, 5, 6)
SPACING = (0.8, 0.675, 2.5)
TURNS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def base(angles: tuple[float, float, float] = (0, 0, 0)) -> Volume:
    """Every voxel has a value of its own, so that values tell where voxels have gone."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * SPACING
    matrix[:3, 3] = (-31.5, 12.25, 480.0)
    array = np.arange(1, 1 + np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return Volume(array, Grid(SHAPE, matrix))


def turned(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same content stored with its axes (i, j, k) in another order and direction."""
    matrix = volume.grid.ijk_to_lps[:, [*order, 3]].copy()
    array = volume.array.transpose(*[2 - order[2 - axis] for axis in range(3)])
    for axis, flip in enumerate(flips):
        if flip < 0:
            count = array.shape[2 - axis]
            matrix[:3, 3] += matrix[:3, axis] * (count - 1)
            matrix[:3, axis] *= -1
            array = np.flip(array, 2 - axis)
    return Volume(np.ascontiguousarray(array), Grid(array.shape, matrix))


def world(volume: Volume) -> npt.NDArray[np.float64]:
    """Rows of (value, x, y, z), sorted by value: what stands where in the patient."""
    k, j, i = np.indices(volume.array.shape)
    lps = volume.grid.lps(np.stack([i, j, k], axis=-1))
    rows = np.concatenate([volume.array[..., None].astype(float), lps], axis=-1).reshape(-1, 4)
    return rows[np.argsort(rows[:, 0])]


def save(volume: Volume, path: Path) -> Path:
    sitk.WriteImage(to_sitk(volume), str(path))
    return path


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """The line a user gets, which names the file and stands alone."""
    with pytest.raises(InputError) as refused:
        read(path)
    text = str(refused.value)
    assert text.startswith(str(path))
    assert "\n" not in text and "ITK" not in text and "Exception" not in text
    return text


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mhd", ".nii"])
@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -35, 50)], ids=["straight", "oblique"])
def test_every_axis_order_and_flip_has_the_same_content(
    tmp_path: Path, suffix: str, angles: tuple[float, float, float]
) -> None:
    expected = world(base(angles))
    for n, (order, flips) in enumerate(TURNS):
        path = save(turned(base(angles), order, flips), tmp_path / f"{n}{suffix}")
        np.testing.assert_allclose(world(read_ct(path)), expected, atol=2e-4)
        np.testing.assert_allclose(world(read_segmentation(path).layers[0]), expected, atol=2e-4)
    assert n == 47


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.sampled_from(TURNS))
def test_any_obliquity(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    turn: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    path = tmp_path_factory.getbasetemp() / "oblique.nii.gz"
    save(turned(base(angles), *turn), path)
    np.testing.assert_allclose(world(read_ct(path)), world(base(angles)), atol=1e-3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_intensities_are_kept_as_stored(tmp_path: Path, suffix: str, dtype: npt.DTypeLike) -> None:
    """NaN and infinity included, which ITK's NIfTI reader turns to 0."""
    array = np.random.default_rng(2).normal(0, 500, (60, 80, 90)).astype(dtype)
    array[3, 4, 5], array[59, 79, 89], array[40, 2, 1], array[0, 0, 0] = (
        np.nan,
        np.nan,
        np.inf,
        -np.inf,
    )
    ct = read_ct(write_array(tmp_path / f"ct{suffix}", array))
    np.testing.assert_array_equal(ct.array, array)
    assert ct.array.dtype == dtype and ct.name == f"ct{suffix}"


def test_stored_integers_are_scaled_as_the_header_says(tmp_path: Path) -> None:
    path = write_array(tmp_path / "ct.nii", noise())
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, 1.0, -1024.0)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_ct(path).array, noise() - 1024.0)


def cut(path: Path, keep: int) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


def write_array(path: Path, array: npt.NDArray[np.generic], is_vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(path))
    return path


def noise() -> npt.NDArray[np.int16]:
    return np.random.default_rng(1).integers(0, 3000, (20, 30, 40)).astype(np.int16)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("lost", [1, 10, 15_000])
def test_a_truncated_file_is_found_out(
    tmp_path: Path, suffix: str, lost: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_array(tmp_path / f"ct{suffix}", noise())
    assert read_ct(path).array.shape == (20, 30, 40)
    cut(path, path.stat().st_size - lost)
    assert "truncated" in refusal(read_ct, path)
    assert "truncated" in refusal(read_segmentation, path)
    assert capfd.readouterr() == ("", "")


UNCHECKED = ("ct.hdr", "ct.img", "ct.img.gz", "ct.gipl", "ct.vtk", "ct.tif", "ct.mrc", "ct.nia")


@pytest.mark.parametrize("name", UNCHECKED)
@pytest.mark.parametrize("read", [read_ct, read_segmentation], ids=["ct", "segmentation"])
def test_a_format_that_is_not_checked_for_damage_is_not_read(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    """ITK reads these where they are cut short, too, and invents what is missing."""
    path = write_array(tmp_path / name, noise())
    assert "(NIfTI, NRRD, MHA or DICOM)" in refusal(read, path)
    assert "(NIfTI, NRRD, MHA or DICOM)" in refusal(check_ct, path)


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 or UTF-16 elsewhere")
@pytest.mark.parametrize("where", ["file", "folder", "results"])
def test_a_name_that_is_no_utf8_is_refused_in_one_line(tmp_path: Path, where: str) -> None:
    """In a process of its own: ITK ended it."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    plain, moved = write_example(tmp_path), odd
    if where == "file":
        moved = odd.with_name(odd.name + ".nii.gz")
        plain[0].rename(moved)
    elif where == "folder":
        odd.mkdir()
        moved = odd / plain[0].name
        plain[0].rename(moved)
    ct, out = (plain[0], odd) if where == "results" else (moved, tmp_path / "out")
    words = [str(ct), str(plain[1]), "--labels", "totalsegmentator", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "hideseekseg", "segment", *words],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert "M\\xfcller" in lines[0].replace("\\udcfc", "\\xfc") and "not UTF-8" in lines[0]


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 or UTF-16 elsewhere")
def test_a_stray_file_whose_name_is_no_utf8_does_not_hide_a_series(tmp_path: Path) -> None:
    paths = write_slices(tmp_path, heights(8))
    odd = os.fsencode(tmp_path) + b"/M\xfcller"
    Path(os.fsdecode(odd + b".txt")).write_text("not an image")
    assert read_ct(tmp_path).array.shape == (8, 8, 10)
    paths[3].rename(os.fsdecode(odd + b".dcm"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_ct(tmp_path)


def test_a_flipped_byte_in_a_packed_nifti_is_found_out(tmp_path: Path) -> None:
    path = write_array(tmp_path / "ct.nii.gz", noise())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    assert "damaged" in refusal(read_ct, path) or "truncated" in refusal(read_ct, path)


def test_an_unpacked_nifti_named_gz_is_read(tmp_path: Path) -> None:
    path = write_array(tmp_path / "ct.nii", noise()).rename(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(read_ct(path).array, noise())


SFORM, SFORM_CODE, QFORM_CODE = 280, 254, 252


def sheared_nifti(path: Path, qform_code: int, shear: float = 0.3) -> Path:
    """With a qform ITK would silently use that instead, and put the voxels elsewhere."""
    write_array(path, noise())
    content = bytearray(path.read_bytes())
    struct.pack_into("<12f", content, SFORM, -1, shear, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)
    struct.pack_into("<h", content, QFORM_CODE, qform_code)
    path.write_bytes(content)
    return path


def sheared_nrrd(path: Path) -> Path:
    write_array(path, noise())
    head, body = path.read_bytes().split(b"\n\n", 1)
    head = head.replace(b"(0,1,0)", b"(0.3,1,0)")
    path.write_bytes(head + b"\n\n" + body)
    return path


def text_file(path: Path) -> Path:
    path.write_text("hello\n" * 300)
    return path


def headless(path: Path) -> Path:
    write_array(path, noise())
    path.with_suffix(".raw").unlink()
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD_IMAGES: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "missing": ("ct.nii.gz", lambda p: p, "does not exist"),
    "missing folder": ("no/ct.nii.gz", lambda p: p, "does not exist"),
    "empty": ("ct.nii.gz", lambda p: cut(write_array(p, noise()), 0), "empty"),
    "empty nrrd": ("ct.nrrd", lambda p: cut(write_array(p, noise()), 0), "empty"),
    "header only": ("ct.nii.gz", lambda p: cut(write_array(p, noise()), 60), "truncated"),
    "header cut": ("ct.nrrd", lambda p: cut(write_array(p, noise()), 90), "truncated"),
    "text named nii": ("ct.nii.gz", text_file, "not an image"),
    "text": ("ct.txt", text_file, "not an image"),
    "data file lost": ("ct.mhd", headless, "data file is missing"),
    "2D": ("ct.nii.gz", lambda p: write_array(p, noise()[0]), "2D image (40 x 30)"),
    "photo": (
        "ct.png",
        lambda p: write_array(p, noise()[0].astype(np.uint8)),
        "is not an image that can be read (NIfTI, NRRD, MHA or DICOM)",
    ),
    "4D": ("ct.nii.gz", lambda p: write_array(p, np.stack([noise()] * 2)), "4D image"),
    "complex": ("ct.nii", lambda p: write_array(p, noise().astype(complex)), "complex"),
    "colour": (
        "ct.nrrd",
        lambda p: write_array(p, np.stack([noise()] * 3, axis=-1), is_vector=True),
        "3 values per voxel",
    ),
    "sheared sform": ("ct.nii", lambda p: sheared_nifti(p, 0), "sheared"),
    "sheared sform with qform": ("ct.nii", lambda p: sheared_nifti(p, 1), "sheared"),
    "slightly sheared": ("ct.nii", lambda p: sheared_nifti(p, 1, 0.01), "sheared"),
    "sheared nrrd": ("ct.nrrd", sheared_nrrd, "right angles"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
@pytest.mark.parametrize("read", [read_ct, read_segmentation], ids=["ct", "segmentation"])
def test_bad_images_are_refused_in_one_line(
    tmp_path: Path, case: str, read: Callable[[Path], object], capfd: pytest.CaptureFixture[str]
) -> None:
    name, make, cause = BAD_IMAGES[case]
    assert cause in refusal(read, make(tmp_path / name))
    assert capfd.readouterr() == ("", "")


def test_a_single_slice_is_no_ct(tmp_path: Path) -> None:
    path = write_array(tmp_path / "ct.nii.gz", noise()[:1])
    assert "single slice (40 x 30 x 1)" in refusal(read_ct, path)


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    path = write_array(tmp_path / "ct.nrrd", noise()[None])
    np.testing.assert_array_equal(read_ct(path).array, noise())


@posix
def test_a_folder_of_masks_with_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    """A vertebra would be missing without a word; other links are nobody's business."""
    for level in ("L1", "L2"):
        write_array(tmp_path / f"vertebrae_{level}.nii.gz", (labels() > 0).astype(np.uint8))
    (tmp_path / "more").symlink_to(tmp_path)
    assert len(read_segmentation(tmp_path).segments) == 2
    (tmp_path / "vertebrae_L3.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(InputError, match=r"L3\.nii\.gz: is a link to what is not there"):
        read_segmentation(tmp_path)


@posix
@pytest.mark.parametrize("read", [read_ct, read_segmentation], ids=["ct", "segmentation"])
def test_a_file_without_permission(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = write_array(tmp_path / "ct.nii", noise())
    path.chmod(0)
    closed = write_array(folder(tmp_path / "closed") / "ct.nii", noise())
    closed.parent.chmod(0)
    with as_another_user(tmp_path):
        assert "cannot be opened: Permission denied" in refusal(read, path)
        assert "cannot be opened: Permission denied" in refusal(read, closed)
    closed.parent.chmod(0o700)


# Segmentations


def labels() -> npt.NDArray[np.uint8]:
    array = np.zeros((6, 7, 8), np.uint8)
    array[1, 2:4, 3:5], array[3, 2:4, 3:5], array[5, 2:4, 3:5] = 20, 21, 200
    return array


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_plain_label_map_has_a_segment_per_value(
    tmp_path: Path, dtype: npt.DTypeLike, suffix: str
) -> None:
    found = read_segmentation(write_array(tmp_path / f"seg{suffix}", labels().astype(dtype)))
    assert [(s.value, s.name, s.id, s.layer) for s in found.segments] == [
        (20, "", "", 0),
        (21, "", "", 0),
        (200, "", "", 0),
    ]
    for segment in found.segments:
        np.testing.assert_array_equal(found.mask(segment), labels() == segment.value)
    assert found.grid.shape == (6, 7, 8) and found.name == f"seg{suffix}"


@pytest.mark.parametrize(
    ("array", "cause"),
    [
        (np.zeros((4, 5, 6), np.uint8), "empty segmentation"),
        (labels() * np.float32(0.25), "not a label map: it contains values such as 5.25"),
        (np.where(labels() > 20, np.nan, 0).astype(np.float32), "such as nan"),
        (noise() - 1024, "not a label map: it contains values such as -"),
        (labels() * 1e30, "not a label map"),
    ],
    ids=["empty", "probabilities", "nan", "a CT", "huge"],
)
def test_what_is_no_label_map(tmp_path: Path, array: npt.NDArray[np.generic], cause: str) -> None:
    assert cause in refusal(read_segmentation, write_array(tmp_path / "seg.nii.gz", array))


def test_a_folder_is_no_segmentation(tmp_path: Path) -> None:
    assert "one file" in refusal(read_segmentation, folder(tmp_path / "seg"))


ENTRY = "Segmentation category and type~SCT^123037004^A~SCT^66794005^L1~^^~Regions~^^~^^"


def layered(path: Path, header: dict[str, str], layers: int = 2) -> Path:
    arrays = [np.where(labels() == value, 1, 0) for value in (20, 21, 200)][:layers]
    array = np.stack(arrays, axis=-1).astype(np.uint8) if layers > 1 else labels()
    image = sitk.GetImageFromArray(array, isVector=layers > 1)
    for key, text in header.items():
        image.SetMetaData(key, text)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def test_segments_of_a_layered_seg_nrrd(tmp_path: Path) -> None:
    header = {
        "Segment1_ID": "Segment_2",
        "Segment1_Name": "T12 : vertebra",
        "Segment1_LabelValue": "1",
        "Segment1_Layer": "1",
        "Segment0_ID": "vertebrae_L1",
        "Segment0_Name": "L1 vertebra",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Tags": f"Segmentation.Status:inprogress|TerminologyEntry:{ENTRY}|",
    }
    found = read_segmentation(layered(tmp_path / "s.seg.nrrd", header))
    first, second = found.segments
    assert (first.id, first.name, first.terminology) == ("vertebrae_L1", "L1 vertebra", ENTRY)
    assert (second.id, second.name, second.layer) == ("Segment_2", "T12 : vertebra", 1)
    np.testing.assert_array_equal(found.mask(first), labels() == 20)
    np.testing.assert_array_equal(found.mask(second), labels() == 21)


def test_segments_of_a_seg_nrrd_from_before_shared_layers(tmp_path: Path) -> None:
    header = {f"Segment{n}_ID": f"s{n}" for n in range(3)}
    found = read_segmentation(layered(tmp_path / "old.seg.nrrd", header, layers=3))
    assert [found.mask(segment).sum() for segment in found.segments] == [4, 4, 4]
    assert [segment.layer for segment in found.segments] == [0, 1, 2]


def test_a_segment_name_that_is_no_utf8_can_be_printed(tmp_path: Path) -> None:
    path = layered(tmp_path / "s.seg.nrrd", {"Segment0_ID": "s", "Segment0_Name": "Wirbel A"})
    path.write_bytes(path.read_bytes().replace(b"Wirbel A", b"Wirbel \xe4"))
    assert read_segmentation(path).segments[0].name.encode() == "Wirbel \ufffd".encode()


@pytest.mark.parametrize(
    "field",
    [
        {"Segment0_LabelValue": "one"},
        {"Segment0_LabelValue": "0"},
        {"Segment0_Layer": "2"},
        {"Segment0_Layer": "-1"},
    ],
)
def test_a_damaged_segment_header_is_refused(tmp_path: Path, field: dict[str, str]) -> None:
    path = layered(tmp_path / "s.seg.nrrd", {"Segment0_ID": "s", **field})
    assert "damaged segment header" in refusal(read_segmentation, path)


def test_a_segmentation_that_slicer_wrote(tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    scene, logic = slicer.vtkMRMLScene(), slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    ijk_to_ras = vtk.vtkMatrix4x4()
    ijk_to_ras.DeepCopy((-2, 0, 0, 5, 0, -3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 1))
    masks = {"vertebrae_L1": labels() == 20, "overlap": labels() > 0, "T12": labels() == 200}
    for name, mask in masks.items():
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(mask.shape[::-1])
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        image.SetImageToWorldMatrix(ijk_to_ras)
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel()
        node.AddSegmentFromBinaryLabelmapRepresentation(image, f"{name} shown", [1, 0, 0], name)
        node.GetSegmentation().GetSegment(name).SetTag("TerminologyEntry", ENTRY)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "spine.seg.nrrd"))
    assert storage.WriteData(node)

    found = read_segmentation(tmp_path / "spine.seg.nrrd")
    assert [(s.id, s.name, s.terminology) for s in found.segments] == [
        (name, f"{name} shown", ENTRY) for name in masks
    ]
    assert len(found.layers) == 2
    for segment in found.segments:
        k, j, i = np.nonzero(found.mask(segment))
        lps = found.grid.lps(np.stack([i, j, k], axis=-1))
        k, j, i = np.nonzero(masks[segment.id])
        np.testing.assert_allclose(lps, np.stack([i * 2 - 5, j * 3, k * 4], axis=-1))


def with_extension(path: Path, content: bytes, code: int = 0) -> Path:
    """A NIfTI header extension, as TotalSegmentator puts its label names there."""
    write_array(path, labels())
    packed = path.name.endswith(".gz")
    raw = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    content += b"\0" * (-(len(content) + 8) % 16)
    section = struct.pack("<ii", len(content) + 8, code) + content
    struct.pack_into("<f", raw, 108, 352 + len(section))
    raw = raw[:348] + b"\1\0\0\0" + section + raw[352:]
    path.write_bytes(gzip.compress(bytes(raw)) if packed else raw)
    return path


def label_table(*rows: str, prolog: str = "") -> bytes:
    table = f"<LabelTable>{''.join(rows)}</LabelTable>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{prolog} <Volume>{table}</Volume>\n '.encode()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_label_names_in_a_nifti_header(tmp_path: Path, suffix: str) -> None:
    table = label_table(
        '<Label Key="20" Red="1"><![CDATA[vertebrae_L1]]></Label>',
        '<Label Key="200">rib &amp; more</Label>',
        '<Label Key="7">liver</Label>',
        '<Label Key="x">nonsense</Label>',
    )
    found = read_segmentation(with_extension(tmp_path / f"seg{suffix}", table))
    assert [(s.value, s.name) for s in found.segments] == [
        (20, "vertebrae_L1"),
        (21, ""),
        (200, "rib & more"),
    ]
    np.testing.assert_array_equal(found.layers[0].array, labels())


@pytest.mark.parametrize(
    "content",
    [
        label_table('<Label Key="20">&a;</Label>', prolog='<!DOCTYPE x [<!ENTITY a "boom">]>'),
        b"<LabelTable><Label Key='20'>never closed",
        b"\xff\xfe<LabelTable>",
        b"some other tool's notes",
    ],
    ids=["entities", "broken", "no text", "other"],
)
def test_other_header_extensions_are_passed_over(tmp_path: Path, content: bytes) -> None:
    found = read_segmentation(with_extension(tmp_path / "seg.nii.gz", content, code=6))
    assert [(s.value, s.name) for s in found.segments] == [(20, ""), (21, ""), (200, "")]


# DICOM


def write_slices(
    folder: Path,
    heights: list[float],
    series: str = "1",
    modality: str = "CT",
    drift: float = 0.0,
    description: str = "bone",
    size: int = 8,
) -> list[Path]:
    """A drawn axial series; slice n holds n HU, and file names say nothing of the order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, z in enumerate(heights):
        image = sitk.GetImageFromArray(np.full((1, size, size + 2), n, np.int16))
        image.SetSpacing((0.5, 0.75, 1.0))
        tags = {
            "0008|0060": modality,
            "0008|103e": description,
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": f"1.2.826.0.1.3680043.2.1125.{series}",
            "0020|0032": f"-10\\{20 + n * drift}\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(n + 1),
            "0028|1052": "-1000",
            "0028|1053": "1",
        }
        for key, text in tags.items():
            image.SetMetaData(key, text)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        paths.append(folder / f"{(n * 7) % len(heights)}_{series}_{n}.dcm")
        writer.SetFileName(str(paths[-1]))
        writer.Execute(image)
    return paths


def heights(count: int, step: float = 2.5) -> list[float]:
    return [100 + n * step for n in range(count)]


@pytest.mark.parametrize("upwards", [True, False])
def test_dicom_slices_are_put_in_order(tmp_path: Path, upwards: bool) -> None:
    z = heights(8) if upwards else heights(8)[::-1]
    write_slices(tmp_path / "study" / "series", z)
    (tmp_path / "study" / "readme.txt").write_text("not an image")
    ct = read_ct(tmp_path / "study")
    np.testing.assert_allclose(ct.grid.spacing, (0.5, 0.75, 2.5))
    np.testing.assert_allclose(ct.grid.lps([0, 0, 0]), (-10, 20, 100))
    np.testing.assert_array_equal(ct.array[:, 3, 3], np.arange(8)[:: 1 if upwards else -1])


def test_a_scout_is_passed_over_and_a_file_picks_its_series(tmp_path: Path) -> None:
    soft = write_slices(tmp_path, heights(5), "1", description="soft")
    scout = write_slices(tmp_path, heights(1), "2", description="scout", size=16)
    assert read_ct(tmp_path).array.shape == (5, 8, 10)
    bone = write_slices(tmp_path, heights(6, 1.0), "3")
    text = refusal(read_ct, tmp_path)
    assert "2 CT series" in text and "soft, 5 slices" in text and "bone, 6 slices" in text
    assert read_ct(soft[2]).array.shape == (5, 8, 10)
    assert read_ct(bone[0]).array.shape == (6, 8, 10)
    assert "1 slice" in refusal(read_ct, scout[0])


def test_mr_slices_are_refused_by_their_tag(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "mr", heights(6), modality="MR")
    assert "not CT: its DICOM modality is MR" in refusal(read_ct, tmp_path / "mr")
    assert "not CT" in refusal(read_ct, paths[0])


def test_ct_is_found_beside_other_modalities(tmp_path: Path) -> None:
    write_slices(tmp_path, heights(9), "1", modality="PT", size=4)
    write_slices(tmp_path, heights(5), "2")
    assert read_ct(tmp_path).array.shape == (5, 8, 10)


BAD_SERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (folder, "no DICOM images"),
    "other files": (lambda p: text_file(folder(p) / "a.txt"), "no DICOM images"),
    "missing slice": (lambda p: write_slices(p, [*heights(4), 112.5]), "lacks slices"),
    "doubled slice": (lambda p: write_slices(p, [*heights(5), 100.0]), "same position"),
    "tilted": (lambda p: write_slices(p, heights(6), drift=0.4), "tilted gantry"),
    "sizes": (
        lambda p: write_slices(p, heights(5)) + write_slices(p, [120, 122.5], size=16),
        "differ in size",
    ),
}


@pytest.mark.parametrize("case", BAD_SERIES)
def test_bad_series_are_refused_in_one_line(
    tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, cause = BAD_SERIES[case]
    make(tmp_path / "ct")
    assert cause in refusal(read_ct, tmp_path / "ct")
    assert capfd.readouterr() == ("", "")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([".nii", ".nrrd", ".mha"]),
    st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from([read_ct, read_segmentation]),
)
@example(".nii", [(109, 128)], read_ct)  # the data begin, and so end, within a voxel
@example(".nii", [(111, 95)], read_ct)  # they begin beyond what any memory holds
def test_a_damaged_header_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    damage: list[tuple[int, int]],
    read: Callable[[Path], object],
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    content = bytearray(write_array(path, labels().astype(np.float32)).read_bytes())
    for at, byte in damage:
        content[at] = byte
    path.write_bytes(content)
    try:
        read(path)
    except InputError as refused:
        assert str(refused).startswith(f"{path}: ") and "\n" not in str(refused)


@pytest.mark.parametrize("n", [0, 2, 5])
def test_a_truncated_slice_is_found_out(tmp_path: Path, n: int) -> None:
    path = write_slices(tmp_path, heights(6))[n]
    cut(path, path.stat().st_size - 50)
    assert f"{path.name}: is a truncated" in refusal(read_ct, tmp_path)


@needs_data
def test_real_dicom_agrees_with_the_nifti_of_the_same_scan() -> None:
    dicom, nifti = read_ct(DATA / "lidc0314_dicom"), read_ct(DATA / "lidc0314" / "ct.nii.gz")
    middle = nifti.grid.ijk(dicom.grid.lps(np.array(dicom.grid.shape[::-1]) / 2))
    starts = (round(middle[2]) - 10, nifti.grid.shape[1] // 2, nifti.grid.shape[2] // 2)
    patch = tuple(slice(start, start + 20) for start in starts)
    k, j, i = np.mgrid[patch]
    there = dicom.grid.ijk(nifti.grid.lps(np.stack([i, j, k], axis=-1)))
    np.testing.assert_allclose(there, np.round(there), atol=0.01)
    i, j, k = np.moveaxis(np.round(there).astype(int), -1, 0)
    np.testing.assert_array_equal(dicom.array[k, j, i], nifti.array[patch])
    assert nifti.array[patch].std() > 50


# Writing


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.v1.seg.nrrd"
    with atomic(path) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith(".v1.seg.nrrd")
        save(base(), temporary)
        assert not path.exists()
    assert read_ct(path).array.shape == SHAPE
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, RuntimeError])
def test_a_failure_leaves_the_older_file(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "out.json"
    path.write_text("older")
    with pytest.raises(failure), atomic(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def write_text(path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text("text")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal(write_text, tmp_path / "missing" / "out.json")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(write_text, tmp_path / "file" / "out.json")
    (tmp_path / "taken.json").mkdir()
    assert "cannot be written" in refusal(write_text, tmp_path / "taken.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.json"]


@posix
def test_a_write_protected_folder(tmp_path: Path) -> None:
    closed = folder(tmp_path / "closed")
    closed.chmod(0o555)
    with as_another_user(tmp_path):
        assert "cannot be written: Permission denied" in refusal(write_text, closed / "out.json")


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"other\.txt"), atomic(tmp_path / "out.json"):
        (tmp_path / "other.txt").read_text()


SCRIPT = """
import resource, signal, sys, time
import numpy as np, SimpleITK as sitk
from hideseekseg.errors import InputError
from hideseekseg.files import atomic
task, path = sys.argv[1:]
if task != "wait":  # a limit on the size of files fails just as a full disk does
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    with atomic(path) as temporary:
        if task == "wait":
            temporary.write_text("half")
            # Shells start background jobs with SIGINT ignored, and children inherit that.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("ready", flush=True)
            time.sleep(60)
        elif task == "image":
            noise = np.random.default_rng(0).integers(0, 255, (40, 40, 40)).astype(np.uint8)
            sitk.WriteImage(sitk.GetImageFromArray(noise), str(temporary), True)
        else:
            temporary.write_text("x" * 20_000)
except InputError as error:
    sys.exit(str(error))
"""


def start(task: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, task, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to set")
@pytest.mark.parametrize("task", ["image", "text"])
def test_a_full_disk(tmp_path: Path, task: str) -> None:
    path = tmp_path / "lesions.seg.nrrd"
    _, message = start(task, path).communicate(timeout=60)
    assert message.startswith(f"{path}: cannot be written") and message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start("wait", tmp_path / "out.json")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot limit the size of files")
@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii", "ct.nrrd", "ct.mha"])
def test_what_a_full_disk_cuts_off_is_said(tmp_path: Path, name: str) -> None:
    """ITK's NIfTI writer ends without a word where no more can be written."""
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "import SimpleITK as sitk\nfrom hideseekseg.imaging.image_file import write_image\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "noise = np.random.default_rng(1).integers(0, 2000, (30, 40, 50)).astype(np.int16)\n"
        "write_image(Path(sys.argv[1]), sitk.GetImageFromArray(noise), compress=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / name)],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"InputError: {tmp_path / name}: cannot be written" in last
    assert list(tmp_path.iterdir()) == []


def test_two_threads_that_read_images_leave_standard_error_as_it_was() -> None:
    """The CT and its segmentation are read at once; errors that come later must still be seen."""
    before, both = os.fstat(2), threading.Barrier(2)
    printed: list[Printed] = []

    def listen(seconds: float, text: bytes) -> None:
        both.wait(timeout=60)
        time.sleep(seconds)
        with captured() as mine:
            os.write(2, text)
            time.sleep(0.2)
        printed.append(mine)

    def warning(word: str) -> bytes:
        return f"WARNING: In {word}.cxx, line 1\nReader (0x0): {word}\n".encode()

    other = threading.Thread(target=listen, args=(0.1, warning("two")))
    other.start()
    listen(0.0, warning("one"))
    other.join()
    assert os.path.samestat(os.fstat(2), before)
    assert sorted(one.warnings() for one in printed) == [("one",), ("two",)], "each its own"
