"""Write files atomically: complete, or not at all."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

LOCK = ".hideseekseg.lock"


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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others, in this process or another, that ask for the same folder out of it.

    The system lifts the lock when the process ends, however it ends.  Raises InputError where
    another one has it.  A file system without locks is used without.
    """
    path = folder / LOCK
    file = _lock_file(path)
    try:
        yield
    finally:
        if file is not None and os.name != "nt":
            path.unlink(missing_ok=True)  # while it is held: nobody else can have it
        if file is not None:
            os.close(file)
        if file is not None and os.name == "nt":
            with suppress(OSError):  # somebody else has it already
                path.unlink(missing_ok=True)


def _lock_file(path: Path) -> int | None:
    """Return the open and locked file, None where there are no locks."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        try:
            _lock(file)
        except BlockingIOError as error:
            os.close(file)
            cause = "is in use by another run: wait for its end, or choose another folder"
            raise InputError(path.parent, cause) from error
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            return None
        # Whoever held it before may have removed the file that was opened here.
        if os.name == "nt" or (path.exists() and os.path.samestat(os.fstat(file), path.stat())):
            return file
        os.close(file)


def _lock(file: int) -> None:
    """Lock an open file; raises BlockingIOError where another one has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet; raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(path, f"cannot be made: {error.strerror or error}") from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(path, f"cannot be written: {error.strerror or error}")
