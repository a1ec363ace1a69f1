"""Few long steps go where many short ones do: the multistep solver against DDIM and theory.

For white Gaussian images of deviation s the best noise predictor is known in closed form, and the
exact path ends at x_T = x / s.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from helpers.models import FAST, tiny_images, tiny_model
from hideseekseg.attribution import edit, encode
from hideseekseg.errors import ScheduleError
from hideseekseg.model.profile import Schedule
from hideseekseg.model.sampling import (
    alpha_bars,
    ddim_invert,
    dpmpp_2m_invert,
    dpmpp_2m_render,
    times_between,
)
from hideseekseg.model.weights import multistep, scheduled

LAST, FIRST = 996, 990
DEVIATION = 0.2


def gaussian_eps(x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """E[noise | x_t] of white images whose deviation is z (N, 1)."""
    level = alpha_bars()[t].to(x_t.dtype)[:, None, None, None]
    variance = z[:, :, None, None] ** 2
    return (1 - level).sqrt() * x_t / (level * variance + 1 - level)


def white() -> tuple[Tensor, Tensor]:
    noise = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return DEVIATION * noise.clamp(-3, 3), torch.full((3, 1), DEVIATION)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).pow(2).mean().sqrt())


@pytest.mark.parametrize("steps", [8, 16, 32])
def test_the_solver_ends_nearer_to_the_exact_code_than_ddim_with_three_times_as_many_calls(
    steps: int,
) -> None:
    x, z = white()
    exact = x / DEVIATION
    ours = error(dpmpp_2m_invert(gaussian_eps, x, z, steps, LAST), exact)
    assert ours < error(ddim_invert(gaussian_eps, x, z, 100 // (32 // steps)), exact)
    assert ours < error(ddim_invert(gaussian_eps, x, z, 10), exact) / 4


def test_twice_the_steps_leave_a_third_of_the_error_or_less() -> None:
    """Of second order: a quarter in the limit, but for whole timesteps and the ends of the way."""
    x, z = white()
    eight, sixteen, many = (
        error(dpmpp_2m_invert(gaussian_eps, x, z, steps, LAST), x / DEVIATION)
        for steps in (8, 16, 32)
    )
    assert sixteen < eight / 3
    assert many < sixteen / 3


def test_inversion_and_rendering_undo_each_other() -> None:
    x, z = white()
    code = dpmpp_2m_invert(gaussian_eps, x, z, 24, LAST)
    back = dpmpp_2m_render(gaussian_eps, code, z, 24, FIRST)
    assert error(back, x) < 0.02 * DEVIATION


def test_times_are_nearly_equal_steps_of_the_signal_to_noise_ratio() -> None:
    times = times_between(0, LAST, 12)
    assert (times[0], times[-1], len(times)) == (0, LAST, 12)
    levels = alpha_bars()[list(times)]
    steps = (levels / (1 - levels)).log().diff()
    assert bool((steps < 0).all())
    assert float(steps.std() / steps.mean().abs()) < 0.5


def test_more_steps_than_times_are_as_many_as_there_are() -> None:
    assert times_between(0, 9, 50) == tuple(range(10))


def test_every_call_is_told_and_may_end_the_walk() -> None:
    x, z = white()
    told: list[tuple[int, int]] = []

    def stop_at_three(step: int, steps: int) -> None:
        told.append((step, steps))
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dpmpp_2m_render(gaussian_eps, x, z, 8, FIRST, callback=stop_at_three)
    assert told == [(1, 8), (2, 8), (3, 8)]


def test_named_schedules_keep_the_weights_and_say_what_they_are() -> None:
    own = tiny_model(replace(FAST, name="fast", timesteps=1000))
    assert scheduled(own, "fast") is own
    exact = scheduled(own, "exact")
    assert exact.profile.schedule == Schedule("exact", timesteps=1000)
    assert (exact.hash, exact.autoencoder) == (own.hash, own.autoencoder)
    few = scheduled(own, "multistep").profile.schedule
    assert few.edit_calls < exact.profile.schedule.edit_calls / 10
    with pytest.raises(ScheduleError, match="have no fast schedule"):
        scheduled(exact, "fast")
    with pytest.raises(ScheduleError, match="choose exact, multistep, fast"):
        scheduled(own, "slow")
    with pytest.raises(ScheduleError, match="no integer stride through 100 timesteps"):
        scheduled(tiny_model(replace(FAST, name="fast", timesteps=100)), "exact")


def test_the_image_may_stand_for_its_reconstruction() -> None:
    schedule = multistep(10, 100)
    drawn = tiny_model(schedule)
    kept = tiny_model(replace(schedule, reconstruction="image"))
    images = tiny_images(2)
    latents = encode(images, drawn)
    one, other = edit(images, latents, drawn), edit(images, latents, kept)
    assert torch.equal(other.reconstruction, images)
    assert not torch.equal(one.reconstruction, images)
    torch.testing.assert_close(one.edited, other.edited)
    assert kept.profile.schedule.edit_calls == 20
