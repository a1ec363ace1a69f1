"""The full benchmark: every method on every set, one table each, sets never pooled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic, make_folder
from ..model.weights import Model, load_model
from ..simulation.source_vertebrae import Source, read_sources
from ..training.trainer import Say, counter
from .cases import (
    BenchmarkCase,
    Box,
    boxed_subjects,
    draw_subjects,
    healthy_subjects,
    load_simulated,
    read_boxes,
    split_drawn,
)
from .methods.activation_maps import FROM_TORCHCAM, cams
from .methods.anomaly import NAME as ANOMALY_NAME
from .methods.anomaly import change_map, difference_map
from .methods.method import HideAndSeek, Method, Tuned, run, with_profile
from .methods.otsu import OtsuHiding, otsu
from .methods.trained import AUDITOR, load_auditor, spread, trained_methods
from .methods.unet import NAME as UNET_NAME
from .metrics import Outcome, draw_weights, estimates, lesions_of, outcome, recall_by_stratum
from .realism import realism
from .report.boxes import RULE, boxes_to_markdown, draw_boxes, try_boxes
from .report.failures import draw_failures
from .report.plots import draw_plots
from .report.results import About, Data, MethodResult, describe, estimates_data
from .report.table import to_markdown
from .threshold_selection import choose

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

    ``beside`` are further weights of our own; ``not_run`` says of methods why they are not among
    them.
    """

    model: Model
    beside: Sequence[Model]
    methods: Sequence[tuple[Method, Tuned]]
    tuned_on: Sequence[str]
    not_run: Mapping[str, str]

    @property
    def own(self) -> HideAndSeek:
        own = self.methods[0][0]
        assert isinstance(own, HideAndSeek)
        return own


def compare(plan: ComparisonPlan, say: Say) -> list[Path]:
    """Write a table, a JSON file and plots per set to ``plan.out``; gives the tables' paths."""
    make_folder(plan.out)
    model = load_model(plan.weights)
    contest = prepare(plan, model, say)
    real, drawn = split_drawn(load_simulated(plan.cases, model.profile))
    tables = []
    if real:
        title = "Simulated lesions in real vertebrae of held-out patients"
        tables.append(_simulated(plan, contest, title, "simulated", real, say))
    if plan.drawn:
        folder, tell = plan.out / "drawn", counter(say, "drawn vertebra")
        drawn += draw_subjects(folder, plan.drawn, plan.seed, model.profile, tell)
    if drawn:
        title = "Simulated lesions in vertebrae drawn from scratch"
        tables.append(_simulated(plan, contest, title, "drawn", drawn, say))
    if plan.sources is not None and plan.data is not None:
        tables += _real(plan, contest, read_sources(plan.sources, plan.data), say)
    return tables


def prepare(plan: ComparisonPlan, model: Model, say: Say) -> Contest:
    """All methods, with thresholds chosen on validation vertebrae where they need any."""
    not_run: dict[str, str] = {}
    maps = cams(model)
    if find_spec("torchcam") is None:
        maps = [method for method in maps if method.name not in FROM_TORCHCAM]
        not_run |= dict.fromkeys(FROM_TORCHCAM, "not run: torchcam is not there")
    beside = [_alike(folder, model) for folder in plan.compare_weights]
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
    if not any(subject.case.diseased for subject in known):
        raise InputError(plan.validation, "holds no diseased vertebra to choose thresholds on")
    subjects = [known[i] for i in spread(len(known), plan.tuning)]
    chosen = []
    for method in methods:
        began = time.monotonic()
        chosen.append((method, choose(method, subjects)))
        say(f"thresholds of {method.name}: {time.monotonic() - began:.0f} s")
    return Contest(
        model, beside, chosen, sorted({subject.case.patient for subject in known}), not_run
    )


def _alike(folder: Path, model: Model) -> Model:
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
    draw_failures(plan.out / f"failures-{stem}.png", contest.own, subjects)
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
    about = About(title, contest.model.hash, contest.tuned_on, contest.not_run)
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


