"""A run without the panel: start it, wait for it, its results in the scene."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.anatomy.label_conventions import LEVELS
from hideseekseg.errors import InputError
from hideseekseg.events import Progress, Started
from hideseekseg.files import atomic, claim_folder
from hideseekseg.scene.results import Results
from hideseekseg.ui import sample_data as sample
from hideseekseg.ui.segmentation_run import Choices, MakeJob, Outcome, SegmentationRun

from .qt_process import QtProcess


def temporaryFolder() -> Path:
    """Make an empty folder; raises InputError where Slicer's temporary folder is unusable."""
    parent = slicer.app.temporaryPath
    try:
        return claim_folder(Path(parent))
    except OSError as error:
        raise InputError(
            parent,
            _(
                "the temporary folder cannot be written ({reason}); choose another one in"
                " Edit > Application Settings > Modules"
            ).format(reason=error.strerror),
        ) from error


def firstInputs() -> dict[str, Any]:
    """Return the scene's first "ct" and "vertebrae" that a user could choose, where there are any.

    Pictures of one vertebra, label maps and results are neither.
    """
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    found = {
        "ct": [node for node in volumes if not node.IsA("vtkMRMLLabelMapVolumeNode")],
        "vertebrae": [node for node in segmentations if not Results.isOne(node)],
    }
    shown = {key: [x for x in nodes if not x.GetHideFromEditors()] for key, nodes in found.items()}
    return {key: nodes[0] for key, nodes in shown.items() if nodes}


def loadExample() -> tuple[Any, Any]:
    """Show the example in the slice views; return its CT and segmentation nodes."""
    with slicer.util.WaitCursor():
        ct, node = sample.loadExample()
    slicer.util.setSliceViewerLayers(background=ct, fit=True)
    return ct, node


def writeExample(names: Sequence[str]) -> list[str]:
    """Return addresses of the example's CT and vertebrae, ``names``, as files in Slicer's cache.

    What is there already is not drawn again.  Raises InputError where the cache cannot be written.
    """
    folder = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()).absolute()
    paths = [folder / name for name in names]
    if not all(path.is_file() for path in paths):
        nodes = sample.loadExample()
        try:
            for path, node in zip(paths, nodes):
                with atomic(path) as part:
                    _write(node, part)
        finally:
            for node in nodes:
                slicer.mrmlScene.RemoveNode(node)
    return [path.as_uri() for path in paths]


def _write(node: Any, path: Path) -> None:
    """Write a copy of a node; raise InputError where Slicer cannot."""
    storage = node.CreateDefaultStorageNode()
    storage.UnRegister(None)
    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise InputError(path.parent, _("cannot be written: is the disk full?"))


# TotalSegmentator's names; it has none for the other levels.
VERTEBRAE = tuple(f"vertebrae_{x}" for x in LEVELS if x not in ("T13", "L6", "S1"))
HOW_TO_GET = _(
    "The vertebrae must be segmented first. The extension TotalSegmentator does that: install it in"
    " View > Extensions Manager, restart Slicer and press this button again. Any other segmentation"
    " of the vertebrae will do as well."
)


def hasTotalSegmentator() -> bool:
    """Return whether the extension TotalSegmentator is installed in this Slicer."""
    return hasattr(slicer.modules, "totalsegmentator")


def segmentVertebrae(ct: Any, onLine: Callable[[str], None] = lambda text: None) -> Any:
    """Run TotalSegmentator on a CT and wait; return the segmentation node of its vertebrae.

    ``onLine`` gets each line that it says meanwhile.  Raises InputError, one line, where it fails;
    the scene is then as it was.
    """
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", f"{ct.GetName()} vertebrae"
    )
    try:
        from TotalSegmentator import TotalSegmentatorLogic  # type: ignore[import-not-found]

        node.CreateDefaultDisplayNodes()
        logic = TotalSegmentatorLogic()
        logic.logCallback = onLine
        with slicer.util.WaitCursor():
            logic.setupPythonRequirements()
            # The third is "fast" in the extension's older versions and "quality" in newer ones,
            # which take False there: by position, it means full resolution in both.
            logic.process(ct, node, False, task="total", subset=list(VERTEBRAE))
        if node.GetSegmentation().GetNumberOfSegments() == 0:
            raise ValueError(_("it found no vertebra"))
    except Exception as error:  # whatever another extension raises is for the user
        slicer.mrmlScene.RemoveNode(node)
        reason = " ".join(str(error).split()) or type(error).__name__
        text = _("TotalSegmentator did not finish: {reason}").format(reason=reason)
        raise InputError("", text) from error
    return node


class _Waiting:
    """Hears how the run ends."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.text = ""

    def started(self, event: Started) -> None: ...
    def progress(self, event: Progress) -> None: ...
    def vertebra(self, level: str) -> None: ...
    def said(self, text: str) -> None: ...

    def ended(self, outcome: Outcome, text: str) -> None:
        self.outcome, self.text = outcome, text


def segmentAndWait(
    ct: Any, vertebrae: Any, choices: Choices, seconds: float, makeJob: MakeJob = QtProcess
) -> SegmentationRun:
    """Return the finished run; RuntimeError, one line, if it fails or exceeds ``seconds``.

    Slicer's events are handled meanwhile.
    """
    run, waiting = SegmentationRun(ct, vertebrae, choices, temporaryFolder), _Waiting()
    run.start(makeJob, waiting)
    end = time.monotonic() + seconds
    while waiting.outcome is None:
        if time.monotonic() > end:
            run.abandon()
            raise RuntimeError(_("not finished within {seconds} s").format(seconds=f"{seconds:g}"))
        slicer.app.processEvents()
        time.sleep(0.01)
    if waiting.outcome != "finished":
        raise RuntimeError(waiting.text)
    return run
