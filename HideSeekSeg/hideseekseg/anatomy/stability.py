"""What images of vertebral bodies tell of stability: heights, alignment, the posterior wall.

Everything is measured on the vertebra's own crop, whose slices run to its right, rows from anterior
to posterior and columns from superior to inferior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..findings import Evidence
from ..imaging.volume import Grid

Mask = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]

# Where heights are taken, as shares of the body's depth, and of its width around its middle.
BANDS = ((0.08, 0.28), (0.4, 0.6), (0.72, 0.92))
MIDDLE_HALF = 0.5
CLEAR_LOSS = 0.2  # of height, from which on it is called a loss
WALL_MM = 1.5  # as near to the posterior wall as this reaches it
PLACES = (
    ("left", "central", "right"),
    ("anterior", "middle", "posterior"),
    ("upper", "middle", "lower"),
)


@dataclass(frozen=True)
class Alignment:
    """Angles between the vertebrae above and below (degrees).

    ``kyphosis`` is negative in lordosis; ``tilt`` is that to the side.
    """

    kyphosis: float
    tilt: float


def body_heights(body: Mask, grid: Grid) -> Triple | None:
    """Return the heights of a body (S, P, I) in front, in its middle and behind, in mm.

    None where it reaches the border of its crop, or is too small to be measured.
    """
    columns = body.sum(axis=2) * float(grid.spacing[0])
    if not columns.any() or _touches_border(body):
        return None
    across = np.flatnonzero(columns.any(axis=1))
    middle, half = across.mean(), max(MIDDLE_HALF * len(across) / 2, 0.5)
    columns = columns[(np.abs(np.arange(len(columns)) - middle) <= half)]
    depth = np.flatnonzero(columns.any(axis=0))
    first, size = depth[0], len(depth)
    heights = []
    for low, high in BANDS:
        band = columns[:, int(first + low * size) : int(np.ceil(first + high * size))]
        if not band.any():
            return None
        heights.append(float(np.median(band[band > 0])))
    return heights[0], heights[1], heights[2]


def _touches_border(body: Mask) -> bool:
    """Whether a body ends at the upper, lower, front or rear border of its crop."""
    return bool(body[:, [0, -1], :].any() or body[:, :, [0, -1]].any())


def height_loss(own: Triple, neighbours: Sequence[Triple]) -> Triple:
    """Return the share of its height that a body lacks, in front, in its middle and behind.

    What it should have is the mean of its neighbours (at least one); negative where it is higher.
    """
    front, middle, rear = 1 - np.array(own) / np.mean(neighbours, axis=0)
    return float(front), float(middle), float(rear)


def alignment(above: Grid, own: Grid, below: Grid) -> Alignment:
    """Return how two vertebrae stand to each other, seen from the one between them."""
    seen = [own.direction.T @ -grid.direction[:, 0] for grid in (above, below)]
    # Superior axes as (inferior, posterior, right): both lean forward in front of a kyphosis.
    forward = [np.degrees(np.arctan2(-axis[1], -axis[0])) for axis in seen]
    sideways = [np.degrees(np.arctan2(axis[2], -axis[0])) for axis in seen]
    return Alignment(float(forward[0] - forward[1]), abs(float(sideways[0] - sideways[1])))


def reaches_posterior_wall(lesion: Mask, evidence: Evidence) -> bool:
    """Return whether a lesion (S, P, I) comes within ``WALL_MM`` of the wall to the canal.

    Only the middle half of the body's width counts: further out there are the pedicles.
    """
    body = evidence.body
    across = np.flatnonzero(body.any(axis=(1, 2)))
    if not len(across):
        return False
    half = max(MIDDLE_HALF * len(across) / 2, 0.5)
    central = np.abs(np.arange(len(body)) - across.mean()) <= half
    last = body.shape[1] - 1 - np.argmax(body[:, ::-1, :], axis=1)  # (S, I)
    depth = (last[:, None, :] - np.arange(body.shape[1])[:, None]) * evidence.grid.spacing[1]
    near = (depth < WALL_MM) & central[:, None, None] & body
    return bool((lesion & near).any())


def place_in_body(lesion: Mask, body: Mask) -> Triple:
    """Return the middle of a lesion (S, P, I) as shares of the body's extents.

    From 0 to 1: from its left to its right, from anterior to posterior, from superior to inferior.
    Both masks have at least one voxel.
    """
    at, inside = np.argwhere(lesion), np.argwhere(body)
    low, size = inside.min(axis=0), np.ptp(inside, axis=0) + 1
    right, back, down = (at.mean(axis=0) + 0.5 - low) / size
    return float(right), float(back), float(down)


def describe_place(place: Triple) -> str:
    """Return a place in the body in words, such as "left, posterior, upper third"."""
    side, depth, height = (
        words[min(int(np.clip(share, 0, 1) * 3), 2)] for words, share in zip(PLACES, place)
    )
    return f"{side}, {'mid-depth' if depth == 'middle' else depth}, {height} third"