def _real(
    plan: ComparisonPlan, contest: Contest, sources: Sequence[Source], say: Say
) -> list[Path]:
    """Healthy vertebrae as they are, and lesions with boxes."""
    boxes = {box.patient: box for box in read_boxes(plan.boxes)} if plan.boxes else {}
    healthy = [s for s in sources if s.split != "training" and s.patient not in boxes]
    profile = contest.model.profile
    tables = []
    subjects = healthy_subjects(healthy, profile)
    if subjects:
        title = "Real vertebrae in which no lesion was noticed, as they are"
        tables.append(write_set(plan.out, "healthy", _measured(contest, title, subjects, say)))
        draw_failures(plan.out / "failures-healthy.png", contest.own, subjects)
    boxed = _boxed(sources, boxes, contest)
    if boxed:
        hits = [hit for m, tuned in contest.methods for hit in try_boxes(m, tuned, boxed)]
        data = {"weights": contest.model.hash, "rule": RULE, "vertebrae": [asdict(h) for h in hits]}
        _write_text(plan.out / "boxes.json", json.dumps(data, indent=1))
        _write_text(plan.out / "boxes.md", boxes_to_markdown(hits, contest.model.hash))
        draw_boxes(plan.out / "boxes.png", contest.own, boxed)
        tables.append(plan.out / "boxes.md")
    return tables


def _boxed(
    sources: Sequence[Source], boxes: dict[str, Box], contest: Contest
) -> list[BenchmarkCase]:
    return [
        subject
        for source in sources
        if source.patient in boxes
        for subject in boxed_subjects(source, boxes[source.patient], contest.model.profile)
    ]


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


RENDERED = {"invert_steps": 20, "render_steps": 10}
QUANTILES = (0.25, 0.5, 0.75)
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
NOISE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
DRAWS = (1, 4, 16)


def ablations(model: Model) -> list[HideAndSeek]:
    """Return the method as it is, then its variants."""
    schedule = model.profile.schedule

    def decided(name: str, **changes: Any) -> HideAndSeek:
        return HideAndSeek(name, with_profile(model, changes, {}))

    def scheduled(name: str, **changes: Any) -> HideAndSeek:
        return HideAndSeek(name, with_profile(model, {}, changes))

    steps = f"{RENDERED['invert_steps']} + {RENDERED['render_steps']} steps"
    projection = (
        scheduled(f"projected by rendering, {steps}", projection="render", **RENDERED)
        if schedule.projection == "none"
        else scheduled("no projection", projection="none")
    )
    single = {"edit": "single-shot"}
    return [
        HideAndSeek("as the weights ask for", model),
        HideAndSeek("no hiding: every candidate kept", model, hiding=False),
        HideAndSeek("each slice judged alone, then joined", model, pooled=False),
        projection,
        scheduled(f"edit by rendering, {steps}", edit="render", **RENDERED),
        *(decided(f"candidate quantile {q}", candidate_quantile=q) for q in QUANTILES),
        decided("quantile 0.5 alone, no floors", **_published()),
        *(decided(f"score threshold {t}", threshold=t) for t in THRESHOLDS),
        *(scheduled(f"noise level {n}", noise_level=n, **single) for n in NOISE_LEVELS),
        *(scheduled(f"{n} draws of noise", draws=n, **single) for n in DRAWS),
    ]


def _published() -> dict[str, float]:
    return {"candidate_quantile": 0.5, "lytic_floor": 0.0, "blastic_floor": 0.0}


def run_ablations(
    methods: Sequence[HideAndSeek],
    subjects: Sequence[BenchmarkCase],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[Outcome]]:
    """Return the outcomes of each method; methods that edit alike share the edit."""
    outcomes: list[list[Outcome]] = [[] for _ in methods]
    for number, subject in enumerate(subjects):
        edits: dict[Any, Any] = {}
        for method, own in zip(methods, outcomes):
            key = replace(method.model.profile.schedule, projection="none")
            if key not in edits:
                edits[key] = method.prepare(subject)
            lesions, p = method.detect(edits[key], method.fixed.settings)
            own.append(outcome(subject.case, subject.vertebra, lesions, p))
        tell(number + 1, len(subjects))
    return outcomes
