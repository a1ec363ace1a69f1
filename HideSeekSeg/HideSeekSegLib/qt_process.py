"""A command of ``hideseekseg`` as a child process, in Qt's event loop: Slicer stays responsive."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, ClassVar

import qt
import slicer
from slicer.i18n import tr as _

from hideseekseg.errors import InputError
from hideseekseg.ui.child_process import (
    LAUNCHER,
    STAND_BY,
    ChildProcess,
    arguments,
    kill,
    library_environment,
)


def findPython() -> str:
    """Return Slicer's Python, which is on its PATH; raise InputError where it is not."""
    found = shutil.which(LAUNCHER)
    if found is None:
        raise InputError(LAUNCHER, _("was not found; reinstall Slicer"))
    return found


class QtProcess(ChildProcess):
    """A child process of Slicer."""

    _process: Any = None
    _timer: Any = None
    _standing_by: ClassVar[tuple[str, Any] | None] = None  # the program, and its process

    @classmethod
    def standBy(cls, program: str = "") -> None:
        """Have a process ready for the next run, unless there is one.

        Nothing is said where it cannot be started: the run that needs it will say so.
        """
        if cls._standing_by is not None:
            return
        try:
            program = program or findPython()
        except InputError:
            return
        cls._standing_by = program, makeProcess()
        cls._standing_by[1].start(program, arguments(STAND_BY))

    @classmethod
    def dismiss(cls) -> None:
        """End the process that stands by, where there is one."""
        if cls._standing_by is None:
            return
        (_program, process), cls._standing_by = cls._standing_by, None
        pid = int(process.processId())
        if pid:
            kill(pid)
            process.waitForFinished(2000)
        process.deleteLater()

    @classmethod
    def _ready(cls, program: str) -> Any:
        """Return the process of a program that stands by, for the caller; None where none does."""
        if cls._standing_by is None or cls._standing_by[0] != program:
            return None
        (_program, process), cls._standing_by = cls._standing_by, None
        process.waitForFinished(0)  # Qt notices now where it has ended just before
        if process.state() == qt.QProcess.NotRunning:
            process.deleteLater()
            return None
        return process

    @property
    def pid(self) -> int:
        return int(self._process.processId()) if self._process is not None else 0

    def _start(self) -> None:
        self._program = self._program or findPython()
        self._begin(self._ready(self._program) if self._gains else None)

    def _begin(self, ready: Any) -> None:
        """Begin the work in a process that stands by, in a new one without it."""
        self._stood_by = ready is not None
        self._process = process = ready or makeProcess()
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("readyReadStandardError()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        if ready is None:
            process.start(self._program, self._arguments())
        else:
            process.write(self._order())
            process.closeWriteChannel()

    def kill(self) -> None:
        """End the process with all that it started, without any further call-back."""
        process = self._process
        super().kill()
        if process is not None:
            process.waitForFinished(2000)  # so that its files can be removed
            self._forget()

    def _call_later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer = qt.QTimer(slicer.app)
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", action)
        self._timer.start(round(1000 * seconds))

    def _read(self) -> None:
        if self._process is not None:
            self._take_output(bytes(self._process.readAllStandardOutput().data()))
        if self._process is not None:  # an event may have ended it
            self._take_errors(bytes(self._process.readAllStandardError().data()))

    def _finished(self, code: int, _status: Any = None) -> None:
        self._read()
        if self._process is not None:
            crashed = self._process.exitStatus() == qt.QProcess.CrashExit
            self._forget()
            if self._ended_unasked(crashed):
                self._begin(None)
            else:
                self._finish(code, crashed)

    def _failed(self, error: Any) -> None:
        """Handle a start that failed; after any other error, ``finished`` follows."""
        if self._process is not None and error == qt.QProcess.FailedToStart:
            reason = self._process.errorString()
            self._forget()
            self._cannot_start(self._program, reason)

    def _forget(self) -> None:
        for thing in (self._timer, self._process):
            if thing is not None:
                thing.deleteLater()
        self._process = self._timer = None


def makeProcess() -> Any:
    """Return a process of Slicer that is not started yet, whose Python finds the library."""
    # With a parent: PythonQt deletes an object without one as soon as Python forgets it, which here
    # may happen inside one of the object's own signals.
    process = qt.QProcess(slicer.app)
    process.setProcessEnvironment(environment())
    return process


def environment() -> Any:
    """Return Slicer's environment with the library where Python finds it."""
    environment = qt.QProcessEnvironment.systemEnvironment()
    for name, value in library_environment(environment.value("PYTHONPATH")).items():
        environment.insert(name, value)
    return environment
