"""Slices of a CT that are copies of others or empty: the scan shows less than its header says.

Nearest-neighbour resampling repeats every slice, and some programs fill gaps of a series with the
slice before or with one value.  The header then tells a distance at which nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..imaging.volume import Box, Mask, Volume, bounding_box

# Mean difference of two neighbouring slices, as a share of the deviation of values in them: what
# rounding leaves between copies, and what noise makes of others.  In 22 real scans it is 0.018 and
# more; in phantoms without noise all degrees are found.
SAME, NOISE = 0.005, 0.01
ALIKE = 0.7  # of the difference to the one between: other slices that are two apart differ by more
MOST_PIXELS = 500  # of a slice: all would take several times as long, and tell the same
AROUND_MM = 20.0  # of the body, along the spine and across it
# A slice of which so many pixels hold one value has no noise, as in a phantom or in what pads a
# scan: that its neighbour is the same says nothing.
PLAIN = 0.2
FEWEST_RUNS = 2  # of slices between two changes, that tell a distance
REGULAR = 0.15  # of the slices that are copies: below, some are, but no distance is meant
SIDES = ("from left to right", "from front to back", "from head to foot")


@dataclass(frozen=True)
class Repeats:
    """Copies among the slices across one axis of the CT.

    ``copies`` of the ``layers`` slices through the body are the same as one nearby, ``empty`` hold
    one value only; ``side`` is how the axis runs in the patient.  ``real_mm`` is the distance at
    which slices differ, where they are repeated regularly; else it is ``header_mm``.
    """

    side: str
    copies: int
    empty: int
    layers: int
    header_mm: float
    real_mm: float

    def __str__(self) -> str:
        if self.is_regular:
            return f"{self.side}, really {self.real_mm:.3g} mm apart and not {self.header_mm:.3g}"
        return f"{self.side}, {self.copies} of {self.layers} through the body"

    @property
    def is_regular(self) -> bool:
        """Return whether all slices are repeated, and not some filled in."""
        return self.real_mm > self.header_mm

    @property
    def measured(self) -> int:
        """Return how many slices through the body show something of their own."""
        return self.layers - self.copies - self.empty


def find_repeats(view: Volume, body: Mask) -> tuple[Repeats, ...]:
    """Return what is repeated of the CT around a body (bool, on its grid), by axis of the CT."""
    box = bounding_box(body)
    found = (_along(axis, view, body, box) for axis in range(3))
    return tuple(one for one in found if one is not None)


def columns_through(axis: int, view: Volume, body: Mask) -> tuple[npt.NDArray[np.float32], int]:
    """Return slices (n, m) across an axis of the CT: what columns through the body show of each.

    They begin and end ``AROUND_MM`` from the body, at the array index that is returned as well.
    """
    box = bounding_box(body)
    margin = int(np.ceil(AROUND_MM / float(view.grid.spacing[2 - axis])))
    low = max(box[axis].start - margin, 0)
    part = list(box)
    part[axis] = slice(low, min(box[axis].stop + margin, body.shape[axis]))
    columns = np.argwhere(body[box].any(axis=axis))
    a, b = columns[:: max(len(columns) // MOST_PIXELS, 1)].T
    slices = np.moveaxis(view.array[tuple(part)], axis, 0)[:, a, b].astype(np.float32)
    return slices, low


def _along(axis: int, view: Volume, body: Mask, box: Box) -> Repeats | None:
    spacing = float(view.grid.spacing[2 - axis])
    first, stop = box[axis].start, box[axis].stop
    slices, low = columns_through(axis, view, body)
    steps = np.abs(np.diff(slices, axis=0)).mean(axis=1)
    spread = slices.std(axis=1)
    shares = steps / (np.median(spread[spread > 0]) if spread.any() else 1.0)
    same = shares <= SAME
    empty = np.ptp(slices, axis=1) == 0
    if not (same.any() or empty.any()) and np.unique(slices.sum(axis=1)).size == len(slices):
        return None  # as in nearly every scan
    earlier = _copies(slices, same)
    for n in np.flatnonzero(empty):  # a phantom's cortex may be the same throughout, no whole slice
        empty[n] = np.ptp(view.array.take(low + n, axis=axis)) == 0
    own = slice(first - low, stop - low)
    if not (earlier | empty)[own].any():
        return None
    told = np.array([not _is_plain(one) for one in slices])
    between = told[1:] & told[:-1]
    differ = shares[between & ~same]
    if not differ.size or differ.min() < NOISE or _turn_smoothly(same & between, slices):
        return None
    copies, blanks = int((earlier & told)[own].sum()), int(empty[own].sum())
    if not copies + blanks:
        return None
    side = SIDES[int(np.abs(view.grid.direction[:, 2 - axis]).argmax())]
    real = _distance(same, between, spacing)
    return Repeats(side, copies, blanks, stop - first, spacing, real)


def _turn_smoothly(same: Mask, slices: npt.NDArray[np.float32]) -> bool:
    """Return whether slices are as the one before (``same``: n - 1) where smooth values turn.

    On either side of most such places slices are alike then, as they are where nothing has noise.
    """
    shares = []
    ends = np.flatnonzero(np.diff(np.concatenate([[0], same, [0]])))
    for first, stop in ends.reshape(-1, 2):  # slices first to stop are the same
        if first > 0 and stop < len(slices) - 1:
            before, own, after = slices[[first - 1, first, stop + 1]]
            beside = min(np.abs(own - before).mean(), np.abs(own - after).mean())
            shares.append(np.abs(after - before).mean() / max(beside, 1e-6))
    return bool(shares) and float(np.median(shares)) < ALIKE


def _copies(slices: npt.NDArray[np.float32], same: Mask) -> Mask:
    """Return which slices are as the one before, or in a row exactly as earlier ones in a row.

    In a row: a phantom without noise may be its own mirror image.
    """
    found = np.append(False, same)
    back = np.zeros(len(slices), int)
    seen: dict[bytes, int] = {}
    for n, one in enumerate(slices):
        content = one.tobytes()
        back[n] = n - seen.get(content, n)
        seen[content] = n
    row = (np.diff(back) == 0) & (back[1:] > 0)
    found[1:] |= row
    found[:-1] |= row
    return found


def _is_plain(one: npt.NDArray[np.float32]) -> bool:
    _, counts = np.unique(one, return_counts=True)
    return bool(counts.max() > PLAIN * len(one))


def _distance(same: Mask, between: Mask, spacing: float) -> float:
    """Return the distance (mm) of slices that differ, if they are repeated regularly.

    Else that of the header.  Only steps ``between`` slices with noise count.
    """
    changes = np.flatnonzero(between & ~same)
    if len(changes) <= FEWEST_RUNS or same[between].mean() < REGULAR:
        return spacing
    runs = np.diff(changes)
    regular = runs.max() <= 2 * np.ceil(runs.mean())
    return float(runs.mean()) * spacing if regular else spacing
