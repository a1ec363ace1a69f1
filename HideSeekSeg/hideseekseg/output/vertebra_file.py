"""Result of one vertebra as a file, written while the run continues with the next one."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic
from ..findings import Evidence, VertebraFinding
from ..imaging.patch import Patch, triple
from ..imaging.volume import Grid
from .tables import vertebra_from_json, vertebra_to_json

_ARRAYS = tuple(f.name for f in fields(Evidence) if f.name != "grid")
_UNREADABLE = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


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
        arrays |= {name: getattr(evidence, name) for name in _ARRAYS}
        arrays["ijk_to_lps"] = evidence.grid.ijk_to_lps
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_vertebra(path: str | Path) -> tuple[VertebraFinding, Evidence | None]:
    """Read what ``write_vertebra`` wrote; raises InputError for a missing or another file.

    Nothing in the file is run, whoever made it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        finding = vertebra_from_json(json.loads(arrays["finding"].tobytes().decode()))
        patches = (_patch(arrays, n) for n in range(len(finding.candidates)))
        candidates = tuple(replace(c, patch=p) for c, p in zip(finding.candidates, patches))
        return replace(finding, candidates=candidates), _evidence(arrays)
    except FileNotFoundError as error:
        raise InputError(path, "does not exist") from error
    except _UNREADABLE as error:
        raise InputError(path, "is not the result of a vertebra, or is damaged") from error


def _patch(arrays: dict[str, Any], number: int) -> Patch | None:
    if f"voxels{number}" not in arrays:
        return None
    return Patch(arrays[f"voxels{number}"], triple(arrays[f"start{number}"]))


def _evidence(arrays: dict[str, Any]) -> Evidence | None:
    if "ijk_to_lps" not in arrays:
        return None
    grid = Grid(arrays["image"].shape, arrays["ijk_to_lps"])
    if "changed" not in arrays:  # written by version 0.1
        arrays = {**arrays, "changed": arrays["lytic"] | arrays["blastic"]}
    return Evidence(grid=grid, **{name: arrays[name] for name in _ARRAYS})
