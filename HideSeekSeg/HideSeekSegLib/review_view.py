"""The review in the panel: draws what ``ui.review_controller`` says, forwards what is pressed.

Keyboard shortcuts are installed only while the module is open, so that no other module loses a
key; each belongs to a button, and the button shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ctk
import qt
from slicer.i18n import tr as _

from hideseekseg.findings import LESION_TYPES
from hideseekseg.review.burden import Burden
from hideseekseg.review.review import REASONS, Filter, Item, VertebraState
from hideseekseg.ui.review_controller import ReviewController
from hideseekseg.ui.review_view import Kind, Picture, ReviewTexts
from hideseekseg.ui.texts import (
    ALL_LEVELS,
    ALL_TYPES,
    ALL_VERDICTS,
    BURDEN_COLUMNS,
    ORDER_OF_COLUMN,
    REASON_NAMES,
    TYPE_NAMES,
    VERDICTS,
    VERTEBRA_COLUMNS,
    burden_cells,
    outdated,
    shown,
    vertebra_cells,
)
from hideseekseg.ui.texts import KEYS as ACTION_KEYS
from hideseekseg.ui.texts import ONCE as ACTIONS_ONCE

from .review_actions import FaintVertebrae
from .status_bar import StatusBar
from .tables import CandidateTable, PlainTable

# The widget that the key of an action works.
WIDGETS = {
    action: f"{action}Edit" if action == "comment" else f"{action}Button" for action in ACTION_KEYS
}
KEYS = {WIDGETS[action]: key for action, key in ACTION_KEYS.items()}
ONCE = {WIDGETS[action] for action in ACTIONS_ONCE if action in WIDGETS}


class Shortcuts:
    """The keys of one panel; ``ui`` holds its widgets by name."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._shortcuts: list[Any] = []
        for name, key in KEYS.items():
            widget = getattr(ui, name)
            if name != "commentEdit":
                widget.text = f"{widget.text} [{shown(key)}]"
            widget.toolTip = f"{widget.toolTip} ({_('key')} {key})"

    @property
    def installed(self) -> bool:
        return bool(self._shortcuts)

    def install(self, window: Any) -> None:
        """Make the keys act in the whole window: the reader looks at the views."""
        self.remove()
        if window is None:  # as in Slicer without a main window
            return
        for name, key in KEYS.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.autoRepeat = name not in ONCE
            shortcut.connect("activated()", self._action(name))
            self._shortcuts.append(shortcut)

    def remove(self) -> None:
        """Release the keys: they are any module's again."""
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.disconnect("activated()")
            # It keeps its parent: this may be called by the key itself, as by that of a missed
            # lesion, and PythonQt deletes at once what has neither a parent nor a reference.
            shortcut.deleteLater()
        self._shortcuts = []

    def _action(self, name: str) -> Any:
        widget = getattr(self._ui, name)

        def press() -> None:
            if name == "commentEdit":
                widget.setFocus()
            else:
                widget.click()

        return press


class OneClick(qt.QObject):
    """Takes the second click of a double click from buttons: it would judge the next finding.

    Qt takes a double click for two clicks of a button; the next finding comes between them, and
    nobody has looked at it so soon.
    """

    def eventFilter(self, watched: Any, event: Any) -> bool:
        return bool(event.type() == qt.QEvent.MouseButtonDblClick)


OF_CHOSEN = (
    *("acceptButton", "uncertainButton", "rejectButton", "reasonButton"),
    *("switchTypeButton", "commentEdit", "healthyButton", "differenceButton"),
)
# Buttons that wrap in a narrow panel, by the widget that holds them.
WRAPPED = {
    "verdictArea": ("acceptButton", "uncertainButton", "rejectButton"),
    "stepArea": (
        *("previousButton", "nextButton", "previousVertebraButton", "nextVertebraButton"),
        *("undoButton", "redoButton", "switchTypeButton", "overlayButton"),
        *("healthyButton", "differenceButton"),
    ),
    "missedArea": ("missedButton", "missedLevel", "missedType"),
    "exportArea": (
        *("exportButton", "reportButton", "dicomSegButton", "acceptedButton", "reviewerEdit"),
    ),
}


