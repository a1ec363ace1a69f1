"""The review in the page: draws what ``ui.review_controller`` says, forwards what is pressed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..output.figures.evidence_strip import make_strip
from ..review.burden import Burden
from ..review.review import Filter, Item, VertebraState
from ..ui import texts
from ..ui.review_controller import Kind, Picture, ReviewController, ReviewTexts

if TYPE_CHECKING:
    from .page_state import PageState
    from .slice_views import SliceViews


class ReviewPage:
    """A ``ReviewView`` of the page's state, which every tab shows."""

    def __init__(self, page: PageState, windows: SliceViews) -> None:
        self._page, self._windows = page, windows
        self._close = False
        self._opened = 0
        self._rows: dict[str, dict[str, Any]] = {}
        page.show(threshold=0.5, levels_found=[], analysed=[], put_back=False)
        self.controller = ReviewController(self, entered=True)
        self.controller.clear()

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """What the page may ask for, by name."""
        review = self.controller
        return {
            "choose": review.choose,
            "judge": review.judge,
            "switchType": review.switch_type,
            "comment": review.comment,
            "step": review.step,
            "vertebra": review.choose_vertebra,
            "stepVertebra": review.step_vertebra,
            "sort": review.sort,
            "results": review.choose_results,
            "travel": review.travel,
            "threshold": review.set_threshold,
            "filter": review.filter,
            "overlay": review.toggle_outlines,
            "flick": review.toggle_picture,
        }

    def draw_review(self, shown: bool) -> None:
        self._close = self._close and shown
        # The page keeps the rows that it drew: not beyond a time when the list was away.
        self._opened += shown
        self._page.show(reviewing=shown, opened=self._opened)

    def draw_rows(self, items: Sequence[Item], shown: Sequence[str]) -> None:
        self._rows = {item.id: row(item) for item in items}
        self._page.show(rows=self._rows, shown=list(shown))

    def draw_items(self, items: Iterable[Item]) -> None:
        self._rows = {**self._rows, **{item.id: row(item) for item in items}}
        self._page.show(rows=self._rows)

    def draw_shown(self, shown: Sequence[str]) -> None:
        self._page.show(shown=list(shown))

    def draw_chosen(self, item: Item | None) -> None:
        """Mark the row, put the crosshair there, and show the evidence where it was kept."""
        session = self.controller.session
        if item is not None and session is not None:
            if not self._close:
                self._windows.close_up()
                self._close = True
            if item.volume_mm3 > 0:
                x, y, z = session.results.here(item.centroid_lps)
                self._windows.mark((-x, -y, z))
        pictures, note = self._strip(item)
        current = item.id if item is not None else ""
        self._page.show(reason=item.reason if item is not None else "")
        self._page.show(current=current, strip=pictures, strip_note=note)

    def draw_vertebrae(self, states: Sequence[VertebraState]) -> None:
        self._page.show(
            vertebrae_rows=[
                {"level": x.level, "status": x.status.name, "cells": list(texts.vertebra_cells(x))}
                for x in states
            ]
        )

    def draw_level(self, level: str) -> None:
        self._page.show(level=level)

    def draw_burden(self, rows: Sequence[Burden], heading: str) -> None:
        cells = [list(texts.burden_cells(row)) for row in rows]
        self._page.show(burden=cells, burden_heading=heading)

    def draw_results(self, names: Sequence[str], chosen: int) -> None:
        self._page.show(results=list(names), results_chosen=chosen)

    def draw_texts(self, said: ReviewTexts) -> None:
        self._page.show(**vars(said))

    def draw_threshold(self, value: float) -> None:
        self._page.show(threshold=value)

    def draw_levels(self, found: Sequence[str], analysed: Sequence[str]) -> None:
        self._page.show(levels_found=list(found), analysed=list(analysed))

    def draw_filter(self, wanted: Filter) -> None:
        self._page.show(wanted=dict(vars(wanted)))

    def draw_picture(self, picture: Picture) -> None:
        self._page.show(picture=picture)

    def draw_outlines(self, shown: bool) -> None:
        self._page.show(overlay=shown)

    def draw_put_back(self, offered: bool) -> None:
        self._page.show(put_back=offered)

    def take_comment(self) -> str | None:
        """Return None: the page itself sends what is typed as soon as anything is pressed."""
        return None

    def say(self, text: str, kind: Kind = "info") -> None:
        self._page.say(text, kind)

    def call_later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        return asyncio.get_running_loop().call_later(seconds, action).cancel

    def _strip(self, item: Item | None) -> tuple[list[dict[str, str]], str]:
        review = self.controller
        if item is None or review.results is None:
            return [], ""
        evidence = review.evidence(item.level)
        patch = review.results.patches([item.id]).get(item.id) if evidence is not None else None
        if evidence is None or patch is None:
            return [], ""
        strip = make_strip(evidence, patch, review.results.grid, item.type)
        return [{"title": t, "src": png(p)} for t, p in strip.pictures.items()], strip.note


def row(item: Item) -> dict[str, Any]:
    """Return what the page's table shows of a candidate."""
    return {
        "type": item.type,
        "verdict": item.verdict,
        "score": 0.0 if item.missed else round(item.score, 4),
        "cells": list(texts.cells(item)),
        "tip": f"{item.name}\n{item.comment}" if item.comment else item.name,
    }


def png(picture: Any) -> str:
    """Return an address that holds the picture itself; ``picture`` is bytes (H, W, 3)."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
