"""What the left button does in a slice from press to release: set the window, measure, or draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import slicer

from ..imaging.volume import Patch, patch_of, triple
from ..scene.results import Results
from ..scene.views import setWindow

RULER = "HideSeekSeg ruler"
_HU_PER_PIXEL = 4.0
_REACH_MM = 60.0  # how far a drawn lesion may reach from where it was begun
Ras = tuple[float, float, float]


class Stroke(Protocol):
    """One way to use the left button, from press to release; positions are RAS mm."""

    def move(self, ras: Ras, xy: tuple[int, int]) -> None:
        """Follow the mouse."""

    def end(self) -> None:
        """Take over what was done."""

    def take_back(self) -> None:
        """Leave all as it was before the press, also after the end."""


class Window:
    """To the right more contrast is lost, upwards the picture gets darker, as in Slicer."""

    def __init__(self, volume: Any, xy: tuple[int, int]) -> None:
        self._display, self._from = volume.GetDisplayNode(), xy
        self._width, self._level = self._display.GetWindow(), self._display.GetLevel()
        self._step = _HU_PER_PIXEL * max(self._width, 1.0) / 1800.0

    def move(self, ras: Ras, xy: tuple[int, int]) -> None:
        """Set width and level by how far the mouse is from where it was pressed."""
        width = max(self._width + self._step * (xy[0] - self._from[0]), 1.0)
        level = self._level + self._step * (xy[1] - self._from[1])
        setWindow(self._display, level - width / 2, level + width / 2)

    def end(self) -> None:
        """Keep it."""

    def take_back(self) -> None:
        """Show the window of before."""
        low = self._level - self._width / 2
        setWindow(self._display, low, low + self._width)


class Ruler:
    """A line with its length in mm; there is one at a time, and none after a mere click."""

    def __init__(self, scene: Any, ras: Ras) -> None:
        clear_ruler(scene)
        self._node = scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", RULER)
        self._node.CreateDefaultDisplayNodes()
        display = self._node.GetDisplayNode()
        display.SetSelectedColor(1.0, 1.0, 0.4)
        display.SetColor(1.0, 1.0, 0.4)
        display.SetTextScale(3.5)
        display.SetGlyphScale(1.5)
        display.SetPointLabelsVisibility(False)
        display.SetPropertiesLabelVisibility(True)
        display.SetOccludedVisibility(False)
        self._node.SetLocked(True)
        self._node.SetName(" ")
        self._node.SetSaveWithScene(False)
        for _ in range(2):
            self._node.AddControlPointWorld(*ras)

    def move(self, ras: Ras, xy: tuple[int, int]) -> None:
        """Move its second end."""
        self._node.SetNthControlPointPositionWorld(1, *ras)

    def end(self) -> None:
        """Remove one without a length."""
        if self.length < 0.1:
            self.take_back()

    def take_back(self) -> None:
        """Remove it."""
        scene = self._node.GetScene()
        if scene is not None:  # it is still in one
            scene.RemoveNode(self._node)

    @property
    def length(self) -> float:
        """Return its length in mm."""
        a, b = (np.array(self._node.GetNthControlPointPositionWorld(n)) for n in range(2))
        return float(np.linalg.norm(a - b))


def clear_ruler(scene: Any) -> None:
    """Remove the ruler."""
    for node in list(slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode", scene)):
        scene.RemoveNode(node)


class Brush:
    """A ball that adds to, or takes from, the voxels of a missed lesion on the CT's grid."""

    def __init__(
        self,
        results: Results,
        before: Patch | None,
        erase: bool,
        radius_mm: float,
        draw: Callable[[Patch | None, bool], None],
        ras: Ras,
    ) -> None:
        """``draw`` gets the voxels after each move, and whether that was the last one.

        The CT may have been moved since the run: ``ras`` is where it is now, ``radius_mm`` of then.
        """
        grid = results.grid
        self._results, self._spacing = results, grid.spacing[::-1]
        self._erase, self._radius, self._draw, self._before = erase, radius_mm, draw, before
        at = np.rint(self._kji(ras)).astype(int)
        reach = np.ceil(_REACH_MM / grid.spacing[::-1]).astype(int)
        low, high = at - reach, at + reach + 1
        if before is not None:  # what is drawn already stays inside
            low = np.minimum(low, before.start)
            high = np.maximum(high, np.add(before.start, before.array.shape))
        self._low = np.clip(low, 0, grid.shape)
        shape = np.clip(high, 0, grid.shape) - self._low
        self._mask = np.zeros(np.maximum(shape, 0), bool)
        if before is not None:
            Patch(before.array, triple(np.subtract(before.start, self._low))).paint(self._mask)
        self._last = self._kji(ras)
        self.move(ras, (0, 0))

    def move(self, ras: Ras, xy: tuple[int, int]) -> None:
        """Paint, or erase, balls all the way there: a fast mouse leaves no gaps."""
        a, b = self._last, self._kji(ras)
        steps = max(int(np.ceil(2 * np.linalg.norm((b - a) * self._spacing) / self._radius)), 1)
        for n in range(1, steps + 1):
            self._ball(np.rint(a + (b - a) * n / steps).astype(int) - self._low)
        self._last = b
        self._draw(self._patch(), False)

    def _ball(self, at: Any) -> None:
        reach = np.ceil(self._radius / self._spacing).astype(int)
        first, last = np.maximum(at - reach, 0), np.minimum(at + reach + 1, self._mask.shape)
        if np.any(first >= last):
            return
        offsets = np.meshgrid(*(np.arange(a, b) for a, b in zip(first, last)), indexing="ij")
        far = sum(((o - c) * mm) ** 2 for o, c, mm in zip(offsets, at, self._spacing))
        box = tuple(slice(int(a), int(b)) for a, b in zip(first, last))
        self._mask[box] = np.where(far <= self._radius**2, not self._erase, self._mask[box])

    def end(self) -> None:
        """Take over the outline."""
        self._draw(self._patch(), True)

    def take_back(self) -> None:
        """Take over the outline of before."""
        self._draw(self._before, True)

    def _patch(self) -> Patch | None:
        return patch_of(self._mask, triple(self._low))

    def _kji(self, ras: Ras) -> Any:
        return self._results.voxelAt(ras)[::-1]
