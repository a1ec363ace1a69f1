"""Every method of the benchmark finds what it should on toys with an obvious lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.benchmark import toys
from helpers.models import CPU
from helpers.vertebrae import TOY, toy_slices
from hideseekseg.attribution import encode
from hideseekseg.benchmark.ablations import ablations, run_ablations
from hideseekseg.benchmark.cases import BenchmarkCase
from hideseekseg.benchmark.methods.baselines import (
    NAMES,
    Logit,
    OtsuHiding,
    activations,
    anomaly_architecture,
    anomaly_method,
    cams,
    change_map,
    difference_map,
    first_component,
    otsu,
    train_anomaly,
)
from hideseekseg.benchmark.methods.method import HideAndSeek, Method, run, with_profile
from hideseekseg.benchmark.methods.trained import (
    UNet,
    load_network,
    save_network,
    train_unet,
    unet_method,
)
from hideseekseg.benchmark.metrics import measure
from hideseekseg.benchmark.realism import realism, removed_share
from hideseekseg.benchmark.report.pictures import SHOWN, draw_examples, examples
from hideseekseg.benchmark.threshold_choice import choose
from hideseekseg.errors import InputError
from hideseekseg.findings import LESION_TYPES, LesionType
from hideseekseg.lesions import p_of_vertebra
from hideseekseg.model.autoencoder import DiffusionAutoencoder
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import FEATURES, Confidence, Decision, Schedule
from hideseekseg.model.weights import Model
from hideseekseg.simulation.random_fields import Mask
from hideseekseg.training.evaluation import LEAST_IOU, Edited, detect, edit_case
from hideseekseg.training.train import TrainingSettings, train
from hideseekseg.training.trainer import TrainingProgress


def silent(now: TrainingProgress) -> None:
    pass


@pytest.fixture(scope="module")
def known() -> list[BenchmarkCase]:
    return toys(48)


@pytest.fixture(scope="module")
def unseen() -> list[BenchmarkCase]:
    return toys(32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Trained for seconds: it knows spots, if not well."""
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
    decision = Decision(healthy_p=1e-3, baseline="hidden", candidate_quantile=0.8, threshold=0.3)
    profile = replace(TOY, schedule=schedule, decision=decision)
    trained = train(toy_slices(), profile, settings, tmp_path_factory.mktemp("toy"), silent)
    network = trained.autoencoder.eval()
    return Model(network, trained.classifier, trained.profile, CPU, hash="0123456789abcdef")


def f1_of(
    method: Method, known: Sequence[BenchmarkCase], unseen: Sequence[BenchmarkCase]
) -> dict[str, float]:
    tuned = choose(method, known)
    outcomes = run(method, unseen, tuned.settings)
    figures = measure(outcomes, tuned.thresholds, np.ones((1, len(outcomes))))
    return {kind: float(figures[f"{kind} F1 (IoU >= 0.1)"][0]) for kind in LESION_TYPES}


# ---- subjects


def test_subjects_are_vertebrae_with_twins(known: list[BenchmarkCase]) -> None:
    assert len(known) == 12
    for subject in known:
        assert subject.vertebra.startswith("A toy-")
        assert subject.twin is not None and subject.twin.shape == subject.case.x.shape
        changed = (subject.case.x - subject.twin).abs()[:, 0].numpy() > 0.01
        lesion = subject.case.truth["lytic"] | subject.case.truth["blastic"]
        assert (changed[lesion]).all() and not changed[~lesion].any()
        assert lesion.any() == subject.case.diseased


# ---- methods that learn nothing, or only what the weights know


def test_otsu_finds_dark_and_dense_spots(
    known: list[BenchmarkCase], unseen: list[BenchmarkCase]
) -> None:
    scores = f1_of(otsu(), known, unseen)
    assert scores["lytic"] > 0.6 and scores["blastic"] > 0.6


def test_otsu_knows_no_probability_and_survives_an_even_body(known: list[BenchmarkCase]) -> None:
    even = replace(known[0], hu=np.full_like(known[0].hu, 100.0))
    method = otsu()
    lesions, p = method.detect(
        method.prepare(even), dict.fromkeys(LESION_TYPES, method.settings[0])
    )
    assert lesions == [] and np.isnan(p)


