"""A real MRML scene, as in 3D Slicer but without a window and without Qt."""

from __future__ import annotations

import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Modules whose logics belong to the scene, by the name under which Slicer knows them.
LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
}


@dataclass(frozen=True)
class Slicer:
    """A scene with its logics; they must live as long as the scene is used."""

    scene: Any
    logics: dict[str, Any]
    application: Any
    keep: tuple[Any, ...] = ()


@contextmanager
def open_scene() -> Iterator[Slicer]:
    """A scene that reads and writes files; it is ``slicer.mrmlScene``, with ``slicer.modules``."""
    import slicer

    scene, application = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    application.SetModuleLogic("Colors", application.GetColorLogic())
    logics = {name: getattr(slicer, kind)() for name, kind in LOGICS.items()}
    for name, logic in logics.items():
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name, logic)
    remote, data = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    with tempfile.TemporaryDirectory() as cache:
        remote.SetMRMLScene(scene)
        remote.SetMRMLApplicationLogic(application)
        remote.GetCacheManager().SetRemoteCacheDirectory(cache)
        data.SetMRMLScene(scene)
        data.SetMRMLApplicationLogic(application)
        data.SetAndObserveDataIOManager(remote.GetDataIOManager())
        remote.AddDataIOToScene()
        slicer.mrmlScene = scene
        slicer.modules = types.SimpleNamespace(
            **{n.lower(): types.SimpleNamespace(logic=lambda x=x: x) for n, x in logics.items()}
        )
        yield Slicer(scene, logics, application, (remote, data))
        scene.Clear(True)
