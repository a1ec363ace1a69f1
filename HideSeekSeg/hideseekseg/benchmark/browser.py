"""A server of its own and a real Chromium without a window, for measurements and tests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..ui.child_process import LIBRARY

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
SIZE = {"width": 1440, "height": 900}
PATIENCE = 120_000  # milliseconds that a busy machine may need for what takes seconds
# The views send their sharper picture after a sixth of a second.
# The session answers in turn: once it has answered this, it has heard all that was asked before.
REST = """async () => {
  if (window.trame) await window.trame.trigger("do", ["nothing"]);
  await new Promise(resolve => {
    let timer = 0;
    const done = () => { watch.disconnect(); resolve(); };
    const wait = () => { clearTimeout(timer); timer = setTimeout(done, 400); };
    const watch = new MutationObserver(wait);
    const all = { subtree: true, attributes: true, childList: true };
    document.querySelectorAll('.area').forEach(area => watch.observe(area, all));
    wait();
  });
}"""


def chromium() -> str:
    """Path of the browser; empty where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), "")


@cache
def can_serve(python: str) -> bool:
    """Return whether this Python has trame-slicer."""
    words = [python, "-c", "import trame_slicer, slicer"]
    found = shutil.which(python) is not None
    return found and subprocess.run(words, capture_output=True).returncode == 0


@dataclass
class Served:
    """A running server; ``private`` is where its temporary files are, ``state`` what it keeps."""

    process: subprocess.Popen[str]
    url: str
    private: Path
    state: Path
    said: list[str]

    @property
    def origin(self) -> str:
        return self.url.partition("/?")[0]

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)


@contextmanager
def serve(
    python: str,
    *words: str,
    library: Path = LIBRARY.parent,
    browser: str = "",
    state: Path | None = None,
) -> Iterator[Served]:
    """Run ``hideseekseg app`` with these words until the block ends.

    ``library`` is the folder that ``hideseekseg`` is imported from, ``browser`` a program that the
    server shall open itself in, ``state`` a folder where an earlier server left its reviews.
    Raises RuntimeError where the server does not start.
    """
    # Children of a server that was killed may write for a moment more while this one cleans up.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as private,
        tempfile.TemporaryDirectory() as empty,
    ):
        own = {"PYTHONPATH": str(library), "TMPDIR": private, "OMP_NUM_THREADS": "1"}
        own |= {"BROWSER": browser} if browser else {}
        alone = () if browser else ("--no-browser",)
        kept = state or Path(empty)
        own |= {"XDG_STATE_HOME": str(kept), "LOCALAPPDATA": str(kept)}
        process = subprocess.Popen(
            [python, "-m", "hideseekseg", "app", *alone, *words],
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a share of the processor of its own, beside the browser's
        )
        served = Served(process, "", Path(private), kept, [])
        ready = threading.Event()
        threading.Thread(target=_listen, args=(served, ready), daemon=True).start()
        try:
            if not ready.wait(PATIENCE / 1000) or not served.url:
                raise RuntimeError("the server did not start:\n" + "\n".join(served.said))
            yield served
        finally:
            served.stop()


def _listen(served: Served, ready: threading.Event) -> None:
    assert served.process.stdout is not None
    for line in served.process.stdout:
        served.said.append(line.rstrip())
        found = re.search(r"is at (http://\S+)", line)
        if found:
            served.url = found[1]
            ready.set()
    ready.set()


@contextmanager
def browser() -> Iterator[Any]:
    """Start playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        try:
            yield opened
        finally:
            opened.close()


def new_page(opened: Any) -> Any:
    """Open a tab in a fresh browser profile."""
    return opened.new_context(viewport=SIZE, accept_downloads=True).new_page()
