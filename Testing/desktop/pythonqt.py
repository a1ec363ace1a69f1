"""PySide6 made to behave as PythonQt does in Slicer's Python: the module ``qt``.

What differs, and is brought over: a property is read and written as an attribute (``label.text``,
never ``label.text()``), its setter stays callable; signals are connected by their C++ signature,
which must exist; a slot gets as many of the signal's arguments as it takes; a wrong attribute is an
error. Errors in slots, which Qt only prints, are kept in ``slot_errors``.

As there, an object without a parent is deleted with its last reference in Python. Inside one of its
own signals that crashes Slicer: here it is an error, and the object is kept.
"""

from __future__ import annotations

import gc
import inspect
import re
import traceback
import types
import weakref
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

# PySide6's own, which PythonQt has not (or has otherwise).
ABSENT = {"Signal", "Slot", "Property", "ClassInfo", "QEnum", "QFlag", "QtMsgType"}
slot_errors: list[str] = []
_crashed: list[Any] = []  # objects that PythonQt would have deleted under Qt's feet
_properties: dict[tuple[type, str], frozenset[str]] = {}
_asked: set[tuple[int, str]] = set()
_originals: dict[type, Callable[[Any, str], Any]] = {}
_connect = QtCore.QObject.connect
_disconnect = QtCore.QObject.disconnect


def properties_of(thing: Any) -> frozenset[str]:
    """Names of the Qt properties of an object."""
    meta = QtCore.QObject.metaObject(thing)
    key = type(thing), meta.className()
    if key not in _properties:
        count = range(meta.propertyCount())
        _properties[key] = frozenset(str(meta.property(n).name()) for n in count)
    return _properties[key]


def signatures_of(thing: Any) -> dict[str, str]:
    """C++ signature of every signal, and the name of the Python signal that stands for it."""
    meta = QtCore.QObject.metaObject(thing)
    found = {}
    for n in range(meta.methodCount()):
        method = meta.method(n)
        if method.methodType() == QtCore.QMetaMethod.MethodType.Signal:
            signature = bytes(method.methodSignature().data()).decode()
            found[signature] = signature.partition("(")[0]
    # Stand-ins name here what their signals are in C++.
    return found | getattr(type(thing), "_signals", {})


def _of_python(kind: type, name: str) -> bool:
    """Whether a class written in Python has this name: PythonQt looks there first."""
    for base in kind.__mro__:
        if base.__module__.startswith(("PySide6", "Shiboken")):
            return False
        if name in vars(base):
            return not isinstance(vars(base)[name], QtCore.Property)
    return False


def _get(self: Any, name: str) -> Any:
    """PySide6's own way, which many classes have for themselves."""
    return next(_originals[kind] for kind in type(self).__mro__ if kind in _originals)(self, name)


def _getattribute(self: Any, name: str) -> Any:
    if name[0] == "_" or (id(self), name) in _asked or _of_python(type(self), name):
        return _get(self, name)
    if name == "name":
        return QtCore.QObject.objectName(self)
    if name in BOUND:
        return types.MethodType(BOUND[name], self)
    if name not in properties_of(self):
        return _get(self, name)
    # Qt may ask back for a method of this name, to see whether Python has its own.
    _asked.add((id(self), name))
    try:
        return QtCore.QObject.property(self, name)
    finally:
        _asked.discard((id(self), name))


def _setattribute(self: Any, name: str, value: Any) -> None:
    if name == "name":
        QtCore.QObject.setObjectName(self, value)
    elif name[0] != "_" and name in properties_of(self):
        value = list(value) if isinstance(value, tuple) else value
        if not QtCore.QObject.setProperty(self, name, value):
            raise TypeError(f"{type(self).__name__}.{name} cannot be {value!r}")
    elif isinstance(value, QtCore.QObject) and name == value.objectName:
        self.__dict__[name] = value  # PySide6 puts a form's children there, and PythonQt finds them
    elif isinstance(value, QtCore.SignalInstance):
        self.__dict__[name] = value  # PySide6 keeps the signals of objects that Qt made there
    elif name[0] != "_" and type(self).__module__.startswith(("PySide6", "desktop")):
        raise AttributeError(f"{type(self).__name__} has no property {name!r}")
    elif hasattr(getattr(type(self), name, None), "__set__"):
        getattr(type(self), name).__set__(self, value)
    else:
        # PySide6's own way refuses to be called from here.
        self.__dict__[name] = value


