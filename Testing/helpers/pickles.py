"""Real pickles of scikit-learn, and hostile ones: whoever loads those makes a folder."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

PROTOCOLS = (2, 3, 4, 5)
ESTIMATOR = b"csklearn.linear_model._logistic\nLogisticRegression\n)\x81"


def fitted(features: int = 8, **settings: Any) -> tuple[LogisticRegression, StandardScaler]:
    """What the authors' training gives: a liblinear classifier on standardised latents."""
    x = np.random.default_rng(features).standard_normal((40, features)).astype(np.float32)
    scaler = StandardScaler().fit(x)
    settings = {"solver": "liblinear", "max_iter": 1000, "random_state": 42, **settings}
    malignant = (x[:, 0] > 0.1).astype(int)
    return LogisticRegression(**settings).fit(scaler.transform(x), malignant), scaler


def joblib_bytes(value: object, compress: int = 0) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream, compress=compress)
    return stream.getvalue()


class Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def text(value: str) -> bytes:
    """The opcode that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(module: str, name: str) -> bytes:
    """The opcode that pushes what a name stands for."""
    return f"c{module}\n{name}\n".encode()


def with_coef(value: object) -> LogisticRegression:
    classifier, _ = fitted()
    classifier.coef_ = value
    return classifier


def armed(folder: Path) -> dict[str, bytes]:
    """Pickles that make ``folder`` when they are loaded."""
    call, path = Call(os.mkdir, str(folder)), text(str(folder))
    evaluated = Call(eval, f"__import__('os').mkdir({str(folder)!r})")
    objects = np.empty(1, object)
    objects[0] = call
    mkdir, make = named("os", "mkdir"), named("os", "mkdir") + path + b"\x85R"
    # tuple(map(os.mkdir, (path,))), without any opcode that calls a function.
    consume, mapped = named("builtins", "tuple"), named("builtins", "map") + mkdir + path
    return {
        **{f"REDUCE {p}": pickle.dumps(call, p) for p in PROTOCOLS},
        **{f"eval {p}": pickle.dumps(evaluated, p) for p in PROTOCOLS},
        "attribute": pickle.dumps(with_coef(call)),
        "attribute by joblib": joblib_bytes(with_coef(call)),
        "array of objects": pickle.dumps(with_coef(objects)),
        "array of objects by joblib": joblib_bytes(with_coef(objects)),
        "GLOBAL": b"\x80\x02" + make + b".",
        "INST": b"\x80\x02(" + path + b"ios\nmkdir\n.",
        "OBJ": b"\x80\x02(" + mkdir + path + b"o.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + path + b"\x85R.",
        "dotted name": b"\x80\x04" + text("shutil") + text("os.mkdir") + b"\x93" + path + b"\x85R.",
        "NEWOBJ": b"\x80\x02" + consume + mapped + b"\x85\x86\x81\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + consume + mapped + b"\x85\x86}\x92\x85}\x92.",
        "before an estimator": b"\x80\x02" + make + b"0" + pickle.dumps(fitted()[0], 2)[2:],
        "__setstate__": b"\x80\x02" + ESTIMATOR + b"}" + text("__setstate__") + mkdir + b"sb" + path
        + b"b.",
        "__reduce__ of an array": b"\x80\x02" + ESTIMATOR + b"}" + text("coef_") + make + b"sb.",
    }  # fmt: skip


def refused() -> dict[str, tuple[bytes, str]]:
    """Bytes that are no pickle of an estimator, and a word of the reason."""
    estimator = b"\x80\x04" + ESTIMATOR
    array = named("numpy._core.multiarray", "_reconstruct")
    number = named("numpy._core.multiarray", "scalar")
    kind = named("numpy", "dtype") + text("f8") + b"\x89\x88\x87R"
    objects = named("numpy", "dtype") + text("O") + b"\x89\x88\x87R"
    encode = named("_codecs", "encode")
    laughs = b")" + b"q\x00h\x00h\x00\x87" * 200  # a tuple of 3^200 parts
    return {
        "nothing": (b"", "protocol 2 to 5"),
        "words": (b"these are no pickles", "protocol 2 to 5"),
        "protocol 0": (pickle.dumps(fitted()[0], 0), "protocol 2 to 5"),
        "compressed": (joblib_bytes(fitted()[0], compress=3), "protocol 2 to 5"),
        "no end": (b"\x80\x04", "truncated"),
        "too large": (estimator + b"0" * (1 << 20), "larger"),
        "persistent id": (b"\x80\x02Pos.mkdir\n.", "PERSID"),
        "persistent id on the stack": (b"\x80\x02" + text("os") + b"Q.", "BINPERSID"),
        **{f"extension {n}": (b"\x80\x02" + code + b".", f"EXT{n}") for n, code in
           [(1, b"\x82\x01"), (2, b"\x83\x01\x00"), (4, b"\x84\x01\x00\x00\x00")]},
        "buffer from outside": (b"\x80\x05\x97.", "NEXT_BUFFER"),
        "number": (b"\x80\x02K\x01.", "contains no LogisticRegression"),
        "list": (b"\x80\x02].", "EMPTY_LIST"),
        "two objects": (estimator + ESTIMATOR + b".", "more than one object"),
        "something behind": (estimator + b"." + estimator + b".", "more than one object"),
        "open mark": (b"\x80\x04(" + ESTIMATOR + b".", "more than one object"),
        "class itself": (b"\x80\x02" + ESTIMATOR[:-2] + b".", "contains no LogisticRegression"),
        "class called": (b"\x80\x02" + ESTIMATOR[:-1] + b"R.", "not a function"),
        "arguments": (b"\x80\x02" + ESTIMATOR[:-2] + b"K\x01\x85\x81.", "makes an object"),
        "function made": (b"\x80\x02" + named("numpy", "dtype") + b")\x81.", "makes an object"),
        "stack runs empty": (b"\x80\x020.", "POP"),
        "stack runs empty early": (b"\x80\x02b.", "runs empty"),
        "no mark": (b"\x80\x02t.", "mark"),
        "unknown memo": (b"\x80\x02h\x07.", "refers"),
        "name of no text": (b"\x80\x04K\x01K\x02\x93.", "not text"),
        "name over lines": (b"\x80\x04" + text("o\ns") + text("a\nb") + b"\x93.", "o s.a b"),
        "bad text": (b"\x80\x02X\x01\x00\x00\x00\xff.", "damaged"),
        "giant text": (b"\x80\x02X\xff\xff\xff\x7fa.", "damaged"),
        "giant integer": (b"\x80\x02\x8b\xff\xff\xff\x7fa.", "damaged"),
        "state of an array": (estimator + b"K\x01b.", "fills an object"),
        "state of a name": (b"\x80\x04" + named("numpy", "ndarray") + b"}b.", "fills an object"),
        "keys that are numbers": (estimator + b"}K\x01K\x02sb.", "fills an object"),
        "key of tuples": (b"\x80\x02}" + laughs + b"K\x01s.", "dictionary"),
        "key without value": (b"\x80\x02}(" + text("a") + b"u.", "key without"),
        "array of objects": (b"\x80\x02" + objects + b".", "other than numbers"),
        "array of what": (b"\x80\x02" + array + ESTIMATOR[:-2] + b"K\x00\x85C\x00\x87R.", "kind"),
        "number of a class": (b"\x80\x02" + number + kind + b"K\x01\x86R.", "unknown kind"),
        "number cut": (b"\x80\x02" + number + kind + b"C\x07abcdefg\x86R.", "7 bytes"),
        "codec": (b"\x80\x02" + encode + text("a") + text("zip") + b"\x86R.", "encoding"),
        "text": (b"\x80\x02" + encode + text("\u20ac") + text("latin1") + b"\x86R.", "damaged"),
        **odd_arrays(kind),
    }  # fmt: skip


def odd_arrays(kind: bytes) -> dict[str, tuple[bytes, str]]:
    """Arrays in numpy's and in joblib's way that are not what they say; ``kind`` is float64."""

    def buffer(shape: bytes) -> bytes:
        name = named("numpy._core.numeric", "_frombuffer")
        return b"\x80\x05" + name + b"(C\x08abcdefgh" + kind + shape + text("C") + b"tR."

    wrapper = b"\x80\x02" + named("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81"
    giant = b"J\xff\xff\xff\x7f" * 2 + b"\x86"
    wrapped = text("order") + text("C") + text("shape") + giant + text("dtype") + kind
    return {
        "giant array": (buffer(giant), "in 8 bytes"),
        "negative shape": (buffer(b"J\xff\xff\xff\xff\x85"), "impossible shape"),
        "three axes": (buffer(b"K\x01K\x01K\x01\x87"), "impossible shape"),
        "shape of truths": (buffer(b"\x88\x85"), "impossible shape"),
        "wrapper alone": (wrapper + b".", "contains no LogisticRegression"),
        "wrapper of nothing": (wrapper + b"}b.", "unknown kind"),
        "wrapper of too much": (wrapper + b"}(" + wrapped + b"ub.", "impossible shape"),
    }
