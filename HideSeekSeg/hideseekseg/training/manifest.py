"""A hospital's own vertebrae in a table: read, checked, and compared with another table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..anatomy.segment_names import meaning_of_name
from ..errors import InputError
from ..files import files_in, open_regular
from ..imaging.text_headers import data_files, is_text_header
from ..simulation.csv_tables import fault_of_name, path_in, read_table
from ..simulation.source_vertebrae import one_spelling, person, spelled_twice

NEEDED = ("image", "mask", "label", "patient")
OPTIONAL = ("level", "convention")
LABELS = {"healthy": False, "0": False, "malignant": True, "1": True}


@dataclass(frozen=True)
class ManifestRow:
    """One vertebra: its image, a mask of it, its label, whose it is.

    ``level`` and ``convention`` ("" where not given) say which vertebra of a label map it is.
    ``line`` counts from 1, the head of the table included.
    """

    line: int
    image: Path
    mask: Path
    malignant: bool
    patient: str
    level: str = ""
    convention: str = ""

    @property
    def vertebra(self) -> tuple[Path, Path | None, str]:
        """What two rows have in common that mean the same vertebra.

        A level tells it, whatever mask shows it; without one its own mask does.
        """
        mask = None if self.level else self.mask.resolve()
        return self.image.resolve(), mask, self.level

    @property
    def labels_file(self) -> Path | None:
        """Return the JSON file of labels that stands for a convention, where one does."""
        is_file = self.convention.lower().endswith(".json")
        return Path(self.convention) if is_file else None

    def resolved(self) -> ManifestRow:
        """Return the row with the same paths from wherever it is read, and no line."""
        file = self.labels_file
        convention = self.convention if file is None else str(file.resolve())
        image, mask = self.image.resolve(), self.mask.resolve()
        return replace(self, line=0, image=image, mask=mask, convention=convention)


@dataclass(frozen=True)
class Problem:
    """What is wrong in a line of a manifest, or a note on it, which is not wrong."""

    manifest: Path
    line: int
    cause: str
    is_note: bool = False

    def __str__(self) -> str:
        note = "note: " if self.is_note else ""
        return f"{self.manifest}, line {self.line}: {note}{self.cause}"


@dataclass(frozen=True)
class Manifest:
    """The rows that can be understood, what is wrong in the table, and columns nobody reads."""

    path: Path
    rows: tuple[ManifestRow, ...]
    problems: tuple[Problem, ...]
    unused: tuple[str, ...]

    def by_image(self) -> list[list[ManifestRow]]:
        """Group the rows by image, so that each is read but once; in the table's order."""
        groups: dict[Path, list[ManifestRow]] = defaultdict(list)
        for row in self.rows:
            groups[row.image.resolve()].append(row)
        return list(groups.values())


def read_manifest(path: Path) -> Manifest:
    """Read a CSV of the columns image, mask, label, patient and, if known, level and convention.

    As ``read_table`` reads it.  Paths are relative to the manifest, a convention
    that ends in .json too.  Raises InputError where the file is not such a table; what is wrong in
    a line is a problem, and the line gives no row.
    """
    table, names = read_table(path, NEEDED, OPTIONAL)
    rows, problems = [], []
    for line, cells in table:
        try:
            rows.append(_row(path.parent, line, cells))
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
    if not table:
        raise InputError(path, "has no rows below its header")
    problems += [Problem(path, line, cause) for line, cause in _contradictions(rows)]
    unused = tuple(name.lower() for name in names if name not in NEEDED + OPTIONAL)
    return Manifest(path, tuple(rows), tuple(sorted(problems, key=lambda p: p.line)), unused)


def overlap(a: Manifest, b: Manifest) -> list[str]:
    """Patients and images that stand in both of two manifests, which must share neither."""
    lines: list[str] = []
    kinds: tuple[tuple[str, Callable[[ManifestRow], str], Callable[[str], str]], ...] = (
        ("patient", lambda row: row.patient, person),
        ("image", lambda row: str(row.image.resolve()), str),
    )
    for what, of, known_as in kinds:
        first = {known_as(of(row)): row for row in reversed(a.rows)}
        for name, row in {known_as(of(row)): row for row in reversed(b.rows)}.items():
            if name in first:
                said, also = of(first[name]), of(row)
                spelled = said if said == also else f"{said} ({also})"
                where = f"{a.path}, line {first[name].line}, and {b.path}, line {row.line}"
                lines.append(f"{what} {spelled} is in both: {where}")
    return lines


