"""The server in the browser's tests: who is let in, what may be read, what is broken or stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import app
from helpers.app import A_SECOND_LATE, PATIENCE, Served, Tab, open_tab
from helpers.child_processes import gone, needs_proc, standing_by
from hideseekseg.imaging.volume import Volume
from hideseekseg.web.uploads import PATIENCE_SECONDS


@dataclass
class Opened:
    served: Served
    browser: Any
    tab: Tab
    idle: list[Future[tuple[bytes, float]]]  # connections that ask for nothing whole


def connect(served: Served) -> socket.socket:
    host, _, port = served.origin.partition("://")[2].partition(":")
    return socket.create_connection((host, int(port)), timeout=2 * PATIENCE_SECONDS)


def kept_open(served: Served, begin: bytes) -> tuple[bytes, float]:
    """Connect and say no more than ``begin``; return the answer, and seconds until the end."""
    began = time.monotonic()
    with connect(served) as made:
        made.sendall(begin)
        return made.recv(1000), time.monotonic() - began


@pytest.fixture(scope="module")
def opened(
    box_files: tuple[Path, Path], slow_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    """Three boxes of bone, and weights slow enough to be stopped; at most 2 MB may be uploaded."""
    app.need_all()
    out = tmp_path_factory.mktemp("out")
    words = [*map(str, box_files), "--labels", "totalsegmentator", "--weights", str(slow_weights)]
    words += ["--out", str(out), "--upload-mb", "2", "--threshold", "0"]
    with app.browser() as browser, app.serve(*words) as served, ThreadPoolExecutor(2) as beside:
        begun = (b"", b"GET /index.html HTTP/1.1\r\nHost: a")
        idle = [beside.submit(kept_open, served, begin) for begin in begun]
        tab = open_tab(browser, served.url)
        yield Opened(served, browser, tab, idle)
        assert tab.complaints == []


def answer(
    url: str, headers: dict[str, str] | None = None, method: str = "GET", data: bytes = b"x"
) -> int:
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    body = None if method == "GET" else data
    try:
        with urllib.request.urlopen(request, body, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def cookie(opened: Opened) -> str:
    [found] = opened.tab.page.context.cookies()
    assert found["httpOnly"] and found["sameSite"] == "Strict"
    return f"{found['name']}={found['value']}"


@pytest.mark.parametrize("path", ["/", "/index.html", "/ws", "/vue.global.js", "/saved/a.csv"])
def test_without_the_token_nothing_is_answered(opened: Opened, path: str) -> None:
    origin = opened.served.origin
    assert answer(origin + path) == 403
    assert answer(f"{origin}{path}?token=guessed") == 403
    assert answer(origin + path, {"Cookie": "hideseekseg=guessed"}) == 403


def test_uploads_and_comments_need_the_token_as_well(opened: Opened) -> None:
    assert answer(f"{opened.served.origin}/upload/ct/a.nii", method="PUT") == 403
    assert answer(f"{opened.served.origin}/comment", method="POST", data=b'["", "", 1, "a"]') == 403


@pytest.mark.parametrize(
    "comment",
    ["", "5", "[]", '["", "", 1]', '["", "", "1", ""]', '[{}, "", 1, ""]', "{}", "[" * 9999],
)
def test_a_comment_of_another_form_is_refused(opened: Opened, comment: str) -> None:
    before, right = len(opened.served.said), {"Cookie": cookie(opened)}
    assert answer(f"{opened.served.origin}/comment", right, "POST", comment.encode()) == 400
    assert opened.served.said[before:] == []


def test_foreign_pages_and_names_are_refused(opened: Opened) -> None:
    right, origin = {"Cookie": cookie(opened)}, opened.served.origin
    assert answer(f"{origin}/index.html", right) == 200
    assert answer(f"{origin}/index.html", {**right, "Host": "evil.example"}) == 403
    assert answer(f"{origin}/ws", {**right, "Origin": "http://evil.example"}) == 403


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "[::1"}, {400, 403}),
        ({"Host": "127.0.0.1:99999999"}, {400, 403}),
        ({"Host": "a" * 5000}, {400, 403}),
        ({"Host": "127.0.0.1:\x85"}, {400, 403}),
        ({"Cookie": "=;;\x7f" + "a" * 3000}, {400, 403}),
        ({"Cookie": 'hideseekseg-1="\\377\\"; $Version=x'}, {403}),
        ({"Origin": "https://{host}"}, {403}),
        ({"Origin": "file://{host}"}, {403}),
        ({"Origin": "null"}, {403}),
        ({"Origin": "http://{host}"}, {200}),
    ],
)
def test_odd_hosts_cookies_and_origins_are_refused(
    opened: Opened, headers: dict[str, str], expected: set[int]
) -> None:
    host = opened.served.origin.partition("://")[2]
    sent = {"Cookie": cookie(opened)} | {k: v.format(host=host) for k, v in headers.items()}
    before = len(opened.served.said)
    assert answer(f"{opened.served.origin}/index.html", sent) in expected
    assert opened.served.said[before:] == [], "nothing is printed, no traceback either"


def test_uploads_at_the_same_time_share_the_limit(opened: Opened) -> None:
    """Each announces no length; together they would be 6 MB where 2 MB are allowed."""
    port = opened.served.origin.rpartition(":")[2]
    sockets = []
    for number in range(4):
        made = connect(opened.served)
        made.sendall(
            f"PUT /upload/dicom/{number} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Cookie: {cookie(opened)}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        sockets.append(made)
    part = b"\x1f\x8b" + bytes(1_500_000)
    answers = []
    for made in sockets:
        with contextlib.suppress(OSError):
            made.sendall(b"%x\r\n%s\r\n" % (len(part), part))
    for made in sockets:
        with contextlib.suppress(OSError):
            made.sendall(b"0\r\n\r\n")
        with contextlib.suppress(OSError):
            answers.append(made.recv(4000).split(b" ")[1])
        made.close()
    assert b"400" in answers and answers.count(b"200") <= 1
    stored = opened.served.private.rglob("uploads/*/*")
    assert sum(path.stat().st_size for path in stored) <= 2 * 2**20


@needs_proc
@pytest.mark.parametrize("end", ["Ctrl-C", "kill -9"])
def test_process_that_stands_by_ends_with_the_server(
    box_files: tuple[Path, Path], end: str
) -> None:
    app.need_all()
    with app.serve(*map(str, box_files), "--labels", "totalsegmentator") as served:
        limit = time.monotonic() + 60
        while not (ready := standing_by(served.process.pid)):
            assert time.monotonic() < limit, "no process stands by"
            time.sleep(0.05)
        if end == "Ctrl-C":
            served.stop()
        else:
            served.process.kill()
        while not all(gone(pid) for pid in ready):
            assert time.monotonic() < limit, "it outlived the server"
            time.sleep(0.05)


def test_name_of_5000_letters_is_no_trouble(opened: Opened) -> None:
    right = {"Cookie": cookie(opened)}
    url = f"{opened.served.origin}/upload/ct/{'a' * 5000}.nii"
    assert answer(url, right, "PUT") in (200, 400)


@pytest.mark.skipif(os.name == "nt", reason="needs a script as browser")
def test_token_is_not_among_the_words_of_the_browser_that_is_opened(
    box_files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Other users see a process's words: what stands there lets in once."""
    app.need_all()
    (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    (tmp_path / "browser").chmod(0o755)
    with app.serve(*map(str, box_files), browser=str(tmp_path / "browser")) as served:
        end = time.monotonic() + PATIENCE / 1000
        while not (tmp_path / "opened").exists() or not (tmp_path / "opened").read_text():
            assert time.monotonic() < end, "no browser was opened"
            time.sleep(0.05)
        url = (tmp_path / "opened").read_text().strip()
        assert url.startswith(served.origin)
        assert served.url.partition("token=")[2] not in url
        assert enter(url) == 303
        assert enter(url) == 403
        assert enter(served.url) == 303


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *words: Any, **options: Any) -> None:
        return None


