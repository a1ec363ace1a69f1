"""How DICOM slices store their pixels, where GDCM's own answer is not what they state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

PHOTOMETRIC, SAMPLES = "0028|0004", "0028|0002"
BITS_STORED, HIGH_BIT, IS_SIGNED = "0028|0101", "0028|0102", "0028|0103"
INTERCEPT, SLOPE = "0028|1052", "0028|1053"
TILT = "0018|1120"
# Degrees of a stated gantry tilt that move slices by less than a voxel over a vertebra.
LEAST_TILT = 1.0
INVERTED, USUAL = "MONOCHROME1", "MONOCHROME2"


def read_pixels(path: Path) -> npt.NDArray[Any]:
    """Return a file's images (frames, J, I), rescaled as GDCM does; RuntimeError where it fails."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    array = np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    return array if array.ndim == 3 else array[None]


def pixel_fault(tags: Mapping[str, str], frames: int = 1) -> str:
    """Return what forbids to take a file's pixels for those of a CT, empty where nothing does."""
    shown = tags.get(PHOTOMETRIC, "").strip().upper()
    if shown not in ("", INVERTED, USUAL) or tags.get(SAMPLES, "").strip() not in ("", "1"):
        return "a colour picture"
    stored, high = _integer(tags, BITS_STORED), _integer(tags, HIGH_BIT)
    if stored is not None and high is not None and high != stored - 1:
        return f"stored with shifted bits (its high bit is {high}, with {stored} bits stored)"
    if shown == INVERTED and (frames > 1 or stored is None):
        return f"stored for an inverted display ({INVERTED})"
    return ""


def is_inverted(tags: Mapping[str, str]) -> bool:
    """Whether GDCM turns a slice's values upside down."""
    return tags.get(PHOTOMETRIC, "").strip().upper() == INVERTED


def as_stated(array: npt.NDArray[Any], tags: Mapping[str, str]) -> npt.NDArray[Any]:
    """Return the values that an inverted slice states, from what GDCM makes of it.

    ``MONOCHROME1`` says that low values are shown bright, and nothing of what they mean: after
    rescaling they are HU like those of any other slice.  GDCM turns the stored values upside down
    so that all slices can be shown alike.
    """
    stored = _integer(tags, BITS_STORED) or 16
    ends = -1 if _integer(tags, IS_SIGNED) else (1 << stored) - 1  # lowest and highest added up
    slope, intercept = _number(tags, SLOPE) or 1.0, _number(tags, INTERCEPT) or 0.0
    return np.asarray(slope * ends + 2 * intercept - array.astype(np.float64), array.dtype)


def tilt_notes(tags: Mapping[str, str], axes: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """Return a remark on a gantry tilt that slices state while their ``axes`` are those of none.

    Slices whose positions and directions show a tilt are refused.  Those that only state it were
    made straight by their scanner, or lost their directions, and the volume is sheared.
    """
    tilt = abs(_number(tags, TILT) or 0.0)
    lean = np.degrees(np.arccos(min(1.0, abs(float(np.cross(*axes)[2])))))
    if not LEAST_TILT <= tilt < 90 or lean > tilt / 2:
        return ()
    return (
        f"the gantry was tilted by {tilt:g} degrees, which the directions of the slices do not "
        "show: if they were not made straight afterwards, positions, shapes and sizes are wrong",
    )


def _integer(tags: Mapping[str, str], tag: str) -> int | None:
    try:
        return int(tags.get(tag, ""))
    except ValueError:
        return None


def _number(tags: Mapping[str, str], tag: str) -> float | None:
    try:
        number = float(tags.get(tag, ""))
    except ValueError:
        return None
    return number if np.isfinite(number) else None
