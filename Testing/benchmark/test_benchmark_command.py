"""The full benchmark as a process: drawn vertebrae, boxes of bone, and weights of no use."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.benchmark import SMALL, save_useless
from helpers.models import with_provenance
from hideseekseg.benchmark.cases import (
    boxed_subjects,
    boxes_by_patient,
    draw_subjects,
    healthy_subjects,
    load_simulated,
    read_boxes,
    split_drawn,
)
from hideseekseg.benchmark.methods.baselines import NAME as ANOMALY_NAME
from hideseekseg.benchmark.methods.baselines import anomaly_architecture
from hideseekseg.benchmark.methods.trained import (
    ANOMALY,
    AUDITOR,
    UNET,
    UNet,
    save_network,
    seen_by_networks,
    trained_methods,
)
from hideseekseg.benchmark.methods.trained import NAME as UNET_NAME
from hideseekseg.cli.main import main
from hideseekseg.confidence import marrow, reference_of, relative_reference
from hideseekseg.errors import InputError
from hideseekseg.model.autoencoder import DiffusionAutoencoder
from hideseekseg.model.weights import load_model, save_model
from hideseekseg.simulation.source_vertebrae import read_sources
from hideseekseg.training.dataset import patients_of

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
BOX = "T12"  # of the box-shaped vertebrae: a dark block lies in it


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn-cases")
    draw_subjects(folder, 4, 2, SMALL, lambda done, total: None)
    return folder


@pytest.fixture(scope="module")
def weights(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("useless")
    save_useless(folder, cases)
    return folder


@pytest.fixture(scope="module")
def beside(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights under another name."""
    folder = tmp_path_factory.mktemp("beside")
    model = load_model(weights, "cpu")
    save_model(folder, model.autoencoder, model.classifier, replace(model.profile, name="idle"))
    return folder


