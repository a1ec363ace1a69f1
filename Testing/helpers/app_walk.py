"""A new user's walk in the browser, from the example to files on disk; a picture at each stage.

``python Testing/helpers/app_walk.py Resources/Pictures`` takes the README's pictures anew.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import app
from helpers.app import PATIENCE, Served, Tab, is_blastic_orange, is_bright, is_lytic_blue, open_tab

PICTURES = ("app-before.png", "app-review.png", "app-healthy.png")
OUT = "Befunde für Jiří"
TRUE = (("L1", "blastic", is_blastic_orange), ("T12", "lytic", is_lytic_blue))
STATUS = (
    "[...document.querySelectorAll('#candidates tbody tr')]"
    ".find(r => r.cells[0].innerText === 'T12' && r.cells[1].innerText.trim() === 'lytic')"
    "?.cells[5].innerText"
)


@dataclass
class Walk:
    """What was seen on the way."""

    folder: Path
    seen: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    origin: str = ""

    @property
    def out(self) -> Path:
        return self.folder / OUT


def take(folder: Path) -> Walk:
    """The whole walk; files and pictures go to ``folder``."""
    walk = Walk(folder)
    with app.browser() as browser, app.serve("--out", str(walk.out)) as served:
        tab = open_tab(browser, served.url)
        walk.origin = served.origin
        before(tab, walk)
        run(tab, walk)
        lists(tab, walk)
        review(tab, walk)
        look(tab, walk)
        save(tab, walk)
        inside(served, walk)
        # Copies: once the server has ended the page complains that it is not there.
        walk.complaints, walk.requests = list(tab.complaints), list(tab.requests)
    return walk


def shoot(tab: Tab, walk: Walk, name: str) -> None:
    tab.rest()
    tab.page.screenshot(path=str(walk.folder / name))


def before(tab: Tab, walk: Walk) -> None:
    """All four views show the patient before anything is pressed."""
    tab.page.wait_for_selector("#levels tr")
    walk.seen["levels"] = tab.text(".levels summary")
    for view in (".sagittal", ".axial", ".coronal", ".threed"):
        tab.until_seen(view, is_bright, 300)
    shoot(tab, walk, PICTURES[0])


def run(tab: Tab, walk: Walk) -> None:
    tab.page.click("#segment")
    tab.page.wait_for_selector("#progress", timeout=PATIENCE)
    tab.until("() => / · /.test(document.querySelector('#progress')?.innerText || '')")
    walk.seen["progress"] = tab.text("#progress")
    tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
    walk.seen["rows while it runs"] = tab.rows()
    tab.page.wait_for_selector("#segment", timeout=PATIENCE)
    walk.seen["rows"] = tab.rows()
    walk.seen["first"] = tab.chosen()
    walk.seen["summary"] = tab.text("#summary")
    walk.seen["threshold"] = tab.state("threshold")
    walk.seen["quiet"] = tab.text("#quiet")
    tab.page.click("#message .plain")
    tab.page.wait_for_selector("#message", state="detached")


def review(tab: Tab, walk: Walk) -> None:
    """Each true finding is looked at; then each key once."""
    for level, kind, colour in TRUE:
        tab.choose(level, kind)
        tab.page.wait_for_selector("#strip img")
        walk.seen[f"{kind} pixels"] = tab.until_seen(".sagittal", colour, 150)
        walk.seen[f"{kind} pixels in 3D"] = tab.until_seen(".threed", colour, 20)
        walk.seen[f"{kind} place"] = tab.state("places")
    walk.seen["strip"] = tab.text("#strip")
    shoot(tab, walk, PICTURES[1])
    walk.seen["states"] = [state_after(tab, key) for key in ("a", "u", "Shift+U", "u")]
    tab.until_state("can_redo", True)
    walk.seen["types"] = [type_after(tab, kind) for kind in ("blastic", "lytic")]


def lists(tab: Tab, walk: Walk) -> None:
    """Vertebrae and lesion burden stand behind their tabs; a heading sorts the findings."""
    tab.page.click("#tab-vertebrae")
    tab.page.wait_for_selector("#vertebrae-list tbody tr", state="visible")
    walk.seen["vertebrae"] = tab.page.locator("#vertebrae-list tbody tr").all_inner_texts()
    tab.page.click("#tab-burden")
    tab.page.wait_for_selector("#burden tbody tr", state="visible")
    walk.seen["burden"] = tab.page.locator("#burden tbody tr").all_inner_texts()
    tab.page.click("#tab-findings")
    for backwards in (False, True):  # from the head down, then up
        tab.page.click("#candidates th[data-order=level] button")
        tab.until("([up]) => window.trame.state.get('wanted').backwards === up", backwards)
        tab.rest()
    walk.seen["from below"] = tab.rows()
    tab.page.click("#candidates th[data-order=score] button")
    tab.rest()


def state_after(tab: Tab, key: str) -> str:
    """The status of T12's lytic lesion once the key has changed it."""
    was = status(tab)
    tab.press(key)
    tab.until("([old]) => " + STATUS + " !== old", was)
    return status(tab)


def status(tab: Tab) -> str:
    return str(tab.page.evaluate(STATUS))


