"""Two processes that torchrun started learn one model, as one process would from both batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from helpers.process_group import STAGE, error_on, fit_line, new_line
from hideseekseg.model.weights import DeviceError
from hideseekseg.training.trainer import SINGLE, Losses, ProcessGroup, open_team, run_stage

TESTING = Path(__file__).resolve().parents[1]
Seen = list[dict[str, dict[str, Any]]]  # of each process, what it saw by task

needs_gloo = pytest.mark.skipif(
    not (distributed.is_available() and distributed.is_gloo_available()),
    reason="this torch has no gloo",
)


def launch(folder: Path, *tasks: str) -> Seen:
    """Run the example on two processes; what each of them saw, by task."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join([str(TESTING.parent / "HideSeekSeg"), str(TESTING)])
    running = subprocess.Popen(
        [
            sys.executable,
            *words,
            str(TESTING / "helpers" / "process_group.py"),
            str(folder),
            *tasks,
        ],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        try:
            _, said = running.communicate(timeout=300)
        finally:
            running.terminate()  # torchrun then ends its processes; killed, it would leave them
    assert running.returncode == 0, said
    return [json.loads((folder / f"rank-{n}.json").read_text("utf-8")) for n in range(2)]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """All tasks, by one start of two processes."""
    folder = tmp_path_factory.mktemp("team")
    return folder, launch(folder, "line", "train", "stop", "resume")


@pytest.mark.slow
@needs_gloo
def test_gradients_are_averaged(tmp_path: Path, team: tuple[Path, Seen]) -> None:
    """Two processes end where one does that sees the batches of both at every step."""
    line = new_line()

    def both(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        streams = [ProcessGroup(rank=rank, size=2).random(STAGE.seed, step) for rank in range(2)]
        for stream in streams:  # as run_stage seeds torch from the stream first
            stream.integers(2**62, size=2)
        return {"error": (error_on(line, streams[0]) + error_on(line, streams[1])) / 2}

    told: list[float] = []
    run_stage(
        STAGE,
        line,
        line.parameters(),
        both,
        tmp_path,
        lambda now: told.append(now.losses["error"]),
    )
    expected = torch.cat([p.detach().reshape(-1) for p in line.parameters()])
    first, second = (seen["line"] for seen in team[1])
    assert first["weights"] == second["weights"]
    np.testing.assert_allclose(first["weights"], expected, atol=1e-5)
    # Threads of the group that outlive it may abort the process while Python ends.
    for seen in (first, second):
        assert [name for name in seen["threads"] if "gloo" in name] == []
    np.testing.assert_allclose([loss["error"] for loss in first["losses"]], told, rtol=1e-4)
    (tmp_path / "alone").mkdir()
    alone, _ = fit_line(tmp_path / "alone")
    apart = torch.cat([p.detach().reshape(-1) for p in alone.parameters()])
    assert (apart - expected).abs().max() > 1e-4, "the second batch counts"


@pytest.mark.slow
@needs_gloo
def test_all_processes_end_with_the_same_weights(
    team: tuple[Path, Seen],
) -> None:
    folder, (first, second) = team[0], [seen["train"] for seen in team[1]]
    assert first["size"] == second["size"] == 2
    assert first["weights"] == second["weights"]
    stages = {path.name for path in folder.glob("*-checkpoint.pt")} - {"line-checkpoint.pt"}
    assert len(stages) == 2, "one of each stage"


@needs_gloo
def test_leader_alone_speaks(team: tuple[Path, Seen]) -> None:
    first, second = (seen["train"] for seen in team[1])
    assert first["leads"] and not second["leads"]
    assert first["told"] == 2 and second["told"] == 0


@pytest.mark.slow
@needs_gloo
def test_stop_of_one_stops_all_and_resumes(
    team: tuple[Path, Seen],
) -> None:
    """A signal rarely reaches all processes in the same step: none may wait for another."""
    _, both = team
    assert [seen["stop"]["stopped"] for seen in both] == [True, True]
    assert [seen["stop"]["step"] for seen in both] == [2, 2]
    expected = [seen["train"]["weights"] for seen in both]
    assert [seen["resume"]["weights"] for seen in both] == expected


def test_leader_draws_what_one_process_alone_does() -> None:
    alone = np.random.default_rng((5, 17)).integers(2**62, size=3)
    assert (SINGLE.random(5, 17).integers(2**62, size=3) == alone).all()
    assert (ProcessGroup(rank=0, size=4).random(5, 17).integers(2**62, size=3) == alone).all()
    assert (ProcessGroup(rank=1, size=4).random(5, 17).integers(2**62, size=3) != alone).any()


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with open_team("cpu") as team:
        assert team == SINGLE
    assert not distributed.is_initialized()


def test_device_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match="cuda"), open_team("cuda"):
        pass
