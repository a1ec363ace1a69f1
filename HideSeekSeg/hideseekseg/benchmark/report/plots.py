"""Plots of one set's results: free response, calibration, F1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...findings import LESION_TYPES
from ...output.figures.drawing import BACKGROUND, DIM, TEXT, TYPE_COLOURS, new_figure, save_figure
from ..metrics import IOUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = dict[str, Any]
MOST_FALSE = 3.0


def draw_plots(data: Data, folder: Path, stem: str) -> list[Path]:
    """Write the plots that the set has figures for, as ``PLOT-STEM.png``."""
    paths = []
    if any(data["lesions"].values()):
        paths += [
            _save(_free_response(data), folder / f"froc-{stem}.png"),
            _save(_f1(data), folder / f"f1-{stem}.png"),
        ]
    if any(len(row["reliability"]) > 1 for row in data["methods"]) and data["diseased"]:
        paths.append(_save(_calibration(data), folder / f"calibration-{stem}.png"))
    return paths


def _save(figure: Figure, path: Path) -> Path:
    save_figure(path, figure)
    return path


def _free_response(data: Data) -> Figure:
    figure = new_figure(12, 5)
    for number, kind in enumerate(LESION_TYPES):
        axes = plain_axes(figure, 1, 2, number + 1, f"{kind}, IoU >= {IOUS[0]}")
        for row, colour in zip(data["methods"], _colours(len(data["methods"]))):
            curve = row["free response"][kind][str(IOUS[0])]
            axes.step(
                curve["false"],
                curve["sensitivity"],
                where="post",
                color=colour,
                linewidth=2.5 if row is data["methods"][0] else 1.2,
                label=row["name"],
            )
        axes.set(xlim=(0, MOST_FALSE), ylim=(0, 1))
        axes.set_xlabel("false findings per vertebra", color=DIM)
        axes.set_ylabel("sensitivity", color=DIM)
    _legend(axes)
    return figure


def _f1(data: Data) -> Figure:
    """Bars with their intervals, a panel per IoU."""
    methods = data["methods"]
    figure = new_figure(12, 1.5 + 0.45 * len(methods))
    for number, iou in enumerate(IOUS):
        axes = plain_axes(figure, 1, 2, number + 1, f"F1, IoU >= {iou}")
        for shift, kind in ((-0.2, LESION_TYPES[0]), (0.2, LESION_TYPES[1])):
            ends = [_ends(row["metrics"][f"{kind} F1 (IoU >= {iou})"]) for row in methods]
            values = [value for _, value, _ in ends]
            errors = [[v - low for low, v, _ in ends], [high - v for _, v, high in ends]]
            at = [n + shift for n in range(len(methods))]
            style: Data = {
                "height": 0.36,
                "ecolor": TEXT,
                "label": kind,
                "color": TYPE_COLOURS[kind],
            }
            axes.barh(at, values, xerr=errors, **style)
        names = [row["name"] if number == 0 else "" for row in methods]
        axes.set_yticks(range(len(methods)), names, color=TEXT, fontsize=8)
        axes.set(xlim=(0, 1))
        axes.invert_yaxis()
    _legend(axes)
    return figure


def _ends(figure: Data) -> tuple[float, float, float]:
    """Low end, value and high end, in order; what is undefined has no length."""
    value = figure["value"] or 0.0
    low = value if figure["low"] is None else figure["low"]
    high = value if figure["high"] is None else figure["high"]
    return min(low, value), value, max(high, value)


def _calibration(data: Data) -> Figure:
    figure = new_figure(6, 5.5)
    axes = plain_axes(figure, 1, 1, 1, "calibration of P(malignant) of vertebrae")
    axes.plot([0, 1], [0, 1], color=DIM, linewidth=0.8)
    shown: set[str] = set()
    rows = data["methods"]
    for row, colour in zip(rows, _colours(len(rows))):
        bins = row["reliability"]
        key = str(bins)
        if not bins or key in shown:
            continue  # methods that share a classifier share its P
        shown.add(key)
        p, share = [b["p"] for b in bins], [b["diseased"] for b in bins]
        axes.plot(p, share, marker="o", color=colour, label=row["name"])
        for b in bins:
            axes.annotate(str(b["count"]), (b["p"], b["diseased"]), color=DIM, fontsize=7)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("mean P(malignant) of the bin", color=DIM)
    axes.set_ylabel("share diseased", color=DIM)
    _legend(axes)
    return figure


def plain_axes(figure: Figure, rows: int, columns: int, number: int, title: str) -> Axes:
    """Dark axes at a place of a lattice of plots."""
    figure.set_layout_engine("constrained")
    axes: Axes = figure.add_subplot(rows, columns, number)
    axes.set_facecolor(BACKGROUND)
    axes.set_title(title, color=TEXT, fontsize=10)
    axes.tick_params(colors=DIM, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(DIM)
    return axes


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, labelcolor=TEXT, fontsize=7)


def _colours(count: int) -> list[Any]:
    """Return the colours: white for the method under test, distinct ones for the others."""
    from matplotlib import colormaps

    return [TEXT, *(colormaps["tab20"](n % 20) for n in range(count - 1))]
