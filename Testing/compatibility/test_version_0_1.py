"""Files that version 0.1 wrote: weights, results, exports and scenes open as they were left."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from desktop import Desktop
from helpers import app
from helpers.panel import open_panel
from helpers.scene import Slicer
from hideseekseg.cli.main import main
from hideseekseg.imaging.reading import read_segmentation
from hideseekseg.model.weights import load_model
from hideseekseg.output.figures.vertebra_row import make_strip
from hideseekseg.output.result_folder import read_vertebra
from hideseekseg.output.tables import result_from_json
from hideseekseg.review.review import Review

OLD = Path(__file__).resolve().parents[1] / "data" / "version-0.1"
LEVELS = ("T11", "T12", "L1")
COUNTS = {"T11": 4, "T12": 3, "L1": 3}
# Ids by score, as both windows of version 0.1 listed them, and what their readers decided.
BY_SCORE = (
    *("L1-lytic-1", "T12-lytic-1", "T11-lytic-1", "T12-lytic-2", "L1-lytic-2"),
    *("T12-lytic-3", "T11-lytic-2", "T11-lytic-3", "T11-lytic-4", "L1-lytic-3"),
)
SHOWN = BY_SCORE[:7]  # above the threshold of 0.99, to which both readers moved it
COMMENT = "soft tissue, left half; siehe Jiří"
DRAWN = "T12-added-1"


def test_weights_load_and_judge_an_image_as_before() -> None:
    model = load_model(OLD / "weights", "cpu")
    assert model.profile.name == "small"
    assert model.hash == "877d56461671531c5491bab5c1b51229cce8a79796bf77ded2a02705dd1f4e80"
    image = torch.linspace(0, 1, 256).reshape(1, 1, 16, 16)
    logit = model.classifier.logit(model.autoencoder.encode(image).double())
    assert float(logit) == pytest.approx(5.4252, abs=1e-4)


def test_weights_segment_a_scan(box_files: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["segment", *map(str, box_files), "--labels", "totalsegmentator"]
    assert main([*words, "--weights", str(OLD / "weights"), "--out", str(tmp_path)]) == 0
    result = result_from_json(json.loads((tmp_path / "candidates.json").read_text("utf-8")))
    assert [vertebra.level for vertebra in result.vertebrae] == list(LEVELS)
    assert result.run["weights"] == "small"


def test_candidates_are_read_with_their_numbers() -> None:
    written = json.loads((OLD / "results" / "candidates.json").read_text("utf-8"))
    result = result_from_json(written)
    assert result.threshold == 0.5
    assert {v.level: len(v.candidates) for v in result.vertebrae} == COUNTS
    for vertebra, old in zip(result.vertebrae, written["vertebrae"]):
        assert vertebra.status.value == "findings"
        assert vertebra.p_malignant == old["p_malignant"]
        for candidate, before in zip(vertebra.candidates, old["candidates"]):
            for name in ("id", "type", "score", "volume_mm3", "mean_hu"):
                assert getattr(candidate, name) == before[name]
            assert list(candidate.centroid_lps) == before["centroid_lps"]


@pytest.mark.parametrize("level", LEVELS)
def test_vertebra_comes_with_voxels_and_evidence(level: str) -> None:
    finding, evidence = read_vertebra(OLD / "results" / "vertebrae" / f"{level}.npz")
    assert finding.level == level
    assert len(finding.candidates) == COUNTS[level]
    [old] = (v for v in _old_vertebrae() if v["level"] == level)
    lesions = read_segmentation(OLD / "results" / "lesions.seg.nrrd")
    by_name = {segment.name: lesions.mask(segment) for segment in lesions.segments}
    assert evidence is not None
    for candidate, before in zip(finding.candidates, old["candidates"]):
        assert (candidate.id, candidate.score) == (before["id"], before["score"])
        assert candidate.patch is not None
        whole = np.zeros(lesions.grid.shape, bool)
        candidate.patch.paint(whole)
        assert whole.sum() * lesions.grid.voxel_mm3 == candidate.volume_mm3
        np.testing.assert_array_equal(whole, by_name[before["name"]])
        strip = make_strip(evidence, candidate.patch, lesions.grid, candidate.type)
        assert len(strip.pictures) == 4
        assert all(picture.std() > 0 for picture in strip.pictures.values())


def _old_vertebrae() -> list[dict[str, Any]]:
    text = (OLD / "results" / "candidates.json").read_text("utf-8")
    return list(json.loads(text)["vertebrae"])


def test_export_agrees_with_the_scene_that_was_saved_with_it(mrml: Slicer) -> None:
    [segment] = read_segmentation(OLD / "browser" / "accepted.seg.nrrd").segments
    assert segment.name == "L1 blastic 1"
    with (OLD / "browser" / "accepted.csv").open(encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["id"], row["comment"]) == ("L1-lytic-1", COMMENT)
    said = json.loads((OLD / "browser" / "review.json").read_text("utf-8"))
    review, _ = _open(mrml, OLD / "browser" / "review.mrb")
    assert said["threshold"] == review.threshold
    for written, item in zip(said["lesions"], review.items):
        for name in ("id", "name", "type", "verdict", "comment", "score", "volume_mm3"):
            if name != "volume_mm3" or item.verdict == "unreviewed":
                assert written[name] == getattr(item, name)
    assert len(said["lesions"]) == len(review.items)
    assert said["summary"] == review.summary()


def _open(mrml: Slicer, path: Path) -> tuple[Review, Any]:
    """The review of a saved scene, and its results."""
    from hideseekseg.ui.review_session import latest

    mrml.scene.Clear(True)
    assert mrml.scene.ReadFromMRB(str(path), True)
    complaints: list[str] = []
    session = latest(complaints.append)
    assert complaints == []
    assert session is not None
    return session.review, session.results


@pytest.fixture
def empty_afterwards(mrml: Slicer) -> Iterator[None]:
    yield
    mrml.scene.Clear(True)


def verdicts(review: Review) -> dict[str, str]:
    return {x.id: x.verdict for x in review.items if x.verdict != "unreviewed"}


@pytest.mark.usefixtures("empty_afterwards")
def test_scene_of_the_browser_opens_as_it_was_left(mrml: Slicer) -> None:
    review, results = _open(mrml, OLD / "browser" / "review.mrb")
    assert review.threshold == 0.99
    assert tuple(item.id for item in review.items) == BY_SCORE
    assert tuple(item.id for item in review.shown()) == SHOWN
    assert verdicts(review) == {"L1-lytic-1": "accepted", "T12-lytic-1": "rejected"}
    first = review.item("L1-lytic-1")
    assert (first.type, first.name, first.comment) == ("blastic", "L1 blastic 1", COMMENT)
    assert {level: v.status.value for level, v in review.vertebrae.items()} == dict.fromkeys(
        LEVELS, "findings"
    )
    assert results.ctNode.GetName() == "ct"
    assert len(results.segmentationNode.GetSegmentation().GetSegmentIDs()) == 3
    assert results.tableNode.GetNumberOfRows() == len(BY_SCORE)
    _check_voxels(results, BY_SCORE)


@pytest.mark.usefixtures("empty_afterwards")
def test_history_of_the_browser_goes_back_to_the_beginning(mrml: Slicer) -> None:
    review, _ = _open(mrml, OLD / "browser" / "review.mrb")
    assert review.redo() == ("T11-lytic-1",)
    assert review.item("T11-lytic-1").verdict == "accepted"
    while review.can_undo:
        review.undo()
    assert verdicts(review) == {}
    assert {item.type for item in review.items} == {"lytic"}
    assert {item.comment for item in review.items} == {""}
    assert review.threshold == 0.5


def _check_voxels(results: Any, identities: tuple[str, ...]) -> None:
    """Each candidate has the volume that version 0.1 gave it."""
    volumes = {c["id"]: c["volume_mm3"] for v in _old_vertebrae() for c in v["candidates"]}
    patches = results.patches()
    assert set(identities) <= set(patches)
    for identity in identities:
        patch = patches[identity]
        assert patch.array.sum() * results.grid.voxel_mm3 == volumes[identity]


@pytest.mark.usefixtures("empty_afterwards")
def test_scene_of_the_panel_opens_as_it_was_left(mrml: Slicer) -> None:
    from hideseekseg.ui.review_session import ReviewSession

    review, results = _open(mrml, OLD / "panel" / "scene.mrb")
    assert review.threshold == 0.99
    assert tuple(item.id for item in review.items) == (*BY_SCORE, DRAWN)
    left = {"L1-lytic-1": "accepted", "T12-lytic-1": "rejected", DRAWN: "accepted"}
    assert verdicts(review) == left
    assert ReviewSession(review, results).measure()
    drawn = review.item(DRAWN)
    assert (drawn.level, drawn.type, drawn.missed) == ("T12", "lytic", True)
    assert drawn.volume_mm3 == 27 * 8
    _check_voxels(results, BY_SCORE)
    assert results.patches([DRAWN])[DRAWN].array.sum() == 27
    assert review.undo() == (DRAWN,)
    assert DRAWN not in verdicts(review)


@pytest.mark.usefixtures("empty_afterwards")
def test_panel_lists_its_old_scene_and_goes_on(mrml: Slicer, desktop: Desktop) -> None:
    import slicer

    with open_panel(desktop, program=sys.executable) as opened:
        mrml.scene.Clear(True)
        assert mrml.scene.ReadFromMRB(str(OLD / "panel" / "scene.mrb"), True)
        opened.ui.ctSelector.setCurrentNode(slicer.util.getNode("Boxes"))
        desktop.settle()
        assert opened.ui.thresholdSlider.value == pytest.approx(0.99)
        rows = opened.rows()
        assert [row[0] for row in rows] == ["L1", "T12", "T11", "T12", "L1", "T12", "T11", "T12"]
        statuses = [row[5] for row in rows]
        assert statuses == ["✓ accepted", "✗ rejected", *["to review"] * 5, "✓ added"]
        opened.ui.candidatesTable.selectRow(2)
        opened.key("A")
        assert opened.rows()[2][5] == "✓ accepted"


@pytest.mark.usefixtures("empty_afterwards")
def test_segmentation_alone_brings_the_review_back(mrml: Slicer) -> None:
    import slicer

    from hideseekseg.scene.review_storage import restore

    mrml.scene.Clear(True)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    mrml.scene.AddNode(storage)
    storage.SetFileName(str(OLD / "panel" / "results.seg.nrrd"))
    node = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(node) == 1
    review = restore(node)
    assert review is not None
    left = {"L1-lytic-1": "accepted", "T12-lytic-1": "rejected", DRAWN: "accepted"}
    assert verdicts(review) == left
    assert review.threshold == 0.99


@pytest.mark.slow
def test_browser_opens_its_old_scene_and_goes_on() -> None:
    app.need_all()
    path = OLD / "browser" / "review.mrb"
    with app.browser() as browser, app.serve(str(path)) as served:
        tab = app.open_tab(browser, served.url, "#candidates tr.accepted")
        rows = tab.rows()
        assert [cells[0] for cells in rows] == ["L1", "T12", "T11", "T12", "L1", "T12", "T11"]
        statuses = [cells[5] for cells in rows]
        assert statuses == ["✓ accepted ✎", "✗ rejected", *["to review"] * 5]
        assert rows[0][1] == "blastic"
        assert tab.state("threshold") == 0.99
        tab.choose_first()
        tab.until_state("comment", COMMENT)
        tab.press("u")
        rejected = "([n]) => document.querySelectorAll('#candidates tr.rejected').length === n"
        tab.until(rejected, 0)
        assert tab.complaints == []
