"""What the reader drew: segments added in Slicer itself become lesions; and where it lies."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..findings import LesionType
from ..imaging.volume import Patch, measure_patch
from ..review.review import Item
from ..scene.export_inputs import levelsAt, thinned, worldGrid
from .review_session import ReviewSession

REACH_MM = 90.0  # from the middle of a body to the end of its vertebra's processes
RIM_MM = 20.0  # from the middle of a body to its rim, at most
_POINTS = 5000  # of a lesion that are looked up
_TYPES: dict[str, LesionType] = {"lytic": "lytic", "blastic": "blastic", "sclerotic": "blastic"}


@dataclass
class OwnSegments:
    """What became of the segments that a reader added.

    ``taken``: the lesion that each is now, by the segment's name; ``left``: names of those that lie
    in no vertebra of the review, or outside its CT.
    """

    taken: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def take_over(work: ReviewSession) -> OwnSegments:
    """Make lesions of what the reader drew into segments of their own: listed, shown, exported.

    Level and type are those of the segment's name, else the nearest vertebra and what its density
    suggests; a vertebra that is named and lies elsewhere is none.  Segments without a voxel are
    left as they are: something may yet be drawn in them.
    """
    found = OwnSegments()
    if not work.alive:
        return found
    review, results = work.review, work.results
    own = results.ownSegments({item.id for item in review.items})
    patches = results.patches(own) if own else {}
    for identity, patch in patches.items():
        name = results.nameOf(identity)
        level = _level(work, name, patch)
        if level:
            lesion = review.add_missed(level, _type(work, name, level, patch))
            results.forget(lesion)  # of an addition that was undone
            results.addDrawn(review.item(lesion), patch)
            results.removeSegment(identity)
            found.taken[name] = review.item(lesion).name
        else:
            found.left.append(name)
    rest = [identity for identity in own if identity not in patches]
    found.left += [results.nameOf(x) for x in rest if results.hasOutline(x)]
    if found.taken:
        work.measure()
    return found


def _level(work: ReviewSession, name: str, patch: Patch) -> str:
    """Return the level of a drawn lesion, empty where it lies in no vertebra of the review."""
    levels = work.review.vertebrae
    named = [level for level in levels if re.search(rf"(?i)\b{re.escape(level)}\b", name)]
    far = _distances(work, levels, measure_patch(patch, work.results.grid).centroid_lps)
    if len(named) == 1 and far.get(named[0], 0.0) < REACH_MM:
        return named[0]
    nearest = min(far, key=lambda level: far[level], default="")
    return nearest if nearest and far[nearest] < REACH_MM else ""


def _distances(
    work: ReviewSession, levels: Collection[str], place: tuple[float, float, float]
) -> dict[str, float]:
    """Return how far (mm) a place of the run (LPS) is from vertebrae whose middles are known."""
    middle = work.results.here(place)
    centres = {level: work.results.centreOf(level) for level in levels}
    return {
        level: float(np.linalg.norm(np.subtract(centre, middle)))
        for level, centre in centres.items()
        if centre is not None
    }


def strayed(work: ReviewSession, identities: Collection[str]) -> dict[Item, str]:
    """Return which of these lesions do not lie in their vertebra, each with the one that it is in.

    Empty where that is none.  What nobody can tell, as without the segmentation, is left out.
    """
    drawn = [x for x in work.review.items if x.id in identities and x.volume_mm3 > 0]
    if not drawn or not work.alive:
        return {}
    shares = _shares(work, drawn)
    found = {}
    for item in drawn:
        inside = {level: x for level, x in shares.get(item.id, {}).items() if x > 0}
        if item.level in inside:
            continue
        far = _distances(work, work.review.vertebrae, item.centroid_lps)
        near = [level for level in far if far[level] < RIM_MM]
        if inside:
            found[item] = max(inside, key=lambda level: inside[level])
        elif item.level in _whole(work):
            found[item] = ""
        elif far.get(item.level, 0.0) >= REACH_MM:
            found[item] = min(near, key=lambda level: far[level], default="")
    return found


def _shares(work: ReviewSession, drawn: Collection[Item]) -> dict[str, dict[str, float]]:
    """Return the share of each lesion that lies in each level of the user's segmentation."""
    results, ct = work.results, work.results.ctNode
    node, rows = results.segmentationNode, results.levelRows()
    if ct is None or ct.GetImageData() is None or node is None:
        return {}
    try:
        grid = worldGrid(ct)
    except InputError:  # under a transform that bends it
        return {}
    patches = results.patches({item.id for item in drawn})
    places = {
        identity: grid.lps(thinned(np.argwhere(patch.array) + patch.start, _POINTS)[:, ::-1])
        for identity, patch in patches.items()
    }
    return levelsAt(node, rows, grid, places)


def _whole(work: ReviewSession) -> set[str]:
    """Return the levels of vertebrae that are segmented whole, not their bodies alone."""
    rows = work.results.levelRows() if work.results.ctNode is not None else []
    return {row.level for row in rows if row.level and row.kind != "body"}


def _type(work: ReviewSession, name: str, level: str, patch: Patch) -> LesionType:
    """Return the type that the name says, else by whether it is denser than the vertebral body."""
    for word, kind in _TYPES.items():
        if word in name.lower():
            return kind
    values, seen = work.results.hounsfield(), work.results.evidence(level)
    own = None if values is None else patch.mean(values)
    if own is None or seen is None or not seen.body.any():
        return "lytic"
    return "blastic" if own > float(np.nanmean(seen.image[seen.body])) else "lytic"
