"""The subcommands that make weights: simulate, pack, check, prepare, train, tune, calibrate."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from .arguments import (
    DEVICES,
    FAILED,
    OK,
    Command,
    add_names,
    count,
    count_or_none,
    file_to_write,
    rate,
    say,
    say_aside,
    seed,
    share,
    threads,
    whole,
)


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "sources", type=Path, metavar="SOURCES.csv", help="ct, segmentation, labels, patient, split"
    )
    add(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that the paths are relative to, or the file that `pack` wrote",
    )
    add_names(
        parser,
        "--split",
        "which rows of the sources file, e.g. training,validation (default: training)",
        ("training",),
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the shard")
    add("--vertebrae", type=count, default=4000, metavar="N", help="two in five have lesions")
    add("--drawn", type=count_or_none, default=0, metavar="N", help="add N synthetic vertebrae")
    add("--seed", type=seed, default=1, metavar="N")
    add(
        "--whole", action="store_true", help="keep every slice, as needed for tuning and benchmarks"
    )
    add(
        "--unmodified",
        type=share,
        default=0.07,
        metavar="SHARE",
        help="of patients whose real vertebrae stay as they are, healthy (default: 0.07)",
    )
    add_names(parser, "--without", "patients to leave out")
    add("--workers", type=count, default=1, metavar="N", help="processes, for over 4000 vertebrae")


def _simulate(args: argparse.Namespace) -> int:
    from .console import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..simulation.commands import Simulation, run_simulate

        job = Simulation(
            *(args.sources, args.data, args.split, args.out),
            *(args.vertebrae, args.seed, args.whole, args.drawn),
            *(args.unmodified, args.workers, args.without),
        )
        for path in run_simulate(job, say, should_stop):
            print(path)
    return OK


def _pack_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", type=Path, metavar="SOURCES.csv", help="as `simulate` wants it")
    add("--data", type=Path, required=True, metavar="DIR", help="folder the paths start from")
    add_names(parser, "--split", "which rows of the sources file (default: all)")
    add("--out", type=file_to_write(".npz"), required=True, metavar="FILE.npz")


def _pack(args: argparse.Namespace) -> int:
    from ..simulation.commands import run_pack

    print(run_pack(args.sources, args.data, args.out, say, args.split))
    return OK


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("slices", type=Path, metavar="DIR", help="simulated or prepared slices to train on")
    add(
        "--validation",
        type=Path,
        metavar="DIR",
        help="whole simulated vertebrae to choose thresholds on, or other prepared patients",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="checkpoints and weights; resumed")
    add("--supervision", choices=["labels", "twins"], default="labels")
    add(
        "--encoder-steps",
        type=count_or_none,
        default=40_000,
        metavar="N",
        help="0 keeps that of --start",
    )
    add("--decoder-steps", type=count, default=20_000, metavar="N")
    add("--encoder-rate", type=rate, default=1e-3, metavar="RATE", help="learning rate")
    add("--decoder-rate", type=rate, default=8e-4, metavar="RATE", help="learning rate")
    add("--start", type=Path, metavar="DIR", help="weights to continue from (default: random)")
    add_names(parser, "--without", "patients to leave out, for testing")
    add("--central-slices", type=count, metavar="N", help="train on the N central slices only")
    add("--name", default="compact", help="name of the weights, shown to their users")
    add("--encoder-batch", type=count, default=32, metavar="N", help="slices of one step")
    add("--decoder-batch", type=count, default=32, metavar="N", help="slices of one step")
    add("--seconds", type=count, metavar="S", help="end encoder and decoder after so long each")
    add(
        "--bfloat16",
        action="store_true",
        help="compute in bfloat16 on the CPU too: faster where it has instructions for it",
    )
    add(
        "--patience",
        type=count,
        metavar="N",
        help="end encoder and decoder N steps after their best look at VALIDATION (one in 500"
        " steps), and keep the best weights (default: the last ones)",
    )
    add(
        "--compile",
        action="store_true",
        help="compile the networks for a minute or two: then a GPU has half the work",
    )
    add("--no-context", action="store_true", help="judge each vertebra without the others")
    add("--untuned", action="store_true", help="measure on VALIDATION, but choose no thresholds")
    add("--seed", type=seed, default=1, metavar="N")
    add("--device", default="auto", choices=DEVICES)
    add("--threads", type=threads, metavar="N", help="CPU threads to use")


def _train(args: argparse.Namespace) -> int:
    from .console import stop_on_signal

    with stop_on_signal() as should_stop:
        import torch

        from ..training.train import TrainingSettings
        from ..training.train_command import Training, run_train

        if args.threads:
            torch.set_num_threads(args.threads)
        settings = TrainingSettings(
            supervision=args.supervision,
            encoder_steps=args.encoder_steps,
            decoder_steps=args.decoder_steps,
            encoder_batch=args.encoder_batch,
            decoder_batch=args.decoder_batch,
            encoder_rate=args.encoder_rate,
            decoder_rate=args.decoder_rate,
            seed=args.seed,
            seconds=args.seconds,
            bfloat16=args.bfloat16,
            patience=args.patience,
            compiled=args.compile,
        )
        job = Training(
            *(args.slices, args.validation, args.out, settings, args.name),
            *(args.device, args.central_slices, args.start, args.without),
            *(not args.no_context, not args.untuned),
        )
        weights = run_train(job, say, should_stop)
        if weights is not None:
            print(weights)
    return OK


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifests",
        type=Path,
        nargs="+",
        metavar="MANIFEST.csv",
        help="image, mask, label, patient, and level, convention; several must share no patient",
    )


def _check(args: argparse.Namespace) -> int:
    from .console import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..simulation.simulate import COMPACT_GEOMETRY
        from ..training.prepare_command import run_check

        wrong = run_check(args.manifests, COMPACT_GEOMETRY, say, say_aside, should_stop)
    return FAILED if wrong else OK


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST.csv", help="in the format that `check` accepts")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the shards; resumed")
    add("--workers", type=count, metavar="N", help="processes (default: by cores and memory)")
    add("--scheduler", default="", metavar="ADDRESS|FILE", help="as of `cohort`")
    parser.set_defaults(refuse=parser.error)


def _prepare(args: argparse.Namespace) -> int:
    if args.scheduler and args.workers is not None:
        args.refuse("--workers has no meaning with --scheduler, whose workers run already")
    from .console import stop_on_signal

    with stop_on_signal() as should_stop:
        from ..cohort.pool import PoolLimits
        from ..cohort.shards import write_shards_by_engine
        from ..simulation.simulate import COMPACT_GEOMETRY
        from ..training.prepare_command import run_prepare

        limits = PoolLimits(args.workers, scheduler=args.scheduler)
        write = partial(write_shards_by_engine, limits)
        run_prepare(args.manifest, COMPACT_GEOMETRY, args.out, say, should_stop, write)
    return OK


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", type=Path, metavar="DIR", help="weights directory, which is not changed")
    add("validation", type=Path, metavar="VALIDATION", help="output of `simulate --whole`")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the tuned weights")
    add("--draws", type=whole(1, 32), metavar="N", help="draws of noise per edit, at most 32")


def _tune(args: argparse.Namespace) -> int:
    from ..files import require_apart
    from ..training.tune_command import run_tune

    require_apart(args.out, [args.weights])
    run_tune(args.weights, args.validation, args.out, say, args.draws)
    print(args.out)
    return OK


def _calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", type=Path, metavar="DIR", help="weights, which stay as they are")
    add(
        "observations",
        type=Path,
        nargs="+",
        metavar="FILE.json",
        help="output of `benchmark observe`, of patients who were not in training",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the calibrated weights")
    add(
        "--training",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.json",
        help="the same of training patients, to recognise vertebrae unlike them",
    )
    add_observed(parser)


def add_observed(parser: argparse.ArgumentParser) -> None:
    """Add the settings that observations are made with."""
    add = parser.add_argument
    add("--noise-level", type=share, metavar="X", help="noise of a single-shot edit (0 to 1)")
    add("--draws", type=whole(1, 32), metavar="N", help="draws of noise for one edit")
    add(
        "--opposite-noise",
        action="store_true",
        default=None,
        help="every second draw is the one before with the other sign",
    )
    add("--floor", type=share, metavar="X", help="least change of a pixel in a candidate")
    add("--slice-gate", type=share, metavar="P", help="least P(malignant) of an edited slice")
    add("--min-slices", type=whole(1, 9), metavar="N", help="least slices of a candidate")
    add(
        "--outline",
        type=share,
        metavar="X",
        help="outline a lesion where it changed by this share of its strong change",
    )


def observed(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return those settings, as parts of a profile."""
    schedule = {
        "noise_level": args.noise_level,
        "draws": args.draws,
        "opposite_noise": args.opposite_noise,
    }
    decision = {
        "lytic_floor": args.floor,
        "blastic_floor": args.floor,
        "gate_p": args.slice_gate,
        "min_slices": args.min_slices,
        "outline_share": args.outline,
    }
    parts = {"schedule": schedule, "decision": decision}
    return {
        part: {key: value for key, value in values.items() if value is not None}
        for part, values in parts.items()
    }


def _calibrate(args: argparse.Namespace) -> int:
    from ..training.tune_command import run_calibrate

    settings = observed(args)
    run_calibrate(args.weights, args.observations, args.training, args.out, settings, say)
    print(args.out)
    return OK


COMMANDS = (
    Command(
        "calibrate",
        "fit a weights folder's probabilities on patients who were not in training",
        _calibrate_arguments,
        _calibrate,
    ),
    Command(
        "simulate",
        "make training data: real and synthetic vertebrae with simulated metastases",
        _simulate_arguments,
        _simulate,
    ),
    Command(
        "pack",
        "put the vertebrae of scans into one small file, to simulate without the scans",
        _pack_arguments,
        _pack,
    ),
    Command("train", "train a set of weights; stops and resumes", _train_arguments, _train),
    Command(
        "tune",
        "choose the thresholds of a weights directory on validation vertebrae",
        _tune_arguments,
        _tune,
    ),
    Command("check", "report everything that is wrong with manifests", _check_arguments, _check),
    Command(
        "prepare",
        "crop the vertebrae of a manifest for training",
        _prepare_arguments,
        _prepare,
    ),
)
