"""One set's results as plain data, ready for JSON, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...findings import LESION_TYPES
from ...simulation.source_vertebrae import shared_patients
from ...training.evaluation import RULE
from ..methods.method import Tuned
from ..metrics import (
    FALSE_PER_VERTEBRA,
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
    ``not_run`` says of methods that ought to be in the table why they are not.  ``also_used`` are
    patients of the set on whom thresholds were chosen, where ``tuned_on`` does not name patients.
    ``unknown`` says why some patients may not have been held out though no name shows it.
    """

    title: str
    weights: str
    tuned_on: Sequence[str]
    not_run: Mapping[str, str] = field(default_factory=dict)
    also_used: Sequence[str] = ()
    unknown: Sequence[str] = ()


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
        "patients also used for thresholds": shared_patients(
            patients, (*about.tuned_on, *about.also_used)
        ),
        "not known to be held out": list(about.unknown),
        "matching": RULE,
        "intervals": explain_intervals(len(patients)),
        "methods": [_row_data(row, weights) for row in rows],
        "findings per patient": {} if any(one.diseased for one in outcomes) else per_patient(rows),
        "over the best baseline": over_best(rows, weights),
        "not run": {**about.not_run, **NOT_RUN},
    }


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

    What learnt from full masks is a ceiling, not a baseline.
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


COLUMNS = {
    **{
        f"{kind} {short}": f"{kind} {name}"
        for kind in LESION_TYPES
        for short, name in (
            ("F1", "F1 (IoU >= 0.1)"),
            ("F1 at 0.5", "F1 (IoU >= 0.5)"),
            ("precision", "precision (IoU >= 0.1)"),
            ("recall", "recall (IoU >= 0.1)"),
            ("Dice", "Dice"),
        )
    },
    "vertebra AUC": "vertebra AUC",
    "Brier score": "Brier score",
    "false per healthy vertebra": "false findings per healthy vertebra",
}


def to_markdown(data: Data) -> str:
    """Return the whole set in Markdown."""
    parts = [f"# {data['set']}", _facts(data), _main_table(data)]
    if data["over the best baseline"]:
        parts.append(_best_table(data))
    if any(data["lesions"].values()):
        parts.append(_free_response_table(data))
    if data.get("recall by stratum"):
        parts += [_strata_table(kind, data["recall by stratum"]) for kind in LESION_TYPES]
    if data.get("each patient"):
        parts.append(_each_table(data["each patient"]))
    if data["findings per patient"]:
        parts.append(_patient_table(data["findings per patient"]))
    if data.get("realism"):
        parts.append(_realism_table(data["realism"]))
    if data.get("ablations"):
        parts.append(_ablation_table(data["ablations"]))
    return "\n\n".join(parts) + "\n"


def _facts(data: Data) -> str:
    lesions = ", ".join(f"{n} {kind}" for kind, n in data["lesions"].items())
    shared = ", ".join(data["patients also used for thresholds"]) or "none"
    hashes = ", ".join(whole[:12] for whole in data["weights"].split())
    lines = [
        f"{data['vertebrae']} vertebrae ({data['diseased']} diseased; {lesions} lesions) on"
        f" {data['anatomical vertebrae']} anatomical vertebrae of {len(data['patients'])} patients"
        f" ({_shortened(data['patients'])}); weights {hashes}.",
        f"Thresholds were chosen on {_shortened(data['thresholds chosen on'])}; patients of this"
        f" set among them: {shared}.",
        data["matching"]
        if any(data["lesions"].values())
        else "Every accepted candidate counts as a false finding.",
        f"In brackets: {data['intervals']}.",
    ]
    lines += [f"Not known to be held out: {why}." for why in data["not known to be held out"]]
    return "\n\n".join(lines)


def _shortened(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and more"


def _main_table(data: Data) -> str:
    rows = [(r["name"], r["learnt from"], r["metrics"]) for r in data["methods"]]
    lines = _table(("method", "learnt from"), rows)
    width = lines[0].count("|") - 1
    for name, why in data["not run"].items():
        lines.append(f"| {name} | {why} |" + " |" * (width - 2))
    return "\n".join(lines)


def _ablation_table(rows: Sequence[Data]) -> str:
    lines = _table(("ablation",), [(r["name"], r["metrics"]) for r in rows])
    return "\n".join(["## Ablations", "", f"On {rows[0]['vertebrae']} vertebrae.", "", *lines])


def _each_table(patients: Data) -> str:
    title = "## Each patient, judged by weights not trained on that patient"
    return "\n".join([title, "", *_table(("patient",), list(patients.items()))])


def _table(heads: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """Markdown rows; each ends with its metrics.  Columns without figures are left out."""
    columns = {
        title: name
        for title, name in COLUMNS.items()
        if any(row[-1][name]["value"] is not None for row in rows)
    }
    lines = [f"| {' | '.join([*heads, *columns])} |", "|---" * (len(heads) + len(columns)) + "|"]
    for row in rows:
        cells = [*row[:-1], *(cell(row[-1][name]) for name in columns.values())]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(estimate: Data) -> str:
    """``0.91 [0.88, 0.94]``, or a dash."""
    if estimate["value"] is None:
        return "-"
    value = f"{estimate['value']:.2f}"
    if estimate["low"] is None:
        return value
    return f"{value} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


def _best_table(data: Data) -> str:
    lines = [
        "## Over the best baseline",
        "",
        "| metric | best baseline | difference |",
        "|---|---|---|",
    ]
    for name, gap in data["over the best baseline"].items():
        lines.append(f"| {name} | {gap['baseline']} | {cell(gap)} |")
    return "\n".join(lines)


def _free_response_table(data: Data) -> str:
    """Sensitivity at some numbers of false findings per vertebra."""
    heads = [f"{kind}, {n:g}" for kind in LESION_TYPES for n in FALSE_PER_VERTEBRA]
    lines = [
        f"## Sensitivity (IoU >= {IOUS[0]}) at false findings per vertebra",
        "",
        f"| method | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for row in data["methods"]:
        cells = [
            f"{_sensitivity(row['free response'][kind][str(IOUS[0])], n):.2f}"
            for kind in LESION_TYPES
            for n in FALSE_PER_VERTEBRA
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _strata_table(kind: str, methods: Data) -> str:
    """Lesions found of lesions there are: by size, and by difference to the healthy twin."""
    names = list(next(iter(methods.values()))[kind])
    lines = [
        f"## Which {kind} lesions are found (IoU >= {IOUS[0]}): by size, and by mean change of HU",
        "",
        f"| method | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for method, counts in methods.items():
        cells = [f"{hits} of {total}" for hits, total in counts[kind].values()]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sensitivity(curve: Data, false: float) -> float:
    pairs = zip(curve["false"], curve["sensitivity"])
    return max((s for f, s in pairs if f <= false), default=0.0)


def _patient_table(counts: Data) -> str:
    patients = list(next(iter(counts.values())))
    lines = [
        "## Findings per vertebra of each patient",
        "",
        f"| method | {' | '.join(patients)} |",
        "|---" * (len(patients) + 1) + "|",
    ]
    for method, own in counts.items():
        lines.append(f"| {method} | {' | '.join(f'{own[p]:.2f}' for p in patients)} |")
    return "\n".join(lines)


def _realism_table(weights: Data) -> str:
    """Return a column per set of weights."""
    head = f"| mean over diseased vertebrae | {' | '.join(weights)} |"
    lines = ["## Is the edit real?", "", head, "|---" * (len(weights) + 1) + "|"]
    for name in next(iter(weights.values())):
        cells = [cell(figures[name]) for figures in weights.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
