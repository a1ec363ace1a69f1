"""A picture of simulated slices, to look at before anything is trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..archives import read_arrays
from ..output.figures.drawing import TYPE_COLOURS, Outline, Tile
from ..output.figures.overview import show_crops
from .simulate import BLASTIC, LYTIC

ILL, WELL, ACROSS = 36, 12, 12
WINDOW_HU = (-200.0, 900.0)


def contact_sheet(shard: Path, path: Path) -> Path:
    """Slices of a shard beside their healthy twins, lesions outlined; evenly spread over it."""
    data = read_arrays(shard)
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


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) == 0:
        return rows
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
