"""Labels against anatomy: order of levels, gaps, and whether a label is one vertebra."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hideseekseg.anatomy.label_conventions import LEVELS
from hideseekseg.anatomy.labelling import assign
from hideseekseg.anatomy.level_order import PITCH_MM, VARIANTS, along_spine, check_order, fits
from hideseekseg.anatomy.vertebra_checks import SpineChecks, check_vertebrae
from hideseekseg.benchmark.speed_measurements import write_spine
from hideseekseg.errors import InputError
from hideseekseg.imaging.reading import read_segmentation
from hideseekseg.imaging.segmentation import Segment, Segmentation, segments_from_values
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.inputs import Options, check_inputs

USUAL = [level for level in LEVELS if level not in VARIANTS]
THORACIC = USUAL[7:17]  # T1 to T10
LUMBAR = ["T10", "T11", "T12", "L1", "L2", "L3"]
MM = 2.0


def curve(levels: Sequence[str], bend: float = 0.0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Middles (LPS mm) of bodies from the head down, turning by ``bend`` radians at each step."""
    at, angle, centres = np.zeros(3), -bend * len(levels) / 2, {}
    for level in levels:
        centres[level] = at
        step = scale * PITCH_MM[level]
        at = at + step * np.array([0.0, np.sin(angle), -np.cos(angle)])
        angle += bend
    return centres


