"""The embedded example: a drawn CT of five vertebrae, two of them with lesions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..imaging.files import atomic, make_folder
from ..imaging.patches import bounding_box
from ..imaging.volume import Grid, Volume, to_sitk
from .fields import Canvas, Field, Rng, blob, smooth_field
from .phantom import example_spine, label_value

FILES = ("ct.nii.gz", "vertebrae.nii.gz")


def write_example(folder: Path) -> list[Path]:
    """Write the CT and its whole vertebrae (TotalSegmentator's values); raises InputError."""
    make_folder(folder)
    example = example_spine(paint=paint_lesions)
    paths = [folder / name for name in FILES]
    for path, volume in zip(paths, (example.ct, example.vertebrae)):
        write_volume(path, volume)
    return paths


def write_volume(path: Path, volume: Volume) -> None:
    with atomic(path) as temporary:
        sitk.WriteImage(to_sitk(volume), str(temporary), useCompression=True)


def paint_lesions(hu: Field, bodies: npt.NDArray[np.uint8], grid: Grid, rng: Rng) -> Field:
    """A lytic lesion in the left half of T12 and a blastic one at the back of L1."""
    hu = hu.copy()
    for level, where, radius, replaced_by in (
        ("T12", (0.5, 0.5, 0.7), 8.0, 45.0),
        ("L1", (0.45, 0.72, 0.4), 7.0, 750.0),
    ):
        body = bodies == label_value(level)
        box = bounding_box(body, margin=4)
        spacing = tuple(float(s) for s in grid.spacing[::-1])
        canvas = Canvas(hu[box], body[box], spacing)  # type: ignore[arg-type]
        centre = np.array(where) * canvas.body.shape * spacing
        weight = blob(rng, canvas, centre, radius, 0.25, 1.0) * canvas.soft_body
        tissue = replaced_by * (1 + 0.1 * smooth_field(rng, canvas, 4.0))
        hu[box] = canvas.hu + weight * (tissue - canvas.hu)
    return hu
