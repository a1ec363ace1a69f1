"""A whole spine on a small screen: the list, what lies upon what, and a server that is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import app
from helpers.app import PATIENCE, ROOT, Tab, is_bright, open_tab

pytestmark = pytest.mark.slow
LAPTOP = {"width": 1366, "height": 768}
READY = "#candidates tr.chosen"
# How many pixels of a list's chosen row are above or below what is seen of the list.
HIDDEN = """([id]) => {
  const list = document.getElementById(id), seen = list.getBoundingClientRect();
  const row = list.querySelector('tr.chosen').getBoundingClientRect();
  const top = seen.top + list.querySelector('thead').offsetHeight;
  return Math.max(top - row.top, row.bottom - seen.bottom, 0);
}"""
IN_SIGHT = f"([id]) => ({HIDDEN})([id]) < 2"
# Words that run over the border of what they stand in, and boxes that lie upon their neighbour.
ASTRAY = """() => {
  const said = [], all = (which) => [...document.querySelectorAll(which)];
  for (const e of all('header button, .tabs button, .keys button')) {
    if (e.scrollWidth > e.clientWidth + 1) said.push('cut off: ' + e.innerText);
  }
  for (const e of all('aside > *, .review > *').filter(e => e.checkVisibility())) {
    const scrolls = e.matches('.rows, details, .quiet'), next = e.nextElementSibling;
    if (!scrolls && e.scrollHeight > e.clientHeight + 2) said.push('too small: ' + e.className);
    const end = e.getBoundingClientRect().bottom - 1;
    if (next && next.checkVisibility() && next.getBoundingClientRect().top < end) {
      said.push('covered: ' + e.className);
    }
  }
  return said;
}"""
# Of a page that is to lose its connection.
SOCKETS = """
const Own = window.WebSocket;
window.sockets = [];
window.WebSocket = class extends Own {
  constructor(...words) { super(...words); window.sockets.push(this); }
};
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    app.need_all()
    path = tmp_path_factory.mktemp("spine") / "review.mrb"
    words = [app.app_python(), "-m", "helpers.whole_spine", str(path)]
    folders = os.pathsep.join([str(ROOT / "Testing"), str(ROOT / "HideSeekSeg")])
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": folders})
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    app.need_all()
    with app.browser() as opened:
        yield opened


@dataclass(frozen=True)
class Session:
    tab: Tab
    url: str


