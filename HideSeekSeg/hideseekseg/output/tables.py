"""Findings as JSON for programs, CSV for spreadsheets, and a table for the terminal.

The JSON is described in ``Resources/Docs/candidates-schema.md``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic
from ..findings import (
    LESION_TYPES,
    SCHEMA_VERSION,
    STOPPED,
    Candidate,
    Result,
    Status,
    VertebraFinding,
)
from ..imaging.volume import case_name
from ..plain_data import as_type, from_plain, printable, shortened, spreadsheet_cell
from .segment_description import head_to_tail, labels

_CANDIDATE_KEYS = tuple(f.name for f in fields(Candidate) if f.name != "patch")
_VERTEBRA_KEYS = tuple(f.name for f in fields(VertebraFinding) if f.name != "candidates")
# Since schema 1.1.
_LATER_KEYS = frozenset(
    (
        *("suspicious", "distance_from_training", "attribution_score", "probability", "stability"),
        *("diameter_mm", "p_all", "p_hidden", "p_alone", "p_without"),
    )
)
POSITION_COLUMNS = ("x_lps_mm", "y_lps_mm", "z_lps_mm")
_CSV_COLUMNS = (
    "case",
    *("level", "status", "state", "reason", "p_malignant", "body_source", "body_mm3", "flags"),
    *("name", "id", "type", "score", "accepted", "volume_mm3", "share_of_body", "mean_hu"),
    *("attribution_score", "probability", "stability", "distance_from_training"),
    *("diameter_mm", "p_all", "p_hidden", "p_alone", "p_without"),
    *POSITION_COLUMNS,
)


def to_json(result: Result) -> dict[str, Any]:
    """All vertebrae and all candidates, whatever their score, as plain data for JSON."""
    return {
        "schema": SCHEMA_VERSION,
        "threshold": float(result.threshold),
        "vertebrae": [vertebra_to_json(v, result.threshold) for v in result.vertebrae],
        "run": _plain(result.run),
    }


def vertebra_to_json(vertebra: VertebraFinding, threshold: float | None) -> dict[str, Any]:
    """One entry of ``vertebrae``; ``threshold`` decides which candidates are ``accepted``.

    Without a threshold the candidates do not say so.
    """
    names = labels(vertebra)
    candidates = []
    for candidate in vertebra.candidates:
        entry = {key: _plain(getattr(candidate, key)) for key in _CANDIDATE_KEYS}
        entry["name"] = names[candidate.id].name
        if threshold is not None:
            entry["accepted"] = candidate.score > threshold
        candidates.append(entry)
    return {
        **{key: _plain(getattr(vertebra, key)) for key in _VERTEBRA_KEYS},
        **({} if threshold is None else {"state": vertebra.state(threshold)}),
        "candidates": candidates,
    }


def _plain(value: Any) -> Any:
    """Containers, enumerations, paths and numpy's numbers as JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def result_from_json(data: dict[str, Any]) -> Result:
    """Return the result that ``to_json`` described, without the candidates' voxels.

    Keys of a later minor version are ignored.  Raises ValueError for another major version, or
    naming the key that is missing.
    """
    try:
        version = str(data["schema"])
        if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise ValueError(f"schema {shortened(version)} cannot be read, only {SCHEMA_VERSION}")
        vertebrae = tuple(vertebra_from_json(v) for v in as_type(list[Any], data["vertebrae"]))
        threshold = as_type(float, data["threshold"])
        return Result(vertebrae, threshold, as_type(dict[str, Any], data["run"]))
    except KeyError as missing:
        raise ValueError(f"candidates: key {missing} is missing") from None
    except TypeError:
        raise ValueError("candidates: not an object") from None


def vertebra_from_json(data: dict[str, Any]) -> VertebraFinding:
    """Return the vertebra that ``vertebra_to_json`` described.

    Raises KeyError naming a key that is missing, and ValueError for a value of another type.
    """
    vertebra = from_plain(VertebraFinding, _known(data, _VERTEBRA_KEYS))
    entries = as_type(list[dict[str, Any]], data["candidates"])
    candidates = tuple(from_plain(Candidate, _known(c, _CANDIDATE_KEYS)) for c in entries)
    return replace(vertebra, candidates=candidates)


