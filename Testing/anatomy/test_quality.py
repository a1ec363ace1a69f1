"""Unusual inputs: noise is measured as it is, each rule speaks where it should and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.vertebrae import CENTRE, Mask, cylinder, cylinder_ct, grid_around, tilted
from hideseekseg.anatomy.crop import crop_grid, take_crop
from hideseekseg.anatomy.intensity import Calibration, calibrate, landmarks
from hideseekseg.anatomy.localization import LocatedBody
from hideseekseg.anatomy.quality import (
    METAL_NEARBY,
    NO_BONE,
    NO_EDGE,
    SIMULATED,
    UNKNOWN,
    Quality,
    limits_of,
    limits_of_both,
    limits_over,
    measure,
    noise_of,
    obstacles,
    remarks,
)
from hideseekseg.benchmark.robustness import DEGRADED, DegradationScene, alarms, wilson
from hideseekseg.imaging.volume import Volume, patch_of
from hideseekseg.model.profile import BUNDLE, Geometry, Intensity, Limits, Profile, read_profile
from hideseekseg.model.published.importer import PROFILE as PUBLISHED
from hideseekseg.simulation.acquisition import Acquisition, draw_noise

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0, margin_pixels=1.0)
HU = Calibration(1.0, 0.0, is_hu=True)
GRID = grid_around((1.0, 1.0, 1.0))
BODY = cylinder(GRID, tilted(10))
CT = cylinder_ct(GRID, tilted(10))
CROP = take_crop(CT, BODY, crop_grid(BODY, GRID, GEOMETRY))
SPACING = CROP.grid.spacing[::-1]


def measured(ct: Volume = CT, body: Mask = BODY) -> Quality:
    crop = take_crop(ct, body, crop_grid(body, ct.grid, GEOMETRY))
    return measure(ct, body, crop, GEOMETRY)


def rules(found: Quality, scale: Calibration = HU) -> set[str]:
    return {*obstacles(found, scale), *remarks(found, scale, SIMULATED)}


def test_a_usual_vertebra_raises_no_alarm() -> None:
    assert rules(measured()) == set()


@settings(max_examples=8, deadline=None)
@given(st.floats(30, 200), st.integers(0, 1000))
def test_added_noise_is_measured_as_it_is(sigma: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, sigma, CROP.image.shape).astype(np.float32)
    before = noise_of(CROP.image, CROP.body, SPACING)
    after = noise_of(CROP.image + noise, CROP.body, SPACING)
    assert np.sqrt(after**2 - before**2) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("correlation_mm", [0.3, 0.6])
def test_noise_of_a_scanner_is_mostly_measured(correlation_mm: float) -> None:
    """Smoother noise differs less from place to place: what is measured is a lower bound."""
    how = Acquisition((0.0, 0.0, 0.0), 0.0, 100.0, correlation_mm, 0.0, 1.0, 0.0)
    s, p, i = SPACING
    noise = draw_noise(np.random.default_rng(3), CROP.grid.shape, (s, p, i), how)
    assert 80 < noise_of(CROP.image + noise, CROP.body, SPACING) < 110


@settings(max_examples=8, deadline=None)
@given(st.floats(-500, 500), st.floats(4, 9))
def test_a_lesion_is_no_noise(change_hu: float, radius_mm: float) -> None:
    at = np.moveaxis(np.indices(CROP.body.shape), 0, -1)[..., ::-1]
    near = np.linalg.norm(CROP.grid.lps(at) - CENTRE, axis=-1) < radius_mm
    ill = CROP.image + np.float32(change_hu) * near
    assert noise_of(ill, CROP.body, SPACING) < noise_of(CROP.image, CROP.body, SPACING) + 10


def test_noise_beyond_training_is_said_with_its_size() -> None:
    found = replace(measured(), noise=85.4)
    assert "noise beyond training (85 HU)" in remarks(found, HU, SIMULATED).values()
    assert remarks(found, HU, UNKNOWN) == {}, "nobody knows what these weights were trained on"
    half = Calibration(0.5, 0.0, is_hu=False)
    assert "noise" not in remarks(found, half, SIMULATED)


@pytest.mark.parametrize(
    ("provenance", "limits"),
    [
        ({}, UNKNOWN),
        ({"own patients": 12}, UNKNOWN),
        ({"own patients": 12, "start": {"patients": ["A", "drawn 0"]}}, UNKNOWN),
        ({"patients": ["A", "drawn 0"]}, SIMULATED),
    ],
    ids=["nothing", "own", "own from simulated", "simulated"],
)
def test_limits_that_were_not_recorded_are_those_of_simulated_patients_or_none(
    provenance: dict[str, Any], limits: Limits
) -> None:
    for kind in ("asinh", "percentile"):
        scaling = Intensity(kind)
        assert limits_of(Profile(intensity=scaling, provenance=provenance)) == limits
    own = Limits(30.0, 5.0, None)
    assert limits_of(Profile(provenance=provenance, limits=own)) == own


def test_published_weights_tell_no_limits() -> None:
    assert limits_of(PUBLISHED) == UNKNOWN


@pytest.mark.parametrize("folder", [BUNDLE, ROOT / "Resources" / "Weights" / "version-0.1.0"])
def test_weights_in_use_keep_their_limits(folder: Path) -> None:
    profile = read_profile(folder).profile
    assert (profile.limits, limits_of(profile)) == (None, SIMULATED)
    assert profile.geometry.least_share == 0 and not profile.geometry.leaves_out


def test_limits_are_those_of_the_vertebrae() -> None:
    noise = [*range(199), np.nan, 900.0]
    made = limits_over(noise, [0.7, 5.0, 2.0], [20, 7, 9])
    assert made == Limits(noise_hu=198.0, slice_mm=5.0, layers=7), "one artefact is no limit"
    assert limits_over([np.nan], [1.0], [9]) == Limits(None, 1.0, 9)
    assert limits_over([], [], []) == UNKNOWN
    other = Limits(noise_hu=250.0, slice_mm=1.0, layers=30)
    assert limits_of_both(made, other) == limits_of_both(other, made) == Limits(250.0, 5.0, 7)
    assert limits_of_both(made, Limits(slice_mm=3.0)) == Limits(slice_mm=5.0)


@pytest.mark.parametrize("thickest", [0.8, 5.0])
def test_slices_are_thick_beside_those_of_the_training(thickest: float) -> None:
    for thickness in (0.8, 2.0, 5.0):
        said = remarks(replace(measured(), slice_mm=thickness), HU, Limits(slice_mm=thickest))
        assert ("thick slices" in said) is (thickness > thickest)


@pytest.mark.parametrize("value", [-2000, -3024, -32768, -2147483648])
def test_a_value_that_stands_for_nothing_in_the_body_forbids(value: int) -> None:
    array = CT.array.astype(np.int32)
    at = tuple(int(n) for n in np.argwhere(BODY).mean(axis=0))
    array[at] = value
    assert "not measured" in obstacles(measured(replace(CT, array=array)), HU)
    array = np.where(BODY, CT.array, value).astype(np.int32)
    assert "not measured" not in obstacles(measured(replace(CT, array=array)), HU)
    array = CT.array.astype(np.int32)
    array[at] = -1024
    assert "not measured" not in obstacles(measured(replace(CT, array=array)), HU), "it is air"


def test_muscle_is_no_bone() -> None:
    soft = replace(CT, array=np.clip(CT.array, -1000, 70))
    found = measured(soft)
    assert NO_BONE in obstacles(found, HU).values()
    assert NO_EDGE in remarks(found, HU, SIMULATED).values()


def test_a_whole_segmentation_beside_the_bone_is_not_stretched_to_bone() -> None:
    """Muscle everywhere: the scan's air tells that these are HU, and no bone is called bone."""
    soft = replace(CT, array=np.clip(CT.array, -1000, 70))
    soft.array[0, 0, 0] = -1000
    scale = calibrate(soft, [landmarks(soft, BODY)])
    assert scale.is_hu
    assert "no bone" in obstacles(measured(soft), scale)


