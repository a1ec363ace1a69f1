"""Made-up findings on made-up CT, small enough for tests that look at files and pictures."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hideseekseg.findings import Candidate, Evidence, LesionType, Result, Status, VertebraFinding
from hideseekseg.imaging.volume import Grid, Patch, Volume, scan_identity
from hideseekseg.output.result_folder import write_vertebra
from hideseekseg.output.review_export import export_accepted
from hideseekseg.output.seg_nrrd import write_segmentation
from hideseekseg.output.tables import write_json
from hideseekseg.review.review import Review

Floats = npt.NDArray[np.float64]
RUN = {"weights": "example", "weights_hash": "0123456789abcdef" * 4, "device": "cpu"}
# Axes of a crop (inferior, posterior, right) in LPS.
CROP_AXES = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


def make_grid(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    direction: Floats | None = None,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Grid:
    """A grid around ``centre`` (LPS mm); shape is (K, J, I), spacing and direction of i, j, k."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if direction is None else direction) * np.array(spacing)
    matrix[:3, 3] = np.array(centre) - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid(shape, matrix)


def positions(grid: Grid) -> Floats:
    """LPS (K, J, I, 3) of all voxel centres."""
    return grid.lps(np.moveaxis(np.indices(grid.shape), 0, -1)[..., ::-1])


def ball(grid: Grid, centre: tuple[float, float, float], radius: float) -> Patch:
    """Voxels within ``radius`` mm of ``centre``."""
    inside = np.linalg.norm(positions(grid) - centre, axis=-1) <= radius
    found = np.argwhere(inside)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high))
    return Patch(inside[box], (int(low[0]), int(low[1]), int(low[2])))


def make_candidate(
    name: str, kind: LesionType, score: float, patch: Patch, grid: Grid
) -> Candidate:
    """A candidate with the figures its voxels give."""
    lps = grid.lps(np.argwhere(patch.array)[:, ::-1] + patch.start[::-1])
    low, high = lps.min(axis=0), lps.max(axis=0)
    x, y, z = (float(v) for v in lps.mean(axis=0))
    return Candidate(
        id=name,
        type=kind,
        score=score,
        volume_mm3=float(patch.array.sum()) * grid.voxel_mm3,
        centroid_lps=(x, y, z),
        box_lps=tuple(float(v) for v in (*low, *high)),  # type: ignore[arg-type]
        share_of_body=0.05,
        mean_hu=712.5 if kind == "blastic" else -12.25,
        slices=(14, 15, 16),
        patch=patch,
    )


LEVEL_HEIGHT = 30.0  # mm from one body to the next
LEVELS = ("T10", "T11", "T12", "L1")


def body_centre(number: int) -> tuple[float, float, float]:
    """LPS of the bodies of ``LEVELS``, on a spine that leans to the left going down."""
    return (3.0 * number, -2.0 * number, 45.0 - LEVEL_HEIGHT * number)


def make_ct(grid: Grid) -> Volume:
    """Bony boxes for bodies with a cortex, in soft tissue with a noisy texture, in HU."""
    return Volume(_hounsfield(grid.shape, grid.ijk_to_lps.tobytes()).copy(), grid, "ct.nii.gz")


@lru_cache(maxsize=16)
def _hounsfield(shape: tuple[int, int, int], matrix: bytes) -> npt.NDArray[np.float32]:
    grid = Grid(shape, np.frombuffer(matrix).reshape(4, 4))
    where = positions(grid)
    noise = np.random.default_rng(1).normal(0, 20, grid.shape)
    hu = 40.0 + noise
    hu[np.abs(where[..., 0]) > 45] = -100.0
    for n in range(len(LEVELS)):
        distance = np.abs(where - body_centre(n)) - (20.0, 15.0, 12.0)
        inside = (distance < 0).all(axis=-1)
        hu[inside] = 220.0 + noise[inside]
        hu[inside & (distance > -1.5).any(axis=-1)] = 700.0
    return hu.astype(np.float32)


