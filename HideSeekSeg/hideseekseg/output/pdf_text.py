"""Text of a PDF page: which fonts have its letters, how wide it is, and where a line ends.

To be called while ``fonts_for`` is matplotlib's family of fonts, see ``report_files.write_pdf``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

USUAL = "DejaVu Sans"  # comes with matplotlib
NO_LETTER = "□"  # drawn for a letter that no font has
POINTS = 72.0  # of an inch
# Boxes for every letter, and letters of coloured dots, which a PDF cannot take.
_NOT_FONTS = ("LastResort", "Emoji")
# Scripts whose letters change places or shapes with those beside them: from and to.
_JOINED = ((0x0590, 0x08FF), (0x0900, 0x0DFF), (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))


def fonts_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the families of fonts that draw these texts, and the letters that none of them has.

    The usual one comes first; others of this computer follow where it lacks letters.  Letters that
    have to be shaped count as lacking where this matplotlib does not shape text (before 3.11).
    """
    from matplotlib import font_manager, ft2font

    letters = {c for text in texts for c in text if not c.isspace() and c.isprintable()}
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
    return _measured(text, size, weight, _families())


def _families() -> tuple[str, ...]:
    from matplotlib import rcParams

    return tuple(rcParams["font.family"])


# Headings are kept together with what follows, so that most texts are asked for several times.
@lru_cache(maxsize=4096)
def _measured(text: str, size: float, weight: str, families: tuple[str, ...]) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    look = FontProperties(family=list(families), size=size, weight=weight)
    wide, _height, _descent = text_to_path.get_text_width_height_descent(text, look, False)
    return float(wide) / POINTS


def wrapped(text: str, room: float, size: float, weight: str = "normal") -> list[str]:
    """Return the lines of a text that fit into so many inches: at spaces, else within a word."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if width(longer, size, weight) <= room:
            line = longer
            continue
        if line:
            lines.append(line)
        *full, line = _cut(word, room, size, weight)
        lines += full
    return [*lines, line] if line else lines


def _cut(word: str, room: float, size: float, weight: str) -> Iterator[str]:
    """Cut a word into parts that fit, of one letter at least."""
    while width(word, size, weight) > room and len(word) > 1:
        low, high = 1, len(word) - 1  # letters that fit, and more than do
        while low < high:
            middle = (low + high + 1) // 2
            fits = width(word[:middle], size, weight) <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        yield word[:low]
        word = word[low:]
    yield word
