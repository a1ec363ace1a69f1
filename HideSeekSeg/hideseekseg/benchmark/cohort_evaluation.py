"""What the weights are worth on a cohort whose lesions or affected vertebrae are known.

The manifest's own columns say what is known of a case: ``lytic`` and ``blastic`` are masks (every
voxel but 0), ``affected`` lists the levels with a metastasis ("T10 L1", or "none").
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..anatomy.labelling import assign
from ..anatomy.segment_names import level_of, may_be_vertebra
from ..cohort.case_run import CaseStatus, inputs_of
from ..cohort.manifest import REFERENCE, read_cohort
from ..cohort.tables import CaseResult, CohortIndex, case_results, read_index
from ..errors import InputError, UserError
from ..files import atomic
from ..findings import LESION_TYPES, LesionType, Status, VertebraFinding, from_head_down
from ..imaging.reading import check_segmentation, read_segmentation
from ..imaging.volume import Grid, Patch, move_patch, patch_of, shared_voxels, triple
from ..output.result_folder import FILES, read_result
from ..output.tables import write_plain
from ..plain_data import counted
from ..training.evaluation import LEAST_TRUE_VOXELS, RULE, Match, match
from .metrics import REPLICATES, Estimate, Outcome, draw_weights, estimates, reliability

AFFECTED = REFERENCE[-1]
FILE, TABLE = "evaluation.json", "evaluation.md"
_LEAST_REPLICATES, _MOST_WEIGHTS = 200, 20_000_000

Patches = dict[str, list[Patch]]  # of a type of lesion, by level


@dataclass(frozen=True)
class _Claimed:
    """A finding in a box of the CT, as the matching rule asks for it."""

    score: float
    patch: Patch
    start: tuple[int, int, int]

    def mask(self, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
        """Return its voxels in the box that begins at ``start``."""
        mask = np.zeros(shape, bool)
        own = tuple(s - first for s, first in zip(self.patch.start, self.start))
        Patch(self.patch.array, (own[0], own[1], own[2])).paint(mask)
        return mask


@dataclass
class _Known:
    """What is compared: vertebrae of known state, those of known lesions, and what was left out.

    ``outlined`` has those of either type whose mask is given; ``unknown`` counts vertebrae without
    a lesion in the one mask that is given: nobody said whether they have one of the other type.
    """

    judged: list[Outcome] = field(default_factory=list)
    outlined: dict[LesionType, list[Outcome]] = field(
        default_factory=lambda: {kind: [] for kind in LESION_TYPES}
    )
    unknown: int = 0
    thresholds: set[float] = field(default_factory=set)
    weights: set[str] = field(default_factory=set)
    cases: int = 0
    lesions: int = 0
    elsewhere: int = 0
    missing: int = 0
    not_analysed: int = 0


def evaluate_cohort(folder: Path, tell: Callable[[str], None]) -> tuple[Path, ...]:
    """Compare a cohort's results with what its manifest knows now; write and return the files.

    Cases without a result or without a reference are left out, and so is one whose reference cannot
    be used, which ``tell`` says.  Raises InputError where nothing is left, and where the cases were
    not all run with the same options, weights and version, and on the files as they are now.
    """
    index = _as_it_is_now(read_index(folder), tell)
    if not any(name in index.further for name in REFERENCE):
        cause = f"its manifest has none of the columns {', '.join(REFERENCE)}: nothing is known"
        raise InputError(folder, cause)
    known = _Known()
    earlier = []
    for found in case_results(index):
        if found.record.status is CaseStatus.EARLIER:
            earlier.append(found.case.name)
            continue
        try:
            _add(known, index, found, tell)
        except (UserError, ValueError) as error:
            tell(f"{found.case.name}: left out: {error}")
    if earlier:
        cause = "contains results of an earlier run, with other files, options, weights, labels or"
        cause += " version"
        names = ", ".join(earlier[:3]) + (
            f" and {left} more" if (left := len(earlier) - 3) > 0 else ""
        )
        raise InputError(folder, f"{cause} ({names}): run the cohort to its end")
    if not known.cases:
        raise InputError(folder, "contains no result of a case whose lesions or levels are known")
    if len(known.thresholds) > 1 or len(known.weights) > 1:
        raise InputError(folder, "contains results of several weights or thresholds: run it again")
    data = _figures(known)
    write_plain(folder / FILE, data)
    with atomic(folder / TABLE) as temporary:
        temporary.write_text(_table(data), encoding="utf-8")
    return folder / FILE, folder / TABLE


def _as_it_is_now(index: CohortIndex, tell: Callable[[str], None]) -> CohortIndex:
    """Return the index with patients and columns of the manifest as it stands there now.

    They may have been corrected since the run, whose copy serves where the manifest has gone.  A
    case that is no longer in it, or has other files there, is left out, which ``tell`` says.
    """
    path = Path(index.manifest)
    if not path.exists():
        tell(f"{path}: does not exist any more: what is known is that of the last run")
        return index
    cohort = read_cohort(path)
    now = {case.name: case for case in cohort.cases}
    cases = []
    for case in index.cases:
        own = now.get(case.name)
        if own is None:
            tell(f"{case.name}: left out: the manifest has no right line of it any more")
        elif inputs_of(own) != case.inputs:
            tell(f"{case.name}: left out: the manifest has other files of it now: run it again")
        else:
            cases.append(replace(case, patient=own.patient, further=own.further))
    return replace(index, cases=tuple(cases), further=cohort.further)


def _add(known: _Known, index: CohortIndex, found: CaseResult, tell: Callable[[str], None]) -> None:
    """Add the vertebrae of a case; raises UserError or ValueError before any of them is added."""
    result, further = found.result, found.case.further
    masks = {kind: further.get(kind, "") for kind in LESION_TYPES}
    if result is None or not (any(masks.values()) or further.get(AFFECTED)):
        return
    affected = _levels(further[AFFECTED]) if further.get(AFFECTED) else None
    home = Path(index.manifest).parent
    paths = {kind: home / text for kind, text in masks.items() if text}
    truth: Mapping[LesionType, Patches] | None = None
    elsewhere = 0
    claims: dict[tuple[str, str], list[tuple[float, Patch]]] = {}
    if paths:
        truth, elsewhere = _truth(found, paths)
        claims = _claims(found.case.folder)
    judged, seen, skipped = [], [], 0
    for vertebra in result.vertebrae:
        if vertebra.status is Status.NOT_ANALYSED:
            skipped += 1
            continue
        level = vertebra.level
        drawn = truth is not None and any(truth[kind].get(level) for kind in LESION_TYPES)
        ill = _state(drawn, len(paths) == len(LESION_TYPES), affected, level)
        matches = {
            kind: _match(truth[kind].get(level, []) if truth else [], claims.get((level, kind), []))
            for kind in LESION_TYPES
        }
        if truth is None:  # how many there are is known, where they should be is not
            matches = {kind: _unplaced(vertebra, kind) for kind in LESION_TYPES}
        p = math.nan if vertebra.p_malignant is None else vertebra.p_malignant
        one = Outcome(found.case.patient, f"{found.case.name} {level}", bool(ill), p, matches)
        seen.append(one)
        if ill is not None:
            judged.append(one)
    known.judged += judged
    known.unknown += len(seen) - len(judged)
    for kind in paths:
        known.outlined[kind] += seen
        known.lesions += sum(len(one.matches[kind].iou) for one in seen)
    missing = (affected or set()) - {vertebra.level for vertebra in result.vertebrae}
    if missing:
        levels = ", ".join(sorted(missing, key=from_head_down))
        tell(f"{found.case.name}: affected levels that its result does not have: {levels}")
    known.missing += len(missing)
    known.not_analysed += skipped
    known.elsewhere += elsewhere
    known.cases += 1
    known.thresholds.add(result.threshold)
    known.weights.add(str(result.run.get("weights_hash", "")))


def _state(drawn: bool, both: bool, affected: set[str] | None, level: str) -> bool | None:
    """Return whether a vertebra is diseased, None where nobody says so.

    ``drawn``: it has a lesion in a mask; ``both``: of either type there is one.  Raises ValueError
    where masks and the levels that are ``affected`` disagree.
    """
    if affected is None:
        return drawn if drawn or both else None
    ill = level in affected
    if (drawn and not ill) or (both and ill and not drawn):
        raise ValueError(f"its lesions and its column {AFFECTED} disagree on {level}")
    return ill


def _unplaced(vertebra: VertebraFinding, kind: LesionType) -> Match:
    """Return the scores of a vertebra's candidates against lesions that nobody has outlined."""
    scores = [c.score for c in vertebra.candidates if c.type == kind]
    none = np.empty(0)
    return Match(np.array(scores, float), np.zeros((0, len(scores))), none, none, 0)


