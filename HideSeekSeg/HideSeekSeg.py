"""The module "Vertebral Metastases" of 3D Slicer: thin, the rest is in ``HideSeekSegLib``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

SAMPLE, SAMPLE_TITLE = "SpineWithMetastases", "Spine with simulated metastases"
SAMPLE_CATEGORY = "Vertebral metastases"
LEAST = (5, 10)  # of Slicer: the first version with Python 3.12
OWN = ("hideseekseg", "HideSeekSegLib")


class HideSeekSeg(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Vertebral Metastases (HideSeekSeg)")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["HideSeekSeg contributors"]
        parent.helpText = _(
            "Finds and outlines lytic and blastic vertebral metastases in a CT with segmented"
            " vertebrae, and lets you review them one by one. Research use, not a medical device."
        )
        parent.acknowledgementText = _(
            "The method is Hide-and-Seek Attribution: M. Atad et al., MIDL 2026, PMLR 315:960-988,"
            ' <a href="https://arxiv.org/abs/2512.06849">arXiv:2512.06849</a>. This is an'
            " independent implementation."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerLayout)


def registerSampleData() -> None:
    """Offer the embedded example in the module Sample Data; nothing is downloaded for it."""
    if versionProblem():
        return
    import SampleData  # type: ignore[import-not-found]

    # The function of Sample Data that registers a source takes no title; its list takes any source.
    sources = SampleData.SampleDataLogic.sampleDataSourcesByCategory()
    known = sources.setdefault(SAMPLE_CATEGORY, [])
    if all(source.sampleName != SAMPLE for source in known):
        known.append(makeSampleSource(SampleData.SampleDataSource))


def registerLayout() -> None:
    """Let Slicer know the layout of a review before a scene that was saved in one is opened."""
    from hideseekseg.scene.layout import registerLayout as register

    register()


def makeSampleSource(base: type) -> Any:
    """Return the example as a source of the module Sample Data, whose class is ``base``.

    Its button draws into the scene. ``SampleData.downloadSample`` asks for addresses instead: the
    files are drawn into Slicer's cache when they are asked for, not when Slicer starts.
    """
    from hideseekseg import __version__

    class ExampleSource(base):
        @property
        def uris(self) -> list[str]:
            from HideSeekSegLib.logic import writeExample

            return writeExample(self.fileNames)

        @uris.setter
        def uris(self, given: list[str]) -> None: ...

        def __str__(self) -> str:
            return self.sampleName

    icons = Path(__file__).parent / "Resources" / "Icons"
    stem = f"HideSeekSeg-{__version__}-example"
    return ExampleSource(
        sampleName=SAMPLE,
        sampleDescription=SAMPLE_TITLE,
        uris=["", ""],
        fileNames=[f"{stem}.nrrd", f"{stem}.seg.nrrd"],
        nodeNames=["Example CT", "Example vertebrae"],
        loadFileTypes=["VolumeFile", "SegmentationFile"],
        thumbnailFileName=str(icons / "HideSeekSeg.png"),
        customDownloader=loadExample,
    )


def loadExample(source: Any = None) -> tuple[Any, Any]:
    """Draw the example and show it: the CT node, and the segmentation node of its vertebrae."""
    from HideSeekSegLib.logic import loadExample as load

    return load()


def versionProblem() -> str:
    """Return why the module cannot work in this Slicer, empty where it can."""
    if (slicer.app.majorVersion, slicer.app.minorVersion) >= LEAST:
        return ""
    text = _("This module needs Slicer {least} or newer; this is Slicer {found}.")
    found = f"{slicer.app.majorVersion}.{slicer.app.minorVersion}"
    return text.format(least=".".join(map(str, LEAST)), found=found)


@parameterNodeWrapper
class HideSeekSegParameterNode:
    """The inputs; what was found and decided is kept with the results."""

    ct: slicer.vtkMRMLScalarVolumeNode
    vertebrae: slicer.vtkMRMLSegmentationNode
    bodies: slicer.vtkMRMLSegmentationNode


class HideSeekSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Forward Slicer's calls to the panel of the library."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: HideSeekSegLogic | None = None
        self.panel: Any = None
        self._parameterNode: Any = None
        self._guiTag: Any = None
        self._observers: list[int] = []  # of the parameter node, for the form

    def setup(self) -> None:
        """Build the panel when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        problem = versionProblem()
        if problem:
            label = qt.QLabel(problem)
            label.setWordWrap(True)
            self.layout.addWidget(label)
            return
        from hideseekseg.scene.import_data import loadVertebrae
        from HideSeekSegLib.widget import Panel

        widget = slicer.util.loadUI(self.resourcePath("UI/HideSeekSeg.ui"))
        self.layout.addWidget(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(widget)
        for name in ("ctSelector", "segmentationSelector", "bodiesSelector"):
            getattr(self.ui, name).setMRMLScene(slicer.mrmlScene)
        loadVertebrae()
        self.logic = HideSeekSegLogic()
        self.panel = Panel(widget, **self.logic.processes())
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()
        if self.parent.isEntered:  # reloaded: Slicer does not enter again
            self.enter()

    def onReload(self) -> None:
        """Reload the library with the module: Slicer reloads this file alone."""
        for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def cleanup(self) -> None:
        """Slicer closes, or the module is reloaded."""
        self.removeObservers()
        self.setParameterNode(None)
        if self.panel is not None:
            self.panel.cleanup()

    def enter(self) -> None:
        if self.panel is not None:
            self.initializeParameterNode()
            self.panel.enter()

    def exit(self) -> None:
        if self.panel is not None:
            self.panel.exit()
            self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        self.setParameterNode(None)
        self.panel.onSceneStartClose()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()
        self.panel.onSceneEndClose()

    def onSceneStartImport(self, caller: Any, event: Any) -> None:
        """Keep the inputs: Slicer's selectors empty themselves at the end of an import."""
        self.setParameterNode(None)

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        """Take up the inputs and the review of a scene that was loaded."""
        if self.parent.isEntered:
            self.initializeParameterNode()
        self.panel.onSceneEndImport()

    def initializeParameterNode(self) -> None:
        """Bind the parameter node, with the first CT and segmentation where none is chosen."""
        from HideSeekSegLib.logic import firstInputs

        assert self.logic is not None
        self.setParameterNode(self.logic.getParameterNode())
        for name, first in firstInputs().items():
            if getattr(self._parameterNode, name) is None:
                setattr(self._parameterNode, name, first)

    def setParameterNode(self, node: Any) -> None:
        """Bind the form to a parameter node, or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            for tag in self._observers:
                self._parameterNode.parameterNode.RemoveObserver(tag)
        self._parameterNode, self._observers = node, []
        if node is not None:
            node.AddObserver = self._observe
            # The form says by the property SlicerParameterName which widget shows what.
            self._guiTag = node.connectGui(self.ui)

    def _observe(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        """Observe the parameter node for the form, until another one is bound.

        Slicer 5.10 goes on to observe it: Python then collects callback and wrapper, which refer to
        each other alone, and the next change of the node calls what is no more.
        """
        tag = int(self._parameterNode.parameterNode.AddObserver(event, callback, priority))
        self._observers.append(tag)
        return tag


class HideSeekSegLogic(ScriptedLoadableModuleLogic):
    """The module without its window."""

    def getParameterNode(self) -> Any:
        wrap: Any = HideSeekSegParameterNode  # the decorator makes it take a node
        return wrap(super().getParameterNode())

    def processes(self) -> dict[str, Any]:
        """Return what the panel computes with: the check of Slicer's PyTorch."""
        from HideSeekSegLib.pytorch_check import PyTorchCheck

        return {"torch": PyTorchCheck()}

    def segment(
        self, ct: Any, vertebrae: Any, levels: tuple[str, ...] = (), seconds: float = 600.0
    ) -> Any:
        """Find lesions with the bundled weights and wait; the run, with its results in the scene.

        ``levels`` such as ("L1",) restricts to some vertebrae. Raises RuntimeError, one line.
        """
        from hideseekseg.ui.segmentation_run import Choices
        from HideSeekSegLib.logic import segmentAndWait

        return segmentAndWait(ct, vertebrae, Choices(levels=levels), seconds)


class HideSeekSegTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: the sample, one vertebra with the bundled weights, verdicts, saving."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_sample_to_saved_review()

    def test_sample_to_saved_review(self) -> None:
        """Of the example the blastic lesion of L1 is found, accepted, saved and read again."""
        from hideseekseg.scene.results import Results
        from hideseekseg.scene.review_storage import restore, store
        from HideSeekSegLib.pytorch_check import missing

        lacking = missing()
        if lacking:
            self.delayDisplay(f"Skipped: {lacking}")
            return
        ct, vertebrae = loadExample()
        run = HideSeekSegLogic().segment(ct, vertebrae, ("L1",))
        review, results = run.review, run.results
        self.assertEqual(list(review.vertebrae), ["L1"])
        best = review.items[0]
        self.assertEqual((best.level, best.type), ("L1", "blastic"))
        segmentation = results.node.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), len(review.items))
        review.judge(best.id, "accepted")
        results.apply(review)
        store(results.node, review)
        self.delayDisplay("L1 is analysed and its first finding accepted")

        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "review.mrb")
            self.assertTrue(slicer.mrmlScene.WriteToMRB(path))
            slicer.mrmlScene.Clear()
            self.assertTrue(slicer.mrmlScene.ReadFromMRB(path))
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        found = [node for node in nodes if Results.isOne(node)]
        self.assertEqual(len(found), 1)
        again = restore(found[0])
        assert again is not None
        self.assertEqual([i.verdict for i in again.items if i.id == best.id], ["accepted"])
        status = vtk.reference("")
        self.assertTrue(
            found[0].GetSegmentation().GetSegment(best.id).GetTag("Segmentation.Status", status)
        )
        self.assertEqual(str(status), "completed")
        run.discard()
        self.delayDisplay("The review was saved and read again")
