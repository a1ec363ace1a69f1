"""Tables of the panel: candidates, plain ones, and which segment is which vertebra."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import qt
from slicer.i18n import tr as _

from hideseekseg.anatomy.label_conventions import CONVENTIONS, LEVELS
from hideseekseg.review.review import Item
from hideseekseg.scene.export_inputs import LevelRow, levelRows
from hideseekseg.ui.level_choices import (
    CHOICES,
    PARTS,
    READ_BY,
    TITLE,
    as_read,
    choice_of,
    correction,
    levels_of,
    rank,
    summary,
)
from hideseekseg.ui.texts import COLOURS, COLUMNS, cells

# Readable on a light and on a dark window.
VERDICT_COLOURS = {
    "unreviewed": "#8a8a8a",
    "accepted": "#2e9e5b",
    "uncertain": "#b8860b",
    "rejected": "#b0646a",
}
CHIP, BAR = 10, 24  # pixels


class CandidateTable:
    """Rows of a ``QTableWidget``; ``chosen`` is called with the id of a row that a user selects."""

    def __init__(self, table: Any, chosen: Callable[[str], None]) -> None:
        self._table, self._chosen = table, chosen
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._drawn: dict[int, Item] = {}
        self._hidden: list[bool] = []
        self._filling = False
        self._bar = lru_cache(maxsize=256)(_bar)
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(24)
        table.setIconSize(qt.QSize(BAR, CHIP))
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeaderItem(3).setToolTip(_("P(malignant) of the vertebra"))
        table.connect("itemSelectionChanged()", self._selected)

    @property
    def current(self) -> str:
        """Id of the selected candidate, empty without one."""
        rows = self._table.selectionModel().selectedRows()
        return self._ids[rows[0].row()] if rows else ""

    def fill(self, items: Sequence[Item], shown: Iterable[str]) -> None:
        """Make all rows anew; the selected candidate stays selected where it still is one."""
        before = self.current
        self._filling = True
        self._table.setUpdatesEnabled(False)
        header = self._table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.Interactive)  # else each cell is measured anew
        self._table.clearSelection()
        self._table.setRowCount(len(items))
        self._ids = [item.id for item in items]
        self._rows = {item.id: n for n, item in enumerate(items)}
        self._hidden, self._drawn = [False] * len(items), {}
        for n, item in enumerate(items):
            self._table.setRowHidden(n, False)
            self._write(n, item)
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        self._table.setUpdatesEnabled(True)
        self._filling = False
        self.filter(shown)
        self.select(before)

    def mark(self, column: int, backwards: bool) -> None:
        """Show by which column the rows are sorted."""
        order = qt.Qt.AscendingOrder if backwards else qt.Qt.DescendingOrder
        header = self._table.horizontalHeader()
        header.setSortIndicatorShown(True)
        header.setSortIndicator(column, order)

    def focus(self) -> None:
        """Give the table the keyboard."""
        self._table.setFocus()

    def filter(self, shown: Iterable[str]) -> None:
        """Show these rows and hide the others: nothing is computed, so a slider can be followed."""
        wanted = set(shown)
        self._filling = True
        self._table.setUpdatesEnabled(False)
        for row, identity in enumerate(self._ids):
            hidden = identity not in wanted
            if hidden != self._hidden[row]:
                self._hidden[row] = hidden
                self._table.setRowHidden(row, hidden)
        self._table.setUpdatesEnabled(True)
        self._filling = False

    def update(self, items: Iterable[Item]) -> None:
        """Write these candidates' rows again, after a verdict or a switched type."""
        self._filling = True
        for item in items:
            if item.id in self._rows:
                self._write(self._rows[item.id], item)
        self._filling = False

    def select(self, identity: str) -> None:
        """Select a candidate's row and bring it into sight; empty: none. Nobody is told."""
        if identity == self.current:
            return
        self._filling = True
        _select_row(self._table, self._rows.get(identity))
        self._filling = False

    def _selected(self) -> None:
        if not self._filling:
            self._chosen(self.current)

    def _write(self, row: int, item: Item) -> None:
        for column, text in enumerate(cells(item)):
            cell = self._table.item(row, column)
            if cell is None:
                cell = qt.QTableWidgetItem()
                self._table.setItem(row, column, cell)
            cell.setText(text)
            cell.setToolTip(f"{item.name}\n{item.comment}" if item.comment else item.name)
        before, self._drawn[row] = self._drawn.get(row), item
        if before is None or (before.type, before.score) != (item.type, item.score):
            self._draw_bars(row, item)
        self._table.item(row, 5).setForeground(qt.QBrush(qt.QColor(VERDICT_COLOURS[item.verdict])))
        # Each change of letters or icons makes the table measure all its columns again.
        crossed = item.verdict == "rejected"
        if before is None or (before.verdict == "rejected") != crossed:
            font = self._table.item(row, 0).font()
            font.setStrikeOut(crossed)
            for column in range(2):
                self._table.item(row, column).setFont(font)

    def _draw_bars(self, row: int, item: Item) -> None:
        colour = COLOURS[item.type]
        self._table.item(row, 1).setIcon(self._bar(CHIP, CHIP, CHIP, colour))
        length = 0 if item.missed else round(BAR * min(max(item.score, 0.0), 1.0))
        self._table.item(row, 2).setIcon(self._bar(length, BAR, CHIP - 4, colour))


