"""Simulated vertebral metastases, painted into clean HU before blur and noise.

What is drawn follows the radiology literature: lytic destruction is geographic, moth-eaten or
permeative (Lodwick) and leaves soft-tissue attenuation; osteoblastic metastases have 654 HU in the
mean (deviation 176), bone islands 1190 (Ulano et al., AJR 2016;207:362-368), and occur as foci, as
confluent or diffuse sclerosis and as "ivory" vertebrae; the posterior body is seeded first, where
the vessels enter (Algra et al., AJR 1992;158:1275-1279, and Radiology 1992;184:665-674).

Kept away from what is benign: sclerotic foci begin away from the endplates, where degeneration is
dense, and are never smaller than a bone island may be; lytic foci with a sclerotic rim do not open
to the disc, as Schmorl nodes do; tumour is never as dark as fat.
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
# Change of density (HU) from which a voxel counts as lesion: below, no reader sees it.
VISIBLE_HU = 60.0
PLAIN_CLUTTER = 1.5  # and the same in deviations of the marrow around it


def seen_bounds(change: Field) -> tuple[float, float]:
    """Return the changes in HU from which a reader sees lytic and blastic lesions.

    Strong ones are outlined at three tenths of their strength, not where they fade away.
    """
    bounds = []
    for strength in (-change, change):
        strong = strength[strength >= VISIBLE_HU]
        peak = float(np.percentile(strong, 95)) if strong.size else 0.0
        bounds.append(float(np.clip(0.3 * peak, VISIBLE_HU, 1.9 * VISIBLE_HU)))
    return -bounds[0], bounds[1]


def outlined(mask: Mask, body: Mask, spacing: tuple[float, float, float]) -> Mask:
    """Outline the mask (S, P, I) as a reader does: gaps closed, no specks, inside the body."""
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
    """Return the robust deviation of a healthy vertebra's marrow in HU, noise and texture alike."""
    inside = hu[depth > 3.0]
    if inside.size == 0:
        return 0.0
    return 1.4826 * float(np.median(np.abs(inside - np.median(inside))))


def plain(
    change: Field,
    lesions: Mask,
    clutter_hu: float,
    least_hu: float = PLAIN_HU,
    least_clutter: float = PLAIN_CLUTTER,
    voxel_mm3: float | None = None,
) -> bool:
    """Return whether every lesion (joined by faces) stands out by its mean change in HU.

    With ``voxel_mm3`` known, lesions below 10 mm need the more contrast the smaller they are.
    """
    parts, count = ndimage.label(lesions)
    if count == 0:
        return False
    means = np.asarray(ndimage.mean(np.abs(change), parts, range(1, count + 1)))
    needed = np.full(count, least_clutter * clutter_hu)
    if voxel_mm3 is not None:
        volumes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * voxel_mm3
        needed *= np.maximum(10.0 / np.cbrt(6 * volumes / np.pi), 1.0)
    return bool((means >= np.maximum(needed, least_hu)).all())


def diameters(lesions: Mask, spacing: tuple[float, float, float]) -> list[float]:
    """Return the longest axial diameter in mm of each lesion (S, P, I), joined by faces.

    As readers and RECIST measure (Eisenhauer et al., Eur J Cancer 2009;45:228-247), in the planes
    across the body's own axis.
    """
    parts, _ = ndimage.label(lesions)
    angles = np.arange(12) * np.pi / 12
    directions = np.stack([np.cos(angles), np.sin(angles)])
    result = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        at = np.argwhere(parts[box] == number)
        at = at[np.argsort(at[:, 2], kind="stable")]
        along = (at[:, :2] * spacing[:2]) @ directions
        starts = np.flatnonzero(np.diff(at[:, 2], prepend=-1))
        width = np.maximum.reduceat(along, starts) - np.minimum.reduceat(along, starts)
        result.append(float(width.max()) + float(np.mean(spacing[:2])))
    return result


