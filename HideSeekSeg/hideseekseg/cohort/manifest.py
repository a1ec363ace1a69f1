"""The cases of a cohort: a table or a folder tree of them, and what is wrong with them.

Folder trees are BIDS, TotalSegmentator's, or DICOM with its segmentations.  What is found in one is
written as a manifest, so that it can be read, corrected and used again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ..anatomy.alignment import OTHER_FRAME, are_of_other_frames
from ..anatomy.labelling import check_labels
from ..anatomy.segment_names import may_be_vertebra
from ..errors import InputError, UserError
from ..files import atomic, files_in, make_folder
from ..findings import LESION_TYPES
from ..imaging.dicom_copies import without_equal_files
from ..imaging.dicom_headers import plain_text
from ..imaging.dicom_seg import SEG, STRUCTURE_SET
from ..imaging.image_file import is_dicom, is_folder
from ..imaging.reading import check_ct, check_segmentation
from ..imaging.segmentation import structure_of
from ..imaging.volume import overlap
from ..plain_data import counted, first_line, name_fault
from ..simulation.csv_tables import fault_of_name, path_in, read_table
from ..simulation.source_vertebrae import person, spelled_twice
from ..training.manifest import Problem

T = TypeVar("T")

NEEDED = ("ct", "segmentation")
KNOWN = ("labels", "bodies", "case", "patient", "series")
REFERENCE = (*LESION_TYPES, "affected")  # what `cohort evaluate` compares results with
COLUMNS = ("case", "patient", "ct", "segmentation", "labels", "bodies", "series")
MOST_NAME = 60  # letters of a case's folder
# Names that Windows keeps for devices, whatever suffix they have.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}


@dataclass(frozen=True)
class CohortCase:
    """One row: a CT with its segmentation; ``folder`` is the name of the folder of its result.

    ``labels`` is a convention or a JSON file, None where the segmentation names its labels itself;
    ``further`` holds the columns of the manifest that only its owner understands.  ``line`` counts
    from 1, the head of the table included.
    """

    line: int
    name: str
    folder: str
    patient: str
    ct: Path
    segmentation: Path
    labels: str | None = None
    bodies: Path | None = None
    series: str = ""
    further: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """The cases that can be understood, what is wrong in the table, and its further columns."""

    path: Path
    cases: tuple[CohortCase, ...]
    problems: tuple[Problem, ...]
    further: tuple[str, ...]


def read_cohort(path: Path) -> Cohort:
    """Read a CSV of the columns ct, segmentation and, where known, those of ``KNOWN``.

    Paths are relative to the manifest.  A case without a name has that of its CT, a case without a
    patient is a patient of its own.  Raises InputError where the file is not such a table; what is
    wrong in a line is a problem, and the line no case.
    """
    table, names = read_table(path, NEEDED, (*KNOWN, *REFERENCE))
    if not table:
        raise InputError(path, "has no rows below its header")
    return _cohort(path, path.parent, table, names)


def _cohort(
    path: Path, parent: Path, table: Sequence[tuple[int, dict[str, str]]], names: Sequence[str]
) -> Cohort:
    """Return the cohort of a table's lines, whose paths are relative to ``parent``."""
    further = tuple(name for name in names if name not in COLUMNS)
    cases: list[CohortCase] = []
    problems: list[Problem] = []
    folders: set[str] = set()
    lines: dict[str, int] = {}
    for line, cells in table:
        try:
            case = _case(parent, line, cells, further, folders)
            first = lines.setdefault(case.name, line)
            if first != line:
                raise ValueError(f"the case {case.name!r} stands in line {first} already")
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
        else:
            folders.add(case.folder.casefold())
            cases.append(case)
    problems += [Problem(path, line, cause) for line, cause in _contradictions(cases)]
    return Cohort(path, tuple(cases), tuple(sorted(problems, key=lambda p: p.line)), further)


