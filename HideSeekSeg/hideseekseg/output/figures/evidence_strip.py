"""A candidate's evidence as four small pictures: original, healthy edit, difference, alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ...findings import LESION_TYPES, Evidence, LesionType
from ...imaging.patch import Patch, move_patch
from ...imaging.volume import Grid
from ..segment_description import TYPE_COLOURS, Colour
from .drawing import Mask, busiest_slice, is_hounsfield, reach, window

Picture = npt.NDArray[Any]  # bytes once finished, 0 to 1 before

TITLES = ("original", "healthy edit", "difference", "revealed alone")
_PIXELS = 224  # of the longer side, at least
_BODY = (0.55, 0.55, 0.55)


@dataclass(frozen=True)
class Strip:
    """``pictures`` (H, W, 3) by title, anterior left and superior up; ``note`` says which slice."""

    pictures: dict[str, Picture]
    note: str


def make_strip(evidence: Evidence, patch: Patch, ct: Grid, kind: LesionType) -> Strip:
    """The sagittal slice with most of the candidate; ``patch`` are its voxels on the CT's grid.

    *Revealed alone* is what the classifier was asked about: every other candidate is replaced by
    the healthy edit, this one is kept.
    """
    mask = np.zeros(evidence.grid.shape, bool)
    moved = move_patch(patch, ct, evidence.grid)
    if moved is not None:
        moved.paint(mask)
    s = busiest_slice([mask], evidence.body)
    others = (evidence.lytic[s] | evidence.blastic[s]) & ~ndimage.binary_dilation(mask[s])
    alone = np.where(others, evidence.edit[s], evidence.image[s])
    low, high = window(evidence.image)
    most = reach(evidence.difference[evidence.body])
    scale = -(-_PIXELS // max(evidence.image[s].shape))
    grey = [_grey(x, low, high, scale) for x in (evidence.image[s], evidence.edit[s], alone)]
    signed = _signed(evidence.difference[s], most, scale)
    outline, body = _rim(mask[s], scale), _rim(evidence.body[s], scale)
    colour = TYPE_COLOURS[kind]
    pictures = (
        _drawn(grey[0], outline, colour),
        _finish(grey[1]),
        _drawn(_over(signed, body, _BODY), outline, (1.0, 1.0, 1.0)),
        _drawn(grey[2], outline, colour),
    )
    unit = "HU" if is_hounsfield(evidence.image) else "a.u."
    note = f"sagittal slice {s + 1} of {len(mask)}, difference up to ±{most:.3g} {unit}"
    return Strip(dict(zip(TITLES, pictures)), note)


def _grey(image: npt.NDArray[np.float32], low: float, high: float, scale: int) -> Picture:
    grey = np.clip((_enlarged(image, scale) - low) / (high - low), 0, 1)
    return np.asarray(np.repeat(grey[..., None], 3, axis=2), np.float32)


def _signed(image: npt.NDArray[np.float32], most: float, scale: int) -> Picture:
    """Blue where density was added (lytic), orange where it was taken away, black at zero."""
    share = np.clip(_enlarged(image, scale) / most, -1, 1)[..., None]
    added, taken = (np.array(TYPE_COLOURS[kind]) for kind in LESION_TYPES)
    return np.asarray(np.where(share > 0, share * added, -share * taken), np.float32)


def _enlarged(image: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    return np.asarray(ndimage.zoom(image, scale, order=1, mode="nearest", grid_mode=True))


def _rim(mask: Mask, scale: int) -> Mask:
    """The outline just outside the mask, so that it hides none of it."""
    large = np.kron(mask, np.ones((scale, scale), bool))
    smooth = ndimage.gaussian_filter(large.astype(np.float32), scale / 2) > 0.5
    return np.asarray(ndimage.binary_dilation(smooth, iterations=2) & ~smooth)


def _over(picture: Picture, rim: Mask, colour: Colour) -> Picture:
    return np.where(rim[..., None], np.array(colour, np.float32), picture)


def _drawn(picture: Picture, rim: Mask, colour: Colour) -> Picture:
    return _finish(_over(picture, rim, colour))


def _finish(picture: Picture) -> Picture:
    """Rows and columns swapped, so that superior is up; bytes."""
    return np.ascontiguousarray((np.swapaxes(picture, 0, 1) * 255).round().astype(np.uint8))
