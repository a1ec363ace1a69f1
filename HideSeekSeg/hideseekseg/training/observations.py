"""What the method makes of vertebrae whose truth is known, before any probability is computed.

Kept as plain numbers (``SeenVertebra``), in files that say by which networks and settings they were
made (``Observer``): probabilities are fitted, and figures computed, without a network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..attribution import Edit, Latents, hide_and_seek, propose
from ..confidence import latent_size, with_stability
from ..errors import InputError
from ..files import atomic, read_object
from ..findings import LESION_TYPES, LesionType
from ..lesions import Lesion3D, candidate_features, lesions_of, log_odds
from ..model.profile import (
    FEATURES,
    Confidence,
    Decision,
    Profile,
    StoredProfile,
    from_json,
    read_profile,
    to_json,
)
from ..model.weights import Model
from ..plain_data import as_type, shown
from ..simulation.metastases import diameters
from ..simulation.random_fields import Field
from ..simulation.source_vertebrae import one_spelling, shared_patients
from .evaluation import LEAST_IOU, Case, analysed_latents, edit_encoded, encode_case, p_of_case
from .seen_patients import seen_patients
from .trainer import Say

MOST_BYTES = 1 << 30  # of observations
LIKELY = 0.2  # least attribution score of a candidate whose stability is worth knowing


@dataclass(frozen=True)
class SeenCandidate:
    """A candidate and how it lies to the true lesions of its type.

    It has its attribution score, its ``FEATURES`` (the vertebra's log odds open), the size of its
    outline in voxels, how many of them are truly of its type, and its IoU with each true lesion of
    it.  ``stability`` where it was asked for.
    """

    type: LesionType
    score: float
    features: tuple[float, ...]
    voxels: int
    right: int
    ious: tuple[float, ...]
    stability: float | None = None

    @property
    def true(self) -> bool:
        """Return whether it finds a true lesion."""
        return any(iou >= LEAST_IOU for iou in self.ious)


@dataclass(frozen=True)
class SeenVertebra:
    """A vertebra of ``patient``, judged beside those of its ``group``.

    ``logit`` are the log odds of P(malignant) as the classifier has it, ``distance`` the size of
    its mean latent.  ``lesions`` are diameters in mm of true lesions by type (0 where nobody knows
    the spacing), ``voxels`` the true voxels by type.  ``real``: nothing was painted into it, and
    nobody noticed a lesion.
    """

    patient: str
    group: str
    diseased: bool
    logit: float
    distance: float
    lesions: dict[LesionType, tuple[float, ...]]
    voxels: dict[LesionType, int]
    candidates: tuple[SeenCandidate, ...] = ()
    real: bool = False


def observe(
    model: Model,
    cases: Sequence[Case],
    decisions: Sequence[Decision] = (),
    gate_logit: float = -np.inf,
    tell: Callable[[int, int], None] = lambda done, total: None,
    stability: bool = False,
) -> list[list[SeenVertebra]]:
    """Run the method on every case, once for each decision (default: the weights' own).

    The slices of all are edited once: decisions differ in what they make of the edit.  Below
    ``gate_logit`` a vertebra is encoded, but not edited.  With ``stability`` candidates that may
    become findings are looked for again under small changes.
    """
    tried = [_with(model, decision) for decision in decisions or [model.profile.decision]]
    seen: list[list[SeenVertebra]] = [[] for _ in tried]
    for number, case in enumerate(cases):
        latents = encode_case(case, model)
        vertebra = _encoded(case, latents)
        if vertebra.logit >= gate_logit:
            healthy = edit_encoded(case, latents, model)
            found = [_candidates(case, latents, healthy, one, stability) for one in tried]
        else:
            found = [()] * len(tried)
        for own, candidates in zip(seen, found):
            own.append(replace(vertebra, candidates=candidates))
        tell(number + 1, len(cases))
    return seen


def _with(model: Model, decision: Decision) -> Model:
    return replace(model, profile=replace(model.profile, decision=decision))


def _encoded(case: Case, latents: Latents) -> SeenVertebra:
    true = {kind: case.lesions(kind) for kind in LESION_TYPES}
    spacing = case.spacing
    sizes = {
        kind: tuple(diameters(lesion, spacing)[0] if spacing else 0.0 for lesion in true[kind])
        for kind in LESION_TYPES
    }
    return SeenVertebra(
        case.patient,
        case.group or case.patient,
        case.diseased,
        log_odds(p_of_case(case, latents)),
        latent_size(analysed_latents(case, latents)),
        sizes,
        {kind: int(case.truth[kind].sum()) for kind in LESION_TYPES},
    )


def _candidates(
    case: Case, latents: Latents, healthy: Edit, model: Model, stability: bool
) -> tuple[SeenCandidate, ...]:
    decision = model.profile.decision
    proposals = propose(healthy, case.body, decision)
    scored = hide_and_seek(latents, healthy, proposals, model)
    difference, x = healthy.difference, case.x[:, 0].numpy()
    lesions = lesions_of(scored, difference, decision)
    if stability:
        likely = sum(lesion.attribution_score > LIKELY for lesion in lesions)
        reference = latents.reference[:1]
        lesions[:likely] = with_stability(lesions[:likely], case.x, case.body, reference, model)
    return tuple(_candidate(case, lesion, x, difference) for lesion in lesions)


def _candidate(case: Case, lesion: Lesion3D, x: Field, difference: Field) -> SeenCandidate:
    """Leave the log odds of the vertebra open among the features: they are calibrated later."""
    mask = lesion.mask((x.shape[0], x.shape[1], x.shape[2]))
    size = int(mask.sum())
    shared = [(int(part[mask].sum()), int(part.sum())) for part in case.lesions(lesion.type)]
    return SeenCandidate(
        lesion.type,
        lesion.attribution_score,
        candidate_features(lesion, x, difference, case.body, 0.0),
        size,
        int(case.truth[lesion.type][mask].sum()),
        tuple(both / (own + size - both) for both, own in shared),
        lesion.stability,
    )


@dataclass(frozen=True)
class Observer:
    """Who made observations: networks by a hash of their files, and the profile they ran with.

    ``profile`` has neither probabilities nor a threshold, which observations do not depend on, nor
    a provenance: of that ``learned_from`` remains, and why it may not be all, as in
    ``SeenPatients``.
    """

    networks: str
    profile: Profile
    learned_from: tuple[str, ...] = ()
    learned_unknown: str = ""

    def differences(self, profile: Profile) -> list[str]:
        """Return the settings that ``profile`` has otherwise, in words."""
        own, other = asdict(self.profile), asdict(observed_by(profile))
        return [
            f"{name} {shown(value)} (now {shown(other[part][name])})"
            for part in RECIPE
            for name, value in own[part].items()
            if value != other[part][name]
        ]


RECIPE = ("architecture", "geometry", "intensity", "schedule", "decision")


@dataclass(frozen=True)
class Observations:
    """Vertebrae whose truth is known, what was made of each, and by whom."""

    observer: Observer
    vertebrae: tuple[SeenVertebra, ...]


def observer_of(weights: Path, profile: Profile) -> Observer:
    """Return who observes with a weights folder whose settings ``profile`` has, changed perhaps."""
    stored = read_profile(weights)
    seen = seen_patients(stored.profile.provenance)
    own = observed_by(profile)
    return Observer(networks_of(stored), own, seen.learned_from, seen.learned_unknown)


def networks_of(stored: StoredProfile) -> str:
    """Return a hash of the networks alone: of weights and of the same when calibrated."""
    return sha256(json.dumps(stored.files, sort_keys=True).encode()).hexdigest()


def observed_by(profile: Profile) -> Profile:
    """Return what observations depend on."""
    decision = replace(profile.decision, threshold=Decision.threshold)
    return replace(profile, decision=decision, confidence=Confidence(), provenance={})


def require_settings(path: Path, observer: Observer, profile: Profile) -> None:
    """Raise InputError where observations were made with other settings than ``profile`` has."""
    if differ := observer.differences(profile):
        raise InputError(path, f"was observed with other settings: {', '.join(differ)}")


def require_unlearned(path: Path, observations: Observations, say: Say) -> None:
    """Raise InputError where networks observed patients whom they learned from."""
    observer = observations.observer
    patients = [one.patient for one in observations.vertebrae]
    if both := shared_patients(patients, observer.learned_from):
        named = ", ".join(both)
        raise InputError(path, f"was observed by networks that learned from its patients: {named}")
    if observer.learned_unknown:
        say(f"{path}: {observer.learned_unknown}: whether it shows one cannot be checked")


def write_observations(path: Path, observer: Observer, seen: Sequence[SeenVertebra]) -> None:
    """As JSON, whole or not at all."""
    with atomic(path) as temporary:
        content = {
            "observer": {**asdict(observer), "profile": to_json(observer.profile)},
            "features": FEATURES,
            "vertebrae": [asdict(one) for one in seen],
        }
        temporary.write_text(json.dumps(content), encoding="utf-8")


def read_observations(path: Path) -> Observations:
    """Return what ``write_observations`` wrote; raise InputError on anything else."""
    data = read_object(path, most_bytes=MOST_BYTES)
    if not {"features", "vertebrae"} <= data.keys():
        raise InputError(path, "contains no observations, as `benchmark observe` writes them")
    if "observer" not in data:
        cause = "does not say by which weights: make it again with `hideseekseg benchmark observe`"
        raise InputError(path, f"is of an earlier version, which {cause}")
    try:
        features = as_type(tuple[str, ...], data.get("features"))
        seen = as_type(tuple[SeenVertebra, ...], data.get("vertebrae"))
        observer = _observer(data["observer"])
    except ValueError as error:
        raise InputError(path, f"contains damaged observations: {error}") from error
    counts = {len(c.features) for one in seen for c in one.candidates}
    if features != FEATURES or not counts <= {len(FEATURES)}:
        raise InputError(path, "contains candidates by other features: observe them again")
    return Observations(observer, seen)


def joined(files: Sequence[Observations]) -> list[SeenVertebra]:
    """Return the vertebrae of several files, every patient in one spelling.

    Vertebrae of different files are not beside each other, whatever their groups are called.
    """
    seen = [
        replace(one, group=f"{number} {one.group}")
        for number, file in enumerate(files)
        for one in file.vertebrae
    ]
    names = one_spelling(one.patient for one in seen)
    return [replace(one, patient=name) for one, name in zip(seen, names)]


def _observer(data: Any) -> Observer:
    """Return whom plain data describe; settings that are missing have a profile's defaults."""
    facts = as_type(dict[str, Any], data)
    if unknown := sorted(facts.keys() - {field.name for field in fields(Observer)}):
        raise ValueError(f"observer has the unknown key {shown(unknown[0])}")
    return Observer(
        as_type(str, facts.get("networks")),
        from_json(as_type(dict[str, Any], facts.get("profile"))),
        as_type(tuple[str, ...], facts.get("learned_from", ())),
        as_type(str, facts.get("learned_unknown", "")),
    )
