"""Run a cohort on this machine: worker processes that load the weights once and may die.

The parent computes nothing and does not load torch: it hands out cases, watches the clock and
writes down what became of a case whose process died.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ..errors import InputError, UserError
from ..files import locked, make_folder, remove_abandoned, require_apart
from ..training.manifest import Problem
from .case_run import (
    CaseRecord,
    CaseStatus,
    CheckRecord,
    CheckTask,
    CohortSettings,
    Task,
    TaskSettings,
    cohort_tasks,
    is_current,
    read_record,
    write_index,
)
from .cluster import run_on_cluster
from .manifest import Cohort

# Of a worker: 1.1 GB were measured with a CT of the whole trunk (`benchmark cohort`), to which the
# images of all its vertebrae come.
WORKER_BYTES = 2 << 30
MOST_WORKERS = 256
_TICK = 0.1  # seconds between two looks at the clock
_STARTS = 3  # workers in a row that may end before they are ready
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """What there is: cores, bytes of memory that are free (None: not known), and CUDA devices."""

    cores: int
    memory: int | None
    gpus: int = 0


@dataclass(frozen=True)
class Plan:
    """How many worker processes, and how many CPU threads in each."""

    workers: int
    threads: int


@dataclass(frozen=True)
class CohortStarted:
    """``kept`` of ``total`` cases need not be run again; ``device`` is that of the workers."""

    total: int
    kept: int
    plan: Plan
    device: str
    reason: str


@dataclass(frozen=True)
class CaseEnded:
    """A case has ended; ``done`` of ``total`` have, ``failed`` of them without a result."""

    record: CaseRecord
    done: int
    failed: int
    total: int
    seconds_left: float


CohortEvent = CohortStarted | CaseEnded


@dataclass(frozen=True)
class PoolLimits:
    """``workers`` and ``threads`` are chosen where None; ``case_timeout`` is in seconds.

    ``scheduler`` is the address of a Dask scheduler whose workers run the cases instead.
    """

    workers: int | None = None
    threads: int | None = None
    case_timeout: float = 4 * 3600.0
    retry: bool = False
    scheduler: str = ""


@dataclass(frozen=True)
class RunControl:
    """How a run is done, who hears what happens in it, and who may stop it."""

    limits: PoolLimits
    on_event: Callable[[CohortEvent], None] = lambda event: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class CohortEnd:
    """How many cases have a result, how many have none, and whether a stop left some out."""

    done: int
    failed: int
    stopped: bool


def this_machine() -> Machine:
    """Return the cores that this process may use, and the memory that is free."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _words(Path("/sys/fs/cgroup/cpu.max"))
    if len(quota) == 2 and quota[0].isdecimal() and int(quota[1]):
        cores = min(cores or 1, max(int(quota[0]) // int(quota[1]), 1))
    return Machine(cores or 1, _free_memory())


def _free_memory() -> int | None:
    found = []
    lines = [line.split() for line in _text(Path("/proc/meminfo")).splitlines()]
    found += [int(line[1]) << 10 for line in lines if line[:1] == ["MemAvailable:"]]
    limit, used = (_words(Path("/sys/fs/cgroup") / f"memory.{n}") for n in ("max", "current"))
    if limit and used and limit[0].isdecimal() and used[0].isdecimal():
        found.append(max(int(limit[0]) - int(used[0]), 0))
    if not found and hasattr(os, "sysconf") and sys.platform == "darwin":
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min(found, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()


def choose_plan(machine: Machine, cases: int, limits: PoolLimits) -> Plan:
    """Return the plan for so many cases: one worker per GPU, else one per core as memory allows.

    One thread in each of many processes finishes more cases than many threads in one.
    """
    if limits.workers is not None:
        workers = limits.workers
    elif machine.gpus:
        workers = machine.gpus
    else:
        room = machine.cores if machine.memory is None else machine.memory // WORKER_BYTES
        workers = min(machine.cores // (limits.threads or 1), room)
    workers = max(min(workers, cases, MOST_WORKERS), 1)
    return Plan(workers, limits.threads or max(machine.cores // workers, 1))


def run_cohort(
    cohort: Cohort, out: Path, settings: CohortSettings, control: RunControl
) -> CohortEnd:
    """Run all cases whose result is not there yet; everything is in ``out`` at any time.

    A case that is refused, fails, takes too long or loses its process is a record with its reason,
    and the others go on.  Raises UserError where the weights cannot be used, ``out`` cannot be
    written to, another run is in it, or it lies in the folder of a case's images: each result would
    change what it was made from.
    """
    read = {path for case in cohort.cases for path in (case.ct, case.segmentation, case.bodies)}
    require_apart(out, [path for path in read if path is not None], within=True)
    make_folder(out)
    with locked(out):
        tasks = cohort_tasks(cohort, out, settings, control.limits.retry)
        write_index(cohort, out, tasks)
        counts = _Counts(len(tasks))
        todo: deque[Task] = deque()
        for task in tasks:
            record = read_record(task.folder)
            if record is not None and is_current(task, record):
                counts.add(record)
            else:
                todo.append(task)
            if control.should_stop():
                return counts.end(stopped=True)
        _run(todo, counts, control)
        return counts.end(stopped=counts.done + counts.failed < len(tasks))


def run_tasks(tasks: Sequence[Task], control: RunControl) -> CohortEnd:
    """Run tasks of any kind as ``run_cohort`` runs cases; what they write is theirs to know."""
    counts = _Counts(len(tasks))
    _run(deque(tasks), counts, control)
    return counts.end(stopped=counts.done + counts.failed < len(tasks))


def check_cohort(
    cohort: Cohort,
    limits: PoolLimits,
    tell: Callable[[int, int, Sequence[Problem]], None],
    should_stop: Callable[[], bool],
) -> None:
    """Find all that is wrong with a cohort as far as headers tell; a stop ends it.

    ``tell`` receives the number of cases checked and of all, and what was found since the last
    call.  A file that crashes its reader, or holds it up, is a problem of its case.
    """
    tell(0, len(cohort.cases), cohort.problems)
    lines = {case.name: case.line for case in cohort.cases}

    def heard(event: CohortEvent) -> None:
        if isinstance(event, CaseEnded):
            record = event.record
            line = lines[record.case]
            found = [Problem(cohort.path, line, one) for one in record.warnings]
            notes = record.notes if isinstance(record, CheckRecord) else ()
            found += [Problem(cohort.path, line, one, is_note=True) for one in notes]
            tell(event.done, event.total, found)

    tasks = [CheckTask(case) for case in cohort.cases]
    run_tasks(tasks, RunControl(limits, heard, should_stop))


def _run(todo: deque[Task], counts: _Counts, control: RunControl) -> None:
    counts.begin()
    if todo and control.limits.scheduler:
        _run_on_cluster(todo, counts, control)
    elif todo:
        _Pool(todo, counts, control).run()


def _run_on_cluster(todo: deque[Task], counts: _Counts, control: RunControl) -> None:
    def start(workers: int, threads: int) -> None:
        plan = Plan(workers, max(threads // max(workers, 1), 1))
        where = "a Dask cluster", control.limits.scheduler
        control.on_event(CohortStarted(counts.total, counts.kept, plan, *where))

    def tell(record: CaseRecord) -> None:
        counts.add(record)
        control.on_event(counts.event(record))

    run_on_cluster(todo, control, start, tell)


class _Counts:
    """How far the cohort is, and how long the rest takes at the pace of this run."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.failed = total, 0, 0
        self.begin()

    def begin(self) -> None:
        self._began, self.kept = time.monotonic(), self.done + self.failed

    def add(self, record: CaseRecord) -> None:
        if record.status is CaseStatus.DONE:
            self.done += 1
        else:
            self.failed += 1

    def event(self, record: CaseRecord) -> CaseEnded:
        ended = self.done + self.failed
        pace = (time.monotonic() - self._began) / max(ended - self.kept, 1)
        return CaseEnded(record, ended, self.failed, self.total, pace * (self.total - ended))

    def end(self, stopped: bool) -> CohortEnd:
        return CohortEnd(self.done, self.failed, stopped)


@dataclass
class _Worker:
    """A process, our end of its pipe, and the case it has since ``began``.

    ``number`` tells it from the others that live, and which GPU is its own.
    """

    number: int
    process: BaseProcess
    connection: Connection
    ready: bool = False
    task: Task | None = None
    began: float = 0.0


class _Pool:
    """Hand out cases until all have ended or a stop is asked for; no process outlives ``run``."""

    def __init__(self, todo: deque[Task], counts: _Counts, control: RunControl) -> None:
        self._todo, self._counts, self._control = todo, counts, control
        self._settings = todo[0].settings
        self._workers: list[_Worker] = []
        self._lost = 0
        self._is_told = False
        # Else the first worker tells what devices there are, and so how many more are wanted.
        known = self._settings.device == "cpu" or control.limits.workers is not None
        self._plan = self._planned(0) if known else None

    def _planned(self, gpus: int) -> Plan:
        machine = replace(this_machine(), gpus=gpus)
        return choose_plan(machine, len(self._todo), self._control.limits)

    def run(self) -> None:
        try:
            with _few_threads():
                while self._todo or any(worker.task for worker in self._workers):
                    if self._control.should_stop():
                        return
                    self._start_workers()
                    self._hand_out()
                    self._listen()
                    self._watch_the_clock()
        finally:
            interrupted = [worker.task for worker in self._workers if worker.task is not None]
            for worker in self._workers:
                _end(worker)
            for task in interrupted:  # what they were about to write holds images
                remove_abandoned(task.folder)
            remove_abandoned()

    def _start_workers(self) -> None:
        busy = sum(worker.task is not None for worker in self._workers)
        wanted = 1 if self._plan is None else min(self._plan.workers, len(self._todo) + busy)
        while len(self._workers) < wanted:
            context = get_context("spawn")
            ours, theirs = context.Pipe()
            taken = {worker.number for worker in self._workers}
            number = next(n for n in count() if n not in taken)
            words = (theirs, self._settings, number)
            process = context.Process(target=serve, args=words, daemon=True)
            with _signals_held():
                process.start()
            theirs.close()
            self._workers.append(_Worker(number, process, ours))

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.task is None and self._todo and self._plan is not None:
                worker.task = self._todo.popleft().with_threads(self._plan.threads)
                worker.began = time.monotonic()
                with suppress(OSError):  # it died meanwhile, which its pipe will tell
                    worker.connection.send(worker.task)

    def _listen(self) -> None:
        heard = wait([worker.connection for worker in self._workers], _TICK)
        for worker in [worker for worker in self._workers if worker.connection in heard]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
            else:
                self._take(worker, message)

    def _take(self, worker: _Worker, message: Any) -> None:
        if isinstance(message, UserError):
            raise message
        if isinstance(message, CaseRecord):
            worker.task = None
            if message.traceback:  # it ends: after what nobody foresaw, a fresh process
                _end(worker)
                self._workers.remove(worker)
            self._tell(message)
            return
        gpus, device, reason = message
        worker.ready, self._lost = True, 0
        if self._plan is None:
            self._plan = self._planned(gpus)
        if not self._is_told:
            self._is_told = True
            told = CohortStarted(self._counts.total, self._counts.kept, self._plan, device, reason)
            self._control.on_event(told)

    def _watch_the_clock(self) -> None:
        limit = self._control.limits.case_timeout
        for worker in list(self._workers):
            if worker.task is not None and time.monotonic() - worker.began > limit:
                _end(worker)
                self._workers.remove(worker)
                reason = f"took longer than {limit:g} s (--case-timeout)"
                self._give_up(worker, CaseStatus.TIMED_OUT, reason)

    def _bury(self, worker: _Worker) -> None:
        """Give up the case of a process that has died."""
        _end(worker, kill=False)
        self._workers.remove(worker)
        why = _last_words(worker.process.exitcode)
        if worker.task is not None:
            self._give_up(worker, CaseStatus.KILLED, f"its process {why}")
        elif not worker.ready:
            self._lost += 1
            if self._lost == _STARTS:
                cause = f"{_STARTS} worker processes ended at the start; the last one {why}"
                raise InputError("cohort", cause)

    def _give_up(self, worker: _Worker, status: CaseStatus, reason: str) -> None:
        assert worker.task is not None
        remove_abandoned(worker.task.folder)
        record = worker.task.lost(status, reason, time.monotonic() - worker.began)
        worker.task = None
        self._tell(record)

    def _tell(self, record: CaseRecord) -> None:
        self._counts.add(record)
        self._control.on_event(self._counts.event(record))


def _last_words(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended by itself (exit status {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = ": was there too little memory?" if name == "SIGKILL" else ""
    return f"was ended by the system ({name}){memory}"


def _end(worker: _Worker, kill: bool = True) -> None:
    if kill:
        worker.process.kill()
    worker.process.join(5)
    if worker.process.exitcode is None:
        worker.process.kill()
        worker.process.join()
    worker.connection.close()


@contextmanager
def _few_threads() -> Iterator[None]:
    """Keep libraries of linear algebra in the workers from taking every core each."""
    ours = [name for name in _THREAD_VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, "1"))
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back; a process that is started meanwhile never receives them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(connection: Connection, settings: TaskSettings, number: int) -> None:
    """Run in a worker: load the weights, say so, and run the cases that come until none does.

    The parent alone decides on signals; when it dies, however it does, this process ends with it.
    """
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        ready, told = settings.start(number)
    except UserError as error:
        connection.send(error)
        return
    connection.send(told)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer: Any = task.run(ready)
        except UserError as error:  # of weights that have changed: no case can be run
            answer = error
        connection.send(answer)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
