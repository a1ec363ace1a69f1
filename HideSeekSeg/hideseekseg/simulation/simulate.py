"""Simulated training data: patients with real (or drawn) vertebrae, benign changes, metastases.

Every vertebra is drawn twice with everything equal but the metastases: the image and its healthy
twin.  Slices that a lesion crosses are labelled malignant, all slices of healthy vertebrae healthy;
slices of diseased vertebrae that show no lesion are left out.  Masks and twins are stored beside
the labels: label-only training does not read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..anatomy.quality import noise_of
from ..files import atomic
from ..model.profile import Geometry
from .acquisition import Acquisition, Spacing, acquire, draw_noise, scale
from .benign_mimics import marrow_density, wedged
from .metastases import (
    PLAIN_CLUTTER,
    PLAIN_HU,
    Kind,
    clutter,
    diameters,
    outlined,
    paint_metastases,
    plain,
    seen_bounds,
)
from .patient import BodyPlan, draw_patient, place
from .random_fields import Field, Mask, Rng, VertebraPatch
from .source_vertebrae import DEEP_MM, DRAWN, SourceVertebra, View, take_canvas

BODY, LYTIC, BLASTIC = 1, 2, 4
LEAST_LESION_PIXELS = 20
# How often lesions are drawn anew until they are plain, and what faint ones must have.
PLAIN_TRIES = 3
FAINT_HU, FAINT_CLUTTER = 60.0, 1.0
# Slices with less of the body than this share of the largest are its rims.
RIM_SHARE = 0.12
MOST_BODIES = 8  # that a simulated patient has
MOST_SHARE = 3.0  # of a set, in shares of a scan with one vertebra
SLICED_MM = 2.0  # scans with slices so far apart are sliced, not blurred
UNMODIFIED = "unmodified"
COMPACT_GEOMETRY = Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0, margin_pixels=1.0)


@dataclass(frozen=True)
class Sample:
    """One simulated vertebra, (S, P, I): HU with lesions, HU of the healthy twin, masks.

    ``kind`` of its metastases is "none" where it has none; ``mimics`` names its benign changes.
    ``slices_mm`` is the thickness of axial slices that were drawn, 0 where the scan's own stay.
    """

    image: Field
    twin: Field
    body: Mask
    lytic: Mask
    blastic: Mask
    spacing: Spacing
    kind: str
    mimics: tuple[str, ...] = ()
    slices_mm: float = 0.0

    @property
    def lesion_pixels(self) -> np.ndarray:
        """Lesion pixels per slice."""
        return np.asarray((self.lytic | self.blastic).sum(axis=(1, 2)))

    @property
    def diameter_mm(self) -> float:
        """Longest axial diameter of its largest lesion, 0 without one."""
        lesions = self.lytic, self.blastic
        return max((d for m in lesions for d in diameters(m, self.spacing)), default=0.0)


def draw_sample(rng: Rng, vertebra: SourceVertebra, geometry: Geometry, diseased: bool) -> Sample:
    """Draw one vertebra of a simulated patient who has no other."""
    patient = draw_patient(
        rng, [vertebra.level], [vertebra.marrow_hu], vertebra.slices_mm, diseased
    )
    return draw_body(rng, vertebra, geometry, patient.how, patient.bodies[0])


def draw_body(
    rng: Rng, vertebra: SourceVertebra, geometry: Geometry, how: Acquisition, plan: BodyPlan
) -> Sample:
    """Draw benign changes, then lesions, then scan.

    What is painted is blurred as the vertebra's own scan was before it is added to it: the patch
    is a picture already, the paint is not.
    """
    view = take_canvas(rng, vertebra, geometry)
    patch = view.patch
    own, how = _scanners(rng, view, how)
    if plan.wedge is not None:
        patch = wedged(patch, plan.wedge.front, plan.wedge.back, plan.wedge.upper)
    benign = marrow_density(rng, patch, patch.hu, shift_hu=plan.shift_hu)
    for _, paint in plan.changes:
        benign = paint(rng, patch, benign)
    healthy = patch.hu + acquire(benign - patch.hu, patch.spacing, own)
    noise = draw_noise(rng, patch.body.shape, patch.spacing, how)
    twin = acquire(healthy, patch.spacing, how)
    names = tuple(sorted({name for name, _ in plan.changes} | ({"wedge"} if plan.wedge else set())))
    none = np.zeros_like(patch.body)
    image = scale(twin + noise, how)
    masks = patch.body, none, none
    unchanged = Sample(image, image, *masks, patch.spacing, "none", names, how.slices_mm)
    if plan.disease is None:
        return unchanged
    marrow = VertebraPatch(benign, patch.body, patch.spacing)
    # A reader looks over some millimetres: noise from voxel to voxel hides little.
    smooth = ndimage.gaussian_filter(twin + noise, 1.0 / np.array(patch.spacing))
    hidden_by = clutter(smooth, patch.depth)
    lesions = _draw_lesions(rng, marrow, own, how, plan, hidden_by)
    if lesions is None:
        return unchanged
    grain = _grain_lost(rng, patch, lesions.lost)
    return replace(
        unchanged,
        image=scale(twin + lesions.change + noise + grain, how),
        lytic=lesions.lytic,
        blastic=lesions.blastic,
        kind=lesions.kind,
    )


def draw_unmodified(rng: Rng, vertebra: SourceVertebra, geometry: Geometry) -> Sample:
    """Return a healthy vertebra as its scan shows it, with nothing painted and nothing added."""
    patch = take_canvas(rng, vertebra, geometry).patch
    none = np.zeros_like(patch.body)
    return Sample(patch.hu, patch.hu, patch.body, none, none, patch.spacing, "none", (UNMODIFIED,))


def _scanners(rng: Rng, view: View, how: Acquisition) -> tuple[Acquisition, Acquisition]:
    """Return the scan's own blur as an acquisition, and the patient's, laid over this vertebra."""
    own = Acquisition(view.own_blur, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    if view.slices_mm >= SLICED_MM:
        s, p, i = view.own_blur
        own = replace(own, blur_mm=(s, p, min(i, p)), slices_mm=view.slices_mm)
    phases = rng.uniform(0.0, 5.0, 2)
    return (
        replace(own, tilt=view.tilt, phase_mm=float(phases[0])),
        replace(how, tilt=view.tilt, phase_mm=float(phases[1])),
    )


@dataclass(frozen=True)
class _Lesions:
    """Metastases as the scan shows them: their change in HU, their outlines, the bone lost."""

    change: Field
    lytic: Mask
    blastic: Mask
    lost: Mask
    kind: Kind


def _draw_lesions(
    rng: Rng,
    marrow: VertebraPatch,
    own: Acquisition,
    how: Acquisition,
    plan: BodyPlan,
    clutter_hu: float,
) -> _Lesions | None:
    """Draw metastases until they are plain; then larger ones, then sclerotic ones, then none.

    What nobody can see teaches nothing, and where marrow is as thin as tumour nothing lytic can be
    seen.
    """
    assert plan.disease is not None
    least = (FAINT_HU, FAINT_CLUTTER) if plan.faint else (PLAIN_HU, PLAIN_CLUTTER)
    last: Kind = "blastic"
    tries = ((plan.kind, 1.0), (plan.kind, 1.3), (plan.kind, 2.0), (last, 1.0), (last, 2.0))
    for kind, larger in (one for one in tries for _ in range(PLAIN_TRIES)):
        diameter = larger * plan.diameter_mm
        painted = paint_metastases(rng, marrow, kind, plan.disease, diameter)
        change = acquire(acquire(painted.hu - marrow.hu, marrow.spacing, own), marrow.spacing, how)
        below, above = seen_bounds(np.where(marrow.body, change, np.float32(0.0)))
        lytic, blastic = (
            outlined(marrow.body & seen, marrow.body, marrow.spacing)
            for seen in (change <= below, change >= above)
        )
        lytic = lytic & ~blastic
        voxel = float(np.prod(marrow.spacing))
        if plain(change, lytic | blastic, clutter_hu, *least, voxel):
            found: Kind = "mixed" if lytic.any() and blastic.any() else kind
            found = found if found == "mixed" else "lytic" if lytic.any() else "blastic"
            return _Lesions(change, lytic, blastic, painted.lytic, found)
    return None


def _grain_lost(rng: Rng, canvas: VertebraPatch, lytic: Mask) -> Field:
    """Noise for voxels where bone was replaced: the scan's own noise went with the bone there.

    The finest detail of marrow is noise and trabeculae; a third of it stands for the noise.
    """
    detail = canvas.hu - ndimage.gaussian_filter(canvas.hu, 1.0)
    inside = canvas.depth > 2.0
    deviation = 0.35 * float(detail[inside].std()) if inside.any() else 0.0
    fresh = ndimage.gaussian_filter(rng.standard_normal(canvas.body.shape, dtype=np.float32), 0.7)
    where = ndimage.gaussian_filter(lytic.astype(np.float32), 1.0)
    return np.asarray(fresh / (fresh.std() + 1e-6) * deviation * where, np.float32)


def choose_slices(rng: Rng, sample: Sample, diseased: bool, most: int | None) -> np.ndarray:
    """Up to ``most`` slices through much of the body; of a diseased one those with a lesion.

    A lesion that is small in every slice keeps those that show most of it.

    ``most`` None: every slice through the body, with and without lesion.
    """
    if most is None:
        return np.flatnonzero(sample.body.any(axis=(1, 2)))
    good = broad_slices(sample.body, RIM_SHARE)
    if diseased:
        pixels = sample.lesion_pixels * good
        good &= pixels >= min(LEAST_LESION_PIXELS, max(int(pixels.max()), 1))
    return np.sort(rng.permutation(np.flatnonzero(good))[:most])


def broad_slices(body: Mask, least_share: float) -> Mask:
    """Return which slices (S,) of a body (S, P, I) have so large a share of the broadest one's."""
    area = body.sum(axis=(1, 2))
    return np.asarray(area >= least_share * area.max())


