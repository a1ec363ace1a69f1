"""Which vertebra is which in another segmentation of the same CT: by where its body lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from helpers.findings import body_centre, make_ct, make_evidence, make_grid, make_result, positions
from helpers.scene import Slicer, add_ct, add_segmentation, add_transform

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("slicer.util", reason="slicer-core is not installed")

from hideseekseg.scene.export_inputs import levelRows, worldGrid  # noqa: E402
from hideseekseg.scene.results import Results  # noqa: E402
from hideseekseg.scene.same_bodies import isOfRun, levelsByPlace  # noqa: E402

GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
RESULT = make_result(GRID)  # bodies 0 to 3: T10 to L1, of which T12 was not analysed
LEVELS = {"T10": (), "T11": (), "T12": (), "L1": ()}


@pytest.fixture(autouse=True)
def scene(mrml: Slicer) -> Iterator[Any]:
    mrml.scene.Clear(False)
    yield mrml.scene
    mrml.scene.Clear(False)


def boxes(names: Mapping[str, tuple[int, ...]], grid: Any = GRID, shift: float = 0.0) -> Any:
    """A segmentation of whole vertebrae, each of one body or of several."""
    where = positions(grid)
    masks = {}
    for name, numbers in names.items():
        centres = [np.add(body_centre(n), (0.0, 0.0, shift)) for n in numbers]
        near = (np.all(np.abs(where - c) < (20.0, 15.0, 12.0), axis=-1) for c in centres)
        masks[f"vertebrae_{name}"] = np.any([*near], axis=0)
    return add_segmentation(masks, grid.ijk_to_lps)


@pytest.fixture
def results() -> Results:
    """A run of T10 to L1, of which the evidence was kept."""
    ct = add_ct(make_ct(GRID).array, GRID.ijk_to_lps)
    results = Results.create(ct, boxes({x: (n,) for n, x in enumerate(LEVELS)}), {})
    evidence = make_evidence(make_ct(GRID), RESULT)
    for finding in RESULT.vertebrae:
        results.addVertebra(finding, evidence.get(finding.level))
    return results


def now(results: Results, node: Any, levels: Any = None) -> dict[str, str]:
    rows = levelRows(node)
    return levelsByPlace(results, levels or LEVELS, node, rows, worldGrid(results.ctNode))


def test_levels_that_are_one_off(results: Results) -> None:
    other = boxes({"T11": (0,), "T12": (1,), "L1": (2,), "L2": (3,)})
    assert now(results, other) == {"T10": "T11", "T11": "T12", "T12": "L1", "L1": "L2"}
    coarse = make_grid((35, 25, 25), (2.4, 2.2, 4.0))
    assert now(results, boxes({"L1": (0,), "L2": (1,)}, coarse)) == {
        **{"T10": "L1", "T11": "L2"},
        **{"T12": "", "L1": ""},
    }


def test_two_bodies_in_one_segment_and_one_that_is_off(results: Results) -> None:
    """Only one of the two can be it: that of the same name."""
    assert now(results, boxes({"T11": (0, 1), "L1": (3,)})) == {
        **{"T10": "", "T11": "T11"},
        **{"T12": "", "L1": "L1"},
    }
    assert now(results, boxes({"T10": (0,)}, shift=14.0)) == dict.fromkeys(LEVELS, "")


def test_a_ct_that_was_moved_with_its_new_segmentation(results: Results) -> None:
    other = boxes({"T11": (0,), "T12": (1,)})
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    turn[:3, 3] = (400.0, 5.0, -60.0)
    for node in (results.ctNode, other):
        node.SetAndObserveTransformNodeID(add_transform(turn).GetID())
    found = now(results, other)
    assert (found["T10"], found["T11"]) == ("T11", "T12")


def test_without_evidence_or_segments_lesions_say_where_a_body_is(
    results: Results, scene: Any
) -> None:
    scene.RemoveNode(results.segmentationNode)
    scene.RemoveNode(results.kept.textNode)
    results = Results.of(results.node)
    lesions = {v.level: [c.id for c in v.candidates] for v in RESULT.vertebrae}
    found = now(results, boxes({"T11": (0,), "L2": (3,)}), lesions)
    assert (found["T10"], found["L1"]) == ("T11", "L2")
    assert "T12" not in found, "nobody knows where it is"


def test_segments_that_are_not_where_the_run_had_them(results: Results) -> None:
    place = worldGrid(results.ctNode)
    assert isOfRun(results, results.segmentationNode, place)
    other = boxes({"T10": (1,), "T11": (0,), "T12": (2,), "L1": (3,)})
    run = {f"vertebrae_{level}": f"{level} vertebra" for level in LEVELS}
    again = Results.create(results.ctNode, other, {"levels": run})
    evidence = make_evidence(make_ct(GRID), RESULT)
    for finding in RESULT.vertebrae:
        again.addVertebra(finding, evidence.get(finding.level))
    assert not isOfRun(again, other, place)
