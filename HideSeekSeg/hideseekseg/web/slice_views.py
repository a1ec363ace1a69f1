"""Slicer's four views in the page: three slices follow one crosshair beside the surfaces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import slicer
import vtk
from trame_rca.rca import VtkRemoteControlledArea
from trame_rca.schedulers import RcaImageRenderScheduler
from trame_rca.view_adapter import RcaViewAdapter
from trame_slicer.rca_view.rca_view_factory import RcaRenderStrategy
from trame_slicer.views import SliceView, ThreeDView

from ..scene.geometry import valueAt
from ..scene.views import boneWindow, inHounsfield, setWindow
from .slicer_scene import quiet_vtk
from .strokes import Ruler, Stroke, Window, clear_ruler

Tool = Literal["crosshair", "window", "ruler", "draw", "erase"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
# Level and width in HU, as readers know them.
PRESETS = {
    "bone": ("Bone", 400.0, 1800.0),
    "soft": ("Soft tissue", 40.0, 400.0),
    "lung": ("Lung", -600.0, 1500.0),
    "wide": ("Wide", 500.0, 4000.0),
}

SLICES = {"sagittal": "Sagittal", "axial": "Axial", "coronal": "Coronal"}
THREED = "threed"
# Heights of the views around a finding, in mm: a vertebra with its neighbours.
CLOSE_UP_MM = {"sagittal": 150.0, "axial": 110.0, "coronal": 110.0}
# Words for both directions of each slice's normal in RAS: axis, negative, positive.
_SIDES = {"sagittal": (0, "L", "R"), "axial": (2, "I", "S"), "coronal": (1, "P", "A")}
_FROM = (-0.75, -0.62, 0.22)  # patient's left (RAS -x), behind (-y), a little above
_FIRST = 100.0  # priority of an observer
_GESTURES = ("Pinch", "Rotate", "Pan")  # of two fingers
_FIELD_MM = (10.0, 2000.0)  # heights of a slice view that a pinch may reach
_CROSS = (0.45, 1.0, 0.55)  # neither lytic's nor blastic's colour
_DARK = (0.035, 0.043, 0.055)
# Seconds until a view is drawn: what is said comes first, then the large view, then the others, for
# drawing holds up everything else.
_TURNS = {"sagittal": 0.01, "axial": 0.07, "coronal": 0.07, THREED: 0.1}
# Of a picture of a view: on a screen of 4K, software would draw one in seconds.
_MOST_PIXELS = 1_500_000
_FRAMES_PER_SECOND, _MOVING_QUALITY, _STILL_QUALITY = 30.0, 70, 95


class _Area(VtkRemoteControlledArea):
    """A view as pictures; ``drawing`` while one is made."""

    drawing = False
    # Hears a gesture of two fingers first; True: it is done.
    gesture: Callable[[dict[str, Any]], bool] = staticmethod(lambda event: False)

    def process_interaction_event(self, event: dict[str, Any]) -> None:
        """VTK would multiply the scale of a pinch, told from its start, by itself at each move."""
        if not self.gesture(event):
            super().process_interaction_event(event)

    def process_resize_event(self, width: int, height: int) -> None:
        """VTK 9.6 no longer tells the view of its new size by itself."""
        super().process_resize_event(width, height)
        self._iren.InvokeEvent(vtk.vtkCommand.WindowResizeEvent)

    @property
    def img_cols_rows(self) -> Any:
        self.drawing = True
        try:
            return super().img_cols_rows
        finally:
            self.drawing = False


class _Strategy(RcaRenderStrategy):
    """Drawing changes cameras and planes, for which Slicer asks to draw again: without an end."""

    def __init__(self, scheduler: Any, area: _Area, turn: float) -> None:
        super().__init__(scheduler)
        self._area, self._turn, self._waiting = area, turn, False

    def schedule_render(self) -> None:
        if self._area.drawing or self._waiting:
            return
        self._waiting = True
        asyncio.get_event_loop().call_later(self._turn, self._draw)

    def _draw(self) -> None:
        self._waiting = False
        super().schedule_render()


def _swallow(interactor: Any, event: str) -> None:
    """Keep an event from all who would hear it after us."""

    def heard(*_: Any) -> None:
        interactor.GetCommand(tag).AbortFlagOn()

    tag = interactor.AddObserver(event, heard, _FIRST)


class SliceViews:
    """The views; ``moved`` hears where each of them is, in words, whenever one moved."""

    def __init__(
        self, server: Any, slicer_app: Any, moved: Callable[[dict[str, str]], None]
    ) -> None:
        self._server, self._scene, self._moved = server, slicer_app.scene, moved
        self._adapters: dict[str, RcaViewAdapter] = {}
        self._dragged: str | None = None
        self._stroke: Stroke | None = None
        self._take_back: Callable[[], None] = lambda: None  # what the last press did
        self._pinched = (0.0, 0.0, 0.0)  # field of view when a pinch began
        self._one_finger_left = False
        self._crosshair_shown = True
        self._volume: Any = None
        self._hounsfield = False
        self.tool: Tool = "crosshair"
        self.pointed: Callable[[str], None] = lambda text: None
        self.brush: Callable[[tuple[float, float, float], bool], Stroke | None]
        self.brush = lambda ras, erase: None
        self._telling = False
        self.slices = {name: self._slice(slicer_app, name) for name in SLICES}
        self.threed = self._threed(slicer_app)
        self._crosshair = slicer_app.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.NoCrosshair)
        self._crosshair.SetCrosshairThickness(slicer.vtkMRMLCrosshairNode.Fine)
        self._crosshair.SetCrosshairColor(*_CROSS)
        server.controller.on_server_ready.add(self._register)
        server.controller.on_client_connected.add(self._let_go)

    @property
    def centre(self) -> tuple[float, float, float] | None:
        """Return where the crosshair is, RAS mm."""
        ras = [0.0, 0.0, 0.0]
        self._crosshair.GetCursorPositionRAS(ras)
        return ras[0], ras[1], ras[2]

    def show(self, volume_node: Any) -> None:
        """Another patient: all of it in every view."""
        for view in self.slices.values():
            view.set_background_volume_id(volume_node.GetID())
            view.set_foreground_volume_id(None)
            view.fit_view_to_content()
        self._volume, self._hounsfield = volume_node, inHounsfield(volume_node)
        clear_ruler(self._scene)
        self._crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.NoCrosshair)
        self.tell()

    def clear(self) -> None:
        """Nobody: no slice shows anything, and nothing is said of what lies under the mouse."""
        for view in self.slices.values():
            view.set_background_volume_id(None)
            view.set_foreground_volume_id(None)
        self._volume = None
        clear_ruler(self._scene)
        self._crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.NoCrosshair)
        self.pointed("")

    def show_crosshair(self, shown: bool) -> None:
        """Show the crosshair where it is, or hide it."""
        self._crosshair_shown = shown
        kind = slicer.vtkMRMLCrosshairNode
        self._crosshair.SetCrosshairMode(kind.ShowBasic if shown else kind.NoCrosshair)

    def set_window(self, preset: str) -> None:
        """Show the CT in a window that readers know, by its name in ``PRESETS``."""
        if self._volume is None or preset not in PRESETS:
            return
        _, level, width = PRESETS[preset]
        if preset == "bone":
            boneWindow(self._volume)  # of a CT that is not in HU, the bulk of its values
        else:
            setWindow(self._volume.GetDisplayNode(), level - width / 2, level + width / 2)

    def clear_ruler(self) -> None:
        """Remove the measured line."""
        clear_ruler(self._scene)

    def move_slice(self, name: str, steps: int) -> None:
        """Go on by slices in a view, as the wheel does."""
        if name in self.slices:
            node = self.slices[name].get_view_node()
            spacing = node.GetPrescribedSliceSpacing()[2]
            logic = self.slices[name]._logic
            low = logic.GetLowestVolumeSliceSpacing()[2] if logic else spacing
            node.SetSliceOffset(node.GetSliceOffset() + steps * (low or spacing))

    def centre_on(self, bounds: tuple[float, ...]) -> None:
        """Slices through the middle of a box (RAS mm: least and largest of x, y and z)."""
        low, high = np.array(bounds[::2]), np.array(bounds[1::2])
        jump = slicer.vtkMRMLSliceNode.OffsetJumpSlice
        slicer.vtkMRMLSliceNode.JumpAllSlices(self._scene, *(low + high) / 2, jump)
        self.tell()

    def look_around(self, bounds: tuple[float, ...]) -> None:
        """Show the whole box in 3D, from behind and the left, where all of a spine is visible."""
        renderer = self.threed.renderer()
        centre = (np.array(bounds[::2]) + np.array(bounds[1::2])) / 2
        camera = renderer.GetActiveCamera()
        camera.SetFocalPoint(*centre)
        camera.SetPosition(*(centre + 500 * np.array(_FROM)))
        camera.SetViewUp(0.0, 0.0, 1.0)
        renderer.ResetCamera(bounds)
        camera.Zoom(1.3)
        renderer.ResetCameraClippingRange()
        self.threed.schedule_render()

    def close_up(self) -> None:
        """Zoom so that a vertebra and its neighbours fill the sagittal view, the others alike."""
        for name, view in self.slices.items():
            node = view.get_view_node()
            width, height, depth = node.GetFieldOfView()
            factor = CLOSE_UP_MM[name] / height
            node.SetFieldOfView(width * factor, height * factor, depth)

    def fit(self, name: str) -> None:
        """All of the patient in one view."""
        if name in self.slices:
            self.slices[name].fit_view_to_content()
        else:
            self.threed.reset_view()

    def mark(self, ras: tuple[float, float, float]) -> None:
        """Put the crosshair there; the slices are moved by whoever chose the place."""
        if self._crosshair_shown:
            self._crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.ShowBasic)
        self._crosshair.SetCrosshairRAS(*ras)
        self.tell()

    def tell(self) -> None:
        """Say where the views are, once for all that moves now."""
        if not self._telling:
            self._telling = True
            asyncio.get_event_loop().call_soon(self._say)

    def _say(self) -> None:
        self._telling = False
        self._moved({name: self._place(name) for name in self.slices})

    def render(self) -> None:
        """Draw all views again."""
        for view in (*self.slices.values(), self.threed):
            view.schedule_render()

    def _place(self, name: str) -> str:
        axis, negative, positive = _SIDES[name]
        mm = self.slices[name].get_view_node().GetSliceToRAS().GetElement(axis, 3)
        return f"{positive if mm >= 0 else negative} {abs(mm):.1f} mm"

    def _slice(self, slicer_app: Any, name: str) -> SliceView:
        # trame-slicer listens to an event that VTK 9.6 no longer sends: ``_Area`` sends it.
        with quiet_vtk():
            view = SliceView(slicer_app.scene, slicer_app.app_logic, name)
        view.set_orientation(SLICES[name])
        self._stream(view, name, gesture=lambda event: self._two_fingers(name, event))
        node = view.get_view_node()
        node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self.tell())
        node.SetRulerType(node.RulerTypeThin)  # the scale bar
        node.SetRulerColor(node.RulerColorWhite)
        interactor = view.interactor()
        # Before Slicer's own observers, which keep what they handle from those behind them.
        for event, follow in (
            ("LeftButtonPressEvent", lambda *_: self._press(name)),
            ("MouseMoveEvent", lambda *_: self._drag(name)),
            ("LeftButtonReleaseEvent", lambda *_: self._release()),
        ):
            interactor.AddObserver(event, follow, _FIRST)
        return view

    def _threed(self, slicer_app: Any) -> ThreeDView:
        view = ThreeDView(slicer_app.scene, slicer_app.app_logic, THREED)
        node = view.get_view_node()
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
        # Peeling the depths of translucent surfaces takes four times as long in software rendering;
        # what is opaque shines through without it as well.
        node.SetUseDepthPeeling(False)
        view.renderer().SetUseDepthPeeling(False)
        node.SetBackgroundColor(*_DARK)
        node.SetBackgroundColor2(*_DARK)
        self._stream(view, THREED, _STILL_QUALITY, fps=10.0)
        return view

    def _stream(
        self,
        view: Any,
        name: str,
        moving: int = _MOVING_QUALITY,
        fps: float = _FRAMES_PER_SECOND,
        gesture: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        """Pictures of the view go to the page's area of that name, its mouse comes back."""
        # With multisampling, translucent surfaces draw nothing in software rendering.
        view.render_window().SetMultiSamples(0)
        # VTK's and Slicer's own keys (R, F, W, E ...) would change the view, or end the process.
        for event in ("KeyPressEvent", "CharEvent", "KeyReleaseEvent"):
            _swallow(view.interactor(), event)
        window = _Area(view.render_window())
        if gesture is not None:
            window.gesture = gesture
        scheduler = RcaImageRenderScheduler(
            window,
            rca_encoder="jpeg",
            target_fps=fps,
            interactive_quality=moving,
            still_quality=_STILL_QUALITY,
        )
        self._adapters[name] = RcaViewAdapter(
            window, name, scheduler=scheduler, do_schedule_render_on_interaction=False
        )
        self._adapters[name].max_pixel_count = _MOST_PIXELS
        view.set_scheduled_render(_Strategy(scheduler, window, _TURNS[name]))

    def _register(self, **_: Any) -> None:
        for adapter in self._adapters.values():
            self._server.controller.rc_area_register(adapter)

    def _press(self, name: str) -> None:
        if self._one_finger_left:  # the page says a press of the finger that is lifted last
            self._one_finger_left = False
            return
        self._dragged, self._take_back = name, lambda: None
        ras, xy = self._place_of_mouse(name)
        if self.tool == "crosshair" or self._volume is None:
            self._take_back = self._way_back()
            self._follow(name)
        elif self.tool == "window":
            self._stroke = Window(self._volume, xy)
        elif self.tool == "ruler":
            self._stroke = Ruler(self._scene, ras)
        else:
            self._stroke = self.brush(ras, self.tool == "erase")
        if self._stroke is not None:
            self._take_back = self._stroke.take_back

    def _drag(self, name: str) -> None:
        ras, xy = self._place_of_mouse(name)
        self.pointed(self._said(ras))
        if self._dragged != name:
            return
        if self._stroke is not None:
            self._stroke.move(ras, xy)
        elif self.tool == "crosshair":
            self._follow(name)

    def _release(self) -> None:
        self._dragged, stroke = None, self._stroke
        self._stroke = None
        if stroke is not None:
            stroke.end()

    def _let_go(self, **_: Any) -> None:
        """End what a page was dragging when it was loaded again, or its connection was cut.

        It never said that the button was released: the mouse of the next page would go on drawing.
        """
        for view in (*self.slices.values(), self.threed):
            for button in ("Left", "Middle", "Right"):
                view.interactor().InvokeEvent(f"{button}ButtonReleaseEvent")
        self._release()

    def _two_fingers(self, name: str, event: dict[str, Any]) -> bool:
        """Zoom a slice by two fingers; all else that two fingers do is left out.

        The first finger pressed, and was said to be released when the second one came: what that
        did is taken back.
        """
        kind = str(event.get("type", ""))
        if not kind.endswith(_GESTURES):
            return False
        node = self.slices[name].get_view_node()
        if kind.startswith("Start"):
            self._release()
            self._take_back()
            self._take_back = lambda: None
            self._pinched = node.GetFieldOfView()
        elif kind.startswith("End"):
            self._one_finger_left = True
        elif kind == "Pinch":
            width, height, depth = self._pinched
            factor = float(event.get("factor", 0.0))
            if height > 0 and factor > 0:
                low, high = _FIELD_MM
                tall = min(max(height / factor, low), high)
                node.SetFieldOfView(width * tall / height, tall, depth)
        return True

    def _place_of_mouse(self, name: str) -> tuple[tuple[float, float, float], tuple[int, int]]:
        """Return where the mouse points: RAS mm, and in the view's pixels from below."""
        view = self.slices[name]
        x, y = view.interactor().GetEventPosition()
        a, b, c, _ = view.get_view_node().GetXYToRAS().MultiplyPoint((x, y, 0.0, 1.0))
        return (a, b, c), (x, y)

    def _said(self, ras: tuple[float, float, float]) -> str:
        """Return the CT's value there, such as "342 HU"; empty outside."""
        value = None if self._volume is None else valueAt(self._volume, ras)
        return "" if value is None else f"{value:.0f}{' HU' if self._hounsfield else ''}"

    def _way_back(self) -> Callable[[], None]:
        """Return what puts the slices and the crosshair where they are now."""
        nodes = [view.get_view_node() for view in self.slices.values()]
        offsets = [node.GetSliceOffset() for node in nodes]
        x, y, z = self._crosshair.GetCrosshairRAS()

        def back() -> None:
            for node, offset in zip(nodes, offsets):
                node.SetSliceOffset(offset)
            self.mark((x, y, z))

        return back

    def _follow(self, name: str) -> None:
        """Move the other slices to where the mouse points."""
        ras, _ = self._place_of_mouse(name)
        node = self.slices[name].get_view_node()
        jump = slicer.vtkMRMLSliceNode.OffsetJumpSlice
        group, own = node.GetViewGroup(), node
        slicer.vtkMRMLSliceNode.JumpAllSlices(self._scene, *ras, jump, group, own)
        self.mark(ras)
