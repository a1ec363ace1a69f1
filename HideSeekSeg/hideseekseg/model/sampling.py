"""Diffusion in pure functions: linear betas, deterministic DDIM, single-shot predictions.

Notation is the paper's and DDIM's (Song et al., ICLR 2021): T timesteps, alpha-bar_t the share of
signal left at t, eps the predicted noise, x0-hat the predicted image, z the semantic latent.
Images are (N, 1, H, W) float32, latents (N, latent); every image of a batch walks the same times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .profile import ddim_stride

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
    """Return the ascending times of "ddim<steps>": the integer stride from 0 that gives so many.

    Raises ValueError where no integer stride does.
    """
    stride = ddim_stride(steps, timesteps)
    if stride is None:
        raise ValueError(f"no integer stride through {timesteps} timesteps gives {steps} steps")
    return list(range(0, timesteps, stride))


def ddim_invert(
    model: NoisePredictor,
    x: Tensor,
    z: Tensor,
    steps: int,
    timesteps: int = TIMESTEPS,
    callback: StepCallback | None = None,
) -> Tensor:
    """Return the stochastic code x_T of images x under z: DDIM run backwards.

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
    """Return the images that z and the stochastic code x_T stand for; values in [-1, 1].

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
    level = alpha_bars(timesteps).to(like.dtype).to(like.device)
    return level[t][:, None, None, None]


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


def dpmpp_2m_invert(
    model: NoisePredictor,
    x: Tensor,
    z: Tensor,
    steps: int,
    last: int,
    timesteps: int = TIMESTEPS,
    callback: StepCallback | None = None,
) -> Tensor:
    """Return the stochastic code x_T of images x under z, in ``steps`` network calls.

    ``last`` is the time of the last call, where the walk of ``ddim_invert`` has its own.
    """
    return _multistep_walk(
        model, x, z, times_between(0, last, steps, timesteps), 0.0, timesteps, callback
    )


def dpmpp_2m_render(
    model: NoisePredictor,
    x_t: Tensor,
    z: Tensor,
    steps: int,
    first: int,
    timesteps: int = TIMESTEPS,
    callback: StepCallback | None = None,
) -> Tensor:
    """Return the images that z and the stochastic code x_T stand for; values in [-1, 1].

    ``first`` is the time of the first call, which x_T is taken to be of.
    """
    times = times_between(0, first, steps, timesteps)[::-1]
    return _multistep_walk(model, x_t, z, times, 1.0, timesteps, callback)


@lru_cache
def times_between(low: int, high: int, steps: int, timesteps: int = TIMESTEPS) -> tuple[int, ...]:
    """Ascending times, nearly equal steps of lambda apart; fewer where whole numbers run out.

    Most of the way from noise to image is walked near its ends: equal steps of t would leap there.
    """
    levels = np.array([_half_log_snr(float(bar)) for bar in alpha_bars(timesteps)])
    wanted = np.linspace(levels[low], levels[high], steps)
    at = np.interp(-wanted, -levels, np.arange(len(levels)))
    return tuple(dict.fromkeys(int(t) for t in np.rint(at)))


def _half_log_snr(level: float) -> float:
    return 0.5 * math.log(level / (1 - level))


def _multistep_walk(
    model: NoisePredictor,
    x: Tensor,
    z: Tensor,
    times: tuple[int, ...],
    end: float,
    timesteps: int,
    callback: StepCallback | None,
) -> Tensor:
    """Call the network at these times, from one to the next and on to alpha-bar ``end``."""
    levels = [float(alpha_bars(timesteps)[t]) for t in times]
    before: Tensor | None = None
    for step, (time, level) in enumerate(zip(times, levels)):
        alpha, sigma = math.sqrt(level), math.sqrt(1 - level)
        eps = model(x, torch.full((len(x),), time, device=x.device), z)
        x0 = guess = ((x - sigma * eps) / alpha).clamp(-1, 1)
        goal = levels[step + 1] if step + 1 < len(levels) else end
        if before is not None and step + 1 < len(levels):
            here = _half_log_snr(level)
            ahead = _half_log_snr(goal) - here
            behind = here - _half_log_snr(levels[step - 1])
            guess = x0 + (x0 - before) * ahead / (2 * behind)
        before = x0
        # From sigma to the goal's: what is left of x, and what x0-hat adds.
        kept = math.sqrt(1 - goal) / sigma
        x = kept * x + (math.sqrt(goal) - alpha * kept) * guess
        if callback is not None:
            callback(step + 1, len(times))
    return x
