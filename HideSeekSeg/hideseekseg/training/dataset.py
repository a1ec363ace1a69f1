"""Sagittal slices with labels, as training reads them, and their random changes.

A few patients are all the source vertebrae there are; without random changes of shape, marrow,
calibration, kernel and noise their anatomy and grain is memorised.  Image and twin share every
change, so that their difference stays the lesion.  All is drawn and computed on the device of the
slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor
from torch.nn import functional

from ..anatomy.preparation import learned_slices
from ..anatomy.quality import limits_over
from ..confidence import compressed_tensor, marrow, reference_of, relative_reference
from ..errors import InputError
from ..files import read_object
from ..model.autoencoder import DiffusionAutoencoder
from ..model.profile import Geometry, Limits, Profile
from ..simulation.simulate import BLASTIC, BODY, LEAST_LESION_PIXELS, LYTIC
from ..simulation.source_vertebrae import chosen, one_spelling, person
from ..unpacking import array_names, read_arrays

Bools = npt.NDArray[np.bool_]

KNOTS = 5  # of the smooth fields that bend a slice and vary its density, along either axis
LONE_SHARE = 0.25  # of training slices whose patient's other vertebrae are kept from the network

COLUMNS = {"image", "twin", "masks", "label", "patient", "slice", "spacing"}
# Kind of the values (as numpy's ``dtype.kind``) and dimensions of a shard's columns.
_KINDS = {
    **dict.fromkeys(("image", "twin"), ("i", 3)),
    **dict.fromkeys(("label", "vertebra", "slice"), ("iu", 1)),
    **dict.fromkeys(("patient", "level"), ("U", 1)),
    **{"masks": ("u", 3), "simulated_patient": ("iuU", 1), "spacing": ("f", 2)},
    **{"noise_hu": ("f", 1), "slice_mm": ("f", 1), "layers": ("iu", 1)},
}
_OF_LIMITS = ("noise_hu", "slice_mm", "layers")
_NEEDED = ("image", "masks", "label", "patient", "vertebra", "slice")


@dataclass(frozen=True)
class Slices:
    """N slices: HU (int16, N P I) with lesions and of the healthy twin, masks, labels and origin.

    Of prepared patients the label is all that is known: ``twin``, ``lytic`` and ``blastic`` then
    hold no slice, which is not the same as no lesion.  ``crossed`` tells the slices with enough of
    a lesion to see.  ``reference`` (N, 2) is the marrow of the patient's other vertebrae in HU,
    median and deviation, NaN where there are too few; ``patient_group`` names those vertebrae that
    belong together (of a simulated patient, of one image), ``spacing`` (N, 3) is mm along
    (S, P, I), where known.
    """

    image: npt.NDArray[np.int16]
    twin: npt.NDArray[np.int16]
    body: Bools
    lytic: Bools
    blastic: Bools
    label: npt.NDArray[np.uint8]
    patient: npt.NDArray[np.str_]
    vertebra: npt.NDArray[np.str_]
    crossed: npt.NDArray[np.bool_]
    reference: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    patient_group: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, str))
    spacing: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 3), np.float32))

    def __len__(self) -> int:
        return len(self.label)

    def at(self, rows: Bools) -> Slices:
        """Return some of the slices; what is not known of them has no rows."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        chosen = {name: column[rows] for name, column in columns.items() if len(column)}
        return replace(self, **chosen)

    def on(self, device: torch.device) -> Slices:
        """Return the same with pictures and masks as tensors on a device, for ``make_batch``."""
        columns = ("image", "twin", "body", "lytic", "blastic")
        moved: dict[str, Any] = {
            name: torch.as_tensor(getattr(self, name)).to(device) for name in columns
        }
        return replace(self, **moved)

    @cached_property
    def ill(self) -> npt.NDArray[np.intp]:
        """Rows that a lesion crosses; all of diseased vertebrae where lesions are not known."""
        return np.flatnonzero(self.label > 0 if self.label_only else self.crossed)

    @cached_property
    def well(self) -> npt.NDArray[np.intp]:
        """Rows of healthy vertebrae."""
        return np.flatnonzero(self.label == 0)

    @cached_property
    def content(self) -> str:
        """Return a hash of all that can be learned from these slices, and of whose they are."""
        digest = sha256()
        for column in fields(self):
            values = np.ascontiguousarray(getattr(self, column.name))
            digest.update(f"{column.name} {values.dtype} {values.shape}\n".encode())
            digest.update(values.view(np.uint8).data if values.size else b"")
        return digest.hexdigest()

    @property
    def label_only(self) -> bool:
        """Return whether neither twins nor lesions are known."""
        return len(self.twin) == 0


