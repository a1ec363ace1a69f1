"""The work behind ``hideseekseg train``: slices to a folder of weights, thresholds chosen."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..anatomy.quality import UNKNOWN, limits_of, limits_of_both
from ..errors import InputError
from ..files import locked, make_folder, read_text, require_apart
from ..model.profile import Profile
from ..model.weights import Model, load_model, save_model
from ..output.figures.drawing import save_figure
from ..plain_data import counted
from ..simulation.source_vertebrae import DRAWN, shared_patients
from .dataset import Slices, is_label_only, left_out, limits_in, load_slices
from .seen_patients import CHOSEN_ON, CHOSEN_ON_OWN, require_unseen, say_unchecked, seen_patients
from .train import (
    COMPACT,
    LABELS_DECISION,
    LABELS_SCHEDULE,
    PATIENTS_GEOMETRY,
    Trained,
    TrainingSettings,
    train,
)
from .trainer import ProcessGroup, Say, claim, open_team, seconds_spent, stage_teller, step_kept
from .tune_command import cases_with_lesions, run_measure, run_tune

THRESHOLDS_OF_START = "not tuned: those of the weights it went on from"


@dataclass(frozen=True)
class Training:
    """Slices to learn from: simulated ones, or those of prepared patients.

    ``validation`` holds whole simulated vertebrae, to choose thresholds on, or other prepared
    patients, to measure P(malignant) on.  ``central_slices`` of each vertebra are learned from, and
    later analysed; all where it is None.  ``start`` holds weights to go on from.  Patients named by
    ``without`` are left out of everything, to be tested on.  ``context``: the encoder sees how a
    vertebra stands to the patient's others.  Not ``tuned``: validation is measured on the way, but
    no threshold is chosen on it.
    """

    slices: Path
    validation: Path | None
    out: Path
    settings: TrainingSettings
    name: str
    device: str = "auto"
    central_slices: int | None = None
    start: Path | None = None
    without: Sequence[str] = ()
    context: bool = True
    tuned: bool = True


def run_train(job: Training, say: Say, should_stop: Callable[[], bool]) -> Path | None:
    """Train, choose thresholds on the validation cases; gives where the weights were written.

    Resumes what ``out`` holds.  Raises InputError where that was begun with other settings, where
    another training is at work in it, and where it is an input.  Of several processes that torchrun
    started the leader does all but the training alone, and the others give None.
    """
    weights = job.out / "weights"
    inputs = [path for path in (job.slices, job.validation, job.start) if path is not None]
    for written in (job.out, weights):
        require_apart(written, inputs)
    profile = _profile(job)
    job = replace(job, without=left_out(job.slices, job.without))
    slices = load_slices(job.slices, profile, job.without)
    _require(slices, job)
    start, settings = _start(job, profile)
    profile = replace(profile, limits=limits_in(job.slices, job.without))
    profile, facts = _with_start(start, profile, _facts(slices))
    validation = _validation_slices(job, profile, slices)
    _require_apart(job, start, validation, say)
    with ExitStack() as held:
        with open_team(job.device) as team:
            if team.is_main:
                make_folder(job.out)
                held.enter_context(locked(job.out))
                if weights.exists():  # that it is no folder is better known before
                    make_folder(weights)
                own: dict[str, object] = {
                    "central_slices": job.central_slices,
                    "context": job.context,
                }
                if settings.patience is not None and validation is not None:
                    own["validation"] = validation.content
                without = sorted(job.without)
                claim(job.out, slices.content, {**asdict(settings), "without": without, **own})
                say(_described(slices, team))
            trained = train(
                *(slices, profile, settings, job.out, stage_teller(say)),
                *(should_stop, team, start, validation),
            )
        if team.is_main:
            _keep(job, trained, facts, validation, say)
    return weights if team.is_main else None


def _keep(
    job: Training, trained: Trained, facts: dict[str, Any], validation: Slices | None, say: Say
) -> None:
    """Write what was trained, with its provenance, and measure it on the validation set."""
    weights = job.out / "weights"
    facts |= {"seconds": round(seconds_spent(job.out))}
    kept = {stage: step_kept(job.out, stage) for stage in ("encoder", "decoder")}
    facts |= {f"{stage} kept after": step for stage, step in kept.items() if step is not None}
    if job.settings.patience is not None and validation is not None:
        facts |= _ended_on(validation)
    profile = replace(trained.profile, provenance={**trained.profile.provenance, **facts})
    save_model(weights, trained.autoencoder, trained.classifier, profile, half=True)
    loss_curves(job.out, job.out / "losses.png")
    if job.validation is None or validation is None:
        say("no validation: the thresholds are not tuned, the accuracy of these weights is unknown")
    elif job.tuned and not validation.label_only:
        run_tune(weights, job.validation, weights, say, without=job.without)
    elif job.tuned:
        run_measure(weights, job.validation, say, job.without)


def _profile(job: Training) -> Profile:
    """Return the profile of what is to be trained, with the defaults of its supervision."""
    whole = PATIENTS_GEOMETRY if is_label_only(job.slices) else COMPACT.geometry
    geometry = replace(whole, central_slices=job.central_slices)
    architecture = replace(COMPACT.architecture, context=job.context)
    profile = replace(COMPACT, name=job.name, geometry=geometry, architecture=architecture)
    if job.settings.supervision == "labels":
        return replace(profile, schedule=LABELS_SCHEDULE, decision=LABELS_DECISION)
    return profile


def _validation_slices(job: Training, profile: Profile, trained: Slices) -> Slices | None:
    """Return what is measured on the way.

    Raises InputError where it shows patients who are trained on, or one label alone, or no
    threshold can be chosen.
    """
    if job.validation is None:
        return None
    validation = load_slices(job.validation, profile, job.without)
    both = shared_patients(trained.patient.tolist(), validation.patient.tolist())
    if both:
        raise InputError(job.validation, f"shows patients who are trained on: {', '.join(both)}")
    if same := _same_slices(trained, validation):
        cause = f"shows slices that are trained on, of {', '.join(same)}: one patient by two names?"
        raise InputError(job.validation, cause)
    if job.tuned and not validation.label_only:
        # what is wrong with it is better known before
        cases_with_lesions(job.validation, profile, job.without)
    measured = validation.label_only and job.tuned
    if (measured or job.settings.patience is not None) and len(np.unique(validation.label)) < 2:
        cause = "shows vertebrae of one label only, so nothing can be measured there"
        raise InputError(job.validation, cause)
    return validation


def _require_apart(job: Training, start: Model | None, validation: Slices | None, say: Say) -> None:
    """Raise InputError where the weights to go on from learned from whom these must not know."""
    if start is None or job.start is None:
        return
    seen = seen_patients(start.profile.provenance)
    if both := seen.learned(job.without):
        cause = f"learned from patients who are to be left out: {', '.join(both)}"
        raise InputError(job.start, cause)
    if job.without and seen.learned_unknown:
        named = ", ".join(job.without)
        say(f"{job.start}: {seen.learned_unknown}: whether {named} are among them is not known")
    if validation is not None and job.validation is not None:
        require_unseen(job.validation, validation.patient.tolist(), job.start, seen)
        say_unchecked(job.start, seen, job.validation, say)


def _ended_on(validation: Slices) -> dict[str, Any]:
    """Say on whom the step of training that was kept was chosen."""
    patients = sorted(set(validation.patient.tolist()))
    return {CHOSEN_ON_OWN: len(patients)} if validation.label_only else {CHOSEN_ON: patients}


def _same_slices(trained: Slices, validation: Slices) -> list[str]:
    """Return the patients of validation of whom a slice is in training as well, voxel by voxel.

    Not of drawn ones, which two sets may have in common.
    """
    known = {sha256(image.tobytes()).digest() for image in trained.image}
    pairs = zip(validation.image, validation.patient.tolist())
    same = {p for image, p in pairs if sha256(image.tobytes()).digest() in known}
    return sorted(p for p in same if not p.startswith(f"{DRAWN} "))


def _require(slices: Slices, job: Training) -> None:
    """Raise InputError where nothing can be learned as it is asked for."""
    if slices.label_only and job.settings.supervision == "twins":
        raise InputError(job.slices, "has no healthy twins, which `--supervision twins` needs")
    if slices.label.min() == slices.label.max():
        only = "malignant" if slices.label[0] else "healthy"
        raise InputError(
            job.slices, f"contains {only} vertebrae only: there is nothing to learn from"
        )
    if job.start is None and not job.settings.encoder_steps:
        raise InputError("--encoder-steps 0", "needs --start: there is no encoder to keep")
    if job.settings.patience is not None and job.validation is None:
        raise InputError("--patience", "needs --validation: what is to gain there?")


def _start(job: Training, profile: Profile) -> tuple[Model | None, TrainingSettings]:
    """Return the weights to go on from, and settings naming them; raise InputError on a misfit."""
    if job.start is None:
        return None, job.settings
    model = load_model(job.start)
    own = model.profile
    chosen = {name: getattr(profile.geometry, name) for name in ("central_slices", "least_share")}
    known = replace(own.geometry, **chosen)
    parts = {
        "another architecture": own.architecture == profile.architecture,
        "another crop": known == profile.geometry,
        "another scale of intensities": own.intensity == profile.intensity,
        "other timesteps": own.schedule.timesteps == profile.schedule.timesteps,
    }
    if differ := [name for name, same in parts.items() if not same]:
        raise InputError(job.start, f"has {', '.join(differ)} than what is to be trained")
    return model, replace(job.settings, start=model.hash)


def _with_start(
    start: Model | None, profile: Profile, facts: dict[str, Any]
) -> tuple[Profile, dict[str, Any]]:
    """Return profile and provenance with what comes of the start.

    Its limits count beside those of the new vertebrae, as the weights learned from both.
    Its thresholds are kept where they mean the same, with the same edit: those of calibrated
    weights are of probabilities, which the new weights do not have.
    """
    if start is None:
        return profile, facts
    both = limits_of_both(profile.limits or UNKNOWN, limits_of(start.profile))
    profile = replace(profile, limits=both)
    facts = {**facts, "start": start.profile.provenance}
    if start.profile.schedule != profile.schedule or start.profile.confidence.known:
        return profile, facts
    return replace(profile, decision=start.profile.decision), {
        **facts,
        "thresholds": THRESHOLDS_OF_START,
    }


def _described(slices: Slices, team: ProcessGroup) -> str:
    patients = len(np.unique(slices.patient))
    ill = f"{slices.label.mean():.0%} ill"
    where = f"{team.device}" + (f" and {team.size - 1} more" if team.size > 1 else "")
    whose = counted(patients, "patient")
    return f"{counted(len(slices), 'slice')} of {whose}, {ill}; on {where}"


def _facts(slices: Slices) -> dict[str, Any]:
    """Describe a training's data; a hospital's patients are counted and not named."""
    patients = sorted(set(slices.patient.tolist()))
    whose = {"own patients": len(patients)} if slices.label_only else {"patients": patients}
    return {**whose, "version": __version__, "thresholds": "not tuned"}


def loss_curves(folder: Path, path: Path) -> Path:
    """Draw the losses of all stages in a training folder, one panel each, in their order.

    What was measured on validation has points where that was done, and an AUC an axis of its own; a
    line stands where the weights that were kept were best.
    """
    from matplotlib.figure import Figure

    tables = sorted(folder.glob("*-losses.csv"), key=lambda table: table.name, reverse=True)
    figure = Figure(figsize=(5.5 * max(len(tables), 1), 3.5), layout="constrained")
    for number, table in enumerate(tables):
        rows = list(csv.DictReader(read_text(table).splitlines()))
        axes = figure.add_subplot(1, len(tables), number + 1)
        axes.set(title=table.stem.replace("-losses", ""), xlabel="step", ylabel="loss")
        axes.set_yscale("log")
        lines = []
        for name in [key for key in rows[0] if key != "step"] if rows else []:
            known = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            if not name.startswith("validation"):
                lines += axes.plot(*zip(*known), label=name)
                continue
            looks = [two for one, two in zip([(0, 0.0), *known], known) if one[1] != two[1]]
            beside = axes.twinx() if name.endswith("AUC") else axes
            lines += beside.plot(*zip(*looks), "k.--", label=name)
            beside.set_ylabel("AUC" if beside is not axes else "loss")
        kept = step_kept(folder, table.stem.replace("-losses", ""))
        if kept is not None:
            lines.append(axes.axvline(kept, color="k", linewidth=0.8, label="kept"))
        axes.legend(handles=lines, frameon=False, loc="center right")
    save_figure(path, figure)
    return path
