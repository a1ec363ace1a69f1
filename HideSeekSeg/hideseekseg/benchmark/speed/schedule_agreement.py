"""Whether other schedules find what the exact one does, crop by crop, with the same weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...attribution import Attribution, attribute, encode
from ...findings import LESION_TYPES, LesionType, SliceCandidate
from ...model.profile import Schedule
from ...model.weights import Model
from ...simulation.random_fields import Mask
from ...training.evaluation import Case
from ..methods.trained import spread

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
