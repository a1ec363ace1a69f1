"""A hospital's own data: what is wrong is said, what is right becomes slices with labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch

from hideseekseg.anatomy.crop import crop_grid, take_crop
from hideseekseg.anatomy.preparation import learned_slices
from hideseekseg.attribution import Latents
from hideseekseg.cli.main import main
from hideseekseg.confidence import VertebraInput, encode_patient
from hideseekseg.errors import InputError
from hideseekseg.imaging.volume import Grid, Volume, to_sitk
from hideseekseg.simulation.simulate import BODY, COMPACT_GEOMETRY
from hideseekseg.simulation.source_vertebrae import shared_patients
from hideseekseg.training import prepare
from hideseekseg.training.dataset import Slices, load_slices, make_batch, patients_of
from hideseekseg.training.evaluation import load_cases
from hideseekseg.training.manifest import balance, overlap, read_manifest
from hideseekseg.training.prepare import PreparedRow, cut_out, write_shards
from hideseekseg.training.train import COMPACT, PATIENTS_GEOMETRY

HEAD = "image,mask,label,patient,level,convention"
GOOD = "ct.nii.gz,bodies.nii.gz,healthy,A,T11,totalsegmentator"


@dataclass(frozen=True)
class Ward:
    """A folder with the drawn spine's files, in which manifests are written."""

    folder: Path
    ct: Volume
    bodies: Volume

    def table(self, *lines: str, head: str = HEAD, name: str = "m.csv") -> Path:
        path = self.folder / name
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        return path

    def image(self, name: str, array: npt.NDArray[np.generic], grid: Grid | None = None) -> None:
        volume = Volume(np.asarray(array), grid or self.ct.grid)
        sitk.WriteImage(to_sitk(volume), str(self.folder / name))

    def one(self, line: str) -> PreparedRow:
        """What becomes of the single row of a manifest."""
        (rows,) = read_manifest(self.table(line, name="one.csv")).by_image()
        (outcome,) = cut_out(rows, COMPACT_GEOMETRY)
        return outcome


@pytest.fixture
def ward(box_spine: tuple[Volume, Volume], tmp_path: Path) -> Ward:
    ct, bodies = box_spine
    ward = Ward(tmp_path, ct, bodies)
    ward.image("ct.nii.gz", ct.array)
    ward.image("bodies.nii.gz", bodies.array)
    ward.image("t12.nii.gz", (bodies.array == 32).astype(np.uint8))
    return ward


def silent(number: int, total: int, outcomes: Sequence[PreparedRow]) -> None:
    pass


# ---- the table


def test_rows_are_read_with_paths_beside_the_table(ward: Ward) -> None:
    path = ward.table(
        GOOD,
        "",
        " scans/x.nrrd , t12.nii.gz ,Malignant, B 2 ,Th12,",
        "/abs/y.nrrd,z.nrrd,1,C,LWK3,map.json",
    )
    manifest = read_manifest(path)
    first, second, third = manifest.rows
    assert manifest.problems == ()
    assert first.image == ward.folder / "ct.nii.gz"
    assert (first.line, first.malignant, first.level) == (2, False, "T11")
    assert (second.line, second.malignant, second.patient) == (4, True, "B 2")
    assert (second.image, second.level) == (ward.folder / "scans" / "x.nrrd", "T12")
    assert (third.image, third.level) == (Path("/abs/y.nrrd"), "L3")
    assert third.convention == str(ward.folder / "map.json")


def test_table_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """Semicolons, a byte order mark, capitals, other columns."""
    path = tmp_path / "m.csv"
    path.write_bytes("\ufeffImage;Mask;LABEL;Patient;Age\r\na;b;0;Ä;61\r\n".encode())
    manifest = read_manifest(path)
    assert [row.patient for row in manifest.rows] == ["Ä"]
    assert manifest.unused == ("age",)


def test_columns_without_a_name_and_a_value_are_not_there(tmp_path: Path) -> None:
    """Spreadsheets end lines with them; a value in one is more than there are columns."""
    path = tmp_path / "m.csv"
    path.write_text("image;mask;label;patient;;\na;b;0;A;;\nc;d;1;B; ;\n", encoding="utf-8")
    manifest = read_manifest(path)
    assert [row.patient for row in manifest.rows] == ["A", "B"]
    assert manifest.unused == () and manifest.problems == ()
    path.write_text("image,,mask,label,patient,\na,,b,0,A,\nc,,d,1,B,x\n,,,,,\n", "utf-8")
    manifest = read_manifest(path)
    assert [row.mask.name for row in manifest.rows] == ["b"]
    (problem,) = manifest.problems
    assert (problem.line, problem.cause) == (3, "has more values than there are columns")


