"""Read CT volumes and segmentations from the files that users have.

Every failure is an InputError: one line that names the file and the cause.  A file that crashes the
library that reads it ends a ``ReadingProcess``, and nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, UserError
from . import nifti
from .dicom import check_series, read_series
from .dicom_headers import DICOMDIR, object_name
from .dicom_seg import (
    find_dicom_segmentations,
    read_dicom_segmentation,
    stated_frame_of_reference,
)
from .image_file import ReadImage, is_dicom, is_folder, read_header, read_image
from .segmentation import (
    Segmentation,
    mask_files,
    read_mask_folder,
    segments_from_header,
    segments_from_values,
    structure_of,
)
from .volume import Grid, Volume, from_sitk

LABEL_TOLERANCE = 0.01
COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
T = TypeVar("T")


class ReadingProcess(Generic[T]):
    """A process of its own in which ``read(path, *values)`` runs; started at once.

    ``read`` and all that it takes and returns must be such as pickle carries.
    """

    def __init__(self, path: Path, read: Callable[..., T], *values: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._path = path
        self._here, there = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_answer, args=(there, read, path, *values), daemon=True
        )
        self._process.start()
        there.close()

    def result(self) -> T:
        """Wait for the end and return what ``read`` returned.

        Raises UserError where ``read`` does, and InputError where it crashes.
        """
        try:
            answer: Any = self._here.recv()
        except (EOFError, OSError):
            answer = None
        self._process.join(5.0)  # how it ended is known then
        if isinstance(answer, UserError):
            raise answer
        if answer is None:
            raise InputError(self._path, f"cannot be read: {_how(self._process.exitcode or 0)}")
        found: T = answer[0]
        return found

    def end(self) -> None:
        """End the process, where nobody waits for its answer any more."""
        self._process.kill()


def _answer(there: Connection, read: Callable[..., Any], path: Path, *values: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    try:
        answer: Any = (read(path, *values),)
    except UserError as error:
        answer = error
    except MemoryError:
        answer = InputError(path, "does not fit into memory")
    there.send(answer)
    there.close()


def _how(code: int) -> str:
    if code == -9:
        return "the process that read it was killed, perhaps for want of memory"
    return f"it crashed the process that read it (status {code}), so it must be damaged"


def read_ct_apart(
    path: str | os.PathLike[str], series: str = "", patient_names: bool = False
) -> Volume:
    """Return a CT as ``read_ct`` does, undecided; what is DICOM is read in a ``ReadingProcess``.

    Headers of other files are checked before ITK sees them.  DICOM's are parsed by GDCM itself: a
    second's start of a process is little beside reading a series, and its crash is one line.
    """
    path = Path(path)
    if not is_folder(path) and not is_dicom(path):
        return read_ct(path, undecided=True)
    reading = ReadingProcess(path, partial(read_ct, undecided=True), series, patient_names)
    try:
        return reading.result()
    finally:
        reading.end()


def read_ct(
    path: str | os.PathLike[str],
    series: str = "",
    patient_names: bool = False,
    undecided: bool = False,
) -> Volume:
    """Return a CT from a NIfTI, NRRD or MHA/MHD file, a folder of DICOM files, or one of a series.

    The array (K, J, I) keeps its stored type, axis order and intensities, NaN included; the grid
    is in LPS mm; ``notes`` say what the reader of a result should know of the file.  ``series``
    chooses a DICOM series of a folder by its UID or number; ``patient_names`` keeps the patient's
    name and number, where DICOM has them, in the volume's ``identity``.  Raises InputError, also
    for a DICOM series that is not CT, and for a file whose sform and qform contradict each other:
    with ``undecided`` it is returned with both places, for ``anatomy.alignment.settled``.

    DICOM is read in this process, which a damaged file may crash within GDCM: ``read_ct_apart``
    makes that an InputError.
    """
    path = Path(path)
    if is_folder(path):
        return read_series(path, None, series, patient_names)
    if is_dicom(path):
        return read_series(path.parent, path, series, patient_names)
    read = read_image(path)
    image = _as_3d(path, read.image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise InputError(path, f"has {count} values per voxel; a CT has one")
    if min(image.GetSize()) < 2:
        raise InputError(path, f"is a single slice ({_size(image)}); a CT volume is needed")
    return _decided(_placed(path, image, read), undecided)


def read_segmentation(
    path: str | os.PathLike[str],
    wanted: Callable[[str], bool] = lambda name: True,
    undecided: bool = False,
) -> Segmentation:
    """Return a segmentation from a NIfTI, NRRD, .seg.nrrd (also several layers) or MHA/MHD file.

    Also from a folder with one mask per structure, a DICOM SEG and an RT structure set (or a folder
    with one of these); their structures whose name is not ``wanted`` need not be read.  Segments
    are those of Slicer's header where it has one, else one per value found, named where the file
    names its values.  Its grid may differ from the CT's; nothing is resampled.  Raises InputError,
    also for an image that is not a label map and for one without any label.  ``undecided`` as of
    ``read_ct``.
    """
    path = Path(path)
    if is_folder(path):
        segmentation = _read_folder(path, wanted)
    elif is_dicom(path):
        if object_name(path) == DICOMDIR:
            raise InputError(path, f"is {DICOMDIR}")
        segmentation = read_dicom_segmentation(path, wanted)
    else:
        segmentation = _read_label_map(path)
    _decided(segmentation.layers[0], undecided)
    return segmentation


def _placed(path: Path, image: sitk.Image, read: ReadImage) -> Volume:
    """Return the image as a volume, by its sform where its qform places it elsewhere."""
    volume = from_sitk(image, path.name, str(path), read.notes)
    if not read.places:
        return volume
    first, second = (Grid(volume.grid.shape, matrix) for matrix in read.places)
    return replace(volume, grid=first, rival=second)


def _decided(volume: Volume, undecided: bool) -> Volume:
    if volume.rival is not None and not undecided:
        raise InputError(volume.source, f"{two_places(volume)}; keep the right one in its header")
    return volume


def two_places(volume: Volume) -> str:
    """Return words for a volume whose file states two places."""
    apart = 0.0 if volume.rival is None else volume.grid.distance(volume.rival)
    return f"contradicts itself: its sform and its qform place it {apart:.0f} mm apart"


def _read_label_map(path: Path) -> Segmentation:
    read = read_image(path)
    image = _as_3d(path, read.image)
    header = {
        key: _text(image.GetMetaData(key)) for key in image.GetMetaDataKeys() if key.isascii()
    }
    count = image.GetNumberOfComponentsPerPixel()
    try:
        segments = segments_from_header(header, count)
    except ValueError as error:
        raise InputError(path, f"has a damaged segment header: {error}") from error
    if count > 1 and not segments:
        raise InputError(path, f"has {count} values per voxel; a label map has one")
    layers = tuple(_labels(path, _placed(path, part, read)) for part in _components(image))
    if not any(layer.array.any() for layer in layers):
        raise InputError(path, "is an empty segmentation: every voxel is 0")
    if not segments:
        names = nifti.label_names(path) if nifti.is_nifti(path) else {}
        segments = segments_from_values(layers[0], names)
    return Segmentation(layers, segments, path.name, str(path))


@dataclass(frozen=True)
class HeaderCheck:
    """What the headers of a CT or a segmentation tell, which as far as they show can be used.

    ``grid`` is None for DICOM, and for a file that states two places.  ``frame_of_reference`` is
    the UID that a DICOM object states, else empty; ``names_labels`` is of a segmentation.
    """

    grid: Grid | None = None
    frame_of_reference: str = ""
    names_labels: bool = True


def check_ct(path: str | os.PathLike[str], series: str = "") -> HeaderCheck:
    """Return what a CT's header tells; refuse what shows there.

    Of a DICOM series the tags of all files are read.  Raises InputError as ``read_ct`` does.
    """
    path = Path(path)
    if is_folder(path):
        return HeaderCheck(frame_of_reference=check_series(path, None, series))
    if is_dicom(path):
        return HeaderCheck(frame_of_reference=check_series(path.parent, path, series))
    reader = read_header(path)
    if reader.GetNumberOfComponents() > 1:
        raise InputError(path, f"has {reader.GetNumberOfComponents()} values per voxel; a CT has 1")
    return HeaderCheck(_header_grid(path, reader))


def check_segmentation(
    path: str | os.PathLike[str], wanted: Callable[[str], bool] = lambda name: True
) -> HeaderCheck:
    """Return what the headers of a segmentation tell; raises InputError as ``read_segmentation``.

    Of copies of a DICOM object in one folder all is read, to be compared.
    """
    path = Path(path)
    if is_folder(path):
        files = mask_files(path)
        if not files:
            found, _ = find_dicom_segmentations(path)
            if len(found) != 1:
                _read_folder(path, wanted)  # says what is wrong
            return HeaderCheck(frame_of_reference=stated_frame_of_reference(found[0]))
        chosen = [file for file in files if wanted(structure_of(file))]
        if not chosen:
            raise InputError(path, "contains no mask of a vertebra (vertebrae_L1.nii.gz, ...)")
        grids = [_header_grid(file, read_header(file)) for file in chosen]
        for file, grid in zip(chosen, grids):
            if grid is not None and grids[0] is not None and not grid.matches(grids[0]):
                raise InputError(file, f"lies on another grid than {chosen[0].name}")
        return HeaderCheck(grids[0])
    if is_dicom(path):
        return HeaderCheck(frame_of_reference=stated_frame_of_reference(path))
    reader = read_header(path)
    named = any(key.startswith("Segment") for key in reader.GetMetaDataKeys())
    named = named or (nifti.is_nifti(path) and bool(nifti.label_names(path)))
    return HeaderCheck(_header_grid(path, reader), names_labels=named)


def _header_grid(path: Path, reader: sitk.ImageFileReader) -> Grid | None:
    size, n = reader.GetSize(), reader.GetDimension()
    if n < 3 or any(length != 1 for length in size[3:]):
        said = " x ".join(str(length) for length in size)
        raise InputError(path, f"is a {n}D image ({said}); one 3D volume is needed")
    if nifti.is_nifti(path) and nifti.check_header(path).places:
        return None
    matrix = np.eye(4)
    directions = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
    matrix[:3, :3] = directions * np.array(reader.GetSpacing()[:3])
    matrix[:3, 3] = reader.GetOrigin()[:3]
    return Grid((size[2], size[1], size[0]), matrix)


def _read_folder(folder: Path, wanted: Callable[[str], bool]) -> Segmentation:
    if mask_files(folder):
        return read_mask_folder(folder, _read_mask, wanted)
    found, notes = find_dicom_segmentations(folder)
    if len(found) == 1:
        read = read_dicom_segmentation(found[0], wanted)
        layers = (replace(layer, notes=(*notes, *layer.notes)) for layer in read.layers)
        return replace(read, layers=tuple(layers))
    if found:
        names = ", ".join(path.name for path in found[:4])
        raise InputError(folder, f"contains {len(found)} segmentations, give one of them: {names}")
    raise InputError(
        folder,
        "is a folder without a segmentation; that is one file, or one mask per structure "
        "(vertebrae_L1.nii.gz, ...), or a DICOM SEG",
    )


def _read_mask(path: Path) -> Volume:
    read = read_image(path)
    image = _as_3d(path, read.image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        count = image.GetNumberOfComponentsPerPixel()
        raise InputError(path, f"has {count} values per voxel; a mask has one")
    return _labels(path, _placed(path, image, read))


def _as_3d(path: Path, image: sitk.Image) -> sitk.Image:
    """Drop a fourth axis of length 1; refuse what is not one volume of real numbers."""
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise InputError(
            path, f"is a {image.GetDimension()}D image ({_size(image)}); one 3D volume is needed"
        )
    if image.GetPixelID() in COMPLEX:
        raise InputError(path, "contains complex numbers; one real value per voxel is needed")
    return image


def _components(image: sitk.Image) -> Iterator[sitk.Image]:
    """Slicer stores layers of overlapping segments as components of one image."""
    if image.GetNumberOfComponentsPerPixel() == 1:
        yield image
        return
    for n in range(image.GetNumberOfComponentsPerPixel()):
        yield sitk.VectorIndexSelectionCast(image, n)


def _text(raw: str) -> str:
    """Bytes of a header that are not UTF-8 come as surrogates, which could not be printed."""
    return raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _size(image: sitk.Image) -> str:
    return " x ".join(str(n) for n in image.GetSize())


def _labels(path: Path, volume: Volume) -> Volume:
    """Return the volume with integer labels; many tools store them as floating point.

    Arithmetic leaves labels such as 29.9999: what lies within ``LABEL_TOLERANCE`` is rounded.
    """
    array = volume.array
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(invalid="ignore"):
            whole = np.rint(array)
            near = np.abs(array - whole) <= LABEL_TOLERANCE
        if not near.all():
            odd = float(array[~near].flat[0])
            raise InputError(
                path,
                f"is not a label map: it contains values such as {odd:.6g}, which is not a whole "
                "number (a resampled label map needs nearest-neighbour interpolation)",
            )
        if array.max() > np.iinfo(np.int32).max:
            raise InputError(
                path, f"is not a label map: it contains values such as {array.max():g}"
            )
        array = whole
    if array.min() < 0:
        raise InputError(path, f"is not a label map: it contains values such as {array.min():g}")
    if np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.int32)
    return replace(volume, array=array)
