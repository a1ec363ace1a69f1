"""The command that measures: accuracy, the derived body, seconds and memory."""

from __future__ import annotations

import argparse
from pathlib import Path

from .commands import OK, Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what to measure", required=True, metavar="WHAT")
    accuracy = kinds.add_parser("accuracy", help="lesions found on simulated vertebrae")
    add = accuracy.add_argument
    add("cases", type=Path, metavar="DIR", help="what `simulate --whole` wrote")
    add("--weights", type=Path, metavar="DIR", help="other weights than those that come along")
    add("--out", type=Path, metavar="DIR", help="folder for accuracy.json and accuracy.md")
    accuracy.set_defaults(measure=_accuracy)
    bodies = kinds.add_parser("bodies", help="the derived vertebral body against true ones")
    bodies.add_argument("--data", type=Path, required=True, metavar="DIR")
    bodies.set_defaults(measure=_bodies)
    runs = kinds.add_parser("runs", help="seconds and memory of the main job on real CTs")
    add = runs.add_argument
    add("sources", type=Path, metavar="SOURCES.csv")
    add("--data", type=Path, required=True, metavar="DIR", help="folder the paths start from")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    runs.set_defaults(measure=_runs)


def _measure(args: argparse.Namespace) -> int:
    return int(args.measure(args))


def _accuracy(args: argparse.Namespace) -> int:
    from .learning.commands import run_benchmark
    from .model.weights import BUNDLE

    run_benchmark(args.cases, args.weights or BUNDLE, args.out, _say)
    return OK


def _bodies(args: argparse.Namespace) -> int:
    from .learning.benchmark.bodies import report

    print(report(args.data))
    return OK


def _runs(args: argparse.Namespace) -> int:
    from .learning.benchmark.runs import run_all, table

    print(table(run_all(args.sources, args.data, args.out, (), _say)))
    return OK


def _say(line: str) -> None:
    print(line, flush=True)


COMMANDS = (Command("benchmark", "measure accuracy", _arguments, _measure),)
