"""Crops show the same patch of the patient however the CT is stored; masks find their way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.vertebrae import (
    CENTRE,
    DEPTH,
    HEIGHT,
    UPRIGHT,
    WIDTH,
    cylinder,
    cylinder_ct,
    dice,
    grid_around,
    reordered,
    tilted,
)
from hideseekseg.anatomy.crop import (
    Mask,
    body_axes,
    bounding_box,
    crop_grid,
    feathered,
    take_crop,
    to_ct,
)
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.model.profile import Geometry

RAW = Geometry()
ALIGNED = Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0)
SIMPLE = grid_around((1.0, 1.0, 1.0))
OBLIQUE = np.asarray(Rotation.from_rotvec([0.15, -0.2, 0.1]).as_matrix())
STORED = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)

# Tenths of degrees: ITK cannot invert a matrix with numbers near the smallest float.
tenths = st.integers(-300, 300).map(lambda n: n / 10)
spacings = st.tuples(*[st.integers(8, 20).map(lambda n: n / 10)] * 3)


@pytest.mark.parametrize("geometry", [RAW, ALIGNED], ids=lambda g: g.kind)
@pytest.mark.parametrize("direction", [UPRIGHT, OBLIQUE], ids=["upright", "oblique"])
def test_slices_run_right_rows_back_columns_down(geometry: Geometry, direction: np.ndarray) -> None:
    grid = grid_around((1.0, 0.9, 1.1), direction)
    body = cylinder(grid)
    k, j, i = np.indices(grid.shape)
    away = grid.lps(np.stack([i, j, k], -1)) - (CENTRE + np.array([-9.0, 6.0, -7.0]))
    marker = Volume(np.exp(-((away**2).sum(-1)) / 8).astype(np.float32), grid)
    crop = take_crop(marker, body, crop_grid(body, grid, geometry))
    middle = (np.array(crop.image.shape) - 1) / 2
    peak = np.unravel_index(crop.image.argmax(), crop.image.shape) - middle
    np.testing.assert_allclose(peak * crop.grid.spacing[::-1], [9.0, 6.0, 7.0], atol=1.2)


def test_raw_pixels_are_as_published() -> None:
    grid = crop_grid(cylinder(SIMPLE), SIMPLE, RAW)
    np.testing.assert_allclose(grid.spacing, [0.675, 0.8, 0.8])
    assert grid.shape == (int(np.ceil(WIDTH / 0.8)), 64, 64)
    np.testing.assert_allclose(grid.lps((np.array(grid.shape[::-1]) - 1) / 2), CENTRE, atol=0.5)


@pytest.fixture(scope="module")
def stored_oblique() -> tuple[Volume, Mask]:
    """A tilted cylinder on an oblique grid of uneven spacing."""
    grid = grid_around((1.1, 1.3, 1.8), OBLIQUE)
    return cylinder_ct(grid, tilted(20, 8)), cylinder(grid, tilted(20, 8))


@pytest.mark.parametrize("geometry", [RAW, ALIGNED], ids=lambda g: g.kind)
@pytest.mark.parametrize(("order", "flips"), STORED)
def test_axis_order_and_flips_do_not_matter(
    stored_oblique: tuple[Volume, Mask],
    geometry: Geometry,
    order: tuple[int, ...],
    flips: tuple[int, ...],
) -> None:
    ct, body = stored_oblique
    expected = take_crop(ct, body, crop_grid(body, ct.grid, geometry))
    moved, grid = reordered(ct.array, ct.grid, order, flips)
    moved_body = reordered(body, ct.grid, order, flips)[0]
    crop = take_crop(Volume(moved, grid), moved_body, crop_grid(moved_body, grid, geometry))
    assert crop.grid.matches(expected.grid, 1e-3)
    np.testing.assert_allclose(crop.image, expected.image, atol=0.5)
    assert (crop.body != expected.body).mean() < 1e-4


@settings(max_examples=10, deadline=None)
@given(st.tuples(tenths, tenths, tenths), spacings)
def test_oblique_and_uneven_voxels_give_the_same_crop(
    turn: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    """Within interpolation error: voxels of up to 2 mm blur the 1.5 mm rim, hence means."""
    grid = grid_around(spacing, Rotation.from_euler("xyz", turn, degrees=True).as_matrix())
    where = crop_grid(cylinder(SIMPLE), SIMPLE, ALIGNED)
    expected = take_crop(cylinder_ct(SIMPLE), cylinder(SIMPLE), where)
    own = crop_grid(cylinder(grid), grid, ALIGNED)
    assert np.abs(own.spacing / where.spacing - 1).max() < 0.06
    crop = take_crop(cylinder_ct(grid), cylinder(grid), where)
    assert dice(crop.body, expected.body) > 0.93
    inside = expected.body
    assert np.abs(crop.image - expected.image)[inside].mean() < 25
    assert np.corrcoef(crop.image[inside], expected.image[inside])[0, 1] > 0.9


@settings(max_examples=25, deadline=None)
@given(st.floats(-35, 35), st.floats(-20, 20), st.floats(0, 12))
def test_frame_follows_the_endplates(forward: float, sideways: float, wedge: float) -> None:
    axes = tilted(forward, sideways)
    body = cylinder(SIMPLE, axes, wedge)
    found = body_axes(SIMPLE.lps(np.argwhere(body)[:, ::-1]))
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-9)
    assert np.degrees(np.arccos(np.clip(found[:, 0] @ -axes[:, 2], -1, 1))) < 2.0
    assert found[:, 1] @ [0, 1, 0] > 0.7
    assert found[:, 2] @ [-1, 0, 0] > 0.9


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 4.0), (3.0, 0.8, 0.8)])
def test_larger_of_height_and_depth_covers_the_asked_pixels(spacing: tuple[float, ...]) -> None:
    grid = grid_around(spacing)
    body = cylinder(grid)
    crop = take_crop(cylinder_ct(grid), body, crop_grid(body, grid, ALIGNED))
    box = bounding_box(crop.body)
    rows, columns = (box[1].stop - box[1].start), (box[2].stop - box[2].start)
    assert rows == pytest.approx(ALIGNED.body_pixels, abs=1.5)
    # Slices of 4 mm do not tell the height better than by a slice.
    assert columns == pytest.approx(rows * HEIGHT / DEPTH, abs=1.5 + 40 / DEPTH * spacing[2] / 2)
    width = len(crop.analysed) * ALIGNED.slice_mm
    assert width == pytest.approx(WIDTH, abs=2 * ALIGNED.slice_mm + spacing[0])


def test_tall_body_is_scaled_by_its_height() -> None:
    body = np.zeros(SIMPLE.shape, bool)
    body[16:56, 26:46, 20:55] = True
    crop = take_crop(
        Volume(body.astype(np.float32), SIMPLE), body, crop_grid(body, SIMPLE, ALIGNED)
    )
    assert crop.body.any(axis=(0, 1)).sum() == pytest.approx(40, abs=1)
    assert crop.body.any(axis=(0, 2)).sum() == pytest.approx(20, abs=1)


def test_thin_voxels_are_averaged() -> None:
    """A pixel of 0.8 x 0.8 x 1.6 mm covers 16 voxels of 0.4 mm: noise falls to about a quarter."""
    grid = grid_around((0.4, 0.4, 0.4), size_mm=60)
    body = cylinder(grid)
    noise = np.random.default_rng(1).normal(0, 100, grid.shape).astype(np.float32)
    crop = take_crop(Volume(noise, grid), body, crop_grid(body, grid, ALIGNED))
    assert 15 < crop.image[crop.body].std() < 32


def test_nothing_between_two_slices_is_missed() -> None:
    """A bright sheet of one thin voxel weighs the same wherever it lies."""
    grid = grid_around((0.5, 1.0, 1.0), size_mm=60)
    body = cylinder(grid)
    where = crop_grid(body, grid, ALIGNED)
    weights = []
    for index in range(50, 62):
        sheet = np.zeros(grid.shape, np.float32)
        sheet[:, :, index] = 1000
        image = take_crop(Volume(sheet, grid), body, where).image
        weights.append(image[:, 20:28, 20:28].mean(axis=(1, 2)).sum() * ALIGNED.slice_mm)
    np.testing.assert_allclose(weights, 500, rtol=0.15)


@settings(max_examples=10, deadline=None)
@given(st.floats(-30, 30), st.floats(-15, 15), spacings)
def test_body_survives_the_way_there_and_back(
    forward: float, sideways: float, spacing: tuple[float, ...]
) -> None:
    grid = grid_around(spacing, OBLIQUE)
    body = cylinder(grid, tilted(forward, sideways))
    crop = take_crop(cylinder_ct(grid), body, crop_grid(body, grid, ALIGNED))
    back = np.zeros(grid.shape, bool)
    patch = to_ct(crop.body, crop.grid, grid, body)
    assert patch is not None
    patch.paint(back)
    assert not (back & ~body).any()
    assert dice(back, body) > 0.97


def thin_mask(grid: Grid, kind: str) -> Mask:
    mask = np.zeros(grid.shape, bool)
    s, p, i = np.array(grid.shape) // 2
    if kind == "line":
        mask[s, p, i - 3 : i + 3] = True
    elif kind == "sheet":
        mask[s, p - 8 : p + 8, i - 8 : i + 8] = True
    else:
        mask[s, p, i] = True
    return mask


@pytest.mark.parametrize("kind", ["pixel", "line", "sheet"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 5.0), (5.0, 0.8, 0.8)])
def test_thin_masks_survive(kind: str, spacing: tuple[float, ...]) -> None:
    """Also where the CT's voxels are so thick that none has its centre in the mask."""
    for shift in (0.0, 1.3, 2.6):
        grid = grid_around(spacing, OBLIQUE, 72.0 + shift)
        body = cylinder(grid)
        where = crop_grid(body, grid, ALIGNED)
        mask = thin_mask(where, kind)
        patch = to_ct(mask, where, grid, body)
        assert patch is not None
        assert patch.array.sum() * grid.voxel_mm3 >= mask.sum() * where.voxel_mm3 / 2
        asked = grid.ijk(where.lps(np.argwhere(mask)[:, ::-1]))
        painted = (np.argwhere(patch.array) + patch.start)[:, ::-1]
        away = np.abs(painted[:, None] - asked[None]).max(axis=2).min(axis=1)
        assert away.max() <= 1


