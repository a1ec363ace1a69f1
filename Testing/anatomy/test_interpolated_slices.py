"""A CT that was resampled to finer voxels counts by the slices that were measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.vertebrae import reordered, scanned
from hideseekseg.anatomy.crop import crop_grid, take_crop
from hideseekseg.anatomy.intensity import Calibration
from hideseekseg.anatomy.interpolated_slices import measured_mm
from hideseekseg.anatomy.quality import Quality, measure, measured_layers, remarks
from hideseekseg.imaging.volume import Grid, Volume, resample
from hideseekseg.model.profile import Geometry, Limits

GEOMETRY = Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0, margin_pixels=1.0)
HU = Calibration(1.0, 0.0, is_hu=True)
CT, BODY = scanned()  # voxels of 0.8 x 0.8 x 1.5 mm


def finer(factors: tuple[float, float, float], begin: float = 0.0) -> tuple[Volume, np.ndarray]:
    """The scan with so many times more voxels along i, j, k, by linear interpolation.

    The first new slice lies ``begin`` of a slice after the first one.
    """
    by = np.array(factors)
    matrix = CT.grid.ijk_to_lps.copy()
    matrix[:3, :3] /= by
    matrix[:3, 3] = CT.grid.lps(np.array((0.0, 0.0, begin)))
    k, j, i = (int((n - 2) * f) + 1 for n, f in zip(CT.grid.shape, by[::-1]))
    grid = Grid((k, j, i), matrix)
    body = resample(Volume(BODY.astype(np.float32), CT.grid), grid, 0).array > 0.5
    return resample(CT, grid, 1, fill=-1024.0), body


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize(
    ("factors", "apart"),
    [
        ((1, 1, 2), (1.5, 0.8, 0.8)),
        ((1, 1, 3), (1.5, 0.8, 0.8)),
        ((1, 1, 3.4), (1.5, 0.8, 0.8)),
        ((1, 1, 5), (1.5, 0.8, 0.8)),
        ((2, 1, 1), (1.5, 0.8, 0.8)),
        ((2, 2, 2), (1.5, 0.8, 0.8)),
    ],
)
def test_linear_interpolation_is_told_with_the_measured_distance(
    factors: tuple[float, float, float],
    apart: tuple[float, float, float],
    order: tuple[int, int, int],
) -> None:
    ct, body = finer(factors)
    array, grid = reordered(ct.array, ct.grid, order, (1, -1, 1))
    mask, _ = reordered(body, ct.grid, order, (1, -1, 1))
    found = measured_mm(Volume(array, grid), mask)
    assert found == pytest.approx([apart[axis] for axis in order], rel=0.03)


@pytest.mark.parametrize("ratio", [2.2, 2.4, 2.56, 2.73, 2.9, 3.03])
def test_measured_slices_need_not_lie_at_whole_steps(ratio: float) -> None:
    """2.5 mm to the 0.977 mm of the pixels, say: often no new slice is between two old ones."""
    for begin in (0.0, 0.3):
        assert measured_mm(*finer((1, 1, ratio), begin))[0] == pytest.approx(1.5, rel=0.005)


@pytest.mark.parametrize("beyond", [2, 9])
def test_padding_beyond_the_scan_hides_no_interpolation(beyond: int) -> None:
    """Resampling to a larger grid repeats the last slice for half its thickness, then pads."""
    ct, body = finer((1, 1, 4))
    rim = np.repeat(ct.array[-1:], 2, axis=0), np.full((beyond, *ct.array.shape[1:]), -1024)
    array = np.concatenate([ct.array, *rim]).astype(np.int16)
    mask = np.concatenate([body, np.zeros((2 + beyond, *body.shape[1:]), bool)])
    assert measured_mm(Volume(array, Grid(array.shape, ct.grid.ijk_to_lps)), mask)[0] == 1.5


def test_slices_that_were_filled_in_make_no_other_distance() -> None:
    """Every third is the mean of those beside it: the others were measured where they lie."""
    own = tuple(CT.grid.spacing[::-1])
    array = CT.array.astype(float)
    array[1:-1:3] = (array[:-2:3] + array[2::3])[: len(array[1:-1:3])] / 2
    assert measured_mm(replace(CT, array=np.round(array).astype(np.int16)), BODY) == own


@pytest.mark.parametrize("begin", [0.3, 0.5])
def test_measured_slices_may_lie_between_those_of_the_file(begin: float) -> None:
    ct, body = finer((1, 1, 4), begin)
    assert measured_mm(ct, body)[0] == pytest.approx(1.5, rel=0.03)


def test_values_may_be_of_any_kind() -> None:
    """Whole numbers in another type, and numbers that nobody rounded."""
    ct, body = finer((1, 1, 3))
    assert measured_mm(replace(ct, array=ct.array.astype(np.float32)), body)[0] == 1.5
    exact = replace(CT, array=CT.array.astype(np.float32) / 7)
    assert measured_mm(resample(exact, ct.grid, 1, fill=-200.0), body)[0] == pytest.approx(1.5)


def test_what_was_measured_is_not_called_interpolated() -> None:
    own = tuple(CT.grid.spacing[::-1])
    assert measured_mm(CT, BODY) == own
    smooth = replace(CT, array=np.full_like(CT.array, 150))
    ramp = np.broadcast_to(np.arange(len(CT.array))[:, None, None] * 3, CT.array.shape)
    for array in (smooth.array, ramp.astype(np.int16), CT.array[::-1].copy()):
        assert measured_mm(replace(CT, array=array), BODY) == own
    thick = (CT.array[:-2].astype(float) + CT.array[1:-1] + CT.array[2:]) / 3  # they overlap
    ct = Volume(np.round(thick).astype(np.int16), CT.grid.cut((1, 0, 0), thick.shape))
    assert measured_mm(ct, BODY[1:-1]) == own


def quality(ct: Volume, body: np.ndarray) -> Quality:
    crop = take_crop(ct, body, crop_grid(body, ct.grid, GEOMETRY))
    return measure(ct, body, crop, GEOMETRY)


def test_whole_numbers_of_measured_slices_are_not_rounded_up() -> None:
    """54 slices that stand for 9 are 9, whatever the distance of slices is."""
    for spacing in (0.3, 0.7, 1.2):
        apart = np.array([6 * spacing, spacing, spacing])
        counted = measured_layers(np.array([54, 30, 31]), np.full(3, spacing), apart)
        assert counted == [9, 30, 31]
    uneven = measured_layers(np.array([55, 30, 31]), np.ones(3), np.array([6.0, 1.0, 1.0]))
    assert uneven == [10, 30, 31]


def test_interpolation_is_not_said_of_slices_that_are_copies() -> None:
    ct, body = finer((1, 1, 3))
    copied = np.arange(ct.array.shape[2]) // 3 * 3
    found = quality(replace(ct, array=ct.array[..., copied]), body)
    assert found.repeated and found.slice_mm == pytest.approx(2.4)
    said = remarks(found, HU, Limits(slice_mm=1.2))
    assert said["thick slices"] == "slices thicker than in training (2.4 mm)"


def test_the_measured_distance_counts_for_thickness_and_number_of_slices() -> None:
    before, after = quality(CT, BODY), quality(*finer((1, 1, 3)))
    assert after.slice_mm == pytest.approx(before.slice_mm)
    assert after.layers == pytest.approx(before.layers, abs=1)
    limits = Limits(slice_mm=1.2, layers=before.layers + 2)
    said = remarks(after, HU, limits)
    assert said["thick slices"] == "slices thicker than in training (1.5 mm, interpolated to 0.5)"
    assert "few slices" in said
    plain = remarks(before, HU, limits)
    assert plain["thick slices"] == "slices thicker than in training (1.5 mm)"
