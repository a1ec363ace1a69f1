"""Tasks for a cohort's workers that compute nothing.

Every worker imports the file that its task comes from: that of the tests loads torch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from hideseekseg.cohort.case_run import CaseRecord, CaseStatus


@dataclass(frozen=True)
class Numbered:
    """Settings whose worker knows its number."""

    device: str = "cpu"

    def start(self, number: int) -> tuple[int, tuple[int, str, str]]:
        return number, (0, "cpu", "nothing is computed")


@dataclass(frozen=True)
class Meeting:
    """A task that tells its worker's number; "b" lasts until "c", for which "a" makes room."""

    name: str
    place: Path
    folder: Path | None = None
    settings: Numbered = Numbered()

    def with_threads(self, threads: int) -> Meeting:
        return self

    def absolute(self) -> Meeting:
        return self

    def run(self, ready: int) -> CaseRecord:
        (self.place / self.name).touch()
        patience = time.monotonic() + 60
        while self.name != "c" and time.monotonic() < patience:
            if (self.place / ("b" if self.name == "a" else "c")).exists():
                break
            time.sleep(0.01)
        trace = "as of an error that nobody foresaw" if self.name == "a" else ""
        return CaseRecord(self.name, CaseStatus.DONE, str(ready), traceback=trace)

    def lost(self, status: CaseStatus, reason: str, seconds: float) -> CaseRecord:
        return CaseRecord(self.name, status, reason)
