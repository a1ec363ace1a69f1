"""Probabilities: of a vertebra beside the patient's others, of a candidate, and their stability.

Only for weights whose profile has a ``Confidence``, or whose encoder sees a patient's context.  A
vertebra is judged against the others of its patient: the reference is the median of the lower half
of their log odds, so that several diseased vertebrae do not move it.
Arrays of a vertebra are (S, P, I) as in ``anatomy.crop``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from .anatomy.crop import Mask
from .attribution import Latents, changed_pixels, edit, encode
from .findings import UNLIKE_TRAINING, Candidate, unstable
from .lesions import Lesion3D, candidate_features, log_odds, p_of_vertebra
from .model.inference import BATCH
from .model.profile import Confidence, Intensity, Profile
from .model.weights import Model

LEAST_OTHERS = 2  # vertebrae that make a patient's reference


def reference_logit(others: Sequence[float], usual: float) -> float:
    """Return the log odds that are usual in a patient, from those of the other vertebrae.

    ``usual`` where these are too few.
    """
    if len(others) < LEAST_OTHERS:
        return usual
    lower = np.sort(np.asarray(others, float))[: (len(others) + 1) // 2]
    return float(np.median(lower))


def vertebra_probability(confidence: Confidence, logit: float, others: Sequence[float]) -> float:
    """Return P(malignant) of a vertebra, given the log odds of the patient's ``others``.

    Where all are diseased none exceeds the reference: what the vertebra alone says then still
    counts, up to even odds.
    """
    usual = confidence.usual_logit
    beside = sigmoid(_linear(confidence, logit, reference_logit(others, usual)))
    alone = sigmoid(_linear(confidence, logit, usual))
    return max(beside, min(alone, 0.5))


def _linear(confidence: Confidence, logit: float, reference: float) -> float:
    intercept, slope, excess = confidence.vertebra
    return intercept + slope * logit + excess * (logit - reference)


def candidate_probability(coefficients: Sequence[float], features: Sequence[float]) -> float:
    """Return the probability that a candidate is a lesion, from its ``model.profile.FEATURES``.

    0 without coefficients: of its type none was ever found to be true.
    """
    if not coefficients:
        return 0.0
    intercept, *slopes = coefficients
    return sigmoid(intercept + sum(s * f for s, f in zip(slopes, features)))


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)), whatever the size of the value."""
    e = math.exp(-min(abs(value), 700.0))
    return 1 / (1 + e) if value >= 0 else e / (1 + e)


Floats = npt.NDArray[np.float32]

INNER = np.ones((1, 5, 5))  # marrow lies at least two pixels from the body's outline
FOUND_AGAIN = 0.5  # share of a candidate's voxels that must change again
LOOKED_AT = 5  # slices of a candidate: looking again at all of them would cost as much as a spine


@dataclass(frozen=True)
class VertebraInput:
    """One vertebra for the network: x (S, 1, P, I) of all slices of the crop, HU and body.

    ``slices`` are the numbers of those to analyse.
    """

    x: Tensor
    hounsfield: Floats
    body: Mask
    slices: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Encoded:
    """A vertebra's latents, its P(malignant), and its distance from training (None: not known).

    ``calibrated``: P comes from the profile's ``Confidence``, not from the classifier alone.
    """

    latents: Latents
    p: float
    distance: float | None
    calibrated: bool


def sees_patient(profile: Profile) -> bool:
    """Return whether these weights judge a vertebra beside the patient's others."""
    return profile.architecture.context or profile.confidence.known


def marrow(hounsfield: npt.NDArray[Any], body: Mask) -> tuple[float, float]:
    """Return median and robust deviation (HU) of a body's inside; NaN where it has none."""
    inside = hounsfield[ndimage.binary_erosion(body, INNER)]
    if inside.size == 0:
        return np.nan, np.nan
    middle = float(np.median(inside))
    return middle, 1.4826 * float(np.median(np.abs(inside - middle)))


