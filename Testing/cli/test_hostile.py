"""Odd words, folders and headers, too little memory, and processes that are killed: one line each.

``python Testing/kills.py 20`` kills at as many random moments as one asks for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import kills
from hideseekseg.cli.main import main
from hideseekseg.imaging.volume import Grid, Volume, to_sitk

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits are POSIX's")
LONG = "a" * 5000


def command(files: tuple[Path, Path], weights: Path, out: Path, *more: str) -> list[str]:
    words = ["segment", *map(str, files), "--out", str(out), "--weights", str(weights)]
    return [*words, "--labels", "totalsegmentator", *more]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert "\x1b" not in said and "Traceback" not in said
    return said


@pytest.mark.parametrize("option", ["ct", "segmentation", "out", "weights", "labels", "bodies"])
def test_a_name_of_5000_letters_is_refused(
    option: str,
    box_files: tuple[Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = command(box_files, tiny_weights, tmp_path / "out")
    places = {"ct": 1, "segmentation": 2, "out": 4, "weights": 6, "labels": 8}
    if option in places:
        words[places[option]] = LONG
    else:
        words += [f"--{option}", LONG]
    assert main(words) == 2
    one_line(capsys)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def small_ct(path: Path, **header: object) -> Path:
    image = to_sitk(Volume(np.zeros((8, 8, 8), np.int16), cube(1.0)))
    for name, value in header.items():
        getattr(image, f"Set{name}")(value)
    sitk.WriteImage(image, str(path))
    return path


def cube(mm: float) -> Grid:
    return Grid((8, 8, 8), np.diag([mm, mm, mm, 1.0]))


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha", "mhd", "nhdr"])
@pytest.mark.parametrize("spacing", [1000.0, 1e-6])
def test_voxels_of_a_metre_are_refused(
    suffix: str,
    spacing: float,
    box_files: tuple[Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ct = small_ct(tmp_path / f"ct.{suffix}", Spacing=[spacing] * 3)
    assert main(command((ct, box_files[1]), tiny_weights, tmp_path / "out")) == 2
    assert "voxels of" in one_line(capsys)


@pytest.mark.parametrize(
    ("suffix", "old", "new"),
    [
        ("mha", b"DimSize = 8 8 8", b"DimSize = 0 8 8"),
        ("mha", b"DimSize = 8 8 8", b"DimSize = 8 8 -8"),
        ("mhd", b"DimSize = 8 8 8", b"DimSize = 8 0 8"),
        ("nrrd", b"sizes: 8 8 8", b"sizes: 8 8 0"),
        ("nhdr", b"sizes: 8 8 8", b"sizes: 0 0 0"),
    ],
)
def test_an_image_without_voxels_is_refused(
    suffix: str,
    old: bytes,
    new: bytes,
    box_files: tuple[Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ct = small_ct(tmp_path / f"ct.{suffix}")
    content = ct.read_bytes()
    assert old in content
    ct.write_bytes(content.replace(old, new))
    assert main(command((ct, box_files[1]), tiny_weights, tmp_path / "out")) == 2
    assert "ct." in one_line(capsys)


def test_escape_sequences_in_names_do_not_reach_the_terminal(
    box_files: tuple[Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A name that clears the screen, sets the window's title and writes backwards."""
    evil = "\x1b[2J\x1b]0;owned\x07 T11\u202e vertebra\x9b31m"
    image = sitk.ReadImage(str(box_files[1]))
    for number, value in enumerate((33, 32, 31)):
        for key, text in {"ID": f"s{number}\x1b[2J", "Name": evil, "LabelValue": value}.items():
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    evil_file = tmp_path / "bodies.seg.nrrd"
    sitk.WriteImage(image, str(evil_file))
    words = command((box_files[0], evil_file), tiny_weights, tmp_path / "out")
    main([word for word in words if word not in ("--labels", "totalsegmentator")])
    said = capsys.readouterr()
    assert "owned" in said.err + said.out, "it is named"
    for letter in "\x1b\x07\x9b\u202e":
        assert letter not in said.err + said.out


def run(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "hideseekseg", *words]
    return subprocess.run(  # type: ignore[call-overload]
        program, env=environment, capture_output=True, text=True, timeout=300, **options
    )


@posix
@pytest.mark.parametrize("megabytes", [300, 900, 1400])
def test_little_address_space_is_one_line(
    megabytes: int, box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    done = run(command(box_files, tiny_weights, tmp_path / "out"), preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "address space" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_read_only_folder_is_one_line(
    box_files: tuple[Path, Path],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    assert main(command(box_files, tiny_weights, tmp_path / "out")) == 2
    assert "cannot be written" in one_line(capsys)


@posix
@pytest.mark.parametrize("place", ["/proc/hideseekseg", "/dev/null/out"])
def test_a_folder_that_cannot_be_made_is_one_line(
    place: str,
    box_files: tuple[Path, Path],
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not even root may write there."""
    assert main(command(box_files, tiny_weights, Path(place))) == 2
    assert "cannot be written" in one_line(capsys)


@posix
def test_inputs_that_are_deleted_after_they_were_read_change_nothing(
    box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    """The copies go once the run has begun: what it needs is in its memory."""
    copies = (tmp_path / "ct.nii.gz", tmp_path / "bodies.nii.gz")
    for source, copy in zip(box_files, copies):
        copy.write_bytes(source.read_bytes())
    words = command(copies, tiny_weights, tmp_path / "out", "--json-lines")
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "hideseekseg", *words]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert '"started"' in process.stdout.readline()
        for copy in copies:
            copy.unlink()
        assert '"finished"' in process.stdout.read()
    assert process.returncode == 0
    assert (tmp_path / "out" / "candidates.json").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_dicom_file_that_crashes_its_reader_is_one_line(
    box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    """The signal is what GDCM's own mistakes over damaged files raise."""
    from helpers.dicom import series

    folder = series(tmp_path / "series", [2.5 * n for n in range(5)])
    words = command((folder, box_files[1]), tiny_weights, tmp_path / "out")
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "hideseekseg", *words]
    with subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        readers: list[int] = []
        while not readers:
            assert process.poll() is None, "no process reads the series"
            readers = [n for n in map(int, children.read_text().split()) if reads(n)]
            time.sleep(0.002)
        os.kill(readers[0], signal.SIGSEGV)
        _, said = process.communicate()
    assert process.returncode == 2
    assert said.count("\n") == 1 and "Traceback" not in said
    assert f"{folder}: cannot be read: it crashed the process that read it" in said
    assert not (tmp_path / "out").exists()


def reads(pid: int) -> bool:
    """Whether a child has become the interpreter that reads, which ends by the signal."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@posix
@pytest.mark.slow
@pytest.mark.parametrize("what", ["segment"])
def test_a_killed_process_loses_nothing_that_was_finished(what: str, tmp_path: Path) -> None:
    outcome = kills.run(what, count=1, seed=int(time.time()) % 1000, folder=tmp_path)
    assert outcome.faults == [], outcome.faults
    assert outcome.killed >= 1, "no process lived long enough to be killed"
