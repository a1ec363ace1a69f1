"""Labels that contradict the anatomy, as the user of the command line is told of them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from hideseekseg.anatomy.labelling import assign
from hideseekseg.anatomy.segment_names import may_be_vertebra
from hideseekseg.anatomy.vertebra_checks import SpineChecks, check_vertebrae
from hideseekseg.cli.main import main
from hideseekseg.errors import InputError
from hideseekseg.events import Message, Started, from_line
from hideseekseg.imaging.reading import read_segmentation

T11, T12, L1 = 33, 32, 31


@pytest.fixture
def relabel(box_files: tuple[Path, Path], tmp_path: Path) -> Any:
    """Write the labels of the drawn spine with other values."""

    def write(values: Mapping[int, int], name: str = "labels.nii.gz") -> Path:
        image = sitk.ReadImage(str(box_files[1]))
        old = sitk.GetArrayFromImage(image)
        new = old.copy()
        for before, after in values.items():
            new[old == before] = after
        made = sitk.GetImageFromArray(new)
        made.CopyInformation(image)
        sitk.WriteImage(made, str(tmp_path / name))
        return tmp_path / name

    return write


@pytest.fixture
def run(
    box_files: tuple[Path, Path],
    calm_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Any:
    """Run ``hideseekseg segment``; return its exit status, what it printed, and candidates.json."""

    def segment(segmentation: Path, *more: str) -> tuple[int, str, dict[str, Any]]:
        files = (str(box_files[0]), str(segmentation), "--out", str(tmp_path / "out"))
        labels = () if "--labels" in more else ("--labels", "totalsegmentator")
        words = ("--no-picture", "--weights", str(calm_weights), *labels, *more)
        status = main(["segment", *files, *words])
        printed = capsys.readouterr()
        result = tmp_path / "out" / "candidates.json"
        return (
            status,
            printed.out + printed.err,
            json.loads(result.read_text("utf-8")) if result.exists() else {},
        )

    return segment


def test_a_gap_is_named_in_terminal_json_and_csv(relabel: Any, run: Any, tmp_path: Path) -> None:
    status, printed, result = run(relabel({T12: 0}))
    assert status == 0
    assert "warning: T12: not segmented" in printed
    assert "T12" in printed and "not analysed: not segmented" in printed
    assert "1 not analysed" in printed
    found = {v["level"]: (v["status"], v["reason"]) for v in result["vertebrae"]}
    assert found["T12"] == ("not analysed", "not segmented")
    assert "T12: not segmented" in result["run"]["notes"]
    rows = list(csv.DictReader((tmp_path / "out" / "candidates.csv").open(encoding="utf-8")))
    assert [row["reason"] for row in rows if row["level"] == "T12"] == ["not segmented"]


def test_windows_are_told_of_a_gap_at_the_start(relabel: Any, run: Any) -> None:
    """The panel and the browser read these events, and show the level as not analysed."""
    _, printed, _ = run(relabel({T12: 0}), "--json-lines")
    events = [event for line in printed.splitlines() if (event := from_line(line))]
    [started] = [event for event in events if isinstance(event, Started)]
    assert started.not_analysed == (("T12", "not segmented"),)
    assert "T12: not segmented" in [e.text for e in events if isinstance(e, Message)]


def test_levels_asked_for_are_not_drowned_in_others(relabel: Any, run: Any) -> None:
    _, _, result = run(relabel({T12: 0}), "--levels", "T11")
    assert [v["level"] for v in result["vertebrae"]] == ["T11"]


def test_reversed_levels_are_refused_in_one_line(relabel: Any, run: Any) -> None:
    labels = relabel({T11: L1, L1: T11})
    status, printed, result = run(labels)
    assert (status, result) == (2, {})
    assert printed.count("\n") == 1
    assert str(labels) in printed and "from foot to head" in printed


def test_two_in_one_label_are_not_analysed(relabel: Any, run: Any, tiny_weights: Path) -> None:
    status, printed, result = run(relabel({T12: L1}), "--weights", str(tiny_weights))
    found = {v["level"]: v for v in result["vertebrae"]}
    assert status == 0
    assert found["L1"]["status"] == found["T12"]["status"] == "not analysed"
    assert "pieces" in found["L1"]["reason"] or "more than one" in found["L1"]["reason"]
    assert found["L1"]["candidates"] == []
    assert found["L1"]["reason"] in printed


def test_where_only_that_one_is_asked_for_the_run_is_refused(relabel: Any, run: Any) -> None:
    status, printed, _ = run(relabel({T12: L1}), "--levels", "L1")
    assert status == 2
    assert printed.count("\n") == 1 and "no vertebra can be analysed: L1: its label" in printed


def test_a_jump_flags_every_level_everywhere(relabel: Any, run: Any) -> None:
    """L1 and L3 touch: there is no L2 between them, so that no level can be trusted."""
    _, printed, result = run(relabel({T11: T12, T12: L1, L1: 29}))
    flags = {v["level"]: v["flags"] for v in result["vertebrae"]}
    assert set(flags) == {"T12", "L1", "L3"}
    for said in flags.values():
        assert any("no room for L2" in flag for flag in said)
    assert any("no room for L2" in note for note in result["run"]["notes"])
    assert printed.count("no room for L2") >= 4  # a warning, and each line of the table


def test_names_that_are_not_understood_are_in_the_result(
    box_files: tuple[Path, Path], run: Any, tmp_path: Path
) -> None:
    image = sitk.ReadImage(str(box_files[1]))
    names = {T11: "T11 edited", T12: "Knochen 7b", L1: "1. Lendenwirbel"}
    for n, (value, name) in enumerate(names.items()):
        image.SetMetaData(f"Segment{n}_ID", f"Segment_{n}")
        image.SetMetaData(f"Segment{n}_Name", name)
        image.SetMetaData(f"Segment{n}_LabelValue", str(value))
        image.SetMetaData(f"Segment{n}_Layer", "0")
    sitk.WriteImage(image, str(tmp_path / "named.seg.nrrd"))
    status, printed, result = run(tmp_path / "named.seg.nrrd", "--labels", "names")
    found = {v["level"]: (v["status"], v["reason"]) for v in result["vertebrae"]}
    assert status == 0
    assert set(found) == {"T11", "L1", "Knochen 7b"}
    assert found["Knochen 7b"] == ("not analysed", "name not understood")
    assert "1 not analysed" in printed


def test_bodies_with_arches_are_not_taken_for_bodies(
    box_files: tuple[Path, Path], relabel: Any, run: Any
) -> None:
    """Subregions of SPINEPS: 49 and 50 alone are bodies, 41 is the arch."""
    image = sitk.ReadImage(str(box_files[1]))
    bodies = sitk.GetArrayFromImage(image)
    whole = bodies.copy()
    parts = np.where(bodies > 0, 50, 0).astype(np.uint8)
    for value in (T11, T12, L1):
        k, j, i = (slice(s.min(), s.max() + 1) for s in np.nonzero(bodies == value))
        arch = (slice(k.start + 2, k.stop - 2), slice(j.stop, j.stop + 5), i)
        whole[arch], parts[arch] = value, 41
    files = []
    for array, name in ((whole, "whole.nii.gz"), (parts, "parts.nii.gz")):
        made = sitk.GetImageFromArray(array)
        made.CopyInformation(image)
        files.append(box_files[1].parent / name)
        sitk.WriteImage(made, str(files[-1]))
    _, _, result = run(files[0], "--bodies", str(files[1]))
    expected = (bodies == T12).sum() * float(np.prod(image.GetSpacing()))
    found = {v["level"]: v for v in result["vertebrae"]}
    assert found["T12"]["body_source"] == "intersected"
    assert found["T12"]["body_mm3"] == pytest.approx(expected)
    status, printed, _ = run(files[1])
    assert status == 2 and "--bodies" in printed


SHARED = {
    "reversed": ("refused", "foot to head"),
    "missing": ("T12", "not segmented"),
    "merged": ("L1", "more than one vertebra"),
    "split": ("T12", "2 pieces"),
    "v3": ("S1", "L6 in version 3"),
    "enum": ("refused", "counts its vertebrae"),
    "verse_sacrum": ("sacrum", "not a single vertebra"),
    "edited": ("", ""),
    "lumbarized": ("", ""),
    "ts_folder": ("", ""),
    "dicom_seg": ("", ""),
}


@pytest.fixture(scope="module")
def cases(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = shared / "cases" / "make_cases.py"
    if not script.is_file():
        pytest.skip("the tricky inputs of ../shared/cases are not here")
    folder = tmp_path_factory.mktemp("cases")
    assert main(["example", "--out", str(folder / "example")]) == 0
    words = [str(script), str(folder / "example"), str(folder), "--only", *SHARED]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_tricky_labels_of_the_shared_cases(cases: Path, name: str) -> None:
    case = json.loads((cases / name / "case.json").read_text("utf-8"))
    options = case["command_options"]
    labels = options[options.index("--labels") + 1] if "--labels" in options else None
    concerned, words = SHARED[name]
    try:
        segmentation = read_segmentation(cases / name / case["segmentation"], may_be_vertebra)
        assignments = assign(segmentation, labels)
        checks = check_vertebrae(segmentation, assignments)
    except InputError as error:
        assert concerned == "refused" and words in error.cause
        return
    said = {**checks.obstacles, **{k: " ".join(v) for k, v in checks.flags.items()}}
    said |= {level: "not segmented" for level in checks.missing}
    said |= {a.name: a.problem for a in assignments if a.problem}
    if not concerned:
        assert checks == SpineChecks()
        assert sorted(a.level or "" for a in assignments) == sorted(case["levels"])
        return
    assert words in said.pop(concerned)
    assert set(said) <= set(case["vertebrae"])
