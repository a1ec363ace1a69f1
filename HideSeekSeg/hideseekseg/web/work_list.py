"""A cohort's cases in the page, one after the other; what is said of each stays in its folder."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..cohort.readings import (
    CaseFindings,
    Reading,
    ReadStatus,
    WorkList,
    read_findings,
    read_reading,
    write_reading,
)
from ..errors import InputError
from ..files import locked, make_folder
from ..imaging.segmentation import Segmentation
from ..imaging.volume import Volume
from ..scene.import_data import scanOf
from ..scene.results import Results
from ..scene.review_storage import as_text
from ..ui import level_choices
from ..ui.autosave import Autosave, ScanSource, read_outlines
from ..ui.review_session import ReviewSession
from .page import PageState
from .slicer_scene import Patient, read_files

LISTED = 100  # cases before and after the current one that the page lists
INCOMPLETE = (
    "Findings below the threshold have no outlines, and no evidence was kept: run the cohort with"
    " --each for both."
)

Ahead = tuple[tuple[Volume, Segmentation], CaseFindings]


class CaseAutosave(Autosave):
    """What a reader says of a case of a cohort: it stays, in the case's folder.

    The findings are in that folder anyway.  Nothing is written before the reader has said
    something, or has ended the case.
    """

    def __init__(self, folder: Path, begun: bool, reading: Reading) -> None:
        """Take the reader's folder; raises InputError where another window has it.

        ``begun`` says that something is there already.
        """
        self.folder, self._reading, self._begun = folder, reading, begun
        self._held = ExitStack()
        self._times = None
        self._done = {}
        self._kept = ("", False, None)
        self._take_folder(begun)
        self._drawn = self._kept_outlines()

    def _take_folder(self, known: bool) -> None:
        make_folder(self.folder)  # as others of the cohort: colleagues may read it
        self._held.enter_context(locked(self.folder))

    def note_outlines(self, results: Results) -> None:
        """Take the outlines as they are now for those that need not be written."""
        self._times = results.outlineTimes()

    @property
    def begun(self) -> bool:
        """Return whether anything was written."""
        return self._begun

    @property
    def finished(self) -> bool:
        """Return whether the reader has read the case to its end."""
        return self._reading.finished

    def holds(self, text: str) -> bool:
        return self._kept[0] == text

    def keep(self, work: ReviewSession, source: ScanSource, text: str, saved: bool) -> None:
        """Write the review and the outlines that were drawn, where they have changed."""
        if not work.alive:
            return
        if not self.folder.exists():
            self._begin_again(work)
        if text == self._kept[0]:
            return
        if self._begun or work.review.has_work:
            self._begun = True
            self._keep_outlines(work)
            write_reading(self.folder, self._reading, text)
        self._kept = (text, saved, source)

    def finish(self, finished: bool, text: str) -> None:
        """Write that the reader has read the case, or has left something open."""
        if finished != self._reading.finished:
            self._reading = replace(self._reading, finished=finished)
            self._begun = self._begun or finished
            if self._begun:
                write_reading(self.folder, self._reading, text)

    def close(self, remove: bool) -> None:
        """Release the folder; it is removed where the reader said nothing."""
        self._held.close()
        if not self._begun and self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()


class CaseDesk:
    """Which case of a work list is open; the files of the next one are read ahead."""

    def __init__(self, work: WorkList, page: PageState) -> None:
        self.work, self._page = work, page
        self.current = ""
        self._ahead: tuple[str, asyncio.Task[Ahead]] | None = None

    def show(self) -> None:
        """Draw where the reader is; nothing where another scan is open."""
        listed = self.work.around(self.current, LISTED) if self.current else []
        texts = [(c.name, f"{c.name}: {self.work.status(c.name).value}") for c in listed]
        self._page.show(
            cases={
                "current": self.current,
                "text": self.work.text(self.current) if self.current else "",
                "listed": [{"name": name, "text": text} for name, text in texts],
            }
        )

    def leave(self, autosave: Autosave | None, session: ReviewSession | None, seen: bool) -> int:
        """Take down how far the reader came; return how many findings wait for a verdict.

        ``seen``: the case is read to its end where none does.  Raises InputError where that cannot
        be written.
        """
        if not self.current or session is None or not isinstance(autosave, CaseAutosave):
            return 0
        review = session.review
        waiting = sum(x.verdict == "unreviewed" and review.is_finding(x) for x in review.items)
        autosave.finish(not waiting and (seen or autosave.finished), as_text(review))
        self.update(autosave)
        return waiting

    def update(self, autosave: CaseAutosave) -> None:
        """Take over how far the reader is with the current case."""
        status = ReadStatus.BEGUN if autosave.begun else ReadStatus.NEW
        status = ReadStatus.FINISHED if autosave.finished else status
        if self.current and status is not self.work.status(self.current):
            self.work.set_status(self.current, status)
            self.show()

    def comment(self, name: str, text: str, identity: str) -> str:
        """Keep a comment on a finding of a case that was left; return the finding's name.

        Raises InputError where the case has no such finding, another window has the case open, or
        it cannot be written.
        """
        folder = self.work.folder(name)
        found = read_findings(self.work.case(name).folder)
        make_folder(folder)
        with locked(folder):
            kept = read_reading(folder)
            review = found.review(kept)
            if identity not in {item.id for item in review.items}:
                raise InputError("", f"{name} has no such finding any more")
            review.comment(identity, text)
            finished = kept is not None and kept.finished and kept.result == found.digest
            reading = Reading(self.work.reader, found.digest, found.scan, finished, review)
            write_reading(folder, reading, as_text(review))
        if self.work.status(name) is ReadStatus.NEW:
            self.work.set_status(name, ReadStatus.BEGUN)
            self.show()
        return review.item(identity).name

    async def read(self, name: str) -> Ahead:
        """Return the files of a case, that may have been read ahead; raises InputError."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == name:
            return await ahead[1]
        if ahead is not None:
            ahead[1].cancel()
        return await self._read(name)

    def look_ahead(self) -> None:
        """Begin to read the next case."""
        following = self.work.neighbour(self.current, 1)
        self.close()
        if following is not None:
            task = asyncio.get_running_loop().create_task(self._read(following))
            task.add_done_callback(_heard)
            self._ahead = following, task

    def close(self) -> None:
        """Stop reading ahead."""
        if self._ahead is not None:
            self._ahead[1].cancel()
        self._ahead = None

    async def _read(self, name: str) -> Ahead:
        case = self.work.case(name)
        found = await asyncio.to_thread(read_findings, case.folder)
        files = Path(case.ct), Path(case.segmentation)
        return await read_files(*files, case.series), found

    def results(
        self, patient: Patient, found: CaseFindings
    ) -> tuple[ReviewSession, CaseAutosave, str]:
        """Put the findings of the current case into the scene, with what this reader said.

        Return the review, what keeps it, and a remark, empty where there is none.  Raises
        InputError where findings or review are of another scan, or another window has the case.
        """
        case, folder = self.work.case(self.current), self.work.folder(self.current)
        scan = scanOf(patient.ct)
        if scan["sha256"] != found.scan:
            raise InputError(case.ct, "is not the scan any more that was segmented")
        kept = read_reading(folder)
        if kept is not None and kept.scan != found.scan:
            raise InputError(folder, "is the review of another scan: move it elsewhere")
        same = kept is None or kept.result == found.digest
        read = kept is not None and kept.finished and same  # nobody has read the new findings
        review = found.review(kept)
        reading = Reading(self.work.reader, found.digest, found.scan, read, review)
        autosave = CaseAutosave(folder, kept is not None, reading)
        try:
            levels = {row.segmentID: level_choices.as_read(row) for row in patient.rows()}
            results = Results.create(
                patient.ct, patient.vertebrae, {**found.run, "scan": scan, "levels": levels}
            )
            if found.grid is not None and not found.grid.matches(results.grid):
                raise InputError(case.ct, "lies elsewhere than when it was segmented")
            for finding, evidence in found.vertebrae:
                results.addVertebra(finding, evidence)
            results.apply(review)
            drawn = {item.id for item in review.items if item.missed}
            for identity, patch in read_outlines(folder).items():
                if same or identity in drawn:
                    results.draw(identity, patch)
            autosave.note_outlines(results)
        except BaseException:
            autosave.close(False)
            raise
        remark = "" if found.complete else INCOMPLETE
        if not same:
            remark = "The case was run again since: verdicts stay with findings of the same type"
            remark += " and place alone."
        return ReviewSession(review, results), autosave, remark


def _heard(task: asyncio.Task[Ahead]) -> None:
    """Errors of reading ahead are told when the case is opened."""
    if not task.cancelled():
        task.exception()
