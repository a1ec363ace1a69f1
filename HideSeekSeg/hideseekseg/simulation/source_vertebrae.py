"""Real vertebrae as canvases, cut out anew (turned, stretched) for every sample.

They are loaded from scans, or from one small file that stands for them on another machine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ..anatomy.crop import PREPARATION, Floats, Mask, crop_grid, oversampled, pooled
from ..anatomy.label_conventions import LEVELS
from ..anatomy.vertebra_frame import PATIENT_AXES
from ..errors import InputError, UserError
from ..files import atomic
from ..imaging.volume import Grid, Volume, bounding_box
from ..model.profile import Geometry
from ..unpacking import read_arrays
from .csv_tables import fault_of_name, path_in, read_table
from .phantom.spine import draw_clean, label_value
from .phantom.vertebra import LEVELS as DRAWN_LEVELS
from .phantom.vertebra import random_settings
from .random_fields import Field, Rng, VertebraPatch, smooth_field

if TYPE_CHECKING:
    from ..anatomy.intensity import Calibration
    from ..spine import Spine

# Vertebrae with less body than this are cut by the field of view and no use as canvas.
SMALLEST_MM3 = 2500.0
DRAWN = "drawn"
COLUMNS = ("ct", "segmentation", "labels", "patient", "split")
DEEP_MM = 3.0  # from here on inwards there is marrow and no cortex
SPACING_DRAWN_MM = (0.8, 0.8, 0.8)


@dataclass(frozen=True, eq=False)
class SourceVertebra:
    """One real (or drawn) vertebra: HU around it, its body, and whose it is.

    ``axes`` (rows: superior, posterior, left; LPS) and ``turn_known`` are as of
    ``anatomy.body.Body``: those near which its own are sought, the patient's if None.
    """

    ct: Volume
    body: Mask
    patient: str
    level: str
    axes: Floats | None = field(default=None, repr=False)
    turn_known: bool = False

    def crop_grid(self, geometry: Geometry) -> Grid:
        """Return where the crop lies that ``segment`` takes of it."""
        return crop_grid(self.body, self.ct.grid, geometry, self.axes, self.turn_known)

    @property
    def group(self) -> str:
        """Whose chances it shares: those of its patient, or of all drawn vertebrae together."""
        return DRAWN if self.patient.startswith(f"{DRAWN} ") else self.patient

    @cached_property
    def marrow_hu(self) -> float:
        """Median density of its marrow, in HU."""
        depth = ndimage.distance_transform_edt(self.body, sampling=self.ct.grid.spacing[::-1])
        deep = depth > min(DEEP_MM, 0.6 * float(depth.max()))
        return float(np.median(self.ct.array[deep]))

    @property
    def slices_mm(self) -> float:
        """Distance in mm between the scan's axial slices."""
        up = np.abs(self.ct.grid.direction[2])
        return float(self.ct.grid.spacing[int(np.argmax(up))])

    def layers(self, slices_mm: float = 0.0) -> int:
        """Return the fewest voxels of its body along an axis of the scan, as ``Quality`` has it.

        With axial slices of ``slices_mm`` in place of the scan's, where these are thinner.
        """
        up = int(np.argmax(np.abs(self.ct.grid.direction[2])))
        counts = [s.stop - s.start for s in bounding_box(self.body)][::-1]
        if slices_mm > self.slices_mm:
            counts[up] = max(round(counts[up] * self.slices_mm / slices_mm), 1)
        return min(counts)


@dataclass(frozen=True)
class View:
    """A vertebra as it is cut out: HU and body, and how its scan lies to the crop (S, P, I).

    ``own_blur`` is the scan's own blur as Gaussian deviations in mm along S, P, I; ``slices_mm``
    the distance of its axial slices, and ``tilt`` how far these rise per mm towards posterior, in
    mm along I.
    """

    patch: VertebraPatch
    own_blur: tuple[float, float, float]
    slices_mm: float
    tilt: float


