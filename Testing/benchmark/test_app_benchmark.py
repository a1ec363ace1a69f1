"""The browser's benchmark measures what it says, and says in one line what it lacks."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import app
from hideseekseg.benchmark.responsiveness import growth, to_markdown
from hideseekseg.cli.main import main


@pytest.mark.slow
def test_waits_and_memory_of_a_small_review(tmp_path: Path) -> None:
    app.need_all()
    words = ["benchmark", "app", "--out", str(tmp_path), "--python", app.app_python()]
    assert main([*words, "--candidates", "60", "--runs", "1", "--rounds", "3"]) == 0
    data = json.loads((tmp_path / "app.json").read_text("utf-8"))
    assert [len(wait["all_ms"]) for wait in data["waits"]] == [3, 3, 3]
    for wait in data["waits"]:
        assert 0 < wait["median_ms"] <= wait["worst_ms"] < 10_000
    if sys.platform == "linux":
        assert all(100 < size < 4000 for size in data["memory"]) and len(data["memory"]) == 2
    assert (tmp_path / "app.md").read_text("utf-8") == to_markdown(data)


def test_growth_is_counted_from_the_first_run_on() -> None:
    assert growth([500, 600, 610, 620]) == 10
    assert growth([500, 600]) == 0


def test_without_chromium_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("chromium") is None
    assert main(["benchmark", "app", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "needs Chromium" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("trame_slicer") is not None, reason="trame-slicer is installed here")
def test_without_trame_slicer_one_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed")
    if not app.chromium():
        pytest.skip("Chromium is not installed")
    assert main(["benchmark", "app", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "has no trame-slicer" in said and said.count("\n") == 1
