"""How much findings change where a patient lies turned: the drawn example, turned at random."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import atomic, make_folder
from ..findings import Candidate, Result
from ..imaging.segmentation import Segmentation, segments_from_values
from ..imaging.volume import Grid, Volume, bounds, resample
from ..inputs import Options, check_inputs
from ..model.weights import Model, load_model
from ..pipeline import segment_spine
from ..simulation.example import LESIONS, painter
from ..simulation.phantom.spine import example_spine

Floats = npt.NDArray[np.float64]

LEAST_SCORE = 0.5  # of the findings that are compared, whatever the threshold of the weights
SAME_PLACE_MM = 8.0  # between the middles of a finding and of what it became
AIR_HU = -1000.0
HEADER, RESAMPLED = "header turned", "CT resampled"


@dataclass(frozen=True)
class Turn:
    """A turn of the patient by ``degrees`` about ``axis`` (LPS), about the middle of the CT."""

    axis: tuple[float, float, float]
    degrees: float

    def matrix(self) -> Floats:
        """Return the turn as a 3x3 matrix that maps directions (LPS)."""
        x, y, z = self.axis
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        angle = np.radians(self.degrees)
        return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


@dataclass(frozen=True)
class Scene:
    """A CT, the values of its vertebrae (K, J, I on the same grid) and their convention.

    ``levels`` restricts the analysis to some.
    """

    ct: Volume
    vertebrae: Volume
    labels: str = "totalsegmentator"
    levels: tuple[str, ...] = ()

    @property
    def middle(self) -> Floats:
        """Return the middle (LPS mm) of the CT, about which it is turned."""
        return self.ct.grid.lps((np.array(self.ct.grid.shape[::-1]) - 1) / 2)

    def result(self, model: Model) -> Result:
        """Return what ``segment`` finds."""
        segments = segments_from_values(self.vertebrae, {})
        segmentation = Segmentation((self.vertebrae,), segments, self.vertebrae.name)
        how = Options(self.labels, self.levels, LEAST_SCORE)
        return segment_spine(check_inputs(self.ct, segmentation, how), model)


@dataclass(frozen=True)
class Comparison:
    """What a turn made of one finding; None in all three where it is found no more.

    ``score`` and ``volume`` are changes, the latter as a share; ``moved_mm`` how far its middle is
    from where the turn brings it.
    """

    finding: str
    how: str
    turn: Turn
    score: float | None
    volume: float | None
    moved_mm: float | None


def drawn_scene() -> Scene:
    """Return the embedded example: five vertebrae, two of them with lesions."""
    drawn = example_spine(paint=painter(LESIONS))
    return Scene(drawn.ct, drawn.vertebrae)


def random_turns(count: int, most: float, seed: int) -> list[Turn]:
    """Return turns about axes of any direction, by up to ``most`` degrees."""
    rng = np.random.default_rng(seed)
    turns = []
    for _ in range(count):
        axis = rng.normal(size=3)
        x, y, z = (float(v) for v in axis / np.linalg.norm(axis))
        turns.append(Turn((x, y, z), float(rng.uniform(0, most))))
    return turns


def turned_grid(grid: Grid, turn: Turn, middle: Floats) -> Grid:
    """Return the grid turned about a point (LPS mm)."""
    move = np.eye(4)
    move[:3, :3] = turn.matrix()
    move[:3, 3] = middle - move[:3, :3] @ middle
    return Grid(grid.shape, move @ grid.ijk_to_lps)


def with_turned_header(scene: Scene, turn: Turn) -> Scene:
    """Return the same voxels as of a patient who lies turned in an equally turned scanner."""
    grid = turned_grid(scene.ct.grid, turn, scene.middle)
    ct, vertebrae = (replace(volume, grid=grid) for volume in (scene.ct, scene.vertebrae))
    return replace(scene, ct=ct, vertebrae=vertebrae)


def resampled(scene: Scene, turn: Turn) -> Scene:
    """Return a turned patient in the scanner as it is: voxels along the scanner's axes.

    Intensities are interpolated, labels taken from the nearest voxel; beyond the CT lies air.
    """
    turned = with_turned_header(scene, turn)
    low, high = bounds(turned.ct.grid)
    spacing = scene.ct.grid.spacing
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = low
    i, j, k = (int(n) for n in np.ceil((high - low) / spacing) + 1)
    grid = Grid((k, j, i), matrix)
    whole = Volume(turned.ct.array.astype(np.float32), turned.ct.grid, scene.ct.name)
    ct = resample(whole, grid, 1, AIR_HU)
    ct = replace(ct, array=np.rint(ct.array).astype(np.int16))
    return replace(scene, ct=ct, vertebrae=resample(turned.vertebrae, grid, 0))


HOW: dict[str, Callable[[Scene, Turn], Scene]] = {HEADER: with_turned_header, RESAMPLED: resampled}


def findings(result: Result) -> dict[str, Candidate]:
    """Return the candidates that are compared, by their names."""
    every = (one for vertebra in result.vertebrae for one in vertebra.candidates)
    return {one.id: one for one in every if one.score > LEAST_SCORE}


def compare(
    scene: Scene, model: Model, turns: Sequence[Turn], how: Sequence[str] = tuple(HOW)
) -> Iterator[Comparison]:
    """Yield for every turn and way what becomes of every finding of the scene as it is."""
    before = findings(scene.result(model))
    for turn in turns:
        for name in how:
            result = HOW[name](scene, turn).result(model)
            for label, finding in before.items():
                yield Comparison(label, name, turn, *_change(finding, result, turn, scene.middle))


def _change(
    finding: Candidate, result: Result, turn: Turn, middle: Floats
) -> tuple[float, float, float] | tuple[None, None, None]:
    expected = turn.matrix() @ (np.array(finding.centroid_lps) - middle) + middle
    level = finding.id.split("-")[0]
    near = [
        (float(np.linalg.norm(np.array(one.centroid_lps) - expected)), one)
        for vertebra in result.vertebrae
        if vertebra.level == level
        for one in vertebra.candidates
        if one.type == finding.type
    ]
    moved, same = min(near, key=lambda pair: pair[0], default=(np.inf, finding))
    if moved > SAME_PLACE_MM:
        return None, None, None
    return same.score - finding.score, same.volume_mm3 / finding.volume_mm3 - 1, moved


def report(
    count: int, most: float, seed: int, weights: Path, out: Path, say: Callable[[str], None]
) -> str:
    """Turn the drawn example; return the table, also written as rotations.md and .json to ``out``.

    Raises InputError where ``out`` cannot be written, and WeightsError.
    """
    make_folder(out)
    model, scene = load_model(weights, "cpu"), drawn_scene()
    seen: list[Comparison] = []
    for number, turn in enumerate(random_turns(count, most, seed), start=1):
        seen += compare(scene, model, [turn])
        say(f"{number} of {count} turns")
    facts = {"weights": f"{model.profile.name} ({model.hash[:12]})", "seed": seed, "most": most}
    text = to_markdown(seen, facts)
    data = json.dumps({**facts, "comparisons": [asdict(one) for one in seen]}, indent=1)
    for name, content in (("rotations.md", text), ("rotations.json", data + "\n")):
        with atomic(out / name) as path:
            path.write_text(content, encoding="utf-8")
    return text


def to_markdown(seen: Sequence[Comparison], facts: dict[str, Any]) -> str:
    """Return a row for every finding and way: how often it was found, and its largest changes."""
    turns = len(dict.fromkeys(one.turn for one in seen))
    lines = [
        "# Turned patients",
        "",
        f"Written by `hideseekseg benchmark rotations`: the drawn example, turned {turns} times by"
        f" up to {facts['most']:g} degrees about axes of any direction (seed {facts['seed']}),"
        f" weights {facts['weights']}. Findings are candidates that score more than {LEAST_SCORE}"
        " before the turn; changes are the largest of all turns, and their means. With a turned"
        " header the voxels stay the same. Resampling interpolates between them, which takes away"
        " noise and moves outlines by parts of a voxel.",
        "",
        "| how | finding | found | score changes by | volume changes by | moves by, mm |",
        "|---|---|---|---|---|---|",
    ]
    for how in HOW:
        for label in dict.fromkeys(one.finding for one in seen):
            own = [one for one in seen if (one.finding, one.how) == (label, how)]
            found = [one for one in own if one.score is not None]
            score, volume, moved = (
                np.abs([getattr(one, name) for one in found] or [np.nan])
                for name in ("score", "volume", "moved_mm")
            )
            lines.append(
                f"| {how} | {label} | {len(found)} of {len(own)} | {score.max():.3f}"
                f" ({score.mean():.3f}) | {volume.max():.1%} ({volume.mean():.1%}) |"
                f" {moved.max():.1f} ({moved.mean():.1f}) |"
            )
    return "\n".join(lines) + "\n"
