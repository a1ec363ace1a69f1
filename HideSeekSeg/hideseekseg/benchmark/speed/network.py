"""One slice with its candidates: cost beside the published schedule's, and whether both agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ...attribution import (
    Attribution,
    Proposal,
    Proposals,
    attribute,
    edit,
    encode,
    hide_and_seek,
    propose,
)
from ...findings import LESION_TYPES, LesionType, SliceCandidate
from ...model.autoencoder import DiffusionAutoencoder
from ...model.profile import Architecture, Schedule
from ...model.weights import Model
from ...simulation.random_fields import Mask
from ...training.evaluation import Case
from ..methods.trained import spread

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


SAME_IOU = 0.5  # findings with at least this overlap are the same
PAIR_IOU = 0.1  # candidates with less have nothing to do with each other


@dataclass(frozen=True)
class Crops:
    """Slices x (N, 1, P, I) that the gate lets pass, with body and true lesions (N, P, I).

    ``share`` of all slices passes: the others are the same under every schedule.
    """

    x: torch.Tensor
    body: Mask
    truth: dict[LesionType, Mask]
    share: float


@dataclass(frozen=True)
class ScheduleAgreement:
    """A schedule against the reference on the same crops.

    ``identical``: share of crops with the same findings; ``of_all``: of all crops, those below the
    gate among them; ``score_difference``: mean over candidates, one that has no partner counting
    with its whole score; ``dice``: of all findings' pixels with the true lesions, mean of both
    types; ``calls`` for the edit of a slice and for a picture's score; ``seconds`` of processor.
    """

    name: str
    calls: tuple[int, int]
    identical: float
    of_all: float
    score_difference: float
    dice: float
    findings: int
    seconds: float


def choose_crops(cases: Sequence[Case], model: Model, count: int) -> Crops:
    """``count`` slices, spread over all that the classifier does not call healthy."""
    x = torch.cat([case.x for case in cases])
    ill = np.flatnonzero(encode(x, model).p.numpy() >= model.profile.decision.gate_p)
    chosen = ill[spread(len(ill), count)]
    truth = {
        kind: np.concatenate([case.truth[kind] for case in cases])[chosen] for kind in LESION_TYPES
    }
    body = np.concatenate([case.body for case in cases])[chosen]
    return Crops(x[chosen], body, truth, len(ill) / len(x))


def compare_schedules(
    model: Model, crops: Crops, schedules: Sequence[Schedule], say: Callable[[str], None]
) -> list[ScheduleAgreement]:
    """Compare schedules; the first is the reference, and is in the result as well."""
    found: list[ScheduleAgreement] = []
    reference: Attribution | None = None
    for schedule in schedules:
        own = replace(model, profile=replace(model.profile, schedule=schedule))
        began = time.process_time()
        seen = attribute(crops.x, crops.body, own)
        seconds = time.process_time() - began
        reference = reference or seen
        found.append(judge(schedule, seen, reference, crops, seconds))
        say(f"{schedule.name}: {seconds:.0f} s for {len(crops.x)} crops")
    return found


def judge(
    schedule: Schedule, seen: Attribution, reference: Attribution, crops: Crops, seconds: float
) -> ScheduleAgreement:
    """Compare a schedule's results on the crops with the reference's."""
    n = range(len(crops.x))
    same = [_same(_of(seen.selected, i), _of(reference.selected, i)) for i in n]
    differences = [
        d for i in n for d in _score_differences(_of(seen.scored, i), _of(reference.scored, i))
    ]
    identical = float(np.mean(same))
    return ScheduleAgreement(
        schedule.name,
        (schedule.edit_calls, schedule.projection_calls),
        identical,
        1 - crops.share * (1 - identical),
        float(np.mean(differences)) if differences else 0.0,
        _dice(seen, crops),
        len(seen.selected),
        seconds,
    )


def _of(scored: Sequence[SliceCandidate], index: int) -> list[SliceCandidate]:
    return [s for s in scored if s.slice == index]


def _same(one: Sequence[SliceCandidate], other: Sequence[SliceCandidate]) -> bool:
    return len(one) == len(other) == len(_pairs(one, other, SAME_IOU))


def _score_differences(
    one: Sequence[SliceCandidate], other: Sequence[SliceCandidate]
) -> list[float]:
    pairs = _pairs(one, other, PAIR_IOU)
    lone = [s for n, s in enumerate(one) if n not in {a for a, _ in pairs}]
    lone += [s for n, s in enumerate(other) if n not in {b for _, b in pairs}]
    return [abs(one[a].score - other[b].score) for a, b in pairs] + [abs(s.score) for s in lone]


def _pairs(
    one: Sequence[SliceCandidate], other: Sequence[SliceCandidate], least_iou: float
) -> list[tuple[int, int]]:
    """Return indices of partners of one type, those that overlap most first."""
    overlaps = sorted(
        ((_iou(a, b), i, j) for i, a in enumerate(one) for j, b in enumerate(other)), reverse=True
    )
    pairs: list[tuple[int, int]] = []
    for iou, i, j in overlaps:
        free = i not in {a for a, _ in pairs} and j not in {b for _, b in pairs}
        if iou >= least_iou and free:
            pairs.append((i, j))
    return pairs


def _iou(a: SliceCandidate, b: SliceCandidate) -> float:
    if a.type != b.type:
        return 0.0
    one, other = a.mask, b.mask
    return float((one & other).sum() / (one | other).sum())


def _dice(seen: Attribution, crops: Crops) -> float:
    values = []
    for kind in LESION_TYPES:
        found = np.zeros_like(crops.body)
        for s in seen.selected:
            if s.type == kind:
                found[s.slice] |= s.mask
        truth = crops.truth[kind]
        both = found.sum() + truth.sum()
        values.append(2 * (found & truth).sum() / both if both else 1.0)
    return float(np.mean(values))
