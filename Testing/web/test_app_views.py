"""What a reader expects of the views: window, HU, ruler, crosshair, brush, sizes, and access."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import app
from helpers.app import PATIENCE, Tab, is_lytic_blue, open_tab

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tab(box_files: tuple[Path, Path], tiny_weights: Path) -> Iterator[Tab]:
    app.need_all()
    words = ["--labels", "totalsegmentator", "--weights", str(tiny_weights), "--threshold", "0"]
    with app.browser() as browser, app.serve(*map(str, box_files), *words) as served:
        found = open_tab(browser, served.url)
        found.page.click("#segment")
        found.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
        found.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        found.choose_first()
        found.rest()
        yield found
        assert found.complaints == []


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


def test_missed_lesion_is_drawn_with_the_brush(tab: Tab) -> None:
    count = len(tab.rows())
    tab.press("m")
    tab.page.select_option("#missed-level", "T12")
    tab.page.click("#missed-add")
    tab.until_rows(count + 1)
    tab.until_state("tool", "draw")
    drag(tab, (0.45, 0.45), (0.55, 0.5))
    tab.until_seen(".sagittal", is_lytic_blue, 100)
    size = "() => Number(document.querySelector('#candidates tr.chosen td:nth-child(5)').innerText)"
    tab.until(f"() => ({size})() > 0.2")
    drawn = float(tab.page.evaluate(size))
    take(tab, "erase")
    drag(tab, (0.45, 0.45), (0.5, 0.475))
    tab.until(f"([old]) => ({size})() < old", drawn)
    take(tab, "crosshair")
    tab.press("u")
    tab.until_rows(count)


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


@pytest.mark.parametrize("size", [(1024, 768), (768, 1024), (720, 450), (3840, 2160)])
def test_nothing_is_out_of_reach_on_any_screen(tab: Tab, size: tuple[int, int]) -> None:
    """A small screen, a tablet, 200 % zoom, 4K."""
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})
    outside = """() => [...document.querySelectorAll('button, select, input')]
      .filter(e => e.offsetParent).filter(e => { const r = e.getBoundingClientRect();
        return r.right > innerWidth + 1 || r.left < -1; }).map(e => e.outerHTML.slice(0, 80))"""
    assert tab.page.evaluate(outside) == []
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for view in (".sagittal", ".axial", ".coronal"):
        box = tab.page.locator(view).bounding_box()
        assert min(box["width"], box["height"]) > 100, view
    tab.until_seen(".sagittal", lambda pixels: np.min(pixels, axis=2) > 70, 300)
