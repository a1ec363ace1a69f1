"""Probabilities: what a vertebra's neighbours tell, how they are fitted, and the three commands.

``calibrate``, ``benchmark observe``, ``benchmark probabilities`` run on the weights in context and
on vertebrae that are drawn here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.models import FAST, filled
from helpers.vertebrae import TOY, toy_slices
from hideseekseg.attribution import Latents, attribute, encode
from hideseekseg.benchmark.cases import load_simulated
from hideseekseg.benchmark.methods.method import HideAndSeek
from hideseekseg.benchmark.probabilities import BINNED, figures, redrawn_f1
from hideseekseg.cli.main import main
from hideseekseg.confidence import (
    VertebraInput,
    doubts,
    encode_patient,
    log_odds,
    marrow,
    reference_of,
    relative_reference,
    sigmoid,
    vertebra_probability,
    with_probabilities,
    with_stability,
)
from hideseekseg.findings import (
    LESION_TYPES,
    UNLIKE_TRAINING,
    UNSTABLE,
    Candidate,
    LesionType,
    SliceCandidate,
)
from hideseekseg.lesions import Lesion3D, candidate_features, join_slices
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import FEATURES, Confidence, Decision
from hideseekseg.model.weights import BUNDLE, Model, load_model, save_model
from hideseekseg.simulation.simulate import Recipe, simulate
from hideseekseg.simulation.source_vertebrae import drawn_vertebrae
from hideseekseg.training.calibration import (
    DISEASED_SHARE,
    choose,
    expected_calibration_error,
    findings_by_stability,
    fit,
    healthy_weights,
    judge,
    judge_apart,
    least_stability,
    tally,
    vertebra_probabilities,
)
from hideseekseg.training.dataset import make_batch
from hideseekseg.training.observations import (
    LIKELY,
    Observations,
    SeenCandidate,
    SeenVertebra,
    joined,
    observer_of,
    read_observations,
    write_observations,
)

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).resolve().parents[2]
WEIGHTS = BUNDLE
CALIBRATED = Confidence(
    vertebra=(-1.0, 1.0, 0.5),
    usual_logit=-2.0,
    lytic=(-2.0, 4.0, 0.5, 0.0, 0.0, 0.0, 0.0),
    blastic=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
)
ALONE = FEATURES.index("log odds of P with it alone revealed")


# --- What the neighbours tell ---------------------------------------------------------------------


def test_marrow_is_that_of_the_inside_alone() -> None:
    body = np.zeros((3, 20, 20), bool)
    body[:, 4:16, 4:16] = True
    hounsfield = np.where(body, 700.0, -50.0)  # cortex, and what lies around it
    hounsfield[:, 6:14, 6:14] = np.random.default_rng(1).normal(180, 20, (3, 8, 8))
    hounsfield[1, 8, 8] = 3000.0  # one bright spot moves neither
    middle, spread = marrow(hounsfield, body)
    assert middle == pytest.approx(180, abs=5) and spread == pytest.approx(20, abs=4)
    sliver = np.zeros_like(body)
    sliver[:, 8:11, :] = True
    assert np.isnan(marrow(hounsfield, sliver)).all(), "nothing lies two pixels inside"


def test_one_diseased_neighbour_is_not_the_reference() -> None:
    healthy = [(180.0, 30.0), (190.0, 32.0), (185.0, 31.0)]
    assert reference_of([*healthy, (900.0, 200.0)]) == (187.5, 31.5)
    assert reference_of([*healthy, (np.nan, np.nan)]) == (185.0, 31.0)
    for few in ([], healthy[:1], [healthy[0], (np.nan, np.nan)]):
        assert np.isnan(reference_of(few)).all(), "too few to stand for the patient"


def test_reference_is_told_in_units_of_the_input() -> None:
    hounsfield = torch.tensor([[TOY.intensity.centre, 40.0], [np.nan, np.nan]])
    (middle, spread), unknown = relative_reference(hounsfield, TOY.intensity)
    assert float(middle) == pytest.approx(-TOY.intensity.offset / TOY.intensity.scale)
    x_per_hu = 1 / (TOY.intensity.width * TOY.intensity.scale)
    assert float(spread) == pytest.approx(40 * x_per_hu, rel=0.03)
    assert unknown.isnan().all()


@pytest.fixture(scope="module")
def model() -> Model:
    """Untrained weights that see a patient's other vertebrae, calibrated by hand."""
    torch.manual_seed(3)
    architecture = replace(TOY.architecture, contrast=True, context=True)
    decision = Decision(gate_p=0.0, min_pixels=3, baseline="hidden", least_span=0.6)
    profile = replace(
        TOY, architecture=architecture, schedule=FAST, decision=decision, confidence=CALIBRATED
    )
    network = filled(architecture)
    z = network.encode(make_batch(toy_slices(16), np.arange(16), profile, None).x).double()
    coef = torch.linspace(-1, 1, architecture.latent)
    classifier = LinearClassifier(coef, 0.5, z.mean(0), z.std(0).clamp(min=1e-3))
    return Model(network, classifier, profile, CPU, "0" * 64)


def vertebrae(model: Model, shift: float = 0.0) -> dict[str, VertebraInput]:
    """Four discs of marrow; ``shift`` is added to the density of all but the first."""
    slices = toy_slices(16)
    found = {}
    for number, level in enumerate(("T10", "T11", "T12", "L1")):
        rows = np.arange(4 * number, 4 * number + 4)
        hounsfield = slices.image[rows].astype(np.float32) + (shift if number else 0.0)
        x = make_batch(slices, rows, model.profile, None).x
        found[level] = VertebraInput(x, hounsfield, slices.body[rows], np.arange(4))
    return found


