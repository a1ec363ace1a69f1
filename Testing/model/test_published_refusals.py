"""Files that are not the published ones, damaged or hostile, are refused and leave nothing."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from helpers.models import TINY
from helpers.pickles import Call, fitted, with_coef
from helpers.published import FILES, hollow, write_checkpoint, write_classifier
from hideseekseg.cli.main import main
from hideseekseg.model.published import importer as published

CHECKPOINT, CLASSIFIER, SCALER = FILES
BIAS = "out.2.bias"  # the smallest tensor of the autoencoder

Damage = Callable[[Path], object]


@pytest.fixture(scope="session")
def hollow_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three files, right in all but the weights, which are all one number."""
    folder = tmp_path_factory.mktemp("hollow")
    write_checkpoint(folder / CHECKPOINT, hollow())
    ones = np.ones(512)
    write_classifier(folder, {"coef": ones, "intercept": ones[:1], "mean": ones, "scale": ones})
    return folder


@pytest.fixture
def files(hollow_files: Path, tmp_path: Path) -> Path:
    """Copies that a test may damage."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes((hollow_files / name).read_bytes())
    return folder


def words(files: Path, out: Path) -> list[str]:
    return ["import-published", *(str(files / name) for name in FILES), "--out", str(out)]


def assert_refused(files: Path, name: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, one line that names the file and the reason, and no folder."""
    out = files.parent / "made" / "weights"
    assert main(words(files, out)) == 2
    said, line = capfd.readouterr()
    assert said == ""
    assert line.startswith(f"hideseekseg: {files / name}: ")
    assert reason in line
    assert line.count("\n") == 1
    assert len(line) < 500
    assert not out.parent.exists()


