"""One vertebra with findings: original, healthy edit and difference beside what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from ...findings import Candidate, Evidence, VertebraFinding
from ...imaging.patch import move_patch
from ...imaging.volume import Grid
from ..segment_description import labels
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
    """Where the slice lies, as a sagittal picture cannot show left and right."""
    through = np.flatnonzero(row.evidence.body.any(axis=(1, 2)))
    middle = through.mean() if len(through) else (len(row.evidence.body) - 1) / 2
    off = (row.slice - middle) * row.evidence.grid.spacing[2]
    if abs(off) < 0.75:
        return "slice through the middle"
    return f"slice {abs(off):.0f} mm to the {'right' if off > 0 else 'left'} of the middle"
