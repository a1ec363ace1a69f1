"""A report as a PDF of A4 pages: what stands where on each, and drawn by matplotlib.

The pages are laid out before the first one is drawn, as the foot of each says how many there are.
Text, pictures and rules go straight to matplotlib's writer of PDF: axes and text of its figures
would take several times as long.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..files import atomic
from ..progress import OnProgress, unwatched
from .pdf_text import NO_LETTER, POINTS, fonts_for, width, wrapped
from .report_blocks import (
    RESEARCH,
    Block,
    Report,
    ReportHeading,
    ReportPictures,
    ReportTable,
    ReportText,
    in_sections,
    shortened,
    with_texts,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches: A4, its margins, and what stands where.
PAGE = (8.27, 11.69)
_LEFT, _TOP, _WIDTH = 0.75, 0.65, 6.77
_BOTTOM = 10.7  # of what a page says; the foot stands below it
_FOOT, _FOOT_LINE, _NUMBER = 10.85, 0.14, 1.3
_LINE, _SHORT = 0.17, 4.0
_CELL_ABOVE, _CELL_BELOW = 0.03, 0.05
_BETWEEN = 0.14  # what parts the columns of a table
_LEAST_COLUMN, _FIRST_COLUMN, _MOST_COLUMN = 0.21, 1.75, 2.8
_ROUNDING = 1e-6
_TITLE_SIZE, _TEXT_SIZE, _CELL_SIZE, _CAPTION_SIZE, _FOOT_SIZE = 13, 9, 8.5, 8, 7.5
_HEADING_SIZES = {2: 12}
_OTHER_HEADING = 10
_ASCENT = 0.76  # of a letter's size: from the top of its line to where it stands
_DARK, _RULE = "#1b1f24", "#c9d1d9"
_LACKING = (
    f"{NO_LETTER} stands for letters that no font of the computer that wrote this PDF can draw. The"
    " report in HTML contains them."
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PdfLine:
    """A line of text; ``x`` and ``y`` are its upper left corner, the size is in points."""

    x: float
    y: float
    text: str
    size: float
    weight: str = "normal"


@dataclass(frozen=True)
class PdfPicture:
    """Pixels (H, W, 3: bytes) in a box with its upper left corner at ``x`` and ``y``."""

    x: float
    y: float
    wide: float
    tall: float
    pixels: npt.NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class PdfRule:
    """A thin line from ``x`` to the right."""

    x: float
    y: float
    wide: float


PdfItem = PdfLine | PdfPicture | PdfRule


@dataclass(frozen=True)
class _Part:
    """What stays on one page: its height, and what is in it, with ``y`` from its upper edge.

    Without items it is a gap.  ``head`` is what a further page of the same table begins with.
    """

    height: float
    items: tuple[PdfItem, ...] = ()
    head: _Part | None = None


def write_pdf(path: str | Path, report: Report, on_progress: OnProgress = unwatched) -> None:
    """Write the report as a PDF of A4 pages; raises InputError where it cannot be written.

    Letters that no font here can draw are boxes, which the PDF and the log say.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    # No time, so that the same report is the same file; letters stay text, which can be searched.
    facts = {"Title": report.title, "Creator": "HideSeekSeg", "CreationDate": None}
    families, lacking = fonts_for(texts(report))
    if lacking:
        _log.warning("letters that no font here can draw are boxes in the PDF: %d", len(lacking))
        report = drawable(report, lacking)
    with (
        atomic(path) as temporary,
        temporary.open("wb") as file,
        rc_context({"pdf.fonttype": 42, "font.family": families}),
    ):
        pages = lay_out(report)
        watch = _Watch(on_progress, sum(isinstance(x, PdfPicture) for page in pages for x in page))
        pdf = PdfPages(file, metadata=facts)
        for n, items in enumerate(pages):
            on_progress("writing PDF, page", n, len(pages))
            pdf.savefig(_figure(items, watch))
        # Not a context: where a stop was asked for, that would write all the pictures first.
        pdf.close()


