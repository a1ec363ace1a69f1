"""Baselines that need no training of their own: Otsu's thresholds, activation maps, differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from ...attribution import encode, score
from ...findings import LESION_TYPES, LesionType
from ...lesions import Lesion3D, SliceCandidate, p_of_vertebra
from ...model.autoencoder import DiffusionAutoencoder
from ...model.inference import seeded_noises
from ...model.profile import Architecture, Profile
from ...model.sampling import noised, predict_x0
from ...model.weights import Model
from ...simulation.random_fields import Field, Mask
from ...training.dataset import Slices, make_batch
from ...training.evaluation import Case, edit_case, encode_case
from ...training.losses import draw_times
from ...training.trainer import (
    SINGLE,
    Losses,
    ProcessGroup,
    TrainingProgress,
    TrainingStage,
    run_stage,
)
from ..cases import BenchmarkCase
from .method import ByMaps, Chosen, Level, Maps, Tuned, joined, parts_above, supervision

SMOOTHING = 1.0  # pixels: noise is not a lesion
MARGINS = (1, 3)  # pixels of the body's rim left out: cortex and endplates are dense
CONTRASTS_HU = (0.0, 60.0, 120.0, 240.0)


def otsu() -> ByMaps:
    """Return the method of Otsu's thresholds in the body."""
    return ByMaps("Otsu in the body", "nothing", draw, CONTRASTS_HU, len(MARGINS))


def draw(subject: BenchmarkCase) -> list[Maps]:
    """Evidence: HU below (lytic) or above (blastic) the body's median, in Otsu's outer classes.

    Three classes, so that the marrow between both kinds of lesion is neither.  One variant per
    margin.  There is no P(malignant).
    """
    smooth = ndimage.gaussian_filter(subject.hu, (0, SMOOTHING, SMOOTHING))
    return [_maps(subject.case, smooth, margin) for margin in MARGINS]


def _maps(case: Case, hu: Field, margin: int) -> Maps:
    from skimage.filters import threshold_multiotsu

    inside = ndimage.binary_erosion(case.body, np.ones((1, 3, 3), bool), margin)
    values = hu[inside]
    none: Field = np.zeros(case.body.shape, np.float32)
    if len(np.unique(values)) < 3:
        return Maps(case, dict.fromkeys(LESION_TYPES, none), float("nan"))
    low, high = threshold_multiotsu(values, classes=3)
    contrast = np.asarray(hu - np.median(values), np.float32)
    evidence: dict[LesionType, Field] = {
        "lytic": np.where(inside & (hu < low), -contrast, none),
        "blastic": np.where(inside & (hu > high), contrast, none),
    }
    return Maps(case, evidence, float("nan"))


@dataclass(frozen=True, eq=False)
class OtsuHiding:
    """Otsu's candidates with hide and seek, what is hidden filled with the median: no diffusion.

    The fill is the median of what no candidate covers in the slice's body.  Classifier, gate and
    score are those of the weights.
    """

    model: Model
    name: str = "Otsu candidates, hide and seek, median fill"
    fixed: Tuned | None = None

    @property
    def learnt_from(self) -> str:
        return supervision(self.model)

    @property
    def settings(self) -> Sequence[Level]:
        return otsu().settings

    def prepare(self, subject: BenchmarkCase) -> tuple[Sequence[Maps], npt.NDArray[np.float64]]:
        maps = [one.on(subject.case) for one in draw(subject.shown())]
        return maps, encode_case(subject.case, self.model).p.numpy()

    def detect(
        self, seen: tuple[Sequence[Maps], npt.NDArray[np.float64]], chosen: Chosen
    ) -> tuple[list[Lesion3D], float]:
        maps, p = seen
        case = maps[0].case
        gate = self.model.profile.decision.gate_p
        parts = [
            part
            for kind in LESION_TYPES
            for part in parts_above(maps[chosen[kind].variant], kind, chosen[kind].floor)
            if p[part.slice] >= gate
        ]
        return joined(self._scored(case, parts, p), chosen), p_of_vertebra(p[case.analysed])

    def _scored(
        self, case: Case, parts: Sequence[SliceCandidate], p: npt.NDArray[np.float64]
    ) -> list[SliceCandidate]:
        """All candidates of a vertebra, each alone left to see, and each slice with none."""
        if not parts:
            return []
        changed = _changed(case.body.shape, parts)
        slices = sorted({part.slice for part in parts})
        none = np.zeros(case.body.shape[1:], bool)
        shown = [(part.slice, part.mask) for part in parts] + [(index, none) for index in slices]
        images = [_filled(case, index, changed[index], keep) for index, keep in shown]
        reference = case.reference_of([index for index, _ in shown])
        revealed = encode(torch.stack(images), self.model, reference=reference).p.numpy()
        hidden: Mapping[int, float] = dict(zip(slices, revealed[len(parts) :].tolist()))
        least = self.model.profile.decision.least_span
        return [
            SliceCandidate(
                *(part.slice, part.type, part.mask),
                score(float(own), float(p[part.slice]), hidden[part.slice], least),
            )
            for part, own in zip(parts, revealed)
        ]


