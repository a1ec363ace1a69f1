"""A command of ``hideseekseg`` as a process of its own, beside Slicer.

Slicer stays free, and what the command says comes back while it runs.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import qt
from slicer.i18n import tr as _

import hideseekseg
from hideseekseg.errors import InputError
from hideseekseg.events import Event, Progress, from_line
from hideseekseg.ui.process_tree import Process, interrupt, kill, tree

LIBRARY = Path(hideseekseg.__file__).resolve().parent
LAUNCHER = "PythonSlicer"  # starts the real Python as a child of its own
GRACE_MS = 15_000  # from the wish to stop, through writing the files, to the end by force
LAST_LINES = 20

OnEvent = Callable[[Event], None]
OnEnded = Callable[[int, bool, str], None]
OnLine = Callable[[str], None]


def findPython() -> str:
    """Slicer's Python, which is on its PATH; InputError where it is not."""
    found = shutil.which(LAUNCHER)
    if found is None:
        raise InputError(LAUNCHER, _("was not found; reinstall Slicer"))
    return found


class QtProcess:
    """One run of one command, from ``start`` to exactly one ``onEnded`` (none after ``kill``).

    ``onEvent`` gets the events in order, ``onLine`` every other line. A finished vertebra is told
    of also after ``cancel``, as long as the process lives; progress is not. ``onEnded`` gets the
    exit status, whether the process crashed or was killed, and the last lines that it wrote.
    Only one job runs at a time.
    """

    running_job: ClassVar[QtProcess | None] = None

    def __init__(
        self,
        words: Sequence[str],
        onEvent: OnEvent,
        onEnded: OnEnded,
        onLine: OnLine | None = None,
        program: str = "",
    ) -> None:
        self.cancelled = False
        self._words, self._program = list(words), program
        self._onEvent, self._onEnded, self._onLine = onEvent, onEnded, onLine
        self._process: Any = None
        self._timer: Any = None
        self._asked: list[Process] = []
        self._quiet = False
        self._out = self._err = b""
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Raises InputError where Slicer's Python is missing or another job is running."""
        if QtProcess.running_job is not None:
            raise InputError("", _("another computation is running; wait for it or cancel it"))
        self._program = self._program or findPython()
        process = qt.QProcess()
        process.setProcessEnvironment(environment())
        process.connect("readyReadStandardOutput()", self._readOutput)
        process.connect("readyReadStandardError()", self._readErrors)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process, QtProcess.running_job = process, self
        process.start(self._program, ["-m", LIBRARY.name, *self._words])

    def cancel(self) -> None:
        """Ask the process to stop, and end it with all that it started if it does not.

        A second call ends it at once. Windows has no way to ask.
        """
        if not self.running:
            return
        again, self.cancelled = self.cancelled, True
        if again or os.name == "nt":
            self._force()
            return
        self._asked = tree(self._process.processId())
        launched = Path(self._program).stem == LAUNCHER and len(self._asked) > 1
        interrupt(self._asked[1:] if launched else self._asked)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._force)
        self._timer.start(GRACE_MS)

    def kill(self) -> None:
        """End the process with all that it started; nobody is told any more."""
        if not self.running:
            return
        self._quiet = self.cancelled = True
        process = self._process
        self._force()
        process.waitForFinished(2000)  # so that its files can be removed
        if self.running:
            self._forget()

    def _force(self) -> None:
        if self.running and self._process.processId():
            kill(self._process.processId(), self._asked)

    def _readOutput(self) -> None:
        if self.running:
            self._out += bytes(self._process.readAllStandardOutput().data())
            *lines, self._out = self._out.split(b"\n")
            for line in lines:
                self._take(line)

    def _readErrors(self) -> None:
        if self.running:
            self._err += bytes(self._process.readAllStandardError().data())
            *lines, self._err = self._err.replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                self._keep(line)

    def _take(self, line: bytes) -> None:
        """A line of the output: an event, or something that a library printed."""
        event = from_line(line.decode("utf-8", "replace"))
        if event is None:
            self._keep(line)
        elif not (self._quiet or (self.cancelled and isinstance(event, Progress))):
            self._onEvent(event)

    def _keep(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._last.append(text)
            if self._onLine is not None and not self._quiet:
                self._onLine(text)

    def _finished(self, code: int, _status: Any = None) -> None:
        if not self.running:
            return
        self._readOutput()
        self._readErrors()
        self._take(self._out)
        self._keep(self._err)
        crashed = self._process.exitStatus() == qt.QProcess.CrashExit
        self._end(code, crashed)

    def _failed(self, error: Any) -> None:
        """Only where it never started does nothing else follow."""
        if self.running and error == qt.QProcess.FailedToStart:
            text = _("{program} cannot be started: {reason}")
            reason = self._process.errorString()
            self._last.append(text.format(program=self._program, reason=reason))
            self._end(-1, True)

    def _end(self, code: int, crashed: bool) -> None:
        self._forget()
        if not self._quiet:
            self._onEnded(code, crashed, "\n".join(self._last))

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._process.deleteLater()
        self._process = self._timer = QtProcess.running_job = None


def environment() -> Any:
    """Ours, and the library where Python finds it; text in UTF-8 whatever the system's habit."""
    environment = qt.QProcessEnvironment.systemEnvironment()
    before = environment.value("PYTHONPATH")
    paths = [str(LIBRARY.parent), *([before] if before else [])]
    environment.insert("PYTHONPATH", os.pathsep.join(paths))
    environment.insert("PYTHONUTF8", "1")
    return environment
