"""Fetching over a real connection to this machine: resumed, checked, remembered, never unasked."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import io
import json
import re
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hideseekseg.cli import weights as cli_published
from hideseekseg.cli.main import main
from hideseekseg.model.published import download as sources
from hideseekseg.model.published.download import (
    MEMORY,
    PUBLISHED,
    DownloadError,
    NoDowngrade,
    PublishedFile,
    fetch,
)

CONTENT = bytes(range(256)) * 4000


@dataclass
class Site:
    """A web site with one file: what it does wrong, and what it was asked."""

    content: bytes = CONTENT
    etag: str | None = '"v1"'
    cuts: list[int] = field(default_factory=list)  # bytes after which a connection is cut
    ranges: bool = True
    status: int = 200
    moved_to: str = ""
    length: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range
    address: str = ""

    def source(self, name: str = "last.ckpt") -> PublishedFile:
        return PublishedFile(name, f"{self.address}/{name}", 1000, 2_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers.get("Range")
        site.asked.append((self.path, wanted))
        if site.moved_to and not self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", site.moved_to)
            self.end_headers()
            return
        if site.status != 200:
            self.send_error(site.status)
            return
        start = self.start_of(wanted)
        if start >= len(site.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            whole = len(site.content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if site.length:
            self.send_header("Content-Length", str(len(site.content) - start))
        if site.etag:
            self.send_header("ETag", site.etag)
        self.end_headers()
        body = site.content[start:]
        self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

    def start_of(self, wanted: str | None) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        same = self.headers.get("If-Range") == self.site.etag
        return int(found[1]) if found and same and self.site.ranges else 0

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Site()
    handler = type("Own", (Handler,), {"site": made})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        made.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def remembered(folder: Path) -> dict[str, dict[str, str]]:
    memory: dict[str, dict[str, str]] = json.loads((folder / MEMORY).read_text("utf-8"))
    return memory


def test_file_is_fetched_and_its_hash_remembered(site: Site, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = fetch(site.source(), tmp_path / "new", lambda *a: told.append(a))
    assert found.path.read_bytes() == CONTENT
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (found.bytes, found.known) == (len(CONTENT), False)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert remembered(tmp_path / "new")["last.ckpt"] == {
        "address": site.source().address,
        "etag": '"v1"',
        "sha256": found.sha256,
    }
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [MEMORY, "last.ckpt"]


def test_complete_file_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    first = fetch(site.source(), tmp_path)
    again = fetch(site.source(), tmp_path)
    assert again == replace(first, known=True)
    assert len(site.asked) == 1


def test_cut_connections_are_taken_up_where_they_ended(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000, 1, 500_000]
    assert fetch(site.source(), tmp_path).path.read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == [
        *(None, "bytes=300000-", "bytes=300001-", "bytes=800001-")
    ]


def test_next_call_goes_on_where_the_last_one_was_ended(site: Site, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(site.source(), tmp_path, stop)
    part = (tmp_path / "last.ckpt.part").stat().st_size
    assert 0 < part < len(CONTENT)
    assert not (tmp_path / "last.ckpt").exists()
    assert fetch(site.source(), tmp_path).path.read_bytes() == CONTENT
    assert site.asked[-1][1] == f"bytes={part}-"


@pytest.mark.parametrize("change", ["content", "server", "address", "no version"])
def test_part_of_another_version_is_thrown_away(change: str, site: Site, tmp_path: Path) -> None:
    part, source = tmp_path / "last.ckpt.part", site.source()
    (tmp_path / MEMORY).write_text(
        json.dumps({"last.ckpt": {"address": source.address, "etag": '"v1"'}})
    )
    part.write_bytes(b"other" * 1000)
    if change == "content":
        site.etag = '"v2"'
    elif change == "server":
        site.ranges = False
    elif change == "address":
        source = replace(source, address=f"{site.address}/elsewhere")
    else:
        (tmp_path / MEMORY).unlink()
    assert fetch(source, tmp_path).path.read_bytes() == CONTENT


def test_part_that_is_complete_already(site: Site, tmp_path: Path) -> None:
    """As left by a crash between the last byte and the renaming."""
    site.cuts = [len(CONTENT) // 2]
    fetch(site.source(), tmp_path)
    (tmp_path / "last.ckpt").replace(tmp_path / "last.ckpt.part")
    assert fetch(site.source(), tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_nothing_is_pieced_together(
    etag: str | None, site: Site, tmp_path: Path
) -> None:
    site.etag, site.cuts = etag, [1000, 2000, 2000]
    with pytest.raises(DownloadError, match="cut after 2000 of 1024000 bytes"):
        fetch(site.source(), tmp_path)
    assert [wanted for _, wanted in site.asked] == [None, None, None]


def test_server_that_always_cuts_is_given_up(site: Site, tmp_path: Path) -> None:
    site.cuts = [5000, 0, 7]
    with pytest.raises(DownloadError) as caught:
        fetch(site.source(), tmp_path)
    assert "cut after 5000 of 1024000 bytes" in str(caught.value)
    assert "run the command again to go on" in str(caught.value)
    assert len(site.asked) == 2
    assert fetch(site.source(), tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_refusal_of_the_server_is_told(status: int, site: Site, tmp_path: Path) -> None:
    site.status = status
    with pytest.raises(DownloadError, match=f"the server says {status}") as caught:
        fetch(site.source(), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'last.ckpt'}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_size_that_cannot_be_is_refused(
    size: int, length: bool, site: Site, tmp_path: Path
) -> None:
    site.content, site.length = bytes(size), length
    with pytest.raises(DownloadError, match="1000 to 2000000 are expected"):
        fetch(site.source(), tmp_path)
    assert not (tmp_path / "last.ckpt").exists()


def test_file_without_a_declared_size(site: Site, tmp_path: Path) -> None:
    site.length = False
    assert fetch(site.source(), tmp_path).path.read_bytes() == CONTENT


def test_file_placed_by_hand_is_taken_and_a_changed_one_is_not(site: Site, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(CONTENT)
    assert fetch(site.source(), tmp_path).known is False
    assert site.asked == []
    (tmp_path / "last.ckpt").unlink()
    fetch(site.source(), tmp_path)
    (tmp_path / "last.ckpt").write_bytes(CONTENT[::-1])
    with pytest.raises(DownloadError, match="has changed since it was fetched"):
        fetch(site.source(), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"last.ckpt": 1}'])
def test_damaged_memory_is_named(text: str, site: Site, tmp_path: Path) -> None:
    (tmp_path / MEMORY).write_text(text)
    with pytest.raises(DownloadError, match=f"{MEMORY}: is not"):
        fetch(site.source(), tmp_path)


def test_file_that_moved_is_followed(site: Site, tmp_path: Path) -> None:
    site.moved_to, site.cuts = f"{site.address}/moved", [400_000]
    assert fetch(site.source(), tmp_path).path.read_bytes() == CONTENT
    assert site.asked[-1] == ("/moved", "bytes=400000-")


@pytest.mark.parametrize("moved_to", ["file:///etc/hostname", "ftp://127.0.0.1:1/x"])
def test_other_ways_than_the_web_are_not_followed(
    moved_to: str, site: Site, tmp_path: Path
) -> None:
    site.moved_to = moved_to
    with pytest.raises(DownloadError):
        fetch(site.source(), tmp_path)
    assert not (tmp_path / "last.ckpt").exists()


def test_nothing_secure_leads_to_an_insecure_address() -> None:
    asked = urllib.request.Request("https://127.0.0.1/last.ckpt")
    headers = http.client.HTTPMessage()
    with pytest.raises(urllib.error.HTTPError, match="unsafe"):
        NoDowngrade().redirect_request(
            asked, io.BytesIO(), 302, "Found", headers, "http://127.0.0.1/last.ckpt"
        )
    other = "https://127.0.0.2/last.ckpt"
    followed = NoDowngrade().redirect_request(asked, io.BytesIO(), 302, "Found", headers, other)
    assert followed is not None
    assert followed.full_url == other


def closed_address() -> str:
    """Nobody listens there: what a machine without a network sees."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_no_network_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    start, folder = closed_address(), tmp_path / "files"
    moved = tuple(replace(s, address=f"{start}/{s.name}") for s in PUBLISHED)
    monkeypatch.setattr(sources, "PUBLISHED", moved)
    assert main(["download-published", "--out", str(folder), "--yes"]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"hideseekseg: {folder / 'last.ckpt'}: cannot be fetched (no connection")
    assert f"fetch {moved[0].address} on a machine with a network, put it here" in err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n"])
