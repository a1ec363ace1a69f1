"""A segmentation as it stands in a file: layers of labels, and what the file says of each label."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .patch import EVERYWHERE, Box
from .volume import Grid, Volume

# Beyond it a list with a place for every number up to the largest costs more than numbering anew.
MOST_LABELS = 1000

_KEY = re.compile(r"Segment(\d+)_(\w+)")


@dataclass(frozen=True)
class Segment:
    """One label of one layer; ``id``, ``name`` and ``terminology`` are empty where not said.

    ``terminology`` is Slicer's serialised entry: seven parts joined by ``~``, triplets by ``^``.
    """

    id: str
    name: str
    value: int
    layer: int
    terminology: str = ""


@dataclass(frozen=True)
class Segmentation:
    """Label layers (K, J, I) on one common grid; segments of different layers may overlap."""

    layers: tuple[Volume, ...]
    segments: tuple[Segment, ...]
    name: str
    path: str = ""

    @property
    def source(self) -> str:
        """The file it was read from, else its name: what an error names."""
        return self.path or self.name

    @property
    def grid(self) -> Grid:
        return self.layers[0].grid

    def mask(self, segment: Segment, box: Box = EVERYWHERE) -> npt.NDArray[np.bool_]:
        """Voxels (K, J, I) of the segment in a box of ``grid``."""
        return self.layers[segment.layer].array[box] == segment.value

    def box(self, segment: Segment) -> Box | None:
        """Return the smallest box that holds the segment; None where it has no voxel."""
        return self._boxes[segment.layer].get(segment.value)

    @cached_property
    def _boxes(self) -> tuple[dict[int, Box], ...]:
        """Per layer the boxes by value."""
        return tuple(boxes_of_values(layer.array) for layer in self.layers)


def segments_from_header(header: Mapping[str, str], layers: int) -> tuple[Segment, ...]:
    """Segments from Slicer's ``SegmentN_*`` keys of a .seg.nrrd, empty when there are none.

    Files older than Slicer 4.11 name neither value nor layer: each segment has a layer of its own.
    Raises ValueError for a value that is no label and for a layer that is not there.
    """
    fields: dict[int, dict[str, str]] = defaultdict(dict)
    for key, text in header.items():
        if match := _KEY.fullmatch(key):
            fields[int(match[1])][match[2]] = text.strip()
    return tuple(_segment(n, fields[n], layers) for n in sorted(fields) if "ID" in fields[n])


def segments_from_values(
    volume: Volume, names: Mapping[int, str], layer: int = 0
) -> tuple[Segment, ...]:
    """One segment per value other than 0 that is found, named where ``names`` has it."""
    return tuple(
        Segment("", names.get(value, ""), value, layer) for value in label_values(volume.array)
    )


def label_values(array: npt.NDArray[np.generic]) -> list[int]:
    """Values other than 0, ascending; slice by slice, as most of a slice is background."""
    found = {int(value) for part in array for value in np.unique(part[part != 0])}
    return sorted(found)


def boxes_of_values(array: npt.NDArray[np.integer]) -> dict[int, Box]:
    """Return the smallest box (k, j, i) around each value above 0, in one pass over the voxels."""
    largest = int(array.max(initial=0))
    if largest > MOST_LABELS:
        values = label_values(array)
        array = np.searchsorted([0, *values], array)
    else:
        values = list(range(1, largest + 1))
    boxes = ndimage.find_objects(array)
    return {value: box for value, box in zip(values, boxes) if box is not None}


def _segment(number: int, fields: Mapping[str, str], layers: int) -> Segment:
    value, layer = fields.get("LabelValue", "1"), fields.get("Layer", str(number % layers))
    if not value.isdecimal() or int(value) == 0:
        raise ValueError(f"segment {fields['ID']} has the label value {value}")
    if not layer.isdecimal() or int(layer) >= layers:
        raise ValueError(f"segment {fields['ID']} is said to be in layer {layer} of {layers}")
    entry = _tag(fields.get("Tags", ""), "TerminologyEntry")
    return Segment(fields["ID"], fields.get("Name", ""), int(value), int(layer), entry)


def _tag(tags: str, name: str) -> str:
    """Slicer joins tags by ``|`` and each one's name and value by ``:``."""
    for tag in tags.split("|"):
        key, _, value = tag.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
