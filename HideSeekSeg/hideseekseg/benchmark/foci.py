"""Round foci of known density and diameter in real vertebral bodies: which of them are found.

Simulated metastases are drawn to look like what a hospital sees, and what is found of them depends
on how they are drawn.  Here density and size are given instead, so that it can be read off where
the method stops to see.  A focus is a ball in the middle of a body, cut off at its outline, with a
soft rim and a part of the bone's own texture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..anatomy.body import CUT
from ..anatomy.segment_names import may_be_vertebra
from ..files import atomic, make_folder
from ..findings import LesionType, VertebraFinding
from ..imaging.reading import read_ct, read_segmentation
from ..imaging.segmentation import Segmentation
from ..imaging.volume import Patch, Volume, shared_voxels
from ..inputs import Options, check_inputs
from ..model.weights import Model, load_model
from ..pipeline import segment_spine
from ..simulation.simulate import COMPACT_GEOMETRY
from ..simulation.source_vertebrae import Source, chosen, read_sources
from ..spine import spine_of
from ..training.evaluation import LEAST_IOU
from .robustness import rate_cell, wilson

DIAMETERS_MM = (10.0, 18.0, 28.0)
# The last of each is where benign bone begins: of a bone island, and of fat.
DENSITIES_HU: dict[LesionType, tuple[float, ...]] = {
    "blastic": (350.0, 500.0, 700.0, 1000.0, 1400.0),
    "lytic": (80.0, 40.0, 0.0, -50.0),
}
RIM_MM = 1.5  # over which a focus passes into the bone
TEXTURE = 0.7  # of the bone's deviation from its surroundings that stays within a focus
SMOOTH_MM = 2.0  # standard deviation of what is its surroundings
EVERY = 3  # body of a scan has a focus, so that most of the others beside it are as they were


@dataclass(frozen=True)
class Focus:
    """A ball of one density; ``type`` says what a reader would call it."""

    type: LesionType
    hounsfield: float
    diameter_mm: float


@dataclass(frozen=True)
class SeenFocus:
    """What ``segment`` makes of a focus; ``p`` is P(malignant) of the vertebra, if analysed."""

    patient: str
    split: str
    level: str
    focus: Focus
    found: bool
    p: float | None


@dataclass(frozen=True)
class Beside:
    """Accepted findings (``false``) in a patient's other vertebrae, in the run with a focus."""

    patient: str
    split: str
    focus: Focus
    vertebrae: int
    false: int


def all_foci() -> list[Focus]:
    """Return every density with every diameter."""
    return [
        Focus(kind, density, diameter)
        for kind, densities in DENSITIES_HU.items()
        for density in densities
        for diameter in DIAMETERS_MM
    ]


def painted(ct: Volume, body: Patch, focus: Focus) -> tuple[Volume, Patch]:
    """Return the CT (HU) with a focus in a body, and the voxels that are at least half of it."""
    spacing = ct.grid.spacing[::-1]
    inside = np.pad(body.array, 1)
    depth = ndimage.distance_transform_edt(inside, sampling=spacing)[1:-1, 1:-1, 1:-1]
    middle = np.unravel_index(int(depth.argmax()), depth.shape)
    away = np.sqrt(
        sum(
            ((at - centre) * mm) ** 2
            for at, centre, mm in zip(np.indices(depth.shape), middle, spacing)
        )
    )
    share = np.clip((focus.diameter_mm / 2 - away) / RIM_MM + 0.5, 0.0, 1.0) * body.array
    bone = ct.array[body.box].astype(np.float32)
    texture = bone - ndimage.gaussian_filter(bone, SMOOTH_MM / spacing)
    mixed = bone * (1 - share) + share * (focus.hounsfield + TEXTURE * texture)
    array = ct.array.copy()
    is_whole = np.issubdtype(array.dtype, np.integer)
    array[body.box] = np.round(mixed) if is_whole else mixed
    return replace(ct, array=array), Patch(share >= 0.5, body.start)


def whole_bodies(ct: Volume, segmentation: Segmentation, labels: str) -> dict[str, Patch]:
    """Return the bodies that lie in the CT as a whole by level, from the head down."""
    spine = spine_of(ct, segmentation, labels, COMPACT_GEOMETRY)
    located = (spine.locate(level) for level in spine.inputs.segmented)
    return {x.level: x.body for x in located if x.body is not None and CUT not in x.flags}


