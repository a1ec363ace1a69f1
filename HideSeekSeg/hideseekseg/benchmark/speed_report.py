"""How fast the method is on this machine and whether that costs findings: ``benchmark speed``.

Targets, measurements and where the time goes, as a page with plots.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..files import atomic, make_folder
from ..model.profile import Schedule
from ..model.weights import MULTISTEP_STEPS, Model, load_model, multistep
from ..output.figures.drawing import DIM, TEXT, new_figure, save_figure
from ..simulation.phantom.vertebra import LEVELS
from ..training.evaluation import Case
from ..training.trainer import Say
from .cases import draw_subjects, load_simulated
from .report.pictures import plain_axes
from .speed_measurements import (
    Crops,
    SegmentProcess,
    best,
    by_candidates,
    by_slices,
    choose_crops,
    compare_schedules,
    counts,
    machine,
    one_slice,
    published_network,
    run,
    seconds_per_call,
    split,
    write_spine,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        "agreement": _schedule_agreement(plan, model, crops, say),
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
    if Path("/proc/self/stat").exists():
        stood = best([run(job, ready=True) for _ in range(plan.repeats)])
        say(f"whole spine, by a process that stood by: {stood.seconds:.1f} s")
        data["standing by"] = asdict(stood)
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


def _schedule_agreement(plan: SpeedPlan, model: Model, crops: Crops, say: Say) -> Data:
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


NO_GPU = "not measured on a GPU"
LESS_TIME, SPINE_SECONDS, PEAK_MIB = 10_000, 15, 2048
FIRST_SECONDS, PROCESSOR_SECONDS = 2, 6
IDENTICAL, SCORE_DIFFERENCE, DICE_LOSS = 0.98, 0.03, 0.01


def to_markdown(data: Data) -> str:
    """Return the whole page."""
    parts = (_head, _targets, _slices, _agreement, _split, _growth)
    return "\n".join(line for part in parts for line in (*part(data), "")).rstrip() + "\n"


def _head(data: Data) -> Iterator[str]:
    machine, weights = data["machine"], data["weights"]
    yield "# Speed"
    yield ""
    yield (
        f"Measured by `hideseekseg benchmark speed` on {machine['cores']} cores"
        f" ({machine['processor']}), {machine['threads']} threads (single slices: one), hideseekseg"
        f" {machine['hideseekseg']}, Python {machine['python']}, torch {machine['torch']}. When it"
        f" began, {machine['load']} processes wanted the processor. Seconds by the clock grow with"
        " such other work; ratios are of the processor's own time."
    )
    yield ""
    yield (
        f"Weights {weights['name']}, {weights['hash'][:12]}, schedule"
        f" {weights['schedule']['name']}. Times are the least of some repeats, memory the most."
    )


def _targets(data: Data) -> Iterator[str]:
    spine, counts, rows = data["now"]["timing"], data["counts"], data["one slice"]["rows"]
    ratios = [row["ratio"] for row in rows]
    yield "| what | target | measured | |"
    yield "|---|---|---|---|"
    yield _row(
        "one slice alone with its candidates, against the published schedule and network",
        f"{LESS_TIME:,} times less time",
        f"{min(ratios):,.0f} to {max(ratios):,.0f} times less, by number of candidates",
        min(ratios) >= LESS_TIME,
    )
    what = (
        f"whole spine in 3D: {counts['vertebrae']} vertebrae, {counts['slices']} slices,"
        f" {counts['with findings']} with findings; process and start included"
    )
    measured = f"{spine['seconds']:.1f} s by the clock"
    yield _row(what, f"{SPINE_SECONDS} s", measured, spine["seconds"] <= SPINE_SECONDS)
    yield _processor_row("the same", spine)
    yield f"| the same on one NVIDIA GPU | 1 s | {NO_GPU} | |"
    yield _first_row("first vertebra's result after the start of the process", spine)
    if stood := data.get("standing by"):
        yield _first_row(
            "the same after the click, where a process stands by (both windows)", stood
        )
        yield _processor_row(f"that run, {stood['seconds']:.1f} s by the clock", stood)
    peak = spine["peak_mib"]
    yield _row(
        "peak memory of that run", f"{PEAK_MIB / 1024:.0f} GiB", f"{peak:.0f} MiB", peak <= PEAK_MIB
    )
    exact, own = data["agreement"]["rows"][0], _own(data)
    yield _row(
        f"crops in which schedule {own['name']} finds what the exact one finds",
        f"{IDENTICAL:.0%}",
        f"{own['identical']:.1%} ({own['of_all']:.1%} with slices below the gate)",
        own["identical"] >= IDENTICAL,
    )
    difference = own["score_difference"]
    yield _row(
        "mean difference of scores",
        f"{SCORE_DIFFERENCE}",
        f"{difference:.3f}",
        difference <= SCORE_DIFFERENCE,
    )
    yield _row(
        "Dice with true lesions",
        f"not lower by more than {DICE_LOSS}",
        f"{own['dice']:.3f} against {exact['dice']:.3f}",
        own["dice"] >= exact["dice"] - DICE_LOSS,
    )


def _first_row(what: str, timing: Data) -> str:
    first = timing["first"]
    return _row(what, f"{FIRST_SECONDS} s", f"{first:.1f} s by the clock", first <= FIRST_SECONDS)


def _processor_row(what: str, timing: Data) -> str:
    spent = timing["processor"]
    return _row(
        what,
        f"{PROCESSOR_SECONDS} s of the processor",
        f"{spent:.1f} s of the processor",
        spent <= PROCESSOR_SECONDS,
    )


def _own(data: Data) -> Data:
    """Return the agreement of the schedule that the weights use."""
    found = data["agreement"]
    own: Data = next(row for row in found["rows"] if row["name"] == found["own"])
    return own


def _row(what: str, target: str, measured: str, met: bool) -> str:
    return f"| {what} | {target} | {measured} | {'met' if met else 'not met'} |"


def _slices(data: Data) -> Iterator[str]:
    one = data["one slice"]
    yield "## One slice"
    yield ""
    yield (
        f"The published network has {one['parameters'] / 1e6:.1f} million parameters and takes"
        f" {1000 * one['seconds per call']:.0f} ms a call here (random numbers in it); one slice"
        " with K candidates costs it 450 + 350 K calls. Ours is all five steps, alone or together"
        " with other slices."
    )
    yield ""
    yield (
        "| candidates | calls, published | s, published | ms, ours alone | ms, together |"
        " ratio alone |"
    )
    yield "|---|---|---|---|---|---|"
    for row in one["rows"]:
        yield (
            f"| {row['candidates']} | {row['published_calls']} | {row['published']:.0f} |"
            f" {1000 * row['alone']:.0f} | {1000 * row['together']:.0f} | {row['ratio']:,.0f} |"
        )


def _agreement(data: Data) -> Iterator[str]:
    found = data["agreement"]
    yield "## Agreement with the exact schedule"
    yield ""
    yield (
        f"The same weights, thresholds and {found['crops']} slices of {found['of']} that the gate"
        f" lets pass ({found['share']:.0%} of all do), by other schedules. Findings are identical"
        " where each has a partner of its type with an intersection over union of at least 0.5. A"
        " candidate without a partner counts with its whole score. Dice is that of all findings'"
        " pixels with the true lesions, the mean of both types; thresholds are those of the"
        " weights, and were chosen under their own schedule."
    )
    yield ""
    yield (
        "| schedule | calls: edit, picture | identical | mean score difference | findings | Dice |"
        " s, of exact |"
    )
    yield "|---|---|---|---|---|---|---|"
    slowest = found["rows"][0]["seconds"]
    for row in found["rows"]:
        yield (
            f"| {row['name']} | {row['calls'][0]}, {row['calls'][1]} | {row['identical']:.1%} |"
            f" {row['score_difference']:.3f} | {row['findings']} | {row['dice']:.3f} |"
            f" {row['seconds'] / slowest:.1%} |"
        )


def _split(data: Data) -> Iterator[str]:
    versions = [name for name in ("before", "now") if name in data]
    yield "## Where the time goes"
    yield ""
    yield (
        "Seconds of the processor for the whole spine by part, with one thread and under Python's"
        " profiler, which costs some itself. Pictures bring matplotlib's import along. Below the"
        " parts: whole processes without profiler, with all threads."
    )
    yield ""
    yield f"| part | {' | '.join(versions)} |"
    yield "|---" * (len(versions) + 1) + "|"
    for part in data["now"]["split"]:
        cells = " | ".join(f"{data[name]['split'][part]:.2f}" for name in versions)
        yield f"| {part} | {cells} |"
    for name, key, digits in (
        ("whole process by the clock, without profiler", "seconds", 2),
        ("first vertebra by the clock", "first", 2),
        ("processor of the whole process", "processor", 2),
        ("peak memory, MiB", "peak_mib", 0),
    ):
        cells = " | ".join(f"{data[version]['timing'][key]:.{digits}f}" for version in versions)
        yield f"| {name} | {cells} |"
    yield ""
    yield "![Where the time goes](speed-split.png)"


def _growth(data: Data) -> Iterator[str]:
    yield "## How it grows"
    yield ""
    yield "![Seconds by vertebrae, slices, candidates, threads](speed-growth.png)"


GROWTH = {
    "vertebrae": ("vertebrae", "s of the processor, whole process", 1.0),
    "threads": ("threads", "s by the clock, whole spine", 1.0),
    "slices": ("slices at once", "ms of one core a slice, all steps", 1000.0),
    "candidates": ("candidates of one slice", "ms of one core, hide and seek", 1000.0),
}


def draw_plots(data: Data, folder: Path) -> list[Path]:
    """``speed-split.png`` and ``speed-growth.png``."""
    paths = [folder / "speed-split.png", folder / "speed-growth.png"]
    for path, figure in zip(paths, (_draw_split(data), _draw_growth(data["growth"]))):
        save_figure(path, figure)
    return paths


def _draw_split(data: Data) -> Figure:
    """Draw a bar for each version, in parts."""
    from matplotlib import colormaps

    versions = [name for name in ("now", "before") if name in data]
    figure = new_figure(11, 1.6 + 0.8 * len(versions))
    axes = plain_axes(
        figure, 1, 1, 1, "seconds of the processor for the whole spine, under Python's profiler"
    )
    left = [0.0] * len(versions)
    for number, part in enumerate(data["now"]["split"]):
        widths = [max(data[name]["split"][part], 0.0) for name in versions]
        colour = colormaps["tab20"](number)
        axes.barh(range(len(versions)), widths, left=left, color=colour, label=part, height=0.6)
        for row, (start, width) in enumerate(zip(left, widths)):
            if width > 0.045 * max(sum(data[n]["split"].values()) for n in versions):
                axes.text(
                    start + width / 2,
                    row,
                    f"{width:.1f}",
                    color="black",
                    ha="center",
                    va="center",
                    fontsize=8,
                )
        left = [start + width for start, width in zip(left, widths)]
    axes.set_yticks(range(len(versions)), versions, color=TEXT, fontsize=9)
    axes.legend(
        frameon=False,
        labelcolor=TEXT,
        fontsize=8,
        ncols=5,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
    )
    return figure


def _draw_growth(growth: Data) -> Figure:
    figure = new_figure(11, 6)
    for number, (key, (across, up, unit)) in enumerate(GROWTH.items(), start=1):
        axes = plain_axes(figure, 2, 2, number, "")
        counts = [int(n) for n in growth[key]]
        values = [unit * v for v in growth[key].values()]
        if key == "slices":
            values = [v / n for v, n in zip(values, counts)]
            axes.set_xscale("log", base=2)
        axes.plot(counts, values, marker="o", color=TEXT)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.set_ylim(0, 1.15 * max(values))
        axes.set_xlabel(across, color=DIM, fontsize=9)
        axes.set_ylabel(up, color=DIM, fontsize=9)
        for n, value in zip(counts, values):
            label = f"{value:.1f}" if value < 100 else f"{value:.0f}"
            axes.annotate(
                label,
                (n, value),
                (0, 6),
                textcoords="offset points",
                color=DIM,
                fontsize=8,
                ha="center",
            )
    return figure
