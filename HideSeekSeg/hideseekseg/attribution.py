"""Hide-and-Seek Attribution in its five steps: encode, edit, propose, hide_and_seek, select.

Follows Atad et al., MIDL 2026.  x is a sagittal slice, z its semantic latent, x_T its stochastic
code, P the classifier's probability of malignancy.  Images are float32 (N, 1, H, W) network input
on the CPU, masks bool (N, H, W): rows run anterior to posterior, columns superior to inferior.
Every step takes its settings from the weights' profile, computes in batches of at most ``batch``
images, and reports its network calls by ``on_progress(step, done, total)``; exceptions raised by it
abort the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from .findings import LesionType, SliceCandidate
from .lesions import continued, smoothed
from .model.inference import (
    BATCH,
    encoded,
    in_batches,
    mean_change,
    projected,
    rendered_edit,
    seeded_noises,
)
from .model.profile import Decision
from .model.weights import Model

Mask = npt.NDArray[np.bool_]
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Latents:
    """z (N, latent) float32 and P(malignant) (N,) float64.

    ``reference`` (N, 2) is the marrow of the patient's other vertebrae that the encoder was shown.
    """

    z: Tensor
    p: Tensor
    reference: Tensor


@dataclass(frozen=True)
class Edit:
    """The reconstruction and the healthy edit, (N, 1, H, W); ``p_after`` (N,) is P of the edited z.

    A slice that is not edited has its image as both.
    """

    reconstruction: Tensor
    edited: Tensor
    p_after: Tensor

    @property
    def difference(self) -> npt.NDArray[np.float32]:
        """Edit minus reconstruction (N, H, W): positive where density was added (lytic)."""
        return (self.edited - self.reconstruction)[:, 0].numpy()


@dataclass(frozen=True)
class Proposal:
    """A candidate of one slice: mask (H, W); ``delta`` is the mean of edit minus reconstruction."""

    slice: int
    type: LesionType
    mask: Mask
    delta: float


@dataclass(frozen=True)
class Proposals:
    """The candidates, and all ``changed`` pixels (N, H, W) above their thresholds.

    Specks too small to be candidates are among the changed pixels: they are hidden, too.
    """

    candidates: tuple[Proposal, ...]
    changed: Mask


@dataclass(frozen=True)
class Attribution:
    """The results of all five steps on N slices, free of tensors.

    ``p`` and ``p_after`` (N,) before and after the edit; ``edited``, ``difference`` and ``changed``
    (N, H, W), the last as in ``Proposals``; ``scored`` holds the candidates that were revealed,
    ``selected`` those above the profile's threshold.
    """

    p: npt.NDArray[np.float64]
    p_after: npt.NDArray[np.float64]
    edited: npt.NDArray[np.float32]
    difference: npt.NDArray[np.float32]
    changed: Mask
    scored: tuple[SliceCandidate, ...]
    selected: tuple[SliceCandidate, ...]


def attribute(
    images: Tensor,
    bodies: Mask,
    model: Model,
    batch: int = BATCH,
    on_progress: OnProgress | None = None,
    latents: Latents | None = None,
    min_slices: int = 1,
) -> Attribution:
    """Run the five steps on N >= 1 slices of one vertebra or of many.

    ``latents`` of step 1 where they are known already.  Candidates that do not continue over
    ``min_slices`` slices are hidden with the others, but not scored: no lesion will be made of
    them.
    """
    if latents is None:
        latents = encode(images, model, batch, on_progress)
    healthy = edit(images, latents, model, batch, on_progress)
    proposals = propose(healthy, bodies, model.profile.decision)
    proposals = _continuing(proposals, min_slices)
    scored = hide_and_seek(latents, healthy, proposals, model, batch, on_progress)
    scored = with_hidden(scored, latents, healthy, model, batch, on_progress)
    return Attribution(
        p=latents.p.numpy(),
        p_after=healthy.p_after.numpy(),
        edited=healthy.edited[:, 0].numpy(),
        difference=healthy.difference,
        changed=proposals.changed,
        scored=scored,
        selected=select(scored, model.profile.decision.threshold),
    )


def encode(
    images: Tensor,
    model: Model,
    batch: int = BATCH,
    on_progress: OnProgress | None = None,
    reference: Tensor | None = None,
) -> Latents:
    """Step 1: the semantic latent z of each slice, and P(malignant).

    ``reference`` (N, 2) holds median and deviation of the marrow of the patient's other vertebrae,
    in units of x; NaN, or None, where the vertebra is to be judged on its own.
    """
    if reference is None:
        reference = torch.full((len(images), 2), torch.nan)
    work, report = partial(encoded, model.autoencoder), _report("encode", on_progress)
    z = in_batches(work, [images, reference], 1, model.device, batch, report)
    return Latents(z, model.classifier.probability(z), reference)


def edit(
    images: Tensor,
    latents: Latents,
    model: Model,
    batch: int = BATCH,
    on_progress: OnProgress | None = None,
) -> Edit:
    """Step 2: z moves along the classifier's normal until P is ``healthy_p``; x_T stays.

    Slices with P below ``gate_p`` are left alone, and so are those with P of ``healthy_p`` or less:
    the same move would make them more malignant.
    """
    schedule, decision = model.profile.schedule, model.profile.decision
    reconstruction, edited, p_after = images.clone(), images.clone(), latents.p.clone()
    suspicious = (latents.p >= decision.gate_p) & (latents.p > decision.healthy_p)
    ill = torch.nonzero(suspicious)[:, 0]
    if len(ill) == 0:
        return Edit(reconstruction, edited, p_after)
    z_healthy = model.classifier.move_to(latents.z[ill], decision.healthy_p)
    told = [latents.z[ill], z_healthy]
    if schedule.condition == "logit":
        told = [model.classifier.along(z) for z in told]
    inputs = [images[ill], *told]
    report = _report("edit", on_progress)
    if schedule.edit == "render":
        work, calls = partial(rendered_edit, model.autoencoder, schedule), schedule.edit_calls
        pairs = in_batches(work, inputs, calls, model.device, batch, report)
        reconstruction[ill], edited[ill] = pairs[:, :1], pairs[:, 1:]
    else:
        shape, opposite = images.shape[-2:], schedule.opposite_noise
        noises = seeded_noises(ill.tolist(), schedule.draws, shape, opposite)
        net, device = model.autoencoder, model.device
        edited[ill] += mean_change(net, schedule, inputs, noises, device, batch, report)
    p_after[ill] = model.classifier.probability(z_healthy)
    return Edit(reconstruction, edited, p_after)


def propose(healthy: Edit, bodies: Mask, decision: Decision) -> Proposals:
    """Step 3: inside the body, where density was added lies lytic, where removed blastic bone.

    Of the positive differences of each sign those above the quantile and the floor count; their
    4-connected components of at least ``min_pixels`` are the candidates.
    """
    candidates: list[Proposal] = []
    changed = np.zeros(bodies.shape, bool)
    for i, (difference, body) in enumerate(zip(healthy.difference, bodies)):
        for kind, pixels in changed_pixels(difference, body, decision).items():
            changed[i] |= pixels
            for mask in _components(pixels, decision.min_pixels):
                candidates.append(Proposal(i, kind, mask, float(difference[mask].mean())))
    return Proposals(tuple(candidates), changed)


def _continuing(proposals: Proposals, min_slices: int) -> Proposals:
    """Return the candidates that continue over enough slices; all changed pixels stay."""
    kept = {id(c) for group in continued(proposals.candidates, min_slices) for c in group}
    return replace(proposals, candidates=tuple(c for c in proposals.candidates if id(c) in kept))


def hide_and_seek(
    latents: Latents,
    healthy: Edit,
    proposals: Proposals,
    model: Model,
    batch: int = BATCH,
    on_progress: OnProgress | None = None,
) -> tuple[SliceCandidate, ...]:
    """Step 4: score each candidate by how malignant its slice is when only it is visible.

    All changed pixels but the candidate's are replaced by the healthy edit's; the picture is
    projected through the autoencoder and classified anew.
    Score = (p - p_healthy) / (p_malignant - p_healthy).  Candidates of many slices share batches.
    """
    if not proposals.candidates:
        return ()
    slices = sorted({c.slice for c in proposals.candidates})
    measured = model.profile.decision.baseline == "hidden"
    least = model.profile.decision.least_span
    revealed = [_hidden_but(c.mask, c.slice, healthy, proposals) for c in proposals.candidates]
    nothing = np.zeros(proposals.changed.shape[1:], bool)
    if measured:
        revealed += [_hidden_but(nothing, i, healthy, proposals) for i in slices]
    whose = [c.slice for c in proposals.candidates] + (slices if measured else [])
    report = _report("scoring candidates", on_progress)
    p = _projected_p(torch.stack(revealed), latents.reference[whose], model, batch, report)
    own, hidden = p[: len(proposals.candidates)], p[len(proposals.candidates) :]
    p_healthy = dict(zip(slices, hidden if measured else healthy.p_after[slices].tolist()))
    return tuple(
        SliceCandidate(
            *(c.slice, c.type, c.mask),
            score=score(p_c, float(latents.p[c.slice]), p_healthy[c.slice], least),
            p=p_c,
            delta=c.delta,
            p_hidden=p_healthy[c.slice],
            p_all=float(latents.p[c.slice]),
        )
        for c, p_c in zip(proposals.candidates, own)
    )


def with_hidden(
    scored: Sequence[SliceCandidate],
    latents: Latents,
    healthy: Edit,
    model: Model,
    batch: int = BATCH,
    on_progress: OnProgress | None = None,
) -> tuple[SliceCandidate, ...]:
    """Return the candidates with ``p_without``: P when this one alone is hidden; scores stay.

    It is said beside a finding and decides nothing.  Where a projection is rendered it would cost
    as much as the scores did, and only candidates above the profile's threshold have it.
    """
    cheap = model.profile.schedule.projection_calls == 1
    least = -np.inf if cheap else model.profile.decision.threshold
    told = [n for n, candidate in enumerate(scored) if candidate.score > least]
    if not told:
        return tuple(scored)
    hidden = [_with_edit(scored[n].mask, scored[n].slice, healthy) for n in told]
    reference = latents.reference[[scored[n].slice for n in told]]
    report = _report("hiding candidates", on_progress)
    found = dict(zip(told, _projected_p(torch.stack(hidden), reference, model, batch, report)))
    return tuple(replace(c, p_without=found.get(n, c.p_without)) for n, c in enumerate(scored))


def select(scored: Iterable[SliceCandidate], threshold: float) -> tuple[SliceCandidate, ...]:
    """Step 5: keep the candidates that score above the threshold.

    In a whole scan candidates are joined to 3D lesions first, and these are selected by their own
    score: see ``lesions`` and ``VertebraFinding.accepted``.
    """
    return tuple(s for s in scored if s.score > threshold)


def score(p: float, p_malignant: float, p_healthy: float, least_span: float) -> float:
    """Share of the slice's malignancy that a candidate alone explains.

    A slice whose P hardly falls when all is hidden has little to explain: its span counts as
    ``least_span``.  0 where P does not fall at all.
    """
    span = p_malignant - p_healthy
    return (p - p_healthy) / max(span, least_span) if span > 0 else 0.0


def changed_pixels(
    difference: npt.NDArray[np.float32], body: Mask, decision: Decision
) -> dict[LesionType, Mask]:
    """Return the changed pixels (H, W) of each type in one slice's edit minus reconstruction."""
    difference = smoothed(difference, decision)
    return {
        "lytic": _standing_out(difference, body, decision.candidate_quantile, decision.lytic_floor),
        "blastic": _standing_out(
            -difference, body, decision.candidate_quantile, decision.blastic_floor
        ),
    }


