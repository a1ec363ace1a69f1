"""The command line as users meet it: files, words, exit statuses, Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from hideseekseg import __version__
from hideseekseg.cli.main import main
from hideseekseg.events import Cancelled, Event, Failed, Finished, Started, VertebraDone, from_line

RESULTS = ["candidates.csv", "candidates.json", "lesions.seg.nrrd", "overview.png"]
LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
# Weights whose scores lie on both sides of 1, the highest threshold there is.
SPREAD = Path(__file__).resolve().parents[1] / "data" / "version-0.1" / "weights"
Words = list[str]


def process(words: Sequence[str | Path], **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hideseekseg", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", **options
    )  # type: ignore[call-overload]


def finish(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=120)
    return running.returncode, out, err


@pytest.fixture
def segment(box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path) -> Words:
    """A run that works, and takes a second; its results go to ``tmp_path / "out"``."""
    options = ["--labels", "totalsegmentator", "--weights", str(tiny_weights)]
    return ["segment", *map(str, box_files), "--out", str(tmp_path / "out"), *options]


def seconds_at_work() -> float:
    """Processor time of finished child processes, whatever else the machine has to do."""
    times = os.times()
    return times.children_user + times.children_system if os.name != "nt" else time.monotonic()


def replaced(words: Words, old: Path | str, new: Path | str) -> Words:
    assert str(old) in words
    return [str(new) if word == str(old) else word for word in words]


def events(out: str) -> list[Event]:
    read = [from_line(line) for line in out.splitlines()]
    assert None not in read, "something else was printed among the events"
    return [event for event in read if event is not None]


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(3):  # the first start compiles
        began = seconds_at_work()
        status, out, _ = finish(process(["--help"]))
        seconds.append(seconds_at_work() - began)
    assert min(seconds) < 0.5
    assert status == 0
    assert "segment" in out
    assert "example" in out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, hideseekseg.cli.main; print({'torch', 'numpy', 'SimpleITK'} & {*sys.modules})"
    )
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().strip() == "set()"


def test_installed_command_says_its_version() -> None:
    command = Path(sys.executable).with_name("hideseekseg")
    if not command.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"hideseekseg {__version__}\n"


def test_segment_writes_all_and_says_what_it_found(segment: Words, tmp_path: Path) -> None:
    status, out, err = finish(process(segment))
    assert status == 0, err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == RESULTS
    data = json.loads((tmp_path / "out" / "candidates.json").read_text("utf-8"))
    assert [v["level"] for v in data["vertebrae"]] == ["T11", "T12", "L1"]
    accepted = sum(c["accepted"] for v in data["vertebrae"] for c in v["candidates"])
    assert accepted > 0
    assert f"{accepted} lesions" in out
    assert "by totalsegmentator: 31 = L1, 32 = T12, 33 = T11" in err
    assert "device: cpu" in err
    assert data["run"]["weights_hash"][:12] in err
    assert "T12" in err
    assert "\r" not in err, "a bar was drawn where nobody can see it"
    with (tmp_path / "out" / "candidates.csv").open(encoding="utf-8") as file:
        assert {row["level"] for row in csv.DictReader(file)} == {"T11", "T12", "L1"}
    mask = sitk.ReadImage(str(tmp_path / "out" / "lesions.seg.nrrd"))
    assert mask.GetSize() == sitk.ReadImage(segment[1]).GetSize()


def test_same_input_gives_the_same_output(segment: Words, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert main([*replaced(segment, tmp_path / "out", tmp_path / folder), "--quiet"]) == 0
    for name in ("lesions.seg.nrrd", "candidates.csv", "overview.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (
        json.loads((tmp_path / f / "candidates.json").read_text("utf-8")) for f in ("one", "two")
    )
    assert one["vertebrae"] == two["vertebrae"]
    assert {**one["run"], "seconds": 0} == {**two["run"], "seconds": 0}


def test_json_lines_tell_the_whole_run(segment: Words, tmp_path: Path) -> None:
    status, out, err = finish(process([*segment, "--json-lines"]))
    assert (status, err) == (0, "")
    said = events(out)
    assert isinstance(said[0], Started)
    assert isinstance(said[-1], Finished)
    assert said[0].levels == ("T11", "T12", "L1")
    done = [e.finding for e in said if isinstance(e, VertebraDone)]
    assert (
        done == json.loads((tmp_path / "out" / "candidates.json").read_text("utf-8"))["vertebrae"]
    )
    assert sorted(Path(f).name for f in said[-1].files) == RESULTS
    fractions = [e.fraction for e in said if hasattr(e, "fraction")]
    assert fractions == sorted(fractions)
    assert 0.99 < fractions[-1] <= 1


def test_quiet_is_quiet(segment: Words, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*segment, "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
def test_one_thread_is_one_thread(segment: Words) -> None:
    """No library keeps others, which would wait busily beside other work."""
    code = "import os, sys; from hideseekseg.cli.main import main; main(sys.argv[1:])"
    code += "; print(len(os.listdir('/proc/self/task')))"
    free = {name: text for name, text in os.environ.items() if not name.endswith("NUM_THREADS")}
    words = [sys.executable, "-c", code, *segment, "--threads", "1", "--device", "cpu", "--quiet"]
    done = subprocess.run(
        words, env={**free, "PYTHONPATH": str(LIBRARY)}, capture_output=True, text=True
    )
    assert done.stdout == "1\n", done.stderr


def test_levels_and_threshold_are_honoured(
    segment: Words, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A threshold between the scores of a first run: only those above it are lesions."""
    words = [*replaced(segment, tiny_weights, SPREAD), "--levels", "l1,T11"]
    assert main([*words, "--quiet", "--threshold", "0"]) == 0
    first = json.loads((tmp_path / "out" / "candidates.json").read_text("utf-8"))
    assert [v["level"] for v in first["vertebrae"]] == ["T11", "L1"]
    found = [c for v in first["vertebrae"] for c in v["candidates"]]
    ranked = sorted((c for c in found if 0 < c["score"] <= 1), key=lambda c: -c["score"])
    middle = len(ranked) // 2
    better, worse = ranked[middle - 1]["score"], ranked[middle]["score"]
    assert better > worse, "the threshold must part the candidates"
    above = {c["id"] for c in found if c["score"] > 1} | {c["id"] for c in ranked[:middle]}
    capfd.readouterr()
    assert main([*words, "--threshold", str((better + worse) / 2)]) == 0
    assert f"\n{len(above)} lesions (" in capfd.readouterr().out
    second = json.loads((tmp_path / "out" / "candidates.json").read_text("utf-8"))
    assert second["threshold"] == (better + worse) / 2
    accepted = {c["id"] for v in second["vertebrae"] for c in v["candidates"] if c["accepted"]}
    assert accepted == above
    with (tmp_path / "out" / "candidates.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["id"]]
    assert {row["id"] for row in rows if row["accepted"] == "True"} == above
    assert {row["id"] for row in rows} == {c["id"] for c in found}, "the others are kept"


def bad_files(tmp_path: Path, box_files: tuple[Path, Path]) -> dict[str, Path]:
    """Files that nobody can use, by what is wrong with them."""
    ct, labels = (sitk.ReadImage(str(path)) for path in box_files)
    images = {
        "flat.nii.gz": ct[:, :, 20],
        "empty.nii.gz": labels * 0,
        "dark-bone.nii.gz": 500 - ct,
        "nan.nii.gz": sitk.Cast(ct, sitk.sitkFloat32) + float("nan"),
    }
    for name, image in images.items():
        sitk.WriteImage(image, str(tmp_path / name))
    labels.SetOrigin((900.0, 0.0, 0.0))
    sitk.WriteImage(labels, str(tmp_path / "elsewhere.nii.gz"))
    sitk.WriteImage(labels * 0 + 99, str(tmp_path / "unknown.nii.gz"))
    whole = box_files[0].read_bytes()
    (tmp_path / "truncated.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.nii.gz").write_text("this is no image")
    return {path.name: path for path in tmp_path.glob("*.nii.gz")}


@pytest.mark.parametrize(
    ("name", "role", "cause"),
    [
        ("missing.nii.gz", 0, "does not exist"),
        ("truncated.nii.gz", 0, ""),
        ("words.nii.gz", 0, ""),
        ("flat.nii.gz", 0, "2D"),
        ("dark-bone.nii.gz", 0, "is this a CT"),
        ("nan.nii.gz", 0, "NaN"),
        ("missing.nii.gz", 1, "does not exist"),
        ("empty.nii.gz", 1, "empty"),
        ("elsewhere.nii.gz", 1, "does not overlap"),
        ("unknown.nii.gz", 1, "99"),
    ],
)
def test_bad_file_gets_one_line_and_no_results(
    name: str,
    role: int,
    cause: str,
    segment: Words,
    box_files: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = bad_files(tmp_path, box_files).get(name, tmp_path / name)
    assert main([*replaced(segment, box_files[role], path), "--json-lines"]) == 2
    out, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert err.startswith("hideseekseg: ")
    assert name in err
    assert cause in err
    failed = events(out)[-1]
    assert isinstance(failed, Failed)
    assert Path(failed.file).name == name
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--weights", "/nowhere"], "cannot be read"),
        (["--labels", "atlas"], "not a label convention"),
        (["--levels", "C3"], "contains no C3"),
        (["--schedule", "fast"], "the weights 'tiny' have no fast schedule"),
        (["--bodies", "nobody.nii.gz"], "nobody.nii.gz: does not exist"),
    ],
)
def test_bad_choice_gets_one_line_and_no_results(
    words: Words, cause: str, segment: Words, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*segment, "--quiet", *words]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert cause in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--levels", "T99"], ["--threshold", "2"], ["--threads", "0"]])
