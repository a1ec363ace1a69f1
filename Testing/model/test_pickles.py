"""scikit-learn's pickles are understood, and nothing that a pickle can do is done."""

from __future__ import annotations

import base64
import io
import json
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pickles import PROTOCOLS, armed, fitted, joblib_bytes, refused
from hideseekseg.model.published.pickles import Estimator, PickleError, read_estimator

OLDER: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "scikit_learn_pickles.json").read_text("utf-8")
)["versions"]
NAMES = {"LogisticRegression": ("coef_", "intercept_"), "StandardScaler": ("mean_", "scale_")}


def assert_read(content: bytes, estimator: Any) -> None:
    found = read_estimator(content)
    assert found.name == type(estimator).__name__
    for name in NAMES[found.name]:
        expected = getattr(estimator, name)
        assert found.attributes[name].dtype == expected.dtype
        np.testing.assert_array_equal(found.attributes[name], expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("settings", [{}, {"class_weight": {0: 1.0, 1: 2.5}}, {"solver": "lbfgs"}])
def test_pickles_of_the_installed_version(protocol: int, settings: dict[str, Any]) -> None:
    for estimator in fitted(512, **settings):
        assert_read(pickle.dumps(estimator, protocol), estimator)
        assert_read(joblib_bytes(estimator), estimator)


@pytest.mark.parametrize("version", OLDER)
def test_pickles_of_older_versions(version: str) -> None:
    made = OLDER[version]
    for role, name in (("classifier", "LogisticRegression"), ("scaler", "StandardScaler")):
        found = read_estimator(base64.b64decode(made[role]))
        assert (found.name, found.attributes["_sklearn_version"]) == (name, version)
        for attribute in NAMES[name]:
            np.testing.assert_array_equal(found.attributes[attribute], made[attribute])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [">f8", "<f4", "i2", "u1", "?"])
def test_arrays_of_every_order_and_type_of_number(order: str, kind: str) -> None:
    classifier, _ = fitted()
    array = np.arange(6).reshape(2, 3).astype(kind)
    classifier.coef_ = np.asarray(array, order=order)  # type: ignore[call-overload]
    for content in (*(pickle.dumps(classifier, p) for p in PROTOCOLS), joblib_bytes(classifier)):
        found = read_estimator(content).attributes["coef_"]
        np.testing.assert_array_equal(found, array)
        assert found.dtype.isnative


def test_same_array_twice_and_plain_attributes() -> None:
    classifier, _ = fitted()
    classifier.again_ = classifier.coef_
    classifier.count_ = np.int64(-7)
    found = read_estimator(pickle.dumps(classifier, 4)).attributes
    np.testing.assert_array_equal(found["again_"], classifier.coef_)
    assert found["count_"] == -7
    assert (found["solver"], found["C"], found["dual"]) == ("liblinear", 1.0, False)


HOSTILE = tuple(armed(Path("never")))


@pytest.mark.filterwarnings("ignore:Trying to unpickle")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_call_is_refused(name: str, tmp_path: Path) -> None:
    """The same bytes make a folder when they are unpickled, so that the test cannot be empty."""
    folder = tmp_path / "made"
    content = armed(folder)[name]
    with pytest.raises(PickleError) as caught:
        read_estimator(content)
    assert not folder.exists()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    # Some fail after they have done their work.
    with suppress(Exception):
        joblib.load(io.BytesIO(content)) if "joblib" in name else pickle.loads(content)
    assert folder.exists()


@pytest.mark.parametrize("name", refused())
def test_anything_else_is_refused(name: str) -> None:
    content, reason = refused()[name]
    with pytest.raises(PickleError, match=reason) as caught:
        read_estimator(content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


REAL = (
    *(pickle.dumps(e, p) for p in PROTOCOLS for e in fitted(3)),
    *(joblib_bytes(e) for e in fitted(3)),
)


@pytest.mark.parametrize("content", REAL, ids=range(len(REAL)))
def test_every_truncation_is_refused(content: bytes) -> None:
    for length in range(len(content)):
        with pytest.raises(PickleError):
            read_estimator(content[:length])


@pytest.mark.filterwarnings("ignore:.*escape sequence")
@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_damage_is_refused_or_harmless(content: bytes, damage: list[tuple[int, bytes]]) -> None:
    for place, new in damage:
        start = place % len(content)
        content = content[:start] + new + content[start + 1 :]
    try:
        found = read_estimator(content)
    except PickleError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(found, Estimator)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([2, 3, 4, 5]), st.binary(max_size=60))
def test_random_bytes_are_refused(protocol: int, content: bytes) -> None:
    with pytest.raises(PickleError):
        read_estimator(b"\x80" + bytes([protocol]) + content)


def test_nothing_is_imported_for_it(tmp_path: Path) -> None:
    """No scikit-learn, no joblib; the standard library's unpickler is not asked either."""
    (tmp_path / "classifier.pkl").write_bytes(joblib_bytes(fitted()[0]))
    code = """
import sys
from hideseekseg.model.published.pickles import read_estimator
forbidden = {"import", "exec", "pickle.find_class"}
sys.addaudithook(lambda event, _: sys.exit(event) if event in forbidden else None)
print(read_estimator(open(sys.argv[1], "rb").read()).name, "sklearn" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "classifier.pkl")],
        cwd=Path(__file__).resolve().parents[2] / "HideSeekSeg",
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("LogisticRegression False\n", "")
