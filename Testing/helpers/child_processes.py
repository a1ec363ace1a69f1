"""The processes that a process of the tests has started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hideseekseg.ui.child_process import PROC, STAND_BY, tree

needs_proc = pytest.mark.skipif(not (PROC / "self").exists(), reason="looks into /proc")


def gone(pid: int) -> bool:
    return not tree(pid)


def standing_by(root: int = 0) -> list[int]:
    """Those below ``root`` (default: this one) that stand by, from when they are what they are."""
    found = []
    for process in tree(root or os.getpid()):
        line = PROC / str(process.pid) / "cmdline"
        if line.exists() and STAND_BY.encode() in Path(line).read_bytes().split(b"\0"):
            found.append(process.pid)
    return found
