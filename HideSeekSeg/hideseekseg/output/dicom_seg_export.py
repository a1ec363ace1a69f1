"""Lesions as a DICOM segmentation (SEG) on the instances of the CT series itself, by highdicom.

highdicom is optional (``pip install hideseekseg[dicom]``) and imported where it is used.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..anatomy.labelling import SNOMED
from ..errors import InputError, TiltedGantryError
from ..imaging.reading import read_ct
from ..imaging.volume import Grid, Patch, Volume, case_name, content_hash, move_patch
from ..plain_data import first_line
from ..review.items import Item
from .result_folder import StoredResult
from .segment_description import TYPE_COLOURS, shade

SERIES_NUMBER = 9300
MANUFACTURER = "HideSeekSeg"
# DICOM and SNOMED have no code for these types: they are private, and declared in every object.
SCHEME = "99HIDESEEKSEG"
TYPE_CODES: dict[str, tuple[str, str, str]] = {
    "lytic": ("LYTIC", SCHEME, "Osteolytic lesion"),
    "blastic": ("BLASTIC", SCHEME, "Osteoblastic lesion"),
}
NAMESPACE = uuid.UUID("6a0c6f0e-57a7-4f6c-9d55-3c7a3f7e2f11")
# Standard attributes that may be empty, but that a derived object must have.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_UIDS = {
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "SOPInstanceUID": "instance",
    "FrameOfReferenceUID": "frame of reference",
}
_OF_ONE_SERIES = {
    **{keyword: f"{name} UID" for keyword, name in _UIDS.items() if name != "instance"},
    "PatientID": "patient number",
    "PatientName": "patient name",
}


def read_source(stored: StoredResult, ct: Path, series: str = "") -> Volume:
    """Return the DICOM series that a result is of; raises InputError for any other.

    Its voxels are compared, not its name.  The result may be of another file of the same scan, such
    as a NIfTI whose axes run in another order.  A series with a tilted gantry is refused: a result
    of a corrected copy has other voxels than its instances.
    """
    sha256 = stored.scan.get("sha256", "")
    if not sha256:
        cause = "does not say which scan it is of (version 0.1 made it): run it again"
        raise InputError(stored.folder, cause)
    try:
        volume = read_ct(ct, series or stored.scan.get("series_uid", ""))
    except TiltedGantryError as error:
        cause = "was taken with a tilted gantry: its slices are not those of a corrected copy, so a"
        raise InputError(ct, f"{cause} result of that copy cannot be written as DICOM") from error
    if not volume.planes:
        raise InputError(
            ct, "is not a DICOM series: DICOM objects refer to the instances of a series"
        )
    if not _same_scan(volume, stored.grid or volume.grid, sha256):
        theirs = f"not the one of the result ({case_name(stored.scan)})"
        raise InputError(ct, f"is another scan, {theirs}")
    return volume


def _same_scan(ct: Volume, grid: Grid, sha256: str) -> bool:
    """Return whether the CT, its axes turned to those of ``grid``, has this hash."""
    steps = np.linalg.inv(ct.grid.ijk_to_lps)[:3, :3] @ grid.ijk_to_lps[:3, :3]
    turn = np.rint(steps)  # column: an axis of the grid, row: the CT's axis that it is, or -1 times
    if np.abs(steps - turn).max() > 1e-3 or (np.abs(turn).sum(axis=0) != 1).any():
        return False
    axes = [2 - int(np.argmax(np.abs(turn[:, n]))) for n in (2, 1, 0)]
    backwards = turn.sum(axis=1) < 0
    first = [n - 1 if back else 0 for n, back in zip(ct.grid.shape[::-1], backwards)]
    order = tuple(slice(None, None, -1 if back else 1) for back in backwards[::-1])
    array = ct.array[order].transpose(axes)
    shift = ct.grid.lps(first) - grid.ijk_to_lps[:3, 3]
    if array.shape != grid.shape or np.abs(shift).max() > 0.01:
        return False
    kinds = (array, array.astype(np.float32))  # integers, and as NIfTI and Slicer may hold them
    return any(content_hash(kind, grid) == sha256 for kind in kinds)


def read_instances(ct: Volume) -> list[Any]:
    """Return the headers of the instances that a CT's slices are, in its order of slices.

    A multi-frame image is one.  Raises InputError where one lacks a UID, where two state the same,
    where they are not of one study, patient and frame of reference, and where the frames of several
    multi-frame images make the volume.
    """
    import pydicom

    files = list(dict.fromkeys(file for file, _ in ct.planes))
    if len(files) > 1 and len(files) < len(ct.planes):
        cause = "spreads its frames over several multi-frame images: one is needed"
        raise InputError(ct.source, cause)
    instances = []
    for file in files:
        try:
            found = pydicom.dcmread(file, stop_before_pixels=True)
        except Exception as error:  # pydicom raises of all kinds for files that break the standard
            raise InputError(file, f"cannot be read: {first_line(error)}") from error
        for keyword, name in _UIDS.items():
            if not found.get(keyword):
                raise InputError(file, f"states no {name} UID, which DICOM objects made of it need")
        for keyword in _MAY_BE_EMPTY:
            if keyword not in found:
                setattr(found, keyword, None)
        instances.append(found)
    _check_one_series(ct, [Path(file) for file in files], instances)
    return instances


def _check_one_series(ct: Volume, files: Sequence[Path], instances: Sequence[Any]) -> None:
    for keyword, name in _OF_ONE_SERIES.items():
        several = len({str(one.get(keyword)) for one in instances})
        if several > 1:
            cause = f"states {several} different {name}s in one series, as careless"
            raise InputError(
                ct.source, f"{cause} anonymisation leaves them; DICOM objects need one"
            )
    first: dict[str, Path] = {}
    for file, one in zip(files, instances):
        earlier = first.setdefault(str(one.SOPInstanceUID), file)
        if earlier != file:
            cause = f"states one instance UID for {earlier.name} and {file.name}, as careless"
            raise InputError(
                ct.source, f"{cause} anonymisation leaves them; DICOM objects need one of each"
            )


def dicom_seg(stored: StoredResult, ct: Volume, instances: Sequence[Any]) -> Any:
    """Return the lesions of a result as a DICOM SEG (a pydicom dataset), one segment a lesion.

    ``ct`` and ``instances`` are of ``read_source`` and ``read_instances``.  Raises InputError where
    there is no lesion, as a SEG cannot be empty, or where highdicom is not installed.
    """
    hd = highdicom()
    if not stored.lesions:
        raise InputError(stored.folder, "has no lesion, and a DICOM SEG cannot be empty")
    patches = [patch_on(ct, stored, lesion) for lesion in stored.lesions]
    described = [
        _segment(number, lesion, stored, tracking_uid(stored, lesion, instances[0]))
        for number, lesion in enumerate(stored.lesions, start=1)
    ]
    sources, pixels = _pixels(ct, instances, patches)
    _, _, step = ct.grid.spacing
    thickness = instances[0].get("SliceThickness") or float(step)
    measures = hd.PixelMeasuresSequence(_pixel_spacing(ct), float(thickness), float(step))
    try:
        made = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type="BINARY",
            segment_descriptions=described,
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name="HideSeekSeg",
            software_versions=__version__,
            device_serial_number=str(stored.run.get("weights_hash", ""))[:64] or "unknown",
            pixel_measures=measures,
            content_label="METASTASES" if stored.is_reviewed else "LESIONS",
            content_description="Vertebral lesions, research use only",
            content_creator_name=person_name(stored.reviewer) or None,
            series_description=_series_description(stored),
            specific_character_set="ISO_IR 192",  # UTF-8: names and comments of any script
        )
    except (AttributeError, TypeError, ValueError) as error:
        cause = f"cannot be the source of a DICOM SEG: {first_line(error)}"
        raise InputError(ct.source, cause) from error
    # highdicom takes those of the source, and where there is one slice the distance 1 mm.
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = measures
    declare_scheme(made)
    return made


def _series_description(stored: StoredResult) -> str:
    return f"HideSeekSeg lesions, {'reviewed' if stored.is_reviewed else 'not reviewed'}"


def declare_scheme(dataset: Any) -> None:
    """State in a DICOM object whose codes those of ``SCHEME`` are."""
    import pydicom

    scheme = pydicom.Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeName = "HideSeekSeg private codes"
    scheme.CodingSchemeVersion = "1"
    scheme.CodingSchemeResponsibleOrganization = "HideSeekSeg"
    dataset.CodingSchemeIdentificationSequence = [scheme]


def person_name(name: str) -> str:
    """Return a name as DICOM writes one that is not split into its parts; empty where it is."""
    plain = re.sub(r"[\\^=\x00-\x1f]", " ", name).strip()
    return f"{plain[:63]}^" if plain else ""


def tracking_uid(stored: StoredResult, lesion: Item, instance: Any) -> str:
    """Return the UID that a lesion has in every object made of this result, now and later.

    Names are given anew in every run and by every reader: what a run found is told apart by its
    score, which no review changes, and what a reader drew by the reader and its place.
    """
    run = stored.run
    schedule = run.get("schedule")
    parts = [str(instance.SeriesInstanceUID), run.get("weights_hash", ""), schedule, lesion.id]
    own = next((x for x in (*stored.lesions, *stored.others) if x.id == lesion.id), lesion)
    if own.missed:
        parts += [stored.reviewer, *(round(mm, 1) for mm in own.centroid_lps)]
    else:
        parts.append(round(own.score, 4))
    return f"2.25.{uuid.uuid5(NAMESPACE, json.dumps(parts, sort_keys=True)).int}"


def region_code(level: str) -> tuple[str, str, str]:
    """Return SNOMED's code of a vertebra: value, scheme, meaning."""
    code = SNOMED.get(level, SNOMED["L6"])
    return code, "SCT", "Vertebra" if code == SNOMED["L6"] else f"{level} vertebra"