def type_after(tab: Tab, expected: str) -> str:
    tab.press("l")
    tab.until("([text]) => document.querySelector('#detail').innerText.includes(text)", expected)
    return tab.text("#detail")


def look(tab: Tab, walk: Walk) -> None:
    """Flicking, outlines, the crosshair, the slider."""
    flick(tab, walk)
    cross(tab, walk)
    before = tab.text("#counts")
    tab.page.locator("#threshold").fill("1")
    tab.until_rows(0)
    tab.until("([text]) => document.querySelector('#counts').innerText !== text", before)
    walk.seen["counts at 1"] = tab.text("#counts")
    tab.page.locator("#threshold").fill(str(walk.seen["threshold"]))
    tab.until_rows(len(walk.seen["rows"]))


def flick(tab: Tab, walk: Walk) -> None:
    """What of the sagittal view differs from the CT; without outlines, which would differ too."""
    tab.press("h")
    tab.until_state("picture", "healthy")
    shoot(tab, walk, PICTURES[2])
    tab.press("h")
    tab.until_state("picture", "ct")
    tab.press("o")
    tab.until_state("overlay", False)
    tab.until_unseen(".sagittal", is_lytic_blue, walk.seen["lytic pixels"] // 5)
    ct = tab.picture(".sagittal")
    for key, shown, least in (("h", "healthy", 300), ("d", "difference", 3000)):
        tab.press(key)
        tab.until_state("picture", shown)
        walk.seen[f"changed in {shown}"] = tab.until_changed(".sagittal", ct, least)
    tab.press("d")
    tab.until_state("picture", "ct")
    walk.seen["changed in ct"] = tab.until_unchanged(".sagittal", ct, 100)
    tab.press("o")
    tab.until_state("overlay", True)


def cross(tab: Tab, walk: Walk) -> None:
    """A click in one slice moves the others, the wheel the slice itself."""
    was = tab.state("places")
    box = tab.page.locator(".sagittal").bounding_box()
    tab.page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"])
    moved = "([view, old]) => window.trame.state.get('places')[view] !== old"
    for view in ("axial", "coronal"):
        tab.until(moved, view, was[view])
    walk.seen["places"] = (was, tab.state("places"))
    tab.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    tab.page.mouse.down()
    tab.rest()
    pressed = tab.state("places")
    tab.page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.7 * box["height"], steps=6)
    for view in ("axial", "coronal"):
        tab.until(moved, view, pressed[view])
    tab.rest()
    tab.page.mouse.up()
    walk.seen["dragged"] = (pressed, tab.state("places"))
    tab.page.mouse.wheel(0, 120)
    tab.until("([old]) => window.trame.state.get('places').sagittal !== old", was["sagittal"])
    for button in ("right", "middle"):
        tab.rest()
        still = tab.picture(".sagittal")
        drag(tab, box, button)
        walk.seen[f"changed by the {button} button"] = tab.until_changed(".sagittal", still, 3000)


def drag(tab: Tab, box: dict[str, float], button: str) -> None:
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.mouse.down(button=button)
    tab.page.mouse.move(x, y + 60, steps=4)
    tab.page.mouse.up(button=button)


def save(tab: Tab, walk: Walk) -> None:
    for level, kind, _ in TRUE:
        tab.choose(level, kind)
        if level == "T12":
            tab.press("c")
            tab.page.keyboard.type("soft tissue, left half")
            tab.press("Enter")
            tab.until_state("comment", "soft tissue, left half")
        tab.press("a")
        accepted = (
            "([level]) => [...document.querySelectorAll('#candidates tr.accepted')]"
            ".some(r => r.cells[0].innerText === level)"
        )
        tab.until(accepted, level)
    tab.press("e")
    tab.page.fill("#reviewer", "A. Reader")
    tab.page.click("#save-now")
    tab.page.wait_for_selector(".links a", timeout=PATIENCE)
    walk.seen["message"] = tab.text("#message")
    with tab.page.expect_download() as download:
        tab.page.click(".links a:has-text('accepted.csv')")
    shutil.copy(download.value.path(), walk.folder / "downloaded.csv")
    tab.page.click("#report")
    tab.page.wait_for_selector(".links a:has-text('report.pdf')", timeout=PATIENCE)
    for name in ("report.html", "report.pdf"):
        with tab.page.expect_download() as download:
            tab.page.click(f".links a:has-text('{name}')")
        shutil.copy(download.value.path(), walk.folder / name)
    tab.page.click("#dicom-seg")
    tab.until("() => document.querySelector('#message')?.innerText.includes('DICOM SEG')")
    walk.seen["no DICOM"] = tab.text("#message")
    walk.seen["final summary"] = tab.text("#summary")


def inside(served: Served, walk: Walk) -> None:
    """The server's private files, before and after its end."""
    [folder] = served.private.glob("hideseekseg-app-*")
    walk.seen["private"] = folder.stat().st_mode & 0o077
    served.stop()
    walk.seen["left behind"] = [p.name for p in served.private.iterdir()]
    walk.seen["exit"] = served.process.returncode
    walk.seen["said"] = served.said


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        taken = take(Path(made))
        for name in PICTURES:
            shutil.copy(taken.folder / name, Path(sys.argv[1]) / name)
