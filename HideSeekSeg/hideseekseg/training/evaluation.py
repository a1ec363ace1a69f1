"""Accuracy of weights on simulated vertebrae, and the thresholds chosen by it.

The one matching rule of tuning and benchmarks: a true lesion is found where a candidate of its type
overlaps it in 3D with an intersection over union (IoU) of at least a given value; a candidate that
so overlaps no true lesion is false.  ``tune`` chooses gate, floors, least slices and score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage, stats

from ..attribution import Edit, Latents, edit, encode, hide_and_seek, propose
from ..errors import InputError
from ..findings import LESION_TYPES, LesionType
from ..lesions import Lesion3D, SliceCandidate, lesions_of, p_of_vertebra
from ..model.profile import Decision, Profile
from ..model.weights import Model
from ..simulation.random_fields import Mask
from .dataset import Batch, Bools, Slices, encode_all, load_whole, make_batch, require_whole

Floats = npt.NDArray[np.float64]

LEAST_IOU = 0.1  # from here on a lesion counts as found
LEAST_TRUE_VOXELS = 24
RULE = (
    f"A true lesion (at least {LEAST_TRUE_VOXELS} voxels of one type, joined by their faces) is"
    " found if an accepted candidate of its type overlaps it in 3D with at least the stated IoU;"
    " an accepted candidate that so overlaps no true lesion of its type is a false finding."
)


class ScoredRegion(Protocol):
    """What can be matched, such as a ``Lesion3D``: voxels and a score."""

    @property
    def score(self) -> float: ...

    def mask(self, shape: tuple[int, int, int]) -> Mask: ...


@dataclass(frozen=True, eq=False)
class Match:
    """The candidates of one type against the true lesions of one vertebra, for any threshold.

    ``scores`` (C,) and ``iou`` (T, C) belong to C candidates and T true lesions.  ``inside`` and
    ``outside`` hold, for each voxel in and beside the ``truth`` voxels that candidates claim, the
    highest score of those that do.
    """

    scores: Floats
    iou: Floats
    inside: Floats
    outside: Floats
    truth: int

    def found_at(self, least_iou: float) -> Floats:
        """Per true lesion the highest score of a candidate that finds it, -inf where none does."""
        scores = np.where(self.iou >= least_iou, self.scores, -np.inf)
        return np.asarray(scores.max(axis=1, initial=-np.inf))

    def false_at(self, least_iou: float) -> Floats:
        """Scores of the false candidates."""
        return self.scores[~(self.iou >= least_iou).any(axis=0)]

    def lowered(self, threshold: float) -> Match:
        """Return the same with scores told as what they exceed a threshold by."""
        scores, inside, outside = (
            values - threshold for values in (self.scores, self.inside, self.outside)
        )
        return Match(scores, self.iou, inside, outside, self.truth)

    def dice(self, threshold: float) -> float:
        """Overlap of truth and all candidates above the threshold; NaN without a true lesion."""
        if len(self.iou) == 0:
            return float("nan")
        right = int((self.inside > threshold).sum())
        return 2 * right / (self.truth + right + int((self.outside > threshold).sum()))


def true_lesions(truth: Mask) -> list[Mask]:
    """Return the lesions (S, P, I) of one type that are large enough to ask for."""
    if not truth.any():  # as in most vertebrae: tuning asks for them thousands of times
        return []
    labels, count = ndimage.label(truth)
    parts = [labels == i for i in range(1, count + 1)]
    return [part for part in parts if part.sum() >= LEAST_TRUE_VOXELS]


def match(truth: Mask, lesions: Sequence[ScoredRegion]) -> Match:
    """Compare candidates of one type with the true voxels (S, P, I) of that type."""
    true = true_lesions(truth)
    shape = (truth.shape[0], truth.shape[1], truth.shape[2])
    claimed = np.full(shape, -np.inf)
    iou = np.zeros((len(true), len(lesions)))
    for c, lesion in enumerate(lesions):
        mask = lesion.mask(shape)
        claimed[mask] = np.maximum(claimed[mask], lesion.score)
        size = int(mask.sum())
        for t, part in enumerate(true):
            shared = int(part[mask].sum())
            iou[t, c] = shared / (int(part.sum()) + size - shared)
    scores = np.array([lesion.score for lesion in lesions], float)
    touched = np.isfinite(claimed)
    inside, outside = claimed[touched & truth], claimed[touched & ~truth]
    return Match(scores, iou, inside, outside, int(truth.sum()))


def auc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative."""
    a, b = np.asarray(positive, float), np.asarray(negative, float)
    if len(a) == 0 or len(b) == 0:
        return float("nan")
    ranks = stats.rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


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
    """One whole vertebra ready for the method: x (S, 1, P, I), body and true lesions (S, P, I).

    ``reference`` (S, 2) is the marrow of the patient's other vertebrae in units of x; ``group``
    names the vertebrae of one (simulated) patient, ``spacing`` is mm along (S, P, I).  ``chosen``
    are the numbers of the slices that ``segment`` would analyse with these weights, None for all.
    """

    x: torch.Tensor
    body: Mask
    truth: dict[LesionType, Mask]
    diseased: bool
    patient: str
    reference: torch.Tensor | None = None
    group: str = ""
    spacing: tuple[float, float, float] | None = None
    chosen: npt.NDArray[np.intp] | None = None

    @property
    def analysed(self) -> npt.NDArray[np.intp]:
        """Return the numbers of the slices to analyse."""
        return np.arange(len(self.x)) if self.chosen is None else self.chosen

    def shown(self) -> Case:
        """Return what is analysed of it alone."""
        if self.chosen is None:
            return self
        rows = self.chosen
        return replace(
            self,
            x=self.x[torch.from_numpy(rows)],
            body=self.body[rows],
            truth={kind: mask[rows] for kind, mask in self.truth.items()},
            reference=self.reference_of(rows),
            chosen=None,
        )

    def reference_of(
        self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | Sequence[int]
    ) -> torch.Tensor | None:
        """Return ``reference`` for some of the slices, each perhaps several times."""
        return None if self.reference is None else self.reference[torch.as_tensor(rows)]

    def lesions(self, kind: LesionType) -> list[Mask]:
        """Return the true lesions (S, P, I) of a type that are large enough to ask for."""
        return true_lesions(self.truth[kind])


