"""One vertebra with findings: original, healthy edit, difference, lesions, each one's evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ...findings import LESION_TYPES, Candidate, Evidence, LesionType, VertebraFinding
from ...imaging.volume import Grid, Patch, move_patch
from ..segment_description import TYPE_COLOURS, labels
from .drawing import (
    DIM,
    TEXT,
    Colour,
    Mask,
    Outline,
    Tile,
    add_axes,
    busiest_slice,
    difference_limit,
    draw_tile,
    is_hounsfield,
    mark_sides,
    scale_bar,
    window,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Inches.
ROW_HEIGHT, _TEXT, _PANEL, _GAP = 2.1, 2.5, 1.95, 0.1
ROW_WIDTH = _TEXT + 3 * (_PANEL + _GAP) + 0.15
BAR_MM = 20.0
_BODY = (0.6, 0.6, 0.6)


@dataclass(frozen=True)
class RowStyle:
    """What rows share so that they can be compared: grey window, size of the difference, unit."""

    limits: tuple[float, float]
    difference: float
    unit: str


def common_look(evidence: Sequence[Evidence]) -> RowStyle:
    """One window for all originals and edits, one scale for all differences inside bodies."""
    images = np.concatenate([e.image.ravel() for e in evidence])
    inside = np.concatenate([e.difference[e.body] for e in evidence])
    unit = "HU" if is_hounsfield(images) else "a.u."
    return RowStyle(window(images), difference_limit(images, inside), unit)


@dataclass(frozen=True)
class VertebraRow:
    """A vertebra, its candidates' masks (S, P, I) on the crop, and the slice that shows most."""

    vertebra: VertebraFinding
    evidence: Evidence
    accepted: tuple[Candidate, ...]
    masks: dict[str, Mask]
    slice: int


def make_row(
    vertebra: VertebraFinding, evidence: Evidence, ct: Grid, threshold: float
) -> VertebraRow:
    """Bring the candidates from the CT's grid to the crop's."""
    masks: dict[str, Mask] = {}
    for candidate in vertebra.candidates:
        masks[candidate.id] = np.zeros(evidence.grid.shape, bool)
        moved = candidate.patch and move_patch(candidate.patch, ct, evidence.grid)
        if moved:
            moved.paint(masks[candidate.id])
    accepted = vertebra.accepted(threshold)
    best = accepted or vertebra.candidates[:1]
    chosen = busiest_slice([masks[c.id] for c in best], evidence.body)
    return VertebraRow(vertebra, evidence, accepted, masks, chosen)


def draw_heads(figure: Figure, left: float, base: float, look: RowStyle) -> None:
    """Titles over the pictures of a column of rows."""
    largest = f"\N{PLUS-MINUS SIGN}{look.difference:.3g} {look.unit}"
    heads = ("original", "healthy edit", f"difference, {largest}")
    for n, head in enumerate(heads):
        write(figure, left + _panel_left(n) + _PANEL / 2, base, head, TEXT, 8.5, ha="center")


def draw_row(figure: Figure, left: float, top: float, row: VertebraRow, look: RowStyle) -> None:
    """Draw the row at (left, top), in inches from the figure's upper left corner."""
    seen, s = row.evidence, row.slice
    mm = (float(seen.grid.spacing[1]), float(seen.grid.spacing[0]))
    signed = (-look.difference, look.difference)
    found = _outlines(row, row.accepted or row.vertebra.candidates)
    everything = _outlines(row, row.vertebra.candidates, scores=False)
    # The difference alone is black around the lesions: the body's outline says where they lie.
    everything.append(Outline(seen.body[s], _BODY, dotted=True))
    tiles = (
        Tile(seen.image[s], found, limits=look.limits, pixel_mm=mm),
        Tile(seen.edit[s], limits=look.limits, pixel_mm=mm),
        Tile(seen.difference[s], everything, limits=signed, signed=True, pixel_mm=mm),
    )
    for n, tile in enumerate(tiles):
        axes = add_axes(figure, (left + _panel_left(n), top, _PANEL, _PANEL))
        draw_tile(axes, tile)
        mark_sides(axes)
        if n == 0:
            across, down = (size * step for size, step in zip(tile.image.shape, mm))
            scale_bar(axes, across, down, BAR_MM)
    _write_findings(figure, left + 0.2, top + 0.25, row)


