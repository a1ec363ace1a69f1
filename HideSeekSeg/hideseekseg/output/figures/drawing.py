"""Drawing sagittal slices: one look for all pictures.

matplotlib is imported inside functions: finding lesions does not need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...files import atomic
from ..segment_description import TYPE_COLOURS, Colour

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Width 1800 HU, level 400 HU: the usual bone window.
BONE_WINDOW = (-500.0, 1300.0)


DIFFERENCE_HU = 300.0


def is_hounsfield(values: npt.NDArray[np.floating]) -> bool:
    """Return whether intensities around vertebrae look like HU: fat below 0, bone above 150."""
    low, high = np.nanpercentile(values, [0.1, 99.5])
    return bool(low < 0 and high > 150)


def window(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Black and white for display: the bone window for HU, else the bulk of the values."""
    if is_hounsfield(values):
        return BONE_WINDOW
    low, high = (float(v) for v in np.nanpercentile(values, [0.5, 99.5]))
    return low, max(high, low + 1e-6)


def difference_limit(
    image: npt.NDArray[np.floating], differences: npt.NDArray[np.floating]
) -> float:
    """Return how far the display of a difference goes to either side of zero.

    In HU always as far, so that vertebrae and patients can be compared; else as ``reach``.
    """
    return DIFFERENCE_HU if is_hounsfield(image) else reach(differences)


def reach(differences: npt.NDArray[np.floating]) -> float:
    """Return how far a signed display goes to either side of zero."""
    sizes = np.abs(differences)
    return max(float(np.nanpercentile(sizes, 99.5)) if sizes.size else 1.0, 1e-6)


