"""Real vertebrae made unusual on purpose: noise, metal, a cut field of view, a slipped outline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..anatomy.body import CUT, cut_flags
from ..anatomy.crop import PATIENT_AXES, Mask, crop_grid
from ..anatomy.localization import Site, close_up
from ..anatomy.preparation import Prepared, prepare
from ..anatomy.quality import measure
from ..imaging.patch import bounding_box, patch_of
from ..imaging.volume import Grid, Volume
from ..model.profile import Geometry
from ..simulation.acquisition import Acquisition, draw_noise
from ..simulation.simulate import draw_sample
from ..simulation.source_vertebrae import Vertebra

METAL_CLIPPED_HU = 3071.0  # the most that a scan stored in 12 bits can show
AIR_FILL_HU = -1024.0
ROD_MM = 3.0  # radius
MARGIN_MM = 35.0  # around the body: as far as an outline may slip


@dataclass(frozen=True)
class Scene:
    """The CT around one vertebra, and its body (K, J, I) in it."""

    ct: Volume
    body: Mask
    site: Site

    def prepared(self, geometry: Geometry) -> Prepared:
        """As the pipeline prepares it."""
        flags = tuple(f for f in self.site.flags if f != CUT)
        flags += (CUT,) if CUT in self.site.flags or cut_flags(self.body) else ()
        site = Site(self.site.level, patch_of(self.body), self.site.source, flags)
        return prepare(site, self.ct, geometry)


Degraded = Callable[[Scene, Geometry], Prepared]


def scene_of(site: Site, ct: Volume) -> Scene | None:
    """The vertebra of a CT cut out; None where none of it is there."""
    if site.body is None:
        return None
    view, body, _ = close_up(ct, site.body)
    box = bounding_box(body, margin=int(np.ceil(MARGIN_MM / ct.grid.spacing.min())))
    array = view.array[box].astype(np.float32)
    grid = view.grid.cut([s.start for s in box], array.shape)
    return Scene(Volume(array, grid, ct.name), body[box], site)


def noisy(noise_hu: float, scene: Scene, geometry: Geometry) -> Prepared:
    """Noise of that deviation and half a millimetre's correlation in the crop, as in training."""
    prepared = scene.prepared(geometry)
    crop = prepared.crop
    if crop is None:
        return prepared
    s, p, i = (float(v) for v in crop.grid.spacing[::-1])
    how = Acquisition((0.0, 0.0, 0.0), 0.0, noise_hu, 0.5, 0.0, 1.0, 0.0)
    rng = np.random.default_rng(1)
    noise = draw_noise(rng, crop.grid.shape, (s, p, i), how)
    crop = replace(crop, image=crop.image + noise)
    return replace(prepared, crop=crop, quality=measure(scene.ct, scene.body, crop, geometry))


def with_rod(behind_mm: float, scene: Scene, geometry: Geometry) -> Prepared:
    """A vertical metal rod, its middle so far behind the body's back (negative: inside)."""
    x, y, _ = _positions(scene)
    back = float(np.quantile(y[scene.body], 0.98))
    across = np.hypot(x - x[scene.body].mean(), y - back - behind_mm)
    array = np.where(across < ROD_MM, METAL_CLIPPED_HU, scene.ct.array)
    return _changed(scene, array).prepared(geometry)


def cropped(share: float, axis: int, scene: Scene, geometry: Geometry) -> Prepared:
    """CT and outline end where that share of the body is cut off, along an LPS axis."""
    along = _voxel_axis(scene.ct.grid, axis)
    layers = np.flatnonzero(scene.body.any(axis=tuple(a for a in range(3) if a != along)))
    stop = int(layers[0] + round((1 - share) * len(layers)))
    keep = tuple(slice(0, stop) if a == along else slice(None) for a in range(3))
    array, body = scene.ct.array[keep], scene.body[keep]
    grid = scene.ct.grid.cut((0, 0, 0), array.shape)
    return Scene(Volume(array, grid), body, scene.site).prepared(geometry)


def blanked(share: float, scene: Scene, geometry: Geometry) -> Prepared:
    """That share of the body, at its front, is air outside a round field of view."""
    _, y, _ = _positions(scene)
    array = np.where(y < np.quantile(y[scene.body], share), np.float32(AIR_FILL_HU), scene.ct.array)
    return _changed(scene, array).prepared(geometry)


