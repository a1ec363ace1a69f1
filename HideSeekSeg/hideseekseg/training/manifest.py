"""A hospital's own vertebrae: a table of images, masks, labels and patients, read and checked."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..anatomy.segment_names import meaning_of_name
from ..errors import InputError
from ..files import read_text

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
    def vertebra(self) -> tuple[Path, Path, str]:
        """What two rows have in common that mean the same vertebra."""
        return self.image.resolve(), self.mask.resolve(), self.level


@dataclass(frozen=True)
class Problem:
    """What is wrong in a line of a manifest."""

    manifest: Path
    line: int
    cause: str

    def __str__(self) -> str:
        return f"{self.manifest}, line {self.line}: {self.cause}"


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
            groups[row.image].append(row)
        return list(groups.values())


def read_manifest(path: Path) -> Manifest:
    """Read a CSV of the columns image, mask, label, patient and, if known, level and convention.

    Comma or semicolon, whatever the head has.  Paths are relative to the manifest, a convention
    that ends in .json too.  Raises InputError where the file is no such table; what is wrong in a
    line is a problem, and the line no row.
    """
    table, names = read_table(path, NEEDED, OPTIONAL)
    rows, problems = [], []
    for line, cells in table:
        try:
            rows.append(_row(path.parent, line, cells))
        except ValueError as error:
            problems.append(Problem(path, line, str(error)))
    if not table:
        raise InputError(path, "has no row below its head")
    problems += [Problem(path, line, cause) for line, cause in _contradictions(rows)]
    unused = tuple(name.lower() for name in names if name not in NEEDED + OPTIONAL)
    return Manifest(path, tuple(rows), tuple(sorted(problems, key=lambda p: p.line)), unused)


def overlap(a: Manifest, b: Manifest) -> list[str]:
    """Patients and images that stand in both of two manifests, which must share neither."""
    lines: list[str] = []
    for what, of in (("patient", lambda r: r.patient), ("image", lambda r: str(r.image.resolve()))):
        first = {of(row): row.line for row in reversed(a.rows)}
        for name, row in {of(row): row for row in reversed(b.rows)}.items():
            if name in first:
                where = f"{a.path}, line {first[name]}, and {b.path}, line {row.line}"
                lines.append(f"{what} {name} is in both: {where}")
    return lines


def balance(rows: Iterable[ManifestRow]) -> dict[str, tuple[int, int]]:
    """Healthy and malignant vertebrae of each patient."""
    counts = Counter((row.patient, row.malignant) for row in rows)
    patients = dict.fromkeys(patient for patient, _ in counts)
    return {p: (counts[p, False], counts[p, True]) for p in patients}


def read_table(
    path: Path, needed: Sequence[str], known: Sequence[str] = ()
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Return the lines of a CSV with their cells by column, and the names of the columns.

    Comma or semicolon, whatever the head has.  Columns ``needed`` and ``known`` are found in any
    case of letters; others keep their spelling.  Raises InputError where a needed one is missing.
    """
    try:
        text = read_text(path)
        head = text.split("\n", 1)[0]
        delimiter = ";" if head.count(";") > head.count(",") else ","
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter, restval="", strict=True)
        stripped = [name.strip() for name in reader.fieldnames or ()]
        names = [n.lower() if n.lower() in (*needed, *known) else n for n in stripped]
        reader.fieldnames = names
        table = [(reader.line_num, row) for row in reader if any(row.values())]
    except csv.Error as error:
        raise InputError(path, f"is no CSV: {error}") from error
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(path, f"has no column {' and no '.join(missing)}; it has {names}")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(path, f"has the column {twice[0]} twice")
    return table, names


def _row(folder: Path, line: int, cells: Mapping[str, str]) -> ManifestRow:
    """Raise ValueError saying what is wrong with the cells."""
    if None in cells:  # what DictReader calls values beyond the last column
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
        convention = str(folder / convention)
    if any("\0" in value for value in values.values()):
        raise ValueError("holds a character that no file's name has")
    image, mask = folder / values["image"], folder / values["mask"]
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
    """Vertebrae that stand there twice, and images of two patients."""
    seen: dict[tuple[Path, Path, str], ManifestRow] = {}
    owner: dict[Path, ManifestRow] = {}
    for row in rows:
        first = seen.setdefault(row.vertebra, row)
        if first is not row:
            other = ", but with the other label" if first.malignant != row.malignant else ""
            yield row.line, f"the same vertebra as in line {first.line}{other}"
        holder = owner.setdefault(row.image.resolve(), row)
        if holder.patient != row.patient:
            said = f"{holder.patient} in line {holder.line}, of {row.patient} here"
            yield row.line, f"the image is of patient {said}"
