"""The scene of the browser app: opened as Slicer opens it, filled with a patient, and saved."""

from __future__ import annotations

import asyncio
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import slicer
import vtk

from ..anatomy.alignment import file_notes, settled
from ..anatomy.label_conventions import CONVENTIONS
from ..anatomy.segment_names import may_be_vertebra
from ..errors import InputError
from ..files import temporary_folder, together
from ..imaging.image_file import captured
from ..imaging.reading import read_ct, read_segmentation
from ..imaging.segmentation import Segmentation
from ..imaging.volume import Volume, content_hash
from ..output.result_folder import SCENE
from ..plain_data import shortened
from ..scene.export_inputs import LevelRow, levelRows, problems
from ..scene.import_data import addCt, addSegmentation, read_scene, removeData, scanOf
from ..scene.segments import addSurfaces, removeSurfaces
from ..scene.views import boneWindow
from ..ui import level_choices
from ..ui import sample_data as sample
from ..ui.autosave import Kept, ScanSource
from ..ui.child_process import read_apart
from ..ui.recovery import matching
from ..ui.review_session import ReviewSession, sessions


def save_all(
    work: ReviewSession, folder: Path, reviewer: str, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write accepted findings (.seg.nrrd, CSV, JSON) and the scene; return their paths.

    All of them are new, or none is.  ``overwrite`` replaces the result of another scan.  Raises
    InputError and NoVoxelsError as ``export_accepted``.
    """
    files = work.export(folder, reviewer, overwrite, lambda part: _pack(part / SCENE))
    return (*files, folder / SCENE)


def save_scene(path: Path) -> Path:
    """Write the scene as Slicer packs it, complete from the moment it has its name."""
    with together(path.parent) as part:
        _pack(part / path.name)
    return path


def _pack(path: Path) -> None:
    """Write the scene under its own name, by which Slicer names what is inside, and stay elsewhere.

    Raises InputError where it cannot be written.
    """
    scene = slicer.mrmlScene
    before: tuple[Any, Any] = scene.GetURL(), scene.GetRootDirectory()
    with captured():
        try:
            if not scene.WriteToMRB(str(path)):
                cause = "cannot be written: Slicer could not pack the scene, as on a full disk"
                raise InputError(path, cause)
        finally:
            scene.SetURL(before[0] or "")
            scene.SetRootDirectory(before[1] or "")


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


@dataclass
class Patient:
    """Both nodes are None before anything is loaded.

    ``corrections`` are what the reader says of segments, by their ids, as
    ``scene.export_inputs.levelRows`` takes them; ``notes`` what is odd about the files; ``source``
    where both came from.
    """

    ct: Any = None
    vertebrae: Any = None
    corrections: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: ScanSource = field(default_factory=ScanSource)

    @property
    def names(self) -> tuple[str, str]:
        ct, vertebrae = self.ct, self.vertebrae
        return ct.GetName() if ct else "", vertebrae.GetName() if vertebrae else ""

    def problems(self) -> list[str]:
        """Return why no run can start, one line each."""
        return problems(self.ct, self.vertebrae, self.corrections)

    def rows(self) -> list[LevelRow]:
        """As the run will see them, vertebrae first."""
        if self.vertebrae is None:
            return []
        order = {
            row.segmentID: n for n, row in enumerate(sorted(self._read(), key=level_choices.rank))
        }
        return sorted(levelRows(self.vertebrae, self.corrections), key=lambda r: order[r.segmentID])

    def correct(self, identity: str, choice: str, kind: str) -> None:
        """Correct what a segment is; what was read anyway needs no correction."""
        text = level_choices.correction(choice, kind)
        read = {row.segmentID: level_choices.as_read(row) for row in self._read()}
        if read.get(identity) == text:
            self.corrections.pop(identity, None)
        elif identity in read:
            self.corrections[identity] = text

    def read_by(self, convention: str) -> None:
        """Read unnamed segments by a convention; "names" goes back to what the file says.

        Corrections start anew.  Raises InputError for an unknown one, or a file without one.
        """
        self.corrections = {}
        if self.vertebrae is None or convention in ("", "names"):
            return
        if convention not in CONVENTIONS and not _is_file(convention):
            raise InputError(
                shortened(convention), f"is neither a file nor one of {', '.join(CONVENTIONS)}"
            )
        read = {row.segmentID: level_choices.as_read(row) for row in self._read()}
        for row in levelRows(self.vertebrae, {}, convention):
            text = level_choices.as_read(row)
            if read[row.segmentID] != text:
                self.corrections[row.segmentID] = text

    def take_over(self, levels: Mapping[str, str]) -> None:
        """Read segments as a saved review's run did; ``levels`` are its texts by segment id."""
        read = {row.segmentID: level_choices.as_read(row) for row in self._read()}
        self.corrections = {i: t for i, t in levels.items() if read.get(i, t) != t}

    def surfaces(self) -> Iterator[Any]:
        """Make the vertebrae's surfaces anew, one at a time."""
        removeSurfaces()
        if self.vertebrae is not None:
            yield from addSurfaces(self.vertebrae, self.rows())

    def bounds(self) -> tuple[float, ...] | None:
        """Box around the segmentation, RAS mm, or None."""
        if self.vertebrae is None:
            return None
        bounds = [0.0] * 6
        self.vertebrae.GetRASBounds(bounds)
        return tuple(bounds) if bounds[0] <= bounds[1] else None

    def _read(self) -> list[LevelRow]:
        return levelRows(self.vertebrae) if self.vertebrae is not None else []


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # no file can have such a name
        return False


CHANGED = "is not the scan any more that was reviewed"


async def load_files(
    ct: Path,
    vertebrae: Path,
    series: str = "",
    uploaded: bool = False,
    names: bool = False,
    read: tuple[Volume, Segmentation] | None = None,
    kept: Kept | None = None,
) -> Patient:
    """Files, or a folder of DICOM slices for the CT; InputError leaves the scene as it is.

    Of an uploaded CT the private path is not told on.  ``read`` are both where they were read.
    ``kept`` is a review that is to be restored: another scan than its own is refused.
    """
    volume, labels = read or await read_files(ct, vertebrae, series, names)
    volume, labels, _ = await asyncio.to_thread(settled, volume, labels, None, None)
    if kept is not None:
        hashed = await asyncio.to_thread(content_hash, volume.array, volume.grid)
        _check_scan(kept, hashed)
    removeData()
    ct_node = addCt(replace(volume, path="") if uploaded else volume, _bare(ct))
    segmentation = addSegmentation(labels, _bare(vertebrae), ct_node)
    source = ScanSource(str(ct.absolute()), str(vertebrae.absolute()), series)
    notes = file_notes(volume, *labels.layers[:1])
    return _shown(Patient(ct_node, segmentation, notes=notes, source=source))


async def read_files(
    ct: Path, vertebrae: Path, series: str = "", names: bool = False
) -> tuple[Volume, Segmentation]:
    """Read both files, each in a process of its own; raises InputError."""
    read_labels = partial(read_segmentation, undecided=True)
    read_volume = partial(read_ct, undecided=True)
    reading_labels = asyncio.create_task(read_apart(vertebrae, read_labels, may_be_vertebra))
    try:
        return await read_apart(ct, read_volume, series, names), await reading_labels
    finally:
        reading_labels.cancel()


async def load_example(kept: Kept | None = None) -> Patient:
    """Load the simulated CT with a lytic and a blastic lesion; ``kept`` as of ``load_files``."""
    ct = (await asyncio.to_thread(sample.draw)).ct
    if kept is not None:
        _check_scan(kept, content_hash(ct.array, ct.grid))
    removeData()
    return _shown(Patient(*sample.loadExample()))


async def load_scene(
    path: Path, complain: Callable[[str], None], kept: Kept | None = None
) -> Patient:
    """Replace the scene by a saved one; return the scan of its latest review with a CT.

    It is read in a process of its own first: Slicer's readers end theirs over damaged files, and
    what cannot be reviewed leaves the scene as it is.  ``complain`` is told of reviews that cannot
    be read.  ``kept`` is a review that is to be restored: the scan is its own then.  Raises
    InputError where it is no scene, or has no such review.
    """
    await read_apart(path, _try_scene, kept)
    read_scene(path, before=removeData)
    results = _review_in(path, complain, kept).results
    source = ScanSource(str(path.absolute()))
    return _shown(Patient(results.ctNode, results.segmentationNode, source=source))


def _try_scene(path: Path, kept: Kept | None) -> None:
    with temporary_folder(purpose="scene") as cache, captured():
        scene = open_scene(cache)
        read_scene(path)
        _review_in(path, lambda text: None, kept)
        del scene


def _review_in(path: Path, complain: Callable[[str], None], kept: Kept | None) -> ReviewSession:
    """Return the review of a scene that was read which ``load_scene`` is to show."""
    found = [work for work in sessions(complain) if work.results.ctNode is not None]
    if not found:
        raise InputError(path, "contains no review of HideSeekSeg")
    if kept is None:
        return found[-1]
    scan = kept.scan.get("sha256")
    work = next((x for x in found if x.scan.get("sha256") == scan), found[-1])
    ct = work.results.ctNode
    _check_scan(kept, scanOf(ct).get("sha256", ""))
    matching(kept, ct)
    return work


def _check_scan(kept: Kept, sha256: str) -> None:
    """Raise InputError where a CT is not the one of a review that was kept."""
    if sha256 != kept.scan.get("sha256"):
        raise InputError(kept.source.ct or "the example", CHANGED)


def _shown(patient: Patient) -> Patient:
    """Show the CT in a bone window and hide the vertebrae, which would cover the bone."""
    boneWindow(patient.ct)
    if patient.vertebrae is not None:
        patient.vertebrae.GetDisplayNode().SetVisibility(False)
    return patient


def _bare(path: Path) -> str:
    """Return the name without the suffix of its format."""
    name = path.name
    for suffix in (".gz", ".seg.nrrd", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr"):
        name = name.removesuffix(suffix)
    return name or path.name
