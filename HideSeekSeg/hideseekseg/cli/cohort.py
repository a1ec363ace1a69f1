"""The subcommand ``cohort``: many cases, their tables and their page, on one machine or many."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..plain_data import counted, printable
from .arguments import (
    BAD_INPUT,
    FAILED,
    OK,
    STOPPED,
    Command,
    count,
    say,
    say_aside,
    threads,
)
from .segment import add_run_options

if TYPE_CHECKING:
    from ..cohort.case_run import CaseRecord
    from ..cohort.manifest import Cohort
    from ..cohort.pool import CohortEvent
    from ..training.manifest import Problem

_USAGE = """hideseekseg cohort MANIFEST.csv --out DIR [options]
       hideseekseg cohort --discover FOLDER --out DIR [options]
       hideseekseg cohort check MANIFEST.csv
       hideseekseg cohort report DIR
       hideseekseg cohort agreement DIR
       hideseekseg cohort evaluate DIR"""
_MOST_ROWS = 10  # of the table of failures
_STATUS = len("timed out")  # its widest status
_WORDS = ("check", "report", "evaluate", "agreement")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = _USAGE
    add = parser.add_argument
    add(
        "words",
        nargs="*",
        metavar="MANIFEST.csv",
        help="a case a row: ct, segmentation and, where known, labels, bodies, case, patient,"
        " series; or `check MANIFEST.csv`, which reads headers only and lists all that is wrong;"
        " or `report DIR`, which writes tables and page of a cohort's folder again; or"
        " `evaluate DIR`, which compares it with the lesions or levels that its manifest knows; or"
        " `agreement DIR`, which compares the reviews of its readers",
    )
    add("--discover", type=Path, metavar="FOLDER", help="find the cases of a folder tree instead")
    add("--out", type=Path, metavar="DIR", help="folder for the results")
    add("--workers", type=count, metavar="N", help="processes (default: by cores, memory, GPUs)")
    add("--threads", type=threads, metavar="N", help="CPU threads of each process")
    add(
        "--case-timeout",
        type=count,
        default=14400,
        metavar="SECONDS",
        help="give up a case that takes longer (default: 4 hours)",
    )
    add(
        "--scheduler",
        default="",
        metavar="ADDRESS|FILE",
        help="workers of a Dask scheduler run the cases (tcp://HOST:PORT, or its JSON file)",
    )
    add("--retry", action="store_true", help="run cases again that failed with the same inputs")
    add_run_options(parser)
    add("--each", action="store_true", help="keep images of each vertebra, which a review shows")
    add("--overwrite", action="store_true", help="replace reviewed results whose inputs changed")
    parser.set_defaults(refuse=parser.error, defaults=vars(parser.parse_args([])))


def _run(args: argparse.Namespace) -> int:
    word = args.words[0] if args.words and args.words[0] in _WORDS else ""
    rest = [Path(name) for name in (args.words[1:] if word else args.words)]
    of_folder = {"report": _report, "evaluate": _evaluate, "agreement": _agreement}.get(word)
    wanted = 0 if args.discover is not None and of_folder is None else 1
    if len(rest) != wanted:
        what = (
            "the DIR of a cohort's results"
            if of_folder is not None
            else "a MANIFEST.csv or --discover FOLDER"
        )
        args.refuse(f"needs {what}")
    if of_folder is not None and (args.out is not None or args.discover is not None):
        args.refuse(f"{word} takes the DIR alone, and writes to it")
    _refuse_ignored(args, word)
    if of_folder is not None:
        return of_folder(rest[0])
    if not word and args.out is None:
        args.refuse("the following arguments are required: --out")
    from .console import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..cohort.manifest import discover, discovered, read_cohort

        if rest:
            cohort = read_cohort(rest[0])
        elif args.out is None:  # of a check, which changes nothing in the folder that it looks at
            cohort = discovered(args.discover, say_aside)
        else:
            cohort = read_cohort(discover(args.discover, args.out, say_aside))
        if word == "check":
            return _check(cohort, args, should_stop)
        return _segment(cohort, args, should_stop)


def _refuse_ignored(args: argparse.Namespace, word: str) -> None:
    """Refuse an option that would change nothing: it may be meant for the run."""
    used = {"workers", "case_timeout"} | ({"discover", "out"} if args.discover else set())
    for name, default in args.defaults.items():
        if name == "words" or getattr(args, name) == default:
            continue
        option = f"--{name.replace('_', '-')}"
        if word and (word != "check" or name not in used):
            args.refuse(f"{option} has no meaning for {word}")
        if args.scheduler and name in ("workers", "threads"):
            args.refuse(f"{option} has no meaning with --scheduler, whose workers run already")


def _check(cohort: Cohort, args: argparse.Namespace, should_stop: Callable[[], bool]) -> int:
    from ..cohort.pool import PoolLimits, check_cohort, this_machine
    from .console import LineBar

    bar = LineBar(sys.stderr)
    wrong = 0

    def tell(done: int, total: int, found: Sequence[Problem]) -> None:
        nonlocal wrong
        bar.clear()
        for problem in found:
            say(str(problem))
        wrong += sum(not problem.is_note for problem in found)
        bar.draw(done / max(total, 1), f"{done}/{total} cases checked")

    # A process costs more than reading the headers of a few cases.
    few = len(cohort.cases) < 50
    chosen = args.workers or (1 if few else this_machine().cores)
    limits = PoolLimits(chosen, 1, float(args.case_timeout))
    check_cohort(cohort, limits, tell, should_stop)
    bar.clear()
    if should_stop():
        return STOPPED
    cases = counted(len(cohort.cases), "case")
    if cohort.further:
        cases += f", columns kept: {', '.join(cohort.further)}"
    say(f"{cases}: {wrong or 'nothing'} wrong, as far as headers show")
    return BAD_INPUT if wrong else OK


def _segment(cohort: Cohort, args: argparse.Namespace, should_stop: Callable[[], bool]) -> int:
    from ..cohort.case_run import CohortSettings
    from ..cohort.pool import PoolLimits, RunControl, run_cohort
    from ..errors import InputError

    if cohort.problems:
        for problem in cohort.problems[:20]:
            say_aside(str(problem))
        left = counted(len(cohort.problems), "line is", "lines are")
        raise InputError(cohort.path, f"{left} wrong: `hideseekseg cohort check` has all")
    settings = CohortSettings(
        *(args.weights, args.device, args.levels, args.threshold, args.all_slices, args.schedule),
        *(args.accept_orientation, args.patient_names, args.overwrite, args.each),
    )
    limits = PoolLimits(
        *(args.workers, args.threads, float(args.case_timeout), args.retry, args.scheduler)
    )
    told = _ForPeople(should_stop)
    end = run_cohort(cohort, args.out, settings, RunControl(limits, told, should_stop))
    told.close()
    if end.stopped:
        say_aside(
            f"stopped: {end.done + end.failed} of {counted(len(cohort.cases), 'case')} ended; the"
            " same command goes on"
        )
        return STOPPED
    _report(args.out)
    say(f"{counted(end.done, 'case')} done, {end.failed} without a result")
    if end.failed:
        say("cases.csv has the reasons; --retry runs them again")
    return FAILED if end.failed else OK


def _report(folder: Path) -> int:
    from ..cohort.report import write_report
    from ..cohort.tables import write_tables

    for path in (*write_tables(folder), write_report(folder)):
        say(f"wrote {path}")
    return OK


def _evaluate(folder: Path) -> int:
    from ..benchmark.cohort_evaluation import evaluate_cohort

    data, table = evaluate_cohort(folder, say_aside)
    say(table.read_text("utf-8").rstrip())
    for path in (data, table):
        say(f"wrote {path}")
    return OK


def _agreement(folder: Path) -> int:
    from ..cohort.readings import write_agreement

    data, table = write_agreement(folder)
    say(table.read_text("utf-8").rstrip())
    for path in (data, table):
        say(f"wrote {path}")
    return OK


class _ForPeople:
    """A bar with a table of failures below it; elsewhere a line for each case as it ends."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        from .console import LineBar

        self._bar, self._should_stop = LineBar(sys.stderr), should_stop
        self._failures: list[CaseRecord] = []

    def close(self) -> None:
        """Let the table stand, with whole reasons and without the bar."""
        self._clear()
        if self._bar.has_rows:
            for row in self._table(whole=True):
                say_aside(row)

    def _clear(self) -> None:
        if self._should_stop():  # which was said below what is drawn
            self._bar.leave()
        self._bar.clear()

    def _table(self, whole: bool = False) -> list[str]:
        """Return the table of the last failures, of rows that fit into the terminal, or whole."""
        from .console import columns_of, fill, fit, terminal_size

        columns, lines = terminal_size(sys.stderr)
        last = self._failures[-max(min(_MOST_ROWS, lines - 5), 1) :]
        if not last:
            return []
        cells = [(printable(one.case), one.status.value, printable(one.reason)) for one in last]
        name = min(max(4, *(columns_of(case) for case, _, _ in cells)), max(columns // 4, 8))
        room = max(columns - 1 - name - _STATUS - 4, 8)
        rows = [
            f"{fill(case, name)}  {status:{_STATUS}}"
            f"  {reason if whole else fit(reason, room, middle=True)}"
            for case, status, reason in cells
        ]
        earlier = len(self._failures) - len(last)
        more = [f"and {earlier} before, which cases.csv has at the end"] if earlier else []
        return [f"{'case':{name}}  {'status':{_STATUS}}  reason", *more, *rows]

    def __call__(self, event: CohortEvent) -> None:
        from ..cohort.case_run import CaseStatus
        from ..cohort.pool import CohortStarted
        from ..progress import duration

        self._clear()
        if isinstance(event, CohortStarted):
            plan = event.plan
            kept = f", {event.kept} have ended already" if event.kept else ""
            workers, each = counted(plan.workers, "worker"), counted(plan.threads, "thread")
            say_aside(
                f"{counted(event.total, 'case')}{kept}; {workers} of {each} on"
                f" {event.device} ({event.reason})"
            )
            return
        record = event.record
        where = f"{event.done}/{event.total}"
        left = f", about {duration(event.seconds_left)} left"
        if record.status is not CaseStatus.DONE:
            self._failures.append(record)
            if not self._bar.has_rows:
                say_aside(f"{where}  {record.case}: {record.status.value}: {record.reason}")
        elif not self._bar.is_drawn:
            after = left if event.done < event.total else ""
            say_aside(f"{where}  {record.case}: done in {duration(record.seconds)}{after}")
        failed = f", {event.failed} failed" if event.failed else ""
        self._bar.draw(event.done / event.total, f"{where} cases{failed}{left}", self._table())


COMMANDS = (
    Command(
        "cohort",
        "segment many cases with worker processes; check a manifest; tables and a page of results",
        _arguments,
        _run,
    ),
)
