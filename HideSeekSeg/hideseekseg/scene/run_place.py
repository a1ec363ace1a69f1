"""Where the CT's voxels lay when a run began, as its results keep it, and where that is now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import SceneError
from ..imaging.volume import LEAST_DETERMINANT, Grid, MatrixRow, StoredGrid
from .geometry import RAS_FROM_LPS, Matrix, localGrid, moved, toWorld


@dataclass(frozen=True)
class RunPlace(StoredGrid):
    """The CT's voxels in its own frame (LPS), and the 4x4 (RAS) from there to the run's world."""

    to_world: tuple[MatrixRow, MatrixRow, MatrixRow, MatrixRow]

    def grid(self) -> Grid:
        """Return the CT's own lattice; raises ValueError where it, or the way out, is none."""
        if abs(np.linalg.det(self.matrix)) < LEAST_DETERMINANT:
            raise ValueError("its lattice is damaged")
        return super().grid()

    @property
    def matrix(self) -> Matrix:
        """Return ``to_world`` as an array."""
        return np.array(self.to_world)

    def world(self) -> Grid:
        """Return the CT's voxels as they were analysed, in the world of the run (LPS)."""
        return moved(self.grid(), self.matrix)

    def local(self, grid: Grid) -> Grid:
        """Return a grid of the run's world (LPS) in the CT's own frame."""
        return moved(grid, np.linalg.inv(self.matrix))

    def here(self, node: Any, lps: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return where a position of the run (LPS mm) is now, by the transform of the results."""
        now = toWorld(node)
        if now is None:
            return lps
        step = RAS_FROM_LPS @ now @ np.linalg.inv(self.matrix) @ RAS_FROM_LPS
        x, y, z = (float(v) for v in step[:3] @ np.array([*lps, 1.0]))
        return x, y, z


def placeOfRun(ctNode: Any, run: Grid | None) -> RunPlace:
    """Return where a CT lay when its run began; ``run`` are its voxels in the world, None: as now.

    The CT may have been moved since, by a transform or for good.  Raises SceneError where it has
    other voxels.
    """
    local = localGrid(ctNode)
    if run is not None and run.shape != local.shape:
        raise SceneError("The CT has other voxels than when the run began: run again.")
    now = toWorld(ctNode)
    matrix = np.eye(4) if now is None else now
    if run is not None and not moved(local, matrix).matches(run, 1e-6):
        matrix = RAS_FROM_LPS @ run.ijk_to_lps @ np.linalg.inv(local.ijk_to_lps) @ RAS_FROM_LPS
    return RunPlace(local.shape, local.ijk_to_lps.tolist(), matrix.tolist())
