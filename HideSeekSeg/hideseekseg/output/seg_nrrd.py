"""Lesions as a ``.seg.nrrd`` file, as 3D Slicer writes it: one segment per lesion."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import atomic
from ..findings import Candidate, LesionType, Result
from ..imaging.volume import Grid, Patch, Volume, shared_voxels
from .segment_description import SegmentDescription, describe_candidate, labels, plain, tags

# Values of a layer are stored in one byte, and 0 is background.
_SEGMENTS_PER_LAYER = 255


@dataclass(frozen=True)
class Outlined:
    """A lesion to write: ``patch`` is on the CT's grid."""

    id: str
    look: SegmentDescription
    patch: Patch


@dataclass(frozen=True)
class _Placed:
    """A lesion and where in the file it goes."""

    id: str
    look: SegmentDescription
    patch: Patch
    layer: int
    value: int


def write_segmentation(path: str | Path, ct_grid: Grid, result: Result) -> None:
    """Write the candidates above ``result.threshold`` on the CT's grid, as nobody reviewed them.

    Raises ValueError where one has no voxels, as in a result that was read back from JSON, and
    InputError where the voxels of one do not lie at its centroid: on the grid of another CT.
    """
    outlined = []
    for vertebra in result.vertebrae:
        names = labels(vertebra)
        for candidate in vertebra.accepted(result.threshold):
            if candidate.patch is None:
                raise ValueError(f"{candidate.id}: has no voxels to write")
            if not _lies_on(ct_grid, candidate.patch, candidate):
                cause = f"{candidate.id} lies elsewhere: this is not the grid of the result's CT"
                raise InputError(path, cause)
            look = describe_candidate(vertebra, candidate, names[candidate.id])
            outlined.append(Outlined(candidate.id, look, candidate.patch))
    write_segments(path, ct_grid, outlined)


def _lies_on(grid: Grid, patch: Patch, candidate: Candidate) -> bool:
    """Tell whether a patch has the candidate's centroid (to a voxel) on this grid."""
    if np.any(np.add(patch.start, patch.array.shape) > grid.shape):
        return False
    centre = np.argwhere(patch.array).mean(axis=0) + patch.start
    apart = np.linalg.norm(grid.lps(centre[::-1]) - candidate.centroid_lps)
    return bool(apart <= grid.spacing.max())


def lesion_mask(ct: Volume, result: Result, kind: LesionType) -> Volume:
    """Return the accepted lesions of a type as a mask (K, J, I) of 0 and 1 on the CT's grid."""
    mask = np.zeros(ct.grid.shape, np.uint8)
    for vertebra in result.vertebrae:
        for candidate in vertebra.accepted(result.threshold):
            if candidate.type == kind and candidate.patch is not None:
                candidate.patch.paint(mask, 1)
    return Volume(mask, ct.grid, kind)


def write_segments(path: str | Path, ct_grid: Grid, outlined: Sequence[Outlined]) -> None:
    """Write lesions on the CT's grid.

    Lesions share a layer (a 3D label map) unless they overlap.  Name, colour, terminology, review
    status and tags (``HideSeekSeg.Score`` and others) stand in the header.  Without any lesion the
    file is an empty segmentation on the CT's grid.
    """
    lesions = _placed(outlined)
    layers = 1 + max((lesion.layer for lesion in lesions), default=0)
    voxels = np.zeros((*ct_grid.shape, layers), np.uint8)
    for lesion in lesions:
        lesion.patch.paint(voxels[..., lesion.layer], lesion.value)
    header = [*_geometry(ct_grid, layers), *_segmentation_fields(lesions)]
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(("NRRD0004\n" + "\n".join(header) + "\n\n").encode())
        # No time stamp: the same findings give the same bytes.
        with gzip.GzipFile(
            filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0
        ) as packed:
            packed.write(voxels.data)


def _placed(outlined: Iterable[Outlined]) -> list[_Placed]:
    """Each lesion in the first layer where its voxels are free."""
    layers: list[list[Patch]] = []
    lesions = []
    for lesion in outlined:
        patch = lesion.patch
        layer = next((n for n, taken in enumerate(layers) if _fits(patch, taken)), len(layers))
        layers[layer:] = layers[layer:] or [[]]
        layers[layer].append(patch)
        lesions.append(_Placed(lesion.id, lesion.look, patch, layer, len(layers[layer])))
    return lesions


def _fits(patch: Patch, taken: list[Patch]) -> bool:
    room = len(taken) < _SEGMENTS_PER_LAYER
    return room and not any(shared_voxels(patch, other) for other in taken)


def _geometry(grid: Grid, layers: int) -> list[str]:
    """NRRD fields of the array; several layers are a leading axis of kind "list"."""
    sizes = [str(n) for n in grid.shape[::-1]]
    directions = [_vector(column) for column in grid.ijk_to_lps[:3, :3].T]
    kinds = ["domain"] * 3
    if layers > 1:
        sizes, directions, kinds = [str(layers), *sizes], ["none", *directions], ["list", *kinds]
    return [
        "type: unsigned char",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(sizes)}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join(kinds)}",
        "encoding: gzip",
        f"space origin: {_vector(grid.ijk_to_lps[:3, 3])}",
    ]


def _vector(values: Iterable[float]) -> str:
    return "(" + ",".join(repr(float(v)) for v in values) + ")"


def _segmentation_fields(lesions: list[_Placed]) -> list[str]:
    fields = [
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|Closed surface|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
    for number, lesion in enumerate(lesions):
        values = {
            "ID": plain(lesion.id),
            "Name": plain(lesion.look.label.name),
            "Color": " ".join(f"{c:g}" for c in lesion.look.label.colour),
            "LabelValue": str(lesion.value),
            "Layer": str(lesion.layer),
            # Slicer 5.6 and before read a whole layer with its first segment's extent.
            "Extent": _extent([x.patch for x in lesions if x.layer == lesion.layer]),
            "NameAutoGenerated": "0",
            "ColorAutoGenerated": "0",
            "Tags": "".join(f"{k}:{v}|" for k, v in tags(lesion.look).items()),
        }
        fields += [f"Segment{number}_{key}:={value}" for key, value in values.items()]
    return fields


def _extent(patches: list[Patch]) -> str:
    """First and last index along i, j, k of the box around all patches."""
    first = np.min([p.start for p in patches], axis=0)
    last = np.max([np.add(p.start, p.array.shape) - 1 for p in patches], axis=0)
    return " ".join(f"{a} {b}" for a, b in zip(first[::-1], last[::-1]))
