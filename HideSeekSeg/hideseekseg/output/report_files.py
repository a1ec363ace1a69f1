"""A report as one HTML file that asks for nothing from anywhere, and as a PDF."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..files import atomic
from .pdf_text import NO_LETTER, fonts_for, width, wrapped
from .report import Block, Report, ReportHeading, ReportPictures, ReportTable, ReportText

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem; line-height: 1.25 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem;
  border-bottom: 1px solid #c9d1d9 } h3 { font-size: 1rem; margin: 1.25rem 0 .25rem }
p { margin: .4rem 0 } p.warning { border-left: 4px solid #b35900; padding-left: .6rem;
  font-weight: 600 }
table { border-collapse: collapse; width: 100%; font-size: .92em; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0;
  border-bottom: 1px solid #e3e7eb; overflow-wrap: normal } td { overflow-wrap: anywhere }
td:first-child { white-space: nowrap; font-weight: 600 }
figure { display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0 } figure div { width: 13.5rem }
figure img { width: 100%; display: block; background: #000 } figcaption { width: 100%;
  color: #57606a; font-size: .85em } figure div span { font-size: .85em }
@page { size: A4; margin: 18mm }
@media print { body { margin: 0; padding: 0; max-width: none; font-size: 10pt }
  h2, h3 { break-after: avoid }
  figure, tr { break-inside: avoid } figure div { width: 41mm } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# Inches: A4, its margins, and what stands where.
_PAGE, _MARGIN, _WIDTH = (8.27, 11.69), 0.75, 6.77
_FOOT, _LINE, _SHORT = 0.5, 0.17, 4.0
_BETWEEN = 0.14  # what parts the columns of a table
_LEAST_COLUMN, _MOST_COLUMN = 0.21, 2.8
_TITLE_SIZE, _TEXT_SIZE, _CELL_SIZE, _CAPTION_SIZE = 13, 9, 8.5, 8
_HEADING_SIZES = {2: 12}
_OTHER_HEADING = 10
_LACKING = (
    f"{NO_LETTER} stands for letters that no font of the computer that wrote this PDF can draw. The"
    " report in HTML contains them."
)

_log = logging.getLogger(__name__)


_Draw = Callable[["_PdfPage"], None]


def write_html(path: str | Path, report: Report) -> None:
    """Write the report as one file; raises InputError where it cannot be written."""
    body = "\n".join(_html(block) for block in report.blocks)
    title = escape(report.title)
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _html(block: Block) -> str:
    if isinstance(block, ReportHeading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, ReportText):
        kind = ' class="warning"' if block.warning else ""
        return f"<p{kind}>{escape(block.text)}</p>"
    if isinstance(block, ReportTable):
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in block.head)
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in block.rows]
        top = f"<thead><tr>{head}</tr></thead>" if any(block.head) else ""
        lines = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table>{top}<tbody>{lines}</tbody></table>"
    images = (
        f'<div><img src="data:image/png;base64,{_png(picture)}" alt="{escape(title)}">'
        f"<span>{escape(title)}</span></div>"
        for title, picture in block.pictures
    )
    return f"<figure>{''.join(images)}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _png(picture: npt.NDArray[np.uint8]) -> str:
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, picture, format="png")
    return base64.b64encode(file.getvalue()).decode("ascii")


def write_pdf(path: str | Path, report: Report) -> None:
    """Write the report as a PDF of A4 pages; raises InputError where it cannot be written.

    Letters that no font here can draw are boxes, which the PDF and the log say.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    # No date, so that the same report is the same file; letters stay text, which can be searched.
    facts = {"Title": report.title, "Creator": "HideSeekSeg", "CreationDate": None}
    families, lacking = fonts_for(_texts(report))
    if lacking:
        _log.warning("letters that no font here can draw are boxes in the PDF: %d", len(lacking))
        report = _drawable(report, lacking)
    with (
        atomic(path) as temporary,
        rc_context({"pdf.fonttype": 42, "font.family": families}),
        PdfPages(temporary, metadata=facts) as pdf,
    ):
        for page in _pages(report):
            pdf.savefig(page)


