"""Random shapes and textures in millimetres: what lesions and their mimics are drawn with.

Arrays are (S, P, I) on a crop's grid: slices to the right, rows posterior, columns inferior;
``spacing`` is in mm along the same three axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Rng = np.random.Generator


@dataclass(frozen=True)
class VertebraPatch:
    """One vertebra to paint on: HU (float32), its body, and the voxel size (S, P, I) in mm."""

    hu: Field
    body: Mask
    spacing: tuple[float, float, float]

    @cached_property
    def depth(self) -> Field:
        """Distance in mm from each body voxel to the body's surface; 0 outside."""
        return np.asarray(
            ndimage.distance_transform_edt(self.body, sampling=self.spacing), np.float32
        )

    @cached_property
    def soft_body(self) -> Field:
        """The body as a weight with an edge of one pixel, as partial volume makes it."""
        return np.asarray(ndimage.uniform_filter(self.body.astype(np.float32), 3), np.float32)

    @cached_property
    def extent(self) -> npt.NDArray[np.float64]:
        """First and last position of the body in mm (3, 2) along S, P, I."""
        ends = []
        for axis, step in enumerate(self.spacing):
            hit = np.flatnonzero(self.body.any(axis=tuple(a for a in range(3) if a != axis)))
            ends.append((hit[0] * step, hit[-1] * step) if len(hit) else (0.0, 0.0))
        return np.array(ends)

    @cached_property
    def from_upper(self) -> Field:
        """Distance in mm below the upper endplate, along the columns; large outside the body."""
        return _below_endplate(self.body, self.spacing[2])

    @cached_property
    def from_lower(self) -> Field:
        """Distance in mm above the lower endplate, along the columns; large outside the body."""
        return _below_endplate(self.body[:, :, ::-1], self.spacing[2])[:, :, ::-1]

    def coordinates(self) -> tuple[Field, Field, Field]:
        """Positions in mm along (S, P, I) as broadcastable arrays, from the first voxel."""
        axes = [np.arange(n) * s for n, s in zip(self.body.shape, self.spacing)]
        s, p, i = (a.astype(np.float32) for a in axes)
        return s[:, None, None], p[None, :, None], i[None, None, :]


def _below_endplate(body: Mask, step: float) -> Field:
    first = np.where(body.any(axis=2), body.argmax(axis=2), body.shape[2])
    # Endplates are smooth: single voxels of the mask's staircase should not show in the density.
    first = ndimage.median_filter(first, 3)
    depth = (np.arange(body.shape[2])[None, None] - first[..., None]) * step
    return np.where(body, np.maximum(depth, 0.0), 1e3).astype(np.float32)


def smooth_field(rng: Rng, canvas: VertebraPatch, length_mm: float) -> Field:
    """Draw a Gaussian random field: zero mean, unit deviation, about that correlation length."""
    shape = canvas.body.shape
    extent = np.array(shape) * canvas.spacing
    knots = np.minimum(np.ceil(extent / length_mm).astype(int) + 3, shape)
    coarse = rng.standard_normal(knots).astype(np.float32)
    factors = np.array(shape) / np.maximum(knots - 2, 1)
    fine = coarse
    for axis, (n, factor) in enumerate(zip(shape, factors)):
        if knots[axis] == n:
            continue
        at = np.arange(n) / factor + rng.uniform(0.0, 1.0)
        low = np.floor(at).astype(int)
        t = at - low
        t = (
            (t * t * (3 - 2 * t))
            .astype(np.float32)
            .reshape([-1 if a == axis else 1 for a in range(3)])
        )
        lower, upper = (
            np.take(fine, low, axis),
            np.take(fine, np.minimum(low + 1, knots[axis] - 1), axis),
        )
        fine = lower * (1 - t) + upper * t
    return np.asarray((fine - fine.mean()) / (fine.std() + 1e-6), np.float32)


def blob(
    rng: Rng,
    canvas: VertebraPatch,
    centre_mm: npt.ArrayLike,
    radius_mm: float,
    irregularity: float = 0.2,
    edge_mm: float = 0.5,
) -> Field:
    """Draw a lump of random proportions and orientation as a weight 0..1 with a soft edge.

    ``irregularity`` bends the outline by that share of the radius; ``edge_mm`` is the width over
    which the weight falls.
    """
    stretch = np.exp(rng.normal(0.0, 0.2, 3))
    stretch /= np.cbrt(stretch.prod())
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    s, p, i = canvas.coordinates()
    c = np.asarray(centre_mm, np.float32)
    ds, dp, di = s - c[0], p - c[1], i - c[2]
    square = np.zeros(canvas.body.shape, np.float32)
    for row, scale in zip(turn, stretch):
        w = np.asarray(row / scale, np.float32)
        square += (w[0] * ds + w[1] * dp + w[2] * di) ** 2
    distance = np.sqrt(square) / radius_mm
    if irregularity > 0:
        distance = distance + irregularity * smooth_field(rng, canvas, max(radius_mm, 3.0))
    sharp = max(edge_mm / radius_mm, 1e-3)
    return np.asarray(np.clip(0.5 + (1 - distance) / (2 * sharp), 0.0, 1.0), np.float32)


def columns_field(rng: Rng, canvas: VertebraPatch, length_mm: float) -> Field:
    """Draw a random field (S, P, 1) of zero mean and unit deviation: the same all along I."""
    shape = canvas.body.shape[:2]
    sigma = 0.35 * length_mm / np.array(canvas.spacing[:2])
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)[:, :, None]


def random_point(rng: Rng, canvas: VertebraPatch, weight: Field | Mask) -> npt.NDArray[np.float64]:
    """Draw a position in mm from the weight (any shape-like non-negative array)."""
    flat = np.asarray(weight, np.float64).ravel()
    total = flat.sum()
    if total <= 0:
        flat, total = canvas.body.ravel().astype(float), float(canvas.body.sum())
    index = int(np.searchsorted(np.cumsum(flat), rng.uniform(0.0, total)))
    voxel = np.unravel_index(min(index, flat.size - 1), canvas.body.shape)
    return np.asarray(voxel) * canvas.spacing


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a number between two whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
