"""The profile of a set of weights: everything that must be as it was in training.

A profile is plain data, stored as ``profile.json`` beside the tensors, and read without torch.  The
published weights and ours differ in nothing but their profiles and tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from ..errors import WeightsError
from ..files import read_object
from ..plain_data import as_type, shown

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
PROFILE = "profile.json"
# Those that a user may ask for: see model.weights.scheduled, which needs torch.
SCHEDULES = ("exact", "multistep", "fast")


@dataclass(frozen=True)
class Range:
    """The values that a setting may have; ``above``: more than ``low``, not ``low`` itself."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        if self.above:
            return f"above {self.low:g} and at most {self.high:g}"
        return f"between {self.low:g} and {self.high:g}"


Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, math.inf, above=True)]
NotNegative = Annotated[float, Range(0, math.inf)]
Percent = Annotated[float, Range(0, 100)]
Millimetres = Annotated[float, Range(0, 100, above=True)]
Count = Annotated[int, Range(1, 100_000)]
Index = Annotated[int, Range(0, 32)]
Side = Annotated[int, Range(1, 4096)]  # of an image, in pixels
Few = Annotated[int, Range(1, 64)]


@dataclass(frozen=True)
class Architecture:
    """Widths of the diffusion autoencoder; the defaults are those of the paper.

    ``patch`` folds patch x patch pixels into channels before the first convolution (1: the paper).
    ``pooling`` turns the encoder's last map into z: "mean" is the paper's; "evidence" joins mean,
    maximum and log-sum-exp of the maps named by ``evidence_levels``, so that a small focus can
    speak for the whole crop.  ``contrast`` shows the encoder, beside x, x relative to its median.
    ``change_map`` joins to z what a dense map of the encoder's sees as change (evidence only).
    ``context`` shows it x relative to the marrow of the patient's other vertebrae, too.
    ``mirrored``: z is the mean of those of x and of its mirror image along S-I, and noises of a
    single-shot edit see the one and the other in turn; what a vertebra has does not depend on it.
    """

    image_size: Side = 64
    patch: Few = 1
    channels: Count = 64
    decoder_mult: tuple[Few, ...] = (1, 2, 4, 8)
    encoder_mult: tuple[Few, ...] = (1, 2, 4, 8, 8)
    residual_blocks: Few = 2
    attention_levels: tuple[Index, ...] = (2,)
    latent: Count = 512
    embedding: Count = 512
    pooling: Literal["mean", "evidence"] = "mean"
    evidence_levels: tuple[Index, ...] = ()
    contrast: bool = False
    change_map: bool = False
    context: bool = False
    mirrored: bool = False


@dataclass(frozen=True)
class Geometry:
    """How a vertebra is cut out.

    "raw": the patient's own axes, ``pixel_mm`` as given, centred on the vertebra.
    "aligned": turned to the body's endplates, pixels scaled so that the larger of the body's height
    and depth covers ``body_pixels``, and blanked further than ``margin_pixels`` from the body.
    ``pixel_mm`` is (row, column) in mm, ignored when aligned.

    Of the sagittal slices through a body those are learned from, and later analysed, that have at
    least ``least_share`` of the body's pixels in its broadest one, and of these the
    ``central_slices`` nearest to the middle of the body; all where it is None.
    """

    kind: Literal["raw", "aligned"] = "raw"
    size: Side = 64
    pixel_mm: tuple[Millimetres, Millimetres] = (0.8, 0.675)
    slice_mm: Millimetres = 0.8
    body_pixels: Positive = 40.0
    margin_pixels: NotNegative = 2.0
    central_slices: Count | None = None
    least_share: Share = 0.0

    @property
    def leaves_out(self) -> bool:
        """Return whether slices through a body may be left out."""
        return self.central_slices is not None or self.least_share > 0