def _case(
    parent: Path,
    line: int,
    cells: Mapping[str, str],
    further: Sequence[str],
    folders: set[str],
) -> CohortCase:
    """Raise ValueError saying what is wrong with the cells; ``folders`` as of ``_folder_apart``."""
    if None in cells:
        raise ValueError("has more values than there are columns")
    values = {name: str(cells.get(name) or "").strip() for name in COLUMNS}
    empty = [name for name in NEEDED if not values[name]]
    if empty:
        raise ValueError(f"has no {' and no '.join(empty)}")
    odd = next((text for text in cells.values() if not str(text or "").isprintable()), None)
    if odd is not None:
        raise ValueError(f"contains a letter that cannot be printed, in {odd!r}")
    for column in ("case", "patient"):
        if fault := fault_of_name(values[column]):
            raise ValueError(f"the {column} {fault}")
    ct = path_in(parent, values["ct"])
    name = values["case"] or structure_of(ct) or ct.name
    labels = values["labels"]
    if labels.lower().endswith(".json"):
        labels = str(path_in(parent, labels))
    return CohortCase(
        *(line, name, _folder_apart(name, folders), values["patient"] or name, ct),
        path_in(parent, values["segmentation"]),
        labels or None,
        path_in(parent, values["bodies"]) if values["bodies"] else None,
        values["series"],
        {column: str(cells.get(column) or "").strip() for column in further},
    )


def case_folder(name: str, taken: Iterable[str] = ()) -> str:
    """Return a folder's name for a case that is safe everywhere and not among those ``taken``.

    It has no separator, no leading dot and no device's name; a name that had to be changed, and one
    that differs from an earlier one by capitals alone, ends in a piece of its hash.
    """
    return _folder_apart(name, {folder.casefold() for folder in taken})


