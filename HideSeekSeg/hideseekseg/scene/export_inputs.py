"""From the scene to a run: which segment is which vertebra, and the files that it starts from.

Levels are as the library reads them and as the user corrects them.  Copies are in world
coordinates; the scene itself stays untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import slicer
import slicer.util
import vtk

from ..anatomy.label_conventions import LEVELS, UNKNOWN, VERTEBRA_CODE, Kind
from ..anatomy.labelling import Assignment, assign
from ..anatomy.segment_names import is_unnamed, meaning_of_entry, meaning_of_name
from ..errors import InputError
from ..files import make_folder
from ..imaging.image_file import write_image
from ..imaging.segmentation import Segment, Segmentation
from ..imaging.volume import Grid, Volume, move_patch, patch_of, to_sitk, triple
from .geometry import (
    LABELMAP,
    arrayOfImage,
    asMatrix,
    gridOfImage,
    hasVoxels,
    isRectangular,
    localGrid,
    moved,
    startOn,
    toWorld,
)

BY_USER = "set by you"
_WHY = {
    "code": "by its code",
    "name": "by its name",
    "no name": "has no name",
    "unknown name": "name not understood",
}


class RowProblem(Enum):
    """Why a correction of the user was not taken over."""

    NOT_A_LEVEL = "not a level"
    TAKEN = "taken"


@dataclass(frozen=True)
class LevelRow:
    """The level of one segment, and the evidence for it (``why``, a text for the user).

    ``level`` is empty where none is known, and for a ``body`` that holds all bodies in one segment.
    """

    segmentID: str
    name: str
    value: int
    level: str
    kind: Kind
    why: str
    problem: RowProblem | None = None


def levelRows(
    segmentationNode: Any,
    corrections: Mapping[str, str] | None = None,
    convention: str | None = None,
) -> list[LevelRow]:
    """One row per segment, in Slicer's order.

    ``corrections`` are what the user says, by segment ID: a level ("L1"), also with what it is
    ("L1 body", "L1 vertebra"), "vertebral bodies" for all bodies in one, or "" for no vertebra.
    A level goes to one vertebra and one body, first to those the user set.  ``convention`` is that
    of label values without names, as in ``anatomy.labelling.assign``.
    """
    segments = tuple(_segments(segmentationNode))
    name = segmentationNode.GetName() or "segmentation"
    try:
        rows = [_row(a) for a in assign(Segmentation((), segments, name), convention)]
    except InputError:
        rows = [_unknown(segment) for segment in segments]
    said = corrections or {}
    rows = [_corrected(r, said[r.segmentID]) if r.segmentID in said else r for r in rows]
    return _withoutDoubles(rows, said)


def _segments(segmentationNode: Any) -> list[Segment]:
    segmentation = segmentationNode.GetSegmentation()
    found = []
    for n, segmentId in enumerate(segmentation.GetSegmentIDs()):
        segment = segmentation.GetSegment(segmentId)
        name, entry = segment.GetName() or "", segment.GetTerminology() or ""
        found.append(Segment(segmentId, name, segment.GetLabelValue(), n, entry))
    return found


def _row(assignment: Assignment) -> LevelRow:
    segment, source = assignment.segment, assignment.source
    evidence, comma, rest = source.partition(",")
    why = assignment.problem or _WHY.get(evidence, f"by {evidence}") + comma + rest
    level = assignment.level or ""
    return LevelRow(segment.id, segment.name, segment.value, level, assignment.kind, why)


def _unknown(segment: Segment) -> LevelRow:
    """Describe a segment where no segment has a level."""
    meaning = meaning_of_entry(segment.terminology)
    source = "code" if meaning else "name"
    meaning = meaning or meaning_of_name(segment.name) or meaning_of_name(segment.id)
    if meaning is None:
        nameless = is_unnamed(segment.name) and is_unnamed(segment.id)
        meaning, source = UNKNOWN, "no name" if nameless else "unknown name"
    why = meaning.problem or _WHY[source]
    return LevelRow(segment.id, segment.name, segment.value, "", meaning.kind, why)


def _corrected(row: LevelRow, text: str) -> LevelRow:
    text = text.strip()
    if not text or text.lower() == "other":
        return replace(row, level="", kind="other", why=BY_USER)
    meaning = meaning_of_name(text)
    if meaning is None or not (meaning.level or meaning.kind == "body"):
        return replace(
            row,
            level="",
            kind="vertebra",
            why=f'"{text}" is not a level',
            problem=RowProblem.NOT_A_LEVEL,
        )
    bare = text.upper() in LEVELS
    kind: Kind = "body" if bare and row.kind == "body" else meaning.kind
    return replace(row, level=meaning.level or "", kind=kind, why=BY_USER)


def _withoutDoubles(rows: Sequence[LevelRow], said: Mapping[str, str]) -> list[LevelRow]:
    """Take a level that the user gave to one segment from another that was read as it."""
    owner: dict[tuple[str, Kind], LevelRow] = {}
    for row in sorted(rows, key=lambda r: r.segmentID not in said):
        if row.level:
            owner.setdefault((row.level, row.kind), row)
    result = []
    for row in rows:
        first = owner.get((row.level, row.kind), row)
        if first is not row:
            taken = f'"{first.name}" is {row.level} already'
            row = replace(row, level="", kind="vertebra", why=taken, problem=RowProblem.TAKEN)
        result.append(row)
    return result


__all__ = [
    *("Inputs", "LevelRow", "levelRows", "levelsAt", "modality", "placesOf", "problems"),
    *("thinned", "worldGrid", "writeInputs"),
]

# What Slicer's DICOM reader says that voxels are (DICOM part 16).
_QUANTITIES = {"110852": "MR", "112031": "CT"}


def problems(
    ctNode: Any,
    segmentationNode: Any,
    corrections: Mapping[str, str] | None = None,
    bodiesNode: Any = None,
) -> list[str]:
    """Return why a run cannot start, one line each, for the user; empty where it can."""
    found = [*_problemsOfCt(ctNode), *_problemsOfSegmentation(segmentationNode, corrections or {})]
    if bodiesNode is not None and not any(r.kind == "body" for r in levelRows(bodiesNode)):
        found.append(
            f'No segment of "{bodiesNode.GetName()}" is understood as a vertebral body: choose'
            " another segmentation of the bodies, or none."
        )
    if not found and not _overlap(ctNode, segmentationNode):
        found.append(
            f'"{segmentationNode.GetName()}" does not overlap with the CT "{ctNode.GetName()}":'
            " choose the segmentation of this CT."
        )
    return found


def modality(volumeNode: Any) -> str:
    """Return the DICOM modality ("CT", "MR", ...) where the scene knows it, else ""."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy else 0
    while item and item != hierarchy.GetSceneItemID():
        said = hierarchy.GetItemAttribute(item, attribute)
        if said:
            return str(said)
        item = hierarchy.GetItemParent(item)
    quantity = volumeNode.GetVoxelValueQuantity()
    return _QUANTITIES.get(quantity.GetCodeValue() or "", "") if quantity else ""


