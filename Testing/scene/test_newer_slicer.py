"""The tests of scene and panel once more, with the libraries of Slicer 5.12."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from helpers.newer_slicer import ROOT, newer_slicer

# What a version of Slicer can change: its scene, and how the module and its review use it.
CHOSEN = (
    "Testing/scene",
    "Testing/panel/test_module.py",
    "Testing/panel/test_panel_review.py",
)


@pytest.mark.slow
def test_scene_and_panel_pass_with_the_libraries_of_slicer_5_12() -> None:
    python = newer_slicer()
    if python == sys.executable:
        pytest.skip("these tests run with 5.12 themselves")
    words = ("-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *CHOSEN)
    path = {"PYTHONPATH": str(ROOT / "HideSeekSeg")}
    done = subprocess.run(
        [python, *words], cwd=ROOT, env={**os.environ, **path}, capture_output=True, text=True
    )
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and passed and int(passed[1]) > 80, done.stdout[-8000:]
