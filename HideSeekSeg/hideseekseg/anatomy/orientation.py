"""Whether a header's directions agree with the spine: levels descend, arches lie behind bodies.

A header may say supine of a prone patient, or hold axes that were flipped or permuted by a
conversion.  The spine itself tells: the order of the levels is its long axis, and the arch (from
the mask of whole vertebrae, else as bone in the CT) lies behind the bodies.  A mirror image with
left and right exchanged cannot be told this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..imaging.segmentation import Segmentation
from ..imaging.volume import Volume
from .labelling import Assignment, order

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

COARSE_MM = 2.0
# A mask whose middle lies so far behind its thickest part has an arch; a body alone has 2 mm.
LEAST_ARCH_MM = 4.0
SUPERIOR, POSTERIOR = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
# How far a spine may lean (severe kyphosis), bend to a side, and turn about its long axis, in
# degrees; beyond ``UNUSUAL_LEAN`` it is said.
MAX_LEAN, MAX_BEND, MAX_TURN = 80.0, 65.0, 60.0
UNUSUAL_LEAN = 45.0
# Where bone around a body is sought, from its surface; arch and ribs are there, and behind it.
RING_MM = (6.0, 30.0)
# In 21 real scans bone around the bodies lies at least 0.18 behind and at most 0.42 to a side
# (where an aorta with contrast medium is).
LEAST_BONE, IN_FRONT, SIDEWAYS = 0.03, -0.1, 0.6
SLANT_MM = 1.5
GO_ON = "(go on with --accept-orientation)"
ACCEPTED = "accepted against the anatomy"
SIDES = ("left", "right"), ("back", "front"), ("head", "feet")


@dataclass(frozen=True)
class Landmark:
    """One vertebra: its body's middle (LPS mm) and from there to its arch (mm), None: unknown."""

    level: str
    centre: Floats
    behind: Floats | None
    radius: float


def contradiction(
    ct: Volume, segmentation: Segmentation, assignments: Sequence[Assignment]
) -> tuple[str, str]:
    """Return how the header contradicts the anatomy and what fits instead, empty where it agrees.

    The second text is a flag for a spine that leans as few do.  Nothing is said where too little
    is seen: of a single body without its arch, or where the CT shows no bone around the bodies.
    """
    found = _landmarks(segmentation, assignments)
    if not found:
        return "", ""
    centres = np.stack([one.centre for one in found])
    superior = _superior(centres)
    arches = [one.behind for one in found if one.behind is not None]
    along = SUPERIOR if superior is None else superior
    if arches:
        behind = np.median(arches, axis=0)
        turn, slant = _turn(along, behind), float(behind @ along)
    else:
        bone = _bone_around(ct, found, along)
        turn, slant = 0.0 if bone is None else _turn_of_bone(along, bone), 0.0
    lean = float(np.degrees(np.arccos(np.clip(along[2], -1, 1))))
    flag = f"by its header the spine leans by {lean:.0f} degrees" if lean > UNUSUAL_LEAN else ""
    return _said(superior, turn, slant), flag


def _said(superior: Floats | None, turn: float, slant: float) -> str:
    """Words for the spine's axis, its turn about it (degrees) and the arches' slant along it."""
    if superior is not None:
        x, y, z = np.abs(superior)
        lean, bend = np.degrees(np.arctan2([y, x], z))
        if lean > MAX_LEAN or bend > MAX_BEND:
            axis = 1 if y > x else 0
            towards = SIDES[axis][0 if superior[axis] > 0 else 1]
            return f"by its header the spine's upper end points to the {towards}: axes are permuted"
        if superior[2] < 0:
            return _upside_down(abs(turn) > MAX_TURN, slant)
    if abs(turn) > 180 - MAX_TURN:
        return (
            "the arches lie in front of the bodies: by anatomy the patient is turned by 180 "
            "degrees about the long axis (prone and supine exchanged), or front and back are "
            "flipped"
        )
    if abs(turn) > MAX_TURN:
        side = "left" if turn > 0 else "right"
        return (
            f"the arches lie to the {side} of the bodies: by anatomy the patient is turned by 90 "
            "degrees about the long axis, or axes are permuted"
        )
    return ""


def _upside_down(turned: bool, slant: float) -> str:
    """Arches slant downwards: that tells labels from the wrong end from a head that is down."""
    if slant > SLANT_MM:
        return (
            "by their levels the vertebrae ascend from feet to head, while their arches slant as "
            "those of a patient who is upright: labels are numbered from the wrong end"
        )
    if turned:
        return (
            "levels ascend and arches lie in front of the bodies: by anatomy the patient is turned "
            "by 180 degrees about the left-right axis (head down)"
        )
    return (
        "levels ascend from feet to head: by anatomy head and feet are exchanged, or labels are "
        "numbered from the wrong end"
    )


def _turn(superior: Floats, behind: Floats) -> float:
    """Degrees from the header's back to the arches, about the spine's axis; left is positive."""
    back, left = _components(superior, behind)
    return float(np.degrees(np.arctan2(left, back)))


