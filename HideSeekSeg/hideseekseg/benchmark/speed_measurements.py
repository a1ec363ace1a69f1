"""What the speed benchmark measures: processes of ``hideseekseg segment``, and single slices.

Of a process seconds, first result, memory, and where time goes; of a slice with its candidates the
cost beside the published schedule's, and whether both agree.
"""

from __future__ import annotations

import json
import os
import platform
import pstats
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..attribution import (
    Attribution,
    Proposal,
    Proposals,
    attribute,
    edit,
    encode,
    hide_and_seek,
    propose,
)
from ..events import VertebraDone, from_line
from ..files import make_folder, read_object
from ..findings import LESION_TYPES, LesionType, SliceCandidate
from ..model.autoencoder import DiffusionAutoencoder
from ..model.layers import keep_channels_last
from ..model.profile import Architecture, Schedule
from ..model.weights import Model
from ..simulation.example import FILES, Spot, painter, write_volume
from ..simulation.phantom.spine import draw_spine
from ..simulation.phantom.vertebra import LEVELS, SpineSettings
from ..simulation.random_fields import Mask
from ..training.evaluation import Case
from ..ui.child_process import LIBRARY, STAND_BY
from .methods.trained import spread


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
REST_SECONDS = 1.0
WHOLE = ("job.py", "run")
LOADING = ("job.py", "_loaded")  # imports torch, then loads the weights
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


