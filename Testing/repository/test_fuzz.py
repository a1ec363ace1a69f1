"""A few hundred damaged files of all kinds; ``Testing/fuzz.py`` reads as many as one asks for."""

from __future__ import annotations

import os

import pytest

import fuzz
from hideseekseg.errors import InputError

CASES = 300


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="limits of memory and time are POSIX's")
def test_damaged_files_are_read_or_refused_in_one_line() -> None:
    pytest.importorskip("joblib", reason="scikit-learn is not installed")
    told, failures = fuzz.run(CASES, seed=20)
    assert not failures, "\n\n".join(f"{one.kind}: {one.cause}" for one in failures[:3])
    assert told["read"] > CASES / 20 and told["refused"] > CASES / 3
    assert told["read"] + told["refused"] >= 0.99 * CASES


class TwoLinesError(InputError):
    """As a refusal would be that does not come by way of UserError's own message."""

    def __str__(self) -> str:
        return "two\nlines"


@pytest.mark.parametrize("error", [ValueError("x"), TwoLinesError("a", "b")])
def test_the_suite_knows_a_wrong_refusal(error: Exception) -> None:
    assert fuzz.fault_of(error)


@pytest.mark.parametrize("cause", ["is damaged", "two\nlines", "\x1b[2J", "\u202e", "a" * 9000])
def test_every_refusal_is_one_plain_line_whatever_it_quotes(cause: str) -> None:
    assert not fuzz.fault_of(InputError("a", cause))
    assert not fuzz.fault_of(InputError(cause, "is damaged"))


def test_damages_change_files() -> None:
    whole = b'{"a": [1, 2, {"b": "c"}], "d": 5}'
    for what in fuzz.STEPS:
        made = {fuzz.damaged(whole, [(what, x / 7, 0.5, x * 37)]) for x in range(7)}
        assert made - {whole}, what
