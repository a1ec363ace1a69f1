"""Where training runs: on the processor, on one GPU, or in several processes side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, distributed

from ..errors import DeviceError
from ..model.weights import choose_device

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
        """Whether this is the process that writes and speaks."""
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
        """Whether the flag is set in any process: all must stop at the same step, or none."""
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
