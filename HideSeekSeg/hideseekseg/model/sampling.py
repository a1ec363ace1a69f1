"""Diffusion in pure functions: linear betas, deterministic DDIM, single-shot predictions.

Notation is the paper's and DDIM's (Song et al., ICLR 2021): T timesteps, alpha-bar_t the share of
signal left at t, eps the predicted noise, x0-hat the predicted image, z the semantic latent.
Images are (N, 1, H, W) float32, latents (N, latent); every image of a batch walks the same times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

TIMESTEPS = 1000

NoisePredictor = Callable[[Tensor, Tensor, Tensor], Tensor]
StepCallback = Callable[[int, int], None]


@lru_cache
def alpha_bars(timesteps: int = TIMESTEPS) -> Tensor:
    """alpha-bar (T,) float64 of T betas in equal steps; 1e-4 to 0.02 at T = 1000."""
    stretch = 1000 / timesteps
    betas = torch.linspace(stretch * 1e-4, stretch * 0.02, timesteps, dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0)


def subset(steps: int, timesteps: int = TIMESTEPS) -> list[int]:
    """The ascending times of "ddim<steps>": the integer stride from 0 that gives so many.

    Raises ValueError where no integer stride does.
    """
    for stride in range(1, timesteps + 1):
        times = range(0, timesteps, stride)
        if len(times) == steps:
            return list(times)
    raise ValueError(f"no integer stride through {timesteps} timesteps gives {steps} steps")


def ddim_invert(
    model: NoisePredictor,
    x: Tensor,
    z: Tensor,
    steps: int,
    timesteps: int = TIMESTEPS,
    callback: StepCallback | None = None,
) -> Tensor:
    """The stochastic code x_T of images x under z: DDIM run backwards.

    ``callback(step, steps)`` is called after each network call; what it raises ends the walk.
    """
    levels = _levels(steps, timesteps)
    # The walk ends in pure noise: alpha-bar 0, as in the published implementation.
    targets = [level for _, level in levels[1:]] + [0.0]
    return _walk(model, x, z, list(zip(levels, targets)), callback)


def ddim_render(
    model: NoisePredictor,
    x_t: Tensor,
    z: Tensor,
    steps: int,
    timesteps: int = TIMESTEPS,
    callback: StepCallback | None = None,
) -> Tensor:
    """The images that z and the stochastic code x_T stand for; values in [-1, 1].

    ``callback`` as in ``ddim_invert``.
    """
    levels = _levels(steps, timesteps)
    targets = [1.0] + [level for _, level in levels[:-1]]
    return _walk(model, x_t, z, list(zip(levels, targets))[::-1], callback)


def noised(x0: Tensor, t: Tensor, noise: Tensor, timesteps: int = TIMESTEPS) -> Tensor:
    """x_t: images x0 (N, 1, H, W) at times t (N,) under the given noise, of x0's shape."""
    level = _level_of(t, x0, timesteps)
    return level.sqrt() * x0 + (1 - level).sqrt() * noise


def predict_x0(
    model: NoisePredictor, x_t: Tensor, t: Tensor, z: Tensor, timesteps: int = TIMESTEPS
) -> Tensor:
    """x0-hat(x_t, z) in a single network call, clipped to [-1, 1]; t (N,)."""
    level = _level_of(t, x_t, timesteps)
    eps = model(x_t, t, z)
    return ((x_t - (1 - level).sqrt() * eps) / level.sqrt()).clamp(-1, 1)


def _levels(steps: int, timesteps: int) -> list[tuple[int, float]]:
    bars = alpha_bars(timesteps)
    return [(t, float(bars[t])) for t in subset(steps, timesteps)]


def _level_of(t: Tensor, like: Tensor, timesteps: int) -> Tensor:
    # To float32 first: not every device knows float64.
    level = alpha_bars(timesteps)[t.cpu()].to(like.dtype)
    return level.to(like.device)[:, None, None, None]


def _walk(
    model: NoisePredictor,
    x: Tensor,
    z: Tensor,
    path: list[tuple[tuple[int, float], float]],
    callback: StepCallback | None,
) -> Tensor:
    """Step along ``path``, of ((time, its alpha-bar), alpha-bar to go to) triples."""
    for step, ((time, level), target) in enumerate(path, start=1):
        t = torch.full((len(x),), time, device=x.device)
        eps = model(x, t, z)
        stretched, spread = x * level**-0.5, (1 / level - 1) ** 0.5
        x0 = (stretched - spread * eps).clamp(-1, 1)
        # The noise that belongs to the clipped image: without it, clipping would leave the path.
        eps = (stretched - x0) / spread
        # In float32, as the published numbers were made: 1 - alpha-bar loses digits near t = 0.
        goal = torch.tensor(target, dtype=torch.float32, device=x.device)
        x = goal.sqrt() * x0 + (1 - goal).sqrt() * eps
        if callback is not None:
            callback(step, len(path))
    return x