@dataclass(frozen=True)
class Intensity:
    """How intensities become network input x.

    "percentile": each slice maps its ``lower`` and ``upper`` percentiles to 0 and 1, unclipped; no
    HU needed.  "asinh": x = (asinh((HU - centre) / width) - offset) / scale, which keeps a lytic
    contrast of 100 HU and a blastic one of 1000 HU both visible; a volume that is not HU is mapped
    to approximate HU first (``anatomy.intensity``).
    """

    kind: Literal["percentile", "asinh"] = "percentile"
    lower: Percent = 0.0
    upper: Percent = 99.5
    centre: float = 120.0
    width: Positive = 120.0
    offset: float = 0.8
    scale: Positive = 2.35


@dataclass(frozen=True)
class Schedule:
    """How the diffusion is run.

    "render": inversion with ``invert_steps`` then rendering with ``render_steps``, by ``solver``:
    "ddim" (the paper), or "multistep", which comes as far with few steps (``model.sampling``).
    "single-shot": the mean of x0-hat over ``draws`` seeded noises at diffusion time ``noise_level``
    (0..1 of T); with ``opposite_noise`` every second draw is the one before it with the other sign,
    so that what is odd in the noise cancels.  ``reconstruction``: rendered as the edit is (the
    paper), or the image itself.  ``condition``: the decoder is told z, or only its logit (weights
    that learned from labels alone); ``guidance`` multiplies the change of a single-shot edit.
    ``projection`` of the images in which candidates are hidden: by "render", or "none".
    """

    name: str = "exact"
    edit: Literal["render", "single-shot"] = "render"
    projection: Literal["render", "none"] = "render"
    timesteps: Count = 1000
    invert_steps: Count = 250
    render_steps: Count = 100
    noise_level: Share = 0.4
    draws: Count = 4
    opposite_noise: bool = False
    solver: Literal["ddim", "multistep"] = "ddim"
    reconstruction: Literal["render", "image"] = "render"
    condition: Literal["latent", "logit"] = "latent"
    guidance: Positive = 1.0

    @property
    def edit_calls(self) -> int:
        """Network calls for the edit of one slice."""
        if self.edit == "single-shot":
            return 2 * self.draws
        rendered = 2 if self.reconstruction == "render" else 1
        return self.invert_steps + rendered * self.render_steps

    @property
    def projection_calls(self) -> int:
        """Network calls to classify one picture in which candidates are hidden."""
        return 1 if self.projection == "none" else 2 + self.invert_steps + self.render_steps


@dataclass(frozen=True)
class Decision:
    """Thresholds of the method.

    ``healthy_p``: P(malignant) that the edited latent is moved to.  ``gate_p``: slices below it are
    called healthy and not edited.  Candidates are pixels above the ``candidate_quantile`` of the
    positive differences of their sign and above the floor of their type, in components of at least
    ``min_pixels``.  ``baseline``: the score's zero is P of the healthy edit ("edit", the paper) or
    P with every candidate hidden ("hidden").  ``least_span``: the smallest difference of P that
    counts as a whole in the score.  Lesions on fewer than ``min_slices`` slices are dropped.
    ``outline_share``: a lesion is outlined where its change is at least so much of its own strong
    change (``lesions.outlined``); 0 outlines all of its candidates' pixels (the paper).
    ``threshold``: scores above it are kept.
    """

    healthy_p: Annotated[float, Range(0, 0.5, above=True)] = 1e-5
    gate_p: Share = 0.0
    candidate_quantile: Share = 0.5
    lytic_floor: NotNegative = 0.0
    blastic_floor: NotNegative = 0.0
    smooth_pixels: NotNegative = 0.0
    min_pixels: Count = 5
    baseline: Literal["edit", "hidden"] = "edit"
    least_span: Share = 1e-6
    min_slices: Count = 1
    outline_share: Share = 0.0
    threshold: Share = 0.5


FEATURES = (
    "log odds of P with it alone revealed",
    "log odds of the vertebra",
    "log of the share of the body",
    "log of the change in contrasts of the bone",
    "contrast to its surroundings in contrasts of the bone",
    "share at the surface of the body",
)  # of a candidate, from which its probability is computed


