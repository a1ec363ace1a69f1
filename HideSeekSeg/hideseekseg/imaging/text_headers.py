"""Check the text headers of NRRD and MetaImage files before ITK sees them.

ITK trusts these headers: a damaged one can end the process, a hostile one opens files elsewhere,
and units other than millimetres are ignored without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import InputError
from ..files import open_regular

MAX_HEADER = 1 << 24
# Neither gzip nor zlib packs tighter than 1 to 1032.
MAX_RATIO = 1040
MAX_NUMBER = 1e7  # mm: no position or size in a patient comes near

UNSTATED = "the file states no orientation: results stand in its own frame"

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")

_NRRD_BYTES = {
    1: "signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t",
    2: "short,short int,signed short,signed short int,int16,int16_t,ushort,unsigned short,"
    "unsigned short int,uint16,uint16_t",
    4: "int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,float",
    8: "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t,"
    "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t,double",
}
NRRD_TYPES = {name: size for size, names in _NRRD_BYTES.items() for name in names.split(",")}
NRRD_ENCODINGS = ("raw", "gzip", "gz", "txt", "text", "ascii", "hex")
# Spaces whose axes are those of the patient; the others are only some right-handed frame.
NRRD_SPACES = (
    *("right-anterior-superior", "left-anterior-superior", "left-posterior-superior"),
    *("ras", "las", "lps"),
)
NRRD_FIELDS = frozenset(
    [
        *("content", "number", "type", "block size", "dimension", "space", "space dimension"),
        *("sizes", "spacings", "thicknesses", "axis mins", "axis maxs", "centers", "labels"),
        *("units", "kinds", "min", "max", "old min", "old max", "endian", "encoding", "line skip"),
        *("byte skip", "sample units", "space units", "space origin", "measurement frame"),
        *("space directions", "data file"),
    ]
)
# The same fields as older writers spell them.
NRRD_SPELLINGS = {name.replace(" ", ""): name for name in NRRD_FIELDS} | {"centerings": "centers"}
MAX_FIELD = 1000  # letters of a field: beyond, ITK's reader writes past the end of its own memory
META_TYPES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
_AXES_OF_META = ("TransformMatrix", "Orientation", "Rotation")


class HeaderError(ValueError):
    """What is wrong with a header, in words that follow the file's name."""


@dataclass(frozen=True)
class _Content:
    """What a header promises: ``count`` values of ``size`` bytes, after ``start`` bytes of file.

    ``files`` are the data files that it names, empty where the values follow the header.
    """

    count: int
    size: int
    encoding: str
    start: int
    files: tuple[str, ...]


def is_text_header(path: Path) -> bool:
    """Return whether the name is that of a NRRD or MetaImage file."""
    return path.name.lower().endswith(NRRD_SUFFIXES + META_SUFFIXES)


def check_text_header(path: Path) -> tuple[str, ...]:
    """Remarks for the reader on a NRRD or MetaImage file that may be given to ITK.

    Raises InputError for a header that is damaged, that names a data file outside its own folder
    or an encoding or unit that cannot be read, and for one that promises more than the file holds.
    """
    try:
        with open_regular(path) as stream:
            head = stream.read(MAX_HEADER)
    except OSError as error:
        raise InputError(path, f"cannot be opened: {error.strerror}") from error
    check = _check_nrrd if path.name.lower().endswith(NRRD_SUFFIXES) else _check_meta
    try:
        notes, content = check(head)
        _check_content(path, content)
        if content.encoding == "text" and not content.files:
            _check_text(head[content.start :], content.count)
    except HeaderError as error:
        raise InputError(path, str(error)) from error
    return notes


def data_files(path: Path) -> list[Path]:
    """Return the files beside a text header that hold its values, none where it holds them itself.

    None, either, where the header is damaged: who reads it will say so.
    """
    check = _check_nrrd if path.name.lower().endswith(NRRD_SUFFIXES) else _check_meta
    try:
        with open_regular(path) as stream:
            _, content = check(stream.read(MAX_HEADER))
    except (HeaderError, OSError):
        return []
    return [path.parent / name for name in content.files]


def _check_content(path: Path, content: _Content) -> None:
    """Refuse a file with less than its header promises; packed data have an upper bound only."""
    for name in content.files:
        _check_name(path, name)
    there = sum((path.parent / name).stat().st_size for name in content.files)
    if not content.files:
        there = path.stat().st_size - content.start
    least = content.count * content.size
    if content.encoding == "packed":
        least = least // MAX_RATIO
    elif content.encoding == "text":
        least = content.count
    if there < least:
        raise HeaderError(
            "is truncated or damaged: "
            f"its header promises {content.count * content.size} bytes of voxels"
        )


