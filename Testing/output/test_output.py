"""What a run leaves behind: segmentation, tables and pictures, as their readers find them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from PIL import Image

from helpers.findings import (
    RUN,
    Floats,
    ball,
    body_centre,
    make_candidate,
    make_ct,
    make_evidence,
    make_grid,
    make_result,
)
from hideseekseg.anatomy.labelling import LEVELS, SNOMED
from hideseekseg.errors import InputError
from hideseekseg.findings import (
    STOPPED,
    Candidate,
    Evidence,
    LesionType,
    Result,
    Status,
    VertebraFinding,
)
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Grid, Patch, Volume, move_patch
from hideseekseg.output.figures.drawing import (
    BONE_WINDOW,
    DPI,
    Outline,
    Tile,
    busiest_slice,
    window,
)
from hideseekseg.output.figures.overview import overview, show_crops, spine_view
from hideseekseg.output.seg_nrrd import write_segmentation
from hideseekseg.output.segment_description import TYPE_COLOURS, labels, terminology_entry
from hideseekseg.output.tables import (
    format_table,
    result_from_json,
    summary,
    to_json,
    write_csv,
    write_json,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
SCHEMA = REPOSITORY / "Resources" / "Docs" / "candidates-schema.md"

GRID = make_grid((75, 60, 50), (1.2, 1.1, 2.0))

AXIS_ORDERS = [
    np.eye(3)[:, list(order)] * np.array(signs)
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


@pytest.fixture
def result() -> Result:
    return make_result(GRID)


def one_vertebra(candidates: list[Candidate], level: str = "T10") -> Result:
    status = Status.FINDINGS if candidates else Status.NO_FINDING
    vertebra = VertebraFinding(level, status, p_malignant=0.9, candidates=tuple(candidates))
    return Result((vertebra,), 0.5, dict(RUN))


# --- lesions.seg.nrrd -----------------------------------------------------------------------------


@st.composite
def lesions_on_a_grid(draw: st.DrawFn) -> tuple[Grid, Result]:
    """Random boxes, many of them overlapping, on a grid of any axis order, flip and tilt."""
    tilt = draw(st.floats(-0.6, 0.6))
    turn = np.array(
        [[np.cos(tilt), -np.sin(tilt), 0.0], [np.sin(tilt), np.cos(tilt), 0.0], [0.0, 0.0, 1.0]]
    )
    spacing = draw(st.tuples(*[st.floats(0.3, 4.0)] * 3))
    grid = make_grid((9, 8, 7), spacing, turn @ draw(st.sampled_from(AXIS_ORDERS)))
    candidates = []
    for n in range(draw(st.integers(1, 6))):
        start = tuple(draw(st.integers(0, size - 1)) for size in grid.shape)
        shape = tuple(draw(st.integers(1, size - s)) for s, size in zip(start, grid.shape))
        array = np.random.default_rng(n).random(shape) < 0.7
        array.flat[0] = True
        patch = Patch(array, start)  # type: ignore[arg-type]
        kind: LesionType = "lytic" if draw(st.booleans()) else "blastic"
        candidates.append(make_candidate(f"c{n}", kind, 0.6 + n / 100, patch, grid))
    return grid, one_vertebra(candidates)


@given(lesions_on_a_grid())
@settings(max_examples=40, deadline=None)
def test_every_lesion_is_read_back_whole_and_in_place(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[Grid, Result]
) -> None:
    grid, result = case
    path = tmp_path_factory.mktemp("seg") / "lesions.seg.nrrd"
    write_segmentation(path, grid, result)
    back = read_segmentation(path)
    assert back.grid.matches(grid, 1e-6)
    assert len(back.segments) == len(result.vertebrae[0].candidates)
    for segment, candidate in zip(back.segments, result.vertebrae[0].candidates):
        expected = np.zeros(grid.shape, bool)
        assert candidate.patch is not None
        candidate.patch.paint(expected)
        assert segment.id == candidate.id
        np.testing.assert_array_equal(back.mask(segment), expected)


def test_lesions_share_a_layer_unless_they_overlap(tmp_path: Path, result: Result) -> None:
    write_segmentation(tmp_path / "l.seg.nrrd", GRID, result)
    back = read_segmentation(tmp_path / "l.seg.nrrd")
    layers = {segment.name: segment.layer for segment in back.segments}
    assert layers == {"T10 blastic 1": 0, "T10 lytic 1": 1, "L1 lytic 1": 0}
    assert (tmp_path / "l.seg.nrrd").stat().st_size < 10_000


def test_segments_of_a_layer_have_one_extent_around_all(tmp_path: Path, result: Result) -> None:
    """Older versions of Slicer cut a layer to the extent of its first segment."""
    write_segmentation(tmp_path / "l.seg.nrrd", GRID, result)
    image = sitk.ReadImage(str(tmp_path / "l.seg.nrrd"))
    extents = [image.GetMetaData(f"Segment{n}_Extent") for n in (0, 1, 2)]
    assert extents[0] == extents[2] != extents[1]
    low_i, high_i, low_j, high_j, low_k, high_k = (int(v) for v in extents[0].split())
    layer = sitk.GetArrayFromImage(image)[..., 0]
    found = np.argwhere(layer)
    assert found.min(axis=0).tolist() == [low_k, low_j, low_i]
    assert found.max(axis=0).tolist() == [high_k, high_j, high_i]


def test_more_lesions_than_a_byte_counts(tmp_path: Path) -> None:
    patches = [Patch(np.ones((1, 1, 1), bool), (n // 50, n % 50, 3)) for n in range(300)]
    candidates = [make_candidate(f"c{n}", "lytic", 0.9, p, GRID) for n, p in enumerate(patches)]
    write_segmentation(tmp_path / "l.seg.nrrd", GRID, one_vertebra(candidates))
    back = read_segmentation(tmp_path / "l.seg.nrrd")
    assert len(back.segments) == 300
    for segment, patch in zip(back.segments, patches):
        assert np.argwhere(back.mask(segment)).tolist() == [list(patch.start)]


def test_no_lesion_gives_an_empty_label_map_on_the_ct_grid(tmp_path: Path, result: Result) -> None:
    write_segmentation(tmp_path / "l.seg.nrrd", GRID, result.with_threshold(0.95))
    image = sitk.ReadImage(str(tmp_path / "l.seg.nrrd"))
    assert image.GetSize() == GRID.shape[::-1]
    assert not sitk.GetArrayFromImage(image).any()
    assert not [key for key in image.GetMetaDataKeys() if key.startswith("Segment0")]


def test_same_findings_same_bytes(tmp_path: Path, result: Result) -> None:
    write_segmentation(tmp_path / "a.seg.nrrd", GRID, result)
    write_segmentation(tmp_path / "b.seg.nrrd", GRID, make_result(GRID))
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


def test_a_result_without_voxels_is_refused_and_leaves_no_file(
    tmp_path: Path, result: Result
) -> None:
    from_json = result_from_json(to_json(result))
    with pytest.raises(ValueError, match="T10-1: has no voxels"):
        write_segmentation(tmp_path / "l.seg.nrrd", GRID, from_json)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("level", ["C1", "T13", "L6", "S1", "T7"])
def test_terminology_has_the_vertebra_or_says_vertebra(level: str) -> None:
    parts = terminology_entry(level).split("~")
    assert len(parts) == 7
    scheme, code, meaning = parts[5].split("^")
    assert scheme == "SCT"
    if level in ("T13", "L6"):
        assert (code, meaning) == ("51282000", "Vertebra")
    else:
        assert (code, meaning) == (SNOMED[level], f"{level} vertebra")


def test_names_and_colours_follow_rank_and_survive_the_threshold(result: Result) -> None:
    t10 = result.vertebrae[0]
    names = {key: label.name for key, label in labels(t10).items()}
    assert names == {"T10-1": "T10 blastic 1", "T10-2": "T10 lytic 1", "T10-3": "T10 lytic 2"}
    assert labels(t10.judged(0.95)) == labels(t10)
    colours = {key: label.colour for key, label in labels(t10).items()}
    assert colours["T10-2"] == TYPE_COLOURS["lytic"] != colours["T10-3"]


# --- candidates.json and candidates.csv -----------------------------------------------------------


def documented(section: str) -> list[str]:
    """Keys in the table of a section of the schema's description."""
    text = SCHEMA.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_json_has_exactly_the_documented_keys(tmp_path: Path, result: Result) -> None:
    write_json(tmp_path / "c.json", result)
    data = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert sorted(data) == sorted(documented("Top level"))
    for vertebra in data["vertebrae"]:
        assert sorted(vertebra) == sorted(documented("A vertebra"))
        for candidate in vertebra["candidates"]:
            assert sorted(candidate) == sorted(documented("A candidate"))


