"""The pipeline: from a CT and a vertebra segmentation to findings with their evidence."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from . import __version__
from .anatomy.crop import Crop
from .anatomy.intensity import Calibration, network_input
from .anatomy.labelling import Assignment, format_mapping
from .anatomy.localization import close_up
from .anatomy.preparation import Prepared, slices_of
from .anatomy.quality import limits_of
from .anatomy.vertebra_checks import NOT_SEGMENTED, SpineChecks
from .attribution import Attribution, Latents, attribute, encode
from .confidence import (
    Encoded,
    VertebraInput,
    doubts,
    encode_patient,
    sees_patient,
    with_probabilities,
    with_stability,
)
from .events import Event, Message, Started, VertebraDone
from .findings import (
    STOPPED,
    Candidate,
    Evidence,
    Result,
    SliceCandidate,
    Status,
    VertebraFinding,
)
from .imaging.volume import Volume
from .inputs import CheckedInputs
from .lesions import lesions_of, measure, p_of_vertebra
from .model.inference import BATCH, is_out_of_memory
from .model.profile import Profile
from .model.weights import Model, on_cpu, scheduled
from .output.tables import to_json
from .progress import ProgressReporter, Stopped
from .side_by_side import Tell, shared_cores, side_by_side
from .spine import Spine

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
    for candidate in seen.scored:
        mask = lytic if candidate.type == "lytic" else blastic
        mask[slices[candidate.slice]] |= candidate.mask
    changed = np.zeros(crop.body.shape, bool)
    changed[slices] = seen.changed
    images = (crop.image, crop.image + difference, difference)
    return Evidence(*images, crop.body, crop.grid, lytic, blastic, changed)


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


NEVER = 2.0  # a gate that no P reaches
Analysed = tuple[VertebraFinding, Evidence | None]
T = TypeVar("T")


def segment_spine(
    inputs: CheckedInputs,
    model: Model,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    keep: Callable[[VertebraFinding, Evidence | None], str] | None = None,
) -> Result:
    """Find the lesions of every segmented vertebra, or of the chosen ones, from the head down.

    Weights that judge a vertebra beside the patient's others see all of these, whichever are
    chosen: so a vertebra's finding is the same alone and in a run of all.

    ``keep`` gets each vertebra once it is finished and returns the file it wrote, for the event.
    Every vertebra is in the result, "not analysed" where a stop left it out; ``run["stopped"]``
    says whether one did and ``run["finished"]`` which were finished by then: where several are
    analysed at once, not always the first ones.  The evidence of those that were analysed is by
    level.  ``on_event``, ``should_stop`` and ``keep`` are called in the caller's thread alone.

    Raises SegmentationError where segmentation and CT do not go together, NotCTError where the
    volume is not a CT, ScheduleError where the weights have no such schedule.
    """
    ct, options = inputs.ct, inputs.options
    assignments, levels, checks = inputs.assignments, inputs.levels, inputs.checks
    model = scheduled(model, options.schedule) if options.schedule else model
    chosen = model.profile.decision.threshold if options.threshold is None else options.threshold
    facts = _facts(model, assignments)
    facts["notes"] = inputs.notes
    left_out = () if options.levels else tuple(_without_level(assignments, checks))
    on_event(_started(facts, levels, left_out))
    for note in facts["notes"]:
        on_event(Message("warning", note))
    patient = inputs.segmented
    beside = patient if sees_patient(model.profile) else ()
    watch = ProgressReporter(on_event, should_stop, levels, beside)
    findings = {level: _not_analysed(level, STOPPED) for level in levels}
    evidence: dict[str, Evidence] = {}
    finished: list[str] = []

    with suppress(Stopped), shared_cores(model) as at_once:
        spine = Spine(inputs, model.profile.geometry)
        vertebrae = _Vertebrae(spine, watch, at_once)
        # Chosen vertebrae that surely show HU spare weights without context all others.
        found = spine.scale(beside or levels, vertebrae.all)
        scale, flags = found.calibration, found.flags
        facts["hounsfield"] = scale.is_hu
        seen_by_networks: dict[str, VertebraInput] = {}
        encoded: dict[str, Encoded] = {}
        if beside:
            ready = vertebrae.all(beside)
            seen_by_networks = _inputs(ready, scale, options.all_slices, model.profile)
            every = partial(_encode_all, seen_by_networks, watch, at_once)
            encoded, model = _where_it_fits(every, model, on_event)
            _forget(set(beside).difference(levels), spine.known, seen_by_networks, encoded)

        def analyse(level: str, tell: Tell) -> Analysed:
            nonlocal model  # changes where a GPU has too little memory: it has one worker
            before = seen_by_networks.get(level), encoded.get(level)
            job = _Job(spine.vertebra(level), scale, chosen, options.all_slices, *before)
            work = partial(_analyse, job, ct, partial(tell, level))
            result, model = _where_it_fits(work, model, on_event)
            return result

        def done(level: str, analysed: Analysed) -> None:
            finding, seen = analysed
            findings[level] = replace(finding, flags=(*flags, *finding.flags))
            if seen is not None:
                evidence[level] = seen
            finished.append(level)
            watch.finished(level)
            file = keep(findings[level], seen) if keep else ""
            on_event(VertebraDone(level, _plain(findings[level], chosen), file))

        with closing(side_by_side(analyse, levels, at_once, watch.step, done)) as results:
            for level, result in zip(levels, results, strict=True):
                done(level, result)
    facts |= {"finished": finished, "stopped": len(finished) < len(levels)}
    facts |= {"device": str(model.device), "device_reason": model.device_reason}
    facts["seconds"] = round(watch.seconds, 1)
    return Result((*findings.values(), *left_out), chosen, facts, evidence)


class _Vertebrae:
    """The vertebrae of a run, made ready side by side while their progress is told."""

    def __init__(self, spine: Spine, watch: ProgressReporter, at_once: int) -> None:
        self._spine, self._watch, self._at_once = spine, watch, at_once

    def all(self, levels: Sequence[str]) -> Generator[Prepared, None, None]:
        """Yield some vertebrae in order; before each new one its progress is told, a stop heard.

        Whoever does not take all of them closes the iterator.
        """

        def make(level: str, tell: Tell) -> Prepared:
            if level not in self._spine.known:
                tell(level, levels.index(level), len(levels))
            return self._spine.vertebra(level)

        yield from side_by_side(make, levels, self._at_once, self._watch.preparation)


def _forget(levels: Iterable[str], *held: dict[str, Any]) -> None:
    """Let go of vertebrae that were looked at for the sake of others."""
    for level in levels:
        for one in held:
            one.pop(level, None)


def _where_it_fits(
    work: Callable[[Model], T], model: Model, on_event: Callable[[Event], None]
) -> tuple[T, Model]:
    """Return the work's result, and the model: out-of-memory fallback to the CPU.

    Batches were halved down to one image by then.
    """
    try:
        return work(model), model
    except RuntimeError as error:
        if model.device.type == "cpu" or not is_out_of_memory(error):
            raise
    model = on_cpu(model)
    on_event(Message("warning", f"{model.device_reason}: falling back to the CPU"))
    return work(model), model


@dataclass(frozen=True)
class _Job:
    """A vertebra to analyse, and how; ``input``, ``encoded`` where all were encoded before."""

    vertebra: Prepared
    scale: Calibration
    threshold: float
    all_slices: bool
    input: VertebraInput | None
    encoded: Encoded | None


def _inputs(
    vertebrae: Iterable[Prepared], scale: Calibration, all_slices: bool, profile: Profile
) -> dict[str, VertebraInput]:
    """Return what the networks see of each vertebra that can be analysed, by its level."""
    return {
        vertebra.site.level: _input(vertebra.crop, scale, all_slices, profile)
        for vertebra in vertebrae
        if vertebra.crop is not None and not vertebra.obstacle_in(scale)
    }


def _encode_all(
    inputs: dict[str, VertebraInput], watch: ProgressReporter, at_once: int, model: Model
) -> dict[str, Encoded]:
    """Run step 1 on all vertebrae, each beside the others.

    In full batches, whichever vertebrae they are of: for each size of a batch that it has not seen,
    a processor's convolutions are prepared anew.
    """

    def encode_each(shown: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> Iterator[Latents]:
        if not shown:
            return
        x, reference = (torch.cat(parts) for parts in zip(*shown.values()))
        counts = [len(own) for own, _ in shown.values()]
        firsts = dict(zip(accumulate([0, *counts]), shown))

        def encode_batch(start: int, tell: Tell) -> Latents:
            for n in sorted(firsts.keys() & range(start, start + BATCH)):
                tell(firsts[n])
            batch = slice(start, start + BATCH)
            return encode(x[batch], model, reference=reference[batch])

        starts = range(0, len(x), BATCH)
        batches = list(side_by_side(encode_batch, starts, at_once, watch.beside))
        z, p = (torch.cat(parts) for parts in ([b.z for b in batches], [b.p for b in batches]))
        yield from map(Latents, z.split(counts), p.split(counts), reference.split(counts))

    return encode_patient(inputs, encode_each, model.profile)


def _input(crop: Crop, scale: Calibration, all_slices: bool, profile: Profile) -> VertebraInput:
    slices, _ = slices_of(crop, profile.geometry, all_slices)
    x = torch.from_numpy(network_input(crop, profile, scale))[:, None]
    return VertebraInput(x, scale.hounsfield(crop.image), crop.body, slices)


def _analyse(job: _Job, ct: Volume, tell: Tell, model: Model) -> Analysed:
    """Run the five steps on the sagittal slices through the body, joined to 3D lesions."""
    scale, site, crop = job.scale, job.vertebra.site, job.vertebra.crop
    flags = job.vertebra.flags_in(scale, limits_of(model.profile))
    obstacle = job.vertebra.obstacle_in(scale)
    if obstacle or crop is None or site.body is None:
        return replace(_not_analysed(site.level, obstacle), flags=flags), None
    slices, remarks = slices_of(crop, model.profile.geometry, job.all_slices)
    x = (job.input or _input(crop, scale, job.all_slices, model.profile)).x
    known = job.encoded
    seen = attribute(
        x[torch.from_numpy(slices)],
        crop.body[slices],
        _gated(model, known),
        on_progress=tell,
        latents=known.latents if known else None,
        min_slices=model.profile.decision.min_slices,
    )
    view, body, start = close_up(ct, site.body)
    difference = np.zeros(crop.image.shape, np.float32)
    difference[slices] = seen.difference
    lesions = lesions_of(_parts(seen, slices), difference, model.profile.decision)
    if known and known.calibrated:
        lesions = with_probabilities(
            lesions, x[:, 0].numpy(), difference, crop.body, known.p, model.profile
        )
        sure = [lesion for lesion in lesions if lesion.score > job.threshold]
        reference = known.latents.reference[:1]
        # A stop is heard there, too; how far the vertebra is does not change.
        lesions[: len(sure)] = with_stability(
            sure, x, crop.body, reference, model, lambda *_: tell("scoring candidates", 1, 1)
        )
    found = measure(lesions, site.level, crop.grid, view, body, scale.is_hu)
    distance = known.distance if known else None
    doubted = doubts(distance, found, model.profile.confidence)
    finding = VertebraFinding(
        level=site.level,
        status=Status.NO_FINDING,
        p_malignant=known.p if known else p_of_vertebra(seen.p),
        body_source=site.source,
        body_mm3=float(body.sum() * ct.grid.voxel_mm3),
        flags=(*flags, *remarks, *doubted),
        slice_p=tuple(float(p) for p in seen.p),
        suspicious=bool(known and known.p > model.profile.confidence.suspicious_p),
        distance_from_training=distance,
        candidates=tuple(_shifted(candidate, start) for candidate in found),
    )
    return finding.judged(job.threshold), make_evidence(crop, slices, seen, model.profile, scale)


def _gated(model: Model, known: Encoded | None) -> Model:
    """Return weights that edit no slice where the vertebra is surely healthy."""
    if known is None or known.p >= model.profile.confidence.gate_p:
        return model
    closed = replace(model.profile.decision, gate_p=NEVER)
    return replace(model, profile=replace(model.profile, decision=closed))


def _parts(seen: Attribution, slices: npt.NDArray[np.intp]) -> list[SliceCandidate]:
    """Return the candidates with the crop's own numbers of slices."""
    return [replace(s, slice=int(slices[s.slice])) for s in seen.scored]


