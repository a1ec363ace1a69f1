"""What the networks are asked for: losses of the encoder and of the decoder.

Two ways to train the decoder.  "labels" uses nothing but labels: it learns to reconstruct.
"twins" also knows, for simulated data, how the slice would look without its lesions, and learns to
draw that from the healthy-edited latent.  Masks reach neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..model.autoencoder import DiffusionAutoencoder
from ..model.classifier import LinearClassifier
from ..model.diffusion import alpha_bars, noised
from .dataset import Batch

Supervision = Literal["labels", "twins"]

# Diffusion times at which a lesion is still seen but no longer dictated by x_t: four in five
# training times are drawn from here, the others from all of T.
EDITING_TIMES = (60, 450)


@dataclass(frozen=True)
class DecoderLoss:
    """Mean losses of a batch: reconstruction of x, healthy edit (0 for "labels")."""

    reconstruction: Tensor
    edit: Tensor

    @property
    def total(self) -> Tensor:
        return self.reconstruction + self.edit


def encoder_loss(
    model: DiffusionAutoencoder, head: torch.nn.Module, batch: Batch, supervision: Supervision
) -> Tensor:
    """Cross entropy of a linear head on z; a small pull to zero keeps z bounded.

    With "twins" every diseased slice brings its healthy twin: what the two have in common, which
    is everything but the lesion, cancels, and the latent learns several times faster.
    """
    x, label = batch.x, batch.label
    if supervision == "twins":
        ill = label > 0
        x = torch.cat([x, batch.twin[ill]])
        label = torch.cat([label, torch.zeros(int(ill.sum()))])
    z = model.encode(x).float()
    logit = head(z)[:, 0]
    return functional.binary_cross_entropy_with_logits(logit, label) + 1e-4 * z.square().mean()


def draw_times(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """Training times t (N,), most of them from EDITING_TIMES."""
    low, high = EDITING_TIMES
    often = torch.randint(low, high, (count,), generator=generator)
    anywhere = torch.randint(0, timesteps, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.8, often, anywhere)


def decoder_loss(
    model: DiffusionAutoencoder,
    classifier: LinearClassifier,
    batch: Batch,
    supervision: Supervision,
    generator: torch.Generator,
) -> DecoderLoss:
    """Both losses compare x0-hat(x_t, z) with its target, weighted to the body and by noise level.

    Reconstruction: z of x, target x.  Edit: z moved along the classifier's normal to a healthy
    probability, x_t of the diseased image two times in three (else of its twin), target the twin.
    """
    count = len(batch.x)
    t = draw_times(count, len(alpha_bars()), generator)
    noise = torch.randn(batch.x.shape, generator=generator)
    with torch.no_grad():
        z = model.encode(batch.x).float()
    x_t = noised(batch.x, t, noise)
    if supervision == "labels":
        error = _weighted_error(model(x_t, t, _shaken(z, generator)), x_t, t, batch.x, batch, None)
        return DecoderLoss(error, torch.zeros(()))
    healthy = classifier.move_to(z, _healthy_targets(count, generator))
    seen = torch.rand(count, 1, 1, 1, generator=generator) < 2 / 3
    edit_t = noised(torch.where(seen, batch.x, batch.twin), t, noise)
    eps = model(
        torch.cat([x_t, edit_t]), torch.cat([t, t]), torch.cat([_shaken(z, generator), healthy])
    )
    lesion = (batch.x - batch.twin).abs()
    return DecoderLoss(
        _weighted_error(eps[:count], x_t, t, batch.x, batch, lesion),
        _weighted_error(eps[count:], edit_t, t, batch.twin, batch, lesion),
    )


def _healthy_targets(count: int, generator: torch.Generator) -> Tensor:
    """P(malignant) to move to: 1e-2 to 1e-5, evenly in the logarithm."""
    return 10 ** -(2 + 3 * torch.rand(count, generator=generator))


def _shaken(z: Tensor, generator: torch.Generator) -> Tensor:
    """Standardised latents with a little noise: the decoder must not live on z's last digits."""
    return z + 0.05 * torch.randn(z.shape, generator=generator)


def _weighted_error(
    eps: Tensor, x_t: Tensor, t: Tensor, target: Tensor, batch: Batch, lesion: Tensor | None
) -> Tensor:
    """Mean squared error of x0-hat over the body, in units that are fair to all noise levels.

    Where image and twin differ the weight is higher: lesions are few pixels of the picture.
    """
    level = alpha_bars()[t].to(x_t)[:, None, None, None]
    x0 = (x_t - (1 - level).sqrt() * eps.float()) / level.sqrt()
    # 1 / sigma^2 in the image's units, but never more than four times the plain eps loss: near T
    # the image is a guess and its error without bound.
    fairness = torch.minimum(1 / (1 - level).clamp(min=0.09), 4 * level / (1 - level))
    weight = 0.1 + functional.avg_pool2d(batch.body.float(), 5, 1, 2)
    if lesion is not None:
        weight = weight * (1 + 4 * (lesion / 0.15).clamp(max=1.0))
    weight = weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    return ((x0 - target).square() * weight * fairness).mean()
