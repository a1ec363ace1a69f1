"""The blocks that a report is made of, whatever file they are written to, and figures in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

RESEARCH = (
    "Research use only. Not a medical device, and no diagnosis: every finding needs a reader."
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
    """``title`` says of which scan it is.

    The foot of each page repeats it as ``scan``, with the day on which the report was ``made``
    (ISO 8601).
    """

    title: str
    blocks: tuple[Block, ...]
    scan: str = ""
    made: str = ""

    @property
    def foot_date(self) -> str:
        """Return the day in words, for the foot of a page."""
        return f"Report of {self.made}" if self.made else ""


MOST_LETTERS, _LAST = 160, 30  # of a scan's name in the foot: two lines


def shortened(text: str) -> str:
    """Return the name of a scan as two lines hold it: patient first, date and hash last."""
    if len(text) <= MOST_LETTERS:
        return text
    first = text[: MOST_LETTERS - _LAST].rstrip()
    last = text[-_LAST:].partition(" ")[2] or text[-_LAST:]
    return f"{first} \N{HORIZONTAL ELLIPSIS} {last}"


def with_texts(report: Report, change: Callable[[str], str]) -> Report:
    """Return the report with all its texts changed."""

    def changed(block: Block) -> Block:
        if isinstance(block, ReportTable):
            rows = tuple(tuple(map(change, row)) for row in block.rows)
            return replace(block, head=tuple(map(change, block.head)), rows=rows)
        if isinstance(block, ReportPictures):
            pictures = tuple((change(title), picture) for title, picture in block.pictures)
            return replace(block, caption=change(block.caption), pictures=pictures)
        return replace(block, text=change(block.text))

    blocks = tuple(map(changed, report.blocks))
    return replace(report, title=change(report.title), scan=change(report.scan), blocks=blocks)


def in_sections(blocks: Sequence[Block]) -> Iterator[tuple[Block, ...]]:
    """Yield each heading with what stands below it, first of all what stands above the first."""
    section: list[Block] = []
    for block in blocks:
        if isinstance(block, ReportHeading) and section:
            yield tuple(section)
            section = []
        section.append(block)
    if section:
        yield tuple(section)


def capital(text: str) -> str:
    """Return the text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def number_of(number: int, one: str, many: str = "") -> str:
    """Return "1 lesion", "2 lesions"; ``many`` is a plural that is made otherwise."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def millilitres(mm3: float) -> str:
    """Return a volume that is given in mm3."""
    return f"{mm3 / 1000:.2f} mL"


def millimetres(mm: float | None) -> str:
    """Return a length, "not known" for None."""
    return "not known" if mm is None else f"{mm:.0f} mm"


def hounsfield(hu: float | None) -> str:
    """Return a density, "not known" for None."""
    return "not known" if hu is None else f"{hu:.0f} HU"
