"""Pictures of a whole run as PNG: the overview, its sagittal spine with lesions, contact sheets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ...findings import Evidence, Result, Status, VertebraFinding
from ...imaging.volume import Grid, Patch, Volume, bounds, case_name, move_patch
from ..segment_description import TYPE_COLOURS, head_to_tail
from ..tables import summary
from .drawing import (
    DIM,
    TEXT,
    Colour,
    Floats,
    Mask,
    Outline,
    Tile,
    add_axes,
    draw_outline,
    draw_tile,
    mark_sides,
    new_figure,
    note,
    save_figure,
    scale_of,
    window,
    write,
)
from .vertebra_row import ROW_HEIGHT, ROW_WIDTH, common_look, draw_heads, draw_row, make_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Inches.
_HEAD, _FOOT, _LINE, _LIST_WIDTH = 0.95, 0.6, 0.18, 4.0
# Vertebrae under each other and beside each other; more than these are counted, not drawn.
_ROWS, _BLOCKS = 8, 3
_LEAST_ROWS = 2.4  # of height, for the spine beside one or two
_NOT_ANALYSED_LINES, _FLAG_LINES = 4, 8
_NEARLY = 3  # vertebrae that are drawn where nothing is above the threshold
_EXPLANATION = (
    "Contours: candidates above the threshold, with their {score}.  "
    "Dotted: candidates below it, and the vertebral body.  "
    "Difference: healthy edit minus reconstruction."
)
_DISCLAIMER = "Research use only, not a medical device."


def overview(
    path: str | Path, ct: Volume, result: Result, evidence: Mapping[str, Evidence]
) -> None:
    """Draw each vertebra with accepted lesions (original, healthy edit, difference), and the spine.

    ``evidence`` is by level; a vertebra without it has no pictures and no label on the spine.
    Superior is up and anterior left.  The PNG stays within 3,800 x 2,100 pixels: vertebrae with
    findings beyond the 24th are counted, not drawn.  Raises InputError where it cannot be written.
    """
    vertebrae = head_to_tail(result.vertebrae)
    seen = [v for v in vertebrae if v.level in evidence]
    found = [v for v in seen if v.accepted(result.threshold)]
    shown = found[: _ROWS * _BLOCKS] or _nearly(seen)
    height = max(min(len(shown), _ROWS), _LEAST_ROWS) * ROW_HEIGHT + _HEAD + _FOOT
    left = -(-len(shown) // _ROWS) * ROW_WIDTH or _LIST_WIDTH
    spine = float(np.clip(0.5 * height, 5.0, 8.0))
    figure = new_figure(left + spine, height)
    if shown:
        _draw_findings(figure, shown, ct, result.threshold, evidence)
    else:
        _list_vertebrae(figure, vertebrae, result.threshold)
    silent = _not_analysed(vertebrae) if shown else []
    silent += _flagged(vertebrae, shown)
    foot = _FOOT + _LINE * len(silent)
    axes = add_axes(figure, (left + 0.1, _HEAD, spine - 0.2, height - _HEAD - foot))
    draw_spine(axes, ct, vertebrae, result.threshold, evidence)
    for n, line in enumerate(silent):
        write(figure, left + 0.1, height - foot + _LINE * (n + 1), line, DIM, 8)
    look = common_look([evidence[v.level] for v in shown]) if shown else None
    case = case_name(result.run.get("scan", {}))
    window = f"window {look.limits[0]:.0f} to {look.limits[1]:.0f} {look.unit}" if look else ""
    told = "     ".join(word for word in (case, window) if word)
    _write_frame(figure, left, result, max(len(found) - len(shown), 0), told)
    save_figure(path, figure, case)


def _nearly(seen: Sequence[VertebraFinding]) -> list[VertebraFinding]:
    """Return the vertebrae with the best candidates below the threshold, where nothing is found."""
    some = [v for v in seen if v.candidates]
    best = sorted(some, key=lambda v: -max(c.score for c in v.candidates))[:_NEARLY]
    return head_to_tail(best)


def _flagged(vertebrae: Sequence[VertebraFinding], shown: Sequence[VertebraFinding]) -> list[str]:
    """Return the flags of vertebrae that are not drawn with theirs, in few lines."""
    drawn = {v.level for v in shown}
    lines = [
        shorten(f"{v.level}: {'; '.join(v.flags)}", 84)
        for v in vertebrae
        if v.flags and v.level not in drawn and v.status is not Status.NOT_ANALYSED
    ]
    if len(lines) <= _FLAG_LINES:
        return lines
    return [*lines[: _FLAG_LINES - 1], f"and {len(lines) - _FLAG_LINES + 1} more with flags"]


def _draw_findings(
    figure: Figure,
    shown: Sequence[VertebraFinding],
    ct: Volume,
    threshold: float,
    evidence: Mapping[str, Evidence],
) -> None:
    calibrated = any(c.probability is not None for v in shown for c in v.candidates)
    score = "probability of a lesion" if calibrated else "attribution score"
    explained = _EXPLANATION.format(score=score)
    write(figure, 0.2, figure.get_figheight() - 0.32, explained, DIM, 8)
    look = common_look([evidence[v.level] for v in shown])
    for n, vertebra in enumerate(shown):
        left, top = n // _ROWS * ROW_WIDTH, _HEAD + n % _ROWS * ROW_HEIGHT
        if n % _ROWS == 0:
            draw_heads(figure, left, _HEAD - 0.1, look)
        row = make_row(vertebra, evidence[vertebra.level], ct.grid, threshold)
        draw_row(figure, left, top, row, look)


def _list_vertebrae(figure: Figure, vertebrae: Sequence[VertebraFinding], threshold: float) -> None:
    """In place of findings: what is said of each vertebra."""
    for n, v in enumerate(vertebrae):
        p = "" if v.p_malignant is None else f", P(malignant) {v.p_malignant:.3f}"
        line = shorten(f"{v.level}  {v.state(threshold)}{p}", 72)
        status = v.judged(threshold).status
        write(figure, 0.2, _HEAD + _LINE * (n + 1), line, STATUS_COLOURS[status], 8.5)


def _not_analysed(vertebrae: Sequence[VertebraFinding]) -> list[str]:
    """Return the vertebrae that were not analysed and why, in few lines."""
    reasons: dict[str, list[str]] = {}
    for v in vertebrae:
        if v.status is Status.NOT_ANALYSED:
            reasons.setdefault(v.reason, []).append(v.level)
    lines = [
        shorten(f"{', '.join(levels)} not analysed: {reason}", 72)
        for reason, levels in reasons.items()
    ]
    if len(lines) <= _NOT_ANALYSED_LINES:
        return lines
    kept = _NOT_ANALYSED_LINES - 1
    rest = sum(len(levels) for levels in list(reasons.values())[kept:])
    return [*lines[:kept], f"and {rest} more not analysed"]


def _write_frame(figure: Figure, left: float, result: Result, left_out: int, told: str) -> None:
    """Title, legend and caption around the pictures."""
    more = f"; {left_out} more vertebrae with findings are not drawn" if left_out else ""
    write(figure, 0.2, 0.32, f"HideSeekSeg: {summary(result)}{more}", TEXT, 12, weight="bold")
    write(figure, 0.2, 0.54, told, DIM, 9)
    x = left + 0.1
    kinds: list[tuple[str, Colour | str]] = [
        (f"\N{BLACK SQUARE} {kind}", colour) for kind, colour in TYPE_COLOURS.items()
    ]
    states: list[tuple[str, Colour | str]] = [
        ("level, P(malignant):", TEXT),
        ("lesion outlined", STATUS_COLOURS[Status.FINDINGS]),
        ("suspicious", STATUS_COLOURS[Status.SUSPICIOUS]),
        ("unremarkable", STATUS_COLOURS[Status.NO_FINDING]),
    ]
    for offset, (text, colour) in zip((0.0, 0.7), kinds):
        write(figure, x + offset, _HEAD - 0.29, text, colour, 8.5)
    for offset, (text, colour) in zip((0.0, 1.4, 2.45, 3.25), states):
        write(figure, x + offset, _HEAD - 0.1, text, colour, 8.5)
    height = figure.get_figheight()
    weights = result.run.get("weights", "unknown")
    digest = str(result.run.get("weights_hash", ""))[:12]
    caption = f"Weights {weights} {digest}, threshold {result.threshold:g}.  {_DISCLAIMER}"
    write(figure, 0.2, height - 0.14, caption, DIM, 8)


def show_crops(
    path: str | Path, rows: Sequence[Sequence[Tile]], titles: Sequence[str] = ()
) -> None:
    """Draw a contact sheet: rows of sagittal slices, each row with its title in front.

    Tiles without ``limits`` share one scale, signed ones another, so that they can be compared.
    """
    panel, gap, head = 1.6, 0.08, 0.25
    left = 1.8 if any(titles) else gap
    across = max(len(row) for row in rows)
    figure = new_figure(left + across * (panel + gap), len(rows) * (panel + head) + gap)
    for r, row in enumerate(_share_scales(rows)):
        top = r * (panel + head) + head
        for c, tile in enumerate(row):
            draw_tile(add_axes(figure, (left + c * (panel + gap), top, panel, panel)), tile)
    for r, title in enumerate(titles):
        write(figure, 0.1, r * (panel + head) + head + panel / 2, title, TEXT, 9)
    save_figure(path, figure)


def _share_scales(rows: Sequence[Sequence[Tile]]) -> list[list[Tile]]:
    loose = [tile for row in rows for tile in row if tile.limits is None]
    scales = {
        signed: scale_of([tile for tile in loose if tile.signed is signed])
        for signed in {tile.signed for tile in loose}
    }
    return [
        [replace(tile, limits=tile.limits or scales[tile.signed]) for tile in row] for row in rows
    ]


STATUS_COLOURS = {
    Status.FINDINGS: "#ff79a8",
    Status.SUSPICIOUS: "#ffc857",
    Status.NO_FINDING: "#b9c3cd",  # neutral: no colour says that all is well
    Status.NOT_ANALYSED: DIM,
}


@dataclass(frozen=True)
class SpineView:
    """A sagittal image (Z, Y) that follows the spine sideways.

    Rows run superior to inferior, columns anterior to posterior, in squares of ``pixel_mm``.
    ``top`` and ``front`` are LPS z of the first row and LPS y of the first column in mm.
    """

    image: npt.NDArray[np.float32]
    pixel_mm: float
    top: float
    front: float

    def project(self, patches: Iterable[Patch], ct: Grid) -> Mask:
        """Shadow (Z, Y) of patches of the CT's grid, cast along the left-right axis."""
        shadow = np.zeros(self.image.shape, bool)
        grid = self._across(ct)
        for patch in patches:
            moved = move_patch(patch, ct, grid)
            if moved is not None:
                flat = moved.array.any(axis=0)
                (_, row, column), (rows, columns) = moved.start, flat.shape
                shadow[row : row + rows, column : column + columns] |= flat
        return shadow

    def _across(self, ct: Grid) -> Grid:
        """Return the view's pixels, repeated every millimetre from the CT's right to its left."""
        low, high = bounds(ct)
        matrix = np.eye(4)
        matrix[:3, :3] = np.array([[0, 0, 1], [self.pixel_mm, 0, 0], [0, -self.pixel_mm, 0]])
        matrix[:3, 3] = (low[0], self.front, self.top)
        return Grid((int(np.ceil(high[0] - low[0])) + 1, *self.image.shape), matrix)


