"""The report for people: what it says, what it leaves open, and that it asks for nothing."""

from __future__ import annotations

import json
import re
import time
import warnings
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from helpers.findings import (
    CROP_AXES,
    accepted_review,
    ball,
    body_centre,
    make_candidate,
    make_ct,
    make_grid,
    make_result,
    store_result,
)
from hideseekseg.anatomy.vertebra_shape import (
    alignment,
    body_heights,
    describe_place,
    height_loss,
    place_in_body,
    reaches_posterior_wall,
)
from hideseekseg.cli.main import main
from hideseekseg.errors import InputError
from hideseekseg.findings import Evidence, Result, Status, VertebraFinding
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.output.report import make_report
from hideseekseg.output.report_html import write_html
from hideseekseg.output.report_lesions import measured
from hideseekseg.output.report_pdf import write_pdf
from hideseekseg.output.result_folder import read_result, write_vertebra
from hideseekseg.output.review_export import export_accepted
from hideseekseg.output.seg_nrrd import write_segmentation
from hideseekseg.output.tables import write_json
from hideseekseg.pacs.transfer import make_objects
from hideseekseg.review.burden import lesion_burden
from hideseekseg.review.review import Reason, Review, Verdict


class WrittenReport(HTMLParser):
    """What a person reads of a report, and what its page asks for."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.asked: list[str] = []
        self.tags: list[str] = [""]
        self.rows: list[list[str]] = []
        self.source = file.read_text("utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1] != "style":
            self.words.append(data)
        if self.tags[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, *beginning: str) -> list[str]:
        (found,) = (row for row in self.rows if row[: len(beginning)] == list(beginning))
        return found


GRID = make_grid((60, 50, 60), (2.0, 2.0, 2.5))
Verdicts = dict[str, tuple[Verdict, Reason]]


def report(folder: Path, *more: str) -> WrittenReport:
    out = folder / "report.html"
    assert main(["report", str(folder), "--out", str(out), *more]) == 0
    return WrittenReport(out)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    store_result(folder, make_ct(GRID))
    return folder


def test_it_says_what_was_analysed_and_what_not_and_why(run: Path) -> None:
    page = report(run)
    said = "3 lesions (2 lytic and 1 blastic) in 2 of 3 vertebrae analysed: T10, L1."
    assert f"{said} Not analysed: T12." in page.text
    assert page.row("T12") == ["T12", "Not analysed: metal", "", ""]
    assert page.row("T10", "2 lesions outlined")[2:] == ["0.98", "cut by the field of view"]
    assert page.row("T11")[1] == "Unremarkable"
    assert "Not reviewed: these are the findings of the method." in page.text
    assert page.text.count("Research use only. Not a medical device") == 2
    assert page.row("Threshold")[1] == "0.5" and "0123456789abcdef" in page.row("Weights")[1]
    assert page.row("Versions")[1] == "hideseekseg 0.1.7"


def test_burden_is_by_level_with_lytic_and_blastic_apart(run: Path) -> None:
    page, result = report(run), make_result(GRID)
    volumes = [c.volume_mm3 / 1000 for v in result.vertebrae for c in v.accepted(0.5)]
    blastic, lytic, of_l1 = volumes
    share = f"{100 * 1000 * blastic / 28800:.1f} %"
    assert page.row("T10", "blastic")[2:5] == ["1", f"{blastic:.2f} mL", share]
    assert page.row("L1", "lytic")[2:5] == ["1", f"{of_l1:.2f} mL", "not known"]
    assert page.row("All levels", "lytic")[2:4] == ["2", f"{lytic + of_l1:.2f} mL"]
    assert page.row("All levels", "both")[2:4] == ["3", f"{sum(volumes):.2f} mL"]
    assert page.row("T10", "blastic")[5:] == ["15 mm", "712 HU"]


def test_each_finding_has_its_pictures_and_asks_for_nothing(run: Path) -> None:
    page = report(run)
    assert len(page.asked) == 3 * 4
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.asked)
    assert "default-src 'none'" in page.source and not re.search(r"https?:|url\(", page.source)
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert "Lytic lesion of T10, central, posterior, middle third of the body" in page.text


def test_elements_of_stability_are_named_and_no_total_is_claimed(run: Path) -> None:
    page = report(run)
    assert "so no total is given" in page.text
    rows = [row for row in page.rows if row[0] == "Location"]
    assert rows == [["Location", "semi-rigid"], ["Location", "junctional"]]
    quality = [row[1] for row in page.rows if row[0] == "Bone lesion"]
    assert quality == ["mixed (lytic and blastic)", "lytic"]
    bodies = [row[1] for row in page.rows if row[0] == "Vertebral body"]
    assert bodies[0].startswith("height 24, 24, 24 mm (front, middle, back), no loss of 20 %")
    assert "against T11" in bodies[0] and "lesions take" in bodies[0]
    assert bodies[1] == "height not compared: no neighbour was analysed"
    assert all(row[1] == "not assessable on images" for row in page.rows if row[0] == "Pain")
    assert page.rows.count(["Pain", "not assessable on images"]) == 2


def test_neighbours_are_those_of_anatomy_in_whatever_order_vertebrae_were_analysed(
    tmp_path: Path,
) -> None:
    """Runs of single levels, merged in a window, bring them in any order."""
    made = make_result(GRID)
    x, y, z = body_centre(1)
    lesion = make_candidate("T11-1", "lytic", 0.9, ball(GRID, (x, y, z), 5.0), GRID)
    found = replace(made.vertebrae[1], status=Status.FINDINGS, candidates=(lesion,))
    other = VertebraFinding("T12", Status.NO_FINDING, p_malignant=0.02)
    vertebrae = (made.vertebrae[0], found, other, made.vertebrae[3])
    result = store_result(tmp_path, make_ct(GRID), replace(made, vertebrae=vertebrae))
    for n, lean in ((0, 12.0), (2, -8.0)):
        vertebra, seen = vertebrae[n], result.evidence[vertebrae[n].level]
        axes = crop(lean).direction
        turned = make_grid(seen.grid.shape, (0.8, 0.8, 1.0), axes, body_centre(n))
        leaning = replace(seen, grid=turned)
        file = tmp_path / "vertebrae" / f"{vertebra.level}.npz"
        write_vertebra(file, vertebra, leaning, result.run["scan"])
    in_order = report(tmp_path)
    said = dict(in_order.rows[in_order.rows.index(["Location", "junctional"]) :][:7])
    assert said["Alignment"].startswith("20° kyphosis and 0° tilt to the side between T10 and T12")
    assert "against T10 and T12" in said["Vertebral body"]

    for order in ((3, 2, 1, 0), (1, 0, 3, 2)):
        scrambled = replace(result, vertebrae=tuple(vertebrae[n] for n in order))
        write_json(tmp_path / "candidates.json", scrambled)
        page = report(tmp_path)
        assert page.rows == in_order.rows

    without = replace(result, vertebrae=(vertebrae[0], other, vertebrae[3]))
    write_json(tmp_path / "candidates.json", without)
    write_segmentation(tmp_path / "lesions.seg.nrrd", GRID, without)
    bodies = [row[1] for row in report(tmp_path).rows if row[0] == "Vertebral body"]
    assert bodies[0].startswith("height not compared: no neighbour"), "T11 lies between"


def test_a_review_keeps_vertebrae_from_the_head_down(tmp_path: Path) -> None:
    made = store_result(tmp_path, make_ct(GRID))
    accepted_review(tmp_path, make_ct(GRID), made)
    in_order = report(tmp_path)
    levels = [row[0] for row in in_order.rows[1:5]]
    assert levels == ["T10", "T11", "T12", "L1"]
    scrambled = replace(made, vertebrae=tuple(made.vertebrae[n] for n in (3, 1, 0, 2)))
    review = accepted_review(tmp_path, make_ct(GRID), scrambled)
    table = (tmp_path / "burden.csv").read_text("utf-8").splitlines()
    assert [row.split(",")[1] for row in table[1:3]] == ["T10", "T11"]
    assert report(tmp_path).rows == in_order.rows
    saved = review.to_json()
    kept = Review.from_json({**saved, "vertebrae": saved["vertebrae"][::-1]})
    for one in (review, kept):
        assert [state.level for state in one.states()] == levels
    exported = json.loads((tmp_path / "review.json").read_text("utf-8"))
    exported["vertebrae"].reverse()  # as version 0.1 may have written it
    (tmp_path / "review.json").write_text(json.dumps(exported))
    assert report(tmp_path).rows == in_order.rows


def test_a_review_says_who_accepted_and_what_was_left_open(run: Path, tmp_path: Path) -> None:
    result = store_result(tmp_path, make_ct(GRID))
    accepted_review(tmp_path, make_ct(GRID), result)
    page = report(tmp_path)
    assert "Reviewed by R. Ader, 2026-03-04 05:06:07" in page.text
    assert "2 lesions (1 lytic and 1 blastic) in 2 of 3 vertebrae analysed: T10, T11." in page.text
    assert "1 finding rejected by the reader." in page.text
    assert "not reviewed, not counted: L1 lytic 1." in page.text
    assert page.row("L1")[1] == "Lesion outlined, not reviewed and not counted"
    assert "Comment: sclerotic <b>rim</b>" in page.text and "b" not in page.tags
    assert "Drawn by the reader; the method did not find it." in page.text
    again = report(tmp_path, "--unreviewed")
    assert (
        "Not reviewed: these are the findings of the method." in again.text
        and "3 lesions" in again.text
    )


def test_states_count_accepted_lesions_and_say_what_is_left_open(tmp_path: Path) -> None:
    made = make_result(GRID)
    *others, last = made.vertebrae
    made = replace(made, vertebrae=(*others, replace(last, p_malignant=0.97)))
    result = store_result(tmp_path, make_ct(GRID), made)
    review = accepted_review(tmp_path, make_ct(GRID), result)

    def said(**verdicts: Verdict) -> tuple[list[str], str]:
        for name, verdict in verdicts.items():
            review.judge(name.replace("_", "-"), verdict)
        patches = {c.id: c.patch for v in result.vertebrae for c in v.candidates if c.patch}
        patches["T11-added-1"] = ball(GRID, body_centre(1), 5.0)
        when = datetime(2026, 3, 4)
        export_accepted(tmp_path, review, patches, GRID, result.run, "", when)
        page = report(tmp_path)
        first = page.rows.index(["Level", "State", "P(malignant)", "Remarks"])
        return [row[1] for row in page.rows[first + 1 : first + 5]], page.text

    uncertain = "Lesion outlined, uncertain and not counted"
    states, text = said(T10_2="uncertain", L1_1="uncertain")
    assert states == [
        "Lesion outlined; not counted: 1 uncertain",
        "Lesion outlined",
        "Not analysed: metal",
        uncertain,
    ]
    assert "2 lesions (1 lytic and 1 blastic) in 2 of 3 vertebrae analysed: T10, T11." in text
    assert "Suspicious without an outline: L1." in text
    states, text = said(T10_1="uncertain", T10_2="unreviewed", T11_added_1="uncertain")
    open_ = "2 lesions outlined, 1 uncertain and 1 not reviewed, not counted"
    assert states[:2] == [open_, uncertain]
    assert "No lesion outlined in 3" in text and "Suspicious without an outline: T10, L1." in text
    states, text = said(L1_1="rejected", T10_1="accepted", T10_2="accepted", T10_3="uncertain")
    assert states[0] == "2 lesions outlined; not counted: 1 uncertain"
    assert (
        states[3] == "Suspicious, nothing outlined (best candidate lytic, 0.66), findings rejected"
    )


def test_a_lesion_drawn_where_nothing_was_analysed_stands_apart(tmp_path: Path) -> None:
    result = store_result(tmp_path, make_ct(GRID))
    review = accepted_review(tmp_path, make_ct(GRID), result)
    drawn = review.add_missed("T12", "lytic")
    review.judge("T11-added-1", "rejected")
    whole = ball(GRID, body_centre(2), 5.0)
    x, y, z = body_centre(0)
    patches = {"T10-1": ball(GRID, (x, y, z), 6.0), drawn: whole}
    when = datetime(2026, 3, 4)
    export_accepted(tmp_path, review, patches, GRID, result.run, "R. Ader", when)
    pages = [report(tmp_path)]
    exported = json.loads((tmp_path / "review.json").read_text("utf-8"))
    assert "1 not analysed" in exported["summary"]
    for vertebra in exported["vertebrae"]:
        del vertebra["analysed"]  # as version 0.1 wrote it
    (tmp_path / "review.json").write_text(json.dumps(exported))
    pages.append(report(tmp_path))
    for page in pages:
        said = "in 1 of 3 vertebrae analysed: T10, and in 1 not analysed: T12. Not analysed: T12."
        assert said in page.text
        assert page.row("T12", "Lesion outlined; not analysed: metal")
        assert page.row("T12", "lytic")[4] == page.row("All levels", "both")[4] == "not known"


def test_a_review_of_another_run_is_not_the_review_of_this_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new run went into a folder that holds an exported review."""
    ct = make_ct(GRID)
    result = store_result(tmp_path, ct)
    accepted_review(tmp_path, ct, result)
    ten, *others = result.vertebrae
    rescored = replace(
        ten, candidates=(replace(ten.candidates[0], score=0.92), *ten.candidates[1:])
    )
    words = ["report", str(tmp_path), "--out", str(tmp_path / "r.html")]
    fewer, more = result.vertebrae[:3], changed(result).vertebrae
    runs = {"L1-1": fewer, "L1-2": more, "T10-1": (rescored, *others)}
    for differs, vertebrae in runs.items():
        again = replace(result, vertebrae=vertebrae)
        write_json(tmp_path / "candidates.json", again)
        write_segmentation(tmp_path / "lesions.seg.nrrd", GRID, again)
        assert main(words) == 2 and not (tmp_path / "r.html").exists()
        (line,) = capsys.readouterr().err.splitlines()
        assert f"contains a review of another run than candidates.json ({differs} differs)" in line
        assert "or take --unreviewed" in line
        with pytest.raises(InputError, match="review of another run"):
            make_objects(tmp_path, tmp_path / "ct")
        assert not (tmp_path / "dicom").exists(), "nothing that could be sent"
    store_result(tmp_path, ct, again)
    assert main([*words, "--unreviewed"]) == 0
    store_result(tmp_path, ct, replace(result, threshold=0.3))
    assert "Reviewed by R. Ader" in report(tmp_path).text, "the same findings, run again"


