"""A hospital's own vertebrae: a table of them, read and checked, and labelled slices cut from it.

Each vertebra is cut out as the pipeline does.  A slice gets the label of its vertebra, as in the
paper: nobody has said which slices of a malignant vertebra show the lesion.  Every slice through
the body is written; ``training.dataset.load_slices`` chooses those that the weights' profile names.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..anatomy.body import CUT
from ..anatomy.crop import Crop, Mask
from ..anatomy.intensity import Calibration, calibrate
from ..anatomy.labelling import Assignment, assign
from ..anatomy.localization import all_bodies, levels_of, locate_body
from ..anatomy.preparation import Prepared, prepare
from ..anatomy.quality import UNKNOWN
from ..anatomy.segment_names import is_unnamed, meaning_of_name
from ..errors import InputError, NotCTError
from ..files import atomic, make_folder, open_regular, read_arrays, read_text
from ..imaging.reading import read_ct, read_segmentation
from ..imaging.segmentation import Segmentation
from ..imaging.text_headers import data_files, is_text_header
from ..imaging.volume import Volume
from ..model.profile import Geometry, Limits
from ..plain_data import counted
from ..simulation.simulate import BODY, as_int16
from ..simulation.source_vertebrae import person

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
            groups[row.image.resolve()].append(row)
        return list(groups.values())


def read_manifest(path: Path) -> Manifest:
    """Read a CSV of the columns image, mask, label, patient and, if known, level and convention.

    Comma or semicolon, whatever the head has.  Paths are relative to the manifest, a convention
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
                hashes = sorted(_content_of(file).hexdigest() for file in _files(row.image))
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
        raise InputError(path, f"is not a CSV file: {error}") from error
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
        raise ValueError("contains a character that no file's name has")
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
    seen: dict[tuple[Path, Path | None, str], ManifestRow] = {}
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


THE_ONE = "the only label"
SOURCES = "sources"  # of a shard: the hash of the files that it was made from


@dataclass(frozen=True)
class PreparedRow:
    """What became of a row: its crop in HU, or the ``obstacle``; ``notes`` are not obstacles.

    ``limits`` are those that this vertebra alone would make.
    """

    row: ManifestRow
    obstacle: str = ""
    crop: Crop | None = None
    notes: tuple[str, ...] = ()
    limits: Limits = UNKNOWN


def cut_out(rows: Sequence[ManifestRow], geometry: Geometry) -> list[PreparedRow]:
    """Return the vertebrae of one image, whose rows these are."""
    try:
        ct = read_ct(rows[0].image)
    except InputError as error:
        return [PreparedRow(row, f"image: {error.cause}") for row in rows]
    found = sorted(_each(rows, ct, geometry), key=lambda pair: pair[0].row.line)
    usable = [prepared.landmarks for _, prepared in found if prepared and prepared.landmarks]
    if not usable:
        return [outcome for outcome, _ in found]
    try:
        scale = calibrate(ct, usable)
    except NotCTError as error:
        bad = f"image: {error.cause}"
        return [o if o.obstacle else replace(o, obstacle=bad, crop=None) for o, _ in found]
    return [_in_hounsfield(outcome, prepared, scale) for outcome, prepared in found]


def _each(
    rows: Sequence[ManifestRow], ct: Volume, geometry: Geometry
) -> Iterator[tuple[PreparedRow, Prepared | None]]:
    """Every row cut out, not yet in HU; each mask is read once."""
    for mask in dict.fromkeys(row.mask for row in rows):
        own = [row for row in rows if row.mask == mask]
        try:
            segmentation = read_segmentation(mask)
        except InputError as error:
            yield from ((PreparedRow(row, f"mask: {error.cause}"), None) for row in own)
            continue
        same = segmentation.grid.matches(ct.grid)
        notes = () if same else ("the mask has another grid than the image: it is resampled",)
        for row in own:
            try:
                prepared = _prepared(row, segmentation, ct, geometry)
            except InputError as error:
                yield PreparedRow(row, f"mask: {error.cause}", notes=notes), None
            else:
                yield PreparedRow(row, prepared.obstacle, prepared.crop, notes), prepared


def _prepared(
    row: ManifestRow, segmentation: Segmentation, ct: Volume, geometry: Geometry
) -> Prepared:
    assignments = _assigned(row, segmentation)
    marked = all_bodies(segmentation, assignments, None)
    return prepare(locate_body(row.level, segmentation, assignments, ct.grid, marked), ct, geometry)


def _assigned(row: ManifestRow, segmentation: Segmentation) -> list[Assignment]:
    """Which label is meant: that of the level, or the only one; raises InputError."""
    segments = segmentation.segments
    if len(segments) == 1 and not row.convention:
        nameless = is_unnamed(segments[0].name) and is_unnamed(segments[0].id)
        if nameless or not row.level:
            return [Assignment(segments[0], row.level, "vertebra", THE_ONE)]
    if not row.level:
        raise InputError(row.mask, f"contains {len(segments)} labels: say by level which is meant")
    assignments = assign(segmentation, row.convention or None)
    levels = levels_of(assignments)
    if row.level not in levels:
        raise InputError(row.mask, f"contains no {row.level}; it contains {', '.join(levels)}")
    return assignments


