"""Archives from anywhere: what is refused, and that nothing is written then."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path

import pytest

from hideseekseg.errors import InputError
from hideseekseg.unpacking import ArchiveLimits, decompress, unpack


def archive(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content)
    return path


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_what_lies_inside_is_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", ("scene/", b""), ("scene/Data/a b.txt", b"text"), ("c", b""))
    target = tmp_path / "out"
    target.mkdir()
    files = unpack(path, target)
    assert [file.relative_to(target).as_posix() for file in files] == ["scene/Data/a b.txt", "c"]
    assert files[0].read_bytes() == b"text"


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "a/../../evil", "/evil", "//host/evil", "C:/evil", "a\\..\\..\\evil", "a:b"),
        *("nul", "a/CON.txt", "trailing. ", "new\nline", "a/\x00b"),
    ],
)
def test_a_name_outside_or_of_no_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("good", b"good")
        member = zipfile.ZipInfo("x")
        member.filename = name  # past zipfile's own corrections
        made.writestr(member, b"evil")
    before = {*tmp_path.rglob("*")}
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(InputError, match="is refused: its member"):
        unpack(path, target)
    assert not list(target.iterdir())
    assert {*tmp_path.rglob("*")} == before | {target}


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ([(link("link"), b"/etc")], "is a link"),
        ([("A", b"1"), ("a", b"2")], "stands in it twice"),
        ([(f"{n}", b"") for n in range(12)], "contains 12 members, more than 10"),
        ([("zeros", bytes(3000))], "would unpack to"),
    ],
)
def test_links_doubles_and_too_much_are_refused(
    tmp_path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], cause: str
) -> None:
    path = archive(tmp_path / "a.zip", *members)
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(InputError, match=cause):
        unpack(path, target, ArchiveLimits(members=10, total_bytes=2000))
    assert not list(target.iterdir())


def test_a_member_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", ("bomb", bytes(1 << 20)))
    content = path.read_bytes().replace(
        (1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")
    )
    path.write_bytes(content)
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(InputError, match=r"is (refused|a damaged archive)"):
        unpack(path, target)
    assert sum(file.stat().st_size for file in target.iterdir()) <= 100


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.99])
def test_a_cut_archive_is_one_line(tmp_path: Path, cut: float) -> None:
    path = archive(tmp_path / "a.zip", ("one", bytes(range(256)) * 40), ("two", b"2" * 999))
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(InputError, match="damaged archive") as caught:
        unpack(path, tmp_path)
    assert "\n" not in str(caught.value)


def test_decompressing_is_bounded() -> None:
    packed = zlib.compress(bytes(10_000_000))
    assert len(decompress(packed, 10_000_000)) == 10_000_000
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        decompress(packed, 1000)
    with pytest.raises(ValueError, match="damaged"):
        decompress(packed[:-8], 10_000_000)
    with pytest.raises(ValueError, match="damaged"):
        decompress(b"no zlib", 1000)