def _check_text(data: bytes, count: int) -> None:
    """ITK's readers of numbers in plain text run past their memory where these are none."""
    words = data.split(maxsplit=count)[:count]
    if any(len(word) > 40 or not re.fullmatch(rb"[-+.,\w]*", word) for word in words):
        raise HeaderError("is damaged: its voxels are not numbers in plain text")


def _check_name(path: Path, name: str) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    inside = not (posix.is_absolute() or windows.is_absolute() or windows.drive)
    if not inside or ".." in windows.parts or "\0" in name:
        raise HeaderError("names a data file outside its own folder, which is not opened")
    file = path.parent / name
    if not file.is_file():
        raise HeaderError("cannot be read: its data file is missing or truncated")
    if path.parent.resolve() not in file.resolve().parents:
        raise HeaderError("names a data file outside its own folder, which is not opened")


def _check_nrrd(head: bytes) -> tuple[tuple[str, ...], _Content]:
    if not re.match(rb"NRRD000[1-6]\r?\n", head):
        raise HeaderError("is not a NRRD file, or its first line is damaged")
    text, separator, _ = _split(head)
    lines = text.decode("latin-1").replace("\r", "").split("\n")
    if not separator and "data file" not in text.decode("latin-1").lower():
        raise HeaderError("is truncated: its header does not end")
    fields, listed = _nrrd_fields(lines[1:])
    dimension = _whole(fields, "dimension", 1, 16)
    sizes = _numbers(fields, "sizes", dimension)
    if any(n < 1 or n != int(n) for n in sizes):
        raise HeaderError(f"has an impossible size: {_shown(fields['sizes'])}")
    kind, encoding = _nrrd_coding(fields)
    _check_optional_nrrd(fields, dimension)
    packing = {"gzip": "packed", "gz": "packed", "raw": "raw"}.get(encoding, "text")
    start = len(text) + len(separator)
    count = math.prod(int(n) for n in sizes)
    content = _Content(count, NRRD_TYPES[kind], packing, start, _nrrd_files(fields, listed))
    return _nrrd_geometry(fields, dimension), content


def _nrrd_coding(fields: Mapping[str, str]) -> tuple[str, str]:
    """Return type and encoding of the voxels."""
    kind = fields.get("type", "").lower()
    if kind not in NRRD_TYPES:
        raise HeaderError(
            f"has voxels of a type that cannot be read: {_shown(kind) or 'none given'}"
        )
    encoding = fields.get("encoding", "").lower()
    if encoding in ("bzip2", "bz2"):
        raise HeaderError("is compressed by bzip2; save it with gzip or without compression")
    if encoding not in NRRD_ENCODINGS:
        raise HeaderError(
            f"has an encoding that cannot be read: {_shown(encoding) or 'none given'}"
        )
    return kind, encoding


def _check_optional_nrrd(fields: Mapping[str, str], dimension: int) -> None:
    """Check the fields that a header may have besides."""
    for name in ("line skip", "byte skip"):
        if name in fields:
            _whole(fields, name, -1 if name == "byte skip" else 0, 1 << 40)
    for name in ("thicknesses", "axis mins", "axis maxs"):
        if name in fields:
            _numbers(fields, name, dimension, nan=True)
    for name in ("kinds", "centers"):
        if name in fields and len(fields[name].split()) != dimension:
            raise HeaderError(f"has a damaged header: {name} is {_shown(fields[name])}")
    if fields.get("endian", "little").lower() not in ("little", "big"):
        raise HeaderError(f"has a damaged header: endian is {_shown(fields['endian'])}")


def _split(head: bytes) -> tuple[bytes, bytes, bytes]:
    """Return a NRRD header, the empty line that ends it, and what follows."""
    found = re.search(rb"\r?\n\r?\n", head)
    if found is None:
        return head, b"", b""
    return head[: found.start()], found.group(), head[found.end() :]


