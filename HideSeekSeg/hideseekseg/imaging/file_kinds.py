"""Tell by a file's first bytes what it is, where its name says something else or nothing."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from ..files import open_regular

# First bytes, what they are, and what to do about it.
_PACKED = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"BZh", "compressed by bzip2"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
)
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"\x93NUMPY", "a NumPy array, which has no voxel size and no orientation"),
    (b"<?xml", "an XML file"),
    (b"{", "a text file"),
)
SUFFIXES = {
    "a gzip-compressed file": (".nii.gz", ".img.gz", ".hdr.gz", ".nia.gz"),
    "a NIfTI file": (".nii", ".nii.gz"),
    "a NRRD file": (".nrrd", ".nhdr"),
    "a MetaImage file": (".mha", ".mhd"),
}
_USUAL = {"a NIfTI file": ".nii", "a NRRD file": ".nrrd", "a MetaImage file": ".mha"}


def first_bytes(path: Path, count: int) -> bytes:
    """Return the beginning of a file; raises InputError for one that cannot be opened."""
    try:
        with open_regular(path) as stream:
            return stream.read(count)
    except OSError as error:
        raise InputError(path, f"cannot be opened: {error.strerror}") from error


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its content: such files often have no suffix."""
    return first_bytes(path, 132)[128:] == b"DICM"


def check_content(path: Path) -> None:
    """Raise InputError where a file is no image, or one whose name hides what it is.

    ITK chooses its reader by name and then calls such a file damaged.
    """
    head = first_bytes(path, 544)
    for start, what in _PACKED:
        if head.startswith(start):
            raise InputError(path, f"is {what}: unpack it first")
    for start, what in _OTHERS:
        if head.startswith(start):
            raise InputError(path, f"is {what}, not an image (NIfTI, NRRD, MHA or DICOM)")
    kind = _kind(head)
    name = path.name.lower()
    if kind and not name.endswith(SUFFIXES[kind]):
        if kind == "a gzip-compressed file":
            better = f"{path.name}.gz" if name.endswith(".nii") else "the suffix .nii.gz, if NIfTI"
            raise InputError(path, f"is gzip-compressed, which its name hides: name it {better}")
        raise InputError(
            path, f"is {kind}, which its name hides: name it with the suffix {_USUAL[kind]}"
        )


def _kind(head: bytes) -> str:
    """One of ``SUFFIXES``, empty for anything else."""
    if head.startswith(b"\x1f\x8b"):
        return "a gzip-compressed file"
    if head[344:348] in (b"n+1\0",) or head[4:8] == b"n+2\0":
        return "a NIfTI file"
    if re.match(rb"NRRD000\d", head):
        return "a NRRD file"
    if re.match(rb"\s*(ObjectType|NDims)\s*=", head):
        return "a MetaImage file"
    return ""
