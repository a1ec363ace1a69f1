"""What DICOM files state of themselves, read without their voxels: which image, of whom, and where.

``Slice.fault`` says what is not a slice of a CT in HU, ``object_name`` what is not an image.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..errors import InputError
from .image_file import captured, check_name, first_bytes, is_dicom
from .slice_stack import Plane, read_frames, stack_of
from .stored_pixels import INTERCEPT, SLOPE, pixel_fault
from .volume import FRAME_OF_REFERENCE

PIXEL_DATA = b"\xe0\x7f\x10\x00"

SOP_CLASS, IMAGE_TYPE, MODALITY = "0008|0016", "0008|0008", "0008|0060"
SERIES, NUMBER, DESCRIPTION = "0020|000e", "0020|0011", "0008|103e"
POSITION, ORIENTATION, THICKNESS = "0020|0032", "0020|0037", "0018|0050"
PIXEL_SPACING = "0028|0030"
RESCALE_TYPE = "0028|1054"
IDENTITY = {
    "study_uid": "0020|000d",
    "series_uid": SERIES,
    FRAME_OF_REFERENCE: "0020|0052",
    "series_description": DESCRIPTION,
    "study_date": "0008|0020",
}
PATIENT = {"patient_name": "0010|0010", "patient_id": "0010|0020"}
CHARACTER_SET = "0008|0005"
TEXTS = (DESCRIPTION, *PATIENT.values())  # may be of any script
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# What is not a CT volume in HU, by words of the image type or the description.
KINDS = {
    "a localizer": "LOCALIZER,SCOUT,TOPOGRAM,SURVIEW,SCANOGRAM",
    "an intensity projection (MIP)": "MIP,MAX_IP,MINIP,MIN_IP,PROJECTION IMAGE,VOLUME_RENDERED,"
    "VRT,VOLREN",
    "a material map of dual-energy CT": "IODINE,IODINE_MAP,MAT_SPECIFIC,MAT_FRACTIONAL,"
    "MAT_MODIFIED,MAT_REMOVED,MAT_VALUE_BASED,EFF_ATOMIC_NUM,ELECTRON_DENSITY,CALCIUM,URIC_ACID,"
    "VNCA,ZEFF,Z_EFFECTIVE",
    "a screen capture": "SCREEN SAVE,DOSE_INFO,SCREENSHOT",
}
# Only these words of a description tell as much as those of the image type.
DESCRIBED = {
    "a material map of dual-energy CT": ("iodine map", "iodine overlay", "iodine(", "z effective"),
}
OBJECTS = {
    "1.2.840.10008.1.3.10": "a DICOMDIR, the table of contents of a disc: give its folder",
    "1.2.840.10008.5.1.4.1.1.481.3": "a DICOM RTSTRUCT (contours): convert it to a label map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a DICOM dose distribution, not an image",
    "1.2.840.10008.5.1.4.1.1.481.5": "a DICOM treatment plan, not an image",
    "1.2.840.10008.5.1.4.1.1.66.4": "a DICOM segmentation (SEG), not a CT",
    "1.2.840.10008.5.1.4.1.1.104.1": "a PDF document in a DICOM file, not an image",
    "1.2.840.10008.5.1.4.1.1.11.1": "a DICOM presentation state, not an image",
    "1.2.840.10008.5.1.4.1.1.88": "a DICOM report, not an image",
}
DICOMDIR = OBJECTS["1.2.840.10008.1.3.10"]


@dataclass(frozen=True)
class Slice:
    """One DICOM image file with the ``tags`` that GDCM reads at its top level.

    ``plane`` is what it states of its place; ``frames`` counts the images in it; ``pixel`` is
    SimpleITK's type of the rescaled voxels.
    """

    path: Path
    tags: dict[str, str] = field(repr=False)
    plane: Plane
    frames: int
    pixel: int

    @property
    def modality(self) -> str:
        return self.tags.get(MODALITY, "unknown")

    @property
    def rescale(self) -> tuple[str, str, str]:
        """Return slope, intercept and type as they are stated."""
        slope, intercept, kind = (self.tags.get(t, "") for t in (SLOPE, INTERCEPT, RESCALE_TYPE))
        return slope, intercept, kind

    @property
    def fault(self) -> str:
        """Return what forbids to take it for a slice of a CT in HU, empty where nothing does."""
        words = {word.strip().upper() for word in self.tags.get(IMAGE_TYPE, "").split("\\")}
        described = self.tags.get(DESCRIPTION, "").lower()
        for kind, names in KINDS.items():
            if words & set(names.split(",")):
                return kind
        for kind, phrases in DESCRIBED.items():
            if any(phrase in described for phrase in phrases):
                return kind
        if self.tags.get(SOP_CLASS, "").startswith(SECONDARY_CAPTURE):
            return "a screen capture"
        unit = self.tags.get(RESCALE_TYPE, "").strip().upper()
        if unit not in ("", "HU", "US", "HU_MOD"):
            return f"in {unit} and not in HU"
        return pixel_fault(self.tags, self.frames)


def plain_text(text: str) -> str:
    """Return a text of a header that can be printed, a name with blanks between its parts."""
    plain = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join(plain.replace("^", " ").split())


def object_name(path: Path) -> str:
    """Return what a DICOM file is where it is not an image, as words that follow "is"."""
    uid = _media_class(first_bytes(path, 1024))
    for start, name in OBJECTS.items():
        if uid == start or uid.startswith(start + "."):
            return name
    return ""


def check_object(path: Path) -> None:
    """Raise InputError for a DICOM file that is not an image."""
    name = object_name(path)
    if name:
        raise InputError(path, f"is {name}")


def _media_class(head: bytes) -> str:
    """Return the SOP class that a file's meta information (always explicit, little) states."""
    at = head.find(b"\x02\x00\x02\x00UI", 132)
    if at < 0 or at + 8 > len(head):
        return ""
    (length,) = struct.unpack_from("<H", head, at + 6)
    return head[at + 8 : at + 8 + length].rstrip(b"\0 ").decode("ascii", "replace")