@dataclass(frozen=True)
class Edited:
    """Steps 1 and 2 of a case, kept while thresholds are tried.

    Both have all slices of the vertebra; what they have where it is not analysed, say
    ``encode_case`` and ``edit_encoded``.
    """

    case: Case
    latents: Latents
    healthy: Edit

    @property
    def p(self) -> float:
        """P(malignant) of the vertebra."""
        return p_of_case(self.case, self.latents)


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
    labels are known, and for vertebrae of which slices are missing.
    """
    slices, learned = load_whole(folder, profile, without)
    if slices.label_only:
        raise InputError(folder, "contains slices of patients, whose lesions are not known")
    require_whole(folder)
    starts = np.flatnonzero(np.r_[True, slices.vertebra[1:] != slices.vertebra[:-1]])
    cases = []
    for rows in np.split(np.arange(len(slices)), starts[1:]):
        truth: dict[LesionType, Mask] = {
            "lytic": slices.lytic[rows],
            "blastic": slices.blastic[rows],
        }
        batch = make_batch(slices, rows, profile, None)
        cases.append(case_of(slices, rows, truth, batch, learned[rows]))
    return cases


def case_of(
    slices: Slices,
    rows: npt.NDArray[np.intp],
    truth: dict[LesionType, Mask],
    batch: Batch,
    learned: Bools | None = None,
) -> Case:
    """Return the case that the rows of one vertebra make.

    ``learned`` tells for each whether it is to be analysed; None: all are.
    """
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
        None if learned is None or learned.all() else np.flatnonzero(learned),
    )


def edit_case(case: Case, model: Model) -> Edited:
    """Take steps 1 and 2: encode a case and edit its slices towards healthy."""
    latents = encode_case(case, model)
    return Edited(case, latents, edit_encoded(case, latents, model))


def encode_case(case: Case, model: Model) -> Latents:
    """Take step 1 on the slices to analyse; of all others z and P are NaN."""
    shown = case.shown()
    own = encode(shown.x, model, reference=shown.reference)
    if case.chosen is None:
        return own
    rows, count = torch.from_numpy(case.chosen), len(case.x)
    z = torch.full((count, own.z.shape[1]), torch.nan).index_copy(0, rows, own.z)
    p = torch.full((count,), torch.nan, dtype=own.p.dtype).index_copy(0, rows, own.p)
    known = case.reference
    reference = torch.full((count, 2), torch.nan) if known is None else known
    return Latents(z, p, reference)


def edit_encoded(case: Case, latents: Latents, model: Model) -> Edit:
    """Take step 2 on the slices to analyse; all others have their image as edit."""
    if case.chosen is None:
        return edit(case.x, latents, model)
    rows = torch.from_numpy(case.chosen)
    # Alone, as `segment` does: the noise of a slice depends on its number among them.
    own = edit(case.x[rows], _latents_at(latents, rows), model)
    return Edit(
        case.x.index_copy(0, rows, own.reconstruction),
        case.x.index_copy(0, rows, own.edited),
        latents.p.index_copy(0, rows, own.p_after),
    )


def _latents_at(latents: Latents, rows: torch.Tensor) -> Latents:
    return Latents(latents.z[rows], latents.p[rows], latents.reference[rows])


def analysed_latents(case: Case, latents: Latents) -> Latents:
    """Return the latents of the slices that are analysed."""
    return latents if case.chosen is None else _latents_at(latents, torch.from_numpy(case.chosen))


def p_of_case(case: Case, latents: Latents) -> float:
    """P(malignant) of a vertebra, from the slices that are analysed."""
    return p_of_vertebra(analysed_latents(case, latents).p.numpy())


def detect(seen: Edited, model: Model) -> Detections:
    """Take steps 3 and 4, and join; ``model.profile.decision`` is what is being tried."""
    return join(seen, scored_parts(seen, model), model.profile.decision)


def join(seen: Edited, parts: Sequence[SliceCandidate], decision: Decision) -> Detections:
    """Join and outline alone."""
    lesions = lesions_of(parts, seen.healthy.difference, decision)
    return Detections(seen.case, tuple(lesions), seen.p)


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

    Of those that are analysed; NaN where there are none of either.
    """
    none = np.empty(0)
    ill, well = [none], [none]
    for case in cases:
        case = case.shown()
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


