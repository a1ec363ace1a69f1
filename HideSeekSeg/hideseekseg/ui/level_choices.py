"""What a reader can say of a segment's level, and the line above the folded table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class LevelChanges:
    """Which levels were corrected since a run: what it said of them is of other vertebrae now.

    ``now`` is the level of each segment that had one in the run, by that; empty: it has none any
    more.  A chain are levels between which segments moved; of none of them alone can the run's
    results be brought up to date, as two levels would share a vertebra, or one vertebra be in none.
    """

    now: Mapping[str, str] = field(default_factory=dict)
    chains: tuple[frozenset[str], ...] = ()
    levels: tuple[str, ...] = ()  # that there are now, from the head down

    @property
    def outdated(self) -> frozenset[str]:
        """Return the levels whose findings are out of date."""
        return frozenset().union(*self.chains)

    @property
    def again(self) -> tuple[str, ...]:
        """Return those of them that can be run again."""
        return tuple(level for level in self.levels if level in self.outdated)

    def together(self, level: str) -> tuple[str, ...]:
        """Return the levels that must be run again with one, itself included."""
        chain = self.chain(level)
        return tuple(x for x in self.levels if x in chain) if chain else (level,)

    def chain(self, level: str) -> frozenset[str]:
        """Return the chain that a level is in, empty where it was not corrected."""
        return next((chain for chain in self.chains if level in chain), frozenset())

    def before(self, level: str) -> str:
        """Return the level of the run that a vertebra had that has this one now, or ""."""
        had = next((old for old, new in self.now.items() if new == level), level)
        return "" if had == level and self.now.get(level, level) != level else had

    def after(self, level: str) -> str:
        """Return the level now that a vertebra has that had this one in the run, or "".

        One whose segment has none any more keeps it, unless another vertebra has it.
        """
        other = level in self.now.values() or (level in self.now and level in self.levels)
        return self.now.get(level) or ("" if other else level)

    @property
    def moved(self) -> dict[str, str]:
        """Return the level now of each vertebra that has another one than in the run."""
        pairs = {level: self.after(level) for level in self.now}
        return {before: after for before, after in pairs.items() if before != after}


def changed_since(ran: Mapping[str, str], rows: Sequence[LevelRow]) -> LevelChanges:
    """Return what was corrected since a run; ``ran`` is what it read each segment as, by its id."""
    chains: list[frozenset[str]] = []
    now: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row.kind != "body"):  # whole ones have the last word
        before, after = _level_of(ran.get(row.segmentID, "")), row.level
        if before:
            now[before] = after
        if ran.get(row.segmentID, "") != as_read(row):
            one = frozenset({before, after} - {""})
            linked = [chain for chain in chains if chain & one]
            chains = [chain for chain in chains if not chain & one] + [one.union(*linked)]
    return LevelChanges(now, tuple(chain for chain in chains if chain), levels_of(rows))


def _level_of(text: str) -> str:
    """Return the level that a correction names, empty for none."""
    level = text.partition(" ")[0]
    return level if level in LEVELS else ""


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
