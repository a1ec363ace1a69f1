"""Errors that end in one line for the user: the file (or option) at fault, and the cause."""

from __future__ import annotations

import os
from typing import Any

from .plain_data import printable, shortened

MOST_LETTERS = 900  # of a cause, and of a path


class UserError(Exception):
    """Base of all errors that a user can cause and mend: ``str()`` is the line ``<path>: <cause>``.

    ``path`` is the file, folder or option at fault, empty where the cause alone says it.
    """

    def __init__(self, path: str | os.PathLike[str], cause: str) -> None:
        self.path = os.fspath(path)
        # What stands in foreign files is quoted in messages: one line, nothing for a terminal.
        self.cause = shortened(printable(cause), MOST_LETTERS)
        shown = shortened(printable(self.path), MOST_LETTERS)
        super().__init__(f"{shown}: {self.cause}" if self.path else self.cause)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process needs to raise the same error."""
        return _rebuild, (type(self), self.path, self.cause)


class InputError(UserError):
    """Bad input, or an output that cannot be written."""


class TiltedGantryError(InputError):
    """A series whose slices are sheared against each other."""


class NotCTError(UserError):
    """The volume cannot be a CT, or none of its vertebrae can be analysed."""


class SegmentationError(UserError):
    """The segmentation cannot be used with this CT."""


class WeightsError(UserError):
    """Weights that cannot be read or written."""


class ScheduleError(UserError):
    """The weights cannot be run by the schedule that was asked for."""


class DeviceError(UserError):
    """A device that was asked for by name and is not available."""


class DownloadError(UserError):
    """A file that cannot be downloaded or stored."""


class ArchiveError(UserError):
    """An archive that does not answer, or not as asked; ``path`` is its address."""


class NoVoxelsError(UserError):
    """An accepted lesion has no voxels to write; ``path`` names it."""


class SceneError(UserError):
    """The scene lacks what is needed."""

    def __init__(self, cause: str) -> None:
        super().__init__("", cause)


def _rebuild(kind: type[UserError], path: str, cause: str) -> UserError:
    error = kind.__new__(kind)
    UserError.__init__(error, path, cause)
    return error
