"""A hospital's own vertebrae: labelled slices cut from the scans that its table names.

Each vertebra is cut out as the pipeline does.  A slice gets the label of its vertebra, as in the
paper: nobody has said which slices of a malignant vertebra show the lesion.  Every slice through
the body is written; ``training.dataset.load_slices`` chooses those that the weights' profile names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..anatomy.body import CUT
from ..anatomy.crop import PREPARATION, Crop, Mask
from ..anatomy.preparation import OUTSIDE
from ..anatomy.quality import UNKNOWN
from ..anatomy.segment_names import is_unnamed, may_be_vertebra
from ..anatomy.vertebra_checks import EMPTY
from ..errors import InputError, NotCTError, UserError
from ..files import atomic, make_folder, require_apart
from ..imaging.reading import read_ct, read_segmentation, two_places
from ..imaging.segmentation import Segmentation
from ..imaging.volume import Grid, Patch, Volume, patch_of
from ..model.profile import Geometry, Limits
from ..plain_data import counted
from ..simulation.simulate import BODY, as_int16
from ..spine import Spine, SpineScale, spine_of, without_option
from ..unpacking import read_arrays
from .manifest import Manifest, ManifestRow, content_of, files_of
from .single_masks import SingleMask, check_masks, cut_by_own_border, placed, same_vertebra

SET_ASIDE = "; its shard of an earlier run is kept as {} until its files are as they were"
SOURCES = "sources"  # of a shard: the hash of the files that it was made from, and of the way


@dataclass(frozen=True)
class PreparedRow:
    """What became of a row: its crop in HU, or the ``obstacle``; ``notes`` are not obstacles.

    ``limits`` are those that this vertebra alone would make.
    """

    row: ManifestRow
    obstacle: str = ""
    crop: Crop | None = None
    notes: tuple[str, ...] = ()
    limits: Limits = UNKNOWN


def cut_out(rows: Sequence[ManifestRow], geometry: Geometry) -> list[PreparedRow]:
    """Return the vertebrae of one image, whose rows these are.

    A label map is a spine of its own, masks of one vertebra each are one together.
    """
    try:
        ct = read_ct(rows[0].image, undecided=True)
    except InputError as error:
        return [PreparedRow(row, f"image: {error.cause}") for row in rows]
    found: list[_Found] = []
    alone: list[tuple[ManifestRow, SingleMask]] = []
    for path in dict.fromkeys(row.mask for row in rows):  # each mask is read once
        own = [row for row in rows if row.mask == path]
        try:
            segmentation = read_segmentation(path, may_be_vertebra, undecided=True)
        except InputError as error:
            found += [_refused(row, f"mask: {error.cause}") for row in own]
            continue
        single = [row for row in own if _is_single(row, segmentation)]
        mask = _single_mask(path, segmentation, ct) if single else ""
        if isinstance(mask, str):
            found += [_refused(row, mask) for row in single]
        else:
            alone += [(row, replace(mask, level=row.level)) for row in single]
        for convention in dict.fromkeys(row.convention for row in own if row not in single):
            some = [row for row in own if row not in single and row.convention == convention]
            found += _of_label_map(some, segmentation, ct, geometry)
    if alone:
        found += _of_single_masks(alone, ct, geometry)
    return _without_doubles(sorted(found, key=lambda one: one.outcome.row.line))


@dataclass(frozen=True)
class _Found:
    """What became of a row, and where its body lies on the image's grid."""

    outcome: PreparedRow
    body: Patch | None = None


def _is_single(row: ManifestRow, segmentation: Segmentation) -> bool:
    """Return whether a mask is one vertebra by itself, whatever its label is."""
    segments = segmentation.segments
    if len(segments) != 1 or row.convention:
        return False
    return not row.level or (is_unnamed(segments[0].name) and is_unnamed(segments[0].id))


def _single_mask(path: Path, segmentation: Segmentation, ct: Volume) -> SingleMask | str:
    """Return the mask of one vertebra, not yet with a level, or why it cannot be used."""
    for what, volume in (("image", ct), ("mask", segmentation.layers[0])):
        if volume.rival is not None:  # which place is right, only a label map of all tells
            return f"{what}: {two_places(volume)}; keep the right one in its header"
    patch = patch_of(segmentation.mask(segmentation.segments[0]))
    return SingleMask(path, patch, segmentation.grid) if patch else f"mask: {EMPTY}"


