"""What running a cohort costs beside its cases: against single processes, in memory, with growth.

Seconds of one machine say little of another: the table has ratios, of one run.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..cohort.case_run import CaseRecord, CaseStatus, CohortSettings
from ..cohort.manifest import CohortCase, read_cohort
from ..cohort.pool import (
    CaseEnded,
    CohortEvent,
    CohortStarted,
    Plan,
    PoolLimits,
    RunControl,
    choose_plan,
    run_cohort,
    this_machine,
)
from ..cohort.report import write_report
from ..cohort.tables import write_tables
from ..errors import InputError
from ..files import atomic, make_folder, temporary_folder
from ..model.profile import read_profile
from .speed_measurements import SegmentProcess, machine, run, write_spine

LEVEL = "T12"
SMALL = (16, 16, 16)  # voxels of a case that is refused at once: the engine alone takes time
TRUNK = (700, 512, 512)  # voxels (K, J, I) of a CT of the whole trunk
NODES, CASES = 50, 10_000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Growth:
    """Seconds beside the cases themselves, for so many: handing out, and tables with the page."""

    cases: int
    handing_out: float
    tables: float


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and those of the processor in all processes."""

    seconds: float
    processor: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.processor + other.processor)


@dataclass(frozen=True)
class Compared:
    """The same cases in a process each and as a cohort.

    ``records`` are those of the cohort, ``busy`` its seconds since the first worker was ready.
    """

    alone: Spent
    cohort: Spent
    records: list[CaseRecord]
    busy: float


@dataclass(frozen=True)
class EngineCosts:
    """What the same cases took: ``alone`` in a process each, and ``cohort`` in one worker.

    Both of one thread; ``alone_all_cores`` and ``cohort_planned`` as users run them.  ``overhead``
    is the share of the engine in the time of a worker; memory is in MB, of a worker that analysed
    one drawn vertebra, and one of a CT of ``trunk`` voxels (K, J, I).
    """

    cases: int
    alone: Spent
    cohort: Spent
    alone_all_cores: Spent
    cohort_planned: Spent
    plan: Plan
    overhead: float
    case_seconds: float
    small_mb: float
    trunk: tuple[int, ...]
    trunk_mb: float
    growth: tuple[Growth, ...]


def measure(
    cases: int,
    sizes: Sequence[int],
    weights: Path,
    out: Path,
    say: Say,
    trunk: Sequence[int] = TRUNK,
) -> str:
    """Measure, and return the table, also written as cohort.md and cohort.json to ``out``.

    ``cases`` drawn ones are run, as many refused ones as each of ``sizes`` says, and a CT of
    ``trunk`` voxels (K, J, I).  Raises InputError and WeightsError.
    """
    profile = read_profile(weights)
    make_folder(out)
    with temporary_folder(purpose="cohort") as folder:
        growth = []
        for size in sizes:
            growth.append(_growth(folder / f"growth-{size}", size, weights))
            say(f"{size} refused cases: {growth[-1].handing_out:.2f} s beside them")
        drawn = _drawn_cases(folder / "drawn", cases)
        one = planned = _compare(drawn, folder / "one", weights, 1, PoolLimits(1, 1))
        say(_in_words(one, "one worker"))
        cores, plan = this_machine().cores, choose_plan(this_machine(), cases, PoolLimits())
        if (cores, plan) != (1, Plan(1, 1)):
            planned = _compare(drawn, folder / "planned", weights, cores, PoolLimits())
            say(_in_words(planned, "as planned"))
        wide = _trunk_case(folder / "trunk", drawn, trunk)
        large, _ = _cohort(wide, folder / "large", weights, PoolLimits(1, 1))
        records = [*one.records, *planned.records, *large]
        lost = [record.reason for record in records if record.status is not CaseStatus.DONE]
        if lost:
            raise InputError("benchmark cohort", f"a drawn scan has no result: {lost[0]}")
        spent = sum(record.seconds for record in one.records)
        costs = EngineCosts(
            *(cases, one.alone, one.cohort, planned.alone, planned.cohort, plan),
            overhead=max(one.busy - spent, 0.0) / one.busy,
            case_seconds=spent / cases,
            small_mb=max(record.memory_mb or 0.0 for record in one.records),
            trunk=tuple(trunk),
            trunk_mb=max(record.memory_mb or 0.0 for record in large),
            growth=tuple(growth),
        )
    facts = {"weights": f"{profile.profile.name} ({profile.hash[:12]})", **machine()}
    text = to_markdown(costs, facts)
    data = json.dumps({**facts, **asdict(costs)}, indent=1)
    for name, content in (("cohort.md", text), ("cohort.json", data + "\n")):
        with atomic(out / name) as path:
            path.write_text(content, encoding="utf-8")
    return text