@dataclass(frozen=True)
class Recipe:
    """All that decides a simulated set; ``slices`` as in ``choose_slices``.

    ``unmodified`` is the share of patients whose real vertebrae stay as they are, as healthy ones.
    ``part`` numbers one of several shards of a set.  ``content`` is a hash of the real vertebrae
    that are lent, as of ``source_vertebrae.content_of``.
    """

    seed: int
    vertebrae: int
    slices: int | None = 12
    geometry: Geometry = COMPACT_GEOMETRY
    sources: tuple[str, ...] = ()
    drawn: int = 0
    unmodified: float = 0.07
    part: int | None = None
    content: str = ""

    @property
    def name(self) -> str:
        """Name of the shard's file, without its ending."""
        return f"shard-{self.seed:05d}" + ("" if self.part is None else f"-{self.part:03d}")


def simulate(
    recipe: Recipe,
    canvases: Sequence[SourceVertebra],
    folder: Path,
    progress: Callable[[int, int], None],
) -> Path:
    """Draw patients until there are ``recipe.vertebrae`` vertebrae; write their slices as a shard.

    Patients with more vertebrae lend more, by the square root of their number and at most
    MOST_SHARE times what one does, so that the longest scan does not make the set; all drawn
    vertebrae together count as one.

    Writes ``shard-SEED.npz`` and the recipe as JSON beside it.  Columns, a row for each slice:
    ``image`` and ``twin`` (int16 HU), ``masks`` (bits), ``label`` (of the vertebra), ``patient``
    (who lent it), ``level``, ``vertebra`` (number), ``slice``, ``simulated_patient`` (number),
    ``kind`` of the metastases, ``diameter_mm`` of the largest, ``mimics`` (names of benign
    changes), ``spacing`` (mm along S, P, I), ``marrow_hu`` and ``dense_hu``, the median of the
    marrow and the 95th percentile of the body, with lesions, which neighbours are compared by, and
    ``noise_hu``, ``slice_mm`` and ``layers``, by which ``anatomy.quality`` knows a scan that is
    unlike those of training.
    """
    rng = np.random.default_rng(recipe.seed if recipe.part is None else (recipe.seed, recipe.part))
    columns: dict[str, list[np.ndarray]] = {}
    number = 0
    for person, (own, samples) in enumerate(_patients(rng, recipe, canvases)):
        for vertebra, sample in zip(own, samples):
            slices = choose_slices(rng, sample, sample.kind != "none", recipe.slices)
            for key, value in _rows(sample, vertebra, slices, number, person).items():
                columns.setdefault(key, []).append(value)
            number += 1
            progress(number, recipe.vertebrae)
            if number == recipe.vertebrae:
                break
        if number == recipe.vertebrae:
            break
    path = folder / f"{recipe.name}.npz"
    with atomic(path) as temporary:
        np.savez(temporary, **{k: np.concatenate(v) for k, v in columns.items()})  # type: ignore[arg-type]
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(asdict(recipe), indent=1), encoding="utf-8")
    return path


