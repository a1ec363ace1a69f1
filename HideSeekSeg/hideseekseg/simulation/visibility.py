"""What a reader would see and outline of a simulated change.

Lesion masks are drawn from the change itself.  A person who outlines a moth-eaten lesion draws
round its holes, leaves specks alone, and cannot draw what the scan's noise hides.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .random_fields import Field, Mask

GAP_MM = 1.5  # holes of one lesion that lie nearer than twice this are outlined together
SMALLEST_MM3 = 33.0  # a ball of 4 mm
PLAIN_HU = 100.0  # mean contrast of a plain lesion
PLAIN_CLUTTER = 1.5  # and the same in deviations of the marrow around it


def outlined(mask: Mask, body: Mask, spacing: tuple[float, float, float]) -> Mask:
    """The mask (S, P, I) as a reader outlines it: gaps closed, specks left out, inside the body."""
    if not mask.any():
        return mask
    reach = [int(GAP_MM // step) + 1 for step in spacing]
    padded = np.pad(mask, [(n, n) for n in reach])
    near = ndimage.distance_transform_edt(~padded, sampling=spacing) <= GAP_MM
    closed = ndimage.distance_transform_edt(near, sampling=spacing) > GAP_MM
    inner = tuple(slice(n, -n) for n in reach)
    parts, count = ndimage.label((closed[inner] | mask) & body)
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * np.prod(spacing)
    sizes[0] = 0.0
    return np.asarray((sizes >= SMALLEST_MM3)[parts])


def clutter(hu: Field, depth: Field) -> float:
    """Robust deviation of the marrow of a healthy vertebra, noise and texture alike, in HU."""
    inside = hu[depth > 3.0]
    if inside.size == 0:
        return 0.0
    return 1.4826 * float(np.median(np.abs(inside - np.median(inside))))


def plain(change: Field, lesions: Mask, clutter_hu: float) -> bool:
    """Whether every lesion (joined by faces) stands out from the marrow by its mean change."""
    parts, count = ndimage.label(lesions)
    if count == 0:
        return False
    means = ndimage.mean(np.abs(change), parts, range(1, count + 1))
    least = max(PLAIN_HU, PLAIN_CLUTTER * clutter_hu)
    return bool((np.asarray(means) >= least).all())
