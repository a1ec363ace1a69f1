"""Standard streams that cannot be written, which must not end hours of work.

A terminal goes with the connection that it came by, a file of output fills its disk, and daemons,
schedulers and Windows' programs without a console have no streams at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

NAMES = ("stdin", "stdout", "stderr")


def open_missing_streams() -> None:
    """Give a process without streams such as lead nowhere.

    Else the first files that it opens would take their numbers, and receive what is written to
    standard error.
    """
    for number, name in enumerate(NAMES):
        if getattr(sys, name) is None:
            made = os.open(os.devnull, os.O_RDWR)
            if made > number and not _is_open(number):
                os.dup2(made, number)
                os.close(made)
                made = number
            mode = "r" if name == "stdin" else "w"
            stream = os.fdopen(made, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextmanager
def lasting_streams() -> Iterator[Callable[[], str]]:
    """Let standard output and error outlast what they lead to; yield what says whether they did.

    The function returns why standard output was lost, empty where it was not.  Of lost progress
    nothing is said: there is nobody to read it.  A pipe whose reader has gone ends the program as
    before.
    """
    open_missing_streams()
    before = sys.stdout, sys.stderr
    out, err = (_Lasting(stream) for stream in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield lambda: out.lost
    finally:
        with suppress(BrokenPipeError):
            out.flush()
        sys.stdout, sys.stderr = before


class _Lasting:
    """A text stream whose failures to write are kept in ``lost`` and not raised."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost = ""

    def write(self, text: str) -> int:
        if not self.lost:
            try:
                self._stream.write(text)
            except BrokenPipeError:
                raise
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            try:
                self._stream.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        """Lead the stream nowhere: Python writes what it still holds when the program ends."""
        self.lost = error.strerror or str(error)
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
