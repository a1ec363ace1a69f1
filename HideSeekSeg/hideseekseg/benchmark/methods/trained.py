"""Networks of the baselines, which ``hideseekseg benchmark train`` trains.

Among them a small U-Net that learns from full masks, which the method never sees.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from ... import __version__
from ...errors import InputError, WeightsError
from ...files import atomic, locked, make_folder, open_regular, require_apart
from ...findings import LESION_TYPES, LesionType
from ...lesions import p_of_vertebra
from ...model.autoencoder import DiffusionAutoencoder
from ...model.profile import PROFILE, Architecture, Profile, read_profile
from ...model.weights import Model, load_model, save_model
from ...plain_data import as_type
from ...simulation.random_fields import Field
from ...training.dataset import Slices, left_out, load_slices, make_batch
from ...training.seen_patients import SeenPatients, seen_patients
from ...training.train import COMPACT, TrainingSettings, train
from ...training.trainer import (
    SINGLE,
    Losses,
    ProcessGroup,
    TrainingProgress,
    TrainingStage,
    claim,
    run_stage,
    steps_done,
)
from ..cases import BenchmarkCase
from .baselines import NAME as ANOMALY_NAME
from .baselines import anomaly_architecture, anomaly_method, train_anomaly
from .method import ByMaps, Maps

NAME = "U-Net with masks"
FLOORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WIDTHS = (24, 48, 96)
BATCH = 32


class UNet(nn.Module):
    """x (N, 1, H, W) to logits (N, 2, H, W) of lytic and blastic; H and W divide by 4."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inputs, WIDTHS))
        self.up = nn.ModuleList(_block(a + b, a) for a, b in pairwise(WIDTHS))
        self.out = nn.Conv2d(WIDTHS[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1])):
            x = block(torch.cat([skip, functional.interpolate(x, scale_factor=2)], dim=1))
        logits: Tensor = self.out(x)
        return logits


