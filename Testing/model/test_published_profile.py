"""What the published weights expect of a crop: the paper's axes, spacing, scaling and slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.models import TINY, filled
from hideseekseg.anatomy.crop import Crop, crop_grid
from hideseekseg.anatomy.intensity import Calibration, network_input
from hideseekseg.anatomy.preparation import LATERAL, slices_of
from hideseekseg.cli.main import main
from hideseekseg.imaging.segmentation import Segment, Segmentation
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.inputs import Options, check_inputs
from hideseekseg.model.profile import Geometry, Profile
from hideseekseg.model.published.importer import PROFILE
from hideseekseg.model.weights import Model, load_model, save_model
from hideseekseg.pipeline import segment_spine

ONLY_CENTRAL = "only the 5 central slices were analysed"


def test_settings_are_the_papers() -> None:
    geometry, schedule, decision = PROFILE.geometry, PROFILE.schedule, PROFILE.decision
    assert (geometry.kind, geometry.size, geometry.central_slices) == ("raw", 64, 5)
    assert (geometry.pixel_mm, geometry.slice_mm) == ((0.8, 0.675), 0.8)
    assert (PROFILE.intensity.kind, PROFILE.intensity.lower, PROFILE.intensity.upper) == (
        *("percentile", 0.0, 99.5),
    )
    assert (schedule.edit, schedule.projection) == ("render", "render")
    assert (schedule.timesteps, schedule.invert_steps, schedule.render_steps) == (1000, 250, 100)
    assert (decision.healthy_p, decision.threshold, decision.baseline) == (1e-5, 0.5, "edit")
    assert (decision.candidate_quantile, decision.min_pixels) == (0.5, 5)
    assert decision == replace(
        decision, gate_p=0.0, lytic_floor=0.0, blastic_floor=0.0, smooth_pixels=0.0
    )


def test_crop_has_the_papers_axes_and_spacing() -> None:
    """crop[:, row, column]: rows run posterior 0.8 mm, columns inferior 0.675 mm, slices right."""
    grid = Grid((60, 50, 40), np.diag([1.5, 1.0, 2.0, 1.0]))
    body = np.zeros(grid.shape, bool)
    body[20:34, 10:40, 8:28] = True
    crop = crop_grid(body, grid, PROFILE.geometry)
    right, posterior, inferior = (crop.ijk_to_lps[:3, n] for n in (2, 1, 0))
    np.testing.assert_allclose(right, [-0.8, 0, 0])
    np.testing.assert_allclose(posterior, [0, 0.8, 0])
    np.testing.assert_allclose(inferior, [0, 0, -0.675], atol=1e-12)
    assert crop.shape == (int(np.ceil(30 / 0.8)), 64, 64)
    middle = crop.lps((np.array(crop.shape[::-1]) - 1) / 2)
    np.testing.assert_allclose(middle, [17.5 * 1.5, 24.5, 26.5 * 2], atol=1e-9)


def test_each_slice_is_scaled_by_its_own_percentiles_and_not_clipped() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(50, 200, (3, 64, 64)).astype(np.float32) * [[[1]], [[2]], [[5]]]
    image[:, 0, 0] = 30_000
    crop = Crop(image.astype(np.float32), np.ones(image.shape, bool), Grid(image.shape, np.eye(4)))
    x = network_input(crop, PROFILE, Calibration(1.0, 0.0, is_hu=True))
    np.testing.assert_allclose(x.min(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.percentile(x, 99.5, axis=(1, 2)), 1, atol=1e-5)
    assert x.max() > 5


def body_of(count: int, first: int = 3, total: int = 70) -> Crop:
    body = np.zeros((total, 4, 4), bool)
    body[first : first + count, 1:3, 1:3] = True
    return Crop(body.astype(np.float32), body, Grid(body.shape, np.eye(4)))


@pytest.mark.parametrize(
    ("count", "central", "expected"),
    [
        (64, 5, [33, 34, 35, 36, 37]),
        (63, 5, [32, 33, 34, 35, 36]),
        (6, 5, [4, 5, 6, 7, 8]),
        (5, 5, [3, 4, 5, 6, 7]),
        (2, 5, [3, 4]),
        (64, 1, [35]),
        (4, None, [3, 4, 5, 6]),
    ],
)
def test_central_slices_lie_around_the_middle_of_the_body(
    count: int, central: int | None, expected: list[int]
) -> None:
    crop = body_of(count)
    geometry = Geometry(central_slices=central)
    slices, remarks = slices_of(crop, geometry, all_slices=False)
    assert slices.tolist() == expected
    assert bool(remarks) == (len(expected) < count)
    slices, remarks = slices_of(crop, geometry, all_slices=True)
    assert slices.tolist() == list(range(3, 3 + count))
    assert remarks == ((LATERAL,) if len(expected) < count else ())


def test_a_body_with_a_gap_in_its_middle_keeps_the_slices_nearest_to_it() -> None:
    crop = body_of(20)
    crop.body[10:16] = False
    geometry = Geometry(central_slices=5)
    assert slices_of(crop, geometry, all_slices=False)[0].tolist() == [8, 9, 16, 17, 18]


@pytest.fixture(scope="module")
def raw_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny weights with the published geometry and scaling; their findings mean nothing."""
    tiny, folder = load_model(tiny_weights, "cpu"), tmp_path_factory.mktemp("raw")
    geometry = replace(PROFILE.geometry, size=TINY.image_size, pixel_mm=(3.2, 2.7))
    profile = Profile(
        "raw", TINY, geometry, PROFILE.intensity, tiny.profile.schedule, tiny.profile.decision
    )
    save_model(folder, filled(TINY), tiny.classifier, profile)
    return folder


