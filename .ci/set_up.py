"""Make a virtual environment: the one of `make demo` and `make test`, or that of `make app`.

    python3 .ci/set_up.py VENV STAMP [EXTRAS]

Installs the package with its test tools, or with other extras, pinned by constraints.txt, and
touches STAMP when all is done.  On a Linux machine without an NVIDIA card torch's CPU build is
taken: the one pip finds by itself would bring gigabytes of CUDA.  Fails with one line; pip's own
words go to VENV/set_up.log.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path("constraints.txt")
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
        """Run the environment's Python; True when it ends well."""
        with self.log.open("a", encoding="utf-8") as log:
            log.write("\n$ python {}\n".format(" ".join(arguments)))
            log.flush()
            done = subprocess.run([str(self.python), *arguments], stdout=log, stderr=log)
        return done.returncode == 0

    def install(self, *what: str, tool: str = "pip") -> None:
        if not self.try_run("-m", *tool.split(), "install", "-c", str(CONSTRAINTS), *what):
            raise SetUpError(
                f"cannot install {what[-1]}: {self.last_error()}"
                f" (is the network there? all that was said: {self.log})"
            )

    def last_error(self) -> str:
        """The first complaint of the command that ran last."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = text[text.rindex("\n$ python") :].splitlines()
        errors = [line for line in lines if re.match(r"\s*error", line, re.IGNORECASE)]
        return (errors or lines[-1:])[0].strip()


def pinned_torch() -> str:
    """The version of torch that constraints.txt names for this machine."""
    intel_mac = sys.platform == "darwin" and platform.machine() == "x86_64"
    pins = re.findall(r"^torch==([\d.]+)(.*)$", CONSTRAINTS.read_text(encoding="utf-8"), re.M)
    return next(version for version, marker in pins if ("== 'x86_64'" in marker) == intel_mac)


def install_torch(environment: Environment) -> None:
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
    print(f"set-up: {line}", flush=True)


def main(folder: str, stamp: str, extras: str = "benchmark,test") -> None:
    if sys.version_info < OLDEST_PYTHON:
        raise SetUpError(
            f"Python 3.10 or newer is needed, this is {platform.python_version()}"
            " (choose another: make PYTHON=python3.12)"
        )
    environment = Environment(Path(folder))
    say(f"making {folder} with Python {platform.python_version()}")
    environment.create()
    install_torch(environment)
    say(f"installing HideSeekSeg ({extras})")
    environment.install("-e", f".[{extras}]")
    Path(stamp).touch()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SetUpError as error:
        sys.exit(f"set-up: {error}")