def _select_row(table: Any, row: int | None) -> None:
    """Select a row and bring it into sight; None: no row."""
    if row is None:
        table.clearSelection()
        return
    table.selectRow(row)
    table.scrollToItem(table.item(row, 0))


class PlainTable:
    """Rows of text; ``chosen`` is called with the key of a row that a user selects."""

    def __init__(
        self, table: Any, columns: Sequence[str], chosen: Callable[[str], None] = lambda key: None
    ) -> None:
        self._table, self._chosen = table, chosen
        self._keys: list[str] = []
        self._filling = False
        table.setHorizontalHeaderLabels(list(columns))
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(22)
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setStretchLastSection(True)
        table.connect("itemSelectionChanged()", self._selected)

    def fill(self, keys: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Make all rows anew."""
        self._filling = True
        self._keys = list(keys)
        self._table.setRowCount(len(self._keys))
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                cell = qt.QTableWidgetItem(text)
                cell.setToolTip(text)
                self._table.setItem(number, column, cell)
        self._filling = False

    def select(self, key: str) -> None:
        """Select a row and bring it into sight; an unknown key: none. Nobody is told."""
        self._filling = True
        _select_row(self._table, self._keys.index(key) if key in self._keys else None)
        self._filling = False

    def _selected(self) -> None:
        rows = self._table.selectionModel().selectedRows()
        if not self._filling and rows:
            self._chosen(self._keys[rows[0].row()])


def _bar(length: int, width: int, height: int, colour: str) -> Any:
    """Return a bar of this length in an icon of this width, in pixels."""
    pixmap = qt.QPixmap(width, height)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter()
    painter.begin(pixmap)
    painter.fillRect(0, 0, length, height, qt.QColor(colour))
    painter.end()
    return qt.QIcon(pixmap)


WHOLE, BODY = 0, 1


class LevelsTable:
    """The table of one segmentation; ``changed`` is called after every correction."""

    def __init__(self, ui: Any, changed: Callable[[], None]) -> None:
        self._table, self._convention = ui.levelsTable, ui.conventionSelector
        self._fold = ui.levelsButton
        self._changed = changed
        self.node: Any = None
        self._read: list[LevelRow] = []
        self._seen: list[tuple[str, ...]] = []
        self._boxes: dict[str, tuple[Any, Any]] = {}
        self._left: list[tuple[Any, dict[str, tuple[int, int]]]] = []  # choices, by segmentation
        self._filling = False
        self._table.setHorizontalHeaderLabels([_("Segment"), _("Level"), _("Part")])
        self._table.verticalHeader().hide()
        header = self._table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)
        self._convention.addItems(list(READ_BY))
        self._convention.connect("currentIndexChanged(int)", self._declare)

    def show(self, segmentationNode: Any, said: Mapping[str, str] | None = None) -> None:
        """Vertebrae first, then what was not understood, then the rest.

        Corrections are those that the segmentation had when it was shown last.  One that was not
        shown before has what is ``said`` of its segments: see ``corrections``.
        """
        self._left = [pair for pair in self._left if pair[0].GetScene() is not None]
        if self._alive:
            self._left = [pair for pair in self._left if pair[0] is not self.node]
            self._left.append((self.node, self._choices()))
        known = next((kept for node, kept in self._left if node is segmentationNode), None)
        self._draw(segmentationNode, (said or {}) if known is None else {})
        self._choose(known or {})
        self._tell()

    def takeOver(self, said: Mapping[str, str]) -> None:
        """Read segments as a run did, where the reader has not corrected any."""
        if self._alive and not self.corrections():
            self._draw(self.node, said)
            self._tell()

    def _draw(self, segmentationNode: Any, said: Mapping[str, str]) -> None:
        self.node = segmentationNode
        self._read = sorted(levelRows(segmentationNode), key=rank) if segmentationNode else []
        self._seen = _segments(segmentationNode) if segmentationNode else []
        self._filling = True
        self._convention.setCurrentIndex(0)
        self._boxes = {}
        self._table.setRowCount(0)
        self._table.setRowCount(len(self._read))
        for n, row in enumerate(self._read):
            self._fill(n, row)
        for row in levelRows(segmentationNode, said) if said and segmentationNode else ():
            if row.segmentID in said:
                self._set(row)
        self._filling = False

    def refresh(self) -> None:
        """Read the segments again where they were renamed, added or removed; corrections stay."""
        if self.node is None or self.node.GetScene() is None or _segments(self.node) == self._seen:
            return
        kept = self._choices()
        self._draw(self.node, {})
        self._choose(kept)
        self._tell()

    def _choices(self) -> dict[str, tuple[int, int]]:
        """Return what is chosen of the segments that were corrected, by segment ID."""
        corrected = self.corrections()
        return {
            identity: (level.currentIndex, part.currentIndex)
            for identity, (level, part) in self._boxes.items()
            if identity in corrected
        }

    def _choose(self, kept: Mapping[str, tuple[int, int]]) -> None:
        """Choose it again; segments that are gone are left out."""
        self._filling = True
        for identity, chosen in kept.items():
            for box, index in zip(self._boxes.get(identity, ()), chosen):
                box.setCurrentIndex(index)
        self._filling = False
        self._enableParts()

    def corrections(self) -> dict[str, str]:
        """Return what the reader changed, by segment ID, for ``scene.export_inputs.levelRows``."""
        said = ((row, self._chosen(row)) for row in self._read)
        return {row.segmentID: text for row, text in said if text != as_read(row)}

    def levels(self) -> tuple[str, ...]:
        """Levels that will be analysed, from the head down."""
        return levels_of(self.rows())

    def summary(self) -> str:
        """One line for the folded table."""
        return summary(self.rows())

    def rows(self) -> list[LevelRow]:
        """As the run will see them: a level that was given to one segment is taken from others."""
        return levelRows(self.node, self.corrections()) if self._alive else []

    @property
    def _alive(self) -> bool:
        return self.node is not None and self.node.GetScene() is not None

    def _fill(self, number: int, row: LevelRow) -> None:
        item = qt.QTableWidgetItem(row.name or row.segmentID)
        text = _("{id}, value {value}: {why}")
        item.setToolTip(text.format(id=row.segmentID, value=row.value, why=row.why))
        item.setFlags(qt.Qt.ItemIsEnabled)
        self._table.setItem(number, 0, item)
        level, part = qt.QComboBox(), qt.QComboBox()
        level.addItems(list(CHOICES))
        part.addItems(list(PARTS.values()))
        for box in (level, part):
            box.setFrame(False)
            box.setToolTip(row.why)
        self._boxes[row.segmentID] = level, part
        self._set(row)
        level.connect("currentIndexChanged(int)", self._corrected)
        part.connect("currentIndexChanged(int)", self._corrected)
        self._table.setCellWidget(number, 1, level)
        self._table.setCellWidget(number, 2, part)

    def _set(self, row: LevelRow) -> None:
        level, part = self._boxes[row.segmentID]
        level.setCurrentIndex(CHOICES.index(choice_of(row)))
        part.setCurrentIndex(BODY if row.kind == "body" else WHOLE)
        part.setEnabled(bool(row.level))

    def _chosen(self, row: LevelRow) -> str:
        level, part = self._boxes[row.segmentID]
        kind = "body" if part.currentIndex == BODY else "vertebra"
        return correction(CHOICES[level.currentIndex], kind)

    def _declare(self, index: int) -> None:
        """Read unnamed segments by a convention, or go back to names and codes."""
        if self._filling or self.node is None:
            return
        self._filling = True
        convention = list(CONVENTIONS)[index - 1] if index > 0 else None
        for row in levelRows(self.node, {}, convention):
            if row.segmentID in self._boxes:
                self._set(row)
        self._filling = False
        self._tell()

    def _corrected(self) -> None:
        if not self._filling:
            self._enableParts()
            self._tell()

    def _enableParts(self) -> None:
        for level, part in self._boxes.values():
            part.setEnabled(CHOICES[level.currentIndex] in LEVELS)

    def _tell(self) -> None:
        said = self.summary()
        self._fold.text = f"{TITLE}: {said}" if said else TITLE
        self._changed()


def _segments(node: Any) -> list[tuple[str, ...]]:
    """Return what levels are read from: id, name and code of every segment."""
    segmentation = node.GetSegmentation()
    pairs = ((x, segmentation.GetSegment(x)) for x in segmentation.GetSegmentIDs())
    return [(x, segment.GetName() or "", segment.GetTerminology() or "") for x, segment in pairs]
