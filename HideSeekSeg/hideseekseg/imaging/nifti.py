"""What SimpleITK does not say of a NIfTI file.

ITK fills the missing part of a truncated NIfTI with whatever is in memory, turns NaN and infinity
to 0, chooses silently where sform, qform and pixdim disagree or the affine is sheared, and does not
show the header's extensions.
"""

from __future__ import annotations

import gzip
import math
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from ..files import open_regular
from .text_headers import UNSTATED
from .volume import MAX_VOXEL_MM, MIN_VOXEL_MM

Floats = npt.NDArray[np.float64]

MAX_EXTENSIONS = 1 << 24
MAX_COSINE = 1e-3
# How far apart two statements may place a voxel, and by what share two voxel sizes may differ.
MAX_SHIFT_MM = 1.0
MAX_SPACING = 0.01
UNITS = {1: "metres", 3: "micrometres"}
MM_PER_UNIT = {1: 1e3, 3: 1e-3}
FLOAT_TYPES = {16: "f4", 64: "f8"}  # by NIfTI's codes


@dataclass(frozen=True)
class Header:
    """The part of a NIfTI-1 or NIfTI-2 header that is needed here.

    ``sform`` and ``qform`` are 3x4 (indices i, j, k to RAS, in the header's unit), None where they
    are not set; ``pixdim`` (3,) and ``shape`` (I, J, K) are those of the first three axes;
    ``data_start`` and ``data_end`` bound the voxels, in bytes of the (unpacked) file; ``floats`` is
    their type where it is a real floating-point one; ``unit`` is the code of the unit of length.
    """

    order: str
    size: int
    data_start: int
    data_end: int
    floats: np.dtype[np.floating] | None
    shape: npt.NDArray[np.int64]
    pixdim: Floats
    sform: Floats | None
    qform: Floats | None
    unit: int


