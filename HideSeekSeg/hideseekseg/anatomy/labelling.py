"""Which segment is which vertebra: from codes, then names, then a declared convention."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..imaging.segmentation import Segment, Segmentation
from .label_conventions import (
    CONVENTIONS,
    LEVELS,
    OTHER,
    SNOMED,
    UNKNOWN,
    Convention,
    Kind,
    Meaning,
)
from .segment_names import is_unnamed, meaning_of_entry, meaning_of_name

__all__ = ["LEVELS", "SNOMED", "Assignment", "assign", "format_mapping", "order"]

NAMES = "names"
SHOWN = 12


@dataclass(frozen=True)
class Assignment:
    """What a segment is taken for, and on what evidence.

    ``kind`` "vertebra" is a whole vertebra, or may be one; "body" a vertebral body.  ``level`` is
    None for "other", for a "body" that holds the bodies of all vertebrae in one label, and for a
    "vertebra" that has no usable level, which ``source`` then explains: it is to be reported as
    not analysed.  No level appears twice among vertebrae, nor among bodies.
    """

    segment: Segment
    level: str | None
    kind: Kind
    source: str


def order(level: str) -> int:
    """Rank from the head down; raises ValueError for what is no level."""
    return LEVELS.index(level)


def assign(segmentation: Segmentation, labels: str | None = None) -> list[Assignment]:
    """One assignment per segment, in the order of the segments.

    ``labels`` is the convention that the user declares: a name of ``CONVENTIONS``, "names" (codes
    and names alone), or the path of a JSON file that maps values to levels.  A file whose codes or
    names tell a vertebra is read by them, and the declared convention only fills in for segments
    without a name; else the declared convention reads all values.  Values are never interpreted
    without one.  The second segment of one level and kind loses its level and is marked so.

    Raises InputError when no vertebra is found, and for a convention that is none.
    """
    declared = _declared(labels)
    read = [_by_code_or_name(segment) for segment in segmentation.segments]
    names_speak = any(meaning.level for meaning, _ in read if meaning)
    found = []
    for segment, (meaning, source) in zip(segmentation.segments, read):
        open_question = meaning in (None, UNKNOWN)
        if open_question and declared and (not names_speak or _is_unnamed(segment)):
            meaning, source = _by_value(segment, declared)
        meaning = meaning or (UNKNOWN if _is_unnamed(segment) else OTHER)
        found.append(Assignment(segment, meaning.level, meaning.kind, source))
    if not any(assignment.level for assignment in found):
        raise InputError(segmentation.source, _nothing_found(segmentation.segments, declared))
    return _without_doubles(found)


def format_mapping(assignments: Sequence[Assignment]) -> str:
    """The mapping for the terminal: a line for each kind of evidence, and one for the rest."""
    by_source: dict[str, list[str]] = defaultdict(list)
    unusable, others = [], []
    for a in assignments:
        if a.level:
            body = " body" if a.kind == "body" else ""
            by_source[a.source].append(f"{_label(a.segment)} = {a.level}{body}")
        elif a.kind == "body":
            by_source[a.source].append(f"{_label(a.segment)} = all bodies")
        elif a.kind == "vertebra":
            unusable.append(f"{_label(a.segment)} ({a.source})")
        else:
            others.append(_label(a.segment))
    lines = [f"by {source}: {', '.join(pairs)}" for source, pairs in by_source.items()]
    if unusable:
        lines.append(f"vertebrae without a usable level: {', '.join(unusable)}")
    if others:
        lines.append(f"not vertebrae: {_shortened(others)}")
    return "\n".join(lines)


def _by_code_or_name(segment: Segment) -> tuple[Meaning | None, str]:
    """Code before displayed name before ID, which Slicer keeps when a user renames a segment."""
    coded = meaning_of_entry(segment.terminology)
    named = meaning_of_name(segment.name) or meaning_of_name(segment.id)
    if coded and (coded.level or coded == OTHER):
        if named is None or named.level is None:
            return coded, "code"
        kind: Kind = "body" if "body" in (coded.kind, named.kind) and coded.level else coded.kind
        doubt = f" (the name says {named.level})" if named.level != coded.level else ""
        return replace(coded, kind=kind), f"code{doubt}"
    if coded and named and named.level:
        return replace(named, kind="body" if coded.kind == "body" else named.kind), "name"
    if named:
        return named, "name"
    return coded, "code" if coded else "no name" if _is_unnamed(segment) else "unknown name"


def _by_value(segment: Segment, declared: Convention) -> tuple[Meaning, str]:
    meaning = declared.meanings.get(segment.value)
    return (meaning, declared.name) if meaning else (declared.rest, f"not in {declared.name}")


def _is_unnamed(segment: Segment) -> bool:
    return is_unnamed(segment.name) and is_unnamed(segment.id)


def _without_doubles(assignments: list[Assignment]) -> list[Assignment]:
    """The first of a level keeps it: two vertebrae of one name could not be told apart later."""
    first: dict[tuple[str, Kind], Segment] = {}
    unique = []
    for a in assignments:
        if a.level is None or (a.level, a.kind) not in first:
            if a.level:
                first[a.level, a.kind] = a.segment
            unique.append(a)
            continue
        kept = _label(first[a.level, a.kind])
        kind: Kind = "vertebra" if a.kind == "vertebra" else "other"
        source = f"{a.source}, but {kept} is {a.level} already"
        unique.append(replace(a, level=None, kind=kind, source=source))
    return unique


def _declared(labels: str | None) -> Convention | None:
    if labels is None or labels == NAMES:
        return None
    if labels in CONVENTIONS:
        return CONVENTIONS[labels]
    if Path(labels).suffix.lower() == ".json" or Path(labels).exists():
        return _read_mapping(Path(labels))
    known = ", ".join([*CONVENTIONS, NAMES])
    raise InputError(labels, f"is no label convention; there are {known}, or a JSON file")


def _read_mapping(path: Path) -> Convention:
    """A JSON object such as ``{"20": "L1", "21": "L2 body", "7": "other"}``."""
    try:
        pairs = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=list)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not valid JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise InputError(path, 'is not a JSON object that maps values to levels ({"20": "L1"})')
    meanings: dict[int, Meaning] = {}
    for key, text in pairs:
        if not key.strip().isdecimal() or int(key) == 0:
            raise InputError(path, f'"{key}" is not a label value (1, 2, 3, ...)')
        if int(key) in meanings:
            raise InputError(path, f"value {int(key)} is mapped twice")
        meanings[int(key)] = _mapped(path, int(key), text)
    return Convention(path.name, meanings, rest=OTHER)


def _mapped(path: Path, value: int, text: object) -> Meaning:
    if text is None or (isinstance(text, str) and text.strip().lower() in ("", "other")):
        return OTHER
    meaning = meaning_of_name(text) if isinstance(text, str) else None
    if meaning is None or meaning == OTHER:
        shown = json.dumps(text, ensure_ascii=False)
        levels = f"{LEVELS[0]} to {LEVELS[-1]}"
        raise InputError(
            path, f'value {value} is mapped to {shown}: no level ({levels}) or "other"'
        )
    return meaning


def _nothing_found(segments: Iterable[Segment], declared: Convention | None) -> str:
    segments = list(segments)
    if declared is None and not all(_is_unnamed(segment) for segment in segments):
        return f"none of its segments is known as a vertebra: {_shortened(map(_label, segments))}"
    values = sorted({segment.value for segment in segments})
    present = f"values present: {_shortened(map(str, values))}"
    if declared:
        return f"has no vertebra by {declared.name}; {present}"
    fitting = [name for name, c in CONVENTIONS.items() if c.explains(values)]
    hint = f"{', '.join(fitting)} would explain all" if fitting else "none known explains all"
    return f"does not name its labels, declare a convention (--labels): {hint}; {present}"


def _label(segment: Segment) -> str:
    return segment.name or segment.id or str(segment.value)


def _shortened(words: Iterable[str]) -> str:
    words = list(words)
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
