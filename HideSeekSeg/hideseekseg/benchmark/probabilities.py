"""Probabilities against the truth: calibration, lesions by diameter, false findings, by patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import atomic, make_folder, read_object
from ..findings import LESION_TYPES, LesionType
from ..model.weights import Model, load_model
from ..simulation.source_vertebrae import chosen, person, unpack
from ..training.calibration import (
    Choice,
    Judged,
    TypeCounts,
    as_they_are,
    choose,
    expected_calibration_error,
    findings_by_stability,
    fit,
    judge,
    missing,
    tally,
)
from ..training.evaluation import Case, auc, load_cases
from ..training.observations import (
    MOST_BYTES,
    Observations,
    SeenVertebra,
    joined,
    observe,
    observer_of,
    read_observations,
    require_settings,
    require_unlearned,
    write_observations,
)
from ..training.seen_patients import SeenPatients, seen_patients
from ..training.trainer import Say, counter
from .cases import real_subjects

REPLICATES = 500
SIZES_MM = ((0.0, 6.0), (6.0, 10.0), (10.0, np.inf))
Data = dict[str, Any]
Rows = npt.NDArray[np.intp]  # numbers of vertebrae, each as often as it was drawn
Measure = Callable[[Rows], float]
# Of probabilities that are right, too, whose true error is 0: no lower end may be read as a limit.
BINNED = (
    "The calibration error is binned: chance alone makes it larger than 0, and redrawing adds to"
    " that chance, so that its interval lies too high."
)


def run_observe(
    weights: Path,
    cases: Path,
    out: Path,
    settings: dict[str, dict[str, Any]],
    patients: Sequence[str],
    device: str,
    say: Say,
    stability: bool = False,
) -> Path:
    """Run weights on vertebrae whose truth is known, and write what they make of each.

    ``cases`` is the output of ``simulate --whole``, or of ``pack``: real vertebrae, of which no
    lesion is known.  Only ``patients``, where named; with the ``stability`` of likely candidates.
    Raises InputError.
    """
    if out.is_file() and "features" not in read_object(out, most_bytes=MOST_BYTES):
        raise InputError(out, "is there already and contains no observations: choose another name")
    model = load_model(weights, device)
    profile = replace(
        model.profile,
        schedule=replace(model.profile.schedule, **settings["schedule"]),
        decision=replace(model.profile.decision, **settings["decision"]),
    )
    model = replace(model, profile=profile)
    known = _cases(cases, model)
    everybody = [one.patient for one in known]
    named = chosen(cases, patients or everybody, everybody, "contains no vertebrae of {}")
    asked = [one for one in known if one.patient in named]
    tell = counter(say, "vertebra")
    seen = observe(model, asked, tell=tell, stability=stability)[0]
    real = not cases.is_dir()
    write_observations(
        out, observer_of(weights, profile), [replace(one, real=real) for one in seen]
    )
    return out


def _cases(cases: Path, model: Model) -> list[Case]:
    if cases.is_dir():
        return load_cases(cases, model.profile)
    return [subject.case for subject in real_subjects(unpack(cases), model.profile)]


def report(weights: Path, folds: Sequence[Path], sets: Sequence[Path], out: Path, say: Say) -> Path:
    """Write ``probabilities.md`` and ``.json``; return the table's path.

    Each of ``folds`` and ``sets`` is a file of ``benchmark observe``.  Files of folds are named
    FOLD-WHAT.json: each fold is judged by probabilities fitted on all others.  ``sets`` are judged
    by the weights' own or, where these are not calibrated, by P and attribution scores as they are.
    Raises InputError, also where a set was observed by other weights, where folds share a patient
    or differ in their settings, or a fold's networks learned from its patients.
    """
    model = load_model(weights)
    confidence, own = model.profile.confidence, observer_of(weights, model.profile)
    known = seen_patients(model.profile.provenance)
    make_folder(out)
    rows: dict[str, Data] = {}
    for name, judged, threshold, gate in _cross_validated(folds, say):
        rows[f"cross-validated: {name}"] = figures(judged, threshold, gate)
    threshold = model.profile.decision.threshold
    _require_names(sets)
    for path in sets:
        read = read_observations(path)
        if read.observer.networks != own.networks:
            raise InputError(path, f"was observed by other networks than those of {weights}")
        require_settings(path, read.observer, model.profile)
        seen = joined([read])
        judged = judge(confidence, seen) if confidence.known else as_they_are(seen)
        rows[path.stem] = figures(judged, threshold, confidence.gate_p)
        rows[path.stem] |= _whose(known, [one.patient for one in seen])
    content = {"weights": model.hash, "sets": rows}
    with atomic(out / "probabilities.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    with atomic(out / "probabilities.md") as temporary:
        temporary.write_text(_page(model, rows), encoding="utf-8")
    return out / "probabilities.md"


def _require_names(paths: Sequence[Path]) -> None:
    """Raise InputError where two files have one name, by which the table tells them apart."""
    known: set[str] = set()
    for path in paths:
        if path.stem in known:
            raise InputError(path, "has the name of another file: rename one of both")
        known.add(path.stem)


def _whose(known: SeenPatients, patients: Sequence[str]) -> Data:
    """Say which of a set's patients the weights have seen, and why there may be more."""
    said = {
        "patients learned from": (known.learned(patients), known.learned_unknown),
        "patients on whom thresholds or probabilities were chosen": (
            known.chosen(patients),
            known.chosen_unknown,
        ),
    }
    return {
        what: "; ".join(filter(None, (", ".join(names), unknown and f"not known: {unknown}")))
        or "none"
        for what, (names, unknown) in said.items()
    }


