"""What the images of a result tell of stability, as elements of SINS by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..anatomy.label_conventions import LEVELS
from ..anatomy.level_order import levels_between
from ..anatomy.vertebra_shape import (
    CLEAR_LOSS,
    WALL_MM,
    alignment,
    body_heights,
    height_loss,
    reaches_posterior_wall,
)
from ..findings import LESION_TYPES, Evidence
from ..review.items import Item
from .report_blocks import Block, ReportHeading, ReportTable, ReportText
from .report_lesions import SeenLesion, lesions_of, seen_at
from .result_folder import StoredResult

Heights = Mapping[str, tuple[float, float, float] | None]

# Regions of the Spine Instability Neoplastic Score, by the names it gives them.
REGIONS = {
    "junctional": ("C1", "C2", "C7", "T1", "T2", "T11", "T12", "T13", "L1", "L5", "L6", "S1"),
    "mobile": ("C3", "C4", "C5", "C6", "L2", "L3", "L4"),
    "semi-rigid": tuple(f"T{n}" for n in range(3, 11)),
}


def stability(
    stored: StoredResult, images: Mapping[str, Evidence], seen: Mapping[str, SeenLesion]
) -> list[Block]:
    """Return what bears on the stability of each level with a lesion that an image shows.

    ``images`` are by level, ``seen`` lesions by id.
    """
    levels = [s.level for s in stored.states if any(seen_at(seen, s.level))]
    if not levels:
        return []
    blocks: list[Block] = [
        ReportHeading("What bears on stability"),
        ReportText(
            "Elements of the Spine Instability Neoplastic Score (SINS), as far as images show. "
            "Pain, posterolateral elements and subluxation cannot be assessed from what the method "
            "sees, so no total is given."
        ),
    ]
    heights = {name: body_heights(x.body, x.grid) for name, x in images.items()}
    for level in levels:
        rows = (
            ("Location", _region(level)),
            ("Pain", "not assessable on images"),
            ("Bone lesion", _quality(lesions_of(stored, level))),
            ("Alignment", _alignment(stored, images, level)),
            ("Vertebral body", _body(stored, heights, level)),
            ("Posterior wall", _wall(seen_at(seen, level))),
            ("Posterolateral elements", "not analysed: the method sees the vertebral body alone"),
        )
        blocks += [ReportHeading(level, 3), ReportTable(("Element", "Image findings"), rows)]
    return blocks


def _region(level: str) -> str:
    return next((name for name, levels in REGIONS.items() if level in levels), "not known")


def _quality(lesions: Sequence[Item]) -> str:
    kinds = [kind for kind in LESION_TYPES if any(x.type == kind for x in lesions)]
    return kinds[0] if len(kinds) == 1 else "mixed (lytic and blastic)"


def _neighbours(stored: StoredResult, level: str) -> list[str]:
    """Return the levels next above and below, empty where one is not known.

    Of T10 and T12 alone neither is the other's neighbour.
    """
    levels = [state.level for state in stored.states if state.level in LEVELS]
    if level not in levels:
        return ["", ""]
    at = levels.index(level)
    above = [x for x in levels[:at][-1:] if not levels_between(x, level, levels)]
    below = [x for x in levels[at + 1 :][:1] if not levels_between(level, x, levels)]
    return [*(above or [""]), *(below or [""])]


def _alignment(stored: StoredResult, images: Mapping[str, Evidence], level: str) -> str:
    above, below = _neighbours(stored, level)
    if above not in images or below not in images or level not in images:
        return "not measured: the vertebrae above and below were not both analysed"
    found = alignment(images[above].grid, images[level].grid, images[below].grid)
    bend = "kyphosis" if found.kyphosis >= 0 else "lordosis"
    said = f"{abs(found.kyphosis):.0f}° {bend} and {found.tilt:.0f}° tilt to the side"
    return f"{said} between {above} and {below}; subluxation is not measured"


def _body(stored: StoredResult, heights: Heights, level: str) -> str:
    volume = sum(x.volume_mm3 for x in lesions_of(stored, level))
    body = stored.bodies.get(level)
    share = f"; lesions take {100 * volume / body:.0f} % of the body" if body else ""
    own = heights.get(level)
    near = {name: heights[name] for name in _neighbours(stored, level) if heights.get(name)}
    if own is None or not near:
        why = "the body is cut off or too small" if own is None else "no neighbour was analysed"
        return f"height not compared: {why}{share}"
    loss = height_loss(own, [x for x in near.values() if x is not None])
    at = int(np.argmax(loss))
    measured_ = ", ".join(f"{x:.0f}" for x in own)
    said = f"height {measured_} mm (front, middle, back)"
    where = ("in front", "in its middle", "behind")[at]
    against = " and ".join(near)
    if loss[at] < CLEAR_LOSS:
        return f"{said}, no loss of {100 * CLEAR_LOSS:.0f} % or more against {against}{share}"
    more = "more" if loss[at] > 0.5 else "less"
    lost = f"{100 * loss[at]:.0f} % less {where} than {against} let expect"
    return f"{said}, {lost}: collapse of {more} than 50 %{share}"


def _wall(seen: Sequence[SeenLesion]) -> str:
    reached = [x.lesion.name for x in seen if reaches_posterior_wall(x.mask, x.evidence)]
    if reached:
        return f"reached by {', '.join(reached)} (within {WALL_MM:g} mm)"
    return "not reached by an outlined lesion"
