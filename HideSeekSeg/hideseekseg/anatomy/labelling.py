"""Which segment is which vertebra: from codes, then names, then a declared convention."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..files import read_json
from ..imaging.segmentation import Segment, Segmentation
from ..plain_data import shortened, shown
from .label_conventions import (
    CONVENTIONS,
    LEVELS,
    OTHER,
    SNOMED,
    SPINEPS_CORPUS,
    SPINEPS_SUBREGIONS,
    UNKNOWN,
    Convention,
    Kind,
    Meaning,
)
from .level_order import fits
from .segment_names import (
    NOT_UNDERSTOOD,
    count_in,
    is_unnamed,
    meaning_of_entry,
    meaning_of_name,
    names_other_structure,
    says_no_level,
)
from .vertebra_shape import shape_of

__all__ = [
    "LEVELS",
    "SNOMED",
    "Assignment",
    "assign",
    "body_segments",
    "fitting_conventions",
    "format_mapping",
    "order",
]

NAMES = "names"
SUBREGIONS = (
    "contains parts of vertebrae (subregions of SPINEPS) and not vertebrae: give the mask of "
    "single vertebrae as the segmentation, and this file as --bodies"
)
SHOWN = 12
MOST_DIGITS = 19  # of a label value


@dataclass(frozen=True)
class Assignment:
    """What a segment is taken for, and on what evidence.

    ``kind`` "vertebra" is a whole vertebra, or may be one; "body" a vertebral body.  ``level`` is
    None for "other", for a "body" that holds the bodies of all vertebrae in one label, and for a
    "vertebra" that has no usable level, which ``problem`` then explains: it is to be reported as
    not analysed, under ``name``.  ``flags`` are remarks on a level that is not certain.  No level
    appears twice among vertebrae, nor among bodies.
    """

    segment: Segment
    level: str | None
    kind: Kind
    source: str
    problem: str = ""
    flags: tuple[str, ...] = ()
    name: str = ""


def order(level: str) -> int:
    """Return the rank from the head down; raises ValueError for what is not a level."""
    return LEVELS.index(level)


def assign(segmentation: Segmentation, labels: str | None = None) -> list[Assignment]:
    """Return one assignment per segment, in the order of the segments.

    ``labels`` is the convention that the user declares: a name of ``CONVENTIONS``, "names" (codes
    and names alone), or the path of a JSON file that maps values to levels.  A file whose codes or
    names tell a vertebra is read by them, and the declared convention only fills in for segments
    that have no name or only a count ("vert_20"); else the declared convention reads all values.
    Values and counts are never interpreted without one.  The second segment of one level and kind
    loses its level and is marked so.

    Raises InputError when no vertebra is found, and for a convention that does not exist.
    """
    declared = _declared(labels)
    read = [_by_code_or_name(segment) for segment in segmentation.segments]
    names_speak = any(meaning.level for meaning, _ in read if meaning)
    if not names_speak and segmentation.layers and is_subregions(segmentation):
        raise InputError(segmentation.source, SUBREGIONS)
    found = []
    for segment, (meaning, source) in zip(segmentation.segments, read):
        open_question = meaning is None or (meaning.kind == "vertebra" and not meaning.level)
        if open_question and declared and (not names_speak or _says_nothing(segment)):
            meaning, source = _by_value(segment, declared)
        found.append(_assignment(segment, meaning or _not_understood(segment), source))
    if not any(assignment.level for assignment in found):
        raise InputError(segmentation.source, _nothing_found(segmentation, declared, found))
    return _without_doubles(found)


def _assignment(segment: Segment, meaning: Meaning, source: str) -> Assignment:
    flags = (meaning.doubt,) if meaning.doubt else ()
    problem = ""
    if meaning.kind == "vertebra" and not meaning.level:
        problem = meaning.problem or _WHY_UNKNOWN.get(source, source)
    name = meaning.name or segment.name or segment.id or f"value {segment.value}"
    return Assignment(segment, meaning.level, meaning.kind, source, problem, flags, name)


_WHY_UNKNOWN = {
    "code": "its code does not name a level",
    "no name": "has no name",
    "unknown name": NOT_UNDERSTOOD,
}


def _not_understood(segment: Segment) -> Meaning:
    """Return an unknown vertebra, unless its code is that of another structure."""
    return OTHER if names_other_structure(segment.terminology) else UNKNOWN


def fitting_conventions(segmentation: Segmentation) -> list[str]:
    """Return the conventions that know all values and put levels where the anatomy has them."""
    shapes = {}
    if segmentation.layers:
        shapes = {segment: shape_of(segmentation, [segment]) for segment in segmentation.segments}
    seen = {segment: shape for segment, shape in shapes.items() if shape is not None}
    if not seen:
        values = [_value(segment) for segment in segmentation.segments]
        return [name for name, c in CONVENTIONS.items() if c.explains(values)]
    fitting = []
    for name, convention in CONVENTIONS.items():
        meanings = {segment: convention.meanings.get(_value(segment)) for segment in seen}
        if not convention.explains(_value(segment) for segment in seen):
            continue
        centres = {
            meaning.level: seen[segment].centre
            for segment, meaning in meanings.items()
            if meaning and meaning.level
        }
        # Sacra and discs are few beside the vertebrae of a file that a convention is made for.
        if 2 * len(centres) > len(seen) and fits(centres):
            fitting.append(name)
    return fitting


def body_segments(segmentation: Segmentation) -> tuple[Segment, ...]:
    """Return the segments of a second file that mark vertebral bodies, all where none says more.

    Subregions of SPINEPS mark bodies by 49 and 50 alone, not by arches and processes.
    """
    read = [(segment, _by_code_or_name(segment)[0]) for segment in segmentation.segments]
    bodies = [segment for segment, meaning in read if meaning and meaning.kind == "body"]
    if bodies:
        return tuple(bodies)
    if is_subregions(segmentation):
        return tuple(s for s in segmentation.segments if s.value in SPINEPS_CORPUS)
    return tuple(segment for segment, meaning in read if meaning != OTHER)


def is_subregions(segmentation: Segmentation) -> bool:
    """Return whether values are SPINEPS's parts of vertebrae: the corpus in front of its arch."""
    values = {segment.value: segment for segment in segmentation.segments}
    corpus, arch = SPINEPS_CORPUS & values.keys(), {41, 42} & values.keys()
    if not corpus or not arch or not values.keys() <= SPINEPS_SUBREGIONS:
        return False
    front, back = segmentation.box(values[max(corpus)]), segmentation.box(values[min(arch)])
    if front is None or back is None:
        return False
    shared = [min(a.stop, b.stop) - max(a.start, b.start) for a, b in zip(front, back)]
    sizes = [min(a.stop - a.start, b.stop - b.start) for a, b in zip(front, back)]
    # By TotalSegmentator's numbers 50 and 49 are C1 and C2, far above 41 and 42, T3 and T2.
    alongside = sum(n > 0.5 * size for n, size in zip(shared, sizes))
    return alongside >= 2 and min(shared) > -5


