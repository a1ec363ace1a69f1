"""Scenes of Slicer in the browser: moved CTs, several CTs, and what is no review at all."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import app
from helpers.app import PATIENCE, Served, Tab, open_tab
from helpers.panel import add_boxes
from helpers.scene import RAS_FROM_LPS, Slicer, add_transform
from hideseekseg.findings import Status, VertebraFinding
from hideseekseg.imaging.volume import Patch, Volume, to_sitk

pytestmark = pytest.mark.slow
BLOCK = Patch(np.ones((8, 8, 8), bool), (30, 18, 18))
ACCEPTED = "([n]) => document.querySelectorAll('#candidates tr.accepted').length === n"
LOADED = "() => !window.trame.state.get('loading')"


def add_review(ct: Any, vertebrae: Any, comment: str) -> Any:
    """Results with one lesion that a reader drew in T12; returns the review's session."""
    from hideseekseg.review.review import Review
    from hideseekseg.scene.import_data import scanOf
    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import store
    from hideseekseg.ui.review_session import ReviewSession

    results = Results.create(ct, vertebrae, {"scan": scanOf(ct), "levels": {}})
    review = Review(0.5)
    for level in ("T11", "T12", "L1"):
        review.add_vertebra(VertebraFinding(level, Status.NO_FINDING))
    lesion = review.add_missed("T12", "lytic")
    review.comment(lesion, comment)
    results.apply(review)
    results.draw(lesion, BLOCK)
    work = ReviewSession(review, results)
    work.measure()
    results.apply(review)
    store(results.node, review)
    return work


def other_ct(spine: tuple[Volume, Volume]) -> tuple[Volume, Volume]:
    """Another patient, whom the same vertebrae fit."""
    return Volume(spine[0].array + 1, spine[0].grid, "ct"), spine[1]


def middle_of(tab: Tab, selector: str) -> tuple[float, float]:
    box = tab.page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def click_at(tab: Tab, at: tuple[float, float], count: int = 1) -> None:
    """Click there, as the ``count``-th click of a series."""
    tab.page.mouse.move(*at)
    tab.page.mouse.down(click_count=count)
    tab.page.mouse.up(click_count=count)


def save_scene_to(path: Path) -> Path:
    from hideseekseg.web.slicer_scene import save_scene

    return save_scene(path)


# A CT that was moved.


