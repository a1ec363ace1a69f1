"""What the views show during a review, and the user's own views again afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import slicer.util

from .result_nodes import isPicture
from .results import Results
from .views import boneWindow, closeUp, fillLesions, jumpTo, showOverlay, showSagittal

FILL = 0.2  # of a lesion's colour over the bone; none over pictures of the method


class ReviewViews:
    """The views of one review, between ``take`` and ``release``.

    ``release`` restores what the user had (visible segmentations, window, layout, fore- and
    background), but for what the user has changed meanwhile.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._taken = False
        self._hidden: list[Any] = []
        self._window: tuple[tuple[Any, ...], tuple[Any, ...]] | None = None
        self._layout: tuple[int, int] | None = None
        self._layers: dict[str, tuple[str | None, str | None, float]] = {}
        self._linked: list[Any] = []
        self._fields: dict[str, tuple[float, float]] = {}  # heights: the user's, and ours, in mm
        self._crosshair: int | None = None

    def take(self) -> None:
        """Show the CT in a bone window, a large sagittal view, and no segmentation but the results.

        The views are linked.  The first place that is visited is zoomed to and gets the crosshair.
        """
        if self._taken or not self._results.alive:
            return
        self._taken = True
        fillLesions(self._results.node, FILL)
        self._hideOthers()
        ct = self._results.ctNode
        if ct is not None:
            ct.CreateDefaultDisplayNodes()
            before = _window(ct.GetDisplayNode())
            boneWindow(ct)
            self._window = before, _window(ct.GetDisplayNode())
            self._showCt(ct)
        layout = _layoutNode()
        if layout is not None:
            arrangement = layout.GetViewArrangement()
            showSagittal()
            self._layout = arrangement, layout.GetViewArrangement()
        for view in _composites():
            if not view.GetLinkedControl():
                view.SetLinkedControl(True)
                self._linked.append(view)

    def release(self) -> None:
        """Give the user's views back."""
        if not self._taken:
            return
        self._taken = False
        self.show_picture(None)
        for display in self._hidden:
            if display.GetScene() is not None:
                display.SetVisibility(True)
        display = self._results.ctNode.GetDisplayNode() if self._results.ctNode else None
        if display is not None and self._window and _window(display) == self._window[1]:
            _setWindow(display, self._window[0])
        layout = _layoutNode()
        if layout is not None and self._layout and layout.GetViewArrangement() == self._layout[1]:
            layout.SetViewArrangement(self._layout[0])
        self._restoreBackgrounds()
        self._restoreZoom()
        self._linked, self._fields, self._crosshair = [], {}, None
        self._hidden, self._layers, self._window, self._layout = [], {}, None, None

    def visit(self, centroidLps: Sequence[float]) -> None:
        """Centre all views on a point, LPS mm, and put the crosshair there.

        The first time they zoom to it; from then on the zoom is the reader's.
        """
        if not self._taken:
            return
        if not self._fields:
            for view in _slices():
                before = view.GetFieldOfView()[1]
                closeUp(view)
                self._fields[view.GetID()] = before, view.GetFieldOfView()[1]
        jumpTo(centroidLps)
        crosshair = _crosshairNode()
        if crosshair is None:
            return
        if self._crosshair is None:
            self._crosshair = crosshair.GetCrosshairMode()
            if self._crosshair == slicer.vtkMRMLCrosshairNode.NoCrosshair:
                crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.ShowSmallBasic)
        crosshair.SetCrosshairRAS(-centroidLps[0], -centroidLps[1], centroidLps[2])

    def show_outlines(self, shown: bool) -> None:
        """Show or hide all lesions at once."""
        showOverlay(self._results.node, shown)

    def show_picture(self, picture: Any) -> None:
        """Lay a picture of one vertebra over the CT, without outlines' fill; None: the CT alone.

        A foreground that the user had comes back with the CT.
        """
        if self._results.alive:
            fillLesions(self._results.node, FILL if picture is None else 0.0)
        ct = self._results.ctNode
        for view in _composites() if ct is not None else ():
            before = self._layers.get(view.GetID(), _layers(view))
            if picture is not None and self._taken:
                if not _showsPicture(view):
                    self._layers[view.GetID()] = (before[0], *_layers(view)[1:])
                _setLayers(view, ct.GetID(), picture.GetID(), 1.0)
            elif picture is None and _showsPicture(view):
                _setLayers(view, ct.GetID(), *before[1:])

    def _restoreZoom(self) -> None:
        """Restore link, zoom and crosshair, but for what the user has changed meanwhile."""
        for view in self._linked:
            if view.GetScene() is not None:
                view.SetLinkedControl(False)
        for view in _slices():
            before, ours = self._fields.get(view.GetID(), (0.0, 0.0))
            width, height, depth = view.GetFieldOfView()
            # A view that changes its size, as with the layout, keeps its height in mm alone.
            if before > 0 and height == ours:
                view.SetFieldOfView(width * before / height, before, depth)
        crosshair = _crosshairNode()
        if crosshair is not None and self._crosshair is not None:
            crosshair.SetCrosshairMode(self._crosshair)

    def _hideOthers(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            display = node.GetDisplayNode()
            other = node is not self._results.node
            if other and display is not None and display.GetVisibility():
                display.SetVisibility(False)
                self._hidden.append(display)

    def _showCt(self, ct: Any) -> None:
        for view in _composites():
            self._layers[view.GetID()] = _layers(view)
            if view.GetBackgroundVolumeID() != ct.GetID():
                view.SetBackgroundVolumeID(ct.GetID())

    def _restoreBackgrounds(self) -> None:
        ct = self._results.ctNode
        for view in _composites() if ct is not None else ():
            before = self._layers.get(view.GetID(), (None,))[0]
            if before is not None and view.GetBackgroundVolumeID() == ct.GetID():
                view.SetBackgroundVolumeID(before)


def _slices() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceNode"))


def _crosshairNode() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")


def _composites() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def _layers(view: Any) -> tuple[str | None, str | None, float]:
    back, front = view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()
    return back, front, view.GetForegroundOpacity()


def _setLayers(view: Any, back: str, front: str | None, opacity: float) -> None:
    modifying = view.StartModify()
    view.SetBackgroundVolumeID(back)
    view.SetForegroundVolumeID(front)
    view.SetForegroundOpacity(opacity)
    view.EndModify(modifying)


def _showsPicture(view: Any) -> bool:
    """Return whether a view's foreground is a picture of the method."""
    identity = view.GetForegroundVolumeID()
    node = view.GetScene().GetNodeByID(identity) if identity else None
    return node is not None and isPicture(node)


def _window(display: Any) -> tuple[Any, ...]:
    return display.GetAutoWindowLevel(), display.GetWindow(), display.GetLevel()


def _setWindow(display: Any, window: tuple[Any, ...]) -> None:
    modifying = display.StartModify()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(*window[1:])
    display.SetAutoWindowLevel(window[0])
    display.EndModify(modifying)


def _layoutNode() -> Any:
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
