"""Kill a run at random moments: nothing finished is lost, nothing half left, the next goes on.

    python Testing/kills.py 20 [--seed N] [--what segment cohort train] [--report FILE.json]

``segment`` runs with ``--each`` on three boxes of bone, ``cohort`` on four such scans with two
workers, ``train`` on a few toy slices.  All are killed (SIGKILL) at random moments of their usual
time, and run once more to their end.  ``--report`` adds what was run to a JSON file, and writes the
table of all runs in it beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import fuzz
from fuzz import ROOT

Check = Callable[[Path, Path], list[str]]
VERTEBRAE = ("T11", "T12", "L1")
_TRIES = 3  # moments for each kill


@dataclass
class Outcome:
    """How many processes were killed, how often work of theirs was kept, and what went wrong."""

    moments: int = 0
    killed: int = 0
    kept: int = 0
    faults: list[str] = field(default_factory=list)


def run(
    what: str,
    count: int,
    seed: int,
    folder: Path,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Kill a command (a key of ``PREPARE``) at ``count`` random moments of its undisturbed time.

    That time is the shortest seen: on a busy machine the first run may take several times as long,
    and moments past the end kill nothing.  They are counted, and ``_TRIES`` of all at most are
    drawn for each kill.  ``tell`` receives the outcome so far after each of them.
    """
    words, check = PREPARE[what](folder)
    rng, whole = random.Random(seed), folder / "undisturbed"
    began = time.monotonic()
    fault = finish(words, whole)
    seconds = time.monotonic() - began
    outcome = Outcome()
    if fault:
        return Outcome(faults=[f"{what}, undisturbed: {fault}"])
    while outcome.killed < count and outcome.moments < _TRIES * count:
        out, moment = folder / f"killed-{outcome.moments}", rng.uniform(0.2, 1.0) * seconds
        began, killed = time.monotonic(), False
        process = start(words, out)
        try:
            process.wait(moment)
            seconds = min(seconds, time.monotonic() - began)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed = True
        outcome.killed += killed
        outcome.kept += bool(finished_parts(out))
        faults = [*damaged_parts(out)]
        ended = finish(words, out) if killed else ""
        faults += [ended] if ended else [*left_behind(out), *check(out, whole)]
        shutil.rmtree(out, ignore_errors=True)
        outcome.faults += [f"{what}, after {moment:.2f} s: {fault}" for fault in faults if fault]
        outcome.moments += 1
        tell(outcome)
    return outcome


def start(words: list[str], out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "HideSeekSeg"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hideseekseg", *words, "--out", str(out)]
    log = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.PIPE)


def finish(words: list[str], out: Path) -> str:
    """Run to the end; return what went wrong."""
    with start(words, out) as process:
        _, errors = process.communicate(timeout=600)
    return f"the next run fails: {errors.decode()[-500:]}" if process.returncode else ""


def finished_parts(out: Path) -> list[Path]:
    """What a killed run had finished: files of vertebrae, and checkpoints."""
    names = {f"{level}.npz" for level in VERTEBRAE}
    parts = [path for path in out.glob("vertebrae/*.npz") if path.name in names]
    cases = [path for path in out.glob("cases/*/case.json") if _is_done(path)]
    return [*parts, *cases, *out.glob("*-checkpoint.pt")]


def _is_done(record: Path) -> bool:
    with contextlib.suppress(ValueError):  # a damaged one is told by ``damaged_parts``
        return bool(json.loads(record.read_text("utf-8"))["status"] == "done")
    return False


def damaged_parts(out: Path) -> list[str]:
    """Every file that has its own name is whole."""
    import torch

    from hideseekseg.output.result_folder import read_vertebra

    faults = []
    for path in out.rglob("*"):
        if path.name.startswith(".") or ".hideseekseg-" in str(path) or not path.is_file():
            continue
        try:
            if path.suffix == ".npz":
                read_vertebra(path)
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".pt":
                torch.load(path, weights_only=True)
        except Exception as error:
            faults.append(f"{path.name} is damaged: {error}")
    return faults


def left_behind(out: Path) -> list[str]:
    """Temporary files that are there after the run that followed."""
    return [f"{path.name} is left behind" for path in out.rglob("*hideseekseg*")]


def prepare_segment(folder: Path) -> tuple[list[str], Check]:
    (ct,), bodies = write_scans(folder, 1)
    words = ["segment", str(ct), str(bodies), "--labels", "totalsegmentator", "--each", "--quiet"]
    return [*words, "--no-picture", "--weights", str(folder / "weights")], same_findings


def prepare_cohort(folder: Path) -> tuple[list[str], Check]:
    cts, bodies = write_scans(folder, 4)
    lines = [f"{ct.name[:4]},{ct.name},{bodies.name},totalsegmentator" for ct in cts]
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(["case,ct,segmentation,labels", *lines]) + "\n", "utf-8")
    options = ["--weights", str(folder / "weights"), "--workers", "2", "--threads", "1"]
    return ["cohort", str(manifest), *options, "--device", "cpu"], same_cohort


