"""A folder for the files of a run, where Slicer keeps what is temporary."""

from __future__ import annotations

import tempfile
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from hideseekseg.imaging.reading import InputError


def temporaryFolder() -> Path:
    """An empty folder of its own; raises InputError where Slicer's temporary folder is no use."""
    parent = slicer.app.temporaryPath
    try:
        return Path(tempfile.mkdtemp(prefix="hideseekseg-", dir=parent))
    except OSError as error:
        raise InputError(
            parent,
            _(
                "the temporary folder cannot be written ({reason}); choose another one in"
                " Edit > Application Settings > Modules"
            ).format(reason=error.strerror),
        ) from error
