"""How long a reader waits for the review: its own share, without any window."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from ..findings import Candidate, LesionType, Status, VertebraFinding
from ..review.review import Review

LEVELS = 20
ROUNDS = 51
COLUMNS = "| {} candidates | median ms | slowest ms |\n|---|---|---|"


def report(candidates: int) -> str:
    """Markdown, a row per thing that a reader does."""
    review = _drawn(candidates)
    thresholds = [n / (ROUNDS - 1) for n in range(ROUNDS)]
    first = review.items[0].id

    def move(n: int) -> None:
        review.set_threshold(thresholds[n])
        review.shown()
        review.counts()
        review.summary()

    def undo_move(n: int) -> None:
        review.undo()
        review.shown()

    def judge(n: int) -> None:
        review.judge(first, "accepted" if n % 2 else "rejected")
        review.next_to_review(first)
        review.shown()

    def save(n: int) -> None:
        json.dumps(review.to_json())

    lines = [COLUMNS.format(candidates)]
    lines.append(_row("threshold move: list, count and summary", move))
    lines.append(_row("undo of a threshold move", undo_move, before=lambda n: move(n or 1)))
    lines.append(_row("verdict and the next candidate", judge))
    lines.append(_row("undo of a verdict", undo_move))
    lines.append(_row("saving", save))
    return "\n".join(lines)


def _row(name: str, act: Callable[[int], Any], before: Callable[[int], Any] | None = None) -> str:
    """``before`` is not timed."""
    spent = []
    for n in range(ROUNDS):
        if before:
            before(n)
        began = time.perf_counter()
        act(n)
        spent.append(1000 * (time.perf_counter() - began))
    return f"| {name} | {median(spent):.2f} | {max(spent):.2f} |"


def _drawn(candidates: int) -> Review:
    """Lesions spread over a spine, half of each type, scores from 1 down to 0."""
    review = Review()
    for v in range(LEVELS):
        found = []
        for n in range(v, candidates, LEVELS):
            kind: LesionType = "lytic" if n // LEVELS % 2 else "blastic"
            box = (0.0, 0.0, 0.0, 5.0, 5.0, 5.0)
            score = 1 - n / candidates
            found.append(
                Candidate(f"V{v}-{n}", kind, score, 125.0, (2.5, 2.5, 2.5), box, 0.02, 300.0, (5,))
            )
        review.add_vertebra(
            VertebraFinding(f"V{v}", Status.FINDINGS, p_malignant=0.9, candidates=tuple(found))
        )
    return review
