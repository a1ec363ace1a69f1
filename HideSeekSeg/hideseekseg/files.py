"""Files: written complete or not at all, read as regular files alone, and folders that are ours.

Temporary folders hold patients' images: they go when their owner ends, and those of an owner that
was killed go when the next one starts (``remove_abandoned``).
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import InputError, UserError
from .plain_data import first_line

MOST_TEXT = 64 << 20  # bytes of JSON or a table: those of this project have less than 1 MB

LOCK = ".hideseekseg.lock"
PREFIX = "hideseekseg-"  # of temporary folders; with a dot before it where people look
_OURS = (PREFIX, f".{PREFIX}")
_UNLOCKED_SECONDS = 24 * 3600.0  # after which nobody holds what has no lock
_held: dict[Path, int | None] = {}


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a name to write to, next to ``path`` with its suffixes; move it there on success.

    On any failure, Ctrl-C included, nothing is left behind and an older ``path`` is untouched.
    A folder that is missing or write-protected and a full disk raise InputError, the first two
    before anything is computed inside the block.
    """
    path = Path(path)
    try:
        temporary, held = _temporary_file(path)
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
        if os.name != "nt":
            os.close(held)


def _temporary_file(path: Path) -> tuple[Path, int]:
    """Make an empty file beside ``path``, and return it with its lock: its writer lives.

    Where somebody who removes what is abandoned was quicker than the lock, another is made.
    """
    while True:
        temporary = path.with_name(f".{PREFIX}{secrets.token_hex(4)}-{path.name}")
        held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if os.name == "nt":  # a file that is open could not be replaced
            os.close(held)
            return temporary, held
        try:
            _lock(held)
        except BlockingIOError:
            os.close(held)
            continue
        except OSError:  # a file system without locks
            return temporary, held
        if temporary.exists():
            return temporary, held
        os.close(held)


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """Yield a folder in ``folder`` to write several files to; move all there on success.

    Every file is complete before the first one replaces an older one; on any failure, Ctrl-C
    included, the older ones are untouched.  Raises InputError naming ``folder``.
    """
    try:
        with temporary_folder(folder, hidden=True) as part:
            yield part
            for file in sorted(part.iterdir()):
                file.replace(folder / file.name)
    except InputError as error:
        raise InputError(folder, error.cause) from error
    except OSError as error:
        raise _unwritable(folder, error) from error


@contextmanager
def temporary_folder(
    parent: Path | None = None, purpose: str = "", hidden: bool = False
) -> Iterator[Path]:
    """Yield an empty folder that nobody else may look into, and remove it at the end.

    What killed processes left beside it is removed first.  Raises InputError.
    """
    try:
        folder = claim_folder(parent, purpose, hidden)
    except OSError as error:
        raise _unwritable(parent or Path(tempfile.gettempdir()), error) from error
    try:
        yield folder
    finally:
        release_folder(folder)


def claim_folder(parent: Path | None = None, purpose: str = "", hidden: bool = False) -> Path:
    """Make a temporary folder that is ours until ``release_folder``, or the end of the process.

    ``parent`` is the system's folder for such, if None.  Raises OSError.
    """
    parent = Path(tempfile.gettempdir() if parent is None else parent)
    remove_abandoned(parent)
    prefix = f"{'.' if hidden else ''}{PREFIX}{purpose}{'-' if purpose else ''}"
    while True:
        outer = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        inner = outer / "files"  # beside the lock, so that it is empty
        inner.mkdir()
        try:
            _held[inner] = _lock_file(outer / LOCK)
        except InputError as error:
            # Somebody who removes what is abandoned was quicker; else it is the disk that is full.
            if outer.exists() and not isinstance(error.__cause__, BlockingIOError):
                shutil.rmtree(outer, ignore_errors=True)
                raise OSError(errno.EBUSY, error.cause, str(outer)) from error
            continue
        return inner


def release_folder(folder: Path) -> None:
    """Remove a temporary folder with all that is in it, and what stands for its owner."""
    outer = folder.parent if folder in _held else folder
    held = _held.pop(folder, None)
    if held is not None and os.name == "nt":  # what is open cannot be removed
        os.close(held)
    shutil.rmtree(outer, ignore_errors=True)
    if held is not None and os.name != "nt":
        os.close(held)


def remove_abandoned(parent: Path | None = None) -> list[Path]:
    """Remove temporary files and folders of ours whose owner was killed; return them.

    The system lifts a lock when its process ends, however it ends: what is locked has an owner,
    and what cannot be locked at all is left alone for a day.
    """
    parent = Path(tempfile.gettempdir() if parent is None else parent)
    removed = []
    with suppress(OSError):
        with os.scandir(parent) as entries:  # the system's folder may hold thousands of others
            names = [one.name for one in entries if one.name.startswith(_OURS)]
        for path in (parent / name for name in sorted(names) if name != LOCK):
            with _nobodys(path) as abandoned:
                if not abandoned:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        path.unlink()
                removed.append(path)
    return removed


@contextmanager
def _nobodys(path: Path) -> Iterator[bool]:
    """Yield whether a file or folder of ours has no owner; while it is so, it cannot get one."""
    try:
        abandoned, file = _unowned(path)
    except OSError:
        abandoned, file = False, None
    if file is not None and os.name == "nt":  # what is open could not be removed
        os.close(file)
        file = None
    try:
        yield abandoned
    finally:
        if file is not None:
            os.close(file)


