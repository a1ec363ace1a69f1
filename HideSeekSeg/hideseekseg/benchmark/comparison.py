"""The full benchmark: every method on every set, one table each, sets never pooled.

Thresholds of a method are chosen on validation vertebrae: per type the setting, and the score
threshold, that are worth most: the mean of F1 (IoU >= 0.1) and Dice, less what false findings in
healthy vertebrae cost.  And whether the healthy edit is real: how much of a lesion it removes, what
an auditor says of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..attribution import encode
from ..errors import InputError
from ..files import atomic, make_folder
from ..findings import LESION_TYPES, LesionType
from ..model.weights import Model, load_model
from ..simulation.source_vertebrae import (
    Source,
    one_spelling,
    person,
    read_sources,
    shared_patients,
)
from ..training.evaluation import LEAST_IOU, Edited, edit_case
from ..training.evaluation import worth as worth_of
from ..training.seen_patients import SeenPatients, require_unseen, seen_patients
from ..training.trainer import Say, counter
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
from .methods.method import HideAndSeek, Method, Setting, Tuned, run, with_profile
from .methods.trained import AUDITOR, load_auditor, seen_by_networks, spread, trained_methods
from .methods.trained import NAME as UNET_NAME
from .metrics import (
    Estimate,
    Outcome,
    Weights,
    count,
    draw_weights,
    estimates,
    interval,
    lesions_of,
    outcome,
    recall_by_stratum,
    weighted_mean,
)
from .report.pictures import (
    RULE,
    boxes_to_markdown,
    draw_boxes,
    draw_examples,
    draw_plots,
    try_boxes,
)
from .report.table import About, Data, MethodResult, describe, estimates_data, to_markdown

TRIED_THRESHOLDS = 20


def tuning_cases(folder: Path, subjects: Sequence[BenchmarkCase], most: int) -> list[BenchmarkCase]:
    """Return at most ``most`` of the subjects, evenly spread, to choose thresholds on.

    Raises InputError where these show no lesion of a type, or no healthy vertebra: any threshold
    would be as good as any other, and a baseline be worse than it is.
    """
    some = [subjects[i] for i in spread(len(subjects), most)] if subjects else []
    among = f"among the {len(some)} vertebrae that choose thresholds"
    for kind in LESION_TYPES:
        if not any(subject.case.lesions(kind) for subject in some):
            raise InputError(folder, f"shows no {kind} lesion {among}")
    if all(subject.case.diseased for subject in some):
        raise InputError(folder, f"shows no healthy vertebra {among}")
    return some


def choose(
    method: Method,
    subjects: Sequence[BenchmarkCase],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Tuned:
    """Return the method's own thresholds where they are fixed, else the best on the subjects."""
    if method.fixed is not None:
        return method.fixed
    outcomes: list[list[Outcome]] = [[] for _ in method.settings]
    for number, subject in enumerate(subjects):
        seen = method.prepare(subject)
        for own, setting in zip(outcomes, method.settings):
            lesions, p = method.detect(seen, dict.fromkeys(LESION_TYPES, setting))
            own.append(outcome(subject.case, subject.vertebra, lesions, p))
        tell(number + 1, len(subjects))
    settings: dict[LesionType, Setting] = {}
    thresholds: dict[LesionType, float] = {}
    for kind in LESION_TYPES:
        best = -np.inf
        for setting, own in zip(method.settings, outcomes):
            for threshold in _thresholds(own, kind):
                value = worth(own, kind, threshold)
                if value > best:
                    best, settings[kind], thresholds[kind] = value, setting, threshold
    return Tuned(settings, thresholds)


def worth(outcomes: Sequence[Outcome], kind: LesionType, threshold: float) -> float:
    """As in tuning, for one type; 0 where there is none of it."""
    counted = count(outcomes, kind, threshold, LEAST_IOU)
    found, missed, false = (float(c.sum()) for c in (counted.found, counted.missed, counted.false))
    if found + missed == 0:
        return 0.0
    healthy = np.array([not one.diseased for one in outcomes])
    per_healthy = float(counted.false[healthy].sum()) / max(int(healthy.sum()), 1)
    f1 = 2 * found / (2 * found + missed + false)
    return worth_of(f1, float(np.nanmean(counted.dice)), per_healthy)


