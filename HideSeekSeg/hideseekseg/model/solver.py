"""Few long steps in place of many short ones: the DDIM paths by a multistep solver.

With alpha = sqrt(alpha-bar), sigma = sqrt(1 - alpha-bar) and lambda = log(alpha / sigma), half the
log signal-to-noise ratio, DDIM's path obeys

    d(x / sigma) / d lambda = exp(lambda) x0-hat(x, lambda)

A step that holds x0-hat constant is DDIM's own; one that lets it follow the line through its last
two values is DPM-Solver++(2M) (Lu et al., 2022).  The path runs both ways, hence so do the steps.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .sampling import TIMESTEPS, NoisePredictor, StepCallback, alpha_bars


def solve_invert(
    model: NoisePredictor,
    x: Tensor,
    z: Tensor,
    steps: int,
    last: int,
    timesteps: int = TIMESTEPS,
    callback: StepCallback | None = None,
) -> Tensor:
    """The stochastic code x_T of images x under z, in ``steps`` network calls.

    ``last`` is the time of the last call, where the walk of ``ddim_invert`` has its own.
    """
    return _walk(model, x, z, times_between(0, last, steps, timesteps), 0.0, timesteps, callback)


def solve_render(
    model: NoisePredictor,
    x_t: Tensor,
    z: Tensor,
    steps: int,
    first: int,
    timesteps: int = TIMESTEPS,
    callback: StepCallback | None = None,
) -> Tensor:
    """The images that z and the stochastic code x_T stand for; values in [-1, 1].

    ``first`` is the time of the first call, which x_T is taken to be of.
    """
    times = times_between(0, first, steps, timesteps)[::-1]
    return _walk(model, x_t, z, times, 1.0, timesteps, callback)


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


def _walk(
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
