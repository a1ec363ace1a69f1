"""The embedded example in Slicer's views."""

from __future__ import annotations

from typing import Any

import slicer.util

from hideseekseg.ui import sample_data as sample


def loadExample() -> tuple[Any, Any]:
    """The CT and the segmentation node, shown in the slice views."""
    with slicer.util.WaitCursor():
        ct, node = sample.loadExample()
    slicer.util.setSliceViewerLayers(background=ct, fit=True)
    return ct, node
