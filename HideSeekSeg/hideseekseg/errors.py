"""Errors that a user is told in one line, with the file (or option) at fault and the cause."""

from __future__ import annotations

import os


class InputError(Exception):
    """Bad input or an output that cannot be written: ``str()`` is the line ``<path>: <cause>``."""

    def __init__(self, path: str | os.PathLike[str], cause: str) -> None:
        super().__init__(f"{os.fspath(path)}: {cause}")
        self.path = os.fspath(path)
        self.cause = cause
