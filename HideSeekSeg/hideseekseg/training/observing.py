"""What the method makes of vertebrae whose truth is known, before any probability is computed.

Kept as plain numbers, so that probabilities are fitted, and figures computed, without a network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..attribution import Edit, Latents, edit, encode, hide_and_seek, propose
from ..confidence import latent_size
from ..errors import InputError
from ..files import atomic, read_json
from ..findings import LESION_TYPES, LesionType
from ..lesions import FEATURES, Lesion3D, candidate_features, join_slices, p_of_vertebra
from ..model.calibration import log_odds
from ..model.profile import Decision
from ..model.weights import Model
from ..plain_data import as_type
from ..simulation.metastases import diameters
from ..simulation.random_fields import Field
from .evaluation import Case
from .lesion_matching import LEAST_IOU

MOST_BYTES = 1 << 30  # of observations


@dataclass(frozen=True)
class SeenCandidate:
    """A candidate and how it lies to the true lesions of its type.

    It has its ``lesions.FEATURES`` (the vertebra's log odds not yet calibrated), its size in
    voxels, how many of them are truly of its type, and its IoU with each true lesion of it.
    """

    type: LesionType
    features: tuple[float, ...]
    voxels: int
    right: int
    ious: tuple[float, ...]

    @property
    def true(self) -> bool:
        """Whether it finds a true lesion."""
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
) -> list[list[SeenVertebra]]:
    """Run the method on every case, once for each decision (default: the weights' own).

    The slices of all are edited once: decisions differ in what they make of the edit.  Below
    ``gate_logit`` a vertebra is encoded, but not edited.
    """
    tried = [_with(model, decision) for decision in decisions or [model.profile.decision]]
    seen: list[list[SeenVertebra]] = [[] for _ in tried]
    for number, case in enumerate(cases):
        latents = encode(case.x, model, reference=case.reference)
        vertebra = _encoded(case, latents)
        if vertebra.logit >= gate_logit:
            healthy = edit(case.x, latents, model)
            found = [_candidates(case, latents, healthy, one) for one in tried]
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
        log_odds(p_of_vertebra(latents.p.numpy())),
        latent_size(latents),
        sizes,
        {kind: int(case.truth[kind].sum()) for kind in LESION_TYPES},
    )


def _candidates(
    case: Case, latents: Latents, healthy: Edit, model: Model
) -> tuple[SeenCandidate, ...]:
    decision = model.profile.decision
    proposals = propose(healthy, case.body, decision)
    scored = hide_and_seek(latents, healthy, proposals, model)
    difference, x = healthy.difference, case.x[:, 0].numpy()
    return tuple(
        _candidate(case, lesion, x, difference)
        for lesion in join_slices(scored, decision.min_slices)
    )


def _candidate(case: Case, lesion: Lesion3D, x: Field, difference: Field) -> SeenCandidate:
    """Leave the log odds of the vertebra open among the features: they are calibrated later."""
    mask = lesion.mask((x.shape[0], x.shape[1], x.shape[2]))
    size = int(mask.sum())
    shared = [(int(part[mask].sum()), int(part.sum())) for part in case.lesions(lesion.type)]
    return SeenCandidate(
        lesion.type,
        candidate_features(lesion, x, difference, case.body, 0.0),
        size,
        int(case.truth[lesion.type][mask].sum()),
        tuple(both / (own + size - both) for both, own in shared),
    )


def write_observations(path: Path, seen: Sequence[SeenVertebra]) -> None:
    """As JSON, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps([asdict(one) for one in seen]), encoding="utf-8")


def read_observations(path: Path) -> list[SeenVertebra]:
    """Return what ``write_observations`` wrote; raise InputError on anything else."""
    data = read_json(path, most_bytes=MOST_BYTES)
    try:
        seen = as_type(list[SeenVertebra], data)
    except ValueError as error:
        raise InputError(path, f"contains no observations: {error}") from error
    for one in seen:
        if any(len(c.features) != len(FEATURES) for c in one.candidates):
            raise InputError(path, f"holds observations of other than {len(FEATURES)} features")
    return list(seen)
