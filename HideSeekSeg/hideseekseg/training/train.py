"""Training a set of weights: encoder, standardised latents, linear classifier, decoder.

The order is that of what pays: an encoder whose latent knows disease, then the classifier, then a
decoder that can draw what the classifier's direction means.  (The paper trains encoder and decoder
together, on some 72 million slices; a compact model on a small budget learns to reconstruct long
before its latent knows anything.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..model.autoencoder import DiffusionAutoencoder
from ..model.classifier import LinearClassifier
from ..model.layers import keep_channels_last
from ..model.profile import Architecture, Decision, Intensity, Profile, Schedule
from ..model.weights import Model
from ..simulation.simulate import COMPACT_GEOMETRY
from .dataset import Batch, Slices, encode_all, make_batch
from .evaluation import auc
from .losses import Supervision, decoder_loss, encoder_loss, twin_encoder_loss
from .trainer import SINGLE, Losses, ProcessGroup, TrainingProgress, TrainingStage, run_stage

COMPACT = Profile(
    name="compact",
    architecture=Architecture(
        image_size=48,
        patch=3,
        channels=48,
        decoder_mult=(1, 1, 2),
        encoder_mult=(1, 2, 3),
        residual_blocks=1,
        attention_levels=(),
        latent=256,
        embedding=128,
        pooling="evidence",
        evidence_levels=(0, 1),
        contrast=True,
        change_map=True,
        context=True,
        mirrored=True,
    ),
    geometry=COMPACT_GEOMETRY,
    intensity=Intensity("asinh"),
    schedule=Schedule(
        "fast",
        edit="single-shot",
        projection="none",
        noise_level=0.2,
        draws=2,
        opposite_noise=True,
    ),
    decision=Decision(
        healthy_p=1e-4,
        # Pixels of any edit differ by a little; floors are what tuning replaces.
        candidate_quantile=0.0,
        lytic_floor=0.1,
        blastic_floor=0.1,
        smooth_pixels=1.0,
        min_pixels=8,
        baseline="hidden",
        least_span=0.6,
        min_slices=2,
    ),
)


# Weights that learned from labels alone: the decoder is told the logit and nothing else, at a noise
# that hides lesions; healthy is what healthy slices of training are called.
LABELS_SCHEDULE = replace(
    COMPACT.schedule, condition="logit", guidance=2.0, noise_level=0.5, draws=8
)
LABELS_DECISION = replace(COMPACT.decision, healthy_p=0.02)
# Of patients with a label alone, slices with less of the body than this share of the broadest are
# left out: a lesion, of which the label says that it is somewhere, is hardly ever seen there.
PATIENTS_GEOMETRY = replace(COMPACT_GEOMETRY, least_share=0.35)

CHANGE_WEIGHT = 0.3

Run = Callable[..., nn.Module]  # ``run_stage`` of one training


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a training run, beside the data and the profile."""

    supervision: Supervision = "labels"
    encoder_steps: int = 40_000
    decoder_steps: int = 20_000
    encoder_batch: int = 32
    decoder_batch: int = 32
    encoder_rate: float = 1.0e-3
    decoder_rate: float = 8e-4
    seed: int = 1
    start: str | None = None  # hash of the weights that were gone on from
    seconds: float | None = None  # that end either stage even before its steps do
    bfloat16: bool = False  # on the CPU too, where it is float32 otherwise
    patience: int | None = None  # steps without gain on validation after which a stage ends
    compiled: bool = False  # networks compiled for the device: minutes to begin with, then faster


@dataclass(frozen=True)
class Trained:
    """Networks with averaged weights (latents standardised) and the classifier."""

    autoencoder: DiffusionAutoencoder
    classifier: LinearClassifier
    profile: Profile