def _problemsOfCt(ctNode: Any) -> list[str]:
    if ctNode is None or ctNode.GetScene() is None:
        return ["Choose a CT volume."]
    name = f'"{ctNode.GetName()}"'
    if ctNode.IsA("vtkMRMLLabelMapVolumeNode"):
        return [f"{name} is a label map: choose the CT itself."]
    image = ctNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or not image.GetNumberOfPoints():
        return [f"{name} is empty: load the CT again or choose another volume."]
    if image.GetNumberOfScalarComponents() > 1:
        count = image.GetNumberOfScalarComponents()
        return [f"{name} has {count} values per voxel, a CT has one: choose another volume."]
    if min(image.GetDimensions()) < 2:
        return [f"{name} is a single slice: choose a CT volume."]
    said = modality(ctNode)
    if said not in ("", "CT"):
        return [f"{name} is {said} by its DICOM data, and only CT can be analysed."]
    matrix = toWorld(ctNode)
    if matrix is None:
        return [
            f"{name} is under a transform that bends it: harden the transform first"
            " (in the module Transforms)."
        ]
    if not isRectangular(moved(localGrid(ctNode), matrix)):
        return [
            f"{name} has slanted axes (gantry tilt or a shearing transform): resample it first."
        ]
    return []


def _problemsOfSegmentation(node: Any, corrections: Mapping[str, str]) -> list[str]:
    if node is None or node.GetScene() is None:
        return ["Choose a segmentation of the vertebrae."]
    name = f'"{node.GetName()}"'
    segmentation = node.GetSegmentation()
    if segmentation is None or segmentation.GetNumberOfSegments() == 0:
        return [f"{name} has no segments: segment the vertebrae first."]
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    if bounds[0] > bounds[1]:
        return [f"{name} is empty: no segment has a voxel."]
    rows = levelRows(node, corrections)
    wrong = [
        f"{r.name}: {r.why}: use C1 to C7, T1 to T13, L1 to L6 or S1."
        for r in rows
        if r.segmentID in corrections and r.problem is RowProblem.NOT_A_LEVEL
    ]
    twice = [
        f"{r.name}: {r.why}. Give each level once."
        for r in rows
        if r.segmentID in corrections and r.problem is RowProblem.TAKEN
    ]
    if not wrong + twice and not any(row.level for row in rows):
        return [f"No segment of {name} is understood as a vertebra: set the levels in the table."]
    return [*wrong, *twice]


