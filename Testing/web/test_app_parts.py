"""What the browser's window is made of, tried without a browser: evidence, nodes, surfaces."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.findings import make_ct, make_evidence, make_grid, make_result
from helpers.scene import Slicer
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.output.figures.vertebra_row import TITLES, make_strip

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
RESULT = make_result(GRID)


def test_strip_shows_the_lesion_and_hides_the_others() -> None:
    evidence = make_evidence(make_ct(GRID), RESULT)["T10"]
    blastic, lytic, _ = RESULT.vertebrae[0].candidates
    assert blastic.patch is not None and lytic.patch is not None
    strip = make_strip(evidence, blastic.patch, GRID, "blastic")
    assert tuple(strip.pictures) == TITLES
    shapes = {picture.shape for picture in strip.pictures.values()}
    assert len(shapes) == 1 and min(shapes)[0] >= 200
    original, healthy, difference, alone = (x.astype(int) for x in strip.pictures.values())
    # Blastic: density was taken away, which is orange.
    red, _, blue = difference.reshape(-1, 3)[difference.reshape(-1, 3).sum(axis=1).argmax()]
    assert ((difference[..., 0] - difference[..., 2]) > 60).any()
    assert red >= blue
    assert not np.array_equal(original, healthy)
    # The neighbouring lytic lesion is gone where the blastic one is revealed alone.
    assert not np.array_equal(original, alone)
    assert "sagittal slice" in strip.note


def test_files_become_nodes_as_slicer_would_read_them(
    mrml: Slicer, box_files: tuple[Path, Path]
) -> None:
    import slicer.util

    from hideseekseg.scene.export_inputs import levelRows
    from hideseekseg.scene.import_data import addCt, addSegmentation, removeData

    mrml.scene.Clear(True)
    volume, labels = read_ct(box_files[0]), read_segmentation(box_files[1])
    ct = addCt(volume, "ct")
    node = addSegmentation(labels, "bodies", ct)
    assert np.array_equal(slicer.util.arrayFromVolume(ct), volume.array)
    rows = levelRows(node, {}, "totalsegmentator")
    assert [row.level for row in rows] == ["L1", "T12", "T11"]
    assert not any(row.level for row in levelRows(node)), "values alone are no names"
    for row, segment in zip(rows, labels.segments):
        image = slicer.util.arrayFromSegmentBinaryLabelmap(node, row.segmentID, ct)
        assert np.array_equal(image > 0, labels.mask(segment))
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    removeData()
    assert not slicer.util.getNodesByClass("vtkMRMLVolumeNode")
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_surfaces_lie_where_the_vertebrae_are_and_are_not_saved(
    mrml: Slicer, box_files: tuple[Path, Path]
) -> None:
    import slicer.util

    from hideseekseg.scene.export_inputs import levelRows
    from hideseekseg.scene.import_data import addCt, addSegmentation
    from hideseekseg.scene.segments import addSurfaces, removeSurfaces

    mrml.scene.Clear(True)
    labels = read_segmentation(box_files[1])
    node = addSegmentation(labels, "bodies", addCt(read_ct(box_files[0]), "ct"))
    rows = levelRows(node, {}, "totalsegmentator")
    models = list(addSurfaces(node, rows))
    assert [model.GetName() for model in models] == ["L1 surface", "T12 surface", "T11 surface"]
    for model, segment in zip(models, labels.segments):
        bounds = [0.0] * 6
        model.GetRASBounds(bounds)
        at = labels.grid.lps(np.argwhere(labels.mask(segment))[:, ::-1]) * (-1, -1, 1)
        expected = np.stack([at.min(axis=0), at.max(axis=0)], axis=1).ravel()
        assert np.allclose(bounds, expected, atol=2.5)
        assert not model.GetSaveWithScene()
        assert 0 < model.GetDisplayNode().GetOpacity() < 1
    removeSurfaces()
    assert not slicer.util.getNodesByClass("vtkMRMLModelNode")
    mrml.scene.Clear(True)


@pytest.mark.parametrize(
    ("choice", "kind", "said"),
    [
        ("none", "vertebra", ""),
        ("L1", "vertebra", "L1 vertebra"),
        ("L1", "body", "L1 body"),
        ("all bodies", "body", "vertebral bodies"),
    ],
)
def test_choices_become_corrections(choice: str, kind: str, said: str) -> None:
    pytest.importorskip("slicer.util", reason="slicer-core is not installed")
    from hideseekseg.ui.level_choices import correction

    assert correction(choice, kind) == said


def test_levels_that_segments_were_moved_between_are_a_chain() -> None:
    """A chain is run as a whole, and each vertebra is known by the level that it had."""
    pytest.importorskip("slicer.util", reason="slicer-core is not installed")
    from hideseekseg.scene.export_inputs import LevelRow
    from hideseekseg.ui.level_choices import changed_since

    def row(identity: str, level: str) -> LevelRow:
        return LevelRow(identity, identity, 1, level, "vertebra", "a test")

    names = ("T11", "T12", "L1", "L2", "L3")
    ran = {name: f"{name} vertebra" for name in names}
    now = {"T11": "T12", "T12": "L1", "L1": "", "L2": "L2", "L3": "L4", "new": "T9"}
    said = changed_since(ran, [row(*pair) for pair in now.items()])
    chains = [{"T11", "T12", "L1"}, {"L3", "L4"}, {"T9"}]
    assert sorted(map(sorted, said.chains)) == sorted(map(sorted, chains))
    assert said.outdated == {"T9", "T11", "T12", "L1", "L3", "L4"}
    assert said.again == ("T9", "T12", "L1", "L4")
    assert said.together("T11") == said.together("L1") == ("T12", "L1")
    assert said.together("L2") == ("L2",)
    before = {level: said.before(level) for level in ("T9", "T11", "T12", "L1", "L2", "L4")}
    expected = {"T9": "T9", "T11": "", "T12": "T11", "L1": "T12", "L2": "L2", "L4": "L3"}
    assert before == expected
    assert said.moved == {"T11": "T12", "T12": "L1", "L1": "", "L3": "L4"}
    same = changed_since(ran, [row(name, name) for name in names])
    assert (same.chains, same.moved, same.before("T11"), same.after("T11")) == (
        (),
        {},
        "T11",
        "T11",
    )


def test_what_vtk_complains_of_does_not_reach_the_terminal(tmp_path: Path) -> None:
    pytest.importorskip("trame_slicer", reason="trame-slicer is not installed")
    code = (
        "import sys, vtk; from pathlib import Path;"
        "from hideseekseg.web.slicer_scene import divert_vtk; divert_vtk(Path(sys.argv[1]));"
        "vtk.vtkImageReslice().Update()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "vtk.log")],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert "vtkImageReslice" in (tmp_path / "vtk.log").read_text()
