"""Items of a review: candidates and vertebrae as the reader sees them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..findings import LesionType, Status, VertebraFinding, status_of
from ..plain_data import from_plain

Verdict = Literal["unreviewed", "accepted", "rejected"]
Triple = tuple[float, float, float]
Box = tuple[float, float, float, float, float, float]

VERDICTS: tuple[Verdict, ...] = ("unreviewed", "accepted", "rejected")
OTHER: dict[LesionType, LesionType] = {"lytic": "blastic", "blastic": "lytic"}


@dataclass(frozen=True)
class Lesion:
    """What the run found, or the reader added (``missed``); positions in LPS mm.

    ``numbers`` are those of its name, as lytic and as blastic: a switch of its type gives it a name
    that no other candidate of the vertebra ever has.
    """

    id: str
    level: str
    type: LesionType
    score: float
    volume_mm3: float
    centroid_lps: Triple
    box_lps: Box
    numbers: tuple[int, int]
    missed: bool = False


@dataclass(frozen=True)
class Assessment:
    """What the reader thinks of a lesion; ``switched``: its type is the other one."""

    verdict: Verdict = "unreviewed"
    switched: bool = False
    comment: str = ""


@dataclass(frozen=True)
class Item:
    """A candidate as its reader sees it; positions in LPS mm.

    ``type`` and ``name`` follow a switch of the type, ``id`` never changes.  ``missed``: the reader
    added it, so it has no score (0).  ``number`` is that of the name.
    """

    id: str
    level: str
    type: LesionType
    score: float
    p_malignant: float | None
    volume_mm3: float
    centroid_lps: Triple
    box_lps: Box
    verdict: Verdict
    comment: str
    missed: bool
    name: str
    number: int = 1


@dataclass(frozen=True)
class ReviewedVertebra:
    """What is said of a vertebra; ``flags`` are remarks for the reader."""

    level: str
    status: Status
    reason: str
    p_malignant: float | None
    flags: tuple[str, ...]
    suspicious: bool = False

    def judged(self, outlined: int) -> ReviewedVertebra:
        """Return the same vertebra, now that so many lesions are outlined in it."""
        if self.status is Status.NOT_ANALYSED and not outlined:
            return self
        return replace(self, status=status_of(outlined, self.suspicious, self.p_malignant))


@dataclass(frozen=True)
class VertebraState:
    """A vertebra as its reader sees it now; ``words`` say its status, see ``describe_status``.

    ``rejected``: there were findings, and the reader rejected all of them.
    """

    level: str
    status: Status
    words: str
    p_malignant: float | None
    flags: tuple[str, ...]
    reason: str = ""
    rejected: bool = False


@dataclass(frozen=True)
class Filter:
    """What a reader wants to see; an empty field lets everything through."""

    level: str = ""
    type: str = ""
    verdict: str = ""

    def passes(self, item: Item) -> bool:
        """Whether the item is of the level, the type and the verdict asked for."""
        return (
            (not self.level or item.level == self.level)
            and (not self.type or item.type == self.type)
            and (not self.verdict or item.verdict == self.verdict)
        )


def lesions_of(finding: VertebraFinding) -> Iterator[Lesion]:
    """Return the candidates of a vertebra, numbered so that a switched type stays unique."""
    totals = {kind: sum(c.type == kind for c in finding.candidates) for kind in OTHER}
    counts = dict.fromkeys(OTHER, 0)
    for c in sorted(finding.candidates, key=lambda c: -c.score):
        counts[c.type] += 1
        numbers = {c.type: counts[c.type], OTHER[c.type]: totals[OTHER[c.type]] + counts[c.type]}
        place = (c.volume_mm3, c.centroid_lps, c.box_lps)
        both = (numbers["lytic"], numbers["blastic"])
        yield Lesion(c.id, finding.level, c.type, c.score, *place, both)


def item_of(lesion: Lesion, opinion: Assessment, p_malignant: float | None) -> Item:
    """Return the lesion with the reader's assessment."""
    kind = OTHER[lesion.type] if opinion.switched else lesion.type
    number = lesion.numbers[0 if kind == "lytic" else 1]
    name = f"{lesion.level} {kind} {'added ' if lesion.missed else ''}{number}"
    return Item(
        lesion.id,
        lesion.level,
        kind,
        lesion.score,
        p_malignant,
        lesion.volume_mm3,
        lesion.centroid_lps,
        lesion.box_lps,
        opinion.verdict,
        opinion.comment,
        lesion.missed,
        name,
        number,
    )


def vertebra_of(finding: VertebraFinding) -> ReviewedVertebra:
    """Return the run's result for a vertebra, without its candidates."""
    said = (finding.status, finding.reason, finding.p_malignant, finding.flags, finding.suspicious)
    return ReviewedVertebra(finding.level, *said)


def boxes_overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share a point."""
    return all(a[n] <= b[n + 3] and b[n] <= a[n + 3] for n in range(3))


def vertebra_to_json(vertebra: ReviewedVertebra) -> dict[str, Any]:
    """Return plain data for JSON."""
    return {**asdict(vertebra), "status": vertebra.status.value, "flags": list(vertebra.flags)}


def vertebra_from_json(data: Mapping[str, Any]) -> ReviewedVertebra:
    """Read what ``vertebra_to_json`` wrote."""
    return from_plain(ReviewedVertebra, data)


def opinion_from_json(data: Mapping[str, Any]) -> Assessment:
    """Read what ``asdict`` made of an assessment."""
    return from_plain(Assessment, data)


def lesion_from_json(data: Mapping[str, Any]) -> Lesion:
    """Read what ``asdict`` made of a lesion; JSON has lists in place of tuples."""
    return from_plain(Lesion, data)
