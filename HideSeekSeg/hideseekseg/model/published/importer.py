"""The authors' published weights, brought into a weights folder of ours.

They are an autoencoder in a PyTorch Lightning checkpoint, and a logistic regression and a
standard scaler of scikit-learn in two pickles.  Nothing in these files is run: the checkpoint is
read as tensors and plain values only, the pickles as ``pickles`` does.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ... import __version__
from ...errors import InputError, WeightsError
from ...files import open_regular, temporary_folder
from ..autoencoder import DiffusionAutoencoder
from ..classifier import LinearClassifier
from ..profile import Architecture, Decision, Geometry, Intensity, Profile, Schedule
from ..weights import check_shapes, save_model
from .download import CODE, HUB
from .pickles import MAX_BYTES, Estimator, PickleError, read_estimator

PREFIX = "ema_model."  # the averaged weights, which the authors use; "model." are the raw ones
CARD = "MODEL-CARD.md"
LICENCE = "not stated by the person who imported them; the authors' code is under the MIT licence"

PROFILE = Profile(
    name="published",
    architecture=Architecture(),
    geometry=Geometry("raw", 64, pixel_mm=(0.8, 0.675), slice_mm=0.8, central_slices=5),
    intensity=Intensity("percentile", lower=0.0, upper=99.5),
    schedule=Schedule("exact", "render", "render", 1000, invert_steps=250, render_steps=100),
    decision=Decision(
        healthy_p=1e-5, candidate_quantile=0.5, min_pixels=5, baseline="edit", threshold=0.5
    ),
)

# Before it the reader of "weights only" could be made to run code or to overwrite memory.
SAFE_TORCH = (2, 10)
MEMBER = re.compile(
    r"[^/]+/(data\.pkl|data/\d+|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id)"
)
MAX_STRUCTURE = 1 << 24  # bytes of names and shapes in a checkpoint; it needs some 0.3 MB


@dataclass(frozen=True)
class Published:
    """The three files as their authors give them out."""

    checkpoint: Path
    classifier: Path
    scaler: Path


def import_published(files: Published, out: str | os.PathLike[str], licence: str = LICENCE) -> str:
    """Write the weights folder ``out`` with a model card, and return its hash.

    ``licence`` is the one under which the user obtained the files.  ``out`` must be empty or not
    there yet.  Raises WeightsError naming the file and the cause; then nothing is written.
    """
    out = Path(out)
    _check_new(out)
    classifier = read_classifier(files.classifier, files.scaler)
    autoencoder = read_autoencoder(files.checkpoint)
    provenance = {
        "origin": f"published weights of Atad et al., MIDL 2026 ({HUB}, {CODE})",
        "licence": licence,
        "files": [_described(p) for p in (files.checkpoint, files.classifier, files.scaler)],
        "version": __version__,
    }
    profile = replace(PROFILE, provenance=provenance)
    missing = [parent for parent in (out, *out.parents) if not parent.exists()]
    try:
        return _write(out, autoencoder, classifier, profile)
    except OSError as error:
        raise WeightsError(out, f"cannot be written: {error.strerror or error}") from error
    except InputError as error:  # of a file whose folder is of a moment
        raise WeightsError(out, error.cause) from error
    finally:
        for made in missing:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def _check_new(out: Path) -> None:
    try:
        free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    except OSError as error:
        raise WeightsError(out, f"cannot be read: {error.strerror or error}") from error
    if not free:
        raise WeightsError(out, "is not an empty folder: choose a new one for these weights")


def _write(
    out: Path, autoencoder: DiffusionAutoencoder, classifier: LinearClassifier, profile: Profile
) -> str:
    out.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out, hidden=True) as folder:
        done = save_model(folder, autoencoder, classifier, profile, half=False)
        (folder / CARD).write_text(model_card(profile, done), encoding="utf-8")
        for file in sorted(folder.iterdir()):  # of these profile.json is the last
            file.replace(out / file.name)
    return done


def model_card(profile: Profile, hash_: str) -> str:
    """Return the model card of the folder, as Markdown."""
    made = profile.provenance
    rows = "\n".join(f"| {f['name']} | {f['bytes']} | {f['sha256']} |" for f in made["files"])
    return f"""# Hide-and-Seek Attribution: the published weights

Weights of M. Atad et al., *Hide-and-Seek Attribution: Weakly Supervised Segmentation of Vertebral
Metastases in CT*, MIDL 2026, arXiv:2512.06849. Trained by them on CT of real patients with labels
per vertebra. Converted by HideSeekSeg {made["version"]}, which did not make them and does not
distribute them. The numbers are unchanged: float32 averaged weights, float64 classifier.

- Origin: {HUB} (autoencoder), {CODE} (classifier, scaler)
- Licence under which the user obtained them: {made["licence"]}
- Hash of this folder: {hash_}

| file | bytes | SHA-256 |
|---|---|---|
{rows}

## Use

For research; not a medical device.

    hideseekseg segment CT SEGMENTATION --out DIR --weights FOLDER

