"""What a reader expects of the views: window, HU, ruler, crosshair, brush, sizes, and access."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import app
from helpers.app import PATIENCE, Tab, is_blastic_orange, is_lytic_blue, open_tab

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Session:
    """``before``: what axe-core says of the page before anything was pressed."""

    tab: Tab
    url: str
    before: list[str]


def complaints_of_axe(tab: Tab) -> list[str]:
    """What axe-core finds on the page as it stands: rule, weight and element."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    # The package's own reading takes the encoding of the locale, which Slicer's libraries change.
    script = Path(package.__file__).with_name("axe.min.js").read_text("utf-8")
    tab.page.evaluate(script)
    found = tab.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 10, "it looked at something"
    return [
        f"{rule['impact']} {rule['id']}: {node['html'][:120]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.fixture(scope="module")
def session(box_files: tuple[Path, Path], tiny_weights: Path) -> Iterator[Session]:
    app.need_all()
    words = ["--labels", "totalsegmentator", "--weights", str(tiny_weights), "--threshold", "0"]
    with app.browser() as browser, app.serve(*map(str, box_files), *words) as served:
        found = open_tab(browser, served.url)
        before = complaints_of_axe(found)
        found.page.click("#segment")
        found.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
        found.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        found.choose_first()
        found.rest()
        yield Session(found, served.url, before)
        assert found.complaints == []


@pytest.fixture(scope="module")
def tab(session: Session) -> Tab:
    return session.tab


def is_green(pixels: Any) -> Any:
    red, green, blue = (pixels[..., n] for n in range(3))
    return (green > 150) & (green - red > 50) & (green - blue > 40)


def is_yellow(pixels: Any) -> Any:
    red, green, blue = (pixels[..., n] for n in range(3))
    return (red > 180) & (green > 180) & (blue < 150)


def drag(tab: Tab, start: tuple[float, float], end: tuple[float, float]) -> None:
    box = tab.page.locator(".sagittal").bounding_box()
    (x0, y0), (x1, y1) = (
        (box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in (start, end)
    )
    tab.page.mouse.move(x0, y0)
    tab.page.mouse.down()
    tab.page.mouse.move(x1, y1, steps=6)
    tab.page.mouse.up()


def take(tab: Tab, tool: str) -> None:
    tab.page.click(f"[data-tool={tool}]")
    tab.until_state("tool", tool)


def test_window_is_dragged_and_chosen(tab: Tab) -> None:
    tab.rest()
    before = tab.picture(".sagittal")
    take(tab, "window")
    drag(tab, (0.3, 0.6), (0.6, 0.4))
    tab.until_changed(".sagittal", before, 3000)
    tab.page.select_option("#window-preset", "soft")
    tab.rest()
    soft = tab.picture(".sagittal")
    tab.page.select_option("#window-preset", "bone")
    tab.until_changed(".sagittal", soft, 3000)
    take(tab, "crosshair")


def test_value_under_the_mouse_is_said_in_hu(tab: Tab) -> None:
    box = tab.page.locator(".sagittal").bounding_box()
    tab.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    tab.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.52 * box["height"])
    tab.until("() => / HU$/.test(document.querySelector('#pointer').innerText)")
    value = int(re.sub(r" HU$", "", tab.text("#pointer")))
    assert -1000 < value < 1000


def test_crosshair_is_switched_and_has_a_colour_of_its_own(tab: Tab) -> None:
    tab.until_seen(".sagittal", is_green, 200)
    tab.page.click("#crosshair")
    tab.until_unseen(".sagittal", is_green, 50)
    tab.page.click("#crosshair")
    tab.until_seen(".sagittal", is_green, 200)


def test_ruler_measures_and_goes(tab: Tab) -> None:
    take(tab, "ruler")
    drag(tab, (0.3, 0.35), (0.6, 0.55))
    tab.until_seen(".sagittal", is_yellow, 60)
    tab.page.click("[data-tool=ruler]")
    tab.until_unseen(".sagittal", is_yellow, 20)


def test_arrows_step_through_slices(tab: Tab) -> None:
    tab.page.locator(".axial .area").hover()
    before = tab.state("places")
    tab.page.evaluate("document.activeElement.blur()")
    tab.press("ArrowUp")
    tab.until("([old]) => window.trame.state.get('places').axial !== old", before["axial"])
    assert tab.state("places")["sagittal"] == before["sagittal"]


def test_one_view_fills_the_window_and_goes_back(tab: Tab) -> None:
    small = tab.page.locator(".coronal").bounding_box()
    tab.page.click("[data-full=coronal]")
    large = tab.page.locator(".coronal").bounding_box()
    assert large["width"] > 2 * small["width"] and large["height"] > 2 * small["height"]
    tab.press("Escape")
    assert tab.page.locator(".coronal").bounding_box() == small


def add_missed(tab: Tab) -> int:
    """Add a lesion of T12 that the brush draws next; return how many there were before."""
    count = len(tab.rows())
    tab.press("m")
    tab.page.select_option("#missed-level", "T12")
    tab.page.click("#missed-add")
    tab.until_rows(count + 1)
    tab.until_state("tool", "draw")
    return count


def test_missed_lesion_is_drawn_with_the_brush(tab: Tab) -> None:
    count = add_missed(tab)
    drag(tab, (0.45, 0.45), (0.55, 0.5))
    tab.until_seen(".sagittal", is_lytic_blue, 100)
    size = "() => Number(document.querySelector('#candidates tr.chosen td:nth-child(5)').innerText)"
    tab.until(f"() => ({size})() > 0.2")
    drawn = float(tab.page.evaluate(size))
    take(tab, "erase")
    drag(tab, (0.45, 0.45), (0.5, 0.475))
    tab.until(f"([old]) => ({size})() < old", drawn)
    tab.page.fill("#brush", "15")
    tab.until_state("brush", 15)
    drag(tab, (0.45, 0.45), (0.55, 0.5))  # all of it
    tab.until(f"() => ({size})() === 0")
    tab.until_unseen(".sagittal", is_lytic_blue, 100)
    tab.page.fill("#brush", "4")
    tab.until_state("brush", 4)
    take(tab, "draw")
    drag(tab, (0.45, 0.45), (0.55, 0.5))
    tab.until(f"() => ({size})() > 0.2")
    take(tab, "crosshair")
    tab.press("u")
    tab.until_rows(count)
    assert "was removed with all that is drawn of it" in tab.text("#message span")


def test_missed_lesion_is_offered_for_the_chosen_vertebra(tab: Tab) -> None:
    """Also for one that nothing is listed of; what the reader picks there stays."""
    offered = "() => document.querySelector('#missed-level').value"

    def close() -> None:
        tab.page.click("#missed-dialog [data-close]")
        tab.page.wait_for_selector("#missed-dialog", state="hidden", timeout=PATIENCE)

    tab.choose_first()
    tab.page.select_option("#filter-verdict", "accepted")
    tab.until_rows(0)
    tab.page.evaluate("document.activeElement.blur()")
    for level in ("T11", "T12", "L1"):
        tab.press("Shift+N")
        tab.until_state("level", level)
        tab.press("m")
        tab.until(f"([level]) => ({offered})() === level", level)
        close()
    tab.press("m")
    tab.page.select_option("#missed-level", "T11")
    close()
    tab.press("m")
    assert tab.page.evaluate(offered) == "T11"
    close()
    tab.page.select_option("#filter-verdict", "")
    tab.page.evaluate("document.activeElement.blur()")
    tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)


