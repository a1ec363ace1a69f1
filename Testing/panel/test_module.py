"""The module as Slicer opens it: its file unmodified, on stand-ins and on Slicer's own Python."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from desktop import Desktop

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HideSeekSeg" / "HideSeekSeg.py"
# The folder Base/Python of Slicer's sources, where a developer has them.
SOURCES = "HIDESEEKSEG_SLICER_SOURCES"


@pytest.fixture(params=["stand-ins", "Slicer's own"])
def module(request: pytest.FixtureRequest, desktop: Desktop) -> Iterator[types.ModuleType]:
    from desktop.modules import loaded

    sources = None
    if request.param != "stand-ins":
        if not os.environ.get(SOURCES):
            pytest.skip(f"{SOURCES} does not tell where Slicer's Base/Python is")
        sources = Path(os.environ[SOURCES])
    with loaded(MODULE, sources) as found:
        yield found


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This Python as Slicer's PythonSlicer: a launcher on the PATH that starts the real one."""
    _launch(tmp_path, f'"{sys.executable}" "$@"', monkeypatch)


@pytest.fixture
def silent_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PythonSlicer that has not answered yet: for what neither torch nor a run has part in."""
    _launch(tmp_path, "exec cat > /dev/null", monkeypatch)


def _launch(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name == "nt":
        pytest.skip("needs a script as program")
    path = folder / "bin" / "PythonSlicer"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{line}\n", "utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def opened(module: types.ModuleType, silent_launcher: None) -> Iterator[Any]:
    from desktop.modules import Opened

    found = Opened(module)
    found.enter()
    yield found
    found.close()


def add_inputs() -> tuple[Any, Any]:
    import numpy as np
    import slicer

    ct = slicer.util.addVolumeFromArray(np.zeros((8, 9, 10), np.int16), name="CT")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Vertebrae")
    return ct, node


def test_description_and_icon(opened: Any) -> None:
    import slicer

    described = opened.description
    assert "Metastases" in described.title
    assert described.categories == ["Segmentation"]
    assert "not a medical device" in described.helpText
    assert (MODULE.parent / "Resources" / "Icons" / "HideSeekSeg.png").is_file()
    assert slicer.modules.hideseekseg.path == str(MODULE)


def test_single_vertebrae_are_offered_as_regions(opened: Any, desktop: Desktop) -> None:
    logic = desktop.mrml.logics["Terminologies"]
    assert logic.GetNumberOfRegionsInRegionContext("Single vertebrae - HideSeekSeg") > 20


def test_inputs_are_kept_in_the_parameter_node(opened: Any, desktop: Desktop) -> None:
    import slicer

    ct, node = add_inputs()
    opened.exit()
    opened.enter()
    ui = opened.widget.ui
    assert ui.ctSelector.currentNode() is ct
    assert ui.segmentationSelector.currentNode() is node
    other, _ = add_inputs()
    ui.ctSelector.setCurrentNode(other)
    kept = slicer.mrmlScene.GetSingletonNode("HideSeekSeg", "vtkMRMLScriptedModuleNode")
    assert kept.GetNodeReference("ct") is other
    opened.exit()
    ui.ctSelector.setCurrentNode(ct)
    assert kept.GetNodeReference("ct") is other, "a module that is not shown changes nothing"


def test_scene_is_closed_and_filled_again(opened: Any, desktop: Desktop) -> None:
    import slicer

    add_inputs()
    opened.enter()
    slicer.mrmlScene.Clear()
    assert opened.widget.ui.ctSelector.currentNode() is None
    ct, _ = add_inputs()
    opened.enter()
    assert opened.widget.ui.ctSelector.currentNode() is ct


def test_nothing_is_left_after_cleanup(module: types.ModuleType, launcher: None) -> None:
    """Reloading a module twice must not leave observers behind."""
    import slicer

    from desktop.modules import Opened

    for _ in range(2):
        found = Opened(module)
        found.enter()
        found.close()
    slicer.mrmlScene.Clear()
    add_inputs()


def test_reload_takes_the_library_anew_and_keeps_the_keys(opened: Any) -> None:
    import slicer

    before = sys.modules["HideSeekSegLib.widget"]
    kept = {n: m for n, m in sys.modules.items() if n.startswith(("hideseekseg", "HideSeekSegLib"))}
    try:
        opened.widget.onReload()
        new = slicer.modules.HideSeekSegWidget
        assert sys.modules["HideSeekSegLib.widget"] is not before
        assert isinstance(new.panel, sys.modules["HideSeekSegLib.widget"].Panel)
        assert new.panel.keys.installed
        new.cleanup()
    finally:
        for name in [n for n in sys.modules if n.startswith(("hideseekseg", "HideSeekSegLib"))]:
            del sys.modules[name]
        sys.modules.update(kept)


@pytest.mark.parametrize("ended", ["reload", "close"])
def test_nothing_follows_from_a_panel_that_was_ended(opened: Any, ended: str) -> None:
    """A reload hides the old widgets: their selectors follow the scene as before."""
    import slicer

    ct, _ = add_inputs()
    opened.exit()
    opened.enter()
    old, looked = opened.widget, []
    kept = {n: m for n, m in sys.modules.items() if n.startswith(("hideseekseg", "HideSeekSegLib"))}
    try:
        if ended == "reload":
            old.onReload()
            slicer.modules.HideSeekSegWidget.cleanup()
        else:
            opened.close()
        old.panel.recovery.look = lambda *inputs: looked.append(inputs)
        old.panel._standBy = lambda: looked.append(())
        assert old.ui.ctSelector.currentNode() is ct
        slicer.mrmlScene.RemoveNode(ct)
        add_inputs()
        old.ui.ctSelector.setCurrentNode(add_inputs()[0])
        assert looked == []
    finally:
        for name in [n for n in sys.modules if n.startswith(("hideseekseg", "HideSeekSegLib"))]:
            del sys.modules[name]
        sys.modules.update(kept)


def write_scene(path: Path) -> Path:
    """A saved scene with one transform in it."""
    import slicer

    scene = slicer.vtkMRMLScene()
    scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    scene.SetURL(str(path))
    assert scene.Commit()
    return path


@pytest.mark.parametrize("shown", [True, False])
def test_inputs_stay_chosen_when_a_scene_is_added(
    opened: Any, desktop: Desktop, tmp_path: Path, shown: bool
) -> None:
    """Slicer's selectors choose nothing at the end of an import, and so would the module."""
    import slicer

    add_inputs()
    ct, node = add_inputs()
    opened.exit()
    opened.enter()
    ui = opened.widget.ui
    ui.ctSelector.setCurrentNode(ct)
    ui.segmentationSelector.setCurrentNode(node)
    if not shown:
        opened.exit()
    slicer.mrmlScene.SetURL(str(write_scene(tmp_path / "more.mrml")))
    assert slicer.mrmlScene.Import()
    if not shown:
        opened.enter()
    assert slicer.util.getNodesByClass("vtkMRMLLinearTransformNode")
    assert ui.ctSelector.currentNode() is ct
    assert ui.segmentationSelector.currentNode() is node
    kept = slicer.mrmlScene.GetSingletonNode("HideSeekSeg", "vtkMRMLScriptedModuleNode")
    assert kept.GetNodeReference("ct") is ct


