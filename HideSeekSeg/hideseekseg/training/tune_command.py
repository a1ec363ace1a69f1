"""The work behind ``hideseekseg tune``, ``calibrate`` and ``benchmark accuracy``.

They measure weights on vertebrae whose truth is known, and choose what these decide by: thresholds
of attribution scores, or probabilities with theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import atomic, make_folder, require_apart
from ..findings import LESION_TYPES
from ..model.profile import Profile
from ..model.weights import Model, load_model, save_model
from .calibration import MOST_FALSE, choose, fit, missing
from .dataset import load_slices
from .evaluation import (
    Case,
    Figures,
    format_figures,
    load_cases,
    measure_labels,
    measure_weights,
    tune,
)
from .observations import (
    Observations,
    Observer,
    SeenVertebra,
    joined,
    observer_of,
    read_observations,
    require_settings,
    require_unlearned,
)
from .seen_patients import TUNED, chosen_on, require_unseen, say_unchecked, seen_patients
from .trainer import Say, counter, steps_done


def run_measure(weights: Path, validation: Path, say: Say, without: Sequence[str] = ()) -> None:
    """Measure P(malignant) on prepared patients, whose lesions nobody has drawn."""
    model = load_model(weights)
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
    ``without`` are left out.  Raises InputError where weights edit by rendering, without draws, and
    for weights with probabilities: these hold for the gate and floors they were fitted with; and
    where the cases are of patients whom the weights learned from.
    """
    model = load_model(weights)
    _require_scores(model, weights, "`calibrate` chooses their thresholds")
    if draws is not None:
        if model.profile.schedule.edit == "render":
            raise InputError(weights, "edits by rendering: there are no draws of noise to choose")
        schedule = replace(model.profile.schedule, draws=draws)
        model = replace(model, profile=replace(model.profile, schedule=schedule))
    cases = cases_with_lesions(validation, model.profile, without)
    patients = [case.patient for case in cases]
    provenance = model.profile.provenance
    seen = seen_patients(provenance)
    require_unseen(validation, patients, weights, seen)
    say_unchecked(weights, seen, validation, say)
    decision = tune(model, cases, counter(say, "floor"))
    figures = measure_weights(
        replace(model, profile=replace(model.profile, decision=decision)), cases
    )
    provenance = {
        **_with_figures(model, figures),
        "thresholds": TUNED,
        **chosen_on(provenance, patients),
    }
    _save(model, replace(model.profile, decision=decision, provenance=provenance), out)
    say(format_figures(figures))


def _require_scores(model: Model, weights: Path, instead: str) -> None:
    """Raise InputError for weights that judge by probabilities, not by attribution scores."""
    if model.profile.confidence.known:
        raise InputError(weights, f"has calibrated probabilities: {instead}")


def _with_figures(model: Model, figures: Figures) -> dict[str, Any]:
    return {**model.profile.provenance, "validation": figures}


def _save(model: Model, profile: Profile, weights: Path) -> None:
    save_model(weights, model.autoencoder, model.classifier, profile, half=True)


def cases_with_lesions(folder: Path, profile: Profile, without: Sequence[str]) -> list[Case]:
    """Cases to choose thresholds on; raises InputError where they show no lesion of a type."""
    cases = load_cases(folder, profile, without)
    for kind in LESION_TYPES:
        if not any(case.lesions(kind) for case in cases):
            raise InputError(folder, f"shows no {kind} lesion, so no threshold can be chosen")
    return cases


def run_benchmark(folder: Path, weights: Path, out: Path | None, say: Say) -> None:
    """Measure weights on a folder of whole simulated vertebrae; JSON and Markdown to ``out``.

    Raises InputError for weights with probabilities, by which they would not be judged here, and
    for vertebrae of patients whom the weights learned from.
    """
    model = load_model(weights)
    _require_scores(model, weights, "measure them with --validation, or `benchmark probabilities`")
    cases = load_cases(folder, model.profile)
    patients = [case.patient for case in cases]
    seen = seen_patients(model.profile.provenance)
    require_unseen(folder, patients, weights, seen)
    figures = measure_weights(model, cases)
    used = seen.chosen(patients)
    notes = [f"Thresholds were chosen on patients of this set: {', '.join(used)}."] if used else []
    if seen.learned_unknown or seen.chosen_unknown:
        causes = "; ".join(filter(None, (seen.learned_unknown, seen.chosen_unknown)))
        notes.append(f"Whether these patients were held out is not known: {causes}.")
    table = "\n\n".join([format_figures(figures), *notes])
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
            "patients also used for thresholds": used,
            "decision": asdict(model.profile.decision),
        }
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _steps_done(provenance: dict[str, Any], weights: Path) -> dict[str, int]:
    """Return how many steps each stage took, by its losses, where training left them beside."""
    done = {stage: steps_done(weights.parent, stage) for stage in ("encoder", "decoder")}
    steps = {stage: count for stage, count in done.items() if count is not None}
    known: dict[str, int] = steps or provenance.get("steps done", {})
    return known