def spine_view(ct: Volume, centres: Floats, slab_mm: float = 5.0) -> SpineView:
    """Return a sagittal view through the vertebral bodies, averaged over ``slab_mm``.

    ``centres`` (N, 3) are the bodies' centres in LPS mm.  The view bends sideways with them, so
    that a scoliotic spine stays in it; from front to back it stays straight, as kyphosis is what
    the reader wants to see.  In front it has room for labels, if need be outside the volume.
    Without centres it is the volume's middle sagittal plane.
    """
    pixel = float(np.clip(ct.grid.spacing.min(), 0.5, 1.5))
    low, high = bounds(ct.grid)
    if len(centres):
        centres = centres[np.argsort(centres[:, 2])]
        low[2] = max(low[2], centres[0, 2] - 30.0)
        low[1] = centres[:, 1].min() - 60.0
        high[1] = min(high[1], centres[:, 1].max() + 75.0)
        high[2] = min(high[2], centres[-1, 2] + 30.0)
    else:
        centres = ((low + high) / 2)[None]
    z = np.arange(high[2], low[2], -pixel)
    y = np.arange(low[1], high[1], pixel)
    x = np.interp(z, centres[:, 2], centres[:, 0])
    offsets = np.linspace(-slab_mm / 2, slab_mm / 2, 5)
    lps = np.stack(
        np.broadcast_arrays(
            x[None, :, None] + offsets[:, None, None], y[None, None, :], z[None, :, None]
        ),
        axis=-1,
    )
    kji = np.moveaxis(ct.grid.ijk(lps)[..., ::-1], -1, 0)
    outside = float(np.nanmin(ct.array))
    slab = ndimage.map_coordinates(ct.array, kji, output=np.float32, order=1, cval=outside)
    return SpineView(slab.mean(axis=0), pixel, float(z[0]), float(y[0]))


