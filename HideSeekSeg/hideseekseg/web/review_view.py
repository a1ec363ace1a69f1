"""The review in the page: what is listed, chosen and shown, and what the reader does with it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image

from ..anatomy.label_conventions import LEVELS
from ..findings import Evidence
from ..output.figures.evidence_strip import make_strip
from ..review.review import Filter, Item
from ..scene import views
from ..ui import texts
from ..ui.review_session import ReviewSession
from .page_state import PageState
from .slice_views import SliceViews


def row(item: Item) -> dict[str, Any]:
    return {
        "type": item.type,
        "verdict": item.verdict,
        "score": 0.0 if item.missed else round(item.score, 4),
        "cells": list(texts.cells(item)),
        "tip": f"{item.name}\n{item.comment}" if item.comment else item.name,
    }


def png(picture: Any) -> str:
    """Bytes (H, W, 3) as an address that holds the picture itself."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


pass

FILL = 0.2  # of a lesion's colour over the bone; none over the edit, which is to be seen
SETTLE_SECONDS = 0.15  # the scene follows slider and verdicts once they rest
PICTURES = ("healthy", "difference")  # besides the CT, in the order of ``evidenceVolumes``
EMPTY: dict[str, Any] = {
    "rows": {},
    "shown": [],
    "current": "",
    "summary": "",
    "counts": "",
    "quiet": "",
    "detail": "",
    "comment": "",
    "levels_found": [],
    "can_undo": False,
    "can_redo": False,
    "strip": [],
    "strip_note": "",
    "picture": "ct",
    "reviewing": False,
    "wanted": {"level": "", "type": "", "verdict": ""},
}


