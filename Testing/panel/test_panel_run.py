"""The panel from the click to the findings, and all that may come in between.

The child process is the real one where its work matters, and a short program that says what a
child could say where only that matters.
"""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from desktop import Desktop
from helpers.child_processes import needs_proc, standing_by
from helpers.findings import ball, make_candidate, make_grid, make_result
from helpers.panel import Opened, add_boxes, add_review, open_panel
from helpers.scene import add_ct, add_segmentation, add_transform, everything_of
from hideseekseg.events import Cancelled, Failed, Finished, Started, VertebraDone, to_line
from hideseekseg.findings import Candidate, LesionType, Status, VertebraFinding
from hideseekseg.imaging.volume import Patch, Volume
from hideseekseg.output.result_folder import write_vertebra
from hideseekseg.scene.results import Results

Spine = tuple[Volume, Volume]
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
STARTED = Started("cpu", "a test's", "tiny", "0" * 64, 1, ("T10", "T11"), ())


@pytest.fixture
def opened(desktop: Desktop, tiny_weights: Path) -> Iterator[Opened]:
    with open_panel(desktop, tiny_weights, sys.executable) as panel:
        yield panel


@pytest.fixture
def slow(desktop: Desktop, slow_weights: Path, box_spine: Spine) -> Iterator[Opened]:
    """A run that has finished its first vertebra and has others to do."""
    with open_panel(desktop, slow_weights, sys.executable) as panel:
        panel.choose(*add_boxes(box_spine))
        panel.ui.segmentButton.click()
        desktop.wait(lambda: panel.panel.review.review is not None, 60)
        assert panel.panel.running
        yield panel


def results_in_scene() -> list[Any]:
    import slicer

    from hideseekseg.scene.results import Results

    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if Results.isOne(node)]


def child(opened: Opened) -> int:
    return int(opened.panel._run._job._process.processId())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_one_click_brings_findings_to_the_scene(opened: Opened, box_spine: Spine) -> None:
    ct, segmentation = add_boxes(box_spine)
    before = everything_of(segmentation)
    opened.choose(ct, segmentation)
    assert opened.ui.levelsButton.text == "Vertebra levels: T11 to L1 (whole)"
    assert "for 3 vertebrae, a first estimate" in opened.ui.estimateLabel.text
    opened.run()
    assert opened.message.startswith("Done: 3 vertebrae")
    [node] = results_in_scene()
    assert node.GetName() == "Boxes metastases"
    assert node.GetSegmentation().GetNumberOfSegments() > 0
    scores = [float(row[2]) for row in opened.rows()]
    assert scores
    assert scores == sorted(scores, reverse=True)
    opened.panel.exit()
    assert everything_of(segmentation) == before, "the user's own segmentation was changed"
    opened.panel.enter()
    assert opened.ui.segmentButton.text == "Segment metastases"
    assert not opened.ui.progressBar.visible
    assert "first estimate" not in opened.ui.estimateLabel.text, (
        "nothing was learnt for the next time"
    )
    opened.key("H")
    assert opened.ui.healthyButton.checked, opened.message


@needs_proc
def test_process_stands_by_for_a_first_run_while_the_panel_is_shown(
    desktop: Desktop, tiny_weights: Path, box_spine: Spine
) -> None:
    from HideSeekSegLib.qt_process import QtProcess

    stand_by = partial(QtProcess.standBy, sys.executable)
    with open_panel(desktop, tiny_weights, sys.executable, stand_by=stand_by) as panel:
        desktop.wait(lambda: not panel.panel._torch.looking, 60)
        assert not standing_by(), "nothing is chosen yet"
        panel.choose(*add_boxes(box_spine))
        desktop.wait(standing_by, 20)
        panel.panel.exit()
        desktop.wait(lambda: not standing_by(), 20)
        panel.panel.enter()
        desktop.wait(standing_by, 20)
        [ready] = standing_by()
        panel.ui.segmentButton.click()
        assert child(panel) == ready
        panel.wait_for_end()
        assert panel.message.startswith("Done: 3 vertebrae")
        desktop.settle()
        assert not standing_by(), "a review is open: the next run is not near"


