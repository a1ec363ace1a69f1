"""Probabilities from the networks' numbers, as a profile's ``Confidence`` says.

A vertebra is judged against the others of its patient: the reference is the median of the lower
half of their log odds, so that several diseased vertebrae do not move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .profile import Confidence

LEAST_OTHERS = 2  # vertebrae that make a patient's reference
LEAST_P = 1e-6


def log_odds(p: float, least: float = LEAST_P) -> float:
    """Return the logit of a probability, finite at 0 and 1."""
    p = min(max(p, least), 1 - least)
    return math.log(p / (1 - p))


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
    """Return the probability that a candidate is a lesion, from its ``lesions.FEATURES``.

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
