"""A report of a result for people: what it says, in blocks that ``report_files`` writes.

Everything is said from the result alone; what it does not know is left open in words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..anatomy.label_conventions import LEVELS
from ..anatomy.level_order import VARIANTS, levels_between
from ..anatomy.vertebra_shape import (
    CLEAR_LOSS,
    WALL_MM,
    alignment,
    body_heights,
    describe_place,
    height_loss,
    place_in_body,
    reaches_posterior_wall,
)
from ..errors import InputError
from ..findings import LESION_TYPES, Evidence, Status, from_head_down
from ..imaging.volume import measure_patch, move_patch
from ..review.burden import (
    ALL,
    ComparedResult,
    LesionChange,
    LocatedLesion,
    compare_results,
    lesion_burden,
)
from ..review.items import Item, VertebraState, is_open
from .figures.drawing import Mask
from .figures.vertebra_row import make_strip
from .result_folder import StoredResult, title_of

RESEARCH = (
    "Research use only. Not a medical device, and no diagnosis: every finding needs a reader."
)
# Regions of the Spine Instability Neoplastic Score, by the names it gives them.
REGIONS = {
    "junctional": ("C1", "C2", "C7", "T1", "T2", "T11", "T12", "T13", "L1", "L5", "L6", "S1"),
    "mobile": ("C3", "C4", "C5", "C6", "L2", "L3", "L4"),
    "semi-rigid": tuple(f"T{n}" for n in range(3, 11)),
}
PICTURES_MISSING = (
    "The result contains no images of the vertebrae, so there are no pictures, no places within "
    "them and nothing on stability: run it with --each, or again in a window, and export a review "
    "to the same folder."
)
PICTURES_EXPLAINED = (
    "Pictures, on the sagittal slice with most of the finding, anterior to the left: the CT with "
    "the finding's outline; the same vertebra as the method draws it healthy; the difference of "
    "both (blue: density was added, as in a lytic lesion; orange: taken away, as in a blastic one);"
    " the CT with this finding alone left as it is, from which its attribution score was computed."
)

REJECTED_EXPLAINED = (
    "Rejected now, or before: something was found at the lesion's place in that result as well, and"
    " its reader rejected it. It counts in no burden, and the lesion is neither gone nor new."
)


@dataclass(frozen=True)
class ReportHeading:
    """A heading of level 2 or 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class ReportText:
    """A paragraph; a ``warning`` stands out."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table; cells are text, numbers ready to print."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ReportPictures:
    """Pictures (H, W, 3: bytes) side by side with their titles, and what is said below them."""

    pictures: tuple[tuple[str, npt.NDArray[np.uint8]], ...]
    caption: str


Block = ReportHeading | ReportText | ReportTable | ReportPictures


@dataclass(frozen=True)
class Report:
    """``title`` says of which scan it is."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class _Seen:
    """A lesion on the crop of its vertebra; ``mask`` (S, P, I) has at least one voxel."""

    lesion: Item
    evidence: Evidence
    mask: Mask


def make_report(stored: StoredResult, earlier: StoredResult | None = None) -> Report:
    """Return the report of a result; with an ``earlier`` one of the same patient, the change.

    Raises InputError where a stored vertebra is damaged, where both name different patients, and
    where the "earlier" one is of the same scan, or of a later study.
    """
    if earlier is not None:
        _check_earlier(stored, earlier)
    lesions = tuple(measured(stored, lesion) for lesion in stored.lesions)
    stored = replace(stored, lesions=lesions)
    images = _images(stored)
    seen = {x.lesion.id: x for x in _seen(stored, images)}
    blocks: list[Block] = [ReportText(RESEARCH, warning=True), ReportText(_summary(stored))]
    blocks += [ReportText(text) for text in _review(stored)]
    blocks += _analysed(stored)
    blocks += _burden(stored)
    if earlier is not None:
        blocks += _follow_up(stored, earlier, images, seen)
    blocks += _findings(stored, seen)
    blocks += _stability(stored, images, seen)
    blocks += _method(stored)
    return Report(f"Vertebral lesions in CT: {title_of(stored)}", tuple(blocks))


def measured(stored: StoredResult, lesion: Item) -> Item:
    """Return the lesion with the size of its voxels."""
    if stored.grid is None:
        return lesion
    return replace(lesion, **vars(measure_patch(stored.patches[lesion.id], stored.grid)))


def _images(stored: StoredResult) -> dict[str, Evidence]:
    found = {state.level: stored.evidence(state.level) for state in stored.states}
    return {level: evidence for level, evidence in found.items() if evidence is not None}


