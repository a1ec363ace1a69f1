"""Sagittal slices with labels, as training reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..anatomy.crop import feathered
from ..anatomy.intensity import blanked, compressed
from ..anatomy.preparation import central_slices
from ..errors import InputError
from ..model.profile import Profile
from ..simulation.random_fields import Field, Rng
from ..simulation.simulate import BLASTIC, BODY, LYTIC

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


pass

Bools = npt.NDArray[np.bool_]

COLUMNS = {"image", "twin", "masks", "label", "patient", "slice"}


@dataclass(frozen=True)
class Slices:
    """N slices: HU (int16, N P I) with lesions and of the healthy twin, masks, labels and origin.

    ``weight`` (uint8, 255 = 1) is the feathered body that blanking uses.  Of prepared patients the
    label is all that is known: ``twin``, ``lytic`` and ``blastic`` then hold no slice, which is not
    the same as no lesion.
    """

    image: npt.NDArray[np.int16]
    twin: npt.NDArray[np.int16]
    weight: npt.NDArray[np.uint8]
    body: Bools
    lytic: Bools
    blastic: Bools
    label: npt.NDArray[np.uint8]
    patient: npt.NDArray[np.str_]
    vertebra: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def label_only(self) -> bool:
        """Whether neither twins nor lesions are known."""
        return len(self.twin) == 0


@dataclass(frozen=True)
class Batch:
    """Network inputs (N, 1, P, I) of images and twins (none where unknown), body, labels (N,)."""

    x: Tensor
    twin: Tensor
    body: Tensor
    label: Tensor

    def on(self, device: torch.device) -> Batch:
        """The same on another device."""
        parts = (self.x, self.twin, self.body, self.label)
        return Batch(*(part.to(device) for part in parts))


def load_slices(folder: Path, profile: Profile, without: Sequence[str] = ()) -> Slices:
    """All shards of a folder that ``simulate`` or ``prepare`` wrote, but not of both.

    Patients named by ``without`` are left out.  Where the profile wants central slices, only these.
    Raises InputError where there is no shard, or no patient is left.
    """
    columns = _joined(folder)
    if without:
        kept = ~np.isin(columns["patient"], without)
        if not kept.any():
            raise InputError(folder, "has no patient but those to leave out")
        columns = {key: column[kept] for key, column in columns.items()}
    if profile.geometry.central_slices is not None:
        kept = _central(columns["vertebra"], columns["slice"], profile.geometry.central_slices)
        columns = {key: column[kept] for key, column in columns.items()}
    masks = columns["masks"]
    body = (masks & BODY) > 0
    weight = feathered(body, profile.geometry.margin_pixels)
    known = masks if "twin" in columns else masks[:0]
    return Slices(
        columns["image"],
        columns.get("twin", columns["image"][:0]),
        np.round(255 * weight).astype(np.uint8),
        body,
        (known & LYTIC) > 0,
        (known & BLASTIC) > 0,
        columns["label"],
        columns["patient"],
        columns["vertebra"],
    )


def patients_of(folder: Path) -> set[str]:
    """All patients in the shards of a folder; raises InputError where there is no shard."""
    patients: set[str] = set()
    for shard in _shards(folder):
        with np.load(shard, allow_pickle=False) as data:
            patients.update(data["patient"].tolist())
    return patients


def _shards(folder: Path) -> list[Path]:
    shards = sorted(folder.glob("shard-*.npz"))
    if not shards:
        raise InputError(folder, "no shard-*.npz here: `hideseekseg simulate` or `prepare` make it")
    return shards


def _joined(folder: Path) -> dict[str, np.ndarray]:
    """The columns of all shards; vertebrae of different shards get different names."""
    shards = _shards(folder)
    parts: dict[str, list[np.ndarray]] = {}
    for shard in shards:
        with np.load(shard, allow_pickle=False) as data:
            for key in COLUMNS.intersection(data.files):
                parts.setdefault(key, []).append(data[key])
            number = data["vertebra"].astype(str)
        parts.setdefault("vertebra", []).append(np.char.add(f"{shard.stem}-", number))
    if len(parts.get("twin", shards)) < len(shards):
        raise InputError(folder, "mixes simulated slices with those of patients: keep them apart")
    return {key: np.concatenate(part) for key, part in parts.items()}


def _central(vertebra: np.ndarray, number: np.ndarray, count: int) -> npt.NDArray[np.bool_]:
    """Which slices are among the ``count`` central ones of their vertebra."""
    kept = np.zeros(len(vertebra), bool)
    for name in np.unique(vertebra):
        own = np.flatnonzero(vertebra == name)
        kept[own] = np.isin(number[own], central_slices(np.sort(number[own]), count))
    return kept


def make_batch(
    slices: Slices, rows: npt.NDArray[np.intp], profile: Profile, rng: np.random.Generator | None
) -> Batch:
    """Network inputs of some rows; with ``rng`` bent and scanned anew at random.

    Image and twin share every change: their difference is the lesion and nothing else.
    """
    pictures = [slices.image] if slices.label_only else [slices.image, slices.twin]
    weight = np.asarray(slices.weight[rows] / 255, dtype=np.float32)
    hu = np.stack([picture[rows] for picture in pictures]).astype(np.float32)
    body = slices.body[rows]
    if rng is not None:
        layers = np.stack([*hu, weight, body], axis=1, dtype=np.float32)
        *moved, weight, shown = np.moveaxis(bent(rng, torch.from_numpy(layers)).numpy(), 1, 0)
        hu, body = rescanned(rng, np.stack(moved)), shown > 0.5
    x = blanked(compressed(hu, profile.intensity), weight)
    tensors = torch.from_numpy(np.ascontiguousarray(x))[:, :, None]
    return Batch(
        tensors[0],
        tensors[0][:0] if slices.label_only else tensors[1],
        torch.from_numpy(np.ascontiguousarray(body))[:, None],
        torch.from_numpy(slices.label[rows].astype(np.float32)),
    )
