"""Benign changes that look like metastases; healthy and diseased vertebrae both get them.

Each painter takes and gives back HU (S, P, I) before blur and noise.  What a call does not fix is
drawn: a patient's changes go together (see ``patient``), those of a lone vertebra are random.

What each looks like follows the literature named beside it; where a look-alike and a metastasis
could not be told apart even by a reader with the whole scan, the look-alike is kept away from what
metastases are drawn as (see ``metastases``), because such a pair teaches nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .random_fields import (
    Field,
    Rng,
    VertebraPatch,
    blob,
    columns_field,
    log_uniform,
    random_point,
    smooth_field,
)

Painter = Callable[[Rng, VertebraPatch, Field], Field]
# Where in the section of a body: from -1 to 1 to the patient's right, and towards posterior.
Site = tuple[float, float]


def marrow_density(
    rng: Rng, canvas: VertebraPatch, hu: Field, *, shift_hu: float | None = None
) -> Field:
    """Another density of the marrow, cortex kept: moved by ``shift_hu``, or to another age.

    40 HU (osteoporosis) to 300 HU (young): Pickhardt et al., Ann Intern Med 2013;158:588-595.
    """
    if shift_hu is None:
        inside = canvas.depth > 2.5
        now = float(np.median(hu[inside])) if inside.any() else 150.0
        target = rng.uniform(100, 300) if rng.random() < 0.85 else rng.uniform(40, 100)
        shift_hu = target - now
    marrow = np.clip((600.0 - hu) / 300.0, 0.0, 1.0) * canvas.soft_body
    return np.asarray(hu + shift_hu * marrow, np.float32)


def heterogeneous_marrow(
    rng: Rng,
    canvas: VertebraPatch,
    hu: Field,
    *,
    coarse_hu: float | None = None,
    fine_hu: float | None = None,
) -> Field:
    """Red and fatty marrow in patches, coarse and fine."""
    coarse_hu = rng.uniform(4, 18) if coarse_hu is None else coarse_hu
    fine_hu = rng.uniform(2, 16) if fine_hu is None else fine_hu
    coarse = smooth_field(rng, canvas, rng.uniform(6, 14)) * coarse_hu
    fine = smooth_field(rng, canvas, rng.uniform(1.5, 4)) * fine_hu
    return np.asarray(hu + canvas.soft_body * (coarse + fine), np.float32)


def coarse_trabeculae(
    rng: Rng, canvas: VertebraPatch, hu: Field, *, amount_hu: float | None = None
) -> Field:
    """Few, thick vertical trabeculae, as osteoporosis leaves them: lines, in cross-section dots."""
    amount_hu = rng.uniform(15, 50) if amount_hu is None else amount_hu
    columns = np.clip(columns_field(rng, canvas, rng.uniform(1.5, 3.0)), -0.9, 2.6)
    waver = np.clip(1.0 + 0.5 * smooth_field(rng, canvas, 8.0), 0.0, 2.0)
    inner = np.clip(canvas.depth / 3.0, 0.0, 1.0)
    return np.asarray(hu + inner * waver * columns * amount_hu, np.float32)


def central_condensation(
    rng: Rng, canvas: VertebraPatch, hu: Field, *, amount_hu: float | None = None
) -> Field:
    """Denser trabeculae round the basivertebral confluence, with rays into the body.

    Normal at mid-height, mostly in T5 to T12; soft-edged, in all neighbours alike, and no denser
    than 130 HU above the marrow: a focus that is alone or denser is a metastasis.
    """
    amount_hu = rng.uniform(30, 130) if amount_hu is None else amount_hu
    s, p, i = canvas.coordinates()
    (s0, s1), (p0, p1), (i0, i1) = canvas.extent
    ds = s - (s0 + s1) / 2 - rng.normal(0, 1.0)
    dp = p - (p0 + rng.uniform(0.5, 0.68) * (p1 - p0))
    di = i - (i0 + i1) / 2 - rng.normal(0, 1.0)
    widths = rng.uniform(4.5, 8.0), rng.uniform(3.5, 6.5), rng.uniform(2.5, 5.0)
    core = np.exp(-0.5 * ((ds / widths[0]) ** 2 + (dp / widths[1]) ** 2 + (di / widths[2]) ** 2))
    angle = np.arctan2(dp, ds)
    rays = np.clip(np.cos(rng.integers(7, 12) * angle + rng.uniform(0, 6.3)), 0.0, 1.0)
    far = np.exp(-np.hypot(ds, dp) / 9.0) * np.exp(-0.5 * (di / widths[2]) ** 2)
    patches = np.clip(1.0 + 0.25 * smooth_field(rng, canvas, 3.0), 0.4, 1.6)
    dense = amount_hu * (core * patches + 0.6 * rays * far)
    return np.asarray(hu + dense * np.clip(canvas.depth / 3.0, 0.0, 1.0), np.float32)


def pedicle_roots(
    rng: Rng, canvas: VertebraPatch, hu: Field, *, amount_hu: float | None = None
) -> Field:
    """Dense posterolateral corners of the upper half, where pedicles and ribs lean on the body."""
    amount_hu = rng.uniform(50, 220) if amount_hu is None else amount_hu
    s, p, i = canvas.coordinates()
    (s0, s1), (_, p1), (i0, i1) = canvas.extent
    half = (s1 - s0) / 2
    dp = (p - (p1 - 2.0)) / rng.uniform(2.5, 4.5)
    di = (i - (i0 + rng.uniform(0.22, 0.4) * (i1 - i0))) / rng.uniform(3.0, 5.5)
    dense = np.zeros(hu.shape, np.float32)
    for side in (-1.0, 1.0):
        ds = (s - (s0 + s1) / 2 - side * rng.uniform(0.6, 0.8) * half) / rng.uniform(2.5, 4.5)
        one = np.exp(-0.5 * (ds**2 + dp**2 + di**2)) * amount_hu * rng.uniform(0.75, 1.25)
        dense += one.astype(np.float32)
    return np.asarray(hu + dense * canvas.soft_body, np.float32)


def endplate_sclerosis(
    rng: Rng,
    canvas: VertebraPatch,
    hu: Field,
    *,
    upper: bool | None = None,
    site: Site | None = None,
    amount_hu: float | None = None,
) -> Field:
    """Draw a dense, patchy endplate (Modic et al., Radiology 1988;166:193-199: type 3).

    With a ``site`` it is a dome over that part of the disc (hemispherical spondylosclerosis).
    """
    upper = rng.random() < 0.5 if upper is None else upper
    amount_hu = rng.uniform(80, 450) if amount_hu is None else amount_hu
    depth = canvas.from_upper if upper else canvas.from_lower
    band = np.exp(-((depth / rng.uniform(1.5, 6.0)) ** 2))
    patches = np.clip(0.5 + 0.6 * smooth_field(rng, canvas, rng.uniform(6, 15)), 0.0, 1.5)
    if site is not None:
        band = band * _around(canvas, site, rng.uniform(5, 10))
        patches = np.clip(0.9 + 0.2 * smooth_field(rng, canvas, 5.0), 0.3, 1.3)
    return np.asarray(hu + canvas.soft_body * band * patches * amount_hu, np.float32)


def bone_island(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Enostosis: compact bone, sharp, a bit spiculated, 3 to 8 mm across.

    Mean 1190 HU against 654 in untreated osteoblastic metastases, border 885: Ulano et al., AJR
    2016;207:362-368.
    """
    where = random_point(rng, canvas, canvas.depth > 1.0)
    island = blob(rng, canvas, where, log_uniform(rng, 1.5, 4.0), rng.uniform(0.1, 0.35), 0.4)
    target = np.clip(rng.normal(1190, 160), 980, 1500)
    return np.asarray(hu + island * canvas.soft_body * np.maximum(target - hu, 0.0), np.float32)


