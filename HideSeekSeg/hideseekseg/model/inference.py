"""What the method asks of the autoencoder, for one batch: encode, render the edit, project.

Images x are (N, 1, H, W), latents z (N, latent); ``tick()`` is called after each network call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from .autoencoder import DiffusionAutoencoder
from .profile import Schedule
from .sampling import (
    ddim_invert,
    ddim_render,
    dpmpp_2m_invert,
    dpmpp_2m_render,
    noised,
    predict_x0,
)

BATCH = 32

Tick = Callable[..., None]
Report = Callable[[int, int], None]

_log = logging.getLogger(__name__)


@torch.inference_mode()
def in_batches(
    work: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    calls: int,
    device: torch.device,
    batch: int = BATCH,
    report: Report | None = None,
) -> Tensor:
    """``work(*chunks, tick)`` on chunks of the inputs along axis 0, joined again on the CPU.

    ``work`` calls ``tick()`` after each of its ``calls`` network calls; ``report(done, total)``
    then hears of network calls counted per image, and whatever it raises ends the work.  A batch
    that does not fit in memory is halved; one image that does not fit raises as torch does.
    """
    total, start = len(inputs[0]), 0
    results: list[Tensor] = []
    while start < total:
        chunks = [x[start : start + batch].to(device) for x in inputs]
        result = _try(work, chunks, _ticker(start * calls, len(chunks[0]), total * calls, report))
        if result is None:
            batch = (len(chunks[0]) + 1) // 2
            _log.warning("out of memory: continuing with %d images at a time", batch)
            continue
        results.append(result.cpu())
        start += len(chunks[0])
    return torch.cat(results)


def _ticker(done: int, images: int, total: int, report: Report | None) -> Tick:
    def tick(*_: int) -> None:
        nonlocal done
        done += images
        if report is not None:
            report(done, total)

    return tick


def _try(work: Callable[..., Tensor], chunks: list[Tensor], tick: Tick) -> Tensor | None:
    """None where memory ran out and fewer images may help; the failed tensors are free by then."""
    try:
        with _exact(chunks[0].device):
            return work(*chunks, tick)
    except RuntimeError as error:
        if len(chunks[0]) == 1 or not is_out_of_memory(error):
            raise
    return None


def _exact(device: torch.device) -> AbstractContextManager[None]:
    """Make the same input give the same output: no algorithm by timing, no shortened mantissas.

    The flags are the whole process's, so threads on the CPU, which need none, leave them alone.
    """
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has an exception of its own; MPS and the CPU say it in words."""
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in said or "can't allocate memory" in said)
    )


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
    """Return the mean change of x0-hat (N, 1, H, W) from z to z_healthy.

    Added to the image itself it makes the edit: so the detail stays that x0-hat at high noise has
    lost.  Draws share batches with slices.  ``noises`` (N, draws, H, W) as of ``seeded_noises``.
    """
    draws = noises.shape[1]
    turn = _turned if net.architecture.mirrored else torch.clone
    if schedule.opposite_noise:  # opposite where they fall on the same tissue
        noises = turn(noises)
    images, z, z_healthy = (part.repeat_interleave(draws, dim=0) for part in inputs)
    images = turn(images.view_as(noises)).view_as(images)
    single = [images, z, z_healthy, noises.reshape(images.shape)]
    change = in_batches(partial(_change, net, schedule), single, 2, device, batch, report)
    change = turn(change.view_as(noises)).mean(dim=1, keepdim=True)
    return schedule.guidance * change


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


def seeded_noises(
    slices: Iterable[int], draws: int, shape: tuple[int, ...], opposite: bool = False
) -> Tensor:
    """Noise (N, draws, H, W) for the slices of these indices.

    Drawn on the CPU, so that all devices agree; each slice has its own seed, so that what noise
    leaves behind does not line up from slice to slice.  ``opposite``: every second draw is the one
    before it with the other sign.
    """
    drawn = (draws + 1) // 2 if opposite else draws
    noises = torch.stack(
        [
            torch.randn((drawn, *shape), generator=torch.Generator().manual_seed(SEED + i))
            for i in slices
        ]
    )
    if opposite:
        noises = torch.stack([noises, -noises], dim=2).flatten(1, 2)[:, :draws]
    return noises


# Their strides say where the paper's walks end and begin: the solver's do so, too.
PAPER_INVERT_STEPS, PAPER_RENDER_STEPS = 250, 100


def encoded(net: DiffusionAutoencoder, x: Tensor, reference: Tensor, tick: Tick) -> Tensor:
    """Return the semantic latents of x; ``reference`` (N, 2) as in ``autoencoder.relative``."""
    z = net.encode(x, reference)
    tick()
    return z


def projected(
    net: DiffusionAutoencoder, schedule: Schedule, x: Tensor, reference: Tensor, tick: Tick
) -> Tensor:
    """Return the latents of what the autoencoder makes of x: the nearest picture that it knows."""
    z = encoded(net, x, reference, tick)
    x = _render(net, schedule, _invert(net, schedule, x, z, tick), z, tick)
    return encoded(net, x, reference, tick)


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
    return dpmpp_2m_invert(net, x, z, steps, last, timesteps, tick)


def _render(
    net: DiffusionAutoencoder, schedule: Schedule, code: Tensor, z: Tensor, tick: Tick
) -> Tensor:
    steps, timesteps = schedule.render_steps, schedule.timesteps
    if schedule.solver == "ddim":
        return ddim_render(net, code, z, steps, timesteps, tick)
    first = timesteps - max(timesteps // PAPER_RENDER_STEPS, 1)
    return dpmpp_2m_render(net, code, z, steps, first, timesteps, tick)
