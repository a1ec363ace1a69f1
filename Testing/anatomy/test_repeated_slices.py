"""Slices that are copies of others or empty are told, with what was really measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.vertebrae import cylinder, cylinder_ct, grid_around, reordered, scanned
from hideseekseg.anatomy.crop import crop_grid, take_crop
from hideseekseg.anatomy.intensity import Calibration
from hideseekseg.anatomy.quality import Quality, measure, remarks
from hideseekseg.anatomy.repeated_slices import SIDES, find_repeats
from hideseekseg.imaging.volume import Grid, Volume, bounding_box, resample
from hideseekseg.model.profile import Geometry, Limits

GEOMETRY = Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0, margin_pixels=1.0)
HU = Calibration(1.0, 0.0, is_hu=True)
CT, BODY = scanned()
ACROSS, BACK, UP = SIDES
MIDDLE = int(np.argwhere(BODY)[:, 0].mean())


def finer(grid: Grid, factors: tuple[float, float, float]) -> Grid:
    """The same field with so many times more voxels along i, j, k."""
    by = np.array(factors)
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, :3] /= by
    matrix[:3, 3] = grid.lps((1 / by - 1) / 2)
    k, j, i = (round(n * f) for n, f in zip(grid.shape, by[::-1]))
    return Grid((k, j, i), matrix)


def on_finer(factors: tuple[float, float, float], order: int = 0) -> tuple[Volume, np.ndarray]:
    grid = finer(CT.grid, factors)
    body = resample(Volume(BODY.astype(np.float32), CT.grid), grid, 0).array > 0.5
    return resample(CT, grid, order, fill=-1024.0), body


def measured(ct: Volume, body: np.ndarray) -> Quality:
    crop = take_crop(ct, body, crop_grid(body, ct.grid, GEOMETRY))
    return measure(ct, body, crop, GEOMETRY)


def said(ct: Volume, body: np.ndarray = BODY) -> dict[str, str]:
    found = remarks(measured(ct, body), HU, Limits(slice_mm=1.2))
    return {rule: found[rule] for rule in ("repeated", "empty slices") if rule in found}


def changed(values: dict[int, np.ndarray | float]) -> Volume:
    """The scan with other slices in place of some, by their number k."""
    array = CT.array.copy()
    for k, value in values.items():
        array[k] = value
    return replace(CT, array=array)


def test_a_usual_scan_repeats_nothing() -> None:
    assert find_repeats(CT, BODY) == ()
    assert said(CT) == {}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize(
    ("factors", "repeated"),
    [
        ((1, 1, 2), {UP: 1.5}),
        ((1, 1, 3), {UP: 1.5}),
        ((1, 1, 1.6), {UP: 1.5}),
        ((2, 1, 1), {ACROSS: 0.8}),
        ((2, 2, 1), {ACROSS: 0.8, BACK: 0.8}),
        ((2, 2, 2), {ACROSS: 0.8, BACK: 0.8, UP: 1.5}),
    ],
)
def test_nearest_neighbours_are_told_with_the_real_distance(
    factors: tuple[float, float, float], repeated: dict[str, float], order: tuple[int, int, int]
) -> None:
    ct, body = on_finer(factors)
    array, grid = reordered(ct.array, ct.grid, order, (1, -1, 1))
    mask, _ = reordered(body, ct.grid, order, (1, -1, 1))
    found = find_repeats(Volume(array, grid), mask)
    assert all(one.is_regular for one in found)
    assert {one.side: one.real_mm for one in found} == pytest.approx(repeated, rel=0.03)


def test_the_real_distance_counts_for_thickness_and_number_of_slices() -> None:
    ct, body = on_finer((1, 1, 2))
    found, before = measured(ct, body), measured(CT, BODY)
    assert found.slice_mm == pytest.approx(1.5)
    assert found.layers == pytest.approx(before.layers, abs=1)
    spoken = remarks(found, HU, Limits(slice_mm=1.2, layers=before.layers + 2))
    assert spoken["repeated"].endswith(f"{UP}, really 1.5 mm apart and not 0.75")
    assert {"thick slices", "few slices"} <= set(spoken)


def test_interpolated_slices_are_no_copies() -> None:
    assert find_repeats(*on_finer((1, 1, 2), order=1)) == ()


def test_pairs_that_differ_by_rounding_are_told() -> None:
    array = CT.array.astype(np.float64)
    array[1::2] = array[: len(array) // 2 * 2 : 2]
    array += np.random.default_rng(1).uniform(-0.4, 0.4, array.shape)
    (found,) = find_repeats(replace(CT, array=array), BODY)
    assert (found.side, found.is_regular) == (UP, True)
    assert found.real_mm == pytest.approx(3.0)


@pytest.mark.parametrize("count", [1, 4])
def test_a_gap_that_is_filled_with_copies_is_told_with_their_number(count: int) -> None:
    last = changed({MIDDLE + n: CT.array[MIDDLE - 1] for n in range(count)})
    block = changed({MIDDLE + n: CT.array[MIDDLE + n - count] for n in range(count)})
    height = bounding_box(BODY)[0]
    share = f"{count} of {height.stop - height.start} through the body"
    for ct in (last, block):
        assert said(ct) == {"repeated": f"slices of the CT are repeated {UP}, {share}"}
        found = measured(ct, BODY)
        assert found.slice_mm == pytest.approx(1.5), "most slices are as far apart as is said"


@pytest.mark.parametrize("value", [-1024.0, 0.0, 60.0])
def test_a_gap_that_is_filled_with_one_value_is_told(value: float) -> None:
    height = bounding_box(BODY)[0]
    share = f"3 of {height.stop - height.start}"
    found = said(changed({MIDDLE + n: value for n in range(3)}))
    assert found == {"empty slices": f"{share} slices of the CT through the body are empty"}


def test_padding_around_the_body_is_no_copy() -> None:
    height = bounding_box(BODY)[0]
    outside = [k for k in range(len(CT.array)) if not height.start <= k < height.stop]
    assert said(changed(dict.fromkeys(outside, -1024.0))) == {}
    array = np.where(np.indices(CT.array.shape)[2] < 20, -2000.0, CT.array)
    assert said(replace(CT, array=array)) == {}


def test_one_value_in_the_body_alone_is_no_empty_slice() -> None:
    array = CT.array.copy()
    array[MIDDLE][BODY.any(axis=0)] = 700
    assert said(replace(CT, array=array)) == {}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5)])
def test_a_phantom_without_noise_repeats_nothing(spacing: tuple[float, float, float]) -> None:
    grid = grid_around(spacing)
    body = cylinder(grid)
    for ct in (
        cylinder_ct(grid),
        Volume(np.where(body, 300, 40).astype(np.int16), grid),
        Volume(np.full(grid.shape, 40, np.int16), grid),
        replace(cylinder_ct(grid), array=np.broadcast_to(cylinder_ct(grid).array[30], grid.shape))
        if grid.shape[0] > 30
        else cylinder_ct(grid),
    ):
        assert find_repeats(ct, body) == ()
