"""Cross-validation by patient: each patient is judged by weights not trained on that patient.

``train --without`` makes the weights of one fold; whom they have not seen, their provenance tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..files import make_folder
from ..findings import LESION_TYPES
from ..model.weights import Model, load_model
from ..simulation.source_vertebrae import person
from ..training.seen_patients import SeenPatients, seen_patients
from ..training.trainer import Say, counter
from .cases import BenchmarkCase, load_simulated, split_drawn
from .comparison import OWN, bootstrap_of, load_alike, write_set
from .methods.baselines import OtsuHiding, change_map, difference_map, otsu
from .methods.method import HideAndSeek, Method, Tuned, run
from .metrics import (
    Outcome,
    Thresholds,
    draw_weights,
    estimates,
    lesions_of,
    recall_by_stratum,
)
from .report.table import About, Data, MethodResult, describe, estimates_data
from .threshold_choice import choose, tuning_cases

TITLE = "Simulated lesions in real vertebrae, cross-validated by patient"
TUNED_ON = "the other patients of each fold"
AT_ZERO: Thresholds = dict.fromkeys(LESION_TYPES, 0.0)


@dataclass(frozen=True)
class CrossValidationPlan:
    """What to measure: ``cases`` that ``simulate --whole`` wrote, ``weights`` of all folds.

    ``tuning`` vertebrae of the others choose the thresholds of the baselines in each fold.
    """

    cases: Path
    weights: Sequence[Path]
    out: Path
    tuning: int = 60


@dataclass(frozen=True, eq=False)
class Fold:
    """Weights, the vertebrae of patients that they have not seen, and those of all others.

    ``seen`` are the patients whom the weights have seen by their provenance.
    """

    folder: Path
    model: Model
    seen: SeenPatients
    unseen: Sequence[BenchmarkCase]
    others: Sequence[BenchmarkCase]


def cross_validate(plan: CrossValidationPlan, say: Say) -> list[Path]:
    """Write ``folds.md``, ``folds.json`` and plots to ``plan.out``; gives the table's path."""
    make_folder(plan.out)
    folds = read_folds(plan.weights, plan.cases)
    subjects = [subject for fold in folds for subject in fold.unseen]
    unknown = [f"{f.folder.name}: {f.seen.chosen_unknown}" for f in folds if f.seen.chosen_unknown]
    for line in unknown:
        say(line)
    rows = _rows(plan, folds, say)
    weights = " ".join(fold.model.hash for fold in folds)
    also_used = [subject.case.patient for fold in folds for subject in fold.others]
    about = About(TITLE, weights, [TUNED_ON], also_used=also_used, unknown=unknown)
    data = describe(about, rows, bootstrap_of(subjects))
    lesions = [lesions_of(subject) for subject in subjects]
    data["recall by stratum"] = {
        row.name: recall_by_stratum(lesions, row.outcomes, AT_ZERO) for row in rows
    }
    data["each patient"] = each_patient(rows[0].outcomes)
    return [write_set(plan.out, "folds", data)]


def read_folds(weights: Sequence[Path], cases: Path) -> list[Fold]:
    """One fold per set of weights, whom these went on from included.

    Raises InputError where not every patient is unseen by exactly one, where weights see other
    crops, do not say whom they learned from, or have thresholds that were chosen on patients whom
    they are to judge.
    """
    first = load_model(weights[0])
    models = [first, *(load_alike(folder, first) for folder in weights[1:])]
    subjects, _ = split_drawn(load_simulated(cases, models[0].profile))
    folds = []
    for folder, model in zip(weights, models):
        seen = seen_patients(model.profile.provenance)
        if seen.learned_unknown:
            raise InputError(folder, seen.learned_unknown)
        learned = {person(patient) for patient in seen.learned_from}
        unseen = [s for s in subjects if person(s.case.patient) not in learned]
        others = [s for s in subjects if person(s.case.patient) in learned]
        folds.append(Fold(folder, model, seen, unseen, others))
    for patient in sorted({s.case.patient for s in subjects}):
        times = sum(patient in {s.case.patient for s in fold.unseen} for fold in folds)
        if times != 1:
            raise InputError(cases, f"{patient} is unseen by {times} of the weights, not by one")
    for fold in folds:
        if both := fold.seen.chosen(subject.case.patient for subject in fold.unseen):
            cause = f"has thresholds chosen on patients whom it is to judge: {', '.join(both)}"
            raise InputError(fold.folder, cause)
    return folds


def _rows(plan: CrossValidationPlan, folds: Sequence[Fold], say: Say) -> list[MethodResult]:
    """Return a row per method with the outcomes of all folds, in their order.

    Scores are told as what they exceed their fold's threshold by, so that they can be pooled.
    """
    pooled: dict[str, list[Outcome]] = {}
    first: dict[str, Method] = {}
    tuning = [tuning_cases(plan.cases, fold.others, plan.tuning) for fold in folds]
    for number, (fold, chosen) in enumerate(zip(folds, tuning), 1):
        for method in _methods(fold.model):
            tuned = choose(method, chosen)
            tell = counter(say, f"fold {number} of {len(folds)}, {method.name}: vertebra")
            outcomes = run(method, fold.unseen, tuned.settings, tell)
            first.setdefault(method.name, method)
            pooled.setdefault(method.name, []).extend(_over(outcomes, tuned.thresholds))
    at_zero = Tuned(dict.fromkeys(LESION_TYPES), AT_ZERO)
    return [
        MethodResult(name, first[name].learnt_from, at_zero, outcomes, name == OWN)
        for name, outcomes in pooled.items()
    ]


def _methods(model: Model) -> list[Method]:
    """Return the method, and those baselines that need no network of their own."""
    maps = [change_map(model)] if model.profile.architecture.change_map else []
    return [HideAndSeek(OWN, model), difference_map(model), *maps, otsu(), OtsuHiding(model)]


def _over(outcomes: Sequence[Outcome], thresholds: Thresholds) -> list[Outcome]:
    return [
        replace(
            one,
            matches={kind: one.matches[kind].lowered(thresholds[kind]) for kind in LESION_TYPES},
        )
        for one in outcomes
    ]


def each_patient(outcomes: Sequence[Outcome]) -> Data:
    """All metrics per patient, with intervals over the patient's vertebrae."""
    result: Data = {}
    for patient in sorted({one.patient for one in outcomes}):
        own = [one for one in outcomes if one.patient == patient]
        weights = draw_weights([one.patient for one in own], [one.vertebra for one in own])
        name = f"{patient} (n = {len(own)})"
        result[name] = estimates_data(estimates(own, AT_ZERO, weights))
    return result
