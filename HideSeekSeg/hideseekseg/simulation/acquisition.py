"""What a scanner and its reconstruction do to clean HU: blur, slices, kernel, noise, scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .random_fields import Field, Rng, log_uniform

Spacing = tuple[float, float, float]  # mm along (S, P, I)


@dataclass(frozen=True)
class Acquisition:
    """One way to scan, along a crop's axes (S, P, I).

    ``blur_mm``: Gaussian deviation per axis.  ``sharpening``: overshoot of a bone kernel.
    ``noise_hu``: deviation of the noise and ``noise_mm`` its correlation.  ``streak_hu``: deviation
    of low-dose or metal streaks.  ``gain`` and ``shift_hu``: what is left of a wrong or approximate
    HU calibration.  ``slices_mm``: thickness of axial slices, 0 where it is in the blur already;
    ``tilt``: how far they rise along I for each mm towards posterior; ``phase_mm``: where they
    begin.
    """

    blur_mm: Spacing
    sharpening: float
    noise_hu: float
    noise_mm: float
    streak_hu: float
    gain: float
    shift_hu: float
    slices_mm: float = 0.0
    tilt: float = 0.0
    phase_mm: float = 0.0


def random_acquisition(rng: Rng) -> Acquisition:
    """Draw a scanner: thin sharp slices to thick noisy ones, one in five with approximate HU.

    Three in ten reconstruct axial slices of 3 to 5 mm, as staging CT and the CT of PET/CT do.
    """
    in_plane = rng.uniform(0.0, 0.7)
    blur = np.full(3, in_plane)
    slices = 0.0
    if rng.random() < 0.3:
        slices = float(rng.choice([3.0, 4.0, 5.0]))
    elif rng.random() < 0.7:
        # Axial slices are thick along I, sagittal reformats along S.
        thickness = rng.uniform(0.5, 2.5)
        blur[2 if rng.random() < 0.85 else 0] = max(in_plane, thickness / 2.355 * 0.8)
    approximate = rng.random() < 0.2
    return Acquisition(
        (float(blur[0]), float(blur[1]), float(blur[2])),
        rng.uniform(0.2, 1.0) if rng.random() < 0.3 else 0.0,
        log_uniform(rng, 2, 15) if rng.random() < 0.75 else log_uniform(rng, 15, 50),
        rng.uniform(0.0, 1.2),
        rng.uniform(5, 30) if rng.random() < 0.08 else 0.0,
        float(np.exp(rng.normal(0, 0.22 if approximate else 0.03))),
        float(rng.normal(0, 35 if approximate else 5)),
        slices,
    )


def acquire(hu: Field, spacing: Spacing, how: Acquisition) -> Field:
    """Blur, slice and sharpen clean HU (S, P, I): linear, image and twin stay comparable."""
    sigma = np.array(how.blur_mm) / spacing
    blurred = ndimage.gaussian_filter(hu, sigma, truncate=3.0) if sigma.any() else hu
    if how.slices_mm > 0:
        blurred = sliced(blurred, spacing, how)
    if how.sharpening > 0:
        reach = np.array([1.0, 1.0, 0.0 if how.slices_mm > 0 else 1.0]) / spacing
        soft = ndimage.gaussian_filter(blurred, reach, truncate=3.0)
        blurred = blurred + how.sharpening * (blurred - soft)
    return np.asarray(blurred, np.float32)


def sliced(hu: Field, spacing: Spacing, how: Acquisition) -> Field:
    """Return HU (S, P, I) as read off axial slices: averaged over each, linear between them.

    Thick slices turn endplates into steps and thin structures into faint ones (partial volume).
    """
    rows, columns = (np.arange(n) * step for n, step in zip(hu.shape[1:], spacing[1:]))
    at = (columns[None, :] + how.tilt * rows[:, None] + how.phase_mm) / how.slices_mm  # (P, I)
    at = at - at.min() + 0.5
    count = int(at.max()) + 2
    nearest = np.floor(at + 0.5).astype(int)
    numbers = np.arange(count)
    within = (nearest[:, None, :] == numbers[None, :, None]).astype(np.float32)
    mean = within / np.maximum(within.sum(axis=2, keepdims=True), 1.0)  # (P, K, I)
    between = np.maximum(1.0 - np.abs(at[:, None, :] - numbers[None, :, None]), 0.0)
    between *= within.any(axis=2, keepdims=True)  # a slice beyond the crop is not known
    between = (between / np.maximum(between.sum(axis=1, keepdims=True), 1e-6)).astype(np.float32)
    means = np.einsum("spi,pki->spk", hu, mean)
    return np.asarray(np.einsum("spk,pki->spi", means, between), np.float32)


def draw_noise(rng: Rng, shape: tuple[int, int, int], spacing: Spacing, how: Acquisition) -> Field:
    """Draw the noise of one scan (HU); image and twin share it.

    Along thick slices it is correlated as the slices are.
    """
    along = max(how.noise_mm, 0.3 * how.slices_mm)
    sigma = np.array([how.noise_mm, how.noise_mm, along]) / spacing
    noise: npt.NDArray[np.float32] = rng.standard_normal(shape, dtype=np.float32)
    if sigma.any():
        noise = ndimage.gaussian_filter(noise, sigma, truncate=3.0)
    noise *= how.noise_hu / (noise.std() + 1e-6)
    if how.streak_hu > 0:
        noise += _streaks(rng, shape) * how.streak_hu
    return np.asarray(noise, np.float32)


def scale(hu: Field, how: Acquisition) -> Field:
    """Return the volume as an imperfect calibration hands it over."""
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
