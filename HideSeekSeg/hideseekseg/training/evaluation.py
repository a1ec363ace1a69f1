"""Accuracy of weights on simulated vertebrae: lesions found and missed, and false findings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..attribution import Edit, Latents, edit, encode, hide_and_seek, propose
from ..errors import InputError
from ..findings import LESION_TYPES, LesionType
from ..lesions import Lesion3D, SliceCandidate, join_slices, p_of_vertebra
from ..model.profile import Decision, Profile
from ..model.weights import Model
from ..simulation.random_fields import Mask
from .dataset import Batch, Slices, load_slices, make_batch
from .lesion_matching import auc, match, true_lesions
from .train import encode_all

Figures = dict[str, float | int | None]


def measure_weights(model: Model, cases: Sequence[Case]) -> Figures:
    """Plain figures of one set of weights on simulated cases, by name; None where undefined."""
    found = [detect(edit_case(case, model), model) for case in cases]
    decision = model.profile.decision
    figures: Figures = {
        "vertebrae": len(cases),
        "diseased": sum(case.diseased for case in cases),
        "patients": len({case.patient for case in cases}),
        "slice AUC": slice_auc(model, cases),
        "vertebra AUC": vertebra_auc(found),
        "false findings per healthy vertebra": false_per_healthy(found, decision),
    }
    for kind in LESION_TYPES:
        for least_iou in (0.1, 0.5):
            counts = tally(found, kind, decision.threshold, least_iou)
            figures[f"{kind} F1 (IoU >= {least_iou})"] = counts.f1
            if least_iou == 0.1:
                figures[f"{kind} precision"] = counts.precision
                figures[f"{kind} recall"] = counts.recall
                figures[f"{kind} Dice"] = counts.mean_dice
    return {name: _plain(value) for name, value in figures.items()}


def measure_labels(model: Model, slices: Slices) -> Figures:
    """How well P(malignant) agrees with the labels of vertebrae whose lesions are not known."""
    z = encode_all(model.autoencoder, slices, model.profile)
    p = model.classifier.probability(z).numpy()
    _, first, own = np.unique(slices.vertebra, return_index=True, return_inverse=True)
    ill = slices.label[first] == 1
    of_vertebra = np.array([p_of_vertebra(p[own == n]) for n in range(len(first))])
    figures: Figures = {
        "vertebrae": len(first),
        "diseased": int(ill.sum()),
        "patients": len(np.unique(slices.patient)),
        "vertebra AUC": auc(of_vertebra[ill], of_vertebra[~ill]),
    }
    return {name: _plain(value) for name, value in figures.items()}


def _plain(value: float | int | None) -> float | int | None:
    """Round; give None instead of NaN, which JSON does not know."""
    if value is None or isinstance(value, int):
        return value
    return None if math.isnan(value) else round(float(value), 3)


def format_figures(figures: Figures) -> str:
    """Two columns in Markdown."""
    rows = [f"| {name} | {'-' if value is None else value} |" for name, value in figures.items()]
    return "\n".join(["| what | value |", "|---|---|", *rows])


@dataclass(frozen=True)
class Case:
    """One vertebra ready for the method: input x (S, 1, P, I), body and true lesions (S, P, I).

    ``reference`` (S, 2) is the marrow of the patient's other vertebrae in units of x; ``group``
    names the vertebrae of one (simulated) patient, ``spacing`` is mm along (S, P, I).
    """

    x: torch.Tensor
    body: Mask
    truth: dict[LesionType, Mask]
    diseased: bool
    patient: str
    reference: torch.Tensor | None = None
    group: str = ""
    spacing: tuple[float, float, float] | None = None

    def lesions(self, kind: LesionType) -> list[Mask]:
        """Return the true lesions (S, P, I) of a type that are large enough to ask for."""
        return true_lesions(self.truth[kind])


@dataclass(frozen=True)
class Edited:
    """Steps 1 and 2 of a case, kept while thresholds are tried."""

    case: Case
    latents: Latents
    healthy: Edit


@dataclass(frozen=True)
class Detections:
    """The outcome of one case: candidates joined in 3D, P(malignant) of the vertebra."""

    case: Case
    lesions: tuple[Lesion3D, ...]
    p: float


@dataclass(frozen=True)
class Tally:
    """Counts of one lesion type over cases."""

    true_positives: int
    false_positives: int
    missed: int
    dice: tuple[float, ...]

    @property
    def f1(self) -> float:
        wrong = self.false_positives + self.missed
        return 2 * self.true_positives / max(2 * self.true_positives + wrong, 1)

    @property
    def precision(self) -> float:
        return self.true_positives / max(self.true_positives + self.false_positives, 1)

    @property
    def recall(self) -> float:
        return self.true_positives / max(self.true_positives + self.missed, 1)

    @property
    def mean_dice(self) -> float:
        return float(np.mean(self.dice)) if self.dice else float("nan")


def load_cases(folder: Path, profile: Profile, without: Sequence[str] = ()) -> list[Case]:
    """Read the vertebrae that ``simulate --whole`` wrote, as the pipeline would see them.

    Patients named by ``without`` are left out.  Raises InputError for slices of which only the
    labels are known.
    """
    slices = load_slices(folder, profile, without)
    if slices.label_only:
        raise InputError(folder, "holds slices of patients, whose lesions are not known")
    starts = np.flatnonzero(np.r_[True, slices.vertebra[1:] != slices.vertebra[:-1]])
    cases = []
    for rows in np.split(np.arange(len(slices)), starts[1:]):
        truth: dict[LesionType, Mask] = {
            "lytic": slices.lytic[rows],
            "blastic": slices.blastic[rows],
        }
        cases.append(case_of(slices, rows, truth, make_batch(slices, rows, profile, None)))
    return cases


def case_of(
    slices: Slices, rows: npt.NDArray[np.intp], truth: dict[LesionType, Mask], batch: Batch
) -> Case:
    """Return the case that the rows of one vertebra make."""
    first = rows[0]
    spacing = None
    if len(slices.spacing):
        s, p, i = (float(mm) for mm in slices.spacing[first])
        spacing = (s, p, i)
    group = str(slices.patient_group[first]) if len(slices.patient_group) else ""
    return Case(
        batch.x,
        slices.body[rows],
        truth,
        bool(slices.label[first]),
        str(slices.patient[first]),
        batch.reference,
        group,
        spacing,
    )


def edit_case(case: Case, model: Model) -> Edited:
    """Take steps 1 and 2: encode a case and edit its slices towards healthy."""
    latents = encode(case.x, model, reference=case.reference)
    return Edited(case, latents, edit(case.x, latents, model))


def detect(seen: Edited, model: Model) -> Detections:
    """Take steps 3 and 4, and join; ``model.profile.decision`` is what is being tried."""
    return join(seen, scored_parts(seen, model), model.profile.decision.min_slices)


def join(seen: Edited, parts: Sequence[SliceCandidate], min_slices: int) -> Detections:
    """Join alone."""
    lesions = join_slices(parts, min_slices)
    return Detections(seen.case, tuple(lesions), p_of_vertebra(seen.latents.p.numpy()))


def scored_parts(seen: Edited, model: Model) -> list[SliceCandidate]:
    """Take steps 3 and 4: return the candidates of all slices with their scores."""
    proposals = propose(seen.healthy, seen.case.body, model.profile.decision)
    return list(hide_and_seek(seen.latents, seen.healthy, proposals, model))


def tally(
    found: Iterable[Detections], kind: LesionType, threshold: float, least_iou: float
) -> Tally:
    """Match candidates above the threshold with true lesions of one type."""
    hits = false = missed = 0
    dice = []
    for one in found:
        own = [lesion for lesion in one.lesions if lesion.type == kind]
        matched = match(one.case.truth[kind], own)
        right = matched.found_at(least_iou) > threshold
        hits += int(right.sum())
        missed += int((~right).sum())
        false += int((matched.false_at(least_iou) > threshold).sum())
        if len(right):
            dice.append(matched.dice(threshold))
    return Tally(hits, false, missed, tuple(dice))


def slice_auc(model: Model, cases: Sequence[Case]) -> float:
    """AUC over slices: those that a lesion crosses against all slices of healthy vertebrae.

    NaN where there are none of either.
    """
    none = np.empty(0)
    ill, well = [none], [none]
    for case in cases:
        p = encode(case.x, model, reference=case.reference).p.numpy()
        crossed = np.any([case.truth[k].sum(axis=(1, 2)) >= 16 for k in LESION_TYPES], axis=0)
        (ill if case.diseased else well).append(p[crossed] if case.diseased else p)
    return auc(np.concatenate(ill), np.concatenate(well))


def vertebra_auc(found: Sequence[Detections]) -> float:
    """AUC of P(malignant) over vertebrae."""
    return auc([f.p for f in found if f.case.diseased], [f.p for f in found if not f.case.diseased])


def false_per_healthy(found: Sequence[Detections], decision: Decision) -> float:
    """Count accepted candidates per vertebra without a lesion."""
    healthy = [f for f in found if not f.case.diseased]
    count = sum(lesion.score > decision.threshold for f in healthy for lesion in f.lesions)
    return count / max(len(healthy), 1)
