"""Fetching the published files, only ever on the user's word; torch is not needed for it.

A file grows under the name ``<name>.part`` and takes up where a cut connection left it.  What came
from where, with its SHA-256, stands in ``downloads.json`` beside the files.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ... import __version__
from ...errors import DownloadError
from ...files import atomic, open_regular, read_json

CODE = "https://github.com/matanat/hide_and_seek"
HUB = "https://huggingface.co/matanatad/dae_verts"
# The two pickles are part of the authors' code; this is its commit of the paper.
COMMIT = "8b8c647c4d1434c94df696a405456902d741dbf2"
PICKLES = f"https://raw.githubusercontent.com/matanat/hide_and_seek/{COMMIT}/checkpoints"


@dataclass(frozen=True)
class PublishedFile:
    """A file to fetch, and the fewest and most bytes that it can have.

    Exact sizes and hashes were not to be had when this was written: hence bounds, which keep out an
    error page as well as an endless stream.
    """

    name: str
    address: str
    least: int
    most: int


CHECKPOINT = PublishedFile(
    # The averaged weights alone are 363 MB; beside them stand the raw ones and the optimiser's.
    "last.ckpt",
    f"{HUB}/resolve/main/last.ckpt",
    363_000_000,
    4_000_000_000,
)
CLASSIFIER = PublishedFile("classifier_lr.pkl", f"{PICKLES}/classifier_lr.pkl", 2_000, 100_000)
SCALER = PublishedFile("scaler.pkl", f"{PICKLES}/scaler.pkl", 4_000, 100_000)
PUBLISHED = (CHECKPOINT, CLASSIFIER, SCALER)


MEMORY = "downloads.json"
SECONDS = 30.0  # without a byte, before a connection counts as cut
BLOCK = 1 << 18

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fetched:
    """A complete file; ``known`` says whether its SHA-256 was compared with a remembered one."""

    path: Path
    bytes: int
    sha256: str
    known: bool


class _CutError(Exception):
    """The connection ended early."""


def fetch(source: PublishedFile, folder: Path, on_progress: OnProgress | None = None) -> Fetched:
    """Return the file in ``folder``, downloaded unless it is there already.

    ``on_progress(bytes, total)`` is called after each block; what it raises ends the fetching, and
    the next call goes on from there.  Raises DownloadError.
    """
    target = folder / source.name
    part = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _fetch_part(source, part, on_progress or (lambda done, total: None))
            _check_size(source, target, part.stat().st_size)
            sha256 = _sha256(part)
            _remember(folder, source, sha256=sha256)
            part.replace(target)
            return Fetched(target, target.stat().st_size, sha256, known=False)
        return _there_already(source, target)
    except OSError as error:
        raise DownloadError(target, f"cannot be written: {error.strerror or error}") from error


def _there_already(source: PublishedFile, target: Path) -> Fetched:
    size = target.stat().st_size
    _check_size(source, target, size)
    found, remembered = _sha256(target), _remembered(target.parent, source).get("sha256")
    if remembered not in (None, found):
        raise DownloadError(
            target,
            f"has changed since it was fetched: SHA-256 {found[:12]}... instead of"
            f" {remembered[:12]}...; delete it to fetch it again",
        )
    return Fetched(target, size, found, known=remembered is not None)


def _fetch_part(source: PublishedFile, part: Path, on_progress: OnProgress) -> None:
    """Go on until the file is complete, as long as every connection brings it further."""
    reached = -1
    while True:
        try:
            return _go_on(source, part, on_progress)
        except _CutError as cut:
            size = part.stat().st_size if part.exists() else 0
            if size <= reached or size == 0:
                raise DownloadError(part.with_suffix(""), _by_hand(source, str(cut))) from cut
            reached = size


def _go_on(source: PublishedFile, part: Path, on_progress: OnProgress) -> None:
    version = _remembered(part.parent, source).get("etag")
    have = part.stat().st_size if version and part.exists() else 0
    with _answer(source, part, have, version) as response:
        continued = have > 0 and response.status == http.client.PARTIAL_CONTENT
        done = have if continued else 0
        total = _total(response, done)
        if total is not None:
            _check_size(source, part.with_suffix(""), total)
        if not continued:
            _remember(part.parent, source, etag=_strong(response.headers.get("ETag")))
        with part.open("ab" if continued else "wb") as file:
            for block in _blocks(response):
                file.write(block)
                done += len(block)
                _check_size(source, part.with_suffix(""), max(done, source.least))
                on_progress(done, total or source.most)
    if total is not None and done < total:
        raise _CutError(f"the connection was cut after {done} of {total} bytes")


def _answer(source: PublishedFile, part: Path, have: int, version: str | None) -> Any:
    """Open the server's answer, from byte ``have`` on if it still has the same ``version``."""
    headers = {"User-Agent": f"hideseekseg/{__version__}", "Accept-Encoding": "identity"}
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    request = urllib.request.Request(source.address, headers=headers)
    opener = urllib.request.build_opener(NoDowngrade())
    try:
        return opener.open(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.unlink()
            return _answer(source, part, 0, None)
        cause = f"the server says {error.code} {error.reason}"
        raise DownloadError(part.with_suffix(""), _by_hand(source, cause)) from error
    except urllib.error.URLError as error:
        cause = getattr(error.reason, "strerror", None) or str(error.reason)
        raise _CutError(f"no connection: {cause}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(f"no connection: {error}") from error


class NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Nothing that was asked for over https comes by another way."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        url: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not url.lower().startswith("https:"):
            raise urllib.error.HTTPError(url, code, "leads to an unsafe address", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, url)


def _blocks(response: Any) -> Iterator[bytes]:
    try:
        while block := response.read(BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise _CutError("the connection was cut") from error


def _total(response: Any, start: int) -> int | None:
    """How many bytes the whole file has, where the server says so."""
    if response.status == http.client.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise _CutError("the server sends another part than the one asked for")
        return int(found[2])
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdecimal() else None


def _strong(etag: str | None) -> str | None:
    """Only a strong ETag promises that the bytes are the same."""
    return etag if etag and etag.startswith('"') else None


def _check_size(source: PublishedFile, path: Path, size: int) -> None:
    if not source.least <= size <= source.most:
        raise DownloadError(
            path,
            f"has {size} bytes where {source.least} to {source.most} are expected:"
            f" it is not what {source.address} should be",
        )


def _by_hand(source: PublishedFile, cause: str) -> str:
    return (
        f"cannot be fetched ({cause}); run the command again to go on, or fetch"
        f" {source.address} on a machine with a network, put it here and run the command again"
    )


def _remembered(folder: Path, source: PublishedFile) -> dict[str, Any]:
    """Return what is stored of a file from this very address."""
    known = _memory(folder).get(source.name, {})
    return known if known.get("address") == source.address else {}


def _remember(folder: Path, source: PublishedFile, **facts: str | None) -> None:
    known = {"address": source.address, **_remembered(folder, source), **facts}
    text = json.dumps({**_memory(folder), source.name: known}, indent=2) + "\n"
    with atomic(folder / MEMORY) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _memory(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MEMORY
    if not path.exists():
        return {}
    memory = read_json(path, error=DownloadError)
    if not isinstance(memory, dict) or not all(isinstance(v, dict) for v in memory.values()):
        raise DownloadError(path, "is not a list of downloads: delete it")
    return memory


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
