"""Milliseconds from a click, a key and the slider to what the reader sees; memory over runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ...errors import InputError
from ...files import atomic, make_folder
from ...output.tables import write_plain
from ..speed.processes import machine, memory_mib
from .browser import LIBRARY, PATIENCE, REST, Served, browser, can_serve, chromium, new_page, serve
from .synthetic_scene import MOST

Data = dict[str, Any]
TARGET_MS = 100  # what a reader takes for at once
GROWTH_MIB = 2  # a run: more than that would show within a day


def to_markdown(data: Data) -> str:
    """Return a table of waits, a table of memory, and what both were measured on."""
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


Say = Callable[[str], None]
ROUNDS = 21
GRAPHICS = ("/dev/dri", "/dev/nvidia0")  # where Linux shows a graphics card

# Each is timed inside the page, from the event to the frame in which its effect is there.
CLICK = """([id]) => new Promise(resolve => {
  const began = performance.now();
  const watch = new MutationObserver(() => {
    if (window.trame.state.get('current') !== id) return;
    watch.disconnect();
    resolve(performance.now() - began);
  });
  const all = { subtree: true, attributes: true, childList: true };
  watch.observe(document.querySelector('.sagittal .area'), all);
  document.querySelector(`#candidates tr[data-id="${id}"]`).click();
})"""
KEY = """([key]) => new Promise(resolve => {
  const chosen = () => document.querySelector('#candidates tr.chosen')?.dataset.id;
  const before = chosen(), began = performance.now();
  const look = () => {
    if (chosen() !== before) resolve(performance.now() - began);
    else requestAnimationFrame(look);
  };
  document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  look();
})"""
SLIDE = """([value]) => new Promise(resolve => {
  const count = () => document.querySelectorAll('#candidates tbody tr').length;
  const field = document.querySelector('#threshold');
  const before = count(), began = performance.now();
  const look = () => {
    if (count() !== before) resolve(performance.now() - began);
    else requestAnimationFrame(look);
  };
  field.value = value;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  look();
})"""


@dataclass(frozen=True)
class AppBenchmarkPlan:
    """``python`` has trame-slicer; ``out`` is where app.md and app.json go."""

    out: Path
    python: str = sys.executable
    candidates: int = 500
    runs: int = 10
    rounds: int = ROUNDS


def measure(plan: AppBenchmarkPlan, say: Say) -> list[Path]:
    """Write both files; raises InputError, in one line, where something is missing."""
    _need(plan)
    make_folder(plan.out)
    data: Data = {"machine": _machine(), "candidates": plan.candidates, "rounds": plan.rounds}
    with tempfile.TemporaryDirectory() as made, browser() as opened:
        data["browser"] = opened.version
        path = Path(made) / "crowd.mrb"
        words = [
            plan.python,
            "-m",
            f"{__package__}.synthetic_scene",
            str(path),
            str(plan.candidates),
        ]
        subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(LIBRARY)})
        say(f"{plan.candidates} candidates are drawn")
        with serve(plan.python, str(path), "--out", made) as served:
            data["waits"] = waits(opened, served, plan.rounds)
        say(f"{len(data['waits'])} kinds of waits measured")
        with serve(plan.python, "--out", made) as served:
            data["memory"] = memory(opened, served, plan.runs, say)
    files = plan.out / "app.md", plan.out / "app.json"
    with atomic(files[0]) as temporary:
        temporary.write_text(to_markdown(data), encoding="utf-8")
    write_plain(files[1], data)
    return list(files)


def _need(plan: AppBenchmarkPlan) -> None:
    if importlib.util.find_spec("playwright") is None:
        raise InputError("", "benchmark app needs playwright: pip install playwright")
    if not chromium():
        raise InputError("", "benchmark app needs Chromium, and finds none on the PATH")
    if not can_serve(plan.python):
        cause = "has no trame-slicer: name the Python of `make app` with --python"
        raise InputError(plan.python, cause)
    if not 20 <= plan.candidates <= MOST:
        raise InputError("", f"--candidates: from 20 to {MOST}")


def waits(opened: Any, served: Served, rounds: int) -> list[Data]:
    """Milliseconds by kind, in the order of the table."""
    page = new_page(opened)
    page.goto(served.url)
    page.wait_for_selector("#candidates tbody tr.chosen", timeout=PATIENCE)
    ids = page.evaluate("() => window.trame.state.get('shown')")
    step = max(len(ids) // (rounds + 1), 1)

    def timed(script: str, value: Any) -> float:
        page.evaluate(REST)
        ended = f"new Promise((_, no) => setTimeout(() => no('no answer'), {PATIENCE}))"
        both = f"value => Promise.race([({script})(value), {ended}])"
        return float(page.evaluate(both, [value]))

    spent = {
        "click on a row until the sagittal view shows its place": [
            timed(CLICK, identity) for identity in ids[step::step][:rounds]
        ],
        "verdict by key until the next finding is chosen": [timed(KEY, "x") for _ in range(rounds)],
        "move of the slider until the list follows": [
            timed(SLIDE, 0.1 if n % 2 else 0.7 + 0.2 * n / rounds) for n in range(rounds)
        ],
    }
    page.context.close()
    return [
        {"what": what, "median_ms": median(each), "worst_ms": max(each), "all_ms": each}
        for what, each in spent.items()
    ]


def memory(opened: Any, served: Served, runs: int, say: Say) -> list[float]:
    """MiB of the server itself, before and after each run: no child is alive then.

    Empty where the system does not tell.
    """
    pid = served.process.pid
    if memory_mib(pid, "VmRSS") is None:
        return []
    page = new_page(opened)
    page.goto(served.url)
    page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
    page.evaluate(REST)
    sizes = [memory_mib(pid, "VmRSS") or 0.0]
    for number in range(runs):
        page.click("#segment")
        page.wait_for_selector("#cancel", timeout=PATIENCE)
        page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        page.evaluate(REST)
        sizes.append(memory_mib(pid, "VmRSS") or 0.0)
        say(f"run {number + 1} of {runs}: {sizes[-1]:.0f} MiB")
    page.context.close()
    return sizes


def _machine() -> Data:
    return {**machine(), "graphics card": any(Path(place).exists() for place in GRAPHICS)}
