"""One set's results as plain data, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...findings import LESION_TYPES
from ...simulation.source_vertebrae import DRAWN
from ...training.lesion_matching import RULE
from ..methods.method import Tuned
from ..metrics import (
    IOUS,
    REPLICATES,
    Estimate,
    Outcome,
    Weights,
    estimates,
    free_response,
    interval,
    measure,
    reliability,
)

CEILING = "full masks"
NOT_RUN = {"MedSAM": "not run: its weights cannot be had here"}
DIFFERENCES = [
    f"{kind} {what}" for kind in LESION_TYPES for what in (f"F1 (IoU >= {IOUS[0]})", "Dice")
]
Data = dict[str, Any]


@dataclass(frozen=True, eq=False)
class MethodResult:
    """A method's outcomes on a set, with the thresholds that it was used with.

    ``ours``: Hide-and-Seek Attribution itself, with whatever weights: no baseline.
    """

    name: str
    learnt_from: str
    tuned: Tuned
    outcomes: Sequence[Outcome]
    ours: bool = False


@dataclass(frozen=True)
class About:
    """What a set is, the hash of the weights, and the patients on which thresholds were chosen.

    The hashes of several weights have blanks between them.
    ``not_run`` says of methods that ought to be in the table why they are not.
    """

    title: str
    weights: str
    tuned_on: Sequence[str]
    not_run: Mapping[str, str] = field(default_factory=dict)


def describe(about: About, rows: Sequence[MethodResult], weights: Weights) -> Data:
    """Everything that is known of a set; the first row is the method under test."""
    outcomes = rows[0].outcomes
    patients = sorted({one.patient for one in outcomes})
    return {
        "set": about.title,
        "weights": about.weights,
        "vertebrae": len(outcomes),
        "diseased": sum(one.diseased for one in outcomes),
        "anatomical vertebrae": len({one.vertebra for one in outcomes}),
        "lesions": {
            kind: sum(len(one.matches[kind].iou) for one in outcomes) for kind in LESION_TYPES
        },
        "patients": patients,
        "thresholds chosen on": list(about.tuned_on),
        "patients also used for thresholds": _shared(patients, about.tuned_on),
        "matching": RULE,
        "intervals": explain_intervals(len(patients)),
        "methods": [_row_data(row, weights) for row in rows],
        "findings per patient": {} if any(one.diseased for one in outcomes) else per_patient(rows),
        "over the best baseline": over_best(rows, weights),
        "not run": {**about.not_run, **NOT_RUN},
    }


def _shared(patients: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those in both; vertebrae that are drawn from scratch are numbered anew in every set."""
    return sorted(p for p in {*patients} & {*others} if not p.startswith(f"{DRAWN} "))


def per_patient(rows: Sequence[MethodResult]) -> Data:
    """Return accepted findings per vertebra of each patient, by method."""
    counts: Data = {}
    for row in rows:
        own = counts.setdefault(row.name, {})
        for patient in sorted({one.patient for one in row.outcomes}):
            accepted = [
                one.accepted(row.tuned.thresholds) for one in row.outcomes if one.patient == patient
            ]
            own[f"{patient} (n = {len(accepted)})"] = round(sum(accepted) / len(accepted), 3)
    return counts


def explain_intervals(patients: int) -> str:
    """Return how the intervals were computed, in words."""
    drawn = "patients, then their vertebrae, then each vertebra's cases"
    if patients == 1:
        drawn = (
            "vertebrae, then their cases (there is one patient: how patients differ is not in it)"
        )
    return f"95 % bootstrap, {REPLICATES} replicates that redraw {drawn}"


def _row_data(row: MethodResult, weights: Weights) -> Data:
    curves = {
        kind: {str(iou): asdict(free_response(row.outcomes, [kind], iou)) for iou in IOUS}
        for kind in LESION_TYPES
    }
    return {
        "name": row.name,
        "learnt from": row.learnt_from,
        "thresholds": dict(row.tuned.thresholds),
        "settings": {k: str(v) for k, v in row.tuned.settings.items() if v is not None},
        "metrics": estimates_data(estimates(row.outcomes, row.tuned.thresholds, weights)),
        "free response": {
            kind: {iou: {k: v.tolist() for k, v in curve.items()} for iou, curve in own.items()}
            for kind, own in curves.items()
        },
        "reliability": [asdict(b) for b in reliability(row.outcomes)],
    }


def estimates_data(figures: Mapping[str, Estimate]) -> Data:
    """Value and interval by name; None where undefined, since JSON knows no NaN."""
    return {
        name: {k: None if math.isnan(v) else round(v, 4) for k, v in asdict(figure).items()}
        for name, figure in figures.items()
    }


def over_best(rows: Sequence[MethodResult], weights: Weights) -> Data:
    """Per metric the baseline that is best in it, and the paired difference to the first row.

    What learnt from full masks is no baseline but a ceiling.
    """
    baselines = [row for row in rows[1:] if not row.ours and row.learnt_from != CEILING]
    ones = weights[:1] * 0 + 1
    plain = [measure(row.outcomes, row.tuned.thresholds, ones) for row in (rows[0], *baselines)]
    drawn = [measure(row.outcomes, row.tuned.thresholds, weights) for row in (rows[0], *baselines)]
    best: Data = {}
    for name in DIFFERENCES:
        values = [float(one[name][0]) for one in plain]
        known = [n for n in range(1, len(values)) if not math.isnan(values[n])]
        if math.isnan(values[0]) or not known:
            continue
        n = max(known, key=lambda i: values[i])
        gap = Estimate(values[0] - values[n], *interval(drawn[0][name] - drawn[n][name]))
        best[name] = {"baseline": baselines[n - 1].name, **estimates_data({"": gap})[""]}
    return best
