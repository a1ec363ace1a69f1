"""What a result says as DICOM: measurements as SR (TID 1500, by highdicom), the report as PDF."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..imaging.volume import Patch, Volume, measure_patch
from ..plain_data import first_line
from ..review.burden import ALL, Burden, lesion_burden
from ..review.items import Item
from .dicom_seg_export import (
    MANUFACTURER,
    NAMESPACE,
    SCHEME,
    SERIES_NUMBER,
    TYPE_CODES,
    algorithm_of,
    declare_scheme,
    highdicom,
    lesion_code,
    method_version,
    patch_on,
    person_name,
    region_code,
    tracking_uid,
)
from .result_folder import StoredResult

Code = tuple[str, str, str]

_VOLUME: Code = ("118565006", "SCT", "Volume")
_DIAMETER: Code = ("81827009", "SCT", "Diameter")
_ATTENUATION: Code = ("112031", "DCM", "Attenuation Coefficient")
_MAXIMUM: Code = ("56851009", "SCT", "Maximum")
_MEAN: Code = ("373098007", "SCT", "Mean")
_DEVIATION: Code = ("386136009", "SCT", "Standard Deviation")
_MM3: Code = ("mm3", "UCUM", "cubic millimeter")
_MM: Code = ("mm", "UCUM", "millimeter")
_HU: Code = ("[hnsf'U]", "UCUM", "Hounsfield unit")
_ONE: Code = ("1", "UCUM", "no units")
_PERCENT: Code = ("%", "UCUM", "Percent")
# Codes of the private scheme, as neither DICOM nor SNOMED has one.
_SCORE: Code = ("SCORE", SCHEME, "Score of the method")
_P_MALIGNANT: Code = ("PMALIGNANT", SCHEME, "Probability that the vertebra is malignant")
_LESIONS: Code = ("NUMBER", SCHEME, "Number of lesions")
_SHARE: Code = ("SHAREOFBODY", SCHEME, "Share of the vertebral body")
_LESION_TYPE: Code = ("LESIONTYPE", SCHEME, "Type of lesion")
_BOTH: Code = ("LYTICANDBLASTIC", SCHEME, "Lytic and blastic lesions")
_VERDICT: Code = ("VERDICT", SCHEME, "Verdict of the reader")
_SPINE: Code = ("421060004", "SCT", "Vertebral column")


def dicom_sr(
    stored: StoredResult, ct: Volume, instances: Sequence[Any], segmentation: Any | None
) -> Any:
    """Return the measurements of a result as a DICOM SR (a pydicom dataset).

    It refers to the segments of ``segmentation``, as ``dicom_seg`` returns it for the same result,
    which may be None where there is no lesion.  Per lesion it holds volume, largest diameter, mean
    and standard deviation of HU, score, P(malignant) of the vertebra, type and verdict; per level
    and type, and for all together, the burden.  Raises InputError where the series cannot be
    referred to.
    """
    hd = highdicom()
    measured = [_measured(stored, ct, lesion) for lesion in stored.lesions]
    groups: list[Any] = [
        _lesion_group(stored, ct, lesion, number, instances, segmentation)
        for number, lesion in enumerate(measured, start=1)
    ]
    bodies = stored.bodies
    groups += [_burden_group(stored, row, instances[0]) for row in lesion_burden(measured, bodies)]
    try:
        report = hd.sr.MeasurementReport(
            observation_context=_observers(stored),
            procedure_reported=_coded(("25045-6", "LN", "CT unspecified body region")),
            imaging_measurements=groups,
            title=_coded(("126000", "DCM", "Imaging Measurement Report")),
        )
        evidence = [*([] if segmentation is None else [segmentation]), *instances]
        made = hd.sr.Comprehensive3DSR(
            evidence=evidence,
            content=report,
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER + 1,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
            software_versions=__version__,
            series_description="HideSeekSeg measurements, research use only",
            specific_character_set="ISO_IR 192",
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(ct.source, f"cannot be reported on: {first_line(error)}") from error
    declare_scheme(made)
    return made


ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
# Of the CT's instances: what the report is of, and whom.
_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "PatientAge", "PatientSize"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "StudyDescription", "PatientWeight"),
)


def dicom_report(stored: StoredResult, instances: Sequence[Any], pdf: bytes, title: str) -> Any:
    """Return a report's PDF as a DICOM object (a pydicom dataset) of the CT's study."""
    import pydicom

    hd = highdicom()
    first, now = instances[0], datetime.now()
    made = pydicom.Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _PATIENT_AND_STUDY:
        if keyword in first:
            setattr(made, keyword, first.get(keyword))
    made.SOPClassUID, made.SOPInstanceUID = ENCAPSULATED_PDF, hd.UID()
    made.Modality, made.SeriesInstanceUID = "DOC", hd.UID()
    made.SeriesNumber, made.InstanceNumber = SERIES_NUMBER + 2, 1
    made.SeriesDescription = "HideSeekSeg report, research use only"
    made.Manufacturer, made.ManufacturerModelName = MANUFACTURER, "HideSeekSeg"
    made.SoftwareVersions, made.ConversionType = __version__, "WSD"
    made.ContentDate, made.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.AcquisitionDateTime = None
    named = stored.scan.get("patient_name") or stored.scan.get("patient_id")
    made.BurnedInAnnotation = "YES" if named else "NO"
    made.DocumentTitle = title[:1024]
    made.ConceptNameCodeSequence = [_coded(("18748-4", "LN", "Diagnostic imaging report"))]
    made.SourceInstanceSequence = [_reference(instance) for instance in instances]
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocumentLength = len(pdf)
    made.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.file_meta = meta
    return made


def _reference(instance: Any) -> Any:
    import pydicom

    made = pydicom.Dataset()
    made.ReferencedSOPClassUID = instance.SOPClassUID
    made.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    return made


def _measured(stored: StoredResult, ct: Volume, lesion: Item) -> Item:
    """Return the lesion with the size and density of its voxels on the CT."""
    patch = patch_on(ct, stored, lesion)
    mean = patch.mean(ct.array) if _in_hu(stored, ct) else None
    return replace(lesion, **vars(measure_patch(patch, ct.grid)), mean_hu=mean)


def _in_hu(stored: StoredResult, ct: Volume) -> bool:
    return bool(stored.run.get("hounsfield", ct.stated_hu))


def _observers(stored: StoredResult) -> Any:
    hd = highdicom()
    method = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=_uid("device", stored.run.get("weights_hash", ""), method_version(stored)),
        name="HideSeekSeg",
        manufacturer_name=MANUFACTURER,
        model_name=f"{method_version(stored)}, weights {stored.run.get('weights', 'unknown')}"[:64],
    )
    device = hd.sr.ObserverContext(_coded(("121007", "DCM", "Device")), method)
    if not person_name(stored.reviewer):
        return hd.sr.ObservationContext(observer_device_context=device)
    name = hd.sr.PersonObserverIdentifyingAttributes(person_name(stored.reviewer))
    person = hd.sr.ObserverContext(_coded(("121006", "DCM", "Person")), name)
    return hd.sr.ObservationContext(person, device)


def _lesion_group(
    stored: StoredResult,
    ct: Volume,
    lesion: Item,
    number: int,
    instances: Sequence[Any],
    segmentation: Any | None,
) -> Any:
    hd = highdicom()
    if segmentation is None:
        raise ValueError("lesions without a segmentation")
    patch = patch_on(ct, stored, lesion)
    measurements = [
        _measurement(_VOLUME, lesion.volume_mm3, _MM3),
        _measurement(_DIAMETER, lesion.diameter_mm, _MM, _MAXIMUM),
    ]
    if lesion.mean_hu is not None:
        deviation = float(np.std(ct.array[patch.box][patch.array], dtype=np.float64))
        measurements += [
            _measurement(_ATTENUATION, lesion.mean_hu, _HU, _MEAN),
            _measurement(_ATTENUATION, deviation, _HU, _DEVIATION),
        ]
    measurements.append(_measurement(_SCORE, None if lesion.missed else lesion.score, _ONE))
    measurements.append(_measurement(_P_MALIGNANT, lesion.p_malignant, _ONE))
    verdict: Code = (lesion.verdict.upper(), SCHEME, lesion.verdict.capitalize())
    method = algorithm_of(stored)[0]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            tracking_uid(stored, lesion, instances[0]), lesion.name
        ),
        referenced_segment=_referenced_segment(ct, instances, segmentation, number, patch),
        finding_type=_coded(lesion_code(lesion)),
        finding_category=_coded(("49755003", "SCT", "Morphologically Altered Structure")),
        finding_sites=[hd.sr.FindingSite(_coded(region_code(lesion.level)))],
        algorithm_id=None
        if lesion.missed
        else hd.sr.AlgorithmIdentification(
            method.AlgorithmName, method.AlgorithmVersion, [method.AlgorithmParameters]
        ),
        measurements=[m for m in measurements if m is not None],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(_coded(_LESION_TYPE), _coded(TYPE_CODES[lesion.type])),
            hd.sr.QualitativeEvaluation(_coded(_VERDICT), _coded(verdict)),
        ],
    )


def _referenced_segment(
    ct: Volume, instances: Sequence[Any], segmentation: Any, number: int, patch: Patch
) -> Any:
    """Return the reference to a segment and to the images, or frames of one, that it lies on.

    They are taken from the voxels (``patch``): where in a SEG its frames are described depends on
    what they have in common, such as that there is one segment.
    """
    hd = highdicom()
    by_file = dict(zip(dict.fromkeys(file for file, _ in ct.planes), instances))
    frames: dict[str, list[int]] = defaultdict(list)
    for k in np.flatnonzero(patch.array.any(axis=(1, 2))) + patch.start[0]:
        file, frame = ct.planes[k]
        frames[file].append(frame)
    images = []
    for file, numbers in frames.items():
        source = by_file[file]
        multi_frame = "NumberOfFrames" in source
        images.append(
            hd.sr.SourceImageForSegmentation(
                source.SOPClassUID, source.SOPInstanceUID, sorted(numbers) if multi_frame else None
            )
        )
    return hd.sr.ReferencedSegment(
        segmentation.SOPClassUID, segmentation.SOPInstanceUID, number, source_images=images
    )


def _burden_group(stored: StoredResult, row: Burden, instance: Any) -> Any:
    hd = highdicom()
    site = _SPINE if row.level == ALL else region_code(row.level)
    kinds: dict[str, Code] = {**TYPE_CODES, ALL: _BOTH}
    share = None if row.share_of_body is None else 100 * row.share_of_body
    measurements = [
        _measurement(_LESIONS, row.number, _ONE),
        _measurement(_VOLUME, row.volume_mm3, _MM3),
        _measurement(_SHARE, share, _PERCENT),
        _measurement(_DIAMETER, row.largest_diameter_mm, _MM, _MAXIMUM),
        _measurement(_ATTENUATION, row.mean_hu, _HU, _MEAN),
    ]
    where = "all levels" if row.level == ALL else row.level
    name = f"{where}, {'all lesions' if row.type == ALL else f'{row.type} lesions'}"
    uid = _uid("burden", str(instance.SeriesInstanceUID), stored.run.get("weights_hash", ""), name)
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid, name),
        finding_type=_coded(("52988006", "SCT", "Lesion")),
        finding_sites=[hd.sr.FindingSite(_coded(site))],
        measurements=[m for m in measurements if m is not None],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(_coded(_LESION_TYPE), _coded(kinds[row.type]))
        ],
    )


def _measurement(
    name: Code, value: float | None, unit: Code, derivation: Code | None = None
) -> Any | None:
    if value is None:
        return None
    how = None if derivation is None else _coded(derivation)
    return highdicom().sr.Measurement(_coded(name), round(value, 6), _coded(unit), derivation=how)


def _coded(code: Code) -> Any:
    return highdicom().sr.CodedConcept(*code)


def _uid(*parts: str) -> str:
    return f"2.25.{uuid.uuid5(NAMESPACE, json.dumps(parts)).int}"