FLOORS = (0.04, 0.06, 0.09, 0.13, 0.18, 0.25)
THRESHOLDS = tuple(np.round(np.arange(0.05, 0.96, 0.05), 2).tolist())
MIN_SLICES = (2, 3)
# Shares of lesion-bearing slices that the gate may lose.
LOST_BY_GATE = (0.08, 0.16)
# What a false finding of a type in every healthy vertebra takes from the mean of F1 and Dice: a
# reader has to reject each of them, and most vertebrae are healthy.
FALSE_COST = 0.5

Scored = Sequence[Sequence[SliceCandidate]]  # the candidates of each case


def worth(f1: float, dice: float, false_per_healthy: float) -> float:
    """Return what thresholds are chosen by, per type."""
    return (f1 + dice) / 2 - FALSE_COST * false_per_healthy


def tune(
    model: Model, cases: Sequence[Case], progress: Callable[[int, int], None] = lambda a, b: None
) -> Decision:
    """Return the gate, floors, least slices and threshold of the highest mean worth of both types.

    For each gate and least number of slices the best floor of either type; then the score's
    threshold, which costs nothing to move.  Everything else stays as the profile has it.
    """
    open_model = _with(model, replace(model.profile.decision, gate_p=0.0))
    seen = [edit_case(case, open_model) for case in cases]
    trials: list[tuple[float, Decision]] = []
    total = len(LOST_BY_GATE) * (len(FLOORS) + 1)
    for number, lost in enumerate(LOST_BY_GATE):
        gate = choose_gate(seen, lost)
        gated = [close_gate(one, gate) for one in seen]
        start = replace(model.profile.decision, gate_p=gate)
        scored: dict[float, Scored] = {}
        for floor in FLOORS:
            decision = replace(start, lytic_floor=floor, blastic_floor=floor)
            scored[floor] = [scored_parts(one, _with(model, decision)) for one in gated]
            progress(number * (len(FLOORS) + 1) + len(scored), total)
        for min_slices in MIN_SLICES:
            tried = replace(start, min_slices=min_slices)
            lytic, blastic = (_best_floor(gated, scored, kind, tried) for kind in LESION_TYPES)
            decision = replace(tried, lytic_floor=lytic, blastic_floor=blastic)
            parts = scored[lytic]
            if lytic != blastic:
                parts = [scored_parts(one, _with(model, decision)) for one in gated]
            trials.append(_best_threshold(gated, parts, decision))
        progress((number + 1) * (len(FLOORS) + 1), total)
    return max(trials, key=lambda trial: trial[0])[1]


