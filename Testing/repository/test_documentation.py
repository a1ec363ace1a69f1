"""The README and the guides keep up with the code: links, commands, files and the drawn floors."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_repository import FLOORS

import hideseekseg
from hideseekseg.cli.main import _parser

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "Resources").rglob("*.md"))]
# Written by commands, which are quoted in them as they were run.
COMMANDS_IN = [path for path in GUIDES if path.parent.name != "Benchmark"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROGRAM = re.compile(r"^(?:\S*[/\\])?hideseekseg$")

by_name = pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
with_commands = pytest.mark.parametrize("path", COMMANDS_IN, ids=lambda path: path.stem)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@by_name
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every ``hideseekseg`` in code: whole lines and spans."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join([*blocks, *re.findall(r"^    (\S.*)$", text, re.MULTILINE)])
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M))
    for line in [*lines.replace("\\\n", " ").splitlines(), *(" ".join(s.split()) for s in spans)]:
        words = shlex.split(line.replace("\\", "/"), comments=True) if "hideseekseg" in line else []
        starts = [n for n, word in enumerate(words) if PROGRAM.match(word)]
        if starts and len(words) > starts[0] + 1:
            yield words[starts[0] + 1 :]


def check(words: list[str]) -> None:
    """Parse a command; where it is shortened or lacks what is required, look its options up."""
    parser: argparse.ArgumentParser = _parser()
    while words and words[0] in (choices := _subcommands(parser)):
        parser, words = choices[words[0]], words[1:]
        if not words:
            return
    assert not _subcommands(parser), f"no such command: {words[0]}"
    known = parser._option_string_actions
    for word in words:
        assert not word.startswith("-") or word.partition("=")[0] in known, word
    positional = [a for a in parser._actions if not a.option_strings and a.nargs is None]
    whole = "..." not in words and len(words) > len(positional)
    if whole and all(any(o in words for o in a.option_strings) for a in _required(parser)):
        parser.parse_args(words)


def _required(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.required and action.option_strings]


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


@with_commands
def test_commands_exist_with_their_options(path: Path) -> None:
    for words in commands(path.read_text("utf-8")):
        try:
            check(words)
        except SystemExit:
            pytest.fail(f"hideseekseg {' '.join(words)}")


def test_the_check_of_commands_finds_what_is_wrong() -> None:
    assert [*commands("`x`, `.venv/bin/hideseekseg a --b`\n\n    hideseekseg c d  # e\n")] == [
        ["c", "d"],
        ["a", "--b"],
    ]
    check(["segment", "CT", "SEGMENTATION", "--out", "x"])
    check(["benchmark", "app"])
    for wrong in (["segmend"], ["segment", "--labelz"], ["benchmark", "everything"]):
        with pytest.raises(AssertionError):
            check(wrong)
    with pytest.raises(SystemExit):
        check(["segment", "CT", "SEGMENTATION", "--out", "x", "--threshold", "7"])


def test_the_guide_names_every_subcommand() -> None:
    text = (ROOT / "Resources" / "Docs" / "command-line.md").read_text("utf-8")
    named = set(re.findall(r"`(?:hideseekseg )?([a-z-]+)[^`]*`", text)) | {"segment"}
    assert _subcommands(_parser()).keys() - named == set()


@with_commands
def test_targets_and_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for target in re.findall(r"(?:`|^    )make (?:\w+=\S+ )?(\w+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"
    top = r"(?:HideSeekSeg|Resources|Testing|\.github|\.ci)/[\w./-]+"
    for name in re.findall(rf"(?<![\w/-])({top})", re.sub(r"\]\([^)]*\)", "", text)):
        assert (ROOT / name.rstrip("./")).exists(), name
    for name in re.findall(r"`(hideseekseg(?:\.\w+)+)`", text):
        stem = ROOT.joinpath("HideSeekSeg", *name.split("."))
        public = name.removeprefix("hideseekseg.")
        assert stem.with_suffix(".py").is_file() or hasattr(hideseekseg, public), name


def test_floors_are_drawn_as_they_are() -> None:
    text = (ROOT / "Resources" / "Docs" / "architecture.md").read_text("utf-8")
    drawing = re.search(r"^```\n(__main__.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert drawing is not None
    lines = [re.sub(r"\(.*\)", "", line).split() for line in drawing[1].splitlines()]
    assert [set(line) for line in reversed(lines)] == [set(floor) for floor in FLOORS]


def test_readme_is_short_and_names_every_guide() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) < 100
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(text)}
    guides = {path for path in (ROOT / "Resources" / "Docs").iterdir() if path.suffix == ".md"}
    beside = {path for path in guides if path.name == "speed-notes.md"}  # linked by speed.md
    assert guides - beside <= linked


def cells_of(page: str, section: str, row: str) -> list[str]:
    """Return the cells of the row that begins with a name, in a section of a benchmark's page."""
    text = (ROOT / "Resources" / "Benchmark" / page).read_text("utf-8")
    part = next(part for part in text.split("\n## ") if part.startswith(section))
    [found] = [line for line in part.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def over_all_splits(section: str, row: str) -> str:
    """Return "COUNT of TOTAL" over all splits of a row of ``range.md``."""
    parts = [re.match(r"(\d+) of (\d+) \(", cell) for cell in cells_of("range.md", section, row)]
    pairs = [(int(part[1]), int(part[2])) for part in parts if part]
    assert len(pairs) == 4
    return f"{sum(a for a, _ in pairs)} of {sum(b for _, b in pairs)}"


def test_figures_of_alarms_are_those_of_the_tables() -> None:
    guide = " ".join((ROOT / "Resources/Docs/command-line.md").read_text("utf-8").split())
    real, painted, degraded = "Real vertebrae", "With simulated metastases", "The same vertebrae"
    for said, section, row in (
        ("an alarm: {} for thick slices", real, "thick slices"),
        (", {} for a body cut by the end of the scan", real, "cut"),
        (", {} for an outline that follows no edge", real, "no edge"),
        ("flag also came to {} vertebrae with simulated", painted, "no edge"),
        ("only {} were noticed", degraded, "outline half a vertebra too high"),
        ("stored as thin ones, {}.", degraded, "slices of 5 mm stored as thin ones"),
    ):
        assert said.format(over_all_splits(section, row)) in guide
    page = (ROOT / "Resources/Benchmark/range.md").read_text("utf-8")
    alarms = len(re.findall(r"^- \S+ \w+: ", page, re.MULTILINE))
    every = over_all_splits(real, "cut").split()[-1]
    assert f"Of {every} real vertebrae, {alarms} raised an alarm" in guide


def test_figures_of_turned_patients_are_those_of_the_table() -> None:
    guide = " ".join((ROOT / "Resources/Docs/command-line.md").read_text("utf-8").split())
    page = (ROOT / "Resources/Benchmark/rotations.md").read_text("utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| CT ")]
    found = {row[2].strip() for row in rows}
    changes = " and ".join(row[3].split()[0] for row in rows)
    assert f"both lesions are found in {', '.join(found)}, their scores change" in guide
    assert f"change by at most {changes}." in guide


