"""A real MRML scene, as in 3D Slicer but without a window and without Qt."""

from __future__ import annotations

import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

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
        outer = {name: getattr(slicer, name, None) for name in ("mrmlScene", "modules")}
        slicer.mrmlScene = scene
        slicer.modules = types.SimpleNamespace(
            **{n.lower(): types.SimpleNamespace(logic=lambda x=x: x) for n, x in logics.items()}
        )
        yield Slicer(scene, logics, application, (remote, data))
        scene.Clear(True)
        for name, value in outer.items():  # the scene that was open around this one is used again
            setattr(slicer, name, value)


def add_ct(array: Any, ijk_to_lps: Any, name: str = "CT") -> Any:
    """A volume node; ``array`` is (K, J, I), the matrix 4x4 in LPS mm."""
    import slicer.util

    node = slicer.util.addVolumeFromArray(array, ijkToRAS=RAS_FROM_LPS @ ijk_to_lps, name=name)
    node.CreateDefaultDisplayNodes()
    return node


def add_segmentation(masks: dict[str, Any], ijk_to_lps: Any, name: str = "Segmentation") -> Any:
    """A segmentation node with a segment for each mask (K, J, I), named and identified by key."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    for key, mask in masks.items():
        node.AddSegmentFromBinaryLabelmapRepresentation(image_of(mask, ijk_to_lps), key, None, key)
    return node


def image_of(mask: Any, ijk_to_lps: Any) -> Any:
    """A mask (K, J, I) as Slicer keeps a segment."""
    import slicer.util
    import vtk
    from vtk.util import numpy_support

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(RAS_FROM_LPS @ ijk_to_lps))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel()
    return image


def add_transform(ras: Any) -> Any:
    """A linear transform node, 4x4 in RAS mm."""
    import slicer.util

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(ras))
    return node


def everything_of(node: Any) -> dict[str, Any]:
    """All that a user could miss in a segmentation after a run, for comparison."""
    import slicer
    from vtk.util import numpy_support

    segmentation = node.GetSegmentation()
    seen: dict[str, Any] = {"xml": _xml(node), "display": _xml(node.GetDisplayNode())}
    for name in segmentation.GetSegmentIDs():
        segment, image = segmentation.GetSegment(name), slicer.vtkOrientedImageData()
        image.DeepCopy(segment.GetRepresentation("Binary labelmap"))
        scalars = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        converter = slicer.vtkSegmentationConverter
        seen[name] = (
            scalars.tobytes(),
            converter.SerializeImageGeometry(image),
            str(segment).partition("Tags:")[2],
            (segment.GetName(), segment.GetColor(), segment.GetLabelValue()),
            (segment.GetMTime(), segmentation.GetLayerIndex(name)),
        )
    return seen


def _xml(node: Any) -> str:
    """The node as the scene would save it."""
    scene = node.GetScene()
    scene.SetSaveToXMLString(1)
    scene.Commit()
    lines = scene.GetSceneXMLString().split("<")
    scene.SetSaveToXMLString(0)
    return next(line for line in lines if f'id="{node.GetID()}"' in line)
