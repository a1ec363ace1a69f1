"""The main job on every CT of a sources file: what it found, how long it took, how much memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import read_object
from ..simulation.source_vertebrae import Source, read_sources
from .speed.processes import wait_for


@dataclass(frozen=True)
class ScanRun:
    """One process of ``hideseekseg segment``: wall seconds, peak resident memory in MiB."""

    source: Source
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
    """Segment each CT in a process of its own, with results in ``out/PATIENT``."""
    runs = []
    for source in read_sources(sources, data):
        runs.append(_run(source, out / source.patient, extra))
        say(f"{source.patient}: {runs[-1].seconds:.1f} s")
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
        name = f"{r.source.patient} | {r.source.split}"
        lines.append(f"| {name} | {counts} | {r.seconds:.1f} | {r.peak_mib:.0f} |")
    return "\n".join(lines)


def _run(source: Source, out: Path, extra: Sequence[str]) -> ScanRun:
    files = [str(source.ct), str(source.segmentation), "--labels", source.labels]
    command = [sys.executable, "-m", "hideseekseg", "segment", *files, "--out", str(out)]
    process = subprocess.Popen([*command, "--quiet", *extra])
    began = time.monotonic()
    usage = wait_for(process)
    seconds = time.monotonic() - began
    counts = _counts(out / "candidates.json") if process.returncode == 0 else (0, 0, 0, 0)
    return ScanRun(source, process.returncode, seconds, usage.peak_mib, *counts)


def _counts(path: Path) -> tuple[int, int, int, int]:
    vertebrae = read_object(path)["vertebrae"]
    candidates = [c for v in vertebrae for c in v["candidates"]]
    skipped = sum(v["status"] == "not analysed" for v in vertebrae)
    return len(vertebrae), skipped, len(candidates), sum(c["accepted"] for c in candidates)
