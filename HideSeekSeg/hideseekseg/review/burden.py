"""Lesion burden: how many lesions, how large, where; and which are those of an earlier scan.

Nothing here knows voxels: sizes are those of the review's items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..findings import LESION_TYPES, from_head_down
from .items import Item, Triple

BURDEN_COLUMNS = (
    *("level", "type", "number", "volume_mm3", "share_of_body"),
    *("largest_diameter_mm", "mean_hu"),
)
ALL = "all"  # levels, or types, taken together


@dataclass(frozen=True)
class Burden:
    """The lesions of one level and type, or of ``ALL``; fields are ``BURDEN_COLUMNS``.

    ``share_of_body`` is the lesions' volume divided by that of the vertebral body, or bodies; the
    mean of HU is weighted by volume.  None is what is not known of every lesion.
    """

    level: str
    type: str
    number: int
    volume_mm3: float
    share_of_body: float | None
    largest_diameter_mm: float | None
    mean_hu: float | None


def lesion_burden(items: Iterable[Item], body_mm3: Mapping[str, float | None]) -> list[Burden]:
    """Return a row for each level and type that has lesions, then three for all levels together.

    Levels run from the head down.  ``body_mm3`` are the volumes of all vertebral bodies that were
    analysed, by level, None where one is not known.  Without lesions only the row of ``ALL`` is
    left.
    """
    lesions = list(items)
    rows = []
    levels = dict.fromkeys([*body_mm3, *sorted(x.level for x in lesions)])
    for level in sorted(levels, key=from_head_down):
        for kind in LESION_TYPES:
            of_kind = [x for x in lesions if x.level == level and x.type == kind]
            if of_kind:
                rows.append(_row(level, kind, of_kind, [body_mm3.get(level)]))
    # A lesion drawn in a vertebra that was not analysed lies in no body that is known.
    bodies = [*body_mm3.values(), *(None for x in lesions if x.level not in body_mm3)]
    for kind in LESION_TYPES if lesions else ():
        rows.append(_row(ALL, kind, [x for x in lesions if x.type == kind], bodies))
    return [*rows, _row(ALL, ALL, lesions, bodies)]


def _row(level: str, kind: str, items: Sequence[Item], bodies: Sequence[float | None]) -> Burden:
    volume = _volume(items)
    known = [x for x in bodies if x]
    share = volume / sum(known) if known and len(known) == len(bodies) else None
    diameters = [x.diameter_mm for x in items if x.diameter_mm is not None]
    largest = max(diameters) if diameters and len(diameters) == len(items) else None
    return Burden(level, kind, len(items), volume, share, largest, mean_density(items))


MATCH_MM = 8.0  # by which the middle of a lesion may have moved, or half of its diameter


@dataclass(frozen=True)
class LocatedLesion:
    """A lesion and its middle, in mm to the right, back and down of the middle of its body."""

    lesion: Item
    place_mm: Triple


@dataclass(frozen=True)
class LesionChange:
    """What lesions of now were before: one and one, or several of one side that joined or split.

    Nothing now where it is gone, nothing before where it is new.  A lesion that one result alone
    has is neither where ``not_compared`` says why, and where a reader ``rejected`` this candidate
    at its place in the other result.
    """

    now: tuple[Item, ...] = ()
    before: tuple[Item, ...] = ()
    not_compared: str = ""
    rejected: Item | None = None

    @property
    def volume_mm3(self) -> float:
        """Return by how much it grew, negative where it shrank."""
        return _volume(self.now) - _volume(self.before)

    @property
    def hu(self) -> float | None:
        """Return by how much its mean density rose; None where one of both is not known."""
        now, before = mean_density(self.now), mean_density(self.before)
        return None if now is None or before is None else now - before


def _volume(items: Sequence[Item]) -> float:
    return sum(x.volume_mm3 for x in items)


def mean_density(items: Sequence[Item]) -> float | None:
    """Return the mean HU of all voxels of some lesions; None where one's is not known, or none."""
    known = [(x.mean_hu, x.volume_mm3) for x in items if x.mean_hu is not None]
    volume = _volume(items)
    if len(known) < len(items) or volume <= 0:
        return None
    return sum(value * weight for value, weight in known) / volume


@dataclass(frozen=True)
class ComparedResult:
    """What one of two compared results says; ``name`` is said of it, as "this result".

    ``located`` are the lesions that count, ``unseen`` those of vertebrae without an image;
    ``not_counted`` are candidates that were rejected, or that may be lesions: uncertain, or not
    reviewed; ``no_image`` are levels where one of either has no place for want of an image;
    ``analysed`` are the levels, ``why_not`` the reasons of the others, where known.
    """

    name: str
    located: Sequence[LocatedLesion]
    unseen: Sequence[Item]
    not_counted: Sequence[LocatedLesion]
    no_image: Collection[str]
    analysed: Collection[str]
    why_not: Mapping[str, str]
    reviewed: bool
    threshold: float