def test_findings_of_schema_1_0_are_still_read(result: Result) -> None:
    data = to_json(result)
    data["schema"] = "1.0"
    for vertebra in data["vertebrae"]:
        del vertebra["suspicious"], vertebra["distance_from_training"]
        for candidate in vertebra["candidates"]:
            del candidate["attribution_score"], candidate["probability"], candidate["stability"]
    again = result_from_json(data)
    assert [v.status for v in again.vertebrae] == [v.status for v in result.vertebrae]
    assert all(c.probability is None for v in again.vertebrae for c in v.candidates)


def test_a_suspicious_vertebra_is_never_called_unremarkable(result: Result) -> None:
    finding = replace(result.vertebrae[0], suspicious=True)
    scores = [c.score for c in finding.candidates]
    assert finding.judged(min(scores) / 2).status is Status.FINDINGS
    silent = finding.judged(max(scores)).status
    assert silent is Status.SUSPICIOUS
    strict = Result((finding, *result.vertebrae[1:]), 0.5, {}).with_threshold(max(scores))
    assert "1 suspicious, nothing outlined" in summary(strict)
    assert "suspicious, nothing outlined" in format_table(strict)


def test_the_documented_example_is_a_result() -> None:
    text = SCHEMA.read_text(encoding="utf-8")
    example = json.loads(text.split("```json\n")[1].split("```")[0])
    result = result_from_json(example)
    assert to_json(result) == example
    assert f"schema {example['schema']}" in text.splitlines()[0]


