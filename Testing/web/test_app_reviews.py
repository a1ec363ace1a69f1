"""No review is lost and no two patients are mixed: the app killed, closed, pointed elsewhere."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import app
from helpers.app import A_SECOND_LATE, PATIENCE, Served, Tab, open_tab
from helpers.findings import make_candidate
from hideseekseg.findings import Status, VertebraFinding
from hideseekseg.imaging.reading import read_segmentation
from hideseekseg.imaging.volume import Grid, Volume, to_sitk

pytestmark = pytest.mark.slow  # six servers, and seven runs
ACCEPTED = "([n]) => document.querySelectorAll('#candidates tr.accepted').length === n"
REJECTED = ACCEPTED.replace("accepted", "rejected")


@pytest.fixture(scope="module")
def words(tiny_weights: Path) -> list[str]:
    return ["--labels", "totalsegmentator", "--weights", str(tiny_weights), "--threshold", "0"]


@pytest.fixture(scope="module")
def other(box_spine: tuple[Volume, Volume], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another patient's CT, that the same vertebrae fit."""
    path = tmp_path_factory.mktemp("other") / "ct.nii.gz"
    sitk.WriteImage(to_sitk(box_spine[0]) + 1, str(path))
    return path


def segment(tab: Tab) -> None:
    tab.page.click("#segment")
    tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
    tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)


def accept(tab: Tab, comment: str = "") -> None:
    before = int(tab.page.evaluate("document.querySelectorAll('#candidates tr.accepted').length"))
    tab.choose_first()
    if comment:
        tab.press("c")
        tab.page.keyboard.type(comment)
        tab.press("Enter")
        tab.until_state("comment", comment)
    tab.press("a")
    tab.until(ACCEPTED, before + 1)
    tab.until_state("unsaved", True)


def opened(tab: Tab, ct: Path, vertebrae: Path) -> None:
    tab.page.click("text=Open…")
    tab.page.set_input_files("#ct-file", str(ct))
    tab.page.set_input_files("#vertebrae-file", str(vertebrae))
    tab.page.select_option("#labels", "totalsegmentator")
    tab.page.click("#open-load")


def save(tab: Tab, folder: Path | None = None) -> None:
    tab.press("e")
    if folder is not None:
        tab.page.fill("#save-folder", str(folder))
    tab.page.fill("#reviewer", "A. Reader")
    tab.page.click("#save-now")


