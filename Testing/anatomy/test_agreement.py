"""Header against anatomy, and outlines against bone: real scans, turned and shifted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hideseekseg.anatomy.alignment import check_agreement, find_misfit
from hideseekseg.anatomy.labelling import Assignment, assign
from hideseekseg.errors import InputError
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.segmentation import Segmentation
from hideseekseg.imaging.volume import Grid, Volume

Scan = tuple[Volume, Segmentation, list[Assignment]]
SCANS = [
    ("lidc0314", "vertebral_bodies"),
    ("verse014", "vertebrae"),
    ("ts_aorta", "vertebral_bodies"),
]


@cache
def load(folder: Path, name: str) -> Scan:
    segmentation = read_segmentation(folder / f"{name}.nii.gz")
    labels = "verse" if folder.name == "verse014" else "totalsegmentator"
    return read_ct(folder / "ct.nii.gz"), segmentation, assign(segmentation, labels)


@pytest.fixture(params=SCANS, ids=[folder for folder, _ in SCANS])
def scan(request: pytest.FixtureRequest, shared: Path) -> Scan:
    folder, name = request.param
    return load(shared / "data" / folder, name)


def moved(volume: Volume, matrix: np.ndarray) -> Volume:
    return replace(volume, grid=Grid(volume.grid.shape, matrix @ volume.grid.ijk_to_lps))


def both_moved(scan: Scan, matrix: np.ndarray) -> Scan:
    ct, segmentation, assignments = scan
    layers = tuple(moved(layer, matrix) for layer in segmentation.layers)
    return moved(ct, matrix), replace(segmentation, layers=layers), assignments


TURNS = {
    "prone": ((-1, -1, 1), "turned by 180 degrees about the long axis"),
    "front and back flipped": ((1, -1, 1), "front and back are flipped"),
    "head down": ((1, -1, -1), "about the left-right axis"),
    "head and feet flipped": ((1, 1, -1), "head and feet are exchanged"),
}


def test_a_right_header_is_not_doubted(scan: Scan) -> None:
    found = check_agreement(*scan)
    assert found.notes == found.flags == ()


@pytest.mark.parametrize("turn", TURNS)
def test_a_wrong_header_is_refused_and_accepted_with_a_flag(scan: Scan, turn: str) -> None:
    axes, words = TURNS[turn]
    wrong = both_moved(scan, np.diag([*axes, 1.0]))
    with pytest.raises(InputError, match=words):
        check_agreement(*wrong)
    (flag,) = check_agreement(*wrong, accept_orientation=True).flags
    assert words in flag


def test_permuted_axes_are_refused(scan: Scan) -> None:
    matrix = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    with pytest.raises(InputError, match="axes are permuted"):
        check_agreement(*both_moved(scan, matrix))


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((0, 0, 8), "8 mm above the bone"),
        ((0, 0, -8), "8 mm below the bone"),
        ((0, 8, 0), "8 mm behind the bone"),
        ((8, 0, 0), "8 mm to the patient's left of the bone"),
    ],
)
def test_shifted_outlines_are_told(
    scan: Scan, shift: tuple[float, float, float], words: str
) -> None:
    ct, segmentation, assignments = scan
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    layers = tuple(moved(layer, matrix) for layer in segmentation.layers)
    found = find_misfit(ct, replace(segmentation, layers=layers), assignments)
    assert found is not None and words in str(found)
