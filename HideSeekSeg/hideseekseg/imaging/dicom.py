"""A CT volume from a folder of DICOM files: which series there are, and the one that is meant."""

from __future__ import annotations

import struct
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..errors import InputError
from ..files import files_in
from ..plain_data import counted
from .image_file import captured, check_name, check_sizes, first_bytes, is_dicom
from .series_files import files_beside, series_files
from .slice_stack import DicomFrame, Plane, Stack, read_frames, rescaled, stack_of
from .stored_pixels import INTERCEPT, SLOPE, as_stated, is_inverted, pixel_fault, tilt_notes
from .volume import FRAME_OF_REFERENCE, Grid, Volume

MIN_SLICES = 4
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
# What the slices of a series have in common, whatever a careless anonymisation made of its UID;
# and what may tell series apart where their UID was removed.
OF_ONE_SERIES = {
    "patient": tuple(reversed(PATIENT.values())),
    "study": (IDENTITY["study_uid"],),
    "frame of reference": (IDENTITY[FRAME_OF_REFERENCE],),
    "modality": (MODALITY,),
}
OF_UNNAMED = {
    "series number": (NUMBER,),
    "description": (DESCRIPTION,),
    "kernel": ("0018|1210",),
}
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


@dataclass(frozen=True)
class SeriesInfo:
    """One image series of a folder, for people to choose from.

    ``spacing`` is mm along i, j, k as the files state it (0 where they do not);
    ``fault`` is why it cannot be read as a CT volume, empty where nothing is known against it;
    ``file`` is one of its files.
    """

    uid: str
    number: str
    description: str
    modality: str
    slices: int
    spacing: tuple[float, float, float]
    fault: str
    file: Path

    def __str__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing)
        name = self.description or "no description"
        return f"{self.number or '?'}: {self.file} ({name}, {self.slices} slices, {spacing} mm)"


def list_series(folder: str | Path) -> list[SeriesInfo]:
    """Return the image series of a folder and the folders in it, the longest first.

    Raises InputError where a DICOM image is damaged or a folder cannot be looked into; the list is
    empty where there is no image.
    """
    return _sorted(_by_series(_scan(files_in(Path(folder)))))


def check_series(folder: Path, member: Path | None = None, series: str = "") -> None:
    """Raise InputError where the tags alone show that ``read_series`` would refuse a folder."""
    source = member or folder
    chosen, _ = _chosen(folder, member, series)
    chosen, _ = _without_odd_ones(source, chosen)
    _check_rescale(source, chosen)
    if all(one.frames == 1 for one in chosen):
        stack_of(source, [one.plane for one in chosen])


def _chosen(folder: Path, member: Path | None, series: str) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices of the series that is meant, and notes on others that state its UID.

    Of a series that is named no others are read.
    """
    if member is not None:
        _check_object(member)
        files = files_beside(member)
    else:
        files = series_files(folder, series) if series else files_in(folder)
    return _pick(folder, _scan(files), member, series)


def read_series(
    folder: Path, member: Path | None = None, series: str = "", patient_names: bool = False
) -> Volume:
    """Return the CT series of a folder and the folders in it, slices in order of position.

    Localizers, projections, material maps, series of fewer than ``MIN_SLICES`` slices and other
    modalities are passed over; what is left out of the chosen series is named in ``notes``.  Slices
    of different patients, studies or frames of reference are of different series, though they may
    state one UID, or none.  Where several CT series remain, none is guessed: the error lists them.
    ``series`` chooses one by its UID or its number, ``member`` by one of its files (then among the
    files beside it).  With ``patient_names`` the volume's identity holds the patient's name and
    number as well.

    Raises InputError when there is no such series or more than one, when a folder cannot be looked
    into or a link leads nowhere, and when its slices are missing, doubled, uneven, damaged, of
    different shape or direction, or taken with a tilted gantry.
    """
    source = member or folder
    chosen, others = _chosen(folder, member, series)
    chosen, notes = _without_odd_ones(source, chosen)
    notes = (*others, *notes)
    _check_rescale(source, chosen)
    several = any(one.frames > 1 for one in chosen)
    volume = (_read_multi_frame if several else _read_slices)(source, chosen, notes)
    wanted, tags = IDENTITY | (PATIENT if patient_names else {}), chosen[0].tags
    said = {name: _plain(tags.get(tag, "")) for name, tag in wanted.items()}
    return replace(volume, identity={name: text for name, text in said.items() if text})


def _plain(text: str) -> str:
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


def _check_object(path: Path) -> None:
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


def _scan(paths: Iterable[Path]) -> list[Slice]:
    slices = []
    with captured():
        for path in paths:
            if found := _read_tags(path):
                slices.append(found)
    return slices


def _read_tags(path: Path) -> Slice | None:
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
    position, axes = _numbers(tags.get(POSITION, "")), _numbers(tags.get(ORIENTATION, ""))
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
    rows = _numbers(tags.get(PIXEL_SPACING, ""))
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


def _numbers(text: str) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return np.empty(0)
    return numbers if np.isfinite(numbers).all() else np.empty(0)


def _by_series(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Return the slices by series, none of them of two patients, studies, ..."""
    by_uid: dict[str, list[Slice]] = defaultdict(list)
    for found in slices:
        by_uid[found.tags.get(SERIES, "")].append(found)
    groups = []
    for uid, group in by_uid.items():
        parts = [group]
        for tags in (*OF_ONE_SERIES.values(), *(() if uid else OF_UNNAMED.values())):
            parts = [own for part in parts for own in _apart(part, tags)]
        groups += parts
    return groups


