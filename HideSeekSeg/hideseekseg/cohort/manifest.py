"""The cases of a cohort: a table or a folder tree of them, and what is wrong with them."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..anatomy.labelling import check_labels
from ..anatomy.segment_names import may_be_vertebra
from ..errors import InputError, UserError
from ..files import atomic
from ..imaging.mask_folder import structure_of
from ..imaging.reading import check_ct, check_segmentation
from ..imaging.volume import Grid
from ..training.manifest import Problem, read_table

T = TypeVar("T")

NEEDED = ("ct", "segmentation")
KNOWN = ("labels", "bodies", "case", "patient", "series")
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
    patient is a patient of its own.  Raises InputError where the file is no such table; what is
    wrong in a line is a problem, and the line no case.
    """
    table, names = read_table(path, NEEDED, KNOWN)
    if not table:
        raise InputError(path, "has no row below its head")
    further = tuple(name for name in names if name not in COLUMNS)
    cases: list[CohortCase] = []
    problems: list[Problem] = []
    folders: set[str] = set()
    lines: dict[str, int] = {}
    for line, cells in table:
        try:
            case = _case(path.parent, line, cells, further, folders)
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
    """Raise ValueError saying what is wrong with the cells."""
    if None in cells:  # what DictReader calls values beyond the last column
        raise ValueError("has more values than there are columns")
    values = {name: str(cells.get(name) or "").strip() for name in COLUMNS}
    empty = [name for name in NEEDED if not values[name]]
    if empty:
        raise ValueError(f"has no {' and no '.join(empty)}")
    odd = next((text for text in cells.values() if not str(text or "").isprintable()), None)
    if odd is not None:
        raise ValueError(f"holds a letter that cannot be printed, in {odd!r}")
    ct = parent / values["ct"]
    name = values["case"] or structure_of(ct) or ct.name
    labels = values["labels"]
    if labels.lower().endswith(".json"):
        labels = str(parent / labels)
    return CohortCase(
        *(line, name, case_folder(name, folders), values["patient"] or name, ct),
        parent / values["segmentation"],
        labels or None,
        parent / values["bodies"] if values["bodies"] else None,
        values["series"],
        {column: str(cells.get(column) or "").strip() for column in further},
    )


def case_folder(name: str, taken: Iterable[str] = ()) -> str:
    """Return a folder's name for a case that is safe everywhere and not among those ``taken``.

    It has no separator, no leading dot and no device's name; a name that had to be changed, and one
    that differs from an earlier one by capitals alone, ends in a piece of its hash.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:MOST_NAME].rstrip("-.")
    device = plain.split(".")[0].casefold() in _DEVICES
    used = {folder.casefold() for folder in taken}
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
    """CTs that stand there for two cases or two patients."""
    seen: dict[tuple[Path, str], CohortCase] = {}
    for case in cases:
        first = seen.setdefault((case.ct.absolute(), case.series), case)
        if first.patient != case.patient and first is not case:
            who = f"of patient {first.patient} in line {first.line}, of {case.patient} here"
            yield case.line, f"the CT is {who}"
        elif first is not case and first.segmentation == case.segmentation:
            yield case.line, f"the same CT and segmentation as in line {first.line}"


def write_manifest(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows of ``COLUMNS`` as a manifest."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def check_case(case: CohortCase) -> list[str]:
    """Return what is wrong with a case as far as headers tell, a line each."""
    causes: list[str] = []
    ct = _told(lambda: check_ct(case.ct, case.series), causes)
    own = _told(lambda: check_segmentation(case.segmentation, may_be_vertebra), causes)
    _told(lambda: check_labels(case.labels), causes)
    bodies = None
    if case.bodies is not None:
        marked = case.bodies
        bodies = _told(lambda: check_segmentation(marked, may_be_vertebra), causes)
    if own is not None and not own[1] and case.labels is None:
        causes.append(
            f"{case.segmentation}: does not name its labels: say in the column labels what they"
            " mean (totalsegmentator, verse, ... or a JSON file)"
        )
    for path, found in ((case.segmentation, own), (case.bodies, bodies)):
        grid = found[0] if found is not None else None
        if ct is not None and grid is not None and not _overlap(ct, grid):
            causes.append(f"{path}: lies outside of the CT {case.ct}: of another scan?")
    return causes


def _told(check: Callable[[], T], causes: list[str]) -> T | None:
    """Return what a check returns; what it refuses is added to ``causes``."""
    try:
        return check()
    except UserError as error:
        causes.append(str(error))
    except (OSError, MemoryError) as error:
        causes.append(f"{type(error).__name__}: {error}")
    return None


def _overlap(a: Grid, b: Grid) -> bool:
    """Whether the boxes around two grids, in LPS mm, have a point in common."""
    boxes = []
    for grid in (a, b):
        size = np.array(grid.shape[::-1])
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in size])).reshape(3, -1).T
        positions = grid.lps(corners)
        boxes.append((positions.min(axis=0), positions.max(axis=0)))
    return bool((boxes[0][0] <= boxes[1][1]).all() and (boxes[1][0] <= boxes[0][1]).all())


def check_cohort(
    cohort: Cohort,
    workers: int = 1,
    on_checked: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Problem]:
    """Yield all that is wrong, line by line; a stop ends the rest.

    Headers are read in ``workers`` processes (in this one, if 1); ``on_checked`` receives the
    number of cases done and of all.
    """
    yield from cohort.problems
    total = len(cohort.cases)
    if workers == 1:
        found: Iterable[list[str]] = map(check_case, cohort.cases)
        yield from _problems(cohort, found, on_checked, should_stop)
        return
    with ProcessPoolExecutor(min(workers, total or 1), get_context("spawn")) as pool:
        found = pool.map(check_case, cohort.cases, chunksize=4)
        try:
            yield from _problems(cohort, found, on_checked, should_stop)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _problems(
    cohort: Cohort,
    found: Iterable[list[str]],
    on_checked: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> Iterator[Problem]:
    for done, (case, causes) in enumerate(zip(cohort.cases, found), start=1):
        yield from (Problem(cohort.path, case.line, cause) for cause in causes)
        on_checked(done, len(cohort.cases))
        if should_stop():
            return
