"""The figures as Markdown."""

from __future__ import annotations

from typing import Any

Data = dict[str, Any]
TARGET_MS = 100  # what a reader takes for at once
GROWTH_MIB = 2  # a run: more than that would show within a day


def to_markdown(data: Data) -> str:
    """A table of waits, a table of memory, and what both were measured on."""
    machine = data["machine"]
    drawn = "with a graphics card" if machine["graphics card"] else "without a graphics card"
    load = "" if machine["load"] is None else f" When it began, {machine['load']} processes wanted"
    lines = [
        "# The review in a browser: how long a reader waits",
        "",
        f"Measured by `hideseekseg benchmark app` on {machine['cores']} cores {drawn},"
        f" hideseekseg {machine['hideseekseg']}, Python {machine['python']}, Chromium"
        f" {data['browser']} at 1440 x 900.{load + ' the processor.' if load else ''}",
        "",
        *_waits(data),
        "",
        *_memory(data["memory"]),
    ]
    return "\n".join(lines) + "\n"


def _waits(data: Data) -> list[str]:
    target = f"{TARGET_MS} ms"
    lines = [
        f"| {data['candidates']} candidates | median ms | worst ms | median within {target} |",
        "|---|---|---|---|",
    ]
    for wait in data["waits"]:
        met = "met" if wait["median_ms"] <= TARGET_MS else "not met"
        times = f"{wait['median_ms']:.0f} | {wait['worst_ms']:.0f}"
        lines.append(f"| {wait['what']} | {times} | {met} |")
    return [*lines, "", f"Each {data['rounds']} times, timed inside the page."]


def _memory(sizes: list[float]) -> list[str]:
    if len(sizes) < 2:
        return ["Memory: this system does not tell."]
    heads = ["before", *(f"run {n}" for n in range(1, len(sizes)))]
    return [
        "MiB that the server keeps between runs of the embedded example:",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
        "| " + " | ".join(f"{size:.0f}" for size in sizes) + " |",
        "",
        f"After the first run: {growth(sizes):+.1f} MiB a run; at most {GROWTH_MIB} is the aim:"
        f" {'met' if growth(sizes) <= GROWTH_MIB else 'not met'}.",
    ]


def growth(sizes: list[float]) -> float:
    """MiB a run, from the first run's end to the last's: the first one loads what stays."""
    return (sizes[-1] - sizes[1]) / max(len(sizes) - 2, 1)
