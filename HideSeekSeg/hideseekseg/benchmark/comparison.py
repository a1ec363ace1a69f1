"""The full benchmark: every method on every set, one table each, sets never pooled."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import atomic, make_folder
from ..model.weights import Model, load_model
from ..simulation.source_vertebrae import (
    Source,
    one_spelling,
    person,
    read_sources,
    shared_patients,
)
from ..training.seen_patients import SeenPatients, require_unseen, seen_patients
from ..training.trainer import Say, counter
from .ablations import ablations, run_ablations
from .cases import (
    BenchmarkCase,
    Box,
    boxed_subjects,
    boxes_by_patient,
    draw_subjects,
    healthy_subjects,
    load_simulated,
    read_boxes,
    split_drawn,
)
from .methods.baselines import FROM_TORCHCAM, OtsuHiding, cams, change_map, difference_map, otsu
from .methods.baselines import NAME as ANOMALY_NAME
from .methods.method import HideAndSeek, Method, Tuned, run
from .methods.trained import AUDITOR, load_auditor, seen_by_networks, spread, trained_methods
from .methods.trained import NAME as UNET_NAME
from .metrics import (
    draw_weights,
    estimates,
    lesions_of,
    recall_by_stratum,
)
from .realism import realism
from .report.pictures import (
    RULE,
    boxes_to_markdown,
    draw_boxes,
    draw_examples,
    draw_plots,
    try_boxes,
)
from .report.table import About, Data, MethodResult, describe, estimates_data, to_markdown
from .threshold_choice import choose, tuning_cases

OWN = "Hide-and-Seek Attribution"


@dataclass(frozen=True)
class ComparisonPlan:
    """What to measure.

    ``cases`` and ``validation`` hold the output of ``simulate --whole``, ``baselines`` that of
    ``benchmark train``.  Real CTs of ``sources`` (paths relative to ``data``) that are not of the
    split "training" are taken as healthy, except for the patients of ``boxes``.  ``drawn``
    vertebrae are synthetic; ``tuning`` validation vertebrae choose thresholds; ``ablated`` cases go
    through the ablations.  ``compare_weights`` are further weights of our own, with their own rows.
    """

    cases: Path
    weights: Path
    out: Path
    validation: Path
    baselines: Path | None = None
    sources: Path | None = None
    data: Path | None = None
    boxes: Path | None = None
    drawn: int = 0
    tuning: int = 120
    ablated: int = 60
    seed: int = 7001
    compare_weights: Sequence[Path] = ()


@dataclass(frozen=True, eq=False)
class Contest:
    """The weights under test, all methods with their thresholds, and where these come from.

    ``beside`` are further weights of our own; ``seen`` whom each of all weights has seen, by its
    place; ``not_run`` says of methods why they are not among them.
    """

    model: Model
    beside: Sequence[Model]
    seen: Mapping[Path, SeenPatients]
    methods: Sequence[tuple[Method, Tuned]]
    tuned_on: Sequence[str]
    not_run: Mapping[str, str]

    @property
    def own(self) -> HideAndSeek:
        own = self.methods[0][0]
        assert isinstance(own, HideAndSeek)
        return own

    @property
    def unknown(self) -> list[str]:
        """Return why some weights may have seen more patients than those they name.

        By the names of their folders: where these lie on a machine is no business of a table's.
        """
        causes = {
            folder: filter(None, (seen.learned_unknown, seen.chosen_unknown))
            for folder, seen in self.seen.items()
        }
        return [f"{folder.name}: {why}" for folder, own in causes.items() for why in own]


def compare(plan: ComparisonPlan, say: Say) -> list[Path]:
    """Write a table, a JSON file and plots per set to ``plan.out``; gives the tables' paths."""
    make_folder(plan.out)
    model = load_model(plan.weights)
    beside = [load_alike(folder, model) for folder in plan.compare_weights]
    seen = _seen(plan, model, beside)
    real, drawn = split_drawn(load_simulated(plan.cases, model.profile))
    scans = _scans(plan)
    for folder, one in seen.items():
        require_unseen(plan.cases, (s.case.patient for s in real), folder, one)
        if plan.sources is not None:
            require_unseen(plan.sources, (s.patient for s in scans.measured), folder, one)
    contest = prepare(plan, model, beside, seen, say)
    for line in contest.unknown:
        say(f"not known to be held out: {line}")
    tables = []
    if real:
        title = f"{SIMULATED}{_held_out(contest, [s.case.patient for s in real])}"
        tables.append(_simulated(plan, contest, title, "simulated", real, say))
    if plan.drawn:
        folder, tell = plan.out / "drawn", counter(say, "drawn vertebra")
        drawn += draw_subjects(folder, plan.drawn, plan.seed, model.profile, tell)
    if drawn:
        title = "Simulated lesions in vertebrae drawn from scratch"
        tables.append(_simulated(plan, contest, title, "drawn", drawn, say))
    if scans.measured:
        tables += _real(plan, contest, scans, say)
    return tables


