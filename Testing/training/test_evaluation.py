"""What weights are worth: counts made by hand, and thresholds chosen where they pay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.vertebrae import TOY, Mask, plain_vertebra, toy_slices
from hideseekseg.anatomy.crop import Crop
from hideseekseg.anatomy.preparation import slices_of
from hideseekseg.attribution import attribute
from hideseekseg.benchmark.cases import load_simulated
from hideseekseg.errors import InputError
from hideseekseg.findings import LesionType
from hideseekseg.imaging.volume import Grid
from hideseekseg.lesions import Lesion3D, SliceCandidate, log_odds, p_of_vertebra
from hideseekseg.model.profile import Decision, Schedule
from hideseekseg.model.weights import Model
from hideseekseg.simulation.simulate import Recipe, simulate
from hideseekseg.training.dataset import load_slices, make_batch
from hideseekseg.training.evaluation import (
    LOST_BY_GATE,
    Case,
    Detections,
    auc,
    choose_gate,
    detect,
    edit_case,
    false_per_healthy,
    format_figures,
    load_cases,
    measure_weights,
    scored_parts,
    slice_auc,
    tally,
    tune,
    vertebra_auc,
)
from hideseekseg.training.observations import observe
from hideseekseg.training.train import TrainingSettings, train

SHAPE = (6, 20, 20)
HALF = 0.5


def block(slices: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]) -> Mask:
    mask = np.zeros(SHAPE, bool)
    mask[slices[0] : slices[1], rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask


LEFT = block((1, 4), (2, 6), (2, 6))  # 48 voxels
RIGHT = block((1, 4), (2, 6), (12, 16))
NOTHING = np.zeros(SHAPE, bool)


def joined(mask: Mask, score: float = 0.9, kind: LesionType = "lytic") -> Lesion3D:
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    return Lesion3D(kind, tuple(SliceCandidate(int(s), kind, mask[s], score) for s in slices))


def found(
    lytic: Mask, *lesions: Lesion3D, blastic: Mask = NOTHING, p: float = 0.5, diseased: bool = True
) -> Detections:
    truth: dict[LesionType, Mask] = {"lytic": lytic, "blastic": blastic}
    x = torch.zeros(len(lytic), 1, *SHAPE[1:])
    return Detections(Case(x, np.ones(SHAPE, bool), truth, diseased, "A"), lesions, p)


def test_found_and_missed_and_false() -> None:
    """Two true lesions, one of them found, and a candidate where nothing is."""
    one = found(LEFT | RIGHT, joined(LEFT), joined(block((4, 6), (10, 15), (2, 6))))
    counts = tally([one], "lytic", HALF, 0.1)
    assert (counts.true_positives, counts.false_positives, counts.missed) == (1, 1, 1)
    assert counts.f1 == pytest.approx(0.5)
    assert counts.precision == pytest.approx(0.5)
    assert counts.recall == pytest.approx(0.5)
    assert counts.mean_dice == pytest.approx(2 * 48 / (96 + 48 + 40))


def test_half_a_lesion_counts_up_to_its_overlap() -> None:
    """24 of 48 voxels: an intersection over union of one half, a Dice of two thirds."""
    half = found(LEFT, joined(block((1, 4), (2, 4), (2, 6))))
    assert tally([half], "lytic", HALF, 0.5).f1 == 1
    assert tally([half], "lytic", HALF, 0.51).f1 == 0
    assert tally([half], "lytic", HALF, 0.5).dice == (pytest.approx(2 / 3),)


def test_scores_below_the_threshold_and_other_types_do_not_count() -> None:
    for candidate in (joined(LEFT, 0.5), joined(LEFT, kind="blastic")):
        counts = tally([found(LEFT, candidate)], "lytic", HALF, 0.1)
        assert (counts.true_positives, counts.missed, counts.mean_dice) == (0, 1, 0)
    wrong = tally([found(LEFT, joined(LEFT, kind="blastic"))], "blastic", HALF, 0.1)
    assert (wrong.false_positives, wrong.missed, wrong.dice) == (1, 0, ())
    assert np.isnan(wrong.mean_dice)


def test_one_candidate_over_two_lesions_finds_both_where_it_overlaps_enough() -> None:
    both = found(LEFT | RIGHT, joined(block((1, 4), (2, 6), (2, 16))))
    counts = tally([both], "lytic", HALF, 0.2)
    assert (counts.true_positives, counts.false_positives, counts.missed) == (2, 0, 0)


def test_specks_are_no_lesions() -> None:
    speck = block((1, 2), (2, 6), (2, 7))  # 20 voxels
    counts = tally([found(speck)], "lytic", HALF, 0.1)
    assert (counts.missed, counts.dice) == (0, ())


def test_cases_add_up() -> None:
    counts = tally([found(LEFT, joined(LEFT)), found(RIGHT), found(NOTHING)], "lytic", HALF, 0.1)
    assert (counts.true_positives, counts.false_positives, counts.missed) == (1, 0, 1)
    assert counts.dice == (1.0, 0.0)
    assert counts.f1 == pytest.approx(2 / 3)


def test_area_under_the_curve() -> None:
    assert auc([0.9, 0.4], [0.5, 0.1]) == pytest.approx(3 / 4)
    assert auc([1, 2], [1, 0]) == pytest.approx(3.5 / 4), "a tie is half a win"
    assert auc([3, 4], [1, 2]) == 1
    assert np.isnan(auc([], [1]))


def test_vertebrae_are_ranked_and_false_findings_counted_on_healthy_ones() -> None:
    lesion = joined(LEFT)
    several = [
        found(LEFT, lesion, p=0.9),
        found(LEFT, p=0.3),
        found(NOTHING, lesion, joined(RIGHT, 0.2), p=0.6, diseased=False),
        found(NOTHING, p=0.1, diseased=False),
    ]
    assert vertebra_auc(several) == pytest.approx(3 / 4)
    assert false_per_healthy(several, Decision(threshold=HALF)) == pytest.approx(1 / 2)
    assert false_per_healthy(several, Decision(threshold=0.1)) == pytest.approx(1)


def test_cases_are_whole_vertebrae(tmp_path: Path) -> None:
    geometry = replace(TOY.geometry, size=32, body_pixels=26)
    for seed in (1, 2):
        recipe = Recipe(seed, 3, slices=None, geometry=geometry)
        simulate(recipe, [plain_vertebra(level=f"L{seed}")], tmp_path, lambda *_: None)
    cases = load_cases(tmp_path, TOY)
    assert len(cases) == 6 and {case.diseased for case in cases} == {True, False}
    for case in cases:
        assert case.x.shape == (len(case.body), 1, 32, 32)
        assert case.body.any(axis=(1, 2)).all()
        ill = (case.truth["lytic"] | case.truth["blastic"]).any()
        assert ill == case.diseased


@pytest.mark.parametrize(
    "changes", [{"central_slices": 1}, {"central_slices": 5}, {"least_share": 0.9}]
)
def test_cases_keep_all_truth_whichever_slices_are_analysed(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    recipe = Recipe(3, 8, slices=None, geometry=TOY.geometry)
    simulate(recipe, [plain_vertebra(), plain_vertebra(level="L2")], tmp_path, lambda *_: None)
    geometry = replace(TOY.geometry, **changes)
    every, some = (load_cases(tmp_path, replace(TOY, geometry=g)) for g in (TOY.geometry, geometry))
    assert len(every) == len(some) == 8
    left_out = 0
    for whole, case in zip(every, some):
        assert torch.equal(case.x, whole.x)
        for kind in case.truth:
            np.testing.assert_array_equal(case.truth[kind], whole.truth[kind])
            assert len(case.lesions(kind)) == len(whole.lesions(kind))
        crop = Crop(
            np.zeros(case.body.shape, np.float32), case.body, Grid(case.body.shape, np.eye(4))
        )
        expected, remarks = slices_of(crop, geometry, all_slices=False)
        assert case.analysed.tolist() == expected.tolist() and remarks
        assert len(case.shown().x) == len(expected) < len(case.x)
        left_out += sum(int(case.truth[k].sum() - case.shown().truth[k].sum()) for k in case.truth)
    assert left_out, "else this tests nothing"


def test_a_set_of_chosen_slices_measures_nothing(tmp_path: Path) -> None:
    """Of such vertebrae neither all lesions are there, nor the middle of the body is known."""
    recipe = Recipe(3, 3, slices=6, geometry=TOY.geometry)
    simulate(recipe, [plain_vertebra()], tmp_path, lambda *_: None)
    central = replace(TOY, geometry=replace(TOY.geometry, central_slices=3))
    assert len(load_slices(tmp_path, TOY)) > 0
    for load, profile in ((load_cases, TOY), (load_simulated, TOY), (load_slices, central)):
        with pytest.raises(InputError, match="some slices of each vertebra: `simulate --whole`"):
            load(tmp_path, profile)


# ---- thresholds


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    slices = toy_slices(48)
    several = []
    for name in dict.fromkeys(slices.vertebra):
        rows = np.flatnonzero(slices.vertebra == name)
        truth: dict[LesionType, Mask] = {
            "lytic": slices.lytic[rows],
            "blastic": slices.blastic[rows],
        }
        x = make_batch(slices, rows, TOY, None).x
        several.append(Case(x, slices.body[rows], truth, bool(slices.label[rows[0]]), "A"))
    return several


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Trained for seconds on toys: it knows spots, if not well."""
    settings = TrainingSettings(
        supervision="twins",
        encoder_steps=100,
        decoder_steps=140,
        encoder_batch=16,
        decoder_batch=8,
        encoder_rate=5e-3,
        decoder_rate=3e-3,
    )
    schedule = Schedule("fast", edit="single-shot", projection="none", noise_level=0.2, draws=2)
    profile = replace(TOY, schedule=schedule, decision=Decision(healthy_p=1e-3, baseline="hidden"))
    folder = tmp_path_factory.mktemp("toy")
    trained = train(toy_slices(), profile, settings, folder, lambda now: None)
    network = trained.autoencoder.eval()
    return Model(network, trained.classifier, trained.profile, torch.device("cpu"), hash="toy")


