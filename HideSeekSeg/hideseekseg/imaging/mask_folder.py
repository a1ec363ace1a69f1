"""A segmentation from a folder with one mask per structure, as TotalSegmentator writes by default.

The file's name is the structure's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from .patch import Patch, patch_of
from .segmentation import Segment, Segmentation, label_values
from .volume import Grid, Volume

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")


def mask_files(folder: Path) -> list[Path]:
    """Return the images in a folder, by name."""
    return [p for p in sorted(folder.iterdir()) if p.is_file() and structure_of(p)]


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
            raise InputError(path, "holds several labels; in a folder every file is one structure")
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