def verdicts(tab: Tab) -> list[str]:
    """What is said of the findings, from the top."""
    return [cells[5] for cells in tab.rows()]


def test_reason_is_chosen_by_intent_and_gives_the_keys_back(tab: Tab) -> None:
    """Arrows and letters in the list only look; what was chosen leaves the keys to the review."""
    tab.choose_first()
    waiting, shown = verdicts(tab), tab.state("shown")
    reason = tab.page.locator("#reason")
    reason.focus()
    tab.press("ArrowDown")
    tab.press("ArrowDown")
    tab.press("a")
    assert reason.input_value() == "artefact"
    tab.page.wait_for_timeout(400)
    assert verdicts(tab) == waiting, "nothing was said yet"
    tab.press("Escape")
    assert reason.input_value() == "", "nothing was chosen"
    reason.focus()
    tab.press("ArrowDown")
    tab.press("Enter")
    tab.until("() => document.querySelectorAll('#candidates tr.rejected').length === 1")
    tab.until_state("current", shown[1])  # a verdict is of a finding that is shown
    assert verdicts(tab)[0] == "✗ rejected (haemangioma)"
    assert reason.input_value() == "", "that of the next finding"
    reason.select_option("artefact")
    tab.until("() => document.querySelectorAll('#candidates tr.rejected').length === 2")
    tab.until_state("current", shown[2])
    assert tab.page.evaluate("document.activeElement.tagName") == "BODY"
    tab.press("a")
    tab.page.wait_for_selector("#candidates tr.accepted", timeout=PATIENCE)
    assert verdicts(tab)[1:3] == ["✗ rejected (artefact)", "✓ accepted"]
    for _ in range(3):
        tab.press("u")
    tab.until_state("can_undo", False)
    assert verdicts(tab) == waiting


