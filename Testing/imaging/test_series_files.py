"""One folder with many DICOM series: each is read alone, and what comes or goes is noticed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hideseekseg.errors import InputError
from hideseekseg.imaging import dicom_headers, series_files
from hideseekseg.imaging.reading import check_ct, read_ct
from hideseekseg.imaging.series_files import files_beside

pytest.importorskip("pydicom", reason="pydicom is not installed")
from helpers.dicom import ROOT, one, save

SLICES = 5


def uid(n: int) -> str:
    return f"{ROOT}.2.{n}"


def write(folder: Path, n: int, number: int | None = None, slices: int = SLICES) -> list[Path]:
    """Write a series of a flat export: files of all series stand in one folder."""
    fields = {"SeriesInstanceUID": uid(n), "SeriesNumber": n if number is None else number}
    return [
        save(one(k, 2.5 * k, number=100 * n + k, **fields), folder / f"{k:02d}-{n:02d}.dcm")
        for k in range(slices)
    ]


def settle(folder: Path) -> None:
    """Let what is in a folder have been there for a while, so that it may be remembered."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            os.utime(path, ns=(time.time_ns() - 10**10,) * 2)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder with six series, a text, and a file that is DICOM without its preamble."""
    folder = tmp_path / "export"
    for n in range(1, 7):
        write(folder, n)
    (folder / "index.txt").write_text("six series")
    settle(folder)
    return folder


@pytest.mark.parametrize("way", ["by UID", "by number", "by a file"])
@pytest.mark.parametrize("ask", [check_ct, read_ct])
def test_headers_of_other_series_are_read_once(
    flat: Path, monkeypatch: pytest.MonkeyPatch, way: str, ask: Callable[[Path, str], object]
) -> None:
    """What reading all cases of the folder costs grows with their number, not with its square."""
    opened: list[Path] = []
    indexed: list[Path] = []
    read, index = dicom_headers.read_header, series_files._series_of

    def read_header(path: Path) -> dicom_headers.Slice | None:
        opened.append(path)
        return read(path)

    def series_of(path: Path) -> tuple[str, str] | None:
        indexed.append(path)
        return index(path)

    monkeypatch.setattr(dicom_headers, "read_header", read_header)
    monkeypatch.setattr(series_files, "_series_of", series_of)
    for n in range(1, 7):
        series = {"by UID": uid(n), "by number": str(n)}.get(way, "")
        ask(flat if series else flat / f"02-{n:02d}.dcm", series)
    text = flat / "index.txt"  # only its reader can say that it is of no series
    assert sorted(opened) == sorted([*flat.glob("*.dcm"), *[text] * 6])
    assert sorted(indexed) == sorted(flat.iterdir())


def test_what_comes_or_goes_is_noticed(flat: Path) -> None:
    def files(n: int) -> list[str]:
        found = series_files.series_files(flat, uid(n))
        return [path.relative_to(flat).as_posix() for path in found if path.suffix == ".dcm"]

    own = [f"{k:02d}-01.dcm" for k in range(SLICES)]
    assert files(1) == own == files(1)
    write(flat, 1, slices=SLICES + 1)
    write(flat / "late", 2, slices=1)
    assert files(1) == [*own, "05-01.dcm"]
    assert len(files(2)) == SLICES + 1 and "late/00-02.dcm" in files(2)
    settle(flat)
    assert len(files(3)) == SLICES
    (flat / "late" / "00-02.dcm").unlink()
    (flat / "02-03.dcm").unlink()
    assert (len(files(2)), len(files(3))) == (SLICES, SLICES - 1)
    shutil.rmtree(flat / "late")
    assert len(files(2)) == SLICES


def test_a_series_is_found_however_it_is_named(flat: Path) -> None:
    """What the whole folder would be refused for still is, if it concerns the series."""
    assert read_ct(flat, uid(3)).array.shape[0] == read_ct(flat, "3").array.shape[0] == SLICES
    assert read_ct(flat / "00-03.dcm").identity["series_uid"] == uid(3)
    with pytest.raises(InputError, match=r"has no series 9; it has (.*;){5}"):
        read_ct(flat, "9")
    write(flat, 9, number=3)
    for ask in (check_ct, read_ct):
        with pytest.raises(InputError, match="contains 2 CT series"):
            ask(flat, "3")
        ask(flat, uid(9))
        with pytest.raises(InputError, match=r"index\.txt"):
            ask(flat / "index.txt", "")


def test_files_that_only_their_reader_understands_are_of_every_series(flat: Path) -> None:
    """GDCM reads DICOM without a preamble, and names a file that is cut short."""
    bare = flat / "04-05.dcm"
    bare.write_bytes(bare.read_bytes()[132:])
    assert read_ct(flat, uid(5)).array.shape[0] == SLICES
    assert bare in files_beside(flat / "00-05.dcm")
    cut = flat / "04-06.dcm"
    cut.write_bytes(cut.read_bytes()[:-20])
    assert read_ct(flat, uid(4)).array.shape[0] == SLICES, "another series is damaged"
    with pytest.raises(InputError, match=r"06\.dcm"):
        read_ct(flat, uid(6))
