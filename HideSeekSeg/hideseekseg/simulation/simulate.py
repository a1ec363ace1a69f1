"""Simulated training data: real (and drawn) vertebrae, benign changes, metastases, scanners.

Every vertebra is drawn twice with everything equal but the metastases: the image and its healthy
twin.  Slices that a lesion crosses are labelled malignant, all slices of healthy vertebrae healthy;
slices of diseased vertebrae that show no lesion are left out.  Masks and twins are stored beside
the labels: label-only training does not read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..files import atomic
from ..model.profile import Geometry
from .acquisition import Acquisition, acquire, draw_noise, random_acquisition, scale
from .benign_mimics import paint_mimics
from .metastases import VISIBLE_HU, clutter, draw_kind, outlined, paint_metastases, plain
from .random_fields import Field, Mask, Rng, VertebraPatch
from .source_vertebrae import SourceVertebra, take_canvas

BODY, LYTIC, BLASTIC = 1, 2, 4
Spacing = tuple[float, float, float]  # mm along (S, P, I)
LEAST_LESION_PIXELS = 20
# Diseased vertebrae whose lesions may be fainter than a reader asks for, and how often the others
# are drawn before one that is faint has to do (in thin bone nothing lytic is plain).
FAINT_SHARE, PLAIN_TRIES = 0.15, 8
# Slices with less of the body than this share of the largest are its rims.
RIM_SHARE = 0.12
COMPACT_GEOMETRY = Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0, margin_pixels=1.0)


@dataclass(frozen=True)
class Sample:
    """One simulated vertebra, (S, P, I): HU with lesions, HU of the healthy twin, masks."""

    image: Field
    twin: Field
    body: Mask
    lytic: Mask
    blastic: Mask

    @property
    def lesion_pixels(self) -> np.ndarray:
        """Lesion pixels per slice."""
        return np.asarray((self.lytic | self.blastic).sum(axis=(1, 2)))


def draw_sample(rng: Rng, vertebra: SourceVertebra, geometry: Geometry, diseased: bool) -> Sample:
    """Draw benign changes, then lesions, then scan.

    What is painted is blurred as the vertebra's own scan was before it is added to it: the canvas
    is a picture already, the paint is not.
    """
    canvas, own_blur = take_canvas(rng, vertebra, geometry)
    how = random_acquisition(rng)
    benign = paint_mimics(rng, canvas)
    healthy = canvas.hu + _blurred(benign - canvas.hu, canvas, own_blur)
    noise = draw_noise(rng, canvas.body.shape, canvas.spacing, how)
    twin = acquire(healthy, canvas.spacing, how)
    if not diseased:
        none = np.zeros_like(canvas.body)
        image = scale(twin + noise, how)
        return Sample(image, image, canvas.body, none, none)
    marrow = VertebraPatch(benign, canvas.body, canvas.spacing)
    lesions = _draw_lesions(rng, marrow, own_blur, how, clutter(twin + noise, canvas.depth))
    grain = _grain_lost(rng, canvas, lesions.lost)
    return Sample(
        scale(twin + lesions.change + noise + grain, how),
        scale(twin + noise, how),
        canvas.body,
        lesions.lytic,
        lesions.blastic,
    )


@dataclass(frozen=True)
class _Lesions:
    """Metastases as the scan shows them: their change in HU, their outlines, the bone lost."""

    change: Field
    lytic: Mask
    blastic: Mask
    lost: Mask


def _draw_lesions(
    rng: Rng, marrow: VertebraPatch, own_blur: Spacing, how: Acquisition, clutter_hu: float
) -> _Lesions:
    """Metastases of one kind, drawn again until they are plain, but for a known share.

    The kind stays: lytic disease is harder to see and would else become rare.
    """
    kind = draw_kind(rng)
    tries = 1 if rng.random() < FAINT_SHARE else PLAIN_TRIES
    for _ in range(tries):
        painted = paint_metastases(rng, marrow, kind)
        change = acquire(_blurred(painted.hu - marrow.hu, marrow, own_blur), marrow.spacing, how)
        lytic, blastic = (
            outlined(marrow.body & seen, marrow.body, marrow.spacing)
            for seen in (change <= -VISIBLE_HU, change >= VISIBLE_HU)
        )
        if plain(change, lytic | blastic, clutter_hu):
            break
    return _Lesions(change, lytic & ~blastic, blastic, painted.lytic)


def _blurred(change: Field, canvas: VertebraPatch, sigma_mm: Spacing) -> Field:
    return np.asarray(
        ndimage.gaussian_filter(change, np.array(sigma_mm) / canvas.spacing, truncate=3.0),
        np.float32,
    )


def _grain_lost(rng: Rng, canvas: VertebraPatch, lytic: Mask) -> Field:
    """Noise for voxels where bone was replaced: the scan's own noise went with the bone there.

    The finest detail of marrow is noise and trabeculae; a third of it stands for the noise.
    """
    detail = canvas.hu - ndimage.gaussian_filter(canvas.hu, 1.0)
    inside = canvas.depth > 2.0
    deviation = 0.35 * float(detail[inside].std()) if inside.any() else 0.0
    fresh = ndimage.gaussian_filter(rng.standard_normal(canvas.body.shape).astype(np.float32), 0.7)
    where = ndimage.gaussian_filter(lytic.astype(np.float32), 1.0)
    return np.asarray(fresh / (fresh.std() + 1e-6) * deviation * where, np.float32)


def choose_slices(rng: Rng, sample: Sample, diseased: bool, most: int | None) -> np.ndarray:
    """Up to ``most`` slices through much of the body; of a diseased one those with a lesion.

    ``most`` None: every slice through the body, with and without lesion.
    """
    if most is None:
        return np.flatnonzero(sample.body.any(axis=(1, 2)))
    good = broad_slices(sample.body, RIM_SHARE)
    if diseased:
        good &= sample.lesion_pixels >= LEAST_LESION_PIXELS
    return np.sort(rng.permutation(np.flatnonzero(good))[:most])


def broad_slices(body: Mask, least_share: float) -> Mask:
    """Which slices (S,) of a body (S, P, I) show at least that share of what the broadest does."""
    area = body.sum(axis=(1, 2))
    return np.asarray(area >= least_share * area.max())


@dataclass(frozen=True)
class Recipe:
    """All that decides a simulated set; ``slices`` as in ``choose_slices``."""

    seed: int
    vertebrae: int
    slices: int | None = 12
    geometry: Geometry = COMPACT_GEOMETRY
    sources: tuple[str, ...] = ()
    drawn: int = 0


def simulate(
    recipe: Recipe,
    canvases: Sequence[SourceVertebra],
    folder: Path,
    progress: Callable[[int, int], None],
) -> Path:
    """Draw ``recipe.vertebrae`` vertebrae, half of them diseased; write their slices as a shard.

    Patients are drawn with equal chances (then one of their vertebrae), so that the patient with
    the longest scan does not make the set; all drawn vertebrae together count as one patient.
    Writes ``shard-SEED.npz`` (image and twin int16 HU, masks as bits, label, patient, level,
    vertebra, slice) and the recipe as JSON beside it.
    """
    rng = np.random.default_rng(recipe.seed)
    groups: dict[str, list[SourceVertebra]] = {}
    for vertebra in canvases:
        groups.setdefault(vertebra.group, []).append(vertebra)
    columns: dict[str, list[np.ndarray]] = {}
    for number in range(recipe.vertebrae):
        own = list(groups.values())[int(rng.integers(len(groups)))]
        vertebra = own[int(rng.integers(len(own)))]
        diseased = bool(number % 2)
        sample = draw_sample(rng, vertebra, recipe.geometry, diseased)
        slices = choose_slices(rng, sample, diseased, recipe.slices)
        masks = BODY * sample.body + LYTIC * sample.lytic + BLASTIC * sample.blastic
        row = {
            "image": as_int16(sample.image[slices]),
            "twin": as_int16(sample.twin[slices]),
            "masks": masks[slices].astype(np.uint8),
            "label": np.full(len(slices), diseased, np.uint8),
            "patient": np.full(len(slices), vertebra.patient),
            "level": np.full(len(slices), vertebra.level),
            "vertebra": np.full(len(slices), number, np.int32),
            "slice": slices.astype(np.int16),
        }
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
        progress(number + 1, recipe.vertebrae)
    path = folder / f"shard-{recipe.seed:05d}.npz"
    with atomic(path) as temporary:
        np.savez(temporary, **{k: np.concatenate(v) for k, v in columns.items()})  # type: ignore[arg-type]
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(asdict(recipe), indent=1), encoding="utf-8")
    return path


def as_int16(hu: Field) -> np.ndarray:
    """HU as they are stored; what lies beyond a scanner's range is cut off."""
    return np.clip(np.round(hu), -1024, 3071).astype(np.int16)