def _apart(group: list[Slice], tags: Sequence[str]) -> list[list[Slice]]:
    """Return the slices of each value; a value of its own for every slice tells nothing apart.

    Such values are invented file by file, as some anonymisation does with UIDs.
    """
    by_value: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    for one in group:
        by_value[_values(one, tags)].append(one)
    is_invented = len(by_value) == len(group) and all(one.frames == 1 for one in group)
    return [group] if is_invented else list(by_value.values())


def _values(one: Slice, tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(_plain(one.tags.get(tag, "")).casefold() for tag in tags)


def _difference(group: Sequence[Slice], other: Sequence[Slice]) -> str:
    """Return in what two series of one UID differ."""
    return next(
        what
        for what, tags in (OF_ONE_SERIES | OF_UNNAMED).items()
        if _values(group[0], tags) != _values(other[0], tags)
    )


def _count(group: Sequence[Slice]) -> int:
    return sum(found.frames for found in group)


def _fault(group: Sequence[Slice]) -> str:
    """Return why a series is not a CT volume, by its tags alone."""
    if group[0].modality != "CT":
        return f"its modality is {group[0].modality}"
    usable = [found for found in group if not found.fault]
    if 2 * _count(usable) < _count(group) or not usable:
        return group[0].fault or next(found.fault for found in group if found.fault)
    if _count(usable) < MIN_SLICES:
        plural = "s" if _count(usable) > 1 else ""
        return f"{_count(usable)} slice{plural}: not a volume"
    return ""


def _sorted(series: Iterable[Sequence[Slice]]) -> list[SeriesInfo]:
    return sorted((_info(group) for group in series), key=lambda s: (-s.slices, s.number))


def _uid(group: Sequence[Slice]) -> str:
    return group[0].tags.get(SERIES, "")


def _info(group: Sequence[Slice]) -> SeriesInfo:
    first = group[0]
    along = sorted(
        float(one.plane.position @ np.cross(*one.plane.axes))
        for one in group
        if one.plane.position.size and one.plane.axes.size
    )
    step = float(np.median(np.diff(along))) if len(along) > 1 else 0.0
    thickness = _numbers(first.tags.get(THICKNESS, ""))
    if not step and thickness.size == 1:
        step = float(thickness[0])
    number, description = first.tags.get(NUMBER, ""), first.tags.get(DESCRIPTION, "")
    return SeriesInfo(
        *(_uid(group), number, description, first.modality, _count(group)),
        (*first.plane.spacing, step),
        _fault(group),
        first.path,
    )


def _pick(
    folder: Path, found: list[Slice], member: Path | None, chosen: str
) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices of the series that is meant, and notes on others that state its UID."""
    if not found:
        raise InputError(folder, "contains no DICOM images")
    every = series = _by_series(found)
    if member is not None:
        series = [group for group in series if any(one.path == member for one in group)]
        if not series:
            raise InputError(member, "contains no DICOM image")
    if chosen:
        series = [g for g in series if chosen in (_uid(g), g[0].tags.get(NUMBER, ""))]
        if not series:
            listed = "; ".join(str(info) for info in _sorted(every))
            raise InputError(folder, f"has no series {chosen}; it has {listed}")
    volumes = [group for group in series if not _fault(group)]
    if not volumes:
        raise InputError(member or folder, _why_none(series))
    if len(volumes) > 1:
        listed = "; ".join(str(info) for info in _sorted(volumes))
        raise InputError(
            folder,
            f"contains {len(volumes)} CT series{_of_one_uid(volumes)}, choose one by its number "
            f"(--series) or give one of its files: {listed}",
        )
    (picked,) = volumes
    others = [group for group in every if group is not picked and _uid(group) == _uid(picked)]
    return picked, tuple(
        f"{counted(len(group), 'file')} with the series UID of the others "
        f"{'was' if len(group) == 1 else 'were'} left out: of another {_difference(picked, group)}"
        for group in others
    )


def _of_one_uid(volumes: Sequence[Sequence[Slice]]) -> str:
    """Return words for the first two series that state the same UID or none, else nothing."""
    for group, other in combinations(volumes, 2):
        if _uid(group) == _uid(other):
            what = "one series UID" if _uid(group) else "no series UID"
            return f", of which two state {what} but are of another {_difference(group, other)}"
    return ""


def _why_none(series: Sequence[Sequence[Slice]]) -> str:
    ct = [group for group in series if group[0].modality == "CT"]
    if not ct:
        modalities = ", ".join(sorted({group[0].modality for group in series}))
        return f"is not CT: its DICOM modality is {modalities}"
    longest = max(ct, key=_count)
    fault = _fault(longest)
    if "not a volume" in fault:
        return f"belongs to a CT series of {fault}"
    return f"contains no CT volume: its series of {_count(longest)} slices is {fault}"


def _without_odd_ones(source: Path, group: list[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    """Leave out what by its tags is not a slice of the volume, and say so.

    A single file whose direction differs from that of all others is a localizer without its tag.
    """
    left_out = {one.path: one.fault for one in group if one.fault}
    rest = [one for one in group if not one.fault]
    placed = [one for one in rest if one.plane.axes.size and one.frames == 1]
    if len(placed) == len(rest):
        usual = placed[len(placed) // 2].plane.axes
        odd = [one for one in placed if not np.allclose(one.plane.axes, usual, atol=0.5)]
        if len(odd) < MIN_SLICES <= len(rest) - len(odd):
            left_out |= {one.path: "of another direction" for one in odd}
    rest = [one for one in rest if one.path not in left_out]
    thick = {one.tags.get(THICKNESS, "") for one in rest}
    if len(thick) > 1:
        most = max(thick, key=lambda t: sum(one.tags.get(THICKNESS, "") == t for one in rest))
        one = next(one for one in rest if one.tags.get(THICKNESS, "") != most)
        if not _same_number(one.tags.get(THICKNESS, ""), most):
            raise InputError(
                source,
                f"has slices of different thickness: {one.path.name} is the odd one "
                f"({one.tags.get(THICKNESS, '') or 'none stated'} instead of {most} mm)",
            )
    notes = tuple(f"{path.name} was left out: it is {why}" for path, why in left_out.items())
    if len(notes) > 3:
        notes = (*notes[:2], f"{len(notes) - 2} more files were left out for such reasons")
    return rest, notes


def _same_number(a: str, b: str) -> bool:
    first, second = _numbers(a), _numbers(b)
    return bool(
        first.size and first.shape == second.shape and np.allclose(first, second, rtol=0.02)
    )


def _check_rescale(source: Path, group: Sequence[Slice]) -> None:
    """Refuse a slice without rescaling among others with it: it would be off by 1024 HU."""
    _check_alike_rescaled(source, [(one.path.name, bool(one.tags.get(INTERCEPT))) for one in group])


def _check_alike_rescaled(source: Path, said: Sequence[tuple[str, bool]]) -> None:
    """Compare slices or frames: the name of each, and whether it states a rescaling."""
    stated = [one for _, one in said]
    if any(stated) and not all(stated):
        odd, _ = said[stated.index(2 * sum(stated) < len(stated))]
        raise InputError(
            source, f"has slices with and without rescaling to HU: {odd} is the odd one"
        )


def _read_slices(source: Path, group: list[Slice], notes: tuple[str, ...]) -> Volume:
    stack = stack_of(source, [one.plane for one in group])
    ordered = [group[n] for n in stack.order]
    first = ordered[0].plane
    size = np.array([*first.size, len(ordered)])
    check_sizes(source, stack.spacing, size)
    try:
        with captured():
            if len({one.pixel for one in ordered}) == 1:
                array = _read_together(ordered)
            else:
                # The first slice's type would wrap around or cut off what others hold.
                array = np.stack(_common_type([_read_one(one.path)[0] for one in ordered]))
    except RuntimeError as error:
        raise InputError(
            source, "contains a series whose slices cannot be read together"
        ) from error
    for n, one in enumerate(ordered):
        if is_inverted(one.tags):
            array[n] = as_stated(array[n], one.tags)
    notes = (*notes, *tilt_notes(ordered[0].tags, first.axes))
    planes = tuple((str(one.path), 1) for one in ordered)
    stated = bool(ordered[0].tags.get(INTERCEPT))
    return replace(_volume(source, array, stack, stated, notes), planes=planes)


def _read_together(ordered: Sequence[Slice]) -> npt.NDArray[Any]:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(one.path) for one in ordered])
    return np.asarray(sitk.GetArrayFromImage(reader.Execute()))


def _read_one(path: Path) -> npt.NDArray[Any]:
    """Return a file's images (frames, J, I), rescaled as GDCM does."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    array = np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    return array if array.ndim == 3 else array[None]


def _common_type(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Return the arrays in one type that holds all their values; halves become float32."""
    kind = np.result_type(*(array.dtype for array in arrays))
    if np.issubdtype(kind, np.floating):
        kind = np.dtype(np.float32)
    return [array.astype(kind) for array in arrays]


def _read_multi_frame(source: Path, group: list[Slice], notes: tuple[str, ...]) -> Volume:
    """Enhanced images: frames pass the same checks as slices, across all files of the series."""
    frames: list[DicomFrame] = []
    arrays: list[npt.NDArray[Any]] = []
    planes: list[tuple[str, int]] = []
    left_out: list[str] = []
    for one in group:
        of_file = read_frames(one.path)
        if len(group) > 1:
            of_file = [
                replace(f, plane=replace(f.plane, name=f"{f.plane.name} of {one.path.name}"))
                for f in of_file
            ]
        try:
            with captured():
                array = _read_one(one.path)
        except RuntimeError as error:
            raise InputError(one.path, "is a truncated or damaged DICOM image") from error
        if len(array) != len(of_file):
            raise InputError(one.path, "is a multi-frame DICOM image with a damaged header")
        tags = [{IMAGE_TYPE: f.kind, RESCALE_TYPE: f.unit} for f in of_file]
        faults = [replace(one, tags=own).fault for own in tags]
        keep = [n for n, fault in enumerate(faults) if not fault]
        left = [(of_file[n].plane.name, fault) for n, fault in enumerate(faults) if fault]
        left_out += [f"{name} was left out: it is {fault}" for name, fault in left[:3]]
        frames += [of_file[n] for n in keep]
        planes += [(str(one.path), n + 1) for n in keep]
        arrays.append(rescaled(array, of_file)[keep])
    if len(frames) < MIN_SLICES:
        cause = f"has {counted(len(frames), 'usable frame')}: not a volume"
        raise InputError(source, f"{cause} ({left_out[0]})" if left_out else cause)
    _check_alike_rescaled(source, [(f.plane.name, f.is_rescaled) for f in frames])
    stack = stack_of(source, [frame.plane for frame in frames])
    array = np.concatenate(_common_type(arrays))[stack.order]
    check_sizes(source, stack.spacing, np.array(array.shape[::-1]))
    volume = _volume(source, array, stack, frames[0].is_rescaled, (*notes, *left_out))
    return replace(volume, planes=tuple(planes[n] for n in stack.order))


def _volume(
    source: Path,
    array: npt.NDArray[Any],
    stack: Stack,
    stated_hu: bool,
    notes: tuple[str, ...],
) -> Volume:
    """Set the geometry from the tags: ITK's own goes wrong silently where slices are missing."""
    matrix = np.eye(4)
    matrix[:3, :3] = stack.direction * stack.spacing
    matrix[:3, 3] = stack.origin
    return Volume(
        array,
        Grid(array.shape, matrix),
        *(source.name, str(source), notes),
        stated_hu=stated_hu,
    )
