"""Follow-up: which lesion of a scan is which of an earlier one of the same patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .items import Item, Triple

MATCH_MM = 8.0  # by which the middle of a lesion may have moved, or half of its diameter


@dataclass(frozen=True)
class LocatedLesion:
    """A lesion and its middle, in mm to the right, back and down of the middle of its body."""

    lesion: Item
    place_mm: Triple


@dataclass(frozen=True)
class LesionChange:
    """A lesion now and before; None now where it is gone, None before where it is new."""

    now: Item | None
    before: Item | None

    @property
    def volume_mm3(self) -> float:
        """Return by how much it grew, negative where it shrank."""
        after, before = (x.volume_mm3 if x else 0.0 for x in (self.now, self.before))
        return after - before

    @property
    def hu(self) -> float | None:
        """Return by how much its mean density rose; None where one of both is not known."""
        if not self.now or not self.before:
            return None
        if self.now.mean_hu is None or self.before.mean_hu is None:
            return None
        return self.now.mean_hu - self.before.mean_hu


def match_lesions(
    now: Sequence[LocatedLesion], before: Sequence[LocatedLesion]
) -> list[LesionChange]:
    """Return each lesion of now with the one before that it is, then those that are gone.

    Two are one lesion where they are of one level and their middles lie no further apart than
    ``MATCH_MM``, or half of the larger one's diameter; the nearest go together first.  The type may
    have changed, as a lytic lesion that heals does.
    """
    pairs = []
    for n, new in enumerate(now):
        for m, old in enumerate(before):
            apart = float(np.linalg.norm(np.subtract(new.place_mm, old.place_mm)))
            sizes = [x.lesion.diameter_mm or 0.0 for x in (new, old)]
            if new.lesion.level == old.lesion.level and apart <= max(MATCH_MM, max(sizes) / 2):
                pairs.append((apart, n, m))
    known: dict[int, int] = {}
    for _, n, m in sorted(pairs):
        if n not in known and m not in known.values():
            known[n] = m
    changes = [
        LesionChange(new.lesion, before[known[n]].lesion if n in known else None)
        for n, new in enumerate(now)
    ]
    gone = (old for m, old in enumerate(before) if m not in known.values())
    return [*changes, *(LesionChange(None, old.lesion) for old in gone)]
