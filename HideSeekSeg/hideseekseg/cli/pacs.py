"""The subcommand ``pacs``: studies of an archive, from it and back to it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import BAD_INPUT, OK, STOPPED, Command, HelpFormatter, say, say_aside
from .segment import add_run_options

if TYPE_CHECKING:
    from ..pacs.archive import Archive, ArchivedStudy

_QUERIES = {
    "patient": "PatientID",
    "name": "PatientName",
    "accession": "AccessionNumber",
    "date": "StudyDate",
    "study": "StudyInstanceUID",
}
_REPORTS = ("report.html", "report.pdf")  # in the result's folder


def _uid(text: str) -> str:
    from ..pacs.transfer import is_uid

    if not is_uid(text):
        raise argparse.ArgumentTypeError(f"{text[:70]!r} is not a UID")
    return text


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "FILE is JSON that names one archive: see the guide dicom-and-report.md"
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP", dest="step")

    def step(name: str, words: str) -> argparse.ArgumentParser:
        made = steps.add_parser(name, help=words, description=words, formatter_class=HelpFormatter)
        made.add_argument(
            "--archive", type=Path, required=True, metavar="FILE", help="which archive (JSON)"
        )
        return made

    find = step("find", "list studies, or the series of one; at least one thing to look for")
    add = find.add_argument
    add("--patient", default="", metavar="ID", help="the patient's number")
    add("--name", default="", metavar="NAME", help="the patient's name; * and ? match")
    add("--accession", default="", metavar="NUMBER", help="the accession number")
    add("--date", default="", metavar="YYYYMMDD", help="date of the study, or first-last")
    add("--study", type=_uid, metavar="UID", help="a study: its series are listed")
    add("--patient-names", action="store_true", help="print names and numbers of the patients")

    _add_choice(step("fetch", "fetch a study's CT series and its segmentation to a folder"))

    run = step("run", "fetch, segment, and write DICOM SEG, SR and a report; --send stores them")
    _add_choice(run)
    add = run.add_argument
    add("--vertebrae", type=Path, metavar="FILE", help="a segmentation of your own instead")
    add("--labels", metavar="NAME|FILE", help="label convention, as for segment")
    add_run_options(run)
    add("--overwrite", action="store_true", help="replace a result whose CT series has changed")
    add("--unreviewed", action="store_true", help="report the run, whatever an older review says")
    add("--send", action="store_true", help="store SEG, SR and report in the archive")

    send = step("send", "store SEG, SR and report of a result, reviewed or not, in the archive")
    add = send.add_argument
    add("result", type=Path, metavar="DIR", help="the folder of pacs run, or one of results")
    add("--ct", type=Path, metavar="DIR", help="the DICOM series (default: as pacs run left it)")
    add("--series", default="", metavar="UID|N", help="the series, where --ct has several")
    add("--unreviewed", action="store_true", help="the findings of the run, whatever a review says")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--study", type=_uid, required=True, metavar="UID", help="the study")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of this study alone")
    add("--series", default="", metavar="UID|N", help="the CT series, where there are several")
    add("--segmentation", default="", metavar="UID|N", help="the SEG or RTSTRUCT, likewise")


def _run(args: argparse.Namespace) -> int:
    from ..pacs.archive import open_archive, read_config
    from ..progress import Stopped
    from .console import stop_on_signal

    archive = open_archive(read_config(args.archive))
    with stop_on_signal() as should_stop:
        try:
            return _STEPS[args.step](args, archive, should_stop)
        except Stopped:
            say_aside("stopped: what is complete is kept, and the same command goes on")
            return STOPPED


def _find(args: argparse.Namespace, archive: Archive, should_stop: Callable[[], bool]) -> int:
    from ..pacs.archive import interruptible

    query = {keyword: getattr(args, name) for name, keyword in _QUERIES.items()}
    query = {keyword: text for keyword, text in query.items() if text}
    if not query:
        say_aside("hideseekseg: give at least one thing to look for (--patient, --date, ...)")
        return BAD_INPUT
    studies = interruptible(lambda: archive.studies(query), should_stop, archive.stop)
    for study in sorted(studies, key=lambda x: (x.date, x.uid)):
        say(_study(study, args.patient_names))
        if args.study:
            series = interruptible(lambda: archive.series(args.study), should_stop, archive.stop)
            for one in sorted(series, key=lambda x: x.number.zfill(12)):
                say(f"  {one.modality or '?':8} {one}")
    if not studies:
        odd = any(not re.fullmatch(r"[\w.*?^-]+", text, re.ASCII) for text in query.values())
        hint = "; some archives find blanks and letters beyond ASCII by DIMSE alone" if odd else ""
        say_aside(f"no study matches{hint}")
    return OK


def _study(study: ArchivedStudy, names: bool) -> str:
    parts = [study.date or "no date", "/".join(study.modalities), study.description]
    parts.append(study.accession and f"accession {study.accession}")
    if names:
        parts += [study.patient_name.replace("^", " "), study.patient_id]
    return f"{study.uid}  {', '.join(part for part in parts if part)}"


def _fetch(args: argparse.Namespace, archive: Archive, should_stop: Callable[[], bool]) -> int:
    from ..pacs.transfer import CT, SEGMENTATION, Wanted, fetch_study

    wanted = Wanted(args.study, args.series, args.segmentation)
    with _Bar() as told:
        fetch_study(archive, wanted, args.out, told, should_stop)
    for name in (CT, SEGMENTATION):
        say(f"fetched {args.out / name}")
    return OK


def _fetch_and_segment(
    args: argparse.Namespace, archive: Archive, should_stop: Callable[[], bool]
) -> int:
    from ..inputs import Options
    from ..job import Job, run
    from ..output.tables import format_table
    from ..pacs.transfer import CT, RESULT, SEGMENTATION, Wanted, fetch_study, make_objects
    from .console import ForPeople

    wanted = Wanted(args.study, args.series, args.segmentation, args.vertebrae is None)
    with _Bar() as told:
        fetched = fetch_study(archive, wanted, args.out, told, should_stop)
    options = Options(
        *(args.labels, args.levels, args.threshold, args.all_slices, args.schedule),
        accept_orientation=args.accept_orientation,
    )
    out, ct = args.out / RESULT, args.out / CT
    job = Job(
        *(ct, args.vertebrae or args.out / SEGMENTATION, out),
        **{"weights": args.weights, "device": args.device, "options": options, "each": True},
        series=fetched.ct,
        overwrite=args.overwrite,
        patient_names=args.patient_names,
    )
    result = run(job, ForPeople(sys.stderr), should_stop)
    if result.run["finished"] or not result.run["stopped"]:
        _remove_reports(out)
    if result.run["stopped"]:
        return STOPPED
    say(format_table(result))
    reports = _write_reports(out, args.unreviewed, should_stop)
    if args.send:
        _send_from(out, ct, fetched.ct, args.unreviewed, archive, should_stop)
        _say_written(reports)
        return OK
    with _Bar() as told:
        made = make_objects(out, ct, fetched.ct, args.unreviewed, told, should_stop)
    _say_written([*reports, *made])
    say("nothing was sent: review the result, then `hideseekseg pacs send`")
    return OK


def _remove_reports(result: Path) -> None:
    """Remove the reports of the result that was there before."""
    for name in _REPORTS:
        (result / name).unlink(missing_ok=True)


def _write_reports(result: Path, unreviewed: bool, should_stop: Callable[[], bool]) -> list[Path]:
    """Write the reports of a result; none stays where that is refused (InputError) or stopped."""
    from ..output.report import make_report
    from ..output.report_html import write_html
    from ..output.report_pdf import write_pdf
    from ..output.result_folder import read_result
    from ..progress import stoppable

    _remove_reports(result)
    files = [result / name for name in _REPORTS]
    try:
        with _Bar() as told:
            on_progress = stoppable(told, should_stop)
            report = make_report(read_result(result, unreviewed), on_progress=on_progress)
            for file, write in zip(files, (write_html, write_pdf)):
                write(file, report, on_progress)
    except BaseException:
        _remove_reports(result)
        raise
    return files


def _say_written(files: Sequence[Path]) -> None:
    for file in files:
        say(f"wrote {file}")


def _send(args: argparse.Namespace, archive: Archive, should_stop: Callable[[], bool]) -> int:
    from ..errors import InputError
    from ..pacs.transfer import CT, RESULT, read_fetched

    result = args.result / RESULT if (args.result / RESULT).is_dir() else args.result
    fetched = read_fetched(result.parent)
    ct = args.ct or (result.parent / CT if fetched else None)
    if ct is None:
        raise InputError(args.result, "was not fetched by pacs run: give its DICOM series by --ct")
    series = args.series or ("" if args.ct or fetched is None else fetched.ct)
    # In another folder than that of pacs run, a report is somebody's own.
    reports = []
    if fetched is not None:
        reports = _write_reports(result, args.unreviewed, should_stop)
    _send_from(result, ct, series, args.unreviewed, archive, should_stop)
    _say_written(reports)
    return OK


def _send_from(
    result: Path,
    ct: Path,
    series: str,
    unreviewed: bool,
    archive: Archive,
    should_stop: Callable[[], bool],
) -> None:
    from ..pacs.transfer import send_result

    with _Bar() as told:
        sent = send_result(archive, result, ct, series, told, should_stop, unreviewed)
    for one in sent:
        say(f"the archive contains {one.file.name}{': it was stored before' * one.before}")


class _Bar:
    """A bar on a terminal, a line for each new kind of step elsewhere."""

    def __init__(self) -> None:
        from .console import LineBar

        self._bar = LineBar(sys.stderr)
        self._said = ""

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.clear()

    def __call__(self, words: str, done: int, total: int) -> None:
        if self._bar.is_drawn:
            self._bar.draw(done / total, f"{words} {done}/{total}")
        elif words != self._said:
            say_aside(f"{words} ({done}/{total})" if total > 1 else words)
        self._said = words


_STEPS = {"find": _find, "fetch": _fetch, "run": _fetch_and_segment, "send": _send}

COMMANDS = (
    Command(
        "pacs",
        "ask an archive: find a study, fetch it, segment it, send SEG, SR and report back",
        _arguments,
        _run,
    ),
)
