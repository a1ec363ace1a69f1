"""The Python that has the libraries of Slicer 5.12, while the tests run with those of 5.11."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / ".venv" / "slicer-5.12" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def newer_slicer() -> str:
    """Return the path of that Python; skip the test where there is none."""
    python = next((one for one in (str(OWN), sys.executable) if _is_newer(one)), "")
    if not python:
        pytest.skip("Slicer's libraries 5.12 are not installed: make test-slicer-5.12")
    return python


@cache
def _is_newer(python: str) -> bool:
    code = "import importlib.metadata as m; print(m.version('slicer-core')); import slicer.util"
    if not Path(python).is_file():
        return False
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.startswith("5.12.")