def format_mapping(assignments: Sequence[Assignment]) -> str:
    """Return the mapping for the terminal: a line per kind of evidence, and one for the rest."""
    by_source: dict[str, list[str]] = defaultdict(list)
    unusable, others = [], []
    for a in assignments:
        if a.level:
            body = " body" if a.kind == "body" else ""
            by_source[a.source].append(f"{_label(a.segment)} = {a.level}{body}")
        elif a.kind == "body":
            by_source[a.source].append(f"{_label(a.segment)} = all bodies")
        elif a.kind == "vertebra":
            unusable.append(f"{a.name} ({a.problem})")
        else:
            others.append(_label(a.segment))
    lines = [f"by {source}: {', '.join(pairs)}" for source, pairs in by_source.items()]
    if unusable:
        lines.append(f"vertebrae without a usable level: {', '.join(unusable)}")
    if others:
        lines.append(f"not vertebrae: {_shortened(others)}")
    return "\n".join(lines)


def _by_code_or_name(segment: Segment) -> tuple[Meaning | None, str]:
    """Read the code before the displayed name before the ID, which Slicer keeps on renaming."""
    coded = meaning_of_entry(segment.terminology)
    named = _meaning_of_names(segment)
    if coded and (coded.level or coded == OTHER):
        if named is None or named.level is None:
            return coded, "code"
        kind: Kind = "body" if "body" in (coded.kind, named.kind) and coded.level else coded.kind
        if named.level == coded.level or not coded.level:
            return replace(coded, kind=kind), "code"
        doubt = f"its code says {coded.level}, its name {named.level}"
        return replace(coded, kind=kind, doubt=doubt), f"code (the name says {named.level})"
    if coded and named and named.level:
        return replace(named, kind="body" if coded.kind == "body" else named.kind), "name"
    if named:
        return named, "name"
    if coded and (coded.kind == "body" or _is_unnamed(segment)):
        return coded, "code"
    return coded, "no name" if _is_unnamed(segment) else "unknown name"


def _meaning_of_names(segment: Segment) -> Meaning | None:
    """Return what name or ID says; a name that says nothing of a level leaves it to the ID."""
    named, by_id = meaning_of_name(segment.name), meaning_of_name(segment.id)
    if named is None or (says_no_level(named) and by_id and by_id.level):
        return by_id or named
    return named


def _by_value(segment: Segment, declared: Convention) -> tuple[Meaning, str]:
    meaning = declared.meanings.get(_value(segment))
    return (meaning, declared.name) if meaning else (declared.rest, f"not in {declared.name}")


def _value(segment: Segment) -> int:
    """Return what a convention reads: the count in a name such as "vert_20", else the value."""
    counts = (count_in(segment.name), count_in(segment.id))
    return next((count for count in counts if count is not None), segment.value)


def _is_unnamed(segment: Segment) -> bool:
    return is_unnamed(segment.name) and is_unnamed(segment.id)


