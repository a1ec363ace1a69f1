"""A CT volume from a folder of DICOM files: the slices of one series, checked and read together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..errors import InputError
from ..plain_data import counted
from .dicom_headers import IDENTITY, IMAGE_TYPE, PATIENT, RESCALE_TYPE, Slice, plain_text
from .dicom_series import MIN_SLICES, chosen_slices, without_odd_ones
from .image_file import captured, check_sizes
from .slice_stack import DicomFrame, Stack, read_frames, rescaled, stack_of
from .stored_pixels import INTERCEPT, as_stated, is_inverted, read_pixels, tilt_notes
from .volume import FRAME_OF_REFERENCE, Grid, Volume


def check_series(folder: Path, member: Path | None = None, series: str = "") -> str:
    """Return the UID of a series' frame of reference, empty where it states none.

    Raises InputError where the tags alone show that ``read_series`` would refuse the folder.
    """
    source = member or folder
    chosen, _ = chosen_slices(folder, member, series)
    chosen, _ = without_odd_ones(source, chosen)
    _check_rescale(source, chosen)
    if all(one.frames == 1 for one in chosen):
        stack_of(source, [one.plane for one in chosen])
    return plain_text(chosen[0].tags.get(IDENTITY[FRAME_OF_REFERENCE], ""))


def read_series(
    folder: Path, member: Path | None = None, series: str = "", patient_names: bool = False
) -> Volume:
    """Return the CT series of a folder and the folders in it, slices in order of position.

    Localizers, projections, material maps, series of fewer than ``MIN_SLICES`` slices and other
    modalities are passed over; what is left out of the chosen series is named in ``notes``, where
    copies of slices are counted.  Slices of different patients, studies or frames of reference are
    of different series, though they may state one UID, or none.  Where several CT series remain,
    none is guessed: the error lists them.
    ``series`` chooses one by its UID or its number, ``member`` by one of its files (then among the
    files beside it).  With ``patient_names`` the volume's identity holds the patient's name and
    number as well.

    Raises InputError when there is no such series or more than one, when a folder cannot be looked
    into or a link leads nowhere, and when its slices are missing, doubled, uneven, damaged, of
    different shape or direction, or taken with a tilted gantry.
    """
    source = member or folder
    chosen, others = chosen_slices(folder, member, series)
    chosen, notes = without_odd_ones(source, chosen)
    notes = (*others, *notes)
    _check_rescale(source, chosen)
    several = any(one.frames > 1 for one in chosen)
    volume = (_read_multi_frame if several else _read_slices)(source, chosen, notes)
    wanted, tags = IDENTITY | (PATIENT if patient_names else {}), chosen[0].tags
    said = {name: plain_text(tags.get(tag, "")) for name, tag in wanted.items()}
    return replace(volume, identity={name: text for name, text in said.items() if text})


def _check_rescale(source: Path, group: Sequence[Slice]) -> None:
    """Refuse a slice without rescaling among others with it: it would be off by 1024 HU."""
    _check_alike_rescaled(
        source, [(one.plane.name, bool(one.tags.get(INTERCEPT))) for one in group]
    )


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
                array = np.stack(_common_type([read_pixels(one.path)[0] for one in ordered]))
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
                replace(f, plane=replace(f.plane, name=f"{f.plane.name} of {one.plane.name}"))
                for f in of_file
            ]
        try:
            with captured():
                array = read_pixels(one.path)
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