@dataclass(frozen=True)
class Source:
    """A row of a sources file: a CT, its segmentation, how to read its values, whose it is.

    Levels in ``leave_out`` are not to be used.
    """

    ct: Path
    segmentation: Path
    labels: str
    patient: str
    split: str
    leave_out: tuple[str, ...] = ()


def read_sources(path: Path, data: Path) -> list[Source]:
    """Return the rows of a table (see ``read_table``) with the columns ``COLUMNS``.

    Paths are below ``data``; a label map in JSON stands beside the CSV.  A column ``leave_out`` may
    name levels that are not to be used, separated by spaces; other columns are for people.  Each
    patient has the first of several spellings.  Raises InputError where the file cannot be read or
    names a level that there is not.
    """
    sources = []
    for line, row in read_table(path, COLUMNS, ("leave_out",))[0]:
        if fault := _fault(row):
            raise InputError(path, f"line {line} {fault}")
        own_map = path.parent / row["labels"]
        labels = str(own_map) if own_map.suffix == ".json" else row["labels"]
        files = path_in(data, row["ct"]), path_in(data, row["segmentation"])
        left_out = tuple(row.get("leave_out", "").split())
        if unknown := sorted(set(left_out) - set(LEVELS)):
            cause = f"unknown level {unknown[0]!r} in its column leave_out: write C1 to S1"
            raise InputError(path, cause)
        sources.append(Source(*files, labels, row["patient"], row["split"], left_out))
    names = one_spelling(source.patient for source in sources)
    return [replace(source, patient=name) for source, name in zip(sources, names)]


def _fault(row: Mapping[Any, str]) -> str:
    """Return what is wrong with a row of a sources file, "" where nothing is."""
    if None in row:
        return "has more values than there are columns"
    empty = [name for name in COLUMNS if name != "labels" and not row[name].strip()]
    if empty:
        return f"has no {' and no '.join(empty)}"
    fault = fault_of_name(row["patient"].strip())
    return f"has a patient that {fault}" if fault else ""


def load_vertebrae(
    source: Source, tell: Callable[[str], None] = lambda line: None, margin_mm: float = 15.0
) -> list[SourceVertebra]:
    """Return the whole bodies of a source that are to be used, each with the CT around it.

    As ``segment`` has them: the same bodies, axes and intensity scale.  ``tell`` hears which are
    left out and why, and what is to be said of others, a line each.  Raises UserError where a file
    cannot be read, where ``segment`` would refuse the two, and where they do not lie on one grid.
    """
    # SimpleITK reads them: packed vertebrae do without, on machines that have none.
    from ..anatomy.segment_names import may_be_vertebra
    from ..imaging.reading import read_ct, read_segmentation
    from ..spine import spine_of, without_option
    from .simulate import COMPACT_GEOMETRY

    ct = read_ct(source.ct, undecided=True)
    segmentation = read_segmentation(source.segmentation, may_be_vertebra, undecided=True)
    if not segmentation.grid.matches(ct.grid):
        raise InputError(source.segmentation, f"has another grid than {source.ct.name}")
    spine = spine_of(ct, segmentation, source.labels, COMPACT_GEOMETRY)
    levels = [name for name in spine.inputs.segmented if name not in source.leave_out]
    if not levels:
        return []
    try:
        scale = spine.scale(levels)
    except UserError as error:
        raise without_option(error) from error
    for flag in scale.flags:
        tell(f"{source.patient}: {flag}")
    vertebrae = []
    for level in levels:
        obstacle, flags = spine.whole(level, scale)
        body = spine.vertebra(level).site.body
        mm3 = 0.0 if body is None else float(body.array.sum() * ct.grid.voxel_mm3)
        if not obstacle and mm3 < SMALLEST_MM3:
            obstacle = f"only {mm3 / 1000:.1f} cm3 of its body are seen"
        if obstacle or body is None:
            tell(f"{source.patient} {level}: left out: {obstacle}")
            continue
        if flags:
            tell(f"{source.patient} {level}: used, but note: {'; '.join(flags)}")
        vertebrae.append(_cut_out(spine, level, scale.calibration, source.patient, margin_mm))
    return vertebrae