@pytest.fixture
def moved(mrml: Slicer, box_spine: tuple[Volume, Volume], tmp_path: Path) -> tuple[Path, Any]:
    """A review whose CT was under a transform at the run, and is under another one now (RAS)."""
    mrml.scene.Clear(True)
    nodes, first, now = add_boxes(box_spine), np.eye(4), np.eye(4)
    first[:3, 3] = -15, 5, 30
    now[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # turned by 90 degrees around the long axis
    now[:3, 3] = 20, 10, 6
    for matrix in (first, now):
        transform = add_transform(matrix)
        for node in nodes[:2]:
            node.SetAndObserveTransformNodeID(transform.GetID())
        if matrix is first:
            work = add_review(*nodes, "of a moved CT")
        else:
            work.results.node.SetAndObserveTransformNodeID(transform.GetID())
    path = save_scene_to(tmp_path / "moved.mrb")
    mrml.scene.Clear(True)
    return path, now


def crosshair(tab: Tab) -> Any:
    """RAS mm of the three views, as the page says."""
    places = tab.state("places")
    words = [places[name].split() for name in ("sagittal", "coronal", "axial")]
    return np.array([float(mm) * (-1 if side in "LPI" else 1) for side, mm, _ in words])


def test_moved_ct_is_read_and_drawn_in_where_it_is_shown(
    browser: Any, moved: tuple[Path, Any], box_spine: tuple[Volume, Volume], tmp_path: Path
) -> None:
    path, to_world = moved
    ct = box_spine[0]

    def voxel(ras: Any) -> Any:
        local = RAS_FROM_LPS @ np.linalg.inv(to_world) @ [*ras, 1.0]
        return np.rint(ct.grid.ijk(local[:3])).astype(int)

    with app.serve(str(path), "--out", str(tmp_path / "out")) as served:
        tab = open_tab(browser, served.url, "#candidates tbody tr")
        tab.rest()
        tab.choose_first()
        low = np.array(BLOCK.start)[::-1]
        middle = ct.grid.lps((low + low + 7) / 2)
        drawn = (to_world @ RAS_FROM_LPS @ [*middle, 1.0])[:3]
        tab.until("() => window.trame.state.get('places').axial")
        assert np.abs(crosshair(tab) - drawn).max() < 1.1, "views go to the drawn lesion"
        tab.rest()
        box = tab.page.locator(".sagittal").bounding_box()
        for u, v in ((0.5, 0.46), (0.44, 0.41), (0.57, 0.6)):
            x, y = box["x"] + u * box["width"], box["y"] + v * box["height"]
            before = tab.state("places")["axial"]
            tab.page.mouse.click(x, y)
            tab.until("([old]) => window.trame.state.get('places').axial !== old", before)
            tab.rest()
            tab.page.mouse.move(x + 1, y)
            tab.page.mouse.move(x, y)
            i, j, k = voxel(crosshair(tab))
            near = ct.array[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2]  # places are rounded
            said = "([values]) => values.includes(window.trame.state.get('pointer'))"
            tab.until(said, [f"{value} HU" for value in np.unique(near)])
        tab.press("m")
        tab.page.select_option("#missed-level", "T11")
        tab.page.click("#missed-add")
        tab.until_state("tool", "draw")
        tab.rest()
        at = crosshair(tab)
        u, v = 0.57, 0.6
        tab.page.mouse.click(box["x"] + u * box["width"], box["y"] + v * box["height"])
        tab.until(
            "() => window.trame.state.get('rows')[window.trame.state.get('current')].cells[4] > 0"
        )
        tab.page.click("[data-tool=crosshair]")
        height = "Math.abs(parseFloat(window.trame.state.get('places').axial.slice(2)))"
        for level, ras in (("T12", drawn), ("T11", at)):
            tab.choose(level, "lytic")
            tab.until(f"([mm]) => Math.abs({height} - mm) < 3", abs(float(ras[2])))
        assert np.abs(crosshair(tab) - at).max() < 3.0, "it lies where it was drawn"
        assert tab.complaints == []


# What was open stays where another scene, or review, cannot be opened.


@dataclass
class Opened:
    served: Served
    tab: Tab
    plain: Path
    rows: list[list[str]]


def keep_for(source: Any, work: Any, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a review on disk as a crash does."""
    from hideseekseg.scene.review_storage import as_text
    from hideseekseg.ui.autosave import Autosave

    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(state))
    copy = Autosave()
    copy.keep(work, source, as_text(work.review), False)
    copy.close(False)


@pytest.fixture(scope="module")
def opened(
    browser: Any,
    mrml: Slicer,
    box_spine: tuple[Volume, Volume],
    box_files: tuple[Path, Path],
    tiny_weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Opened]:
    """A run with a verdict that is not saved; offers of reviews whose scans are others by now.

    One of each kind: of files, of a scene, and of the example.  The run is started by a double
    click, whose second click comes when Cancel is where the button was.
    """
    from hideseekseg.ui.autosave import ScanSource

    folder = tmp_path_factory.mktemp("scenes")
    mrml.scene.Clear(True)
    add_boxes(box_spine)
    plain = save_scene_to(folder / "plain.mrb")
    mrml.scene.Clear(True)
    work = add_review(*add_boxes(other_ct(box_spine), "Other"), "of another CT")
    scene = save_scene_to(folder / "other.mrb")
    changed = folder / "changed.nii.gz"
    sitk.WriteImage(to_sitk(box_spine[0]) + 7, str(changed))
    with pytest.MonkeyPatch.context() as patched:
        for source in (ScanSource(str(changed), str(box_files[1])), ScanSource()):
            keep_for(source, work, folder / "state", patched)
        mrml.scene.Clear(True)
        third = Volume(box_spine[0].array + 2, box_spine[0].grid, "ct"), box_spine[1]
        work = add_review(*add_boxes(third, "Third"), "of a third CT")
        keep_for(ScanSource(str(scene)), work, folder / "state", patched)
    mrml.scene.Clear(True)
    words = ["--labels", "totalsegmentator", "--weights", str(tiny_weights), "--threshold", "0"]
    words += ["--out", str(folder / "out")]
    with app.serve(*map(str, box_files), *words, state=folder / "state") as served:
        tab = open_tab(browser, served.url)
        button = middle_of(tab, "#segment")
        click_at(tab, button)
        there = "([x, y]) => document.elementFromPoint(x, y).id === 'cancel'"
        tab.until(there, *button)
        click_at(tab, button, 2)
        tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
        tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        assert not tab.state("message")["text"].startswith("Stopped")
        assert [row["level"] for row in tab.state("vertebrae_rows")] == ["T11", "T12", "L1"]
        tab.choose_first()
        tab.press("a")
        tab.until(ACCEPTED, 1)
        tab.until_state("unsaved", True)
        yield Opened(served, tab, plain, tab.rows())


def refused(tab: Tab, begin: Callable[[], None], said: str) -> None:
    """Begin what ends the review, say yes to that, and wait until it was refused."""
    begin()
    tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
    tab.page.click("#answer-yes")
    tab.until("([said]) => window.trame.state.get('message').text.includes(said)", said)
    tab.until(LOADED)


def open_path(tab: Tab, path: Path) -> Callable[[], None]:
    def begin() -> None:
        tab.page.click("[data-dialog=open-dialog]")
        tab.page.fill("#ct-path", str(path))
        tab.page.click("#open-load")

    return begin


def check_that_all_is_there(opened: Opened) -> None:
    """The review is as it was: it takes verdicts, is not saved, and its CT is shown."""
    tab = opened.tab
    assert tab.rows() == opened.rows and tab.state("ct") == "ct" and tab.state("unsaved")
    tab.choose_first()
    tab.page.wait_for_selector("#strip img", timeout=PATIENCE)
    for key, count in (("k", 0), ("u", 1)):
        tab.press(key)
        tab.until(ACCEPTED, count)
    tab.until_seen(".sagittal", app.is_bright, 300)
    box = tab.page.locator(".sagittal").bounding_box()
    for step in (0, 1):
        x, y = box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"]
        tab.page.mouse.move(x + step, y)
    tab.until("() => / HU$/.test(window.trame.state.get('pointer'))")
    assert tab.complaints == []


@pytest.mark.parametrize("kind", ["plain", "damaged", "missing"])
def test_scene_without_a_review_leaves_the_open_one(
    opened: Opened, kind: str, tmp_path: Path
) -> None:
    path, said = opened.plain, "contains no review of HideSeekSeg"
    if kind == "damaged":
        path, said = tmp_path / "damaged.mrb", "is not a scene of Slicer"
        path.write_bytes(opened.plain.read_bytes()[:-500])
    if kind == "missing":
        path, said = tmp_path / "missing.mrb", "does not exist"
    refused(opened.tab, open_path(opened.tab, path), said)
    check_that_all_is_there(opened)


@pytest.mark.parametrize("number", range(3))
def test_review_of_a_scan_that_has_changed_leaves_the_open_one(opened: Opened, number: int) -> None:
    tab = opened.tab
    tab.until("() => window.trame.state.get('message').text === ''")
    assert len(tab.state("offers")) == 3
    restore = tab.page.locator(".offer button:has-text('Restore')").nth(number)
    refused(tab, restore.click, "is not the scan any more that was reviewed")
    assert len(tab.state("offers")) == 3
    check_that_all_is_there(opened)


def holds_scene(folder: Path) -> bool:
    """Return whether a scene's file is there, of a folder that may vanish meanwhile."""
    return any(name.endswith(".mrml") for _, _, names in os.walk(folder) for name in names)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_scene_that_changes_while_it_is_opened_leaves_no_ghost(
    opened: Opened, mrml: Slicer, box_spine: tuple[Volume, Volume], tmp_path: Path
) -> None:
    """It was found good, and another file has its name when the scene is replaced by it."""
    mrml.scene.Clear(True)
    add_review(*add_boxes(box_spine), "a good one")
    path, tab = save_scene_to(tmp_path / "changing.mrb"), opened.tab
    mrml.scene.Clear(True)
    before = {*opened.served.private.iterdir()}
    shown = tab.until_seen(".sagittal", app.is_bright, 3000)
    server = opened.served.process.pid
    open_path(tab, path)()
    tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
    tab.page.click("#answer-yes")
    end = time.monotonic() + PATIENCE / 1000
    while not ({*opened.served.private.iterdir()} - before):  # the process that tries it is at work
        assert time.monotonic() < end, "nobody reads the scene"
        time.sleep(0.002)
    os.kill(server, signal.SIGSTOP)
    try:
        # The process removes its folder as soon as it has read the scene, also while we look.
        scenes = set[Path]()
        while not any(holds_scene(folder) or not folder.exists() for folder in scenes):
            assert time.monotonic() < end, "the scene is not unpacked"
            scenes |= {*opened.served.private.glob("hideseekseg-scene-*")} - before
            time.sleep(0.002)
        shutil.copy(opened.plain, tmp_path / "plain.mrb")
        (tmp_path / "plain.mrb").replace(path)
    finally:
        os.kill(server, signal.SIGCONT)
    tab.until("() => window.trame.state.get('message').text.includes('is closed')")
    tab.until(LOADED)
    assert "contains no review of HideSeekSeg" in tab.text("#message span")
    tab.until("() => !document.querySelector('#candidates')")
    assert tab.state("ct") == "" and not tab.state("unsaved")
    assert tab.page.is_disabled("#segment")
    tab.until_unseen(".sagittal", app.is_bright, shown // 3)
    tab.until("() => window.trame.state.get('offers').length === 4")
    tab.page.click(".offer:has-text('1 accepted') >> text=Restore")
    tab.until(ACCEPTED, 1)
    assert tab.rows() == opened.rows
    assert tab.complaints == []


# Other reviews of a scene stay.


@pytest.fixture
def several(mrml: Slicer, box_spine: tuple[Volume, Volume], tmp_path: Path) -> Path:
    """A folder with a scene of two CTs: one review of the first, two of the second."""
    mrml.scene.Clear(True)
    add_review(*add_boxes(other_ct(box_spine), "CT1"), "weeks of work on CT1")
    nodes = add_boxes(box_spine, "CT2")
    for comment in ("weeks of work on CT2", "replaced by the run"):
        add_review(*nodes, comment)
    save_scene_to(tmp_path / "review.mrb")
    mrml.scene.Clear(True)
    return tmp_path


def what_is_in(scene: Path) -> list[tuple[str, list[str], list[int]]]:
    """CT, comments and voxels of the drawn lesions of each review of a saved scene."""
    from hideseekseg.scene.import_data import read_scene, removeData
    from hideseekseg.ui.review_session import sessions

    removeData()
    read_scene(scene)
    found = []
    for work in sessions(pytest.fail):
        drawn = [item for item in work.review.items if item.missed]
        patches = work.results.patches([item.id for item in drawn])
        voxels = [int(patch.array.sum()) for patch in patches.values()]
        found.append((work.results.ctNode.GetName(), [item.comment for item in drawn], voxels))
    removeData()
    return found


def test_run_leaves_the_reviews_that_it_does_not_replace(
    browser: Any, mrml: Slicer, several: Path, tiny_weights: Path
) -> None:
    size = int(BLOCK.array.sum())
    others = [
        ("CT1", ["weeks of work on CT1"], [size]),
        ("CT2", ["weeks of work on CT2"], [size]),
    ]
    own = ("CT2", ["replaced by the run"], [size])
    scene = several / "review.mrb"
    assert what_is_in(scene) == [*others, own]
    words = ["--weights", str(tiny_weights), "--threshold", "0", "--out", str(several)]
    with app.serve(str(scene), *words) as served:
        tab = open_tab(browser, served.url, "#candidates tbody tr")
        tab.page.evaluate(
            "() => { window.seen = []; window.trame.state.watch(['running'], x => seen.push(x)) }"
        )
        for _ in range(2):
            tab.until_state("unsaved", True)  # what was drawn counts, once it was measured
            tab.page.click("#segment")
            tab.page.click("#answer-yes")
            tab.until_state("running", True)
            tab.until_state("running", False)
            tab.until("() => window.trame.state.get('results').length === 2")
        seen = tab.page.evaluate("() => seen")
        assert seen == [False, True, False, True, False], "a run is never idle before it is over"
        before = tab.state("opened")
        tab.page.wait_for_selector("#put-back", timeout=PATIENCE)
        click_at(tab, middle_of(tab, "#put-back"))
        tab.until("([old]) => window.trame.state.get('opened') > old", before)
        again = tab.state("opened")
        tab.page.wait_for_selector("#put-back", timeout=PATIENCE)
        click_at(tab, middle_of(tab, "#put-back"), 2)
        tab.press("e")
        tab.page.fill("#save-folder", str(several))
        tab.page.click("#save-now")
        tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
        assert tab.state("opened") == again, "a double click exchanges the two once"
        tab.page.click("#answer-yes")
        tab.page.wait_for_selector(".links a", timeout=PATIENCE)
        assert tab.complaints == []
    assert what_is_in(scene) == [*others, own]
