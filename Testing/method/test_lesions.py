"""Candidates of neighbouring slices become lesions, and lesions get their measures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.vertebrae import cylinder, grid_around, tilted
from hideseekseg.anatomy.crop import crop_grid
from hideseekseg.findings import Candidate, LesionType
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.lesions import SliceCandidate, join_slices, lesions_of, measure
from hideseekseg.model.profile import Decision, Geometry

ALIGNED = Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0)
GRID = grid_around((0.9, 0.9, 1.5), Rotation.from_rotvec([0.2, 0.1, -0.1]).as_matrix())
BODY = cylinder(GRID, tilted(15))
WHERE = crop_grid(BODY, GRID, ALIGNED)
CT = Volume(np.where(BODY, 300, 40).astype(np.int16), GRID)


def part(
    slice: int, rows: tuple[int, int], score: float = 0.5, type: LesionType = "lytic"
) -> SliceCandidate:
    """A candidate of ten columns."""
    mask = np.zeros((48, 48), bool)
    mask[rows[0] : rows[1], 20:30] = True
    return SliceCandidate(slice, type, mask, score)


def test_score_is_the_mean_weighted_by_area() -> None:
    (lesion,) = join_slices([part(10, (20, 22), 0.2), part(11, (20, 26), 0.6)])
    assert lesion.score == pytest.approx((0.2 * 20 + 0.6 * 60) / 80)
    assert lesion.slices == (10, 11)
    assert lesion.mask((20, 48, 48)).sum() == 80


def test_a_third_of_the_smaller_joins_and_less_does_not() -> None:
    """One of three shared rows is a third; one of four is not, whatever the larger one's size."""
    assert len(join_slices([part(5, (10, 13)), part(6, (12, 30))])) == 1
    assert len(join_slices([part(5, (10, 14)), part(6, (13, 30))])) == 2


def test_types_gaps_and_neighbours_within_a_slice_stay_apart() -> None:
    assert len(join_slices([part(5, (10, 14)), part(6, (10, 14), type="blastic")])) == 2
    assert len(join_slices([part(5, (10, 14)), part(7, (10, 14))])) == 2
    assert len(join_slices([part(5, (10, 14)), part(5, (20, 24))])) == 2
    assert join_slices([]) == []


def test_two_of_a_slice_join_through_their_neighbour() -> None:
    """The legs of a U are one lesion."""
    legs = [part(5, (10, 14)), part(5, (20, 24)), part(6, (10, 24)), part(7, (30, 34))]
    lesions = join_slices(legs)
    assert sorted(len(lesion.parts) for lesion in lesions) == [1, 3]


@given(st.permutations(range(7)))
def test_order_of_the_parts_does_not_matter(order: list[int]) -> None:
    parts = [
        *(part(n, (10 + n, 16 + n), 0.1 * n) for n in range(4)),
        part(2, (30, 33), 0.9),
        part(3, (31, 34), 0.3),
        part(2, (10, 16), 0.8, "blastic"),
    ]

    def outcome(lesions: list[SliceCandidate]) -> list[tuple[str, float, bytes]]:
        joined = join_slices(lesions)
        return [(j.type, round(j.score, 12), j.mask((8, 48, 48)).tobytes()) for j in joined]

    assert outcome([parts[n] for n in order]) == outcome(parts)


SHAPE = (20, 48, 48)


def bump(type: LesionType, top: float) -> np.ndarray:
    """A change that falls from its middle to the sides of ``part(n, (14, 26))``, with no grain."""
    rows, columns = np.mgrid[:48, :48]
    falls = np.exp(-(((rows - 19.5) / 5.0) ** 2) - ((columns - 24.5) / 4.0) ** 2)
    plain = np.broadcast_to(np.asarray(top * falls, np.float32), SHAPE)
    return plain if type == "lytic" else -plain


@pytest.mark.parametrize("type", ["lytic", "blastic"])
@given(st.floats(0.15, 1.5), st.sampled_from([0.0, 1.0]))
def test_outline_is_where_most_changed_whatever_the_strength(
    type: LesionType, top: float, smooth: float
) -> None:
    parts = [part(n, (14, 26), 0.1 * n, type) for n in range(8, 12)]
    decision = Decision(outline_share=0.4, smooth_pixels=smooth)
    change = bump(type, top)
    [lesion], [plain] = lesions_of(parts, change, decision), join_slices(parts)
    drawn, whole = lesion.mask(SHAPE), plain.mask(SHAPE)
    assert 0.2 * whole.sum() < drawn.sum() < 0.9 * whole.sum()
    assert not (drawn & ~whole).any()
    assert np.abs(change[drawn]).min() >= 0.99 * np.abs(change[whole & ~drawn]).max()
    np.testing.assert_array_equal(lesion.whole(SHAPE), whole)
    assert (lesion.score, lesion.slices) == (plain.score, plain.slices)
    [other] = lesions_of(parts, bump(type, 2 * top), decision)
    np.testing.assert_array_equal(other.mask(SHAPE), drawn)


