"""The subcommands that take a result further: ``export`` to DICOM, ``report`` for people."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..events import Finished, Progress
from .arguments import OK, Command, file_to_write
from .console import LineBar, json_lines, stop_on_signal

UNREVIEWED = "the findings of the run, whatever a review in RESULT says"


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("result", type=Path, metavar="RESULT", help="folder of results, reviewed or not")
    add("--ct", type=Path, required=True, metavar="DIR", help="the DICOM series that it is of")
    add("--series", default="", metavar="UID|N", help="the series, where the folder has several")
    add("--dicom-seg", type=Path, metavar="FILE", help="DICOM SEG to write")
    add("--dicom-sr", type=Path, metavar="FILE", help="DICOM SR to write, of the SEG's segments")
    add("--unreviewed", action="store_true", help=UNREVIEWED)


def _export(args: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from ..errors import InputError
    from ..files import atomic
    from ..output.dicom_seg_export import dicom_seg, read_instances, read_source
    from ..output.dicom_sr_export import dicom_sr
    from ..output.result_folder import read_result

    if not args.dicom_seg and not args.dicom_sr:
        raise InputError("", "nothing to write: give --dicom-seg, and perhaps --dicom-sr")
    _apart("--dicom-seg", args.dicom_seg, "--dicom-sr", args.dicom_sr)
    _replaceable("--dicom-seg", args.dicom_seg, "SEG")
    _replaceable("--dicom-sr", args.dicom_sr, "SR")
    stored = read_result(args.result, args.unreviewed)
    if stored.lesions and not args.dicom_seg:
        cause = "a DICOM SR refers to the segments of a DICOM SEG: give --dicom-seg as well"
        raise InputError("--dicom-sr", cause)
    ct = read_source(stored, args.ct, args.series)
    instances = read_instances(ct)
    made = [(args.dicom_seg, dicom_seg(stored, ct, instances))] if args.dicom_seg else []
    if args.dicom_sr:
        segmentation = made[0][1] if made else None
        made.append((args.dicom_sr, dicom_sr(stored, ct, instances, segmentation)))
    with ExitStack() as files:  # all are complete before the first one has its name
        for file, dataset in made:
            dataset.save_as(files.enter_context(atomic(file)))
    for file, _ in made:
        print(file)
    return OK


def _replaceable(option: str, file: Path | None, modality: str) -> None:
    """Raise InputError where another file would be replaced than such as this option writes.

    A name without a suffix says nothing: files of a CT have such names.
    """
    from ..errors import InputError

    if file is None or not file.is_file():
        return
    import pydicom

    try:
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Modality"])
        is_own = found.get("Modality") == modality
    except Exception:  # pydicom raises of all kinds for what is no DICOM
        is_own = False
    if not is_own:
        raise InputError(option, f"{file} is there already and no DICOM {modality}: choose another")


def _apart(option: str, file: Path | None, other: str, second: Path | None) -> None:
    """Raise InputError where two files to write are one: the second would replace the first."""
    from ..errors import InputError

    if file is not None and second is not None and file.resolve() == second.resolve():
        raise InputError(other, f"names the same file as {option}: {second}")


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("result", type=Path, metavar="RESULT", help="folder of results, reviewed or not")
    page, pdf = file_to_write(".html", ".htm"), file_to_write(".pdf")
    add("--out", type=page, required=True, metavar="FILE.html", help="HTML file to write")
    add("--pdf", type=pdf, metavar="FILE.pdf", help="also write it as PDF")
    add("--earlier", type=Path, metavar="RESULT", help="an earlier result of the same patient")
    add("--unreviewed", action="store_true", help=UNREVIEWED)
    add("--json-lines", action="store_true", help="print events as JSON lines")


def _report(args: argparse.Namespace) -> int:
    from ..output.report import make_report
    from ..output.report_html import write_html
    from ..output.report_pdf import write_pdf
    from ..output.result_folder import read_result
    from ..progress import Stopped, stoppable

    _apart("--out", args.out, "--pdf", args.pdf)
    stored = read_result(args.result, args.unreviewed)
    earlier = read_result(args.earlier, args.unreviewed) if args.earlier else None
    began = time.monotonic()
    # Between two steps: an exception that comes anywhere may be lost in what libraries call back.
    with (
        stop_on_signal() as should_stop,
        _ReportProgress(args.pdf is not None, args.json_lines) as told,
    ):
        on_progress = stoppable(told, should_stop)
        try:
            report = make_report(stored, earlier, on_progress)
            write_html(args.out, report, on_progress)
            told.wrote(args.out)
            if args.pdf:
                write_pdf(args.pdf, report, on_progress)
                told.wrote(args.pdf)
        except Stopped:
            raise KeyboardInterrupt from None
    if args.json_lines:
        files = tuple(str(file) for file in (args.out, args.pdf) if file)
        json_lines(sys.stdout)(Finished(files, time.monotonic() - began))
    return OK


class _ReportProgress:
    """How far a report is: a bar on a terminal, or a JSON line for each hundredth."""

    # The steps as they follow each other, with their shares of the time, roughly.
    _SHARES = (
        ("drawing findings", 0.2),
        ("writing HTML, section", 0.15),
        ("writing PDF, page", 0.4),
        ("writing PDF, picture", 0.25),
    )

    def __init__(self, pdf: bool, as_json: bool) -> None:
        self._bar = None if as_json else LineBar(sys.stderr)
        steps = self._SHARES if pdf else self._SHARES[:2]
        whole = sum(share for _, share in steps)
        self._ranges: dict[str, tuple[float, float]] = {}
        before = 0.0
        for words, share in steps:
            self._ranges[words] = before / whole, share / whole
            before += share
        self._said = -1.0

    def __enter__(self) -> _ReportProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.clear()

    def wrote(self, file: Path) -> None:
        """Print which file was written, where people read it."""
        if self._bar:
            self._bar.clear()
            print(file)

    def __call__(self, words: str, done: int, total: int) -> None:
        begin, share = self._ranges[words]
        fraction = begin + share * done / total
        if fraction - self._said < 0.01:
            return
        self._said = fraction
        if self._bar:
            self._bar.draw(fraction, f"{words} {done + 1}/{total}")
        else:
            json_lines(sys.stdout)(Progress("", words, done, total, fraction))


COMMANDS = (
    Command(
        "export",
        "write the lesions of a result as DICOM, on the instances of the CT series",
        _export_arguments,
        _export,
    ),
    Command(
        "report",
        "write a readable report of a result: one HTML file, and a PDF",
        _report_arguments,
        _report,
    ),
)
