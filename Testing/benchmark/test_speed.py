"""The benchmark of speed runs anywhere, on what it draws itself, and says what it measured."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

import hideseekseg
from helpers.benchmark import SMALL, save_useless
from hideseekseg.benchmark.cases import draw_subjects
from hideseekseg.benchmark.speed_measurements import LOADING, PARTS, WHOLE, published_calls
from hideseekseg.benchmark.speed_report import SpeedPlan, measure, to_markdown
from hideseekseg.cli.main import main
from hideseekseg.model.weights import load_model


def test_published_calls_are_the_papers() -> None:
    assert [published_calls(k) for k in (0, 1, 11)] == [450, 800, 4300]


@pytest.mark.parametrize(
    ("file", "name"), [WHOLE, LOADING, *(f for part in PARTS.values() for f in part)]
)
def test_parts_of_a_run_are_functions_of_the_library(file: str, name: str) -> None:
    """They are known by their names in a profile: one that is moved would cost nothing."""
    tree = ast.parse((Path(hideseekseg.__path__[0]) / file).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.slow
def test_table_json_and_plots_of_a_drawn_vertebra(tmp_path: Path) -> None:
    """Of small weights: those of the bundle would take five times as long to be measured."""
    weights, cases = tmp_path / "weights", tmp_path / "cases"
    draw_subjects(cases, 4, 7104, SMALL, lambda done, total: None)
    save_useless(weights, cases)
    model = load_model(weights, "cpu")
    plan = SpeedPlan(
        *(weights, tmp_path / "out", cases, 1, 1, 1),
        levels=("T12",),
        slices=(1, 2),
        candidates=(1, 2),
    )
    said: list[str] = []
    paths = measure(plan, said.append)
    assert sorted(p.name for p in paths) == [
        "speed-growth.png",
        "speed-split.png",
        "speed.json",
        "speed.md",
    ]
    assert all(p.stat().st_size > 1000 for p in paths)
    data = json.loads((tmp_path / "out" / "speed.json").read_text("utf-8"))
    assert data["counts"]["vertebrae"] == 1
    assert data["weights"]["hash"] == model.hash
    assert data["one slice"]["parameters"] == 90_835_777
    timing, split = data["now"]["timing"], data["now"]["split"]
    assert 0 < timing["first"] < timing["seconds"] == data["growth"]["threads"]["1"]
    assert [*data["growth"]["threads"]] == [
        str(n) for n in (1, 2, 4, 8) if n <= (os.cpu_count() or 1)
    ]
    assert 100 < timing["peak_mib"] < 2048
    stood = data["standing by"]
    assert 0 < stood["first"] < stood["seconds"]
    assert stood["processor"] > 0, "what it loaded before is not of the run"
    assert all(seconds >= 0 for seconds in split.values())
    assert min(split[name] for name in PARTS if name != "other files") > 0
    exact, own = data["agreement"]["rows"][:2]
    assert (exact["name"], exact["identical"]) == ("exact", 1.0)
    assert own["seconds"] < exact["seconds"] / 10
    table = (tmp_path / "out" / "speed.md").read_text("utf-8")
    assert "not measured on a GPU" in table
    assert model.hash[:12] in table
    assert table == to_markdown(data)


def test_the_command_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", "speed"])
    assert "--out" in capsys.readouterr().err
