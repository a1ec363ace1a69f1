"""What weights are worth on simulated vertebrae: lesions found and missed, and false findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from ..attribution import Edit, Latents, edit, encode, hide_and_seek, propose
from ..findings import LesionType
from ..imaging.reading import InputError
from ..lesions import Joined, Part, join_slices, p_of_vertebra
from ..model.profile import Decision, Profile
from ..model.weights import Model
from ..simulation.random_fields import Mask
from .dataset import load_slices, make_batch
from .lesion_matching import match, true_lesions

TYPES: tuple[LesionType, LesionType] = ("lytic", "blastic")


@dataclass(frozen=True)
class Case:
    """One vertebra ready for the method: input x (S, 1, P, I), body and true lesions (S, P, I)."""

    x: torch.Tensor
    body: Mask
    truth: dict[LesionType, Mask]
    diseased: bool
    patient: str

    def lesions(self, kind: LesionType) -> list[Mask]:
        """The true lesions (S, P, I) of a type that are large enough to ask for."""
        return true_lesions(self.truth[kind])


@dataclass(frozen=True)
class Seen:
    """Steps 1 and 2 of a case, kept while thresholds are tried."""

    case: Case
    latents: Latents
    healthy: Edit


@dataclass(frozen=True)
class Found:
    """The outcome of one case: candidates joined in 3D, P(malignant) of the vertebra."""

    case: Case
    lesions: tuple[Joined, ...]
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
    """The vertebrae of a folder that ``simulate --whole`` wrote, as the pipeline would see them.

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
        x = make_batch(slices, rows, profile, None).x
        patient = str(slices.patient[rows[0]])
        cases.append(Case(x, slices.body[rows], truth, bool(slices.label[rows[0]]), patient))
    return cases


def see(case: Case, model: Model) -> Seen:
    latents = encode(case.x, model)
    return Seen(case, latents, edit(case.x, latents, model))


def find(seen: Seen, model: Model) -> Found:
    """Steps 3 and 4, and the join; ``model.profile.decision`` is what is being tried."""
    return join(seen, scored_parts(seen, model), model.profile.decision.min_slices)


def join(seen: Seen, parts: Sequence[Part], min_slices: int) -> Found:
    """The join alone."""
    lesions = join_slices(parts, min_slices)
    return Found(seen.case, tuple(lesions), p_of_vertebra(seen.latents.p.numpy()))


def scored_parts(seen: Seen, model: Model) -> list[Part]:
    """Steps 3 and 4: the candidates of all slices with their scores."""
    proposals = propose(seen.healthy, seen.case.body, model.profile.decision)
    scored = hide_and_seek(seen.latents, seen.healthy, proposals, model)
    return [Part(s.proposal.slice, s.proposal.type, s.proposal.mask, s.score) for s in scored]


def tally(found: Iterable[Found], kind: LesionType, threshold: float, least_iou: float) -> Tally:
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


def auc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative."""
    a, b = np.asarray(positive, float), np.asarray(negative, float)
    if len(a) == 0 or len(b) == 0:
        return float("nan")
    ranks = stats.rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) + 1) / 2) / (len(a) * len(b)))


def vertebra_auc(found: Sequence[Found]) -> float:
    """AUC of P(malignant) over vertebrae."""
    return auc([f.p for f in found if f.case.diseased], [f.p for f in found if not f.case.diseased])


def false_per_healthy(found: Sequence[Found], decision: Decision) -> float:
    """Accepted candidates per vertebra without a lesion."""
    healthy = [f for f in found if not f.case.diseased]
    count = sum(lesion.score > decision.threshold for f in healthy for lesion in f.lesions)
    return count / max(len(healthy), 1)
