"""The review in the scene: saved with it, and with the results' own file."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from ..archives import decompress
from ..output.segment_description import PREFIX
from ..review.review import Review
from .segments import tag

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
    """Return the review as it is stored: two that say the same have the same text."""
    return json.dumps(review.to_json(), separators=(",", ":"))


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
        return Review.from_json(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the saved review cannot be read: {error}") from error


def _segments(node: Any) -> list[Any]:
    if not node.IsA(_SEGMENTATION):
        return []
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
