"""Reviews on disk while they are at work, so that none is lost: not by kill -9, nor a power cut.

A folder per review holds where its scan came from, each vertebra as the run left it, what the
reader said, and the outlines that were drawn.  It goes once the review is saved, or discarded.
The browser app opens its scan again; Slicer offers it where its scan is chosen (``recovery``).
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic, locked, read_object
from ..findings import Evidence, VertebraFinding
from ..imaging.volume import NO_VOXELS, Grid, Patch, StoredGrid, case_name, triple
from ..output.result_folder import read_vertebra, write_vertebra
from ..plain_data import as_type, from_plain
from ..review.review import Review
from ..unpacking import read_arrays
from .review_session import ReviewSession
from .texts import _

ABOUT, REVIEW, INPUTS, VERTEBRAE, OUTLINES = "about.json", "review.json", "in", "run", "drawn"
NEVER = -1  # time of an outline that is to be written


@dataclass(frozen=True)
class ScanSource:
    """Where a patient came from.

    ``ct`` is a file, a DICOM folder (with its ``series``) or a scene (``vertebrae`` is empty then);
    both are empty for the example.  Of a scan that was open in ``slicer``, only Slicer knows where
    it came from.
    """

    ct: str = ""
    vertebrae: str = ""
    series: str = ""
    corrections: dict[str, str] = field(default_factory=dict)
    slicer: bool = False


@dataclass(frozen=True)
class Unfinished:
    """A review that a session left behind, of the scan of this ``name``; last written ``at``.

    ``sha256`` is that of its scan's voxels and place (``scan_identity``), empty where nobody knows;
    ``slicer`` as of ``ScanSource``.
    """

    folder: Path
    name: str
    at: datetime.datetime
    review: Review
    sha256: str
    slicer: bool

    @property
    def text(self) -> str:
        """Say in one line which it is."""
        return f"{self.name}, {self.at:%Y-%m-%d %H:%M}: {self.review.summary()}"


@dataclass(frozen=True)
class Kept:
    """What is needed to take a review up again; ``vertebrae`` is empty for a scene.

    ``grid`` is where the CT's voxels lay in the world (LPS) at the run; earlier versions did not
    keep it.
    """

    source: ScanSource
    scan: Mapping[str, str]
    facts: Mapping[str, Any]
    review: Review
    vertebrae: tuple[tuple[VertebraFinding, Evidence | None], ...]
    outlines: Mapping[str, Patch]
    grid: Grid | None = None


def place() -> Path:
    """Return the folder of reviews at work, that only this user may read."""
    if sys.platform == "win32":
        usual = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        folder = ".local/state" if sys.platform != "darwin" else "Library/Application Support"
        usual = Path.home() / folder
    return Path(os.environ.get("XDG_STATE_HOME") or usual) / "hideseekseg" / "reviews"


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
        scan, slicer = about.get("scan") or {}, bool(about["source"].get("slicer"))
        known = str(scan.get("sha256") or "")
        found.append(Unfinished(folder, case_name(scan), at, kept, known, slicer))
    return sorted(found, key=lambda one: one.at, reverse=True)


def told_apart(found: Sequence[Unfinished]) -> list[str]:
    """Return a line for each of these, the latest first: of several of a scan, which is newer."""
    scans = [one.sha256 or one.name for one in found]
    lines = []
    for n, (one, scan) in enumerate(zip(found, scans)):
        number, before = scans.count(scan), scans[:n].count(scan)
        if number == 1:
            lines.append(one.text)
            continue
        rank = _("{n} of {number}").format(n=before + 1, number=number)
        rank += _(", the newest") if not before else ""
        rank += _(", the oldest") if before + 1 == number else ""
        lines.append(f"{one.name}, {one.at:%Y-%m-%d %H:%M:%S} ({rank}): {one.review.summary()}")
    return lines


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
        place = about.get("place")
        grid = None if place is None else from_plain(StoredGrid, place).grid()
        return Kept(source, scan, facts, review, _vertebrae(folder), outlines, grid)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(folder, f"is a damaged review: {error}") from error


class Autosave:
    """The copy on disk of the review at work, from its first vertebra on."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin a folder of its own, or go on in one that was ``read``; raises InputError."""
        self.folder = folder or place() / secrets.token_hex(8)
        self._held = ExitStack()
        self._times: dict[str, int] | None = {} if folder is None else None
        self._done: dict[str, VertebraFinding] = {}
        self._scan: dict[str, str] = {}
        self._kept: tuple[str, bool, ScanSource | None] = ("", False, None)
        self._take_folder(folder is not None)
        self._drawn = self._kept_outlines()

    def _kept_outlines(self) -> set[str]:
        return {file.stem for file in (self.folder / OUTLINES).glob("*.npz")}

    def _take_folder(self, known: bool) -> None:
        parent = self.folder.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=known)
        except OSError as error:
            raise InputError(parent, f"cannot be written: {error.strerror or error}") from error
        try:
            self._held.enter_context(locked(self.folder))
        except InputError:
            with suppress(OSError):  # one that was just made: else it would pass for a copy
                self.folder.rmdir()
            raise

    def holds(self, text: str) -> bool:
        """Return whether the reader need save nothing: a copy that stays has this review."""
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
        if not work.alive:
            return
        if not self.folder.exists() or (self._kept[0] and not (self.folder / ABOUT).exists()):
            self._begin_again(work)
        if (text, saved, source) == self._kept:
            return
        for level in self._done.keys() - work.review.vertebrae.keys():
            for file in (self.folder / VERTEBRAE).glob(f"*-{level}.npz"):
                file.unlink()
            del self._done[level]
        for level, finding in work.results.findings.items():
            if self._done.get(level) is not finding:
                self._keep_vertebra(work, level, finding)
        self._keep_outlines(work)
        self._scan = self._scan or work.scan  # that of version 0.1 is hashed, which takes time
        facts = work.results.run
        about = {"source": vars(source), "facts": facts, "scan": self._scan, "saved": saved}
        grid = work.results.grid
        about["place"] = {"shape": grid.shape, "ijk_to_lps": grid.ijk_to_lps.tolist()}
        _write(self.folder / REVIEW, text)
        _write(self.folder / ABOUT, json.dumps(about, default=dict))
        self._kept = (text, saved, source)

    def _begin_again(self, work: ReviewSession) -> None:
        """Keep all of the review anew, as somebody has removed its folder, or what is in it.

        What was uploaded to it is lost, no verdict and no outline.
        """
        times = work.results.outlineTimes() if self._times is None else self._times
        self._times = {**times, **dict.fromkeys(self._drawn & times.keys(), NEVER)}
        self._done, self._kept = {}, ("", False, None)
        self._held.close()
        self._take_folder(True)

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
        """Keep outlines that differ from those of the run: drawn, corrected, or erased."""
        now = work.results.outlineTimes()
        if self._times is None:  # taken up again: all of them are what they were
            self._times = now
        missed = {item.id for item in work.review.items if item.missed}
        before, drawn = self._times, missed | {*work.results.putBack}
        edited = {x for x, t in now.items() if before.get(x) != t and (x in before or x in drawn)}
        if edited:
            (self.folder / OUTLINES).mkdir(exist_ok=True)
        self._drawn |= edited
        patches = work.results.patches(edited) if edited else {}
        empty = edited - patches.keys()
        patches |= dict.fromkeys(empty - missed, NO_VOXELS)
        for identity in (before.keys() - now.keys()) | (empty & missed):
            (self.folder / OUTLINES / f"{identity}.npz").unlink(missing_ok=True)
        for identity, patch in patches.items():
            with atomic(self.folder / OUTLINES / f"{identity}.npz") as part, part.open("wb") as f:
                np.savez_compressed(f, voxels=patch.array, start=np.array(patch.start, np.int64))
        self._times = now  # only now: what could not be written is written the next time


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
