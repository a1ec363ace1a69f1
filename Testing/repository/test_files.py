"""Files whole or absent, regular files alone, and temporary folders that do not outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.permissions import as_another_user, closed
from hideseekseg import files
from hideseekseg.errors import InputError
from hideseekseg.files import (
    atomic,
    claim_folder,
    files_in,
    open_regular,
    read_json,
    release_folder,
    together,
)

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
posix = pytest.mark.skipif(os.name == "nt", reason="pipes and signals are POSIX's")

# A process that holds temporary files of every kind, and is killed while it does.
HOLDER = """
import sys, time
from pathlib import Path
from hideseekseg.files import atomic, claim_folder, together
folder = Path(sys.argv[1])
with together(folder) as part, atomic(folder / "table.csv") as file:
    (part / "scan.nii").write_bytes(b"a patient")
    file.write_bytes(b"a patient")
    (claim_folder(folder, "app") / "ct.nii").write_bytes(b"a patient")
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds temporary files in a folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def content(folder: Path) -> list[bytes]:
    return [
        path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.stat().st_size
    ]


@posix
def test_what_a_killed_process_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"mine")
    (tmp_path / "hideseekseg.txt").write_bytes(b"mine as well")
    with holder(tmp_path) as process:
        assert content(tmp_path).count(b"a patient") == 3
        with together(tmp_path) as part:
            (part / "result.csv").write_bytes(b"new")
        assert content(tmp_path).count(b"a patient") == 3, "its owner lives"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert content(tmp_path).count(b"a patient") == 3
        release_folder(claim_folder(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("hideseekseg.txt", "mine.txt", "result.csv")
    ]


@posix
def test_a_link_to_elsewhere_is_not_followed_when_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "scan.nii").write_bytes(b"precious")
    (tmp_path / "hideseekseg-old").symlink_to(tmp_path / "precious")
    old = tmp_path / "hideseekseg-older"
    old.mkdir()
    (old / "link").symlink_to(tmp_path / "precious")
    os.utime(old, (0, 0))
    assert files.remove_abandoned(tmp_path) == [old]
    assert (tmp_path / "precious" / "scan.nii").read_bytes() == b"precious"


def test_a_folder_that_is_just_being_made_by_another_process_stays(tmp_path: Path) -> None:
    made = tmp_path / "hideseekseg-new"
    made.mkdir()
    assert files.remove_abandoned(tmp_path) == []
    assert made.is_dir()


CLAIMER = """
import sys
from pathlib import Path
from hideseekseg.files import atomic, claim_folder, release_folder
folder, name = Path(sys.argv[1]), sys.argv[2]
for _ in range(700):
    own = claim_folder(folder)
    (own / "scan.nii").write_bytes(b"a patient")
    assert (own / "scan.nii").is_file()
    release_folder(own)
    with atomic(folder / name) as file:
        file.write_bytes(b"a table")
"""


@posix
def test_nobody_removes_what_another_process_is_just_making(tmp_path: Path) -> None:
    """Each looks for what is abandoned while the other makes its files and locks them."""
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    made = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(tmp_path), f"{n}.csv"], env=environment
        )
        for n in range(3)
    ]
    assert [process.wait() for process in made] == [0, 0, 0]
    assert sorted(x.name for x in tmp_path.iterdir()) == ["0.csv", "1.csv", "2.csv"]


def test_a_claimed_folder_is_empty_private_and_goes(tmp_path: Path) -> None:
    folder = claim_folder(tmp_path, "app")
    assert folder.is_dir() and not list(folder.iterdir())
    if os.name != "nt":
        assert folder.parent.stat().st_mode & 0o077 == 0
    release_folder(folder)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(tmp_path / "a.csv") as file:
        file.write_text("new")
        raise ZeroDivisionError
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "folder", "socket"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "settings.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        import socket

        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
    else:
        path.mkdir()
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        read_json(path)
    assert time.monotonic() - began < 1
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(OSError):
        open_regular(path)