def _turn_of_bone(superior: Floats, bone: Floats) -> float:
    """Return the same in steps of 90 degrees, from where most bone lies (see ``_bone_around``)."""
    back, left = _components(superior, bone)
    if back < IN_FRONT:
        return 180.0
    if abs(left) > SIDEWAYS and abs(left) > 4 * back:
        return 90.0 if left > 0 else -90.0
    return 0.0


def _components(superior: Floats, vector: Floats) -> tuple[float, float]:
    """Return a vector's parts to the header's back and left, at right angles to the spine."""
    axis = superior if superior[2] >= 0 else -superior
    back = POSTERIOR - (POSTERIOR @ axis) * axis
    length = float(np.linalg.norm(back))
    if length < 0.2:
        return 1.0, 0.0
    return float(vector @ back) / length, float(vector @ np.cross(back, axis)) / length


def _superior(centres: Floats) -> Floats | None:
    """Return the unit vector (LPS) from the lowest level to the highest; None below two levels."""
    if len(centres) < 2:
        return None
    # Centres of a kyphotic spine bend: the mean step follows them, whichever axis they bend about.
    steps = centres[:-1] - centres[1:]
    mean = steps.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 3.0 else None


def _landmarks(segmentation: Segmentation, assignments: Sequence[Assignment]) -> list[Landmark]:
    """Return the vertebrae from head to feet, or bodies where no whole vertebra is segmented."""
    found: dict[str, Landmark] = {}
    kinds = sorted((a for a in assignments if a.level), key=lambda a: a.kind != "vertebra")
    for assignment in kinds:
        level, box = assignment.level, segmentation.box(assignment.segment)
        if level is None or assignment.kind == "other" or box is None or level in found:
            continue
        grid = segmentation.grid
        steps = np.maximum(COARSE_MM / grid.spacing[::-1], 1).astype(int)
        mask = segmentation.mask(assignment.segment, box)[
            tuple(slice(None, None, s) for s in steps)
        ]
        if not mask.any():
            continue
        depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=grid.spacing[::-1] * steps)
        depth = depth[1:-1, 1:-1, 1:-1]
        start = np.array([s.start for s in box])
        thick = np.argwhere(depth > 0.6 * depth.max()) * steps + start
        every = np.argwhere(mask) * steps + start
        centre = np.median(grid.lps(thick[:, ::-1]), axis=0)
        lps = grid.lps(every[:, ::-1])
        behind = lps.mean(axis=0) - centre
        has_arch = np.linalg.norm(behind) > LEAST_ARCH_MM
        radius = float(np.percentile(np.linalg.norm(lps - centre, axis=1), 80))
        found[level] = Landmark(level, centre, behind if has_arch else None, radius)
    return [found[level] for level in sorted(found, key=order)]


def _bone_around(ct: Volume, found: Sequence[Landmark], superior: Floats) -> Floats | None:
    """Return where most bone lies around bodies: a vector (LPS), 0 (all around) to 1 (one side).

    None where the CT shows too little of it.
    """
    first = np.cross(superior, [1.0, 0.0, 0.0] if abs(superior[0]) < 0.7 else [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first)
    angles = np.radians(np.arange(0, 360, 15))[:, None]
    directions = np.cos(angles) * first + np.sin(angles) * np.cross(superior, first)
    heights = np.arange(-8.0, 9.0, 4.0)[:, None] * superior
    distances = np.arange(*RING_MM, 2.0)[:, None, None]
    inside = np.concatenate([_values(ct, one.centre + heights) for one in found])
    rings = []
    for one in found:
        reach = one.centre + (one.radius + distances) * directions
        rings.append(_values(ct, reach[..., None, :] + heights))
    around = np.concatenate([ring.ravel() for ring in rings])
    if not np.isfinite(inside).any() or not np.isfinite(around).any():
        return None
    soft, bone = float(np.nanmedian(around)), float(np.nanpercentile(inside, 75))
    if not bone > soft:
        return None
    shares = [
        np.clip((np.nan_to_num(r, nan=soft) - soft) / (bone - soft) - 0.5, 0, 1) for r in rings
    ]
    # The median of all vertebrae: the aorta with contrast medium lies at another place in each.
    by_angle = np.median([share.mean(axis=(0, 2)) for share in shares], axis=0)
    if by_angle.mean() < LEAST_BONE:
        return None
    return np.asarray(by_angle @ directions / by_angle.sum())


def _values(ct: Volume, lps: Floats) -> Floats:
    """Return the CT at the nearest voxels of positions (..., 3), NaN outside it."""
    at = np.rint(ct.grid.ijk(lps)).astype(np.intp)
    size = np.array(ct.array.shape[::-1])
    there = ((at >= 0) & (at < size)).all(axis=-1)
    i, j, k = np.moveaxis(np.clip(at, 0, size - 1), -1, 0)
    return np.where(there, ct.array[k, j, i].astype(float), np.nan)
