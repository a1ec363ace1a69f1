"""Whether slices or frames form one even, upright stack, and in which order.

Every slice's own position counts, not each gap: small deviations add up along a long series.  The
frames of an enhanced multi-frame DICOM image state theirs in functional groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, TiltedGantryError

Floats = npt.NDArray[np.float64]

# How far any slice may lie from where an even, upright stack has it.
MAX_ERROR_MM = 0.5
MAX_DRIFT_MM = 1.0
MAX_COSINE = 1e-3
# A gap of so many steps lacks a slice; smaller deviations are uneven steps.
MISSING_STEPS = 1.6
RESCALE = "PixelValueTransformationSequence"  # of a frame, or of all


@dataclass(frozen=True)
class Plane:
    """Where one slice lies.

    ``position`` (3,) is LPS mm of its first voxel, ``axes`` (2, 3) its row and column direction;
    both are empty where the file does not state them.  ``spacing`` is mm along row and column, 0
    where it does not; ``size`` counts columns and rows.  ``name`` is what a message calls it.
    """

    name: str
    position: Floats
    axes: Floats
    spacing: tuple[float, float]
    size: tuple[int, int]


@dataclass(frozen=True)
class Stack:
    """An even stack: ``order`` sorts its slices along ``direction``'s third column.

    ``origin`` is LPS mm; ``spacing`` is along i, j, k; ``direction`` (3, 3) has columns i, j, k.
    """

    order: npt.NDArray[np.intp]
    origin: Floats
    spacing: Floats
    direction: Floats


def stack_of(path: Path, planes: Sequence[Plane]) -> Stack:
    """Return how the slices of one series are stacked.

    Raises InputError, with ``path``, the cause and the slice at fault, where a slice states no
    position or no pixel spacing, differs in size, spacing or direction, is missing or doubled, or
    lies more than ``MAX_ERROR_MM`` from where an even stack has it, and for a tilted gantry.
    """
    first = planes[len(planes) // 2]
    for plane in planes:
        if not plane.position.size or not plane.axes.size:
            cause = "states no position or orientation in the patient in"
            raise InputError(path, f"{cause} {plane.name}")
        if min(plane.spacing) <= 0:
            raise InputError(path, f"states no pixel spacing in {plane.name}")
    for plane in planes:
        _check_alike(path, plane, first)
    row, column = first.axes
    if not np.allclose(first.axes @ first.axes.T, np.eye(2), atol=MAX_COSINE):
        raise InputError(path, f"states axes that are not at right angles in {first.name}")
    normal = np.cross(row, column)
    positions = np.stack([plane.position for plane in planes])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    names = [planes[n].name for n in order]
    step = _even_step(path, positions @ normal, names)
    _check_upright(path, positions, normal)
    return Stack(
        order,
        positions[0],
        np.array([*first.spacing, step]),
        np.column_stack([row, column, normal]),
    )


def _check_alike(path: Path, plane: Plane, first: Plane) -> None:
    if plane.size != first.size or not np.allclose(plane.spacing, first.spacing, rtol=1e-3):
        raise InputError(
            path, f"has slices that differ in size or pixel spacing: {plane.name} is the odd one"
        )
    if not np.allclose(plane.axes, first.axes, atol=MAX_COSINE):
        raise InputError(
            path, f"has slices that differ in orientation: {plane.name} is the odd one"
        )


def _even_step(path: Path, heights: Floats, names: Sequence[str]) -> float:
    """Return the distance of neighbouring slices in mm; ``heights`` ascend along the normal."""
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        at = int(np.argmin(gaps))
        raise InputError(
            path,
            f"has several slices at the same position: {names[at]} and {names[at + 1]} "
            f"at {heights[at]:.1f} mm",
        )
    at = int(np.argmax(gaps))
    if gaps[at] > MISSING_STEPS * usual:
        raise InputError(
            path,
            f"lacks slices: {gaps[at]:.2f} mm between {names[at]} and {names[at + 1]} "
            f"(positions {heights[at]:.1f} and {heights[at + 1]:.1f} mm), elsewhere {usual:.2f} mm",
        )
    even = np.linspace(heights[0], heights[-1], len(heights))
    error = np.abs(heights - even)
    if error.max() > MAX_ERROR_MM:
        at = int(np.argmax(error))
        raise InputError(
            path,
            f"has uneven steps of {gaps.min():.2f} to {gaps.max():.2f} mm: {names[at]} lies "
            f"{error[at]:.1f} mm from where an even stack has it",
        )
    return float(gaps.mean())


def _check_upright(path: Path, positions: Floats, normal: Floats) -> None:
    along = (positions - positions[0]) @ normal
    drift = np.linalg.norm(positions - positions[0] - np.outer(along, normal), axis=1)
    if drift.max() > MAX_DRIFT_MM:
        tilt = np.degrees(np.arctan2(drift[-1], along[-1]))
        raise TiltedGantryError(
            path,
            f"was taken with a tilted gantry ({tilt:.1f} degrees, {drift.max():.1f} mm at its end):"
            " resample it to a rectangular grid first",
        )


@dataclass(frozen=True)
class DicomFrame:
    r"""One frame: its plane, its rescaling to HU and its type (``ORIGINAL\PRIMARY\...``).

    ``rescale`` (slope, intercept) is the frame's own, ``applied`` the one that GDCM applies to
    every frame of the file: the shared one, else that of the first frame.  ``is_rescaled`` tells
    whether the frame states one, ``unit`` what the values are then (``HU``, ...).
    """

    plane: Plane
    rescale: tuple[float, float]
    applied: tuple[float, float]
    kind: str
    unit: str
    is_rescaled: bool


def read_frames(path: Path) -> list[DicomFrame]:
    """Return the frames of a multi-frame image in stored order.

    Raises InputError where the file states no position for each frame, or where pydicom, which
    reads its nested header, is not installed.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise InputError(
            path, "is a multi-frame DICOM image, which needs pydicom: pip install pydicom"
        ) from None
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        count = int(dataset.NumberOfFrames)
        shared = list(dataset.get("SharedFunctionalGroupsSequence", []))
        groups = list(dataset.get("PerFrameFunctionalGroupsSequence", []))
        if len(groups) != count:
            raise InputError(
                path,
                f"is a multi-frame image that states positions for {len(groups)} of its "
                f"{count} frames",
            )
        size = int(dataset.Columns), int(dataset.Rows)
        common = shared[0] if shared else None
        applied = _rescale(common, groups[0]) if groups else (1.0, 0.0)
        return [_frame(n, group, common, size, applied) for n, group in enumerate(groups)]
    except (InvalidDicomError, AttributeError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(path, "is a multi-frame DICOM image with a damaged header") from error


def _frame(
    n: int,
    group: Any,
    shared: Any,
    size: tuple[int, int],
    applied: tuple[float, float],
) -> DicomFrame:
    position = _numbers(_value(group, shared, "PlanePositionSequence", "ImagePositionPatient"), 3)
    axes = _numbers(_value(group, shared, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    pixel = _numbers(_value(group, shared, "PixelMeasuresSequence", "PixelSpacing"), 2)
    kind = _value(group, shared, "CTImageFrameTypeSequence", "FrameType") or ()
    spacing = (float(pixel[1]), float(pixel[0])) if pixel.size else (0.0, 0.0)
    unit = _value(group, shared, RESCALE, "RescaleType")
    return DicomFrame(
        Plane(f"frame {n + 1}", position, axes.reshape(-1, 3), spacing, size),
        _rescale(group, shared),
        applied,
        "\\".join(str(word) for word in ([kind] if isinstance(kind, str) else kind)),
        "" if unit is None else str(unit),
        _value(group, shared, RESCALE, "RescaleIntercept") is not None,
    )


def _rescale(first: Any, second: Any) -> tuple[float, float]:
    """Slope and intercept where ``first`` states them, else those of ``second``."""
    slope = _value(first, second, RESCALE, "RescaleSlope")
    intercept = _value(first, second, RESCALE, "RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _value(group: Any, shared: Any, sequence: str, keyword: str) -> Any:
    """Return a value of one frame: its own, else the one that all frames share, else None."""
    for source in (group, shared):
        items = None if source is None else source.get(sequence)
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return None


def _numbers(values: Any, count: int) -> npt.NDArray[np.float64]:
    """So many finite numbers, else an empty array."""
    numbers = np.array([float(v) for v in values or ()])
    return numbers if numbers.size == count and np.isfinite(numbers).all() else np.empty(0)


def rescaled(array: npt.NDArray[Any], frames: list[DicomFrame]) -> npt.NDArray[Any]:
    """Return an image (frames, J, I) as GDCM reads it with each frame's own rescaling."""
    if all(frame.rescale == frame.applied for frame in frames):
        return array
    slope, intercept = np.array([frame.rescale for frame in frames]).T[:, :, None, None]
    applied_slope, applied_intercept = frames[0].applied
    stored = (array.astype(np.float64) - applied_intercept) / applied_slope
    return np.asarray(stored * slope + intercept, np.float32)
