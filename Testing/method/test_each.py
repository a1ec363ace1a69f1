"""Vertebrae that are handed over one by one, while the run goes on with the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from helpers.findings import make_ct, make_evidence, make_grid, make_result
from hideseekseg.cli.main import main
from hideseekseg.errors import InputError
from hideseekseg.events import Cancelled, Event, Finished, VertebraDone, from_line
from hideseekseg.findings import Evidence, Status, VertebraFinding
from hideseekseg.imaging.reading import read_segmentation
from hideseekseg.output.result_folder import read_vertebra, write_vertebra
from hideseekseg.output.tables import vertebra_to_json

RESULTS = ["candidates.csv", "candidates.json", "lesions.seg.nrrd"]
LEVELS = ["T11", "T12", "L1"]
LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
GRID = make_grid((75, 60, 50), (1.2, 1.1, 2.0))
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are POSIX's")


@pytest.fixture
def words(box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> list[str]:
    files = ["segment", *map(str, box_files), "--out", str(tmp_path / "out")]
    chosen = ["--labels", "totalsegmentator", "--weights", str(tiny_weights)]
    return [*files, *chosen, "--json-lines", "--no-picture", "--each"]


def vertebrae(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out" / "vertebrae").iterdir())


def events(text: str) -> list[Event]:
    return [event for event in map(from_line, text.splitlines()) if event is not None]


def assert_same_evidence(one: Evidence | None, two: Evidence | None) -> None:
    assert (one is None) == (two is None)
    if one is None or two is None:
        return
    assert one.grid.matches(two.grid, 1e-9)
    for field in fields(Evidence):
        if field.name != "grid":
            a, b = getattr(one, field.name), getattr(two, field.name)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def assert_same_voxels(one: VertebraFinding, two: VertebraFinding) -> None:
    assert one == two
    for a, b in zip(one.candidates, two.candidates):
        assert a.patch is not None
        assert b.patch is not None
        assert a.patch.start == b.patch.start
        np.testing.assert_array_equal(a.patch.array, b.patch.array)


@pytest.mark.parametrize("number", range(4))
def test_a_vertebra_comes_back_whole(number: int, tmp_path: Path) -> None:
    result = make_result(GRID)
    finding = result.vertebrae[number]
    evidence = make_evidence(make_ct(GRID), result).get(finding.level)
    path = tmp_path / "Wirbel 骨.npz"
    write_vertebra(path, finding, evidence)
    back, seen = read_vertebra(path)
    assert_same_voxels(finding, back)
    assert_same_evidence(evidence, seen)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign", "pickled"])
def test_a_damaged_file_is_told_in_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "T10.npz"
    write_vertebra(path, make_result(GRID).vertebrae[0], None)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage in ("empty", "cut"):
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    elif damage == "foreign":
        np.savez(path, other=np.zeros(3))
    else:
        np.savez(path, finding=np.array([{"level": "T10"}], object))
    with pytest.raises(InputError) as refused:
        read_vertebra(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_vertebra_is_there_as_soon_as_it_is_told(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    told = events(capsys.readouterr().out)
    done = [event for event in told if isinstance(event, VertebraDone)]
    assert [event.level for event in done] == LEVELS
    assert isinstance(told[-1], Finished)
    written = read_segmentation(tmp_path / "out" / "lesions.seg.nrrd")
    masks = {segment.id: written.mask(segment) for segment in written.segments}
    for event in done:
        assert Path(event.file) == tmp_path / "out" / "vertebrae" / f"{event.level}.npz"
        finding, evidence = read_vertebra(event.file)
        assert vertebra_to_json(finding, 0.5) == event.finding
        assert evidence is not None
        for candidate in finding.accepted(0.5):
            painted = np.zeros(written.grid.shape, bool)
            assert candidate.patch is not None
            candidate.patch.paint(painted)
            np.testing.assert_array_equal(painted, masks.pop(candidate.id))
    assert not masks


def test_without_each_nothing_of_it_is_there(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words[:-1]) == 0
    done = [e for e in events(capsys.readouterr().out) if isinstance(e, VertebraDone)]
    assert {event.file for event in done} == {""}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == RESULTS


def test_vertebrae_of_an_earlier_run_go(words: list[str], tmp_path: Path) -> None:
    """A folder never mixes two runs; what is not ours stays."""
    assert main(words) == 0
    (tmp_path / "out" / "vertebrae" / "notes.txt").write_text("mine")
    assert main([*words, "--levels", "T12"]) == 0
    assert vertebrae(tmp_path) == ["T12.npz", "notes.txt"]


def test_a_vertebra_that_was_not_analysed_says_so(tmp_path: Path) -> None:
    finding = VertebraFinding("T9", Status.NOT_ANALYSED, "cut by the field of view")
    write_vertebra(tmp_path / "T9.npz", finding, None)
    assert read_vertebra(tmp_path / "T9.npz") == (finding, None)


def child(words: list[str], **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hideseekseg", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)  # type: ignore[call-overload]


def first_done(running: subprocess.Popen[str]) -> VertebraDone:
    assert running.stdout is not None
    told = (from_line(line) for line in running.stdout)
    return next(event for event in told if isinstance(event, VertebraDone))


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_finished_vertebrae_outlive_their_run(
    number: signal.Signals,
    words: list[str],
    tiny_weights: Path,
    slow_weights: Path,
    tmp_path: Path,
) -> None:
    """Also where the process is killed: the file was complete before it was told."""
    slow = [str(slow_weights) if word == str(tiny_weights) else word for word in words]
    running = child(slow)
    done = first_done(running)
    running.send_signal(number)
    out, _ = running.communicate(timeout=60)
    finding, evidence = read_vertebra(done.file)
    assert finding.level == "T11"
    assert evidence is not None
    if number == signal.SIGTERM:
        last = events(out)[-1]
        assert isinstance(last, Cancelled)
        assert last.kept == ("T11",)
        assert vertebrae(tmp_path) == ["T11.npz"]
        data = json.loads((tmp_path / "out" / "candidates.json").read_text("utf-8"))
        assert data["run"]["finished"] == ["T11"]


@posix
def test_a_full_disk_is_one_line(words: list[str], tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    running = child(words, preexec_fn=limit)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 2
    assert err.count("\n") == 1, err
    assert "T11.npz: cannot be written" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that root cannot write")
def test_an_unwritable_folder_is_refused_before_the_work(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unwritable = ["/proc" if word == str(tmp_path / "out") else word for word in words]
    assert main(unwritable) == 2
    out, err = capsys.readouterr()
    assert "cannot be written" in err
    assert err.count("\n") == 1
    assert [type(event).__name__ for event in events(out)] == ["Failed"]


def test_the_threshold_is_not_in_the_file(tmp_path: Path) -> None:
    """One run's threshold must not stand in what a reader judges at another one."""
    finding = replace(make_result(GRID).vertebrae[0])
    assert all("accepted" in c for c in vertebra_to_json(finding, 0.5)["candidates"])
    write_vertebra(tmp_path / "T10.npz", finding, None)
    with np.load(tmp_path / "T10.npz") as file:
        assert b'"accepted"' not in file["finding"].tobytes()


def test_a_file_of_version_0_1_is_read_without_its_specks(tmp_path: Path) -> None:
    """It did not hold all changed pixels: those of the candidates are what is known."""
    path = tmp_path / "T10.npz"
    result = make_result(GRID)
    finding = result.vertebrae[0]
    evidence = make_evidence(make_ct(GRID), result)[finding.level]
    write_vertebra(path, finding, evidence)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "changed"}
    np.savez_compressed(path, **arrays)
    back, seen = read_vertebra(path)
    assert back == finding
    assert seen is not None
    assert np.array_equal(seen.changed, evidence.lytic | evidence.blastic)