def test_a_destroyed_vertebra_is_still_analysed() -> None:
    """Marrow replaced by soft tissue, half of the cortex left: remarks perhaps, no refusal."""
    left = np.indices(GRID.shape)[2] > GRID.shape[2] // 2
    eaten = np.where(BODY & ((CT.array < 350) | left), 60, CT.array).astype(np.float32)
    assert obstacles(measured(replace(CT, array=eaten)), HU) == {}


def test_metal_is_seen_beyond_the_crop_but_not_far_away() -> None:
    for gap_mm, seen in ((6, True), (14, False)):
        j = int(np.argwhere(BODY)[:, 1].max()) + gap_mm
        array = CT.array.copy()
        array[:, j : j + 2, 30:40] = 3071
        said = remarks(measured(replace(CT, array=array)), HU, SIMULATED)
        assert (METAL_NEARBY in said.values()) is seen


SITE = LocatedBody("L1", patch_of(BODY), "given", ())


@pytest.mark.parametrize("change", [name for name in DEGRADED if "stored as thin" not in name])
def test_what_is_done_to_a_vertebra_is_noticed(change: str) -> None:
    degrade, expected = DEGRADED[change]
    found = alarms(degrade(DegradationScene(CT, BODY, SITE), GEOMETRY), HU)
    assert {*expected} & {*found}


def test_wilson() -> None:
    """0 of 10 and 5 of 10, by hand."""
    none, half = wilson(0, 10), wilson(5, 10)
    assert (none.low, none.high) == pytest.approx((0, 0.2775), abs=1e-3)
    assert (half.low, half.high) == pytest.approx((0.2366, 0.7634), abs=1e-3)