def _cut_out(
    spine: Spine, level: str, scale: Calibration, patient: str, margin_mm: float
) -> SourceVertebra:
    """Return a vertebra of a scan in HU, with so much of the CT around its body."""
    from ..anatomy.localization import close_up
    from ..anatomy.preparation import without_gaps

    site = spine.vertebra(level).site
    assert site.body is not None
    view, body, _ = close_up(spine.inputs.ct, site.body)
    view = without_gaps(view)
    box = bounding_box(body, margin=int(np.ceil(margin_mm / view.grid.spacing.min())))
    grid = view.grid.cut([s.start for s in box], body[box].shape)
    hu = Volume(scale.hounsfield(view.array[box].astype(np.float32)), grid)
    return SourceVertebra(hu, body[box].copy(), patient, level, site.axes, site.turn_known)


def drawn_vertebrae(rng: Rng, count: int) -> list[SourceVertebra]:
    """Vertebrae drawn from scratch, T1 to L5, before blur and noise; each is its own patient."""
    vertebrae = []
    for number in range(count):
        level = str(rng.choice(DRAWN_LEVELS))
        settings = random_settings(rng, (level,), SPACING_DRAWN_MM)
        settings = replace(settings, field=(90.0, 90.0), margin=20.0)
        clean = draw_clean(settings, rng)
        body = clean.bodies == label_value(level)
        vertebrae.append(
            SourceVertebra(Volume(clean.hu, clean.grid), body, f"{DRAWN} {number}", level)
        )
    return vertebrae


@lru_cache(maxsize=4096)
def _crop_grid(vertebra: SourceVertebra, geometry: Geometry) -> Grid:
    """Return where the crop lies before it is turned: slow, and the same every time."""
    return vertebra.crop_grid(geometry)


def take_canvas(rng: Rng, vertebra: SourceVertebra, geometry: Geometry) -> View:
    """Return a fresh view of the vertebra.

    Turned by some degrees, stretched by some percent and with the body's outline off by up to a
    pixel, as other people's segmentations are.
    """
    grid = _jittered(rng, _crop_grid(vertebra, geometry))
    hu = _sampled(vertebra.ct.array, vertebra.ct.grid, grid, "nearest")
    body = _sampled(vertebra.body, vertebra.ct.grid, grid, "constant") >= 0.5
    # From here on sizes are those of the undistorted vertebra, stretched with it.
    s, p, i = (float(v) for v in grid.spacing[::-1])
    canvas = VertebraPatch(hu, body, (s, p, i))
    canvas = VertebraPatch(canvas.hu, _redrawn(rng, canvas), canvas.spacing)
    blur = 0.42 * np.abs(grid.direction.T @ vertebra.ct.grid.direction) @ vertebra.ct.grid.spacing
    own_blur = (float(blur[2]), float(blur[1]), float(blur[0]))
    inferior, posterior = grid.direction[2, 0], grid.direction[2, 1]
    return View(canvas, own_blur, vertebra.slices_mm, float(posterior / inferior))


def _sampled(array: np.ndarray, own: Grid, grid: Grid, outside: str) -> Field:
    """Read an array (K, J, I) linearly on a crop's grid, averaged where that is coarser."""
    fine, factors = oversampled(grid, own.spacing)
    to_own = np.linalg.inv(own.ijk_to_lps) @ fine.ijk_to_lps
    read = ndimage.affine_transform(
        np.asarray(array, np.float32),
        to_own[:3, :3][::-1, ::-1],
        to_own[:3, 3][::-1],
        output_shape=fine.shape,
        order=1,
        mode=outside,
    )
    return pooled(read, factors)


