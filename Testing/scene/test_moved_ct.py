"""A CT under a transform: its values, and what is drawn in it, are where the views show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from helpers.panel import add_boxes
from helpers.scene import RAS_FROM_LPS, Slicer, add_transform
from hideseekseg.findings import Status, VertebraFinding
from hideseekseg.imaging.volume import Volume
from hideseekseg.review.review import Review

INSIDE = (48, 21, 22)  # k, j, i: in a body, away from its middle


def shifted() -> Any:
    matrix = np.eye(4)
    matrix[:3, 3] = 20, -10, 6
    return add_transform(matrix)


def turned() -> Any:
    """Turned by 30 degrees and shifted."""
    matrix, (cosine, sine) = np.eye(4), (np.cos(np.pi / 6), np.sin(np.pi / 6))
    matrix[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    matrix[:3, 3] = -7, 3, 11
    return add_transform(matrix)


def nested() -> Any:
    """One transform under another."""
    inner = turned()
    inner.SetAndObserveTransformNodeID(shifted().GetID())
    return inner


def bent() -> Any:
    """A transform that is not linear: landmarks are shifted, two of them by more."""
    import slicer
    import vtk

    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for n, corner in enumerate(np.ndindex(2, 2, 2)):
        at = np.array(corner) * (-88.0, -80.0, 128.0)
        source.InsertNextPoint(*at)
        target.InsertNextPoint(*(at + np.array([9.0, 4.0, -6.0 + 5.0 * (n > 5)])))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformToParent(spline)
    return node


def nowhere() -> None:
    """No transform at all."""


@pytest.fixture
def box(mrml: Slicer, box_spine: tuple[Volume, Volume]) -> Iterator[tuple[Any, Any, Volume]]:
    """CT node, segmentation node, and what the CT holds."""
    mrml.scene.Clear(True)
    yield (*add_boxes(box_spine), box_spine[0])
    mrml.scene.Clear(True)


def put(node: Any, transform: Any) -> None:
    node.SetAndObserveTransformNodeID(transform.GetID() if transform is not None else None)


def world_of(node: Any, ct: Volume, kji: tuple[int, ...]) -> tuple[float, float, float]:
    """Where a node's transform puts a voxel of the CT (RAS mm)."""
    ras = RAS_FROM_LPS[:3, :3] @ ct.grid.lps(kji[::-1])
    there = [0.0, 0.0, 0.0]
    parent = node.GetParentTransformNode()
    if parent is None:
        return ras[0], ras[1], ras[2]
    node.TransformPointToWorld(list(ras), there)
    return there[0], there[1], there[2]


@pytest.mark.parametrize("place", [nowhere, shifted, turned, nested, bent])
def test_value_is_that_of_the_voxel_shown_there(
    box: tuple[Any, Any, Volume], place: Callable[[], Any]
) -> None:
    from hideseekseg.scene.geometry import valueAt

    node, _, ct = box
    put(node, place())
    for kji in (INSIDE, (3, 2, 40), (63, 39, 43), (0, 0, 0)):
        assert valueAt(node, world_of(node, ct, kji)) == ct.array[kji]
    assert valueAt(node, world_of(node, ct, (64, 20, 20))) is None
    assert valueAt(node, world_of(node, ct, (20, 20, -1))) is None


@pytest.mark.parametrize("before", [nowhere, shifted])
@pytest.mark.parametrize("now", [nowhere, shifted, turned, nested, bent])
def test_brush_draws_where_the_mouse_is(
    box: tuple[Any, Any, Volume], before: Callable[[], Any], now: Callable[[], Any]
) -> None:
    """Whatever the CT was under at the run, and is under now; also along a fast move."""
    pytest.importorskip("trame_slicer", reason="trame-slicer is not installed")
    from hideseekseg.scene.results import Results
    from hideseekseg.web.strokes import Brush

    node, vertebrae, ct = box
    put(node, before())
    results, review = Results.create(node, vertebrae, {}), Review(0.5)
    review.add_vertebra(VertebraFinding("T12", Status.NO_FINDING))
    lesion = review.add_missed("T12", "lytic")
    results.apply(review)
    moved = now()
    for one in (node, results.node):
        put(one, moved)

    def draw(patch: Any, last: bool) -> None:
        results.draw(lesion, patch, last)

    start, end = INSIDE, (INSIDE[0], INSIDE[1] + 6, INSIDE[2])
    brush = Brush(results, None, False, 4.0, draw, world_of(results.node, ct, start))
    brush.end()
    drawn = results.patches()[lesion]
    kji = np.argwhere(drawn.array) + drawn.start
    offsets = np.argwhere(np.ones((5, 5, 5))) - 2  # a ball of 4 mm in voxels of 2 mm
    ball = INSIDE + offsets[(offsets**2).sum(axis=1) <= 4]
    assert sorted(map(tuple, kji)) == sorted(map(tuple, ball))

    brush = Brush(results, drawn, False, 4.0, draw, world_of(results.node, ct, start))
    brush.move(world_of(results.node, ct, end), (0, 0))
    brush.end()
    drawn = results.patches()[lesion]
    assert drawn.start == (start[0] - 2, start[1] - 2, start[2] - 2)
    assert drawn.array.shape == (5, 11, 5), "no gap, and nothing beside the way"
    brush = Brush(results, drawn, True, 30.0, draw, world_of(results.node, ct, start))
    brush.end()
    assert lesion not in results.patches()