class _Watch:
    """Counts pictures as they are compressed, all of them when the file is closed."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total = on_progress, total
        self._seen: set[int] = set()

    def __call__(self, picture: int) -> None:
        if picture not in self._seen:
            self._on_progress("writing PDF, picture", len(self._seen), self._total)
            self._seen.add(picture)


class _Pixels(np.ndarray):
    """Pixels that tell when they are read."""

    watch: _Watch | None = None

    def __getitem__(self, key: Any) -> Any:
        if self.watch is not None:
            self.watch(id(self))
        return np.asarray(self)[key]


def texts(report: Report) -> Iterator[str]:
    """Yield all that is written on the pages, their numbers left out."""
    yield from (report.title, _LACKING, shortened(report.scan), RESEARCH, report.foot_date)
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


def drawable(report: Report, lacking: set[str]) -> Report:
    """Return the report with boxes for these letters, and a line that says so."""
    boxes = {ord(letter): NO_LETTER for letter in lacking}
    report = with_texts(report, lambda text: text.translate(boxes))
    return replace(report, blocks=(ReportText(_LACKING, warning=True), *report.blocks))


def lay_out(report: Report) -> list[list[PdfItem]]:
    """Return what stands on each page, in inches from its upper left corner.

    To be called while the fonts of the report are matplotlib's family of fonts.
    """
    column = _Column()
    for part in _lines(report.title, _TITLE_SIZE, "bold"):
        column.put(part)
    sections = [*in_sections(report.blocks)]
    for section, following in zip(sections, (*sections[1:], ())):
        column.make_room(_kept(section, following))
        for block in section:
            for part in _parts(block):
                column.put(part)
    total = len(column.pages)
    for n, page in enumerate(column.pages, 1):
        page += _foot(report, f"Page {n} of {total}")
    return column.pages


class _Column:
    """Pages that are filled from above; ``y`` is where the next part of the last one begins."""

    def __init__(self) -> None:
        self.pages: list[list[PdfItem]] = [[]]
        self.y = _TOP

    def make_room(self, height: float) -> None:
        """Begin a page where the last one has less room than this, unless it is empty."""
        if self.y + height > _BOTTOM + _ROUNDING and self.pages[-1]:
            self.pages.append([])
            self.y = _TOP

    def put(self, part: _Part) -> None:
        """Place a part on the last page, or on a new one."""
        if not part.items:
            self.y += part.height if self.pages[-1] else 0.0
            return
        self.make_room(part.height)
        if part.head is not None and not self.pages[-1]:
            self._place(part.head)
        self._place(part)

    def _place(self, part: _Part) -> None:
        self.pages[-1] += [replace(item, y=self.y + item.y) for item in part.items]
        self.y += part.height


def _kept(section: Sequence[Block], following: Sequence[Block] = ()) -> float:
    """Return how much room a section needs at least on the page that it begins on.

    A finding is not divided unless it is longer than a page; other sections stay whole where they
    are short, and else their heading with what stands first below it.  A text that leads to the
    findings stays with the first one.
    """
    first, whole = section[0], _BOTTOM - _TOP
    if not isinstance(first, ReportHeading):
        return 0.0
    parts = [part for block in section for part in _parts(block)]
    height = sum(part.height for part in parts)
    if following and isinstance(following[0], ReportHeading) and following[0].level > first.level:
        both = height + _kept(following)
        if both <= whole:
            return both
    height -= 0.0 if parts[-1].items else parts[-1].height
    most = whole if first.level > 2 else _SHORT
    if height <= most:
        return height
    *_, least = (h for h in accumulate(part.height for part in parts[:5]) if h <= _SHORT)
    return least


def _parts(block: Block) -> Iterator[_Part]:
    if isinstance(block, ReportHeading):
        size = _HEADING_SIZES.get(block.level, _OTHER_HEADING)
        yield _Part(0.2 if block.level == 2 else 0.15)
        (*lines,) = _lines(block.text, size, "bold")
        items = [replace(x, y=n * lines[0].height) for n, x in enumerate(_items(lines))]
        height = sum(part.height for part in lines)
        if block.level == 2:
            items.append(PdfRule(_LEFT, height + 0.02, _WIDTH))
            height += 0.07
        yield _Part(height, tuple(items))
    elif isinstance(block, ReportText):
        yield from _lines(block.text, _TEXT_SIZE, "bold" if block.warning else "normal")
        yield _Part(0.06)
    elif isinstance(block, ReportTable):
        yield from _table(block)
    else:
        yield _pictures(block)


def _lines(text: str, size: float, weight: str) -> Iterator[_Part]:
    """Yield the lines of a text, each a part of its own."""
    for line in wrapped(text, _WIDTH, size, weight):
        yield _Part(_LINE * size / 9, (PdfLine(_LEFT, 0.0, line, size, weight),))


def _items(parts: Sequence[_Part]) -> Iterator[PdfItem]:
    for part in parts:
        yield from part.items


def _table(table: ReportTable) -> Iterator[_Part]:
    widths = _widths(table)
    head: _Part | None = None
    if any(table.head):
        (head,) = _row(table.head, widths, _BOTTOM - _TOP, "bold")
        yield head
    room = _BOTTOM - _TOP - (head.height if head else 0.0)
    for row in table.rows:
        for part in _row(row, widths, room):
            yield replace(part, head=head)
    yield _Part(0.06)


def _row(
    row: Sequence[str], widths: Sequence[float], room: float, weight: str = "normal"
) -> Iterator[_Part]:
    """Yield a row of a table, in several parts where it is higher than ``room`` on a whole page.

    The first cell stands out, as its column says what the row is of.
    """
    looks = ["bold", *[weight] * (len(row) - 1)]
    cells = [
        wrapped(text, inches - _BETWEEN + _ROUNDING, _CELL_SIZE, look)
        for text, inches, look in zip(row, widths, looks)
    ]
    most = int((room - _CELL_ABOVE - _CELL_BELOW) / _LINE)  # lines of one part
    for first in range(0, max(1, *map(len, cells)), most):
        items: list[PdfItem] = []
        x, lines = _LEFT, 0
        for cell, inches, look in zip(cells, widths, looks):
            own = cell[first : first + most]
            for n, line in enumerate(own):
                items.append(PdfLine(x, _CELL_ABOVE + n * _LINE, line, _CELL_SIZE, look))
            x, lines = x + inches, max(lines, len(own))
        height = _CELL_ABOVE + lines * _LINE + _CELL_BELOW
        yield _Part(height, (*items, PdfRule(_LEFT, height - _CELL_BELOW / 2, _WIDTH)))


def _widths(table: ReportTable) -> list[float]:
    """Return the width of each column in inches: as its longest word or text needs, within all."""
    columns = list(zip(*[table.head, *table.rows]))
    wanted = [max(width(text, _CELL_SIZE, "bold") for text in column) for column in columns]
    least = [
        max((width(w, _CELL_SIZE, "bold") for text in column for w in text.split()), default=0.0)
        for column in columns
    ]
    free = _WIDTH - _BETWEEN * len(columns)
    # What a row is of stays on one line, unless that takes too much from the others.
    least[0] = wanted[0] if wanted[0] <= _FIRST_COLUMN else least[0]
    need = [min(max(inches, _LEAST_COLUMN), _MOST_COLUMN) for inches in least]
    more = [max(all_of_it - inches, 0.0) for all_of_it, inches in zip(wanted, need)]
    share = min(max(free - sum(need), 0.0) / sum(more), 1.0) if sum(more) else 0.0
    sizes = [inches + share * extra for inches, extra in zip(need, more)]
    shrunk = min(free / sum(sizes), 1.0)
    return [shrunk * size + _BETWEEN for size in sizes]


def _pictures(block: ReportPictures) -> _Part:
    count = max(len(block.pictures), 4)
    wide = (_WIDTH - 0.1 * (count - 1)) / count
    tall = max(p.shape[0] / p.shape[1] for _, p in block.pictures) * wide
    items: list[PdfItem] = []
    for n, (title, picture) in enumerate(block.pictures):
        x = _LEFT + n * (wide + 0.1)
        height = picture.shape[0] / picture.shape[1] * wide
        items.append(PdfPicture(x, 0.02, wide, height, picture))
        items.append(PdfLine(x, tall + 0.06, title, _CAPTION_SIZE))
    y = tall + 0.24
    for line in wrapped(block.caption, _WIDTH, _CAPTION_SIZE):
        items.append(PdfLine(_LEFT, y, line, _CAPTION_SIZE))
        y += _LINE
    return _Part(y, tuple(items))


def _foot(report: Report, number: str) -> Iterator[PdfItem]:
    """Yield the foot of a page: which scan, that it is for research, the day, and the number."""
    yield PdfRule(_LEFT, _FOOT - 0.05, _WIDTH)
    left = [
        line
        for text in (shortened(report.scan), RESEARCH)
        for line in wrapped(text, _WIDTH - _NUMBER, _FOOT_SIZE)
    ]
    for n, line in enumerate(left):
        yield PdfLine(_LEFT, _FOOT + n * _FOOT_LINE, line, _FOOT_SIZE)
    for n, line in enumerate((number, report.foot_date)):
        x = _LEFT + _WIDTH - width(line, _FOOT_SIZE)
        yield PdfLine(x, _FOOT + n * _FOOT_LINE, line, _FOOT_SIZE)


def _figure(items: Sequence[PdfItem], watch: _Watch) -> Figure:
    """Return a page for matplotlib, with one artist that draws all that stands on it."""
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    class Drawing(Artist):
        def draw(self, renderer: Any) -> None:
            for item in items:
                _draw(renderer, item, watch)

    figure = Figure(figsize=PAGE)
    figure.patch.set_visible(False)
    figure.add_artist(Drawing())
    return figure


def _draw(renderer: Any, item: PdfItem, watch: _Watch) -> None:
    """Draw one thing; a PDF has its origin below, and points for inches."""
    from matplotlib.path import Path as Line
    from matplotlib.transforms import Affine2D

    x, y = POINTS * item.x, POINTS * (PAGE[1] - item.y)
    look = renderer.new_gc()
    if isinstance(item, PdfLine):
        look.set_foreground(_DARK)
        base = y - _ASCENT * item.size
        renderer.draw_text(look, x, base, item.text, _font(item.size, item.weight), 0)
    elif isinstance(item, PdfRule):
        look.set_foreground(_RULE)
        look.set_linewidth(0.5)
        ends = Line([(x, y), (x + POINTS * item.wide, y)])
        renderer.draw_path(look, ends, Affine2D())
    else:
        wide, tall = POINTS * item.wide, POINTS * item.tall
        box = Affine2D().scale(wide, tall)
        pixels = item.pixels[::-1].view(_Pixels)
        pixels.watch = watch
        renderer.draw_image(look, x, y - tall, pixels, box)
    look.restore()


def _font(size: float, weight: str) -> Any:
    from matplotlib import rcParams

    return _font_of(tuple(rcParams["font.family"]), size, weight)


@lru_cache(maxsize=64)
def _font_of(families: tuple[str, ...], size: float, weight: str) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=list(families), size=size, weight=weight)
