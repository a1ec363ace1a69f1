"""Class activation maps of the weights' own encoder and linear head.

Three come from torchcam (the optional group ``benchmark``), which has all but EigenCAM: Muhammad
and Yeasin, IJCNN 2020.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from ...attribution import encode
from ...findings import LesionType
from ...lesions import p_of_vertebra
from ...model.weights import Model
from ...simulation.random_fields import Field
from ..cases import BenchmarkCase
from .method import ByMaps, Maps, supervision

FROM_TORCHCAM = ("GradCAM", "GradCAM++", "LayerCAM")
NAMES = (*FROM_TORCHCAM, "EigenCAM")
FLOORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


class Logit(nn.Module):
    """The encoder with the classifier on its latents: x (N, 1, H, W) to a logit (N, 1)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model.autoencoder.encoder).cpu().float().requires_grad_(True)
        coef = (model.classifier.coef / model.classifier.scale).float()
        self.coef = nn.Parameter(coef)
        offset = model.classifier.intercept - float(coef.double() @ model.classifier.mean)
        self.intercept = nn.Parameter(torch.tensor(offset))

    def forward(self, x: Tensor) -> Tensor:
        return (self.encoder(x) @ self.coef + self.intercept)[:, None]


def cams(model: Model) -> list[ByMaps]:
    """Return the four methods; a variant per level of the encoder."""
    network = Logit(model).eval()
    levels = len(network.encoder.levels)
    return [
        ByMaps(name, supervision(model), partial(_draw, model, network, name), FLOORS, levels)
        for name in NAMES
    ]


def _draw(model: Model, network: Logit, name: str, subject: BenchmarkCase) -> Sequence[Maps]:
    """Split a map by type: lytic where darker than the body's median, blastic where denser.

    Each slice's map, which the library scales to 0..1, is weighted with the slice's P, so that a
    healthy slice does not speak as loud as an ill one; slices below the gate are silent.
    """
    case = subject.case
    p = encode(case.x, model).p.numpy()
    ill = np.flatnonzero(p >= model.profile.decision.gate_p)
    smooth = ndimage.gaussian_filter(subject.hu, (0, 1, 1))
    darker = smooth < np.median(smooth[case.body])
    variants = []
    drawn = activations(network, name, case.x[ill]) if len(ill) else []
    for level in network.encoder.levels:
        heat: Field = np.zeros(case.body.shape, np.float32)
        if len(ill):
            heat[ill] = drawn[level].numpy() * p[ill, None, None]
        evidence: dict[LesionType, Field] = {"lytic": heat * darker, "blastic": heat * ~darker}
        variants.append(Maps(case, evidence, p_of_vertebra(p)))
    return variants


def activations(network: Logit, name: str, x: Tensor) -> list[Tensor]:
    """Return maps (N, H, W), 0 to 1 per slice, of each level's last stage for x (N, 1, H, W)."""
    stages: list[nn.Module | str] = [network.encoder.last_stage(n) for n in network.encoder.levels]
    if name == "EigenCAM":
        with torch.inference_mode():
            coarse = [first_component(features) for features in network.encoder.features(x)[0]]
    else:
        from torchcam import methods

        extractor = getattr(methods, name.replace("++", "pp"))
        with extractor(network, stages) as extract:
            coarse = extract(class_idx=0, scores=network(x))
    return [_enlarged(one.detach(), x) for one in coarse]


def first_component(features: Tensor) -> Tensor:
    """Features (N, C, h, w) projected on their first principal direction, (N, h, w), 0 to 1.

    The sign, which the decomposition leaves open, is that of the strongest response.
    """
    flat = features.flatten(2).transpose(1, 2)
    left, values, _ = torch.linalg.svd(flat - flat.mean(dim=1, keepdim=True), full_matrices=False)
    component = left[..., 0] * values[:, :1]
    strongest = component.gather(1, component.abs().argmax(dim=1, keepdim=True))
    positive = torch.relu(component * strongest.sign())
    scaled = positive / positive.amax(dim=1, keepdim=True).clamp(min=1e-8)
    return scaled.unflatten(1, features.shape[-2:])


def _enlarged(maps: Tensor, x: Tensor) -> Tensor:
    size = tuple(x.shape[-2:])
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
