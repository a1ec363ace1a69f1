"""Training learns what it is asked for, from what it may see, and stopping changes nothing."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.models import TINY
from helpers.vertebrae import EVIDENCE, TOY, plain_vertebra, toy_slices
from hideseekseg.anatomy.crop import Crop
from hideseekseg.anatomy.intensity import Calibration, network_input
from hideseekseg.attribution import changed_pixels
from hideseekseg.errors import InputError
from hideseekseg.findings import LESION_TYPES
from hideseekseg.imaging.volume import Grid
from hideseekseg.model.autoencoder import DiffusionAutoencoder
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import Architecture, Decision
from hideseekseg.model.weights import load_model, save_model
from hideseekseg.simulation.simulate import Recipe, draw_sample, simulate
from hideseekseg.training import trainer
from hideseekseg.training.dataset import Slices, bent, encode_all, load_slices, make_batch
from hideseekseg.training.losses import EDITING_TIMES, Supervision, decoder_loss, draw_times
from hideseekseg.training.train import (
    COMPACT,
    LABELS_DECISION,
    TrainingSettings,
    fit_classifier,
    standardise,
    train,
)
from hideseekseg.training.trainer import (
    Losses,
    TrainingProgress,
    TrainingStage,
    claim,
    learning_rate,
    run_stage,
    seconds_spent,
    step_kept,
)

QUICK = TrainingSettings(encoder_steps=6, decoder_steps=6, encoder_batch=8, decoder_batch=8)


Measure = Callable[[nn.Module], dict[str, float]] | None


def silent(now: TrainingProgress) -> None:
    pass


def weights_of(module: nn.Module) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for t in module.state_dict().values())


def learned(
    slices: Slices,
    settings: TrainingSettings,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> bytes:
    """All numbers that a training ends with."""
    folder.mkdir(exist_ok=True)
    trained = train(slices, TOY, settings, folder, silent, should_stop)
    return weights_of(trained.autoencoder) + trained.classifier.coef.numpy().tobytes()


# ---- what training reads


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small shards of simulated slices."""
    folder = tmp_path_factory.mktemp("shards")
    for seed in (1, 2):
        recipe = Recipe(seed, 4, slices=5, geometry=replace(TOY.geometry, size=32, body_pixels=26))
        simulate(recipe, [plain_vertebra()], folder, lambda *_: None)
    return folder


def test_shards_are_joined_and_vertebrae_keep_apart(folder: Path) -> None:
    slices = load_slices(folder, TOY)
    assert len(set(slices.vertebra)) == 8
    assert slices.image.shape == (len(slices), 32, 32)
    ill = slices.label == 1
    assert (slices.lytic | slices.blastic)[ill].any(axis=(1, 2)).all()
    assert not (slices.lytic | slices.blastic)[~ill].any()
    assert not ((slices.lytic | slices.blastic) & ~slices.body).any()
    assert len(slices.patient_group) == len(slices.reference) == len(slices)


def test_content_is_told_apart_whatever_of_it_changes() -> None:
    slices, same = toy_slices(16), toy_slices(16)
    assert slices.content == same.content
    image, label = slices.image.copy(), slices.label.copy()
    image[3, 8, 8] += 1
    label[:4] = 1 - label[:4]
    one = np.arange(16) < 4
    others = [
        replace(slices, image=image),
        replace(slices, label=label),
        replace(slices, twin=image),
        replace(slices, twin=slices.twin[:0], lytic=slices.lytic[:0], blastic=slices.blastic[:0]),
        replace(slices, patient=np.where(one, "B", slices.patient)),
        replace(slices, vertebra=np.where(one, "toy-9", slices.vertebra)),
        replace(slices, reference=np.zeros((16, 2), np.float32)),
    ]
    assert len({slices.content, *(other.content for other in others)}) == 1 + len(others)


def test_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hideseekseg simulate"):
        load_slices(tmp_path, TOY)


def test_training_sees_what_the_pipeline_sees() -> None:
    """Without augmentation a slice is the network input of its crop, but for rounding."""
    sample = draw_sample(np.random.default_rng(1), plain_vertebra(), TOY.geometry, diseased=True)
    grid = Grid(sample.image.shape, np.eye(4))
    expected = network_input(
        Crop(sample.image, sample.body, grid), TOY, Calibration(1.0, 0.0, is_hu=True)
    )
    count = len(sample.image)
    slices = replace(
        toy_slices(count),
        image=np.round(sample.image).astype(np.int16),
        body=sample.body,
    )
    x = make_batch(slices, np.arange(count), TOY, None).x
    assert x.shape == (count, 1, 16, 16)
    np.testing.assert_allclose(x[:, 0].numpy(), expected, atol=0.006)


