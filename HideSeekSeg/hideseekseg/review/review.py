"""The review of a run: which candidates are shown, what the reader says of them, and undo.

Scores are stored: moving the threshold compares numbers and computes nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from ..findings import LesionType, Status, VertebraFinding, describe_status, from_head_down
from ..plain_data import as_type, first_line, shown
from .burden import Burden, lesion_burden
from .history import (
    AddMissed,
    Command,
    History,
    SetAssessment,
    SetThreshold,
    State,
    history_from_json,
    state_from_json,
)
from .items import (
    REASONS,
    VERDICTS,
    Assessment,
    Box,
    Filter,
    Item,
    Lesion,
    Reason,
    ReviewedVertebra,
    Triple,
    Verdict,
    VertebraState,
    item_of,
    lesion_from_json,
    lesions_of,
    matched,
    opinion_from_json,
    vertebra_from_json,
    vertebra_of,
    vertebra_to_json,
)

__all__ = [
    *("REASONS", "VERDICTS", "Filter", "Item", "Reason", "Review", "ReviewedVertebra"),
    *("Verdict", "VertebraState"),
]

SCHEMA = 1
OUTDATED = "out of date: its level was changed after the run"
ALL = Filter()
_NOWHERE: Triple = (0.0, 0.0, 0.0)
Said = tuple[Lesion, Assessment]
Moved = Callable[[Lesion], Lesion]


def _stay(lesion: Lesion) -> Lesion:
    """Return a lesion of a CT that was not moved."""
    return lesion


class Review:
    """Candidates, verdicts, threshold, and the way back and forth through what was done.

    Commands return the ids of the lesions they changed, empty where nothing did or where it was the
    threshold; for an unknown id they raise KeyError.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self._state = State(threshold)
        self._vertebrae: dict[str, ReviewedVertebra] = {}
        self._held: dict[str, list[Said]] = {}  # of an earlier review, by level
        self._history = History()

    @property
    def threshold(self) -> float:
        """Return the threshold; candidates that score above it are shown."""
        return self._state.threshold

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """All candidates, highest score first, then the lesions that the reader added."""
        lesions = sorted(self._state.lesions.values(), key=lambda x: (x.missed, -x.score))
        return tuple(self._item(lesion) for lesion in lesions)

    @cached_property
    def _by_id(self) -> dict[str, tuple[int, Item]]:
        return {item.id: (n, item) for n, item in enumerate(self.items)}

    def item(self, identity: str) -> Item:
        """Return the item of this id; raises KeyError where there is none."""
        return self._by_id[identity][1]

    @cached_property
    def vertebrae(self) -> dict[str, ReviewedVertebra]:
        """By level from the head down, with the status that threshold and verdicts give them."""
        found = Counter(item.level for item in self.items if self.is_finding(item))
        return {level: v.judged(found[level]) for level, v in self._vertebrae.items()}

    def states(self) -> list[VertebraState]:
        """Return the state of each vertebra now, from the head down."""
        return list(self._states)

    @cached_property
    def _states(self) -> tuple[VertebraState, ...]:
        of_level: dict[str, list[Item]] = {}
        for item in self.items:
            of_level.setdefault(item.level, []).append(item)
        found = (self._state_of(v, of_level.get(v.level, [])) for v in self.vertebrae.values())
        return tuple(found)

    def _state_of(self, vertebra: ReviewedVertebra, items: list[Item]) -> VertebraState:
        """``items`` are those of the vertebra, highest score first."""
        outlined = sum(map(self.is_finding, items))
        best = next(((x.type, x.score) for x in items if not x.missed), None)
        words = describe_status(vertebra.status, outlined, vertebra.reason, best)
        if outlined and not vertebra.analysed:
            words += f"; {describe_status(Status.NOT_ANALYSED, reason=vertebra.reason)}"
        rejected = not outlined and any(x.verdict == "rejected" for x in items)
        if rejected:
            words += ", findings rejected"
        return VertebraState(
            *(vertebra.level, vertebra.status, words, vertebra.p_malignant, vertebra.flags),
            *(vertebra.reason, rejected, vertebra.analysed, vertebra.suspicious),
        )

    def is_finding(self, item: Item) -> bool:
        """Tell whether it counts as a lesion: accepted, or above the threshold and not rejected."""
        if item.verdict == "unreviewed":
            return item.score > self.threshold
        return item.verdict in ("accepted", "uncertain")

    def is_shown(self, item: Item) -> bool:
        """Return whether it is listed: the threshold hides nothing that was judged or added."""
        return item.missed or item.verdict != "unreviewed" or item.score > self.threshold

    def shown(self, wanted: Filter = ALL) -> tuple[Item, ...]:
        """Return the candidates to list, in the order asked for."""
        return tuple(x for x in self.ordered(wanted) if self.is_shown(x) and wanted.passes(x))

    def ordered(self, wanted: Filter = ALL) -> list[Item]:
        """Return all candidates in the order asked for, highest score first if none is."""
        return wanted.sorted(self.items)

    def burden(self, accepted: bool = False) -> list[Burden]:
        """Return the burden of the lesions that are outlined, or of those accepted alone."""
        counted = [
            x for x in self.items if (x.verdict == "accepted" if accepted else self.is_finding(x))
        ]
        bodies = {v.level: v.body_mm3 for v in self._vertebrae.values() if v.analysed}
        return lesion_burden(counted, bodies)

    def counts(self, wanted: Filter = ALL) -> str:
        """Such as "3 of 11 shown"."""
        return f"{len(self.shown(wanted))} of {len(self.items)} shown"

    def summary(self) -> str:
        """Such as "17 vertebrae, 3 with findings, 2 accepted, 1 to review, 1 not analysed"."""
        vertebrae = self.vertebrae.values()
        found = sum(v.status is Status.FINDINGS for v in vertebrae)
        suspicious = sum(v.status is Status.SUSPICIOUS for v in vertebrae)
        skipped = sum(not v.analysed for v in vertebrae)
        accepted = sum(item.verdict == "accepted" for item in self.items)
        uncertain = sum(item.verdict == "uncertain" for item in self.items)
        open_ = sum(x.verdict == "unreviewed" and self.is_finding(x) for x in self.items)
        noun = "vertebra" if len(vertebrae) == 1 else "vertebrae"
        words = [f"{len(vertebrae)} {noun}", f"{found} with findings"]
        words += [f"{suspicious} suspicious"] if suspicious else []
        words += [f"{accepted} accepted"]
        words += [f"{uncertain} uncertain"] if uncertain else []
        words += [f"{open_} to review"]
        words += [f"{skipped} not analysed"] if skipped else []
        words += [f"verdicts kept for {', '.join(self.held)}"] if self._held else []
        return ", ".join(words)

    # Going through it.

    def next_after(self, identity: str, wanted: Filter = ALL) -> str | None:
        """Id of the next one shown; the first for an unknown id; None at the end."""
        return self._first(self._rest(identity, wanted), wanted.passes)

    def previous_before(self, identity: str, wanted: Filter = ALL) -> str | None:
        """Id of the one shown before; None at the beginning."""
        order = self.ordered(wanted)
        at = next((n for n, x in enumerate(order) if x.id == identity), 0)
        return self._first(order[:at][::-1], wanted.passes)

    def next_to_review(self, identity: str, wanted: Filter = ALL) -> str | None:
        """Id of the next one shown without a verdict, from the top again at the end; or None."""

        def is_open(item: Item) -> bool:
            return item.verdict == "unreviewed" and wanted.passes(item) and item.id != identity

        order = self._rest(identity, wanted)
        return self._first(order, is_open) or self._first(self.ordered(wanted), is_open)

    def _rest(self, identity: str, wanted: Filter) -> list[Item]:
        order = self.ordered(wanted)
        return order[next((n + 1 for n, x in enumerate(order) if x.id == identity), 0) :]

    def _first(self, items: Iterable[Item], fits: Callable[[Item], bool]) -> str | None:
        return next((x.id for x in items if self.is_shown(x) and fits(x)), None)

    # What the run brings; none of it can be undone.

    def add_vertebra(
        self,
        finding: VertebraFinding,
        earlier: Review | None = None,
        was: str | None = None,
        there: VertebraFinding | None = None,
    ) -> dict[str, str]:
        """Take over a finished vertebra; return the earlier id of each candidate that had one.

        Where the level was there already, here or in an ``earlier`` review of the same scan,
        verdicts and comments stay with candidates of the same type and place, and so do those that
        were ``held`` for it.  Those of candidates that are gone go as well, and so do the steps
        about candidates that have another id now.  ``was`` is the level that the vertebra had
        there, empty where it was none, if that was corrected since.  ``there`` is the same vertebra
        where the CT lay for the earlier review, if it was moved since.
        """
        source = self if earlier is None else earlier
        old = source._said_in(finding.level if was is None else was)
        new = {x.id: x for x in lesions_of(finding)}
        same = matched([lesion for lesion, _ in old], list(lesions_of(there or finding)))
        opinions = {lesion.id: opinion for lesion, opinion in old}
        kept = {now: opinions[before] for now, before in same.items()}
        if finding.status is not Status.NOT_ANALYSED:
            self._held.pop(finding.level, None)
        for lesion in self._found_in(finding.level):
            if same.get(lesion.id) != lesion.id:
                self._forget(lesion.id)
            self._state.lesions.pop(lesion.id, None)
        self._state.lesions |= new
        self._state.opinions |= {x: said for x, said in kept.items() if said != Assessment()}
        self._set_vertebrae([*self._vertebrae.values(), vertebra_of(finding)])
        self._refresh()
        return same

    def hold(
        self, earlier: Review, after: Callable[[str], str] = str, moved: Moved = _stay
    ) -> None:
        """Keep what was said in an earlier review of vertebrae that are not analysed here yet.

        A run may end before it comes to them; ``add_vertebra`` gives it back, in whatever run.
        ``after`` returns the level here of one there, empty where it has none, if levels were
        corrected since; ``moved`` returns a lesion there at its place here, if the CT was moved.
        """
        done = {level for level, v in self._vertebrae.items() if v.analysed}
        known = {x.level for x in earlier._state.lesions.values()} | earlier._held.keys()
        said = {after(level): earlier._said_in(level) for level in known}
        for level in said.keys() - done - {""}:
            self._held.pop(level, None)
            if any(opinion != Assessment() for _, opinion in said[level]):
                self._held[level] = [(replace(moved(x), level=level), o) for x, o in said[level]]
        self._refresh()

    @property
    def held(self) -> list[str]:
        """Return the levels, from the head down, for which verdicts or comments are kept."""
        return sorted(self._held, key=from_head_down)

    def adopt(self, earlier: Review, identity: str, level: str = "", moved: Moved = _stay) -> str:
        """Take over a lesion that the reader had added to an earlier review of the same scan.

        ``level`` is that of its vertebra now, if that was corrected since: its name follows, and so
        does its id, which is returned.  ``moved`` as of ``hold``.
        """
        lesion = moved(earlier._state.lesions[identity])
        if level and level != lesion.level:
            number = self._next_number(level)
            numbers = (number, number)
            lesion = replace(lesion, id=_added(level, number), level=level, numbers=numbers)
        self._state.lesions[lesion.id] = lesion
        self._state.opinions[lesion.id] = earlier._opinion(identity)
        self._refresh()
        return lesion.id

    def set_aside(self, levels: Collection[str]) -> Review:
        """Remove levels with all that is said of them, lesions that the reader added included.

        Returns a review that has them, for ``add_vertebra`` and ``adopt``.  No step about them can
        be undone or redone any more.
        """
        aside = Review(self.threshold)
        for lesion in [x for x in self._state.lesions.values() if x.level in levels]:
            aside._state.lesions[lesion.id] = lesion
            aside._state.opinions[lesion.id] = self._opinion(lesion.id)
            self._forget(lesion.id)
        for identity in self._history.added_in(levels):  # undone: redone, it would be elsewhere
            self._history.forget(identity)
        held = [level for level in levels if level in self._held]
        aside._held = {level: self._held.pop(level) for level in held}
        aside._set_vertebrae(v for level, v in self._vertebrae.items() if level in levels)
        for level in levels:
            self._vertebrae.pop(level, None)
        self._refresh()
        return aside

    def not_taken(
        self, earlier: Review, now: Mapping[str, str], taken: Collection[str]
    ) -> list[str]:
        """Return names of what the reader judged or commented on earlier and is not here.

        ``now`` is the level here of each level there that matters, empty where it has none;
        ``taken`` are the ids there of candidates that ``add_vertebra`` found again.
        """
        gone = []
        for level, here in now.items():
            added = [x for x in earlier._state.lesions.values() if x.missed and x.level == level]
            said = earlier._said_in(level) + [(x, earlier._opinion(x.id)) for x in added]
            for lesion, opinion in said:
                kept = bool(here) if lesion.missed else lesion.id in taken
                if opinion != Assessment() and not kept:
                    gone.append(item_of(lesion, opinion, None).name)
        return gone

    @property
    def levels(self) -> list[str]:
        """Return the levels, from the head down, of which anything is known here."""
        lesions = (lesion.level for lesion in self._state.lesions.values())
        return sorted({*lesions, *self._held, *self._vertebrae}, key=from_head_down)

    def set_outdated(self, levels: Collection[str]) -> bool:
        """Flag exactly the vertebrae whose level was changed after the run; False: nothing is new.

        What the run said of them is of another vertebra than the one that has the level now.
        """
        before = dict(self._vertebrae)
        for level, vertebra in before.items():
            flags = tuple(flag for flag in vertebra.flags if flag != OUTDATED)
            flags = (*flags, OUTDATED) if level in levels else flags
            self._vertebrae[level] = replace(vertebra, flags=flags)
        self._refresh()
        return self._vertebrae != before

    def measure(self, identity: str, measured: Item) -> None:
        """Take over size, place and HU of a lesion whose outline was drawn: facts, not steps."""
        names = ("volume_mm3", "centroid_lps", "box_lps", "diameter_mm", "mean_hu")
        lesion = self._state.lesions[identity]
        lesion = replace(lesion, **{name: getattr(measured, name) for name in names})
        self._state.lesions[identity] = lesion
        self._history.restate(lesion)
        self._refresh()

    # What the reader does.

    def judge(self, identity: str, verdict: Verdict, reason: Reason = "") -> tuple[str, ...]:
        """Set the verdict of a candidate; ``reason`` says what a rejected one is instead."""
        if verdict not in VERDICTS:
            raise ValueError(f"{verdict!r} is not a verdict")
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not a reason")
        why: Reason = reason if verdict == "rejected" else ""
        after = replace(self._opinion(identity), verdict=verdict, reason=why)
        return self._opine(identity, after)

    def switch_type(self, identity: str) -> tuple[str, ...]:
        """Lytic becomes blastic, and back."""
        before = self._opinion(identity)
        return self._opine(identity, replace(before, switched=not before.switched))

    def comment(self, identity: str, text: str) -> tuple[str, ...]:
        """Set the comment on a candidate."""
        return self._opine(identity, replace(self._opinion(identity), comment=text.strip()))

    def set_threshold(self, threshold: float) -> tuple[str, ...]:
        """Set the threshold; consecutive moves, as a slider makes, are one step for undo."""
        moved = threshold != self.threshold
        return self._do(SetThreshold(self.threshold, threshold)) if moved else ()

    def add_missed(
        self,
        level: str,
        type: LesionType,
        identity: str = "",
        volume_mm3: float = 0.0,
        centroid_lps: Triple = _NOWHERE,
        box_lps: Box = (*_NOWHERE, *_NOWHERE),
    ) -> str:
        """Add a lesion that the method missed, accepted; returns its id ("T10-added-1")."""
        number = self._next_number(level)
        identity = identity or _added(level, number)
        if identity in self._state.lesions:
            raise ValueError(f"{identity} is there already")
        place = (volume_mm3, centroid_lps, box_lps)
        self._do(AddMissed(Lesion(identity, level, type, 0.0, *place, (number, number), True)))
        return identity

    @property
    def can_undo(self) -> bool:
        return bool(self._history.done)

    @property
    def has_work(self) -> bool:
        """Return whether the reader said anything; a moved threshold alone is nothing to lose.

        Also in an earlier review, from which verdicts and lesions come without a step.
        """
        state, steps = self._state, self._history.done
        return (
            any(not isinstance(step, SetThreshold) for step in steps)
            or any(opinion != Assessment() for opinion in state.opinions.values())
            or any(lesion.missed for lesion in state.lesions.values())
            or bool(self._held)
        )

    @property
    def can_redo(self) -> bool:
        return bool(self._history.undone)

    def following(self, forward: bool) -> Command | None:
        """Return the step that ``undo`` would take back, or ``redo`` (``forward``) do again."""
        steps = self._history.undone if forward else self._history.done
        return steps[-1] if steps else None

    def undo(self) -> tuple[str, ...] | None:
        """Take the last step back; None where there is none."""
        return self._changed(self._history.undo(self._state))

    def redo(self) -> tuple[str, ...] | None:
        """Do again what was undone last; None where nothing was, or something else was done."""
        return self._changed(self._history.redo(self._state))

    def to_json(self) -> dict[str, Any]:
        """Everything, history included, as plain data for JSON."""
        return {
            "schema": SCHEMA,
            "vertebrae": [vertebra_to_json(v) for v in self._vertebrae.values()],
            **self._state.to_json(),
            **self._history.to_json(),
            **({"held": self._held_to_json()} if self._held else {}),
        }

    def _held_to_json(self) -> list[dict[str, Any]]:
        every = (one for level in self.held for one in self._held[level])
        return [{"lesion": dict(vars(x)), "opinion": dict(vars(said))} for x, said in every]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Review:
        """Read a review; raises ValueError, one line, for what ``to_json`` did not write."""
        try:
            return cls._read(data)
        except KeyError as error:
            raise ValueError(f"the saved review cannot be read: it lacks {error}") from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            cause = first_line(error)
            raise ValueError(f"the saved review cannot be read: {cause}") from error

    @classmethod
    def _read(cls, data: dict[str, Any]) -> Review:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {shown(data['schema'])}, this version reads {SCHEMA}")
        review = cls()
        review._state = state_from_json(data)
        vertebrae = (vertebra_from_json(said) for said in data["vertebrae"])
        review._set_vertebrae(vertebrae)
        review._history = history_from_json(data)
        review._history.check(review._state)
        for one in as_type(list[dict[str, Any]], data.get("held", [])):
            lesion = lesion_from_json(one["lesion"])
            held = review._held.setdefault(lesion.level, [])
            held.append((lesion, opinion_from_json(one["opinion"])))
        return review

    def _set_vertebrae(self, vertebrae: Iterable[ReviewedVertebra]) -> None:
        """Keep them from the head down; runs of single levels bring them in any order."""
        of_level = {vertebra.level: vertebra for vertebra in vertebrae}
        self._vertebrae = dict(sorted(of_level.items(), key=lambda pair: from_head_down(pair[0])))

    def _item(self, lesion: Lesion) -> Item:
        p = getattr(self._vertebrae.get(lesion.level), "p_malignant", None)
        return item_of(lesion, self._opinion(lesion.id), p)

    def _opinion(self, identity: str) -> Assessment:
        if identity not in self._state.lesions:
            raise KeyError(identity)
        return self._state.opinions.get(identity, Assessment())

    def _found_in(self, level: str) -> list[Lesion]:
        lesions = self._state.lesions.values()
        return [x for x in lesions if x.level == level and not x.missed]

    def _said_in(self, level: str) -> list[Said]:
        """Return what was found in a vertebra, and said of it: here, or held for it."""
        found = [(lesion, self._opinion(lesion.id)) for lesion in self._found_in(level)]
        return found or list(self._held.get(level, ()))

    def _next_number(self, level: str) -> int:
        """Return the number of the next lesion that the reader adds to a level."""
        there = (x for x in self._state.lesions.values() if x.missed and x.level == level)
        return 1 + max((x.numbers[0] for x in there), default=0)

    def _forget(self, identity: str) -> None:
        """Remove a lesion with its assessment and its steps."""
        self._state.lesions.pop(identity, None)
        self._state.opinions.pop(identity, None)
        self._history.forget(identity)

    def _opine(self, identity: str, after: Assessment) -> tuple[str, ...]:
        before = self._opinion(identity)
        return () if after == before else self._do(SetAssessment(identity, before, after))

    def _do(self, command: Command) -> tuple[str, ...]:
        return self._changed(self._history.do(command, self._state)) or ()

    def _changed(self, changed: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Rebuild the list of items where one of them changed: not for the threshold."""
        if changed:
            self._refresh()
        else:
            self._rejudge()
        return changed

    def _refresh(self) -> None:
        self.__dict__.pop("items", None)
        self.__dict__.pop("_by_id", None)
        self._rejudge()

    def _rejudge(self) -> None:
        """Drop what was said of vertebrae: lesions or the threshold changed."""
        self.__dict__.pop("vertebrae", None)
        self.__dict__.pop("_states", None)


def _added(level: str, number: int) -> str:
    """Return the id of a lesion that the reader added."""
    return f"{level}-added-{number}"
