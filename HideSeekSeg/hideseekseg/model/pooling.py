"""How the encoder's maps become the semantic latent z: by evidence, and by the change it sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import norm

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
    smooth = functional.avg_pool2d(change.float(), 3, 1, 1)[:, 0].flatten(1)
    parts = CHANGE_GAIN * torch.stack([smooth, -smooth], dim=1).clamp(min=0.0)
    area = torch.sigmoid(4.0 * (parts - CHANGE_GAIN * PLAIN_CHANGE)).mean(2)
    values = [4.0 * parts.mean(2), parts.amax(2), _smooth_maximum(parts), 8.0 * area]
    return torch.cat(values, dim=1)


class EvidencePooling(nn.Module):
    """z from mean, maximum and log-sum-exp of fine maps, joined with a flattened coarse map.

    The mean drowns a focus of a few pixels; the maximum and its smooth form let it speak, and the
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
