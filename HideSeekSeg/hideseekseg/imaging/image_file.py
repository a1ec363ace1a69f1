"""Read one image from one file, whatever its name says it is, or say in one line why not."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..errors import InputError
from ..files import atomic, open_regular
from ..plain_data import name_fault
from . import nifti
from .text_headers import check_text_header, is_text_header
from .volume import MAX_FIELD_MM, MAX_VOXEL_MM, MIN_VOXEL_MM

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


MOST_PACKED = 16  # times smaller than its voxels is hardly any CT, but damaged or a label map


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
    """Raise InputError where a file is not an image, or one whose name hides what it is.

    ITK chooses its reader by name and then calls such a file damaged.
    """
    check_name(path)
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
    if not name.endswith(CHECKED):
        raise InputError(path, NOT_READ)


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


Floats = npt.NDArray[np.float64]

MAX_COSINE = 1e-3
# ITK fills what is missing of a truncated file with whatever is in memory, as with the voxels of
# the scan before: only of these formats is checked here that they are whole.
CHECKED = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
NOT_READ = "is not an image that can be read (NIfTI, NRRD, MHA or DICOM)"


@dataclass(frozen=True)
class ReadImage:
    """An image as its file holds it, and remarks for the reader of a result.

    ``places`` as of ``nifti.Check``: where sform and qform put it, if these disagree.
    """

    image: sitk.Image
    notes: tuple[str, ...] = ()
    places: tuple[Floats, ...] = ()


class Printed:
    """What C libraries printed while ``captured`` listened; empty before its end."""

    text = ""

    def warnings(self) -> tuple[str, ...]:
        """Return ITK's warnings, each in one line without the names of its source files."""
        found = re.findall(r"WARNING: In [^\n]*\n\s*\w+ \([^)]*\): ([^\n]+)", self.text)
        return tuple(dict.fromkeys(" ".join(line.split())[:200] for line in found))


_ONE_LISTENER = threading.RLock()


@contextmanager
def captured() -> Iterator[Printed]:
    """Keep what ITK's C libraries print from the process's standard error, and read it.

    MetaIO, niftilib and HDF5 print past every switch of SimpleITK, and their text would stand
    beside our own single line.  Other threads' messages are lost for as long as it lasts.  There is
    one standard error in a process: another thread that listens, too, waits until this one has put
    it back, or would put back the first one's scratch file for good.
    """
    printed = Printed()
    sys.stderr.flush()
    with _ONE_LISTENER, _redirected(printed):
        yield printed


@contextmanager
def _redirected(printed: Printed) -> Iterator[None]:
    """Lead standard error to a scratch file, and tell what was printed to it."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without a console, such as Slicer on Windows, prints nowhere
        yield
        return
    with _scratch() as scratch:
        try:
            os.dup2(scratch, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            printed.text = _content(scratch)


@contextmanager
def _scratch() -> Iterator[int]:
    """Return a file descriptor to write to; nothing is kept where no temporary file can be made."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        try:
            yield nowhere
        finally:
            os.close(nowhere)
        return
    with file:
        yield file.fileno()


