"""Lesion burden: how many lesions, how large, where; lytic and blastic apart.

Nothing here knows voxels: sizes are those of the review's items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..findings import LESION_TYPES
from .items import Item

BURDEN_COLUMNS = (
    *("level", "type", "number", "volume_mm3", "share_of_body"),
    *("largest_diameter_mm", "mean_hu"),
)
ALL = "all"  # levels, or types, taken together


@dataclass(frozen=True)
class Burden:
    """The lesions of one level and type, or of ``ALL``; fields are ``BURDEN_COLUMNS``.

    ``share_of_body`` is the lesions' volume divided by that of the vertebral body, or bodies; the
    mean of HU is weighted by volume.  None is what is not known of every lesion.
    """

    level: str
    type: str
    number: int
    volume_mm3: float
    share_of_body: float | None
    largest_diameter_mm: float | None
    mean_hu: float | None


def lesion_burden(items: Iterable[Item], body_mm3: Mapping[str, float | None]) -> list[Burden]:
    """Return a row for each level and type that has lesions, then three for all levels together.

    ``body_mm3`` are the volumes of all vertebral bodies that were analysed, by level from the head
    down, None where one is not known.  Without lesions only the row of ``ALL`` is left.
    """
    lesions = list(items)
    rows = []
    for level in (*body_mm3, *sorted({x.level for x in lesions} - body_mm3.keys())):
        for kind in LESION_TYPES:
            of_kind = [x for x in lesions if x.level == level and x.type == kind]
            if of_kind:
                rows.append(_row(level, kind, of_kind, [body_mm3.get(level)]))
    bodies = list(body_mm3.values())
    for kind in LESION_TYPES if lesions else ():
        rows.append(_row(ALL, kind, [x for x in lesions if x.type == kind], bodies))
    return [*rows, _row(ALL, ALL, lesions, bodies)]


def _row(level: str, kind: str, items: Sequence[Item], bodies: Sequence[float | None]) -> Burden:
    volume = sum(x.volume_mm3 for x in items)
    known = [x for x in bodies if x]
    share = volume / sum(known) if known and len(known) == len(bodies) else None
    diameters = [x.diameter_mm for x in items if x.diameter_mm is not None]
    largest = max(diameters) if diameters and len(diameters) == len(items) else None
    hu = [(x.mean_hu, x.volume_mm3) for x in items if x.mean_hu is not None]
    mean = None
    if len(hu) == len(items) and volume > 0:
        mean = sum(value * weight for value, weight in hu) / volume
    return Burden(level, kind, len(items), volume, share, largest, mean)
