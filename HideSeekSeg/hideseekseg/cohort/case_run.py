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
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .. import __version__
from ..errors import InputError, UserError, WeightsError
from ..events import Event, Message
from ..files import files_in, make_folder, open_regular, read_object
from ..imaging.image_file import is_dicom
from ..imaging.series_files import files_beside, series_files
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
# Part of every key.  What earlier versions recorded may be of weights that were replaced meanwhile,
# and says nothing of files of labels: such cases are run anew.
_RECORDS = 2


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
        stored = read_profile(self.weights or BUNDLE)
        model = ready_model(self.weights, self.device, stored.hash)
        used = 0 if model.device.type == "cpu" else max(gpus, 1)
        return model, (used, str(model.device), model.device_reason)


@dataclass(frozen=True)
class InputState:
    """The files of one input: a digest of their times and sizes, and the SHA-256 of their content.

    ``sha256`` is empty where nobody has read them, ``path`` where an earlier version wrote it.
    """

    stat: str
    sha256: str = ""
    path: str = ""


@dataclass(frozen=True)
class CaseInputs:
    """What a result is made from, as the index of a cohort has it: paths that are absolute.

    ``bodies`` and ``labels`` are empty where there are none; ``labels`` may be a convention.
    """

    ct: str
    segmentation: str
    bodies: str = ""
    labels: str = ""
    series: str = ""

    @property
    def files(self) -> dict[str, Path]:
        """Return the paths of all inputs that are read, by name."""
        said = {"ct": self.ct, "segmentation": self.segmentation, "bodies": self.bodies}
        said["labels"] = self.labels if _is_json(self.labels) else ""
        return {name: Path(text) for name, text in said.items() if text}


