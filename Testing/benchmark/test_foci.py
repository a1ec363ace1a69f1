"""Round foci of known density and diameter: how they are painted, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hideseekseg.benchmark.foci import (
    DENSITIES_HU,
    DIAMETERS_MM,
    Beside,
    Focus,
    SeenFocus,
    all_foci,
    look_at,
    painted,
    report,
    to_markdown,
)
from hideseekseg.errors import InputError
from hideseekseg.imaging.volume import Grid, Patch, Volume
from hideseekseg.model.weights import BUNDLE, Model, load_model
from hideseekseg.simulation.example import write_volume
from hideseekseg.simulation.phantom.spine import example_spine
from hideseekseg.simulation.source_vertebrae import Source

SPACING = (0.8, 1.0, 2.0)  # i j k


def marrow() -> tuple[Volume, Patch]:
    """Noisy marrow of 170 HU in a block of 29 x 24 x 20 mm, within soft tissue."""
    body = np.zeros((14, 30, 44), bool)
    body[2:12, 3:27, 4:40] = True
    noise = np.random.default_rng(1).normal(0, 25, body.shape)
    array = np.round(np.where(body, 170.0, 40.0) + noise).astype(np.int16)
    ct = Volume(array, Grid(body.shape, np.diag([*SPACING, 1.0])))
    box = Patch(body[2:12, 3:27, 4:40], (2, 3, 4))
    return ct, box


@pytest.mark.parametrize("diameter", (10.0, 18.0))
def test_focus_has_its_density_and_its_diameter(diameter: float) -> None:
    ct, body = marrow()
    changed, truth = painted(ct, body, Focus("blastic", 700.0, diameter))
    volume = truth.array.sum() * float(np.prod(SPACING))
    assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=0.15)
    inside = changed.array[truth.box][truth.array].astype(float)
    assert np.quantile(inside, 0.6) == pytest.approx(700, abs=25)
    assert 10 < np.std(inside[inside > 640]) < 25, "the bone's texture is left, weaker"
    around = np.ones(ct.array.shape, bool)
    around[body.box] = False
    assert (changed.array == ct.array)[around].all()
    assert changed.array.dtype == ct.array.dtype
    assert ct.array.max() < 400, "the scan itself stays as it was"


def test_focus_ends_at_the_outline_of_its_body() -> None:
    ct, body = marrow()
    changed, truth = painted(ct, body, Focus("lytic", 0.0, 60.0))
    assert truth.array.all(), "larger than the body: all of it"
    outside = np.ones(ct.array.shape, bool)
    outside[body.box] = False
    assert (changed.array == ct.array)[outside].all()
    assert changed.array[body.box].mean() == pytest.approx(0, abs=5)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(BUNDLE)


def test_what_is_dense_is_found_and_fat_is_not(model: Model, tmp_path: Path) -> None:
    drawn = example_spine()
    write_volume(tmp_path / "ct.nii.gz", drawn.ct)
    write_volume(tmp_path / "vertebrae.nii.gz", drawn.vertebrae)
    files = tmp_path / "ct.nii.gz", tmp_path / "vertebrae.nii.gz"
    source = Source(*files, "totalsegmentator", "Drawn", "test", leave_out=("T10",))
    dense, fat = Focus("blastic", 700.0, 18.0), Focus("lytic", -50.0, 10.0)
    told: list[str] = []
    rows = list(look_at(source, model, [dense, fat], told.append))
    seen = [row for row in rows if isinstance(row, SeenFocus)]
    beside = [row for row in rows if isinstance(row, Beside)]
    assert [(row.level, row.focus) for row in seen] == [("T12", dense), ("T12", fat)]
    assert [row.found for row in seen] == [True, False]
    p_dense, p_fat = (row.p for row in seen)
    assert p_dense is not None and p_fat is not None and p_dense > 0.8 > 0.5 > p_fat
    assert [(row.vertebrae, row.false) for row in beside] == [(3, 0), (3, 0)]
    assert told == ["Drawn: 1 of 2 runs", "Drawn: 2 of 2 runs"]
    table = to_markdown(seen, beside, model).splitlines()
    row = next(line for line in table if line.startswith("| blastic | 700 "))
    assert [cell.strip() for cell in row.split("|")[3:6]] == [
        "-",
        f"1 of 1 (21 to 100), P {p_dense:.2f}",
        "-",
    ]
    assert (
        "Accepted findings beside them: 0 in 6 looks at 3 other vertebrae, one for each focus."
        in table
    )


def test_a_folder_that_cannot_be_made_is_told_before_the_first_run(tmp_path: Path) -> None:
    drawn = example_spine()
    write_volume(tmp_path / "ct.nii.gz", drawn.ct)
    write_volume(tmp_path / "vertebrae.nii.gz", drawn.vertebrae)
    row = "Drawn,test,ct.nii.gz,vertebrae.nii.gz,totalsegmentator"
    sources = tmp_path / "sources.csv"
    sources.write_text(f"patient,split,ct,segmentation,labels\n{row}\n", "utf-8")
    (tmp_path / "file").write_text("no folder")
    told: list[str] = []
    with pytest.raises(InputError, match="cannot be made"):
        report(sources, tmp_path, ("test",), BUNDLE, tmp_path / "file" / "out", told.append)
    assert told == [], "no run was made"


def test_every_density_is_tried_with_every_diameter() -> None:
    foci = all_foci()
    assert len(set(foci)) == len(foci) == len(DIAMETERS_MM) * sum(map(len, DENSITIES_HU.values()))
