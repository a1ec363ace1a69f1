"""Real scans: what the main job finds in each and costs, and how well bodies are derived."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..anatomy.body import CUT, find_body
from ..anatomy.labelling import assign
from ..anatomy.localization import spine_axes
from ..errors import InputError
from ..files import read_object
from ..imaging.reading import read_segmentation
from ..imaging.volume import Grid
from ..simulation.source_vertebrae import Source, read_sources
from .speed_measurements import wait_for


@dataclass(frozen=True)
class ScanRun:
    """One process of ``hideseekseg segment``: wall seconds, peak resident memory in MiB."""

    source: Source
    name: str
    status: int
    seconds: float
    peak_mib: float
    vertebrae: int
    not_analysed: int
    candidates: int
    accepted: int


def run_all(
    sources: Path, data: Path, out: Path, extra: Sequence[str], say: Callable[[str], None]
) -> list[ScanRun]:
    """Segment each CT in a process of its own, with results in ``out/PATIENT``.

    The second CT of a patient goes to ``out/PATIENT-2``.
    """
    runs: list[ScanRun] = []
    for source in read_sources(sources, data):
        number = 1 + sum(run.source.patient == source.patient for run in runs)
        name = source.patient if number == 1 else f"{source.patient}-{number}"
        runs.append(_run(source, name, out / name, extra))
        say(f"{name}: {runs[-1].seconds:.1f} s")
    return runs


def table(runs: Sequence[ScanRun]) -> str:
    """Markdown, a row per CT."""
    lines = [
        "| CT | split | vertebrae | not analysed | candidates | accepted | seconds | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in runs:
        counts = f"{r.vertebrae} | {r.not_analysed} | {r.candidates} | {r.accepted}"
        if r.status != 0:
            counts = f"exit status {r.status} | | |"
        lines.append(
            f"| {r.name} | {r.source.split} | {counts} | {r.seconds:.1f} | {r.peak_mib:.0f} |"
        )
    return "\n".join(lines)


def _run(source: Source, name: str, out: Path, extra: Sequence[str]) -> ScanRun:
    files = [str(source.ct), str(source.segmentation), "--labels", source.labels]
    command = [sys.executable, "-m", "hideseekseg", "segment", *files, "--out", str(out)]
    process = subprocess.Popen([*command, "--quiet", *extra])
    began = time.monotonic()
    usage = wait_for(process)
    seconds = time.monotonic() - began
    counts = _counts(out / "candidates.json") if process.returncode == 0 else (0, 0, 0, 0)
    return ScanRun(source, name, process.returncode, seconds, usage.peak_mib, *counts)


def _counts(path: Path) -> tuple[int, int, int, int]:
    vertebrae = read_object(path)["vertebrae"]
    candidates = [c for v in vertebrae for c in v["candidates"]]
    skipped = sum(v["status"] == "not analysed" for v in vertebrae)
    return len(vertebrae), skipped, len(candidates), sum(c["accepted"] for c in candidates)


Mask = npt.NDArray[np.bool_]

WHOLE, TRUTH = "vertebrae.nii.gz", "subregions.nii.gz"
CORPUS = (49, 50)  # SPINEPS: border and inside of the vertebral body


@dataclass(frozen=True)
class BodyAccuracy:
    """One vertebra: overlap with its true body, and the surfaces' mean distance in mm."""

    scan: str
    level: str
    dice: float
    surface_mm: float
    whole: bool


def measure_bodies(data: Path) -> list[BodyAccuracy]:
    """Every vertebra of every scan under ``data`` that has whole vertebrae and true bodies.

    A scan is a folder with ``vertebrae.nii.gz`` (VerSe values) and ``subregions.nii.gz`` (SPINEPS
    values) on one grid.  Raises InputError where there is none.
    """
    folders = sorted(path.parent for path in data.glob(f"*/{TRUTH}"))
    rows = [row for folder in folders for row in _measure_scan(folder)]
    if not rows:
        raise InputError(
            data, f"no folder in it contains {WHOLE} and {TRUTH} with the same vertebra"
        )
    return rows


def body_report(data: Path) -> str:
    """Return the measurement as a table with one line per vertebra and their mean."""
    rows = measure_bodies(data)
    lines = [f"{'scan':<14}{'level':<7}{'Dice':>7}{'distance':>12}"]
    for row in rows:
        remark = "" if row.whole else f"   {CUT}"
        lines.append(_line(row.scan, row.level, row.dice, row.surface_mm) + remark)
    mean = np.mean([(row.dice, row.surface_mm) for row in rows], axis=0)
    lines.append(_line("mean", f"n={len(rows)}", *mean))
    return "\n".join(lines)


def _line(scan: str, level: str, dice: float, surface_mm: float) -> str:
    return f"{scan:<14}{level:<7}{dice:>7.3f}{surface_mm:>9.2f} mm"


def _measure_scan(folder: Path) -> list[BodyAccuracy]:
    vertebrae = read_segmentation(folder / WHOLE)
    subregions = read_segmentation(folder / TRUTH)
    if not subregions.grid.matches(vertebrae.grid):
        raise InputError(folder / TRUTH, f"does not have the grid of {WHOLE}")
    corpus = np.isin(subregions.layers[0].array, CORPUS)
    rows = []
    assignments = assign(vertebrae, "verse")
    axes = spine_axes(vertebrae, assignments)
    for assignment in assignments:
        vertebra = vertebrae.mask(assignment.segment)
        truth = vertebra & corpus
        if assignment.level is None or not truth.any():
            continue
        body = find_body(vertebra, vertebrae.grid, reference=axes[assignment.level])
        distance = surface_distance_mm(body.mask, truth, vertebrae.grid)
        dice = overlap(body.mask, truth)
        rows.append(
            BodyAccuracy(folder.name, assignment.level, dice, distance, CUT not in body.flags)
        )
    return rows


def overlap(one: Mask, other: Mask) -> float:
    """Dice's coefficient of two masks that are not both empty."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def surface_distance_mm(one: Mask, other: Mask, grid: Grid) -> float:
    """Mean distance of each mask's surface voxels to the other's surface, both ways together.

    Faces on the border of the volume are not a surface; infinite where a mask has no surface.
    """
    surfaces = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (one, other)]
    if not all(surface.any() for surface in surfaces):
        return float("inf")
    sampling = grid.spacing[::-1]
    to_one, to_other = (ndimage.distance_transform_edt(~s, sampling=sampling) for s in surfaces)
    return float(np.concatenate([to_other[surfaces[0]], to_one[surfaces[1]]]).mean())
