"""The embedded example: a drawn CT of five vertebrae, two of them with lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..files import make_folder
from ..imaging.image_file import write_image
from ..imaging.volume import Grid, Volume, bounding_box, to_sitk
from .phantom.spine import Paint, example_spine, label_value
from .random_fields import Field, Rng, VertebraPatch, blob, smooth_field

FILES = ("ct.nii.gz", "vertebrae.nii.gz")


def write_example(folder: Path) -> list[Path]:
    """Write the CT and its whole vertebrae (TotalSegmentator's values); raises InputError."""
    make_folder(folder)
    example = example_spine(paint=painter(LESIONS))
    paths = [folder / name for name in FILES]
    for path, volume in zip(paths, (example.ct, example.vertebrae)):
        write_volume(path, volume)
    return paths


def write_volume(path: Path, volume: Volume) -> None:
    """Write a volume, compressed; raises InputError where it does not arrive whole."""
    write_image(path, to_sitk(volume), compress=True)


@dataclass(frozen=True)
class Spot:
    """A lesion to draw: ``where`` in the body (shares of its extents along k, j, i), HU inside."""

    level: str
    where: tuple[float, float, float]
    radius_mm: float
    hu: float


# A lytic lesion in the left half of T12 and a blastic one at the back of L1.
LESIONS = (
    Spot("T12", (0.5, 0.5, 0.7), 8.0, 45.0),
    Spot("L1", (0.45, 0.72, 0.4), 7.0, 750.0),
)


def painter(spots: Sequence[Spot]) -> Paint:
    """Return what draws these lesions into a clean spine."""

    def paint(hu: Field, bodies: npt.NDArray[np.uint8], grid: Grid, rng: Rng) -> Field:
        hu = hu.copy()
        for spot in spots:
            body = bodies == label_value(spot.level)
            box = bounding_box(body, margin=4)
            k, j, i = (float(mm) for mm in grid.spacing[::-1])
            canvas = VertebraPatch(hu[box], body[box], (k, j, i))
            centre = np.array(spot.where) * canvas.body.shape * canvas.spacing
            weight = blob(rng, canvas, centre, spot.radius_mm, 0.25, 1.0) * canvas.soft_body
            tissue = spot.hu * (1 + 0.1 * smooth_field(rng, canvas, 4.0))
            hu[box] = canvas.hu + weight * (tissue - canvas.hu)
        return hu

    return paint
