"""All candidates as a table of the scene, for those who want numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import vtk

from ..review.review import Item

_TEXTS: dict[str, Callable[[Item], str]] = {
    "name": lambda x: x.name,
    "id": lambda x: x.id,
    "level": lambda x: x.level,
    "type": lambda x: x.type,
    "verdict": lambda x: x.verdict,
    "comment": lambda x: x.comment,
}
_NUMBERS: dict[str, Callable[[Item], float | None]] = {
    "score": lambda x: None if x.missed else x.score,
    "P(malignant)": lambda x: x.p_malignant,
    "volume (mm3)": lambda x: x.volume_mm3,
    "R (mm)": lambda x: -x.centroid_lps[0],
    "A (mm)": lambda x: -x.centroid_lps[1],
    "S (mm)": lambda x: x.centroid_lps[2],
}


def fillTable(tableNode: Any, items: Sequence[Item]) -> None:
    """One row per candidate; positions are RAS mm in the world; what is not known is NaN."""
    table = vtk.vtkTable()
    for name, text in _TEXTS.items():
        table.AddColumn(_column(vtk.vtkStringArray(), name, [text(item) for item in items]))
    for name, number in _NUMBERS.items():
        values = [float("nan") if (x := number(item)) is None else x for item in items]
        table.AddColumn(_column(vtk.vtkDoubleArray(), name, values))
    tableNode.SetUseColumnTitleAsColumnHeader(True)
    tableNode.SetAndObserveTable(table)


def _column(array: Any, name: str, values: Sequence[Any]) -> Any:
    array.SetName(name)
    for value in values:
        array.InsertNextValue(value)
    return array