def test_a_form_that_is_not_shown_observes_nothing(opened: Any, desktop: Desktop) -> None:
    """Slicer 5.10 leaves what observes the node to Python's garbage, and crashes when told."""
    import slicer

    from desktop.module_base import followed

    kept = slicer.mrmlScene.GetSingletonNode("HideSeekSeg", "vtkMRMLScriptedModuleNode")
    for _ in range(2):
        opened.exit()
        followed.clear()
        gc.collect()
        kept.Modified()
        assert followed == []
        opened.enter()


def test_nothing_is_chosen_that_cannot_be_analysed(opened: Any, desktop: Desktop) -> None:
    """Of several nodes, pictures of the method, label maps and results are no inputs."""
    import numpy as np
    import slicer

    from hideseekseg.scene.results import Results

    zeros = np.zeros((8, 9, 10), np.int16)
    picture = slicer.util.addVolumeFromArray(zeros, name="T10 healthy edit")
    picture.SetHideFromEditors(True)
    slicer.util.addVolumeFromArray(zeros, name="Labels", nodeClassName="vtkMRMLLabelMapVolumeNode")
    ui = opened.widget.ui
    opened.exit()
    opened.enter()
    kept = slicer.mrmlScene.GetSingletonNode("HideSeekSeg", "vtkMRMLScriptedModuleNode")
    assert kept.GetNodeReference("ct") is None
    ct = slicer.util.addVolumeFromArray(zeros, name="CT")
    Results.create(ct, None, {})
    opened.exit()
    opened.enter()
    assert ui.ctSelector.currentNode() is ct
    assert ui.segmentationSelector.currentNode() is None
    vertebrae = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Vertebrae")
    opened.exit()
    opened.enter()
    assert ui.segmentationSelector.currentNode() is vertebrae


def test_slicer_knows_the_layout_of_a_review_once_it_has_started(
    opened: Any, desktop: Desktop, sample_data: types.ModuleType
) -> None:
    import slicer

    from hideseekseg.scene.layout import LAYOUT

    layout = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
    assert not layout.IsLayoutDescription(LAYOUT)
    slicer.app.startupCompleted.emit()
    assert layout.IsLayoutDescription(LAYOUT)
    assert list(slicer.modules.sampleDataSources) == ["Vertebral metastases"]