def _jittered(rng: Rng, grid: Grid) -> Grid:
    turn = _rotation(np.radians(rng.normal(0.0, [3.0, 4.0, 6.0])))
    zoom = np.exp(rng.normal(0.0, 0.04) + rng.normal(0.0, 0.04, 3))
    centre = grid.lps((np.array(grid.shape[::-1]) - 1) / 2) + rng.normal(0.0, 0.6, 3)
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, :3] = turn @ matrix[:3, :3] * zoom
    matrix[:3, 3] = centre - matrix[:3, :3] @ ((np.array(grid.shape[::-1]) - 1) / 2)
    return Grid(grid.shape, matrix)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation by (yaw, roll, pitch) in radians about the LPS axes z, y, x."""
    turn = np.eye(3)
    for (a, b), angle in zip(((0, 1), (0, 2), (1, 2)), angles):
        plane = np.eye(3)
        plane[[a, a, b, b], [a, b, a, b]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        turn = plane @ turn
    return turn


def _redrawn(rng: Rng, canvas: VertebraPatch) -> Mask:
    """Return the body's outline, moved by a smooth error of up to about a pixel."""
    pixel = canvas.spacing[1]
    inside = ndimage.distance_transform_edt(canvas.body, sampling=canvas.spacing)
    outside = ndimage.distance_transform_edt(~canvas.body, sampling=canvas.spacing)
    wobble = rng.normal(0.0, 0.4) + 0.35 * smooth_field(rng, canvas, 6.0)
    redrawn = np.asarray(inside - outside > wobble * pixel)
    return redrawn if redrawn.any() else canvas.body


def chosen(
    where: Path,
    names: Iterable[str],
    known: Iterable[str],
    refusal: str = "has no patient {}",
    with_commas: bool = True,
) -> list[str]:
    """Return those of ``known``, each once and in their order, whom (or which) ``names`` mean.

    Spellings are compared by ``person``; ``with_commas``, ``names`` may hold several in one, as of
    ``names_in``.  Raises InputError, ``refusal`` with the names in place of ``{}``, where any name
    is of none: one that is misspelt would choose fewer without a word.
    """
    spellings = list(dict.fromkeys(known))
    there = {person(spelling) for spelling in spellings}
    asked = names_in(names, spellings) if with_commas else list(dict.fromkeys(names))
    if unknown := [name for name in asked if person(name) not in there]:
        raise InputError(where, refusal.format(", ".join(unknown)))
    wanted = {person(name) for name in asked}
    return [spelling for spelling in spellings if person(spelling) in wanted]


