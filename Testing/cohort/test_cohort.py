"""A cohort: checked beforehand, run by processes that may die, gone on with, and told in tables."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from helpers.findings import make_grid, make_result
from helpers.meeting import Meeting
from helpers.permissions import as_another_user, closed, posix
from hideseekseg.anatomy.alignment import OTHER_FRAME
from hideseekseg.benchmark.cohort_evaluation import _levels
from hideseekseg.cli.cohort import _ForPeople
from hideseekseg.cli.main import main
from hideseekseg.cohort import case_run
from hideseekseg.cohort.case_run import (
    CaseRecord,
    CaseStatus,
    CohortSettings,
    cohort_tasks,
    input_states,
    inputs_of,
    read_record,
    ready_model,
    write_record,
)
from hideseekseg.cohort.manifest import REFERENCE, case_folder, discover, discovered, read_cohort
from hideseekseg.cohort.pool import (
    CaseEnded,
    CohortEvent,
    Machine,
    Plan,
    PoolLimits,
    RunControl,
    choose_plan,
    run_cohort,
    run_tasks,
)
from hideseekseg.cohort.readings import (
    Reading,
    ReadStatus,
    WorkList,
    _bones,
    cohens_kappa,
    read_findings,
    read_reading,
    readers_of,
    reading_folder,
    write_reading,
)
from hideseekseg.errors import InputError, WeightsError
from hideseekseg.files import LOCK, locked
from hideseekseg.imaging.dicom_seg import SEG
from hideseekseg.imaging.reading import read_ct
from hideseekseg.imaging.volume import Volume, to_sitk
from hideseekseg.model.profile import read_profile
from hideseekseg.output.result_folder import read_result
from hideseekseg.progress import duration
from hideseekseg.review.review import Review, Verdict
from hideseekseg.ui.child_process import tree

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")


@dataclass(frozen=True)
class Files:
    """A folder with two patients' CTs, their bodies, and weights."""

    folder: Path
    weights: Path

    def manifest(self, *lines: str, head: str = "case,ct,segmentation,labels,patient,site") -> Path:
        path = self.folder / "manifest.csv"
        path.write_text("\n".join([head, *lines]) + "\n", "utf-8")
        return path

    def words(self, out: Path, *more: str) -> list[str]:
        manifest = str(self.folder / "manifest.csv")
        options = ["--weights", str(self.weights), "--device", "cpu"]
        options += [] if "--scheduler" in more else ["--threads", "1"]
        return ["cohort", manifest, "--out", str(out), *options, *more]


@pytest.fixture
def files(box_spine: tuple[Volume, Volume], tiny_weights: Path, tmp_path: Path) -> Files:
    folder = tmp_path / "data"
    folder.mkdir()
    ct, bodies = (to_sitk(volume) for volume in box_spine)
    sitk.WriteImage(ct, str(folder / "a.nii.gz"))
    sitk.WriteImage(ct + 3, str(folder / "b.nii.gz"))
    sitk.WriteImage(bodies, str(folder / "bodies.nii.gz"))
    return Files(folder, tiny_weights)


GOOD = (
    "A,a.nii.gz,bodies.nii.gz,totalsegmentator,p1,north",
    "../b,b.nii.gz,bodies.nii.gz,totalsegmentator,p2,süd",
)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record(out: Path, name: str) -> CaseRecord:
    found = next(r for f in (out / "cases").iterdir() if (r := read_record(f)) and r.case == name)
    return found


@pytest.mark.slow
def test_cohort_goes_on_after_failures_and_changes(
    files: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (files.folder / "cut.nii.gz").write_bytes((files.folder / "a.nii.gz").read_bytes()[:3000])
    broken = "cut,cut.nii.gz,bodies.nii.gz,totalsegmentator,p3,north"
    files.manifest(GOOD[0], broken, GOOD[1])
    assert main(files.words(out, "--workers", "2")) == 1, "one case has no result"
    told = capfd.readouterr()
    assert "cut: refused: " in told.err and "is truncated" in told.err
    assert "2 cases done, 1 without a result" in told.out

    # The same bytes as `segment` writes, in a folder inside the cohort's whatever the case's name.
    alone = tmp_path / "alone"
    ct, bodies = str(files.folder / "a.nii.gz"), str(files.folder / "bodies.nii.gz")
    options = ["--weights", str(files.weights), "--labels", "totalsegmentator", "--quiet"]
    segment = ["segment", ct, bodies, "--out", str(alone), "--device", "cpu", "--threads", "1"]
    assert main([*segment, *options]) == 0
    for name in ("lesions.seg.nrrd", "candidates.csv", "overview.png"):
        assert (out / "cases" / "A" / name).read_bytes() == (alone / name).read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"out", "alone", "data"}
    folders = sorted(p.name for p in (out / "cases").iterdir())
    assert folders == ["A", case_folder("../b"), "cut"]

    cases = table(out / "cases.csv")
    assert [(row["case"], row["status"], row["site"]) for row in cases] == [
        ("A", "done", "north"),
        ("cut", "refused", "north"),
        ("../b", "done", "süd"),
    ]
    result = json.loads((alone / "candidates.json").read_text("utf-8"))
    lesions = [row for row in table(out / "lesions.csv") if row["case"] == "A"]
    everything = [c for v in result["vertebrae"] for c in v["candidates"]]
    assert sorted(float(row["score"]) for row in lesions) == sorted(c["score"] for c in everything)
    accepted = sum(row["accepted"] == "True" for row in lesions)
    assert accepted == int(cases[0]["lesions"]) > 0
    assert len(table(out / "vertebrae.csv")) == 6
    page = (out / "report.html").read_text("utf-8")
    assert "is truncated" in page and "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")

    # Nothing has changed: nothing runs. What failed is tried again when its file is another.
    times = {p: p.stat().st_mtime_ns for p in out.glob("cases/*/candidates.json")}
    assert main(files.words(out)) == 1
    assert "cut: refused" not in capfd.readouterr().err
    shutil.copy(files.folder / "b.nii.gz", files.folder / "cut.nii.gz")
    os.utime(files.folder / "a.nii.gz")  # touched, the same content
    assert main(files.words(out, "--workers", "1")) == 0
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert record(out, "cut").status.value == "done"

    # Another threshold is another result for all; so is another CT under the same name, unless
    # somebody has reviewed the result of the old one.
    image = sitk.ReadImage(str(files.folder / "a.nii.gz"))
    sitk.WriteImage(image + 7, str(files.folder / "a.nii.gz"))
    review = out / "cases" / "A" / "review.json"
    review.write_text("{}")
    other = files.words(out, "--threshold", "0.99", "--levels", "T12", "--workers", "1")
    assert main(other) == 1
    assert "another scan" in record(out, "A").reason and review.exists()
    assert [row["threshold"] for row in table(out / "cases.csv")] == ["", "0.99", "0.99"]
    review.unlink()
    assert main([*other, "--retry"]) == 0
    assert [row["threshold"] for row in table(out / "cases.csv")] == ["0.99"] * 3


