"""What a drawn spine looks like: the settings of a phantom, and how they vary between people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .vertebra import LEVELS


@dataclass(frozen=True)
class SpineSettings:
    """A person, the state of the spine, and the scan.  Lengths in mm, angles in degrees.

    ``levels`` run downwards and are adjacent.  ``marrow_hu`` is the mean of trabecular bone in
    the middle of a body; ``kyphosis`` is T1 to T12 and ``lordosis`` L1 to L5; ``scoliosis`` the
    Cobb angle over the drawn levels (positive bends to the Left).  Osteophytes have a mean
    length; the other degenerative changes a chance per vertebra or disc.  ``noise_hu`` is the
    standard deviation in uniform tissue; ``blur`` the full width at half maximum of the kernel,
    ``sharpen`` its overshoot (0 soft, 0.6 a bone kernel); ``streak_hu`` the strength of
    low-dose streaks from side to side.  ``field`` is the width and depth of the picture.
    """

    levels: tuple[str, ...] = ("T10", "T11", "T12", "L1", "L2")
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 1.5)
    field: tuple[float, float] = (168.0, 156.0)
    margin: float = 14.0
    scale: float = 1.0
    marrow_hu: float = 180.0
    texture: float = 0.22
    cortex: float = 0.35
    endplate: float = 0.55
    kyphosis: float = 36.0
    lordosis: float = 36.0
    scoliosis: float = 0.0
    disc: float = 1.0
    fat: float = 0.15
    contrast: float = 0.0
    osteophyte: float = 0.0
    schmorl_chance: float = 0.0
    wedge_chance: float = 0.0
    biconcave_chance: float = 0.0
    sclerosis_chance: float = 0.0
    vacuum_chance: float = 0.0
    noise_hu: float = 26.0
    blur: float = 1.1
    sharpen: float = 0.15
    streak_hu: float = 0.0

    def __post_init__(self) -> None:
        first = LEVELS.index(self.levels[0]) if self.levels and self.levels[0] in LEVELS else -1
        if first < 0 or self.levels != LEVELS[first : first + len(self.levels)]:
            raise ValueError(f"levels must be adjacent, downwards, within T1..L5: {self.levels}")


def random_settings(
    rng: np.random.Generator,
    levels: tuple[str, ...] = ("T10", "T11", "T12", "L1", "L2"),
    spacing_mm: tuple[float, float, float] | None = None,
) -> SpineSettings:
    """Draw a random adult of 20 to 90 in a random scanner.

    Trabecular HU fall by about 2.5 a year from 270 at 20, with a spread of 40 between people of
    an age; degeneration and fatty muscle grow with age.  Slices are 0.5 to 3 mm; noise grows
    as they become thinner (with the inverse root) and as the kernel becomes sharper.
    """
    age = rng.uniform(20, 90)
    worn = max(0.0, (age - 35) / 55) * rng.uniform(0.2, 1.2)
    marrow = float(np.clip(270 - 2.5 * (age - 20) + rng.normal(0, 40), 50, 300))
    plane, thickness = (
        rng.uniform(0.55, 0.98),
        rng.choice([0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0]),
    )
    spacing = spacing_mm or (float(plane), float(plane), float(thickness))
    sharpen = float(max(0.0, rng.normal(0.2, 0.2)))
    noise = rng.uniform(12, 32) * (1 + 0.8 * sharpen) / np.sqrt(spacing[2] / 1.5)
    return SpineSettings(
        levels=levels,
        spacing_mm=spacing,
        scale=float(rng.normal(1.0, 0.07)),
        marrow_hu=marrow,
        texture=float(rng.uniform(0.15, 0.3)),
        cortex=float(rng.uniform(0.2, 0.4) + 0.0007 * marrow),
        endplate=float(rng.uniform(0.35, 0.6) + 0.0009 * marrow),
        kyphosis=float(np.clip(rng.normal(36 + 10 * worn, 9), 15, 70)),
        lordosis=float(np.clip(rng.normal(36, 9), 10, 60)),
        scoliosis=float(rng.normal(0, 5)),
        disc=float(np.clip(rng.normal(1 - 0.25 * worn, 0.12), 0.45, 1.25)),
        fat=float(np.clip(0.08 + 0.3 * worn * rng.uniform(), 0.03, 0.4)),
        contrast=float(rng.uniform(0.4, 1.0)) if rng.uniform() < 0.5 else 0.0,
        osteophyte=float(4.0 * worn * rng.uniform()),
        schmorl_chance=0.08,
        wedge_chance=0.08 + 0.12 * worn,
        biconcave_chance=0.05 + (0.15 if marrow < 120 else 0.0),
        sclerosis_chance=0.15 * worn,
        vacuum_chance=0.15 * worn,
        noise_hu=float(np.clip(noise, 8, 70)),
        blur=float(rng.uniform(0.8, 1.5)),
        sharpen=sharpen,
        streak_hu=float(max(0.0, rng.normal(0, 6))),
    )