@dataclass(frozen=True)
class Batch:
    """Network inputs (N, 1, P, I) of images and twins (none where unknown), body, labels (N,).

    ``reference`` (N, 2) is the marrow of the patient's other vertebrae in units of x, NaN where
    they are not known; ``lesions`` (N, 2, P, I) the lytic and blastic masks, without channels where
    unknown.
    """

    x: Tensor
    twin: Tensor
    body: Tensor
    label: Tensor
    reference: Tensor
    lesions: Tensor

    def on(self, device: torch.device) -> Batch:
        """Return the same on another device."""
        parts = (self.x, self.twin, self.body, self.label, self.reference, self.lesions)
        return Batch(*(part.to(device) for part in parts))


def load_slices(folder: Path, profile: Profile, without: Sequence[str] = ()) -> Slices:
    """Read the slices that weights of a profile learn from and analyse.

    As ``load_whole``; raises InputError also where the profile leaves slices out and it cannot be
    known which these are.
    """
    if profile.geometry.leaves_out:
        require_whole(folder)
    slices, learned = load_whole(folder, profile, without)
    return slices if learned.all() else slices.at(learned)


def load_whole(folder: Path, profile: Profile, without: Sequence[str] = ()) -> tuple[Slices, Bools]:
    """Read all shards of a folder that ``simulate`` or ``prepare`` wrote, but not of both.

    With every slice that was written, and which of them weights of the profile learn from and
    analyse; the marrow of vertebrae is that of these.  Patients named by ``without`` are left out,
    in whatever spelling; each of the others has the first of several spellings.  Raises InputError
    where there is no shard, or no patient is left.
    """
    columns = _joined(folder)
    patient = columns["patient"]
    columns["patient"] = np.array(one_spelling(patient.tolist()), patient.dtype)
    if without:
        absent = {person(name) for name in without}
        kept = np.array([person(name) not in absent for name in columns["patient"].tolist()])
        if not kept.any():
            raise InputError(folder, "has no patient but those to leave out")
        columns = {key: column[kept] for key, column in columns.items()}
    masks = columns["masks"]
    body = (masks & BODY) > 0
    learned = _learned(columns["vertebra"], columns["slice"], body, profile.geometry)
    known = masks if "twin" in columns else masks[:0]
    slices = Slices(
        columns["image"],
        columns.get("twin", columns["image"][:0]),
        body,
        (known & LYTIC) > 0,
        (known & BLASTIC) > 0,
        columns["label"],
        columns["patient"],
        columns["vertebra"],
        ((known & (LYTIC | BLASTIC)) > 0).sum(axis=(1, 2)) >= LEAST_LESION_PIXELS,
        _patient_references(columns, learned),
        columns.get("simulated_patient", columns["patient"]),
        columns.get("spacing", np.empty((0, 3), np.float32)),
    )
    return slices, learned


def require_whole(folder: Path) -> None:
    """Raise InputError where ``simulate`` chose among the slices of each vertebra.

    Then neither all of its lesions nor the middle of its body are known.
    """
    for shard in _shards(folder):
        recipe = shard.with_suffix(".json")
        if recipe.exists() and read_object(recipe).get("slices") is not None:
            cause = "contains some slices of each vertebra: `simulate --whole` keeps every one"
            raise InputError(folder, cause)


def is_label_only(folder: Path) -> bool:
    """Return whether the slices of a folder are of prepared patients, of whom no twin is known.

    Raises InputError where there is no shard.
    """
    first = _shards(folder)[0]
    with _readable(first):
        return "twin" not in array_names(first)