@pytest.fixture(scope="module")
def raw_model(raw_weights: Path) -> Model:
    return load_model(raw_weights, "cpu")


def test_lateral_slices_are_off_and_marked_when_on(
    box_spine: tuple[Volume, Volume], raw_model: Model
) -> None:
    ct, labels = box_spine
    bodies = Segmentation((labels,), (Segment("", "", 32, 0),), "bodies.nii.gz")
    for all_slices, count, remark in [(False, 5, ONLY_CENTRAL), (True, 50, LATERAL)]:
        options = Options("totalsegmentator", all_slices=all_slices)
        result = segment_spine(check_inputs(ct, bodies, options), raw_model)
        (found,) = result.vertebrae
        assert len(found.slice_p) == count
        assert found.flags == (remark,)
        changed = np.flatnonzero(result.evidence["T12"].difference.any(axis=(1, 2)))
        assert len(changed) == count
        assert (changed[0] + changed[-1]) / 2 == pytest.approx(24.5, abs=0.5)


def test_weights_of_all_slices_have_no_remark(
    box_spine: tuple[Volume, Volume], raw_model: Model
) -> None:
    ct, labels = box_spine
    geometry = replace(raw_model.profile.geometry, central_slices=None)
    model = replace(raw_model, profile=replace(raw_model.profile, geometry=geometry))
    bodies = Segmentation((labels,), (Segment("", "", 32, 0),), "bodies.nii.gz")
    inputs = check_inputs(ct, bodies, Options("totalsegmentator"))
    (found,) = segment_spine(inputs, model).vertebrae
    assert (len(found.slice_p), found.flags) == (50, ())


@pytest.mark.parametrize(("words", "remark"), [([], ONLY_CENTRAL), (["--all-slices"], LATERAL)])
def test_remark_stands_in_the_results(
    words: list[str],
    remark: str,
    box_files: tuple[Path, Path],
    raw_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    segment = ["segment", *map(str, box_files), "--labels", "totalsegmentator", "--levels", "T12"]
    files = ["--weights", str(raw_weights), "--out", str(tmp_path)]
    assert main([*segment, *files, *words]) == 0
    assert f"[{remark}]" in capsys.readouterr().out
    text = (tmp_path / "candidates.json").read_text("utf-8")
    assert remark in text
