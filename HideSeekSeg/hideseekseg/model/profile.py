"""The profile of a set of weights: everything that must be as it was in training.

A profile is plain data, stored as ``profile.json`` beside the tensors.  The published weights and
ours differ in nothing but their profiles and tensors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

# Those that a user may ask for: see model.schedules, which needs torch.
SCHEDULES = ("exact", "multistep", "fast")


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

    image_size: int = 64
    patch: int = 1
    channels: int = 64
    decoder_mult: tuple[int, ...] = (1, 2, 4, 8)
    encoder_mult: tuple[int, ...] = (1, 2, 4, 8, 8)
    residual_blocks: int = 2
    attention_levels: tuple[int, ...] = (2,)
    latent: int = 512
    embedding: int = 512
    pooling: Literal["mean", "evidence"] = "mean"
    evidence_levels: tuple[int, ...] = ()
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
    """

    kind: Literal["raw", "aligned"] = "raw"
    size: int = 64
    pixel_mm: tuple[float, float] = (0.8, 0.675)
    slice_mm: float = 0.8
    body_pixels: float = 40.0
    margin_pixels: float = 2.0
    central_slices: int | None = None


@dataclass(frozen=True)
class Intensity:
    """How intensities become network input x.

    "percentile": each slice maps its ``lower`` and ``upper`` percentiles to 0 and 1, unclipped; no
    HU needed.  "asinh": x = (asinh((HU - centre) / width) - offset) / scale, which keeps a lytic
    contrast of 100 HU and a blastic one of 1000 HU both visible; a volume that is not HU is mapped
    to approximate HU first (``anatomy.intensity``).
    """

    kind: Literal["percentile", "asinh"] = "percentile"
    lower: float = 0.0
    upper: float = 99.5
    centre: float = 120.0
    width: float = 120.0
    offset: float = 0.8
    scale: float = 2.35


@dataclass(frozen=True)
class Schedule:
    """How the diffusion is run.

    "render": inversion with ``invert_steps`` then rendering with ``render_steps``, by ``solver``:
    "ddim" (the paper), or "multistep", which comes as far with few steps (``model.solver``).
    "single-shot": the mean of x0-hat over ``draws`` seeded noises at diffusion time ``noise_level``
    (0..1 of T).  ``reconstruction``: rendered as the edit is (the paper), or the image itself.
    ``condition``: the decoder is told z, or only its logit (weights that learned from labels
    alone); ``guidance`` multiplies the change of a single-shot edit.
    ``projection`` of the pictures of hide and seek: by "render", or "none".
    """

    name: str = "exact"
    edit: Literal["render", "single-shot"] = "render"
    projection: Literal["render", "none"] = "render"
    timesteps: int = 1000
    invert_steps: int = 250
    render_steps: int = 100
    noise_level: float = 0.4
    draws: int = 4
    solver: Literal["ddim", "multistep"] = "ddim"
    reconstruction: Literal["render", "image"] = "render"
    condition: Literal["latent", "logit"] = "latent"
    guidance: float = 1.0

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
    ``threshold``: scores above it are kept.
    """

    healthy_p: float = 1e-5
    gate_p: float = 0.0
    candidate_quantile: float = 0.5
    lytic_floor: float = 0.0
    blastic_floor: float = 0.0
    smooth_pixels: float = 0.0
    min_pixels: int = 5
    baseline: Literal["edit", "hidden"] = "edit"
    least_span: float = 1e-6
    min_slices: int = 1
    threshold: float = 0.5


@dataclass(frozen=True)
class Profile:
    """All of it.  ``name`` is shown to users; ``provenance`` says how the weights were made."""

    name: str = "published"
    architecture: Architecture = field(default_factory=Architecture)
    geometry: Geometry = field(default_factory=Geometry)
    intensity: Intensity = field(default_factory=Intensity)
    schedule: Schedule = field(default_factory=Schedule)
    decision: Decision = field(default_factory=Decision)
    provenance: dict[str, Any] = field(default_factory=dict)


def to_json(profile: Profile) -> dict[str, Any]:
    """Plain JSON data, ``from_json`` gives the profile back."""
    return asdict(profile)


def from_json(data: dict[str, Any]) -> Profile:
    """Raises ValueError naming an unknown part, key or choice: a typo is never ignored."""
    parts = {
        "architecture": Architecture,
        "geometry": Geometry,
        "intensity": Intensity,
        "schedule": Schedule,
        "decision": Decision,
    }
    known = {**data}
    for part, cls in parts.items():
        values = known.get(part, {})
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"profile: unknown {part} setting {sorted(unknown)[0]!r}")
        for name, choices in _choices(cls).items():
            if name in values and values[name] not in choices:
                raise ValueError(f"profile: unknown {part} {name} {values[name]!r}")
        known[part] = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    unknown = set(known) - {f.name for f in fields(Profile)}
    if unknown:
        raise ValueError(f"profile: unknown part {sorted(unknown)[0]!r}")
    return Profile(**known)


def _choices(cls: type) -> dict[str, tuple[Any, ...]]:
    """What the settings may be that are a choice from a few words."""
    hints = get_type_hints(cls).items()
    return {name: get_args(hint) for name, hint in hints if get_origin(hint) is Literal}