def test_augmentation_keeps_the_twin_a_twin() -> None:
    """However slices are bent and scanned anew: twins differ by their lesion and nothing else."""
    slices = toy_slices(16)
    rows = np.arange(16)
    plain = make_batch(slices, rows, TOY, None)
    assert (plain.x == plain.twin)[plain.label == 0].all()
    ill = plain.label == 1
    before = (plain.x - plain.twin)[ill].abs().sum()
    centres = set()
    for seed in range(20):
        batch = make_batch(slices, rows, TOY, np.random.default_rng(seed))
        again = make_batch(slices, rows, TOY, np.random.default_rng(seed))
        assert (batch.x == again.x).all() and (batch.body == again.body).all()
        assert (batch.x == batch.twin)[~ill].all()
        changed = (batch.x - batch.twin).abs() > 0.1
        near = functional.max_pool2d(batch.body.float(), 3, 1, 1) > 0
        assert not (changed & ~near).any()
        assert 0.5 < (batch.x - batch.twin)[ill].abs().sum() / before < 1.6
        assert 4 <= changed[ill].sum(dim=(1, 2, 3)).float().mean() <= 32
        assert 0.005 < (batch.x - plain.x).abs().mean() < 0.5
        for body in batch.body[:2, 0]:
            middle = 2 * body.nonzero().float().mean(dim=0)
            centres.add(tuple(middle.int().tolist()))
    assert len(centres) > 4, "bent"


def test_every_slice_is_bent_on_its_own() -> None:
    slices = toy_slices(16)
    same = make_batch(slices, np.zeros(8, int), TOY, np.random.default_rng(3))
    for other in range(1, 8):
        assert (same.body[0] != same.body[other]).any()


def test_bending_moves_pictures_and_masks_alike() -> None:
    """A mask painted into the picture is still the picture's bright part after it was bent."""
    rng = torch.Generator().manual_seed(4)
    mask = torch.zeros(6, 1, 48, 48)
    mask[:, :, 12:30, 16:34] = 1.0
    moved = bent(rng, torch.cat([200 * mask, mask], dim=1))
    assert torch.allclose(moved[:, :1], 200 * moved[:, 1:], atol=1e-2)
    assert (moved[:, 1].sum(dim=(1, 2)) / mask[0].sum() > 0.7).all()
    assert (moved[:, 1].sum(dim=(1, 2)) / mask[0].sum() < 1.4).all()


# ---- a stage


