"""A command in a child process, in both event loops: events come back, and Cancel ends all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from desktop import Desktop
from helpers.child_processes import gone, needs_proc, standing_by
from hideseekseg.errors import InputError, UserError, WeightsError
from hideseekseg.events import Cancelled, Event, Failed, Finished, Started, VertebraDone
from hideseekseg.model.profile import BUNDLE, read_profile
from hideseekseg.ui import child_process
from hideseekseg.ui.child_process import read_apart

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")


class QtLoop:
    """Child processes of the panel, in the event loop of the test desktop."""

    def __init__(self, desktop: Desktop) -> None:
        self.wait = desktop.wait

    def make(self, *words: Any) -> Any:
        from HideSeekSegLib.qt_process import QtProcess

        return QtProcess(*words)

    def call(self, action: Callable[[], None]) -> None:
        action()

    def stand_by(self) -> None:
        from HideSeekSegLib.qt_process import QtProcess

        QtProcess.standBy(sys.executable)

    def dismiss(self) -> None:
        from HideSeekSegLib.qt_process import QtProcess

        QtProcess.dismiss()


class PythonLoop:
    """Child processes of the browser's server, in an event loop of Python."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def make(self, *words: Any) -> Any:
        from hideseekseg.ui.child_process import AsyncioProcess

        return AsyncioProcess(*words)

    def call(self, action: Callable[[], None]) -> None:
        async def inside() -> None:
            action()

        self.loop.run_until_complete(inside())

    def stand_by(self) -> None:
        from hideseekseg.ui.child_process import AsyncioProcess

        self.call(AsyncioProcess.stand_by)

    def dismiss(self) -> None:
        from hideseekseg.ui.child_process import AsyncioProcess

        self.loop.run_until_complete(AsyncioProcess.dismiss())

    def wait(self, until: Callable[[], Any], seconds: float = 10.0) -> None:
        async def inside() -> None:
            end = time.monotonic() + seconds
            while not until():
                assert time.monotonic() < end, f"nothing happened within {seconds} s"
                await asyncio.sleep(0.005)

        self.loop.run_until_complete(inside())