def _patients(
    rng: Rng, recipe: Recipe, canvases: Sequence[SourceVertebra]
) -> Iterator[tuple[list[SourceVertebra], Iterator[Sample]]]:
    """Draw patients without end: the vertebrae that each was lent, and what became of them."""
    groups: dict[str, list[SourceVertebra]] = {}
    for vertebra in canvases:
        groups.setdefault(vertebra.group, []).append(vertebra)
    lenders = [sorted(own, key=lambda v: place(v.level)) for own in groups.values()]
    shares = np.array([_share(own) / _longest(own) for own in lenders])
    chances = shares / shares.sum()
    while True:
        own = lenders[int(rng.choice(len(lenders), p=chances))]
        count = _longest(own)
        first = int(rng.integers(len(own) - count + 1))
        run = own[first : first + count]
        real = not run[0].patient.startswith(DRAWN)
        yield run, _samples(rng, recipe, run, real and rng.random() < recipe.unmodified)


def _longest(own: Sequence[SourceVertebra]) -> int:
    """Return how many vertebrae of a real patient a simulated one has; drawn ones stand alone."""
    return 1 if own[0].group == DRAWN else min(len(own), MOST_BODIES)


def _share(own: Sequence[SourceVertebra]) -> float:
    """Return the weight of a patient in a set: more for a long scan, yet not in proportion."""
    return 1.0 if own[0].group == DRAWN else min(np.sqrt(len(own)), MOST_SHARE)


