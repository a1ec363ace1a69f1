"""One patient, one run and one review at a time, and everything that the page can ask for."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, NoVoxelsError, SceneError, UserError
from ..ui import level_choices, texts
from ..ui.review_session import latest
from . import patient as loading
from .page_state import PageState
from .patient import Patient
from .review_view import ReviewPage
from .run_view import RunSettings, RunView
from .slice_views import SliceViews
from .slicer_scene import save_all
from .uploads import ROLES, Uploads

SCENE_SUFFIX = ".mrb"
REPLACED = "A new run replaces this review and its verdicts: save them first, or press again."


@dataclass(frozen=True)
class Start:
    """What the session opens with: two files, a saved scene (``ct`` alone), or the example."""

    ct: Path | None = None
    vertebrae: Path | None = None
    labels: str = "names"
    out: Path = Path("hideseekseg-results")


class Session:
    """The page's other half; ``private`` is a folder that goes with the session."""

    def __init__(
        self, server: Any, slicer_app: Any, start: Start, settings: RunSettings, uploads: Uploads
    ) -> None:
        self._start, self._uploads = start, uploads
        self.patient = Patient()
        self.saved: dict[str, Path] = {}
        self._warned = False
        self.page = PageState(server, self.do)
        self.windows = SliceViews(server, slicer_app, lambda places: self.page.show(places=places))
        reviewing = ReviewPage(self.page, self.windows)
        self.review = reviewing.controller
        self.running = RunView(self.page, self.review, settings, uploads.folder.parent)
        self.task: asyncio.Task[None] | None = None
        self._drawing: asyncio.Task[None] | None = None
        self.page.show(
            busy="",
            loading=False,
            upload_error="",
            folder=str(start.out),
            reviewer="",
            saved=[],
            places={},
            convention=start.labels,
            limit_mb=uploads.limit // 2**20,
        )
        self._show_patient()
        running = self.running
        self._actions: dict[str, Callable[..., Any]] = {
            "example": self.load_example,
            "load": self.load,
            "level": self.correct,
            "convention": self.read_by,
            "segment": self.segment,
            "cancel": running.cancel,
            **reviewing.actions,
            "putBack": running.put_back,
            "fit": self.windows.fit,
            "save": self.save,
            "hush": lambda: self.page.say(""),
        }

    async def do(self, name: str, *values: Any) -> None:
        """Carry out what was pressed in the page; what cannot be done is said in one line."""
        action = self._actions.get(name)
        if action is None:
            return
        if name != "segment":
            self._warned = False
        try:
            done = action(*values)
            if inspect.isawaitable(done):
                await done
        except (NoVoxelsError, SceneError) as error:
            self.page.say(f"{error}", "error")
        except UserError as error:
            self.page.say(f"{texts.told(error)}.", "error")
        except Exception as error:  # a bug: the reader is told, and the page goes on
            traceback.print_exc()
            self.page.say(f"{name} failed: {type(error).__name__}: {error}", "error")

    async def begin(self) -> None:
        """Load what the command line named, or the example."""
        start = self._start
        if start.ct is None:
            await self.do("example")
        else:
            await self.do("load", str(start.ct), str(start.vertebrae or ""), start.labels)

    def close(self) -> None:
        """End what is running; the private folder is its owner's to remove."""
        self.running.forget()

    # Loading.

    async def load_example(self) -> None:
        await self._load("Drawing the example…", loading.load_example, "names")

    async def load(self, ct: str = "", vertebrae: str = "", labels: str = "names") -> None:
        """Paths on this computer; an empty one means what was uploaded for it."""
        if ct.strip().lower().endswith(SCENE_SUFFIX):
            await self._load_scene(Path(ct.strip()).expanduser())
            return
        uploaded = self._uploads.files
        sources = [
            Path(text.strip()).expanduser() if text.strip() else uploaded.get(role)
            for text, role in ((ct, "ct"), (vertebrae, "vertebrae"))
        ]
        first = sources[0] or uploaded.get("dicom")
        if first is None or sources[1] is None:
            raise InputError("", "choose a CT and a segmentation of its vertebrae")
        second = sources[1]
        try:
            await self._load("Reading…", lambda: loading.load_files(first, second), labels)
        finally:  # what was read is in the scene now, what is broken is no use
            for role in ROLES:
                self._uploads.forget(role)

    async def _load(self, text: str, read: Callable[[], Any], labels: str) -> None:
        if self.running.on:
            raise InputError("", "a run is going on: cancel it first")
        self.page.say("")
        self.page.show(busy=text, loading=True)
        await asyncio.sleep(0)
        try:
            self.patient = await read()
        except InputError as error:
            raise InputError(self._named(error.path), error.cause) from error
        finally:
            self.page.show(busy="", loading=False)
        self.running.forget()
        self.review.clear()
        self.windows.show(self.patient.ct)
        self.page.say("\n".join(self.patient.notes), "warning")
        self.patient.read_by(labels)
        self.page.show(convention=labels, saved=[])
        self._show_patient()
        self._centre()
        self._draw_surfaces()

    async def _load_scene(self, path: Path) -> None:
        async def read() -> Patient:
            await loading.load_scene(path)
            self.patient = Patient()
            work = latest(lambda text: self.page.say(text, "error"))
            if work is None or work.results.ctNode is None:
                self._show_patient()
                raise InputError(path, "holds no review of HideSeekSeg")
            return loading.resumed(work.results.ctNode, work.results.segmentationNode)

        await self._load("Opening the scene…", read, "names")
        work = latest(lambda text: self.page.say(text, "error"), self.patient.ct)
        if work is not None:
            self.review.show(work)

    def _named(self, path: str) -> str:
        """Return the file's name alone where it lies in the private folder."""
        inside = path.startswith(str(self._uploads.folder))
        return Path(path).name if inside else path

    # The levels.

    def correct(self, identity: str, choice: str, kind: str) -> None:
        if not self.running.on and choice in level_choices.CHOICES:
            self.patient.correct(identity, choice, kind)
            self._show_patient()
            self._draw_surfaces()

    def read_by(self, convention: str) -> None:
        if not self.running.on:
            self.patient.read_by(convention)
            self.page.show(convention=convention)
            self._show_patient()
            self._draw_surfaces()

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
        """One vertebra at a time, so that the page stays awake."""

        async def draw() -> None:
            for _ in self.patient.surfaces():
                await asyncio.sleep(0.01)
            bounds = self.patient.bounds()
            if bounds is not None and self.review.session is None:
                self.windows.look_around(bounds)

        if self._drawing is not None:
            self._drawing.cancel()
        self._drawing = asyncio.get_running_loop().create_task(draw())

    # The run, and what is taken along.

    async def segment(self) -> None:
        if self.running.on:
            return
        found = self.patient.problems()
        if found:
            raise InputError("", " ".join(found))
        work = self.review.session
        if work is not None and work.review.can_undo and not self._warned:
            self._warned = True
            self.page.say(REPLACED, "warning")
            return
        self.page.show(running=True, fraction=0.0, progress="Preparing…", saved=[])
        await asyncio.sleep(0.05)  # the page shows that, before the files are written
        try:
            self.running.start(self.patient, self._show_patient)
        except UserError:
            self.page.show(running=False)
            raise

    async def save(self, folder: str, reviewer: str) -> None:
        """Write to a folder on this computer; the page gets a link to each file."""
        work = self.review.session
        if work is None or not work.alive:
            raise InputError("", "there is nothing to save yet: segment metastases first")
        if not folder.strip():
            raise InputError("", "choose a folder to save to")
        self.review.flush()
        place = Path(folder.strip()).expanduser().resolve()
        self.page.show(busy="Saving…", folder=folder.strip(), reviewer=reviewer.strip())
        await asyncio.sleep(0)
        try:
            files = save_all(work, place, reviewer.strip())
        finally:
            self.page.show(busy="")
        self.saved = {file.name: file for file in files}
        self.review.say_exported(place, files)
        self.page.show(saved=[{"name": name, "url": f"saved/{name}"} for name in self.saved])
