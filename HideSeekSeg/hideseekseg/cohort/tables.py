"""The tables of a cohort: its cases, their vertebrae and their candidates, as CSV and as parquet.

A row is written as soon as its case was read: a cohort of any size needs the memory of one case.
The columns are described in ``Resources/Docs/cohorts.md``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import InputError
from ..files import read_object, together
from ..findings import LESION_TYPES, Result, Status, VertebraFinding
from ..output.result_folder import FILES
from ..output.segment_description import labels
from ..output.tables import POSITION_COLUMNS, result_from_json
from ..plain_data import spreadsheet_cell
from .case_run import (
    CASES,
    INDEX,
    CaseInputs,
    CaseRecord,
    CaseStatus,
    changed_inputs,
    read_record,
)

Row = dict[str, Any]

# Columns with the type of their values; what is not known is an empty cell (null in parquet).
CASE_COLUMNS: dict[str, type] = {
    **{"case": str, "patient": str, "status": str, "reason": str, "vertebrae": int},
    **{"outlined": int, "suspicious": int, "unremarkable": int, "not_analysed": int},
    **{"lesions": int, "lytic": int, "blastic": int, "volume_mm3": float, "max_score": float},
    **{"max_p_malignant": float, "flags": str, "warnings": str, "threshold": float},
    **{"weights": str, "weights_hash": str, "device": str, "seconds": float, "memory_mb": float},
    **{"finished": str, "ct": str, "segmentation": str, "folder": str},
}
VERTEBRA_COLUMNS: dict[str, type] = {
    **{"case": str, "patient": str, "level": str, "status": str, "state": str, "reason": str},
    **{"p_malignant": float, "lesions": int, "candidates": int, "max_score": float},
    **{"body_source": str, "body_mm3": float, "distance_from_training": float, "flags": str},
}
LESION_COLUMNS: dict[str, type] = {
    **{"case": str, "patient": str, "level": str, "name": str, "id": str, "type": str},
    **{"score": float, "accepted": bool, "volume_mm3": float, "share_of_body": float},
    **{"mean_hu": float, "attribution_score": float, "probability": float, "stability": float},
    **dict.fromkeys(POSITION_COLUMNS, float),
    "p_malignant": float,
}
TABLES = {"cases": CASE_COLUMNS, "vertebrae": VERTEBRA_COLUMNS, "lesions": LESION_COLUMNS}
_OTHER_RUN = "made with other options, weights, labels or version: run the cohort again"
_BATCH = 20_000  # rows of parquet that are kept before they are written


@dataclass(frozen=True)
class IndexedCase:
    """A case as the cohort's folder knows it; ``further`` are the manifest's own columns.

    ``key`` is that of a record of the last run, "" where an earlier version wrote none.
    """

    name: str
    patient: str
    folder: Path
    ct: str
    segmentation: str
    labels: str = ""
    series: str = ""
    further: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    bodies: str = ""

    @property
    def inputs(self) -> CaseInputs:
        """Return what its result has to be made from."""
        return CaseInputs(self.ct, self.segmentation, self.bodies, self.labels, self.series)


@dataclass(frozen=True)
class CohortIndex:
    """All cases of a cohort's folder in the manifest's order, and the manifest's own columns."""

    folder: Path
    manifest: str
    cases: tuple[IndexedCase, ...]
    further: tuple[str, ...]


@dataclass(frozen=True)
class CaseResult:
    """A case, what became of it, and its result where it has one."""

    case: IndexedCase
    record: CaseRecord
    result: Result | None


