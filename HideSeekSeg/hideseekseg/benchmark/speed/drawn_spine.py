"""What the speed benchmark runs on: a drawn spine of 17 vertebrae, three of them with lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...imaging.reading import make_folder
from ...simulation.example import FILES, Spot, painter, write_volume
from ...simulation.phantom.settings import SpineSettings
from ...simulation.phantom.spine import draw_spine
from ...simulation.phantom.vertebra import LEVELS

# Where in the body (share of its extents along k, j, i), radius in mm, HU.
LESIONS = (
    Spot("T4", (0.5, 0.5, 0.6), 7.0, 700.0),
    Spot("T12", (0.5, 0.5, 0.7), 8.0, 45.0),
    Spot("L3", (0.45, 0.7, 0.4), 8.0, 750.0),
)
SEED = 7


def write_spine(folder: Path, levels: tuple[str, ...] = LEVELS) -> tuple[Path, Path]:
    """Draw CT and whole vertebrae (TotalSegmentator's values) into a folder, if not there yet."""
    make_folder(folder)
    ct, vertebrae = (folder / name for name in FILES)
    if not (ct.exists() and vertebrae.exists()):
        settings = SpineSettings(
            levels, marrow_hu=165.0, fat=0.18, osteophyte=1.2, contrast=0.5, scoliosis=4.0
        )
        own = [spot for spot in LESIONS if spot.level in levels]
        drawn = draw_spine(settings, np.random.default_rng(SEED), painter(own))
        write_volume(ct, drawn.ct)
        write_volume(vertebrae, drawn.vertebrae)
    return ct, vertebrae
