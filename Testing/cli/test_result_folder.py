"""Folders of results: one scan in each, one run at a time, and every file says which scan it is."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from helpers.models import threads
from hideseekseg.cli.main import main
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Volume, content_hash, scan_identity, to_sitk

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
Files = tuple[Path, Path]


@pytest.fixture
def words(tiny_weights: Path, box_files: Files, tmp_path: Path) -> list[str]:
    options = ["--labels", "totalsegmentator", "--weights", str(tiny_weights), "--quiet"]
    return ["segment", *map(str, box_files), "--out", str(tmp_path / "out"), *options]


@pytest.fixture
def other(box_spine: tuple[Volume, Volume], tmp_path: Path) -> Path:
    """Another patient's CT, that the same vertebrae fit."""
    image = to_sitk(box_spine[0])
    path = tmp_path / "other.nii.gz"
    sitk.WriteImage(image + 1, str(path))
    return path


def of(words: list[str], ct: Path) -> list[str]:
    return [words[0], str(ct), *words[2:]]


def listed(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def told(folder: Path) -> dict[str, str]:
    data = json.loads((folder / "candidates.json").read_text("utf-8"))
    return dict(data["run"]["scan"])


def test_result_of_another_scan_is_not_overwritten_unasked(
    words: list[str], other: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*words, "--each"]) == 0
    (out / "accepted.csv").write_text("verdicts of the first patient")
    (out / "notes.txt").write_text("mine")
    before = {name: (out / name).read_bytes() for name in listed(out)}
    assert main([*of(words, other), "--each"]) == 2
    said = capfd.readouterr().err
    assert (
        said.count("\n") == 1 and f"{out}: contains the result of another scan (ct.nii.gz [" in said
    )
    assert "--overwrite" in said
    assert {name: (out / name).read_bytes() for name in listed(out)} == before
    assert main(words) == 0, "the same scan may be run again"
    assert told(out)["path"] == words[1]

    assert main([*of(words, other), "--each", "--levels", "L1", "--overwrite"]) == 0
    assert told(out)["path"] == str(other)
    names = ["candidates.csv", "candidates.json", "lesions.seg.nrrd", "notes.txt", "overview.png"]
    assert listed(out) == [*names, str(Path("vertebrae") / "L1.npz")], "the first patient stayed"


