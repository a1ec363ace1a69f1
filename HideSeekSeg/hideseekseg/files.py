"""Write files atomically, complete or not at all; open regular files alone; hold folders shortly.

Temporary folders hold patients' images: they go when their owner ends, and those of an owner that
was killed go when the next one starts (``temporary_folder``).
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import InputError, UserError
from .plain_data import first_line

MOST_TEXT = 64 << 20  # bytes of JSON or a table: those of this project have less than 1 MB

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


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file to read its bytes, if it is a regular one (or a link to one).

    A pipe would wait for a writer for ever, and a device has no end: both are an OSError at once.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_bytes(
    path: Path, most_bytes: int = MOST_TEXT, error: type[UserError] = InputError
) -> bytes:
    """Return what a regular file holds; raises ``error`` for another file, or a larger one."""
    try:
        with open_regular(path) as file:
            content = file.read(most_bytes + 1)
    except OSError as cause:
        raise error(path, f"cannot be read: {cause.strerror or cause}") from cause
    except ValueError as cause:
        raise error(str(path).replace("\0", "?"), "is not a possible file name") from cause
    if len(content) > most_bytes:
        raise error(path, f"is larger than {most_bytes / 2**20:.0f} MB: it is no such file")
    return content


def read_text(path: Path, most_bytes: int = MOST_TEXT, error: type[UserError] = InputError) -> str:
    """Return a text file in UTF-8, with or without a byte order mark; raises ``error``."""
    try:
        return read_bytes(path, most_bytes, error).decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(path, "cannot be read: it is no text in UTF-8") from cause


def read_json(
    path: Path,
    most_bytes: int = MOST_TEXT,
    error: type[UserError] = InputError,
    pairs: bool = False,
) -> Any:
    """Return what a JSON file holds; ``pairs`` keeps objects as lists of pairs.  Raises ``error``.

    What it holds is not checked yet: see ``plain_data``.
    """
    try:
        text = read_bytes(path, most_bytes, error).decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=list if pairs else None)
    except (ValueError, RecursionError) as cause:
        raise error(path, f"is not valid JSON: {first_line(cause)}") from cause


def read_object(path: Path, error: type[UserError] = InputError) -> dict[str, Any]:
    """Return what a JSON file that holds an object holds; raises ``error``."""
    data = read_json(path, error=error)
    if not isinstance(data, dict):
        raise error(path, "is not a JSON object")
    return data


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet; raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(path, f"cannot be made: {error.strerror or error}") from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(path, f"cannot be written: {error.strerror or error}")
