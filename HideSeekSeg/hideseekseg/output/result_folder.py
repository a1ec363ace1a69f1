"""The folder of a result: one scan in it, and one run at a time.

The results of two scans in one folder would mix two patients: the table of one beside the
vertebrae of the other.  So a folder is asked what it holds before anything is written to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..anatomy.labelling import LEVELS
from ..archives import read_arrays
from ..errors import InputError
from ..files import read_object
from ..imaging.volume import case_name

FILES = ("lesions.seg.nrrd", "candidates.json", "candidates.csv", "overview.png")
MASKS = ("lytic.nii.gz", "blastic.nii.gz")
EXPORTED = ("accepted.seg.nrrd", "accepted.csv", "review.json", "burden.csv")
PICTURE = "accepted.png"
SCENE = "review.mrb"
EACH = "vertebrae"
_ALL = (*FILES, *MASKS, *EXPORTED, PICTURE, SCENE)


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


def held_by_another(folder: Path, scan: Mapping[str, str]) -> str:
    """Return why a result of ``scan`` would mix with what a folder holds, empty where it would not.

    The words follow the folder's name: "holds the result of another scan (...)".
    """
    for file in _results(folder):
        there = _scan_of(file)
        if there is None:
            continue
        if not there.get("sha256"):
            return f"holds a result that does not say of which scan it is ({file.name})"
        if there["sha256"] != scan.get("sha256"):
            return f"holds the result of another scan ({case_name(there)})"
    named = [name for name in _ALL if (folder / name).is_file()]
    if named and not any(_scan_of(file) for file in _results(folder)):
        return f"holds a result that does not say of which scan it is ({named[0]})"
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
    """Return which scan a file is of: empty where it does not say, None where it is no result."""
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