def test_a_column_that_stands_there_twice_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image,mask,label,patient,Mask,,\na,b,0,A,c,,\n", encoding="utf-8")
    with pytest.raises(InputError, match="has the column mask twice"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "no column image and no mask"),
        (b"image,mask,label\n", "no column patient"),
        (b"image,mask,label,patient\n", "no row"),
        ("image,mask,label,patient\nä,b,0,c\n".encode("latin-1"), "UTF-8"),
        (b'image,mask,label,patient\n"a,b,0,c\n', "not a CSV file"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: bytes, cause: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(text)
    with pytest.raises(InputError, match=cause):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("a,b,ill,P,,", "unknown label 'ill'"),
        ("a,b,2,P,,", "unknown label '2'"),
        ("a,b,0,,,", "no patient"),
        (",,0,P,,", "no image and no mask"),
        ("a,b,0,P,L9,", "unknown level 'L9'"),
        ("a,b,0,P,spine,", "unknown level 'spine'"),
        ("a,b,0,P,L1,verse,more", "more values"),
        ("a,b", "no label and no patient"),
    ],
)
def test_what_is_wrong_in_a_line_is_said_and_others_are_kept(
    ward: Ward, line: str, cause: str
) -> None:
    manifest = read_manifest(ward.table(line, GOOD))
    assert [row.line for row in manifest.rows] == [3]
    (problem,) = manifest.problems
    assert problem.line == 2 and cause in str(problem) and "m.csv, line 2" in str(problem)


def test_the_same_vertebra_twice_is_said(ward: Ward) -> None:
    other_way = GOOD.replace("ct.nii.gz", "./ct.nii.gz").replace("healthy", "malignant")
    first, second = read_manifest(ward.table(GOOD, GOOD, other_way)).problems
    assert (first.line, first.cause) == (3, "the same vertebra as in line 2")
    assert second.line == 4 and second.cause.endswith("but with the other label")


def test_a_level_tells_a_vertebra_whatever_mask_shows_it(ward: Ward) -> None:
    """Without a level two masks may be of two vertebrae."""
    other = "./ct.nii.gz,t12.nii.gz,malignant,A,T11,"
    (problem,) = read_manifest(ward.table(GOOD, other)).problems
    assert problem.cause == "the same vertebra as in line 2, but with the other label"
    rows = ("ct.nii.gz,t11.nii.gz,0,A,,", "ct.nii.gz,t12.nii.gz,1,A,,")
    assert read_manifest(ward.table(*rows)).problems == ()


def test_an_image_of_two_patients_is_said(ward: Ward) -> None:
    other = GOOD.replace(",A,T11", ",B,T12")
    (problem,) = read_manifest(ward.table(GOOD, other)).problems
    assert problem.cause == "the image is of patient A in line 2, of B here"


def test_what_two_manifests_share_is_said(ward: Ward) -> None:
    a = read_manifest(ward.table(GOOD, "x,y,0,B,,", name="a.csv"))
    b = read_manifest(ward.table("z,y,1,B,,", GOOD.replace(",A,", ",C,"), name="b.csv"))
    patient, image = overlap(a, b)
    assert patient.startswith("patient B is in both") and "a.csv, line 3" in patient
    assert "ct.nii.gz is in both" in image and "b.csv, line 3" in image
    assert overlap(a, read_manifest(ward.table("q,y,1,D,,", name="c.csv"))) == []


def test_one_person_spelled_in_two_ways_is_in_both(ward: Ward) -> None:
    a = read_manifest(ward.table("x,y,0,p01,,", name="a.csv"))
    b = read_manifest(ward.table("z,y,1, P01 ,,", name="b.csv"))
    (line,) = overlap(a, b)
    assert line.startswith("patient p01 (P01) is in both: ")
    assert shared_patients(["p01", "Ada  B", "drawn 1"], ["P01", "ada b", "drawn 1"]) == [
        "Ada  B",
        "p01",
    ]


