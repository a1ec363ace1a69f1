"""The repository keeps its own rules: lists, floors, pins, and nothing of one machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from conftest import LONGEST

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".ci"))
from set_up import Environment, SetUpError  # noqa: E402

MODULE = ROOT / "HideSeekSeg"
LIBRARY = MODULE / "hideseekseg"
PANEL = MODULE / "HideSeekSegLib"
SOURCES = sorted(LIBRARY.rglob("*.py"))

# From the ground up: a room may import from its own floor's room and from lower floors.
FLOORS = (
    ("plain_data",),
    ("errors",),
    ("events", "files"),
    ("unpacking",),
    ("imaging", "model"),
    ("progress", "findings"),
    ("anatomy", "review"),
    ("inputs", "lesions", "side_by_side"),
    ("attribution", "spine"),
    ("output", "confidence"),
    ("simulation", "pipeline", "scene"),
    ("training", "job"),
    ("cohort", "pacs"),
    ("ui",),
    ("web",),
    ("benchmark",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: n for n, rooms in enumerate(FLOORS) for room in rooms}
TORCH_ROOMS = {
    *("model", "attribution", "confidence", "training"),
    *("benchmark", "pipeline", "side_by_side", "job", "cohort", "cli"),
}
# What only some rooms may know: the scene knows MRML, the panel (a package of its own) Qt as well.
SLICER_ROOMS = {
    "scene": {"slicer", "vtk"},
    "ui": {"slicer"},
    "web": {"slicer", "vtk"},
    "benchmark": {"slicer", "vtk"},
}
sys.path.insert(0, str(ROOT / ".ci"))
import package_files  # noqa: E402

posix = pytest.mark.skipif(os.name == "nt", reason="make and sh are not Windows' own")
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
    for room in ("web", "training", "benchmark", "cohort", "pacs"):
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


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(MODULE).with_suffix("").parts)


def needed_first(path: Path, modules: set[str]) -> set[str]:
    """Modules that a file imports at its own scope, before it is ready itself."""
    package = module_name(path).split(".")[:-1]
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join(filter(None, [*base, node.module or ""]))
            found |= {f"{name}.{alias.name}" for alias in node.names} | {name}
    return found & modules


def test_no_file_needs_one_that_needs_it() -> None:
    paths = {module_name(p): p for p in (*SOURCES, *PANEL.glob("*.py")) if p.stem != "__init__"}
    needs = {name: needed_first(path, {*paths}) for name, path in paths.items()}
    assert "hideseekseg.lesions" in needs["hideseekseg.pipeline"], "the imports are understood"
    assert "HideSeekSegLib.status_bar" in needs["HideSeekSegLib.widget"]
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


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


@pytest.mark.parametrize("path", sorted(PANEL.rglob("*.py")), ids=lambda p: p.stem)
def test_panel_imports_what_runs_in_slicer_without_torch(path: Path) -> None:
    found = {
        name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert not {name.split(".")[0] for name in found} & {"torch", "pickle", "trame", "aiohttp"}
    rooms = {name.split(".")[1] for name in found if name.startswith("hideseekseg.")}
    research = {"benchmark", "training", "simulation", "cohort"}
    assert not rooms & {"web", "pipeline", "job", "cli", *research}


def test_library_knows_nothing_of_the_panel() -> None:
    assert len(SOURCES) > 100
    for path in SOURCES:
        assert "HideSeekSegLib" not in {name.split(".")[0] for name in imports(path)}, path


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
    known |= {name: name.replace("_", "-") for name in (*trame, "dicomweb_client")}
    asked = (
        names("dependencies")
        | names("benchmark")
        | names("dicom")
        | names("pacs")
        | names("cohort")
        | names("dask")
    )
    asked |= names("app") - {"slicer-core"}
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


def stand_in(path: Path, log: Path, status: int = 0) -> None:
    """A program that writes how it was called and ends with this status."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> "{log}"\nexit {status}\n')
    path.chmod(0o755)


