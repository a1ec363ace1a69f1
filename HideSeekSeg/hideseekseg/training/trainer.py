"""A training stage: optimiser, averaged weights, schedule, checkpoints; resumable to the step.

It runs on the CPU, on one GPU, or in several processes side by side.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from ..errors import DeviceError, InputError
from ..files import atomic, open_regular, read_object, read_text
from ..model.weights import choose_device
from ..plain_data import as_type, first_line, shown

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together, seen from the one with this ``rank``.

    Each has a device, draws batches of its own, and holds the same weights as all others: they
    begin alike and move along the mean of their gradients.  Alone, nothing is exchanged.
    """

    device: torch.device = CPU
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this is the process that writes and reports."""
        return self.rank == 0

    def random(self, seed: int, step: int) -> np.random.Generator:
        """Random numbers of this process for one step; the leader draws what one alone would."""
        return np.random.default_rng((seed, step, self.rank))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over all processes, in one exchange."""
        if self.size == 1:
            return
        joined = torch.cat([t.reshape(-1) for t in tensors])
        distributed.all_reduce(joined)
        parts = (joined / self.size).split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts):
            tensor.copy_(part.view(tensor.shape))

    def means(self, values: Sequence[float]) -> list[float]:
        """Average each number over all processes."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, device=self.device)
        self.average([shared])
        return [float(value) for value in shared]

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process: all stop at the same step, or none."""
        return self.means([float(flag)])[0] > 0

    def from_leader(self, tensor: Tensor) -> Tensor:
        """Give the leader's tensor to all."""
        if self.size > 1:
            distributed.broadcast(tensor, 0)
        return tensor


SINGLE = ProcessGroup()


@contextmanager
def open_team(device: str = "auto") -> Iterator[ProcessGroup]:
    """Open this process, or its team where ``torchrun`` started several (its variables say so).

    ``device`` is "auto", "cpu", "cuda" or "mps"; of several processes on CUDA each takes the GPU of
    its number on its machine.  Raises DeviceError where that is not there.
    """
    chosen, _ = choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup(chosen)
        return
    if chosen.type == "cuda":
        chosen = _own_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    # The group of the moment when this is imported becomes the default of its arguments, and the
    # first optimizer imports it: a group that lives on so has threads when Python ends, and such a
    # thread then aborted the process now and then.
    import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(chosen, distributed.get_rank(), size)
        distributed.barrier()  # nobody hangs up while another is still in its last step
    finally:
        distributed.destroy_process_group()


