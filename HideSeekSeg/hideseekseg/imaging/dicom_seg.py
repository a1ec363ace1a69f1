"""Segmentations from DICOM: SEG objects (binary, fractional and label maps) and RT structure sets.

ITK knows neither the segments nor the positions of their frames, so pydicom reads them, which comes
with 3D Slicer.  It is imported only here, where a file of that kind is to be read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..errors import InputError
from ..files import files_in
from ..plain_data import counted
from .dicom_copies import copies_note, without_equal_files
from .image_file import is_dicom
from .segmentation import Segmentation, layered
from .volume import FRAME_OF_REFERENCE, Grid, Patch, patch_of, triple

SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"

UNEVEN = 0.05  # of a step, by which a frame may lie beside its place
ROUNDED_MM = 0.051  # the same where steps are small, and heights written with one decimal
SAME_PLANE_MM = 0.01
MOST_SLICES = 10_000
CONTOUR_PIXEL_MM = 0.8  # to which contours are filled
MOST_GAP_MM = 10.5  # between contours of one structure, over which it is taken to go on

Floats = npt.NDArray[np.float64]


def find_dicom_segmentations(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the SEG objects and structure sets of a folder, and a note on copies of them."""
    files = [path for path in files_in(folder, deep=False) if is_dicom(path)]
    found = [path for path in files if _class_of(path) in (*SEG, STRUCTURE_SET)]
    kept, copies = without_equal_files(found, _instance_of)
    return kept, copies_note(len(copies))


def read_dicom_segmentation(path: Path, wanted: Callable[[str], bool]) -> Segmentation:
    """Return a DICOM SEG or RT structure set as a segmentation, named and coded as it says.

    Segments and structures whose name is not ``wanted`` are left out.  A structure set says no
    lattice: its contours are filled on their own planes, on pixels of ``CONTOUR_PIXEL_MM``, and a
    structure that is drawn on fewer planes than others also between them; notes say so.
    Raises InputError for any other DICOM object, and for one that is damaged, compressed in a way
    that cannot be read, or whose frames are not evenly spaced.
    """
    kind = _class_of(path)
    if kind not in (*SEG, STRUCTURE_SET):
        modality = _load(path, stop_before_pixels=True).get("Modality", "unknown")
        raise InputError(path, f"is DICOM of modality {modality}, not a segmentation (SEG)")
    with _damage_told(path):
        dataset = _load(path)
        read = _structure_set if kind == STRUCTURE_SET else _seg
        found = read(path, dataset, wanted)
        uid = _frame_of_reference(dataset)
    identity = {FRAME_OF_REFERENCE: uid} if uid else {}
    layers = tuple(replace(layer, identity=identity) for layer in found.layers)
    return replace(found, layers=layers)


def _frame_of_reference(dataset: Any) -> str:
    """Return the UID of the frame that positions are told in; empty where it is not stated.

    A structure set states it for each structure, or for all together.
    """
    structures = dataset.get("StructureSetROISequence") or ()
    told = {str(one.get("ReferencedFrameOfReferenceUID", "")) for one in structures} - {""}
    if not told:
        frames = dataset.get("ReferencedFrameOfReferenceSequence") or ()
        told = {str(one.get("FrameOfReferenceUID", "")) for one in frames} - {""}
    if not told:
        told = {str(dataset.get("FrameOfReferenceUID", ""))}
    return told.pop() if len(told) == 1 else ""


def stated_frame_of_reference(path: Path) -> str:
    """Return the UID of a segmentation's frame of reference by its header; empty without one.

    Raises InputError where the header is damaged.
    """
    with _damage_told(path):
        return _frame_of_reference(_load(path, stop_before_pixels=True))


def _instance_of(path: Path) -> str:
    with _damage_told(path):
        return str(_load(path, stop_before_pixels=True).get("SOPInstanceUID", ""))