def _levels(text: str) -> set[str]:
    """Read levels in any usual spelling; raises ValueError for what is not one level each."""
    words = [word for word in re.split(r"[\s,;+]+", text) if word]
    none = [word for word in words if word.lower() in ("none", "0", "healthy")]
    if none and len(words) > 1:
        raise ValueError(f"its column {AFFECTED} says {none[0]!r} beside other words")
    found = {word: level_of(word) for word in words if word not in none}
    unknown = next((word for word, level in found.items() if level is None), None)
    if unknown is not None:
        cause = f"{unknown!r} in its column {AFFECTED} is not one level"
        raise ValueError(f"{cause}: name each, such as T10 T11 T12, or write none")
    return {level for level in found.values() if level is not None}


def _truth(
    found: CaseResult, paths: Mapping[LesionType, Path]
) -> tuple[dict[LesionType, Patches], int]:
    """Return the true lesions on the CT's grid by type and level, and how many lie elsewhere.

    A lesion belongs, whole, to the analysed vertebra that it shares most voxels with.
    """
    grid = check_segmentation(found.case.folder / FILES[0]).grid
    assert grid is not None and found.result is not None
    analysed = {v.level for v in found.result.vertebrae if v.status is not Status.NOT_ANALYSED}
    vertebrae = _vertebrae(found, grid)
    truth: dict[LesionType, Patches] = {kind: {} for kind in LESION_TYPES}
    elsewhere = 0
    for kind, path in paths.items():
        for lesion in _lesions(path, grid):
            shared = {level: shared_voxels(lesion, patch) for level, patch in vertebrae.items()}
            level = max(shared, key=lambda name: shared[name])
            if shared[level] and level in analysed:
                truth[kind].setdefault(level, []).append(lesion)
            elif lesion.array.sum() >= LEAST_TRUE_VOXELS:
                elsewhere += 1
    return truth, elsewhere