class Line(nn.Module):
    """y = a x + b, and dropout that draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.dropout(x))
        return out


def new_line() -> Line:
    torch.manual_seed(0)
    return Line()


def line_losses(module: nn.Module) -> Callable[..., Losses]:
    """Fits y = x1 - 2 x2 from random numbers of all three generators."""

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        x = torch.from_numpy(rng.standard_normal((16, 3)).astype(np.float32))
        y = x[:, :1] - 2 * x[:, 1:2] + 0.01 * torch.randn(16, 1, generator=generator)
        return {"error": (module(x) - y).square().mean()}

    return losses


def fit(
    stage: TrainingStage,
    folder: Path,
    tell: Callable[[TrainingProgress], None] = silent,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[nn.Module, nn.Module]:
    folder.mkdir(exist_ok=True)
    line = new_line()
    averaged = run_stage(
        stage, line, line.parameters(), line_losses(line), folder, tell, should_stop
    )
    return line, averaged


def stop_after(calls: int) -> Callable[[], bool]:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= calls

    return should_stop


LINE = TrainingStage("line", steps=120, learning_rate=0.2, weight_decay=0.0, seed=3, average=0.9)


def test_loss_falls_and_is_told(tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    fit(LINE, tmp_path, told.append)
    assert [now.step for now in told] == [50, 100, 120]
    errors = [now.losses["error"] for now in told]
    assert errors[-1] < 0.3 * errors[0]
    assert told[-1].seconds_left == 0
    with (tmp_path / "line-losses.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["error"]) for row in rows] == errors


def test_average_follows_the_weights(tmp_path: Path) -> None:
    """The mean that gives the newest weights a share of 19 in n + 20, later 1 in 10."""
    line = new_line()
    seen = [line.linear.weight.detach().clone()]
    losses = line_losses(line)

    def watched(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        if step:
            seen.append(line.linear.weight.detach().clone())
        return losses(step, rng, generator)

    averaged = run_stage(LINE, line, line.parameters(), watched, tmp_path, silent)
    seen.append(line.linear.weight.detach().clone())
    expected = seen[0]
    for step, weight in enumerate(seen[1:]):
        decay = min(0.9, (step + 1) / (step + 20))
        expected = decay * expected + (1 - decay) * weight
    assert isinstance(averaged, Line)
    torch.testing.assert_close(averaged.linear.weight, expected, atol=1e-5, rtol=1e-5)
    assert not averaged.linear.weight.requires_grad and not averaged.training


@pytest.mark.parametrize("stops", [(1,), (60,), (119,), (120,), (30, 1, 40)])
def test_stopped_and_resumed_is_undisturbed(tmp_path: Path, stops: tuple[int, ...]) -> None:
    expected = [weights_of(module) for module in fit(LINE, tmp_path / "undisturbed")]
    for calls in stops:
        with pytest.raises(KeyboardInterrupt):
            fit(LINE, tmp_path / "stopped", should_stop=stop_after(calls))
    before = seconds_spent(tmp_path / "stopped")
    resumed = fit(LINE, tmp_path / "stopped")
    assert 0 < before <= seconds_spent(tmp_path / "stopped"), "sessions add up"
    assert [weights_of(module) for module in resumed] == expected


def test_resumed_with_another_look_at_validation_keeps_all_figures(tmp_path: Path) -> None:
    line = new_line()

    def resume(should_stop: Callable[[], bool], measure: Measure) -> None:
        run_stage(
            *(LINE, line, line.parameters(), line_losses(line), tmp_path, silent, should_stop),
            measure=measure,
        )

    with pytest.raises(KeyboardInterrupt):
        resume(stop_after(60), None)
    with pytest.raises(KeyboardInterrupt):
        resume(stop_after(40), lambda averaged: {"of others": 0.5})
    resume(lambda: False, None)
    with (tmp_path / "line-losses.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["of others"] for row in rows] == ["", "0.5", ""]
    assert all(float(row["error"]) > 0 for row in rows)


PATIENT = replace(LINE, steps=1000, learning_rate=0.004, average=0.5, patience=150, gain=-1)


def off(averaged: nn.Module) -> dict[str, float]:
    """Least on the way of the line's first weight from where it begins to 1, and not at its end."""
    assert isinstance(averaged, Line)
    return {"error of others": abs(float(averaged.linear.weight[0, 0]) - 0.8)}


def fit_patiently(
    stage: TrainingStage, folder: Path, should_stop: Callable[[], bool] = lambda: False
) -> tuple[float, list[int]]:
    """Return the error of what was kept, and the steps at which something was told."""
    folder.mkdir(exist_ok=True)
    line, told = new_line(), []
    kept = run_stage(
        *(stage, line, line.parameters(), line_losses(line), folder),
        lambda now: told.append(now.step),
        should_stop,
        measure=off,
    )
    return off(kept)["error of others"], told


def test_stage_ends_when_validation_gains_no_more_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "MEASURE_EVERY", 50)
    least, told = fit_patiently(PATIENT, tmp_path)
    with (tmp_path / "line-losses.csv").open(encoding="utf-8") as file:
        errors = [float(row["error of others"]) for row in csv.DictReader(file)]
    best = int(np.argmin(errors))
    assert 0 < best < len(errors) - 1, "the best is on the way"
    assert least == pytest.approx(errors[best])
    assert told[-1] == told[best] + 150 < PATIENT.steps
    assert step_kept(tmp_path, "line") == told[best]
    assert fit_patiently(PATIENT, tmp_path) == (least, []), "it is over"
    last, told = fit_patiently(replace(PATIENT, patience=None), tmp_path / "impatient")
    assert told[-1] == PATIENT.steps and last > 2 * least
    assert step_kept(tmp_path / "impatient", "line") is None