def limits_in(folder: Path, without: Sequence[str] = ()) -> Limits:
    """Return the limits that the vertebrae of a folder make, but those of patients ``without``.

    What one of the shards does not tell is not known.  Raises InputError where one is damaged.
    """
    told: dict[str, list[np.ndarray]] = {name: [] for name in _OF_LIMITS}
    shards = _shards(folder)
    for shard in shards:
        known = [name for name in _OF_LIMITS if name in array_names(shard)]
        data = read_shard(shard, {"patient", "vertebra", *known})
        _, first = np.unique(data["vertebra"], return_index=True)
        kept = first[~np.isin(data["patient"][first], without)]
        for name in known:
            told[name].append(data[name][kept])
    complete = [parts if len(parts) == len(shards) else [] for parts in told.values()]
    return limits_over(*(np.concatenate([np.empty(0), *parts]) for parts in complete))


def patients_of(folder: Path) -> set[str]:
    """Return all patients in the shards of a folder; raise InputError where there is no shard."""
    patients: set[str] = set()
    for shard in _shards(folder):
        patients.update(read_shard(shard, {"patient"})["patient"].tolist())
    return patients


def left_out(folder: Path, patients: Sequence[str]) -> list[str]:
    """Return those who are to be left out, as the folder spells them; InputError for others."""
    known = sorted(patients_of(folder)) if patients else []
    return chosen(folder, patients, known, "has no patient {} to leave out")


def read_shard(shard: Path, names: set[str] | None = None) -> dict[str, np.ndarray]:
    """Columns (or those of ``names``) of a shard, each of its kind and all of one length.

    Raises InputError where the file is damaged or no shard.
    """
    with _readable(shard):
        data = read_arrays(shard, names)
    missing = [name for name in names or _NEEDED if name not in data]
    if missing:
        raise InputError(shard, f"is not a shard of slices: it has no {missing[0]!r}")
    known = {name: column for name, column in data.items() if name in _KINDS}
    for name, column in known.items():
        kinds, dimensions = _KINDS[name]
        if column.dtype.kind not in kinds or column.ndim != dimensions:
            raise InputError(shard, f"is not a shard of slices: {name!r} is of another kind")
    if len({len(column) for column in known.values()}) > 1:
        raise InputError(shard, "is not a shard of slices: its columns differ in length")
    shapes = {column.shape for column in known.values() if column.ndim == 3}
    if len(shapes) > 1:
        raise InputError(shard, "is not a shard of slices: its images differ in size")
    return known


@contextmanager
def _readable(shard: Path) -> Iterator[None]:
    """Raise InputError where a file is damaged or no shard."""
    try:
        yield
    except OSError as error:
        raise InputError(shard, f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(shard, f"is not a shard of slices: {error}") from error


def _shards(folder: Path) -> list[Path]:
    shards = sorted(folder.glob("shard-*.npz"))
    if not shards:
        raise InputError(folder, "no shard-*.npz here: `hideseekseg simulate` or `prepare` make it")
    return shards


def _joined(folder: Path) -> dict[str, np.ndarray]:
    """Return the columns of all shards; vertebrae of different shards get different names."""
    shards = _shards(folder)
    parts: dict[str, list[np.ndarray]] = {}
    for shard in shards:
        data = read_shard(shard)
        for key in COLUMNS.intersection(data):
            parts.setdefault(key, []).append(data[key])
        number = data["vertebra"].astype(str)
        parts.setdefault("vertebra", []).append(np.char.add(f"{shard.stem}-", number))
        # A shard without twins is one image of one patient, as `prepare` and the pipeline see it.
        whose = data.get("simulated_patient", None if "twin" in data else np.full(len(number), ""))
        if whose is not None:
            names = np.char.add(f"{shard.stem}-", whose.astype(str))
            parts.setdefault("simulated_patient", []).append(names)
    if len({column.shape[1:] for column in parts["image"]}) > 1:
        raise InputError(folder, "contains shards whose images differ in size")
    if len(parts.get("twin", shards)) < len(shards):
        raise InputError(folder, "mixes simulated slices with those of patients: keep them apart")
    return {key: np.concatenate(part) for key, part in parts.items()}


def _learned(vertebra: np.ndarray, number: np.ndarray, body: Bools, geometry: Geometry) -> Bools:
    """Which slices weights of a geometry learn from; those of a vertebra stand together."""
    if not geometry.leaves_out:
        return np.ones(len(vertebra), bool)
    areas = body.sum(axis=(1, 2))
    parts = [
        np.isin(number[own], learned_slices(number[own], areas[own], geometry))
        for own in (slice(*ends) for ends in _runs(vertebra))
    ]
    return np.concatenate(parts)


def _runs(names: np.ndarray) -> list[tuple[int, int]]:
    """Return where each run of equal names starts and ends."""
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(names)]))


