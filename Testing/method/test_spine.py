"""Vertebrae are made ready in one way: for a run, for training, for simulation and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch

from helpers.benchmark import SMALL
from helpers.bent_spine import VALUES, BentSpine, bent_spine
from helpers.models import CPU, filled
from hideseekseg.benchmark.cases import real_subjects
from hideseekseg.errors import InputError, NotCTError, UserError
from hideseekseg.findings import Evidence
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Grid, Volume, to_sitk
from hideseekseg.inputs import Options, check_inputs
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.weights import Model
from hideseekseg.pipeline import segment_spine
from hideseekseg.simulation import commands
from hideseekseg.simulation.commands import Simulation, run_pack, run_simulate
from hideseekseg.simulation.simulate import COMPACT_GEOMETRY
from hideseekseg.simulation.source_vertebrae import (
    Source,
    SourceVertebra,
    load_vertebrae,
    unpack,
)
from hideseekseg.training.manifest import ManifestRow
from hideseekseg.training.prepare import PreparedRow, cut_out
from hideseekseg.training.train import COMPACT

Floats = npt.NDArray[np.float64]
LEVELS = tuple(VALUES)
BY_VALUE = "totalsegmentator"


@pytest.fixture(scope="module")
def model() -> Model:
    """Untrained networks that see the crops of the compact geometry."""
    profile = replace(SMALL, geometry=COMPACT_GEOMETRY)
    network = filled(profile.architecture)
    latent = profile.architecture.latent
    classifier = LinearClassifier(
        torch.ones(latent), -1e3, torch.zeros(latent).double(), torch.ones(latent).double()
    )
    return Model(network, classifier, profile, CPU, "0" * 64)


@pytest.fixture(scope="module", params=[(65.0, 0.0), (0.0, 55.0)], ids=["forward", "sideways"])
def bent(request: pytest.FixtureRequest) -> BentSpine:
    return bent_spine(*request.param)


def segmented(ct: Path, mask: Path, model: Model, levels: tuple[str, ...] = ()) -> dict[str, Grid]:
    """Return where the crops lie that ``segment`` takes."""
    seen = evidence(ct, mask, model, levels)
    return {level: one.grid for level, one in seen.items()}


def evidence(
    ct: Path, mask: Path, model: Model, levels: tuple[str, ...] = ()
) -> dict[str, Evidence]:
    options = Options(BY_VALUE, levels=levels)
    inputs = check_inputs(read_ct(ct), read_segmentation(mask), options)
    return dict(segment_spine(inputs, model).evidence)


def rows(ct: Path, mask: Path, levels: tuple[str, ...] = LEVELS) -> list[ManifestRow]:
    return [
        ManifestRow(line, ct, mask, False, "A", level, BY_VALUE)
        for line, level in enumerate(levels, start=2)
    ]


def single_masks(bent: BentSpine, folder: Path, named: bool) -> list[ManifestRow]:
    """Write a mask of each vertebra, the lowest first; return their rows, perhaps with levels."""
    found = []
    for line, (level, value) in enumerate(reversed(VALUES.items()), start=2):
        mask = folder / f"{value}.nii.gz"
        own = Volume((bent.bodies.array == value).astype(np.uint8), bent.bodies.grid)
        sitk.WriteImage(to_sitk(own), str(mask))
        found.append(
            ManifestRow(line, folder / "ct.nii.gz", mask, False, "A", level if named else "")
        )
    return found


def source(ct: Path, mask: Path) -> Source:
    return Source(ct, mask, BY_VALUE, "A", "training")


def same_place(one: Grid, other: Grid) -> bool:
    return one.shape == other.shape and np.allclose(one.ijk_to_lps, other.ijk_to_lps, atol=1e-6)


# ---- a bent spine


def test_bent_vertebrae_are_upright_for_training_and_simulation_as_for_a_run(
    bent: BentSpine, model: Model, tmp_path: Path
) -> None:
    ct, mask = bent.write(tmp_path)
    expected = segmented(ct, mask, model)
    assert tuple(expected) == LEVELS
    for grid in expected.values():
        assert -grid.direction[:, 0] @ bent.axes[:, 2] > np.cos(np.radians(6))
    for outcome in cut_out(rows(ct, mask), COMPACT_GEOMETRY):
        assert outcome.crop is not None and outcome.obstacle == ""
        assert same_place(outcome.crop.grid, expected[outcome.row.level])
    lent = load_vertebrae(source(ct, mask))
    assert tuple(one.level for one in lent) == LEVELS
    for one in lent:
        assert same_place(one.crop_grid(COMPACT_GEOMETRY), expected[one.level])


@pytest.mark.parametrize("named", [True, False])
def test_masks_of_one_vertebra_each_are_one_spine(
    bent: BentSpine, model: Model, tmp_path: Path, named: bool
) -> None:
    """Without levels, too: how a vertebra lies is told by its neighbours' places."""
    ct, mask = bent.write(tmp_path)
    expected = segmented(ct, mask, model)
    alone = cut_out(single_masks(bent, tmp_path, named), COMPACT_GEOMETRY)
    for level, outcome in zip(reversed(LEVELS), alone, strict=True):
        assert outcome.crop is not None and outcome.obstacle == ""
        assert same_place(outcome.crop.grid, expected[level])


