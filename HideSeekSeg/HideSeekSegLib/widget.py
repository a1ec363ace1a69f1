"""The panel of the module: inputs, one button, progress, and the review below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.errors import UserError
from hideseekseg.events import Progress, Started
from hideseekseg.scene.export_inputs import problems
from hideseekseg.scene.results import Results
from hideseekseg.ui.recovery import Recovery
from hideseekseg.ui.review_session import is_of_scan, latest, of_scan, opened
from hideseekseg.ui.segmentation_run import Choices, MakeJob, Outcome, SegmentationRun
from hideseekseg.ui.texts import done, told

from .logic import HOW_TO_GET, hasTotalSegmentator, segmentVertebrae, temporaryFolder
from .pytorch_check import PyTorchCheck, runs_on
from .qt_process import QtProcess
from .review_actions import ReviewActions
from .review_view import ReviewPanel, Shortcuts
from .settings import AdvancedSettings, WeightsImport, learn
from .status_bar import RunButton, StatusBar
from .tables import LevelsTable

LEAST_LIST = 170  # pixels of the review's lists


class Panel:
    """All of the module's window; ``HideSeekSeg.py`` only forwards to it.

    ``makeJob(words, onEvent, onEnd)`` makes the child process of a run, see ``ChildProcess``;
    ``standBy()`` has one ready before the reader asks for it.
    """

    def __init__(
        self,
        uiWidget: Any,
        makeJob: MakeJob = QtProcess,
        torch: PyTorchCheck | None = None,
        standBy: Callable[[], None] = QtProcess.standBy,
    ) -> None:
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self._makeJob, self._standBy = makeJob, standBy
        self._shown = False
        self._torch = torch or PyTorchCheck()
        self._run: SegmentationRun | None = None
        self._ready = False
        self._ct: Any = None
        self._tags: list[int] = []
        self.messages = StatusBar(self.ui)
        self.state = RunButton(self.ui)
        self.levels = LevelsTable(self.ui, self._check)
        self.settings = AdvancedSettings(self.ui, self._check, self.messages)
        view = ReviewPanel(self.ui, self.messages)
        self.review, self.context, self._view = view.controller, view.context, view
        self.review.level_rows = lambda node: (
            self.levels.rows() if node is self.levels.node else None
        )
        ask = slicer.util.confirmOkCancelDisplay
        self.recovery = Recovery(self.review, view.draw_offers, lambda text: bool(ask(text)))
        self.handover = ReviewActions(self.ui, self.review, makeJob)
        self.weightsImport = WeightsImport(self.ui, self.settings, self.messages, makeJob)
        self.keys = Shortcuts(self.ui)
        self.ui.ctSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._chosen)
        self.ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._chosen)
        self.ui.bodiesSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._check)
        self.ui.segmentButton.connect("clicked()", self._pressed)
        self.ui.torchButton.connect("clicked()", self._installTorch)
        self.ui.vertebraeButton.connect("clicked()", self._segmentVertebrae)
        self.ui.rerunButton.connect("clicked()", self._runAgain)
        self.ui.restoreButton.connect("clicked()", self.recovery.restore)
        self.ui.discardButton.connect("clicked()", self.recovery.discard)
        self.ui.offerSelector.connect("activated(int)", self.recovery.choose)
        removed = slicer.vtkMRMLScene.NodeRemovedEvent
        self._scene = slicer.mrmlScene
        self._tags.append(self._scene.AddObserver(removed, self._removed))
        self._ready = True
        self._chosen()

    @property
    def running(self) -> bool:
        return self._run is not None and self._run.running

    # What Slicer calls.

    def enter(self) -> None:
        """Install the keys and take up the review of the scene again."""
        self._shown = True
        window = slicer.util.mainWindow()
        self.keys.install(window)
        if window is not None:  # the buttons below the lists stay in sight on a small screen
            self.ui.listTabs.setMaximumHeight(max(window.height // 4, LEAST_LIST))
        self.settings.recall()
        self._torch.look(self._check)
        self.handover.finishEditing()
        self.review.enter()
        self.context.show(self.review.results)
        if not self.running and self.review.review is None:
            self._restore()
        self._chosen()

    def exit(self) -> None:
        """Another module is shown: keys and views are the user's again; a run goes on."""
        self._shown = False
        QtProcess.dismiss()
        self.keys.remove()
        self.review.leave()
        self.context.hide()

    def cleanup(self) -> None:
        """Slicer closes or the module is reloaded: nothing follows from this panel any more.

        A reload hides the old widgets, which go on to follow the scene and say so.
        """
        self._shown = self._ready = False
        QtProcess.dismiss()
        self.keys.remove()
        self._torch.stop()
        self.weightsImport.cancel()
        self.handover.documents.cancel()
        self.review.leave()
        self.context.hide()
        self.review.clear()
        self.recovery.end()
        self._forget()
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []

    def onSceneStartClose(self) -> None:
        """End a run at once: its results are closed with the scene."""
        was = self.running
        self.handover.documents.cancel()
        self._forget()
        self.review.clear()
        self.recovery.end()
        self.state.idle()
        text = _("The scene was closed: the run was stopped.") if was else ""
        self.messages.show(text, "warning")

    def onSceneEndClose(self) -> None:
        self._chosen()

    def onSceneEndImport(self) -> None:
        """Resume the review of a scene that was loaded, unless one is open."""
        session = self.review.session
        if not self.running and (session is None or not session.alive):
            self._restore()
        self._chosen()

    # The run.

    def segment(self, levels: tuple[str, ...] = ()) -> bool:
        """Start a run, of some ``levels`` only if given; says why where it cannot be started."""
        if self.running:
            self.messages.show(_("A run is going on: cancel it first."), "warning")
            return False
        ct, segmentation = self._inputs()
        settings = self.settings
        self.levels.refresh()
        found = self._problems()
        if found:
            self.messages.show("\n".join(found), "error")
            return False
        weights = settings.weights
        choices = Choices(
            settings.device,
            None if weights.bundled else weights.folder,
            settings.threshold,
            settings.allSlices,
            levels,
            self.levels.corrections(),
        )
        earlier = self.review.session
        self.messages.show(_("Preparing…"))
        try:
            run = SegmentationRun(
                *(ct, segmentation, choices, temporaryFolder),
                *(self.ui.bodiesSelector.currentNode(), earlier),
            )
            self._forget()
            if not run.merged:
                self.review.clear()
            run.start(self._makeJob, self)
        except UserError as error:
            if self.review.session is None:
                self._restore(ct)
            self.messages.show(f"{told(error)}.", "error")
            self._check()
            return False
        self._run = run
        self.recovery.look(None, None)  # nothing is opened beside a run
        self.state.busy()
        return True

    def cancel(self, reason: str = "") -> None:
        """Stop the run; what is finished stays."""
        if self._run is not None and self._run.running:
            self.state.stopping()
            self._run.cancel(reason)

    def started(self, event: Started) -> None:
        self.messages.clear()
        self.ui.deviceLabel.text = runs_on(event.device, event.reason)

    def progress(self, event: Progress) -> None:
        self.state.progress(event)

    def vertebra(self, level: str) -> None:
        run = self._run
        if run is None or run.session is None:
            return
        if self.review.review is None:
            self.review.show(run.session)
        else:
            self.review.joined()
            self.recovery.keep(run.session)

    def said(self, text: str) -> None:
        self.messages.show(text, "warning")

    def ended(self, outcome: Outcome, text: str) -> None:
        run = self._run
        self.state.idle()
        if run is None:
            return
        if run.results is not None and run.results.alive:
            self.vertebra("")
            self.review.settle()
            self.ui.inputsButton.collapsed = True  # room for the review
        elif run.results is not None:
            if self.review.session is run.session:
                self.review.clear()
            self.review.keep_removed(run.review, run.results)
        else:
            self._restore(run.ctNode)  # that of an earlier run, where there was one
        if outcome == "finished":
            learn(run)
            self.messages.show(done(run.review))
        else:
            self.messages.show(text, "error" if outcome == "failed" else "warning")
        self.recovery.look(*self._inputs())
        self._check()

    def _runAgain(self) -> None:
        """Analyse the chosen vertebra anew, into the results that are open."""
        results = self.review.results
        if not self.review.level or results is None:
            return
        own, (ct, _segmentation) = results.ctNode, self._inputs()
        if own is None:
            text = _("The CT of this review was removed: choose a CT and segment metastases.")
            self.messages.show(text, "warning")
            return
        if own is ct:
            self.levels.refresh()  # segments may have been renamed meanwhile
            levels = self.review.run_with(self.review.level)
            if levels:
                self.segment(levels)
            else:
                text = _("{level} is not segmented any more: segment metastases again.")
                self.messages.show(text.format(level=self.review.level), "warning")
            return
        text = _("This review is of “{name}”: choose that as the CT to run its vertebrae again.")
        self.messages.show(text.format(name=own.GetName()), "warning")

    def _pressed(self) -> None:
        if self.running:
            self.cancel()
        else:
            self.segment()

    # The scene.

    def _inputs(self) -> tuple[Any, Any]:
        return self.ui.ctSelector.currentNode(), self.ui.segmentationSelector.currentNode()

    def _chosen(self) -> None:
        """Another CT or segmentation: its levels, and the review that the scene has of the CT."""
        if not self._ready or self.running:
            return
        ct, segmentation = self._inputs()
        if ct is not None and ct is not self._ct:
            self.messages.clear()  # what was said is of another scan
        another, self._ct = ct is not self._ct, ct
        if self.levels.node is not segmentation:
            self.levels.show(segmentation, _levelsOf(self.review.results, segmentation))
        else:
            self.levels.refresh()
        results = self.review.results
        if ct is not None and (results is None or results.ctNode is not ct):
            self._restore(ct)
        if another:
            self._sayWhose(ct)
        self.recovery.look(ct, segmentation)
        self._check()

    def _sayWhose(self, ct: Any) -> None:
        """Say that the review stays that of another CT where the chosen one has none."""
        results = self.review.results
        own = results.ctNode if results is not None else None
        if ct is not None and own is not None and own is not ct:
            text = _("“{name}” has no review yet: what is listed is of “{own}”.")
            if self.review.session is not None and is_of_scan(self.review.session, ct):
                text = _(
                    "“{name}” is the same scan as “{own}”, whose review is listed: a run of it"
                    " takes over what was said."
                )
            self.messages.show(text.format(name=ct.GetName(), own=own.GetName()), "warning")

    def _check(self) -> None:
        """Show whether a run can start, what it needs, and how long it will take."""
        if not self._ready or self.running:
            return
        found, ready, choice = self._problems(), self._torch.ready(), self.settings.device
        self.ui.segmentButton.setEnabled(not found and ready)
        self.ui.torchButton.setVisible(not ready)
        ct, segmentation = self._inputs()
        self.ui.vertebraeButton.setVisible(ct is not None and segmentation is None)
        self.ui.deviceLabel.text = self._torch.line(choice)
        count, device = len(self.levels.levels()), self._torch.device(choice)
        weights = self.settings.weights
        time = "" if found else weights.estimate(count, device, self.settings.allSlices)
        self.ui.estimateLabel.text = "\n".join(found) or time
        self.review.check_levels()
        self._view.draw_title()
        able = self._shown and not found and ready and not self._torch.looking
        if able and self.review.review is None:  # else the next run is seldom near
            self._standBy()

    def _problems(self) -> list[str]:
        """Return why no run can start with what is chosen."""
        ct, segmentation = self._inputs()
        if segmentation is not None and Results.isOne(segmentation):
            text = _("“{name}” contains results: choose the vertebrae themselves.")
            return [text.format(name=segmentation.GetName())]
        bodies = self.ui.bodiesSelector.currentNode()
        return problems(ct, segmentation, self.levels.corrections(), bodies)

    def _restore(self, ct: Any = None) -> None:
        """Take up the latest review of the scene, of a CT, or of its scan, if one is given."""
        work = latest(lambda text: self.messages.show(text, "error"), ct)
        if work is None and ct is not None:
            work = of_scan(ct)
            if work is self.review.session and work is not None and work.results.ctNode is not ct:
                return  # listed already, beside the node that it was made with
        if work is not None:
            self.messages.clear()
            self._forget()
            if work not in opened():  # a scene brought it: what was corrected since is not known
                self.levels.takeOver(_levelsOf(work.results, self.levels.node))
            self.review.show(work)

    def _removed(self, *arguments: Any) -> None:
        """React to a removed node: nothing may be done with it any more."""
        if self._scene.IsClosing():
            return
        self.review.drop_results()
        run = self._run
        if run is not None and run.running:
            ct, segmentation = run.missing()
            if ct:
                text = _("“{name}” was removed from the scene: the run was stopped.")
                self.cancel(text.format(name=ct))
            elif segmentation:
                text = _("“{name}” was removed from the scene: the run goes on with its copy.")
                self.messages.show(text.format(name=segmentation), "warning")
            return
        review, results = self.review.review, self.review.results
        if review is not None and results is not None and not results.alive:
            self.review.clear()
            if not self.review.keep_removed(review, results):
                self._forget()
            self.messages.show(_("The results were removed from the scene."), "warning")

    def _forget(self) -> None:
        """Forget the last run and its files."""
        if self._run is not None:
            self._run.abandon()
        self._run = None
        self.review.forget_removed()

    def _segmentVertebrae(self) -> None:
        """Get vertebrae from TotalSegmentator, after asking, and go on with them."""
        ct, _segmentation = self._inputs()
        if ct is None:
            return
        if not hasTotalSegmentator():
            self.messages.show(HOW_TO_GET, "warning")
            return
        question = _(
            "Run TotalSegmentator on “{name}” to segment its vertebrae? The first time it downloads"
            " its own networks. Slicer waits until it is done, which takes minutes; with a CPU"
            " alone it can take an hour, and it offers a faster mode."
        )
        if not slicer.util.confirmOkCancelDisplay(question.format(name=ct.GetName())):
            return
        self._hear("")
        try:
            node = segmentVertebrae(ct, self._hear)
        except UserError as error:
            self.messages.show(f"{told(error)}.", "error")
            return
        self.messages.clear()
        self.ui.segmentationSelector.setCurrentNode(node)
        self._chosen()
        if self.ui.segmentButton.enabled:
            self.segment()

    def _hear(self, line: str) -> None:
        """Show what TotalSegmentator says; nothing can be clicked while it works."""
        text = _("TotalSegmentator is running…")
        self.messages.show(f"{text} {line}".strip())
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)

    def _installTorch(self) -> None:
        """Get what is missing; it asks first."""
        problem = self._torch.install()
        self.messages.show(problem, "error")
        self._torch.look(self._check)
        self._check()


def _levelsOf(results: Results | None, segmentation: Any) -> dict[str, str]:
    """Return what the run of some results read this segmentation's segments as."""
    if results is None or segmentation is None or results.segmentationNode is not segmentation:
        return {}
    return dict(results.run.get("levels") or {})