def _vertebrae(found: CaseResult, grid: Grid) -> dict[str, Patch]:
    """Return the vertebrae of the segmentation that was given, on the CT's grid."""
    segmentation = read_segmentation(found.case.segmentation, may_be_vertebra)
    patches = {}
    for one in assign(segmentation, found.case.labels or None):
        box = segmentation.box(one.segment) if one.level is not None else None
        if box is None or one.level is None:
            continue
        own = patch_of(segmentation.mask(one.segment, box), (s.start for s in box))
        moved = own and move_patch(own, segmentation.grid, grid)
        if moved:
            patches[one.level] = moved
    if not patches:
        raise ValueError("its segmentation lies outside of the CT")
    return patches


def _lesions(path: Path, grid: Grid) -> Iterator[Patch]:
    """Yield the lesions of a mask, parts that are joined by their faces, on the CT's grid.

    An empty mask says that there is none.
    """
    try:
        segmentation = read_segmentation(path)
    except InputError as error:
        if "is an empty segmentation" in error.cause:
            return
        raise
    array = np.any([layer.array != 0 for layer in segmentation.layers], axis=0)
    whole = patch_of(array)
    moved = whole and move_patch(whole, segmentation.grid, grid)
    if not moved:
        raise ValueError(f"{path}: lies outside of the CT")
    parts, count = ndimage.label(moved.array)
    for number in range(1, count + 1):
        part = patch_of(parts == number, moved.start)
        if part is not None:
            yield part


def _claims(folder: Path) -> dict[tuple[str, str], list[tuple[float, Patch]]]:
    """Return score and voxels of what the run accepted, by level and type, without any review."""
    stored = read_result(folder, unreviewed=True)
    claims: dict[tuple[str, str], list[tuple[float, Patch]]] = {}
    for item in stored.lesions:
        claims.setdefault((item.level, item.type), []).append((item.score, stored.patches[item.id]))
    return claims