def _block(inputs: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for a in (inputs, outputs):
        layers += [nn.Conv2d(a, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
    return nn.Sequential(*layers)


def train_unet(
    slices: Slices,
    profile: Profile,
    steps: int,
    seed: int,
    folder: Path,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool] = lambda: False,
    team: ProcessGroup = SINGLE,
    size: int = BATCH,
    seconds: float | None = None,
) -> nn.Module:
    """Cross entropy and soft Dice against the masks; resumable like all training."""
    torch.manual_seed(seed)
    slices = slices.on(team.device)
    network = UNet().to(team.device)

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        rows = rng.integers(0, len(slices), size)
        batch = make_batch(slices, rows, profile, rng)
        return {"error": _loss(network(batch.x).float(), batch.lesions.float())}

    stage = TrainingStage("unet", steps, 2e-3, 0.01, seed, seconds=seconds)
    return run_stage(
        stage, network, network.parameters(), losses, folder, on_progress, should_stop, team
    )


def _loss(logits: Tensor, masks: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    overlap = (p * masks).sum(dim=(0, 2, 3))
    dice = (2 * overlap + 1) / (p.sum(dim=(0, 2, 3)) + masks.sum(dim=(0, 2, 3)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()


def unet_method(network: nn.Module) -> ByMaps:
    """P(malignant) of a slice is its most certain voxel; of a vertebra as for all methods."""

    def draw(subject: BenchmarkCase) -> list[Maps]:
        with torch.inference_mode():
            p = torch.sigmoid(network(subject.case.x)).numpy()
        p = p * subject.case.body[:, None]
        evidence: dict[LesionType, Field] = {kind: p[:, n] for n, kind in enumerate(LESION_TYPES)}
        return [Maps(subject.case, evidence, p_of_vertebra(p.max(axis=(1, 2, 3))))]

    return ByMaps(NAME, "full masks", draw, FLOORS)


def save_network(path: Path, network: nn.Module, made_with: Mapping[str, Any]) -> None:
    """Write tensors and facts; moved into place when complete."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    with atomic(path) as temporary:
        data = safetensors.torch.save(tensors, {"made_with": json.dumps(made_with)})
        temporary.write_bytes(data)


def load_network(path: Path, network: nn.Module) -> dict[str, Any]:
    """Fill a network and freeze it; gives what it was made with.  Raises InputError."""
    made_with = read_made_with(path)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(path, "is not a network of this kind") from error
    network.eval().requires_grad_(False)
    return made_with


def read_made_with(path: Path) -> dict[str, Any]:
    """Return what a network was made with; its tensors are not read.  Raises InputError."""
    try:
        open_regular(path).close()
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return dict(as_type(dict[str, Any], json.loads(metadata["made_with"])))
    except FileNotFoundError as error:
        raise InputError(
            path, "is not there: make it with `hideseekseg benchmark train`"
        ) from error
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(path, "is not a network of this kind") from error


Baseline = Literal["unet", "anomaly", "auditor"]
NOT_TRAINED = "not run: `benchmark train` has not made it"
UNET, ANOMALY, AUDITOR = "unet.safetensors", "anomaly.safetensors", "auditor"
STEPS: dict[Baseline, int] = {"unet": 4000, "anomaly": 8000, "auditor": 8000}

# Another stem, other widths and depths, and no contrast beside x.
AUDITOR_ARCHITECTURE = Architecture(
    image_size=48,
    patch=2,
    channels=32,
    decoder_mult=(1,),
    encoder_mult=(1, 2, 4),
    residual_blocks=1,
    attention_levels=(),
    latent=96,
    embedding=32,
    pooling="evidence",
    evidence_levels=(0, 1),
)


def train_baseline(
    baseline: Baseline,
    folder: Path,
    out: Path,
    steps: int,
    seed: int,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool] = lambda: False,
    team: ProcessGroup = SINGLE,
    size: int = BATCH,
    without: Sequence[str] = (),
    seconds: float | None = None,
) -> Path:
    """Train one network on the simulated slices of ``folder``; checkpoints in ``out/BASELINE``.

    ``size`` slices make a batch; patients named by ``without`` are left out; ``seconds`` end the
    training even before its steps do, but not that of the auditor.  Raises InputError where one of
    those patients is not there, ``out`` holds a training of other slices or settings, or one that
    is at work, or is an input.
    """
    without = left_out(folder, without)
    slices = load_slices(folder, COMPACT, without)
    work = out / baseline
    require_apart(out, [folder])
    require_apart(work, [folder])
    with ExitStack() as held:
        if team.is_main:
            make_folder(work)
            held.enter_context(locked(work))
            limits = {"steps": steps, "seconds": seconds}
            own = {"seed": seed, "batch": size, "without": sorted(without)}
            claim(work, slices.content, {**limits, **own})
        given = slices, COMPACT, steps, seed, work, on_progress, should_stop, team
        if baseline == "auditor":
            return train_auditor(*given)
        network = (train_unet if baseline == "unet" else train_anomaly)(*given, size, seconds)
        patients = sorted(set(slices.patient.tolist()))
        taken = steps_done(work, baseline) or steps
        facts = {"steps": taken, "seed": seed, "patients": patients, "version": __version__}
        path = out / (UNET if baseline == "unet" else ANOMALY)
        save_network(path, network, facts)
        return path


def train_auditor(
    slices: Slices,
    profile: Profile,
    steps: int,
    seed: int,
    out: Path,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool] = lambda: False,
    team: ProcessGroup = SINGLE,
    architecture: Architecture = AUDITOR_ARCHITECTURE,
) -> Path:
    """Train encoder and classifier from labels alone, as weights without a decoder."""
    profile = replace(profile, name="auditor", architecture=architecture)
    settings = TrainingSettings("labels", encoder_steps=steps, decoder_steps=0, seed=seed)
    trained = train(slices, profile, settings, out, on_progress, should_stop, team)
    patients = sorted(set(slices.patient.tolist()))
    provenance = {**trained.profile.provenance, "patients": patients, "version": __version__}
    own = replace(trained.profile, provenance=provenance)
    save_model(out, trained.autoencoder, trained.classifier, own)
    return out


def load_auditor(folder: Path) -> Model:
    """Load the auditor; raises WeightsError where it has not been trained."""
    try:
        return load_model(folder / AUDITOR)
    except WeightsError as error:
        raise WeightsError(error.path, f"{error.cause} (`hideseekseg benchmark train`)") from error


def trained_methods(folder: Path, profile: Profile) -> tuple[list[ByMaps], dict[str, str]]:
    """Anomaly detection and the U-Net from a folder of ``train_baseline``, and why one is missing.

    Raises InputError where none is there, or one cannot be used.
    """
    autoencoder, unet = DiffusionAutoencoder(anomaly_architecture(profile)), UNet()
    methods: list[ByMaps] = []
    not_run: dict[str, str] = {}
    if (folder / ANOMALY).exists():
        load_network(folder / ANOMALY, autoencoder)
        methods.append(anomaly_method(autoencoder))
    else:
        not_run[ANOMALY_NAME] = NOT_TRAINED
    if (folder / UNET).exists():
        load_network(folder / UNET, unet)
        methods.append(unet_method(unet))
    else:
        not_run[NAME] = NOT_TRAINED
    if not methods:
        raise InputError(folder, "contains no trained network (`hideseekseg benchmark train`)")
    return methods, not_run


def seen_by_networks(folder: Path) -> dict[Path, SeenPatients]:
    """Return whom the networks of a folder of ``train_baseline`` learned from, by their files."""
    networks = [folder / name for name in (ANOMALY, UNET) if (folder / name).exists()]
    made_with = {path: read_made_with(path) for path in networks}
    if (folder / AUDITOR / PROFILE).exists():
        made_with[folder / AUDITOR] = read_profile(folder / AUDITOR).profile.provenance
    return {path: seen_patients(facts) for path, facts in made_with.items()}


def spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` of ``count`` indices, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
