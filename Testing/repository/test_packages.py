"""The two packages, away from the repository: the wheel in a fresh environment, Slicer's files.

The fresh environment reads the heavy dependencies from the environment of the tests by a ``.pth``
file: nothing is downloaded, and an editable installation there is not seen, as Python follows no
``.pth`` file in such a folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from helpers import app

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "HideSeekSeg"
sys.path.insert(0, str(ROOT / ".ci"))
import package_files  # noqa: E402

SCRIPTS = "Scripts" if os.name == "nt" else "bin"
EXAMPLE = ("example/ct.nii.gz", "example/vertebrae.nii.gz", "--labels", "totalsegmentator")
RESULTS = {"candidates.csv", "candidates.json", "lesions.seg.nrrd", "overview.png"}
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(folder: Path, *words: object, status: int = 0, library: Path | None = None) -> str:
    """Run a program in a folder, with ``library`` alone on its path; return what it printed."""
    path = {} if library is None else {"PYTHONPATH": str(library)}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**CLEAN, "OMP_NUM_THREADS": "1", **path},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy: setuptools writes into the folder that it builds from."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    compiled = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(MODULE, folder / "HideSeekSeg", ignore=compiled)
    own = ("--no-deps", "--no-index", "--no-build-isolation")
    run(folder, sys.executable, "-m", "pip", "wheel", *own, "--wheel-dir", "dist", ".")
    (built,) = (folder / "dist").iterdir()
    return built


def fresh_environment(folder: Path, python: str, wheel: Path) -> Path:
    """Install the wheel beside what ``python`` has installed; return the new Python."""
    run(folder, python, "-m", "venv", "--without-pip", "fresh")
    fresh = folder / "fresh" / SCRIPTS / ("python.exe" if os.name == "nt" else "python")
    own = ("--python", fresh, "install", "--no-deps", "--no-index")
    run(folder, sys.executable, "-m", "pip", *own, wheel)
    find = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    heavy, site = (Path(run(folder, one, "-c", find).strip()) for one in (python, fresh))
    (site / "heavy.pth").write_text(f"{heavy}\n", "utf-8")
    where = run(folder, fresh, "-c", "import hideseekseg; print(hideseekseg.__file__)")
    assert Path(where.strip()) == site / "hideseekseg" / "__init__.py"
    return fresh


def test_wheel_has_the_library_with_all_its_files_and_not_the_panel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    library = package_files.LIBRARY
    here = {
        path.relative_to(MODULE).as_posix()
        for path in library.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == here
    assert {"hideseekseg/py.typed", "hideseekseg/web/static/page.html"} <= names
    icon = MODULE / "Resources" / "Icons" / "HideSeekSeg.png"
    assert (library / "web" / "static" / "icon.png").read_bytes() == icon.read_bytes()


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, beside what that of the tests has."""
    return fresh_environment(tmp_path_factory.mktemp("environment"), sys.executable, wheel)


@pytest.mark.slow
def test_wheel_runs_in_a_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    command = fresh.with_name("hideseekseg" + fresh.suffix)
    run(tmp_path, command, "example", "--out", "example")
    printed = run(tmp_path, command, "segment", *EXAMPLE, "--levels", "T12", "--out", "result")
    assert "T12" in printed and "lytic" in printed
    assert {path.name for path in (tmp_path / "result").iterdir()} == RESULTS


def review_in_the_browser(tab: Any, out: Path) -> None:
    """What came after the first version: evidence, lists, tools, verdicts, saving."""
    tab.choose("L1", "blastic")
    tab.page.wait_for_selector("#strip img", timeout=app.PATIENCE)
    assert "with this one alone hidden" in tab.text("#detail")
    tab.page.click("#tab-vertebrae")
    tab.page.wait_for_selector("#vertebrae-list tbody tr", state="visible")
    assert tab.page.locator("#vertebrae-list tbody tr").count() == 5
    tab.page.click("#tab-burden")
    tab.page.wait_for_selector("#burden tbody tr", state="visible")
    tab.page.click("#tab-findings")
    for tool in ("window", "ruler", "crosshair"):
        tab.page.click(f"[data-tool={tool}]")
        tab.until_state("tool", tool)
    tab.page.select_option("#reason", "haemangioma")
    tab.page.wait_for_selector("#candidates tr.rejected", timeout=app.PATIENCE)
    tab.press("u")
    tab.page.wait_for_selector("#candidates tr.rejected", state="detached", timeout=app.PATIENCE)
    tab.press("a")
    tab.page.wait_for_selector("#candidates tr.accepted", timeout=app.PATIENCE)
    tab.page.click("header [data-dialog=save-dialog]")
    tab.page.click("#save-now")
    tab.until_state("unsaved", False)
    tab.page.wait_for_selector(".links a", timeout=app.PATIENCE)
    assert {path.name for path in out.rglob("*")} >= {"accepted.csv", "burden.csv", "review.mrb"}


