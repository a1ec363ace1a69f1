"""The review in the scene: verdicts and what the method saw, saved with it and with results."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from io import BytesIO
from typing import Any

import numpy as np

from ..findings import Evidence
from ..output.result_folder import ARRAYS, evidence_of
from ..output.segment_description import PREFIX
from ..review.review import Review
from ..unpacking import decompress, read_arrays
from .segments import tag

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


_KEY = PREFIX + "Review"
MOST_BYTES = 64 << 20  # of a review: one of 500 candidates takes less than a hundredth
_SEGMENTATION = "vtkMRMLSegmentationNode"


def store(node: Any, review: Review) -> None:
    """Keep verdicts, threshold and history in a node, which saves them with the scene.

    In a segmentation the first segment keeps them too: a ``.seg.nrrd`` alone is then enough.
    """
    text = as_text(review)
    if node.GetAttribute(_KEY) == text:
        return
    node.SetAttribute(_KEY, text)
    if node.IsA(_SEGMENTATION) and node.GetSegmentation().GetNumberOfSegments():
        # Base 64 has none of the characters that split the tags of a file.
        packed = base64.b64encode(zlib.compress(text.encode(), 1)).decode()
        node.GetSegmentation().GetNthSegment(0).SetTag(_KEY, packed)


def as_text(review: Review) -> str:
    """Return the review as it is stored: two that say the same have the same text.

    Raises ValueError where a number is not finite: it could not be read again.
    """
    return json.dumps(review.to_json(), separators=(",", ":"), allow_nan=False)


def restore(node: Any) -> Review | None:
    """Read the stored review; None where there is none.

    Raises ValueError, one line, for a damaged one.
    """
    text = node.GetAttribute(_KEY)
    if text is None:
        packed = next((p for s in _segments(node) if (p := tag(s, _KEY))), None)
        if packed is None:
            return None
        try:
            text = decompress(base64.b64decode(packed), MOST_BYTES).decode()
        except ValueError as error:
            raise ValueError(f"the saved review cannot be read: {error}") from error
    try:
        # Version 0.1.0 wrote NaN for a mean that is not known, which is no JSON.
        return Review.from_json(json.loads(text, parse_constant=lambda _: None))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the saved review cannot be read: {error}") from error


def _segments(node: Any) -> list[Any]:
    if not node.IsA(_SEGMENTATION):
        return []
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
