"""Folders that training and cohorts write to: whole, one run's at a time, and never an input."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from helpers.dicom import write_series
from helpers.models import tiny_model
from helpers.vertebrae import plain_vertebra
from hideseekseg.cli.main import main
from hideseekseg.cohort.case_run import CaseStatus
from hideseekseg.cohort.shards import ShardSettings, ShardTask
from hideseekseg.files import locked
from hideseekseg.imaging.volume import Volume
from hideseekseg.model.weights import load_model, save_model
from hideseekseg.simulation.simulate import COMPACT_GEOMETRY, Recipe, simulate
from hideseekseg.training.manifest import read_manifest

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
FEW = ("--encoder-steps", "2", "--decoder-steps", "2", "--device", "cpu")
HEAD = "image,mask,label,patient,level,convention"
MOST_BYTES = 1 << 20  # of a file: a checkpoint is larger
ENCODER_BYTES = 30 << 20  # that of the encoder is smaller, that of the decoder larger

# What a full disk is to a process, of files of more than some bytes.
_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from hideseekseg.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    simulate(Recipe(3, 8), [plain_vertebra()], folder, lambda *_: None)
    return folder


@pytest.fixture
def own(box_spine: tuple[Volume, Volume], box_files: tuple[Path, Path], tmp_path: Path) -> Path:
    """A folder with the drawn spine as DICOM, its bodies, and tables that name them."""
    write_series(tmp_path / "ct", box_spine[0])
    shutil.copy(box_files[1], tmp_path / "bodies.nii.gz")
    (tmp_path / "m.csv").write_text(
        f"{HEAD}\nct,bodies.nii.gz,healthy,A,T11,totalsegmentator\n", "utf-8"
    )
    (tmp_path / "c.csv").write_text(
        "ct,segmentation,labels\nct,bodies.nii.gz,totalsegmentator\n", "utf-8"
    )
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_training_is_not_written_over_what_it_reads(
    slices: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also by another name of it, and where the weights would be those that it starts from."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(slices, "slices")
    model = tiny_model()
    save_model("run/weights", model.autoencoder, model.classifier, model.profile)
    Path("link").symlink_to("slices")
    Path("other").mkdir()
    before = contents(tmp_path)
    for words in (
        ("train", "slices", "--out", "slices", *FEW),
        ("train", "slices", "--out", "link", *FEW),
        ("train", "slices", "--out", "other/../slices", *FEW),
        ("train", "other", "--validation", "slices", "--out", "slices"),
        ("train", "slices", "--start", "run/weights", "--out", "run"),
        ("tune", "run/weights", "slices", "--out", "run/weights"),
        ("calibrate", "run/weights", "x.json", "--out", "run/weights"),
        ("benchmark", "train", "unet", "slices", "--out", "slices", "--steps", "2"),
    ):
        assert main([*words]) == 2
        said = capsys.readouterr().err
        assert "is read from, " in said and said.count("\n") == 1, words
    assert contents(tmp_path) == before


def test_results_do_not_lie_in_the_folder_of_an_image(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All files of such a folder are read: each result would change what it was made from."""
    before = contents(own)
    for out in (own / "ct", own / "ct" / "deep" / "er"):
        for words in (("prepare", own / "m.csv"), ("cohort", own / "c.csv")):
            assert main([*map(str, words), "--out", str(out)]) == 2
            assert "choose another folder for the output" in capsys.readouterr().err
    assert contents(own) == before


