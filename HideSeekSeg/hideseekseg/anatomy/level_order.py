"""Levels against anatomy: whether vertebrae lie along the spine as their levels say.

The spine's own curve is followed from body to body, so kyphosis, scoliosis and the way the patient
lies do not matter; distances are compared with those of an average adult, scaled to the patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .label_conventions import LEVELS

Vector = npt.NDArray[np.float64]

PITCH_MM = dict(
    zip(
        LEVELS,
        # From the middle of a body to that of the next one below; C1 to C7, T1 to T13, L1 to L6.
        (
            *(15.0, 20.0, 17.0, 17.0, 17.0, 17.5, 19.5),
            *(21.0, 21.5, 21.5, 22.0, 22.5, 23.0, 23.5, 24.0, 25.0, 27.0, 29.5, 31.0, 31.0),
            *(33.5, 35.0, 36.0, 36.0, 34.0, 34.0, 34.0),
        ),
    )
)
LEAST_RATIO = 1e-3  # of two middles in one place, whose logarithm nobody knows
VARIANTS = ("T13", "L6")  # most people do not have them: not missed where absent
USUAL_SCALE = (0.75, 1.2)  # of adults, for a convention to be named as fitting
POSSIBLE_SCALE = (0.4, 1.4)  # beyond it neighbours are none
SLACK = 0.5  # of a pitch, by which neighbours may lie nearer than expected before a level misses
ROOM = 0.65  # of a pitch, beyond which there is room for a vertebra that has no label
UPRIGHT = 0.3  # least share of the superior direction for the axis to tell head from foot


@dataclass(frozen=True)
class OrderReport:
    """What is wrong with the order of levels.

    ``reversed``: they run from foot to head.  ``flags`` are remarks by level, ``missing`` levels
    that lie between others without a label, ``scale`` the patient's size beside an average adult's
    (None where no two neighbours are known).
    """

    reversed: bool
    flags: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    scale: float | None

    @property
    def is_right(self) -> bool:
        """Return whether nothing contradicts the levels; a level may miss."""
        return not self.reversed and not any(self.flags.values())


def check_order(centres: Mapping[str, Vector]) -> OrderReport:
    """Compare levels with the middles (LPS mm) of their bodies; all in the order of ``centres``."""
    levels = sorted(centres, key=LEVELS.index)
    if len(levels) < 2:
        return OrderReport(False, {}, (), None)
    points = np.array([centres[level] for level in levels])
    ranks = along_spine(points)
    if ranks is None:
        ranks = np.arange(len(levels))
    elif _share_of_inversions(ranks) > 0.5:
        return OrderReport(True, {}, (), None)
    flags: dict[str, list[str]] = {level: [] for level in levels}
    by_place = [levels[n] for n in np.argsort(ranks, kind="stable")]
    for n in np.flatnonzero(~in_every_order(ranks)).tolist():
        at = by_place.index(levels[n])
        around = [by_place[i] for i in (at - 1, at + 1) if 0 <= i < len(levels)]
        where = f"between {around[0]} and {around[1]}" if len(around) == 2 else f"by {around[0]}"
        flags[levels[n]].append(f"its place contradicts its level: it lies {where}")
    in_order = [n for n in range(len(levels)) if not flags[levels[n]]]
    scale, missing, doubts = _spacing([levels[n] for n in in_order], points[in_order])
    for doubt in doubts:
        for level in levels:
            flags[level].append(doubt)
    missing = tuple(level for level in missing if level not in levels)
    return OrderReport(False, {k: tuple(v) for k, v in flags.items() if v}, missing, scale)


def along_spine(points: npt.NDArray[np.float64]) -> npt.NDArray[np.intp] | None:
    """Return the rank of each point (n, 3: LPS mm) along the curve through them, from the head.

    The curve is the longest path of the tree of shortest links.  None where it lies so flat that
    its upper end cannot be told.
    """
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    from_first = _tree_distances(distances, 0)
    one = int(np.argmax(from_first.max(axis=0)))
    other = int(np.argmax(from_first[one]))
    rise = points[one, 2] - points[other, 2]
    if abs(rise) < UPRIGHT * distances[one, other]:
        return None
    head = one if rise > 0 else other
    ranks = np.empty(len(points), np.intp)
    ranks[np.argsort(from_first[head], kind="stable")] = np.arange(len(points))
    return ranks


def _tree_distances(distances: npt.NDArray[np.float64], root: int) -> npt.NDArray[np.float64]:
    """Return distances (n, n) along the tree of shortest links (Prim's)."""
    n = len(distances)
    along = np.zeros((n, n))
    inside = [root]
    while len(inside) < n:
        outside = [m for m in range(n) if m not in inside]
        part = distances[np.ix_(inside, outside)]
        a, b = np.unravel_index(np.argmin(part), part.shape)
        near, new = inside[a], outside[b]
        along[new, inside] = along[inside, new] = along[near, inside] + distances[near, new]
        inside.append(new)
    return along


def _share_of_inversions(ranks: npt.NDArray[np.intp]) -> float:
    above, below = np.triu_indices(len(ranks), 1)
    return float((ranks[above] > ranks[below]).mean())


def in_every_order(ranks: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which entries belong to every longest ascending choice of the sequence.

    Of two exchanged vertebrae neither does; of one that is far from its place only that one fails.
    """
    n = len(ranks)
    up, down = np.ones(n, int), np.ones(n, int)
    for i in range(n):
        up[i] += max((up[j] for j in range(i) if ranks[j] < ranks[i]), default=0)
    for i in reversed(range(n)):
        down[i] += max((down[j] for j in range(i + 1, n) if ranks[j] > ranks[i]), default=0)
    best = up + down - 1 == up.max()
    alone = np.bincount(up[best], minlength=n + 1)[up] == 1
    return np.asarray(best & alone)


def _spacing(
    levels: Sequence[str], points: npt.NDArray[np.float64]
) -> tuple[float | None, tuple[str, ...], list[str]]:
    """Return the patient's scale, levels between others that have no label, and doubts of all."""
    pairs = list(pairwise(levels))
    if not pairs:
        return None, (), []
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    between = [levels_between(a, b, levels) for a, b in pairs]
    steps = [(a, *between[n]) for n, (a, _) in enumerate(pairs)]
    expected = np.array([sum(PITCH_MM[level] for level in step) for step in steps])
    near = [n for n in range(len(pairs)) if not between[n]]
    ratios = np.maximum(gaps / expected, LEAST_RATIO)
    scale = _usual(ratios[near or slice(None)])
    doubts: list[str] = []
    missing: list[str] = []
    if not POSSIBLE_SCALE[0] < scale < POSSIBLE_SCALE[1]:
        worst = max(near or [0], key=lambda n: abs(np.log(ratios[n])))
        a, b = pairs[worst]
        doubts.append(
            f"the levels do not fit the anatomy: {a} and {b} lie {gaps[worst]:.0f} mm "
            f"apart, about {expected[worst]:.0f} mm are usual"
        )
        return scale, (), doubts
    if not near and not USUAL_SCALE[0] < scale < USUAL_SCALE[1]:
        scale = 1.0
    for n, (a, b) in enumerate(pairs):
        pitch = scale * PITCH_MM[a]
        excess = gaps[n] - scale * expected[n]
        tolerance = pitch * np.sqrt(len(steps[n]))
        if between[n] and excess < -SLACK * tolerance:
            doubts.append(
                f"levels may be wrong: {a} and {b} ({gaps[n]:.0f} mm apart) leave no room for "
                f"{_listed(between[n])}"
            )
        elif excess > ROOM * tolerance:
            doubts.append(
                f"levels may be wrong: {a} and {b} ({gaps[n]:.0f} mm apart) leave room for a "
                "vertebra without a label"
            )
            missing += between[n]
        else:
            missing += between[n]
    return scale, tuple(missing), doubts


def _usual(ratios: npt.NDArray[np.float64]) -> float:
    """Return the median; of two in the middle the one nearer to 1, as their mean may be neither's.

    Of two distances one of which holds a vertebra without a label, the other tells the patient.
    """
    low, high = np.sort(ratios)[[(len(ratios) - 1) // 2, len(ratios) // 2]]
    return float(min(low, high, key=lambda ratio: abs(np.log(ratio))))


def levels_between(above: str, below: str, present: Sequence[str]) -> tuple[str, ...]:
    """Return the levels between two; variants count only where the spine has them."""
    span = LEVELS[LEVELS.index(above) + 1 : LEVELS.index(below)]
    return tuple(level for level in span if level not in VARIANTS or level in present)


def _listed(levels: Sequence[str]) -> str:
    return levels[0] if len(levels) == 1 else f"{levels[0]} to {levels[-1]}"


def fits(centres: Mapping[str, Vector]) -> bool:
    """Return whether levels could be right for an adult: order, neighbours and distances."""
    if len(centres) < 2:
        return True
    report = check_order(centres)
    low, high = USUAL_SCALE
    return report.is_right and report.scale is not None and low < report.scale < high
