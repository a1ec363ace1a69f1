"""The vertebrae of a benchmark: simulated, real and healthy, real with a lesion's box, drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..anatomy.crop import Crop, take_crop
from ..anatomy.intensity import HOUNSFIELD, network_input
from ..anatomy.preparation import slices_of
from ..confidence import marrow, reference_of, relative_reference
from ..errors import InputError
from ..files import make_folder
from ..findings import LesionType
from ..model.profile import Profile
from ..simulation.csv_tables import read_table
from ..simulation.random_fields import Field, Mask
from ..simulation.simulate import Recipe, simulate
from ..simulation.source_vertebrae import (
    DRAWN,
    Source,
    SourceVertebra,
    chosen,
    drawn_vertebrae,
    load_vertebrae,
    person,
)
from ..training.dataset import (
    Bools,
    Slices,
    load_whole,
    make_batch,
    read_shard,
    require_whole,
)
from ..training.evaluation import Case, case_of

BOX_COLUMNS = ("patient", "x", "y", "z", "width", "depth", "height")


@dataclass(frozen=True, eq=False)
class BenchmarkCase:
    """A case, the name of its vertebra, HU (S, P, I), and its healthy twin as network input.

    ``twin`` is (S, 1, P, I) and ``twin_hu`` (S, P, I), None where nobody knows how the vertebra
    would look without lesions.  All have every slice through the body.
    """

    case: Case
    vertebra: str
    hu: Field
    twin: torch.Tensor | None = None
    twin_hu: Field | None = None

    def shown(self) -> BenchmarkCase:
        """Return what of it the weights analyse, alone."""
        if self.case.chosen is None:
            return self
        rows = self.case.chosen
        return replace(
            self,
            case=self.case.shown(),
            hu=self.hu[rows],
            twin=None if self.twin is None else self.twin[torch.from_numpy(rows)],
            twin_hu=None if self.twin_hu is None else self.twin_hu[rows],
        )


def load_simulated(folder: Path, profile: Profile) -> list[BenchmarkCase]:
    """Read the vertebrae of a folder that ``simulate --whole`` wrote; raises InputError."""
    slices, learned = load_whole(folder, profile)
    if len(slices.twin) == 0:
        raise InputError(folder, "contains slices of patients, whose lesions are not known")
    require_whole(folder)
    return subjects_of(slices, _levels(folder), profile, learned)


def subjects_of(
    slices: Slices, levels: Mapping[str, str], profile: Profile, learned: Bools | None = None
) -> list[BenchmarkCase]:
    """Slices that belong together become one vertebra; ``levels`` is by the vertebra's name.

    ``learned`` tells for each slice whether it is to be analysed; None: all are.
    """
    starts = np.flatnonzero(np.r_[True, slices.vertebra[1:] != slices.vertebra[:-1]])
    subjects = []
    for rows in np.split(np.arange(len(slices)), starts[1:]):
        batch = make_batch(slices, rows, profile, None)
        first, patient = rows[0], str(slices.patient[rows[0]])
        truth: dict[LesionType, Mask] = {
            "lytic": slices.lytic[rows],
            "blastic": slices.blastic[rows],
        }
        case = case_of(slices, rows, truth, batch, None if learned is None else learned[rows])
        hu = slices.image[rows].astype(np.float32)
        name = f"{patient} {levels[str(slices.vertebra[first])]}"
        twin_hu = slices.twin[rows].astype(np.float32)
        subjects.append(BenchmarkCase(case, name, hu, batch.twin, twin_hu))
    return subjects


def _levels(folder: Path) -> dict[str, str]:
    """Return the level of every vertebra, by the name that ``load_slices`` gives it."""
    levels: dict[str, str] = {}
    for shard in sorted(folder.glob("shard-*.npz")):
        data = read_shard(shard, {"vertebra", "level"})
        names = [f"{shard.stem}-{number}" for number in data["vertebra"]]
        levels |= dict(zip(names, data["level"].tolist()))
    return levels


def split_drawn(
    subjects: Sequence[BenchmarkCase],
) -> tuple[list[BenchmarkCase], list[BenchmarkCase]]:
    """Those with real anatomy, and those drawn from scratch: they share no table."""
    real = [s for s in subjects if not s.case.patient.startswith(f"{DRAWN} ")]
    return real, [s for s in subjects if s.case.patient.startswith(f"{DRAWN} ")]


def draw_subjects(
    folder: Path, count: int, seed: int, profile: Profile, tell: Callable[[int, int], None]
) -> list[BenchmarkCase]:
    """``count`` simulated vertebrae on bones drawn from scratch: needs no data at all."""
    make_folder(folder)
    canvases = drawn_vertebrae(np.random.default_rng(seed), max(count // 2, 1))
    recipe = Recipe(seed, count, None, profile.geometry, drawn=len(canvases))
    simulate(recipe, canvases, folder, tell)
    return load_simulated(folder, profile)


def healthy_subjects(sources: Sequence[Source], profile: Profile) -> list[BenchmarkCase]:
    """Whole vertebrae of real CTs as they are; nothing is painted, and none is held diseased."""
    return real_subjects([v for source in sources for v in load_vertebrae(source)], profile)


def real_subjects(
    vertebrae: Sequence[SourceVertebra], profile: Profile, boxes: Sequence[Box] = ()
) -> list[BenchmarkCase]:
    """Real vertebrae, each with the marrow of its patient's others."""
    subjects = [_real_subject(vertebra, profile, boxes) for vertebra in vertebrae]
    shown = [subject.shown() for subject in subjects]
    own = [marrow(subject.hu, subject.case.body) for subject in shown]
    patients = np.array([subject.case.patient for subject in subjects])
    result = []
    for number, subject in enumerate(subjects):
        others = (patients == patients[number]) & (np.arange(len(subjects)) != number)
        reference = reference_of([own[n] for n in np.flatnonzero(others)])
        hu = torch.tensor(reference, dtype=torch.float32).repeat(len(subject.case.x), 1)
        case = replace(subject.case, reference=relative_reference(hu, profile.intensity))
        result.append(replace(subject, case=case))
    return result