def _folder_apart(name: str, used: Set[str]) -> str:
    """Return the folder of a case; those that are ``used`` are without capitals."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:MOST_NAME].rstrip("-.")
    device = plain.split(".")[0].casefold() in _DEVICES
    if plain and plain == name and not device and plain.casefold() not in used:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    for letters in range(8, len(digest) + 1, 8):
        stem = f"case-{plain}".strip("-") if device or not plain else plain
        folder = f"{stem}-{digest[:letters]}"
        if folder.casefold() not in used:
            return folder
    raise ValueError(f"the case {name!r} stands there already")


def _contradictions(cases: Sequence[CohortCase]) -> Iterator[tuple[int, str]]:
    """CTs that stand there for two cases or two patients, and patients in two spellings."""
    named = (case for case in cases if case.patient != case.name)
    yield from spelled_twice((case.line, case.patient) for case in named)
    seen: dict[tuple[Path, str], CohortCase] = {}
    for case in cases:
        first = seen.setdefault((case.ct.resolve(), case.series), case)
        if person(first.patient) != person(case.patient) and first is not case:
            who = f"of patient {first.patient} in line {first.line}, of {case.patient} here"
            yield case.line, f"the CT is {who}"
        elif first is not case and first.segmentation.resolve() == case.segmentation.resolve():
            yield case.line, f"the same CT and segmentation as in line {first.line}"


def write_manifest(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows of ``COLUMNS`` as a manifest; raises InputError where another one is there.

    Somebody may have corrected it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode("utf-8", "surrogateescape")
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    elif not path.is_file() or path.read_bytes() != content:
        cause = "exists already and differs from what was found: give it in place of --discover"
        raise InputError(path, f"{cause}, or remove it")


def check_case(case: CohortCase) -> tuple[list[str], list[str]]:
    """Return what is wrong with a case as far as headers tell, and what is to be noted, by lines.

    A case is run in spite of a note, and its result has the same warning.
    """
    notes: list[str] = []
    causes: list[str] = []
    ct = _told(lambda: check_ct(case.ct, case.series), causes)
    own = _told(lambda: check_segmentation(case.segmentation, may_be_vertebra), causes)
    _told(lambda: check_labels(case.labels), causes)
    bodies = None
    if case.bodies is not None:
        marked = case.bodies
        bodies = _told(lambda: check_segmentation(marked, may_be_vertebra), causes)
    if own is not None and not own.names_labels and case.labels is None:
        causes.append(
            f"{case.segmentation}: does not name its labels: say in the column labels what they"
            " mean (totalsegmentator, verse, ... or a JSON file)"
        )
    for path, found in ((case.segmentation, own), (case.bodies, bodies)):
        if ct is None or found is None:
            continue
        if ct.grid is not None and found.grid is not None and not overlap(ct.grid, found.grid):
            causes.append(f"{path}: lies outside of the CT {case.ct}: of another scan?")
        if are_of_other_frames(ct.frame_of_reference, found.frame_of_reference):
            notes.append(OTHER_FRAME.format(path))
    return causes, notes


def _told(check: Callable[[], T], causes: list[str]) -> T | None:
    """Return what a check returns; what it refuses is added to ``causes``."""
    try:
        return check()
    except UserError as error:
        causes.append(str(error))
    except (OSError, MemoryError) as error:
        causes.append(f"{type(error).__name__}: {error}")
    return None


Row = dict[str, str]

FOUND = "manifest.csv"
# What a file of a DICOM object may end in; all else that has a dot may be a part of its UID.
_DICOM_SUFFIX = re.compile(r"\.(dcm|dicom|dic|ima)$", re.IGNORECASE)
# Folders of BIDS right below the folder of a data set.
_PARTS = re.compile(r"rawdata|sourcedata|derivatives", re.IGNORECASE)
# A segmentation beside ct.nii.gz, in the order of preference.
_BESIDE = ("segmentations", "segmentation", "vertebrae", "seg", "labels")
_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)")


def discover(folder: Path, out: Path, tell: Callable[[str], None]) -> Path:
    """Write the manifest of the cases in a tree and return its path; ``tell`` what is left out.

    It is written to the folder ``out``, as ``FOUND``.  Raises InputError where there is no case, or
    another manifest.
    """
    rows = _found(folder, tell)
    make_folder(out)
    write_manifest(out / FOUND, rows)
    tell(f"found {counted(len(rows), 'case')}, listed in {out / FOUND}")
    return out / FOUND


def discovered(folder: Path, tell: Callable[[str], None]) -> Cohort:
    """Return the cases in a tree, of which nothing is written; raises InputError where is none.

    Their lines are those of the manifest that ``discover`` would write.
    """
    rows = _found(folder, tell)
    tell(f"found {counted(len(rows), 'case')}; with --out, they are listed in {FOUND} there")
    return _cohort(folder, folder, list(enumerate(rows, 2)), COLUMNS)


def _found(folder: Path, tell: Callable[[str], None]) -> list[Row]:
    if not is_folder(folder):
        raise InputError(folder, "is not a folder")
    folder = folder.absolute()
    files = []
    for file in files_in(folder, tell=tell):
        if fault := name_fault(str(file)):
            tell(f"{file}: left out: {fault}")
        else:
            files.append(file)
    layouts = (_bids, _named_ct, _dicom)
    rows = [row for layout in layouts for row in layout(folder, files, tell)]
    if not rows:
        cause = "contains no CT with a segmentation in a layout that is known (BIDS, ct.nii.gz with"
        raise InputError(folder, f"{cause} segmentations beside it, DICOM with SEG): write a table")
    return sorted(_apart(rows, folder), key=lambda row: row["case"])


def _apart(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Return the rows with names of their own: that of its path, where several have one name."""
    named = list(rows)
    for column, whole in (("ct", False), ("segmentation", False), ("ct", True)):
        count = Counter(row["case"] for row in named)
        for n, row in enumerate(named):
            if count[row["case"]] > 1:
                path = Path(row[column])
                own = path if whole else path.with_name(structure_of(path) or path.name)
                named[n] = {**row, "case": own.relative_to(folder).as_posix()}
    return named


def _bids(folder: Path, files: Iterable[Path], tell: Callable[[str], None]) -> Iterator[Row]:
    """Find CTs named ``sub-X..._ct`` and their vertebrae ``..._seg-vert_msk`` (VerSe, TPTBox)."""
    tree = _BidsTree(folder, files)
    for subject in sorted(subject for subject, homes in tree.homes.items() if len(homes) > 1):
        homes = len(tree.homes[subject])
        tell(f"{subject}: stands in {homes} data sets, and is a patient of each of them")
    for stem, scans in tree.scans.items():
        for ct in scans:
            own = {}
            for kind in ("vert", "subreg", "spine"):
                fits = tree.masks_of(ct, stem, kind)
                if len(fits) == 1:
                    own[kind] = str(fits[0])
                elif fits:
                    tell(f"{ct}: {' and '.join(map(str, fits[:2]))} fit it alike: none is taken")
            if "vert" not in own:
                tell(f"{ct}: left out, there is no ..._seg-vert_msk of it")
                continue
            regions = own.get("subreg") or own.get("spine")
            row = {"case": stem, "patient": tree.patient(ct), "ct": str(ct)}
            row |= {"segmentation": own["vert"], "labels": "verse"}
            yield {**row, "bodies": regions} if regions else row