def is_nifti(path: Path) -> bool:
    """Return whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@dataclass(frozen=True)
class Check:
    """What is wrong with a file, or odd about it.

    ``fault`` says what is wrong, in words that follow the file's name; None: nothing is.
    ``odd_at`` are flat indices (i fastest) of the voxels that are NaN or infinite, ``odd`` what
    they are; ``notes`` are remarks for the reader.  ``places`` are the two matrices (4, 4: indices
    i, j, k to LPS mm) of sform and qform where these disagree, else none.  ``promised`` is how many
    bytes the unpacked file has by its header, 0 where that is not known.
    """

    fault: str | None = None
    notes: tuple[str, ...] = ()
    odd_at: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    odd: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    places: tuple[Floats, ...] = ()
    promised: int = 0


def check(path: Path) -> Check:
    """Read the file to its end: only the checksum of a packed one tells that it is whole."""
    at, odd = [np.empty(0, np.int64)], [np.empty(0)]
    try:
        with _open(path) as stream:
            header = _read_header(stream)
            if header is None:
                return Check()
            end = header.size + _skip(stream, header.data_start - header.size)
            for chunk in _chunks(stream):
                if header.floats and end < header.data_end:
                    size = header.floats.itemsize
                    # A file that is too short may end within a voxel.
                    count = min(len(chunk), header.data_end - end) // size
                    values = np.frombuffer(chunk[: count * size], header.floats)
                    where = np.flatnonzero(~np.isfinite(values))
                    at.append(where + (end - header.data_start) // size)
                    odd.append(values[where].astype(float))
                end += len(chunk)
    except EOFError:
        return Check("is truncated: the compressed data end too early")
    except (gzip.BadGzipFile, zlib.error):
        return Check("is damaged: its compressed data do not pass the checksum")
    if end < header.data_end:
        return Check(f"is truncated: {end} bytes where its header promises {header.data_end}")
    fault = _geometry_fault(header)
    if fault:
        return Check(fault)
    notes = () if header.sform is not None or header.qform is not None else (UNSTATED,)
    return Check(None, notes, np.concatenate(at), np.concatenate(odd), _places(header))


def check_header(path: Path) -> Check:
    """Check what the header tells; whether packed data are whole, only ``check`` finds out."""
    try:
        with _open(path) as stream:
            header, packed = _read_header(stream), isinstance(stream, gzip.GzipFile)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return Check("is truncated or damaged: its compressed data end too early")
    if header is None:
        return Check()
    size = path.stat().st_size
    if not packed and size < header.data_end:
        return Check(f"is truncated: {size} bytes where its header promises {header.data_end}")
    return Check(_geometry_fault(header), places=_places(header), promised=header.data_end)


def _geometry_fault(header: Header) -> str | None:
    """Say what makes it doubtful where the voxels lie; ITK would choose one of the statements."""
    if header.sform is not None and _is_sheared(header.sform[:, :3]):
        return "has sheared axes (sform); resample it to a rectangular grid first"
    if not np.all(np.isfinite(header.pixdim)) or not np.all(header.pixdim > 0):
        return f"has an impossible voxel size: {_sizes(header.pixdim)}"
    scale = MM_PER_UNIT.get(header.unit, 1.0)
    sizes = header.pixdim * scale
    if header.unit in UNITS and (sizes.max() > MAX_VOXEL_MM or sizes.min() < MIN_VOXEL_MM):
        return (
            f"has voxels of {_sizes(sizes)} mm: its header gives lengths in {UNITS[header.unit]} "
            "(xyzt_units), where they seem to be millimetres"
        )
    if header.sform is not None:
        own = np.linalg.norm(header.sform[:, :3], axis=0)
        if np.abs(own / header.pixdim - 1).max() > MAX_SPACING:
            return (
                f"contradicts itself: voxels of {_sizes(sizes)} mm by pixdim, "
                f"of {_sizes(own * scale)} mm by its sform; correct its header first"
            )
    for name, matrix in (("sform", header.sform), ("qform", header.qform)):
        if matrix is not None and not np.isfinite(matrix).all():
            return f"has a damaged header: its {name} contains numbers that are not finite"
    return None


def _places(header: Header) -> tuple[Floats, ...]:
    """Return the matrices (4, 4: indices to LPS mm) of sform and qform, none where they agree."""
    if header.sform is None or header.qform is None:
        return ()
    scale = MM_PER_UNIT.get(header.unit, 1.0)
    apart = _corners(header.sform, header.shape) - _corners(header.qform, header.shape)
    if np.linalg.norm(apart, axis=1).max() * scale <= MAX_SHIFT_MM:
        return ()
    to_lps_mm = np.array([[-scale], [-scale], [scale]])
    return tuple(np.vstack([m * to_lps_mm, [0, 0, 0, 1]]) for m in (header.sform, header.qform))


def _sizes(numbers: Floats) -> str:
    return " x ".join(f"{n:.4g}" for n in numbers)


def _corners(matrix: Floats, shape: npt.NDArray[np.int64]) -> Floats:
    """Return where (8, 3) the corners of a volume lie by a matrix (3, 4)."""
    ijk = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1)
    return np.asarray((matrix[:, :3] @ ijk + matrix[:, 3:]).T)


def label_names(path: Path) -> dict[int, str]:
    """Names of label values from an XML label table in the header's extensions, else empty.

    TotalSegmentator (and Connectome Workbench) write them: ``<Label Key="31">vertebrae_L1</Label>``
    inside ``<LabelTable>``.
    """
    with _open(path) as stream:
        header = _read_header(stream)
        if header is None or header.data_start > MAX_EXTENSIONS:
            return {}
        block = stream.read(header.data_start - header.size)
    names: dict[int, str] = {}
    for content in _extensions(block, header.order):
        names |= _names_in_xml(content)
    return names


def _open(path: Path) -> IO[bytes]:
    """Unpack by content, as NIfTI readers do, whatever the name says."""
    with open_regular(path) as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else open_regular(path)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk


def _skip(stream: IO[bytes], count: int) -> int:
    """Read past so many bytes, or to the end; return how many there were.

    A damaged header may ask for more than there is memory: a megabyte at a time.
    """
    skipped = 0
    while chunk := stream.read(min(count - skipped, 1 << 20)):
        skipped += len(chunk)
    return skipped


def _read_header(stream: IO[bytes]) -> Header | None:
    """None when this is not a single-file NIfTI; the stream then stands right after the header."""
    head = stream.read(348)
    for order in "<>":
        if len(head) == 348 and head[344:347] == b"n+1":
            if struct.unpack(order + "i", head[:4]) == (348,):
                return _header(head, order, NIFTI_1)
        elif head[4:7] == b"n+2" and struct.unpack(order + "i", head[:4]) == (540,):
            head += stream.read(540 - 348)
            if len(head) == 540:
                return _header(head, order, NIFTI_2)
    return None


# Formats (of ``struct``) and byte offsets of the fields, which differ between the two versions.
Layout = dict[str, tuple[str, int]]
NIFTI_1: Layout = {
    "dim": ("8h", 40),
    "type": ("2h", 70),
    "pixdim": ("8f", 76),
    "start": ("f", 108),
    "unit": ("b", 123),
    "qform_code": ("h", 252),
    "sform_code": ("h", 254),
    "quaternion": ("6f", 256),
    "sform": ("12f", 280),
}
NIFTI_2: Layout = {
    "dim": ("8q", 16),
    "type": ("2h", 12),
    "pixdim": ("8d", 104),
    "start": ("q", 168),
    "qform_code": ("i", 344),
    "sform_code": ("i", 348),
    "quaternion": ("6d", 352),
    "sform": ("12d", 400),
    "unit": ("i", 500),
}


def _header(head: bytes, order: str, layout: Layout) -> Header:
    fields = {
        name: struct.unpack_from(order + form, head, at) for name, (form, at) in layout.items()
    }
    dim, (kind, bits), (data_start,) = fields["dim"], fields["type"], fields["start"]
    first = max(len(head), int(data_start) if math.isfinite(data_start) else 0)
    voxels = math.prod(max(int(n), 1) for n in dim[1 : max(dim[0], 0) + 1])
    end = first + voxels * max(bits, 0) // 8
    floats = np.dtype(order + FLOAT_TYPES[kind]) if kind in FLOAT_TYPES else None
    used = min(max(int(dim[0]), 0), 3)
    shape = np.array([max(int(n), 1) for n in (*dim[1 : used + 1], 1, 1, 1)[:3]], np.int64)
    pixdim = np.array((*fields["pixdim"][1 : used + 1], 1.0, 1.0, 1.0)[:3], float)
    sform = np.array(fields["sform"], float).reshape(3, 4)
    # A negative size is a flip in some writers' headers, which NIfTI readers take without its sign.
    pixdim = np.abs(pixdim)
    with np.errstate(all="ignore"):  # a damaged header: what is not finite is refused later
        qform = _qform(np.array(fields["quaternion"], float), pixdim, fields["pixdim"][0])
    return Header(
        *(order, len(head), first, end, floats, shape, pixdim),
        sform if fields["sform_code"][0] > 0 else None,
        qform if fields["qform_code"][0] > 0 else None,
        int(fields["unit"][0]) & 7,
    )


def _qform(numbers: Floats, pixdim: Floats, handedness: float) -> Floats:
    """Return NIfTI's matrix (3, 4) of a quaternion's last three parts and an offset."""
    b, c, d = numbers[:3]
    a = math.sqrt(max(1.0 - float(b * b + c * c + d * d), 0.0))
    length = math.sqrt(a * a + float(b * b + c * c + d * d)) or 1.0
    a, b, c, d = a / length, b / length, c / length, d / length
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = pixdim * (1.0, 1.0, -1.0 if handedness < 0 else 1.0)
    return np.column_stack([turn * scale, numbers[3:]])


def _is_sheared(affine: Floats) -> bool:
    lengths = np.linalg.norm(affine, axis=0)
    if not np.all(np.isfinite(affine)) or not np.all(lengths > 0):
        return True
    cosines = (affine / lengths).T @ (affine / lengths) - np.eye(3)
    return bool(np.abs(cosines).max() > MAX_COSINE)


def _extensions(block: bytes, order: str) -> Iterator[bytes]:
    """Contents of the extensions; ``block`` lies between the header and the voxels."""
    at = 4
    while block[:1] not in (b"", b"\0") and at + 8 <= len(block):
        (size,) = struct.unpack_from(order + "i", block, at)
        if size < 8:
            return
        yield block[at + 8 : at + size]
        at += size


def _names_in_xml(content: bytes) -> dict[int, str]:
    """Refuse declarations before parsing: entities can blow a small file up to gigabytes."""
    text = content.strip(b"\0 \t\r\n")
    if b"<LabelTable" not in text or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        return {}
    try:
        labels = [label for label in ElementTree.fromstring(text).iter("Label")]
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    keys = ((label.get("Key", "").strip(), (label.text or "").strip()) for label in labels)
    return {int(key): name for key, name in keys if key.isdecimal() and int(key) > 0 and name}