def test_json_tells_all_and_marks_what_is_accepted(tmp_path: Path, result: Result) -> None:
    write_json(tmp_path / "c.json", result)
    data = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    t10, t11, t12, _ = data["vertebrae"]
    assert [(c["id"], c["accepted"]) for c in t10["candidates"]] == [
        ("T10-1", True),
        ("T10-2", True),
        ("T10-3", False),
    ]
    assert t10["status"] == "findings" and t11["status"] == "no finding"
    assert t12["status"] == "not analysed" and t12["reason"] == "metal"
    assert t12["p_malignant"] is None
    assert t10["candidates"][0]["mean_hu"] == 712.5
    assert data["run"] == RUN


scores = st.floats(-1.0, 2.0)


@given(st.lists(scores, max_size=5), st.one_of(st.none(), st.floats(0, 1)), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_json_gives_the_result_back(
    found: list[float], p_malignant: float | None, threshold: float
) -> None:
    patch = Patch(np.ones((2, 3, 1), bool), (4, 5, 6))
    candidates = [
        make_candidate(f"c{n}", "lytic", score, patch, GRID) for n, score in enumerate(found)
    ]
    result = one_vertebra(candidates).with_threshold(threshold)
    result = replace(result, vertebrae=(replace(result.vertebrae[0], p_malignant=p_malignant),))
    assert result_from_json(json.loads(json.dumps(to_json(result)))) == result


def test_numbers_of_numpy_become_plain(tmp_path: Path, result: Result) -> None:
    first = replace(result.vertebrae[0], p_malignant=np.float32(0.25), slice_p=(np.float32(0.5),))
    run = {"seconds": np.float64(1.5), "steps": np.arange(2), "weights": Path("folder/weights")}
    write_json(tmp_path / "c.json", Result((first,), 0.5, run))
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["vertebrae"][0]["p_malignant"] == 0.25
    assert data["vertebrae"][0]["slice_p"] == [0.5]
    assert data["run"] == {"seconds": 1.5, "steps": [0, 1], "weights": str(run["weights"])}


def test_nan_is_refused_and_the_older_file_stays(tmp_path: Path, result: Result) -> None:
    path = tmp_path / "c.json"
    write_json(path, result)
    before = path.read_bytes()
    broken = replace(result.vertebrae[0], p_malignant=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, replace(result, vertebrae=(broken,)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "2.0"}, "schema 2.0 cannot be read"),
        ({"threshold": None}, "key 'threshold' is missing"),
        ({"vertebrae": [{"level": "T1"}]}, "key 'status' is missing"),
    ],
)
def test_json_that_cannot_be_read_says_why(
    result: Result, change: dict[str, Any], message: str
) -> None:
    data = {k: v for k, v in {**to_json(result), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        result_from_json(data)


def test_a_later_minor_version_is_read(result: Result) -> None:
    data = {**to_json(result), "schema": "1.7", "news": 1}
    data["vertebrae"][0]["candidates"][0]["colour"] = "red"
    assert result_from_json(data) == result


def test_csv_lists_every_candidate_and_every_vertebra(tmp_path: Path, result: Result) -> None:
    write_csv(tmp_path / "c.csv", result)
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["level"], row["id"], row["accepted"]) for row in rows] == [
        ("T10", "T10-1", "True"),
        ("T10", "T10-2", "True"),
        ("T10", "T10-3", "False"),
        ("T11", "", ""),
        ("T12", "", ""),
        ("L1", "L1-1", "True"),
    ]
    assert float(rows[0]["score"]) == 0.91
    assert float(rows[0]["volume_mm3"]) == result.vertebrae[0].candidates[0].volume_mm3
    position = [float(rows[0][f"{axis}_lps_mm"]) for axis in "xyz"]
    assert position == list(result.vertebrae[0].candidates[0].centroid_lps)
    assert rows[4]["reason"] == "metal" and rows[4]["p_malignant"] == ""