def test_filter_gives_the_keys_back(tab: Tab) -> None:
    tab.choose_first()
    tab.page.select_option("#filter-type", "lytic")
    tab.until("() => window.trame.state.get('wanted').type === 'lytic'")
    tab.press("b")  # the letter of another entry of that list, and no key of the review
    tab.page.wait_for_timeout(300)
    assert tab.state("wanted")["type"] == "lytic"
    tab.page.select_option("#filter-type", "")
    tab.until("() => window.trame.state.get('wanted').type === ''")


@pytest.mark.parametrize("key", ["a", "x", "k", "l"])
def test_held_key_judges_one_finding(tab: Tab, key: str) -> None:
    tab.choose_first()
    before = tab.rows()
    for _ in range(4):
        tab.page.keyboard.down(key)
    tab.page.keyboard.up(key)
    tab.until_state("can_undo", True)
    tab.page.wait_for_timeout(300)
    assert sum(now != then for now, then in zip(tab.rows(), before)) == 1
    tab.press("u")
    tab.until_state("can_undo", False)
    assert tab.rows() == before


@pytest.mark.parametrize("action", ["accept", "uncertain", "reject", "switchType"])
def test_enter_held_on_a_button_judges_one_finding(tab: Tab, action: str) -> None:
    tab.choose_first()
    before, first = tab.rows(), tab.state("current")
    tab.page.focus(f"[data-action={action}]")
    for _ in range(4):
        tab.page.keyboard.down("Enter")
        tab.page.wait_for_timeout(
            100
        )  # as a keyboard repeats: the next finding is chosen meanwhile
    tab.page.keyboard.up("Enter")
    tab.until_state("can_undo", True)
    if action != "switchType":
        tab.until("([old]) => window.trame.state.get('current') !== old", first)
    tab.page.wait_for_timeout(300)
    assert sum(now != then for now, then in zip(tab.rows(), before)) == 1
    tab.press("u")
    tab.until_state("can_undo", False)
    assert tab.rows() == before


def test_enter_held_on_next_goes_on(tab: Tab) -> None:
    """Stepping judges nothing: it repeats, as its key does."""
    tab.choose_first()
    third = tab.state("shown")[2]
    tab.page.focus("[data-action=next]")
    tab.page.keyboard.down("Enter")
    tab.page.keyboard.down("Enter")
    tab.page.keyboard.up("Enter")
    tab.until_state("current", third)


def test_enter_held_on_save_opens_its_dialog_once(tab: Tab) -> None:
    tab.page.focus("[data-action=export]")
    tab.page.keyboard.down("Enter")
    tab.page.wait_for_selector("#save-dialog[open]", timeout=PATIENCE)
    tab.page.focus("#save-dialog [data-close]")
    tab.page.keyboard.down("Enter")
    tab.page.wait_for_timeout(300)
    assert tab.page.query_selector("#save-dialog[open]") is not None
    tab.page.keyboard.up("Enter")
    tab.press("Enter")
    tab.page.wait_for_selector("#save-dialog", state="hidden", timeout=PATIENCE)


def test_rows_are_reached_and_chosen_by_keys(tab: Tab) -> None:
    row = tab.page.locator("#candidates tbody tr").nth(1)
    identity = row.get_attribute("data-id")
    row.focus()
    tab.press("Enter")
    tab.until_state("current", identity)
    assert row.get_attribute("aria-selected") == "true"


