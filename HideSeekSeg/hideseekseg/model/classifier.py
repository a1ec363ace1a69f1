"""The linear classifier on standardised latents: P(malignant), and the way to a wanted P."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """P(malignant | z) = sigmoid(coef . (z - mean) / scale + intercept).

    ``coef``, ``mean`` and ``scale`` are (latent,).  Everything is kept and computed in float64 on
    the CPU: the healthy edit asks for P = 1e-5 of latents whose logits may be in the hundreds.
    Raises ValueError where the numbers define no classifier.
    """

    coef: Tensor
    intercept: float
    mean: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        for name in ("coef", "mean", "scale"):
            value = getattr(self, name).detach().to("cpu", torch.float64)
            if value.ndim != 1 or value.shape != self.coef.shape:
                raise ValueError(f"classifier: {name} has shape {tuple(value.shape)}")
            if not value.isfinite().all():
                raise ValueError(f"classifier: {name} contains values that are not finite")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "intercept", float(self.intercept))
        if not math.isfinite(self.intercept):
            raise ValueError("classifier: intercept is not finite")
        if not self.coef.any() or not (self.scale > 0).all():
            raise ValueError("classifier: coef must not be zero and scale must be positive")

    def logit(self, z: Tensor) -> Tensor:
        """Log odds (N,) float64 of latents z (N, latent)."""
        return self._standardised(z) @ self.coef + self.intercept

    def probability(self, z: Tensor) -> Tensor:
        """P(malignant) (N,) float64 of latents z (N, latent)."""
        return torch.sigmoid(self.logit(z))

    def move_to(self, z: Tensor, p: float | Tensor) -> Tensor:
        """Edit in latent space: return the latents with P = p nearest to z, once standardised.

        z (N, latent) moves along the classifier's normal to p, one for all or (N,); the result has
        z's dtype and device.
        """
        wanted = torch.logit(torch.as_tensor(p, dtype=torch.float64, device="cpu"))
        steps = (wanted - self.logit(z)) / self.coef.square().sum()
        moved = self._standardised(z) + steps[:, None] * self.coef
        return (moved * self.scale + self.mean).to(z.dtype).to(z.device)

    def along(self, z: Tensor) -> Tensor:
        """Return the part of latents z (N, latent) along the normal, which is their logit."""
        steps = (self._standardised(z) @ self.coef) / self.coef.square().sum()
        only = steps[:, None] * self.coef
        return (only * self.scale + self.mean).to(z.dtype).to(z.device)

    def _standardised(self, z: Tensor) -> Tensor:
        return (z.detach().cpu().double() - self.mean) / self.scale
