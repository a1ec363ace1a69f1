"""Pictures of training data and of training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..output.figures.drawing import TYPE_COLOURS, Outline, Tile, save_figure
from ..output.figures.overview import show_crops
from ..simulation.simulate import BLASTIC, LYTIC

ILL, WELL, ACROSS = 36, 12, 12
WINDOW_HU = (-200.0, 900.0)


def contact_sheet(shard: Path, path: Path) -> Path:
    """Slices of a shard beside their healthy twins, lesions outlined; evenly spread over it."""
    with np.load(shard, allow_pickle=False) as data:
        ill = np.flatnonzero((data["masks"] & (LYTIC | BLASTIC)).any(axis=(1, 2)))
        well = np.flatnonzero(data["label"] == 0)
        images, twins, masks = (data[key] for key in ("image", "twin", "masks"))
        names = [f"{patient} {level}" for patient, level in zip(data["patient"], data["level"])]
    tiles = []
    for row in (*_spread(ill, ILL), *_spread(well, WELL)):
        outlines = [
            Outline(masks[row] & LYTIC > 0, TYPE_COLOURS["lytic"]),
            Outline(masks[row] & BLASTIC > 0, TYPE_COLOURS["blastic"]),
        ]
        tiles.append(Tile(images[row], outlines, names[row], WINDOW_HU))
        tiles.append(Tile(twins[row], (), "healthy twin", WINDOW_HU))
    show_crops(path, [tiles[start : start + ACROSS] for start in range(0, len(tiles), ACROSS)])
    return path


def loss_curves(folder: Path, path: Path) -> Path:
    """The losses of all stages in a training folder, one panel each."""
    from matplotlib.figure import Figure

    tables = sorted(folder.glob("*-losses.csv"))
    figure = Figure(figsize=(5 * max(len(tables), 1), 3.5), layout="constrained")
    for number, table in enumerate(tables):
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        axes = figure.add_subplot(1, len(tables), number + 1)
        for name in [key for key in rows[0] if key != "step"] if rows else []:
            axes.plot([int(r["step"]) for r in rows], [float(r[name]) for r in rows], label=name)
        axes.set(title=table.stem.replace("-losses", ""), xlabel="step", yscale="log")
        axes.legend(frameon=False)
    save_figure(path, figure)
    return path


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) == 0:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