def test_everything_that_takes_the_focus_has_a_spoken_name(tab: Tab) -> None:
    script = """() => [...document.querySelectorAll('button, select, input, a[href]')]
      .filter(e => !(e.innerText || '').trim() && !e.getAttribute('aria-label') && !e.title
        && !(e.labels && e.labels.length)).map(e => e.outerHTML.slice(0, 80))"""
    assert tab.page.evaluate(script) == []
    unnamed = "() => [...document.querySelectorAll('img')].filter(e => !e.alt).length"
    assert tab.page.evaluate(unnamed) == 0
    dialogs = """() => [...document.querySelectorAll('dialog')]
      .filter(e => !document.getElementById(e.getAttribute('aria-labelledby'))).length"""
    assert tab.page.evaluate(dialogs) == 0


def test_axe_core_finds_nothing(session: Session) -> None:
    """Start, review, its lists, and every dialog."""
    tab = session.tab
    assert session.before == []
    for name in ("vertebrae", "burden", "findings"):
        tab.page.click(f"#tab-{name}")
        tab.until_state("tab", name)
        assert complaints_of_axe(tab) == [], name
    dialogs = tab.page.eval_on_selector_all("dialog", "all => all.map(e => e.id)")
    assert len(dialogs) >= 5
    for name in dialogs:
        tab.page.evaluate("id => document.getElementById(id).showModal()", name)
        assert complaints_of_axe(tab) == [], name
        tab.page.evaluate("id => document.getElementById(id).close()", name)


# Of all that can be pressed: what does not come into sight, what lies below something else, and
# whose words are cut off.
OUT_OF_REACH = """() => {
  const all = [...document.querySelectorAll('button, select, input, summary')];
  const said = [];
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled;
  for (const e of all.filter(seen)) {
    e.scrollIntoView({ block: 'center' });
    const r = e.getBoundingClientRect(), x = r.left + r.width / 2, y = r.top + r.height / 2;
    const top = document.elementFromPoint(x, y);
    const name = (e.id || e.innerText || e.ariaLabel).slice(0, 40);
    if (r.left < -1 || r.right > innerWidth + 1) said.push('outside: ' + name);
    else if (!top || !(e === top || e.contains(top))) said.push('covered: ' + name);
    if (e.tagName === 'BUTTON' && e.scrollWidth > e.clientWidth + 1) said.push('cut off: ' + name);
  }
  scrollTo(0, 0);
  document.querySelectorAll('*').forEach((e) => { if (e.scrollTop) e.scrollTop = 0; });
  return said;
}"""
# Lists with columns that are out of sight, where a scroll bar takes its place beside them.
SCROLLS_SIDEWAYS = """() => [...document.querySelectorAll('.rows')]
  .filter((e) => e.checkVisibility() && e.querySelector('table'))
  .filter((e) => {
    e.style.paddingRight = '15px';
    const wide = e.scrollWidth > e.clientWidth;
    e.style.paddingRight = '';
    return wide;
  }).map((e) => e.id)"""
SCREENS = {
    "small": (1024, 768, 1.0),
    "upright tablet": (768, 1024, 2.0),
    "200 % zoom": (720, 450, 2.0),  # of a window of 1440 x 900: so a browser zooms
    "4K": (3840, 2160, 1.0),
}


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_out_of_reach_on_any_screen(tab: Tab, screen: str) -> None:
    width, height, scale = SCREENS[screen]
    tab.page.set_viewport_size({"width": width, "height": height})
    chromium = tab.page.context.new_cdp_session(tab.page)
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    chromium.send("Emulation.setDeviceMetricsOverride", size)
    tab.until("([w, s]) => innerWidth === w && devicePixelRatio === s", width, scale)
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.page.evaluate(OUT_OF_REACH) == []
    for name in ("vertebrae", "burden", "findings"):
        tab.page.click(f"#tab-{name}")
        tab.until_state("tab", name)
        assert tab.page.evaluate(SCROLLS_SIDEWAYS) == [], name
    for view in (".sagittal", ".axial", ".coronal"):
        box = tab.page.locator(view).bounding_box()
        assert min(box["width"], box["height"]) > 100, view
    tab.until_seen(".sagittal", lambda pixels: np.min(pixels, axis=2) > 70, 300)
    tab.page.evaluate("document.querySelector('#comment').scrollIntoView()")
    assert tab.page.evaluate("document.querySelector('header').getBoundingClientRect().top") == 0


