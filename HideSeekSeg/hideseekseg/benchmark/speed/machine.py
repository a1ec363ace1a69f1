"""What measurements of time and memory have in common: the machine, and processes of our own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__


@dataclass(frozen=True)
class Usage:
    """What a process that has ended took: seconds of processor time, peak resident MiB.

    On Linux the memory is at least that of the process that started it, when it did.
    """

    processor: float
    peak_mib: float


def wait_for(process: subprocess.Popen[Any]) -> Usage:
    """Wait for the end of a process; its status is in ``process.returncode`` then.

    Not Popen.wait: only wait4 tells the time and memory of this one child.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    per_mib = 1024**2 if sys.platform == "darwin" else 1024
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / per_mib)


def memory_mib(pid: int, field: str) -> float | None:
    """Memory of a running process: VmRSS is what it keeps now, VmHWM the most so far.

    None where the system does not tell, or the process has given its memory back.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")]
    return sizes[0] if sizes else None


def machine() -> dict[str, Any]:
    """What figures depend on, whatever is measured; ``load`` is None where nobody knows it."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "hideseekseg": __version__,
        "python": platform.python_version(),
    }
