"""The table that says what weights are worth."""

from __future__ import annotations

from collections.abc import Sequence

from ..model.weights import Model
from .evaluation import TYPES, Case, false_per_healthy, find, see, tally, vertebra_auc
from .tuning import slice_auc


def measure_weights(model: Model, cases: Sequence[Case]) -> dict[str, float | int]:
    """Plain figures of one set of weights on simulated cases, by name."""
    found = [find(see(case, model), model) for case in cases]
    decision = model.profile.decision
    figures: dict[str, float | int] = {
        "vertebrae": len(cases),
        "diseased": sum(case.diseased for case in cases),
        "patients": len({case.patient for case in cases}),
        "slice AUC": slice_auc(model, cases),
        "vertebra AUC": vertebra_auc(found),
        "false findings per healthy vertebra": false_per_healthy(found, decision),
    }
    for kind in TYPES:
        for least_iou in (0.1, 0.5):
            counts = tally(found, kind, decision, least_iou)
            figures[f"{kind} F1 (IoU >= {least_iou})"] = counts.f1
            if least_iou == 0.1:
                figures[f"{kind} precision"] = counts.precision
                figures[f"{kind} recall"] = counts.recall
                figures[f"{kind} Dice"] = counts.mean_dice
    return {k: v if isinstance(v, int) else round(float(v), 3) for k, v in figures.items()}


def format_figures(figures: dict[str, float | int]) -> str:
    """Two columns in Markdown."""
    rows = [f"| {name} | {value} |" for name, value in figures.items()]
    return "\n".join(["| what | value |", "|---|---|", *rows])
