"""Changes that a reader makes to the candidates of a run, as commands with undo and redo.

Nothing here knows voxels, files or windows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..plain_data import as_type
from .items import Assessment, Lesion, lesion_from_json, opinion_from_json


@dataclass
class State:
    """All that commands change; lesions and opinions are by lesion id."""

    threshold: float
    lesions: dict[str, Lesion] = field(default_factory=dict)
    opinions: dict[str, Assessment] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            # Flat data: asdict would copy every number, and a slider saves at each of its moves.
            "lesions": [dict(vars(x)) for x in self.lesions.values()],
            "opinions": {key: dict(vars(x)) for key, x in self.opinions.items()},
        }


@dataclass(frozen=True)
class SetAssessment:
    """A verdict, a switched type or a comment."""

    id: str
    before: Assessment
    after: Assessment

    def apply(self, state: State) -> tuple[str, ...]:
        state.opinions[self.id] = self.after
        return (self.id,)

    def revert(self, state: State) -> tuple[str, ...]:
        state.opinions[self.id] = self.before
        return (self.id,)


@dataclass(frozen=True)
class SetThreshold:
    """Candidates that score above the threshold are shown; no opinion follows it."""

    before: float
    after: float

    def apply(self, state: State) -> tuple[str, ...]:
        state.threshold = self.after
        return ()

    def revert(self, state: State) -> tuple[str, ...]:
        state.threshold = self.before
        return ()


@dataclass(frozen=True)
class AddMissed:
    """A lesion that the method missed and the reader drew: accepted by whoever added it."""

    lesion: Lesion

    def apply(self, state: State) -> tuple[str, ...]:
        state.lesions[self.lesion.id] = self.lesion
        state.opinions[self.lesion.id] = Assessment("accepted")
        return (self.lesion.id,)

    def revert(self, state: State) -> tuple[str, ...]:
        del state.lesions[self.lesion.id], state.opinions[self.lesion.id]
        return (self.lesion.id,)


Command = SetAssessment | SetThreshold | AddMissed


def concerns(command: Command, identity: str) -> bool:
    """Return whether a command is about this lesion."""
    if isinstance(command, AddMissed):
        return command.lesion.id == identity
    return isinstance(command, SetAssessment) and command.id == identity


def command_to_json(command: Command) -> dict[str, Any]:
    """Plain data with the command's kind under "do"."""
    return {"do": _NAMES[type(command)], **asdict(command)}


def command_from_json(data: Mapping[str, Any]) -> Command:
    """Read a command; raises KeyError, TypeError or ValueError for other data."""
    if data["do"] == "opine":
        before, after = (opinion_from_json(data[key]) for key in ("before", "after"))
        return SetAssessment(as_type(str, data["id"]), before, after)
    if data["do"] == "threshold":
        return SetThreshold(as_type(float, data["before"]), as_type(float, data["after"]))
    if data["do"] == "add":
        return AddMissed(lesion_from_json(data["lesion"]))
    raise ValueError(f"{data['do']!r} is not a command")


_NAMES: dict[type[Command], str] = {
    SetAssessment: "opine",
    SetThreshold: "threshold",
    AddMissed: "add",
}


class History:
    """Commands done and undone: one line, and what is done anew ends what was undone."""

    def __init__(self, done: list[Command] | None = None, undone: list[Command] | None = None):
        self.done, self.undone = done or [], undone or []

    def do(self, command: Command, state: State) -> tuple[str, ...]:
        """Apply a command; consecutive moves of the threshold are one step.

        So are comments on one lesion, which are kept while they are typed.  Both are none where
        they end where they began.
        """
        joined = _joined(self.done[-1], command) if self.done else None
        if joined is not None:
            self.done.pop()
            command = joined
        changed = command.apply(state)
        if isinstance(command, AddMissed) or command.before != command.after:
            self.done.append(command)
        self.undone.clear()
        return changed

    def undo(self, state: State) -> tuple[str, ...] | None:
        """Ids that changed, None where there is nothing to undo."""
        if not self.done:
            return None
        self.undone.append(self.done.pop())
        return self.undone[-1].revert(state)

    def redo(self, state: State) -> tuple[str, ...] | None:
        """Ids that changed, None where there is nothing to redo."""
        if not self.undone:
            return None
        self.done.append(self.undone.pop())
        return self.done[-1].apply(state)

    def forget(self, identity: str) -> None:
        """Drop all steps about a lesion that is gone."""
        self.done = [x for x in self.done if not concerns(x, identity)]
        self.undone = [x for x in self.undone if not concerns(x, identity)]

    def added_in(self, levels: Collection[str]) -> list[str]:
        """Return the ids of lesions that a step adds to one of these levels."""
        steps = (x for x in (*self.done, *self.undone) if isinstance(x, AddMissed))
        return [x.lesion.id for x in steps if x.lesion.level in levels]

    def restate(self, lesion: Lesion) -> None:
        """Use what is now known of a lesion that the reader added when it is added again."""
        for steps in (self.done, self.undone):
            for n, step in enumerate(steps):
                if isinstance(step, AddMissed) and step.lesion.id == lesion.id:
                    steps[n] = AddMissed(lesion)

    def check(self, state: State) -> None:
        """Raise ValueError where a step cannot be undone or redone from this state."""
        for steps, way in ((self.done, "revert"), (self.undone, "apply")):
            trial = State(state.threshold, dict(state.lesions), dict(state.opinions))
            try:
                for step in reversed(steps):
                    getattr(step, way)(trial)
            except KeyError as error:
                raise ValueError(f"a step is about {error}, which is not in it") from None

    def to_json(self) -> dict[str, Any]:
        return {
            "undo": [command_to_json(x) for x in self.done],
            "redo": [command_to_json(x) for x in self.undone],
        }


def _joined(last: Command, now: Command) -> Command | None:
    """Return two steps as one, None where they stay two."""
    if isinstance(last, SetThreshold) and isinstance(now, SetThreshold):
        return replace(now, before=last.before)
    if not (isinstance(last, SetAssessment) and isinstance(now, SetAssessment)):
        return None
    typed = all(replace(x.before, comment=x.after.comment) == x.after for x in (last, now))
    return replace(now, before=last.before) if typed and last.id == now.id else None


def history_from_json(data: Mapping[str, Any]) -> History:
    """Read what ``History.to_json`` wrote."""
    done, undone = (
        [command_from_json(x) for x in as_type(list[dict[str, Any]], data[key])]
        for key in ("undo", "redo")
    )
    return History(done, undone)


def state_from_json(data: Mapping[str, Any]) -> State:
    """Read what ``State.to_json`` wrote."""
    lesions = [lesion_from_json(x) for x in as_type(list[Any], data["lesions"])]
    opinions = as_type(dict[str, Assessment], data["opinions"])
    return State(as_type(float, data["threshold"]), {x.id: x for x in lesions}, opinions)