def read_index(folder: Path) -> CohortIndex:
    """Read which cases a cohort's folder holds; raises InputError."""
    path = folder / INDEX
    if not path.is_file():
        raise InputError(folder, f"is not a cohort folder: it has no {INDEX}")
    data = read_object(path)
    try:
        cases = tuple(_indexed(folder, entry) for entry in data["cases"])
        return CohortIndex(folder, str(data["manifest"]), cases, tuple(map(str, data["further"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, "is damaged: run the cohort again") from error


def _indexed(folder: Path, entry: Mapping[str, Any]) -> IndexedCase:
    own = str(entry["folder"])
    if Path(own).name != own or own in ("", ".", ".."):
        raise ValueError(own)
    further = {str(key): str(value) for key, value in entry["further"].items()}
    keys = ("case", "patient", "ct", "segmentation", "labels")
    case, patient, ct, segmentation, labels = (str(entry[key]) for key in keys)
    words = (ct, segmentation, labels, str(entry.get("series", "")))
    key, bodies = (str(entry.get(name, "")) for name in ("key", "bodies"))
    return IndexedCase(case, patient, folder / CASES / own, *words, further, key, bodies)


def current_record(case: IndexedCase) -> CaseRecord:
    """Return what became of a case; whoever counts or shows a result asks here whether it is one.

    What the last run did not come to is of an earlier one, and so is what was made from files that
    are others now: neither is a result of the case.
    """
    record = read_record(case.folder)
    if record is None:
        return CaseRecord(case.name, CaseStatus.WAITING)
    if case.key and record.key != case.key:
        return CaseRecord(case.name, CaseStatus.EARLIER, _OTHER_RUN)
    changed = changed_inputs(record, case.inputs)
    if changed:
        cause = f"made from another {' and another '.join(changed)}: run the cohort again"
        return CaseRecord(case.name, CaseStatus.EARLIER, cause)
    return record


def case_results(index: CohortIndex) -> Iterator[CaseResult]:
    """Yield what became of each case; one whose result cannot be read is one that failed.

    A result that is of an earlier run is left out.
    """
    for case in index.cases:
        record, result = current_record(case), None
        if record.status is CaseStatus.DONE:
            try:
                result = result_from_json(read_object(case.folder / FILES[1]))
            except (InputError, ValueError) as error:
                reason = f"{case.folder / FILES[1]}: cannot be read: {error}"
                record = CaseRecord(case.name, CaseStatus.FAILED, reason)
        yield CaseResult(case, record, result)


def case_row(found: CaseResult) -> Row:
    """Return the row of a case in ``cases``, without the manifest's own columns."""
    case, record, result = found.case, found.record, found.result
    row: Row = {
        **{"case": case.name, "patient": case.patient, "status": record.status.value},
        **{"reason": record.reason, "seconds": record.seconds, "memory_mb": record.memory_mb},
        **{"warnings": "; ".join(record.warnings), "finished": record.finished, "ct": case.ct},
        **{"segmentation": case.segmentation, "folder": f"{CASES}/{case.folder.name}"},
    }
    if result is None:
        return row
    vertebrae = [v.judged(result.threshold) for v in result.vertebrae]
    accepted = [c for v in vertebrae for c in v.accepted(result.threshold)]
    p = [v.p_malignant for v in vertebrae if v.p_malignant is not None]
    flags = dict.fromkeys(f"{v.level}: {flag}" for v in vertebrae for flag in v.flags)
    names = ("outlined", "suspicious", "unremarkable", "not_analysed")
    return {
        **row,
        "vertebrae": len(vertebrae),
        **{name: sum(v.status is s for v in vertebrae) for name, s in zip(names, Status)},
        "lesions": len(accepted),
        **{kind: sum(c.type == kind for c in accepted) for kind in LESION_TYPES},
        "volume_mm3": sum(c.volume_mm3 for c in accepted),
        "max_score": max((c.score for v in vertebrae for c in v.candidates), default=None),
        **{"max_p_malignant": max(p, default=None), "flags": "; ".join(flags)},
        "threshold": result.threshold,
        **{key: result.run.get(key) for key in ("weights", "weights_hash", "device")},
    }


def vertebra_rows(found: CaseResult) -> Iterator[Row]:
    """Yield the rows of a case in ``vertebrae``."""
    if found.result is None:
        return
    threshold = found.result.threshold
    for vertebra in found.result.vertebrae:
        yield {
            **_whose(found, vertebra),
            "status": vertebra.judged(threshold).status.value,
            "state": vertebra.state(threshold),
            "reason": vertebra.reason,
            "lesions": len(vertebra.accepted(threshold)),
            "candidates": len(vertebra.candidates),
            "max_score": max((c.score for c in vertebra.candidates), default=None),
            **{"body_source": vertebra.body_source, "body_mm3": vertebra.body_mm3},
            "distance_from_training": vertebra.distance_from_training,
            "flags": "; ".join(vertebra.flags),
        }


def lesion_rows(found: CaseResult) -> Iterator[Row]:
    """Yield the rows of a case in ``lesions``: all candidates, whatever their score."""
    if found.result is None:
        return
    threshold = found.result.threshold
    for vertebra in found.result.vertebrae:
        names = labels(vertebra)
        for candidate in vertebra.candidates:
            shared = (key for key in LESION_COLUMNS if hasattr(candidate, key))
            yield {
                **{key: getattr(candidate, key) for key in shared},
                **_whose(found, vertebra),
                "name": names[candidate.id].name,
                "accepted": candidate.score > threshold,
                **dict(zip(POSITION_COLUMNS, candidate.centroid_lps)),
            }


def _whose(found: CaseResult, vertebra: VertebraFinding) -> Row:
    whose = {"case": found.case.name, "patient": found.case.patient}
    return {**whose, "level": vertebra.level, "p_malignant": vertebra.p_malignant}


def write_tables(folder: Path) -> tuple[Path, ...]:
    """Write the tables of a cohort's folder, all or none; return their paths.

    As parquet only where pyarrow is installed; an older parquet goes where it is not, as it would
    contradict the CSV.  Raises InputError.
    """
    index = read_index(folder)
    parquet = _parquet()
    with together(folder) as part, ExitStack() as stack:
        writers = {
            name: stack.enter_context(_TableWriter(part / name, columns, index.further, parquet))
            for name, columns in TABLES.items()
        }
        for found in case_results(index):
            further = found.case.further
            writers["cases"].add(case_row(found), further)
            for row in vertebra_rows(found):
                writers["vertebrae"].add(row, further)
            for row in lesion_rows(found):
                writers["lesions"].add(row, further)
        stack.close()
        written = tuple(folder / file.name for file in sorted(part.iterdir()))
    if parquet is None:
        for name in TABLES:
            (folder / f"{name}.parquet").unlink(missing_ok=True)
    return written


def further_column(name: str, columns: Mapping[str, type]) -> str:
    """Return the name of a manifest's own column in a table that may have such a one itself."""
    return f"manifest_{name}" if name in columns else name


def _parquet() -> ModuleType | None:
    try:
        import pyarrow.parquet
    except ImportError:
        return None
    return pyarrow


class _TableWriter:
    """One table as CSV and, where there is ``parquet``, as such: a row at a time."""

    def __init__(
        self,
        stem: Path,
        columns: Mapping[str, type],
        further: Sequence[str],
        parquet: ModuleType | None,
    ) -> None:
        self._further = {name: further_column(name, columns) for name in further}
        self._columns = {**columns, **dict.fromkeys(self._further.values(), str)}
        self._stem, self._arrow = stem, parquet
        self._rows: list[Row] = []

    def __enter__(self) -> _TableWriter:
        self._file = self._stem.with_suffix(".csv").open("w", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, self._columns, restval="")
        self._csv.writeheader()
        self._parquet: Any = None
        if self._arrow is not None:
            kinds = {str: "string", int: "int64", float: "float64", bool: "bool"}
            self._schema = self._arrow.schema(
                [(n, self._arrow.type_for_alias(kinds[k])) for n, k in self._columns.items()]
            )
            path = str(self._stem.with_suffix(".parquet"))
            self._parquet = self._arrow.parquet.ParquetWriter(path, self._schema)
        return self

    def add(self, row: Row, further: Mapping[str, str]) -> None:
        whole = {**row, **{self._further[k]: v for k, v in further.items() if k in self._further}}
        self._csv.writerow(
            {key: "" if value is None else spreadsheet_cell(value) for key, value in whole.items()}
        )
        if self._parquet is not None:
            typed = {key: _typed(kind, whole.get(key)) for key, kind in self._columns.items()}
            self._rows.append(typed)
            if len(self._rows) >= _BATCH:
                self._flush()

    def _flush(self) -> None:
        assert self._arrow is not None
        table = self._arrow.Table.from_pylist(self._rows, self._schema)
        self._parquet.write_table(table)
        self._rows.clear()

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._parquet is not None:
            self._flush()
            self._parquet.close()


def _typed(kind: type, value: Any) -> Any:
    return None if value is None else kind(value)
