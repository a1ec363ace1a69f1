"""Real lesions with nothing but a box around each: hit or missed, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...lesions import Lesion3D
from ...output.figures.drawing import TYPE_COLOURS, Outline, Tile
from ...output.figures.overview import show_crops
from ..cases import BenchmarkCase
from ..methods.method import HideAndSeek, Method, Tuned

LEAST_IOU = 0.1
BOX_COLOUR = (1.0, 1.0, 1.0)
RULE = (
    "A box is hit if an accepted candidate of either type overlaps it, inside the vertebral body,"
    f" with an IoU of at least {LEAST_IOU}.  What of a lesion lies outside the body cannot be hit."
)


@dataclass(frozen=True)
class Hit:
    """A method on one vertebra that a box reaches into: best IoU of an accepted candidate."""

    method: str
    vertebra: str
    box_voxels: int
    best_iou: float
    best_type: str
    elsewhere: int

    @property
    def hit(self) -> bool:
        return self.best_iou >= LEAST_IOU


def try_boxes(method: Method, tuned: Tuned, subjects: Sequence[BenchmarkCase]) -> list[Hit]:
    """How a method fares with each boxed vertebra."""
    return [_hit(method.name, s, _accepted(method, tuned, s)) for s in subjects]


def _accepted(method: Method, tuned: Tuned, subject: BenchmarkCase) -> list[Lesion3D]:
    lesions, _ = method.detect(method.prepare(subject), tuned.settings)
    return [le for le in lesions if le.score > tuned.thresholds[le.type]]


def _hit(name: str, subject: BenchmarkCase, accepted: Sequence[Lesion3D]) -> Hit:
    boxed = subject.case.truth["lytic"]
    shape = (boxed.shape[0], boxed.shape[1], boxed.shape[2])
    shares = []
    for lesion in accepted:
        mask = lesion.mask(shape)
        shares.append(((mask & boxed).sum() / (mask | boxed).sum(), lesion.type))
    best, kind = max(shares, default=(0.0, "-"))
    elsewhere = sum(bool(share < LEAST_IOU) for share, _ in shares)
    return Hit(name, subject.vertebra, int(boxed.sum()), round(float(best), 3), kind, elsewhere)


def boxes_to_markdown(hits: Sequence[Hit], weights: str) -> str:
    """Return the table of boxes in Markdown."""
    lines = [
        "# Real lesions with boxes",
        "",
        f"Not pooled with any other set; weights {weights[:12]}.  {RULE}",
        "",
        "| method | vertebra | box voxels in the body | hit | best IoU | type | other findings |",
        "|---|---|---|---|---|---|---|",
    ]
    for h in hits:
        said = "hit" if h.hit else "missed"
        lines.append(
            f"| {h.method} | {h.vertebra} | {h.box_voxels} | {said} | {h.best_iou:.2f}"
            f" | {h.best_type} | {h.elsewhere} |"
        )
    return "\n".join(lines) + "\n"


def draw_boxes(path: Path, method: HideAndSeek, subjects: Sequence[BenchmarkCase]) -> Path:
    """Per vertebra the slice with most of the box: image and findings, edit, difference."""
    rows, titles = [], []
    for subject in subjects:
        seen = method.prepare(subject)
        accepted = _accepted(method, method.fixed, subject)
        boxed = subject.case.truth["lytic"]
        shape = (boxed.shape[0], boxed.shape[1], boxed.shape[2])
        index = int(boxed.sum(axis=(1, 2)).argmax())
        outlines = [Outline(boxed[index], BOX_COLOUR, dotted=True)]
        for lesion in accepted:
            mask = lesion.mask(shape)[index]
            text = f"{lesion.score:.2f}"
            outlines.append(Outline(mask, TYPE_COLOURS[lesion.type], text))
        x = subject.case.x[index, 0].numpy()
        edited = seen.healthy.edited[index, 0].numpy()
        difference = np.asarray(seen.healthy.difference[index])
        said = _hit(method.name, subject, accepted)
        rows.append(
            [
                Tile(subject.hu[index], outlines, "HU"),
                Tile(x, (), "network input", (-1.0, 1.0)),
                Tile(edited, (), "healthy edit", (-1.0, 1.0)),
                Tile(difference, (), "difference", signed=True),
            ]
        )
        titles.append(f"{subject.vertebra}\n{'hit' if said.hit else 'missed'}")
    show_crops(path, rows, titles)
    return path