SIMULATED = "Simulated lesions in real vertebrae"


def _held_out(contest: Contest, patients: Sequence[str]) -> str:
    """Return, for a title, what is known of a set's patients, whom no weights learned from."""
    seen = contest.seen.values()
    if any(one.learned_unknown for one in seen):
        return ""
    if any(one.chosen_unknown for one in seen) or shared_patients(patients, contest.tuned_on):
        return " of patients who were not in training"
    return " of held-out patients"


def _seen(plan: ComparisonPlan, model: Model, beside: Sequence[Model]) -> dict[Path, SeenPatients]:
    """Return whom each of all weights has seen, those of baselines included, by its place."""
    own = zip((plan.weights, *plan.compare_weights), (model, *beside))
    seen = {folder: seen_patients(one.profile.provenance) for folder, one in own}
    return seen | (seen_by_networks(plan.baselines) if plan.baselines is not None else {})


@dataclass(frozen=True)
class Scans:
    """Real scans: those taken as healthy, and those with lesions in boxes, by patient."""

    healthy: Sequence[Source] = ()
    boxed: Sequence[Source] = ()
    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)

    @property
    def measured(self) -> list[Source]:
        return [*self.healthy, *self.boxed]


def _scans(plan: ComparisonPlan) -> Scans:
    """Return the scans of the plan; raises InputError where a box is of nobody among them."""
    if plan.sources is None or plan.data is None:
        return Scans()
    sources = read_sources(plan.sources, plan.data)
    boxes = boxes_by_patient(plan.boxes, read_boxes(plan.boxes), sources) if plan.boxes else {}
    others = [s for s in sources if s.patient not in boxes]
    healthy = [s for s in others if person(s.split) != "training"]
    return Scans(healthy, [s for s in sources if s.patient in boxes], boxes)


def prepare(
    plan: ComparisonPlan,
    model: Model,
    beside: Sequence[Model],
    seen: Mapping[Path, SeenPatients],
    say: Say,
) -> Contest:
    """All methods, with thresholds chosen on validation vertebrae where they need any."""
    not_run: dict[str, str] = {}
    maps = cams(model)
    if find_spec("torchcam") is None:
        maps = [method for method in maps if method.name not in FROM_TORCHCAM]
        not_run |= dict.fromkeys(FROM_TORCHCAM, "not run: torchcam is not there")
    methods: list[Method] = [
        *(HideAndSeek(f"{OWN} ({one.profile.name})", one) for one in (model, *beside)),
        difference_map(model),
        *([change_map(model)] if model.profile.architecture.change_map else []),
        otsu(),
        OtsuHiding(model),
        *maps,
    ]
    if plan.baselines is not None:
        trained, missing = trained_methods(plan.baselines, model.profile)
        methods += trained
        not_run |= missing
    else:
        not_run |= dict.fromkeys((ANOMALY_NAME, UNET_NAME), "not run: no --baselines were given")
    known = load_simulated(plan.validation, model.profile)
    subjects = tuning_cases(plan.validation, known, plan.tuning)
    patients = {subject.case.patient for subject in subjects}
    for folder, one in seen.items():
        require_unseen(plan.validation, patients, folder, one)
    chosen = []
    for method in methods:
        began = time.monotonic()
        chosen.append((method, choose(method, subjects)))
        say(f"thresholds of {method.name}: {time.monotonic() - began:.0f} s")
    tuned_on = {*patients, *(name for one in seen.values() for name in one.chosen_on)}
    return Contest(model, beside, seen, chosen, sorted({*one_spelling(tuned_on)}), not_run)