def test_figures_of_foci_are_those_of_the_table() -> None:
    guide = (ROOT / "Resources/Docs/accuracy.md").read_text("utf-8")
    table = (ROOT / "Resources/Benchmark/foci.md").read_text("utf-8")
    by_split = table.split("\n## ")[1:]
    rows = re.findall(r"^\| (lytic|blastic), (-?\d+) HU \| (.*) \|$", guide, re.MULTILINE)
    assert len(rows) == 6
    for kind, density, said in rows:
        found = [
            cell.partition(" (")[0].strip()
            for part in by_split
            for cell in re.findall(rf"^\| {kind} \| {density} \| (.*) \|$", part, re.M)[0].split(
                "|"
            )
        ]
        assert [cell.strip() for cell in said.split("|")] == found, (kind, density)
    validation, test = re.findall(r"beside them: (\d+) in (\d+) looks at (\d+) other", table)
    text = " ".join(guide.split())
    assert validation[0] == "0"
    assert f"none in the {validation[1]} looks at {validation[2]} vertebrae of the valid" in text
    assert f"the {test[0]} findings in these {test[1]} looks are all in one patient" in text
    assert f"{test[2]} other vertebrae of the test patients were looked at once for each" in text
    rows = json.loads((ROOT / "Resources/Benchmark/foci.json").read_text("utf-8"))
    foci, beside = ([(x, x["focus"]) for x in rows[name]] for name in ("foci", "beside"))
    large = [(x, f) for x, f in foci if f["type"] == "blastic" and f["diameter_mm"] > 10]
    dense = [x["found"] for x, f in large if f["hounsfield"] >= 500]
    assert f"up to the highest density: {sum(dense)} of {len(dense)}." in text
    pale = [x for x, f in large if f["hounsfield"] == 350]
    assert all(x["found"] for x in pale if x["split"] == "validation")
    found = [x["found"] for x in pale if x["split"] == "test"]
    assert f"({sum(found)} of {len(found)}) in the test patients" in text
    found = [x["found"] for x in pale if x["patient"] == "ricord1012"]
    assert not any(found) and f"none of {len(found)} in `ricord1012`" in text
    assert {(x["patient"], f["type"], f["diameter_mm"]) for x, f in beside if x["false"]} == {
        ("lung1_003", "blastic", diameter) for diameter in (18.0, 28.0)
    }


