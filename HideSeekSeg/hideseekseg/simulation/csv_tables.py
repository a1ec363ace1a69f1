"""Tables that people write: CSV in the dialects of spreadsheets, and what cells of them mean."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_bytes

NAMELESS = "\0"  # begins what stands for a column without a name: no file's text has it

_DELIMITERS = ",;\t"
# What statistics programs and spreadsheets write where there is nothing, or nothing known.
_NOBODY = {"na", "n/a", "nan", "<na>", "null", "none", "nat", "-", "?"}
_FORMULA_ERROR = re.compile(r"#(n/a|ref!|value!|name\?|div/0!|num!|null!|nv|wert!|bezug!)", re.I)
_SHORTENED = re.compile(r"\d[.,]?\d*e\+\d+", re.I)


def read_table(
    path: Path, needed: Sequence[str], known: Sequence[str] = ()
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Return the lines of a CSV with their cells by column, and the names of the columns.

    Comma, semicolon or tab, whatever the head has most of; a first line ``sep=;``, by which
    spreadsheets name it, is no head.  Columns ``needed`` and ``known`` are found in any case of
    letters; others keep their spelling.  Lines count from 1, as an editor counts them.  Raises
    InputError where a needed column is missing.
    """
    try:
        rows = list(_rows(path))
    except csv.Error as error:
        raise InputError(path, f"is not a CSV file: {error}") from error
    stripped = [name.strip() for name in rows[0][1]] if rows else []
    names = [n.lower() if n.lower() in (*needed, *known) else n for n in stripped]
    missing = [name for name in needed if name not in names]
    if missing:
        there = [name for name in names if name]
        lack = f"it has no column {' and no '.join(missing)}, but {there}"
        raise InputError(path, f"needs the columns {', '.join(needed)}: {lack}")
    twice = [name for name, times in Counter(filter(None, names)).items() if times > 1]
    if twice:
        raise InputError(path, f"has the column {twice[0]} twice")
    table = [(line, _by_name(names, cells)) for line, cells in rows[1:]]
    return [(line, row) for line, row in table if any(row.values())], [n for n in names if n]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that has any, the head's first, with the line where it ends."""
    text = _text(path)
    before = 0
    declared = re.match(r"\"?sep=(.)\"?\s*?(\r\n|\r|\n)", text, re.I)
    if declared:
        text, before = text[declared.end() :], 1
    head = re.split(r"[\r\n]", text, maxsplit=1)[0]
    delimiter = declared[1] if declared else max(_DELIMITERS, key=head.count)
    if delimiter not in _DELIMITERS:
        raise csv.Error(f"it declares {delimiter!r} as what separates its columns")
    # Only what ends a line in files: a sign of Unicode that does so in texts may stand in a cell.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for cells in reader:
        if cells:
            yield before + reader.line_num, cells


def _text(path: Path) -> str:
    content = read_bytes(path)
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # "Unicode text"
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        if is_utf16 and not any(letter in text for letter in _DELIMITERS):
            raise ValueError("nearly all bytes can be read so")
    except ValueError as error:
        cause = "cannot be read: it is not UTF-8 text (a spreadsheet saves it as 'CSV UTF-8')"
        raise InputError(path, cause) from error
    return text


def _by_name(names: Sequence[str], cells: Sequence[str]) -> dict[Any, Any]:
    """Return the cells by column; what stands in none that has a name, and is not blank, at None.

    Spreadsheets add columns without a name, and separators at the end of a row.
    """
    row: dict[Any, Any] = {name: "" for name in names if name}
    row |= {name: cell for name, cell in zip(names, cells) if name}
    nameless = [cell for name, cell in zip(names, cells) if not name]
    if more := [cell for cell in (*nameless, *cells[len(names) :]) if cell.strip()]:
        row[None] = more
    return row


def fault_of_name(text: str) -> str:
    """Return why a cell names nobody, "" where it may be a name.

    What a program writes for an unknown value would make one patient of all whose name is not
    known, and a spreadsheet one of all whose long numbers it shortened.
    """
    if text.casefold() in _NOBODY or _FORMULA_ERROR.fullmatch(text):
        return f"is {text!r}, which names nobody: leave it empty where it is not known"
    if _SHORTENED.fullmatch(text):
        return f"is {text!r}, a long number that a spreadsheet shortened: format it as text"
    return ""


def path_in(folder: Path, text: str) -> Path:
    r"""Return the path of a cell, relative to ``folder``, also where it was written on Windows.

    A name that exists as it stands is taken as such: elsewhere "\" may be a letter of it.
    """
    path = folder / text
    if "\\" not in text:
        return path
    plain = folder / text.replace("\\", "/")
    try:
        return plain if plain.exists() and not path.exists() else path
    except (OSError, ValueError):  # no possible name, which is said where it is read
        return path