@dataclass(frozen=True)
class _Asked:
    """A row and its level in a spine; ``mask`` where it has one by itself."""

    row: ManifestRow
    level: str
    notes: tuple[str, ...]
    mask: SingleMask | None = None


def _of_label_map(
    rows: Sequence[ManifestRow], segmentation: Segmentation, ct: Volume, geometry: Geometry
) -> list[_Found]:
    """Cut rows of one convention out by a label map of many vertebrae."""
    notes = _grid_notes(segmentation.grid, ct)
    labels = f"mask: contains {len(segmentation.segments)} labels"
    found = [
        _refused(row, f"{labels}: say by level which is meant") for row in rows if not row.level
    ]
    named = [row for row in rows if row.level]
    if not named:
        return found
    try:
        spine = spine_of(ct, segmentation, named[0].convention or None, geometry)
    except UserError as error:
        said = _said(error, ct.source, segmentation.source)
        return found + [_refused(row, said, notes) for row in named]
    levels = spine.inputs.segmented
    there = f"it contains {', '.join(levels)}"
    found += [
        _refused(row, f"mask: contains no {row.level}; {there}", notes)
        for row in named
        if row.level not in levels
    ]
    asked = [_Asked(row, row.level, notes) for row in named if row.level in levels]
    return found + (_cut(asked, spine) if asked else [])


def _of_single_masks(
    alone: Sequence[tuple[ManifestRow, SingleMask]], ct: Volume, geometry: Geometry
) -> list[_Found]:
    """Cut rows out by masks of one vertebra each."""
    grid, moved = placed(ct, [mask for _, mask in alone])
    found = [_refused(row, OUTSIDE) for (row, _), patch in zip(alone, moved) if patch is None]
    there = [(*one, patch) for one, patch in zip(alone, moved) if patch is not None]
    if not there:
        return found
    masks, patches = [mask for _, mask, _ in there], [patch for *_, patch in there]
    try:
        inputs, levels = check_masks(ct, masks, grid, patches)
    except UserError as error:
        said = _said(without_option(error), ct.source, str(masks[0].path))
        return found + [_refused(row, said) for row, *_ in there]
    asked = [
        _Asked(row, level, _grid_notes(mask.grid, ct), mask)
        for (row, mask, _), level in zip(there, levels)
    ]
    return found + _cut(asked, Spine(inputs, geometry))


def _refused(row: ManifestRow, obstacle: str, notes: tuple[str, ...] = ()) -> _Found:
    return _Found(PreparedRow(row, obstacle, notes=notes))


def _grid_notes(mask: Grid, ct: Volume) -> tuple[str, ...]:
    same = mask.matches(ct.grid)
    return () if same else ("the mask has another grid than the image: it is resampled",)


def _said(error: UserError, image: str, mask: str) -> str:
    """Return an error of an image or a mask with the column of the table that it concerns."""
    if isinstance(error, NotCTError) or error.path == image:
        return f"image: {error.cause}"
    if error.path == mask:
        return f"mask: {error.cause}"
    return f"convention: {error}"


def _cut(asked: Sequence[_Asked], spine: Spine) -> list[_Found]:
    """Cut rows out of the spine that they are of, in HU."""
    inputs = spine.inputs
    try:
        scale = spine.scale(tuple(dict.fromkeys(one.level for one in asked)))
    except UserError as error:
        said = _said(without_option(error), inputs.ct.source, inputs.segmentation.source)
        return [
            _refused(one.row, spine.vertebra(one.level).obstacle or said, one.notes)
            for one in asked
        ]
    return [_in_hounsfield(one, spine, scale) for one in asked]


