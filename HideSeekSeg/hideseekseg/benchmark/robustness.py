"""How often unusual inputs are noticed, and usual ones are called unusual."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..anatomy.body import CUT, cut_flags
from ..anatomy.crop import PATIENT_AXES, Mask
from ..anatomy.intensity import Calibration
from ..anatomy.localization import LocatedBody, close_up
from ..anatomy.preparation import Prepared, prepare
from ..anatomy.quality import SIMULATED, measure, obstacles, remarks
from ..anatomy.segment_names import may_be_vertebra
from ..files import atomic, make_folder
from ..imaging.reading import read_ct, read_segmentation
from ..imaging.volume import Grid, Volume, bounding_box, patch_of
from ..model.profile import Geometry
from ..simulation.acquisition import Acquisition, draw_noise
from ..simulation.simulate import COMPACT_GEOMETRY, draw_sample
from ..simulation.source_vertebrae import Source, SourceVertebra, read_sources
from ..spine import spine_of

METAL_CLIPPED_HU = 3071.0  # the most that a scan stored in 12 bits can show
AIR_FILL_HU = -1024.0
ROD_MM = 3.0  # radius
MARGIN_MM = 35.0  # around the body: as far as an outline may slip


@dataclass(frozen=True)
class DegradationScene:
    """The CT around one vertebra, and its body (K, J, I) in it."""

    ct: Volume
    body: Mask
    site: LocatedBody

    def prepared(self, geometry: Geometry) -> Prepared:
        """As the pipeline prepares it."""
        flags = tuple(f for f in self.site.flags if f != CUT)
        flags += (CUT,) if CUT in self.site.flags or cut_flags(self.body) else ()
        site = replace(self.site, body=patch_of(self.body), flags=flags)
        return prepare(site, self.ct, geometry)


Degraded = Callable[[DegradationScene, Geometry], Prepared]


def scene_of(site: LocatedBody, ct: Volume) -> DegradationScene | None:
    """Crop the vertebra of a CT; None where none of it is there."""
    if site.body is None:
        return None
    view, body, _ = close_up(ct, site.body)
    box = bounding_box(body, margin=int(np.ceil(MARGIN_MM / ct.grid.spacing.min())))
    array = view.array[box].astype(np.float32)
    grid = view.grid.cut([s.start for s in box], array.shape)
    return DegradationScene(Volume(array, grid, ct.name), body[box], site)


def noisy(noise_hu: float, scene: DegradationScene, geometry: Geometry) -> Prepared:
    """Noise of that deviation and half a millimetre's correlation in the crop, as in training."""
    prepared = scene.prepared(geometry)
    crop = prepared.crop
    if crop is None:
        return prepared
    s, p, i = (float(v) for v in crop.grid.spacing[::-1])
    how = Acquisition((0.0, 0.0, 0.0), 0.0, noise_hu, 0.5, 0.0, 1.0, 0.0)
    rng = np.random.default_rng(1)
    noise = draw_noise(rng, crop.grid.shape, (s, p, i), how)
    crop = replace(crop, image=crop.image + noise)
    return replace(prepared, crop=crop, quality=measure(scene.ct, scene.body, crop, geometry))


def with_rod(behind_mm: float, scene: DegradationScene, geometry: Geometry) -> Prepared:
    """Add a vertical metal rod, so many mm behind the body (negative: inside)."""
    x, y, _ = _positions(scene)
    back = float(np.quantile(y[scene.body], 0.98))
    across = np.hypot(x - x[scene.body].mean(), y - back - behind_mm)
    array = np.where(across < ROD_MM, METAL_CLIPPED_HU, scene.ct.array)
    return _changed(scene, array).prepared(geometry)


def cropped(share: float, axis: int, scene: DegradationScene, geometry: Geometry) -> Prepared:
    """CT and outline end where that share of the body is cut off, along an LPS axis."""
    along = _voxel_axis(scene.ct.grid, axis)
    layers = np.flatnonzero(scene.body.any(axis=tuple(a for a in range(3) if a != along)))
    stop = int(layers[0] + round((1 - share) * len(layers)))
    keep = tuple(slice(0, stop) if a == along else slice(None) for a in range(3))
    array, body = scene.ct.array[keep], scene.body[keep]
    grid = scene.ct.grid.cut((0, 0, 0), array.shape)
    return DegradationScene(Volume(array, grid), body, scene.site).prepared(geometry)