def write_scans(folder: Path, count: int) -> tuple[list[Path], Path]:
    """Write weights, so many CTs of three boxes of bone, and the label map that they share."""
    import numpy as np
    import SimpleITK as sitk

    import fuzz_kinds
    from hideseekseg.imaging.volume import Grid, Volume, to_sitk
    from hideseekseg.model.profile import Schedule

    fuzz_kinds.write_weights(folder / "weights", Schedule(invert_steps=8, render_steps=4))
    grid, rng = Grid((64, 40, 44), np.diag([2.0, 2.0, 2.0, 1.0])), np.random.default_rng(5)
    hu, labels = rng.normal(40, 12, grid.shape), np.zeros(grid.shape, np.uint8)
    hu[:, :4] = -800
    for n, value in enumerate((33, 32, 31)):
        body = (slice(44 - 19 * n, 57 - 19 * n), slice(14, 30), slice(12, 32))
        labels[body] = value
        hu[body] = 180 + rng.normal(0, 30, (13, 16, 20))
    cts = [folder / f"ct-{n}.nii.gz" for n in range(count)]
    for n, path in enumerate(cts):
        sitk.WriteImage(to_sitk(Volume(hu.astype(np.int16) + n, grid)), str(path))
    sitk.WriteImage(to_sitk(Volume(labels, grid)), str(folder / "bodies.nii.gz"))
    return cts, folder / "bodies.nii.gz"


def same_findings(out: Path, whole: Path) -> list[str]:
    """The run that follows ends with the findings of the undisturbed one."""
    a, b = ((f / "candidates.json").read_text("utf-8") for f in (out, whole))
    if json.loads(a)["vertebrae"] != json.loads(b)["vertebrae"]:
        return ["its findings are others"]
    missing = [level for level in VERTEBRAE if not (out / "vertebrae" / f"{level}.npz").is_file()]
    return [f"{level} has no file" for level in missing]


def same_cohort(out: Path, whole: Path) -> list[str]:
    """The run that follows has every case done, with the findings of the undisturbed run."""
    faults = []
    for undisturbed in sorted(whole.glob("cases/*/candidates.json")):
        name = undisturbed.parent.name
        path = out / "cases" / name / "candidates.json"
        if not path.is_file() or not _is_done(path.parent / "case.json"):
            faults.append(f"case {name} is not done")
        elif (
            json.loads(path.read_text("utf-8"))["vertebrae"]
            != json.loads(undisturbed.read_text("utf-8"))["vertebrae"]
        ):
            faults.append(f"the findings of case {name} are others")
    tables = ("vertebrae.csv", "lesions.csv")
    same = all((out / t).read_bytes() == (whole / t).read_bytes() for t in tables)
    return faults if same else [*faults, "its tables are others"]


def prepare_train(folder: Path) -> tuple[list[str], Check]:
    from helpers.vertebrae import plain_vertebra
    from hideseekseg.simulation.simulate import Recipe, simulate
    from hideseekseg.training.train import COMPACT

    # Whole vertebrae are few, as thresholds are chosen on them; these have lesions of both types.
    for name, seed, count, slices in (("slices", 1, 24, 4), ("whole", 2, 8, None)):
        vertebrae = [plain_vertebra(patient=name)]
        (folder / name).mkdir()
        recipe = Recipe(seed, count, slices=slices, geometry=COMPACT.geometry)
        simulate(recipe, vertebrae, folder / name, lambda *_: None)
    words = ["train", str(folder / "slices"), "--validation", str(folder / "whole")]
    steps = ["--encoder-steps", "8", "--decoder-steps", "3", "--supervision", "twins"]
    return [*words, *steps], same_weights


def same_weights(out: Path, whole: Path) -> list[str]:
    """The training that goes on ends with the weights of the undisturbed one, byte for byte."""
    a, b = (f / "weights" / "autoencoder.safetensors" for f in (out, whole))
    return [] if filecmp.cmp(a, b, shallow=False) else ["its weights are others"]


PREPARE = {"segment": prepare_segment, "cohort": prepare_cohort, "train": prepare_train}


def page(rows: fuzz.Rows) -> str:
    """Return the report in Markdown: each run, and every fault."""
    lines = [
        "# Killed processes",
        "",
        "Written by `python Testing/kills.py KILLS --seed SEED --report FILE.json`: commands are"
        " killed (SIGKILL) at random moments, between a fifth of their usual time and its end, and"
        " run once more. Their files have to be whole after the kill; the next run has to end with"
        " the findings (of a training: the weights) of an undisturbed one, and to leave nothing"
        " temporary behind.",
        "",
        "| command | seed | moments | killed before its end | had finished a part | faults |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{row['what']}` | {row['seed']} | {row['moments']} | {row['killed']} |"
            f" {row['kept']} | {len(row['faults'])} |"
            for row in rows.values()
        ),
        "",
        *(f"- {fault}" for row in rows.values() for fault in row["faults"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _record(report: Path | None, what: str, seed: int, outcome: Outcome) -> None:
    if report is not None:
        row = {"what": what, "seed": seed, **asdict(outcome)}
        fuzz.record(report, f"{what} {seed}", row, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="kills of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--what", nargs="+", default=[*PREPARE], choices=[*PREPARE])
    parser.add_argument("--report", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    faults = []
    for what in args.what:
        tell = partial(_record, args.report, what, args.seed)
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(what, args.count, args.seed, Path(folder), tell)
        faults += outcome.faults
        print(
            f"{what}: {outcome.moments} moments, {outcome.killed} killed, {outcome.kept} had"
            f" finished something by then, {len(outcome.faults)} faults",
            flush=True,
        )
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
