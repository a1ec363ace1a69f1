"""Vertebral bodies for tests: cylinders whose every measure is known, a drawn one, and toys."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from helpers.models import TINY
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.model.profile import Geometry, Intensity, Profile
from hideseekseg.simulation.phantom.spine import draw_spine
from hideseekseg.simulation.phantom.vertebra import SpineSettings
from hideseekseg.simulation.source_vertebrae import SourceVertebra
from hideseekseg.training.dataset import Slices

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)

UPRIGHT: Floats = np.eye(3)
CENTRE = np.array([11.0, -20.0, 345.0])
WIDTH, DEPTH, HEIGHT = 44.0, 32.0, 26.0
EVIDENCE = replace(TINY, attention_levels=(), pooling="evidence", evidence_levels=(0, 1))
TOY = Profile(
    "toy",
    EVIDENCE,
    Geometry("aligned", 16, slice_mm=4.0, body_pixels=12.0, margin_pixels=1.0),
    Intensity("asinh"),
)


def tilted(forward: float, sideways: float = 0.0) -> Floats:
    """Columns: left, posterior and superior of a body that was tilted by these degrees."""
    return np.asarray(Rotation.from_euler("xy", [forward, sideways], degrees=True).as_matrix())


def grid_around(
    spacing: tuple[float, ...], direction: Floats = UPRIGHT, size_mm: float = 72.0
) -> Grid:
    """A cube of ``size_mm`` around CENTRE; ``spacing`` along i, j, k."""
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.array(spacing)
    n = np.ceil(size_mm / np.array(spacing)).astype(int)
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ ((n - 1) / 2)
    return Grid((int(n[2]), int(n[1]), int(n[0])), matrix)


def local(grid: Grid, axes: Floats) -> tuple[Floats, Floats, Floats]:
    """Positions (K, J, I) in mm from CENTRE along the body's left, posterior and superior."""
    k, j, i = np.indices(grid.shape)
    x, y, z = np.moveaxis((grid.lps(np.stack([i, j, k], -1)) - CENTRE) @ axes, -1, 0)
    return x, y, z


def cylinder(grid: Grid, axes: Floats = UPRIGHT, wedge: float = 0.0) -> Mask:
    """An elliptic cylinder around CENTRE; ``wedge``: degrees between its endplates."""
    x, y, z = local(grid, axes)
    half = HEIGHT / 2 + y * np.tan(np.radians(wedge / 2))
    return np.asarray(((2 * x / WIDTH) ** 2 + (2 * y / DEPTH) ** 2 < 1) & (np.abs(z) < half))


def cylinder_ct(grid: Grid, axes: Floats = UPRIGHT) -> Volume:
    """Smooth HU: dense rim, uneven marrow, muscle around, air far in front."""
    x, y, z = local(grid, axes)
    outside = np.maximum(
        np.hypot(2 * x / WIDTH, 2 * y / DEPTH) * DEPTH / 2 - DEPTH / 2, np.abs(z) - HEIGHT / 2
    )
    marrow = 190 + 60 * np.sin(x / 6) * np.cos(y / 7) + 40 * np.sin(z / 5)
    hu = 55 + (marrow - 55) / (1 + np.exp(outside / 0.7)) + 550 * np.exp(-((outside / 1.5) ** 2))
    hu = hu - 900 / (1 + np.exp((y + 30) / 1.0))
    return Volume(hu.astype(np.float32), grid, "cylinder")


def reordered(
    array: npt.NDArray[Number], grid: Grid, order: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[npt.NDArray[Number], Grid]:
    """The same voxels in the same places, stored in another axis order and direction."""
    moved = np.transpose(array, order)[tuple(slice(None, None, f) for f in flips)]
    columns = grid.ijk_to_lps[:3, 2::-1][:, list(order)] * flips
    first = np.zeros(3)
    first[list(order)] = np.where(np.array(flips) < 0, np.array(moved.shape) - 1, 0)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = columns[:, ::-1], grid.lps(first[::-1])
    return np.ascontiguousarray(moved), Grid(moved.shape, matrix)


def plain_vertebra(patient: str = "A", level: str = "L1") -> SourceVertebra:
    """A cylinder that is quick to simulate with."""
    grid = grid_around((1.2, 1.2, 1.2))
    return SourceVertebra(cylinder_ct(grid), cylinder(grid), patient, level)


@lru_cache
def scanned(seed: int = 1) -> tuple[Volume, Mask]:
    """A drawn T10 as a scanner sees it, 0.8 x 0.8 x 1.5 mm, and its body."""
    settings = SpineSettings(levels=("T10",), field=(90.0, 90.0), marrow_hu=165.0)
    phantom = draw_spine(settings, np.random.default_rng(seed))
    return phantom.ct, phantom.bodies.array > 0


def dice(a: Mask, b: Mask) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def toy_slices(count: int = 64) -> Slices:
    """Discs of marrow for the TOY profile, four slices a vertebra.

    Every second vertebra has a dark or a dense spot, in turn, that its twin has not.
    """
    rng = np.random.default_rng(count)
    rows, columns = np.indices((16, 16))
    body = np.repeat(np.hypot(rows - 7.5, columns - 7.5)[None] < 6, count, axis=0)
    twin = np.where(body, 180, 40) + rng.normal(0, 10, body.shape)
    vertebra = np.arange(count) // 4
    spot = np.zeros_like(body)
    for n in range(1, count // 4, 2):
        r, c = rng.integers(4, 9, 2)
        spot[4 * n : 4 * n + 4, r : r + 4, c : c + 4] = True
    lytic, blastic = (spot & (vertebra % 4 == n)[:, None, None] for n in (1, 3))
    image = twin - 140 * lytic + 500 * blastic
    return Slices(
        image.astype(np.int16),
        twin.astype(np.int16),
        body,
        lytic,
        blastic,
        np.asarray(spot.any(axis=(1, 2)), np.uint8),
        np.array(["A"] * count),
        np.array([f"toy-{n}" for n in vertebra]),
        spot.sum(axis=(1, 2)) > 4,
    )
