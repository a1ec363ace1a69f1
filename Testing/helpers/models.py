"""Networks for tests: tiny ones, and the published architecture filled by a formula.

The formula and the golden numbers made with it are described in ../shared/reference/README.md.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hideseekseg.model.autoencoder import DiffusionAutoencoder
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import Architecture, Decision, Profile, Schedule
from hideseekseg.model.weights import Model, load_model, save_model

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
CPU = torch.device("cpu")

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the golden values of ../shared/reference are not here"
)

TINY = Architecture(
    image_size=16,
    channels=8,
    decoder_mult=(1, 2),
    encoder_mult=(1, 2),
    residual_blocks=1,
    attention_levels=(1,),
    latent=8,
    embedding=16,
)
FAST = Schedule(
    edit="single-shot", projection="none", timesteps=100, invert_steps=5, render_steps=4, draws=2
)


def manifest() -> dict[str, list[int]]:
    """Names and shapes of the published autoencoder's tensors."""
    data: dict[str, list[int]] = json.loads((REFERENCE / "state_dict_manifest.json").read_text())
    return data


def golden(name: str) -> dict[str, Any]:
    with np.load(REFERENCE / f"{name}.npz") as file:
        return dict(file)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute with so many threads inside.

    Golden numbers were made with two, and another number sums in another order.  That alone moves
    x_T by 5e-5, which a rendering from it amplifies to 1e-3.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def filled(architecture: Architecture, seed: int = 1) -> DiffusionAutoencoder:
    """A network whose weights follow from their names and the seed."""
    with torch.device("meta"):
        network = DiffusionAutoencoder(architecture)
    values = {n: _values(n, tuple(t.shape), seed) for n, t in network.state_dict().items()}
    network.load_state_dict(values, assign=True)
    return network.eval().requires_grad_(False)


@lru_cache
def published_network() -> DiffusionAutoencoder:
    return filled(Architecture())


def tiny_images(count: int = 4, size: int = 16) -> torch.Tensor:
    """Smooth random images (N, 1, H, W) between 0 and 1."""
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(count))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def tiny_model(
    schedule: Schedule = FAST, decision: Decision | None = None, architecture: Architecture = TINY
) -> Model:
    """A model whose classifier spreads ``tiny_images`` over both sides of P = 0.5."""
    network = filled(architecture)
    z = network.encode(tiny_images(16, architecture.image_size)).double()
    generator = torch.Generator().manual_seed(5)
    classifier = LinearClassifier(
        coef=torch.randn(architecture.latent, generator=generator),
        intercept=0.3,
        mean=z.mean(0),
        scale=z.std(0),
    )
    profile = Profile(
        "tiny", architecture, schedule=schedule, decision=decision or Decision(healthy_p=0.01)
    )
    return Model(network, classifier, profile, CPU, hash="")


def _values(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    random = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    v = random.standard_normal(int(np.prod(shape))).reshape(shape)
    if len(shape) == 1:
        v = v * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    else:
        v = v / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(v.astype(np.float32))


def with_provenance(folder: Path, weights: Path, **provenance: object) -> Path:
    """The same weights with another provenance."""
    model = load_model(weights, "cpu")
    own = replace(model.profile, provenance=provenance)
    save_model(folder, model.autoencoder, model.classifier, own)
    return folder
