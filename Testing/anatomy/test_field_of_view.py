"""A label that is cut, and one whose image is merely no larger than what is segmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hideseekseg.anatomy.body import CUT
from hideseekseg.anatomy.labelling import assign
from hideseekseg.anatomy.level_order import PITCH_MM
from hideseekseg.anatomy.localization import LocatedBody, all_bodies, locate_body, spine_axes
from hideseekseg.anatomy.vertebra_checks import SpineChecks, check_vertebrae
from hideseekseg.imaging.reading import read_segmentation
from hideseekseg.imaging.segmentation import Segmentation, segments_from_values
from hideseekseg.imaging.volume import Box, Grid, Volume, bounding_box, triple

LEVELS = ("T10", "T11", "T12", "L1", "L2")


def spine(
    thick: float, kind: str = "body", levels: Sequence[str] = LEVELS, flipped: bool = False
) -> Segmentation:
    """Cylinders with flat ends as bodies, with an arch behind unless ``kind`` is body.

    The first level lies highest; slices are ``thick`` mm apart, and run from the head with
    ``flipped``.
    """
    heights = np.cumsum([30.0, *(PITCH_MM[level] for level in levels)])
    mm = np.array([thick, 1.5, 1.5])
    shape = triple(np.array([heights[-1] + 30, 110, 80]) / mm)
    array = np.zeros(shape, np.uint8)
    z, y, x = (n * s for n, s in zip(np.indices(shape), mm))
    x, y = x - 40, y - 35
    for n, (level, bottom) in enumerate(zip(levels[::-1], heights)):
        size = PITCH_MM[level]
        up = z - bottom - size / 2
        body = (np.hypot(x / (0.62 * size), y / (0.45 * size)) < 1) & (abs(up) < 0.39 * size)
        array[body] = len(levels) - n
        if kind == "vertebra":
            back = 0.45 * size + 9
            ring = np.hypot(x, y - back)
            arch = (
                (ring > 9) & (ring < 16) & (y > 0.4 * size) & (abs(up + 0.15 * size) < 0.3 * size)
            )
            process = (abs(x) < 4) & (y > back + 9) & (y < back + 25) & (abs(up + 8) < 6)
            array[(arch | process) & (array == 0)] = len(levels) - n
    matrix = np.diag([1.5, 1.5, thick, 1.0])
    if flipped:
        matrix[2] = 0, 0, -thick, thick * (shape[0] - 1)
        array = np.ascontiguousarray(array[::-1])
    suffix = " body" if kind == "body" else ""
    names = {n + 1: f"{level}{suffix}" for n, level in enumerate(levels)}
    volume = Volume(array, Grid(array.shape, matrix))
    return Segmentation((volume,), segments_from_values(volume, names), "spine.nii.gz")


def cropped(whole: Segmentation, box: Box) -> Segmentation:
    """The same labels in an image that is no larger than a box of it."""
    [layer] = whole.layers
    array = np.ascontiguousarray(layer.array[box])
    grid = layer.grid.cut([s.start for s in box], array.shape)
    return replace(whole, layers=(Volume(array, grid),))


def tight(whole: Segmentation) -> Box:
    return bounding_box(whole.layers[0].array > 0)


def bodies(segmentation: Segmentation, ct: Grid) -> dict[str, LocatedBody]:
    assignments = assign(segmentation)
    axes, marked = (
        spine_axes(segmentation, assignments),
        all_bodies(segmentation, assignments, None),
    )
    return {
        level: locate_body(level, segmentation, assignments, ct, marked, axes[level])
        for level in axes
    }


def cut_in(segmentation: Segmentation, ct: Grid) -> set[str]:
    return {level for level, body in bodies(segmentation, ct).items() if CUT in body.flags}


def checks(segmentation: Segmentation, ct: Grid) -> SpineChecks:
    return check_vertebrae(segmentation, assign(segmentation), ct=ct)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("kind", ["body", "vertebra"])
@pytest.mark.parametrize("thick", [1.0, 2.5, 5.0])
def test_a_tight_image_says_what_a_whole_one_does(thick: float, kind: str, flipped: bool) -> None:
    """As Slicer's import of a label map and a stroke of its editor leave it."""
    whole = spine(thick, kind, flipped=flipped)
    ct = whole.grid
    small = cropped(whole, tight(whole))
    assert small.grid.shape != ct.shape
    expected, found = bodies(whole, ct), bodies(small, ct)
    assert cut_in(whole, ct) == cut_in(small, ct) == set()
    for level, body in expected.items():
        here = found[level].body
        assert body.body is not None and here is not None
        assert found[level].flags == body.flags
        assert here.start == body.body.start
        assert np.array_equal(here.array, body.body.array)
    assert checks(small, ct) == checks(whole, ct) == SpineChecks()


