"""Whether PyTorch is missing, broken or too old is seen from outside, and said with what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from desktop import Desktop


def install(folder: Path, name: str, version: str, code: str | None = "") -> None:
    """A package as pip leaves it: its metadata, and its files unless ``code`` is None."""
    data = folder / f"{name}-{version}.dist-info"
    data.mkdir(parents=True)
    (data / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if code is not None:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code, "utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, desktop: Desktop) -> Path:
    """A place for packages, in which alone installed ones are looked for."""
    import HideSeekSegLib.pytorch_check  # noqa: F401  (cannot be found afterwards)

    folder = tmp_path / "site"
    for name, version in (("numpy", "2.4.6"), ("safetensors", "0.8.0"), ("matplotlib", "3.11.2")):
        install(folder, name, version)
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


def make() -> Any:
    from HideSeekSegLib.pytorch_check import PyTorchCheck

    return PyTorchCheck(sys.executable)


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        ("2.13.0+cpu", "", ""),
        ("2.3", "", ""),
        ("2.2.2", "", "cannot work with NumPy 2, 2.3 or newer"),
        ("1.13.1", "", "1.13.1 is too old, 2.2 or newer is needed. Open the module PyTorch Utils"),
        ("2.13.0", None, "damaged: its files are not there. Open the module PyTorch Utils"),
    ],
)
def test_version_is_judged(site: Path, version: str, code: str | None, said: str) -> None:
    install(site, "torch", version, code)
    torch = make()
    assert torch.ready() is (said == "")
    assert said in torch.problem()


def test_missing_packages_are_named(site: Path) -> None:
    assert make().problem() == "PyTorch is not installed in this Slicer yet."
    install(site, "torch", "2.13.0")
    for name in ("safetensors-0.8.0", "matplotlib-3.11.2"):
        (site / f"{name}.dist-info" / "METADATA").unlink()
        (site / f"{name}.dist-info").rmdir()
    assert make().problem() == "safetensors and matplotlib must be installed first."


def test_nothing_is_installed_without_a_yes(site: Path, desktop: Desktop) -> None:
    desktop.answers.append(False)
    assert make().install() == "PyTorch is not installed in this Slicer yet."
    assert "3 GB" in desktop.messages[0]


def test_without_the_extension_it_says_where_to_get_it(site: Path, desktop: Desktop) -> None:
    assert "Install the extension PyTorch with the Extensions Manager" in make().install()


EXTENSION = """
import pathlib
class PyTorchUtilsLogic:
    def installTorch({words}):
        {check}
        folder = pathlib.Path(__file__).parent
        (folder / "torch").mkdir()
        (folder / "torch" / "__init__.py").touch()
        (folder / "torch-2.13.0.dist-info").mkdir()
        (folder / "torch-2.13.0.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\\nName: torch\\nVersion: 2.13.0\\n")
"""


@pytest.mark.parametrize(
    ("words", "check"),
    [
        ("self", ""),
        ("self, confirm=True", "assert not confirm"),
        (
            "self, askConfirmation=False, forceComputationBackend=None,"
            " torchVersionRequirement=None, torchvisionVersionRequirement=None",
            "assert not askConfirmation and torchVersionRequirement == '>=2.2'",
        ),
    ],
)
def test_every_version_of_the_extension_is_understood(
    site: Path, desktop: Desktop, monkeypatch: pytest.MonkeyPatch, words: str, check: str
) -> None:
    (site / "PyTorchUtils.py").write_text(EXTENSION.format(words=words, check=check), "utf-8")
    monkeypatch.delitem(sys.modules, "PyTorchUtils", raising=False)
    torch = make()
    assert torch.install() == ""
    assert torch.ready()
    monkeypatch.delitem(sys.modules, "PyTorchUtils")


def test_failed_installation_names_the_cause(
    site: Path, desktop: Desktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = EXTENSION.format(words="self", check="raise RuntimeError('no route to host')")
    (site / "PyTorchUtils.py").write_text(text, "utf-8")
    monkeypatch.delitem(sys.modules, "PyTorchUtils", raising=False)
    assert "The installation failed: no route to host." in make().install()
    monkeypatch.delitem(sys.modules, "PyTorchUtils")


def test_device_and_reason_come_from_a_process(desktop: Desktop) -> None:
    told: list[int] = []
    torch = make()
    torch.look(lambda: told.append(1))
    assert torch.device("auto") == ""
    desktop.wait(lambda: told, 60)
    assert torch.line("auto").startswith(f"Runs on {torch.device('auto')}: torch ")
    assert torch.line("cuda") == "Runs on cuda: chosen by the user."


def test_torch_that_cannot_be_loaded(
    desktop: Desktop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a driver or a library of the system is missing: the process says it."""
    code = "raise ImportError('DLL load failed while importing _C')"
    install(tmp_path, "torch", "2.13.0", code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told: list[int] = []
    torch = make()
    torch.look(lambda: told.append(1))
    desktop.wait(lambda: told, 60)
    assert not torch.ready()
    assert "cannot be used (ImportError: DLL load failed" in torch.line("auto")
    assert "Open the module PyTorch Utils" in torch.problem()


def test_python_that_cannot_be_started(desktop: Desktop, tmp_path: Path) -> None:
    from HideSeekSegLib.pytorch_check import PyTorchCheck

    told: list[int] = []
    torch = PyTorchCheck(str(tmp_path / "nothing"))
    torch.look(lambda: told.append(1))
    desktop.wait(lambda: told, 10)
    assert not torch.ready()
    assert "PyTorch is installed but cannot be used (" in torch.problem()