def names_in(texts: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names in texts: one that is known itself is one name, others are split at commas.

    "Doe, J" may be a name.  Each is there once, as it is spelled in the text.
    """
    there = {person(spelling) for spelling in known}
    parts = (
        part.strip()
        for text in texts
        for part in ([text] if person(text) in there else text.split(","))
    )
    return [part for part in dict.fromkeys(parts) if part]


def one_spelling(names: Iterable[str]) -> list[str]:
    """Return every name as its person is first spelled there, so that names tell persons apart."""
    first: dict[str, str] = {}
    return [first.setdefault(person(name), name) for name in names]


def shared_patients(patients: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return those in both; vertebrae drawn from scratch are numbered anew in every set."""
    there = {person(patient) for patient in others}
    both = (p for p in {*patients} if person(p) in there)
    return sorted(p for p in both if not p.startswith(f"{DRAWN} "))


def person(patient: str) -> str:
    """Return what two spellings of one patient have in common ("P01" and "p01 ").

    Also 007, 7 and 7.0: spreadsheets and statistics programs take a number for one.
    """
    plain = " ".join(unicodedata.normalize("NFKC", patient).casefold().split())
    number = _NUMBER.fullmatch(plain)
    return number[1] if number else plain


_NUMBER = re.compile(r"0*([0-9]+?)(?:\.0+)?")


def spelled_twice(patients: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield each line of a table with a new spelling of a patient, and what is wrong there.

    ``patients`` are its lines, with the patient of each.
    """
    known: dict[str, tuple[int, str]] = {}
    spellings: set[str] = set()
    for line, name in patients:
        first, before = known.setdefault(person(name), (line, name))
        if name != before and name not in spellings:
            said = f"spelled {before} in line {first} and {name} here"
            yield line, f"the patient is {said}: write one spelling"
        spellings.add(name)


MARGIN_MM = 9.0
KEPT_MM = 7.0  # beyond this distance from the body nothing reaches a crop
SOFT_TISSUE_HU = 40
STEP_HU = 2
STALE_PACK = (
    "was packed by another version, which cut and checked vertebrae otherwise: make it again with "
    "`hideseekseg pack`"
)


def pack(vertebrae: Sequence[SourceVertebra], path: Path) -> None:
    """Write vertebrae to a compressed ``.npz``."""
    columns: dict[str, np.ndarray] = {
        "preparation": np.array(PREPARATION),
        "patient": np.array([v.patient for v in vertebrae]),
        "level": np.array([v.level for v in vertebrae]),
        "turn known": np.array([v.turn_known for v in vertebrae], bool),
    }
    for number, vertebra in enumerate(vertebrae):
        grid = vertebra.ct.grid
        box = bounding_box(vertebra.body, margin=int(np.ceil(MARGIN_MM / grid.spacing.min())))
        body = vertebra.body[box]
        cut = grid.cut([s.start for s in box], body.shape)
        far = ndimage.distance_transform_edt(~body, sampling=cut.spacing[::-1]) > KEPT_MM
        hu = np.where(far, SOFT_TISSUE_HU, vertebra.ct.array[box])
        columns[f"hu {number}"] = np.round(hu / STEP_HU).astype(np.int16)
        columns[f"body {number}"] = np.packbits(body)
        columns[f"matrix {number}"] = cut.ijk_to_lps
        columns[f"axes {number}"] = PATIENT_AXES if vertebra.axes is None else vertebra.axes
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **columns)  # type: ignore[arg-type]


def unpack(path: Path) -> list[SourceVertebra]:
    """Return the vertebrae of a packed file.

    Raises InputError where it is not such a file, and where it was packed before vertebrae were
    made ready as they are now: it does not tell how they lie in a bent spine, and nobody looked at
    the scale of their intensities.
    """
    try:
        data = read_arrays(path)
        names = zip(one_spelling(data["patient"].tolist()), data["level"].tolist())
        if "preparation" not in data or int(data["preparation"]) != PREPARATION:
            raise InputError(path, STALE_PACK)
        return [_vertebra(data, number, *name) for number, name in enumerate(names)]
    except OSError as error:
        raise InputError(path, f"cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path, "is not a file of packed vertebrae") from error


def _vertebra(data: dict[str, Any], number: int, patient: str, level: str) -> SourceVertebra:
    steps = data[f"hu {number}"]
    body = np.unpackbits(data[f"body {number}"], count=steps.size).reshape(steps.shape)
    grid = Grid(steps.shape, data[f"matrix {number}"])
    hu = (steps * STEP_HU).astype(np.float32)
    axes, turn_known = data[f"axes {number}"], bool(data["turn known"][number])
    return SourceVertebra(Volume(hu, grid), body.astype(bool), patient, level, axes, turn_known)


def content_of(vertebrae: Iterable[SourceVertebra]) -> str:
    """Return a hash of all that a simulated set takes from vertebrae, and of how they are cut."""
    digest = sha256(f"{PREPARATION}\n".encode())
    for vertebra in vertebrae:
        digest.update(f"{vertebra.patient}\n{vertebra.level} {vertebra.turn_known}\n".encode())
        axes = PATIENT_AXES if vertebra.axes is None else vertebra.axes
        for array in (vertebra.ct.array, vertebra.body, vertebra.ct.grid.ijk_to_lps, axes):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