def shifted(lps: tuple[float, float, float], scene: Scene, geometry: Geometry) -> Prepared:
    """The outline has slipped by so many mm."""
    inverse = np.linalg.inv(scene.ct.grid.ijk_to_lps[:3, :3])
    at = np.argwhere(scene.body) + np.round(inverse @ np.array(lps)).astype(int)[::-1]
    there = at[((at >= 0) & (at < scene.body.shape)).all(axis=1)]
    body = np.zeros_like(scene.body)
    body[tuple(there.T)] = True
    return Scene(scene.ct, body, scene.site).prepared(geometry)


def thick(slice_mm: float, hidden: bool, scene: Scene, geometry: Geometry) -> Prepared:
    """Axial slices averaged to that thickness; ``hidden``: stored as thin ones again."""
    along = _voxel_axis(scene.ct.grid, 2)
    factor = max(int(np.ceil(slice_mm / scene.ct.grid.spacing[2 - along] - 1e-3)), 1)
    count = scene.body.shape[along] // factor

    def pooled(array: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(array, along, 0)[: count * factor]
        mean = moved.reshape(count, factor, *moved.shape[1:]).mean(axis=1)
        mean = np.repeat(mean, factor, axis=0) if hidden else mean
        return np.ascontiguousarray(np.moveaxis(mean, 0, along))

    array = pooled(scene.ct.array.astype(np.float32))
    body = pooled(scene.body.astype(np.float32)) >= 0.5
    matrix = scene.ct.grid.ijk_to_lps.copy()
    if not hidden:
        first = np.zeros(3)
        first[2 - along] = (factor - 1) / 2
        matrix[:3, 3] = scene.ct.grid.lps(first)
        matrix[:3, 2 - along] *= factor
    grid = Grid((array.shape[0], array.shape[1], array.shape[2]), matrix)
    return Scene(Volume(array, grid), body, scene.site).prepared(geometry)


def diseased(seed: int, scene: Scene, geometry: Geometry) -> Prepared:
    """Simulated metastases, benign changes and a scanner, as in training: usual, if ill."""
    vertebra = Vertebra(scene.ct, scene.body, "", scene.site.level)
    sample = draw_sample(np.random.default_rng(seed), vertebra, geometry, True)
    matrix = np.eye(4)
    spacing = crop_grid(scene.body, scene.ct.grid, geometry).spacing
    matrix[:3, :3] = PATIENT_AXES * spacing
    s, p, i = sample.body.shape
    ct = Volume(sample.image, Grid((s, p, i), matrix))
    return Scene(ct, sample.body, scene.site).prepared(geometry)


def _positions(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LPS mm (x, y, z) of every voxel."""
    at = np.moveaxis(np.indices(scene.body.shape), 0, -1)[..., ::-1]
    x, y, z = np.moveaxis(scene.ct.grid.lps(at), -1, 0)
    return x, y, z


def _voxel_axis(grid: Grid, axis: int) -> int:
    """Which array axis runs nearest to an LPS axis."""
    return 2 - int(np.abs(grid.direction[axis]).argmax())


def _changed(scene: Scene, array: np.ndarray) -> Scene:
    return replace(scene, ct=replace(scene.ct, array=array.astype(np.float32)))


# What is done, by name, and the rules of which one is expected to say so.
DEGRADED: dict[str, tuple[Degraded, tuple[str, ...]]] = {
    "noise of 100 HU added": (partial(noisy, 100.0), ("noise",)),
    "noise of 150 HU added": (partial(noisy, 150.0), ("noise",)),
    "metal rod through the body": (partial(with_rod, -12.0), ("metal in the body",)),
    "metal rod 8 mm behind the body": (partial(with_rod, 8.0), ("metal nearby",)),
    "CT ends, a quarter of the body lost": (partial(cropped, 0.25, 2), ("cut",)),
    "CT ends, half of the body lost": (partial(cropped, 0.5, 2), ("cut",)),
    "a fifth of the body filled with air": (partial(blanked, 0.2), ("air",)),
    "outline 30 mm too far in front": (
        partial(shifted, (0.0, -30.0, 0.0)),
        ("no bone", "no edge", "air"),
    ),
    "outline half a vertebra too high": (
        partial(shifted, (0.0, 0.0, 14.0)),
        ("no bone", "no edge", "air"),
    ),
    "slices of 5 mm": (partial(thick, 5.0, False), ("thick slices", "few slices")),
    "slices of 5 mm stored as thin ones": (
        partial(thick, 5.0, True),
        ("thick slices", "few slices"),
    ),
}
