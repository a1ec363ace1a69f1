"""Files that come from the browser: to a private folder, of the right kind, not too large."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from ..errors import InputError

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".dcm", ".ima", "")
_HEAD = 512  # bytes that tell what a file is
KINDS = "NIfTI, NRRD, MHA or DICOM"
ROLES = ("ct", "vertebrae", "dicom")


@dataclass
class Uploads:
    """``folder`` is private to this session and removed with it; ``limit`` in bytes, in all."""

    folder: Path
    limit: int
    files: dict[str, Path] = field(default_factory=dict)

    async def receive(self, request: web.Request) -> web.Response:
        """``PUT /upload/ROLE/NAME``: 200, or one line that says why not."""
        role, name = request.match_info["role"], request.match_info["name"]
        if role not in ROLES:
            return web.Response(status=404)
        path = self._place(role, name)
        try:
            await self._store(path, request)
        except InputError as error:
            path.unlink(missing_ok=True)
            return web.Response(status=400, text=f"{name}: {error.cause}")
        except OSError as error:
            path.unlink(missing_ok=True)
            return web.Response(status=507, text=f"{name}: cannot be kept: {error.strerror}")
        self.files[role] = path.parent if role == "dicom" else path
        return web.Response(text=name)

    def forget(self, role: str) -> None:
        """Make room: another file of this role is about to come, or none is needed any more."""
        self.files.pop(role, None)
        shutil.rmtree(self.folder / role, ignore_errors=True)

    def _place(self, role: str, name: str) -> Path:
        """Return where to keep a file, its name without anything that could lead elsewhere."""
        plain = (
            re.sub(r"[^\w.() +-]", "_", Path(name.replace("\\", "/")).name).lstrip(".") or "file"
        )
        if role != "dicom":
            self.forget(role)
        (self.folder / role).mkdir(parents=True, exist_ok=True)
        path = self.folder / role / plain
        number = 1
        while path.exists():
            path, number = path.with_name(f"{number}-{plain}"), number + 1
        return path

    async def _store(self, path: Path, request: web.Request) -> None:
        room = self.limit - sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file())
        too_large = InputError(path, f"is too large: {self.limit / 2**20:.0f} MB is the limit")
        if (request.content_length or 0) > room:
            raise too_large
        size, head = 0, b""
        with path.open("xb") as file:
            async for chunk in request.content.iter_chunked(2**18):
                if size < _HEAD:
                    head = (head + chunk)[:_HEAD]
                size += len(chunk)
                if size > room:
                    raise too_large
                file.write(chunk)
        if not _is_image(path, head):
            raise InputError(path, f"is no {KINDS} file")


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
