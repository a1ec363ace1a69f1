"""A slice as another patient, reader and scanner would show it: drawn anew for every batch.

A few patients are all the canvases there are; without this their anatomy and grain is learnt by
heart.  Image and twin share every change: their difference stays the lesion and nothing else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..simulation.random_fields import Field, Rng

KNOTS = 5  # of the smooth fields that bend a slice and vary its density, along either axis


def bent(rng: Rng, layers: Tensor) -> Tensor:
    """Layers (N, C, H, W) of N slices, each slice flipped, turned, stretched and bent on its own.

    Flips run along S-I, as published; turns and stretches are within what segmentations and people
    differ by.
    """
    count, _, height, width = layers.shape
    turn = rng.normal(0.0, np.radians(4.0), count)
    zoom = np.exp(rng.normal(0.0, 0.06, (count, 2)) + rng.normal(0.0, 0.04, (count, 1)))
    shear, shift = rng.normal(0.0, 0.05, count), rng.normal(0.0, 0.05, (count, 2))
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    # Rows of an affine matrix in grid_sample's coordinates: x along I, y along P, -1 to 1.
    matrix = np.stack(
        [
            np.stack([flip * zoom[:, 0] * np.cos(turn), -np.sin(turn) + shear, shift[:, 0]], 1),
            np.stack([flip * np.sin(turn), zoom[:, 1] * np.cos(turn), shift[:, 1]], 1),
        ],
        axis=1,
    )
    grid = functional.affine_grid(
        torch.from_numpy(matrix).float(), [count, 1, height, width], align_corners=False
    )
    grid = grid + 0.02 * _smooth_fields(rng, count, 2, (height, width)).movedim(1, -1)
    return functional.grid_sample(layers, grid, align_corners=False)


def rescanned(rng: Rng, hu: Field) -> Field:
    """HU (pictures, N, H, W) with another marrow, calibration, kernel and noise, slice by slice."""
    shape = hu.shape[1:]
    each = (len(hu[0]), 1, 1)
    patchy = (rng.random(each) < 0.5) * rng.uniform(0.0, 30.0, each)
    density = _smooth_fields(rng, shape[0], 1, shape[1:])[:, 0].numpy() * patchy
    gain, shift = np.exp(rng.normal(0.0, 0.08, each)), rng.normal(0.0, 15.0, each)
    share = np.where(rng.random(each) < 0.4, rng.uniform(-0.5, 0.7, each), 0.0).astype(np.float32)
    noisy = (rng.random(each) < 0.4) * rng.uniform(0, 25, each)
    noise = rng.standard_normal(shape, dtype=np.float32) * noisy.astype(np.float32)
    # A share of what blurring takes away: positive softens, negative is a sharper kernel.
    tensor = torch.from_numpy(np.asarray(hu, np.float32))
    soft = functional.avg_pool2d(tensor, 3, 1, 1, count_include_pad=False).numpy()
    result = hu + share * (soft - hu)
    return np.asarray(result * gain + shift + density + noise, np.float32)


def _smooth_fields(rng: Rng, count: int, channels: int, size: tuple[int, ...]) -> Tensor:
    """Smooth random fields (N, C, H, W) of about unit deviation."""
    coarse: npt.NDArray[np.float32] = rng.standard_normal(
        (count, channels, KNOTS, KNOTS), dtype=np.float32
    )
    knots = torch.from_numpy(coarse)
    return functional.interpolate(knots, size=size, mode="bicubic", align_corners=True)
