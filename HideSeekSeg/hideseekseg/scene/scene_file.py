"""Read a saved scene (.mrb) that may come from anybody: only the files inside it are opened.

Slicer's own reader unpacks without a check and follows whatever a storage node names, an address on
the network and a file elsewhere on the disk included.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import slicer

from ..archives import ArchiveLimits, unpack
from ..errors import InputError
from ..files import temporary_folder
from ..imaging.text_headers import check_text_header, is_text_header

LIMITS = ArchiveLimits(members=5_000, total_bytes=16 << 30)
MOST_SCENE_BYTES = 256 << 20  # of the scene's own description
_FILE = re.compile(r"(file(name|listmember\d*))", re.IGNORECASE)
_ADDRESS = re.compile(r"uri|url", re.IGNORECASE)


def read_scene(path: Path, before: Callable[[], None] = lambda: None) -> None:
    """Add a saved scene to the present one; ``before`` is called once the file is found good.

    Raises InputError, and then nothing was changed, where the file is no scene, names files outside
    itself, or holds images with damaged headers.  Network addresses in it are dropped.
    """
    with checked_scene(path) as description:
        before()
        scene = slicer.mrmlScene
        place = scene.GetURL() or "", scene.GetRootDirectory() or ""
        try:
            scene.SetURL(str(description))
            scene.SetRootDirectory(str(description.parent))
            if not scene.Import():
                raise InputError(path, "is a damaged scene of Slicer")
        finally:
            scene.SetURL(place[0])
            scene.SetRootDirectory(place[1])


@contextmanager
def checked_scene(path: Path) -> Iterator[Path]:
    """Unpack a scene to a folder that lasts as long as the block; yield its description (.mrml)."""
    if not path.is_file():
        raise InputError(path, "does not exist")
    if not zipfile.is_zipfile(path):
        raise InputError(path, "is not a scene of Slicer (.mrb)")
    with temporary_folder(purpose="scene") as folder:
        inside = folder.resolve()
        files = unpack(path, inside, LIMITS)
        descriptions = [file for file in files if file.suffix.lower() == ".mrml"]
        if len(descriptions) != 1:
            raise InputError(path, "is not a scene of Slicer: it holds no single .mrml file")
        _check_description(path, descriptions[0], inside)
        for file in files:
            if is_text_header(file):
                _check_image(path, file)
        yield descriptions[0]


def _check_image(path: Path, file: Path) -> None:
    try:
        check_text_header(file)
    except InputError as error:
        raise InputError(path, f"holds the damaged image {file.name}: {error.cause}") from error


def _check_description(path: Path, description: Path, inside: Path) -> None:
    """Refuse what names anything outside the archive; take addresses away, the files are here."""
    if description.stat().st_size > MOST_SCENE_BYTES:
        raise InputError(path, "is refused: its description is too large")
    content = description.read_bytes()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise InputError(path, "is refused: its description declares XML entities")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise InputError(path, f"is a damaged scene of Slicer: {error}") from error
    changed = False
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if _ADDRESS.search(name):
                del element.attrib[name]
                changed = True
            elif _FILE.fullmatch(name) and value:
                _check_name(path, description.parent, inside, value)
    if changed:
        description.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _check_name(path: Path, base: Path, inside: Path, value: str) -> None:
    for name in {value, unquote(value)}:
        if "://" in name or not (base / name).resolve().is_relative_to(inside):
            raise InputError(path, f"is refused: it names {name[:80]!r}, which lies outside it")