def test_images_of_another_run_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run with --each ended midway; a window keeps images without findings."""
    result = store_result(tmp_path, make_ct(GRID))
    ten, eleven = result.vertebrae[:2]
    scan, file = result.run["scan"], tmp_path / "vertebrae" / "T10.npz"
    for candidates in (ten.candidates[:2], ()):
        write_vertebra(file, replace(ten, candidates=candidates), result.evidence["T10"], scan)
        assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "T10.npz: is of another run than the result beside it" in line
    write_vertebra(file, VertebraFinding("T10", Status.FINDINGS), result.evidence["T10"], scan)
    assert len(report(tmp_path).asked) == 3 * 4
    write_vertebra(file, eleven, result.evidence["T11"], scan)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 2


def test_without_stored_images_it_says_so(run: Path, tmp_path: Path) -> None:
    store_result(tmp_path, make_ct(GRID))
    (tmp_path / "vertebrae" / "L1.npz").unlink()
    page = report(tmp_path)
    assert page.text.count("No stored image shows it.") == 1 and len(page.asked) == 2 * 4
    for file in (tmp_path / "vertebrae").iterdir():
        file.unlink()
    page = report(tmp_path)
    assert "contains no images of the vertebrae" in page.text and "run it with --each" in page.text
    assert not page.asked and "SINS" not in page.text
    assert "3 lesions" in page.text


def test_nothing_found_is_said_with_what_it_does_not_exclude(tmp_path: Path) -> None:
    store_result(tmp_path, make_ct(GRID), make_result(GRID).with_threshold(0.99))
    page = report(tmp_path)
    assert "No lesion outlined in 3 vertebrae analysed. This does not exclude one." in page.text
    assert "Suspicious without an outline: T10." in page.text
    assert page.row("All levels", "both")[2:4] == ["0", "0.00 mL"]


@pytest.mark.parametrize("name", ["results", "browser"])
def test_results_and_reviews_of_version_0_1_can_be_reported(name: str, tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "data" / "version-0.1" / name
    assert main(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    page = WrittenReport(tmp_path / "report.html")
    assert re.search(r"\d lesions? \(", page.text) and "What was analysed" in page.text
    assert any(row[:1] == ["L1"] for row in page.rows)


def changed(result: Result) -> Result:
    """T10-1 grew and moved by 2 mm, T10-2 is gone, L1 has a second lesion."""
    first, *others = result.vertebrae
    x, y, z = body_centre(0)
    grown = make_candidate("T10-1", "blastic", 0.95, ball(GRID, (x, y - 2, z), 8.0), GRID)
    x, y, z = body_centre(3)
    new = make_candidate("L1-2", "blastic", 0.8, ball(GRID, (x - 15, y, z + 5), 4.0), GRID)
    last = replace(others[-1], candidates=(*others[-1].candidates, new))
    return replace(result, vertebrae=(replace(first, candidates=(grown,)), *others[:-1], last))


def later_ct() -> Volume:
    """The same patient at another time."""
    ct = make_ct(GRID)
    return replace(ct, array=ct.array + 1)


def follow_up(page: WrittenReport) -> dict[tuple[str, str], list[str]]:
    """What is said of each lesion, by its name now and before."""
    first = page.rows.index(page.row("Lesion", "Earlier", "State")) + 1
    rows = iter(page.rows[first:])
    return {(row[0], row[1]): row[2:] for row in takewhile(lambda row: len(row) == 7, rows)}


def test_follow_up_tells_grown_new_and_gone(run: Path, tmp_path: Path) -> None:
    store_result(tmp_path, later_ct(), changed(make_result(GRID)))
    page = report(tmp_path, "--earlier", str(run))
    states = follow_up(page)
    assert set(states) == {
        ("T10 blastic 1", "T10 blastic 1"),
        ("L1 lytic 1", "L1 lytic 1"),
        ("L1 blastic 1", ""),
        ("", "T10 lytic 1"),
    }
    there, before, now, growth, density = states["T10 blastic 1", "T10 blastic 1"]
    assert there == "there before" and density == "+0 HU"
    assert re.fullmatch(r"\+\d\.\d\d mL \(\+\d+ %\)", growth) and now > before
    assert states["L1 lytic 1", "L1 lytic 1"][3] == "+0.00 mL (+0 %)"
    assert states["L1 blastic 1", ""][0] == "new"
    assert states["", "T10 lytic 1"][0] == "gone"
    assert "That both are of one patient is not known to this report." in page.text


def test_follow_up_tells_what_joined_and_what_split(run: Path, tmp_path: Path) -> None:
    result = make_result(GRID)
    first, *others = result.vertebrae
    x, y, z = body_centre(0)
    joined = make_candidate("T10-1", "blastic", 0.95, ball(GRID, (x, y, z), 14.0), GRID)
    result = replace(result, vertebrae=(replace(first, candidates=(joined,)), *others))
    store_result(tmp_path, later_ct(), result)
    said = follow_up(report(tmp_path, "--earlier", str(run)))
    two = "T10 blastic 1, T10 lytic 1"
    assert set(said) == {("T10 blastic 1", two), ("L1 lytic 1", "L1 lytic 1")}
    state, before, now, growth, _ = said["T10 blastic 1", two]
    assert state == "there before as blastic and lytic, 2 joined" and growth.startswith("+")
    assert float(now.split()[0]) > float(before.split()[0])
    said = follow_up(report(run, "--earlier", str(tmp_path)))
    assert said[two, "T10 blastic 1"][0] == "there before as blastic, split into 2"


def test_levels_that_may_be_numbered_otherwise_are_told(run: Path, tmp_path: Path) -> None:
    """Lesions are matched by level: one off, all is compared with the neighbours."""
    names = {"T10": "T11", "T11": "T12", "T12": "L1", "L1": "L2"}
    result = make_result(GRID)
    moved = [replace(v, level=names[v.level]) for v in result.vertebrae]
    store_result(tmp_path / "off", later_ct(), replace(result, vertebrae=tuple(moved)))
    page = report(tmp_path / "off", "--earlier", str(run))
    assert "if one of them is numbered otherwise" in page.text
    store_result(tmp_path / "same", later_ct(), result)
    page = report(tmp_path / "same", "--earlier", str(run))
    assert "numbered otherwise" not in page.text


def test_what_was_merely_not_compared_is_neither_new_nor_gone(run: Path, tmp_path: Path) -> None:
    result = make_result(GRID)
    ten, *others = result.vertebrae
    skipped = VertebraFinding("T10", Status.NOT_ANALYSED, reason="metal")
    store_result(tmp_path / "a", later_ct(), replace(result, vertebrae=(skipped, *others)))
    why = "not compared: T10 not analysed in"
    said = follow_up(report(tmp_path / "a", "--earlier", str(run)))
    for name in ("T10 blastic 1", "T10 lytic 1"):
        state, before, *changes = said["", name]
        assert state == f"{why} this result: metal" and before.endswith(" mL")
        assert not "".join(changes).strip(), "no change where nothing is compared"
    said = follow_up(report(run, "--earlier", str(tmp_path / "a")))
    assert said["T10 lytic 1", ""][0] == f"{why} the earlier result: metal"
    assert said["L1 lytic 1", "L1 lytic 1"][0] == "there before"

    store_result(tmp_path / "b", later_ct(), replace(result, vertebrae=(ten, *others[:2])))
    said = follow_up(report(tmp_path / "b", "--earlier", str(run)))
    assert said["", "L1 lytic 1"][0] == "not compared: L1 not analysed in this result"

    store_result(tmp_path / "c", later_ct())
    (tmp_path / "c" / "vertebrae" / "L1.npz").unlink()
    for now, old, name in ((tmp_path / "c", run, "this"), (run, tmp_path / "c", "the earlier")):
        said = follow_up(report(now, "--earlier", str(old)))
        for names in (("L1 lytic 1", ""), ("", "L1 lytic 1")):
            state, *_, growth, density = said[names]
            assert state == f"not compared: no image of L1 in {name} result"
            assert not growth and not density.strip()


def test_findings_that_a_reader_left_open_are_neither_new_nor_gone(
    run: Path, tmp_path: Path
) -> None:
    """T10 blastic 1 is uncertain, T10 lytic 1 rejected, L1 lytic 1 open, T11 has a drawn one."""
    result = store_result(tmp_path, later_ct())
    review = accepted_review(tmp_path, later_ct(), result)
    review.judge("T10-1", "uncertain")
    patches = {"T11-added-1": ball(GRID, body_centre(1), 4.0)}
    when = datetime(2026, 3, 4)
    export_accepted(tmp_path, review, patches, GRID, result.run, "", when)
    alone = "not compared: accepted by the reader alone, and"
    said = follow_up(report(tmp_path, "--earlier", str(run)))
    assert {names: row[0] for names, row in said.items()} == {
        ("T11 lytic added 1", ""): f"{alone} the earlier result is not reviewed",
        ("", "T10 blastic 1"): "not compared: uncertain in this result",
        ("", "T10 lytic 1"): "rejected now",
        ("", "L1 lytic 1"): "not compared: not reviewed in this result",
    }
    for name in ("T10 blastic 1", "L1 lytic 1"):
        assert not "".join(said["", name][2:]).strip()
    (tmp_path / "vertebrae" / "L1.npz").unlink()
    said = follow_up(report(run, "--earlier", str(tmp_path)))
    assert said["L1 lytic 1", ""][0] == "not compared: no image of L1 in the earlier result"
    assert said["T10 blastic 1", ""][0] == "not compared: uncertain in the earlier result"
    assert said["T10 lytic 1", ""][0] == "rejected before"
    assert said["", "T11 lytic added 1"][0] == f"{alone} this result is not reviewed"


def judged_result(folder: Path, result: Result, verdicts: Verdicts) -> None:
    """Store a review of the patient's later scan; what is not named is accepted."""
    result = store_result(folder, later_ct(), result)
    review = Review(result.threshold)
    for vertebra in result.vertebrae:
        review.add_vertebra(vertebra)
    for item in review.items:
        review.judge(item.id, *verdicts.get(item.id, ("accepted", "")))
    patches = {c.id: c.patch for v in result.vertebrae for c in v.candidates if c.patch}
    export_accepted(folder, review, patches, GRID, result.run, "", datetime(2026, 3, 4))


