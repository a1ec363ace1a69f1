"""What the method asks of the autoencoder, for one batch: encode, render the edit, project.

Images x are (N, 1, H, W), latents z (N, latent); ``tick()`` is called after each network call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .autoencoder import DiffusionAutoencoder
from .batches import Tick
from .profile import Schedule
from .sampling import ddim_invert, ddim_render
from .solver import solve_invert, solve_render

# Their strides say where the paper's walks end and begin: the solver's do so, too.
PAPER_INVERT_STEPS, PAPER_RENDER_STEPS = 250, 100


def encoded(net: DiffusionAutoencoder, x: Tensor, tick: Tick) -> Tensor:
    """The semantic latents of x."""
    z = net.encode(x)
    tick()
    return z


def projected(net: DiffusionAutoencoder, schedule: Schedule, x: Tensor, tick: Tick) -> Tensor:
    """The latents of what the autoencoder makes of x: the nearest picture that it knows."""
    z = encoded(net, x, tick)
    x = _render(net, schedule, _invert(net, schedule, x, z, tick), z, tick)
    return encoded(net, x, tick)


def rendered_edit(
    net: DiffusionAutoencoder,
    schedule: Schedule,
    x: Tensor,
    z: Tensor,
    z_healthy: Tensor,
    tick: Tick,
) -> Tensor:
    """Reconstruction and healthy edit (N, 2, H, W), from the same x_T where both are rendered."""
    code = _invert(net, schedule, x, z, tick)
    drawn = x if schedule.reconstruction == "image" else _render(net, schedule, code, z, tick)
    return torch.cat([drawn, _render(net, schedule, code, z_healthy, tick)], dim=1)


def _invert(
    net: DiffusionAutoencoder, schedule: Schedule, x: Tensor, z: Tensor, tick: Tick
) -> Tensor:
    steps, timesteps = schedule.invert_steps, schedule.timesteps
    if schedule.solver == "ddim":
        return ddim_invert(net, x, z, steps, timesteps, tick)
    last = timesteps - max(timesteps // PAPER_INVERT_STEPS, 1)
    return solve_invert(net, x, z, steps, last, timesteps, tick)


def _render(
    net: DiffusionAutoencoder, schedule: Schedule, code: Tensor, z: Tensor, tick: Tick
) -> Tensor:
    steps, timesteps = schedule.render_steps, schedule.timesteps
    if schedule.solver == "ddim":
        return ddim_render(net, code, z, steps, timesteps, tick)
    first = timesteps - max(timesteps // PAPER_RENDER_STEPS, 1)
    return solve_render(net, code, z, steps, first, timesteps, tick)