def _own_gpu(number: int) -> torch.device:
    count = torch.cuda.device_count()
    if number >= count:
        raise DeviceError(
            "device", f"process {number + 1} has no GPU of its own: this machine has {count}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


Say = Callable[[str], None]


def counter(say: Say, what: str) -> Callable[[int, int], None]:
    """Return what reports each tenth of the way, with the time left."""
    began = time.monotonic()

    def count(done: int, total: int) -> None:
        if done == total or done % max(total // 10, 1) == 0:
            left = (time.monotonic() - began) / done * (total - done)
            say(f"{what} {done} of {total}, {left:.0f} s left")

    return count


def stage_teller(say: Say) -> Callable[[TrainingProgress], None]:
    """Return what reports every 200th step of training, and the last."""

    def tell(now: TrainingProgress) -> None:
        if now.step % 200 == 0 or now.step == now.steps or now.seconds_left <= 0:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
            left = f"{now.seconds_left / 60:.0f} min left"
            say(f"{now.stage} step {now.step} of {now.steps}: {losses}; {left}")

    return tell


# Settings that earlier versions did not write down, and what their trainings had.
LATER: dict[str, Any] = {"compiled": False, "patience": None}


def claim(folder: Path, content: str, settings: Mapping[str, Any]) -> None:
    """Write down what a training was begun with, or refuse to go on with something else.

    ``content`` is a hash of the slices.  Raises InputError naming what differs.
    """
    path = folder / "settings.json"
    asked: dict[str, Any] = json.loads(json.dumps({"slices": content, **settings}))
    if not path.exists():
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(asked, indent=1), encoding="utf-8")
        return
    later = {name: value for name, value in LATER.items() if name in asked}
    begun = {**later, **read_object(path)}
    differ = [
        _differing(name, begun.get(name), asked.get(name))
        for name in dict.fromkeys((*asked, *begun))
        if begun.get(name) != asked.get(name)
    ]
    if differ:
        cause = "contains a training that was begun with other settings"
        raise InputError(folder, f"{cause}: {', '.join(differ)}")


def _differing(name: str, before: Any, now: Any) -> str:
    if name in ("slices", "validation"):
        return f"{name} of other content"
    return f"{name} {shown(before)} (now {shown(now)})"


# Losses of one step by name; the first is minimised.
Losses = dict[str, torch.Tensor]
MEASURE_EVERY = 500  # steps between looks at the validation set
Step = Callable[[int, np.random.Generator, torch.Generator], Losses]


@dataclass(frozen=True)
class TrainingProgress:
    """What a stage says after a step: where it is, its recent mean losses, seconds left."""

    stage: str
    step: int
    steps: int
    losses: dict[str, float]
    seconds_left: float


@dataclass(frozen=True)
class TrainingStage:
    """How long and how fast to train.  ``average`` is the decay of the averaged weights.

    ``seconds``, where given, end the stage even before its steps do; the learning rate falls
    accordingly, so that such a run is not repeatable to the last digit.  ``bfloat16`` lets
    convolutions and products compute in bfloat16, as CUDA always does: about a quarter faster on a
    CPU that has instructions for it.  ``patience``, where given, ends the stage so many steps after
    its best look at the validation set; ``gain`` is 1 where more is better there, else -1.
    """

    name: str
    steps: int
    learning_rate: float
    weight_decay: float
    seed: int
    average: float = 0.999
    seconds: float | None = None
    checkpoint_seconds: float = 180.0
    bfloat16: bool = False
    patience: int | None = None
    gain: int = 1


@dataclass(frozen=True)
class Best:
    """The averaged weights that were best on the validation set so far.

    ``value`` is the first figure that was measured, times the stage's ``gain``.
    """

    value: float
    step: int
    weights: dict[str, Tensor]


def share_done(stage: TrainingStage, step: int, spent: float) -> float:
    """Return how much of the stage is over after so many steps and seconds; 1 at its end."""
    timed = 0.0 if stage.seconds is None else spent / stage.seconds
    return max(step / stage.steps if stage.steps else 1.0, timed)


def learning_rate(stage: TrainingStage, step: int, spent: float = 0.0) -> float:
    """Warm up over 200 steps, hold to 40 %, then a half cosine down to 1 %."""
    warm = min(1.0, (step + 1) / 200)
    done = min(share_done(stage, step, spent), 1.0)
    fall = 1.0 if done < 0.4 else 0.505 + 0.495 * math.cos(math.pi * (done - 0.4) / 0.6)
    return stage.learning_rate * warm * fall


def run_stage(
    stage: TrainingStage,
    module: nn.Module,
    trained: Iterable[nn.Parameter],
    step_losses: Step,
    folder: Path,
    on_progress: Callable[[TrainingProgress], None],
    should_stop: Callable[[], bool] = lambda: False,
    team: ProcessGroup = SINGLE,
    measure: Callable[[nn.Module], dict[str, float]] | None = None,
) -> nn.Module:
    """Train ``trained`` parameters of ``module``; gives a copy with the averaged weights.

    Every random number of step n depends on the stage's seed, n and the process's rank alone, so a
    run that was stopped and resumed ends where an undisturbed one does.  The checkpoint is
    ``STAGE-checkpoint.pt``, the losses ``STAGE-losses.csv``.  Stops early (checkpoint written,
    KeyboardInterrupt raised) when ``should_stop`` says so in any process of the ``team``, whose
    leader alone writes and tells of progress.  ``measure`` gives figures of the
    averaged weights on other data, told and kept beside the losses.  With the stage's ``patience``
    the weights are those that were best by the first of them, whatever ended the stage.
    """
    parameters = list(trained)
    optimiser = torch.optim.AdamW(
        parameters,
        stage.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=stage.weight_decay,
        fused=team.device.type == "cuda" or None,
    )
    averaged = copy.deepcopy(module).eval().requires_grad_(False)
    checkpoint = folder / f"{stage.name}-checkpoint.pt"
    history: list[dict[str, float]] = []
    first, spent, best = _resume(checkpoint, module, averaged, optimiser, history)
    began, saved, recent = time.monotonic(), time.monotonic(), []
    module.train()
    looks = _Looks(stage, measure, best)
    over = share_done(stage, first, spent) >= 1 or looks.gain_no_more(first)
    reduced = stage.bfloat16 or team.device.type == "cuda"
    for step in range(first, first if over else stage.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(stage, step, spent + time.monotonic() - began)
        rng = team.random(stage.seed, step)
        torch.manual_seed(int(rng.integers(2**62)))
        generator = torch.Generator(team.device).manual_seed(int(rng.integers(2**62)))
        with torch.autocast(team.device.type, torch.bfloat16, reduced):
            losses = step_losses(step, rng, generator)
        optimiser.zero_grad(set_to_none=True)
        next(iter(losses.values())).backward()
        team.average([p.grad for p in parameters if p.grad is not None])
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        _average(averaged, module, min(stage.average, (step + 1) / (step + 20)))
        recent.append({name: value.detach() for name, value in losses.items()})
        now = time.monotonic() - began
        last = _is_last(stage, step, spent + now, team)
        if (step + 1) % 50 == 0 or last:
            mean = _means(recent, team)
            last = team.any(looks.look(averaged, step + 1, last)) or last
            mean |= looks.figures
            history.append({"step": step + 1, **mean})
            recent = []
            left = _seconds_left(stage, step + 1, step + 1 - first, now, spent)
            if team.is_main:
                on_progress(TrainingProgress(stage.name, step + 1, stage.steps, mean, left))
        stopping = team.any(should_stop())
        if team.is_main and (
            stopping or time.monotonic() - saved > stage.checkpoint_seconds or last
        ):
            saved = time.monotonic()
            done = {"step": step + 1, "seconds": spent + saved - began}
            _save(checkpoint, done, module, averaged, optimiser, history, looks.best)
        if stopping:
            raise KeyboardInterrupt
        if last:
            break
    if looks.best is not None:
        averaged.load_state_dict(looks.best.weights)
    return averaged


@dataclass
class _Looks:
    """The looks at the validation set: the ``figures`` of the last one, and the ``best`` weights.

    The best ones are kept where the stage has ``patience``, none else.
    """

    stage: TrainingStage
    measure: Callable[[nn.Module], dict[str, float]] | None
    best: Best | None
    figures: dict[str, float] = field(default_factory=dict)

    def look(self, averaged: nn.Module, step: int, last: bool) -> bool:
        """Measure the weights, if it is time, and return whether they have gained long enough."""
        regular = step % MEASURE_EVERY == 0 or last
        if self.measure is None or (self.figures and not regular):
            return False
        self.figures = self.measure(averaged)
        if self.stage.patience is None or not regular:  # else a run that was resumed has more looks
            return False
        value = self.stage.gain * next(iter(self.figures.values()))
        if self.best is None or value > self.best.value:
            weights = {name: t.cpu().clone() for name, t in averaged.state_dict().items()}
            self.best = Best(value, step, weights)
        return self.gain_no_more(step)

    def gain_no_more(self, step: int) -> bool:
        patience, best = self.stage.patience, self.best
        return patience is not None and best is not None and step - best.step >= patience


def _is_last(stage: TrainingStage, step: int, spent: float, team: ProcessGroup) -> bool:
    """Return whether no step follows; all processes of a group end together."""
    last = step + 1 == stage.steps
    if stage.seconds is None:
        return last
    return last or team.any(share_done(stage, step + 1, spent) >= 1)


def _seconds_left(stage: TrainingStage, step: int, done: int, now: float, spent: float) -> float:
    left = now / done * (stage.steps - step)
    return left if stage.seconds is None else min(left, stage.seconds - spent - now)


def _means(recent: list[Losses], team: ProcessGroup) -> dict[str, float]:
    """Return the mean losses of some steps, by name."""
    names = list(recent[0])
    return dict(
        zip(names, team.means([float(torch.stack([r[n] for r in recent]).mean()) for n in names]))
    )


def _average(averaged: nn.Module, module: nn.Module, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(module.parameters()), 1 - decay)


def _resume(
    checkpoint: Path,
    module: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, float]],
) -> tuple[int, float, Best | None]:
    """Load the checkpoint where there is one.

    Gives the first step to do, seconds spent, and the best weights where these are kept.
    """
    if not checkpoint.exists():
        return 0, 0.0, None
    state = _load(checkpoint)
    try:
        module.load_state_dict(state["module"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        history += as_type(list[dict[str, float]], state["history"])
        kept = state.get("best")
        best = Best(**kept) if kept is not None else None
        return as_type(int, state["step"]), as_type(float, state["seconds"]), best
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(checkpoint, f"{_FOREIGN}: {first_line(error)}") from error


_FOREIGN = "is not a checkpoint of this training; remove it to start the stage again"


def _load(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, tensors and plain values alone; raise InputError."""
    try:
        with open_regular(checkpoint) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(checkpoint, f"cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can bring the reader to raise anything
        raise InputError(checkpoint, f"{_FOREIGN}: it is damaged") from error
    if not isinstance(state, dict):
        raise InputError(checkpoint, _FOREIGN)
    return state


def seconds_spent(folder: Path) -> float:
    """Seconds of all sessions that trained the stages in a folder, up to their checkpoints."""
    paths = folder.glob("*-checkpoint.pt")
    return sum(_seconds_of(path) for path in paths)


def steps_done(folder: Path, stage: str) -> int | None:
    """Return how many steps a stage took, by its losses; None where it left none.

    Raises InputError where they are damaged.
    """
    table = folder / f"{stage}-losses.csv"
    if not table.exists():
        return None
    try:
        return int(read_text(table).splitlines()[-1].split(",")[0])
    except (IndexError, ValueError) as error:
        raise InputError(table, "is not a table of losses") from error


def step_kept(folder: Path, stage: str) -> int | None:
    """Return after which step the weights that a stage kept were best on validation, if it knows.

    Raises InputError where its checkpoint is damaged.
    """
    checkpoint = folder / f"{stage}-checkpoint.pt"
    best = _load(checkpoint).get("best") if checkpoint.exists() else None
    return int(best["step"]) if isinstance(best, dict) else None


def _seconds_of(checkpoint: Path) -> float:
    seconds = _load(checkpoint).get("seconds")
    if not isinstance(seconds, float):
        raise InputError(checkpoint, _FOREIGN)
    return seconds


def _save(
    checkpoint: Path,
    done: dict[str, float],
    module: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, float]],
    best: Best | None,
) -> None:
    state = {
        **done,
        "module": module.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": history,
        "best": None if best is None else vars(best),
    }
    # Into memory first: where the disk is full, PyTorch's own writer says another thing.
    content = io.BytesIO()
    torch.save(state, content)
    with atomic(checkpoint) as temporary:
        temporary.write_bytes(content.getbuffer())
    table = checkpoint.with_name(checkpoint.name.replace("checkpoint.pt", "losses.csv"))
    with atomic(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        # A run that was resumed with another validation has other figures from there on.
        names = dict.fromkeys(name for row in history for name in row)
        writer = csv.DictWriter(file, ["step", *(name for name in names if name != "step")])
        writer.writeheader()
        writer.writerows(history)