def busiest_slice(lesions: Sequence[Mask], body: Mask) -> int:
    """Index of the slice with the largest lesion area; the body's middle slice without lesions.

    Masks are (S, P, I).
    """
    area = np.sum([mask.sum(axis=(1, 2)) for mask in lesions], axis=0)
    if np.any(area):
        return int(np.argmax(area))
    through = np.flatnonzero(body.any(axis=(1, 2)))
    return int(through[len(through) // 2]) if len(through) else len(body) // 2


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Image = npt.NDArray[np.floating[Any]]

BACKGROUND = "#0b0d10"
TEXT = "#e6e6e6"
DIM = "#9aa0a6"
DPI = 110


@dataclass(frozen=True)
class Outline:
    """The contour of a mask (P, I) and a word behind it, at its upper or lower end."""

    mask: Mask
    colour: Colour
    text: str = ""
    above: bool = False
    dotted: bool = False


@dataclass(frozen=True)
class Tile:
    """A sagittal slice (P, I) to draw: anterior will be left and superior up.

    A ``signed`` image is drawn in the colours of lytic (positive) and blastic (negative), black at
    zero.  ``limits`` are the ends of the scale; None takes what suits the image.  ``pixel_mm`` is
    (P, I).
    """

    image: Image
    outlines: Sequence[Outline] = ()
    title: str = ""
    limits: tuple[float, float] | None = None
    signed: bool = False
    pixel_mm: tuple[float, float] = (1.0, 1.0)


def new_figure(width: float, height: float) -> Figure:
    """Make a dark figure in inches, outside of matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)


def add_axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Axes within (left, top, width, height), in inches from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    left, top, wide, high = box
    axes = figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))
    bare(axes)
    return axes


def write(
    figure: Figure, x: float, y: float, text: str, colour: Colour | str, size: float, **style: Any
) -> None:
    """Text whose base line begins at (x, y), in inches from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, text, color=colour, fontsize=size, **style)


def save_figure(path: str | Path, figure: Figure, title: str = "") -> None:
    """Render to PNG and move it into place; ``title`` is kept in the file, with its print size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic(path) as temporary, temporary.open("wb") as file:
        told = {"Title": title} if title else None
        # Level 4 instead of 6: half the time for a tenth more bytes.
        FigureCanvasAgg(figure).print_png(file, metadata=told, pil_kwargs={"compress_level": 4})


def difference_map() -> Colormap:
    """Blastic colour, black, lytic colour."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = [TYPE_COLOURS["blastic"], (0.0, 0.0, 0.0), TYPE_COLOURS["lytic"]]
    return LinearSegmentedColormap.from_list("difference", colours)


def scale_of(tiles: Sequence[Tile]) -> tuple[float, float]:
    """Return the limits that suit all of the tiles, which are all signed or all not."""
    values = np.concatenate([tile.image.ravel() for tile in tiles])
    if tiles[0].signed:
        return -reach(values), reach(values)
    return window(values)


def draw_tile(axes: Axes, tile: Tile) -> None:
    """One slice with its outlines, on axes in millimetres from the slice's upper left corner."""
    width, height = (n * mm for n, mm in zip(tile.image.shape, tile.pixel_mm))
    low, high = tile.limits or scale_of([tile])
    axes.imshow(
        tile.image.T,
        cmap=difference_map() if tile.signed else "gray",
        vmin=low,
        vmax=high,
        extent=(0.0, width, height, 0.0),
        interpolation="bilinear",
    )
    for outline in tile.outlines:
        draw_outline(axes, outline, tile.pixel_mm)
    bare(axes)
    axes.set(xlim=(0.0, width), ylim=(height, 0.0))
    if tile.title:
        axes.set_title(tile.title, color=TEXT, fontsize=8, pad=3)


def draw_outline(axes: Axes, outline: Outline, pixel_mm: tuple[float, float]) -> None:
    """Draw the contour of a mask (P, I) and its text, on axes in millimetres."""
    if not outline.mask.any():
        return
    # A rim of zeros closes contours at the border of the image.
    x, y = ((np.arange(n + 2) - 0.5) * mm for n, mm in zip(outline.mask.shape, pixel_mm))
    axes.contour(
        x,
        y,
        np.pad(outline.mask, 1).T.astype(float),
        levels=[0.5],
        colors=[outline.colour],
        linewidths=0.8 if outline.dotted else 1.4,
        linestyles=":" if outline.dotted else "-",
    )
    if outline.text:
        _write_beside(axes, outline, pixel_mm)


def _write_beside(axes: Axes, outline: Outline, pixel_mm: tuple[float, float]) -> None:
    """Write the text behind the contour, or in front of it where there is no room."""
    inside = np.argwhere(outline.mask) + 0.5
    (left, top), (right, bottom) = inside.min(axis=0), inside.max(axis=0)
    room = right < 0.8 * outline.mask.shape[0]
    x = (right + 1.0 if room else left - 1.0) * pixel_mm[0]
    y = (top if outline.above else bottom) * pixel_mm[1]
    sides = {"ha": "left" if room else "right", "va": "bottom" if outline.above else "top"}
    note(axes, x, y, outline.text, outline.colour, **sides)


def note(axes: Axes, x: float, y: float, text: str, colour: Colour | str, **style: Any) -> None:
    """Small text that stays readable on bone."""
    from matplotlib.patheffects import withStroke

    style = {"fontsize": 8, "clip_on": True, **style}
    effect = [withStroke(linewidth=2, foreground="black")]
    axes.text(x, y, text, color=colour, path_effects=effect, **style)


def scale_bar(axes: Axes, width: float, height: float, length: float) -> None:
    """Draw a bar of some millimetres, on axes in millimetres, at the lower right."""
    x, y = 0.95 * width, 0.93 * height
    axes.plot([x - length, x], [y, y], color=TEXT, linewidth=2, solid_capstyle="butt")
    note(axes, x - length / 2, y - 0.01 * height, f"{length:g} mm", TEXT, ha="center", va="bottom")


def mark_sides(axes: Axes) -> None:
    """Anterior, posterior, superior and inferior at the rim of a sagittal image."""
    for text, x, y in (("A", 0.03, 0.5), ("P", 0.97, 0.5), ("S", 0.5, 0.97), ("I", 0.5, 0.03)):
        note(axes, x, y, text, DIM, transform=axes.transAxes, ha="center", va="center", fontsize=6)


def bare(axes: Axes) -> None:
    """No ticks, no frame, millimetres of equal length both ways."""
    axes.set(xticks=[], yticks=[], aspect="equal", anchor="N", facecolor=BACKGROUND)
    for spine in axes.spines.values():
        spine.set_visible(False)
