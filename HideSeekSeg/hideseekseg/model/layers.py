"""Layers of the diffusion autoencoder's two networks, and how the encoder pools maps into z.

Attribute names are those of the published checkpoint, so that its tensors load by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Resample = Literal["none", "up", "down"]


class GroupNorm(nn.GroupNorm):
    """torch's group norm, several times as fast where a processor infers from maps channels last.

    torch's own takes a fifth of a network call there.  Sums over pixels are products of matrices
    here, and what is done to each channel, also by time and latent, is one multiplication.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.modulated(x)

    def modulated(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Return the normalised x (N, C, H, W), times ``scale`` and plus ``shift`` (N, C) each."""
        if (
            torch.is_grad_enabled()
            or x.device.type != "cpu"
            or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            h = super().forward(x)
            h = h if scale is None else h * scale[:, :, None, None]
            return h if shift is None else h + shift[:, :, None, None]
        gain, offset = self._gain_and_offset(x)
        if scale is not None:
            gain, offset = gain * scale, offset * scale
        if shift is not None:
            offset = offset + shift
        return torch.addcmul(offset[:, :, None, None], x, gain[:, :, None, None])

    def _gain_and_offset(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return by what each channel (N, C) is multiplied and what is added to it."""
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        mean_of_pixels = x.new_full((1, 1, pixels.shape[1]), 1 / pixels.shape[1])
        mean_of_pixels = mean_of_pixels.expand(len(x), 1, -1)
        mean, square = (
            torch.bmm(mean_of_pixels, values).view(len(x), self.num_groups, -1).mean(2, True)
            for values in (pixels, pixels.square())
        )
        steepness = (square - mean.square()).clamp(min=0.0).add(self.eps).rsqrt()
        weight = self.weight.view(self.num_groups, -1)
        gain = (steepness * weight).flatten(1)
        offset = self.bias - (mean * steepness * weight).flatten(1)
        return gain, offset


def keep_channels_last(network: nn.Module) -> None:
    """Lay a network's weights out as convolutions are fastest with, channels last, in place."""
    # torch's stubs have no overload for a memory format.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def norm(channels: int) -> GroupNorm:
    """32 groups at the paper's widths; narrow layers get fewer, never of a single channel."""
    return GroupNorm(math.gcd(32, channels // 2), channels)


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
            norm(inputs), nn.SiLU(inplace=True), nn.Conv2d(inputs, outputs, 3, padding=1)
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
            nn.SiLU(inplace=True),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(outputs, outputs, 3, padding=1)),
        )

    def forward(self, x: Tensor, time: Tensor, z: Tensor) -> Tensor:  # type: ignore[override]
        """Apply the block to x (N, C, H, W) with time (N, embedding) and z (N, latent)."""
        scale, shift = self.emb_layers(time).chunk(2, dim=1)
        latent_scale = 1 + self.cond_emb_layers(z)
        normalise, *rest = self.out_layers
        scale, shift = (1 + scale) * latent_scale, shift * latent_scale
        h = cast(GroupNorm, normalise).modulated(self._input(x), scale, shift)
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


EVIDENCE_CHANNELS = 96
COARSE_CHANNELS = 48
LOG_SUM_EXP_SHARPNESS = 2.0
CHANGE_WIDTH = 64
CHANGE_FEATURES = 8
PLAIN_CHANGE = 0.12  # in units of x: what an eye sees at once
CHANGE_GAIN = 8.0  # brings changes of x to the size of the other features


class ChangeMap(nn.Module):
    """What of x should not be there, (N, 1, H, W), from the encoder's maps, coarse to fine.

    With twins it is taught x minus the healthy twin: asked where a lesion is, the maps learn what
    one looks like from far fewer slices than a label per slice tells them.  With labels alone it is
    one more map that may speak for the crop.
    """

    def __init__(self, widths: Sequence[int], patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.lateral = nn.ModuleList(nn.Conv2d(c, CHANGE_WIDTH, 1) for c in widths)
        self.out = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(CHANGE_WIDTH, CHANGE_WIDTH, 3, padding=1),
            norm(CHANGE_WIDTH),
            nn.SiLU(),
            nn.Conv2d(CHANGE_WIDTH, patch**2, 3, padding=1),
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the maps of all levels, finest first, to the change (N, 1, H, W)."""
        h: Tensor | None = None
        for lateral, level in zip(reversed(self.lateral), reversed(maps)):
            finer = lateral(level)
            h = finer if h is None else finer + functional.interpolate(h, scale_factor=2)
        return functional.pixel_shuffle(self.out(h), self.patch)


def _change_features(change: Tensor) -> Tensor:
    """Mean, maximum, smooth maximum and plain area of added and of lost density: (N, 8)."""
    # As N channels of one picture: N pictures of one channel, channels last, take much longer.
    smooth = functional.avg_pool2d(change.float()[:, 0], 3, 1, 1).flatten(1)
    parts = CHANGE_GAIN * torch.stack([smooth, -smooth], dim=1).clamp(min=0.0)
    area = torch.sigmoid(4.0 * (parts - CHANGE_GAIN * PLAIN_CHANGE)).mean(2)
    values = [4.0 * parts.mean(2), parts.amax(2), _smooth_maximum(parts), 8.0 * area]
    return torch.cat(values, dim=1)


class EvidencePooling(nn.Module):
    """z from mean, maximum and log-sum-exp of fine maps, joined with a flattened coarse map.

    Mean pooling suppresses small foci; the maximum and its smooth form keep them, and the
    coarse map says where things are.  The change map, where there is one, adds how much there is of
    what should not be there.
    """

    def __init__(
        self,
        maps: list[int],
        coarse: int,
        coarse_size: int,
        change: bool,
        latent: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.evidence = nn.ModuleList(
            nn.Sequential(norm(c), nn.SiLU(), nn.Conv2d(c, EVIDENCE_CHANNELS, 1)) for c in maps
        )
        self.coarse = nn.Sequential(
            norm(coarse), nn.SiLU(), nn.Conv2d(coarse, COARSE_CHANNELS, 1), nn.Flatten()
        )
        joined = 3 * EVIDENCE_CHANNELS * len(maps) + COARSE_CHANNELS * coarse_size**2
        joined += CHANGE_FEATURES if change else 0
        self.latent = nn.Sequential(nn.Dropout(dropout), nn.Linear(joined, latent))

    def forward(self, maps: list[Tensor], coarse: Tensor, change: Tensor | None) -> Tensor:
        """Pool to (N, latent).

        ``maps`` are (N, C_i, H_i, W_i) per evidence level, ``coarse`` is (N, C, h, w), ``change``
        (N, 1, H, W) or None.
        """
        parts = [self.coarse(coarse)]
        if change is not None:
            parts.append(_change_features(change))
        for project, h in zip(self.evidence, maps):
            values = project(h).flatten(2).float()
            parts += [values.mean(2), values.amax(2), _smooth_maximum(values)]
        z: Tensor = self.latent(torch.cat(parts, dim=1))
        return z


def _smooth_maximum(values: Tensor) -> Tensor:
    """Log-mean-exp over the last axis: between mean and maximum, whatever the map's size."""
    summed = torch.logsumexp(LOG_SUM_EXP_SHARPNESS * values, dim=-1)
    return (summed - math.log(values.shape[-1])) / LOG_SUM_EXP_SHARPNESS
