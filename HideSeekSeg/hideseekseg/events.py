"""Events of a run: one JSON object per line, and back.

The Slicer panel, the browser and any program that starts ``hideseekseg segment --json-lines`` read
these.  The first event is Started (unless the input was refused), the last is exactly one of
Finished, Cancelled and Failed.  Fields may be added, never renamed: readers ignore fields they do
not know.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_type_hints

from .plain_data import as_type

SCHEMA = 1


@dataclass(frozen=True)
class Started:
    """``levels`` are those to analyse, in order; ``mapping`` has one line per segment, for people.

    ``device`` is torch's name, ``reason`` why it was chosen.  ``not_analysed`` are levels without a
    label, and labels without a level, each with the reason; None where the run does not tell.
    """

    device: str
    reason: str
    weights: str
    weights_hash: str
    threads: int
    levels: tuple[str, ...]
    mapping: tuple[str, ...]
    schema: int = SCHEMA
    not_analysed: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class Progress:
    """Step ``step`` of vertebra ``level`` has done ``done`` of ``total``.

    ``level`` is empty where the step is of the whole, as those of a report are.
    ``fraction`` (0 to 1) is of the whole run; ``seconds_left`` is None until it can be told.
    """

    level: str
    step: str
    done: int
    total: int
    fraction: float
    seconds_left: float | None = None


@dataclass(frozen=True)
class VertebraDone:
    """A vertebra is finished: ``finding`` is its entry in candidates.json.

    ``file`` holds it with its voxels and evidence (see ``output.result_folder``) where ``--each``
    asked for that.
    """

    level: str
    finding: dict[str, Any]
    file: str = ""


@dataclass(frozen=True)
class Message:
    """A message to the user."""

    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True)
class Finished:
    """The run is finished and its files are written."""

    files: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Cancelled:
    """The run was stopped; the vertebrae in ``kept`` are finished and written to ``files``."""

    kept: tuple[str, ...]
    files: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Failed:
    """``cause`` is one line, ``file`` the file at fault if there is one.

    Nothing was written but the vertebrae that ``--each`` had written before.
    """

    cause: str
    file: str = ""


Event = Started | Progress | VertebraDone | Message | Finished | Cancelled | Failed

_KINDS: dict[str, type[Event]] = {
    "started": Started,
    "progress": Progress,
    "vertebra-done": VertebraDone,
    "message": Message,
    "finished": Finished,
    "cancelled": Cancelled,
    "failed": Failed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_line(event: Event) -> str:
    """One line without its end, pure ASCII, so that no console's encoding can spoil it.

    Raises ValueError where a number is not finite: JSON has none of these.
    """
    return json.dumps({"event": _NAMES[type(event)], **asdict(event)}, allow_nan=False)


def from_line(line: str) -> Event | None:
    """Return the event, or None for any other line, as libraries print and newer versions add.

    A line with a value of another type is none either: whoever reads events need not check them.
    """
    try:
        data = json.loads(line)
        kind = _KINDS.get(str(data.get("event"))) if isinstance(data, dict) else None
        if kind is None:
            return None
        hints = get_type_hints(kind)
        known = {f.name: data[f.name] for f in fields(kind) if f.name in data}
        if any(f.default is MISSING and f.name not in known for f in fields(kind)):
            return None
        return kind(**{name: as_type(hints[name], value) for name, value in known.items()})
    except (ValueError, RecursionError):
        return None
