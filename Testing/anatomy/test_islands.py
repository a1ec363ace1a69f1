"""Small far parts of a label change nothing: all is as with the label alone."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from hideseekseg.anatomy.islands import FAR_MM, without_islands
from hideseekseg.anatomy.labelling import assign
from hideseekseg.imaging.segmentation import Segmentation, segments_from_values
from hideseekseg.imaging.volume import Volume
from hideseekseg.inputs import Options, check_inputs
from hideseekseg.model.profile import BUNDLE, read_profile
from hideseekseg.simulation.phantom.spine import example_spine
from hideseekseg.spine import Spine

GEOMETRY = read_profile(BUNDLE).profile.geometry
PHANTOM = example_spine()
NAMES = dict(PHANTOM.levels)


def spine_of(array: np.ndarray, kind: str) -> Spine:
    return Spine(check_inputs(PHANTOM.ct, segmented(array, kind), Options()), GEOMETRY)


@lru_cache
def usual(kind: str) -> Spine:
    return spine_of(labels(kind), kind)


def segmented(array: np.ndarray, kind: str = "vertebra") -> Segmentation:
    volume = Volume(array, PHANTOM.ct.grid, "labels")
    suffix = " body" if kind == "body" else ""
    names = {value: level + suffix for value, level in NAMES.items()}
    return Segmentation((volume,), segments_from_values(volume, names), "labels")


def labels(kind: str) -> np.ndarray:
    return np.asarray((PHANTOM.bodies if kind == "body" else PHANTOM.vertebrae).array)


VALUE = next(value for value, level in NAMES.items() if level == "L1")
LAST = np.array(PHANTOM.ct.array.shape) - 1
MIDDLE = tuple(int(n) for n in np.argwhere(PHANTOM.bodies.array == VALUE).mean(axis=0))


def with_island(array: np.ndarray, at: tuple[int, int, int], half: int) -> np.ndarray:
    """The labels with a cube of L1 where there is none."""
    array = array.copy()
    part = array[tuple(slice(max(n - half, 0), n + half + 1) for n in at)]
    part[part == 0] = VALUE
    return array


@pytest.mark.parametrize("kind", ["vertebra", "body"])
@pytest.mark.parametrize(
    ("at", "half"),
    [
        ((MIDDLE[0], 6, 6), 2),
        ((LAST[0] - 6, MIDDLE[1], MIDDLE[2]), 2),
        ((5, 8, LAST[2] - 8), 0),
        ((0, 0, 0), 2),
    ],
    ids=["in front", "above", "one voxel", "at the border"],
)
def test_islands_move_neither_axes_nor_crops(
    kind: str, at: tuple[int, int, int], half: int
) -> None:
    before, after = usual(kind), spine_of(with_island(labels(kind), at, half), kind)
    assert after.inputs.checks == before.inputs.checks
    assert after.inputs.agreement == before.inputs.agreement
    for level in ("T12", "L1"):
        one, other = before.vertebra(level), after.vertebra(level)
        assert one.site.flags == other.site.flags
        assert one.crop is not None and other.crop is not None
        assert np.array_equal(one.crop.grid.ijk_to_lps, other.crop.grid.ijk_to_lps)
        assert np.array_equal(one.crop.image, other.crop.image)
        assert np.array_equal(one.crop.body, other.crop.body)


def test_a_label_without_islands_stays_the_same_object() -> None:
    plain = segmented(labels("vertebra"))
    assert without_islands(plain, assign(plain), list(NAMES.values())) is plain


def test_parts_that_are_near_or_large_stay() -> None:
    clean = labels("vertebra")
    own = np.argwhere(clean == VALUE)
    k, j, i = (int(n) for n in own[own[:, 2].argmax()])
    beside = (k, j, i + round(0.6 * FAR_MM / PHANTOM.ct.grid.spacing[0]))
    near = segmented(with_island(clean, beside, 1))
    assert (near.layers[0].array != clean).any()
    assert without_islands(near, assign(near), ["L1"]) is near
    large = segmented(with_island(clean, (MIDDLE[0], 12, 12), 11))
    assert without_islands(large, assign(large), ["L1"]) is large


def test_other_labels_and_the_given_array_stay_as_they_are() -> None:
    ill = segmented(with_island(labels("vertebra"), (5, 8, 8), 2))
    given = ill.layers[0].array.copy()
    cleaned = without_islands(ill, assign(ill), ["L1"])
    assert np.array_equal(ill.layers[0].array, given)
    assert np.array_equal(cleaned.layers[0].array, labels("vertebra"))
    assert cleaned == replace(ill, layers=cleaned.layers)