def blanked(share: float, scene: DegradationScene, geometry: Geometry) -> Prepared:
    """Replace that share of the body, at its front, by air outside a round field of view."""
    _, y, _ = _positions(scene)
    array = np.where(y < np.quantile(y[scene.body], share), np.float32(AIR_FILL_HU), scene.ct.array)
    return _changed(scene, array).prepared(geometry)


def shifted(
    lps: tuple[float, float, float], scene: DegradationScene, geometry: Geometry
) -> Prepared:
    """Shift the outline by so many mm."""
    inverse = np.linalg.inv(scene.ct.grid.ijk_to_lps[:3, :3])
    at = np.argwhere(scene.body) + np.round(inverse @ np.array(lps)).astype(int)[::-1]
    there = at[((at >= 0) & (at < scene.body.shape)).all(axis=1)]
    body = np.zeros_like(scene.body)
    body[tuple(there.T)] = True
    return DegradationScene(scene.ct, body, scene.site).prepared(geometry)


def thick(slice_mm: float, hidden: bool, scene: DegradationScene, geometry: Geometry) -> Prepared:
    """Axial slices averaged to that thickness; ``hidden``: stored as thin ones again."""
    along = _voxel_axis(scene.ct.grid, 2)
    factor = max(int(np.ceil(slice_mm / scene.ct.grid.spacing[2 - along] - 1e-3)), 1)
    count = scene.body.shape[along] // factor

    def pooled(array: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(array, along, 0)[: count * factor]
        mean = moved.reshape(count, factor, *moved.shape[1:]).mean(axis=1)
        mean = np.repeat(mean, factor, axis=0) if hidden else mean
        return np.ascontiguousarray(np.moveaxis(mean, 0, along))

    array = pooled(scene.ct.array.astype(np.float32))
    body = pooled(scene.body.astype(np.float32)) >= 0.5
    matrix = scene.ct.grid.ijk_to_lps.copy()
    if not hidden:
        first = np.zeros(3)
        first[2 - along] = (factor - 1) / 2
        matrix[:3, 3] = scene.ct.grid.lps(first)
        matrix[:3, 2 - along] *= factor
    grid = Grid((array.shape[0], array.shape[1], array.shape[2]), matrix)
    return DegradationScene(Volume(array, grid), body, scene.site).prepared(geometry)


def diseased(seed: int, scene: DegradationScene, geometry: Geometry) -> Prepared:
    """Simulate metastases, benign changes and a scanner, as in training."""
    site = scene.site
    vertebra = SourceVertebra(scene.ct, scene.body, "", site.level, site.axes, site.turn_known)
    sample = draw_sample(np.random.default_rng(seed), vertebra, geometry, True)
    matrix = np.eye(4)
    matrix[:3, :3] = PATIENT_AXES * vertebra.crop_grid(geometry).spacing
    s, p, i = sample.body.shape
    ct = Volume(sample.image, Grid((s, p, i), matrix))
    # The drawn vertebra stands upright in a patient of its own.
    upright = replace(site, axes=None, turn_known=False)
    return DegradationScene(ct, sample.body, upright).prepared(geometry)


def _positions(scene: DegradationScene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LPS mm (x, y, z) of every voxel."""
    at = np.moveaxis(np.indices(scene.body.shape), 0, -1)[..., ::-1]
    x, y, z = np.moveaxis(scene.ct.grid.lps(at), -1, 0)
    return x, y, z


def _voxel_axis(grid: Grid, axis: int) -> int:
    """Return which array axis runs nearest to an LPS axis."""
    return 2 - int(np.abs(grid.direction[axis]).argmax())


def _changed(scene: DegradationScene, array: np.ndarray) -> DegradationScene:
    return replace(scene, ct=replace(scene.ct, array=array.astype(np.float32)))


# What is done, by name, and the rules of which one is expected to say so.
DEGRADED: dict[str, tuple[Degraded, tuple[str, ...]]] = {
    "noise of 100 HU added": (partial(noisy, 100.0), ("noise",)),
    "noise of 150 HU added": (partial(noisy, 150.0), ("noise",)),
    "metal rod through the body": (partial(with_rod, -12.0), ("metal in the body",)),
    "metal rod 8 mm behind the body": (partial(with_rod, 8.0), ("metal nearby",)),
    "CT ends, a quarter of the body lost": (partial(cropped, 0.25, 2), ("cut",)),
    "CT ends, half of the body lost": (partial(cropped, 0.5, 2), ("cut",)),
    "a fifth of the body filled with air": (partial(blanked, 0.2), ("air",)),
    "outline 30 mm too far in front": (
        partial(shifted, (0.0, -30.0, 0.0)),
        ("no bone", "no edge", "air"),
    ),
    "outline half a vertebra too high": (
        partial(shifted, (0.0, 0.0, 14.0)),
        ("no bone", "no edge", "air"),
    ),
    "slices of 5 mm": (partial(thick, 5.0, False), ("thick slices", "few slices")),
    "slices of 5 mm stored as thin ones": (
        partial(thick, 5.0, True),
        ("thick slices", "few slices", "repeated"),
    ),
}


# Every rule, as its alarms are counted, and what it looks at.
RULES = {
    "too small": "fewer than 100 voxels or less than 6 mm of the body: not analysed",
    "cut": "the body ends where the volume ends",
    "metal in the body": "more than 1 % of the body above 3000 HU: not analysed",
    "metal nearby": "anything above 3000 HU within 10 mm of the body",
    "no bone": "less than 5 % of the body above 150 HU: not analysed",
    "not measured": "a voxel of the body below -1500 HU: not analysed",
    "no edge": "the body's rim is not 100 HU brighter than what lies around it",
    "air": "more than 1 % of the body below -500 HU",
    "outside": "more than 5 % of what the network sees lies outside the CT",
    "noise": "noise in the marrow of the crop above 80 HU",
    "thick slices": "voxels longer than 3 mm",
    "few slices": "fewer than 5 voxels of the CT through the body along some axis",
    "repeated": "slices of the CT through the body are copies of others",
    "empty slices": "slices of the CT through the body are empty",
}
AS_IT_IS = "as it is"
# A crop of a simulated vertebra ends at the body's sides: rules about ends mean nothing there.
ILL, DRAWS = "simulated metastases", 3
ILL_RULES = ("metal in the body", "metal nearby", "no bone", "no edge", "air", "noise")
Z = 1.959964  # of a two-sided 95 % interval


@dataclass(frozen=True)
class VertebraCheck:
    """One vertebra, what was done to it, and the rules that spoke."""

    patient: str
    split: str
    level: str
    change: str
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class Rate:
    """``count`` of ``total`` and Wilson's 95 % interval of the share."""

    count: int
    total: int
    low: float
    high: float


def wilson(count: int, total: int) -> Rate:
    """Also right for none and for all; takes every vertebra for independent of the others."""
    if total == 0:
        return Rate(0, 0, 0.0, 1.0)
    p, spread = count / total, Z**2 / total
    middle = (p + spread / 2) / (1 + spread)
    half = Z * math.sqrt(p * (1 - p) / total + spread / (4 * total)) / (1 + spread)
    return Rate(count, total, max(middle - half, 0.0), min(middle + half, 1.0))


def report(
    sources: Path, data: Path, degraded: int, out: Path | None, say: Callable[[str], None]
) -> str:
    """Return the table in Markdown; with ``out`` also as range.md and range.json in that folder."""
    seen: list[VertebraCheck] = []
    for source in read_sources(sources, data):
        seen += look_at(source, degraded)
        say(f"{source.patient}: {sum(s.patient == source.patient for s in seen)} looked at")
    text = to_markdown(seen)
    if out is not None:
        make_folder(out)
        with atomic(out / "range.md") as path:
            path.write_text(text, encoding="utf-8")
        with atomic(out / "range.json") as path:
            path.write_text(json.dumps(to_data(seen), indent=1) + "\n", encoding="utf-8")
    return text


def look_at(source: Source, degraded: int) -> Iterator[VertebraCheck]:
    """Every vertebra of a CT as it is, and so many of its whole ones degraded in every way."""
    ct = read_ct(source.ct, undecided=True)
    segmentation = read_segmentation(source.segmentation, may_be_vertebra, undecided=True)
    spine = spine_of(ct, segmentation, source.labels, COMPACT_GEOMETRY)
    scale = spine.scale().calibration
    levels = spine.inputs.segmented
    found = {level: scene_of(spine.locate(level), spine.inputs.ct) for level in levels}
    scenes = {level: scene for level, scene in found.items() if scene is not None}
    usual = {level: scene.prepared(COMPACT_GEOMETRY) for level, scene in scenes.items()}
    for level, prepared in usual.items():
        yield VertebraCheck(source.patient, source.split, level, AS_IT_IS, alarms(prepared, scale))
    whole = [level for level, p in usual.items() if p.crop and CUT not in p.site.flags]
    chosen = [whole[n * len(whole) // degraded] for n in range(degraded)] if degraded else []
    for level in dict.fromkeys(chosen):
        for change, (degrade, _) in DEGRADED.items():
            made = alarms(degrade(scenes[level], COMPACT_GEOMETRY), scale)
            yield VertebraCheck(source.patient, source.split, level, change, made)
        for seed in range(DRAWS):
            made = alarms(diseased(seed, scenes[level], COMPACT_GEOMETRY), scale)
            yield VertebraCheck(source.patient, source.split, level, ILL, made)


def alarms(prepared: Prepared, scale: Calibration) -> tuple[str, ...]:
    """Return the rules that speak, by their names in RULES."""
    said = ["cut"] if CUT in prepared.site.flags else []
    if prepared.quality is None:
        return (*said, "too small")
    said += [*obstacles(prepared.quality, scale), *remarks(prepared.quality, scale, SIMULATED)]
    return tuple(said)


def to_data(seen: Sequence[VertebraCheck]) -> Mapping[str, object]:
    """Rates by split, rule and change, and every single vertebra."""
    return {
        "rules": RULES,
        "false alarms": {
            rule: {split: asdict(rate) for split, rate in _by_split(seen, AS_IT_IS, (rule,))}
            for rule in RULES
        },
        "false alarms on simulated metastases": {
            rule: {split: asdict(rate) for split, rate in _by_split(seen, ILL, (rule,))}
            for rule in ILL_RULES
        },
        "detection": {
            change: {split: asdict(rate) for split, rate in _by_split(seen, change, expected)}
            for change, (_, expected) in DEGRADED.items()
        },
        "vertebrae": [asdict(one) for one in seen],
    }


def _by_split(
    seen: Sequence[VertebraCheck], change: str, rules: Sequence[str]
) -> Iterator[tuple[str, Rate]]:
    own = [one for one in seen if one.change == change]
    for split in dict.fromkeys(one.split for one in seen):
        part = [one for one in own if one.split == split]
        yield split, wilson(sum(bool(set(rules) & set(one.alarms)) for one in part), len(part))


def to_markdown(seen: Sequence[VertebraCheck]) -> str:
    """Two tables, and the names of the vertebrae behind the alarms."""
    splits = list(dict.fromkeys(one.split for one in seen))
    heads = " | ".join(splits)
    lines = [
        "# Unusual inputs: alarms, false and true",
        "",
        "Limits were chosen on training and validation patients. Every cell: vertebrae with the"
        " alarm of how many, and Wilson's 95 % interval of the share in per cent (vertebrae of one"
        " patient are not independent: the intervals are too narrow).",
        "",
        "## Real vertebrae as they are",
        "",
        f"| rule | alarm if | {heads} |",
        "|---" * (len(splits) + 2) + "|",
    ]
    for rule, meaning in RULES.items():
        rates = " | ".join(rate_cell(rate) for _, rate in _by_split(seen, AS_IT_IS, (rule,)))
        lines.append(f"| {rule} | {meaning} | {rates} |")
    lines += ["", "The alarms:", ""]
    for one in seen:
        if one.change == AS_IT_IS and one.alarms:
            lines.append(f"- {one.patient} {one.level}: {', '.join(one.alarms)}")
    lines += [
        "",
        f"## With simulated metastases and a simulated scanner ({DRAWS} draws of a vertebra)",
        "",
        f"| rule | {heads} |",
        "|---" * (len(splits) + 1) + "|",
    ]
    for rule in ILL_RULES:
        rates = " | ".join(rate_cell(rate) for _, rate in _by_split(seen, ILL, (rule,)))
        lines.append(f"| {rule} | {rates} |")
    lines += [
        "",
        "## The same vertebrae degraded",
        "",
        f"| change | alarm expected from | {heads} |",
        "|---" * (len(splits) + 2) + "|",
    ]
    for change, (_, rules) in DEGRADED.items():
        rates = " | ".join(rate_cell(rate) for _, rate in _by_split(seen, change, rules))
        lines.append(f"| {change} | {' or '.join(rules)} | {rates} |")
    return "\n".join(lines) + "\n"


def rate_cell(rate: Rate) -> str:
    """Return counts and the interval of the share in per cent; a hyphen without a vertebra."""
    if rate.total == 0:
        return "-"
    return f"{rate.count} of {rate.total} ({100 * rate.low:.0f} to {100 * rate.high:.0f})"
