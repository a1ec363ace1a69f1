"""Benign changes that look like metastases; healthy and diseased vertebrae both get them.

Each painter takes and gives back HU (S, P, I) before blur and noise.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .random_fields import (
    Field,
    Rng,
    VertebraPatch,
    blob,
    log_uniform,
    random_point,
    smooth_field,
)


def marrow_density(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Another age: trabecular density of 40 (osteoporosis) to 300 HU (young), cortex kept.

    Cited range: Pickhardt et al., Ann Intern Med 2013;158:588-595.
    """
    inside = canvas.depth > 2.5
    now = float(np.median(hu[inside])) if inside.any() else 150.0
    target = rng.uniform(100, 300) if rng.random() < 0.85 else rng.uniform(40, 100)
    marrow = np.clip((600.0 - hu) / 300.0, 0.0, 1.0) * canvas.soft_body
    return np.asarray(hu + (target - now) * marrow, np.float32)


def heterogeneous_marrow(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Red and fatty marrow in patches, coarse and fine."""
    coarse = smooth_field(rng, canvas, rng.uniform(6, 14)) * rng.uniform(0, 18)
    fine = smooth_field(rng, canvas, rng.uniform(1.5, 4)) * rng.uniform(0, 16)
    return np.asarray(hu + canvas.soft_body * (coarse + fine), np.float32)


def endplate_sclerosis(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """A dense band along one endplate, patchy, thicker on one side (degenerative, Modic 3)."""
    depth = _from_endplate(canvas, upper=rng.random() < 0.5)
    band = np.exp(-((depth / rng.uniform(1.5, 6.0)) ** 2))
    patches = np.clip(0.5 + 0.6 * smooth_field(rng, canvas, rng.uniform(6, 15)), 0.0, 1.5)
    return np.asarray(hu + canvas.soft_body * band * patches * rng.uniform(80, 450), np.float32)


def bone_island(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Enostosis: small, very dense (above 885 HU: Ulano et al. 2016), sharp, a bit spiculated."""
    where = random_point(rng, canvas, canvas.depth > 1.0)
    island = blob(rng, canvas, where, log_uniform(rng, 1.2, 3.5), rng.uniform(0.05, 0.3), 0.3)
    target = rng.uniform(900, 1500)
    return np.asarray(hu + island * canvas.soft_body * np.maximum(target - hu, 0.0), np.float32)


def schmorl_node(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Disc herniated through an endplate: a rounded notch of disc density in a sclerotic shell."""
    depth = _from_endplate(canvas, upper=rng.random() < 0.5)
    where = random_point(rng, canvas, canvas.body & (depth < 1.5) & (canvas.depth < 3.0))
    radius = rng.uniform(2.0, 5.5)
    state = rng.bit_generator.state
    shell = blob(rng, canvas, where, radius + rng.uniform(1.0, 2.0), 0.1, 0.8)
    rng.bit_generator.state = state
    node = blob(rng, canvas, where, radius, 0.1, 0.5)
    hu = hu + np.clip(shell - node, 0, 1) * canvas.soft_body * rng.uniform(80, 500)
    return np.asarray(hu + node * (rng.uniform(40, 110) - hu), np.float32)


def haemangioma(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Coarse vertical trabeculae in a fatty or vascular bed ("corduroy", "polka dots").

    Thick and far enough apart to survive a common scan: one that shows none is, to a reader of
    this scan alone, a lytic lesion, and nobody can learn to tell them apart.
    """
    where = random_point(rng, canvas, canvas.depth > 3.0)
    region = blob(rng, canvas, where, rng.uniform(4, 14), 0.2, 1.5) * canvas.soft_body
    columns = smooth_field(rng, canvas, rng.uniform(2.0, 3.0)).mean(axis=2, keepdims=True)
    columns = columns / (columns.std() + 1e-6)
    bed = rng.uniform(-60, 60)
    texture = bed + np.clip(columns, 0, 2) * rng.uniform(150, 330)
    return np.asarray(hu + 0.85 * region * (texture - hu), np.float32)


def basivertebral_cleft(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """The vein's channel: a flat cleft from the middle of the posterior wall forwards."""
    s, p, i = canvas.coordinates()
    rows, columns, slices = _extent(canvas, 1), _extent(canvas, 2), _extent(canvas, 0)
    middle = (columns[0] + columns[1]) / 2 + rng.uniform(-2, 2)
    height, length = rng.uniform(1.0, 2.6), rng.uniform(5, 14)
    across = np.exp(-(((s - (slices[0] + slices[1]) / 2) / rng.uniform(3, 8)) ** 2))
    forward = np.clip((p - (rows[1] - length)) / 3.0, 0.0, 1.0)
    cleft = across * forward * np.exp(-(((i - middle) / height) ** 2)) * canvas.soft_body
    return np.asarray(hu + cleft * rng.uniform(0.5, 1.0) * (rng.uniform(10, 70) - hu), np.float32)


def osteophyte(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """A dense corner: sclerotic lipping where an endplate meets the wall."""
    depth = np.minimum(_from_endplate(canvas, True), _from_endplate(canvas, False))
    corner = canvas.body & (depth < 3.0) & (canvas.depth < 2.0)
    where = random_point(rng, canvas, corner)
    lip = blob(rng, canvas, where, rng.uniform(2.0, 5.0), 0.25, 1.0)
    target = rng.uniform(350, 800)
    return np.asarray(hu + lip * np.maximum(target - hu, 0.0) * canvas.soft_body, np.float32)


def fatty_island(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Focal fatty marrow: darker, but with its trabeculae left and no hard edge."""
    where = random_point(rng, canvas, canvas.depth > 2.0)
    region = blob(rng, canvas, where, rng.uniform(3, 9), 0.3, 3.0) * canvas.soft_body
    return np.asarray(hu - region * rng.uniform(15, 55), np.float32)


def impaction_band(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """A healing compression fracture: a dense line parallel to an endplate, a few mm below it."""
    depth = _from_endplate(canvas, upper=rng.random() < 0.7)
    wavy = depth - rng.uniform(3, 8) - 0.8 * smooth_field(rng, canvas, 8.0)
    band = np.exp(-((wavy / rng.uniform(0.8, 2.0)) ** 2))
    return np.asarray(hu + band * canvas.soft_body * rng.uniform(80, 350), np.float32)


# Chance of each change in a vertebra; densities and heterogeneity vary in nearly all.
MIMICS = (
    (marrow_density, 0.85),
    (heterogeneous_marrow, 0.9),
    (endplate_sclerosis, 0.3),
    (bone_island, 0.18),
    (schmorl_node, 0.16),
    (haemangioma, 0.08),
    (basivertebral_cleft, 0.3),
    (osteophyte, 0.25),
    (fatty_island, 0.2),
    (impaction_band, 0.08),
)


def paint_mimics(rng: Rng, canvas: VertebraPatch) -> Field:
    """HU of the vertebra with a random set of benign changes."""
    hu = canvas.hu
    for painter, chance in MIMICS:
        if rng.random() < chance:
            hu = painter(rng, canvas, hu)
    return hu


def _extent(canvas: VertebraPatch, axis: int) -> tuple[float, float]:
    hit = np.flatnonzero(canvas.body.any(axis=tuple(a for a in range(3) if a != axis)))
    return float(hit[0] * canvas.spacing[axis]), float(hit[-1] * canvas.spacing[axis])


def _from_endplate(canvas: VertebraPatch, upper: bool) -> Field:
    """Distance in mm along the columns from an endplate; large outside the body."""
    body = canvas.body if upper else canvas.body[:, :, ::-1]
    first = np.where(body.any(axis=2), body.argmax(axis=2), body.shape[2])
    # Endplates are smooth: single voxels of the mask's staircase should not show in the density.
    first = ndimage.median_filter(first, 3)
    depth = (np.arange(body.shape[2])[None, None] - first[..., None]) * canvas.spacing[2]
    depth = depth if upper else depth[:, :, ::-1]
    return np.where(canvas.body, np.maximum(depth, 0.0), 1e3).astype(np.float32)