def _seen(stored: StoredResult, images: dict[str, Evidence]) -> Iterable[_Seen]:
    for lesion in stored.lesions:
        evidence = images.get(lesion.level)
        if evidence is None or stored.grid is None:
            continue
        moved = move_patch(stored.patches[lesion.id], stored.grid, evidence.grid)
        if moved is not None and evidence.body.any():
            mask = np.zeros(evidence.grid.shape, bool)
            moved.paint(mask)
            yield _Seen(lesion, evidence, mask)


def _analysed_states(stored: StoredResult) -> list[VertebraState]:
    return [s for s in stored.states if s.analysed]


def _summary(stored: StoredResult) -> str:
    analysed = _analysed_states(stored)
    affected = [s.level for s in analysed if _of(stored, s.level)]
    kinds = [(sum(x.type == kind for x in stored.lesions), kind) for kind in LESION_TYPES]
    of = f"{_count(len(analysed), 'vertebra', 'vertebrae')} analysed"
    if stored.lesions:
        parts = " and ".join(f"{count} {kind}" for count, kind in kinds if count)
        said = f": {', '.join(affected)}" if affected else ""
        where = f"in {len(affected)} of {of}{said}"
        others = [s.level for s in stored.states if not s.analysed and _of(stored, s.level)]
        if others:
            where += f", and in {len(others)} not analysed: {', '.join(others)}"
        text = f"{_count(len(stored.lesions), 'lesion')} ({parts}) {where}."
    else:
        text = f"No lesion outlined in {of}. This does not exclude one."
    suspicious = [s.level for s in analysed if s.status is Status.SUSPICIOUS]
    if suspicious:
        text += f" Suspicious without an outline: {', '.join(suspicious)}."
    left_out = [s.level for s in stored.states if not s.analysed]
    if left_out:
        text += f" Not analysed: {', '.join(left_out)}."
    return text


def _review(stored: StoredResult) -> list[str]:
    """Return who judged the lesions, and what was left open."""
    if not stored.is_reviewed:
        return ["Not reviewed: these are the findings of the method."]
    by = f" by {stored.reviewer}" if stored.reviewer else ""
    lines = [f"Reviewed{by}, {stored.reviewed.replace('T', ' ')}: the accepted lesions count."]
    rejected = sum(x.verdict == "rejected" for x in stored.others)
    if rejected:
        lines.append(f"{_count(rejected, 'finding')} rejected by the reader.")
    unsure = [_remark(x) for x in stored.others if x.verdict == "uncertain"]
    if unsure:
        lines.append(f"Uncertain, not counted: {'; '.join(unsure)}.")
    open_ = [x.name for x in stored.others if is_open(x, stored.threshold)]
    if open_:
        lines.append(f"Above the threshold but not reviewed, not counted: {', '.join(open_)}.")
    return lines


def _remark(lesion: Item) -> str:
    return f"{lesion.name} ({lesion.comment})" if lesion.comment else lesion.name


def _analysed(stored: StoredResult) -> list[Block]:
    rows = []
    for state in stored.states:
        p = "" if state.p_malignant is None else f"{state.p_malignant:.2f}"
        rows.append((state.level, _capital(state.words), p, "; ".join(state.flags)))
    head = ("Level", "State", "P(malignant)", "Remarks")
    notes = [ReportText(f"{_capital(note)}.") for note in _texts(stored.run.get("notes"))]
    return [ReportHeading("What was analysed"), ReportTable(head, tuple(rows)), *notes]


def _burden(stored: StoredResult) -> list[Block]:
    head = ("Level", "Type", "Number", "Volume", "Share of body", "Largest diameter", "Mean HU")
    rows = []
    for row in lesion_burden(stored.lesions, stored.bodies):
        level = "All levels" if row.level == ALL else row.level
        share = "not known" if row.share_of_body is None else f"{100 * row.share_of_body:.1f} %"
        diameter = _millimetres(row.largest_diameter_mm) if row.number else ""
        density = _hounsfield(row.mean_hu) if row.number else ""
        kind = "both" if row.type == ALL else row.type
        cells = (level, kind, str(row.number), _millilitres(row.volume_mm3))
        rows.append((*cells, share, diameter, density))
    return [ReportHeading("Lesion burden"), ReportTable(head, tuple(rows))]


def _findings(stored: StoredResult, seen: dict[str, _Seen]) -> list[Block]:
    if not stored.lesions:
        return []
    blocks: list[Block] = [ReportHeading("Findings")]
    blocks.append(ReportText(PICTURES_EXPLAINED if seen else PICTURES_MISSING))
    order = {state.level: n for n, state in enumerate(stored.states)}
    for lesion in sorted(stored.lesions, key=lambda x: (order.get(x.level, len(order)), -x.score)):
        blocks += [ReportHeading(lesion.name, 3), ReportText(_said_of(lesion, seen.get(lesion.id)))]
        if lesion.id in seen and stored.grid is not None:
            evidence = seen[lesion.id].evidence
            strip = make_strip(evidence, stored.patches[lesion.id], stored.grid, lesion.type)
            blocks.append(ReportPictures(tuple(strip.pictures.items()), _capital(strip.note)))
        elif seen:
            blocks.append(ReportText("No stored image shows it."))
    return blocks


