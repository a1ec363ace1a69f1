"""Which CT series a folder of DICOM files has, and the slices of the one that is meant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import files_in
from ..plain_data import counted
from .dicom_copies import distinct, name_in, without_copies
from .dicom_headers import (
    DESCRIPTION,
    IDENTITY,
    MODALITY,
    NUMBER,
    PATIENT,
    SERIES,
    THICKNESS,
    Slice,
    check_object,
    numbers_in,
    plain_text,
    scan,
)
from .series_files import files_beside, series_files
from .volume import FRAME_OF_REFERENCE

MIN_SLICES = 4

# What the slices of a series have in common, whatever a careless anonymisation made of its UID;
# and what may tell series apart where their UID was removed.
OF_ONE_SERIES = {
    "patient": tuple(reversed(PATIENT.values())),
    "study": (IDENTITY["study_uid"],),
    "frame of reference": (IDENTITY[FRAME_OF_REFERENCE],),
    "modality": (MODALITY,),
}
OF_UNNAMED = {
    "series number": (NUMBER,),
    "description": (DESCRIPTION,),
    "kernel": ("0018|1210",),
}


@dataclass(frozen=True)
class SeriesInfo:
    """One image series of a folder, for people to choose from.

    ``spacing`` is mm along i, j, k as the files state it (0 where they do not);
    ``fault`` is why it cannot be read as a CT volume, empty where nothing is known against it;
    ``file`` is one of its files.
    """

    uid: str
    number: str
    description: str
    modality: str
    slices: int
    spacing: tuple[float, float, float]
    fault: str
    file: Path

    def __str__(self) -> str:
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing)
        name = self.description or "no description"
        return f"{self.number or '?'}: {self.file} ({name}, {self.slices} slices, {spacing} mm)"


def list_series(folder: str | Path) -> list[SeriesInfo]:
    """Return the image series of a folder and the folders in it, the longest first.

    Raises InputError where a DICOM image is damaged or a folder cannot be looked into; the list is
    empty where there is no image.
    """
    return _sorted(_by_series(scan(files_in(Path(folder)))))


def chosen_slices(
    folder: Path, member: Path | None, series: str
) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices of the series that is meant, and notes on what was left out.

    That is others that state its UID, and copies.  Of a series that is named no others are read.
    """
    if member is not None:
        check_object(member)
        files = files_beside(member)
    else:
        files = series_files(folder, series) if series else files_in(folder)
    picked, notes = _pick(folder, scan(files), member, series)
    picked, copied = without_copies(folder, _named_apart(folder, picked))
    if copied and (fault := _fault(picked)):
        raise InputError(member or folder, f"belongs to a CT series of {fault} ({copied[0]})")
    return picked, (*notes, *copied)


def _named_apart(folder: Path, group: list[Slice]) -> list[Slice]:
    """Return slices whose files in several folders have one name with names that messages need."""
    if len({one.plane.name for one in group}) == len(group):
        return group
    return [replace(o, plane=replace(o.plane, name=name_in(folder, o.path))) for o in group]