@pytest.mark.parametrize("steps", [1000, 270])
def test_best_weights_outlive_a_stop_and_are_kept_at_any_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(trainer, "MEASURE_EVERY", 50)
    stage = replace(PATIENT, steps=steps)
    expected, _ = fit_patiently(stage, tmp_path / "undisturbed")
    for calls in (120, 60, 30):
        with pytest.raises(KeyboardInterrupt):
            fit_patiently(stage, tmp_path / "stopped", stop_after(calls))
    assert fit_patiently(stage, tmp_path / "stopped")[0] == expected
    kept = [step_kept(tmp_path / name, "line") for name in ("undisturbed", "stopped")]
    assert kept[0] == kept[1] is not None


def test_training_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    settings = asdict(TrainingSettings())
    claim(tmp_path, "slices", {k: v for k, v in settings.items() if k not in trainer.LATER})
    claim(tmp_path, "slices", settings)
    with pytest.raises(InputError, match=r"compiled false \(now true\)"):
        claim(tmp_path, "slices", {**settings, "compiled": True})
    (tmp_path / "patient").mkdir()
    claim(tmp_path / "patient", "slices", {**settings, "validation": "one"})
    with pytest.raises(InputError, match="validation of other content"):
        claim(tmp_path / "patient", "slices", {**settings, "validation": "other"})


def test_finished_stage_is_not_repeated(tmp_path: Path) -> None:
    _, averaged = fit(LINE, tmp_path)
    told: list[TrainingProgress] = []
    assert weights_of(fit(LINE, tmp_path, told.append)[1]) == weights_of(averaged)
    assert told == []


def test_learning_rate_warms_up_holds_and_falls() -> None:
    stage = TrainingStage("s", 10_000, 1e-3, 0.0, 1)
    rates = np.array([learning_rate(stage, step) for step in range(10_000)])
    assert rates[0] == pytest.approx(5e-6)
    np.testing.assert_allclose(rates[199:4000], 1e-3)
    assert (np.diff(rates[4000:]) <= 0).all()
    assert rates[-1] == pytest.approx(1e-5, rel=0.01)


# ---- the whole training


@pytest.mark.slow
def test_toy_set_is_learned(tmp_path: Path) -> None:
    """Labels alone: P tells the spots apart, and the decoder comes to draw better."""
    slices = toy_slices()
    told: list[TrainingProgress] = []
    settings = replace(QUICK, encoder_steps=150, decoder_steps=150, encoder_rate=5e-3)
    trained = train(slices, TOY, settings, tmp_path, told.append)
    decoder = [now.losses["reconstruction"] for now in told if now.stage == "decoder"]
    assert decoder[-1] < 0.8 * decoder[0]
    latents = encode_all(trained.autoencoder, slices, TOY)
    p = trained.classifier.probability(latents).numpy()
    assert ((p > 0.5) == (slices.label == 1)).mean() > 0.9
    assert trained.profile.provenance["training"]["supervision"] == "labels"
    assert trained.profile.provenance["slices"] == 64


def test_bfloat16_learns_nearly_the_same_and_keeps_float32_weights(tmp_path: Path) -> None:
    losses: dict[bool, list[float]] = {True: [], False: []}
    for bfloat16, told in losses.items():
        folder = tmp_path / str(bfloat16)
        folder.mkdir()
        settings = replace(QUICK, bfloat16=bfloat16)
        said: list[TrainingProgress] = []
        trained = train(toy_slices(), TOY, settings, folder, said.append)
        told += [loss for now in said for loss in now.losses.values()]
        assert all(p.dtype == torch.float32 for p in trained.autoencoder.parameters())
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.03)


