"""The review in a real browser: the server as a process of its own, Chromium without a window."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hideseekseg.benchmark.browser import (
    PATIENCE,
    REST,
    Served,
    browser,
    can_serve,
    chromium,
    new_page,
)
from hideseekseg.benchmark.browser import serve as serve_with

__all__ = ["PATIENCE", "Served", "browser", "serve"]
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "Scripts/python.exe" if os.name == "nt" else "bin/python"
# Where `make app` installs it; the tests may run in another environment.
APP_PYTHONS = [str(ROOT / ".venv" / PROGRAM)]
# Milliseconds.  At every frame, as playwright looks by itself, the browser draws all the while.
BETWEEN_LOOKS = 50

Fits = Callable[[Any], Any]


# A page far behind its session, as on a busy machine: all that it is told comes a second late.
A_SECOND_LATE = """
const own = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
Object.defineProperty(WebSocket.prototype, "onmessage", {
  ...own,
  set(handler) { own.set.call(this, (event) => setTimeout(() => handler(event), 1000)); },
});
"""


def app_python() -> str:
    """Return the Python that has trame-slicer: this one, or that of `make app`; empty: none."""
    return next((python for python in (sys.executable, *APP_PYTHONS) if can_serve(python)), "")


def need_all() -> None:
    """Skips, with the reason, where something is missing."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not chromium():
        pytest.skip("Chromium is not installed")
    if not app_python():
        pytest.skip("trame-slicer is not installed: make .venv/ready-app")


@contextmanager
def serve(*words: str, browser: str = "", state: Path | None = None) -> Iterator[Served]:
    """``hideseekseg app`` with these words, until the block ends; ``browser`` is opened by it."""
    with serve_with(app_python(), *words, browser=browser, state=state) as served:
        yield served


@dataclass
class Tab:
    """A page, with all that it complained of and all that it asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def state(self, name: str) -> Any:
        """What the session shows under this name."""
        return self.page.evaluate("name => window.trame.state.get(name)", name)

    def until(self, condition: str, *values: Any) -> None:
        """Wait for a condition in JavaScript, a function of ``values``."""
        self.page.wait_for_function(
            condition, arg=list(values), timeout=PATIENCE, polling=BETWEEN_LOOKS
        )

    def until_state(self, name: str, value: Any) -> None:
        self.until(
            "([name, value]) => window.trame && window.trame.state.get(name) === value", name, value
        )

    def rows(self) -> list[list[str]]:
        """The table of candidates as it is read."""
        script = "rows => rows.map(r => [...r.cells].map(c => c.innerText.trim()))"
        return list(self.page.eval_on_selector_all("#candidates tbody tr", script))

    def chosen(self) -> str:
        """Level and type of the chosen row."""
        row = self.page.query_selector("#candidates tr.chosen")
        return " ".join(row.inner_text().split()[:2]) if row else ""

    def until_rows(self, count: int) -> None:
        script = "([n]) => document.querySelectorAll('#candidates tbody tr').length === n"
        self.until(script, count)

    def choose(self, level: str, kind: str) -> None:
        """Click the best finding of a type in a vertebra, once the list has it."""
        there = "(row, [level, kind]) => row.cells[0].innerText.trim() === level &&"
        there = f"{there} row.cells[1].innerText.trim() === kind"
        every = "[...document.querySelectorAll('#candidates tbody tr')]"
        self.until(f"wanted => {every}.some(row => ({there})(row, wanted))", level, kind)
        row = next(n for n, cells in enumerate(self.rows()) if cells[:2] == [level, kind])
        self.page.locator("#candidates tbody tr").nth(row).click()
        script = "([name]) => document.querySelector('#detail').innerText.startsWith(name)"
        self.until(script, f"{level} {kind}")

    def choose_first(self) -> None:
        row = self.page.locator("#candidates tbody tr").first
        row.click()
        self.page.wait_for_selector("#candidates tbody tr.chosen:first-child", timeout=PATIENCE)

    def picture(self, selector: str) -> Any:
        """What is seen of an element, as an array (H, W, 3) of integers."""
        data = self.page.locator(selector).screenshot()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def until_seen(self, selector: str, fits: Fits, least: int) -> int:
        """Wait until more pixels of an element fit; returns how many did."""
        return self._count(selector, fits, lambda count: count > least)

    def until_unseen(self, selector: str, fits: Fits, most: int) -> int:
        return self._count(selector, fits, lambda count: count < most)

    def until_changed(self, selector: str, before: Any, least: int) -> int:
        """Wait until more pixels of an element differ from a picture of it; return how many."""
        return self._count(selector, _differing_from(before), lambda count: count > least)

    def until_unchanged(self, selector: str, before: Any, most: int) -> int:
        """Wait until fewer pixels of an element differ from a picture of it; return how many."""
        return self._count(selector, _differing_from(before), lambda count: count < most)

    def _count(self, selector: str, fits: Fits, enough: Callable[[int], bool]) -> int:
        end = time.monotonic() + PATIENCE / 1000
        while not enough(count := int(fits(self.picture(selector)).sum())):
            assert time.monotonic() < end, f"{fits.__name__}: {count} pixels of {selector}"
            self.page.wait_for_timeout(BETWEEN_LOOKS)
        return count

    def rest(self) -> None:
        """Wait until no view sends another picture: the sharper one comes when all is still."""
        self.page.evaluate(REST)

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector, timeout=PATIENCE))


def open_tab(
    opened: Any, url: str, ready: str = "#segment:not([disabled])", script: str = ""
) -> Tab:
    """A fresh browser profile at this address, once what ``ready`` selects is there.

    ``script`` runs in the page before any of its own.
    """
    page = new_page(opened)
    if script:
        page.add_init_script(script)
    tab = Tab(page)
    page.on("console", lambda m: tab.complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    page.on("request", lambda request: tab.requests.append(request.url))
    page.on("websocket", lambda socket: tab.requests.append(socket.url))
    page.goto(url)
    page.wait_for_selector(ready, timeout=PATIENCE)
    return tab


def _differing_from(before: Any) -> Fits:
    def differing(pixels: Any) -> Any:
        return np.abs(pixels - before).max(axis=2) > 15

    return differing


def is_lytic_blue(pixels: Any) -> Any:
    red, green, blue = (pixels[..., n] for n in range(3))
    return (blue > 150) & (blue - red > 60) & (green > red + 25)


def is_blastic_orange(pixels: Any) -> Any:
    red, green, blue = (pixels[..., n] for n in range(3))
    return (red > 150) & (red - blue > 100) & (green > 0.5 * red) & (green < 0.75 * red)


def is_bright(pixels: Any) -> Any:
    return pixels.min(axis=2) > 70