def _in_hounsfield(asked: _Asked, spine: Spine, scale: SpineScale) -> _Found:
    """Return a row's crop in HU, unless it cannot be analysed or only a part of it is seen."""
    vertebra, notes = spine.vertebra(asked.level), asked.notes
    obstacle, flags = spine.whole(asked.level, scale)
    grid = spine.inputs.ct.grid
    if not obstacle and asked.mask and cut_by_own_border(vertebra, grid, asked.mask):
        obstacle = f"body {CUT}"
    if obstacle or vertebra.crop is None:
        return _refused(asked.row, obstacle, notes)
    known = scale.calibration
    crop = replace(vertebra.crop, image=known.hounsfield(vertebra.crop.image))
    rescaled = () if known.is_hu else ("the image is not in HU: rescaled by soft tissue and bone",)
    notes = (*notes, *scale.flags, *flags, *rescaled)
    limits = vertebra.limits_in(known)
    return _Found(PreparedRow(asked.row, "", crop, notes, limits), vertebra.site.body)


def _without_doubles(found: Sequence[_Found]) -> list[PreparedRow]:
    """Return what became of the rows, a vertebra that two masks show taken once.

    By its first row; by none where the labels contradict each other, as nobody knows which is
    right.  What the table itself shows to be the same vertebra was said when it was read.
    """
    outcomes = [one.outcome for one in found]
    for n, later in enumerate(found):
        for m, first in enumerate(found[:n]):
            a, b = first.outcome.row, later.outcome.row
            if first.body is None or later.body is None or a.vertebra == b.vertebra:
                continue
            if not same_vertebra(first.body, later.body):
                continue
            other = ", but with the other label" if a.malignant != b.malignant else ""
            for at, line in ((n, a.line), *(((m, b.line),) if other else ())):
                if not outcomes[at].obstacle:
                    said = f"the same vertebra as in line {line}{other}"
                    outcomes[at] = replace(outcomes[at], obstacle=said, crop=None)
    return outcomes