def schmorl_node(
    rng: Rng,
    canvas: VertebraPatch,
    hu: Field,
    *,
    upper: bool | None = None,
    site: Site | None = None,
    radius_mm: float | None = None,
    rim_hu: float | None = None,
) -> Field:
    """Disc herniated through an endplate: a notch of disc density, open to the disc, in a shell.

    The opening and the sclerotic margin tell it from metastases: Pfirrmann and Resnick, Radiology
    2001;219:368-374.
    """
    upper = rng.random() < 0.5 if upper is None else upper
    site = (rng.uniform(-0.6, 0.6), rng.uniform(-0.3, 0.6)) if site is None else site
    large = rng.random() < 0.15
    radius = radius_mm or (rng.uniform(5.0, 8.0) if large else rng.uniform(2.0, 5.0))
    rim_hu = rng.uniform(150, 600) if rim_hu is None else rim_hu
    where = endplate_point(canvas, upper, site)
    inwards = 1.0 if upper else -1.0
    where = where + np.array([0.0, 0.0, inwards * rng.uniform(0.1, 0.5) * radius])
    state = rng.bit_generator.state
    shell = blob(rng, canvas, where, radius + rng.uniform(1.0, 3.0), 0.12, 1.0)
    rng.bit_generator.state = state  # the same outline, smaller
    node = blob(rng, canvas, where, radius, 0.12, 0.6)
    hu = hu + np.clip(shell - node, 0, 1) * canvas.soft_body * rim_hu
    # It opens the endplate, whose cortex may lie outside of the mask; further out is disc anyway.
    node = node * (ndimage.uniform_filter(canvas.body.astype(np.float32), 5) > 0.02)
    return np.asarray(hu + node * (rng.uniform(40, 110) - hu), np.float32)