def _changed(shape: tuple[int, ...], parts: Sequence[SliceCandidate]) -> Mask:
    changed = np.zeros(shape, bool)
    for part in parts:
        changed[part.slice] |= part.mask
    return changed


def _filled(case: Case, index: int, changed: Mask, keep: Mask) -> torch.Tensor:
    """Return a slice (1, P, I) with the median in all candidates but those to keep."""
    x = case.x[index]
    rest = torch.from_numpy(case.body[index] & ~changed)
    fill = x[0][rest].median() if rest.any() else x[0].median()
    return torch.where(torch.from_numpy(changed & ~keep), fill, x)


FROM_TORCHCAM = ("GradCAM", "GradCAM++", "LayerCAM")
NAMES = (*FROM_TORCHCAM, "EigenCAM")
ACTIVATION_FLOORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


class Logit(nn.Module):
    """The encoder with the classifier on its latents: x (N, 1, H, W) to a logit (N, 1).

    ``reference`` (N, 2) as of ``encode``.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model.autoencoder.encoder).cpu().float().requires_grad_(True)
        coef = (model.classifier.coef / model.classifier.scale).float()
        self.coef = nn.Parameter(coef)
        offset = model.classifier.intercept - float(coef.double() @ model.classifier.mean)
        self.intercept = nn.Parameter(torch.tensor(offset))

    def forward(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        return (self.encoder(x, reference)[0] @ self.coef + self.intercept)[:, None]


def cams(model: Model) -> list[ByMaps]:
    """Return the four methods; a variant per level of the encoder."""
    network = Logit(model).eval()
    levels = len(network.encoder.levels)
    return [
        ByMaps(
            name,
            supervision(model),
            partial(_draw, model, network, name),
            ACTIVATION_FLOORS,
            levels,
        )
        for name in NAMES
    ]


def _draw(model: Model, network: Logit, name: str, subject: BenchmarkCase) -> Sequence[Maps]:
    """Split a map by type: lytic where darker than the body's median, blastic where denser.

    Each slice's map, which the library scales to 0..1, is weighted with the slice's P, so that a
    healthy slice does not speak as loud as an ill one; slices below the gate are silent.
    """
    case = subject.case
    p = encode_case(case, model).p.numpy()
    ill = np.flatnonzero(p >= model.profile.decision.gate_p)
    smooth = ndimage.gaussian_filter(subject.hu, (0, 1, 1))
    darker = smooth < np.median(smooth[case.body])
    variants = []
    drawn = activations(network, name, case.x[ill], case.reference_of(ill)) if len(ill) else []
    for level in network.encoder.levels:
        heat: Field = np.zeros(case.body.shape, np.float32)
        if len(ill):
            heat[ill] = drawn[level].numpy() * p[ill, None, None]
        evidence: dict[LesionType, Field] = {"lytic": heat * darker, "blastic": heat * ~darker}
        variants.append(Maps(case, evidence, p_of_vertebra(p)))
    return variants


def activations(
    network: Logit, name: str, x: Tensor, reference: Tensor | None = None
) -> list[Tensor]:
    """Return maps (N, H, W), 0 to 1 per slice, of each level's last stage for x (N, 1, H, W).

    ``reference`` (N, 2) as of ``encode``.
    """
    stages: list[nn.Module | str] = [network.encoder.last_stage(n) for n in network.encoder.levels]
    if name == "EigenCAM":
        with torch.inference_mode():
            maps, _ = network.encoder.features(x, reference)
            coarse = [first_component(features) for features in maps]
    else:
        from torchcam import methods

        extractor = getattr(methods, name.replace("++", "pp"))
        with extractor(network, stages) as extract:
            coarse = extract(class_idx=0, scores=network(x, reference))
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


NAME = "anomaly detection (healthy-only autoencoder)"
DIFFERENCE_FLOORS = (0.02, 0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35)
NOISE_LEVELS = (0.2, 0.4, 0.6)
DRAWS = 4
TIMESTEPS = 1000
BATCH = 32


def difference_map(model: Model) -> ByMaps:
    """Return the method of the healthy edit alone: differences above a floor, by size."""

    def draw(subject: BenchmarkCase) -> list[Maps]:
        seen = edit_case(subject.case, model)
        pixels = model.profile.decision.smooth_pixels
        return [_signed(subject.case, _smooth(seen.healthy.difference, pixels), seen.p)]

    return ByMaps("difference map, nothing hidden", supervision(model), draw, DIFFERENCE_FLOORS)


def change_map(model: Model) -> ByMaps:
    """Return the method of the encoder's change map: no diffusion, nothing hidden."""

    @torch.inference_mode()
    def draw(subject: BenchmarkCase) -> list[Maps]:
        maps, _ = model.autoencoder.encoder.features(subject.case.x, subject.case.reference)
        change = model.autoencoder.encoder.change_seen(maps)
        assert change is not None
        p = p_of_vertebra(encode_case(subject.case, model).p.numpy())
        pixels = model.profile.decision.smooth_pixels
        return [_signed(subject.case, _smooth(-change[:, 0].numpy(), pixels), p)]

    return ByMaps(
        "the encoder's change map, no diffusion", supervision(model), draw, DIFFERENCE_FLOORS
    )


