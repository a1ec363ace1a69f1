"""What a segment says of its lesion: name, colour, terminology and tags, in every output alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..findings import Candidate, LesionType, VertebraFinding
from ..review.items import Item, Verdict
from .terminology import TYPE_COLOURS, Label, shade, terminology_entry

PREFIX = "HideSeekSeg."
STATUS = "Segmentation.Status"
# Slicer's words for how far the review of a segment is, shown by its segments table.
STATUSES: dict[Verdict, str] = {
    "unreviewed": "notstarted",
    "accepted": "completed",
    "rejected": "flagged",
}


@dataclass(frozen=True)
class Look:
    """Everything but the voxels; ``score`` is None where a reader drew the lesion."""

    label: Label
    level: str
    type: LesionType
    score: float | None
    p_malignant: float | None
    volume_mm3: float
    verdict: Verdict = "unreviewed"
    comment: str = ""


def look_of_candidate(finding: VertebraFinding, candidate: Candidate, label: Label) -> Look:
    """Of a candidate that nobody has reviewed."""
    score, volume = candidate.score, candidate.volume_mm3
    return Look(label, finding.level, candidate.type, score, finding.p_malignant, volume)


def look_of_item(item: Item) -> Look:
    """Of a candidate in a review, or of a lesion that the reader added."""
    label = Label(item.name, shade(TYPE_COLOURS[item.type], item.number))
    score = None if item.missed else item.score
    facts = (item.level, item.type, score, item.p_malignant, item.volume_mm3)
    return Look(label, *facts, item.verdict, item.comment)


def tags(look: Look) -> dict[str, str]:
    """Slicer's tags of a segment, without characters that its files cannot hold."""
    own = {
        "Level": look.level,
        "Type": look.type,
        "Score": "" if look.score is None else f"{look.score:.4f}",
        "VolumeMm3": f"{look.volume_mm3:.1f}",
        "PMalignant": "" if look.p_malignant is None else f"{look.p_malignant:.4f}",
        "Verdict": look.verdict,
        "Comment": look.comment,
    }
    return {
        **{PREFIX + key: plain(value) for key, value in own.items()},
        STATUS: STATUSES[look.verdict],
        "TerminologyEntry": terminology_entry(look.level, look.verdict == "accepted"),
    }


def plain(text: str) -> str:
    """Text without the characters that end or split a header field (``|``, ``:``, line breaks)."""
    return re.sub(r"[|:\\\x00-\x1f]", " ", text)
