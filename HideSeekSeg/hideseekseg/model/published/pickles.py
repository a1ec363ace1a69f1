"""scikit-learn estimators read from their pickles, without unpickling.

A pickle is a program: whoever loads it runs what it names.  Here its opcodes are read as data, on a
small stack of our own.  Nothing is imported, and a name in the file does no more than choose one of
the few meanings that are known here; any other name, opcode or type is refused.  Understood are
protocols 2 to 5 of the standard library and the uncompressed files of joblib, which writes the
bytes of every array into the midst of the pickle.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


class PickleError(ValueError):
    """The file is not a pickle of an estimator, or holds more than one needs: one line."""


@dataclass(frozen=True)
class PickleMeaning:
    """What a name in the file stands for: a class to fill, a call of ours, or a mere argument."""

    name: str
    is_class: bool = False
    call: Callable[[object], Any] | None = None


@dataclass
class Object:
    """An instance of one of our three classes of attributes."""

    meaning: PickleMeaning
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
    """Return an array in native byte order; ``raw`` must hold exactly its numbers."""
    if len(shape) > 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise PickleError("contains an array of an impossible shape")
    dtype = kind.dtype
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise PickleError(f"contains an array of shape {short(shape)} in {len(raw)} bytes")
    values = np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))
    return values.reshape(shape, order="F" if order == "F" else "C")


def array_from_buffer(arguments: object) -> Array:
    """Build an array as numpy's protocol 5 does: bytes, dtype, shape, order."""
    match arguments:
        case (bytes() | bytearray() as raw, Type() as kind, tuple(shape), "C" | "F" as order):
            return Array(numbers(raw, kind, shape, order))
    raise PickleError("contains an array of an unknown kind")


def meaning(module: str, name: str) -> PickleMeaning:
    """Look a name up; raises PickleError for one that means nothing here."""
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
    raise PickleError("contains an array of something other than numbers")


def _empty_array(arguments: object) -> Array:
    match arguments:
        case (PickleMeaning(name="ndarray"), (0,), bytes()):
            return Array()
    raise PickleError("contains an array of an unknown kind")


def _scalar(arguments: object) -> int | float | bool:
    match arguments:
        case (Type() as kind, bytes(raw)):
            value: int | float | bool = numbers(raw, kind, (), "C").item()
            return value
    raise PickleError("contains a number of an unknown kind")


def _bytes(arguments: object) -> bytes:
    """Protocol 2 has no bytes: they come as text, to be encoded."""
    match arguments:
        case (str(text), "latin1"):
            return text.encode("latin-1")
    raise PickleError("contains text in an unknown encoding")


WRAPPER = "NumpyArrayWrapper"

MEANINGS = {
    ("sklearn.linear_model._logistic", "LogisticRegression"): PickleMeaning(
        "LogisticRegression", True
    ),
    ("sklearn.preprocessing._data", "StandardScaler"): PickleMeaning("StandardScaler", True),
    ("joblib.numpy_pickle", WRAPPER): PickleMeaning(WRAPPER, True),
    ("numpy", "ndarray"): PickleMeaning("ndarray"),
    ("numpy", "dtype"): PickleMeaning("dtype", call=_type),
    ("numpy.core.multiarray", "_reconstruct"): PickleMeaning("_reconstruct", call=_empty_array),
    ("numpy._core.multiarray", "_reconstruct"): PickleMeaning("_reconstruct", call=_empty_array),
    ("numpy.core.multiarray", "scalar"): PickleMeaning("scalar", call=_scalar),
    ("numpy._core.multiarray", "scalar"): PickleMeaning("scalar", call=_scalar),
    ("numpy.core.numeric", "_frombuffer"): PickleMeaning("_frombuffer", call=array_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): PickleMeaning("_frombuffer", call=array_from_buffer),
    ("_codecs", "encode"): PickleMeaning("encode", call=_bytes),
}


MAX_BYTES = 1 << 20  # the published ones have some 20 kB


@dataclass(frozen=True)
class Estimator:
    """An estimator's class ("LogisticRegression" or "StandardScaler") and plain attributes.

    Arrays are float, integer or bool in native byte order.
    """

    name: str
    attributes: dict[str, Any]