def test_what_a_reader_rejected_at_its_place_is_neither_gone_nor_new(
    run: Path, tmp_path: Path
) -> None:
    """Two lesions that joined one that was rejected are both "rejected now"; no burden counts it.

    One that is rejected beside one that is accepted says nothing of the lesion that this is.
    """
    result = make_result(GRID)
    first, *others = result.vertebrae
    x, y, z = body_centre(0)
    joined = make_candidate("T10-1", "blastic", 0.95, ball(GRID, (x, y, z), 14.0), GRID)
    x, y, z = body_centre(3)
    beside = make_candidate("L1-2", "lytic", 0.51, ball(GRID, (x + 6, y, z), 3.0), GRID)
    last = replace(others[-1], candidates=(*others[-1].candidates, beside))
    later = (replace(first, candidates=(joined,)), *others[:-1], last)
    result = replace(result, vertebrae=later)
    no: Verdicts = {"T10-1": ("rejected", "haemangioma"), "L1-2": ("rejected", "")}
    judged_result(tmp_path, result, no)
    page = report(tmp_path, "--earlier", str(run))
    said = follow_up(page)
    for name in ("T10 blastic 1", "T10 lytic 1"):
        state, before, *changes = said["", name]
        assert state == "rejected now: haemangioma" and before.endswith(" mL")
        assert not "".join(changes).strip(), "nothing became smaller"
    assert said["L1 lytic 1", "L1 lytic 1"][0] == "there before"
    assert len(said) == 3
    assert "its reader rejected it" in page.text and "1 lesion (" in page.text
    assert not [row for row in page.rows if row[:1] == ["T10"] and "blastic" in row]
    said = follow_up(report(run, "--earlier", str(tmp_path)))
    assert said["T10 blastic 1", ""][0] == "rejected before: haemangioma"

    (tmp_path / "vertebrae" / "T10.npz").unlink()
    said = follow_up(report(tmp_path, "--earlier", str(run)))
    for name in ("T10 blastic 1", "T10 lytic 1"):
        assert said["", name][0] == "not compared: no image of T10 in this result"


