"""Pictures of training."""

from __future__ import annotations

import csv
from pathlib import Path

from ..files import read_text
from ..output.figures.drawing import save_figure


def loss_curves(folder: Path, path: Path) -> Path:
    """Draw the losses of all stages in a training folder, one panel each."""
    from matplotlib.figure import Figure

    tables = sorted(folder.glob("*-losses.csv"))
    figure = Figure(figsize=(5 * max(len(tables), 1), 3.5), layout="constrained")
    for number, table in enumerate(tables):
        rows = list(csv.DictReader(read_text(table).splitlines()))
        axes = figure.add_subplot(1, len(tables), number + 1)
        for name in [key for key in rows[0] if key != "step"] if rows else []:
            axes.plot([int(r["step"]) for r in rows], [float(r[name]) for r in rows], label=name)
        axes.set(title=table.stem.replace("-losses", ""), xlabel="step", yscale="log")
        axes.legend(frameon=False)
    save_figure(path, figure)
    return path