@dataclass(frozen=True)
class CaseRecord:
    """What became of a case, and what it was made from.

    ``key`` stands for weights, options, labels and the version of this library; it is empty while
    the result is being replaced.  ``memory_mb`` is the most that its process ever had; ``finished``
    is a time in UTC.
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


@dataclass(frozen=True)
class CheckRecord(CaseRecord):
    """What headers tell of a case: ``warnings`` are what is wrong, ``notes`` what is not."""

    notes: tuple[str, ...] = ()


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
        inputs = inputs_of(case)
        case = replace(
            case,
            ct=Path(inputs.ct),
            segmentation=Path(inputs.segmentation),
            bodies=Path(inputs.bodies) if inputs.bodies else None,
            labels=inputs.labels or None,
        )
        weights = None if settings.weights is None else settings.weights.absolute()
        folder, settings = self.folder.absolute(), replace(settings, weights=weights)
        return replace(self, case=case, folder=folder, settings=settings, retry=False)

    def run(self, ready: Model) -> CaseRecord:
        """Run the case with the weights that ``settings.start`` returned; raises WeightsError."""
        return run_case(self, ready)

    def lost(self, status: CaseStatus, reason: str, seconds: float) -> CaseRecord:
        """Write, and return, the record of a case whose process could not; raises InputError."""
        record = ended(self, status, reason, seconds)
        write_record(self.folder, record)
        return record


@dataclass(frozen=True)
class CheckTask:
    """A case whose headers are to be read; its record is a ``CheckRecord``."""

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
            causes, notes = check_case(self.case)
        except Exception as error:
            causes, notes = [f"{self.case.ct}: {type(error).__name__}: {first_line(error)}"], []
        name, said = self.case.name, tuple(causes)
        return CheckRecord(name, CaseStatus.DONE, warnings=said, notes=tuple(notes))

    def lost(self, status: CaseStatus, reason: str, seconds: float) -> CaseRecord:
        """Return the record of a case whose files ended the process that read them."""
        cause = f"{self.case.ct}: it or its segmentation cannot be checked: {reason}"
        return CaseRecord(self.case.name, status, reason, warnings=(cause,))


def case_key(case: CohortCase, settings: CohortSettings, weights_hash: str) -> str:
    """Return the digest of all that a result depends on beside its files (``CaseInputs``)."""
    labels = case.labels or ""
    used = asdict(replace(settings, weights=None, device="", overwrite=False))
    told = {**used, "weights": weights_hash, "series": case.series, "records": _RECORDS}
    told["labels"] = "JSON" if _is_json(labels) else labels
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
            **asdict(inputs_of(case)),
            **{"key": keys.get(case.name, ""), "further": dict(case.further)},
        }
        for case in cohort.cases
    ]
    index = {"schema": 1, "manifest": str(cohort.path.absolute()), "further": cohort.further}
    write_plain(out / INDEX, {**index, "cases": cases})


def inputs_of(case: CohortCase) -> CaseInputs:
    """Return what the result of a case is made from; paths do not depend on where one is."""
    bodies = "" if case.bodies is None else str(case.bodies.absolute())
    labels = case.labels or ""
    labels = str(Path(labels).absolute()) if _is_json(labels) else labels
    ct, segmentation = str(case.ct.absolute()), str(case.segmentation.absolute())
    return CaseInputs(ct, segmentation, bodies, labels, case.series)


def _is_json(labels: str) -> bool:
    return labels.lower().endswith(".json")


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
    return not restated(record, inputs_of(task.case)) and _is_settled(task, record)


def restated(record: CaseRecord, inputs: CaseInputs) -> list[str]:
    """Return the names of the inputs whose files have other sizes or times than recorded."""
    now = input_states(inputs)
    names = dict.fromkeys((*record.inputs, *now))
    return [n for n in names if _stat(record.inputs.get(n)) != _stat(now.get(n))]


def changed_inputs(record: CaseRecord, inputs: CaseInputs) -> list[str]:
    """Return the names of the inputs that are others than those that a record was made from.

    Content counts, and is read where sizes or times differ.  A file that has gone cannot be
    compared: it counts as the same where the record is of its path.
    """
    return [name for name in restated(record, inputs) if not _is_same(record, inputs, name)]


def _is_same(record: CaseRecord, inputs: CaseInputs, name: str) -> bool:
    was, path = record.inputs.get(name), inputs.files.get(name)
    if was is None or path is None:
        return False
    now = _state(path, content=True, series=inputs.series if name == "ct" else None)
    if now.stat == MISSING:
        return was.path == now.path
    return was.sha256 == now.sha256


def _stat(state: InputState | None) -> str:
    return "" if state is None else state.stat


def _is_settled(task: CaseTask, record: CaseRecord) -> bool:
    """Return whether a case of unchanged inputs need not be run again."""
    if record.status is CaseStatus.DONE:
        return all((task.folder / name).is_file() for name in FILES)
    return not task.retry


def ended(task: CaseTask, status: CaseStatus, reason: str, seconds: float) -> CaseRecord:
    """Return the record of a case whose process ended before it could write one."""
    states = input_states(inputs_of(task.case))
    return CaseRecord(
        *(task.case.name, status, reason, task.key, states, round(seconds, 2)), finished=_now()
    )


def run_case(task: CaseTask, model: Model) -> CaseRecord:
    """Run a case and write its result and its record; whatever goes wrong is told in the record.

    Raises WeightsError, and writes nothing, where ``model`` is not what the task's key stands for.
    """
    if case_key(task.case, task.settings, model.hash) != task.key:
        raise WeightsError(
            task.settings.weights or BUNDLE,
            "has changed since the run began, or is of another version of hideseekseg: run again",
        )
    began = time.monotonic()
    inputs = inputs_of(task.case)
    try:
        states = input_states(inputs, content=True)
        before = read_record(task.folder)
        if before is not None and _is_made_from(task, before, states):
            record = replace(before, inputs=states)
        else:
            if before is not None:
                # Ended midway, the folder may hold a result that is not the one recorded.
                write_record(task.folder, replace(before, key=""))
            record = _attempt(task, model, before)
            now = input_states(inputs)
            changed = [name for name, state in now.items() if state.stat != states[name].stat]
            if changed:
                reason = f"{inputs.files[changed[0]]}: has changed while it was read: run again"
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


@lru_cache(maxsize=1)
def ready_model(weights: Path | None, device: str, expected: str) -> Model:
    """Return the weights of the hash ``expected``, loaded once in each process.

    A worker may outlive the weights that lay in a folder when it first looked: those of another
    hash are loaded anew.  Raises WeightsError, also where other ones lie there, or DeviceError.
    """
    from ..model.weights import load_model

    model = load_model(weights or BUNDLE, device)
    if model.hash != expected:
        raise WeightsError(weights or BUNDLE, "has changed while it was read: run again")
    return model


def _pass(line: str) -> None:
    """Say nothing."""


def _files(path: Path, series: str | None) -> Iterator[Path]:
    """Yield all files that reading a path may read, in order.

    ``series`` is None for a segmentation.  Of a CT's folder it chooses the files of one DICOM
    series, where it is not empty; with one file of a series, all of that series are read.
    """
    found: Iterable[Path] = [path]
    if path.is_dir():
        # What is closed is refused on reading.
        found = series_files(path, series, tell=_pass) if series else files_in(path, tell=_pass)
    elif path.suffix.lower() in _DETACHED:
        found = (file for file in path.parent.iterdir() if file.stem == path.stem)
    elif series is not None and path.is_file() and is_dicom(path):
        found = files_beside(path)
    yield from sorted(file for file in found if file.is_file())


def input_states(inputs: CaseInputs, content: bool = False) -> dict[str, InputState]:
    """Return the state of each input of a case; ``content`` reads them.

    A segmentation that is one DICOM file (SEG, structure set) is read without those beside it.
    """
    return {
        name: _state(path, content, series=inputs.series if name == "ct" else None)
        for name, path in inputs.files.items()
    }


def _state(path: Path, content: bool = False, series: str | None = None) -> InputState:
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
        return InputState(MISSING, MISSING if content else "", str(path))
    return InputState(stats.hexdigest(), digest.hexdigest() if content else "", str(path))


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