def test_masks_on_grids_of_their_own_are_one_spine(
    bent: BentSpine, model: Model, tmp_path: Path
) -> None:
    """Each cut to its own surroundings, as some programs write them."""
    ct, mask = bent.write(tmp_path)
    expected = segmented(ct, mask, model)
    alone = single_masks(bent, tmp_path, named=False)
    for row in alone:
        image = sitk.ReadImage(str(row.mask))
        box = np.argwhere(sitk.GetArrayFromImage(image))
        low, high = box.min(axis=0)[::-1] - 3, box.max(axis=0)[::-1] + 4
        sitk.WriteImage(
            image[tuple(slice(int(a), int(b)) for a, b in zip(low, high))], str(row.mask)
        )
    for level, outcome in zip(reversed(LEVELS), cut_out(alone, COMPACT_GEOMETRY), strict=True):
        assert outcome.crop is not None and outcome.obstacle == ""
        assert same_place(outcome.crop.grid, expected[level])
    image = sitk.ReadImage(str(alone[1].mask))
    narrow = image[:, :, 8 : image.GetSize()[2]]
    sitk.WriteImage(narrow, str(alone[1].mask))
    again = cut_out(alone, COMPACT_GEOMETRY)
    assert [one.obstacle for one in again] == ["", "body cut by the field of view", "", ""]


def test_packed_vertebrae_are_observed_as_they_are_segmented(
    bent: BentSpine, model: Model, tmp_path: Path
) -> None:
    ct, mask = bent.write(tmp_path)
    expected = evidence(ct, mask, model)
    sources = write_sources(tmp_path)
    packed = run_pack(sources, tmp_path, tmp_path / "bodies.npz", lambda line: None)
    for vertebra, subject in zip(unpack(packed), real_subjects(unpack(packed), model.profile)):
        own = expected[vertebra.level]
        assert same_place(vertebra.crop_grid(COMPACT_GEOMETRY), own.grid)
        slices = np.flatnonzero(own.body.any(axis=(1, 2)))
        np.testing.assert_array_equal(subject.case.body, own.body[slices])
        inside = subject.case.body
        np.testing.assert_allclose(subject.hu[inside], own.image[slices][inside], atol=1.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scan", "levels"),
    [("lungfcp01", ("T1", "T2")), ("dlwpt", ("T5", "T10")), ("acrinflt001a", ("T5",))],
)
def test_real_bent_vertebrae_are_cut_as_they_are_segmented(
    shared: Path, model: Model, scan: str, levels: tuple[str, ...]
) -> None:
    """They were turned by 94, 57 and 13 degrees."""
    folder = shared / "data" / scan
    ct, mask = folder / "ct.nii.gz", folder / "vertebral_bodies.nii.gz"
    expected = segmented(ct, mask, model, levels)
    lent = {one.level: one for one in load_vertebrae(source(ct, mask))}
    for outcome in cut_out(rows(ct, mask, levels), COMPACT_GEOMETRY):
        level = outcome.row.level
        assert outcome.crop is not None
        assert same_place(outcome.crop.grid, expected[level])
        assert same_place(lent[level].crop_grid(COMPACT_GEOMETRY), expected[level])


# ---- the scale of intensities


def write_sources(folder: Path) -> Path:
    path = folder / "sources.csv"
    head = "ct,segmentation,labels,patient,split\n"
    path.write_text(f"{head}ct.nii.gz,bodies.nii.gz,{BY_VALUE},A,training\n", encoding="utf-8")
    return path


def loaded(bent: BentSpine, folder: Path, ct: npt.NDArray[np.generic]) -> list[SourceVertebra]:
    return load_vertebrae(source(*bent.write(folder, ct)))


