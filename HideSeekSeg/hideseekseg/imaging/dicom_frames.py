"""The frames of an enhanced multi-frame DICOM image, each with what it states of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .slice_stack import Plane


@dataclass(frozen=True)
class DicomFrame:
    r"""One frame: its plane, its rescaling to HU and its type (``ORIGINAL\PRIMARY\...``).

    ``rescale`` (slope, intercept) is the frame's own, ``applied`` the one that GDCM applies to
    every frame of the file: the shared one, else that of the first frame.
    """

    plane: Plane
    rescale: tuple[float, float]
    applied: tuple[float, float]
    kind: str


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
        return [_frame(path, n, group, common, size, applied) for n, group in enumerate(groups)]
    except (InvalidDicomError, AttributeError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(path, "is a multi-frame DICOM image with a damaged header") from error


def _frame(
    path: Path,
    n: int,
    group: Any,
    shared: Any,
    size: tuple[int, int],
    applied: tuple[float, float],
) -> DicomFrame:
    position = _numbers(_value(group, shared, "PlanePositionSequence", "ImagePositionPatient"), 3)
    axes = _numbers(_value(group, shared, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    pixel = _numbers(_value(group, shared, "PixelMeasuresSequence", "PixelSpacing"), 2)
    if not pixel.size:
        raise InputError(path, f"states no pixel spacing in frame {n + 1}")
    kind = _value(group, shared, "CTImageFrameTypeSequence", "FrameType") or ()
    spacing = float(pixel[1]), float(pixel[0])
    return DicomFrame(
        Plane(f"frame {n + 1}", position, axes.reshape(-1, 3), spacing, size),
        _rescale(group, shared),
        applied,
        "\\".join(str(word) for word in kind),
    )


def _rescale(first: Any, second: Any) -> tuple[float, float]:
    """Slope and intercept where ``first`` states them, else those of ``second``."""
    sequence = "PixelValueTransformationSequence"
    slope = _value(first, second, sequence, "RescaleSlope")
    intercept = _value(first, second, sequence, "RescaleIntercept")
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
