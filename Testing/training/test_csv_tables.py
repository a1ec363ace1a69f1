"""Tables as spreadsheets and statistics programs write them, for every command that reads one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hideseekseg.benchmark.cases import read_boxes
from hideseekseg.cohort.manifest import read_cohort
from hideseekseg.errors import InputError
from hideseekseg.simulation.source_vertebrae import person, read_sources
from hideseekseg.training.manifest import overlap, read_manifest

# Of each table: a head, a row with the patient's name in place of {}, and how patients are read.
Reader = Callable[[Path], list[str]]
TABLES: dict[str, tuple[str, str, Reader]] = {
    "training": (
        "image,mask,label,patient",
        "{0}.nii,{0}-m.nii,0,{0}",
        lambda path: [row.patient for row in read_manifest(path).rows],
    ),
    "cohort": (
        "ct,segmentation,patient,site",
        "{0}.nii,{0}-m.nii,{0},X",
        lambda path: [case.patient for case in read_cohort(path).cases],
    ),
    "sources": (
        "ct,segmentation,labels,patient,split",
        "{0}.nii,{0}-m.nii,verse,{0},training",
        lambda path: [source.patient for source in read_sources(path, path.parent)],
    ),
    "boxes": (
        "patient,x,y,z,width,depth,height",
        "{0},1,2,3,4,5,6",
        lambda path: [box.patient for box in read_boxes(path)],
    ),
}
NAMES = ("A", "Größe", "C")


def dialect(text: str, name: str) -> bytes:
    """A table of commas as a program writes it in some dialect."""
    if name == "sep=":
        return f"sep=;\r\n{text}".replace(",", ";").encode()
    if name == "semicolons of Windows":
        return b"\xef\xbb\xbf" + text.replace(",", ";").replace("\n", "\r\n").encode()
    if name == "Unicode text":
        return text.replace(",", "\t").replace("\n", "\r\n").encode("utf-16")
    if name == "capitals and blanks":
        head, _, rows = text.partition("\n")
        return f" {head.upper().replace(',', ' , ')} \n{rows}".encode()
    assert name == "separators at the end"
    lines = text.splitlines()
    return "\n".join([lines[0], *(f"{row},,," for row in lines[1:]), ",,,,,,,,"]).encode()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "name",
    [
        "sep=",
        "semicolons of Windows",
        "Unicode text",
        "capitals and blanks",
        "separators at the end",
    ],
)
def test_dialects_of_spreadsheets_are_read(tmp_path: Path, table: str, name: str) -> None:
    head, row, read = TABLES[table]
    path = tmp_path / "t.csv"
    path.write_bytes(dialect("\n".join([head, *map(row.format, NAMES)]) + "\n", name))
    assert read(path) == [*NAMES]


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    """Also below ``sep=``, a cell of two lines, and signs that end a line in Unicode alone."""
    path = tmp_path / "t.csv"
    head = "sep=,\nimage,mask,label,patient,remark\n"
    text = 'a,b,0,A,"two\nlines"\nc,d,0,B,form\x0cfeed and \u2028 and \x85\ne,f,ill,C,\n'
    path.write_bytes((head + text).encode())
    manifest = read_manifest(path)
    assert [(row.line, row.patient) for row in manifest.rows] == [(4, "A"), (5, "B")]
    assert [problem.line for problem in manifest.problems] == [6]


def test_another_encoding_says_how_to_save_it(tmp_path: Path) -> None:
    for table, (head, row, read) in TABLES.items():
        path = tmp_path / f"{table}.csv"
        path.write_bytes(f"{head}\n{row.format('Größe')}\n".encode("latin-1"))
        with pytest.raises(InputError, match=r"is not UTF-8 text .*'CSV UTF-8'"):
            read(path)


@pytest.mark.parametrize("name", ["NA", "#N/A", "nan", "#NAME?", "1.23457E+11", "1,2E+09"])
def test_what_a_program_writes_for_an_unknown_name_is_nobody(tmp_path: Path, name: str) -> None:
    """It would be one patient, of all whose name is not known."""
    path = tmp_path / "t.csv"
    quoted = f'"{name}"'
    path.write_text(f"image,mask,label,patient\na,b,0,{quoted}\nc,d,0,A\n", "utf-8")
    manifest = read_manifest(path)
    assert [row.patient for row in manifest.rows] == ["A"]
    assert f"line 2: the patient is {name!r}" in str(manifest.problems[0])
    path.write_text(f"ct,segmentation,patient\na,b,{quoted}\nc,d,A\n", "utf-8")
    cohort = read_cohort(path)
    assert [case.patient for case in cohort.cases] == ["A"]
    assert f"line 2: the patient is {name!r}" in str(cohort.problems[0])
    path.write_text(f"{TABLES['sources'][0]}\na,b,verse,{quoted},training\n", "utf-8")
    with pytest.raises(InputError, match="line 2 has a patient that is"):
        read_sources(path, tmp_path)


@pytest.mark.parametrize("row", ["a,b,verse,,training", ",b,verse,A,training", "a,b,verse,A,"])
def test_a_source_says_whose_it_is_and_what_for(tmp_path: Path, row: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{TABLES['sources'][0]}\n{row}\n", "utf-8")
    with pytest.raises(InputError, match=r"line 2 has no (patient|ct|split)"):
        read_sources(path, tmp_path)


@pytest.mark.parametrize(
    ("first", "second"), [("007", "7"), ("12.0", "12"), ("0", "0.0"), ("P07", "p07")]
)
def test_a_number_is_one_patient_however_a_spreadsheet_shows_it(
    tmp_path: Path, first: str, second: str
) -> None:
    assert person(first) == person(second)
    tables = []
    for name in (first, second):
        path = tmp_path / f"{name}.csv"
        path.write_text(f"image,mask,label,patient\n{name}.nii,b,0,{name}\n", "utf-8")
        tables.append(read_manifest(path))
    assert [line.partition(":")[0] for line in overlap(*tables)] == [
        f"patient {first} ({second}) is in both"
    ]
    path = tmp_path / "cohort.csv"
    path.write_text(f"ct,segmentation,patient\na,b,{first}\nc,d,{second}\n", "utf-8")
    (problem,) = read_cohort(path).problems
    assert f"line 3: the patient is spelled {first} in line 2 and {second} here" in str(problem)


@pytest.mark.parametrize("others", [("P07", "P7"), ("1.2.3", "1.2.30"), ("10", "100"), ("7a", "7")])
def test_other_names_stay_apart(others: tuple[str, str]) -> None:
    assert person(others[0]) != person(others[1])


def test_cases_without_a_patient_may_differ_by_capitals_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("case,ct,segmentation\nA,a,b\na,c,d\n", "utf-8")
    assert not read_cohort(path).problems


def test_paths_of_windows_are_found_elsewhere(tmp_path: Path) -> None:
    """By every table, unless a file has this very name."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "ct.nii").touch()
    (tmp_path / "scans" / "labels.json").touch()
    ct, labels = r"scans\ct.nii", r"scans\labels.json"
    path = tmp_path / "t.csv"
    path.write_text(
        f"image,mask,label,patient,level,convention\n{ct},{ct},0,A,L1,{labels}\n", "utf-8"
    )
    (row,) = read_manifest(path).rows
    assert row.image.is_file() and row.mask.is_file() and Path(row.convention).is_file()
    path.write_text(f"ct,segmentation,labels,bodies\n{ct},{ct},{labels},{ct}\n", "utf-8")
    (case,) = read_cohort(path).cases
    assert case.ct.is_file() and case.segmentation.is_file() and case.name == "ct"
    assert case.bodies is not None and case.bodies.is_file() and Path(case.labels or "").is_file()
    path.write_text(f"{TABLES['sources'][0]}\n{ct},{ct},verse,A,training\n", "utf-8")
    (source,) = read_sources(path, tmp_path)
    assert source.ct.is_file() and source.segmentation.is_file()
