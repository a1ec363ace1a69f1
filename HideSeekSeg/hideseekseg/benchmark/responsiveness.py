"""How long the review lets its reader wait, alone and in a real browser; memory over many runs.

``python -m ...responsiveness PATH COUNT`` writes a review of that many candidates as a scene file,
in a process of its own: a scene, once opened, is the whole process's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic, make_folder
from ..findings import Candidate, LesionType, Status, VertebraFinding
from ..imaging.volume import Grid, Patch, Volume
from ..output.tables import write_plain
from ..review.review import Review
from ..simulation.phantom.vertebra import LEVELS
from ..ui.child_process import LIBRARY
from .browser import PATIENCE, REST, Served, browser, can_serve, chromium, new_page, serve
from .speed_measurements import machine, memory_mib

VERTEBRAE = 20
REVIEW_ROUNDS = 51
COLUMNS = "| {} candidates | median ms | slowest ms |\n|---|---|---|"


def report(candidates: int) -> str:
    """Markdown, a row per thing that a reader does."""
    review = _drawn(candidates)
    thresholds = [n / (REVIEW_ROUNDS - 1) for n in range(REVIEW_ROUNDS)]
    first = review.items[0].id

    def move(n: int) -> None:
        review.set_threshold(thresholds[n])
        review.shown()
        review.counts()
        review.summary()

    def undo_move(n: int) -> None:
        review.undo()
        review.shown()

    def judge(n: int) -> None:
        review.judge(first, "accepted" if n % 2 else "rejected")
        review.next_to_review(first)
        review.shown()

    def save(n: int) -> None:
        json.dumps(review.to_json())

    lines = [COLUMNS.format(candidates)]
    lines.append(_row("threshold move: list, count and summary", move))
    lines.append(_row("undo of a threshold move", undo_move, before=lambda n: move(n or 1)))
    lines.append(_row("verdict and the next candidate", judge))
    lines.append(_row("undo of a verdict", undo_move))
    lines.append(_row("saving", save))
    return "\n".join(lines)


def _row(name: str, act: Callable[[int], Any], before: Callable[[int], Any] | None = None) -> str:
    """``before`` is not timed."""
    spent = []
    for n in range(REVIEW_ROUNDS):
        if before:
            before(n)
        began = time.perf_counter()
        act(n)
        spent.append(1000 * (time.perf_counter() - began))
    return f"| {name} | {median(spent):.2f} | {max(spent):.2f} |"


def _drawn(candidates: int) -> Review:
    """Lesions spread over a spine, half of each type, scores from 1 down to 0."""
    review = Review()
    for v in range(VERTEBRAE):
        found = []
        for n in range(v, candidates, VERTEBRAE):
            kind: LesionType = "lytic" if n // VERTEBRAE % 2 else "blastic"
            box = (0.0, 0.0, 0.0, 5.0, 5.0, 5.0)
            score = 1 - n / candidates
            found.append(
                Candidate(f"V{v}-{n}", kind, score, 125.0, (2.5, 2.5, 2.5), box, 0.02, 300.0, (5,))
            )
        review.add_vertebra(
            VertebraFinding(f"V{v}", Status.FINDINGS, p_malignant=0.9, candidates=tuple(found))
        )
    return review


GRID = Grid((200, 120, 120), np.diag([1.0, 1.0, 1.5, 1.0]))
SIDE, STEP = 5, 8  # voxels of a candidate, and from one to the next
MOST = (GRID.shape[0] // STEP) * (GRID.shape[1] // STEP - 1) * (GRID.shape[2] // STEP - 1)


def write_scene(
    path: Path, name: str, threshold: float, findings: Iterable[VertebraFinding], cache: Path
) -> None:
    """Write a review of these findings, on a CT of noise with this name, as the app saves one."""
    from ..scene.import_data import addCt
    from ..scene.results import Results
    from ..scene.review_storage import store
    from ..web.slicer_scene import open_scene, save_scene

    opened = open_scene(cache)
    array = np.random.default_rng(1).normal(200, 60, GRID.shape).astype(np.int16)
    ct = addCt(Volume(array, GRID, "CT"), name)
    results, review = Results.create(ct, None, {"weights": "none"}), Review(threshold)
    for finding in findings:
        review.add_vertebra(finding)
        results.addVertebra(finding)
    results.apply(review)
    store(results.node, review)
    save_scene(path)
    del opened


def _findings(count: int) -> Iterator[VertebraFinding]:
    """Yield the vertebrae of a review with ``count`` candidates, at most MOST."""
    for number, level in enumerate(LEVELS):
        found = tuple(candidate_at(level, n, count) for n in range(number, count, len(LEVELS)))
        yield VertebraFinding(level, Status.FINDINGS, p_malignant=0.9, candidates=found)


def candidate_at(level: str, number: int, count: int) -> Candidate:
    """On a lattice, so that no two overlap; scores from 1 down to 0."""
    rows, columns = (size // STEP - 1 for size in GRID.shape[1:])
    k, rest = divmod(number, rows * columns)
    j, i = divmod(rest, columns)
    start = (k * STEP + 1, j * STEP + 1, i * STEP + 1)
    kind: LesionType = "lytic" if number % 2 else "blastic"
    first = np.array(start)[::-1]
    ends = np.stack([GRID.lps(first), GRID.lps(first + SIDE - 1)])
    x, y, z = (float(v) for v in ends.mean(axis=0))
    least, most = ends.min(axis=0), ends.max(axis=0)
    box = (float(least[0]), float(least[1]), float(least[2]))
    far = (float(most[0]), float(most[1]), float(most[2]))
    patch = Patch(np.ones((SIDE, SIDE, SIDE), bool), start)
    volume = SIDE**3 * GRID.voxel_mm3
    name, score = f"{level}-{number}", 1 - number / count
    return Candidate(
        name, kind, score, volume, (x, y, z), (*box, *far), 0.01, 300.0, (5,), patch=patch
    )


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
        return ["Memory: this system does not report it."]
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
            f"{__package__}.responsiveness",
            str(path),
            str(plan.candidates),
        ]
        subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(LIBRARY.parent)})
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        count = int(sys.argv[2])
        name = f"{count} candidates"
        write_scene(Path(sys.argv[1]), name, 0.5, _findings(count), Path(made))
