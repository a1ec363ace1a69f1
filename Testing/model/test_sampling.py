"""The samplers are the published ones, and DDIM does what theory says it does.

For white Gaussian images of deviation s the best noise predictor is known in closed form, and DDIM
then has nothing random and nothing learned left: x_T = x / s.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.models import TINY, filled, golden, tiny_images
from hideseekseg.model.sampling import (
    alpha_bars,
    ddim_invert,
    ddim_render,
    noised,
    predict_x0,
    subset,
)
from hideseekseg.model.weights import Model

TOLERANCE = 1e-3


def gaussian_eps(x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """E[noise | x_t] of white images whose deviation is z (N, 1)."""
    level = alpha_bars()[t].to(x_t.dtype)[:, None, None, None]
    variance = z[:, :, None, None] ** 2
    return (1 - level).sqrt() * x_t / (level * variance + 1 - level)


def white_images(deviation: float) -> Tensor:
    noise = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return deviation * noise.clamp(-3, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "number"), [(10, 1), (20, 0)])
def test_stochastic_codes_and_renderings_are_the_published_ones(
    steps: int, number: int, published: Model
) -> None:
    """A walk costs a network call for each step, so it is one image of each number of steps.

    The first image in 10 steps, there and back, is what ``test_attribution`` edits; that a code is
    rendered under another latent is the same with either number of steps.
    """
    expected, network, one = (
        golden("golden_seed1"),
        published.autoencoder,
        slice(number, number + 1),
    )
    image, z, code = (torch.from_numpy(expected[n]) for n in ("image", "z", f"xT_T{steps}"))
    other, image, z, code = z.flip(0)[one], image[one], z[one], code[one]
    with torch.inference_mode():
        found = {
            "xT": ddim_invert(network, image, z, steps),
            "render": ddim_render(network, code, z, steps),
        }
        if steps == 10:
            found["render_flipcond"] = ddim_render(network, code, other, steps)
    for name, values in found.items():
        error = (values - torch.from_numpy(expected[f"{name}_T{steps}"][one])).abs().max()
        assert error <= TOLERANCE, name


def test_inversion_standardises_gaussian_images() -> None:
    x, z = white_images(0.2), torch.full((3, 1), 0.2)
    code = ddim_invert(gaussian_eps, x, z, 1000)
    torch.testing.assert_close(code, x / 0.2, atol=0.05, rtol=0.02)


def test_rendering_undoes_inversion_the_better_the_more_steps() -> None:
    x, z = white_images(0.2), torch.full((3, 1), 0.2)
    errors = [
        float((ddim_render(gaussian_eps, ddim_invert(gaussian_eps, x, z, n), z, n) - x).abs().max())
        for n in (10, 100, 1000)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


def test_the_latent_decides_what_a_code_is_rendered_to() -> None:
    x, narrow, wide = white_images(0.2), torch.full((3, 1), 0.2), torch.full((3, 1), 0.3)
    rendered = ddim_render(gaussian_eps, ddim_invert(gaussian_eps, x, narrow, 500), wide, 500)
    torch.testing.assert_close(rendered, 1.5 * x, atol=0.02, rtol=0.02)


def test_renderings_stay_in_range_whatever_the_network_says() -> None:
    network = filled(TINY)
    z = network.encode(tiny_images(2))
    rendered = ddim_render(network, 5 * torch.randn(2, 1, 16, 16), z, 5)
    assert rendered.abs().max() <= 1.0
    assert rendered.std() > 0


def test_first_guess_is_exact_where_the_noise_is_known() -> None:
    x0, noise, t = white_images(0.3), torch.randn(3, 1, 16, 16), torch.tensor([0, 300, 700])
    x_t = noised(x0, t, noise)
    found = predict_x0(lambda *_: noise, x_t, t, torch.zeros(3, 1))
    torch.testing.assert_close(found, x0, atol=1e-4, rtol=0)


def test_noise_levels_are_the_papers() -> None:
    bars = alpha_bars()
    assert len(bars) == 1000
    assert float(bars[0]) == pytest.approx(1 - 1e-4)
    assert float(bars[1]) == pytest.approx((1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999))
    assert float(bars[-1] / bars[-2]) == pytest.approx(1 - 0.02)
    assert bool((bars.diff() < 0).all())


@pytest.mark.parametrize(("steps", "stride"), [(10, 100), (100, 10), (250, 4), (1000, 1), (30, 34)])
def test_subsets_stride_from_zero(steps: int, stride: int) -> None:
    times = subset(steps)
    assert len(times) == steps
    assert times == list(range(0, 1000, stride))


def test_a_number_of_steps_without_a_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="gives 300 steps"):
        subset(300)


def test_every_step_is_told_and_may_end_the_walk() -> None:
    x, z, told = white_images(0.2), torch.full((3, 1), 0.2), list[tuple[int, int]]()

    def stop_at_four(step: int, steps: int) -> None:
        told.append((step, steps))
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ddim_invert(gaussian_eps, x, z, 10, callback=stop_at_four)
    assert told == [(1, 10), (2, 10), (3, 10), (4, 10)]
