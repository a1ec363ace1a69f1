"""The folder of a result: one scan in it, one run at a time; its vertebra files; read back.

The results of two scans in one folder would mix two patients: the table of one beside the
vertebrae of the other.  So a folder is asked what it holds before anything is written to it.
Each vertebra is written while the run continues with the next one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..anatomy.labelling import LEVELS
from ..errors import InputError
from ..files import atomic, read_object
from ..findings import (
    Candidate,
    Evidence,
    Status,
    VertebraFinding,
    describe_status,
    from_head_down,
    status_of,
)
from ..imaging.reading import read_segmentation
from ..imaging.volume import Grid, Patch, case_name, patch_of, triple
from ..plain_data import as_type, first_line, from_plain
from ..review.items import Item, VertebraState, is_open
from ..review.review import Review
from ..unpacking import read_arrays
from .tables import result_from_json, vertebra_from_json, vertebra_to_json

FILES = ("lesions.seg.nrrd", "candidates.json", "candidates.csv", "overview.png")
MASK_FILES = ("lytic.nii.gz", "blastic.nii.gz")
EXPORTED = ("accepted.seg.nrrd", "accepted.csv", "review.json", "burden.csv")
PICTURE = "accepted.png"
SCENE = "review.mrb"
EACH = "vertebrae"
_ALL = (*FILES, *MASK_FILES, *EXPORTED, PICTURE, SCENE)


@dataclass(frozen=True)
class Claim:
    """A folder that is ours to write to; ``foreign`` says that it holds another scan's result."""

    folder: Path
    foreign: bool

    def clear(self) -> None:
        """Remove the other scan's result, once ours is about to take its place."""
        if self.foreign:
            remove_results(self.folder)


def claim(folder: Path, scan: Mapping[str, str], overwrite: bool, option: str = "") -> Claim:
    """Return the folder as ours for a result of ``scan``, as ``scan_identity`` returns it.

    Raises InputError, unless ``overwrite``, where it holds the result of another scan, or of one
    that is not known; ``option`` is one that would overwrite it.
    """
    why = held_by_another(folder, scan)
    if why and not overwrite:
        raise InputError(folder, f"{why}: choose another folder{option and f', or {option}'}")
    return Claim(folder, bool(why))