def look_at(
    source: Source, model: Model, foci: Sequence[Focus], say: Callable[[str], None]
) -> Iterator[SeenFocus | Beside]:
    """Run the method on a scan once for each focus, which every third body then has."""
    ct = read_ct(source.ct, undecided=True)
    segmentation = read_segmentation(source.segmentation, may_be_vertebra, undecided=True)
    bodies = whole_bodies(ct, segmentation, source.labels)
    levels = tuple(level for level in bodies if level not in source.leave_out)
    ill = levels[1::EVERY] or levels[:1]
    for number, focus in enumerate(foci):
        changed, truth = ct, {}
        for level in ill:
            changed, truth[level] = painted(changed, bodies[level], focus)
        inputs = check_inputs(changed, segmentation, Options(source.labels, levels))
        result = segment_spine(inputs, model)
        well = [v for v in result.vertebrae if v.level not in truth and v.p_malignant is not None]
        accepted = sum(len(v.accepted(result.threshold)) for v in well)
        yield Beside(source.patient, source.split, focus, len(well), accepted)
        for vertebra in result.vertebrae:
            if vertebra.level in truth:
                found = _is_found(vertebra, truth[vertebra.level], focus.type, result.threshold)
                seen = source.patient, source.split, vertebra.level, focus, found
                yield SeenFocus(*seen, vertebra.p_malignant)
        say(f"{source.patient}: {number + 1} of {len(foci)} runs")


def _is_found(vertebra: VertebraFinding, truth: Patch, kind: LesionType, threshold: float) -> bool:
    for candidate in vertebra.accepted(threshold):
        patch = candidate.patch
        if candidate.type == kind and patch is not None:
            shared = shared_voxels(patch, truth)
            union = int(patch.array.sum()) + int(truth.array.sum()) - shared
            if shared >= LEAST_IOU * union:
                return True
    return False


def report(
    sources: Path,
    data: Path,
    splits: Sequence[str],
    weights: Path,
    out: Path,
    say: Callable[[str], None],
) -> str:
    """Look at all scans of these splits; write foci.md and foci.json to a folder, return the first.

    Raises InputError where a scan cannot be read, a split has none, or the folder cannot be made.
    """
    known = read_sources(sources, data)
    wanted = chosen(sources, splits, (s.split for s in known), "has no row with the split {}")
    model = load_model(weights)
    make_folder(out)  # before hours of work
    rows: list[SeenFocus | Beside] = []
    for source in known:
        if source.split in wanted:
            rows += look_at(source, model, all_foci(), say)
    seen = [row for row in rows if isinstance(row, SeenFocus)]
    beside = [row for row in rows if isinstance(row, Beside)]
    text = to_markdown(seen, beside, model)
    with atomic(out / "foci.md") as path:
        path.write_text(text, encoding="utf-8")
    found = {"weights": model.hash, "foci": [asdict(x) for x in seen]}
    found["beside"] = [asdict(x) for x in beside]
    with atomic(out / "foci.json") as path:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return text


def to_markdown(seen: Sequence[SeenFocus], beside: Sequence[Beside], model: Model) -> str:
    """Return a table for each split, with a row for each density."""
    lines = [
        "# Round foci of known density and diameter",
        "",
        "Painted into the middle of every third whole vertebral body of real scans, the same in all"
        f" of a run: a ball, cut off at the body's outline, with a rim of {RIM_MM:g} mm and"
        f" {100 * TEXTURE:.0f} % of the bone's own texture. Found: an accepted finding of the type"
        f" with an intersection over union of at least {LEAST_IOU:g}. Each cell: found of how many,"
        " Wilson's 95 % interval of the share in per cent (vertebrae of one patient are not"
        " independent: the intervals are too narrow), and the mean P(malignant) of the vertebra."
        " These are drawings, no lesions: they tell where the method stops to see, not how often"
        " it finds a metastasis.",
        "",
        f"Weights {model.profile.name}, {model.hash[:12]}.",
    ]
    for split in dict.fromkeys(one.split for one in seen):
        own = [one for one in seen if one.split == split]
        around = [one for one in beside if one.split == split]
        patients = len({one.patient for one in own})
        heads = " | ".join(f"{mm:g} mm" for mm in DIAMETERS_MM)
        lines += ["", f"## {split.capitalize()} patients ({patients})", ""]
        lines += [f"| type | HU | {heads} |", "|---" * (len(DIAMETERS_MM) + 2) + "|"]
        for kind, densities in DENSITIES_HU.items():
            for hu in densities:
                foci = [Focus(kind, hu, mm) for mm in DIAMETERS_MM]
                cells = (_cell([x for x in own if x.focus == focus]) for focus in foci)
                lines.append(f"| {kind} | {hu:g} | {' | '.join(cells)} |")
        false, looks = sum(x.false for x in around), sum(x.vertebrae for x in around)
        vertebrae = sum({x.patient: x.vertebrae for x in around}.values())
        lines += ["", f"Accepted findings beside them: {false} in {looks} looks at {vertebrae}"]
        lines[-1] += " other vertebrae, one for each focus."
    return "\n".join(lines) + "\n"


def _cell(seen: Sequence[SeenFocus]) -> str:
    shown = rate_cell(wilson(sum(one.found for one in seen), len(seen)))
    if not seen:
        return shown
    known = [one.p for one in seen if one.p is not None]
    p = f"P {np.mean(known):.2f}" if known else "not analysed"
    return f"{shown}, {p}"
