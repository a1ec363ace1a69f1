"""What the method saw of a vertebra, brought back from network input to the CT's intensities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .anatomy.crop import Crop
from .anatomy.intensity import Calibration
from .attribution import Attribution
from .findings import Evidence
from .model.profile import Profile

Floats = npt.NDArray[np.float32]


def make_evidence(
    crop: Crop,
    slices: npt.NDArray[np.intp],
    seen: Attribution,
    profile: Profile,
    scale: Calibration,
) -> Evidence:
    """Pictures of one vertebra; ``seen`` holds the crop's slices numbered ``slices``, in order.

    The healthy edit is the original plus what the method changed inside the body: so it keeps the
    surroundings that the network was not shown, and the detail that it cannot draw.
    """
    difference = np.zeros(crop.image.shape, np.float32)
    difference[slices] = _change(crop.image[slices], seen.edited, seen.difference, profile, scale)
    difference[~crop.body] = 0
    lytic, blastic = np.zeros(crop.body.shape, bool), np.zeros(crop.body.shape, bool)
    for candidate in (scored.proposal for scored in seen.scored):
        mask = lytic if candidate.type == "lytic" else blastic
        mask[slices[candidate.slice]] |= candidate.mask
    return Evidence(
        crop.image, crop.image + difference, difference, crop.body, crop.grid, lytic, blastic
    )


def _change(
    image: Floats, edited: Floats, difference: Floats, profile: Profile, scale: Calibration
) -> Floats:
    """Edit minus reconstruction (N, P, I) in the CT's intensities.

    Undoes ``intensity.network_input``, whose scaling is not linear: so the edit and the
    reconstruction go back, not their difference.
    """
    scaling = profile.intensity
    if scaling.kind == "percentile":
        limits = np.percentile(image, [scaling.lower, scaling.upper], axis=(1, 2), keepdims=True)
        return np.asarray(difference * (limits[1] - limits[0]), np.float32)

    def hounsfield(x: Floats) -> npt.NDArray[np.float64]:
        stretched = np.clip(x, -1.0, 1.0).astype(float) * scaling.scale + scaling.offset
        return np.asarray(scaling.centre + scaling.width * np.sinh(stretched))

    change = hounsfield(edited) - hounsfield(edited - difference)
    return np.asarray(change if scale.is_hu else change / scale.slope, np.float32)
