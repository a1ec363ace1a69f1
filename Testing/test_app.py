"""A new user's walk in the browser: the example, one click, verdicts by key, files on disk."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import example_app
from example_app import Served, Tab, count_of, is_blastic_orange, is_lytic_blue, open_tab
from example_scene import Slicer

PICTURES = ("app-before.png", "app-review.png", "app-healthy.png")


@dataclass
class Walk:
    """What was seen on the way."""

    folder: Path
    seen: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    origin: str = ""


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    example_app.need_all()
    walk = Walk(tmp_path_factory.mktemp("walk"))
    out = walk.folder / "Befunde für Jiří"
    with example_app.browser() as browser, example_app.serve("--out", str(out)) as served:
        tab = open_tab(browser, served.url)
        walk.origin = served.origin
        before(tab, walk)
        run(tab, walk)
        review(tab, walk)
        look(tab, walk)
        save(tab, walk)
        walk.complaints, walk.requests = tab.complaints, tab.requests
        inside(served, walk)
    yield walk


def shoot(tab: Tab, walk: Walk, name: str) -> None:
    tab.page.wait_for_timeout(800)  # the views send a sharper picture once they rest
    tab.page.screenshot(path=str(walk.folder / name))


def before(tab: Tab, walk: Walk) -> None:
    tab.page.wait_for_selector("#levels tr")
    walk.seen["levels"] = tab.text(".levels summary")
    surfaces = "() => document.querySelector('.threed img, .threed canvas') !== null"
    tab.page.wait_for_function(surfaces, timeout=example_app.PATIENCE)
    shoot(tab, walk, PICTURES[0])


def run(tab: Tab, walk: Walk) -> None:
    tab.page.click("#segment")
    tab.page.wait_for_selector("#progress", timeout=example_app.PATIENCE)
    tab.until("() => / · /.test(document.querySelector('#progress')?.innerText || '')")
    walk.seen["progress"] = tab.text("#progress")
    tab.page.wait_for_selector("#candidates tbody tr", timeout=example_app.PATIENCE)
    walk.seen["rows while it runs"] = tab.rows()
    tab.page.wait_for_selector("#segment", timeout=example_app.PATIENCE)
    walk.seen["rows"] = tab.rows()
    walk.seen["first"] = tab.chosen()
    walk.seen["summary"] = tab.text("#summary")
    walk.seen["quiet"] = tab.text("#quiet")


def review(tab: Tab, walk: Walk) -> None:
    """The true findings are accepted by key; then each key once."""
    for level, kind, colour in (
        ("L1", "blastic", is_blastic_orange),
        ("T12", "lytic", is_lytic_blue),
    ):
        tab.choose(level, kind)
        tab.page.wait_for_selector("#strip img")
        tab.page.wait_for_timeout(800)
        walk.seen[f"{kind} pixels"] = count_of(tab, ".sagittal", colour)
        walk.seen[f"{kind} pixels in 3D"] = count_of(tab, ".threed", colour)
        walk.seen[f"{kind} place"] = tab.state("places")
    walk.seen["strip"] = tab.text("#strip")
    shoot(tab, walk, PICTURES[1])
    walk.seen["states"] = [state_after(tab, key) for key in ("a", "u", "Shift+U", "u")]
    tab.until_state("can_redo", True)
    walk.seen["types"] = [type_after(tab, kind) for kind in ("blastic", "lytic")]


def state_after(tab: Tab, key: str) -> str:
    """The status of T12's lytic lesion once the key has changed it."""
    before = status(tab)
    tab.press(key)
    tab.until("([old]) => " + STATUS + " !== old", before)
    return status(tab)


STATUS = (
    "[...document.querySelectorAll('#candidates tbody tr')]"
    ".find(r => r.cells[0].innerText === 'T12' && r.cells[1].innerText.trim() === 'lytic')"
    "?.cells[5].innerText"
)


def status(tab: Tab) -> str:
    return str(tab.page.evaluate(STATUS))


def type_after(tab: Tab, expected: str) -> str:
    tab.press("l")
    tab.until("([text]) => document.querySelector('#detail').innerText.includes(text)", expected)
    return tab.text("#detail")