def bytes_of(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def saved(content: object, **settings: Any) -> Damage:
    return lambda path: torch.save(content, path, **settings)


def named(prefix: str) -> Damage:
    """A checkpoint whose tensors have another prefix."""
    return lambda path: torch.save(
        {"state_dict": {prefix + name: tensor for name, tensor in hollow().items()}}, path
    )


def with_tensors(**changes: Any) -> Damage:
    """The averaged tensors with some replaced, or left out where None."""

    def damage(path: Path) -> None:
        tensors = {**hollow(), **{name.replace("__", "."): t for name, t in changes.items()}}
        kept = {f"ema_model.{name}": t for name, t in tensors.items() if t is not None}
        torch.save({"state_dict": kept}, path)

    return damage


def with_member(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> Damage:
    def damage(path: Path) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, content, compression)

    return damage


def overlapping(path: Path) -> None:
    """A bomb without compression: a thousand members that are the same bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("last/data/9000", bytes(1 << 16))
        for number in range(9001, 10_000):
            member = copy.copy(archive.getinfo("last/data/9000"))
            member.filename = f"last/data/{number}"
            archive.filelist.append(member)


def exaggerating(path: Path) -> None:
    """A member that declares more bytes than it has."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("last/data/9000", b"x")
        archive.getinfo("last/data/9000").file_size = 1 << 31


CHECKPOINTS: dict[str, tuple[Damage, str]] = {
    "missing": (Path.unlink, "No such file"),
    "empty": (bytes_of(b""), "not a PyTorch checkpoint"),
    "words": (bytes_of(b"these are no weights"), "not a PyTorch checkpoint"),
    "half": (cut, "cut short"),
    "old format": (
        saved({"state_dict": {}}, _use_new_zipfile_serialization=False),
        "not a PyTorch checkpoint",
    ),
    "deflated bomb": (
        with_member("last/data/9000", bytes(1 << 27), zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "overlapping bomb": (overlapping, "would unpack"),
    "exaggerated size": (exaggerating, "is compressed"),
    "endless structure": (with_member("x/data.pkl", bytes((1 << 24) + 1)), "describes its tensors"),
    "program": (with_member("last/code/__torch__.py", b"import os"), "__torch__.py', unknown in"),
    "program's constants": (with_member("last/constants.pkl", b"\x80\x02]."), "unknown in a"),
    "list": (saved([1, 2]), "a single value"),
    "no state": (saved({"model": {}}), "no 'state_dict'"),
    "odd names": (saved({"state_dict": {1: torch.zeros(1)}}), "no 'state_dict'"),
    "another model": (saved({"state_dict": {"conv.weight": torch.zeros(3)}}), "another model's"),
    "raw weights alone": (named("model."), "another model's"),
    "no prefix": (named(""), "another model's"),
    "longer prefix": (named("net.ema_model."), "another model's"),
    "other widths": (lambda path: write_checkpoint(path, hollow(TINY)), "has shape"),
    "missing tensor": (with_tensors(out__2__bias=None), f"lacks the tensor '{BIAS}'"),
    "extra tensor": (with_tensors(extra=torch.zeros(1)), "contains 'extra', unknown"),
    "endless name": (with_tensors(**{"x" * 9999: torch.zeros(1)}), "contains 'xxx"),
    "other shape": (with_tensors(out__2__bias=torch.zeros(2)), "has shape (2,) instead of (1,)"),
    "integers": (with_tensors(out__2__bias=torch.zeros(1).int()), "not a numeric tensor"),
    "no tensor": (with_tensors(out__2__bias="text"), "not a numeric tensor"),
    "sparse": (with_tensors(out__2__bias=torch.ones(1).to_sparse()), "not finite"),
    "NaN": (with_tensors(out__2__bias=torch.full((1,), float("nan"))), "not finite"),
    "infinite": (with_tensors(out__2__bias=torch.full((1,), float("inf"))), "not finite"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_other_checkpoint_is_refused(
    name: str, files: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage, reason = CHECKPOINTS[name]
    damage(files / CHECKPOINT)
    assert_refused(files, CHECKPOINT, reason, capfd)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["alone", "beside the weights", "in their place"])
def test_checkpoint_that_would_run_a_command_is_refused(
    where: str, zipped: bool, files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same file makes a folder when it is loaded without care."""
    folder, path = tmp_path / "ran", files / CHECKPOINT
    call: Any = Call(os.mkdir, str(folder))
    weights = {f"ema_model.{name}": tensor for name, tensor in hollow().items()}
    content = {
        "alone": call,
        "beside the weights": {"state_dict": weights, "callbacks": call},
        "in their place": {"state_dict": {**weights, f"ema_model.{BIAS}": call}},
    }[where]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_refused(files, CHECKPOINT, "mkdir" if zipped else "not a PyTorch checkpoint", capfd)
    assert not folder.exists()
    with suppress(Exception):
        torch.load(path, weights_only=False)
    assert folder.exists()


def test_old_torch_is_not_trusted_with_a_checkpoint(
    files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    assert published.SAFE_TORCH == (2, 10)
    assert_refused(files, CHECKPOINT, "torch 2.10 or newer only, this is 2.9.1+cpu", capfd)


def estimators(**changes: Any) -> tuple[LogisticRegression, StandardScaler]:
    """A sound pair with attributes of either replaced, or deleted where None."""
    pair = fitted(512)
    for name, value in changes.items():
        owner = next(e for e in pair if hasattr(e, name) or name == "multi_class")
        if value is None:
            delattr(owner, name)
        else:
            setattr(owner, name, value)
    return pair


def with_nan(length: int) -> np.ndarray:
    values = np.ones(length)
    values[7] = np.nan
    return values


PICKLES: dict[str, tuple[str, object, str]] = {
    "swapped": (CLASSIFIER, fitted(512)[1], "contains a StandardScaler where a LogisticRegression"),
    "another classifier's scaler": (SCALER, fitted(8)[1], "'mean_' has shape (8,) instead of"),
    "another latent": (CLASSIFIER, fitted(8)[0], "'coef_' has shape (1, 8) instead of (1, 512)"),
    "another scaler": (SCALER, MinMaxScaler(), "names sklearn.preprocessing._data.MinMaxScaler"),
    "unfitted": (CLASSIFIER, LogisticRegression(), "lacks the array 'coef_'"),
    "no scale": (SCALER, estimators(scale_=None)[1], "lacks the array 'scale_'"),
    "NaN": (
        SCALER,
        estimators(mean_=with_nan(512))[1],
        "'mean_' contains values that are not finite",
    ),
    "infinite": (CLASSIFIER, estimators(intercept_=np.array([np.inf]))[0], "'intercept_' contains"),
    "zero scale": (SCALER, estimators(scale_=np.zeros(512))[1], "not positive"),
    "zero classifier": (CLASSIFIER, estimators(coef_=np.zeros((1, 512)))[0], "all zero"),
    "other classes": (CLASSIFIER, estimators(classes_=np.array([1, 2]))[0], "does not tell 1"),
    "softmax": (CLASSIFIER, estimators(multi_class="multinomial")[0], "does not tell 1"),
    "not centred": (SCALER, estimators(with_mean=False)[1], "does not standardise"),
    "objects": (CLASSIFIER, with_coef(np.array([None])), "other than numbers"),
    "numbers alone": (SCALER, np.ones(512), "contains no LogisticRegression"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_other_pickle_is_refused(name: str, files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, estimator, reason = PICKLES[name]
    joblib.dump(estimator, files / file)
    assert_refused(files, file, reason, capfd)


@pytest.mark.parametrize("file", [CLASSIFIER, SCALER])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, "No such file"),
        (cut, "truncated"),
        (bytes_of(b""), "protocol 2 to 5"),
        (bytes_of(b"\x80\x04" + bytes(1 << 21)), "larger"),
        (lambda path: path.write_bytes(pickle.dumps(Call(os.getcwd))), "never called"),
    ],
)
def test_damaged_pickle_is_refused(
    file: str, damage: Damage, reason: str, files: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(files / file)
    assert_refused(files, file, reason, capfd)


def test_folder_in_use_is_left_alone(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = files.parent / "weights"
    out.mkdir()
    (out / "mine").write_text("kept")
    assert main(words(files, out)) == 2
    assert f"{out}: is not an empty folder" in capfd.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX's")
def test_full_disk_leaves_nothing(files: Path) -> None:
    """In a process of its own, whose files may not grow."""
    import resource

    out = files.parent / "made" / "weights"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        [sys.executable, "-m", "hideseekseg", *words(files, out)],
        cwd=Path(__file__).resolve().parents[2] / "HideSeekSeg",
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert f"{out}: cannot be written" in done.stderr
    assert not out.parent.exists()
