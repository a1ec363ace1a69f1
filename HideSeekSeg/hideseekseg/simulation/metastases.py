"""Simulated vertebral metastases, painted into clean HU before blur and noise.

What is drawn follows the radiology literature: lytic destruction is geographic, moth-eaten or
permeative (Lodwick) and leaves soft-tissue attenuation (10 to 75 HU here); osteoblastic metastases
have mean attenuations well below those of bone islands (885 HU separates them: Ulano et al., AJR
2016;207:362-368) and occur as foci, as confluent or diffuse sclerosis and as "ivory" vertebrae;
the posterior body is seeded first, through the basivertebral veins (Algra et al., Radiology
1992;184:665-674).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .random_fields import (
    Field,
    Mask,
    Rng,
    VertebraPatch,
    blob,
    log_uniform,
    random_point,
    smooth_field,
)

GAP_MM = 1.5  # holes of one lesion that lie nearer than twice this are outlined together
SMALLEST_MM3 = 33.0  # a ball of 4 mm
PLAIN_HU = 100.0  # mean contrast of a plain lesion
PLAIN_CLUTTER = 1.5  # and the same in deviations of the marrow around it


def outlined(mask: Mask, body: Mask, spacing: tuple[float, float, float]) -> Mask:
    """The mask (S, P, I) as a reader outlines it: gaps closed, specks left out, inside the body."""
    if not mask.any():
        return mask
    reach = [int(GAP_MM // step) + 1 for step in spacing]
    padded = np.pad(mask, [(n, n) for n in reach])
    near = ndimage.distance_transform_edt(~padded, sampling=spacing) <= GAP_MM
    closed = ndimage.distance_transform_edt(near, sampling=spacing) > GAP_MM
    inner = tuple(slice(n, -n) for n in reach)
    parts, count = ndimage.label((closed[inner] | mask) & body)
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * np.prod(spacing)
    sizes[0] = 0.0
    return np.asarray((sizes >= SMALLEST_MM3)[parts])


def clutter(hu: Field, depth: Field) -> float:
    """Robust deviation of the marrow of a healthy vertebra, noise and texture alike, in HU."""
    inside = hu[depth > 3.0]
    if inside.size == 0:
        return 0.0
    return 1.4826 * float(np.median(np.abs(inside - np.median(inside))))


def plain(change: Field, lesions: Mask, clutter_hu: float) -> bool:
    """Whether every lesion (joined by faces) stands out from the marrow by its mean change."""
    parts, count = ndimage.label(lesions)
    if count == 0:
        return False
    means = ndimage.mean(np.abs(change), parts, range(1, count + 1))
    least = max(PLAIN_HU, PLAIN_CLUTTER * clutter_hu)
    return bool((np.asarray(means) >= least).all())


# Change of density (HU, before blur) from which a voxel counts as lesion: below, no reader sees it.
VISIBLE_HU = 60.0

Kind = Literal["lytic", "blastic", "mixed"]


@dataclass(frozen=True)
class Painted:
    """HU with lesions, and the lesions' masks; a voxel is in at most one of the two."""

    hu: Field
    lytic: Mask
    blastic: Mask


def seed_point(rng: Rng, canvas: VertebraPatch) -> npt.NDArray[np.float64]:
    """Where a metastasis starts (mm): anywhere in the body, the posterior third twice as often."""
    rows = np.flatnonzero(canvas.body.any(axis=(0, 2)))
    behind = rows[0] + (rows[-1] - rows[0]) * 2 / 3
    weight = canvas.body * (1.0 + (np.arange(canvas.body.shape[1]) > behind)[None, :, None])
    return random_point(rng, canvas, weight)


def body_radius(canvas: VertebraPatch) -> float:
    """Radius in mm of the ball as large as the body: the scale of sizes below."""
    return float(np.cbrt(canvas.body.sum() * np.prod(canvas.spacing) * 3 / (4 * np.pi)))


def lytic_lesion(rng: Rng, canvas: VertebraPatch, radius: float | None = None) -> Field:
    """Weight 0..1 of bone replaced by tumour, in one of the three patterns of destruction."""
    largest = 0.9 * body_radius(canvas)
    radius = radius or log_uniform(rng, 3.0, largest)
    centre = seed_point(rng, canvas)
    pattern = rng.choice(["geographic", "moth-eaten", "permeative"], p=[0.65, 0.2, 0.15])
    if pattern == "geographic":
        return blob(rng, canvas, centre, radius, rng.uniform(0.05, 0.35), rng.uniform(0.3, 2.0))
    region = blob(rng, canvas, centre, max(1.3 * radius, 5.0), 0.3, 3.0)
    if pattern == "moth-eaten":
        holes = np.zeros_like(region)
        for _ in range(int(rng.integers(4, 12))):
            at = random_point(rng, canvas, region * canvas.body)
            holes = np.maximum(holes, blob(rng, canvas, at, rng.uniform(1.3, 3.0), 0.2, 0.6))
        return np.asarray(np.maximum(holes, 0.35 * region), np.float32)
    speckle = np.clip(0.55 + 0.35 * smooth_field(rng, canvas, rng.uniform(1.5, 3.0)), 0.0, 1.0)
    return np.asarray(region * speckle, np.float32)


