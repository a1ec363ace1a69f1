"""The work behind ``hideseekseg check`` and ``prepare``: faults of manifests, and their shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

from ..errors import InputError
from ..model.profile import Geometry
from ..plain_data import counted
from .manifest import Manifest, balance, copies, overlap, read_manifest
from .prepare import PreparedRow, cut_out, write_shards
from .trainer import Say, counter

SHOWN_PATIENTS = 50


def run_check(
    paths: Sequence[Path],
    geometry: Geometry,
    say: Say,
    tell: Say,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Say everything that is wrong in manifests that are meant to be kept apart; gives how much.

    ``say`` hears the report, ``tell`` how far it is.  ``should_stop`` ends in KeyboardInterrupt.
    """
    manifests = [read_manifest(path) for path in paths]
    wrong = sum(_check(manifest, geometry, say, tell, should_stop) for manifest in manifests)
    pairs = combinations(manifests, 2)
    shared = [line for first, second in pairs for line in overlap(first, second)]
    shared += copies(manifests, should_stop)
    for line in shared:
        say(line)
    wrong += len(shared)
    say("nothing is wrong" if not wrong else f"wrong: {wrong}")
    return wrong


def _check(
    manifest: Manifest, geometry: Geometry, say: Say, tell: Say, should_stop: Callable[[], bool]
) -> int:
    for problem in manifest.problems:
        say(str(problem))
    wrong = len(manifest.problems)
    groups = manifest.by_image()
    count = counter(tell, "image")
    usable = 0
    for number, rows in enumerate(groups, start=1):
        if should_stop():
            raise KeyboardInterrupt
        outcomes = cut_out(rows, geometry)
        wrong += sum(bool(outcome.obstacle) for outcome in outcomes)
        usable += sum(not outcome.obstacle for outcome in outcomes)
        _say_outcomes(manifest.path, outcomes, say)
        count(number, len(groups))
    counts = balance(manifest.rows)
    healthy, malignant = (sum(pair[n] for pair in counts.values()) for n in (0, 1))
    if not usable:  # why, was said of each row
        say(f"{manifest.path}: contains no usable vertebra: there is nothing to learn from")
    elif not healthy or not malignant:
        only = "malignant" if malignant else "healthy"
        say(f"{manifest.path}: contains {only} vertebrae only: there is nothing to learn from")
        wrong += 1
    for line in _summary(manifest, counts):
        say(line)
    for line in _notes(counts):
        say(f"{manifest.path}: note: {line}")
    return wrong


def _notes(counts: dict[str, tuple[int, int]]) -> list[str]:
    """Return what makes training or its figures worth little, though no row is wrong."""
    if len(counts) == 1:
        return [
            "of one patient alone: what is learned is tested on other patients, which `train"
            " --validation` needs, and figures of one patient say little"
        ]
    classes = {(healthy > 0, malignant > 0) for healthy, malignant in counts.values()}
    if classes == {(True, False), (False, True)}:
        return [
            "no patient has both classes: what tells the patients or their scanners apart may be"
            " learned in place of the disease"
        ]
    return []


def _say_outcomes(path: Path, outcomes: Sequence[PreparedRow], say: Say) -> None:
    """Say a line of each row that cannot be used, or has something to be noted."""
    for outcome in outcomes:
        where = f"{path}, line {outcome.row.line}"
        if outcome.obstacle:
            say(f"{where}: {outcome.obstacle}")
        elif outcome.notes:
            say(f"{where}: usable, but note: {'; '.join(outcome.notes)}")


def _summary(manifest: Manifest, counts: dict[str, tuple[int, int]]) -> list[str]:
    """Classes of each patient, most vertebrae first."""
    healthy, malignant = (sum(pair[n] for pair in counts.values()) for n in (0, 1))
    lines = [
        f"{manifest.path}: {healthy} healthy and {malignant} malignant vertebrae"
        f" of {counted(len(counts), 'patient')} in {counted(len(manifest.by_image()), 'image')}"
    ]
    if manifest.unused:
        lines.append(f"columns that are not read: {', '.join(manifest.unused)}")
    order = sorted(counts.items(), key=lambda item: -sum(item[1]))
    width = max([len(patient) for patient in counts] + [7])
    lines.append(f"{'patient':{width}}  healthy  malignant")
    lines += [f"{name:{width}}  {h:7}  {m:9}" for name, (h, m) in order[:SHOWN_PATIENTS]]
    if len(order) > SHOWN_PATIENTS:
        lines.append(f"and {counted(len(order) - SHOWN_PATIENTS, 'more patient')}")
    return lines


def run_prepare(
    path: Path,
    geometry: Geometry,
    out: Path,
    say: Say,
    should_stop: Callable[[], bool] = lambda: False,
    write: Callable[..., int] = write_shards,
) -> int:
    """Write a manifest's shards to ``out`` and say what was left out; gives how many there are.

    ``write`` does what ``write_shards`` does, perhaps by other processes.

    Raises InputError where the table is wrong or no vertebra is usable.
    """
    manifest = read_manifest(path)
    if manifest.problems:
        first, more = manifest.problems[0], len(manifest.problems) - 1
        others = f"; and {more} more, which `hideseekseg check` lists" if more else ""
        raise InputError(path, f"line {first.line}: {first.cause}{others}")
    count = counter(say, "image")
    left_out = 0

    def tell(number: int, total: int, outcomes: Sequence[PreparedRow]) -> None:
        nonlocal left_out
        left_out += sum(bool(outcome.obstacle) for outcome in outcomes)
        _say_outcomes(path, outcomes, say)
        count(number, total)

    shards = write(manifest, geometry, out, tell, should_stop)
    if not shards:
        raise InputError(path, "leads to no usable vertebra")
    said = f"{counted(shards, 'shard')} in {out}; vertebrae left out"
    say(f"{said}: {left_out} of {len(manifest.rows)}")
    return shards