@dataclass(frozen=True)
class Confidence:
    """How the networks' numbers become probabilities, fitted on patients who were not in training.

    ``vertebra``: intercept, slope of a vertebra's log odds, and slope of what they exceed the
    patient's own reference by; ``usual_logit`` stands for the reference of a lone vertebra.
    ``lytic`` and ``blastic``: intercept and a slope for each of ``features``, which are
    ``FEATURES``, written down as other versions had others.  All empty: the weights are not
    calibrated.  Vertebrae with a probability below ``gate_p`` are not edited;
    above ``suspicious_p`` they are not called unremarkable.  ``distance_limit``: size of the mean
    latent that one in a hundred vertebrae of training exceeds.  Findings less stable than
    ``least_stability`` were false more often than one in three.
    """

    vertebra: tuple[float, ...] = ()
    usual_logit: float = 0.0
    lytic: tuple[float, ...] = ()
    blastic: tuple[float, ...] = ()
    features: tuple[str, ...] = ()
    gate_p: Share = 0.0
    suspicious_p: Share = 1.0
    distance_limit: NotNegative = 0.0
    least_stability: Share = 0.0

    @property
    def known(self) -> bool:
        """Whether the weights are calibrated."""
        return bool(self.vertebra)


@dataclass(frozen=True)
class Limits:
    """What the vertebrae of a training had at most; None where nobody knows.

    ``noise_hu``: deviation of the marrow's noise in the crop; ``slice_mm``: the CT's largest voxel
    edge; ``layers``: the fewest CT slices through a body.
    """

    noise_hu: NotNegative | None = None
    slice_mm: Millimetres | None = None
    layers: Count | None = None


@dataclass(frozen=True)
class Profile:
    """All of it.  ``name`` is shown to users; ``provenance`` says how the weights were made.

    ``limits`` is None in weights of versions that did not record them.
    """

    name: str = "published"
    architecture: Architecture = field(default_factory=Architecture)
    geometry: Geometry = field(default_factory=Geometry)
    intensity: Intensity = field(default_factory=Intensity)
    schedule: Schedule = field(default_factory=Schedule)
    decision: Decision = field(default_factory=Decision)
    confidence: Confidence = field(default_factory=Confidence)
    limits: Limits | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


def to_json(profile: Profile) -> dict[str, Any]:
    """Return plain JSON data; ``from_json`` gives the profile back."""
    return asdict(profile)


def from_json(data: dict[str, Any]) -> Profile:
    """Return the profile that ``to_json`` described; what is missing has the paper's values.

    Raises ValueError, one line, for an unknown part or setting (a typo is never ignored), a value
    of another type or out of range, and values that do not go together.
    """
    parts = {name: hint for name, hint in get_type_hints(Profile).items() if name in _PARTS}
    unknown = set(data) - {f.name for f in fields(Profile)}
    if unknown:
        raise ValueError(f"profile: unknown part {sorted(unknown)[0]!r}")
    values: dict[str, Any] = {
        name: _part(name, cls, data.get(name, {})) for name, cls in parts.items()
    }
    recorded = data.get("limits")
    values["limits"] = None if recorded is None else _part("limits", Limits, recorded)
    name, provenance = data.get("name", Profile.name), data.get("provenance", {})
    if not isinstance(name, str):
        raise ValueError(f"profile: name {shown(name)} is not text")
    if not isinstance(provenance, dict):
        raise ValueError(f"profile: provenance {shown(provenance)} is not an object")
    profile = Profile(name=name, provenance=provenance, **values)
    _check(profile)
    return profile


_PARTS = ("architecture", "geometry", "intensity", "schedule", "decision", "confidence")