def test_one_image_under_two_names_is_said(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ward.folder / "ct.nii.gz", ward.folder / "copy.nii.gz")
    rows = [GOOD, GOOD.replace("healthy,A,T11", "malignant,A,T12")]
    a = ward.table(*rows, name="a.csv")
    b = ward.table(*(row.replace("ct.", "copy.").replace(",A,", ",Z,") for row in rows), name="b")
    assert main(["check", str(a), str(b)]) == 1
    said = capsys.readouterr().out
    assert f"one image under two names: {a}, line 2, and {b}, line 2" in said
    assert said.splitlines()[-1] == "wrong: 1"
    for path, name in ((a, "training"), (b, "validation")):
        assert main(["prepare", str(path), "--out", str(ward.folder / name)]) == 0
    words = ["train", str(ward.folder / "training"), "--out", str(ward.folder / "w")]
    words += ["--validation", str(ward.folder / "validation")]
    assert main(words) == 2
    assert "shows slices that are trained on, of Z" in capsys.readouterr().err


def test_classes_are_counted_by_patient(ward: Ward) -> None:
    rows = ("a,b,0,A,L1,", "a,b,0,A,L2,", "a,b,1,A,L3,", "c,d,1,B,,")
    assert balance(read_manifest(ward.table(*rows)).rows) == {"A": (2, 1), "B": (0, 1)}
    rows = ("a,b,0,P07,L1,", "c,d,1, p07,L2,", "e,f,0,P 07,L3,", "c,d,0,p07,L4,")
    assert balance(read_manifest(ward.table(*rows)).rows) == {"P07": (2, 1), "P 07": (1, 0)}


def test_a_patient_in_two_spellings_is_said(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    """Once for each spelling, and not as two patients of one image."""
    rows = ("a,b,0,P07,L1,", "c,d,1,p07,L2,", "c,d,1,p07,L3,", "a,b,0,\uff3007,L4,", "e,f,1,P7,,")
    problems = read_manifest(ward.table(*rows)).problems
    assert [(p.line, p.cause) for p in problems] == [
        (n, f"the patient is spelled P07 in line 2 and {name} here: write one spelling")
        for n, name in ((3, "p07"), (5, "\uff3007"))
    ]
    one = [GOOD, GOOD.replace("healthy,A,T11", "malignant,a,T12")]
    path = ward.table(*one, name="two.csv")
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert f"{path}, line 3: the patient is spelled A in line 2 and a here" in said[0]
    assert "1 healthy and 1 malignant vertebrae of 1 patient in 1 image" in said[1]
    assert said[-1] == "wrong: 1"


# ---- the vertebrae


def test_crop_is_the_pipelines(ward: Ward) -> None:
    outcome = ward.one(GOOD)
    body = ward.bodies.array == 33
    grid = crop_grid(body, ward.ct.grid, COMPACT_GEOMETRY)
    expected = take_crop(ward.ct, body, grid)
    assert outcome.obstacle == "" and outcome.crop is not None
    np.testing.assert_array_equal(outcome.crop.image, expected.image)
    np.testing.assert_array_equal(outcome.crop.body, expected.body)


def test_a_mask_of_one_vertebra_needs_no_level(ward: Ward) -> None:
    alone, named = ward.one("ct.nii.gz,t12.nii.gz,0,A,,"), ward.one(GOOD.replace("T11", "T12"))
    assert alone.crop is not None and named.crop is not None
    np.testing.assert_array_equal(alone.crop.image, named.crop.image)


def test_volume_that_is_not_in_hounsfield_units_is_calibrated(ward: Ward) -> None:
    ward.image("grey.nii.gz", (ward.ct.array.astype(np.float32) + 1000) / 8)
    outcome, expected = ward.one(GOOD.replace("ct.nii", "grey.nii")), ward.one(GOOD)
    assert outcome.crop is not None and expected.crop is not None
    assert any("not in HU" in note for note in outcome.notes)
    inside = expected.crop.body
    a, b = outcome.crop.image[inside], expected.crop.image[inside]
    assert np.corrcoef(a, b)[0, 1] > 0.9999
    assert 0.6 < a.std() / b.std() < 1.6 and abs(np.median(a) - np.median(b)) < 150


def test_a_mask_on_another_grid_is_a_note(ward: Ward) -> None:
    grid = ward.bodies.grid
    part = ward.bodies.array[2:-2, 2:-2, 2:-2]
    ward.image("cut.nii.gz", part, grid.cut((2, 2, 2), part.shape))
    outcome = ward.one(GOOD.replace("bodies", "cut"))
    expected = ward.one(GOOD)
    assert outcome.crop is not None and expected.crop is not None
    assert any("another grid" in note for note in outcome.notes)
    np.testing.assert_allclose(outcome.crop.image, expected.crop.image, atol=1)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (GOOD.replace("ct.nii", "no.nii"), "image: "),
        (GOOD.replace("bodies", "nothing"), "mask: "),
        (GOOD.replace("ct.nii.gz", "text.nii.gz"), "image: "),
        (GOOD.replace("bodies", "empty"), "mask: is an empty segmentation"),
        (GOOD.replace("T11", "L5"), "mask: contains no L5; it contains T11, T12, L1"),
        (GOOD.replace("T11,totalsegmentator", ","), "3 labels: say by level"),
        (GOOD.replace(",totalsegmentator", ","), "declare a convention"),
        (GOOD.replace("totalsegmentator", "mine"), "not a label convention"),
        (GOOD.replace("bodies", "far"), "outside the CT"),
        (GOOD.replace("ct.nii", "short.nii").replace("T11", "L1"), "cut by the field of view"),
        (GOOD.replace("bodies", "low"), "mask: does not fit the CT ct.nii.gz: the outlines lie"),
        (GOOD.replace("bodies", "speck"), "too few voxels"),
        (GOOD.replace("ct.nii", "nan.nii"), "not finite (NaN)"),
        (GOOD.replace("ct.nii", "metal.nii"), "metal in"),
        (GOOD.replace("ct.nii", "dark.nii"), "is this a CT?"),
    ],
)
def test_what_cannot_be_used_is_said(ward: Ward, line: str, cause: str) -> None:
    grid, hu, bodies = ward.ct.grid, ward.ct.array, ward.bodies.array
    t11 = bodies == 33
    (ward.folder / "text.nii.gz").write_text("no image")
    ward.image("empty.nii.gz", np.zeros_like(bodies))
    far = grid.ijk_to_lps.copy()
    far[:3, 3] += 1000
    ward.image("far.nii.gz", bodies, Grid(grid.shape, far))
    low = grid.ijk_to_lps.copy()
    low[:3, 3] += grid.direction[:, 2] * -16
    ward.image("low.nii.gz", bodies, Grid(grid.shape, low))
    ward.image("short.nii.gz", hu[12:], grid.cut((12, 0, 0), hu[12:].shape))
    speck = np.zeros_like(bodies)
    speck[50:52, 20:22, 20:22] = 33
    ward.image("speck.nii.gz", speck)
    ward.image("nan.nii.gz", np.where(t11 & (hu > 600), np.nan, hu.astype(np.float32)))
    metal = hu.copy()
    metal[46:50, 18:24, 20:26] = 3071
    ward.image("metal.nii.gz", metal)
    ward.image("dark.nii.gz", np.where(bodies > 0, hu - 900, hu + 300))
    outcome = ward.one(line)
    assert outcome.crop is None
    assert cause in outcome.obstacle


