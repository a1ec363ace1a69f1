"""What a folder of results holds, read back: by exports and reports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_object
from ..findings import Evidence, Status
from ..imaging.patch import Patch, patch_of
from ..imaging.reading import read_segmentation
from ..imaging.volume import Grid, case_name
from ..plain_data import as_type, first_line, from_plain
from ..review.items import Item, VertebraState
from ..review.review import Review
from .result_folder import EACH, EXPORTED, FILES
from .tables import result_from_json
from .vertebra_file import read_vertebra


@dataclass(frozen=True)
class StoredResult:
    """A run's result, or the review of it.

    ``lesions`` are those that count: accepted in the review, or above the threshold where nobody
    has reviewed them.  ``patches`` are their voxels by id on ``grid``, that of the CT, which is
    None where there is no lesion.  ``states`` are those of all vertebrae, ``bodies`` the volumes of
    the vertebral bodies (mm3) that were analysed, by level.  ``reviewer`` and ``reviewed`` (when,
    ISO 8601) are empty without a review; ``others`` are all candidates that do not count;
    ``run`` is ``Result.run``.
    """

    folder: Path
    run: Mapping[str, Any]
    threshold: float
    states: tuple[VertebraState, ...]
    bodies: Mapping[str, float | None]
    lesions: tuple[Item, ...]
    grid: Grid | None
    patches: Mapping[str, Patch]
    reviewer: str = ""
    reviewed: str = ""
    others: tuple[Item, ...] = ()

    @property
    def scan(self) -> dict[str, str]:
        """Return which scan it is of, as ``scan_identity`` does; empty where that is not known."""
        found = self.run.get("scan", {})
        return {str(key): str(value) for key, value in found.items()}

    def evidence(self, level: str) -> Evidence | None:
        """Return the images of a vertebra; None where the run did not keep them (``--each``).

        Raises InputError for a damaged file.
        """
        file = self.folder / EACH / f"{level}.npz"
        return read_vertebra(file)[1] if file.is_file() else None


def read_result(folder: Path, unreviewed: bool = False) -> StoredResult:
    """Return the review that a folder holds, else the run's result.

    ``unreviewed`` takes what the run found, whatever a review says of it.  Raises InputError where
    the folder holds neither, where a file is damaged, and where two files contradict each other.
    """
    found, review = folder / FILES[1], folder / EXPORTED[2]
    if review.is_file() and not unreviewed:
        return _read(folder, review, _of_review, folder / EXPORTED[0])
    if found.is_file():
        return _read(folder, found, _of_run, folder / FILES[0])
    what = FILES[1] if unreviewed else f"{FILES[1]} and no {EXPORTED[2]}"
    raise InputError(folder, f"is no folder of results: it holds no {what}")


def _read(folder: Path, file: Path, parse: Any, outlines: Path) -> StoredResult:
    data = read_object(file)
    try:
        said = parse(data)
        as_type(dict[str, str], said["run"].get("scan", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(file, f"is damaged: {first_line(error)}") from error
    lesions: tuple[Item, ...] = said["lesions"]
    if not lesions:
        return StoredResult(folder=folder, grid=None, patches={}, **said)
    segmentation = read_segmentation(outlines)
    patches = {}
    for segment in segmentation.segments:
        box = segmentation.box(segment)
        if box is not None:
            start = (s.start for s in box)
            patch = patch_of(segmentation.mask(segment, box), start)
            if patch is not None:
                patches[segment.id] = patch
    missing = [x.name for x in lesions if x.id not in patches]
    if missing or len(patches) != len(lesions):
        other = f"it lacks {missing[0]}" if missing else "it has more lesions"
        raise InputError(outlines, f"is not of the same result as {file.name}: {other}")
    return StoredResult(folder=folder, grid=segmentation.grid, patches=patches, **said)


def _of_run(data: dict[str, Any]) -> dict[str, Any]:
    result = result_from_json(data)
    review = Review(result.threshold)
    for vertebra in result.vertebrae:
        review.add_vertebra(vertebra)
    analysed = (v for v in result.vertebrae if v.status is not Status.NOT_ANALYSED)
    return {
        "run": result.run,
        "threshold": result.threshold,
        "states": tuple(review.states()),
        "bodies": {v.level: v.body_mm3 for v in analysed},
        "lesions": tuple(x for x in review.items if review.is_finding(x)),
        "others": tuple(x for x in review.items if not review.is_finding(x)),
    }


def _of_review(data: dict[str, Any]) -> dict[str, Any]:
    states, bodies = [], {}
    for said in as_type(list[dict[str, Any]], data["vertebrae"]):
        known = {f.name: said[f.name] for f in fields(VertebraState) if f.name in said}
        words = said["state"] if "state" in said else _words_0_1(said)
        state = from_plain(VertebraState, {**known, "words": words})
        states.append(state)
        if state.status is not Status.NOT_ANALYSED:
            bodies[state.level] = as_type(float | None, said.get("body_mm3"))
    items = [_item(row) for row in as_type(list[dict[str, Any]], data["lesions"])]
    return {
        "run": as_type(dict[str, Any], data["run"]),
        "threshold": as_type(float, data["threshold"]),
        "states": tuple(states),
        "bodies": bodies,
        "lesions": tuple(x for x in items if x.verdict == "accepted"),
        "others": tuple(x for x in items if x.verdict != "accepted"),
        "reviewer": as_type(str, data["reviewer"]),
        "reviewed": as_type(str, data["reviewed"]),
    }


def _words_0_1(said: Mapping[str, Any]) -> str:
    """Return the state of a vertebra in a review of version 0.1, which did not say it in words."""
    status = Status(said["status"])
    words = "lesions outlined" if status is Status.FINDINGS else status.value
    return f"{words}: {said['reason']}" if said["reason"] else words


def _item(row: Mapping[str, Any]) -> Item:
    """Return a lesion as ``review_export`` wrote it."""
    known = {f.name: row[f.name] for f in fields(Item) if f.name in row}
    missed = as_type(bool, row["added_by_reader"])
    ending = re.search(r"(\d{1,6})$", str(row["name"]))
    number = int(ending[1]) if ending else 1
    score = 0.0 if missed else row["score"]
    return from_plain(Item, {**known, "missed": missed, "score": score, "number": number})


def title_of(stored: StoredResult) -> str:
    """Return which scan a result is of in one line, the folder's name where it does not say."""
    return case_name(stored.scan) or stored.folder.name
