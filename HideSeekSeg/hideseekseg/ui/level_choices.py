"""What a reader can say of a segment's level, and the line above the folded table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..anatomy.label_conventions import CONVENTIONS, LEVELS
from ..scene.export_inputs import LevelRow
from .texts import _

NO_VERTEBRA, ALL_BODIES = _("none"), _("all bodies")
CHOICES = (NO_VERTEBRA, ALL_BODIES, *LEVELS)
PARTS = {"vertebra": _("whole"), "body": _("body")}
BY_NAME = _("names and codes")
READ_BY = (BY_NAME, *(_("values of {name}").format(name=name) for name in CONVENTIONS))
TITLE = _("Vertebra levels")


def choice_of(row: LevelRow) -> str:
    """Return which of ``CHOICES`` the row was understood as."""
    return row.level or (ALL_BODIES if row.kind == "body" else NO_VERTEBRA)


def correction(choice: str, kind: str) -> str:
    """Return a choice for ``scene.export_inputs.levelRows``; ``kind``: "vertebra" or "body"."""
    if choice == NO_VERTEBRA:
        return ""
    return "vertebral bodies" if choice == ALL_BODIES else f"{choice} {kind}"


def as_read(row: LevelRow) -> str:
    """Return the correction that means the same as what was read."""
    return correction(choice_of(row), row.kind)


def rank(row: LevelRow) -> tuple[int, int]:
    """Vertebrae first, then what was not understood, then the rest."""
    if row.level:
        return 0, LEVELS.index(row.level)
    return (1, row.value) if row.kind != "other" else (2, row.value)


def levels_of(rows: Sequence[LevelRow]) -> tuple[str, ...]:
    """Levels that will be analysed, from the head down."""
    there = {row.level for row in rows if row.level}
    return tuple(level for level in LEVELS if level in there)


def in_order(levels: Collection[str]) -> list[str]:
    """Return levels from the head down."""
    return [level for level in LEVELS if level in levels]


def changed_since(
    ran: Mapping[str, str], rows: Sequence[LevelRow]
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the levels whose findings are out of date, and those of them to run again.

    ``ran`` is what each segment was read as by the run, by its id.
    """
    touched: set[str] = set()
    for row in rows:
        before, now = ran.get(row.segmentID, ""), as_read(row)
        if before != now:
            touched |= {text.partition(" ")[0] for text in (before, now)} & set(LEVELS)
    return frozenset(touched), tuple(level for level in levels_of(rows) if level in touched)


def summary(rows: Sequence[LevelRow]) -> str:
    """Such as "T11 to L3 (whole), 1 unknown"."""
    levels = levels_of(rows)
    if not levels:
        return _("none recognised, please set them") if rows else ""
    kinds = {row.kind for row in rows if row.level}
    words = {"vertebra": _("whole"), "body": _("bodies")}
    parts = _(" and ").join(word for kind, word in words.items() if kind in kinds)
    span = levels[0]
    if len(levels) > 1:
        span = _("{first} to {last}").format(first=levels[0], last=levels[-1])
    unknown = sum(row.kind == "vertebra" and not row.level for row in rows)
    more = _(", {count} unknown").format(count=unknown) if unknown else ""
    return f"{span} ({parts}){more}"