def _class_of(path: Path) -> str:
    with _damage_told(path):
        return str(_load(path, stop_before_pixels=True).get("SOPClassUID", ""))


def _load(path: Path, **options: Any) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise InputError(path, "is a DICOM segmentation: pydicom is needed to read it") from error
    return pydicom.dcmread(path, **options)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what pydicom raises over a damaged or unusual file into one line."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(path, f"has pixels that cannot be read: {_first_line(error)}") from error
    except Exception as error:  # pydicom raises of all kinds for files that break the standard
        raise InputError(path, f"is a damaged DICOM object: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _seg(path: Path, dataset: Any, wanted: Callable[[str], bool]) -> Segmentation:
    frames = dataset.PerFrameFunctionalGroupsSequence
    positions = np.array([_group(dataset, f, "PlanePosition").ImagePositionPatient for f in frames])
    grid, index = _grid(path, dataset, positions.astype(float))
    pixels = dataset.pixel_array.reshape(len(frames), *grid.shape[1:])
    masks: dict[int, npt.NDArray[np.bool_]] = {}

    def add(number: int, k: int, mask: npt.NDArray[np.bool_]) -> None:
        if mask.any():
            masks.setdefault(number, np.zeros(grid.shape, bool))[k] |= mask

    about = {int(item.SegmentNumber): item for item in dataset.SegmentSequence}
    keep = {n for n, item in about.items() if wanted(str(item.get("SegmentLabel", "")))}
    if dataset.SegmentationType == "LABELMAP":
        for frame, k in zip(pixels, index):
            for number in set(np.unique(frame).tolist()) & keep:
                add(number, k, frame == number)
    else:
        fractional = dataset.SegmentationType == "FRACTIONAL"
        half = int(dataset.get("MaximumFractionalValue", 1)) / 2 if fractional else 0.5
        for item, frame, k in zip(frames, pixels, index):
            number = int(_group(dataset, item, "SegmentIdentification").ReferencedSegmentNumber)
            if number in keep:
                add(number, k, frame >= half)
    patches = [
        (str(about[n].get("SegmentLabel", "")), patch)
        for n, mask in sorted(masks.items())
        if (patch := patch_of(mask)) is not None
    ]
    if not patches:
        raise InputError(path, "is an empty segmentation: no segment of a vertebra has a voxel")
    return layered(patches, grid, path, [_entry(about[n]) for n in sorted(masks)])


def _group(dataset: Any, frame: Any, name: str) -> Any:
    """Return a functional group of a frame, which may be told once for all frames."""
    keyword = f"{name}Sequence"
    if keyword not in frame:
        frame = dataset.SharedFunctionalGroupsSequence[0]
    return getattr(frame, keyword)[0]


def _grid(path: Path, dataset: Any, positions: Floats) -> tuple[Grid, list[int]]:
    """Return the lattice of frames at ``positions`` (n, 3: LPS mm), and each one's index k."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    planes = [_group(dataset, f, "PlaneOrientation") for f in frames]
    axes = np.array([plane.ImageOrientationPatient for plane in planes], float)
    measures = [_group(dataset, f, "PixelMeasures") for f in frames]
    pixel = np.array([m.PixelSpacing for m in measures], float)
    if np.ptp(axes, axis=0).max() > 1e-3 or np.ptp(pixel, axis=0).max() > 1e-3:
        raise InputError(path, "has frames of different orientation or pixel size")
    along_row, along_column = axes[0].reshape(2, 3)
    normal = np.cross(along_row, along_column)
    heights = positions @ normal
    drift = positions - positions[0] - np.outer(heights - heights[0], normal)
    if np.abs(drift).max() > 0.1:
        raise InputError(path, "has frames that do not lie above each other")
    alone = measures[0].get("SpacingBetweenSlices") or measures[0].get("SliceThickness") or 0
    step, index = _even_steps(path, heights, float(alone))
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = along_row * pixel[0, 1], along_column * pixel[0, 0]
    matrix[:3, 2] = normal * step
    # A free slice at both ends: a label does not end there because the volume does.
    matrix[:3, 3] = positions[int(np.argmin(heights))] - normal * step
    shape = (max(index) + 3, int(dataset.Rows), int(dataset.Columns))
    return Grid(shape, matrix), [k + 1 for k in index]


def _even_steps(path: Path, heights: Floats, alone: float) -> tuple[float, list[int]]:
    """Return the distance of slices in mm and the index of each height; slices may be missing.

    What a file says of thickness or spacing is not asked: slices may be thinner than they lie
    apart, and then every second one would be empty.  It is ``alone`` where there is one height;
    raises InputError where that is 0 then.
    """
    planes = np.sort(heights)
    planes = planes[np.concatenate([[True], np.diff(planes) > SAME_PLANE_MM])]
    gaps = np.diff(planes)
    if not gaps.size:
        if alone <= 0:
            raise InputError(path, "lies in a single slice, and does not state how thick that is")
        return alone, [0] * len(heights)
    if np.ptp(planes) <= MOST_SLICES * gaps.min():
        # Neighbours' mean, and then that over all: heights are rounded, and errors would add up.
        step = float(gaps[gaps < 1.5 * gaps.min()].mean())
        at = np.concatenate([[0], np.rint(gaps / step).astype(int).cumsum()])
        step = float(np.polyfit(at, planes, 1)[0])
        place = (heights - planes[0]) / step
        off = place - np.rint(place)
        off -= (off.max() + off.min()) / 2
        if np.abs(off).max() * step <= max(UNEVEN * step, ROUNDED_MM):
            return step, np.rint(place).astype(int).tolist()
    raise InputError(
        path, f"has unevenly spaced slices: {gaps.min():.3f} to {gaps.max():.3f} mm apart"
    )


def _entry(segment: Any) -> str:
    """Return a segment's codes as Slicer serialises them: seven parts joined by ``~``."""

    def triplet(holder: Any, name: str) -> str:
        items = getattr(holder, name, None)
        if not items:
            return "^^"
        code = items[0]
        value = code.get("CodeValue") or code.get("LongCodeValue") or ""
        return f"{code.get('CodingSchemeDesignator', '')}^{value}^{code.get('CodeMeaning', '')}"

    def modified(name: str, modifier: str) -> list[str]:
        items = getattr(segment, name, None)
        return [triplet(segment, name), triplet(items[0], modifier) if items else "^^"]

    kind = modified(
        "SegmentedPropertyTypeCodeSequence", "SegmentedPropertyTypeModifierCodeSequence"
    )
    region = modified("AnatomicRegionSequence", "AnatomicRegionModifierSequence")
    category = triplet(segment, "SegmentedPropertyCategoryCodeSequence")
    return "~".join(["DICOM SEG", category, *kind, "Anatomic codes", *region])


def _structure_set(path: Path, dataset: Any, wanted: Callable[[str], bool]) -> Segmentation:
    names = {int(r.ROINumber): str(r.get("ROIName", "")) for r in dataset.StructureSetROISequence}
    contours: dict[int, dict[bytes, Floats]] = defaultdict(dict)  # several may have one name
    for structure in dataset.ROIContourSequence:
        number = int(structure.ReferencedROINumber)
        if not wanted(names.get(number, "")):
            continue
        for contour in structure.get("ContourSequence", ()):
            kind = str(contour.get("ContourGeometricType", ""))
            points = np.array(contour.get("ContourData") or (), float).reshape(-1, 3)
            if kind.startswith(("CLOSED_PLANAR", "CLOSEDPLANAR")) and len(points) > 2:
                contours[number][points.tobytes()] = points  # a copy would cut out its original
    every = [contour for own in contours.values() for contour in own.values()]
    if not every:
        raise InputError(path, "contains no closed contour of a vertebra")
    axis = int(np.argmin(np.max([np.ptp(contour, axis=0) for contour in every], axis=0)))
    if max(np.ptp(contour[:, axis]) for contour in every) > 0.1:
        raise InputError(path, "has contours on oblique planes; export it as DICOM SEG")
    heights = np.array([contour[:, axis].mean() for contour in every])
    step, _ = _even_steps(path, heights, 0.0)
    grid = _contour_grid(np.concatenate(every), axis, step)
    patches, notes = [], []
    for number, own in contours.items():
        patch = _filled(list(own.values()), grid)
        if patch is not None:
            patches.append((names[number], patch))
            notes += [f"{names[number]}: {said}" for said in _bridge(patch, step)]
    return layered(patches, grid, path, notes=tuple(notes))


def _contour_grid(points: Floats, axis: int, step: float) -> Grid:
    """Return a lattice along the patient's axes whose slices (k) are the planes of contours."""
    order = [n for n in range(3) if n != axis] + [axis]  # i, j, k
    spacing = np.array([CONTOUR_PIXEL_MM, CONTOUR_PIXEL_MM, step])
    margin = np.array([2 * CONTOUR_PIXEL_MM, 2 * CONTOUR_PIXEL_MM, step])  # as in ``_grid``
    low, high = points.min(axis=0)[order] - margin, points.max(axis=0)[order] + margin
    shape = np.rint((high - low) / spacing).astype(int) + 1
    matrix = np.eye(4)
    matrix[:3, :3] = 0.0
    for column, world in enumerate(order):
        matrix[world, column] = spacing[column]
        matrix[world, 3] = low[column]
    return Grid(triple(shape[::-1]), matrix)


def _filled(contours: list[Floats], grid: Grid) -> Patch | None:
    """Return the voxels within contours (n, 3: LPS mm); one within another is a hole."""
    from matplotlib.path import Path as Polygon

    mask = np.zeros(grid.shape, bool)
    for contour in contours:
        ijk = grid.ijk(contour)
        k = int(np.rint(ijk[:, 2].mean()))
        low = np.maximum(np.floor(ijk[:, :2].min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(ijk[:, :2].max(axis=0)).astype(int) + 1, grid.shape[:0:-1])
        j, i = np.mgrid[low[1] : high[1], low[0] : high[0]]
        pixels = np.column_stack([i.ravel(), j.ravel()])
        inside = Polygon(ijk[:, :2]).contains_points(pixels).reshape(i.shape)
        mask[k, low[1] : high[1], low[0] : high[0]] ^= inside
    return patch_of(mask)


def _bridge(patch: Patch, step: float) -> list[str]:
    """Fill a structure on the planes between those it is drawn on; return what was done.

    Other structures may be drawn on more planes, ``step`` mm apart; without it, it would be
    stripes.  Between two planes it has the mean of their signed distances to the outline (Raya and
    Udupa, IEEE Trans Med Imaging 1990;9:32-42).
    """
    drawn = np.flatnonzero(patch.array.any(axis=(1, 2))).tolist()
    filled, notes = 0, []
    for below, above in pairwise(drawn):
        if above - below < 2:
            continue
        if (above - below) * step > MOST_GAP_MM:
            notes.append(f"is drawn in parts {(above - below) * step:.1f} mm apart")
            continue
        first, last = (_depth(patch.array[k]) for k in (below, above))
        for k in range(below + 1, above):
            weight = (k - below) / (above - below)
            patch.array[k] = (1 - weight) * first + weight * last > 0
        filled += above - below - 1
    if filled:
        notes.append(f"was filled in on {counted(filled, 'plane')} between its contours")
    return notes


def _depth(plane: npt.NDArray[np.bool_]) -> Floats:
    """Return how many pixels each one lies within the outline, negative outside of it."""
    framed = np.pad(plane, 1)  # a plane without background has no distance to it
    inner, outer = (ndimage.distance_transform_edt(x) for x in (framed, ~framed))
    return np.asarray(inner - outer)[1:-1, 1:-1]
