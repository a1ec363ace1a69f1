"""Description of a lesion's segment: name, colour, terminology and tags, for every output."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..anatomy.labelling import SNOMED
from ..findings import LESION_TYPES, Candidate, LesionType, VertebraFinding, from_head_down
from ..review.items import Item, Verdict

Colour = tuple[float, float, float]

# Sky blue and orange of Okabe and Ito stay apart for every kind of colour vision and on grey bone.
TYPE_COLOURS: dict[LesionType, Colour] = {"lytic": (0.34, 0.71, 0.91), "blastic": (0.90, 0.62, 0.0)}

_CATEGORY = "SCT^49755003^Morphologically Altered Structure"
_LESION = "SCT^52988006^Lesion"
_METASTASIS = "SCT^14799000^Neoplasm, Secondary"
_VERTEBRA = "51282000"
# Slicer always has these two lists.  They lack "Lesion" and the single vertebrae, but Slicer keeps
# codes that a list lacks, while some of its functions cannot do without a list's name.
_TYPES_LIST = "Segmentation category and type - DICOM master list"
_REGIONS_LIST = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class Label:
    """Name and colour (RGB, 0 to 1) of a lesion."""

    name: str
    colour: Colour


def labels(vertebra: VertebraFinding) -> dict[str, Label]:
    """Labels of all candidates by ``id``, such as "T10 blastic 1".

    Lesions of a type are numbered by rank among all candidates, so that a name survives every move
    of the threshold; the shade of the type's colour follows the number.
    """
    result: dict[str, Label] = {}
    count = dict.fromkeys(LESION_TYPES, 0)
    for candidate in sorted(vertebra.candidates, key=lambda c: -c.score):
        count[candidate.type] += 1
        number = count[candidate.type]
        name = f"{vertebra.level} {candidate.type} {number}"
        result[candidate.id] = Label(name, shade(TYPE_COLOURS[candidate.type], number))
    return result


def head_to_tail(vertebrae: Iterable[VertebraFinding]) -> list[VertebraFinding]:
    """Sorted from the head down; what is not a level (an unknown label) comes last."""
    return sorted(vertebrae, key=lambda v: from_head_down(v.level))


def shade(colour: Colour, number: int) -> Colour:
    """Return the colour of lesion ``number`` of a type: itself, lighter, darker, and so on."""
    towards, amount = ((0.0, 0.0), (1.0, 0.35), (0.0, 0.3))[(number - 1) % 3]
    r, g, b = (round(c + (towards - c) * amount, 4) for c in colour)
    return r, g, b


def terminology_entry(level: str, accepted: bool = False) -> str:
    """Slicer's serialised terminology of a candidate in a vertebra.

    A candidate is a lesion of unknown nature until a reader has accepted it as a metastasis.  Seven
    parts joined by ``~``: list, category, type, its modifier, list, anatomic region, its modifier.
    A level without a code of its own (T13, L6, unknown) is coded as "Vertebra".
    """
    code = SNOMED.get(level, _VERTEBRA)
    region = "Vertebra" if code == _VERTEBRA else f"{level} vertebra"
    region_code = f"SCT^{code}^{region}"
    kind = _METASTASIS if accepted else _LESION
    return "~".join((_TYPES_LIST, _CATEGORY, kind, "^^", _REGIONS_LIST, region_code, "^^"))


PREFIX = "HideSeekSeg."
STATUS = "Segmentation.Status"
# Slicer's words for how far the review of a segment is, shown by its segments table.
STATUSES: dict[Verdict, str] = {
    "unreviewed": "notstarted",
    "accepted": "completed",
    "uncertain": "inprogress",
    "rejected": "flagged",
}


@dataclass(frozen=True)
class SegmentDescription:
    """Everything but the voxels; ``score`` is None where a reader drew the lesion."""

    label: Label
    level: str
    type: LesionType
    score: float | None
    p_malignant: float | None
    volume_mm3: float
    verdict: Verdict = "unreviewed"
    comment: str = ""
    reason: str = ""


def describe_candidate(
    finding: VertebraFinding, candidate: Candidate, label: Label
) -> SegmentDescription:
    """Of a candidate that nobody has reviewed."""
    score, volume = candidate.score, candidate.volume_mm3
    return SegmentDescription(
        label, finding.level, candidate.type, score, finding.p_malignant, volume
    )


def describe_item(item: Item) -> SegmentDescription:
    """Of a candidate in a review, or of a lesion that the reader added."""
    label = Label(item.name, shade(TYPE_COLOURS[item.type], item.number))
    score = None if item.missed else item.score
    facts = (item.level, item.type, score, item.p_malignant, item.volume_mm3)
    return SegmentDescription(label, *facts, item.verdict, item.comment, item.reason)


def tags(look: SegmentDescription) -> dict[str, str]:
    """Slicer's tags of a segment, without characters that its files cannot hold."""
    own = {
        "Level": look.level,
        "Type": look.type,
        "Score": "" if look.score is None else f"{look.score:.4f}",
        "VolumeMm3": f"{look.volume_mm3:.1f}",
        "PMalignant": "" if look.p_malignant is None else f"{look.p_malignant:.4f}",
        "Verdict": look.verdict,
        "Comment": look.comment,
        "Reason": look.reason,
    }
    return {
        **{PREFIX + key: plain(value) for key, value in own.items()},
        STATUS: STATUSES[look.verdict],
        "TerminologyEntry": terminology_entry(look.level, look.verdict == "accepted"),
    }


def plain(text: str) -> str:
    """Text without the characters that end or split a header field (``|``, ``:``, line breaks)."""
    return re.sub(r"[|:\\\x00-\x1f]", " ", text)