@pytest.mark.parametrize(
    ("change", "slack"),
    [
        (lambda hu: hu + 1024, 0.12),
        (lambda hu: (hu + 1000) / 8, 0.12),
        (lambda hu: np.clip(hu, -1000, None) * 4 + 20000, 0.12),
    ],
    ids=["+1024", "grey values", "another slope"],
)
def test_a_ct_that_is_not_in_hu_is_lent_in_hu(
    tmp_path: Path, change: Callable[[Floats], Floats], slack: float
) -> None:
    """Else lesions are painted into marrow of 1180 HU, and it is observed as healthy bone."""
    bent = bent_spine(10.0)
    usual = loaded(bent, tmp_path, bent.ct.array)
    told: list[str] = []
    files = bent.write(tmp_path, change(bent.ct.array.astype(np.float32)).astype(np.float32))
    found = load_vertebrae(source(*files), told.append)
    assert [one.level for one in found] == list(LEVELS)
    for one, expected in zip(found, usual):
        assert one.marrow_hu == pytest.approx(expected.marrow_hu, abs=slack * 550)
        assert abs(one.ct.array - expected.ct.array).max() < slack * 1600
    assert sum("intensities are not HU" in line for line in told) == len(LEVELS)
    crops = {row.row.level: row for row in cut_out(rows(*files), COMPACT_GEOMETRY)}
    (subject, *_) = real_subjects(found, COMPACT)
    crop = crops[found[0].level].crop
    assert crop is not None
    np.testing.assert_allclose(subject.hu, crop.image[crop.analysed], atol=1e-2)


def test_what_is_no_ct_is_not_simulated_on(tmp_path: Path) -> None:
    bent = bent_spine(10.0)
    inverted = np.where(bent.bodies.array > 0, 900 - bent.ct.array, bent.ct.array + 1500)
    bent.write(tmp_path, inverted.astype(np.int16))
    with pytest.raises(NotCTError, match=r"ct\.nii\.gz: bone is not brighter"):
        run_pack(write_sources(tmp_path), tmp_path, tmp_path / "b.npz", lambda line: None)
    assert not (tmp_path / "b.npz").exists()


def simulation(folder: Path, data: Path, vertebrae: int = 2) -> Simulation:
    return Simulation(
        write_sources(folder), data, ("training",), folder / "out", vertebrae, 5, True, 0
    )


def test_vertebrae_that_cannot_be_analysed_are_named_and_not_lent(tmp_path: Path) -> None:
    bent = bent_spine(10.0)
    said: list[str] = []
    hu = bent.ct.array.copy()
    hu[bent.bodies.array == VALUES["T2"]] = 3071
    values = hu.astype(np.float32)
    values[bent.bodies.array == VALUES["T4"]] = np.nan
    bent.write(tmp_path, values)
    shard, *_ = run_simulate(simulation(tmp_path, tmp_path), said.append)
    assert "A T2: left out: metal in 100% of the body" in said
    assert "A T4: left out: values that are not finite (NaN) in its body" in said
    assert "A: 2 vertebrae" in said
    with np.load(shard, allow_pickle=False) as data:
        assert set(data["level"]) <= {"T1", "T3"}


def test_a_set_is_not_gone_on_with_when_its_vertebrae_changed(tmp_path: Path) -> None:
    bent = bent_spine(10.0)
    bent.write(tmp_path)
    asked = simulation(tmp_path, tmp_path)
    run_simulate(asked, lambda line: None)
    said: list[str] = []
    run_simulate(asked, said.append)
    assert "1 of 1 shards are there already" in said
    hu = bent.ct.array.copy()
    hu[bent.bodies.array == VALUES["T2"]] = 3071
    bent.write(tmp_path, hu)
    with pytest.raises(InputError, match=r"shard-00005\.json: contains another recipe"):
        run_simulate(asked, lambda line: None)


def test_vertebrae_packed_by_an_earlier_version_are_refused(tmp_path: Path) -> None:
    """They say nothing of their axes in a bent spine, and nobody looked at their scale."""
    bent_spine(10.0).write(tmp_path)
    packed = run_pack(write_sources(tmp_path), tmp_path, tmp_path / "b.npz", lambda line: None)
    assert len(unpack(packed)) == len(LEVELS)
    with np.load(packed, allow_pickle=False) as data:
        kept = {name: data[name] for name in data.files}
    axes = {name for name in kept if name.startswith("axes")} | {"turn known", "preparation"}
    np.savez_compressed(packed, **{name: kept[name] for name in kept.keys() - axes})
    with pytest.raises(InputError, match=r"b\.npz: was packed by .*`hideseekseg pack`") as raised:
        unpack(packed)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="hideseekseg pack"):
        commands.run_simulate(simulation(tmp_path, packed), lambda line: None)