def _samples(
    rng: Rng, recipe: Recipe, run: Sequence[SourceVertebra], unmodified: bool
) -> Iterator[Sample]:
    if unmodified:
        yield from (draw_unmodified(rng, vertebra, recipe.geometry) for vertebra in run)
        return
    levels, marrow = [v.level for v in run], [v.marrow_hu for v in run]
    patient = draw_patient(rng, levels, marrow, max(v.slices_mm for v in run))
    for vertebra, plan in zip(run, patient.bodies):
        yield draw_body(rng, vertebra, recipe.geometry, patient.how, plan)


def _rows(
    sample: Sample, vertebra: SourceVertebra, slices: np.ndarray, number: int, person: int
) -> dict[str, np.ndarray]:
    masks = BODY * sample.body + LYTIC * sample.lytic + BLASTIC * sample.blastic
    deep = ndimage.distance_transform_edt(sample.body, sampling=sample.spacing)
    deep = deep > min(DEEP_MM, 0.6 * float(deep.max()))
    count = len(slices)
    return {
        "image": as_int16(sample.image[slices]),
        "twin": as_int16(sample.twin[slices]),
        "masks": masks[slices].astype(np.uint8),
        "label": np.full(count, sample.kind != "none", np.uint8),
        "patient": np.full(count, vertebra.patient),
        "level": np.full(count, vertebra.level),
        "vertebra": np.full(count, number, np.int32),
        "slice": slices.astype(np.int16),
        "simulated_patient": np.full(count, person, np.int32),
        "kind": np.full(count, sample.kind),
        "diameter_mm": np.full(count, sample.diameter_mm, np.float32),
        "mimics": np.full(count, " | ".join(sample.mimics)),
        "spacing": np.tile(np.array(sample.spacing, np.float32), (count, 1)),
        "marrow_hu": np.full(count, np.median(sample.image[deep]), np.float32),
        "dense_hu": np.full(count, np.percentile(sample.image[sample.body], 95), np.float32),
        "noise_hu": np.full(
            count, noise_of(sample.image, sample.body, np.array(sample.spacing)), np.float32
        ),
        "slice_mm": np.full(
            count, max(vertebra.ct.grid.spacing.max(), sample.slices_mm), np.float32
        ),
        "layers": np.full(count, vertebra.layers(sample.slices_mm), np.int16),
    }


def as_int16(hu: Field) -> np.ndarray:
    """HU as they are stored; what lies beyond a scanner's range is cut off."""
    return np.clip(np.round(hu), -1024, 3071).astype(np.int16)
