"""Differences without hide and seek: of the healthy edit, and of an autoencoder of the healthy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn

from ...attribution import encode
from ...findings import LesionType
from ...lesions import p_of_vertebra
from ...model.autoencoder import DiffusionAutoencoder
from ...model.inference import seeded_noises
from ...model.profile import Architecture, Profile
from ...model.sampling import noised, predict_x0
from ...model.weights import Model
from ...simulation.random_fields import Field
from ...training.dataset import Slices, make_batch
from ...training.distributed import SINGLE, ProcessGroup
from ...training.evaluation import Case, edit_case
from ...training.losses import draw_times
from ...training.trainer import Losses, TrainingProgress, TrainingStage, run_stage
from ..cases import BenchmarkCase
from .method import ByMaps, Maps, supervision

NAME = "anomaly detection (healthy-only autoencoder)"
FLOORS = (0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35)
NOISE_LEVELS = (0.2, 0.4, 0.6)
DRAWS = 4
TIMESTEPS = 1000
BATCH = 32
SMOOTHING = 1.0


def difference_map(model: Model) -> ByMaps:
    """Return the method of the healthy edit alone: differences above a floor, by size."""

    def draw(subject: BenchmarkCase) -> list[Maps]:
        seen = edit_case(subject.case, model)
        p = p_of_vertebra(seen.latents.p.numpy())
        pixels = model.profile.decision.smooth_pixels
        return [_signed(subject.case, _smooth(seen.healthy.difference, pixels), p)]

    return ByMaps("difference map, nothing hidden", supervision(model), draw, FLOORS)


def change_map(model: Model) -> ByMaps:
    """Return the method of the encoder's change map: no diffusion, nothing hidden."""

    @torch.inference_mode()
    def draw(subject: BenchmarkCase) -> list[Maps]:
        maps, _ = model.autoencoder.encoder.features(subject.case.x)
        change = model.autoencoder.encoder.change_seen(maps)
        assert change is not None
        p = p_of_vertebra(encode(subject.case.x, model).p.numpy())
        pixels = model.profile.decision.smooth_pixels
        return [_signed(subject.case, _smooth(-change[:, 0].numpy(), pixels), p)]

    return ByMaps("the encoder's change map, no diffusion", supervision(model), draw, FLOORS)


def _signed(case: Case, difference: npt.NDArray[np.float32], p: float) -> Maps:
    """Density that was added lay in a lytic lesion, density removed in a blastic one."""
    evidence: dict[LesionType, Field] = {"lytic": difference, "blastic": -difference}
    return Maps(case, evidence, p)


def anomaly_architecture(profile: Profile) -> Architecture:
    """Return the architecture of the weights under test, with the paper's pooling."""
    return replace(
        profile.architecture,
        pooling="mean",
        evidence_levels=(),
        contrast=False,
        change_map=False,
        context=False,
        mirrored=False,
    )


def train_anomaly(
    slices: Slices,
    profile: Profile,
    steps: int,
    seed: int,
    folder: Path,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool] = lambda: False,
    team: ProcessGroup = SINGLE,
    size: int = BATCH,
) -> nn.Module:
    """Train a diffusion autoencoder on slices of healthy vertebrae only."""
    torch.manual_seed(seed)
    slices = slices.on(team.device)
    network = DiffusionAutoencoder(anomaly_architecture(profile)).to(team.device)
    healthy = np.flatnonzero(slices.label == 0)

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        x = make_batch(slices, rng.choice(healthy, size), profile, rng).x
        t = draw_times(size, TIMESTEPS, generator)
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        error = network(noised(x, t, noise, TIMESTEPS), t, network.encode(x)) - noise
        return {"error": error.square().mean()}

    stage = TrainingStage("anomaly", steps, 8e-4, 0.01, seed)
    return run_stage(
        stage, network, network.parameters(), losses, folder, on_progress, should_stop, team
    )


def anomaly_method(network: DiffusionAutoencoder) -> ByMaps:
    """Return the method for which redrawn pixels are anomalies; a variant per noise level.

    There is no P(malignant): nothing was learnt from labels but which slices are healthy.
    """

    def draw(subject: BenchmarkCase) -> list[Maps]:
        x = subject.case.x
        return [
            _signed(
                subject.case,
                _smooth((_redrawn(network, x, level) - x)[:, 0].numpy(), SMOOTHING),
                float("nan"),
            )
            for level in NOISE_LEVELS
        ]

    return ByMaps(NAME, "healthy vertebrae", draw, FLOORS, len(NOISE_LEVELS))


@torch.inference_mode()
def _redrawn(network: DiffusionAutoencoder, x: torch.Tensor, level: float) -> torch.Tensor:
    """Return the mean of x0-hat over some noises, conditioned on the latent of x."""
    t = torch.full((len(x),), round(level * (TIMESTEPS - 1)))
    noises = seeded_noises(range(len(x)), DRAWS, tuple(x.shape[-2:]))
    z = network.encode(x)
    drawn = [
        predict_x0(network, noised(x, t, noise, TIMESTEPS), t, z, TIMESTEPS)
        for noise in noises.split(1, dim=1)
    ]
    return torch.stack(drawn).mean(dim=0)


def _smooth(difference: npt.NDArray[np.float32], pixels: float) -> npt.NDArray[np.float32]:
    return np.asarray(ndimage.gaussian_filter(difference, (0, pixels, pixels)), np.float32)
