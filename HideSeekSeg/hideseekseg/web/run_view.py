"""A run in the page: the button, the bar, and vertebrae that appear one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..events import Progress, Started
from ..scene.import_data import removeResults
from ..scene.views import showBackground
from ..ui import texts
from ..ui.review_controller import Kind, ReviewController
from ..ui.review_session import ReviewSession
from ..ui.segmentation_run import Choices, Outcome, SegmentationRun
from .asyncio_process import AsyncioProcess
from .page_state import PageState
from .patient import Patient

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
        self.forget()
        self._run, self._idle = run, idle
        self._page.show(running=True, stopping=False, fraction=0.0, progress=texts.STARTING)
        if run.merged:
            return
        self._earlier = self._review.session
        self._review.clear()
        if self._earlier is not None and self._earlier.alive:
            self._earlier.views.show_outlines(False)
        showBackground(patient.ct)

    def cancel(self) -> None:
        """Stop the run; what is finished stays.  A second time: at once."""
        if self._run is not None and self._run.running:
            self._run.cancel()
            self._page.show(stopping=True, progress=texts.STOPPING)

    def forget(self) -> None:
        """End a run and remove its files; what was removed cannot be put back any more."""
        if self._run is not None:
            self._run.abandon()
        self._run = self._earlier = None
        self._review.forget_removed()
        self._page.show(**IDLE)

    def put_back(self) -> None:
        """Exchange the review for the one that this run replaced."""
        newer = self._review.session
        self._review.put_back()
        now = self._review.session
        if now is not None and now is not newer:
            if newer is not None:
                self._review.keep_removed(newer.review, newer.results)
            removeResults(keep=now.results.node)

    # What the run tells.

    def started(self, event: Started) -> None:
        self._page.say("")
        self._page.show(device=f"{event.device} ({event.reason}) · weights “{event.weights}”")

    def progress(self, event: Progress) -> None:
        self._page.show(fraction=round(event.fraction, 3), progress=texts.progress(event))

    def vertebra(self, level: str) -> None:
        run = self._run
        if run is None or run.results is None:
            return
        if self._review.session is None:
            removeResults(keep=run.results.node)
            earlier, self._earlier = self._earlier, None
            if earlier is not None:
                self._review.keep_removed(earlier.review, earlier.results)
            self._review.show(ReviewSession(run.review, run.results))
        else:
            self._review.renew()
            self._review.begin()

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
