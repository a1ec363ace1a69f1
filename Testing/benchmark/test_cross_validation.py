"""Cross-validation: each patient is judged once, by weights not trained on that patient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.benchmark import SMALL, save_useless
from hideseekseg.benchmark.cases import draw_subjects
from hideseekseg.benchmark.cross_validation import read_folds
from hideseekseg.cli.main import main
from hideseekseg.model.profile import Profile
from hideseekseg.model.weights import load_model
from hideseekseg.training.evaluation import Match

PATIENTS = ("Ada", "Ben", "Cyn")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn vertebrae under the names of three patients."""
    folder = tmp_path_factory.mktemp("fold-cases")
    draw_subjects(folder, 6, 1, SMALL, lambda done, total: None)
    (path,) = folder.glob("*.npz")
    with np.load(path, allow_pickle=False) as shard:
        columns = dict(shard)
    columns["patient"] = np.array(PATIENTS)[columns["vertebra"] % 3]
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


def test_a_row_per_patient_and_every_vertebra_once(
    cases: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    assert measured(cases, tmp_path, weights["Ada,Ben"], weights["Cyn"]) == 0
    data = json.loads((tmp_path / "folds.json").read_text("utf-8"))
    assert (data["vertebrae"], data["patients"]) == (6, [*PATIENTS])
    assert list(data["each patient"]) == [f"{name} (n = 2)" for name in PATIENTS]
    hashes = [load_model(weights[name], "cpu").hash for name in ("Ada,Ben", "Cyn")]
    assert data["weights"].split() == hashes
    names = [method["name"] for method in data["methods"]]
    assert names[0] == "Hide-and-Seek Attribution" and "Otsu in the body" in names
    text = (tmp_path / "folds.md").read_text("utf-8")
    assert all(f"| {name} (n = 2) |" in text for name in PATIENTS)
    for picture in ("froc", "f1", "calibration"):
        assert (tmp_path / f"{picture}-folds.png").read_bytes()[:4] == b"\x89PNG"


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
