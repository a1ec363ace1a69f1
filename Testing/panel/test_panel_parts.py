"""The panel's smaller parts: keys, weights and their card, PyTorch, published weights."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_panel_run import scripted

from desktop import Desktop
from helpers.findings import make_ct, make_grid, make_result
from helpers.panel import Opened, add_boxes, add_review, open_panel
from helpers.scene import add_ct, add_segmentation
from hideseekseg.imaging.volume import Volume

MODULE = Path(__file__).resolve().parents[2] / "HideSeekSeg"
# Of Slicer's slice views, and of Segment Editor while it is open.
TAKEN = {*"0123456789QWZYIGFBRTVS[]{}", "Space", "Esc", "Left", "Right", "Up", "Down"}


@pytest.fixture
def opened(desktop: Desktop) -> Iterator[Opened]:
    with open_panel(desktop) as panel:
        yield panel


def test_keys_are_free_in_slicer_and_stand_on_their_buttons(opened: Opened) -> None:
    from HideSeekSegLib.review_view import KEYS

    assert not TAKEN & set(KEYS.values())
    assert len(set(KEYS.values())) == len(KEYS)
    for name, key in KEYS.items():
        widget = getattr(opened.ui, name)
        text = widget.placeholderText if name == "commentEdit" else widget.text
        assert f"[{key.replace('Shift+', '⇧')}]" in text


def test_without_a_main_window_no_keys_are_installed(opened: Opened) -> None:
    opened.panel.keys.install(None)
    assert not opened.panel.keys.installed


def test_levels_follow_segments_that_were_renamed_or_removed(
    desktop: Desktop, box_spine: tuple[Volume, Volume]
) -> None:
    with open_panel(desktop) as opened:
        ct, node = add_boxes(box_spine)
        opened.choose(ct, node)
        table = opened.ui.levelsTable
        level = table.cellWidget(2, 1)
        level.setCurrentIndex(level.findText("L2"))
        opened.panel.exit()
        node.GetSegmentation().RemoveSegment("vertebrae_T11")
        node.GetSegmentation().GetSegment("vertebrae_T12").SetName("T9 vertebra")
        opened.panel.enter()
        assert table.rowCount == 2
        assert opened.panel.levels.levels() == ("T9", "L2"), "a correction was forgotten"


def corrected(opened: Opened, segment: str, level: str, part: int = 0) -> None:
    boxes = opened.panel.levels._boxes[segment]
    boxes[0].setCurrentIndex(boxes[0].findText(level))
    boxes[1].setCurrentIndex(part)


def test_corrected_levels_stay_with_their_segmentation(
    desktop: Desktop, box_spine: tuple[Volume, Volume]
) -> None:
    """Whatever else is chosen in between; segments may be renamed or removed meanwhile."""
    import slicer

    with open_panel(desktop) as opened:
        ct, node = add_boxes(box_spine)
        _, other = add_boxes(box_spine, "Others")
        panel, selector = opened.panel, opened.ui.segmentationSelector
        opened.choose(ct, node)
        corrected(opened, "vertebrae_L1", "L2", part=1)
        corrected(opened, "vertebrae_T12", "L2", part=1)  # twice, as on the way to a right one
        mine = {"vertebrae_L1": "L2 body", "vertebrae_T12": "L2 body"}
        said = opened.ui.levelsButton.text
        assert panel.levels.corrections() == mine
        selector.setCurrentNode(other)
        assert panel.levels.corrections() == {}
        corrected(opened, "vertebrae_T11", "T10")
        selector.setCurrentNode(None)
        selector.setCurrentNode(node)
        assert panel.levels.corrections() == mine
        assert opened.ui.levelsButton.text == said
        selector.setCurrentNode(other)
        assert panel.levels.corrections() == {"vertebrae_T11": "T10 vertebra"}
        node.GetSegmentation().RemoveSegment("vertebrae_T12")
        node.GetSegmentation().GetSegment("vertebrae_T11").SetName("T9")
        selector.setCurrentNode(node)
        assert panel.levels.corrections() == {"vertebrae_L1": "L2 body"}
        assert [row.level for row in panel.levels.rows()] == ["T9", "L2"]
        slicer.mrmlScene.RemoveNode(other)
        selector.setCurrentNode(node)
        assert panel.levels.corrections() == {"vertebrae_L1": "L2 body"}


def test_levels_of_a_run_that_were_taken_back_stay_so(
    desktop: Desktop, box_spine: tuple[Volume, Volume]
) -> None:
    """What the reader did last counts, not what the run had read."""
    from hideseekseg.review.review import Review
    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import store

    with open_panel(desktop) as opened:
        ct, node = add_boxes(box_spine)
        _, other = add_boxes(box_spine, "Others")
        ran = {"vertebrae_T11": "T11 vertebra", "vertebrae_T12": "T12 vertebra"}
        results = Results.create(ct, node, {"levels": {**ran, "vertebrae_L1": "L2 vertebra"}})
        store(results.node, Review(0.5))
        opened.choose(ct, node)
        assert opened.panel.levels.corrections() == {"vertebrae_L1": "L2 vertebra"}
        corrected(opened, "vertebrae_L1", "L1")
        opened.ui.segmentationSelector.setCurrentNode(other)
        opened.ui.segmentationSelector.setCurrentNode(node)
        assert opened.panel.levels.corrections() == {}


# Calls whose first argument a user reads.
TOLD = {"show", "said", "setToolTip", "setFormat", "setText", "addItems", "infoDisplay"}


TOLD_IN = sorted(
    [*(MODULE / "HideSeekSegLib").glob("*.py"), *(MODULE / "hideseekseg" / "ui").glob("*.py")]
)


@pytest.mark.parametrize("path", TOLD_IN, ids=lambda path: path.stem)
def test_what_a_user_reads_can_be_translated(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            literal = isinstance(node.args[0], (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple))
            if node.func.attr in TOLD and literal:
                words = [n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)]
                calls = [n for n in ast.walk(node.args[0]) if isinstance(n, ast.Call)]
                alone = all(re.fullmatch(r"\W*", str(word)) for word in words)
                assert alone or calls, f"{path.name}:{node.lineno}: not in _()"


def test_it_says_what_it_is_not(opened: Opened) -> None:
    assert opened.ui.researchLabel.text == "Research use, not a medical device."


def test_weights_are_described_without_torch_as_torch_would(opened: Opened) -> None:
    from hideseekseg.model.weights import BUNDLE, load_model

    model = load_model(BUNDLE, "cpu")
    assert model.hash[:12] in opened.ui.weightsInfoLabel.text
    assert model.profile.name in opened.ui.weightsInfoLabel.text
    assert opened.ui.startThreshold.value == pytest.approx(model.profile.decision.threshold)
    opened.ui.modelCardButton.click()
    [card] = opened.desktop.messages
    assert model.hash in card
    assert "simulated lesions" in card


def test_other_weights_are_chosen_and_remembered(desktop: Desktop, tiny_weights: Path) -> None:
    with open_panel(desktop) as opened:
        desktop.paths.append(str(tiny_weights))
        opened.ui.chooseWeightsButton.click()
        assert opened.ui.weightsEdit.text == str(tiny_weights)
    with open_panel(desktop, fresh=False) as again:
        assert again.ui.weightsEdit.text == str(tiny_weights)
        again.ui.bundledWeightsButton.click()
        assert again.ui.weightsEdit.text == ""


def test_weights_that_are_away_for_a_moment_are_not_forgotten(
    desktop: Desktop, tiny_weights: Path, tmp_path: Path
) -> None:
    """As a network drive that is not mounted yet: it is said, and they are taken when back."""
    folder = tmp_path / "drive" / "weights"
    shutil.copytree(tiny_weights, folder)
    with open_panel(desktop) as opened:
        assert opened.panel.settings.use(folder)
    folder.parent.rename(tmp_path / "away")
    with open_panel(desktop, fresh=False) as again:
        assert str(folder) in again.message
        assert "the bundled weights are used" in again.message
        assert again.ui.weightsEdit.text == str(folder)
        assert again.ui.weightsInfoLabel.text.startswith("Not available; in use instead")
        assert again.panel.settings.weights.bundled
    (tmp_path / "away").rename(folder.parent)
    with open_panel(desktop, fresh=False) as back:
        assert back.panel.settings.weights.folder == folder
        assert back.message == ""
        folder.parent.rename(tmp_path / "away")
    with open_panel(desktop, fresh=False) as last:
        (tmp_path / "away").rename(folder.parent)
        last.panel.exit()
        last.panel.enter()
        assert last.panel.settings.weights.folder == folder, "back, and not taken"
        last.ui.bundledWeightsButton.click()
    with open_panel(desktop, fresh=False) as own:
        assert own.panel.settings.weights.bundled


def test_a_folder_without_weights_is_refused(
    opened: Opened, desktop: Desktop, tmp_path: Path
) -> None:
    desktop.paths.append(str(tmp_path))
    opened.ui.chooseWeightsButton.click()
    assert opened.message.startswith("These weights cannot be used")
    assert opened.ui.weightsEdit.text == ""


def test_choices_become_the_command_line(opened: Opened, tiny_weights: Path) -> None:
    from hideseekseg.scene.export_inputs import Inputs
    from hideseekseg.ui.segmentation_run import Choices

    inputs = Inputs(Path("ct.nrrd"), Path("v.seg.nrrd"))
    choices = Choices("cuda", tiny_weights, 0.35, True, ("T12", "L1"))
    words = choices.words(inputs, Path("out"))
    assert words[:5] == ["segment", "ct.nrrd", "v.seg.nrrd", "--out", "out"]
    for pair in (
        ("--device", "cuda"),
        ("--weights", str(tiny_weights)),
        ("--threshold", "0.35"),
        ("--levels", "T12,L1"),
        ("--labels", "names"),
    ):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert {"--all-slices", "--each", "--json-lines"} <= set(words)


def test_estimate_knows_the_method_the_device_and_the_slices(
    desktop: Desktop, slow_weights: Path
) -> None:
    from HideSeekSegLib.settings import BUNDLE, describe

    bundled, heavy = describe(BUNDLE), describe(slow_weights)
    assert "a first estimate" in bundled.estimate(3, "cpu", False)
    assert " s for 3 vertebrae" in bundled.estimate(3, "cpu", False)
    assert heavy.profile.schedule.edit == "render"
    assert heavy.estimate(3, "cpu", False).startswith("Takes about 60 min")
    assert heavy.estimate(3, "cuda", False).startswith("Takes about 3 min")


def test_without_torch_the_panel_says_what_to_do(
    desktop: Desktop, box_spine: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.metadata.distribution

    def without_torch(name: str) -> Any:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_torch)
    with open_panel(desktop) as opened:
        opened.choose(*add_boxes(box_spine))
        assert not opened.ui.segmentButton.enabled
        assert "PyTorch is not installed" in opened.ui.deviceLabel.text
        assert opened.ui.torchButton.visible
        desktop.answers.append(False)
        opened.ui.torchButton.click()
        assert "Download PyTorch" in desktop.messages[-1]
        assert "PyTorch is not installed" in opened.message
        opened.ui.torchButton.click()
        assert "Extensions Manager" in opened.message


@contextmanager
def with_program(desktop: Desktop, program: str) -> Iterator[Opened]:
    with open_panel(desktop) as opened:
        opened.panel.weightsImport._makeJob.keywords["program"] = program
        yield opened


def test_published_weights_are_imported_from_files_at_hand(
    desktop: Desktop, tiny_weights: Path, tmp_path: Path
) -> None:
    lines = (
        "import shutil\nwords = sys.argv[sys.argv.index('import-published'):]\n"
        f"shutil.copytree({str(tiny_weights)!r}, words[words.index('--out') + 1])"
    )
    files = [str(tmp_path / n) for n in ("classifier_lr.pkl", "scaler.pkl", "last.ckpt")]
    with with_program(desktop, scripted(tmp_path, lines)) as opened:
        desktop.paths.append(files[:2])
        opened.ui.importWeightsButton.click()
        assert opened.message == "Choose all three files together: no last.ckpt."
        desktop.paths += [files, str(tmp_path)]
        opened.ui.importWeightsButton.click()
        desktop.wait(lambda: opened.message.startswith("The published weights are ready"), 20)
        assert opened.ui.weightsEdit.text == str(tmp_path / "weights")
        opened.ui.bundledWeightsButton.click()


def test_published_weights_are_fetched_only_after_asking(desktop: Desktop, tmp_path: Path) -> None:
    lines = "print('hideseekseg: no network', file=sys.stderr); sys.exit(2)"
    with with_program(desktop, scripted(tmp_path, lines)) as opened:
        desktop.paths += [str(tmp_path), str(tmp_path)]
        desktop.answers.append(False)
        opened.ui.downloadWeightsButton.click()
        assert "huggingface.co" in desktop.messages[-1]
        assert not opened.message
        opened.ui.downloadWeightsButton.click()
        assert not opened.ui.downloadWeightsButton.enabled
        desktop.wait(lambda: opened.ui.downloadWeightsButton.enabled, 20)
        assert opened.message.endswith("no network")


def test_the_panel_needs_no_torch_in_slicers_process() -> None:
    import subprocess

    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; from helpers.scene import open_scene\n"
        "from desktop.running import start\nstart()\nwith open_scene():\n"
        "    import HideSeekSegLib.widget\n    print('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-c", code, str(root / "Testing"), str(root / "HideSeekSeg")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_vertebrae_are_faint_in_3d_while_the_review_is_open(desktop: Desktop) -> None:
    import slicer

    grid = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
    result = make_result(grid)
    mask = make_ct(grid).array > 600
    vertebrae = add_segmentation({"vertebrae_T10": mask}, grid.ijk_to_lps, "Vertebrae")
    ct = add_review(result.vertebrae, grid, source=vertebrae)

    def surfaces() -> list[Any]:
        nodes = slicer.util.getNodesByClass("vtkMRMLModelNode")
        return [node for node in nodes if node.GetAttribute("HideSeekSeg.Surface")]

    with open_panel(desktop) as opened:
        opened.choose(ct, vertebrae)
        desktop.wait(surfaces, 5)
        (model,) = surfaces()
        assert model.GetName() == "T10 surface"
        assert model.GetDisplayNode().GetOpacity() < 0.5
        assert not model.GetDisplayNode().GetVisibility2D()
        opened.panel.exit()
        assert surfaces() == []
        opened.panel.enter()
        desktop.wait(surfaces, 5)


class TotalSegmentatorLogic:
    """The extension's logic by its calls alone, read in its sources; the real one never ran here.

    The third parameter was called ``fast`` until February 2026; ``quality``, as it is called since,
    takes the values of ``fast``, too.  ``subset`` must name classes of the task.
    """

    fails = ""
    calls: ClassVar[list[Any]] = []
    shown: ClassVar[Any] = None  # what the panel shows meanwhile

    def __init__(self) -> None:
        self.logCallback: Any = None

    def setupPythonRequirements(self, upgrade: bool = False) -> None:  # noqa: N802
        self.calls.append("requirements")

    def _process(self, ct: Any, node: Any, quick: Any, task: Any, subset: Any) -> None:
        import slicer.util

        assert quick is False, "full resolution, whatever the parameter is called"
        assert task == "total" and set(subset) <= CLASSES
        self.logCallback("Creating segmentations")
        if self.shown:
            assert self.shown() == "TotalSegmentator is running… Creating segmentations"
        if self.fails:
            raise RuntimeError(self.fails)
        self.calls.append(ct)
        array = (slicer.util.arrayFromVolume(ct) > 600).astype("uint8")
        node.GetSegmentation().AddEmptySegment("vertebrae_T10", "T10 vertebra")
        slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, "vertebrae_T10", ct)


class OlderLogic(TotalSegmentatorLogic):
    def process(
        self,
        inputVolume: Any,  # noqa: N803
        outputSegmentation: Any,  # noqa: N803
        fast: bool = True,
        cpu: bool = False,
        task: str | None = None,
        subset: list[str] | None = None,
        interactive: bool = False,
        sequenceBrowserNode: Any = None,  # noqa: N803
    ) -> None:
        self._process(inputVolume, outputSegmentation, fast, task, subset)


class NewerLogic(TotalSegmentatorLogic):
    def process(
        self,
        inputVolume: Any,  # noqa: N803
        outputSegmentation: Any,  # noqa: N803
        quality: Any = None,
        cpu: bool = False,
        task: str | None = None,
        subset: list[str] | None = None,
        interactive: bool = False,
        sequenceBrowserNode: Any = None,  # noqa: N803
    ) -> None:
        self._process(inputVolume, outputSegmentation, quality, task, subset)


# What the task "total" calls vertebrae; "vertebrae_S1" is the sacrum's first.
CLASSES = {
    f"vertebrae_{k}{n}"
    for k, most in (("C", 7), ("T", 12), ("L", 5), ("S", 1))
    for n in range(1, most + 1)
}


@pytest.fixture(params=[OlderLogic, NewerLogic])
def total_segmentator(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> type[TotalSegmentatorLogic]:
    """The extension, installed, as it was and as it is."""
    import slicer

    kind: type[TotalSegmentatorLogic] = request.param
    monkeypatch.setattr(kind, "calls", [])
    monkeypatch.setattr(kind, "shown", None)
    module = types.SimpleNamespace(TotalSegmentatorLogic=kind)
    monkeypatch.setitem(sys.modules, "TotalSegmentator", module)
    monkeypatch.setattr(slicer.modules, "totalsegmentator", module, raising=False)
    return kind


def ct_alone() -> Any:
    grid = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
    return add_ct(make_ct(grid).array, grid.ijk_to_lps, "Chest")


def test_vertebrae_are_segmented_by_total_segmentator_after_asking(
    desktop: Desktop, total_segmentator: type[TotalSegmentatorLogic]
) -> None:
    with open_panel(desktop) as opened:
        opened.ui.ctSelector.setCurrentNode(ct_alone())
        button = opened.ui.vertebraeButton
        assert button.isVisibleTo(opened.widget)
        desktop.answers = [False]
        button.click()
        assert "Run TotalSegmentator on “Chest”" in desktop.messages[-1]
        assert total_segmentator.calls == [], "nothing without a yes"
        total_segmentator.shown = staticmethod(lambda: opened.message)
        button.click()
        assert total_segmentator.calls == ["requirements", opened.ui.ctSelector.currentNode()]
        node = opened.ui.segmentationSelector.currentNode()
        assert node.GetName() == "Chest vertebrae"
        assert not button.isVisibleTo(opened.widget)
        assert opened.panel.levels.levels() == ("T10",)
        import slicer

        assert not opened.panel.running, "there is no Python to run it"
        left = list(Path(slicer.app.temporaryPath).glob("hideseekseg-*"))
        assert left == [], "a copy of a patient's scan"


def test_total_segmentator_that_fails_leaves_nothing(
    desktop: Desktop,
    total_segmentator: type[TotalSegmentatorLogic],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import slicer

    monkeypatch.setattr(total_segmentator, "fails", "no space\nleft")
    with open_panel(desktop) as opened:
        opened.ui.ctSelector.setCurrentNode(ct_alone())
        opened.ui.vertebraeButton.click()
        assert opened.message == "TotalSegmentator did not finish: no space left."
        assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_how_to_get_total_segmentator_is_said_where_it_is_missing(desktop: Desktop) -> None:
    with open_panel(desktop) as opened:
        assert not opened.ui.vertebraeButton.isVisibleTo(opened.widget), "no CT, no offer"
        opened.ui.ctSelector.setCurrentNode(ct_alone())
        opened.ui.vertebraeButton.click()
        assert "Extensions Manager" in opened.message
        assert desktop.messages == [], "nothing is asked"
