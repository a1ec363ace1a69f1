"""Plain data, as JSON holds it, as the types that it was made of: every value checked.

What a foreign file says is never trusted to be a number, a list or a text because it should be.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

MOST_SHOWN = 60  # letters of a foreign value that a message shows
MAX_NUMBER = 1e300

T = TypeVar("T")


def as_type(hint: Any, value: Any) -> Any:
    """Return JSON's plain ``value`` as the type of ``hint``: what ``asdict`` made plain, again.

    Knows numbers, text, ``Literal``, ``Enum``, tuples, lists, dictionaries, ``X | None``, data
    classes (keys that they do not have are refused) and ``Annotated`` with a range.  Raises
    ValueError that says, in words that follow a name, what the value is not.
    """
    kind, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if kind in (Union, UnionType):
        options = [option for option in inner if option is not NoneType]
        return None if value is None else as_type(options[0], value)
    if kind is Literal:
        if not isinstance(value, str) or value not in inner:
            raise ValueError(f"is not one of {', '.join(inner)}")
        return value
    if kind in (tuple, list):
        return kind(_items(inner, value))
    if kind is dict:
        return _dictionary(inner, value)
    if kind is Annotated:
        number = as_type(inner[0], value)
        if number not in inner[1]:
            raise ValueError(f"is not {inner[1]}")
        return number
    return _single(hint, value)


def _single(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return from_plain(cast("type[Any]", hint), value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except (TypeError, ValueError):
            known = ", ".join(str(member.value) for member in hint)
            raise ValueError(f"is not one of {known}") from None
    if hint is bool or hint is str:
        if not isinstance(value, hint):
            raise ValueError(f"is not {'true or false' if hint is bool else 'text'}")
        return value
    return _number(hint, value)


def from_plain(kind: type[T], data: Any, left_out: Sequence[str] = ()) -> T:
    """Return the data class that ``asdict`` described, every value of its type.

    Fields ``left_out`` keep their defaults and may not be given.  Raises ValueError, one line,
    for data of another kind, unknown or missing keys, and values of another type.
    """
    if not isinstance(data, Mapping):
        raise ValueError("is not an object")
    hints = get_type_hints(kind, include_extras=True)
    known = {f.name: f for f in fields(cast(Any, kind)) if f.name not in left_out}
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        raise ValueError(f"has the unknown key {shown(unknown[0])}")
    for name, field in known.items():
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if name not in data and not optional:
            raise ValueError(f"has no {name!r}")
    return kind(**{name: _named(name, hints[name], value) for name, value in data.items()})


def _named(name: str, hint: Any, value: Any) -> Any:
    try:
        return as_type(hint, value)
    except ValueError as error:
        raise ValueError(f"{name} {shown(value)} {error}") from None


def _items(inner: tuple[Any, ...], value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("is not a list")
    hints = list(inner)
    if len(inner) == 1 or inner[-1] is Ellipsis:
        hints = [inner[0]] * len(value)
    if len(value) != len(hints):
        raise ValueError(f"does not have {len(hints)} values")
    return [as_type(hint, item) for hint, item in zip(hints, value)]


def _dictionary(inner: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("is not an object")
    return {as_type(inner[0], key): as_type(inner[1], item) for key, item in value.items()}


def _number(hint: Any, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("is not a whole number" if hint is int else "is not a number")
    if hint is int and not isinstance(value, int):
        raise ValueError("is not a whole number")
    # Numbers beyond float64 are infinite, and JSON of Python may hold NaN.
    if not abs(value) < MAX_NUMBER:
        raise ValueError("is not a finite number")
    return value if hint is int else float(value)


def shown(value: Any) -> str:
    """Return a foreign value in a few letters of ASCII, none of which moves a terminal."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return shortened(text)


def shortened(text: str, letters: int = MOST_SHOWN) -> str:
    """Return a text in so many letters at most."""
    return text if len(text) <= letters else f"{text[: letters - 3]}..."


def printable(text: str) -> str:
    """Return a text whose control characters are written out: none of it moves a terminal.

    Line breaks become blanks.
    """
    text = re.sub(r"[\r\n\t\v\f\x85\u2028\u2029]+", " ", text)
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]",
        lambda match: ascii(match[0])[1:-1],
        text,
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return such as "1 case" and "2 cases"; ``plural`` is that of a noun without a plain s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def first_line(error: BaseException) -> str:
    """Return what an exception says, in one short line."""
    return " ".join((str(error) or type(error).__name__).split())[:200]


def spreadsheet_cell(value: object) -> object:
    """Return what a cell of a CSV file is to hold: a text that is no formula for a spreadsheet.

    Comments and names come from others; a formula could send the table's content elsewhere.
    Numbers, also those that are text, stay as they are.
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def name_fault(name: str) -> str:
    """Return why the name of a file cannot be used, empty where it can.

    Python keeps bytes of a name that are no text as surrogates, which no file of results can hold.
    """
    if not any("\ud800" <= letter <= "\udfff" for letter in name):
        return ""
    if sys.getfilesystemencoding().replace("-", "").lower() != "utf8":
        return "has a name that this locale cannot read: set another one (LC_ALL=C.UTF-8)"
    return "has a name that is not UTF-8: rename it, and its folder"
