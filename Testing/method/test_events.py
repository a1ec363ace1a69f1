"""Events survive the way through a line of text, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hideseekseg.events import (
    Cancelled,
    Event,
    Failed,
    Finished,
    Message,
    Progress,
    Started,
    VertebraDone,
    from_line,
    to_line,
)

EVENTS: list[Event] = [
    Started("cpu", "no graphics card", "compact", "ab12", 2, ("T10", "L1"), ("32 -> T12",)),
    Started(
        *("cpu", "chosen", "compact", "ab12", 2, ("T10",), ()),
        not_analysed=(("T11", "not segmented"), ("bone 7", "name not understood")),
    ),
    Progress("T10", "healthy edit", 3, 14, 0.25, 61.5),
    Progress("T10", "healthy edit", 0, 14, 0.0),
    VertebraDone(
        "T10", {"level": "T10", "candidates": [{"id": "T10-1", "score": 0.75}]}, "T10.npz"
    ),
    Message("warning", "Wirbelkörper 骨\nzweite Zeile"),
    Finished(("lesions.seg.nrrd", "candidates.json"), 12.5),
    Cancelled(("T10",), ("candidates.json",), 3.0),
    Failed("the file ends too early", "ct.nii.gz"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_event_comes_back_from_its_line(event: Event) -> None:
    line = to_line(event)
    assert "\n" not in line
    assert line.isascii()
    assert from_line(line) == event


@given(text=st.text(), level=st.sampled_from(["info", "warning"]))
def test_any_text_comes_back(text: str, level: str) -> None:
    message = Message(level, text)  # type: ignore[arg-type]
    assert from_line(to_line(message).encode().decode()) == message


def test_keys_are_the_documented_ones() -> None:
    """Programs in the field parse these: a renamed key breaks them."""
    lines = [json.loads(to_line(e)) for e in EVENTS]
    assert {line.pop("event"): " ".join(line) for line in lines} == {
        "started": "device reason weights weights_hash threads levels mapping schema not_analysed",
        "progress": "level step done total fraction seconds_left",
        "vertebra-done": "level finding file",
        "message": "level text",
        "finished": "files seconds",
        "cancelled": "kept files seconds",
        "failed": "cause file",
    }


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Downloading: 12 %",
        '{"loss": 0.5}',
        '["event", "failed"]',
        "17",
        "null",
        '{"event": "unheard-of", "cause": "x"}',
        '{"event": ["failed"], "cause": "x"}',
        '{"event": "failed", "file": "no cause"}',
        to_line(EVENTS[0])[:-5],
    ],
)
def test_foreign_lines_are_no_events(line: str) -> None:
    assert from_line(line) is None


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    assert from_line(text) is None


def test_fields_of_a_newer_version_are_ignored() -> None:
    data = json.loads(to_line(EVENTS[-1]))
    assert from_line(json.dumps({**data, "hint": "from the future"})) == EVENTS[-1]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_refused(number: float) -> None:
    progress = Progress("T10", "edit", 0, 1, 0.0)
    with pytest.raises(ValueError, match="JSON"):
        to_line(replace(progress, fraction=number))


def test_all_kinds_are_covered() -> None:
    assert {type(e) for e in EVENTS} == set(get_args(Event))
