"""What may lie on the stack of a pickle that ``pickles`` reads: stand-ins, inert and our own.

A name in the file means one of ``MEANINGS`` and nothing else; it is never looked up in Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


class PickleError(ValueError):
    """The file is no pickle of an estimator, or holds more than one needs: one line."""


@dataclass(frozen=True)
class Meaning:
    """What a name in the file stands for: a class to fill, a call of ours, or a mere argument."""

    name: str
    is_class: bool = False
    call: Callable[[object], Any] | None = None


@dataclass
class Object:
    """An instance of one of our three classes of attributes."""

    meaning: Meaning
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Type:
    """A dtype of numbers; its byte order comes after its code."""

    code: str
    order: str = "|"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order.replace("|", "=") + self.code)


@dataclass
class Array:
    """An array whose values come after the array itself."""

    values: npt.NDArray[Any] | None = None


def numbers(
    raw: bytes | bytearray, kind: Type, shape: tuple[Any, ...], order: str
) -> npt.NDArray[Any]:
    """An array in native byte order; ``raw`` must hold exactly its numbers."""
    if len(shape) > 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise PickleError("holds an array of an impossible shape")
    dtype = kind.dtype
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise PickleError(f"holds an array of shape {short(shape)} in {len(raw)} bytes")
    values = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
    return values.reshape(shape, order="F" if order == "F" else "C")


def array_from_buffer(arguments: object) -> Array:
    """numpy's way with protocol 5: bytes, dtype, shape, order."""
    match arguments:
        case (bytes() | bytearray() as raw, Type() as kind, tuple(shape), "C" | "F" as order):
            return Array(numbers(raw, kind, shape, order))
    raise PickleError("holds an array of an unknown kind")


def meaning(module: str, name: str) -> Meaning:
    """Raises PickleError for a name that means nothing here."""
    if (module, name) not in MEANINGS:
        raise PickleError(f"names {short(f'{module}.{name}')}, which is never called")
    return MEANINGS[module, name]


def short(text: object) -> str:
    """One line of at most 80 characters, whatever a file puts into a message."""
    line = " ".join(str(text).split())
    return line if len(line) <= 80 else line[:77] + "..."


def _type(arguments: object) -> Type:
    match arguments:
        case (str(code), int(), int()) if code in NUMBERS:
            return Type(code)
    raise PickleError("holds an array of something other than numbers")


def _empty_array(arguments: object) -> Array:
    match arguments:
        case (Meaning(name="ndarray"), (0,), bytes()):
            return Array()
    raise PickleError("holds an array of an unknown kind")


def _scalar(arguments: object) -> int | float | bool:
    match arguments:
        case (Type() as kind, bytes(raw)):
            value: int | float | bool = numbers(raw, kind, (), "C").item()
            return value
    raise PickleError("holds a number of an unknown kind")


def _bytes(arguments: object) -> bytes:
    """Protocol 2 has no bytes: they come as text, to be encoded."""
    match arguments:
        case (str(text), "latin1"):
            return text.encode("latin-1")
    raise PickleError("holds text in an unknown encoding")


WRAPPER = "NumpyArrayWrapper"

MEANINGS = {
    ("sklearn.linear_model._logistic", "LogisticRegression"): Meaning("LogisticRegression", True),
    ("sklearn.preprocessing._data", "StandardScaler"): Meaning("StandardScaler", True),
    ("joblib.numpy_pickle", WRAPPER): Meaning(WRAPPER, True),
    ("numpy", "ndarray"): Meaning("ndarray"),
    ("numpy", "dtype"): Meaning("dtype", call=_type),
    ("numpy.core.multiarray", "_reconstruct"): Meaning("_reconstruct", call=_empty_array),
    ("numpy._core.multiarray", "_reconstruct"): Meaning("_reconstruct", call=_empty_array),
    ("numpy.core.multiarray", "scalar"): Meaning("scalar", call=_scalar),
    ("numpy._core.multiarray", "scalar"): Meaning("scalar", call=_scalar),
    ("numpy.core.numeric", "_frombuffer"): Meaning("_frombuffer", call=array_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): Meaning("_frombuffer", call=array_from_buffer),
    ("_codecs", "encode"): Meaning("encode", call=_bytes),
}
