"""A crash of Slicer costs no verdict: the panel keeps reviews on disk and offers them again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from desktop import Desktop
from helpers.findings import RUN, ball, body_centre, make_ct, make_evidence, make_grid, make_result
from helpers.full_disk import no_file_above, no_further_file
from helpers.panel import Opened, add_review, open_panel
from helpers.scene import add_ct
from hideseekseg.files import LOCK
from hideseekseg.imaging.volume import to_sitk

GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
RESULT = make_result(GRID)
MISSED, EDITED = "T11-added-1", "L1-1"
OFFER = "4 vertebrae, 3 with findings, 2 accepted, 1 uncertain, 1 to review, 1 not analysed"
VERDICTS = {"T10-1": "accepted", "T10-2": "uncertain", MISSED: "accepted", EDITED: "unreviewed"}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of reviews at work, of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "hideseekseg" / "reviews"


def add_scan(opened: Opened, name: str = "CT", grid: Any = GRID) -> Any:
    """Load the CT, as a reader does at first, and after a crash again."""
    ct = add_ct(make_ct(grid).array, grid.ijk_to_lps, name)
    opened.ui.ctSelector.setCurrentNode(ct)
    return ct


def begin_run(opened: Opened, ct: Any) -> Any:
    """Bring what a run brings; return its results."""
    from hideseekseg.review.review import Review
    from hideseekseg.scene.import_data import scanOf
    from hideseekseg.scene.results import Results
    from hideseekseg.ui.review_session import ReviewSession

    results, review = Results.create(ct, None, {**RUN, "scan": scanOf(ct)}), Review(0.5)
    evidence = make_evidence(make_ct(GRID), RESULT)
    for finding in RESULT.vertebrae:
        review.add_vertebra(finding)
        results.addVertebra(finding, evidence.get(finding.level))
    opened.panel.review.show(ReviewSession(review, results))
    return results


def review_some(opened: Opened, results: Any) -> None:
    """Judge, comment, correct an outline, add a lesion, draw one that is undone, and move on."""
    review = opened.panel.review
    opened.key("A")
    opened.key("K")
    review.comment("half of the body", "T10-1")
    review.add_missed("T11", "blastic")
    results.draw(MISSED, ball(GRID, body_centre(1), 5.0))
    review.take_over_outlines()
    opened.key("U")
    review.add_missed("T11", "lytic")
    results.draw(MISSED, ball(GRID, body_centre(1), 4.0))
    results.draw(EDITED, ball(GRID, body_centre(3), 3.0))
    review.take_over_outlines()
    opened.ui.thresholdSlider.value = 0.6
    opened.rest()


def crash() -> None:
    """Review a scan, and end as by kill -9: nothing is cleaned up."""
    from desktop import open_desktop
    from helpers.scene import open_scene

    with open_scene() as mrml, open_desktop(mrml) as desktop, open_panel(desktop) as opened:
        review_some(opened, begin_run(opened, add_scan(opened)))
        os.kill(os.getpid(), 9)


def verdicts(opened: Opened) -> dict[str, str]:
    return {item.id: item.verdict for item in opened.panel.review.review.items}


def offer(opened: Opened) -> str:
    """What the panel offers, empty for nothing."""
    area = opened.ui.offerArea
    return str(opened.ui.offerLabel.text) if area.isVisibleTo(opened.widget) else ""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of reviews at work that a killed Slicer leaves."""
    pytest.importorskip("slicer.util", reason="slicer-core is not installed")
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6-Essentials is not installed")
    folder, testing = tmp_path_factory.mktemp("crashed"), Path(__file__).resolve().parents[1]
    paths = os.pathsep.join((str(testing), *filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, "-c", "from panel import test_panel_crash as t; t.crash()"],
        env={**os.environ, "PYTHONPATH": paths, "XDG_STATE_HOME": str(folder)},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode in (-9, 9), done.stderr.decode()
    return folder / "hideseekseg" / "reviews"


@pytest.fixture
def left(crashed: Path, state: Path) -> Path:
    """The folder of the one review that was left."""
    shutil.copytree(crashed, state)
    [folder] = state.iterdir()
    return folder


def test_review_is_offered_again_after_slicer_was_killed(desktop: Desktop, left: Path) -> None:
    with open_panel(desktop) as opened:
        assert offer(opened) == ""
        add_scan(opened, "Another", make_grid((70, 50, 50), (1.2, 1.1, 2.1)))
        assert offer(opened) == "", "a review of another scan"
        add_scan(opened, "Again")
        assert offer(opened).startswith("A review was not saved: CT [")
        assert offer(opened).endswith(OFFER)
        opened.ui.restoreButton.click()
        assert opened.message == f"Restored: {OFFER}."
        assert offer(opened) == ""
        review = opened.panel.review
        assert verdicts(opened).items() >= VERDICTS.items()
        assert review.review.threshold == opened.ui.thresholdSlider.value == 0.6
        review.choose("T10-1")
        assert opened.ui.commentEdit.text == "half of the body"
        assert review.evidence("T10") is not None
        patches = review.results.patches()
        for name, place, radius in ((MISSED, 1, 4.0), (EDITED, 3, 3.0)):
            drawn = ball(GRID, body_centre(place), radius)
            assert patches[name].start == drawn.start
            assert np.array_equal(patches[name].array, drawn.array)
        for _ in range(2):  # the threshold, and the lesion that was added
            opened.key("U")
        assert MISSED not in verdicts(opened)
        opened.rest()
        kept = json.loads((left / "review.json").read_text("utf-8"))
        assert MISSED not in [item.id for item in review.review.from_json(kept).items]
    assert not left.exists(), "a clean end leaves nothing"


def test_what_is_offered_is_discarded_after_asking(desktop: Desktop, left: Path) -> None:
    """Also where it is damaged, which Restore says in one line."""
    next(left.glob("run/*.npz")).write_bytes(b"PK\3\4")
    with open_panel(desktop) as opened:
        add_scan(opened)
        opened.panel.recovery.look(None, None)  # as a run does: nothing is opened beside it
        assert offer(opened) == ""
        opened.panel.recovery.restore()
        assert opened.message == ""
        opened.panel.enter()
        opened.ui.restoreButton.click()
        assert str(left) in opened.message and opened.message.count("\n") == 0
        assert opened.panel.review.review is None
        desktop.answers.append(False)
        opened.ui.discardButton.click()
        assert left.is_dir() and offer(opened).endswith(OFFER)
        opened.ui.discardButton.click()
        assert desktop.messages[-1].startswith("Discard this review for good? CT [")
        assert not left.exists() and offer(opened) == ""


def add_older(left: Path, rejects: bool = True) -> Path:
    """Leave another review of the same results, an hour older; it says another thing, or not."""
    from hideseekseg.review.review import Review
    from hideseekseg.scene.review_storage import as_text

    older = left.with_name("older")
    shutil.copytree(left, older)
    if rejects:
        review = Review.from_json(json.loads((older / "review.json").read_text("utf-8")))
        review.judge("T10-1", "rejected")
        (older / "review.json").write_text(as_text(review), "utf-8")
        (older / "drawn" / f"{EDITED}.npz").unlink()
    for folder, hour in ((left, 12), (older, 11)):
        at = datetime(2026, 3, 4, hour, 30, 5).timestamp()
        os.utime(folder / "review.json", (at, at))
    return older


def choose_offer(opened: Opened, number: int) -> None:
    """Choose one of the reviews that are offered, as a click in the list does."""
    selector = opened.ui.offerSelector
    assert selector.isVisibleTo(opened.widget)
    selector.setCurrentIndex(number)
    selector.activated.emit(number)


def test_two_reviews_of_a_scan_are_offered_and_discarding_one_leaves_the_other(
    desktop: Desktop, left: Path
) -> None:
    older = add_older(left)
    with open_panel(desktop) as opened:
        add_scan(opened)
        selector = opened.ui.offerSelector
        first, second = (str(selector.itemText(n)) for n in range(selector.count))
        assert "2026-03-04 12:30:05 (1 of 2, the newest): " in first and "2 accepted" in first
        assert "2026-03-04 11:30:05 (2 of 2, the oldest): " in second and "1 accepted" in second
        assert offer(opened).startswith("2 reviews of this CT were not saved")
        assert offer(opened).endswith(first)
        choose_offer(opened, 1)
        assert offer(opened).endswith(second)
        opened.panel.enter()
        assert offer(opened).endswith(second), "what was chosen stays chosen"
        desktop.answers.append(False)
        opened.ui.discardButton.click()
        assert desktop.messages[-1].endswith(second)
        assert left.is_dir() and older.is_dir() and offer(opened).endswith(second)
        opened.ui.discardButton.click()
        assert left.is_dir() and not older.exists()
        assert offer(opened).startswith("A review was not saved: CT [")
        assert offer(opened).endswith(OFFER)
        assert not selector.isVisibleTo(opened.widget)


def test_restoring_one_of_two_reviews_of_a_scan_loses_neither(desktop: Desktop, left: Path) -> None:
    older = add_older(left)
    with open_panel(desktop) as opened:
        ct = add_scan(opened)
        choose_offer(opened, 1)
        opened.ui.restoreButton.click()
        assert verdicts(opened)["T10-1"] == "rejected"
        assert offer(opened).endswith(OFFER), "the newer one, alone"
        desktop.answers.append(False)
        opened.ui.restoreButton.click()
        assert desktop.messages[-1].endswith("They stay offered.")
        assert verdicts(opened)["T10-1"] == "rejected"
        opened.ui.restoreButton.click()
        assert verdicts(opened).items() >= VERDICTS.items()
        drawn = ball(GRID, body_centre(3), 3.0)
        patches = opened.panel.review.results.patches()
        assert np.array_equal(patches[EDITED].array, drawn.array)
        assert "1 accepted" in offer(opened) and older.is_dir() and left.is_dir()
        opened.ui.restoreButton.click()
        assert verdicts(opened)["T10-1"] == "rejected" and offer(opened).endswith(OFFER)
        patches = opened.panel.review.results.patches()
        assert patches[EDITED].array.sum() > drawn.array.sum(), "its own outline, of the run"
        assert results_of(ct) is opened.panel.review.results.node
    assert left.is_dir() and not older.exists(), "the one that was not open stays"


def test_two_copies_that_say_the_same_are_both_offered(desktop: Desktop, left: Path) -> None:
    """Also after one of both was restored, in a scene that nobody saved."""
    older = add_older(left, rejects=False)
    with open_panel(desktop) as opened:
        add_scan(opened)
        assert opened.ui.offerSelector.count == 2
        opened.ui.restoreButton.click()
        assert "11:30" in offer(opened) and older.is_dir()
    assert older.is_dir() and not left.exists()


def test_scene_that_has_the_review_needs_no_copy(desktop: Desktop, left: Path) -> None:
    """Slicer crashed after the scene was saved; and it takes none before something is said."""
    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import store
    from hideseekseg.ui import autosave, recovery

    kept = autosave.read(left)
    with open_panel(desktop) as opened:
        ct = add_scan(opened)
        assert offer(opened)
        opened.ui.ctSelector.setCurrentNode(None)
        add_review(RESULT.vertebrae, GRID, ct=ct)
        saved = recovery.restored(kept, ct, None, Results.of(results_of(ct)))
        store(saved.results.node, saved.review)
        opened.ui.ctSelector.setCurrentNode(ct)
        assert (offer(opened), left.exists()) == ("", False)
        assert verdicts(opened).items() >= VERDICTS.items()
        opened.rest()
        assert not list(left.parent.iterdir())
        opened.key("X")
        opened.rest()
        assert list(left.parent.iterdir())


def test_restored_review_takes_the_place_of_an_older_one(desktop: Desktop, left: Path) -> None:
    """Slicer crashed after the scene was saved and the review went on: no second results."""
    with open_panel(desktop) as opened:
        ct = add_review(RESULT.vertebrae, GRID)
        opened.ui.ctSelector.setCurrentNode(ct)
        opened.key("X")
        node = results_of(ct)
        desktop.answers.append(False)
        opened.ui.restoreButton.click()
        assert "replaces the verdicts" in desktop.messages[-1]
        assert "0 accepted" in desktop.messages[-1] and verdicts(opened)["T10-1"] == "rejected"
        opened.ui.restoreButton.click()
        assert verdicts(opened).items() >= VERDICTS.items()
        assert opened.panel.review.results.node is node and results_of(ct) is node
    assert not list(left.parent.iterdir())


def test_review_of_a_saved_scene_is_restored_in_that_scene(desktop: Desktop, state: Path) -> None:
    """The scene has the lesions, the copy what was said of them and a vertebra that ran again."""
    vertebra = RESULT.vertebrae[3]
    [lesion] = vertebra.candidates
    patch = ball(GRID, body_centre(3), 5.0)
    again = replace(vertebra, candidates=(replace(lesion, score=0.77, patch=patch),))
    with open_panel(desktop) as opened:
        opened.ui.ctSelector.setCurrentNode(add_review(RESULT.vertebrae, GRID))
        opened.key("A")
        opened.panel.review.results.addVertebra(again)
        opened.panel.review.review.add_vertebra(again)
        opened.panel.review.renew()
        opened.rest()
        shutil.copytree(state, state.with_name("left"))
    desktop.mrml.scene.Clear(True)
    shutil.copytree(state.with_name("left"), state, dirs_exist_ok=True)
    with open_panel(desktop) as opened:
        ct = add_scan(opened)
        opened.ui.restoreButton.click()
        assert opened.message == (
            "This review is of a saved scene: open that scene, then restore it."
        )
        opened.ui.ctSelector.setCurrentNode(None)
        opened.ui.ctSelector.setCurrentNode(add_review(RESULT.vertebrae, GRID, ct=ct))
        opened.ui.restoreButton.click()
        assert verdicts(opened)["T10-1"] == "accepted"
        assert opened.panel.review.review.item("L1-1").score == 0.77
        assert opened.panel.review.results.patches()["L1-1"].array.sum() == patch.array.sum()


def test_each_result_of_a_scene_has_its_copy(desktop: Desktop, state: Path) -> None:
    with open_panel(desktop) as opened:
        for name in ("CT", "CT of the week after"):
            begin_run(opened, add_scan(opened, name))
            opened.key("A")
            opened.rest()
        assert len(list(state.iterdir())) == 2
        desktop.mrml.scene.Clear(False)
        assert not list(state.iterdir()), "the scene was closed: its reviews were given up"


def test_results_that_are_opened_again_keep_their_copy(desktop: Desktop, state: Path) -> None:
    """With the vertebrae of their run: after a crash they come back, also without the scene."""
    from hideseekseg.ui import autosave

    with open_panel(desktop) as opened:
        first = add_scan(opened)
        begin_run(opened, first)
        opened.key("A")
        opened.rest()
        [copy] = state.iterdir()
        begin_run(opened, add_scan(opened, "CT of the week after"))
        opened.ui.ctSelector.setCurrentNode(first)
        opened.key("X")
        opened.rest()
        kept, said = autosave.read(copy), verdicts(opened)
        assert {x.id: x.verdict for x in kept.review.items} == said
        assert said["T10-1"] == "rejected"
        levels = [finding.level for finding, _evidence in kept.vertebrae]
        assert levels == [vertebra.level for vertebra in RESULT.vertebrae]
        desktop.mrml.scene.RemoveNode(results_of(first))
        opened.ui.putBackButton.click()
        assert verdicts(opened) == said


def test_outlines_that_were_put_back_are_in_the_copy(desktop: Desktop, state: Path) -> None:
    """Drawn and corrected ones: no run brings them again."""
    from hideseekseg.ui import autosave

    with open_panel(desktop) as opened:
        results, review = begin_run(opened, add_scan(opened)), opened.panel.review
        review.add_missed("T11", "blastic")
        for identity, centre in ((MISSED, body_centre(1)), ("T10-1", body_centre(0))):
            results.draw(identity, ball(GRID, centre, 5.0))
        review.take_over_outlines()
        for _ in range(2):
            desktop.mrml.scene.RemoveNode(review.results.node)
            opened.ui.putBackButton.click()
            opened.rest()
            [copy] = state.iterdir()
            kept = autosave.read_outlines(copy)
            voxels = {x: int(patch.array.sum()) for x, patch in kept.items()}
            count = int(ball(GRID, body_centre(0), 5.0).array.sum())
            assert voxels.keys() == {MISSED, "T10-1"} and voxels["T10-1"] == count


@pytest.mark.parametrize("how", ["undone", "erased"])
def test_an_outline_that_is_gone_does_not_come_back(
    desktop: Desktop, state: Path, how: str
) -> None:
    from hideseekseg.imaging.volume import Patch
    from hideseekseg.ui import autosave

    with open_panel(desktop) as opened:
        results, review = begin_run(opened, add_scan(opened)), opened.panel.review
        review.add_missed("T11", "blastic")
        results.draw(MISSED, patch := ball(GRID, body_centre(1), 5.0))
        review.take_over_outlines()
        [copy] = state.iterdir()
        assert list(autosave.read_outlines(copy)) == [MISSED]
        if how == "undone":
            opened.key("U")
            opened.rest()
            review.add_missed("T11", "blastic")
        else:
            results.draw(MISSED, Patch(np.zeros_like(patch.array), patch.start))
            review.take_over_outlines()
            review.comment("erased", MISSED)
            opened.rest()
        assert autosave.read_outlines(copy) == {}


def test_a_candidate_that_was_erased_stays_so_after_a_crash(desktop: Desktop, state: Path) -> None:
    from hideseekseg.imaging.volume import Patch
    from hideseekseg.scene.results import Results
    from hideseekseg.ui import autosave, recovery

    with open_panel(desktop) as opened:
        ct = add_scan(opened)
        results, review = begin_run(opened, ct), opened.panel.review
        results.draw(EDITED, Patch(np.zeros((1, 1, 1), bool), (0, 0, 0)))
        review.take_over_outlines()
        assert EDITED not in results.patches()
        [copy] = state.iterdir()
        new = Results.create(ct, None, RUN)
        again = recovery.restored(autosave.read(copy), ct, None, new)
        assert EDITED not in new.patches() and new.corrected([EDITED.split("-")[0]]) == {
            EDITED: None
        }
        assert again.review.item(EDITED).volume_mm3 == 0
        results.draw(EDITED, ball(GRID, body_centre(3), 3.0))
        review.take_over_outlines()
        assert autosave.read_outlines(copy)[EDITED].array.any(), "drawn again"


def test_a_copy_that_cannot_be_written_is_said_once(desktop: Desktop, state: Path) -> None:
    state.parent.mkdir(parents=True)
    state.write_text("no folder")
    with open_panel(desktop) as opened:
        begin_run(opened, add_scan(opened))
        assert opened.message.startswith("This review is not saved automatically: ")
        opened.key("A")
        opened.rest()
        assert opened.message == ""
        assert verdicts(opened)["T10-1"] == "accepted"


def test_what_a_full_disk_kept_back_is_said_and_written_later(
    desktop: Desktop, state: Path
) -> None:
    """Outlines as well, which are written only where they are other ones than before."""
    from hideseekseg.ui import autosave

    with open_panel(desktop) as opened:
        results, review = begin_run(opened, add_scan(opened)), opened.panel.review
        with no_file_above(100):
            review.add_missed("T11", "blastic")
            for identity, centre in ((MISSED, body_centre(1)), ("T10-1", body_centre(0))):
                results.draw(identity, ball(GRID, centre, 5.0))
            review.take_over_outlines()
            for _ in range(2):
                opened.key("K")
                opened.rest()
                assert "not saved automatically" in opened.ui.summaryLabel.text, "as long as so"
        opened.key("K")
        opened.rest()
        assert "not saved" not in opened.ui.summaryLabel.text
        [copy] = state.iterdir()
        assert autosave.read_outlines(copy).keys() == {MISSED, "T10-1"}


@pytest.mark.parametrize("taken_up", [False, True])
def test_a_copy_that_somebody_removed_is_written_anew(
    desktop: Desktop, state: Path, taken_up: bool
) -> None:
    """All of it, also what was drawn before it went, and in a session before this one."""
    from hideseekseg.ui import autosave

    with open_panel(desktop) as opened:
        results = begin_run(opened, add_scan(opened))
        opened.key("A")
        results.draw("T10-1", drawn := ball(GRID, body_centre(0), 5.0))
        opened.panel.review.take_over_outlines()
        opened.rest()
        if taken_up:
            shutil.copytree(state, state.with_name("left"))
    if taken_up:
        desktop.mrml.scene.Clear(True)
        shutil.copytree(state.with_name("left"), state, dirs_exist_ok=True)
    with open_panel(desktop) as opened:
        ct = add_scan(opened)
        if taken_up:
            opened.ui.restoreButton.click()
        else:
            results = begin_run(opened, ct)
            results.draw("T10-1", drawn)
            opened.panel.review.take_over_outlines()
            opened.rest()
        shutil.rmtree(state)
        opened.key("X")
        opened.rest()
        assert "not saved" not in opened.ui.summaryLabel.text
        [copy] = state.iterdir()
        kept, said = autosave.read(copy), verdicts(opened)
        assert {x.id: x.verdict for x in kept.review.items} == said
        assert "rejected" in said.values()
        levels = [finding.level for finding, _evidence in kept.vertebrae]
        assert levels == [vertebra.level for vertebra in RESULT.vertebrae]
        assert kept.outlines["T10-1"].array.sum() == drawn.array.sum()


@pytest.mark.parametrize("gone", ["folder while no file can be opened", "files alone"])
def test_a_removed_copy_is_whole_again_after_a_fault(
    desktop: Desktop, state: Path, gone: str
) -> None:
    """A folder that could be made, and nothing in it, does not pass for the copy."""
    from hideseekseg.ui import autosave

    with open_panel(desktop) as opened:
        results = begin_run(opened, add_scan(opened))
        results.draw("T10-1", drawn := ball(GRID, body_centre(0), 5.0))
        opened.panel.review.take_over_outlines()
        opened.rest()
        [copy] = state.iterdir()
        if gone == "files alone":
            for path in copy.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            shutil.rmtree(copy)
            with no_further_file():
                opened.key("A")
                opened.rest()
                assert "not saved automatically" in opened.ui.summaryLabel.text
        opened.key("X")
        opened.rest()
        assert "not saved" not in opened.ui.summaryLabel.text
        kept = autosave.read(copy)
        assert {x.id: x.verdict for x in kept.review.items} == verdicts(opened)
        levels = [finding.level for finding, _evidence in kept.vertebrae]
        assert levels == [vertebra.level for vertebra in RESULT.vertebrae]
        assert kept.outlines["T10-1"].array.sum() == drawn.array.sum()
        assert (copy / LOCK).exists(), "nobody else takes it meanwhile"


def test_what_a_reader_said_of_a_case_is_written_anew_where_it_was_removed(
    desktop: Desktop, tmp_path: Path
) -> None:
    from hideseekseg.cohort.readings import Reading, read_reading
    from hideseekseg.scene.review_storage import as_text
    from hideseekseg.ui.autosave import ScanSource, read_outlines
    from hideseekseg.web.work_list import CaseAutosave

    folder, source = tmp_path / "reviews" / "Ann", ScanSource()
    with open_panel(desktop) as opened:
        results = begin_run(opened, add_scan(opened))
        work = opened.panel.review.session
        assert work is not None
        for begun in (False, True):  # again in a later session, with the outlines of the first
            copy = CaseAutosave(folder, begun, Reading("Ann", "ab", "cd", False, work.review))
            copy.note_outlines(results)
            copy.keep(work, source, as_text(work.review), False)
            if not begun:
                results.draw("T10-1", drawn := ball(GRID, body_centre(0), 5.0))
                opened.panel.review.take_over_outlines()
                opened.key("A")
                copy.keep(work, source, as_text(work.review), False)
            shutil.rmtree(folder)
            copy.keep(work, source, as_text(work.review), False)
            kept = read_reading(folder)
            assert kept is not None
            said = {x.id: x.verdict for x in kept.review.items if x.verdict != "unreviewed"}
            assert said == {"T10-1": "accepted"}
            assert read_outlines(folder)["T10-1"].array.sum() == drawn.array.sum()
            copy.close(False)
        shutil.rmtree(folder)
        copy = CaseAutosave(folder, False, Reading("Ann", "ab", "cd", False, work.review))
        shutil.rmtree(folder)
        copy.close(False)
        assert not folder.exists()


def test_an_outline_that_is_corrected_before_all_else_in_a_case_is_kept(
    mrml: Any, box_spine: tuple[Any, Any], tiny_weights: Path, tmp_path: Path
) -> None:
    from hideseekseg.cli.main import main
    from hideseekseg.cohort.readings import WorkList
    from hideseekseg.scene.review_storage import as_text
    from hideseekseg.ui.autosave import ScanSource, read_outlines
    from hideseekseg.web.slicer_scene import load_files
    from hideseekseg.web.work_list import CaseDesk

    for name, volume in zip(("ct.nii.gz", "bodies.nii.gz"), box_spine):
        sitk.WriteImage(to_sitk(volume), str(tmp_path / name))
    rows = "case,ct,segmentation,labels,patient\nA,ct.nii.gz,bodies.nii.gz,totalsegmentator,p\n"
    (tmp_path / "manifest.csv").write_text(rows, "utf-8")
    out, words = tmp_path / "out", ["--device", "cpu", "--threads", "1", "--workers", "1"]
    run = ["cohort", str(tmp_path / "manifest.csv"), "--out", str(out), "--each"]
    assert main([*run, "--weights", str(tiny_weights), *words]) == 0
    desk = CaseDesk(WorkList(out, "Ann"), None)  # type: ignore[arg-type]
    desk.current = "A"
    files, findings = asyncio.run(desk.read("A"))
    patient = asyncio.run(
        load_files(tmp_path / "ct.nii.gz", tmp_path / "bodies.nii.gz", read=files)
    )
    work, copy, _remark = desk.results(patient, findings)
    identity, patch = next(iter(work.results.patches().items()))
    work.results.draw(
        identity,
        replace(patch, array=patch.array & (patch.array.cumsum().reshape(patch.array.shape) < 9)),
    )
    work.review.judge(identity, "accepted")
    copy.keep(work, ScanSource(), as_text(work.review), False)
    assert read_outlines(desk.work.folder("A"))[identity].array.sum() == 8
    copy.close(False)


def results_of(ct: Any) -> Any:
    """The only results of a CT in the scene."""
    import slicer

    from hideseekseg.scene.results import Results

    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    [node] = [node for node in nodes if Results.isOne(node) and Results.of(node).ctNode is ct]
    return node
