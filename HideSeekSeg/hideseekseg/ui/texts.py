"""Texts about findings, runs and vertebrae, the same in both windows."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UserError
from ..events import Progress
from ..findings import STOPPED, Status
from ..output.segment_description import TYPE_COLOURS
from ..progress import duration
from ..review.review import Item, Review, VertebraState
from .i18n import _

COLUMNS = (_("Level"), _("Type"), _("Score"), _("P(malignant)"), _("mL"), _("Status"))
VERDICTS = {
    "unreviewed": _("to review"),
    "accepted": _("✓ accepted"),
    "rejected": _("✗ rejected"),
}
TYPE_NAMES = {"lytic": _("lytic"), "blastic": _("blastic")}
ALL_LEVELS, ALL_TYPES, ALL_VERDICTS = _("All levels"), _("Both types"), _("Any status")
START, CANCEL = _("Segment metastases"), _("Cancel")
NOT_CHOSEN = _("Choose a finding before you comment on it.")
STARTING, STOPPING = _("Starting…"), _("Stopping…")
COLOURS = {
    kind: "#" + "".join(f"{round(255 * part):02x}" for part in colour)
    for kind, colour in TYPE_COLOURS.items()
}


def cells(item: Item) -> tuple[str, ...]:
    """Return the row of a finding under ``COLUMNS``."""
    p = "" if item.p_malignant is None else f"{item.p_malignant:.2f}"
    score = _("added") if item.missed else f"{item.score:.2f}"
    note = " ✎" if item.comment else ""
    drawn = item.missed and item.verdict == "accepted"
    status = _("✓ added") if drawn else VERDICTS[item.verdict]
    size = f"{item.volume_mm3 / 1000:.2f}" if item.volume_mm3 else ""
    return item.level, TYPE_NAMES[item.type], score, p, size, status + note


def progress(event: Progress) -> str:
    """Return the current vertebra and the time left."""
    left = ""
    if event.seconds_left is not None:
        left = _(" · about {time} left").format(time=duration(event.seconds_left))
    return f"{event.level} · {event.step}{left}"


def told(error: UserError) -> str:
    """Return the error as the beginning of a sentence, with or without a file."""
    return str(error) if error.path else error.cause[:1].upper() + error.cause[1:]


def not_kept(level: str) -> str:
    """Why there is no healthy edit to show."""
    text = _("The healthy edit of {level} was not kept: run “Segment metastases” again to see it.")
    return text.format(level=level)


def done(review: Review) -> str:
    """Return the message of a finished run."""
    return _("Done: {summary}.").format(summary=review.summary())


def exported(count: int, folder: str, names: str) -> str:
    """Return what was written, and where."""
    text = _("Exported {count} accepted findings to {folder}: {names}.")
    if count == 1:
        text = _("Exported {count} accepted finding to {folder}: {names}.")
    return text.format(count=count, folder=folder, names=names)


def quiet(review: Review, notes: Sequence[str] = ()) -> str:
    """Return the vertebrae in which nothing is outlined, by state, and remarks.

    Vertebrae whose findings were all rejected stand apart, and so do those that a stop left out.
    Remarks are the notes of the run, and the flags of all vertebrae with the levels they concern.
    """
    groups: dict[str, list[str]] = {}
    for state in review.states():
        if state.status is not Status.FINDINGS:
            groups.setdefault(_heading(state), []).append(state.level)
    lines = [f"{heading}: {', '.join(levels)}" for heading, levels in groups.items()]
    flagged: dict[str, list[str]] = {}
    for level, vertebra in review.vertebrae.items():
        for flag in vertebra.flags:
            flagged.setdefault(flag, []).append(level)
    lines += [f"⚠ {', '.join(levels)}: {flag}" for flag, levels in flagged.items()]
    return "\n".join([*lines, *(note for note in notes if note not in flagged)])


def _heading(state: VertebraState) -> str:
    if state.reason == STOPPED:
        return _("Stopped before")
    if state.reason:
        return _("Not analysed ({reason})").format(reason=state.reason)
    return state.words[:1].upper() + state.words[1:]