def test_a_lesion_is_gone_where_another_place_was_rejected(run: Path, tmp_path: Path) -> None:
    result = make_result(GRID)
    *others, last = result.vertebrae
    x, y, z = body_centre(3)
    away = make_candidate("L1-1", "lytic", 0.8, ball(GRID, (x - 15, y, z + 8), 3.0), GRID)
    later = (*others, replace(last, candidates=(away,)))
    judged_result(tmp_path, replace(result, vertebrae=later), {"L1-1": ("rejected", "")})
    page = report(tmp_path, "--earlier", str(run))
    assert follow_up(page)["", "L1 lytic 1"][0] == "gone"
    assert "its reader rejected it" not in page.text


def test_one_that_may_be_the_lesion_counts_more_than_one_that_was_rejected(
    run: Path, tmp_path: Path
) -> None:
    """The rejected one lies nearer, and the uncertain one within reach."""
    result = make_result(GRID)
    *others, last = result.vertebrae
    x, y, z = body_centre(3)
    near = make_candidate("L1-1", "lytic", 0.8, ball(GRID, (x, y, z), 3.0), GRID)
    unsure = make_candidate("L1-2", "lytic", 0.7, ball(GRID, (x + 6, y, z), 3.0), GRID)
    later = (*others, replace(last, candidates=(near, unsure)))
    verdicts: Verdicts = {"L1-1": ("rejected", ""), "L1-2": ("uncertain", "")}
    judged_result(tmp_path, replace(result, vertebrae=later), verdicts)
    said = follow_up(report(tmp_path, "--earlier", str(run)))
    assert said["", "L1 lytic 1"][0] == "not compared: uncertain in this result"


