"""A command of ``hideseekseg`` as a child process: its lines, its cancellation, its environment.

``ChildProcess`` knows no event loop: ``HideSeekSegLib.qt_process`` and ``AsyncioProcess`` start the
process and pass on what it writes.  Slicer's Python is a launcher that starts the real Python: who
ends only the process it started leaves the real one computing, so all of them are ended.

To load torch takes longer than to read the inputs: both can have a process stand by that has done
so before the reader asks for a run (``stand_by``).

A file that crashes the library that reads it ends the process that does so (``read_apart``): not
the browser app's server, with its review that is not saved yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..errors import InputError
from ..events import Event, Progress, from_line
from ..imaging.reading import ReadingProcess
from .texts import _

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """``born`` tells it from a later process that got the same number."""

    pid: int
    parent: int
    born: str


def tree(root: int) -> list[Process]:
    """Return a process and all that it started, eldest first; empty where it has ended."""
    everyone = _everyone()
    found = [process for process in everyone if process.pid == root]
    for process in found:  # grows while it is read
        found += [other for other in everyone if other.parent == process.pid]
    return found


def interrupt(processes: Iterable[Process]) -> None:
    """Ask to stop, as Ctrl-C does (POSIX)."""
    _signal(processes, signal.SIGINT)


def kill(root: int, known: Iterable[Process] = ()) -> None:
    """End a process and all that it started at once, those of ``known`` as well."""
    if os.name == "nt":
        hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        subprocess.run(kill_words(root), capture_output=True, creationflags=hidden, check=False)
    else:
        _signal([*tree(root), *known], signal.SIGKILL)


def kill_words(root: int) -> list[str]:
    """Return the command that ends a process tree on Windows."""
    return ["taskkill", "/F", "/T", "/PID", str(root)]


def _signal(processes: Iterable[Process], number: int) -> None:
    alive = set(_everyone())
    for process in processes:
        # A parent may have ended meanwhile: then its child has another one.
        if any(other.pid == process.pid and other.born == process.born for other in alive):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _everyone() -> list[Process]:
    return from_proc() if (PROC / "self" / "stat").exists() else from_ps()


def from_proc() -> list[Process]:
    """All processes, from Linux's files."""
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile
                # The name stands in brackets and may hold anything.
                words = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if words[0] != "Z":
                    found.append(Process(int(folder.name), int(words[1]), words[19]))
    return found


def from_ps() -> list[Process]:
    """All processes, from the program ``ps`` of macOS and others."""
    words = ["ps", "-A", "-o", "pid=,ppid=,stat=,lstart="]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    return [
        Process(int(line[0]), int(line[1]), line[3])
        for line in lines
        if len(line) == 4 and not line[2].startswith("Z")
    ]


LIBRARY = Path(__file__).resolve().parents[1]
LAUNCHER = "PythonSlicer"  # starts the real Python as a child of its own
# Between a request to stop, which still writes the files, and the end by force.
GRACE_SECONDS = 15.0
LAST_LINES = 20
STAND_BY = "stand-by"  # the subcommand that waits for another one
GAIN = frozenset({"segment"})  # subcommands that need what it has loaded

OnEvent = Callable[[Event], None]
OnEnded = Callable[[int, bool, str], None]
OnLine = Callable[[str], None]