def reference_of(others: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the marrow that stands for a patient: medians of the others', NaN if too few."""
    known = [one for one in others if np.isfinite(one).all()]
    if len(known) < LEAST_OTHERS:
        return np.nan, np.nan
    middle, spread = np.median(np.asarray(known, float), axis=0)
    return float(middle), float(spread)


def relative_reference(reference: Tensor, scaling: Intensity) -> Tensor:
    """Return a patient's marrow, HU (N, 2: median, deviation), in units of x."""
    middle, spread = reference[:, 0], reference[:, 1]
    x, upper, lower = (
        compressed_tensor(hu, scaling) for hu in (middle, middle + spread, middle - spread)
    )
    return torch.stack([x, (upper - lower) / 2], dim=1)


def compressed_tensor(hounsfield: Tensor, scaling: Intensity) -> Tensor:
    """As ``anatomy.intensity.compressed``, for tensors."""
    x = (
        torch.asinh((hounsfield - scaling.centre) / scaling.width) - scaling.offset
    ) / scaling.scale
    return x.clamp(-1.0, 1.0)


def encode_patient(
    vertebrae: Mapping[str, VertebraInput],
    encode_each: Callable[[Mapping[str, tuple[Tensor, Tensor]]], Iterable[Latents]],
    profile: Profile,
) -> dict[str, Encoded]:
    """Encode all vertebrae of a patient, each beside the others.

    ``encode_each`` runs step 1 of the method: for each level x (N, 1, P, I) of the slices to
    analyse and reference (N, 2); it returns one ``Latents`` for each, in their order.
    """
    own = {
        level: marrow(v.hounsfield[v.slices], v.body[v.slices]) for level, v in vertebrae.items()
    }
    shown = {}
    for level, vertebra in vertebrae.items():
        others = [own[other] for other in vertebrae if other != level]
        hounsfield = torch.tensor([reference_of(others)], dtype=torch.float32)
        reference = relative_reference(hounsfield, profile.intensity)
        x = vertebra.x[torch.from_numpy(vertebra.slices)]
        shown[level] = x, reference.expand(len(x), 2)
    latents = dict(zip(shown, encode_each(shown), strict=True))
    p = {level: p_of_vertebra(one.p.numpy()) for level, one in latents.items()}
    confidence = profile.confidence
    if confidence.known:
        logits = {level: log_odds(value) for level, value in p.items()}
        p = {
            level: vertebra_probability(
                confidence, logits[level], [logits[other] for other in logits if other != level]
            )
            for level in logits
        }
    limit = confidence.distance_limit
    return {
        level: Encoded(one, p[level], latent_size(one) / limit if limit else None, confidence.known)
        for level, one in latents.items()
    }


def doubts(
    distance: float | None, candidates: Sequence[Candidate], confidence: Confidence
) -> tuple[str, ...]:
    """Return the flags of a vertebra that is far from training, and of findings without a hold."""
    far = (UNLIKE_TRAINING,) if distance is not None and distance > 1 else ()
    least = confidence.least_stability
    weak = [c for c in candidates if c.stability is not None and c.stability < least]
    return (*far, *(unstable(c.id) for c in weak))


def latent_size(latents: Latents) -> float:
    """Return the root mean square of a vertebra's mean latent, whose numbers are standardised."""
    return float(latents.z.float().mean(0).square().mean().sqrt())


def with_probabilities(
    lesions: Sequence[Lesion3D],
    x: Floats,
    difference: Floats,
    body: Mask,
    p: float,
    profile: Profile,
) -> list[Lesion3D]:
    """Return the candidates of a vertebra with their probabilities, most probable first.

    ``x`` and ``difference`` hold all slices of the crop; ``p`` is the vertebra's P(malignant).
    """
    judged = []
    for lesion in lesions:
        features = candidate_features(lesion, x, difference, body, log_odds(p))
        confidence = profile.confidence
        slopes = confidence.lytic if lesion.type == "lytic" else confidence.blastic
        probability = candidate_probability(slopes, features)
        judged.append(replace(lesion, probability=probability))
    return sorted(judged, key=lambda lesion: -lesion.score)


def with_stability(
    lesions: Sequence[Lesion3D],
    x: Tensor,
    body: Mask,
    reference: Tensor,
    model: Model,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[Lesion3D]:
    """Return the candidates with the share of small changes under which each is found again.

    The slices on which a candidate stands, ``LOOKED_AT`` of them where there are more, are
    mirrored, shifted by a pixel either way, and softened with their neighbours; a candidate is
    found again where half of its voxels on these stand out once more.
    x (S, 1, P, I) and ``body`` hold all slices of the crop.
    """
    looked_at = [_spread(lesion.slices) for lesion in lesions]
    slices = sorted({n for some in looked_at for n in some})
    if not slices:
        return list(lesions)
    changes = _small_changes(x, slices)
    found = np.zeros((len(changes), *body.shape), bool), np.zeros((len(changes), *body.shape), bool)
    for number, (changed, back) in enumerate(changes):
        latents = encode(changed, model, BATCH, on_progress, reference.expand(len(slices), 2))
        difference = edit(changed, latents, model, BATCH, on_progress).difference
        for one, own in zip(slices, back(difference)):
            pixels = changed_pixels(own, body[one], model.profile.decision)
            found[0][number, one], found[1][number, one] = pixels["lytic"], pixels["blastic"]
    shape = (body.shape[0], body.shape[1], body.shape[2])
    stable = []
    for lesion, some in zip(lesions, looked_at):
        again = found[0] if lesion.type == "lytic" else found[1]
        shares = again[:, some][:, lesion.whole(shape)[some]].mean(axis=1)
        stable.append(replace(lesion, stability=float((shares >= FOUND_AGAIN).mean())))
    return stable


def _spread(slices: Sequence[int]) -> list[int]:
    """Return ``LOOKED_AT`` slices from the first to the last, all where there are no more."""
    count = min(len(slices), LOOKED_AT)
    return [slices[round(at)] for at in np.linspace(0, len(slices) - 1, count)]


def _small_changes(
    x: Tensor, slices: Sequence[int]
) -> list[tuple[Tensor, Callable[[Floats], Floats]]]:
    """Return slices (N, 1, P, I) changed in a small way, and what takes a difference back."""
    plain = x[list(slices)]
    before = x[[max(n - 1, 0) for n in slices]]
    after = x[[min(n + 1, len(x) - 1) for n in slices]]
    return [
        (plain.flip(-1), lambda d: d[..., ::-1].copy()),
        (plain.roll(1, -1), lambda d: np.roll(d, -1, -1)),
        (plain.roll(1, -2), lambda d: np.roll(d, -1, -2)),
        ((before + 2 * plain + after) / 4, lambda d: d),
    ]
