"""Sagittal slices with labels, as training reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..anatomy.crop import feathered
from ..anatomy.intensity import blanked, compressed
from ..anatomy.preparation import central_slices
from ..imaging.reading import InputError
from ..model.profile import Profile
from ..simulation.simulate import BLASTIC, BODY, LYTIC
from .augmentation import bent, rescanned

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
