"""Stand-ins for what Slicer's own Python gives a scripted module: as little as a module sees."""

from __future__ import annotations

import types
import unittest
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vtk


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        import slicer

        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()
        manager = slicer.app.moduleManager()
        manager.connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)
        self._folder = Path(getattr(slicer.modules, self.moduleName.lower()).path).parent

    def resourcePath(self, name: str) -> str:
        return str(self._folder / "Resources" / name)

    def setup(self) -> None:
        return

    def cleanup(self) -> None:
        return

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        import slicer

        if name == self.moduleName:
            self.cleanup()
            manager = slicer.app.moduleManager()
            manager.disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def onReload(self) -> None:
        import slicer.util

        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        import slicer

        kind = "vtkMRMLScriptedModuleNode"
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, kind)
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass(kind)
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message: str, msec: int = 0) -> None:
        return


followed: list[Any] = []  # parameter nodes whose changes were followed by a form


def parameterNodeWrapper(kind: type) -> type:
    """Of the real one: node parameters alone, in a form that carries SlicerParameterName.

    As that of Slicer 5.10, it goes on to observe the node when the form was disconnected.
    """

    class Wrapper(kind):  # type: ignore[misc, valid-type]
        def __init__(self, node: Any) -> None:
            self.parameterNode = node

        def connectGui(self, ui: Any) -> list[tuple[Any, Callable[..., None]]]:
            found: list[tuple[Any, Callable[..., None]]] = []
            for widget in vars(ui).values():
                name = widget.property("SlicerParameterName")
                if name:
                    widget.setCurrentNode(getattr(self, name))

                    def put(node: Any, name: str = name) -> None:
                        setattr(self, name, node)

                    widget.connect("currentNodeChanged(vtkMRMLNode*)", put)
                    found.append((widget, put))
            self._shown = found
            self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda node, _: followed.append(node))
            return found

        def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
            return int(self.parameterNode.AddObserver(event, callback, priority))

        def disconnectGui(self, tag: Any) -> None:
            for widget, put in tag:
                widget.disconnect("currentNodeChanged(vtkMRMLNode*)", put)
            self._shown = []

    for name in kind.__annotations__:
        setattr(Wrapper, name, _reference(name))
    return Wrapper


def _reference(name: str) -> property:
    def get(self: Any) -> Any:
        return self.parameterNode.GetNodeReference(name)

    def put(self: Any, node: Any) -> None:
        self.parameterNode.SetNodeReferenceID(name, node.GetID() if node else None)
        for widget, _ in getattr(self, "_shown", []):
            if widget.property("SlicerParameterName") == name:
                widget.setCurrentNode(node)

    return property(get, put)


def make_i18n() -> types.ModuleType:
    """Slicer in English."""
    words = types.ModuleType("slicer.i18n")
    words.__dict__.update(tr=lambda text: text, translate=lambda context, text: text)
    return words


def make_modules() -> dict[str, types.ModuleType]:
    """By the names under which a scripted module imports them."""
    base, wrapper = (
        types.ModuleType(f"slicer.{name}")
        for name in ("ScriptedLoadableModule", "parameterNodeWrapper")
    )
    words = make_i18n()
    for kind in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, kind.__name__, kind)
    wrapper.__dict__["parameterNodeWrapper"] = parameterNodeWrapper
    return {module.__name__: module for module in (base, words, wrapper)}


def make_sample_data() -> types.ModuleType:
    """The module Sample Data, as far as it goes by addresses: it knows no custom loader."""
    import slicer

    class SampleDataSource:
        def __init__(
            self,
            sampleName: str,
            sampleDescription: str,
            uris: list[str],
            fileNames: list[str],
            nodeNames: list[str],
            customDownloader: Any,
            thumbnailFileName: str,
            loadFileTypes: list[str],
        ) -> None:
            self.sampleName, self.sampleDescription = sampleName, sampleDescription
            self.uris, self.fileNames, self.nodeNames = uris, fileNames, nodeNames
            self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
            self.loadFileTypes = loadFileTypes

    class SampleDataLogic:
        @staticmethod
        def sampleDataSourcesByCategory(category: str | None = None) -> Any:
            known: dict[str, list[Any]] = slicer.modules.sampleDataSources
            return known if category is None else known.get(category, [])

    def downloadSamples(name: str) -> list[Any]:
        found = []
        for sources in slicer.modules.sampleDataSources.values():
            for source in (one for one in sources if one.sampleName == name):
                parts = zip(source.uris, source.nodeNames, source.loadFileTypes)
                found += [_load(urllib.request.url2pathname(u[7:]), n, k) for u, n, k in parts]
        return found

    def _load(path: str, name: str, kind: str) -> Any:
        loaded = vtk.vtkCollection()
        properties = {"fileName": path, "name": name}
        assert slicer.app.coreIOManager().loadNodes(kind, properties, loaded)
        node = loaded.GetItemAsObject(0)
        slicer.mrmlScene.RemoveNode(node.GetStorageNode())
        return node

    module = types.ModuleType("SampleData")
    module.__dict__.update(
        SampleDataSource=SampleDataSource,
        SampleDataLogic=SampleDataLogic,
        downloadSamples=downloadSamples,
        downloadSample=lambda name: downloadSamples(name)[0],
    )
    return module


class ctkDICOMDatabase:
    """What ``slicer.dicomDatabase`` answers, of these files by the UIDs of their instances."""

    isOpen = True

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    def fileForInstance(self, uid: str) -> str:
        return str(self._files.get(uid, ""))
