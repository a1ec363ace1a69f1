"""What became of the lesions of an earlier result of the same patient."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from ..anatomy.label_conventions import LEVELS
from ..anatomy.level_order import VARIANTS
from ..anatomy.vertebra_shape import place_in_body
from ..errors import InputError
from ..findings import Evidence, from_head_down
from ..review.burden import ComparedResult, LesionChange, LocatedLesion, compare_results
from ..review.items import Item, is_open
from .figures.drawing import Mask
from .report_blocks import Block, ReportHeading, ReportTable, ReportText, millilitres
from .report_lesions import SeenLesion, analysed_states, images_of, measured, seen_lesions
from .result_folder import StoredResult, title_of

REJECTED_EXPLAINED = (
    "Rejected now, or before: something was found at the lesion's place in that result as well, and"
    " its reader rejected it. It counts in no burden, and the lesion is neither gone nor new."
)


def check_earlier(stored: StoredResult, earlier: StoredResult) -> None:
    """Raise InputError where an "earlier" result is of another patient, or is not earlier."""
    first, second = stored.scan, earlier.scan
    patients = [x.get("patient_id", "") for x in (first, second)]
    if all(patients) and patients[0] != patients[1]:
        raise InputError(earlier.folder, "is of another patient: their numbers differ")
    if first.get("sha256") and first["sha256"] == second.get("sha256"):
        raise InputError(earlier.folder, "is of the same scan: a follow-up needs an earlier one")
    dates = [x.get("study_date", "") for x in (first, second)]
    if all(len(x) == 8 and x.isdecimal() for x in dates) and dates[1] > dates[0]:
        cause = f"is of a later study than {stored.folder.name} ({dates[1]}, {dates[0]})"
        raise InputError(earlier.folder, f"{cause}: exchange the two")


def follow_up(
    stored: StoredResult,
    earlier: StoredResult,
    images: Mapping[str, Evidence],
    seen: Mapping[str, SeenLesion],
) -> list[Block]:
    """Return what changed since the earlier result; ``images`` by level, ``seen`` lesions by id.

    Raises InputError where an image of the earlier result is damaged.
    """
    earlier = replace(earlier, lesions=tuple(measured(earlier, x) for x in earlier.lesions))
    old_images = images_of(earlier)
    before = {x.lesion.id: x for x in seen_lesions(earlier, old_images)}
    blocks: list[Block] = [ReportHeading("Follow-up")]
    text = f"Against {title_of(earlier)}."
    if not all(x.scan.get("patient_id") for x in (stored, earlier)):
        text += " That both are of one patient is not known to this report."
    blocks.append(ReportText(text))
    missing = [x.name for x in stored.lesions if x.id not in seen]
    missing += [f"{x.name} (earlier)" for x in earlier.lesions if x.id not in before]
    if missing:
        cause = "Without images of their vertebrae (--each), these are not compared: "
        blocks.append(ReportText(f"{cause}{', '.join(missing)}.", warning=True))
    both = (
        _compared("this result", stored, images, seen),
        _compared("the earlier result", earlier, old_images, before),
    )
    head = ("Lesion", "Earlier", "State", "Volume before", "Volume now", "Change", "Density")
    changes = compare_results(*both)
    blocks.append(ReportTable(head, tuple(_change(change) for change in changes)))
    if any(change.rejected for change in changes):
        blocks.append(ReportText(REJECTED_EXPLAINED))
    once = {*both[0].analysed} ^ {*both[1].analysed}
    if once:
        levels = dict.fromkeys(s.level for s in (*stored.states, *earlier.states))
        said = ", ".join(level for level in sorted(levels, key=from_head_down) if level in once)
        blocks.append(ReportText(f"Analysed in one of both only: {said}.", warning=True))
    if shifted := _numbered_otherwise(*(x.analysed for x in both)):
        blocks.append(ReportText(shifted, warning=True))
    return blocks


def _numbered_otherwise(now: Collection[str], before: Collection[str]) -> str:
    """Return a warning where the levels of two results are the same but for a shift; or ""."""
    usual = [level for level in LEVELS if level not in VARIANTS]
    ranges = [[level for level in usual if level in levels] for levels in (now, before)]
    places = [[usual.index(level) for level in levels] for levels in ranges]
    apart = {a - b for a, b in zip(*places)}
    if len(places[0]) != len(places[1]) or len(apart) != 1 or apart == {0}:
        return ""
    said = [x[0] if len(x) == 1 else f"{x[0]} to {x[-1]}" for x in ranges]
    return (
        f"Both results have as many vertebrae, {said[0]} and (earlier) {said[1]}: if one of them is"
        " numbered otherwise, lesions are compared with those of the neighbours."
    )


def _compared(
    name: str,
    stored: StoredResult,
    images: Mapping[str, Evidence],
    seen: Mapping[str, SeenLesion],
) -> ComparedResult:
    unseen = [x for x in stored.lesions if x.id not in seen]
    others = [x for x in stored.others if x.verdict != "unreviewed" or is_open(x, stored.threshold)]
    not_counted = [
        SeenLesion(item, images[item.level], mask)
        for item in others
        if item.level in images and (mask := _point(item, images[item.level])) is not None
    ]
    return ComparedResult(
        name,
        _located(seen.values()),
        unseen,
        _located(not_counted),
        {x.level for x in (*unseen, *(x for x in others if x.level not in images))},
        [s.level for s in analysed_states(stored)],
        {s.level: s.reason for s in stored.states},
        stored.is_reviewed,
        stored.threshold,
    )


def _point(item: Item, evidence: Evidence) -> Mask | None:
    """Return the middle of a candidate, whose voxels no folder keeps, on a crop; None outside."""
    at = np.rint(evidence.grid.ijk(item.centroid_lps)).astype(int)[::-1]
    if (at < 0).any() or (at >= evidence.grid.shape).any() or not evidence.body.any():
        return None
    mask = np.zeros(evidence.grid.shape, bool)
    mask[tuple(at)] = True
    return mask


def _change(change: LesionChange) -> tuple[str, ...]:
    """Return a row of the follow-up's table; what is not compared, or rejected, has no change."""
    sides = change.now, change.before
    names = [", ".join(x.name for x in side) for side in sides]
    volumes = [sum(x.volume_mm3 for x in side) for side in reversed(sides)]
    sizes = [millilitres(v) if side else "" for v, side in zip(volumes, reversed(sides))]
    if change.not_compared:
        return (*names, f"not compared: {change.not_compared}", *sizes, "", "")
    if change.rejected:
        state = "rejected before" if change.now else "rejected now"
        state += f": {change.rejected.reason}" if change.rejected.reason else ""
        return (*names, state, *sizes, "", "")
    grown = f"{change.volume_mm3 / 1000:+.2f} mL"
    if change.now and volumes[0]:
        grown += f" ({100 * change.volume_mm3 / volumes[0]:+.0f} %)"
    density = "" if change.hu is None else f"{change.hu:+.0f} HU"
    return (*names, _state(change), *sizes, grown, density)


def _state(change: LesionChange) -> str:
    """Return in words what became of a lesion, or of several that joined or split."""
    now, before = change.now, change.before
    if not now:
        return "gone"
    if not before:
        return "new"
    types = {x.type for x in before}
    state = "there before"
    if types != {x.type for x in now}:
        state += f" as {' and '.join(sorted(types))}"
    if len(before) > 1:
        state += f", {len(before)} joined"
    if len(now) > 1:
        state += f", split into {len(now)}"
    return state


def _located(seen: Iterable[SeenLesion]) -> list[LocatedLesion]:
    found = []
    for one in seen:
        inside = np.argwhere(one.evidence.body)
        size = (np.ptp(inside, axis=0) + 1) * one.evidence.grid.spacing[::-1]
        place = (np.array(place_in_body(one.mask, one.evidence.body)) - 0.5) * size
        right, back, down = (float(x) for x in place)
        found.append(LocatedLesion(one.lesion, (right, back, down)))
    return found