def haemangioma(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Thick vertical trabeculae in a fatty bed ("corduroy", in cross-section "polka dots").

    Laredo et al., Radiology 1990;177:467-472: fat between the trabeculae marks those that stay as
    they are.  One without fat and without trabeculae that the scan resolves is a lytic lesion to
    anybody who has this scan alone: none is drawn.
    """
    where = random_point(rng, canvas, canvas.depth > 3.0)
    region = blob(rng, canvas, where, rng.uniform(4, 14), 0.2, 1.5) * canvas.soft_body
    columns = np.clip(columns_field(rng, canvas, rng.uniform(2.0, 3.2)) + 0.2, 0.0, 2.2)
    waver = np.clip(1.0 + 0.25 * smooth_field(rng, canvas, 6.0), 0.3, 1.7)
    texture = rng.uniform(-70, 10) + columns * waver * rng.uniform(130, 260)
    return np.asarray(hu + 0.9 * region * (texture - hu), np.float32)


def basivertebral_cleft(
    rng: Rng, canvas: VertebraPatch, hu: Field, *, blood_hu: float | None = None
) -> Field:
    """Draw the veins' channel: a wedge at mid-height, narrowing from the posterior wall forwards.

    Filled with fat and blood, brighter after contrast.
    """
    s, p, i = canvas.coordinates()
    (s0, s1), (_, p1), (i0, i1) = canvas.extent
    height, length = rng.uniform(1.2, 3.4), rng.uniform(5, 16)
    blood_hu = rng.uniform(0, 60) if blood_hu is None else blood_hu
    forward = np.clip((p - (p1 - length)) / length, 0.0, 1.0)
    width = 1.2 + rng.uniform(3, 8) * forward
    across = np.exp(-(((s - (s0 + s1) / 2) / width) ** 2))
    level = np.exp(-(((i - (i0 + i1) / 2 - rng.uniform(-2, 2)) / height) ** 2))
    cleft = across * np.clip(3.0 * forward, 0.0, 1.0) * level * canvas.soft_body
    return np.asarray(hu + cleft * rng.uniform(0.75, 1.0) * (blood_hu - hu), np.float32)


def osteophyte(
    rng: Rng,
    canvas: VertebraPatch,
    hu: Field,
    *,
    upper: bool | None = None,
    site: Site | None = None,
) -> Field:
    """Draw a dense corner: sclerotic lipping where an endplate meets the wall."""
    if upper is None or site is None:
        depth = np.minimum(canvas.from_upper, canvas.from_lower)
        where = random_point(rng, canvas, canvas.body & (depth < 3.0) & (canvas.depth < 2.0))
    else:
        where = endplate_point(canvas, upper, site)
    lip = blob(rng, canvas, where, rng.uniform(2.0, 5.0), 0.25, 1.0)
    target = rng.uniform(350, 800)
    return np.asarray(hu + lip * np.maximum(target - hu, 0.0) * canvas.soft_body, np.float32)


def flowing_ossification(
    rng: Rng, canvas: VertebraPatch, hu: Field, *, angle: float | None = None
) -> Field:
    """DISH: ossified ligament along the right front wall, fused with the cortex.

    Resnick and Niwayama, Radiology 1976;119:559-568; mostly T8 to T10 and away from the aorta:
    Hiyama et al., BMC Musculoskelet Disord 2018;19:178.  ``angle`` is its middle in radians from
    the front towards the right.
    """
    angle = rng.uniform(-0.2, 1.1) if angle is None else angle
    s, p, i = canvas.coordinates()
    (s0, s1), (p0, p1), (i0, i1) = canvas.extent
    around = np.arctan2(s - (s0 + s1) / 2, (p0 + p1) / 2 - p)
    sector = np.clip(1.4 - np.abs(around - angle) / rng.uniform(0.35, 0.8), 0.0, 1.0)
    to_disc = np.clip(np.abs(i - (i0 + i1) / 2) / (0.5 * (i1 - i0) + 1e-6), 0.0, 1.3)
    thickness = rng.uniform(0.6, 2.0) + rng.uniform(0.3, 2.0) * to_disc**2
    thickness = thickness * np.clip(1 + 0.3 * smooth_field(rng, canvas, 6.0), 0.2, 1.6)
    section = (*canvas.spacing[:2], 1e3)  # across the body's axis: endplates are not a wall
    inside = ndimage.distance_transform_edt(canvas.body, sampling=section)
    outside = ndimage.distance_transform_edt(~canvas.body, sampling=section)
    near = np.where(canvas.body, np.maximum(inside - canvas.spacing[1], 0.0), 0.6 * outside)
    bone = np.clip((thickness - near) / 0.8 + 0.5, 0.0, 1.0) * sector
    target = rng.uniform(600, 1150) * np.clip(1 + 0.15 * smooth_field(rng, canvas, 4.0), 0.5, 1.4)
    bone = bone * (outside < 3.0)
    return np.asarray(hu + bone * np.maximum(target - hu, 0.0), np.float32)


def fatty_island(rng: Rng, canvas: VertebraPatch, hu: Field) -> Field:
    """Focal fatty marrow: towards the density of fat, trabeculae left, without a hard edge.

    Below that of any tumour at its middle, where it is not faint.
    """
    where = random_point(rng, canvas, canvas.depth > 2.0)
    region = blob(rng, canvas, where, rng.uniform(3, 9), 0.3, 4.0) * canvas.soft_body
    fat = rng.uniform(-90, -20)
    inside = canvas.depth > 2.0
    marrow = float(np.median(hu[inside])) if inside.any() else 150.0
    share = rng.uniform(0.12, 0.3) if rng.random() < 0.6 else rng.uniform(0.8, 1.0)
    return np.asarray(hu - region * share * max(marrow - fat, 20.0), np.float32)


def impaction_band(
    rng: Rng, canvas: VertebraPatch, hu: Field, *, upper: bool | None = None
) -> Field:
    """Draw an old or healing compression fracture: a dense line along and below an endplate."""
    upper = rng.random() < 0.7 if upper is None else upper
    depth = canvas.from_upper if upper else canvas.from_lower
    wavy = depth - rng.uniform(3, 8) - 0.8 * smooth_field(rng, canvas, 8.0)
    band = np.exp(-((wavy / rng.uniform(0.8, 2.0)) ** 2))
    return np.asarray(hu + band * canvas.soft_body * rng.uniform(80, 350), np.float32)


def wedged(canvas: VertebraPatch, front: float, back: float, upper: bool) -> VertebraPatch:
    """Return the body as an old compression fracture leaves it, pressed from one endplate.

    ``front`` and ``back`` are the shares of height lost there: 0.2 to 0.4 at one end is a grade 1
    or 2 fracture of Genant et al., J Bone Miner Res 1993;8:1137-1148.  Bone is pressed together, so
    that it is denser by half of the loss.
    """
    (_, _), (p0, p1), (i0, i1) = canvas.extent
    p = np.arange(canvas.body.shape[1]) * canvas.spacing[1]
    i = np.arange(canvas.body.shape[2]) * canvas.spacing[2]
    along = np.clip((p - p0) / max(p1 - p0, 1e-6), 0.0, 1.0)
    kept = 1.0 - (front + (back - front) * along)  # (P,)
    fixed = i1 if upper else i0
    source = fixed + (i[None, :] - fixed) / kept[:, None]  # where each voxel was, mm (P, I)
    at = np.clip(source / canvas.spacing[2], 0, len(i) - 1.001)
    low = np.floor(at).astype(int)[None]
    share = (at - np.floor(at)).astype(np.float32)[None]
    shape = canvas.body.shape

    def moved(field: npt.NDArray[np.float32]) -> Field:
        index = np.broadcast_to(low, shape)
        lower = np.take_along_axis(field, index, axis=2)
        upper_ = np.take_along_axis(field, index + 1, axis=2)
        return np.asarray(lower * (1 - share) + upper_ * share, np.float32)

    body = moved(canvas.body.astype(np.float32)) >= 0.5
    pressed = 1.0 + 0.5 * (1.0 / kept - 1.0)[None, :, None]
    hu = moved(canvas.hu)
    dense = np.where(body & (hu > 0) & (hu < 500), hu * pressed, hu)
    return VertebraPatch(np.asarray(dense, np.float32), body, canvas.spacing)


def endplate_point(canvas: VertebraPatch, upper: bool, site: Site) -> npt.NDArray[np.float64]:
    """Return the position in mm (S, P, I) on an endplate that is nearest to a site."""
    (s0, s1), (p0, p1), _ = canvas.extent
    at = np.array(
        [(s0 + s1) / 2 + site[0] * (s1 - s0) / 2, (p0 + p1) / 2 + site[1] * (p1 - p0) / 2]
    )
    columns = np.argwhere(canvas.body.any(axis=2))
    if not len(columns):
        return np.array([at[0], at[1], 0.0])
    away = ((columns * canvas.spacing[:2] - at) ** 2).sum(axis=1)
    column = columns[int(np.argmin(away))]
    hit = np.flatnonzero(canvas.body[column[0], column[1]])
    end = hit[0] if upper else hit[-1]
    return np.array([*(column * canvas.spacing[:2]), end * canvas.spacing[2]])


def _around(canvas: VertebraPatch, site: Site, radius_mm: float) -> Field:
    """Return a soft weight 0..1 (S, P, 1) round a site."""
    s, p, _ = canvas.coordinates()
    (s0, s1), (p0, p1), _ = canvas.extent
    ds = s - ((s0 + s1) / 2 + site[0] * (s1 - s0) / 2)
    dp = p - ((p0 + p1) / 2 + site[1] * (p1 - p0) / 2)
    return np.asarray(np.exp(-(((ds**2 + dp**2) / radius_mm**2) ** 2)), np.float32)