def require_no_input(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError where one of ``inputs`` is a file that a result in ``folder`` replaces."""
    ours = {os.path.realpath(folder / name) for name in _ALL}
    for path in inputs:
        if os.path.realpath(path) in ours:
            cause = "would be replaced by the result: choose another folder for the output"
            raise InputError(path, cause)


def held_by_another(folder: Path, scan: Mapping[str, str]) -> str:
    """Return why a result of ``scan`` would mix with what a folder holds, empty where it would not.

    The words follow the folder's name: "holds the result of another scan (...)".
    """
    for file in _results(folder):
        there = _scan_of(file)
        if there is None:
            continue
        if not there.get("sha256"):
            return f"contains a result that does not say which scan it is of ({file.name})"
        if there["sha256"] != scan.get("sha256"):
            return f"contains the result of another scan ({case_name(there)})"
    named = [name for name in _ALL if (folder / name).is_file()]
    if named and not any(_scan_of(file) for file in _results(folder)):
        return f"contains a result that does not say which scan it is of ({named[0]})"
    return ""


def remove_results(folder: Path) -> None:
    """Remove all files that a run or a review writes; raises InputError where one stays."""
    for file in [folder / name for name in _ALL]:
        _remove(file)
    remove_vertebrae(folder)


def remove_vertebrae(folder: Path) -> None:
    """Remove the vertebrae that an earlier run wrote one by one; raises InputError."""
    inside = folder / EACH
    for level in LEVELS:
        _remove(inside / f"{level}.npz")
    if inside.is_dir() and not any(inside.iterdir()):
        inside.rmdir()


def folder_name(scan: Mapping[str, str]) -> str:
    """Return a name for the folder of a scan's results that no other scan has."""
    name = re.sub(r"\.(nii|nii\.gz|nrrd|nhdr|mha|mhd|gz)$", "", scan.get("name", ""), flags=re.I)
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "scan"
    return f"{plain}-{scan.get('sha256', '')[:8]}".strip("-")


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(file, f"cannot be replaced: {error.strerror or error}") from error


def _results(folder: Path) -> list[Path]:
    """Return the files that say of which scan they are."""
    files = [folder / name for name in (FILES[1], EXPORTED[2])]
    return [f for f in (*files, *sorted((folder / EACH).glob("*.npz"))) if f.is_file()]


def _scan_of(file: Path) -> Mapping[str, str] | None:
    """Return which scan a file is of: empty where it does not say, None for no result."""
    try:
        if file.suffix == ".npz":
            arrays = read_arrays(file, {"finding", "scan"})
            if "finding" not in arrays:
                return None
            found = json.loads(arrays["scan"].tobytes() if "scan" in arrays else "{}")
        else:
            found = read_object(file)["run"].get("scan", {})
        return {str(key): str(value) for key, value in found.items()}
    except (InputError, OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


ARRAYS = tuple(f.name for f in fields(Evidence) if f.name != "grid")
MASKS = ("body", "lytic", "blastic", "changed")
_SAME = 1e-6  # of two scores
MOST_BYTES = 4 << 30  # of the arrays of one vertebra
_UNREADABLE = (OSError, KeyError, TypeError, ValueError, IndexError, RecursionError)


def write_vertebra(
    path: str | Path,
    finding: VertebraFinding,
    evidence: Evidence | None,
    scan: Mapping[str, str] | None = None,
) -> None:
    """Write a ``.npz`` that is complete from the moment it has its name.

    It holds the finding as in candidates.json, the candidates' voxels on the CT's grid, and the
    evidence where there is some.  ``scan`` says which scan it is of.  Raises InputError where
    it cannot be written.
    """
    # The threshold is the reader's to choose: this file does not say what is accepted.
    text = json.dumps(vertebra_to_json(finding, None), allow_nan=False)
    arrays: dict[str, Any] = {"finding": np.frombuffer(text.encode(), np.uint8)}
    if scan:
        arrays["scan"] = np.frombuffer(json.dumps(dict(scan)).encode(), np.uint8)
    for n, candidate in enumerate(finding.candidates):
        if candidate.patch is not None:
            arrays[f"voxels{n}"] = candidate.patch.array
            arrays[f"start{n}"] = np.array(candidate.patch.start, np.int64)
    if evidence is not None:
        arrays |= {name: getattr(evidence, name) for name in ARRAYS}
        arrays["ijk_to_lps"] = evidence.grid.ijk_to_lps
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_vertebra(path: str | Path) -> tuple[VertebraFinding, Evidence | None]:
    """Read what ``write_vertebra`` wrote; raises InputError for a missing or another file.

    Nothing in the file is run, whoever made it.
    """
    try:
        arrays = read_arrays(Path(path), most_bytes=MOST_BYTES)
        finding = vertebra_from_json(json.loads(arrays["finding"].tobytes().decode()))
        patches = (_patch(arrays, n) for n in range(len(finding.candidates)))
        candidates = tuple(replace(c, patch=p) for c, p in zip(finding.candidates, patches))
        return replace(finding, candidates=candidates), _evidence(arrays)
    except FileNotFoundError as error:
        raise InputError(path, "does not exist") from error
    except _UNREADABLE as error:
        raise InputError(path, "is not the result of a vertebra, or is damaged") from error


def evidence_of(arrays: Mapping[str, Any]) -> Evidence:
    """Return the evidence that these arrays (named as its fields, and ``ijk_to_lps``) are.

    Raises KeyError or ValueError where they are of another kind.
    """
    matrix, shape = np.asarray(arrays["ijk_to_lps"]), arrays["image"].shape
    if matrix.shape != (4, 4) or matrix.dtype.kind != "f" or not np.isfinite(matrix).all():
        raise ValueError("no matrix of a grid")
    if len(shape) != 3 or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError("no images of slices")
    for name in ARRAYS:
        kind = "b" if name in MASKS else "f"
        if arrays[name].shape != shape or arrays[name].dtype.kind != kind:
            raise ValueError(f"{name} is of another kind")
    return Evidence(grid=Grid(shape, matrix), **{name: arrays[name] for name in ARRAYS})


def _patch(arrays: dict[str, Any], number: int) -> Patch | None:
    if f"voxels{number}" not in arrays:
        return None
    voxels, start = arrays[f"voxels{number}"], arrays[f"start{number}"]
    if voxels.dtype != bool or voxels.ndim != 3 or start.dtype.kind != "i" or start.shape != (3,):
        raise ValueError("voxels of another kind")
    return Patch(voxels, triple(start))


def _evidence(arrays: dict[str, Any]) -> Evidence | None:
    if "ijk_to_lps" not in arrays:
        return None
    if "changed" not in arrays:  # written by version 0.1
        arrays = {**arrays, "changed": arrays["lytic"] | arrays["blastic"]}
    return evidence_of(arrays)


@dataclass(frozen=True)
class StoredResult:
    """A run's result, or the review of it.

    ``lesions`` are those that count: accepted in the review, or above the threshold where nobody
    has reviewed them.  ``patches`` are their voxels by id on ``grid``, that of the CT, which is
    None where there is no lesion.  ``states`` are those of all vertebrae, from the head down,
    ``bodies`` the volumes of the vertebral bodies (mm3) that were analysed, by level.
    ``reviewer`` and ``reviewed`` (when, ISO 8601) are empty without a review, and ``reviewer``
    where a review names nobody; ``others`` are all candidates that do not count; ``run`` is
    ``Result.run``.
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

    @property
    def is_reviewed(self) -> bool:
        """Return whether somebody reviewed it, whose name may not be known."""
        return bool(self.reviewer or self.reviewed)

    def evidence(self, level: str) -> Evidence | None:
        """Return the images of a vertebra; None where the run did not keep them (``--each``).

        Raises InputError for a damaged file, and for one of another run.
        """
        file = self.folder / EACH / f"{level}.npz"
        if not file.is_file():
            return None
        finding, evidence = read_vertebra(file)
        # A window writes the images alone: what was found stands in its review.
        if finding.candidates or finding.p_malignant is not None:
            items = [x for x in (*self.lesions, *self.others) if x.level == level]
            odd = _difference(scores_of(items), scores_of(finding.candidates))
            if finding.level != level or odd:
                cause = "is of another run than the result beside it: run it again, with --each"
                raise InputError(file, cause)
        return evidence


def read_result(folder: Path, unreviewed: bool = False) -> StoredResult:
    """Return the review that a folder holds, else the run's result.

    ``unreviewed`` takes what the run found, whatever a review says of it.  Raises InputError where
    the folder holds neither, where a file is damaged, and where two files contradict each other, as
    the review of another run does.
    """
    found, review = folder / FILES[1], folder / EXPORTED[2]
    if review.is_file() and not unreviewed:
        stored = _read(folder, review, _of_review, folder / EXPORTED[0])
        if found.is_file():
            _check_same_run(stored, found)
        return stored
    if found.is_file():
        return _read(folder, found, _of_run, folder / FILES[0])
    what = FILES[1] if unreviewed else f"{FILES[1]} and no {EXPORTED[2]}"
    raise InputError(folder, f"is not a results folder: it contains no {what}")


def _check_same_run(reviewed: StoredResult, found: Path) -> None:
    """Raise InputError where a review is of another run than the one that wrote ``found``."""
    try:
        result = result_from_json(read_object(found))
    except ValueError as error:
        raise InputError(found, f"is damaged: {first_line(error)}") from error
    of_run = scores_of([c for v in result.vertebrae for c in v.candidates])
    differs = _difference(scores_of([*reviewed.lesions, *reviewed.others]), of_run)
    if differs:
        cause = f"contains a review of another run than {FILES[1]} ({differs} differs)"
        raise InputError(
            reviewed.folder, f"{cause}: export the review of this run, or take --unreviewed"
        )


def scores_of(found: Iterable[Item | Candidate]) -> dict[str, float]:
    """Return the scores of what the method found, by id."""
    return {x.id: x.score for x in found if not (isinstance(x, Item) and x.missed)}


def _difference(a: Mapping[str, float], b: Mapping[str, float]) -> str:
    """Return the first id whose score differs, or that one of both lacks; empty where none does."""
    odd = (x for x in sorted({*a, *b}) if x not in a or x not in b or abs(a[x] - b[x]) > _SAME)
    return next(odd, "")


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
        if "analysed" not in said:  # of an earlier version: a reason says why it was not
            analysed = state.status is not Status.NOT_ANALYSED and not state.reason
            state = replace(state, analysed=analysed)
        states.append(state)
        if state.analysed:
            bodies[state.level] = as_type(float | None, said.get("body_mm3"))
    items = [_item(row) for row in as_type(list[dict[str, Any]], data["lesions"])]
    threshold = as_type(float, data["threshold"])
    states = [_accepted_state(state, items, threshold) for state in states]
    return {
        "run": as_type(dict[str, Any], data["run"]),
        "threshold": threshold,
        "states": tuple(sorted(states, key=lambda state: from_head_down(state.level))),
        "bodies": bodies,
        "lesions": tuple(x for x in items if x.verdict == "accepted"),
        "others": tuple(x for x in items if x.verdict != "accepted"),
        "reviewer": as_type(str, data["reviewer"]),
        "reviewed": as_type(str, data["reviewed"]),
    }


def _accepted_state(state: VertebraState, items: list[Item], threshold: float) -> VertebraState:
    """Return the state of a vertebra by its accepted lesions, as they alone count in a result.

    To the reader of a review, what is uncertain or not reviewed yet is outlined as well.
    """
    if state.status is not Status.FINDINGS:
        return state
    there = [x for x in items if x.level == state.level]
    accepted = sum(x.verdict == "accepted" for x in there)
    uncertain = sum(x.verdict == "uncertain" for x in there)
    left = sum(is_open(x, threshold) for x in there)
    status = status_of(accepted, state.suspicious, state.p_malignant)
    kinds = [(uncertain, "uncertain"), (left, "not reviewed")]
    said = [(count, kind) for count, kind in kinds if count]
    outlined = accepted or uncertain + left
    words = describe_status(Status.FINDINGS if outlined else status, outlined)
    if accepted and said:
        words += f"; not counted: {', '.join(f'{count} {kind}' for count, kind in said)}"
    elif len(said) == 1:
        words += f", {said[0][1]} and not counted"
    elif said:
        words += f", {uncertain} uncertain and {left} not reviewed, not counted"
    if not state.analysed:
        words += f"; {describe_status(Status.NOT_ANALYSED, reason=state.reason)}"
        status = status if accepted else Status.NOT_ANALYSED
    return replace(state, status=status, words=words)


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
