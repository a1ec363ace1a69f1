"""Simulated training data: lesions and mimics look as asked, and the same seed gives the same."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from helpers.vertebrae import (
    CENTRE,
    UPRIGHT,
    cylinder,
    cylinder_ct,
    dice,
    grid_around,
    plain_vertebra,
    scanned,
)
from hideseekseg.anatomy.quality import noise_of
from hideseekseg.errors import InputError
from hideseekseg.imaging.volume import Grid, Volume, to_sitk
from hideseekseg.model.profile import Geometry
from hideseekseg.simulation import benign_mimics as mimics
from hideseekseg.simulation import commands
from hideseekseg.simulation.acquisition import (
    Acquisition,
    acquire,
    draw_noise,
    random_acquisition,
    scale,
)
from hideseekseg.simulation.commands import Simulation, run_simulate
from hideseekseg.simulation.metastases import (
    PLAIN_HU,
    SMALLEST_MM3,
    VISIBLE_HU,
    clutter,
    diameters,
    draw_kind,
    outlined,
    paint_blastic,
    paint_lytic,
    paint_metastases,
    plain,
    seed_point,
)
from hideseekseg.simulation.patient import draw_patient
from hideseekseg.simulation.random_fields import (
    VertebraPatch,
    blob,
    log_uniform,
    random_point,
    smooth_field,
)
from hideseekseg.simulation.simulate import (
    BLASTIC,
    BODY,
    LEAST_LESION_PIXELS,
    LYTIC,
    Recipe,
    Sample,
    draw_sample,
    simulate,
)
from hideseekseg.simulation.source_vertebrae import (
    SourceVertebra,
    drawn_vertebrae,
    load_vertebrae,
    pack,
    read_sources,
    take_canvas,
    unpack,
)

SMALL = Geometry("aligned", 32, slice_mm=2.4, body_pixels=26.0, margin_pixels=1.0)
SPACING = (1.6, 0.8, 0.9)
HEADER = "ct,segmentation,labels,patient,split\n"
LEFT_OUT = HEADER.replace("split", "split,leave_out")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def canvas() -> VertebraPatch:
    """A body of 180 HU in muscle of 50, (S, P, I) = (32, 56, 48) voxels."""
    grid = Grid((48, 56, 32), grid_around(SPACING).ijk_to_lps)
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ (np.array([32, 56, 48]) - 1) / 2
    body = np.transpose(cylinder(Grid(grid.shape, matrix), UPRIGHT), (2, 1, 0))
    return VertebraPatch(np.where(body, 180, 50).astype(np.float32), body, SPACING)


@pytest.fixture(scope="module")
def diseased() -> list[Sample]:
    vertebra = plain_vertebra()
    return [draw_sample(rng(n), vertebra, SMALL, diseased=True) for n in range(40)]


@pytest.mark.parametrize("length", [6.0, 10.0])
def test_fields_have_unit_deviation_and_the_asked_length(
    canvas: VertebraPatch, length: float
) -> None:
    field = smooth_field(rng(), canvas, length)
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-4)
    for axis, step in enumerate(SPACING):
        lines = np.moveaxis(field, axis, 0)
        near, far = max(round(0.3 * length / step), 1), round(2.5 * length / step)
        assert np.corrcoef(lines[near:].ravel(), lines[:-near].ravel())[0, 1] > 0.6
        if far < 0.8 * len(lines):
            assert abs(np.corrcoef(lines[far:].ravel(), lines[:-far].ravel())[0, 1]) < 0.5


def test_blobs_have_their_radius_in_millimetres(canvas: VertebraPatch) -> None:
    middle = np.array(canvas.body.shape) / 2 * SPACING
    volumes, extents = [], []
    for seed in range(20):
        weight = blob(rng(seed), canvas, middle, 8.0, irregularity=0.1)
        assert weight.min() == 0 and weight.max() == 1
        at = np.argwhere(weight > 0.5) * SPACING
        np.testing.assert_allclose(at.mean(axis=0), middle, atol=2.0)
        volumes.append(len(at) * np.prod(SPACING))
        extents.append(at.std(axis=0))
    assert np.mean(volumes) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.15)
    np.testing.assert_allclose(np.mean(extents, axis=0), 8 / np.sqrt(5), rtol=0.15)


def test_points_are_drawn_from_their_weight(canvas: VertebraPatch) -> None:
    weight = np.zeros(canvas.body.shape, np.float32)
    weight[10, 20, 30] = 2.0
    np.testing.assert_allclose(random_point(rng(), canvas, weight) / SPACING, [10, 20, 30])
    for seed in range(20):
        anywhere = random_point(rng(seed), canvas, np.zeros_like(weight)) / SPACING
        assert canvas.body[tuple(np.round(anywhere).astype(int))]


def test_log_uniform_has_its_median_in_the_geometric_middle() -> None:
    generator = rng()
    drawn = [log_uniform(generator, 2.0, 50.0) for _ in range(10_000)]
    assert min(drawn) >= 2 and max(drawn) <= 50
    assert np.median(drawn) == pytest.approx(10, rel=0.05)


def test_posterior_third_is_seeded_twice_as_often(canvas: VertebraPatch) -> None:
    generator = rng()
    rows = np.array([seed_point(generator, canvas)[1] / SPACING[1] for _ in range(1500)])
    hit = np.flatnonzero(canvas.body.any(axis=(0, 2)))
    border = hit[0] + (hit[-1] - hit[0]) * 2 / 3
    voxels = canvas.body.sum(axis=(0, 2))
    behind = np.arange(len(voxels)) > border
    ahead_of_it = (rows <= border).mean() / voxels[~behind].sum()
    assert (rows > border).mean() / voxels[behind].sum() / ahead_of_it == pytest.approx(2, abs=0.3)


def test_lytic_darkens(canvas: VertebraPatch) -> None:
    """Where the weight is high bone is gone; only a sclerotic rim may be brighter than before."""
    brightened = 0
    for seed in range(40):
        hu, weight = paint_lytic(rng(seed), canvas, canvas.hu)
        change = hu - canvas.hu
        assert change[weight > 0.6].max(initial=-1) < 0
        assert hu.min() > -20
        brightened += bool((change > 20).any())
    assert 0 < brightened < 20


def test_blastic_brightens_and_does_not_become_metal(canvas: VertebraPatch) -> None:
    for seed in range(40):
        hu, weight = paint_blastic(rng(seed), canvas, canvas.hu)
        assert (hu >= canvas.hu).all()
        assert (hu - canvas.hu).max() > VISIBLE_HU
        assert hu.max() < 1500
        assert (hu[weight == 0] == canvas.hu[weight == 0]).all()


def test_lesions_come_in_both_types_alone_and_mixed(canvas: VertebraPatch) -> None:
    kinds = set()
    for seed in range(30):
        painted = paint_metastases(rng(seed), canvas, draw_kind(rng(seed)))
        assert not (painted.lytic & painted.blastic).any()
        assert not ((painted.lytic | painted.blastic) & ~canvas.body).any()
        kinds.add((bool(painted.lytic.any()), bool(painted.blastic.any())))
    assert kinds >= {(True, False), (False, True), (True, True)}


MIMICS = (
    mimics.marrow_density,
    mimics.heterogeneous_marrow,
    mimics.coarse_trabeculae,
    mimics.central_condensation,
    mimics.pedicle_roots,
    mimics.endplate_sclerosis,
    mimics.bone_island,
    mimics.schmorl_node,
    mimics.haemangioma,
    mimics.basivertebral_cleft,
    mimics.osteophyte,
    mimics.flowing_ossification,
    mimics.fatty_island,
    mimics.impaction_band,
)


@pytest.mark.parametrize("painter", MIMICS, ids=lambda painter: painter.__name__)
def test_mimics_change_the_body_and_nothing_far_from_it(
    canvas: VertebraPatch, painter: Callable[..., np.ndarray]
) -> None:
    # A Schmorl node opens to the disc, and ossified ligament lies on the wall.
    reach = {mimics.schmorl_node: 2, mimics.flowing_ossification: 4}.get(painter, 1)
    near = ndimage.binary_dilation(canvas.body, np.ones((3, 3, 3)), reach)
    for seed in range(5):
        hu = painter(rng(seed), canvas, canvas.hu)
        assert hu.dtype == np.float32 and np.isfinite(hu).all()
        assert np.abs(hu - canvas.hu)[canvas.body].max() > 5
        assert (hu[~near] == canvas.hu[~near]).all()
        assert (painter(rng(seed), canvas, canvas.hu) == hu).all()


def test_bone_islands_are_denser_than_metastases_and_small(canvas: VertebraPatch) -> None:
    for seed in range(20):
        hu = mimics.bone_island(rng(seed), canvas, canvas.hu)
        assert hu.max() > 885, "the border that Ulano et al. found"
        assert (hu > 400).sum() * np.prod(SPACING) < 4 / 3 * np.pi * 7**3


def test_marrow_takes_another_age_and_cortex_stays(canvas: VertebraPatch) -> None:
    cortex = canvas.hu.copy()
    cortex[canvas.body & (canvas.depth < 2)] = 700
    medians = []
    for seed in range(20):
        hu = mimics.marrow_density(rng(seed), canvas, cortex)
        assert (hu[cortex == 700] == 700).all()
        medians.append(np.median(hu[canvas.depth > 3]))
    assert min(medians) < 90 and max(medians) > 250


def test_the_same_seed_draws_the_same_voxels(diseased: list[Sample]) -> None:
    again = draw_sample(rng(7), plain_vertebra(), SMALL, diseased=True)
    for name in ("image", "twin", "body", "lytic", "blastic"):
        assert (getattr(again, name) == getattr(diseased[7], name)).all()
    assert (diseased[8].image.shape != again.image.shape) or (
        diseased[8].image != again.image
    ).any()


def test_twin_differs_only_by_the_lesions(diseased: list[Sample]) -> None:
    """In the body, where no lesion is marked, by less than what is visible; outside not at all.

    Up to the gain of a wrong calibration, at most about two.
    """
    spacing = (2.4, 1.2, 1.2)
    for sample in diseased:
        change = np.abs(sample.image - sample.twin)
        lesion = sample.lytic | sample.blastic
        assert not (lesion & ~sample.body).any()
        strong, count = ndimage.label((change >= 2 * VISIBLE_HU) & sample.body & ~lesion)
        specks = ndimage.sum_labels(strong > 0, strong, range(1, count + 1)) * np.prod(spacing)
        assert max(specks, default=0) < SMALLEST_MM3  # nobody outlines these
        away = ndimage.distance_transform_edt(~sample.body, sampling=spacing) > 6
        assert change[away].max() < 2


def test_marked_lesions_are_dark_or_bright(diseased: list[Sample]) -> None:
    lytic = [np.median((s.image - s.twin)[s.lytic]) for s in diseased if s.lytic.sum() > 20]
    blastic = [np.median((s.image - s.twin)[s.blastic]) for s in diseased if s.blastic.sum() > 20]
    assert len(lytic) > 10 and max(lytic) < -0.5 * VISIBLE_HU
    assert len(blastic) > 10 and min(blastic) > 0.5 * VISIBLE_HU
    assert not any((s.lytic & s.blastic).any() for s in diseased)


def test_lesions_continue_from_slice_to_slice(diseased: list[Sample]) -> None:
    overlaps = []
    for sample in diseased:
        for a, b in pairwise(sample.lytic | sample.blastic):
            if min(a.sum(), b.sum()) > 30:
                overlaps.append(dice(a, b))
    assert len(overlaps) > 50
    assert np.median(overlaps) > 0.75


def test_healthy_vertebra_is_its_own_twin() -> None:
    sample = draw_sample(rng(3), plain_vertebra(), SMALL, diseased=False)
    assert (sample.image == sample.twin).all()
    assert not sample.lesion_pixels.any()


def test_both_classes_have_bone_islands() -> None:
    """Nothing else is that dense that deep: else dense would mean diseased."""
    vertebra = plain_vertebra()

    def dense(sample: Sample) -> bool:
        deep = ndimage.distance_transform_edt(sample.body, sampling=(2.4, 1.2, 1.2)) > 4
        return bool((sample.twin[deep] > 700).any())

    for ill in (False, True):
        drawn = [dense(draw_sample(rng(seed), vertebra, SMALL, ill)) for seed in range(40)]
        assert 1 <= sum(drawn) <= 16


def plain_scan(**changed: float) -> Acquisition:
    settings = {"sharpening": 0.0, "noise_hu": 0.0, "noise_mm": 0.6, "streak_hu": 0.0}
    return Acquisition((0.5, 0.5, 1.2), **{**settings, "gain": 1.0, "shift_hu": 0.0, **changed})


@pytest.mark.parametrize("noise_mm", [0.0, 1.2])
def test_noise_has_its_deviation_and_grain(noise_mm: float) -> None:
    shape, spacing = (20, 48, 48), (1.6, 0.8, 0.8)
    how = plain_scan(noise_hu=25.0, noise_mm=noise_mm)
    noise = draw_noise(rng(), shape, spacing, how)
    assert noise.std() == pytest.approx(25, rel=0.02)
    grain = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert grain > 0.7 if noise_mm else abs(grain) < 0.05


def test_streaks_add_to_noise() -> None:
    how = plain_scan(noise_hu=10.0, streak_hu=30.0)
    noise = draw_noise(rng(), (20, 48, 48), (1.6, 0.8, 0.8), how)
    assert noise.std() == pytest.approx(np.hypot(10, 30), rel=0.1)


def test_scanner_is_linear_and_keeps_the_mean(canvas: VertebraPatch) -> None:
    """Else an image minus its twin would not be the scanned lesion."""
    how = plain_scan(sharpening=0.7)
    other = paint_lytic(rng(), canvas, canvas.hu)[0]
    whole = acquire(canvas.hu, SPACING, how) + acquire(other - canvas.hu, SPACING, how)
    np.testing.assert_allclose(acquire(other, SPACING, how), whole, atol=0.01)
    assert acquire(other, SPACING, how).mean() == pytest.approx(other.mean(), abs=0.5)
    flat = np.full(canvas.hu.shape, 77, np.float32)
    np.testing.assert_allclose(acquire(flat, SPACING, how), 77, atol=1e-3)


def test_bone_kernel_overshoots_and_blur_softens(canvas: VertebraPatch) -> None:
    soft, sharp = (acquire(canvas.hu, SPACING, plain_scan(sharpening=s)) for s in (0.0, 1.0))
    assert soft.min() + 1e-3 >= 50 and soft.max() <= 180 + 1e-3
    assert sharp.max() > 190 and sharp.min() < 40
    assert np.abs(np.diff(soft, axis=2)).max() < 0.6 * np.abs(np.diff(canvas.hu, axis=2)).max()
    np.testing.assert_allclose(scale(soft, plain_scan(gain=1.1, shift_hu=-20)), 1.1 * soft - 20)


def test_scanners_vary() -> None:
    drawn = [random_acquisition(rng(seed)) for seed in range(300)]
    noise = np.array([how.noise_hu for how in drawn])
    assert noise.min() < 4 and 40 < noise.max() <= 50
    wrong = np.mean([abs(how.gain - 1) > 0.1 for how in drawn])
    assert 0.1 < wrong < 0.5, "most scans are in HU, some only about"
    assert all(how.blur_mm[2] <= 1.1 for how in drawn)


def test_views_are_turned_and_stretched_a_little() -> None:
    vertebra = plain_vertebra()
    expected = vertebra.body.sum() * vertebra.ct.grid.voxel_mm3
    volumes = []
    for seed in range(20):
        view = take_canvas(rng(seed), vertebra, SMALL)
        canvas, again = view.patch, take_canvas(rng(seed), vertebra, SMALL).patch
        assert (canvas.hu == again.hu).all() and (canvas.body == again.body).all()
        assert canvas.hu.shape[1:] == (32, 32)
        np.testing.assert_allclose(view.own_blur, 0.5, atol=0.2)
        volumes.append(canvas.body.sum() * np.prod(canvas.spacing))
    assert np.mean(volumes) == pytest.approx(expected, rel=0.1)
    assert 0.03 < np.std(volumes) / expected < 0.3


def test_drawn_vertebrae_are_each_their_own_patient() -> None:
    drawn = drawn_vertebrae(rng(), 2)
    assert len({v.patient for v in drawn}) == 2
    for vertebra in drawn:
        marrow = np.median(vertebra.ct.array[ndimage.binary_erosion(vertebra.body, iterations=5)])
        assert 30 < marrow < 350


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A folder with a drawn T10 (value 34), cut off below once more, and a sources file."""
    ct, body = scanned()
    last = int(np.flatnonzero(body.any(axis=(1, 2)))[-1])
    labels = body.astype(np.uint8) * 34
    sitk.WriteImage(to_sitk(ct), str(tmp_path / "ct.nii.gz"))
    sitk.WriteImage(to_sitk(Volume(labels, ct.grid)), str(tmp_path / "bodies.nii.gz"))
    cut = Grid((last - 8, *ct.grid.shape[1:]), ct.grid.ijk_to_lps)
    for name, array in (("cut_ct", ct.array), ("cut_bodies", labels)):
        part = Volume(array[: last - 8], cut)
        sitk.WriteImage(to_sitk(part), str(tmp_path / f"{name}.nii.gz"))
    rows = [
        "ct.nii.gz,bodies.nii.gz,totalsegmentator,case 1,training",
        "cut_ct.nii.gz,cut_bodies.nii.gz,totalsegmentator,case 2,training",
        "ct.nii.gz,bodies.nii.gz,totalsegmentator,case 3,validation",
    ]
    (tmp_path / "sources.csv").write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def test_whole_bodies_are_loaded_and_cut_ones_left_out(scan: Path) -> None:
    sources = read_sources(scan / "sources.csv", scan)
    (vertebra,) = load_vertebrae(sources[0])
    assert (vertebra.patient, vertebra.level) == ("case 1", "T10")
    assert vertebra.body.sum() == scanned()[1].sum()
    assert vertebra.ct.array.size < scanned()[0].array.size
    assert load_vertebrae(sources[1]) == []