# Mean diameters.  The longest, which is reported, is a quarter more: below 6, 6 to 10, above 10.
SIZES_MM = ((4.0, 5.0), (5.0, 8.0), (8.0, 15.0), (15.0, 28.0))
SIZE_CHANCES = (0.3, 0.3, 0.25, 0.15)
DIFFUSE_MM = 14.0  # smaller disease is a focus
WALL_MM = 4.0  # lytic foci begin at most so far from the surface
RIM_FREE_MM = 3.0  # sclerotic foci and rims begin at least this far from an endplate

Kind = Literal["lytic", "blastic", "mixed"]


@dataclass(frozen=True)
class Disease:
    """What the metastases of one patient have in common.

    ``tumour_hu``: density of the tumour that replaces bone.  ``new_bone_hu``: mean density of
    sclerotic foci.  ``smallest_mm``: diameter below which the scan's slices lose a lesion.
    """

    kind: Kind
    tumour_hu: float
    new_bone_hu: float
    smallest_mm: float = 4.0


def draw_kind(rng: Rng) -> Kind:
    """Draw what most metastases of a patient are."""
    kinds: tuple[Kind, ...] = ("lytic", "blastic", "mixed")
    return kinds[int(rng.choice(3, p=[0.45, 0.4, 0.15]))]


def draw_disease(
    rng: Rng, kind: Kind | None = None, enhanced: float = 0.0, slices_mm: float = 0.0
) -> Disease:
    """Draw a patient's kind of metastases; ``enhanced`` HU after contrast, in slices so thick."""
    return Disease(
        kind or draw_kind(rng),
        rng.uniform(15, 65) + enhanced,
        float(np.clip(rng.normal(654, 140), 420, 860)),
        max(4.0, 1.5 * slices_mm),
    )


@dataclass(frozen=True)
class Painted:
    """HU with lesions, and the lesions' masks; a voxel is in at most one of the two."""

    hu: Field
    lytic: Mask
    blastic: Mask


def seed_point(
    rng: Rng, canvas: VertebraPatch, from_endplates: float = 0.0, from_wall: float = 0.0
) -> npt.NDArray[np.float64]:
    """Draw where a metastasis starts (mm): in the body, the posterior third twice as often.

    At least so far from endplates and from the body's surface, where there is such a place.
    """
    rows = np.flatnonzero(canvas.body.any(axis=(0, 2)))
    behind = rows[0] + (rows[-1] - rows[0]) * 2 / 3
    weight = canvas.body * (1.0 + (np.arange(canvas.body.shape[1]) > behind)[None, :, None])
    if from_endplates > 0:
        inner = np.minimum(canvas.from_upper, canvas.from_lower) >= from_endplates
        weight = weight * inner if (inner & canvas.body).any() else weight
    if from_wall > 0:
        inner = canvas.depth >= from_wall
        weight = weight * inner if (weight * inner).any() else weight
    return random_point(rng, canvas, weight)


def body_radius(canvas: VertebraPatch) -> float:
    """Return the radius in mm of the ball as large as the body: the scale of sizes below."""
    return float(np.cbrt(canvas.body.sum() * np.prod(canvas.spacing) * 3 / (4 * np.pi)))


def draw_diameter(rng: Rng, smallest_mm: float = 4.0) -> float:
    """Draw a lesion's diameter in mm, from that which the scan can show to a whole body."""
    low, high = SIZES_MM[int(rng.choice(len(SIZES_MM), p=SIZE_CHANCES))]
    return max(log_uniform(rng, low, high), smallest_mm)