def load_alike(folder: Path, model: Model) -> Model:
    """Other weights that see the same crops as ``model``; raises InputError where they do not."""
    other = load_model(folder)
    theirs, ours = other.profile, model.profile
    if (theirs.geometry, theirs.intensity) != (ours.geometry, ours.intensity):
        raise InputError(folder, "sees other crops than the weights it is to stand beside")
    return other


def _simulated(
    plan: ComparisonPlan,
    contest: Contest,
    title: str,
    stem: str,
    subjects: Sequence[BenchmarkCase],
    say: Say,
) -> Path:
    """Methods, realism of the edit, ablations."""
    data = _measured(contest, title, subjects, say)
    draw_examples(plan.out / f"examples-{stem}.png", contest.own, subjects)
    if plan.baselines is not None and (plan.baselines / AUDITOR / "profile.json").exists():
        auditor = load_auditor(plan.baselines)
        data["realism"] = {
            model.profile.name: estimates_data(realism(subjects, model, auditor))
            for model in (contest.model, *contest.beside)
        }
    if plan.ablated:
        chosen = [subjects[i] for i in spread(len(subjects), plan.ablated)]
        data["ablations"] = _ablations(contest.model, chosen, say)
    return write_set(plan.out, stem, data)


def _measured(contest: Contest, title: str, subjects: Sequence[BenchmarkCase], say: Say) -> Data:
    rows = []
    for method, tuned in contest.methods:
        began = time.monotonic()
        outcomes = run(method, subjects, tuned.settings)
        ours = isinstance(method, HideAndSeek)
        rows.append(MethodResult(method.name, method.learnt_from, tuned, outcomes, ours))
        say(f"{title}: {method.name}, {time.monotonic() - began:.0f} s")
    about = About(
        *(title, contest.model.hash, contest.tuned_on, contest.not_run), unknown=contest.unknown
    )
    data = describe(about, rows, bootstrap_of(subjects))
    if all(subject.twin_hu is not None for subject in subjects):
        lesions = [lesions_of(subject) for subject in subjects]
        data["recall by stratum"] = {
            row.name: recall_by_stratum(lesions, row.outcomes, row.tuned.thresholds) for row in rows
        }
    return data


def bootstrap_of(subjects: Sequence[BenchmarkCase]) -> np.ndarray:
    """Weights (replicates, N) of N vertebrae."""
    return draw_weights([s.case.patient for s in subjects], [s.vertebra for s in subjects])


def _ablations(model: Model, subjects: Sequence[BenchmarkCase], say: Say) -> list[Data]:
    methods = ablations(model)
    outcomes = run_ablations(methods, subjects, counter(say, "ablated vertebra"))
    weights = bootstrap_of(subjects)
    return [
        {
            "name": method.name,
            "vertebrae": len(subjects),
            "metrics": estimates_data(estimates(own, method.fixed.thresholds, weights)),
        }
        for method, own in zip(methods, outcomes)
    ]


def _real(plan: ComparisonPlan, contest: Contest, scans: Scans, say: Say) -> list[Path]:
    """Healthy vertebrae as they are, and lesions with boxes."""
    profile = contest.model.profile
    tables = []
    subjects = healthy_subjects(scans.healthy, profile)
    if subjects:
        title = "Real vertebrae in which no lesion was noticed, as they are"
        tables.append(write_set(plan.out, "healthy", _measured(contest, title, subjects, say)))
        draw_examples(plan.out / "examples-healthy.png", contest.own, subjects)
    boxed = [
        subject
        for source in scans.boxed
        for subject in boxed_subjects(source, scans.boxes[source.patient], profile)
    ]
    if boxed:
        hits = [hit for m, tuned in contest.methods for hit in try_boxes(m, tuned, boxed)]
        data = {"weights": contest.model.hash, "rule": RULE, "vertebrae": [asdict(h) for h in hits]}
        _write_text(plan.out / "boxes.json", json.dumps(data, indent=1))
        _write_text(plan.out / "boxes.md", boxes_to_markdown(hits, contest.model.hash))
        draw_boxes(plan.out / "boxes.png", contest.own, boxed)
        tables.append(plan.out / "boxes.md")
    return tables


def write_set(out: Path, stem: str, data: Data) -> Path:
    """JSON, plots and a table in Markdown, whose path it gives."""
    _write_text(out / f"{stem}.json", json.dumps(data, indent=1, allow_nan=False))
    draw_plots(data, out, stem)
    path = out / f"{stem}.md"
    _write_text(path, to_markdown(data))
    return path


def _write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