def renamed(centres: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    return dict(zip(names, centres.values()))


@pytest.mark.parametrize("bend", [0.0, 0.05, 0.12])
@pytest.mark.parametrize("scale", [0.55, 0.9, 1.15])
def test_a_whole_spine_is_right_whatever_its_bend_and_size(bend: float, scale: float) -> None:
    """0.12 radians at each of 17 steps are more than 110 degrees of kyphosis."""
    report = check_order(curve(USUAL[7:24], bend, scale))
    assert (report.reversed, report.flags, report.missing) == (False, {}, ())
    assert report.scale == pytest.approx(scale, rel=0.05)


@given(st.integers(0, 2**32 - 1), st.integers(2, 17))
def test_uneven_bodies_are_no_fault(seed: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    centres = curve(USUAL[7 : 7 + count])
    moved = {level: at + chance.normal(0, 1.0, 3) for level, at in centres.items()}
    report = check_order(moved)
    assert report.is_right and not report.missing


def test_the_lie_of_the_patient_does_not_matter_for_the_order() -> None:
    """Lying flat (which end is the head cannot be told), or on the side: no alarm."""
    centres = curve(THORACIC)
    for turn in (np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), np.eye(3)):
        assert check_order({level: turn @ at for level, at in centres.items()}).is_right


@given(st.integers(0, 19), st.integers(3, 24))
def test_reversed_levels_are_seen_wherever_they_begin(first: int, count: int) -> None:
    levels = USUAL[first : first + count]
    if len(levels) > 1:
        assert check_order(renamed(curve(levels), levels[::-1])).reversed


@pytest.mark.parametrize("gone", [["T5"], ["T4", "T5"], ["T3", "T7"], ["T2", "T3", "T4", "T5"]])
def test_levels_that_are_missing_in_between_are_named(gone: list[str]) -> None:
    centres = {level: at for level, at in curve(THORACIC, 0.05).items() if level not in gone}
    report = check_order(centres)
    assert list(report.missing) == gone
    assert report.flags == {}


def test_variants_are_not_missed_and_absent_ends_neither() -> None:
    assert check_order(curve(["T11", "T12", "L1"])).missing == ()
    assert check_order(curve(["L4", "L5", "S1"])).missing == ()
    assert check_order(curve(["T12", "T13", "L1", "L5", "L6", "S1"])).is_right is False
    assert check_order(curve([*LUMBAR, "L4", "L5", "L6", "S1"])).is_right


def test_a_jump_without_room_flags_every_level() -> None:
    levels = ["T10", "T11", "T12", "L2", "L3", "L4"]
    report = check_order(renamed(curve(LUMBAR), levels))
    assert set(report.flags) == set(levels)
    assert (
        "T12 and L2 (31 mm apart) leave no room for L1" in report.flags["T10"][0]
        and "no room for L1" in report.flags["L4"][0]
    )
    assert report.missing == ()


def test_room_for_a_vertebra_without_a_number_flags_every_level() -> None:
    centres = curve(LUMBAR)
    del centres["T12"]
    report = check_order(renamed(centres, ["T11", "T12", "L1", "L2", "L3"]))
    assert set(report.flags) == {"T11", "T12", "L1", "L2", "L3"}
    flag = report.flags["T11"][0]
    assert "T12 and L1" in flag and "leave room for a vertebra without a label" in flag


@pytest.mark.parametrize("gone", ["T12", "L1"])
def test_of_three_vertebrae_the_pair_with_room_between_is_named(gone: str) -> None:
    """A variant such as T13, which nobody labelled: one distance is twice the other."""
    centres = curve(["T11", "T12", "L1", "L2"])
    del centres[gone]
    report = check_order(renamed(centres, ["T11", "T12", "L1"]))
    wide = "T11 and T12" if gone == "T12" else "T12 and L1"
    assert set(report.flags) == {"T11", "T12", "L1"}
    for (flag,) in report.flags.values():
        assert wide in flag and "leave room for a vertebra without a label" in flag


def test_exchanged_vertebrae_are_both_flagged_and_no_others() -> None:
    centres = curve(THORACIC)
    centres["T4"], centres["T5"] = centres["T5"], centres["T4"]
    assert set(check_order(centres).flags) == {"T4", "T5"}


def test_one_level_far_from_its_place_is_told_with_its_place() -> None:
    names = ["T1", "T2", "T3", "L5", "T5", "T6", "T7", "T8", "T9", "T10"]
    report = check_order(renamed(curve(THORACIC), names))
    assert report.flags == {"L5": ("its place contradicts its level: it lies between T3 and T5",)}
    assert report.missing == ("T4",)


def test_levels_of_another_region_do_not_fit() -> None:
    """Lumbar bodies are twice as far apart as cervical ones."""
    wrong = renamed(curve(LUMBAR), USUAL[:6])
    assert not fits(wrong)
    assert set(check_order(wrong).flags) == set(USUAL[:6])
    stretched = curve(["T11", "T12", "L1", "L2"])
    stretched = {level: at * (3, 3, 3 if level != "L2" else 5) for level, at in stretched.items()}
    (flag,) = check_order(stretched).flags["T11"]
    assert "L1 and L2 lie" in flag, "the pair that is furthest from what is usual"
    assert fits(curve(LUMBAR, 0.1, 0.9))


def test_the_curve_is_followed_and_not_the_height() -> None:
    """Above the bend of a severe kyphosis bodies lie no higher than their neighbours."""
    centres = curve(THORACIC, 0.36)
    heights = [at[2] for at in centres.values()]
    assert heights != sorted(heights, reverse=True)
    ranks = along_spine(np.array(list(centres.values())))
    assert ranks is None or list(ranks) == list(range(10))
    assert check_order(centres).is_right


def solid(levels: Sequence[str], kind: str = "vertebra") -> tuple[np.ndarray, dict[str, int]]:
    """A drawn spine (K, J, I) on 2 mm voxels, the head last: bodies, arches around a canal."""
    values = {level: n + 1 for n, level in enumerate(levels)}
    heights = np.cumsum([20.0, *(PITCH_MM[level] for level in levels)])
    array = np.zeros((int((heights[-1] + 20) / MM), 56, 48), np.uint8)
    k, j, i = np.indices(array.shape)
    x, y, z = (i - 24) * MM, (j - 20) * MM, k * MM
    for (level, value), top, bottom in zip(values.items(), heights, heights[1:]):
        size = PITCH_MM[level]
        middle, half = (top + bottom) / 2, 0.39 * size
        in_body = np.hypot(x / (0.62 * size), y / (0.45 * size)) < 1
        array[in_body & (abs(z - middle) < half)] = value
        if kind == "body":
            continue
        back = 0.45 * size + 9
        ring = np.hypot(x, y - back)
        in_arch = (ring > 9) & (ring < 16) & (y > 0.4 * size)
        array[in_arch & (abs(z - middle - 0.15 * size) < 0.3 * size) & (array == 0)] = value
        in_process = (abs(x) < 4) & (y > back + 9) & (y < back + 30)
        array[in_process & (abs(z - middle - 0.4 * size) < 0.25 * size) & (array == 0)] = value
    return array[::-1], values


def checked(
    array: np.ndarray,
    values: Mapping[str, int],
    names: Mapping[int, str] | None = None,
    matrix: np.ndarray | None = None,
) -> SpineChecks:
    grid = Grid(array.shape, np.diag([MM, MM, MM, 1.0]) if matrix is None else matrix)
    said = names or {value: level for level, value in values.items()}
    volume = Volume(array, grid)
    spine = Segmentation((volume,), segments_from_values(volume, said), "spine.nii.gz")
    return check_vertebrae(spine, assign(spine))


@pytest.mark.parametrize("kind", ["vertebra", "body"])
@pytest.mark.parametrize("levels", [LUMBAR, THORACIC, ["L3"], ["T4", "T5"], USUAL[7:24]])
def test_nothing_is_said_of_a_usual_spine(levels: list[str], kind: str) -> None:
    array, values = solid(levels, kind)
    suffix = " body" if kind == "body" else ""
    found = checked(array, values, {value: level + suffix for level, value in values.items()})
    assert found == SpineChecks()


def test_storage_order_changes_nothing() -> None:
    array, values = solid(["T11", "T12", "L1"])
    array[array == values["L1"]] = values["T12"]
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        stored = array.transpose(axes)[tuple(slice(None, None, s) for s in signs)]
        matrix = np.eye(4)
        for n, (axis, sign) in enumerate(zip(axes[::-1], signs[::-1])):
            matrix[2 - axis, n], matrix[2 - axis, 3] = sign * MM, 0.0
            matrix[2 - axis, 3] = MM * (array.shape[axis] - 1) * (sign == -1)
            matrix[n, n] *= 1.0
        matrix[:3, :3] = np.where(np.abs(matrix[:3, :3]) == MM, matrix[:3, :3], 0.0)
        found = checked(np.ascontiguousarray(stored), values, matrix=matrix)
        assert set(found.obstacles) == {"T12"}, (axes, signs)


def merged_with_disc(array: np.ndarray, values: Mapping[str, int]) -> None:
    """T12 and L1 and the disc between them."""
    joined = (array == values["T12"]) | (array == values["L1"])
    rows = np.flatnonzero(joined.any(axis=(1, 2)))
    body = joined.any(axis=0)
    body[27:] = False  # the canal and what lies behind it
    for k in range(rows[0] + 8, rows[-1] - 8):
        joined[k] |= body & (array[k] == 0)
    array[joined] = values["T12"]


def merged(array: np.ndarray, values: Mapping[str, int]) -> None:
    array[array == values["L1"]] = values["T12"]


def cut_across(array: np.ndarray, values: Mapping[str, int]) -> None:
    rows = np.flatnonzero((array == values["T12"]).any(axis=(1, 2)))
    middle = int(np.median(rows))
    array[middle][array[middle] == values["T12"]] = 0


def cut_along(array: np.ndarray, values: Mapping[str, int]) -> None:
    array[:, :, 23:25][array[:, :, 23:25] == values["T12"]] = 0


def upper_half_to_the_neighbour(array: np.ndarray, values: Mapping[str, int]) -> None:
    rows = np.flatnonzero((array == values["L1"]).any(axis=(1, 2)))
    upper = array[rows[len(rows) // 2] :]
    upper[upper == values["L1"]] = values["T12"]


@pytest.mark.parametrize(
    "change",
    [merged, merged_with_disc, cut_across, cut_along, upper_half_to_the_neighbour],
)
@pytest.mark.parametrize("kind", ["vertebra", "body"])
def test_what_cannot_be_one_vertebra_is_not_analysed(
    change: Callable[[np.ndarray, Mapping[str, int]], None], kind: str
) -> None:
    array, values = solid(LUMBAR, kind)
    array = array.copy()
    change(array, values)
    found = checked(array, values)
    assert set(found.obstacles) == {"T12"}
    assert "pieces" in found.obstacles["T12"] or "more than one" in found.obstacles["T12"]
    if change in (merged, merged_with_disc):
        assert found.missing == ("L1",)
        assert found.notes() == ("L1: not segmented",)


def test_a_label_over_the_whole_spine_is_refused() -> None:
    array, _ = solid(LUMBAR)
    with pytest.raises(InputError, match=r"spine\.nii\.gz: .*L3: its label contains more than one"):
        checked((array > 0).astype(np.uint8), {"L3": 1})


def test_two_vertebrae_alone_in_one_label_are_told_by_their_canals() -> None:
    array, _ = solid(["T12", "L1"])
    joined = (array > 0).astype(np.uint8)
    span = np.flatnonzero(joined.any(axis=(1, 2)))
    joined[span[0] : span[-1], 10:28, 20:28] = 1  # what a bridge over the disc joins
    with pytest.raises(InputError, match="more than one vertebra"):
        checked(joined, {"L1": 1})


def test_an_arch_that_closes_twice_is_one_vertebra(tmp_path: Path) -> None:
    """As T12 does in the spine that the benchmark of speed draws, with one neighbour alone."""
    _, path = write_spine(tmp_path, ("T12", "L1"))
    spine = read_segmentation(path)
    assert check_vertebrae(spine, assign(spine, "totalsegmentator")).obstacles == {}


def test_islands_are_dropped_and_an_arch_apart_is_a_remark() -> None:
    array, values = solid(LUMBAR)
    array = array.copy()
    array[2:4, 2:4, 2:4] = values["L1"]
    assert checked(array, values) == SpineChecks()
    rows = array == values["L1"]
    rows[:, :29] = False
    rows[:, 32:] = False
    array[rows] = 0  # pedicles
    found = checked(array, values)
    assert found.obstacles == {}
    assert "2 pieces" in found.flags["L1"][0]


def scattered(array: np.ndarray, value: int, seed: int) -> None:
    """A few voxels that a network called another vertebra, anywhere in the scan."""
    chance = np.random.default_rng(seed)
    array[tuple(chance.integers(1, n - 1, 15) for n in array.shape)] = value


def rim(array: np.ndarray, value: int, seed: int) -> None:
    """What rounding leaves of the values between 0 and a label that was interpolated."""
    labels = np.unique(array[(array > 0) & (array < 50)])
    own = array == labels[seed % len(labels)]
    array[own & (np.roll(array, 1, axis=seed % 3) == 0)] = value


@pytest.mark.parametrize("make", [scattered, rim])
@pytest.mark.parametrize("levels", [["T3"], ["T3", "L5"], ["T3", "T4", "L4", "L5"]])
@pytest.mark.parametrize("seed", [1, 2])
def test_specks_and_rims_are_no_vertebrae_and_tell_no_order(
    make: Callable[[np.ndarray, int, int], None], levels: list[str], seed: int
) -> None:
    """They lie anywhere: a scan was refused as numbered from foot to head because of them."""
    array, values = solid(["T10", "T11", "T12", "L1", "L2"])
    array = array.copy()
    for n, level in enumerate(levels):
        values[level] = 50 + n
        make(array, 50 + n, seed + n)
    found = checked(array, values)
    assert set(found.obstacles) == set(levels) == found.specks
    assert all("only a speck or a rim" in why for why in found.obstacles.values())
    assert not found.missing or not set(found.missing) & {"T10", "T11", "T12", "L1", "L2"}
    assert found.flags == {}


@pytest.mark.parametrize("make", [scattered, rim])
def test_specks_are_left_out_where_header_and_anatomy_are_compared(
    make: Callable[[np.ndarray, int, int], None],
) -> None:
    array, values = solid(["T10", "T11", "T12", "L1"])
    array = np.pad(array, ((0, 0), (8, 8), (8, 8)))
    for n, level in enumerate(("T3", "T4", "L4", "L5")):
        values[level] = 50 + n
        make(array[:40] if n < 2 else array[-40:], 50 + n, n + 1)
    volume = Volume(array, Grid(array.shape, np.diag([MM, MM, MM, 1.0])))
    names = {value: level for level, value in values.items()}
    spine = Segmentation((volume,), segments_from_values(volume, names), "spine.nii.gz")
    hu = np.random.default_rng(0).normal(40, 10, array.shape) + 360.0 * ((array > 0) & (array < 50))
    hu[:, :4] = -1000.0
    ct = Volume(hu.astype(np.int16), volume.grid)
    inputs = check_inputs(ct, spine, Options())
    assert inputs.agreement.refusal == "" and inputs.agreement.flags == ()
    assert set(inputs.checks.obstacles) == {"T3", "T4", "L4", "L5"}
    assert set(inputs.segmented) == set(values)


def test_a_label_with_little_of_its_vertebra_is_a_remark() -> None:
    array, values = solid(LUMBAR)
    array = array.copy()
    array[:, 19:][array[:, 19:] == values["T12"]] = 0
    found = checked(array, values)
    assert found.obstacles == {}
    assert "volume that its neighbours suggest" in " ".join(found.flags["T12"])


def test_reversed_labels_are_refused_and_say_what_fits() -> None:
    """VerSe's values for L1 to L5, read as those of TotalSegmentator 1, run upwards."""
    array, _ = solid(["L1", "L2", "L3", "L4", "L5"])
    by_value = np.where(array > 0, array + 19, 0).astype(np.uint8)
    volume = Volume(by_value, Grid(by_value.shape, np.diag([MM, MM, MM, 1.0])))
    spine = Segmentation((volume,), segments_from_values(volume, {}), "spine.nii.gz")
    with pytest.raises(InputError) as refused:
        check_vertebrae(spine, assign(spine, "totalsegmentator-v1"))
    assert "from foot to head" in refused.value.cause
    assert "verse would fit)" in refused.value.cause
    with pytest.raises(InputError, match=r"\(--labels\); .*verse would fit; values"):
        assign(spine)
    assert check_vertebrae(spine, assign(spine, "verse")) == SpineChecks()


def test_values_of_another_version_are_told_by_what_they_leave_out() -> None:
    """T7 to L3 by TotalSegmentator 1: by version 2 half of them are organs, the rest T12 to S1."""
    levels = USUAL[13:22]
    array, _ = solid(levels)
    table = np.array([0, *(28 - n for n in range(len(levels)))], np.uint8)
    volume = Volume(table[array], Grid(array.shape, np.diag([MM, MM, MM, 1.0])))
    spine = Segmentation((volume,), segments_from_values(volume, {}), "spine.nii.gz")
    found = check_vertebrae(spine, assign(spine, "totalsegmentator"))
    assert set(found.flags) == {"L4", "L5", "S1"}
    assert all("totalsegmentator-v1" in " ".join(said) for said in found.flags.values())
    assert check_vertebrae(spine, assign(spine, "totalsegmentator-v1")) == SpineChecks()


def test_the_upper_end_of_a_sacrum_raises_no_doubt() -> None:
    """By version 2 the sacrum is 25, which is T10 to version 1."""
    array, values = solid(["L2", "L3", "L4", "L5", "S1"])
    table = np.array([0, 30, 29, 28, 27, 25], np.uint8)
    volume = Volume(table[array], Grid(array.shape, np.diag([MM, MM, MM, 1.0])))
    spine = Segmentation((volume,), segments_from_values(volume, {}), "spine.nii.gz")
    assert values["S1"] == 5
    assert check_vertebrae(spine, assign(spine, "totalsegmentator")) == SpineChecks()


def test_names_that_are_not_understood_are_told_from_what_lies_elsewhere() -> None:
    """In the place of T12: a vertebra that is not analysed.  Beside the spine: no vertebra."""
    array, values = solid(LUMBAR)
    array = np.pad(array, ((0, 0), (0, 0), (0, 60)))
    array[20:60, 20:50, 70:100] = 99
    names = {value: level for level, value in values.items()}
    names |= {values["T12"]: "Knochenstück", 99: "Leberchen"}
    found = checked(array, values, names)
    assert [segment.name for segment in found.strangers] == ["Leberchen"]
    assert found.missing == ()  # it is there, though nobody knows its name


def test_slivers_at_the_border_of_the_volume_tell_no_place() -> None:
    array, values = solid(LUMBAR)
    rows = np.flatnonzero((array == values["T10"]).any(axis=(1, 2)))
    assert checked(array[: rows[0] + 4], values).missing == ()


def test_an_empty_segment_is_not_called_outside_the_ct() -> None:
    array, values = solid(["T12", "L1"])
    volume = Volume(array, Grid(array.shape, np.diag([MM, MM, MM, 1.0])))
    segments = (*segments_from_values(volume, {v: k for k, v in values.items()}),)
    spine = Segmentation((volume,), (*segments, Segment("", "L2", 9, 0)), "spine.seg.nrrd")
    assert check_vertebrae(spine, assign(spine)).obstacles == {"L2": "its segment is empty"}


@settings(max_examples=5, deadline=None)
@given(st.sampled_from(["T12", "L1"]), st.integers(0, 2**32 - 1))
def test_ragged_outlines_are_no_fault(level: str, seed: int) -> None:
    array, values = solid(LUMBAR)
    array = array.copy()
    own = np.argwhere(array == values[level])
    chosen = np.random.default_rng(seed).choice(len(own), len(own) // 40, replace=False)
    array[tuple(own[chosen].T)] = 0
    assert checked(array, values) == SpineChecks()


def test_the_checks_cost_little() -> None:
    array, values = solid(USUAL[7:24])
    fine = np.repeat(np.repeat(np.repeat(array, 2, 0), 2, 1), 2, 2)
    matrix = np.diag([MM / 2, MM / 2, MM / 2, 1.0])
    volume = Volume(fine, Grid(fine.shape, matrix))
    names = {value: level for level, value in values.items()}
    spine = Segmentation((volume,), segments_from_values(volume, names), "spine.nii.gz")
    assignments = assign(spine)
    spine.box(spine.segments[0])
    began = time.process_time()
    assert check_vertebrae(spine, assignments) == SpineChecks()
    assert time.process_time() - began < 1.0  # 0.2 s where nothing else runs


@pytest.mark.parametrize("kind", ["vertebra", "body"])
@pytest.mark.parametrize("across", [None, 0, 1, 2], ids=["shell", "axial", "coronal", "sagittal"])
def test_outlines_without_their_inside_are_refused(kind: str, across: int | None) -> None:
    array, values = solid(["T11", "T12", "L1", "L2"], kind)
    near = ndimage.generate_binary_structure(3, 1)
    if across is not None:
        others = [axis for axis in range(3) if axis != across]
        near = np.expand_dims(near.any(axis=across) & near.take(1, axis=across), across)
        assert near.shape[others[0]] == near.shape[others[1]] == 3
    for value in values.values():
        array[ndimage.binary_erosion(array == value, near)] = 0
    suffix = " body" if kind == "body" else ""
    with pytest.raises(InputError, match="L1: its label is an outline without its inside"):
        checked(array, values, {value: level + suffix for level, value in values.items()})
