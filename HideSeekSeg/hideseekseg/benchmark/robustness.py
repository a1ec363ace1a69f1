"""How often unusual inputs are noticed, and usual ones are called unusual."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..anatomy.body import CUT
from ..anatomy.intensity import Calibration, calibrate
from ..anatomy.labelling import assign
from ..anatomy.localization import all_bodies, find_site, levels_of
from ..anatomy.preparation import Prepared
from ..anatomy.quality import SIMULATED, obstacles, remarks
from ..imaging.reading import atomic, make_folder, read_ct, read_segmentation
from ..imaging.volume import Volume
from ..simulation.simulate import COMPACT_GEOMETRY
from ..simulation.source_vertebrae import Source, read_sources
from .degradations import DEGRADED, Scene, diseased, scene_of

# Every rule, as its alarms are counted, and what it looks at.
RULES = {
    "too small": "fewer than 100 voxels or less than 6 mm of the body: not analysed",
    "cut": "the body ends where the volume ends",
    "metal in the body": "more than 1 % of the body above 3000 HU: not analysed",
    "metal nearby": "anything above 3000 HU within 10 mm of the body",
    "no bone": "less than 5 % of the body above 150 HU: not analysed",
    "no edge": "the body's rim is not 100 HU brighter than what lies around it",
    "air": "more than 1 % of the body below -500 HU",
    "outside": "more than 5 % of what the network sees lies outside the CT",
    "noise": "noise in the marrow of the crop above 80 HU",
    "thick slices": "voxels longer than 3 mm",
    "few slices": "fewer than 5 voxels of the CT through the body along some axis",
}
AS_IT_IS = "as it is"
# A crop of a simulated vertebra ends at the body's sides: rules about ends mean nothing there.
ILL, DRAWS = "simulated metastases", 3
ILL_RULES = ("metal in the body", "metal nearby", "no bone", "no edge", "air", "noise")
Z = 1.959964  # of a two-sided 95 % interval


@dataclass(frozen=True)
class Seen:
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
    """The table in Markdown; with ``out`` also as range.md and range.json in that folder."""
    seen: list[Seen] = []
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


def look_at(source: Source, degraded: int) -> Iterator[Seen]:
    """Every vertebra of a CT as it is, and so many of its whole ones degraded in every way."""
    ct = read_ct(source.ct)
    scenes = _scenes(source, ct)
    usual = {level: scene.prepared(COMPACT_GEOMETRY) for level, scene in scenes.items()}
    landmarks = [p.landmarks for p in usual.values() if p.landmarks]
    scale = calibrate(ct, landmarks)
    for level, prepared in usual.items():
        yield Seen(source.patient, source.split, level, AS_IT_IS, alarms(prepared, scale))
    whole = [level for level, p in usual.items() if p.crop and CUT not in p.site.flags]
    chosen = [whole[n * len(whole) // degraded] for n in range(degraded)] if degraded else []
    for level in dict.fromkeys(chosen):
        for change, (degrade, _) in DEGRADED.items():
            found = alarms(degrade(scenes[level], COMPACT_GEOMETRY), scale)
            yield Seen(source.patient, source.split, level, change, found)
        for seed in range(DRAWS):
            found = alarms(diseased(seed, scenes[level], COMPACT_GEOMETRY), scale)
            yield Seen(source.patient, source.split, level, ILL, found)


def _scenes(source: Source, ct: Volume) -> dict[str, Scene]:
    segmentation = read_segmentation(source.segmentation)
    assignments = assign(segmentation, source.labels)
    marked = all_bodies(segmentation, assignments, None)
    scenes = {}
    for level in levels_of(assignments):
        scene = scene_of(find_site(level, segmentation, assignments, ct.grid, marked), ct)
        if scene is not None:
            scenes[level] = scene
    return scenes


def alarms(prepared: Prepared, scale: Calibration) -> tuple[str, ...]:
    """The rules that speak, by their names in RULES."""
    said = ["cut"] if CUT in prepared.site.flags else []
    if prepared.quality is None:
        return (*said, "too small")
    said += [*obstacles(prepared.quality, scale), *remarks(prepared.quality, scale, SIMULATED)]
    return tuple(said)


def to_data(seen: Sequence[Seen]) -> Mapping[str, object]:
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
    seen: Sequence[Seen], change: str, rules: Sequence[str]
) -> Iterator[tuple[str, Rate]]:
    own = [one for one in seen if one.change == change]
    for split in dict.fromkeys(one.split for one in seen):
        part = [one for one in own if one.split == split]
        yield split, wilson(sum(bool(set(rules) & set(one.alarms)) for one in part), len(part))


def to_markdown(seen: Sequence[Seen]) -> str:
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
        rates = " | ".join(_cell(rate) for _, rate in _by_split(seen, AS_IT_IS, (rule,)))
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
        rates = " | ".join(_cell(rate) for _, rate in _by_split(seen, ILL, (rule,)))
        lines.append(f"| {rule} | {rates} |")
    lines += [
        "",
        "## The same vertebrae degraded",
        "",
        f"| change | alarm expected from | {heads} |",
        "|---" * (len(splits) + 2) + "|",
    ]
    for change, (_, rules) in DEGRADED.items():
        rates = " | ".join(_cell(rate) for _, rate in _by_split(seen, change, rules))
        lines.append(f"| {change} | {' or '.join(rules)} | {rates} |")
    return "\n".join(lines) + "\n"


def _cell(rate: Rate) -> str:
    if rate.total == 0:
        return "-"
    return f"{rate.count} of {rate.total} ({100 * rate.low:.0f} to {100 * rate.high:.0f})"