def _texts(report: Report) -> Iterator[str]:
    """Yield all that is written on the pages."""
    yield from (report.title, _LACKING)
    for block in report.blocks:
        if isinstance(block, ReportTable):
            yield from block.head
            for row in block.rows:
                yield from row
        elif isinstance(block, ReportPictures):
            yield block.caption
            yield from (title for title, _ in block.pictures)
        else:
            yield block.text


def _drawable(report: Report, lacking: set[str]) -> Report:
    """Return the report with boxes for these letters, and a line that says so."""
    boxes = {ord(letter): NO_LETTER for letter in lacking}
    blocks: list[Block] = [ReportText(_LACKING, warning=True)]
    for block in report.blocks:
        if isinstance(block, ReportTable):
            head = tuple(cell.translate(boxes) for cell in block.head)
            rows = tuple(tuple(cell.translate(boxes) for cell in row) for row in block.rows)
            blocks.append(replace(block, head=head, rows=rows))
        elif isinstance(block, ReportPictures):
            pictures = tuple((title.translate(boxes), picture) for title, picture in block.pictures)
            caption = block.caption.translate(boxes)
            blocks.append(replace(block, caption=caption, pictures=pictures))
        else:
            blocks.append(replace(block, text=block.text.translate(boxes)))
    return replace(report, title=report.title.translate(boxes), blocks=tuple(blocks))


def _pages(report: Report) -> Iterator[Figure]:
    page = _PdfPage(1)
    page.lines(wrapped(report.title, _WIDTH, _TITLE_SIZE, "bold"), _TITLE_SIZE, "bold")
    for n, block in enumerate(report.blocks):
        kept = _kept_together(report.blocks[n:])
        for m, (height, draw) in enumerate(_parts(block)):
            if page.room < (height if m else kept):
                yield page.figure
                page = _PdfPage(page.number + 1)
            draw(page)
    yield page.figure


def _kept_together(blocks: Sequence[Block]) -> float:
    """Return how much room (inches) the first of the blocks needs with what belongs to it.

    A heading stays with all that is below it where that is short, else with its beginning.
    """
    first = next(height for height, _ in _parts(blocks[0]))
    if not isinstance(blocks[0], ReportHeading):
        return first
    below = takewhile(lambda block: not isinstance(block, ReportHeading), blocks[1:])
    heights = [height for block in below for height, _ in _parts(block)]
    return first + (sum(heights) if sum(heights) < _SHORT else sum(heights[:2]))


class _PdfPage:
    """A page that is filled from above; ``y`` is the height in inches that is taken."""

    def __init__(self, number: int) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=_PAGE)
        self.number = number
        self.y = _MARGIN
        self.text(_MARGIN, _PAGE[1] - _FOOT, f"Page {number}. Research use only.", 7.5)

    @property
    def room(self) -> float:
        return _PAGE[1] - _MARGIN - _FOOT - self.y

    def text(self, x: float, y: float, text: str, size: float, weight: str = "normal") -> None:
        at = x / _PAGE[0], 1 - y / _PAGE[1]
        self.figure.text(*at, text, fontsize=size, fontweight=weight, va="top", parse_math=False)

    def lines(self, lines: Sequence[str], size: float, weight: str = "normal") -> None:
        for line in lines:
            self.text(_MARGIN, self.y, line, size, weight)
            self.y += _LINE * size / 9


