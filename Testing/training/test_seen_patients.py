"""Whom weights have seen, by provenances of this version and of earlier ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from hideseekseg.errors import InputError
from hideseekseg.model.profile import read_profile
from hideseekseg.model.weights import BUNDLE
from hideseekseg.simulation.source_vertebrae import chosen, one_spelling
from hideseekseg.training.seen_patients import (
    chosen_on,
    require_unseen,
    say_unchecked,
    seen_patients,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def test_everybody_behind_a_start_was_learned_from() -> None:
    first = {"patients": ["Ada", "drawn 0"], "chosen on": ["Cyn"]}
    second = {"own patients": 3, "start": first}
    third = {"patients": ["Ben", "ADA"], "start": second, "chosen on own patients": 2}
    seen = seen_patients(third)
    assert seen.learned([" ben", "ada", "Cyn", "drawn 0"]) == [" ben", "ada"]
    assert seen.chosen(["CYN", "Ada"]) == ["CYN"]
    assert seen.learned_unknown == "they learned from 3 patients, of whom only the number is stated"
    assert (
        seen.chosen_unknown == "training was ended on 2 patients, of whom only the number is stated"
    )
    assert seen_patients(first).learned_unknown == seen_patients(first).chosen_unknown == ""


@pytest.mark.parametrize(
    ("provenance", "learned", "chosen"),
    [
        ({}, "does not state which patients they learned from", ""),
        ({"patients": []}, "does not state which patients they learned from", ""),
        ({"patients": "Ada"}, "does not state which patients they learned from", ""),
        ({"patients": ["A"], "start": {}}, "does not state which patients they learned from", ""),
        ({"patients": ["A"], "training": {"start": "f00"}}, "which patients their start", ""),
        ({"patients": ["A"], "training": {"start": None}}, "", ""),
        (
            {"patients": ["A"], "thresholds": "tuned on the validation set"},
            "",
            "does not state on which patients thresholds were tuned",
        ),
        (
            {"patients": ["A"], "thresholds": "tuned on the validation set", "chosen on": ["B"]},
            "",
            "",
        ),
    ],
)
def test_what_a_provenance_does_not_say_is_not_known(
    provenance: dict[str, object], learned: str, chosen: str
) -> None:
    seen = seen_patients(provenance)
    for said, expected in ((seen.learned_unknown, learned), (seen.chosen_unknown, chosen)):
        assert (expected in said) if expected else said == ""


def test_weights_of_this_repository_say_whom_they_know() -> None:
    bundle = seen_patients(read_profile(BUNDLE).profile.provenance)
    assert bundle.learned(["Verse014", "ts_aorta", "dlwpt"]) == ["Verse014"]
    assert bundle.chosen(["ts_aorta", "dlwpt", "lung1_001"]) == ["lung1_001", "ts_aorta"]
    assert bundle.learned_unknown == bundle.chosen_unknown == ""
    folder = REPOSITORY / "Resources" / "Weights" / "version-0.1.0"
    old = seen_patients(read_profile(folder).profile.provenance)
    assert old.learned(["lidc0001"]) and "thresholds were tuned" in old.chosen_unknown


def test_learned_patients_are_refused_and_unknown_ones_said() -> None:
    weights, where = Path("weights"), Path("cases")
    said: list[str] = []
    seen = seen_patients({"patients": ["Ada"], "start": {"own patients": 1}})
    with pytest.raises(InputError, match=r"cases: shows patients whom weights learned from: ADA$"):
        require_unseen(where, ["Ben", "ADA"], weights, seen)
    require_unseen(where, ["Ben", "Cyn"], weights, seen)
    say_unchecked(weights, seen, where, said.append)
    (line,) = said
    assert line.startswith("weights: they learned from 1 patient, of whom only")
    assert line.endswith("whether cases shows one cannot be checked")
    say_unchecked(weights, seen_patients({"patients": ["Ada"]}), where, said.append)
    assert len(said) == 1


def test_those_on_whom_was_chosen_are_added() -> None:
    before = {"chosen on": ["Ada", "Cyn"]}
    assert chosen_on(before, ["ada", "Ben"]) == {"chosen on": ["Ada", "Ben", "Cyn"]}
    assert chosen_on({}, ["Ben"]) == {"chosen on": ["Ben"]}


def test_names_mean_persons_and_each_of_them_somebody() -> None:
    known = ["P07", "p07", "Ada  B", "P08", "P07"]
    assert chosen(Path("x"), [" p07"], known) == ["P07", "p07"]
    assert chosen(Path("x"), ["ada b", "P08", "p08"], known) == ["Ada  B", "P08"]
    assert chosen(Path("x"), [], known) == []
    for names, unknown in ((["P07", "P7"], "P7"), (["x", "P08", "y"], "x, y")):
        with pytest.raises(InputError, match=f"x: has no patient {unknown}$"):
            chosen(Path("x"), names, known)
    assert one_spelling(known) == ["P07", "P07", "Ada  B", "P08", "P07"]
