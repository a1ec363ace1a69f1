"""Which lesions of a results node are visible: those of the review, or a single one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..output.segment_description import PREFIX

_SHOWN = PREFIX + "Shown"
_ALONE = PREFIX + "Alone"


def show(segmentationNode: Any, segmentIDs: Iterable[str]) -> None:
    """The review shows these; remembered, so that isolating one and ending it need no review."""
    segmentationNode.SetAttribute(_SHOWN, json.dumps(sorted(segmentIDs)))
    _update(segmentationNode)


def isolate(segmentationNode: Any, segmentID: str | None) -> None:
    """Show one lesion alone, also one that the threshold hides; None shows those of the review."""
    if segmentID is None:
        segmentationNode.RemoveAttribute(_ALONE)
    else:
        segmentationNode.SetAttribute(_ALONE, segmentID)
    _update(segmentationNode)


def _update(segmentationNode: Any) -> None:
    """One event for all segments that change."""
    display = segmentationNode.GetDisplayNode()
    if display is None:
        return
    alone = segmentationNode.GetAttribute(_ALONE)
    shown = {alone} if alone else set(json.loads(segmentationNode.GetAttribute(_SHOWN) or "[]"))
    modifying = display.StartModify()
    for name in segmentationNode.GetSegmentation().GetSegmentIDs():
        if display.GetSegmentVisibility(name) != (name in shown):
            display.SetSegmentVisibility(name, name in shown)
    display.EndModify(modifying)
