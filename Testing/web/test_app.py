"""A new user's walk in the browser: the example, one click, verdicts by key, files on disk."""

from __future__ import annotations

import csv
import json
import os
import subprocess

import pytest

from helpers import app
from helpers.app import PATIENCE, open_tab
from helpers.app_walk import Walk, take
from helpers.newer_slicer import newer_slicer
from hideseekseg.model.weights import BUNDLE

pytestmark = pytest.mark.slow  # the walk takes half a minute


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    app.need_all()
    return take(tmp_path_factory.mktemp("walk"))


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
    assert walk.seen["quiet"].startswith(("Unremarkable: ", "Suspicious, nothing outlined"))
    assert "2 accepted" in walk.seen["final summary"]


def test_vertebrae_burden_and_order_are_shown(walk: Walk) -> None:
    levels = [text.split()[0] for text in walk.seen["vertebrae"]]
    assert len(levels) == len(set(levels)) >= 3
    t12 = next(text for text in walk.seen["vertebrae"] if text.startswith("T12"))
    assert "outlined" in t12
    assert walk.seen["burden"][-1].split()[:2] == ["all", "all"]
    assert sorted(walk.seen["from below"]) == sorted(walk.seen["rows"])
    assert walk.seen["from below"][0][0] == "L1"


def test_review_begins_at_the_threshold_of_the_weights(walk: Walk) -> None:
    profile = json.loads((BUNDLE / "profile.json").read_text("utf-8"))
    assert walk.seen["threshold"] == profile["decision"]["threshold"]


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


def test_flicking_shows_the_edit_and_the_difference_and_goes_back(walk: Walk) -> None:
    assert walk.seen["changed in healthy"] > 300
    assert walk.seen["changed in difference"] > 3000
    assert walk.seen["changed in ct"] < 100


def test_crosshair_links_the_views(walk: Walk) -> None:
    before, after = walk.seen["places"]
    assert after["axial"] != before["axial"] and after["coronal"] != before["coronal"]
    assert after["sagittal"] == before["sagittal"]


def test_crosshair_follows_a_drag(walk: Walk) -> None:
    before, after = walk.seen["dragged"]
    assert after["axial"] != before["axial"] and after["coronal"] != before["coronal"]


@pytest.mark.parametrize("button", ["right", "middle"])
def test_right_button_zooms_and_middle_one_moves(walk: Walk, button: str) -> None:
    assert walk.seen[f"changed by the {button} button"] > 3000


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
    from hideseekseg.imaging.reading import read_segmentation

    out = walk.out
    names = ["accepted.csv", "accepted.seg.nrrd", "burden.csv", "review.json", "review.mrb"]
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


def test_report_is_downloaded_and_names_what_was_accepted(walk: Walk) -> None:
    text = (walk.folder / "report.html").read_text("utf-8")
    assert "2 lesions (1 lytic and 1 blastic)" in text and "Reviewed by A. Reader" in text
    assert text.count("<figure>") == 2 and "soft tissue, left half" in text
    pdf = (walk.folder / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and pdf.rstrip().endswith(b"%%EOF")
    assert "this CT was not read from DICOM" in walk.seen["no DICOM"]


@pytest.mark.parametrize("version", ["5.11", "5.12"])
def test_scene_opens_in_slicer_with_everything_in_place(walk: Walk, version: str) -> None:
    """Written by the app's slicer-core 5.11, read by both: as when its user goes on in Slicer."""
    python = app.app_python() if version == "5.11" else newer_slicer()
    script = app.ROOT / "Testing" / "helpers" / "saved_scene.py"
    paths = os.pathsep.join(str(app.ROOT / name) for name in ("HideSeekSeg", "Testing"))
    done = subprocess.run(
        [python, script, walk.out / "review.mrb"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout.splitlines()[-1])
    assert held["ct"] == "Example CT" and held["contrast"] > 100
    assert held["vertebrae"] == 5
    assert held["rows"] == held["items"] >= 2
    assert sorted(held["accepted"]) == [["L1", "blastic"], ["T12", "lytic"]]
    assert held["status"] == ["completed", "completed"]
    assert min(held["voxels"]) > 0
    assert held["can undo"]


def test_saved_scene_goes_on_in_the_browser(walk: Walk) -> None:
    path = walk.out / "review.mrb"
    with app.browser() as browser, app.serve(str(path)) as served:
        tab = open_tab(browser, served.url, "#candidates tr.accepted")
        accepted = [cells for cells in tab.rows() if cells[5].startswith("✓ accepted")]
        assert {tuple(cells[:2]) for cells in accepted} == {("T12", "lytic"), ("L1", "blastic")}
        assert "2 accepted" in tab.text("#summary")
        tab.press("h")
        tab.until_state("picture", "healthy")
        tab.page.wait_for_selector("#strip img", timeout=PATIENCE)
        tab.press("u")
        tab.until("() => document.querySelectorAll('#candidates tr.accepted').length === 1")
        assert tab.complaints == []
