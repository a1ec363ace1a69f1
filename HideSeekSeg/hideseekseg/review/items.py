"""Items of a review: candidates and vertebrae as the reader sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ..findings import LesionType, Status, VertebraFinding, from_head_down, status_of
from ..plain_data import from_plain

Verdict = Literal["unreviewed", "accepted", "uncertain", "rejected"]
# Why a candidate was rejected: what it is instead; empty where no reason was given.
Reason = Literal["", "haemangioma", "Schmorl node", "bone island", "degenerative", "artefact"]
REASONS: tuple[Reason, ...] = get_args(Reason)
Triple = tuple[float, float, float]
Box = tuple[float, float, float, float, float, float]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
SAME_PLACE = 0.25  # of the smaller box, from which two candidates are the same
FACTS = ("diameter_mm", "mean_hu", "p_all", "p_hidden", "p_alone", "p_without")
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
    diameter_mm: float | None = None
    mean_hu: float | None = None
    p_all: float | None = None
    p_hidden: float | None = None
    p_alone: float | None = None
    p_without: float | None = None


@dataclass(frozen=True)
class Assessment:
    """What the reader thinks of a lesion; ``switched``: its type is the other one.

    ``reason`` says what a rejected one is instead.
    """

    verdict: Verdict = "unreviewed"
    switched: bool = False
    comment: str = ""
    reason: Reason = ""


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
    reason: Reason = ""
    diameter_mm: float | None = None
    mean_hu: float | None = None
    p_all: float | None = None
    p_hidden: float | None = None
    p_alone: float | None = None
    p_without: float | None = None


@dataclass(frozen=True)
class ReviewedVertebra:
    """What is said of a vertebra; ``flags`` are remarks for the reader.

    ``analysed`` says whether the run did, also where the reader drew lesions in it since.
    """

    level: str
    status: Status
    reason: str
    p_malignant: float | None
    flags: tuple[str, ...]
    suspicious: bool = False
    body_mm3: float | None = None
    analysed: bool = True

    def judged(self, outlined: int) -> ReviewedVertebra:
        """Return the same vertebra, now that so many lesions are outlined in it."""
        if not self.analysed and not outlined:
            return self
        return replace(self, status=status_of(outlined, self.suspicious, self.p_malignant))


@dataclass(frozen=True)
class VertebraState:
    """A vertebra as its reader sees it now; ``words`` say its status, see ``describe_status``.

    ``rejected``: there were findings, and the reader rejected all of them.  ``analysed`` and
    ``suspicious`` as in ``ReviewedVertebra``.
    """

    level: str
    status: Status
    words: str
    p_malignant: float | None
    flags: tuple[str, ...]
    reason: str = ""
    rejected: bool = False
    analysed: bool = True
    suspicious: bool = False


@dataclass(frozen=True)
class Filter:
    """What a reader wants to see, and in which order; an empty field lets everything through.

    ``order`` is one of ``ORDERS``, empty: highest score first; ``backwards`` turns it round.
    """

    level: str = ""
    type: str = ""
    verdict: str = ""
    order: str = ""
    backwards: bool = False

    def sorted(self, items: Sequence[Item]) -> list[Item]:
        """Return the items, which are sorted by score, in the order asked for."""
        key = ORDERS.get(self.order)
        if key is None:
            return list(items)
        return sorted(items, key=key, reverse=self.backwards)

    def passes(self, item: Item) -> bool:
        """Return whether the item is of the level, the type and the verdict asked for."""
        return (
            (not self.level or item.level == self.level)
            and (not self.type or item.type == self.type)
            and (not self.verdict or item.verdict == self.verdict)
        )


# Orders of the list by column: from the head down, by the alphabet, highest first.
ORDERS: dict[str, Callable[[Item], Any]] = {
    "level": lambda x: from_head_down(x.level),
    "type": lambda x: x.type,
    "score": lambda x: (x.missed, -x.score),
    "p_malignant": lambda x: -1.0 if x.p_malignant is None else -x.p_malignant,
    "volume": lambda x: -x.volume_mm3,
    "verdict": lambda x: VERDICTS.index(x.verdict),
}


def is_open(item: Item, threshold: float) -> bool:
    """Return whether a candidate is above the threshold, and its reader gave it no verdict."""
    return item.verdict == "unreviewed" and item.score > threshold and not item.missed


def lesions_of(finding: VertebraFinding) -> Iterator[Lesion]:
    """Return the candidates of a vertebra, numbered so that a switched type stays unique."""
    totals = {kind: sum(c.type == kind for c in finding.candidates) for kind in OTHER}
    counts = dict.fromkeys(OTHER, 0)
    for c in sorted(finding.candidates, key=lambda c: -c.score):
        counts[c.type] += 1
        numbers = {c.type: counts[c.type], OTHER[c.type]: totals[OTHER[c.type]] + counts[c.type]}
        place = (c.volume_mm3, c.centroid_lps, c.box_lps)
        both = (numbers["lytic"], numbers["blastic"])
        yield Lesion(
            *(c.id, finding.level, c.type, c.score, *place, both),
            **{name: getattr(c, name) for name in FACTS},
        )


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
        opinion.reason,
        **{fact: getattr(lesion, fact) for fact in FACTS},
    )


def vertebra_of(finding: VertebraFinding) -> ReviewedVertebra:
    """Return the run's result for a vertebra, without its candidates."""
    said = (finding.status, finding.reason, finding.p_malignant, finding.flags, finding.suspicious)
    analysed = finding.status is not Status.NOT_ANALYSED
    return ReviewedVertebra(finding.level, *said, finding.body_mm3, analysed)


