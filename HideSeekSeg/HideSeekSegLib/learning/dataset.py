"""Sagittal slices with labels, as training reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..anatomy.crops import feathered
from ..anatomy.intensity import blanked, compressed
from ..imaging.files import InputError
from ..model.profile import Profile
from .simulate import BLASTIC, BODY, LYTIC

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Slices:
    """N slices: HU (int16, N P I) with lesions and of the healthy twin, masks, labels and origin.

    ``weight`` (uint8, 255 = 1) is the feathered body that blanking uses.
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


@dataclass(frozen=True)
class Batch:
    """Network inputs (N, 1, P, I) of images and twins, the body (N, 1, P, I), labels (N,)."""

    x: Tensor
    twin: Tensor
    body: Tensor
    label: Tensor


def load_slices(folder: Path, profile: Profile) -> Slices:
    """All shards of a folder that ``simulate`` wrote; raises InputError where there is none."""
    shards = sorted(folder.glob("shard-*.npz"))
    if not shards:
        raise InputError(folder, "no shard-*.npz here: make some with `hideseekseg simulate`")
    columns: dict[str, list[np.ndarray]] = {}
    for shard in shards:
        with np.load(shard, allow_pickle=False) as data:
            for key in ("image", "twin", "masks", "label", "patient"):
                columns.setdefault(key, []).append(data[key])
            number = data["vertebra"]
        columns.setdefault("vertebra", []).append(np.char.add(f"{shard.stem}-", number.astype(str)))
    joined = {key: np.concatenate(parts) for key, parts in columns.items()}
    masks = joined["masks"]
    body = (masks & BODY) > 0
    weight = feathered(body, profile.geometry.margin_pixels)
    return Slices(
        joined["image"],
        joined["twin"],
        np.round(255 * weight).astype(np.uint8),
        body,
        (masks & LYTIC) > 0,
        (masks & BLASTIC) > 0,
        joined["label"],
        joined["patient"],
        joined["vertebra"],
    )


def make_batch(
    slices: Slices, rows: npt.NDArray[np.intp], profile: Profile, rng: np.random.Generator | None
) -> Batch:
    """Network inputs of some rows; with ``rng`` flipped, shifted and re-scaled at random.

    Image and twin share every change: their difference is the lesion and nothing else.
    """
    weight = np.asarray(slices.weight[rows] / 255, dtype=np.float32)
    hu = np.stack([slices.image[rows], slices.twin[rows]]).astype(float)
    body = slices.body[rows]
    if rng is not None:
        each = (len(rows), 1, 1)
        hu = hu * np.exp(rng.normal(0.0, 0.06, each)) + rng.normal(0.0, 12.0, each)
        noisy = (rng.random(each) < 0.4) * rng.uniform(0, 25, each)
        hu = hu + rng.standard_normal(body.shape) * noisy
    x = blanked(compressed(hu.astype(np.float32), profile.intensity), weight)
    if rng is not None:
        x, body = _moved(rng, x, body)
    tensors = torch.from_numpy(np.ascontiguousarray(x))[:, :, None]
    return Batch(
        tensors[0],
        tensors[1],
        torch.from_numpy(np.ascontiguousarray(body))[:, None],
        torch.from_numpy(slices.label[rows].astype(np.float32)),
    )


def _moved(
    rng: np.random.Generator, x: npt.NDArray[np.float32], body: Bools
) -> tuple[npt.NDArray[np.float32], Bools]:
    """Flip along S-I (as published) and shift by up to two pixels, the whole batch alike."""
    if rng.random() < 0.5:
        x, body = x[..., ::-1], body[..., ::-1]
    shift = tuple(int(s) for s in rng.integers(-2, 3, 2))
    return np.roll(x, shift, (-2, -1)), np.roll(body, shift, (-2, -1))