# Flags that stand as constants, by the module that says them.
FLAG_CONSTANTS = {
    "anatomy.body": ("CUT", "NO_CANAL"),
    "anatomy.localization": ("MARKED_WHOLE",),
    "anatomy.orientation": ("ACCEPTED",),
    "anatomy.preparation": ("LATERAL",),
    "review.review": ("OUTDATED",),
    "findings": ("UNLIKE_TRAINING", "UNSTABLE"),
}
# Functions whose strings are flags, beside what is appended to ``flags``, ``said`` or ``doubts``,
# and what is called ``flag`` or ``doubt``.
FLAG_FUNCTIONS = {
    "anatomy.alignment": ("__str__",),
    "anatomy.intensity": ("cut_off",),
    "anatomy.preparation": ("slices_of",),
    "anatomy.quality": ("remarks", "_too_bright", "_not_measured"),
}
LISTS_OF_FLAGS, NAMES_OF_FLAGS = ("flags", "said", "doubts"), ("flag", "doubt")


def template(node: ast.AST, module: types.ModuleType) -> str:
    """A message as the code builds it, with "..." for what it fills in; empty: no message."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "..." for p in node.values)
        return "".join(str(part) for part in parts)
    if isinstance(node, ast.Name):
        value = getattr(module, node.id, "")
        return str(value) if isinstance(value, str) else ""
    return ""


def flags_in_code() -> set[str]:
    """All flags that the library can say, read from its sources."""
    found: set[str] = set()
    for path in sorted((ROOT / "HideSeekSeg" / "hideseekseg" / "anatomy").glob("*.py")):
        name = f"anatomy.{path.stem}"
        module = importlib.import_module(f"hideseekseg.{name}")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name in FLAG_FUNCTIONS.get(name, ()):
                statements = [s for s in node.body if not isinstance(s, ast.Expr)]
                inner = [n for s in statements for n in ast.walk(s)]
                keys = {id(n.slice) for n in inner if isinstance(n, ast.Subscript)}
                keys |= {id(k) for n in inner if isinstance(n, ast.Dict) for k in n.keys}
                keys |= {id(v) for n in inner if isinstance(n, ast.JoinedStr) for v in n.values}
                found |= {template(n, module) for n in inner if id(n) not in keys}
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in NAMES_OF_FLAGS:
                either = node.value
                parts = [either.body, either.orelse] if isinstance(either, ast.IfExp) else [either]
                found |= {template(part, module) for part in parts}
            if isinstance(node, ast.keyword) and node.arg in NAMES_OF_FLAGS:
                found.add(template(node.value, module))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value).partition("[")[0]
                if node.func.attr == "append" and owner in LISTS_OF_FLAGS:
                    found.add(template(node.args[0], module))
    for name, constants in FLAG_CONSTANTS.items():
        module = importlib.import_module(f"hideseekseg.{name}")
        found |= {str(getattr(getattr(module, c), "value", getattr(module, c))) for c in constants}
    return {text for text in found if len(re.findall(r"[a-z]{2,}", text)) > 1}


def explained_flags() -> list[str]:
    """The flags in the first columns of the guide's tables; measures stand in italics there."""
    text = (ROOT / "Resources" / "Docs" / "flags.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    flags = [flag.strip() for row in rows if row != "flag" for flag in row.split(";")]
    return [flag for flag in flags if not flag.startswith("*")]


def fits(flag: str, said: str) -> bool:
    return re.search(".*".join(map(re.escape, flag.split("..."))), said) is not None


def test_guide_explains_every_flag_and_no_other() -> None:
    said, explained = flags_in_code(), explained_flags()
    assert len(said) > 20
    assert [text for text in sorted(said) if not any(fits(f, text) for f in explained)] == []
    dead = [flag for flag in explained if not any(fits(flag, text) for text in said)]
    assert dead == []
