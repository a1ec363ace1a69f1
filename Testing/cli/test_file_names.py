"""Names of files and folders that are no text: each command refuses them in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hideseekseg.cli.main import main

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of bytes are Linux's")
MANIFEST = "ct,segmentation,labels\nct.nii.gz,bodies.nii.gz,totalsegmentator\n"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder whose name is in Latin-1, as old discs and archives have them."""
    made = tmp_path / os.fsdecode(b"M\xfcller")
    made.mkdir()
    (made / "m.csv").write_text(MANIFEST)
    return str(made)


@pytest.mark.parametrize(
    "words",
    [
        ["example", "--out", "HERE/example"],
        ["cohort", "HERE/m.csv", "--out", "out"],
        ["cohort", "m.csv", "--out", "HERE/out"],
        ["cohort", "check", "HERE/m.csv"],
        ["segment", "ct.nii.gz", "bodies.nii.gz", "--out", "out", "--weights", "HERE/w"],
        ["segment", "ct.nii.gz", "bodies.nii.gz", "--out", "out", "--log", "HERE/log"],
        ["prepare", "m.csv", "--out", "HERE/out"],
        ["train", "prepared", "--out", "HERE/out"],
        ["simulate", "sources.csv", "--data", "HERE", "--out", "out"],
        ["report", "results", "--out", "HERE/r.html"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_name_that_is_no_text_is_refused_by_every_command(
    words: list[str], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """ITK ended ``example`` by SIGABRT, and a cohort in a trace."""
    with pytest.raises(SystemExit) as ended:
        main([word.replace("HERE", folder) for word in words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "has a name that is not UTF-8: rename it" in said


def run(words: list[str], cwd: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1", **environment}
    program = [sys.executable, "-m", "hideseekseg", *words]
    return subprocess.run(
        program, env=known, cwd=cwd, capture_output=True, text=True, timeout=300, errors="replace"
    )


def test_a_working_folder_whose_name_is_no_text_is_refused(folder: str) -> None:
    """Results say where their scan lies: they could not be written after the work."""
    done = run(["cohort", "check", "m.csv"], folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "not UTF-8" in done.stderr


def test_a_locale_that_cannot_read_a_name_is_named(tmp_path: Path) -> None:
    place = tmp_path / "Müller"
    place.mkdir()
    (place / "m.csv").write_text(MANIFEST)
    plain = dict(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    done = run(["cohort", "check", "m.csv"], str(place), **plain)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "LC_ALL=C.UTF-8" in done.stderr


def test_discovery_names_what_it_leaves_out(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files of one such folder ended the whole cohort in a trace."""
    for place in (Path(folder), tmp_path / "good"):
        place.mkdir(exist_ok=True)
        for name in ("ct.nii.gz", "segmentations.nii.gz"):
            (place / name).write_bytes(b"")
    main(["cohort", "check", "--discover", str(tmp_path)])
    said = capsys.readouterr()
    assert (said.out + said.err).count("left out: has a name that is not UTF-8") == 3
    assert "found 1 case" in said.out + said.err