@pytest.mark.parametrize("kind", ["body", "vertebra"])
@pytest.mark.parametrize("thick", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("side", ["top", "bottom"])
def test_an_image_that_ends_in_a_vertebra_cuts_it(thick: float, kind: str, side: str) -> None:
    """Half of the highest body, or of the lowest, is outside the image; the CT goes on."""
    whole = spine(thick, kind)
    k, j, i = tight(whole)
    level = LEVELS[0] if side == "top" else LEVELS[-1]
    [segment] = [s for s in whole.segments if s.name.startswith(level)]
    own = whole.box(segment)
    assert own is not None
    middle = (own[0].start + own[0].stop) // 2 + (kind == "vertebra" and round(4 / thick))
    k = slice(k.start, middle) if side == "top" else slice(middle, k.stop)
    small = cropped(whole, (k, j, i))
    assert cut_in(small, whole.grid) == {level}
    assert CUT not in bodies(small, whole.grid)["T12"].flags


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("end", [0, 1])
def test_an_image_that_ends_in_all_bodies_cuts_all(axis: int, end: int) -> None:
    """None of them is longer than the others: their flat faces tell."""
    whole = spine(5.0)
    box = [*tight(whole)]
    middle = (box[axis].start + box[axis].stop) // 2
    box[axis] = slice(middle, box[axis].stop) if end else slice(box[axis].start, middle)
    assert cut_in(cropped(whole, (box[0], box[1], box[2])), whole.grid) == set(LEVELS)


def test_where_the_ct_ends_a_body_is_cut_however_narrow_its_face() -> None:
    """Whatever image the labels have: that of the CT, a tight one, a coarser or a larger one."""
    whole = spine(1.0)
    k, j, i = tight(whole)
    ends = (slice(k.start + 6, whole.grid.shape[0]), slice(None), slice(None))
    ct = whole.grid.cut((k.start + 6, 0, 0), whole.layers[0].array[ends].shape)
    same = cropped(whole, (ends[0], slice(0, ct.shape[1]), slice(0, ct.shape[2])))
    small = cropped(whole, (slice(k.start + 6, k.stop), j, i))
    for labels in (same, small, whole):
        assert cut_in(labels, ct) == {LEVELS[-1]}
    front = slice(j.start + 2, whole.grid.shape[1])
    part = (slice(0, whole.grid.shape[0]), front, slice(0, whole.grid.shape[2]))
    before = cropped(whole, part)
    assert "L2" in cut_in(before, before.grid), "two voxels of its front are missing"
    assert cut_in(before, whole.grid) == set(), "where the CT goes on, so narrow a face is no cut"


def test_a_coarser_image_ends_with_the_ct() -> None:
    """Less than a voxel of it lies beyond: no place where the CT could be said to go on."""
    whole = spine(5.0, levels=("T11", "T12", "L1", "L2"))
    k, j, i = tight(whole)
    part = cropped(whole, (slice(k.start + 1, whole.grid.shape[0]), j, i))
    grid = whole.grid
    lower = 5.0 * (k.start + 1) - 2.5 - 4.0  # the CT's first slice: 4 mm below the labels' image
    matrix = grid.ijk_to_lps.copy()
    matrix[2, 2], matrix[2, 3] = 1.0, lower + 0.5
    ct = Grid((5 * grid.shape[0], *grid.shape[1:]), matrix)
    assert cut_in(part, ct) == {"L2"}
    matrix = matrix.copy()
    matrix[2, 3] -= 4.0
    more = Grid(ct.shape, matrix)
    assert cut_in(part, more) == set(), "one slice is no more than slices may be off"


@pytest.mark.parametrize("thick", [1.0, 5.0])
def test_a_vertebra_alone_in_a_tight_image_is_doubted(thick: float) -> None:
    """Nothing tells how long it ought to be."""
    whole = spine(thick, levels=("L1",))
    assert cut_in(whole, whole.grid) == set()
    assert cut_in(cropped(whole, tight(whole)), whole.grid) == {"L1"}


def test_labels_of_tight_images_are_compared_in_size() -> None:
    """Those that touch the border too: before, they were taken for cut, and not looked at."""
    whole = spine(2.5)
    array = whole.layers[0].array.copy()
    lowest = array == len(LEVELS)
    rows = bounding_box(lowest)[1]
    behind = np.arange(array.shape[1])[None, :, None] >= (rows.start + rows.stop) // 2 - 4
    array[lowest & behind] = 0
    whole = replace(whole, layers=(Volume(array, whole.grid),))
    said = checks(whole, whole.grid)
    assert "of the volume that its neighbours suggest" in said.flags["L2"][0]
    small = cropped(whole, tight(whole))
    assert checks(small, whole.grid) == said
    assert checks(small, small.grid) == SpineChecks(), "the CT ends there: it may be cut"


NAMES = {27: "L5", 28: "L4", 29: "L3", 30: "L2", 31: "L1", 32: "T12", 33: "T11", 34: "T10"}


def test_real_bodies_in_thick_slices(shared: Path) -> None:
    """T11 and L3 of a CT in 5 mm: their endplates are flat faces, and neither is cut."""
    folder = shared / "data" / "crlm_1004"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    read = read_segmentation(folder / "vertebral_bodies.nii.gz")
    named = (replace(x, name=f"{NAMES[x.value]} vertebral body") for x in read.segments)
    whole = replace(read, segments=tuple(named))
    k, j, i = tight(whole)
    assert cut_in(cropped(whole, (k, j, i)), whole.grid) == set()
    lower = cropped(whole, (slice(k.start + 2, k.stop), j, i))
    assert cut_in(lower, whole.grid) == {"L3"}
    upper = cropped(whole, (slice(k.start, k.stop - 2), j, i))
    assert cut_in(upper, whole.grid) == {"T11"}
