"""From the scene to a run and back: what the library finds lands on the CT it was found in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.scene import Slicer, add_ct, add_segmentation, add_transform, everything_of
from hideseekseg.cli.main import main
from hideseekseg.findings import Status
from hideseekseg.imaging.volume import Volume
from hideseekseg.output.result_folder import read_vertebra

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("slicer.util", reason="slicer-core is not installed")

from hideseekseg.scene.export_inputs import problems, writeInputs  # noqa: E402
from hideseekseg.scene.results import Results  # noqa: E402
from hideseekseg.ui.segmentation_run import Choices, SegmentationRun  # noqa: E402

NAMES = {33: "vertebrae_T11", 32: "vertebrae_T12", 31: "Segment_3"}


@pytest.fixture(autouse=True)
def scene(mrml: Slicer) -> Iterator[Any]:
    mrml.scene.Clear(False)
    yield mrml.scene
    mrml.scene.Clear(False)


def test_a_transformed_ct_gets_its_lesions_where_they_are(
    box_spine: tuple[Volume, Volume], tiny_weights: Path, tmp_path: Path
) -> None:
    volume, labels = box_spine
    masks = {name: labels.array == value for value, name in NAMES.items()}
    ct = add_ct(volume.array, volume.grid.ijk_to_lps)
    vertebrae = add_segmentation(masks, labels.grid.ijk_to_lps)
    angle = np.deg2rad(11.0)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (30.0, -12.0, 55.0)
    transform = add_transform(turn)
    for node in (ct, vertebrae):
        node.SetAndObserveTransformNodeID(transform.GetID())
    before = everything_of(vertebrae)
    assert problems(ct, vertebrae) == []

    inputs = writeInputs(ct, vertebrae, {}, tmp_path / "in")
    words = [str(inputs.ct), str(inputs.segmentation), "--labels", inputs.labels]
    words += ["--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main(["segment", *words, "--device", "cpu", "--json-lines", "--each"]) == 0

    results = Results.create(ct, vertebrae, {})
    files = sorted((tmp_path / "out" / "vertebrae").glob("*.npz"))
    assert [file.stem for file in files] == ["T11", "T12"]
    found = 0
    for file in files:
        finding, evidence = read_vertebra(file)
        results.addVertebra(finding)
        assert finding.status is not Status.NOT_ANALYSED and evidence is not None
        body = masks[f"vertebrae_{finding.level}"]
        for candidate in finding.candidates:
            seen = slicer.util.arrayFromSegmentBinaryLabelmap(results.node, candidate.id, ct) != 0
            assert seen.any() and not (seen & ~body).any()
            voxels = np.argwhere(seen)[:, ::-1]
            middle = results.grid.lps(voxels).mean(axis=0)
            np.testing.assert_allclose(candidate.centroid_lps, middle, atol=0.1)
            found += 1
        _, difference = results.evidenceVolumes(evidence, finding.level)
        at = np.argwhere(slicer.util.arrayFromVolume(difference) != 0)[:, ::-1]
        points = _world(difference, at)
        assert not len(at) or np.mean(_inside(ct, body, points)) > 0.95
    assert found
    assert everything_of(vertebrae) == before


@pytest.mark.parametrize(("asked", "expected"), [(None, 0.83), (0.35, 0.35), (0.0, 0.0)])
def test_a_review_opens_at_the_threshold_of_the_weights_unless_another_is_asked_for(
    asked: float | None,
    expected: float,
    box_spine: tuple[Volume, Volume],
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    volume, labels = box_spine
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    profile = json.loads((weights / "profile.json").read_text("utf-8"))
    profile["decision"]["threshold"] = 0.83
    (weights / "profile.json").write_text(json.dumps(profile), "utf-8")
    ct = add_ct(volume.array, volume.grid.ijk_to_lps)
    masks = {name: labels.array == value for value, name in NAMES.items()}
    vertebrae = add_segmentation(masks, labels.grid.ijk_to_lps)
    choices = Choices(weights=weights, threshold=asked)
    run = SegmentationRun(ct, vertebrae, choices, lambda: tmp_path / "run")
    assert run.review.threshold == expected


def _world(node: Any, ijk: Any) -> Any:
    """RAS of voxels, in the node's own frame, which is also the CT's."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return np.column_stack([ijk, np.ones(len(ijk))]) @ slicer.util.arrayFromVTKMatrix(matrix).T


def _inside(ct: Any, body: Any, points: Any) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    ct.GetRASToIJKMatrix(matrix)
    i, j, k = np.rint(points @ slicer.util.arrayFromVTKMatrix(matrix).T)[:, :3].astype(int).T
    return body[k, j, i]