def test_a_convention_that_there_is_not_is_named(ward: Ward) -> None:
    said = ward.one(GOOD.replace("totalsegmentator", "TotalSegmentator")).obstacle
    assert said.startswith("convention: TotalSegmentator: is not a label convention; give one of")
    said = ward.one(GOOD.replace("totalsegmentator", "map.json")).obstacle
    assert said.startswith(f"convention: {ward.folder / 'map.json'}: cannot be read")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ct.nii.gz,t12.nii.gz,{},A,,", "ct.nii.gz,t12.nii.gz,{},A,T12,"),
        ("ct.nii.gz,t12.nii.gz,{},A,T12,", "ct.nii.gz,t12.nii.gz,{},A,T11,"),
        ("ct.nii.gz,t12.nii.gz,{},A,,", "ct.nii.gz,bodies.nii.gz,{},A,T12,totalsegmentator"),
        ("ct.nii.gz,bodies.nii.gz,{},A,T12,totalsegmentator", "ct.nii.gz,part.nii.gz,{},A,,"),
        ("ct.nii.gz,t12.nii.gz,{},A,,", "ct.nii.gz,copy.nii.gz,{},A,,"),
    ],
    ids=["one mask", "two levels", "a label map", "another outline", "a copy"],
)
def test_two_masks_of_one_vertebra_are_said(ward: Ward, first: str, second: str) -> None:
    """Whatever the table calls them: their voxels tell."""
    shutil.copy(ward.folder / "t12.nii.gz", ward.folder / "copy.nii.gz")
    part = (ward.bodies.array == 32).astype(np.uint8)
    part[:, :16] = 0
    ward.image("part.nii.gz", part)
    third = GOOD.replace("T11", "L1")
    for labels, alike in ((("healthy", "malignant"), False), (("healthy", "healthy"), True)):
        lines = [line.format(label) for line, label in zip((first, second), labels)]
        manifest = read_manifest(ward.table(*lines, third))
        assert manifest.problems == ()
        (rows,) = manifest.by_image()
        a, b, c = cut_out(rows, COMPACT_GEOMETRY)
        other = "" if alike else ", but with the other label"
        assert b.obstacle == f"the same vertebra as in line 2{other}" and b.crop is None
        assert a.obstacle == ("" if alike else f"the same vertebra as in line 3{other}")
        assert c.obstacle == ""