def look(tab: Tab, walk: Walk) -> None:
    """Flicking, outlines, the crosshair, the slider."""
    tab.press("h")
    tab.until_state("picture", "healthy")
    shoot(tab, walk, PICTURES[2])
    tab.press("d")
    tab.until_state("picture", "difference")
    tab.press("d")
    tab.until_state("picture", "ct")
    tab.press("o")
    tab.until_state("overlay", False)
    tab.page.wait_for_timeout(800)
    walk.seen["pixels without outlines"] = count_of(tab, ".sagittal", is_lytic_blue)
    tab.press("o")
    tab.until_state("overlay", True)
    was = tab.state("places")
    box = tab.page.locator(".sagittal").bounding_box()
    tab.page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"])
    for view in ("axial", "coronal"):
        moved = "([view, old]) => window.trame.state.get('places')[view] !== old"
        tab.until(moved, view, was[view])
    walk.seen["places"] = (was, tab.state("places"))
    tab.page.mouse.wheel(0, 120)
    tab.until("([old]) => window.trame.state.get('places').sagittal !== old", was["sagittal"])
    tab.page.locator("#threshold").fill("1")
    tab.until_rows(0)
    walk.seen["counts at 1"] = tab.text("#counts")
    tab.page.locator("#threshold").fill("0.5")
    tab.until(
        "([n]) => document.querySelectorAll('#candidates tbody tr').length === n",
        len(walk.seen["rows"]),
    )


def save(tab: Tab, walk: Walk) -> None:
    for level, kind in (("L1", "blastic"), ("T12", "lytic")):
        tab.choose(level, kind)
        if level == "T12":
            tab.press("c")
            tab.page.keyboard.type("soft tissue, left half")
            tab.press("Enter")
            tab.until_state("comment", "soft tissue, left half")
        tab.press("a")
        tab.until(
            "([level]) => [...document.querySelectorAll('#candidates tr.accepted')]"
            ".some(r => r.cells[0].innerText === level)",
            level,
        )
    tab.press("e")
    tab.page.fill("#reviewer", "A. Reader")
    tab.page.click("#save-now")
    tab.page.wait_for_selector(".links a", timeout=example_app.PATIENCE)
    walk.seen["message"] = tab.text("#message")
    with tab.page.expect_download() as download:
        tab.page.click(".links a:has-text('accepted.csv')")
    shutil.copy(download.value.path(), walk.folder / "downloaded.csv")
    walk.seen["final summary"] = tab.text("#summary")


def inside(served: Served, walk: Walk) -> None:
    """The server's private files, before and after its end."""
    [folder] = served.private.glob("hideseekseg-app-*")
    walk.seen["private"] = folder.stat().st_mode & 0o077
    served.stop()
    walk.seen["left behind"] = [p.name for p in served.private.iterdir()]
    walk.seen["exit"] = served.process.returncode
    walk.seen["said"] = served.said


def test_levels_are_understood(walk: Walk) -> None:
    assert "T10 to L2 (whole)" in walk.seen["levels"]


def test_progress_names_vertebra_and_step(walk: Walk) -> None:
    assert walk.seen["progress"].split(" · ")[0] in ("T10", "T11", "T12", "L1", "L2")


def test_results_appear_one_by_one_best_first(walk: Walk) -> None:
    rows = walk.seen["rows"]
    assert {("T12", "lytic"), ("L1", "blastic")} <= {tuple(cells[:2]) for cells in rows}
    scores = [float(cells[2]) for cells in rows]
    assert scores == sorted(scores, reverse=True)
    assert walk.seen["rows while it runs"]
    assert walk.seen["first"] == " ".join(rows[0][:2])


def test_summary_and_quiet_vertebrae_are_said(walk: Walk) -> None:
    assert walk.seen["summary"].startswith("5 vertebrae, ")
    assert "to review" in walk.seen["summary"]
    assert walk.seen["quiet"].startswith("No finding: ")
    assert "2 accepted" in walk.seen["final summary"]


@pytest.mark.parametrize("kind", ["lytic", "blastic"])
def test_chosen_lesion_is_seen_in_slices_and_in_3d(walk: Walk, kind: str) -> None:
    assert walk.seen[f"{kind} pixels"] > 150
    assert walk.seen[f"{kind} pixels in 3D"] > 20


def test_views_go_to_the_chosen_lesion(walk: Walk) -> None:
    one, other = walk.seen["lytic place"], walk.seen["blastic place"]
    assert all(one[view] != other[view] for view in ("sagittal", "axial"))


def test_strip_shows_the_evidence(walk: Walk) -> None:
    for title in ("original", "healthy edit", "difference", "revealed alone"):
        assert title in walk.seen["strip"]


def test_keys_accept_undo_redo_and_switch_the_type(walk: Walk) -> None:
    assert walk.seen["states"] == ["✓ accepted", "to review", "✓ accepted", "to review"]
    assert "blastic" in walk.seen["types"][0] and "lytic" in walk.seen["types"][1]