def test_far_away_folder_and_moved_segmentation_that_is_removed_meanwhile(
    opened: Opened, box_spine: Spine, tmp_path: Path
) -> None:
    import slicer

    folder = tmp_path / ("Läufe 脊椎 " + "lang " * 20) / ("x" * 60)
    folder.mkdir(parents=True)
    slicer.app.temporaryPath, before = str(folder), slicer.app.temporaryPath
    try:
        ct, segmentation = add_boxes(box_spine)
        moved = add_transform(np.array([[1.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        segmentation.SetAndObserveTransformNodeID(moved.GetID())
        opened.choose(ct, segmentation)
        opened.ui.segmentButton.click()
        slicer.mrmlScene.RemoveNode(segmentation)
        assert "the run goes on with its copy" in opened.message
        opened.wait_for_end()
        assert opened.message.startswith("Done: 3 vertebrae")
        assert not list(folder.glob("hideseekseg-*")), "files of the run were left behind"
    finally:
        slicer.app.temporaryPath = before


@posix
def test_cancel_keeps_what_is_finished(slow: Opened) -> None:
    pid = child(slow)
    assert slow.ui.segmentButton.text == "Cancel"
    assert "left" in slow.ui.progressBar.format
    assert not slow.panel.segment(), "a second run was started"
    assert "A run is going on" in slow.message
    slow.ui.segmentButton.click()
    assert not slow.ui.segmentButton.enabled
    slow.wait_for_end(20)
    assert slow.message == "Stopped. Kept: T11."
    assert not is_alive(pid)
    assert slow.ui.segmentButton.text == "Segment metastases"
    assert slow.ui.segmentButton.enabled
    assert slow.ui.quietLabel.text.count("Stopped before: ") == 1
    assert len(results_in_scene()) == 1
    slow.ui.thresholdSlider.value = 0.0
    assert slow.rows()


@posix
def test_closing_the_scene_ends_the_run(slow: Opened) -> None:
    import slicer

    pid, folder = child(slow), slow.panel._run._folder
    slicer.mrmlScene.Clear(False)
    slow.desktop.wait(lambda: not is_alive(pid), 10)
    assert not slow.panel.running
    assert slow.message == "The scene was closed: the run was stopped."
    assert not slow.ui.reviewButton.visible
    assert not folder.exists()
    slow.desktop.settle()
    assert not results_in_scene()
    assert slow.ui.estimateLabel.text.startswith("Choose a CT")


def test_removing_the_ct_stops_the_run_and_keeps_results(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    import slicer

    with run_scripted(desktop, box_spine, one_and_waits(box_spine, tmp_path)) as opened:
        desktop.wait(lambda: opened.rows(), 20)
        slicer.mrmlScene.RemoveNode(opened.ui.ctSelector.currentNode())
        opened.wait_for_end(20)
        assert "“Boxes” was removed from the scene: the run was stopped. Kept: T10." in (
            opened.message
        )
        assert len(results_in_scene()) == 1
        assert opened.rows()
        opened.key("A")
        assert opened.rows()[0][5] == "✓ accepted"


@posix
def test_a_child_that_is_killed(slow: Opened) -> None:
    os.kill(child(slow), signal.SIGKILL)
    slow.wait_for_end(20)
    assert slow.message.startswith("The computation crashed. Kept: T11.")
    assert slow.ui.segmentButton.enabled


def scripted(folder: Path, lines: str) -> str:
    """A program that is started instead of Python and runs these lines."""
    if os.name == "nt":
        pytest.skip("needs a script as program")
    script, program = folder / "child.py", folder / "child"
    script.write_text("import signal, sys, time\n" + lines, "utf-8")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o755)
    return str(program)


@contextmanager
def run_scripted(desktop: Desktop, spine: Spine, program: str) -> Iterator[Opened]:
    with open_panel(desktop) as opened:
        opened.panel._makeJob.keywords["program"] = program
        opened.choose(*add_boxes(spine))
        opened.ui.segmentButton.click()
        yield opened


def test_last_lines_of_a_crash_are_shown(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    program = scripted(tmp_path, "print('out of luck', file=sys.stderr); sys.exit(3)")
    with run_scripted(desktop, box_spine, program) as opened:
        opened.wait_for_end(20)
        assert opened.message.startswith("The computation ended with status 3. No vertebra was")
        assert opened.message.endswith("out of luck")


def test_a_failure_names_the_scenes_own_node(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    lines = (
        "words = sys.argv; file = words[words.index('segment') + 1]\n"
        f"print({to_line(Failed('is not a CT', 'FILE'))!r}.replace('FILE', file)); sys.exit(2)"
    )
    with run_scripted(desktop, box_spine, scripted(tmp_path, lines)) as opened:
        opened.wait_for_end(20)
        assert opened.message == "Boxes: is not a CT."


def finished_t10(spine: Spine, folder: Path) -> VertebraDone:
    """A vertebra with one finding, in its file."""
    grid = spine[0].grid
    x, y, z = (float(v) for v in grid.lps((22, 20, 32)))
    lesion = make_candidate("T10-1", "blastic", 0.9, ball(grid, (x, y, z), 6.0), grid)
    file = folder / "T10.npz"
    write_vertebra(file, VertebraFinding("T10", Status.FINDINGS, candidates=(lesion,)), None)
    return VertebraDone("T10", {}, str(file))


def one_and_waits(spine: Spine, folder: Path) -> str:
    """A child that has finished T10, and stops when it is asked to."""
    done, cancelled = finished_t10(spine, folder), Cancelled(("T10",), (), 1.0)
    lines = (
        "def stop(*_):\n"
        f"    print({to_line(cancelled)!r}, flush=True); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        f"print({to_line(STARTED)!r}); print({to_line(done)!r}, flush=True)\ntime.sleep(60)"
    )
    return scripted(folder, lines)


def test_a_vertebra_that_is_finished_after_cancel_is_kept(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    done, cancelled = finished_t10(box_spine, tmp_path), Cancelled(("T10",), (), 1.0)
    lines = (
        f"print({to_line(STARTED)!r}, flush=True)\n"
        "def stop(*_):\n"
        f"    print({to_line(done)!r}); print({to_line(cancelled)!r}, flush=True); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop)\ntime.sleep(60)"
    )
    with run_scripted(desktop, box_spine, scripted(tmp_path, lines)) as opened:
        desktop.wait(lambda: opened.ui.deviceLabel.text == "Runs on cpu: a test's.", 20)
        opened.ui.segmentButton.click()
        opened.wait_for_end(20)
        assert opened.message == "Stopped. Kept: T10."
        assert [row[:3] for row in opened.rows()] == [["T10", "blastic", "0.90"]]
        assert "Stopped before: T11" in opened.ui.quietLabel.text


def found_in(level: str, spine: Spine, k: int) -> VertebraFinding:
    """A vertebra with one finding about this slice."""
    grid = spine[0].grid
    x, y, z = (float(v) for v in grid.lps((22, 20, k)))
    lesion = make_candidate(f"{level}-1", "blastic", 0.9, ball(grid, (x, y, z), 6.0), grid)
    return VertebraFinding(level, Status.FINDINGS, candidates=(lesion,))


def two_in_turn(spine: Spine, folder: Path) -> str:
    """A child that finishes T10, T11 once the file "go" is there, and ends once that has gone."""
    done = []
    for level, k in (("T10", 32), ("T11", 50)):
        file = folder / f"{level}.npz"
        write_vertebra(file, found_in(level, spine, k), None)
        done.append(to_line(VertebraDone(level, {}, str(file))))
    go, end = str(folder / "go"), to_line(Finished((), 1.0))
    lines = (
        "import os\n"
        f"print({to_line(STARTED)!r}); print({done[0]!r}, flush=True)\n"
        f"while not os.path.exists({go!r}): time.sleep(0.02)\n"
        f"print({done[1]!r}, flush=True)\n"
        f"while os.path.exists({go!r}): time.sleep(0.02)\n"
        f"print({end!r}, flush=True)"
    )
    return scripted(folder, lines)


def stored() -> dict[str, str]:
    """Candidates of the first results with their verdicts, as the scene would be saved now."""
    from hideseekseg.scene.review_storage import restore

    review = restore(results_in_scene()[0])
    return {item.id: item.verdict for item in review.items} if review is not None else {}


def test_a_scene_that_is_saved_in_mid_run_has_all_that_is_finished(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    """Also where the reader says nothing, looks at other results, and comes back."""
    from hideseekseg.ui import autosave

    with run_scripted(desktop, box_spine, two_in_turn(box_spine, tmp_path)) as opened:
        go, review = tmp_path / "go", opened.panel.review
        desktop.wait(lambda: len(opened.rows()) == 1, 20)
        older = (found_in("L1", box_spine, 14),)
        add_review(older, box_spine[0].grid, "Older", ct=opened.ui.ctSelector.currentNode())
        review.choose_results(results_in_scene()[1].GetID())
        assert [row[0] for row in opened.rows()] == ["L1"]
        review.choose_results(results_in_scene()[0].GetID())
        opened.key("A")
        opened.rest()
        review.choose_results(results_in_scene()[1].GetID())
        go.touch()
        desktop.wait(lambda: len(opened.panel._run.done) == 2, 20)
        assert [row[0] for row in opened.rows()] == ["L1"]
        assert stored() == {"T10-1": "accepted", "T11-1": "unreviewed"}
        [copy] = [x for x in autosave.place().iterdir() if len(list(x.glob("run/*"))) == 2]
        assert {x.id: x.verdict for x in autosave.read(copy).review.items} == stored()
        review.choose_results(results_in_scene()[0].GetID())
        assert [row[5] for row in opened.rows()] == ["✓ accepted", "to review"]
        review.choose_results(results_in_scene()[1].GetID())
        go.unlink()
        opened.wait_for_end(20)
        assert stored() == {"T10-1": "accepted", "T11-1": "unreviewed"}
        review.choose_results(results_in_scene()[0].GetID())
        assert [row[5] for row in opened.rows()] == ["✓ accepted", "to review"]


def test_findings_of_a_run_are_stored_without_a_word_of_the_reader(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    with run_scripted(desktop, box_spine, two_in_turn(box_spine, tmp_path)) as opened:
        (tmp_path / "go").touch()
        desktop.wait(lambda: len(opened.rows()) == 2, 20)
        assert stored() == {"T10-1": "unreviewed", "T11-1": "unreviewed"}


def run_t10(folder: Path, spine: Spine, name: str, found: VertebraFinding) -> str:
    """A child that finishes T10 with these candidates, and nothing else."""
    file = folder / f"{name}.npz"
    write_vertebra(file, found, None)
    done, end = VertebraDone("T10", {}, str(file)), Finished((), 1.0)
    started = replace(STARTED, levels=("T10",))
    events = "\n".join(f"print({to_line(x)!r}, flush=True)" for x in (started, done, end))
    where = folder / name
    where.mkdir()
    return scripted(where, events)


def test_one_vertebra_is_run_again_and_verdicts_that_still_apply_stay(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    """By type and place, whatever the candidates are called now."""
    import slicer.util

    grid = box_spine[0].grid
    at = [tuple(float(v) for v in grid.lps((22, y, 32))) for y in (12, 20, 28)]

    def lesion(name: str, kind: LesionType, score: float, place: int) -> Candidate:
        return make_candidate(name, kind, score, ball(grid, at[place], 3.0), grid)  # type: ignore[arg-type]

    before = VertebraFinding(
        "T10",
        Status.FINDINGS,
        candidates=(
            lesion("T10-blastic-1", "blastic", 0.9, 0),
            lesion("T10-lytic-1", "lytic", 0.8, 1),
        ),
    )
    after = VertebraFinding(
        "T10",
        Status.FINDINGS,
        candidates=(
            lesion("T10-lytic-1", "lytic", 0.95, 2),
            lesion("T10-lytic-2", "lytic", 0.7, 1),
            lesion("T10-blastic-1", "blastic", 0.6, 0),
        ),
    )
    with run_scripted(desktop, box_spine, run_t10(tmp_path, box_spine, "first", before)) as opened:
        opened.wait_for_end(20)
        assert opened.ui.inputsButton.collapsed, "room for the review"
        opened.key("A")
        opened.ui.reasonButton.menu().actions()[1].trigger()
        assert [r[5] for r in opened.rows()] == ["✓ accepted", "✗ rejected (haemangioma)"]
        (node,) = results_in_scene()
        opened.panel.review.choose_vertebra("T10")
        opened.panel._makeJob.keywords["program"] = run_t10(tmp_path, box_spine, "again", after)
        opened.ui.rerunButton.click()
        opened.wait_for_end(20)
        assert results_in_scene() == [node], "it goes into the results that are open"
        assert [[r[1], r[2], r[5]] for r in opened.rows()] == [
            ["lytic", "0.95", "to review"],
            ["lytic", "0.70", "✗ rejected (haemangioma)"],
            ["blastic", "0.60", "✓ accepted"],
        ]
        segments = list(node.GetSegmentation().GetSegmentIDs())
        assert segments == ["T10-lytic-1", "T10-lytic-2", "T10-blastic-1"]
        # A whole run makes results of its own, and takes the verdicts along.
        drawn = opened.panel.review.add_missed("T10", "lytic")
        mask = ball(grid, at[1], 2.0)  # type: ignore[arg-type]
        voxels = np.zeros(grid.shape, np.uint8)
        mask.paint(voxels)
        ct = opened.ui.ctSelector.currentNode()
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, drawn, ct)
        opened.panel._makeJob.keywords["program"] = run_t10(tmp_path, box_spine, "whole", after)
        opened.ui.segmentButton.click()
        opened.wait_for_end(20)
        assert len(results_in_scene()) == 2
        assert [r[5] for r in opened.rows()] == [
            "to review",
            "✗ rejected (haemangioma)",
            "✓ accepted",
            "✓ added",
        ]
        assert float(opened.rows()[-1][4]) == pytest.approx(
            mask.array.sum() * grid.voxel_mm3 / 1000, abs=0.006
        )
        assert opened.ui.resultsSelector.isVisibleTo(opened.widget)


def test_corrected_outlines_stay_with_their_findings(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    """Through a run of the vertebra and of all, under other names; so does one that was erased."""
    grid = box_spine[0].grid
    at = [tuple(float(v) for v in grid.lps((22, y, 32))) for y in (12, 20, 28)]

    def finding(*numbers: int) -> VertebraFinding:
        candidates = (
            make_candidate(
                *(f"T10-lytic-{number}", "lytic", 0.9 - 0.1 * n),
                *(ball(grid, at[n], 3.0), grid),  # type: ignore[arg-type]
            )
            for n, number in enumerate(numbers)
        )
        return VertebraFinding("T10", Status.FINDINGS, candidates=tuple(candidates))

    def voxels(review: Any) -> list[int]:
        """From the highest score on; 0 for an outline that was erased."""
        patches, items = review.results.patches(), review.review.items
        return [int(patches[x.id].array.sum()) if x.id in patches else 0 for x in items]

    corrected, empty = ball(grid, at[0], 2.0), Patch(np.zeros((1, 1, 1), bool), (0, 0, 0))  # type: ignore[arg-type]
    changed_back = ball(grid, at[2], 3.0)  # type: ignore[arg-type]
    first = run_t10(tmp_path, box_spine, "first", finding(1, 2, 3))
    again = run_t10(tmp_path, box_spine, "again", finding(3, 1, 2))
    with run_scripted(desktop, box_spine, first) as opened:
        opened.wait_for_end(20)
        review = opened.panel.review
        whole = voxels(review)
        opened.key("A")
        for number, patch in ((1, corrected), (2, empty), (3, corrected), (3, changed_back)):
            review.results.draw(f"T10-lytic-{number}", patch)
            review.take_over_outlines()
        wanted = [int(corrected.array.sum()), 0, whole[2]]
        assert voxels(review) == wanted != whole
        opened.panel._makeJob.keywords["program"] = again
        for button in (opened.ui.rerunButton, opened.ui.segmentButton):
            review.choose_vertebra("T10")
            button.click()
            opened.wait_for_end(20)
            names = [item.id for item in review.review.items]
            assert names == ["T10-lytic-3", "T10-lytic-1", "T10-lytic-2"]
            assert voxels(review) == wanted
            assert opened.rows()[0][5] == "✓ accepted"
            sizes = [item.volume_mm3 for item in review.review.items]
            assert sizes == pytest.approx([n * grid.voxel_mm3 for n in wanted])
            kept = "Outlines that you had corrected were kept: T10 lytic 1, T10 lytic 2."
            assert kept in opened.ui.quietLabel.text
        assert len(results_in_scene()) == 2
        # The scene remembers them: one that is opened anew takes them along as well.
        results = Results.of(review.results.node)
        outlines = results.corrected(["T10"])
        assert outlines.keys() == {"T10-lytic-3", "T10-lytic-1"}
        assert outlines["T10-lytic-1"] is None


@posix
def test_runs_that_are_stopped_lose_no_verdict(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    """Of vertebrae that were not reached, nor an outline, nor a lesion that was not drawn yet."""
    with run_scripted(desktop, box_spine, two_in_turn(box_spine, tmp_path)) as opened:
        desktop.wait(lambda: len(opened.rows()) == 1, 20)
        (tmp_path / "go").touch()
        desktop.wait(lambda: len(opened.rows()) == 2, 20)
        (tmp_path / "go").unlink()
        opened.wait_for_end(20)
        review = opened.panel.review
        review.choose("T11-1")
        review.comment("soft tissue")
        opened.key("X")
        outline = Patch(np.ones((2, 3, 4), bool), review.results.patches()["T11-1"].start)
        review.results.draw("T11-1", outline)
        review.take_over_outlines()
        review.choose("T10-1")
        opened.key("A")
        opened.panel.exit()
        added = review.add_missed("T11", "lytic")
        review.comment("at the edge", added)
        opened.panel.enter()
        opened.rest()
        for _ in range(2):  # the second one begins from a review that was stopped itself
            opened.ui.segmentButton.click()
            desktop.wait(lambda: [r[0] for r in opened.rows()] == ["T10", "T11"], 20)
            opened.ui.segmentButton.click()
            opened.wait_for_end(20)
            assert opened.message.startswith("Stopped. Kept: T10.")
            said = {x.id: (x.verdict, x.comment) for x in review.review.items}
            assert said == {"T10-1": ("accepted", ""), added: ("accepted", "at the edge")}
            assert opened.ui.summaryLabel.text.endswith("verdicts kept for T11")
        (tmp_path / "go").touch()
        opened.ui.segmentButton.click()
        desktop.wait(lambda: len(opened.rows()) == 3, 20)
        (tmp_path / "go").unlink()
        opened.wait_for_end(20)
        said = {x.id: (x.verdict, x.comment) for x in review.review.items}
        assert said["T11-1"] == ("rejected", "soft tissue")
        assert said["T10-1"] == ("accepted", "") and said[added] == ("accepted", "at the edge")
        assert "kept for" not in opened.ui.summaryLabel.text
        results = review.results
        assert results.node.GetSegmentation().GetSegment(added) is not None, "it can be drawn"
        assert results.patches()["T11-1"].array.shape == outline.array.shape


OUTDATED = "out of date: its level was changed after the run"


def correct_levels(opened: Opened, levels: dict[str, str]) -> None:
    """Choose levels in the table, by what the segments are named."""
    table = opened.ui.levelsTable
    for row in range(table.rowCount):
        wanted = levels.get(table.item(row, 0).text().removeprefix("vertebrae_"))
        if wanted:
            box = table.cellWidget(row, 1)
            box.setCurrentIndex(box.findText(wanted))
    opened.rest()


def told_of(review: Any) -> dict[str, tuple[str, str, str]]:
    """Verdict, comment and level of what was judged, by type and place."""
    return {
        f"{item.type} {[round(v) for v in item.centroid_lps]}": (
            *(item.verdict, item.comment),
            item.level,
        )
        for item in review.items
        if item.verdict != "unreviewed" or item.comment
    }


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize("how", ["this vertebra", "all"])
def test_what_was_said_follows_its_vertebra_to_another_level(
    opened: Opened, box_spine: Spine, tmp_path: Path, how: str
) -> None:
    """Until the next run all of it is flagged; after it no body is in two levels."""
    opened.choose(*add_boxes(box_spine))
    opened.run()
    control = opened.panel.review
    control.set_threshold(0.0)
    first, second = [x for x in control.review.items if x.level == "T12"][:2]
    control.choose(first.id)
    control.judge("accepted")
    control.comment("edge", second.id)
    control.choose(second.id)
    control.judge("rejected")
    drawn = control.add_missed("T12", "lytic")
    patch = Patch(np.ones((3, 4, 5), bool), (30, 20, 20))
    control.results.draw(drawn, patch)
    corner = Patch(np.ones((2, 2, 2), bool), control.results.patches([first.id])[first.id].start)
    control.results.draw(first.id, corner)
    control.take_over_outlines()
    control.add_missed("T12", "blastic")  # nothing is drawn of it yet
    opened.key("X")
    before = told_of(control.review)
    assert len(before) == 4 and {level for *_, level in before.values()} == {"T12"}
    bodies = {level: said.body_mm3 for level, said in control.review.vertebrae.items()}

    correct_levels(opened, {"L1": "L2", "T12": "L1", "T11": "T12"})
    assert "findings of T11, T12, L1 are out of date" in opened.message
    assert f"⚠ T11, T12, L1: {OUTDATED}" in opened.ui.quietLabel.text
    opened.panel.handover.export(tmp_path)
    rows = read_csv(tmp_path / "accepted.csv")
    assert {row["level"] for row in rows} == {"T12"}
    assert all(OUTDATED in row["flags"] for row in rows)

    if how == "all":
        opened.run()
    else:
        control.choose_vertebra("L1")
        opened.ui.rerunButton.click()
        opened.wait_for_end()
    assert opened.message.startswith("Done: 3 vertebrae"), opened.message
    review = control.review
    assert list(review.vertebrae) == ["T12", "L1", "L2"]
    assert OUTDATED not in opened.ui.quietLabel.text
    followed = {key: (*said, "L1") for key, (*said, _) in before.items()}
    assert {key: said for key, said in told_of(review).items() if key in followed} == followed
    [now] = [x for x in review.items if x.missed and x.volume_mm3 > 0]
    assert now.name == "L1 lytic added 1"
    assert (control.results.patches([now.id])[now.id].array.sum()) == patch.array.sum()
    [now] = [x for x in review.items if x.verdict == "accepted" and not x.missed]
    assert control.results.patches([now.id])[now.id].start == corner.start
    assert now.volume_mm3 == pytest.approx(8 * control.results.grid.voxel_mm3)
    ids = set(control.results.node.GetSegmentation().GetSegmentIDs())
    assert ids == {item.id for item in review.items}
    places = [item.box_lps for item in review.items if not item.missed]
    assert len(places) == len(set(places)), "a body is in two levels"
    after = {level: said.body_mm3 for level, said in review.vertebrae.items()}
    renamed = {"T11": "T12", "T12": "L1", "L1": "L2"}
    assert after == pytest.approx({renamed[level]: size for level, size in bodies.items()})
    opened.panel.handover.export(tmp_path)
    rows = read_csv(tmp_path / "accepted.csv")
    assert {row["level"] for row in rows} == {"L1"}
    assert all(OUTDATED not in row["flags"] for row in rows)


def test_what_cannot_follow_its_vertebra_is_said(opened: Opened, box_spine: Spine) -> None:
    opened.choose(*add_boxes(box_spine))
    opened.run()
    control = opened.panel.review
    control.set_threshold(0.0)
    [first, *_] = [x for x in control.review.items if x.level == "L1"]
    control.choose(first.id)
    control.judge("accepted")
    correct_levels(opened, {"L1": "none", "T12": "L1"})
    control.choose_vertebra("T12")
    opened.ui.rerunButton.click()
    opened.wait_for_end()
    assert list(control.review.vertebrae) == ["T11", "L1"]
    lost = f"Levels were corrected, and not taken along: {first.name}."
    assert lost in opened.ui.quietLabel.text
    assert [x.id for x in control.review.items if x.verdict != "unreviewed"] == []


def test_one_of_two_vertebrae_that_changed_places_is_not_taken_alone(
    opened: Opened, box_spine: Spine
) -> None:
    """Else the body of one level would be in another one as well."""
    opened.choose(*add_boxes(box_spine))
    opened.run()
    control = opened.panel.review
    before = control.review.items
    correct_levels(opened, {"L1": "none", "T12": "L1", "T11": "T12"})
    assert opened.panel.segment(("L1",))
    opened.wait_for_end()
    text = "No vertebra was finished. Not kept without the other levels that were corrected: L1."
    assert opened.message == text
    assert control.review.items == before and OUTDATED in opened.ui.quietLabel.text


def test_levels_that_were_corrected_back_are_out_of_date_no_more(
    opened: Opened, box_spine: Spine
) -> None:
    opened.choose(*add_boxes(box_spine))
    opened.run()
    correct_levels(opened, {"L1": "L2"})
    assert OUTDATED in opened.ui.quietLabel.text
    opened.panel.review.choose_vertebra("L1")
    assert "out of date" in opened.ui.detailLabel.text
    correct_levels(opened, {"L1": "L1"})
    assert OUTDATED not in opened.ui.quietLabel.text
    assert "out of date" not in opened.message


def test_levels_of_a_saved_review_are_those_of_its_run(
    opened: Opened, desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    """A segment's name may say another one: its findings are not out of date for that."""
    import slicer

    opened.choose(*add_boxes(box_spine))
    correct_levels(opened, {"L1": "L2"})
    opened.run()
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrb"))
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), True)
    results = opened.panel.review.results
    opened.choose(results.ctNode, results.segmentationNode)
    opened.rest()
    assert opened.panel.levels.levels() == ("T11", "T12", "L2")
    assert OUTDATED not in opened.ui.quietLabel.text and "out of date" not in opened.message
    correct_levels(opened, {"L1": "L1"})
    assert f"⚠ L2: {OUTDATED}" in opened.ui.quietLabel.text


def test_a_level_that_is_not_segmented_is_shown(opened: Opened, box_spine: Spine) -> None:
    """T12 has no segment between T11 and L1."""
    ct, segmentation = add_boxes(box_spine)
    segments = segmentation.GetSegmentation()
    (gone,) = [i for i in segments.GetSegmentIDs() if "T12" in segments.GetSegment(i).GetName()]
    segments.RemoveSegment(gone)
    opened.choose(ct, segmentation)
    opened.ui.segmentButton.click()
    opened.wait_for_end(120)
    assert "Not analysed (not segmented): T12" in opened.ui.quietLabel.text
    assert opened.panel.review.review.vertebrae["T12"].reason == "not segmented"


def test_a_program_that_cannot_be_started(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    with run_scripted(desktop, box_spine, str(tmp_path / "nothing")) as opened:
        opened.wait_for_end(20)
        assert "cannot be started" in opened.message
        assert opened.ui.segmentButton.text == "Segment metastases"


def test_temporary_folder_that_cannot_be_written(
    desktop: Desktop, box_spine: Spine, tmp_path: Path
) -> None:
    import slicer

    blocked = tmp_path / "file"
    blocked.write_text("")
    slicer.app.temporaryPath, before = str(blocked), slicer.app.temporaryPath
    try:
        with run_scripted(desktop, box_spine, "") as opened:
            assert not opened.panel.running
            assert opened.message.startswith(f"{blocked}: the temporary folder cannot be written")
            assert "Application Settings" in opened.message
            assert opened.ui.segmentButton.enabled
    finally:
        slicer.app.temporaryPath = before


def test_slicer_without_its_python(
    desktop: Desktop, box_spine: Spine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with run_scripted(desktop, box_spine, "") as opened:
        assert not opened.panel.running
        assert "PythonSlicer: was not found; reinstall Slicer" in opened.message


def test_what_cannot_be_analysed_is_said_before_the_start(
    desktop: Desktop, box_spine: Spine
) -> None:
    with open_panel(desktop) as opened:
        ui = opened.ui
        assert not ui.segmentButton.enabled
        assert "Choose a CT" in ui.estimateLabel.text
        ct, segmentation = add_boxes(box_spine)
        opened.choose(ct, segmentation)
        assert ui.segmentButton.enabled
        opened.choose(mark_as_mr(add_boxes(box_spine, "MR")[0]), segmentation)
        assert not ui.segmentButton.enabled
        assert "“MR” is MR" in ui.estimateLabel.text.replace('"', "“", 1).replace('"', "”")
        far = np.array(box_spine[1].grid.ijk_to_lps)
        far[:3, 3] += 5000
        elsewhere = add_segmentation({"vertebrae_L1": box_spine[1].array == 31}, far, "Elsewhere")
        opened.choose(ct, elsewhere)
        assert "does not overlap" in ui.estimateLabel.text


def mark_as_mr(node: Any) -> Any:
    import slicer

    quantity = slicer.vtkCodedEntry()
    quantity.SetValueSchemeMeaning("110852", "DCM", "MR signal intensity")
    node.SetVoxelValueQuantity(quantity)
    return node


def test_bodies_of_another_segmentation_are_used(desktop: Desktop, box_spine: Spine) -> None:
    from hideseekseg.imaging.reading import read_segmentation

    labels = box_spine[1]
    node = add_segmentation({"vertebrae_body": labels.array == 31}, labels.grid.ijk_to_lps, "Pith")
    with open_panel(desktop) as opened:
        opened.choose(*add_boxes(box_spine))
        opened.ui.bodiesSelector.setCurrentNode(add_boxes(box_spine, "Others")[1])
        assert "understood as a vertebral body" in opened.ui.estimateLabel.text
        assert not opened.ui.segmentButton.enabled
        opened.ui.bodiesSelector.setCurrentNode(node)
        opened.panel._makeJob = SilentJob
        opened.ui.segmentButton.click()
        words = opened.panel._run._job.words
        written = read_segmentation(words[words.index("--bodies") + 1])
        marked = sum(int((layer.array > 0).sum()) for layer in written.layers)
        assert marked == (labels.array == 31).sum()


class SilentJob:
    """A child that never says anything."""

    def __init__(self, words: list[str], *_: Any) -> None:
        self.words = words

    def start(self) -> None: ...
    def kill(self) -> None: ...


def test_removing_the_results_stops_the_run_and_they_can_be_put_back(slow: Opened) -> None:
    import slicer

    slicer.mrmlScene.RemoveNode(results_in_scene()[0])
    slow.wait_for_end(30)
    assert "can be put back. Kept: T11" in slow.message
    assert slow.ui.putBackButton.visible
    slow.ui.putBackButton.click()
    [node] = results_in_scene()
    assert node.GetName() == "Boxes metastases"
    slow.ui.thresholdSlider.value = 0.0
    assert {row[0] for row in slow.rows()} >= {"T11"}
    slow.key("H")
    assert slow.ui.healthyButton.checked, slow.message


def test_results_are_no_vertebrae(desktop: Desktop) -> None:
    grid = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
    ct = add_review(make_result(grid).vertebrae, grid)
    with open_panel(desktop) as opened:
        opened.choose(ct, results_in_scene()[0])
        assert "contains results" in opened.ui.estimateLabel.text
        assert not opened.ui.segmentButton.enabled


def test_levels_that_nobody_knows_are_set_by_hand_or_by_a_convention(
    desktop: Desktop, box_spine: Spine
) -> None:
    ct, labels = box_spine
    masks = {f"Segment_{value}": labels.array == value for value in (33, 32, 31)}
    node = add_segmentation(masks, labels.grid.ijk_to_lps, "Nameless")
    for name in masks:
        node.GetSegmentation().GetSegment(name).SetLabelValue(int(name[-2:]))
    with open_panel(desktop) as opened:
        ui = opened.ui
        opened.choose(add_ct(ct.array, ct.grid.ijk_to_lps), node)
        assert not ui.segmentButton.enabled
        assert "set the levels" in ui.estimateLabel.text
        assert "please set them" in ui.levelsButton.text
        ui.conventionSelector.setCurrentIndex(1)
        assert ui.levelsButton.text == "Vertebra levels: T11 to L1 (whole)"
        assert ui.segmentButton.enabled
        level = ui.levelsTable.cellWidget(0, 1)
        level.setCurrentIndex(level.findText("L3"))
        ui.levelsTable.cellWidget(0, 2).setCurrentIndex(1)
        assert "L3" in opened.panel.levels.levels()
        assert "L3 body" in opened.panel.levels.corrections().values()
