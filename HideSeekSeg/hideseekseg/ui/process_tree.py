"""The processes that a child has started, and how to end all of them.

Slicer's Python is a launcher that starts the real Python: who ends only the process it started
leaves the real one computing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """``born`` tells it from a later process that got the same number."""

    pid: int
    parent: int
    born: str


def tree(root: int) -> list[Process]:
    """Return a process and all that it started, eldest first; empty where it has ended."""
    everyone = _everyone()
    found = [process for process in everyone if process.pid == root]
    for process in found:  # grows while it is read
        found += [other for other in everyone if other.parent == process.pid]
    return found


def interrupt(processes: Iterable[Process]) -> None:
    """Ask to stop, as Ctrl-C does (POSIX)."""
    _signal(processes, signal.SIGINT)


def kill(root: int, known: Iterable[Process] = ()) -> None:
    """End a process and all that it started at once, those of ``known`` as well."""
    if os.name == "nt":
        hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        subprocess.run(kill_words(root), capture_output=True, creationflags=hidden, check=False)
    else:
        _signal([*tree(root), *known], signal.SIGKILL)


def kill_words(root: int) -> list[str]:
    """Return the command that ends a process tree on Windows."""
    return ["taskkill", "/F", "/T", "/PID", str(root)]


def _signal(processes: Iterable[Process], number: int) -> None:
    alive = set(_everyone())
    for process in processes:
        # A parent may have ended meanwhile: then its child has another one.
        if any(other.pid == process.pid and other.born == process.born for other in alive):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _everyone() -> list[Process]:
    return from_proc() if (PROC / "self" / "stat").exists() else from_ps()


def from_proc() -> list[Process]:
    """All processes, from Linux's files."""
    found = []
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it ended meanwhile
                # The name stands in brackets and may hold anything.
                words = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if words[0] != "Z":
                    found.append(Process(int(folder.name), int(words[1]), words[19]))
    return found


def from_ps() -> list[Process]:
    """All processes, from the program ``ps`` of macOS and others."""
    words = ["ps", "-A", "-o", "pid=,ppid=,stat=,lstart="]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    return [
        Process(int(line[0]), int(line[1]), line[3])
        for line in lines
        if len(line) == 4 and not line[2].startswith("Z")
    ]