def _part(part: str, cls: type, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"profile: {part} {shown(values)} is not an object")
    hints = get_type_hints(cls, include_extras=True)
    unknown = set(values) - set(hints)
    if unknown:
        raise ValueError(f"profile: unknown {part} setting {sorted(unknown)[0]!r}")
    read = {}
    for name, value in values.items():
        try:
            read[name] = as_type(hints[name], value)
        except ValueError as error:
            raise ValueError(f"profile: {part} {name} {shown(value)} {error}") from None
    return cls(**read)


def _check(profile: Profile) -> None:
    """Refuse settings that are possible each, and not together: they would fail in mid-run."""
    architecture, geometry, schedule = profile.architecture, profile.geometry, profile.schedule
    if not (architecture.encoder_mult and architecture.decoder_mult):
        raise ValueError("profile: architecture encoder_mult and decoder_mult must not be empty")
    levels = max(len(architecture.encoder_mult), len(architecture.decoder_mult))
    step = architecture.patch * 2 ** (levels - 1)
    if geometry.size % step:
        raise ValueError(
            f"profile: geometry size {geometry.size} is not a multiple of {step}, as the"
            f" architecture's {levels} levels need"
        )
    if architecture.pooling == "evidence" and geometry.size != architecture.image_size:
        raise ValueError(
            f"profile: geometry size {geometry.size} is not architecture image_size"
            f" {architecture.image_size}, as evidence pooling needs"
        )
    slopes = {"vertebra": 2, "lytic": len(FEATURES), "blastic": len(FEATURES)}
    for name, count in slopes.items():
        found = len(getattr(profile.confidence, name))
        if found not in (0, 1 + count):
            raise ValueError(
                f"profile: confidence {name} has {found} numbers, not an intercept and {count}"
                " slopes: calibrate the weights again"
            )
    confidence = profile.confidence
    if (confidence.lytic or confidence.blastic) and confidence.features != FEATURES:
        raise ValueError(
            "profile: the probabilities of candidates were fitted on other features than those of"
            " this version: calibrate the weights again"
        )
    if profile.intensity.lower >= profile.intensity.upper:
        raise ValueError("profile: intensity lower is not below upper")
    try:
        check_schedule(schedule)
    except ValueError as error:
        raise ValueError(f"profile: {error}") from None


def check_schedule(schedule: Schedule) -> None:
    """Raise ValueError where DDIM has no integer stride that gives the steps asked for."""
    if schedule.solver != "ddim" or (schedule.edit, schedule.projection) == ("single-shot", "none"):
        return
    for name, steps in (("invert", schedule.invert_steps), ("render", schedule.render_steps)):
        if ddim_stride(steps, schedule.timesteps) is None:
            raise ValueError(
                f"schedule {name}_steps {steps}: no integer stride through"
                f" {schedule.timesteps} timesteps gives so many"
            )


def ddim_stride(steps: int, timesteps: int) -> int | None:
    """Return the integer stride from 0 through the timesteps that gives so many steps, or None."""
    strides = range(1, timesteps + 1)
    return next((s for s in strides if len(range(0, timesteps, s)) == steps), None)


@dataclass(frozen=True)
class StoredProfile:
    """The profile of a weights directory; its tensors are not read.

    ``files`` has the SHA-256 of the tensor files by name; ``hash`` identifies all of it.
    """

    profile: Profile
    files: dict[str, str]
    hash: str


def read_profile(folder: str | os.PathLike[str]) -> StoredProfile:
    """Read the profile of a weights folder; raises WeightsError naming the file and the cause."""
    path = Path(folder) / PROFILE
    data = read_object(path, WeightsError)
    try:
        profile = from_json({key: value for key, value in data.items() if key != "files"})
    except ValueError as error:
        raise WeightsError(path, str(error)) from error
    files = data.get("files")
    hashes = {str(k): str(v) for k, v in files.items()} if isinstance(files, dict) else {}
    return StoredProfile(profile, hashes, profile_hash(data))


def profile_hash(data: dict[str, Any]) -> str:
    """Return the hash of a stored profile.

    It covers the tensors by their hashes, and no line ending or indentation.
    """
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