def _overlap(ctNode: Any, segmentationNode: Any) -> bool:
    boxes = []
    for node in (ctNode, segmentationNode):
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        boxes.append(vtk.vtkBoundingBox(bounds))
    return bool(boxes[0].Intersects(boxes[1]))


# A segment that may be a vertebra but has no level: the run reports it as not analysed.
_VERTEBRA = f"~SCT^123037004^Anatomical Structure~SCT^{VERTEBRA_CODE}^Vertebra~^^~~^^~^^"


@dataclass(frozen=True)
class Inputs:
    """What ``hideseekseg segment`` is given; ``labels`` is its option of that name."""

    ct: Path
    segmentation: Path
    labels: str = "names"
    bodies: Path | None = None


def writeInputs(
    ctNode: Any,
    segmentationNode: Any,
    corrections: Mapping[str, str],
    folder: str | Path,
    bodiesNode: Any = None,
) -> Inputs:
    """Write the CT and the vertebrae as they lie in the world, under names that say the levels.

    Transforms are applied to the copies; the segmentation keeps its own lattice unless a transform
    bends or shears it, then it takes the CT's.  ``bodiesNode`` is another segmentation, whose
    segments of vertebral bodies are used.  Raises InputError where the folder cannot be written
    or nothing is segmented.
    """
    folder = Path(folder)
    make_folder(folder)
    grid = worldGrid(ctNode)
    ct = Volume(slicer.util.arrayFromVolume(ctNode), grid, ctNode.GetName() or "")
    inputs = Inputs(folder / "ct.nrrd", folder / "vertebrae.seg.nrrd")
    write_image(inputs.ct, to_sitk(ct))
    rows = [row for row in levelRows(segmentationNode, corrections) if row.kind != "other"]
    _writeSegments(inputs.segmentation, segmentationNode, rows, grid)
    if bodiesNode is None:
        return inputs
    bodies = folder / "bodies.seg.nrrd"
    rows = [row for row in levelRows(bodiesNode) if row.kind == "body"]
    _writeSegments(bodies, bodiesNode, rows, grid)
    return Inputs(inputs.ct, inputs.segmentation, bodies=bodies)


def worldGrid(ctNode: Any) -> Grid:
    """Return where the CT's voxels lie in the world (LPS), as a run is given them.

    Raises InputError where a transform bends it.
    """
    matrix = toWorld(ctNode)
    if matrix is None:
        raise InputError(ctNode.GetName() or "CT", "is under a transform that bends it: harden it")
    return moved(localGrid(ctNode), matrix)


