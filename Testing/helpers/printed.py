"""What stands on the pages of a PDF that Chromium has printed, without a library of PDF.

Chromium writes plain objects, streams that zlib has packed, and a table of letters for each font.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass

_OBJECT = re.compile(rb"(?:^|\n)(\d+) 0 obj\b(.*?)\nendobj", re.DOTALL)
_SHOWN = re.compile(rb"/(\w+) [\d.]+ Tf|<([0-9A-Fa-f]+)> Tj|\bET\b")


@dataclass(frozen=True)
class PrintedPage:
    """A page: its size in points, its words in the order that they were drawn, and its pictures."""

    size: tuple[float, float]
    text: str
    pictures: int


def printed_pages(pdf: bytes) -> list[PrintedPage]:
    """Return the pages of a PDF that Chromium has printed."""
    objects = {int(number): body for number, body in _OBJECT.findall(pdf)}
    (root,) = (
        body for body in objects.values() if b"/Type /Pages" in body and b"/Parent" not in body
    )
    return [_page(objects, number) for number in _leaves(objects, root)]


def _leaves(objects: dict[int, bytes], node: bytes) -> list[int]:
    found = []
    for number in _references(node, b"Kids"):
        below = objects[number]
        found += _leaves(objects, below) if b"/Type /Pages" in below else [number]
    return found


def _references(body: bytes, key: bytes) -> list[int]:
    match = re.search(rb"/%s\s*(?:\[([^\]]*)\]|(\d+ 0 R))" % key, body)
    assert match, (key, body[:200])
    return [int(n) for n in re.findall(rb"(\d+) 0 R", match[1] or match[2])]


def _page(objects: dict[int, bytes], number: int) -> PrintedPage:
    body = objects[number]
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", body)
    assert box
    fonts = re.search(rb"/Font <<(.*?)>>", body, re.DOTALL)
    named = re.findall(rb"/(\w+) (\d+) 0 R", fonts[1]) if fonts else []
    letters = {name: _letters(objects, int(font)) for name, font in named}
    content = b"\n".join(_stream(objects[n]) for n in _references(body, b"Contents"))
    text = ""
    table: dict[int, str] = {}
    for match in _SHOWN.finditer(content):
        if match[1]:
            table = letters.get(match[1], {})
        elif match[2]:
            codes = (int(match[2][n : n + 4], 16) for n in range(0, len(match[2]), 4))
            text += "".join(table.get(code, "") for code in codes)
        else:
            text += " "
    pictures = len(re.findall(rb"/X\d+ Do", content))
    words = " ".join(unicodedata.normalize("NFKC", text).split())
    return PrintedPage((float(box[1]), float(box[2])), words, pictures)


def _stream(body: bytes) -> bytes:
    start = body.index(b"stream\n") + len(b"stream\n")
    data = body[start : body.rindex(b"\nendstream")]
    return zlib.decompress(data) if b"/FlateDecode" in body[:start] else data


def _letters(objects: dict[int, bytes], font: int) -> dict[int, str]:
    table: dict[int, str] = {}
    cmap = _stream(objects[_references(objects[font], b"ToUnicode")[0]])
    for block in re.findall(rb"beginbfchar(.*?)endbfchar", cmap, re.DOTALL):
        for code, letter in re.findall(rb"<(\w+)>\s*<(\w+)>", block):
            table[int(code, 16)] = bytes.fromhex(letter.decode()).decode("utf-16-be")
    for block in re.findall(rb"beginbfrange(.*?)endbfrange", cmap, re.DOTALL):
        for first, last, letter in re.findall(rb"<(\w+)>\s*<(\w+)>\s*<(\w+)>", block):
            for code in range(int(first, 16), int(last, 16) + 1):
                table[code] = chr(int(letter, 16) + code - int(first, 16))
    return table
