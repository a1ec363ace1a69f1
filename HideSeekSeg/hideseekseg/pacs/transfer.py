"""From an archive to a folder and back: a study's CT and its segmentation, a result's objects.

The folder holds ``ct`` and ``segmentation`` (an instance a file, named by its UID), ``result``, and
``archive.json``, which says what it is of.  A file is there whole or not at all, so a second call
goes on where the first one was stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ArchiveError, InputError
from ..files import atomic, locked, make_folder, read_bytes, read_object, together
from ..imaging.dicom_series import MIN_SLICES
from ..plain_data import first_line, from_plain
from ..progress import OnProgress, ShouldStop, Stopped, stoppable, unwatched
from .archive import UID, Archive, ArchivedSeries, interruptible

FETCHED, CT, SEGMENTATION, RESULT = "archive.json", "ct", "segmentation", "result"
OBJECTS, SENT = "dicom", "sent.json"
OBJECT_FILES = ("lesions.dcm", "measurements.dcm", "report.dcm")
SEGMENTATIONS = ("SEG", "RTSTRUCT")
OURS = "HideSeekSeg"  # what the descriptions of our own series begin with
MOST_BYTES = 2 << 30  # of an instance
# What the objects take over from the CT's instances, beside the UIDs of each.
_TAKEN_OVER = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "SeriesInstanceUID"),
    "FrameOfReferenceUID",
)


@dataclass(frozen=True)
class FetchedStudy:
    """What lies in a folder: UIDs of the study and its series, empty where there is none."""

    study: str
    ct: str = ""
    segmentation: str = ""


@dataclass(frozen=True)
class Wanted:
    """What to fetch: a study, and its series where there is more than one to choose from.

    ``ct`` and ``segmentation`` are UIDs or numbers of series.  Without ``with_segmentation`` the CT
    alone is fetched.
    """

    study: str
    ct: str = ""
    segmentation: str = ""
    with_segmentation: bool = True


def fetch_study(
    archive: Archive, wanted: Wanted, out: Path, on_progress: OnProgress, should_stop: ShouldStop
) -> FetchedStudy:
    """Fetch a CT series and its segmentation to a folder; what lies there is not fetched again.

    ``on_progress(words, done, total)`` counts instances.  Raises ArchiveError and InputError, one
    line, and Stopped soon after ``should_stop()`` is true; what is complete by then stays.
    """

    def ask(call: Callable[[], Any]) -> Any:
        return interruptible(call, should_stop, archive.stop)

    make_folder(out)
    with locked(out):
        _check_free(out, wanted.study)
        on_progress("asking for the study", 0, 1)
        listed: list[ArchivedSeries] = ask(lambda: archive.series(wanted.study))
        if not listed:
            raise ArchiveError(archive.address, f"contains no study {wanted.study}")
        _write_json(out / FETCHED, asdict(FetchedStudy(wanted.study)))
        fetch = _SeriesFetch(archive, wanted.study, on_progress, should_stop)
        drawn: ArchivedSeries | None = None
        refers: tuple[str, ...] = ()
        if wanted.with_segmentation:
            drawn = choose_segmentation(archive.address, listed, wanted.segmentation)
            fetch(drawn, out / SEGMENTATION)
            refers = referenced_series(out / SEGMENTATION)
        ct = choose_ct(archive.address, listed, wanted.ct, refers)
        fetch(ct, out / CT)
        if drawn is not None:
            check_same_patient(out / CT, out / SEGMENTATION, ct.uid)
        fetched = FetchedStudy(wanted.study, ct.uid, drawn.uid if drawn else "")
        _write_json(out / FETCHED, asdict(fetched))
        return fetched


def read_fetched(folder: Path) -> FetchedStudy | None:
    """Return what a folder says it holds, None where it says nothing; raises InputError."""
    file = folder / FETCHED
    if not file.exists():
        return None
    try:
        return from_plain(FetchedStudy, read_object(file))
    except ValueError as error:
        raise InputError(file, f"is damaged: {first_line(error)}") from error


def _check_free(out: Path, study: str) -> None:
    there = read_fetched(out)
    if there is not None and there.study != study:
        raise InputError(out, f"contains another study ({there.study}): choose another folder")
    if there is None and any((out / name).exists() for name in (CT, SEGMENTATION, RESULT)):
        raise InputError(out, "contains files of something else: choose another folder")


def choose_segmentation(
    address: str, listed: Sequence[ArchivedSeries], chosen: str
) -> ArchivedSeries:
    """Return the series with the segmented vertebrae; raises ArchiveError where none is clear.

    Those that this program sent there are none of vertebrae.
    """
    kinds = [x for x in listed if x.modality in SEGMENTATIONS]
    if chosen:
        return _named(address, kinds, chosen, "segmentation")
    foreign = [x for x in kinds if not x.description.startswith(OURS)]
    if len(foreign) == 1:
        return foreign[0]
    if not foreign:
        cause = "contains no segmentation (SEG, RTSTRUCT) of this study: segment its vertebrae, and"
        raise ArchiveError(address, f"{cause} give the file with --vertebrae")
    raise ArchiveError(
        address,
        f"contains {len(foreign)} segmentations of this study, choose one (--segmentation):"
        f" {_list(foreign)}",
    )


def choose_ct(
    address: str, listed: Sequence[ArchivedSeries], chosen: str, refers: Sequence[str] = ()
) -> ArchivedSeries:
    """Return the CT series: the chosen one, the one that the segmentation refers to, or the only.

    Raises ArchiveError where none is clear.
    """
    kinds = [x for x in listed if x.modality == "CT"]
    if chosen:
        return _named(address, kinds, chosen, "CT series")
    of_segmentation = [x for x in kinds if x.uid in refers]
    # One instance may be a multi-frame image; more, but fewer than a volume has, are not a volume.
    volumes = [x for x in kinds if x.instances is None or not 1 < x.instances < MIN_SLICES]
    found = of_segmentation or volumes
    if len(found) == 1:
        return found[0]
    if not found:
        raise ArchiveError(address, "contains no CT series of this study")
    raise ArchiveError(
        address,
        f"contains {len(found)} CT series of this study, choose one (--series): {_list(found)}",
    )


def _named(address: str, kinds: Sequence[ArchivedSeries], chosen: str, what: str) -> ArchivedSeries:
    found = [x for x in kinds if chosen in (x.uid, x.number)]
    if len(found) == 1:
        return found[0]
    listed = _list(kinds) or "none"
    number = "no" if not found else f"{len(found)} times the"
    raise ArchiveError(
        address, f"contains {number} {what} {chosen} of this study; it has: {listed}"
    )


def _list(series: Sequence[ArchivedSeries]) -> str:
    return "; ".join(str(x) for x in series[:8])


class _SeriesFetch:
    """Fetch series of one study, an instance a file."""

    def __init__(
        self, archive: Archive, study: str, on_progress: OnProgress, should_stop: ShouldStop
    ) -> None:
        self._archive, self._study = archive, study
        self._on_progress, self._should_stop = on_progress, should_stop

    def __call__(self, series: ArchivedSeries, folder: Path) -> None:
        """Fetch what of a series is not in its folder yet; raises ArchiveError, also for more."""
        address, words = self._archive.address, f"fetching {series.modality}"
        uids = self._ask(lambda: self._archive.instances(self._study, series.uid))
        uids = sorted(dict.fromkeys(uids))
        odd = [uid for uid in uids if not is_uid(uid)]
        if odd:
            raise ArchiveError(address, f"lists an instance with an impossible UID: {odd[0]!r}")
        count = series.instances
        if count is not None and len(uids) != count:
            cause = f"says that series {series} has {count} instances, and lists {len(uids)}"
            raise ArchiveError(address, f"{cause}: is it still being stored? Try again later")
        if not uids:
            raise ArchiveError(address, f"lists no instance of series {series}")
        make_folder(folder)
        missing = self._missing(uids, series.uid, folder)
        total = len(uids)
        self._on_progress(words, total - len(missing), total)

        def keep(content: bytes) -> None:
            if self._should_stop():
                raise Stopped
            uid = self._check(content, series.uid, missing)
            with atomic(folder / f"{uid}.dcm") as file:
                file.write_bytes(content)
            missing.remove(uid)
            self._on_progress(words, total - len(missing), total)

        def retrieve() -> None:
            self._archive.retrieve(self._study, series.uid, tuple(missing), keep)

        if missing:
            self._ask(retrieve)
        if missing:
            cause = f"sent {total - len(missing)} of the {total} instances of series {series}"
            raise ArchiveError(address, f"{cause}; the same command goes on")

    def _ask(self, call: Callable[[], Any]) -> Any:
        return interruptible(call, self._should_stop, self._archive.stop)

    def _missing(self, uids: Sequence[str], series: str, folder: Path) -> list[str]:
        """Return the instances that are not in the folder; raises InputError for foreign files."""
        missing = list(uids)
        for file in sorted(folder.glob("*.dcm")):
            if file.stem not in missing:
                cause = "the archive lists no such instance of this series: choose another folder"
                raise InputError(file, cause)
            try:
                self._check(read_bytes(file, MOST_BYTES), series, missing)
            except ArchiveError:
                file.unlink()  # it is fetched again
            else:
                missing.remove(file.stem)
        return missing

    def _check(self, content: bytes, series: str, missing: Sequence[str]) -> str:
        """Return the UID of an instance; raises ArchiveError where nobody asked for it."""
        header = read_header(self._archive.address, content)
        found = str(header.get("SOPInstanceUID", ""))
        asked = {"StudyInstanceUID": self._study, "SeriesInstanceUID": series}
        for keyword, uid in asked.items():
            said = str(header.get(keyword, ""))
            if said != uid:
                what = keyword.removesuffix("InstanceUID").lower()
                cause = f"sent an instance of another {what} ({said or 'none'} instead of {uid})"
                raise ArchiveError(self._archive.address, cause)
        if found not in missing:
            raise ArchiveError(
                self._archive.address,
                f"sent an instance that was not asked for ({found or 'none'})",
            )
        return found


def is_uid(text: str) -> bool:
    """Return whether a text is a UID as DICOM writes them."""
    return len(text) <= 64 and UID.fullmatch(text) is not None


def read_header(source: str, content: bytes) -> Any:
    """Return the attributes of a DICOM file without its pixels; raises ArchiveError."""
    import pydicom

    try:
        return pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    except Exception as error:  # pydicom raises of all kinds for what is not DICOM
        raise ArchiveError(
            source, f"sent something that is not a DICOM file: {first_line(error)}"
        ) from error


def _headers(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.glob("*.dcm")):
        yield read_header(str(file), read_bytes(file, MOST_BYTES))


def referenced_series(folder: Path) -> tuple[str, ...]:
    """Return the UIDs of the series that the segmentations in a folder refer to."""
    found = []
    for header in _headers(folder):
        todo: list[Any] = [header]
        while todo:  # a structure set refers to them three sequences deep
            one = todo.pop()
            for item in one.get("ReferencedSeriesSequence") or ():
                found.append(str(item.get("SeriesInstanceUID", "")))
            for item in one.get("RTReferencedSeriesSequence") or ():
                found.append(str(item.get("SeriesInstanceUID", "")))
            for keyword in (
                "ReferencedFrameOfReferenceSequence",
                "RTReferencedStudySequence",
            ):
                todo += one.get(keyword) or ()
    return tuple(dict.fromkeys(uid for uid in found if uid))


def check_same_patient(ct: Path, segmentation: Path, series: str) -> None:
    """Raise InputError where the segmentation is of another patient, or of another image.

    It fits where it refers to the series, or lies in its frame of reference.
    """
    first = next(_headers(ct))
    for header in _headers(segmentation):
        if str(header.get("PatientID") or "") != str(first.get("PatientID") or ""):
            raise InputError(segmentation, "names another patient than the CT series does")
        frame = header.get("FrameOfReferenceUID")
        same = bool(frame) and frame == first.get("FrameOfReferenceUID")
        refers = referenced_series(segmentation)
        if refers and series not in refers and not same:
            cause = "is of another series, in another frame of reference, than the CT"
            raise InputError(segmentation, f"{cause} ({refers[0]} instead of {series})")


@dataclass(frozen=True)
class SendRecord:
    """Which objects were made of a result: a hash of what they are of, and their files' names.

    ``sent`` has the UIDs that an archive confirmed, by its address; it may have removed them since.
    """

    of: str
    files: tuple[str, ...]
    sent: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SentObject:
    """The file of an object that the archive holds; ``before`` says that it did so already."""

    file: Path
    before: bool


def send_result(
    archive: Archive,
    result: Path,
    ct: Path,
    series: str,
    on_progress: OnProgress,
    should_stop: ShouldStop,
    unreviewed: bool = False,
) -> list[SentObject]:
    """Make SEG, SR and report of a result, and store in the archive what it has not got yet.

    ``ct`` is the folder of the CT series, ``series`` chooses one in it.  The archive must hold the
    study, under the same patient's number, and is asked which of the objects it holds.  What was
    made is kept in ``result`` and sent again as it is, until run, review or CT change.  Returns
    what the archive holds now.  Raises ArchiveError, InputError and Stopped.
    """

    def ask(call: Callable[[], Any]) -> Any:
        return interruptible(call, should_stop, archive.stop)

    import pydicom

    with locked(result):
        on_progress("writing DICOM objects", 0, 1)
        hear = stoppable(on_progress, should_stop)
        record = _objects(result, ct, series, unreviewed, hear)
        folder = result / OBJECTS
        datasets = [pydicom.dcmread(folder / name) for name in record.files]
        _check_destination(archive, datasets[0], ask)
        sent = []
        for n, (name, dataset) in enumerate(zip(record.files, datasets)):
            on_progress(f"sending {name}", n, len(datasets))
            uid, done = str(dataset.SOPInstanceUID), record.sent.get(archive.address, ())
            before = ask(partial(_is_held, archive, dataset))
            if not before:
                ask(partial(archive.store, dataset))
            if uid not in done:
                record = replace(record, sent={**record.sent, archive.address: (*done, uid)})
                _write_json(folder / SENT, asdict(record))
            sent.append(SentObject(folder / name, before))
        on_progress("sent", len(datasets), len(datasets))
    return sent


def _is_held(archive: Archive, dataset: Any) -> bool:
    """Return whether the archive holds an object now."""
    study, series = str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)
    if series not in {one.uid for one in archive.series(study)}:
        return False  # some archives call a question for a series that they have not an error
    return str(dataset.SOPInstanceUID) in archive.instances(study, series)


def _check_destination(archive: Archive, dataset: Any, ask: Callable[..., Any]) -> None:
    """Raise ArchiveError where the archive does not hold the study of the same patient."""
    uid = str(dataset.StudyInstanceUID)
    there = [x for x in ask(lambda: archive.studies({"StudyInstanceUID": uid})) if x.uid == uid]
    if not there:
        cause = f"contains no study {uid}, which the result is of: nothing was sent"
        raise ArchiveError(archive.address, cause)
    if there[0].patient_id != str(dataset.get("PatientID") or "").strip():
        cause = "names another patient for this study than the CT series does: nothing was sent"
        raise ArchiveError(archive.address, cause)


def make_objects(
    result: Path,
    ct: Path,
    series: str = "",
    unreviewed: bool = False,
    on_progress: OnProgress = unwatched,
    should_stop: ShouldStop = lambda: False,
) -> list[Path]:
    """Write SEG, SR and report of a result to its folder ``OBJECTS``; return their files.

    Those of the same result and CT are left as they are.  Without a lesion there is no SEG.
    Raises InputError and Stopped.
    """
    with locked(result):
        record = _objects(result, ct, series, unreviewed, stoppable(on_progress, should_stop))
    return [result / OBJECTS / name for name in record.files]


def _objects(
    result: Path, ct: Path, series: str, unreviewed: bool, on_progress: OnProgress
) -> SendRecord:
    """Return what was made of the result on this CT, now or before."""
    from ..output.dicom_seg_export import dicom_seg, read_instances, read_source
    from ..output.dicom_sr_export import dicom_report, dicom_sr
    from ..output.report import make_report
    from ..output.report_pdf import write_pdf
    from ..output.result_folder import read_result

    # Read in any case: the objects of the same voxels elsewhere are of another patient.
    stored = read_result(result, unreviewed)
    volume = read_source(stored, ct, series)
    instances = read_instances(volume)
    folder, state = result / OBJECTS, _state(result, unreviewed, instances)
    known = _read_record(folder / SENT)
    if known is not None and known.of == state:
        return known
    segmentation = dicom_seg(stored, volume, instances) if stored.lesions else None
    measured = dicom_sr(stored, volume, instances, segmentation)
    report = make_report(stored, on_progress=on_progress)
    make_folder(folder)
    with together(folder) as part:
        pdf = part / "report.pdf"
        write_pdf(pdf, report, on_progress)
        written = dicom_report(stored, instances, pdf.read_bytes(), report.title)
        pdf.unlink()
        made = {
            name: dataset
            for name, dataset in zip(OBJECT_FILES, (segmentation, measured, written))
            if dataset is not None
        }
        for name, dataset in made.items():
            dataset.save_as(part / name, enforce_file_format=True)
        record = SendRecord(state, tuple(made))
        _write_json(part / SENT, asdict(record))
    for old in set(OBJECT_FILES) - set(made):
        (folder / old).unlink(missing_ok=True)
    return record


def _read_record(file: Path) -> SendRecord | None:
    """Return what was made before; None where that is not known, or its files are gone."""
    if not file.is_file():
        return None
    try:
        record = from_plain(SendRecord, read_object(file))
    except ValueError as error:
        raise InputError(file, f"is damaged: {first_line(error)}; delete it") from error
    whole = all(x in OBJECT_FILES and (file.parent / x).is_file() for x in record.files)
    return record if record.files and whole else None


def _state(result: Path, unreviewed: bool, instances: Sequence[Any]) -> str:
    """Return a hash of what the objects are made of; ``instances`` are the headers of the CT."""
    from ..output.result_folder import EXPORTED, FILES

    sha = hashlib.sha256(b"unreviewed" if unreviewed else b"")
    for name in (FILES[1], FILES[0], EXPORTED[2], EXPORTED[0]):
        if (result / name).is_file():
            sha.update(hashlib.sha256(read_bytes(result / name, MOST_BYTES)).digest())
    said = [str(instances[0].get(keyword, "")) for keyword in _TAKEN_OVER]
    said += [str(one.get("SOPInstanceUID", "")) for one in instances]
    sha.update(json.dumps(said).encode())
    return sha.hexdigest()


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    with atomic(path) as file:
        file.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