def _said_of(lesion: Item, seen: _Seen | None) -> str:
    place = ""
    if seen is not None:
        place = f", {describe_place(place_in_body(seen.mask, seen.evidence.body))} of the body"
    size = f"{_millilitres(lesion.volume_mm3)}, largest diameter {_millimetres(lesion.diameter_mm)}"
    density = f", mean {_hounsfield(lesion.mean_hu)}" if lesion.mean_hu is not None else ""
    text = f"{_capital(lesion.type)} lesion of {lesion.level}{place}: {size}{density}."
    if lesion.missed:
        text += " Drawn by the reader; the method did not find it."
    else:
        text += f" Score {lesion.score:.2f}."
    if lesion.p_all is not None and lesion.p_hidden is not None and lesion.p_alone is not None:
        text += f" P(malignant) of its slices is {lesion.p_all:.2f} as they are,"
        if lesion.p_without is not None:
            text += f" {lesion.p_without:.2f} with this one alone hidden,"
        text += (
            f" {lesion.p_hidden:.2f} with all candidates hidden and {lesion.p_alone:.2f} with this"
            " one alone visible."
        )
    if lesion.verdict != "unreviewed":
        text += f" {_capital(lesion.verdict)} by the reader."
    return f"{text} Comment: {lesion.comment}" if lesion.comment else text


def _stability(
    stored: StoredResult, images: dict[str, Evidence], seen: dict[str, _Seen]
) -> list[Block]:
    levels = [s.level for s in stored.states if any(_at(seen, s.level))]
    if not levels:
        return []
    blocks: list[Block] = [
        ReportHeading("What bears on stability"),
        ReportText(
            "Elements of the Spine Instability Neoplastic Score (SINS), as far as images show. "
            "Pain, posterolateral elements and subluxation cannot be assessed from what the method "
            "sees, so no total is given."
        ),
    ]
    for level in levels:
        rows = (
            ("Location", _region(level)),
            ("Pain", "not assessable on images"),
            ("Bone lesion", _quality(_of(stored, level))),
            ("Alignment", _alignment(stored, images, level)),
            ("Vertebral body", _body(stored, images, level)),
            ("Posterior wall", _wall([x for x in seen.values() if x.lesion.level == level])),
            ("Posterolateral elements", "not analysed: the method sees the vertebral body alone"),
        )
        blocks += [ReportHeading(level, 3), ReportTable(("Element", "Image findings"), rows)]
    return blocks


def _region(level: str) -> str:
    return next((name for name, levels in REGIONS.items() if level in levels), "not known")


def _quality(lesions: Sequence[Item]) -> str:
    kinds = [kind for kind in LESION_TYPES if any(x.type == kind for x in lesions)]
    return kinds[0] if len(kinds) == 1 else "mixed (lytic and blastic)"


def _neighbours(stored: StoredResult, level: str) -> list[str]:
    """Return the levels next above and below, empty where one is not known.

    Of T10 and T12 alone neither is the other's neighbour.
    """
    levels = [state.level for state in stored.states if state.level in LEVELS]
    if level not in levels:
        return ["", ""]
    at = levels.index(level)
    above = [x for x in levels[:at][-1:] if not levels_between(x, level, levels)]
    below = [x for x in levels[at + 1 :][:1] if not levels_between(level, x, levels)]
    return [*(above or [""]), *(below or [""])]


def _alignment(stored: StoredResult, images: dict[str, Evidence], level: str) -> str:
    above, below = _neighbours(stored, level)
    if above not in images or below not in images or level not in images:
        return "not measured: the vertebrae above and below were not both analysed"
    found = alignment(images[above].grid, images[level].grid, images[below].grid)
    bend = "kyphosis" if found.kyphosis >= 0 else "lordosis"
    said = f"{abs(found.kyphosis):.0f}° {bend} and {found.tilt:.0f}° tilt to the side"
    return f"{said} between {above} and {below}; subluxation is not measured"


