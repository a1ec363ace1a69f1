"""Small parts of a vertebra's label that lie far from it: voxels that a network mislabelled.

They say nothing of the vertebra, but would move its middle and the axes of the spine there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from ..imaging.segmentation import Segmentation
from ..imaging.volume import Mask
from .labelling import Assignment
from .vertebra_shape import ISLAND_SHARE

# From the rest of the label.  What lies nearer may be a part of an arch that was not joined to it.
FAR_MM = 10.0


def without_islands(
    segmentation: Segmentation, assignments: Sequence[Assignment], levels: Collection[str]
) -> Segmentation:
    """Return a segmentation without the far islands of some levels' labels.

    The same object where there are none.
    """
    arrays = [layer.array for layer in segmentation.layers]
    for level in levels:
        own = [a.segment for a in assignments if a.level == level and a.kind != "other"]
        boxes = [box for box in map(segmentation.box, own) if box is not None]
        if not boxes:
            continue
        k, j, i = (slice(min(s.start for s in b), max(s.stop for s in b)) for b in zip(*boxes))
        box = (k, j, i)
        mask = np.any([segmentation.mask(segment, box) for segment in own], axis=0)
        far = _far_islands(mask, segmentation.grid.spacing[::-1])
        if not far.any():
            continue
        for segment in own:
            if arrays[segment.layer] is segmentation.layers[segment.layer].array:
                arrays[segment.layer] = arrays[segment.layer].copy()
            part = arrays[segment.layer][box]
            part[far & (part == segment.value)] = 0
    if all(array is layer.array for array, layer in zip(arrays, segmentation.layers)):
        return segmentation
    layers = zip(segmentation.layers, arrays)
    return replace(segmentation, layers=tuple(replace(one, array=array) for one, array in layers))


def _far_islands(mask: Mask, spacing: npt.NDArray[np.float64]) -> Mask:
    """Return the small pieces of a mask (K, J, I; mm along each) far from its other pieces."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    small = sizes < ISLAND_SHARE * sizes.max()
    small[0] = False
    islands = small[labels]
    if not islands.any():
        return islands
    at = np.argwhere(islands)
    distances, _ = cKDTree(np.argwhere(mask & ~islands) * spacing).query(at * spacing)
    names = labels[tuple(at.T)]
    nearest = np.full(count + 1, np.inf)
    np.minimum.at(nearest, names, distances)
    return np.asarray((small & (nearest > FAR_MM) & (sizes > 0))[labels])
