"""One page on a cohort, and the pictures of its findings that the page shows.

The page is one HTML file: its pictures are inside it, and it asks no network for anything.
"""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..anatomy.labelling import LEVELS
from ..files import atomic
from ..findings import LESION_TYPES, Candidate, Result, Status, VertebraFinding
from ..imaging.reading import check_segmentation
from ..output.figures.drawing import (
    DPI,
    Outline,
    Tile,
    add_axes,
    draw_tile,
    new_figure,
    save_figure,
)
from ..output.figures.vertebra_row import common_look, make_row
from ..output.result_folder import FILES
from ..output.segment_description import TYPE_COLOURS, labels
from ..plain_data import counted
from ..progress import duration
from .case_run import CaseRecord, CaseStatus
from .readings import AGREEMENT_HEAD, agreement_notes, agreement_rows, agreements
from .tables import CaseResult, case_results, read_index

if TYPE_CHECKING:
    import numpy.typing as npt

PAGE = "report.html"
PICTURE = "findings.png"  # one tile for each of the best findings of a case, best first
MOST_TILES = 12  # of one case
MOST_SHOWN = 120  # findings on the page
MOST_LINES = 200  # failures and flags on the page
_TILE = 1.3  # inches
_BINS = 10


def draw_findings(folder: Path, result: Result) -> None:
    """Draw the accepted lesions of a case, best first, each on its largest slice.

    Without an accepted lesion there is no picture.  Superior is up and anterior left.
    """
    path = folder / PICTURE
    found = [one for one in _ranked(result) if one[0].level in result.evidence][:MOST_TILES]
    if not found:
        path.unlink(missing_ok=True)
        return
    grid = check_segmentation(folder / FILES[0]).grid
    assert grid is not None
    look = common_look(list(result.evidence.values()))
    figure = new_figure(_TILE * len(found), _TILE)
    for n, (vertebra, candidate) in enumerate(found):
        evidence = result.evidence[vertebra.level]
        mask = make_row(vertebra, evidence, grid, result.threshold).masks[candidate.id]
        s = int(mask.sum(axis=(1, 2)).argmax())
        mm = (float(evidence.grid.spacing[1]), float(evidence.grid.spacing[0]))
        outline = Outline(mask[s], TYPE_COLOURS[candidate.type])
        tile = Tile(evidence.image[s], [outline], limits=look.limits, pixel_mm=mm)
        draw_tile(add_axes(figure, (n * _TILE, 0.0, _TILE, _TILE)), tile)
    save_figure(path, figure)


def _ranked(result: Result) -> list[tuple[VertebraFinding, Candidate]]:
    """Return the accepted candidates with their vertebrae, best first."""
    found = [(v, c) for v in result.vertebrae for c in v.accepted(result.threshold)]
    return sorted(found, key=lambda one: (-one[1].score, one[0].level, one[1].id))


@dataclass(frozen=True)
class _Shown:
    """A finding of the contact sheet: the place of its tile is ``number`` of its case's picture."""

    score: float
    case: str
    name: str
    picture: Path
    number: int


@dataclass
class _Totals:
    """What the page tells, gathered case by case."""

    statuses: Counter[str] = field(default_factory=Counter)
    vertebrae: Counter[str] = field(default_factory=Counter)
    analysed: Counter[str] = field(default_factory=Counter)
    affected: Counter[str] = field(default_factory=Counter)
    lesions: Counter[tuple[str, str]] = field(default_factory=Counter)
    patients: set[str] = field(default_factory=set)
    affected_patients: set[str] = field(default_factory=set)
    scores: dict[str, list[float]] = field(default_factory=lambda: {k: [] for k in LESION_TYPES})
    p: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    failures: list[CaseRecord] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)
    weights: set[str] = field(default_factory=set)
    shown: list[_Shown] = field(default_factory=list)

    def add(self, found: CaseResult) -> None:
        record, result = found.record, found.result
        self.statuses[record.status.value] += 1
        self.patients.add(found.case.patient)
        if record.status not in (CaseStatus.DONE, CaseStatus.WAITING, CaseStatus.EARLIER):
            self.failures.append(record)
        if result is None:
            return
        self.seconds.append(record.seconds)
        if record.memory_mb is not None:
            self.memory.append(record.memory_mb)
        self.weights.add(
            f"{result.run.get('weights', 'unknown')} {str(result.run.get('weights_hash', ''))[:12]}"
            f", threshold {result.threshold:g}"
        )
        for vertebra in result.vertebrae:
            self._add_vertebra(vertebra, result.threshold)
        ranked = _ranked(result)
        if ranked:
            self.affected_patients.add(found.case.patient)
        picture = found.case.folder / PICTURE
        if picture.is_file():
            self.shown += [
                _Shown(c.score, found.case.name, labels(v)[c.id].name, picture, n)
                for n, (v, c) in enumerate(ranked[:MOST_TILES])
            ]
            self.shown = sorted(self.shown, key=lambda one: -one.score)[:MOST_SHOWN]

    def _add_vertebra(self, vertebra: VertebraFinding, threshold: float) -> None:
        status = vertebra.judged(threshold).status
        self.vertebrae[status.value] += 1
        if status is not Status.NOT_ANALYSED:
            self.analysed[vertebra.level] += 1
        accepted = vertebra.accepted(threshold)
        self.affected[vertebra.level] += bool(accepted)
        for candidate in accepted:
            self.lesions[vertebra.level, candidate.type] += 1
        for candidate in vertebra.candidates:
            self.scores[candidate.type].append(candidate.score)
        if vertebra.p_malignant is not None:
            self.p.setdefault(vertebra.level, []).append(vertebra.p_malignant)
        self.flags.update(vertebra.flags)


