"""Cross-validation: each patient is judged once, by weights not trained on that patient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.benchmark import SMALL, save_useless
from helpers.models import with_provenance
from hideseekseg.benchmark.cases import draw_subjects, load_simulated
from hideseekseg.benchmark.cross_validation import read_folds
from hideseekseg.benchmark.threshold_choice import tuning_cases
from hideseekseg.cli.main import main
from hideseekseg.errors import InputError
from hideseekseg.model.profile import Profile
from hideseekseg.model.weights import load_model
from hideseekseg.simulation.simulate import BLASTIC, BODY, LYTIC
from hideseekseg.training.evaluation import Match

PATIENTS = ("Ada", "Ben", "Cyn")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn vertebrae of each of three patients: one with a lesion of each type, one without.

    The lesions stand in the truth alone: what the networks make of them is not asked.
    """
    folder = tmp_path_factory.mktemp("fold-cases")
    draw_subjects(folder, 6, 1, SMALL, lambda done, total: None)
    (path,) = folder.glob("*.npz")
    with np.load(path, allow_pickle=False) as shard:
        columns = dict(shard)
    columns["patient"] = np.array(PATIENTS)[columns["vertebra"] % 3]
    columns["label"] = (columns["vertebra"] < 3).astype(np.uint8)
    columns["masks"] &= BODY
    ill = columns["masks"][columns["label"] == 1]
    ill[:, :, : ill.shape[2] // 2] |= LYTIC * ill[:, :, : ill.shape[2] // 2]
    ill[:, :, ill.shape[2] // 2 :] |= BLASTIC * ill[:, :, ill.shape[2] // 2 :]
    columns["masks"][columns["label"] == 1] = ill
    np.savez_compressed(path, **columns)
    return folder


@pytest.fixture(scope="module")
def weights(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the patients that they have not seen."""
    folder = tmp_path_factory.mktemp("fold-weights")
    seen = {"Ada,Ben": ("Cyn",), "Cyn": ("Ada", "Ben"), "Ben,Cyn": ("Ada",), "all": ()}
    for name, patients in seen.items():
        save_useless(folder / name, cases, patients)
    return {name: folder / name for name in seen}


def measured(cases: Path, out: Path, *weights: Path) -> int:
    given = [word for folder in weights for word in ("--weights", str(folder))]
    return main(["benchmark", "folds", str(cases), *given, "--out", str(out), "--tuning", "4"])


@pytest.fixture(scope="module")
def two_folds(
    cases: Path, weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What is written of weights that make folds."""
    out = tmp_path_factory.mktemp("two-folds")
    assert measured(cases, out, weights["Ada,Ben"], weights["Cyn"]) == 0
    return out


def test_a_row_per_patient_and_every_vertebra_once(
    two_folds: Path, weights: dict[str, Path]
) -> None:
    data = json.loads((two_folds / "folds.json").read_text("utf-8"))
    assert (data["vertebrae"], data["patients"]) == (6, [*PATIENTS])
    assert list(data["each patient"]) == [f"{name} (n = 2)" for name in PATIENTS]
    hashes = [load_model(weights[name], "cpu").hash for name in ("Ada,Ben", "Cyn")]
    assert data["weights"].split() == hashes
    names = [method["name"] for method in data["methods"]]
    assert names[0] == "Hide-and-Seek Attribution" and "Otsu in the body" in names
    text = (two_folds / "folds.md").read_text("utf-8")
    assert all(f"| {name} (n = 2) |" in text for name in PATIENTS)
    for picture in ("froc", "f1", "calibration"):
        assert (two_folds / f"{picture}-folds.png").read_bytes()[:4] == b"\x89PNG"


def test_thresholds_are_chosen_on_others(cases: Path, weights: dict[str, Path]) -> None:
    first, second = read_folds([weights["Ada,Ben"], weights["Cyn"]], cases)
    assert {s.case.patient for s in first.unseen} == {"Ada", "Ben"}
    assert {s.case.patient for s in first.others} == {"Cyn"}
    assert {s.case.patient for s in second.others} == {"Ada", "Ben"}


def test_weights_that_do_not_make_folds_are_refused(
    cases: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert measured(cases, tmp_path, weights["Ada,Ben"]) == 2
    assert "Cyn is unseen by 0 of the weights" in capsys.readouterr().err
    assert measured(cases, tmp_path, weights["Ada,Ben"], weights["Ben,Cyn"]) == 2
    assert "Ben is unseen by 2 of the weights" in capsys.readouterr().err
    assert measured(cases, tmp_path, weights["Cyn"], weights["all"]) == 2
    assert "does not state which patients" in capsys.readouterr().err


def rewritten(cases: Path, folder: Path, **columns: np.ndarray) -> Path:
    """The same vertebrae with other columns."""
    folder.mkdir()
    (path,) = cases.glob("*.npz")
    with np.load(path, allow_pickle=False) as shard:
        np.savez_compressed(folder / path.name, **{**shard, **columns})
    return folder


def columns_of(cases: Path) -> dict[str, np.ndarray]:
    (path,) = cases.glob("*.npz")
    with np.load(path, allow_pickle=False) as shard:
        return dict(shard)


def test_whom_the_start_learned_from_is_no_fold(
    cases: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor whoever stands behind the start of the start, in whatever spelling."""
    first = weights["Ada,Ben"]
    known: dict[str, Any] = {"patients": ["Ada", "Ben"], "start": {"patients": ["Dan"]}}
    known["start"]["start"] = {"patients": ["CYN "]}
    assert (
        measured(cases, tmp_path / "out", first, with_provenance(tmp_path / "all", first, **known))
        == 2
    )
    assert "Cyn is unseen by 0 of the weights" in capsys.readouterr().err
    other = with_provenance(tmp_path / "one", first, patients=["Ada"], start={"patients": ["ben"]})
    assert [len(fold.unseen) for fold in read_folds([first, other], cases)] == [4, 2]
    counted = with_provenance(
        tmp_path / "counted", first, patients=["Cyn"], start={"own patients": 9}
    )
    assert measured(cases, tmp_path / "out", counted, other) == 2
    said = "counted: they learned from 9 patients, of whom only the number is stated"
    assert said in capsys.readouterr().err


def test_thresholds_of_a_fold_are_not_chosen_on_whom_it_judges(
    cases: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = weights["Ada,Ben"]
    for name, facts in (
        ("tuned", {"chosen on": ["Zoe", "cyn"]}),
        ("fitted", {"validation": {"fitted on these": True, "patients": ["Cyn"]}}),
        ("started", {"start": {"patients": ["Ada"], "chosen on": ["Cyn"]}}),
    ):
        known = with_provenance(tmp_path / name, other, patients=["Ada", "Ben"], **facts)
        assert measured(cases, tmp_path / "out", other, known) == 2
        said = "has thresholds chosen on patients whom it is to judge: Cyn"
        assert said in capsys.readouterr().err
    unnamed = {"patients": ["Ada", "Ben"], "thresholds": "tuned on the validation set"}
    old = with_provenance(tmp_path / "old", other, **unnamed)
    assert measured(cases, tmp_path / "out", other, old) == 0
    page = (tmp_path / "out" / "folds.md").read_text("utf-8")
    assert f"Not known to be held out: {old.name}: the provenance does not state on which" in page


def test_one_person_in_two_spellings_is_one_patient_of_a_fold(
    cases: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    columns = columns_of(cases)
    patient = columns["patient"].copy()
    patient[(columns["vertebra"] == 3) & (patient == "Ada")] = "ADA"
    spelled = rewritten(cases, tmp_path / "spelled", patient=patient)
    folds = read_folds([weights["Ada,Ben"], weights["Cyn"]], spelled)
    assert [len(fold.unseen) for fold in folds] == [4, 2]
    assert {s.case.patient for s in folds[0].unseen} == {"Ada", "Ben"}


def test_the_page_names_the_patients_that_baselines_were_tuned_on(two_folds: Path) -> None:
    text = (two_folds / "folds.md").read_text("utf-8")
    said = "on the other patients of each fold; patients of this set among them: Ada, Ben, Cyn."
    assert said in text


@pytest.mark.parametrize("lacking", ["lytic", "blastic", "healthy"])
def test_baselines_are_not_tuned_where_there_is_nothing_to_find(
    cases: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lacking: str,
) -> None:
    """Of one fold alone: the whole set shows all."""
    columns = columns_of(cases)
    masks, label, own = columns["masks"], columns["label"], columns["patient"] == "Cyn"
    if lacking == "healthy":
        label[own] = 1
        masks[own & (columns["vertebra"] > 2)] |= LYTIC
    else:
        masks[own] &= 255 - (LYTIC if lacking == "lytic" else BLASTIC)
    some = rewritten(cases, tmp_path / lacking, masks=masks, label=label)
    assert measured(some, tmp_path / "out", weights["Ada,Ben"], weights["Cyn"]) == 2
    what = "healthy vertebra" if lacking == "healthy" else f"{lacking} lesion"
    said = f"{some}: shows no {what} among the 2 vertebrae that choose thresholds"
    assert said in capsys.readouterr().err


def test_the_vertebrae_that_choose_are_those_that_are_asked(cases: Path) -> None:
    subjects = load_simulated(cases, SMALL)
    assert tuning_cases(cases, subjects, 6) == subjects
    with pytest.raises(InputError, match="shows no healthy vertebra among the 1 vertebrae"):
        tuning_cases(cases, subjects, 1)
    with pytest.raises(InputError, match="shows no lytic lesion among the 0 vertebrae"):
        tuning_cases(cases, [], 4)


@pytest.mark.parametrize(
    "other",
    [
        replace(SMALL, geometry=replace(SMALL.geometry, central_slices=2)),
        replace(SMALL, geometry=replace(SMALL.geometry, least_share=0.5)),
        replace(SMALL, geometry=replace(SMALL.geometry, margin_pixels=3.0)),
        replace(SMALL, intensity=replace(SMALL.intensity, width=200.0)),
    ],
    ids=["central slices", "broad slices", "crop", "intensities"],
)
def test_folds_that_see_the_vertebrae_otherwise_are_refused_in_any_order(
    other: Profile,
    cases: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_useless(tmp_path / "other", cases, ("Ada", "Ben"), other)
    pair = weights["Ada,Ben"], tmp_path / "other"
    for first, second in (pair, pair[::-1]):
        assert measured(cases, tmp_path, first, second) == 2
        assert f"{second}: sees other crops" in capsys.readouterr().err


def test_scores_over_a_threshold_say_the_same_at_zero() -> None:
    iou = np.array([[0.6, 0.0, 0.2], [0.0, 0.3, 0.0]])
    match = Match(np.array([0.9, 0.4, 0.7]), iou, np.array([0.9, 0.4]), np.array([0.7]), 2)
    lowered = match.lowered(0.5)
    assert match.dice(0.5) == lowered.dice(0.0) == 0.5
    found, again = match.found_at(0.1), lowered.found_at(0.1)
    assert np.array_equal(found >= 0.5, again >= 0.0)
    assert np.array_equal(match.false_at(0.1) >= 0.5, lowered.false_at(0.1) >= 0.0)