def _body(stored: StoredResult, images: dict[str, Evidence], level: str) -> str:
    volume = sum(x.volume_mm3 for x in _of(stored, level))
    body = stored.bodies.get(level)
    share = f"; lesions take {100 * volume / body:.0f} % of the body" if body else ""
    heights = {name: body_heights(x.body, x.grid) for name, x in images.items()}
    own = heights.get(level)
    near = {name: heights[name] for name in _neighbours(stored, level) if heights.get(name)}
    if own is None or not near:
        why = "the body is cut off or too small" if own is None else "no neighbour was analysed"
        return f"height not compared: {why}{share}"
    loss = height_loss(own, [x for x in near.values() if x is not None])
    at = int(np.argmax(loss))
    measured_ = ", ".join(f"{x:.0f}" for x in own)
    said = f"height {measured_} mm (front, middle, back)"
    where = ("in front", "in its middle", "behind")[at]
    against = " and ".join(near)
    if loss[at] < CLEAR_LOSS:
        return f"{said}, no loss of {100 * CLEAR_LOSS:.0f} % or more against {against}{share}"
    more = "more" if loss[at] > 0.5 else "less"
    lost = f"{100 * loss[at]:.0f} % less {where} than {against} let expect"
    return f"{said}, {lost}: collapse of {more} than 50 %{share}"


def _wall(seen: Sequence[_Seen]) -> str:
    reached = [x.lesion.name for x in seen if reaches_posterior_wall(x.mask, x.evidence)]
    if reached:
        return f"reached by {', '.join(reached)} (within {WALL_MM:g} mm)"
    return "not reached by an outlined lesion"


def _check_earlier(stored: StoredResult, earlier: StoredResult) -> None:
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


def _follow_up(
    stored: StoredResult,
    earlier: StoredResult,
    images: dict[str, Evidence],
    seen: dict[str, _Seen],
) -> list[Block]:
    earlier = replace(earlier, lesions=tuple(measured(earlier, x) for x in earlier.lesions))
    old_images = _images(earlier)
    before = {x.lesion.id: x for x in _seen(earlier, old_images)}
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
    name: str, stored: StoredResult, images: dict[str, Evidence], seen: dict[str, _Seen]
) -> ComparedResult:
    unseen = [x for x in stored.lesions if x.id not in seen]
    others = [x for x in stored.others if x.verdict != "unreviewed" or is_open(x, stored.threshold)]
    not_counted = [
        _Seen(item, images[item.level], mask)
        for item in others
        if item.level in images and (mask := _point(item, images[item.level])) is not None
    ]
    return ComparedResult(
        name,
        _located(seen.values()),
        unseen,
        _located(not_counted),
        {x.level for x in (*unseen, *(x for x in others if x.level not in images))},
        [s.level for s in _analysed_states(stored)],
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
    sizes = [_millilitres(v) if side else "" for v, side in zip(volumes, reversed(sides))]
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


def _located(seen: Iterable[_Seen]) -> list[LocatedLesion]:
    found = []
    for one in seen:
        inside = np.argwhere(one.evidence.body)
        size = (np.ptp(inside, axis=0) + 1) * one.evidence.grid.spacing[::-1]
        place = (np.array(place_in_body(one.mask, one.evidence.body)) - 0.5) * size
        right, back, down = (float(x) for x in place)
        found.append(LocatedLesion(one.lesion, (right, back, down)))
    return found


def _method(stored: StoredResult) -> list[Block]:
    run = stored.run
    schedule, versions = run.get("schedule"), run.get("versions")
    facts = {
        "Method": "Hide-and-Seek Attribution (HideSeekSeg): a healthy version of each vertebra is"
        " drawn, its differences are candidates, and each is scored by how much of the suspicion"
        " it explains alone; with calibrated weights the score is the probability of a lesion",
        "Weights": f"{run.get('weights', 'unknown')}, SHA-256 {run.get('weights_hash', 'unknown')}",
        "Schedule": str(schedule.get("name", "")) if isinstance(schedule, dict) else "",
        "Threshold": f"{stored.threshold:g}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items())
        if isinstance(versions, dict)
        else "",
        "Device": str(run.get("device", "")),
        "Scan": ", ".join(
            f"{name.replace('_', ' ')} {text}"
            for name, text in stored.scan.items()
            if name not in ("path", "patient_name", "patient_id")
        ),
        "Report": f"HideSeekSeg {__version__}",
    }
    rows = tuple((name, text) for name, text in facts.items() if text)
    return [ReportHeading("Method"), ReportTable(("", ""), rows), ReportText(RESEARCH)]


def _of(stored: StoredResult, level: str) -> list[Item]:
    return [x for x in stored.lesions if x.level == level]


def _at(seen: dict[str, _Seen], level: str) -> list[_Seen]:
    return [x for x in seen.values() if x.lesion.level == level]


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _millilitres(mm3: float) -> str:
    return f"{mm3 / 1000:.2f} mL"


def _millimetres(mm: float | None) -> str:
    return "not known" if mm is None else f"{mm:.0f} mm"


def _hounsfield(hu: float | None) -> str:
    return "not known" if hu is None else f"{hu:.0f} HU"