def train(
    slices: Slices,
    profile: Profile,
    settings: TrainingSettings,
    folder: Path,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool] = lambda: False,
    team: ProcessGroup = SINGLE,
    start: Model | None = None,
    validation: Slices | None = None,
) -> Trained:
    """Train on ``slices``; checkpoints and losses go to ``folder`` and are resumed from.

    ``start`` are weights of the profile's architecture to go on from; ``validation`` are slices of
    other patients, measured on the way and not learned from; without twins they measure no decoder
    that learns from twins.  Every process of the
    ``team`` calls this with the same arguments; the sizes of batches are those of each.  All get
    the same weights, on the CPU.
    """
    torch.manual_seed(settings.seed)
    slices = slices.on(team.device)
    other = None if validation is None else validation.on(team.device)
    model, head = _begin(profile, start)
    model.to(team.device)
    if settings.compiled:
        model.compile()
        model.encoder.compile()
    run = partial(
        run_stage, folder=folder, on_progress=on_progress, should_stop=should_stop, team=team
    )
    _train_encoder(model, head, slices, other, profile, settings, run)
    rows = _classifier_rows(slices, settings)
    # A copy is not compiled, which would be done anew for each size of batch.
    latents = team.from_leader(encode_all(copy.deepcopy(model), slices, profile, rows))
    standardise(model, latents)
    latents = ((latents - latents.mean(0)) / latents.std(0).clamp(min=1e-6)).cpu()
    label = slices.label if settings.supervision == "labels" else slices.crossed
    classifier = fit_classifier(latents, torch.from_numpy(label[rows]).float())
    model = _train_decoder(model, classifier, slices, other, profile, settings, run)
    provenance = {"training": asdict(settings), "slices": len(slices), "processes": team.size}
    return Trained(model.cpu(), classifier, replace(profile, provenance=provenance))


def _begin(profile: Profile, start: Model | None) -> tuple[DiffusionAutoencoder, nn.Linear]:
    """Networks, and the head that reads labels from z: new ones, or those of ``start``."""
    model = DiffusionAutoencoder(profile.architecture)
    head = nn.Linear(profile.architecture.latent, 1)
    if start is not None:
        model.load_state_dict(start.autoencoder.state_dict())
        known = start.classifier
        weight = known.coef / known.scale
        with torch.no_grad():
            head.weight.copy_(weight[None])
            head.bias.fill_(known.intercept - float(weight @ known.mean))
    return model, head


def _train_encoder(
    model: DiffusionAutoencoder,
    head: nn.Linear,
    slices: Slices,
    validation: Slices | None,
    profile: Profile,
    settings: TrainingSettings,
    run: Run,
) -> None:
    """Train the encoder with a linear head on labels; the model keeps the averaged weights."""
    module = nn.ModuleDict({"encoder": model.encoder, "head": head})
    device = next(model.parameters()).device
    module.to(device)
    keep_channels_last(module)

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        batch = make_batch(slices, _encoder_rows(slices, settings, rng), profile, rng)
        if settings.supervision != "twins":
            return {"cross entropy": encoder_loss(model, head, batch)}
        label, seen = twin_encoder_loss(model, head, batch)
        return {"total": label + CHANGE_WEIGHT * seen, "cross entropy": label, "change": seen}

    @torch.inference_mode()
    def measure(averaged: nn.Module) -> dict[str, float]:
        assert validation is not None and isinstance(averaged, nn.ModuleDict)
        logits = [
            averaged["head"](averaged["encoder"](batch.x, batch.reference)[0].float())[:, 0]
            for batch in _measured(validation, profile)
        ]
        rows = _measured_rows(validation)
        logit, ill = torch.cat(logits).cpu().numpy(), np.isin(rows, validation.ill)
        return {"validation slice AUC": auc(logit[ill], logit[~ill])}

    stage = TrainingStage(
        "encoder",
        settings.encoder_steps,
        settings.encoder_rate,
        0.05,
        settings.seed,
        seconds=settings.seconds,
        bfloat16=settings.bfloat16,
        patience=settings.patience,
    )
    averaged = run(
        stage, module, module.parameters(), losses, measure=measure if validation else None
    )
    module.load_state_dict(averaged.state_dict())


