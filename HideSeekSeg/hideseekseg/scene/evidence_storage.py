"""What the method saw of one vertebra as text, which a scene keeps and saves."""

from __future__ import annotations

import base64
import binascii
import zipfile
import zlib
from dataclasses import fields
from io import BytesIO
from typing import Any

import numpy as np

from ..findings import Evidence
from ..imaging.volume import Grid

_ARRAYS = tuple(f.name for f in fields(Evidence) if f.name != "grid")
_STEPS = 2**16 - 1
_LARGEST = 2**27  # bytes of one vertebra's arrays
_UNREADABLE = (
    *(binascii.Error, zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError),
    *(TypeError, ValueError),
)


def packed(evidence: Evidence) -> str:
    """Return the evidence as text without line breaks; values keep 1/65535 of their range."""
    arrays: dict[str, Any] = {"ijk_to_lps": evidence.grid.ijk_to_lps}
    for name in _ARRAYS:
        array = getattr(evidence, name)
        if array.dtype == bool:
            arrays[name] = array
            continue
        low, high = float(array.min()), float(array.max())
        step = (high - low) / _STEPS or 1.0
        arrays[name] = np.rint((array - low) / step).astype(np.uint16)
        arrays[f"{name}_range"] = np.array([low, step])
    file = BytesIO()
    np.savez_compressed(file, **arrays)
    return base64.b64encode(file.getvalue()).decode()


def unpacked(text: str) -> Evidence | None:
    """Return what ``packed`` wrote, None for anything else; nothing in it is run."""
    try:
        data = base64.b64decode(text, validate=True)
        with zipfile.ZipFile(BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                return None
        with np.load(BytesIO(data), allow_pickle=False) as file:
            arrays = dict(file)
        values: dict[str, Any] = {}
        for name in _ARRAYS:
            values[name] = arrays[name]
            if f"{name}_range" in arrays:
                low, step = arrays[f"{name}_range"]
                values[name] = (low + step * arrays[name]).astype(np.float32)
        return Evidence(grid=Grid(arrays["image"].shape, arrays["ijk_to_lps"]), **values)
    except _UNREADABLE:
        return None
