"""The page: its state and template, a run in it, and the review that ``ui`` controls."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from trame.ui.html import DivLayout

from ..anatomy.label_conventions import CONVENTIONS
from ..events import Progress, Started
from ..output.figures.vertebra_row import make_strip
from ..review.burden import Burden
from ..review.review import Filter, Item, VertebraState
from ..scene.import_data import removeResults
from ..scene.views import showBackground
from ..ui import level_choices, texts
from ..ui.child_process import AsyncioProcess
from ..ui.review_controller import ReviewController
from ..ui.review_session import ReviewSession
from ..ui.review_view import Kind, Picture, ReviewTexts
from ..ui.segmentation_run import Choices, Outcome, SegmentationRun
from ..ui.texts import CASE_KEYS, KEYS, ONCE, shown
from .slice_views import PRESETS
from .slicer_scene import Patient

if TYPE_CHECKING:
    from .slice_views import SliceViews


FOLDER = Path(__file__).resolve().with_name("static")
ADDRESS = "hideseekseg"
ICON = FOLDER / "icon.png"


class PageState:
    """What every open tab shows; all of them share one state."""

    def __init__(self, server: Any, do: Callable[..., Awaitable[None]]) -> None:
        """``do`` gets the name of what was pressed and its values."""
        self._state = server.state
        module = {
            "serve": {ADDRESS: str(FOLDER)},
            "scripts": [f"{ADDRESS}/page.js"],
            "styles": [f"{ADDRESS}/page.css"],
        }
        from trame_rca import module as areas

        server.enable_module(areas)
        server.enable_module(module)

        async def answer(*values: Any, **told: Any) -> None:
            await do(*values, **told)
            await _sent()

        server.trigger("do")(answer)
        self._state.update(
            {
                "trame__title": "HideSeekSeg",
                "trame__favicon": _icon(),
                "keys": {a: shown(k) for a, k in {**KEYS, **CASE_KEYS}.items()},
                "once": list(ONCE),
                "cases": {"current": "", "text": "", "listed": []},
                "columns": list(texts.COLUMNS),
                "colours": texts.COLOURS,
                "choices": list(level_choices.CHOICES),
                "parts": level_choices.PARTS,
                "conventions": [
                    {"value": value, "text": text}
                    for value, text in zip(("names", *CONVENTIONS), level_choices.READ_BY)
                ],
                "verdicts": texts.VERDICTS,
                "reasons": texts.REASON_NAMES,
                "orders": list(texts.ORDER_OF_COLUMN),
                "vertebra_columns": list(texts.VERTEBRA_COLUMNS),
                "burden_columns": list(texts.BURDEN_COLUMNS),
                "tab": "findings",
                "presets": {name: text for name, (text, _, _) in PRESETS.items()},
                "message": {"text": "", "kind": "info"},
                "trame__template_error": (FOLDER / "ended.html").read_text("utf-8"),
            }
        )
        with DivLayout(server, classes="app") as layout:
            layout.root.add_child((FOLDER / "page.html").read_text("utf-8"))

    def show(self, **values: Any) -> None:
        """Change what the page shows; values are plain data."""
        with self._state:
            self._state.update(values)

    def get(self, name: str) -> Any:
        """Return what was shown last."""
        return self._state[name]

    def say(self, text: str, kind: Kind = "info") -> None:
        """One line says what happened and what to do; an empty one takes it away."""
        self.show(message={"text": text, "kind": kind})


async def _sent() -> None:
    """Return when all that was shown is on its way: wslink sends it a turn of the loop later.

    An answer that overtook it would tell the page that nothing is to come.
    """
    loop = asyncio.get_running_loop()
    sent = asyncio.Event()
    loop.call_later(0, loop.call_soon, sent.set)
    await sent.wait()


def start_page() -> str:
    """Return trame's own page, with our order of messages in force before the first one comes.

    The page may be enlarged by two fingers, which trame's own forbids.
    """
    from trame_client.module.vue3 import www

    page = (Path(www) / "index.html").read_text("utf-8")
    page = page.replace(",maximum-scale=1,minimum-scale=1", "")
    return page.replace("<head>", f'<head><script src="{ADDRESS}/in_order.js"></script>', 1)


def _icon() -> str:
    """In the address itself: no request for it ever leaves."""
    return "data:image/png;base64," + base64.b64encode(ICON.read_bytes()).decode()


IDLE: dict[str, Any] = {"running": False, "stopping": False, "fraction": 0.0, "progress": ""}
KINDS: dict[Outcome, Kind] = {"finished": "info", "cancelled": "warning", "failed": "error"}


@dataclass(frozen=True)
class RunSettings:
    """As the options of ``hideseekseg segment``; ``options`` are more of its words."""

    device: str = "auto"
    weights: Path | None = None
    threshold: float | None = None
    all_slices: bool = False
    options: tuple[str, ...] = ()


class RunView:
    """At most one run at a time; its files live in ``folder`` until the next one begins."""

    def __init__(
        self, page: PageState, review: ReviewController, settings: RunSettings, folder: Path
    ) -> None:
        self._page, self._review = page, review
        self._settings, self._folder = settings, folder
        self._earlier: ReviewSession | None = None
        self._run: SegmentationRun | None = None
        self._idle: Callable[[], None] = lambda: None
        page.show(**IDLE, device="")

    @property
    def on(self) -> bool:
        return self._run is not None and self._run.running

    @property
    def run(self) -> SegmentationRun | None:
        """The run that is going on, or was the last one."""
        return self._run

    def start(
        self, patient: Patient, idle: Callable[[], None], levels: tuple[str, ...] = ()
    ) -> None:
        """Write the inputs and start the process; raises InputError where that cannot be done.

        The results of an earlier run stay until the first vertebra is finished.  ``idle`` is called
        when it is over.  Of some ``levels`` only, the results join those of the review.
        """
        chosen = self._settings
        choices = Choices(
            *(chosen.device, chosen.weights, chosen.threshold, chosen.all_slices),
            levels=levels,
            options=chosen.options,
            corrections=dict(patient.corrections),
        )
        run = SegmentationRun(
            *(patient.ct, patient.vertebrae, choices, self._make_folder),
            earlier=self._review.session,
            notes=patient.notes,
        )
        run.start(AsyncioProcess, self)
        self._forget()  # the page is told once: a run that begins shows no idle moment
        self._run, self._idle = run, idle
        self._page.show(running=True, stopping=False, fraction=0.0, progress=texts.STARTING)
        if run.merged:
            return
        self._earlier = self._review.session
        self._review.clear()
        if self._earlier is not None and self._earlier.alive:
            self._earlier.views.show_outlines(False)
        showBackground(patient.ct)

    def stand_by(self) -> None:
        """Have a process ready, as a run is likely to be asked for next."""
        if not self.on and self._review.session is None:
            AsyncioProcess.stand_by()

    def cancel(self) -> None:
        """Stop the run; what is finished stays.  A second time: at once."""
        if self._run is not None and self._run.running:
            self._run.cancel()
            self._page.show(stopping=True, progress=texts.STOPPING)

    def forget(self) -> None:
        """End a run and remove its files; what was removed cannot be put back any more."""
        self._forget()
        self._page.show(**IDLE)

    def _forget(self) -> None:
        if self._run is not None:
            self._run.abandon()
        self._run = self._earlier = None
        self._review.forget_removed()

    def put_back(self) -> None:
        """Exchange the review for the one that this run replaced."""
        newer = self._review.session
        self._review.put_back()
        now = self._review.session
        if now is not None and now is not newer:
            if newer is not None:
                self._review.keep_removed(newer.review, newer.results)
                _remove(newer)
            self._review.drop_results()
            self._review.flushed()

    # What the run tells.

    def started(self, event: Started) -> None:
        self._page.say("")
        self._page.show(device=f"{event.device} ({event.reason}) · weights “{event.weights}”")

    def progress(self, event: Progress) -> None:
        self._page.show(fraction=round(event.fraction, 3), progress=texts.progress(event))

    def vertebra(self, level: str) -> None:
        run = self._run
        if run is None or run.session is None:
            return
        if self._review.session is None:
            earlier, self._earlier = self._earlier, None
            if earlier is not None:
                _remove(earlier)
                self._review.keep_removed(earlier.review, earlier.results)
            self._review.show(run.session)
        else:
            self._review.joined()
            self._review.flushed()  # a crash loses no vertebra that is finished

    def said(self, text: str) -> None:
        self._page.say(text, "warning")

    def ended(self, outcome: Outcome, text: str) -> None:
        run = self._run
        try:
            if run is not None and run.results is not None and run.results.alive:
                self.vertebra("")
                self._review.settle()
            elif self._earlier is not None and self._earlier.alive:
                self._earlier.views.show_outlines(True)
                self._review.show(self._earlier)
        finally:  # the button comes back when the best finding is chosen, not before
            self._page.show(**IDLE)
        if outcome == "finished" and run is not None:
            text = texts.done(run.review)
        self._page.say(text, KINDS[outcome])
        self._idle()

    def _make_folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="run-", dir=self._folder))


def _remove(replaced: ReviewSession) -> None:
    """Take results out of the scene in whose place others are; those of any other run stay."""
    if replaced.alive:
        removeResults(replaced.results.node)


class ReviewPage:
    """A ``ReviewView`` of the page's state, which every tab shows."""

    def __init__(self, page: PageState, windows: SliceViews) -> None:
        self._page, self._windows = page, windows
        self._close = False
        self._opened = 0
        self._reviews: dict[int, ReviewSession] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        page.show(threshold=0.5, levels_found=[], analysed=[], put_back=False)
        self.controller = ReviewController(self, entered=True)
        self.controller.clear()

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """Return what the page may ask for, by name."""
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
            "togglePicture": review.toggle_picture,
        }

    def of_number(self, opened: int) -> ReviewSession | None:
        """Return the review that the page showed under this number, None if it is not there now."""
        review = self._reviews.get(opened)
        return review if review is not None and review.alive else None

    def draw_review(self, shown: bool) -> None:
        self._close = self._close and shown
        # The page keeps the rows that it drew: not beyond a time when the list was away.
        self._opened += shown
        if shown and self.controller.session is not None:
            alive = {n: review for n, review in self._reviews.items() if review.alive}
            self._reviews = {**alive, self._opened: self.controller.session}
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

    def draw_results(self, names: Mapping[str, str], chosen: str) -> None:
        offered = [{"id": identity, "name": name} for identity, name in names.items()]
        self._page.show(results=offered, results_chosen=chosen)

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

    def draw_outdated(self, levels: Sequence[str], again: Sequence[str]) -> None:
        self._page.show(outdated=list(levels), again=list(again))

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
            return [], texts.no_evidence(item)
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
