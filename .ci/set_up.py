"""Make the virtual environment ``.venv``, or add to it what a purpose needs.

    python3 .ci/set_up.py {demo,app,test,slicer-5.12} [VENV]

``demo`` installs the package and what it needs, ``app`` adds the browser app, ``test`` both and the
test tools, pinned by constraints.txt.  ``slicer-5.12`` puts Slicer's newer libraries beside what
``test`` has made, in VENV/slicer-5.12, which takes everything else from VENV.  On a Linux machine
without an NVIDIA card torch's CPU build is taken: the one that pip finds by itself would bring
gigabytes of CUDA.  Touches VENV/ready-PURPOSE at the end, fails with one line; pip's own output
goes to VENV/set_up.log.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONSTRAINTS = Path("constraints.txt")
EXTRAS = {"demo": "", "app": "[app]", "test": "[app,benchmark,cohort,dask,dicom,pacs,test]"}
# slicer-core is published for some machines only: elsewhere the tests that need it are skipped.
WITHOUT_SLICER = "[benchmark,cohort,dask,dicom,pacs,test]"
# The app's trame-slicer is compiled for slicer-core 5.11; Slicer's users have 5.12.
NEWER_SLICER = "slicer-core==5.12.4.0"
NEWER_SLICER_NAME = "slicer-5.12"
PURPOSES = (*EXTRAS, NEWER_SLICER_NAME)
OLDEST_PYTHON = (3, 10)


class SetUpError(Exception):
    """One line for the user."""


class Environment:
    """A virtual environment and the log of what was done to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "set_up.log"
        windows = sys.platform == "win32"
        self.python = folder / ("Scripts/python.exe" if windows else "bin/python")

    def create(self) -> None:
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(self.folder)], capture_output=True, text=True
        )
        if made.returncode:
            raise SetUpError(
                f"cannot make {self.folder}: python -m venv failed"
                " (Debian and Ubuntu: apt install python3-venv)"
            )

    def try_run(self, *arguments: str) -> bool:
        """Run the environment's Python; return whether it ended well."""
        with self.log.open("a", encoding="utf-8") as log:
            log.write("\n$ python {}\n".format(" ".join(arguments)))
            log.flush()
            done = subprocess.run([str(self.python), *arguments], stdout=log, stderr=log)
        return done.returncode == 0

    def install(self, *what: str, tool: str = "pip", pinned: bool = True) -> None:
        pins = ("-c", str(CONSTRAINTS)) if pinned else ()
        # uv compiles nothing by itself.
        words = ["install", "--no-compile"] if tool == "pip" else ["install"]
        if not self.try_run("-m", *tool.split(), *words, *pins, *what):
            raise SetUpError(
                f"cannot install {what[-1]}: {self.last_error()}"
                f" (is there a network? pip's whole output: {self.log})"
            )

    @contextmanager
    def compiled(self, installed: str) -> Iterator[None]:
        """Compile what the block installs; beside it, a package that is there already.

        pip compiles one file after the other before it goes on: half a minute of one core.
        """
        begun = self._compile(self.packages() / installed, 1)
        try:
            yield
        except SetUpError:
            begun.kill()
            raise
        finally:
            begun.wait()
        self._compile(self.packages(), 0).wait()

    def _compile(self, folder: Path, processes: int) -> subprocess.Popen[bytes]:
        """Begin to compile a folder's files; 0 processes: one per core.

        What is compiled is left as it is, and so is what cannot be, as some templates cannot.
        """
        words = ("-m", "compileall", "-qq", "-j", str(processes), str(folder))
        nothing = subprocess.DEVNULL
        return subprocess.Popen([str(self.python), *words], stdout=nothing, stderr=nothing)

    def packages(self) -> Path:
        """Return the folder that packages are installed to."""
        find = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
        found = subprocess.run([str(self.python), "-c", find], capture_output=True, text=True)
        return Path(found.stdout.strip())

    def last_error(self) -> str:
        """Return the first complaint of the command that ran last."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = text[text.rindex("\n$ python") :].splitlines()
        errors = [line for line in lines if re.match(r"\s*error", line, re.IGNORECASE)]
        return (errors or lines[-1:])[0].strip()


def pinned_torch() -> str:
    """Return the version of torch that constraints.txt names for this machine."""
    intel_mac = sys.platform == "darwin" and platform.machine() == "x86_64"
    pins = re.findall(r"^torch==([\d.]+)(.*)$", CONSTRAINTS.read_text(encoding="utf-8"), re.M)
    return next(version for version, marker in pins if ("== 'x86_64'" in marker) == intel_mac)


def install_torch(environment: Environment) -> None:
    """Install the pinned torch: the CPU build where there is no use for another."""
    version = pinned_torch()
    cpu_build = f"torch=={version}+cpu"
    there = f"import torch; assert torch.__version__.split('+')[0] == {version!r}"
    if environment.try_run("-c", there):
        say(f"torch {version} is already there")
    elif environment.try_run(
        "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--dry-run", cpu_build
    ):
        say(f"installing {cpu_build}: pip knows a CPU build")
        environment.install(cpu_build)
    elif sys.platform == "linux" and not shutil.which("nvidia-smi"):
        say(f"installing torch=={version} for the CPU with uv: no NVIDIA card here")
        environment.install("uv")
        target = ("--python", str(environment.python), "--torch-backend=cpu")
        environment.install(*target, f"torch=={version}", tool="uv pip")
    else:
        card = "with CUDA" if sys.platform == "linux" else "the build for this system"
        say(f"installing torch=={version}, {card}")
        environment.install(f"torch=={version}")


def say(line: str) -> None:
    """Print a line of progress."""
    print(f"set-up: {line}", flush=True)


def install_package(environment: Environment, extras: str) -> None:
    """Install this repository, editable, with these extras."""
    say(f"installing HideSeekSeg{extras}")
    environment.install("-e", f".{extras}")


def install_newer_slicer(environment: Environment) -> None:
    """Make an environment inside ``environment`` with another slicer-core and the rest of its own.

    Raises SetUpError where ``environment`` has not what the tests need.
    """
    first = f"{environment.folder} is without slicer-core: make test comes first"
    if not environment.python.is_file():
        raise SetUpError(first)
    vtk = environment.packages().resolve() / "vtkmodules"
    if not vtk.exists():
        raise SetUpError(first)
    newer = Environment(environment.folder / NEWER_SLICER_NAME)
    say(f"installing {NEWER_SLICER} into {newer.folder}")
    newer.create()
    newer.install("--no-deps", NEWER_SLICER, pinned=False)
    # Its libraries look for VTK's beside themselves.
    beside = newer.packages() / vtk.name
    if not beside.exists():
        beside.symlink_to(vtk)
    # Python follows no .pth file in a folder that a .pth file names, so the editable package is
    # not found by this: whoever runs this environment sets PYTHONPATH.
    (newer.packages() / "rest.pth").write_text(f"{vtk.parent}\n", "utf-8")


def install_for_tests(environment: Environment) -> None:
    """Install what the tests need; without Slicer's libraries where there are none."""
    try:
        install_package(environment, EXTRAS["test"])
    except SetUpError as error:
        say(f"{error}: going on without the browser app and Slicer's libraries")
        install_package(environment, WITHOUT_SLICER)


def main(purpose: str, folder: str = ".venv") -> None:
    """Make the environment for a purpose; raise SetUpError where that fails."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetUpError(
            f"Python 3.10 or newer is needed, this is {platform.python_version()}"
            " (choose another: make PYTHON=python3.12)"
        )
    if purpose not in PURPOSES:
        raise SetUpError(f"{purpose!r} is not one of {', '.join(PURPOSES)}")
    environment = Environment(Path(folder))
    if purpose == NEWER_SLICER_NAME:
        install_newer_slicer(environment)
        (environment.folder / f"ready-{purpose}").touch()
        return
    say(f"making {folder} with Python {platform.python_version()}")
    environment.create()
    install_torch(environment)
    with environment.compiled("torch"):
        if purpose == "test":
            install_for_tests(environment)
        else:
            install_package(environment, EXTRAS[purpose])
    (environment.folder / f"ready-{purpose}").touch()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(f"usage: set_up.py {{{','.join(PURPOSES)}}} [VENV]")
    try:
        main(*sys.argv[1:])
    except SetUpError as error:
        sys.exit(f"set-up: {error}")