def _cross_validated(
    paths: Sequence[Path], say: Say
) -> list[tuple[str, list[Judged], float, float]]:
    """Return what was observed of all folds, judged by what the other folds tell.

    Each fold has a threshold of its own: probabilities are told as what they exceed it by.
    """
    _require_names(paths)
    files = {path: read_observations(path) for path in paths}
    _require_folds(files, say)
    seen: dict[tuple[str, str], list[SeenVertebra]] = {}
    rows = iter(joined(list(files.values())))
    for path, file in files.items():
        fold, _, what = path.stem.partition("-")
        seen[fold, what] = [next(rows) for _ in file.vertebrae]
    judged: dict[str, list[Judged]] = {}
    for fold in sorted({fold for fold, _ in seen}):
        others = [one for (name, _), own in seen.items() if name != fold for one in own]
        if lack := missing(others):
            raise InputError(paths[0], f"{lack} in the folds beside {fold}: nothing to fit on")
        choice = choose(fit(others), others)
        for (name, what), own in seen.items():
            if name == fold:
                judged.setdefault(what, []).extend(
                    _above(one, choice) for one in judge(choice.confidence, own)
                )
    return [(what, own, 0.0, 0.0) for what, own in judged.items()]


def _require_folds(files: Mapping[Path, Observations], say: Say) -> None:
    """Raise InputError where files are not of folds: of one recipe, and of other patients each."""
    first = next(iter(files.values()), None)
    holder: dict[str, str] = {}
    for path, file in files.items():
        assert first is not None
        require_settings(path, file.observer, first.observer.profile)
        require_unlearned(path, file, say)
        fold = path.stem.partition("-")[0]
        for patient in sorted({one.patient for one in file.vertebrae}):
            other = holder.setdefault(person(patient), fold)
            if other != fold:
                raise InputError(path, f"shows {patient}, who is in the fold {other} as well")


def _above(one: Judged, choice: Choice) -> Judged:
    closed = one.p < choice.confidence.gate_p
    above = tuple(-1.0 if closed else p - choice.threshold for p in one.candidates)
    return replace(one, candidates=above)


