"""Which segment is taken for which vertebra, as a user would see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hideseekseg.anatomy.label_conventions import CONVENTIONS
from hideseekseg.anatomy.labelling import LEVELS, SNOMED, Assignment, assign, format_mapping, order
from hideseekseg.anatomy.segment_names import level_of, meaning_of_name
from hideseekseg.errors import InputError
from hideseekseg.imaging.segmentation import Segment, Segmentation
from hideseekseg.imaging.volume import Grid, Volume

ANATOMY = "SCT^123037004^Anatomical Structure"
LESION = "SCT^49755003^Morphologically Altered Structure"


def entry(kind: str, category: str = ANATOMY, modifier: str = "^^", region: str = "^^") -> str:
    list_name = "Segmentation category and type - Total Segmentator"
    return (
        f"{list_name}~{category}~{kind}~{modifier}~Anatomic codes - DICOM master list~{region}~^^"
    )


def segmentation(*segments: Segment) -> Segmentation:
    layer = Volume(np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    return Segmentation((layer,), segments, "spine.seg.nrrd")


def named(*names: str) -> Segmentation:
    return segmentation(*(Segment("", name, n + 1, 0) for n, name in enumerate(names)))


def valued(*values: int) -> Segmentation:
    return segmentation(*(Segment("", "", value, 0) for value in values))


def read(name: str) -> Assignment:
    """How a name is read beside a vertebra that nobody doubts."""
    return assign(named("vertebrae_C7", name))[1]


def levels_by_value(labels: str, *values: int) -> dict[int, str | None]:
    return {a.segment.value: a.level for a in assign(valued(*values), labels)}


def test_levels_run_from_the_head_down() -> None:
    assert [order(level) for level in LEVELS] == list(range(27))
    assert order("C7") < order("T1") < order("T12") < order("T13") < order("L1") < order("S1")


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("vertebrae_L1", "L1"),
        ("L1 vertebra", "L1"),
        ("vertebra T3", "T3"),
        ("T12", "T12"),
        ("Th12", "T12"),
        ("Th. 12", "T12"),
        ("th_05", "T5"),
        ("LWK1", "L1"),
        ("bwk 12", "T12"),
        ("HWK3", "C3"),
        ("VERTEBRAE_C1", "C1"),
        ("C2 (axis)", "C2"),
        ("vertebraL4", "L4"),
        ("lumbar 3", "L3"),
        ("T13", "T13"),
        ("L6 vertebra", "L6"),
        ("S1", "S1"),
        ("vertebrae_S1", "S1"),
        # Words that programs and people add.
        ("T12 edited", "T12"),
        ("L1_1", "L1"),
        ("L1-1", "L1"),
        ("T12-1", "T12"),
        ("L1-001", "L1"),
        ("20 L1", "L1"),
        ("T12 - 2026-11-28", "T12"),
        ("T12, 3 mm", "T12"),
        ("T12 - 3D", "T12"),
        ("L3 not edited", "L3"),
        ("L1 and v2", "L1"),
        ("no. 3 L1", "L1"),
        ("Copy of T12 (final)", "T12"),
        ("vertebrae_T12_corrected_v2", "T12"),
        ("Segment_3 L2", "L2"),
        ("L1 processed", "L1"),
        ("T12 wedge fracture", "T12"),
        # Transitional vertebrae.
        ("L5 (sacralised)", "L5"),
        ("lumbarized S1", "S1"),
        ("sacralised fifth lumbar vertebra", "L5"),
        # Languages, in short and in full.
        ("D12", "T12"),
        ("12. BWK", "T12"),
        ("Th XII", "T12"),
        ("LW 3", "L3"),
        ("twelfth thoracic vertebra", "T12"),
        ("12th_thoracic", "T12"),
        ("1. Lendenwirbel", "L1"),
        ("zwölfter Brustwirbel", "T12"),
        ("Halswirbel 6", "C6"),
        ("première vertèbre lombaire", "L1"),
        ("12e vertèbre dorsale", "T12"),
        ("vértebra lumbar 3", "L3"),
        ("12ª vértebra torácica", "T12"),
        ("terza vertebra lombare", "L3"),
        ("vertebra toracica 9", "T9"),
        ("quinta vértebra lombar", "L5"),
        ("vierde lendenwervel", "L4"),
        ("borstwervel 5", "T5"),
        ("ländkota 2", "L2"),
        ("kręg lędźwiowy 2", "L2"),
        ("поясничный позвонок L3", "L3"),
        ("第3腰椎", "L3"),
        ("第十二胸椎", "T12"),
        ("atlas", "C1"),
    ],
)
def test_names_of_vertebrae(name: str, level: str) -> None:
    found = read(name)
    assert (found.level, found.kind, found.source) == (level, "vertebra", "name")


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("L1 vertebral body", "L1"),
        ("body_T5", "T5"),
        ("vertebrae_body_T12", "T12"),
        ("Corpus L2", "L2"),
        ("Wirbelkörper Th 8", "T8"),
        ("Lendenwirbelkörper 3", "L3"),
        ("corps vertébral L2", "L2"),
        ("cuerpo vertebral D12", "T12"),
        ("corpo vertebrale L3", "L3"),
        ("wervellichaam L3", "L3"),
    ],
)
def test_names_of_bodies(name: str, level: str) -> None:
    assert (read(name).level, read(name).kind) == (level, "body")


@pytest.mark.parametrize("name", ["vertebrae_body", "Vertebral bodies", "corpus"])
def test_one_label_for_all_bodies(name: str) -> None:
    assert (read(name).level, read(name).kind) == (None, "body")


@pytest.mark.parametrize(
    "name",
    [
        "T1_weighted",
        "T1w",
        "T2 map",
        "rib_left_12",
        "T12 rib",
        "L1-L2 disc",
        "T12-L1 disc",
        "disc T10-12",
        "S2-4",
        "disc_L5_S1",
        "Bandscheibe L4/5",
        "disque L4-L5",
        "spinal cord",
        "spinal_canal",
        "sacrum",
        "lesion T10",
        "T10 blastic 1",
        "metastasis in L3 body",
        "L1 nerve root",
        "S2",
        "body",
        "psoas L3",
        "kidney_left",
        "L1 left pedicle",
    ],
)
def test_names_of_other_things(name: str) -> None:
    assert (read(name).level, read(name).kind) == (None, "other")


SPELLINGS = st.sampled_from(["{}", "vertebrae_{}", "{} vertebra", "Vertebra-{}", "label {}"])


@given(st.sampled_from(LEVELS), SPELLINGS, st.sampled_from([str.lower, str.upper, str.title]))
def test_every_level_is_known_in_every_spelling(
    level: str, spelling: str, case: Callable[[str], str]
) -> None:
    [found] = assign(named(case(spelling.format(level))))
    assert found.level == level


JOINTS = ("-", " - ", "/", "+", ", ", " & ", "\u2013", " to ", " bis ", " und ", " and ", " et ")
GERMAN = {"C": "HWK", "T": "BWK", "L": "LWK"}


@given(st.sampled_from(LEVELS), st.integers(2, 12), st.sampled_from(JOINTS), st.booleans())
def test_a_further_number_is_a_further_level(
    level: str, second: int, joint: str, german: bool
) -> None:
    """Read as its first level alone, a range would be a lesion lost or a segment of another."""
    region, n = level[0], int(level[1:])
    name = f"{GERMAN.get(region, region)} {n}" if german else level
    meaning = meaning_of_name(f"{name}{joint}{second}")
    assert meaning is not None
    if second == n:
        assert meaning.level == level
    else:
        assert meaning.level is None and "several levels" in meaning.problem
    assert level_of(f"{name}{joint}{second}") is None


@given(st.sampled_from(LEVELS), st.sampled_from(["_{}", " {}", "_v{}", " ({})", " body {}"]))
def test_a_number_that_counts_copies_is_no_further_level(level: str, suffix: str) -> None:
    for number in range(1, 20):
        meaning = meaning_of_name(f"{level}{suffix.format(number)}")
        assert meaning is not None and meaning.level == level


@pytest.mark.parametrize(
    ("text", "level"),
    [
        *(("L1", "L1"), ("th12", "T12"), ("Th 12", "T12"), ("LWK3", "L3"), ("D5", "T5")),
        *(("vertebrae_L1", "L1"), ("12. BWK", "T12"), ("lumbar 3", "L3"), ("atlas", "C1")),
        *(("L1?", None), ("(L1)", None), ("-L1", None), ("L1-3", None), ("L1-1", None)),
        *(("none L1", None), ("not L1", None), ("T14", None), ("L1_2", None), ("", None)),
    ],
)
def test_a_text_is_a_level_as_a_whole(text: str, level: str | None) -> None:
    assert level_of(text) == level


def test_a_name_of_several_levels_is_not_left_to_the_id() -> None:
    first, second = Segment("vertebrae_T10", "T10-12", 1, 0), Segment("vertebrae_L1", "bone", 2, 0)
    assert [a.level for a in assign(segmentation(first, second))] == [None, "L1"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("bone 3a", "name not understood"),
        ("Knochenstück", "name not understood"),
        ("vert_20", "counts vertebrae"),
        ("Wirbel 3", "counts vertebrae"),
        ("T12 L1", "several levels (T12, L1)"),
        ("L5/S1", "several levels (L5, S1)"),
        ("L1-2", "several levels (L1, L2)"),
        ("T10-12", "several levels (T10, T12)"),
        ("Th4-6", "several levels (T4, T6)"),
        ("L1 to 3", "several levels (L1, L3)"),
        ("L1 bis 3", "several levels (L1, L3)"),
        ("LWK 1 und 2", "several levels (L1, L2)"),
        ("LWK 3+4", "several levels (L3, L4)"),
        ("LWK 1, 2 und 4", "several levels (L1, L2, L4)"),
        ("L1 \u2013 3", "several levels (L1, L3)"),
        ("L1...3", "several levels (L1, L3)"),
        ("T12-10", "several levels (T10, T12)"),
        ("Th XI-XII", "several levels (T11, T12)"),
        ("3.-5. LWK", "several levels (L3, L5)"),
        ("11. und 12. BWK", "several levels (T11, T12)"),
        ("lumbar 3-5", "several levels (L3, L5)"),
        ("first and second lumbar vertebra", "several levels (L1, L2)"),
        ("第1-3腰椎", "several levels (L1, L3)"),
        ("S1-5", "several levels (S1, S5)"),
        ("not L1", "says that it is not L1"),
        ("all vertebrae but L1", "says that it is not L1"),
        ("Wirbel ohne LWK 1", "says that it is not L1"),
        ("lumbar vertebra", "does not give a level"),
        ("C8", "C8 is not a level"),
        ("T14", "T14 is not a level"),
        ("L7", "L7 is not a level"),
    ],
)
def test_a_name_without_a_usable_level_is_kept_for_the_report(name: str, problem: str) -> None:
    found = read(name)
    assert (found.level, found.kind, found.name) == (None, "vertebra", name)
    assert problem in found.problem
    assert name in format_mapping([found])


@given(st.sampled_from(LEVELS), st.from_regex(r"[a-z]{3,12}", fullmatch=True))
def test_a_level_beside_a_foreign_word_is_that_level(level: str, word: str) -> None:
    with_word = assign(named("vertebrae_C7", f"{word}x {level}"))[1]
    assert with_word.level in (None, level) if level == "C7" else with_word.level == level


def test_a_code_of_another_structure_makes_a_strange_name_no_vertebra() -> None:
    liver = Segment("", "Leberchen", 1, 0, entry("SCT^10200004^Liver"))
    tissue = Segment("", "Leberchen", 2, 0, entry("SCT^85756007^Tissue"))
    found = assign(segmentation(liver, tissue, Segment("", "L1", 3, 0)))
    assert [(a.kind, a.level) for a in found] == [
        ("other", None),
        ("vertebra", None),
        ("vertebra", "L1"),
    ]


def test_the_displayed_name_is_preferred_to_the_id() -> None:
    renamed = Segment("vertebrae_L1", "T12 vertebra", 1, 0)
    translated = Segment("vertebrae_L2", "deuxième lombaire", 2, 0)
    assert [a.level for a in assign(segmentation(renamed, translated))] == ["T12", "L2"]


@pytest.mark.parametrize("level", [level for level in LEVELS if level not in ("T13", "L6")])
def test_a_level_is_known_by_its_code_alone(level: str) -> None:
    coded = Segment("s", "my segment", 1, 0, entry(f"SCT^{SNOMED[level]}^{level} vertebra"))
    [found] = assign(segmentation(coded))
    assert (found.level, found.kind, found.source) == (level, "vertebra", "code")


def test_levels_have_codes_of_their_own_but_for_the_two_variants() -> None:
    own = [SNOMED[level] for level in LEVELS if level not in ("T13", "L6")]
    assert len(set(own)) == 25
    assert SNOMED["T13"] == SNOMED["L6"] == "51282000"
    assert set(SNOMED) == set(LEVELS)


def test_generic_codes_take_the_level_from_the_region_or_the_name() -> None:
    vertebra, body, l1 = "SCT^51282000^Vertebra", "SCT^3572006^Vertebral body", "SCT^66794005^L1"
    found = assign(
        segmentation(
            Segment("a", "first", 1, 0, entry(vertebra, region=l1)),
            Segment("b", "second", 2, 0, entry(body, region=l1)),
            Segment("c", "L6", 3, 0, entry(vertebra)),
            Segment("d", "T5", 4, 0, entry(body)),
            Segment("e", "body_T6", 5, 0, entry(f"SCT^{SNOMED['T6']}^T6 vertebra")),
            Segment("f", "all of them", 6, 0, entry(body)),
            Segment("g", "which one?", 7, 0, entry(vertebra)),
        )
    )
    assert [(a.level, a.kind) for a in found] == [
        ("L1", "vertebra"),
        ("L1", "body"),
        ("L6", "vertebra"),
        ("T5", "body"),
        ("T6", "body"),
        (None, "body"),
        (None, "vertebra"),
    ]


def test_a_code_wins_over_the_name_and_says_so() -> None:
    [found] = assign(segmentation(Segment("", "T11", 1, 0, entry("SCT^23215003^T12 vertebra"))))
    assert found.level == "T12"
    assert "T11" in found.source
    assert found.flags == ("its code says T12, its name T11",)


def test_a_lesion_is_no_vertebra_whatever_its_region() -> None:
    tumour = entry("SCT^14799000^Neoplasm, Secondary", LESION, region="SCT^7610001^T10 vertebra")
    found = assign(segmentation(Segment("", "T10", 1, 0, tumour), Segment("", "T10", 2, 0)))
    assert [(a.level, a.kind) for a in found] == [(None, "other"), ("T10", "vertebra")]


def test_an_entry_of_another_scheme_or_shape_leaves_it_to_the_name() -> None:
    wrong = [entry("99X^66794005^L1"), "SCT^66794005^L1 vertebra", "~~~~~~", entry("")]
    for terminology in wrong:
        [found] = assign(segmentation(Segment("", "T4", 1, 0, terminology)))
        assert (found.level, found.source) == ("T4", "name")


TABLES = {
    "totalsegmentator": {50: "C1", 44: "C7", 43: "T1", 32: "T12", 31: "L1", 27: "L5", 26: "S1"},
    "totalsegmentator-v1": {18: "L5", 22: "L1", 23: "T12", 34: "T1", 35: "C7", 41: "C1"},
    "totalsegmentator-mr": {2: "L5", 6: "L1", 7: "T12", 18: "T1", 19: "C7", 25: "C1"},
    "totalsegmentator-bodies": {1: "C1", 7: "C7", 8: "T1", 19: "T12", 20: "L1", 24: "L5"},
    "verse": {1: "C1", 7: "C7", 8: "T1", 19: "T12", 20: "L1", 24: "L5", 25: "L6", 28: "T13"},
    "totalspineseg": {11: "C1", 17: "C7", 21: "T1", 32: "T12", 41: "L1", 45: "L5", 46: "L6"},
    "totalspineseg-old": {18: "L5", 22: "L1", 23: "T12", 34: "T1", 35: "C7", 41: "C1"},
    "totalsegmentator-v3": {50: "C1", 43: "T1", 32: "T12", 31: "L1", 27: "L5", 26: "L6"},
}
OTHERS = {
    "totalsegmentator": (25, 51, 117),
    "totalsegmentator-v1": (17, 42),
    "totalsegmentator-mr": (1,),
    "verse": (27, 101, 119, 220),
    "totalspineseg": (50, 63, 71, 91, 100),
    "totalspineseg-old": (92, 200, 224),
    "totalsegmentator-v3": (25, 51, 117),
}


@pytest.mark.parametrize("convention", TABLES)
def test_values_of_each_convention(convention: str) -> None:
    table, others = TABLES[convention], OTHERS.get(convention, ())
    found = assign(valued(*table, *others), convention)
    assert {a.segment.value: a.level for a in found if a.level} == table
    kind = "body" if convention == "totalsegmentator-bodies" else "vertebra"
    assert {a.kind for a in found if a.level} == {kind}
    assert [a.segment.value for a in found if a.kind == "other"] == list(others)
    assert {a.source for a in found} == {convention}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_convention_gives_no_level_twice(convention: str) -> None:
    levels = [m.level for m in CONVENTIONS[convention].meanings.values() if m.level]
    assert len(levels) == len(set(levels))
    assert len(levels) >= 24 or convention == "totalsegmentator-body"


def test_26_is_never_s1_or_l6_in_silence() -> None:
    """S1 in version 2 of TotalSegmentator, L6 in version 3, the sacrum to VerSe."""
    [_, second] = assign(valued(27, 26), "totalsegmentator")
    assert second.level == "S1" and "L6 in version 3" in second.flags[0]
    assert assign(valued(27, 26), "totalsegmentator-v3")[1].flags == ()
    [_, sacrum] = assign(valued(24, 26), "verse")
    assert (sacrum.level, sacrum.kind, sacrum.name) == (None, "vertebra", "sacrum")


def test_all_bodies_in_one_label_are_refused_with_the_way_out() -> None:
    for spine, labels in ((valued(1, 2), "totalsegmentator-body"), (named("vertebrae_body"), None)):
        with pytest.raises(InputError, match=r"all vertebrae in one label.*--bodies"):
            assign(spine, labels)


def test_a_count_is_read_by_a_declared_convention_alone() -> None:
    with pytest.raises(InputError, match=r"counts its vertebrae \(vert_19, vert_20\).*--labels"):
        assign(named("vert_19", "vert_20"))
    assert [a.level for a in assign(named("vert_19", "vert_20"), "verse")] == ["T12", "L1"]


def test_a_value_the_convention_does_not_know_is_kept_for_the_report() -> None:
    found = assign(valued(20, 99), "verse")[1]
    assert (found.level, found.kind, found.source) == (None, "vertebra", "not in verse")


def test_values_are_never_read_without_a_declaration() -> None:
    for labels in (None, "names"):
        with pytest.raises(InputError) as refused:
            assign(valued(20, 21, 22, 23, 24), labels)
        text = str(refused.value)
        assert text.startswith("spine.seg.nrrd: ") and "\n" not in text
        assert "20, 21, 22, 23, 24" in text
        assert "verse" in text and "totalsegmentator-v1" in text and "--labels" in text
        assert "totalspineseg," not in text  # it knows no 20


def test_a_wrong_declaration_is_told_with_the_values() -> None:
    with pytest.raises(InputError, match=r"no vertebrae by verse; values present: 32, 33"):
        assign(valued(32, 33), "verse")


def test_segments_that_are_no_vertebrae_are_listed() -> None:
    with pytest.raises(InputError, match="known as a vertebra: liver, spleen"):
        assign(named("liver", "spleen"))


def test_names_win_over_a_declared_convention() -> None:
    found = assign(named("L5", "L4", "liver", ""), "verse")
    assert [(a.level, a.source) for a in found] == [
        ("L5", "name"),
        ("L4", "name"),
        (None, "name"),
        ("C4", "verse"),
    ]


def test_a_declaration_reads_a_file_whose_names_say_nothing() -> None:
    found = assign(named("Segment_1", "label 2", "knochen"), "verse")
    assert [a.level for a in found] == ["C1", "C2", "C3"]


def test_a_second_segment_of_one_level_is_marked_and_not_used() -> None:
    found = assign(named("L1", "vertebrae_L1", "L1 body", "corpus L1"))
    assert [(a.level, a.kind) for a in found] == [
        ("L1", "vertebra"),
        (None, "vertebra"),
        ("L1", "body"),
        (None, "other"),
    ]
    assert "L1 is L1 already" in found[1].problem
    assert found[0].flags == ("another label (vertebrae_L1) claims to be L1 too",)


@given(st.lists(st.sampled_from([*LEVELS, "L1 body", "rib", "", "Segment_1"]), max_size=12))
def test_levels_are_unique_and_no_segment_is_lost(names: list[str]) -> None:
    spine = named("vertebrae_C7", *names)
    found = assign(spine)
    assert [a.segment for a in found] == list(spine.segments)
    taken = [(a.level, a.kind) for a in found if a.level]
    assert len(taken) == len(set(taken))


def write_json(folder: Path, text: str) -> str:
    path = folder / "map.json"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_mapping_file(tmp_path: Path) -> None:
    labels = write_json(
        tmp_path, '{"3": "L1", "04": "Th12", "5": "L1 body", "6": null, "7": "other"}'
    )
    found = assign(valued(3, 4, 5, 6, 7, 8), labels)
    assert [(a.level, a.kind) for a in found] == [
        ("L1", "vertebra"),
        ("T12", "vertebra"),
        ("L1", "body"),
        *[(None, "other")] * 3,
    ]
    assert found[0].source == "map.json"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"3": "L9"}', 'value 3 is mapped to "L9"'),
        ('{"3": 21}', "value 3 is mapped to 21"),
        ('{"3": ["L1"]}', "value 3"),
        ('{"L1": 20}', '"L1" is not a label value'),
        ('{"0": "L1"}', '"0" is not a label value'),
        ('{"-1": "L1"}', '"-1" is not a label value'),
        ('{"3": "L1", "03": "L2"}', "value 3 is mapped twice"),
        ('["L1"]', "not a JSON object"),
        ("3", "not a JSON object"),
        ('{"3": "L1"', "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100000, "not valid JSON"),
        ("{}", "no vertebrae by map.json"),
    ],
)
def test_a_bad_mapping_file_is_refused_in_one_line(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(InputError) as refused:
        assign(valued(3), write_json(tmp_path, text))
    assert cause in str(refused.value) and "map.json" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_mapping_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not valid JSON"):
        assign(valued(3), str(tmp_path / "map.json"))
    with pytest.raises(InputError, match=r"missing\.json: cannot be read"):
        assign(valued(3), str(tmp_path / "missing.json"))


def test_an_unknown_convention_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as refused:
        assign(valued(3), "nnunet")
    assert all(name in str(refused.value) for name in [*CONVENTIONS, "names"])


PAIRS = st.tuples(st.integers(1, 300), st.sampled_from(LEVELS))


@given(st.lists(PAIRS, min_size=1, max_size=5, unique_by=(lambda p: p[0], lambda p: p[1])))
def test_a_mapping_file_is_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, str]]
) -> None:
    table = dict(pairs)
    labels = write_json(tmp_path_factory.mktemp("map"), json.dumps(table))
    assert levels_by_value(labels, *table) == table


def test_the_mapping_is_printed_by_evidence() -> None:
    organs = [f"liver {n}" for n in range(20)]
    text = format_mapping(assign(named("L1", "L2 body", "vertebrae_body", "vertebra L1", *organs)))
    lines = text.splitlines()
    assert lines[0] == "by name: L1 = L1, L2 body = L2 body, vertebrae_body = all bodies"
    assert lines[1].startswith("vertebrae without a usable level: vertebra L1 (")
    assert lines[2].startswith("not vertebrae: liver 0, ") and lines[2].endswith("and 8 more")
    assert (
        format_mapping(assign(valued(20, 119), "verse")) == "by verse: 20 = L1\nnot vertebrae: 119"
    )


def test_value_50_depends_on_the_tool() -> None:
    """The trap of the field: the same value is C1, the sacrum, or nothing known."""
    seen = {name: assign(valued(22, 50), name)[1].level for name in ("verse", "totalspineseg")}
    seen["totalsegmentator"] = assign(valued(31, 50), "totalsegmentator")[1].level
    assert seen == {"verse": None, "totalspineseg": None, "totalsegmentator": "C1"}
