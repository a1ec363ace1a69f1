"""What the method asks of the autoencoder, for one batch: encode, edit in two ways, project.

Images x are (N, 1, H, W), latents z (N, latent); ``tick()`` is called after each network call.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .autoencoder import DiffusionAutoencoder
from .batches import Tick
from .diffusion import ddim_invert, ddim_render, noised, predict_x0
from .profile import Schedule

SEED = 2026


def encoded(net: DiffusionAutoencoder, x: Tensor, tick: Tick) -> Tensor:
    """The semantic latents of x."""
    z = net.encode(x)
    tick()
    return z


def projected(net: DiffusionAutoencoder, schedule: Schedule, x: Tensor, tick: Tick) -> Tensor:
    """The latents of what the autoencoder makes of x: the nearest picture that it knows."""
    z = encoded(net, x, tick)
    code = ddim_invert(net, x, z, schedule.invert_steps, schedule.timesteps, tick)
    x = ddim_render(net, code, z, schedule.render_steps, schedule.timesteps, tick)
    return encoded(net, x, tick)


def rendered_edit(
    net: DiffusionAutoencoder,
    schedule: Schedule,
    x: Tensor,
    z: Tensor,
    z_healthy: Tensor,
    tick: Tick,
) -> Tensor:
    """Reconstruction and healthy edit (N, 2, H, W), both rendered from the same x_T."""
    code = ddim_invert(net, x, z, schedule.invert_steps, schedule.timesteps, tick)
    steps, timesteps = schedule.render_steps, schedule.timesteps
    return torch.cat(
        [ddim_render(net, code, latent, steps, timesteps, tick) for latent in (z, z_healthy)], dim=1
    )


def single_shot_edit(
    net: DiffusionAutoencoder,
    schedule: Schedule,
    x: Tensor,
    z: Tensor,
    z_healthy: Tensor,
    noises: Tensor,
    tick: Tick,
) -> Tensor:
    """Image and healthy edit (N, 2, H, W): the edit adds the mean change of x0-hat to the image.

    Adding the change to the image itself keeps the detail that x0-hat at high noise has lost.
    ``noises`` is (N, draws, H, W); both latents see the same.
    """
    time = round(schedule.noise_level * (schedule.timesteps - 1))
    t = torch.full((len(x),), time, device=x.device)
    change = torch.zeros_like(x)
    for number, noise in enumerate(noises.split(1, dim=1)):
        mirrored = net.architecture.mirrored and number % 2 == 1
        x_t = noised(x.flip(-1) if mirrored else x, t, noise, schedule.timesteps)
        for sign, latent in ((1, z_healthy), (-1, z)):
            x_0 = predict_x0(net, x_t, t, latent, schedule.timesteps)
            change += sign * (x_0.flip(-1) if mirrored else x_0)
            tick()
    return torch.cat([x, x + change / noises.shape[1]], dim=1)


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