def copies(
    manifests: Sequence[Manifest], should_stop: Callable[[], bool] = lambda: False
) -> list[str]:
    """Images that are in two manifests, or of two patients, under two names: files are compared.

    ``should_stop`` ends in KeyboardInterrupt.
    """
    lines: list[str] = []
    seen: dict[str, tuple[Manifest, ManifestRow]] = {}
    for manifest in manifests:
        for row, *_ in manifest.by_image():
            if should_stop():
                raise KeyboardInterrupt
            try:
                hashes = sorted(content_of(file).hexdigest() for file in files_of(row.image))
            except (OSError, ValueError):  # which is said of its row
                continue
            own = (manifest, row)
            other, first = seen.setdefault("".join(hashes), own) if hashes else own
            apart = other is not manifest or person(first.patient) != person(row.patient)
            if apart and first.image.resolve() != row.image.resolve():
                where = f"{other.path}, line {first.line}, and {manifest.path}, line {row.line}"
                lines.append(f"one image under two names: {where}")
    return lines


def balance(rows: Iterable[ManifestRow]) -> dict[str, tuple[int, int]]:
    """Healthy and malignant vertebrae of each patient, who has the first of several spellings."""
    rows = list(rows)
    patients = one_spelling(row.patient for row in rows)
    counts = Counter((name, row.malignant) for name, row in zip(patients, rows))
    return {p: (counts[p, False], counts[p, True]) for p in dict.fromkeys(patients)}


def _row(folder: Path, line: int, cells: Mapping[str, str]) -> ManifestRow:
    """Raise ValueError saying what is wrong with the cells."""
    if None in cells:
        raise ValueError("has more values than there are columns")
    values = {name: str(cells.get(name, "")).strip() for name in NEEDED + OPTIONAL}
    empty = [name for name in NEEDED if not values[name]]
    if empty:
        raise ValueError(f"has no {' and no '.join(empty)}")
    label = LABELS.get(values["label"].lower())
    if label is None:
        raise ValueError(f"unknown label {values['label']!r}: write healthy (0) or malignant (1)")
    convention = values["convention"]
    if convention.lower().endswith(".json"):
        convention = str(path_in(folder, convention))
    if any("\0" in value for value in values.values()):
        raise ValueError("contains a character that no file's name has")
    if fault := fault_of_name(values["patient"]):
        raise ValueError(f"the patient {fault}")
    image, mask = path_in(folder, values["image"]), path_in(folder, values["mask"])
    return ManifestRow(
        line, image, mask, label, values["patient"], _level(values["level"]), convention
    )


def _level(text: str) -> str:
    """Read a level in any usual spelling ("L1", "Th12", "LWK3"), or "" where none is given."""
    if not text:
        return ""
    meaning = meaning_of_name(text)
    if meaning is None or meaning.level is None:
        raise ValueError(f"unknown level {text!r}: write C1 to S1")
    return meaning.level


def _contradictions(rows: Sequence[ManifestRow]) -> Iterable[tuple[int, str]]:
    """Vertebrae that stand there twice, images of two patients, and patients in two spellings."""
    seen: dict[tuple[Path, Path | None, str], ManifestRow] = {}
    owner: dict[Path, ManifestRow] = {}
    yield from spelled_twice((row.line, row.patient) for row in rows)
    for row in rows:
        first = seen.setdefault(row.vertebra, row)
        if first is not row:
            other = ", but with the other label" if first.malignant != row.malignant else ""
            yield row.line, f"the same vertebra as in line {first.line}{other}"
        holder = owner.setdefault(row.image.resolve(), row)
        if person(holder.patient) != person(row.patient):
            said = f"{holder.patient} in line {holder.line}, of {row.patient} here"
            yield row.line, f"the image is of patient {said}"


def files_of(path: Path) -> list[Path]:
    """Return the files of an image or a mask, in order: also those that a text header names."""
    if path.is_dir():
        return files_in(path, tell=lambda line: None)  # what is closed is refused on reading
    return [path, *(data_files(path) if is_text_header(path) else ())]


def content_of(file: Path, begun: Any = None) -> Any:
    """Return the hash, begun perhaps, with what a file holds."""
    digest = sha256() if begun is None else begun
    with open_regular(file) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest
