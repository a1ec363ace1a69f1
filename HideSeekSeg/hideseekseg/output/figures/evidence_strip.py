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
from .drawing import Mask, busiest_slice, difference_limit, is_hounsfield, window

Picture = npt.NDArray[Any]  # bytes once finished, 0 to 1 before

TITLES = ("original", "healthy edit", "difference", "revealed alone")
_PIXELS = 224  # of the longer side, at least
_BAR = 10  # pixels of the scale's width
_BODY = (0.55, 0.55, 0.55)


@dataclass(frozen=True)
class Strip:
    """``pictures`` (H, W, 3) by title, anterior left and superior up; ``note`` says which slice."""

    pictures: dict[str, Picture]
    note: str


def make_strip(evidence: Evidence, patch: Patch, ct: Grid, kind: LesionType) -> Strip:
    """Draw the sagittal slice with most of the candidate.

    ``patch`` has its voxels on the CT's grid ``ct``.  *Revealed alone* is what the classifier was
    given: the healthy edit replaces every changed pixel but those of this candidate.
    """
    mask = np.zeros(evidence.grid.shape, bool)
    moved = move_patch(patch, ct, evidence.grid)
    if moved is not None:
        moved.paint(mask)
    s = busiest_slice([mask], evidence.body)
    scored = slice_candidate(evidence, mask[s], s)
    alone = revealed_alone(evidence, scored if scored.any() else mask[s], s)
    low, high = window(evidence.image)
    most = difference_limit(evidence.image, evidence.difference[evidence.body])
    scale = -(-_PIXELS // max(evidence.image[s].shape))
    grey = [_grey(x, low, high, scale) for x in (evidence.image[s], evidence.edit[s], alone)]
    signed = _signed(evidence.difference[s], most, scale)
    outline, body = _rim(mask[s], scale), _rim(evidence.body[s], scale)
    colour = TYPE_COLOURS[kind]
    pictures = (
        _drawn(grey[0], outline, colour),
        _finish(grey[1]),
        _with_bar(_drawn(_over(signed, body, _BODY), outline, (1.0, 1.0, 1.0))),
        _drawn(grey[2], outline, colour),
    )
    unit = "HU" if is_hounsfield(evidence.image) else "a.u."
    note = (
        f"sagittal slice {s + 1} of {len(mask)}; difference: blue +{most:.3g} {unit} (added, lytic)"
        f" to orange -{most:.3g} {unit} (taken away, blastic)"
    )
    if not scored.any():
        note += "; the method proposed nothing here"
    return Strip(dict(zip(TITLES, pictures)), note)


def slice_candidate(evidence: Evidence, mask: Mask, s: int) -> Mask:
    """Return the pixels (P, I) of the candidate of slice ``s`` that ``mask`` (P, I) covers most of.

    A lesion's voxels have been through the CT's grid: its candidates, as they were scored, are the
    4-connected parts of the evidence's masks.  Empty where the mask touches none.
    """
    best = np.zeros_like(mask)
    most = 0
    for candidates in (evidence.lytic[s], evidence.blastic[s]):
        parts, _ = ndimage.label(candidates)
        covered = np.bincount(parts[mask & candidates], minlength=1)
        if covered.size and covered.max() > most:
            most, best = int(covered.max()), parts == int(covered.argmax())
    return best


def revealed_alone(evidence: Evidence, kept: Mask, s: int) -> npt.NDArray[np.float32]:
    """Return slice ``s`` (P, I) with the healthy edit in all changed pixels but those to keep."""
    return np.where(evidence.changed[s] & ~kept, evidence.edit[s], evidence.image[s])


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
    """Return the outline just outside the mask, so that it hides none of it."""
    large = np.kron(mask, np.ones((scale, scale), bool))
    smooth = ndimage.gaussian_filter(large.astype(np.float32), scale / 2) > 0.5
    return np.asarray(ndimage.binary_dilation(smooth, iterations=2) & ~smooth)


def _over(picture: Picture, rim: Mask, colour: Colour) -> Picture:
    return np.where(rim[..., None], np.array(colour, np.float32), picture)


def _drawn(picture: Picture, rim: Mask, colour: Colour) -> Picture:
    return _finish(_over(picture, rim, colour))


def _with_bar(picture: Picture) -> Picture:
    """Draw the scale along the right side, where no body is and the difference is black.

    It runs from the most that was added down to the most that was taken away.
    """
    shares = np.linspace(1, -1, len(picture))[:, None].repeat(_BAR, axis=1).astype(np.float32)
    picture[:, -_BAR:] = np.round(_signed(shares, 1.0, 1) * 255).astype(np.uint8)
    picture[:, -_BAR - 1] = 255
    return picture


def _finish(picture: Picture) -> Picture:
    """Rows and columns swapped, so that superior is up; bytes."""
    return np.ascontiguousarray((np.swapaxes(picture, 0, 1) * 255).round().astype(np.uint8))