def encode_each(model: Model, shown: Mapping[str, tuple[Tensor, Tensor]]) -> list[Latents]:
    return [encode(x, model, reference=reference) for x, reference in shown.values()]


def test_vertebra_is_judged_beside_the_others(model: Model) -> None:
    def run(patient: dict[str, VertebraInput]) -> dict[str, float]:
        seen = encode_patient(patient, partial(encode_each, model), model.profile)
        assert all(one.calibrated and one.distance is None for one in seen.values())
        return {level: one.p for level, one in seen.items()}

    first, denser = run(vertebrae(model)), run(vertebrae(model, 150.0))
    assert first["T10"] != pytest.approx(denser["T10"], abs=1e-4), "the same bone, other company"
    lone = vertebrae(model)["T10"]
    alone = encode_patient({"T10": lone}, partial(encode_each, model), model.profile)["T10"]
    assert alone.latents.reference.isnan().all()
    torch.testing.assert_close(alone.latents.z, encode(lone.x, model).z)


def test_distance_counts_in_that_of_training(model: Model) -> None:
    profile = replace(model.profile, confidence=replace(CALIBRATED, distance_limit=0.5))
    seen = encode_patient(vertebrae(model), partial(encode_each, model), profile)
    for one in seen.values():
        size = np.sqrt(np.mean(one.latents.z.numpy().mean(axis=0) ** 2))
        assert one.distance == pytest.approx(size / 0.5, rel=1e-5)


def test_all_diseased_is_not_called_healthy() -> None:
    high = log_odds(0.99)
    beside_healthy = vertebra_probability(CALIBRATED, high, [log_odds(0.05)] * 4)
    beside_ill = vertebra_probability(CALIBRATED, high, [high] * 4)
    half_ill = vertebra_probability(CALIBRATED, high, [high] * 2 + [log_odds(0.05)] * 3)
    assert beside_healthy == half_ill > 0.95, "the healthier half is the reference"
    assert beside_ill >= 0.5
    usual = vertebra_probability(CALIBRATED, -2.0, [-2.0] * 4)
    assert usual == pytest.approx(sigmoid(-3.0)), "as all others, and as most are"


def test_candidates_are_judged_by_the_slopes_of_their_type(model: Model) -> None:
    one = vertebrae(model)["T11"]
    seen = attribute(one.x, one.body, model)
    lesions = join_slices(list(seen.scored))
    assert {lesion.type for lesion in lesions} == set(LESION_TYPES)
    given = (one.x[:, 0].numpy(), seen.difference, one.body, 0.5, model.profile)
    judged = with_probabilities(lesions, *given)
    assert [c.score for c in judged] == sorted((c.score for c in judged), reverse=True)
    for lesion in judged:
        areas = [int(part.mask.sum()) for part in lesion.parts]
        alone = float(np.average([part.p for part in lesion.parts], weights=areas))
        own = np.clip(np.log(alone / (1 - alone)), -7.0, 7.0)
        expected = sigmoid(4 * own - 2) if lesion.type == "lytic" else sigmoid(1.0)
        assert lesion.score == lesion.probability == pytest.approx(expected)
    unfitted = replace(model.profile, confidence=replace(CALIBRATED, lytic=()))
    again = with_probabilities(lesions, *given[:-1], unfitted)
    assert {c.probability for c in again if c.type == "lytic"} == {0.0}


def test_candidates_are_described_by_where_they_lie_and_what_they_say_alone() -> None:
    """A rim along an endplate is at the surface, a focus in the middle is not."""
    body = np.zeros((4, 24, 24), bool)
    body[:, 2:22, 2:22] = True
    x = np.where(body, 0.1, -1.0).astype(np.float32)
    x[1:3, 2:22, 18:22] = x[1:3, 8:14, 8:14] = 0.6

    def described(p: float, rows: slice, columns: slice, *numbers: int) -> dict[str, float]:
        mask = np.zeros(body.shape[1:], bool)
        mask[rows, columns] = True
        parts = tuple(SliceCandidate(n, "blastic", mask, 1.0, p, -0.5) for n in numbers)
        difference = np.where(x > 0.5, -0.5, 0.0).astype(np.float32)
        found = candidate_features(Lesion3D("blastic", parts), x, difference, body, 0.4)
        return dict(zip(FEATURES, found))

    rim = described(0.5, slice(2, 22), slice(20, 22), 1, 2)
    focus = described(0.9, slice(8, 14), slice(8, 14), 1, 2)
    sure = described(1.0, slice(8, 14), slice(8, 14), 1, 2)
    surface, alone = "share at the surface of the body", "log odds of P with it alone revealed"
    assert (rim[surface], focus[surface]) == (1.0, 0.0)
    assert rim[alone] == 0.0 and focus[alone] == pytest.approx(np.log(9)) and sure[alone] == 7.0
    assert focus["log odds of the vertebra"] == 0.4
    assert np.exp(focus["log of the share of the body"]) == pytest.approx(2 * 36 / body.sum())
    darker = described(0.9, slice(8, 14), slice(15, 17), 1, 2)
    contrast = "contrast to its surroundings in contrasts of the bone"
    assert focus[contrast] > 0.5 > 0.0 > darker[contrast]


