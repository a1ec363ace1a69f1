"""Stand-ins for Slicer's widgets over a real MRML scene, as their headers tell."""

from __future__ import annotations

from typing import Any

import shiboken6
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal, Slot

OPTIONS = {
    "noneEnabled": False,
    "addEnabled": True,
    "removeEnabled": True,
    "editEnabled": False,
    "renameEnabled": False,
    "showHidden": False,
    "showChildNodeTypes": True,
    "selectNodeUponCreation": True,
}


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that is told which scene is open."""

    mrmlSceneChanged = Signal("QVariant")
    _signals = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    @Slot("QVariant")
    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene


class qSlicerWidget(qMRMLWidget):
    """What Slicer's modules put at the top of their .ui file."""


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Chooses a node of the scene; follows nodes that come, go and change their names.

    As its model and Qt's list have it: where the chosen node is removed, the one before it is
    chosen; at the end of a closing or an import all entries are made anew, and none is chosen.
    """

    currentNodeChanged = Signal("QVariant")
    currentNodeIsValid = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal("QVariant")
    nodeAddedByUser = Signal("QVariant")
    _signals = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "currentNodeIsValid",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._scene: Any = None
        self._types: list[str] = []
        self._options = dict(OPTIONS)
        self._none, self._name, self._current = "None", "", ""
        self._tags: list[tuple[Any, int]] = []
        self._attributes: list[tuple[str, str, Any]] = []
        self._box.connect("currentIndexChanged(int)", self._chosen)
        self._box.connect("activated(int)", self._activated)

    @Slot("QVariant")
    def setMRMLScene(self, scene: Any) -> None:
        import slicer

        for watched, tag in self._tags:
            watched.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            events = slicer.vtkMRMLScene
            for event, follow in (
                (events.NodeAddedEvent, self._follow),
                (events.NodeRemovedEvent, self._follow),
                (events.EndCloseEvent, self._begin_anew),
                (events.EndImportEvent, self._begin_anew),
                (events.EndBatchProcessEvent, self._follow),
            ):
                self._tags.append((scene, scene.AddObserver(event, follow)))
        self._refill()

    def mrmlScene(self) -> Any:
        return self._scene

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        self._attributes.append((kind, name, value))
        self._refill()

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        found = []
        for kind in self._types:
            for n in range(self._scene.GetNumberOfNodesByClass(kind)):
                node = self._scene.GetNthNodeByClass(n, kind)
                exact = self._options["showChildNodeTypes"] or node.GetClassName() == kind
                shown = self._options["showHidden"] or not node.GetHideFromEditors()
                has = all(
                    node.GetAttribute(a) is not None for k, a, _ in self._attributes if k == kind
                )
                if exact and shown and has:
                    found.append(node)
        return found

    def _follow(self, *_: Any) -> None:
        # C++ widgets stop to observe when they die.
        if shiboken6.isValid(self) and not (self._scene.IsClosing() or self._scene.IsImporting()):
            self._refill()

    def _begin_anew(self, *_: Any) -> None:
        if shiboken6.isValid(self):
            self._box.setCurrentIndex(0 if self._options["noneEnabled"] else -1)
            self._refill()

    def _refill(self) -> None:
        before, had = self._current, self._box.count
        entries = [(self._none, "")] if self._options["noneEnabled"] else []
        entries += [(node.GetName() or node.GetID(), node.GetID()) for node in self._nodes()]
        ids = [identity for _, identity in entries]
        neighbour = self._box.currentIndex - 1
        self._box.blockSignals(True)
        self._box.clear()
        for text, identity in entries:
            self._box.addItem(text, identity)
        # As Slicer's does: the first node is chosen where there was none, unless none may be.
        fallback = -1 if not entries or (had and self._options["noneEnabled"]) else 0
        if before and neighbour >= 0:
            fallback = min(neighbour, len(entries) - 1)
        place = ids.index(before) if before in ids else fallback
        self._box.setCurrentIndex(place)
        self._box.blockSignals(False)
        self._chosen(place)

    def _chosen(self, index: int) -> None:
        identity = self._box.itemData(index) or ""
        if identity != self._current:
            self._current = identity
            node = self.currentNode()
            self.currentNodeChanged.emit(node)
            self.currentNodeIsValid.emit(node is not None)
            self.currentNodeIDChanged.emit(identity)

    def _activated(self, _index: int) -> None:
        self.nodeActivated.emit(self.currentNode())

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current) if self._scene and self._current else None

    @Slot("QVariant")
    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) else node.GetID() if node else "")

    @Slot(str)
    def setCurrentNodeID(self, identity: str) -> None:
        ids = [self._box.itemData(n) or "" for n in range(self._box.count)]
        self._box.setCurrentIndex(ids.index(identity) if identity in ids else -1)

    def nodeCount(self) -> int:
        return len(self._nodes())

    def _get_types(self) -> list[str]:
        return self._types

    def setNodeTypes(self, types: list[str]) -> None:
        self._types = list(types)
        self._refill()

    def _get_id(self) -> str:
        return self._current

    def _set_option(self, name: str, value: bool) -> None:
        self._options[name] = value
        self._refill()

    def setNoneEnabled(self, on: bool) -> None:
        self._set_option("noneEnabled", on)

    def _get_none(self) -> str:
        return self._none

    def setNoneDisplay(self, text: str) -> None:
        self._none = text
        self._refill()

    def _get_base(self) -> str:
        return self._name

    def setBaseName(self, text: str) -> None:
        self._name = text

    currentNodeID = Property(str, _get_id, setCurrentNodeID)
    nodeTypes = Property("QStringList", _get_types, setNodeTypes)
    noneDisplay = Property(str, _get_none, setNoneDisplay)
    baseName = Property(str, _get_base, setBaseName)
    noneEnabled = Property(bool, lambda s: s._options["noneEnabled"], setNoneEnabled)
    for _name in ("addEnabled", "removeEnabled", "editEnabled", "renameEnabled", "showHidden"):
        locals()[_name] = Property(
            bool,
            lambda s, n=_name: s._options[n],
            lambda s, v, n=_name: s._set_option(n, v),
        )
    showChildNodeTypes = Property(
        bool,
        lambda s: s._options["showChildNodeTypes"],
        lambda s, v: s._set_option("showChildNodeTypes", v),
    )
    selectNodeUponCreation = Property(
        bool,
        lambda s: s._options["selectNodeUponCreation"],
        lambda s, v: s._set_option("selectNodeUponCreation", v),
    )


WIDGETS = (qMRMLWidget, qSlicerWidget, qMRMLNodeComboBox)