def matched(old: Sequence[Lesion], new: Sequence[Lesion]) -> dict[str, str]:
    """Return the id of the old lesion that each new one is, by the new one's id.

    They are of one type and their boxes share at least ``SAME_PLACE`` of the smaller one; of
    several the one that shares most, and each is matched once.
    """
    pairs = [
        (shared_box(a.box_lps, b.box_lps), b.id, a.id)
        for a in old
        for b in new
        if a.type == b.type and not a.missed
    ]
    found: dict[str, str] = {}
    for share, now, before in sorted(pairs, key=lambda pair: -pair[0]):
        if share >= SAME_PLACE and now not in found and before not in found.values():
            found[now] = before
    return found


def shared_box(a: Box, b: Box) -> float:
    """Return the share of the smaller of two boxes that lies in the other, 0 to 1."""
    common, sizes = 1.0, [1.0, 1.0]
    for n in range(3):
        common *= max(min(a[n + 3], b[n + 3]) - max(a[n], b[n]), 0.0)
        sizes = [sizes[0] * (a[n + 3] - a[n]), sizes[1] * (b[n + 3] - b[n])]
    return common / min(sizes) if min(sizes) > 0 else 0.0


def vertebra_to_json(vertebra: ReviewedVertebra) -> dict[str, Any]:
    """Return plain data for JSON, of a vertebra as the run left it."""
    data = {**asdict(vertebra), "status": vertebra.status.value, "flags": list(vertebra.flags)}
    del data["analysed"]  # its status says it
    return data


def vertebra_from_json(data: Mapping[str, Any]) -> ReviewedVertebra:
    """Read what ``vertebra_to_json`` wrote."""
    vertebra = from_plain(ReviewedVertebra, data, ("analysed",))
    return replace(vertebra, analysed=vertebra.status is not Status.NOT_ANALYSED)


def opinion_from_json(data: Mapping[str, Any]) -> Assessment:
    """Read what ``asdict`` made of an assessment."""
    return from_plain(Assessment, data)


def lesion_from_json(data: Mapping[str, Any]) -> Lesion:
    """Read what ``asdict`` made of a lesion; JSON has lists in place of tuples."""
    return from_plain(Lesion, data)
