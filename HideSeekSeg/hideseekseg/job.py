"""The main job from files to files: what the command line does, and programs that import it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .anatomy.intensity import NotCTError
from .anatomy.labelling import LEVELS
from .errors import InputError
from .events import Cancelled, Event, Finished
from .files import together
from .findings import Evidence, Result, VertebraFinding
from .imaging.reading import read_ct, read_segmentation
from .imaging.volume import Volume
from .model.inference import is_out_of_memory
from .model.schedules import ScheduleError
from .model.weights import BUNDLE, DeviceError, Model, WeightsError, load_model
from .output.figures.overview import overview
from .output.seg_nrrd import write_segmentation
from .output.tables import write_csv, write_json
from .output.vertebra_file import write_vertebra
from .pipeline import Options, SegmentationError, segment_spine

EACH = "vertebrae"
FILES = ("lesions.seg.nrrd", "candidates.json", "candidates.csv", "overview.png")


@dataclass(frozen=True)
class Job:
    """``bodies`` is a segmentation of vertebral bodies for one of whole vertebrae.

    ``weights`` is a weights folder, the bundled one if None; ``device`` "auto", "cpu", "cuda" or
    "mps"; ``threads`` are those of the processor.  ``each`` also writes every vertebra to a file in
    the folder ``EACH`` of ``out`` as soon as it is finished.
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


def run(job: Job, on_event: Callable[[Event], None], should_stop: Callable[[], bool]) -> Result:
    """Read, segment, write ``FILES`` to ``job.out``; the last event is Finished or Cancelled.

    Raises InputError, one line that names file and cause, before the computation where that is
    possible; then nothing is written.  A stop writes the vertebrae that are finished, and no file
    where none is.  Files of ``each`` stay whatever happens to the vertebrae after them.
    """
    began = time.monotonic()
    folder = job.out / EACH if job.each else job.out
    with writable(folder):
        ct, segmentation = read_ct(job.ct), read_segmentation(job.segmentation)
        bodies = read_segmentation(job.bodies) if job.bodies else None
        model = _load(job)
        try:
            result, evidence = segment_spine(
                *(ct, segmentation, model, job.options, on_event, should_stop, bodies),
                keep=_Keeper(folder) if job.each else None,
            )
        except NotCTError as error:
            raise InputError(job.ct, str(error)) from error
        except ScheduleError as error:
            raise InputError("--schedule", str(error)) from error
        except SegmentationError as error:
            raise InputError(job.segmentation, str(error)) from error
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(
                f"{model.device} has too little memory for {model.profile.name}"
            ) from error
        kept, stopped = tuple(result.run["finished"]), result.run["stopped"]
        files = _write(job.out, ct, result, evidence) if kept or not stopped else ()
    seconds = time.monotonic() - began
    on_event(Cancelled(kept, files, seconds) if stopped else Finished(files, seconds))
    return result


class _Keeper:
    """Writes vertebrae as they come; the first one replaces all those of an earlier run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ready = folder, False

    def __call__(self, finding: VertebraFinding, evidence: Evidence | None) -> str:
        if not self._ready:
            self._clear()
            self._ready = True
        file = self._folder / f"{finding.level}.npz"
        write_vertebra(file, finding, evidence)
        return str(file)

    def _clear(self) -> None:
        for file in (self._folder / f"{level}.npz" for level in LEVELS):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise InputError(file, f"cannot be replaced: {error.strerror}") from error


def _load(job: Job) -> Model:
    if job.threads:
        torch.set_num_threads(job.threads)
    try:
        return load_model(job.weights or BUNDLE, job.device)
    except DeviceError as error:
        raise InputError("--device", str(error)) from error
    except WeightsError as error:
        raise InputError(error.path, error.cause) from error


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder, and make sure that files can be written to it; remove it if left empty."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(folder, f"cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        for made in missing:
            if not any(made.iterdir()):
                made.rmdir()


def _write(out: Path, ct: Volume, result: Result, evidence: dict[str, Evidence]) -> tuple[str, ...]:
    """All files are complete before the first one replaces an older one."""
    with together(out) as folder:
        write_segmentation(folder / FILES[0], ct.grid, result)
        write_json(folder / FILES[1], result)
        write_csv(folder / FILES[2], result)
        overview(folder / FILES[3], ct, result, evidence)
    return tuple(str(out / file) for file in FILES)
