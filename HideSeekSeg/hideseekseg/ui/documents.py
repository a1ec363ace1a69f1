"""Report and DICOM SEG of the review at work, for every window: asked for, written, told.

A copy of the review is written as a folder of results, a vertebra at a time so that the window
stays awake, and a child process makes the document of it.  The copy is removed at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, UserError
from ..events import Event, Progress
from ..files import release_folder
from ..findings import VertebraFinding
from ..output.result_folder import EACH, write_vertebra
from ..scene.import_data import dicomFilesOf
from . import texts
from .review_controller import ReviewController
from .review_session import ReviewSession
from .texts import _

DocumentKind = Literal["report", "seg"]
MakeJob = Callable[..., Any]
PAUSE_SECONDS = 0.01  # between two vertebrae, in which the window draws


@dataclass(frozen=True)
class Document:
    """What is to be written: ``files`` are one DICOM SEG, or an HTML or PDF report, or both.

    ``dicom`` are the CT's own files, or its folder, where the window knows better than the scene.
    """

    kind: DocumentKind
    files: tuple[Path, ...]
    reviewer: str = ""
    dicom: tuple[Path, ...] = ()
    series: str = ""


class ReviewDocuments:
    """Write one document at a time; ``write`` while one is written stops that one.

    ``makeJob(words, onEvent, onEnd)`` makes the child process, ``makeFolder`` an empty folder that
    ``files.release_folder`` removes.  ``written`` is told of the files; everything else is said by
    the review's own view.
    """

    def __init__(
        self,
        review: ReviewController,
        makeJob: MakeJob,
        makeFolder: Callable[[], Path],
        written: Callable[[Sequence[Path]], None] = lambda files: None,
    ) -> None:
        self._review, self._makeJob, self._makeFolder = review, makeJob, makeFolder
        self._written = written
        self._folder: Path | None = None
        self._document: Document | None = None
        self._job: Any = None
        self._tenth = 0  # of the report, as it was said last
        self._cancelStep: Callable[[], None] = lambda: None

    @property
    def writing(self) -> bool:
        """Return whether a document is being written."""
        return self._document is not None

    def write(self, document: Document) -> None:
        """Begin to write a document; what cannot be written is said in one line."""
        if self.writing:
            self.cancel()
            self._review.say(_("Stopped: nothing was written."), "warning")
            return
        session = self._review.session
        if session is None or not session.alive:
            self._review.say(_("There is nothing to report yet."), "warning")
            return
        try:
            self._begin(session, document)
        except (UserError, OSError) as error:
            self.cancel()
            self._review.say(_("Nothing was written: {error}.").format(error=error), "error")

    def cancel(self) -> None:
        """Stop at once, without a word: whole files or none are left."""
        self._cancelStep()
        self._cancelStep = lambda: None
        job, self._job = self._job, None
        if job is not None:
            job.kill()
        self._end()

    def _begin(self, session: ReviewSession, document: Document) -> None:
        accepted = [x for x in session.review.items if x.verdict == "accepted"]
        if document.kind == "seg" and not accepted:
            raise InputError(
                "", _("a DICOM SEG contains the accepted findings, and none is accepted")
            )
        if document.kind == "seg" and not document.dicom:
            found = tuple(dicomFilesOf(session.results.ctNode))
            document = replace(document, dicom=found)
        if document.kind == "seg" and not document.dicom:
            raise InputError("", texts.NO_DICOM)
        self._document, self._folder, self._tenth = document, self._makeFolder(), 0
        copy = self._folder / "review"
        self._review.take_over_outlines()
        session.export(copy, document.reviewer)
        (copy / EACH).mkdir()
        # Of the evidence only a report shows something.
        levels = [*session.review.vertebrae] if document.kind == "report" else []
        self._review.say(texts.writing(document.kind))
        self._step(session, copy, levels)

    def _step(self, session: ReviewSession, copy: Path, levels: list[str]) -> None:
        """Write the evidence of one vertebra, then the next, then start the process."""
        self._cancelStep = lambda: None
        try:
            if not session.alive:
                raise InputError("", _("the results were removed from the scene"))
            if levels:
                level = levels[0]
                evidence = session.results.evidence(level)
                if evidence is not None:
                    # What was found of it stands in the review's own files.
                    finding = VertebraFinding(level, session.review.vertebrae[level].status)
                    write_vertebra(copy / EACH / f"{level}.npz", finding, evidence, session.scan)
                following = partial(self._step, session, copy, levels[1:])
                self._cancelStep = self._review.call_later(PAUSE_SECONDS, following)
                return
            self._job = self._makeJob(self._words(copy), self._hear, self._ended)
            self._job.start()
        except (UserError, OSError) as error:
            self._job = None
            self.cancel()
            self._review.say(_("Nothing was written: {error}.").format(error=error), "error")

    def _words(self, copy: Path) -> list[str]:
        document = self._document
        assert document is not None and self._folder is not None
        if document.kind == "report":
            html = [file for file in document.files if file.suffix.lower() != ".pdf"]
            pdf = [file for file in document.files if file.suffix.lower() == ".pdf"]
            out = str((html or [self._folder / "report.html"])[0])
            words = ["report", str(copy), "--out", out, "--json-lines"]
            return words + (["--pdf", str(pdf[0])] if pdf else [])
        ct = one_place(document.dicom, self._folder / "ct")
        words = ["export", str(copy), "--ct", str(ct), "--dicom-seg", str(document.files[0])]
        return words + (["--series", document.series] if document.series else [])

    def _hear(self, event: Event) -> None:
        """Say how far the report is, in steps that can be read."""
        if self._document is None or not isinstance(event, Progress):
            return
        tenth = int(10 * event.fraction)
        if tenth > self._tenth:
            self._tenth = tenth
            self._review.say(texts.writing(self._document.kind, tenth / 10))

    def _ended(self, code: int, crashed: bool, last: str) -> None:
        document, copy = self._document, str((self._folder or Path()) / "review")
        self._job = None
        self._end()
        if document is None:
            return
        if code == 0 and all(file.is_file() for file in document.files):
            self._review.say(texts.wrote([str(file) for file in document.files]))
            self._written(document.files)
            return
        line = next((x for x in reversed(last.splitlines()) if x.strip()), "")
        line = line.removeprefix("hideseekseg: ").replace(copy, _("the review"))
        cause = line or _("the process ended with status {code}").format(code=code)
        self._review.say(_("Nothing was written: {error}.").format(error=cause), "error")

    def _end(self) -> None:
        folder, self._folder, self._document = self._folder, None, None
        if folder is not None:
            release_folder(folder)


def one_place(files: Sequence[Path], folder: Path) -> Path:
    """Return what names a series for ``read_ct``: its folder, or one of files that lie together.

    Files from several folders are linked, or copied, into ``folder``.
    """
    if len(files) == 1 or len({file.parent for file in files}) == 1:
        return files[0]
    folder.mkdir()
    for n, file in enumerate(files):
        place = folder / f"{n:05d}.dcm"
        try:
            place.symlink_to(file)
        except OSError:  # Windows lets few users make links
            shutil.copy(file, place)
    return folder
