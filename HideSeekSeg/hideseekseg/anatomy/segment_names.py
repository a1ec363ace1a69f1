"""What a segment's name or terminology entry says it is."""

from __future__ import annotations

import re

from .label_conventions import (
    ALTERED_STRUCTURE_CODE,
    BODY_CODE,
    CONVENTIONS,
    LEVELS,
    OTHER,
    SNOMED,
    UNKNOWN,
    VERTEBRA_CODE,
    Meaning,
)

REGIONS = {
    **dict.fromkeys(("c", "hwk", "cervical"), "C"),
    **dict.fromkeys(("t", "th", "bwk", "thoracic"), "T"),
    **dict.fromkeys(("l", "lwk", "lumbar"), "L"),
    **dict.fromkeys(("s", "swk", "sacral"), "S"),
}
"""The letter of a level in the spellings in use; HWK, BWK, LWK, SWK are German."""

VERTEBRA_WORDS = {"vertebra", "vertebrae", "vert", "wirbel"}
BODY_WORDS = {"body", "bodies", "corpus", "corpora", "wirbelkörper", "wirbelkoerper"}
FILLERS = VERTEBRA_WORDS | BODY_WORDS | {"vertebral", "level", "bone", "spine", "instance"}
FILLERS |= {"mask", "label", "segment", "segmentation", "seg", "whole", "atlas", "axis"}

_TOKEN = re.compile(r"[^\W_]+")
_LEVEL = re.compile(rf"(?:vertebrae?|vert)?({'|'.join(REGIONS)})0*(\d{{1,2}})")
_VERSE = re.compile(r"vert(\d{1,3})")
_NO_NAME = re.compile(r"(segment|label|mask)?\d*")
_BY_CODE = {code: level for level, code in SNOMED.items() if code != VERTEBRA_CODE}


def meaning_of_name(name: str) -> Meaning | None:
    """The meaning of a name, OTHER when it is understood as no vertebra, None when not understood.

    A name counts as a vertebra only when it holds one level and nothing but words that go with one
    ("vertebrae_L1", "L1 vertebral body", "LWK1", "Th 12", "vert_20"): a level beside any other word
    is something at that level ("lesion T10", "L1-L2 disc", "T1_weighted").
    """
    tokens = _tokens(name)
    joined = "".join(tokens)
    if match := _VERSE.fullmatch(joined):
        return CONVENTIONS["verse"].meanings.get(int(match[1]), UNKNOWN)
    found = [level for token in tokens if (level := _level(token)) is not None]
    rest = {token for token in tokens if _level(token) is None}
    is_body = bool(rest & BODY_WORDS)
    if not found:
        all_bodies = is_body and rest <= FILLERS and bool(rest & (VERTEBRA_WORDS | {"vertebral"}))
        return Meaning(None, "body") if all_bodies or joined == "corpus" else None
    if len(found) > 1 or found[0] not in LEVELS or not rest <= FILLERS:
        return OTHER
    return Meaning(found[0], "body" if is_body else "vertebra")


def is_unnamed(name: str) -> bool:
    """Nothing there, or what programs put there for want of a name ("Segment_3", "label 20")."""
    return bool(_NO_NAME.fullmatch("".join(_TOKEN.findall(name.lower()))))


def meaning_of_entry(entry: str) -> Meaning | None:
    """The meaning of Slicer's serialised terminology entry, None when its codes say nothing of it.

    The level may be the type itself or, for a type "vertebra" or "vertebral body", its modifier or
    the region; without one the meaning has no level.  A lesion is no vertebra, wherever it is.
    """
    parts = entry.split("~")
    if len(parts) != 7:
        return None
    category, kind, *places = (_code(parts[n]) for n in (1, 2, 3, 5, 6))
    if category == ALTERED_STRUCTURE_CODE:
        return OTHER
    if kind not in (VERTEBRA_CODE, BODY_CODE, *_BY_CODE):
        return None
    level = next((_BY_CODE[code] for code in (kind, *places) if code in _BY_CODE), None)
    return Meaning(level, "body" if BODY_CODE in (kind, *places) else "vertebra")


def _tokens(name: str) -> list[str]:
    """Lower-case words; a region's letter and its number are one word ("Th. 12" -> "th12")."""
    tokens: list[str] = []
    for word in _TOKEN.findall(name.lower()):
        if word.isdecimal() and tokens and tokens[-1] in REGIONS:
            tokens[-1] += word
        else:
            tokens.append(word)
    return tokens


def _level(token: str) -> str | None:
    """The level a word spells, which need not exist ("L9"), or None."""
    match = _LEVEL.fullmatch(token)
    return f"{REGIONS[match[1]]}{int(match[2])}" if match else None


def _code(triplet: str) -> str:
    """The code of a ``scheme^code^meaning`` triplet of SNOMED CT, else empty."""
    scheme, _, rest = triplet.partition("^")
    return rest.partition("^")[0] if scheme == "SCT" else ""