def test_stability_is_the_share_of_changes_that_show_a_candidate_again(model: Model) -> None:
    one = vertebrae(model)["T11"]
    seen = attribute(one.x, one.body, model)
    lesions = join_slices(list(seen.scored))
    lone = torch.full((1, 2), torch.nan)
    stable = with_stability(lesions, one.x, one.body, lone, model)
    assert {c.stability for c in stable} <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert [replace(c, stability=None) for c in stable] == lesions, "nothing else changes"
    strict = replace(model.profile.decision, lytic_floor=9.0, blastic_floor=9.0)
    blind = replace(model, profile=replace(model.profile, decision=strict))
    again = with_stability(lesions, one.x, one.body, lone, blind)
    assert {c.stability for c in again} == {0.0}, "nothing stands out by so much"
    assert with_stability([], one.x, one.body, lone, model) == []


def test_at_its_limit_nothing_is_doubted() -> None:
    one = Candidate(
        "L1-lytic-1", "lytic", 0.9, 1.0, (0, 0, 0), (0,) * 6, 0.1, None, (3,), stability=0.5
    )
    limits = replace(CALIBRATED, least_stability=0.75)
    assert doubts(1.01, [one], limits) == (UNLIKE_TRAINING, f"lytic 1 {UNSTABLE}")
    assert doubts(1.0, [one], replace(limits, least_stability=0.5)) == ()
    assert doubts(None, [one], CALIBRATED) == (), "the limit is not known"
    assert doubts(None, [replace(one, stability=None)], limits) == (), "it was not computed"


# --- Fitting and choosing -------------------------------------------------------------------------


def drawn_candidate(rng: np.random.Generator, kind: LesionType, true: bool) -> SeenCandidate:
    score = float(np.clip(rng.normal(0.8 if true else 0.3, 0.2), -0.5, 1.5))
    features = (score, 0.0, *rng.normal(0, 1, len(FEATURES) - 2))
    ious = (0.5,) if true else (0.0,)
    return SeenCandidate(kind, score, features, 40, 30 if true else 0, ious)


def patients_drawn(seed: int, patients: int = 90) -> list[SeenVertebra]:
    """Vertebrae of patients whose networks exaggerate, each patient by an own amount."""
    rng = np.random.default_rng(seed)
    seen = []
    for patient in range(patients):
        offset = rng.normal(2.0, 0.7)
        for _ in range(12):
            logit = rng.normal(-1.5, 1.5)
            ill = bool(rng.random() < sigmoid(logit))
            kind = LESION_TYPES[int(rng.integers(2))]
            size = float(rng.uniform(4, 20))
            found = [drawn_candidate(rng, kind, True)] if ill and rng.random() < 0.8 else []
            for other in LESION_TYPES:
                for _ in range(int(rng.integers(2))):
                    false = drawn_candidate(rng, other, False)
                    ious = (0.0,) if ill and other == kind else ()
                    found.append(replace(false, ious=ious))
            lesions: dict[LesionType, tuple[float, ...]] = {"lytic": (), "blastic": ()}
            if ill:
                lesions[kind] = (size,)
            voxels = {one: 40 * len(lesions[one]) for one in LESION_TYPES}
            raw = 3 * logit + offset
            name = f"patient {patient}"
            seen.append(SeenVertebra(name, name, ill, raw, 0.3, lesions, voxels, tuple(found)))
    return seen


def test_fitted_probabilities_hold_in_other_patients() -> None:
    confidence = fit(patients_drawn(1), [0.1, 0.2, 0.3])
    assert confidence.distance_limit == pytest.approx(0.3, abs=0.01)
    others = patients_drawn(2)
    ill = np.array([one.diseased for one in others])
    raw = np.array([sigmoid(one.logit) for one in others])
    fitted = vertebra_probabilities(confidence, others)
    assert expected_calibration_error(fitted, ill) < 0.06
    assert expected_calibration_error(raw, ill) > 0.12
    for kind in LESION_TYPES:
        pairs = [
            (p, c.true)
            for one in judge(confidence, others)
            for c, p in zip(one.seen.candidates, one.candidates)
            if c.type == kind
        ]
        p, true = (np.array(column) for column in zip(*pairs))
        assert p[true].mean() > p[~true].mean() + 0.3
        assert expected_calibration_error(p, true.astype(bool)) < 0.1


def test_slopes_stay_empty_where_nothing_is_false_or_nothing_true() -> None:
    def only(true: bool) -> list[SeenVertebra]:
        return [
            replace(one, candidates=tuple(c for c in one.candidates if c.true == true))
            for one in patients_drawn(1)
        ]

    for some in (only(True), only(False)):
        confidence = fit(some)
        assert confidence.known and confidence.lytic == confidence.blastic == ()


def test_threshold_rises_where_healthy_vertebrae_show_more() -> None:
    # Of one patient: nobody else to fit on, so that the same probabilities hold with the crowd.
    seen = [replace(one, patient="one") for one in patients_drawn(1)]
    rng = np.random.default_rng(5)
    crowded = [
        one
        if one.diseased
        else replace(one, candidates=tuple(drawn_candidate(rng, "lytic", False) for _ in range(4)))
        for one in seen
    ]
    confidence = fit(seen)
    usual, careful = choose(confidence, seen), choose(confidence, crowded)
    assert careful.threshold > usual.threshold
    assert (usual.real, usual.false_per_real) == (0, None), "no real vertebra, no goal for them"
    p = vertebra_probabilities(confidence, seen)
    ill = np.array([one.diseased for one in seen])
    chosen = usual.confidence
    assert (p[ill] >= chosen.gate_p).mean() >= 0.98, "hardly a diseased one is not edited"
    assert (p[~ill] > chosen.suspicious_p).sum() <= 0.05 * (~ill).sum() + 1