The autoencoder learned from the middle of each vertebra: of every body only the central sagittal
slices are analysed, {profile.geometry.central_slices} of them; `--all-slices` adds the others,
marked as such. A slice costs hundreds to thousands of network calls, many minutes on a CPU: a GPU
is advised.
"""


def read_autoencoder(path: Path) -> DiffusionAutoencoder:
    """Read the averaged autoencoder of the published checkpoint, mapped from the file.

    Raises WeightsError for anything but the names and shapes of the paper's architecture.
    """
    state = _load(path).get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise WeightsError(path, "contains no 'state_dict': is it a checkpoint of another program?")
    tensors = {n.removeprefix(PREFIX): t for n, t in state.items() if n.startswith(PREFIX)}
    if not tensors:
        raise WeightsError(
            path, f"contains no {PREFIX!r} tensors: it is another model's checkpoint"
        )
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise WeightsError(path, f"{name[:80]!r} is not a numeric tensor")
    with torch.device("meta"):
        network = DiffusionAutoencoder(PROFILE.architecture)
    check_shapes(path, tensors, {n: tuple(t.shape) for n, t in network.state_dict().items()})
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or not tensor.isfinite().all():
            raise WeightsError(path, f"{name!r} contains values that are not finite")
    network.load_state_dict({n: t.float().contiguous() for n, t in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _load(path: Path) -> dict[str, Any]:
    version = re.match(r"(\d+)\.(\d+)", torch.__version__)
    if version is None or tuple(map(int, version.groups())) < SAFE_TORCH:
        needed = ".".join(map(str, SAFE_TORCH))
        raise WeightsError(
            path,
            f"is read safely by torch {needed} or newer only, this is {torch.__version__};"
            " import it elsewhere and copy the folder",
        )
    _check_archive(path)
    try:
        content = torch.load(str(path), map_location="cpu", mmap=True, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a hostile file can bring the reader to raise anything
        found = re.search(r"(?:GLOBAL|global:|class|function) ([\w.]+\.[\w.]+)", str(error))
        what = f" ({found[1][:80]})" if found else ""
        cause = f"is damaged or contains more than tensors and plain values{what}: refused"
        raise WeightsError(path, cause) from error
    if not isinstance(content, dict):
        raise WeightsError(path, "is not a checkpoint: it contains a single value")
    return content


def _check_archive(path: Path) -> None:
    """Refuses by declared names and sizes, before anything is unpacked."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            members = archive.infolist()
    except OSError as error:
        raise WeightsError(path, f"cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise WeightsError(path, "is not a PyTorch checkpoint, or it is cut short") from error
    for member in members:
        if not MEMBER.fullmatch(member.filename):
            raise WeightsError(path, f"contains {member.filename[:80]!r}, unknown in a checkpoint")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size:
            raise WeightsError(path, "is compressed, as no PyTorch checkpoint is: refused")
        if member.filename.endswith("data.pkl") and member.file_size > MAX_STRUCTURE:
            raise WeightsError(path, f"describes its tensors in {member.file_size} bytes: refused")
    declared = sum(member.file_size for member in members)
    if declared > size:
        raise WeightsError(path, f"would unpack {size} bytes to {declared}: refused")


def read_classifier(classifier: Path, scaler: Path) -> LinearClassifier:
    """Read the classifier on standardised latents; raises WeightsError."""
    logistic = _estimator(classifier, "LogisticRegression").attributes
    standard = _estimator(scaler, "StandardScaler").attributes
    latent = PROFILE.architecture.latent
    coef = _numbers(classifier, logistic, "coef_", (1, latent))
    intercept = _numbers(classifier, logistic, "intercept_", (1,))
    classes = _numbers(classifier, logistic, "classes_", (2,))
    if classes.tolist() != [0, 1] or logistic.get("multi_class") == "multinomial":
        raise WeightsError(classifier, "does not tell 1 (malignant) from 0 (healthy)")
    mean = _numbers(scaler, standard, "mean_", (latent,))
    scale = _numbers(scaler, standard, "scale_", (latent,))
    if standard.get("with_mean") is not True or standard.get("with_std") is not True:
        raise WeightsError(scaler, "does not standardise: with_mean or with_std is off")
    if not coef.any():
        raise WeightsError(classifier, "'coef_' is all zero")
    if not (scale > 0).all():
        raise WeightsError(scaler, "'scale_' contains values that are not positive")
    return LinearClassifier(
        torch.from_numpy(coef[0]),
        float(intercept[0]),
        torch.from_numpy(mean),
        torch.from_numpy(scale),
    )


def _estimator(path: Path, name: str) -> Estimator:
    try:
        with open_regular(path) as file:
            found = read_estimator(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise WeightsError(path, f"cannot be read: {error.strerror or error}") from error
    except PickleError as error:
        raise WeightsError(path, str(error)) from error
    if found.name != name:
        raise WeightsError(path, f"contains a {found.name} where a {name} is needed")
    return found


def _numbers(
    path: Path, attributes: dict[str, Any], name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    values = attributes.get(name)
    if not isinstance(values, np.ndarray):
        raise WeightsError(path, f"lacks the array {name!r}")
    if values.shape != shape:
        raise WeightsError(path, f"{name!r} has shape {values.shape} instead of {shape}")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise WeightsError(path, f"{name!r} contains values that are not finite")
    return numbers


def _described(path: Path) -> dict[str, Any]:
    sha = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha.hexdigest()}