@pytest.fixture(scope="module")
def session(
    scene: Path, browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    out = tmp_path_factory.mktemp("out")
    with app.serve(str(scene), "--out", str(out)) as served:
        found = open_tab(browser, served.url, READY)
        yield Session(found, served.url)
        assert found.complaints == []


@pytest.fixture
def tab(session: Session) -> Tab:
    """On its first finding, in the window of a small laptop, sorted by score."""
    found = session.tab
    found.page.set_viewport_size(LAPTOP)
    found.page.click("#tab-findings")
    found.page.evaluate("document.activeElement.blur()")
    if found.state("wanted")["order"] not in ("", "score") or found.state("wanted")["backwards"]:
        found.page.click("#candidates th[data-order=score] button")
    found.choose_first()
    return found


def step(tab: Tab, times: int) -> None:
    for _ in range(times):
        before = tab.state("current")
        tab.press("n")
        tab.until("([old]) => trame.state.get('current') !== old", before)


def test_chosen_row_stays_in_sight(tab: Tab) -> None:
    tab.page.set_viewport_size({"width": 1366, "height": 1000})
    tab.rest()
    step(tab, 14)
    tab.until(IN_SIGHT, "panel-findings")
    tab.page.set_viewport_size(LAPTOP)
    tab.until(IN_SIGHT, "panel-findings")
    tab.page.click("#candidates th[data-order=level] button")  # sorted, it is elsewhere
    tab.until("() => trame.state.get('wanted').order === 'level'")
    tab.rest()
    tab.until(IN_SIGHT, "panel-findings")


def test_message_that_makes_the_list_smaller_hides_no_chosen_row(tab: Tab) -> None:
    step(tab, 9)
    tab.page.evaluate("trame.trigger('do', ['dicomSeg'])")
    tab.page.wait_for_selector("#message", timeout=PATIENCE)
    tab.until(IN_SIGHT, "panel-findings")


def test_list_stays_where_its_reader_scrolled_to(tab: Tab) -> None:
    tab.page.evaluate("trame.trigger('do', ['hush'])")
    tab.page.wait_for_selector("#message", state="detached")
    list = tab.page.locator("#panel-findings")
    list.evaluate("e => { e.scrollTop = e.scrollHeight; }")
    tab.rest()
    away = list.evaluate("e => e.scrollTop")
    assert away > 100
    tab.page.evaluate("trame.trigger('do', ['dicomSeg'])")
    tab.page.wait_for_selector("#message", timeout=PATIENCE)
    tab.rest()
    assert list.evaluate("e => e.scrollTop") >= away


def test_vertebra_of_the_chosen_finding_is_in_sight_in_its_list(tab: Tab) -> None:
    step(tab, 16)
    tab.page.click("#tab-vertebrae")
    tab.until(IN_SIGHT, "panel-vertebrae")
    for _ in range(4):
        tab.press("Shift+P")
    tab.rest()
    tab.until(IN_SIGHT, "panel-vertebrae")


def test_nothing_lies_upon_another_where_much_is_said(tab: Tab) -> None:
    tab.page.evaluate("trame.trigger('do', ['dicomSeg'])")
    tab.page.wait_for_selector("#message", timeout=PATIENCE)
    flagged = "() => document.querySelector('#detail').innerText.includes('look yourself')"
    while not tab.page.evaluate(flagged):
        step(tab, 1)
    for name in ("vertebrae", "burden", "findings"):
        tab.page.click(f"#tab-{name}")
        tab.until_state("tab", name)
        assert tab.page.evaluate(ASTRAY) == [], name
    header = tab.page.locator("#summary")
    assert header.inner_text().endswith("not analysed")
    assert header.evaluate("e => e.scrollHeight <= e.clientHeight + 1"), "all of it is read"


def test_list_is_one_stop_of_the_tab_key_and_has_arrows(tab: Tab) -> None:
    stops = "() => document.querySelectorAll('#candidates tr[tabindex=\"0\"]').length"
    assert tab.page.evaluate(stops) == 1
    tab.page.locator("#candidates th[data-order=verdict] button").focus()
    tab.press("Tab")
    shown = tab.state("shown")
    for key, row in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1)):
        tab.press(key)
        tab.until("([id]) => document.activeElement.dataset.id === id", shown[row])
        assert tab.state("current") == shown[row]
    tab.press("a")  # the focus goes on with the finding
    tab.until("([id]) => document.activeElement.dataset.id === id", shown[2])
    tab.press("u")
    tab.until_state("can_undo", False)
    tab.page.click("#tab-vertebrae")
    tab.page.locator("#tab-burden").focus()
    tab.press("Tab")
    level = tab.state("level")
    tab.press("ArrowUp")
    tab.until("([old]) => trame.state.get('level') !== old", level)
    tab.until("() => document.activeElement.dataset.id === trame.state.get('level')")


def test_arrows_step_through_slices_after_a_row_was_clicked(tab: Tab) -> None:
    tab.page.locator("#candidates tbody tr").nth(2).click()
    tab.until("() => trame.state.get('current') === trame.state.get('shown')[2]")
    tab.page.locator(".axial .area").hover()
    before, current = tab.state("places")["axial"], tab.state("current")
    tab.press("ArrowUp")
    tab.until("([old]) => trame.state.get('places').axial !== old", before)
    assert tab.state("current") == current


def test_finding_without_evidence_says_so(tab: Tab) -> None:
    assert "was not kept" in tab.text("#strip")


