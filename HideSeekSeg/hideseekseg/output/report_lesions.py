"""The lesions of a result as a report sees them: measured, and on the images of their vertebrae."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..findings import Evidence
from ..imaging.volume import measure_patch, move_patch
from ..review.items import Item, VertebraState
from .figures.drawing import Mask
from .result_folder import StoredResult


@dataclass(frozen=True)
class SeenLesion:
    """A lesion on the crop of its vertebra; ``mask`` (S, P, I) has at least one voxel."""

    lesion: Item
    evidence: Evidence
    mask: Mask


def measured(stored: StoredResult, lesion: Item) -> Item:
    """Return the lesion with the size of its voxels."""
    if stored.grid is None:
        return lesion
    return replace(lesion, **vars(measure_patch(stored.patches[lesion.id], stored.grid)))


def images_of(stored: StoredResult) -> dict[str, Evidence]:
    """Return the images of the vertebrae by level; raises InputError as ``stored.evidence``."""
    found = {state.level: stored.evidence(state.level) for state in stored.states}
    return {level: evidence for level, evidence in found.items() if evidence is not None}


def seen_lesions(stored: StoredResult, images: Mapping[str, Evidence]) -> Iterable[SeenLesion]:
    """Yield the lesions that an image of their vertebra shows."""
    for lesion in stored.lesions:
        evidence = images.get(lesion.level)
        if evidence is None or stored.grid is None:
            continue
        moved = move_patch(stored.patches[lesion.id], stored.grid, evidence.grid)
        if moved is not None and evidence.body.any():
            mask = np.zeros(evidence.grid.shape, bool)
            moved.paint(mask)
            yield SeenLesion(lesion, evidence, mask)


def analysed_states(stored: StoredResult) -> list[VertebraState]:
    """Return the states of the vertebrae that were analysed, from the head down."""
    return [s for s in stored.states if s.analysed]


def lesions_of(stored: StoredResult, level: str) -> list[Item]:
    """Return the lesions of a level that count."""
    return [x for x in stored.lesions if x.level == level]


def seen_at(seen: Mapping[str, SeenLesion], level: str) -> list[SeenLesion]:
    """Return the lesions of a level that an image shows."""
    return [x for x in seen.values() if x.lesion.level == level]
