"""The command line: parse, call, print.

Only argparse is imported here; what a command needs is imported when it runs, so that ``--help``
answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..events import Failed, to_line
from ..model.profile import SCHEDULES
from . import (
    app as cli_app,
)
from . import (
    benchmark as cli_benchmark,
)
from . import (
    training as cli_own_data,
)
from . import (
    weights as cli_published,
)
from .arguments import BAD_INPUT, FAILED, OK, STOPPED, Command

PACKAGE = __package__.partition(".")[0] + "."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, 1 (failed), 2 (bad input) or 130 (stopped by Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    args = _parser().parse_args(arguments)
    # Threads that wait busily for each other are ten times slower on a machine with other work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("hideseekseg: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever read our output is gone; Python would complain at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(PACKAGE):
            error = _missing_part(args.command)
        return _fail(error, getattr(args, "json_lines", False))


def _missing_part(command: str) -> Exception:
    """Return what to tell of a command whose files Slicer's package leaves out."""
    from ..errors import InputError

    cause = "is not part of this installation (Slicer's package): pip install hideseekseg has it"
    return InputError(command, cause)


def _fail(error: Exception, json_lines: bool) -> int:
    """Tell a known failure in one line; a bug says so and keeps its traceback."""
    from ..errors import UserError

    if isinstance(error, UserError):
        failed, status = Failed(error.cause, error.path), BAD_INPUT
    elif isinstance(error, MemoryError):
        failed, status = Failed(str(error) or "out of memory"), FAILED
    else:
        failed, status = Failed(f"{type(error).__name__}: {error}"), FAILED
    if json_lines:
        print(to_line(failed), flush=True)
    if not isinstance(error, (UserError, MemoryError)):
        raise error
    print(f"hideseekseg: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hideseekseg",
        description="Finds vertebral metastases in CT by Hide-and-Seek Attribution. For research;"
        " not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = commands.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(own)
        own.set_defaults(run=command.run, command=command.name)
    return parser


def _segment_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("ct", type=Path, metavar="CT", help="NIfTI, NRRD, MHA, or a folder of DICOM slices")
    add("segmentation", type=Path, metavar="SEGMENTATION", help="whole vertebrae or their bodies")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    add(
        "--labels",
        metavar="NAME|FILE",
        help="what label values mean where names do not tell: totalsegmentator,"
        " totalsegmentator-v1, verse, totalspineseg, names, or a JSON file of value to level",
    )
    add("--bodies", type=Path, metavar="FILE", help="a segmentation of the vertebral bodies")
    add("--levels", type=_levels, default=(), metavar="T10,L1", help="only these vertebrae")
    add("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    add("--threshold", type=_share, metavar="X", help="accept scores above it (0 to 1)")
    add("--weights", type=Path, metavar="DIR", help="other weights than those that come along")
    add(
        "--schedule",
        choices=SCHEDULES,
        help="how the diffusion is run, if not as the weights' own profile has it: exact is the"
        " paper's 250 and 100 steps, multistep comes as far in 12, fast needs weights made for it",
    )
    add("--all-slices", action="store_true", help="also slices unlike those of the training")
    add("--threads", type=_count, metavar="N", help="threads of the processor to use")
    add("--each", action="store_true", help="also write each vertebra at once, to DIR/vertebrae")
    said = parser.add_mutually_exclusive_group()
    said.add_argument("--json-lines", action="store_true", help="print events as JSON lines")
    said.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _segment(args: argparse.Namespace) -> int:
    from .console import ForPeople, json_lines, quiet
    from .signals import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..job import Job, run
        from ..output.tables import format_table
        from ..pipeline import Options

        options = Options(args.labels, args.levels, args.threshold, args.all_slices, args.schedule)
        job = Job(
            *(args.ct, args.segmentation, args.out, args.bodies, args.weights),
            *(args.device, args.threads, options, args.each),
        )
        people = quiet if args.quiet else ForPeople(sys.stderr)
        result = run(job, json_lines(sys.stdout) if args.json_lines else people, should_stop)
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


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources", type=Path, metavar="SOURCES.csv", help="ct, segmentation, labels, patient, split"
    )
    add("--data", type=Path, required=True, metavar="DIR", help="folder the paths start from")
    add(
        "--split",
        type=_names,
        default=("training",),
        help="which rows of the sources file, e.g. training,validation (default: training)",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the shard")
    add("--vertebrae", type=_count, default=4000, metavar="N", help="half of them diseased")
    add("--drawn", type=int, default=0, metavar="N", help="add N vertebrae drawn from scratch")
    add("--seed", type=int, default=1)
    add("--whole", action="store_true", help="keep every slice, as tuning and benchmarks need")


def _simulate(args: argparse.Namespace) -> int:
    from ..training.commands import Simulation, run_simulate

    job = Simulation(
        *(args.sources, args.data, args.split, args.out),
        *(args.vertebrae, args.seed, args.whole, args.drawn),
    )
    for path in run_simulate(job, _say):
        print(path)
    return OK


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("slices", type=Path, metavar="DIR", help="simulated or prepared slices to learn from")
    add(
        "--validation",
        type=Path,
        metavar="DIR",
        help="whole simulated vertebrae to choose thresholds on, or other prepared patients",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoints and weights; resumed")
    add("--supervision", choices=["labels", "twins"], default="labels")
    add("--encoder-steps", type=_steps, default=40_000, metavar="N", help="0 keeps that of --start")
    add("--decoder-steps", type=_count, default=20_000, metavar="N")
    add("--encoder-rate", type=_rate, default=1e-3, metavar="RATE", help="learning rate")
    add("--decoder-rate", type=_rate, default=8e-4, metavar="RATE", help="learning rate")
    add("--start", type=Path, metavar="DIR", help="weights to go on from, instead of from nothing")
    add("--without", type=_names, default=(), metavar="A,B", help="patients kept for a test")
    add("--central-slices", type=_count, metavar="N", help="learn from the N middle ones alone")
    add("--name", default="compact", help="name of the weights, shown to their users")
    add("--seed", type=int, default=1)
    add("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    add("--threads", type=_count, metavar="N", help="threads of the processor to use")


def _train(args: argparse.Namespace) -> int:
    from .signals import stop_on_signal

    with stop_on_signal() as should_stop:
        import torch

        from ..training.commands import Training, run_train
        from ..training.train import TrainingSettings

        if args.threads:
            torch.set_num_threads(args.threads)
        settings = TrainingSettings(
            supervision=args.supervision,
            encoder_steps=args.encoder_steps,
            decoder_steps=args.decoder_steps,
            encoder_rate=args.encoder_rate,
            decoder_rate=args.decoder_rate,
            seed=args.seed,
        )
        job = Training(
            *(args.slices, args.validation, args.out, settings, args.name),
            *(args.device, args.central_slices, args.start, args.without),
        )
        weights = run_train(job, _say, should_stop)
        if weights is not None:
            print(weights)
    return OK


def _say(line: str) -> None:
    print(line, flush=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _levels(text: str) -> tuple[str, ...]:
    from ..anatomy.label_conventions import LEVELS

    levels = tuple(word.strip().upper() for word in text.split(",") if word.strip())
    for level in levels:
        if level not in LEVELS:
            raise argparse.ArgumentTypeError(f"{level!r} is no level ({LEVELS[0]} to {LEVELS[-1]})")
    return levels


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return share


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 0.1:
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate (above 0, up to 0.1)")
    return rate


def _steps(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


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
        "simulate",
        "draw training data: real and drawn vertebrae with simulated metastases",
        _simulate_arguments,
        _simulate,
    ),
    Command("train", "train a set of weights; stops and resumes", _train_arguments, _train),
    *cli_app.COMMANDS,
    *cli_own_data.COMMANDS,
    *cli_benchmark.COMMANDS,
    *cli_published.COMMANDS,
)