def real_patients(rng: np.random.Generator, look_alikes: int) -> list[SeenVertebra]:
    """Ten patients of ten real vertebrae; so many of all have a candidate that looks like one."""
    vertebrae = []
    for number in range(100):
        alike = (drawn_candidate(rng, "blastic", True),) if number % 100 < look_alikes else ()
        own = tuple(replace(c, right=0, ious=()) for c in alike)
        one = one_of("blastic", 0.0, *own)
        name = f"real {number % 10}"
        vertebrae.append(replace(one, patient=name, group=name, logit=2.0, real=True))
    return vertebrae


def test_threshold_leaves_real_healthy_vertebrae_in_peace() -> None:
    seen = patients_drawn(1, 15) + real_patients(np.random.default_rng(1), 8)
    confidence = fit(seen)
    choice, apart = choose(confidence, seen), judge_apart(confidence, seen)

    def shown(threshold: float) -> int:
        return sum(
            p > threshold
            for one in apart
            if one.seen.real and one.p >= choice.confidence.gate_p
            for p in one.candidates
        )

    assert (choice.real, choice.false_per_real) == (100, shown(choice.threshold) / 100)
    assert shown(choice.threshold) <= 3, "at most 0.03 each"
    unasked = choose(confidence, [replace(one, real=False) for one in seen])
    assert unasked.threshold < choice.threshold and shown(unasked.threshold) > 3
    assert choice == choose(confidence, seen), "the same twice"


@pytest.mark.parametrize(
    ("true_of_ten", "least"),
    [
        ((4, 8, 9, 9, 9), 0.5),  # 12 of the 20 below 0.5 are true, 21 of the 30 below 0.75
        ((5, 9, 9, 9, 9), 0.25),
        ((9, 9, 9, 9, 9), 0.0),
        ((0, 0, 0, 0, 0), 1.0),
    ],
)
def test_least_stability_is_where_findings_come_to_be_true(
    true_of_ten: tuple[int, ...], least: float
) -> None:
    seen = patients_drawn(1, 12)
    stabilities = {n / 4: count for n, count in enumerate(true_of_ten)}
    certain = tuple(9.0 if n == ALONE else 0.0 for n in range(len(FEATURES)))
    for stability, count in stabilities.items():
        for number in range(10):
            ious = (0.5,) if number < count else ()
            one = SeenCandidate("lytic", 1.0, certain, 40, 20 if ious else 0, ious, stability)
            seen.append(replace(one_of("lytic", 12.0, one), patient="A", logit=9.0))
    judged = judge(replace(fit(seen), lytic=(1.0, *certain)), seen)
    counts = findings_by_stability(judged, 0.5)
    assert counts == {s: (count, 10) for s, count in stabilities.items()}
    assert least_stability(judged, 0.5) == least


def test_healthy_vertebrae_count_as_often_as_a_reader_meets_them() -> None:
    drawn, real = patients_drawn(1, 15), real_patients(np.random.default_rng(3), 12)
    ill = sum(one.diseased for one in drawn)
    of_real, of_drawn = healthy_weights(drawn + real)
    healthy = of_drawn * (len(drawn) - ill) + of_real * len(real)
    assert ill / (ill + healthy) == pytest.approx(DISEASED_SHARE)
    assert of_drawn < 0.1, "what was painted to teach is rare in patients"
    assert healthy_weights(drawn) == (1.0, 1.0), "there is none to count"
    assert healthy_weights(real)[0] == 1.0, "enough are healthy"
    with_real, without = (np.mean(judged_p(fit(some), real)) for some in (drawn + real, drawn))
    assert with_real < without, "what healthy ones show is doubted"


def test_attribution_and_p_never_speak_against_a_candidate() -> None:
    """Few lesions may say so by chance: here all true ones have the lowest scores of all."""
    rng = np.random.default_rng(1)
    seen = []
    for one in patients_drawn(1, 15):
        candidates = tuple(
            replace(c, features=(-0.4 if c.true else rng.uniform(0.5, 1.0), *c.features[1:]))
            for c in one.candidates
        )
        seen.append(replace(one, logit=-one.logit, candidates=candidates))
    confidence = fit(seen)
    for slopes in (confidence.lytic, confidence.blastic):
        assert slopes[1 + ALONE] == 0.0, "no more than nothing"
        assert slopes[1 + FEATURES.index("log odds of the vertebra")] >= 0.0
        assert min(slopes[3:]) < 0.0, "others may"


def judged_p(confidence: Confidence, seen: list[SeenVertebra]) -> list[float]:
    return [p for one in judge(confidence, seen) for p in one.candidates]


def test_nobody_is_judged_by_what_is_known_of_him() -> None:
    seen = patients_drawn(1, 12)
    name = seen[0].patient

    def without_truth(one: SeenVertebra) -> SeenVertebra:
        blind = tuple(replace(c, right=0, ious=()) for c in one.candidates)
        return replace(one, diseased=False, candidates=blind)

    told = [without_truth(one) if one.patient == name else one for one in seen]
    before, after = (judge_apart(fit(some), some) for some in (seen, told))
    assert [one.seen for one in before] == seen, "in their order"
    for mine, changed in zip(before, after):
        if mine.seen.patient == name:
            assert (mine.p, mine.candidates) == (changed.p, changed.candidates)
        else:
            assert mine.p != changed.p
    lone = [one for one in seen if one.patient == name]
    confidence = fit(seen)
    assert judge_apart(confidence, lone) == judge(confidence, lone), "there are no others"


