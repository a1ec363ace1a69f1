"""The module's panel in the test desktop, on a small scan and with a child process that is real."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from desktop import Desktop
from helpers.findings import RUN, make_ct
from helpers.scene import add_ct, add_segmentation
from hideseekseg.findings import Evidence, VertebraFinding
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.review.review import Review

UI = Path(__file__).resolve().parents[2] / "HideSeekSeg" / "Resources" / "UI" / "HideSeekSeg.ui"
BOXES = {"vertebrae_T11": 33, "vertebrae_T12": 32, "vertebrae_L1": 31}
WIDTH = 460


@dataclass
class Opened:
    """A panel inside the main window; ``ui`` holds its widgets by name."""

    desktop: Desktop
    panel: Any
    ui: Any
    widget: Any

    def choose(self, ct: Any, segmentation: Any) -> None:
        self.ui.ctSelector.setCurrentNode(ct)
        self.ui.segmentationSelector.setCurrentNode(segmentation)

    def run(self, seconds: float = 60.0) -> None:
        """Click, and wait for the end."""
        self.ui.segmentButton.click()
        assert self.panel.running, self.message
        self.wait_for_end(seconds)

    def wait_for_end(self, seconds: float = 60.0) -> None:
        self.desktop.wait(lambda: not self.panel.running, seconds)
        self.desktop.settle()

    @property
    def message(self) -> str:
        """What the panel says, empty where it says nothing."""
        label = self.ui.messageLabel
        return str(label.text) if label.isVisibleTo(self.widget) else ""

    def rows(self) -> list[list[str]]:
        """The candidates' table as it is seen."""
        table = self.ui.candidatesTable
        return [
            [table.item(row, column).text() for column in range(table.columnCount)]
            for row in range(table.rowCount)
            if not table.isRowHidden(row)
        ]

    def row(self) -> int:
        """Number of the selected row, -1 without one."""
        rows = self.ui.candidatesTable.selectionModel().selectedRows()
        return int(rows[0].row()) if rows else -1

    def key(self, key: str) -> None:
        self.desktop.key(self.desktop.window, key)

    def rest(self, seconds: float = 0.25) -> None:
        """Do nothing for a moment: the scene follows what was done."""
        end = time.monotonic() + seconds
        self.desktop.wait(lambda: time.monotonic() > end)

    def picture(self, path: Path, width: int = WIDTH) -> None:
        """A PNG of the panel alone, as high as it asks for at this width."""
        for _ in range(2):
            self.desktop.show(self.desktop.window, width, self._height(width))
        assert self.widget.grab().save(str(path))

    def _height(self, width: int) -> int:
        rows = self.widget.layout()
        asked = rows.heightForWidth(width) if rows.hasHeightForWidth() else 0
        return int(max(asked, rows.minimumSize().height()))


@contextmanager
def open_panel(
    desktop: Desktop,
    weights: Path | None = None,
    program: str = "",
    fresh: bool = True,
    stand_by: Callable[[], None] | None = None,
) -> Iterator[Opened]:
    """The panel as the module opens it; ``program`` is the Python of its child processes.

    ``fresh``: nothing is remembered of earlier tests.  ``stand_by``: as of ``Panel``; without it no
    process is made ready, as most tests start no run.
    """
    import slicer

    from HideSeekSegLib.qt_process import QtProcess
    from HideSeekSegLib.widget import Panel

    if fresh:
        slicer.app.userSettings().clear()
    widget = slicer.util.loadUI(str(UI))
    ui = slicer.util.childWidgetVariables(widget)
    # The .ui file says this to Slicer; the stand-ins have no such slots.
    for name in ("ctSelector", "segmentationSelector", "bodiesSelector"):
        getattr(ui, name).setMRMLScene(slicer.mrmlScene)
    desktop.window.setCentralWidget(widget)
    desktop.show(desktop.window, WIDTH + 20, 900)
    job = partial(QtProcess, program=program)
    panel = Panel(widget, job, torch_of(program), stand_by or (lambda: None))
    scene, events = slicer.mrmlScene, slicer.vtkMRMLScene
    tags = [
        scene.AddObserver(event, lambda *_, f=forward: f())
        for event, forward in (
            (events.StartCloseEvent, panel.onSceneStartClose),
            (events.EndCloseEvent, panel.onSceneEndClose),
            (events.EndImportEvent, panel.onSceneEndImport),
        )
    ]
    panel.enter()
    desktop.window.moduleSelector()._leave = panel.exit
    if weights is not None:
        assert panel.settings.use(weights)
    try:
        yield Opened(desktop, panel, ui, widget)
    finally:
        for tag in tags:
            scene.RemoveObserver(tag)
        panel.cleanup()
        desktop.window.takeCentralWidget()
        widget.hide()
        widget.deleteLater()
        desktop.settle()


@cache
def torch_of(program: str) -> Any:
    """It is tried once for all tests; without a program never."""
    from HideSeekSegLib.pytorch_check import PyTorchCheck

    return PyTorchCheck(program)


def add_boxes(spine: tuple[Volume, Volume], name: str = "Boxes") -> tuple[Any, Any]:
    """The three boxes of bone as CT and segmentation in the scene."""
    ct, labels = spine
    masks = {key: labels.array == value for key, value in BOXES.items()}
    return (
        add_ct(ct.array, ct.grid.ijk_to_lps, name),
        add_segmentation(masks, labels.grid.ijk_to_lps, f"{name} vertebrae"),
    )


def add_review(
    vertebrae: Iterable[VertebraFinding],
    grid: Grid,
    name: str = "CT",
    source: Any = None,
    ct: Any = None,
    evidence: Mapping[str, Evidence] = MappingProxyType({}),
) -> Any:
    """A finished run in the scene, as one that was loaded with it; returns the CT."""
    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import store

    ct = ct or add_ct(make_ct(grid).array, grid.ijk_to_lps, name)
    results, review = Results.create(ct, source, RUN), Review(0.5)
    for finding in vertebrae:
        review.add_vertebra(finding)
        results.addVertebra(finding, evidence.get(finding.level))
    results.apply(review)
    store(results.node, review)
    return ct
