"""simulate, train and benchmark as users run them: real processes, real files, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from helpers.models import tiny_model, with_provenance
from helpers.vertebrae import plain_vertebra, scanned
from hideseekseg.cli.main import main
from hideseekseg.imaging.volume import Volume, to_sitk
from hideseekseg.model.autoencoder import DiffusionAutoencoder
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import BUNDLE, Confidence
from hideseekseg.model.weights import load_model, save_model
from hideseekseg.simulation.simulate import Recipe, simulate
from hideseekseg.simulation.source_vertebrae import person, read_sources, unpack
from hideseekseg.training.dataset import load_slices
from hideseekseg.training.train import COMPACT

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
STEPS = (
    *("--encoder-steps", "8", "--decoder-steps", "2", "--supervision", "twins"),
    *("--encoder-batch", "6", "--decoder-batch", "6"),
)
Words = tuple[str | Path, ...]


def start(words: Words) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hideseekseg", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
    )


def finish(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = running.communicate(timeout=300)
    return running.returncode, out, err


def run(words: Words) -> int:
    """In this process, which has torch already."""
    return main([str(word) for word in words])


def training(folder: Path, out: Path) -> Words:
    validation = ("--validation", folder / "whole")
    return ("train", folder / "slices", *validation, "--out", out, *STEPS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn T10 with its sources file; from it slices to train on and whole vertebrae."""
    folder = tmp_path_factory.mktemp("learning")
    ct, body = scanned()
    sitk.WriteImage(to_sitk(ct), str(folder / "ct.nii.gz"))
    labels = Volume(body.astype("uint8"), ct.grid)
    sitk.WriteImage(to_sitk(labels), str(folder / "bodies.nii.gz"))
    (folder / "levels.json").write_text('{"1": "T10"}', encoding="utf-8")
    rows = "ct.nii.gz,bodies.nii.gz,levels.json,case 1,training\n"
    others = rows.replace("training", "validation").replace("case 1", "case 2")
    text = "ct,segmentation,labels,patient,split\n" + rows + others
    (folder / "sources.csv").write_text(text, encoding="utf-8")
    drawing = ("simulate", folder / "sources.csv", "--data", folder, "--vertebrae", "4")
    status, out, err = finish(
        start((*drawing, "--vertebrae", "16", "--out", folder / "slices", "--drawn", "1"))
    )
    assert status == 0, err
    shard = folder / "slices" / "shard-00001"
    assert out.splitlines()[-2:] == [f"{shard}.npz", f"{shard}.png"]
    whole = ("--split", "validation", "--whole", "--seed", "3", "--out", folder / "whole")
    assert run((*drawing, *whole)) == 0
    return folder


def test_vertebrae_of_one_split_are_packed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = folder / "bodies.npz"
    words = ("pack", folder / "sources.csv", "--data", folder, "--out", packed, "--split")
    assert run((*words, "test")) == 2
    assert "has no row with the split test" in capsys.readouterr().err and not packed.exists()
    assert run((*words, "validation")) == 0
    assert {vertebra.patient for vertebra in unpack(packed)} == {"case 2"}


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    """A finished training."""
    out = folder / "undisturbed"
    assert run(training(folder, out)) == 0
    return out


@pytest.mark.slow
def test_training_leaves_weights_that_say_where_they_come_from(undisturbed: Path) -> None:
    model = load_model(undisturbed / "weights", "cpu")
    said = model.profile.provenance
    assert said["training"]["supervision"] == "twins"
    assert said["training"]["encoder_steps"] == 8
    assert said["patients"] == ["case 1", "drawn 0"]
    assert said["validation"]["vertebrae"] == 4
    assert min(sitk.ReadImage(str(undisturbed / "losses.png")).GetSize()) > 100