def _in_hounsfield(
    outcome: PreparedRow, prepared: Prepared | None, scale: Calibration
) -> PreparedRow:
    """Give the outcome its crop in HU, unless only a part of the body is seen."""
    if prepared is None or outcome.crop is None:
        return outcome
    flags = prepared.flags_in(scale)
    obstacle = prepared.obstacle_in(scale) or (f"body {CUT}" if CUT in flags else "")
    if obstacle:
        return replace(outcome, obstacle=obstacle, crop=None)
    crop = replace(outcome.crop, image=scale.hounsfield(outcome.crop.image))
    rescaled = () if scale.is_hu else ("the image is not in HU: rescaled by soft tissue and bone",)
    notes = (*outcome.notes, *flags, *rescaled)
    return replace(outcome, crop=crop, notes=notes, limits=prepared.limits_in(scale))


def write_shards(
    manifest: Manifest,
    geometry: Geometry,
    out: Path,
    tell: Callable[[int, int, Sequence[PreparedRow]], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Write one ``shard-*.npz`` for each image with usable rows; gives how many there are.

    As ``simulate`` writes them, but without twins and lesion masks.  One image is in memory at a
    time.  A shard that is whole and made from the files as they are now (by their hash) is kept;
    one of another manifest is refused with InputError.  ``tell`` hears of every image: how many are
    behind, of how many, and what became of its rows if they were not finished before.
    ``should_stop`` ends in KeyboardInterrupt.
    """
    groups = shard_groups(manifest, out)
    for number, (shard, rows) in enumerate(groups.items(), start=1):
        if should_stop():
            raise KeyboardInterrupt
        tell(number, len(groups), make_shard(shard, rows, geometry))
    return sum(shard.exists() for shard in groups)


def shard_groups(manifest: Manifest, out: Path) -> dict[Path, list[ManifestRow]]:
    """Return the rows of each shard; raises InputError where ``out`` holds other shards."""
    make_folder(out)
    groups = {out / f"shard-{_digest(rows)}.npz": rows for rows in manifest.by_image()}
    strangers = sorted(set(out.glob("shard-*.npz")) - set(groups))
    if strangers:
        shards, name = counted(len(strangers), "shard"), strangers[0].name
        raise InputError(out, f"contains {shards} of another manifest, such as {name}")
    return groups


def make_shard(shard: Path, rows: Sequence[ManifestRow], geometry: Geometry) -> list[PreparedRow]:
    """Write the shard of one image; return what became of its rows, nothing where it was whole.

    Raises InputError where it cannot be written.
    """
    outcomes = [] if _is_finished(shard, rows) else cut_out(rows, geometry)
    kept = [outcome for outcome in outcomes if outcome.crop is not None]
    if kept:
        with atomic(shard) as temporary:
            columns = {**_columns(kept), SOURCES: np.array(_content_hash(rows))}
            np.savez(temporary, **columns)  # type: ignore[arg-type]
    elif outcomes:  # of what the files held before nothing is to be learned
        shard.unlink(missing_ok=True)
    return outcomes


def _digest(rows: Sequence[ManifestRow]) -> str:
    """Tells the rows of one image from all others, from wherever they are read."""
    return sha256(repr([row.resolved() for row in rows]).encode()).hexdigest()[:12]


def _is_finished(shard: Path, rows: Sequence[ManifestRow]) -> bool:
    """Return whether it holds every row, made from the files as they are now."""
    if not shard.exists():
        return False
    try:
        data = read_arrays(shard, {"vertebra", SOURCES})
        count = len(np.unique(data["vertebra"]))
        made_from = str(data[SOURCES]) if SOURCES in data else ""
    except (KeyError, OSError, ValueError):  # damaged: it is made anew
        return False
    return count == len(rows) and made_from == _content_hash(rows)


def _content_hash(rows: Sequence[ManifestRow]) -> str:
    """Return a hash of what the rows' images and masks hold.

    Not of their times: a file that is replaced by an older one has changed as well.
    """
    digest = sha256()
    paths = {path.absolute(): path for row in rows for path in (row.image, row.mask)}
    paths |= {file.absolute(): file for row in rows if (file := row.labels_file) is not None}
    for _, path in sorted(paths.items()):
        for file in _files(path):
            digest.update(f"\n{path.name}/{file.name}\n".encode())
            if file.is_file():
                digest = _content_of(file, digest)
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """Return the files of an image or a mask, in order: also those that a text header names."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path, *(data_files(path) if is_text_header(path) else ())]


def _content_of(file: Path, begun: Any = None) -> Any:
    """Return the hash, begun perhaps, with what a file holds."""
    digest = sha256() if begun is None else begun
    with open_regular(file) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest


def _columns(outcomes: Sequence[PreparedRow]) -> dict[str, np.ndarray]:
    """Return the columns of a shard; a vertebra's number is that of its row among its image's."""
    parts: dict[str, list[np.ndarray]] = {}
    for number, outcome in enumerate(outcomes):
        row, crop = outcome.row, outcome.crop
        assert crop is not None
        slices, limits = crop.analysed, outcome.limits
        noise = np.nan if limits.noise_hu is None else limits.noise_hu
        body: Mask = crop.body[slices]
        columns = {
            "image": as_int16(crop.image[slices]),
            "masks": (BODY * body).astype(np.uint8),
            "label": np.full(len(slices), row.malignant, np.uint8),
            "patient": np.full(len(slices), row.patient),
            "level": np.full(len(slices), row.level),
            "vertebra": np.full(len(slices), number, np.int32),
            "slice": slices.astype(np.int16),
            "noise_hu": np.full(len(slices), noise, np.float32),
            "slice_mm": np.full(len(slices), limits.slice_mm, np.float32),
            "layers": np.full(len(slices), limits.layers, np.int16),
        }
        for key, column in columns.items():
            parts.setdefault(key, []).append(column)
    return {key: np.concatenate(part) for key, part in parts.items()}