def dialogs_of(tab: Tab) -> list[str]:
    """The kinds of dialogs that the browser shows of its own, each said yes to, as they come."""
    asked: list[str] = []

    def note(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.accept()

    tab.page.on("dialog", note)
    return asked


@dataclass
class First:
    served: Served
    tab: Tab
    out: Path


@pytest.fixture(scope="module")
def first(
    browser: Any,
    words: list[str],
    box_files: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[First]:
    """A scan that the command line named, with a folder for its results."""
    out = tmp_path_factory.mktemp("first") / "out"
    with app.serve(*map(str, box_files), *words, "--out", str(out)) as served:
        yield First(served, open_tab(browser, served.url), out)


def test_closing_the_tab_asks_only_where_verdicts_are_unsaved(first: First) -> None:
    tab = first.tab
    segment(tab)
    asked = dialogs_of(tab)
    tab.page.reload()
    tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
    assert asked == [], "nothing was said that could be lost"
    accept(tab)
    tab.page.reload()
    tab.page.wait_for_selector("#candidates tr.accepted", timeout=PATIENCE)
    assert asked == ["beforeunload"]
    save(tab)
    tab.page.wait_for_selector(".links a", timeout=PATIENCE)
    tab.until_state("unsaved", False)
    tab.page.reload()
    tab.page.wait_for_selector("#candidates tr.accepted", timeout=PATIENCE)
    assert asked == ["beforeunload"]
    assert scan_of(first.out)
    tab.choose_first()
    tab.press("c")
    tab.page.keyboard.type("half a")
    tab.page.reload()  # at once, and with nothing else that is not saved
    tab.page.wait_for_selector("#candidates tr.accepted", timeout=PATIENCE)
    assert asked == ["beforeunload"] * 2
    tab.choose_first()
    tab.until_state("comment", "half a")
    tab.press("c")
    tab.press("End")
    for words in (" word", " more"):
        tab.page.keyboard.type(words)
        tab.until("([words]) => window.trame.state.get('comment').endsWith(words)", words)
    assert tab.page.evaluate("document.activeElement.id") == "comment", "it is still typed in"
    tab.press("Enter")
    tab.until_state("comment", "half a word more")
    tab.press("u")
    tab.until_state("comment", "")  # pauses are no steps
    tab.press("Shift+U")
    tab.until_state("comment", "half a word more")
    save(tab)
    tab.until_state("unsaved", False)


def test_what_was_sent_counts_though_the_page_is_closed_before_it_is_answered(
    first: First, browser: Any
) -> None:
    """What is asked for before keeps the session busy: it cannot answer a page that has gone."""
    if not first.tab.rows():
        segment(first.tab)
    closing = """([words, before]) => {
        const ask = (...asked) => window.trame.trigger("do", asked);
        for (let n = 0; n < before; n++) ask("slice", "sagittal", n % 2 ? 1 : -1);
        const field = document.querySelector("#comment");
        field.focus();
        field.value = words;
        field.dispatchEvent(new Event("input", { bubbles: true }));
    }"""
    for before in (80, 20, 80, 20):
        tab = open_tab(browser, first.served.url, "#candidates tbody tr")
        tab.choose_first()
        words = f"closed at once {time.monotonic()}"
        tab.page.evaluate(closing, [words, before])
        tab.page.close()
        first.tab.until_state("comment", words)
    save(first.tab)
    first.tab.until_state("unsaved", False)


def test_words_arrive_though_the_connection_was_dead_before_the_page_was_left(
    first: First, browser: Any
) -> None:
    if not first.tab.rows():
        segment(first.tab)
    tab = open_tab(browser, first.served.url, "#candidates tbody tr")
    asked = dialogs_of(tab)
    tab.choose_first()
    tab.press("c")
    tab.page.keyboard.press("Control+A")
    tab.page.evaluate("WebSocket.prototype.send = () => {}")
    tab.page.keyboard.type("nobody heard this")
    tab.page.reload()
    assert asked == ["beforeunload"]
    first.tab.until_state("comment", "nobody heard this")
    tab.page.context.close()
    save(first.tab)
    first.tab.until_state("unsaved", False)


def test_leaving_asks_while_a_verdict_is_on_its_way(first: First, browser: Any) -> None:
    """The page does not know yet that the session has something that is not saved."""
    tab = first.tab
    if not tab.rows():
        segment(tab)
    save(tab)
    tab.until_state("unsaved", False)
    late = open_tab(browser, first.served.url, "#candidates tbody tr", A_SECOND_LATE)
    asked = dialogs_of(late)
    late.choose_first()
    late.press("x")
    late.page.reload()
    assert asked == ["beforeunload"]
    tab.until(REJECTED, 1)
    tab.press("u")
    tab.until(REJECTED, 0)
    save(tab)
    tab.until_state("unsaved", False)
    late.page.close()


def test_each_scan_has_its_folder_and_none_is_overwritten_unasked(
    first: First, box_files: tuple[Path, Path], other: Path
) -> None:
    tab, out = first.tab, first.out
    title = tab.page.title()
    assert title == f"ct [{scan_of(out)[:8]}] - HideSeekSeg"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    opened(tab, other, box_files[1])
    tab.until("([old]) => document.title !== old && document.title.includes('[')", title)
    segment(tab)
    accept(tab)
    tab.press("e")
    offered = Path(tab.page.input_value("#save-folder"))
    assert offered.parent == out and offered.name.startswith("ct-")
    tab.page.click("#save-dialog [data-close]")

    save(tab, out)
    tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
    assert "contains the result of another scan (ct [" in tab.text("#question")
    tab.page.click("#answer-no")
    tab.page.wait_for_selector("#question-dialog:not([open])", state="attached")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    save(tab, offered)
    tab.page.wait_for_selector(".links a", timeout=PATIENCE)
    assert scan_of(offered) != scan_of(out)
    save(tab, out)
    tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
    tab.page.click("#answer-yes")
    replaced = "([out]) => document.querySelector('#message')?.innerText.includes(`to ${out}:`)"
    tab.until(replaced, str(out))
    assert scan_of(offered) == scan_of(out)


def test_refused_open_keeps_nothing_for_the_next_one(
    first: First, box_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """A CT whose vertebrae were refused must not be paired with those of the next patient."""
    tab, name = first.tab, first.tab.page.title()
    (tmp_path / "notes.nii").write_bytes(b"no image")
    tab.page.click("text=Open…")
    tab.page.set_input_files("#ct-file", str(box_files[0]))
    tab.page.set_input_files("#vertebrae-file", str(tmp_path / "notes.nii"))
    tab.page.click("#open-load")
    tab.page.wait_for_selector("#open-error:not([hidden])", timeout=PATIENCE)
    tab.page.reload()
    tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
    del tab.complaints[:]  # the browser notes that an upload was answered with 400
    for only, file in (("#vertebrae-file", box_files[1]), ("#ct-file", box_files[0])):
        tab.page.click("text=Open…")
        tab.page.set_input_files(only, str(file))
        tab.page.click("#open-load")
        tab.until("() => /hoose a CT/.test(document.querySelector('#message')?.innerText)")
        assert tab.page.title() == name
        tab.page.click("#message .plain")
        tab.page.wait_for_selector("#message", state="detached")
        assert not list(first.served.private.rglob("uploads/*/*"))


def test_dicom_seg_of_a_dicom_series_is_downloaded(
    first: First,
    box_spine: tuple[Volume, Volume],
    box_files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    """By upload: the server has no other copy of the series."""
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    from helpers.dicom import pydicom, write_series

    tab, series = first.tab, write_series(tmp_path / "series", box_spine[0])
    title = tab.page.title()
    tab.page.click("text=Open…")
    tab.page.set_input_files("#ct-file", [])
    tab.page.set_input_files("#dicom-folder", str(series))
    tab.page.set_input_files("#vertebrae-file", str(box_files[1]))
    tab.page.select_option("#labels", "totalsegmentator")
    tab.page.click("#open-load")
    tab.until("([old]) => document.title !== old && document.title.includes('[')", title)
    segment(tab)
    tab.page.click("#segment")  # once more: the upload goes from review to review
    tab.until_state("running", True)
    tab.until_state("running", False)
    accept(tab)
    tab.page.click("#dicom-seg")
    ended = "document.querySelector('.links a') || document.querySelector('#message.error')"
    tab.until(f"() => {ended}")
    assert tab.text("#message span") == "Ready to download: lesions.dcm."
    with tab.page.expect_download() as download:
        tab.page.click(".links a:has-text('lesions.dcm')")
    shutil.copy(download.value.path(), tmp_path / "lesions.dcm")
    save(tab, tmp_path / "saved")
    tab.until_state("unsaved", False)
    segmentation = read_segmentation(tmp_path / "lesions.dcm")
    (found,) = segmentation.segments
    assert segmentation.mask(found).any() and "14799000" in found.terminology
    (source,) = pydicom.dcmread(tmp_path / "lesions.dcm").ReferencedSeriesSequence
    held = {str(pydicom.dcmread(x).SOPInstanceUID): x for x in series.iterdir()}
    assert {x.ReferencedSOPInstanceUID for x in source.ReferencedInstanceSequence} <= {*held}


def test_saved_review_is_not_offered_again(first: First, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even after kill -9: nothing of it is lost."""
    assert first.tab.complaints == []
    assert list(first.served.state.rglob("about.json"))
    first.served.process.kill()
    first.served.process.wait(30)
    assert offers(first.served.state, monkeypatch) == []
    assert not list(first.served.state.rglob("*.npz")), "a patient's data are kept for nothing"


def test_saved_scene_comes_back_with_levels_and_evidence(
    first: First,
    browser: Any,
    words: list[str],
    mrml: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where its name is in capitals, as old discs and mail programs make it.

    Each of its results has a copy of its own; one that a crash left goes to the results that it is
    of, though the newer ones have the same ids.
    """
    scene, state = tmp_path / "REVIEW.MRB", tmp_path / "state"
    write_two_results(first.out / "review.mrb", scene, state, monkeypatch)
    with app.serve(str(scene), *words[2:], state=state) as served:  # it knows its levels
        tab = open_tab(browser, served.url, "#candidates tbody tr")
        tab.page.wait_for_selector("#message:has-text('other CTs (another CT)')", timeout=PATIENCE)
        older, newer = (one["id"] for one in tab.state("results"))
        assert len(tab.rows()) == 1 and tab.state("results_chosen") == newer
        tab.page.select_option("#results", older)
        tab.page.wait_for_selector("#candidates tr.accepted", timeout=PATIENCE)
        assert "T11 to L1" in tab.text(".levels summary")
        assert tab.page.query_selector("#outdated") is None
        tab.choose_first()
        tab.page.wait_for_selector("#strip img", timeout=PATIENCE)
        tab.until_state("unsaved", False)
        tab.page.click(".offer button:has-text('Restore')")
        tab.until(REJECTED, 1)
        tab.until(ACCEPTED, 1)
        tab.until_state("results_chosen", older)  # the rows come a moment before the menu
        tab.until_state("unsaved", True)
        tab.choose_first()
        tab.until_state("comment", "")
        other = open_tab(browser, served.url, "#candidates tbody tr")
        other.until_state("current", tab.state("current"))
        other.press("c")
        other.page.keyboard.type("of the older")  # and not left before the other ones are opened
        tab.page.select_option("#results", newer)
        tab.until(REJECTED, 0)
        tab.page.wait_for_selector("#message:has-text('is kept with')", timeout=PATIENCE)
        other.page.context.close()
        for key, rejected in (("x", 1), ("u", 0), ("x", 1)):
            tab.choose_first()
            tab.press(key)
            tab.until(REJECTED, rejected)
            tab.page.wait_for_timeout(300)
            assert tab.state("unsaved"), "the other results have a verdict that no file has"
        assert tab.complaints == []
        served.process.kill()
        served.process.wait(30)
    kept = [json.loads(file.read_text("utf-8")) for file in state.rglob("review.json")]
    [commented] = [one for one in kept if "of the older" in json.dumps(one)]
    assert len(commented["lesions"]) > 1, "the newer results have one finding"
    left = sorted(text.partition(": ")[2] for text in offers(state, monkeypatch))
    assert len(left) == 2 and sum("1 accepted" in text for text in left) == 1


def write_two_results(
    before: Path, scene: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Add newer results, and those of another CT; leave a review of the older as a crash does."""
    from hideseekseg.review.review import Review
    from hideseekseg.scene.import_data import addCt, read_scene, removeData
    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import as_text, store
    from hideseekseg.ui.autosave import Autosave, ScanSource
    from hideseekseg.ui.review_session import latest
    from hideseekseg.web.slicer_scene import save_scene

    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setenv("LOCALAPPDATA", str(state))
    removeData()
    read_scene(before)
    work = latest(lambda text: None)
    assert work is not None
    ct, vertebrae = work.results.ctNode, work.results.segmentationNode
    item, other = work.review.items[:2]
    patch = work.results.patches([item.id])[item.id]
    lesion = make_candidate(item.id, item.type, 0.9, patch, work.results.grid)
    small = Volume(np.zeros((4, 4, 4), np.int16), Grid((4, 4, 4), np.eye(4)), "small")
    store(Results.create(addCt(small, "another CT"), None, {}).node, Review(0.0))
    results, review = Results.create(ct, vertebrae, work.results.run), Review(0.0)
    finding = VertebraFinding(item.level, Status.FINDINGS, candidates=(lesion,))
    results.addVertebra(finding)
    review.add_vertebra(finding)
    results.apply(review)
    store(results.node, review)
    save_scene(scene)
    work.review.judge(other.id, "rejected")
    copy = Autosave()
    copy.keep(work, ScanSource(str(scene)), as_text(work.review), False)
    copy.close(False)
    removeData()


def offers(state: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the next start offers."""
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setenv("LOCALAPPDATA", str(state))
    from hideseekseg.ui.autosave import unfinished

    return [one.text for one in unfinished()]


def test_review_is_offered_again_after_the_server_was_killed(
    browser: Any,
    words: list[str],
    box_files: tuple[Path, Path],
    other: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An uploaded scan, reviewed and never saved, when the power goes."""
    state, before = tmp_path / "state", (str(other), str(box_files[1]), *words)
    with app.serve(*before, state=state) as served:
        tab = open_tab(browser, served.url)
        title = tab.page.title()
        opened(tab, *box_files)
        tab.until("([old]) => document.title !== old && document.title.includes('[')", title)
        tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        segment(tab)
        accept(tab, "half of the body")
        rows = tab.rows()
        tab.page.wait_for_timeout(500)
        assert offers(state, monkeypatch) == [], "somebody is at work on it"
        served.process.kill()
        served.process.wait(30)
        tab.page.context.close()
    for folder in state.rglob("reviews/*"):
        assert folder.stat().st_mode & 0o077 == 0 or os.name == "nt"
    [left] = (path.parent for path in state.rglob("about.json"))
    shutil.copytree(left, left.with_name("slicer"))  # one of Slicer's, which only its scene had
    about = json.loads((left / "about.json").read_text("utf-8"))
    about["source"] |= {"slicer": True}
    (left.with_name("slicer") / "about.json").write_text(json.dumps(about), "utf-8")
    with app.serve(*before, state=state) as served:
        tab = open_tab(browser, served.url)
        assert len(tab.page.query_selector_all(".offer")) == 1
        assert "1 accepted" in tab.text(".offer") and "ct [" in tab.text(".offer")
        tab.page.click(".offer button:has-text('Discard')")
        tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
        tab.page.click("#answer-no")
        tab.page.wait_for_selector("#question-dialog:not([open])", state="attached")
        tab.page.click(".offer button:has-text('Restore')")
        tab.until(ACCEPTED, 1)
        assert tab.rows() == rows
        tab.page.wait_for_selector(".offer", state="detached", timeout=PATIENCE)
        assert "T11 to L1" in tab.text(".levels summary")
        tab.choose_first()
        tab.until_state("comment", "half of the body")
        tab.page.wait_for_selector("#strip img", timeout=PATIENCE)
        tab.press("u")
        tab.until(ACCEPTED, 0)
        tab.press("Shift+U")
        tab.until(ACCEPTED, 1)
        tab.until_state("unsaved", True)
        assert tab.complaints == []
        served.stop()  # as Ctrl-C does: it is offered once more
    shutil.rmtree(left.with_name("slicer"))
    [again] = offers(state, monkeypatch)
    assert "1 accepted" in again
    twin = left.with_name("twin")  # as a second crash, or another window, leaves one of this scan
    shutil.copytree(left, twin)
    at = (left / "review.json").stat().st_mtime - 5
    os.utime(twin / "review.json", (at, at))
    with app.serve(*before, state=state) as served:
        tab = open_tab(browser, served.url)
        first, second = (one.inner_text() for one in tab.page.query_selector_all(".offer"))
        assert "(1 of 2, the newest)" in first and "(2 of 2, the oldest)" in second
        tab.page.click(".offer:last-of-type button:has-text('Discard')")
        tab.page.wait_for_selector("#question-dialog:has-text('oldest')", timeout=PATIENCE)
        tab.page.click("#answer-yes")
        tab.until("() => document.querySelectorAll('.offer').length === 1")
        assert "of 2" not in tab.text(".offer")
    assert left.is_dir() and not twin.exists()


def add_lesion(tab: Tab) -> None:
    """Add a lesion to the first vertebra that is offered, and draw some of it."""
    tab.press("m")
    tab.page.wait_for_selector("#missed-dialog[open]", timeout=PATIENCE)
    tab.page.click("#missed-add")
    tab.until_state("tool", "draw")
    tab.rest()
    box = tab.page.locator(".axial").bounding_box()
    x, y = box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"]
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + 20, y + 10, steps=4)
    tab.page.mouse.up()
    tab.until(f"() => parseFloat(({ADDED})()[0]) > 0")
    tab.press("Escape")


# Size and state of the lesions that the reader added, as the list shows them.
ADDED = (
    "() => Object.values(window.trame.state.get('rows')).filter(r => r.cells[2] === 'added')"
    ".map(r => r.cells[4] + r.cells[5])"
)


def run_once_more(tab: Tab) -> None:
    tab.page.click("#segment")
    tab.page.click("#answer-yes")
    tab.until_state("running", True)
    tab.until_state("running", False)


def test_what_a_second_run_takes_over_is_not_saved_and_the_first_comes_back_whole(
    browser: Any,
    words: list[str],
    box_files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state, out = tmp_path / "state", ("--out", str(tmp_path / "out"))
    with app.serve(*map(str, box_files), *words, *out, state=state) as served:
        tab = open_tab(browser, served.url)
        segment(tab)
        accept(tab, "half of the body")
        add_lesion(tab)
        said = tab.page.evaluate(ADDED)
        run_once_more(tab)
        tab.until(ACCEPTED, 2)
        tab.until_state("unsaved", True)
        tab.page.click("text=Open…")
        tab.page.click("#open-example")
        tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
        assert "2 accepted" in tab.text("#question")
        tab.page.click("#answer-no")
        for _ in range(2):
            before = tab.state("opened")
            tab.page.click("#put-back")
            tab.until("([old]) => window.trame.state.get('opened') > old", before)
            tab.until(ACCEPTED, 2)
            assert tab.page.evaluate(ADDED) == said
            tab.until("() => window.trame.state.get('results').length === 1")
            assert tab.page.query_selector("#results") is None
        assert tab.complaints == []
        served.stop()
    [left] = offers(state, monkeypatch)
    assert "2 accepted" in left
    with app.serve(*map(str, box_files), *words, *out, state=state) as served:
        tab = open_tab(browser, served.url)
        tab.page.click(".offer button:has-text('Restore')")
        tab.until(ACCEPTED, 2)
        assert tab.page.evaluate(ADDED) == said


def scan_of(folder: Path) -> str:
    said = json.loads((folder / "review.json").read_text("utf-8"))["run"]["scan"]
    with (folder / "accepted.csv").open(encoding="utf-8") as file:
        [case] = {row["case"] for row in csv.DictReader(file)}
    assert case == f"{said['name']} [{said['sha256'][:8]}]"
    return str(said["sha256"])
