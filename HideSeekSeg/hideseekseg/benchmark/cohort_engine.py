"""What running a cohort costs beside its cases: against single processes, in memory, with growth.

Seconds of one machine say little of another: the table has ratios, of one run.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..cohort.case_run import CaseRecord, CaseStatus, CohortSettings
from ..cohort.manifest import read_cohort
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
class EngineCosts:
    """``alone`` and ``cohort`` are seconds of the same cases, by threads of one process and plan.

    ``overhead`` is the share of the engine in the time of a worker; memory is in MB, of a worker
    that analysed one drawn vertebra, and one of a CT of ``TRUNK`` voxels.
    """

    cases: int
    alone: float
    cohort: float
    alone_all_cores: float
    cohort_planned: float
    plan: Plan
    overhead: float
    case_seconds: float
    small_mb: float
    trunk_mb: float
    growth: tuple[Growth, ...]


def measure(cases: int, sizes: Sequence[int], weights: Path, out: Path, say: Say) -> str:
    """Measure, and return the table, also written as cohort.md and cohort.json to ``out``.

    ``cases`` drawn ones are run, and as many refused ones as each of ``sizes`` says.  Raises
    InputError and WeightsError.
    """
    profile = read_profile(weights)
    make_folder(out)
    with temporary_folder(purpose="cohort") as folder:
        growth = []
        for size in sizes:
            growth.append(_growth(folder / f"growth-{size}", size, weights))
            say(f"{size} refused cases: {growth[-1].handing_out:.2f} s beside them")
        drawn = _drawn_cases(folder / "drawn", cases)
        cores = this_machine().cores
        alone = _alone(drawn, weights, 1)
        all_cores = alone if cores == 1 else _alone(drawn, weights, cores)
        say(f"{cases} drawn cases, a process each: {alone:.0f} s")
        records, busy, whole = _cohort(drawn, folder / "one", weights, PoolLimits(1, 1))
        planned = whole
        plan = choose_plan(this_machine(), cases, PoolLimits())
        if plan != Plan(1, 1):
            planned = _cohort(drawn, folder / "planned", weights, PoolLimits())[2]
        say(f"the same as a cohort, one worker: {whole:.0f} s")
        trunk = _trunk_case(folder / "trunk", drawn)
        large, _, _ = _cohort(trunk, folder / "large", weights, PoolLimits(1, 1))
        lost = [one.reason for one in (*records, *large) if one.status is not CaseStatus.DONE]
        if lost:
            raise InputError("benchmark cohort", f"a drawn scan has no result: {lost[0]}")
        spent = sum(record.seconds for record in records)
        costs = EngineCosts(
            *(cases, alone, whole, all_cores, planned, plan),
            overhead=max(busy - spent, 0.0) / busy,
            case_seconds=spent / cases,
            small_mb=max(record.memory_mb or 0.0 for record in records),
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
    rows = [
        ("cases per hour, 1 worker against a process each", costs.alone / costs.cohort),
        (
            f"cases per hour, as planned ({costs.plan.workers} workers, {costs.plan.threads}"
            " thread(s) each) against a process each with all cores",
            costs.alone_all_cores / costs.cohort_planned,
        ),
    ]
    lines = [
        "# Cohorts: what the engine costs",
        "",
        f"Written by `hideseekseg benchmark cohort`: {costs.cases} drawn scans of one vertebra,"
        f" weights {facts['weights']}, on the CPU ({facts['cores']} cores, load {facts['load']})."
        " All figures are of one run on one machine; the ratios are what they are for. A drawn scan"
        " of one vertebra is a short case, so that the start of a process weighs much: with longer"
        " cases it weighs less.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {what} | {ratio:.1f} times |" for what, ratio in rows),
        f"| share of the engine in a worker's time | {100 * costs.overhead:.1f} % |",
        f"| memory of a worker, drawn scan | {costs.small_mb:.0f} MB |",
        f"| memory of a worker, CT of {' x '.join(map(str, TRUNK))} voxels |"
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
    records, busy, _ = _cohort(manifest, folder / "out", weights, PoolLimits(1, 1))
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


def _trunk_case(folder: Path, drawn: Path) -> Path:
    """Write a drawn scan whose borders are repeated up to the size of ``TRUNK``."""
    make_folder(folder)
    case = read_cohort(drawn).cases[0]
    for name, path in (("ct.nii", case.ct), ("vertebrae.nii", case.segmentation)):
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        more = [max(wanted - size, 0) for wanted, size in zip(TRUNK, array.shape)]
        pads = [(n // 2, n - n // 2) for n in more]
        array = np.pad(array, pads, "edge") if name == "ct.nii" else np.pad(array, pads)
        padded = sitk.GetImageFromArray(array)
        padded.SetSpacing(image.GetSpacing())
        padded.SetDirection(image.GetDirection())
        lower = [-low for low, _ in reversed(pads)]
        padded.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([float(x) for x in lower]))
        sitk.WriteImage(padded, str(folder / name))
    return _manifest(folder, ["ct.nii,vertebrae.nii,totalsegmentator"])


def _alone(manifest: Path, weights: Path, threads: int) -> float:
    """Return the seconds of a process per case, one after the other."""
    began = time.monotonic()
    for case in read_cohort(manifest).cases:
        out = manifest.parent / f"alone-{threads}" / case.folder
        run(SegmentProcess(case.ct, case.segmentation, weights, out, threads))
    return time.monotonic() - began


def _cohort(
    manifest: Path, out: Path, weights: Path, limits: PoolLimits
) -> tuple[list[CaseRecord], float, float]:
    """Return the records, and the seconds since the first worker was ready, and of all."""
    records: list[CaseRecord] = []
    began = ready = time.monotonic()

    def tell(event: CohortEvent) -> None:
        nonlocal ready
        if isinstance(event, CohortStarted):
            ready = time.monotonic()
        elif isinstance(event, CaseEnded):
            records.append(event.record)

    settings = CohortSettings(weights, "cpu")
    run_cohort(read_cohort(manifest), out, settings, RunControl(limits, tell))
    ended = time.monotonic()
    return records, ended - ready, ended - began
