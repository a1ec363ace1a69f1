"""A run without the panel: start it, wait for it, its results in the scene."""

from __future__ import annotations

import time
from typing import Any

import slicer
from slicer.i18n import tr as _

from hideseekseg.events import Progress, Started
from hideseekseg.ui.segmentation_run import Choices, MakeJob, Outcome, Run

from .folders import temporaryFolder
from .qt_process import Job


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
    ct: Any, vertebrae: Any, choices: Choices, seconds: float, makeJob: MakeJob = Job
) -> Run:
    """The finished run; RuntimeError, one line, where it fails or takes longer than ``seconds``.

    Slicer's events are handled meanwhile.
    """
    run, waiting = Run(ct, vertebrae, choices, temporaryFolder), _Waiting()
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
