"""The ceiling: a small U-Net that learns from full masks, which the method never sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...findings import LESION_TYPES, LesionType
from ...lesions import p_of_vertebra
from ...model.profile import Profile
from ...simulation.random_fields import Field
from ...training.dataset import Slices, make_batch
from ...training.trainer import Losses, TrainingProgress, TrainingStage, run_stage
from ..cases import BenchmarkCase
from .method import ByMaps, Maps

NAME = "U-Net (ceiling)"
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
) -> nn.Module:
    """Cross entropy and soft Dice against the masks; resumable like all training."""
    torch.manual_seed(seed)
    network = UNet()

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        rows = rng.integers(0, len(slices), BATCH)
        x, masks = _batch(slices, rows, profile, int(rng.integers(2**31)))
        return {"error": _loss(network(x), masks)}

    stage = TrainingStage("unet", steps, 2e-3, 0.01, seed)
    return run_stage(stage, network, network.parameters(), losses, folder, on_progress, should_stop)


def _batch(slices: Slices, rows: np.ndarray, profile: Profile, seed: int) -> tuple[Tensor, Tensor]:
    """Return x (N, 1, H, W) and masks (N, 2, H, W) with one and the same augmentation."""
    parts = [
        make_batch(replace(slices, body=mask), rows, profile, np.random.default_rng(seed))
        for mask in (slices.lytic, slices.blastic)
    ]
    return parts[0].x, torch.cat([part.body for part in parts], dim=1).float()


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