@dataclass(frozen=True)
class Box:
    """A box around a real lesion: centre and size in LPS mm."""

    patient: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]


def read_boxes(path: Path) -> list[Box]:
    """Read a CSV with patient, x, y, z, width (x), depth (y), height (z) in LPS mm; InputError."""
    try:
        return [
            Box(row["patient"], _triple(row, BOX_COLUMNS[1:4]), _triple(row, BOX_COLUMNS[4:]))
            for _, row in read_table(path, BOX_COLUMNS)[0]
        ]
    except ValueError as error:
        cause = f"needs the columns {', '.join(BOX_COLUMNS)}, with numbers in mm"
        raise InputError(path, cause) from error


def _triple(row: dict[str, str], names: Sequence[str]) -> tuple[float, float, float]:
    x, y, z = (float(row[name]) for name in names)
    if not all(map(math.isfinite, (x, y, z))):
        raise ValueError("not finite")
    return x, y, z


def boxes_by_patient(
    path: Path, boxes: Sequence[Box], sources: Sequence[Source]
) -> dict[str, list[Box]]:
    """Return the boxes of each patient of ``sources``, who is the same in any spelling.

    Raises InputError where a box is of nobody there: it would be used for nothing, and its patient,
    by another name, be taken for healthy.
    """
    known = [source.patient for source in sources]
    refusal = "has boxes of {}, not in the sources"
    named = chosen(path, [b.patient for b in boxes], known, refusal, with_commas=False)
    return {name: [b for b in boxes if person(b.patient) == person(name)] for name in named}


def boxed_subjects(source: Source, boxes: Sequence[Box], profile: Profile) -> list[BenchmarkCase]:
    """Return the vertebrae of a scan; diseased are those whose bodies reach into a lesion's box.

    That part of the boxes is "true".  A box does not say of which type its lesion is, and is larger
    than the lesion.
    """
    return real_subjects(load_vertebrae(source), profile, boxes)


def _real_subject(
    vertebra: SourceVertebra, profile: Profile, boxes: Sequence[Box]
) -> BenchmarkCase:
    crop = take_crop(vertebra.ct, vertebra.body, vertebra.crop_grid(profile.geometry))
    slices, (analysed, _) = crop.analysed, slices_of(crop, profile.geometry, all_slices=False)
    # Vertebrae are in HU: where their scan was not, it was brought there when they were loaded.
    x = torch.from_numpy(network_input(crop, profile, HOUNSFIELD)[slices])[:, None]
    body = crop.body[slices]
    boxed = np.zeros_like(body)
    for box in boxes:
        boxed |= body & _in_box(crop, box)[slices]
    # One and the same truth for both types: a box has none.
    truth: dict[LesionType, Mask] = {"lytic": boxed, "blastic": boxed}
    s, p, i = (float(mm) for mm in crop.grid.spacing[::-1])
    case = Case(
        *(x, body, truth, bool(boxed.any()), vertebra.patient),
        group=vertebra.patient,
        spacing=(s, p, i),
        chosen=None if len(analysed) == len(slices) else np.searchsorted(slices, analysed),
    )
    return BenchmarkCase(case, f"{vertebra.patient} {vertebra.level}", crop.image[slices])


def _in_box(crop: Crop, box: Box) -> Mask:
    at = np.moveaxis(np.indices(crop.grid.shape), 0, -1)[..., ::-1]
    offset = np.abs(crop.grid.lps(at) - np.array(box.centre))
    return np.asarray((offset <= np.array(box.size) / 2).all(axis=-1))
