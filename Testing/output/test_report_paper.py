"""A report on paper: the foot of each page, heads of tables, and findings that stay whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context

from helpers.findings import (
    ball,
    body_centre,
    make_candidate,
    make_ct,
    make_grid,
    make_result,
    store_result,
)
from helpers.printed import PrintedPage, printed_pages
from hideseekseg.cli.pacs import _write_reports as write_reports
from hideseekseg.events import Finished, Progress, from_line
from hideseekseg.output import report_pdf
from hideseekseg.output.report_blocks import (
    RESEARCH,
    Block,
    Report,
    ReportHeading,
    ReportPictures,
    ReportTable,
    ReportText,
    shortened,
)
from hideseekseg.output.report_html import write_html
from hideseekseg.output.report_pdf import PdfItem, PdfLine, PdfPicture, lay_out, write_pdf
from hideseekseg.progress import Stopped

SCAN = 'MÜLLER-LÜDENSCHEIDT "Hänschen" </style><b>\\C, 4711, Thorax, 2024-01-02 [0123abcd]'
PAPERS = {"A4": (595.92, 842.88), "Letter": (612.0, 792.0)}
HEAD = ("Level", "State", "P(malignant)", "Remarks")


def long_report(findings: int = 9, rows: int = 60, scan: str = SCAN) -> Report:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    titles = ("original", "healthy edit", "difference", "revealed alone")
    table = tuple((f"row{n}", "Lesion outlined", "0.90", "") for n in range(rows))
    blocks: list[Block] = [ReportText(RESEARCH, warning=True), ReportHeading("What was analysed")]
    blocks += [ReportTable(HEAD, table), ReportHeading("Findings"), ReportText("legend " * 40)]
    for n in range(findings):
        blocks += [ReportHeading(f"finding{n}", 3), ReportText(f"said{n} " * (30 + 9 * n))]
        blocks.append(ReportPictures(tuple(zip(titles, pictures)), f"caption{n}"))
    facts = tuple((f"fact{n}", "is known") for n in range(8))
    blocks += [ReportHeading("Method"), ReportTable(("", ""), facts), ReportText(RESEARCH)]
    return Report(f"Vertebral lesions in CT: {scan}", tuple(blocks), scan, "2026-03-04")


def printed(report: Report, folder: Path, paper: str) -> list[PrintedPage]:
    """The pages as Chromium prints them on a printer with this paper."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from hideseekseg.benchmark.browser import browser, chromium

    if not chromium():
        pytest.skip("Chromium is not installed")
    write_html(folder / "report.html", report)
    with browser() as opened:
        page = opened.new_page()
        page.goto((folder / "report.html").as_uri())
        return printed_pages(page.pdf(format=paper, prefer_css_page_size=True))


@pytest.mark.parametrize("paper", PAPERS)
def test_printed_pages_have_a_foot_and_whole_findings(paper: str, tmp_path: Path) -> None:
    pages = printed(long_report(), tmp_path, paper)
    assert len(pages) > 4
    for n, page in enumerate(pages, 1):
        assert page.size == pytest.approx(PAPERS[paper], abs=1.5)
        foot = f"Page {n} of {len(pages)} Report of 2026-03-04 {SCAN} {RESEARCH}"
        assert page.text.startswith(foot), page.text[:300]
        found = [int(x) for x in re.findall(r"finding(\d+)", page.text)]
        assert page.pictures == 4 * len(found)
        for x in found:
            assert page.text.count(f"said{x} ") == 30 + 9 * x and f"caption{x}" in page.text
        assert ("legend" in page.text) == (0 in found), "the legend is apart from the first finding"
        assert page.text.count("fact") in (0, 8), "a short table is divided"
    assert sum(page.pictures for page in pages) == 4 * 9
    of_table = [page for page in pages if "row" in page.text]
    assert len(of_table) > 1
    for page in of_table:
        assert page.text.index(" ".join(HEAD)) < page.text.index("row"), "the head is not repeated"