def placesOf(
    node: Any, rows: Sequence[LevelRow], ct: Grid, most: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Return at most ``most`` positions (N, 3) in LPS mm in each level's voxels, by level.

    ``rows`` are those of the segmentation ``node``; ``ct`` is where the CT lies in the world.
    """
    found: dict[str, npt.NDArray[np.float64]] = {}
    for layer in _layers(node, [row for row in rows if row.level], ct):
        for value, row in layer.rows.items():
            voxels = np.argwhere(layer.array == value)
            if len(voxels):
                found[row.level] = layer.grid.lps(thinned(voxels, most)[:, ::-1])
    return found


def thinned(points: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Return at most ``most`` of these points (N, ...), evenly chosen."""
    return points[:: max(-(-len(points) // most), 1)]


def levelsAt(
    node: Any, rows: Sequence[LevelRow], ct: Grid, places: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, dict[str, float]]:
    """Return the share of each place's positions that lies in each level of a segmentation.

    ``places`` are positions (N, 3) in LPS mm by any name, which is the key of what is returned;
    other arguments as of ``placesOf``.
    """
    shares: dict[str, dict[str, float]] = {name: {} for name in places}
    for layer in _layers(node, [row for row in rows if row.level], ct):
        for name, points in places.items():
            index = np.rint(layer.grid.ijk(points)).astype(int)[:, ::-1]
            inside = index[((index >= 0) & (index < layer.array.shape)).all(axis=1)]
            values = layer.array[tuple(inside.T)]
            for value, row in layer.rows.items():
                share = float((values == value).sum()) / max(len(points), 1)
                shares[name][row.level] = max(share, shares[name].get(row.level, 0.0))
    return shares


@dataclass(frozen=True)
class _Layer:
    """A label image (K, J, I) in the world, and which rows are which of its values."""

    array: npt.NDArray[Any]
    grid: Grid
    rows: dict[int, LevelRow]


def _writeSegments(path: Path, node: Any, rows: Sequence[LevelRow], ct: Grid) -> None:
    layers = [layer for layer in _layers(node, rows, ct) if layer.array.any()]
    if not layers:
        raise InputError(node.GetName() or "segmentation", "is empty: no vertebra has a voxel")
    grid = _commonGrid([layer.grid for layer in layers])
    images = [to_sitk(Volume(_onGrid(layer, grid), grid)) for layer in layers]
    kinds = [image.GetPixelID() for image in images]
    images = [sitk.Cast(image, max(kinds)) for image in images]
    image = sitk.Compose(images) if len(images) > 1 else images[0]
    segments = [(n, value, row) for n, x in enumerate(layers) for value, row in x.rows.items()]
    segments.sort(key=lambda s: not s[2].level)  # a level goes to the first that is read as it
    for number, (layer, value, row) in enumerate(segments):
        known = bool(row.level) or row.kind == "body"
        for key, text in {
            "ID": f"Segment_{number}",  # names nothing: the name alone counts
            "Name": _nameOf(row) if known else " ".join(row.name.split()),
            "LabelValue": str(value),
            "Layer": str(layer),
            "Tags": "" if known else f"TerminologyEntry:{_VERTEBRA}|",
        }.items():
            image.SetMetaData(f"Segment{number}_{key}", text)
    write_image(path, image)


def _nameOf(row: LevelRow) -> str:
    if not row.level:
        return "vertebral bodies"
    return f"{row.level} vertebral body" if row.kind == "body" else f"{row.level} vertebra"


def _layers(node: Any, rows: Sequence[LevelRow], ct: Grid) -> list[_Layer]:
    """Return the segments' label images, those that share one together, moved to the world."""
    segmentation = _withLabelmap(node, ct)
    byImage: dict[int, list[LevelRow]] = {}
    for row in rows:
        byImage.setdefault(segmentation.GetLayerIndex(row.segmentID), []).append(row)
    layers = []
    for shared in byImage.values():
        image = segmentation.GetSegment(shared[0].segmentID).GetRepresentation(LABELMAP)
        if not hasVoxels(image):
            continue
        values = {segmentation.GetSegment(r.segmentID).GetLabelValue(): r for r in shared}
        array, grid = _inWorld(image, node, ct)
        array = np.where(np.isin(array, list(values)), array, 0)
        layers.append(_Layer(array.astype(np.min_scalar_type(max(values))), grid, values))
    return layers


def _withLabelmap(node: Any, ct: Grid) -> Any:
    """Return the segmentation, or a copy with label images of one that has only surfaces."""
    segmentation = node.GetSegmentation()
    if segmentation.ContainsRepresentation(LABELMAP):
        return segmentation
    matrix = toWorld(node)
    own = ct if matrix is None else moved(ct, np.linalg.inv(matrix))
    reference = _emptyImage(own)
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    converter = slicer.vtkSegmentationConverter
    name = converter.GetReferenceImageGeometryParameterName()
    copy.SetConversionParameter(name, converter.SerializeImageGeometry(reference))
    if not copy.CreateRepresentation(LABELMAP):
        raise InputError(node.GetName() or "segmentation", "cannot be turned into a label map")
    return copy


def _inWorld(image: Any, node: Any, ct: Grid) -> tuple[npt.NDArray[Any], Grid]:
    matrix = toWorld(node)
    if matrix is not None:
        grid = moved(gridOfImage(image), matrix)
        if isRectangular(grid):
            return arrayOfImage(image), grid
    transform = vtk.vtkGeneralTransform()
    node.GetParentTransformNode().GetTransformToWorld(transform)
    out = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, _emptyImage(ct), out, False, False, transform
    )
    return arrayOfImage(out), gridOfImage(out)


def _emptyImage(grid: Grid) -> Any:
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*grid.shape[::-1])
    image.SetImageToWorldMatrix(asMatrix(grid))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    return image


def _commonGrid(grids: Sequence[Grid]) -> Grid:
    """Return the first grid's lattice, as large as all of them."""
    first = grids[0]
    corners = [first.ijk(grid.corners) for grid in grids]
    low = np.floor(np.min([c.min(axis=0) for c in corners], axis=0) + 1e-3)[::-1]
    high = np.ceil(np.max([c.max(axis=0) for c in corners], axis=0) - 1e-3)[::-1]
    return first.cut(low, triple(high - low + 1))


def _onGrid(layer: _Layer, grid: Grid) -> npt.NDArray[Any]:
    array = np.zeros(grid.shape, layer.array.dtype)
    start = startOn(grid, layer.grid)
    if start is not None:
        k, j, i = (slice(s, s + n) for s, n in zip(start, layer.array.shape))
        array[k, j, i] = layer.array
        return array
    for value in layer.rows:
        patch = patch_of(layer.array == value)
        there = patch and move_patch(patch, layer.grid, grid)
        if there:
            there.paint(array, value)
    return array