def test_a_new_threshold_changes_status_and_acceptance_together(result: Result) -> None:
    strict = to_json(result.with_threshold(0.7))["vertebrae"]
    assert [v["status"] for v in strict] == [
        "findings",
        "no finding",
        "not analysed",
        "no finding",
    ]
    assert [c["accepted"] for v in strict for c in v["candidates"]] == [True, True, False, False]


# --- the table on the terminal --------------------------------------------------------------------


def test_table_names_every_vertebra_and_sums_up(result: Result) -> None:
    shuffled = replace(result, vertebrae=result.vertebrae[::-1])
    head, *lines, blank, last = format_table(shuffled).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "T10 blastic 1",
        "T10 lytic 1",
        "T11",
        "T12",
        "L1 lytic 1",
    ]
    assert blank == ""
    assert "unremarkable" in lines[2] and "0.020" in lines[2]
    assert "not analysed: metal" in lines[3]
    assert "[cut by the field of view]" in lines[0]
    assert last == (
        "3 lesions (2 lytic, 1 blastic) in 2 of 3 vertebrae; 1 not analysed; threshold 0.5"
    )
    for column in ("score", "mm3", "mean HU", "P(malignant)"):
        end = head.index(column) + len(column)
        for line in (lines[0], lines[1], lines[4]):
            assert line[end - 1].isdigit() and line[end : end + 1] in ("", " "), column


