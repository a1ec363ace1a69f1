"""Whether slices or frames form one even, upright stack, and in which order.

Every slice's own position counts, not each gap: small deviations add up along a long series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Plane:
    """Where one slice lies.

    ``position`` (3,) is LPS mm of its first voxel, ``axes`` (2, 3) its row and column direction;
    both are empty where the file does not state them.  ``spacing`` is mm along row and column,
    ``size`` counts columns and rows.  ``name`` is what a message calls the slice.
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
    position, differs in size, spacing or direction, is missing or doubled, or lies more than
    ``MAX_ERROR_MM`` from where an even stack has it, and for a tilted gantry.
    """
    first = planes[len(planes) // 2]
    for plane in planes:
        if not plane.position.size or not plane.axes.size:
            cause = "states no position or orientation in the patient in"
            raise InputError(path, f"{cause} {plane.name}")
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