def _by_series(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Return the slices by series, none of them of two patients, studies, ..."""
    by_uid: dict[str, list[Slice]] = defaultdict(list)
    for found in slices:
        by_uid[found.tags.get(SERIES, "")].append(found)
    groups = []
    for uid, group in by_uid.items():
        parts = [group]
        for tags in (*OF_ONE_SERIES.values(), *(() if uid else OF_UNNAMED.values())):
            parts = [own for part in parts for own in _apart(part, tags)]
        groups += parts
    return groups


def _apart(group: list[Slice], tags: Sequence[str]) -> list[list[Slice]]:
    """Return the slices of each value; a value of its own for every slice tells nothing apart.

    Such values are invented file by file, as some anonymisation does with UIDs.
    """
    by_value: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    for one in group:
        by_value[_values(one, tags)].append(one)
    is_invented = len(by_value) == len(distinct(group)) and all(one.frames == 1 for one in group)
    return [group] if is_invented else list(by_value.values())


def _values(one: Slice, tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(plain_text(one.tags.get(tag, "")).casefold() for tag in tags)


def _difference(group: Sequence[Slice], other: Sequence[Slice]) -> str:
    """Return in what two series of one UID differ."""
    return next(
        what
        for what, tags in (OF_ONE_SERIES | OF_UNNAMED).items()
        if _values(group[0], tags) != _values(other[0], tags)
    )


def _count(group: Sequence[Slice]) -> int:
    """Return how many slices there are, copies counted once."""
    return sum(found.frames for found in distinct(group))


def _fault(group: Sequence[Slice]) -> str:
    """Return why a series is not a CT volume, by its tags alone."""
    if group[0].modality != "CT":
        return f"its modality is {group[0].modality}"
    usable = [found for found in group if not found.fault]
    if 2 * _count(usable) < _count(group) or not usable:
        return group[0].fault or next(found.fault for found in group if found.fault)
    if _count(usable) < MIN_SLICES:
        plural = "s" if _count(usable) > 1 else ""
        return f"{_count(usable)} slice{plural}: not a volume"
    return ""


def _sorted(series: Iterable[Sequence[Slice]]) -> list[SeriesInfo]:
    return sorted((_info(group) for group in series), key=lambda s: (-s.slices, s.number))


def _uid(group: Sequence[Slice]) -> str:
    return group[0].tags.get(SERIES, "")


def _info(group: Sequence[Slice]) -> SeriesInfo:
    first = group[0]
    along = sorted(
        float(one.plane.position @ np.cross(*one.plane.axes))
        for one in distinct(group)
        if one.plane.position.size and one.plane.axes.size
    )
    step = float(np.median(np.diff(along))) if len(along) > 1 else 0.0
    thickness = numbers_in(first.tags.get(THICKNESS, ""))
    if not step and thickness.size == 1:
        step = float(thickness[0])
    number, description = first.tags.get(NUMBER, ""), first.tags.get(DESCRIPTION, "")
    return SeriesInfo(
        *(_uid(group), number, description, first.modality, _count(group)),
        (*first.plane.spacing, step),
        _fault(group),
        first.path,
    )


def _pick(
    folder: Path, found: list[Slice], member: Path | None, chosen: str
) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices of the series that is meant, and notes on others that state its UID."""
    if not found:
        raise InputError(folder, "contains no DICOM images")
    every = series = _by_series(found)
    if member is not None:
        series = [group for group in series if any(one.path == member for one in group)]
        if not series:
            raise InputError(member, "contains no DICOM image")
    if chosen:
        series = [g for g in series if chosen in (_uid(g), g[0].tags.get(NUMBER, ""))]
        if not series:
            listed = "; ".join(str(info) for info in _sorted(every))
            raise InputError(folder, f"has no series {chosen}; it has {listed}")
    volumes = [group for group in series if not _fault(group)]
    if not volumes:
        raise InputError(member or folder, _why_none(series))
    if len(volumes) > 1:
        listed = "; ".join(str(info) for info in _sorted(volumes))
        raise InputError(
            folder,
            f"contains {len(volumes)} CT series{_of_one_uid(volumes)}, choose one by its number "
            f"(--series) or give one of its files: {listed}",
        )
    (picked,) = volumes
    others = [group for group in every if group is not picked and _uid(group) == _uid(picked)]
    return picked, tuple(
        f"{counted(len(group), 'file')} with the series UID of the others "
        f"{'was' if len(group) == 1 else 'were'} left out: of another {_difference(picked, group)}"
        for group in others
    )


def _of_one_uid(volumes: Sequence[Sequence[Slice]]) -> str:
    """Return words for the first two series that state the same UID or none, else nothing."""
    for group, other in combinations(volumes, 2):
        if _uid(group) == _uid(other):
            what = "one series UID" if _uid(group) else "no series UID"
            return f", of which two state {what} but are of another {_difference(group, other)}"
    return ""


def _why_none(series: Sequence[Sequence[Slice]]) -> str:
    ct = [group for group in series if group[0].modality == "CT"]
    if not ct:
        modalities = ", ".join(sorted({group[0].modality for group in series}))
        return f"is not CT: its DICOM modality is {modalities}"
    longest = max(ct, key=_count)
    fault = _fault(longest)
    if "not a volume" in fault:
        return f"belongs to a CT series of {fault}"
    return f"contains no CT volume: its series of {_count(longest)} slices is {fault}"


def without_odd_ones(source: Path, group: list[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    """Leave out what by its tags is not a slice of the volume, and say so.

    A single file whose direction differs from that of all others is a localizer without its tag.
    """
    names = {one.path: one.plane.name for one in group}
    left_out = {one.path: one.fault for one in group if one.fault}
    rest = [one for one in group if not one.fault]
    placed = [one for one in rest if one.plane.axes.size and one.frames == 1]
    if len(placed) == len(rest):
        usual = placed[len(placed) // 2].plane.axes
        odd = [one for one in placed if not np.allclose(one.plane.axes, usual, atol=0.5)]
        if len(odd) < MIN_SLICES <= len(rest) - len(odd):
            left_out |= {one.path: "of another direction" for one in odd}
    rest = [one for one in rest if one.path not in left_out]
    thick = {one.tags.get(THICKNESS, "") for one in rest}
    if len(thick) > 1:
        most = max(thick, key=lambda t: sum(one.tags.get(THICKNESS, "") == t for one in rest))
        one = next(one for one in rest if one.tags.get(THICKNESS, "") != most)
        if not _same_number(one.tags.get(THICKNESS, ""), most):
            raise InputError(
                source,
                f"has slices of different thickness: {one.plane.name} is the odd one "
                f"({one.tags.get(THICKNESS, '') or 'none stated'} instead of {most} mm)",
            )
    notes = tuple(f"{names[path]} was left out: it is {why}" for path, why in left_out.items())
    if len(notes) > 3:
        notes = (*notes[:2], f"{len(notes) - 2} more files were left out for such reasons")
    return rest, notes


def _same_number(a: str, b: str) -> bool:
    first, second = numbers_in(a), numbers_in(b)
    return bool(
        first.size and first.shape == second.shape and np.allclose(first, second, rtol=0.02)
    )