def _thresholds(outcomes: Sequence[Outcome], kind: LesionType) -> list[float]:
    """Quantiles of the candidates' scores, from below all of them."""
    scores = np.concatenate([np.empty(0), *(one.matches[kind].scores for one in outcomes)])
    if len(scores) == 0:
        return [0.0]
    levels = np.linspace(0, 1, TRIED_THRESHOLDS, endpoint=False)
    return [float(scores.min()) - 1.0, *np.unique(np.quantile(scores, levels)).tolist()]


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


LEAST_PIXELS = 16  # of lesion, for a slice to count as crossed


def realism(subjects: Sequence[BenchmarkCase], model: Model, auditor: Model) -> dict[str, Estimate]:
    """Means over the diseased vertebrae with a twin, with bootstrap intervals, by name."""
    ill = [s for s in subjects if s.twin is not None and _crossed(s).any()]
    rows = [_of_vertebra(subject, model, auditor) for subject in ill]
    weights = draw_weights([s.case.patient for s in ill], [s.vertebra for s in ill])
    names = rows[0] if rows else {}
    return {name: _estimate(np.array([row[name] for row in rows]), weights) for name in names}


def _estimate(values: npt.NDArray[np.float64], weights: Weights) -> Estimate:
    value = float(weighted_mean(values, np.ones((1, len(values))))[0])
    return Estimate(value, *interval(weighted_mean(values, weights)))


def _of_vertebra(subject: BenchmarkCase, model: Model, auditor: Model) -> dict[str, float]:
    seen = edit_case(subject.case, model)
    figures = {
        f"{kind} signal removed": removed_share(subject, seen, kind) for kind in LESION_TYPES
    }
    figures["change beside the lesions (x)"] = _beside(subject, seen)
    crossed = _crossed(subject)
    reference = subject.case.reference_of(crossed)
    pictures = {"image": subject.case.x, "edit": seen.healthy.edited, "twin": subject.twin}
    for judge, weights in (("own classifier", model), ("auditor", auditor)):
        for what, images in pictures.items():
            assert images is not None
            p = encode(images[crossed], weights, reference=reference).p.numpy()
            figures[f"P of {what}, {judge}"] = float(p.mean())
            figures[f"{what} called malignant, {judge}"] = float((p >= 0.5).mean())
    return figures


def removed_share(subject: BenchmarkCase, seen: Edited, kind: LesionType) -> float:
    """Return the part of the lesion's signal (image minus twin) that the edit takes away.

    1 where the edit is the twin, 0 where nothing was changed: the change's projection on the
    signal, over the true voxels of one type on slices that are analysed.  NaN without such voxels.
    """
    assert subject.twin is not None
    where = subject.case.truth[kind] & _analysed(subject)[:, None, None]
    signal = (subject.case.x - subject.twin)[:, 0].numpy()[where]
    change = -seen.healthy.difference[where]
    power = float((signal**2).sum())
    return float((change * signal).sum()) / power if power > 0 else float("nan")


def _beside(subject: BenchmarkCase, seen: Edited) -> float:
    """Mean absolute change of x in the body where there is no lesion, on slices with one."""
    case = subject.case
    beside = case.body & ~case.truth["lytic"] & ~case.truth["blastic"]
    beside &= _crossed(subject)[:, None, None]
    change = np.abs(seen.healthy.difference[beside])
    return float(change.mean()) if change.size else float("nan")


def _crossed(subject: BenchmarkCase) -> npt.NDArray[np.bool_]:
    truth = subject.case.truth
    crossed = (truth["lytic"] | truth["blastic"]).sum(axis=(1, 2)) >= LEAST_PIXELS
    return np.asarray(crossed & _analysed(subject))


def _analysed(subject: BenchmarkCase) -> npt.NDArray[np.bool_]:
    """Which slices (S,) are analysed: the others are not edited."""
    return np.isin(np.arange(len(subject.case.x)), subject.case.analysed)