def read_estimator(content: bytes) -> Estimator:
    """Read the estimator that a pickle contains; raises PickleError for everything else."""
    if len(content) > MAX_BYTES:
        raise PickleError(f"is larger (over {MAX_BYTES} bytes) than any pickle of a classifier")
    if content[:1] != b"\x80" or content[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise PickleError("is not an uncompressed pickle of protocol 2 to 5")
    try:
        result = _Machine(content).run()
    except PickleError:
        raise
    except ValueError as error:  # pickletools' words for bytes that are cut or wrong
        raise PickleError(f"is truncated or damaged ({short(error)})") from error
    if not isinstance(result, Object) or result.meaning.name == WRAPPER:
        raise PickleError("contains no LogisticRegression and no StandardScaler")
    return Estimator(
        result.meaning.name,
        {key: v.values if isinstance(v, Array) else v for key, v in result.attributes.items()},
    )


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BYTEARRAY8"),
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memo of a pickle; a mark is a deeper stack."""

    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)
        self.stacks: list[list[Any]] = [[]]
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for opcode, argument, _ in pickletools.genops(self.stream):
            self._step(opcode.name, argument)
        result = self._pop()
        if self.stacks != [[]] or self.stream.read(1):
            raise PickleError("contains more than one object")
        return result

    def _step(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self._push(CONSTANTS[name])
        elif name in LITERALS:
            self._push(argument)
        elif name in TUPLES:
            self._push(tuple([self._pop() for _ in range(TUPLES[name])][::-1]))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            self._recall(argument)
        elif name in HANDLERS:
            HANDLERS[name](self)
        elif name == "GLOBAL":
            self._push(meaning(*argument.split(" ", 1)))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise PickleError(f"contains the opcode {name}, which no such estimator needs")

    def _push(self, value: Any) -> None:
        self.stacks[-1].append(value)

    def _top(self) -> Any:
        if not self.stacks[-1]:
            raise PickleError("is damaged (its stack runs empty)")
        return self.stacks[-1][-1]

    def _pop(self) -> Any:
        value = self._top()
        self.stacks[-1].pop()
        return value

    def _pop_mark(self) -> list[Any]:
        if len(self.stacks) == 1:
            raise PickleError("is damaged (a mark is missing)")
        return self.stacks.pop()

    def _recall(self, key: int) -> None:
        if key not in self.memo:
            raise PickleError("is damaged (it refers to what it does not contain)")
        self._push(self.memo[key])

    def mark(self) -> None:
        self.stacks.append([])

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self._top()

    def empty_dict(self) -> None:
        self._push({})

    def tuple_to_mark(self) -> None:
        self._push(tuple(self._pop_mark()))

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        # Tuples of tuples of tuples may be small in the file and take forever to hash.
        if type(target) is not dict or any(type(key) not in (str, int) for key in items[::2]):
            raise PickleError("contains a dictionary of an unknown kind")
        if len(items) % 2:
            raise PickleError("is damaged (a key without a value)")
        target.update(zip(items[::2], items[1::2]))

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleError("names something that is not text")
        self._push(meaning(module, name))

    def new_object(self) -> None:
        arguments, named = self._pop(), self._pop()
        if not isinstance(named, PickleMeaning) or not named.is_class or arguments != ():
            raise PickleError("makes an object of an unknown kind")
        self._push(Object(named))

    def reduce(self) -> None:
        arguments, named = self._pop(), self._pop()
        if not isinstance(named, PickleMeaning) or named.call is None:
            raise PickleError("calls something that is not a function of NumPy's pickles")
        self._push(named.call(arguments))

    def build(self) -> None:
        state, target = self._pop(), self._top()
        match target, state:
            case Object(), dict() if all(isinstance(key, str) for key in state):
                target.attributes.update(state)
            case Type(), (int(), "<" | ">" | "|" as order, None, None, None, int(), int(), int()):
                target.order = order
            case Array(), (int(), tuple() as shape, Type() as kind, int(is_f), bytes(raw)):
                target.values = numbers(raw, kind, shape, "F" if is_f else "C")
            case _:
                raise PickleError("fills an object of an unknown kind")
        if isinstance(target, Object) and target.meaning.name == WRAPPER:
            self._pop()
            self._push(self._wrapped(target.attributes))

    def _wrapped(self, attributes: dict[str, Any]) -> Array:
        """Read joblib's array: after its description come padding and the raw numbers."""
        if attributes.get("numpy_array_alignment_bytes") is not None:
            padding = self.stream.read(1)
            self.stream.read(padding[0] if padding else 0)
        kind, shape = attributes.get("dtype"), attributes.get("shape")
        if not isinstance(kind, Type) or not isinstance(shape, tuple) or len(shape) > 2:
            raise PickleError("contains an array of an unknown kind")
        if not all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape):
            raise PickleError("contains an array of an impossible shape")
        count = math.prod(shape) * kind.dtype.itemsize
        raw = self.stream.read(count)
        if len(raw) < count:
            raise PickleError("is truncated (an array ends early)")
        return array_from_buffer((raw, kind, shape, attributes.get("order")))


HANDLERS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "EMPTY_DICT": _Machine.empty_dict,
    "TUPLE": _Machine.tuple_to_mark,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "STACK_GLOBAL": _Machine.stack_global,
    "NEWOBJ": _Machine.new_object,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