def one_of(kind: LesionType, size: float, *candidates: SeenCandidate) -> SeenVertebra:
    lesions: dict[LesionType, tuple[float, ...]] = {"lytic": (), "blastic": ()}
    voxels: dict[LesionType, int] = {"lytic": 0, "blastic": 0}
    if size:
        lesions[kind], voxels[kind] = (size,), 40
    return SeenVertebra("A", "A", bool(size), 0.0, 0.3, lesions, voxels, candidates)


def seen_candidate(kind: LesionType, score: float, *ious: float) -> SeenCandidate:
    features = tuple(score if n == ALONE else 0.0 for n in range(len(FEATURES)))
    return SeenCandidate(kind, score, features, 40, 20 if any(ious) else 0, ious)


def known_set() -> list[SeenVertebra]:
    """A lesion found, a small one missed, one found beside a false finding; two false in health."""
    return [
        one_of("lytic", 12.0, seen_candidate("lytic", 1.0, 0.5)),
        one_of("lytic", 5.0, seen_candidate("lytic", 0.0, 0.4)),
        one_of("lytic", 8.0, seen_candidate("lytic", 1.0, 0.2), seen_candidate("lytic", 1.0, 0.0)),
        one_of("lytic", 0.0, seen_candidate("lytic", 1.0), seen_candidate("lytic", 1.0)),
        one_of("lytic", 0.0),
    ]


def test_counts_and_figures_are_those_of_the_truth() -> None:
    judged = judge(CALIBRATED, known_set())
    counts = tally(judged, "lytic", 0.6)
    assert (counts.found, counts.missed, counts.false) == (2, 1, 3)
    assert counts.f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 3))
    said = figures(judged, 0.6, 0.0)
    assert said["lytic found, 0 to 6 mm"] == "0 of 1"
    assert said["lytic found, 6 to 10 mm"] == "1 of 1"
    assert said["lytic found, 10 mm and more"] == "1 of 1"
    assert said["false findings per healthy vertebra"][0] == 1.0
    assert said["by patient"]["A"]["false findings in healthy vertebrae"] == 2
    closed = figures(judged, 0.6, 0.99)
    assert closed["lytic F1"][0] == 0.0, "no vertebra passes the gate"


@pytest.mark.parametrize("least", [0.0, 10.0])
@pytest.mark.parametrize("kind", LESION_TYPES)
def test_a_redrawn_set_counts_each_vertebra_as_often_as_it_was_drawn(
    kind: LesionType, least: float
) -> None:
    seen = patients_drawn(1, 12)
    judged = judge(fit(seen), seen)
    measure = redrawn_f1(judged, kind, 0.5, 0.1, least)
    rng = np.random.default_rng(2)
    for size in (1, 5, len(seen)):
        rows = rng.integers(0, len(seen), size)
        counts = tally([judged[row] for row in rows], kind, 0.5, 0.1, least_mm=least)
        expected = counts.f1 if counts.found + counts.missed else float("nan")
        assert measure(rows) == pytest.approx(expected, abs=0, nan_ok=True)


# --- The commands ---------------------------------------------------------------------------------


