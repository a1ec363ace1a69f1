"""Progress of a run, time left, and the exception that stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from .events import Event, Progress

PREPARATION = 0.1  # of a run, roughly: locating bodies and cropping them
BESIDE = 0.15  # the same of encoding all vertebrae first, where weights judge by patient
# Share of a vertebra's time at the beginning and at the end of each step of the method.
STEPS = {
    "encode": (0.0, 0.1),
    "edit": (0.1, 0.5),
    "scoring candidates": (0.5, 0.95),
    "hiding candidates": (0.95, 1.0),
}


# Hears which step is about to be done, in words, after how many of how many: may raise Stopped.
OnProgress = Callable[[str, int, int], None]
ShouldStop = Callable[[], bool]


class Stopped(Exception):  # noqa: N818 - no error, the user's wish
    """A stop was requested during a step."""


def unwatched(words: str, done: int, total: int) -> None:
    """Let a step pass: nobody wants to know of it."""


def stoppable(on_progress: OnProgress, should_stop: ShouldStop) -> OnProgress:
    """Return what hears of steps as ``on_progress`` does, and raises Stopped where asked to."""

    def hear(words: str, done: int, total: int) -> None:
        if should_stop():
            raise Stopped
        on_progress(words, done, total)

    return hear


class ProgressReporter:
    """Turn finished steps into Progress events; raise Stopped once a stop was requested.

    ``levels`` are analysed; before that all of ``beside`` are encoded, none where weights see one
    vertebra alone.  The fraction counts both, and never falls.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        should_stop: Callable[[], bool],
        levels: Sequence[str],
        beside: Sequence[str] = (),
    ) -> None:
        self._on_event, self._should_stop = on_event, should_stop
        self._beside = beside
        self._began = time.monotonic()
        self._analysis_began = self._began
        preparation, encoding = PREPARATION * len(beside or levels), BESIDE * len(beside)
        analysis = (1 - PREPARATION - (BESIDE if beside else 0)) * len(levels)
        whole = preparation + encoding + analysis
        self._prepared, self._ready = preparation / whole, (preparation + encoding) / whole
        self._fraction = 0.0
        self._within = dict.fromkeys(levels, 0.0)

    @property
    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._began

    def preparation(self, level: str, n: int, total: int) -> None:
        """Report that a body is about to be located, after ``n`` of ``total``."""
        self._tell(Progress(level, "body", n, total, self._prepared * n / total))
        self._analysis_began = time.monotonic()

    def beside(self, level: str) -> None:
        """Tell that a vertebra is about to be encoded, before the first of all is judged."""
        n, total = self._beside.index(level), len(self._beside)
        share = self._prepared + (self._ready - self._prepared) * n / total
        self._tell(Progress(level, "encode", n, total, share))
        self._analysis_began = time.monotonic()

    def step(self, level: str, step: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` network calls of a step are finished.

        Several vertebrae may be on their way at once.
        """
        low, high = STEPS[step]
        within = low + (high - low) * done / total
        self._within[level] = max(self._within[level], within)  # stability scores once more
        share = sum(self._within.values()) / len(self._within)
        spent = time.monotonic() - self._analysis_began
        left = spent / share * (1 - share) if share > 0 else None
        fraction = self._ready + (1 - self._ready) * share
        self._tell(Progress(level, step, done, total, fraction, left))

    def finished(self, level: str) -> None:
        """Note that a vertebra needs no more steps."""
        self._within[level] = 1.0

    def _tell(self, progress: Progress) -> None:
        if self._should_stop():
            raise Stopped
        self._fraction = max(self._fraction, progress.fraction)
        self._on_event(replace(progress, fraction=self._fraction))


def duration(seconds: float) -> str:
    """Return a duration in words: "40 s", "6 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
