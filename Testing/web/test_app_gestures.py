"""One gesture, one finding: double clicks, and pages that are later than their session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import app
from helpers.app import PATIENCE, Tab, open_tab

pytestmark = pytest.mark.slow
BETWEEN_CLICKS = 150  # milliseconds of a usual double click
LOOKED = 500  # after which a quick reader presses again
STEPS = 5  # that a test takes at most
# A page that hears nothing of its session from "hold" to "hear", as on a slow line.
LATE = """
const own = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
const waiting = [];
let late = false;
Object.defineProperty(WebSocket.prototype, "onmessage", {
  ...own,
  set(handler) {
    own.set.call(this, (event) => (late ? waiting.push(() => handler(event)) : handler(event)));
  },
});
window.hold = () => { late = true; };
window.hear = () => { late = false; waiting.splice(0).forEach((go) => go()); };
"""
JUDGED = "([n]) => document.querySelectorAll('#candidates tbody tr:not(.unreviewed)').length === n"


@dataclass(frozen=True)
class Session:
    tab: Tab
    browser: Any
    url: str


@pytest.fixture(scope="module")
def session(box_files: tuple[Path, Path], tiny_weights: Path) -> Iterator[Session]:
    app.need_all()
    words = ["--labels", "totalsegmentator", "--weights", str(tiny_weights), "--threshold", "0"]
    with app.browser() as browser, app.serve(*map(str, box_files), *words) as served:
        found = open_tab(browser, served.url)
        found.page.click("#segment")
        found.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
        found.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        yield Session(found, browser, served.url)
        assert found.complaints == []


@pytest.fixture
def tab(session: Session) -> Iterator[Tab]:
    """The page on its first finding; what a test says is undone after it."""
    found = session.tab
    found.choose_first()
    yield found
    for _ in range(STEPS):
        found.press("u")  # where there is none, nothing is undone
    found.until_state("can_undo", False)


def click(tab: Tab, selector: str, times: int, between: int = BETWEEN_CLICKS) -> None:
    """Click an element so many times in one place, as a hand does."""
    box = tab.page.locator(selector).bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for number in range(1, times + 1):
        tab.page.mouse.down(click_count=number)
        tab.page.mouse.up(click_count=number)
        tab.page.wait_for_timeout(between)


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("action", ["accept", "uncertain", "reject"])
def test_double_click_judges_one_finding(tab: Tab, action: str, times: int) -> None:
    second = tab.state("shown")[1]
    click(tab, f"[data-action={action}]", times)
    tab.until_state("current", second)
    tab.rest()
    tab.until(JUDGED, 1)
    assert tab.state("current") == second


def test_double_click_switches_the_type_once(tab: Tab) -> None:
    was = tab.rows()[0][1]
    click(tab, "[data-action=switchType]", 2)
    tab.until_state("can_undo", True)
    tab.rest()
    assert tab.rows()[0][1] != was


# Answers come late, after all that they show.
ANSWERED_LATE = """() => {
  const trigger = window.trame.trigger;
  window.trame.trigger = async (...words) => {
    const answer = await trigger.call(window.trame, ...words);
    await new Promise((resolve) => setTimeout(resolve, 2000));
    return answer;
  };
}"""


def test_a_type_is_switched_back_as_soon_as_it_is_shown(session: Session, tab: Tab) -> None:
    other = open_tab(session.browser, session.url, "#candidates tr.chosen")
    other.page.evaluate(ANSWERED_LATE)
    was = other.rows()[0][1]
    cell = "document.querySelector('#candidates tr.chosen td:nth-child(2)').innerText.trim()"
    other.press("l")
    other.until(f"([old]) => {cell} !== old", was)
    other.press("l")
    other.until(f"([old]) => {cell} === old", was)
    tab.until_state("can_undo", True)
    assert other.complaints == []
    other.page.context.close()


def test_quick_reader_judges_a_finding_with_each_click(tab: Tab) -> None:
    """The system may take clicks for a double click that are half a second apart."""
    box = tab.page.locator("[data-action=accept]").bounding_box()
    tab.page.mouse.move(box["x"] + 9, box["y"] + 9)
    for number, following in enumerate(tab.state("shown")[1:4], start=1):
        tab.page.mouse.down(click_count=number)
        tab.page.mouse.up(click_count=number)
        tab.until_state("current", following)
        tab.page.wait_for_timeout(LOOKED)
    tab.until(JUDGED, 3)


def test_quick_clicks_on_next_go_on(tab: Tab) -> None:
    third = tab.state("shown")[2]
    click(tab, "[data-action=next]", 2)
    tab.until_state("current", third)


@pytest.fixture(scope="module")
def second(session: Session) -> Iterator[Tab]:
    """A second page of the session, which can be made late."""
    found = open_tab(session.browser, session.url, "#candidates tr.chosen", LATE)
    yield found
    assert found.complaints == []


@pytest.fixture
def late(tab: Tab, second: Tab) -> Iterator[Tab]:
    """The second page, which shows what the first does, and hears nothing until ``hear``."""
    second.until_state("current", tab.state("current"))
    second.until_state("can_undo", False)
    second.rest()
    second.page.evaluate("hold()")
    yield second
    hear(second)
    second.rest()
    assert second.complaints == []


def hear(late: Tab) -> None:
    late.page.evaluate("hear()")


@pytest.mark.parametrize("key", ["a", "k", "x"])
def test_verdict_is_of_no_finding_that_is_not_shown_yet(tab: Tab, late: Tab, key: str) -> None:
    """Where the page is late, its reader presses again: the first verdict was taken already."""
    late.press(key)
    late.press(key)
    tab.until(JUDGED, 1)
    hear(late)
    late.until(JUDGED, 1)
    late.until("() => window.trame.state.get('current') !== window.trame.state.get('shown')[0]")
    late.press(key)  # the next finding is shown now
    tab.until(JUDGED, 2)


@pytest.mark.parametrize("key", ["a", "l"])
def test_verdict_is_of_no_finding_that_another_tab_chose(tab: Tab, late: Tab, key: str) -> None:
    shown, rows = late.state("current"), tab.rows()
    tab.press("n")
    tab.until("([old]) => window.trame.state.get('current') !== old", shown)
    assert late.state("current") == shown, "it does not know yet"
    said = "() => /was chosen meanwhile/.test(document.querySelector('#message')?.innerText)"
    assert not tab.page.evaluate(said) and not late.page.evaluate(said)
    late.press(key)
    tab.until(said)
    hear(late)
    late.until(said)
    assert tab.rows() == rows and late.state("current") != shown
    late.page.wait_for_timeout(LOOKED)
    late.press(key)
    tab.until_state("can_undo", True)


def test_what_is_shown_comes_before_the_answer(tab: Tab) -> None:
    """The page takes an answer for the end of what was asked: the next verdict relies on it."""
    second = tab.state("shown")[1]
    step = "window.trame.trigger('do', ['step', 1], { opened: window.trame.state.get('opened') })"
    then = "window.trame.state.get('current')"
    assert tab.page.evaluate(f"async () => {{ await {step}; return {then}; }}") == second


def test_own_steps_that_are_on_their_way_are_followed(tab: Tab, late: Tab) -> None:
    """Who steps on and judges at once means the finding stepped to."""
    second = late.state("shown")[1]
    late.press("n")
    late.press("a")
    tab.until(JUDGED, 1)
    row = f"#candidates tr[data-id='{second}']"
    assert "accepted" in tab.page.get_attribute(row, "class")
    hear(late)


def test_verdict_that_was_taken_back_is_given_otherwise_at_once(tab: Tab, late: Tab) -> None:
    """Also where the page has not shown any of it yet."""
    first = late.state("current")
    for key in ("a", "u", "x"):
        late.press(key)
    tab.until(
        "([id]) => document.querySelector(`#candidates tr[data-id='${id}'].rejected`) !== null",
        first,
    )
    tab.until(JUDGED, 1)
    hear(late)
    late.until(JUDGED, 1)