def test_neighbours_are_not_the_same_vertebra(ward: Ward) -> None:
    """Also where their masks share a few voxels."""
    for name, value in (("t11", 33), ("t12", 32), ("l1", 31)):
        mask = ward.bodies.array == value
        grown = mask | np.roll(mask, 4, axis=0) | np.roll(mask, -4, axis=0)
        ward.image(f"{name}.nii.gz", grown.astype(np.uint8))
    table = ward.table(*(f"ct.nii.gz,{name}.nii.gz,0,A,," for name in ("t11", "t12", "l1")))
    (rows,) = read_manifest(table).by_image()
    assert not any("same vertebra" in o.obstacle for o in cut_out(rows, COMPACT_GEOMETRY))


def test_one_bad_mask_does_not_spoil_the_others(ward: Ward) -> None:
    path = ward.table(GOOD, "ct.nii.gz,missing.nii.gz,1,A,,", GOOD.replace("T11", "L1"))
    (rows,) = read_manifest(path).by_image()
    outcomes = cut_out(rows, COMPACT_GEOMETRY)
    assert [o.row.line for o in outcomes] == [2, 3, 4]
    assert [bool(o.obstacle) for o in outcomes] == [False, True, False]


# ---- the shards


def full_table(ward: Ward) -> Path:
    ward.image("other.nii.gz", ward.ct.array + 5)
    second = "other.nii.gz,bodies.nii.gz"
    return ward.table(
        GOOD,
        GOOD.replace("healthy", "malignant").replace("T11", "L1"),
        f"{second},malignant,B,T12,totalsegmentator",
    )


def test_slices_carry_the_label_of_their_vertebra(ward: Ward) -> None:
    out = ward.folder / "out"
    assert write_shards(read_manifest(full_table(ward)), COMPACT_GEOMETRY, out, silent) == 2
    slices = load_slices(out, replace(COMPACT, geometry=PATIENTS_GEOMETRY))
    assert slices.label_only and len(slices.lytic) == len(slices.blastic) == 0
    assert len(set(slices.vertebra)) == 3
    for vertebra in set(slices.vertebra):
        own = slices.vertebra == vertebra
        assert len(set(slices.label[own])) == len(set(slices.patient[own])) == 1
    assert set(zip(slices.patient, slices.label)) == {("A", 0), ("A", 1), ("B", 1)}
    area = slices.body.sum(axis=(1, 2))
    assert slices.image.dtype == np.int16 and area.min() >= 0.35 * area.max()
    batch = make_batch(slices, np.arange(4), COMPACT, np.random.default_rng(1))
    assert batch.x.shape == (4, 1, 48, 48) and len(batch.twin) == 0


def test_vertebrae_are_learned_beside_the_others_of_their_image(ward: Ward) -> None:
    """The context of training and of its AUC is that of the pipeline; a lone vertebra has none."""
    ward.image("other.nii.gz", ward.ct.array + 5)
    three = [GOOD.replace("T11", level) for level in ("T11", "T12", "L1")]
    second = [row.replace("ct.nii", "other.nii") for row in three[:2]]
    out = ward.folder / "out"
    write_shards(read_manifest(ward.table(*three, *second)), COMPACT_GEOMETRY, out, silent)
    slices = load_slices(out, COMPACT)
    batch = make_batch(slices, np.arange(len(slices)), COMPACT, None)
    images: dict[str, dict[str, npt.NDArray[np.intp]]] = {}
    for vertebra in np.unique(slices.vertebra).tolist():
        own = images.setdefault(vertebra.rsplit("-", 1)[0], {})
        own[vertebra] = np.flatnonzero(slices.vertebra == vertebra)
    assert sorted(len(own) for own in images.values()) == [2, 3]
    for own in images.values():
        for vertebra, reference in _shown_by_the_pipeline(slices, own).items():
            torch.testing.assert_close(batch.reference[own[vertebra]], reference, equal_nan=True)
            assert bool(reference.isfinite().all()) == (len(own) == 3)