def test_nothing_is_fetched_without_consent(
    answer: str,
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    own = tuple(replace(site.source(s.name), most=s.most) for s in PUBLISHED)
    monkeypatch.setattr(sources, "PUBLISHED", own)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert main(["download-published", "--out", str(tmp_path / "files")]) == 1
    out, err = capfd.readouterr()
    assert all(source.address in out for source in own)
    assert err == "nothing was fetched\n"
    assert site.asked == []
    assert not (tmp_path / "files").exists()


def test_consent_fetches_all_and_imports(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Here they are no weights, which the import says; what was fetched stays."""
    own = tuple(site.source(s.name) for s in PUBLISHED)
    monkeypatch.setattr(sources, "PUBLISHED", own)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["download-published", "--out", str(tmp_path)]) == 2
    out, err = capfd.readouterr()
    assert out.count(hashlib.sha256(CONTENT).hexdigest()) == 3
    assert err == (
        f"hideseekseg: {tmp_path / 'classifier_lr.pkl'}: is not an uncompressed pickle of protocol"
        " 2 to 5\n"
    )
    names = {MEMORY, *(source.name for source in own)}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len(remembered(tmp_path)) == 3


def test_weights_that_are_there_are_kept(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / cli_published.WEIGHTS).mkdir()
    assert main(["download-published", "--out", str(tmp_path), "--yes"]) == 2
    assert "is there already" in capfd.readouterr().err


def test_addresses_are_secure_and_of_the_authors() -> None:
    assert [s.name for s in PUBLISHED] == ["last.ckpt", "classifier_lr.pkl", "scaler.pkl"]
    for source in PUBLISHED:
        assert source.address.startswith("https://")
        assert re.search(r"/(matanatad/dae_verts|matanat/hide_and_seek)/", source.address)
        assert 0 < source.least < source.most
