"""The speed benchmark in words and plots: targets, measurements, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...output.figures.drawing import DIM, TEXT, new_figure, save_figure
from ..report.plots import plain_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = dict[str, Any]
NO_GPU = "not measured on a GPU"
LESS_TIME, SPINE_SECONDS, FIRST_SECONDS, PEAK_MIB = 10_000, 15, 3, 2048
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
    measured = f"{spine['seconds']:.1f} s by the clock, {spine['processor']:.1f} s of the processor"
    yield _row(what, f"{SPINE_SECONDS} s", measured, spine["seconds"] <= SPINE_SECONDS)
    yield f"| the same on one NVIDIA GPU | 1 s | {NO_GPU} | |"
    first = spine["first"]
    yield _row(
        "first vertebra's result after the start of the process",
        f"{FIRST_SECONDS} s",
        f"{first:.1f} s by the clock",
        first <= FIRST_SECONDS,
    )
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
        "Seconds of the processor for the whole spine by part, under Python's profiler, which costs"
        " some itself. Pictures bring matplotlib's import along."
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
