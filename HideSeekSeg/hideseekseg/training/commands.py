"""The work behind ``hideseekseg simulate``, ``train`` and ``benchmark``: files to files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..imaging.reading import InputError, atomic, make_folder
from ..model.profile import Profile
from ..model.weights import DeviceError, Model, save_model
from ..simulation.simulate import Recipe, simulate
from ..simulation.source_vertebrae import Vertebra, drawn_vertebrae, load_vertebrae, read_sources
from .dataset import Slices, load_slices, patients_of
from .distributed import Team, open_team
from .evaluation import TYPES, Case, load_cases
from .pictures import contact_sheet, loss_curves
from .reporting import Figures, format_figures, measure_labels, measure_weights
from .telling import Say, counter, stage_teller
from .threshold_tuning import tune
from .train import COMPACT, Settings, train
from .trainer import seconds_spent
from .weights import load_weights

THRESHOLDS_OF_START = "not tuned: those of the weights it went on from"


@dataclass(frozen=True)
class Simulation:
    """What to draw: patients of some ``splits`` of a sources file, and some drawn from scratch."""

    sources: Path
    data: Path
    splits: Sequence[str]
    out: Path
    vertebrae: int
    seed: int
    whole: bool
    drawn: int


def run_simulate(job: Simulation, say: Say) -> list[Path]:
    """Write a shard of simulated slices, its recipe, and a contact sheet to look at."""
    known, asked = read_sources(job.sources, job.data), " or ".join(job.splits)
    sources = [s for s in known if s.split in job.splits]
    if not sources:
        raise InputError(job.sources, f"has no row with the split {asked}")
    canvases: list[Vertebra] = []
    for source in sources:
        canvases += load_vertebrae(source)
        say(f"{source.patient}: {sum(v.patient == source.patient for v in canvases)} vertebrae")
    if job.drawn:
        canvases += drawn_vertebrae(np.random.default_rng(job.seed), job.drawn)
        say(f"{job.drawn} vertebrae drawn from scratch")
    if not canvases:
        raise InputError(job.sources, f"leads to no whole vertebra in the split {asked}")
    make_folder(job.out)
    names = tuple(s.patient for s in sources)
    recipe = Recipe(
        job.seed, job.vertebrae, None if job.whole else 12, sources=names, drawn=job.drawn
    )
    shard = simulate(recipe, canvases, job.out, counter(say, "vertebra"))
    sheet = contact_sheet(shard, shard.with_suffix(".png"))
    return [shard, sheet]


@dataclass(frozen=True)
class Training:
    """Slices to learn from: simulated ones, or those of prepared patients.

    ``validation`` holds whole simulated vertebrae, to choose thresholds on, or other prepared
    patients, to measure P(malignant) on.  ``central_slices`` of each vertebra are learned from, and
    later analysed; all where it is None.  ``start`` holds weights to go on from.  Patients named by
    ``without`` are left out of everything, to be tested on.
    """

    slices: Path
    validation: Path | None
    out: Path
    settings: Settings
    name: str
    device: str = "auto"
    central_slices: int | None = None
    start: Path | None = None
    without: Sequence[str] = ()


def run_train(job: Training, say: Say, should_stop: Callable[[], bool]) -> Path | None:
    """Train, choose thresholds on the validation cases; gives where the weights were written.

    Resumes what ``out`` holds.  Raises InputError where that was begun with other settings.  Of
    several processes that torchrun started the leader does all but the training alone, and the
    others give None.
    """
    geometry = replace(COMPACT.geometry, central_slices=job.central_slices)
    profile = replace(COMPACT, name=job.name, geometry=geometry)
    _require_patients(job.slices, job.without)
    slices = load_slices(job.slices, profile, job.without)
    _require(slices, job)
    start, settings = _start(job, profile)
    profile = profile if start is None else replace(profile, decision=start.profile.decision)
    tunable = job.validation is not None and not load_slices(job.validation, profile).label_only
    if job.validation is not None and tunable:
        # what is wrong with it is better known before
        _validation(job.validation, profile, job.without)
    weights = job.out / "weights"
    with _team(job.device) as team:
        if team.leads:
            make_folder(job.out)
            _claim(job.out, {**asdict(settings), "without": sorted(job.without)})
            say(_described(slices, team))
        trained = train(
            slices, profile, settings, job.out, stage_teller(say), should_stop, team, start
        )
    if not team.leads:
        return None
    facts = {**_facts(slices), "seconds": round(seconds_spent(job.out))}
    if start is not None:
        facts |= {"thresholds": THRESHOLDS_OF_START, "start": start.profile.provenance}
    profile = replace(trained.profile, provenance={**trained.profile.provenance, **facts})
    save_model(weights, trained.autoencoder, trained.classifier, profile, half=True)
    loss_curves(job.out, job.out / "losses.png")
    if job.validation is None:
        say("no validation: the thresholds are not tuned, and nobody knows how good these are")
    elif tunable:
        run_tune(weights, job.validation, weights, say, without=job.without)
    else:
        run_measure(weights, job.validation, say, job.without)
    return weights


def _require_patients(slices: Path, without: Sequence[str]) -> None:
    """Raises InputError where one who is to be left out is not there: a name may be misspelt."""
    unknown = sorted({*without} - patients_of(slices)) if without else []
    if unknown:
        raise InputError(slices, f"has no patient {', '.join(unknown)} to leave out")


def _require(slices: Slices, job: Training) -> None:
    """Raises InputError where nothing can be learned as it is asked for."""
    if slices.label_only and job.settings.supervision == "twins":
        raise InputError(job.slices, "has no healthy twins, which `--supervision twins` needs")
    if slices.label.min() == slices.label.max():
        only = "malignant" if slices.label[0] else "healthy"
        raise InputError(job.slices, f"holds {only} vertebrae alone: nothing to tell apart")
    if job.start is None and not job.settings.encoder_steps:
        raise InputError("--encoder-steps 0", "needs --start: there is no encoder to keep")


def _start(job: Training, profile: Profile) -> tuple[Model | None, Settings]:
    """The weights to go on from, and settings that name them; InputError where they do not fit."""
    if job.start is None:
        return None, job.settings
    model = load_weights(job.start)
    if model.profile.architecture != profile.architecture:
        raise InputError(job.start, "has another architecture than what is to be trained")
    return model, replace(job.settings, start=model.hash)


def _described(slices: Slices, team: Team) -> str:
    patients = len(np.unique(slices.patient))
    ill = f"{slices.label.mean():.0%} ill"
    where = f"{team.device}" + (f" and {team.size - 1} more" if team.size > 1 else "")
    return f"{len(slices)} slices of {patients} patients, {ill}; on {where}"


def _facts(slices: Slices) -> dict[str, Any]:
    """What is told of a training's data; a hospital's patients are counted and not named."""
    patients = sorted(set(slices.patient.tolist()))
    whose = {"own patients": len(patients)} if slices.label_only else {"patients": patients}
    return {**whose, "version": __version__, "thresholds": "not tuned"}


@contextmanager
def _team(device: str) -> Iterator[Team]:
    try:
        with open_team(device) as team:
            yield team
    except DeviceError as error:
        raise InputError("--device", str(error)) from error


def run_measure(weights: Path, validation: Path, say: Say, without: Sequence[str] = ()) -> None:
    """Measure P(malignant) on prepared patients, whose lesions nobody has drawn."""
    model = load_weights(weights)
    figures = measure_labels(model, load_slices(validation, model.profile, without))
    _save(model, replace(model.profile, provenance=_with_figures(model, figures)), weights)
    say(format_figures(figures))
    say("lesions are not known there: the thresholds are not tuned")


def run_tune(
    weights: Path,
    validation: Path,
    out: Path,
    say: Say,
    draws: int | None = None,
    without: Sequence[str] = (),
) -> None:
    """Choose gate, floors and threshold on validation cases; the same weights with them in ``out``.

    ``draws`` of noise for a single-shot edit, where other than the weights have.  Patients named by
    ``without`` are left out.  Raises InputError where weights edit by rendering, without draws.
    """
    model = load_weights(weights)
    if draws is not None:
        if model.profile.schedule.edit == "render":
            raise InputError(weights, "edits by rendering: there are no draws of noise to choose")
        schedule = replace(model.profile.schedule, draws=draws)
        model = replace(model, profile=replace(model.profile, schedule=schedule))
    cases = _validation(validation, model.profile, without)
    decision = tune(model, cases, counter(say, "floor"))
    figures = measure_weights(
        replace(model, profile=replace(model.profile, decision=decision)), cases
    )
    provenance = {**_with_figures(model, figures), "thresholds": "tuned on the validation set"}
    _save(model, replace(model.profile, decision=decision, provenance=provenance), out)
    say(format_figures(figures))


def _with_figures(model: Model, figures: Figures) -> dict[str, Any]:
    return {**model.profile.provenance, "validation": figures}


def _save(model: Model, profile: Profile, weights: Path) -> None:
    save_model(weights, model.autoencoder, model.classifier, profile, half=True)


def _validation(folder: Path, profile: Profile, without: Sequence[str]) -> list[Case]:
    """Cases to choose thresholds on; raises InputError where they show no lesion of a type."""
    cases = load_cases(folder, profile, without)
    for kind in TYPES:
        if not any(case.lesions(kind) for case in cases):
            raise InputError(folder, f"shows no {kind} lesion, so no threshold can be chosen")
    return cases


def _claim(folder: Path, asked: dict[str, Any]) -> None:
    """Write down what a training was begun with, or refuse to go on with something else."""
    path = folder / "settings.json"
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(asked, indent=1), encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != asked:
        raise InputError(folder, "holds a training that was begun with other settings")


def run_benchmark(folder: Path, weights: Path, out: Path | None, say: Say) -> None:
    """Measure weights on a folder of whole simulated vertebrae; JSON and Markdown to ``out``."""
    model = load_weights(weights)
    figures = measure_weights(model, load_cases(folder, model.profile))
    table = format_figures(figures)
    say(table)
    if out is None:
        return
    make_folder(out)
    with atomic(out / "accuracy.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    with atomic(out / "accuracy.json") as temporary:
        content = {
            "weights": model.hash,
            "figures": figures,
            "decision": asdict(model.profile.decision),
        }
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
