"""Reviews on disk while they are at work, so that none is lost: not by kill -9, nor a power cut.

A folder per review holds where its scan came from, each vertebra as the run left it, what the
reader said, and the outlines that he drew.  It goes once the review is saved, or discarded.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic, locked, read_arrays, read_object
from ..findings import Evidence, VertebraFinding
from ..imaging.volume import Patch, case_name, triple
from ..output.result_folder import read_vertebra, write_vertebra
from ..plain_data import as_type, from_plain
from ..review.review import Review
from .review_session import ReviewSession

ABOUT, REVIEW, INPUTS, VERTEBRAE, OUTLINES = "about.json", "review.json", "in", "run", "drawn"


@dataclass(frozen=True)
class ScanSource:
    """Where a patient came from.

    ``ct`` is a file, a DICOM folder (with its ``series``) or a scene (``vertebrae`` is empty then);
    both are empty for the example.
    """

    ct: str = ""
    vertebrae: str = ""
    series: str = ""
    corrections: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unfinished:
    """A review that a session left behind; ``text`` says in one line which it is."""

    folder: Path
    text: str


@dataclass(frozen=True)
class Kept:
    """What is needed to take a review up again; ``vertebrae`` is empty for a scene."""

    source: ScanSource
    scan: Mapping[str, str]
    facts: Mapping[str, Any]
    review: Review
    vertebrae: tuple[tuple[VertebraFinding, Evidence | None], ...]
    outlines: Mapping[str, Patch]


def place() -> Path:
    """Return the folder of reviews at work, that only this user may read."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        usual = ".local/state" if sys.platform != "darwin" else "Library/Application Support"
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / usual)
    return base / "hideseekseg" / "reviews"


def unfinished() -> list[Unfinished]:
    """Return the reviews that ended without being saved, the latest first; saved ones go."""
    found = []
    for folder in sorted(place().glob("*/")):
        try:
            with locked(folder):
                about = read_object(folder / ABOUT)
                if about["saved"]:
                    shutil.rmtree(folder, ignore_errors=True)
                    continue
                kept = Review.from_json(read_object(folder / REVIEW))
        except (InputError, OSError, KeyError, TypeError, ValueError):
            continue  # somebody is at work on it, or nothing is in it yet
        at = datetime.datetime.fromtimestamp((folder / REVIEW).stat().st_mtime)
        name = case_name(about.get("scan", {}))
        text = f"{name}, {at:%Y-%m-%d %H:%M}: {kept.summary()}"
        found.append((at, Unfinished(folder, text)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=True)]


def discard(folder: Path) -> None:
    """Remove a review that nobody is at work on; raises InputError where somebody is."""
    with locked(folder):
        shutil.rmtree(folder, ignore_errors=True)


def read(folder: Path) -> Kept:
    """Read what ``Autosave`` wrote; raises InputError where it is damaged."""
    try:
        about = read_object(folder / ABOUT)
        review = Review.from_json(read_object(folder / REVIEW))
        source = from_plain(ScanSource, about["source"])
        outlines = read_outlines(folder)
        scan = as_type(dict[str, str], about["scan"])
        facts = as_type(dict[str, Any], about["facts"])
        return Kept(source, scan, facts, review, _vertebrae(folder), outlines)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(folder, f"is a damaged review: {error}") from error


class Autosave:
    """The copy on disk of the review at work, from its first vertebra on."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin a folder of its own, or go on in one that was ``read``; raises InputError."""
        parent = place()
        self.folder = folder or parent / secrets.token_hex(8)
        self._held = ExitStack()
        self._times: dict[str, int] | None = {} if folder is None else None
        self._done: dict[str, VertebraFinding] = {}
        self._kept = ("", False)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=folder is not None)
        except OSError as error:
            raise InputError(parent, f"cannot be written: {error.strerror or error}") from error
        self._held.enter_context(locked(self.folder))

    def holds(self, text: str) -> bool:
        """Whether the reader need save nothing: a copy in his own folder has this review."""
        return False

    def adopt(self, path: Path) -> Path:
        """Move an uploaded file or folder here, as nobody else has it; return where it is."""
        inside = self.folder / INPUTS
        inside.mkdir(exist_ok=True)
        return Path(shutil.move(path, inside / path.name))

    def keep(self, work: ReviewSession, source: ScanSource, text: str, saved: bool) -> None:
        """Write what has changed since the last time; nothing where nothing has.

        ``text`` is the review as JSON; ``saved`` tells that the reader has saved it as it is.
        Raises InputError where it cannot be written.
        """
        if (text, saved) == self._kept or not work.alive:
            return
        for level in self._done.keys() - work.results.findings.keys():
            for file in (self.folder / VERTEBRAE).glob(f"*-{level}.npz"):
                file.unlink()
            del self._done[level]
        for level, finding in work.results.findings.items():
            if self._done.get(level) is not finding:
                self._keep_vertebra(work, level, finding)
        self._keep_outlines(work)
        run = work.results.run
        about = {"source": vars(source), "facts": run, "scan": run.get("scan", {}), "saved": saved}
        _write(self.folder / REVIEW, text)
        _write(self.folder / ABOUT, json.dumps(about, default=dict))
        self._kept = (text, saved)

    def close(self, remove: bool) -> None:
        """End it; what nobody needs any more is removed."""
        self._held.close()
        if remove:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _keep_vertebra(self, work: ReviewSession, level: str, finding: VertebraFinding) -> None:
        (self.folder / VERTEBRAE).mkdir(exist_ok=True)
        file = self.folder / VERTEBRAE / f"{len(self._done):03d}-{level}.npz"
        for older in (self.folder / VERTEBRAE).glob(f"*-{level}.npz"):
            file = older
        write_vertebra(file, finding, work.results.evidence(level))
        self._done[level] = finding

    def _keep_outlines(self, work: ReviewSession) -> None:
        """Keep outlines that differ from those of the run: drawn, or corrected."""
        now = work.results.outlineTimes()
        if self._times is None:  # taken up again: all of them are what they were
            self._times = now
        missed = {item.id for item in work.review.items if item.missed}
        before = self._times
        edited = {x for x, t in now.items() if before.get(x) != t and (x in before or x in missed)}
        self._times = now
        if edited:
            (self.folder / OUTLINES).mkdir(exist_ok=True)
        for identity, patch in (work.results.patches(edited) if edited else {}).items():
            with atomic(self.folder / OUTLINES / f"{identity}.npz") as part, part.open("wb") as f:
                np.savez_compressed(f, voxels=patch.array, start=np.array(patch.start, np.int64))


def read_outlines(folder: Path) -> dict[str, Patch]:
    """Return the outlines that a reader drew, by the lesions' ids; raises InputError."""
    try:
        return {p.stem: _read_patch(p) for p in (folder / OUTLINES).glob("*.npz")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(folder, f"is a damaged review: {error}") from error


def _write(path: Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def _vertebrae(folder: Path) -> tuple[tuple[VertebraFinding, Evidence | None], ...]:
    return tuple(read_vertebra(file) for file in sorted((folder / VERTEBRAE).glob("*.npz")))


def _read_patch(path: Path) -> Patch:
    arrays = read_arrays(path)
    return Patch(arrays["voxels"].astype(bool), triple(arrays["start"]))