def test_an_earlier_result_of_the_same_scan_or_a_later_study_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(now: Path, before: Path) -> str:
        words = ["report", str(now), "--out", str(tmp_path / "r.html"), "--earlier", str(before)]
        assert main(words) == 2 and not (tmp_path / "r.html").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "is of the same scan: a follow-up needs an earlier one" in refused(run, run)
    for name, date in (("old", "20240102"), ("new", "20250102")):
        ct = replace(later_ct(), array=later_ct().array + int(date), identity={"study_date": date})
        store_result(tmp_path / name, ct)
    line = refused(tmp_path / "old", tmp_path / "new")
    assert "is of a later study than old (20250102, 20240102)" in line
    report(tmp_path / "new", "--earlier", str(tmp_path / "old"))
    report(run, "--earlier", str(tmp_path / "new"))  # whose own date is not known


@pytest.mark.parametrize(
    ("paper", "points", "pixels"),
    [("A4", (595.92, 842.88), 657), ("Letter", (612.0, 792.0), 680)],
)
def test_printed_page_is_the_printers_with_a_finding_in_one_row(
    run: Path, paper: str, points: tuple[float, float], pixels: int
) -> None:
    """As a browser prints it: the four pictures of a finding side by side."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from hideseekseg.benchmark.browser import browser, chromium

    if not chromium():
        pytest.skip("Chromium is not installed")
    report(run)
    with browser() as opened:
        page = opened.new_page(viewport={"width": pixels, "height": 986})  # within its margins
        page.emulate_media(media="print")
        page.goto((run / "report.html").as_uri())
        rows = """() => [...document.querySelectorAll('figure')].map((figure) =>
          [...figure.querySelectorAll('img')].map((e) => e.getBoundingClientRect()))"""
        figures = page.evaluate(rows)
        printed = page.pdf(format=paper, prefer_css_page_size=True)
    assert figures and all(len(pictures) == 4 for pictures in figures)
    for pictures in figures:
        assert len({round(one["top"]) for one in pictures}) == 1
        assert all(one["width"] == pytest.approx(41 / 25.4 * 96, abs=1) for one in pictures)
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert boxes
    for box in boxes:
        assert tuple(map(float, box)) == pytest.approx(points, abs=1.5)


def test_a_report_is_whole_or_absent_and_the_pdf_has_the_same_pages_twice(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(run, "--pdf", str(tmp_path / "a.pdf"))
    report(run, "--pdf", str(tmp_path / "b.pdf"))
    first = (tmp_path / "a.pdf").read_bytes()
    assert first.startswith(b"%PDF") and first == (tmp_path / "b.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", first)) >= 2
    capsys.readouterr()
    assert main(["report", str(run), "--out", str(tmp_path / "none" / "x.html")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "x.html: cannot be written" in line and not (tmp_path / "none").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "b.pdf"]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "candidates.json").write_text('{"schema": "1.1", "run": 3}')
    assert main(["report", str(tmp_path / "damaged"), "--out", str(tmp_path / "x.html")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "candidates.json: is damaged" in line and not (tmp_path / "x.html").exists()


def test_a_report_of_seventeen_vertebrae_takes_less_than_three_seconds(
    run: Path, tmp_path: Path
) -> None:
    """By the processor's clock; ten findings."""
    result = make_result(GRID)
    levels = [*(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6))]
    (_, source), *_ = [(v, v) for v in result.vertebrae]
    found = [
        replace(
            source,
            level=level,
            candidates=tuple(replace(c, id=f"{level}-1") for c in source.candidates[:1])
            if n < 10
            else (),
        ).judged(0.5)
        for n, level in enumerate(levels)
    ]
    stored_run = store_result(tmp_path, make_ct(GRID))
    for vertebra in found:
        file = tmp_path / "vertebrae" / f"{vertebra.level}.npz"
        write_vertebra(file, vertebra, stored_run.evidence["T10"], stored_run.run["scan"])
    whole = replace(result, vertebrae=tuple(found))
    write_json(tmp_path / "candidates.json", whole)
    write_segmentation(tmp_path / "lesions.seg.nrrd", GRID, whole)
    began = time.process_time()
    stored = read_result(tmp_path)
    lesions = [measured(stored, lesion) for lesion in stored.lesions]
    burden = lesion_burden(lesions, dict.fromkeys(levels, 28800.0))
    assert time.process_time() - began < 1, "the burden of ten findings"
    assert len(lesions) == 10 and burden[-1].number == 10

    began = time.process_time()
    made = make_report(read_result(tmp_path))
    write_html(tmp_path / "r.html", made)
    assert time.process_time() - began < 3
    assert len(WrittenReport(tmp_path / "r.html").asked) == 40
    write_pdf(tmp_path / "r.pdf", made)


