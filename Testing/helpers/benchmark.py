"""Vertebrae for tests of the benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from helpers.models import filled
from helpers.vertebrae import TOY, toy_slices
from hideseekseg.benchmark.cases import BenchmarkCase, subjects_of
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import Profile
from hideseekseg.model.weights import save_model
from hideseekseg.training.dataset import load_slices, make_batch
from hideseekseg.training.train import COMPACT

SMALL = replace(
    COMPACT,
    name="useless",
    architecture=replace(COMPACT.architecture, channels=8, latent=16, embedding=16),
    geometry=replace(COMPACT.geometry, slice_mm=8.0),
    decision=replace(COMPACT.decision, candidate_quantile=0.9, lytic_floor=0.0, blastic_floor=0.0),
)


def toys(count: int) -> list[BenchmarkCase]:
    slices = toy_slices(count)
    return subjects_of(slices, {str(name): str(name) for name in slices.vertebra}, TOY)


def save_useless(
    folder: Path, cases: Path, patients: tuple[str, ...] = (), profile: Profile = SMALL
) -> None:
    """Untrained weights that score the crops of ``cases`` apart, and name whom they have seen."""
    network = filled(profile.architecture)
    slices = load_slices(cases, profile)
    z = network.encode(make_batch(slices, np.arange(len(slices)), profile, None).x).double()
    generator = torch.Generator().manual_seed(5)
    coef = torch.randn(z.shape[1], generator=generator)
    classifier = LinearClassifier(coef, 0.3, z.mean(0), z.std(0).clamp(min=1e-3))
    stored = replace(profile, provenance={"patients": [*patients]})
    save_model(folder, network, classifier, stored)