@dataclass
class Tablet(Tab):
    """A page on a device without a mouse, and fingers on its sagittal view."""

    fingers: Any = None

    @property
    def middle(self) -> tuple[float, float]:
        box = self.page.locator(".sagittal").bounding_box()
        return box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"]

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": u, "y": v, "id": n} for n, (u, v) in enumerate(points)]
        self.fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        self.page.wait_for_timeout(30)

    def spread(self, hold: int = 0) -> None:
        """Put one finger down, then a second, and bring them twice as far apart.

        The first is lifted ``hold`` ms before the second.
        """
        x, y = self.middle
        self.touch("touchStart", (x - 30, y))
        self.touch("touchStart", (x - 30, y), (x + 30, y))
        for far in range(36, 61, 6):
            self.touch("touchMove", (x - far, y), (x + far, y))
        left = [{"x": x + 60, "y": y, "id": 1}]
        self.fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": left})
        self.page.wait_for_timeout(hold)
        self.touch("touchEnd")


@pytest.fixture
def tablet(session: Session) -> Iterator[Tablet]:
    context = session.tab.page.context.browser.new_context(
        viewport={"width": 1024, "height": 768},
        has_touch=True,
        is_mobile=True,
        device_scale_factor=2,
    )
    page = context.new_page()
    page.goto(session.url)
    page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
    yield Tablet(page, fingers=context.new_cdp_session(page))
    context.close()


def test_tablet_is_worked_by_fingers(tablet: Tablet) -> None:
    """Tap, drag and pinch on a device that has no mouse."""
    assert tablet.page.evaluate("matchMedia('(pointer: coarse)').matches && innerWidth === 1024")
    assert tablet.page.evaluate(OUT_OF_REACH) == []
    small = (
        "all => all.filter(e => e.checkVisibility() && e.offsetHeight < 36).map(e => e.innerText)"
    )
    assert tablet.page.eval_on_selector_all(".keys button, header button", small) == []
    tablet.page.locator("#candidates tbody tr").nth(1).tap()
    tablet.page.wait_for_selector("#candidates tbody tr.chosen:nth-child(2)", timeout=PATIENCE)
    tablet.rest()

    x, y = tablet.middle

    def moved(before: dict[str, str]) -> dict[str, str]:
        script = "([old]) => trame.state.get('places').axial !== old"
        tablet.until(script, before["axial"])
        tablet.rest()
        return dict(tablet.state("places"))

    start = dict(tablet.state("places"))
    tablet.touch("touchStart", (x, y))
    for n in range(8):
        tablet.touch("touchMove", (x + 4 * n, y + 8 * n))
    tablet.touch("touchEnd")
    dragged = moved(start)
    assert dragged["coronal"] != start["coronal"] and dragged["sagittal"] == start["sagittal"]
    tablet.page.touchscreen.tap(x - 30, y - 60)
    tapped = moved(dragged)

    def outline(pixels: Any) -> Any:
        return is_lytic_blue(pixels) | is_blastic_orange(pixels)

    before = tablet.until_seen(".sagittal", outline, 20)
    tablet.spread(hold=700)
    after = tablet.until_seen(".sagittal", outline, round(1.4 * before))
    tablet.rest()
    assert after < 20 * before, "no more than fingers ask for"
    assert tablet.state("places") == tapped, "two fingers leave the crosshair where it is"
    tablet.touch("touchStart", (x - 30, y))
    for n in range(8):
        tablet.touch("touchMove" if n else "touchStart", (x - 30, y + 9 * n), (x + 30, y + 9 * n))
    tablet.touch("touchEnd")
    tablet.rest()
    assert tablet.state("places") == tapped, "also where they move side by side"
    accepted = tablet.page.locator("#candidates tr.accepted").count()
    tablet.page.locator("[data-action=accept]").tap()
    tablet.until(
        "([n]) => document.querySelectorAll('#candidates tr.accepted').length > n", accepted
    )
    tablet.page.locator("[data-action=undo]").tap()


def test_two_fingers_draw_nothing(tablet: Tablet) -> None:
    """The first finger presses before the second one comes: that is no stroke of the brush."""
    tab: Tab = tablet
    count = add_missed(tab)
    size = "Number(document.querySelector('#candidates tr.chosen td:nth-child(5)').innerText)"
    assert tab.page.evaluate(size) == 0
    tab.rest()
    before = tab.picture(".sagittal")
    tablet.spread()
    tab.until_changed(".sagittal", before, 3000)  # larger
    tab.rest()
    assert tab.page.evaluate(size) == 0
    take(tab, "crosshair")
    tab.press("u")
    tab.until_rows(count)
