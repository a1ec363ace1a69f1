"""Plots of the speed benchmark: where the time goes, and how it grows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...output.figures.drawing import DIM, TEXT, new_figure, save_figure
from ..report.plots import plain_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = dict[str, Any]
GROWTH = {
    "vertebrae": ("vertebrae", "s of the processor, whole process", 1.0),
    "threads": ("threads", "s by the clock, whole spine", 1.0),
    "slices": ("slices at once", "ms of one core a slice, all steps", 1000.0),
    "candidates": ("candidates of one slice", "ms of one core, hide and seek", 1000.0),
}


def draw_plots(data: Data, folder: Path) -> list[Path]:
    """``speed-split.png`` and ``speed-growth.png``."""
    paths = [folder / "speed-split.png", folder / "speed-growth.png"]
    for path, figure in zip(paths, (_split(data), _growth(data["growth"]))):
        save_figure(path, figure)
    return paths


def _split(data: Data) -> Figure:
    """Draw a bar for each version, in parts."""
    from matplotlib import colormaps

    versions = [name for name in ("now", "before") if name in data]
    figure = new_figure(11, 1.6 + 0.8 * len(versions))
    axes = plain_axes(
        figure, 1, 1, 1, "seconds of the processor for the whole spine, under Python's profiler"
    )
    left = [0.0] * len(versions)
    for number, part in enumerate(data["now"]["split"]):
        widths = [max(data[name]["split"][part], 0.0) for name in versions]
        colour = colormaps["tab20"](number)
        axes.barh(range(len(versions)), widths, left=left, color=colour, label=part, height=0.6)
        for row, (start, width) in enumerate(zip(left, widths)):
            if width > 0.045 * max(sum(data[n]["split"].values()) for n in versions):
                axes.text(
                    start + width / 2,
                    row,
                    f"{width:.1f}",
                    color="black",
                    ha="center",
                    va="center",
                    fontsize=8,
                )
        left = [start + width for start, width in zip(left, widths)]
    axes.set_yticks(range(len(versions)), versions, color=TEXT, fontsize=9)
    axes.legend(
        frameon=False,
        labelcolor=TEXT,
        fontsize=8,
        ncols=5,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
    )
    return figure


def _growth(growth: Data) -> Figure:
    figure = new_figure(11, 6)
    for number, (key, (across, up, unit)) in enumerate(GROWTH.items(), start=1):
        axes = plain_axes(figure, 2, 2, number, "")
        counts = [int(n) for n in growth[key]]
        values = [unit * v for v in growth[key].values()]
        if key == "slices":
            values = [v / n for v, n in zip(values, counts)]
            axes.set_xscale("log", base=2)
        axes.plot(counts, values, marker="o", color=TEXT)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.set_ylim(0, 1.15 * max(values))
        axes.set_xlabel(across, color=DIM, fontsize=9)
        axes.set_ylabel(up, color=DIM, fontsize=9)
        for n, value in zip(counts, values):
            label = f"{value:.1f}" if value < 100 else f"{value:.0f}"
            axes.annotate(
                label,
                (n, value),
                (0, 6),
                textcoords="offset points",
                color=DIM,
                fontsize=8,
                ha="center",
            )
    return figure
