"""A review of hundreds of candidates as a scene file: ``python -m ...synthetic_scene PATH COUNT``.

A process of its own: a scene, once opened, is the whole process's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from ...findings import Candidate, LesionType, Status, VertebraFinding
from ...imaging.patch import Patch
from ...imaging.volume import Grid, Volume
from ...simulation.phantom.vertebra import LEVELS

GRID = Grid((200, 120, 120), np.diag([1.0, 1.0, 1.5, 1.0]))
SIDE, STEP = 5, 8  # voxels of a candidate, and from one to the next
MOST = (GRID.shape[0] // STEP) * (GRID.shape[1] // STEP - 1) * (GRID.shape[2] // STEP - 1)


def write_scene(path: Path, count: int, cache: Path) -> None:
    """``count`` candidates (at most MOST) on a CT of noise, as the app saves a review."""
    from ...review.review import Review
    from ...scene.import_data import addCt
    from ...scene.results import Results
    from ...scene.review_storage import store
    from ...web.slicer_scene import open_scene, save_scene

    opened = open_scene(cache)
    array = np.random.default_rng(1).normal(200, 60, GRID.shape).astype(np.int16)
    ct = addCt(Volume(array, GRID, "CT"), f"{count} candidates")
    results, review = Results.create(ct, None, {"weights": "none"}), Review(0.5)
    for number, level in enumerate(LEVELS):
        found = tuple(_candidate(level, n, count) for n in range(number, count, len(LEVELS)))
        finding = VertebraFinding(level, Status.FINDINGS, p_malignant=0.9, candidates=found)
        review.add_vertebra(finding)
        results.addVertebra(finding)
    results.apply(review)
    store(results.node, review)
    save_scene(path)
    del opened


def _candidate(level: str, number: int, count: int) -> Candidate:
    """On a lattice, so that no two overlap; scores from 1 down to 0."""
    rows, columns = (size // STEP - 1 for size in GRID.shape[1:])
    k, rest = divmod(number, rows * columns)
    j, i = divmod(rest, columns)
    start = (k * STEP + 1, j * STEP + 1, i * STEP + 1)
    kind: LesionType = "lytic" if number % 2 else "blastic"
    first = np.array(start)[::-1]
    ends = np.stack([GRID.lps(first), GRID.lps(first + SIDE - 1)])
    x, y, z = (float(v) for v in ends.mean(axis=0))
    least, most = ends.min(axis=0), ends.max(axis=0)
    box = (float(least[0]), float(least[1]), float(least[2]))
    far = (float(most[0]), float(most[1]), float(most[2]))
    patch = Patch(np.ones((SIDE, SIDE, SIDE), bool), start)
    volume = SIDE**3 * GRID.voxel_mm3
    name, score = f"{level}-{number}", 1 - number / count
    return Candidate(
        name, kind, score, volume, (x, y, z), (*box, *far), 0.01, 300.0, (5,), patch=patch
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write_scene(Path(sys.argv[1]), int(sys.argv[2]), Path(made))