def _best_floor(
    seen: Sequence[Edited], scored: dict[float, Scored], kind: LesionType, decision: Decision
) -> float:
    """Return the floor that serves a type best, each with the threshold that suits it."""
    values = {}
    for floor, parts in scored.items():
        found = [join(one, own, decision) for one, own in zip(seen, parts)]
        values[floor] = max(_worth(found, kind, threshold) for threshold in THRESHOLDS)
    return max(values, key=lambda floor: values[floor])


def _best_threshold(
    seen: Sequence[Edited], parts: Scored, decision: Decision
) -> tuple[float, Decision]:
    found = [join(one, own, decision) for one, own in zip(seen, parts)]
    values = [
        sum(_worth(found, kind, threshold) for kind in LESION_TYPES) for threshold in THRESHOLDS
    ]
    best = int(np.argmax(values))
    return values[best], replace(decision, threshold=THRESHOLDS[best])


def close_gate(seen: Edited, gate: float) -> Edited:
    """Return the same case as if slices below the gate had not been edited."""
    ill = (seen.latents.p >= gate)[:, None, None, None]
    healthy = replace(
        seen.healthy, edited=torch.where(ill, seen.healthy.edited, seen.healthy.reconstruction)
    )
    return replace(seen, healthy=healthy)


def choose_gate(seen: Sequence[Edited], lost: float) -> float:
    """Return the P(malignant) that all but a share of the slices with a lesion exceed."""
    ill = []
    for one in seen:
        p, truth = analysed_latents(one.case, one.latents).p.numpy(), one.case.shown().truth
        crossed = np.any([truth[k].sum(axis=(1, 2)) >= 16 for k in LESION_TYPES], axis=0)
        ill.append(p[crossed])
    return float(np.quantile(np.concatenate(ill), lost))


def _with(model: Model, decision: Decision) -> Model:
    return replace(model, profile=replace(model.profile, decision=decision))


def _worth(found: Sequence[Detections], kind: LesionType, threshold: float) -> float:
    counts = tally(found, kind, threshold, LEAST_IOU)
    healthy = [one for one in found if not one.case.diseased]
    false = tally(healthy, kind, threshold, LEAST_IOU).false_positives / max(len(healthy), 1)
    return worth(counts.f1, counts.mean_dice, false)
