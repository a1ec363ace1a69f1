"""The drawn spine: anatomy in its place, HU as asked, the same seed the same voxels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from hideseekseg.imaging.volume import Grid
from hideseekseg.simulation.phantom.spine import (
    Labels,
    Phantom,
    draw_clean,
    draw_spine,
    example_spine,
    label_value,
)
from hideseekseg.simulation.phantom.vertebra import (
    LEVELS,
    Field,
    SpineSettings,
    mean_shape,
    random_settings,
)

SMALL = SpineSettings(levels=("T12", "L1"), spacing_mm=(0.9, 0.9, 2.0), marrow_hu=150.0)


@pytest.fixture(scope="module")
def small() -> Phantom:
    return draw_spine(SMALL, np.random.default_rng(3))


@pytest.fixture(scope="module")
def example() -> Phantom:
    return example_spine()


def depth_inside(phantom: Phantom, value: int) -> npt.NDArray[np.float64]:
    """Distance in mm from each voxel of a body to its surface; 0 outside."""
    mask = phantom.bodies.array == value
    return ndimage.distance_transform_edt(mask, sampling=phantom.ct.grid.spacing[::-1])


def test_same_seed_same_voxels_and_another_seed_others(small: Phantom) -> None:
    again = draw_spine(SMALL, np.random.default_rng(3))
    other = draw_spine(SMALL, np.random.default_rng(4))
    assert np.array_equal(small.ct.array, again.ct.array)
    assert np.array_equal(small.vertebrae.array, again.vertebrae.array)
    assert not np.array_equal(small.ct.array, other.ct.array)


def test_ct_and_labels_share_an_upright_lps_grid(example: Phantom) -> None:
    grid = example.ct.grid
    assert example.ct.array.dtype == np.int16
    assert np.allclose(grid.direction, np.eye(3))
    assert np.allclose(grid.spacing, (0.8, 0.8, 1.5))
    assert grid.matches(example.vertebrae.grid) and grid.matches(example.bodies.grid)


def test_every_asked_level_is_labelled_once_and_in_order(example: Phantom) -> None:
    assert list(example.levels.values()) == ["T10", "T11", "T12", "L1", "L2"]
    assert set(np.unique(example.vertebrae.array)) == {0, *example.levels}
    heights = []
    for value in example.levels:
        mask = example.vertebrae.array == value
        assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 1
        heights.append(np.argwhere(example.bodies.array == value)[:, 0].mean())
    assert heights == sorted(heights, reverse=True)


def test_bodies_lie_inside_vertebrae_and_hold_a_plausible_share(example: Phantom) -> None:
    inside = example.bodies.array != 0
    assert np.array_equal(example.vertebrae.array[inside], example.bodies.array[inside])
    for value in example.levels:
        share = (example.bodies.array == value).sum() / (example.vertebrae.array == value).sum()
        assert 0.45 < share < 0.8


def test_body_size_follows_the_published_means(example: Phantom) -> None:
    voxel = example.ct.grid.voxel_mm3
    for value, level in example.levels.items():
        shape = mean_shape(level)
        box = np.mean(shape.width) * np.mean(shape.depth) * shape.height
        assert 0.6 * box < (example.bodies.array == value).sum() * voxel < 0.95 * box


def test_published_heights_grow_downwards() -> None:
    heights = [mean_shape(level).height for level in LEVELS]
    assert all(b >= a - 0.5 for a, b in pairwise(heights[:-1]))
    assert mean_shape("L2").height > 1.5 * mean_shape("T1").height


@pytest.mark.parametrize("marrow", [60.0, 150.0, 280.0])
def test_marrow_is_as_dense_as_asked_and_cortex_brighter(marrow: float) -> None:
    settings = SpineSettings(
        levels=("L1",), field=(90, 110), spacing_mm=(1.0, 1.0, 1.0), marrow_hu=marrow
    )
    phantom = draw_spine(settings, np.random.default_rng(1))
    depth = depth_inside(phantom, label_value("L1"))
    ct = phantom.ct.array.astype(float)
    core = ct[depth > 6]
    assert abs(core.mean() - marrow) < 0.12 * marrow + 8
    rim = ct[(depth > 0) & (depth < 1.5)]
    assert np.median(rim) > core.mean() + 100


def test_disc_canal_and_outside_have_their_tissue(small: Phantom) -> None:
    ct, grid = small.ct.array, small.ct.grid
    upper = np.argwhere(small.bodies.array == label_value("T12"))
    lower = np.argwhere(small.bodies.array == label_value("L1"))
    k, j, i = np.rint((upper.mean(0) + lower.mean(0)) / 2).astype(int)
    disc = ct[k, j - 4 : j + 5, i - 4 : i + 5]
    assert 60 < disc.mean() < 125

    k, j, i = np.rint(lower.mean(0)).astype(int)
    shape = mean_shape("L1")
    behind = j + round((shape.back + shape.canal[1] / 2) / grid.spacing[1])
    canal = ct[k, behind - 2 : behind + 3, i - 3 : i + 4]
    assert 10 < canal.mean() < 60
    assert ct[k, -3:, i].max() < -800
    assert np.mean(ct[k] > 250) < 0.15  # most of the slice is soft tissue


def test_finer_slices_are_not_another_anatomy() -> None:
    thin, thick = (
        draw_spine(
            SpineSettings(levels=("L3",), field=(90, 110), spacing_mm=(1.0, 1.0, dz)),
            np.random.default_rng(5),
        )
        for dz in (1.0, 2.0)
    )
    volumes = [np.count_nonzero(p.bodies.array) * p.ct.grid.voxel_mm3 for p in (thin, thick)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.03)


def test_noise_is_as_asked_and_correlated() -> None:
    quiet, loud = (
        draw_spine(
            SpineSettings(levels=("L1",), spacing_mm=(0.8, 0.8, 2.0), noise_hu=hu),
            np.random.default_rng(2),
        ).ct.array.astype(float)
        for hu in (0.0, 40.0)
    )
    noise = (loud - quiet)[:, 20:120, 20:180]  # away from the air behind, where HU are cut off
    assert noise.std() == pytest.approx(40, rel=0.1)
    neighbour = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    assert 0.1 < neighbour < 0.9


def test_paint_works_on_clean_hu_before_the_scanner() -> None:
    def darken(hu: Field, bodies: Labels, grid: Grid, rng: np.random.Generator) -> Field:
        assert hu.shape == bodies.shape == grid.shape
        return np.where(bodies == label_value("L1"), hu - 100, hu)

    settings = SpineSettings(levels=("L1",), field=(90, 110), spacing_mm=(1.0, 1.0, 1.5))
    plain = draw_spine(settings, np.random.default_rng(6))
    painted = draw_spine(settings, np.random.default_rng(6), darken)
    change = np.subtract(painted.ct.array, plain.ct.array, dtype=float)
    depth = depth_inside(plain, label_value("L1"))
    assert change[depth > 4].mean() == pytest.approx(-100, abs=4)
    away = ndimage.binary_dilation(depth > 0, iterations=6)
    assert np.abs(change[~away]).max() <= 1
    edge = change[(depth > 0) & (depth < 1.1)]
    assert -95 < edge.mean() < -40  # the kernel has softened the painted edge


def test_deformities_change_the_shape_as_named() -> None:
    def body(**changes: float) -> np.ndarray:
        settings = SpineSettings(levels=("T12",), field=(90, 110), **changes)  # type: ignore[arg-type]
        return draw_clean(settings, np.random.default_rng(8)).bodies > 0

    plain, pressed, spurred = body(), body(biconcave_chance=1.0), body(osteophyte=5.0)
    middle = np.argwhere(plain).mean(0).round().astype(int)
    assert pressed[:, middle[1], middle[2]].sum() <= plain[:, middle[1], middle[2]].sum() - 2
    assert (
        np.ptp(np.argwhere(spurred)[:, 1:], axis=0).max()
        > np.ptp(np.argwhere(plain)[:, 1:], axis=0).max()
    )


def test_random_people_stay_within_human_bounds() -> None:
    rng = np.random.default_rng(0)
    people = [random_settings(rng) for _ in range(200)]
    marrow = np.array([p.marrow_hu for p in people])
    assert 50 <= marrow.min() < 90 and 230 < marrow.max() <= 300
    assert all(0.5 <= p.spacing_mm[2] <= 3.0 for p in people)
    thin = np.mean([p.noise_hu for p in people if p.spacing_mm[2] <= 0.8])
    thick = np.mean([p.noise_hu for p in people if p.spacing_mm[2] >= 2.0])
    assert thin > 1.3 * thick


@pytest.mark.parametrize("level", ["T1", "T5", "T9", "L5"])
def test_every_region_can_be_drawn_alone(level: str) -> None:
    rng = np.random.default_rng(11)
    settings = random_settings(rng, levels=(level,), spacing_mm=(0.9, 0.9, 2.0))
    phantom = draw_spine(settings, rng)
    assert set(np.unique(phantom.bodies.array)) == {0, label_value(level)}
    body = np.argwhere(phantom.bodies.array)
    assert (body.min(0) > 0).all() and (body.max(0) < np.array(phantom.ct.array.shape) - 1).all()


@pytest.mark.parametrize("levels", [(), ("L1", "T12"), ("T12", "L2"), ("C7", "T1")])
def test_levels_that_do_not_follow_each_other_are_refused(levels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="adjacent"):
        SpineSettings(levels=levels)
