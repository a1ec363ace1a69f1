"""Readers of a cohort: a work list for each, what each said of every case, and their agreement.

What a reader says of a case is kept in the case's folder, in a folder for each reader: readers do
not see each other's verdicts, and several may read one cohort at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import atomic, read_object
from ..findings import Evidence, VertebraFinding
from ..imaging.volume import Grid
from ..output.result_folder import EACH, FILES, read_result, read_vertebra, scores_of
from ..output.tables import result_from_json, write_plain
from ..plain_data import as_type, counted, first_line
from ..review.review import Review
from .case_run import READINGS, CaseStatus
from .manifest import case_folder
from .tables import IndexedCase, current_record, read_index

ABOUT, REVIEW, OUTLINES = "about.json", "review.json", "drawn"
AGREEMENT = ("agreement.json", "agreement.md")
VERDICTS = ("accepted", "uncertain", "rejected")
BONES = ("metastasis", "none")


class ReadStatus(str, Enum):
    """How far a reader is with a case."""

    NEW = "to read"
    BEGUN = "begun"
    FINISHED = "read"


@dataclass(frozen=True)
class Reading:
    """What a reader said of a case.

    ``result`` is the digest of the findings that were reviewed, ``scan`` the SHA-256 of the CT.
    """

    reader: str
    result: str
    scan: str
    finished: bool
    review: Review = field(compare=False)


@dataclass(frozen=True)
class CaseFindings:
    """What the run found in a case, with all voxels and images that were kept.

    ``digest`` tells these findings from those of another run; ``grid`` is that of the CT, None
    where nothing was outlined; ``complete`` says whether every candidate has its voxels.
    """

    run: dict[str, Any]
    threshold: float
    vertebrae: tuple[tuple[VertebraFinding, Evidence | None], ...]
    digest: str
    grid: Grid | None
    complete: bool

    @property
    def scan(self) -> str:
        """Return the SHA-256 of the CT."""
        return str(self.run.get("scan", {}).get("sha256", ""))

    def review(self, kept: Reading | None) -> Review:
        """Return the review to go on with.

        Of another run of the same scan, verdicts stay with candidates of the same type and place,
        and so do lesions that the reader added.
        """
        if kept is not None and kept.result == self.digest:
            return kept.review
        review = Review(self.threshold)
        earlier = None if kept is None else kept.review
        for finding, _ in self.vertebrae:
            review.add_vertebra(finding, earlier)
        for item in earlier.items if earlier is not None else ():
            if item.missed and earlier is not None:
                review.adopt(earlier, item.id)
        return review


def read_findings(folder: Path) -> CaseFindings:
    """Read the result of a case's folder; raises InputError."""
    path = folder / FILES[1]
    data = read_object(path)
    try:
        result = result_from_json(data)
    except ValueError as error:
        raise InputError(path, f"is damaged: {first_line(error)}") from error
    stored = read_result(folder, unreviewed=True)
    found, complete = [], True
    for vertebra in result.vertebrae:
        evidence = None
        file = folder / EACH / f"{vertebra.level}.npz"
        if file.is_file():
            single, evidence = read_vertebra(file)
            if scores_of(single.candidates) != scores_of(vertebra.candidates):
                raise InputError(file, f"is of another run than {FILES[1]}: run the cohort again")
            vertebra = replace(vertebra, candidates=single.candidates)
        else:
            with_voxels = (replace(c, patch=stored.patches.get(c.id)) for c in vertebra.candidates)
            vertebra = replace(vertebra, candidates=tuple(with_voxels))
            complete = complete and all(c.patch is not None for c in vertebra.candidates)
        found.append((vertebra, evidence))
    return CaseFindings(
        dict(result.run), result.threshold, tuple(found), _digest(data), stored.grid, complete
    )


