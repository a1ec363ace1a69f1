"""What label values mean to the tools that write them, and which levels and codes there are.

A value means nothing by itself: 50 is C1 to TotalSegmentator, the sacrum to TotalSpineSeg and the
corpus to SPINEPS.  A convention holds only where the user declares it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["vertebra", "body", "other"]


def _levels(letter: str, first: int, last: int) -> tuple[str, ...]:
    step = 1 if last >= first else -1
    return tuple(f"{letter}{n}" for n in range(first, last + step, step))


LEVELS = (*_levels("C", 1, 7), *_levels("T", 1, 13), *_levels("L", 1, 6), "S1")
"""From the head down; T13 and L6 are variants that most people do not have."""

VERTEBRA_CODE = "51282000"
BODY_CODE = "3572006"
ALTERED_STRUCTURE_CODE = "49755003"

SNOMED = {
    **dict.fromkeys(("T13", "L6"), VERTEBRA_CODE),  # without a code of their own
    "C1": "14806007",
    "C2": "39976000",
    "C3": "113205007",
    "C4": "5329002",
    "C5": "36978003",
    "C6": "36054005",
    "C7": "87391001",
    "T1": "64864005",
    "T2": "53733008",
    "T3": "1626008",
    "T4": "73071006",
    "T5": "56401006",
    "T6": "45296009",
    "T7": "62487009",
    "T8": "11068009",
    "T9": "82687006",
    "T10": "7610001",
    "T11": "12989004",
    "T12": "23215003",
    "L1": "66794005",
    "L2": "14293000",
    "L3": "36470004",
    "L4": "11994002",
    "L5": "49668003",
    "S1": "65985001",
}
"""SNOMED CT code of each level (DICOM context group 7603 and, for S1, Slicer's list)."""


@dataclass(frozen=True)
class Meaning:
    """What a label stands for.

    A body without a level holds all bodies in one label; a vertebra without one cannot be named.
    """

    level: str | None
    kind: Kind


OTHER = Meaning(None, "other")
UNKNOWN = Meaning(None, "vertebra")


@dataclass(frozen=True)
class Convention:
    """What each value means; values that are known to be no vertebra mean OTHER.

    ``rest`` is the meaning of values that are not listed.
    """

    name: str
    meanings: Mapping[int, Meaning]
    rest: Meaning = UNKNOWN

    def explains(self, values: Iterable[int]) -> bool:
        """Whether it knows every value, and one at least as a vertebra."""
        values = set(values)
        known = values & self.meanings.keys()
        return known == values and any(self.meanings[value].level for value in known)


def _convention(
    name: str, *runs: tuple[int, Sequence[str]], others: Iterable[int] = (), kind: Kind = "vertebra"
) -> Convention:
    """A run is its first value and the levels that follow one another from there."""
    meanings = dict.fromkeys(others, OTHER)
    for first, levels in runs:
        meanings |= {first + n: Meaning(level, kind) for n, level in enumerate(levels)}
    return Convention(name, meanings)


_UPWARD = (*_levels("L", 5, 1), *_levels("T", 12, 1), *_levels("C", 7, 1))

CONVENTIONS = {
    convention.name: convention
    for convention in (
        _convention("totalsegmentator", (26, ("S1", *_UPWARD)), others=range(1, 118)),
        _convention("totalsegmentator-v1", (18, _UPWARD), others=range(1, 105)),
        _convention("totalsegmentator-mr", (2, _UPWARD), others=(1,)),
        _convention("totalsegmentator-bodies", (1, _UPWARD[::-1]), kind="body"),
        _convention(
            "verse",
            (1, (*_UPWARD[::-1], "L6", "S1")),
            (28, ("T13",)),
            others=(27, *range(101, 129), *range(201, 229)),
        ),
        _convention(
            "totalspineseg",
            (11, _levels("C", 1, 7)),
            (21, _levels("T", 1, 12)),
            (41, _levels("L", 1, 5)),
            others=(1, 2, 50, *range(63, 68), *range(71, 83), *range(91, 96), 100),
        ),
    )
}
"""By the name that users declare.  "verse" is also that of SPINEPS and TPTBox instance masks,
whose discs (+100) and endplates (+200) are no vertebrae."""