def lytic_lesion(rng: Rng, canvas: VertebraPatch, radius: float, rimmed: bool = False) -> Field:
    """Return a weight 0..1 of bone replaced by tumour, in a pattern of destruction."""
    inside = min(0.8 * radius, WALL_MM)  # a notch in the cortex alone is not a finding
    centre = seed_point(rng, canvas, radius + RIM_FREE_MM if rimmed else 0.0, inside)
    pattern = rng.choice(["geographic", "moth-eaten", "permeative"], p=[0.7, 0.17, 0.13])
    if pattern == "geographic" or rimmed or radius < 4.0:
        edge = min(rng.uniform(0.3, 2.0), 0.35 * radius)
        return blob(rng, canvas, centre, radius, rng.uniform(0.05, 0.35), edge)
    region = blob(rng, canvas, centre, max(1.2 * radius, 5.0), 0.3, 3.0)
    if pattern == "moth-eaten":
        holes = np.zeros_like(region)
        for _ in range(int(rng.integers(4, 12))):
            at = random_point(rng, canvas, region * canvas.body)
            holes = np.maximum(holes, blob(rng, canvas, at, rng.uniform(1.5, 3.0), 0.2, 0.6))
        return np.asarray(np.maximum(holes, 0.45 * region), np.float32)
    speckle = np.clip(0.65 + 0.35 * smooth_field(rng, canvas, rng.uniform(1.5, 3.0)), 0.0, 1.0)
    return np.asarray(region * speckle, np.float32)


def paint_lytic(
    rng: Rng,
    canvas: VertebraPatch,
    hu: Field,
    disease: Disease | None = None,
    diameter_mm: float | None = None,
) -> tuple[Field, Field]:
    """Return HU after one lytic lesion, and the lesion's weight.

    Bone gives way to tumour tissue.  A third of the lesions break through the cortex; some carry a
    sclerotic rim.
    """
    disease = disease or draw_disease(rng, "lytic")
    diameter_mm = diameter_mm or draw_diameter(rng, disease.smallest_mm)
    radius = min(diameter_mm / 2, 0.9 * body_radius(canvas))
    rimmed = rng.random() < 0.2 and radius < 0.3 * float(np.ptp(canvas.extent[2]))
    weight = lytic_lesion(rng, canvas, radius, rimmed) * rng.uniform(0.85, 1.0)
    if rng.random() > 0.35:
        weight = weight * np.clip(canvas.depth / 1.5, 0.0, 1.0)
    else:
        weight = weight * canvas.soft_body
    if rimmed:
        # From a thin rim to a broad soft one round a core of tumour.
        wide = ndimage.gaussian_filter(weight, rng.uniform(1.2, 3.5) / np.array(canvas.spacing))
        hu = hu + np.clip(wide - weight, 0, 1) * canvas.soft_body * rng.uniform(150, 600)
    tumour = disease.tumour_hu + rng.normal(0, 5) + 8 * smooth_field(rng, canvas, 4.0)
    # Tumour never brightens: in fatty or osteoporotic marrow a lytic focus may be hard to see.
    return np.asarray(hu + weight * np.minimum(tumour - hu, 0.0), np.float32), weight