def lesion_code(lesion: Item) -> tuple[str, str, str]:
    """Return SNOMED's code of a lesion: a metastasis only where a reader has accepted it."""
    if lesion.verdict == "accepted":
        return "14799000", "SCT", "Neoplasm, Secondary"
    return "52988006", "SCT", "Lesion"


def algorithm_of(stored: StoredResult) -> Any:
    """Return highdicom's identification of the method, its weights and its settings."""
    hd = highdicom()
    run = stored.run
    schedule = run.get("schedule", {})
    parameters = {
        "weights": f"{run.get('weights', 'unknown')} {str(run.get('weights_hash', ''))[:12]}",
        "schedule": str(schedule.get("name", "") if isinstance(schedule, dict) else ""),
        "threshold": f"{stored.threshold:g}",
    }
    return hd.AlgorithmIdentificationSequence(
        name="HideSeekSeg",
        family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=method_version(stored),
        parameters={key: value for key, value in parameters.items() if value.strip()},
    )


def method_version(stored: StoredResult) -> str:
    """Return the version that found the lesions, which may be older than this one."""
    versions = stored.run.get("versions", {})
    return str(versions.get("hideseekseg", "") or "unknown")


def _segment(number: int, lesion: Item, stored: StoredResult, uid: str) -> Any:
    hd = highdicom()
    coded = hd.sr.CodedConcept
    drawn = lesion.missed
    kind = "MANUAL" if drawn else "SEMIAUTOMATIC" if stored.is_reviewed else "AUTOMATIC"
    colour = [round(255 * c) for c in shade(TYPE_COLOURS[lesion.type], lesion.number)]
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=lesion.name[:64],
        segmented_property_category=coded("49755003", "SCT", "Morphologically Altered Structure"),
        segmented_property_type=coded(*lesion_code(lesion)),
        algorithm_type=kind,
        algorithm_identification=None if drawn else algorithm_of(stored),
        tracking_uid=uid,
        tracking_id=lesion.name[:64],
        anatomic_regions=[coded(*region_code(lesion.level))],
        display_color=hd.color.CIELabColor.from_rgb(*colour),
    )
    property_type = segment.SegmentedPropertyTypeCodeSequence[0]
    property_type.SegmentedPropertyTypeModifierCodeSequence = [coded(*TYPE_CODES[lesion.type])]
    score = "drawn by the reader" if drawn else f"score {lesion.score:.2f}"
    said = [f"{lesion.type}, {score}", f"verdict: {lesion.verdict}", lesion.comment]
    segment.SegmentDescription = "; ".join(text for text in said if text)[:1024]
    return segment


