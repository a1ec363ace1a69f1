"""The edit in a single shot: how x0-hat changes with the latent, without walking any path.

Images x are (N, 1, H, W), latents z (N, latent), noises (N, draws, H, W).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from .autoencoder import DiffusionAutoencoder
from .batches import Report, Tick, in_batches
from .profile import Schedule
from .sampling import noised, predict_x0

SEED = 2026


def mean_change(
    net: DiffusionAutoencoder,
    schedule: Schedule,
    inputs: Sequence[Tensor],
    noises: Tensor,
    device: torch.device,
    batch: int,
    report: Report | None,
) -> Tensor:
    """The mean change of x0-hat (N, 1, H, W) from z to z_healthy; ``inputs`` are x, z, z_healthy.

    Added to the image itself it makes the edit: so the detail stays that x0-hat at high noise has
    lost.  Draws share batches with slices.
    """
    draws = noises.shape[1]
    turn = _turned if net.architecture.mirrored else torch.clone
    images, z, z_healthy = (part.repeat_interleave(draws, dim=0) for part in inputs)
    images = turn(images.view_as(noises)).view_as(images)
    single = [images, z, z_healthy, noises.reshape(images.shape)]
    change = in_batches(partial(_change, net, schedule), single, 2, device, batch, report)
    return turn(change.view_as(noises)).mean(dim=1, keepdim=True)


def _change(
    net: DiffusionAutoencoder,
    schedule: Schedule,
    x: Tensor,
    z: Tensor,
    z_healthy: Tensor,
    noise: Tensor,
    tick: Tick,
) -> Tensor:
    """Under one noise of x's shape."""
    time = round(schedule.noise_level * (schedule.timesteps - 1))
    t = torch.full((2 * len(x),), time, device=x.device)
    x_t = noised(x, t[: len(x)], noise, schedule.timesteps)
    # Both latents in one network call, as small batches cost more for each image.
    latents = torch.cat([z_healthy, z])
    healthy, own = predict_x0(net, torch.cat([x_t, x_t]), t, latents, schedule.timesteps).chunk(2)
    tick()
    tick()
    return healthy - own


def _turned(images: Tensor) -> Tensor:
    """Images (N, draws, H, W) with every second draw mirrored along S-I; its own inverse."""
    images = images.clone()
    images[:, 1::2] = images[:, 1::2].flip(-1)
    return images


def seeded_noises(slices: Iterable[int], draws: int, shape: tuple[int, ...]) -> Tensor:
    """Noise (N, draws, H, W) for the slices of these indices.

    Drawn on the CPU, so that all devices agree; each slice has its own seed, so that what noise
    leaves behind does not line up from slice to slice.
    """
    return torch.stack(
        [
            torch.randn((draws, *shape), generator=torch.Generator().manual_seed(SEED + i))
            for i in slices
        ]
    )
