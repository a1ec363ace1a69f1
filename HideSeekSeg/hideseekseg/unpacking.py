"""What others packed, unpacked within limits: zip archives, arrays (``.npz``) and zlib's bytes.

Every archive that the project opens to its files goes through ``unpack``, every one of arrays
through ``read_arrays``: nothing is written but what they may hold, inside.
"""

from __future__ import annotations

import math
import stat
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal

from .errors import InputError
from .files import open_regular
from .plain_data import first_line, shortened

if TYPE_CHECKING:  # numpy takes time to import, which --help does without
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MOST_ARRAYS = 16 << 30  # bytes of arrays once unpacked

_BLOCK = 1 << 20
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{p}{n}" for p in ("COM", "LPT") for n in range(10))}


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may hold: files and folders, and bytes once unpacked."""

    members: int = 5_000
    total_bytes: int = 8 << 30


def unpack(archive: Path, folder: Path, limits: ArchiveLimits = ArchiveLimits()) -> list[Path]:
    """Unpack a zip archive into an empty folder; return the files that were written.

    Names must lie inside the folder (no absolute paths, no "..", no drives); links, encrypted
    members, two members of one name and more than the limits are refused before anything is
    written, and what a member holds is bounded by what it says.  Raises InputError.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check(archive, members, limits)
            return [
                _extract(archive, opened, member, folder)
                for member in members
                if not member.is_dir()
            ]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(archive, f"is a damaged archive: {error}") from error
    except OSError as error:
        raise InputError(archive, f"cannot be unpacked: {error.strerror or error}") from error


def _check(archive: Path, members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    if len(members) > limits.members:
        raise InputError(archive, f"contains {len(members)} members, more than {limits.members}")
    total = sum(member.file_size for member in members)
    if total > limits.total_bytes:
        raise InputError(archive, f"would unpack to {total / 1e9:.1f} GB, which is too much")
    seen: set[str] = set()
    for member in members:
        cause = _fault(member)
        # Upper and lower case are one on Windows and macOS.
        if not cause and member.filename.casefold() in seen:
            cause = "stands in it twice"
        if cause:
            raise InputError(archive, f"is refused: its member {member.filename[:80]!r} {cause}")
        seen.add(member.filename.casefold())


def _fault(member: zipfile.ZipInfo) -> str:
    """Return what is wrong with a member; "" where it may be unpacked."""
    name = member.orig_filename
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        return "lies outside the archive"
    if any(letter in name for letter in '\\:*?"<>|') or any(ord(letter) < 32 for letter in name):
        return "has a name that is not a valid file name on every system"
    if any(
        part.split(".")[0].upper() in _RESERVED or part != part.rstrip(" .") for part in path.parts
    ):
        return "has a name that is not a valid file name on every system"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or no file"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in _PACKINGS:
        return "is compressed in an uncommon way"
    return ""


def _extract(archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> Path:
    target = folder / PurePosixPath(member.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with opened.open(member) as source, target.open("xb") as sink:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise InputError(archive, f"is refused: {member.filename[:80]!r} is too long")
            sink.write(block)
    if left:
        raise InputError(archive, f"is a damaged archive: {member.filename[:80]!r} is too short")
    return target


def read_arrays(
    source: Path | bytes, names: Iterable[str] | None = None, most_bytes: int = MOST_ARRAYS
) -> dict[str, Array]:
    """Return the arrays of a ``.npz`` file, or those of ``names`` that are in it.

    Sizes are checked before anything is unpacked, arrays of Python objects are refused.  Raises
    OSError where the file cannot be read and ValueError, one line, for one that is damaged.
    """
    wanted = None if names is None else set(names)
    with _opened(source) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
        chosen = {n: m for n, m in members.items() if wanted is None or n in wanted}
        if sum(m.file_size for m in chosen.values()) > most_bytes:
            raise ValueError(f"unpacks to more than {most_bytes / 1e9:.1f} GB")
        return {name: _read_array(archive, m) for name, m in chosen.items()}


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays of a ``.npz`` file; raises as ``read_arrays``."""
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, SyntaxError),
    *(NotImplementedError, RuntimeError, TypeError, RecursionError, OverflowError),
)


@contextmanager
def _opened(source: Path | bytes) -> Iterator[zipfile.ZipFile]:
    with open_regular(source) if isinstance(source, Path) else BytesIO(source) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except _DAMAGED as error:
            raise ValueError(f"damaged: {first_line(error)}") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    import numpy as np

    name = ascii(shortened(member.filename))
    with archive.open(member) as stream:
        shape, by_columns, kind = _read_header(stream, name)
        size = math.prod(shape) * kind.itemsize
        if min(shape, default=0) < 0 or size > member.file_size:
            raise ValueError(f"{name} promises more than it contains")
        data = bytearray(size)
        if stream.readinto(data) != size:  # type: ignore[attr-defined]
            raise ValueError(f"{name} is cut short")
        stream.read(1)  # so that the checksum is compared
    if not size:
        return np.zeros(shape, kind)
    order: Literal["F", "C"] = "F" if by_columns else "C"
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    from numpy.lib import format as npy

    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has an unknown version")
    read = npy.read_array_header_1_0
    if version == (2, 0):
        read = npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged headers
        shape, by_columns, kind = read(stream)
    if kind.hasobject:
        raise ValueError(f"{name} contains Python objects, which are not read")
    return shape, by_columns, kind


def decompress(packed: bytes, most_bytes: int) -> bytes:
    """Return what zlib packed, at most ``most_bytes`` of it; raises ValueError, one line."""
    machine = zlib.decompressobj()
    try:
        data = machine.decompress(packed, most_bytes)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if machine.unconsumed_tail:
        raise ValueError(f"unpacks to more than {most_bytes} bytes")
    if not machine.eof:
        raise ValueError("damaged: it ends too early")
    return data