SETTINGS = ("--floor", "0.09", "--draws", "3")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the weights make of drawn vertebrae with simulated lesions, of two patients."""
    folder = tmp_path_factory.mktemp("observed")
    profile, rng = load_model(WEIGHTS, "cpu").profile, np.random.default_rng(4)
    canvases = [
        replace(bone, patient=name) for bone, name in zip(drawn_vertebrae(rng, 2), ("Ada", "Ben"))
    ]
    (folder / "cases").mkdir()
    geometry = replace(profile.geometry, slice_mm=3.2)  # half of the slices
    recipe = Recipe(2, 20, None, geometry, drawn=2)
    simulate(recipe, canvases, folder / "cases", lambda *_: None)
    words = ["benchmark", "observe", str(folder / "cases"), "--patients", "ada,Ben", *SETTINGS]
    words += ["--weights", str(WEIGHTS)]
    out = folder / "both-simulated.json"
    assert main([*words, "--out", str(out), "--device", "cpu", "--stability"]) == 0
    observer = read_observations(out).observer
    for seed in (1, 2):
        drawn = [replace(one, patient=f"{seed} {one.patient}") for one in patients_drawn(seed, 8)]
        write_observations(folder / f"{seed}-drawn.json", observer, drawn)
    return folder


@pytest.mark.slow
def test_observations_hold_truth_and_candidates(observed: Path) -> None:
    seen = read_observations(observed / "both-simulated.json").vertebrae
    assert len(seen) == 20 and {one.patient for one in seen} == {"Ada", "Ben"}
    ill = [one for one in seen if one.diseased]
    assert 0 < len(ill) < 20
    for one in seen:
        sizes = [mm for kind in LESION_TYPES for mm in one.lesions[kind]]
        assert all(1 < mm < 60 for mm in sizes)
        assert one.diseased or not sizes
        for candidate in one.candidates:
            assert len(candidate.features) == len(FEATURES)
            assert 0 <= candidate.right <= candidate.voxels
            assert len(candidate.ious) == len(one.lesions[candidate.type])
            likely = candidate.score > LIKELY
            assert (candidate.stability is not None) == likely, "of likely candidates alone"
    for kind in LESION_TYPES:
        assert any(c.true for one in ill for c in one.candidates if c.type == kind), kind
    healthy = [one.logit for one in seen if not one.diseased]
    assert np.mean([one.logit for one in ill]) > np.mean(healthy)


def test_pages_say_what_the_interval_of_a_binned_error_is_not() -> None:
    """Of probabilities that are right, the redrawn error is larger than the error itself."""
    rng = np.random.default_rng(1)
    p = rng.beta(0.6, 1.4, 240)
    true = rng.random(240) < p
    rows = rng.integers(0, 240, (200, 240))
    redrawn = [expected_calibration_error(p[own], true[own]) for own in rows]
    assert np.mean(redrawn) > 1.2 * expected_calibration_error(p, true)
    pages = sorted((REPOSITORY / "Resources" / "Benchmark").rglob("probabilities.md"))
    assert len(pages) == 2 and all(BINNED in page.read_text("utf-8") for page in pages)


@pytest.mark.slow
def test_calibrated_weights_give_the_probabilities_that_were_fitted(
    observed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, out = observed / "both-simulated.json", tmp_path / "weights"
    words = ["calibrate", str(WEIGHTS), str(seen), "--training", str(seen)]
    assert main([*words, "--out", str(out), *SETTINGS]) == 0
    said = capsys.readouterr().out
    model, before = load_model(out, "cpu"), load_model(WEIGHTS, "cpu")
    profile = model.profile
    assert f"threshold {profile.decision.threshold:g}" in said and "cannot be checked" not in said
    assert profile.confidence.known and len(profile.confidence.lytic) == 1 + len(FEATURES)
    assert (profile.decision.lytic_floor, profile.schedule.draws) == (0.09, 3)
    assert profile.decision.min_slices == before.profile.decision.min_slices, "as it was"
    assert profile.provenance["validation"]["patients"] == ["Ada", "Ben"]
    assert torch.equal(model.classifier.coef, before.classifier.coef)
    sizes = [one.distance for one in read_observations(seen).vertebrae]
    assert profile.confidence.distance_limit == pytest.approx(np.quantile(sizes, 0.99))
    assert profile.provenance["chosen on"] == ["Ada", "Ben"]
    assert profile.provenance["validation"]["observed by"] == [
        observer_of(WEIGHTS, profile).networks
    ]

    report = ["benchmark", "probabilities", str(seen), "--weights", str(out)]
    folds = [word for n in (1, 2) for word in ("--fold", f"{observed}/{n}-drawn.json")]
    assert main([*report, *folds, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "probabilities.json").read_text("utf-8"))["sets"]
    counts = {name: (row["vertebrae"], len(row["by patient"])) for name, row in rows.items()}
    assert counts == {"cross-validated: drawn": (192, 16), "both-simulated": (20, 2)}
    whose = "patients on whom thresholds or probabilities were chosen"
    assert rows["both-simulated"][whose] == "Ada, Ben"
    assert rows["both-simulated"]["patients learned from"] == "none"
    for row in rows.values():
        value, low, high = row["vertebra AUC"]
        assert 0 <= low <= value <= high <= 1
    known = read_observations(seen).vertebrae
    judged = judge(profile.confidence, known)
    subjects = load_simulated(observed / "cases", profile)
    beside = HideAndSeek("own", model).beside(subjects)
    told = [beside.p_beside[id(subject.case)] for subject in subjects]
    assert told == pytest.approx([one.p for one in judged], abs=1e-4), "the benchmark's P is theirs"
    first = next(n for n, one in enumerate(judged) if one.seen.diseased and one.candidates)
    found, p = beside.detect(beside.prepare(subjects[first]), beside.fixed.settings)
    assert p == pytest.approx(judged[first].p, abs=1e-4)
    scores = sorted(one.score for one in found)
    assert scores == pytest.approx(sorted(judged[first].candidates), abs=1e-3)
    mean = np.mean([one.p for one in judged if not one.seen.diseased])
    assert rows["both-simulated"]["mean P of healthy vertebrae"][0] == pytest.approx(mean, abs=1e-3)
    raw, plain_profile = tmp_path / "raw", replace(profile, confidence=Confidence())
    save_model(raw, model.autoencoder, model.classifier, plain_profile)
    words = ["benchmark", "probabilities", str(seen), "--weights", str(raw)]
    assert main([*words, "--out", str(tmp_path / "plain")]) == 0
    plain = json.loads((tmp_path / "plain" / "probabilities.json").read_text("utf-8"))["sets"]
    own = [sigmoid(one.logit) for one in known if not one.diseased]
    told = plain["both-simulated"]["mean P of healthy vertebrae"][0]
    assert told == pytest.approx(np.mean(own), abs=1e-3), "as these weights have it"
    table = (tmp_path / "probabilities.md").read_text("utf-8")
    assert f"{profile.name}, {model.hash[:12]}" in table
    assert "## both-simulated, by patient" in table and BINNED in table


@pytest.mark.slow
def test_what_cannot_be_fitted_or_judged_is_refused_in_one_line(
    observed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str | Path) -> str:
        assert main([str(word) for word in words]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 or "vertebra" in err
        return err

    healthy = tmp_path / "healthy.json"
    read = read_observations(observed / "both-simulated.json")
    seen, observer = read.vertebrae, read.observer
    write_observations(healthy, observer, [one for one in seen if not one.diseased])
    out = tmp_path / "out"
    said = refused("calibrate", WEIGHTS, healthy, "--out", out, *SETTINGS)
    assert f"{healthy}: no diseased vertebra was observed: nothing to fit on" in said
    ill = [one for one in seen if one.diseased]
    for name, some, lack in (
        ("ill", ill, "no healthy vertebra was observed"),
        ("blind", [replace(one, candidates=()) for one in seen], "no lytic lesion was found"),
    ):
        write_observations(tmp_path / f"{name}.json", observer, some)
        path = tmp_path / f"{name}.json"
        assert lack in refused("calibrate", WEIGHTS, path, "--out", out, *SETTINGS)
    cases = observed / "cases"
    for names, unknown in (("Cyn", "Cyn"), ("Ada,Bee", "Bee"), ("Dan,Ben,Cyn", "Dan, Cyn")):
        words = ("benchmark", "observe", cases, "--patients", names, "--out", out)
        assert f"contains no vertebrae of {unknown}\n" in refused(*words)
    assert not out.exists()
    other = tmp_path / "candidates.json"
    other.write_text('{"schema": "1.1", "vertebrae": []}', "utf-8")
    assert "as `benchmark observe` writes them" in refused(
        "calibrate", WEIGHTS, other, "--out", out
    )
    onto = ("benchmark", "observe", cases, "--patients", "Ada", "--out", other)
    assert f"{other}: is there already and contains no observations" in refused(*onto)
    assert "schema" in other.read_text("utf-8")
    damaged = tmp_path / "damaged.json"
    damaged.write_text('[{"patient": "Ada"', encoding="utf-8")
    for broken in (damaged, tmp_path / "not there.json"):
        assert broken.name in refused("calibrate", WEIGHTS, broken, "--out", out)
        report = ("benchmark", "probabilities", broken, "--weights", WEIGHTS, "--out", out)
        assert broken.name in refused(*report)
    fold = ("--fold", observed / "1-drawn.json")
    lone = ("benchmark", "probabilities", *fold, "--weights", WEIGHTS, "--out", out)
    assert "no diseased vertebra was observed in the folds beside 1" in refused(*lone)
    twice = (observed / "both-simulated.json", tmp_path / "again" / "both-simulated.json")
    twice[1].parent.mkdir()
    write_observations(twice[1], observer, seen)
    both = ("benchmark", "probabilities", *twice, "--weights", WEIGHTS, "--out", out)
    assert f"{twice[1]}: has the name of another file" in refused(*both)


@pytest.mark.slow
def test_files_of_one_name_in_two_folders_are_of_two_groups(observed: Path, tmp_path: Path) -> None:
    """Else vertebrae of different patients would be judged beside each other."""
    seen = read_observations(observed / "both-simulated.json")
    profiles = []
    for names in (("a/seen.json", "b/seen.json"), ("one.json", "other.json")):
        paths = [tmp_path / name for name in names]
        for number, path in enumerate(paths):
            path.parent.mkdir(exist_ok=True)
            shifted = [replace(one, logit=one.logit + 2.0 * number) for one in seen.vertebrae]
            write_observations(path, seen.observer, shifted)
        out = tmp_path / f"weights {names[0][0]}"
        words = ["calibrate", str(WEIGHTS), *map(str, paths), "--out", str(out), *SETTINGS]
        assert main(words) == 0
        profiles.append(load_model(out, "cpu").profile.confidence)
    assert profiles[0] == profiles[1]


# --- Who observed ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's settings with other networks, which learned from the third patient drawn."""
    folder = tmp_path_factory.mktemp("foreign") / "weights"
    model = load_model(WEIGHTS, "cpu")
    other = LinearClassifier(
        *(-model.classifier.coef, 0.0, model.classifier.mean, model.classifier.scale)
    )
    own = replace(model.profile, provenance={"patients": ["Patient  2"]}, confidence=Confidence())
    save_model(folder, model.autoencoder, other, own)
    return folder


