"""Write files atomically: complete, or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a name to write to, next to ``path`` with its suffixes; move it there on success.

    On any failure, Ctrl-C included, nothing is left behind and an older ``path`` is untouched.
    A folder that is missing or write-protected and a full disk raise InputError, the first two
    before anything is computed inside the block.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        temporary.open("xb").close()
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):  # not about this file: not ours to name
            raise
        raise _unwritable(path, error) from error
    except RuntimeError as error:
        if "SimpleITK ImageFileWriter" not in str(error):
            raise
        raise InputError(path, "cannot be written: is the disk full?") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """Yield a folder in ``folder`` to write several files to; move all there on success.

    Every file is complete before the first one replaces an older one; on any failure, Ctrl-C
    included, the older ones are untouched.  Raises InputError naming ``folder``.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".hideseekseg-") as name:
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                file.replace(folder / file.name)
    except InputError as error:
        raise InputError(folder, error.cause) from error
    except OSError as error:
        raise _unwritable(folder, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet; raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(path, f"cannot be made: {error.strerror or error}") from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(path, f"cannot be written: {error.strerror or error}")
