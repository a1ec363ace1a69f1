"""Pictures of a benchmark: plots of a set's results, and lesions found, missed and false."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...findings import LESION_TYPES, LesionType
from ...lesions import Lesion3D
from ...output.figures.drawing import (
    BACKGROUND,
    DIM,
    TEXT,
    TYPE_COLOURS,
    Outline,
    Tile,
    new_figure,
    save_figure,
)
from ...output.figures.overview import show_crops
from ...simulation.random_fields import Mask
from ...training.evaluation import LEAST_IOU, Edited, match, true_lesions
from ..cases import BenchmarkCase
from ..methods.method import HideAndSeek, Method, Tuned
from ..methods.trained import spread
from ..metrics import IOUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Data = dict[str, Any]
MOST_FALSE = 3.0


def draw_plots(data: Data, folder: Path, stem: str) -> list[Path]:
    """Write the plots that the set has figures for, as ``PLOT-STEM.png``."""
    paths = []
    if any(data["lesions"].values()):
        paths += [
            _save(_free_response(data), folder / f"froc-{stem}.png"),
            _save(_f1(data), folder / f"f1-{stem}.png"),
        ]
    if any(len(row["reliability"]) > 1 for row in data["methods"]) and data["diseased"]:
        paths.append(_save(_calibration(data), folder / f"calibration-{stem}.png"))
    return paths


def _save(figure: Figure, path: Path) -> Path:
    save_figure(path, figure)
    return path


def _free_response(data: Data) -> Figure:
    figure = new_figure(12, 5)
    for number, kind in enumerate(LESION_TYPES):
        axes = plain_axes(figure, 1, 2, number + 1, f"{kind}, IoU >= {IOUS[0]}")
        for row, colour in zip(data["methods"], _colours(len(data["methods"]))):
            curve = row["free response"][kind][str(IOUS[0])]
            axes.step(
                curve["false"],
                curve["sensitivity"],
                where="post",
                color=colour,
                linewidth=2.5 if row is data["methods"][0] else 1.2,
                label=row["name"],
            )
        axes.set(xlim=(0, MOST_FALSE), ylim=(0, 1))
        axes.set_xlabel("false findings per vertebra", color=DIM)
        axes.set_ylabel("sensitivity", color=DIM)
    _legend(axes)
    return figure


def _f1(data: Data) -> Figure:
    """Bars with their intervals, a panel per IoU."""
    methods = data["methods"]
    figure = new_figure(12, 1.5 + 0.45 * len(methods))
    for number, iou in enumerate(IOUS):
        axes = plain_axes(figure, 1, 2, number + 1, f"F1, IoU >= {iou}")
        for shift, kind in ((-0.2, LESION_TYPES[0]), (0.2, LESION_TYPES[1])):
            ends = [_ends(row["metrics"][f"{kind} F1 (IoU >= {iou})"]) for row in methods]
            values = [value for _, value, _ in ends]
            errors = [[v - low for low, v, _ in ends], [high - v for _, v, high in ends]]
            at = [n + shift for n in range(len(methods))]
            style: Data = {
                "height": 0.36,
                "ecolor": TEXT,
                "label": kind,
                "color": TYPE_COLOURS[kind],
            }
            axes.barh(at, values, xerr=errors, **style)
        names = [row["name"] if number == 0 else "" for row in methods]
        axes.set_yticks(range(len(methods)), names, color=TEXT, fontsize=8)
        axes.set(xlim=(0, 1))
        axes.invert_yaxis()
    _legend(axes)
    return figure


def _ends(figure: Data) -> tuple[float, float, float]:
    """Low end, value and high end, in order; what is undefined has no length."""
    value = figure["value"] or 0.0
    low = value if figure["low"] is None else figure["low"]
    high = value if figure["high"] is None else figure["high"]
    return min(low, value), value, max(high, value)


def _calibration(data: Data) -> Figure:
    figure = new_figure(6, 5.5)
    axes = plain_axes(figure, 1, 1, 1, "calibration of P(malignant) of vertebrae")
    axes.plot([0, 1], [0, 1], color=DIM, linewidth=0.8)
    shown: set[str] = set()
    rows = data["methods"]
    for row, colour in zip(rows, _colours(len(rows))):
        bins = row["reliability"]
        key = str(bins)
        if not bins or key in shown:
            continue  # methods that share a classifier share its P
        shown.add(key)
        p, share = [b["p"] for b in bins], [b["diseased"] for b in bins]
        axes.plot(p, share, marker="o", color=colour, label=row["name"])
        for b in bins:
            axes.annotate(str(b["count"]), (b["p"], b["diseased"]), color=DIM, fontsize=7)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("mean P(malignant) of the bin", color=DIM)
    axes.set_ylabel("share diseased", color=DIM)
    _legend(axes)
    return figure


def plain_axes(figure: Figure, rows: int, columns: int, number: int, title: str) -> Axes:
    """Dark axes at a place of a lattice of plots."""
    figure.set_layout_engine("constrained")
    axes: Axes = figure.add_subplot(rows, columns, number)
    axes.set_facecolor(BACKGROUND)
    axes.set_title(title, color=TEXT, fontsize=10)
    axes.tick_params(colors=DIM, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(DIM)
    return axes


def _legend(axes: Axes) -> None:
    """Below all plots of the figure, where it hides no curve."""
    shown = axes.get_legend_handles_labels()
    style: Data = {"frameon": False, "labelcolor": TEXT, "fontsize": 7}
    axes.figure.legend(*shown, loc="outside lower center", ncols=3, **style)


def _colours(count: int) -> list[Any]:
    """Return the colours: white for the method under test, distinct ones for the others."""
    from matplotlib import colormaps

    return [TEXT, *(colormaps["tab20"](n % 20) for n in range(count - 1))]


TRUTH_COLOUR = (1.0, 1.0, 1.0)
SHOWN = 4  # of either kind of failure


@dataclass(frozen=True, eq=False)
class Example:
    """A lesion that was found or missed, or a false finding: ``where`` (S, P, I).

    ``weight`` is the voxels of a lesion, the score of a false finding.
    """

    what: Literal["found", "missed", "false"]
    type: LesionType
    where: Mask
    weight: float
    subject: BenchmarkCase
    seen: Edited
    accepted: tuple[Lesion3D, ...]


def examples(method: HideAndSeek, subjects: Sequence[BenchmarkCase]) -> list[Example]:
    """Return successes and failures of a set, at most one of a kind per vertebra.

    The failures are the worst, half missed and half false.  The successes are as many, where so
    many lesions were found, spread evenly from the largest to the smallest; they come first.
    """
    method = method.beside(subjects)
    every = [example for subject in subjects for example in _of_vertebra(method, subject)]
    found, missed, false = (_of_kind(every, what) for what in ("found", "missed", "false"))
    worst = [*missed[:SHOWN], *false[:SHOWN]]
    return [*(found[n] for n in spread(len(found), len(worst) or 2 * SHOWN)), *worst]


def _of_kind(every: Sequence[Example], what: str) -> list[Example]:
    """Return those of a kind by falling weight, the first of each vertebra."""
    first: dict[int, Example] = {}
    for example in sorted((e for e in every if e.what == what), key=lambda e: -e.weight):
        first.setdefault(id(example.subject), example)
    return list(first.values())


def _of_vertebra(method: HideAndSeek, subject: BenchmarkCase) -> Iterator[Example]:
    seen = method.prepare(subject)
    lesions, _ = method.detect(seen, method.fixed.settings)
    thresholds = method.fixed.thresholds
    accepted = tuple(le for le in lesions if le.score > thresholds[le.type])
    body = subject.case.body
    shape = (body.shape[0], body.shape[1], body.shape[2])
    for kind in LESION_TYPES:
        own = [le for le in accepted if le.type == kind]
        overlap = match(subject.case.truth[kind], own).iou >= LEAST_IOU
        for number, lesion in enumerate(true_lesions(subject.case.truth[kind])):
            what: Literal["found", "missed"] = "found" if overlap[number].any() else "missed"
            yield Example(what, kind, lesion, float(lesion.sum()), subject, seen, accepted)
        for number, found in enumerate(own):
            if not overlap[:, number].any():
                mask = found.mask(shape)
                yield Example("false", kind, mask, found.score, subject, seen, accepted)


def draw_examples(
    path: Path, method: HideAndSeek, subjects: Sequence[BenchmarkCase]
) -> Path | None:
    """Draw a row per example, on the slice that shows most of it; None where there is none."""
    chosen = examples(method, subjects)
    if not chosen:
        return None
    titles = [f"{e.what}\n{e.type}\n{e.subject.vertebra}" for e in chosen]
    show_crops(path, [_tiles(example) for example in chosen], titles)
    return path


def _tiles(example: Example) -> list[Tile]:
    subject, seen = example.subject, example.seen
    shape = (example.where.shape[0], example.where.shape[1], example.where.shape[2])
    index = int(example.where.sum(axis=(1, 2)).argmax())
    truth = [
        Outline(subject.case.truth[kind][index], TRUTH_COLOUR, dotted=True) for kind in LESION_TYPES
    ]
    found = [
        Outline(le.mask(shape)[index], TYPE_COLOURS[le.type], f"{le.score:.2f}")
        for le in example.accepted
    ]
    p = float(seen.latents.p[index])
    judged = "not analysed" if np.isnan(p) else f"P {p:.2f}"
    tiles = [
        Tile(subject.hu[index], (*truth, *found), f"HU, {judged}"),
        Tile(seen.healthy.edited[index, 0].numpy(), (), "healthy edit", (-1.0, 1.0)),
        Tile(np.asarray(seen.healthy.difference[index]), (), "difference", signed=True),
    ]
    if subject.twin is not None:
        twin = subject.twin[index, 0].numpy()
        tiles.insert(1, Tile(subject.case.x[index, 0].numpy(), (), "network input", (-1.0, 1.0)))
        tiles.append(Tile(twin, (), "true healthy twin", (-1.0, 1.0)))
    return tiles


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
    """Try a method on each vertebra that a box reaches into, beside the scan's others."""
    if isinstance(method, HideAndSeek):
        method = method.beside(subjects)
    boxed = [s for s in subjects if s.case.diseased]
    return [_hit(method.name, s, _accepted(method, tuned, s)) for s in boxed]


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
    method = method.beside(subjects)
    for subject in (s for s in subjects if s.case.diseased):
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
