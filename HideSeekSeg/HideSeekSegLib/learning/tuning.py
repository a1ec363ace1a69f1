"""Choosing thresholds on validation vertebrae: gate, floors, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..attribution import encode
from ..findings import LesionType
from ..model.profile import Decision
from ..model.weights import Model
from .evaluation import TYPES, Case, Found, auc, find, see, tally

FLOORS = (0.04, 0.06, 0.09, 0.13, 0.18, 0.25)
THRESHOLDS = tuple(np.round(np.arange(0.05, 0.96, 0.05), 2).tolist())
# Share of lesion-bearing slices that the gate may lose.
LOST_BY_GATE = 0.08


def tune(
    model: Model, cases: Sequence[Case], progress: Callable[[int, int], None] = lambda a, b: None
) -> Decision:
    """The decision with the best mean of F1 and Dice over both types on the cases.

    The gate comes first, from the slices' P alone; then one floor per type; then the score's
    threshold, which costs nothing to move.  Candidates are everything above the floor.
    """
    base = replace(model.profile.decision, candidate_quantile=0.0, gate_p=0.0)
    open_model = replace(model, profile=replace(model.profile, decision=base))
    gate = choose_gate(open_model, cases)
    gated = _with(open_model, replace(base, gate_p=gate))
    seen = [see(case, gated) for case in cases]
    best: dict[LesionType, tuple[float, float]] = {}
    for number, floor in enumerate(FLOORS):
        decision = replace(gated.profile.decision, lytic_floor=floor, blastic_floor=floor)
        found = [find(one, _with(gated, decision)) for one in seen]
        for kind in TYPES:
            value = max(_value(found, kind, replace(decision, threshold=t)) for t in THRESHOLDS)
            best[kind] = max(best.get(kind, (-1.0, 0.0)), (value, floor))
        progress(number + 1, len(FLOORS))
    decision = replace(
        gated.profile.decision, lytic_floor=best["lytic"][1], blastic_floor=best["blastic"][1]
    )
    found = [find(one, _with(gated, decision)) for one in seen]
    values = {
        t: sum(_value(found, k, replace(decision, threshold=t)) for k in TYPES) for t in THRESHOLDS
    }
    return replace(decision, threshold=max(values, key=lambda t: values[t]))


def choose_gate(model: Model, cases: Sequence[Case]) -> float:
    """The P(malignant) that all but a few of the slices with a lesion exceed."""
    p = [encode(case.x, model).p.numpy() for case in cases]
    crossed = [
        np.any([case.truth[k].sum(axis=(1, 2)) >= 16 for k in TYPES], axis=0) for case in cases
    ]
    ill = np.concatenate([a[b] for a, b in zip(p, crossed)])
    return float(np.quantile(ill, LOST_BY_GATE))


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
