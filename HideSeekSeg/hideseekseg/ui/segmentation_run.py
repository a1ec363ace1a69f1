"""One computation: the scene's nodes to files, a process of its own, its results back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..errors import InputError
from ..events import Cancelled, Event, Failed, Finished, Message, Progress, Started, VertebraDone
from ..files import release_folder
from ..findings import STOPPED, Evidence, Status, VertebraFinding
from ..imaging.volume import Patch
from ..model.profile import BUNDLE, read_profile
from ..output.result_folder import read_vertebra
from ..review.review import Review
from ..scene.export_inputs import Inputs, levelRows, writeInputs
from ..scene.import_data import scanOf
from ..scene.results import Results, SceneError
from ..scene.review_storage import store
from . import level_choices
from .changed_levels import changes_of, exchange
from .review_session import ReviewSession
from .texts import _

Outcome = Literal["finished", "cancelled", "failed"]


@dataclass(frozen=True)
class Choices:
    """What the reader chose; ``options`` are more words of ``hideseekseg segment``."""

    device: str = "auto"
    weights: Path | None = None
    threshold: float | None = None
    allSlices: bool = False
    levels: tuple[str, ...] = ()
    corrections: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def words(self, inputs: Inputs, out: Path) -> list[str]:
        """Return the command line; ``--each`` writes each vertebra as soon as it is finished."""
        words = ["segment", str(inputs.ct), str(inputs.segmentation), "--out", str(out)]
        words += self.options
        words += ["--labels", inputs.labels, "--device", self.device, "--json-lines", "--each"]
        words += ["--no-picture"]  # the window's views show more
        words += ["--bodies", str(inputs.bodies)] if inputs.bodies else []
        words += ["--weights", str(self.weights)] if self.weights else []
        words += ["--levels", ",".join(self.levels)] if self.levels else []
        words += ["--threshold", f"{self.threshold:g}"] if self.threshold is not None else []
        return words + (["--all-slices"] if self.allSlices else [])

    def openingThreshold(self) -> float:
        """Return the threshold of a new review: the reader's, else that of the weights.

        Raises WeightsError where the profile of the weights cannot be read.
        """
        if self.threshold is not None:
            return self.threshold
        return read_profile(self.weights or BUNDLE).profile.decision.threshold


class Listener(Protocol):
    """Who is told how a run goes."""

    def started(self, event: Started) -> None: ...
    def progress(self, event: Progress) -> None: ...
    def vertebra(self, level: str) -> None: ...
    def said(self, text: str) -> None: ...
    def ended(self, outcome: Outcome, text: str) -> None: ...


MakeJob = Callable[..., Any]
MakeFolder = Callable[[], Path]


class SegmentationRun:
    """From ``start`` to exactly one ``ended``; what is finished stays whatever ends it.

    Raises WeightsError where the chosen weights cannot be read.

    ``makeFolder`` makes an empty folder, or raises InputError: the child's files live there until
    the end.  ``earlier`` is a review of the same CT: its verdicts and corrected outlines stay with
    findings of the same type and place, and so do lesions that the reader drew, under the levels
    that their segments have now.  A run of some levels alone (``merged``) goes into the earlier
    results; levels that segments were moved between do so once all of them are finished.  ``notes``
    are remarks on the files that the nodes were read from.
    """

    def __init__(
        self,
        ctNode: Any,
        segmentationNode: Any,
        choices: Choices,
        makeFolder: MakeFolder,
        bodiesNode: Any = None,
        earlier: ReviewSession | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.ctNode, self.segmentationNode, self.choices = ctNode, segmentationNode, choices
        self.names = ctNode.GetName(), segmentationNode.GetName()
        self._makeFolder, self._bodiesNode = makeFolder, bodiesNode
        self.session: ReviewSession | None = None
        self.review = Review(choices.openingThreshold())
        known = earlier is not None and earlier.alive and earlier.results.ctNode is ctNode
        self.merged = known and bool(choices.levels)
        self._earlier = earlier.review if known and earlier is not None else None
        self._before = earlier if known else None  # its results have outlines of the reader's
        self._redrawn: list[str] = []  # names of candidates that have them again
        self._drawn: dict[str, Patch | None] = {}  # None: added, and not drawn yet
        self._rows = levelRows(segmentationNode, choices.corrections)
        own = earlier.results.segmentationNode if earlier is not None and known else None
        self._changes = changes_of(earlier, self._rows if own is segmentationNode else None)
        self._waiting: dict[str, tuple[VertebraFinding, Evidence | None]] = {}
        if earlier is not None and self.merged:
            self.session, self.review, self._earlier = earlier, earlier.review, None
        elif earlier is not None and self._earlier is not None:
            self.review.hold(self._earlier, self._changes.after)
            added = [item.id for item in earlier.review.items if item.missed]
            outlines = earlier.results.patches(added) if added else {}
            self._drawn = {identity: outlines.get(identity) for identity in added}
        self.began: Started | None = None
        self.running = False
        self._folder: Path | None = None
        self._done: list[str] = []
        self._began_at = self._done_at = 0.0  # the first word of the child, the last result
        self._job: Any = None
        self._last: Event | None = None
        self._reason = ""
        self._notes = list(notes)

    def start(self, makeJob: MakeJob, listener: Listener) -> None:
        """Write the inputs and start the process; raises InputError where that cannot be done."""
        self._listener = listener
        self._folder = self._makeFolder()
        try:
            inputs = writeInputs(
                self.ctNode,
                self.segmentationNode,
                self.choices.corrections,
                self._folder / "in",
                self._bodiesNode,
            )
        except InputError:
            self.discard()
            raise
        self._inputs = inputs
        self._unknown = [
            row
            for row in levelRows(self.segmentationNode, self.choices.corrections)
            if row.kind == "vertebra" and not row.level
        ]
        self.running = True
        words = self.choices.words(inputs, self._folder / "out")
        self._job = makeJob(words, self._heard, self._ended)
        try:
            self._job.start()
        except InputError:
            self.running = False
            self.discard()
            raise

    def missing(self) -> tuple[str, str]:
        """Names of the CT and of the segmentation where they are no longer in the scene."""
        gone = [node.GetScene() is None for node in (self.ctNode, self.segmentationNode)]
        return self.names[0] if gone[0] else "", self.names[1] if gone[1] else ""

    def cancel(self, reason: str = "") -> None:
        """End the process and its children; ``reason`` is said when it has ended."""
        if self.running:
            self._reason = reason or self._reason
            self._job.cancel()

    def abandon(self) -> None:
        """End the process without any further call-back: the scene is closed."""
        if self.running:
            self.running = False
            self._job.kill()
        self.discard()

    def discard(self) -> None:
        """Remove the files of this run; all that is needed later is in the scene."""
        if self._folder is not None:
            release_folder(self._folder)
        self._folder = None

    def _heard(self, event: Event) -> None:
        """Handle an event of the child; those after the end are ignored."""
        if not self.running:
            return
        if isinstance(event, Started):
            self.began = event
            self._began_at = time.monotonic()
            self._listener.started(event)
        elif isinstance(event, Progress):
            self._listener.progress(event)
        elif isinstance(event, VertebraDone):
            self._keep(event)
        elif isinstance(event, Message):
            self._notes.append(event.text)
            self._listener.said(event.text)
        elif isinstance(event, (Finished, Cancelled, Failed)):
            self._last = event

    def _keep(self, event: VertebraDone) -> None:
        """Add a finished vertebra to the scene at once, also after Cancel was pressed."""
        path = Path(event.file)
        try:
            finding, evidence = read_vertebra(path)
        except InputError as error:
            text = _("{level} was finished but cannot be read: {cause}")
            self._listener.said(text.format(level=event.level, cause=error.cause))
            return
        chain = self._changes.chain(event.level) if self.merged else frozenset()
        if chain:
            self._waiting[event.level] = finding, evidence
            self._exchange(event.level, chain)
            return
        was = self._changes.before(event.level)
        outlines = self._before.corrected([was]) if self._before is not None else {}
        same = self.review.add_vertebra(finding, self._earlier, was)
        self._done.append(event.level)
        try:
            results = self.results
            if results is None:
                results = Results.create(self.ctNode, self.segmentationNode, self.facts())
                self.session = ReviewSession(self.review, results)
                self._adoptDrawn(results)
            results.addVertebra(finding, evidence)
            if self.session is not None:
                self._redrawn += self.session.redraw(outlines, same)
            self._store(results)
        except SceneError as error:
            self.cancel(str(error))
            return
        self._done_at = time.monotonic()
        self._listener.vertebra(event.level)

    def _exchange(self, level: str, chain: frozenset[str]) -> None:
        """Bring a chain of levels up to date once all of them are finished, see LevelChanges."""
        together = self._changes.together(level)
        if self.session is None or not self._waiting.keys() >= {*together}:
            return
        vertebrae = [self._waiting.pop(one) for one in together]
        try:
            done = exchange(self.session, self._changes, chain, vertebrae, self._rows)
            self._done += together
            self._redrawn += done.redrawn
            self._sayLost(done.lost)
            self._store(self.session.results)
        except SceneError as error:
            self.cancel(str(error))
            return
        self._done_at = time.monotonic()
        self._listener.vertebra(level)

    def _sayLost(self, names: Sequence[str]) -> None:
        """Say what of the reader's could not follow its segment to another level."""
        self._note(_("Levels were corrected, and not taken along: {names}."), names)

    def _holdOutlines(self) -> None:
        """Keep the corrected outlines of vertebrae of which the review holds what was said."""
        if self.session is not None and self._before is not None:
            earlier = [self._changes.before(level) for level in self.review.held]
            self.session.held_outlines = self._before.corrected(earlier)

    def _note(self, text: str, names: Sequence[str]) -> None:
        """Say something of findings, and keep it among the remarks on the run."""
        results = self.results
        if not names or results is None or not results.alive:
            return
        text = text.format(names=", ".join(names))
        results.tell(notes=[*results.run.get("notes", []), text])
        self._listener.said(text)

    def _store(self, results: Results) -> None:
        """Bring the scene up to date, which may be saved now, or show other results."""
        results.apply(self.review)  # also the verdicts of an earlier review
        store(results.node, self.review)

    def _adoptDrawn(self, results: Results) -> None:
        """Take over the lesions that the reader added to the earlier results."""
        if self._earlier is None:
            return
        for identity, patch in self._drawn.items():
            level = self._changes.after(self._earlier.item(identity).level)
            if level:
                now = self.review.adopt(self._earlier, identity, level)
                results.addDrawn(self.review.item(now), patch)

    @property
    def results(self) -> Results | None:
        """What the run adds to, None before its first vertebra."""
        return self.session.results if self.session is not None else None

    @property
    def done(self) -> Sequence[str]:
        """Levels that are finished."""
        return self._done

    def pace(self) -> tuple[Started, float] | None:
        """Mean seconds per vertebra, from when the inputs were checked to the last result.

        None of chosen vertebrae: the patient's others take time as well.
        """
        if self.began is None or not self._done or self.choices.levels:
            return None
        return self.began, (self._done_at - self._began_at) / len(self._done)

    def facts(self) -> dict[str, Any]:
        """Return what is needed to repeat the run, for its results."""
        rows = levelRows(self.segmentationNode, self.choices.corrections)
        facts: dict[str, Any] = {
            "ct": self.names[0],
            "segmentation": self.names[1],
            "scan": scanOf(self.ctNode),
            "levels": {row.segmentID: level_choices.as_read(row) for row in rows},
            "notes": list(self._notes),
        }
        if self.began is not None:
            facts |= {
                "weights": self.began.weights,
                "weights_hash": self.began.weights_hash,
                "device": self.began.device,
                "mapping": list(self.began.mapping),
            }
        return facts

    def _ended(self, code: int, crashed: bool, tail: str) -> None:
        """Handle the end of the process."""
        if not self.running:
            return
        self.running = False
        left = [level for level in self._levels() if level not in self._done]
        if self._earlier is not None:
            # The reader may have gone on in it meanwhile.
            self.review.hold(self._earlier, self._changes.after)
            self._holdOutlines()
        self._note(_("Outlines that you had corrected were kept: {names}."), self._redrawn)
        if self.results is not None and not self.merged:
            for level in left:
                self._add(VertebraFinding(level, Status.NOT_ANALYSED, STOPPED))
            for name, reason in self._left_out() if not left else ():
                self._add(VertebraFinding(name, Status.NOT_ANALYSED, reason))
            if self._earlier is not None:
                moved = self._changes.moved.items()
                ended = {old: new for old, new in moved if not new or new in self._done}
                self._sayLost(self.review.not_taken(self._earlier, ended))
            if self.results.alive:
                self._store(self.results)
        self.discard()
        self._listener.ended(*self._outcome(code, crashed, tail))

    def _left_out(self) -> Sequence[tuple[str, str]]:
        """Return levels without a label and labels without a level, with the reason."""
        if self.began is not None and self.began.not_analysed is not None:
            return self.began.not_analysed
        why = _("level not known: {why}")
        return [(row.name or row.segmentID, why.format(why=row.why)) for row in self._unknown]

    def _add(self, finding: VertebraFinding) -> None:
        self.review.add_vertebra(finding)

    def _levels(self) -> tuple[str, ...]:
        return self.began.levels if self.began is not None else ()

    def _outcome(self, code: int, crashed: bool, tail: str) -> tuple[Outcome, str]:
        kept = _("No vertebra was finished.")
        if self._done:
            kept = _("Kept: {levels}.").format(levels=", ".join(self._done))
        if self._waiting:
            alone = _("Not kept without the other levels that were corrected: {levels}.")
            kept = f"{kept} {alone.format(levels=', '.join(self._waiting))}"
        if isinstance(self._last, Finished):
            return ("failed", kept) if self._waiting else ("finished", "")
        if isinstance(self._last, Cancelled) or self._reason or self._job.cancelled:
            return "cancelled", f"{self._reason or _('Stopped.')} {kept}"
        if isinstance(self._last, Failed):
            return "failed", f"{self._named(self._last)} {kept if self._done else ''}".strip()
        how = _("The computation crashed.")
        if not crashed:
            how = _("The computation ended with status {code}.").format(code=code)
        lines = " " + _("Its last lines:") + f"\n{tail}" if tail else ""
        return "failed", f"{how} {kept}{lines}"

    def _named(self, failed: Failed) -> str:
        """Name the scene's nodes instead of temporary files."""
        names = {str(self._inputs.ct): self.names[0], str(self._inputs.segmentation): self.names[1]}
        if self._inputs.bodies is not None:
            names[str(self._inputs.bodies)] = self._bodiesNode.GetName()
        where = names.get(failed.file, failed.file)
        cause = failed.cause[:1].upper() + failed.cause[1:] if not where else failed.cause
        return f"{where}: {cause}." if where else f"{cause}."
