"""The tables of the review: candidates (those below the threshold are hidden), and plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import qt
from slicer.i18n import tr as _

from hideseekseg.review.review import Item
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
        if identity in self._rows:
            row = self._rows[identity]
            self._table.selectRow(row)
            self._table.scrollToItem(self._table.item(row, 0))
        else:
            self._table.clearSelection()
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
        if key in self._keys:
            row = self._keys.index(key)
            self._table.selectRow(row)
            self._table.scrollToItem(self._table.item(row, 0))
        else:
            self._table.clearSelection()
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
