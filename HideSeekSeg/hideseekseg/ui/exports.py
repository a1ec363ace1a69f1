"""The accepted findings of the review in a window, exported to a folder that may hold others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..output.result_folder import EXPORTED, held_by_another
from . import texts
from .review_controller import ReviewController
from .texts import _


class ReviewExport:
    """Exports of one window's reviews; what is replaced unasked is what it exported last."""

    def __init__(self, review: ReviewController) -> None:
        self._review = review
        self._last: tuple[Any, bytes] = (None, b"")  # its CT, and the review as it was written

    def replaced(self, folder: Path) -> tuple[str, bool]:
        """Return a question that names what an export replaces; whether that is of another scan.

        The question is empty where that is nothing, or what was exported from here last.
        """
        session, file = self._review.session, folder / EXPORTED[2]
        if session is None:
            return "", False
        why = held_by_another(folder, session.scan)
        if why:
            return _("{folder} {why}. Replace all of it?").format(folder=folder, why=why), True
        ct, written = self._last
        if not file.is_file() or (ct is session.results.ctNode and _read(file) == written):
            return "", False
        text = _("{folder} contains {review} of this scan. Replace it?")
        return text.format(folder=folder, review=texts.earlier(file)), False

    def write(self, folder: Path, reviewer: str, overwrite: bool = False) -> tuple[Path, ...]:
        """Write the accepted findings; return the files, empty (with a message) where none is.

        ``overwrite`` replaces the result of another scan.
        """
        session = self._review.session
        if session is None or not session.alive:
            return ()
        self._review.commit_comment()
        if session.measure():
            self._review.renew()
        self._review.flush()
        try:
            files = session.export(folder, reviewer, overwrite)
        except UserError as error:
            self._review.say(_("Nothing was exported: {error}.").format(error=error), "error")
            return ()
        self.say(folder, files)
        return files

    def say(self, folder: Path, files: Sequence[Path]) -> None:
        """Say what was written where, by ``write`` or by the window itself."""
        session = self._review.session
        assert session is not None
        self._last = (session.results.ctNode, _read(folder / EXPORTED[2]))
        accepted = sum(item.verdict == "accepted" for item in session.review.items)
        names = ", ".join(file.name for file in files)
        self._review.say(texts.exported(accepted, str(folder), names))


def _read(file: Path) -> bytes:
    """Return what a file holds, nothing where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""