@pytest.mark.slow
def test_ctrl_c_and_resuming_give_the_undisturbed_weights(folder: Path, undisturbed: Path) -> None:
    out = folder / "stopped"
    running = start(training(folder, out))
    while not (out / "settings.json").exists():  # the last thing before the first step
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    status, _, err = finish(running)
    assert status == 130, err
    assert "Traceback" not in err
    state = torch.load(out / "encoder-checkpoint.pt", weights_only=True)
    assert 1 <= state["step"] < 8
    assert not (out / "weights").exists()
    assert run(training(folder, out)) == 0
    first, second = (load_model(f / "weights", "cpu") for f in (undisturbed, out))
    expected = first.autoencoder.state_dict()
    for name, values in second.autoencoder.state_dict().items():
        assert torch.equal(values, expected[name]), name
    assert torch.equal(first.classifier.coef, second.classifier.coef)
    assert first.profile.decision == second.profile.decision


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (("--seed", "5"), "seed 1 (now 5)"),
        (("--central-slices", "3"), "slices of other content, central_slices null (now 3)"),
        (("--no-context",), "context true (now false)"),
    ],
    ids=["seed", "central slices", "context"],
)
def test_begun_training_is_not_resumed_with_other_settings(
    folder: Path,
    undisturbed: Path,
    capsys: pytest.CaptureFixture[str],
    words: Words,
    differs: str,
) -> None:
    # The middle of a body is known where all of its slices are.
    slices = folder / ("whole" if "--central-slices" in words else "slices")
    alone = ("train", slices, "--out", undisturbed, *STEPS)
    assert run((*alone, *words)) == 2
    line = f"{undisturbed}: contains a training that was begun with other settings: {differs}"
    assert capsys.readouterr().err == f"hideseekseg: {line}\n"


def test_central_slices_are_those_of_the_body_or_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--out", tmp_path / "out", *STEPS, "--encoder-steps", "1", "--central-slices", "3")
    assert run(("train", folder / "slices", *words)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"hideseekseg: {folder / 'slices'}: contains some slices of each")
    assert not (tmp_path / "out").exists()
    validation = ("--validation", folder / "slices")
    assert run(("train", folder / "whole", *words, *validation)) == 2
    assert f"{folder / 'slices'}: contains some slices" in capsys.readouterr().err
    assert run(("train", folder / "whole", *words)) == 0
    profile = load_model(tmp_path / "out" / "weights", "cpu").profile
    assert profile.provenance["slices"] == 3 * 4, "of four vertebrae"


def test_limits_of_weights_are_those_of_the_simulated_vertebrae(
    folder: Path, undisturbed: Path, tmp_path: Path
) -> None:
    limits = load_model(undisturbed / "weights", "cpu").profile.limits
    with np.load(folder / "slices" / "shard-00001.npz") as file:
        columns = dict(file)
    assert limits is not None and limits.layers == columns["layers"].min() > 1
    assert limits.slice_mm == pytest.approx(columns["slice_mm"].max())
    assert columns["slice_mm"].min() >= 0.8 and columns["slice_mm"].max() >= 1.5, "of the scans"
    _, first = np.unique(columns["vertebra"], return_index=True)
    assert limits.noise_hu == np.ceil(columns["noise_hu"][first].max())
    old = tmp_path / "old"
    old.mkdir()
    told = {name: column for name, column in columns.items() if name != "slice_mm"}
    np.savez(old / "shard-00001.npz", **told)
    words = ("--out", tmp_path / "out", *STEPS, "--encoder-steps", "1")
    assert run(("train", old, *words, "--start", undisturbed / "weights")) == 0
    known = load_model(tmp_path / "out" / "weights", "cpu").profile.limits
    assert known == replace(limits, slice_mm=None), "of one of the two sets nobody knows it"


