"""What the method saw of one vertebra as text, which a scene keeps and saves."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO
from typing import Any

import numpy as np

from ..archives import read_arrays
from ..findings import Evidence
from ..output.vertebra_file import ARRAYS, evidence_of

_STEPS = 2**16 - 1
_LARGEST = 2**27  # bytes of one vertebra's arrays
_UNREADABLE = (binascii.Error, KeyError, IndexError, OSError, TypeError, ValueError)


def packed(evidence: Evidence) -> str:
    """Return the evidence as text without line breaks; values keep 1/65535 of their range."""
    arrays: dict[str, Any] = {"ijk_to_lps": evidence.grid.ijk_to_lps}
    for name in ARRAYS:
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
        arrays = read_arrays(data, most_bytes=_LARGEST)
        values: dict[str, Any] = {"ijk_to_lps": arrays["ijk_to_lps"]}
        for name in ARRAYS:
            values[name] = arrays[name]
            if f"{name}_range" in arrays:
                low, step = arrays[f"{name}_range"]
                values[name] = (low + step * arrays[name]).astype(np.float32)
        return evidence_of(values)
    except _UNREADABLE:
        return None