def test_masks_stay_in_the_body() -> None:
    body = cylinder(SIMPLE)
    where = crop_grid(body, SIMPLE, ALIGNED)
    patch = to_ct(np.ones(where.shape, bool), where, SIMPLE, body)
    assert patch is not None
    painted = np.zeros(SIMPLE.shape, bool)
    patch.paint(painted)
    assert (painted == body).all()
    corner = np.zeros(where.shape, bool)
    corner[:2, :3, :3] = True
    assert to_ct(corner, where, SIMPLE, body) is None


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("side", [slice(40, None), slice(None, 32)], ids=["low", "high"])
def test_body_at_the_border_of_the_ct(axis: int, side: slice) -> None:
    """Half a body: what is seen is shown, beyond the CT lies the lowest intensity of its inside."""
    part = tuple(side if a == axis else slice(None) for a in range(3))
    shape = tuple(int(n) for n in np.empty(SIMPLE.shape, bool)[part].shape)
    start = [side.start or 0 if a == axis else 0 for a in range(3)]
    ct, body = cylinder_ct(SIMPLE).array[part], cylinder(SIMPLE)[part]
    grid = SIMPLE.cut(start, (shape[0], shape[1], shape[2]))
    crop = take_crop(Volume(ct, grid), body, crop_grid(body, grid, ALIGNED))
    assert crop.image.shape[1:] == (48, 48)
    assert np.isfinite(crop.image).all()
    assert len(crop.analysed) >= 0.9 * crop.image.shape[0] > 0
    k, j, i = np.indices(crop.grid.shape)
    voxel = grid.ijk(crop.grid.lps(np.stack([i, j, k], -1)))
    beyond = ((voxel < -1) | (voxel > np.array(grid.shape[::-1]))).any(axis=-1)
    assert beyond.any()
    assert not crop.body[beyond].any()
    assert len(np.unique(crop.image[beyond])) == 1
    assert ct.min() <= crop.image[beyond].max() <= crop.image[~beyond].min() + 1e-3