def patch_on(ct: Volume, stored: StoredResult, lesion: Item) -> Patch:
    """Return a lesion's voxels on the CT's own grid."""
    if stored.grid is None:
        raise ValueError("lesions without a grid")
    moved = move_patch(stored.patches[lesion.id], stored.grid, ct.grid)
    if moved is None:
        raise InputError(stored.folder, f"has {lesion.name} outside of the CT")
    return moved


def _pixel_spacing(ct: Volume) -> list[float]:
    column, row, _ = ct.grid.spacing
    return [float(row), float(column)]


def _pixels(
    ct: Volume, instances: Sequence[Any], patches: Sequence[Patch]
) -> tuple[list[Any], npt.NDArray[Any]]:
    """Return the instances to refer to, and a label for each of their pixels.

    Single slices that no lesion touches are left out; of a multi-frame image all frames stand in
    the order of its file.  Lesions that overlap get an array (frames, rows, columns) each, stacked
    along a last axis; for others one array holds their numbers.
    """
    if len(instances) == 1:
        count = int(instances[0].get("NumberOfFrames", 1))
        frame_of = {k: frame - 1 for k, (_, frame) in enumerate(ct.planes)}
        sources = list(instances)
    else:
        touched = sorted({k for p in patches for k in range(p.box[0].start, p.box[0].stop)})
        count = len(touched)
        frame_of = {k: n for n, k in enumerate(touched)}
        sources = [instances[k] for k in touched]
    shape = (count, *ct.grid.shape[1:])
    labels = np.zeros(shape, np.uint16)
    overlap = False
    for number, patch in enumerate(patches, start=1):
        at = _indices(patch, frame_of)
        overlap = overlap or bool(labels[at].any())
        labels[at] = number
    if not overlap:
        return sources, labels
    stacked = np.zeros((*shape, len(patches)), np.uint8)
    for number, patch in enumerate(patches):
        k, j, i = _indices(patch, frame_of)
        stacked[k, j, i, number] = 1
    return sources, stacked


def _indices(patch: Patch, frame_of: dict[int, int]) -> tuple[Any, Any, Any]:
    k, j, i = (np.argwhere(patch.array) + patch.start).T
    return np.array([frame_of[int(n)] for n in k]), j, i


def highdicom() -> Any:
    """Return highdicom, which only the exports to DICOM need; raises InputError without it."""
    try:
        import highdicom
    except ImportError as error:
        cause = (
            "highdicom is not installed, which DICOM objects are made with: pip install highdicom"
        )
        raise InputError("", cause) from error
    return highdicom