def blastic_lesion(rng: Rng, canvas: VertebraPatch, diameter_mm: float) -> tuple[Field, float]:
    """Return a weight 0..1 of new bone and the share of its full density, for one pattern."""
    size = body_radius(canvas)
    patterns, chances = ["focal", "multifocal"], [0.8, 0.2]
    if diameter_mm >= DIFFUSE_MM:
        patterns, chances = [*patterns, "diffuse", "ivory", "rim"], [0.4, 0.1, 0.3, 0.1, 0.1]
    pattern = rng.choice(patterns, p=chances)
    if pattern == "ivory":
        texture = np.clip(0.85 + 0.15 * smooth_field(rng, canvas, 6.0), 0.3, 1.0)
        return np.asarray(texture, np.float32), rng.uniform(0.7, 1.2)
    if pattern == "diffuse":
        region = blob(rng, canvas, seed_point(rng, canvas), size * rng.uniform(0.7, 1.3), 0.4, 4.0)
        patches = np.clip(0.7 + 0.4 * smooth_field(rng, canvas, rng.uniform(3.0, 8.0)), 0.0, 1.2)
        return np.asarray(region * patches, np.float32), rng.uniform(0.5, 1.0)
    if pattern == "rim":
        radius, centre = min(diameter_mm / 2, 0.75 * size), seed_point(rng, canvas, RIM_FREE_MM)
        state = rng.bit_generator.state
        outer = blob(rng, canvas, centre, radius, 0.2, 0.8)
        rng.bit_generator.state = state  # the same outline, smaller
        inner = blob(rng, canvas, centre, radius * rng.uniform(0.45, 0.65), 0.2, 0.8)
        return np.asarray(np.clip(outer - inner, 0.0, 1.0), np.float32), rng.uniform(0.8, 1.1)
    count = 1 if pattern == "focal" else int(rng.integers(2, 6))
    weight = np.zeros(canvas.body.shape, np.float32)
    for _ in range(count):
        radius = min(diameter_mm / 2, (0.9 if count == 1 else 0.4) * size)
        edge = min(rng.uniform(0.4, 1.0), 0.4 * radius) if rng.random() < 0.6 else 0.5 * radius
        where = seed_point(rng, canvas, RIM_FREE_MM)
        one = blob(rng, canvas, where, radius, rng.uniform(0.05, 0.45), edge)
        weight = np.maximum(weight, one * rng.uniform(0.8, 1.0))
    texture = np.clip(1 + rng.uniform(0, 0.35) * smooth_field(rng, canvas, 2.5), 0.4, 1.4)
    return np.asarray(weight * texture, np.float32), 1.0


def paint_blastic(
    rng: Rng,
    canvas: VertebraPatch,
    hu: Field,
    disease: Disease | None = None,
    diameter_mm: float | None = None,
) -> tuple[Field, Field]:
    """Return HU after one blastic lesion (or group), and its weight: new bone adds to the old."""
    disease = disease or draw_disease(rng, "blastic")
    diameter_mm = diameter_mm or draw_diameter(rng, disease.smallest_mm)
    weight, share = blastic_lesion(rng, canvas, diameter_mm)
    weight = weight * canvas.soft_body
    inside = canvas.depth > 2.0
    marrow = float(np.median(hu[inside])) if inside.any() else 150.0
    added = share * max(disease.new_bone_hu + rng.normal(0, 60) - marrow, 180.0)
    # Bone saturates: sclerosis next to cortex does not become metal.
    room = np.clip((1500.0 - hu) / 1000.0, 0.0, 1.0)
    return np.asarray(hu + weight * added * room, np.float32), weight


def paint_metastases(
    rng: Rng,
    canvas: VertebraPatch,
    kind: Kind,
    disease: Disease | None = None,
    diameter_mm: float | None = None,
) -> Painted:
    """Return one diseased vertebra, one to three lesions of a kind, the largest of a diameter.

    A lesion that overlaps an earlier one of the other type takes its voxels where it changes them
    more.  The masks are where the density changed by at least VISIBLE_HU.
    """
    disease = disease or draw_disease(rng, kind)
    steps: list[Callable[..., tuple[Field, Field]]] = []
    if kind != "blastic":
        steps += [paint_lytic] * int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    if kind != "lytic":
        steps += [paint_blastic] * int(rng.choice([1, 2], p=[0.8, 0.2]))
    diameter_mm = diameter_mm or draw_diameter(rng, disease.smallest_mm)
    order = rng.permutation(len(steps))
    hu = canvas.hu
    for number, step in enumerate(order):
        smaller = 1.0 if number == 0 else rng.uniform(0.4, 1.0)
        size = max(smaller * diameter_mm, disease.smallest_mm)
        hu, _ = steps[step](rng, canvas, hu, disease, size)
    change = np.where(canvas.body, hu - canvas.hu, 0.0)
    return Painted(hu, change <= -VISIBLE_HU, change >= VISIBLE_HU)
