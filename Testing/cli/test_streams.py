"""Output that cannot be written: closed streams, full disks and terminals that have gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hideseekseg.cli.main import main

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
FULL = Path("/dev/full")  # every write to it finds the disk full
Files = tuple[Path, Path]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="numbers of streams are POSIX's")
full_disk = pytest.mark.skipif(not FULL.exists(), reason="Linux has /dev/full")


@pytest.fixture
def words(box_files: Files, calm_weights: Path, tmp_path: Path) -> list[str]:
    told = ["segment", *map(str, box_files), "--out", str(tmp_path / "out"), "--no-picture"]
    return [*told, "--labels", "totalsegmentator", "--weights", str(calm_weights)]


def start(words: list[str], **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "hideseekseg", *words]
    return subprocess.Popen(program, env=environment, text=True, **options)  # type: ignore[call-overload]


def is_whole(folder: Path) -> bool:
    told = json.loads((folder / "candidates.json").read_text("utf-8"))
    return len(told["vertebrae"]) == 3 and (folder / "lesions.seg.nrrd").is_file()


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=["out", "error", "all"])
def test_a_process_without_streams_has_its_results(
    closed: tuple[int, ...], words: list[str], tmp_path: Path
) -> None:
    """So daemons and schedulers start programs; the first line of ``main`` ended in a trace."""

    def close() -> None:
        for number in closed:
            os.close(number)

    process = start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=close)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Traceback" not in out + err
    assert is_whole(tmp_path / "out")


@full_disk
def test_progress_that_finds_the_disk_full_ends_no_run(words: list[str], tmp_path: Path) -> None:
    with FULL.open("w") as full:
        process = start(words, stdout=subprocess.PIPE, stderr=full)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "P(malignant)" in out
    assert is_whole(tmp_path / "out")


@full_disk
@pytest.mark.parametrize("how", ["people", "programs"])
def test_results_that_cannot_be_printed_are_one_line_and_lie_in_their_folder(
    how: str, words: list[str], tmp_path: Path
) -> None:
    more = ["--json-lines"] if how == "programs" else []
    with FULL.open("w") as full:
        process = start([*words, *more], stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    last = err.splitlines()[-1]
    assert last == "hideseekseg: standard output cannot be written: No space left on device"
    assert "Traceback" not in err and "Exception ignored" not in err
    assert is_whole(tmp_path / "out")


def test_a_terminal_that_goes_takes_no_run_with_it(words: list[str], tmp_path: Path) -> None:
    """A connection breaks, or whoever started the run logs out."""
    import pty

    ours, theirs = pty.openpty()
    process = start(words, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert process.wait(timeout=300) == 1  # its table was not printed
    assert is_whole(tmp_path / "out")


@full_disk
def test_a_log_that_finds_the_disk_full_is_a_warning(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--log", str(FULL)]) == 0
    said = capsys.readouterr().err
    assert said.count("warning: /dev/full: cannot be written any more") == 1
    assert is_whole(tmp_path / "out")


def test_a_pipe_whose_reader_has_gone_ends_the_program_without_a_trace() -> None:
    process = start(["completion", "bash"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=300) == 1
    process.stderr.close()
