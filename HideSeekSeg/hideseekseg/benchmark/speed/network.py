"""One slice with its candidates: our cost against that of the published network and schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ...attribution import Proposal, Proposals, edit, encode, hide_and_seek, propose
from ...model.autoencoder import DiffusionAutoencoder
from ...model.profile import Architecture, Schedule
from ...model.weights import Model
from .schedule_agreement import Crops

PUBLISHED = Schedule()
REPEATS, CALLS = 5, 3


@dataclass(frozen=True)
class OneSlice:
    """Seconds of all five steps on slices with ``candidates`` each, a slice at a time or together.

    ``published`` is the cost of the published way on such a slice: its seconds per network call,
    measured, times its number of calls.
    """

    candidates: int
    alone: float
    together: float
    published_calls: int
    published: float

    @property
    def ratio(self) -> float:
        return self.published / self.alone


def published_calls(candidates: int) -> int:
    """Network calls of the published way for one slice."""
    return PUBLISHED.edit_calls + candidates * (PUBLISHED.invert_steps + PUBLISHED.render_steps)


def published_network() -> DiffusionAutoencoder:
    """Return the published architecture with random numbers, which cost the same."""
    with torch.device("meta"):
        network = DiffusionAutoencoder(Architecture())
    network = network.to_empty(device="cpu")
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.requires_grad_(False).normal_(0.0, 0.02)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


@torch.inference_mode()
def seconds_per_call(network: DiffusionAutoencoder) -> float:
    """Return the least of a few calls with one slice, as the published way makes them."""
    size, latent = network.architecture.image_size, network.architecture.latent
    x, z = torch.zeros(1, 1, size, size), torch.zeros(1, latent)
    t = torch.full((1,), 500)
    return least(lambda: network(x, t, z), CALLS)


def one_slice(model: Model, crops: Crops, per_call: float) -> list[OneSlice]:
    """By number of candidates, on the crops that have so many, one at a time and all together."""
    latents = encode(crops.x, model)
    found = propose(edit(crops.x, latents, model), crops.body, model.profile.decision)
    number = np.bincount([c.slice for c in found.candidates], minlength=len(crops.x))
    rows = []
    for candidates in sorted(set(number.tolist()) - {0}):
        own = np.flatnonzero(number == candidates)
        calls = published_calls(candidates)
        alone = least(partial(_all_steps, model, crops, own[:1]), REPEATS)
        together = least(partial(_all_steps, model, crops, own), 2) / len(own)
        rows.append(OneSlice(candidates, alone, together, calls, calls * per_call))
    return rows


def _all_steps(model: Model, crops: Crops, at: np.ndarray) -> None:
    latents = encode(crops.x[at], model)
    healthy = edit(crops.x[at], latents, model)
    proposals = propose(healthy, crops.body[at], model.profile.decision)
    hide_and_seek(latents, healthy, proposals, model)


def by_slices(model: Model, crops: Crops, counts: Sequence[int]) -> dict[int, float]:
    """Seconds of all steps on so many slices at once, repeated where there are not as many."""
    at = np.arange(max(counts)) % len(crops.x)
    return {n: least(partial(_all_steps, model, crops, at[:n]), 2) for n in counts}


def by_candidates(model: Model, crops: Crops, counts: Sequence[int]) -> dict[int, float]:
    """Seconds of hide and seek alone on one slice with so many candidates."""
    latents = encode(crops.x[:1], model)
    healthy = edit(crops.x[:1], latents, model)
    body = crops.body[:1]
    one = Proposal(0, "lytic", body[0], 0.1)
    seconds = {}
    for n in counts:
        work = partial(hide_and_seek, latents, healthy, Proposals((one,) * n, body), model)
        seconds[n] = least(work, REPEATS)
    return seconds


def least(work: Callable[[], object], repeats: int) -> float:
    """Least seconds of the processor in a few repeats, after one that does not count.

    Other work on the machine makes everything wait, but takes little from these.
    """
    work()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)
