"""Run a cohort on more machines: by the workers of a Dask scheduler that somebody has started.

Every worker sees the inputs and the results' folder under the same paths, and writes what it finds
there itself: over the network go tasks and records alone.  A case whose worker dies is run by
another one; one that ends several workers is a row with its reason.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UserError
from ..model.profile import BUNDLE, read_profile
from ..plain_data import first_line
from .case_run import (
    INDEX,
    RECORD,
    CaseRecord,
    CaseStatus,
    CaseTask,
    Task,
    case_key,
    ended,
    is_current,
    read_record,
    ready_model,
    run_case,
    write_record,
)

if TYPE_CHECKING:
    from .pool import RunControl

CONNECT_SECONDS = 6
_TICK = 0.2
_BUSY = "is in use by another run"
_one_at_a_time = threading.Lock()  # in each worker, however many threads it has


def run_on_cluster(
    tasks: Sequence[Task],
    control: RunControl,
    on_start: Callable[[int, int], None],
    on_record: Callable[[CaseRecord], None],
) -> None:
    """Run tasks by the workers of a scheduler (``control.limits.scheduler``: address or JSON file).

    ``on_start`` receives the numbers of workers and of their threads.  A stop takes back what
    waits; what is being worked on ends there and is found by the next run.  Raises InputError where
    the scheduler cannot be reached or is lost, and UserError where a worker cannot use the weights.
    """
    try:
        from distributed import Client
    except ImportError as error:
        cause = "needs Dask, which is not installed here: pip install 'hideseekseg[dask]'"
        raise InputError("--scheduler", cause) from error
    scheduler = control.limits.scheduler
    where = {"address": scheduler}
    if scheduler.endswith(".json"):
        if not Path(scheduler).is_file():  # Dask would wait for it
            raise InputError(scheduler, "does not exist: no Dask scheduler answers")
        where = {"scheduler_file": scheduler}
    try:
        client = Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(scheduler, f"no Dask scheduler answers: {first_line(error)}") from error
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        on_start(len(workers), sum(int(worker["nthreads"]) for worker in workers))
        _run(client, tasks, control, on_record)
    finally:
        with suppress(Exception):
            client.close(timeout=1)


def _run(
    client: Any,
    tasks: Sequence[Task],
    control: RunControl,
    on_record: Callable[[CaseRecord], None],
) -> None:
    limits = control.limits
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting: dict[str, tuple[Task, float]] = {}
    futures = []
    for task in tasks:
        if isinstance(task, CaseTask) and task.retry:
            # Its worker may find a record of this run, but none of an earlier one.
            (task.folder / RECORD).unlink(missing_ok=True)
        future = client.submit(run_task, task.absolute(), limits.case_timeout, pure=False)
        waiting[future.key] = task, time.monotonic()
        futures.append(future)
        future.add_done_callback(finished.put)
    while waiting and not control.should_stop():
        try:
            future = finished.get(timeout=_TICK)
        except queue.Empty:
            continue
        task, sent_at = waiting.pop(future.key)
        on_record(_record_of(future, task, limits.scheduler, time.monotonic() - sent_at))
        future.release()
    if waiting:
        client.cancel(futures)


def _record_of(future: Any, task: Task, scheduler: str, seconds: float) -> CaseRecord:
    if future.status == "finished":
        record: CaseRecord = future.result()
        return record
    if future.status != "error":
        raise InputError(scheduler, "the scheduler is lost: the same command goes on")
    error = future.exception()
    if isinstance(error, UserError):
        raise error
    if type(error).__name__ == "KilledWorker":
        reason = "several workers that had it were ended: was there too little memory?"
        return task.lost(CaseStatus.KILLED, reason, seconds)
    reason = f"{type(error).__name__}: {first_line(error)}"
    return task.lost(CaseStatus.FAILED, reason, seconds)


def run_task(task: Task, case_timeout: float) -> CaseRecord:
    """Run a case in a Dask worker, which loads the weights with its first one; or another task.

    Raises UserError where the worker does not see the cohort's folder, has other weights or another
    version of this library, or cannot use the weights.
    """
    from distributed import get_worker

    with _one_at_a_time:
        if not isinstance(task, CaseTask):
            return task.run(None)
        root = task.folder.parent.parent
        if not (root / INDEX).is_file():
            raise InputError(root, "is not seen by a worker: all need the same folders")
        found = read_profile(task.settings.weights or BUNDLE).hash
        if case_key(task.case, task.settings, found) != task.key:
            raise InputError(root, "a worker has other weights, or another version of hideseekseg")
        task = replace(task, threads=max(get_worker().state.nthreads, 1))
        model = ready_model(task.settings.weights, task.settings.device, found)
        timer = threading.Timer(case_timeout, _give_up, (task, case_timeout))
        timer.daemon = True
        timer.start()
        try:
            record = _attempt(task, model)
            while _BUSY in record.reason:  # a worker of an earlier run still has it
                time.sleep(1.0)
                record = _attempt(task, model)
        finally:
            timer.cancel()
        return record


def _attempt(task: CaseTask, model: Any) -> CaseRecord:
    """Run a case, unless a worker that had it before has written its end."""
    before = read_record(task.folder)
    return before if before is not None and is_current(task, before) else run_case(task, model)


def _give_up(task: CaseTask, seconds: float) -> None:
    """Write that a case took too long, and end this worker: nothing else can end the case.

    The worker that gets the case next finds the record, and takes it as the case's end.
    """
    reason = f"took longer than {seconds:g} s (--case-timeout)"
    with suppress(UserError):
        write_record(task.folder, ended(task, CaseStatus.TIMED_OUT, reason, seconds))
    os._exit(1)
