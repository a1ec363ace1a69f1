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


def unknown_level(names: Iterable[str]) -> str:
    """Return, in words for the user, the first name that is not a level; empty where all are."""
    for name in names:
        if name not in LEVELS:
            return f"{name!r} is not a vertebral level ({LEVELS[0]} to {LEVELS[-1]})"
    return ""


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

    A body without a level holds all bodies in one label; a vertebra without one cannot be named:
    ``problem`` says why.  ``doubt`` is a remark for the reader on a level that is not certain, and
    ``name`` what to call a label that has no level.
    """

    level: str | None
    kind: Kind
    problem: str = ""
    doubt: str = ""
    name: str = ""


OTHER = Meaning(None, "other")
UNKNOWN = Meaning(None, "vertebra")
ALL_BODIES = Meaning(None, "body")


@dataclass(frozen=True)
class Convention:
    """What each value means; values that are known not to be a vertebra mean OTHER.

    ``tool`` is the program, its task and since when (or until when) it numbers so.  ``rest`` is the
    meaning of values that are not listed.
    """

    name: str
    meanings: Mapping[int, Meaning]
    tool: str = ""
    rest: Meaning = UNKNOWN

    def explains(self, values: Iterable[int]) -> bool:
        """Return whether it knows every value, and at least one as a vertebra."""
        values = set(values)
        known = values & self.meanings.keys()
        return known == values and any(self.meanings[value].level for value in known)


def _convention(
    name: str,
    tool: str,
    *runs: tuple[int, Sequence[str]],
    others: Iterable[int] = (),
    kind: Kind = "vertebra",
    special: Mapping[int, Meaning] | None = None,
) -> Convention:
    """Return a convention; a run is its first value and the levels that follow from there."""
    meanings = dict.fromkeys(others, OTHER)
    for first, levels in runs:
        meanings |= {first + n: Meaning(level, kind) for n, level in enumerate(levels)}
    return Convention(name, {**meanings, **(special or {})}, tool)


_UPWARD = (*_levels("L", 5, 1), *_levels("T", 12, 1), *_levels("C", 7, 1))

_S1_OR_L6 = Meaning(
    "S1",
    "vertebra",
    doubt="label 26 is S1 in version 2 of TotalSegmentator and L6 in version 3 "
    "(--labels totalsegmentator-v3)",
)
_SACRUM = Meaning(None, "vertebra", "it is not a single vertebra", name="sacrum")
_NOT_A_LEVEL = "L7 is not a level that can be analysed"

CONVENTIONS = {
    convention.name: convention
    for convention in (
        _convention(
            "totalsegmentator",
            "TotalSegmentator 2 (since 2023), task total",
            (27, _UPWARD),
            others=range(1, 118),
            special={26: _S1_OR_L6},
        ),
        _convention(
            "totalsegmentator-v1",
            "TotalSegmentator 1 (until 2023), task total",
            (18, _UPWARD),
            others=range(1, 105),
        ),
        _convention(
            "totalsegmentator-v3",
            "TotalSegmentator (since 2026), task total_v3",
            (26, ("L6", *_UPWARD)),
            others=range(1, 118),
        ),
        _convention(
            "totalsegmentator-mr",
            "TotalSegmentator 2.5 (since 2024), task vertebrae_mr",
            (2, _UPWARD),
            others=(1,),
        ),
        _convention(
            "totalsegmentator-bodies",
            "TotalSegmentator (since 2026), tasks vertebrae_pp and vertebrae_pp_refined",
            (1, _UPWARD[::-1]),
            kind="body",
        ),
        _convention(
            "totalsegmentator-body",
            "TotalSegmentator 2.1 (since 2024), task vertebrae_body: all bodies in one label",
            others=(2,),
            special={1: ALL_BODIES},
        ),
        _convention(
            "verse",
            "VerSe (2019), TPTBox, and vertebra masks of SPINEPS",
            (1, (*_UPWARD[::-1], "L6")),
            (28, ("T13",)),
            others=(27, *range(29, 34), *range(38, 54), *range(101, 134), *range(201, 234)),
            special={26: _SACRUM},
        ),
        _convention(
            "totalspineseg",
            "TotalSpineSeg (since September 2024)",
            (11, _levels("C", 1, 7)),
            (21, _levels("T", 1, 12)),
            (41, _levels("L", 1, 6)),
            others=(1, 2, 50, *range(63, 68), *range(71, 83), *range(91, 97), 100),
            special={47: Meaning(None, "vertebra", _NOT_A_LEVEL, name="L7")},
        ),
        _convention(
            "totalspineseg-old",
            "TotalSpineSeg (until August 2024)",
            (18, _UPWARD),
            others=(92, *range(200, 225)),
        ),
    )
}
"""By the name that users declare, from the tools' own tables as of August 2026.

"verse" is also that of TPTBox and SPINEPS, whose ribs (+32), discs (+100) and endplates (+200) are
not vertebrae; 26 is the sacrum to VerSe and SPINEPS, and its first segment to TPTBox."""

SPINEPS_CORPUS = frozenset({49, 50})
SPINEPS_SUBREGIONS = frozenset({26, *range(40, 54), *range(58, 65), *range(70, 75), 80, 100, 126})
"""Subregion masks of SPINEPS and TPTBox: corpus border and corpus, and all values there are."""