@pytest.mark.slow
def test_app_of_the_wheel_serves_its_page_and_finds_the_lesions(
    wheel: Path, fresh: Path, tmp_path: Path
) -> None:
    if not app.app_python():
        pytest.skip("trame-slicer is not installed")
    if app.app_python() != sys.executable:
        fresh = fresh_environment(tmp_path, app.app_python(), wheel)
    with app.serve_with(str(fresh), "--out", str(tmp_path / "out"), library=tmp_path) as served:
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"<html" in visitor.open(served.url, timeout=60).read()
        for name in ("page.js", "page.css"):
            page = visitor.open(f"{served.origin}/hideseekseg/{name}", timeout=60).read()
            assert page == (package_files.LIBRARY / "web/static" / name).read_bytes()
        app.need_all()
        with app.browser() as browser:
            tab = app.open_tab(browser, served.url)
            assert tab.page.evaluate(
                "() => document.querySelector('link[rel~=icon]').href"
            ).startswith("data:image/png;base64,")
            tab.page.click("#segment")
            tab.until("() => document.querySelectorAll('#candidates tbody tr').length >= 2")
            tab.page.wait_for_selector("#segment", timeout=app.PATIENCE)
            assert {" ".join(row[:2]) for row in tab.rows()} >= {"T12 lytic", "L1 blastic"}
            review_in_the_browser(tab, tmp_path / "out")
            assert tab.complaints == []
        served.stop()
        assert served.process.returncode == 0
        assert list(served.private.iterdir()) == []


@pytest.fixture(scope="module")
def slicers_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder HideSeekSeg with the files that CMake packages, and no other."""
    folder = tmp_path_factory.mktemp("slicer") / "HideSeekSeg"
    for kind in ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"):
        for name in package_files.listed_files(kind):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(MODULE / name, folder / name)
    return folder


def test_segment_runs_in_slicers_package(
    slicers_package: Path, tiny_weights: Path, box_files: tuple[Path, Path], tmp_path: Path
) -> None:
    library = slicers_package
    words = ("-m", "hideseekseg", "segment", *box_files, "--labels", "totalsegmentator")
    run(
        tmp_path,
        sys.executable,
        *words,
        "--weights",
        tiny_weights,
        "--out",
        "result",
        library=library,
    )
    assert {path.name for path in (tmp_path / "result").iterdir()} == RESULTS
    code = "import hideseekseg; print(hideseekseg.__file__)"
    assert str(library) in run(tmp_path, sys.executable, "-c", code, library=library)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "slices", "--out", "weights"),
        ("simulate", "sources.csv", "--data", ".", "--out", "slices"),
        ("check", "manifest.csv"),
        ("benchmark", "review"),
        ("app",),
        ("pacs", "find", "--archive", "archive.json", "--patient", "1"),
    ],
    ids=lambda words: words[0],
)
def test_command_that_slicers_package_lacks_is_refused_in_one_line(
    slicers_package: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    command = (sys.executable, "-m", "hideseekseg", *words)
    printed = run(tmp_path, *command, status=2, library=slicers_package)
    assert printed.count("\n") == 1
    assert f"{words[0]}: is not part of this installation" in printed
    assert "pip install" in printed


@pytest.mark.slow
def test_module_passes_its_self_test_in_slicers_package(
    slicers_package: Path, tmp_path: Path
) -> None:
    """Test the module as Slicer opens it, beside the packaged files alone."""
    shutil.copytree(slicers_package, tmp_path / "HideSeekSeg")
    tests = tmp_path / "Testing"
    for name in ("conftest.py", "helpers", "desktop", "panel/test_module.py"):
        (tests / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / "Testing" / name).is_dir() else shutil.copy
        copy(ROOT / "Testing" / name, tests / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    pytest.importorskip("slicer.util", reason="slicer-core is not installed")
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6-Essentials is not installed")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "Testing/panel/test_module.py")
    chosen = "stand-ins and (test_self_test_passes or test_single_vertebrae)"
    assert "2 passed" in run(tmp_path, sys.executable, *words, "-k", chosen)
