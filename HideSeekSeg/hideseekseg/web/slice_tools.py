"""What the left mouse button does in the slices: crosshair, window, ruler, drawing and erasing."""

from __future__ import annotations

from ..findings import LESION_TYPES
from ..imaging.volume import Patch
from ..ui.review_controller import ReviewController
from .page import PageState
from .slice_views import TOOLS, SliceViews
from .strokes import Brush

NOT_DRAWABLE = "Choose a lesion that you added: then it can be drawn."


class SliceTools:
    """The tools of the page's slices; lesions that the reader added are drawn with them."""

    def __init__(self, page: PageState, windows: SliceViews, review: ReviewController) -> None:
        self._page, self._windows, self._review = page, windows, review
        windows.pointed = self._pointed
        windows.brush = self._stroke
        page.show(tool=TOOLS[0], crosshair=True, brush=4, pointer="")

    def take(self, name: str) -> None:
        """Give the left button another use; a second time, or an unknown one: the crosshair."""
        before = self._page.get("tool")
        chosen = next((tool for tool in TOOLS if tool == name and tool != before), TOOLS[0])
        if chosen in ("draw", "erase") and not self._drawable():
            self._page.say(NOT_DRAWABLE, "warning")
            chosen = TOOLS[0]
        if before == "ruler":
            self._windows.clear_ruler()
        self._windows.tool = chosen
        self._page.show(tool=chosen)

    def show_crosshair(self) -> None:
        """Switch the crosshair on or off."""
        shown = not self._page.get("crosshair")
        self._windows.show_crosshair(shown)
        self._page.show(crosshair=shown)

    def size_brush(self, mm: float) -> None:
        """Set the brush's radius."""
        self._page.show(brush=min(max(float(mm), 1.0), 20.0))

    def add_missed(self, level: str, kind: str) -> None:
        """Add a lesion that the method missed, and begin to draw it."""
        type = next((known for known in LESION_TYPES if known == kind), LESION_TYPES[0])
        if self._review.add_missed(level, type):
            self._windows.tool = "draw"
            self._page.show(tool="draw")
            self._page.say("Draw it with the left button, in any slice; it counts as accepted.")

    def _pointed(self, text: str) -> None:
        if text != self._page.get("pointer"):
            self._page.show(pointer=text)

    def _drawable(self) -> bool:
        item = self._review.current
        return item is not None and item.missed

    def _stroke(self, ras: tuple[float, float, float], erase: bool) -> Brush | None:
        """Begin to draw the chosen lesion, one that the reader added."""
        item, work = self._review.current, self._review.session
        if work is None or not work.alive or item is None or not item.missed:
            self._page.say(NOT_DRAWABLE, "warning")
            return None
        identity, results = item.id, work.results

        def draw(patch: Patch | None, last: bool) -> None:
            results.draw(identity, patch, last)
            if last:
                self._review.take_over_outlines()

        before = results.patches([identity]).get(identity)
        return Brush(results, before, erase, self._page.get("brush"), draw, ras)