def test_compiled_networks_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as for a GPU; machine code, which takes minutes, is not made of it here."""
    make_code, traced = nn.Module.compile, []

    def trace(module: nn.Module) -> None:
        traced.append(type(module).__name__)
        make_code(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", trace)
    losses: dict[bool, list[float]] = {False: [], True: []}
    for compiled, told in losses.items():
        folder = tmp_path / str(compiled)
        folder.mkdir()
        settings = replace(QUICK, supervision="twins", compiled=compiled)
        said: list[TrainingProgress] = []
        trained = train(toy_slices(), TOY, settings, folder, said.append)
        told += [loss for now in said for loss in now.losses.values()]
        save_model(folder / "weights", trained.autoencoder, trained.classifier, trained.profile)
    assert traced == ["DiffusionAutoencoder", "SemanticEncoder"]
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    one, other = (load_model(tmp_path / name / "weights", "cpu") for name in ("True", "False"))
    assert [*one.autoencoder.state_dict()] == [*other.autoencoder.state_dict()]


def test_training_goes_on_from_weights_that_are_there(tmp_path: Path) -> None:
    """From the first step on P is what the first training had taught, not what chance gives."""
    slices = toy_slices()
    first = replace(QUICK, encoder_steps=150, decoder_steps=1, encoder_rate=5e-3)
    (tmp_path / "first").mkdir()
    trained = train(slices, TOY, first, tmp_path / "first", silent)
    save_model(tmp_path / "w", trained.autoencoder, trained.classifier, trained.profile, half=False)
    start = load_model(tmp_path / "w", "cpu")
    told: list[TrainingProgress] = []
    (tmp_path / "second").mkdir()
    settings = replace(QUICK, encoder_steps=1, decoder_steps=1, start=start.hash)
    second = train(slices, TOY, settings, tmp_path / "second", told.append, start=start)
    assert told[0].losses["cross entropy"] < 0.4 < np.log(2)
    p = second.classifier.probability(encode_all(second.autoencoder, slices, TOY)).numpy()
    assert ((p > 0.5) == (slices.label == 1)).mean() > 0.9
    assert second.profile.provenance["training"]["start"] == start.hash


def test_no_encoder_steps_keep_the_encoder_and_teach_the_decoder(tmp_path: Path) -> None:
    """Latents are standardised on the new slices, and else those of the start."""
    slices = toy_slices()
    (tmp_path / "first").mkdir()
    first = train(slices, TOY, QUICK, tmp_path / "first", silent)
    save_model(tmp_path / "w", first.autoencoder, first.classifier, first.profile, half=False)
    start = load_model(tmp_path / "w", "cpu")
    settings = replace(QUICK, encoder_steps=0, decoder_steps=3, start=start.hash)
    (tmp_path / "second").mkdir()
    second = train(slices, TOY, settings, tmp_path / "second", silent, start=start)
    before, after = (encode_all(m.autoencoder, slices, TOY) for m in (start, second))
    np.testing.assert_allclose(after, (before - before.mean(0)) / before.std(0), atol=1e-3)
    assert not (tmp_path / "second" / "encoder-losses.csv").exists()
    drawn = [dict(m.autoencoder.named_parameters()) for m in (start, second)]
    names = [n for n in drawn[0] if not n.startswith("encoder")]
    assert any(not torch.equal(drawn[0][n], drawn[1][n]) for n in names)


@pytest.mark.parametrize("stop", [1, 4, 6, 7, 9, 12])
def test_training_stopped_in_either_stage_is_undisturbed(tmp_path: Path, stop: int) -> None:
    slices = toy_slices(16)
    expected = learned(slices, QUICK, tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        learned(slices, QUICK, tmp_path / "stopped", stop_after(stop))
    assert learned(slices, QUICK, tmp_path / "stopped") == expected


def poisoned(slices: Slices) -> Slices:
    garbage = np.random.default_rng(9).integers(-1000, 3000, slices.twin.shape)
    return replace(
        slices, twin=garbage.astype(np.int16), lytic=~slices.lytic, blastic=~slices.blastic
    )


def test_labels_only_training_reads_neither_twins_nor_masks(tmp_path: Path) -> None:
    slices = toy_slices(16)
    expected = learned(slices, QUICK, tmp_path / "a")
    assert learned(poisoned(slices), QUICK, tmp_path / "b") == expected


def test_twin_training_reads_twins_but_no_masks(tmp_path: Path) -> None:
    slices, settings = toy_slices(16), replace(QUICK, supervision="twins")
    expected = learned(slices, settings, tmp_path / "a")
    masks = replace(slices, lytic=~slices.lytic, blastic=~slices.blastic)
    assert learned(masks, settings, tmp_path / "b") == expected
    assert learned(poisoned(slices), settings, tmp_path / "c") != expected


def test_twins_are_trained_beside_validation_whose_labels_alone_are_known(tmp_path: Path) -> None:
    """P is measured on it; a decoder's error is not, as that needs the twins."""
    known = toy_slices(16)
    none = known.twin[:0]
    prepared = replace(known, twin=none, lytic=known.lytic[:0], blastic=known.blastic[:0])
    told: list[TrainingProgress] = []
    settings = replace(QUICK, supervision="twins")
    train(known, TOY, settings, tmp_path, told.append, validation=prepared)
    encoder, decoder = ({*now.losses} for now in told)
    assert "validation slice AUC" in encoder
    assert "edit" in decoder and "validation error" not in decoder


