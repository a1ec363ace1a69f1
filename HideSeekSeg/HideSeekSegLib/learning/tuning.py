"""Choosing thresholds on validation vertebrae: gate, floors, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..attribution import encode
from ..findings import LesionType
from ..model.profile import Decision
from ..model.weights import Model
from .evaluation import TYPES, Case, Found, Seen, auc, find, see, tally

FLOORS = (0.04, 0.06, 0.09, 0.13, 0.18, 0.25)
THRESHOLDS = tuple(np.round(np.arange(0.05, 0.96, 0.05), 2).tolist())
# Shares of lesion-bearing slices that the gate may lose.
LOST_BY_GATE = (0.08, 0.16, 0.25)


def tune(
    model: Model, cases: Sequence[Case], progress: Callable[[int, int], None] = lambda a, b: None
) -> Decision:
    """The gate, floors and threshold with the best mean of F1 and Dice over both types.

    For each gate the best floor of either type; then the score's threshold, which costs nothing to
    move.  Everything else stays as the profile has it.
    """
    open_model = _with(model, replace(model.profile.decision, gate_p=0.0))
    seen = [see(case, open_model) for case in cases]
    trials: list[tuple[float, Decision]] = []
    for number, lost in enumerate(LOST_BY_GATE):
        gate = choose_gate(seen, lost)
        gated = [close_gate(one, gate) for one in seen]
        best: dict[LesionType, tuple[float, float]] = {}
        for floor in FLOORS:
            decision = replace(
                model.profile.decision, gate_p=gate, lytic_floor=floor, blastic_floor=floor
            )
            found = [find(one, _with(model, decision)) for one in gated]
            for kind in TYPES:
                value = max(_value(found, kind, replace(decision, threshold=t)) for t in THRESHOLDS)
                best[kind] = max(best.get(kind, (-1.0, 0.0)), (value, floor))
        decision = replace(decision, lytic_floor=best["lytic"][1], blastic_floor=best["blastic"][1])
        trials.append(_best_threshold(gated, _with(model, decision)))
        progress(number + 1, len(LOST_BY_GATE))
    return max(trials, key=lambda trial: trial[0])[1]


def _best_threshold(seen: Sequence[Seen], model: Model) -> tuple[float, Decision]:
    found = [find(one, model) for one in seen]
    decisions = [replace(model.profile.decision, threshold=t) for t in THRESHOLDS]
    values = [sum(_value(found, kind, decision) for kind in TYPES) for decision in decisions]
    best = int(np.argmax(values))
    return values[best], decisions[best]


def close_gate(seen: Seen, gate: float) -> Seen:
    """The same case as if slices below the gate had not been edited."""
    ill = (seen.latents.p >= gate)[:, None, None, None]
    healthy = replace(
        seen.healthy, edited=torch.where(ill, seen.healthy.edited, seen.healthy.reconstruction)
    )
    return replace(seen, healthy=healthy)


def choose_gate(seen: Sequence[Seen], lost: float) -> float:
    """The P(malignant) that all but a share of the slices with a lesion exceed."""
    ill = [
        one.latents.p.numpy()[
            np.any([one.case.truth[k].sum(axis=(1, 2)) >= 16 for k in TYPES], axis=0)
        ]
        for one in seen
    ]
    return float(np.quantile(np.concatenate(ill), lost))


def slice_auc(model: Model, cases: Sequence[Case]) -> float:
    """AUC over slices: those that a lesion crosses against all slices of healthy vertebrae.

    NaN where there are none of either.
    """
    none = np.empty(0)
    ill, well = [none], [none]
    for case in cases:
        p = encode(case.x, model).p.numpy()
        crossed = np.any([case.truth[k].sum(axis=(1, 2)) >= 16 for k in TYPES], axis=0)
        (ill if case.diseased else well).append(p[crossed] if case.diseased else p)
    return auc(np.concatenate(ill), np.concatenate(well))


def _with(model: Model, decision: Decision) -> Model:
    return replace(model, profile=replace(model.profile, decision=decision))


def _value(found: Sequence[Found], kind: LesionType, decision: Decision) -> float:
    counts = tally(found, kind, decision, 0.1)
    return (counts.f1 + counts.mean_dice) / 2