def _digest(data: Mapping[str, Any]) -> str:
    """Return what tells the findings of a result (JSON) from those of another run."""
    text = json.dumps(data.get("vertebrae"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _present(folder: Path) -> str:
    """Return the digest of the findings in a case's folder, empty where none can be read."""
    try:
        return _digest(read_object(folder / FILES[1]))
    except InputError:
        return ""


def reading_folder(case: Path, reader: str) -> Path:
    """Return where a reader's part of a case is kept; ``case`` is the case's folder."""
    return case / READINGS / case_folder(reader)


def read_reading(folder: Path) -> Reading | None:
    """Return what is kept in a reader's folder, None where nothing is; raises InputError."""
    if not (folder / ABOUT).is_file():
        return None
    about = read_object(folder / ABOUT)
    try:
        reader, result, scan = (as_type(str, about[key]) for key in ("reader", "result", "scan"))
        review = Review.from_json(read_object(folder / REVIEW))
        return Reading(reader, result, scan, as_type(bool, about["finished"]), review)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(folder, f"is a damaged review: {first_line(error)}") from error


def write_reading(folder: Path, reading: Reading, text: str) -> None:
    """Write what a reader said; ``text`` is the review as JSON.  Raises InputError."""
    about = {"reader": reading.reader, "result": reading.result, "scan": reading.scan}
    with atomic(folder / REVIEW) as part:
        part.write_text(text, encoding="utf-8")
    write_plain(folder / ABOUT, {"schema": 1, **about, "finished": reading.finished})


class WorkList:
    """The cases of a cohort that have a result, in the manifest's order, for one reader.

    Results of an earlier run are none.
    """

    def __init__(self, folder: Path, reader: str) -> None:
        """Raise InputError where the folder is not a cohort's, or no case has a result."""
        if not reader.strip() or not reader.isprintable():
            raise InputError("--reader", "name the reader, in letters that can be printed")
        self.reader = reader.strip()
        every = read_index(folder).cases
        self.cases = [case for case in every if _is_done(case)]
        self.left_out = len(every) - len(self.cases)
        if not self.cases:
            raise InputError(folder, "has no case with a current result: run the cohort")
        self._place = {case.name: n for n, case in enumerate(self.cases)}
        self._status = {case.name: self._read_status(case) for case in self.cases}

    def case(self, name: str) -> IndexedCase:
        """Return a case by its name; raises InputError."""
        if name not in self._place:
            raise InputError("", f"there is no case {name!r} in this work list")
        return self.cases[self._place[name]]

    def folder(self, name: str) -> Path:
        """Return where this reader's part of a case is kept."""
        return reading_folder(self.case(name).folder, self.reader)

    def status(self, name: str) -> ReadStatus:
        """Return how far this reader is with a case."""
        return self._status[name]

    def set_status(self, name: str, status: ReadStatus) -> None:
        """Tell the list how far the reader is; nothing is written."""
        self._status[name] = status

    def first(self) -> str:
        """Return the first case that is not read, the first of all where every one is."""
        return next((c.name for c in self.cases if not self._is_read(c)), self.cases[0].name)

    def neighbour(self, name: str, way: int) -> str | None:
        """Return the case after (1) or before (-1) one; None at the end."""
        at = self._place[name] + way
        return self.cases[at].name if 0 <= at < len(self.cases) else None

    def around(self, name: str, number: int) -> list[IndexedCase]:
        """Return up to so many cases before and after one, with it."""
        at = self._place[name]
        return self.cases[max(at - number, 0) : at + number + 1]

    def text(self, name: str) -> str:
        """Such as "Case 3 of 20, 2 read"."""
        read = sum(self._is_read(case) for case in self.cases)
        text = f"Case {self._place[name] + 1} of {len(self.cases)}, {read} read"
        return text + (f"; {self.left_out} without a current result" if self.left_out else "")

    def _is_read(self, case: IndexedCase) -> bool:
        return self._status[case.name] is ReadStatus.FINISHED

    def _read_status(self, case: IndexedCase) -> ReadStatus:
        folder = reading_folder(case.folder, self.reader)
        try:
            about = read_object(folder / ABOUT)
        except InputError:
            return ReadStatus.NEW
        if about.get("reader") != self.reader:
            raise InputError(folder, "belongs to another reader, whose name differs in capitals")
        # What was read to its end is not when the case was run again: there are other findings.
        read = about.get("finished") is True and about.get("result") == _present(case.folder)
        return ReadStatus.FINISHED if read else ReadStatus.BEGUN


def _is_done(case: IndexedCase) -> bool:
    done = current_record(case).status is CaseStatus.DONE
    return done and (case.folder / FILES[1]).is_file()


# Agreement.


@dataclass(frozen=True)
class ReaderAgreement:
    """How two readers agree on candidates or vertebrae: ``pairs`` counts what both said.

    ``kappa`` is Cohen's, None where it is not defined: both gave one and the same answer always.
    ``left_out`` is how many others there were, of ``unit`` candidates those with one verdict alone,
    of vertebrae the cases of ``other_runs``: their names, by the readers whose review is of other
    findings than the case has now.
    """

    readers: tuple[str, str]
    unit: str
    cases: int
    pairs: dict[tuple[str, str], int]
    kappa: float | None
    left_out: int = 0
    other_runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Return how many were compared."""
        return sum(self.pairs.values())

    @property
    def agreed(self) -> int:
        """Return on how many both said the same."""
        return sum(count for (a, b), count in self.pairs.items() if a == b)


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa, unweighted, of what two readers said of the same things.

    None where it is not defined: of nothing, and where chance alone explains all agreement.
    """
    number = len(pairs)
    first, second = (Counter(pair[n] for pair in pairs) for n in (0, 1))
    chance = sum(count * second[said] for said, count in first.items())
    if not number or chance == number**2:
        return None
    agreed = sum(a == b for a, b in pairs) / number
    return (agreed - chance / number**2) / (1 - chance / number**2)


def readers_of(folder: Path) -> dict[str, dict[str, Reading]]:
    """Return what each reader said, by reader and case; raises InputError for a damaged review."""
    found: dict[str, dict[str, Reading]] = {}
    for case in read_index(folder).cases:
        for place in sorted((case.folder / READINGS).glob("*/")):
            reading = read_reading(place)
            if reading is not None:
                found.setdefault(reading.reader, {})[case.name] = reading
    return dict(sorted(found.items()))


def agreements(folder: Path) -> list[ReaderAgreement]:
    """Compare every two readers on the cases that both have read to the end.

    Candidates are those to which both gave a verdict.  A vertebra has a metastasis where a reader
    accepted a lesion in it, one that this reader drew included.  Cases where one of both reviewed
    other findings than the present ones, as before the case was run again, are left out, and
    named; candidates with one verdict alone are counted.
    """
    readings = readers_of(folder)
    every = {case.name: case for case in read_index(folder).cases}
    present = {
        name: _present(every[name].folder) if _is_done(every[name]) else ""
        for name in {name for said in readings.values() for name in said}
    }
    found = []
    for pair in combinations(readings, 2):
        own, other = (readings[name] for name in pair)
        both = [n for n in own if n in other and own[n].finished and other[n].finished]
        others = {
            n: tuple(name for name in pair if readings[name][n].result != present[n]) for n in both
        }
        other_runs = {n: names for n, names in others.items() if names}
        same = [(own[n], other[n]) for n in both if n not in other_runs]
        candidates = [_verdicts(a.review, b.review) for a, b in same]
        given = [said for one in candidates for said in one if "unreviewed" not in said]
        single = sum((said.count("unreviewed") == 1) for one in candidates for said in one)
        bones = [said for a, b in same for said in _bones(a.review, b.review)]
        for unit, pairs, left in (
            ("candidates", given, single),
            ("vertebrae", bones, len(other_runs)),
        ):
            counts, kappa = dict(Counter(pairs)), cohens_kappa(pairs)
            found.append(
                ReaderAgreement(pair, unit, len(same), counts, kappa, left, dict(other_runs))
            )
    return found


def _verdicts(a: Review, b: Review) -> list[tuple[str, str]]:
    """Return the verdicts of two reviews on the candidates of the run."""
    other = {item.id: item.verdict for item in b.items}
    return [(x.verdict, other[x.id]) for x in a.items if not x.missed and x.id in other]


def _bones(a: Review, b: Review) -> Iterator[tuple[str, str]]:
    accepted = [{x.level for x in r.items if x.verdict == "accepted"} for r in (a, b)]
    for level, vertebra in a.vertebrae.items():
        if vertebra.analysed and level in b.vertebrae:
            first, second = (BONES[level not in levels] for levels in accepted)
            yield first, second


def agreement_rows(found: Sequence[ReaderAgreement]) -> list[tuple[str, ...]]:
    """Return a row of text for each comparison, under ``AGREEMENT_HEAD``."""
    return [
        (
            " and ".join(one.readers),
            one.unit,
            str(one.cases),
            str(one.number),
            str(one.agreed),
            "not defined" if one.kappa is None else f"{one.kappa:.2f}",
            "; ".join(f"{a}/{b} {n}" for (a, b), n in sorted(one.pairs.items())) or "none",
        )
        for one in found
    ]


AGREEMENT_HEAD = ("readers", "of", "cases", "compared", "agreed", "Cohen's kappa", "first/second")


def write_agreement(folder: Path) -> tuple[Path, ...]:
    """Write ``AGREEMENT`` to a cohort's folder; raises InputError where no two readers compare."""
    readings = readers_of(folder)
    if len(readings) < 2:
        names = ", ".join(readings) or "nobody"
        raise InputError(folder, f"needs the reviews of two readers; it has those of {names}")
    found = agreements(folder)
    data = [
        {
            **{"readers": one.readers, "unit": one.unit, "cases": one.cases},
            **{"compared": one.number, "agreed": one.agreed, "kappa": one.kappa},
            "pairs": [[a, b, n] for (a, b), n in sorted(one.pairs.items())],
            "left_out": one.left_out,
            "other_runs": {name: list(readers) for name, readers in one.other_runs.items()},
        }
        for one in found
    ]
    write_plain(folder / AGREEMENT[0], {"schema": 1, "agreements": data})
    lines = ["| " + " | ".join(row) + " |" for row in (AGREEMENT_HEAD, *agreement_rows(found))]
    lines.insert(1, "|" + "---|" * len(AGREEMENT_HEAD))
    with atomic(folder / AGREEMENT[1]) as part:
        part.write_text("\n".join([*lines, "", *agreement_notes(found)]) + "\n", encoding="utf-8")
    return tuple(folder / name for name in AGREEMENT)


def agreement_notes(found: Sequence[ReaderAgreement]) -> list[str]:
    """Return in sentences what was left out of all comparisons, and what was compared."""
    single = sum(one.left_out for one in found if one.unit == "candidates")
    other: dict[str, set[str]] = {}
    for one in found:
        for name, readers in one.other_runs.items():
            other.setdefault(name, set()).update(readers)
    names = ", ".join(f"{name} ({', '.join(sorted(other[name]))})" for name in sorted(other))
    cases = f"{counted(len(other), 'case')} with a review of other findings than the present ones"
    return [
        f"Left out: {counted(single, 'candidate')} with a verdict of one reader alone;"
        f" {cases}{': ' if names else ''}{names}.",
        "Compared are cases that both have read to the end. A vertebra counts as metastasis where a"
        " reader accepted a lesion in it.",
    ]
