"""Which segment is which vertebra: shown in a table, corrected by the reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from hideseekseg.anatomy.label_conventions import CONVENTIONS, LEVELS
from hideseekseg.scene.level_rows import LevelRow, levelRows
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
        self._filling = False
        self._table.setHorizontalHeaderLabels([_("Segment"), _("Level"), _("Part")])
        self._table.verticalHeader().hide()
        header = self._table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(2, qt.QHeaderView.ResizeToContents)
        self._convention.addItems(list(READ_BY))
        self._convention.connect("currentIndexChanged(int)", self._declare)

    def show(self, segmentationNode: Any) -> None:
        """Vertebrae first, then what was not understood, then the rest; corrections start anew."""
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
        self._filling = False
        self._tell()

    def refresh(self) -> None:
        """Read the segments again where they were renamed, added or removed; corrections stay."""
        if self.node is None or self.node.GetScene() is None or _segments(self.node) == self._seen:
            return
        corrected = set(self.corrections())
        kept = {
            identity: (level.currentIndex, part.currentIndex)
            for identity, (level, part) in self._boxes.items()
            if identity in corrected
        }
        self.show(self.node)
        self._filling = True
        for identity, chosen in kept.items():
            for box, index in zip(self._boxes.get(identity, ()), chosen):
                box.setCurrentIndex(index)
        self._filling = False
        self._corrected()

    def corrections(self) -> dict[str, str]:
        """Return what the reader changed, by segment ID, for ``scene.level_rows.levelRows``."""
        said = ((row, self._chosen(row)) for row in self._read)
        return {row.segmentID: text for row, text in said if text != as_read(row)}

    def levels(self) -> tuple[str, ...]:
        """Levels that will be analysed, from the head down."""
        return levels_of(self._rows())

    def summary(self) -> str:
        """One line for the folded table."""
        return summary(self._rows())

    def _rows(self) -> list[LevelRow]:
        """As the run will see them: a level that was given to one segment is taken from others."""
        alive = self.node is not None and self.node.GetScene() is not None
        return levelRows(self.node, self.corrections()) if alive else []

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
            for level, part in self._boxes.values():
                part.setEnabled(CHOICES[level.currentIndex] in LEVELS)
            self._tell()

    def _tell(self) -> None:
        said = self.summary()
        self._fold.text = f"{TITLE}: {said}" if said else TITLE
        self._changed()


def _segments(node: Any) -> list[tuple[str, ...]]:
    """Return what levels are read from: id, name and code of every segment."""
    segmentation = node.GetSegmentation()
    pairs = ((x, segmentation.GetSegment(x)) for x in segmentation.GetSegmentIDs())
    return [(x, segment.GetName() or "", segment.GetTerminology() or "") for x, segment in pairs]
