"""List the files of Slicer's package in HideSeekSeg/CMakeLists.txt.

    python3 .ci/package_files.py

Slicer's macro fails on a listed file that is missing and silently leaves out what is not listed, so
the lists are written by this script and compared by a test.  What only research and the browser
need stays out, but for what the embedded example is drawn with.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

MODULE = Path(__file__).resolve().parents[1] / "HideSeekSeg"
LIBRARY = MODULE / "hideseekseg"
LISTS = MODULE / "CMakeLists.txt"
SUFFIXES = (".py", ".json", ".safetensors", ".ui", ".png", ".svg", ".typed")
RESEARCH = ("web", "simulation", "training", "benchmark", "cohort", "pacs")


def packaged_files() -> tuple[list[str], list[str]]:
    """Return the Python files and the resources to package, relative to the module's folder."""
    files = {
        path
        for path in MODULE.rglob("*")
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts and not _research(path)
    }
    # The command line imports its research commands when they are run: it may lack them.
    scripts = {path for path in files if path.suffix == ".py"}
    todo = [path for path in scripts if LIBRARY / "cli" not in path.parents]
    while todo:
        new = _imported_files(todo.pop()) - files
        files |= new
        todo += new
    names = sorted(path.relative_to(MODULE).as_posix() for path in files)
    python = [name for name in names if name.endswith(".py")]
    return python, [name for name in names if not name.endswith(".py")]


def _research(path: Path) -> bool:
    return any(LIBRARY / room in path.parents for room in RESEARCH)


def _imported_files(path: Path) -> set[Path]:
    """Return the module's files that a file imports anywhere, and the packages they lie in."""
    found = set()
    inside = path.relative_to(MODULE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = inside[: len(inside) - node.level + 1] if node.level else ()
        module = [*base, *(node.module.split(".") if node.module else [])]
        for name in (module, *([*module, alias.name] for alias in node.names)):
            stem = MODULE.joinpath(*name)
            for file in (stem.with_suffix(".py"), stem / "__init__.py"):
                if file.is_file():
                    packages = (parent / "__init__.py" for parent in file.parents)
                    found |= {file, *(f for f in packages if f.is_file() and MODULE in f.parents)}
    return found


def listed_files(name: str) -> list[str]:
    """Return the files that ``set(name ...)`` of the module's CMakeLists.txt lists."""
    block = re.search(rf"set\({name}\b(.*?)\)", LISTS.read_text("utf-8"), re.DOTALL)
    assert block is not None
    return block[1].split()


def main() -> None:
    """Write the lists of packaged files into the module's CMake file."""
    text = LISTS.read_text("utf-8")
    for name, files in zip(("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"), packaged_files()):
        block = "".join(f"\n  {file}" for file in files)
        text = re.sub(rf"set\({name}\b.*?\)", f"set({name}{block}\n  )", text, flags=re.DOTALL)
    LISTS.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
