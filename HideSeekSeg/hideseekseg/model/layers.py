"""Layers of the diffusion autoencoder's two networks.

Attribute names are those of the published checkpoint, so that its tensors load by name.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Resample = Literal["none", "up", "down"]


def norm(channels: int) -> nn.GroupNorm:
    """32 groups at the paper's widths; narrow layers get fewer, never of a single channel."""
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


def zeroed(layer: nn.Conv2d | nn.Conv1d) -> nn.Module:
    """Fill a layer with zeros: a residual branch that ends in it starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def resampled(x: Tensor, how: Resample) -> Tensor:
    """Resample x (N, C, H, W): nearest neighbour up, mean of 2 x 2 down."""
    if how == "up":
        return functional.interpolate(x, scale_factor=2, mode="nearest")
    if how == "down":
        return functional.avg_pool2d(x, 2)
    return x


class TimeEmbedding(nn.Module):
    """Diffusion time t (N,) to (N, embedding): cosines and sines, then two linear layers."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.channels = channels
        self.time_embed = nn.Sequential(
            nn.Linear(channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )

    def forward(self, t: Tensor) -> Tensor:
        half = self.channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t.float()[:, None] * torch.exp(-math.log(10_000.0) * exponents)
        embedded: Tensor = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        return embedded


class Block(nn.Module):
    """Norm, SiLU, optional resampling, convolution; beside it a skip connection.

    On its own it is the semantic encoder's block: it knows neither time nor latent.
    """

    def __init__(self, inputs: int, outputs: int, resample: Resample = "none") -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def _input(self, x: Tensor) -> Tensor:
        """Resampling stands between activation and convolution."""
        normalise, activate, convolve = self.in_layers
        h: Tensor = convolve(resampled(activate(normalise(x)), self.resample))
        return h

    def _skip(self, x: Tensor) -> Tensor:
        skipped: Tensor = self.skip_connection(resampled(x, self.resample))
        return skipped

    def forward(self, x: Tensor) -> Tensor:
        return self._skip(x) + self._input(x)


class ConditionedBlock(Block):
    """The noise predictor's block: time scales and shifts its features, the latent scales them."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        resample: Resample,
        embedding: int,
        latent: int,
        dropout: float,
    ) -> None:
        super().__init__(inputs, outputs, resample)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outputs))
        self.cond_emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(latent, outputs))
        self.out_layers = nn.Sequential(
            norm(outputs),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )

    def forward(self, x: Tensor, time: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the block to x (N, C, H, W) with time (N, embedding) and z (N, latent)."""
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, dim=1)
        latent_scale = self.cond_emb_layers(z)[:, :, None, None]
        normalise, *rest = self.out_layers
        h = normalise(self._input(x))
        h = (h * (1 + scale) + shift) * (1 + latent_scale)
        for layer in rest:
            h = layer(h)
        return self._skip(x) + h


class Attention(nn.Module):
    """Self-attention over all positions of a map, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x.flatten(2))).transpose(1, 2).chunk(3, dim=2)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(attended.transpose(1, 2)).view_as(x)


class Stage(nn.Sequential):
    """Layers in a row; those that know time and latent are given them."""

    def forward(self, x: Tensor, time: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, time, z) if isinstance(layer, ConditionedBlock) else layer(x)
        return x
