"""What stands on the pages of a report's PDF."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from matplotlib import font_manager, ft2font, rc_context
from matplotlib.font_manager import FontProperties

from hideseekseg.output import pdf_text, report_pdf
from hideseekseg.output.report_blocks import Report, ReportHeading, ReportTable, ReportText

LONG = "Vertebral metastases in CT of WIDEMANN WOLFGANG WILHELM, thorax and abdomen, venous phase"
WORD = "W" * 150
NAME, HEBREW = "山田 太郎", "שלום"


def report(text: str) -> Report:
    return Report(
        f"{LONG} {text}",
        (
            ReportHeading(f"{LONG} {text}"),
            ReportText(f"{text} {LONG} {WORD}", warning=True),
            ReportTable(("lesion", "comment"), (("T10 lytic 1", f"{WORD} {text}"), (WORD, text))),
        ),
    )


def pages_of(made: Report) -> list[list[report_pdf.PdfLine]]:
    """The lines of each page, laid out with the fonts that they are drawn with."""
    families, lacking = pdf_text.fonts_for(report_pdf.texts(made))
    assert families == ["DejaVu Sans"] and not lacking
    with rc_context({"font.family": families}):
        pages = report_pdf.lay_out(made)
    return [[x for x in page if isinstance(x, report_pdf.PdfLine)] for page in pages]


def drawn(made: Report) -> Iterator[tuple[str, float]]:
    """The lines of all pages, with the right end of each in inches, by its letters' widths."""
    fonts = {
        weight: TTFont(font_manager.findfont(FontProperties(family="DejaVu Sans", weight=weight)))
        for weight in ("normal", "bold")
    }
    for page in pages_of(made):
        for line in page:
            font = fonts[line.weight]
            letters, widths = font.getBestCmap(), font["hmtx"].metrics
            units = sum(widths[letters[ord(letter)]][0] for letter in line.text)
            inches = units / font["head"].unitsPerEm * line.size / 72
            yield line.text, line.x + inches


@pytest.mark.parametrize("text", ["", "iiii " * 40, "MW" * 60, "Ωμέγα Привет " * 9])
def test_no_line_leaves_the_page_and_no_letter_is_lost(text: str) -> None:
    lines = list(drawn(report(text)))
    assert (
        lines and max(end for _line, end in lines) <= 0.75 + 6.77 + 0.1
    )  # letters that are drawn nearer
    written = "".join(line for line, _end in lines).replace(" ", "")
    assert written.count("W") == sum(t.count("W") for t in report_pdf.texts(report(text)))


@pytest.mark.parametrize("text", ["word " * 2000, "W" * 5000])
def test_a_row_higher_than_a_page_goes_on_and_loses_nothing(text: str) -> None:
    table = ReportTable(("Level", "Remarks"), (("T10", "cut off"), ("T11", text), ("T12", "")))
    pages = pages_of(Report("of a scan", (ReportHeading("Analysed"), table)))
    lines = [line for page in pages for line in page]
    assert max(line.y for line in lines if line.size > 8) < 10.7, "none is in the foot, or below"
    written = [line.text for line in lines if line.size == 8.5]
    assert "".join(written).count("W") == text.count("W")
    assert " ".join(written).split().count("word") == text.split().count("word")
    assert written.count("T11") == 1 and written.count("Remarks") == len(pages) > 1


def test_a_word_of_5000_letters_is_cut_within_a_second() -> None:
    began = time.process_time()
    lines = pdf_text.wrapped("abcdefghij" * 500, 4.0, 9)
    assert time.process_time() - began < 1, "each line is measured, not the rest of the word"
    assert "".join(lines) == "abcdefghij" * 500 and len(lines) > 50
    assert all(pdf_text.width(line, 9) <= 4.0 for line in lines)
    widths = [pdf_text.width(line + "a", 9) for line in lines[:-1]]
    assert min(widths) > 3.9, "a line takes what fits"


def test_letters_without_a_font_are_boxes_which_the_pdf_and_a_line_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = report(NAME)
    families, lacking = pdf_text.fonts_for(report_pdf.texts(made))
    if not lacking:
        pytest.skip(f"a font of this computer has Japanese letters: {families}")
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        report_pdf.write_pdf(tmp_path / "r.pdf", made)
    assert [r.message for r in caplog.records] == [
        "letters that no font here can draw are boxes in the PDF: 4"
    ]
    shown = report_pdf.drawable(made, lacking)
    texts = list(report_pdf.texts(shown))
    assert texts[0].endswith("□□ □□") and "no font of the computer" in shown.blocks[0].text  # type: ignore[union-attr]
    assert not any(letter in text for text in texts for letter in "山田太郎")


def test_letters_of_nobodys_are_boxes_without_a_warning_of_each(tmp_path: Path) -> None:
    """Of private use, or not assigned to anything: Python does not call them printable."""
    made = report("\ue123 \u0378")
    _families, lacking = pdf_text.fonts_for(report_pdf.texts(made))
    assert "\u0378" in lacking
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report_pdf.write_pdf(tmp_path / "r.pdf", made)


def test_a_font_of_the_computer_is_used_where_the_usual_one_lacks_letters(tmp_path: Path) -> None:
    font = FontBuilder(1000)
    pen = TTGlyphPen(None)
    for n, point in enumerate(((100, 0), (900, 0), (900, 900), (100, 900))):
        (pen.lineTo if n else pen.moveTo)(point)
    pen.closePath()
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(letter): "square" for letter in "山田太郎"})
    font.setupGlyf({".notdef": pen.glyph(), "square": pen.glyph()})
    font.setupHorizontalMetrics({name: (1000, 100) for name in (".notdef", "square")})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Squares of a test", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "squares.ttf")
    entries = font_manager.fontManager.ttflist
    before = [*entries]
    # Alone beside the usual one: another font of this computer may have them, too.
    entries[:] = [one for one in entries if one.name == "DejaVu Sans"]
    font_manager.fontManager.addfont(str(tmp_path / "squares.ttf"))
    try:
        families, lacking = pdf_text.fonts_for([NAME, "plain"])
        assert families == ["DejaVu Sans", "Squares of a test"] and not lacking
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report_pdf.write_pdf(tmp_path / "r.pdf", report(NAME))
    finally:
        entries[:] = before


def test_text_that_has_to_be_shaped_is_drawn_only_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A matplotlib that sets letter beside letter would write right-to-left text backwards."""
    monkeypatch.delattr(ft2font, "__libraqm_version__", raising=False)
    assert pdf_text.fonts_for([HEBREW, "plain"])[1] == {*HEBREW}
    monkeypatch.setattr(ft2font, "__libraqm_version__", "0.10", raising=False)
    assert pdf_text.fonts_for([HEBREW, "plain"])[1] == set()