@pytest.mark.parametrize(
    "architecture",
    [TINY, EVIDENCE, replace(EVIDENCE, change_map=True)],
    ids=["mean", "evidence", "change"],
)
def test_latents_arrive_standardised(architecture: Architecture) -> None:
    profile, slices = replace(TOY, architecture=architecture), toy_slices()
    torch.manual_seed(1)
    model = DiffusionAutoencoder(architecture)
    before = encode_all(model, slices, profile)
    standardise(model, before)
    after = encode_all(model, slices, profile)
    torch.testing.assert_close(after.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(after.std(0), torch.ones(8), atol=1e-3, rtol=0)
    expected = (before - before.mean(0)) / before.std(0)
    torch.testing.assert_close(after, expected, atol=2e-3, rtol=2e-3)


def test_classifier_separates_and_finds_the_direction() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = (torch.arange(400) % 2).float()
    z = torch.randn(400, 8, generator=generator)
    z[:, 2] += 4 * (labels - 0.5)
    classifier = fit_classifier(z, labels)
    p = classifier.probability(z)
    assert ((p > 0.5) == (labels > 0)).double().mean() > 0.95
    assert classifier.coef.abs().argmax() == 2
    assert p.mean() == pytest.approx(0.5, abs=0.01), "the intercept makes the mean right"


@pytest.mark.parametrize("decision", [COMPACT.decision, LABELS_DECISION], ids=["twins", "labels"])
def test_untuned_weights_take_what_stands_out_and_no_grain(decision: Decision) -> None:
    """Half of all pixels are darker in any edit: without a lesion none of them is a candidate."""
    grain = np.random.default_rng(1).normal(0, 0.05, (48, 48)).astype(np.float32)
    body = np.zeros((48, 48), bool)
    body[8:40, 8:40] = True
    found = changed_pixels(grain, body, decision)
    assert not found["lytic"].any() and not found["blastic"].any()
    spot = np.zeros_like(body)
    spot[16:24, 16:24] = True
    for kind, change in zip(LESION_TYPES, (0.5, -0.5)):
        found = changed_pixels((grain + change * spot).astype(np.float32), body, decision)
        marked = found.pop(kind)
        assert marked[spot].mean() > 0.9 and marked.sum() < 2 * spot.sum()
        assert not any(other.any() for other in found.values())


def test_training_times_lie_where_lesions_are_seen() -> None:
    times = draw_times(4000, 1000, torch.Generator().manual_seed(1))
    low, high = EDITING_TIMES
    inside = ((times >= low) & (times < high)).double().mean()
    assert inside == pytest.approx(0.8 + 0.2 * (high - low) / 1000, abs=0.03)
    assert times.min() < 20 and 980 < times.max() <= 999


def test_change_map_answers_in_the_pictures_size() -> None:
    architecture = replace(EVIDENCE, patch=2, change_map=True)
    model = DiffusionAutoencoder(architecture)
    maps, _ = model.encoder.features(torch.zeros(3, 1, 16, 16))
    change = model.encoder.change_seen(maps)
    assert change is not None and change.shape == (3, 1, 16, 16)


def test_edit_is_only_asked_for_where_twins_are_known() -> None:
    slices = toy_slices(8)
    torch.manual_seed(1)
    model = DiffusionAutoencoder(TINY)
    batch = make_batch(slices, np.arange(8), TOY, None)
    classifier = LinearClassifier(torch.ones(8), 0.0, torch.zeros(8), torch.ones(8))
    ways: tuple[Supervision, Supervision] = ("labels", "twins")
    for supervision in ways:
        generator = torch.Generator().manual_seed(1)
        loss = decoder_loss(model, classifier, batch, supervision, generator)
        assert loss.reconstruction > 0
        assert (loss.edit > 0) == (supervision == "twins")
        assert loss.total == loss.reconstruction + loss.edit