def _panel_left(n: int) -> float:
    return _TEXT + n * (_PANEL + _GAP)


def _outlines(
    row: VertebraRow, candidates: Sequence[Candidate], scores: bool = True
) -> list[Outline]:
    names = labels(row.vertebra)
    return [
        Outline(
            row.masks[c.id][row.slice],
            names[c.id].colour,
            f"{c.score:.2f}" if scores else "",
            above=c.type == "blastic",  # so that scores of neighbours of two types stay apart
            dotted=c not in row.accepted,
        )
        for c in candidates
    ]


def _write_findings(figure: Figure, x: float, y: float, row: VertebraRow) -> None:
    vertebra, names = row.vertebra, labels(row.vertebra)
    write(figure, x, y, vertebra.level, TEXT, 15, weight="bold")
    p = "unknown" if vertebra.p_malignant is None else f"{vertebra.p_malignant:.3f}"
    lines: list[tuple[str, Colour | str]] = [(f"P(malignant) {p}", TEXT), (_place(row), DIM)]
    for candidate in row.accepted[:4]:
        label = names[candidate.id]
        name = label.name.removeprefix(vertebra.level).strip()
        here = "" if row.masks[candidate.id][row.slice].any() else " (other slice)"
        size = f"{candidate.volume_mm3 / 1000:.2f} mL"
        lines.append((f"{name}: {candidate.score:.2f}, {size}{here}", label.colour))
    if not row.accepted and vertebra.candidates:
        best = max(vertebra.candidates, key=lambda c: c.score)
        lines.append((f"below the threshold: {best.type} {best.score:.2f}", DIM))
    if len(row.accepted) > 4:
        lines.append((f"and {len(row.accepted) - 4} more", DIM))
    flags = [line for flag in vertebra.flags for line in wrap(flag, 36)]
    lines += [(line, DIM) for line in flags[: 8 - len(lines)]]
    for n, (text, colour) in enumerate(lines):
        write(figure, x, y + 0.25 + 0.19 * n, text, colour, 8.5)


def _place(row: VertebraRow) -> str:
    """Return where the slice lies, as a sagittal picture cannot show left and right."""
    through = np.flatnonzero(row.evidence.body.any(axis=(1, 2)))
    middle = through.mean() if len(through) else (len(row.evidence.body) - 1) / 2
    off = (row.slice - middle) * row.evidence.grid.spacing[2]
    if abs(off) < 0.75:
        return "slice through the middle"
    return f"slice {abs(off):.0f} mm to the {'right' if off > 0 else 'left'} of the middle"


Picture = npt.NDArray[np.uint8]

TITLES = ("original", "healthy edit", "difference", "revealed alone")
_PIXELS = 224  # of the longer side, at least
_BAR = 10  # pixels of the scale's width
_STRIP_BODY = (0.55, 0.55, 0.55)


@dataclass(frozen=True)
class Strip:
    """``pictures`` (H, W, 3) by title, anterior left and superior up; ``note`` says which slice."""

    pictures: dict[str, Picture]
    note: str


def make_strip(evidence: Evidence, patch: Patch, ct: Grid, kind: LesionType) -> Strip:
    """Draw the sagittal slice with most of the candidate, whose voxels are on the CT's grid."""
    mask = np.zeros(evidence.grid.shape, bool)
    moved = move_patch(patch, ct, evidence.grid)
    if moved is not None:
        moved.paint(mask)
    return draw_strip(evidence, mask, kind, common_look([evidence]))