def worth(model: Model, cases: list[Case], decision: Decision) -> float:
    """Mean of F1 and Dice over both types, less a half for each false finding per healthy case."""
    tried = replace(model, profile=replace(model.profile, decision=decision))
    several = [detect(edit_case(case, tried), tried) for case in cases]
    kinds: tuple[LesionType, LesionType] = ("lytic", "blastic")
    counts = [tally(several, kind, decision.threshold, 0.1) for kind in kinds]
    paid = 0.5 * false_per_healthy(several, decision) / len(kinds)
    return float(np.mean([(c.f1 + c.mean_dice) / 2 for c in counts])) - paid


def test_gate_loses_few_slices_with_a_lesion(model: Model, cases: list[Case]) -> None:
    seen = [edit_case(case, model) for case in cases]
    p = np.concatenate([one.latents.p for one in seen if one.case.diseased])
    for lost in LOST_BY_GATE:
        assert (p < choose_gate(seen, lost)).sum() <= np.ceil(lost * len(p))
    assert slice_auc(model, cases) > 0.9


def test_a_case_is_judged_as_segment_judges_it(model: Model, cases: list[Case]) -> None:
    """Slices that are not analysed are neither classified nor edited, and their lesions missed."""
    decision = Decision(healthy_p=1e-3, baseline="hidden", min_slices=1)
    model = replace(model, profile=replace(model.profile, decision=decision))
    for case, chosen in zip(cases, ([1, 2], [0, 3], [2], [3]) * 3):
        case = replace(case, chosen=np.array(chosen))
        direct = attribute(case.x[chosen], case.body[chosen], model)
        seen = edit_case(case, model)
        assert seen.p == detect(seen, model).p == p_of_vertebra(direct.p)
        assert np.flatnonzero(np.isfinite(seen.latents.p.numpy())).tolist() == chosen
        difference = seen.healthy.difference
        np.testing.assert_array_equal(difference[chosen], direct.difference)
        assert not np.delete(difference, chosen, axis=0).any()
        parts = scored_parts(seen, model)
        expected = [replace(part, slice=chosen[part.slice]) for part in direct.scored]
        assert [(p.slice, p.type, p.score) for p in parts] == [
            (p.slice, p.type, p.score) for p in expected
        ]
        assert all((a.mask == b.mask).all() for a, b in zip(parts, expected))
        (observed,) = observe(model, [case])[0]
        assert observed.logit == pytest.approx(log_odds(seen.p))
        assert observed.voxels == {kind: int(case.truth[kind].sum()) for kind in case.truth}
        assert np.isfinite(observed.distance)
    found = [edit_case(replace(case, chosen=np.array([1, 2])), model) for case in cases]
    assert np.isfinite(choose_gate(found, 0.1))
    assert slice_auc(model, [one.case for one in found]) > 0.9


