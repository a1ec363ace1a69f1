"""Child processes in Python's event loop, beside the server: commands, and what reads files.

A file that crashes the library that reads it ends the process that does so: not the server, with
its review that is not saved yet.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError, UserError
from ..ui.child_process import ChildProcess, library_environment

_CHUNK = 2**16  # bytes
T = TypeVar("T")


async def read_apart(path: Path, read: Callable[..., T], *values: Any) -> T:
    """Return what ``read(path, *values)`` returns in a process of its own.

    ``read`` and all that it takes and returns must be such as pickle carries.  Raises UserError
    where ``read`` does, and InputError where it crashes.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, read, path, *values), daemon=True)
    try:
        process.start()
        there.close()
        answer = await asyncio.to_thread(_receive, here)
        await asyncio.to_thread(process.join, 5.0)  # how it ended is known then
    finally:
        process.kill()  # this call was cancelled: nobody waits for the answer
    if isinstance(answer, UserError):
        raise answer
    if answer is None:
        raise InputError(path, f"cannot be read: {_how(process.exitcode or 0)}")
    return answer[0]


def _answer(there: Connection, read: Callable[..., Any], path: Path, *values: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    try:
        answer: Any = (read(path, *values),)
    except UserError as error:
        answer = error
    except MemoryError:
        answer = InputError(path, "does not fit into memory")
    there.send(answer)
    there.close()


def _receive(here: Connection) -> Any:
    try:
        return here.recv()
    except (EOFError, OSError):
        return None


def _how(code: int) -> str:
    if code == -9:
        return "the process that read it was killed, perhaps for want of memory"
    return f"it crashed the process that read it (status {code}), so it must be damaged"


class AsyncioProcess(ChildProcess):
    """A child process of the server."""

    _process: asyncio.subprocess.Process | None = None
    _task: asyncio.Task[None] | None = None

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
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *(program, *self._arguments()),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **library_environment(os.environ.get("PYTHONPATH", ""))},
            )
        except OSError as error:
            self._cannot_start(program, error.strerror or str(error))
            return
        if self.cancelled:  # before there was a process
            self._force()
        assert process.stdout is not None and process.stderr is not None
        await asyncio.gather(
            self._read(process.stdout, self._take_output),
            self._read(process.stderr, self._take_errors),
        )
        code = await process.wait()
        self._finish(code, code < 0)

    @staticmethod
    async def _read(stream: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
        while data := await stream.read(_CHUNK):
            take(data)
