"""Weights to learn from or to measure."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..model.weights import Model, WeightsError, load_model


def load_weights(folder: Path, device: str = "auto") -> Model:
    """As ``load_model``, for a folder that a user named: InputError where it cannot be used."""
    try:
        return load_model(folder, device)
    except WeightsError as error:
        raise InputError(error.path, error.cause) from error
