"""A scene with its logics, as Slicer has them when it starts, for the library's scene room."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

from ..errors import InputError
from ..files import together
from ..imaging.image_file import captured
from ..output.result_folder import SCENE
from ..ui.review_session import ReviewSession


def save_all(
    work: ReviewSession, folder: Path, reviewer: str, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write accepted findings (.seg.nrrd, CSV, JSON) and the scene; return their paths.

    ``overwrite`` replaces the result of another scan.  Raises InputError and NoVoxelsError as
    ``export_accepted``.
    """
    files = work.export(folder, reviewer, overwrite)
    return (*files, save_scene(folder / SCENE))


def save_scene(path: Path) -> Path:
    """Write the scene as Slicer packs it, complete from the moment it has its name.

    Slicer names what is inside by the file, so that it is written under its own name elsewhere.
    """
    scene = slicer.mrmlScene
    before: tuple[Any, Any] = scene.GetURL(), scene.GetRootDirectory()
    with together(path.parent) as part, captured():
        try:
            if not scene.WriteToMRB(str(part / path.name)):
                raise InputError(path, "cannot be written: Slicer could not pack the scene")
        finally:
            scene.SetURL(before[0] or "")
            scene.SetRootDirectory(before[1] or "")
    return path


if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    # Without a screen VTK would try X first, and complain.
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


@dataclass(frozen=True)
class SlicerScene:
    """``slicer_app`` is trame-slicer's; all of it must live as long as the scene is used."""

    slicer_app: Any
    keep: tuple[Any, ...]


@contextmanager
def quiet_vtk() -> Iterator[None]:
    """VTK's warnings off: for what is known and harmless."""
    before = vtk.vtkObject.GetGlobalWarningDisplay()
    vtk.vtkObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        vtk.vtkObject.SetGlobalWarningDisplay(before)


def divert_vtk(log: Path) -> None:
    """Keep what VTK and Slicer complain of in a file: on the terminal it helps nobody.

    What concerns the reader is said in the page.
    """
    window = vtk.vtkFileOutputWindow()
    window.SetFileName(str(log))
    window.FlushOn()
    vtk.vtkOutputWindow.SetInstance(window)
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)


def open_scene(cache: Path) -> SlicerScene:
    """Open ``slicer.mrmlScene``; ``cache`` is a folder for unpacking scene files."""
    from trame_slicer.core import SlicerApp

    app = SlicerApp()
    tables = app.register_module_logic(slicer.vtkSlicerTablesLogic())
    slicer.mrmlScene = app.scene
    logics = {
        "volumes": app.volumes_logic,
        "segmentations": app.segmentations_logic,
        "terminologies": app.terminologies_logic,
        "subjecthierarchy": app.subject_hierarchy_logic,
        "tables": tables,
    }
    slicer.modules = types.SimpleNamespace(
        **{name: types.SimpleNamespace(logic=lambda x=x: x) for name, x in logics.items()}
    )
    return SlicerScene(app, (tables, *_files(app, cache)))


def _files(app: Any, cache: Path) -> tuple[Any, ...]:
    """Return what reads and writes a scene's files; nothing remote is ever read."""
    remote, data = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    remote.SetMRMLScene(app.scene)
    remote.SetMRMLApplicationLogic(app.app_logic)
    remote.GetCacheManager().SetRemoteCacheDirectory(str(cache))
    data.SetMRMLScene(app.scene)
    data.SetMRMLApplicationLogic(app.app_logic)
    data.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return remote, data
