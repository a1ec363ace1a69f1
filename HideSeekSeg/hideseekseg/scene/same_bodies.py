"""Which vertebra of a review is which one of another segmentation of the same CT, by its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Grid
from .export_inputs import LevelRow, levelsAt, placesOf, thinned
from .results import Results

SAME_BODY = 0.5  # of a body's voxels that lie in a vertebra from which on it is that one
_POINTS = 500  # of a body that are looked up


def levelsByPlace(
    results: Results,
    levels: Mapping[str, Collection[str]],
    node: Any,
    rows: Sequence[LevelRow],
    ct: Grid,
) -> dict[str, str]:
    """Return the level in another segmentation of each level of results, "" where it has none.

    ``levels`` are those of the results, each with the ids of its lesions; ``rows`` are those of the
    other segmentation ``node``; ``ct`` is where the CT's voxels lie in the world now (LPS).  A
    level of which nobody knows where its body is, is left out.  No two of them become the same one:
    of several whose bodies are in one vertebra, that of the same name is it, or the one most in it.
    """
    shares = levelsAt(node, rows, ct, _bodies(results, levels, ct))
    pairs = [(-share, old, new) for old, found in shares.items() for new, share in found.items()]
    now: dict[str, str] = {}
    for share, old, new in sorted(pairs, key=lambda pair: (pair[1] != pair[2], pair)):
        if -share >= SAME_BODY and old not in now and new not in now.values():
            now[old] = new
    return {old: now.get(old, "") for old in shares}


def isOfRun(results: Results, node: Any, ct: Grid) -> bool:
    """Return whether a segmentation has its segments where a run had them, as far as is known.

    ``ct`` as of ``levelsByPlace``; the results refer to this ``node``.
    """
    rows = results.levelRows()
    levels: dict[str, Collection[str]] = {row.level: () for row in rows if row.level}
    places = {x: points for x in levels if (points := _evident(results, x, ct)) is not None}
    if not places:
        return True
    shares = levelsAt(node, rows, ct, places)
    return all(found.get(level, 0.0) >= SAME_BODY for level, found in shares.items())


def _bodies(
    results: Results, levels: Mapping[str, Collection[str]], ct: Grid
) -> dict[str, npt.NDArray[np.float64]]:
    """Return positions (N, 3) in LPS mm in each level's body, where they lie now.

    By what the method saw of it, which is how it was at the run; else by the segment that it had
    then, or by its lesions.
    """
    found = {x: points for x in levels if (points := _evident(results, x, ct)) is not None}
    own = results.segmentationNode
    rows = [row for row in results.levelRows() if row.level in levels.keys() - found.keys()]
    if rows:
        found |= placesOf(own, rows, ct, _POINTS)
    for level in levels.keys() - found.keys():
        points = _ofLesions(results, levels[level], ct)
        if points is not None:
            found[level] = points
    return found


def _evident(results: Results, level: str, ct: Grid) -> npt.NDArray[np.float64] | None:
    seen = results.evidence(level)
    if seen is None or not seen.body.any():
        return None
    voxels = thinned(np.argwhere(seen.body), _POINTS)[:, ::-1]
    return ct.lps(results.grid.ijk(seen.grid.lps(voxels)))


def _ofLesions(
    results: Results, lesions: Collection[str], ct: Grid
) -> npt.NDArray[np.float64] | None:
    patches = results.patches(lesions).values() if lesions and results.alive else ()
    voxels = [np.argwhere(patch.array) + patch.start for patch in patches]
    if not voxels:
        return None
    return ct.lps(thinned(np.concatenate(voxels), _POINTS)[:, ::-1])