def _match(truth: Sequence[Patch], claims: Sequence[tuple[float, Patch]]) -> Match:
    """Compare the findings of one type with the true lesions of it, in the box around all."""
    patches = [*truth, *(patch for _, patch in claims)]
    if not patches:
        return match(np.zeros((1, 1, 1), bool), [])
    low = np.min([p.start for p in patches], axis=0)
    high = np.max([np.add(p.start, p.array.shape) for p in patches], axis=0)
    start, shape = triple(low), triple(high - low)
    mask = np.zeros(shape, bool)
    for patch in truth:
        mask |= _Claimed(0.0, patch, start).mask(shape)
    return match(mask, [_Claimed(score, patch, start) for score, patch in claims])


def _figures(known: _Known) -> dict[str, Any]:
    threshold = next(iter(known.thresholds))
    figures = _estimates(known.judged, threshold)
    of_vertebrae = ("vertebra AUC", "Brier score", "false findings per healthy vertebra")
    chosen = {name: figures[name] for name in of_vertebrae if name in figures}
    for kind, outcomes in known.outlined.items():
        own = _estimates(outcomes, threshold)
        chosen |= {name: one for name, one in own.items() if name.startswith(f"{kind} ")}
    compared = [*known.judged, *(one for own in known.outlined.values() for one in own)]
    return {
        "weights_hash": next(iter(known.weights)),
        "threshold": threshold,
        "cases": known.cases,
        "patients": len({one.patient for one in compared}),
        "vertebrae": len(known.judged),
        "diseased": sum(one.diseased for one in known.judged),
        "lesions": known.lesions,
        "lesions in no analysed vertebra": known.elsewhere,
        "affected levels without a vertebra": known.missing,
        "vertebrae not analysed": known.not_analysed,
        "vertebrae of unknown state": known.unknown,
        "metrics": {
            name: {key: _number(value) for key, value in asdict(one).items()}
            for name, one in chosen.items()
        },
        "reliability": [asdict(one) for one in reliability(_with_p(known.judged))],
        "rule": RULE,
    }


def _estimates(outcomes: Sequence[Outcome], threshold: float) -> dict[str, Estimate]:
    if not outcomes:
        return {}
    patients = [one.patient for one in outcomes]
    times = max(_LEAST_REPLICATES, min(REPLICATES, _MOST_WEIGHTS // len(outcomes)))
    weights = draw_weights(patients, [one.vertebra for one in outcomes], times)
    return estimates(outcomes, dict.fromkeys(LESION_TYPES, threshold), weights)


def _with_p(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if math.isfinite(one.p)]


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _table(data: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    skipped = ("vertebra that was not analysed", "vertebrae that were not analysed")
    outside = (
        "lesion that lies in no analysed vertebra",
        "lesions that lie in no analysed vertebra",
    )
    missing = counted(data["affected levels without a vertebra"], "affected level")
    lines = [
        "# What the weights are worth on this cohort",
        "",
        f"{counted(data['cases'], 'case')} of {counted(data['patients'], 'patient')},"
        f" {counted(data['vertebrae'], 'vertebra', 'vertebrae')}, {data['diseased']} of them"
        f" diseased, {counted(data['lesions'], 'outlined lesion')};"
        f" threshold {data['threshold']:g}.",
        "",
        f"Left out: {counted(data['vertebrae not analysed'], *skipped)},"
        f" {data['vertebrae of unknown state']} of unknown state (no lesion in the one mask that is"
        f" given), {counted(data['lesions in no analysed vertebra'], *outside)}, and"
        f" {missing} that the results do not have.",
        "",
        "| metric | value | 95 % interval, patients resampled |",
        "|---|---|---|",
    ]
    for name, one in data["metrics"].items():
        value, low, high = (_shown(one[key]) for key in ("value", "low", "high"))
        lines.append(f"| {name} | {value} | {low} to {high} |")
    if data["reliability"]:
        lines += ["", "| mean P(malignant) | vertebrae | diseased |", "|---|---|---|"]
        lines += [
            f"| {b['p']:.2f} | {b['count']} | {b['diseased']:.2f} |" for b in data["reliability"]
        ]
    return "\n".join([*lines, "", data["rule"], ""])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