def test_impossible_option_is_refused(words: Words, segment: Words) -> None:
    with pytest.raises(SystemExit) as refused:
        main([*segment, *words])
    assert refused.value.code == 2


def test_output_folder_that_is_a_file(
    segment: Words, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    missing = replaced(segment, segment[1], "missing.nii.gz")
    assert main([*missing, "--quiet"]) == 2
    assert f"{tmp_path / 'out'}: cannot be written" in capfd.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that root cannot write")
def test_write_protected_folder_is_refused_before_the_work(
    segment: Words, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*replaced(segment, tmp_path / "out", "/proc"), "--json-lines"]) == 2
    out, err = capfd.readouterr()
    assert err.startswith("hideseekseg: /proc: cannot be written")
    assert [type(e) for e in events(out)] == [Failed]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX's")
def test_full_disk_leaves_older_results_alone(segment: Words, tmp_path: Path) -> None:
    """The limit lets the first files through and fails in the middle of the picture."""
    import resource

    out = tmp_path / "out"
    out.mkdir()
    for name in RESULTS:
        (out / name).write_text("older")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    status, _, err = finish(process([*segment, "--quiet", "--overwrite"], preexec_fn=limit))
    assert (status, err.count("\n")) == (2, 1), err
    assert f"{out}: cannot be written" in err
    assert {p.name: p.read_text() for p in out.iterdir()} == dict.fromkeys(RESULTS, "older")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console")
