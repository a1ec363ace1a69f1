"""A report as one HTML file that asks for nothing from anywhere, on screen and on paper.

The foot of a printed page is made of margin boxes, which Chromium has since version 131; browsers
without them print the page without a foot.  The paper is the printer's own.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..files import atomic
from ..progress import OnProgress, unwatched
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
)

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
td:first-child { font-weight: 600 } td.short { white-space: nowrap }
figure { display: flex; flex-wrap: wrap; gap: .5rem; margin: .5rem 0 } figure div { width: 13.5rem }
figure img { width: 100%; display: block; background: #000 } figcaption { width: 100%;
  color: #57606a; font-size: .85em } figure div span { font-size: .85em }
@media print { body { margin: 0; padding: 0; max-width: none; font: 10pt/1.4 system-ui, sans-serif }
  h1 { font-size: 14pt; margin-top: 0 } h2 { font-size: 12pt; margin: 6mm 0 2mm }
  h3 { font-size: 10.5pt; margin: 3.5mm 0 0 } h1, h2, h3 { break-after: avoid }
  p { margin: 1mm 0; orphans: 3; widows: 3 } p.warning { margin: 1mm 0 2mm }
  section, figure, thead, tr { break-inside: avoid }
  p.lead { break-after: avoid }
  figure { gap: 2mm; justify-content: space-between } figure div { width: 41mm } }
"""
# Paper is of the printer's own size: none is named here.
_PAGE = """
@page {{ margin: 15mm 18mm 24mm;
  @bottom-left {{ content: {left}; width: 78%; text-align: left }}
  @bottom-right {{ content: "Page " counter(page) " of " counter(pages) {right}; width: 22%;
    text-align: right }}
  @bottom-left {{ {foot} }} @bottom-right {{ {foot} }} }}
"""
_FOOT_STYLE = (
    "font: 7.5pt/1.35 system-ui, sans-serif; color: #1b1f24; vertical-align: top;"
    " white-space: pre-line; margin-top: 3mm; padding-top: 1.5mm;"
    " border-top: 1px solid #c9d1d9"
)
_LONG_WORD, _MAY_BREAK = re.compile(r"\S{24}(?=\S)"), "\N{ZERO WIDTH SPACE}"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SHORT_TABLE = 10  # rows that are not divided
_SHORT_CELL = 32  # letters that stay on one line, of what a row is of
_LEVEL = 4  # of a PNG's compression, that is quick


def write_html(path: str | Path, report: Report, on_progress: OnProgress = unwatched) -> None:
    """Write the report as one file; raises InputError where it cannot be written."""
    title = escape(report.title)
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}{_page(report)}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n"
    )
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        sections = [*in_sections(report.blocks)]
        for n, section in enumerate(sections):
            on_progress("writing HTML, section", n, len(sections))
            leads = n + 1 < len(sections) and _depth(sections[n + 1]) > _depth(section)
            file.writelines(_section(section, leads))
        file.write("</body>\n</html>\n")


def _page(report: Report) -> str:
    """Return the style of printed pages: their margins and their foot."""
    # Margin boxes break no word by themselves: it would run into the number of the page.
    scan = _LONG_WORD.sub(f"\\g<0>{_MAY_BREAK}", shortened(report.scan))
    left = _css(f"{scan}\n{RESEARCH}".lstrip())
    right = _css(f"\n{report.foot_date}")
    return _PAGE.format(left=left, right=right, foot=_FOOT_STYLE)


def _css(text: str) -> str:
    """Return a string of CSS that no letter of the text can end, nor the style around it."""
    letters = (c if c.isalnum() and c.isascii() else f"\\{ord(c):06x}" for c in text)
    return f'"{"".join(letters)}"'


def _depth(section: Sequence[Block]) -> int:
    return section[0].level if isinstance(section[0], ReportHeading) else 2


def _section(blocks: Sequence[Block], leads: bool) -> Iterator[str]:
    """Yield the lines of what stands below one heading.

    A finding, and what else is short, stays on one page; a text that ``leads`` to what is below
    the next heading stays with it.
    """
    rows = sum(len(block.rows) for block in blocks if isinstance(block, ReportTable))
    kept = _depth(blocks) > 2 or 0 < rows <= _SHORT_TABLE
    yield "<section>\n" if kept else ""
    for block in blocks:
        lead = leads and isinstance(block, ReportText)
        yield f"{_html(block, lead)}\n"
    yield "</section>\n" if kept else ""


def _html(block: Block, lead: bool = False) -> str:
    if isinstance(block, ReportHeading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, ReportText):
        kind = ' class="warning"' if block.warning else ' class="lead"' if lead else ""
        return f"<p{kind}>{escape(block.text)}</p>"
    if isinstance(block, ReportTable):
        return _table(block)
    return _pictures(block)


def _table(block: ReportTable) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in block.head)
    rows = ["".join(_cell(n, cell) for n, cell in enumerate(row)) for row in block.rows]
    top = f"<thead><tr>{head}</tr></thead>" if any(block.head) else ""
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>{top}<tbody>{lines}</tbody></table>"


def _cell(column: int, text: str) -> str:
    kind = ' class="short"' if column == 0 and len(text) <= _SHORT_CELL else ""
    return f"<td{kind}>{escape(text)}</td>"


def _pictures(block: ReportPictures) -> str:
    images = (
        f'<div><img src="data:image/png;base64,{_png(picture)}" alt="{escape(title)}">'
        f"<span>{escape(title)}</span></div>"
        for title, picture in block.pictures
    )
    return f"<figure>{''.join(images)}<figcaption>{escape(block.caption)}</figcaption></figure>"


def _png(picture: npt.NDArray[np.uint8]) -> str:
    """Return a picture (H, W, 3) as PNG in base64; grey ones have one channel in the file."""
    from PIL import Image  # comes with matplotlib

    grey = bool((picture == picture[..., :1]).all())
    file = io.BytesIO()
    image = Image.fromarray(picture[..., 0] if grey else picture)
    image.save(file, "png", compress_level=_LEVEL)
    return base64.b64encode(file.getvalue()).decode("ascii")