@pytest.fixture(params=["panel", "browser"])
def loop(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each test alone: what one that fails leaves running would keep all others from a start."""
    if request.param == "panel":
        panel = QtLoop(request.getfixturevalue("desktop"))
        yield panel
        end_what_runs(panel)
        panel.dismiss()
        return
    made = PythonLoop()
    yield made
    end_what_runs(made)
    made.dismiss()
    made.loop.close()


def end_what_runs(loop: Any) -> None:
    left = child_process.ChildProcess.current
    if left is not None:
        loop.call(left.kill)


class Told:
    """What a job told, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.lines: list[str] = []
        self.ended: list[tuple[int, bool, str]] = []

    def end(self, code: int, crashed: bool, tail: str) -> None:
        self.ended.append((code, crashed, tail))

    def kinds(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def make(loop: Any, told: Told, words: list[str], program: str = sys.executable) -> Any:
    return loop.make(words, told.events.append, told.end, told.lines.append, program)


def segment(files: tuple[Path, Path], weights: Path, out: Path) -> list[str]:
    words = ["segment", *map(str, files), "--out", str(out), "--weights", str(weights)]
    words += ["--labels", "totalsegmentator", "--json-lines", "--each", "--no-picture"]
    return [*words, "--threads", "1"]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need longer to write the files than a user would wait."""
    monkeypatch.setattr(child_process, "GRACE_SECONDS", 50.0)


def python(tmp_path: Path, name: str, code: str) -> str:
    """A program that runs this code whatever its arguments are."""
    if os.name == "nt":
        pytest.skip("needs a script as program")
    path = tmp_path / name
    path.write_text(f"#!{sys.executable}\n{code}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


def crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def refuse(path: Path) -> None:
    raise WeightsError(path, "is not a weights file")


def out_of_memory(path: Path) -> None:
    raise MemoryError


def answer(path: Path, number: int) -> tuple[str, int, int]:
    return path.name, number, os.getpid()


@posix
@pytest.mark.parametrize(
    ("read", "kind", "cause"),
    [
        (crash, InputError, "crashed the process that read it (status -11)"),
        (refuse, WeightsError, "is not a weights file"),
        (out_of_memory, InputError, "does not fit into memory"),
    ],
)
def test_reading_that_fails_elsewhere_is_one_line_here(
    read: Callable[[Path], None], kind: type[UserError], cause: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as refused:
        asyncio.run(read_apart(tmp_path / "ct.nii", read))
    assert cause in str(refused.value) and "ct.nii" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_read_elsewhere_comes_back(tmp_path: Path) -> None:
    name, number, pid = asyncio.run(read_apart(tmp_path / "ct.nii", answer, 7))
    assert (name, number) == ("ct.nii", 7) and pid != os.getpid()


def test_run_tells_every_vertebra(
    loop: Any, box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    told, out = Told(), tmp_path / "Ergebnisse für Jiří"
    job = make(loop, told, segment(box_files, tiny_weights, out))
    loop.call(job.start)
    with pytest.raises(InputError, match="another computation is running"):
        loop.call(make(loop, Told(), ["example"]).start)
    loop.wait(lambda: told.ended, 60)
    assert told.ended == [(0, False, told.ended[0][2])]
    assert isinstance(told.events[0], Started) and isinstance(told.events[-1], Finished)
    done = told.kinds(VertebraDone)
    assert [event.level for event in done] == ["T11", "T12", "L1"]
    assert all(Path(event.file).parent == out / "vertebrae" for event in done)
    assert not job.running


@needs_proc
@pytest.mark.parametrize("weights", ["bundle", "others"])
def test_run_is_done_by_the_process_that_stands_by(
    loop: Any, box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path, weights: str
) -> None:
    """It has loaded the bundle: findings are those of the weights that the run asks for."""
    chosen = BUNDLE if weights == "bundle" else tiny_weights
    loop.stand_by()
    loop.stand_by()
    loop.wait(standing_by)
    [ready] = standing_by()
    told, other = Told(), Told()
    job = make(loop, told, segment(box_files, chosen, tmp_path / "ready"))
    loop.call(job.start)
    loop.wait(lambda: told.kinds(Started), 60)
    assert job.pid == ready
    assert told.kinds(Started)[0].weights_hash == read_profile(chosen).hash
    loop.wait(lambda: told.ended, 60)
    assert told.ended[0][:2] == (0, False) and isinstance(told.events[-1], Finished)
    loop.call(make(loop, other, segment(box_files, chosen, tmp_path / "new")).start)
    loop.wait(lambda: other.ended, 60)
    findings = [[event.finding for event in one.kinds(VertebraDone)] for one in (told, other)]
    assert findings[0] == findings[1] and len(findings[0]) == 3
    loop.wait(lambda: not standing_by())


@needs_proc
@pytest.mark.parametrize("when", ["before", "just now"])
def test_process_that_ended_while_it_stood_by_costs_no_run(
    loop: Any, when: str, box_files: tuple[Path, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    loop.stand_by()
    loop.wait(standing_by)
    [ready] = standing_by()
    os.kill(ready, signal.SIGKILL)
    if when == "before":
        loop.wait(lambda: gone(ready))
    told = Told()
    loop.call(make(loop, told, segment(box_files, tiny_weights, tmp_path / "out")).start)
    loop.wait(lambda: told.ended, 60)
    assert told.ended[0][:2] == (0, False) and isinstance(told.events[-1], Finished)


@needs_proc
@pytest.mark.parametrize("when", ["at once", "when it waits"])
def test_process_that_stands_by_ends_when_it_is_dismissed(loop: Any, when: str) -> None:
    loop.stand_by()
    loop.wait(standing_by)
    [ready] = standing_by()
    if when == "when it waits":
        loop.wait(lambda: b"torch" in Path(f"/proc/{ready}/maps").read_bytes(), 30)
    loop.dismiss()
    loop.wait(lambda: gone(ready))


@needs_proc
def test_run_stops_also_in_a_process_that_stood_by(
    loop: Any, box_files: tuple[Path, Path], slow_weights: Path, tmp_path: Path, patient: None
) -> None:
    loop.stand_by()
    told = Told()
    job = make(loop, told, segment(box_files, slow_weights, tmp_path / "out"))
    loop.call(job.start)
    loop.wait(lambda: told.kinds(VertebraDone), 60)
    loop.call(job.cancel)
    loop.wait(lambda: told.ended, 60)
    assert told.ended[0][:2] == (130, False) and isinstance(told.events[-1], Cancelled)


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"segment\n", b'["segment", 1]\n', b"[" * 100_000, b'["none"]\n']
)
def test_process_that_stands_by_is_told_nothing_useful(line: bytes) -> None:
    words = [sys.executable, "-m", "hideseekseg", "stand-by"]
    ended = subprocess.run(words, input=line, capture_output=True, timeout=60, check=False)
    said = ended.stderr.decode()
    assert ended.returncode == (2 if line.strip() else 0)
    assert "Traceback" not in said and ("hideseekseg" in said) == bool(line.strip())


@posix
def test_cancel_keeps_what_is_finished_also_behind_a_launcher(
    loop: Any,
    box_files: tuple[Path, Path],
    slow_weights: Path,
    tmp_path: Path,
    patient: None,
) -> None:
    """Slicer's PythonSlicer starts the real Python; only that one is asked to stop."""
    script = (
        f"import subprocess, sys\nsys.exit(subprocess.call([{sys.executable!r}, *sys.argv[1:]]))"
    )
    told = Told()
    words = segment(box_files, slow_weights, tmp_path / "out")
    job = make(loop, told, words, python(tmp_path, "PythonSlicer", script))
    loop.call(job.start)
    loop.wait(lambda: told.kinds(VertebraDone), 60)
    loop.call(job.cancel)
    loop.wait(lambda: told.ended, 60)
    code, crashed, _ = told.ended[0]
    last = told.events[-1]
    assert (code, crashed, job.cancelled) == (130, False, True)
    assert isinstance(last, Cancelled)
    assert last.kept == tuple(event.level for event in told.kinds(VertebraDone))


STUBBORN = """
import signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, __file__])
    print(child.pid, flush=True)
time.sleep(600)
"""


@posix
@pytest.mark.parametrize("how", ["twice", "grace", "kill"])
def test_stubborn_tree_is_ended_by_force(
    loop: Any, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "GRACE_SECONDS", 0.2 if how == "grace" else 60.0)
    told = Told()
    job = make(loop, told, [], python(tmp_path, "stubborn", STUBBORN))
    loop.call(job.start)
    loop.wait(lambda: told.lines, 20)
    child, own = int(told.lines[0]), job.pid
    if how == "kill":
        loop.call(job.kill)
    else:
        loop.call(job.cancel)
        if how == "twice":
            loop.call(job.cancel)
        loop.wait(lambda: told.ended, 10)
    loop.wait(lambda: gone(child) and gone(own), 5)
    assert [ended[1] for ended in told.ended] == ([] if how == "kill" else [True])
    assert not job.running


def test_killed_from_outside(loop: Any, tmp_path: Path) -> None:
    code = "import os, signal, sys\nprint('before', file=sys.stderr, flush=True)\nos.abort()"
    told = Told()
    loop.call(make(loop, told, [], python(tmp_path, "crash", code)).start)
    loop.wait(lambda: told.ended, 20)
    _, crashed, tail = told.ended[0]
    assert crashed and "before" in tail


def test_traceback_comes_back(loop: Any, tmp_path: Path) -> None:
    told = Told()
    words = ["segment", str(tmp_path / "no"), "x", "--out", str(tmp_path), "--json-lines"]
    loop.call(make(loop, told, words).start)
    loop.wait(lambda: told.ended, 30)
    assert told.ended[0][0] == 2
    failed = told.kinds(Failed)[0]
    assert failed.file.endswith("no")
    assert failed.cause in told.ended[0][2]


def test_odd_output_is_read(loop: Any, tmp_path: Path) -> None:
    """Lines that come in pieces, bytes that are no UTF-8, words of libraries, no last line end."""
    code = """
import sys, time
from hideseekseg.events import Message, to_line
out, line = sys.stdout.buffer, to_line(Message("info", "in two")).encode()
for piece in (b"library\\n", line[:9], line[9:] + b"\\r\\n", b"\\xff \\xc3\\xa4\\n", line):
    out.write(piece); out.flush(); time.sleep(0.05)
"""
    told = Told()
    loop.call(make(loop, told, [], python(tmp_path, "odd", code)).start)
    loop.wait(lambda: told.ended, 20)
    assert [event.text for event in told.events] == ["in two", "in two"]  # type: ignore[union-attr]
    assert told.lines == ["library", "\ufffd ä"]


def test_program_that_cannot_be_started(loop: Any, tmp_path: Path) -> None:
    told = Told()
    job = make(loop, told, [], str(tmp_path / "none"))
    loop.call(job.start)
    loop.wait(lambda: told.ended, 10)
    assert told.ended[0][1] and "cannot be started" in told.ended[0][2]
    assert not job.running


def test_slicers_python_is_found_on_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, desktop: Desktop
) -> None:
    from HideSeekSegLib.qt_process import findPython

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="PythonSlicer: was not found"):
        findPython()
    program = python(tmp_path, "PythonSlicer", "")
    assert findPython() == program


@posix
def test_both_ways_to_list_processes_agree() -> None:
    from hideseekseg.ui import child_process as processes

    if not (processes.PROC / "self" / "stat").exists():
        pytest.skip("no /proc here")
    ours = os.getpid()
    parents = [
        {p.pid: p.parent for p in read()}[ours] for read in (processes.from_proc, processes.from_ps)
    ]
    assert parents == [os.getppid()] * 2


def test_windows_ends_the_tree() -> None:
    from hideseekseg.ui.child_process import kill_words

    assert kill_words(42) == ["taskkill", "/F", "/T", "/PID", "42"]


def test_wait_is_not_blocking(loop: Any, tmp_path: Path) -> None:
    """The event loop runs while the child computes."""
    told = Told()
    began = time.monotonic()
    loop.call(make(loop, told, [], python(tmp_path, "slow", "import time\ntime.sleep(1)")).start)
    assert time.monotonic() - began < 0.9
    loop.wait(lambda: told.ended, 10)