def write_shards(
    manifest: Manifest,
    geometry: Geometry,
    out: Path,
    tell: Callable[[int, int, Sequence[PreparedRow]], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Write one ``shard-*.npz`` for each image with usable rows; gives how many there are.

    As ``simulate`` writes them, but without twins and lesion masks.  One image is in memory at a
    time.  A shard that is whole, made from the files as they are now (by their hash) and in the way
    that is now, is kept; one that cannot be made anew is set aside; one of another manifest is
    refused with InputError.  ``tell`` hears of
    every image: how many are behind, of how many, and what became of its rows if they were not
    finished before.
    ``should_stop`` ends in KeyboardInterrupt.
    """
    groups = shard_groups(manifest, out)
    for number, (shard, rows) in enumerate(groups.items(), start=1):
        if should_stop():
            raise KeyboardInterrupt
        tell(number, len(groups), make_shard(shard, rows, geometry))
    return sum(shard.exists() for shard in groups)


def shard_groups(manifest: Manifest, out: Path) -> dict[Path, list[ManifestRow]]:
    """Return the rows of each shard.

    Raises InputError where ``out`` holds other shards, or is or lies in an image's folder.
    """
    require_apart(out, {path for row in manifest.rows for path in (row.image, row.mask)}, True)
    make_folder(out)
    groups = {out / f"shard-{_digest(rows)}.npz": rows for rows in manifest.by_image()}
    strangers = sorted(set(out.glob("shard-*.npz")) - set(groups))
    if strangers:
        shards, name = counted(len(strangers), "shard"), strangers[0].name
        raise InputError(out, f"contains {shards} of another manifest, such as {name}")
    return groups


def make_shard(shard: Path, rows: Sequence[ManifestRow], geometry: Geometry) -> list[PreparedRow]:
    """Write the shard of one image; return what became of its rows, nothing where it was whole.

    A whole shard that cannot be made anew is set aside, see ``set_aside``, and comes back as soon
    as the files are again those it was made from.  Raises InputError where it cannot be written.
    """
    # Of files before they are cut out: those that change meanwhile are others on the next run.
    sources, aside = _content_hash(rows, geometry), _aside(shard)
    if _is_finished(shard, len(rows), sources):
        aside.unlink(missing_ok=True)
        return []
    if _is_finished(aside, len(rows), sources):
        aside.replace(shard)
        return []
    outcomes = cut_out(rows, geometry)
    kept = [outcome for outcome in outcomes if outcome.crop is not None]
    said = set_aside(shard, len(rows)) if len(kept) < len(rows) else ""
    if kept:
        with atomic(shard) as temporary:
            columns = {**_columns(kept), SOURCES: np.array(sources)}
            np.savez(temporary, **columns)  # type: ignore[arg-type]
    if len(kept) == len(rows):
        aside.unlink(missing_ok=True)
    return [
        replace(outcome, obstacle=f"{outcome.obstacle}{said}") if outcome.obstacle else outcome
        for outcome in outcomes
    ]


def set_aside(shard: Path, rows: int) -> str:
    """Take a shard away from what is learned from; return words that say so of a whole one.

    Whether it is outdated is not known where its files cannot be read for a while: one that has all
    ``rows`` is kept under another name, which ``train`` does not look for.
    """
    if _vertebrae_in(shard) == rows:
        shard.replace(_aside(shard))
    else:
        shard.unlink(missing_ok=True)
    return SET_ASIDE.format(_aside(shard).name) if _aside(shard).exists() else ""


def _aside(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.aside")


def _digest(rows: Sequence[ManifestRow]) -> str:
    """Tells the rows of one image from all others, from wherever they are read."""
    return sha256(repr([row.resolved() for row in rows]).encode()).hexdigest()[:12]


def _is_finished(shard: Path, rows: int, sources: str) -> bool:
    """Return whether it holds all ``rows``, made as now from the files as they are now."""
    return _vertebrae_in(shard, sources) == rows


def _vertebrae_in(shard: Path, sources: str = "") -> int:
    """Return how many vertebrae a shard has; 0 without it, or where it is of other ``sources``."""
    if not shard.exists():
        return 0
    try:
        data = read_arrays(shard, {"vertebra", SOURCES})
        count = len(np.unique(data["vertebra"]))
        made_from = str(data[SOURCES]) if SOURCES in data else ""
    except (KeyError, OSError, ValueError):  # damaged: it is made anew
        return 0
    return count if not sources or made_from == sources else 0


def _content_hash(rows: Sequence[ManifestRow], geometry: Geometry) -> str:
    """Return a hash of what the rows' images and masks hold, and of how vertebrae are cut out.

    Not of their times: a file that is replaced by an older one has changed as well.
    """
    digest = sha256(f"{PREPARATION} {geometry}".encode())
    paths = {path.absolute(): path for row in rows for path in (row.image, row.mask)}
    paths |= {file.absolute(): file for row in rows if (file := row.labels_file) is not None}
    for _, path in sorted(paths.items()):
        try:
            for file in files_of(path):
                digest.update(f"\n{path.name}/{file.name}\n".encode())
                if file.is_file():
                    digest = content_of(file, digest)
        except (OSError, InputError) as error:  # which is said of its rows when it is read
            digest.update(f"\n{type(error).__name__}\n".encode())
    return digest.hexdigest()


def _columns(outcomes: Sequence[PreparedRow]) -> dict[str, np.ndarray]:
    """Return the columns of a shard; a vertebra's number is that of its row among its image's."""
    parts: dict[str, list[np.ndarray]] = {}
    for number, outcome in enumerate(outcomes):
        row, crop = outcome.row, outcome.crop
        assert crop is not None
        slices, limits = crop.analysed, outcome.limits
        noise = np.nan if limits.noise_hu is None else limits.noise_hu
        body: Mask = crop.body[slices]
        columns = {
            "image": as_int16(crop.image[slices]),
            "masks": (BODY * body).astype(np.uint8),
            "label": np.full(len(slices), row.malignant, np.uint8),
            "patient": np.full(len(slices), row.patient),
            "level": np.full(len(slices), row.level),
            "vertebra": np.full(len(slices), number, np.int32),
            "slice": slices.astype(np.int16),
            "noise_hu": np.full(len(slices), noise, np.float32),
            "slice_mm": np.full(len(slices), limits.slice_mm, np.float32),
            "layers": np.full(len(slices), limits.layers, np.int16),
        }
        for key, column in columns.items():
            parts.setdefault(key, []).append(column)
    return {key: np.concatenate(part) for key, part in parts.items()}