def _shifted(candidate: Candidate, start: tuple[int, int, int]) -> Candidate:
    """Return a candidate of a close-up with its voxels counted in the whole CT."""
    if candidate.patch is None:
        return candidate
    k, j, i = (a + b for a, b in zip(candidate.patch.start, start))
    return replace(candidate, patch=replace(candidate.patch, start=(k, j, i)))


def _not_analysed(level: str, reason: str) -> VertebraFinding:
    return VertebraFinding(level, Status.NOT_ANALYSED, reason)


def _without_level(
    assignments: Sequence[Assignment], checks: SpineChecks
) -> Iterator[VertebraFinding]:
    """Yield levels without a segment, and segments that may be vertebrae without a level."""
    for level in checks.missing:
        yield _not_analysed(level, NOT_SEGMENTED)
    for assignment in assignments:
        if assignment.problem and assignment.segment not in checks.strangers:
            yield _not_analysed(assignment.name, assignment.problem)


def _facts(model: Model, assignments: Sequence[Assignment]) -> dict[str, Any]:
    """Return what is needed to repeat the run."""
    return {
        "weights": model.profile.name,
        "weights_hash": model.hash,
        "schedule": asdict(model.profile.schedule),
        "device": str(model.device),
        "device_reason": model.device_reason,
        "threads": torch.get_num_threads(),
        "mapping": format_mapping(assignments).splitlines(),
        "versions": {
            "hideseekseg": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _started(
    facts: dict[str, Any], levels: tuple[str, ...], left_out: Sequence[VertebraFinding]
) -> Started:
    return Started(
        device=facts["device"],
        reason=facts["device_reason"],
        weights=facts["weights"],
        weights_hash=facts["weights_hash"],
        threads=facts["threads"],
        levels=levels,
        mapping=tuple(facts["mapping"]),
        not_analysed=tuple((finding.level, finding.reason) for finding in left_out),
    )


def _plain(finding: VertebraFinding, threshold: float) -> dict[str, Any]:
    """Return the vertebra's entry in candidates.json."""
    entry: dict[str, Any] = to_json(Result((finding,), threshold, {}))["vertebrae"][0]
    return {**entry, "status": finding.status.value}
