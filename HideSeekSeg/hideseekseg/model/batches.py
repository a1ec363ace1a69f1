"""Networks on more images than fit at once: batches, progress, and a way out of little memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BATCH = 32

Tick = Callable[..., None]
Report = Callable[[int, int], None]

_log = logging.getLogger(__name__)


@torch.inference_mode()
def in_batches(
    work: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    calls: int,
    device: torch.device,
    batch: int = BATCH,
    report: Report | None = None,
) -> Tensor:
    """``work(*chunks, tick)`` on chunks of the inputs along axis 0, joined again on the CPU.

    ``work`` calls ``tick()`` after each of its ``calls`` network calls; ``report(done, total)``
    then hears of network calls counted per image, and whatever it raises ends the work.  A batch
    that does not fit in memory is halved; one image that does not fit raises as torch does.
    """
    total, start = len(inputs[0]), 0
    results: list[Tensor] = []
    while start < total:
        chunks = [x[start : start + batch].to(device) for x in inputs]
        result = _try(work, chunks, _ticker(start * calls, len(chunks[0]), total * calls, report))
        if result is None:
            batch = (len(chunks[0]) + 1) // 2
            _log.warning("out of memory: going on with %d images at a time", batch)
            continue
        results.append(result.cpu())
        start += len(chunks[0])
    return torch.cat(results)


def _ticker(done: int, images: int, total: int, report: Report | None) -> Tick:
    def tick(*_: int) -> None:
        nonlocal done
        done += images
        if report is not None:
            report(done, total)

    return tick


def _try(work: Callable[..., Tensor], chunks: list[Tensor], tick: Tick) -> Tensor | None:
    """None where memory ran out and fewer images may help; the failed tensors are free by then."""
    try:
        # Same input, same output: no algorithm picked by timing, no shortened mantissas.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return work(*chunks, tick)
    except RuntimeError as error:
        if len(chunks[0]) == 1 or not is_out_of_memory(error):
            raise
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has an exception of its own; MPS and the CPU say it in words."""
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in said or "can't allocate memory" in said)
    )