def test_summary_of_nothing(result: Result) -> None:
    strict = summary(result.with_threshold(0.99))
    assert strict.startswith("no lesion outlined in 3 vertebrae; 1 suspicious, nothing outlined; 1")
    assert summary(one_vertebra([])) == "no lesion outlined in 1 vertebra; threshold 0.5"


def test_stopped_vertebrae_are_one_line(result: Result) -> None:
    left = tuple(VertebraFinding(x, Status.NOT_ANALYSED, reason=STOPPED) for x in ("L2", "L3"))
    lines = format_table(replace(result, vertebrae=(*result.vertebrae, *left))).splitlines()
    assert [x.split() for x in lines if "stopped" in x] == [["stopped", "before", "L2,", "L3"]]
    assert not any(x.startswith(("L2", "L3")) for x in lines)


def test_states_are_in_json_and_csv(result: Result, tmp_path: Path) -> None:
    strict = result.with_threshold(0.99)
    words = [v["state"] for v in to_json(strict)["vertebrae"]]
    assert words == [
        "suspicious, nothing outlined (best candidate blastic, 0.91)",
        "unremarkable",
        "not analysed: metal",
        "unremarkable",
    ]
    write_csv(tmp_path / "c.csv", strict)
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        assert {row["state"] for row in csv.DictReader(file)} == set(words)
    assert result_from_json(to_json(strict)).vertebrae == strict.vertebrae


def test_a_label_that_is_no_level_comes_last(result: Result) -> None:
    odd = VertebraFinding("label 99", Status.NOT_ANALYSED, reason="unknown label")
    table = format_table(replace(result, vertebrae=(odd, *result.vertebrae)))
    assert table.splitlines()[-3].split() == ["label", "99", "not", "analysed:", "unknown", "label"]


# --- what pictures show ---------------------------------------------------------------------------


def test_window_of_hounsfield_and_of_other_values() -> None:
    crop = make_ct(make_grid((20, 40, 40), (1.0, 1.0, 1.0), centre=body_centre(1))).array
    with_fat = np.where(np.indices(crop.shape)[2] < 2, -100.0, crop)
    assert window(with_fat) == BONE_WINDOW
    low, high = window(with_fat / 1000)
    assert low == pytest.approx(-0.1) and 0.65 < high < 0.75
    assert window(np.full((4, 4), 7.0))[1] > 7.0, "a flat image has a window too"


@given(
    st.sampled_from(AXIS_ORDERS),
    st.tuples(*[st.floats(0.5, 1.5)] * 3),
    st.tuples(*[st.floats(-10, 10)] * 3),
)
@settings(max_examples=25, deadline=None)
def test_a_patch_keeps_place_and_size_on_another_grid(
    axes: Floats, spacing: tuple[float, float, float], centre: tuple[float, float, float]
) -> None:
    source = make_grid((50, 48, 46), (0.9, 1.0, 1.1), axes)
    target = make_grid((64, 64, 64), spacing, np.eye(3)[:, ::-1])
    patch = ball(source, centre, 7.0)
    moved = move_patch(patch, source, target)
    assert moved is not None
    lps = target.lps((np.argwhere(moved.array) + moved.start)[:, ::-1])
    assert np.abs(lps.mean(axis=0) - centre).max() < 0.5
    volume = patch.array.sum() * source.voxel_mm3
    assert abs(moved.array.sum() * target.voxel_mm3 / volume - 1) < 0.15


@given(st.tuples(*[st.floats(-20, 20)] * 3), st.floats(0.4, 1.0))
@settings(max_examples=25, deadline=None)
def test_even_a_single_voxel_is_shown(centre: tuple[float, float, float], spacing: float) -> None:
    source = make_grid((11, 11, 11), (1.0, 1.0, 1.0), centre=centre)
    target = make_grid((64, 64, 64), (spacing,) * 3)
    patch = Patch(np.ones((1, 1, 1), bool), (5, 5, 5))
    inside = np.abs(centre).max() < 31 * spacing
    moved = move_patch(patch, source, target)
    assert moved is not None or not inside
    if moved:
        lps = target.lps((np.argwhere(moved.array) + moved.start)[:, ::-1])
        assert np.abs(lps - centre).max() <= 0.5 + 1e-6