# ---- masks beside the bone


def moved(bent: BentSpine, mm: tuple[float, float, float], folder: Path) -> tuple[Path, Path]:
    ct, mask = bent.write(folder)
    matrix = bent.bodies.grid.ijk_to_lps.copy()
    matrix[:3, 3] += mm
    there = Volume(bent.bodies.array, Grid(bent.bodies.grid.shape, matrix))
    image = sitk.Resample(
        to_sitk(there), to_sitk(bent.bodies), sitk.Transform(), sitk.sitkNearestNeighbor
    )
    sitk.WriteImage(image, str(mask))
    return ct, mask


@pytest.mark.parametrize(
    ("mm", "words"),
    [
        ((0.0, 9.0, 0.0), "mm behind the bone"),
        ((9.0, 0.0, 0.0), "mm to the patient's left of the bone"),
        ((0.0, 0.0, -9.0), "mm below the bone"),
    ],
)
def test_masks_beside_the_bone_are_refused_everywhere(
    mm: tuple[float, float, float], words: str, tmp_path: Path
) -> None:
    bent = bent_spine(10.0)
    ct, mask = moved(bent, mm, tmp_path)
    with pytest.raises(UserError, match=words):
        check_inputs(read_ct(ct), read_segmentation(mask), Options(BY_VALUE))
    outcomes = cut_out(rows(ct, mask), COMPACT_GEOMETRY)
    assert all(refused(outcome, words) for outcome in outcomes)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
    slipped = replace(bent, bodies=Volume(array, bent.bodies.grid))
    for named in (True, False):
        alone = cut_out(single_masks(slipped, tmp_path, named), COMPACT_GEOMETRY)
        assert all(refused(outcome, words) for outcome in alone)
    with pytest.raises(UserError, match=words) as raised:
        load_vertebrae(source(ct, mask))
    assert "--accept-orientation" not in str(raised.value), "there is no such option"


def refused(outcome: PreparedRow, words: str) -> bool:
    said = outcome.obstacle
    return said.startswith("mask: does not fit the CT") and words in said and "--" not in said


def test_few_masks_beside_the_bone_are_a_note(tmp_path: Path) -> None:
    """Two vertebrae may both be destroyed: nothing is refused, as in a run."""
    bent = bent_spine(10.0)
    labels = np.where(bent.bodies.array <= VALUES["T3"], 0, bent.bodies.array)
    few = replace(bent, bodies=replace(bent.bodies, array=labels))
    ct, mask = moved(few, (0.0, 9.0, 0.0), tmp_path)
    for outcome in cut_out(rows(ct, mask, ("T1", "T2")), COMPACT_GEOMETRY):
        assert outcome.crop is not None
        assert any("mm behind the bone" in note for note in outcome.notes)


@pytest.mark.slow
def test_real_masks_beside_the_bone_are_refused(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "r01_001"
    image = sitk.ReadImage(str(folder / "vertebral_bodies.nii.gz"))
    x, y, z = image.GetOrigin()
    image.SetOrigin((x, y + 8.0, z))
    mask = tmp_path / "mask.nii.gz"
    sitk.WriteImage(image, str(mask))
    outcomes = cut_out(rows(folder / "ct.nii.gz", mask, ("T2", "T3")), COMPACT_GEOMETRY)
    assert all(refused(outcome, "mm behind the bone") for outcome in outcomes)


def test_labels_that_cannot_be_one_vertebra_are_refused(tmp_path: Path) -> None:
    """As in a run: what is said of a label is an obstacle or a note of its row."""
    bent = bent_spine(10.0)
    labels = bent.bodies.array.copy()
    labels[labels == VALUES["T3"]] = VALUES["T2"]
    two = replace(bent, bodies=replace(bent.bodies, array=labels))
    ct, mask = two.write(tmp_path)
    first, second = cut_out(rows(ct, mask, ("T1", "T2")), COMPACT_GEOMETRY)
    assert first.crop is not None and "more than one vertebra" in second.obstacle
    told: list[str] = []
    assert [one.level for one in load_vertebrae(source(ct, mask), told.append)] == ["T1", "T4"]
    assert any(line.startswith("A T2: left out: its label") for line in told)
