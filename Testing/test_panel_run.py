"""The panel from the click to the findings, with the real child process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from desktop import Desktop
from example_panel import Opened, add_boxes, open_panel
from example_scene import everything_of
from HideSeekSegLib.imaging.volume import Volume

Spine = tuple[Volume, Volume]


@pytest.fixture
def opened(desktop: Desktop, tiny_weights: Path) -> Iterator[Opened]:
    with open_panel(desktop, tiny_weights) as panel:
        yield panel


@pytest.fixture
def slow(desktop: Desktop, slow_weights: Path) -> Iterator[Opened]:
    """There is time to do things while it runs."""
    with open_panel(desktop, slow_weights) as panel:
        yield panel


def results_in_scene() -> list[Any]:
    import slicer

    from HideSeekSegLib.scene.results import Results

    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if Results.isOne(node)]


def test_one_click_brings_findings_to_the_scene(opened: Opened, box_spine: Spine) -> None:
    ct, segmentation = add_boxes(box_spine)
    before = everything_of(segmentation)
    opened.choose(ct, segmentation)
    assert opened.ui.levelsButton.text == "Vertebra levels: T11 to L1 (whole)"
    assert "3 vertebrae" in opened.ui.estimateLabel.text
    opened.run()
    assert opened.message.startswith("Done: 3 vertebrae")
    [node] = results_in_scene()
    assert node.GetName() == "Boxes metastases"
    assert node.GetSegmentation().GetNumberOfSegments() > 0
    scores = [float(row[2]) for row in opened.rows()]
    assert scores and scores == sorted(scores, reverse=True)
    assert everything_of(segmentation) == before, "the user's own segmentation was changed"
    assert opened.ui.segmentButton.text == "Segment metastases"
    assert not opened.ui.progressBar.visible