def test_a_segmentation_on_another_grid_than_its_ct_is_refused(scan: Path) -> None:
    moved = sitk.ReadImage(str(scan / "bodies.nii.gz"))
    moved.SetOrigin([moved.GetOrigin()[0] + 5.0, *moved.GetOrigin()[1:]])
    sitk.WriteImage(moved, str(scan / "bodies.nii.gz"))
    source = read_sources(scan / "sources.csv", scan)[0]
    with pytest.raises(InputError, match=r"bodies\.nii\.gz: has another grid than ct\.nii\.gz"):
        load_vertebrae(source)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "needs the columns"),
        (b"ct,segmentation\na,b\n", "needs the columns"),
        (HEADER.encode() + b"ct.nii.gz,bodies.nii.gz\n", "line 2"),
        (LEFT_OUT.encode() + b"ct,bodies,verse,1,training,T1 Th2\n", "unknown level 'Th2'"),
        (b"\xff\xfe\x00\x80 no text", "cannot be read"),
    ],
    ids=["missing", "empty", "columns", "short row", "unknown level", "binary"],
)
def test_broken_sources_file_is_one_clear_line(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "sources.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        read_sources(path, tmp_path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def job(folder: Path, out: str = "out", **changed: object) -> Simulation:
    settings = {"splits": ("training",), "vertebrae": 4, "seed": 5, "whole": False, "drawn": 0}
    return Simulation(
        folder / "sources.csv",
        folder,
        out=folder / out,
        **{**settings, **changed},  # type: ignore[arg-type]
    )


def columns(shard: Path) -> dict[str, np.ndarray]:
    with np.load(shard, allow_pickle=False) as data:
        return dict(data)


def test_shard_recipe_and_sheet_are_written(scan: Path) -> None:
    said: list[str] = []
    shard, sheet = run_simulate(job(scan, vertebrae=2), said.append)
    assert (shard.name, sheet.name) == ("shard-00005.npz", "shard-00005.png")
    assert min(sitk.ReadImage(str(sheet)).GetSize()) > 100
    recipe = json.loads(shard.with_suffix(".json").read_text("utf-8"))
    assert recipe["seed"] == 5 and recipe["sources"] == ["case 1", "case 2"]
    assert "case 1: 1 vertebrae" in said and "case 2: 0 vertebrae" in said
    made = sorted(path.name for path in (scan / "out").iterdir())
    assert made == ["shard-00005.json", "shard-00005.npz", "shard-00005.png"]


def test_the_same_recipe_writes_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        recipe = Recipe(seed, 4, geometry=SMALL)
        files.append(simulate(recipe, [plain_vertebra()], tmp_path / name, lambda *_: None))
    first, again, other = (columns(file) for file in files)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert all((first[key] == again[key]).all() for key in first)
    assert first["image"].tobytes() != other["image"].tobytes()


def test_labels_follow_the_lesions(scan: Path) -> None:
    shard, _ = run_simulate(job(scan), lambda line: None)
    data = columns(shard)
    lesion = ((data["masks"] & (LYTIC | BLASTIC)) > 0).sum(axis=(1, 2))
    for number in np.unique(data["vertebra"][data["label"] == 1]):
        shown = lesion[data["vertebra"] == number]
        assert shown.min() >= min(LEAST_LESION_PIXELS, shown.max()) > 0
    assert (lesion[data["label"] == 0] == 0).all()
    assert set(data["label"]) == {0, 1}
    assert np.bincount(data["vertebra"]).max() <= 12
    healthy = data["label"] == 0
    assert (data["image"][healthy] == data["twin"][healthy]).all()
    assert ((data["kind"] != "none") == data["label"]).all()
    assert ((data["diameter_mm"] > 0) == data["label"]).all()
    assert data["image"].dtype == np.int16


def test_whole_vertebrae_keep_every_slice_through_the_body(scan: Path) -> None:
    shard, _ = run_simulate(job(scan, splits=("validation",), whole=True), lambda line: None)
    data = columns(shard)
    assert (data["masks"] & BODY).any(axis=(1, 2)).all()
    for number in range(4):
        slices = data["slice"][data["vertebra"] == number]
        assert len(slices) > 12
        assert (np.diff(slices) == 1).all()


def test_unknown_split_is_named(scan: Path) -> None:
    with pytest.raises(InputError, match="split test, other"):
        run_simulate(job(scan, splits=("test", "other")), lambda line: None)


def test_patients_of_several_splits_are_drawn_together(scan: Path) -> None:
    splits = ("training", "validation")
    shard, _ = run_simulate(job(scan, splits=splits), lambda line: None)
    assert set(columns(shard)["patient"]) == {"case 1", "case 3"}


def test_output_folder_that_cannot_be_made_is_named(scan: Path) -> None:
    (scan / "notes.txt").write_text("a file", "utf-8")
    for name, cause in (("notes.txt", "cannot be made"), ("ct.nii.gz", "is read from")):
        with pytest.raises(InputError, match=f"{name}: {cause}"):
            run_simulate(job(scan, name), lambda line: None)


def test_source_without_a_whole_body_is_named(scan: Path) -> None:
    rows = list(csv.reader((scan / "sources.csv").open(encoding="utf-8")))
    (scan / "sources.csv").write_text(HEADER + ",".join(rows[2]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="no whole vertebra"):
        run_simulate(job(scan), lambda line: None)


def test_long_scans_lend_more_but_not_in_proportion_and_drawn_ones_count_as_one(
    tmp_path: Path,
) -> None:
    """One vertebra of "case 1", nine of "case 2", five drawn ones: shares of 1, 3 and 1."""
    canvases = [plain_vertebra("case 1")] + [plain_vertebra("case 2")] * 9
    canvases += [plain_vertebra(f"drawn {n}") for n in range(5)]
    recipe = Recipe(1, 120, slices=1, geometry=SMALL)
    data = columns(simulate(recipe, canvases, tmp_path, lambda done, total: None))
    count = {name: int((data["patient"] == name).sum()) for name in ("case 1", "case 2")}
    drawn = len(data["patient"]) - sum(count.values())
    assert 12 <= count["case 1"] <= 38 and 12 <= drawn <= 38
    assert 50 <= count["case 2"] <= 90
    for person in np.unique(data["simulated_patient"]):
        own = data["simulated_patient"] == person
        assert len(set(data["patient"][own])) == 1, "vertebrae of several people in one"


def test_outlines_close_gaps_and_leave_specks_alone(canvas: VertebraPatch) -> None:
    holes = np.zeros_like(canvas.body)
    middle = tuple(n // 2 for n in holes.shape)
    s, p, i = middle
    for dp in (-3, 0, 3):
        for di in (-3, 0, 3):
            holes[s - 2 : s + 3, p + dp - 1 : p + dp + 1, i + di - 1 : i + di + 1] = True
    speck = np.zeros_like(holes)
    speck[s, p - 15, i] = True
    assert canvas.body[speck].all()
    drawn = outlined(holes | speck, canvas.body, canvas.spacing)
    assert ndimage.label(drawn)[1] == 1 and drawn[holes].all() and not drawn[speck].any()
    # Filled between the holes, and hardly any larger.
    assert drawn[s, p - 4 : p + 4, i - 4 : i + 4].all()
    box = np.argwhere(drawn)
    assert (np.ptp(box, axis=0) + 1 <= (7, 10, 10)).all()
    assert not outlined(speck, canvas.body, canvas.spacing).any()


def test_plain_lesions_stand_out_from_quiet_and_from_coarse_marrow(canvas: VertebraPatch) -> None:
    texture = smooth_field(rng(3), canvas, 3.0)
    lesion = blob(rng(1), canvas, np.array(canvas.body.shape) / 2 * SPACING, 6.0) > 0.5
    change = np.where(lesion, np.float32(-1.3 * PLAIN_HU), np.float32(0.0))
    quiet = clutter(canvas.hu + 20 * texture, canvas.depth)
    coarse = clutter(canvas.hu + 150 * texture, canvas.depth)
    assert quiet == pytest.approx(20, rel=0.2) and coarse == pytest.approx(150, rel=0.2)
    assert plain(change, lesion, quiet)
    assert not plain(change, lesion, coarse)
    assert not plain(0.5 * change, lesion, quiet)
    assert not plain(change, np.zeros_like(lesion), quiet)


def test_most_diseased_vertebrae_show_a_plain_lesion(diseased: list[Sample]) -> None:
    contrast = [
        np.abs(s.image - s.twin)[s.lytic | s.blastic].mean()
        for s in diseased
        if s.lesion_pixels.any()
    ]
    assert len(contrast) >= 0.9 * len(diseased)
    assert np.mean(np.array(contrast) > 0.8 * PLAIN_HU) >= 0.7


def spine(count: int = 6, marrow: float = 180.0) -> list[SourceVertebra]:
    """The same vertebra as T6, T7, ... of one patient."""
    one = plain_vertebra("case 1")
    return [SourceVertebra(one.ct, one.body, "case 1", f"T{6 + n}") for n in range(count)]


def test_a_patients_marrow_varies_less_than_that_of_patients(tmp_path: Path) -> None:
    recipe = Recipe(2, 60, slices=1, geometry=SMALL, unmodified=0.0)
    data = columns(simulate(recipe, spine(), tmp_path, lambda *_: None))
    healthy = data["label"] == 0
    marrow = data["marrow_hu"][healthy]
    people = data["simulated_patient"][healthy]
    means = [marrow[people == n].mean() for n in np.unique(people)]
    within = [marrow[people == n].std() for n in np.unique(people) if (people == n).sum() > 1]
    assert np.std(means) > 1.5 * np.mean(within)


def test_patients_have_metastases_in_no_one_several_or_all_vertebrae() -> None:
    people = [draw_patient(rng(n), ["T6", "T7", "T8", "T9"], [150.0] * 4, 1.0) for n in range(120)]
    sick = [sum(body.disease is not None for body in person.bodies) for person in people]
    assert set(sick) == {0, 1, 2, 3, 4}
    assert 0.25 < np.mean(sick) / 4 < 0.55
    kinds = [[b.kind for b in p.bodies] for p in people if p.bodies[0].disease is not None]
    alike = np.mean([max(own.count(kind) for kind in own) / len(own) for own in kinds])
    assert alike > 0.85, "metastases of one patient are mostly of one kind"


def test_neighbours_share_what_a_disc_does_to_them() -> None:
    """Schmorl nodes of facing endplates come together far oftener than by chance."""
    together, alone = 0, 0
    for seed in range(300):
        above, below = draw_patient(rng(seed), ["T8", "T9"], [150.0] * 2, 1.0).bodies
        names = [
            [paint for name, paint in body.changes if name == "endplate"] for body in (above, below)
        ]
        lower = any(not paint.keywords["upper"] for paint in names[0])  # type: ignore[attr-defined]
        upper = any(paint.keywords["upper"] for paint in names[1])  # type: ignore[attr-defined]
        together, alone = together + (lower and upper), alone + (lower != upper)
    assert together > 0.5 * alone > 0


def test_thin_marrow_is_not_made_negative_and_density_falls_as_asked() -> None:
    for seed in range(60):
        person = draw_patient(rng(seed), ["T4", "T12"], [200.0, 160.0], 1.0)
        for body, own in zip(person.bodies, (200.0, 160.0)):
            assert 20 <= own + body.shift_hu < 520


def test_unmodified_vertebrae_are_as_the_scan_shows_them(tmp_path: Path) -> None:
    recipe = Recipe(1, 6, slices=None, geometry=SMALL, unmodified=1.0)
    data = columns(simulate(recipe, spine(3), tmp_path, lambda *_: None))
    assert set(data["mimics"]) == {"unmodified"} and not data["label"].any()
    assert (data["image"] == data["twin"]).all()
    inside = (data["masks"] & BODY) > 0
    ct = plain_vertebra().ct.array
    assert data["image"][inside].min() >= ct.min() and data["image"][inside].max() <= ct.max() + 1


def test_diameters_are_the_longest_across_the_axis_of_the_body() -> None:
    mask = np.zeros((20, 40, 40), bool)
    mask[5:15, 18:22, 3:37] = True  # 10 slices of 2 mm, 4 rows and 34 columns of 0.5 mm
    mask[2:4, 2:4, 2:4] = True
    long, short = sorted(diameters(mask, (2.0, 0.5, 0.5)), reverse=True)
    assert long == pytest.approx(20, abs=2) and short == pytest.approx(4, abs=2)
    assert diameters(np.zeros_like(mask), (2.0, 0.5, 0.5)) == []


def test_thick_slices_average_and_follow_their_tilt() -> None:
    hu = np.zeros((4, 40, 40), np.float32)
    hu[:, :, 20:] = 200
    spacing = (1.6, 0.5, 0.5)
    flat = acquire(hu, spacing, sliced_scan(0.0))
    steps = np.abs(np.diff(flat, axis=2)).max()
    assert steps < 40, "an edge is spread over a slice"
    assert (flat == flat[:, :1]).all()
    tilted = acquire(hu, spacing, sliced_scan(0.5))
    assert np.abs(np.diff(tilted, axis=1)).max() > 1, "steps run across tilted slices"
    np.testing.assert_allclose(acquire(hu * 0 + 90, spacing, sliced_scan(0.5)), 90, atol=1e-3)
    np.testing.assert_allclose(tilted.mean(), hu.mean(), atol=6)


def sliced_scan(tilt: float) -> Acquisition:
    return replace(plain_scan(slices_mm=5.0, tilt=tilt), blur_mm=(0.0, 0.0, 0.0))


def test_old_fractures_lower_the_front_more_than_the_back(canvas: VertebraPatch) -> None:
    pressed = mimics.wedged(canvas, 0.4, 0.1, upper=True)
    rows = np.flatnonzero(canvas.body.any(axis=(0, 2)))
    middle = canvas.body.shape[0] // 2

    def height(patch: VertebraPatch, row: int) -> int:
        return int(patch.body[middle, row].sum())

    front, back = rows[3], rows[-4]
    assert height(pressed, front) == pytest.approx(0.63 * height(canvas, front), abs=2)
    assert height(pressed, back) == pytest.approx(0.87 * height(canvas, back), abs=2)
    deep = pressed.depth > 3
    assert np.median(pressed.hu[deep]) > np.median(canvas.hu[canvas.depth > 3])


def test_schmorl_nodes_open_to_the_disc_and_have_a_rim(canvas: VertebraPatch) -> None:
    for seed in range(10):
        options = {"upper": True, "site": (0.0, 0.0), "radius_mm": 4.0, "rim_hu": 300.0}
        hu = mimics.schmorl_node(rng(seed), canvas, canvas.hu, **options)  # type: ignore[arg-type]
        s, p = (n // 2 for n in canvas.body.shape[:2])
        column = hu[s, p][canvas.body[s, p]]
        assert column[0] < 120, "open to the disc"
        assert column.max() > 240, "a dense rim at its floor"


def test_haemangiomas_have_fat_and_trabeculae(canvas: VertebraPatch) -> None:
    for seed in range(10):
        hu = mimics.haemangioma(rng(seed), canvas, canvas.hu)
        changed = canvas.body & (np.abs(hu - canvas.hu) > 30)
        assert np.percentile(hu[changed], 10) < 40 and hu[changed].max() > 250


def test_packed_vertebrae_are_the_same_near_the_body(tmp_path: Path) -> None:
    one = plain_vertebra("case 1")
    pack([one], tmp_path / "bodies.npz")
    (again,) = unpack(tmp_path / "bodies.npz")
    assert (again.patient, again.level) == (one.patient, one.level)
    assert again.body.sum() == one.body.sum()
    near, far = (take_canvas(rng(1), v, SMALL).patch for v in (one, again))
    np.testing.assert_allclose(near.hu[near.body], far.hu[near.body], atol=1.01)
    assert again.marrow_hu == pytest.approx(one.marrow_hu, abs=1)
    (tmp_path / "other.npz").write_bytes(b"no such file")
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            unpack(tmp_path / name)


def test_levels_to_leave_out_are_left_out(scan: Path) -> None:
    head = HEADER.strip() + ",leave_out,reason\n"
    row = "ct.nii.gz,bodies.nii.gz,totalsegmentator,case 1,training,T10 L1,not sure"
    (scan / "sources.csv").write_text(head + row + "\n", encoding="utf-8")
    (source,) = read_sources(scan / "sources.csv", scan)
    assert source.leave_out == ("T10", "L1")
    assert load_vertebrae(source) == []


def test_several_workers_write_the_same_shards_as_one(scan: Path) -> None:
    """Also where the first run was stopped on its way."""
    shards, asked_so_far = [], 0

    def after_four() -> bool:
        nonlocal asked_so_far
        asked_so_far += 1
        return asked_so_far > 3

    for out, workers in (("one", 1), ("two", 2)):
        asked = job(scan, out, vertebrae=6, workers=workers, unmodified=0.3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commands, "IN_PART", 2)
            patch.setattr(commands, "MOST_IN_SHARD", 2)
            if workers == 1:
                with pytest.raises(KeyboardInterrupt):
                    run_simulate(asked, lambda line: None, after_four)
                assert len(list((scan / out).glob("*.npz"))) == 1
            said: list[str] = []
            *made, _ = run_simulate(asked, said.append)
        assert ("1 of 3 shards are there already" in said) == (workers == 1)
        shards.append([path.read_bytes() for path in made])
    assert len(shards[0]) == 3 and shards[0] == shards[1]


def test_shards_of_another_recipe_stand_in_the_way(scan: Path) -> None:
    shard, _ = run_simulate(job(scan, vertebrae=1), lambda line: None)
    path = shard.with_suffix(".json")
    recipe = json.loads(path.read_text("utf-8"))
    del recipe["geometry"]["least_share"]  # as earlier versions wrote it
    path.write_text(json.dumps(recipe), "utf-8")
    said: list[str] = []
    run_simulate(job(scan, vertebrae=1), said.append)
    assert "1 of 1 shards are there already" in said
    with pytest.raises(InputError, match="contains another recipe"):
        run_simulate(job(scan, vertebrae=2), lambda line: None)


@pytest.mark.parametrize("spacing", [(1.2, 1.2, 1.2), (1.0, 1.0, 2.6)])
def test_a_shard_tells_thickness_layers_and_noise_of_its_scans(
    spacing: tuple[float, float, float], tmp_path: Path
) -> None:
    grid = grid_around(spacing)
    vertebra = SourceVertebra(cylinder_ct(grid), cylinder(grid), "A", "L1")
    path = simulate(Recipe(5, 24, None, SMALL), [vertebra], tmp_path, lambda *_: None)
    with np.load(path) as file:
        columns = dict(file)
    drawn = {round(mm, 4) for mm in columns["slice_mm"].tolist()}
    assert drawn <= {spacing[2], 3.0, 4.0, 5.0} and len(drawn) > 2
    height = (np.flatnonzero(vertebra.body.any(axis=(1, 2)))[[0, -1]] @ [-1, 1] + 1) * spacing[2]
    np.testing.assert_allclose(columns["layers"], height / columns["slice_mm"], atol=0.51)
    body = (columns["masks"] & BODY) > 0
    for number in range(24):
        own = columns["vertebra"] == number
        image = columns["image"][own].astype(np.float32)
        measured = noise_of(image, body[own], columns["spacing"][own][0])
        assert columns["noise_hu"][own] == pytest.approx(measured, abs=1.0)
    thick = draw_sample(np.random.default_rng(1), vertebra, SMALL, diseased=False)
    assert thick.slices_mm in (0.0, 3.0, 4.0, 5.0)


def test_a_seed_gives_the_same_set_by_any_number_of_workers(scan: Path) -> None:
    made = [
        run_simulate(job(scan, out, vertebrae=2, workers=workers), lambda line: None)[:-1]
        for out, workers in (("by one", 1), ("by two", 2))
    ]
    assert [[path.name for path in paths] for paths in made] == [["shard-00005.npz"]] * 2
    assert made[0][0].read_bytes() == made[1][0].read_bytes()


def test_shards_of_the_same_seed_that_a_recipe_does_not_make_stand_in_its_way(scan: Path) -> None:
    """Both would be trained on as one set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "IN_PART", 1)
        patch.setattr(commands, "MOST_IN_SHARD", 1)
        run_simulate(job(scan, vertebrae=3), lambda line: None)
        with pytest.raises(InputError, match=r"shard-00005-002\.npz, which is of another recipe"):
            run_simulate(job(scan, vertebrae=2), lambda line: None)
        with pytest.raises(InputError, match=r"shard-00005-000\.npz, which is of another recipe"):
            run_simulate(job(scan, vertebrae=1), lambda line: None)
        run_simulate(replace(job(scan, vertebrae=1), seed=6), lambda line: None)
    assert len(list((scan / "out").glob("*.npz"))) == 4


def test_simulation_needs_no_simpleitk(tmp_path: Path) -> None:
    """Machines that train may have none: what is packed is simulated without."""
    pack([plain_vertebra("case 1")], tmp_path / "bodies.npz")
    table = HEADER + "a,b,totalsegmentator,case 1,training\n"
    (tmp_path / "sources.csv").write_text(table, encoding="utf-8")
    script = "import sys; sys.modules['SimpleITK'] = None; from hideseekseg.cli.main import main; "
    script += "sys.exit(main(sys.argv[1:]))"
    asked = [tmp_path / "sources.csv", "--data", tmp_path / "bodies.npz", "--out", tmp_path / "out"]
    run = subprocess.run(
        [sys.executable, "-c", script, "simulate", *map(str, asked), "--vertebrae", "2"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "shard-00001.npz").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to one process alone is of POSIX")
def test_ctrl_c_ends_all_workers_and_leaves_whole_shards(tmp_path: Path) -> None:
    pack(spine(2), tmp_path / "bodies.npz")
    table = HEADER + "a,b,totalsegmentator,case 1,training\n"
    (tmp_path / "sources.csv").write_text(table, encoding="utf-8")
    out = tmp_path / "out"
    words = ["simulate", tmp_path / "sources.csv", "--data", tmp_path / "bodies.npz", "--out", out]
    words += ["--vertebrae", "9000", "--workers", "2"]
    running = subprocess.Popen(
        [sys.executable, "-m", "hideseekseg", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not out.exists() and running.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)  # the workers draw by now
    assert running.poll() is None
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert time.monotonic() - began < 10, "within two seconds, but for a machine under load"
    assert running.returncode == 130
    assert "Traceback" not in err
    assert not list(out.glob(".*")), "nothing half written stays"


def test_what_goes_wrong_in_a_worker_is_one_clear_line(scan: Path) -> None:
    (scan / "out").mkdir()
    (scan / "out" / "shard-00005-001.npz").mkdir()  # stands where a shard is to be written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "IN_PART", 2)
        patch.setattr(commands, "MOST_IN_SHARD", 2)
        with pytest.raises(InputError, match=r"shard-00005-001\.npz: cannot be written"):
            run_simulate(job(scan, vertebrae=4, workers=2), lambda line: None)
