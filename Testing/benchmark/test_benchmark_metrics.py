"""Metrics of the benchmark: by hand, against brute force, and intervals that cover the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hideseekseg.benchmark.metrics import (
    Outcome,
    auc,
    count,
    draw_weights,
    estimates,
    free_response,
    interval,
    measure,
    reliability,
)
from hideseekseg.findings import LesionType
from hideseekseg.lesions import Lesion3D, SliceCandidate
from hideseekseg.simulation.random_fields import Mask
from hideseekseg.training.evaluation import Match, match
from hideseekseg.training.evaluation import auc as plain_auc

SHAPE = (4, 12, 12)
HALF: dict[LesionType, float] = {"lytic": 0.5, "blastic": 0.5}
NOTHING = match(np.zeros(SHAPE, bool), [])


def block(rows: tuple[int, int], columns: tuple[int, int]) -> Mask:
    mask = np.zeros(SHAPE, bool)
    mask[:, rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask


def joined(mask: Mask, score: float) -> Lesion3D:
    return Lesion3D(
        "lytic", tuple(SliceCandidate(s, "lytic", mask[s], score) for s in range(len(mask)))
    )


LEFT, RIGHT, BELOW = block((0, 4), (0, 4)), block((0, 4), (8, 12)), block((8, 12), (0, 6))


def vertebra(
    truth: Mask, *lesions: Lesion3D, p: float = 0.5, patient: str = "A", name: str = "A L1"
) -> Outcome:
    matches = {"lytic": match(truth, lesions), "blastic": NOTHING}
    return Outcome(patient, name, bool(truth.any()), p, matches)  # type: ignore[arg-type]


# ---- matching


def test_match_by_hand() -> None:
    half = block((0, 2), (0, 4))
    found = match(LEFT | RIGHT, [joined(half, 0.8), joined(BELOW, 0.6)])
    np.testing.assert_allclose(found.iou, [[0.5, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(found.found_at(0.5), [0.8, -np.inf])
    np.testing.assert_allclose(found.found_at(0.51), [-np.inf, -np.inf])
    np.testing.assert_allclose(found.false_at(0.5), [0.6])
    np.testing.assert_allclose(found.false_at(0.51), [0.8, 0.6])
    assert found.dice(0.5) == pytest.approx(2 * 32 / (128 + 32 + 96))
    assert found.dice(0.7) == pytest.approx(2 * 32 / (128 + 32))
    assert found.dice(0.9) == 0
    assert np.isnan(match(np.zeros(SHAPE, bool), [joined(LEFT, 0.9)]).dice(0.5))


masks = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random(SHAPE) < np.random.default_rng(seed).random()
)


@settings(max_examples=40, deadline=None)
@given(masks, st.lists(st.tuples(masks, st.floats(0, 1)), max_size=4), st.floats(0, 1))
def test_match_is_what_counting_masks_gives(
    truth: Mask, candidates: Sequence[tuple[Mask, float]], threshold: float
) -> None:
    lesions = [joined(mask, score) for mask, score in candidates if mask.any(axis=(1, 2)).all()]
    found = match(truth, lesions)
    kept = [le.mask(SHAPE) for le in lesions if le.score > threshold]
    union = np.any(kept, axis=0) if kept else np.zeros(SHAPE, bool)
    if len(found.iou):
        expected = 2 * (union & truth).sum() / (union.sum() + truth.sum())
        assert found.dice(threshold) == pytest.approx(expected)
    assert ((found.iou >= 0) & (found.iou <= 1)).all()
    for least in (0.1, 0.5):
        right = (found.iou >= least).any(axis=0)
        assert len(found.false_at(least)) == len(lesions) - right.sum()


# ---- figures by hand


def four_vertebrae() -> list[Outcome]:
    """Found; found beside a false one; missed; healthy with two findings, one below threshold."""
    return [
        vertebra(LEFT, joined(LEFT, 0.9), p=0.9),
        vertebra(LEFT, joined(LEFT, 0.7), joined(BELOW, 0.8), p=0.6),
        vertebra(RIGHT, p=0.2),
        vertebra(np.zeros(SHAPE, bool), joined(LEFT, 0.6), joined(BELOW, 0.3), p=0.4),
    ]


def test_figures_by_hand() -> None:
    figures = measure(four_vertebrae(), HALF, np.ones((1, 4)))
    expected = {
        "lytic F1 (IoU >= 0.1)": 4 / 7,
        "lytic precision (IoU >= 0.1)": 2 / 4,
        "lytic recall (IoU >= 0.1)": 2 / 3,
        "lytic Dice": (1 + 2 * 64 / (64 + 64 + 96) + 0) / 3,
        "vertebra AUC": 2 / 3,
        "Brier score": (0.01 + 0.16 + 0.64 + 0.16) / 4,
        "false findings per healthy vertebra": 1.0,
    }
    for name, value in expected.items():
        assert figures[name][0] == pytest.approx(value), name
    assert np.isnan(figures["blastic F1 (IoU >= 0.1)"][0]), "no blastic lesion was there to find"
    assert np.isnan(figures["blastic Dice"][0])


def test_weights_count_vertebrae_again() -> None:
    """A weight of two is the vertebra twice, of nought is the vertebra left out."""
    outcomes = four_vertebrae()
    weighted = measure(outcomes, HALF, np.array([[2.0, 0.0, 1.0, 3.0]]))
    copied = [outcomes[i] for i in (0, 0, 2, 3, 3, 3)]
    plain = measure(copied, HALF, np.ones((1, 6)))
    for name, value in plain.items():
        np.testing.assert_allclose(weighted[name], value, err_msg=name)


def test_healthy_vertebrae_alone_have_false_findings_and_nothing_else() -> None:
    figures = measure(four_vertebrae()[3:], HALF, np.ones((1, 1)))
    known = {name for name, value in figures.items() if np.isfinite(value[0])}
    assert known == {"false findings per healthy vertebra"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.booleans()), max_size=12))
def test_auc_is_the_plain_one(cases: Sequence[tuple[float, bool]]) -> None:
    p = np.array([a for a, _ in cases], float)
    ill = np.array([b for _, b in cases], bool)
    found = auc(p, ill, np.ones((1, len(cases))))[0]
    np.testing.assert_allclose(found, plain_auc(p[ill], p[~ill]))


def test_free_response_by_hand() -> None:
    curve = free_response(four_vertebrae(), ["lytic"], 0.1)
    np.testing.assert_allclose(curve.false, [0, 0, 0.25, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(curve.sensitivity, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert curve.at(0.1) == pytest.approx(1 / 3)
    assert curve.at(0.25) == pytest.approx(2 / 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_free_response_rises_and_meets_the_counts(seed: int) -> None:
    """Each point of the curve is what counting above its threshold gives."""
    rng = np.random.default_rng(seed)
    outcomes = [random_vertebra(rng) for _ in range(5)]
    curve = free_response(outcomes, ["lytic"], 0.1)
    assert (np.diff(curve.false) >= 0).all() and (np.diff(curve.sensitivity) >= 0).all()
    threshold = float(rng.choice([0.15, 0.45, 0.75]))
    counts = count(outcomes, "lytic", threshold, 0.1)
    true = counts.found.sum() + counts.missed.sum()
    point = (counts.false.sum() / 5, counts.found.sum() / max(true, 1))
    assert any(np.allclose(point, pair) for pair in zip(curve.false, curve.sensitivity))


def random_vertebra(rng: np.random.Generator) -> Outcome:
    places = (LEFT, RIGHT, BELOW)
    truth = np.any([place & bool(rng.random() < 0.5) for place in places], axis=0)
    scores = rng.choice([0.1, 0.3, 0.6, 0.9], 3)
    drawn = [joined(p, float(s)) for p, s in zip(places, scores) if rng.random() < 0.6]
    return vertebra(truth, *drawn)


def test_reliability_by_hand() -> None:
    outcomes = [
        vertebra(LEFT, p=0.95),
        vertebra(np.zeros(SHAPE, bool), p=1.0),
        vertebra(np.zeros(SHAPE, bool), p=0.0),
    ]
    low, high = reliability(outcomes)
    assert (low.count, low.p, low.diseased) == (1, 0.0, 0.0)
    assert (high.count, high.p, high.diseased) == (2, pytest.approx(0.975), 0.5)
    assert reliability([vertebra(LEFT, p=float("nan"))]) == []


# ---- the bootstrap


def test_patients_are_drawn_whole_then_vertebrae_then_cases() -> None:
    patients = ["A"] * 6 + ["B"] * 2
    vertebrae = ["L1"] * 4 + ["L2"] * 2 + ["L1"] * 2
    weights = draw_weights(patients, vertebrae, 400, seed=3)
    assert (weights[:, 6:].sum(axis=1) % 2 == 0).all(), "B has one vertebra of two cases"
    without_b = weights[:, 6:].sum(axis=1) == 0
    assert 0.15 < without_b.mean() < 0.35, "one time in four A is drawn twice"
    assert set(weights[without_b, :4].sum(axis=1)) == {0, 4, 8, 12, 16}
    np.testing.assert_array_equal(weights, draw_weights(patients, vertebrae, 400, seed=3))


def test_one_patient_keeps_his_place() -> None:
    weights = draw_weights(["A"] * 5, [f"v{n}" for n in range(5)], 100)
    assert (weights.sum(axis=1) == 5).all()
    assert weights.std(axis=0).min() > 0.5


def test_intervals_cover_the_truth() -> None:
    """Synthetic patients that differ: 95 % intervals hold the true mean about that often."""
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(25), 8)
    vertebrae = [f"{p}-{n}" for n, p in enumerate(patients)]
    inside = alone = 0
    for experiment in range(150):
        values = 0.3 + rng.normal(0, 0.1, 25)[patients] + rng.normal(0, 0.2, 200)
        weights = draw_weights(list(map(str, patients)), vertebrae, 200, seed=experiment)
        low, high = interval(weights @ values / weights.sum(axis=1))
        inside += low <= 0.3 <= high
        # Vertebrae drawn as if patients did not matter: too sure of itself.
        naive = draw_weights(["A"] * 200, vertebrae, 100, seed=experiment)
        low, high = interval(naive @ values / naive.sum(axis=1))
        alone += low <= 0.3 <= high
    assert 0.88 <= inside / 150 <= 1.0
    assert alone < inside


def test_interval_surrounds_its_value_and_may_be_undefined() -> None:
    outcomes = [
        vertebra(LEFT, joined(LEFT, 0.9 if n % 3 else 0.2), p=0.8, name=f"v{n}") for n in range(30)
    ]
    weights = draw_weights(["A"] * 30, [one.vertebra for one in outcomes], 300)
    figures = estimates(outcomes, HALF, weights)
    recall = figures["lytic recall (IoU >= 0.1)"]
    assert recall.value == pytest.approx(20 / 30)
    assert 0.4 < recall.low < 0.6 < 0.75 < recall.high < 0.9
    assert np.isnan(figures["blastic Dice"].low)
    assert np.isnan(interval(np.array([np.nan, np.nan, 1.0]))[0])


def test_match_without_candidates_is_a_match() -> None:
    none: Match = match(LEFT, [])
    assert none.found_at(0.1).tolist() == [-np.inf]
    assert none.false_at(0.1).size == 0 and none.dice(0.5) == 0