def _says_nothing(segment: Segment) -> bool:
    return _is_unnamed(segment) or _value(segment) != segment.value or _is_counted(segment)


def _is_counted(segment: Segment) -> bool:
    return count_in(segment.name) is not None or count_in(segment.id) is not None


def _without_doubles(assignments: list[Assignment]) -> list[Assignment]:
    """Leave a level to the first: two vertebrae of one name could not be told apart later."""
    first: dict[tuple[str, Kind], Segment] = {}
    unique: list[Assignment] = []
    claimed: dict[tuple[str, Kind], str] = {}
    for a in assignments:
        if a.level is None or (a.level, a.kind) not in first:
            if a.level:
                first[a.level, a.kind] = a.segment
            unique.append(a)
            continue
        kept = _label(first[a.level, a.kind])
        kind: Kind = "vertebra" if a.kind == "vertebra" else "other"
        claimed.setdefault((a.level, a.kind), _label(a.segment))
        source = f"{a.source}, but {kept} is {a.level} already"
        problem = f"{kept} is {a.level} already"
        unique.append(replace(a, level=None, kind=kind, source=source, problem=problem, flags=()))
    return [_disputed(a, claimed.get((a.level or "", a.kind), "")) for a in unique]


def _disputed(assignment: Assignment, rival: str) -> Assignment:
    if not rival:
        return assignment
    flag = f"another label ({rival}) claims to be {assignment.level} too"
    return replace(assignment, flags=(*assignment.flags, flag))


def check_labels(labels: str | None) -> None:
    """Raise InputError where ``labels`` is neither a label convention nor a file of one."""
    _declared(labels)


def _declared(labels: str | None) -> Convention | None:
    if labels is None or labels == NAMES:
        return None
    if labels in CONVENTIONS:
        return CONVENTIONS[labels]
    if Path(labels).suffix.lower() == ".json" or _exists(Path(labels)):
        return _read_mapping(Path(labels))
    known = ", ".join([*CONVENTIONS, NAMES])
    raise InputError(
        shortened(labels), f"is not a label convention; give one of {known}, or a JSON file"
    )


def _exists(path: Path) -> bool:
    """Return whether a file is there; a name that no file can have is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _read_mapping(path: Path) -> Convention:
    """Read a JSON object such as ``{"20": "L1", "21": "L2 body", "7": "other"}``."""
    pairs = read_json(path, pairs=True)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise InputError(path, 'is not a JSON object that maps values to levels ({"20": "L1"})')
    meanings: dict[int, Meaning] = {}
    for key, text in pairs:
        if not key.strip().isdecimal() or len(key) > MOST_DIGITS or int(key) == 0:
            raise InputError(path, f"{shown(key)} is not a label value (1, 2, 3, ...)")
        if int(key) in meanings:
            raise InputError(path, f"value {int(key)} is mapped twice")
        meanings[int(key)] = _mapped(path, int(key), text)
    return Convention(path.name, meanings, rest=OTHER)


def _mapped(path: Path, value: int, text: object) -> Meaning:
    if text is None or (isinstance(text, str) and text.strip().lower() in ("", "other")):
        return OTHER
    meaning = meaning_of_name(text) if isinstance(text, str) else None
    if meaning is None or meaning == OTHER or meaning.problem:
        levels = f"{LEVELS[0]} to {LEVELS[-1]}"
        raise InputError(
            path, f'value {value} is mapped to {shown(text)}: no level ({levels}) or "other"'
        )
    return meaning


def _nothing_found(
    segmentation: Segmentation, declared: Convention | None, found: Sequence[Assignment]
) -> str:
    segments = segmentation.segments
    values = sorted({segment.value for segment in segments})
    present = f"values present: {_shortened(map(str, values))}"
    if any(a.kind == "body" for a in found):
        return (
            "contains the bodies of all vertebrae in one label: give a segmentation of single "
            "vertebrae, and this file as --bodies"
        )
    if declared:
        return f"contains no vertebrae by {declared.name}; {present}"
    counted = [_label(segment) for segment in segments if _is_counted(segment)]
    named = [segment for segment in segments if not _is_unnamed(segment)]
    if named and not counted:
        return f"none of its segments is known as a vertebra: {_shortened(map(_label, segments))}"
    fitting = fitting_conventions(segmentation)
    hint = f"{', '.join(fitting)} would fit" if fitting else _NONE_FITS
    if counted:
        names = _shortened(counted)
        return (
            f"only counts its vertebrae ({names}) and does not name their levels: {_DECLARE} {hint}"
        )
    return f"does not name its labels: {_DECLARE} {hint}; {present}"


_DECLARE = (
    "declare a convention in a cohort's column labels or a training's column convention, else by an"
    " option (--labels);"
)
_NONE_FITS = "none that is known fits their number and anatomy"


def _label(segment: Segment) -> str:
    return segment.name or segment.id or str(segment.value)


def _shortened(words: Iterable[str]) -> str:
    words = list(words)
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