class ReviewPage:
    """One review at a time; ``evidence`` gives what the method saw of a vertebra, or None."""

    def __init__(self, page: PageState, windows: SliceViews) -> None:
        self._page, self._windows = page, windows
        self.work: ReviewSession | None = None
        self.current = ""
        self.evidence: Callable[[str], Evidence | None] = lambda level: None
        self._wanted = Filter()
        self._picture = "ct"
        self._close = False
        self._seen: tuple[str, Evidence | None] = ("", None)
        self._later: asyncio.TimerHandle | None = None
        self.clear()

    # What there is to review.

    def show(self, work: ReviewSession) -> None:
        """A review, from its best candidate on."""
        self.work = work
        views.fillLesions(work.results.node, FILL)
        self.work.sync_verdicts_from_scene()
        self.renew()
        self.begin()
        self.flush()

    def clear(self) -> None:
        """Nothing: another patient, or a new run."""
        self._stop_waiting()
        self.work, self.current, self._picture = None, "", "ct"
        self._wanted, self._close, self._seen = Filter(), False, ("", None)
        self._page.show(**EMPTY, threshold=0.5, overlay=True)

    def renew(self) -> None:
        """Vertebrae have come: list them, keep what is chosen."""
        if self.work is None:
            return
        review = self.work.review
        found = {item.level for item in review.items}
        levels = [level for level in LEVELS if level in found]
        self._page.show(reviewing=True, threshold=review.threshold, levels_found=levels)
        self._rows()
        self._tell()

    def begin(self) -> None:
        """Choose the best candidate where none is chosen."""
        shown = self._shown()
        if shown and self.current not in shown:
            self.choose(shown[0])

    def settle(self) -> None:
        """The run is over: the best candidate is chosen, unless the reader is at work already."""
        shown = self._shown()
        if self.work is not None and shown and not self.work.review.can_undo:
            self.choose(shown[0])
        self.flush()

    # What the reader does.

    def choose(self, identity: str) -> None:
        """All views go to a finding, which is drawn alone; an empty id shows all of them."""
        if self.work is None:
            return
        before, item = self._item(self.current), self._item(identity)
        self.current = item.id if item else ""
        if self._picture != "ct" and (item is None or before is None or item.level != before.level):
            self.flick("ct")
        self.work.isolate(self.current)
        if item is not None:
            self.work.visit(item)
            if not self._close:
                self._windows.close_up()
                self._close = True
            if item.volume_mm3 > 0:
                x, y, z = self.work.results.here(item.centroid_lps)
                self._windows.mark((-x, -y, z))
        self._strip(item)
        self._tell()

    def judge(self, verdict: str) -> None:
        """A verdict on the chosen finding; on to the next that waits for one."""
        if self.work is None or not self.current or verdict not in ("accepted", "rejected"):
            return
        self._page.say("")
        following = self.work.judge(self.current, verdict, self._wanted)  # type: ignore[arg-type]
        self._rows()
        self._listed()
        self._settle_later()
        if following is not None:
            self.choose(following)

    def switch_type(self) -> None:
        if self.work is not None and self.current:
            self.work.review.switch_type(self.current)
            self._changed()
            self._strip(self._item(self.current))

    def comment(self, text: str) -> None:
        item = self._item(self.current)
        if self.work is None:
            return
        if item is None:
            self._page.say(texts.NOT_CHOSEN, "warning")
        elif text.strip() != item.comment:
            self.work.review.comment(item.id, text)
            self._changed()

    def step(self, way: int) -> None:
        if self.work is not None:
            there = self.work.step(self.current, way, self._wanted)
            if there is not None:
                self.choose(there)

    def travel(self, forward: bool) -> None:
        """Undo or redo; the finding concerned is chosen: the reader sees what happened."""
        if self.work is None:
            return
        review = self.work.review
        ids = review.redo() if forward else review.undo()
        if ids is None:
            return
        self._page.show(threshold=review.threshold)
        self._changed()
        if len(ids) == 1 and ids[0] in self._shown():
            self.choose(ids[0])

    def set_threshold(self, value: float) -> None:
        """The list follows at once, the scene when the slider rests."""
        if self.work is None:
            return
        self.work.review.set_threshold(min(max(float(value), 0.0), 1.0))
        self._page.show(threshold=self.work.review.threshold)
        self._listed()
        self._settle_later()

    def filter(self, field: str, value: str) -> None:
        if field in ("level", "type", "verdict"):
            self._wanted = replace(self._wanted, **{field: value})
            wanted = {"level": self._wanted.level, "type": self._wanted.type}
            self._page.show(wanted={**wanted, "verdict": self._wanted.verdict})
            self._listed()

    def outlines(self) -> None:
        """All lesions' outlines on or off."""
        if self.work is not None and self.work.alive:
            on = not self._page.get("overlay")
            views.showOverlay(self.work.results.node, on)
            self._page.show(overlay=on)

    def flick(self, picture: str) -> None:
        """Show the healthy edit or the difference instead of the CT; again: the CT."""
        item = self._item(self.current)
        picture = "ct" if picture == self._picture else picture
        node = self.work.results.ctNode if self.work is not None else None
        if picture in PICTURES and item is not None and self.work is not None:
            evidence = self._evidence(item.level)
            if evidence is None:
                self._page.say(texts.not_kept(item.level), "warning")
                picture = "ct"
            else:
                both = self.work.results.evidenceVolumes(evidence, item.level)
                node = both[PICTURES.index(picture)]
        self._picture = picture
        if node is not None and self.work is not None:
            views.showBackground(node)
            views.fillLesions(self.work.results.node, FILL if picture == "ct" else 0.0)
        self._page.show(picture=picture)

    def _settle_later(self) -> None:
        """The page first, the scene when the reader rests; ``flush`` for what cannot wait."""
        self._stop_waiting()
        self._later = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self.flush)

    def flush(self) -> None:
        """Bring the scene up to date."""
        self._stop_waiting()
        if self.work is not None:
            self.work.flush(self.current)

    # What the page shows.

    def _changed(self) -> None:
        self._rows()
        self._listed()
        self.flush()

    def _listed(self) -> None:
        """Other rows are shown than before; what is no longer shown is no longer chosen."""
        if self.current and self.current not in self._shown():
            self.choose("")
        else:
            self._tell()

    def _rows(self) -> None:
        assert self.work is not None
        self._page.show(rows={item.id: row(item) for item in self.work.review.items})

    def _tell(self) -> None:
        """Everything that is said in words, and which buttons can be pressed."""
        if self.work is None:
            return
        review, item = self.work.review, self._item(self.current)
        self._page.show(
            shown=self._shown(),
            current=self.current,
            summary=review.summary(),
            counts=review.counts(self._wanted),
            quiet=texts.quiet(review),
            detail=self.work.details(item) if item else "",
            comment=item.comment if item else "",
            can_undo=review.can_undo,
            can_redo=review.can_redo,
        )

    def _strip(self, item: Item | None) -> None:
        """The method's evidence for the chosen finding, where it was kept."""
        pictures, note = [], ""
        evidence = self._evidence(item.level) if item is not None else None
        if self.work is not None and item is not None and evidence is not None:
            patch = self.work.results.patches([item.id]).get(item.id)
            if patch is not None:
                strip = make_strip(evidence, patch, self.work.results.grid, item.type)
                note = strip.note
                pictures = [{"title": t, "src": png(p)} for t, p in strip.pictures.items()]
        self._page.show(strip=pictures, strip_note=note)

    def _evidence(self, level: str) -> Evidence | None:
        if self._seen[0] != level:
            self._seen = (level, self.evidence(level))
        return self._seen[1]

    def _item(self, identity: str) -> Item | None:
        if self.work is None or not identity:
            return None
        try:
            return self.work.review.item(identity)
        except KeyError:
            return None

    def _shown(self) -> list[str]:
        return [item.id for item in self.work.review.shown(self._wanted)] if self.work else []

    def _stop_waiting(self) -> None:
        if self._later is not None:
            self._later.cancel()
        self._later = None