def _train_decoder(
    model: DiffusionAutoencoder,
    classifier: LinearClassifier,
    slices: Slices,
    validation: Slices | None,
    profile: Profile,
    settings: TrainingSettings,
    run: Run,
) -> DiffusionAutoencoder:
    """Train everything but the encoder, which stays as it is."""
    keep_channels_last(model)
    model.encoder.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        rows = rng.integers(0, len(slices), settings.decoder_batch)
        batch = make_batch(slices, rows, profile, rng)
        model.encoder.eval()
        loss = decoder_loss(model, classifier, batch, settings.supervision, generator)
        return {"total": loss.total, "reconstruction": loss.reconstruction, "edit": loss.edit}

    @torch.inference_mode()
    def measure(averaged: nn.Module) -> dict[str, float]:
        assert validation is not None and isinstance(averaged, DiffusionAutoencoder)
        device = next(averaged.parameters()).device
        generator = torch.Generator(device).manual_seed(settings.seed)
        found = [
            decoder_loss(averaged, classifier, batch, settings.supervision, generator).total
            for batch in _measured(validation, profile)
        ]
        return {"validation error": float(torch.stack(found).mean())}

    stage = TrainingStage(
        "decoder",
        settings.decoder_steps,
        settings.decoder_rate,
        0.01,
        settings.seed + 1,
        seconds=settings.seconds,
        bfloat16=settings.bfloat16,
        patience=settings.patience,
        gain=-1,
    )
    # The error of an edit is known where its twin is.
    unknown = settings.supervision == "twins" and validation is not None and validation.label_only
    look = measure if validation and not unknown else None
    averaged = run(stage, model, trained, losses, measure=look)
    assert isinstance(averaged, DiffusionAutoencoder)
    return averaged


def _measured_rows(validation: Slices, most: int = 4000) -> npt.NDArray[np.intp]:
    """Rows of a validation set that are looked at during training: with a lesion, or healthy."""
    rows = np.sort(np.concatenate([validation.ill, validation.well]))
    return rows[:: max(len(rows) // most, 1)]


def _measured(validation: Slices, profile: Profile) -> Iterator[Batch]:
    rows = _measured_rows(validation)
    for part in np.array_split(rows, max(len(rows) // 500, 1)):
        yield make_batch(validation, part, profile, None)


def _classifier_rows(
    slices: Slices, settings: TrainingSettings, most: int = 30_000
) -> npt.NDArray[np.intp]:
    """Rows that the classifier is fitted on; with twins, where the slice's label is sure."""
    rows = np.arange(len(slices))
    if settings.supervision == "twins":
        rows = np.sort(np.concatenate([slices.ill, slices.well]))
    return rows[:: max(len(rows) // most, 1)]


def _encoder_rows(
    slices: Slices, settings: TrainingSettings, rng: np.random.Generator
) -> np.ndarray:
    """Rows of one batch; with twins two in five diseased, which bring their twins, one healthy."""
    count = settings.encoder_batch
    if settings.supervision == "labels":
        return rng.integers(0, len(slices), count)
    ill = rng.choice(slices.ill, 2 * count // 5)
    return np.concatenate([ill, rng.choice(slices.well, count - 2 * len(ill))])


def standardise(model: DiffusionAutoencoder, latents: Tensor) -> None:
    """Fold mean and deviation of z into the encoder's last layer.

    z then arrives standardised at the classifier and at the decoder, whose conditioning layers
    expect numbers of about one.
    """
    last = [m for m in model.encoder.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    mean, deviation = latents.mean(0), latents.std(0).clamp(min=1e-6)
    with torch.no_grad():
        last.weight.div_(deviation.view(-1, *[1] * (last.weight.dim() - 1)))
        assert last.bias is not None
        last.bias.copy_((last.bias - mean) / deviation)


def fit_classifier(latents: Tensor, labels: Tensor, penalty: float = 1e-3) -> LinearClassifier:
    """Logistic regression on standardised latents (N, D) and labels (N,), with an L2 penalty."""
    z, y = latents.double(), labels[: len(latents)].double()
    weight = torch.zeros(z.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logit = z @ weight[:-1] + weight[-1]
        value = nn.functional.binary_cross_entropy_with_logits(logit, y)
        value = value + penalty * weight[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    fitted = weight.detach()
    size = z.shape[1]
    return LinearClassifier(fitted[:-1], float(fitted[-1]), torch.zeros(size), torch.ones(size))