def test_chosen_thresholds_pay(model: Model, cases: list[Case]) -> None:
    steps: list[tuple[int, int]] = []
    chosen = tune(model, cases, lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    value = worth(model, cases, chosen)
    assert value > 0.5
    assert value > worth(model, cases, model.profile.decision) + 0.1
    for threshold in (0.1, 0.5, 0.9):
        assert value >= worth(model, cases, replace(chosen, threshold=threshold)) - 1e-9
    assert chosen.healthy_p == model.profile.decision.healthy_p
    assert chosen.baseline == "hidden"


def test_figures_are_plain_numbers(model: Model, cases: list[Case]) -> None:
    figures = measure_weights(model, cases)
    assert figures["vertebrae"] == 12 and figures["diseased"] == 6 and figures["patients"] == 1
    assert {"lytic F1 (IoU >= 0.5)", "blastic Dice", "vertebra AUC"} <= set(figures)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    table = format_figures(figures).splitlines()
    assert len(table) == len(figures) + 2
    assert "| vertebrae | 12 |" in table


def test_what_cannot_be_measured_is_no_number(model: Model, cases: list[Case]) -> None:
    """Healthy vertebrae alone have no Dice and no area under a curve."""
    lonely = [case for case in cases if not case.diseased]
    figures = measure_weights(model, lonely)
    assert figures["lytic Dice"] is None and figures["slice AUC"] is None
    assert "| lytic Dice | - |" in format_figures(figures)