def to_markdown(costs: EngineCosts, facts: dict[str, Any]) -> str:
    """Return the figures as ratios, and what they mean for a cluster on paper."""
    first, last = costs.growth[0], costs.growth[-1]
    per_case = [(g.handing_out + g.tables) / g.cases for g in (first, last)]
    handed = last.handing_out / last.cases
    planned = (
        f"as planned ({costs.plan.workers} workers, {costs.plan.threads} thread(s) each) against a"
        " process each with all cores"
    )
    rows = [
        (f"cases per {hour}, {how}", getattr(alone, spent) / getattr(cohort, spent))
        for how, alone, cohort in (
            ("1 worker against a process each", costs.alone, costs.cohort),
            (planned, costs.alone_all_cores, costs.cohort_planned),
        )
        for hour, spent in (("hour", "seconds"), ("processor hour", "processor"))
    ]
    lines = [
        "# Cohorts: what the engine costs",
        "",
        f"Written by `hideseekseg benchmark cohort`: {costs.cases} drawn scans of one vertebra,"
        f" weights {facts['weights']}, on the CPU ({facts['cores']} cores, load {facts['load']})."
        " All figures are of one run on one machine; the ratios are what they are for. Half of the"
        " single processes ran before the cohort and half after it; its times include the start of"
        " its workers. A drawn scan of one vertebra is a short case, so that the start of a process"
        " weighs much: with longer cases it weighs less.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {what} | {ratio:.1f} times |" for what, ratio in rows),
        f"| share of the engine in a worker's time | {100 * costs.overhead:.1f} % |",
        f"| memory of a worker, drawn scan | {costs.small_mb:.0f} MB |",
        f"| memory of a worker, CT of {' x '.join(map(str, costs.trunk))} voxels |"
        f" {costs.trunk_mb:.0f} MB |",
        f"| engine's time per case, {last.cases} cases against {first.cases} |"
        f" {per_case[1] / per_case[0]:.2f} times |",
        "",
        "| refused cases | handing out, ms per case | tables and page, ms per case |",
        "|---|---|---|",
        *(
            f"| {g.cases} | {1000 * g.handing_out / g.cases:.1f}"
            f" | {1000 * g.tables / g.cases:.1f} |"
            for g in costs.growth
        ),
        "",
        f"On paper, {CASES} such cases on {NODES} nodes of one worker each: every node has"
        f" {CASES // NODES} cases, and takes {CASES // NODES} times the seconds of a case. One"
        f" parent hands out a case in {handed / costs.case_seconds:.2%} of the time that a case"
        f" takes, so it keeps {int(costs.case_seconds / handed)} workers busy; it then takes"
        f" {(CASES * last.tables / last.cases) / costs.case_seconds:.0f} times the seconds of one"
        " case for tables and page. What a Dask scheduler takes per task, and reading from a shared"
        " disk, were not measured.",
        "",
    ]
    return "\n".join(lines)


def _growth(folder: Path, cases: int, weights: Path) -> Growth:
    """Run so many cases that are refused at once: their segmentations name no vertebra."""
    make_folder(folder)
    nothing = sitk.GetImageFromArray(np.zeros(SMALL, np.uint8))
    sitk.WriteImage(nothing, str(folder / "nothing.nii"))
    whole = sitk.GetImageFromArray(np.full(SMALL, 40, np.int16))
    sitk.WriteImage(whole, str(folder / "ct-0.nii"))
    for n in range(1, cases):
        shutil.copyfile(folder / "ct-0.nii", folder / f"ct-{n}.nii")
    rows = [f"ct-{n}.nii,nothing.nii" for n in range(cases)]
    manifest = _manifest(folder, rows)
    records, busy = _cohort(manifest, folder / "out", weights, PoolLimits(1, 1))
    if len(records) != cases or any(record.traceback for record in records):
        raise InputError(manifest, "was not refused case by case")
    began = time.monotonic()
    write_tables(folder / "out")
    write_report(folder / "out")
    tables = time.monotonic() - began
    return Growth(cases, max(busy - sum(record.seconds for record in records), 0.0), tables)


