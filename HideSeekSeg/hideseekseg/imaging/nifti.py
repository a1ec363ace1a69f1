"""What SimpleITK does not say of a NIfTI file.

ITK fills the missing part of a truncated NIfTI with whatever is in memory, turns NaN and infinity
to 0, falls back silently to another position when the affine is sheared, and does not show the
header's extensions.
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

MAX_EXTENSIONS = 1 << 24
MAX_COSINE = 1e-3
FLOAT_TYPES = {16: "f4", 64: "f8"}  # by NIfTI's codes


@dataclass(frozen=True)
class Header:
    """The part of a NIfTI-1 or NIfTI-2 header that is needed here.

    ``affine`` is the 3x3 part of the sform (columns i, j, k in RAS mm), None where it is not set;
    ``data_start`` and ``data_end`` bound the voxels, in bytes of the (unpacked) file; ``floats`` is
    their type where it is a real floating-point one.
    """

    order: str
    size: int
    data_start: int
    data_end: int
    floats: np.dtype[np.floating] | None
    affine: npt.NDArray[np.float64] | None


def is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


@dataclass(frozen=True)
class Check:
    """``fault`` is what is wrong with the file, in words that follow its name; None: nothing is.

    ``odd_at`` are flat indices (i fastest) of the voxels that are NaN or infinite, ``odd`` what
    they are.
    """

    fault: str | None = None
    odd_at: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    odd: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


def check(path: Path) -> Check:
    """Reads the file to its end: only the checksum of a packed one tells that it is whole."""
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
    if header.affine is not None and _is_sheared(header.affine):
        return Check("has sheared axes (sform); resample it to a rectangular grid first")
    return Check(None, np.concatenate(at), np.concatenate(odd))


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
    """Unpacks by content, as NIfTI readers do, whatever the name says."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk


def _skip(stream: IO[bytes], count: int) -> int:
    """Reads past so many bytes, or to the end; how many there were.

    A damaged header may ask for more than there is memory: a megabyte at a time.
    """
    skipped = 0
    while chunk := stream.read(min(count - skipped, 1 << 20)):
        skipped += len(chunk)
    return skipped


def _read_header(stream: IO[bytes]) -> Header | None:
    """None when this is no single-file NIfTI; the stream then stands right after the header."""
    head = stream.read(348)
    for order in "<>":
        if len(head) == 348 and head[344:347] == b"n+1":
            if struct.unpack(order + "i", head[:4]) == (348,):
                return _header(head, order, "8h", 40, 72, ("f", 108), ("h", 254), ("12f", 280))
        elif head[4:7] == b"n+2" and struct.unpack(order + "i", head[:4]) == (540,):
            head += stream.read(540 - 348)
            if len(head) == 540:
                return _header(head, order, "8q", 16, 14, ("q", 168), ("i", 348), ("12d", 400))
    return None


def _header(
    head: bytes,
    order: str,
    dim_format: str,
    dim_at: int,
    bits_at: int,
    start: tuple[str, int],
    code: tuple[str, int],
    rows: tuple[str, int],
) -> Header:
    """Formats (of ``struct``) and byte offsets of the fields differ between the two versions."""
    dim = struct.unpack_from(order + dim_format, head, dim_at)
    kind, bits = struct.unpack_from(order + "2h", head, bits_at - 2)
    (data_start,) = struct.unpack_from(order + start[0], head, start[1])
    (sform_code,) = struct.unpack_from(order + code[0], head, code[1])
    affine = np.array(struct.unpack_from(order + rows[0], head, rows[1])).reshape(3, 4)[:, :3]
    first = max(len(head), int(data_start) if math.isfinite(data_start) else 0)
    voxels = math.prod(max(int(n), 1) for n in dim[1 : max(dim[0], 0) + 1])
    end = first + voxels * max(bits, 0) // 8
    floats = np.dtype(order + FLOAT_TYPES[kind]) if kind in FLOAT_TYPES else None
    return Header(order, len(head), first, end, floats, affine if sform_code > 0 else None)


def _is_sheared(affine: npt.NDArray[np.float64]) -> bool:
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
    """Declarations are refused before parsing: entities can blow a small file up to gigabytes."""
    text = content.strip(b"\0 \t\r\n")
    if b"<LabelTable" not in text or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        return {}
    try:
        labels = [label for label in ElementTree.fromstring(text).iter("Label")]
    except (ElementTree.ParseError, ValueError, LookupError):
        return {}
    keys = ((label.get("Key", "").strip(), (label.text or "").strip()) for label in labels)
    return {int(key): name for key, name in keys if key.isdecimal() and int(key) > 0 and name}