def crop(tilt: float = 0.0) -> Grid:
    """A crop whose vertebra leans forward by so many degrees."""
    angle = np.radians(tilt)
    lean = np.array(
        [
            [1, 0, 0],
            [0, np.cos(angle), -np.sin(angle)],
            [0, np.sin(angle), np.cos(angle)],
        ]
    )
    return make_grid((30, 64, 64), (0.5, 0.6, 1.0), lean @ CROP_AXES)


def box(front: int, rear: int) -> np.ndarray:
    """A body 20 slices wide and 40 rows deep, its height in columns falling from front to rear."""
    body = np.zeros((30, 64, 64), bool)
    for p in range(12, 52):
        height = round(front + (rear - front) * (p - 12) / 39)
        body[5:25, p, 10 : 10 + height] = True
    return body


def test_heights_and_their_loss() -> None:
    grid = crop()
    assert body_heights(box(40, 40), grid) == (20.0, 20.0, 20.0)
    wedge = body_heights(box(20, 40), grid)
    assert wedge is not None
    loss = height_loss(wedge, [(20.0, 20.0, 20.0), (22.0, 22.0, 22.0)])
    np.testing.assert_allclose(loss, (0.43, 0.29, 0.14), atol=0.03)
    cut = box(40, 40)
    cut[:, :, 0] = cut[:, 30, :1]
    cut[5:25, 12:52, 0:10] = True
    assert body_heights(cut, grid) is None, "a body that its crop cuts off has no height"
    assert body_heights(np.zeros_like(cut), grid) is None