def _manifest(folder: Path, rows: Sequence[str]) -> Path:
    path = folder / "manifest.csv"
    head = "ct,segmentation,labels" if rows[0].count(",") == 2 else "ct,segmentation"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def _drawn_cases(folder: Path, cases: int) -> Path:
    ct, vertebrae = write_spine(folder, (LEVEL,))
    rows = []
    for n in range(cases):
        name = f"{n}-{ct.name}"
        shutil.copyfile(ct, folder / name)
        rows.append(f"{name},{vertebrae.name},totalsegmentator")
    return _manifest(folder, rows)


def _trunk_case(folder: Path, drawn: Path, size: Sequence[int]) -> Path:
    """Write a drawn scan whose borders are repeated up to so many voxels (K, J, I)."""
    make_folder(folder)
    case = read_cohort(drawn).cases[0]
    for name, path in (("ct.nii", case.ct), ("vertebrae.nii", case.segmentation)):
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        more = [max(wanted - length, 0) for wanted, length in zip(size, array.shape)]
        pads = [(n // 2, n - n // 2) for n in more]
        array = np.pad(array, pads, "edge") if name == "ct.nii" else np.pad(array, pads)
        padded = sitk.GetImageFromArray(array)
        padded.SetSpacing(image.GetSpacing())
        padded.SetDirection(image.GetDirection())
        lower = [-low for low, _ in reversed(pads)]
        padded.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([float(x) for x in lower]))
        sitk.WriteImage(padded, str(folder / name))
    return _manifest(folder, ["ct.nii,vertebrae.nii,totalsegmentator"])


def _in_words(found: Compared, how: str) -> str:
    cases, alone, cohort = len(found.records), found.alone.seconds, found.cohort.seconds
    return f"{cases} drawn cases, a process each: {alone:.0f} s; as a cohort, {how}: {cohort:.0f} s"


def _compare(
    manifest: Path, out: Path, weights: Path, threads: int, limits: PoolLimits
) -> Compared:
    """Run the cases both ways; other work on the machine, which comes and goes, meets both."""
    cases = read_cohort(manifest).cases
    half = len(cases) // 2
    before = _spent_in(lambda: _alone(cases[:half], out / "alone", weights, threads))
    found: list[tuple[list[CaseRecord], float]] = []
    cohort = _spent_in(lambda: found.append(_cohort(manifest, out / "cohort", weights, limits)))
    after = _spent_in(lambda: _alone(cases[half:], out / "alone", weights, threads))
    return Compared(before + after, cohort, *found[0])


def _spent_in(work: Callable[[], None]) -> Spent:
    """Do work; its processor time counts that of all processes that it has waited for."""
    began, used = time.monotonic(), os.times()
    work()
    processor = sum(os.times()[:4]) - sum(used[:4])
    return Spent(time.monotonic() - began, processor)


def _alone(cases: Sequence[CohortCase], out: Path, weights: Path, threads: int) -> None:
    """Run a process per case, one after the other."""
    for case in cases:
        run(SegmentProcess(case.ct, case.segmentation, weights, out / case.folder, threads))


def _cohort(
    manifest: Path, out: Path, weights: Path, limits: PoolLimits
) -> tuple[list[CaseRecord], float]:
    """Return the records, and the seconds since the first worker was ready."""
    records: list[CaseRecord] = []
    ready = time.monotonic()

    def tell(event: CohortEvent) -> None:
        nonlocal ready
        if isinstance(event, CohortStarted):
            ready = time.monotonic()
        elif isinstance(event, CaseEnded):
            records.append(event.record)

    settings = CohortSettings(weights, "cpu")
    run_cohort(read_cohort(manifest), out, settings, RunControl(limits, tell))
    return records, time.monotonic() - ready
