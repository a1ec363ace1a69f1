"""DICOM files for tests, of one patient, Jane Doe, whose name no result may hold unasked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hideseekseg.imaging.volume import Volume

pydicom: Any = pytest.importorskip("pydicom", reason="pydicom is not installed")
ROOT = "1.2.826.0.1.3680043.2.1125"
CT = "1.2.840.10008.5.1.4.1.1.2"


def item(**fields: Any) -> Any:
    made = pydicom.Dataset()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def dicom(kind: str, number: int, **fields: Any) -> Any:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, f"{ROOT}.7.{number}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    usual: dict[str, Any] = dict(
        SOPClassUID=kind, SOPInstanceUID=f"{ROOT}.7.{number}", Modality="CT"
    )
    usual |= dict(StudyInstanceUID=f"{ROOT}.1", SeriesInstanceUID=f"{ROOT}.2", SeriesNumber=2)
    usual |= dict(FrameOfReferenceUID=f"{ROOT}.3", SeriesDescription="bone", StudyDate="20240102")
    usual |= dict(SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16)
    usual |= dict(BitsStored=16, HighBit=15, PixelRepresentation=0, PatientName="Doe^Jane")
    values = {**usual, **fields}
    return pydicom.dataset.FileDataset(None, item(**values), file_meta=meta, preamble=b"\0" * 128)


def save(dataset: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def one(n: int, z: float, **fields: Any) -> Any:
    """An axial slice of n HU at a height."""
    usual: dict[str, Any] = dict(Rows=8, Columns=10, PixelSpacing=[0.75, 0.5], SliceThickness=2.5)
    usual |= dict(ImagePositionPatient=[-10, 20, z], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    usual |= dict(InstanceNumber=n + 1, RescaleIntercept=-1000, RescaleSlope=1)
    usual |= dict(PixelData=np.full((8, 10), 1000 + n, "<u2").tobytes())
    usual |= dict(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    return dicom(CT, fields.pop("number", n), **{**usual, **fields})


def series(folder: Path, heights: Sequence[float], **fields: Any) -> Path:
    for n, z in enumerate(heights):
        save(one(n, z, **fields), folder / f"{n:03d}.dcm")
    return folder


def write_series(folder: Path, volume: Volume, **fields: Any) -> Path:
    """Write an axial volume in HU as a series; its grid must be along the patient's axes."""
    spacing = volume.grid.spacing
    usual: dict[str, Any] = dict(Rows=volume.grid.shape[1], Columns=volume.grid.shape[2])
    usual |= dict(PixelSpacing=[float(spacing[1]), float(spacing[0])])
    usual |= dict(SliceThickness=float(spacing[2]))
    for n, plane in enumerate(volume.array):
        place = [float(x) for x in volume.grid.lps([0, 0, n])]
        pixels = (plane.astype(int) + 1000).astype("<u2").tobytes()
        own = dict(ImagePositionPatient=place, PixelData=pixels)
        number = fields.get("number", 0) + n
        save(one(n, 0, **{**usual, **own, **fields, "number": number}), folder / f"{n:03d}.dcm")
    return folder