def _parts(block: Block) -> Iterator[tuple[float, _Draw]]:
    """Yield what of a block must stay on one page: its height in inches, and how it is drawn."""
    if isinstance(block, ReportHeading):
        size = _HEADING_SIZES.get(block.level, _OTHER_HEADING)
        yield _written(wrapped(block.text, _WIDTH, size, "bold"), size, "bold", above=0.15)
    elif isinstance(block, ReportText):
        weight = "bold" if block.warning else "normal"
        for line in wrapped(block.text, _WIDTH, _TEXT_SIZE, weight):
            yield _written([line], _TEXT_SIZE, weight)
        yield 0.06, _gap
    elif isinstance(block, ReportTable):
        yield from _table(block)
    else:
        yield _pictures(block)


def _gap(page: _PdfPage) -> None:
    page.y += 0.06


def _written(
    lines: Sequence[str], size: float, weight: str, above: float = 0.0
) -> tuple[float, _Draw]:
    def draw(page: _PdfPage) -> None:
        page.y += above
        page.lines(lines, size, weight)

    return above + len(lines) * _LINE * size / 9, draw


def _table(table: ReportTable) -> Iterator[tuple[float, _Draw]]:
    widths = _widths(table)
    rows = [table.head, *table.rows] if any(table.head) else [*table.rows]
    for n, row in enumerate(rows):
        weight = "bold" if n == 0 and any(table.head) else "normal"
        cells = [
            wrapped(text, inches - _BETWEEN, _CELL_SIZE, weight)
            for text, inches in zip(row, widths)
        ]
        yield _row(cells, widths, weight)
    yield 0.06, _gap


def _row(
    cells: Sequence[Sequence[str]], widths: Sequence[float], weight: str
) -> tuple[float, _Draw]:
    height = max(len(lines) for lines in cells) * _LINE + 0.04

    def draw(page: _PdfPage) -> None:
        x = _MARGIN
        for lines, inches in zip(cells, widths):
            for n, line in enumerate(lines):
                page.text(x, page.y + n * _LINE, line, _CELL_SIZE, weight)
            x += inches
        page.y += height

    return height, draw


def _widths(table: ReportTable) -> list[float]:
    """Return the width of each column in inches: as its longest word or text needs, within all."""
    columns = list(zip(*[table.head, *table.rows]))
    wanted = [max(width(text, _CELL_SIZE, "bold") for text in column) for column in columns]
    least = [
        max((width(w, _CELL_SIZE, "bold") for text in column for w in text.split()), default=0.0)
        for column in columns
    ]
    free = _WIDTH - _BETWEEN * len(columns)
    need = [min(max(inches, _LEAST_COLUMN), _MOST_COLUMN) for inches in least]
    more = [max(all_of_it - inches, 0.0) for all_of_it, inches in zip(wanted, need)]
    share = min(max(free - sum(need), 0.0) / sum(more), 1.0) if sum(more) else 0.0
    sizes = [inches + share * extra for inches, extra in zip(need, more)]
    shrunk = min(free / sum(sizes), 1.0)
    return [shrunk * size + _BETWEEN for size in sizes]


def _pictures(block: ReportPictures) -> tuple[float, _Draw]:
    count = max(len(block.pictures), 4)
    wide = (_WIDTH - 0.1 * (count - 1)) / count
    tall = max(p.shape[0] / p.shape[1] for _, p in block.pictures) * wide
    caption = wrapped(block.caption, _WIDTH, _CAPTION_SIZE)

    def draw(page: _PdfPage) -> None:
        for n, (title, picture) in enumerate(block.pictures):
            x = _MARGIN + n * (wide + 0.1)
            height = picture.shape[0] / picture.shape[1] * wide
            box = (x / _PAGE[0], 1 - (page.y + height) / _PAGE[1])
            axes = page.figure.add_axes((*box, wide / _PAGE[0], height / _PAGE[1]))
            axes.imshow(picture, aspect="auto")
            axes.set_axis_off()
            page.text(x, page.y + tall + 0.04, title, _CAPTION_SIZE)
        page.y += tall + 0.22
        page.lines(caption, _CAPTION_SIZE)

    return tall + 0.22 + len(caption) * _LINE, draw