def run(job: SegmentProcess, ready: bool = False) -> Timing:
    """One process; raises RuntimeError where it fails.

    ``ready``: it stands by before the time begins, as in the panel and the browser, which ask for
    no picture.
    """
    words = [*job.words(), "--json-lines", *(["--no-picture"] if ready else [])]
    command = [sys.executable, "-m", "hideseekseg", *([STAND_BY] if ready else words)]
    began, before = time.monotonic(), 0.0
    process = subprocess.Popen(
        command,
        env=job.environment(),
        stdin=subprocess.PIPE if ready else None,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if ready and process.stdin is not None:
        before = _at_rest(process.pid)
        began = time.monotonic()
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.close()
    first, high_water = float("nan"), 0.0
    for line in process.stdout:
        # While it runs: afterwards our own memory would be in what is told of its.
        high_water = max(high_water, memory_mib(process.pid, "VmHWM") or 0.0)
        if first != first and isinstance(from_line(line), VertebraDone):
            first = time.monotonic() - began
    usage = _ended_well(process)
    seconds = time.monotonic() - began
    return Timing(seconds, first, usage.processor - before, high_water or usage.peak_mib)


def _at_rest(pid: int) -> float:
    """Wait until a process computes no more; return its seconds of the processor until then."""
    before = -1.0
    while (spent := _processor_seconds(pid)) != before:
        before = spent
        time.sleep(REST_SECONDS)
    return spent


def _processor_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


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
    """Seconds of the processor by part of one process, under Python's profiler.

    With one thread, as the profiler sees no other.
    """
    job = replace(job, threads=1)
    job.out.mkdir(parents=True, exist_ok=True)
    profile = job.out / "split.profile"
    command = [sys.executable, "-c", PROFILED, str(profile), *job.words(), "--quiet"]
    seconds = _ended_well(subprocess.Popen(command, env=job.environment())).processor
    functions: Mapping[tuple[str, int, str], tuple[int, int, float, float]]
    functions = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    profile.unlink()
    parts = {name: sum(_spent(functions, *which) for which in PARTS[name]) for name in PARTS}
    whole = _spent(functions, *WHOLE)
    torch_import = max(_spent(functions, *LOADING) - parts["weights"], 0.0)
    parts["everything else"] = whole - torch_import - sum(parts.values())
    return {START: seconds - whole + torch_import, **parts}


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


PUBLISHED = Schedule()
REPEATS, CALLS = 5, 3


@dataclass(frozen=True)
class OneSlice:
    """Seconds of all five steps on slices with ``candidates`` each, a slice at a time or together.

    ``published`` is the cost of the published way on such a slice: its seconds per network call,
    measured, times its number of calls.
    """

    candidates: int
    alone: float
    together: float
    published_calls: int
    published: float

    @property
    def ratio(self) -> float:
        return self.published / self.alone


def published_calls(candidates: int) -> int:
    """Network calls of the published way for one slice."""
    return PUBLISHED.edit_calls + candidates * (PUBLISHED.invert_steps + PUBLISHED.render_steps)


def published_network() -> DiffusionAutoencoder:
    """Return the published architecture with random numbers, which cost the same."""
    with torch.device("meta"):
        network = DiffusionAutoencoder(Architecture())
    network = network.to_empty(device="cpu")
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.requires_grad_(False).normal_(0.0, 0.02)
    keep_channels_last(network)
    return network.eval()


@torch.inference_mode()
def seconds_per_call(network: DiffusionAutoencoder) -> float:
    """Return the least of a few calls with one slice, as the published way makes them."""
    size, latent = network.architecture.image_size, network.architecture.latent
    x, z = torch.zeros(1, 1, size, size), torch.zeros(1, latent)
    t = torch.full((1,), 500)
    return least(lambda: network(x, t, z), CALLS)


def one_slice(model: Model, crops: Crops, per_call: float) -> list[OneSlice]:
    """By number of candidates, on the crops that have so many, one at a time and all together."""
    latents = encode(crops.x, model)
    found = propose(edit(crops.x, latents, model), crops.body, model.profile.decision)
    number = np.bincount([c.slice for c in found.candidates], minlength=len(crops.x))
    rows = []
    for candidates in sorted(set(number.tolist()) - {0}):
        own = np.flatnonzero(number == candidates)
        calls = published_calls(candidates)
        alone = least(partial(_all_steps, model, crops, own[:1]), REPEATS)
        together = least(partial(_all_steps, model, crops, own), 2) / len(own)
        rows.append(OneSlice(candidates, alone, together, calls, calls * per_call))
    return rows


def _all_steps(model: Model, crops: Crops, at: np.ndarray) -> None:
    latents = encode(crops.x[at], model)
    healthy = edit(crops.x[at], latents, model)
    proposals = propose(healthy, crops.body[at], model.profile.decision)
    hide_and_seek(latents, healthy, proposals, model)


def by_slices(model: Model, crops: Crops, counts: Sequence[int]) -> dict[int, float]:
    """Seconds of all steps on so many slices at once, repeated where there are not as many."""
    at = np.arange(max(counts)) % len(crops.x)
    return {n: least(partial(_all_steps, model, crops, at[:n]), 2) for n in counts}


def by_candidates(model: Model, crops: Crops, counts: Sequence[int]) -> dict[int, float]:
    """Seconds of hide and seek alone on one slice with so many candidates."""
    latents = encode(crops.x[:1], model)
    healthy = edit(crops.x[:1], latents, model)
    body = crops.body[:1]
    one = Proposal(0, "lytic", body[0], 0.1)
    seconds = {}
    for n in counts:
        work = partial(hide_and_seek, latents, healthy, Proposals((one,) * n, body), model)
        seconds[n] = least(work, REPEATS)
    return seconds


def least(work: Callable[[], object], repeats: int) -> float:
    """Least seconds of the processor in a few repeats, after one that does not count.

    Other work on the machine makes everything wait, but takes little from these.
    """
    work()
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


SAME_IOU = 0.5  # findings with at least this overlap are the same
PAIR_IOU = 0.1  # candidates with less have nothing to do with each other


@dataclass(frozen=True)
class Crops:
    """Slices x (N, 1, P, I) that the gate lets pass, with body and true lesions (N, P, I).

    ``share`` of all slices passes: the others are the same under every schedule.
    """

    x: torch.Tensor
    body: Mask
    truth: dict[LesionType, Mask]
    share: float


@dataclass(frozen=True)
class ScheduleAgreement:
    """A schedule against the reference on the same crops.

    ``identical``: share of crops with the same findings; ``of_all``: of all crops, those below the
    gate among them; ``score_difference``: mean over candidates, one that has no partner counting
    with its whole score; ``dice``: of all findings' pixels with the true lesions, mean of both
    types; ``calls`` for the edit of a slice and for a picture's score; ``seconds`` of processor.
    """

    name: str
    calls: tuple[int, int]
    identical: float
    of_all: float
    score_difference: float
    dice: float
    findings: int
    seconds: float


def choose_crops(cases: Sequence[Case], model: Model, count: int) -> Crops:
    """``count`` slices, spread over all that the classifier does not call healthy."""
    cases = [case.shown() for case in cases]
    x = torch.cat([case.x for case in cases])
    ill = np.flatnonzero(encode(x, model).p.numpy() >= model.profile.decision.gate_p)
    chosen = ill[spread(len(ill), count)]
    truth = {
        kind: np.concatenate([case.truth[kind] for case in cases])[chosen] for kind in LESION_TYPES
    }
    body = np.concatenate([case.body for case in cases])[chosen]
    return Crops(x[chosen], body, truth, len(ill) / len(x))


def compare_schedules(
    model: Model, crops: Crops, schedules: Sequence[Schedule], say: Callable[[str], None]
) -> list[ScheduleAgreement]:
    """Compare schedules; the first is the reference, and is in the result as well."""
    found: list[ScheduleAgreement] = []
    reference: Attribution | None = None
    for schedule in schedules:
        own = replace(model, profile=replace(model.profile, schedule=schedule))
        began = time.process_time()
        seen = attribute(crops.x, crops.body, own)
        seconds = time.process_time() - began
        reference = reference or seen
        found.append(judge(schedule, seen, reference, crops, seconds))
        say(f"{schedule.name}: {seconds:.0f} s for {len(crops.x)} crops")
    return found


def judge(
    schedule: Schedule, seen: Attribution, reference: Attribution, crops: Crops, seconds: float
) -> ScheduleAgreement:
    """Compare a schedule's results on the crops with the reference's."""
    n = range(len(crops.x))
    same = [_same(_of(seen.selected, i), _of(reference.selected, i)) for i in n]
    differences = [
        d for i in n for d in _score_differences(_of(seen.scored, i), _of(reference.scored, i))
    ]
    identical = float(np.mean(same))
    return ScheduleAgreement(
        schedule.name,
        (schedule.edit_calls, schedule.projection_calls),
        identical,
        1 - crops.share * (1 - identical),
        float(np.mean(differences)) if differences else 0.0,
        _dice(seen, crops),
        len(seen.selected),
        seconds,
    )


def _of(scored: Sequence[SliceCandidate], index: int) -> list[SliceCandidate]:
    return [s for s in scored if s.slice == index]


def _same(one: Sequence[SliceCandidate], other: Sequence[SliceCandidate]) -> bool:
    return len(one) == len(other) == len(_pairs(one, other, SAME_IOU))


def _score_differences(
    one: Sequence[SliceCandidate], other: Sequence[SliceCandidate]
) -> list[float]:
    pairs = _pairs(one, other, PAIR_IOU)
    lone = [s for n, s in enumerate(one) if n not in {a for a, _ in pairs}]
    lone += [s for n, s in enumerate(other) if n not in {b for _, b in pairs}]
    return [abs(one[a].score - other[b].score) for a, b in pairs] + [abs(s.score) for s in lone]


def _pairs(
    one: Sequence[SliceCandidate], other: Sequence[SliceCandidate], least_iou: float
) -> list[tuple[int, int]]:
    """Return indices of partners of one type, those that overlap most first."""
    overlaps = sorted(
        ((_iou(a, b), i, j) for i, a in enumerate(one) for j, b in enumerate(other)), reverse=True
    )
    pairs: list[tuple[int, int]] = []
    for iou, i, j in overlaps:
        free = i not in {a for a, _ in pairs} and j not in {b for _, b in pairs}
        if iou >= least_iou and free:
            pairs.append((i, j))
    return pairs


def _iou(a: SliceCandidate, b: SliceCandidate) -> float:
    if a.type != b.type:
        return 0.0
    one, other = a.mask, b.mask
    return float((one & other).sum() / (one | other).sum())


def _dice(seen: Attribution, crops: Crops) -> float:
    values = []
    for kind in LESION_TYPES:
        found = np.zeros_like(crops.body)
        for s in seen.selected:
            if s.type == kind:
                found[s.slice] |= s.mask
        truth = crops.truth[kind]
        both = found.sum() + truth.sum()
        values.append(2 * (found & truth).sum() / both if both else 1.0)
    return float(np.mean(values))