class ReviewPanel:
    """A ``ReviewView`` of the panel's widgets."""

    def __init__(self, ui: Any, messages: StatusBar) -> None:
        self._ui, self._messages = ui, messages
        self._drawing = False
        self._level = ""
        self._results: list[str] = []  # IDs of those that are offered
        self._outdated = ""  # what was said of levels last
        self._table = CandidateTable(ui.candidatesTable, lambda x: self.controller.choose(x))
        ui.typeFilter.addItems([ALL_TYPES, *(TYPE_NAMES[kind] for kind in LESION_TYPES)])
        ui.verdictFilter.addItems([ALL_VERDICTS, *VERDICTS.values()])
        ui.missedType.addItems([TYPE_NAMES[kind] for kind in LESION_TYPES])
        self._vertebrae = PlainTable(ui.vertebraeTable, VERTEBRA_COLUMNS, self._vertebra)
        self._burden = PlainTable(ui.burdenTable, BURDEN_COLUMNS)
        for area, names in WRAPPED.items():
            _wrap(getattr(ui, area), [getattr(ui, name) for name in names])
        self._oneClick = OneClick(ui.reviewButton)
        for name in sorted(ONCE):
            getattr(ui, name).installEventFilter(self._oneClick)
        self.context = FaintVertebrae(ui.reviewButton)
        self.controller = ReviewController(self)
        self._connect()
        self.controller.clear()

    def _connect(self) -> None:
        ui, review = self._ui, self.controller
        for name, slot in (
            ("acceptButton", lambda: review.judge("accepted")),
            ("uncertainButton", lambda: review.judge("uncertain")),
            ("rejectButton", lambda: review.judge("rejected")),
            ("previousVertebraButton", lambda: review.step_vertebra(-1)),
            ("nextVertebraButton", lambda: review.step_vertebra(1)),
            ("acceptedButton", review.make_accepted),
            ("previousButton", lambda: review.step(-1)),
            ("nextButton", lambda: review.step(1)),
            ("undoButton", lambda: review.travel(forward=False)),
            ("redoButton", lambda: review.travel(forward=True)),
            ("switchTypeButton", review.switch_type),
            ("overlayButton", review.toggle_outlines),
            ("healthyButton", lambda: review.toggle_picture("healthy")),
            ("differenceButton", lambda: review.toggle_picture("difference")),
            ("putBackButton", review.put_back),
        ):
            getattr(ui, name).connect("clicked()", slot)
        ui.commentEdit.connect("editingFinished()", review.commit_comment)
        ui.thresholdSlider.connect("valueChanged(double)", self._slid)
        # A menu: a list would reject one finding with each turn of the wheel, and with each arrow.
        reasons = qt.QMenu(ui.reasonButton)
        for reason in REASONS:
            action = reasons.addAction(REASON_NAMES[reason])
            action.connect("triggered()", lambda why=reason: review.judge("rejected", why))
        ui.reasonButton.setMenu(reasons)
        ui.resultsSelector.connect(
            "activated(int)", lambda n: review.choose_results(self._results[n])
        )
        header = ui.candidatesTable.horizontalHeader()
        header.connect("sectionClicked(int)", lambda n: review.sort(ORDER_OF_COLUMN[n]))
        ui.levelFilter.connect("currentIndexChanged(int)", self._filtered)
        ui.typeFilter.connect("currentIndexChanged(int)", self._filtered)
        ui.verdictFilter.connect("currentIndexChanged(int)", self._filtered)
        for field in (ui.commentEdit, ui.thresholdSlider):
            for key in ("Return", "Enter", "Escape"):
                shortcut = qt.QShortcut(qt.QKeySequence(key), field)
                shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
                shortcut.connect("activated()", self._table.focus)

    # What the controller draws.

    def draw_review(self, shown: bool) -> None:
        self._ui.reviewButton.setVisible(shown)
        self.draw_title()
        if shown and self.controller.entered:
            self.context.show(self.controller.results)
        else:
            self.context.hide()

    def draw_title(self) -> None:
        """Say of which CT the review is, and that another one is chosen above it."""
        results, chosen = self.controller.results, self._ui.ctSelector.currentNode()
        own = results.ctNode if results is not None else None
        text = _("Review")
        if own is not None:
            text = _("Review of “{name}”")
            if chosen is not None and chosen is not own:
                text = _("Review of “{name}”, not of “{other}”")
            other = chosen.GetName() if chosen is not None else ""
            text = text.format(name=own.GetName(), other=other)
        self._ui.reviewButton.text = text.replace("&", "&&")  # else it underlines the next letter

    def draw_rows(self, items: Sequence[Item], shown: Sequence[str]) -> None:
        self._table.fill(items, shown)

    def draw_items(self, items: Iterable[Item]) -> None:
        self._table.update(items)

    def draw_shown(self, shown: Sequence[str]) -> None:
        self._table.filter(shown)
        self._ui.nextButton.setEnabled(bool(shown))
        self._ui.previousButton.setEnabled(bool(shown))

    def draw_chosen(self, item: Item | None) -> None:
        self._table.select(item.id if item is not None else "")
        for name in OF_CHOSEN:
            getattr(self._ui, name).setEnabled(item is not None)

    def draw_vertebrae(self, states: Sequence[VertebraState]) -> None:
        self._vertebrae.fill([state.level for state in states], map(vertebra_cells, states))

    def draw_level(self, level: str) -> None:
        self._vertebrae.select(level)
        self._ui.rerunButton.setEnabled(bool(level))
        if level != self._level:  # another choice of the reader stays with the same vertebra
            self._level = level
            if level:
                _choose(self._ui.missedLevel, level)

    def draw_burden(self, rows: Sequence[Burden], heading: str) -> None:
        self._burden.fill([f"{row.level} {row.type}" for row in rows], map(burden_cells, rows))
        self._ui.burdenLabel.text = heading

    def draw_results(self, names: Mapping[str, str], chosen: str) -> None:
        box, self._results = self._ui.resultsSelector, list(names)
        box.clear()
        box.addItems(list(names.values()))
        box.setCurrentIndex(self._results.index(chosen) if chosen in names else -1)
        box.setVisible(len(names) > 1)

    def draw_texts(self, said: ReviewTexts) -> None:
        ui = self._ui
        kept = f"\n⚠ {said.not_kept}" if said.not_kept else ""
        ui.summaryLabel.text, ui.countsLabel.text = f"{said.summary}{kept}", said.counts
        ui.detailLabel.text, ui.quietLabel.text = said.detail, said.quiet
        ui.quietLabel.setVisible(bool(said.quiet))
        if not ui.commentEdit.modified:
            ui.commentEdit.text = said.comment
        ui.undoButton.setEnabled(said.can_undo)
        ui.redoButton.setEnabled(said.can_redo)
        for button, step in ((ui.undoButton, said.undo), (ui.redoButton, said.redo)):
            tip = button.toolTip.partition("\n")[0]
            button.toolTip = f"{tip}\n{step}" if step else tip

    def draw_threshold(self, value: float) -> None:
        self._quietly(lambda: setattr(self._ui.thresholdSlider, "value", value))

    def draw_levels(self, found: Sequence[str], analysed: Sequence[str]) -> None:
        self._quietly(lambda: _refill(self._ui.levelFilter, [ALL_LEVELS, *found]))
        _refill(self._ui.missedLevel, list(analysed))

    def draw_filter(self, wanted: Filter) -> None:
        ui, verdicts = self._ui, list(VERDICTS)

        def draw() -> None:
            _choose(ui.levelFilter, wanted.level or ALL_LEVELS)
            ui.typeFilter.setCurrentIndex(1 + LESION_TYPES.index(wanted.type) if wanted.type else 0)
            verdict = 1 + verdicts.index(wanted.verdict) if wanted.verdict else 0
            ui.verdictFilter.setCurrentIndex(verdict)
            self._table.mark(ORDER_OF_COLUMN.index(wanted.order or "score"), wanted.backwards)

        self._quietly(draw)

    def draw_picture(self, picture: Picture) -> None:
        self._ui.healthyButton.setChecked(picture == "healthy")
        self._ui.differenceButton.setChecked(picture == "difference")

    def draw_outlines(self, shown: bool) -> None:
        self._ui.overlayButton.setChecked(shown)

    def draw_outdated(self, levels: Sequence[str], again: Sequence[str]) -> None:
        said, before = outdated(levels) if levels else "", self._outdated
        # What is no longer so is taken away, but no message about something else.
        if said != before and (said or self._messages.text == before):
            self._messages.show(said, "warning")
        self._outdated = said

    def draw_put_back(self, offered: bool) -> None:
        self._ui.putBackButton.setVisible(offered)

    def draw_offers(self, lines: Sequence[str], chosen: int) -> None:
        """Offer the reviews that a crash left, one of them to restore or discard; or none."""
        ui, text = self._ui, lines[chosen] if lines else ""
        said = _("A review was not saved: {text}")
        if len(lines) > 1:
            said = _("{count} reviews of this CT were not saved. Chosen: {text}")
        ui.offerLabel.text = said.format(count=len(lines), text=text)
        ui.offerSelector.clear()
        ui.offerSelector.addItems(list(lines))
        ui.offerSelector.setCurrentIndex(chosen)
        ui.offerSelector.setVisible(len(lines) > 1)
        ui.offerArea.setVisible(bool(lines))

    def take_comment(self) -> str | None:
        edit = self._ui.commentEdit
        if not edit.modified:
            return None
        edit.modified = False
        return str(edit.text)

    def say(self, text: str, kind: Kind = "info") -> None:
        self._messages.show(text, kind)

    def call_later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        timer = qt.QTimer(self._ui.reviewButton)  # one each: several may wait
        timer.setSingleShot(True)
        waiting = [timer]

        def end() -> bool:
            if waiting:
                waiting.pop().stop()
                timer.deleteLater()
                return True
            return False

        def fire() -> None:
            if end():
                action()

        def cancel() -> None:
            end()

        timer.connect("timeout()", fire)
        timer.start(round(1000 * seconds))
        return cancel

    # What is pressed.

    def _vertebra(self, level: str) -> None:
        if level:
            self.controller.choose_vertebra(level)

    def _slid(self, value: float) -> None:
        if not self._drawing:
            self.controller.set_threshold(value)

    def _filtered(self) -> None:
        if self._drawing:
            return
        ui = self._ui
        level, kind, verdict = ui.levelFilter, ui.typeFilter, ui.verdictFilter
        for field, value in (
            ("level", level.currentText if level.currentIndex > 0 else ""),
            ("type", LESION_TYPES[kind.currentIndex - 1] if kind.currentIndex > 0 else ""),
            ("verdict", list(VERDICTS)[verdict.currentIndex - 1] if verdict.currentIndex else ""),
        ):
            if getattr(self.controller.wanted, field) != value:
                self.controller.filter(field, value)

    def _quietly(self, draw: Callable[[], None]) -> None:
        """Change widgets without taking that for the reader's wish."""
        before, self._drawing = self._drawing, True
        draw()
        self._drawing = before


def _wrap(area: Any, widgets: Sequence[Any]) -> None:
    """Lay widgets out in as many rows as the width asks for."""
    layout = ctk.ctkFlowLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    area.setLayout(layout)
    for widget in widgets:
        layout.addWidget(widget)


def _refill(box: Any, entries: list[str]) -> None:
    """Other entries for a combo box, which keeps its choice where that is still offered."""
    before = box.currentText
    box.clear()
    box.addItems(entries)
    if before in entries:
        box.setCurrentIndex(entries.index(before))


def _choose(box: Any, text: str) -> None:
    box.setCurrentIndex(max(box.findText(text), 0))
