"""DICOM objects that lie in several files, as archives and discs leave them: each is read once.

Headers tell which files may be copies; only of these bytes are compared, and pixels only where the
bytes differ, as an archive writes headers anew or compresses.
"""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..plain_data import counted
from .dicom_headers import IMAGE_TYPE, RESCALE_TYPE, THICKNESS, Slice, numbers_in
from .image_file import captured
from .slice_stack import Plane, read_frames
from .stored_pixels import INTERCEPT, is_inverted, read_pixels

INSTANCE = "0008|0018"  # SOP Instance UID


def distinct(slices: Iterable[Slice]) -> list[Slice]:
    """Return the slices without those that state an instance and a place of an earlier one.

    By headers alone: whether their contents are the same, ``without_copies`` knows.
    """
    first: dict[Hashable, Slice] = {}
    for one in slices:
        uid, place = one.tags.get(INSTANCE, ""), _place_of(one.plane)
        known = uid and (place or one.frames > 1)
        first.setdefault((uid, place, one.frames) if known else one.path, one)
    return list(first.values())


def without_copies(folder: Path, group: Sequence[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices of one series without copies of others, and a note on how many there are.

    A copy has the place, the values and what is stated of them of another slice, whatever its
    instance UID and the rest of its header; what is no slice of a CT (``Slice.fault``) is passed
    over.  Slices of one UID at several places, as careless anonymisation makes them, are none.
    Raises InputError where two files state one instance UID and one place, and their contents
    differ, and where pixels that are to be compared cannot be read.
    """
    several = sum(one.frames > 1 for one in group) > 1
    by_place: dict[Hashable, list[Slice]] = defaultdict(list)
    for one in group:
        by_place[_place(one, several)].append(one)
    copies: set[Path] = set()
    decode = True
    for there in by_place.values():
        kept: list[Slice] = []
        for one in there:
            # Where slices of two instances differ at one place the series will be refused: the
            # pixels of all others need not be unpacked for that.
            if any(_is_copy(one, first, decode or _one_instance(one, first)) for first in kept):
                copies.add(one.path)
                continue
            for first in kept:
                if _one_instance(one, first):
                    names = " and ".join(name_in(folder, each.path) for each in (first, one))
                    cause = f"states one SOP Instance UID for {names}, whose contents differ"
                    raise InputError(folder, f"{cause}: remove the wrong one")
            decode = decode and not kept
            kept.append(one)
    return [one for one in group if one.path not in copies], copies_note(len(copies))


def name_in(folder: Path, path: Path) -> str:
    """Return what a message calls a file: its path in the folder, its name where it is outside."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def copies_note(count: int) -> tuple[str, ...]:
    """Return the note that so many copies were left out; none where there were none."""
    were = "is a copy of another and was" if count == 1 else "are copies of others and were"
    return (f"{counted(count, 'file')} {were} left out",) if count else ()


def without_equal_files(
    files: Sequence[Path], instance_of: Callable[[Path], Hashable]
) -> tuple[list[Path], dict[Path, Path]]:
    """Return the files without copies of earlier ones, and of each copy which one it is of.

    ``instance_of`` tells a file's SOP Instance UID, perhaps with what else copies state.  Copies
    are the same in all attributes; the file's own meta information, in which an archive writes its
    name, may differ.
    """
    by_instance: dict[Hashable, list[Path]] = defaultdict(list)
    kept: list[Path] = []
    copies: dict[Path, Path] = {}
    for file in files:
        known = by_instance[instance_of(file)]
        first = next((one for one in known if _same_object(file, one)), None)
        if first is None:
            known.append(file)
            kept.append(file)
        else:
            copies[file] = first
    return kept, copies


def _same_object(a: Path, b: Path) -> bool:
    """Return whether two files hold one DICOM object; a damaged file is like itself alone."""
    import pydicom

    if filecmp.cmp(a, b, shallow=False):
        return True
    try:
        return bool(pydicom.dcmread(a) == pydicom.dcmread(b))
    except Exception:  # pydicom raises of all kinds for files that break the standard
        return False


def _place_of(plane: Plane) -> tuple[float, ...]:
    """Return position and axes, rounded; empty where the position is not stated."""
    if not plane.position.size:
        return ()
    return tuple(np.round([*plane.position, *plane.axes.ravel()], 3).tolist())


def _place(one: Slice, several: bool) -> Hashable:
    """Return what a copy has in common with its original by its header; else its own path.

    ``several`` multi-frame images have the planes of their frames.
    """
    if one.fault or (one.frames > 1 and not several):
        return one.path
    if one.frames > 1:
        return one.plane.size, tuple(_place_of(frame.plane) for frame in read_frames(one.path))
    place: Hashable = _place_of(one.plane) or one.tags.get(INSTANCE, "") or one.path
    return one.plane.size, place


def _one_instance(one: Slice, other: Slice) -> bool:
    """Return whether slices at one place, where one is stated, state one instance UID."""
    uid = one.tags.get(INSTANCE, "")
    placed = one.plane.position.size > 0 or one.frames > 1
    return placed and uid != "" and uid == other.tags.get(INSTANCE, "")


def _is_copy(one: Slice, first: Slice, decode: bool) -> bool:
    """Return whether a slice at the place of another is a copy; ``decode``: pixels may be read."""
    if filecmp.cmp(one.path, first.path, shallow=False):
        return True
    if not decode or _stated(one) != _stated(first):
        return False
    if not np.allclose(one.plane.spacing, first.plane.spacing, rtol=1e-4):
        return False
    return np.array_equal(_pixels(one.path), _pixels(first.path))


def _stated(one: Slice) -> Any:
    """Return what is stated of a slice and tells what its values mean."""
    frames = [
        (frame.rescale, frame.applied, frame.kind, frame.unit, frame.is_rescaled)
        for frame in (read_frames(one.path) if one.frames > 1 else ())
    ]
    return (
        *(one.tags.get(IMAGE_TYPE, ""), one.tags.get(RESCALE_TYPE, "")),
        *(bool(one.tags.get(INTERCEPT)), is_inverted(one.tags)),
        *(numbers_in(one.tags.get(THICKNESS, "")).tolist(), frames),
    )


def _pixels(path: Path) -> Any:
    try:
        with captured():
            return read_pixels(path)
    except RuntimeError as error:
        raise InputError(path, "is a truncated or damaged DICOM image") from error
