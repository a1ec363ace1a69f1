"""What a reader takes along: accepted findings as files, and the whole scene for Slicer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from ..imaging.images import hushed
from ..imaging.reading import InputError, together
from ..ui.review_session import AtWork

SCENE = "review.mrb"


def save_all(work: AtWork, folder: Path, reviewer: str) -> tuple[Path, ...]:
    """Accepted findings (.seg.nrrd, CSV, JSON) and the scene; returns their paths.

    Raises InputError where the folder cannot be written, NoVoxelsError as ``export_accepted``.
    """
    files = work.export(folder, reviewer)
    return (*files, save_scene(folder / SCENE))


def save_scene(path: Path) -> Path:
    """The scene as Slicer packs it, complete from the moment it has its name.

    Slicer names what is inside by the file, so that it is written under its own name elsewhere.
    """
    scene = slicer.mrmlScene
    before: tuple[Any, Any] = scene.GetURL(), scene.GetRootDirectory()
    with together(path.parent) as part, hushed():
        try:
            if not scene.WriteToMRB(str(part / path.name)):
                raise InputError(path, "cannot be written: Slicer could not pack the scene")
        finally:
            scene.SetURL(before[0] or "")
            scene.SetRootDirectory(before[1] or "")
    return path
