"""Child processes in Python's event loop, beside the server: commands, and what reads files.

A file that crashes the library that reads it ends the process that does so: not the server, with
its review that is not saved yet.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..imaging.reading import ReadingProcess
from ..ui.child_process import ChildProcess, library_environment

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