def paint_lytic(rng: Rng, canvas: VertebraPatch, hu: Field) -> tuple[Field, Field]:
    """HU after one lytic lesion, and the lesion's weight.

    Bone gives way to tumour tissue.  A third of the lesions break through the cortex; some carry a
    sclerotic rim.
    """
    weight = lytic_lesion(rng, canvas) * rng.uniform(0.8, 1.0)
    if rng.random() > 0.35:
        weight = weight * np.clip(canvas.depth / 1.5, 0.0, 1.0)
    else:
        weight = weight * canvas.soft_body
    if rng.random() < 0.15:
        rim = np.clip(
            ndimage.gaussian_filter(weight, 1.5 / np.array(canvas.spacing)) - weight, 0, 1
        )
        hu = hu + rim * canvas.soft_body * rng.uniform(150, 500)
    tumour = rng.uniform(10, 75) + 10 * smooth_field(rng, canvas, 4.0)
    # Tumour never brightens: in fatty or osteoporotic marrow a lytic focus may be hard to see.
    return np.asarray(hu + weight * np.minimum(tumour - hu, 0.0), np.float32), weight


def blastic_lesion(rng: Rng, canvas: VertebraPatch) -> tuple[Field, float]:
    """Weight 0..1 of new bone and its density in HU, for one of the patterns of sclerosis."""
    size = body_radius(canvas)
    pattern = rng.choice(
        ["focal", "multifocal", "diffuse", "ivory", "rim"], p=[0.42, 0.2, 0.22, 0.06, 0.1]
    )
    if pattern == "ivory":
        texture = np.clip(0.85 + 0.15 * smooth_field(rng, canvas, 6.0), 0.3, 1.0)
        return np.asarray(texture, np.float32), rng.uniform(300, 700)
    if pattern == "diffuse":
        region = blob(rng, canvas, seed_point(rng, canvas), size * rng.uniform(0.6, 1.3), 0.4, 4.0)
        patches = np.clip(0.6 + 0.4 * smooth_field(rng, canvas, rng.uniform(3.0, 8.0)), 0.0, 1.2)
        return np.asarray(region * patches, np.float32), log_uniform(rng, 150, 500)
    if pattern == "rim":
        radius, centre = rng.uniform(3.5, 0.7 * size), seed_point(rng, canvas)
        state = rng.bit_generator.state
        outer = blob(rng, canvas, centre, radius, 0.2, 0.8)
        rng.bit_generator.state = state  # the same outline, smaller
        inner = blob(rng, canvas, centre, radius * rng.uniform(0.45, 0.7), 0.2, 0.8)
        return np.asarray(np.clip(outer - inner, 0.0, 1.0), np.float32), log_uniform(rng, 200, 700)
    count = 1 if pattern == "focal" else int(rng.integers(2, 7))
    weight = np.zeros(canvas.body.shape, np.float32)
    for _ in range(count):
        radius = log_uniform(rng, 2.5, 0.75 * size if count == 1 else 0.35 * size)
        edge = rng.uniform(0.4, 1.0) if rng.random() < 0.5 else 0.6 * radius
        one = blob(rng, canvas, seed_point(rng, canvas), radius, rng.uniform(0.0, 0.35), edge)
        weight = np.maximum(weight, one * rng.uniform(0.7, 1.0))
    texture = np.clip(1 + rng.uniform(0, 0.3) * smooth_field(rng, canvas, 3.0), 0.4, 1.5)
    return np.asarray(weight * texture, np.float32), log_uniform(rng, 200, 850)


def paint_blastic(rng: Rng, canvas: VertebraPatch, hu: Field) -> tuple[Field, Field]:
    """HU after one blastic lesion (or group), and its weight.  New bone adds to what is there."""
    weight, density = blastic_lesion(rng, canvas)
    weight = weight * canvas.soft_body
    # Bone saturates: sclerosis next to cortex does not become metal.
    room = np.clip((1500.0 - hu) / 1000.0, 0.0, 1.0)
    return np.asarray(hu + weight * density * room, np.float32), weight


def draw_kind(rng: Rng) -> Kind:
    """What the metastases of one vertebra are."""
    kinds: tuple[Kind, ...] = ("lytic", "blastic", "mixed")
    return kinds[int(rng.choice(3, p=[0.45, 0.4, 0.15]))]


def paint_metastases(rng: Rng, canvas: VertebraPatch, kind: Kind) -> Painted:
    """One diseased vertebra, one to three lesions of a kind.

    A lesion that overlaps an earlier one of the other type takes its voxels where it changes them
    more.  The masks are where the density changed by at least VISIBLE_HU.
    """
    steps: list[Callable[[Rng, VertebraPatch, Field], tuple[Field, Field]]] = []
    if kind != "blastic":
        steps += [paint_lytic] * int(rng.choice([1, 2, 3], p=[0.65, 0.25, 0.1]))
    if kind != "lytic":
        steps += [paint_blastic] * int(rng.choice([1, 2], p=[0.8, 0.2]))
    order = rng.permutation(len(steps))
    hu = canvas.hu
    for step in order:
        hu, _ = steps[step](rng, canvas, hu)
    change = np.where(canvas.body, hu - canvas.hu, 0.0)
    return Painted(hu, change <= -VISIBLE_HU, change >= VISIBLE_HU)