def test_a_lesion_of_many_that_joined_does_not_widen_the_table(tmp_path: Path) -> None:
    """As in a follow-up: its names are many, and a row of one name stays on one line."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from hideseekseg.benchmark.browser import browser, chromium

    if not chromium():
        pytest.skip("Chromium is not installed")
    names = ", ".join(f"T10 blastic {n}" for n in range(1, 13))
    more = ("there before, 12 joined", "1.00 mL", "2.00 mL", "+1.00 mL (+100 %)", "+20 HU")
    head = ("Lesion", "Earlier", "State", "Volume before", "Volume now", "Change", "Density")
    table = ReportTable(head, ((names, names, *more), ("T10 blastic 13", "", *more)))
    write_html(tmp_path / "report.html", Report("of a scan", (table,)))
    with browser() as opened:
        page = opened.new_page(viewport={"width": 657, "height": 900})
        page.emulate_media(media="print")
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 657
        lines = page.evaluate(
            """() => [...document.querySelectorAll('td:first-child')].map((cell) => {
              const range = document.createRange();
              range.selectNodeContents(cell);
              return new Set([...range.getClientRects()].map((box) => box.top)).size;
            })"""
        )
    assert lines[0] > 1 and lines[1] == 1


@pytest.mark.parametrize("scan", ["sub-" + "abcdefghi_" * 12, "W" * 200])
def test_a_word_longer_than_the_foot_ends_before_the_number_of_the_page(
    scan: str, tmp_path: Path
) -> None:
    """Margin boxes are no part of the page that a script can see: their text is, in a box."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from hideseekseg.benchmark.browser import browser, chromium

    if not chromium():
        pytest.skip("Chromium is not installed")
    write_html(tmp_path / "report.html", Report("of a scan", (), scan, "2026-03-04"))
    style = (tmp_path / "report.html").read_text("utf-8")
    content = re.search(r'@bottom-left { content: ("[^"]*");', style)
    assert content
    box = "width: 135mm; font: 7.5pt/1.35 system-ui, sans-serif; white-space: pre-line"
    with browser() as opened:
        page = opened.new_page()
        page.set_content(
            f"<style>p::before {{ content: {content[1]} }}</style><p style='{box}'></p>"
        )
        width, room = page.evaluate(
            "(p => [p.scrollWidth, p.clientWidth])(document.querySelector('p'))"
        )
    assert width <= room


def laid_out(report: Report) -> list[list[PdfItem]]:
    with rc_context({"font.family": ["DejaVu Sans"]}):
        return lay_out(report)


def words(page: list[PdfItem]) -> list[str]:
    return [item.text for item in page if isinstance(item, PdfLine)]


def test_pages_of_the_pdf_have_a_foot_and_whole_findings() -> None:
    report = long_report()
    pages = laid_out(report)
    assert len(pages) > 4
    for n, page in enumerate(pages, 1):
        said = words(page)
        text = " ".join(said)
        foot = said[said.index(RESEARCH, 1) :] if n == 1 else said[said.index(RESEARCH) :]
        assert f"Page {n} of {len(pages)}" in foot and "Report of 2026-03-04" in foot
        assert SCAN in text.replace("  ", " ")
        found = [int(x) for x in re.findall(r"finding(\d+)", text)]
        assert sum(isinstance(item, PdfPicture) for item in page) == 4 * len(found)
        for x in found:
            assert text.count(f"said{x}") == 30 + 9 * x and f"caption{x}" in said
        assert ("legend" in text) == (0 in found)
        assert text.count("fact") in (0, 8)
        if "row" in text:
            assert text.index(" ".join(HEAD)) < text.index("row"), "the head is not repeated"
        ends = [x.y + (x.tall if isinstance(x, PdfPicture) else 0) for x in page]
        assert min(x.y for x in page) >= 0.6 and max(ends) < 11.69 - 0.25
    drawn = [item for page in pages for item in page if isinstance(item, PdfPicture)]
    assert len(drawn) == 4 * 9


def test_a_finding_longer_than_a_page_goes_on_and_loses_nothing() -> None:
    report = long_report(findings=1)
    blocks = [*report.blocks]
    blocks[blocks.index(ReportHeading("finding0", 3)) + 1] = ReportText("much " * 3000)
    pages = laid_out(replace(report, blocks=tuple(blocks)))
    text = " ".join(word for page in pages for word in words(page))
    assert text.count("much") == 3000 and "caption0" in text
    longest = max(item.y for page in pages for item in page)
    assert longest < 11.69 - 0.25, "nothing is drawn below the foot"


def test_a_long_name_is_cut_in_its_middle_in_the_foot_alone() -> None:
    name = "WIDEMANN " * 30 + "4711, 2024-01-02 [0123abcd]"
    short = shortened(name)
    assert len(short) <= 160 and short.endswith(" … 4711, 2024-01-02 [0123abcd]")
    assert short.startswith("WIDEMANN WIDEMANN") and shortened(SCAN) == SCAN
    first, second = laid_out(long_report(rows=60, scan=name))[:2]
    assert " ".join(words(first)).count("WIDEMANN") > 30 + 10
    assert 10 < " ".join(words(second)).count("WIDEMANN") < 20
    lines = [item for item in second if isinstance(item, PdfLine) and item.y > 10.8]
    assert max(item.y for item in lines) < 11.69 - 0.3 and RESEARCH in [x.text for x in lines]


@pytest.mark.parametrize("step", ["writing PDF, page", "writing PDF, picture"])
def test_a_stop_ends_the_pdf_at_once_and_leaves_nothing(step: str, tmp_path: Path) -> None:
    heard: list[str] = []

    def stop(words: str, done: int, total: int) -> None:
        heard.append(words)
        if words == step and done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        write_pdf(tmp_path / "r.pdf", long_report(), stop)
    assert heard.count(step) == 3 and heard[-1] == step
    assert not [*tmp_path.iterdir()]


def test_every_step_is_reported(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []

    def hear(*step: object) -> None:
        heard.append(step)  # type: ignore[arg-type]

    report = long_report(findings=5)
    write_html(tmp_path / "r.html", report, hear)
    assert [done for _words, done, _total in heard] == [*range(heard[0][2])]
    heard.clear()
    write_pdf(tmp_path / "r.pdf", report, hear)
    pages = len(laid_out(report))
    names = ["writing PDF, page"] * pages + ["writing PDF, picture"] * 20
    assert [words for words, _done, _total in heard] == names
    assert heard[-1][1:] == (19, 20)
    assert len(re.findall(rb"/Subtype /Image", (tmp_path / "r.pdf").read_bytes())) == 20
    assert report_pdf.PAGE == (8.27, 11.69)


LIBRARY = Path(report_pdf.__file__).parents[2]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result with forty findings in one vertebra."""
    folder, grid = tmp_path_factory.mktemp("many"), make_grid((60, 50, 60), (2.0, 2.0, 2.5))
    made = make_result(grid)
    first, *others = made.vertebrae
    x, y, z = body_centre(0)
    found = [
        make_candidate(f"T10-{n + 1}", "lytic", 0.9, ball(grid, (x - 10 + n / 2, y, z), 4.0), grid)
        for n in range(40)
    ]
    store_result(
        folder,
        make_ct(grid),
        replace(made, vertebrae=(replace(first, candidates=tuple(found)), *others)),
    )
    return folder


def command(folder: Path, *words: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "hideseekseg", "report", str(folder), *map(str, words)]
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    return subprocess.Popen(line, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_a_report_tells_programs_how_far_it_is(many: Path, tmp_path: Path) -> None:
    files = tmp_path / "r.html", tmp_path / "r.pdf"
    out, err = command(many, "--out", files[0], "--pdf", files[1], "--json-lines").communicate(
        timeout=120
    )
    *steps, last = map(from_line, out.splitlines())
    assert last is not None and err == ""
    assert isinstance(last, Finished) and last.files == tuple(map(str, files))
    assert all(isinstance(step, Progress) for step in steps)
    shares = [step.fraction for step in steps if isinstance(step, Progress)]
    assert shares == sorted(shares) and shares[0] == 0 and 0.9 < shares[-1] < 1 and len(shares) > 40


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process alone")
@pytest.mark.parametrize("step", ["drawing findings", "writing PDF, page"])
def test_a_report_is_stopped_within_two_seconds(step: str, many: Path, tmp_path: Path) -> None:
    running = command(
        many, "--out", tmp_path / "r.html", "--pdf", tmp_path / "r.pdf", "--json-lines"
    )
    assert running.stdout is not None
    for line in running.stdout:
        event = from_line(line)
        if isinstance(event, Progress) and event.step == step:
            break
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    _out, err = running.communicate(timeout=60)
    assert time.monotonic() - began < 2 and running.returncode == 130
    assert err.splitlines()[-1] == "hideseekseg: stopped" and "Traceback" not in err
    whole = [] if step == "drawing findings" else ["r.html"]
    assert [file.name for file in tmp_path.iterdir()] == whole


@pytest.mark.parametrize("after", [3, 60, 80])
def test_reports_for_the_archive_are_stopped_and_none_stays(after: int, many: Path) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    with pytest.raises(Stopped):
        write_reports(many, False, should_stop)
    assert asked == after + 1
    assert not [*many.glob("report.*")] and not [*many.glob(".*report*")]
