"""A name means one thing: no two classes share one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

MODULE = Path(__file__).resolve().parents[2] / "HideSeekSeg"


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in MODULE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.relative_to(MODULE).as_posix())
    assert len(homes) > 100
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}
