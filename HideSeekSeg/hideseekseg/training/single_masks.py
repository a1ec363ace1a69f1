"""Masks of one vertebra each, taken together as the spine that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..anatomy.alignment import check_agreement
from ..anatomy.body import CUT
from ..anatomy.intensity import check_values
from ..anatomy.label_conventions import LEVELS
from ..anatomy.labelling import Assignment
from ..anatomy.localization import ends_at_border, levels_of
from ..anatomy.preparation import Prepared
from ..anatomy.vertebra_checks import SpineChecks, check_vertebrae
from ..errors import InputError
from ..imaging.segmentation import layered
from ..imaging.volume import Grid, Patch, Volume, move_patch, shared_voxels
from ..inputs import CheckedInputs, Options

THE_ONE = "the only label"
SAME_SHARE = 0.5  # of the smaller of two masks: those that share more are of one vertebra


@dataclass(frozen=True)
class SingleMask:
    """A mask of one vertebra on its file's grid, and its level, "" where nobody says which."""

    path: Path
    patch: Patch
    grid: Grid
    level: str = ""


def placed(ct: Volume, masks: Sequence[SingleMask]) -> tuple[Grid, list[Patch | None]]:
    """Return the grid that masks share, else the CT's, and each mask on it.

    None where nothing of a mask gets there.
    """
    grid = masks[0].grid
    if not all(mask.grid.matches(grid) for mask in masks):
        grid = ct.grid
    return grid, [move_patch(mask.patch, mask.grid, grid) for mask in masks]


def check_masks(
    ct: Volume, masks: Sequence[SingleMask], grid: Grid, patches: Sequence[Patch]
) -> tuple[CheckedInputs, list[str]]:
    """Return the masks of a CT as one segmentation, with what is known of it, and their levels.

    So a vertebra lies as its neighbours say, and outlines beside the bone are noticed in all of
    them.  ``patches`` are the masks on ``grid``, as of ``placed``.  Where not all levels are known,
    or two masks claim one, the order from head to foot stands for them: then the levels are names
    and no more.  Masks of the same vertebra have the same level.  Raises UserError as
    ``check_inputs``.
    """
    check_values(ct)
    first = [_first_like(patches, n) for n in range(len(masks))]
    kept = sorted(set(first))
    named = [masks[n].level for n in kept]
    known = all(named) and len(set(named)) == len(named)
    if not known:
        if len(kept) > len(LEVELS):
            cause = f"is one of {len(kept)} masks of vertebrae in one image, which no spine has"
            raise InputError(masks[0].path, cause)
        order = sorted(range(len(kept)), key=lambda n: -_height(patches[kept[n]], grid))
        for level, n in zip(LEVELS, order):
            named[n] = level
    together = layered([(str(n), patches[n]) for n in kept], grid, masks[0].path)
    assignments = [
        Assignment(segment, level, "vertebra", THE_ONE)
        for segment, level in zip(together.segments, named)
    ]
    checks = check_vertebrae(together, assignments) if known else SpineChecks()
    agreement = check_agreement(ct, together, checks.telling(assignments))
    inputs = CheckedInputs(
        *(ct, together, None, Options(), tuple(assignments), levels_of(assignments)),
        *(checks, agreement),
    )
    level_of = dict(zip(kept, named))
    return inputs, [level_of[n] for n in first]


def _first_like(patches: Sequence[Patch], n: int) -> int:
    """Return the first of some patches that is of the same vertebra as one of them."""
    return next(m for m in range(n + 1) if m == n or same_vertebra(patches[m], patches[n]))


def same_vertebra(one: Patch, other: Patch) -> bool:
    """Return whether two patches of one grid are of the same vertebra."""
    smaller = min(one.array.sum(), other.array.sum())
    return shared_voxels(one, other) > SAME_SHARE * smaller


def _height(patch: Patch, grid: Grid) -> float:
    """Return how high (mm along superior) the middle of a patch's box lies."""
    k, j, i = ((s.start + s.stop - 1) / 2 for s in patch.box)
    return float(grid.lps((i, j, k))[2])


def cut_by_own_border(vertebra: Prepared, ct: Grid, mask: SingleMask) -> bool:
    """Return whether a body ends where the grid of its mask does.

    Also on a grid that its mask was moved from, where it has no border any more.
    """
    body = vertebra.site.body
    if body is None or CUT in vertebra.site.flags:
        return False
    own = move_patch(body, ct, mask.grid)
    return own is None or ends_at_border(own, mask.grid)
