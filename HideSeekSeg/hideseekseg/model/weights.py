"""A set of weights on disk and in memory.

A weights folder holds ``profile.json`` (the profile, and under "files" the SHA-256 of the others),
``autoencoder.safetensors`` and ``classifier.safetensors`` (coef, intercept, mean, scale).  Nothing
in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import DeviceError, ScheduleError, WeightsError
from ..files import atomic, make_folder, open_regular
from .autoencoder import DiffusionAutoencoder
from .classifier import LinearClassifier
from .layers import keep_channels_last
from .profile import (
    BUNDLE,
    PROFILE,
    SCHEDULES,
    Profile,
    Schedule,
    check_schedule,
    profile_hash,
    read_profile,
    to_json,
)

__all__ = [
    "BUNDLE",
    "MULTISTEP_STEPS",
    "Model",
    "choose_device",
    "load_model",
    "multistep",
    "on_cpu",
    "save_model",
    "scheduled",
]

AUTOENCODER = "autoencoder.safetensors"
CLASSIFIER = "classifier.safetensors"
# Chosen by `hideseekseg benchmark speed`: the fewest steps whose edits are those of 250 and 100.
MULTISTEP_STEPS = 14


@dataclass(frozen=True, eq=False)
class Model:
    """Networks ready for use on ``device``, and a sentence saying why it is that device.

    ``hash`` is a SHA-256 that stands for profile, autoencoder and classifier.
    """

    autoencoder: DiffusionAutoencoder
    classifier: LinearClassifier
    profile: Profile
    device: torch.device
    hash: str
    device_reason: str = ""


def load_model(
    folder: str | os.PathLike[str], device: str = "auto", ready: Model | None = None
) -> Model:
    """Read a weights folder, checked against its hashes; tensors become float32.

    ``device`` as in ``choose_device``.  ``ready`` is a model that was loaded before: where it is of
    the same hash and device, it stands for the folder's.  Raises WeightsError naming the file and
    the cause, or DeviceError.
    """
    folder = Path(folder)
    chosen, reason = choose_device(device)
    stored = read_profile(folder)
    if ready is not None and (ready.hash, ready.device) == (stored.hash, chosen):
        return replace(ready, device_reason=reason)
    profile = stored.profile
    tensors = {
        name: _read_tensors(folder / name, stored.files.get(name))
        for name in (AUTOENCODER, CLASSIFIER)
    }
    return Model(
        autoencoder=_autoencoder(folder, profile, tensors[AUTOENCODER]).to(chosen),
        classifier=_classifier(folder, profile, tensors[CLASSIFIER]),
        profile=profile,
        device=chosen,
        hash=stored.hash,
        device_reason=reason,
    )


def save_model(
    folder: str | os.PathLike[str],
    autoencoder: DiffusionAutoencoder,
    classifier: LinearClassifier,
    profile: Profile,
    half: bool = True,
) -> str:
    """Write a weights folder and return its hash; ``half`` stores the autoencoder in float16.

    Every file is written to a temporary name and moved, the profile last: a folder whose writing
    was cut short does not load.  Raises InputError where it cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    dtype = torch.float16 if half else torch.float32
    # Training keeps tensors with channels last, which safetensors does not store.
    stored = {
        name: t.detach().cpu().to(dtype).contiguous()
        for name, t in autoencoder.state_dict().items()
    }
    linear = {
        "coef": classifier.coef,
        "intercept": torch.tensor(classifier.intercept, dtype=torch.float64),
        "mean": classifier.mean,
        "scale": classifier.scale,
    }
    hashes = {
        AUTOENCODER: _write(folder / AUTOENCODER, safetensors.torch.save(stored)),
        CLASSIFIER: _write(folder / CLASSIFIER, safetensors.torch.save(linear)),
    }
    data = json.loads(json.dumps({**to_json(profile), "files": hashes}))
    _write(folder / PROFILE, (json.dumps(data, indent=2) + "\n").encode())
    return profile_hash(data)


