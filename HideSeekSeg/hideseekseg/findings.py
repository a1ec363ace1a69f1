"""Result types shared by pipeline, output, scene and review.

Nothing here computes: the method is in ``attribution``, joining slices to lesions in ``lesions``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .imaging.volume import Grid, Patch

SCHEMA_VERSION = "1.1"

LesionType = Literal["lytic", "blastic"]
LESION_TYPES: tuple[LesionType, ...] = get_args(LesionType)
BodySource = Literal["given", "intersected", "derived"]


def check_threshold(threshold: object) -> None:
    """Raise InputError for what no score can be compared with: a percentage, NaN, True."""
    is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:  # type: ignore[operator]
        raise InputError("threshold", f"{threshold!r} is not a number between 0 and 1")


def from_head_down(level: str) -> tuple[int, str]:
    """Return a key that sorts levels from the head down; what is no level (a label) comes last."""
    part = "CTLS".find(level[:1] or " ")
    return (part, level[1:].zfill(2)) if part >= 0 and level[1:].isdecimal() else (4, "")


class Status(str, Enum):
    """What can be said of a vertebra; every vertebra has a status.

    FINDINGS: a lesion is outlined.  SUSPICIOUS: the vertebra is probably diseased, but no candidate
    is sure enough to be outlined: look yourself.  NO_FINDING: unremarkable.
    """

    FINDINGS = "findings"
    SUSPICIOUS = "suspicious"
    NO_FINDING = "no finding"
    NOT_ANALYSED = "not analysed"


# P(malignant) above which no vertebra is called unremarkable, whatever weights it comes from.
SURE_P = 0.9
STOPPED = "stopped before its turn"  # the reason where a stop left a vertebra out
_SILENT = {
    Status.SUSPICIOUS: "suspicious, nothing outlined",
    Status.NO_FINDING: "unremarkable",
    Status.NOT_ANALYSED: "not analysed",
}


def status_of(outlined: int, suspicious: bool, p_malignant: float | None) -> Status:
    """Return the status of an analysed vertebra in which so many lesions are outlined."""
    if outlined:
        return Status.FINDINGS
    sure = p_malignant is not None and p_malignant > SURE_P
    return Status.SUSPICIOUS if suspicious or sure else Status.NO_FINDING


def describe_status(
    status: Status,
    outlined: int = 0,
    reason: str = "",
    best: tuple[LesionType, float] | None = None,
) -> str:
    """Return the state of a vertebra in words, the same in every output.

    ``best`` are type and score of the best candidate, said where nothing is outlined although the
    vertebra is suspicious; ``reason`` is why a vertebra was not analysed.
    """
    if status is Status.FINDINGS:
        return "lesion outlined" if outlined == 1 else f"{outlined} lesions outlined"
    words = _SILENT[status]
    if status is Status.SUSPICIOUS and best is not None:
        return f"{words} (best candidate {best[0]}, {best[1]:.2f})"
    return f"{words}: {reason}" if status is Status.NOT_ANALYSED and reason else words


@dataclass(frozen=True)
class SliceCandidate:
    """A lytic or blastic candidate on one sagittal slice, with its attribution score.

    ``mask`` (P, I) holds its pixels.  ``p`` is P(malignant) of the slice when only this candidate
    is visible, ``p_hidden`` when all are hidden, ``p_all`` as it is, ``p_without`` when this one
    alone is hidden; ``delta`` the mean of edit minus reconstruction.  What was not computed is NaN,
    as all of them are for methods without an edit.
    """

    slice: int
    type: LesionType
    mask: npt.NDArray[np.bool_]
    score: float
    p: float = math.nan
    delta: float = math.nan
    p_hidden: float = math.nan
    p_all: float = math.nan
    p_without: float = math.nan


# Flags of a vertebra, the second after the name of one of its findings: look yourself.
UNLIKE_TRAINING = "unlike what was trained on"
UNSTABLE = "is hardly found again when the image changes a little"


def unstable(candidate_id: str) -> str:
    """Return the flag of a finding, L1-lytic-1 of L1: "lytic 1 is hardly found again ..."."""
    kind, number = candidate_id.rsplit("-", 2)[-2:]
    return f"{kind} {number} {UNSTABLE}"


@dataclass(frozen=True)
class Candidate:
    """A lytic or blastic candidate in 3D.

    ``score`` is what the threshold is compared with: with calibrated weights the ``probability``
    that the candidate is a lesion, with others the ``attribution_score`` (step 4 of the method).
    ``stability`` is the share of small changes of the input (mirrored, shifted, softened) under
    which the candidate is found again.  What was not computed is None.  Positions are LPS mm;
    ``box_lps`` is ``(x_min, y_min, z_min, x_max, y_max, z_max)``; ``slices`` are indices of
    sagittal slices of the crop; ``mean_hu`` is None where the CT is not in HU.
    ``p_all`` is P(malignant) of these slices as they are, ``p_hidden`` with all candidates hidden,
    ``p_alone`` with this one alone shown, ``p_without`` with this one alone hidden: means weighted
    by its area on each.
    ``patch`` holds the voxels and stays out of the JSON.
    """

    id: str
    type: LesionType
    score: float
    volume_mm3: float
    centroid_lps: tuple[float, float, float]
    box_lps: tuple[float, float, float, float, float, float]
    share_of_body: float
    mean_hu: float | None
    slices: tuple[int, ...]
    attribution_score: float | None = None
    probability: float | None = None
    stability: float | None = None
    diameter_mm: float | None = None
    p_all: float | None = None
    p_hidden: float | None = None
    p_alone: float | None = None
    p_without: float | None = None
    patch: Patch | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class VertebraFinding:
    """One vertebra: its status, P(malignant), and all candidates whatever their score, best first.

    ``reason`` says why a vertebra was not analysed; ``flags`` are remarks for the reader, such as
    "cut by the field of view".  ``body_source`` says how the vertebral body was found.
    ``p_malignant`` is calibrated where the weights are; ``suspicious`` says that it is so high that
    a vertebra without an accepted candidate is not called unremarkable.  ``distance_from_training``
    is 1 at the edge of what the weights were trained on, and more beyond it.
    """

    level: str
    status: Status
    reason: str = ""
    p_malignant: float | None = None
    body_source: BodySource | None = None
    body_mm3: float | None = None
    flags: tuple[str, ...] = ()
    slice_p: tuple[float, ...] = ()
    suspicious: bool = False
    distance_from_training: float | None = None
    candidates: tuple[Candidate, ...] = ()

    def accepted(self, threshold: float) -> tuple[Candidate, ...]:
        """Step 5 of the paper, on 3D candidates: those that score above the threshold."""
        return tuple(c for c in self.candidates if c.score > threshold)

    def judged(self, threshold: float) -> VertebraFinding:
        """Return the same vertebra with the status it has at this threshold."""
        if self.status is Status.NOT_ANALYSED:
            return self
        found = len(self.accepted(threshold))
        return replace(self, status=status_of(found, self.suspicious, self.p_malignant))

    def state(self, threshold: float) -> str:
        """Return the status at this threshold in words, see ``describe_status``."""
        best = max(self.candidates, key=lambda c: c.score, default=None)
        known = None if best is None else (best.type, best.score)
        status, found = self.judged(threshold).status, len(self.accepted(threshold))
        return describe_status(status, found, self.reason, known)


@dataclass(frozen=True)
class Evidence:
    """Images of the method for one vertebra: float32 (S, P, I) arrays on the crop's grid.

    Slices run to the patient's right, rows from anterior to posterior, columns from superior to
    inferior.  ``difference`` is edit minus reconstruction in the units of ``image``: positive where
    the method added density (lytic), negative where it took density away (blastic).  ``lytic`` and
    ``blastic`` hold all candidates; ``changed`` holds all pixels that were hidden while a candidate
    was scored: also specks too small to be candidates, and what no neighbouring slice continues.
    """

    image: npt.NDArray[np.float32]
    edit: npt.NDArray[np.float32]
    difference: npt.NDArray[np.float32]
    body: npt.NDArray[np.bool_]
    grid: Grid
    lytic: npt.NDArray[np.bool_]
    blastic: npt.NDArray[np.bool_]
    changed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """Result of a whole run.

    ``run`` holds what is needed to repeat it, such as weights, versions and device; ``evidence``
    the images by level, of vertebrae that were analysed (empty for a result read from JSON).
    """

    vertebrae: tuple[VertebraFinding, ...]
    threshold: float
    run: dict[str, Any]
    evidence: Mapping[str, Evidence] = field(default_factory=dict, repr=False, compare=False)

    def with_threshold(self, threshold: float) -> Result:
        """Return the same run judged at another threshold; the statuses of vertebrae follow.

        Raises InputError for a threshold that does not exist.
        """
        check_threshold(threshold)
        judged = tuple(v.judged(threshold) for v in self.vertebrae)
        return replace(self, vertebrae=judged, threshold=threshold)
