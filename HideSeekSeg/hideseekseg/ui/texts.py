"""Texts and single keys, the same in both windows, in the reader's language where it is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError, UserError
from ..events import Progress
from ..files import read_object
from ..findings import STOPPED, UNSTABLE, Status, unstable
from ..output.segment_description import TYPE_COLOURS
from ..progress import duration
from ..review.burden import Burden
from ..review.history import AddMissed, Command, SetThreshold
from ..review.review import REASONS, Item, Review, VertebraState

try:
    from slicer.i18n import tr as _
except ImportError:  # outside the desktop there are none

    def _(text: str) -> str:
        return text


__all__ = ["_"]


# Action and key. Slicer's slice views take arrows, f, b, g, r, t, v, s and brackets; Segment Editor
# takes digits, q, w, z, y, i and space: none of these is used.
KEYS = {
    "accept": "A",
    "reject": "X",
    "uncertain": "K",
    "previous": "P",
    "next": "N",
    "previousVertebra": "Shift+P",
    "nextVertebra": "Shift+N",
    "undo": "U",
    "redo": "Shift+U",
    "switchType": "L",
    "overlay": "O",
    "healthy": "H",
    "difference": "D",
    "missed": "M",
    "export": "E",
    "comment": "C",
}


# Of a cohort's work list, which the browser alone has.
CASE_KEYS = {"nextCase": "J", "previousCase": "Shift+J"}

# A key that is held down does these once: the next finding or case was not looked at yet.
ONCE = ("accept", "reject", "uncertain", "switchType", "missed", "export", *CASE_KEYS)


def shown(key: str) -> str:
    """As it stands on a button."""
    return key.replace("Shift+", "⇧")


COLUMNS = (_("Level"), _("Type"), _("Score"), _("P"), _("mL"), _("Status"))
VERDICTS = {
    "unreviewed": _("to review"),
    "accepted": _("✓ accepted"),
    "uncertain": _("? uncertain"),
    "rejected": _("✗ rejected"),
}
TYPE_NAMES = {"lytic": _("lytic"), "blastic": _("blastic")}
REASON_NAMES = {
    reason: name
    for reason, name in zip(
        REASONS,
        (
            *(_("no reason"), _("haemangioma"), _("Schmorl node"), _("bone island")),
            *(_("degenerative"), _("artefact")),
        ),
    )
}
ORDER_OF_COLUMN = ("level", "type", "score", "p_malignant", "volume", "verdict")
ALL_LEVELS, ALL_TYPES, ALL_VERDICTS = _("All levels"), _("Both types"), _("Any status")
START, CANCEL = _("Segment metastases"), _("Cancel")
NOT_CHOSEN = _("Choose a finding before you comment on it.")
STARTING, STOPPING = _("Starting…"), _("Stopping…")
COLOURS = {
    kind: "#" + "".join(f"{round(255 * part):02x}" for part in colour)
    for kind, colour in TYPE_COLOURS.items()
}


def cells(item: Item) -> tuple[str, ...]:
    """Return the row of a finding under ``COLUMNS``."""
    p = "" if item.p_malignant is None else f"{item.p_malignant:.2f}"
    score = _("added") if item.missed else f"{item.score:.2f}"
    note = " ✎" if item.comment else ""
    drawn = item.missed and item.verdict == "accepted"
    status = _("✓ added") if drawn else VERDICTS[item.verdict]
    status += f" ({REASON_NAMES[item.reason]})" if item.reason else ""
    size = f"{item.volume_mm3 / 1000:.2f}" if item.volume_mm3 else ""
    return item.level, TYPE_NAMES[item.type], score, p, size, status + note


def details(review: Review, item: Item | None, level: str) -> str:
    """Return what is said of the chosen candidate or vertebra, with the flags of its vertebra."""
    if not level:
        return ""
    state = next((x for x in review.states() if x.level == level), None)
    said = [] if state is None else list(state.flags)
    if item is not None:  # what is said of another finding stands with that one
        own = "" if item.missed else unstable(item.id)
        said = [flag for flag in said if not flag.endswith(UNSTABLE) or flag == own]
    flags = f" ({', '.join(said)})" if said else ""
    if item is None:
        p = "" if state is None or state.p_malignant is None else state.p_malignant
        words = state.words if state is not None else ""
        return f"{level}: {words}" + (f", P(malignant) {p:.2f}" if p != "" else "") + flags
    lines = [item.name + (f": {item.reason}" if item.reason else "") + flags]
    size = [
        f"{item.volume_mm3 / 1000:.2f} mL" if item.volume_mm3 else "",
        f"{item.diameter_mm:.0f} mm" if item.diameter_mm is not None else "",
        f"{item.mean_hu:.0f} HU" if item.mean_hu is not None else "",
    ]
    lines.append(", ".join(part for part in size if part))
    return "\n".join(line for line in [*lines, evidence_of(item)] if line)


def evidence_of(item: Item) -> str:
    """Return what hiding and showing the candidate does to P(malignant), empty if not known."""
    if item.p_all is None or item.p_hidden is None or item.p_alone is None:
        return ""
    text = _(
        "P {all:.2f} → {hidden:.2f} with all candidates hidden, {alone:.2f} with this one alone"
        " shown"
    )
    known = {"all": item.p_all, "hidden": item.p_hidden, "alone": item.p_alone}
    if item.p_without is not None:
        text = _(
            "P {all:.2f} → {without:.2f} with this one alone hidden, {hidden:.2f} with all"
            " candidates hidden, {alone:.2f} with this one alone shown"
        )
        known["without"] = item.p_without
    return text.format(**known)


BURDEN_COLUMNS = (
    *(_("Level"), _("Type"), _("Lesions"), _("mL"), _("% of body")),
    *(_("Largest (mm)"), _("Mean HU")),
)
VERTEBRA_COLUMNS = (_("Level"), _("State"), _("P(malignant)"), _("Remarks"))


def burden_heading(review: Review) -> str:
    """Say which lesions the burden is of."""
    counted = [item for item in review.items if review.is_finding(item)]
    accepted = sum(item.verdict == "accepted" for item in counted)
    text = _("Lesions outlined: {count}, of which accepted: {accepted}")
    return text.format(count=len(counted), accepted=accepted)


def burden_cells(row: Burden) -> tuple[str, ...]:
    """Return a row of the burden under ``BURDEN_COLUMNS``; a hyphen is not known."""

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else form.format(value)

    share = None if row.share_of_body is None else 100 * row.share_of_body
    return (
        *(row.level, TYPE_NAMES.get(row.type, row.type), str(row.number)),
        *(f"{row.volume_mm3 / 1000:.2f}", number(share, "{:.1f}")),
        *(number(row.largest_diameter_mm, "{:.0f}"), number(row.mean_hu, "{:.0f}")),
    )


def vertebra_cells(state: VertebraState) -> tuple[str, ...]:
    """Return a row of the vertebrae under ``VERTEBRA_COLUMNS``."""
    p = "" if state.p_malignant is None else f"{state.p_malignant:.2f}"
    return state.level, state.words, p, ", ".join(state.flags)


def progress(event: Progress) -> str:
    """Return the current vertebra and the time left."""
    left = ""
    if event.seconds_left is not None:
        left = _(" · about {time} left").format(time=duration(event.seconds_left))
    return f"{event.level} · {event.step}{left}"


def told(error: UserError) -> str:
    """Return the error as the beginning of a sentence, with or without a file."""
    return str(error) if error.path else error.cause[:1].upper() + error.cause[1:]


def not_saved(error: Exception) -> str:
    """Return why no copy of the review is on disk."""
    return _("This review is not saved automatically: {error}.").format(error=error)


def not_kept(level: str) -> str:
    """Return why there is no healthy edit to show."""
    text = _("The healthy edit of {level} was not kept: run “Segment metastases” again to see it.")
    return text.format(level=level)


def no_evidence(item: Item) -> str:
    """Return why there are no pictures of what the method saw in a finding."""
    if item.missed:
        return _("You added this lesion: the method has no evidence for it.")
    if not item.volume_mm3:
        return _("Nothing is drawn of this finding any more: there is no evidence to show.")
    text = _("The evidence for {name} was not kept: run “Segment metastases” again to see it.")
    return text.format(name=item.name)


def chosen_meanwhile(name: str) -> str:
    """Return why a verdict was not taken: the reader saw another finding than this one."""
    text = _("Nothing was changed: “{name}” was chosen meanwhile. Look at it, then judge it.")
    return text.format(name=name)


def difference_scale(limit: float, hounsfield: bool) -> str:
    """Return what the colours of the difference mean."""
    unit = "HU" if hounsfield else _("units of the volume")
    text = _(
        "Difference: blue is density that the healthy edit added (lytic), up to +{limit:.3g}"
        " {unit}; orange is density that it took away (blastic), down to -{limit:.3g} {unit}."
    )
    return text.format(limit=limit, unit=unit)


def done(review: Review) -> str:
    """Return the message of a finished run."""
    return _("Done: {summary}.").format(summary=review.summary())


def outdated(levels: Sequence[str]) -> str:
    """Return what is said of findings whose vertebrae have other levels now."""
    text = _("Levels were changed after the run: findings of {levels} are out of date.")
    return text.format(levels=", ".join(levels))


def step_of(review: Review, step: Command | None) -> str:
    """Return what a step of the reader is, as "T12 lytic 1: ✓ accepted"; empty without one."""
    if step is None:
        return ""
    if isinstance(step, SetThreshold):
        return _("threshold {before:.2f} → {after:.2f}").format(**vars(step))
    if isinstance(step, AddMissed):
        kind, number = TYPE_NAMES[step.lesion.type], step.lesion.numbers[0]
        text = _("“{level} {kind} added {number}” added")
        return text.format(level=step.lesion.level, kind=kind, number=number)
    changed = (
        (step.before.verdict != step.after.verdict, VERDICTS[step.after.verdict]),
        (step.before.reason != step.after.reason, REASON_NAMES[step.after.reason]),
        (step.before.switched != step.after.switched, _("type switched")),
        (step.before.comment != step.after.comment, _("comment")),
    )
    words = ", ".join(said for is_so, said in changed if is_so)
    return f"{review.item(step.id).name}: {words}"


def travelled(step: str, forward: bool) -> str:
    """Return what was undone or redone where the list does not show it."""
    text = _("Redone: {step}. The list as it is filtered does not show it.")
    if not forward:
        text = _("Undone: {step}. The list as it is filtered does not show it.")
    return text.format(step=step)


def undrawn(name: str) -> str:
    """Return what undoing did to a lesion that was drawn."""
    text = _("“{name}” was removed with all that is drawn of it: Redo brings it back.")
    return text.format(name=name)


def judged_elsewhere(items: Sequence[Item]) -> str:
    """Return the verdicts that were taken from the status that segments have in Slicer."""
    text = _("From the status of its segment in Slicer: {verdicts}. Undo takes it back.")
    if len(items) > 1:
        text = _("From the status of their segments in Slicer: {verdicts}. Undo takes them back.")
    said = ", ".join(f"“{item.name}” {VERDICTS[item.verdict]}" for item in items)
    return text.format(verdicts=said) if items else ""


def own_segments(taken: Mapping[str, str], left: Sequence[str]) -> str:
    """Return what became of segments that the reader added, see ``own_segments.take_over``."""
    lines = [
        _("“{own}” is listed as “{name}”, accepted: check level and type.").format(own=o, name=n)
        for o, n in taken.items()
    ]
    text = _("“{own}” lies in no vertebra of this review: it is neither listed nor exported.")
    return "\n".join([*lines, *(text.format(own=name) for name in left)])


def strayed(found: Mapping[Item, str]) -> str:
    """Return what is said of lesions drawn beside their vertebra: ``own_segments.strayed``."""
    elsewhere = _("“{name}” is drawn in {there}, not in {level}: check its level.")
    nowhere = _(
        "“{name}” is drawn outside of {level} and of every other vertebra: look where it is."
    )
    return "\n".join(
        (elsewhere if there else nowhere).format(name=item.name, level=item.level, there=there)
        for item, there in found.items()
    )


def exported(count: int, folder: str, names: str) -> str:
    """Return what was written, and where."""
    text = _("Exported {count} accepted findings to {folder}: {names}.")
    if count == 1:
        text = _("Exported {count} accepted finding to {folder}: {names}.")
    return text.format(count=count, folder=folder, names=names)


NO_DICOM = _(
    "a DICOM SEG refers to the CT's own DICOM files, and this CT was not read from DICOM, or they"
    " are not at hand any more"
)


def writing(kind: str, fraction: float = 0.0) -> str:
    """Return what is said while a document is written, and how much of it (0 to 1) is."""
    if kind == "seg":
        return _("Writing the DICOM SEG… (press again to stop)")
    if fraction > 0:
        percent = f"{100 * fraction:.0f}"
        text = _("Writing the report… {percent} % (press again to stop)")
        return text.format(percent=percent)
    return _("Writing the report… (press again to stop)")


def wrote(files: Sequence[str]) -> str:
    """Return which documents were written."""
    return _("Wrote {files}.").format(files=", ".join(files))


def quiet(review: Review, notes: Sequence[str] = ()) -> str:
    """Return the vertebrae in which nothing is outlined, by state, and remarks.

    Vertebrae whose findings were all rejected stand apart, and so do those that a stop left out.
    Remarks are the notes of the run, and the flags of all vertebrae with the levels they concern.
    """
    groups: dict[str, list[str]] = {}
    for state in review.states():
        if state.status is not Status.FINDINGS:
            groups.setdefault(_heading(state), []).append(state.level)
    lines = [f"{heading}: {', '.join(levels)}" for heading, levels in groups.items()]
    flagged: dict[str, list[str]] = {}
    for level, vertebra in review.vertebrae.items():
        for flag in vertebra.flags:
            flagged.setdefault(flag, []).append(level)
    lines += [f"⚠ {', '.join(levels)}: {flag}" for flag, levels in flagged.items()]
    return "\n".join([*lines, *(note for note in notes if note not in flagged)])


def _heading(state: VertebraState) -> str:
    if state.reason == STOPPED:
        return _("Stopped before")
    if state.reason:
        return _("Not analysed ({reason})").format(reason=state.reason)
    return state.words[:1].upper() + state.words[1:]


def earlier(file: Path) -> str:
    """Return what a review that was exported earlier is, by whom and when."""
    try:
        said = read_object(file)
    except InputError:
        return _("an earlier review")
    who = str(said.get("reviewer") or _("somebody"))
    when = str(said.get("reviewed", ""))[:16].replace("T", " ")
    return _("the review by {reader} of {when}").format(reader=who, when=when)
