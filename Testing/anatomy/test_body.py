"""The body of a vertebra: derived, intersected or given, however the vertebra is stored."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hideseekseg.anatomy.body import CUT, NO_CANAL, find_body
from hideseekseg.anatomy.crop import crop_grid
from hideseekseg.anatomy.labelling import assign
from hideseekseg.anatomy.localization import spine_axes
from hideseekseg.anatomy.vertebra_frame import PATIENT_AXES, axes_of
from hideseekseg.benchmark.real_scans import (
    body_report,
    measure_bodies,
    overlap,
    surface_distance_mm,
)
from hideseekseg.errors import InputError
from hideseekseg.imaging.segmentation import Segment, Segmentation
from hideseekseg.imaging.volume import Grid, Volume, bounding_box, from_sitk, resample
from hideseekseg.model.profile import Geometry

Mask = npt.NDArray[np.bool_]
ORDERS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product((1, -1), repeat=3))

# Tenths of degrees: ITK cannot invert a matrix with numbers near the smallest float.
tenths = st.integers(0, 300).map(lambda n: n / 10)
turns = st.tuples(*[st.integers(-10, 10)] * 3).filter(any)
spacings = st.tuples(*[st.floats(0.7, 3.0)] * 3)


def turned(axis: tuple[float, ...], degrees: float) -> npt.NDArray[np.float64]:
    unit = np.array(axis) / np.linalg.norm(axis)
    return Rotation.from_rotvec(unit * np.radians(degrees)).as_matrix()


def grid_around(spacing: tuple[float, ...], direction: npt.NDArray[np.float64]) -> Grid:
    """A grid of 92 mm side length around the drawn vertebra; ``spacing`` along i, j, k."""
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.array(spacing)
    n = np.ceil(92 / np.array(spacing)).astype(int)
    matrix[:3, 3] = [0, 15, 0] - matrix[:3, :3] @ ((n - 1) / 2)
    return Grid((int(n[2]), int(n[1]), int(n[0])), matrix)


def draw(grid: Grid, patient: npt.NDArray[np.float64]) -> tuple[Mask, Mask]:
    """A vertebra at the origin and its body: an elliptic cylinder, arch, five processes.

    Columns of ``patient`` are where its left, posterior and superior point in LPS.
    """
    k, j, i = (n.astype(np.float32) for n in np.indices(grid.shape, sparse=True))
    lps = [
        grid.ijk_to_lps[r, 0] * i + grid.ijk_to_lps[r, 1] * j + grid.ijk_to_lps[r, 2] * k
        for r in range(3)
    ]
    lps = [position + grid.ijk_to_lps[r, 3] for r, position in enumerate(lps)]
    x, y, z = (sum(patient[r, c] * lps[r] for r in range(3)) for c in range(3))
    body = ((x / 22) ** 2 + (y / 16) ** 2 < 1) & (np.abs(z) < 13)
    canal = np.hypot(x / 11, (y - 22) / 8)
    arch = (canal > 1) & (np.hypot(x / 17, (y - 22) / 15) < 1) & (y > 10) & (np.abs(z - 3) < 7)
    across = (np.abs(x) < 36) & (np.abs(x) > 13) & (np.hypot(y - 27, z - 3) < 5)
    spinous = (np.abs(x) < 3.5) & (y > 32) & (y < 50) & (np.abs(z + 3) < 8)
    facets = (np.hypot(np.abs(x) - 15, y - 28) < 6) & (np.abs(z) < 20)
    behind = (arch | across | spinous | facets) & (canal > 1)
    return body | behind, body


UPRIGHT = np.eye(3)
SIMPLE = grid_around((1.5, 1.5, 1.5), UPRIGHT)


@settings(max_examples=15, deadline=None)
@given(turns, tenths, turns, tenths, spacings)
def test_body_of_a_drawn_vertebra(
    axis: tuple[float, ...],
    degrees: float,
    oblique_axis: tuple[float, ...],
    oblique: float,
    spacing: tuple[float, ...],
) -> None:
    grid = grid_around(spacing, turned(oblique_axis, oblique))
    vertebra, truth = draw(grid, turned(axis, degrees))
    found = find_body(vertebra, grid)
    assert found.source == "derived"
    assert found.flags == ()
    assert not (found.mask & ~vertebra).any()
    assert overlap(found.mask, truth) >= 0.9


def test_thick_slices_still_give_the_body() -> None:
    for spacing in ((0.8, 0.8, 5.0), (5.0, 0.8, 0.8), (0.5, 5.0, 0.5)):
        grid = grid_around(spacing, UPRIGHT)
        vertebra, truth = draw(grid, UPRIGHT)
        assert overlap(find_body(vertebra, grid).mask, truth) >= 0.88


@pytest.fixture(scope="module")
def oblique() -> tuple[Mask, Mask, Grid]:
    """A turned vertebra on an oblique grid of uneven spacing, and the body found in it."""
    grid = grid_around((1.2, 1.6, 2.0), turned((1, 2, 3), 12))
    vertebra, _ = draw(grid, turned((3, -1, 1), 20))
    return vertebra, find_body(vertebra, grid).mask, grid


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flips", FLIPS)
def test_axis_order_and_flips_do_not_matter(
    oblique: tuple[Mask, Mask, Grid], order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    vertebra, body, grid = oblique
    array, stored = reordered(vertebra, grid, order, flips)
    expected, _ = reordered(body, grid, order, flips)
    differs = find_body(array, stored).mask != expected
    shell = ndimage.binary_dilation(expected) & ~ndimage.binary_erosion(expected)
    assert not (differs & ~shell).any()
    assert differs.sum() < 0.005 * expected.sum()


def reordered(
    mask: Mask, grid: Grid, order: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[Mask, Grid]:
    """The same voxels stored in another axis order, some axes running the other way (k, j, i)."""
    columns = grid.ijk_to_lps[:3, 2::-1][:, list(order)] * flips
    shape = np.array(grid.shape)[list(order)]
    first = np.zeros(3)
    first[list(order)] = [n - 1 if flip < 0 else 0 for n, flip in zip(shape, flips)]
    matrix = np.eye(4)
    matrix[:3, :3] = columns[:, ::-1]
    matrix[:3, 3] = grid.lps(first[::-1])
    array = mask.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
    return array, Grid((int(shape[0]), int(shape[1]), int(shape[2])), matrix)


def test_reordered_voxels_stay_where_they_are() -> None:
    """The test's own tool: the mask's positions in the patient are those of before."""
    grid = grid_around((3.0, 4.0, 5.0), turned((1, 2, 3), 12))
    vertebra, _ = draw(grid, UPRIGHT)
    before = grid.lps(np.argwhere(vertebra)[:, ::-1])
    array, stored = reordered(vertebra, grid, (2, 0, 1), (1, -1, -1))
    after = stored.lps(np.argwhere(array)[:, ::-1])
    assert np.allclose(np.sort(before.round(3), axis=0), np.sort(after.round(3), axis=0))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=12)), spacings)
def test_any_mask_gives_a_part_of_itself(mask: Mask, spacing: tuple[float, ...]) -> None:
    grid = Grid(mask.shape, np.diag([*spacing, 1.0]))
    found, again = find_body(mask, grid), find_body(mask, grid)
    assert not (found.mask & ~mask).any()
    assert found.mask.any() == mask.any()
    assert np.array_equal(found.mask, again.mask)


def test_a_given_body_is_left_as_it_is() -> None:
    vertebra, body = draw(SIMPLE, UPRIGHT)
    assert find_body(vertebra, SIMPLE, kind="body").source == "given"
    unnoticed = find_body(body, SIMPLE)
    assert unnoticed.source == "given"
    assert np.array_equal(unnoticed.mask, body)


def test_bodies_in_the_scene_are_intersected() -> None:
    vertebra, body = draw(SIMPLE, UPRIGHT)
    wide = ndimage.binary_dilation(body, iterations=2)
    found = find_body(vertebra, SIMPLE, body=wide)
    assert found.source == "intersected"
    assert np.array_equal(found.mask, vertebra & wide)
    elsewhere = np.zeros_like(body)
    elsewhere[:3] = True
    assert find_body(vertebra, SIMPLE, body=elsewhere).source == "derived"


def test_a_mislabelled_voxel_far_away_is_not_body() -> None:
    vertebra, truth = draw(SIMPLE, UPRIGHT)
    vertebra[-1, 0, 0] = True
    found = find_body(vertebra, SIMPLE)
    assert not found.mask[-1, 0, 0]
    assert overlap(found.mask, truth) >= 0.95


def test_a_crop_without_the_arch_is_cut_by_shape() -> None:
    vertebra, truth = draw(SIMPLE, turned((1, 0.2, 0), 15))
    j = int(SIMPLE.ijk([0, 26, 0])[1])
    grid = SIMPLE.cut((0, 0, 0), (SIMPLE.shape[0], j, SIMPLE.shape[2]))
    found = find_body(vertebra[:, :j], grid)
    assert found.source == "derived"
    assert found.flags == (NO_CANAL,)
    assert overlap(found.mask, truth[:, :j]) >= 0.93


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [1, -1])
def test_a_body_that_leaves_the_volume_is_flagged(axis: int, side: int) -> None:
    vertebra, truth = draw(SIMPLE, UPRIGHT)
    centre = np.rint(SIMPLE.ijk([0, 0, 0]))[::-1].astype(int)
    window = [slice(0, n) for n in vertebra.shape]
    window[axis] = slice(centre[axis] - 4, None) if side > 0 else slice(0, centre[axis] + 5)
    start = [s.start for s in window]
    part = vertebra[tuple(window)]
    found = find_body(part, SIMPLE.cut(start, part.shape))
    assert CUT in found.flags
    if (axis, side) != (1, -1):  # without any posterior element the posterior wall is the cut
        assert overlap(found.mask, truth[tuple(window)]) >= 0.9


def test_an_arch_that_leaves_the_volume_is_not() -> None:
    vertebra, _ = draw(SIMPLE, UPRIGHT)
    j = int(SIMPLE.ijk([0, 45, 0])[1])
    grid = SIMPLE.cut((0, 0, 0), (SIMPLE.shape[0], j, SIMPLE.shape[2]))
    assert find_body(vertebra[:, :j], grid).flags == ()


def test_surface_distance_of_boxes() -> None:
    grid = Grid((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    box, wider = np.zeros((2, *grid.shape), bool)
    box[5:15, 5:15, :] = True
    wider[4:16, 5:15, :] = True
    assert surface_distance_mm(box, box, grid) == 0
    assert 0.4 < surface_distance_mm(box, wider, grid) < 2.0
    assert overlap(box, wider) == pytest.approx(10 / 11)


def test_the_benchmark_reaches_its_aim(shared: Path) -> None:
    rows = measure_bodies(shared / "data")
    assert [(row.level, row.whole) for row in rows] == [("L2", False), ("L3", True), ("L4", False)]
    assert min(row.dice for row in rows) >= 0.95
    assert max(row.surface_mm for row in rows) < 0.5
    text = body_report(shared / "data")
    assert "L3" in text
    assert "mean" in text


def test_a_folder_without_truth_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"subregions\.nii\.gz"):
        measure_bodies(tmp_path)


def read(path: Path) -> Volume:
    return from_sitk(sitk.ReadImage(str(path)))


def boxed(mask: Mask, grid: Grid, margin: int = 3) -> tuple[Mask, Grid]:
    box = bounding_box(mask, margin)
    return mask[box], grid.cut([s.start for s in box], mask[box].shape)


@pytest.mark.parametrize("scan", ["lidc0314", "ts_aorta", "dlwpt", "blds1", "blds2"])
def test_real_bodies_are_recognised(shared: Path, scan: str) -> None:
    bodies = read(shared / "data" / scan / "vertebral_bodies.nii.gz")
    for value in np.unique(bodies.array)[1:]:
        mask, grid = boxed(bodies.array == value, bodies.grid)
        found = find_body(mask, grid)
        assert found.source == "given", value
        assert np.array_equal(found.mask, mask)


@pytest.mark.parametrize(("scan", "values"), [("lidc0001", (30, 44)), ("verse014", (20, 25))])
def test_every_real_vertebra_has_one_body(shared: Path, scan: str, values: tuple[int, int]) -> None:
    vertebrae = read(shared / "data" / scan / "vertebrae.nii.gz")
    for value in range(*values):
        mask, grid = boxed(vertebrae.array == value, vertebrae.grid)
        found = find_body(mask, grid)
        assert (found.source, found.flags) == ("derived", ()), value
        assert 0.35 < found.mask.sum() / mask.sum() < 0.7, value
        parts = np.bincount(ndimage.label(found.mask, np.ones((3, 3, 3)))[0].ravel())[1:]
        assert parts.max() > 0.995 * parts.sum(), value
        body, rest = (
            grid.lps(np.argwhere(part)[:, ::-1]) for part in (found.mask, mask & ~found.mask)
        )
        assert rest.mean(axis=0)[1] - body.mean(axis=0)[1] > 10, value


@pytest.fixture(scope="module")
def l3(shared: Path) -> tuple[Mask, Mask, Grid]:
    folder = shared / "data" / "tptbox_l3"
    vertebrae = read(folder / "vertebrae.nii.gz")
    vertebra, grid = boxed(vertebrae.array == 22, vertebrae.grid)
    corpus = np.isin(read(folder / "subregions.nii.gz").array, (49, 50))
    return vertebra, corpus[bounding_box(vertebrae.array == 22, 3)] & vertebra, grid


@settings(max_examples=10, deadline=None)
@given(axis=turns, degrees=tenths)
def test_a_real_vertebra_of_a_crooked_patient(
    l3: tuple[Mask, Mask, Grid], axis: tuple[float, ...], degrees: float
) -> None:
    vertebra, truth, grid = l3
    crooked = np.eye(4)
    crooked[:3, :3] = turned(axis, degrees)
    found = find_body(vertebra, Grid(grid.shape, crooked @ grid.ijk_to_lps))
    assert found.flags == ()
    assert overlap(found.mask, truth) >= 0.98


@pytest.mark.parametrize("shift", [(0, 0, 0), (0, 8, 0), (0, 0, 12), (14, 0, 0)])
def test_a_ready_made_crop_of_one_vertebra(
    l3: tuple[Mask, Mask, Grid], shift: tuple[float, ...]
) -> None:
    """64 x 64 x 64 voxels around a body, (S, P, I), as research groups exchange them."""
    vertebra, truth, grid = l3
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0, 0, -0.675], [0, 0.8, 0], [-0.8, 0, 0]])
    centre = grid.lps(np.argwhere(truth)[:, ::-1]).mean(axis=0) + shift
    matrix[:3, 3] = centre - matrix[:3, :3] @ [31.5, 31.5, 31.5]
    crop = Grid((64, 64, 64), matrix)
    part, body = (
        resample(Volume(mask, grid), crop, order=0).array > 0 for mask in (vertebra, truth)
    )
    found = find_body(part, crop)
    assert overlap(found.mask, body) >= 0.97


ALIGNED = Geometry("aligned", 64, slice_mm=4.0, body_pixels=44.0, margin_pixels=4.0)
Kind = Literal["vertebra", "body"]


def crop_axes(vertebra: Mask, grid: Grid, kind: Kind) -> npt.NDArray[np.float64]:
    """Columns of the crop (inferior, posterior, right; unit vectors in LPS) as a run lays it."""
    found = find_body(vertebra, grid, kind=kind)
    return crop_grid(found.mask, grid, ALIGNED, found.axes, found.turn_known).direction


def degrees_between(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """The largest angle between the columns of two frames."""
    return float(np.degrees(np.arccos(np.clip((one * other).sum(axis=0), -1, 1))).max())


@pytest.mark.parametrize("kind", ["vertebra", "body"])
@pytest.mark.parametrize("yaw", [-30, -20, -8, 8, 20, 30])
def test_the_crop_turns_with_the_vertebra(
    l3: tuple[Mask, Mask, Grid], kind: Kind, yaw: float
) -> None:
    vertebra, body, grid = l3
    mask = vertebra if kind == "vertebra" else body
    moved = np.eye(4)
    moved[:3, :3] = turned((0, 0, 1), yaw)
    expected = moved[:3, :3] @ crop_axes(mask, grid, kind)
    again = crop_axes(mask, Grid(grid.shape, moved @ grid.ijk_to_lps), kind)
    assert degrees_between(again, expected) < (2.5 if kind == "vertebra" else 5.0)


@settings(max_examples=10, deadline=None)
@given(axis=turns, degrees=tenths)
def test_the_crop_turns_with_a_crooked_patient(
    l3: tuple[Mask, Mask, Grid], axis: tuple[float, ...], degrees: float
) -> None:
    vertebra, _, grid = l3
    moved = np.eye(4)
    moved[:3, :3] = turned(axis, degrees)
    expected = moved[:3, :3] @ crop_axes(vertebra, grid, "vertebra")
    again = crop_axes(vertebra, Grid(grid.shape, moved @ grid.ijk_to_lps), "vertebra")
    assert degrees_between(again, expected) < 3.0


@pytest.mark.parametrize("tilt", [60, 75])
def test_a_vertebra_of_a_severely_bent_spine_keeps_its_axes(tilt: float) -> None:
    """Beyond 52 degrees the crop lay on its side; the line of the spine tells where up is."""
    patient = turned((1, 0, 0), tilt)
    grid = grid_around((1.2, 1.2, 1.2), UPRIGHT)
    vertebra, truth = draw(grid, patient)
    superior = patient[:, 2]  # the drawn vertebra's own z axis, in LPS
    found = find_body(vertebra, grid, reference=axes_of(superior, PATIENT_AXES[1]))
    assert overlap(found.mask, truth) >= 0.88
    axes = crop_grid(found.mask, grid, ALIGNED, found.axes, found.turn_known).direction
    assert axes[:, 0] @ superior < -np.cos(np.radians(4))


def test_the_axes_of_the_spine_follow_its_curve() -> None:
    grid = Grid((60, 60, 20), np.diag([2.0, 2.0, 2.0, 1.0]))
    labels = np.zeros(grid.shape, np.uint8)
    levels = ("T12", "T11", "T10", "T9")
    for n in range(4):  # upwards from T12, and ever more bent forwards
        angle = np.radians(25 * n)
        k, j = round(8 + 40 * np.sin(angle)), round(50 - 40 * (1 - np.cos(angle)))
        labels[k - 2 : k + 3, j - 4 : j + 5, 6:14] = 32 + n
    named = tuple(Segment(x, f"vertebrae_{x}", 32 + n, 0) for n, x in enumerate(levels))
    segmentation = Segmentation((Volume(labels, grid),), named, "bent")
    axes = spine_axes(segmentation, assign(segmentation))
    tilts = [np.degrees(np.arctan2(-axes[level][0][1], axes[level][0][2])) for level in levels]
    assert tilts == sorted(tilts)
    assert 10 < tilts[0] < 16
    assert 58 < tilts[-1] < 68
    for frame in axes.values():
        assert np.allclose(frame @ frame.T, np.eye(3))
