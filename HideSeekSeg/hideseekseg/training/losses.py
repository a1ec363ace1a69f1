"""Loss functions of encoder and decoder.

Two ways to train the decoder.  "labels" uses nothing but labels: it learns to reconstruct.
"twins" also knows, for simulated data, how the slice would look without its lesions, and learns to
draw that from the healthy-edited latent.  Masks reach neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model.autoencoder import DiffusionAutoencoder
from ..model.classifier import LinearClassifier
from ..model.sampling import alpha_bars, noised
from .dataset import Batch

Supervision = Literal["labels", "twins"]

# Diffusion times at which a lesion is still seen but no longer dictated by x_t: four in five
# training times are drawn from here, the others from all of T.
EDITING_TIMES = (40, 300)
# Times from which a decoder that learns from labels alone is told the class and nothing else.
BLIND_FROM = 300


@dataclass(frozen=True)
class DecoderLoss:
    """Mean losses of a batch: reconstruction of x, healthy edit (0 for "labels")."""

    reconstruction: Tensor
    edit: Tensor

    @property
    def total(self) -> Tensor:
        return self.reconstruction + self.edit


def encoder_loss(model: DiffusionAutoencoder, head: nn.Module, batch: Batch) -> Tensor:
    """Labels only: cross entropy of a linear head on z, and a small pull that keeps z bounded."""
    return _label_loss(model.encode(batch.x, batch.reference), head, batch.label)


def twin_encoder_loss(
    model: DiffusionAutoencoder, head: nn.Module, batch: Batch
) -> tuple[Tensor, Tensor]:
    """With twins: the label loss, and the error of the change map.

    Every diseased slice brings its healthy twin: what the two have in common, which is everything
    but the lesion, cancels.  Slices of healthy vertebrae stand beside them.
    """
    ill = batch.label > 0
    x = torch.cat([batch.x, batch.twin[ill]])
    reference = torch.cat([batch.reference, batch.reference[ill]])
    label = torch.cat([batch.label, torch.zeros_like(batch.label[ill])])
    change = torch.cat([batch.x - batch.twin, torch.zeros_like(batch.x[ill])])
    z, seen = model.encoder(x, reference)
    loss = _label_loss(z, head, label)
    if seen is None:
        return loss, torch.zeros_like(loss)
    error = (seen.float() - change).square() * (1 + 10 * _visible(change))
    return loss, error.mean() / 0.02


def _label_loss(z: Tensor, head: nn.Module, label: Tensor) -> Tensor:
    z = z.float()
    logit = head(z)[:, 0].float()
    return functional.binary_cross_entropy_with_logits(logit, label) + 1e-4 * z.square().mean()


def _visible(change: Tensor) -> Tensor:
    """0 where image and twin agree, 1 where they differ by what an eye sees at once."""
    return (change.abs() / 0.15).clamp(max=1.0)


def draw_times(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """Training times t (N,), most of them from EDITING_TIMES."""
    low, high = EDITING_TIMES
    often = _integers(low, high, count, generator)
    anywhere = _integers(0, timesteps, count, generator)
    return torch.where(_uniform(count, generator=generator) < 0.8, often, anywhere)


def _integers(low: int, high: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, (count,), generator=generator, device=generator.device)


def _uniform(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


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
    With labels alone the decoder is told, for half of a batch and at high noise, nothing but the
    logit of z: then a step along the normal must change the picture.
    With twins one image in four is reconstructed: that is learned long before the edit is.
    """
    count = len(batch.x)
    t = draw_times(count, len(alpha_bars()), generator)
    noise = torch.randn(batch.x.shape, generator=generator, device=generator.device)
    with torch.no_grad():
        z = model.encode(batch.x, batch.reference).float()
    if supervision == "labels":
        blind = torch.arange(count, device=t.device) < count // 2
        late = _integers(BLIND_FROM, len(alpha_bars()), count, generator)
        t = torch.where(blind, late, t)
        told = torch.where(blind[:, None], classifier.along(z), _shaken(z, generator))
        x_t = noised(batch.x, t, noise)
        error = _weighted_error(model(x_t, t, told), x_t, t, batch.x, batch.body, None)
        return DecoderLoss(error, torch.zeros_like(error))
    x_t = noised(batch.x, t, noise)
    healthy = classifier.move_to(z, _healthy_targets(count, generator))
    seen = _uniform(count, 1, 1, 1, generator=generator) < 2 / 3
    edit_t = noised(torch.where(seen, batch.x, batch.twin), t, noise)
    few = slice(0, max(count // 4, 1))
    eps = model(
        torch.cat([x_t[few], edit_t]),
        torch.cat([t[few], t]),
        torch.cat([_shaken(z[few], generator), healthy]),
    )
    kept, edited = eps[few], eps[few.stop :]
    lesion = batch.x - batch.twin
    return DecoderLoss(
        _weighted_error(kept, x_t[few], t[few], batch.x[few], batch.body[few], lesion[few]),
        _weighted_error(edited, edit_t, t, batch.twin, batch.body, lesion),
    )


def _healthy_targets(count: int, generator: torch.Generator) -> Tensor:
    """P(malignant) to move to: 1e-2 to 1e-5, evenly in the logarithm."""
    return 10 ** -(2 + 3 * _uniform(count, generator=generator))


def _shaken(z: Tensor, generator: torch.Generator) -> Tensor:
    """Standardised latents with a little noise: the decoder must not live on z's last digits."""
    return z + 0.05 * torch.randn(z.shape, generator=generator, device=generator.device)


def _weighted_error(
    eps: Tensor, x_t: Tensor, t: Tensor, target: Tensor, body: Tensor, lesion: Tensor | None
) -> Tensor:
    """Mean squared error of x0-hat over the body, in units that are fair to all noise levels.

    Where image and twin differ the weight is higher: lesions are few pixels of the picture.
    """
    level = alpha_bars().to(x_t.device)[t].to(x_t)[:, None, None, None]
    x0 = (x_t - (1 - level).sqrt() * eps.float()) / level.sqrt()
    # 1 / sigma^2 in the image's units, but never more than four times the plain eps loss: near T
    # the image is a guess and its error without bound.
    fairness = torch.minimum(1 / (1 - level).clamp(min=0.09), 4 * level / (1 - level))
    weight = 0.1 + functional.avg_pool2d(body.float(), 5, 1, 2)
    if lesion is not None:
        weight = weight * (1 + 4 * _visible(lesion))
    weight = weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    return ((x0 - target).square() * weight * fairness).mean()