def _signed(case: Case, difference: npt.NDArray[np.float32], p: float) -> Maps:
    """Density that was added lay in a lytic lesion, density removed in a blastic one."""
    evidence: dict[LesionType, Field] = {"lytic": difference, "blastic": -difference}
    return Maps(case, evidence, p)


def anomaly_architecture(profile: Profile) -> Architecture:
    """Return the architecture of the weights under test, with the paper's pooling."""
    return replace(
        profile.architecture,
        pooling="mean",
        evidence_levels=(),
        contrast=False,
        change_map=False,
        context=False,
        mirrored=False,
    )


def train_anomaly(
    slices: Slices,
    profile: Profile,
    steps: int,
    seed: int,
    folder: Path,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool] = lambda: False,
    team: ProcessGroup = SINGLE,
    size: int = BATCH,
    seconds: float | None = None,
) -> nn.Module:
    """Train a diffusion autoencoder on slices of healthy vertebrae only."""
    torch.manual_seed(seed)
    slices = slices.on(team.device)
    network = DiffusionAutoencoder(anomaly_architecture(profile)).to(team.device)
    healthy = np.flatnonzero(slices.label == 0)

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        x = make_batch(slices, rng.choice(healthy, size), profile, rng).x
        t = draw_times(size, TIMESTEPS, generator)
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        error = network(noised(x, t, noise, TIMESTEPS), t, network.encode(x)) - noise
        return {"error": error.square().mean()}

    stage = TrainingStage("anomaly", steps, 8e-4, 0.01, seed, seconds=seconds)
    return run_stage(
        stage, network, network.parameters(), losses, folder, on_progress, should_stop, team
    )


def anomaly_method(network: DiffusionAutoencoder) -> ByMaps:
    """Return the method for which redrawn pixels are anomalies; a variant per noise level.

    There is no P(malignant): nothing was learnt from labels but which slices are healthy.
    """

    def draw(subject: BenchmarkCase) -> list[Maps]:
        x = subject.case.x
        return [
            _signed(
                subject.case,
                _smooth((_redrawn(network, x, level) - x)[:, 0].numpy(), SMOOTHING),
                float("nan"),
            )
            for level in NOISE_LEVELS
        ]

    return ByMaps(NAME, "healthy vertebrae", draw, DIFFERENCE_FLOORS, len(NOISE_LEVELS))


@torch.inference_mode()
def _redrawn(network: DiffusionAutoencoder, x: torch.Tensor, level: float) -> torch.Tensor:
    """Return the mean of x0-hat over some noises, conditioned on the latent of x."""
    t = torch.full((len(x),), round(level * (TIMESTEPS - 1)))
    noises = seeded_noises(range(len(x)), DRAWS, tuple(x.shape[-2:]))
    z = network.encode(x)
    drawn = [
        predict_x0(network, noised(x, t, noise, TIMESTEPS), t, z, TIMESTEPS)
        for noise in noises.split(1, dim=1)
    ]
    return torch.stack(drawn).mean(dim=0)


def _smooth(difference: npt.NDArray[np.float32], pixels: float) -> npt.NDArray[np.float32]:
    return np.asarray(ndimage.gaussian_filter(difference, (0, pixels, pixels)), np.float32)
