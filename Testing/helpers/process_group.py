"""What every process of a team does in ``test_distributed``; started by torchrun.

Arguments: the folder for what it learns, and what to do there, one after the other: "line",
"train", and in a folder of their own "stop" and "resume".
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn

from helpers.vertebrae import TOY, toy_slices
from hideseekseg.training.train import TrainingSettings, train
from hideseekseg.training.trainer import (
    SINGLE,
    Losses,
    ProcessGroup,
    TrainingProgress,
    TrainingStage,
    open_team,
    run_stage,
)

STAGE = TrainingStage("line", steps=60, learning_rate=0.05, weight_decay=0.0, seed=3)
SETTINGS = TrainingSettings(encoder_steps=6, decoder_steps=5, encoder_batch=8, decoder_batch=8)
STOP_AT = 8  # the second step of the decoder


def error_on(line: nn.Module, rng: np.random.Generator) -> torch.Tensor:
    """How far ``line`` is from y = x1 - 2 x2 on a batch of this stream."""
    x = torch.from_numpy(rng.standard_normal((8, 3)).astype(np.float32))
    return (line(x)[:, 0] - x[:, 0] + 2 * x[:, 1]).square().mean()


def new_line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def fit_line(folder: Path, team: ProcessGroup = SINGLE) -> tuple[nn.Module, list[TrainingProgress]]:
    """A stage of which each process sees batches of its own."""
    line = new_line()
    told: list[TrainingProgress] = []

    def losses(step: int, rng: np.random.Generator, generator: torch.Generator) -> Losses:
        return {"error": error_on(line, rng)}

    run_stage(STAGE, line, line.parameters(), losses, folder, told.append, team=team)
    return line, told


def learn(folder: Path, team: ProcessGroup, should_stop: Callable[[], bool]) -> dict[str, object]:
    """Both stages of a training, and a digest of all numbers that it ends with."""
    told: list[TrainingProgress] = []
    try:
        trained = train(toy_slices(16), TOY, SETTINGS, folder, told.append, should_stop, team)
    except KeyboardInterrupt:
        return {"stopped": True, "told": len(told)}
    digest = hashlib.sha256(trained.classifier.coef.numpy().tobytes())
    for tensor in trained.autoencoder.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    losses = [now.losses for now in told]
    return {"weights": digest.hexdigest(), "told": len(told), "losses": losses}


def stop_in(rank: int, team: ProcessGroup) -> Callable[[], bool]:
    """Ctrl-C that reaches a single process."""
    steps = 0

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        return team.rank == rank and steps >= STOP_AT

    return should_stop


def thread_names() -> list[str]:
    """Names of this process's threads, where the system tells them."""
    return sorted(p.read_text("utf-8").strip() for p in Path("/proc/self/task").glob("*/comm"))


def main(folder: Path, tasks: list[str]) -> None:
    torch.set_num_threads(1)
    stopped = folder / "stopped"
    stopped.mkdir(exist_ok=True)
    seen: dict[str, dict[str, object]] = {}
    with open_team("cpu") as team:
        for task in tasks:
            if task == "line":
                line, told = fit_line(folder, team)
                values = torch.cat([p.detach().reshape(-1) for p in line.parameters()]).tolist()
                seen[task] = {"weights": values, "losses": [t.losses for t in told]}
            elif task == "stop":
                seen[task] = learn(stopped, team, stop_in(1, team))
                distributed.barrier()  # the leader has written its checkpoint
                checkpoint = stopped / "decoder-checkpoint.pt"
                seen[task]["step"] = torch.load(checkpoint, weights_only=True)["step"]
            else:
                where = stopped if task == "resume" else folder
                seen[task] = learn(where, team, lambda: False)
            seen[task] |= {"size": team.size, "leads": team.is_main}
    threads = thread_names()
    for task in tasks:
        seen[task]["threads"] = threads
    (folder / f"rank-{team.rank}.json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
