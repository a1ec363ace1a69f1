"""Processes of ``hideseekseg segment``: seconds, first result, memory, and where time goes."""

from __future__ import annotations

import os
import platform
import pstats
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...events import VertebraDone, from_line
from ...files import make_folder, read_object
from ...simulation.example import FILES, Spot, painter, write_volume
from ...simulation.phantom.settings import SpineSettings
from ...simulation.phantom.spine import draw_spine
from ...simulation.phantom.vertebra import LEVELS
from ...ui.child_process import LIBRARY


@dataclass(frozen=True)
class Usage:
    """What a process that has ended took: seconds of processor time, peak resident MiB.

    On Linux the memory is at least that of the process that started it, when it did.
    """

    processor: float
    peak_mib: float


def wait_for(process: subprocess.Popen[Any]) -> Usage:
    """Wait for the end of a process; its status is in ``process.returncode`` then.

    Not Popen.wait: only wait4 tells the time and memory of this one child.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    per_mib = 1024**2 if sys.platform == "darwin" else 1024
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / per_mib)


def memory_mib(pid: int, field: str) -> float | None:
    """Memory of a running process: VmRSS is what it keeps now, VmHWM the most so far.

    None where the system does not tell, or the process has given its memory back.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")]
    return sizes[0] if sizes else None


def machine() -> dict[str, Any]:
    """Return the machine and versions; ``load`` is None where it is unknown."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "hideseekseg": __version__,
        "python": platform.python_version(),
    }


# Where in the body (share of its extents along k, j, i), radius in mm, HU.
LESIONS = (
    Spot("T4", (0.5, 0.5, 0.6), 7.0, 700.0),
    Spot("T12", (0.5, 0.5, 0.7), 8.0, 45.0),
    Spot("L3", (0.45, 0.7, 0.4), 8.0, 750.0),
)
SEED = 7


def write_spine(folder: Path, levels: tuple[str, ...] = LEVELS) -> tuple[Path, Path]:
    """Draw CT and whole vertebrae (TotalSegmentator's values) into a folder, if not there yet."""
    make_folder(folder)
    ct, vertebrae = (folder / name for name in FILES)
    if not (ct.exists() and vertebrae.exists()):
        settings = SpineSettings(
            levels, marrow_hu=165.0, fat=0.18, osteophyte=1.2, contrast=0.5, scoliosis=4.0
        )
        own = [spot for spot in LESIONS if spot.level in levels]
        drawn = draw_spine(settings, np.random.default_rng(SEED), painter(own))
        write_volume(ct, drawn.ct)
        write_volume(vertebrae, drawn.vertebrae)
    return ct, vertebrae


START = "start and imports"
# Functions of the library by file and name: what they cost with all they call.
PARTS = {
    "reading": (("imaging/reading.py", "read_ct"), ("imaging/reading.py", "read_segmentation")),
    "weights": (("model/weights.py", "load_model"),),
    "bodies": (
        ("anatomy/localization.py", "all_bodies"),
        ("anatomy/localization.py", "locate_body"),
    ),
    "crops": (("anatomy/preparation.py", "prepare"),),
    "encoder": (("attribution.py", "encode"),),
    "edit": (("attribution.py", "edit"),),
    "hide and seek": (("attribution.py", "hide_and_seek"),),
    "pictures": (("output/figures/overview.py", "overview"),),
    "other files": (
        ("output/seg_nrrd.py", "write_segmentation"),
        ("output/tables.py", "write_json"),
    ),
}
WHOLE = ("job.py", "run")
# As `python -m cProfile`, but by the processor's time.
PROFILED = """
import cProfile, sys, time
from hideseekseg.cli.main import main
profile = cProfile.Profile(time.process_time)
try:
    status = profile.runcall(main, sys.argv[2:])
finally:
    profile.dump_stats(sys.argv[1])
sys.exit(status)
"""


@dataclass(frozen=True)
class SegmentProcess:
    """A call of ``segment``; ``library`` is the folder that holds the code to run."""

    ct: Path
    vertebrae: Path
    weights: Path
    out: Path
    threads: int
    levels: tuple[str, ...] = ()
    library: Path = LIBRARY.parent

    def words(self) -> list[str]:
        chosen = ["--levels", ",".join(self.levels)] if self.levels else []
        files = [str(self.ct), str(self.vertebrae), "--out", str(self.out)]
        how = ["--labels", "totalsegmentator", "--weights", str(self.weights), "--device", "cpu"]
        return ["segment", *files, *how, "--threads", str(self.threads), *chosen]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.library)}


@dataclass(frozen=True)
class Timing:
    """Wall seconds from the start of the process, seconds of processor time, peak MiB."""

    seconds: float
    first: float
    processor: float
    peak_mib: float


def run(job: SegmentProcess) -> Timing:
    """One process; raises RuntimeError where it fails."""
    command = [sys.executable, "-m", "hideseekseg", *job.words(), "--json-lines"]
    began = time.monotonic()
    process = subprocess.Popen(command, env=job.environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first, high_water = float("nan"), 0.0
    for line in process.stdout:
        # While it runs: afterwards our own memory would be in what is told of its.
        high_water = max(high_water, memory_mib(process.pid, "VmHWM") or 0.0)
        if first != first and isinstance(from_line(line), VertebraDone):
            first = time.monotonic() - began
    usage = _ended_well(process)
    seconds = time.monotonic() - began
    return Timing(seconds, first, usage.processor, high_water or usage.peak_mib)


def _ended_well(process: subprocess.Popen[Any]) -> Usage:
    usage = wait_for(process)
    if process.returncode:
        raise RuntimeError(f"segment ended with status {process.returncode}")
    return usage


def best(timings: Sequence[Timing]) -> Timing:
    """Return the least of each time, to which other work only adds, and the most memory."""
    return Timing(
        min(t.seconds for t in timings),
        min(t.first for t in timings),
        min(t.processor for t in timings),
        max(t.peak_mib for t in timings),
    )


def counts(out: Path) -> dict[str, int]:
    """Return what the run in ``out`` analysed and found."""
    data = read_object(out / "candidates.json")["vertebrae"]
    return {
        "vertebrae": len(data),
        "slices": sum(len(v["slice_p"]) for v in data),
        "with findings": sum(v["status"] == "findings" for v in data),
    }


def split(job: SegmentProcess) -> dict[str, float]:
    """Seconds of the processor by part of one process, under Python's profiler."""
    job.out.mkdir(parents=True, exist_ok=True)
    profile = job.out / "split.profile"
    command = [sys.executable, "-c", PROFILED, str(profile), *job.words(), "--quiet"]
    seconds = _ended_well(subprocess.Popen(command, env=job.environment())).processor
    functions: Mapping[tuple[str, int, str], tuple[int, int, float, float]]
    functions = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    profile.unlink()
    parts = {name: sum(_spent(functions, *which) for which in PARTS[name]) for name in PARTS}
    whole = _spent(functions, *WHOLE)
    parts["everything else"] = whole - sum(parts.values())
    return {START: seconds - whole, **parts}


def _spent(
    functions: Mapping[tuple[str, int, str], tuple[int, int, float, float]], file: str, name: str
) -> float:
    """Seconds in a function of the library with all it calls; 0 where it was not called."""
    return sum(
        (
            cost[3]
            for (path, _, function), cost in functions.items()
            if function == name and Path(path).as_posix().endswith(f"/hideseekseg/{file}")
        ),
        0.0,
    )
