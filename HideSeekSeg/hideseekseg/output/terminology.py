"""How a lesion is called, coded and coloured: the same in every output."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..anatomy.labelling import LEVELS, SNOMED, order
from ..findings import LesionType, VertebraFinding

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
    count: dict[LesionType, int] = {"lytic": 0, "blastic": 0}
    for candidate in sorted(vertebra.candidates, key=lambda c: -c.score):
        count[candidate.type] += 1
        number = count[candidate.type]
        name = f"{vertebra.level} {candidate.type} {number}"
        result[candidate.id] = Label(name, shade(TYPE_COLOURS[candidate.type], number))
    return result


def head_to_tail(vertebrae: Iterable[VertebraFinding]) -> list[VertebraFinding]:
    """Sorted from the head down; what is no level (an unknown label) comes last."""
    return sorted(vertebrae, key=lambda v: order(v.level) if v.level in LEVELS else len(LEVELS))


def shade(colour: Colour, number: int) -> Colour:
    """The colour of lesion ``number`` of a type: itself, then lighter, then darker, and again."""
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