def test_begun_training_is_not_resumed_with_other_patients(
    folder: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One more shard, or a patient who is another: the weights would not say what they learned."""
    shard = folder / "slices" / "shard-00001.npz"
    with np.load(shard) as file:
        columns = dict(file)
    moved = tmp_path / "moved"
    moved.mkdir()
    patient = np.where(columns["patient"] == "drawn 0", "case 2", columns["patient"])
    np.savez(moved / shard.name, **{**columns, "patient": patient})
    added = tmp_path / "added"
    added.mkdir()
    for name in ("shard-00001.npz", "shard-00002.npz"):
        np.savez(added / name, **columns)
    for other in (moved, added):
        assert run(("train", other, "--out", undisturbed, *STEPS)) == 2
        assert capsys.readouterr().err.endswith("other settings: slices of other content\n")


def test_training_goes_on_from_weights_with_their_thresholds(
    folder: Path, undisturbed: Path
) -> None:
    out, start = folder / "gone on", undisturbed / "weights"
    words = ("train", folder / "slices", "--out", out, "--start", start, *STEPS)
    assert run((*words, "--encoder-rate", "1e-5", "--decoder-rate", "1e-5")) == 0
    before, after = load_model(start, "cpu"), load_model(out / "weights", "cpu")
    assert after.profile.decision == before.profile.decision
    said = after.profile.provenance
    assert said["training"]["start"] == before.hash
    assert said["start"]["training"] == before.profile.provenance["training"]
    assert "went on from" in said["thresholds"]


@pytest.mark.parametrize("differs", ["confidence", "schedule"])
def test_thresholds_of_a_start_that_mean_something_else_are_not_kept(
    folder: Path, undisturbed: Path, tmp_path: Path, differs: str
) -> None:
    """One of a calibrated probability, or of another edit, says nothing of what is trained."""
    model = load_model(undisturbed / "weights", "cpu")
    profile = model.profile
    changed = replace(
        profile,
        decision=replace(profile.decision, threshold=0.35, gate_p=0.125, lytic_floor=0.07),
        confidence=Confidence(vertebra=(0.0, 1.0, 0.0))
        if differs == "confidence"
        else Confidence(),
        schedule=replace(profile.schedule, draws=4 if differs == "schedule" else 2),
    )
    save_model(tmp_path / "start", model.autoencoder, model.classifier, changed)
    steps = ("--supervision", "twins", "--encoder-steps", "0", "--decoder-steps", "1")
    words = ("train", folder / "slices", "--out", tmp_path / "on", "--decoder-batch", "2", *steps)
    assert run((*words, "--start", tmp_path / "start")) == 0
    after = load_model(tmp_path / "on" / "weights", "cpu").profile
    assert after.decision == COMPACT.decision and after.schedule == COMPACT.schedule
    assert after.provenance["thresholds"] == "not tuned"
    assert after.provenance["start"]["training"] == profile.provenance["training"]


def test_patients_kept_for_a_test_are_not_learnt_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", folder / "slices", *STEPS, "--out")
    assert run((*words, folder / "kept", "--without", "drawn 0")) == 0
    model = load_model(folder / "kept" / "weights", "cpu")
    assert model.profile.provenance["patients"] == ["case 1"]
    capsys.readouterr()
    assert run((*words, folder / "kept")) == 2, "another training"
    assert "begun with other settings" in capsys.readouterr().err
    assert run((*words, folder / "whom", "--without", "drawn 0,nobody")) == 2
    assert "has no patient nobody to leave out" in capsys.readouterr().err
    assert run((*words, folder / "none", "--without", "case 1, drawn 0")) == 2
    assert "no patient but those to leave out" in capsys.readouterr().err


def test_tuned_weights_are_the_same_networks_with_thresholds_of_their_own(
    folder: Path, undisturbed: Path
) -> None:
    weights, out = undisturbed / "weights", folder / "tuned"
    assert run(("tune", weights, folder / "whole", "--out", out, "--draws", "1")) == 0
    before, after = load_model(weights, "cpu"), load_model(out, "cpu")
    for name, values in after.autoencoder.state_dict().items():
        assert torch.equal(values, before.autoencoder.state_dict()[name]), name
    assert (before.profile.schedule.draws, after.profile.schedule.draws) == (2, 1)
    assert after.profile.provenance["training"] == before.profile.provenance["training"]
    assert after.profile.provenance["thresholds"] == "tuned on the validation set"


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Return the one line that a command refuses with."""
    capsys.readouterr()
    assert run(words) == 2
    line, end = capsys.readouterr().err.split("\n")
    assert end == ""
    return line


def test_nobody_whom_weights_learned_from_is_measured_or_tuned_on(
    folder: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither of their own training nor of those behind their start, in any spelling."""
    weights, whole, out = undisturbed / "weights", folder / "whole", tmp_path / "out"
    behind: dict[str, object] = {"patients": ["case 9"], "start": {"patients": [" CASE  2"]}}
    first: dict[str, object] = {"patients": ["Case 2"]}
    for number, facts in enumerate((first, behind)):
        known = with_provenance(tmp_path / str(number), weights, **facts)
        said = f"{whole}: shows patients whom {known} learned from: case 2"
        on = ("train", folder / "slices", "--start", known, "--out", out, *STEPS)
        for words in (
            ("tune", known, whole, "--out", out),
            ("benchmark", "accuracy", whole, "--weights", known, "--out", out),
            (*on, "--validation", whole),
            (*on, "--validation", whole, "--untuned"),
        ):
            assert refusal(capsys, *words).endswith(said)
        assert not out.exists()


@pytest.mark.slow
def test_nobody_is_left_out_whom_the_start_learned_from(
    folder: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = undisturbed / "weights", tmp_path / "out"
    words = ("train", folder / "slices", "--out", out, "--start", start, *STEPS)
    said = f"{start}: learned from patients who are to be left out: case 1"
    assert refusal(capsys, *words, "--without", "Case 1").endswith(said)
    counted = with_provenance(tmp_path / "own", start, **{"own patients": 4})
    words = ("train", folder / "slices", "--out", out, "--start", counted, *STEPS)
    assert run((*words, "--without", "drawn 0", "--validation", folder / "whole")) == 0
    told = capsys.readouterr().out
    unnamed = f"{counted}: they learned from 4 patients, of whom only the number is stated: whether"
    assert f"{unnamed} drawn 0 are among them is not known" in told
    assert f"{unnamed} {folder / 'whole'} shows one cannot be checked" in told


@pytest.mark.slow
def test_thresholds_and_an_early_end_say_on_whom_they_were_chosen(
    folder: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, whole = undisturbed / "weights", folder / "whole"
    assert load_model(weights, "cpu").profile.provenance["chosen on"] == ["case 2"]
    words = ("train", folder / "slices", "--validation", whole, "--untuned", *STEPS)
    assert run((*words, "--out", tmp_path / "calm")) == 0
    assert run((*words, "--out", tmp_path / "patient", "--patience", "500")) == 0
    calm, patient = (
        load_model(tmp_path / name / "weights", "cpu").profile.provenance
        for name in ("calm", "patient")
    )
    assert "chosen on" not in calm and patient["chosen on"] == ["case 2"]
    known = with_provenance(tmp_path / "before", weights, **{**calm, "chosen on": ["Zoe"]})
    assert run(("tune", known, whole, "--out", tmp_path / "tuned")) == 0
    tuned = load_model(tmp_path / "tuned", "cpu").profile.provenance
    assert tuned["chosen on"] == ["Zoe", "case 2"]


@pytest.mark.slow
def test_accuracy_says_what_is_not_known_to_be_held_out(
    folder: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("benchmark", "accuracy", folder / "whole", "--weights")
    own = {"patients": ["case 1"]}
    for name, facts, said in (
        ("held out", own, ""),
        ("chosen", {**own, "chosen on": ["CASE 2"]}, "chosen on patients of this set: case 2."),
        ("counted", {"own patients": 1}, "were held out is not known: they learned from"),
        ("old", {**own, "thresholds": "tuned on the validation set"}, "thresholds were tuned."),
    ):
        known = with_provenance(tmp_path / name, undisturbed / "weights", **facts)
        capsys.readouterr()
        assert run((*words, known)) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert said in last if said else last.startswith("| ")


def test_names_that_choose_are_compared_as_persons(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", folder / "slices", *STEPS, "--out", tmp_path / "kept", "--without")
    assert run((*words, "DRAWN  0")) == 0
    model = load_model(tmp_path / "kept" / "weights", "cpu")
    assert model.profile.provenance["patients"] == ["case 1"]
    sources = ("simulate", folder / "sources.csv", "--data", folder, "--whole", "--vertebrae", "2")
    drawing = (*sources, "--out", tmp_path / "drawn")
    for split, unknown in (("training,validaton", "validaton"), ("x,training,y", "x, y")):
        line = refusal(capsys, *drawing, "--split", split)
        assert line.endswith(f"has no row with the split {unknown}")
        pack = ("pack", *sources[1:4], "--out", tmp_path / "p.npz", "--split", split)
        assert refusal(capsys, *pack).endswith(f"has no row with the split {unknown}")
    both = ("--split", "Training,validation", "--without")
    assert "has no patient case 3 to leave out" in refusal(capsys, *drawing, *both, "case 3,CASE 1")
    left = refusal(capsys, *drawing, *both, "case 2,CASE 1")
    assert left.endswith("has no patient in the split Training or validation but those left out")
    assert run((*drawing, *both, "CASE 1")) == 0
    recipe = json.loads(next((tmp_path / "drawn").glob("*.json")).read_text("utf-8"))
    assert recipe["sources"] == ["case 2"]


def test_a_name_with_a_comma_is_one_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option for names may be given again, and what is between commas may be several names."""
    table = (folder / "sources.csv").read_text("utf-8")
    table = table.replace("case 1", '"Doe, J"').replace("validation", '"b, c"')
    (tmp_path / "sources.csv").write_text(table, encoding="utf-8")
    (tmp_path / "levels.json").write_text('{"1": "T10"}', encoding="utf-8")
    words = ("simulate", tmp_path / "sources.csv", "--data", folder, "--vertebrae", "2", "--whole")
    drawing = (*words, "--out", tmp_path / "drawn")
    splits = ("--split", "b, c", "--split", "training")
    for left in (
        ("--without", "doe, j", "--without", "case 2"),
        ("--without", "case 2", "--without", "Doe, J"),
    ):
        said = refusal(capsys, *drawing, *splits, *left)
        assert said.endswith("has no patient in the split b, c or training but those left out")
    said = refusal(capsys, *drawing, "--without", "case 2,Doe, J")
    assert said.endswith("has no patient Doe, J to leave out")
    assert run((*drawing, *splits, "--without", "Doe, J")) == 0
    shard = next((tmp_path / "drawn").glob("*.npz"))
    assert set(np.load(shard)["patient"]) == {"case 2"}
    train = ("train", tmp_path / "drawn", *STEPS, "--out", tmp_path / "kept", "--without", "nobody")
    assert refusal(capsys, *train, "--without", "case 3, Case 2").endswith(
        "has no patient nobody, case 3 to leave out"
    )


@pytest.mark.parametrize("inside", ["ct", "ct/deeper", "seg", "link"])
def test_what_is_drawn_or_packed_lies_outside_of_the_scans(
    folder: Path, tmp_path: Path, inside: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ct", "seg"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("ct")
    row = "ct,seg,verse,case 1"
    table = f"ct,segmentation,labels,patient,split\n{row},validation\n{row},training\n"
    (tmp_path / "s.csv").write_text(table, encoding="utf-8")
    out = tmp_path / inside
    where = "is read from" if inside != "ct/deeper" else "lies in what is read"
    words = (tmp_path / "s.csv", "--data", tmp_path, "--split", "training", "--out")
    said = refusal(capsys, "simulate", *words, out)
    assert f"{out}: {where}" in said and "choose another folder" in said
    packed = out / "bodies.npz"
    assert f"{packed}: lies in what is read" in refusal(capsys, "pack", *words, packed)
    assert not any(x.exists() for x in (packed, tmp_path / "ct" / "deeper"))


def test_a_patient_of_two_spellings_is_one_wherever_vertebrae_are_read(
    folder: Path, undisturbed: Path, tmp_path: Path
) -> None:
    text = (folder / "sources.csv").read_text("utf-8").replace("case 2", "CASE 1")
    (tmp_path / "sources.csv").write_text(text, encoding="utf-8")
    (tmp_path / "levels.json").write_text('{"1": "T10"}', encoding="utf-8")
    known = read_sources(tmp_path / "sources.csv", folder)
    assert [source.patient for source in known] == ["case 1", "case 1"]
    with np.load(folder / "slices" / "shard-00001.npz") as shard:
        columns = dict(shard)
    first, *_ = columns["vertebra"][columns["patient"] == "case 1"]
    other = np.where(columns["vertebra"] == first, "Case 1", columns["patient"])
    np.savez(tmp_path / "shard-00001.npz", **{**columns, "patient": other})
    everybody = load_slices(tmp_path, COMPACT)
    assert len({person(name) for name in everybody.patient.tolist()}) == 2
    assert len(set(everybody.patient.tolist())) == 2
    assert set(load_slices(tmp_path, COMPACT, ["CASE 1"]).patient.tolist()) == {"drawn 0"}


def test_benchmark_writes_what_it_prints(
    folder: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "benchmark"
    words = ("benchmark", "accuracy", folder / "whole", "--weights", undisturbed / "weights")
    assert run((*words, "--out", out)) == 0
    assert (out / "accuracy.md").read_text("utf-8") == capsys.readouterr().out
    written = json.loads((out / "accuracy.json").read_text("utf-8"))
    assert written["figures"]["vertebrae"] == 4
    model = load_model(undisturbed / "weights", "cpu")
    assert written["weights"] == model.hash
    assert written["figures"] == model.profile.provenance["validation"]
    assert written["decision"]["threshold"] == model.profile.decision.threshold


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("simulate", "missing.csv", "--data", "."), "missing.csv: cannot be read"),
        (("train", "missing", "--validation", "whole"), "missing: no shard-*.npz here"),
        (("train", "slices", "--validation", "missing"), "missing: no shard-*.npz here"),
        (("train", "slices", "--validation", "healthy"), "healthy: shows no lytic lesion"),
        (
            ("train", "slices", "--validation", "slices", "--untuned"),
            "slices: shows patients who are trained on: case 1\n",
        ),
        (("train", "slices", "--start", "missing"), "cannot be read"),
        (("train", "slices", "--start", "tiny"), "tiny: has another architecture"),
        (
            ("train", "slices", "--start", "other", "--supervision", "twins"),
            "other: has another crop, another scale of intensities than what is to be trained",
        ),
        (("train", "slices", "--patience", "500"), "--patience: needs --validation"),
        (("tune", "tiny", "whole", "--draws", "2"), "tiny: edits by rendering"),
        (("benchmark", "accuracy", "whole", "--weights", "missing"), "cannot be read"),
        (("tune", str(BUNDLE), "whole"), "has calibrated probabilities: `calibrate` chooses"),
        (
            ("benchmark", "accuracy", "whole", "--weights", str(BUNDLE)),
            "has calibrated probabilities: measure them with --validation",
        ),
        (
            ("train", "slices", "--validation", "healthy", "--untuned", "--patience", "500"),
            "healthy: shows vertebrae of one label only",
        ),
    ],
    ids=[
        "simulate",
        "train",
        "validation",
        "healthy",
        "shared",
        "no start",
        "other start",
        "start of other pictures",
        "patience",
        "draws",
        "benchmark",
        "tune of calibrated weights",
        "accuracy of calibrated weights",
        "patience with one label",
    ],
)
def test_bad_input_is_one_line_before_anything_is_computed(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: Words,
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    if not Path("healthy").exists():
        Path("healthy").mkdir()
        recipe = Recipe(3, 1, slices=None)
        simulate(recipe, [plain_vertebra()], Path("healthy"), lambda *_: None)
    tiny = tiny_model()
    rendering = replace(tiny.profile.schedule, edit="render")
    profile = replace(tiny.profile, schedule=rendering)
    save_model("tiny", tiny.autoencoder, tiny.classifier, profile)
    if "other" in command:
        compact = DiffusionAutoencoder(COMPACT.architecture)
        latent = COMPACT.architecture.latent
        classifier = LinearClassifier(
            torch.ones(latent), 0.0, torch.zeros(latent), torch.ones(latent)
        )
        crop = replace(COMPACT.geometry, pixel_mm=(1.0, 1.0))
        scale = replace(COMPACT.intensity, width=100.0)
        save_model("other", compact, classifier, replace(COMPACT, geometry=crop, intensity=scale))
    assert run((*command, "--out", "nothing")) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("hideseekseg: ")
    assert words in said.err
    assert "step" not in said.out
    assert not Path("nothing").exists()