def _shown_by_the_pipeline(
    slices: Slices, rows: dict[str, npt.NDArray[np.intp]]
) -> dict[str, torch.Tensor]:
    """Return the references that the vertebrae of one image come to the network with."""
    shown: dict[str, torch.Tensor] = {}
    vertebrae = {
        name: VertebraInput(
            torch.zeros(len(own), 1, 48, 48),
            slices.image[own].astype(np.float32),
            slices.body[own],
            np.arange(len(own)),
        )
        for name, own in rows.items()
    }

    def encode_each(inputs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> Iterator[Latents]:
        for name, (x, reference) in inputs.items():
            shown[name] = reference
            yield Latents(torch.zeros(len(x), 8), torch.zeros(len(x)), reference)

    encode_patient(vertebrae, encode_each, COMPACT)
    return shown


def test_shard_says_that_lesions_are_unknown(ward: Ward) -> None:
    out = ward.folder / "out"
    write_shards(read_manifest(full_table(ward)), COMPACT_GEOMETRY, out, silent)
    for shard in out.glob("shard-*.npz"):
        with np.load(shard, allow_pickle=False) as data:
            assert "twin" not in data.files
            assert set(np.unique(data["masks"])) <= {0, BODY}
    with pytest.raises(InputError, match="lesions are not known"):
        load_cases(out, COMPACT)


def test_central_slices_are_chosen_where_the_profile_wants_them(ward: Ward) -> None:
    out = ward.folder / "out"
    write_shards(read_manifest(full_table(ward)), COMPACT_GEOMETRY, out, silent)
    central = replace(COMPACT, geometry=replace(COMPACT_GEOMETRY, central_slices=5))
    some, every = load_slices(out, central), load_slices(out, COMPACT)
    assert len(some) == 15 < len(every)
    for vertebra in set(some.vertebra):
        own, chosen = every.vertebra == vertebra, some.vertebra == vertebra
        count = int(own.sum())
        middle = learned_slices(np.arange(count), np.ones(count, int), central.geometry)
        np.testing.assert_array_equal(every.image[own][middle], some.image[chosen])


def test_stopped_and_resumed_reads_only_what_is_missing(ward: Ward) -> None:
    manifest, out = read_manifest(full_table(ward)), ward.folder / "out"
    read: list[int] = []

    def tell(number: int, total: int, outcomes: Sequence[PreparedRow]) -> None:
        assert total == 2
        read.append(len(outcomes))

    with pytest.raises(KeyboardInterrupt):
        write_shards(manifest, COMPACT_GEOMETRY, out, tell, lambda: len(read) == 1)
    assert read == [2] and len(list(out.iterdir())) == 1
    (first,) = out.iterdir()
    before = first.stat().st_mtime_ns
    read.clear()
    write_shards(manifest, COMPACT_GEOMETRY, out, tell)
    assert read == [0, 1] and first.stat().st_mtime_ns == before


def test_shards_are_made_anew_where_a_file_changed_or_a_row_was_left_out(ward: Ward) -> None:
    path, out = full_table(ward), ward.folder / "out"
    (ward.folder / "bodies.nii.gz").rename(ward.folder / "away.nii.gz")
    assert write_shards(read_manifest(path), COMPACT_GEOMETRY, out, silent) == 0
    (ward.folder / "away.nii.gz").rename(ward.folder / "bodies.nii.gz")
    assert write_shards(read_manifest(path), COMPACT_GEOMETRY, out, silent) == 2
    read: list[int] = []
    manifest = read_manifest(path)
    # A file that is touched is the same; one replaced by an older one, as a copy from a backup is,
    # has changed.
    now = max(shard.stat().st_mtime for shard in out.iterdir()) + 5
    os.utime(ward.folder / "other.nii.gz", (now, now))
    write_shards(manifest, COMPACT_GEOMETRY, out, lambda n, t, o: read.append(len(o)))
    assert read == [0, 0]
    image = sitk.ReadImage(str(ward.folder / "other.nii.gz"))
    sitk.WriteImage(image + 1, str(ward.folder / "other.nii.gz"))
    os.utime(ward.folder / "other.nii.gz", (now - 10_000, now - 10_000))
    read.clear()
    write_shards(manifest, COMPACT_GEOMETRY, out, lambda n, t, o: read.append(len(o)))
    assert read == [0, 1]


@pytest.mark.parametrize("what", ["geometry", "preparation"])
def test_shards_that_were_cut_otherwise_are_made_anew(
    ward: Ward, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an earlier version: their slices would be learned from as they are."""
    manifest, out = read_manifest(full_table(ward)), ward.folder / "out"
    with monkeypatch.context() as earlier:
        other = COMPACT_GEOMETRY
        if what == "geometry":
            other = replace(other, body_pixels=30.0, slice_mm=3.0)
        else:
            earlier.setattr(prepare, "PREPARATION", prepare.PREPARATION - 1)
        write_shards(manifest, other, out, silent)
    read: list[int] = []
    write_shards(manifest, COMPACT_GEOMETRY, out, lambda n, t, o: read.append(len(o)))
    assert read == [2, 1]
    read.clear()
    write_shards(manifest, COMPACT_GEOMETRY, out, lambda n, t, o: read.append(len(o)))
    assert read == [0, 0]


def test_a_manifest_is_the_same_from_wherever_it_is_read(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, out = full_table(ward).name, ward.folder / "out"
    write_shards(read_manifest(ward.folder / name), COMPACT_GEOMETRY, out, silent)
    read: list[int] = []
    for place, path in ((ward.folder, Path(name)), (ward.folder.parent, ward.folder / name)):
        monkeypatch.chdir(place)
        relative = Path(os.path.relpath(path))
        for table in (path, relative, relative.absolute()):
            manifest = read_manifest(table)
            write_shards(manifest, COMPACT_GEOMETRY, out, lambda n, t, o: read.append(len(o)))
    assert read == [0] * 12, "every shard is kept"


def test_a_shard_follows_the_data_beside_a_header_and_goes_with_its_mask(ward: Ward) -> None:
    """The voxels of an MHD lie in a file of their own, which the table does not name."""
    path, out = full_table(ward), ward.folder / "out"
    image = sitk.ReadImage(str(ward.folder / "other.nii.gz"))
    sitk.WriteImage(image, str(ward.folder / "other.mhd"))
    path.write_text(path.read_text("utf-8").replace("other.nii.gz", "other.mhd"), "utf-8")

    def changed() -> dict[str, bool]:
        before = {x.name: x.read_bytes() for x in out.glob("*.npz")}
        write_shards(read_manifest(path), COMPACT_GEOMETRY, out, silent)
        after = {x.name: x.read_bytes() for x in out.glob("*.npz")}
        return {name: after.get(name) != content for name, content in before.items()}

    assert changed() == {} and sorted(changed().values()) == [False, False]
    sitk.WriteImage(image + 1, str(ward.folder / "other.mhd"))
    assert sorted(changed().values()) == [False, True]
    mask = sitk.ReadImage(str(ward.folder / "bodies.nii.gz"))
    sitk.WriteImage(mask * 0, str(ward.folder / "bodies.nii.gz"))
    changed()
    assert not list(out.glob("*.npz")), "nothing of what was there is left to learn from"


@pytest.mark.parametrize("what", ["missing", "corrupt", "mask"])
def test_a_shard_outlives_a_while_without_its_files(
    ward: Ward, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing mount, a copy that is not finished: nothing is learned from, and nothing lost."""
    table, out = full_table(ward), ward.folder / "out"
    lines = table.read_text("utf-8").replace("bodies.nii.gz,malignant,A", "mask.nii.gz,malignant,A")
    table.write_text(lines, "utf-8")
    ward.image("mask.nii.gz", ward.bodies.array)
    words = ["prepare", str(table), "--out", str(out)]

    def shards() -> dict[str, bytes]:
        return {x.name: x.read_bytes() for x in out.glob("*.npz")}

    assert main(words) == 0
    before = shards()
    path = ward.folder / ("mask.nii.gz" if what == "mask" else "other.nii.gz")
    content = path.read_bytes()
    for _ in range(2):
        path.unlink(missing_ok=True)
        if what == "corrupt":
            path.write_bytes(content[: len(content) // 2])
        capsys.readouterr()
        assert main(words) == 0
        said = capsys.readouterr().out
        (aside,) = out.glob("*.aside")
        assert f"its shard of an earlier run is kept as {aside.name} until" in said
        assert aside.read_bytes() == before[aside.name.removesuffix(".aside")]
        for name, left in shards().items():
            assert name != aside.name.removesuffix(".aside") or what == "mask"
            assert left == before[name] or len(left) < len(before[name])
        assert patients_of(out) == ({"A", "B"} if what == "mask" else {"A"})
    path.write_bytes(content)
    times = {aside.name.removesuffix(".aside"): aside.stat().st_mtime_ns}
    assert main(words) == 0
    assert shards() == before and not list(out.glob("*.aside"))
    assert all((out / name).stat().st_mtime_ns == time for name, time in times.items()), "cut again"
    if what != "missing":
        return
    path.unlink()
    assert main(words) == 0
    ward.image("other.nii.gz", ward.ct.array + 50)
    assert main(words) == 0
    assert shards().keys() == before.keys() and shards() != before, "the image is another one"
    assert not list(out.glob("*.aside"))


def test_shards_of_another_manifest_are_not_mixed_in(ward: Ward) -> None:
    out = ward.folder / "out"
    write_shards(read_manifest(full_table(ward)), COMPACT_GEOMETRY, out, silent)
    with pytest.raises(InputError, match="2 shards of another manifest"):
        write_shards(read_manifest(ward.table(GOOD)), COMPACT_GEOMETRY, out, silent)


# ---- the commands


def test_check_says_everything_and_fails(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    good = ward.table(*full_table(ward).read_text("utf-8").splitlines()[1:], name="good.csv")
    bad = ward.table(
        GOOD, GOOD, "ct.nii.gz,t12.nii.gz,maybe,A,,", "no.nrrd,x,1,D,,", name="bad.csv"
    )
    assert main(["check", str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert "bad.csv, line 3: the same vertebra as in line 2" in out
    assert "bad.csv, line 4: unknown label 'maybe'" in out
    assert "bad.csv, line 5: image: " in out
    assert "patient A is in both" in out
    assert "good.csv: 1 healthy and 2 malignant vertebrae of 2 patients in 2 images" in out
    assert "good.csv, line" not in out.replace("is in both: " + str(good) + ", line", "")
    assert out.splitlines()[-1] == "wrong: 5"


def test_check_is_content_with_a_good_manifest(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(full_table(ward))]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "nothing is wrong"
    assert out[-3].split() == ["A", "1", "1"]


def test_one_class_is_nothing_to_learn_from(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ward.table(GOOD))]) == 1
    assert "contains healthy vertebrae only" in capsys.readouterr().out
    assert main(["prepare", str(ward.table(GOOD)), "--out", str(ward.folder / "out")]) == 0
    assert main(["train", str(ward.folder / "out"), "--out", str(ward.folder / "w")]) == 2
    assert "contains healthy vertebrae only" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line", [GOOD.replace("healthy", "malignnt"), GOOD.replace("ct.nii", "no.nii")]
)
def test_no_usable_row_is_not_called_one_class(
    ward: Ward, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(ward.table(line))]) == 1
    said = capsys.readouterr().out
    assert "contains no usable vertebra: there is nothing to learn from" in said
    assert "vertebrae only" not in said and said.splitlines()[-1] == "wrong: 1"


def test_prepare_refuses_a_wrong_table_and_says_what_it_leaves_out(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ward.folder / "out"
    assert main(["prepare", str(ward.table("a,b,x,A,,", GOOD, GOOD)), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "line 2: unknown label 'x'" in err and "and 1 more" in err and not out.exists()
    table = ward.table(GOOD, "ct.nii.gz,missing.nii.gz,1,A,,")
    assert main(["prepare", str(table), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "line 3: mask: " in said and "left out: 1 of 2" in said
    gone = ward.table("no.nrrd,x,1,A,,")
    assert main(["prepare", str(gone), "--out", str(ward.folder / "none")]) == 2


def test_own_patients_are_learned_from_by_their_labels(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    out, weights = ward.folder / "out", ward.folder / "weights"
    assert main(["prepare", str(full_table(ward)), "--out", str(out)]) == 0
    words = ["train", str(out), "--out", str(weights), "--device", "cpu"]
    words += ["--encoder-steps", "1", "--decoder-steps", "1", "--central-slices", "3"]
    assert main([*words, "--supervision", "twins"]) == 2
    assert "has no healthy twins" in capsys.readouterr().err
    assert main([*words, "--validation", str(out)]) == 2
    assert "out: shows patients who are trained on: A, B" in capsys.readouterr().err
    others = full_table(ward).read_text("utf-8").replace(",A,", ",C,").replace(",B,", ",D,")
    for name in ("ct.nii.gz", "other.nii.gz"):  # the same ones would be trained on
        image = sitk.ReadImage(str(ward.folder / name))
        sitk.WriteImage(image + 1, str(ward.folder / f"new-{name}"))
        others = others.replace(f"\n{name}", f"\nnew-{name}")
    table, validation = ward.table(*others.splitlines()[1:]), ward.folder / "others"
    assert main(["prepare", str(table), "--out", str(validation)]) == 0
    assert main([*words, "--validation", str(validation)]) == 0
    said = capsys.readouterr().out
    assert "| vertebra AUC |" in said and "not tuned" in said
    profile = (weights / "weights" / "profile.json").read_text("utf-8")
    assert '"not tuned"' in profile and '"own patients": 2' in profile
    assert '"central_slices": 3' in profile
    assert '"A"' not in profile, "patients are not named"
