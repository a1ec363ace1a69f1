"""Weights come back as they were stored, and damaged ones say what is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from helpers.models import tiny_images, tiny_model
from hideseekseg.attribution import encode
from hideseekseg.model.profile import Profile
from hideseekseg.model.weights import (
    DeviceError,
    WeightsError,
    choose_device,
    load_model,
    save_model,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny_model()
    save_model(tmp_path / "weights", model.autoencoder, model.classifier, model.profile)
    return tmp_path / "weights"


def change_profile(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "profile.json").read_text())
    change(data)
    (folder / "profile.json").write_text(json.dumps(data))


def rewrite_tensors(
    folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    """Change a tensor file and its hash, so that the change itself is what is found."""
    tensors = safetensors.torch.load((folder / name).read_bytes())
    change(tensors)
    content = safetensors.torch.save(tensors)
    (folder / name).write_bytes(content)
    sha = hashlib.sha256(content).hexdigest()
    change_profile(folder, lambda data: data["files"].update({name: sha}))


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 2e-3)])
def test_a_model_survives_the_disk(tmp_path: Path, half: bool, tolerance: float) -> None:
    model = tiny_model()
    save_model(tmp_path, model.autoencoder, model.classifier, model.profile, half=half)
    loaded = load_model(tmp_path, "cpu")
    assert loaded.profile == model.profile
    assert loaded.device == torch.device("cpu")
    assert {t.dtype for t in loaded.autoencoder.state_dict().values()} == {torch.float32}
    assert not loaded.autoencoder.training
    # The layout that weights with a single shot are loaded in: another adds up in another order.
    model.autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found, expected = encode(tiny_images(), loaded), encode(tiny_images(), model)
    torch.testing.assert_close(found.z, expected.z, atol=10 * tolerance, rtol=tolerance)
    assert torch.equal(loaded.classifier.coef, model.classifier.coef)
    assert loaded.classifier.intercept == model.classifier.intercept


def test_a_folder_holds_three_files_and_no_leftovers(folder: Path) -> None:
    model = tiny_model()
    save_model(folder, model.autoencoder, model.classifier, model.profile)
    assert sorted(f.name for f in folder.iterdir()) == [
        "autoencoder.safetensors",
        "classifier.safetensors",
        "profile.json",
    ]


def test_loaded_weights_stand_for_a_folder_of_the_same_hash_alone(
    folder: Path, tmp_path: Path
) -> None:
    ready = load_model(folder)
    other = tiny_model()
    save_model(
        *(tmp_path / "other", other.autoencoder, other.classifier),
        replace(other.profile, name="of another hospital"),
    )
    again = load_model(folder, "cpu", ready)
    assert again.autoencoder is ready.autoencoder
    assert again.device_reason == "chosen by the user" != ready.device_reason
    assert load_model(tmp_path / "other", "cpu", ready).autoencoder is not ready.autoencoder
    change_profile(folder, lambda data: data["decision"].update(threshold=0.123))
    changed = load_model(folder, "cpu", ready)
    assert changed.profile.decision.threshold == 0.123
    assert changed.autoencoder is not ready.autoencoder


def test_the_hash_tells_weights_and_settings_apart(folder: Path, tmp_path: Path) -> None:
    model, first = tiny_model(), load_model(folder, "cpu").hash

    def saved(profile: Profile, intercept: float) -> str:
        classifier = replace(model.classifier, intercept=intercept)
        return save_model(tmp_path / "other", model.autoencoder, classifier, profile)

    same = saved(model.profile, model.classifier.intercept)
    assert same == first == load_model(tmp_path / "other", "cpu").hash
    hashes = {
        first,
        saved(model.profile, 0.5),
        saved(replace(model.profile, name="other"), model.classifier.intercept),
    }
    assert len(hashes) == 3


def test_line_endings_do_not_change_the_hash(folder: Path) -> None:
    before = load_model(folder, "cpu").hash
    text = (folder / "profile.json").read_text()
    (folder / "profile.json").write_bytes(text.replace("\n", "\r\n").encode())
    assert load_model(folder, "cpu").hash == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no profile": (lambda f: (f / "profile.json").unlink(), "profile.json", "No such file"),
    "no tensors": (
        lambda f: (f / "autoencoder.safetensors").unlink(),
        "autoencoder.safetensors",
        "No such file",
    ),
    "truncated": (
        lambda f: truncate(f / "autoencoder.safetensors"),
        "autoencoder.safetensors",
        "SHA-256",
    ),
    "one bit": (
        lambda f: flip_a_bit(f / "classifier.safetensors"),
        "classifier.safetensors",
        "SHA-256",
    ),
    "half a profile": (lambda f: truncate(f / "profile.json"), "profile.json", "not valid JSON"),
    "a list": (
        lambda f: (f / "profile.json").write_text("[]"),
        "profile.json",
        "not a JSON object",
    ),
    "no hashes": (
        lambda f: change_profile(f, lambda d: d.pop("files")),
        "profile.json",
        "no SHA-256 of autoencoder.safetensors",
    ),
    "unknown setting": (
        lambda f: change_profile(f, lambda d: d["decision"].update(floor=1)),
        "profile.json",
        "unknown decision setting 'floor'",
    ),
    "unknown choice": (
        lambda f: change_profile(f, lambda d: d["architecture"].update(pooling="median")),
        "profile.json",
        '"median" is not one of mean, evidence',
    ),
    "impossible network": (
        lambda f: change_profile(f, lambda d: d["architecture"].update(channels=1)),
        "profile.json",
        "no possible network",
    ),
    "other widths": (
        lambda f: change_profile(f, lambda d: d["architecture"].update(embedding=20)),
        "autoencoder.safetensors",
        "has shape (16, 16) instead of (16, 20)",
    ),
    "missing tensor": (
        lambda f: rewrite_tensors(f, "autoencoder.safetensors", lambda t: t.pop("out.2.bias")),
        "autoencoder.safetensors",
        "lacks the tensor 'out.2.bias'",
    ),
    "extra tensor": (
        lambda f: rewrite_tensors(
            f, "classifier.safetensors", lambda t: t.update(extra=torch.ones(1))
        ),
        "classifier.safetensors",
        "'extra'",
    ),
    "no scale": (
        lambda f: rewrite_tensors(f, "classifier.safetensors", lambda t: t["scale"].zero_()),
        "classifier.safetensors",
        "scale must be positive",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_with_its_file(folder: Path, damage: str) -> None:
    inflict, file, cause = DAMAGES[damage]
    inflict(folder)
    with pytest.raises(WeightsError) as caught:
        load_model(folder, "cpu")
    said = str(caught.value)
    assert said.startswith(f"{folder / file}: ")
    assert cause in said
    assert "\n" not in said


def test_not_safetensors_is_said(folder: Path) -> None:
    content = b"no tensors at all"
    (folder / "classifier.safetensors").write_bytes(content)
    sha = hashlib.sha256(content).hexdigest()
    change_profile(folder, lambda d: d["files"].update({"classifier.safetensors": sha}))
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_model(folder, "cpu")


def test_the_choice_of_device_is_honoured_or_refused() -> None:
    assert choose_device("cpu") == (torch.device("cpu"), "chosen by the user")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for name, found in there.items():
        if found:
            assert choose_device(name)[0].type == name
        else:
            with pytest.raises(DeviceError, match=name):
                choose_device(name)
    device, reason = choose_device("auto")
    assert device.type == next((name for name, found in there.items() if found), "cpu")
    assert torch.__version__ in reason
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        choose_device("tpu")