def test_kyphosis_is_a_lean_forward_of_what_is_above() -> None:
    found = alignment(crop(12.0), crop(4.0), crop(-8.0))
    np.testing.assert_allclose((found.kyphosis, found.tilt), (20.0, 0.0), atol=1e-6)
    assert alignment(crop(-3.0), crop(), crop(3.0)).kyphosis == pytest.approx(-6.0)


def test_places_and_the_posterior_wall() -> None:
    body, grid = box(40, 40), crop()
    images = (np.zeros(body.shape, np.float32),) * 3
    seen = Evidence(*images, body, grid, *(np.zeros_like(body),) * 3)
    lesion = np.zeros_like(body)
    lesion[14:17, 49:52, 11:14] = True
    assert reaches_posterior_wall(lesion, seen)
    assert not reaches_posterior_wall(np.roll(lesion, -5, axis=1), seen)
    assert not reaches_posterior_wall(np.roll(lesion, 9, axis=0), seen), "where the pedicle is"
    assert describe_place(place_in_body(lesion, body)) == "central, posterior, upper third"
    moved = np.roll(lesion, (8, -35, 30), axis=(0, 1, 2))
    assert describe_place(place_in_body(moved, body)) == "right, anterior, lower third"


def test_names_that_turn_or_break_a_text_are_written_out(tmp_path: Path) -> None:
    store_result(tmp_path, make_ct(GRID))
    file = tmp_path / "candidates.json"
    result = json.loads(file.read_text())
    name = 'DOE </style>"\u202eeht\ud800\0'
    result["run"]["scan"]["patient_name"] = name
    result["vertebrae"][0]["flags"] = [name]
    file.write_text(json.dumps(result))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = report(tmp_path, "--pdf", str(tmp_path / "report.pdf"))
    assert not re.search("[\u202e\0]", page.source) and page.tags.count("style") == 1
    said = 'DOE </style>"\\u202eeht\\ud800\\x00'
    assert f"Vertebral lesions in CT: {said}, ct.nii.gz" in page.text
    assert said in [row[-1] for row in page.rows]
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