def test_vertebrae_alone_say_whose_they_are(
    words: list[str], other: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As after a run that was killed: there are no tables yet."""
    out = tmp_path / "out"
    assert main([*words, "--each"]) == 0
    for name in listed(out):
        if "vertebrae" not in name:
            (out / name).unlink()
    assert main(of(words, other)) == 2
    assert "contains the result of another scan (ct.nii.gz [" in capfd.readouterr().err
    assert main([*of(words, other), "--overwrite"]) == 0
    assert not [name for name in listed(out) if "vertebrae" in name]


def test_result_that_does_not_say_of_which_scan_is_kept_too(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old = Path(__file__).resolve().parents[1] / "data" / "version-0.1" / "results"
    (tmp_path / "out").mkdir()
    content = (old / "candidates.json").read_bytes()
    (tmp_path / "out" / "candidates.json").write_bytes(content)
    assert main(words) == 2
    assert "does not say which scan it is of (candidates.json)" in capfd.readouterr().err
    assert (tmp_path / "out" / "candidates.json").read_bytes() == content
    assert main([*words, "--overwrite"]) == 0


def test_failed_run_with_overwrite_leaves_the_old_result(
    words: list[str], other: Path, tmp_path: Path
) -> None:
    assert main(words) == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in listed(tmp_path / "out")}
    assert main([*of(words, other), "--overwrite", "--levels", "T3"]) == 2
    after = {name: (tmp_path / "out" / name).read_bytes() for name in listed(tmp_path / "out")}
    assert after == before


def start(words: list[str], weights: Path) -> subprocess.Popen[str]:
    """Run slowly, in a process of its own, until the first vertebra is finished."""
    line = [*words, "--each", "--json-lines"]
    line[line.index("--weights") + 1] = str(weights)
    line.remove("--quiet")
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "hideseekseg", *line],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    assert any('"vertebra-done"' in text for text in running.stdout)
    return running


@posix
def test_second_run_into_one_folder_is_refused_until_the_first_has_ended(
    words: list[str], slow_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """However it ends: kill -9 leaves a file behind, and no lock."""
    with start(words, slow_weights) as first:
        assert main(words) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and "is in use by another run" in said
        first.send_signal(signal.SIGKILL)
    assert main(words) == 0
    assert not [name for name in listed(tmp_path / "out") if name.startswith(".")]


def texts(out: Path) -> bytes:
    return b"".join((out / name).read_bytes() for name in listed(out))


@pytest.mark.parametrize("named", [False, True])
def test_dicom_results_say_which_series_and_no_name_unasked(
    words: list[str], box_spine: tuple[Volume, Volume], tmp_path: Path, named: bool
) -> None:
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    from helpers.dicom import ROOT, write_series

    folder = write_series(tmp_path / "CD", box_spine[0], PatientID="4711")
    more = ["--patient-names"] if named else []
    assert main([*of(words, folder), "--each", *more]) == 0
    scan = told(tmp_path / "out")
    assert scan["study_uid"] == f"{ROOT}.1" and scan["series_uid"] == f"{ROOT}.2"
    assert scan["frame_of_reference_uid"] == f"{ROOT}.3"
    assert scan["series_description"] == "bone" and scan["study_date"] == "20240102"
    assert scan["path"] == str(folder)
    case = f"CD, bone, 2024-01-02 [{scan['sha256'][:8]}]"
    with (tmp_path / "out" / "candidates.csv").open(encoding="utf-8") as file:
        assert {row["case"] for row in csv.DictReader(file)} == {
            f"Doe Jane, 4711, {case}" if named else case
        }
    assert (b"Jane" in texts(tmp_path / "out")) == named
    assert (b"4711" in texts(tmp_path / "out")) == named


def test_one_scan_has_one_hash_whatever_stores_it(
    box_spine: tuple[Volume, Volume], box_files: Files, tmp_path: Path
) -> None:
    ct = box_spine[0]
    sitk.WriteImage(sitk.Cast(to_sitk(ct), sitk.sitkInt32), str(tmp_path / "ct.mha"))
    read = [read_ct(path) for path in (box_files[0], tmp_path / "ct.mha")]
    hashes = {scan_identity(volume)["sha256"] for volume in (ct, *read)}
    assert len(hashes) == 1
    moved = ct.grid.ijk_to_lps.copy()
    moved[0, 3] += 0.5
    changed = ct.array.copy()
    changed[3, 2, 1] += 1
    others = {
        content_hash(ct.array, replace(ct.grid, ijk_to_lps=moved)),
        content_hash(changed, ct.grid),
        content_hash(ct.array.astype(np.float32) + 0.25, ct.grid),
    }
    assert len(others | hashes) == 4


def test_masks_on_request(words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([*words, "--nifti"]) == 0
    whole = read_segmentation(out / "lesions.seg.nrrd")
    data = json.loads((out / "candidates.json").read_text("utf-8"))
    kinds = {c["id"]: c["type"] for v in data["vertebrae"] for c in v["candidates"]}
    assert set(kinds.values()) == {"lytic", "blastic"}
    for kind in ("lytic", "blastic"):
        image = sitk.ReadImage(str(out / f"{kind}.nii.gz"))
        assert image.GetSpacing() == pytest.approx(sitk.ReadImage(words[1]).GetSpacing())
        expected = np.zeros(whole.grid.shape, bool)
        for segment in whole.segments:
            if kinds[segment.id] == kind:
                expected |= whole.mask(segment)
        assert expected.any()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)
    assert (out / "overview.png").exists()
    assert main([*words, "--no-picture"]) == 0
    assert not list(out.glob("*.nii.gz")), "masks of the earlier run stayed beside the new tables"
    assert sorted(path.name for path in out.iterdir()) == [
        *("candidates.csv", "candidates.json", "lesions.seg.nrrd")
    ], "so did the picture"


def test_log_has_every_step_and_what_went_wrong(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run.log"
    assert main([*words, "--log", str(log)]) == 0
    text = log.read_text("utf-8")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d hideseekseg ", text)
    assert re.search(r" +\d+\.\d s  T12 edit\n", text), "no step was timed"
    assert f"wrote {tmp_path / 'out' / 'candidates.json'}" in text
    assert capfd.readouterr() == ("", ""), "--quiet holds for the terminal"
    assert main([*words, "--levels", "T3", "--log", str(log)]) == 2
    more = log.read_text("utf-8")[len(text) :]
    assert "contains no T3" in more and "Traceback" not in more
    assert main([*words, "--log", str(tmp_path / "no" / "folder.log")]) == 2
    assert "folder.log: cannot be written" in capfd.readouterr().err


@pytest.mark.parametrize("number", [1, 2])
def test_verbose_prints_every_step(
    number: int, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    words.remove("--quiet")
    with threads(number):
        assert main([*words, "--verbose"]) == 0
    began = re.findall(r"\n +(\d+\.\d) s  (T11|T12|L1) edit(?=\n)", capfd.readouterr().err)
    assert sorted(level for _, level in began) == ["L1", "T11", "T12"], "each once"
    assert [float(seconds) for seconds, _ in began] == sorted(float(s) for s, _ in began)


def test_help_has_defaults_and_every_convention(capsys: pytest.CaptureFixture[str]) -> None:
    from hideseekseg.anatomy.label_conventions import CONVENTIONS

    for command in ("segment", "app"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = capsys.readouterr().out
        assert all(re.search(rf"^  {name} ", said, re.MULTILINE) for name in CONVENTIONS)
        assert "(default: auto)" in said
        assert "None" not in said and "False" not in said


@posix
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["seg"], {"segment"}),
        (["segment", "--over"], {"--overwrite"}),
        (["segment", "--device", "c"], {"cpu", "cuda"}),
        (["app", "--patient"], {"--patient-names"}),
        (["completion", ""], {"bash", "zsh"}),
    ],
)
def test_shell_completes(
    typed: list[str], offered: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not installed")
    assert main(["completion", "bash"]) == 0
    line = " ".join(f'"{word}"' for word in ["hideseekseg", *typed])
    script = f"{capsys.readouterr().out}\nCOMP_WORDS=({line}); COMP_CWORD={len(typed)}\n"
    script += '_hideseekseg; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({0: "no.nii.gz"}, "no.nii.gz: does not exist"),
        ({1: "no.nii.gz"}, "no.nii.gz: does not exist"),
        ({0: "no.mrb", 1: None}, "no.mrb: does not exist"),
        ({1: "elsewhere.nii.gz"}, "elsewhere.nii.gz: does not overlap with the CT"),
        ({2: "--labels", 3: "nobody"}, "nobody"),
        ({2: "--weights", 3: "nowhere"}, "nowhere"),
        ({2: "--device", 3: "cuda"}, "device"),
        ({2: "--threads", 3: "0"}, "--threads"),
    ],
)
def test_app_refuses_what_segment_refuses(
    box_files: Files,
    tmp_path: Path,
    change: dict[int, str | None],
    cause: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a page is opened, in one line that names the file or the option."""
    pytest.importorskip("trame_slicer", reason="trame-slicer is not installed")
    monkeypatch.chdir(tmp_path)
    labels = sitk.ReadImage(str(box_files[1]))
    labels.SetOrigin((900.0, 0.0, 0.0))
    sitk.WriteImage(labels, "elsewhere.nii.gz")
    words: dict[int, str | None] = {0: str(box_files[0]), 1: str(box_files[1]), **change}
    line = ["app", "--no-browser", *(word for _, word in sorted(words.items()) if word)]
    if "cuda" in line and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    try:
        status = main(line)
    except SystemExit as ended:
        status = int(str(ended.code))
    said = capfd.readouterr()
    assert status == 2 and said.out == ""
    assert said.err.count("\n") == 1 and cause in said.err
