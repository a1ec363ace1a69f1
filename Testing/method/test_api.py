"""``import hideseekseg``: fast, complete, and what the documentation shows runs as it stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hideseekseg
from helpers.findings import make_grid, make_result
from hideseekseg.events import Event, Started, VertebraDone
from hideseekseg.model.weights import load_model as load

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = REPOSITORY / "HideSeekSeg"
DOCUMENTS = (REPOSITORY / "README.md", REPOSITORY / "Resources" / "Docs" / "python.md")
Files = tuple[Path, Path]


def python(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy(tmp_path: Path) -> None:
    """Not even where a name is listed, or an error caught."""
    heavy = "{'torch', 'SimpleITK', 'numpy', 'scipy', 'matplotlib'} & {*sys.modules}"
    code = f"import sys, hideseekseg as h; dir(h); h.UserError; h.__version__; print({heavy})"
    assert python(code, tmp_path).strip() == "set()"


def test_inputs_are_refused_before_torch_is_loaded(box_files: Files, tmp_path: Path) -> None:
    """A second of waiting, to be told that an option is missing, would be one too many."""
    words = ["segment", *map(str, box_files), "--out", str(tmp_path / "out")]
    refused = f"from hideseekseg.cli.main import main; print(main({words}), 'torch' in sys.modules)"
    assert python(f"import sys; {refused}", tmp_path).split() == ["2", "False"]


def test_every_public_name_is_there_and_typed() -> None:
    assert (LIBRARY / "hideseekseg" / "py.typed").is_file()
    for name in hideseekseg.__all__:
        assert getattr(hideseekseg, name) is not None
        assert name in dir(hideseekseg)
    errors = [getattr(hideseekseg, n) for n in hideseekseg.__all__ if n.endswith("Error")]
    assert all(issubclass(error, hideseekseg.UserError) for error in errors)
    with pytest.raises(AttributeError, match="'hideseekseg' has no attribute 'segmnt'"):
        hideseekseg.segmnt  # noqa: B018


def test_segment_takes_paths_or_what_was_read(box_files: Files, tiny_weights: Path) -> None:
    said: list[Event] = []
    by_path = hideseekseg.segment(
        *box_files, weights=tiny_weights, labels="totalsegmentator", on_event=said.append
    )
    ct, vertebrae = (
        hideseekseg.read_ct(box_files[0]),
        hideseekseg.read_segmentation(box_files[1]),
    )
    model = hideseekseg.load_model(tiny_weights, "cpu")
    read = hideseekseg.segment(
        ct, vertebrae, weights=model, labels="totalsegmentator", levels=["L1"], threshold=0.9
    )
    assert isinstance(by_path, hideseekseg.Result)
    assert [v.level for v in by_path.vertebrae] == ["T11", "T12", "L1"]
    assert isinstance(said[0], Started)
    assert [e.level for e in said if isinstance(e, VertebraDone)] == ["T11", "T12", "L1"]
    assert set(by_path.evidence) == {"T11", "T12", "L1"}
    (alone,) = read.vertebrae
    assert alone.candidates == by_path.vertebrae[2].candidates
    assert read.threshold == 0.9
    own, other = read.evidence["L1"], by_path.evidence["L1"]
    assert np.array_equal(own.difference, other.difference)


def test_a_result_can_be_written(box_files: Files, tiny_weights: Path, tmp_path: Path) -> None:
    ct = hideseekseg.read_ct(box_files[0])
    result = hideseekseg.segment(
        ct, box_files[1], weights=tiny_weights, labels="totalsegmentator", levels=("T12",)
    )
    hideseekseg.write_json(tmp_path / "candidates.json", result)
    hideseekseg.write_segmentation(tmp_path / "lesions.seg.nrrd", ct.grid, result)
    data = json.loads((tmp_path / "candidates.json").read_text("utf-8"))
    assert "evidence" not in data
    accepted = sum(c["accepted"] for v in data["vertebrae"] for c in v["candidates"])
    back = hideseekseg.read_segmentation(tmp_path / "lesions.seg.nrrd")
    assert accepted == len(back.segments) > 0


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"labels": "atlas"}, hideseekseg.InputError, "atlas"),
        ({"levels": ["C3"]}, hideseekseg.SegmentationError, "labels.nii.gz"),
        ({"schedule": "fast"}, hideseekseg.ScheduleError, "schedule"),
        ({"device": "tpu"}, hideseekseg.DeviceError, "device"),
        ({"bodies": "none.nii.gz"}, hideseekseg.InputError, "none.nii.gz"),
    ],
)
def test_what_a_user_can_mend_is_one_error_with_path_and_cause(
    options: dict[str, object],
    error: type[hideseekseg.UserError],
    named: str,
    box_files: Files,
    tiny_weights: Path,
) -> None:
    given = {"weights": tiny_weights, "labels": "totalsegmentator", **options}
    with pytest.raises(error) as caught:
        hideseekseg.segment(*box_files, **given)  # type: ignore[arg-type]
    assert str(caught.value) == f"{caught.value.path}: {caught.value.cause}"
    expected = box_files[1].name if named == "labels.nii.gz" else named
    assert Path(caught.value.path).name == expected
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 50}, "threshold: 50 is not a number between 0 and 1"),
        ({"threshold": float("nan")}, "threshold: nan is not a number between 0 and 1"),
        ({"threshold": True}, "threshold: True is not a number between 0 and 1"),
        ({"threshold": "0.5"}, "threshold: '0.5' is not a number between 0 and 1"),
        ({"levels": "T12"}, "levels: 'T12' is not a list of levels such as ['T12', 'L1']"),
        ({"levels": 12}, "levels: 12 is not a list of levels such as ['T12', 'L1']"),
        ({"levels": ["t12"]}, "levels: 't12' is not a vertebral level (C1 to S1)"),
        ({"levels": [12]}, "levels: 12 is not a vertebral level (C1 to S1)"),
        (
            {"labels": {30: "T12"}},
            "labels: is of type dict: give a path or the name of a",
        ),
        ({"ct": None}, "ct: is of type NoneType: give a path or what read_ct returns"),
        ({"segmentation": "ct"}, "segmentation: is of type Volume: give a path or what"),
        ({"bodies": "ct"}, "bodies: is of type Volume: give a path or what read_segmentation"),
        ({"weights": 3}, "weights: is of type int: give a path or what load_model returns"),
        ({"weights": ""}, "profile.json: cannot be read"),  # not the bundled ones in its place
        ({"device": "mps"}, "device: 'mps' was asked for, but the model was loaded on cpu"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(
    options: dict[str, object], words: str, box_files: Files, tiny_weights: Path
) -> None:
    ct = hideseekseg.read_ct(box_files[0])
    arguments: dict[str, object] = {
        "ct": ct,
        "segmentation": hideseekseg.read_segmentation(box_files[1]),
        "weights": hideseekseg.load_model(tiny_weights, "cpu"),
        "labels": "totalsegmentator",
    }
    arguments |= {name: ct if value == "ct" else value for name, value in options.items()}
    with pytest.raises(hideseekseg.UserError) as caught:
        hideseekseg.segment(**arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("threshold", [70, 2, -0.1, float("nan"), True, "0.5", None])
def test_a_result_is_judged_at_thresholds_that_exist(threshold: object) -> None:
    result = make_result(make_grid((75, 60, 50), (1.2, 1.1, 2.0)))
    with pytest.raises(hideseekseg.InputError, match="is not a number between 0 and 1"):
        result.with_threshold(threshold)  # type: ignore[arg-type]
    assert result.with_threshold(1).threshold == 1
    assert result.with_threshold(np.float32(0.25)).threshold == 0.25


def test_lesions_are_not_written_on_the_grid_of_another_scan(tmp_path: Path) -> None:
    grid = make_grid((75, 60, 50), (1.2, 1.1, 2.0))
    result, path = make_result(grid), tmp_path / "lesions.seg.nrrd"
    moved = make_grid((75, 60, 50), (1.2, 1.1, 2.0), centre=(0.0, 20.0, 0.0))
    thicker = make_grid((75, 60, 50), (1.2, 1.1, 3.0))
    smaller = make_grid((40, 60, 50), (1.2, 1.1, 2.0))
    for other in (moved, thicker, smaller):
        with pytest.raises(hideseekseg.InputError, match="not the grid of the result's CT"):
            hideseekseg.write_segmentation(path, other, result)
    assert not path.exists()
    hideseekseg.write_segmentation(path, grid, result)
    assert path.exists()


def test_a_volume_is_shown_in_a_line(box_files: Files) -> None:
    """Not by thousands of voxels."""
    assert "array" not in repr(hideseekseg.read_ct(box_files[0])).partition("Grid(")[0]


def test_an_error_names_the_whole_path(box_files: Files, tiny_weights: Path) -> None:
    """Two scans may have files of one name."""
    with pytest.raises(hideseekseg.SegmentationError) as caught:
        hideseekseg.segment(
            *box_files, weights=tiny_weights, labels="totalsegmentator", levels=["C3"]
        )
    assert caught.value.path == str(box_files[1])


def test_a_stop_keeps_what_is_finished(box_files: Files, tiny_weights: Path) -> None:
    said: list[Event] = []
    result = hideseekseg.segment(
        *box_files,
        weights=load(tiny_weights, "cpu"),
        labels="totalsegmentator",
        on_event=said.append,
        should_stop=lambda: any(isinstance(event, VertebraDone) for event in said),
    )
    assert result.run["stopped"] and result.run["finished"] == ["T11"]
    assert set(result.evidence) == {"T11"}


def blocks() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text("utf-8") if document.exists() else ""
        for code in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if "import hideseekseg" in code:
                found.append((document.name, code))
    return found


def test_the_guide_has_an_example() -> None:
    assert "python.md" in [name for name, _ in blocks()]


@pytest.mark.parametrize(("document", "code"), blocks(), ids=lambda x: x.split("\n")[0])
def test_example_of_the_documentation_runs(
    document: str, code: str, box_files: Files, tmp_path: Path
) -> None:
    """As it stands, with the bundled weights, in a folder that has files of these names."""
    shutil.copy(box_files[0], tmp_path / "ct.nii.gz")
    shutil.copy(box_files[1], tmp_path / "vertebrae.nii.gz")
    before = {path.name for path in tmp_path.iterdir()}
    python(code, tmp_path)
    written = {path.name for path in tmp_path.iterdir()} - before
    assert written == set(re.findall(r'write_\w+\("([^"]+)"', code))