def body_centres(evidence: Mapping[str, Evidence]) -> dict[str, Floats]:
    """Centres of the vertebral bodies in LPS mm, by level."""
    return {
        level: seen.grid.lps(np.argwhere(seen.body)[:, ::-1]).mean(axis=0)
        for level, seen in evidence.items()
        if seen.body.any()
    }


def draw_spine(
    axes: Axes,
    ct: Volume,
    vertebrae: Sequence[VertebraFinding],
    threshold: float,
    evidence: Mapping[str, Evidence],
) -> None:
    """Draw the spine, a label in front of each body, and the shadows of lesions."""
    centres = body_centres(evidence)
    view = spine_view(ct, np.array(list(centres.values())).reshape(-1, 3))
    draw_tile(
        axes,
        Tile(view.image.T, limits=window(view.image), pixel_mm=(view.pixel_mm, view.pixel_mm)),
    )
    mark_sides(axes)
    for vertebra in vertebrae:
        for kind, colour in TYPE_COLOURS.items():
            accepted = (c for c in vertebra.accepted(threshold) if c.type == kind)
            shadow = view.project([c.patch for c in accepted if c.patch], ct.grid)
            draw_outline(axes, Outline(shadow.T, colour), (view.pixel_mm, view.pixel_mm))
        if vertebra.level in centres:
            _label(axes, view, vertebra, centres[vertebra.level])


def _label(axes: Axes, view: SpineView, vertebra: VertebraFinding, centre: Floats) -> None:
    """Write the level in front of its body, with P(malignant)."""
    p = "" if vertebra.p_malignant is None else f"  {vertebra.p_malignant:.2f}"
    note(
        axes,
        centre[1] - view.front - 22.0,
        view.top - centre[2],
        vertebra.level + p,
        STATUS_COLOURS[vertebra.status],
        ha="right",
        va="center",
        weight="bold" if vertebra.status is Status.FINDINGS else "normal",
    )
