"""What a saved scene holds, as Slicer's libraries of this Python read it.

``python Testing/helpers/saved_scene.py review.mrb`` prints it as one line of JSON: tests run it on
the Python of another version of Slicer's libraries.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from helpers.scene import open_scene


def read_saved_scene(path: str) -> dict[str, Any]:
    """Open an ``.mrb`` and return what its review, its segments and its table hold."""
    import slicer.util

    from hideseekseg.output.segment_description import STATUS
    from hideseekseg.scene.segments import tag
    from hideseekseg.ui.review_session import latest

    with open_scene() as mrml:
        assert mrml.scene.ReadFromMRB(path, True)
        complaints: list[str] = []
        work = latest(complaints.append)
        assert work is not None and not complaints, complaints
        accepted = [item for item in work.review.items if item.verdict == "accepted"]
        segmentation = work.results.node.GetSegmentation()
        return {
            "ct": work.results.ctNode.GetName(),
            "contrast": float(slicer.util.arrayFromVolume(work.results.ctNode).std()),
            "vertebrae": len(work.results.segmentationNode.GetSegmentation().GetSegmentIDs()),
            "rows": work.results.tableNode.GetNumberOfRows(),
            "items": len(work.review.items),
            "accepted": [[item.level, item.type] for item in accepted],
            "status": [tag(segmentation.GetSegment(item.id), STATUS) for item in accepted],
            "voxels": [
                int(work.results.patches([item.id])[item.id].array.sum()) for item in accepted
            ],
            "can undo": work.review.can_undo,
        }


if __name__ == "__main__":
    print(json.dumps(read_saved_scene(sys.argv[1])))
