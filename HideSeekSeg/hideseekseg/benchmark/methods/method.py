"""One shape for all methods that a benchmark compares, and Hide-and-Seek Attribution in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from ...attribution import propose
from ...confidence import vertebra_probability, with_probabilities
from ...findings import LESION_TYPES, LesionType
from ...lesions import Lesion3D, SliceCandidate, join_slices, lesions_of, log_odds
from ...model.weights import Model
from ...simulation.random_fields import Field, Mask
from ...training.evaluation import (
    MIN_SLICES,
    Case,
    Edited,
    edit_case,
    encode_case,
    p_of_case,
    scored_parts,
)
from ..cases import BenchmarkCase
from ..metrics import Outcome, Thresholds, outcome

Setting = Any  # a method's own: what it tries on validation vertebrae
Chosen = Mapping[LesionType, Setting]


@dataclass(frozen=True)
class Tuned:
    """What validation chose: a setting and a score threshold per type."""

    settings: Chosen
    thresholds: Thresholds


class Method(Protocol):
    """``prepare`` does the costly part once; ``detect`` the part that settings change.

    ``learnt_from`` says what the method was trained with, for the table.  ``fixed`` is None where
    ``settings`` are to be tried on validation vertebrae.
    """

    @property
    def name(self) -> str: ...

    @property
    def learnt_from(self) -> str: ...

    @property
    def settings(self) -> Sequence[Setting]: ...

    @property
    def fixed(self) -> Tuned | None: ...

    def prepare(self, subject: BenchmarkCase) -> Any: ...

    def detect(self, seen: Any, chosen: Chosen) -> tuple[list[Lesion3D], float]:
        """Scored candidates of a vertebra, and its P(malignant) (NaN where there is none)."""
        ...


def run(
    method: Method,
    subjects: Sequence[BenchmarkCase],
    chosen: Chosen,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """One method on all subjects; ours judges each beside the others of its patient."""
    if isinstance(method, HideAndSeek):
        method = method.beside(subjects)
    outcomes = []
    for number, subject in enumerate(subjects):
        lesions, p = method.detect(method.prepare(subject), chosen)
        outcomes.append(outcome(subject.case, subject.vertebra, lesions, p))
        tell(number + 1, len(subjects))
    return outcomes


@dataclass(frozen=True, eq=False)
class HideAndSeek:
    """The method with the weights' own decision and, where calibrated, their probabilities.

    ``p_beside`` has P(malignant) of cases, by identity, beside the others of their patients; any
    other case is judged alone.  For ablations: ``hiding`` off keeps every candidate with a score of
    1; ``pooled`` off accepts each slice's candidate by its own score before slices are joined.
    """

    name: str
    model: Model
    hiding: bool = True
    pooled: bool = True
    settings: Sequence[Setting] = ()
    p_beside: Mapping[int, float] = field(default_factory=dict)

    @property
    def learnt_from(self) -> str:
        return supervision(self.model)

    @property
    def fixed(self) -> Tuned:
        threshold = self.model.profile.decision.threshold
        return Tuned(dict.fromkeys(LESION_TYPES), dict.fromkeys(LESION_TYPES, threshold))

    def beside(self, subjects: Sequence[BenchmarkCase]) -> HideAndSeek:
        """Return the method that knows these vertebrae, which must outlive it."""
        confidence = self.model.profile.confidence
        if not confidence.known:
            return self
        cases = [subject.case for subject in subjects]
        logits = [log_odds(p_of_case(case, encode_case(case, self.model))) for case in cases]
        groups: dict[str, list[int]] = {}
        for number, case in enumerate(cases):
            groups.setdefault(case.group or case.patient, []).append(number)
        p = {
            id(cases[number]): vertebra_probability(
                confidence, logits[number], [logits[other] for other in own if other != number]
            )
            for own in groups.values()
            for number in own
        }
        return replace(self, p_beside=p)

    def prepare(self, subject: BenchmarkCase) -> Edited:
        return edit_case(subject.case, self.model)

    def detect(self, seen: Edited, chosen: Chosen) -> tuple[list[Lesion3D], float]:
        decision = self.model.profile.decision
        if self.hiding:
            parts = scored_parts(seen, self.model)
        else:
            proposals = propose(seen.healthy, seen.case.body, decision)
            parts = [SliceCandidate(c.slice, c.type, c.mask, 1.0) for c in proposals.candidates]
        if not self.pooled:
            parts = [part for part in parts if part.score > decision.threshold]
        lesions = lesions_of(parts, seen.healthy.difference, decision)
        confidence = self.model.profile.confidence
        # A probability is made of what hiding tells, and stands for all slices of a candidate.
        if not (confidence.known and self.hiding and self.pooled):
            return lesions, seen.p
        p = self.p_beside.get(id(seen.case))
        if p is None:
            p = vertebra_probability(confidence, log_odds(seen.p), ())
        if p < confidence.gate_p:
            return [], p
        x, difference = seen.case.x[:, 0].numpy(), seen.healthy.difference
        profile = self.model.profile
        return with_probabilities(lesions, x, difference, seen.case.body, p, profile), p


@dataclass(frozen=True, eq=False)
class Maps:
    """Evidence of a lesion per voxel (S, P, I), one map per type; P(malignant) or NaN."""

    case: Case
    evidence: Mapping[LesionType, Field]
    p: float

    def on(self, case: Case) -> Maps:
        """Return the maps of what is analysed of a case, on all of it: nothing lies elsewhere."""
        if case.chosen is None:
            return self
        evidence: dict[LesionType, Field] = {}
        for kind, shown in self.evidence.items():
            evidence[kind] = np.zeros(case.body.shape, np.float32)
            evidence[kind][case.chosen] = shown
        return replace(self, case=case, evidence=evidence)


@dataclass(frozen=True)
class Level:
    """What is tuned of a method with maps, as ``training.evaluation.tune`` does for our own.

    ``variant`` is the map that is used, ``floor`` the evidence above which voxels are candidates,
    ``min_slices`` the fewest slices of a candidate.
    """

    variant: int
    floor: float
    min_slices: int = 1


MIN_PIXELS = 5
LEAST_SLICES = (1, MIN_SLICES[-1])


@dataclass(frozen=True, eq=False)
class ByMaps:
    """A method that draws maps: what exceeds a floor is a candidate, its mean evidence the score.

    Maps are drawn of the slices that the weights under test analyse: all methods see the same.
    ``draw`` gives one or more variants of its maps; validation chooses variant and floor per type.
    """

    name: str
    learnt_from: str
    draw: Callable[[BenchmarkCase], Sequence[Maps]]
    floors: Sequence[float]
    variants: int = 1
    fixed: Tuned | None = None

    @property
    def settings(self) -> Sequence[Level]:
        choices = product(range(self.variants), self.floors, LEAST_SLICES)
        return [Level(*choice) for choice in choices]

    def prepare(self, subject: BenchmarkCase) -> Sequence[Maps]:
        return [maps.on(subject.case) for maps in self.draw(subject.shown())]

    def detect(self, seen: Sequence[Maps], chosen: Chosen) -> tuple[list[Lesion3D], float]:
        parts = [
            part
            for kind in LESION_TYPES
            for part in parts_above(seen[chosen[kind].variant], kind, chosen[kind].floor)
        ]
        return joined(parts, chosen), seen[0].p


def joined(parts: Sequence[SliceCandidate], chosen: Mapping[LesionType, Level]) -> list[Lesion3D]:
    """Each type joined by its own least number of slices."""
    return [
        lesion
        for kind in LESION_TYPES
        for lesion in join_slices([p for p in parts if p.type == kind], chosen[kind].min_slices)
    ]


def parts_above(maps: Maps, kind: LesionType, floor: float) -> list[SliceCandidate]:
    """Components per slice of what exceeds the floor inside the body."""
    evidence = maps.evidence[kind]
    parts = []
    for index in range(len(evidence)):
        for mask in components((evidence[index] > floor) & maps.case.body[index]):
            parts.append(SliceCandidate(index, kind, mask, float(evidence[index][mask].mean())))
    return parts


def components(pixels: Mask) -> list[Mask]:
    """Return connected parts (P, I) of at least ``MIN_PIXELS``."""
    labels, count = ndimage.label(pixels)
    masks = [labels == i for i in range(1, count + 1)]
    return [mask for mask in masks if mask.sum() >= MIN_PIXELS]


def supervision(model: Model) -> str:
    """Return what the weights were trained with, by their provenance."""
    training = model.profile.provenance.get("training", {})
    twins = training.get("supervision") == "twins"
    return "vertebra labels and healthy twins" if twins else "vertebra labels"


def with_profile(model: Model, decision: Mapping[str, Any], schedule: Mapping[str, Any]) -> Model:
    """Return the same weights used otherwise."""
    profile = replace(
        model.profile,
        decision=replace(model.profile.decision, **decision),
        schedule=replace(model.profile.schedule, **schedule),
    )
    return replace(model, profile=profile)
