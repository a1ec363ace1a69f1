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
from ..review.items import Lesion
from ..review.relocation import Relocation
from ..review.review import Review
from ..scene.export_inputs import Inputs, levelRows, worldGrid, writeInputs
from ..scene.import_data import scanOf
from ..scene.results import Results, SceneError
from ..scene.review_storage import store
from ..scene.same_bodies import levelsByPlace
from . import level_choices
from .changed_levels import changes_of, exchange
from .level_choices import LevelChanges
from .review_session import ReviewSession, is_of_scan
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
    the end.  ``earlier`` is a review of the same CT, or of its scan in another node: its verdicts
    and corrected outlines stay with findings of the same type and place, and so do lesions that the
    reader drew, under the levels that their segments have now or, in another segmentation, under
    those that it has at the place of their bodies.  A run of some levels alone (``merged``) goes
    into the earlier results; levels that segments were moved between do so once all of them are
    finished.  It is refused
    (InputError, or a run that fails) where the earlier results are of another CT, other bodies,
    other weights or other slices.  ``notes`` are remarks on the files that the nodes came from.

    What is run, and where it lies in the world, is taken when the run begins: the scene may be
    changed while it goes on.
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
        self._rows = levelRows(segmentationNode, choices.corrections)
        self._grid = worldGrid(ctNode)
        self._scan: dict[str, str] = {}
        self._notes = list(notes)
        before = self._known(earlier)
        self.merged = before is not None and bool(choices.levels)
        self._earlier = before.review if before is not None else None
        self._before = before  # its results have outlines of the reader's
        self._taken: set[str] = set()  # ids there of candidates that were found again
        self._redrawn: list[str] = []  # names of candidates that have outlines of the reader's
        self._drawn: dict[str, Patch | None] = {}  # None: added, and not drawn yet
        self._other = before is not None and before.results.segmentationNode is not segmentationNode
        self._changes = self._changes_since(before)
        self._waiting: dict[str, tuple[VertebraFinding, Evidence | None]] = {}
        if before is not None and self.merged:
            self._check_place(before)
            self.session, self.review, self._earlier = before, before.review, None
        elif before is not None:
            self.review.hold(before.review, self._changes.after, self._moved)
            added = [item.id for item in before.review.items if item.missed]
            outlines = before.results.patches(added) if added else {}
            self._drawn = {identity: outlines.get(identity) for identity in added}
        self.began: Started | None = None
        self._refused = False  # nothing of this run may go into the earlier results
        self.running = False
        self._folder: Path | None = None
        self._done: list[str] = []
        self._began_at = self._done_at = 0.0  # the first word of the child, the last result
        self._job: Any = None
        self._last: Event | None = None
        self._reason = ""

    def _known(self, earlier: ReviewSession | None) -> ReviewSession | None:
        """Return an earlier review if it is of this CT, whose voxels are the same ones.

        Raises InputError where a run of some levels alone has to go into another one.
        """
        if earlier is None:
            return None
        own = earlier.alive and earlier.results.ctNode is self.ctNode
        if not own and self.choices.levels:
            raise InputError("", _("the CT of this review is not the one that is chosen"))
        if not own and not (earlier.alive and is_of_scan(earlier, self.ctNode)):
            return None
        if earlier.results.grid.shape == self._grid.shape:
            return earlier
        if self.choices.levels:
            raise InputError("", _("the CT has other voxels now: segment metastases again"))
        if earlier.review.has_work:
            text = _(
                "The CT has other voxels than at its last run: its review was not taken along."
            )
            self._notes.append(text)
        return None

    def _changes_since(self, before: ReviewSession | None) -> LevelChanges:
        """Return which level each vertebra of an earlier review has now."""
        if before is None:
            return LevelChanges()
        said = changes_of(before, None if self._other else self._rows)
        items = before.review.items
        levels = {one: [x.id for x in items if x.level == one] for one in before.review.levels}
        if not self._other:  # of the others its segments tell, by their ids
            levels = {x: ids for x, ids in levels.items() if before.results.evidence(x) is not None}
        place = (self.segmentationNode, self._rows, self._grid)
        here = levelsByPlace(before.results, levels, *place)
        if self.merged and not self._other:
            self._check_bodies(said, here)
            return said
        now = {**said.now, **here}
        return LevelChanges(now, levels=level_choices.levels_of(self._rows))

    def _check_bodies(self, said: LevelChanges, here: Mapping[str, str]) -> None:
        """Raise InputError where a vertebra has the body of another one, as segments were redrawn.

        ``said`` is what levels were corrected to, ``here`` the level now at the place of each body.
        """
        for was, now in here.items():
            if now in self.choices.levels and now not in (was, said.now.get(was)):
                text = _("{now} has the body now that was {was}: segment metastases again")
                raise InputError("", text.format(now=now, was=was))

    def _check_place(self, before: ReviewSession) -> None:
        """Raise InputError where vertebrae cannot go into an earlier review one by one."""
        now = self._changes.now
        if self._other and any(now.get(level) != level for level in self.choices.levels):
            own = before.results.segmentationNode
            name = own.GetName() if own is not None else before.results.run.get("segmentation")
            text = _("these results are of another segmentation, “{name}”: choose it, or segment")
            text += _(" metastases again")
            raise InputError("", text.format(name=name or _("not in the scene any more")))
        if not Relocation(self._grid, before.results.grid).rigid:
            text = _("the CT was scaled since these results were made: segment metastases again")
            raise InputError("", text)

    def _moved(self, lesion: Lesion) -> Lesion:
        """Return a lesion of the earlier review where the CT lies in this run."""
        assert self._before is not None
        return Relocation(self._before.results.grid, self._grid).lesion(lesion)

    def start(self, makeJob: MakeJob, listener: Listener) -> None:
        """Write the inputs and start the process; raises InputError where that cannot be done."""
        self._listener = listener
        self._folder = self._makeFolder()
        self._scan = {} if self.merged else scanOf(self.ctNode)
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
        self._unknown = [row for row in self._rows if row.kind == "vertebra" and not row.level]
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
            self._refuse_other_weights(event)
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

    def _refuse_other_weights(self, event: Started) -> None:
        """Stop a run into earlier results that were made by other weights or of other slices."""
        if not self.merged or self.results is None:
            return
        made = self.results.run
        hashes = made.get("weights_hash"), event.weights_hash
        slices = made.get("all_slices"), self.choices.allSlices
        if None not in hashes and hashes[0] != hashes[1]:
            text = _("These results were made by the weights {made}, and {chosen} are chosen:")
            names = made.get("weights", ""), event.weights
            made_by, chosen = (f"“{x}” ({str(hash)[:8]})" for x, hash in zip(names, hashes))
            text = text.format(made=made_by, chosen=chosen)
        elif None not in slices and slices[0] != slices[1]:
            central, every = _("the central slices"), _("all slices")
            text = _("These results were made from {made}, and {chosen} are chosen:")
            made_of, chosen = (every if said else central for said in slices)
            text = text.format(made=made_of, chosen=chosen)
        else:
            return
        self._refused = True
        self.cancel(text + _(" choose the same, or segment metastases again."))

    def _keep(self, event: VertebraDone) -> None:
        """Add a finished vertebra to the scene at once, also after Cancel was pressed."""
        if self._refused:
            return
        path = Path(event.file)
        try:
            finding, evidence = read_vertebra(path)
        except InputError as error:
            text = _("{level} was finished but cannot be read: {cause}")
            self._listener.said(text.format(level=event.level, cause=error.cause))
            return
        there = finding
        if self._before is not None:
            relocation = Relocation(self._grid, self._before.results.grid)
            there = relocation.finding(finding)
            if self.merged:
                finding = there
                evidence = relocation.evidence(evidence) if evidence is not None else None
        chain = self._changes.chain(event.level) if self.merged else frozenset()
        if chain:
            self._waiting[event.level] = finding, evidence
            self._exchange(event.level, chain)
            return
        was = self._changes.before(event.level)
        outlines = self._before.corrected([was]) if self._before is not None else {}
        same = self.review.add_vertebra(finding, self._earlier, was, there)
        self._taken |= {*same.values()}
        self._done.append(event.level)
        try:
            results = self.results
            if results is None:
                place = self.ctNode, self.segmentationNode, self.facts(), self._grid
                results = Results.create(*place)
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
        text = _("Levels were corrected, and not taken along: {names}.")
        if self._other:
            text = _("The segmentation is another one, and not taken along: {names}.")
        self._note(text, names)

    def _settled(self) -> dict[str, str]:
        """Return the level now of each earlier vertebra that can be lost and is not to come."""
        now = self._changes.moved
        if self._other and self._earlier is not None:
            now = {level: self._changes.after(level) for level in self._earlier.levels}
        return {before: after for before, after in now.items() if not after or after in self._done}

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
                now = self.review.adopt(self._earlier, identity, level, self._moved)
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
        facts: dict[str, Any] = {
            "ct": self.names[0],
            "segmentation": self.names[1],
            "scan": self._scan,
            "levels": {row.segmentID: level_choices.as_read(row) for row in self._rows},
            "all_slices": self.choices.allSlices,
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
            self.review.hold(self._earlier, self._changes.after, self._moved)
            self._holdOutlines()
        self._note(_("Outlines that you had corrected were kept: {names}."), self._redrawn)
        if self.results is not None and not self.merged:
            for level in left:
                self._add(VertebraFinding(level, Status.NOT_ANALYSED, STOPPED))
            for name, reason in self._left_out() if not left else ():
                self._add(VertebraFinding(name, Status.NOT_ANALYSED, reason))
            if self._earlier is not None:
                self._sayLost(self.review.not_taken(self._earlier, self._settled(), self._taken))
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
        if self._refused:
            return "failed", self._reason
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