def write_report(folder: Path) -> Path:
    """Write the page of a cohort's folder and return its path; raises InputError."""
    index = read_index(folder)
    totals = _Totals()
    for found in case_results(index):
        totals.add(found)
    parts = [
        _summary(totals, len(index.cases)),
        _table("Burden by level", _LEVEL_HEAD, _level_rows(totals)),
        _scores(totals),
        _figure("P(malignant) by level", _p_chart(totals.p)),
        _table("Failures", ("case", "what", "reason"), _failure_rows(totals)),
        _table("Flags", ("flag", "vertebrae"), _listed(totals.flags)),
        _agreement(folder),
        _contact_sheet(totals),
    ]
    text = _PAGE.format(
        title=html.escape(folder.resolve().name), body="\n".join(filter(None, parts))
    )
    path = folder / PAGE
    with atomic(path) as temporary:
        temporary.write_text(text, "utf-8", "xmlcharrefreplace")
    return path


_LEVEL_HEAD = ("level", "analysed", "with a lesion", "share", *LESION_TYPES)


def _summary(totals: _Totals, cases: int) -> str:
    done = totals.statuses[CaseStatus.DONE.value]
    patients = counted(len(totals.patients), "patient")
    lines = [f"{counted(cases, 'case')} of {patients}: {_listing(totals.statuses)}."]
    if done:
        lines += [
            f"{counted(totals.vertebrae.total(), 'vertebra', 'vertebrae')}:"
            f" {_listing(totals.vertebrae)}.",
            f"{counted(totals.lesions.total(), 'lesion')} outlined, in"
            f" {counted(len(totals.affected_patients), 'patient')}.",
            f"Seconds per case: median {np.median(totals.seconds):.1f}, 95 % below"
            f" {np.quantile(totals.seconds, 0.95):.1f}, in all"
            f" {duration(sum(totals.seconds))} of one worker.",
        ]
    if totals.statuses[CaseStatus.EARLIER.value]:
        lines.append(
            "Results of an earlier run, with other files, options, weights, labels or version, are"
            " left out: run the cohort again."
        )
    if totals.memory:
        lines.append(f"Memory of a worker: at most {max(totals.memory):.0f} MB.")
    lines += [f"Weights {one}." for one in sorted(totals.weights)]
    if len(totals.weights) > 1:
        lines.append("The cases were not all run with the same weights: run the cohort again.")
    return "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _listing(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


def _level_rows(totals: _Totals) -> list[tuple[str, ...]]:
    return [
        (
            level,
            str(totals.analysed[level]),
            str(totals.affected[level]),
            f"{100 * totals.affected[level] / totals.analysed[level]:.1f} %",
            *(str(totals.lesions[level, kind]) for kind in LESION_TYPES),
        )
        for level in LEVELS
        if totals.analysed[level]
    ]


def _failure_rows(totals: _Totals) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        (one.case, one.status.value, one.reason) for one in totals.failures[:MOST_LINES]
    ]
    left = len(totals.failures) - len(rows)
    return [*rows, ("", "", f"and {left} more: see cases.csv")] if left else rows


def _listed(counts: Counter[str]) -> list[tuple[str, ...]]:
    return [(name, str(count)) for name, count in counts.most_common(MOST_LINES)]


