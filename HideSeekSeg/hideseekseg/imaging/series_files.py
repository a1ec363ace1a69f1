"""Which files of a folder are of which DICOM series, so that one of many can be read alone.

An export of an archive may be one folder with thousands of series.  Its headers are read once in
each process; a case then takes the time of its own series.
"""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import files_in, tree_in
from .image_file import is_dicom

Tell = Callable[[str], None]

_SERIES, _NUMBER = "SeriesInstanceUID", "SeriesNumber"
_KEPT = 4  # folders that are remembered
# A file that comes within one tick of a file system's clock leaves the folder's time as it is.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class _FolderIndex:
    """The files of a folder by series; ``times`` are those of the folders that were looked into.

    ``unknown`` are files of which only their reader may know more: none of DICOM's Part 10, or
    damaged ones.  Not ``whole`` where something was left out.
    """

    times: dict[Path, int]
    by_uid: dict[str, tuple[Path, ...]]
    uids: dict[str, tuple[str, ...]]  # of a number
    uid_of: dict[Path, str]
    unknown: tuple[Path, ...]
    everything: tuple[Path, ...]
    whole: bool = True


_indexed: dict[tuple[Path, bool], _FolderIndex] = {}


def series_files(folder: Path, series: str, tell: Tell | None = None) -> list[Path]:
    """Return the files of a tree that may be of a series, which is its UID or its number.

    They are in order; all files where none is of that series, so that a reader can say what there
    is.  Links, closed folders and ``tell`` are as of ``files_in``.
    """
    index = _index(folder, True, tell)
    if index is None:
        return files_in(folder, tell=tell)
    named = (series,) if series in index.by_uid else ()
    uids = dict.fromkeys((*named, *index.uids.get(series, ())))
    if not uids:
        return list(index.everything)
    return sorted((*(file for uid in uids for file in index.by_uid[uid]), *index.unknown))


def files_beside(file: Path) -> list[Path]:
    """Return the files in the folder of a DICOM file that may be of its series, in order."""
    index = _index(file.parent, inside=False)
    if index is None or file not in index.uid_of:
        return files_in(file.parent, deep=False)
    return sorted((*index.by_uid[index.uid_of[file]], *index.unknown))


def _index(folder: Path, inside: bool, tell: Tell | None = None) -> _FolderIndex | None:
    """Return what is known of a folder, read again where files came or went; None without pydicom.

    A file of another series that is rewritten where it lies, to be of this one, is not noticed
    within a process.
    """
    known = _indexed.pop((folder, inside), None)
    if known is None or any(_time(path) != then for path, then in known.times.items()):
        known = _read_index(folder, inside, tell)
    settled = known is not None and time.time_ns() - max(known.times.values()) > _SETTLED_NS
    if known is not None and known.whole and settled:
        _indexed[folder, inside] = known  # the one that was asked for last is last
        while len(_indexed) > _KEPT:
            del _indexed[next(iter(_indexed))]
    return known


def _time(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _read_index(folder: Path, inside: bool, tell: Tell | None) -> _FolderIndex | None:
    try:
        import pydicom  # noqa: F401
    except ImportError:
        return None
    left: list[str] = []
    files, folders = tree_in(folder, inside, None if tell is None else left.append)
    for line in left:
        if tell is not None:
            tell(line)
    times = {path: _time(path) for path in folders}
    by_uid: dict[str, list[Path]] = defaultdict(list)
    uids: dict[str, dict[str, None]] = defaultdict(dict)
    uid_of, unknown = {}, []
    for path in files:
        said = _series_of(path)
        if said is None:
            unknown.append(path)
            continue
        uid, number = said
        by_uid[uid].append(path)
        uids[number][uid] = None
        uid_of[path] = uid
    groups = {uid: tuple(group) for uid, group in by_uid.items()}
    numbers = {number: tuple(group) for number, group in uids.items()}
    return _FolderIndex(times, groups, numbers, uid_of, tuple(unknown), tuple(files), not left)


def _series_of(path: Path) -> tuple[str, str] | None:
    """Return UID and number of a DICOM file's series, empty where it states none.

    None where that cannot be read.
    """
    import pydicom

    try:
        if not is_dicom(path):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that break the standard a little
            tags = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[_SERIES, _NUMBER])
            return _stated(tags, _SERIES), _stated(tags, _NUMBER)
    except InputError:
        return None
    except Exception:  # pydicom raises of all kinds for files that break the standard
        return None


def _stated(tags: Any, keyword: str) -> str:
    """Return a text as its file has it, which GDCM passes on likewise."""
    value = getattr(tags.get_item(keyword), "value", None)
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")