CHOSEN_APART = "chosen on patients who were not in training"
CHOSEN_UNCHECKED = "chosen on patients of whom it is not known whether they were in training"


def run_calibrate(
    weights: Path,
    observations: Sequence[Path],
    training: Sequence[Path],
    out: Path,
    settings: Mapping[str, Any],
    say: Say,
) -> None:
    """Fit probabilities and choose thresholds; the same networks with them in ``out``.

    ``observations`` are of patients who were not in training, of these weights or of those of
    other folds of one recipe; ``training`` of vertebrae that were, of these weights.  ``settings``
    are the schedule and decision that they were made with.  Raises InputError, also where they were
    made with others, or by networks that learned from the patients they observed, and where ``out``
    is the folder of ``weights``.
    """
    require_apart(out, [weights])
    model = load_model(weights)
    profile = replace(
        model.profile,
        schedule=replace(model.profile.schedule, **settings.get("schedule", {})),
        decision=replace(model.profile.decision, **settings.get("decision", {})),
    )
    own = observer_of(weights, profile)
    files = {path: _unlearned(path, own, say) for path in observations}
    seen = joined(list(files.values()))
    if lack := missing(seen):
        raise InputError(observations[0], f"{lack}: nothing to fit on")
    known = [one.distance for path in training for one in _of_training(path, own)]
    choice = choose(fit(seen, known), seen)
    confidence = choice.confidence
    patients = sorted({one.patient for one in seen})
    checked = not any(one.observer.learned_unknown for one in files.values())
    profile = replace(
        profile,
        decision=replace(profile.decision, threshold=choice.threshold),
        confidence=confidence,
        provenance={
            **profile.provenance,
            "thresholds": CHOSEN_APART if checked else CHOSEN_UNCHECKED,
            "steps done": _steps_done(profile.provenance, weights),
            **chosen_on(profile.provenance, patients),
            "validation": {
                "fitted on these": True,
                "vertebrae": len(seen),
                "diseased": sum(one.diseased for one in seen),
                "patients": patients,
                "observed by": sorted({one.observer.networks for one in files.values()}),
                "real healthy vertebrae": choice.real,
                "false findings per real healthy vertebra": choice.false_per_real,
            },
        },
    )
    _save(model, profile, out)
    if choice.false_per_real is None:
        say(f"no real vertebra was observed: {MOST_FALSE:g} false findings each is not a limit")
    else:
        say(
            f"{choice.false_per_real:.3f} false findings per vertebra in {choice.real} real ones,"
            " each patient judged by the others"
        )
    say(f"threshold {choice.threshold:g}, gate {confidence.gate_p:.3f}")
    say(f"suspicious above {confidence.suspicious_p:.3f}")


def _unlearned(path: Path, own: Observer, say: Say) -> Observations:
    """Read observations to fit on, of patients whom the networks that made them do not know.

    Of the networks that are calibrated what their provenance says counts as well.
    """
    read = read_observations(path)
    require_settings(path, read.observer, own.profile)
    require_unlearned(path, read, say)
    if read.observer.networks == own.networks and own.learned_from != read.observer.learned_from:
        require_unlearned(path, replace(read, observer=own), say)
    return read


def _of_training(path: Path, own: Observer) -> tuple[SeenVertebra, ...]:
    """Read observations of vertebrae of training: latents of other networks are not comparable."""
    read = read_observations(path)
    require_settings(path, read.observer, own.profile)
    if read.observer.networks != own.networks:
        raise InputError(path, "was observed by other networks than those that are calibrated")
    return read.vertebrae
