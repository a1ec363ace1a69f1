"""Read one image from one file, or say in one line why it cannot be read."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from . import nifti

MAX_COSINE = 1e-3


@contextmanager
def hushed() -> Iterator[None]:
    """Silence what ITK's C libraries print to the process's standard error.

    MetaIO, niftilib and HDF5 print past every switch of SimpleITK, and their text would stand
    beside our own single line.  Other threads' messages are lost for as long as it lasts.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a process without a console, such as Slicer on Windows, prints nowhere
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def is_folder(path: Path) -> bool:
    """Raises InputError where nothing is, or nothing may be seen."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(path, "does not exist") from error
    except OSError as error:
        raise InputError(path, f"cannot be opened: {error.strerror}") from error


def first_bytes(path: Path, count: int) -> bytes:
    """Raises InputError for a file that cannot be opened."""
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise InputError(path, f"cannot be opened: {error.strerror}") from error


def read_image(path: Path) -> sitk.Image:
    """An image of any dimension and pixel type, NaN kept, its header in the meta-data.

    Raises InputError for a file that is missing, unreadable, empty, truncated, no image, or whose
    axes are not at right angles.
    """
    _check_not_empty(path)
    check = nifti.check(path) if nifti.is_nifti(path) else nifti.Check()
    if check.fault:
        raise InputError(path, check.fault)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with hushed():
            image = reader.Execute()
    except MemoryError as error:
        raise InputError(path, "does not fit into memory") from error
    except RuntimeError as error:
        raise InputError(path, _cause(path, str(error))) from error
    _check_geometry(path, image)
    return _with_odd_values(image, check) if check.odd.size else image


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
        return "is not an image that can be read (NIfTI, NRRD, MHA or DICOM)"
    if "orthonormal" in message:
        return "has axes that are not at right angles; resample it to a rectangular grid first"
    if "allocate memory" in message or "bad_alloc" in message:
        return "does not fit into memory"
    if path.suffix.lower() in (".mhd", ".nhdr"):
        return "cannot be read: its data file is missing or truncated"
    return "cannot be read: it is truncated or damaged"


def _check_geometry(path: Path, image: sitk.Image) -> None:
    n = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(n, n)
    spacing = np.array(image.GetSpacing())
    if not np.all(np.isfinite([*spacing, *image.GetOrigin()])) or not np.all(spacing > 0):
        raise InputError(path, f"has an impossible voxel size or position: {spacing.tolist()} mm")
    if not np.allclose(direction.T @ direction, np.eye(n), rtol=0, atol=MAX_COSINE):
        raise InputError(
            path, "has axes that are not at right angles; resample it to a rectangular grid first"
        )