def _standing_out(gain: npt.NDArray[np.float32], body: Mask, quantile: float, floor: float) -> Mask:
    positive = gain[body & (gain > 0)]
    if positive.size == 0:
        return np.zeros_like(body)
    result: Mask = body & (gain > max(float(np.quantile(positive, quantile)), floor))
    return result


def _components(pixels: Mask, min_pixels: int) -> list[Mask]:
    labels, count = ndimage.label(pixels)
    masks = [labels == i for i in range(1, count + 1)]
    return [mask for mask in masks if mask.sum() >= min_pixels]


def _hidden_but(keep: Mask, index: int, healthy: Edit, proposals: Proposals) -> Tensor:
    """Return the reconstruction (1, H, W) with the edit in all changed pixels but those to keep."""
    return _with_edit(proposals.changed[index] & ~keep, index, healthy)


def _with_edit(hidden: Mask, index: int, healthy: Edit) -> Tensor:
    """Return the reconstruction (1, H, W) with the edit in the hidden pixels."""
    pixels = torch.from_numpy(hidden)
    return torch.where(pixels, healthy.edited[index], healthy.reconstruction[index])


def _projected_p(
    images: Tensor,
    reference: Tensor,
    model: Model,
    batch: int,
    report: Callable[[int, int], None] | None,
) -> list[float]:
    schedule = model.profile.schedule
    work = partial(encoded, model.autoencoder)
    if schedule.projection == "render":
        work = partial(projected, model.autoencoder, schedule)
    inputs, calls = [images, reference], schedule.projection_calls
    z = in_batches(work, inputs, calls, model.device, batch, report)
    return [float(p) for p in model.classifier.probability(z)]


def _report(step: str, on_progress: OnProgress | None) -> Callable[[int, int], None] | None:
    return None if on_progress is None else partial(on_progress, step)