def _scores(totals: _Totals) -> str:
    """Histograms of the scores of all candidates, type by type."""
    charts = []
    for kind in LESION_TYPES:
        values = totals.scores[kind]
        if values:
            counts, _ = np.histogram(np.clip(values, 0, 1), _BINS, (0, 1))
            charts.append(_bars(f"{kind}, {counted(len(values), 'candidate')}", counts))
    return _figure("Scores of all candidates", "".join(charts))


def _bars(title: str, counts: npt.NDArray[np.int64]) -> str:
    high = max(int(counts.max()), 1)
    bars = "".join(
        f'<rect x="{n * 24 + 1}" y="{100 - 90 * count / high:.1f}" width="22"'
        f' height="{90 * count / high:.1f}"><title>{n / 10:.1f} to {(n + 1) / 10:.1f}:'
        f" {count}</title></rect>"
        for n, count in enumerate(counts.tolist())
    )
    axis = '<text x="0" y="114">0</text><text x="232" y="114">1</text>'
    return f'<svg viewBox="0 0 240 118" width="300">{bars}{axis}</svg><p>{html.escape(title)}</p>'


def _p_chart(p: dict[str, list[float]]) -> str:
    """Return median, middle half and range of P(malignant) of each level."""
    found = [level for level in LEVELS if p.get(level)]
    rows = []
    for n, level in enumerate(found):
        low, first, middle, third, high = np.quantile(p[level], (0, 0.25, 0.5, 0.75, 1)) * 400
        y = 16 * n + 9
        rows.append(
            f'<text x="0" y="{y + 4}">{level}</text><g transform="translate(40 0)">'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
            f'<rect x="{first:.1f}" y="{y - 4}" width="{max(third - first, 1):.1f}" height="8"/>'
            f'<line class="middle" x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 6}" y2="{y + 6}">'
            f"<title>{level}: median {middle / 400:.2f} of {len(p[level])}</title></line></g>"
        )
    high = 16 * len(found) + 18
    axis = f'<text x="40" y="{high - 2}">0</text><text x="434" y="{high - 2}">1</text>'
    return f'<svg viewBox="0 0 450 {high}" width="560">{"".join(rows)}{axis}</svg>' if rows else ""


def _contact_sheet(totals: _Totals) -> str:
    tiles = [
        f'<figure><img alt="" src="data:image/png;base64,{_cut(one.picture, one.number)}">'
        f"<figcaption>{one.score:.2f} {html.escape(one.name)}<br>{html.escape(one.case)}"
        "</figcaption></figure>"
        for one in totals.shown
    ]
    return _figure("Findings, highest score first", "".join(tiles))


def _cut(picture: Path, number: int) -> str:
    """Return one tile of a case's picture as PNG in base64, empty where it cannot be read."""
    from matplotlib import image

    try:
        pixels = image.imread(picture)
    except (OSError, ValueError, SyntaxError):
        return ""
    width = round(_TILE * DPI)
    tile = pixels[:, number * width : (number + 1) * width]
    if not tile.size:
        return ""
    stream = io.BytesIO()
    image.imsave(stream, tile, format="png")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    if not lines:
        return ""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<h2>{html.escape(title)}</h2>\n<table><tr>{names}</tr>{body}</table>"


def _agreement(folder: Path) -> str:
    found = agreements(folder)
    table = _table("Agreement of readers", AGREEMENT_HEAD, agreement_rows(found))
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in agreement_notes(found))
    return f"{table}\n{notes}" if table else ""


def _figure(title: str, content: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{content}" if content else ""


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>HideSeekSeg: {title}</title>
<style>
body {{ font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em;
  color: #1c2126; background: #fff }}
table {{ border-collapse: collapse }}
td, th {{ padding: .2em .8em .2em 0; text-align: left; border-bottom: 1px solid #ddd }}
svg {{ fill: #3b6ea5; stroke: none }}
svg text {{ fill: #1c2126; font-size: 11px }}
svg line {{ stroke: #3b6ea5; stroke-width: 1.5 }}
svg line.middle {{ stroke: #b4452c; stroke-width: 2 }}
figure {{ display: inline-block; width: 143px; margin: 0 8px 12px 0; vertical-align: top;
  font-size: 12px; overflow-wrap: anywhere }}
img {{ display: block; width: 143px; background: #0b0d10 }}
</style></head><body>
<h1>{title}</h1>
<p>Research use only, not a medical device. No radiologist has judged these findings.</p>
{body}
</body></html>
"""
