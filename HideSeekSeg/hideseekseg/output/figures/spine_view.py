"""The whole spine on one sagittal image, with its levels and lesions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ...findings import Evidence, Status, VertebraFinding
from ...imaging.patch import Patch, move_patch
from ...imaging.volume import Grid, Volume, bounds
from ..segment_description import TYPE_COLOURS
from .drawing import (
    DIM,
    Floats,
    Mask,
    Outline,
    Tile,
    draw_outline,
    draw_tile,
    mark_sides,
    note,
    window,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATUS_COLOURS = {
    Status.FINDINGS: "#ff79a8",
    Status.SUSPICIOUS: "#ffc857",
    Status.NO_FINDING: "#b9c3cd",  # neutral: no colour says that all is well
    Status.NOT_ANALYSED: DIM,
}


@dataclass(frozen=True)
class SpineView:
    """A sagittal image (Z, Y) that follows the spine sideways.

    Rows run superior to inferior, columns anterior to posterior, in squares of ``pixel_mm``.
    ``top`` and ``front`` are LPS z of the first row and LPS y of the first column in mm.
    """

    image: npt.NDArray[np.float32]
    pixel_mm: float
    top: float
    front: float

    def project(self, patches: Iterable[Patch], ct: Grid) -> Mask:
        """Shadow (Z, Y) of patches of the CT's grid, cast along the left-right axis."""
        shadow = np.zeros(self.image.shape, bool)
        grid = self._across(ct)
        for patch in patches:
            moved = move_patch(patch, ct, grid)
            if moved is not None:
                flat = moved.array.any(axis=0)
                (_, row, column), (rows, columns) = moved.start, flat.shape
                shadow[row : row + rows, column : column + columns] |= flat
        return shadow

    def _across(self, ct: Grid) -> Grid:
        """Return the view's pixels, repeated every millimetre from the CT's right to its left."""
        low, high = bounds(ct)
        matrix = np.eye(4)
        matrix[:3, :3] = np.array([[0, 0, 1], [self.pixel_mm, 0, 0], [0, -self.pixel_mm, 0]])
        matrix[:3, 3] = (low[0], self.front, self.top)
        return Grid((int(np.ceil(high[0] - low[0])) + 1, *self.image.shape), matrix)


def spine_view(ct: Volume, centres: Floats, slab_mm: float = 5.0) -> SpineView:
    """Return a sagittal view through the vertebral bodies, averaged over ``slab_mm``.

    ``centres`` (N, 3) are the bodies' centres in LPS mm.  The view bends sideways with them, so
    that a scoliotic spine stays in it; from front to back it stays straight, as kyphosis is what
    the reader wants to see.  In front it has room for labels, if need be outside the volume.
    Without centres it is the volume's middle sagittal plane.
    """
    pixel = float(np.clip(ct.grid.spacing.min(), 0.5, 1.5))
    low, high = bounds(ct.grid)
    if len(centres):
        centres = centres[np.argsort(centres[:, 2])]
        low[2] = max(low[2], centres[0, 2] - 30.0)
        low[1] = centres[:, 1].min() - 60.0
        high[1] = min(high[1], centres[:, 1].max() + 75.0)
        high[2] = min(high[2], centres[-1, 2] + 30.0)
    else:
        centres = ((low + high) / 2)[None]
    z = np.arange(high[2], low[2], -pixel)
    y = np.arange(low[1], high[1], pixel)
    x = np.interp(z, centres[:, 2], centres[:, 0])
    offsets = np.linspace(-slab_mm / 2, slab_mm / 2, 5)
    lps = np.stack(
        np.broadcast_arrays(
            x[None, :, None] + offsets[:, None, None], y[None, None, :], z[None, :, None]
        ),
        axis=-1,
    )
    kji = np.moveaxis(ct.grid.ijk(lps)[..., ::-1], -1, 0)
    outside = float(np.nanmin(ct.array))
    slab = ndimage.map_coordinates(ct.array, kji, output=np.float32, order=1, cval=outside)
    return SpineView(slab.mean(axis=0), pixel, float(z[0]), float(y[0]))


def body_centres(evidence: Mapping[str, Evidence]) -> dict[str, Floats]:
    """Centres of the vertebral bodies in LPS mm, by level."""
    return {
        level: seen.grid.lps(np.argwhere(seen.body)[:, ::-1]).mean(axis=0)
        for level, seen in evidence.items()
        if seen.body.any()
    }


def draw_spine(
    axes: Axes,
    ct: Volume,
    vertebrae: Sequence[VertebraFinding],
    threshold: float,
    evidence: Mapping[str, Evidence],
) -> None:
    """Draw the spine, a label in front of each body, and the shadows of lesions."""
    centres = body_centres(evidence)
    view = spine_view(ct, np.array(list(centres.values())).reshape(-1, 3))
    draw_tile(
        axes,
        Tile(view.image.T, limits=window(view.image), pixel_mm=(view.pixel_mm, view.pixel_mm)),
    )
    mark_sides(axes)
    for vertebra in vertebrae:
        for kind, colour in TYPE_COLOURS.items():
            accepted = (c for c in vertebra.accepted(threshold) if c.type == kind)
            shadow = view.project([c.patch for c in accepted if c.patch], ct.grid)
            draw_outline(axes, Outline(shadow.T, colour), (view.pixel_mm, view.pixel_mm))
        if vertebra.level in centres:
            _label(axes, view, vertebra, centres[vertebra.level])


def _label(axes: Axes, view: SpineView, vertebra: VertebraFinding, centre: Floats) -> None:
    """Write the level in front of its body, with P(malignant)."""
    p = "" if vertebra.p_malignant is None else f"  {vertebra.p_malignant:.2f}"
    note(
        axes,
        centre[1] - view.front - 22.0,
        view.top - centre[2],
        vertebra.level + p,
        STATUS_COLOURS[vertebra.status],
        ha="right",
        va="center",
        weight="bold" if vertebra.status is Status.FINDINGS else "normal",
    )
