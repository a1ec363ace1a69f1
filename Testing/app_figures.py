"""How long the browser lets its reader wait with 500 candidates, and what ten runs leave in memory.

``.venv/bin/python Testing/app_figures.py`` prints both as Markdown.  Real server, real Chromium:
a click is timed until the views have sent a new picture, a move of the slider until the list is
shorter or longer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import example_app
from example_app import Served, Tab, open_tab
from example_scene import add_ct, open_scene
from HideSeekSegLib.findings import Candidate, LesionType, Status, VertebraFinding
from HideSeekSegLib.imaging.patches import Patch
from HideSeekSegLib.imaging.volume import Grid

CANDIDATES, ROUNDS, RUNS = 500, 21, 10
LEVELS = [*(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6))]
GRID = Grid((200, 120, 120), np.diag([1.0, 1.0, 1.5, 1.0]))
SIDE = 5  # voxels of a candidate

CLICK = """([id]) => new Promise(resolve => {
  const picture = document.querySelector('.sagittal .area');
  const began = performance.now();
  const watch = new MutationObserver(() => {
    if (window.trame.state.get('current') !== id) return;
    watch.disconnect();
    resolve(performance.now() - began);
  });
  watch.observe(picture, { subtree: true, attributes: true, childList: true });
  document.querySelector(`#candidates tr[data-id="${id}"]`).click();
})"""
SLIDE = """([value, before]) => new Promise(resolve => {
  const field = document.querySelector('#threshold');
  const began = performance.now();
  const look = () => {
    const count = document.querySelectorAll('#candidates tbody tr').length;
    if (count !== before) resolve(performance.now() - began);
    else requestAnimationFrame(look);
  };
  field.value = value;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  look();
})"""
KEY = """([key]) => new Promise(resolve => {
  const before = window.trame.state.get('current');
  const began = performance.now();
  const look = () => {
    if (window.trame.state.get('current') !== before) resolve(performance.now() - began);
    else requestAnimationFrame(look);
  };
  window.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  look();
})"""


def write_scene(path: Path) -> None:
    """A review of 500 candidates on a plain CT, as Slicer saves it."""
    from HideSeekSegLib.review import Review
    from HideSeekSegLib.scene.results import Results
    from HideSeekSegLib.scene.saving import store

    with open_scene() as opened:
        rng = np.random.default_rng(1)
        array = rng.normal(200, 60, GRID.shape).astype(np.int16)
        ct = add_ct(array, GRID.ijk_to_lps, "500 candidates")
        results, review = Results.create(ct, None, {"weights": "none"}), Review(0.5)
        for number, level in enumerate(LEVELS):
            finding = _vertebra(level, range(number, CANDIDATES, len(LEVELS)))
            review.add_vertebra(finding)
            results.addVertebra(finding)
        results.apply(review)
        store(results.node, review)
        assert opened.scene.WriteToMRB(str(path))


def _vertebra(level: str, numbers: range) -> VertebraFinding:
    found = tuple(_candidate(level, n) for n in numbers)
    return VertebraFinding(level, Status.FINDINGS, p_malignant=0.9, candidates=found)


def _candidate(level: str, number: int) -> Candidate:
    """On a lattice, so that no two overlap; scores from 1 down to 0."""
    step = SIDE + 3
    across = GRID.shape[2] // step - 1
    k, j, i = (number // across**2, number // across % across, number % across)
    start = (k * step + 1, j * step + 1, i * step + 1)
    kind: LesionType = "lytic" if number % 2 else "blastic"
    low = GRID.lps(np.array(start)[::-1])
    high = GRID.lps(np.array(start)[::-1] + SIDE - 1)
    centre = tuple(float(v) for v in (low + high) / 2)
    box = tuple(float(v) for v in (*np.minimum(low, high), *np.maximum(low, high)))
    patch = Patch(np.ones((SIDE, SIDE, SIDE), bool), start)
    place: tuple[Any, Any] = (centre, box)
    score, volume = 1 - number / CANDIDATES, SIDE**3 * GRID.voxel_mm3
    return Candidate(f"{level}-{number}", kind, score, volume, *place, 0.01, 300.0, (5,), patch)


def fluency(folder: Path) -> list[str]:
    """Milliseconds in the browser, median and slowest."""
    path = folder / "many.mrb"
    write_scene(path)
    lines = [f"| {CANDIDATES} candidates | median ms | slowest ms |", "|---|---|---|"]
    with example_app.browser() as browser, example_app.serve(str(path)) as served:
        tab = open_tab(browser, served.url, "#candidates tbody tr")
        tab.page.wait_for_timeout(3000)
        ids = tab.state("shown")[:: max(len(tab.state("shown")) // ROUNDS, 1)][1 : ROUNDS + 1]
        clicks = [tab.page.evaluate(CLICK, [identity]) for identity in ids]
        lines.append(_row("click on a row until the views show the place", clicks))
        keys = [tab.page.evaluate(KEY, ["x"]) for _ in range(ROUNDS)]
        lines.append(_row("verdict by key until the next finding is chosen", keys))
        slides = []
        for n in range(ROUNDS):
            before = len(tab.rows())
            slides.append(tab.page.evaluate(SLIDE, [0.1 if n % 2 else 0.8 - n / 100, before]))
            tab.page.wait_for_timeout(300)
        lines.append(_row("move of the slider until the list follows", slides))
    return lines


def _row(name: str, spent: list[float]) -> str:
    return f"| {name} | {median(spent):.0f} | {max(spent):.0f} |"


def memory(files: tuple[Path, Path]) -> list[str]:
    """Resident memory of the server after each of ten runs of the bundled weights."""
    words = [*map(str, files), "--labels", "totalsegmentator"]
    with example_app.browser() as browser, example_app.serve(*words) as served:
        tab = open_tab(browser, served.url)
        sizes = [_resident(served)]
        for _ in range(RUNS):
            _run(tab)
            sizes.append(_resident(served))
    head = "| MiB before | " + " | ".join(f"run {n}" for n in range(1, RUNS + 1)) + " |"
    values = "| " + " | ".join(f"{size:.0f}" for size in sizes) + " |"
    return [head, "|---" * (RUNS + 1) + "|", values]


def _run(tab: Tab) -> None:
    tab.page.click("#segment")
    tab.page.wait_for_selector("#cancel", timeout=example_app.PATIENCE)
    tab.page.wait_for_selector("#segment:not([disabled])", timeout=example_app.PATIENCE)
    tab.page.wait_for_timeout(500)


def _resident(served: Served) -> float:
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    from HideSeekSegLib.learning.example import write_example

    with tempfile.TemporaryDirectory() as made:
        where = Path(made)
        wanted = sys.argv[1:] or ["fluency", "memory"]
        if "fluency" in wanted:
            print("\n".join(fluency(where)), flush=True)
        if "memory" in wanted:
            ct, vertebrae = write_example(where)
            print("\n".join(memory((ct, vertebrae))), flush=True)