def test_files_of_earlier_verdicts_are_named(tab: Tab, tmp_path: Path) -> None:
    """What is downloaded has the verdicts as they stand, or it is said."""
    tab.page.click("#report")
    tab.page.wait_for_selector(".links a:has-text('report.pdf')", timeout=PATIENCE)
    assert not tab.page.is_visible("#old-files")
    tab.press("a")
    tab.page.wait_for_selector("#old-files", timeout=PATIENCE)
    assert "report.html, report.pdf" in tab.text("#old-files")
    tab.press("u")
    tab.page.wait_for_selector("#old-files", state="detached", timeout=PATIENCE)
    tab.press("a")
    tab.page.wait_for_selector("#old-files", timeout=PATIENCE)
    tab.page.evaluate("folder => trame.trigger('do', ['save', folder, 'A'])", str(tmp_path / "new"))
    tab.page.wait_for_selector(".links a:has-text('accepted.csv')", timeout=PATIENCE)
    tab.page.wait_for_selector("#old-files", state="detached", timeout=PATIENCE)
    tab.press("u")
    tab.page.wait_for_selector("#old-files", timeout=PATIENCE)
    assert "accepted.csv" in tab.text("#old-files")


def test_page_comes_back_after_its_connection_was_cut(session: Session, browser: Any) -> None:
    tab = open_tab(browser, session.url, READY, SOCKETS)
    tab.page.evaluate("sockets.forEach(one => one.close())")
    tab.page.wait_for_selector("#ended", timeout=PATIENCE)
    assert "saved automatically" in tab.text("#ended")
    tab.page.wait_for_selector(READY, timeout=PATIENCE)
    tab.page.context.close()


@pytest.mark.parametrize("button", ["left", "right"])
def test_mouse_does_not_go_on_after_a_reload(session: Session, browser: Any, button: str) -> None:
    """Nothing says that the button was released: neither drawing nor zooming may go on."""
    tab = open_tab(browser, session.url, "#candidates tbody tr")
    tab.page.on("dialog", lambda dialog: dialog.accept())
    tab.page.evaluate("trame.trigger('do', ['missed', 'T5', 'lytic'])")
    tab.until_state("tool", "draw")
    tab.rest()
    box = tab.page.locator(".axial").bounding_box()

    def move(across: float, down: float) -> None:
        x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
        tab.page.mouse.move(x, y, steps=5)

    def volume() -> str:
        return str(tab.rows()[-1][4])

    move(0.6, 0.7)
    tab.page.mouse.down(button=button)
    move(0.65, 0.6)
    tab.rest()
    tab.page.reload()
    tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
    tab.until_seen(".axial", is_bright, 300)
    tab.rest()
    drawn, seen = volume(), tab.picture(".axial")
    assert bool(drawn) == (button == "left"), "what was drawn is kept"
    tab.page.mouse.up(button=button)
    for across in (0.3, 0.5, 0.7):
        move(across, 0.4)
    tab.rest()
    assert np.abs(tab.picture(".axial") - seen).max() < 40
    move(0.72, 0.75)
    tab.page.mouse.down()
    tab.page.mouse.up()
    last = "[...document.querySelectorAll('#candidates tr')].at(-1).cells[4].innerText"
    tab.until(f"([old]) => {last}.trim() !== old", drawn)
    assert float(volume()) - float(drawn or 0) < 0.6, "one ball alone"
    tab.press("u")
    tab.until_state("can_undo", False)
    tab.page.context.close()


def test_page_of_a_server_that_ended_says_what_to_do(
    scene: Path, browser: Any, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (str(scene), "--out", str(tmp_path / "out"), "--port", str(port))
    with app.serve(*words, state=tmp_path) as served:
        tab = open_tab(browser, served.url, READY)
        tab.press("a")
        tab.until_state("can_undo", True)
        tab.rest()
        tab.press("c")
        tab.page.keyboard.type("fracture?")
        os.kill(served.process.pid, signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        tab.page.wait_for_selector("#ended", timeout=PATIENCE)
        tab.until("() => document.querySelector('#ended-words').innerText.includes('fracture?')")
        assert "choose Restore" in tab.text("#ended")
        assert not tab.page.is_visible("#ended-again")
    with app.serve(*words, state=tmp_path) as served:
        tab.page.wait_for_selector("#ended-again", timeout=PATIENCE)
        again = open_tab(browser, served.url, READY)
        assert "1 accepted" in again.state("offers")[0]["text"]
    for one in (tab, again):
        one.page.context.close()