def test_otsu_with_hiding_finds_spots(
    model: Model, known: list[BenchmarkCase], unseen: list[BenchmarkCase]
) -> None:
    scores = f1_of(OtsuHiding(model), known, unseen)
    assert scores["lytic"] > 0.4 and scores["blastic"] > 0.4


@pytest.mark.parametrize("min_slices", [1, 2])
def test_hide_and_seek_is_what_evaluation_finds(
    model: Model, unseen: list[BenchmarkCase], min_slices: int
) -> None:
    model = with_profile(model, {"min_slices": min_slices}, {})
    method = HideAndSeek("own", model)
    for subject in unseen[:4]:
        expected = detect(edit_case(subject.case, model), model)
        lesions, p = method.detect(method.prepare(subject), method.fixed.settings)
        assert p == expected.p
        assert [le.score for le in lesions] == [le.score for le in expected.lesions]
    assert choose(method, unseen) == method.fixed


def test_methods_say_that_their_encoder_has_seen_twins(model: Model) -> None:
    labels = {"training": {"supervision": "labels"}}
    plain = replace(model, profile=replace(model.profile, provenance=labels))
    for weights, learnt in (
        (model, "vertebra labels and healthy twins"),
        (plain, "vertebra labels"),
    ):
        own: list[Method] = [HideAndSeek("own", weights), OtsuHiding(weights)]
        for method in [*own, difference_map(weights), *cams(weights)]:
            assert method.learnt_from == learnt
    assert otsu().learnt_from == "nothing"


def test_difference_map_finds_spots(
    model: Model, known: list[BenchmarkCase], unseen: list[BenchmarkCase]
) -> None:
    scores = f1_of(difference_map(model), known, unseen)
    assert max(scores.values()) > 0.4


def test_change_map_of_the_encoder_finds_spots(
    known: list[BenchmarkCase], unseen: list[BenchmarkCase], tmp_path: Path
) -> None:
    settings = TrainingSettings(
        "twins", encoder_steps=150, decoder_steps=0, encoder_batch=16, encoder_rate=5e-3
    )
    profile = replace(TOY, architecture=replace(TOY.architecture, change_map=True))
    trained = train(toy_slices(), profile, settings, tmp_path, silent)
    network = trained.autoencoder.eval()
    weights = Model(network, trained.classifier, trained.profile, CPU, hash="0123456789abcdef")
    scores = f1_of(change_map(weights), known, unseen)
    assert min(scores.values()) > 0.4


def test_every_method_that_takes_our_classifier_sees_the_patient_as_we_do(
    unseen: list[BenchmarkCase],
) -> None:
    """Weights that judge beside the patient's other vertebrae: gate and P are then the same."""
    pytest.importorskip("torchcam", reason="torchcam is not there: pip install .[benchmark]")
    torch.manual_seed(1)
    profile = replace(
        TOY, architecture=replace(TOY.architecture, context=True, change_map=True), provenance={}
    )
    network = DiffusionAutoencoder(profile.architecture).eval()
    latent = profile.architecture.latent
    classifier = LinearClassifier(torch.randn(latent), 0.0, torch.zeros(latent), torch.ones(latent))
    weights = Model(network, classifier, profile, CPU, hash="0123456789abcdef")
    reference = torch.tensor([[0.2, 0.1]]).expand(len(unseen[0].case.x), 2)
    case = replace(unseen[0].case, reference=reference)
    subject = replace(unseen[0], case=case)
    expected = encode(case.x, weights, reference=reference).p.numpy()
    assert np.abs(expected - encode(case.x, weights).p.numpy()).max() > 1e-3
    _, own = HideAndSeek("own", weights).detect(edit_case(case, weights), {})
    assert own == p_of_vertebra(expected)
    for method in (difference_map(weights), change_map(weights), *cams(weights)):
        assert {maps.p for maps in method.prepare(subject)} == {own}, method.name
    _, p = OtsuHiding(weights).prepare(subject)
    np.testing.assert_array_equal(p, expected)


