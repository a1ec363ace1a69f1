"""Options that are out of range are refused at once, in one line that names option and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from hideseekseg.cli.main import COMMANDS, main

SEGMENT = ["segment", "ct.nii.gz", "seg.nii.gz", "--out", "out"]
ACCURACY = ["benchmark", "accuracy", "cases"]
SPEED = ["benchmark", "speed", "--out", "out"]
APP = ["benchmark", "app", "--out", "out"]
RANGE = ["benchmark", "range", "--sources", "s.csv", "--data", "data"]
ROTATIONS = ["benchmark", "rotations", "--out", "out"]
TRAIN = ["train", "slices", "--out", "out"]
SIMULATE = ["simulate", "s.csv", "--data", "data", "--out", "out"]
TUNE = ["tune", "weights", "validation", "--out", "out"]
REPORT = ["report", "result", "--out", "report.html"]
NETWORK = ["benchmark", "train", "unet", "slices", "--out", "out"]

WRONG = [
    *((["app"], "--threshold", value) for value in ("7", "nan", "-0.1", "inf", "", "0,5")),
    *((["app"], "--port", value) for value in ("99999", "-1", "http", "80.0", "9" * 5000)),
    (["app"], "--upload-mb", "0"),
    *((SEGMENT, "--threshold", value) for value in ("2", "nan", "half")),
    *((SEGMENT, "--levels", value) for value in (",", "", "T99", "Q1")),
    *((SEGMENT, "--threads", value) for value in ("0", "-2", "1e3", "99999999999999999999")),
    (SEGMENT, "--device", "tpu"),
    (SEGMENT, "--schedule", "slow"),
    (SIMULATE, "--drawn", "-5"),
    (SIMULATE, "--vertebrae", "0"),
    (SIMULATE, "--seed", "-1"),
    (SIMULATE, "--split", ","),
    (TRAIN, "--encoder-steps", "-1"),
    (TRAIN, "--encoder-rate", "nan"),
    (TRAIN, "--decoder-rate", "0"),
    (TRAIN, "--central-slices", "0"),
    (TRAIN, "--without", " , "),
    (TUNE, "--draws", "33"),
    (TUNE, "--draws", "0"),
    *((ACCURACY, option, "-5") for option in ("--drawn", "--tuning", "--ablated")),
    *((SPEED, option, "0") for option in ("--crops", "--repeats", "--threads")),
    *((APP, option, "0") for option in ("--candidates", "--runs", "--rounds")),
    (RANGE, "--degraded", "-1"),
    *((ROTATIONS, "--degrees", value) for value in ("0", "181")),
    *((REPORT, "--out", value) for value in ("candidates.json", "r.pdf", "lesions.seg.nrrd")),
    *((REPORT, "--pdf", value) for value in ("overview.png", "candidates.csv")),
    (["pack", "s.csv", "--data", "data"], "--out", "s.csv"),
    (["benchmark", "observe", "cases"], "--out", "cases/shard.npz"),
    (NETWORK, "--steps", "0"),
    (NETWORK, "--seed", "1.5"),
]


@pytest.mark.parametrize(
    ("words", "option", "value"), WRONG, ids=lambda x: x[-1] if isinstance(x, list) else x[:12]
)
def test_a_value_out_of_range_is_refused_in_one_line(
    words: list[str],
    option: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        main([*words, f"{option}={value}"])
    out, err = capsys.readouterr()
    assert refused.value.code == 2
    assert (out, err.count("\n")) == ("", 1)
    assert option in err and value[:30] in err and len(err) < 300
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ([], "COMMAND"),
        (["segement"], "segement"),
        (["segment", "ct.nii.gz"], "SEGMENTATION"),
        (["app", "ct.nii.gz"], "SEGMENTATION"),
        ([*ACCURACY, "--validation", "v"], "--out"),
        ([*ACCURACY, "--validation", "v", "--out", "o", "--data", "d"], "--sources"),
        ([*ACCURACY, "--validation", "v", "--out", "o", "--boxes", "b.csv"], "--sources"),
        ([*ACCURACY, "--baselines", "b"], "--validation"),
        ([*ACCURACY, "--drawn", "5"], "--validation"),
        (["app", "--reader", "Ada"], "cohort"),
        (["app", "review.mrb", "--labels", "totalsegmentator"], "--labels"),
        (["app", "REVIEW.MRB", "--series", "2"], "--series"),
        (["app", "--labels", "verse"], "--labels"),
        (["app", "--cohort", "out", "--reader", "Ada", "--series", "1.2.3"], "--series"),
        (["app", "ct.nii.gz", "seg.nii.gz", "--reader", "Ada"], "cohort"),
        *(
            (["app", "--cohort", "out", "--reader", "Ada", *words], words[0])
            for words in (
                ("--out", "o"),
                ("--weights", "w"),
                ("--threshold", "0.3"),
                ("--device", "cpu"),
                ("--all-slices",),
                ("--threads", "2"),
                ("--schedule", "multistep"),
                ("--accept-orientation",),
                ("--patient-names",),
                ("--labels", "verse"),
            )
        ),
        (["cohort", "report", "results", "--out", "elsewhere"], "report"),
        (["cohort", "evaluate", "results", "--discover", "scans"], "evaluate"),
        (["cohort", "report", "results", "--threshold", "0.3"], "--threshold"),
        (["cohort", "report", "results", "--retry"], "--retry"),
        (["cohort", "evaluate", "results", "--case-timeout", "5"], "--case-timeout"),
        (["cohort", "agreement", "results", "--levels", "T12"], "--levels"),
        (["cohort", "agreement", "results", "--workers", "2"], "--workers"),
        (["cohort", "check", "m.csv", "--weights", "w"], "--weights has no meaning for check"),
        (["cohort", "check", "m.csv", "--threads", "2"], "--threads"),
        (["cohort", "check", "m.csv", "--scheduler", "tcp://h:1"], "--scheduler"),
        (["cohort", "check", "m.csv", "--out", "o"], "--out"),
        (["cohort", "m.csv", "--out", "o", "--scheduler", "s", "--workers", "2"], "--workers"),
        (["cohort", "m.csv", "--out", "o", "--scheduler", "s", "--threads", "2"], "--threads"),
        (["prepare", "m.csv", "--out", "o", "--scheduler", "s", "--workers", "2"], "--workers"),
        ([*SEGMENT, "--quiet", "--json-lines"], "not allowed"),
        ([*SEGMENT, "--nonsense"], "--nonsense"),
    ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(
    words: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(words)
    out, err = capsys.readouterr()
    assert (refused.value.code, out, err.count("\n")) == (2, "", 1)
    assert cause in err and "--help" in err


@pytest.mark.parametrize(
    ("words", "first", "second"),
    [
        (["export", "result", "--ct", "ct"], "--dicom-seg", "--dicom-sr"),
        (["report", "result"], "--out", "--pdf"),
    ],
)
def test_two_files_to_write_are_not_one(
    words: list[str],
    first: str,
    second: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for other in ("x", "there/../x", str(tmp_path / "x")):
        assert main([*words, first, "x", second, other]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{second}: names the same file as {first}: {other}" in line
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    ("old", "new"), [("--rivals", "--baselines"), ("--beside", "--compare-weights")]
)
def test_old_spellings_are_accepted_and_not_shown(
    old: str, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["benchmark", "accuracy", "--help"])
    shown = capsys.readouterr().out
    assert new in shown and old not in shown
    said = []
    for option in (old, new):
        words = [*ACCURACY, "--validation", str(tmp_path), "--out", str(tmp_path / "out")]
        assert main([*words, option, str(tmp_path / "none")]) == 2
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])  # type: ignore[attr-defined]
    assert ended.value.code == 0
    assert command.help in " ".join(capsys.readouterr().out.split())  # type: ignore[attr-defined]


FLAGS = ("segment", "calibrate", "cohort", "train", "tune", "prepare", "simulate", "app")


@pytest.mark.parametrize("command", FLAGS)
def test_help_says_no_default_of_what_is_off(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that turns something off stores True where it is not given."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert not [word for word in ("True", "False", "[]", "()") if f"(default: {word})" in shown]
