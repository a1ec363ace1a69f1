"""One case of a cohort: what its result was made from, and what became of it.

Everything is kept in the file ``RECORD`` of the case's folder, beside what ``segment`` writes: so
a cohort can be gone on with wherever it was stopped, and by whoever has the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .. import __version__
from ..errors import InputError, UserError
from ..events import Event, Message
from ..files import files_in, make_folder, open_regular, read_object
from ..imaging.image_file import is_dicom
from ..model.profile import BUNDLE, read_profile
from ..output.result_folder import EXPORTED, FILES
from ..output.tables import write_plain
from ..plain_data import first_line, from_plain
from .manifest import Cohort, CohortCase, check_case

if TYPE_CHECKING:
    from ..model.weights import Model

RECORD = "case.json"
CASES = "cases"
INDEX = "cohort.json"
READINGS = "readings"  # of a case: a folder for each reader
MISSING = "missing"
# The voxels of these stand in files beside them, with the same name but for the suffix.
_DETACHED = (".mhd", ".nhdr", ".hdr", ".img")
_KEPT_LINES = 40  # of a traceback


class CaseStatus(str, Enum):
    """What became of a case; every case of a table has one.

    The last two stand in no record: there is none yet, or it is one of other options.
    """

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    KILLED = "killed"
    WAITING = "not run yet"
    EARLIER = "of an earlier run"


@dataclass(frozen=True)
class CohortSettings:
    """The options of ``segment`` that all cases of a cohort share; see ``Job`` and ``Options``."""

    weights: Path | None = None
    device: str = "auto"
    levels: tuple[str, ...] = ()
    threshold: float | None = None
    all_slices: bool = False
    schedule: str | None = None
    accept_orientation: bool = False
    patient_names: bool = False
    overwrite: bool = False
    each: bool = False

    def start(self, number: int) -> tuple[Model, tuple[int, str, str]]:
        """Load the weights in the worker of this number, which shares out the CUDA devices.

        Return them with the number of GPUs, the device, and why.  Raises WeightsError, DeviceError.
        """
        import torch

        gpus = torch.cuda.device_count() if self.device in ("auto", "cuda") else 0
        if gpus:
            torch.cuda.set_device(number % gpus)
        model = ready_model(self.weights, self.device)
        used = 0 if model.device.type == "cpu" else max(gpus, 1)
        return model, (used, str(model.device), model.device_reason)


@dataclass(frozen=True)
class InputState:
    """The files of one input: a digest of their times and sizes, and the SHA-256 of their content.

    ``sha256`` is empty where nobody has read them.
    """

    stat: str
    sha256: str = ""


@dataclass(frozen=True)
class CaseRecord:
    """What became of a case, and what it was made from.

    ``key`` stands for weights, options, labels and the version of this library.  ``memory_mb`` is
    the most that its process ever had; ``finished`` is a time in UTC.
    """

    case: str
    status: CaseStatus
    reason: str = ""
    key: str = ""
    inputs: dict[str, InputState] = field(default_factory=dict)
    seconds: float = 0.0
    memory_mb: float | None = None
    finished: str = ""
    warnings: tuple[str, ...] = ()
    traceback: str = ""


class TaskSettings(Protocol):
    """What all tasks of a run share; ``device`` is the one asked for ("auto", "cpu", ...).

    ``start(number)`` makes in a worker what ``Task.run`` is given, and returns it with the number
    of GPUs, the device and why.
    """

    @property
    def device(self) -> str: ...
    def start(self, number: int) -> tuple[Any, tuple[int, str, str]]: ...


@dataclass(frozen=True)
class NoNetwork:
    """Settings of tasks for which nothing need be loaded."""

    device: ClassVar[str] = "cpu"

    def start(self, number: int) -> tuple[None, tuple[int, str, str]]:
        """Return nothing to work with: no weights are needed."""
        return None, (0, "cpu", "no network is used")


class Task(Protocol):
    """What a worker can run: a case of a cohort, or an image of a training manifest.

    A data class that pickle carries.  ``folder`` is what it writes to, if anything; ``lost`` gives
    the record of a task whose process has ended.
    """

    @property
    def folder(self) -> Path | None: ...
    @property
    def settings(self) -> TaskSettings: ...
    def with_threads(self, threads: int) -> Task: ...
    def absolute(self) -> Task: ...
    def run(self, ready: Any) -> CaseRecord: ...
    def lost(self, status: CaseStatus, reason: str, seconds: float) -> CaseRecord: ...


@dataclass(frozen=True)
class CaseTask:
    """A case to run into ``folder``; ``retry`` runs one again that failed with the same inputs."""

    case: CohortCase
    folder: Path
    key: str
    settings: CohortSettings
    threads: int = 1
    retry: bool = False

    def with_threads(self, threads: int) -> CaseTask:
        """Return the task for a worker of so many threads."""
        return replace(self, threads=threads)

    def absolute(self) -> CaseTask:
        """Return the task for another machine: its paths do not depend on the working directory.

        Whatever record such a machine finds is one of this run.
        """
        case, settings = self.case, self.settings
        labels = case.labels
        if labels is not None and labels.lower().endswith(".json"):
            labels = str(Path(labels).absolute())
        case = replace(
            case,
            ct=case.ct.absolute(),
            segmentation=case.segmentation.absolute(),
            bodies=None if case.bodies is None else case.bodies.absolute(),
            labels=labels,
        )
        weights = None if settings.weights is None else settings.weights.absolute()
        folder, settings = self.folder.absolute(), replace(settings, weights=weights)
        return replace(self, case=case, folder=folder, settings=settings, retry=False)

    def run(self, ready: Model) -> CaseRecord:
        """Run the case with the weights that ``settings.start`` returned."""
        return run_case(self, ready)

    def lost(self, status: CaseStatus, reason: str, seconds: float) -> CaseRecord:
        """Write, and return, the record of a case whose process could not; raises InputError."""
        record = ended(self, status, reason, seconds)
        write_record(self.folder, record)
        return record


@dataclass(frozen=True)
class CheckTask:
    """A case whose headers are to be read; the warnings of its record say what is wrong with it."""

    case: CohortCase
    folder: ClassVar[None] = None
    settings: ClassVar[NoNetwork] = NoNetwork()

    def with_threads(self, threads: int) -> CheckTask:
        """Return the task itself: one thread does."""
        return self

    def absolute(self) -> CheckTask:
        """Return the task itself: other machines do not check."""
        return self

    def run(self, ready: None) -> CaseRecord:
        """Check the case; an error that nobody foresaw is a warning as well."""
        try:
            causes = check_case(self.case)
        except Exception as error:
            causes = [f"{self.case.ct}: {type(error).__name__}: {first_line(error)}"]
        return CaseRecord(self.case.name, CaseStatus.DONE, warnings=tuple(causes))

    def lost(self, status: CaseStatus, reason: str, seconds: float) -> CaseRecord:
        """Return the record of a case whose files ended the process that read them."""
        cause = f"{self.case.ct}: it or its segmentation cannot be checked: {reason}"
        return CaseRecord(self.case.name, status, reason, warnings=(cause,))


def case_key(case: CohortCase, settings: CohortSettings, weights_hash: str) -> str:
    """Return the digest of all that a result depends on beside its images."""
    labels = case.labels or ""
    if labels.lower().endswith(".json"):
        labels = _state(Path(labels), content=True).sha256
    used = asdict(replace(settings, weights=None, device="", overwrite=False))
    told = {**used, "weights": weights_hash, "labels": labels, "series": case.series}
    text = json.dumps({**told, "version": __version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def cohort_tasks(
    cohort: Cohort, out: Path, settings: CohortSettings, retry: bool = False
) -> list[CaseTask]:
    """Return a task for each case; raises WeightsError."""
    weights_hash = read_profile(settings.weights or BUNDLE).hash
    return [
        CaseTask(
            *(case, out / CASES / case.folder, case_key(case, settings, weights_hash), settings),
            retry=retry,
        )
        for case in cohort.cases
    ]


def write_index(cohort: Cohort, out: Path, tasks: Sequence[CaseTask]) -> None:
    """Write which cases a folder holds, so that tables and reports need no manifest.

    The keys of their ``tasks`` tell results of this run from what earlier ones left.
    """
    keys = {task.case.name: task.key for task in tasks}
    cases = [
        {
            **{"case": case.name, "patient": case.patient, "folder": case.folder},
            **dict(zip(("ct", "segmentation", "labels", "series"), inputs_of(case))),
            **{"key": keys.get(case.name, ""), "further": dict(case.further)},
        }
        for case in cohort.cases
    ]
    index = {"schema": 1, "manifest": str(cohort.path.absolute()), "further": cohort.further}
    write_plain(out / INDEX, {**index, "cases": cases})


def inputs_of(case: CohortCase) -> tuple[str, str, str, str]:
    """Return CT, segmentation, labels and series of a case as the index has them."""
    ct, segmentation = str(case.ct.absolute()), str(case.segmentation.absolute())
    return ct, segmentation, _labels_of(case), case.series


def _labels_of(case: CohortCase) -> str:
    """Return a convention, or the path of a JSON file that does not depend on where one is."""
    labels = case.labels or ""
    return str(Path(labels).absolute()) if labels.lower().endswith(".json") else labels


def read_record(folder: Path) -> CaseRecord | None:
    """Return what became of the case of a folder, None where nothing can be read of it."""
    try:
        return from_plain(CaseRecord, read_object(folder / RECORD))
    except (InputError, ValueError):
        return None


def write_record(folder: Path, record: CaseRecord) -> None:
    """Write the record; raises InputError."""
    make_folder(folder)
    write_plain(folder / RECORD, asdict(record))


def is_current(task: CaseTask, record: CaseRecord | None) -> bool:
    """Return whether nothing need be done for a case, as far as sizes and times of files tell.

    Where these differ, ``run_case`` compares the content.
    """
    if record is None or record.key != task.key:
        return False
    stats = {name: state.stat for name, state in _states(task.case).items()}
    same = {name: state.stat for name, state in record.inputs.items()} == stats
    return same and _is_settled(task, record)


def _is_settled(task: CaseTask, record: CaseRecord) -> bool:
    """Return whether a case of unchanged inputs need not be run again."""
    if record.status is CaseStatus.DONE:
        return all((task.folder / name).is_file() for name in FILES)
    return not task.retry


def ended(task: CaseTask, status: CaseStatus, reason: str, seconds: float) -> CaseRecord:
    """Return the record of a case whose process ended before it could write one."""
    states = _states(task.case)
    return CaseRecord(
        *(task.case.name, status, reason, task.key, states, round(seconds, 2)), finished=_now()
    )


def run_case(task: CaseTask, model: Model) -> CaseRecord:
    """Run a case and write its result and its record; whatever goes wrong is told in the record."""
    began = time.monotonic()
    try:
        states = _states(task.case, content=True)
        before = read_record(task.folder)
        if before is not None and _is_made_from(task, before, states):
            record = replace(before, inputs=states)
        else:
            record = _attempt(task, model, before)
            now = _states(task.case)
            changed = [name for name, state in now.items() if state.stat != states[name].stat]
            if changed:
                reason = (
                    f"{_inputs(task.case)[changed[0]]}: has changed while it was read: run again"
                )
                record = replace(record, status=CaseStatus.FAILED, reason=reason)
            seconds = round(time.monotonic() - began, 2)
            record = replace(record, inputs=states, seconds=seconds, finished=_now())
            record = replace(record, memory_mb=_memory_mb())
        write_record(task.folder, record)
    except UserError as error:  # a folder that cannot be written to
        record = CaseRecord(task.case.name, CaseStatus.REFUSED, str(error), task.key)
    return record


def _is_made_from(task: CaseTask, record: CaseRecord, states: Mapping[str, InputState]) -> bool:
    known = {name: state.sha256 for name, state in record.inputs.items()}
    same = known == {name: state.sha256 for name, state in states.items()}
    return same and record.key == task.key and _is_settled(task, record)


def _attempt(task: CaseTask, model: Model, before: CaseRecord | None) -> CaseRecord:
    from ..inputs import Options
    from ..job import Job, run
    from .report import draw_findings

    case, settings, warnings = task.case, task.settings, []

    def keep(event: Event) -> None:
        if isinstance(event, Message) and event.level == "warning":
            warnings.append(event.text)

    options = Options(
        *(case.labels, settings.levels, settings.threshold, settings.all_slices),
        *(settings.schedule, settings.accept_orientation),
    )
    # A result of ours may be replaced, but not what somebody reviewed.
    reviewed = any((task.folder / name).exists() for name in (*EXPORTED, READINGS))
    job = Job(
        *(case.ct, case.segmentation, task.folder, case.bodies, settings.weights),
        *(settings.device, task.threads, options, settings.each, case.series),
        overwrite=settings.overwrite or (before is not None and not reviewed),
        patient_names=settings.patient_names,
    )
    status, reason, trace = CaseStatus.DONE, "", ""
    try:
        result = run(job, keep, lambda: False, model)
        draw_findings(task.folder, result)
    except UserError as error:
        status, reason = CaseStatus.REFUSED, str(error)
    except MemoryError as error:
        status, reason = CaseStatus.FAILED, f"out of memory: {first_line(error)}"
    except Exception as error:
        status, reason = CaseStatus.FAILED, f"{type(error).__name__}: {first_line(error)}"
        trace = "\n".join(traceback.format_exc().splitlines()[-_KEPT_LINES:])
    return CaseRecord(
        *(case.name, status, reason, task.key), warnings=tuple(warnings), traceback=trace
    )


@cache
def ready_model(weights: Path | None, device: str) -> Model:
    """Return the weights, loaded once in each process; raises WeightsError or DeviceError."""
    from ..model.weights import load_model

    return load_model(weights or BUNDLE, device)


def _inputs(case: CohortCase) -> dict[str, Path]:
    found = {"ct": case.ct, "segmentation": case.segmentation, "bodies": case.bodies}
    return {name: path for name, path in found.items() if path is not None}


def _files(path: Path, series: bool) -> Iterator[Path]:
    """Yield all files that reading a path may read, in order.

    ``series``: with one file of a DICOM series, all in its folder are read.
    """
    found: Iterable[Path] = [path]
    if path.is_dir():
        found = files_in(path, tell=lambda line: None)  # what is closed is refused on reading
    elif path.suffix.lower() in _DETACHED:
        found = (file for file in path.parent.iterdir() if file.stem == path.stem)
    elif series and path.is_file() and is_dicom(path):
        found = path.parent.iterdir()
    yield from sorted(file for file in found if file.is_file())


def _states(case: CohortCase, content: bool = False) -> dict[str, InputState]:
    """Return the state of each input of a case; ``content`` reads them.

    A segmentation that is one DICOM file (SEG, structure set) is read without those beside it.
    """
    inputs = _inputs(case).items()
    return {name: _state(path, content, series=name == "ct") for name, path in inputs}


def _state(path: Path, content: bool = False, series: bool = False) -> InputState:
    """Return the state of an input; ``content`` reads it.  What cannot be read is as missing.

    A file that was written to has another change time (ctime), whatever was done to its times.
    """
    stats, digest = hashlib.sha256(), hashlib.sha256()
    try:
        files = list(_files(path, series))
        for file in files:
            said = file.stat()
            name = file.relative_to(path if path.is_dir() else path.parent).as_posix()
            line = f"{name}\0{said.st_size}\0{said.st_mtime_ns}\0{said.st_ctime_ns}\n"
            stats.update(line.encode("utf-8", "surrogatepass"))
            if content:
                # The name of a single file may change; those in a folder tell structures apart.
                own = name if path.is_dir() else ""
                digest.update(f"{own}\0{said.st_size}\0".encode("utf-8", "surrogatepass"))
                with open_regular(file) as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    except (OSError, ValueError, InputError):
        files = []
    if not files:
        return InputState(MISSING, MISSING if content else "")
    return InputState(stats.hexdigest(), digest.hexdigest() if content else "")


def _memory_mb() -> float | None:
    """Return the most memory that this process ever had, where the system counts it."""
    with suppress(OSError, ValueError):  # Linux, whose other count includes the process that forked
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
        return round(float(status.partition("VmHWM:")[2].split("kB")[0]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1 << 20 if os.uname().sysname == "Darwin" else 1 << 10), 1)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
