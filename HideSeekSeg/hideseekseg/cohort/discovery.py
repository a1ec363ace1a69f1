"""Find the cases of a folder tree: BIDS, TotalSegmentator's folders, DICOM with its segmentations.

What is found is written as a manifest, so that it can be read, corrected and used again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import make_folder
from ..imaging.dicom_seg import SEG, STRUCTURE_SET
from ..imaging.file_kinds import is_dicom
from ..imaging.image_file import is_folder
from ..imaging.mask_folder import mask_files, structure_of
from .manifest import write_manifest

Row = dict[str, str]

FOUND = "manifest.csv"
# A segmentation beside ct.nii.gz, in the order of preference.
_BESIDE = ("segmentations", "segmentation", "vertebrae", "seg", "labels")
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)")


def discover(folder: Path, out: Path | None, tell: Callable[[str], None]) -> Path:
    """Write the manifest of the cases in a tree and return its path; ``tell`` what is left out.

    It is written to ``out``, else to the folder itself, as ``FOUND``.  Raises InputError where
    there is no case.
    """
    if not is_folder(folder):
        raise InputError(folder, "is no folder")
    folder = folder.absolute()
    rows = [*_bids(folder, tell), *_named_ct(folder, tell), *_dicom(folder, tell)]
    if not rows:
        cause = "contains no CT with a segmentation in a layout that is known (BIDS, ct.nii.gz with"
        raise InputError(folder, f"{cause} segmentations beside it, DICOM with SEG): write a table")
    rows.sort(key=lambda row: row["case"])
    target = out if out is not None else folder
    make_folder(target)
    write_manifest(target / FOUND, rows)
    tell(f"found {len(rows)} cases, listed in {target / FOUND}")
    return target / FOUND


def _bids(folder: Path, tell: Callable[[str], None]) -> Iterator[Row]:
    """Find CTs named ``sub-X..._ct`` and their vertebrae ``..._seg-vert_msk`` (VerSe, TPTBox)."""
    images = [path for path in sorted(folder.rglob("sub-*")) if path.is_file()]
    masks: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in images:
        found = re.fullmatch(r"(.+?)_(?:mod-ct_)?seg-(vert|subreg|spine)_msk", structure_of(path))
        if found:
            masks[_stem(found[1])].setdefault(found[2], path)
    for ct in images:
        stem = structure_of(ct)
        if not stem.endswith("_ct"):
            continue
        own = masks.get(_stem(stem), {})
        if "vert" not in own:
            tell(f"{ct}: left out, there is no ..._seg-vert_msk of it")
            continue
        subject = _SUBJECT.match(ct.name)
        row = {"case": stem.removesuffix("_ct"), "patient": subject[1] if subject else ""}
        regions = own.get("subreg") or own.get("spine")
        bodies = {"bodies": str(regions)} if regions is not None else {}
        yield {**row, "ct": str(ct), "segmentation": str(own["vert"]), "labels": "verse", **bodies}


def _stem(name: str) -> str:
    """Return what a CT's name and those of its masks have in common."""
    return name.removesuffix("_ct")


def _named_ct(folder: Path, tell: Callable[[str], None]) -> Iterator[Row]:
    """Find ``ct`` with a folder of masks, or one mask, beside it (TotalSegmentator's folders)."""
    for ct in sorted(folder.rglob("ct.*")):
        if structure_of(ct) != "ct" or not ct.is_file():
            continue
        home = ct.parent
        images = {structure_of(path): path for path in mask_files(home)}
        options = [
            *(home / name for name in _BESIDE if (home / name).is_dir()),
            *(images[name] for name in _BESIDE if name in images),
        ]
        if not options:
            tell(f"{ct}: left out, there is no segmentation beside it ({', '.join(_BESIDE)})")
            continue
        name = home.name if home == folder else home.relative_to(folder).as_posix()
        # A file has values, whose meaning TotalSegmentator's own header tells.
        yield {"case": name, "ct": str(ct), "segmentation": str(options[0])}


@dataclass(frozen=True)
class _DicomSeries:
    """Files of one series in one folder; ``refers_to`` are the series a segmentation names."""

    home: Path
    file: Path
    study: str
    uid: str
    modality: str
    sop_class: str
    patient: str
    refers_to: tuple[str, ...]


def _dicom(folder: Path, tell: Callable[[str], None]) -> Iterator[Row]:
    """Find DICOM segmentations (SEG, RT structure sets) and the CT series that they name."""
    series = list(_dicom_series(folder))
    ct = [one for one in series if one.modality == "CT"]
    crowded = {one.home for one in ct if sum(other.home == one.home for other in ct) > 1}
    patients: dict[str, str] = {}
    for one in series:
        if one.sop_class not in (*SEG, STRUCTURE_SET):
            continue
        same = [other for other in ct if other.study == one.study]
        named = [other for other in same if other.uid in one.refers_to]
        chosen = named or same
        if len(chosen) != 1:
            many = "several CT series" if chosen else "no CT"
            tell(f"{one.file}: left out, its study has {many} that it may belong to")
            continue
        # Numbers of patients stay out of results: patients are counted.
        patient = patients.setdefault(one.patient, f"patient-{len(patients) + 1}")
        name = one.file.relative_to(folder).with_suffix("").as_posix()
        row = {"case": name, "patient": patient if one.patient else ""}
        uid = {"series": chosen[0].uid} if chosen[0].home in crowded else {}
        yield {**row, "ct": str(chosen[0].home), "segmentation": str(one.file), **uid}


def _dicom_series(folder: Path) -> Iterator[_DicomSeries]:
    import pydicom

    seen: set[tuple[Path, str]] = set()
    wanted = ["StudyInstanceUID", "SeriesInstanceUID", "Modality", "SOPClassUID", "PatientID"]
    wanted += ["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"]
    for path in sorted(folder.rglob("*")):
        try:
            if not path.is_file() or not is_dicom(path):
                continue
            tags = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        except Exception:
            continue  # damaged: whoever reads the series will say so
        uid = str(tags.get("SeriesInstanceUID", ""))
        kind = str(tags.get("SOPClassUID", ""))
        if (path.parent, uid) in seen and kind not in (*SEG, STRUCTURE_SET):
            continue
        seen.add((path.parent, uid))
        yield _DicomSeries(
            *(path.parent, path, str(tags.get("StudyInstanceUID", "")), uid),
            *(str(tags.get("Modality", "")), kind, str(tags.get("PatientID", ""))),
            tuple(_references(tags)),
        )


def _references(tags: Iterable[object]) -> Iterator[str]:
    """Yield the UIDs of series that an object refers to, at any depth."""
    for element in tags:
        if getattr(element, "keyword", "") == "SeriesInstanceUID":
            yield str(getattr(element, "value", ""))
        elif getattr(element, "VR", "") == "SQ":
            for item in getattr(element, "value", ()):
                yield from _references(item)
