"""A CT that is moved between two runs: what they say is compared at one place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.findings import (
    ball,
    body_centre,
    make_candidate,
    make_ct,
    make_evidence,
    make_grid,
    make_result,
)
from hideseekseg.findings import Status, VertebraFinding
from hideseekseg.imaging.volume import Grid, measure_patch
from hideseekseg.review.relocation import Relocation
from hideseekseg.review.review import Review

GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0))


def placed(
    degrees: float = 0.0, mm: tuple[float, float, float] = (0, 0, 0), scale: float = 1
) -> Grid:
    """The CT after a turn about the z axis, a shift and a scale."""
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= scale
    matrix[:3, 3] = mm
    return Grid(GRID.shape, matrix @ GRID.ijk_to_lps)


def found(grid: Grid, *at: tuple[float, float, float]) -> VertebraFinding:
    """A vertebra of the CT at ``grid`` with a lytic ball at each place, which is in the CT."""
    patches = (ball(GRID, place, 3.0) for place in at)
    candidates = (
        make_candidate(f"L1-lytic-{n}", "lytic", 0.9 - 0.1 * n, patch, grid)
        for n, patch in enumerate(patches, start=1)
    )
    return VertebraFinding("L1", Status.FINDINGS, candidates=tuple(candidates))


FIRST = body_centre(3)
SECOND = (FIRST[0] + 7.0, FIRST[1], FIRST[2])


@pytest.mark.parametrize("after", [placed(mm=(40, 25, 10)), placed(40), placed(90, (3, 200, -8))])
def test_findings_are_brought_to_another_place_by_their_voxels(after: Grid) -> None:
    move = Relocation(GRID, after)
    assert move.rigid and move.moves
    there = move.finding(found(GRID, FIRST, SECOND))
    for candidate in there.candidates:
        assert candidate.patch is not None
        size = measure_patch(candidate.patch, after)
        np.testing.assert_allclose(candidate.centroid_lps, size.centroid_lps, atol=1e-6)
        np.testing.assert_allclose(candidate.box_lps, size.box_lps, atol=1e-6)
    back = Relocation(after, GRID).finding(there)
    for one, other in zip(back.candidates, found(GRID, FIRST, SECOND).candidates):
        np.testing.assert_allclose(one.centroid_lps, other.centroid_lps, atol=1e-6)


def test_a_ct_that_stays_leaves_all_as_it_is() -> None:
    move, finding = Relocation(GRID, placed(mm=(0, 0, 1e-4))), found(GRID, FIRST)
    assert move.finding(finding) is finding and not move.moves


def test_scaling_is_no_movement_of_a_body() -> None:
    assert not Relocation(GRID, placed(scale=1.1)).rigid
    assert Relocation(GRID, placed(30)).rigid


def test_evidence_moves_with_the_ct() -> None:
    result = make_result(GRID)
    seen = make_evidence(make_ct(GRID), result)["L1"]
    after = placed(25, (5, 6, 7))
    there = Relocation(GRID, after).evidence(seen)
    corners = GRID.ijk(seen.grid.corners)
    np.testing.assert_allclose(after.ijk(there.grid.corners), corners, atol=1e-9)
    assert there.image is seen.image


@pytest.mark.parametrize("after", [placed(mm=(40, 25, 10)), placed(40)])
def test_words_wait_for_their_vertebra_where_the_ct_lies_now(after: Grid) -> None:
    """Held by a run that was stopped, and given to the same findings, the two not exchanged."""
    review = Review()
    review.add_vertebra(found(GRID, FIRST, SECOND))
    review.comment("L1-lytic-1", "first")
    review.comment("L1-lytic-2", "second")
    added = review.add_missed("L1", "blastic", volume_mm3=9.0, centroid_lps=FIRST)
    stopped, move = Review(), Relocation(GRID, after)
    stopped.hold(review, moved=move.lesion)
    stopped.adopt(review, added, moved=move.lesion)
    np.testing.assert_allclose(
        stopped.item(added).centroid_lps, after.lps(GRID.ijk(FIRST)), atol=1e-6
    )
    stopped.add_vertebra(found(after, SECOND, FIRST))
    said = {x.id: x.comment for x in stopped.items if not x.missed}
    assert said == {"L1-lytic-1": "second", "L1-lytic-2": "first"}


def test_an_earlier_review_is_met_where_its_ct_lay() -> None:
    review, after = Review(), placed(mm=(7.0, 0.0, 0.0))  # as far as the two are apart
    review.add_vertebra(found(GRID, FIRST, SECOND))
    review.comment("L1-lytic-1", "first")
    now = Review()
    finding = found(after, SECOND, FIRST)
    same = now.add_vertebra(finding, review, there=Relocation(after, GRID).finding(finding))
    assert same == {"L1-lytic-1": "L1-lytic-2", "L1-lytic-2": "L1-lytic-1"}
    assert now.item("L1-lytic-2").comment == "first"


def test_what_was_held_and_has_no_place_any_more_is_named() -> None:
    review, stopped = Review(), Review()
    review.add_vertebra(found(GRID, FIRST, SECOND))
    review.judge("L1-lytic-2", "accepted")
    stopped.hold(review)
    assert stopped.levels == ["L1"]
    assert Review().not_taken(stopped, {"L1": ""}, ()) == ["L1 lytic 2"]
    assert Review().not_taken(stopped, {"L1": "L1"}, {"L1-lytic-2"}) == []


def test_a_candidate_without_voxels_is_moved_by_its_box() -> None:
    finding = found(GRID, FIRST)
    [candidate] = finding.candidates
    bare = replace(finding, candidates=(replace(candidate, patch=None),))
    after = placed(90, (1, 2, 3))
    [now] = Relocation(GRID, after).finding(bare).candidates
    [wanted] = found(after, FIRST).candidates
    np.testing.assert_allclose(now.box_lps, wanted.box_lps, atol=1e-6)
