"""Files that the page has links to: what was saved, and documents that are written for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..imaging.image_file import is_dicom
from ..ui.autosave import ScanSource
from ..ui.child_process import AsyncioProcess
from ..ui.documents import Document, DocumentKind, ReviewDocuments
from ..ui.review_controller import ReviewController
from .page import PageState

# Names of a document's files, the first one says its format.
DOCUMENTS: dict[DocumentKind, tuple[str, ...]] = {
    "report": ("report.html", "report.pdf"),
    "seg": ("lesions.dcm",),
}


class Downloads:
    """``files`` are those that the server hands out, by name; documents are in ``folder``."""

    def __init__(self, page: PageState, review: ReviewController, folder: Path) -> None:
        self._page, self._folder, self._review = page, folder, review
        self.files: dict[str, Path] = {}
        self._made_of: dict[str, Any] = {}  # what was said when each file was made
        self._begun_of: Any = None
        self._documents = ReviewDocuments(review, AsyncioProcess, self._own_folder, self._written)

    def offer(self, files: Iterable[Path]) -> None:
        """Show links to these files in place of all others; to none: where they are outdated."""
        self.files = {file.name: file for file in files}
        self._made_of = dict.fromkeys(self.files, self._said())
        self._show()

    def look(self) -> None:
        """Say which files are of the review no longer as it is now."""
        if any(one["old"] != self._is_old(one["name"]) for one in self._page.get("saved")):
            self._show()

    def write(self, kind: DocumentKind, source: ScanSource) -> None:
        """Write a document of the open review; links to its files follow.

        ``source`` is where the scan came from: a DICOM SEG refers to its slices.
        """
        place = self._folder / "documents"
        place.mkdir(mode=0o700, exist_ok=True)
        dicom = (Path(source.ct),) if kind == "seg" and _is_dicom(source.ct) else ()
        files = tuple(place / name for name in DOCUMENTS[kind])
        for file in files:  # of an earlier document, perhaps of another patient
            self.files.pop(file.name, None)
            if not self._documents.writing:
                file.unlink(missing_ok=True)
        reviewer = str(self._page.get("reviewer") or "")
        self._documents.write(
            Document(kind, files, reviewer, dicom, source.series if dicom else "")
        )
        self._begun_of = self._said()  # a verdict that follows is not in it any more

    def cancel(self) -> None:
        """End a document that is being written."""
        self._documents.cancel()

    def _own_folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="document-", dir=self._folder))

    def _written(self, files: Sequence[Path]) -> None:
        self.files |= {file.name: file for file in files}
        self._made_of |= {file.name: self._begun_of for file in files}
        names = ", ".join(file.name for file in files)
        self._page.say(f"Ready to download: {names}.")  # first: it belongs to the links
        self._show()

    def _show(self) -> None:
        self._page.show(
            saved=[
                {"name": name, "url": f"saved/{name}", "old": self._is_old(name)}
                for name in self.files
            ]
        )

    def _is_old(self, name: str) -> bool:
        return self._made_of.get(name) != self._said()

    def _said(self) -> Any:
        """Return all that files are made of: the same again where a step was taken back."""
        review = self._review.review
        return None if review is None else (review.items, review.threshold)


def _is_dicom(path: str) -> bool:
    """Return whether a CT was read from DICOM: from its folder, or one of its files."""
    place = Path(path) if path else None
    return place is not None and (place.is_dir() or (place.is_file() and is_dicom(place)))
