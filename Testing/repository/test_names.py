"""Names and messages: no two classes share a name; messages are plain standard English."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "HideSeekSeg"
SOURCES = {path: path.read_text("utf-8") for path in MODULE.rglob("*.py")}


@functools.cache
def nodes(source: str) -> list[ast.AST]:
    return [*ast.walk(ast.parse(source))]


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path, source in SOURCES.items():
        for node in nodes(source):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.relative_to(MODULE).as_posix())
    assert len(homes) > 100
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


# What messages are not to say, and what they say instead.
ODD = {
    r"(?<!\bthere )\b(is|are) no\b(?! longer)": "is not a ...",
    r"\bholds?\b": "contains",
    r"\b(knows?|says?|names?|tells?) no\b": "does not know, say, name ...",
    r"\b(told|whoever|anew|at work)\b": "stated, anyone who, again, running",
}


def messages(source: str) -> list[str]:
    """Return the strings of a file but its docstrings; "..." stands for what is filled in."""
    bare = {id(node.value) for node in nodes(source) if isinstance(node, ast.Expr)}
    found, parts = [], set()
    for node in nodes(source):  # from the outside in
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            said = (p.value if isinstance(p, ast.Constant) else "..." for p in node.values)
            found.append("".join(map(str, said)))
        elif isinstance(node, ast.Constant) and id(node) not in bare | parts:
            found.append(str(node.value))
    return found


def odd(text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in ODD)


def test_messages_are_plain_standard_english() -> None:
    said = {
        (path.relative_to(MODULE).as_posix(), text)
        for path, source in SOURCES.items()
        for text in messages(source)
    }
    pages = [p for p in MODULE.rglob("*") if p.suffix in (".ui", ".html", ".js")]
    said |= {(p.name, line) for p in pages for line in p.read_text("utf-8").splitlines()}
    assert len(said) > 5000 and len(pages) > 2
    assert [(where, text) for where, text in sorted(said) if odd(text)] == []


@pytest.mark.parametrize("text", ["is no CSV", "They are no shards", "holds no X", "was told"])
def test_the_check_of_messages_finds_what_is_odd(text: str) -> None:
    assert odd(messages(f'raise ValueError(f"{{1}} {text}")')[0])
    assert messages(f'def f():\n    """{text}."""\n    return ""') == [""]
    assert not odd("it is no longer there, there is no room for it, and threshold is another word")