def scan(paths: Iterable[Path]) -> list[Slice]:
    """Return the DICOM images among files; raises InputError for a damaged one."""
    slices = []
    with captured():
        for path in paths:
            if found := read_header(path):
                slices.append(found)
    return slices


def read_header(path: Path) -> Slice | None:
    """Return what an image states, None for another file; raises InputError for a damaged one."""
    try:
        check_name(path)
    except InputError:
        if is_dicom(path):
            raise
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if is_dicom(path) and not object_name(path) and PIXEL_DATA in path.read_bytes():
            if _media_class(first_bytes(path, 1024)).startswith(ENHANCED_CT):
                stack_of(path, [frame.plane for frame in read_frames(path)])
            raise InputError(path, "is a truncated or damaged DICOM image") from error
        return None  # a report, a directory of the disc, or no DICOM at all
    tags = {key: reader.GetMetaData(key).strip(" \0") for key in reader.GetMetaDataKeys()}
    for key in TEXTS:
        if key in tags:
            tags[key] = _decoded(tags[key], tags.get(CHARACTER_SET, ""))
    if object_name(path):
        return None
    position, axes = numbers_in(tags.get(POSITION, "")), numbers_in(tags.get(ORIENTATION, ""))
    size = reader.GetSize()
    frames = size[2] if len(size) > 2 else 1
    plane = Plane(
        path.name,
        position if position.size == 3 else np.empty(0),
        axes.reshape(2, 3) if axes.size == 6 else np.empty((0, 3)),
        reader.GetSpacing()[:2] if frames > 1 else _pixel_spacing(tags),
        (size[0], size[1]),
    )
    return Slice(path, tags, plane, frames, reader.GetPixelID())


def _pixel_spacing(tags: dict[str, str]) -> tuple[float, float]:
    """Return mm along row and column as a slice states them, else 0: GDCM's answer is 1 then."""
    rows = numbers_in(tags.get(PIXEL_SPACING, ""))
    return (float(rows[1]), float(rows[0])) if rows.size == 2 else (0.0, 0.0)


def _decoded(text: str, character_set: str) -> str:
    """Return a text, as ITK passes its bytes on, in the character set that its file states."""
    if not character_set or (text.isascii() and "\x1b" not in text):
        return text
    try:
        from pydicom.charset import convert_encodings, decode_bytes
    except ImportError:
        return text
    raw = text.encode("utf-8", "surrogateescape")
    with warnings.catch_warnings():  # of sets that are misspelt, or none
        warnings.simplefilter("ignore")
        encodings = convert_encodings([one.strip() for one in character_set.split("\\")])
        return str(decode_bytes(raw, encodings, {0x0A, 0x0D, ord("^")}))


def numbers_in(text: str) -> npt.NDArray[np.float64]:
    """Return the numbers of a header's value; empty where one is not finite, or not a number."""
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return np.empty(0)
    return numbers if np.isfinite(numbers).all() else np.empty(0)
