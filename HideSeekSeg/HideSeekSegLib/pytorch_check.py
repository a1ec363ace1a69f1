"""Whether PyTorch is there and good enough, on which device it will run, and how to get it.

torch is never imported into Slicer's own process: it takes seconds, may fail, and could not be
replaced any more. Its version is read from its metadata, and a process of its own tries it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.errors import InputError

from .qt_process import findPython, makeProcess

LEAST = "2.2"
LEAST_NUMPY_2 = "2.3"  # the first that works with NumPy 2, which Slicer has
# Small packages that Slicer does not bring: weights are read with one, pictures drawn by the other.
PACKAGES = {"safetensors": "0.4", "matplotlib": "3.7"}
TRY = (
    "import json; from hideseekseg.model.weights import choose_device;"
    " device, why = choose_device(); print(json.dumps([str(device), why]))"
)
GET_EXTENSION = _(
    "PyTorch is needed. Install the extension PyTorch with the Extensions Manager, restart Slicer"
    " and try again."
)


class PyTorchCheck:
    """What is known of PyTorch in this Slicer; ``program`` replaces Slicer's Python in tests."""

    def __init__(self, program: str = "") -> None:
        self._program = program
        self._found: tuple[str, str] | None = None
        self._broken = ""
        self._process: Any = None
        self._told: Callable[[], None] = lambda: None

    def problem(self) -> str:
        """Return why nothing can be computed and what to do, one line; empty where all is there."""
        return missing() or self._broken

    def ready(self) -> bool:
        return not self.problem()

    @property
    def looking(self) -> bool:
        """Return whether torch is being tried."""
        return self._process is not None

    def device(self, choice: str) -> str:
        """Return torch's name of the device that a choice means; empty while that is not known."""
        return choice if choice != "auto" else self._found[0] if self._found else ""

    def line(self, choice: str) -> str:
        """For the panel: the device and why it is this one, or what is wrong."""
        if not self.ready():
            return self.problem()
        if choice != "auto":
            return runs_on(choice, _("chosen by the user"))
        if self._found is not None:
            return runs_on(*self._found)
        return _("Looking for a GPU…") if self._process else _("Device: automatic.")

    def look(self, told: Callable[[], None]) -> None:
        """Try torch in a process of its own; ``told`` is called when that is over."""
        if self._process is not None or self._found is not None or missing():
            return
        try:
            program = self._program or findPython()
        except InputError:
            return  # said when a run is started
        self._told, self._process = told, makeProcess()
        self._process.connect("finished(int,QProcess::ExitStatus)", self._looked)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process.start(program, ["-c", TRY])

    def stop(self) -> None:
        """Do not wait for it any longer."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.waitForFinished(1000)
            process.deleteLater()

    def _failed(self, error: Any) -> None:
        """Handle a start that failed; after any other error, ``finished`` follows."""
        process = self._process
        if process is not None and error == qt.QProcess.FailedToStart:
            self._process, self._broken = None, broken(process.errorString())
            process.deleteLater()
            self._told()

    def _looked(self, code: int, _status: Any = None) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        lines = bytes(process.readAllStandardOutput().data()).decode("utf-8", "replace").split("\n")
        errors = bytes(process.readAllStandardError().data()).decode("utf-8", "replace")
        found = next((line for line in reversed(lines) if line.startswith("[")), "")
        self._broken = "" if code == 0 and found else broken(errors)
        if not self._broken:
            self._found = tuple(json.loads(found))
        process.deleteLater()
        self._told()

    def install(self) -> str:
        """Get what is missing, after asking; what is still wrong, or empty.

        It blocks until the installation is over, which can take many minutes.
        """
        self._found, self._broken = None, ""
        if not missing():
            return ""
        if version("torch") and _torch_problem():
            return _torch_problem()  # replacing what may be in use is the PyTorch extension's work
        question = _("Download two small packages and install them into this Slicer?")
        if not version("torch"):
            question = _(
                "Download PyTorch and two small packages and install them into this Slicer (up to"
                " 3 GB, many minutes)?"
            )
        try:
            if not slicer.util.confirmOkCancelDisplay(question, windowTitle="HideSeekSeg"):
                return missing()
            with slicer.util.WaitCursor():
                _install()
        except ImportError:
            return GET_EXTENSION
        except Exception as error:  # pip fails in many ways
            reason = str(error).strip().splitlines() or [type(error).__name__]
            text = _("The installation failed: {reason}. Is there a network? See the error log.")
            return text.format(reason=reason[-1])
        importlib.invalidate_caches()
        return missing()


def missing() -> str:
    """Return what is missing or too old and what to do, by metadata alone; empty: nothing."""
    lacking = [name for name, least in PACKAGES.items() if _older(version(name), least)]
    if _torch_problem():
        return _torch_problem()
    text = _("{packages} must be installed first.")
    return text.format(packages=_(" and ").join(lacking)) if lacking else ""


def broken(errors: str) -> str:
    """Return what to do where torch is installed and fails, from a process's last lines."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1] if lines else _("no reason was given")
    return _("PyTorch is installed but cannot be used ({reason}).").format(reason=last) + _repair()


def version(package: str) -> str:
    """Return the installed version, empty without one, "0" where its files are missing."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
    there = found.locate_file(f"{package}/__init__.py")
    return (found.version or "0") if bool(there.is_file()) else "0"  # type: ignore[attr-defined]


def _torch_problem() -> str:
    found = version("torch")
    if not found:
        return _("PyTorch is not installed in this Slicer yet.")
    if found == "0":
        return _("PyTorch is damaged: its files are not there.") + _repair()
    if _older(found, LEAST):
        text = _("PyTorch {found} is too old, {least} or newer is needed.")
        return text.format(found=found, least=LEAST) + _repair()
    if _older(found, LEAST_NUMPY_2) and not _older(version("numpy"), "2"):
        text = _(
            "PyTorch {found} cannot work with NumPy 2, {least} or newer is needed, which Macs with"
            " Intel processors do not have."
        )
        return text.format(found=found, least=LEAST_NUMPY_2) + _repair()
    return ""


def runs_on(device: str, reason: str) -> str:
    """Return the device and why it was chosen, as a sentence."""
    return _("Runs on {device}: {reason}.").format(device=device, reason=reason)


def _repair() -> str:
    return " " + _(
        "Open the module PyTorch Utils, uninstall PyTorch, restart Slicer and install it again."
    )


def _older(found: str, least: str) -> bool:
    return _numbers(found) < _numbers(least)


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (2, 13, 0) for 2.13.0+cpu."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(word) for word in match[0].split(".")) if match else ()


def _install() -> None:
    """Install torch and packages; raises ImportError without the PyTorch extension."""
    if not version("torch"):
        logic = importlib.import_module("PyTorchUtils").PyTorchUtilsLogic()
        # Its words have changed over the years; the question was asked already.
        wanted = {
            "askConfirmation": False,
            "confirm": False,
            "torchVersionRequirement": f">={LEAST}",
        }
        known = inspect.signature(logic.installTorch).parameters
        logic.installTorch(**{name: value for name, value in wanted.items() if name in known})
    lacking = [f"{n}>={least}" for n, least in PACKAGES.items() if _older(version(n), least)]
    if lacking:
        slicer.util.pip_install(lacking)