class ChildProcess(ABC):
    """One run of one command, from ``start`` to exactly one ``on_ended`` (none after ``kill``).

    ``on_event`` receives the events in order, ``on_line`` every other line. Finished vertebrae are
    still reported after ``cancel``, as long as the process lives; progress is not. ``on_ended``
    receives the exit status, whether the process crashed or was killed, and its last lines. Only
    one runs at a time.
    """

    current: ClassVar[ChildProcess | None] = None

    def __init__(
        self,
        words: Sequence[str],
        on_event: OnEvent,
        on_ended: OnEnded,
        on_line: OnLine | None = None,
        program: str = "",
    ) -> None:
        self.cancelled = False
        self._words, self._program = list(words), program
        self._on_event, self._on_ended, self._on_line = on_event, on_ended, on_line
        self._out, self._err = _Lines(), _Lines()
        self._asked: list[Process] = []
        self._quiet = self._stood_by = self._heard = False
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def running(self) -> bool:
        """Return whether the end of the process is still to come."""
        return ChildProcess.current is self

    @property
    @abstractmethod
    def pid(self) -> int:
        """Process number, 0 while no process is running."""

    def start(self) -> None:
        """Start and return at once; a program that cannot be started ends with status -1.

        Raises InputError where another one is running, or there is no program to start.
        """
        if ChildProcess.current is not None:
            raise InputError("", _("another computation is running; wait for it or cancel it"))
        self._start()
        ChildProcess.current = self

    @abstractmethod
    def _start(self) -> None:
        """Start the process; raise InputError where there is no program to start."""

    @abstractmethod
    def _call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` once after so many seconds, from the event loop."""

    def cancel(self) -> None:
        """Ask the process to stop, and after a grace period end it with all that it started.

        A second call ends it at once. Windows has no way to ask.
        """
        again, self.cancelled = self.cancelled, True
        if not self.pid:
            return
        if again or os.name == "nt":
            self._force()
            return
        self._asked = tree(self.pid)
        launched = Path(self._program).stem == LAUNCHER and len(self._asked) > 1
        interrupt(self._asked[1:] if launched else self._asked)
        self._call_later(GRACE_SECONDS, self._force)

    def kill(self) -> None:
        """End the process with all that it started, without any further call-back."""
        self._quiet = self.cancelled = True
        self._force()
        self._release()

    def _arguments(self) -> list[str]:
        """Return what follows the name of the program."""
        return arguments(*self._words)

    @property
    def _gains(self) -> bool:
        """Return whether a process that stands by would be quicker."""
        return not GAIN.isdisjoint(self._words[:1])

    def _order(self) -> bytes:
        """Return the line that tells a process that stands by what to do."""
        return json.dumps(self._words).encode() + b"\n"

    def _ended_unasked(self, crashed: bool) -> bool:
        """Return whether a process that stood by had ended before it was asked, which shows late.

        Another one is to be started then: the run is not lost.
        """
        return crashed and self._stood_by and not (self._heard or self.cancelled)

    def _force(self) -> None:
        if self.pid:
            kill(self.pid, self._asked)

    def _take_output(self, data: bytes) -> None:
        """Pass on the complete lines of the standard output: events, or prints of a library."""
        self._heard = self._heard or bool(data)
        for line in self._out.feed(data):
            event = from_line(line)
            if event is None:
                self._keep(line)
            elif not (self._quiet or (self.cancelled and isinstance(event, Progress))):
                self._on_event(event)

    def _take_errors(self, data: bytes) -> None:
        """Keep the complete lines of the standard error; progress bars end theirs with CR."""
        self._heard = self._heard or bool(data)
        for line in self._err.feed(data.replace(b"\r", b"\n")):
            self._keep(line)

    def _keep(self, line: str) -> None:
        text = line.rstrip()
        if text:
            self._last.append(text)
            if self._on_line is not None and not self._quiet:
                self._on_line(text)

    def _cannot_start(self, program: str, reason: str) -> None:
        text = _("{program} cannot be started: {reason}")
        self._last.append(text.format(program=program, reason=reason))
        self._finish(-1, True)

    def _release(self) -> None:
        if self.running:
            ChildProcess.current = None

    def _finish(self, code: int, crashed: bool) -> None:
        """Handle the end of the process; what it wrote without a line break counts as a line."""
        self._take_output(b"\n")
        self._take_errors(b"\n")
        self._release()
        if not self._quiet:
            self._on_ended(code, crashed, "\n".join(self._last))


def arguments(*words: str) -> list[str]:
    """Return what follows the name of Python to run a command of this library."""
    return ["-m", LIBRARY.name, *words]


class _Lines:
    """Bytes as they come, cut into lines of text; bytes that are not UTF-8 are replaced."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def library_environment(python_path: str) -> dict[str, str]:
    """Return the variables that let any Python find this library and write UTF-8.

    ``python_path`` is the PYTHONPATH there is, which stays in force behind the library.
    """
    paths = [str(LIBRARY.parent), *([python_path] if python_path else [])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}


_CHUNK = 2**16  # bytes
T = TypeVar("T")


async def read_apart(path: Path, read: Callable[..., T], *values: Any) -> T:
    """Return what ``read(path, *values)`` returns in a process of its own.

    See ``ReadingProcess``; the process ends with the task that waits for it.
    """
    reading = ReadingProcess(path, read, *values)
    try:
        return await asyncio.to_thread(reading.result)
    finally:
        reading.end()


class AsyncioProcess(ChildProcess):
    """A child process of the server."""

    _process: asyncio.subprocess.Process | None = None
    _task: asyncio.Task[None] | None = None
    _standing_by: ClassVar[asyncio.Task[asyncio.subprocess.Process] | None] = None

    @classmethod
    def stand_by(cls) -> None:
        """Have a process ready for the next run, unless there is one; to be called in the loop."""
        if cls._standing_by is None:
            made = _python(sys.executable, arguments(STAND_BY))
            cls._standing_by = asyncio.get_running_loop().create_task(made)

    @classmethod
    async def dismiss(cls) -> None:
        """End the process that stands by, where there is one."""
        process = await cls._ready()
        if process is not None:
            kill(process.pid)
            await process.communicate()

    @classmethod
    async def _ready(cls) -> asyncio.subprocess.Process | None:
        """Return the process that stands by, for the caller; None where none does, or it ended."""
        made, cls._standing_by = cls._standing_by, None
        try:
            process = await made if made is not None else None
        except OSError:
            return None
        return process if process is not None and process.returncode is None else None

    @property
    def pid(self) -> int:
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else 0

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def _call_later(self, seconds: float, action: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, action)

    async def _run(self) -> None:
        program = self._program or sys.executable
        own = self._gains and program == sys.executable
        ready = await self._ready() if own else None
        if ready is not None:
            self._stood_by = True
            code = await self._follow(ready, self._order())
            if not self._ended_unasked(code < 0):
                self._finish(code, code < 0)
                return
        try:
            process = await _python(program, self._arguments())
        except OSError as error:
            self._cannot_start(program, error.strerror or str(error))
            return
        code = await self._follow(process)
        self._finish(code, code < 0)

    async def _follow(self, process: asyncio.subprocess.Process, order: bytes = b"") -> int:
        """Pass on what a process says until it ends; return its exit status."""
        self._process = process
        if self.cancelled:  # before there was a process
            self._force()
        assert process.stdin is not None
        assert process.stdout is not None and process.stderr is not None
        process.stdin.write(order)
        process.stdin.close()
        await asyncio.gather(
            self._read(process.stdout, self._take_output),
            self._read(process.stderr, self._take_errors),
        )
        return await process.wait()

    @staticmethod
    async def _read(stream: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
        while data := await stream.read(_CHUNK):
            take(data)


async def _python(program: str, words: Sequence[str]) -> asyncio.subprocess.Process:
    """Start a Python that finds this library; raises OSError where it cannot be started."""
    return await asyncio.create_subprocess_exec(
        *(program, *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **library_environment(os.environ.get("PYTHONPATH", ""))},
    )