class _BidsTree:
    """CTs and masks of a tree by what they have in common (``_stem``), masks by kind as well.

    Names are unique in a data set alone, of which the tree may hold several; ``homes`` are the
    folders of the data sets in which a subject stands.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self._folder = folder
        self.scans: dict[str, list[Path]] = defaultdict(list)
        self._masks: dict[tuple[str, str], list[Path]] = defaultdict(list)
        self.homes: dict[str, set[Path]] = defaultdict(set)
        for path in files:
            if not path.name.startswith("sub-"):
                continue
            stem = structure_of(path)
            found = re.fullmatch(r"(.+?)_(?:mod-ct_)?seg-(vert|subreg|spine)_msk", stem)
            if found:
                self._masks[_stem(found[1]), found[2]].append(path)
            elif stem.endswith("_ct"):
                self.scans[_stem(stem)].append(path)
                self.homes[_subject(path)].add(self._home(path))
        self.homes.pop("", None)

    def patient(self, ct: Path) -> str:
        """Return the subject of a CT, with its data set where several have one of this name."""
        subject, home = _subject(ct), self._home(ct)
        if len(self.homes[subject]) < 2 or home == self._folder:
            return subject
        return f"{home.relative_to(self._folder).as_posix()}/{subject}"

    def masks_of(self, ct: Path, stem: str, kind: str) -> list[Path]:
        """Return the masks of a CT: of its name, nearest to it, and to no other CT as near."""
        return [
            mask
            for mask in self._nearest(ct, self._masks[stem, kind])
            if self._nearest(mask, self.scans[stem]) == [ct]
        ]

    def _nearest(self, path: Path, others: Sequence[Path]) -> list[Path]:
        """Return those of other files that share most of their folders with one, at either end."""

        def shared(other: Path) -> tuple[int, int]:
            a, b = path.parts[:-1], other.parts[:-1]
            return _common(a, b), _common(a[::-1], b[::-1])

        fit = [other for other in others if self._may_belong(path, other)]
        best = max(map(shared, fit), default=None)
        return [other for other in fit if shared(other) == best]

    def _may_belong(self, a: Path, b: Path) -> bool:
        """Return whether two files may be of one data set: neither says that it is of another."""
        said = ((self._data_set(a), b), (self._data_set(b), a))
        return all(home is None or home in other.parents for home, other in said)

    def _data_set(self, path: Path) -> Path | None:
        """Return the folder of the data set that a file is in, None where no folder says so."""
        return self._above(path, _PARTS)

    def _home(self, ct: Path) -> Path:
        """Return the folder of a CT's data set, as far as one can tell."""
        return self._data_set(ct) or self._above(ct, _SUBJECT) or ct.parent

    def _above(self, path: Path, inside: re.Pattern[str]) -> Path | None:
        """Return the folder that holds the first one of such a name on the way to a file."""
        parts = path.relative_to(self._folder).parts[:-1]
        at = next((n for n, part in enumerate(parts) if inside.match(part)), None)
        return None if at is None else self._folder.joinpath(*parts[:at])


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many names two paths have in common at their beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _subject(ct: Path) -> str:
    found = _SUBJECT.match(ct.name)
    return found[1] if found else ""


def _stem(name: str) -> str:
    """Return what a CT's name and those of its masks have in common."""
    return name.removesuffix("_ct")


def _named_ct(folder: Path, files: Iterable[Path], tell: Callable[[str], None]) -> Iterator[Row]:
    """Find ``ct`` with a folder of masks, or one mask, beside it (TotalSegmentator's folders)."""
    images_of: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in files:
        if structure_of(path):
            images_of[path.parent][structure_of(path)] = path
    for ct in files:
        if structure_of(ct) != "ct":
            continue
        home = ct.parent
        images = images_of[home]
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
    """Files of one series in one folder; ``refers_to`` are the series a segmentation names.

    ``instance`` is of ``file``; ``person`` is the patient by number and name.
    """

    home: Path
    file: Path
    study: str
    uid: str
    modality: str
    sop_class: str
    patient: str
    instance: str
    person: tuple[str, str]
    refers_to: tuple[str, ...]

    @property
    def identity(self) -> tuple[str, ...]:
        """Return what copies of its file state alike."""
        return self.patient, self.study, self.uid, self.instance