def bent(generator: Generator, layers: Tensor) -> Tensor:
    """Return layers (N, C, H, W) of N slices, each slice flipped, turned, stretched and bent.

    Flips run along S-I, as published; turns and stretches are within what segmentations and people
    differ by.
    """
    count, _, height, width = layers.shape
    normal, uniform = _draws(generator, count)
    turn = normal(1)[:, 0] * math.radians(4.0)
    zoom = torch.exp(0.06 * normal(2) + 0.04 * normal(1))
    shear, shift = 0.05 * normal(1)[:, 0], 0.05 * normal(2)
    flip = torch.where(uniform(1)[:, 0] < 0.5, -1.0, 1.0)
    # Rows of an affine matrix in grid_sample's coordinates: x along I, y along P, -1 to 1.
    matrix = torch.stack(
        [
            torch.stack([flip * zoom[:, 0] * turn.cos(), shear - turn.sin(), shift[:, 0]], 1),
            torch.stack([flip * turn.sin(), zoom[:, 1] * turn.cos(), shift[:, 1]], 1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, [count, 1, height, width], align_corners=False)
    grid = grid + 0.02 * _smooth_fields(generator, count, 2, (height, width)).movedim(1, -1)
    return functional.grid_sample(layers, grid, align_corners=False)


def rescanned(generator: Generator, hu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return HU (N, pictures, H, W) as another scanner shows them, with gain and shift (N, 1).

    Marrow, calibration, kernel and noise vary from slice to slice; gain and shift are those of the
    whole slice, which the patient's other vertebrae share.
    """
    count, size = len(hu), hu.shape[-2:]
    normal, uniform = _draws(generator, count)
    patchy = (uniform(1) < 0.5) * 30.0 * uniform(1)
    density = _smooth_fields(generator, count, 1, size) * _each(patchy)
    gain, shift = torch.exp(0.08 * normal(1)), 15.0 * normal(1)
    share = torch.where(uniform(1) < 0.4, 1.2 * uniform(1) - 0.5, 0.0)
    noisy = (uniform(1) < 0.4) * 25.0 * uniform(1)
    noise = torch.randn((count, 1, *size), generator=generator, device=hu.device) * _each(noisy)
    # A share of what blurring takes away: positive softens, negative is a sharper kernel.
    soft = functional.avg_pool2d(hu, 3, 1, 1, count_include_pad=False)
    result = hu + _each(share) * (soft - hu)
    return result * _each(gain) + _each(shift) + density + noise, gain, shift


def _draws(
    generator: Generator, count: int
) -> tuple[Callable[[int], Tensor], Callable[[int], Tensor]]:
    """Return functions that draw (N, columns) normal and uniform numbers."""

    def normal(columns: int) -> Tensor:
        return torch.randn((count, columns), generator=generator, device=generator.device)

    def uniform(columns: int) -> Tensor:
        return torch.rand((count, columns), generator=generator, device=generator.device)

    return normal, uniform


def _each(values: Tensor) -> Tensor:
    """One number per slice (N, 1), to be used with pictures (N, C, H, W)."""
    return values[:, :, None, None]


def _smooth_fields(
    generator: Generator, count: int, channels: int, size: tuple[int, ...]
) -> Tensor:
    """Smooth random fields (N, C, H, W) of about unit deviation."""
    knots = torch.randn(
        (count, channels, KNOTS, KNOTS), generator=generator, device=generator.device
    )
    return functional.interpolate(knots, size=size, mode="bicubic", align_corners=True)


def make_batch(
    slices: Slices, rows: npt.NDArray[np.intp], profile: Profile, rng: np.random.Generator | None
) -> Batch:
    """Network inputs of some rows; with ``rng`` bent and scanned anew at random.

    Image and twin share every change: their difference is the lesion and nothing else.
    """
    names = ("image",) if slices.label_only else ("image", "twin")
    at = torch.as_tensor(rows)

    def take(name: str) -> Tensor:
        column = torch.as_tensor(getattr(slices, name))
        return column[at.to(column.device)].float()

    hu = torch.stack([take(name) for name in names], dim=1)
    masks = ["body"] if slices.label_only else ["body", "lytic", "blastic"]
    shown = torch.stack([take(m) for m in masks], dim=1)
    weight = feathered_tensor(shown[:, :1], profile.geometry.margin_pixels)
    reference = _references(slices, rows).to(hu.device)
    if rng is not None:
        generator = torch.Generator(hu.device).manual_seed(int(rng.integers(2**62)))
        moved = bent(generator, torch.cat([hu, weight, shown], dim=1))
        hu, weight, shown = moved.split([len(names), 1, len(masks)], dim=1)
        hu, gain, shift = rescanned(generator, hu)
        reference = torch.cat([gain * reference[:, :1] + shift, gain * reference[:, 1:]], dim=1)
        lone = torch.from_numpy(rng.random((len(at), 1)) < LONE_SHARE).to(hu.device)
        reference = reference.masked_fill(lone, torch.nan)
    x = (compressed_tensor(hu, profile.intensity) + 1) * weight - 1
    body = shown[:, :1] > 0.5
    return Batch(
        x[:, :1],
        x[:0] if slices.label_only else x[:, 1:],
        body,
        torch.from_numpy(slices.label[rows].astype(np.float32)).to(hu.device),
        relative_reference(reference, profile.intensity),
        shown[:, 1:] > 0.5,
    )


def feathered_tensor(body: Tensor, margin: float) -> Tensor:
    """As ``anatomy.crop.feathered``, for bodies (N, 1, H, W) of 0 and 1 on the tensor's device."""
    reach = int(margin + 1.5)
    padded = functional.pad(body, [reach] * 4)
    height, width = body.shape[-2:]
    weight = body.clone()
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            near = margin + 1.5 - (dy * dy + dx * dx) ** 0.5
            if near > 0:
                y, x = reach + dy, reach + dx
                moved = padded[..., y : y + height, x : x + width]
                weight = torch.maximum(weight, min(near, 1.0) * moved)
    return weight


def _patient_references(columns: dict[str, np.ndarray], learned: Bools) -> npt.NDArray[np.float32]:
    """Marrow (N, 2) of the other vertebrae of each slice's patient, NaN where there are none.

    That of their slices that are ``learned`` from (N,).
    """
    reference = np.full((len(columns["label"]), 2), np.nan, np.float32)
    if "simulated_patient" not in columns:
        return reference
    starts, ends = np.array(_runs(columns["vertebra"])).T
    body = (columns["masks"] & BODY) > 0
    rows = [a + np.flatnonzero(learned[a:b]) for a, b in zip(starts, ends)]
    own = np.array([marrow(columns["image"][some], body[some]) for some in rows])
    whose = columns["simulated_patient"][starts]
    order = np.argsort(whose, kind="stable")
    for group in np.split(order, np.flatnonzero(whose[order][1:] != whose[order][:-1]) + 1):
        for number in group:
            others = own[group[group != number]]
            reference[starts[number] : ends[number]] = reference_of([(m, d) for m, d in others])
    return reference


def _references(slices: Slices, rows: npt.NDArray[np.intp]) -> Tensor:
    if len(slices.reference) == 0:
        return torch.full((len(rows), 2), torch.nan)
    return torch.from_numpy(slices.reference[rows])


def encode_all(
    model: DiffusionAutoencoder,
    slices: Slices,
    profile: Profile,
    rows: npt.NDArray[np.intp] | None = None,
) -> Tensor:
    """Latents z (N, D) of some rows (default: all), as they are (no augmentation)."""
    model.eval()
    device = next(model.parameters()).device
    rows = np.arange(len(slices)) if rows is None else rows
    with torch.inference_mode():
        parts = [
            _encode(model, make_batch(slices, part, profile, None).on(device))
            for part in np.array_split(rows, max(len(rows) // 500, 1))
        ]
    return torch.cat(parts).clone()


def _encode(model: DiffusionAutoencoder, batch: Batch) -> Tensor:
    return model.encode(batch.x, batch.reference).float()
