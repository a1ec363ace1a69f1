"""The review: candidates by score, verdicts by single keys, a threshold that follows the hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import qt

from hideseekseg.anatomy.label_conventions import LEVELS
from hideseekseg.findings import LesionType
from hideseekseg.review.review import Filter, Item, Review, Verdict
from hideseekseg.scene import views
from hideseekseg.scene.results import Results
from hideseekseg.ui.review_session import ReviewSession
from hideseekseg.ui.texts import ALL_LEVELS, ALL_TYPES, ALL_VERDICTS, TYPE_NAMES, VERDICTS, quiet

from .candidate_table import CandidateTable

TYPES: tuple[LesionType, ...] = ("lytic", "blastic")
SETTLE_MS = 150  # the scene follows the slider once it rests


class ReviewPanel:
    """Shows one review at a time and carries out what the reader says.

    The table follows every move at once; the scene (visibility, tags, the stored review) follows
    verdicts at once and the slider when it rests, or when ``flush`` is called.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self.work: ReviewSession | None = None
        self._showing = False
        self._followers: list[Callable[[], None]] = []
        self._table = CandidateTable(ui.candidatesTable, self._chosen)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(SETTLE_MS)
        self._timer.connect("timeout()", self.flush)
        ui.typeFilter.addItems([ALL_TYPES, *(TYPE_NAMES[kind] for kind in TYPES)])
        ui.verdictFilter.addItems([ALL_VERDICTS, *(text for text in VERDICTS.values())])
        ui.missedType.addItems([TYPE_NAMES[kind] for kind in TYPES])
        for name in ("levelFilter", "typeFilter", "verdictFilter"):
            getattr(ui, name).connect("currentIndexChanged(int)", self._filtered)
        ui.thresholdSlider.connect("valueChanged(double)", self._slid)
        ui.commentEdit.connect("editingFinished()", self._commented)
        for name, slot in (
            ("acceptButton", lambda: self.judge("accepted")),
            ("rejectButton", lambda: self.judge("rejected")),
            ("previousButton", lambda: self._step(-1)),
            ("nextButton", lambda: self._step(1)),
            ("undoButton", lambda: self._travel(forward=False)),
            ("redoButton", lambda: self._travel(forward=True)),
            ("switchTypeButton", self.switchType),
        ):
            getattr(ui, name).connect("clicked()", slot)
        ui.overlayButton.connect("toggled(bool)", self._overlay)
        self.clear()

    @property
    def review(self) -> Review | None:
        return self.work.review if self.work is not None else None

    @property
    def results(self) -> Results | None:
        return self.work.results if self.work is not None else None

    @property
    def current(self) -> Item | None:
        """The finding whose row is selected."""
        return self._item(self._table.current)

    def show(self, work: ReviewSession) -> None:
        """Show a review from its best candidate on."""
        self.work = work
        self.sync_verdicts_from_scene()
        self.renew()
        self._ui.reviewButton.setVisible(True)
        self.begin()

    def begin(self) -> None:
        """Choose the best candidate where none is chosen."""
        shown = self._table.shown()
        if shown and not self._table.current:
            self._table.select(shown[0])

    def clear(self) -> None:
        """Show nothing: the scene was closed or a new run begins."""
        self._timer.stop()
        self.work = None
        self._table.fill((), ())
        self._ui.reviewButton.setVisible(False)
        self._tell()

    def renew(self) -> None:
        """Vertebrae have come: make rows and filters anew, keep what is selected."""
        if self.review is None:
            return
        self._showing = True
        self._fillLevels()
        self._ui.thresholdSlider.value = self.review.threshold
        self._showing = False
        self._table.fill(self.review.items, self._shown())
        self._tell()

    def select(self, identity: str) -> None:
        """Select a finding by its id."""
        self._table.select(identity)

    def whenChosen(self, follow: Callable[[], None]) -> None:
        """``follow`` is called whenever another finding, or none, is selected."""
        self._followers.append(follow)

    def settle(self) -> None:
        """The run is over: the best candidate is chosen, unless the reader is at work already."""
        shown = self._table.shown()
        if shown and self.review is not None and not self.review.can_undo:
            self._table.select(shown[0])
        self.flush()

    def sync_verdicts_from_scene(self) -> None:
        """Take over verdicts that were given in Slicer's own table of segments."""
        if self.work is not None and self.work.sync_verdicts_from_scene():
            self.renew()
            self.flush()

    def judge(self, verdict: Verdict) -> None:
        """A verdict on the selected finding; on to the next that waits for one."""
        item = self.current
        if self.work is None or item is None:
            return
        following = self.work.judge(item.id, verdict, self._filter())
        self._changed([item.id])
        if following is not None:
            self._table.select(following)

    def switchType(self) -> None:
        """Lytic becomes blastic, blastic lytic."""
        item = self.current
        if self.review is not None and item is not None:
            self.review.switch_type(item.id)
            self._changed([item.id])

    def flush(self) -> None:
        """Bring the scene up to date: visibility, tags and the stored review."""
        self._timer.stop()
        if self.work is not None:
            self.work.flush(self._table.current)

    def _step(self, way: int) -> None:
        if self.work is None:
            return
        there = self.work.step(self._table.current, way, self._filter())
        if there is not None:
            self._table.select(there)

    def _travel(self, forward: bool) -> None:
        """Undo or redo; the finding concerned is selected: the reader sees what happened."""
        if self.review is None:
            return
        ids = self.review.redo() if forward else self.review.undo()
        if ids is None:
            return
        self._showing = True
        self._ui.thresholdSlider.value = self.review.threshold
        self._showing = False
        self._table.fill(self.review.items, self._shown())
        self._changed(ids)
        if len(ids) == 1 and next(iter(ids)) in self._table.shown():
            self._table.select(next(iter(ids)))

    def _changed(self, ids: Iterable[str]) -> None:
        assert self.review is not None
        wanted = set(ids)
        self._table.update(item for item in self.review.items if item.id in wanted)
        self._table.filter(self._shown())
        self._tell()
        self.flush()

    def _slid(self, value: float) -> None:
        if self._showing or self.review is None:
            return
        self.review.set_threshold(value)
        self._table.filter(self._shown())
        self._tell()
        self._timer.start()

    def _filtered(self) -> None:
        if not self._showing:
            self._table.filter(self._shown())
            self._tell()

    def _commented(self) -> None:
        item = self.current
        text = self._ui.commentEdit.text.strip()
        if self.review is not None and item is not None and text != item.comment:
            self.review.comment(item.id, text)
            self._changed([item.id])

    def _chosen(self, identity: str) -> None:
        """A row was selected: all views go there."""
        item = self._item(identity)
        self._tell()
        for follow in self._followers:
            follow()
        if self.work is not None:
            self.work.isolate(identity)
            if item is not None:
                self.work.visit(item)

    def _overlay(self, shown: bool) -> None:
        if self.results is not None and self.results.alive:
            views.showOverlay(self.results.node, shown)

    def _item(self, identity: str) -> Item | None:
        return self.review.item(identity) if self.review is not None and identity else None

    def _filter(self) -> Filter:
        ui = self._ui
        level, kind, verdict = ui.levelFilter, ui.typeFilter, ui.verdictFilter
        return Filter(
            level=level.currentText if level.currentIndex > 0 else "",
            type=TYPES[kind.currentIndex - 1] if kind.currentIndex > 0 else "",
            verdict=list(VERDICTS)[verdict.currentIndex - 1] if verdict.currentIndex > 0 else "",
        )

    def _shown(self) -> list[str]:
        return [i.id for i in self.review.shown(self._filter())] if self.review is not None else []

    def _fillLevels(self) -> None:
        """Levels with candidates in the filter, all analysed levels for a missed lesion."""
        assert self.review is not None
        there = {item.level for item in self.review.items}
        for box, first, levels in (
            (self._ui.levelFilter, [ALL_LEVELS], there),
            (self._ui.missedLevel, [], set(self.review.vertebrae)),
        ):
            before = box.currentText
            entries = first + [level for level in LEVELS if level in levels]
            box.clear()
            box.addItems(entries)
            if before in entries:
                box.setCurrentIndex(entries.index(before))

    def _tell(self) -> None:
        """Everything that is said in words, and which buttons can be pressed."""
        ui, review, item = self._ui, self.review, self.current
        ui.summaryLabel.text = review.summary() if review is not None else ""
        ui.countsLabel.text = review.counts(self._filter()) if review is not None else ""
        ui.detailLabel.text = self.work.details(item) if self.work is not None and item else ""
        ui.commentEdit.text = item.comment if item is not None else ""
        ui.quietLabel.text = quiet(review) if review is not None else ""
        ui.quietLabel.setVisible(bool(ui.quietLabel.text))
        for name in ("acceptButton", "rejectButton", "switchTypeButton", "commentEdit"):
            getattr(ui, name).setEnabled(item is not None)
        rows = bool(self._table.shown())
        ui.nextButton.setEnabled(rows)
        ui.previousButton.setEnabled(rows)
        ui.undoButton.setEnabled(review is not None and review.can_undo)
        ui.redoButton.setEnabled(review is not None and review.can_redo)
        if item is not None and item.level in LEVELS:
            place = ui.missedLevel.findText(item.level)
            ui.missedLevel.setCurrentIndex(max(place, 0))
