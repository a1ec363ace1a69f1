"""The main job: from files or volumes to a result, and from files to files.

torch is imported once the inputs are read and checked: it takes longer than that.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .anatomy.alignment import settled
from .anatomy.segment_names import may_be_vertebra
from .errors import DeviceError, InputError, UserError
from .events import Cancelled, Event, Finished
from .files import locked, remove_abandoned, together
from .findings import LESION_TYPES, Evidence, Result, VertebraFinding
from .imaging.image_file import check_name, write_image
from .imaging.reading import read_ct, read_ct_apart, read_segmentation
from .imaging.segmentation import Segmentation
from .imaging.volume import Volume, scan_identity, to_sitk
from .inputs import CheckedInputs, Options, check_inputs
from .model.profile import BUNDLE
from .output.figures.overview import overview
from .output.result_folder import (
    EACH,
    FILES,
    MASK_FILES,
    Claim,
    claim,
    remove_vertebrae,
    require_no_input,
    write_vertebra,
)
from .output.seg_nrrd import lesion_mask, write_segmentation
from .output.tables import write_csv, write_json

if TYPE_CHECKING:
    from .model.weights import Model

__all__ = ["EACH", "FILES", "Job", "run", "segment", "writable"]


@dataclass(frozen=True)
class Job:
    """``bodies`` is a segmentation of vertebral bodies for one of whole vertebrae.

    ``weights`` is a weights folder, the bundled one if None; ``device`` "auto", "cpu", "cuda" or
    "mps"; ``threads`` the number of CPU threads.  ``each`` also writes every vertebra to a file in
    the folder ``EACH`` of ``out`` as soon as it is finished.  ``series`` chooses a DICOM series of
    the folder ``ct`` by its UID or number.  ``overwrite`` replaces the result of another scan in
    ``out``; ``patient_names`` writes the patient's name and number, where DICOM has them; ``nifti``
    writes a mask of each type of lesion as well, ``picture`` the overview.
    """

    ct: Path
    segmentation: Path
    out: Path
    bodies: Path | None = None
    weights: Path | None = None
    device: str = "auto"
    threads: int | None = None
    options: Options = field(default_factory=Options)
    each: bool = False
    series: str = ""
    overwrite: bool = False
    patient_names: bool = False
    nifti: bool = False
    picture: bool = True

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of the files that are written to ``out``."""
        picture = FILES[3:] if self.picture else ()
        return (*FILES[:3], *picture, *(MASK_FILES if self.nifti else ()))


