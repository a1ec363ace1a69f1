"""Console progress of long tasks, and how Ctrl-C ends them.

Events become a progress bar on a terminal, plain lines elsewhere, and JSON for programs.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from .. import __version__
from ..errors import InputError
from ..events import Cancelled, Event, Finished, Message, Progress, Started, VertebraDone, to_line
from ..plain_data import counted, printable
from ..progress import duration

Say = Callable[[Event], None]

BAR = 24
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
]


def json_lines(out: TextIO) -> Say:
    """Return a printer of every event as one line, at once."""

    def say(event: Event) -> None:
        print(to_line(event), file=out, flush=True)

    return say


def quiet(event: Event) -> None:
    """Print nothing; failures end in an exit status and one line."""


@contextmanager
def logged(path: Path | None, say: Say) -> Iterator[Say]:
    """Yield ``say``, or one that also appends every line, with the time, to a file.

    What ends the block goes there as well.  Raises InputError where the file cannot be opened; one
    that cannot be written later, as its disk is full, ends with a warning and the work goes on.
    """
    if path is None:
        yield say
        return
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise InputError(path, f"cannot be written: {error.strerror or error}") from error
    with file:
        out = _Stamped(file, lambda why: say(Message("warning", f"{path}: {why}")))
        people = ForPeople(out, verbose=True)
        out.write(f"hideseekseg {__version__}: {' '.join(sys.argv[1:])}\n")

        def both(event: Event) -> None:
            people(event)
            say(event)

        try:
            yield both
        except BaseException as error:
            out.write(f"{type(error).__name__}: {error}\n")
            raise


class _Stamped:
    """Writes lines with the time before each."""

    def __init__(self, file: FileIO, on_failure: Callable[[str], None]) -> None:
        self._file, self._begun, self._on_failure = file, False, on_failure
        self._failed = False

    def write(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            stamp = "" if self._begun else f"{datetime.now():%Y-%m-%d %H:%M:%S} "
            self._append((stamp + line).encode("utf-8", "backslashreplace"))
            self._begun = not line.endswith("\n")

    def _append(self, line: bytes) -> None:
        if self._failed:
            return
        try:
            self._file.write(line)
        except OSError as error:
            self._failed = True
            self._on_failure(f"cannot be written any more: {error.strerror or error}")

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False


class ForPeople:
    """Plain lines on ``out``, with a progress bar where ``out`` is a terminal.

    ``verbose`` prints each step in a line of its own instead, with the seconds until it began.
    """

    def __init__(self, out: Any, verbose: bool = False) -> None:
        self.out = out
        self.bar = LineBar(out) if out.isatty() and not verbose else None
        self.done = self.total = 0
        self._steps = _Steps() if verbose else None

    def __call__(self, event: Event) -> None:
        if self._steps:
            for line in self._steps.lines(event):
                print(line, file=self.out, flush=True)
        if isinstance(event, Progress):
            if self.bar:
                self.bar.draw(event.fraction, _step(event))
            return
        if isinstance(event, Started):
            self.total = len(event.levels)
        self.done += isinstance(event, VertebraDone)
        if self.bar:
            self.bar.clear()
        for line in _words(event, f"{self.done}/{self.total}"):
            print(printable(line), file=self.out, flush=True)


class _Steps:
    """When each step of each vertebra began; several vertebrae may be on their way at once."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._step: dict[str, str] = {}

    def lines(self, event: Event) -> Iterator[str]:
        if isinstance(event, Progress) and self._step.get(event.level) != event.step:
            self._step[event.level] = event.step
            yield f"{time.monotonic() - self._began:10.1f} s  {event.level} {event.step}"


def _words(event: Event, count: str) -> list[str]:
    if isinstance(event, Started):
        return [
            *event.mapping,
            f"weights: {event.weights} ({event.weights_hash[:12]})",
            f"device: {event.device} ({event.reason}), {counted(event.threads, 'thread')}",
        ]
    if isinstance(event, VertebraDone):
        return [f"{count:>5}  {event.level:4} {_outcome(event)}"]
    if isinstance(event, Finished):
        return [f"wrote {file}" for file in event.files]
    if isinstance(event, Cancelled):
        if not event.kept:
            return ["stopped: nothing was finished, nothing is written"]
        return [f"stopped: kept {', '.join(event.kept)}", *(f"wrote {f}" for f in event.files)]
    if isinstance(event, Message):
        return [f"{event.level}: {event.text}" if event.level == "warning" else event.text]
    return []