def test_every_method_sees_the_slices_that_are_analysed_and_answers_for_the_vertebra(
    model: Model, unseen: list[BenchmarkCase]
) -> None:
    torch.manual_seed(2)
    anomaly = DiffusionAutoencoder(anomaly_architecture(TOY)).eval()
    maps = [method for method in cams(model) if method.name == "EigenCAM"]
    nets = [unet_method(UNet().eval()), anomaly_method(anomaly)]
    own = [HideAndSeek("own", model), HideAndSeek("all", model, hiding=False)]
    methods: list[Method] = [*own, difference_map(model), otsu(), OtsuHiding(model), *maps, *nets]
    chosen = np.array([1, 2])
    for method in methods:
        found = 0
        for subject in unseen:
            some = replace(subject, case=replace(subject.case, chosen=chosen))
            alone = some.shown()
            assert len(alone.hu) == len(alone.case.x) == 2 and alone.twin is not None
            setting = dict.fromkeys(LESION_TYPES, next(iter(method.settings), None))
            lesions, p = method.detect(method.prepare(some), setting)
            expected, same = method.detect(method.prepare(alone), setting)
            assert p == same or np.isnan([p, same]).all(), method.name
            shape = subject.hu.shape
            assert [lesion.score for lesion in lesions] == [lesion.score for lesion in expected]
            for lesion, other in zip(lesions, expected):
                mask = lesion.mask(shape)
                np.testing.assert_array_equal(mask[chosen], other.mask((2, *shape[1:])))
                assert not np.delete(mask, chosen, axis=0).any(), method.name
            (outcome,) = run(method, [some], setting)
            for kind in LESION_TYPES:
                assert outcome.matches[kind].truth == subject.case.truth[kind].sum(), method.name
            found += len(lesions)
        assert found, method.name


def test_without_hiding_every_candidate_counts_of_calibrated_weights_too(
    model: Model, unseen: list[BenchmarkCase]
) -> None:
    coefficients = (-3.0, *[0.5] * len(FEATURES))
    confidence = Confidence(
        vertebra=(0.0, 1.0, 0.0), lytic=coefficients, blastic=coefficients, features=FEATURES
    )
    weights = replace(model, profile=replace(model.profile, confidence=confidence))
    for subject in unseen:
        plain, known = (HideAndSeek("all", m, hiding=False) for m in (model, weights))
        lesions = known.detect(known.prepare(subject), known.fixed.settings)[0]
        expected = plain.detect(plain.prepare(subject), plain.fixed.settings)[0]
        assert [x.score for x in lesions] == [x.score for x in expected]
        assert all(x.score == 1.0 for x in lesions)


# ---- class activation maps


def test_logit_is_the_classifiers(model: Model, unseen: list[BenchmarkCase]) -> None:
    x = unseen[1].case.x
    expected = model.classifier.logit(model.autoencoder.encode(x))
    with torch.inference_mode():
        found = Logit(model).eval()(x)[:, 0]
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_activation_maps_light_up_where_the_spot_is(
    name: str, model: Model, known: list[BenchmarkCase]
) -> None:
    pytest.importorskip("torchcam", reason="torchcam is not there: pip install .[benchmark]")
    method = next(m for m in cams(model) if m.name == name)
    gains: dict[LesionType, list[list[float]]] = {kind: [] for kind in LESION_TYPES}
    for subject in known:
        for kind in LESION_TYPES:
            lesion = subject.case.truth[kind]
            if lesion.any():
                heat = [
                    m.evidence["lytic"] + m.evidence["blastic"] for m in method.prepare(subject)
                ]
                beside = subject.case.body & ~lesion
                gains[kind].append([float(h[lesion].mean() - h[beside].mean()) for h in heat])
    # A gradient that is averaged over the picture can speak for one kind of spot at one level.
    assert max(np.mean(own, axis=0).max() for own in gains.values()) > 0.15


def test_activation_maps_are_shares_in_the_pictures_size(
    model: Model, known: list[BenchmarkCase]
) -> None:
    pytest.importorskip("torchcam", reason="torchcam is not there: pip install .[benchmark]")
    x = known[1].case.x
    for name in NAMES:
        maps = activations(Logit(model).eval(), name, x)
        assert len(maps) == len(TOY.architecture.encoder_mult)
        for heat in maps:
            assert heat.shape == (len(x), 16, 16)
            assert heat.min() >= 0 and heat.max() <= 1