def segment(
    ct: Volume | str | os.PathLike[str],
    segmentation: Segmentation | str | os.PathLike[str],
    *,
    bodies: Segmentation | str | os.PathLike[str] | None = None,
    weights: Model | str | os.PathLike[str] | None = None,
    device: str = "auto",
    labels: str | os.PathLike[str] | None = None,
    levels: Sequence[str] = (),
    threshold: float | None = None,
    all_slices: bool = False,
    schedule: str | None = None,
    accept_orientation: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Find the lesions of every segmented vertebra; nothing is written.

    ``ct`` and ``segmentation`` are paths, or what ``read_ct`` and ``read_segmentation`` return;
    ``bodies`` a segmentation of vertebral bodies where ``segmentation`` holds whole vertebrae.
    ``weights`` is a weights folder (default: the bundled weights) run on ``device`` ("auto", "cpu",
    "cuda" or "mps"), or what ``load_model`` returns, which stays on its own device.  ``labels`` is
    a label convention by name or a JSON file.  The other options are those of
    ``hideseekseg segment``; see ``Options``.  DICOM is read in this process (see ``read_ct``).
    Positions in the result are LPS mm; its ``evidence`` holds the images of each analysed vertebra.

    ``on_event`` receives ``events``; once ``should_stop()`` is true, the result has what is
    finished until then.  Exceptions raised by ``on_event`` abort the run.  Raises UserError, one
    line naming the file (or option) and the cause, and MemoryError.
    """
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        raise InputError("levels", f"{levels!r} is not a list of levels such as ['T12', 'L1']")
    named = None if labels is None else _path("labels", labels, "the name of a convention")
    options = Options(named, tuple(levels), threshold, all_slices, schedule, accept_orientation)
    volume = ct
    if not isinstance(volume, Volume):
        volume = read_ct(_path("ct", volume, "what read_ct returns"), undecided=True)
    vertebrae = _segmentation(segmentation)
    marked = None if bodies is None else _segmentation(bodies, "bodies")
    scan = scan_identity(volume)
    inputs = _checked(volume, vertebrae, marked, options)
    result = _segment(inputs, _loaded(weights, device), on_event, should_stop)
    return replace(result, run={"scan": scan, **result.run})


def _path(name: str, value: object, other: str) -> str:
    """Return an argument that is a path; refuse anything else, and say what it may be instead."""
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(name, f"is of type {type(value).__name__}: give a path or {other}")
    return os.fspath(value)


def _segmentation(
    source: Segmentation | str | os.PathLike[str], name: str = "segmentation"
) -> Segmentation:
    if isinstance(source, Segmentation):
        return source
    path = _path(name, source, "what read_segmentation returns")
    return read_segmentation(path, may_be_vertebra, undecided=True)


def _checked(
    ct: Volume, segmentation: Segmentation, bodies: Segmentation | None, options: Options
) -> CheckedInputs:
    ct, segmentation, bodies = settled(ct, segmentation, bodies, options.labels)
    return check_inputs(ct, segmentation, options, bodies)


def load_libraries() -> None:
    """Import torch and all that needs it, which takes longer than to read the inputs."""
    collects = gc.isenabled()
    gc.disable()  # torch makes half a million objects, among which it would look for garbage
    try:
        from . import pipeline  # noqa: F401
    finally:
        if collects:
            gc.enable()


class _LoadedAhead:
    """What a process that stands by loads before it hears of its inputs: the bundled weights."""

    bundle: Model | None = None


def prepare_process() -> None:
    """Load what nearly every run needs, whatever its inputs: torch, and the bundled weights.

    Weights that cannot be loaded, or have no room on their device, are no error yet: the run that
    needs them tells of it.
    """
    load_libraries()
    from .model.weights import load_model

    with suppress(UserError, RuntimeError):
        _LoadedAhead.bundle = load_model(BUNDLE)


def _loaded(weights: Model | str | os.PathLike[str] | None, device: str) -> Model:
    """Load torch and the weights, the bundled ones for None; a model is returned as it is."""
    load_libraries()
    from .model import weights as models

    if not isinstance(weights, models.Model):
        named = weights is not None
        path = _path("weights", weights, "what load_model returns") if named else BUNDLE
        return models.load_model(path, device, _LoadedAhead.bundle)
    if device not in ("auto", str(weights.device), weights.device.type):
        cause = f"{device!r} was asked for, but the model was loaded on {weights.device}"
        raise DeviceError("device", cause)
    return weights


def _segment(
    inputs: CheckedInputs,
    model: Model,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
    keep: Callable[[VertebraFinding, Evidence | None], str] | None = None,
) -> Result:
    """Run the pipeline; memory that runs out on the CPU as well is a MemoryError, one line."""
    from .model.inference import is_out_of_memory
    from .pipeline import segment_spine

    try:
        return segment_spine(inputs, model, on_event, should_stop, keep)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            f"{model.device} has too little memory for {model.profile.name}"
        ) from error


def run(
    job: Job,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
    ready: Model | None = None,
) -> Result:
    """Read, segment, write ``job.files`` to ``job.out``; the last event is Finished or Cancelled.

    ``ready`` is a model that was loaded before, in place of ``job.weights`` and ``job.device``: by
    a worker, which may crash.  Without it DICOM is read in a process of its own, in which a damaged
    file may crash GDCM.
    Raises UserError, one line that names file and cause, before the computation where that is
    possible; then nothing is written.  A stop writes the vertebrae that are finished, and no file
    where none is.  Files of ``each`` stay whatever happens to the vertebrae after them.
    """
    began = time.monotonic()
    folder = job.out / EACH if job.each else job.out
    with writable(folder), _claimed(job, ready is None) as (ct, segmentation, scan, claim):
        bodies = None if job.bodies is None else _segmentation(job.bodies)
        inputs = _checked(ct, segmentation, bodies, job.options)
        model = ready or _loaded(job.weights, job.device)
        if job.threads:
            import torch

            torch.set_num_threads(job.threads)
        keep = _Keeper(claim, scan) if job.each else None
        result = _segment(inputs, model, on_event, should_stop, keep)
        kept, stopped = tuple(result.run["finished"]), result.run["stopped"]
        result = replace(result, run={"scan": scan, **result.run})
        files = _write(claim, keep, inputs.ct, result, job) if kept or not stopped else ()
    seconds = time.monotonic() - began
    on_event(Cancelled(kept, files, seconds) if stopped else Finished(files, seconds))
    return result


@contextmanager
def _claimed(job: Job, apart: bool) -> Iterator[tuple[Volume, Segmentation, dict[str, str], Claim]]:
    """Read CT and segmentation, and take the folder for the CT's result.

    Another run in it is refused before that.  ``apart`` as of ``read_ct_apart``.
    """
    given = (job.ct, job.segmentation, job.bodies)
    require_no_input(job.out, [Path(path) for path in given if path is not None])
    with locked(job.out):
        with ThreadPoolExecutor(1) as beside:  # one is unpacked while the other is
            vertebrae = beside.submit(_segmentation, job.segmentation)
            read = read_ct_apart if apart else partial(read_ct, undecided=True)
            ct = read(job.ct, job.series, job.patient_names)
            scan = scan_identity(ct)
            taken = claim(job.out, scan, job.overwrite, "--overwrite")
        yield ct, vertebrae.result(), scan, taken


class _Keeper:
    """Write vertebrae as they are finished; the first one replaces those of an earlier run.

    Of another scan's result nothing stays beside them.
    """

    def __init__(self, claim: Claim, scan: Mapping[str, str]) -> None:
        self._claim, self._scan = claim, scan
        self.began = False

    def __call__(self, finding: VertebraFinding, evidence: Evidence | None) -> str:
        folder = self._claim.folder
        if not self.began:
            self._claim.clear()
            remove_vertebrae(folder)
            (folder / EACH).mkdir(exist_ok=True)
            self.began = True
        file = folder / EACH / f"{finding.level}.npz"
        write_vertebra(file, finding, evidence, self._scan)
        return str(file)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder, and make sure that files can be written to it; remove it if left empty."""
    check_name(folder)
    try:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        remove_abandoned(folder)
        remove_abandoned()
    except OSError as error:
        raise InputError(folder, f"cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(str(folder).replace("\0", "?"), "is not a possible file name") from error
    try:
        yield
    finally:
        for made in missing:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def _write(
    claim: Claim, keep: _Keeper | None, ct: Volume, result: Result, job: Job
) -> tuple[str, ...]:
    """Write all files; all are complete before the first one replaces an older one.

    What an earlier run wrote beside goes: vertebrae one by one, and files that were not asked for
    this time would contradict the new tables.
    """
    out = claim.folder
    with together(out) as folder:
        write_segmentation(folder / FILES[0], ct.grid, result)
        write_json(folder / FILES[1], result)
        write_csv(folder / FILES[2], result)
        if job.picture:
            overview(folder / FILES[3], ct, result, result.evidence)
        for name, kind in zip(MASK_FILES if job.nifti else (), LESION_TYPES):
            write_image(folder / name, to_sitk(lesion_mask(ct, result, kind)))
        if keep is None or not keep.began:
            claim.clear()
            remove_vertebrae(out)
    for name in {*FILES, *MASK_FILES}.difference(job.files):
        (out / name).unlink(missing_ok=True)
    return tuple(str(out / name) for name in job.files)