def test_a_patch_far_away_does_not_get_there() -> None:
    target = make_grid((20, 20, 20), (1.0, 1.0, 1.0), centre=(300.0, 0.0, 0.0))
    assert move_patch(ball(GRID, (0.0, 0.0, 0.0), 5.0), GRID, target) is None


def test_the_slice_with_most_lesion_is_shown() -> None:
    body = np.zeros((9, 6, 6), bool)
    body[2:7] = True
    small, large = np.zeros_like(body), np.zeros_like(body)
    small[3, 2, 2] = True
    large[5, 1:4, 1:4] = True
    assert busiest_slice([small, large], body) == 5
    assert busiest_slice([], body) == 4


@pytest.mark.parametrize("axes", AXIS_ORDERS[::7])
def test_spine_is_upright_and_faces_left_however_the_ct_is_stored(axes: Floats) -> None:
    shape = np.abs(axes.T @ (60, 70, 160)).astype(int)
    grid = make_grid(tuple(shape[::-1]), (1.0, 1.0, 1.0), axes)
    marker = (9.0, 20.0, 50.0)
    array = np.zeros(grid.shape, np.int16)
    ball(grid, marker, 4.0).paint(array, 1000)
    centres = np.array([(9.0, 10.0, 50.0), (-12.0, 0.0, -50.0)])
    view = spine_view(Volume(array, grid), centres)
    row, column = np.unravel_index(np.argmax(view.image), view.image.shape)
    assert view.image.max() == pytest.approx(1000, abs=1)
    assert abs(view.top - row * view.pixel_mm - marker[2]) <= 4
    assert abs(view.front + column * view.pixel_mm - marker[1]) <= 4
    shadow = view.project([ball(grid, (-20.0, -15.0, -40.0), 5.0)], grid)
    z = view.top - np.argwhere(shadow)[:, 0] * view.pixel_mm
    y = view.front + np.argwhere(shadow)[:, 1] * view.pixel_mm
    assert abs(z.mean() + 40) < 0.6 and abs(y.mean() + 15) < 0.6


def coloured(picture: Floats, colour: tuple[float, float, float]) -> npt.NDArray[np.intp]:
    """Rows and columns (N, 2) of pixels of that colour."""
    return np.argwhere(np.abs(picture[..., :3] - colour).max(axis=-1) < 0.08)


def test_a_contour_lies_around_its_mask_upright(tmp_path: Path) -> None:
    image = np.full((60, 40), 0.5, np.float32)  # (P, I): 60 mm deep, 40 mm high
    mask = np.zeros(image.shape, bool)
    mask[40:50, 5:15] = True  # posterior and superior: upper right
    tile = Tile(image, [Outline(mask, TYPE_COLOURS["lytic"])], limits=(0.0, 1.0))
    show_crops(tmp_path / "sheet.png", [[tile]])
    picture = imread(tmp_path / "sheet.png")
    grey = np.argwhere(np.abs(picture[..., 0] - 0.5) < 0.02)
    (top, left), (bottom, right) = grey.min(axis=0), grey.max(axis=0)
    assert (right - left) / (bottom - top) == pytest.approx(60 / 40, rel=0.03)
    scale = (right - left) / 60
    contour = (coloured(picture, TYPE_COLOURS["lytic"]) - (top, left)) / scale
    assert contour.min(axis=0) == pytest.approx([5, 40], abs=1.0)
    assert contour.max(axis=0) == pytest.approx([15, 50], abs=1.0)