@pytest.fixture(scope="module")
def baselines(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a step or not at all: they need only be there."""
    out = tmp_path_factory.mktemp("baselines")
    for network in ("unet", "auditor"):
        assert (
            main(["benchmark", "train", network, str(cases), "--out", str(out), "--steps", "1"])
            == 0
        )
    save_network(out / ANOMALY, DiffusionAutoencoder(anomaly_architecture(SMALL)), {})
    return out


def test_baseline_is_trained_on_what_was_asked_for_or_not_at_all(
    cases: Path, baselines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "train", "unet", str(cases), "--out", str(baselines), "--steps", "1"]
    assert main([*words, "--without", "nobody"]) == 2
    assert "has no patient nobody to leave out" in capsys.readouterr().err
    patient = sorted(patients_of(cases))[0]
    assert main([*words, "--without", patient]) == 2
    said = capsys.readouterr().err
    assert "begun with other settings: slices of other content, without" in said
    assert patient in said and said.count("\n") == 1
    assert main([*words, "--batch", "2"]) == 2
    assert "batch 32 (now 2)" in capsys.readouterr().err
    assert main(words) == 0


@pytest.fixture(scope="module")
def real(box_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sources file with the same boxes of bone twice, and a lesion's box in one of the two."""
    folder = tmp_path_factory.mktemp("real")
    ct, bodies = box_files
    rows = [
        (ct.name, bodies.name, "totalsegmentator", "well", "look"),
        (ct.name, bodies.name, "totalsegmentator", "ill", "look"),
        (ct.name, bodies.name, "totalsegmentator", "known", "training"),
    ]
    with (folder / "sources.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("ct", "segmentation", "labels", "patient", "split"), *rows])
    with (folder / "boxes.csv").open("w", newline="", encoding="utf-8") as file:
        head = ("patient", "x", "y", "z", "width", "depth", "height")
        csv.writer(file).writerows([head, ("ill", 38.0, 42.0, 61.0, 14.0, 14.0, 12.0)])
    return folder


@pytest.mark.slow
def test_tables_plots_and_pictures_of_every_set(
    cases: Path,
    weights: Path,
    beside: Path,
    baselines: Path,
    real: Path,
    box_files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    words = ["accuracy", cases, "--weights", weights, "--out", tmp_path, "--validation", cases]
    words += [
        "--baselines",
        baselines,
        "--sources",
        real / "sources.csv",
        "--data",
        box_files[0].parent,
    ]
    words += ["--boxes", real / "boxes.csv", "--drawn", "2", "--ablated", "1"]
    words += ["--compare-weights", beside]
    done = subprocess.run(
        [sys.executable, "-m", "hideseekseg", "benchmark", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    tables = [Path(line).name for line in done.stdout.splitlines() if line.endswith(".md")]
    assert tables == ["drawn.md", "healthy.md", "boxes.md"], "sets are never pooled"
    drawn = json.loads((tmp_path / "drawn.json").read_text("utf-8"))
    assert (drawn["vertebrae"], drawn["diseased"]) == (6, 3)
    assert len(drawn["methods"]) >= 6 and len(drawn["ablations"]) > 15
    own, other = drawn["methods"][:2]
    assert own["name"] == "Hide-and-Seek Attribution (useless)"
    assert other["name"] == "Hide-and-Seek Attribution (idle)"
    assert own["metrics"] == other["metrics"], "the same numbers under another name"
    assert not any(
        "Hide-and-Seek" in gap["baseline"] for gap in drawn["over the best baseline"].values()
    ), "no method is its own baseline"
    assert list(drawn["realism"]) == ["useless", "idle"]
    assert 0 <= drawn["realism"]["useless"]["P of twin, auditor"]["value"] <= 1
    healthy = json.loads((tmp_path / "healthy.json").read_text("utf-8"))
    assert (healthy["vertebrae"], healthy["diseased"], healthy["patients"]) == (3, 0, ["well"])
    hits = json.loads((tmp_path / "boxes.json").read_text("utf-8"))["vertebrae"]
    assert {hit["vertebra"] for hit in hits} == {f"ill {BOX}"}
    assert (tmp_path / "boxes.md").read_text("utf-8").count(f"ill {BOX}") == len(hits)
    for picture in ("froc-drawn", "f1-drawn", "calibration-drawn", "boxes"):
        assert (tmp_path / f"{picture}.png").read_bytes()[:4] == b"\x89PNG"


def test_subjects_of_real_cts(real: Path, box_files: tuple[Path, Path]) -> None:
    sources = read_sources(real / "sources.csv", box_files[0].parent)
    healthy = healthy_subjects(sources[:1], SMALL)
    assert {s.vertebra for s in healthy} == {"well T11", "well T12", "well L1"}
    assert not any(s.case.diseased or s.case.truth["lytic"].any() for s in healthy)
    (box,) = read_boxes(real / "boxes.csv")
    every = boxed_subjects(sources[1], [box], SMALL)
    assert len(every) > 1, "the others of the patient are there to be compared with"
    (boxed,) = [s for s in every if s.case.diseased]
    truth = boxed.case.truth["lytic"]
    assert truth.any() and not (truth & ~boxed.case.body).any()
    assert np.median(boxed.hu[truth]) < 100 < np.median(boxed.hu[boxed.case.body & ~truth])


@pytest.mark.parametrize("central", [2, 3])
def test_real_vertebrae_are_observed_on_the_slices_that_segment_analyses(
    central: int, real: Path, box_files: tuple[Path, Path]
) -> None:
    source = read_sources(real / "sources.csv", box_files[0].parent)[0]
    profile = replace(SMALL, geometry=replace(SMALL.geometry, central_slices=central))
    (box,) = read_boxes(real / "boxes.csv")
    every, some = (boxed_subjects(source, [box], p) for p in (SMALL, profile))
    for whole, subject in zip(every, some, strict=True):
        np.testing.assert_array_equal(subject.hu, whole.hu)
        np.testing.assert_array_equal(subject.case.truth["lytic"], whole.case.truth["lytic"])
        assert len(whole.hu) == 5
        assert subject.case.analysed.tolist() == {2: [1, 2], 3: [1, 2, 3]}[central]
    own = [marrow(s.shown().hu, s.shown().case.body) for s in some]
    for number, subject in enumerate(some):
        others = [one for n, one in enumerate(own) if n != number]
        reference = torch.tensor([reference_of(others)], dtype=torch.float32)
        assert subject.case.reference is not None
        torch.testing.assert_close(
            subject.case.reference[:1], relative_reference(reference, profile.intensity)
        )


def test_drawn_and_real_are_told_apart(cases: Path) -> None:
    subjects = load_simulated(cases, SMALL)
    real, drawn = split_drawn(subjects)
    assert real == [] and len(drawn) == len(subjects) == 4
    patient = replace(subjects[0], case=replace(subjects[0].case, patient="drawn"))
    assert split_drawn([patient]) == ([patient], [])


@pytest.mark.parametrize(
    "words",
    [
        ["--validation", "v"],
        ["--validation", "v", "--out", "o", "--sources", "s.csv"],
        ["--validation", "v", "--out", "o", "--data", "d"],
    ],
)
def test_options_that_need_each_other(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", "accuracy", "cases", *words])
    assert stopped.value.code == 2


def test_boxes_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    with pytest.raises(InputError, match="cannot be read"):
        read_boxes(path)
    for text in ("patient,x\nA,1\n", "patient,x,y,z,width,depth,height\nA,1,2,three,4,5,6\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="needs the columns"):
            read_boxes(path)


def refusal(capsys: pytest.CaptureFixture[str], words: Sequence[str | Path]) -> str:
    """Return the one line that a command refuses with."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    line, end = capsys.readouterr().err.split("\n")
    assert end == ""
    return line


def test_every_box_of_a_patient_is_truth(real: Path, box_files: tuple[Path, Path]) -> None:
    sources = read_sources(real / "sources.csv", box_files[0].parent)
    (box,) = read_boxes(real / "boxes.csv")
    x, y, z = box.centre
    other = replace(box, patient="ILL ", centre=(x, y, z - 30.0))
    boxes = boxes_by_patient(real / "boxes.csv", [box, other], sources)
    assert boxes == {"ill": [box, other]}, "each, and in whatever spelling"
    alone, beside, both = (
        {s.vertebra: s.case.truth["blastic"] for s in boxed_subjects(sources[1], some, SMALL)}
        for some in ([box], [other], [box, other])
    )
    for vertebra, truth in both.items():
        assert np.array_equal(truth, alone[vertebra] | beside[vertebra])
    ill = [{name for name, truth in one.items() if truth.any()} for one in (alone, beside, both)]
    assert ill[0] and ill[1] and ill[0] != ill[1] and ill[2] == ill[0] | ill[1]


def test_box_of_nobody_in_the_sources_is_refused(
    cases: Path,
    weights: Path,
    real: Path,
    box_files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It would be used for nothing, and its patient be taken for healthy."""
    boxes = tmp_path / "boxes.csv"
    head = (real / "boxes.csv").read_text("utf-8")
    boxes.write_text(f"{head}Il1,1,2,3,4,5,6\n ,1,2,3,4,5,6\n", encoding="utf-8")
    words: list[str | Path] = ["benchmark", "accuracy", cases, "--weights", weights]
    words += ["--validation", cases]
    words += ["--sources", real / "sources.csv", "--data", box_files[0].parent]
    words += ["--boxes", boxes, "--out", tmp_path / "out"]
    assert refusal(capsys, words).endswith("boxes.csv: has boxes of Il1,  , not in the sources")


def of_patient(cases: Path, folder: Path, name: str) -> Path:
    """The drawn vertebrae as if they were all of one patient."""
    folder.mkdir()
    (path,) = cases.glob("*.npz")
    with np.load(path, allow_pickle=False) as shard:
        patient = np.full(len(shard["patient"]), name)
        np.savez(folder / path.name, **{**shard, "patient": patient})
    return folder


def test_whom_any_of_the_networks_learned_from_is_not_measured(
    cases: Path,
    weights: Path,
    beside: Path,
    baselines: Path,
    real: Path,
    box_files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor chosen on, before anything is computed."""
    ada = of_patient(cases, tmp_path / "ada", "Ada")
    start = with_provenance(
        tmp_path / "start", weights, patients=["Zoe"], start={"patients": ["ADA"]}
    )
    trained = tmp_path / "trained"
    trained.mkdir()
    unet = UNet()
    save_network(trained / UNET, unet, {"patients": ["ada"]})
    audited = tmp_path / "audited"
    save_network_of(audited, baselines)
    with_provenance(audited / AUDITOR, baselines / AUDITOR, patients=["Ada "])

    def words(set_: Path, own: Path, validation: Path, *more: str | Path) -> list[str | Path]:
        out = ("--out", tmp_path / "out", "--validation", validation)
        return ["benchmark", "accuracy", set_, "--weights", own, *out, *more]

    for known, given in (
        (start, words(ada, start, cases)),
        (start, words(ada, weights, cases, "--compare-weights", start)),
        (trained / UNET, words(ada, weights, cases, "--baselines", trained)),
        (audited / AUDITOR, words(ada, weights, cases, "--baselines", audited)),
        (start, words(cases, start, ada)),
        (trained / UNET, words(cases, weights, ada, "--baselines", trained)),
    ):
        said = f"{ada}: shows patients whom {known} learned from: Ada"
        assert refusal(capsys, given).endswith(said)
    scans = ("--sources", real / "sources.csv", "--data", box_files[0].parent)
    for name, more in (("Well", ()), ("ill", ("--boxes", real / "boxes.csv"))):
        known = with_provenance(tmp_path / name, weights, patients=[name])
        line = refusal(capsys, words(cases, known, cases, *scans, *more))
        assert line.endswith(
            f"sources.csv: shows patients whom {known} learned from: {name.lower()}"
        )


def save_network_of(folder: Path, baselines: Path) -> None:
    """The U-Net alone in another folder."""
    folder.mkdir()
    (folder / UNET).write_bytes((baselines / UNET).read_bytes())


def test_auditor_and_u_net_say_whom_they_learned_from(cases: Path, baselines: Path) -> None:
    seen = seen_by_networks(baselines)
    everybody = tuple(sorted(patients_of(cases)))
    for path in (baselines / UNET, baselines / AUDITOR):
        assert (seen[path].learned_from, seen[path].learned_unknown) == (everybody, "")
    assert "does not state which patients" in seen[baselines / ANOMALY].learned_unknown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provenance", "title", "also_used", "unknown"),
    [
        ({"patients": ["Zoe"]}, "of held-out patients", "none", ""),
        (
            {"patients": ["Zoe"], "chosen on": ["ADA"]},
            "of patients who were not in training",
            "Ada",
            "",
        ),
        ({"own patients": 2}, "in real vertebrae\n", "none", "they learned from 2 patients"),
    ],
)
def test_title_claims_what_is_known(
    cases: Path,
    weights: Path,
    tmp_path: Path,
    provenance: dict[str, object],
    title: str,
    also_used: str,
    unknown: str,
) -> None:
    ada = of_patient(cases, tmp_path / "ada", "Ada")
    known = with_provenance(tmp_path / "known", weights, **provenance)
    words = ["benchmark", "accuracy", ada, "--weights", known, "--validation", cases]
    words += ["--out", tmp_path / "out", "--ablated", "0"]
    assert main([str(word) for word in words]) == 0
    text = (tmp_path / "out" / "simulated.md").read_text("utf-8")
    assert str(tmp_path) not in text
    assert title in text and f"patients of this set among them: {also_used}." in text
    assert (
        f"Not known to be held out: {known.name}: {unknown}" in text
        if unknown
        else ("Not known" not in text)
    )


def test_weights_that_see_other_crops_stand_in_no_common_table(
    cases: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = load_model(weights, "cpu")
    other = replace(model.profile, geometry=replace(SMALL.geometry, body_pixels=9.0))
    save_model(tmp_path / "other", model.autoencoder, model.classifier, other)
    words = ["benchmark", "accuracy", cases, "--weights", weights, "--out", tmp_path / "out"]
    words += ["--validation", cases, "--compare-weights", tmp_path / "other"]
    assert main([str(word) for word in words]) == 2
    assert "other crops" in capsys.readouterr().err


def test_baselines_that_were_not_trained_are_named(
    cases: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "accuracy", str(cases), "--weights", str(weights)]
    words += ["--out", str(tmp_path), "--validation", str(cases), "--baselines", str(tmp_path)]
    assert main(words) == 2
    assert "benchmark train" in capsys.readouterr().err


def test_a_baseline_that_is_missing_is_said_and_the_others_run(
    baselines: Path, tmp_path: Path
) -> None:
    (tmp_path / UNET).write_bytes((baselines / UNET).read_bytes())
    methods, not_run = trained_methods(tmp_path, SMALL)
    assert [method.name for method in methods] == [UNET_NAME]
    assert list(not_run) == [ANOMALY_NAME] and "benchmark train" in not_run[ANOMALY_NAME]
    methods, not_run = trained_methods(baselines, SMALL)
    assert len(methods) == 2 and not not_run
