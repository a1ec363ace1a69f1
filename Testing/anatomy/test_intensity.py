"""Intensities: HU is known when seen, rescaled CT comes back to it, MR is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from helpers.vertebrae import Mask, cylinder, cylinder_ct, grid_around, scanned, tilted
from hideseekseg.anatomy.crop import crop_grid, feathered, take_crop
from hideseekseg.anatomy.intensity import (
    DENSE_BONE_HU,
    SOFT_TISSUE_HU,
    Calibration,
    Landmarks,
    NotCTError,
    calibrate,
    compressed,
    cut_off,
    landmarks,
    network_input,
)
from hideseekseg.anatomy.localization import close_up
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Volume, patch_of
from hideseekseg.model.profile import Geometry, Intensity, Profile
from hideseekseg.simulation.source_vertebrae import Source, load_vertebrae, read_sources

ASINH = Profile(
    geometry=Geometry("aligned", 48, slice_mm=1.6, body_pixels=40.0, margin_pixels=1.0),
    intensity=Intensity("asinh"),
)
PERCENTILE = Profile()
GRID = grid_around((1.0, 1.0, 1.0))
BODY = cylinder(GRID, tilted(10))
CT = cylinder_ct(GRID, tilted(10))
AIRLESS = Volume(np.maximum(CT.array, 0), CT.grid)
HU = Calibration(1.0, 0.0, is_hu=True)

# What people make of HU: a shift, 0..1, 0..255, z-scores, and the one of the issue.
RESCALED = {
    "stored values": (1.0, 1024.0),
    "0 to 1": (1 / 3000, 1 / 3),
    "0 to 255": (255 / 1600, 165.0),
    "z-scores": (1 / 420, 0.6),
    "x * 0.01 + 7": (0.01, 7.0),
}


def rescaled(ct: Volume, slope: float, intercept: float) -> Volume:
    return Volume((ct.array * slope + intercept).astype(np.float32), ct.grid)


def seen(ct: Volume, body: Mask, profile: Profile = ASINH) -> tuple[np.ndarray, Mask]:
    """Network input of a volume whose scale is not known, and the body in the crop."""
    crop = take_crop(ct, body, crop_grid(body, ct.grid, profile.geometry))
    return network_input(crop, profile, calibrate(ct, [landmarks(ct, body)])), crop.body


def test_landmarks_are_what_they_are_called() -> None:
    hu = np.full(GRID.shape, -900.0, np.float32)
    near = np.abs(np.indices(GRID.shape) - 35.5).max(axis=0)
    hu[near < 32] = 45
    body = near < 12
    hu[body] = 700
    hu[near < 10] = 150
    hu[0, 0, 0] = np.nan
    found = landmarks(Volume(hu, GRID), body)
    assert (found.soft, found.dense, found.marrow, found.rim) == (45, 700, 150, 700)


def test_hu_is_recognised_and_left_alone() -> None:
    scale = calibrate(CT, [landmarks(CT, BODY)])
    assert scale == HU
    assert scale.hounsfield(CT.array) is CT.array


@pytest.mark.parametrize("name", RESCALED)
def test_rescaled_hu_is_not_taken_for_hu(name: str) -> None:
    ct = rescaled(CT, *RESCALED[name])
    assert not calibrate(ct, [landmarks(ct, BODY)]).is_hu


@settings(max_examples=20, deadline=None)
@given(st.floats(-4, 1).map(lambda e: 10**e), st.floats(-1000, 1000))
@example(slope=0.01, intercept=-901.0)  # between the values of air in HU
def test_landmarks_land_on_their_hu_whatever_the_scale(slope: float, intercept: float) -> None:
    assume(intercept >= 0 or not 0.05 < slope < 20)  # else it may look like HU
    measured = landmarks(CT, BODY)
    values = (measured.soft, measured.dense, measured.marrow, measured.rim)
    moved = Landmarks(*(slope * value + intercept for value in values))
    scale = calibrate(rescaled(AIRLESS, slope, intercept), [moved])
    assert not scale.is_hu
    ends = scale.hounsfield(np.array([moved.soft, moved.dense]))
    np.testing.assert_allclose(ends, [SOFT_TISSUE_HU, DENSE_BONE_HU], atol=0.5)


@pytest.mark.parametrize("name", RESCALED)
def test_every_rescaling_gives_the_same_input(name: str) -> None:
    """Whatever the mapping is worth: it does not depend on the scale that came in."""
    ct, body = scanned()
    expected, _ = seen(rescaled(ct, 0.02, 3.0), body)
    x, _ = seen(rescaled(ct, *RESCALED[name]), body)
    np.testing.assert_allclose(x, expected, atol=2e-3)


@pytest.mark.parametrize("name", RESCALED)
def test_input_of_rescaled_ct_is_near_that_of_hu(name: str) -> None:
    """Measured: a mean of 0.105 of a range of 2; others differ as far as their bone does."""
    ct, body = scanned()
    expected, inside = seen(ct, body)
    x, _ = seen(rescaled(ct, *RESCALED[name]), body)
    assert np.abs(x - expected)[inside].mean() < 0.12
    assert np.corrcoef(x[inside], expected[inside])[0, 1] > 0.99


def source_of(shared: Path, patient: str) -> Source:
    table = Path(__file__).resolve().parents[2] / "Resources" / "Training" / "sources.csv"
    (source,) = [s for s in read_sources(table, shared / "data") if s.patient == patient]
    return source


def test_input_of_rescaled_real_crop_is_near_that_of_hu(shared: Path) -> None:
    """Without air in sight usual bone is the second landmark: as far as bone differs."""
    for vertebra in load_vertebrae(source_of(shared, "ts_aorta")):
        expected, inside = seen(vertebra.ct, vertebra.body)
        x, _ = seen(rescaled(vertebra.ct, 0.01, 7.0), vertebra.body)
        assert np.abs(x - expected)[inside].mean() < 0.15


@pytest.mark.parametrize("patient", ["lidc0314", "ts_aorta", "crlm_1004"])
def test_rescaled_real_scan_comes_back_to_hu(shared: Path, patient: str) -> None:
    """A dense spine and two of low density: air tells the one from the others."""
    source = source_of(shared, patient)
    ct = rescaled(read_ct(source.ct), 0.01, 7.0)
    measured = [landmarks(v.ct, v.body) for v in load_vertebrae(source)]
    moved = [
        replace(
            Landmarks(*(0.01 * v + 7 for v in (m.soft, m.dense, m.marrow, m.rim))),
            edge=0.01 * m.edge,
        )
        for m in measured
    ]
    scale = calibrate(ct, moved)
    for m, own in zip(measured, moved):
        back = scale.hounsfield(np.array([own.marrow, own.dense], np.float32))
        assert back == pytest.approx(np.array([m.marrow, m.dense]), rel=0.1, abs=45)


def scan_of(bone: float, lowest: float) -> tuple[Volume, Landmarks]:
    """A scan with bone of so many HU that shows nothing darker than ``lowest``."""
    rng = np.random.default_rng(1)
    hu = rng.normal(SOFT_TISSUE_HU, 10, GRID.shape).astype(np.float32)
    hu[:, :20] = rng.normal(-995, 8, hu[:, :20].shape)
    hu[:, 20:26] = rng.normal(-100, 10, hu[:, 20:26].shape)
    found = Landmarks(SOFT_TISSUE_HU, bone, 0.4 * bone, bone, bone - SOFT_TISSUE_HU)
    return Volume(np.maximum(hu, lowest), GRID), found


@pytest.mark.parametrize("bone", [300.0, 430.0, 800.0])
@pytest.mark.parametrize("padding", [None, -3024.0])
def test_air_tells_thin_bone_from_dense_bone(bone: float, padding: float | None) -> None:
    ct, found = scan_of(bone, -1024)
    if padding is not None:
        ct.array[:4] = padding
    moved = Landmarks(*(0.01 * v + 50 for v in (found.soft, found.dense, found.marrow, found.rim)))
    scale = calibrate(rescaled(ct, 0.01, 50.0), [moved])
    assert float(scale.hounsfield(np.array([moved.dense], np.float32))[0]) == pytest.approx(
        bone, rel=0.04
    )


@pytest.mark.parametrize("lowest", [-100.0, -200.0, -350.0])
def test_what_is_cut_off_below_is_not_taken_for_air(lowest: float) -> None:
    """As windows for soft tissue and bone leave it: then usual bone is the second landmark."""
    ct, found = scan_of(450.0, lowest)
    moved = Landmarks(*(0.01 * v + 50 for v in (found.soft, found.dense, found.marrow, found.rim)))
    scale = calibrate(rescaled(ct, 0.01, 50.0), [moved])
    dense = float(scale.hounsfield(np.array([moved.dense], np.float32))[0])
    assert dense == pytest.approx(DENSE_BONE_HU, abs=0.5)


def test_one_diseased_vertebra_does_not_set_the_scale() -> None:
    healthy = Landmarks(soft=0.3, dense=0.5, marrow=0.35, rim=0.5)
    ivory = Landmarks(soft=0.3, dense=0.9, marrow=0.8, rim=0.9)
    volume = rescaled(CT, 1 / 3000, 1 / 3)
    assert calibrate(volume, [healthy, ivory, healthy]) == calibrate(volume, [healthy])


def test_mr_is_refused() -> None:
    """Bright marrow, black cortex; and the same with bone darker than all around."""
    bright = np.where(BODY, 900.0, 300.0)
    deep = np.abs(np.indices(GRID.shape) - 35.5).max(axis=0) < 9
    bright[BODY & ~deep] = 500
    bright[BODY & (CT.array > 450)] = 100
    for array, words in ((bright, "MR"), (1000 - CT.array, "CT"), (np.ones(GRID.shape), "CT")):
        volume = Volume(array.astype(np.float32), GRID)
        with pytest.raises(NotCTError, match=words):
            calibrate(volume, [landmarks(volume, BODY)])


def test_percentiles_go_from_0_to_1_in_every_slice() -> None:
    crop = take_crop(CT, BODY, crop_grid(BODY, GRID, PERCENTILE.geometry))
    x = network_input(crop, PERCENTILE, HU)
    np.testing.assert_allclose(x.min(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.percentile(x, 99.5, axis=(1, 2)), 1, rtol=1e-4)
    assert x.max() > 1, "not clipped, as published"


@settings(max_examples=15, deadline=None)
@given(st.floats(-3, 2).map(lambda e: 10**e), st.floats(-100, 100))
def test_percentiles_do_not_see_scale_and_offset(slope: float, intercept: float) -> None:
    expected, _ = seen(CT, BODY, PERCENTILE)
    crop = take_crop(
        rescaled(CT, slope, intercept), BODY, crop_grid(BODY, GRID, PERCENTILE.geometry)
    )
    x = network_input(crop, PERCENTILE, HU)
    np.testing.assert_allclose(x, expected, atol=0.02)


def test_away_from_the_body_everything_is_black() -> None:
    crop = take_crop(CT, BODY, crop_grid(BODY, GRID, ASINH.geometry))
    x = network_input(crop, ASINH, HU)
    weight = feathered(crop.body, ASINH.geometry.margin_pixels)
    assert (x[weight == 0] == -1).all()
    expected = compressed(crop.image, ASINH.intensity)[crop.body]
    np.testing.assert_allclose(x[crop.body], expected, atol=1e-6)
    assert (weight[crop.body] == 1).all()


def test_lytic_and_blastic_contrasts_are_both_seen() -> None:
    tissue = np.array([-1000, 30, 130, 200, 1200, 3000], np.float32)
    x = compressed(tissue, ASINH.intensity)
    assert (np.diff(x) >= 0).all() and np.abs(x).max() <= 1
    assert x[2] - x[1] > 0.25, "100 HU of lost marrow"
    assert 0.5 < x[4] - x[3] < 1.2, "1000 HU of new bone do not drown it"


def test_real_scans_in_hu_are_known_as_such(shared: Path) -> None:
    """lung1_003 was once taken for a rescaled CT: contrast medium, bridges beside the bodies."""
    for name in ("lung1_003", "ricord1012", "acrinflt001a"):
        ct = read_ct(shared / "data" / name / "ct.nii.gz")
        labels = read_segmentation(shared / "data" / name / "vertebral_bodies.nii.gz")
        found = [
            landmarks(*close_up(ct, patch)[:2])
            for segment in labels.segments
            if (patch := patch_of(labels.mask(segment))) is not None
        ]
        assert calibrate(ct, found) == HU, name
        assert cut_off(ct, found, HU) == "", name
