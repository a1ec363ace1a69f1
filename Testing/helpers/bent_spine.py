"""A severely bent spine of cylinders, as a CT in HU and a label map, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from helpers.vertebrae import DEPTH, HEIGHT, WIDTH, tilted
from hideseekseg.imaging.volume import Grid, Volume, to_sitk

VALUES = {"T1": 43, "T2": 42, "T3": 41, "T4": 40}  # TotalSegmentator's
STEP_MM = 1.5
PITCH_MM = HEIGHT + 6.0


@dataclass(frozen=True)
class BentSpine:
    """CT and bodies of T1 to T4 on one grid; ``axes`` (columns: left, posterior, superior; LPS)."""

    ct: Volume
    bodies: Volume
    axes: npt.NDArray[np.float64]

    def write(self, folder: Path, ct: npt.NDArray[np.generic] | None = None) -> tuple[Path, Path]:
        """Write both files, the CT perhaps with other values; return their paths."""
        paths = folder / "ct.nii.gz", folder / "bodies.nii.gz"
        values = self.ct.array if ct is None else ct
        sitk.WriteImage(to_sitk(Volume(values, self.ct.grid)), str(paths[0]))
        sitk.WriteImage(to_sitk(self.bodies), str(paths[1]))
        return paths


def bent_spine(forward: float, sideways: float = 0.0) -> BentSpine:
    """Draw four bodies in a straight line that leans by so many degrees."""
    axes = tilted(forward, sideways)
    size = np.array([90.0, 170.0, 160.0]) if not sideways else np.array([170.0, 90.0, 160.0])
    n = np.ceil(size / STEP_MM).astype(int)
    grid = Grid((int(n[2]), int(n[1]), int(n[0])), np.diag([STEP_MM] * 3 + [1.0]))
    k, j, i = np.indices(grid.shape)
    centre = grid.lps((np.array(grid.shape[::-1]) - 1) / 2)
    x, y, z = np.moveaxis((grid.lps(np.stack([i, j, k], -1)) - centre) @ axes, -1, 0)
    rng = np.random.default_rng(3)
    hu = rng.normal(50, 8, grid.shape)
    labels = np.zeros(grid.shape, np.uint8)
    across = np.hypot(2 * x / WIDTH, 2 * y / DEPTH)
    for number, value in enumerate(VALUES.values()):
        along = np.abs(z - PITCH_MM * (1.5 - number))
        body = (across < 1) & (along < HEIGHT / 2)
        inner = (across < 1 - 5 / DEPTH) & (along < HEIGHT / 2 - 2.5)
        labels[body] = value
        hu[body] = 550 + rng.normal(0, 40, int(body.sum()))
        hu[inner] = 170 + rng.normal(0, 25, int(inner.sum()))
    hu[:, :3] = -1000  # air in front
    return BentSpine(
        Volume(hu.astype(np.int16), grid, "ct"), Volume(labels, grid, "bodies"), np.asarray(axes)
    )
