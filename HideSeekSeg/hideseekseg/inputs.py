"""What a run is given: the user's options, and whether CT, segmentation and labels go together.

Nothing here needs the networks: what is refused is refused before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from .anatomy.alignment import Agreement, check_agreement
from .anatomy.intensity import check_values
from .anatomy.islands import without_islands
from .anatomy.label_conventions import unknown_level
from .anatomy.labelling import Assignment, assign
from .anatomy.localization import levels_of
from .anatomy.vertebra_checks import SpineChecks, check_vertebrae
from .errors import InputError, SegmentationError
from .findings import check_threshold
from .imaging.segmentation import Segmentation
from .imaging.volume import Volume


@dataclass(frozen=True)
class Options:
    """Options of the user.

    ``labels`` is a label convention as in ``labelling.assign``; ``levels`` restricts the run to
    some, whose findings are those of a run of all; ``threshold`` replaces that of the weights,
    ``schedule`` (see ``scheduled``) theirs; ``all_slices`` analyses all slices, also where the
    weights were trained on central ones; ``accept_orientation`` goes on where header, levels or
    outlines contradict the anatomy.
    Raises InputError for a level or a threshold that does not exist.
    """

    labels: str | None = None
    levels: tuple[str, ...] = ()
    threshold: float | None = None
    all_slices: bool = False
    schedule: str | None = None
    accept_orientation: bool = False

    def __post_init__(self) -> None:
        if cause := unknown_level(self.levels):
            raise InputError("levels", cause)
        if self.threshold is not None:
            check_threshold(self.threshold)


@dataclass(frozen=True)
class CheckedInputs:
    """Inputs that go together: ``levels`` are those to analyse, from the head down.

    ``segmentation`` is that given less the small islands that lie far from a vertebra.

    ``bodies`` marks vertebral bodies where the segmentation holds whole vertebrae only.
    """

    ct: Volume
    segmentation: Segmentation
    bodies: Segmentation | None
    options: Options
    assignments: tuple[Assignment, ...]
    levels: tuple[str, ...]
    checks: SpineChecks
    agreement: Agreement

    @property
    def segmented(self) -> tuple[str, ...]:
        """Return all levels that are segmented, chosen or not, from the head down."""
        return levels_of(self.assignments)

    @property
    def notes(self) -> list[str]:
        """Return what is doubtful about the files and their labels, a line each."""
        return [*self.checks.notes(), *self.agreement.notes]


def check_inputs(
    ct: Volume,
    segmentation: Segmentation,
    options: Options,
    bodies: Segmentation | None = None,
) -> CheckedInputs:
    """Return the inputs of a run with what is known of them.

    Raises SegmentationError where segmentation and CT do not go together, InputError where labels
    are not understood or header, levels or outlines contradict the anatomy, NotCTError where the
    volume is not a CT.
    """
    check_values(ct)
    assignments = assign(segmentation, options.labels)
    levels = _wanted(segmentation, assignments, options.levels)
    turned, grid = options.accept_orientation, ct.grid
    agree = partial(check_agreement, ct, bodies=bodies, accept_orientation=turned)
    with ThreadPoolExecutor(1) as beside:  # as long as the inputs are checked, nothing else is done
        agreement = beside.submit(agree, segmentation=segmentation, assignments=assignments)
        checks = check_vertebrae(segmentation, assignments, turned, grid)
        # Islands, and what tells nothing, are hardly ever there: then all is looked at without.
        cleaned = without_islands(segmentation, assignments, checks.islands)
        if cleaned is not segmentation:
            checks = check_vertebrae(cleaned, assignments, turned, grid)
        if levels and all(level in checks.obstacles for level in levels):
            cause = f"no vertebra can be analysed: {checks.why_not(levels)}"
            raise SegmentationError(segmentation.source, cause)
    if cleaned is not segmentation or checks.specks:
        agreed = agree(segmentation=cleaned, assignments=checks.telling(assignments))
    else:
        agreed = agreement.result()
    return CheckedInputs(ct, cleaned, bodies, options, tuple(assignments), levels, checks, agreed)


def _wanted(
    segmentation: Segmentation, assignments: Sequence[Assignment], asked: Sequence[str]
) -> tuple[str, ...]:
    present = levels_of(assignments)
    missing = [level for level in asked if level not in present]
    if missing:
        there = ", ".join(present)
        raise SegmentationError(
            segmentation.source, f"contains no {' and no '.join(missing)}; it contains {there}"
        )
    return tuple(level for level in present if not asked or level in asked)
