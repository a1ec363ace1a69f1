"""Vertebrae in threads of their own: order, what the caller hears, stops and errors."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from helpers.models import threads
from hideseekseg.model.profile import Profile
from hideseekseg.model.weights import Model
from hideseekseg.progress import Stopped
from hideseekseg.side_by_side import MOST_AT_ONCE, Tell, shared_cores, side_by_side

LEVELS = ("T10", "T11", "T12", "L1")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_results_come_in_order_and_are_heard_where_they_were_asked_for(workers: int) -> None:
    second_began = threading.Event()

    def work(level: str, tell: Tell) -> str:
        if level == "T11":
            second_began.set()
        elif level == "T10" and workers > 1:
            assert second_began.wait(20), "the second waits for the first"
        tell(level, "half")
        return level.lower()

    heard: list[tuple[str, int]] = []

    def hear(level: str, word: str) -> None:
        heard.append((level, threading.get_ident()))

    results = list(side_by_side(work, LEVELS, workers, hear))
    assert results == [level.lower() for level in LEVELS]
    assert sorted(level for level, _ in heard) == sorted(LEVELS)
    assert {thread for _, thread in heard} == {threading.get_ident()}


def test_a_stop_ends_what_has_begun_and_keeps_what_is_ready() -> None:
    ready, heard_first = threading.Event(), threading.Event()
    ended: list[str] = []

    def work(level: str, tell: Tell) -> str:
        if level == "T11":
            ready.set()
            return "early"
        assert ready.wait(20)
        try:
            tell(level)
            heard_first.wait(20)
            while True:  # as a vertebra with many slices
                tell(level)
        except Stopped:
            ended.append(level)
            raise

    def hear(level: str) -> None:
        heard_first.set()
        raise Stopped

    late: list[tuple[str, str]] = []

    def keep(level: str, result: str) -> None:
        late.append((level, result))

    with pytest.raises(Stopped):
        list(side_by_side(work, ("T10", "T11"), 2, hear, keep))
    assert late == [("T11", "early")]
    assert ended == ["T10"]


def test_an_error_of_one_ends_the_others() -> None:
    begun, late = threading.Event(), []
    ended: list[str] = []

    def work(level: str, tell: Tell) -> str:
        if level == "T11":
            assert begun.wait(20)
            raise MemoryError(level)
        begun.set()
        try:
            while True:
                tell(level)
        except Stopped:
            ended.append(level)
            raise

    with pytest.raises(MemoryError, match="T11"):
        list(side_by_side(work, ("T11", "T10"), 2, lambda level: None, lambda k, r: late.append(k)))
    assert ended == ["T10"]
    assert not late


def test_who_takes_no_more_results_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with closing(side_by_side(lambda level, tell: level, LEVELS, 2, print)) as results:
        assert next(results) == "T10"
    assert threading.active_count() == before


def sized(pixels: int, device: str) -> Model:
    """A model that says of itself what decides, without networks."""
    architecture = replace(Profile().architecture, image_size=pixels)
    profile = replace(Profile(), architecture=architecture)
    return cast(Model, SimpleNamespace(device=torch.device(device), profile=profile))


@pytest.mark.parametrize(
    ("pixels", "device", "have", "at_once", "inside"),
    [
        (48, "cpu", 1, 1, 1),
        (48, "cpu", 2, 2, 1),
        (48, "cpu", 16, MOST_AT_ONCE, 1),
        (128, "cpu", 4, 1, 4),  # the published network's layers keep all cores busy
        (48, "cuda", 4, 1, 4),
    ],
)
def test_cores_are_shared_and_given_back(
    pixels: int, device: str, have: int, at_once: int, inside: int
) -> None:
    with threads(have):
        with shared_cores(sized(pixels, device)) as workers:
            assert workers == at_once
            each = side_by_side(lambda level, tell: torch.get_num_threads(), LEVELS, workers, print)
            assert list(each) == [inside] * len(LEVELS)
        assert torch.get_num_threads() == have


def test_runs_at_once_give_all_cores_back_after_the_last() -> None:
    first, second = shared_cores(sized(48, "cpu")), shared_cores(sized(48, "cpu"))
    with threads(3):
        assert (first.__enter__(), second.__enter__()) == (3, 3), "not what the other left"
        first.__exit__(None, None, None)
        assert torch.get_num_threads() == 1, "the other is still at work"
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