def _content(scratch: int) -> str:
    try:
        os.lseek(scratch, 0, os.SEEK_SET)
        return os.read(scratch, 1 << 16).decode("utf-8", "replace")
    except OSError:
        return ""


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder.

    Raises InputError where nothing is, or nothing may be seen.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(path, "does not exist") from error
    except OSError as error:
        raise InputError(path, f"cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise InputError(str(path).replace("\0", "?"), "is not a possible file name") from error


def check_name(path: Path) -> None:
    """Raise InputError where a name holds bytes that are not UTF-8: ITK would end the process."""
    if fault := name_fault(str(path)):
        raise InputError(str(path).encode("utf-8", "backslashreplace").decode(), fault)


def read_image(path: Path) -> ReadImage:
    """Return an image of any dimension and pixel type, NaN kept, its header in the meta-data.

    Raises InputError for a file that is missing, unreadable, empty, truncated, no image, whose
    axes are not at right angles, whose statements on size contradict each other, or whose voxels
    have a size that no CT has.
    """
    _check_not_empty(path)
    check_content(path)
    notes = check_text_header(path) if is_text_header(path) else ()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _checked_meanwhile(path) as checked:
        try:
            with captured() as printed:
                image = reader.Execute()
        except MemoryError as error:
            checked()
            raise InputError(path, "does not fit into memory") from error
        except RuntimeError as error:
            checked()
            raise InputError(path, _cause(path, str(error))) from error
        check = checked()
    notes = (*notes, *check.notes)
    _check_geometry(path, image)
    image = _with_odd_values(image, check) if check.odd.size else image
    warned = (f"its reader warns: {warning}" for warning in printed.warnings())
    return ReadImage(image, (*notes, *warned), check.places)


@contextmanager
def _checked_meanwhile(path: Path) -> Iterator[Callable[[], nifti.Check]]:
    """Check what ITK reads in the block; the yielded function waits for that, and raises a fault.

    A NIfTI is read to its end for that, which takes as long as ITK's own reading: side by side,
    where the file is as long as its header lets expect.  Else ITK would take memory for voxels that
    are not there, and the check goes first.
    """
    if not nifti.is_nifti(path):
        yield nifti.Check
        return
    header, size = nifti.check_header(path), path.stat().st_size
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(nifti.check, path)

        def checked() -> nifti.Check:
            check = reading.result()
            if check.fault:
                raise InputError(path, check.fault)
            return check

        if header.fault or header.promised > MOST_PACKED * size:
            checked()
        yield checked


def read_header(path: Path) -> sitk.ImageFileReader:
    """Return ITK's reader of an image after it has read the header alone: geometry and keys.

    Raises InputError as ``read_image`` does, for all that shows without reading the voxels.
    """
    _check_not_empty(path)
    check_content(path)
    fault = nifti.check_header(path).fault if nifti.is_nifti(path) else None
    if fault:
        raise InputError(path, fault)
    if is_text_header(path):
        check_text_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with captured():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(path, _cause(path, str(error))) from error
    _check_geometry(path, reader)
    return reader


def write_image(path: Path, image: sitk.Image, compress: bool = False) -> None:
    """Write an image so that nobody sees half of it, and make sure that it arrived.

    Some of ITK's writers end silently on a full disk: the length of what was written is compared
    with its header.  Raises InputError; then nothing is left of it.
    """
    with atomic(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=compress)
        try:
            if nifti.is_nifti(temporary):
                whole = not nifti.check(temporary).fault
            else:
                whole = not is_text_header(temporary) or check_text_header(temporary) is not None
        except InputError:
            whole = False
        if not whole:
            raise InputError(path, "cannot be written whole: is the disk full?")


def _with_odd_values(image: sitk.Image, check: nifti.Check) -> sitk.Image:
    array = sitk.GetArrayFromImage(image)
    array.reshape(-1)[check.odd_at] = check.odd
    restored = sitk.GetImageFromArray(array)
    restored.CopyInformation(image)
    return restored


def _check_not_empty(path: Path) -> None:
    if is_folder(path):
        raise InputError(path, "is a folder, not an image file")
    if not first_bytes(path, 1):
        raise InputError(path, "is empty (0 bytes)")


def _cause(path: Path, message: str) -> str:
    """ITK's message, which runs over many lines and names its own source files, in our words."""
    if "Unable to determine ImageIO" in message:
        return NOT_READ
    if "orthonormal" in message:
        return "has axes that are not at right angles; resample it to a rectangular grid first"
    if "allocate memory" in message or "bad_alloc" in message:
        return "does not fit into memory"
    if path.suffix.lower() in (".mhd", ".nhdr"):
        return "cannot be read: its data file is missing or truncated"
    return "cannot be read: it is truncated or damaged"


def _check_geometry(path: Path, image: sitk.Image | sitk.ImageFileReader) -> None:
    n = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(n, n)
    spacing = np.array(image.GetSpacing())
    if not np.all(np.isfinite([*spacing, *image.GetOrigin()])) or not np.all(spacing > 0):
        raise InputError(path, f"has an impossible voxel size or position: {spacing.tolist()} mm")
    if not np.allclose(direction.T @ direction, np.eye(n), rtol=0, atol=MAX_COSINE):
        raise InputError(
            path, "has axes that are not at right angles; resample it to a rectangular grid first"
        )
    check_sizes(path, spacing[:3], np.array(image.GetSize()[:3]))


def check_sizes(path: Path, spacing: Floats, size: npt.NDArray[np.int64]) -> None:
    """Raise InputError for voxels (mm along i, j, k) or a field that no CT of a person has."""
    said = " x ".join(f"{s:.4g}" for s in spacing)
    if spacing.max() > MAX_VOXEL_MM or spacing.min() < MIN_VOXEL_MM:
        raise InputError(
            path,
            f"has voxels of {said} mm, a size that no CT of a person has: is the unit of its "
            "header wrong?",
        )
    if (spacing * size).max() > MAX_FIELD_MM:
        field = (spacing * size).max() / 1000
        raise InputError(path, f"is {field:.1f} m long, with voxels of {said} mm: no person is")
