"""A command of ``hideseekseg`` as a process beside the server, heard line by line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ..events import Event, Progress, from_line
from ..ui.process_tree import Process, interrupt, kill, tree

LIBRARY = Path(__file__).resolve().parents[1]
GRACE_SECONDS = 15.0  # from the wish to stop, through writing the files, to the end by force
LAST_LINES = 20
LONGEST_LINE = 2**24  # bytes: a vertebra with hundreds of candidates is one line


class AsyncioProcess:
    """One run of one command, from ``start`` to exactly one ``on_ended`` (none after ``kill``).

    As ``panel.job.Job``, for a program with an event loop of Python's instead of Qt's: events come
    in order; progress is not told of after ``cancel``; ``on_ended`` gets the exit status, whether
    the process crashed or was killed, and the last lines that it wrote.
    """

    def __init__(
        self,
        words: Sequence[str],
        on_event: Callable[[Event], None],
        on_ended: Callable[[int, bool, str], None],
    ) -> None:
        self.cancelled = False
        self._words = list(words)
        self._on_event, self._on_ended = on_event, on_ended
        self._process: asyncio.subprocess.Process | None = None
        self._asked: list[Process] = []
        self._task: asyncio.Task[None] | None = None
        self._quiet = False
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def start(self) -> None:
        """Returns at once; a process that cannot be started ends with status -1."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Ask the process to stop, and end it with all that it started if it does not.

        A second call ends it at once. Windows has no way to ask.
        """
        again, self.cancelled = self.cancelled, True
        if self._process is None:
            return
        if again or os.name == "nt":
            self._force()
            return
        self._asked = tree(self._process.pid)
        interrupt(self._asked)
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._force)

    def kill(self) -> None:
        """End the process with all that it started; nobody is told any more."""
        self._quiet = self.cancelled = True
        self._force()

    def _force(self) -> None:
        if self._process is not None and self._process.returncode is None:
            kill(self._process.pid, self._asked)

    async def _run(self) -> None:
        code, crashed = -1, True
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", LIBRARY.name, *self._words),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                limit=LONGEST_LINE,
            )
        except OSError as error:
            self._last.append(f"{sys.executable} cannot be started: {error.strerror}")
        else:
            if self.cancelled:
                self._force()
            assert self._process.stdout is not None and self._process.stderr is not None
            out, err = self._process.stdout, self._process.stderr
            await asyncio.gather(self._read(out, self._take), self._read(err, self._keep))
            code = await self._process.wait()
            crashed = code < 0
        self._process = None
        if not self._quiet:
            self._on_ended(code, crashed, "\n".join(self._last))

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
        with contextlib.suppress(ValueError):  # a line longer than any of ours
            async for line in stream:
                take(line)

    def _take(self, line: bytes) -> None:
        """A line of the output: an event, or something that a library printed."""
        event = from_line(line.decode("utf-8", "replace"))
        if event is None:
            self._keep(line)
        elif not (self._quiet or (self.cancelled and isinstance(event, Progress))):
            self._on_event(event)

    def _keep(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._last.append(text)


def _environment() -> dict[str, str]:
    """Ours, and the library where Python finds it; text in UTF-8 whatever the system's habit."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(LIBRARY.parent), *([before] if before else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
