"""The table that says what weights are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..lesions import p_of_vertebra
from ..model.weights import Model
from .dataset import Slices
from .evaluation import TYPES, Case, auc, false_per_healthy, find, see, tally, vertebra_auc
from .threshold_tuning import slice_auc
from .train import encode_all

Figures = dict[str, float | int | None]


def measure_weights(model: Model, cases: Sequence[Case]) -> Figures:
    """Plain figures of one set of weights on simulated cases, by name; None where undefined."""
    found = [find(see(case, model), model) for case in cases]
    decision = model.profile.decision
    figures: Figures = {
        "vertebrae": len(cases),
        "diseased": sum(case.diseased for case in cases),
        "patients": len({case.patient for case in cases}),
        "slice AUC": slice_auc(model, cases),
        "vertebra AUC": vertebra_auc(found),
        "false findings per healthy vertebra": false_per_healthy(found, decision),
    }
    for kind in TYPES:
        for least_iou in (0.1, 0.5):
            counts = tally(found, kind, decision.threshold, least_iou)
            figures[f"{kind} F1 (IoU >= {least_iou})"] = counts.f1
            if least_iou == 0.1:
                figures[f"{kind} precision"] = counts.precision
                figures[f"{kind} recall"] = counts.recall
                figures[f"{kind} Dice"] = counts.mean_dice
    return {name: _plain(value) for name, value in figures.items()}


def measure_labels(model: Model, slices: Slices) -> Figures:
    """How well P(malignant) agrees with the labels of vertebrae whose lesions are not known."""
    z = encode_all(model.autoencoder, slices, model.profile, len(slices))
    p = model.classifier.probability(z).numpy()
    _, first, own = np.unique(slices.vertebra, return_index=True, return_inverse=True)
    ill = slices.label[first] == 1
    of_vertebra = np.array([p_of_vertebra(p[own == n]) for n in range(len(first))])
    figures: Figures = {
        "vertebrae": len(first),
        "diseased": int(ill.sum()),
        "patients": len(np.unique(slices.patient)),
        "vertebra AUC": auc(of_vertebra[ill], of_vertebra[~ill]),
    }
    return {name: _plain(value) for name, value in figures.items()}


def _plain(value: float | int | None) -> float | int | None:
    """Rounded; None instead of NaN, which JSON does not know."""
    if value is None or isinstance(value, int):
        return value
    return None if math.isnan(value) else round(float(value), 3)


def format_figures(figures: Figures) -> str:
    """Two columns in Markdown."""
    rows = [f"| {name} | {'-' if value is None else value} |" for name, value in figures.items()]
    return "\n".join(["| what | value |", "|---|---|", *rows])