def figures(judged: Sequence[Judged], threshold: float, gate: float) -> Data:
    """All figures of one set; intervals redraw patients, then their vertebrae."""
    groups: dict[str, list[int]] = {}
    for row, one in enumerate(judged):
        groups.setdefault(one.seen.patient, []).append(row)
    p = np.array([one.p for one in judged])
    diseased = np.array([one.seen.diseased for one in judged], bool)
    false = np.array([len(one.accepted(threshold, gate)) for one in judged])
    redrawn = _redrawn(list(groups.values()))

    def estimate(measure: Measure) -> list[float | None]:
        drawn = [measure(rows) for rows in redrawn]
        ends = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else [np.nan] * 2
        values = [measure(np.arange(len(judged))), float(ends[0]), float(ends[1])]
        return [None if np.isnan(value) else round(value, 3) for value in values]

    def vertebra_auc(rows: Rows) -> float:
        return auc(p[rows[diseased[rows]]], p[rows[~diseased[rows]]])

    def mean_healthy(rows: Rows) -> float:
        own = p[rows[~diseased[rows]]]
        return float(np.mean(own)) if len(own) else float("nan")

    def false_findings(rows: Rows) -> float:
        healthy = rows[~diseased[rows]]
        return float(false[healthy].sum() / max(len(healthy), 1))

    result: Data = {
        "vertebrae": len(judged),
        "diseased": int(diseased.sum()),
        "patients": len(groups),
        "vertebra AUC": estimate(vertebra_auc),
        "mean P of healthy vertebrae": estimate(mean_healthy),
        "false findings per healthy vertebra": estimate(false_findings),
    }
    for stability, (true, number) in findings_by_stability(judged, threshold, gate).items():
        result[f"true of the findings with stability {stability:g}"] = f"{true} of {number}"
    if result["diseased"]:
        result["calibration error of P"] = estimate(
            lambda rows: expected_calibration_error(p[rows], diseased[rows])
        )
        for kind in LESION_TYPES:
            result[f"{kind} F1"] = estimate(redrawn_f1(judged, kind, threshold, gate, 0.0))
            result[f"{kind} F1, 10 mm and more"] = estimate(
                redrawn_f1(judged, kind, threshold, gate, 10.0)
            )
            counts = tally(judged, kind, threshold, gate)
            result[f"{kind} Dice"] = round(counts.dice, 3)
            for low, high in SIZES_MM:
                sized = tally(judged, kind, threshold, gate, low, high)
                size = f"{low:g} to {high:g} mm" if np.isfinite(high) else f"{low:g} mm and more"
                result[f"{kind} found, {size}"] = f"{sized.found} of {sized.found + sized.missed}"
    result["by patient"] = {
        name: {
            "vertebrae": len(own),
            "mean P of healthy vertebrae": round(mean_healthy(np.array(own)), 3),
            "false findings in healthy vertebrae": int(false[own][~diseased[own]].sum()),
        }
        for name, own in sorted(groups.items())
    }
    return result


def _redrawn(groups: Sequence[Sequence[int]]) -> list[Rows]:
    """Draw patients, then vertebrae of each, ``REPLICATES`` times; the same draws every time."""
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(REPLICATES):
        some: list[int] = []
        for group in rng.choice(len(groups), len(groups)):
            own = groups[group]
            some += [own[n] for n in rng.integers(0, len(own), len(own))]
        drawn.append(np.array(some, np.intp))
    return drawn


def redrawn_f1(
    judged: Sequence[Judged], kind: LesionType, threshold: float, gate: float, least: float
) -> Measure:
    """Return what gives the F1 of a redrawn set: each vertebra is counted once for all of them."""
    each = [tally([one], kind, threshold, gate, least_mm=least) for one in judged]
    table = np.array([(one.found, one.missed, one.false) for one in each])

    def measure(rows: Rows) -> float:
        found, missed, false = (int(count) for count in table[rows].sum(axis=0))
        counts = TypeCounts(found, missed, false, float("nan"))
        return counts.f1 if found + missed else float("nan")

    return measure


def _page(model: Model, rows: dict[str, Data]) -> str:
    lines = [
        "# Probabilities: calibrated P, candidates by diameter, false findings",
        "",
        f"Weights {model.profile.name}, {model.hash[:12]}; made by `benchmark probabilities`. Sets"
        " are never pooled. Intervals are 95 % bootstrap that redraws patients, then vertebrae."
        " Cross-validated: networks and probabilities of patients that neither has seen. Of other"
        " sets the table names the patients whom the weights have seen. Real"
        " vertebrae are those in which nobody noticed a lesion. A lesion is found by an accepted"
        " candidate of its type with an IoU of at least 0.1; diameters are the longest axial ones."
        f" {BINNED}",
        "",
        f"| what | {' | '.join(rows)} |",
        f"|---|{'---|' * len(rows)}",
    ]
    names = list(dict.fromkeys(key for row in rows.values() for key in row if key != "by patient"))
    for name in names:
        cells = [_cell(row.get(name)) for row in rows.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for title, row in rows.items():
        lines += ["", f"## {title}, by patient", ""]
        lines += ["| patient | vertebrae | mean P of healthy | false findings in healthy |"]
        lines += ["|---|---|---|---|"]
        for patient, own in row["by patient"].items():
            lines.append(f"| {patient} | {' | '.join(_cell(value) for value in own.values())} |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        middle, low, high = value
        if middle is None:
            return "-"
        return f"{middle:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None else "")
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return str(value)