@posix
@pytest.mark.parametrize("failing", ["", "ruff", "mypy", "pytest"])
def test_make_test_runs_every_check_and_fails_with_each(failing: str, tmp_path: Path) -> None:
    """With real make; the tools are stand-ins that say how they were called, and one that fails."""
    log = tmp_path / "log"
    for name in ("ruff", "mypy", "pytest"):
        stand_in(tmp_path / "venv" / "bin" / name, log, int(name == failing))
    stand_in(tmp_path / "python", log)
    words = ["make", "test", f"VENV={tmp_path / 'venv'}", f"PYTHON={tmp_path / 'python'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == (not failing), done.stderr
    set_up, *called = log.read_text().splitlines()
    assert set_up.startswith("python .ci/set_up.py ")
    if failing in ("", "pytest"):
        assert called[:-1] == ["ruff check .", "ruff format --check .", "mypy "]
        assert called[-1].startswith("pytest ")
        assert not re.search(r" -[mkx]| --(ignore|deselect)|Testing", called[-1]), "tests left out"
    else:
        assert called[-1].split()[0] == failing, "it went on after a failure"


@posix
def test_make_tests_once_more_with_newer_libraries(tmp_path: Path) -> None:
    """Both set-ups, then scene and panel with those libraries, then what the app has saved."""
    log, venv = tmp_path / "log", tmp_path / "venv"
    for path in (venv / "bin" / "pytest", venv / "slicer-5.12" / "bin" / "python"):
        stand_in(path, log)
    stand_in(tmp_path / "set-up", log)
    words = ["make", "test-slicer-5.12", f"VENV={venv}", f"PYTHON={tmp_path / 'set-up'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *set_ups, inside, outside = log.read_text().splitlines()
    purposes = [line.split()[2] for line in set_ups]
    assert purposes == ["test", "slicer-5.12"]
    assert inside.startswith("python -m pytest ") and outside.startswith("pytest ")
    assert outside.endswith(" -k 5.12")
    chosen = re.findall(r"Testing/\S+", f"{inside} {outside}")
    assert "Testing/scene" in chosen and all((ROOT / name).exists() for name in chosen)


@posix
@pytest.mark.parametrize("status", [0, 7])
def test_ci_ends_as_make_test_does_wherever_it_is_called(status: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    stand_in(tmp_path / "bin" / "make", log, status)
    for name in ("chromium", "Orthanc"):  # nothing is installed for this
        stand_in(tmp_path / "bin" / name, log)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([ROOT / ".ci" / "run"], cwd=tmp_path, env={**os.environ, "PATH": path})
    assert done.returncode == status
    expected = ["make test", "make test-slicer-5.12"]
    assert log.read_text().splitlines() == (expected[:1] if status else expected)


def test_workflow_runs_make_test_on_every_python_that_is_supported() -> None:
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8")
    for command in ("make test", "make test-slicer-5.12"):
        assert re.search(rf"^ +- run: {command} ", workflow, re.MULTILINE)
    versions = re.search(r"python: \[(.*)\]", workflow)
    assert versions is not None
    listed = [tuple(int(n) for n in v.split(".")) for v in re.findall(r"[\d.]+", versions[1])]
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', project)
    assert oldest is not None
    assert listed == [(3, minor) for minor in range(int(oldest[1]), 14)]
    for name in re.findall(r"--(?:ignore|constraint)[ =](\S+)", workflow):
        assert (ROOT / name).exists(), name


def test_extension_index_gets_addresses_of_files_that_exist() -> None:
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    values = dict(re.findall(r'set\((\w+) "([^"]*)"\)', text))
    for name in ("EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"):
        for address in values[name].split():
            base, _, path = address.partition("}/")
            assert base == "${REPOSITORY_FILES" and (ROOT / path).is_file(), address
    assert values["EXTENSION_HOMEPAGE"] == "${REPOSITORY}"
    assert {"EXTENSION_CATEGORY", "EXTENSION_DESCRIPTION", "EXTENSION_CONTRIBUTORS"} <= {*values}


def test_citation_and_changes_name_this_version() -> None:
    from hideseekseg import __version__

    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {__version__}\n" in citation
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_files_that_begin_first_are_there() -> None:
    gone = [name for name in LONGEST if not (ROOT / "Testing" / name).is_file()]
    assert not gone and len(set(LONGEST)) == len(LONGEST)


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


def test_newer_libraries_are_refused_without_the_others(tmp_path: Path) -> None:
    done = set_up(tmp_path, "slicer-5.12", "venv")
    assert done.returncode == 1
    assert done.stderr == "set-up: venv is without slicer-core: make test comes first\n"
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


def test_set_up_compiles_what_is_installed_and_minds_no_file_that_cannot_be(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(words, check=True)
    environment = Environment(tmp_path / "venv")
    site = environment.packages()
    (site / "torch").mkdir()
    (site / "torch" / "before.py").write_text("", "utf-8")
    with environment.compiled("torch"):
        for name, text in (("after", ""), ("template", "{{ no Python }}")):
            (site / f"{name}.py").write_text(text, "utf-8")
    assert {path.name.partition(".")[0] for path in site.rglob("*.pyc")} == {"before", "after"}
    with pytest.raises(SetUpError, match="no network"), environment.compiled("torch"):
        raise SetUpError("no network")
