"""Choosing thresholds on validation vertebrae: gate, floors, least slices, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..findings import LESION_TYPES, LesionType
from ..lesions import SliceCandidate
from ..model.profile import Decision
from ..model.weights import Model
from .evaluation import (
    Case,
    Detections,
    Edited,
    edit_case,
    join,
    scored_parts,
    tally,
)
from .lesion_matching import LEAST_IOU

FLOORS = (0.04, 0.06, 0.09, 0.13, 0.18, 0.25)
THRESHOLDS = tuple(np.round(np.arange(0.05, 0.96, 0.05), 2).tolist())
MIN_SLICES = (2, 3)
# Shares of lesion-bearing slices that the gate may lose.
LOST_BY_GATE = (0.08, 0.16)
# What a false finding of a type in every healthy vertebra takes from the mean of F1 and Dice: a
# reader has to reject each of them, and most vertebrae are healthy.
FALSE_COST = 0.5

Scored = Sequence[Sequence[SliceCandidate]]  # the candidates of each case


def worth(f1: float, dice: float, false_per_healthy: float) -> float:
    """Return what thresholds are chosen by, per type."""
    return (f1 + dice) / 2 - FALSE_COST * false_per_healthy


def tune(
    model: Model, cases: Sequence[Case], progress: Callable[[int, int], None] = lambda a, b: None
) -> Decision:
    """Return the gate, floors, least slices and threshold of the highest mean worth of both types.

    For each gate and least number of slices the best floor of either type; then the score's
    threshold, which costs nothing to move.  Everything else stays as the profile has it.
    """
    open_model = _with(model, replace(model.profile.decision, gate_p=0.0))
    seen = [edit_case(case, open_model) for case in cases]
    trials: list[tuple[float, Decision]] = []
    total = len(LOST_BY_GATE) * (len(FLOORS) + 1)
    for number, lost in enumerate(LOST_BY_GATE):
        gate = choose_gate(seen, lost)
        gated = [close_gate(one, gate) for one in seen]
        start = replace(model.profile.decision, gate_p=gate)
        scored: dict[float, Scored] = {}
        for floor in FLOORS:
            decision = replace(start, lytic_floor=floor, blastic_floor=floor)
            scored[floor] = [scored_parts(one, _with(model, decision)) for one in gated]
            progress(number * (len(FLOORS) + 1) + len(scored), total)
        for min_slices in MIN_SLICES:
            lytic, blastic = (_best_floor(gated, scored, kind, min_slices) for kind in LESION_TYPES)
            decision = replace(
                start, lytic_floor=lytic, blastic_floor=blastic, min_slices=min_slices
            )
            parts = scored[lytic]
            if lytic != blastic:
                parts = [scored_parts(one, _with(model, decision)) for one in gated]
            trials.append(_best_threshold(gated, parts, decision))
        progress((number + 1) * (len(FLOORS) + 1), total)
    return max(trials, key=lambda trial: trial[0])[1]


def _best_floor(
    seen: Sequence[Edited], scored: dict[float, Scored], kind: LesionType, min_slices: int
) -> float:
    """Return the floor that serves a type best, each with the threshold that suits it."""
    values = {}
    for floor, parts in scored.items():
        found = [join(one, own, min_slices) for one, own in zip(seen, parts)]
        values[floor] = max(_worth(found, kind, threshold) for threshold in THRESHOLDS)
    return max(values, key=lambda floor: values[floor])


def _best_threshold(
    seen: Sequence[Edited], parts: Scored, decision: Decision
) -> tuple[float, Decision]:
    found = [join(one, own, decision.min_slices) for one, own in zip(seen, parts)]
    values = [
        sum(_worth(found, kind, threshold) for kind in LESION_TYPES) for threshold in THRESHOLDS
    ]
    best = int(np.argmax(values))
    return values[best], replace(decision, threshold=THRESHOLDS[best])


def close_gate(seen: Edited, gate: float) -> Edited:
    """Return the same case as if slices below the gate had not been edited."""
    ill = (seen.latents.p >= gate)[:, None, None, None]
    healthy = replace(
        seen.healthy, edited=torch.where(ill, seen.healthy.edited, seen.healthy.reconstruction)
    )
    return replace(seen, healthy=healthy)


def choose_gate(seen: Sequence[Edited], lost: float) -> float:
    """Return the P(malignant) that all but a share of the slices with a lesion exceed."""
    ill = [
        one.latents.p.numpy()[
            np.any([one.case.truth[k].sum(axis=(1, 2)) >= 16 for k in LESION_TYPES], axis=0)
        ]
        for one in seen
    ]
    return float(np.quantile(np.concatenate(ill), lost))


def _with(model: Model, decision: Decision) -> Model:
    return replace(model, profile=replace(model.profile, decision=decision))


def _worth(found: Sequence[Detections], kind: LesionType, threshold: float) -> float:
    counts = tally(found, kind, threshold, LEAST_IOU)
    healthy = [one for one in found if not one.case.diseased]
    false = tally(healthy, kind, threshold, LEAST_IOU).false_positives / max(len(healthy), 1)
    return worth(counts.f1, counts.mean_dice, false)