def _unowned(path: Path) -> tuple[bool, int | None]:
    """Return whether nobody owns a file or folder, and what keeps others from owning it."""
    said = path.lstat()
    if hasattr(os, "getuid") and said.st_uid != os.getuid():
        return False, None
    if not (stat.S_ISDIR(said.st_mode) or stat.S_ISREG(said.st_mode)):
        return False, None
    old = time.time() - said.st_mtime > _UNLOCKED_SECONDS
    lock = path / LOCK if stat.S_ISDIR(said.st_mode) else path
    if (os.name == "nt" and lock is path) or not lock.exists():
        return old, None
    file = os.open(lock, os.O_RDWR)
    return _lockable(file, old), file


def _lockable(file: int, otherwise: bool) -> bool:
    """Lock a file, and return whether that was possible; ``otherwise`` where there are no locks."""
    try:
        _lock(file)
    except BlockingIOError:
        return False
    except OSError:
        return otherwise
    return True


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
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


# What nobody means by a folder, beside what begins with a dot, such as the links by which editors
# mark open files: folders that systems keep on a disk, closed to its users.
_OF_SYSTEMS = ("lost+found", "system volume information", "$recycle.bin")


def files_in(
    folder: Path, deep: bool = True, tell: Callable[[str], None] | None = None
) -> list[Path]:
    """Return the files of ``tree_in``."""
    return tree_in(folder, deep, tell)[0]


def tree_in(
    folder: Path, deep: bool = True, tell: Callable[[str], None] | None = None
) -> tuple[list[Path], list[Path]]:
    """Return the files in a folder and, if ``deep``, in the folders in it, and all these folders.

    Files are sorted, and the first folder is ``folder`` itself.
    Links are followed: a folder that can be reached in several ways is entered once, by its own
    name where it has one in the tree, and none is entered that the tree itself lies in.  A folder
    that cannot be looked into and a link to what is not there raise InputError; with ``tell`` they
    are told, a line each, and left out.  ``folder`` itself must be one, and readable.
    """

    def leave_out(path: Path, cause: str) -> None:
        if path is not folder and _is_hidden(path):
            return
        if path is folder or tell is None:
            raise InputError(path, cause)
        tell(f"{path}: left out, it {cause}")

    files: list[Path] = []
    folders: list[Path] = []
    root = Path(os.path.realpath(folder))
    entered: set[Path] = set()
    own, linked = deque([folder]), deque[Path]()
    while own or linked:
        place = own.popleft() if own else linked.popleft()
        real = Path(os.path.realpath(place))
        if real in entered or (place is not folder and root.is_relative_to(real)):
            continue
        entered.add(real)
        folders.append(place)
        for path, kind, is_link in _entries(place, leave_out):
            if kind == stat.S_IFREG:
                files.append(path)
            elif kind == stat.S_IFDIR and deep:
                (linked if is_link else own).append(path)
    return sorted(files), folders


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _OF_SYSTEMS


def _entries(
    folder: Path, leave_out: Callable[[Path, str], None]
) -> Iterator[tuple[Path, int, bool]]:
    """Yield what a folder holds: path, type (``stat.S_IFREG``, ...) and whether it is a link."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        leave_out(folder, f"cannot be looked into: {error.strerror or error}")
        return
    for entry in entries:
        path = folder / entry.name
        try:
            if entry.is_symlink():
                yield path, stat.S_IFMT(entry.stat().st_mode), True
            elif entry.is_dir():
                yield path, stat.S_IFDIR, False
            elif entry.is_file():
                yield path, stat.S_IFREG, False
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            cause = f"cannot be looked at: {error.strerror or error}"
            leave_out(path, "is a link to what is not there" if missing else cause)


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
        raise error(
            path, f"is larger than {most_bytes / 2**20:.0f} MB, too large for a file of this kind"
        )
    return content


def read_text(path: Path, most_bytes: int = MOST_TEXT, error: type[UserError] = InputError) -> str:
    """Return a text file in UTF-8, with or without a byte order mark; raises ``error``."""
    try:
        return read_bytes(path, most_bytes, error).decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(path, "cannot be read: it is not UTF-8 text") from cause


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


def read_object(
    path: Path, error: type[UserError] = InputError, most_bytes: int = MOST_TEXT
) -> dict[str, Any]:
    """Return what a JSON file that holds an object holds; raises ``error``."""
    data = read_json(path, most_bytes, error)
    if not isinstance(data, dict):
        raise error(path, "is not a JSON object")
    return data


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet; raises InputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(path, f"cannot be made: {error.strerror or error}") from error
    remove_abandoned(path)


def require_apart(out: Path, inputs: Iterable[Path], within: bool = False) -> None:
    """Raise InputError where a folder to write to is one of ``inputs``, links followed.

    With ``within`` also where it lies in one of them, all of whose files are read.
    """
    real = Path(os.path.realpath(out))
    for path in inputs:
        place = Path(os.path.realpath(path))
        if place == real or (within and place in real.parents):
            where = "is read from" if place == real else "lies in what is read"
            raise InputError(out, f"{where}, {path}: choose another folder for the output")


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(path, f"cannot be written: {error.strerror or error}")