def test_body_cut_on_its_left_has_fewer_slices() -> None:
    grid = SIMPLE.cut((0, 0, 0), (72, 72, 36))
    body = cylinder(SIMPLE)[:, :, :36]
    crop = take_crop(
        Volume(cylinder_ct(SIMPLE).array[:, :, :36], grid), body, crop_grid(body, grid, RAW)
    )
    assert len(crop.analysed) == pytest.approx(WIDTH / 2 / RAW.slice_mm, abs=1)
    np.testing.assert_allclose(crop.grid.direction[:, 2], [-1, 0, 0])


def test_volume_of_the_crop_is_that_of_the_body() -> None:
    body = cylinder(SIMPLE, tilted(25, 10))
    crop = take_crop(cylinder_ct(SIMPLE), body, crop_grid(body, SIMPLE, ALIGNED))
    expected = np.pi / 4 * WIDTH * DEPTH * HEIGHT
    assert crop.body.sum() * crop.grid.voxel_mm3 == pytest.approx(expected, rel=0.03)


def test_feathered_weight_is_each_slices_own() -> None:
    body = np.zeros((3, 20, 20), bool)
    body[1, 8:12, 8:12] = True
    weight = feathered(body, 2.0)
    assert (weight[0] == 0).all() and (weight[2] == 0).all()
    assert (weight[1, 8:12, 6:14] == 1).all()
    assert weight[1, 10, 14] == pytest.approx(0.5)
    assert weight[1, 10, 15] == 0


def test_bounding_box_ends_at_the_array() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[0, 2:4, 6] = True
    assert bounding_box(mask, 1) == (slice(0, 2), slice(1, 5), slice(5, 7))
