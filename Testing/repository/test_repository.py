"""The repository keeps its own rules: lists, floors, pins, and nothing of one machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HideSeekSeg"
LIBRARY = MODULE / "hideseekseg"
PANEL = MODULE / "HideSeekSegLib"
SOURCES = sorted(LIBRARY.rglob("*.py"))

# From the ground up: a room may import from its own floor's room and from lower floors.
FLOORS = (
    ("errors", "events"),
    ("files",),
    ("imaging", "model"),
    ("progress", "findings"),
    ("anatomy", "review", "attribution"),
    ("lesions",),
    ("output",),
    ("simulation", "pipeline", "scene"),
    ("training", "job"),
    ("ui",),
    ("web",),
    ("benchmark",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: n for n, rooms in enumerate(FLOORS) for room in rooms}
TORCH_ROOMS = {"model", "attribution", "training", "benchmark", "pipeline", "job", "cli"}
# What only some rooms may know: the scene knows MRML, the panel (a package of its own) Qt as well.
SLICER_ROOMS = {
    "scene": {"slicer", "vtk"},
    "ui": {"slicer"},
    "web": {"slicer", "vtk"},
    "benchmark": {"slicer", "vtk"},
}
sys.path.insert(0, str(ROOT / ".ci"))
import package_files  # noqa: E402

HIDDEN = re.compile(r"/(work|home|root|opt|tmp)/|[a-z]:\\users", re.IGNORECASE)
REGISTRY = re.compile(r"index-url|find-links|(pypi|pythonhosted|pytorch)\.org", re.IGNORECASE)


def test_cmake_packages_every_file_and_lists_no_missing_one() -> None:
    """Slicer's macro fails on a listed file that is missing and silently leaves out the others."""
    scripts, resources = package_files.packaged_files()
    assert package_files.listed_files("MODULE_PYTHON_SCRIPTS") == scripts
    assert package_files.listed_files("MODULE_PYTHON_RESOURCES") == resources


def test_slicers_package_has_the_product_and_not_the_research() -> None:
    listed = package_files.listed_files("MODULE_PYTHON_SCRIPTS")
    assert {"HideSeekSeg.py", "HideSeekSegLib/widget.py", "hideseekseg/attribution.py"} <= {*listed}
    assert "hideseekseg/simulation/example.py" in listed, "the sample data draws the example"
    for room in ("web", "training", "benchmark"):
        assert not [name for name in listed if name.startswith(f"hideseekseg/{room}/")]


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, relative imports as their room in the library."""
    found = set()
    inside = path.relative_to(LIBRARY).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1]
            tail = node.module.split(".") if node.module else [a.name for a in node.names][:1]
            found.add("." + [*base, *tail][0])
    return found


def room(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(LIBRARY).as_posix())
def test_file_imports_only_from_rooms_below(path: Path) -> None:
    if path.parent == LIBRARY and path.name == "__init__.py":
        return
    own = room(path)
    assert own in FLOOR, "a new room needs a floor"
    for name in imports(path):
        other = name[1:] if name.startswith(".") else ""
        if other and other not in (own, "__version__"):
            assert FLOOR[other] < FLOOR[own], f"{own} imports {other}"
    roots = {name.split(".")[0] for name in imports(path) if not name.startswith(".")}
    foreign = {"slicer", "qt", "ctk", "vtk", "pickle"} - SLICER_ROOMS.get(own, set())
    assert not roots & foreign
    assert "torch" not in roots or own in TORCH_ROOMS


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_path_of_a_machine_and_no_registry_stands_in_a_file() -> None:
    for path in tracked():
        if path.name == Path(__file__).name:
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # pictures and weights
        for pattern in (HIDDEN, REGISTRY):
            hit = pattern.search(text)
            assert hit is None, f"{path.name}: {hit}"


def test_dependencies_are_those_that_the_library_imports() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")

    def names(block: str) -> set[str]:
        found = re.search(rf"^{block} = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
        return set(re.findall(r'"([\w-]+)(?:\[\w+\])?[><=]', found[1])) if found else set()

    imported = {name.split(".")[0] for path in SOURCES for name in imports(path)} - {""}
    foreign = {
        name
        for name in imported - set(sys.stdlib_module_names)
        if name not in ("hideseekseg", "HideSeekSegLib")
    }
    foreign -= {"slicer", "qt", "ctk", "vtk"}  # Slicer brings them: only its rooms may import them
    known = {"skimage": "scikit-image", "PIL": "pillow"}
    trame = ("trame_client", "trame_rca", "trame_server", "trame_slicer")
    known |= {name: name.replace("_", "-") for name in trame}
    asked = names("dependencies") | names("benchmark") | (names("app") - {"slicer-core"})
    assert {known.get(name, name) for name in foreign} == asked


def test_constraints_pin_every_dependency() -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8").lower()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+( ; .*)?", line) for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    project = (ROOT / "pyproject.toml").read_text("utf-8").lower()
    asked = set(re.findall(r'^    "([\w-]+)(?:\[\w+\])?[><=]', project, re.MULTILINE))
    assert asked <= pinned
    assert "+cpu" not in text, "a pin of the CPU build would refuse every other"


def test_ci_runs_the_tests_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    assert script.read_text().splitlines()[-1] == "exec make test"
    assert os.name == "nt" or os.access(script, os.X_OK)


def set_up(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up where no package can be had."""
    alone = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    return subprocess.run(
        [sys.executable, ROOT / ".ci" / "set_up.py", *words],
        cwd=folder,
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
    )


def test_set_up_fails_with_one_line_where_nothing_can_be_installed(tmp_path: Path) -> None:
    for name in ("constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = set_up(tmp_path, "demo", "venv")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert re.match(r"set-up: cannot install (uv|torch==[\d.]+): ", done.stderr)
    assert not list((tmp_path / "venv").glob("ready*"))
    assert (tmp_path / "venv" / "set_up.log").read_text("utf-8").count("$ python") >= 2


@pytest.mark.parametrize("words", [(), ("everything",), ("demo", "venv", "more")])
def test_set_up_refuses_what_it_does_not_know(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = set_up(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "demo" in done.stderr
    assert not list(tmp_path.iterdir())


def test_set_up_refuses_an_old_python(tmp_path: Path) -> None:
    """The check is the first thing that runs, whatever Python reads the file."""
    code = (ROOT / ".ci" / "set_up.py").read_text("utf-8").replace("(3, 10)", "(99, 0)")
    (tmp_path / "set_up.py").write_text(code, "utf-8")
    words = [sys.executable, "set_up.py", "demo", "venv"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Python 3.10 or newer is needed" in done.stderr
    assert not (tmp_path / "venv").exists()