def choose_device(name: str = "auto") -> tuple[torch.device, str]:
    """Return the device for "auto", "cpu", "cuda" or "mps", and the reason for it.

    Raises DeviceError where a device asked for by name is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((candidate for candidate, found in there.items() if found), "cpu")
        if name == "cpu":
            return torch.device("cpu"), f"torch {torch.__version__} finds no CUDA or MPS device"
        return torch.device(name), f"torch {torch.__version__} finds {_device_name(name)}"
    if name != "cpu" and name not in there:
        raise DeviceError("device", f"unknown device {name!r}: choose auto, cpu, cuda or mps")
    if not there.get(name, True):
        raise DeviceError(
            "device", f"{name!r} was asked for, but torch {torch.__version__} finds none"
        )
    return torch.device(name), "chosen by the user"


def on_cpu(model: Model) -> Model:
    """Return a copy of the model on the CPU, because its device has too little memory.

    The model stays on its device: whoever has it may go on with the next scan.
    """
    reason = f"{model.device} has too little memory"
    tensors = (*model.autoencoder.parameters(), *model.autoencoder.buffers())
    # Copied by way of the CPU alone: the device has no room for another.
    network = deepcopy(model.autoencoder, {id(one): _to_cpu(one) for one in tensors})
    return replace(model, autoencoder=network, device=torch.device("cpu"), device_reason=reason)


def _to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    moved = tensor.detach().to("cpu")
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(moved, tensor.requires_grad) if is_parameter else moved


def scheduled(model: Model, name: str) -> Model:
    """Return the same weights with another schedule; their thresholds stay.

    "exact" is the paper's.  "multistep" walks the same paths with a solver that needs few steps,
    and projects nothing: inversion and rendering under one latent undo each other.  "fast" is the
    weights' own, which must have one.  Raises ScheduleError.
    """
    own = model.profile.schedule
    if name == own.name:
        return model
    if name == "exact":
        chosen = Schedule("exact", timesteps=own.timesteps)
    elif name == "multistep":
        chosen = multistep(MULTISTEP_STEPS, own.timesteps)
    elif name in SCHEDULES:
        raise ScheduleError(
            "schedule", f"the weights {model.profile.name!r} have no {name} schedule"
        )
    else:
        raise ScheduleError("schedule", f"unknown: {name!r}; choose {', '.join(SCHEDULES)}")
    try:
        check_schedule(chosen)
    except ValueError as error:
        raise ScheduleError("schedule", str(error)) from error
    return replace(model, profile=replace(model.profile, schedule=chosen))


def multistep(steps: int, timesteps: int, name: str = "multistep") -> Schedule:
    """Return the solver with so many steps either way, without projection."""
    return Schedule(
        name,
        projection="none",
        solver="multistep",
        timesteps=timesteps,
        invert_steps=steps,
        render_steps=steps,
    )


def _device_name(name: str) -> str:
    return torch.cuda.get_device_name() if name == "cuda" else "Apple's Metal (MPS)"


def _read_tensors(path: Path, expected: str | None) -> dict[str, Tensor]:
    if expected is None:
        raise WeightsError(path.parent / PROFILE, f"has no SHA-256 of {path.name} under 'files'")
    try:
        with open_regular(path) as file:
            found = _file_hash(file)
        if found != expected:
            raise WeightsError(
                path,
                "is damaged, cut short or of another bundle: "
                f"SHA-256 {found[:12]}... where the profile says {expected[:12]}...",
            )
        return safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsError(path, f"cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise WeightsError(path, f"is not a safetensors file: {error}") from error


def _autoencoder(
    folder: Path, profile: Profile, tensors: Mapping[str, Tensor]
) -> DiffusionAutoencoder:
    try:
        # Without memory and without initial values: these would take longer than all the reading.
        with torch.device("meta"):
            network = DiffusionAutoencoder(profile.architecture)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, IndexError) as error:
        raise WeightsError(folder / PROFILE, f"describes no possible network: {error}") from error
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    check_shapes(folder / AUTOENCODER, tensors, shapes)
    # Copies, since the file's own bytes are unaligned and may be replaced while we compute.
    copies = {name: t.to(torch.float32, copy=True) for name, t in tensors.items()}
    network.load_state_dict(copies, assign=True)
    # Convolutions on a processor are a little faster so; but it moves the last bits of float32,
    # which inversion and rendering amplify beyond what golden values allow.
    if profile.schedule.edit == "single-shot":
        keep_channels_last(network)
    return network.eval().requires_grad_(False)


def _classifier(folder: Path, profile: Profile, tensors: Mapping[str, Tensor]) -> LinearClassifier:
    vector = (profile.architecture.latent,)
    shapes = {"coef": vector, "intercept": (), "mean": vector, "scale": vector}
    check_shapes(folder / CLASSIFIER, tensors, shapes)
    try:
        return LinearClassifier(
            tensors["coef"], float(tensors["intercept"]), tensors["mean"], tensors["scale"]
        )
    except ValueError as error:
        raise WeightsError(folder / CLASSIFIER, str(error)) from error


def check_shapes(
    path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise WeightsError, which names the file, unless exactly these tensors are there."""
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in tensors:
            raise WeightsError(path, f"lacks the tensor {name!r} of the profile's architecture")
        if name not in shapes:
            raise WeightsError(
                path, f"contains {name[:80]!r}, unknown to the profile's architecture"
            )
        if tuple(tensors[name].shape) != shapes[name]:
            found = tuple(tensors[name].shape)
            raise WeightsError(path, f"{name!r} has shape {found} instead of {shapes[name]}")


def _file_hash(file: Any) -> str:
    sha = hashlib.sha256()
    while block := file.read(1 << 20):
        sha.update(block)
    return sha.hexdigest()


def _write(path: Path, content: bytes) -> str:
    """Write by way of a temporary name; the SHA-256 of what was written."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()