def test_first_component_is_the_direction_that_varies_most() -> None:
    generator = torch.Generator().manual_seed(1)
    features = 0.01 * torch.randn(2, 5, 6, 6, generator=generator)
    features[:, 3, 2:4, 2:4] -= 4.0
    heat = first_component(features)
    assert heat.shape == (2, 6, 6)
    assert (heat[:, 2:4, 2:4] > 0.9).all()
    assert heat.sum() == pytest.approx(float(heat[:, 2:4, 2:4].sum()), rel=0.05)


# ---- networks that the benchmark trains


def test_unet_learns_the_masks_and_is_kept(
    known: list[BenchmarkCase], unseen: list[BenchmarkCase], tmp_path: Path
) -> None:
    trained = train_unet(toy_slices(), TOY, 60, 1, tmp_path, silent)
    path = tmp_path / "unet.safetensors"
    save_network(path, trained, {"steps": 60})
    network = UNet()
    assert load_network(path, network) == {"steps": 60}
    scores = f1_of(unet_method(network), known, unseen)
    assert min(scores.values()) > 0.8


def test_healthy_only_autoencoder_is_blind_to_lesions_in_training(
    known: list[BenchmarkCase], tmp_path: Path
) -> None:
    """Diseased slices may hold anything: the numbers that come out are the same."""
    slices = toy_slices(16)
    ill = slices.label == 1
    garbage = replace(slices, image=np.where(ill[:, None, None], 3000, slices.image))
    weights = []
    for number, one in enumerate((slices, garbage)):
        folder = tmp_path / str(number)
        folder.mkdir()
        network = train_anomaly(one, TOY, 3, 1, folder, silent)
        weights.append(torch.cat([p.flatten() for p in network.parameters()]))
    assert torch.equal(*weights)


def test_anomaly_is_where_it_redraws_otherwise(known: list[BenchmarkCase], tmp_path: Path) -> None:
    network = train_anomaly(toy_slices(), TOY, 50, 1, tmp_path, silent)
    path = tmp_path / "anomaly.safetensors"
    save_network(path, network, {})
    loaded = DiffusionAutoencoder(anomaly_architecture(TOY))
    load_network(path, loaded)
    method = anomaly_method(loaded)
    gains = []
    for subject in known:
        kind: LesionType = "lytic" if subject.case.truth["lytic"].any() else "blastic"
        lesion = subject.case.truth[kind]
        if lesion.any():
            maps = [m.evidence[kind] for m in method.prepare(subject)]
            beside = subject.case.body & ~lesion
            gains.append([float(m[lesion].mean() - m[beside].mean()) for m in maps])
    assert np.mean(gains, axis=0).max() > 0.05


def test_networks_that_are_missing_or_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmark train"):
        load_network(tmp_path / "unet.safetensors", UNet())
    save_network(tmp_path / "other.safetensors", torch.nn.Linear(2, 2), {})
    with pytest.raises(InputError, match="is not a network of this kind"):
        load_network(tmp_path / "other.safetensors", UNet())
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="is not a network of this kind"):
        load_network(tmp_path / "torn.safetensors", UNet())


# ---- realism


def edited(subject: BenchmarkCase, model: Model, picture: torch.Tensor) -> Edited:
    seen = edit_case(subject.case, model)
    healthy = replace(seen.healthy, reconstruction=subject.case.x, edited=picture)
    return replace(seen, healthy=healthy)


def test_removed_share_is_one_for_the_twin_and_none_for_the_image(
    model: Model, known: list[BenchmarkCase]
) -> None:
    subject = known[1]
    twin, x = subject.twin, subject.case.x
    assert twin is not None and subject.case.truth["lytic"].any()
    for share in (0.0, 0.5, 1.0):
        seen = edited(subject, model, x + share * (twin - x))
        assert removed_share(subject, seen, "lytic") == pytest.approx(share, abs=1e-5)
        assert np.isnan(removed_share(subject, seen, "blastic"))


