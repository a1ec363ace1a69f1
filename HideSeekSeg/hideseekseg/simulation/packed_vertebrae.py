"""Source vertebrae in one small file, to simulate on a machine without the scans.

A packed vertebra keeps what a simulated crop can show: the body, and HU within some millimetres of
it, in steps of 2 HU; what lies further away holds the density of soft tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..archives import read_arrays
from ..errors import InputError
from ..files import atomic
from ..imaging.patch import bounding_box
from ..imaging.volume import Grid, Volume
from .source_vertebrae import SourceVertebra

MARGIN_MM = 9.0
KEPT_MM = 7.0  # beyond this distance from the body nothing reaches a crop
SOFT_TISSUE_HU = 40
STEP_HU = 2


def pack(vertebrae: Sequence[SourceVertebra], path: Path) -> None:
    """Write vertebrae to a compressed ``.npz``."""
    columns: dict[str, np.ndarray] = {
        "patient": np.array([v.patient for v in vertebrae]),
        "level": np.array([v.level for v in vertebrae]),
    }
    for number, vertebra in enumerate(vertebrae):
        grid = vertebra.ct.grid
        box = bounding_box(vertebra.body, margin=int(np.ceil(MARGIN_MM / grid.spacing.min())))
        body = vertebra.body[box]
        cut = grid.cut([s.start for s in box], body.shape)
        far = ndimage.distance_transform_edt(~body, sampling=cut.spacing[::-1]) > KEPT_MM
        hu = np.where(far, SOFT_TISSUE_HU, vertebra.ct.array[box])
        columns[f"hu {number}"] = np.round(hu / STEP_HU).astype(np.int16)
        columns[f"body {number}"] = np.packbits(body)
        columns[f"matrix {number}"] = cut.ijk_to_lps
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **columns)  # type: ignore[arg-type]


def unpack(path: Path) -> list[SourceVertebra]:
    """Return the vertebrae of a packed file; raises InputError where it is no such file."""
    try:
        data = read_arrays(path)
        names = zip(data["patient"].tolist(), data["level"].tolist())
        return [_vertebra(data, number, *name) for number, name in enumerate(names)]
    except OSError as error:
        raise InputError(path, f"cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path, "is not a file of packed vertebrae") from error


def _vertebra(data: dict[str, Any], number: int, patient: str, level: str) -> SourceVertebra:
    steps = data[f"hu {number}"]
    body = np.unpackbits(data[f"body {number}"], count=steps.size).reshape(steps.shape)
    grid = Grid(steps.shape, data[f"matrix {number}"])
    hu = (steps * STEP_HU).astype(np.float32)
    return SourceVertebra(Volume(hu, grid), body.astype(bool), patient, level)
