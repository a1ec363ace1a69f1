"""Result of one vertebra as a file, written while the run continues with the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..archives import read_arrays
from ..errors import InputError
from ..files import atomic
from ..findings import Evidence, VertebraFinding
from ..imaging.patch import Patch, triple
from ..imaging.volume import Grid
from .tables import vertebra_from_json, vertebra_to_json

ARRAYS = tuple(f.name for f in fields(Evidence) if f.name != "grid")
MASKS = ("body", "lytic", "blastic", "changed")
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
