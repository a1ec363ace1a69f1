"""Between two places of one CT: it may be moved in the world between two of its runs.

What a run says lies in the world as it was then.  Before two runs are compared, the one is brought
to where the CT lay in the other: the voxels of the CT are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..findings import Candidate, Evidence, VertebraFinding
from ..imaging.volume import Grid, measure_patch
from .items import Box, Lesion, Triple

_RIGID = 1e-3  # largest part of a length by which a movement may change it


@dataclass(frozen=True)
class Relocation:
    """Brings what was said of a CT that lay at ``before`` to where it lies at ``after``.

    Both are grids of the CT's voxels in the world (LPS mm), of one shape.
    """

    before: Grid
    after: Grid

    @property
    def moves(self) -> bool:
        """Return whether the two places differ."""
        return not self.before.matches(self.after)

    @property
    def rigid(self) -> bool:
        """Return whether lengths and angles stay as they are."""
        turn = self._matrix[:3, :3]
        return bool(np.abs(turn.T @ turn - np.eye(3)).max() < 2 * _RIGID)

    def finding(self, finding: VertebraFinding) -> VertebraFinding:
        """Return a vertebra with the places of its candidates, exact by their voxels.

        Sizes stay those of the run.
        """
        if not self.moves:
            return finding
        candidates = tuple(self._candidate(x) for x in finding.candidates)
        return replace(finding, candidates=candidates)

    def evidence(self, evidence: Evidence) -> Evidence:
        """Return the same images at the other place."""
        if not self.moves:
            return evidence
        matrix = self._matrix @ evidence.grid.ijk_to_lps
        return replace(evidence, grid=Grid(evidence.grid.shape, matrix))

    def lesion(self, lesion: Lesion) -> Lesion:
        """Return a lesion of a review at the other place; a turn may make its box larger."""
        if not self.moves or lesion.volume_mm3 <= 0:  # what is not drawn is nowhere
            return lesion
        centroid, box = self._point(lesion.centroid_lps), self._box(lesion.box_lps)
        return replace(lesion, centroid_lps=centroid, box_lps=box)

    @property
    def _matrix(self) -> npt.NDArray[np.float64]:
        """4x4 from a position (LPS mm) to the other place of the same voxel."""
        return self.after.ijk_to_lps @ np.linalg.inv(self.before.ijk_to_lps)

    def _candidate(self, candidate: Candidate) -> Candidate:
        patch = candidate.patch
        if patch is None or not patch.array.any():
            centroid, box = self._point(candidate.centroid_lps), self._box(candidate.box_lps)
        else:
            size = measure_patch(patch, self.after)
            centroid, box = size.centroid_lps, size.box_lps
        return replace(candidate, centroid_lps=centroid, box_lps=box)

    def _point(self, lps: Triple) -> Triple:
        x, y, z = (float(v) for v in (self._matrix @ np.array([*lps, 1.0]))[:3])
        return x, y, z

    def _box(self, box: Box) -> Box:
        """Return the smallest box along the axes of the world that contains the moved one."""
        ends = np.reshape(box, (2, 3))
        corners = [
            self._point((x, y, z)) for x in ends[:, 0] for y in ends[:, 1] for z in ends[:, 2]
        ]
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        a, b, c, d, e, f = (float(v) for v in (*low, *high))
        return a, b, c, d, e, f
