"""The nodes beside the lesions of a run: tables, and what the method saw of each vertebra.

What it saw is kept in a text node, which Slicer saves as a file of the scene; the healthy edit and
the difference are volumes that are made of it on request, and not saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import slicer
import slicer.util
import vtk

from ..findings import Evidence
from ..imaging.volume import Grid
from ..output.segment_description import PREFIX
from ..review.burden import BURDEN_COLUMNS, Burden
from ..review.review import Item
from .geometry import CT_REFERENCE
from .review_storage import packed, unpacked
from .views import fillDifference, fillEdit

_EDIT = PREFIX + "HealthyEdit"
_DIFFERENCE = PREFIX + "Difference"
_EVIDENCE = PREFIX + "Evidence"
_PICTURE = PREFIX + "Picture"
EVIDENCE_ROLES = (_EVIDENCE, _EDIT, _DIFFERENCE)  # by which results refer to these nodes

_TEXTS: dict[str, Callable[[Item], str]] = {
    "name": lambda x: x.name,
    "id": lambda x: x.id,
    "level": lambda x: x.level,
    "type": lambda x: x.type,
    "verdict": lambda x: x.verdict,
    "reason": lambda x: x.reason,
    "comment": lambda x: x.comment,
}
_NUMBERS: dict[str, Callable[[Item], float | None]] = {
    "score": lambda x: None if x.missed else x.score,
    "P(malignant)": lambda x: x.p_malignant,
    "volume (mm3)": lambda x: x.volume_mm3,
    "largest diameter (mm)": lambda x: x.diameter_mm,
    "mean HU": lambda x: x.mean_hu,
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


def fillBurden(tableNode: Any, rows: Sequence[Burden]) -> None:
    """One row per level and type, and for all together; what is not known is NaN."""
    table = vtk.vtkTable()
    for name in BURDEN_COLUMNS[:2]:
        texts = [getattr(row, name) for row in rows]
        table.AddColumn(_column(vtk.vtkStringArray(), name, texts))
    for name in BURDEN_COLUMNS[2:]:
        values = [float("nan") if (x := getattr(row, name)) is None else x for row in rows]
        table.AddColumn(_column(vtk.vtkDoubleArray(), name, values))
    tableNode.SetUseColumnTitleAsColumnHeader(True)
    tableNode.SetAndObserveTable(table)


def _column(array: Any, name: str, values: Sequence[Any]) -> Any:
    array.SetName(name)
    for value in values:
        array.InsertNextValue(value)
    return array


def placeBeside(node: Any, other: Any) -> None:
    """Next to the other node in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    if hierarchy is None:
        return
    beside = hierarchy.GetItemByDataNode(other)
    parent = hierarchy.GetItemParent(beside) if beside else hierarchy.GetSceneItemID()
    # Slicer's plugins make the item by themselves, but only where there is a window.
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    hierarchy.SetItemParent(item, parent)


def isPicture(node: Any) -> bool:
    """Return whether a volume node is a healthy edit or a difference."""
    return node.GetAttribute(_PICTURE) is not None


def isInScene(node: Any) -> bool:
    """Return whether a node is still in its scene."""
    scene = node.GetScene()
    return scene is not None and scene.IsNodePresent(node)


class KeptEvidence:
    """The evidence beside the results in ``node``, by level; that node may have left its scene."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._texts: dict[str, str] = {}  # as ``packed``

    @property
    def textNode(self) -> Any:
        """The node that holds it, None where nothing was kept or the results were removed."""
        return self._node.GetNodeReference(_EVIDENCE) if isInScene(self._node) else None

    def of(self, level: str) -> Evidence | None:
        """Return what was kept of a vertebra, None where there is nothing or it is damaged."""
        return unpacked(self._read().get(level, ""))

    def put(self, level: str, evidence: Evidence) -> None:
        """Keep what the method saw of a vertebra; that of others stays.  ``save`` it then."""
        self._read()[level] = packed(evidence)

    def drop(self, level: str) -> bool:
        """Forget a vertebra; return whether there was anything to forget.  ``save`` it then."""
        return self._read().pop(level, None) is not None

    def takeOver(self, other: KeptEvidence) -> None:
        """Keep what was kept beside other results."""
        self._texts = other._texts
        if self._texts:
            self.save()

    def save(self) -> None:
        """Write what is kept to the text node, which is made where there is none yet."""
        node = self.textNode
        if node is None:
            name = f"{self._node.GetName()} evidence"
            node = self._node.GetScene().AddNewNodeByClass("vtkMRMLTextNode", name)
            self._node.SetNodeReferenceID(_EVIDENCE, node.GetID())
            placeBeside(node, self._node)
        node.SetText("\n".join(f"{level} {text}" for level, text in self._texts.items()))

    def volumes(self, evidence: Evidence, grid: Grid, level: str, ctNode: Any) -> tuple[Any, Any]:
        """Return the healthy edit and the difference of one vertebra as volumes; as in ``Results``.

        ``grid`` (LPS) is that of the evidence in the frame of the results' node.
        """
        edit = self._picture(_EDIT, f"{level} healthy edit".strip(), ctNode)
        difference = self._picture(_DIFFERENCE, f"{level} difference".strip(), ctNode)
        fillEdit(edit, evidence, grid)
        fillDifference(difference, evidence, grid)
        return edit, difference

    def _read(self) -> dict[str, str]:
        """Return the text by level, a line each."""
        if not self._texts and self.textNode is not None:
            lines = (self.textNode.GetText() or "").splitlines()
            self._texts = {level: text for level, _, text in (x.partition(" ") for x in lines)}
        return self._texts

    def _picture(self, role: str, name: str, ct: Any) -> Any:
        node = self._node.GetNodeReference(role)
        if node is None:
            node = slicer.vtkMRMLScalarVolumeNode()
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            node.SetAttribute(_PICTURE, role)
            node = self._node.GetScene().AddNode(node)
            self._node.SetNodeReferenceID(role, node.GetID())
        node.SetName(f"{ct.GetName() if ct else self._node.GetName()} {name}")
        node.SetAndObserveTransformNodeID(self._node.GetTransformNodeID())
        if ct is not None:
            node.SetNodeReferenceID(CT_REFERENCE, ct.GetID())
        return node