def written(path: Path, weights: Path, seen: list[SeenVertebra], **decision: float) -> Path:
    """Observations as these weights would have made them, with other settings perhaps."""
    profile = load_model(weights, "cpu").profile
    own = replace(profile, decision=replace(profile.decision, **decision))  # type: ignore[arg-type]
    write_observations(path, observer_of(weights, own), seen)
    return path


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Return the one line that a command refuses with."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    line, end = capsys.readouterr().err.split("\n")
    assert end == ""
    return line


def test_probabilities_fit_the_settings_that_were_observed_with(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = patients_drawn(1, 8)
    words = ("calibrate", WEIGHTS, "--out", tmp_path / "out")
    observed = written(tmp_path / "own.json", WEIGHTS, seen)
    for settings, said in (
        (("--floor", "0.3"), "lytic_floor 0.1 (now 0.3), blastic_floor 0.1 (now 0.3)"),
        (("--draws", "4"), "draws 2 (now 4)"),
        (("--outline", "0"), "outline_share 0.3 (now 0.0)"),
    ):
        assert refusal(capsys, *words, observed, *settings).endswith(
            f"{observed}: was observed with other settings: {said}"
        )
    floors = written(tmp_path / "floors.json", WEIGHTS, seen, lytic_floor=0.2)
    assert "lytic_floor 0.2 (now 0.1)" in refusal(capsys, *words, observed, floors)
    assert "lytic_floor 0.2" in refusal(capsys, *words, observed, "--training", floors)
    assert "other networks" in refusal(
        *(capsys, *words, observed, "--training"),
        written(tmp_path / "far.json", foreign, patients_drawn(2, 2)),
    )
    assert not (tmp_path / "out").exists()
    # The threshold is chosen afterwards, and observations of other folds are right.
    moved = written(tmp_path / "moved.json", WEIGHTS, seen, threshold=0.9)
    fold = written(tmp_path / "fold.json", foreign, [s for s in seen if s.patient != "patient 2"])
    assert main([str(word) for word in (*words, moved, fold)]) == 0
    made = load_model(tmp_path / "out", "cpu").profile.provenance["validation"]["observed by"]
    assert len(made) == 2


def test_networks_are_not_calibrated_on_whom_they_learned_from(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever networks observed, and in whatever spelling."""
    words = ("calibrate", WEIGHTS, "--out", tmp_path / "out")
    path = written(tmp_path / "fold.json", foreign, patients_drawn(1, 8))
    said = "was observed by networks that learned from its patients: patient 2"
    assert said in refusal(capsys, *words, path)
    model = load_model(WEIGHTS, "cpu")
    later = replace(model.profile, provenance={"start": {"patients": ["PATIENT 5"]}})
    save_model(tmp_path / "later", model.autoencoder, model.classifier, later)
    known = written(tmp_path / "own.json", WEIGHTS, patients_drawn(1, 8))
    line = refusal(capsys, "calibrate", tmp_path / "later", known, "--out", tmp_path / "out")
    assert line.endswith("learned from its patients: patient 5")
    counted = replace(model.profile, provenance={"own patients": 12})
    save_model(tmp_path / "counted", model.autoencoder, model.classifier, counted)
    unknown = written(tmp_path / "unknown.json", tmp_path / "counted", patients_drawn(1, 8))
    out = tmp_path / "calibrated"
    assert main(["calibrate", str(tmp_path / "counted"), str(unknown), "--out", str(out)]) == 0
    said = (
        f"{unknown}: they learned from 12 patients, of whom only the number is stated: whether it"
    )
    assert said in capsys.readouterr().out
    thresholds = load_model(out, "cpu").profile.provenance["thresholds"]
    assert thresholds == "chosen on patients of whom it is not known whether they were in training"


def test_weights_are_judged_by_their_own_observations(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("benchmark", "probabilities", "--out", tmp_path / "out")
    other = written(tmp_path / "other.json", foreign, patients_drawn(1, 2))
    assert f"{other}: was observed by other networks than those of" in refusal(
        capsys, *words, other
    )
    floors = written(tmp_path / "floors.json", WEIGHTS, patients_drawn(1, 2), blastic_floor=0.2)
    assert "other settings: blastic_floor 0.2 (now 0.1)" in refusal(capsys, *words, floors)
    old = json.loads(other.read_text("utf-8"))
    del old["observer"]
    other.write_text(json.dumps(old), encoding="utf-8")
    for command in (words, ("calibrate", WEIGHTS, "--out", tmp_path / "out")):
        line = refusal(capsys, *command, other)
        assert line.endswith("make it again with `hideseekseg benchmark observe`")


def test_folds_share_no_person_and_no_settings_differ(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cross_validated(*folds: Path) -> tuple[str | Path, ...]:
        given = [word for fold in folds for word in ("--fold", fold)]
        return ("benchmark", "probabilities", *given, "--out", tmp_path / "out")

    def named(number: int, name: str = "{} {}") -> list[SeenVertebra]:
        seen = patients_drawn(number, 6)
        return [replace(one, patient=name.format(number, one.patient)) for one in seen]

    first = written(tmp_path / "1-drawn.json", WEIGHTS, named(1))
    again = written(tmp_path / "2-drawn.json", WEIGHTS, named(1))
    said = f"{again}: shows 1 patient 0, who is in the fold 1 as well"
    assert refusal(capsys, *cross_validated(first, again)).endswith(said)
    spelled = [replace(one, patient=one.patient.upper()) for one in named(1)[-12:]]
    written(again, WEIGHTS, [*named(2), *spelled])
    assert "shows 1 PATIENT 5, who" in refusal(capsys, *cross_validated(first, again))
    written(again, WEIGHTS, named(2), lytic_floor=0.2)
    assert "other settings: lytic_floor" in refusal(capsys, *cross_validated(first, again))
    written(again, foreign, named(2, "{1}"))
    assert "learned from its patients: patient 2" in refusal(capsys, *cross_validated(first, again))
    more = written(tmp_path / "1-more.json", foreign, named(1))
    written(again, WEIGHTS, named(2))
    assert main([str(word) for word in cross_validated(first, again, more)]) == 0


def test_one_person_of_two_files_is_left_out_as_one() -> None:
    """Else the probabilities that judge a patient would be fitted on the same patient."""
    seen = patients_drawn(1, 3)
    other = [replace(one, patient=one.patient.upper()) for one in seen]
    observer = observer_of(WEIGHTS, load_model(WEIGHTS, "cpu").profile)
    both = joined([Observations(observer, tuple(seen)), Observations(observer, tuple(other))])
    assert {one.patient for one in both} == {one.patient for one in seen}
    assert len({one.group for one in both}) == 6, "but not judged beside the other file's"
