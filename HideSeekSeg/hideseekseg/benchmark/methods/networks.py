"""Networks that a benchmark trains beside the weights under test, kept as safetensors.

Each file carries, as metadata, what it was made with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ...imaging.reading import InputError, atomic


def save_network(path: Path, network: nn.Module, made_with: Mapping[str, Any]) -> None:
    """Write tensors and facts; moved into place when complete."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    with atomic(path) as temporary:
        data = safetensors.torch.save(tensors, {"made_with": json.dumps(made_with)})
        temporary.write_bytes(data)


def load_network(path: Path, network: nn.Module) -> dict[str, Any]:
    """Fill a network and freeze it; gives what it was made with.  Raises InputError."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        network.load_state_dict(safetensors.torch.load_file(path))
        made_with: dict[str, Any] = json.loads(metadata["made_with"])
    except FileNotFoundError as error:
        raise InputError(
            path, "is not there: make it with `hideseekseg benchmark train`"
        ) from error
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(path, "is no network of this kind") from error
    network.eval().requires_grad_(False)
    return made_with
