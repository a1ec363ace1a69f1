"""Files that come from the browser: to a private folder, of the right kind, not too large."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from ..errors import InputError
from ..plain_data import printable, shortened

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".dcm", ".ima", "")
_HEAD = 512  # bytes that tell what a file is
KINDS = "NIfTI, NRRD, MHA or DICOM"
NO_IMAGE = f"is not a {KINDS} file"
MOST_LETTERS = 100  # of a file's name
MOST_FILES = 20_000
PATIENCE_SECONDS = 30.0  # without a byte
LEAST_RATE = 10_000  # bytes in a second, on average and after some patience
ROLES = ("ct", "vertebrae", "dicom")


@dataclass
class Uploads:
    """``folder`` is private to this session and removed with it.

    ``limit`` is in bytes, of all uploads together, whether they are finished or still coming.
    """

    folder: Path
    limit: int
    files: dict[str, Path] = field(default_factory=dict)
    _finished: dict[Path, int] = field(default_factory=dict)
    _coming: dict[object, int] = field(default_factory=dict)

    async def receive(self, request: web.Request) -> web.Response:
        """``PUT /upload/ROLE/NAME``: 200, or one line that says why not."""
        role, name = request.match_info["role"], request.match_info["name"]
        if role not in ROLES:
            return web.Response(status=404)
        shown = shortened(printable(name))
        path = self.folder
        try:
            path = self._place(role, name)
            size = await self._store(path, request)
        except InputError as error:
            path.unlink(missing_ok=True)
            if role == "dicom" and error.cause == NO_IMAGE:
                return web.Response(text="")  # a disc has other files as well: they are left out
            return web.Response(status=400, text=f"{shown}: {error.cause}")
        except OSError as error:
            if path != self.folder:
                path.unlink(missing_ok=True)
            return web.Response(status=507, text=f"{shown}: cannot be kept: {error.strerror}")
        if not path.exists():
            return web.Response(status=409, text=f"{shown}: another file has taken its place")
        self._finished[path] = size
        self.files[role] = path.parent if role == "dicom" else path
        return web.Response(text=shown)

    def forget(self, role: str) -> None:
        """Make room: another file of this role is about to come, or none is needed any more."""
        self.files.pop(role, None)
        shutil.rmtree(self.folder / role, ignore_errors=True)
        self._finished = {path: n for path, n in self._finished.items() if path.parent.name != role}

    def take(self, ct: Path, vertebrae: Path) -> tuple[Path, Path]:
        """Move those that were uploaded out of the way of the next upload; return where they are.

        They stay private, and are gone with the folder above.
        """

        def taken(path: Path) -> Path:
            if not path.is_relative_to(self.folder):
                return path
            kept = Path(tempfile.mkdtemp(prefix="scan-", dir=self.folder.parent))
            return path.rename(kept / path.name)

        return taken(ct), taken(vertebrae)

    def drop(self, keep: Iterable[Path]) -> None:
        """Remove what was taken before, but for the files (or folders) of the present scan."""
        used = {path.parent for path in keep}
        for folder in self.folder.parent.glob("scan-*"):
            if folder not in used:
                shutil.rmtree(folder, ignore_errors=True)

    def _place(self, role: str, name: str) -> Path:
        """Return where to keep a file, its name without anything that could lead elsewhere."""
        plain = re.sub(r"[^\w.() +-]", "_", Path(name.replace("\\", "/")).name)
        plain = plain[-MOST_LETTERS:].lstrip(".") or "file"
        if role != "dicom":
            self.forget(role)
        (self.folder / role).mkdir(parents=True, exist_ok=True)
        path = self.folder / role / plain
        number = 1
        while path.exists():
            path, number = path.with_name(f"{number}-{plain}"), number + 1
        return path

    async def _store(self, path: Path, request: web.Request) -> int:
        """Write what comes to a file; return its bytes."""
        if len(self._finished) + len(self._coming) >= MOST_FILES:
            raise InputError(path, f"is one file too many: {MOST_FILES} is the limit")
        too_large = InputError(path, f"is too large: {self.limit / 2**20:.0f} MB is the limit")
        if (request.content_length or 0) + self._used() > self.limit:
            raise too_large
        upload, head = object(), b""
        self._coming[upload] = 0
        try:
            with path.open("xb") as file:
                async for chunk in _chunks(request, path):
                    head = head if len(head) >= _HEAD else (head + chunk)[:_HEAD]
                    self._coming[upload] += len(chunk)
                    if self._used() > self.limit:
                        raise too_large
                    file.write(chunk)
            if not _is_image(path, head):
                raise InputError(path, NO_IMAGE)
            return self._coming[upload]
        finally:
            del self._coming[upload]

    def _used(self) -> int:
        return sum(self._finished.values()) + sum(self._coming.values())


async def _chunks(request: web.Request, path: Path) -> AsyncIterator[bytes]:
    """Yield the body as it comes; raises InputError where it stalls or trickles."""
    clock = asyncio.get_running_loop().time
    began, size = clock(), 0
    while True:
        try:
            chunk = await asyncio.wait_for(request.content.read(2**18), PATIENCE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            raise InputError(path, "comes too slowly") from None
        if not chunk:
            return
        size += len(chunk)
        if size < LEAST_RATE * (clock() - began - PATIENCE_SECONDS):
            raise InputError(path, "comes too slowly")
        yield chunk


def _is_image(path: Path, head: bytes) -> bool:
    """By name and by content; what is broken further in is found when it is read."""
    name = path.name.lower()
    if not any(name.endswith(suffix) for suffix in SUFFIXES if suffix) and "." in name:
        return False
    return (
        head[:2] == b"\x1f\x8b"
        or head[344:347] in (b"n+1", b"ni1", b"n+2")
        or head[4:7] in (b"n+2", b"ni2")
        or head[:4] == b"NRRD"
        or b"ObjectType" in head
        or head[128:132] == b"DICM"
    )
