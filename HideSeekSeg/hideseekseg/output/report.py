"""A report of a result for people: what it says, in blocks that are written as HTML or PDF.

Everything is said from the result alone; what it does not know is left open in words.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from .. import __version__
from ..anatomy.vertebra_shape import describe_place, place_in_body
from ..findings import LESION_TYPES, Status
from ..plain_data import printable
from ..progress import OnProgress, unwatched
from ..review.burden import ALL, lesion_burden
from ..review.items import Item, is_open
from .figures.vertebra_row import RowStyle, common_look, draw_strip
from .report_blocks import (
    RESEARCH,
    Block,
    Report,
    ReportHeading,
    ReportPictures,
    ReportTable,
    ReportText,
    capital,
    hounsfield,
    millilitres,
    millimetres,
    number_of,
    with_texts,
)
from .report_follow_up import check_earlier, follow_up
from .report_lesions import (
    SeenLesion,
    analysed_states,
    images_of,
    lesions_of,
    measured,
    seen_lesions,
)
from .report_stability import stability
from .result_folder import StoredResult, title_of

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


def make_report(
    stored: StoredResult,
    earlier: StoredResult | None = None,
    on_progress: OnProgress = unwatched,
) -> Report:
    """Return the report of a result; with an ``earlier`` one of the same patient, the change.

    ``on_progress`` hears of each finding before its pictures are drawn.  Raises InputError where a
    stored vertebra is damaged, where both name different patients, and where the "earlier" one is
    of the same scan, or of a later study.
    """
    if earlier is not None:
        check_earlier(stored, earlier)
    lesions = tuple(measured(stored, lesion) for lesion in stored.lesions)
    stored = replace(stored, lesions=lesions)
    images = images_of(stored)
    seen = {x.lesion.id: x for x in seen_lesions(stored, images)}
    blocks: list[Block] = [ReportText(RESEARCH, warning=True), ReportText(_summary(stored))]
    blocks += [ReportText(text) for text in _review(stored)]
    blocks += _analysed(stored)
    blocks += _burden(stored)
    if earlier is not None:
        blocks += follow_up(stored, earlier, images, seen)
    blocks += _findings(stored, seen, on_progress)
    blocks += stability(stored, images, seen)
    scan, made = title_of(stored), date.today().isoformat()
    blocks += _method(stored, made)
    # Names and comments are others' words: none may turn what stands beside it, or be unwritable.
    report = Report(f"Vertebral lesions in CT: {scan}", tuple(blocks), scan, made)
    return with_texts(report, printable)


def _summary(stored: StoredResult) -> str:
    analysed = analysed_states(stored)
    affected = [s.level for s in analysed if lesions_of(stored, s.level)]
    kinds = [(sum(x.type == kind for x in stored.lesions), kind) for kind in LESION_TYPES]
    of = f"{number_of(len(analysed), 'vertebra', 'vertebrae')} analysed"
    if stored.lesions:
        parts = " and ".join(f"{count} {kind}" for count, kind in kinds if count)
        said = f": {', '.join(affected)}" if affected else ""
        where = f"in {len(affected)} of {of}{said}"
        others = [s.level for s in stored.states if not s.analysed and lesions_of(stored, s.level)]
        if others:
            where += f", and in {len(others)} not analysed: {', '.join(others)}"
        text = f"{number_of(len(stored.lesions), 'lesion')} ({parts}) {where}."
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
        lines.append(f"{number_of(rejected, 'finding')} rejected by the reader.")
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
        rows.append((state.level, capital(state.words), p, "; ".join(state.flags)))
    head = ("Level", "State", "P(malignant)", "Remarks")
    notes = [ReportText(f"{capital(note)}.") for note in _texts(stored.run.get("notes"))]
    return [ReportHeading("What was analysed"), ReportTable(head, tuple(rows)), *notes]


def _burden(stored: StoredResult) -> list[Block]:
    head = ("Level", "Type", "Number", "Volume", "Share of body", "Largest diameter", "Mean HU")
    rows = []
    for row in lesion_burden(stored.lesions, stored.bodies):
        level = "All levels" if row.level == ALL else row.level
        share = "not known" if row.share_of_body is None else f"{100 * row.share_of_body:.1f} %"
        diameter = millimetres(row.largest_diameter_mm) if row.number else ""
        density = hounsfield(row.mean_hu) if row.number else ""
        kind = "both" if row.type == ALL else row.type
        cells = (level, kind, str(row.number), millilitres(row.volume_mm3))
        rows.append((*cells, share, diameter, density))
    return [ReportHeading("Lesion burden"), ReportTable(head, tuple(rows))]


def _findings(
    stored: StoredResult, seen: dict[str, SeenLesion], on_progress: OnProgress
) -> list[Block]:
    if not stored.lesions:
        return []
    blocks: list[Block] = [ReportHeading("Findings")]
    blocks.append(ReportText(PICTURES_EXPLAINED if seen else PICTURES_MISSING))
    order = {state.level: n for n, state in enumerate(stored.states)}
    lesions = sorted(stored.lesions, key=lambda x: (order.get(x.level, len(order)), -x.score))
    looks: dict[str, RowStyle] = {}  # of each vertebra, from the whole of its image
    for n, lesion in enumerate(lesions):
        on_progress("drawing findings", n, len(lesions))
        blocks += [ReportHeading(lesion.name, 3), ReportText(_said_of(lesion, seen.get(lesion.id)))]
        if lesion.id in seen:
            evidence = seen[lesion.id].evidence
            if lesion.level not in looks:
                looks[lesion.level] = common_look([evidence])
            strip = draw_strip(evidence, seen[lesion.id].mask, lesion.type, looks[lesion.level])
            blocks.append(ReportPictures(tuple(strip.pictures.items()), capital(strip.note)))
        elif seen:
            blocks.append(ReportText("No stored image shows it."))
    return blocks


def _said_of(lesion: Item, seen: SeenLesion | None) -> str:
    place = ""
    if seen is not None:
        place = f", {describe_place(place_in_body(seen.mask, seen.evidence.body))} of the body"
    size = f"{millilitres(lesion.volume_mm3)}, largest diameter {millimetres(lesion.diameter_mm)}"
    density = f", mean {hounsfield(lesion.mean_hu)}" if lesion.mean_hu is not None else ""
    text = f"{capital(lesion.type)} lesion of {lesion.level}{place}: {size}{density}."
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
        text += f" {capital(lesion.verdict)} by the reader."
    return f"{text} Comment: {lesion.comment}" if lesion.comment else text


def _method(stored: StoredResult, made: str) -> list[Block]:
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
        "Report": f"HideSeekSeg {__version__}, made on {made}",
    }
    rows = tuple((name, text) for name, text in facts.items() if text)
    return [ReportHeading("Method"), ReportTable(("", ""), rows), ReportText(RESEARCH)]


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []
