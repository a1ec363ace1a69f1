"""One patient, one run and one review at a time, and everything that the page can ask for."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, NoVoxelsError, SceneError, UserError
from ..imaging.dicom_series import list_series
from ..imaging.segmentation import Segmentation
from ..imaging.volume import Volume, case_name
from ..output.result_folder import folder_name
from ..scene.import_data import removeData, scanOf
from ..ui import autosave, level_choices, recovery, texts
from ..ui.autosave import Autosave
from ..ui.child_process import read_apart
from ..ui.exports import ReviewExport
from ..ui.review_session import ReviewSession, latest, opened, sessions
from .comments import Comments
from .downloads import Downloads
from .kept_reviews import KeptReviews
from .page import PageState, ReviewPage, RunSettings, RunView
from .slice_tools import SliceTools
from .slice_views import SliceViews
from .slicer_scene import Patient, load_example, load_files, load_scene, save_all
from .uploads import ROLES, Uploads
from .work_list import CaseDesk, WorkList

SCENE_SUFFIX = ".mrb"
OUT = Path("hideseekseg-results")
TITLE = "HideSeekSeg"
# What ends a review, and what is asked before its verdicts are lost.
ENDS = {
    "load": "Opening another scan",
    "example": "Opening the example",
    "segment": "A new run",
    "restore": "Restoring another review",
}
# What is said of findings: of those alone that the page shows, and not while another scan is read.
SAYS = ("judge", "switchType", "missed", "travel")
OTHER_CTS = (
    "This scene also has reviews of other CTs ({names}): the app shows the latest one's CT alone,"
    " Slicer's panel all of them."
)
UNSAVED = "{doing} discards the verdicts of this review, which are not saved: {summary}."
CLOSED = "what was open is closed, and what was not saved of it is offered again"
RUN_UNSAVED = (
    "A new run replaces this review, which is not saved: verdicts stay with findings of the same"
    " type and place alone. {summary}."
)


@dataclass(frozen=True)
class Start:
    """What the session opens with: two files, a saved scene (``ct`` alone), or the example.

    ``out`` is the folder that this scan's results are saved to; others get folders in it.  ``read``
    are the two files where they were read already.  ``work`` is a cohort to read instead.
    """

    ct: Path | None = None
    vertebrae: Path | None = None
    labels: str = "names"
    out: Path | None = None
    series: str = ""
    patient_names: bool = False
    read: tuple[Volume, Segmentation] | None = None
    work: WorkList | None = None


class Session:
    """The page's other half; ``private`` is a folder that goes with the session."""

    def __init__(
        self, server: Any, slicer_app: Any, start: Start, settings: RunSettings, uploads: Uploads
    ) -> None:
        self._start, self._uploads = start, uploads
        self.patient = Patient()
        self._pending: Callable[[], Any] | None = None
        self._choose_from = ("", "", "")
        self._opened = self._busy = False
        self.page = PageState(server, self.do)
        self.windows = SliceViews(server, slicer_app, lambda places: self.page.show(places=places))
        reviewing = ReviewPage(self.page, self.windows)
        self.review = reviewing.controller
        self.review.level_rows = lambda node: (
            self.patient.rows() if node is self.patient.vertebrae else None
        )
        tools = SliceTools(self.page, self.windows, self.review)
        self.running = RunView(self.page, self.review, settings, uploads.folder.parent)
        self._exports = ReviewExport(self.review)
        self.downloads = Downloads(self.page, self.review, uploads.folder.parent)
        self.task: asyncio.Task[None] | None = None
        self._drawing: asyncio.Task[None] | None = None
        self.page.show(
            busy="",
            loading=False,
            upload_error="",
            folder="",
            question={"text": "", "yes": ""},
            series=[],
            unsaved=False,
            offers=[],
            scan="",
            reviewer="",
            saved=[],
            places={},
            convention=start.labels,
            limit_mb=uploads.limit // 2**20,
        )
        self._desk = None if start.work is None else CaseDesk(start.work, self.page)
        self._kept = KeptReviews(self.page, self.review, lambda: self.patient, uploads, self._desk)
        self.review.flushed = self._keep
        self._comments = Comments(self.page, reviewing, self._desk, self._keep)
        self._show_patient()
        running = self.running
        self._actions: dict[str, Callable[..., Any]] = {
            "example": self.load_example,
            "load": self.load,
            "level": self.correct,
            "convention": self.read_by,
            "stage": self._unstage,
            "answer": self.answer,
            "series": self.choose_series,
            "restore": self.restore,
            "discard": self.discard,
            "case": self.next_case,
            "openCase": self.open_case,
            "segment": self.segment,
            "again": self.run_again,
            "tool": tools.take,
            "window": self.windows.set_window,
            "crosshair": tools.show_crosshair,
            "slice": self.windows.move_slice,
            "brush": tools.size_brush,
            "missed": tools.add_missed,
            "cancel": running.cancel,
            **reviewing.actions,
            "comment": self._comments.take,
            "putBack": running.put_back,
            "fit": self.windows.fit,
            "save": self.save,
            "report": lambda: self.downloads.write("report", self.patient.source),
            "dicomSeg": lambda: self.downloads.write("seg", self.patient.source),
            "hush": lambda: self.page.say(""),
        }

    async def do(self, name: str, *values: Any, opened: int | None = None) -> None:
        """Carry out what was pressed in the page; what cannot be done is said in one line.

        ``opened`` is the number of the review that the page showed.
        """
        action, shown = self._actions.get(name), self.page.get("opened")
        elsewhere = self.page.get("loading") or opened not in (None, shown)
        if action is None or (name in SAYS and elsewhere):
            return
        ended = self._kept.unsaved() if name in ENDS else []
        if name == "segment":  # other reviews of the scene stay
            ended = [work for work in ended if work is self.review.session]
        if ended:
            summary = "; ".join(work.review.summary() for work in ended)
            text = RUN_UNSAVED if name == "segment" else UNSAVED
            text = text.format(doing=ENDS[name], summary=summary)
            self._ask(text, "Discard and go on", lambda: action(*values))
            return
        await self._carry_out(name, lambda: action(*values))

    async def _carry_out(self, name: str, action: Callable[[], Any]) -> None:
        try:
            done = action()
            if inspect.isawaitable(done):
                await done
        except (NoVoxelsError, SceneError) as error:
            self.page.say(f"{error}", "error")
        except UserError as error:
            self.page.say(f"{texts.told(error)}.", "error")
        except Exception as error:  # a bug: the reader is told, and the page goes on
            traceback.print_exc()
            self.page.say(f"{name} failed: {type(error).__name__}: {error}", "error")

    def _ask(self, text: str, yes: str, action: Callable[[], Any]) -> None:
        """Ask before something is lost; ``action`` is carried out on a yes."""
        self._pending = action
        self.page.show(question={"text": text, "yes": yes})

    async def answer(self, yes: bool) -> None:
        """Carry out what was asked about, or leave it."""
        action, self._pending = self._pending, None
        self.page.show(question={"text": "", "yes": ""}, series=[])
        if yes and action is not None:
            await self._carry_out("answer", action)
        else:
            self._unstage()

    async def begin(self) -> None:
        """Load what the command line named, or the example; offer what an earlier session left."""
        start = self._start
        self._kept.offer()
        if start.work is not None:
            self.page.show(reviewer=start.work.reader)
            await self.do("openCase", start.work.first())
        elif start.ct is None:
            await self.do("example")
        else:
            words = (str(start.ct), str(start.vertebrae or ""), start.labels, start.series)
            await self.do("load", *words)

    # Automatic saving.

    @property
    def unsaved(self) -> bool:
        """Return whether the reader said something that no file of the reader has."""
        return bool(self._kept.unsaved())

    def _keep(self) -> None:
        """Save the reviews automatically, and name files that are no longer of them."""
        self.downloads.look()
        self._kept.keep()

    async def restore(self, name: str) -> None:
        """Take up a review that an earlier session left."""
        folder = self._kept.offered(name)
        kept = autosave.read(folder)
        source = kept.source

        async def read() -> Patient:
            if source.vertebrae:
                ct, vertebrae = Path(source.ct), Path(source.vertebrae)
                adopted = ct.is_relative_to(folder)
                return await load_files(ct, vertebrae, source.series, adopted, kept=kept)
            if source.ct:
                return await load_scene(Path(source.ct), self._complain, kept)
            return await load_example(kept)

        await self._load("Restoring the review…", read, "names")
        self.patient.corrections = dict(source.corrections)
        self._show_patient()
        known = recovery.matching(kept, self.patient.ct)
        results = None if known is None else known.results
        work = recovery.restored(kept, self.patient.ct, self.patient.vertebrae, results)
        self._kept.keep_in(work, Autosave(folder))
        self.review.show(work)
        self._keep()
        self._kept.offer()
        self.page.say(f"Restored: {kept.review.summary()}.")

    def discard(self, name: str) -> None:
        """Remove a review that an earlier session left, once the reader has said so twice."""
        [text] = [x["text"] for x in self.page.get("offers") if x["id"] == name] or [""]
        self._ask(
            f"Discard this review for good? {text}", "Discard", lambda: self._kept.discard(name)
        )

    def close(self) -> None:
        """End what is running; the private folder is its owner's to remove.

        A review that is not saved stays on disk, and is offered at the next start.
        """
        self.downloads.cancel()
        if self.review.session is not None:
            self.review.flush()
        self._kept.end(self._kept.unsaved())
        if self._desk is not None:
            self._desk.close()
        self.running.forget()

    # Loading.

    async def next_case(self, way: int, leaving: str) -> None:
        """Go to the next case (1) or the one before (-1); this one is read if nothing is open.

        ``leaving`` is the case that the page showed; another one, not drawn there yet, stays open.
        """
        desk = self._desk
        if desk is None or not desk.current or desk.current != leaving or way not in (1, -1):
            return
        name = desk.work.neighbour(desk.current, way)
        if name is not None:
            await self.open_case(name, seen=way == 1)
            return
        self._leave_case(seen=way == 1)
        self.page.say("This is the last case." if way == 1 else "This is the first case.")

    async def open_case(self, name: str, seen: bool = False) -> None:
        """Open a case of the work list; ``seen``: the one before was read to its end."""
        desk = self._desk
        if desk is None or self._busy:
            return
        if self.running.on:
            raise InputError("", "a run is going on: cancel it first")
        case = desk.work.case(name)
        self._busy = True
        try:
            left = self._leave_case(seen)
            found: list[Any] = []

            async def read() -> Patient:
                files, findings = await desk.read(name)
                found.append(findings)
                paths = Path(case.ct), Path(case.segmentation)
                return await load_files(*paths, case.series, read=files)

            try:
                await self._load(f"Opening {name}…", read, case.labels or "names")
                desk.current = name
                work, copy, remark = desk.results(self.patient, *found)
            except UserError:
                self._close_patient()
                desk.current = name
                raise
            self._kept.keep_in(work, copy)
            self.page.show(folder=str(desk.work.folder(name) / "saved"))
            self._show_patient()
            self.review.show(work)
            self._comments.show_case(name)
            told = [left, remark, *self.patient.notes]
            self.page.say("\n".join(filter(None, told)), "warning" if any(told) else "info")
        finally:
            self._busy = False
            desk.show()
        desk.look_ahead()

    def _leave_case(self, seen: bool) -> str:
        """Keep what was said of the open case; return a remark on what is left open in it."""
        assert self._desk is not None
        if self.review.session is not None:
            self.review.commit_comment()
            self.review.flush()
        name = self._desk.current
        if name and self.unsaved:
            cause = "cannot be written: your review of this case exists only in this page"
            raise InputError(self._desk.work.folder(name), cause)
        waiting = self._desk.leave(self._kept.shown(), self.review.session, seen)
        noun = "finding waits" if waiting == 1 else "findings wait"
        return f"{name}: {waiting} {noun} for a verdict." if waiting and seen else ""

    def _close_patient(self, stay: Sequence[ReviewSession] = ()) -> None:
        """Show nobody: nothing may be taken for another scan that could not be opened."""
        self.downloads.cancel()
        self.running.forget()
        self.review.clear()
        self._kept.end(but=stay)
        removeData()
        self.windows.clear()
        self.patient = Patient()
        self.downloads.offer(())
        self.page.show(scan="", folder="", unsaved=False, trame__title=TITLE)
        self._show_patient()

    async def load_example(self) -> None:
        await self._load("Drawing the example…", load_example, "names")

    async def load(
        self, ct: str = "", vertebrae: str = "", labels: str = "names", series: str = ""
    ) -> None:
        """Paths on this computer; an empty one means what was uploaded for it.

        Where a folder has several CT series, the page is asked which.  Whatever becomes of it,
        nothing uploaded stays for another scan.
        """
        asked = False
        try:
            if ct.strip().lower().endswith(SCENE_SUFFIX):
                await self._load_scene(Path(ct.strip()).expanduser())
                return
            uploaded = self._uploads.files
            sources = [
                Path(text.strip()).expanduser() if text.strip() else uploaded.get(role)
                for text, role in ((ct, "ct"), (vertebrae, "vertebrae"))
            ]
            first, second = sources[0] or uploaded.get("dicom"), sources[1]
            if first is None or second is None:
                raise InputError("", "choose a CT and a segmentation of its vertebrae")
            read = None if self._opened else self._start.read
            asked = (
                not series and read is None and await self._several(first, (ct, vertebrae, labels))
            )
            if asked:
                return
            ours, names = self._uploads.take(first, second), self._start.patient_names
            await self._load(
                "Reading…",
                lambda: load_files(*ours, series, ours[0] != first, names, read),
                labels,
            )
            self._uploads.drop(keep=ours)
        finally:
            if not asked:
                self._unstage()

    async def _several(self, folder: Path, words: tuple[str, str, str]) -> bool:
        """Show the series of a folder where more than one can be read; return whether it was."""
        if not folder.is_dir():
            return False
        self.page.show(busy="Looking for series…")
        try:
            found = await read_apart(folder, list_series)
        finally:
            self.page.show(busy="")
        if sum(not one.fault for one in found) < 2:
            return False
        self._choose_from = words
        self.page.show(
            series=[
                {
                    "uid": one.uid,
                    "number": one.number,
                    "description": one.description or "no description",
                    "slices": one.slices,
                    "spacing": " x ".join(f"{mm:.3g}" for mm in one.spacing),
                    "fault": one.fault,
                }
                for one in found
            ]
        )
        return True

    async def choose_series(self, uid: str) -> None:
        """Open the series that was chosen from the list."""
        if uid in [one["uid"] for one in self.page.get("series")]:
            self.page.show(series=[])
            await self.load(*self._choose_from, uid)

    def _unstage(self) -> None:
        """Forget what was uploaded: another choice begins, or this one has ended."""
        for role in ROLES:
            self._uploads.forget(role)

    async def _load(self, text: str, read: Callable[[], Any], labels: str) -> None:
        if self.running.on:
            raise InputError("", "a run is going on: cancel it first")
        self.page.say("")
        self._comments.while_loading = []
        self.page.show(busy=text, loading=True)
        await asyncio.sleep(0)
        unsaved = self._kept.unsaved()
        try:
            self.patient = await read()
        except Exception as error:
            closed = self._close_if_replaced(unsaved)
            if isinstance(error, InputError):
                cause = f"{error.cause}; {CLOSED}" if closed else error.cause
                raise InputError(self._named(error.path), cause) from error
            raise
        finally:
            self.page.show(busy="", loading=False)
        self.downloads.cancel()
        self.running.forget()
        self.review.clear()
        self.windows.show(self.patient.ct)
        self.page.say("\n".join(self.patient.notes), "warning")
        self.patient.read_by(labels)
        late = self._comments.while_loading
        self._kept.end(but=late)
        if late:
            self._kept.offer()  # nobody was asked whether these words may go
        if self._desk is not None:
            self._desk.current = ""
            self._desk.show()
        self.downloads.offer(())
        scan = scanOf(self.patient.ct)
        out = self._start.out
        if self._opened or out is None:
            out = (out or OUT) / folder_name(scan)
        self._opened = True
        title = f"{case_name(scan)} - {TITLE}"
        self.page.show(convention=labels, unsaved=False, trame__title=title)
        self.page.show(folder=str(out), scan=case_name(scan))
        self._show_patient()
        self._centre()
        self._draw_surfaces()

    def _close_if_replaced(self, unsaved: Sequence[ReviewSession]) -> bool:
        """Show nobody where what was open has left the scene; return whether it has.

        What was said of it and not saved is offered again.
        """
        ct = self.patient.ct
        if ct is None or ct.GetScene() is not None:
            return False
        self._close_patient([*unsaved, *self._comments.while_loading])
        self._kept.offer()
        return True

    def _complain(self, text: str) -> None:
        self.page.say(text, "error")

    async def _load_scene(self, path: Path) -> None:
        await self._load("Opening the scene…", lambda: load_scene(path, self._complain), "names")
        work = latest(self._complain, self.patient.ct)
        if work is not None:
            every = sessions(lambda text: None)
            self._kept.take_down(every)
            self.patient.take_over(dict(work.results.run.get("levels") or {}))
            self._show_patient()
            self.review.show(work)
            cts = {x.results.ctNode for x in every} - {work.results.ctNode, None}
            others = sorted(ct.GetName() for ct in cts)
            if others:
                self.page.say(OTHER_CTS.format(names=", ".join(others)), "warning")

    def _named(self, path: str) -> str:
        """Return the file's name alone where it lies in the private folder."""
        inside = path.startswith(str(self._uploads.folder.parent))
        return Path(path).name if inside else path

    # The levels.

    def correct(self, identity: str, choice: str, kind: str) -> None:
        if not self.running.on and choice in level_choices.CHOICES:
            self.patient.correct(identity, choice, kind)
            self._show_patient()
            self.review.check_levels()
            self._draw_surfaces()

    def read_by(self, convention: str) -> None:
        if not self.running.on:
            self.patient.read_by(convention)
            self.page.show(convention=convention)
            self._show_patient()
            self.review.check_levels()
            self._draw_surfaces()

    def _ran(self) -> None:
        """Show what a run that is over has brought up to date."""
        self._show_patient()
        self.review.check_levels()

    def _show_patient(self) -> None:
        rows = self.patient.rows()
        ct, vertebrae = self.patient.names
        self.page.show(
            ct=ct,
            vertebrae=vertebrae,
            problems=self.patient.problems() if self.patient.ct is not None else [],
            levels_line=level_choices.summary(rows),
            levels=[
                {
                    "id": row.segmentID,
                    "name": row.name or row.segmentID,
                    "tip": f"{row.segmentID}, value {row.value}: {row.why}",
                    "choice": level_choices.choice_of(row),
                    "kind": "body" if row.kind == "body" else "vertebra",
                    "known": bool(row.level),
                }
                for row in rows
            ],
        )

    def _centre(self) -> None:
        bounds = self.patient.bounds()
        if bounds is not None:
            self.windows.centre_on(bounds)

    def _draw_surfaces(self) -> None:
        """One vertebra at a time, so that the page stays awake; a run can be near after that."""

        async def draw() -> None:
            for _ in self.patient.surfaces():
                await asyncio.sleep(0.01)
            bounds = self.patient.bounds()
            if bounds is not None and self.review.session is None:
                self.windows.look_around(bounds)
            if self._desk is None and not self.patient.problems():
                self.running.stand_by()

        if self._drawing is not None:
            self._drawing.cancel()
        self._drawing = asyncio.get_running_loop().create_task(draw())

    # The run, and what is taken along.

    async def run_again(self) -> None:
        """Run the vertebrae whose level was changed after the run; the others stay."""
        again = tuple(self.page.get("again"))
        if again and self.review.session is not None:
            await self.segment(again)

    async def segment(self, levels: tuple[str, ...] = ()) -> None:
        """Start a run of all vertebrae, or of some whose results join the review."""
        if self.running.on:
            return
        if self._desk is not None and self._desk.current:
            raise InputError("", "the cases of a cohort are run by `hideseekseg cohort`")
        found = self.patient.problems()
        if found:
            raise InputError("", " ".join(found))
        self.downloads.offer(())
        self.page.show(running=True, fraction=0.0, progress="Preparing…")
        await asyncio.sleep(0.05)  # the page shows that, before the files are written
        try:
            self.running.start(self.patient, self._ran, levels)
        except UserError:
            self.page.show(running=False)
            raise

    async def save(self, folder: str, reviewer: str) -> None:
        """Write to a folder on this computer, once nothing of another scan or reader is lost."""
        work = self.review.session
        if work is None or not work.alive:
            raise InputError("", "there is nothing to save yet: segment metastases first")
        if not folder.strip():
            raise InputError("", "choose a folder to save to")
        place, who = Path(folder.strip()).expanduser().resolve(), reviewer.strip()
        self.page.show(folder=folder.strip(), reviewer=who)
        question, foreign = self._exports.replaced(place)
        if question:
            self._ask(question, "Replace", lambda: self._save(work, place, who, foreign))
        else:
            await self._save(work, place, who, False)

    async def _save(self, work: ReviewSession, place: Path, reviewer: str, over: bool) -> None:
        """Write all files; the page gets a link to each."""
        self.review.flush()
        self.page.show(busy="Saving…")
        await asyncio.sleep(0)
        try:
            files = save_all(work, place, reviewer, over)
        finally:
            self.page.show(busy="")
        self._kept.take_down(opened())  # the scene that was saved has all of them
        self._keep()
        self._exports.say(place, files)
        self.downloads.offer(files)
