"""The diffusion autoencoder: a semantic encoder x -> z and a noise predictor eps(x_t, t, z).

The architecture is that of the paper (Atad et al., MIDL 2026), which follows Diffusion Autoencoders
(Preechakul et al., CVPR 2022).  Attribute names are those of the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import (
    Attention,
    Block,
    ChangeMap,
    ConditionedBlock,
    EvidencePooling,
    Resample,
    Stage,
    TimeEmbedding,
    norm,
    zeroed,
)
from .profile import Architecture

MakeBlock = Callable[[int, int, Resample], nn.Module]
MakeStage = Callable[..., nn.Module]

DROPOUT = 0.1
BLANK = -0.95  # x at or below it is blanked, or air
CONTRAST_GAIN = 3.0


class DiffusionAutoencoder(nn.Module):
    """``encode(x)`` gives the semantic latent z, ``forward(x_t, t, z)`` the predicted noise."""

    def __init__(self, architecture: Architecture, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.architecture = a = architecture

        def block(inputs: int, outputs: int, resample: Resample = "none") -> ConditionedBlock:
            return ConditionedBlock(inputs, outputs, resample, a.embedding, a.latent, dropout)

        self.time_embed = TimeEmbedding(a.channels, a.embedding)
        self.encoder = SemanticEncoder(a, dropout)
        self.input_blocks, skips = _downward(a, a.decoder_mult, block, Stage, a.patch**2)
        self.middle_block = _middle(skips[-1], block, Stage)
        self.output_blocks = _upward(a, skips, block)
        width = a.decoder_mult[0] * a.channels
        self.out = nn.Sequential(
            norm(width), nn.SiLU(), zeroed(nn.Conv2d(width, a.patch**2, 3, padding=1))
        )

    def encode(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Images x (N, 1, H, W) to latents z (N, latent); ``reference`` as in ``relative``."""
        # While it learns, the encoder sees both ways round by chance, and one is half the work.
        both = self.architecture.mirrored and not self.encoder.training
        z: Tensor = self.encoder(x, reference, both)[0]
        if both:
            one, other = z.chunk(2)
            z = (one + other) / 2
        return z

    def forward(self, x_t: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Return eps_theta(x_t, t, z) of x_t (N, 1, H, W), t (N,) in 0..T-1 and z (N, latent)."""
        time = self.time_embed(t)
        h = functional.pixel_unshuffle(x_t, self.architecture.patch)
        skips = []
        for stage in self.input_blocks:
            h = stage(h, time, z)
            skips.append(h)
        h = self.middle_block(h, time, z)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), time, z)
        return functional.pixel_shuffle(self.out(h), self.architecture.patch)


class SemanticEncoder(nn.Module):
    """The downward half of a UNet, pooled to the semantic latent z."""

    def __init__(self, architecture: Architecture, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.architecture = a = architecture
        channels = a.patch**2 * (1 + a.contrast + a.context)
        self.input_blocks, widths = _downward(a, a.encoder_mult, Block, nn.Sequential, channels)
        self.middle_block = _middle(widths[-1], Block, nn.Sequential)
        level_widths = [widths[_last_of_level(a, level)] for level in self.levels]
        self.change = ChangeMap(level_widths, a.patch) if a.change_map else None
        if a.pooling == "evidence":
            self.out: nn.Module = EvidencePooling(
                maps=[level_widths[level] for level in a.evidence_levels],
                coarse=widths[-1],
                coarse_size=a.image_size // a.patch // 2 ** (len(a.encoder_mult) - 1),
                change=a.change_map,
                latent=a.latent,
                dropout=dropout,
            )
        else:
            self.out = nn.Sequential(
                norm(widths[-1]),
                nn.SiLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(widths[-1], a.latent, 1),
                nn.Flatten(),
            )

    def forward(
        self, x: Tensor, reference: Tensor | None = None, both: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Images x (N, 1, H, W) to latents z (N, latent), and the change seen, as below.

        ``both``: of the images, and then of the same turned upside down (2 N).
        """
        maps, coarse = self.features(x, reference, both)
        change = self.change_seen(maps)
        return self.pooled(maps, coarse, change), change

    def features(
        self, x: Tensor, reference: Tensor | None = None, both: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Return the last map of each level, finest first, and the middle block's (N, C, h, w)."""
        channels = [x]
        if self.architecture.contrast:
            channels.append(contrast(x))
        if self.architecture.context:
            channels.append(relative(x, reference))
        x = torch.cat(channels, dim=1)
        # Turned here, as medians of a picture do not depend on which way up it is.
        x = torch.cat([x, x.flip(-1)]) if both else x
        h = functional.pixel_unshuffle(x, self.architecture.patch)
        maps = []
        for stage in self.input_blocks:
            h = stage(h)
            maps.append(h)
        finest_first = [maps[_last_of_level(self.architecture, level)] for level in self.levels]
        return finest_first, self.middle_block(h)

    @property
    def levels(self) -> range:
        """Numbers of the levels, finest first."""
        return range(len(self.architecture.encoder_mult))

    def last_stage(self, level: int) -> nn.Module:
        """Return the stage that computes the last map of a level."""
        return self.input_blocks[_last_of_level(self.architecture, level)]

    def change_seen(self, maps: list[Tensor]) -> Tensor | None:
        """Map the ``features`` to the change (N, 1, H, W) that the encoder sees in x, or None.

        Positive where x is denser than it should be.
        """
        return None if self.change is None else self.change(maps)

    def pooled(self, maps: list[Tensor], coarse: Tensor, change: Tensor | None) -> Tensor:
        """Pool the results of ``features`` and ``change_seen`` to latents z (N, latent)."""
        if isinstance(self.out, EvidencePooling):
            return self.out([maps[i] for i in self.architecture.evidence_levels], coarse, change)
        z: Tensor = self.out(coarse)
        return z


def contrast(x: Tensor) -> Tensor:
    """Return x (N, 1, H, W) relative to its median, stretched; 0 where it is blanked.

    A lytic focus is defined by what surrounds it: 80 HU are much in young bone and nothing in old.
    """
    inside = x > BLANK
    median = torch.where(inside, x, torch.nan).flatten(1).nanmedian(dim=1).values.nan_to_num(0.0)
    return torch.tanh(CONTRAST_GAIN * (x - median[:, None, None, None])) * inside


LEAST_SPREAD = 0.05  # of the reference, in units of x


def relative(x: Tensor, reference: Tensor | None) -> Tensor:
    """X (N, 1, H, W) in deviations of the marrow of the patient's other vertebrae; 0 where blanked.

    ``reference`` (N, 2) holds their median and deviation in units of x; where it is NaN or None the
    vertebra is on its own and stands for them.
    """
    inside = x > BLANK
    if reference is None:
        middle, spread = _own_marrow(x, inside)
    else:
        middle, spread = reference[:, 0], reference[:, 1]
        known = reference.isfinite().all(dim=1)
        # On a GPU the medians cost less than to wait for the answer whether they can be spared.
        if x.device.type != "cpu" or not bool(known.all()):
            own_middle, own_spread = _own_marrow(x, inside)
            middle = torch.where(known, middle, own_middle)
            spread = torch.where(known, spread, own_spread)
    scale = 3 * spread.clamp(min=LEAST_SPREAD)
    return torch.tanh((x - middle[:, None, None, None]) / scale[:, None, None, None]) * inside


def _own_marrow(x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and robust deviation (N,) of what lies inside; 0 where nothing does."""
    values = torch.where(inside, x, torch.nan).flatten(1)
    middle = values.nanmedian(dim=1).values.nan_to_num(0.0)
    spread = (values - middle[:, None]).abs().nanmedian(dim=1).values.nan_to_num(0.0)
    return middle, 1.4826 * spread


def _last_of_level(a: Architecture, level: int) -> int:
    """Index of a level's last block: before it the stem; per level, its blocks and a step down."""
    return level * (a.residual_blocks + 1) + a.residual_blocks


def _downward(
    a: Architecture, mult: tuple[int, ...], block: MakeBlock, stage: MakeStage, inputs: int
) -> tuple[nn.ModuleList, list[int]]:
    """Build the stem and, per level, residual blocks and a step down; and the width after each."""
    width = a.channels
    stages = [stage(nn.Conv2d(inputs, width, 3, padding=1))]
    widths = [width]
    for level, factor in enumerate(mult):
        for _ in range(a.residual_blocks):
            layers = [block(width, factor * a.channels, "none")]
            width = factor * a.channels
            if level in a.attention_levels:
                layers.append(Attention(width))
            stages.append(stage(*layers))
            widths.append(width)
        if level + 1 < len(mult):
            stages.append(stage(block(width, width, "down")))
            widths.append(width)
    return nn.ModuleList(stages), widths


def _middle(width: int, block: MakeBlock, stage: MakeStage) -> nn.Module:
    return stage(block(width, width, "none"), Attention(width), block(width, width, "none"))


def _upward(a: Architecture, skips: list[int], block: MakeBlock) -> nn.ModuleList:
    """Per level from the coarsest: one residual block more than downward, each fed one skip."""
    remaining = list(skips)
    width = remaining[-1]
    stages = []
    for level, factor in reversed(list(enumerate(a.decoder_mult))):
        for i in range(a.residual_blocks + 1):
            layers = [block(width + remaining.pop(), factor * a.channels, "none")]
            width = factor * a.channels
            if level in a.attention_levels:
                layers.append(Attention(width))
            if level > 0 and i == a.residual_blocks:
                layers.append(block(width, width, "up"))
            stages.append(Stage(*layers))
    return nn.ModuleList(stages)
