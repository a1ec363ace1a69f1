"""The commands for a hospital's own data: what is wrong with a manifest, and slices from it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .arguments import FAILED, OK, Command


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifests",
        type=Path,
        nargs="+",
        metavar="MANIFEST.csv",
        help="image, mask, label, patient, and level, convention; several are to share no patient",
    )


def _check(args: argparse.Namespace) -> int:
    from .signals import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..simulation.simulate import COMPACT_GEOMETRY
        from ..training.commands import run_check

        wrong = run_check(args.manifests, COMPACT_GEOMETRY, _say, _tell, should_stop)
    return FAILED if wrong else OK


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST.csv", help="as `check` wants it")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the shards; resumed")


def _prepare(args: argparse.Namespace) -> int:
    from .signals import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..simulation.simulate import COMPACT_GEOMETRY
        from ..training.commands import run_prepare

        run_prepare(args.manifest, COMPACT_GEOMETRY, args.out, _say, should_stop)
    return OK


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", type=Path, metavar="DIR", help="weights, which stay as they are")
    add("validation", type=Path, metavar="VALIDATION", help="what `simulate --whole` wrote")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the tuned weights")
    add("--draws", type=int, choices=range(1, 33), metavar="N", help="of noise for one edit")


def _tune(args: argparse.Namespace) -> int:
    from ..training.commands import run_tune

    run_tune(args.weights, args.validation, args.out, _say, args.draws)
    print(args.out)
    return OK


def _say(line: str) -> None:
    print(line, flush=True)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


COMMANDS = (
    Command(
        "tune",
        "choose a weights folder's thresholds anew, on validation vertebrae",
        _tune_arguments,
        _tune,
    ),
    Command("check", "say everything that is wrong with manifests", _check_arguments, _check),
    Command(
        "prepare",
        "cut a manifest's vertebrae out of their images, to train on",
        _prepare_arguments,
        _prepare,
    ),
)
