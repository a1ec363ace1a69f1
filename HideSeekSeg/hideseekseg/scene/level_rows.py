"""Which segment is which vertebra: as the library reads it, and as the user corrects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from ..anatomy.label_conventions import LEVELS, UNKNOWN, Kind
from ..anatomy.labelling import Assignment, assign
from ..anatomy.segment_names import is_unnamed, meaning_of_entry, meaning_of_name
from ..errors import InputError
from ..imaging.segmentation import Segment, Segmentation

BY_USER = "set by you"
_WHY = {
    "code": "by its code",
    "name": "by its name",
    "no name": "has no name",
    "unknown name": "name not understood",
}


class RowProblem(Enum):
    """Why a correction of the user was not taken over."""

    NOT_A_LEVEL = "not a level"
    TAKEN = "taken"


@dataclass(frozen=True)
class LevelRow:
    """The level of one segment, and the evidence for it (``why``, a text for the user).

    ``level`` is empty where none is known, and for a ``body`` that holds all bodies in one segment.
    """

    segmentID: str
    name: str
    value: int
    level: str
    kind: Kind
    why: str
    problem: RowProblem | None = None


def levelRows(
    segmentationNode: Any,
    corrections: Mapping[str, str] | None = None,
    convention: str | None = None,
) -> list[LevelRow]:
    """One row per segment, in Slicer's order.

    ``corrections`` are what the user says, by segment ID: a level ("L1"), also with what it is
    ("L1 body", "L1 vertebra"), "vertebral bodies" for all bodies in one, or "" for no vertebra.
    A level goes to one vertebra and one body, first to those the user set.  ``convention`` is that
    of label values without names, as in ``anatomy.levels.assign``.
    """
    segments = tuple(_segments(segmentationNode))
    name = segmentationNode.GetName() or "segmentation"
    try:
        rows = [_row(a) for a in assign(Segmentation((), segments, name), convention)]
    except InputError:
        rows = [_unknown(segment) for segment in segments]
    said = corrections or {}
    rows = [_corrected(r, said[r.segmentID]) if r.segmentID in said else r for r in rows]
    return _withoutDoubles(rows, said)


def _segments(segmentationNode: Any) -> list[Segment]:
    segmentation = segmentationNode.GetSegmentation()
    found = []
    for n, segmentId in enumerate(segmentation.GetSegmentIDs()):
        segment = segmentation.GetSegment(segmentId)
        name, entry = segment.GetName() or "", segment.GetTerminology() or ""
        found.append(Segment(segmentId, name, segment.GetLabelValue(), n, entry))
    return found


def _row(assignment: Assignment) -> LevelRow:
    segment, source = assignment.segment, assignment.source
    evidence, comma, rest = source.partition(",")
    why = assignment.problem or _WHY.get(evidence, f"by {evidence}") + comma + rest
    level = assignment.level or ""
    return LevelRow(segment.id, segment.name, segment.value, level, assignment.kind, why)


def _unknown(segment: Segment) -> LevelRow:
    """Describe a segment where no segment has a level."""
    meaning = meaning_of_entry(segment.terminology)
    source = "code" if meaning else "name"
    meaning = meaning or meaning_of_name(segment.name) or meaning_of_name(segment.id)
    if meaning is None:
        nameless = is_unnamed(segment.name) and is_unnamed(segment.id)
        meaning, source = UNKNOWN, "no name" if nameless else "unknown name"
    why = meaning.problem or _WHY[source]
    return LevelRow(segment.id, segment.name, segment.value, "", meaning.kind, why)


def _corrected(row: LevelRow, text: str) -> LevelRow:
    text = text.strip()
    if not text or text.lower() == "other":
        return replace(row, level="", kind="other", why=BY_USER)
    meaning = meaning_of_name(text)
    if meaning is None or not (meaning.level or meaning.kind == "body"):
        return replace(
            row,
            level="",
            kind="vertebra",
            why=f'"{text}" is not a level',
            problem=RowProblem.NOT_A_LEVEL,
        )
    bare = text.upper() in LEVELS
    kind: Kind = "body" if bare and row.kind == "body" else meaning.kind
    return replace(row, level=meaning.level or "", kind=kind, why=BY_USER)


def _withoutDoubles(rows: Sequence[LevelRow], said: Mapping[str, str]) -> list[LevelRow]:
    """Take a level that the user gave to one segment from another that was read as it."""
    owner: dict[tuple[str, Kind], LevelRow] = {}
    for row in sorted(rows, key=lambda r: r.segmentID not in said):
        if row.level:
            owner.setdefault((row.level, row.kind), row)
    result = []
    for row in rows:
        first = owner.get((row.level, row.kind), row)
        if first is not row:
            taken = f'"{first.name}" is {row.level} already'
            row = replace(row, level="", kind="vertebra", why=taken, problem=RowProblem.TAKEN)
        result.append(row)
    return result