def _outcome(event: VertebraDone) -> str:
    finding = event.finding
    if finding["p_malignant"] is None:
        return str(finding["state"])
    return f"{finding['state']}, P(malignant) {finding['p_malignant']:.3f}"


def _step(event: Progress) -> str:
    left = "" if event.seconds_left is None else f", about {duration(event.seconds_left)} left"
    return f"{event.level} {event.step} {event.done}/{event.total}{left}"


class LineBar:
    """A line drawn over itself, with rows below it; nothing where ``out`` is not a terminal.

    ``has_rows`` tells whether the terminal can go back to a line above.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.is_drawn = out.isatty()
        # Windows' older consoles print the sequences that Windows Terminal follows.
        able = os.environ.get("WT_SESSION") if os.name == "nt" else True
        self.has_rows = self.is_drawn and bool(able) and os.environ.get("TERM") != "dumb"
        self._below = 0  # rows that stand below the line; the cursor is in the last one

    def draw(self, fraction: float, words: str, rows: Sequence[str] = ()) -> None:
        """Draw how far it is, words behind it, and rows; long ones are cut, the first are kept."""
        if not self.is_drawn:
            return
        full = round(BAR * fraction)
        text = f"[{'#' * full}{'.' * (BAR - full)}] {fraction:4.0%} {printable(words)}"
        columns, height = terminal_size(self.out)
        below = [fit(printable(row), columns - 1) for row in rows] if self.has_rows else []
        below = below[: height - 2]
        lines = "\n".join([fit(text, columns - 1), *below])
        print(self._back() + lines, end="", file=self.out, flush=True)
        self._below = len(below)

    def clear(self) -> None:
        """Make room for a line of text."""
        if self.is_drawn:
            print(self._back(), end="", file=self.out, flush=True)
            self._below = 0

    def leave(self) -> None:
        """Let what is drawn stand: something else has written below it."""
        self._below = 0

    def _back(self) -> str:
        """Return what empties the lines and brings the cursor to the first one's begin."""
        if self.has_rows:
            return f"\r\x1b[{self._below}A\x1b[J" if self._below else "\r\x1b[J"
        return f"\r{' ' * (terminal_size(self.out)[0] - 1)}\r"


def terminal_size(out: TextIO) -> tuple[int, int]:
    """Return columns and lines of the terminal that ``out`` is, 80 and 24 where it does not say."""
    try:
        size = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        size = shutil.get_terminal_size()
    return size.columns or 80, size.lines or 24


def fit(text: str, columns: int, middle: bool = False) -> str:
    """Return a text of at most so many columns; a longer one loses its end, or its middle."""
    if columns_of(text) <= columns:
        return text
    head, tail = (columns // 3, columns - columns // 3 - 1) if middle else (columns - 1, 0)
    end = _first(text[::-1], tail)[::-1]
    return f"{_first(text, head)}\N{HORIZONTAL ELLIPSIS}{end}"


def fill(text: str, columns: int) -> str:
    """Return a text of exactly so many columns."""
    text = fit(text, columns)
    return text + " " * (columns - columns_of(text))


def _first(text: str, columns: int) -> str:
    kept, used = "", 0
    for letter in text:
        used += columns_of(letter)
        if used > columns:
            break
        kept += letter
    return kept


def columns_of(text: str) -> int:
    """Return the columns that a text takes: those of Chinese letters are two, of accents none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a stop was requested.

    SIGTERM (and SIGBREAK on Windows) count as Ctrl-C: that is how other programs ask.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        # Not print: the signal may have come in the middle of one.
        with suppress(OSError):  # the terminal may have gone
            os.write(2, b"\nStopping after this step (Ctrl-C again: at once) ...\n")

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
