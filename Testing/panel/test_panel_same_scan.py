"""A CT that is loaded again is the scan that was reviewed, although Slicer has another node."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from desktop import Desktop
from helpers.panel import Opened, add_boxes, open_panel
from helpers.scene import add_ct, add_transform
from hideseekseg.imaging.volume import Volume

Spine = tuple[Volume, Volume]


@pytest.fixture
def reviewed(
    desktop: Desktop,
    box_spine: Spine,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Opened, Any, Any]]:
    """The panel after a run, with a verdict and a comment; CT and segmentation."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with open_panel(desktop, tiny_weights, sys.executable) as opened:
        nodes = add_boxes(box_spine)
        opened.choose(*nodes)
        opened.run()
        review = opened.panel.review
        review.comment("as before", review.current.id)
        opened.key("X")
        opened.rest()
        yield opened, *nodes


def load_again(spine: Spine, change: float = 0.0) -> Any:
    array = spine[0].array.copy()
    array[0, 0, 0] += change
    return add_ct(array, spine[0].grid.ijk_to_lps, "Again")


def said(opened: Opened) -> list[tuple[str, str]]:
    review = opened.panel.review.review
    items = review.items if review is not None else ()
    return [(x.verdict, x.comment) for x in items if x.verdict != "unreviewed"]


@pytest.mark.parametrize("moved", [False, True])
def test_review_goes_on_where_its_ct_was_removed_and_loaded_again(
    reviewed: tuple[Opened, Any, Any], box_spine: Spine, moved: bool
) -> None:
    import slicer

    opened, ct, segmentation = reviewed
    slicer.mrmlScene.RemoveNode(ct)
    again = load_again(box_spine)
    if moved:
        shift = np.eye(4)
        shift[:3, 3] = 40, 25, 10
        transform = add_transform(shift)
        for node in (again, segmentation):
            node.SetAndObserveTransformNodeID(transform.GetID())
    opened.choose(again, segmentation)
    assert opened.ui.reviewButton.text == "Review of “Again”"
    assert said(opened) == [("rejected", "as before")]
    results = opened.panel.review.results
    assert results.ctNode is again and results.hounsfield() is not None
    item = next(x for x in opened.panel.review.review.items if not x.missed)
    x, y, z = results.here(item.centroid_lps)
    segment = np.array(results.node.GetSegmentCenterRAS(item.id))
    np.testing.assert_allclose((-x, -y, z), segment, atol=4.0)
    opened.panel.review.choose_vertebra("L1")
    opened.ui.rerunButton.click()
    if opened.panel.running:
        opened.wait_for_end()
    assert opened.message.startswith("Done"), opened.message
    assert said(opened) == [("rejected", "as before")]


def test_run_of_a_second_node_of_the_scan_takes_over_what_was_said(
    reviewed: tuple[Opened, Any, Any], box_spine: Spine
) -> None:
    opened, ct, segmentation = reviewed
    again = load_again(box_spine)
    opened.choose(again, segmentation)
    assert opened.ui.reviewButton.text == "Review of “Boxes”, not of “Again”"
    assert opened.message.startswith("“Again” is the same scan as “Boxes”, whose review is listed")
    opened.panel.exit()
    opened.panel.enter()
    assert said(opened) == [("rejected", "as before")]
    opened.run()
    assert opened.ui.reviewButton.text == "Review of “Again”"
    assert said(opened) == [("rejected", "as before")]
    opened.choose(ct, segmentation)
    assert opened.ui.reviewButton.text == "Review of “Boxes”", "the first one is there as well"


@pytest.mark.parametrize("first", ["kept", "removed"])
def test_another_scan_has_no_part_in_the_review(
    reviewed: tuple[Opened, Any, Any], box_spine: Spine, first: str
) -> None:
    """One voxel differs."""
    import slicer

    opened, ct, segmentation = reviewed
    if first == "removed":
        slicer.mrmlScene.RemoveNode(ct)
    other = load_again(box_spine, change=7.0)
    opened.choose(other, segmentation)
    assert "same scan" not in opened.message
    assert opened.panel.review.results.ctNode is not other
    opened.run()
    assert said(opened) == []