def _dicom(folder: Path, files: Iterable[Path], tell: Callable[[str], None]) -> Iterator[Row]:
    """Find DICOM segmentations (SEG, RT structure sets) and the CT series that they name."""
    series = list(_dicom_series(files, tell))
    of_study: dict[str, list[_DicomSeries]] = defaultdict(list)
    for one in series:
        if one.modality == "CT":
            of_study[one.study].append(one)
    of_study = {study: _homes_joined(group) for study, group in of_study.items()}
    drawn = {one.file: one for one in series if one.sop_class in (*SEG, STRUCTURE_SET)}
    kept, copies = without_equal_files(list(drawn), lambda file: drawn[file].identity)
    for copy, original in copies.items():
        tell(f"{copy}: left out, it is a copy of {original}")
    patients: dict[str, str] = {}
    for one in map(drawn.__getitem__, kept):
        same = of_study.get(one.study, [])
        named = [other for other in same if other.uid in one.refers_to]
        chosen = named or same
        if len(chosen) > 1:  # an anonymised copy of the study keeps its UIDs
            chosen = [other for other in chosen if other.person == one.person] or chosen
        if len(chosen) != 1:
            many = "several CT series" if chosen else "no CT"
            tell(f"{one.file}: left out, its study has {many} that it may belong to")
            continue
        # Numbers of patients stay out of results: patients are counted.
        patient = patients.setdefault(one.patient, f"patient-{len(patients) + 1}")
        name = _DICOM_SUFFIX.sub("", one.file.relative_to(folder).as_posix())
        row = {"case": name, "patient": patient if one.patient else ""}
        # Always: others may lie in that folder, or below it, or come there.
        row |= {"ct": str(chosen[0].home), "series": chosen[0].uid}
        yield {**row, "segmentation": str(one.file)}


def _homes_joined(group: Iterable[_DicomSeries]) -> list[_DicomSeries]:
    """Return the series of a study, one of several folders in the folder that holds them all.

    They may be copies or parts of it: who reads the series tells.  What states another patient is
    another series.
    """
    found: dict[tuple[str, tuple[str, str]], _DicomSeries] = {}
    for one in group:
        first = found.setdefault((one.uid, one.person), one)
        home = Path(os.path.commonpath([first.home, one.home]))
        found[one.uid, one.person] = replace(first, home=home)
    return list(found.values())


def _dicom_series(files: Iterable[Path], tell: Callable[[str], None]) -> Iterator[_DicomSeries]:
    import pydicom

    seen: set[tuple[Path, str]] = set()
    wanted = ["StudyInstanceUID", "SeriesInstanceUID", "Modality", "SOPClassUID", "PatientID"]
    wanted += [
        "PatientName",
        "SOPInstanceUID",
        "ReferencedSeriesSequence",
        "ReferencedFrameOfReferenceSequence",
    ]
    for path in files:
        try:
            if not is_dicom(path):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of files that break the standard a little
                tags = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        except Exception as error:  # pydicom raises of all kinds for files that break the standard
            tell(f"{path}: left out, it cannot be read: {first_line(error)}")
            continue
        uid = str(tags.get("SeriesInstanceUID", ""))
        kind = str(tags.get("SOPClassUID", ""))
        if (path.parent, uid) in seen and kind not in (*SEG, STRUCTURE_SET):
            continue
        seen.add((path.parent, uid))
        yield _DicomSeries(
            *(path.parent, path, str(tags.get("StudyInstanceUID", "")), uid),
            *(str(tags.get("Modality", "")), kind, str(tags.get("PatientID", ""))),
            str(tags.get("SOPInstanceUID", "")),
            (_plain(tags.get("PatientID", "")), _plain(tags.get("PatientName", ""))),
            tuple(_references(tags)),
        )


def _plain(text: object) -> str:
    return plain_text(str(text)).casefold()


def _references(tags: Iterable[object]) -> Iterator[str]:
    """Yield the UIDs of series that an object refers to, at any depth."""
    for element in tags:
        if getattr(element, "keyword", "") == "SeriesInstanceUID":
            yield str(getattr(element, "value", ""))
        elif getattr(element, "VR", "") == "SQ":
            for item in getattr(element, "value", ()):
                yield from _references(item)
