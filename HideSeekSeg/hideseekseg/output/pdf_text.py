"""Text of a PDF page: which fonts have its letters, how wide it is, and where a line ends.

To be called while ``fonts_for`` is matplotlib's family of fonts, see ``report_pdf.write_pdf``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

USUAL = "DejaVu Sans"  # comes with matplotlib
NO_LETTER = "□"  # drawn for a letter that no font has
POINTS = 72.0  # of an inch
# Boxes for every letter, letters of coloured dots, which a PDF cannot take, and signs of formulas
# at places of private use.
_NOT_FONTS = ("LastResort", "Emoji", "STIXNon")
# Scripts whose letters change places or shapes with those beside them: from and to.
_JOINED = ((0x0590, 0x08FF), (0x0900, 0x0DFF), (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))


def fonts_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the families of fonts that draw these texts, and the letters that none of them has.

    The usual one comes first; others of this computer follow where it lacks letters.  Letters that
    have to be shaped count as lacking where this matplotlib does not shape text (before 3.11).
    """
    from matplotlib import font_manager, ft2font

    letters = {c for text in texts for c in text if not c.isspace()}
    joined = set() if hasattr(ft2font, "__libraqm_version__") else set(filter(_is_joined, letters))
    usual = font_manager.findfont(USUAL)
    lacking = letters - joined - _letters_of(usual, letters)
    families = [USUAL]
    fonts = {x.name: x.fname for x in font_manager.fontManager.ttflist if x.style == "normal"}
    while lacking:
        found = {name: _letters_of(path, lacking) for name, path in sorted(fonts.items())}
        best = max(found, key=lambda name: len(found[name]), default="")
        if not best or not found[best]:
            break
        families.append(best)
        lacking -= found[best]
    return families, lacking | joined


def _is_joined(letter: str) -> bool:
    right_to_left = unicodedata.bidirectional(letter) in ("R", "AL", "AN")
    return right_to_left or any(low <= ord(letter) <= high for low, high in _JOINED)


def _letters_of(path: str, letters: set[str]) -> set[str]:
    """Return which of the letters a font file has; none where it cannot be used."""
    from matplotlib.font_manager import get_font

    if any(name in path for name in _NOT_FONTS):
        return set()
    try:
        known = get_font(path).get_charmap()
    except (OSError, RuntimeError):
        return set()
    return {c for c in letters if ord(c) in known}


def width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width (inches) of a line of letters of a size in points."""
    words = text.split(" ")
    inches = sum(_advance(word, weight, _families()) for word in words)
    return size * (inches + (len(words) - 1) * _advance(" ", weight, _families()))


def _families() -> tuple[str, ...]:
    from matplotlib import rcParams

    return tuple(rcParams["font.family"])


# Letters are measured word by word, as a report says the same ones again and again.
@lru_cache(maxsize=1 << 14)
def _advance(word: str, weight: str, families: tuple[str, ...]) -> float:
    """Return how far (inches) a word of one point takes the line on, room around it included."""
    return _measured(f"n{word}n", weight, families) - _measured("nn", weight, families)


@lru_cache(maxsize=64)
def _look(weight: str, families: tuple[str, ...]) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family=list(families), size=1.0, weight=weight)


def _measured(text: str, weight: str, families: tuple[str, ...]) -> float:
    """Return the width (inches) of the letters themselves, one point large."""
    from matplotlib.textpath import text_to_path

    look = _look(weight, families)
    wide, _height, _descent = text_to_path.get_text_width_height_descent(text, look, False)
    return float(wide) / POINTS


def wrapped(text: str, room: float, size: float, weight: str = "normal") -> list[str]:
    """Return the lines of a text that fit into so many inches: at spaces, else within a word."""
    lines: list[str] = []
    line: list[str] = []
    space, used = width(" ", size, weight), 0.0
    for word in text.split():
        wide = width(word, size, weight)
        if line and used + space + wide <= room:
            line.append(word)
            used += space + wide
            continue
        if line:
            lines.append(" ".join(line))
        *full, last = _cut(word, room, size, weight)
        lines += full
        line, used = [last], width(last, size, weight)
    return [*lines, " ".join(line)] if line else lines


def _cut(word: str, room: float, size: float, weight: str) -> Iterator[str]:
    """Cut a word into parts that fit, of one letter at least."""

    def fits(letters: int) -> bool:
        return width(word[:letters], size, weight) <= room

    while True:
        # Letters that fit, and more than do: only as many as a line has are measured each time.
        low, high = 1, 2
        while high < len(word) and fits(high):
            low, high = high, 2 * high
        if high >= len(word):
            if len(word) <= 1 or fits(len(word)):
                break
            high = len(word)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        yield word[:low]
        word = word[low:]
    yield word