def _nrrd_fields(lines: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Fields by lower-case name, and the lines after ``data file: LIST``."""
    fields: dict[str, str] = {}
    for n, line in enumerate(lines):
        is_pair = ":=" in line.split(": ", 1)[0]  # keys of the program that wrote the file
        if not line or line.startswith("#") or is_pair:
            continue
        name, separator, value = line.partition(":")
        if not separator:
            raise HeaderError(f"has a damaged header line: {_shown(line)}")
        name = name.strip().lower()
        name = NRRD_SPELLINGS.get(name, name)
        if name not in NRRD_FIELDS:
            raise HeaderError(f"has an unknown header field: {_shown(name)}")
        if len(line) > MAX_FIELD:
            raise HeaderError(f"has a damaged header line: {_shown(line)}")
        if name in fields:
            raise HeaderError(f"has the header field {_shown(name)!r} twice")
        fields[name] = value.strip()
        if name == "data file" and fields[name].upper().startswith("LIST"):
            return fields, [line.strip() for line in lines[n + 1 :] if line.strip()]
    return fields, []


def _nrrd_files(fields: Mapping[str, str], listed: Sequence[str]) -> tuple[str, ...]:
    name = fields.get("data file", "")
    if not name or name.upper().startswith("LIST"):
        return tuple(listed)
    pattern = re.fullmatch(r"(\S*%0?\d*d\S*)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(?:\s+\d+)?", name)
    if pattern is None:
        return (name,)
    first, last, step = (int(n) for n in pattern.groups()[1:])
    if step == 0 or abs((last - first) // step) > 100_000:
        raise HeaderError("has a damaged header line: data file")
    numbers = range(first, last + (1 if step > 0 else -1), step)
    return tuple(pattern[1] % n for n in numbers)


def _nrrd_geometry(fields: Mapping[str, str], dimension: int) -> tuple[str, ...]:
    """Return remarks on where the voxels lie, whose numbers ITK does not check."""
    _check_nrrd_spacings(fields, dimension)
    if "space dimension" in fields:
        _whole(fields, "space dimension", 1, 4)
    vectors = _vectors(fields.get("space directions", ""))
    if "space directions" in fields and len(vectors) != dimension:
        raise HeaderError(f"has {len(vectors)} space directions for {dimension} axes")
    lengths = {len(vector) for vector in vectors if vector}
    if len(lengths) > 1 or any(n > 4 for n in lengths):
        raise HeaderError("has damaged space directions")
    if "space origin" in fields:
        origin = _vectors(fields["space origin"])
        if len(origin) != 1 or (lengths and {len(origin[0])} != lengths):
            raise HeaderError("has a damaged space origin")
    stated = vectors and fields.get("space", "").lower().replace("_", "-") in NRRD_SPACES
    return () if stated else (UNSTATED,)


def _check_nrrd_spacings(fields: Mapping[str, str], dimension: int) -> None:
    """Check units, which ITK ignores, and voxel sizes, which it does not check."""
    for name in ("space units", "units"):
        for unit in re.findall(r'"([^"]*)"', fields.get(name, "")):
            if unit.lower() not in ("mm", "millimeter", "millimetre", "millimeters", "", "none"):
                raise HeaderError(
                    f"gives its sizes in {_shown(unit)} ({name}); millimetres are needed"
                )
    if "spacings" in fields:
        spacings = _numbers(fields, "spacings", dimension, nan=True)
        if any(not math.isnan(s) and not 0 < abs(s) < MAX_NUMBER for s in spacings):
            raise HeaderError(f"has an impossible voxel size: {_shown(fields['spacings'])}")


def _vectors(text: str) -> list[tuple[float, ...]]:
    """Vectors ``(x,y,z)`` of a NRRD field; ``none`` is the empty one."""
    found: list[tuple[float, ...]] = []
    for word in re.findall(r"\([^()]*\)|none|\S+", text.replace("(none)", "none")):
        if word == "none":
            found.append(())
            continue
        try:
            vector = tuple(float(part) for part in word.strip("()").split(","))
        except ValueError:
            raise HeaderError(f"has a damaged header line: {_shown(text)}") from None
        if not all(abs(x) < MAX_NUMBER for x in vector):
            raise HeaderError(f"has an impossible voxel size or position: {_shown(text)}")
        found.append(vector)
    return found


def _check_meta(head: bytes) -> tuple[tuple[str, ...], _Content]:
    fields, at = _meta_fields(head)
    if fields.get("ObjectType", "Image") != "Image":
        raise HeaderError("is not an image but another MetaIO object")
    n = _whole(fields, "NDims", 1, 10)
    sizes = _numbers(fields, "DimSize", n)
    if any(s < 1 or s != int(s) for s in sizes):
        raise HeaderError(f"has an impossible size: {_shown(fields['DimSize'])}")
    kind = fields.get("ElementType", "")
    if kind.removesuffix("_ARRAY") not in META_TYPES:
        raise HeaderError(f"has voxels of a type that cannot be read: {_shown(kind) or 'none'}")
    channels = 1
    if "ElementNumberOfChannels" in fields:
        channels = _whole(fields, "ElementNumberOfChannels", 1, 1000)
    _check_optional_meta(fields, n)
    packed = fields.get("CompressedData", "False").lower()[:1] == "t"
    binary = fields.get("BinaryData", "True").lower()[:1] == "t"
    data = fields["ElementDataFile"]
    packing = "packed" if packed else "raw" if binary else "text"
    count = math.prod(int(s) for s in sizes) * channels
    content = _Content(
        count, META_TYPES[kind.removesuffix("_ARRAY")], packing, at, _meta_files(data, head[at:])
    )
    return () if any(name in fields for name in _AXES_OF_META) else (UNSTATED,), content


def _meta_fields(head: bytes) -> tuple[dict[str, str], int]:
    """Return the fields of a MetaImage header, and where it ends."""
    fields: dict[str, str] = {}
    at = 0
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", at)
        if end < 0:
            raise HeaderError("is not a MetaImage file, or its header is damaged: it does not end")
        line = head[at:end].decode("latin-1").strip()
        at = end + 1
        name, separator, value = line.partition("=")
        if not separator and line:
            raise HeaderError(f"has a damaged header line: {_shown(line)}")
        if name.strip() in fields:
            raise HeaderError(f"has the header field {_shown(name.strip())!r} twice")
        fields[name.strip()] = value.strip()
    return fields, at


def _check_optional_meta(fields: Mapping[str, str], n: int) -> None:
    """Check the fields that a header of ``n`` axes may have besides."""
    for name in ("ElementSpacing", "ElementSize"):
        if name in fields and any(s <= 0 for s in _numbers(fields, name, n)):
            raise HeaderError(f"has an impossible voxel size: {_shown(fields[name])}")
    for name in ("Offset", "Position", "Origin", "CenterOfRotation"):
        if name in fields:
            _numbers(fields, name, n)
    for name in _AXES_OF_META:
        if name in fields:
            _numbers(fields, name, n * n)
    if "HeaderSize" in fields:
        _whole(fields, "HeaderSize", -1, 1 << 40)
    if "CompressedDataSize" in fields:
        _whole(fields, "CompressedDataSize", 0, 1 << 46)


def _meta_files(name: str, rest: bytes) -> tuple[str, ...]:
    if name.upper() == "LOCAL":
        return ()
    if name.upper().startswith("LIST"):
        lines = rest.decode("latin-1").replace("\r", "").split("\n")
        return tuple(line.strip() for line in lines if line.strip())
    pattern = re.fullmatch(r"(\S*%0?\d*d\S*)\s+(\d+)\s+(\d+)\s+(\d+)", name)
    if pattern is None:
        if "%" in name:
            raise HeaderError("has a damaged header line: ElementDataFile")
        return (name,)
    first, last, step = (int(n) for n in pattern.groups()[1:])
    if step == 0 or last - first > 100_000:
        raise HeaderError("has a damaged header line: ElementDataFile")
    return tuple(pattern[1] % n for n in range(first, last + 1, step))


def _whole(fields: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = fields.get(name, "")
    if not re.fullmatch(r"[+-]?\d{1,18}", text) or not low <= int(text) <= high:
        raise HeaderError(f"has a damaged header: {name} is {_shown(text) or 'missing'}")
    return int(text)


def _numbers(
    fields: Mapping[str, str], name: str, count: int, nan: bool = False
) -> tuple[float, ...]:
    """So many finite numbers of one field; NaN stands in NRRD for "not known"."""
    words = fields.get(name, "").split()
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    known = [n for n in numbers if not (nan and math.isnan(n))]
    if len(numbers) != count or not all(abs(n) < MAX_NUMBER for n in known):
        shown = _shown(fields.get(name, "")) or "missing"
        raise HeaderError(f"has a damaged header: {name} is {shown}")
    return numbers


def _shown(text: str) -> str:
    """Return a piece of a header that can be printed on one line."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain if len(plain) <= 60 else plain[:57] + "..."