@posix
@pytest.mark.parametrize(
    "words",
    [
        ["segment", "{bad}", "{bad}", "--out", "{out}"],
        ["segment", "{ct}", "{bad}", "--out", "{out}"],
        ["segment", "{ct}", "{seg}", "--labels", "{bad}", "--out", "{out}"],
        [
            *("segment", "{ct}", "{seg}", "--labels", "totalsegmentator"),
            *("--weights", "{weights}", "--out", "{out}"),
        ],
        ["train", "{shards}", "--validation", "{shards}", "--out", "{out}"],
        ["check", "{bad}"],
    ],
    ids=["ct", "segmentation", "labels", "weights", "shards", "manifest"],
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_commands_refuse_pipes_and_devices_in_one_line(
    words: list[str],
    kind: str,
    box_files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from hideseekseg.cli.main import main

    def put(path: Path) -> Path:
        path.parent.mkdir(exist_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        return path

    put(tmp_path / "weights" / "profile.json")
    put(tmp_path / "shards" / "shard-1.npz")
    names = {
        **{"bad": put(tmp_path / "bad.json"), "ct": box_files[0], "seg": box_files[1]},
        **{"out": tmp_path / "out", "weights": tmp_path / "weights"},
        **{"shards": tmp_path / "shards"},
    }
    began = time.monotonic()
    assert main([word.format(**names) for word in words]) == 2
    assert time.monotonic() - began < 20
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "regular file" in said


def tree(folder: Path, *names: str) -> Path:
    """Make files of these names in a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def names_in(folder: Path, deep: bool = True) -> list[str]:
    told: list[str] = []
    found = [path.relative_to(folder).as_posix() for path in files_in(folder, deep, told.append)]
    assert not told and found == [x.relative_to(folder).as_posix() for x in files_in(folder, deep)]
    return found


def test_files_of_a_tree_are_found_in_order(tmp_path: Path) -> None:
    tree(tmp_path, "b/2", "b/.hidden/3", "a", "c/d/e/4", "B")
    (tmp_path / "empty").mkdir()
    expected = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert files_in(tmp_path) == expected
    assert names_in(tmp_path, deep=False) == ["B", "a"]


@posix
@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"root/far": "far"}, ["far/x", "own/1"]),
        ({"root/1": "far/x"}, ["1", "own/1"]),
        ({"root/a": "far", "root/b": "far"}, ["a/x", "own/1"]),
        ({"root/a-latest": "root/own"}, ["own/1"]),
        ({"root/own/again": "root/own", "root/loop": "root"}, ["own/1"]),
        ({"root/up": ".", "root/own/up": "."}, ["own/1"]),
        ({"root/far": "far", "far/back": "root", "far/on": "more"}, ["far/on/y", "far/x", "own/1"]),
        ({"root/far": "far", "far/z": "more", "more/z": "far"}, ["far/x", "far/z/y", "own/1"]),
        ({"root/a": "root/b", "root/b": "far"}, ["a/x", "own/1"]),
    ],
    ids=["folder", "file", "twice", "own name", "itself", "upwards", "back", "ring", "chain"],
)
def test_links_are_followed_once(
    tmp_path: Path, links: dict[str, str], expected: list[str]
) -> None:
    tree(tmp_path, "root/own/1", "far/x", "more/y", "beside/z")
    for name, target in links.items():
        (tmp_path / name).symlink_to(tmp_path / target)
    assert names_in(tmp_path / "root") == expected
    (tmp_path / "by-a-link").symlink_to(tmp_path / "root")
    assert names_in(tmp_path / "by-a-link") == expected


@posix
@pytest.mark.parametrize("target", ["gone", "gone/deeper", "link", "file/in"])
def test_links_to_what_is_not_there_are_refused_or_told(tmp_path: Path, target: str) -> None:
    tree(tmp_path, "file")
    (tmp_path / ".#file").symlink_to("user@machine.1234")  # as Emacs marks an open file
    assert names_in(tmp_path) == ["file"]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)
    with pytest.raises(InputError, match="is a link to what is not there") as refused:
        files_in(tmp_path)
    assert refused.value.path == str(link)
    told: list[str] = []
    assert files_in(tmp_path, tell=told.append) == [tmp_path / "file"]
    assert told == [f"{link}: left out, it is a link to what is not there"]


@posix
def test_folders_that_are_closed_are_refused_or_told(tmp_path: Path) -> None:
    """But for those that systems keep on every disk."""
    tree(tmp_path, "1", "lost+found/2", ".Trash-1000/3")
    tree(tmp_path, "shut/4", "shut/in/5", "ajar/6", "ajar/in/7")
    shut, ajar = tmp_path / "shut", tmp_path / "ajar"
    (tmp_path / "through").symlink_to(shut / "in")
    with (
        closed(tmp_path / "lost+found"),
        closed(tmp_path / ".Trash-1000"),
        as_another_user(tmp_path),
    ):
        open_files = files_in(tmp_path)
    assert {x.name for x in open_files} == {"1", "4", "5", "6", "7"}
    with closed(shut), as_another_user(tmp_path):
        with pytest.raises(InputError, match=r"cannot be looked \w+: Permission denied"):
            files_in(tmp_path)
        with pytest.raises(InputError, match="cannot be looked into: Permission denied"):
            files_in(shut, tell=print)
        told: list[str] = []
        found = files_in(tmp_path, tell=told.append)
    assert {x.name for x in found} == {"1", "2", "3", "6", "7"}
    assert sorted(told) == [
        f"{shut}: left out, it cannot be looked into: Permission denied",
        f"{tmp_path / 'through'}: left out, it cannot be looked at: Permission denied",
    ]
    (tmp_path / "through").unlink()
    with closed(ajar, 0o744), as_another_user(tmp_path):  # names may be seen, nothing else
        told = []
        found = files_in(tmp_path, tell=told.append)
    assert ajar / "6" in found
    assert told == [f"{ajar / 'in'}: left out, it cannot be looked into: Permission denied"]


@posix
def test_pipes_and_devices_are_no_files_of_a_tree(tmp_path: Path) -> None:
    tree(tmp_path, "1")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    assert names_in(tmp_path) == ["1"]
