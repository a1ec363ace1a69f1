"""The subcommand ``benchmark``: accuracy, the derived body, seconds and memory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .arguments import (
    DEVICES,
    OK,
    WEIGHTS_HELP,
    Command,
    add_hidden,
    add_names,
    between_commas,
    count,
    count_or_none,
    file_to_write,
    say,
    seed,
    threads,
    whole,
)
from .training import add_observed, observed


def _arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what to measure", required=True, metavar="WHAT")
    _accuracy_arguments(kinds.add_parser("accuracy", help="accuracy of a set of weights"))
    _train_arguments(kinds.add_parser("train", help="train the networks of the baselines"))
    _folds_arguments(kinds.add_parser("folds", help="cross-validation by patient"))
    _observe_arguments(
        kinds.add_parser("observe", help="observations of known vertebrae by a set of weights")
    )
    _probabilities_arguments(
        kinds.add_parser("probabilities", help="calibration, lesions by diameter, false findings")
    )
    bodies = kinds.add_parser("bodies", help="derived vertebral bodies against reference ones")
    bodies.add_argument("--data", type=Path, required=True, metavar="DIR")
    bodies.set_defaults(measure=_bodies)
    runs = kinds.add_parser("runs", help="seconds and memory of `segment` on real CTs")
    add = runs.add_argument
    add("sources", type=Path, metavar="SOURCES.csv")
    _add_data(add)
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    runs.set_defaults(measure=_runs)
    review = kinds.add_parser("review", help="milliseconds of a threshold move, a verdict, an undo")
    review.add_argument("--candidates", type=count, default=500, metavar="N")
    review.set_defaults(measure=_review)
    _app_arguments(kinds.add_parser("app", help="response times in the browser"))
    _speed_arguments(
        kinds.add_parser("speed", help="seconds and memory, and their price in accuracy")
    )
    _range_arguments(kinds.add_parser("range", help="warnings on unusual inputs, false and true"))
    _foci_arguments(
        kinds.add_parser("foci", help="what is found of foci of known density and diameter")
    )
    _rotations_arguments(
        kinds.add_parser("rotations", help="changes of findings in turned patients")
    )
    _cohort_arguments(kinds.add_parser("cohort", help="overhead of the engine of cohorts"))


def _add_data(add: Callable[..., object]) -> None:
    help_ = "folder that the paths are relative to"
    add("--data", type=Path, required=True, metavar="DIR", help=help_)


def _observe_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("cases", type=Path, metavar="CASES", help="output of `simulate --whole`, or of `pack`")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--out", type=file_to_write(".json"), required=True, metavar="FILE.json")
    add_names(parser, "--patients", "only these")
    add("--stability", action="store_true", help="look for likely candidates again")
    add("--device", default="auto", choices=DEVICES)
    add_observed(parser)
    parser.set_defaults(measure=_observe)


def _observe(args: argparse.Namespace) -> int:
    from ..benchmark.probabilities import run_observe
    from ..model.weights import BUNDLE

    work = (args.weights or BUNDLE, args.cases, args.out, observed(args), args.patients)
    print(run_observe(*work, args.device, say, args.stability))
    return OK


def _probabilities_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sets", type=Path, nargs="*", metavar="FILE.json", help="output of `benchmark observe`")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add(
        "--fold",
        type=Path,
        action="append",
        default=[],
        metavar="FOLD-WHAT.json",
        help="the same of one fold, by weights that were not trained on its patients",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for table and JSON")
    parser.set_defaults(measure=_probabilities)


def _probabilities(args: argparse.Namespace) -> int:
    from ..benchmark.probabilities import report
    from ..model.weights import BUNDLE

    print(report(args.weights or BUNDLE, args.fold, args.sets, args.out, say))
    return OK


def _accuracy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Accuracy of one set of weights on simulated vertebrae; with --validation, a table of all"
        " methods per set of vertebrae, with intervals and plots."
    )
    add = parser.add_argument
    add("cases", type=Path, metavar="DIR", help="output of `simulate --whole`")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--out", type=Path, metavar="DIR", help="folder for tables, JSON and plots")
    add("--validation", type=Path, metavar="DIR", help="whole vertebrae to choose thresholds on")
    add(
        "--compare-weights",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="further weights to compare with",
    )
    add_hidden(parser, "--beside", "--compare-weights", type=Path, action="append")
    add("--baselines", type=Path, metavar="DIR", help="output of `benchmark train`")
    add_hidden(parser, "--rivals", "--baselines", type=Path)
    add("--sources", type=Path, metavar="SOURCES.csv", help="real CTs: all but those of training")
    add("--data", type=Path, metavar="DIR", help="folder the paths of --sources start from")
    add("--boxes", type=Path, metavar="BOXES.csv", help="boxes around the lesions of real CTs")
    add("--drawn", type=count_or_none, default=0, metavar="N", help="also N synthetic vertebrae")
    add("--tuning", type=count, default=120, metavar="N", help="vertebrae to choose thresholds on")
    add(
        "--ablated",
        type=count_or_none,
        default=60,
        metavar="N",
        help="vertebrae for ablations; 0: none",
    )
    parser.set_defaults(measure=_accuracy, refuse=parser.error)


# Options of `accuracy` that mean nothing without --validation.
_OF_COMPARISON = ("--compare-weights", "--baselines", "--sources", "--data", "--boxes", "--drawn")


def _name_of(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _folds_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cross-validation: each patient is judged by weights not trained on that patient, next to"
        " the baselines that need no training. `train --without` makes the weights of a fold."
    )
    add = parser.add_argument
    add("cases", type=Path, metavar="DIR", help="output of `simulate --whole`, of all patients")
    add("--weights", type=Path, action="append", required=True, metavar="DIR", help="of each fold")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for table, JSON and plots")
    add("--tuning", type=count, default=60, metavar="N", help="vertebrae to choose thresholds on")
    parser.set_defaults(measure=_folds)


def _range_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Warnings on real vertebrae as they are, and after they were degraded."
    add = parser.add_argument
    add("--sources", type=Path, required=True, metavar="SOURCES.csv")
    _add_data(add)
    add("--out", type=Path, metavar="DIR", help="folder for range.md and range.json")
    add("--degraded", type=count, default=4, metavar="N", help="vertebrae to degrade of each CT")
    parser.set_defaults(measure=_range)


def _foci_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Round foci of known density and diameter, painted into real vertebral bodies in which no"
        " lesion is known: which of them are found."
    )
    add = parser.add_argument
    add("sources", type=Path, metavar="SOURCES.csv")
    _add_data(add)
    add_names(
        parser,
        "--split",
        "which rows of the sources file (default: validation,test)",
        ("validation", "test"),
    )
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--out", type=Path, required=True, metavar="DIR", help="folder for foci.md and foci.json")
    parser.set_defaults(measure=_foci)


def _rotations_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The drawn example, turned about axes of any direction: how far scores and volumes change,"
        " with turned headers and with a resampled CT."
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for table and JSON")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--turns", type=count, default=30, metavar="N", help="turns (default: %(default)s)")
    add(
        "--degrees",
        type=whole(1, 180),
        default=30,
        metavar="N",
        help="largest turn, at most 180 (default: %(default)s)",
    )
    add("--seed", type=seed, default=1, metavar="N")
    parser.set_defaults(measure=_rotations)


def _counts(text: str) -> tuple[int, ...]:
    """Parse numbers above 0 between commas."""
    return tuple(count(part) for part in between_commas(text))


def _cohort_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Cases per hour against a process per case, memory of a worker, and the engine's time per"
        " case as their number grows. Needs no data."
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for table and JSON")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--cases", type=count, default=20, metavar="N", help="drawn scans (default: %(default)s)")
    add("--sizes", type=_counts, default=(10, 100, 1000), metavar="N,M", help="refused cases")
    how = "voxels of the CT for the memory of a worker (default: of a whole trunk)"
    add("--trunk", type=_counts, metavar="K,J,I", help=how)
    parser.set_defaults(measure=_cohort, refuse=parser.error)


def _speed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Time of one slice and of a whole drawn spine, memory, and agreement of the weights'"
        " schedule with the exact one. Needs no data; other work on the machine spoils it."
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for table, JSON and plots")
    add("--weights", type=Path, metavar="DIR", help=WEIGHTS_HELP)
    add("--cases", type=Path, metavar="DIR", help="`simulate --whole` wrote it; default: drawn")
    add("--crops", type=count, default=24, metavar="N", help="slices for the agreement (3 s each)")
    add("--repeats", type=count, default=3, metavar="N", help="runs of each whole process")
    add("--threads", type=threads, default=2, metavar="N", help="CPU threads to use")
    add("--before", type=Path, metavar="DIR", help="an earlier HideSeekSeg folder to time as well")
    parser.set_defaults(measure=_speed)


def _app_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A real server and a real Chromium: milliseconds from a click, a key and the slider to"
        " what is displayed, and the server's memory over runs of the embedded example. Needs"
        " playwright here, and a Python with trame-slicer."
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for app.md and app.json")
    add("--python", default=sys.executable, metavar="FILE", help="Python of `make app`")
    add("--candidates", type=count, default=500, metavar="N")
    add("--runs", type=count, default=10, metavar="N", help="runs of the example, for the memory")
    add("--rounds", type=count, default=21, metavar="N", help="clicks, keys and moves each")
    parser.set_defaults(measure=_app)


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("network", choices=["unet", "anomaly", "auditor"])
    add("slices", type=Path, metavar="DIR", help="simulated slices to train on")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for all baselines; resumed")
    add("--steps", type=count, metavar="N", help="training steps (default: by network)")
    add("--seed", type=seed, default=101, metavar="N", help="not that of the weights under test")
    add("--batch", type=count, default=32, metavar="N", help="slices of one step")
    add("--seconds", type=count, metavar="S", help="end after so long (not for the auditor)")
    add_names(parser, "--without", "patients kept for a test")
    add("--device", default="auto", choices=DEVICES)
    parser.set_defaults(measure=_train)


def _measure(args: argparse.Namespace) -> int:
    return int(args.measure(args))


def _accuracy(args: argparse.Namespace) -> int:
    from ..model.weights import BUNDLE

    weights = args.weights or BUNDLE
    if args.validation is None:
        unused = [option for option in _OF_COMPARISON if getattr(args, _name_of(option))]
        if unused:
            args.refuse(f"{unused[0]} needs --validation")
        return _figures(args, weights)
    if args.out is None:
        args.refuse("--validation needs --out")
    if (args.sources is None) != (args.data is None):
        args.refuse("--sources and --data go together")
    if args.boxes is not None and args.sources is None:
        args.refuse("--boxes needs --sources")
    from ..benchmark.comparison import ComparisonPlan, compare

    plan = ComparisonPlan(
        *(args.cases, weights, args.out, args.validation, args.baselines),
        *(args.sources, args.data, args.boxes, args.drawn, args.tuning, args.ablated),
        compare_weights=args.compare_weights,
    )
    for path in compare(plan, say):
        print(path)
    return OK


def _figures(args: argparse.Namespace, weights: Path) -> int:
    from ..training.tune_command import run_benchmark

    run_benchmark(args.cases, weights, args.out, say)
    return OK


def _folds(args: argparse.Namespace) -> int:
    from ..benchmark.cross_validation import CrossValidationPlan, cross_validate

    for path in cross_validate(
        CrossValidationPlan(args.cases, args.weights, args.out, args.tuning), say
    ):
        print(path)
    return OK


def _train(args: argparse.Namespace) -> int:
    from .console import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..benchmark.methods.trained import STEPS, train_baseline
        from ..training.trainer import open_team, stage_teller

        steps = args.steps or STEPS[args.network]
        tell = stage_teller(say)
        work = (args.network, args.slices, args.out, steps, args.seed)
        with open_team(args.device) as team:
            own = args.batch, args.without, args.seconds
            print(train_baseline(*work, tell, should_stop, team, *own))
    return OK


def _bodies(args: argparse.Namespace) -> int:
    from ..benchmark.real_scans import body_report

    print(body_report(args.data))
    return OK


def _runs(args: argparse.Namespace) -> int:
    from ..benchmark.real_scans import run_all, table

    print(table(run_all(args.sources, args.data, args.out, (), say)))
    return OK


def _review(args: argparse.Namespace) -> int:
    from ..benchmark.responsiveness import report

    print(report(args.candidates))
    return OK


def _app(args: argparse.Namespace) -> int:
    from ..benchmark.responsiveness import AppBenchmarkPlan, measure

    plan = AppBenchmarkPlan(args.out, args.python, args.candidates, args.runs, args.rounds)
    for path in measure(plan, say):
        print(path)
    return OK


def _speed(args: argparse.Namespace) -> int:
    from ..benchmark.speed_report import SpeedPlan, measure
    from ..model.weights import BUNDLE

    how = (args.cases, args.crops, args.repeats, args.threads, args.before)
    for path in measure(SpeedPlan(args.weights or BUNDLE, args.out, *how), say):
        print(path)
    return OK


def _rotations(args: argparse.Namespace) -> int:
    from ..benchmark.rotations import report
    from ..model.weights import BUNDLE

    how = (args.turns, float(args.degrees), args.seed)
    print(report(*how, args.weights or BUNDLE, args.out, say))
    return OK


def _cohort(args: argparse.Namespace) -> int:
    from ..benchmark.cohort_engine import TRUNK, measure
    from ..model.weights import BUNDLE

    trunk = args.trunk or TRUNK
    if len(trunk) != len(TRUNK):
        args.refuse("--trunk needs three numbers")
    print(measure(args.cases, args.sizes, args.weights or BUNDLE, args.out, say, trunk))
    return OK


def _foci(args: argparse.Namespace) -> int:
    from ..benchmark.foci import report
    from ..model.weights import BUNDLE

    weights = args.weights or BUNDLE
    print(report(args.sources, args.data, args.split, weights, args.out, say))
    return OK


def _range(args: argparse.Namespace) -> int:
    from ..benchmark.robustness import report

    print(report(args.sources, args.data, args.degraded, args.out, say))
    return OK


COMMANDS = (Command("benchmark", "measure accuracy, speed and robustness", _arguments, _measure),)
