"""A CT volume from a folder of DICOM slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..errors import InputError
from .image_file import first_bytes, hushed, read_image

MIN_SLICES = 4
GAP_TOLERANCE = 0.1
MAX_TILT = 1e-2
PIXEL_DATA = b"\xe0\x7f\x10\x00"

MODALITY, SERIES, DESCRIPTION = "0008|0060", "0020|000e", "0008|103e"
POSITION, ORIENTATION = "0020|0032", "0020|0037"


@dataclass(frozen=True)
class Slice:
    """One DICOM file; ``position`` (3,) is LPS mm and ``axes`` (2, 3) its row and column direction.

    Both are empty where the file does not say.  ``size`` counts columns, rows and frames.
    """

    path: Path
    modality: str
    series: str
    description: str
    position: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    size: tuple[int, ...]
    spacing: tuple[float, ...]


def is_dicom(path: Path) -> bool:
    """By content: DICOM files often have no suffix."""
    return first_bytes(path, 132)[128:] == b"DICM"


def read_series(folder: Path, member: Path | None = None) -> sitk.Image:
    """The CT series of a folder and the folders in it, slices in order of position.

    Scouts (fewer than ``MIN_SLICES`` slices) and other modalities are passed over.  Where several
    CT series remain, none is guessed: the error lists one file of each, and that file given as
    ``member`` picks its series among the files beside it.

    Raises InputError when there is no CT series or more than one, and when slices are missing,
    doubled, damaged, of different shape or direction, or taken with a tilted gantry.
    """
    slices = _scan(folder.glob("*") if member else folder.rglob("*"))
    chosen = _pick(folder, slices, member)
    if len(chosen) == 1 and len(chosen[0].size) == 3 and chosen[0].size[2] > 1:
        return read_image(chosen[0].path)
    _check_alike(folder, chosen)
    return _stack(folder, chosen)


def _scan(paths: Iterable[Path]) -> list[Slice]:
    slices = []
    with hushed():
        for path in sorted(paths):
            if path.is_file() and (found := _read_tags(path)):
                slices.append(found)
    return slices


def _read_tags(path: Path) -> Slice | None:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if is_dicom(path) and PIXEL_DATA in path.read_bytes():
            raise InputError(path, "is a truncated or damaged DICOM image") from error
        return None  # a report, a directory of the disc, or no DICOM at all
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    position, axes = _numbers(tags.get(POSITION, "")), _numbers(tags.get(ORIENTATION, ""))
    return Slice(
        path,
        tags.get(MODALITY, "unknown"),
        tags.get(SERIES, ""),
        tags.get(DESCRIPTION, ""),
        position if position.size == 3 else np.empty(0),
        axes.reshape(2, 3) if axes.size == 6 else np.empty((0, 3)),
        tuple(reader.GetSize()),
        tuple(reader.GetSpacing()),
    )


def _numbers(text: str) -> npt.NDArray[np.float64]:
    try:
        return np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return np.empty(0)


def _pick(folder: Path, slices: list[Slice], member: Path | None) -> list[Slice]:
    if not slices:
        raise InputError(folder, "holds no DICOM images")
    series: dict[str, list[Slice]] = defaultdict(list)
    for found in slices:
        series[found.series].append(found)
    if member is not None:
        given = [found for found in slices if found.path == member]
        if not given:
            raise InputError(member, "holds no DICOM image")
        series = {given[0].series: series[given[0].series]}
    ct = [group for group in series.values() if group[0].modality == "CT"]
    if not ct:
        found_modalities = ", ".join(sorted({group[0].modality for group in series.values()}))
        raise InputError(member or folder, f"is not CT: its DICOM modality is {found_modalities}")
    volumes = [group for group in ct if _count(group) >= MIN_SLICES]
    if not volumes:
        count = max(_count(group) for group in ct)
        plural = "s" if count > 1 else ""
        raise InputError(
            member or folder, f"belongs to a CT series of {count} slice{plural}: not a volume"
        )
    if len(volumes) > 1:
        listed = "; ".join(_describe(group) for group in sorted(volumes, key=_count, reverse=True))
        raise InputError(
            folder, f"holds {len(volumes)} CT series, give one file of the one you mean: {listed}"
        )
    return volumes[0]


def _count(group: list[Slice]) -> int:
    return sum(found.size[2] if len(found.size) > 2 else 1 for found in group)


def _describe(group: list[Slice]) -> str:
    return f"{group[0].path} ({group[0].description or 'no description'}, {_count(group)} slices)"


def _check_alike(folder: Path, slices: list[Slice]) -> None:
    first = slices[0]
    for other in slices:
        if not other.position.size or not other.axes.size:
            raise InputError(other.path, "says no position or orientation in the patient")
        if other.size != first.size or not np.allclose(other.spacing[:2], first.spacing[:2]):
            raise InputError(folder, "holds a series whose slices differ in size or pixel spacing")
        if not np.allclose(other.axes, first.axes, atol=1e-3):
            raise InputError(folder, "holds a series whose slices differ in orientation")
    if not np.allclose(first.axes @ first.axes.T, np.eye(2), atol=1e-3):
        raise InputError(first.path, "says an orientation whose axes are not at right angles")


def _stack(folder: Path, slices: list[Slice]) -> sitk.Image:
    """The geometry is set from the tags: ITK's own goes wrong silently where slices are missing."""
    row, column = slices[0].axes
    normal = np.cross(row, column)
    slices = sorted(slices, key=lambda found: float(found.position @ normal))
    positions = np.stack([found.position for found in slices])
    step = _even_step(folder, positions @ normal)
    drift = positions - positions[0] - np.outer((positions - positions[0]) @ normal, normal)
    if np.abs(drift).max() > MAX_TILT * step * len(slices):
        raise InputError(
            folder, "was taken with a tilted gantry; resample it to a rectangular grid first"
        )
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(found.path) for found in slices])
    try:
        with hushed():
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(folder, "holds a series whose slices cannot be read together") from error
    image.SetOrigin([float(x) for x in positions[0]])
    image.SetSpacing([*slices[0].spacing[:2], step])
    image.SetDirection([float(x) for x in np.column_stack([row, column, normal]).ravel()])
    return image


def _even_step(folder: Path, heights: npt.NDArray[np.float64]) -> float:
    """Distance of neighbouring slices in mm; ``heights`` ascend along the normal."""
    gaps = np.diff(heights)
    step = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise InputError(folder, "holds a series with several slices at the same position")
    odd = np.flatnonzero(np.abs(gaps - step) > GAP_TOLERANCE * step)
    if odd.size:
        at = odd[0]
        raise InputError(
            folder,
            f"lacks slices or has uneven ones: {gaps[at]:.2f} mm between positions "
            f"{heights[at]:.1f} and {heights[at + 1]:.1f} mm, elsewhere {step:.2f} mm",
        )
    return float(gaps.mean())
