"""Files like the published ones: a Lightning checkpoint, and scikit-learn's two pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from hideseekseg.model.autoencoder import DiffusionAutoencoder
from hideseekseg.model.profile import Architecture

FILES = ("last.ckpt", "classifier_lr.pkl", "scaler.pkl")


def hollow(architecture: Architecture | None = None) -> dict[str, Tensor]:
    """Tensors of the right names and shapes, each a single number in the file."""
    with torch.device("meta"):
        network = DiffusionAutoencoder(architecture or Architecture())
    return {n: torch.full((1,), 0.5).expand(t.shape) for n, t in network.state_dict().items()}


def write_checkpoint(path: Path, averaged: Mapping[str, Tensor], **others: Any) -> None:
    """What PyTorch Lightning saves: averaged and raw weights, optimiser, settings, progress."""
    raw = {f"model.{name}": torch.zeros(1).expand(t.shape) for name, t in averaged.items()}
    state = {f"ema_model.{name}": t for name, t in averaged.items()}
    content = {
        "epoch": 99,
        "global_step": 123_456,
        "pytorch-lightning_version": "2.0.9",
        "state_dict": {"x_T": torch.zeros(4, 1, 64, 64), **raw, **state},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 100}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"last_model_path": "last.ckpt"}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"name": "fxclass64_autoenc", "img_size": 64, "lr": 1e-4, "seed": 0},
    }
    torch.save({**content, **others}, path)


def write_classifier(folder: Path, values: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """A classifier and a scaler with these ``coef``, ``intercept``, ``mean`` and ``scale``."""
    classifier, scaler = LogisticRegression(solver="liblinear", random_state=42), StandardScaler()
    classifier.classes_ = np.array([0, 1])
    classifier.coef_ = values["coef"][None]
    classifier.intercept_ = values["intercept"].reshape(1)
    scaler.mean_, scaler.scale_ = values["mean"], values["scale"]
    scaler.var_ = values["scale"] ** 2
    for name, estimator in zip(FILES[1:], (classifier, scaler)):
        joblib.dump(estimator, folder / name)