def _wanted(slot: Callable[..., Any], given: int) -> int:
    """How many of a signal's arguments a slot gets: only plain functions and methods get fewer."""
    code = getattr(getattr(slot, "__func__", slot), "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return given
    return min(given, code.co_argcount - (1 if inspect.ismethod(slot) else 0))


def _signal(thing: Any, signature: str) -> tuple[Any, int]:
    """The bound signal of a C++ signature and the number of its arguments."""
    wanted = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
    known = signatures_of(thing)
    if wanted not in known:
        name = wanted.partition("(")[0]
        near = [text for text in known if text.startswith(name + "(")]
        raise ValueError(f"{type(thing).__name__} has no signal {signature}; it has {near}")
    arguments = re.sub(r"^\w+\((.*)\)$", r"\1", wanted)
    signal = _get(thing, known[wanted])
    if arguments and sum(name == known[wanted] for name in known.values()) > 1:
        signal = _overload(signal, wanted)
    return signal, arguments.count(",") + 1 if arguments else 0


def _overload(signal: Any, signature: str) -> Any:
    try:
        return signal[re.sub(r"^\w+\((.*)\)$", r"\1", signature)]
    except (KeyError, IndexError, TypeError):
        return signal


def connect(self: Any, *words: Any) -> Any:
    """``widget.connect('clicked(bool)', slot)``; PySide6's own calls pass through."""
    if not (len(words) == 2 and isinstance(words[0], str) and words[0][:1].isalpha()):
        return _connect(*words) if isinstance(words[0], QtCore.QObject) else _connect(self, *words)
    signature, slot = words
    if not callable(slot):
        raise TypeError(f"{slot!r} cannot be connected to {signature}")
    signal, count = _signal(self, signature)
    taken, sender = _wanted(slot, count), weakref.ref(self)

    def call(*arguments: Any) -> None:
        thing = sender()
        kept = is_kept(thing)
        try:
            slot(*arguments[:taken])
        except Exception:
            slot_errors.append(traceback.format_exc())
        if kept and not is_kept(thing):
            _crashed.append(thing)
            slot_errors.append(f"{type(thing).__name__} deleted inside its signal {signature}")

    # PySide6 asks a slot for its signature, too: a fixed number of arguments is what it gets.
    def fixed(a: Any = None, b: Any = None, c: Any = None, d: Any = None) -> None:
        call(a, b, c, d)

    signal.connect(fixed)
    self.__dict__.setdefault("_slots", []).append((signature, slot, fixed))
    return True


def is_kept(thing: Any) -> bool:
    """Whether something owns the object beside the functions that run now."""
    if thing is None or not shiboken6.isValid(thing) or _get(thing, "parent")() is not None:
        return True
    return any(not isinstance(x, types.FrameType) for x in gc.get_referrers(thing))


def disconnect(self: Any, *words: Any) -> Any:
    """Undo ``connect`` with the same signature and slot, or all of a signature's connections."""
    if not (words and isinstance(words[0], str) and words[0][:1].isalpha()):
        own = bool(words) and isinstance(words[0], QtCore.QObject)
        return _disconnect(*words) if own else _disconnect(self, *words)
    kept, gone = [], False
    for entry in self.__dict__.get("_slots", []):
        if entry[0] == words[0] and (len(words) == 1 or entry[1] == words[1]):
            _signal(self, entry[0])[0].disconnect(entry[2])
            gone = True
        else:
            kept.append(entry)
    self.__dict__["_slots"] = kept
    return gone


def class_name(self: Any) -> str:
    """The C++ class."""
    return str(QtCore.QObject.metaObject(self).className())


BOUND: dict[str, Callable[..., Any]] = {
    "connect": connect,
    "disconnect": disconnect,
    "className": class_name,
}


def all_classes() -> dict[str, Any]:
    """Everything that starts with Q in Qt's three modules."""
    found: dict[str, Any] = {}
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):
            if name[0] == "Q" and name not in ABSENT:
                found[name] = getattr(module, name)
    return found


def make_module() -> types.ModuleType:
    """The module ``qt``; from here on every PySide6 object of this process behaves as told."""
    module = types.ModuleType("qt")
    module.__dict__.update(all_classes())
    kinds = [thing for thing in all_classes().values() if isinstance(thing, type)]
    kinds = [kind for kind in kinds if issubclass(kind, QtCore.QObject)]
    _originals.update({kind: kind.__getattribute__ for kind in kinds})
    for thing in kinds:
        thing.__getattribute__ = _getattribute  # type: ignore[method-assign, assignment]
        thing.__setattr__ = _setattribute  # type: ignore[method-assign, assignment]
    return module
