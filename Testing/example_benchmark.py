"""Vertebrae for tests of the benchmark."""

from __future__ import annotations

from example_vertebrae import TOY, toy_slices
from HideSeekSegLib.learning.benchmark.subjects import Subject, subjects_of


def toys(count: int) -> list[Subject]:
    slices = toy_slices(count)
    return subjects_of(slices, {str(name): str(name) for name in slices.vertebra}, TOY)