def enter(url: str) -> int:
    try:
        with urllib.request.build_opener(NoRedirect).open(url, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "path",
    [
        "/saved/..%2f..%2fetc%2fpasswd",
        "/../../../etc/passwd",
        "/hideseekseg/..%2f..%2fapp.py",
        "/hideseekseg/../app.py",
        "//etc/passwd",
    ],
)
def test_no_other_file_can_be_read(opened: Opened, path: str) -> None:
    assert answer(opened.served.origin + path, {"Cookie": cookie(opened)}) in (403, 404)


def test_it_listens_on_this_computer_alone(opened: Opened) -> None:
    assert opened.served.url.startswith("http://127.0.0.1:")
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("needs Linux to look")
    port = f":{int(opened.served.origin.rpartition(':')[2]):04X}"
    local = [line.split()[1] for line in table.read_text().splitlines()[1:]]
    assert {address for address in local if address.endswith(port)} == {f"0100007F{port}"}


def upload(tab: Tab, ct: Path | None, vertebrae: Path | None) -> None:
    tab.page.click("text=Open…")
    for selector, file in (("#ct-file", ct), ("#vertebrae-file", vertebrae)):
        tab.page.set_input_files(selector, [str(file)] if file else [])
    tab.page.click("#open-load")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"no image at all", "notes.txt: is not a NIfTI, NRRD, MHA or DICOM file"),
        ("page.nii", b"<html>" * 200, "page.nii: is not a NIfTI, NRRD, MHA or DICOM file"),
        ("large.nii.gz", b"\x1f\x8b" + bytes(3 * 2**20), "larger than the limit of 2 MB"),
    ],
)
def test_what_is_no_scan_is_refused_with_one_line(
    opened: Opened, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path, tab = tmp_path / name, opened.tab
    path.write_bytes(content)
    before = len(tab.complaints)
    upload(tab, path, None)
    tab.page.wait_for_selector("#open-error:not([hidden])", timeout=PATIENCE)
    assert said in tab.text("#open-error")
    assert "\n" not in tab.text("#open-error")
    tab.page.click("#open-dialog [data-close]")
    # The browser itself notes that an upload was answered with 400; nothing else may complain.
    assert all("400" in text for text in tab.complaints[before:])
    del tab.complaints[before:]


def test_broken_file_gives_one_line_and_the_old_scan_stays(
    opened: Opened, box_files: tuple[Path, Path], tmp_path: Path
) -> None:
    broken, tab = tmp_path / "broken.nii.gz", opened.tab
    data = box_files[0].read_bytes()
    broken.write_bytes(data[: len(data) // 2])
    upload(tab, broken, box_files[1])
    tab.page.wait_for_selector("#message.error", timeout=PATIENCE)
    said = tab.text("#message span")
    assert said.startswith("broken.nii.gz: ") and "\n" not in said and str(tmp_path) not in said
    assert tab.text(".patient") == "ct"
    assert not [p for p in opened.served.private.rglob("uploads/*/*")], "uploads pile up"


def reading_processes(served: Served) -> list[Path]:
    """Child processes of the server that read files, as folders of /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == served.process.pid and b"spawn_main" in (
                status.with_name("cmdline").read_bytes()
            ):
                found.append(status.parent)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_server_outlives_a_file_that_crashes_its_reader(
    opened: Opened, box_files: tuple[Path, Path]
) -> None:
    """The signal is what ITK's own mistakes over damaged files raise."""
    tab = opened.tab
    upload(tab, *box_files)
    end = time.monotonic() + PATIENCE / 1000
    while not (found := reading_processes(opened.served)):
        assert time.monotonic() < end, "no process reads the files"
    os.kill(int(found[0].name), signal.SIGSEGV)
    # The message of an earlier file may still be there.
    tab.until("() => document.querySelector('#message span')?.innerText.includes('crashed')")
    said = tab.text("#message span")
    assert "crashed the process that read it" in said and "\n" not in said
    assert opened.served.process.poll() is None
    assert tab.text(".patient") == "ct", "the scan that was open stays"
    tab.page.click("#message .plain")
    while reading_processes(opened.served):
        assert time.monotonic() < end, "the other file is read on"


def test_uploaded_scan_is_loaded(opened: Opened, box_files: tuple[Path, Path]) -> None:
    tab = opened.tab
    upload(tab, *box_files)
    tab.until(
        "() => document.querySelector('.levels summary').innerText.includes('none recognised')"
    )
    tab.page.wait_for_selector("#segment[disabled]", timeout=PATIENCE)
    tab.page.select_option("#convention", "totalsegmentator")
    tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
    assert "T11 to L1" in tab.text(".levels summary")


def test_levels_can_be_corrected(opened: Opened) -> None:
    tab = opened.tab
    first = tab.page.locator("#levels tr").last.locator("select").first
    first.select_option("T10")
    tab.until("() => document.querySelector('.levels summary').innerText.includes('T10 to L1')")
    first.select_option("T11")
    tab.until("() => document.querySelector('.levels summary').innerText.includes('T11 to L1')")


@pytest.mark.slow
def test_cancel_keeps_what_is_finished(opened: Opened) -> None:
    tab = opened.tab
    tab.page.click("#segment")
    tab.page.wait_for_selector("#candidates tbody tr", timeout=PATIENCE)
    tab.page.click("#cancel")
    tab.page.wait_for_selector("#segment", timeout=PATIENCE)
    said = tab.text("#message span")
    assert said.startswith("Stopped. Kept: T11")
    assert tab.text("#quiet").count("Stopped before: ") == 1
    assert {cells[0] for cells in tab.rows()} <= {"T11", "T12"}
    assert tab.rows()


def test_filters_and_threshold_narrow_the_list(opened: Opened) -> None:
    tab = opened.tab
    everything = tab.rows()
    tab.page.select_option("#filter-type", "lytic")
    wanted = [cells for cells in everything if cells[1] == "lytic"]
    tab.until_rows(len(wanted))
    assert tab.rows() == wanted
    tab.page.select_option("#filter-type", "")
    tab.until_rows(len(everything))


def test_second_tab_shows_the_same_session(opened: Opened) -> None:
    other = open_tab(opened.browser, opened.served.url, "#candidates tbody tr")
    assert other.rows() == opened.tab.rows()
    opened.tab.choose_first()
    opened.tab.press("x")
    other.until("() => document.querySelectorAll('#candidates tr.rejected').length === 1")
    assert other.complaints == []
    other.page.context.close()
    # As where the news that there is something to undo is still on its way to this tab.
    opened.tab.page.evaluate("document.querySelector('[data-action=undo]').disabled = true")
    opened.tab.press("u")
    opened.tab.until("() => document.querySelectorAll('#candidates tr.rejected').length === 0")


# The browser reads a long message more slowly than a short one that comes after it.
LONG_READ_SLOWLY = """
const read = Blob.prototype.arrayBuffer;
Blob.prototype.arrayBuffer = async function () {
  const content = await read.call(this);
  await new Promise((resolve) => setTimeout(resolve, this.size > 20000 ? 1500 : 0));
  return content;
};
"""
TWO_ACCEPTED = "() => document.querySelectorAll('#candidates tr.accepted').length === 2"
REJECTED = "([n]) => document.querySelectorAll('#candidates tr.rejected').length === n"


def choose_none(tab: Tab) -> None:
    """What is chosen is filtered away, and the filter taken back."""
    for wanted in ("accepted", ""):
        tab.page.select_option("#filter-verdict", wanted)
        tab.until("([wanted]) => window.trame.state.get('wanted').verdict === wanted", wanted)
    tab.until_state("current", "")


def test_no_key_is_lost_where_the_page_is_later_than_the_session(opened: Opened) -> None:
    tab = opened.tab
    choose_none(tab)
    late = open_tab(opened.browser, opened.served.url, "#candidates tbody tr", A_SECOND_LATE)
    late.until_state("current", "")
    late.page.locator("#candidates tbody tr").first.click()
    late.press("c")
    late.page.keyboard.type("at once")
    late.press("Enter")
    late.press("x")
    late.press("n")
    late.press("u")
    late.press("Shift+U")
    tab.until(REJECTED, 1)
    tab.until_state("comment", "at once")
    late.press("u")
    late.press("u")
    tab.until(REJECTED, 0)
    tab.until_state("comment", "")
    tab.until_state("can_undo", False)
    late.until_state("can_undo", False)
    assert late.complaints == []
    late.page.context.close()


def test_comment_without_a_finding_is_refused(opened: Opened) -> None:
    tab = opened.tab
    choose_none(tab)
    tab.press("c")
    tab.page.keyboard.type("on nothing")
    tab.press("Enter")
    tab.until("() => document.querySelector('#message')?.innerText.includes('Choose a finding')")
    tab.until("() => document.querySelector('#comment').value === ''")
    tab.page.click("#message .plain")


def test_long_message_is_not_overtaken(opened: Opened) -> None:
    """The evidence of a finding is a long message, that nothing is chosen any more a short one."""
    slow = open_tab(opened.browser, opened.served.url, "#candidates tbody tr", LONG_READ_SLOWLY)
    slow.page.locator("#candidates tbody tr").first.click()
    choose_none(slow)
    slow.page.wait_for_timeout(2500)
    assert slow.page.query_selector("#strip img") is None
    assert slow.state("strip") == []
    slow.page.context.close()


def test_second_run_asks_before_it_replaces_verdicts(opened: Opened) -> None:
    tab = opened.tab
    tab.choose_first()
    tab.press("a")
    tab.until("() => document.querySelectorAll('#candidates tr.accepted').length === 1")
    tab.page.click("#segment")
    tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
    assert "A new run replaces this review, which is not saved" in tab.text("#question")
    assert "1 accepted" in tab.text("#question")
    tab.page.click("#answer-no")
    tab.page.wait_for_selector("#question-dialog:not([open])", state="attached", timeout=PATIENCE)
    assert tab.page.query_selector("#cancel") is None
    tab.page.click("text=Open…")
    tab.page.click("#open-example")
    tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
    assert "Opening the example discards the verdicts" in tab.text("#question")
    tab.press("Escape")
    tab.page.wait_for_selector("#question-dialog:not([open])", state="attached", timeout=PATIENCE)
    assert tab.text(".patient") == "ct" and tab.text("#summary").count("1 accepted") == 1
    tab.press("u")
    tab.until("() => document.querySelectorAll('#candidates tr.accepted').length === 0")


def test_early_cancel_of_a_second_run_leaves_the_first_review(opened: Opened) -> None:
    tab, before = opened.tab, opened.tab.rows()
    tab.choose_first()
    tab.press("a")
    tab.until("() => document.querySelectorAll('#candidates tr.accepted').length === 1")
    tab.page.click("#segment")
    tab.page.click("#answer-yes")
    tab.page.wait_for_selector("#cancel", timeout=PATIENCE)
    tab.until("() => !document.querySelector('#candidates')")
    tab.page.click("#cancel")
    tab.page.wait_for_selector("#segment", timeout=PATIENCE)
    tab.until("() => document.querySelectorAll('#candidates tr.accepted').length === 1")
    assert len(tab.rows()) == len(before)
    assert "No vertebra was finished" in tab.text("#message span")
    tab.press("u")
    tab.until("() => document.querySelector('#candidates td.status')?.innerText === 'to review'")
    assert tab.rows() == before


@pytest.mark.slow
def test_run_after_a_stopped_one_has_all_verdicts(
    opened: Opened, box_files: tuple[Path, Path], slow_weights: Path, tmp_path: Path
) -> None:
    """Also those of vertebrae that the stopped one did not reach."""
    words = [*map(str, box_files), "--labels", "totalsegmentator", "--weights", str(slow_weights)]
    words += ["--out", str(tmp_path), "--threshold", "0"]
    with app.serve(*words) as served:
        tab = open_tab(opened.browser, served.url)
        tab.page.click("#segment")
        tab.until_state("running", True)
        tab.until_state("running", False)
        for level, key in (("T11", "a"), ("L1", "a"), ("T12", "x")):
            tab.choose(level, "lytic")
            tab.press(key)
        tab.until(REJECTED, 1)
        tab.until(TWO_ACCEPTED)
        tab.page.click("#segment")
        tab.page.click("#answer-yes")
        tab.until("() => (window.trame.state.get('summary') || '').startsWith('1 vertebra,')")
        tab.page.click("#cancel")
        tab.until_state("running", False)
        kept = re.search("verdicts kept for (T12, )?L1$", tab.text("#summary"))
        assert kept, tab.text("#summary")
        tab.page.click("#segment")
        tab.page.wait_for_selector("#question-dialog[open]", timeout=PATIENCE)
        assert kept[0] in tab.text("#question")
        tab.page.click("#answer-yes")
        tab.until_state("running", True)
        tab.until_state("running", False)
        tab.until(REJECTED, 1)
        tab.until(TWO_ACCEPTED)
        judged = {(row[0], row[5]) for row in tab.rows() if row[5] != "to review"}
        assert judged == {("T11", "✓ accepted"), ("L1", "✓ accepted"), ("T12", "✗ rejected")}
        assert "kept for" not in tab.text("#summary")
        assert tab.complaints == []
        tab.page.context.close()


@pytest.mark.slow
def test_findings_are_out_of_date_after_a_changed_level(opened: Opened, tmp_path: Path) -> None:
    """They say so, and that vertebra alone is run again; what was said goes with it."""
    tab = opened.tab
    tab.choose("T11", "lytic")
    tab.press("a")
    tab.until("() => document.querySelectorAll('#candidates tr.accepted').length === 1")
    others = [cells for cells in tab.rows() if cells[0] != "T11"]
    assert len(others) < len(tab.rows())
    tab.page.click(".levels summary")
    level = tab.page.locator("#levels tr").last.locator("select").first
    level.select_option("T10")
    tab.page.wait_for_selector("#outdated", timeout=PATIENCE)
    assert "findings of T11 are out of date" in tab.text("#outdated")
    struck = (
        "rows => rows.map(r => [r.cells[0].innerText.trim(), r.classList.contains('outdated')])"
    )
    seen = tab.page.eval_on_selector_all("#candidates tbody tr", struck)
    assert all(is_struck == (name == "T11") for name, is_struck in seen)
    tab.page.locator("#candidates tbody tr.outdated").first.click()
    tab.until("() => document.querySelector('#detail').innerText.includes('out of date')")
    level.select_option("T11")
    tab.page.wait_for_selector("#outdated", state="detached", timeout=PATIENCE)
    level.select_option("T10")
    tab.page.wait_for_selector("#again", timeout=PATIENCE)
    assert tab.text("#again") == "Run T10 again"
    tab.page.click("#again")
    tab.page.wait_for_selector("#cancel", timeout=PATIENCE)
    tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
    tab.page.wait_for_selector("#outdated", state="detached", timeout=PATIENCE)
    rows = tab.rows()
    assert {cells[0] for cells in rows} >= {"T10"} and "T11" not in {cells[0] for cells in rows}
    assert [cells for cells in rows if cells[0] != "T10"] == others
    assert [cells[:2] for cells in rows if "accepted" in cells[5]] == [["T10", "lytic"]]
    said = tab.text("#message span")
    assert said == f"Done: {tab.text('#summary')}.", "it counts what is there, and nothing else"
    assert "1 accepted" in said
    tab.press("e")
    tab.page.fill("#save-folder", str(tmp_path / "saved"))
    tab.page.click("#save-now")
    tab.page.wait_for_selector(".links a", timeout=PATIENCE)
    lines = (tmp_path / "saved" / "accepted.csv").read_text("utf-8").splitlines()
    assert len(lines) == 2 and ",T10," in lines[1] and "out of date" not in lines[1]


@pytest.mark.slow
def test_vertebrae_that_change_places_are_run_together(opened: Opened, tmp_path: Path) -> None:
    """What was said and drawn goes with each.

    That nothing changes where one of them is missing, as after a stop, is a test of the panel,
    which can tell a run when to go on.
    """
    tab, drawn = opened.tab, "() => document.querySelectorAll('#candidates tr.accepted').length"
    tab.page.click("#segment")
    tab.page.wait_for_selector("#cancel", timeout=PATIENCE)
    tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
    tab.choose("T12", "lytic")
    tab.press("x")
    tab.until(REJECTED, 1)
    tab.press("m")
    tab.page.select_option("#missed-level", "T12")
    tab.page.click("#missed-add")
    tab.until(f"() => ({drawn})() === 2")
    tab.until_state("tool", "draw")
    box = tab.page.locator(".axial").bounding_box()
    tab.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    tab.page.mouse.up()
    size = "() => document.querySelector('#candidates tr.chosen td:nth-child(5)').innerText"
    tab.until(f"() => Number(({size})()) > 0")
    volume = tab.page.evaluate(size)
    tab.page.click("[data-tool=crosshair]")
    tab.page.click(".levels summary")
    levels = tab.page.locator("#levels tr")
    for row, level in ((0, "L2"), (1, "L1"), (2, "T12")):
        levels.nth(row).locator("select").first.select_option(level)
        tab.until(
            "([n, level]) => window.trame.state.get('levels')[n].choice === level", row, level
        )
    again = "Run T12, L1, L2 again"
    tab.until("([text]) => document.querySelector('#again').innerText === text", again)
    assert "findings of T10, T12, L1 are out of date" in tab.text("#outdated")
    tab.page.click("#again")
    tab.page.wait_for_selector("#cancel", timeout=PATIENCE)
    tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
    tab.page.wait_for_selector("#outdated", state="detached", timeout=PATIENCE)
    drawn_rows = "document.querySelectorAll('#candidates tbody tr').length"
    tab.until(f"() => {drawn_rows} === window.trame.state.get('shown').length")
    rows = tab.rows()
    assert {cells[0] for cells in rows} <= {"T12", "L1", "L2"}
    said = [[*cells[:2], cells[5][2:]] for cells in rows if cells[5] != "to review"]
    told = [["T12", "lytic", "accepted"], ["L1", "lytic", "rejected"], ["L1", "lytic", "added"]]
    assert sorted(said) == sorted(told)
    assert [cells[4] for cells in rows if cells[2] == "added"] == [volume]
    tab.press("e")
    tab.page.fill("#save-folder", str(tmp_path / "saved"))
    tab.page.click("#save-now")
    tab.page.wait_for_selector(".links a", timeout=PATIENCE)
    lines = (tmp_path / "saved" / "accepted.csv").read_text("utf-8").splitlines()[1:]
    assert sorted(line.split(",")[3] for line in lines) == ["L1", "T12"]


def still(tab: Tab, view: str) -> Any:
    """What is seen of a view, once it has not changed for a second."""
    before = tab.picture(view)
    for _ in range(60):
        tab.page.wait_for_timeout(1000)
        now = tab.picture(view)
        if (now == before).all():
            return now
        before = now
    raise AssertionError(f"{view} does not come to rest")


def test_keys_of_vtk_do_nothing(opened: Opened) -> None:
    """R would reset a view, F fly away with it, W draw wires."""
    tab = opened.tab
    for view in (".sagittal", ".threed"):
        box = tab.page.locator(view).bounding_box()
        tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        before = still(tab, view)
        for key in ("r", "f", "w", "q"):
            tab.press(key)
        tab.page.wait_for_timeout(1000)
        assert (still(tab, view) == before).all(), view
    assert opened.served.process.poll() is None


def test_saving_where_nothing_can_be_written_is_said(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tab = opened.tab
    tab.press("e")
    tab.page.fill("#save-folder", str(tmp_path / "file" / "folder"))
    tab.page.click("#save-now")
    tab.page.wait_for_selector("#message.error", timeout=PATIENCE)
    assert "cannot be" in tab.text("#message span")


def test_series_of_a_disc_is_chosen_from_a_list(
    opened: Opened, box_files: tuple[Path, Path], box_spine: tuple[Volume, Volume], tmp_path: Path
) -> None:
    """A CD has programs, documents and several series; all of it is uploaded as a folder."""
    pytest.importorskip("pydicom", reason="pydicom is not installed")
    from helpers.dicom import ROOT, write_series

    ct, disc, tab = box_spine[0], tmp_path / "CD", opened.tab
    write_series(disc / "DICOM" / "A", ct)
    soft = {"SeriesInstanceUID": f"{ROOT}.4", "SeriesNumber": 4, "SeriesDescription": "soft tissue"}
    write_series(disc / "DICOM" / "B", Volume(ct.array - 3, ct.grid), number=500, **soft)
    (disc / "AUTORUN.INF").write_text("[autorun]")
    (disc / "report.pdf").write_bytes(b"%PDF-1.7")
    tab.page.click("text=Open…")
    tab.page.set_input_files("#dicom-folder", str(disc))
    tab.page.set_input_files("#vertebrae-file", str(box_files[1]))
    tab.page.select_option("#labels", "totalsegmentator")
    tab.page.click("#open-load")
    tab.page.wait_for_selector("#series-dialog[open]", timeout=PATIENCE)
    listed = tab.page.locator("#series tbody tr").all_inner_texts()
    assert sorted(text.split("\t")[:4] for text in listed) == [
        ["2", "bone", "64", "2 x 2 x 2"],
        ["4", "soft tissue", "64", "2 x 2 x 2"],
    ]
    tab.page.locator("#series tbody tr", has_text="soft").locator("button").click()
    tab.until("() => document.title.includes('soft tissue, 2024-01-02 [')")
    assert "Doe" not in tab.page.title()
    assert not list(opened.served.private.rglob("uploads/*/*"))


@pytest.mark.slow
def test_connections_that_ask_for_nothing_whole_are_closed(opened: Opened) -> None:
    """Open since the first test: by now there is little to wait for."""
    for connection in opened.idle:
        said, seconds = connection.result()
        assert said == b""
        assert seconds < 1.5 * PATIENCE_SECONDS


def test_host_needs_a_word_of_warning(box_files: tuple[Path, Path]) -> None:
    app.need_all()
    with app.serve(*map(str, box_files), "--host", "0.0.0.0") as served:
        assert any(line.startswith("Warning: --host 0.0.0.0") for line in served.said)
        assert "//127.0.0.1:" not in served.url and "//0.0.0.0:" not in served.url
        assert answer(served.origin + "/index.html") == 403


def test_without_trame_slicer_it_says_what_to_do() -> None:
    """Run without the packages of the environment (``-S``): as where the app is not installed."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "hideseekseg", "app"],
        env={**os.environ, "PYTHONPATH": str(app.ROOT / "HideSeekSeg")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs trame-slicer" in done.stderr and "make app" in done.stderr