def test_realism_asks_own_classifier_and_auditor(model: Model, known: list[BenchmarkCase]) -> None:
    figures = realism(known, model, model)
    for what in ("image", "edit", "twin"):
        own, audited = (figures[f"P of {what}, {j}"] for j in ("own classifier", "auditor"))
        assert own == audited, "here both are the same network"
    assert figures["P of image, auditor"].value > figures["P of twin, auditor"].value
    assert figures["lytic signal removed"].value > 0


# ---- ablations


def test_ablations_change_one_thing(model: Model, unseen: list[BenchmarkCase]) -> None:
    methods = [m for m in ablations(model) if "rendering" not in m.name]
    assert len({m.name for m in methods}) == len(methods)
    outcomes = dict(zip([m.name for m in methods], run_ablations(methods, unseen[:2])))
    plain = outcomes["as the weights ask for"]
    kept = outcomes["no hiding: every candidate kept"]
    for a, b in zip(plain, kept):
        assert a.p == b.p
        for kind in LESION_TYPES:
            assert (b.matches[kind].scores == 1).all()
            assert len(a.matches[kind].scores) == len(b.matches[kind].scores)


def test_accepted_findings_fall_as_the_threshold_rises(
    model: Model, unseen: list[BenchmarkCase]
) -> None:
    methods = [m for m in ablations(model) if m.name.startswith("score threshold")]
    counts = [
        sum(one.accepted(m.fixed.thresholds) for one in run(m, unseen[:2], m.fixed.settings))
        for m in methods
    ]
    assert counts == sorted(counts, reverse=True)


def test_variants_leave_the_model_as_it_is(model: Model) -> None:
    changed = with_profile(model, {"threshold": 0.9}, {"draws": 7})
    assert changed.profile.decision.threshold == 0.9 and changed.profile.schedule.draws == 7
    assert model.profile.decision.threshold == 0.3 and model.profile.schedule.draws == 2


# ---- examples


def test_failures_are_the_missed_and_the_false(
    model: Model, unseen: list[BenchmarkCase], tmp_path: Path
) -> None:
    strict = HideAndSeek("own", with_profile(model, {"threshold": 1e9}, {}))
    missed = examples(strict, unseen)
    ill = [s for s in unseen if s.case.diseased]
    assert len(missed) == min(len(ill), SHOWN)
    assert all(e.what == "missed" and e.where[e.subject.case.truth[e.type]].any() for e in missed)
    assert [e.weight for e in missed] == sorted((e.weight for e in missed), reverse=True)
    healthy = [replace(s, case=replace(s.case, truth=none_of(s), diseased=False)) for s in unseen]
    loose = HideAndSeek("own", with_profile(model, {"threshold": -1e9}, {}))
    false = examples(loose, healthy)
    assert false and all(e.what == "false" and e.where.any() for e in false)
    path = draw_examples(tmp_path / "examples.png", loose, healthy)
    assert path is not None and path.read_bytes().startswith(b"\x89PNG")
    assert draw_examples(tmp_path / "none.png", strict, healthy) is None
    assert not (tmp_path / "none.png").exists()


def test_there_are_as_many_successes_as_failures(model: Model, unseen: list[BenchmarkCase]) -> None:
    loose = HideAndSeek("own", with_profile(model, {"threshold": -1e9}, {}))
    chosen = examples(loose, unseen)
    found = [e for e in chosen if e.what == "found"]
    ill = sum(s.case.diseased for s in unseen)  # without a threshold most lesions are found
    assert 2 <= len(found) == min(ill, len(chosen) - len(found))
    assert [e.weight for e in found] == sorted((e.weight for e in found), reverse=True)
    for one in found:
        own = [le.mask(one.where.shape) for le in one.accepted if le.type == one.type]
        assert max((m & one.where).sum() / (m | one.where).sum() for m in own) >= LEAST_IOU
    assert len({id(e.subject) for e in found}) == len(found), "one of each vertebra"


def none_of(subject: BenchmarkCase) -> dict[LesionType, Mask]:
    return {kind: np.zeros_like(subject.case.body) for kind in LESION_TYPES}
