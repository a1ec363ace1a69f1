"""What a scanner and its reconstruction do to clean HU: blur, kernel, noise, streaks, scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .random_fields import Field, Rng, log_uniform


@dataclass(frozen=True)
class Acquisition:
    """One way to scan, along a crop's axes (S, P, I).

    ``blur_mm``: Gaussian sigma per axis (the slice thickness is in one of them).  ``sharpening``:
    overshoot of a bone kernel.  ``noise_hu``: deviation of the noise and ``noise_mm`` its
    correlation.  ``streak_hu``: deviation of low-dose or metal streaks.  ``gain`` and ``shift_hu``:
    what is left of a wrong or approximate HU calibration.
    """

    blur_mm: tuple[float, float, float]
    sharpening: float
    noise_hu: float
    noise_mm: float
    streak_hu: float
    gain: float
    shift_hu: float


def random_acquisition(rng: Rng) -> Acquisition:
    """From thin sharp slices to thick noisy ones; one in three with an approximate HU scale."""
    thickness = rng.uniform(0.5, 3.0)
    in_plane = rng.uniform(0.0, 0.7)
    blur = np.full(3, in_plane)
    if rng.random() < 0.5:
        # Axial slices are thick along I, sagittal reformats along S.
        blur[2 if rng.random() < 0.85 else 0] = max(in_plane, thickness / 2.355 * 0.8)
    approximate = rng.random() < 0.35
    return Acquisition(
        (float(blur[0]), float(blur[1]), float(blur[2])),
        rng.uniform(0.2, 1.0) if rng.random() < 0.3 else 0.0,
        log_uniform(rng, 2, 15) if rng.random() < 0.7 else log_uniform(rng, 15, 50),
        rng.uniform(0.0, 1.2),
        rng.uniform(5, 30) if rng.random() < 0.08 else 0.0,
        float(np.exp(rng.normal(0, 0.22 if approximate else 0.03))),
        float(rng.normal(0, 35 if approximate else 5)),
    )


def acquire(hu: Field, spacing: tuple[float, float, float], how: Acquisition) -> Field:
    """Blur and sharpen clean HU (S, P, I); linear, so that image and twin stay comparable."""
    blurred = ndimage.gaussian_filter(hu, np.array(how.blur_mm) / spacing, truncate=3.0)
    if how.sharpening > 0:
        blurred = blurred + how.sharpening * (
            blurred - ndimage.gaussian_filter(blurred, 1.0 / np.array(spacing), truncate=3.0)
        )
    return np.asarray(blurred, np.float32)


def draw_noise(
    rng: Rng, shape: tuple[int, int, int], spacing: tuple[float, float, float], how: Acquisition
) -> Field:
    """The noise of one scan (HU); image and twin share it."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape).astype(np.float32),
        how.noise_mm / np.array(spacing),
        truncate=3.0,
    )
    noise *= how.noise_hu / (noise.std() + 1e-6)
    if how.streak_hu > 0:
        noise += _streaks(rng, shape) * how.streak_hu
    return np.asarray(noise, np.float32)


def scale(hu: Field, how: Acquisition) -> Field:
    """The volume as an imperfect calibration hands it over."""
    return np.asarray(how.gain * hu + how.shift_hu, np.float32)


def _streaks(rng: Rng, shape: tuple[int, int, int]) -> Field:
    """Lines across axial planes in one direction that changes slowly from plane to plane."""
    s, p = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * s + np.sin(angle) * p
    offset = np.round(along - along.min()).astype(int)
    profile = ndimage.gaussian_filter(rng.standard_normal((offset.max() + 1, shape[2])), (0.8, 2.0))
    lines = profile[offset]
    return np.asarray(lines / (lines.std() + 1e-6), np.float32)