def draw_strip(evidence: Evidence, mask: Mask, kind: LesionType, look: RowStyle) -> Strip:
    """Draw the sagittal slice with most of a candidate, whose mask (S, P, I) is on the crop.

    ``look`` is that of the vertebra alone.  *Revealed alone* is what the classifier was given: the
    healthy edit replaces every changed pixel but those of this candidate.
    """
    s = busiest_slice([mask], evidence.body)
    scored = slice_candidate(evidence, mask[s], s)
    alone = revealed_alone(evidence, scored if scored.any() else mask[s], s)
    (low, high), most, unit = look.limits, look.difference, look.unit
    scale = -(-_PIXELS // max(evidence.image[s].shape))
    grey = [_grey(x, low, high, scale) for x in (evidence.image[s], evidence.edit[s], alone)]
    signed = _signed(evidence.difference[s], most, scale)
    outline, body = _rim(mask[s], scale), _rim(evidence.body[s], scale)
    for picture, rim, colour in (
        (grey[0], outline, TYPE_COLOURS[kind]),
        (signed, body, _STRIP_BODY),
        (signed, outline, (1.0, 1.0, 1.0)),
        (grey[2], outline, TYPE_COLOURS[kind]),
    ):
        picture[rim] = _in_bytes(np.array(colour, np.float32))
    pictures = [_upright(x) for x in (grey[0], grey[1], signed, grey[2])]
    _draw_bar(pictures[2])
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
    grey = np.clip((_enlarged(image, scale) - low) / (high - low), 0, 1).astype(np.float32)
    return np.repeat(_in_bytes(grey)[..., None], 3, axis=2)


def _signed(image: npt.NDArray[np.float32], most: float, scale: int) -> Picture:
    return _in_bytes(_signed_colours(_enlarged(image, scale) / most))


def _signed_colours(shares: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Blue where density was added (lytic), orange where it was taken away, black at zero."""
    positive, negative = np.clip(shares, 0, 1), np.clip(-shares, 0, 1)
    colours = np.empty((*shares.shape, 3), np.float32)
    for n, (added, taken) in enumerate(zip(*(TYPE_COLOURS[kind] for kind in LESION_TYPES))):
        colours[..., n] = positive * added + negative * taken  # one of both is 0
    return colours


def _enlarged(image: npt.NDArray[np.float32], scale: int) -> npt.NDArray[np.float32]:
    """Return the image with ``scale`` pixels for each, linear between the middles of its own.

    As ``ndimage.zoom`` with its ``grid_mode``, in an eighth of the time.
    """
    for axis in (0, 1):
        lines = np.moveaxis(np.asarray(image, np.float32), axis, 0)
        large = np.empty((len(lines), scale, lines.shape[1]), np.float32)
        before = np.concatenate([lines[:1], lines[:-1]])
        after = np.concatenate([lines[1:], lines[-1:]])
        for n in range(scale):
            past = np.float32((n + 0.5) / scale - 0.5)  # the middle of its own pixel
            large[:, n] = lines + abs(past) * ((before if past < 0 else after) - lines)
        image = np.moveaxis(large.reshape(-1, lines.shape[1]), 0, axis)
    return image


def _rim(mask: Mask, scale: int) -> Mask:
    """Return the outline just outside the mask, so that it hides none of it."""
    rim = np.zeros((mask.shape[0] * scale, mask.shape[1] * scale), bool)
    if not mask.any():
        return rim
    # No further than the smoothing reaches: 4 standard deviations, and the rim itself.
    inside = np.argwhere(mask)
    low = np.maximum(inside.min(axis=0) - 4, 0)
    high = np.minimum(inside.max(axis=0) + 5, mask.shape)
    near = mask[low[0] : high[0], low[1] : high[1]]
    large = near.repeat(scale, axis=0).repeat(scale, axis=1)
    smooth = ndimage.gaussian_filter(large.astype(np.float32), scale / 2) > 0.5
    part = rim[low[0] * scale : high[0] * scale, low[1] * scale : high[1] * scale]
    part[...] = ndimage.binary_dilation(smooth, iterations=2) & ~smooth
    return rim


def _draw_bar(picture: Picture) -> None:
    """Draw the scale along the right side, where no body is and the difference is black.

    It runs from the most that was added down to the most that was taken away.
    """
    shares = np.linspace(1, -1, len(picture))[:, None].repeat(_BAR, axis=1).astype(np.float32)
    picture[:, -_BAR:] = _in_bytes(_signed_colours(shares))
    picture[:, -_BAR - 1] = 255


def _in_bytes(shares: npt.NDArray[np.float32]) -> Picture:
    return np.asarray((shares * 255).round().astype(np.uint8))


def _upright(picture: Picture) -> Picture:
    """Rows and columns swapped, so that superior is up."""
    return np.ascontiguousarray(np.swapaxes(picture, 0, 1))
