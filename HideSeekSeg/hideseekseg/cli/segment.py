"""The subcommands ``segment``, ``example`` and ``stand-by``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..model.profile import SCHEDULES
from .arguments import DEVICES, OK, STOPPED, WEIGHTS_HELP, Command, levels, share, threads


def _segment_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("ct", type=Path, metavar="CT", help="NIfTI, NRRD, MHA, or a folder of DICOM slices")
    add("segmentation", type=Path, metavar="SEGMENTATION", help="whole vertebrae or their bodies")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    add(
        "--labels",
        metavar="NAME|FILE",
        help="label convention, where the file does not name its labels: one of those below, or a"
        " JSON file of value to level (default: the file's own names)",
    )
    parser.epilog = conventions()
    add("--bodies", type=Path, metavar="FILE", help="a segmentation of the vertebral bodies")
    add_run_options(parser)
    add("--threads", type=threads, metavar="N", help="CPU threads to use (default: PyTorch's)")
    add("--series", default="", metavar="UID|N", help="DICOM series, where the folder has several")
    add("--overwrite", action="store_true", help="replace the result of another scan in DIR")
    add("--each", action="store_true", help="also write each vertebra at once, to DIR/vertebrae")
    add("--nifti", action="store_true", help="also write lytic.nii.gz and blastic.nii.gz (0, 1)")
    add("--no-picture", dest="picture", action="store_false", help="write no overview.png")
    add("--log", type=Path, metavar="FILE", help="append all messages to a file")
    add("--verbose", action="store_true", help="print every step, and when it began")
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--json-lines", action="store_true", help="print events as JSON lines")
    printed.add_argument("--quiet", action="store_true", help="print errors only")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``segment`` and ``cohort`` ask of every run."""
    add = parser.add_argument
    add(
        "--levels",
        type=levels,
        default=(),
        metavar="T10,L1",
        help="only these vertebrae (default: all)",
    )
    add("--device", default="auto", choices=DEVICES, help="where to compute")
    add(
        "--threshold",
        type=share,
        metavar="X",
        help="accept scores above it, 0 to 1 (default: that of the weights)",
    )
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add(
        "--schedule",
        choices=SCHEDULES,
        help="diffusion schedule (default: that of the weights): exact has the paper's 250 and 100"
        " steps, multistep approximates it in 14, fast needs weights trained for it",
    )
    add("--all-slices", action="store_true", help="also slices unlike those of the training")
    add(
        "--accept-orientation",
        action="store_true",
        help="go on where header, levels or outlines contradict the anatomy (flagged)",
    )
    add(
        "--patient-names",
        action="store_true",
        help="write name and number of the patient, where DICOM has them, into the results",
    )


def conventions() -> str:
    """Return the whole list of label conventions, for the end of a help text."""
    from ..anatomy.label_conventions import CONVENTIONS

    width = max(map(len, CONVENTIONS))
    lines = [f"  {c.name:{width}}  {c.tool}" for c in CONVENTIONS.values()]
    lines += [f"  {'names':{width}}  the file's own names, the default"]
    return "\n".join(["label conventions (--labels):", *lines])


def _segment(args: argparse.Namespace) -> int:
    from .console import ForPeople, json_lines, logged, quiet, stop_on_signal

    people = quiet if args.quiet else ForPeople(sys.stderr, args.verbose)
    say = json_lines(sys.stdout) if args.json_lines else people
    with logged(args.log, say) as tell, stop_on_signal() as should_stop:
        from ..inputs import Options
        from ..job import Job, run
        from ..output.tables import format_table

        options = Options(
            *(args.labels, args.levels, args.threshold, args.all_slices, args.schedule),
            accept_orientation=args.accept_orientation,
        )
        job = Job(
            *(args.ct, args.segmentation, args.out, args.bodies, args.weights),
            *(args.device, args.threads, options, args.each, args.series),
            *(args.overwrite, args.patient_names, args.nifti, args.picture),
        )
        result = run(job, tell, should_stop)
    if result.run["finished"] and not (args.quiet or args.json_lines):
        print(format_table(result))
    return STOPPED if result.run["stopped"] else OK


def _example_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")


def _example(args: argparse.Namespace) -> int:
    from ..simulation.example import write_example

    for path in write_example(args.out):
        print(path)
    return OK


LONGEST = 1 << 20  # bytes of a command


def _stand_by_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """the line is a JSON array of words, such as ["segment", "ct.nii.gz", ...];
    without a line nothing is done.  For programs that start a run when someone asks for it."""


def _stand_by(args: argparse.Namespace) -> int:
    from ..job import prepare_process

    prepare_process()
    line = sys.stdin.buffer.readline(LONGEST + 1)
    if not line.strip():  # whoever was to ask for something has ended
        return OK
    from ..errors import InputError
    from ..plain_data import as_type
    from .main import main

    try:
        words = as_type(list[str], json.loads(line[:LONGEST]))
    except (ValueError, RecursionError) as error:
        raise InputError("standard input", "is not a JSON array of words") from error
    return main(words)


COMMANDS = (
    Command(
        "segment",
        "find lytic and blastic lesions in a CT with segmented vertebrae",
        _segment_arguments,
        _segment,
    ),
    Command(
        "example",
        "write the embedded example: a drawn CT with lesions, and its vertebrae",
        _example_arguments,
        _example,
    ),
    Command(
        "stand-by",
        "load what `segment` needs, then run the command that comes as a line on standard input",
        _stand_by_arguments,
        _stand_by,
    ),
)