@pytest.fixture(scope="module")
def finished(
    box_files: tuple[Path, Path], tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A cohort of two patients with one CT; of A the lesions are known, of B the levels."""
    folder = tmp_path_factory.mktemp("cohort")
    ct, bodies = box_files
    shutil.copy(ct, folder / "b.nii.gz")
    lines = [
        "case,ct,segmentation,labels,patient,status,lytic,blastic,affected",
        f"A,{ct},{bodies},totalsegmentator,p1,north,lytic.nii.gz,blastic.nii.gz,",
        f"B,b.nii.gz,{bodies},totalsegmentator,p2,south,,,none",
    ]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", "utf-8")
    out = folder / "out"
    words = Files(folder, tiny_weights).words(out, "--workers", "1", "--each")
    assert main(words) == 0
    return out


def say(
    out: Path, case: str, reader: str, verdicts: list[Verdict], finished: bool = True
) -> Review:
    """Write what a reader says of a case: verdicts on its candidates, the best first."""
    folder = out / "cases" / case
    found = read_findings(folder)
    review = found.review(None)
    for item, verdict in zip(review.items, verdicts):
        review.judge(item.id, verdict)
    place = reading_folder(folder, reader)
    place.mkdir(parents=True)
    reading = Reading(reader, found.digest, found.scan, finished, review)
    write_reading(place, reading, json.dumps(review.to_json()))
    return review


@pytest.mark.parametrize(
    ("pairs", "kappa"),
    [
        ("aa aa bb bb", 1.0),
        ("aa ab ba bb", 0.0),
        ("ab ba", -1.0),
        (" ".join(["yy"] * 20 + ["yn"] * 5 + ["ny"] * 10 + ["nn"] * 15), 0.4),  # a textbook's
        ("aa aa", None),
        ("", None),
    ],
)
def test_kappa_is_cohens(pairs: str, kappa: float | None) -> None:
    found = cohens_kappa([(pair[0], pair[1]) for pair in pairs.split()])
    assert found == (kappa if kappa is None else pytest.approx(kappa))


def test_a_lesion_drawn_in_a_vertebra_that_was_not_analysed_is_no_comparison() -> None:
    """Whoever of both readers drew it."""
    drawn, silent = Review(0.5), Review(0.5)
    for review in (drawn, silent):
        for vertebra in make_result(make_grid((60, 50, 60), (2.0, 2.0, 2.5))).vertebrae:
            review.add_vertebra(vertebra)
    drawn.add_missed("T12", "lytic")
    drawn.add_missed("T11", "lytic")
    both = [("none", "none"), ("metastasis", "none"), ("none", "none")]  # T10, T11, L1
    assert list(_bones(drawn, silent)) == both
    assert list(_bones(silent, drawn)) == [(b, a) for a, b in both]


def test_readers_are_kept_apart_and_compared(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    say(out, "A", "Ada", ["accepted", "accepted", "rejected", "rejected"])
    assert main(["cohort", "agreement", str(out)]) == 2
    assert "it has those of Ada" in capsys.readouterr().err
    say(out, "A", "Bo", ["accepted", "rejected", "rejected", "rejected", "accepted"])
    say(out, "B", "Ada", ["accepted"])
    say(out, "B", "Bo", ["rejected"], finished=False)
    assert main(["cohort", "agreement", str(out)]) == 0
    told = capsys.readouterr().out
    data = json.loads((out / "agreement.json").read_text("utf-8"))["agreements"]
    candidates, vertebrae = data
    assert candidates["readers"] == ["Ada", "Bo"]
    # Case B is not read to the end by Bo; the fifth candidate has no verdict of Ada's.
    assert (candidates["cases"], candidates["compared"], candidates["agreed"]) == (1, 4, 3)
    assert candidates["kappa"] == pytest.approx(0.5) and candidates["left_out"] == 1
    assert vertebrae["compared"] == 3
    assert "| Ada and Bo | candidates | 1 | 4 | 3 | 0.50 |" in told
    assert main(["cohort", "report", str(out)]) == 0
    assert "Agreement of readers" in (out / "report.html").read_text("utf-8")

    work = WorkList(out, "Bo")
    assert [work.status(case.name).value for case in work.cases] == ["read", "begun"]
    assert (work.first(), work.text("B")) == ("B", "Case 2 of 2, 1 read")
    assert (work.neighbour("A", 1), work.neighbour("B", 1)) == ("B", None)
    assert {WorkList(out, "Cy").status(name) for name in "AB"} == {ReadStatus.NEW}
    with pytest.raises(InputError, match="--reader"):
        WorkList(out, " ")
    # What another run found is not compared, and verdicts go over to it by type and place.
    case = out / "cases" / "A"
    told_json = json.loads((case / "candidates.json").read_text("utf-8"))
    told_json["vertebrae"][0]["p_malignant"] = 0.123
    (case / "candidates.json").write_text(json.dumps(told_json), "utf-8")
    kept = read_reading(reading_folder(case, "Ada"))
    assert kept is not None
    renewed = read_findings(case).review(kept)
    assert [x.verdict for x in renewed.items] == [x.verdict for x in kept.review.items]
    shutil.rmtree(reading_folder(case, "Bo"))
    say(out, "A", "Bo", ["accepted"])
    assert main(["cohort", "agreement", str(out)]) == 0
    left_out = "1 case with a review of other findings than the present ones: A (Ada)."
    assert left_out in capsys.readouterr().out
    assert main(["cohort", "report", str(out)]) == 0
    assert left_out in (out / "report.html").read_text("utf-8")


def test_reviews_of_an_earlier_run_are_compared_with_none(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also not with each other: one table is of the findings that the cases have now."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    for case in "AB":
        for reader in ("Ada", "Bo"):
            say(out, case, reader, ["accepted"] if case == "A" else ["rejected"])
    result = out / "cases" / "A" / "candidates.json"
    found = json.loads(result.read_text("utf-8"))
    found["vertebrae"][0]["p_malignant"] = 0.123
    result.write_text(json.dumps(found), "utf-8")
    assert main(["cohort", "agreement", str(out)]) == 0
    assert "findings than the present ones: A (Ada, Bo)." in capsys.readouterr().out
    for one in json.loads((out / "agreement.json").read_text("utf-8"))["agreements"]:
        assert (one["cases"], one["other_runs"]) == (1, {"A": ["Ada", "Bo"]})
        assert {first for first, _, _ in one["pairs"]} == (
            {"rejected"} if one["unit"] == "candidates" else {"none"}
        )
    # Who had read the case to its end has not read these findings.
    work = WorkList(out, "Ada")
    assert [work.status(name).value for name in "AB"] == ["begun", "read"]
    assert (work.first(), work.text("A")) == ("A", "Case 1 of 2, 1 read")
    (out / "cases" / "A" / "candidates.json").unlink()
    assert main(["cohort", "agreement", str(out)]) == 0
    assert "A (Ada, Bo)" in capsys.readouterr().out


@pytest.mark.slow
def test_browser_reads_a_cohort_case_by_case(finished: Path, tmp_path: Path) -> None:
    """The next case by one key; what is said stays in the case's folder, also after kill -9."""
    from helpers import app

    app.need_all()
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    other = say(out, "A", "Bo", ["rejected"])
    every = len(read_findings(out / "cases" / "A").review(None).items)
    said: list[Verdict] = ["unreviewed"]
    said += ["rejected"] * (every - 1)
    say(out, "A", "Ada", said, finished=False)
    words = ("--reader", "Ada", str(out))
    with app.serve(*words) as served, app.browser() as browser:
        tab = app.open_tab(browser, served.url, "#candidates tbody tr")
        assert tab.text("#cases-text") == "Case 1 of 2, 0 read"
        assert tab.page.query_selector("#segment") is None, "cases are run by the cohort"
        assert {cells[5] for cells in tab.rows()} == {"to review", "✗ rejected"}
        place = reading_folder(out / "cases" / "A", "Ada")
        tab.choose_first()
        tab.page.wait_for_selector("#strip img", timeout=app.PATIENCE)
        tab.press("a")
        tab.press("j")
        tab.until(
            "() => document.querySelector('#cases-text')?.innerText === 'Case 2 of 2, 1 read'"
        )
        tab.page.wait_for_selector("#case:not([disabled])", timeout=app.PATIENCE)
        tab.page.wait_for_selector("#candidates tbody tr", timeout=app.PATIENCE)
        assert {cells[5] for cells in tab.rows()} == {"to review"}
        # As of an impatient second press, before the second case was drawn.
        tab.page.evaluate("window.trame.trigger('do', ['case', 1, 'A'])")
        tab.choose_first()
        assert tab.page.query_selector("#message") is None, "the second case was not left"
        tab.press("x")
        second = reading_folder(out / "cases" / "B", "Ada")
        wait_for(lambda: (second / "about.json").is_file())
        tab.press("j")  # it is the last one, and not read to its end
        tab.until("() => /last case/.test(document.querySelector('#message')?.innerText)")
        tab.until_state("unsaved", False)
        shutil.rmtree(second)
        second.write_text("as a disk that is full or gone: the case is not left", "utf-8")
        tab.press("k")
        tab.press("Shift+J")
        shows = "([part]) => document.querySelector('#message')?.innerText.includes(part)"
        tab.until(shows, "exists only in this page")
        assert tab.text("#cases-text") == "Case 2 of 2, 1 read" and tab.state("unsaved")
        second.unlink()
        tab.press("x")
        tab.until_state("unsaved", False)
        tab.press("Shift+J")
        tab.press("k")  # of no case: the one is left, the other not seen yet
        tab.page.wait_for_selector("#candidates tr.accepted", timeout=app.PATIENCE)
        assert {cells[5] for cells in tab.rows()} == {"✓ accepted", "✗ rejected"}
        assert tab.complaints == []
        served.process.kill()
        served.process.wait(30)
    reading = read_reading(place)
    assert reading is not None and reading.finished
    assert reading.review.items[0].verdict == "accepted"
    begun = read_reading(second)
    assert begun is not None and not begun.finished
    given = [item.verdict for item in begun.review.items]
    assert (given.count("uncertain"), given.count("rejected")) == (1, 2)
    [kept] = [r for r in readers_of(out)["Bo"].values()]
    assert [x.verdict for x in kept.review.items] == [x.verdict for x in other.items]


def test_a_worker_that_replaces_another_has_its_number(tmp_path: Path) -> None:
    """And so its GPU: no two that live share one while another has nothing to do."""
    told: dict[str, str] = {}

    def hear(event: CohortEvent) -> None:
        if isinstance(event, CaseEnded):
            told[event.record.case] = event.record.reason

    control = RunControl(PoolLimits(workers=2), hear)
    assert run_tasks([Meeting(name, tmp_path) for name in "abc"], control).failed == 0
    assert told["c"] == told["a"] and {told["a"], told["b"]} == {"0", "1"}


@pytest.mark.parametrize("changed", ["nothing", "a sibling", "the file"])
def test_one_dicom_segmentation_is_an_input_without_its_siblings(
    tmp_path: Path, changed: str
) -> None:
    """A folder with the SEG of every case: one that comes runs no other case again."""
    from helpers.dicom import dicom, save, series

    ct = series(tmp_path / "ct", [0, 2.5, 5]) / "000.dcm"
    seg = save(dicom(SEG[0], 90, Modality="SEG"), tmp_path / "segs" / "a.dcm")
    (tmp_path / "ct.nii").write_bytes(b"any")
    head = f"case,ct,segmentation,bodies\nA,{tmp_path / 'ct.nii'},{seg},{seg}\n"
    (tmp_path / "m.csv").write_text(head + f"B,{ct},{seg},\n", "utf-8")
    a, b = read_cohort(tmp_path / "m.csv").cases
    before = [input_states(inputs_of(case), content=True) for case in (a, b)]
    if changed == "a sibling":
        shutil.copy(seg, seg.with_name("b.dcm"))
        shutil.copy(ct, ct.with_name("more.dcm"))
    elif changed == "the file":
        seg.write_bytes(seg.read_bytes() + b"\0\0")
    after = [input_states(inputs_of(case), content=True) for case in (a, b)]
    differ = [{n for n, state in old.items() if new[n] != state} for old, new in zip(before, after)]
    assert (
        differ
        == {
            "nothing": [set(), set()],
            "a sibling": [set(), {"ct"}],
            "the file": [{"segmentation", "bodies"}, {"segmentation"}],
        }[changed]
    )


def test_parquet_holds_what_the_csv_does(finished: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    for name in ("cases", "vertebrae", "lesions"):
        stored = parquet.read_table(finished / f"{name}.parquet").to_pylist()
        rows = table(finished / f"{name}.csv")
        assert len(stored) == len(rows) > 0
        for cells, row in zip(stored, rows):
            plain = {key: "" if value is None else str(value) for key, value in cells.items()}
            assert plain == row
        column = "status" if name == "lesions" else "manifest_status"
        assert {row[column] for row in rows} == {"north", "south"}


def test_evaluation_matches_lesions_as_the_benchmark_does(
    finished: Path, box_spine: tuple[Volume, Volume], capsys: pytest.CaptureFixture[str]
) -> None:
    """The truth of patient A is one lesion, around the largest lytic finding."""
    stored = read_result(finished / "cases" / "A")
    shape = box_spine[0].array.shape
    masks = {}
    for item in stored.lesions:
        masks[item.id] = np.zeros(shape, bool)
        stored.patches[item.id].paint(masks[item.id])
    lytic = {item.id: masks[item.id] for item in stored.lesions if item.type == "lytic"}
    best = max(stored.lesions, key=lambda x: (x.type == "lytic", masks[x.id].sum()))
    truth = ndimage.binary_dilation(masks[best.id], np.ones((3, 3, 3)))
    home = finished.parent
    for name, mask in (("lytic", truth), ("blastic", truth & False)):
        image = to_sitk(replace(box_spine[0], array=mask.astype(np.uint8)))
        sitk.WriteImage(image, str(home / f"{name}.nii.gz"))
    assert main(["cohort", "evaluate", str(finished)]) == 0
    data = json.loads((finished / "evaluation.json").read_text("utf-8"))
    assert (data["cases"], data["patients"], data["lesions"]) == (2, 2, 1)
    assert (data["vertebrae"], data["diseased"]) == (6, 1)
    metrics = {name: one["value"] for name, one in data["metrics"].items()}
    iou = [(m & truth).sum() / (m | truth).sum() for m in lytic.values()]
    assert max(iou) >= 0.1, "there is nothing to find"
    for least in (0.1, 0.5):
        found, false = int(max(iou) >= least), sum(x < least for x in iou)
        assert metrics[f"lytic recall (IoU >= {least})"] == found
        precision = found / (found + false)
        assert metrics[f"lytic precision (IoU >= {least})"] == pytest.approx(precision, abs=1e-4)
    assert metrics["blastic recall (IoU >= 0.1)"] is None, "there is no blastic lesion"
    own = np.any(
        [masks[x.id] for x in stored.lesions if x.id in lytic and x.level == best.level], axis=0
    )
    dice = 2 * (own & truth).sum() / (own.sum() + truth.sum())
    assert metrics["lytic Dice"] == pytest.approx(dice, abs=1e-4)

    rows = table(finished / "vertebrae.csv")
    ill = [r for r in rows if r["case"] == "A" and r["level"] == best.level]
    well = [r for r in rows if r not in ill]
    false_per = sum(int(row["lesions"]) for row in well) / len(well)
    name = "false findings per healthy vertebra"
    assert metrics[name] == pytest.approx(false_per, abs=1e-4)
    p, q = ([float(r["p_malignant"]) for r in group] for group in (ill, well))
    wins = np.mean([(x > y) + 0.5 * (x == y) for x in p for y in q])
    assert metrics["vertebra AUC"] == pytest.approx(wins, abs=1e-4)
    assert "| vertebra AUC |" in capsys.readouterr().out

    # A lesion outside of every vertebra is no miss of one, and is counted.
    truth[:3, :3, :3] = True
    image = to_sitk(replace(box_spine[0], array=truth.astype(np.uint8)))
    sitk.WriteImage(image, str(home / "lytic.nii.gz"))
    assert main(["cohort", "evaluate", str(finished)]) == 0
    assert "1 lesion that lies in no analysed vertebra" in capsys.readouterr().out


def test_results_of_other_options_are_told_apart_after_a_stop(
    finished: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run was begun again with other levels, and stopped when the first case had ended."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    ended: list[CohortEvent] = []
    cohort = read_cohort(finished.parent / "manifest.csv")
    settings = CohortSettings(tiny_weights, "cpu", ("T12",))

    def hear(event: CohortEvent) -> None:
        if isinstance(event, CaseEnded):
            ended.append(event)

    control = RunControl(PoolLimits(workers=1, threads=1), hear, lambda: bool(ended))
    assert run_cohort(cohort, out, settings, control).stopped
    assert main(["cohort", "report", str(out)]) == 0
    told = [(row["case"], row["status"], row["vertebrae"]) for row in table(out / "cases.csv")]
    assert told == [("A", "done", "1"), ("B", "of an earlier run", "")]
    assert {row["case"] for row in table(out / "vertebrae.csv")} == {"A"}
    page = (out / "report.html").read_text("utf-8")
    assert "1 done, 1 of an earlier run" in page and "are left out: run the cohort again" in page
    capsys.readouterr()
    assert main(["cohort", "evaluate", str(out)]) == 2
    said = capsys.readouterr().err
    assert "of an earlier run" in said and "(B): run the cohort to its end" in said

    assert not run_cohort(cohort, out, settings, RunControl(PoolLimits(1, 1))).stopped
    assert main(["cohort", "report", str(out)]) == 0
    assert [row["status"] for row in table(out / "cases.csv")] == ["done", "done"]


@pytest.fixture(scope="module")
def known_case(
    box_spine: tuple[Volume, Volume], tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with one case, the mapping of its labels in a file, and its result in ``out``."""
    folder = tmp_path_factory.mktemp("known")
    for name, volume in zip(("a", "bodies"), box_spine):
        sitk.WriteImage(to_sitk(volume), str(folder / f"{name}.nii.gz"))
    shutil.copy(folder / "bodies.nii.gz", folder / "marked.nii.gz")
    mapping = {"33": "T11 body", "32": "T12 body", "31": "L1 body"}
    (folder / "labels.json").write_text(json.dumps(mapping), "utf-8")
    head = "case,ct,segmentation,labels,bodies,patient,affected"
    row = "A,a.nii.gz,bodies.nii.gz,labels.json,,p1,T12"
    (folder / "manifest.csv").write_text(f"{head}\n{row}\n", "utf-8")
    assert main(Files(folder, tiny_weights).words(folder / "out", "--workers", "1")) == 0
    return folder


CURRENT, EARLIER = "done", "of an earlier run"


@dataclass(frozen=True)
class Changes:
    """A copy of ``known_case``, and what may happen to it after its run."""

    data: Path
    weights: Path

    @property
    def out(self) -> Path:
        return self.data / "out"

    @property
    def case(self) -> Path:
        return self.out / "cases" / "A"

    def file(self, name: str) -> Path:
        return self.data / ("labels.json" if name == "labels" else f"{name}.nii.gz")

    def begin(self) -> None:
        """Begin a run that is stopped before it comes to its first case."""
        settings = CohortSettings(self.weights, "cpu")
        control = RunControl(PoolLimits(workers=1, threads=1), should_stop=lambda: True)
        cohort = read_cohort(self.data / "manifest.csv")
        assert run_cohort(cohort, self.out, settings, control).stopped

    def edit(self, old: str, new: str) -> None:
        """Correct the manifest, and begin to run it."""
        manifest = self.data / "manifest.csv"
        text = manifest.read_text("utf-8")
        assert old in text
        manifest.write_text(text.replace(old, new), "utf-8")
        self.begin()

    def nothing(self, name: str) -> None:
        pass

    def touch(self, name: str) -> None:
        os.utime(self.file(name))

    def move(self, name: str) -> None:
        self.file(name).rename(self.data / "elsewhere.nii.gz")
        self.edit(f"{name}.nii.gz", "elsewhere.nii.gz")

    def remove(self, name: str) -> None:
        self.file(name).unlink()

    def remove_and_move(self, name: str) -> None:
        self.remove(name)
        self.edit(f"{name}.nii.gz", "elsewhere.nii.gz")

    def rewrite(self, name: str) -> None:
        path = self.file(name)
        if name == "labels":
            path.write_text(path.read_text("utf-8").replace("L1 body", "L2 body"), "utf-8")
            return
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image + 1 if name == "a" else image * (image > 31), str(path))

    def name_another(self, name: str) -> None:
        old = self.file(name)
        content = old.read_bytes()
        self.rewrite(name)
        shutil.copy(old, self.data / f"other-{old.name}")
        old.write_bytes(content)
        self.edit(f",{old.name},", f",other-{old.name},")

    def name_bodies(self, name: str) -> None:
        self.edit("labels.json,,", f"labels.json,{self.file(name).name},")

    def name_patient(self, name: str) -> None:
        self.edit("p1", name)

    def run_again_in_vain(self, name: str) -> None:
        """Let a run be killed that was replacing the result."""
        kept = read_record(self.case)
        assert kept is not None
        write_record(self.case, replace(kept, key=""))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("nothing", CURRENT),
        ("touch a", CURRENT),
        ("touch bodies", CURRENT),
        ("move a", CURRENT),
        ("name_patient p2", CURRENT),
        ("remove a", CURRENT),
        ("remove_and_move a", EARLIER),
        ("rewrite a", EARLIER),
        ("rewrite bodies", EARLIER),
        ("rewrite labels", EARLIER),
        ("name_another a", EARLIER),
        ("name_another bodies", EARLIER),
        ("name_another labels", EARLIER),
        ("name_bodies marked", EARLIER),
        ("run_again_in_vain", EARLIER),
    ],
)
def test_a_result_is_that_of_a_case_as_long_as_its_files_are_the_same(
    known_case: Path,
    tiny_weights: Path,
    tmp_path: Path,
    change: str,
    status: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files change where they lie, or the manifest names others in a run that is soon stopped."""
    shutil.copytree(known_case, tmp_path / "data")
    changes = Changes(tmp_path / "data", tiny_weights)
    out = changes.out
    changes.begin()  # the index names the copies, and so does the record
    kept = read_record(changes.case)
    assert kept is not None
    (case,) = read_cohort(changes.data / "manifest.csv").cases
    states = input_states(inputs_of(case), content=True)
    write_record(changes.case, replace(kept, inputs=states))
    verb, _, name = change.partition(" ")
    getattr(changes, verb)(name)

    capsys.readouterr()
    assert main(["cohort", "report", str(out)]) == 0
    (row,) = table(out / "cases.csv")
    assert row["status"] == status, row["reason"]
    assert bool(table(out / "vertebrae.csv")) == (status == CURRENT)
    assert bool(row["vertebrae"]) == (status == CURRENT)
    assert row["patient"] == (name if verb == "name_patient" else "p1")
    page = (out / "report.html").read_text("utf-8")
    assert f"1 {status}" in page
    assert ("are left out: run the cohort again" in page) == (status == EARLIER)
    code = main(["cohort", "evaluate", str(out)])
    said = capsys.readouterr()
    if status == CURRENT:
        assert code == 0 and len(WorkList(out, "Bo").cases) == 1
    else:
        assert code == 2 and "of an earlier run" in said.err and "(A): run the coh" in said.err
        assert not (out / "evaluation.json").exists()
        with pytest.raises(InputError, match="no case with a current result"):
            WorkList(out, "Bo")


def test_a_case_as_earlier_versions_recorded_it(known_case: Path, tmp_path: Path) -> None:
    """Without paths and bodies: what can be compared is, and what cannot is of an earlier run."""
    data = tmp_path / "data"
    shutil.copytree(known_case, data)
    out, record = data / "out", data / "out" / "cases" / "A" / "case.json"

    def status(index: dict[str, Any], inputs: dict[str, Any]) -> str:
        (out / "cohort.json").write_text(json.dumps(index), "utf-8")
        record.write_text(json.dumps({**kept, "inputs": inputs}), "utf-8")
        assert main(["cohort", "report", str(out)]) == 0
        return table(out / "cases.csv")[0]["status"]

    kept = json.loads(record.read_text("utf-8"))
    now = json.loads((out / "cohort.json").read_text("utf-8"))
    (case,) = now["cases"]
    old = {key: value for key, value in case.items() if key != "bodies"}
    plain = {
        name: {key: value for key, value in state.items() if key != "path"}
        for name, state in kept["inputs"].items()
    }
    assert status({**now, "cases": [old]}, plain) == CURRENT
    assert status({**now, "cases": [{**old, "key": ""}]}, plain) == CURRENT
    unread = {**plain, "bodies": plain["segmentation"]}
    assert status({**now, "cases": [old]}, unread) == EARLIER
    without = {name: state for name, state in plain.items() if name != "labels"}
    assert status({**now, "cases": [case]}, without) == EARLIER
    gone = {**case, "ct": str(data / "gone.nii.gz")}
    assert status({**now, "cases": [gone]}, plain) == EARLIER


def test_a_run_that_is_ended_midway_leaves_no_record_of_what_was_there(
    known_case: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder may hold the files of the new run; options that were taken back find no result."""
    data = tmp_path / "data"
    shutil.copytree(known_case, data)
    out, cohort = data / "out", read_cohort(data / "manifest.csv")
    (task,) = cohort_tasks(cohort, out, CohortSettings(tiny_weights, "cpu", ("T12",)))
    (before,) = cohort_tasks(cohort, out, CohortSettings(tiny_weights, "cpu"))
    model, _ = task.settings.start(0)

    def killed(*words: object) -> CaseRecord:
        raise KeyboardInterrupt

    monkeypatch.setattr(case_run, "_attempt", killed)
    assert before.run(model).status is CaseStatus.DONE, "nothing had to be done"
    with pytest.raises(KeyboardInterrupt):
        task.run(model)
    for one in (task, before):
        assert not case_run.is_current(one, read_record(one.folder))
    assert main(["cohort", "report", str(out)]) == 0
    assert table(out / "cases.csv")[0]["status"] == EARLIER


def other_weights(weights: Path) -> str:
    """Let a folder of weights be another set of them; return its hash."""
    path = weights / "profile.json"
    data = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**data, "name": data["name"] + " again"}), "utf-8")
    return read_profile(weights).hash


def test_weights_that_changed_are_loaded_anew_or_refused(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that stays keeps no model of a path; no result is recorded as that of another."""
    weights, out = tmp_path / "weights", tmp_path / "out"
    shutil.copytree(files.weights, weights)
    cohort, settings = read_cohort(files.manifest(GOOD[0])), CohortSettings(weights, "cpu")
    first = ready_model(weights, "cpu", read_profile(weights).hash)
    assert ready_model(weights, "cpu", first.hash) is first
    (task,) = cohort_tasks(cohort, out, settings)
    assert settings.start(0)[0] is first

    renewed = other_weights(weights)
    model, _ = settings.start(0)
    assert model.hash == renewed != first.hash
    with pytest.raises(WeightsError, match="has changed while it was read"):
        ready_model(weights, "cpu", first.hash)
    with pytest.raises(WeightsError, match="has changed since the run began"):
        task.run(model)
    (other,) = cohort_tasks(cohort, out, settings)
    with pytest.raises(WeightsError, match="has changed since the run began"):
        other.run(first)
    assert not (out / "cases").exists(), "something was written"

    # A worker that starts after the weights were replaced ends the run.
    with pytest.raises(WeightsError, match="has changed since the run began"):
        run_tasks([task], RunControl(PoolLimits(1, 1)))
    assert not (out / "cases").exists()
    assert other.run(model).status is CaseStatus.DONE
    result = json.loads((out / "cases" / "A" / "candidates.json").read_text("utf-8"))
    assert result["run"]["weights_hash"] == renewed


@pytest.mark.slow
def test_workers_of_a_cluster_follow_the_weights(
    files: Files, cluster: Path, tmp_path: Path
) -> None:
    """The workers outlive the run; meanwhile the weights at their path become others."""
    weights, out = tmp_path / "weights", tmp_path / "out"
    shutil.copytree(files.weights, weights)
    files.manifest(*GOOD)
    words = Files(files.folder, weights).words(out, "--scheduler", str(cluster))
    for n in range(2):
        expected = other_weights(weights) if n else read_profile(weights).hash
        assert main(words) == 0
        assert {row["weights_hash"] for row in table(out / "cases.csv")} == {expected}


def test_a_type_without_a_mask_is_unknown_not_absent(
    finished: Path, box_spine: tuple[Volume, Volume], tmp_path: Path
) -> None:
    """Of a case with one mask the other type has no figures, and no vertebra is called healthy."""
    stored = read_result(finished / "cases" / "A")
    found = max(stored.lesions, key=lambda x: (x.type == "lytic", stored.patches[x.id].array.sum()))
    claimed = np.zeros(box_spine[0].array.shape, bool)
    stored.patches[found.id].paint(claimed)
    mask = ndimage.binary_dilation(claimed, np.ones((3, 3, 3))).astype(np.uint8)
    for name, array in (("some", mask), ("none", mask * 0)):
        path = tmp_path / f"{name}.nii.gz"
        sitk.WriteImage(to_sitk(replace(box_spine[0], array=array)), str(path))
    out = tmp_path / "out"
    shutil.copytree(finished, out)

    def evaluated(a: dict[str, str], b: dict[str, str]) -> dict[str, Any]:
        rewrite_manifest(finished, out, a, b)
        assert main(["cohort", "evaluate", str(out)]) == 0
        data: dict[str, Any] = json.loads((out / "evaluation.json").read_text("utf-8"))
        return data

    some, none = str(tmp_path / "some.nii.gz"), str(tmp_path / "none.nii.gz")
    unknown = "vertebrae of unknown state"
    data = evaluated({"lytic": some}, {"affected": "none"})
    assert (data["cases"], data["vertebrae"], data["diseased"], data[unknown]) == (2, 4, 1, 2)
    assert data["lesions"] == 1 and data["metrics"]["lytic recall (IoU >= 0.1)"]["value"] == 1
    assert not any(name.startswith("blastic") for name in data["metrics"])
    assert "2 of unknown state" in (out / "evaluation.md").read_text("utf-8")

    data = evaluated({"lytic": none}, {})
    assert (data["cases"], data["patients"], data["vertebrae"], data[unknown]) == (1, 1, 0, 3)
    assert "vertebra AUC" not in data["metrics"] and "lytic Dice" in data["metrics"]

    data = evaluated({"lytic": none, "affected": found.level}, {"lytic": none, "blastic": none})
    assert (data["vertebrae"], data["diseased"], data[unknown]) == (6, 1, 0)
    both = {"lytic": none, "blastic": none, "affected": found.level}
    assert evaluated(both, {"affected": "none"})["cases"] == 1, "masks and levels disagree"
    assert evaluated({"lytic": some, "affected": "none"}, {"affected": "none"})["cases"] == 1


def rewrite_manifest(
    finished: Path, out: Path, *known: dict[str, str], head: Sequence[str] = REFERENCE
) -> Path:
    """Let the cohort in ``out`` have a manifest of its own, which knows this of its cases."""
    rows = table(finished.parent / "manifest.csv")
    for row, one in zip(rows, known):
        row |= {"ct": str(finished.parent / row["ct"])}
        row |= {name: one.get(name.lower(), "") for name in (*REFERENCE, *head)}
    path = out / "own.csv"
    columns = [name for name in rows[0] if name not in REFERENCE or name in head]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[: len(known)])
    index = json.loads((out / "cohort.json").read_text("utf-8"))
    (out / "cohort.json").write_text(json.dumps({**index, "manifest": str(path)}), "utf-8")
    return path


def test_evaluation_knows_what_the_manifest_says_now(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns are found in any case of letters; levels that no result has are counted."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)

    def evaluated(*known: dict[str, str], head: Sequence[str] = REFERENCE) -> dict[str, Any]:
        rewrite_manifest(finished, out, *known, head=head)
        capsys.readouterr()
        assert main(["cohort", "evaluate", str(out)]) == 0
        data: dict[str, Any] = json.loads((out / "evaluation.json").read_text("utf-8"))
        return data

    none, some = {"affected": "none"}, {"affected": "L1 T12"}
    assert evaluated(none, none)["diseased"] == 0
    assert evaluated(some, none)["diseased"] == 2, "a correction has no effect"
    assert evaluated(some, none, head=("Lytic", "BLASTIC", "Affected"))["diseased"] == 2

    missing = "affected levels without a vertebra"
    data = evaluated({"affected": "T12 L1 L4 T5"}, none)
    assert (data["diseased"], data[missing]) == (2, 2)
    told = capsys.readouterr()
    assert "A: affected levels that its result does not have: T5, L4" in told.err
    assert "2 affected levels that the results do not have" in told.out

    assert evaluated(some)["cases"] == 1
    assert "B: left out: the manifest has no right line of it any more" in capsys.readouterr().err
    path = rewrite_manifest(finished, out, some, none)
    path.write_text(path.read_text("utf-8").replace("b.nii.gz", "other.nii.gz"), "utf-8")
    assert main(["cohort", "evaluate", str(out)]) == 0
    assert "B: left out: the manifest has other files of it now" in capsys.readouterr().err
    path.unlink()
    assert main(["cohort", "evaluate", str(out)]) == 0
    assert f"{path}: does not exist any more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("T10 L1", {"T10", "L1"}),
        ("th12, LWK1; D5 +  C2", {"T12", "L1", "T5", "C2"}),
        *((word, set()) for word in ("none", "0", "Healthy", " none ")),
    ],
)
def test_affected_levels_in_any_usual_spelling(text: str, levels: set[str]) -> None:
    assert _levels(text) == levels


@pytest.mark.parametrize(
    "text",
    [
        "T10-12",
        "L1-3",
        "Th4-6",
        "L1?",
        "none L1",
        "L1-2",
        "T12/L1",
        "T12-L2",
        "LWK 1 und 2",
        "L1 2",
    ],
)
def test_affected_levels_are_named_one_by_one(text: str) -> None:
    with pytest.raises(ValueError, match="its column affected"):
        _levels(text)


@pytest.mark.parametrize(
    ("name", "taken", "safe"),
    [
        ("case-1", (), "case-1"),
        ("Case-1", ("case-1",), None),
        ("../../etc", (), None),
        ("..", (), None),
        ("", (), None),
        ("con", (), None),
        ("LPT1.x", (), None),
        ("a/b\\c:d", (), None),
        (".hidden", (), None),
        ("x" * 300, (), None),
        ("Müller", (), None),
    ],
)
def test_a_case_of_any_name_has_a_safe_folder(
    name: str, taken: tuple[str, ...], safe: str | None, tmp_path: Path
) -> None:
    folder = case_folder(name, taken)
    assert folder
    assert safe is None or folder == safe
    assert folder.casefold() not in {t.casefold() for t in taken}
    assert folder.isascii() and len(folder) < 100 and folder[0] not in ".-" and folder[-1] != "."
    assert (tmp_path / folder).resolve().parent == tmp_path.resolve()
    assert folder.split(".")[0].casefold() not in ("con", "lpt1")
    assert case_folder(name, (*taken, folder)) != folder


def test_check_tells_all_that_is_wrong_at_once(
    files: Files, box_spine: tuple[Volume, Volume], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = files.folder
    (folder / "text.nii.gz").write_text("no image")
    (folder / "x").mkdir()
    (folder / "link.nii.gz").symlink_to(folder / "a.nii.gz")
    far = sitk.ReadImage(str(folder / "bodies.nii.gz"))
    far.SetOrigin((5000.0, 0.0, 0.0))
    sitk.WriteImage(far, str(folder / "far.nii.gz"))
    sitk.WriteImage(to_sitk(box_spine[0])[:, :, 3], str(folder / "flat.nii"))
    whole = folder / "whole.nii"
    sitk.WriteImage(to_sitk(box_spine[0]), str(whole))
    whole.write_bytes(whole.read_bytes()[:-100])
    files.manifest(
        GOOD[0],
        "gone,gone.nii.gz,bodies.nii.gz,totalsegmentator,p1,",
        "text,text.nii.gz,bodies.nii.gz,totalsegmentator,p1,",
        "far,b.nii.gz,far.nii.gz,totalsegmentator,p1,",
        "flat,flat.nii,bodies.nii.gz,totalsegmentator,p1,",
        "cut,whole.nii,bodies.nii.gz,totalsegmentator,p1,",
        "unnamed,b.nii.gz,bodies.nii.gz,,p1,",
        "odd,b.nii.gz,bodies.nii.gz,nonsense,p1,",
        "empty,,bodies.nii.gz,verse,p1,",
        "A,b.nii.gz,bodies.nii.gz,totalsegmentator,p1,",
        "other,a.nii.gz,bodies.nii.gz,totalsegmentator,p2,",
        "many,b.nii.gz,bodies.nii.gz,totalsegmentator,p1,x,y",
        "round,x/../a.nii.gz,bodies.nii.gz,totalsegmentator,p3,",
        "link,link.nii.gz,bodies.nii.gz,totalsegmentator,p4,",
        "twice,link.nii.gz,x/../bodies.nii.gz,totalsegmentator,p1,",
    )
    manifest = folder / "manifest.csv"
    assert main(["cohort", "check", str(manifest), "--workers", "2"]) == 2
    lines = capsys.readouterr().out.splitlines()
    wanted = {
        3: "gone.nii.gz: does not exist",
        4: "text.nii.gz: ",
        5: "far.nii.gz: lies outside of the CT",
        6: "one 3D volume is needed",
        7: "whole.nii: is truncated",
        8: "does not name its labels",
        9: "nonsense: is not a label convention",
        10: "has no ct",
        11: "the case 'A' stands in line 2 already",
        12: "the CT is of patient p1 in line 2, of p2 here",
        13: "has more values than there are columns",
        14: "the CT is of patient p1 in line 2, of p3 here",
        15: "the CT is of patient p1 in line 2, of p4 here",
        16: "the same CT and segmentation as in line 2",
    }
    for number, cause in wanted.items():
        own = [line for line in lines if line.startswith(f"{manifest}, line {number}: ")]
        assert len(own) == 1 and cause in own[0], (number, own)
    assert not [line for line in lines if ", line 2: " in line], "a good case is called wrong"
    assert lines[-1].endswith(f"{len(wanted)} wrong, as far as headers show")
    # A table with wrong lines is not run at all.
    assert main(files.words(folder / "out")) == 2 and not (folder / "out" / "cases").exists()


def test_one_of_anything_is_singular_and_the_column_of_labels_is_named(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = str(files.manifest("A,a.nii.gz,bodies.nii.gz,,,"))
    assert main(["cohort", "check", manifest]) == 2
    assert "1 case, columns kept: site: 1 wrong" in capsys.readouterr().out
    assert main(files.words(tmp_path / "out", "--workers", "1")) == 1
    told = capsys.readouterr()
    assert "1 case; 1 worker of 1 thread on cpu" in told.err
    assert "declare a convention in a cohort's column labels" in told.err
    assert "0 cases done, 1 without a result" in told.out
    assert "1 case of 1 patient: 1 refused." in (tmp_path / "out" / "report.html").read_text(
        "utf-8"
    )
    files.manifest("A,,bodies.nii.gz,,,")
    assert main(files.words(tmp_path / "out")) == 2
    assert "1 line is wrong" in capsys.readouterr().err


def child(
    words: list[str], stderr: int = subprocess.PIPE, stdout: int | None = None
) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "hideseekseg", *words],
        env=environment,
        stdout=stdout,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def workers_of(pid: int) -> list[int]:
    """The worker processes of a running cohort, without multiprocessing's own tracker."""
    started = [process.pid for process in tree(pid)[1:]]
    lines = {n: Path(f"/proc/{n}/cmdline") for n in started}
    return [n for n, line in lines.items() if line.exists() and b"spawn_main" in line.read_bytes()]


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_for(what: object, seconds: float = 120.0, pause: float = 0.05) -> None:
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(pause)


@linux
def test_check_goes_on_after_a_file_that_crashes_its_reader(files: Files, tmp_path: Path) -> None:
    """The signal is what GDCM's own mistakes over damaged files raise."""
    from helpers.dicom import one, save

    folder, first = tmp_path / "many", tmp_path / "first.dcm"
    folder.mkdir()
    save(one(0, 0.0), first)
    for n in range(10_000):  # whose tags are all read: there is time to be crashed
        os.link(first, folder / f"{n}.dcm")
    files.manifest(GOOD[0], f"bad,{folder},bodies.nii.gz,totalsegmentator,p3,", "x,none,none,,p4,")
    manifest = str(files.folder / "manifest.csv")
    checking = child(["cohort", "check", manifest, "--workers", "2"], stdout=subprocess.PIPE)

    readers: list[int] = []

    def is_read() -> bool:
        readers.extend(n for n in workers_of(checking.pid) if opened(n, folder))
        return bool(readers)

    try:
        wait_for(is_read, pause=0.001)
        os.kill(readers[0], signal.SIGSEGV)
        said, _ = checking.communicate(timeout=120)
    finally:
        checking.kill()
    assert checking.returncode == 2
    lines = said.splitlines()
    (bad,) = [line for line in lines if f"{manifest}, line 3: " in line]
    assert f"{folder}: it or its segmentation cannot be checked: " in bad and "SIGSEGV" in bad
    assert not [line for line in lines if ", line 2: " in line], "a good case is called wrong"
    assert len([line for line in lines if ", line 4: " in line and "does not exist" in line]) == 2


def opened(pid: int, folder: Path) -> bool:
    """Whether a process reads a file of a folder just now."""
    found = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(descriptor.readlink().parent)
    return folder in found


class Screen:
    """What a terminal shows: as much as it takes to follow what is drawn over itself."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines = [""]  # those that were scrolled away included
        self._row = self._column = 0

    def write(self, text: str) -> None:
        for sequence, letter in re.findall(r"(\x1b\[\d*[A-Z])|(.)", text, re.DOTALL):
            if sequence.endswith("A"):
                top = max(len(self.lines) - self.rows, 0)
                self._row = max(self._row - int(sequence[2:-1] or 1), top)
            elif sequence == "\x1b[J":
                self.lines = [*self.lines[: self._row], self.lines[self._row][: self._column]]
            elif sequence:
                raise AssertionError(f"no such sequence: {sequence!r}")
            elif letter == "\r":
                self._column = 0
            elif letter == "\n":
                self._down()
            else:
                self._put(letter)

    def _down(self) -> None:
        self._row += 1
        self.lines += [""] * (self._row + 1 - len(self.lines))

    def _put(self, letter: str) -> None:
        if self._column == self.columns:
            self._down()
            self._column = 0
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + letter + line[self._column + 1 :]
        self._column += 1


def test_a_log_says_how_much_time_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run under ``nohup``, or in a queue, there is nothing else to look at."""
    told = _ForPeople(lambda: False)
    one = CaseRecord("A", CaseStatus.DONE, seconds=3.0)
    for done, seconds_left in ((1, 7200.0), (2, 0.0)):
        told(CaseEnded(one, done, 0, 2, seconds_left))
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"1/2  A: done in 3 s, about {duration(7200.0)} left"
    assert last == "2/2  A: done in 3 s"


@linux
def test_failures_are_a_table_below_the_bar_on_a_terminal(files: Files, tmp_path: Path) -> None:
    """A terminal of 60 columns and 9 rows, which has no room for all of them."""
    import fcntl
    import pty
    import struct
    import termios

    long = "a-name-that-is-long-enough-to-be-cut"
    names = [long, *(f"case-{n}" for n in range(1, 7))]
    files.manifest(*(f"{name},gone/{name[5:]}.nii,bodies.nii.gz,verse,," for name in names))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 9, 60, 0, 0))
    words = files.words(tmp_path / "out", "--workers", "1")
    running = child(words, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    screen, shown = Screen(60, 9), []
    with contextlib.suppress(OSError):  # what the end of the other side raises
        while text := os.read(ours, 1 << 16).decode():
            for part in re.split(r"(?=\r\x1b)", text):
                screen.write(part)
                shown.append(list(screen.lines))
    os.close(ours)
    assert running.wait(60) == 1, "no case has a result"

    drawn = [lines for lines in shown if any(line.startswith("[") for line in lines)]
    assert all(sum(line.startswith("[") for line in lines) == 1 for lines in drawn)
    first = next(lines for lines in drawn if "1/7 cases, 1 failed" in lines[-3])
    head, row = first[-2:]
    assert head.split() == ["case", "status", "reason"]
    assert row.startswith("a-name-that-is") and long not in row and "refused" in row
    assert row.endswith("does not exist"), "the cause of a reason that is cut stays"
    last = next(lines for lines in drawn if "7/7 cases, 7 failed" in " ".join(lines))
    where = next(n for n, line in enumerate(last) if line.startswith("["))
    below = [line.split()[0] for line in last[where + 1 :]]
    assert below == ["case", "and", "case-3", "case-4", "case-5", "case-6"]
    assert "and 3 before" in last[where + 2]
    assert all(len(line) < 60 for lines in drawn for line in lines[where:])

    # At the end the table stands there, each reason whole; the bar has gone.
    left = "\n".join(screen.lines)
    assert "cases, " not in left and left.count("case-6") == 1
    assert left.replace("\n", "").count(".nii: does not exist") == 4


@pytest.mark.slow
@linux
def test_a_case_that_hangs_or_is_killed_is_a_row_and_the_rest_goes_on(
    files: Files, slow_weights: Path, tmp_path: Path
) -> None:
    """With weights of many steps a case takes seconds: long enough to be killed in its midst."""
    out = tmp_path / "out"
    slow = Files(files.folder, slow_weights)
    slow.manifest(GOOD[0], GOOD[1])
    running = child(slow.words(out, "--workers", "1"))
    try:
        first = out / "cases" / "A"
        wait_for(lambda: (first / LOCK).exists())
        os.kill(workers_of(running.pid)[0], signal.SIGKILL)
        wait_for(lambda: read_record(first) is not None)
        killed = read_record(first)
        assert killed is not None and killed.status.value == "killed"
        assert "SIGKILL" in killed.reason

        # Ctrl-C, while the second one runs: it is lost, and nothing else.
        second = out / "cases" / case_folder("../b", ["A"])
        wait_for(lambda: (second / LOCK).exists())
        own = workers_of(running.pid)
        began = time.monotonic()
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(30) == 130
        assert time.monotonic() - began < 2.0
        assert not any(alive(pid) for pid in own)
        said = running.stderr.read() if running.stderr else ""
        assert "Traceback" not in said and "the same command goes on" in said
        assert read_record(second) is None and not list(second.glob(".hideseekseg-*"))
    finally:
        running.kill()

    # The same command goes on; kill -9 of the parent ends its workers and frees the folders.
    running = child(slow.words(out, "--workers", "1"))
    try:
        wait_for(lambda: (second / LOCK).exists() and workers_of(running.pid))
        own = workers_of(running.pid)
        assert main(slow.words(out)) == 2, "the folder is in use"
        running.kill()
        running.wait()
        wait_for(lambda: not any(alive(pid) for pid in own), 5)
    finally:
        running.kill()
    assert main(slow.words(out, "--case-timeout", "1", "--workers", "1")) == 1
    late = read_record(second)
    assert late is not None and late.status.value == "timed out" and "1 s" in late.reason
    rows = table(out / "cases.csv")
    assert [row["status"] for row in rows] == ["killed", "timed out"]
    fast = Files(files.folder, files.weights)
    assert main(fast.words(out, "--workers", "1")) == 0, "other weights are another result"


def test_unusable_weights_are_one_line(
    files: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(files.weights, weights)
    (weights / "autoencoder.safetensors").write_bytes(b"damaged")
    files.manifest(GOOD[0])
    out = tmp_path / "out"
    assert main([*files.words(out), "--weights", str(weights)]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "autoencoder.safetensors: is damaged" in said
    with locked(out):
        assert main(files.words(out)) == 2
    assert "is in use by another run" in capfd.readouterr().err


GIB = 1 << 30


@pytest.mark.parametrize(
    ("machine", "cases", "limits", "plan"),
    [
        (Machine(16, 128 * GIB), 1000, PoolLimits(), Plan(16, 1)),
        (Machine(16, 9 * GIB), 1000, PoolLimits(), Plan(4, 4)),
        (Machine(16, 1 * GIB), 1000, PoolLimits(), Plan(1, 16)),
        (Machine(16, None), 3, PoolLimits(), Plan(3, 5)),
        (Machine(16, 128 * GIB, gpus=2), 1000, PoolLimits(), Plan(2, 8)),
        (Machine(16, 128 * GIB), 1000, PoolLimits(threads=4), Plan(4, 4)),
        (Machine(2, 4 * GIB), 1000, PoolLimits(workers=5), Plan(5, 1)),
    ],
)
def test_workers_follow_cores_memory_and_gpus(
    machine: Machine, cases: int, limits: PoolLimits, plan: Plan
) -> None:
    assert choose_plan(machine, cases, limits) == plan


def test_discovery_knows_common_layouts(files: Files, tmp_path: Path) -> None:
    tree, ct, bodies = tmp_path / "tree", files.folder / "a.nii.gz", files.folder / "bodies.nii.gz"
    for target, source in {
        "rawdata/sub-verse004/sub-verse004_ct.nii.gz": ct,
        "derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz": bodies,
        "rawdata/sub-7/ses-1/ct/sub-7_ses-1_ct.nii.gz": ct,
        "derivatives_seg/sub-7/ses-1/ct/sub-7_ses-1_mod-ct_seg-vert_msk.nii.gz": bodies,
        "derivatives_seg/sub-7/ses-1/ct/sub-7_ses-1_mod-ct_seg-subreg_msk.nii.gz": bodies,
        "rawdata/sub-8/sub-8_ct.nii.gz": ct,
        "s0001/ct.nii.gz": ct,
        "s0001/segmentations/vertebrae_L1.nii.gz": bodies,
    }.items():
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tree / target)
    words = ["cohort", "check", "--discover", str(tree), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    cohort = read_cohort(tmp_path / "out" / "manifest.csv")
    found = {case.name: case for case in cohort.cases}
    assert sorted(found) == ["s0001", "sub-7_ses-1", "sub-verse004"]
    assert found["sub-7_ses-1"].bodies is not None and found["sub-7_ses-1"].patient == "sub-7"
    assert found["sub-verse004"].labels == "verse" and found["s0001"].labels is None
    assert found["s0001"].segmentation == tree / "s0001" / "segmentations"
    assert np.all([case.ct.is_file() for case in cohort.cases])


@posix
def test_discovery_follows_links_and_tells_what_is_closed(files: Files, tmp_path: Path) -> None:
    from helpers.dicom import dicom, save, series

    tree, store = tmp_path / "tree", tmp_path / "store"
    for home in (tree / "own", tree / "shut", store / "far"):
        home.mkdir(parents=True)
        shutil.copy(files.folder / "a.nii.gz", home / "ct.nii.gz")
        shutil.copy(files.folder / "bodies.nii.gz", home / "vertebrae.nii.gz")
    series(store / "dicom" / "ct", range(8), PatientID="4711")
    seg = dicom(SEG[0], 90, Modality="SEG", SeriesInstanceUID="1.2.8", PatientID="4711")
    save(seg, store / "dicom" / "seg.dcm")
    (store / "sub-9").mkdir()
    for name in ("sub-9_ct", "sub-9_seg-vert_msk"):
        shutil.copy(files.folder / "bodies.nii.gz", store / "sub-9" / f"{name}.nii.gz")
    for name in ("far", "dicom", "sub-9"):
        (tree / name).symlink_to(store / name)
    (tree / "latest").symlink_to(tree / "own")
    (store / "far" / "back").symlink_to(tree)
    (tree / "not-fetched").mkdir()
    (tree / "not-fetched" / "ct.nii.gz").symlink_to(store / "annex")
    told: list[str] = []
    with closed(tree / "shut"), as_another_user(tmp_path):
        found = discovered(tree, told.append)
    assert [case.name for case in found.cases] == ["dicom/seg", "far", "own", "sub-9"]
    assert not found.problems
    assert f"{tree / 'shut'}: left out, it cannot be looked into: Permission denied" in told
    missing = tree / "not-fetched" / "ct.nii.gz"
    assert f"{missing}: left out, it is a link to what is not there" in told
    assert len(told) == 3, "each once, and the number of cases"
    refused = pytest.raises(InputError, match="cannot be looked into")
    with closed(tree), as_another_user(tmp_path), refused:
        discovered(tree, told.append)


@posix
@pytest.mark.parametrize("deep", [False, True], ids=["file", "folder"])
def test_what_lies_behind_a_link_is_an_input_of_its_case(tmp_path: Path, deep: bool) -> None:
    """A slice that comes there, and one that is written anew, runs the case again."""
    from helpers.dicom import one, save, series

    ct, far = series(tmp_path / "ct", [0, 2.5, 5]), tmp_path / "far"
    slices = [save(one(3 + n, 7.5 + 2.5 * n), far / f"{n}.dcm") for n in range(2)]
    (ct / "more").symlink_to(far if deep else slices[0])
    (tmp_path / "seg.nii").write_bytes(b"any")
    text = f"ct,segmentation\n{ct},{tmp_path / 'seg.nii'}\n"
    (tmp_path / "m.csv").write_text(text, "utf-8")
    (case,) = read_cohort(tmp_path / "m.csv").cases
    before = [input_states(inputs_of(case), content=content)["ct"] for content in (False, True)]
    save(one(3, 7.5, SeriesDescription="again"), slices[0])
    after = [input_states(inputs_of(case), content=content)["ct"] for content in (False, True)]
    assert before[0] != after[0] and before[1] != after[1]
    (ct / "closed").mkdir()
    with closed(ct / "closed"), as_another_user(tmp_path):
        assert input_states(inputs_of(case), content=True)["ct"] == after[1], (
            "what can be read is its state"
        )


def test_discovery_keeps_data_sets_apart(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sites that count their subjects from one, each in a layout of its own."""
    tree, ct, bodies = tmp_path / "tree", files.folder / "a.nii.gz", files.folder / "bodies.nii.gz"
    mask = "sub-001_seg-vert_msk.nii.gz"
    pairs = {
        "siteA/rawdata/sub-001": "siteA/derivatives/sub-001",
        "siteB/rawdata/sub-001": "siteB/derivatives/sub-001",
        "siteC/sub-001": "siteC/derivatives/masks/sub-001",
        "all/rawdata/siteD/sub-001": "all/derivatives/siteD/sub-001",
        "all/rawdata/siteE/sub-001": "all/derivatives/siteE/sub-001",
        "flat": "flat",
        "plain/images/sub-001": "plain/masks/sub-001",
    }
    alone = ["siteF/rawdata/sub-001", "siteG/sub-001", "siteH/images"]
    masks_alone = ["siteI/derivatives/sub-001", "siteJ/sub-001"]
    twice = ["two/derivatives/old/sub-001", "two/derivatives/new/sub-001"]
    for folder in (*pairs, *alone, "two/rawdata/sub-001"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(ct, tree / folder / "sub-001_ct.nii.gz")
    for folder in (*pairs.values(), *masks_alone, *twice):
        (tree / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(bodies, tree / folder / mask)
    later = tree / "siteA" / "rawdata" / "sub-001" / "sub-001_ses-2_ct.nii.gz"
    shutil.copy(ct, later)
    shutil.copy(
        bodies, tree / "siteA" / "derivatives" / "sub-001" / "sub-001_ses-2_seg-vert_msk.nii.gz"
    )
    cohort = read_cohort(discover(tree, tmp_path / "out", print))
    assert not cohort.problems
    found = {
        case.ct.parent.relative_to(tree).as_posix(): case.segmentation.parent
        for case in cohort.cases
        if case.ct != later
    }
    assert found == {of_ct: tree / of_mask for of_ct, of_mask in pairs.items()}
    names = {case.ct: case.name for case in cohort.cases}
    assert names[later] == "sub-001_ses-2", "a name that is one of its own stays"
    assert names[tree / "siteB/rawdata/sub-001/sub-001_ct.nii.gz"] == (
        "siteB/rawdata/sub-001/sub-001_ct"
    )
    patients = {case.ct: case.patient for case in cohort.cases}
    assert patients[later] == patients[later.with_name("sub-001_ct.nii.gz")] == "siteA/sub-001"
    assert len(set(patients.values())) == 6, "siteD and siteE stand in one data set"
    told = capsys.readouterr().out.splitlines()
    for folder in (*alone, "two/rawdata/sub-001"):
        assert any(str(tree / folder) in x and "left out, there is no" in x for x in told), folder
    assert any("two/derivatives/old" in x and "fit it alike" in x for x in told)
    assert any(x.startswith("sub-001: stands in ") and "of each" in x for x in told)


def test_discovery_names_cases_apart_and_their_series(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that archives name by UIDs, and a follow-up in a folder of the first study."""
    from helpers.dicom import ROOT, dicom, item, save, series

    tree = tmp_path / "tree"
    names = {1: f"seg/{ROOT}.11", 2: f"seg/{ROOT}.12", 3: "P3/follow-up/seg", 4: "P3/seg.DCM"}
    homes = {1: "ct1", 2: "ct2", 3: "P3/follow-up", 4: "P3"}
    for n, name in names.items():
        uids = {"StudyInstanceUID": f"{ROOT}.1.{n}", "PatientID": f"P{min(n, 3)}"}
        own = {**uids, "SeriesInstanceUID": f"{ROOT}.2.{n}"}
        series(tree / homes[n], [2.5 * z for z in range(6)], **own)
        seg = dicom(SEG[0], 90 + n, Modality="SEG", SeriesInstanceUID=f"{ROOT}.8.{n}", **uids)
        seg.ReferencedSeriesSequence = [item(SeriesInstanceUID=own["SeriesInstanceUID"])]
        save(seg, tree / name)
    for name in ("s1/ct.nii.gz", "s1/ct.nrrd", "s1/vertebrae.nii.gz"):
        (tree / name).parent.mkdir(exist_ok=True)
        image = sitk.ReadImage(str(files.folder / "a.nii.gz"))
        sitk.WriteImage(image, str(tree / name))
    cohort = read_cohort(discover(tree, tmp_path / "out", print))
    assert not cohort.problems
    found = {case.name: case for case in cohort.cases}
    assert set(found) == {
        *(f"seg/{ROOT}.11", f"seg/{ROOT}.12", "P3/follow-up/seg", "P3/seg"),
        *("s1/ct.nii.gz", "s1/ct.nrrd"),
    }
    for n, name in names.items():
        case = found[name.removesuffix(".DCM")]
        assert (case.ct, case.series) == (tree / homes[n], f"{ROOT}.2.{n}")
    capsys.readouterr()
    main(["cohort", "check", str(tmp_path / "out" / "manifest.csv")])
    told = capsys.readouterr().out
    assert "series" not in told.replace("columns", ""), "the manifest of --discover is refused"


def test_a_case_is_made_from_the_files_of_its_own_series(tmp_path: Path) -> None:
    """A folder of an archive's export: what comes to it is of other cases, or of this one."""
    from helpers.dicom import ROOT, one, save

    def write(n: int, k: int, folder: Path = tmp_path / "export") -> Path:
        fields = {"SeriesInstanceUID": f"{ROOT}.2.{n}", "SeriesNumber": n}
        return save(one(k, 2.5 * k, number=100 * n + k, **fields), folder / f"{n}-{k}.dcm")

    for n in range(1, 4):
        for k in range(5):
            write(n, k)
    (tmp_path / "seg.nii").write_bytes(b"any")
    cts = (f"export,{ROOT}.2.1", "export,1", "export/1-0.dcm,", f"export,{ROOT}.2.2", "export,")
    lines = [f"{n},seg.nii,{ct}" for n, ct in enumerate(cts)]
    (tmp_path / "m.csv").write_text("\n".join(["case,segmentation,ct,series", *lines]), "utf-8")
    cases = read_cohort(tmp_path / "m.csv").cases

    def states(content: bool) -> list[str]:
        made = [input_states(inputs_of(case), content)["ct"] for case in cases]
        return [state.sha256 if content else state.stat for state in made]

    for change, differ in {
        "a file of series 3": {4},
        "a file of series 3 in a folder": {4},
        "a file of series 1": {0, 1, 2, 4},
        "a file of series 1 gone": {0, 1, 2, 4},
        "a file of series 2 rewritten": {3, 4},
    }.items():
        before = [states(content) for content in (False, True)]
        if "gone" in change:
            (tmp_path / "export" / "1-5.dcm").unlink()
        elif "rewritten" in change:
            path = tmp_path / "export" / "2-2.dcm"
            path.write_bytes(path.read_bytes() + b"\0\0")
        else:
            inside = tmp_path / "export" / ("more" if "folder" in change else "")
            write(int(change.split()[4]), 5, inside)
        after = [states(content) for content in (False, True)]
        for old, new in zip(before, after):
            assert {n for n, (x, y) in enumerate(zip(old, new)) if x != y} == differ, change


def test_a_manifest_is_read_in_time_that_grows_with_it(tmp_path: Path) -> None:
    """Eight times the rows take about eight times as long, not 64 times."""

    def seconds(rows: int) -> float:
        lines = (f"case-{n},a{n}.nii.gz,s{n}.nii.gz" for n in range(rows))
        (tmp_path / "m.csv").write_text("\n".join(["case,ct,segmentation", *lines]), "utf-8")
        began = time.process_time()
        assert len(read_cohort(tmp_path / "m.csv").cases) == rows
        return time.process_time() - began

    seconds(100)
    assert seconds(8000) < 24 * seconds(1000)


def test_discovery_keeps_a_corrected_manifest_and_a_check_writes_none(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    (tree / "s1").mkdir(parents=True)
    shutil.copy(files.folder / "a.nii.gz", tree / "s1" / "ct.nii.gz")
    shutil.copy(files.folder / "bodies.nii.gz", tree / "s1" / "vertebrae.nii.gz")
    before = sorted(tree.rglob("*"))
    find = ["cohort", "check", "--discover", str(tree)]
    assert main(find) == 2
    told = capsys.readouterr()
    assert sorted(tree.rglob("*")) == before, "a check writes to what it looks at"
    assert "found 1 case; with --out" in told.err
    assert f"{tree}, line 2: " in told.out and "does not name its labels" in told.out

    manifest = out / "manifest.csv"
    assert main([*find, "--out", str(out)]) == 2
    assert main([*find, "--out", str(out)]) == 2, "the same manifest is no other one"
    text = manifest.read_text("utf-8").replace("vertebrae.nii.gz,", "vertebrae.nii.gz,verse")
    manifest.write_text(text, "utf-8")
    capsys.readouterr()
    for words in ([*find, "--out", str(out)], ["cohort", *find[2:], "--out", str(out)]):
        assert main(words) == 2
        told = capsys.readouterr()
        assert f"{manifest}: exists already" in told.err.splitlines()[-1]
        assert manifest.read_text("utf-8") == text, "a corrected manifest is lost"
    assert not (out / "cases").exists()


def test_discovery_pairs_dicom_segmentations_with_the_series_they_name(tmp_path: Path) -> None:
    """Two series of one study in one folder; patients are counted, their numbers not told."""
    from helpers.dicom import ROOT, dicom, item, one, save, series

    tree = tmp_path / "tree"
    series(tree / "jane" / "ct", range(8), PatientID="4711")
    for n in range(8):
        other = one(n, float(n), number=50 + n, SeriesInstanceUID=f"{ROOT}.9", PatientID="4711")
        save(other, tree / "jane" / "ct" / f"b{n}.dcm")
    named = item(ReferencedSeriesSequence=[item(SeriesInstanceUID=f"{ROOT}.9")])
    seg = dicom(SEG[0], 90, Modality="SEG", SeriesInstanceUID=f"{ROOT}.8", PatientID="4711")
    seg.ReferencedSeriesSequence = named.ReferencedSeriesSequence
    save(seg, tree / "jane" / "seg" / "vertebrae.dcm")
    lost = dicom(SEG[0], 91, Modality="SEG", StudyInstanceUID=f"{ROOT}.77")
    save(lost, tree / "lost.dcm")
    (tree / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00XX" + bytes(9))
    told: list[str] = []
    path = discover(tree, tmp_path / "out", told.append)
    (case,) = read_cohort(path).cases
    assert (case.ct, case.series) == (tree / "jane" / "ct", f"{ROOT}.9")
    assert case.segmentation == tree / "jane" / "seg" / "vertebrae.dcm"
    assert case.patient == "patient-1" and "4711" not in path.read_text("utf-8")
    assert [line for line in told if "lost.dcm: left out" in line]
    assert [line for line in told if "damaged.dcm: left out, it cannot be read" in line]


def test_discovery_counts_copies_of_dicom_objects_once(tmp_path: Path) -> None:
    """Archives leave a study twice: its segmentation is one case, its CT one series."""
    from helpers.dicom import dicom, save, series

    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    jane = tmp_path / "tree" / "jane"
    series(jane / "disc-1" / "ct", range(8))
    seg = dicom(SEG[0], 90, Modality="SEG", SeriesInstanceUID="1.2.8")
    first = save(seg, jane / "disc-1" / "seg.dcm")
    shutil.copytree(jane / "disc-1", jane / "disc-2")
    seg.file_meta.SourceApplicationEntityTitle = "ARCHIVE"
    save(seg, jane / "disc-2" / "again.dcm")
    told: list[str] = []
    (case,) = discovered(tmp_path / "tree", told.append).cases
    assert (case.ct, case.segmentation) == (jane, first)
    for name in ("again.dcm", "seg.dcm"):
        copy = jane / "disc-2" / name
        assert f"{copy}: left out, it is a copy of {first}" in told
    ct = read_ct(case.ct, case.series)
    assert ct.notes == ("8 files are copies of others and were left out",)
    assert ct.array.shape[0] == 8
    other = pydicom.dcmread(first)
    other.ContentLabel = "OTHER"
    other.save_as(jane / "disc-2" / "seg.dcm")
    assert len(discovered(tmp_path / "tree", told.append).cases) == 2


@pytest.mark.parametrize("changed", ["PatientName", "PatientID"])
def test_discovery_takes_an_anonymised_copy_of_a_study_apart(tmp_path: Path, changed: str) -> None:
    """Its UIDs are those of the original, but it is read as another patient's."""
    from helpers.dicom import dicom, save, series

    for folder, fields in (("original", {}), ("anonymised", {changed: "X1"})):
        series(tmp_path / folder / "ct", range(8), **fields)
        seg = dicom(SEG[0], 90, Modality="SEG", SeriesInstanceUID="1.2.8", **fields)
        save(seg, tmp_path / folder / "seg.dcm")
    told: list[str] = []
    cases = discovered(tmp_path, told.append).cases
    homes = {case.segmentation.parent: case.ct for case in cases}
    assert homes == {tmp_path / n: tmp_path / n / "ct" for n in ("original", "anonymised")}
    assert [read_ct(case.ct, case.series).array.shape[0] for case in cases] == [8, 8]


def test_a_check_notes_another_frame_of_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a run does, which warns and goes on."""
    from helpers.dicom import ROOT, dicom, save, series

    series(tmp_path / "ct", range(8))
    lines = ["ct,segmentation,case,patient"]
    for n, frame in enumerate((f"{ROOT}.3", f"{ROOT}.4", "")):
        fields = {"FrameOfReferenceUID": frame} if frame else {}
        seg = dicom(SEG[0], 90 + n, Modality="SEG", **fields)
        if not frame:
            del seg.FrameOfReferenceUID
        save(seg, tmp_path / f"{n}" / "seg.dcm")
        lines.append(f"ct,{n}/seg.dcm,{n},jane")
    (tmp_path / "m.csv").write_text("\n".join([*lines, "ct/000.dcm,2,of a file,jane"]))
    assert main(["cohort", "check", str(tmp_path / "m.csv")]) == 0
    (said,) = [x for x in capsys.readouterr().out.splitlines() if "frame of reference" in x]
    where = f"{tmp_path / 'm.csv'}, line 3: note: {tmp_path / '1' / 'seg.dcm'}"
    assert said == OTHER_FRAME.format(where)


@linux
@pytest.mark.slow
def test_benchmark_compares_a_cohort_with_a_process_per_case(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On one core, as on a machine that has no more: what is planned is the one worker then."""
    out, cores = tmp_path / "out", os.sched_getaffinity(0)
    words = ["benchmark", "cohort", "--out", str(out), "--weights", str(tiny_weights)]
    with pytest.raises(SystemExit):
        main([*words, "--trunk", "9,9"])
    assert "--trunk needs three numbers" in capsys.readouterr().err and not out.exists()
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert main([*words, "--cases", "2", "--sizes", "3", "--trunk", "90,110,120"]) == 0
    finally:
        os.sched_setaffinity(0, cores)
    assert sorted(path.name for path in out.iterdir()) == ["cohort.json", "cohort.md"]
    page, printed = (out / "cohort.md").read_text("utf-8"), capsys.readouterr().out
    assert page in printed and "2 drawn scans of one vertebra, weights tiny (" in page
    data = json.loads((out / "cohort.json").read_text("utf-8"))
    alone, cohort = data["alone"]["processor"], data["cohort"]["processor"]
    assert alone > cohort > 2 * 0.1, "the start of a process costs more than a case"
    ratios = dict(line.strip("| ").split(" | ") for line in page.splitlines() if " times |" in line)
    assert ratios["cases per processor hour, 1 worker against a process each"] == (
        f"{alone / cohort:.1f} times"
    )
    assert len(ratios) == 5 and data["plan"] == {"workers": 1, "threads": 1}
    assert 0 <= data["overhead"] < 0.5 < data["case_seconds"] * 20
    assert 100 < data["small_mb"] < 4000 and "CT of 90 x 110 x 120 voxels" in page
    assert [one["cases"] for one in data["growth"]] == [3] and "\n| 3 | " in page


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """A Dask scheduler with two workers, each in a process that starts it again when it dies."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    address = ["--host", "127.0.0.1", "--no-dashboard"]
    words = [
        ["dask_scheduler", "--port", "0", "--scheduler-file", str(file), *address],
        *[["dask_worker", "--scheduler-file", str(file), "--nthreads", "1", *address]] * 2,
    ]
    with (tmp_path / "dask.log").open("wb") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{name}", *options],
                env=environment,
                cwd=tmp_path,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for name, *options in words
        ]
        try:
            wait_for(file.is_file)
            yield file
        finally:
            for process in processes:
                for one in reversed(tree(process.pid)):
                    os.kill(one.pid, signal.SIGKILL)
                process.wait()


@pytest.mark.slow
@linux
def test_a_cluster_gives_the_same_bytes_though_a_worker_is_killed(
    finished: Path, tiny_weights: Path, slow_weights: Path, cluster: Path, tmp_path: Path
) -> None:
    """What a worker of this machine has made is compared with what two of a cluster make."""
    from distributed import Client

    there = tmp_path / "there"
    files = Files(finished.parent, tiny_weights)
    engine = ("--scheduler", str(cluster))
    with Client(scheduler_file=str(cluster), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        processes = client.run(os.getpid)
        running = child(files.words(there, "--each", *engine))
        try:
            folders = [there / "cases" / name for name in "AB"]
            wait_for(lambda: any((f / LOCK).exists() for f in folders), pause=0.005)
            victim = next(f for f in folders if (f / LOCK).exists())
            busy = [worker for worker, keys in client.processing().items() if keys]
            os.kill(processes[busy[0]], signal.SIGKILL)
            assert any(read_record(f) is None for f in folders), "nothing was left to be lost"
            assert running.wait(240) == 0, running.stderr and running.stderr.read()
        finally:
            running.kill()
        assert read_record(victim) is not None
        for folder in folders:
            same = finished / folder.relative_to(there)
            for name in ("lesions.seg.nrrd", "candidates.csv", "overview.png", "findings.png"):
                assert (folder / name).read_bytes() == (same / name).read_bytes()
        for name in ("vertebrae.csv", "lesions.csv"):
            assert (there / name).read_bytes() == (finished / name).read_bytes()

        # A case that takes too long ends its worker, and is a row; another worker takes it as such.
        client.wait_for_workers(2, timeout=120)
        lines = (finished.parent / "manifest.csv").read_text("utf-8").splitlines()
        (tmp_path / "manifest.csv").write_text("\n".join(lines[:2]), "utf-8")
        late = Files(tmp_path, slow_weights).words(there, *engine, "--case-timeout", "1")
        assert main(late) == 1
    rows = table(there / "cases.csv")
    assert {row["status"] for row in rows} == {"timed out"} and "1 s" in rows[0]["reason"]


@pytest.mark.slow
def test_training_shards_are_the_same_by_every_engine(
    files: Files, cluster: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One process, worker processes and a scheduler; what cannot be read is told as ever."""
    from hideseekseg.simulation.simulate import COMPACT_GEOMETRY
    from hideseekseg.training.manifest import read_manifest
    from hideseekseg.training.prepare import write_shards

    lines = [f"{ct}.nii.gz,bodies.nii.gz,{ct == 'b':d},{ct},T12,totalsegmentator" for ct in "ab"]
    files.manifest(*lines, "no.nii,no.nii,1,c,,", head="image,mask,label,patient,level,convention")
    table, alone = files.folder / "manifest.csv", tmp_path / "alone"
    write_shards(read_manifest(table), COMPACT_GEOMETRY, alone, lambda *words: None)
    whole = {path.name: path.read_bytes() for path in alone.glob("shard-*")}
    assert len(whole) == 2
    for name, options in (("pool", ["--workers", "2"]), ("dask", ["--scheduler", str(cluster)])):
        out = tmp_path / name
        assert main(["prepare", str(table), "--out", str(out), *options]) == 0
        assert {path.name: path.read_bytes() for path in out.glob("shard-*")} == whole
        said = capfd.readouterr().out
        assert "line 4: image: " in said and "left out: 1 of 3" in said
    times = {path: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    assert main(["prepare", str(table), "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times, "it goes on where it was"


def test_a_scheduler_that_is_not_there_is_one_line(
    files: Files, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed")
    files.manifest(GOOD[0])
    for nowhere in (str(tmp_path / "none.json"), "tcp://127.0.0.1:9"):
        assert main(files.words(tmp_path / "out", "--scheduler", nowhere)) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and f"{nowhere}: " in said
        assert "no Dask scheduler answers" in said


def test_the_guides_configuration_gives_a_job_script(tmp_path: Path) -> None:
    """Without Slurm: what would be submitted for each worker, by the guide's own lines."""
    jobqueue = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    import dask

    guide = (LIBRARY.parent / "Resources" / "Docs" / "cohorts.md").read_text("utf-8")
    block = guide.partition("```yaml")[2].partition("```")[0]
    (tmp_path / "jobqueue.yaml").write_text(block, "utf-8")
    told = dask.config.collect([str(tmp_path)], env={})
    options = {"dashboard_address": None, "host": "127.0.0.1"}
    before = dask.config.get("jobqueue", {})
    try:
        dask.config.update(dask.config.config, told, priority="new")
        with jobqueue.SLURMCluster(scheduler_options=options) as cluster:
            script, address = cluster.job_script(), cluster.scheduler_address
    finally:
        dask.config.set({"jobqueue": before})
    for line in ("#SBATCH -p normal", "#SBATCH --mem=4G", "#SBATCH -t 08:00:00"):
        assert line in script.splitlines()
    assert f"dask_worker {address} " in script and "--nthreads 1 " in script
    assert "source my-environment/bin/activate" in script