def _known(data: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return the values of these keys; those of a later minor version may be missing."""
    return {key: data[key] for key in keys if key in data or key not in _LATER_KEYS}


def write_json(path: str | Path, result: Result) -> None:
    """Write ``to_json``; raises ValueError, and writes nothing, where a number is not finite."""
    write_plain(path, to_json(result))


def write_plain(path: str | Path, data: dict[str, Any]) -> None:
    """Plain data as JSON, for people and programs; raises ValueError as ``write_json`` does."""
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def write_csv(path: str | Path, result: Result) -> None:
    """Write a row per candidate, and one for a vertebra without: every vertebra is listed."""
    rows, case = [], case_name(result.run.get("scan", {}))
    for vertebra in to_json(result)["vertebrae"]:
        of_vertebra = {**vertebra, "flags": "; ".join(vertebra["flags"])}
        for candidate in vertebra["candidates"] or [{}]:
            position = dict(zip(POSITION_COLUMNS, candidate.get("centroid_lps", ())))
            rows.append({"case": case, **of_vertebra, **candidate, **position})
    write_rows(path, _CSV_COLUMNS, rows)


def write_rows(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with a header; a key that a row lacks is an empty cell.

    Texts that a spreadsheet would take for a formula begin with an apostrophe.
    """
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows({k: spreadsheet_cell(v) for k, v in row.items()} for row in rows)


def format_table(result: Result) -> str:
    """Return a table of the accepted lesions and the other vertebrae, from head to tail.

    What the run as a whole was warned of stands last, where it is not overlooked.
    """
    vertebrae = head_to_tail(result.vertebrae)
    stopped = [v for v in vertebrae if v.reason == STOPPED]
    listed = (v for v in vertebrae if v.reason != STOPPED)
    lines = [_TABLE_HEAD, *(x for v in listed for x in _table_lines(v, result.threshold))]
    if stopped:
        lines.append(_Line(("stopped",), f"before {', '.join(v.level for v in stopped)}"))
    widths = [max(len(x.cells[n]) for x in lines if len(x.cells) > n) for n in range(6)]
    warnings = [f"warning: {note}" for note in result.run.get("notes", ())]
    text = [*(_format_line(x, widths) for x in lines), "", summary(result), *warnings]
    return "\n".join(printable(line) for line in text)


@dataclass(frozen=True)
class _Line:
    """A line of the table: a name and perhaps numbers in columns, then free text."""

    cells: tuple[str, ...]
    remark: str = ""


_TABLE_HEAD = _Line(("lesion", "score", "mm3", "% of body", "mean HU", "P(malignant)"))


def _table_lines(vertebra: VertebraFinding, threshold: float) -> list[_Line]:
    flags = "".join(f" [{flag}]" for flag in vertebra.flags)
    if vertebra.status is Status.NOT_ANALYSED:
        return [_Line((vertebra.level,), f"{vertebra.state(threshold)}{flags}")]
    p = "-" if vertebra.p_malignant is None else f"{vertebra.p_malignant:.3f}"
    names = labels(vertebra)
    lesions = [
        (
            names[c.id].name,
            f"{c.score:.2f}",
            f"{c.volume_mm3:.0f}",
            f"{100 * c.share_of_body:.1f}",
            "-" if c.mean_hu is None else f"{c.mean_hu:.0f}",
            p,
        )
        for c in sorted(vertebra.accepted(threshold), key=lambda c: -c.score)
    ]
    nothing = _Line((vertebra.level,), f"{vertebra.state(threshold)}, P(malignant) {p}{flags}")
    return [_Line(cells, flags.strip()) for cells in lesions] or [nothing]


def _format_line(line: _Line, widths: list[int]) -> str:
    """Align the name to the left and numbers to the right, then add the remark."""
    numbers = [cell.rjust(width) for cell, width in zip(line.cells[1:], widths[1:])]
    return "  ".join([line.cells[0].ljust(widths[0]), *numbers, line.remark]).rstrip()


def summary(result: Result) -> str:
    """One line: how many lesions in how many vertebrae, and what was not analysed."""
    analysed = [v for v in result.vertebrae if v.status is not Status.NOT_ANALYSED]
    accepted = [c for v in analysed for c in v.accepted(result.threshold)]
    affected = sum(bool(v.accepted(result.threshold)) for v in analysed)
    kinds = ", ".join(f"{sum(c.type == k for c in accepted)} {k}" for k in LESION_TYPES)
    skipped = len(result.vertebrae) - len(analysed)
    found = (
        f"{_count(len(accepted), 'lesion')} ({kinds}) in {affected} of "
        if accepted
        else "no lesion outlined in "
    )
    judged = [v.judged(result.threshold).status for v in analysed]
    suspicious = judged.count(Status.SUSPICIOUS)
    rest = f"; {suspicious} suspicious, nothing outlined" if suspicious else ""
    rest += f"; {skipped} not analysed" if skipped else ""
    vertebrae = _count(len(analysed), "vertebra", "vertebrae")
    return f"{found}{vertebrae}{rest}; threshold {result.threshold:g}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
