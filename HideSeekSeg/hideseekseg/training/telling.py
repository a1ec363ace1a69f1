"""How work that takes long tells of itself: lines for a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from .trainer import Progress

Say = Callable[[str], None]


def counter(say: Say, what: str) -> Callable[[int, int], None]:
    """Says a line at every tenth of the way, with the time left."""
    began = time.monotonic()

    def count(done: int, total: int) -> None:
        if done == total or done % max(total // 10, 1) == 0:
            left = (time.monotonic() - began) / done * (total - done)
            say(f"{what} {done} of {total}, {left:.0f} s left")

    return count


def stage_teller(say: Say) -> Callable[[Progress], None]:
    """Says a line at every 200th step of training, and at the last."""

    def tell(now: Progress) -> None:
        if now.step % 200 == 0 or now.step == now.steps:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
            left = f"{now.seconds_left / 60:.0f} min left"
            say(f"{now.stage} step {now.step} of {now.steps}: {losses}; {left}")

    return tell