def test_tiles_of_a_sheet_share_one_scale(tmp_path: Path) -> None:
    dark, bright = np.full((40, 40), 100.0), np.full((40, 40), 200.0)
    dark[0, 0], bright[0, 0] = 0.0, 300.0
    blue, orange = np.full((40, 40), 50.0), np.full((40, 40), -100.0)
    row = [Tile(dark), Tile(bright), Tile(blue, signed=True), Tile(orange, signed=True)]
    show_crops(tmp_path / "sheet.png", [row])
    picture = imread(tmp_path / "sheet.png")
    height, width = picture.shape[:2]
    seen = [picture[height // 2, int(width * (n + 0.5) / 4), :3] for n in range(4)]
    assert seen[0][0] < 0.1 < 0.9 < seen[1][0]
    assert seen[2] == pytest.approx(np.array(TYPE_COLOURS["lytic"]) / 2, abs=0.02)
    assert seen[3] == pytest.approx(TYPE_COLOURS["blastic"], abs=0.02)


def test_pixel_size_sets_the_proportions(tmp_path: Path) -> None:
    tile = Tile(np.full((64, 64), 0.5), limits=(0.0, 1.0), pixel_mm=(0.8, 0.4))
    show_crops(tmp_path / "sheet.png", [[tile]])
    grey = np.argwhere(np.abs(imread(tmp_path / "sheet.png")[..., 0] - 0.5) < 0.02)
    height, width = np.ptp(grey, axis=0)
    assert width / height == pytest.approx(2.0, rel=0.03)


def draw(path: Path, result: Result, evidence: Mapping[str, Evidence] | None = None) -> Floats:
    ct = make_ct(GRID)
    overview(path, ct, result, make_evidence(ct, result) if evidence is None else evidence)
    picture: Floats = imread(path)
    return picture


def test_overview_says_what_its_scores_are(
    tmp_path: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def read(path: Path, figure: Any, title: str = "") -> None:
        said[:] = [text.get_text() for text in figure.texts]

    monkeypatch.setattr("hideseekseg.output.figures.overview.save_figure", read)
    ct = make_ct(GRID)
    overview(tmp_path / "o.png", ct, result, make_evidence(ct, result))
    assert any("with their attribution score" in text for text in said)
    first = result.vertebrae[0]
    judged = tuple(replace(c, probability=c.score) for c in first.candidates)
    calibrated = Result((replace(first, candidates=judged),), result.threshold, {})
    overview(tmp_path / "o.png", ct, calibrated, make_evidence(ct, calibrated))
    assert any("with their probability of a lesion" in text for text in said)


def test_overview_shows_both_types_beside_and_on_the_spine(tmp_path: Path, result: Result) -> None:
    picture = draw(tmp_path / "o.png", result)
    height, width = picture.shape[:2]
    assert 700 < height < 2300 and 1200 < width < 4000
    head, edge = picture[: int(0.9 * DPI), :, :3], int(0.1 * DPI)
    assert np.ptp(head[:, -edge:]) < 0.02, "the legend ends within the picture"
    foot = picture[-int(1.2 * DPI) :, :, :3].max(axis=(1, 2))
    assert (foot > 0.3).mean() > 0.4, "no empty row above the caption"
    below_legend = picture[int(0.9 * DPI) :]
    for colour in TYPE_COLOURS.values():
        columns = coloured(below_legend, colour)[:, 1]
        assert (columns < width - 5 * DPI).sum() > 100, "in the crops"
        assert (columns > width - 5 * DPI).sum() > 30, "on the spine"


def test_overview_without_findings_shows_the_best_candidates_and_no_lesion_on_the_spine(
    tmp_path: Path, result: Result
) -> None:
    picture = draw(tmp_path / "o.png", result.with_threshold(0.99))
    below_legend, width = picture[int(0.98 * DPI) :], picture.shape[1]
    for colour in TYPE_COLOURS.values():
        columns = coloured(below_legend, colour)[:, 1]
        assert (columns < width - 5 * DPI).sum() > 30, "in the crops, dotted"
        assert (columns > width - 5 * DPI).sum() == 0, "nothing on the spine"
    assert picture[..., :3].std() > 0.1, "the spine is there"


def test_overview_says_which_scan_it_is_of(tmp_path: Path, result: Result) -> None:
    """In the picture and in its header, with the size to print it at."""
    scan = {"name": "thorax.nii.gz", "sha256": "1a2b3c4d" * 8}
    draw(tmp_path / "with.png", replace(result, run={**result.run, "scan": scan}))
    draw(tmp_path / "without.png", replace(result, run={}))
    with Image.open(tmp_path / "with.png") as image:
        assert image.text["Title"] == "thorax.nii.gz [1a2b3c4d]"
        assert image.info["dpi"] == pytest.approx((DPI, DPI), abs=1)
    one, other = (imread(tmp_path / name) for name in ("with.png", "without.png"))
    differs = np.abs(one[: int(0.6 * DPI)] - other[: int(0.6 * DPI)]).max(axis=-1) > 0.2
    assert differs.sum() > 100


def test_overview_without_evidence_and_vertebrae(tmp_path: Path, result: Result) -> None:
    assert draw(tmp_path / "a.png", result, {})[..., :3].std() > 0.05
    assert draw(tmp_path / "b.png", Result((), 0.5, {}), {})[..., :3].std() > 0.05


def test_overview_of_a_whole_spine_stays_readable(tmp_path: Path, result: Result) -> None:
    evidence = make_evidence(make_ct(GRID), result)["T10"]
    t10 = result.vertebrae[0]
    many = tuple(replace(t10, level=level) for level in LEVELS[:26])
    picture = draw(
        tmp_path / "o.png",
        replace(result, vertebrae=many),
        {level: evidence for level in LEVELS[:26]},
    )
    assert picture.shape[0] <= 2100 and picture.shape[1] <= 3800
    rows = coloured(picture, TYPE_COLOURS["blastic"])[:, 0]
    assert np.ptp(rows) > 1500, "rows fill the picture from top to bottom"


def test_overview_of_a_volume_that_is_not_hounsfield(tmp_path: Path, result: Result) -> None:
    ct = make_ct(GRID)
    scaled = {
        level: replace(e, **{k: getattr(e, k) / 800 for k in ("image", "edit", "difference")})
        for level, e in make_evidence(ct, result).items()
    }
    overview(tmp_path / "o.png", replace(ct, array=ct.array / 800), result, scaled)
    inside = imread(tmp_path / "o.png")[DPI : 2 * DPI, 3 * DPI : 4 * DPI, 0]
    assert np.ptp(inside) > 0.4, "grey values fill the range"


def test_pictures_leave_no_file_where_they_cannot_be_written(
    tmp_path: Path, result: Result
) -> None:
    with pytest.raises(InputError, match="missing"):
        draw(tmp_path / "missing" / "o.png", result)


@pytest.mark.skipif(not (SHARED / "ts_aorta").is_dir(), reason="../shared/data is not here")
def test_on_a_real_ct_the_spine_view_runs_through_the_bodies() -> None:
    ct = read_ct(SHARED / "ts_aorta" / "ct.nii.gz")
    bodies = read_segmentation(SHARED / "ts_aorta" / "vertebral_bodies.nii.gz")
    masks = [bodies.mask(segment) for segment in bodies.segments]
    voxels = [np.argwhere(mask)[:, ::-1] for mask in masks]
    view = spine_view(ct, np.array([ct.grid.lps(ijk).mean(axis=0) for ijk in voxels]))
    for mask, ijk in zip(masks, voxels):
        low, high = ijk.min(axis=0)[::-1], ijk.max(axis=0)[::-1] + 1
        box = tuple(slice(a, b) for a, b in zip(low, high))
        shadow = view.project([Patch(mask[box], tuple(low))], ct.grid)
        assert shadow.sum() * view.pixel_mm**2 > 200
        assert abs(view.image[shadow].mean() - ct.array[mask].mean()) < 60
