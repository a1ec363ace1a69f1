"""Reviews on disk while they are at work, so that none is lost: not by kill -9, nor a power cut.

A folder per review holds where its scan came from, each vertebra as the run left it, what the
reader said, and the outlines that were drawn.  It goes once the review is saved, or discarded.
The browser app opens its scan again; Slicer offers it where its scan is chosen (``Recovery``).
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UserError
from ..files import atomic, locked, read_object
from ..findings import Evidence, VertebraFinding
from ..imaging.volume import NO_VOXELS, Grid, Patch, StoredGrid, case_name, triple
from ..output.result_folder import read_vertebra, write_vertebra
from ..plain_data import as_type, from_plain
from ..review.review import Review
from ..scene.export_inputs import worldGrid
from ..scene.import_data import hashOf
from ..scene.results import Results
from ..scene.review_storage import as_text
from ..scene.same_bodies import isOfRun
from ..unpacking import read_arrays
from .review_controller import ReviewController
from .review_session import ReviewSession, sessions
from .texts import _, told

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


def restored(kept: Kept, ct: Any, vertebrae: Any, results: Results | None = None) -> ReviewSession:
    """Return a review that was kept, in ``results`` or, without any, in new ones of this CT.

    Raises SceneError where it cannot be put into the scene.
    """
    again = results or Results.create(ct, vertebrae, kept.facts, kept.grid)
    for finding, evidence in kept.vertebrae:
        again.addVertebra(finding, evidence)
    if results is None and vertebrae is not None and not _are_of_run(again, vertebrae, ct):
        again.disown()  # else its segments would be taken for those of the run
    results = again
    results.apply(kept.review)
    known = {item.id for item in kept.review.items}
    drawn = known & kept.outlines.keys()  # adding a lesion can be undone once it is drawn
    for identity in sorted(drawn):
        results.draw(identity, kept.outlines[identity])
    results.noteCorrected(drawn)
    return ReviewSession(kept.review, results)


def _are_of_run(results: Results, vertebrae: Any, ct: Any) -> bool:
    """Return whether vertebrae lie where the run had them, as far as that can be told."""
    try:
        return isOfRun(results, vertebrae, worldGrid(ct))
    except InputError:  # as under a transform that bends the CT
        return True


def matching(kept: Kept, ct: Any) -> ReviewSession | None:
    """Return the scene's review of the results of a CT that were kept, None where it has none.

    Raises InputError where the copy alone does not have all of them: it was taken of a scene.
    """
    again = {finding.level for finding, _evidence in kept.vertebrae}
    whole = {item.level for item in kept.review.items if not item.missed} <= again
    found = _same(kept.review, ct, set() if whole else again)
    if found is None and not whole:
        cause = _("this review is of a saved scene: open that scene, then restore it")
        raise InputError("", cause)
    return found


class Recovery:
    """Keeps the reviews of Slicer's scene on disk, and offers those that a crash left.

    Each review has a copy, brought up to date when the scene is, and removed at a clean end: then
    it is in the scene, or was given up.  ``draw`` shows a line for each review of the CT that is
    offered, the latest first, and the number of the chosen one; ``ask`` asks before something is
    lost.
    """

    def __init__(
        self,
        review: ReviewController,
        draw: Callable[[Sequence[str], int], None],
        ask: Callable[[str], bool],
    ) -> None:
        self._review, self._draw, self._ask = review, draw, ask
        self._copies: list[tuple[Any, Autosave]] = []  # by the node of the results
        self._first: list[tuple[Any, str]] = []  # reviews that a scene brought, as they were
        self._recovered: set[Path] = set()  # copies of a crash that were opened again
        self._offers: list[Unfinished] = []
        self._chosen: Path | None = None
        self._scan: tuple[Any, Any] = (None, None)
        review.flushed = self.keep

    def keep(self, work: ReviewSession | None = None) -> None:
        """Write what has changed in a review, else in the one that is open.

        Says why where it cannot, as long as that is so.
        """
        work = work or self._review.session
        if work is None or not work.alive:
            return
        text = as_text(work.review)
        try:
            copy = self._copy(work, text)
            if copy is not None:
                copy.keep(work, ScanSource(slicer=True), text, saved=False)
            self._review.say_kept()
        except (UserError, OSError) as error:
            self._review.say_kept(error)

    def look(self, ct: Any, vertebrae: Any) -> None:
        """Offer the reviews of a CT that a crash left; the latest is chosen, or the same again."""
        self._scan, self._offers = (ct, vertebrae), []
        for one in unfinished() if ct is not None and ct.GetImageData() is not None else ():
            known = one.sha256 and one.sha256 == hashOf(ct)
            if known and not self._scene_has(one, ct):
                self._offers.append(one)
        if self._offered is None:
            self._chosen = self._offers[0].folder if self._offers else None
        self._draw_offers()

    def choose(self, number: int) -> None:
        """Choose one of the reviews that are offered, by its place in the list."""
        if 0 <= number < len(self._offers):
            self._chosen = self._offers[number].folder
            self._draw_offers()

    @property
    def _offered(self) -> Unfinished | None:
        """The review that is chosen of those offered."""
        return next((one for one in self._offers if one.folder == self._chosen), None)

    def _draw_offers(self) -> None:
        offered = self._offered
        number = self._offers.index(offered) if offered is not None else -1
        self._draw(told_apart(self._offers), number)

    def restore(self) -> None:
        """Open the review that is offered, with its verdicts, comments, outlines and threshold."""
        offered, (ct, vertebrae) = self._offered, self._scan
        if offered is None:
            return
        self._review.commit_comment()
        self._review.flush()  # the scene then says whether it has verdicts of its own
        try:
            kept = read(offered.folder)
            open_ = matching(kept, ct)
            if open_ is not None and open_.review.has_work:
                text = _("Restoring replaces the verdicts of the same results in the scene: {old}.")
                if self._is_recovered(open_.results.node):
                    text += _(" They stay offered.")
                if not self._ask(text.format(old=open_.review.summary())):
                    return
            session = restored(kept, ct, vertebrae, open_.results if open_ is not None else None)
            self._end(session.results.node)
            self._copies.append((session.results.node, Autosave(offered.folder)))
            self._recovered.add(offered.folder)
        except UserError as error:
            self._review.say(f"{told(error)}.", "error")
            return
        self._review.show(session)
        self._review.say(_("Restored: {summary}.").format(summary=kept.review.summary()))
        self.look(ct, vertebrae)

    def discard(self) -> None:
        """Remove the review that is offered, after asking."""
        offered = self._offered
        if offered is None:
            return
        line = told_apart(self._offers)[self._offers.index(offered)]
        if not self._ask(_("Discard this review for good? {review}").format(review=line)):
            return
        try:
            discard(offered.folder)
        except UserError as error:
            self._review.say(f"{told(error)}.", "error")
        self.look(*self._scan)

    def end(self) -> None:
        """Remove all copies: the scene or the window is closed, and nothing crashed."""
        for _node, copy in self._copies:
            copy.close(remove=True)
        self._copies, self._first = [], []

    def _end(self, node: Any = None) -> None:
        """Remove the copy of these results, and of those that are not in a scene any more.

        Where another copy takes the place of one that a crash left, both are there again.
        """
        for pair in [*self._copies]:
            if pair[0] is node or pair[0].GetScene() is None:
                pair[1].close(remove=pair[0] is not node or not self._is_recovered(node))
                self._copies.remove(pair)
        self._first = [pair for pair in self._first if pair[0].GetScene() is not None]

    def _is_recovered(self, node: Any) -> bool:
        """Return whether the copy of these results is one that a crash left."""
        return any(known is node and copy.folder in self._recovered for known, copy in self._copies)

    def _scene_has(self, one: Unfinished, ct: Any) -> bool:
        """Return whether the scene that was saved has all of a review, which then goes.

        A review of the scene that has a copy of its own is not known to be saved.
        """
        there = _same(one.review, ct)
        if there is None or as_text(there.review) != as_text(one.review):
            return False
        if any(node is there.results.node for node, _copy in self._copies):
            return False
        with suppress(UserError):  # another Slicer has it
            discard(one.folder)
        return True

    def _copy(self, work: ReviewSession, text: str) -> Autosave | None:
        """Return the copy of a review; None while a scene that was loaded has all of it."""
        node = work.results.node
        for known, copy in self._copies:
            if known is node:
                return copy
        first = next((one for known, one in self._first if known is node), None)
        if first is None and not work.results.findings:
            self._first.append((node, text))
        if not work.results.findings and first in (None, text):
            return None
        copy = Autosave()
        self._end()  # results that others take the place of
        self._copies.append((node, copy))
        return copy


def _same(review: Review, ct: Any, but: Collection[str] = ()) -> ReviewSession | None:
    """Return the scene's review of the same results of a CT, ``but`` for some levels, or None."""

    def found(one: Review) -> set[tuple[str, float | None]]:
        lesions = {(x.id, x.score) for x in one.items if not x.missed and x.level not in but}
        return lesions | {(x, v.p_malignant) for x, v in one.vertebrae.items() if x not in but}

    there = reversed(sessions(lambda text: None, ct))
    return next((work for work in there if found(work.review) == found(review)), None)


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
