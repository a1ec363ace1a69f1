"""How fast the method is on this machine, and whether that costs findings."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...files import atomic, make_folder
from ...model.profile import Schedule
from ...model.weights import MULTISTEP_STEPS, Model, load_model, multistep
from ...simulation.phantom.vertebra import LEVELS
from ...training.evaluation import Case
from ...training.trainer import Say
from ..cases import draw_subjects, load_simulated
from .network import (
    Crops,
    by_candidates,
    by_slices,
    choose_crops,
    compare_schedules,
    one_slice,
    published_network,
    seconds_per_call,
)
from .processes import SegmentProcess, best, counts, machine, run, split, write_spine
from .report import draw_plots, to_markdown

Data = dict[str, Any]
DRAWN, SEED = 16, 7101
SLICES, CANDIDATES = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class SpeedPlan:
    """What to measure.

    ``cases`` holds what ``simulate --whole`` wrote; drawn vertebrae where it is None.  ``crops``
    slices go through every schedule; processes run ``repeats`` times; ``before`` holds an earlier
    version of the library, to be timed in turn with this one.  ``slices`` and ``candidates`` are
    the numbers of them whose cost is measured.
    """

    weights: Path
    out: Path
    cases: Path | None = None
    crops: int = 24
    repeats: int = 3
    threads: int = 2
    before: Path | None = None
    levels: tuple[str, ...] = LEVELS
    slices: tuple[int, ...] = SLICES
    candidates: tuple[int, ...] = CANDIDATES


def measure(plan: SpeedPlan, say: Say) -> list[Path]:
    """Write speed.md, speed.json and plots to ``plan.out``; gives their paths."""
    make_folder(plan.out)
    torch.set_num_threads(1)  # whole processes have ``plan.threads``
    model = load_model(plan.weights, "cpu")
    cases = _cases(plan, model, say)
    crops = choose_crops(cases, model, plan.crops)
    data: Data = {
        "machine": _machine(plan),
        "weights": {
            "name": model.profile.name,
            "hash": model.hash,
            "schedule": asdict(model.profile.schedule),
        },
        "one slice": _one_slice(model, crops, say),
        **_spine(plan, say),
        "agreement": _agreement(plan, model, crops, say),
    }
    data["growth"] |= {
        "slices": by_slices(model, crops, plan.slices),
        "candidates": by_candidates(model, crops, plan.candidates),
    }
    paths = [plan.out / "speed.md", plan.out / "speed.json"]
    for path, text in zip(paths, (to_markdown(data), json.dumps(data, indent=1) + "\n")):
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths + draw_plots(data, plan.out)


def _cases(plan: SpeedPlan, model: Model, say: Say) -> list[Case]:
    if plan.cases is not None:
        return [subject.case for subject in load_simulated(plan.cases, model.profile)]
    folder = plan.out / "drawn"

    def tell(done: int, total: int) -> None:
        if done in (total // 2, total):
            say(f"drawn vertebra {done} of {total}")

    return [s.case for s in draw_subjects(folder, DRAWN, SEED, model.profile, tell)]


def _machine(plan: SpeedPlan) -> Data:
    return {
        **machine(),
        "processor": _processor(),
        "threads": plan.threads,
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model n"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _one_slice(model: Model, crops: Crops, say: Say) -> Data:
    network = published_network()
    parameters = sum(p.numel() for p in network.parameters())
    per_call = seconds_per_call(network)
    say(f"published network: {1000 * per_call:.0f} ms a call")
    rows = [asdict(row) | {"ratio": row.ratio} for row in one_slice(model, crops, per_call)]
    if not rows:
        raise InputError("crops", "the weights find no candidate in them: measure more of them")
    say(f"one slice: {min(r['alone'] for r in rows) * 1000:.0f} ms and more")
    return {"parameters": parameters, "seconds per call": per_call, "rows": rows}


def _spine(plan: SpeedPlan, say: Say) -> Data:
    """Whole processes on the drawn spine, in turn with those of an earlier version."""
    ct, vertebrae = write_spine(plan.out / "spine", plan.levels)
    job = SegmentProcess(ct, vertebrae, plan.weights, plan.out / "result", plan.threads)
    versions = {"now": job}
    if plan.before is not None:
        # With its own bundle: it may not know all that stands in a newer profile.
        bundle = plan.before / "hideseekseg" / "bundle"
        versions["before"] = replace(job, library=plan.before, weights=bundle)
    timings: dict[str, list[Any]] = {name: [] for name in versions}
    for number in range(plan.repeats):
        for name, version in versions.items():
            timings[name].append(run(version))
            say(f"whole spine, {name}, run {number + 1}: {timings[name][-1].seconds:.1f} s")
    data: Data = {
        name: {"timing": asdict(best(timings[name])), "split": split(version)}
        for name, version in versions.items()
    }
    if plan.before is not None:
        run(job)  # its result is in the folder again
    found = counts(job.out)
    some = [n for n in (1, 5, 9, 17) if n < len(plan.levels)]
    by_vertebrae = {n: run(replace(job, levels=plan.levels[:n])).processor for n in some}
    by_vertebrae[len(plan.levels)] = data["now"]["timing"]["processor"]
    threads = [n for n in (1, 2, 4, 8) if n <= (os.cpu_count() or 1)]
    by_threads = {n: run(replace(job, threads=n)).seconds for n in threads if n != plan.threads}
    if plan.threads in threads:
        by_threads[plan.threads] = data["now"]["timing"]["seconds"]
    by_threads = dict(sorted(by_threads.items()))
    return {**data, "counts": found, "growth": {"vertebrae": by_vertebrae, "threads": by_threads}}


def _agreement(plan: SpeedPlan, model: Model, crops: Crops, say: Say) -> Data:
    own = model.profile.schedule
    few = multistep(MULTISTEP_STEPS, own.timesteps)
    tried = [
        Schedule("exact", timesteps=own.timesteps),
        *([own] if own.name != "exact" else []),
        few,
        replace(few, name="multistep, image kept", reconstruction="image"),
        replace(few, name="multistep, projected", projection="render"),
        multistep(2 * MULTISTEP_STEPS, own.timesteps, "multistep, twice the steps"),
    ]
    rows = compare_schedules(model, crops, tried, say)
    kind = "drawn vertebrae" if plan.cases is None else "simulated vertebrae"
    return {
        "crops": len(crops.x),
        "of": kind,
        "share": crops.share,
        "own": own.name,
        "rows": [asdict(row) for row in rows],
    }