def test_outlines_can_be_switched_off(walk: Walk) -> None:
    assert walk.seen["pixels without outlines"] < walk.seen["lytic pixels"] / 5


def test_crosshair_links_the_views(walk: Walk) -> None:
    before, after = walk.seen["places"]
    assert after["axial"] != before["axial"] and after["coronal"] != before["coronal"]
    assert after["sagittal"] == before["sagittal"]


def test_threshold_hides_and_brings_back(walk: Walk) -> None:
    assert walk.seen["counts at 1"].startswith("0 of ")


def test_nothing_complained(walk: Walk) -> None:
    assert walk.complaints == []
    assert len(walk.seen["said"]) == 2, "more than the address and how to end it"


def test_no_request_left_the_machine(walk: Walk) -> None:
    here = (walk.origin + "/", walk.origin.replace("http", "ws", 1) + "/", "data:", "blob:")
    assert len(walk.requests) > 5
    assert [url for url in walk.requests if not url.startswith(here)] == []


def test_private_folder_is_private_and_goes(walk: Walk) -> None:
    assert walk.seen["private"] == 0
    assert walk.seen["left behind"] == []
    assert walk.seen["exit"] == 0


def test_accepted_findings_are_on_disk(walk: Walk) -> None:
    from HideSeekSegLib.imaging.files import read_segmentation

    out = walk.folder / "Befunde für Jiří"
    names = ["accepted.csv", "accepted.seg.nrrd", "review.json", "review.mrb"]
    assert sorted(path.name for path in out.iterdir()) == names
    with (out / "accepted.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["level"], row["type"]) for row in rows} == {("T12", "lytic"), ("L1", "blastic")}
    assert {row["reviewer"] for row in rows} == {"A. Reader"}
    assert "soft tissue, left half" in {row["comment"] for row in rows}
    assert (out / "accepted.csv").read_bytes() == (walk.folder / "downloaded.csv").read_bytes()
    assert len(read_segmentation(out / "accepted.seg.nrrd").segments) == 2
    said = json.loads((out / "review.json").read_text("utf-8"))
    assert said["run"]["weights_hash"]
    assert walk.seen["message"].startswith("Exported 2 accepted findings")


def test_scene_opens_in_the_slicer_of_the_tests_with_everything_in_place(
    walk: Walk, mrml: Slicer
) -> None:
    """Written by the app's slicer-core 5.11, read by 5.12: as when its user goes on in Slicer."""
    import slicer.util

    from HideSeekSegLib.desk.at_work import latest
    from HideSeekSegLib.output.looks import STATUS
    from HideSeekSegLib.scene.segments import tag

    mrml.scene.Clear(True)
    assert mrml.scene.ReadFromMRB(str(walk.folder / "Befunde für Jiří" / "review.mrb"), True)
    complaints: list[str] = []
    work = latest(complaints.append)
    assert work is not None and not complaints
    assert work.results.ctNode.GetName() == "Example CT"
    assert slicer.util.arrayFromVolume(work.results.ctNode).std() > 100
    assert len(work.results.segmentationNode.GetSegmentation().GetSegmentIDs()) == 5
    assert work.results.tableNode.GetNumberOfRows() == len(work.review.items)
    accepted = [item for item in work.review.items if item.verdict == "accepted"]
    assert {(item.level, item.type) for item in accepted} == {("T12", "lytic"), ("L1", "blastic")}
    for item in accepted:
        segment = work.results.node.GetSegmentation().GetSegment(item.id)
        assert tag(segment, STATUS) == "completed"
        assert work.results.patches([item.id])[item.id].array.any()
    assert work.review.can_undo
    mrml.scene.Clear(True)


def test_saved_scene_goes_on_in_the_browser(walk: Walk) -> None:
    path = walk.folder / "Befunde für Jiří" / "review.mrb"
    with example_app.browser() as browser, example_app.serve(str(path)) as served:
        tab = open_tab(browser, served.url, "#candidates tr.accepted")
        accepted = [cells for cells in tab.rows() if cells[5].startswith("✓ accepted")]
        assert {tuple(cells[:2]) for cells in accepted} == {("T12", "lytic"), ("L1", "blastic")}
        assert "2 accepted" in tab.text("#summary")
        tab.press("h")
        tab.until("() => document.querySelector('#message')?.innerText.includes('was not kept')")
        tab.press("u")
        tab.until("() => document.querySelectorAll('#candidates tr.accepted').length === 1")
        assert tab.complaints == []