def test_outline_has_no_specks_and_leaves_slices_where_little_changed() -> None:
    change = bump("lytic", 1.0).copy()
    change[8], change[10, 14, 29] = 0.01, 1.0
    parts = [part(n, (14, 26)) for n in range(8, 12)]
    [lesion] = lesions_of(parts, change, Decision(outline_share=0.4, min_pixels=5))
    assert not lesion.mask(SHAPE)[8].any() and not lesion.mask(SHAPE)[10, 14, 29]
    [candidate] = measure([lesion], "T10", WHERE, CT, BODY, hounsfield=True)
    assert candidate.slices == (9, 10, 11)
    assert candidate.volume_mm3 == pytest.approx(
        lesion.mask(SHAPE).sum() * WHERE.voxel_mm3, rel=0.15
    )


def test_without_a_share_all_that_was_revealed_is_drawn() -> None:
    parts = [part(n, (14, 26)) for n in range(8, 12)]
    [lesion] = lesions_of(parts, bump("lytic", 1.0), Decision(outline_share=0.0))
    np.testing.assert_array_equal(lesion.mask(SHAPE), lesion.whole(SHAPE))


def measured() -> tuple[Candidate, ...]:
    lytic = [part(n, (14, 22), 0.4) for n in range(8, 12)]
    small = [part(14, (20, 24), 0.7), part(15, (20, 24), 0.8)]
    blastic = [part(n, (26, 32), 0.6, "blastic") for n in range(9, 13)]
    lesions = join_slices([*lytic, *small, *blastic])
    return measure(lesions, "T10", WHERE, CT, BODY, hounsfield=True)


def test_names_count_by_type_and_the_best_come_first() -> None:
    found = measured()
    assert [c.id for c in found] == ["T10-lytic-1", "T10-blastic-1", "T10-lytic-2"]
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    assert [c.slices for c in found] == [(14, 15), (9, 10, 11, 12), (8, 9, 10, 11)]


def test_measures_are_those_of_the_painted_voxels() -> None:
    for candidate in measured():
        painted = np.zeros(GRID.shape, bool)
        assert candidate.patch is not None
        candidate.patch.paint(painted)
        assert not (painted & ~BODY).any()
        assert candidate.volume_mm3 == pytest.approx(painted.sum() * GRID.voxel_mm3)
        assert candidate.share_of_body == pytest.approx(painted.sum() / BODY.sum())
        assert candidate.mean_hu == 300
        positions = GRID.lps(np.argwhere(painted)[:, ::-1])
        np.testing.assert_allclose(candidate.centroid_lps, positions.mean(axis=0))
        corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
        outer = np.concatenate([GRID.lps(GRID.ijk(positions) + corner) for corner in corners])
        np.testing.assert_allclose(candidate.box_lps[:3], outer.min(axis=0))
        np.testing.assert_allclose(candidate.box_lps[3:], outer.max(axis=0))


def test_volume_is_that_of_the_crops_mask() -> None:
    large = measured()[2]
    assert large.volume_mm3 == pytest.approx(4 * 80 * WHERE.voxel_mm3, rel=0.1)


def test_what_leaves_no_voxel_in_the_body_is_dropped_and_not_counted() -> None:
    outside = SliceCandidate(10, "lytic", np.zeros((48, 48), bool), 0.9)
    outside.mask[:3, :3] = True
    lesions = join_slices([outside, part(10, (20, 24), 0.5)])
    found = measure(lesions, "L1", WHERE, CT, BODY, hounsfield=False)
    assert [(c.id, c.score, c.mean_hu) for c in found] == [("L1-lytic-1", 0.5, None)]


def test_no_lesion_no_candidate() -> None:
    grid = Grid((2, 48, 48), np.eye(4))
    assert measure([], "L1", grid, CT, BODY, hounsfield=True) == ()


def test_lesions_on_too_few_slices_are_dropped_where_the_weights_say_so() -> None:
    parts = [part(0, (10, 20)), part(1, (10, 20)), part(9, (0, 9))]
    assert [lesion.slices for lesion in join_slices(parts)] == [(0, 1), (9,)]
    assert [lesion.slices for lesion in join_slices(parts, 2)] == [(0, 1)]