def make_result(grid: Grid) -> Result:
    """T10: two lesions that overlap, a third below the threshold; L1: one; T12: not analysed."""
    x, y, z = body_centre(0)
    t10 = [
        make_candidate("T10-1", "blastic", 0.91, ball(grid, (x, y, z), 6.0), grid),
        make_candidate("T10-2", "lytic", 0.72, ball(grid, (x, y + 8, z), 5.0), grid),
        make_candidate("T10-3", "lytic", 0.31, ball(grid, (x, y - 10, z + 5), 3.5), grid),
    ]
    x, y, z = body_centre(3)
    l1 = [make_candidate("L1-1", "lytic", 0.66, ball(grid, (x, y, z), 7.0), grid)]
    return Result(
        (
            VertebraFinding(
                "T10",
                Status.FINDINGS,
                p_malignant=0.983,
                body_source="derived",
                body_mm3=28800.0,
                flags=("cut by the field of view",),
                slice_p=(0.2, 0.98),
                candidates=tuple(t10),
            ),
            VertebraFinding("T11", Status.NO_FINDING, p_malignant=0.02, body_source="given"),
            VertebraFinding("T12", Status.NOT_ANALYSED, reason="metal"),
            VertebraFinding("L1", Status.FINDINGS, p_malignant=0.81, candidates=tuple(l1)),
        ),
        0.5,
        dict(RUN),
    )


def make_evidence(ct: Volume, result: Result) -> dict[str, Evidence]:
    """Crops around the bodies that were analysed; the edit undoes half of every candidate."""
    evidence = {}
    for n, vertebra in enumerate(result.vertebrae):
        if vertebra.status is Status.NOT_ANALYSED:
            continue
        grid = make_grid((40, 64, 64), (0.8, 0.8, 1.0), CROP_AXES, body_centre(n))
        image, where = make_ct(grid).array.astype(np.float32), positions(grid)
        difference = np.zeros(grid.shape, np.float32)
        for candidate in vertebra.candidates:
            near = np.linalg.norm(where - candidate.centroid_lps, axis=-1) < 5
            difference[near] += 150.0 if candidate.type == "lytic" else -150.0
        body = np.all(np.abs(where - body_centre(n)) < (20.0, 15.0, 12.0), axis=-1)
        images = (image, image + difference, difference)
        masks = (difference > 0, difference < 0, difference != 0)
        evidence[vertebra.level] = Evidence(*images, body, grid, *masks)
    return evidence


def store_result(folder: Path, ct: Volume, result: Result | None = None) -> Result:
    """Write a result of the scan ``ct`` to a folder, as a run does, with its evidence."""
    result = result or make_result(ct.grid)
    scan = scan_identity(ct)
    facts = {"scan": scan, "versions": {"hideseekseg": "0.1.7"}}
    result = replace(result, run={**result.run, **facts}, evidence=make_evidence(ct, result))
    (folder / "vertebrae").mkdir(parents=True, exist_ok=True)
    write_json(folder / "candidates.json", result)
    write_segmentation(folder / "lesions.seg.nrrd", ct.grid, result)
    for vertebra in result.vertebrae:
        file = folder / "vertebrae" / f"{vertebra.level}.npz"
        write_vertebra(file, vertebra, result.evidence.get(vertebra.level), scan)
    return result


def accepted_review(folder: Path, ct: Volume, result: Result, reviewer: str = "R. Ader") -> Review:
    """Accept T10-1, reject T10-2, leave L1 open, add a lesion in T11 of the reader's own."""
    review = Review(result.threshold)
    for vertebra in result.vertebrae:
        review.add_vertebra(vertebra)
    review.judge("T10-1", "accepted")
    review.judge("T10-2", "rejected")
    review.comment("T10-1", "sclerotic <b>rim</b>")
    added = review.add_missed("T11", "lytic")
    patches = {c.id: c.patch for v in result.vertebrae for c in v.candidates if c.patch}
    patches[added] = patches["L1-1"]
    when = datetime(2026, 3, 4, 5, 6, 7)
    export_accepted(folder, review, patches, ct.grid, result.run, reviewer, when)
    return review