def test_an_older_slicer_is_told_in_one_sentence(module: types.ModuleType) -> None:
    import qt
    import slicer

    from desktop.modules import Opened

    slicer.app._version = (5, 8)
    try:
        found = Opened(module)
        found.enter()
        labels = [x.text for x in found.parent.findChildren(qt.QLabel)]
        assert labels == ["This module needs Slicer 5.10 or newer; this is Slicer 5.8."]
        slicer.mrmlScene.Clear()
        found.exit()
        found.close()
        module.registerSampleData()  # of which nothing could be opened there
    finally:
        slicer.app._version = (5, 12)


def test_self_test_is_skipped_without_torch(
    module: types.ModuleType, desktop: Desktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HideSeekSegLib import pytorch_check

    monkeypatch.setattr(pytorch_check, "missing", lambda: "PyTorch is not installed.")
    test = module.HideSeekSegTest()
    said: list[str] = []
    monkeypatch.setattr(test, "delayDisplay", said.append)
    test.runTest()
    assert said == ["Skipped: PyTorch is not installed."]


@pytest.mark.slow
def test_self_test_passes(module: types.ModuleType, launcher: None, desktop: Desktop) -> None:
    """What the self-test does in Slicer: sample, the bundled weights on L1, verdict, reload."""
    test = module.HideSeekSegTest()
    test.runTest()


@pytest.fixture
def sample_data(
    module: types.ModuleType, desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[types.ModuleType]:
    """Slicer's module Sample Data: its own file where there are sources, else a stand-in."""
    import slicer

    from desktop import module_base

    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    manager = slicer.mrmlScene.GetCacheManager()
    cache = manager.GetRemoteCacheDirectory()
    (tmp_path / "cache").mkdir()
    manager.SetRemoteCacheDirectory(str(tmp_path / "cache"))
    if not hasattr(sys.modules["slicer.ScriptedLoadableModule"], "__file__"):
        found = module_base.make_sample_data()
    else:
        path = Path(os.environ[SOURCES]).parents[1] / "Modules/Scripted/SampleData/SampleData.py"
        if not path.is_file():
            pytest.skip("Slicer's sources lack the module SampleData")
        specification = importlib.util.spec_from_file_location("SampleData", path)
        assert specification is not None and specification.loader is not None
        found = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(found)
    monkeypatch.setitem(sys.modules, "SampleData", found)
    yield found
    manager.SetRemoteCacheDirectory(cache)


def test_sample_data_hand_out_the_example(
    module: types.ModuleType, desktop: Desktop, sample_data: types.ModuleType
) -> None:
    """The button draws into the scene; ``downloadSample`` loads files that are drawn when asked."""
    import slicer

    for _ in range(2):  # a reload of the module registers it no second time
        module.registerSampleData()
    ((category, (source,)),) = slicer.modules.sampleDataSources.items()
    cache = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory())
    assert category == "Vertebral metastases"
    assert source.customDownloader is module.loadExample
    assert Path(source.thumbnailFileName).is_file()
    assert source.sampleName.isidentifier()
    assert source.sampleDescription == "Spine with simulated metastases"
    assert list(cache.glob("HideSeekSeg*")) == [], "nothing is drawn when Slicer starts"
    ct, vertebrae = sample_data.downloadSamples("SpineWithMetastases")
    again = sample_data.downloadSample("SpineWithMetastases")
    assert ct.GetName() == "Example CT" and again is not ct
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert nodes == [ct, again], "what was drawn for the files is not left in the scene"
    drawn, _ = module.loadExample()
    for node in (ct, again):
        assert (slicer.util.arrayFromVolume(node) == slicer.util.arrayFromVolume(drawn)).all()
    assert ct.GetStorageNode() is None, "saving the scene must not write into the cache"
    segmentation = vertebrae.GetSegmentation()
    levels = [segmentation.GetNthSegment(n).GetName() for n in range(3)]
    assert vertebrae.GetName() == "Example vertebrae"
    assert all(name.endswith(" vertebra") for name in levels), levels


def test_sample_data_say_why_there_is_none(
    module: types.ModuleType,
    desktop: Desktop,
    sample_data: types.ModuleType,
    tmp_path: Path,
) -> None:
    import slicer

    from hideseekseg.errors import InputError

    module.registerSampleData()
    blocked = tmp_path / "file"
    blocked.write_text("", "utf-8")
    slicer.mrmlScene.GetCacheManager().SetRemoteCacheDirectory(str(blocked))
    with pytest.raises(InputError, match="file"):
        sample_data.downloadSample("SpineWithMetastases")
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == []
