"""No typed word is lost and none lands in another case: the page is later than the session."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from helpers import app
from helpers.app import PATIENCE, Tab, open_tab
from hideseekseg.cli.main import main
from hideseekseg.cohort.readings import read_reading, reading_folder
from hideseekseg.imaging.volume import Volume, to_sitk

pytestmark = pytest.mark.slow  # servers, browsers and a cohort
ROWS = "#candidates tbody tr"
CASE = "([n]) => document.querySelector('#cases-text')?.innerText.startsWith(`Case ${n} of 2`)"
WORDS = "a rim, ex"  # with letters that are keys of verdicts
# What is done, and words that come at once after it, as one message after the other.
THEN_COMMENT = """([what, words]) => {
  const state = (name) => window.trame.state.get(name), opened = state("opened");
  window.trame.trigger("do", what, { opened });
  window.trame.trigger("do", ["comment", words, state("current"), opened], { opened });
}"""
# Words are sent as soon as their reader rests for a second: not in this tab.
NEVER_RESTS = """
const later = window.setTimeout;
window.setTimeout = (what, ms, ...more) => (ms === 1000 ? 0 : later(what, ms, ...more));
"""
# Whether the field can be typed in and what it says, at each moment that another scan is read.
WATCH = """() => {
  window.seen = [];
  setInterval(() => {
    const field = document.querySelector("#comment"), loading = window.trame.state.get("loading");
    if (field && loading) window.seen.push([field.readOnly, field.placeholder]);
  }, 5);
}"""


@pytest.fixture(scope="module")
def finished(
    box_spine: tuple[Volume, Volume], tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A cohort of two patients, whose findings have the same ids."""
    folder = tmp_path_factory.mktemp("cohort")
    ct, bodies = (to_sitk(volume) for volume in box_spine)
    lines = ["case,ct,segmentation,labels,patient"]
    sitk.WriteImage(bodies, str(folder / "bodies.nii.gz"))
    for n, case in enumerate("AB"):
        sitk.WriteImage(ct + n, str(folder / f"{case}.nii.gz"))
        lines.append(f"{case},{case}.nii.gz,bodies.nii.gz,totalsegmentator,p{n}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", "utf-8")
    words = ["--weights", str(tiny_weights), "--device", "cpu", "--threads", "1", "--workers", "1"]
    assert main(["cohort", str(folder / "manifest.csv"), "--out", str(folder / "out"), *words]) == 0
    return folder / "out"


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def said(out: Path, case: str) -> tuple[dict[str, str], set[str]]:
    """All comments on a case, by the finding's id, and all verdicts."""
    reading = read_reading(reading_folder(out / "cases" / case, "Ada"))
    items = reading.review.items if reading is not None else ()
    return {x.id: x.comment for x in items if x.comment}, {x.verdict for x in items}


def until_said(tab: Tab, out: Path, case: str, expected: tuple[dict[str, str], set[str]]) -> None:
    """Wait until a case's folder has these comments and verdicts: soon after they were given."""
    end = time.monotonic() + PATIENCE / 1000
    while (found := said(out, case)) != expected:
        assert time.monotonic() < end, found
        tab.page.wait_for_timeout(50)


def until_case(tab: Tab, number: int) -> None:
    tab.until(CASE, number)
    tab.page.wait_for_selector("#case:not([disabled])", timeout=PATIENCE)
    tab.page.wait_for_selector(ROWS, timeout=PATIENCE)


def test_words_that_are_typed_as_the_case_changes_stay_with_theirs(browser: Any, out: Path) -> None:
    """In a second tab, while the first one goes on: also the rest of them, which judges nothing."""
    with app.serve("--reader", "Ada", str(out)) as served:
        tab = open_tab(browser, served.url, ROWS)
        other = open_tab(browser, served.url, ROWS)
        tab.choose_first()
        chosen = str(tab.state("current"))
        other.until_state("current", chosen)
        other.press("c")
        other.page.keyboard.type(WORDS)
        tab.press("j")
        until_case(tab, 2)
        until_case(other, 2)
        other.page.keyboard.type(WORDS)
        until_said(tab, out, "A", ({chosen: WORDS}, {"unreviewed"}))
        field = "document.querySelector('#comment')"
        other.until(f"() => {field}.readOnly && {field}.placeholder.startsWith('Another review')")
        other.press("Enter")
        other.until(f"() => !{field}.readOnly && {field}.placeholder === 'Comment'")
        other.press("c")
        other.page.keyboard.type("of the second")
        other.press("Enter")
        other.until_state("comment", "of the second")
        other.press("k")
        other.until("() => document.querySelectorAll('#candidates tr.uncertain').length === 1")
        assert said(out, "A") == ({chosen: WORDS}, {"unreviewed"})
        until_said(other, out, "B", ({chosen: "of the second"}, {"unreviewed", "uncertain"}))
        assert tab.complaints == other.complaints == []


def test_words_that_come_while_the_next_case_is_read_are_kept(browser: Any, out: Path) -> None:
    with app.serve("--reader", "Ada", str(out)) as served:
        tab = open_tab(browser, served.url, ROWS)
        tab.choose_first()
        chosen = str(tab.state("current"))
        tab.until_state("comment", "")
        tab.page.wait_for_timeout(1500)  # the next case is read ahead: it is there at once
        tab.page.evaluate(THEN_COMMENT, [["case", 1, "A"], WORDS])
        until_case(tab, 2)
        until_said(tab, out, "A", ({chosen: WORDS}, {"unreviewed"}))
        assert said(out, "B")[0] == {}
        tab.page.evaluate(WATCH)
        tab.press("Shift+J")  # this one is not read ahead
        until_case(tab, 1)
        seen = tab.page.evaluate("window.seen")
        assert [True, "No comment while a scan is opened"] in seen
        tab.choose_first()
        tab.until_state("comment", WORDS)
        assert tab.page.evaluate("!document.querySelector('#comment').readOnly")


def test_words_that_come_while_another_scan_is_read_are_offered_again(
    browser: Any, box_spine: tuple[Volume, Volume], tiny_weights: Path, tmp_path: Path
) -> None:
    """And where their review is closed already, they are told: the reader still has them."""
    ct, bodies = (to_sitk(volume) for volume in box_spine)
    paths = [tmp_path / name for name in ("a.nii.gz", "b.nii.gz", "bodies.nii.gz")]
    for path, image in zip(paths, (ct, ct + 1, bodies)):
        sitk.WriteImage(image, str(path))
    first, second, vertebrae = map(str, paths)
    words = ["--labels", "totalsegmentator", "--weights", str(tiny_weights), "--threshold", "0"]
    state = tmp_path / "state"
    with app.serve(first, vertebrae, *words, state=state) as served:
        tab = open_tab(browser, served.url)
        tab.page.click("#segment")
        tab.page.wait_for_selector(ROWS, timeout=PATIENCE)
        tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        tab.choose_first()
        chosen, opened = tab.state("current"), tab.state("opened")
        other = open_tab(browser, served.url, ROWS, NEVER_RESTS)
        other.until_state("current", chosen)
        other.press("c")
        other.page.keyboard.type(WORDS)
        tab.page.click("text=Open…")
        tab.page.fill("#ct-path", second)
        tab.page.fill("#vertebrae-path", vertebrae)
        tab.page.select_option("#labels", "totalsegmentator")
        tab.page.click("#open-load")
        tab.page.wait_for_selector(".offer", timeout=PATIENCE)
        [copy] = (path.parent for path in state.rglob("review.json"))
        kept = json.loads((copy / "review.json").read_text("utf-8"))
        assert WORDS in json.dumps(kept)
        tab.page.evaluate(
            "words => window.trame.trigger('do', words)", ["comment", "too late", chosen, opened]
        )
        tab.until("() => /“too late”/.test(document.querySelector('#message')?.innerText)")
        tab.page.click(".offer >> text=Restore")
        tab.page.wait_for_selector(ROWS, timeout=PATIENCE)
        tab.page.click(f"tr[data-id='{chosen}']")
        tab.until_state("comment", WORDS)
