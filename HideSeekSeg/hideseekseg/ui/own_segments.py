"""Segments that the reader added to results in Slicer itself, taken over as lesions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from ..findings import LesionType
from ..imaging.volume import Patch, measure_patch
from .review_session import ReviewSession

REACH_MM = 90.0  # from the middle of a body to the end of its vertebra's processes
_TYPES: dict[str, LesionType] = {"lytic": "lytic", "blastic": "blastic", "sclerotic": "blastic"}


@dataclass
class OwnSegments:
    """What became of the segments that a reader added.

    ``taken``: the lesion that each is now, by the segment's name; ``left``: names of those that lie
    in no vertebra of the review.
    """

    taken: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def take_over(work: ReviewSession) -> OwnSegments:
    """Make lesions of what the reader drew into segments of their own: listed, shown, exported.

    Level and type are those of the segment's name, else the nearest vertebra and what its density
    suggests.  Segments without a voxel are left as they are: something may yet be drawn in them.
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
    if found.taken:
        work.measure()
    return found


def _level(work: ReviewSession, name: str, patch: Patch) -> str:
    """Return the level of a drawn lesion, empty where it lies in no vertebra of the review."""
    levels = work.review.vertebrae
    named = [level for level in levels if re.search(rf"(?i)\b{re.escape(level)}\b", name)]
    if len(named) == 1:
        return named[0]
    middle = work.results.here(measure_patch(patch, work.results.grid).centroid_lps)
    centres = {level: work.results.centreOf(level) for level in levels}
    far = {
        level: float(np.linalg.norm(np.subtract(centre, middle)))
        for level, centre in centres.items()
        if centre is not None
    }
    nearest = min(far, key=lambda level: far[level], default="")
    return nearest if nearest and far[nearest] < REACH_MM else ""


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