def test_a_result_does_not_replace_what_it_is_made_from(
    box_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inputs that bear names of a result's files, whatever may be overwritten."""
    ct, bodies = tmp_path / "ct.nii.gz", tmp_path / "blastic.nii.gz"
    shutil.copy(box_files[0], ct)
    shutil.copy(box_files[1], bodies)
    before = contents(tmp_path)
    words = ["segment", str(ct), str(bodies), "--labels", "totalsegmentator", "--no-picture"]
    assert main([*words, "--out", str(tmp_path), "--overwrite"]) == 2
    assert "would be replaced by the result" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("words", [("train",), ("simulate",), ("benchmark", "train", "unet")])
def test_a_second_run_in_a_folder_is_refused(
    slices: Path, own: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    out = own / "out"
    busy = out / "unet" if words[-1] == "unet" else out
    busy.mkdir(parents=True)
    if words == ("simulate",):
        (own / "ct.nii.gz").unlink(missing_ok=True)
        table = "ct,segmentation,labels,patient,split\nct,bodies.nii.gz,totalsegmentator,A,training"
        (own / "s.csv").write_text(table, "utf-8")
        rest = [str(own / "s.csv"), "--data", str(own), "--vertebrae", "2"]
    else:
        rest = [str(slices), *(FEW if words == ("train",) else ("--steps", "2"))]
    with locked(busy):
        assert main([*words, *rest, "--out", str(out)]) == 2
        assert "is in use by another run" in capsys.readouterr().err
        assert [file.name for file in busy.iterdir()] == [".hideseekseg.lock"]
    assert main([*words, *rest, "--out", str(out)]) == 0


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_simulation_without_shared_memory_says_how_it_goes_without(own: Path) -> None:
    """As in a container that was given none."""
    head = "ct,segmentation,labels,patient,split"
    (own / "s.csv").write_text(f"{head}\nct,bodies.nii.gz,totalsegmentator,A,training\n", "utf-8")
    words = f"-m hideseekseg simulate {own}/s.csv --data {own} --vertebrae 2 --out {own}/out"
    alone = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/full"

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
            env={**os.environ, "PYTHONPATH": str(LIBRARY)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    if run(alone).returncode:
        pytest.skip("this user may not hide shared memory")
    failed = run(f"{alone} && {sys.executable} {words} --workers 2")
    assert failed.returncode == 2 and "--workers 1 does without" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert run(f"{alone} && {sys.executable} {words}").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_checkpoint_that_finds_no_room_is_one_line_and_the_last_one_stays(
    slices: Path, tmp_path: Path
) -> None:
    def limited(most: int) -> subprocess.CompletedProcess[str]:
        words = ["train", str(slices), "--out", str(tmp_path / "out"), *FEW]
        return subprocess.run(
            [sys.executable, "-c", _LIMITED, str(most), *words],
            env={**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
        )

    failed = limited(MOST_BYTES)
    (line,) = failed.stderr.splitlines()
    assert failed.returncode == 2 and "encoder-checkpoint.pt: cannot be written" in line
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["settings.json"]
    failed = limited(ENCODER_BYTES)
    (line,) = failed.stderr.splitlines()
    assert failed.returncode == 2 and "decoder-checkpoint.pt: cannot be written" in line
    state = torch.load(tmp_path / "out" / "encoder-checkpoint.pt", weights_only=True)
    assert state["step"] == 2
    assert main(["train", str(slices), "--out", str(tmp_path / "out"), *FEW]) == 0
    assert load_model(tmp_path / "out" / "weights", "cpu").profile.provenance["slices"]


def test_weights_that_cannot_be_written_are_known_before_the_training(
    slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights").touch()
    assert main(["train", str(slices), "--out", str(tmp_path), *FEW]) == 2
    read = capsys.readouterr()
    assert "weights: cannot be made: " in read.err and "step" not in read.out
    model = tiny_model()
    with pytest.raises(Exception, match="cannot be made"):
        save_model(tmp_path / "weights", model.autoencoder, model.classifier, model.profile)


def test_of_an_image_that_is_left_out_nothing_is_learned_from(own: Path) -> None:
    """Its process was killed, say, over files that have changed since it was cut out."""
    assert main(["prepare", str(own / "m.csv"), "--out", str(own / "out")]) == 0
    (shard,) = (own / "out").glob("*.npz")
    (rows,) = read_manifest(own / "m.csv").by_image()
    task = ShardTask(shard, tuple(rows), ShardSettings(COMPACT_GEOMETRY))
    record = task.lost(CaseStatus.KILLED, "its process was ended", 1.0)
    (obstacle,) = (outcome.obstacle for outcome in record.outcomes)
    assert obstacle.startswith("image: its process was ended; its shard of an earlier run is kept")
    assert not shard.exists()
    assert main(["prepare", str(own / "m.csv"), "--out", str(own / "out")]) == 0
    assert shard.exists()


def table(folder: Path, name: str, *rows: str) -> str:
    """A manifest of rows "label patient level", each patient with an image of its own."""
    lines = [HEAD]
    for label, patient, level in map(str.split, rows):
        ct = folder / f"{patient}.nii.gz"
        if not ct.exists():
            image = sitk.ReadImage(str(folder / "box" / "ct.nii.gz"))
            sitk.WriteImage(image + len(list(folder.glob("*.gz"))), str(ct))
        lines.append(f"{ct},{folder}/box/bodies.nii.gz,{label},{patient},{level},totalsegmentator")
    (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return str(folder / name)


def test_check_notes_what_makes_training_worth_little(
    box_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is wrong with a single patient, or with classes that no patient has both of."""
    shutil.copytree(box_files[0].parent, tmp_path / "box")
    alone = table(tmp_path, "alone.csv", "healthy A T12", "malignant A L1")
    apart = table(tmp_path, "apart.csv", "healthy B T12", "malignant C L1")
    mixed = table(tmp_path, "mixed.csv", "healthy D T12", "malignant D L1", "healthy E T12")
    assert main(["check", alone, apart, mixed]) == 0
    said = capsys.readouterr().out.splitlines()
    notes = [line.removeprefix(f"{tmp_path}/") for line in said if ": note: " in line]
    assert len(notes) == 2 and said[-1] == "nothing is wrong"
    assert notes[0].startswith("alone.csv: note: of one patient alone") and "other p" in notes[0]
    assert notes[1].startswith("apart.csv: note: no patient has both classes")


def test_a_validation_of_one_label_is_refused_before_the_training(
    box_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was measured on it, and nothing said so but a dash."""
    shutil.copytree(box_files[0].parent, tmp_path / "box")
    both = table(tmp_path, "both.csv", "healthy A T12", "malignant A L1")
    well = table(tmp_path, "well.csv", "healthy B T12", "healthy B L1")
    for path in (both, well):
        assert main(["prepare", path, "--out", path.removesuffix(".csv")]) == 0
    capsys.readouterr()
    words = ["train", str(tmp_path / "both"), "--validation", str(tmp_path / "well")]
    assert main([*words, "--out", str(tmp_path / "out"), *FEW]) == 2
    assert "well: shows vertebrae of one label only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
