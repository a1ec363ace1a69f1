"""A segmentation as it stands in a file, or in a folder of masks: labels in layers, and names.

A folder with one mask per structure is what TotalSegmentator writes by default; a file's name is
its structure's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError
from ..files import files_in
from .volume import EVERYWHERE, Box, Grid, Patch, Volume, patch_of

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
    Raises ValueError for a value that is not a label and for a layer that is not there.
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
        raise ValueError(f"segment {fields['ID']} has the layer number {layer} of {layers}")
    entry = _tag(fields.get("Tags", ""), "TerminologyEntry")
    return Segment(fields["ID"], fields.get("Name", ""), int(value), int(layer), entry)


def _tag(tags: str, name: str) -> str:
    """Slicer joins tags by ``|`` and each one's name and value by ``:``."""
    for tag in tags.split("|"):
        key, _, value = tag.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")


def mask_files(folder: Path) -> list[Path]:
    """Return the images in a folder, by name."""
    return [path for path in files_in(folder, deep=False) if structure_of(path)]


def structure_of(path: Path) -> str:
    """Return the name of a file without the suffix of an image, empty where it has none."""
    name = path.name
    ends = (suffix for suffix in SUFFIXES if name.lower().endswith(suffix))
    suffix = next(ends, "")
    return "" if name.startswith(".") or not suffix else name[: -len(suffix)]


def read_mask_folder(
    folder: Path, read_mask: Callable[[Path], Volume], wanted: Callable[[str], bool]
) -> Segmentation:
    """Return the masks of a folder as one segmentation, those without a voxel left out.

    ``read_mask`` reads one label map; files whose structure is not ``wanted`` are not read.
    Raises InputError where a file holds several labels or lies on another grid than the first one,
    and where no mask has a voxel.
    """
    files = [path for path in mask_files(folder) if wanted(structure_of(path))]
    if not files:
        raise InputError(folder, "contains no mask of a vertebra (vertebrae_L1.nii.gz, ...)")
    first: Volume | None = None
    patches: list[tuple[str, Patch]] = []
    notes: dict[str, None] = {}
    for path in files:
        mask = read_mask(path)
        if first is not None and not _same_place(mask, first):
            raise InputError(path, f"lies on another grid than {files[0].name}")
        first = first or mask
        notes |= dict.fromkeys(mask.notes)
        values = label_values(mask.array)
        if len(values) > 1:
            raise InputError(
                path, "contains several labels; in a folder every file is one structure"
            )
        patch = patch_of(mask.array > 0)
        if patch is not None:
            patches.append((structure_of(path), patch))
    if not patches or first is None:
        raise InputError(folder, "contains only empty masks: every voxel is 0")
    found = layered(patches, first.grid, folder, notes=tuple(notes))
    return replace(found, layers=tuple(replace(x, rival=first.rival) for x in found.layers))


def _same_place(mask: Volume, first: Volume) -> bool:
    if mask.rival is None or first.rival is None:
        return mask.rival is first.rival and mask.grid.matches(first.grid)
    return mask.grid.matches(first.grid) and mask.rival.matches(first.rival)


def layered(
    patches: Sequence[tuple[str, Patch]],
    grid: Grid,
    path: Path,
    entries: Iterable[str] = (),
    notes: tuple[str, ...] = (),
) -> Segmentation:
    """Return named masks as a segmentation with as few layers as they can share.

    ``entries`` are terminology entries of the masks, in their order.
    """
    told = list(entries) or [""] * len(patches)
    kind = np.min_scalar_type(len(patches))
    arrays: list[np.ndarray] = []
    segments = []
    for value, ((name, patch), entry) in enumerate(zip(patches, told), start=1):
        free = (n for n, a in enumerate(arrays) if not a[patch.box][patch.array].any())
        layer = next(free, len(arrays))
        if layer == len(arrays):
            arrays.append(np.zeros(grid.shape, kind))
        patch.paint(arrays[layer], value)
        segments.append(Segment("", name, value, layer, entry))
    layers = tuple(Volume(array, grid, path.name, str(path), notes) for array in arrays)
    return Segmentation(layers, tuple(segments), path.name, str(path))