def compare_results(now: ComparedResult, before: ComparedResult) -> list[LesionChange]:
    """Return the lesions of now with those before that they are, then those of before alone.

    As ``match_lesions``; new or gone is only what the other result would have shown, and where no
    reader rejected anything in its place.
    """
    changes = match_lesions(now.located, before.located)
    new = {id(x) for change in changes if not change.before for x in change.now}
    gone = {id(x) for change in changes if not change.now for x in change.before}
    only_now = [x for x in now.located if id(x.lesion) in new]
    only_before = [x for x in before.located if id(x.lesion) in gone]
    why = {**_not_compared(only_now, now, before), **_not_compared(only_before, before, now)}
    rejected = {
        **_at_place(only_now, _others(before, rejected=True)),
        **_at_place(only_before, _others(now, rejected=True)),
    }
    found = []
    for change in changes:
        lesion = id((*change.now, *change.before)[0])
        reason = why.get(lesion, "")
        candidate = None if reason else rejected.get(lesion)
        found.append(replace(change, not_compared=reason, rejected=candidate))
    found += [LesionChange((x,), (), _no_image(x, now)) for x in now.unseen]
    found += [LesionChange((), (x,), _no_image(x, before)) for x in before.unseen]
    return found


def _not_compared(
    lesions: Sequence[LocatedLesion], own: ComparedResult, other: ComparedResult
) -> dict[int, str]:
    """Return why the other result cannot say whether it has each of these, by the lesion's id()."""
    found = {}
    # Those that were rejected are left out: they would take the place of one that may be a lesion.
    changes = match_lesions(lesions, _others(other, rejected=False))
    maybe = {id(x): change.before[0] for change in changes if change.before for x in change.now}
    for lesion in (x.lesion for x in lesions):
        candidate = maybe.get(id(lesion))
        reader_alone = lesion.missed or lesion.score <= own.threshold
        why = ""
        if lesion.level not in other.analysed:
            reason = other.why_not.get(lesion.level, "")
            why = f"{lesion.level} not analysed in {other.name}" + (f": {reason}" if reason else "")
        elif lesion.level in other.no_image:
            why = _no_image(lesion, other)
        elif candidate is not None:
            said = "uncertain" if candidate.verdict == "uncertain" else "not reviewed"
            why = f"{said} in {other.name}"
        elif own.reviewed and not other.reviewed and reader_alone:
            why = f"accepted by the reader alone, and {other.name} is not reviewed"
        found[id(lesion)] = why
    return found


def _others(result: ComparedResult, rejected: bool) -> list[LocatedLesion]:
    """Return the candidates that do not count: those that were rejected, or those that may be."""
    return [x for x in result.not_counted if (x.lesion.verdict == "rejected") == rejected]


def _at_place(
    lesions: Sequence[LocatedLesion], candidates: Sequence[LocatedLesion]
) -> dict[int, Item]:
    """Return which candidate lies at the place of each of these, by their id(): the nearest.

    One candidate may lie at the place of several lesions, which it joined.
    """
    found = {}
    for one in lesions:
        apart = [(_apart(one, x), n) for n, x in enumerate(candidates) if _same_place(one, x)]
        if apart:
            found[id(one.lesion)] = candidates[min(apart)[1]].lesion
    return found


def _no_image(lesion: Item, result: ComparedResult) -> str:
    return f"no image of {lesion.level} in {result.name}"


def match_lesions(
    now: Sequence[LocatedLesion], before: Sequence[LocatedLesion]
) -> list[LesionChange]:
    """Return the lesions of now with those before that they are, then those that are gone.

    Two are one lesion where they are of one level and their middles lie no further apart than
    ``MATCH_MM``, or half of the larger one's diameter; the nearest go together first.  The type may
    have changed, as a lytic lesion that heals does.  What is left over within another's extent has
    joined it, or split from it, and goes with it.
    """
    pairs = []
    for n, new in enumerate(now):
        for m, old in enumerate(before):
            if _same_place(new, old):
                pairs.append((_apart(new, old), n, m))
    known: dict[int, int] = {}
    for _, n, m in sorted(pairs):
        if n not in known and m not in known.values():
            known[n] = m
    holders = {m: n for n, m in known.items()}
    groups = {n: ([n], [m]) for n, m in known.items()}
    gone: list[int] = []
    for m in [m for m in range(len(before)) if m not in holders]:
        around = _around(before[m], known, now)
        side = gone if around is None else groups[around][1]
        side.append(m)
    for n in [n for n in range(len(now)) if n not in known]:
        around = _around(now[n], holders, before)
        if around is None:
            groups[n] = [n], []
        else:
            groups[holders[around]][0].append(n)
    changes = [
        LesionChange(
            tuple(now[n].lesion for n in sorted(new)), tuple(before[m].lesion for m in sorted(old))
        )
        for new, old in sorted(groups.values(), key=lambda group: min(group[0]))
    ]
    return [*changes, *(LesionChange((), (before[m].lesion,)) for m in gone)]


def _around(
    one: LocatedLesion, matched: Iterable[int], lesions: Sequence[LocatedLesion]
) -> int | None:
    """Return which of the matched lesions has another's middle in its extent: the nearest."""
    apart = [(_apart(one, lesions[x]), x) for x in matched if _covers(lesions[x], one)]
    return min(apart)[1] if apart else None


def _covers(larger: LocatedLesion, other: LocatedLesion) -> bool:
    radius = (larger.lesion.diameter_mm or 0.0) / 2
    return larger.lesion.level == other.lesion.level and _apart(larger, other) <= radius


def _same_place(one: LocatedLesion, other: LocatedLesion) -> bool:
    sizes = [x.lesion.diameter_mm or 0.0 for x in (one, other)]
    near = _apart(one, other) <= max(MATCH_MM, max(sizes) / 2)
    return one.lesion.level == other.lesion.level and near


def _apart(one: LocatedLesion, other: LocatedLesion) -> float:
    return float(np.linalg.norm(np.subtract(one.place_mm, other.place_mm)))