@pytest.mark.parametrize(("number", "threads"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_stop_keeps_what_is_finished(
    number: signal.Signals,
    threads: int,
    segment: Words,
    tiny_weights: Path,
    slow_weights: Path,
    tmp_path: Path,
) -> None:
    slow = replaced(segment, tiny_weights, slow_weights)
    running = process([*slow, "--json-lines", "--threads", str(threads)])
    assert running.stdout is not None
    before = []
    for line in running.stdout:
        before.append(line)
        if isinstance(from_line(line), VertebraDone):
            break
    running.send_signal(number)
    rest = running.stdout.read()  # communicate would lose what was read ahead
    status, _, _ = finish(running)
    assert status == 130
    last = events(rest)[-1]
    assert isinstance(last, Cancelled)
    assert last.kept == ("T11",) if threads == 1 else last.kept in (("T11",), ("T11", "T12"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == RESULTS
    data = json.loads((tmp_path / "out" / "candidates.json").read_text("utf-8"))
    assert data["run"]["stopped"] is True
    reasons = {v["level"]: v["reason"] for v in data["vertebrae"]}
    assert reasons == {
        level: "" if level in last.kept else "stopped before its turn"
        for level in ("T11", "T12", "L1")
    }


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console")
def test_stop_before_anything_is_finished_writes_nothing(
    segment: Words, tiny_weights: Path, slow_weights: Path, tmp_path: Path
) -> None:
    running = process(replaced(segment, tiny_weights, slow_weights))
    assert running.stderr is not None
    while "device" not in running.stderr.readline():
        pass
    running.send_signal(signal.SIGINT)
    status, _, err = finish(running)
    assert status == 130
    assert "nothing was finished, nothing is written" in err
    assert not (tmp_path / "out").exists()


def test_example_can_be_segmented(
    calm_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The embedded example from end to end, its bodies derived from whole vertebrae."""
    assert main(["example", "--out", str(tmp_path)]) == 0
    ct, vertebrae = capfd.readouterr().out.split()
    words = ["--labels", "totalsegmentator", "--weights", str(calm_weights), "--quiet"]
    assert main(["segment", ct, vertebrae, "--out", str(tmp_path / "out"), *words]) == 0
    data = json.loads((tmp_path / "out" / "candidates.json").read_text("utf-8"))
    assert [v["level"] for v in data["vertebrae"]] == ["T10", "T11", "T12", "L1", "L2"]
    assert {v["body_source"] for v in data["vertebrae"]} == {"derived"}
    assert all(8_000 < v["body_mm3"] < 60_000 for v in data["vertebrae"])
    assert np.ptp(sitk.GetArrayViewFromImage(sitk.ReadImage(ct))) > 1000
