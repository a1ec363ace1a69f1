"""The review as its reader sees it: what is shown, what a verdict does, undo, redo, saving."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.findings import make_grid, make_result
from hideseekseg.findings import Candidate, LesionType, Status, VertebraFinding
from hideseekseg.review.burden import (
    ComparedResult,
    LesionChange,
    LocatedLesion,
    compare_results,
    lesion_burden,
)
from hideseekseg.review.review import VERDICTS, Filter, Item, Review, Verdict

Step = Callable[[Review], Any]
IDS = ("T10-blastic-1", "T10-lytic-1", "T10-lytic-2", "L1-lytic-1", "L1-blastic-1")


def candidate(identity: str, score: float, at: float = 0.0) -> Candidate:
    kind: LesionType = "lytic" if "lytic" in identity else "blastic"
    box = (at - 4.0, -4.0, -4.0, at + 4.0, 4.0, 4.0)
    return Candidate(identity, kind, score, 120.0, (at, 0.0, 0.0), box, 0.02, None, (3, 4))


def vertebra(level: str, *candidates: Candidate) -> VertebraFinding:
    status = Status.FINDINGS if candidates else Status.NO_FINDING
    return VertebraFinding(level, status, p_malignant=0.9, candidates=candidates)


T10 = vertebra(
    "T10",
    candidate("T10-blastic-1", 0.92),
    candidate("T10-lytic-1", 0.61),
    candidate("T10-lytic-2", 0.12),
)
L1 = vertebra("L1", candidate("L1-lytic-1", 0.7), candidate("L1-blastic-1", 0.4))


def make_review() -> Review:
    review = Review(0.5)
    for finding in (T10, vertebra("T11"), L1):
        review.add_vertebra(finding)
    review.add_vertebra(VertebraFinding("L2", Status.NOT_ANALYSED, "cut by the field of view"))
    return review


@pytest.fixture
def review() -> Review:
    return make_review()


def names(items: tuple[Item, ...]) -> list[str]:
    return [item.name for item in items]


def said(review: Review) -> dict[str, Any]:
    """All that a reader could notice, without the history."""
    data = review.to_json()
    seen = [data.pop("undo"), data.pop("redo")]
    assert all(isinstance(stack, list) for stack in seen)
    data["opinions"] = {i.id: (i.verdict, i.comment, i.type) for i in review.items}
    return data


def verdicts(review: Review) -> dict[str, str]:
    return {item.id: item.verdict for item in review.items}


# --- what is shown --------------------------------------------------------------------------------


def test_candidates_stand_by_score_and_the_threshold_hides_the_weak(review: Review) -> None:
    assert [item.score for item in review.items] == [0.92, 0.7, 0.61, 0.4, 0.12]
    assert names(review.shown()) == ["T10 blastic 1", "L1 lytic 1", "T10 lytic 1"]
    assert review.counts() == "3 of 5 shown"
    review.set_threshold(0.7)
    assert names(review.shown()) == ["T10 blastic 1"], "0.7 is not above 0.7"
    review.set_threshold(0.0)
    assert review.counts() == "5 of 5 shown"


def test_what_a_human_judged_stays_in_sight(review: Review) -> None:
    review.judge("T10-lytic-2", "rejected")
    review.judge("L1-blastic-1", "accepted")
    review.set_threshold(1.0)
    assert names(review.shown()) == ["L1 blastic 1", "T10 lytic 2"]
    review.judge("T10-lytic-2", "unreviewed")
    assert names(review.shown()) == ["L1 blastic 1"]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (Filter(level="T10"), ["T10 blastic 1", "T10 lytic 1"]),
        (Filter(type="lytic"), ["L1 lytic 1", "T10 lytic 1"]),
        (Filter(verdict="accepted"), ["L1 lytic 1"]),
        (Filter("T10", "lytic", "unreviewed"), ["T10 lytic 1"]),
        (Filter(level="T11"), []),
    ],
)
def test_filters(wanted: Filter, shown: list[str], review: Review) -> None:
    review.judge("L1-lytic-1", "accepted")
    assert names(review.shown(wanted)) == shown
    assert review.counts(wanted) == f"{len(shown)} of 5 shown"


def test_summary_and_quiet_vertebrae_follow_threshold_and_verdicts(review: Review) -> None:
    assert review.summary() == (
        "4 vertebrae, 2 with findings, 0 accepted, 3 to review, 1 not analysed"
    )
    silent = ("L2", "not analysed: cut by the field of view")
    assert states(review) == [
        ("T10", "2 lesions outlined"),
        ("T11", "unremarkable"),
        ("L1", "lesion outlined"),
        silent,
    ]
    review.judge("L1-lytic-1", "rejected")
    review.judge("T10-blastic-1", "accepted")
    rejected = ("L1", "unremarkable, findings rejected")
    assert states(review)[1:] == [("T11", "unremarkable"), rejected, silent]
    assert review.summary() == (
        "4 vertebrae, 1 with findings, 1 accepted, 1 to review, 1 not analysed"
    )
    review.set_threshold(0.99)
    assert review.vertebrae["T10"].status is Status.FINDINGS, "accepted by a human"
    review.add_missed("L2", "lytic")
    assert states(review)[1:] == [
        ("T11", "unremarkable"),
        rejected,
        ("L2", "lesion outlined; not analysed: cut by the field of view"),
    ]
    assert review.summary().endswith("2 accepted, 0 to review, 1 not analysed")
    for accepted in (True, False):
        assert review.burden(accepted)[-1].share_of_body is None
    again = Review.from_json(json.loads(json.dumps(review.to_json())))
    assert states(again) == states(review) and not again.vertebrae["L2"].analysed
    review.undo()
    assert states(review)[-1] == silent


@pytest.mark.parametrize(
    ("p", "flagged", "words"),
    [
        (0.98, False, "suspicious, nothing outlined (best candidate lytic, 0.31)"),
        (0.6, True, "suspicious, nothing outlined (best candidate lytic, 0.31)"),
        (0.6, False, "unremarkable"),
        (None, False, "unremarkable"),
    ],
)
def test_high_p_is_never_called_unremarkable(p: float | None, flagged: bool, words: str) -> None:
    """Whether the weights are calibrated (they flag it) or not."""
    candidate = make_result(make_grid((70, 50, 50), (1.2, 1.1, 2.0))).vertebrae[0].candidates[2]
    finding = VertebraFinding(
        "T10", Status.NO_FINDING, p_malignant=p, suspicious=flagged, candidates=(candidate,)
    )
    assert finding.state(0.5) == words
    review = Review(0.5)
    review.add_vertebra(finding)
    assert states(review) == [("T10", words)]
    assert ("1 suspicious" in review.summary()) == words.startswith("suspicious")
    again = Review.from_json(json.loads(json.dumps(review.to_json())))
    assert states(again) == states(review)
    review.judge(candidate.id, "rejected")
    assert states(review) == [("T10", f"{words}, findings rejected")]


def test_a_changed_level_is_said_where_states_were_looked_at_before(review: Review) -> None:
    level = review.items[0].level
    flags = {state.level: state.flags for state in review.states()}
    assert review.set_outdated({level})
    now = {state.level: state.flags for state in review.states()}
    assert "out of date" in now[level][-1]
    assert {k: v for k, v in now.items() if k != level} == {
        k: v for k, v in flags.items() if k != level
    }
    assert review.set_outdated(set()) and not review.set_outdated(set())
    assert {state.level: state.flags for state in review.states()} == flags


def states(review: Review) -> list[tuple[str, str]]:
    return [(state.level, state.words) for state in review.states()]


# --- the burden ---------------------------------------------------------------------


def lesion(level: str, kind: LesionType, ml: float, hu: float | None, mm: float | None) -> Item:
    review = Review(0.0)
    identity = f"{level}-{kind}-1"
    found = replace(candidate(identity, 0.9), volume_mm3=1000 * ml, mean_hu=hu, diameter_mm=mm)
    review.add_vertebra(vertebra(level, found))
    return review.items[0]


def test_burden_by_level_and_in_total() -> None:
    items = [
        lesion("L1", "lytic", 1.0, 50.0, 12.0),
        lesion("L1", "lytic", 3.0, 90.0, 20.0),
        lesion("T10", "blastic", 2.0, 700.0, 16.0),
    ]
    rows = lesion_burden(items, {"T10": 20_000.0, "T11": 20_000.0, "L1": 40_000.0})
    assert [(x.level, x.type, x.number, x.volume_mm3) for x in rows] == [
        ("T10", "blastic", 1, 2000.0),
        ("L1", "lytic", 2, 4000.0),
        ("all", "lytic", 2, 4000.0),
        ("all", "blastic", 1, 2000.0),
        ("all", "all", 3, 6000.0),
    ]
    assert [x.share_of_body for x in rows] == [0.1, 0.1, 0.05, 0.025, 0.075]
    assert [x.largest_diameter_mm for x in rows] == [16.0, 20.0, 20.0, 16.0, 20.0]
    assert [x.mean_hu for x in rows] == [700.0, 80.0, 80.0, 700.0, pytest.approx(1720 / 6)]


def test_burden_says_nothing_of_what_is_not_known() -> None:
    items = [lesion("L1", "lytic", 1.0, None, None), lesion("L1", "lytic", 1.0, 10.0, 8.0)]
    for row in lesion_burden(items, {"L1": None, "L2": 1000.0}):
        assert (row.share_of_body, row.largest_diameter_mm, row.mean_hu) in (
            (None, None, None),
            (0.0, None, None),
        )
    (nothing,) = lesion_burden([], {"L1": 1000.0})
    assert (nothing.number, nothing.volume_mm3, nothing.share_of_body) == (0, 0.0, 0.0)
    assert nothing.largest_diameter_mm is None and nothing.mean_hu is None


def test_burden_counts_what_is_outlined_or_what_is_accepted(review: Review) -> None:
    assert review.burden()[-1].number == 3
    review.judge("T10-blastic-1", "accepted")
    review.judge("L1-lytic-1", "rejected")
    assert [review.burden()[-1].number, review.burden(accepted=True)[-1].number] == [2, 1]


# --- follow-up ---------------------------------------------------------------------


def located(name: str, x_mm: float, mm: float, verdict: Verdict = "unreviewed") -> LocatedLesion:
    """A lesion of L1 with its middle so far to the side, ``mm`` across."""
    volume = np.pi / 6 * mm**3
    item = replace(lesion("L1", "lytic", volume / 1000, 100.0 + x_mm, mm), id=name, verdict=verdict)
    return LocatedLesion(item, (x_mm, 0.0, 0.0))


def result_of(located: list[LocatedLesion], maybe: list[LocatedLesion]) -> ComparedResult:
    return ComparedResult("a result", located, [], maybe, set(), ["L1"], {}, False, 0.5)


def followed(
    now: list[LocatedLesion],
    before: list[LocatedLesion],
    maybe_before: list[LocatedLesion] | None = None,
) -> dict[tuple[str, str], LesionChange]:
    found = compare_results(result_of(now, []), result_of(before, maybe_before or []))
    return {
        ("+".join(x.id for x in one.now), "+".join(x.id for x in one.before)): one for one in found
    }


def test_two_lesions_that_joined_are_one_and_neither_is_gone() -> None:
    two, one = [located("a", -7, 8), located("b", 7, 8)], located("c", 0, 22)
    said = followed([one], two)
    assert set(said) == {("c", "a+b")}
    assert said["c", "a+b"].volume_mm3 == pytest.approx(np.pi / 6 * (22**3 - 2 * 8**3))
    assert said["c", "a+b"].hu == pytest.approx(0.0), "of -7 and 7, each as large"
    assert set(followed(two, [one])) == {("a+b", "c")}, "and one that split is not new"


def test_a_lesion_that_vanished_beside_another_is_gone() -> None:
    """It lies within reach of the other, but not within its extent."""
    said = followed([located("a", 0, 8)], [located("a", 0, 8), located("b", 7, 6)])
    assert set(said) == {("a", "a"), ("", "b")}


def test_an_uncertain_candidate_may_be_all_the_lesions_that_it_covers() -> None:
    two, unsure = [located("a", -7, 8), located("b", 7, 8)], located("c", 0, 22, "uncertain")
    for change in followed(two, [], [unsure]).values():
        assert change.not_compared == "uncertain in a result"


@given(data=st.data())
def test_every_lesion_is_told_of_once_and_no_volume_is_lost(data: st.DataObject) -> None:
    places = st.lists(st.tuples(st.floats(-20, 20), st.floats(2, 30)), max_size=5)
    now = [located(f"n{n}", x, mm) for n, (x, mm) in enumerate(data.draw(places))]
    before = [located(f"b{n}", x, mm) for n, (x, mm) in enumerate(data.draw(places))]
    changes = compare_results(result_of(now, []), result_of(before, []))
    for own, side in ((now, "now"), (before, "before")):
        told = [x.id for change in changes for x in getattr(change, side)]
        assert sorted(told) == sorted(x.lesion.id for x in own)
    whole = sum(x.lesion.volume_mm3 for x in now) - sum(x.lesion.volume_mm3 for x in before)
    assert sum(change.volume_mm3 for change in changes) == pytest.approx(whole, abs=1e-6)


# --- reasons ---------------------------------------------------------------------


def test_a_rejected_candidate_keeps_its_reason(review: Review) -> None:
    review.judge("L1-lytic-1", "rejected", "haemangioma")
    assert (review.item("L1-lytic-1").verdict, review.item("L1-lytic-1").reason) == (
        "rejected",
        "haemangioma",
    )
    again = Review.from_json(json.loads(json.dumps(review.to_json())))
    assert again.items == review.items
    review.judge("L1-lytic-1", "accepted")
    assert review.item("L1-lytic-1").reason == "", "an accepted one has no benign reason"
    review.undo()
    assert review.item("L1-lytic-1").reason == "haemangioma"
    with pytest.raises(ValueError, match="'cyst' is not a reason"):
        review.judge("L1-lytic-1", "rejected", "cyst")  # type: ignore[arg-type]


def test_an_uncertain_candidate_stays_outlined_and_is_not_asked_for_again(review: Review) -> None:
    review.judge("L1-lytic-1", "uncertain")
    assert "1 uncertain" in review.summary()
    review.set_threshold(0.99)
    assert [x.id for x in review.shown()] == ["L1-lytic-1"]
    assert review.vertebrae["L1"].status is Status.FINDINGS
    assert review.next_to_review("") is None


def test_reviews_without_reasons_and_measures_are_read(review: Review) -> None:
    """As version 0.1 wrote them."""
    review.judge("T10-blastic-1", "accepted")
    data = json.loads(json.dumps(review.to_json()))
    for old in data["opinions"].values():
        del old["reason"]
    for old in data["lesions"]:
        for name in ("diameter_mm", "mean_hu", "p_all", "p_hidden", "p_alone", "p_without"):
            del old[name]
    for old in data["vertebrae"]:
        del old["body_mm3"]
    assert Review.from_json(data).items == review.items


# --- the order ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("", "T10-blastic-1", "T10-lytic-1"),
        ("level", "T10-blastic-1", "L1-lytic-1"),
        ("type", "T10-blastic-1", "T10-lytic-1"),
        ("verdict", "T10-blastic-1", "L1-lytic-1"),
    ],
)
def test_the_list_is_sorted_by_any_column(
    order: str, first: str, last: str, review: Review
) -> None:
    review.judge("L1-lytic-1", "rejected")
    wanted = Filter(order=order)
    ids = [x.id for x in review.shown(wanted)]
    assert (ids[0], ids[-1]) == (first, last)
    assert review.next_after("", wanted) == first
    assert review.next_after(ids[0], wanted) == ids[1]
    assert review.previous_before(ids[1], wanted) == ids[0]
    turned = [x.id for x in review.shown(replace(wanted, backwards=True))]
    assert order == "" or turned[0] != first or turned[-1] != last


# --- going through it -----------------------------------------------------------------------------


def test_next_and_previous_walk_over_what_is_shown(review: Review) -> None:
    assert review.next_after("") == "T10-blastic-1"
    assert review.next_after("T10-blastic-1") == "L1-lytic-1"
    assert review.next_after("T10-lytic-1") is None
    assert review.previous_before("T10-blastic-1") is None
    assert review.previous_before("T10-lytic-1") == "L1-lytic-1"
    assert review.next_after("T10-blastic-1", Filter(level="T10")) == "T10-lytic-1"
    assert review.next_after("L1-lytic-1", Filter(level="T10")) == "T10-lytic-1", "from aside"


def test_a_verdict_leads_to_what_is_still_to_review(review: Review) -> None:
    review.judge("L1-lytic-1", "accepted")
    assert review.next_to_review("L1-lytic-1") == "T10-lytic-1"
    review.judge("T10-lytic-1", "rejected")
    assert review.next_to_review("T10-lytic-1") == "T10-blastic-1", "from the top again"
    review.judge("T10-blastic-1", "accepted")
    assert review.next_to_review("T10-blastic-1") is None


def test_a_verdict_leads_on_where_only_unreviewed_ones_are_listed(review: Review) -> None:
    wanted = Filter(verdict="unreviewed")
    review.judge("L1-lytic-1", "accepted")
    assert review.next_to_review("L1-lytic-1", wanted) == "T10-lytic-1"


# --- types, comments, missed lesions --------------------------------------------------------------


def test_a_switched_type_gives_a_name_nobody_else_has(review: Review) -> None:
    for identity in IDS:
        review.switch_type(identity)
        assert len(set(names(review.items))) == len(IDS)
    assert review.item("T10-blastic-1").name == "T10 lytic 3"
    assert review.item("T10-lytic-2").type == "blastic"
    assert review.item("T10-lytic-2").name == "T10 blastic 3"
    review.switch_type("T10-blastic-1")
    assert review.item("T10-blastic-1").name == "T10 blastic 1"


def test_a_lesion_that_was_missed_is_shown_accepted_and_undoable(review: Review) -> None:
    first = review.add_missed("T11", "lytic")
    second = review.add_missed("T11", "blastic", volume_mm3=50.0)
    review.set_threshold(1.0)
    assert names(review.shown()) == ["T11 lytic added 1", "T11 blastic added 2"]
    assert {review.item(x).verdict for x in (first, second)} == {"accepted"}
    assert review.item(first).p_malignant == 0.9, "of its vertebra"
    box = (0.0, 0.0, 0.0, 4.0, 4.0, 4.0)
    review.measure(
        first,
        replace(
            review.item(first),
            volume_mm3=64.0,
            centroid_lps=(2.0, 2.0, 2.0),
            box_lps=box,
            diameter_mm=5.0,
            mean_hu=40.0,
        ),
    )
    assert (review.item(first).diameter_mm, review.item(first).mean_hu) == (5.0, 40.0)
    assert review.item(first).volume_mm3 == 64.0
    review.undo()
    assert review.undo() == (second,)
    assert second not in verdicts(review)
    review.undo()
    review.redo()
    assert review.item(first).volume_mm3 == 64.0, "its voxels were not undone"
    with pytest.raises(ValueError, match="T10-lytic-1 is there already"):
        review.add_missed("T10", "lytic", "T10-lytic-1")


@pytest.mark.parametrize("act", [lambda r: r.judge("x", "accepted"), lambda r: r.comment("x", "")])
def test_an_unknown_candidate_is_refused(act: Step, review: Review) -> None:
    with pytest.raises(KeyError, match="x"):
        act(review)
    assert not review.can_undo


def test_what_changes_nothing_is_no_step(review: Review) -> None:
    assert review.judge(IDS[0], "unreviewed") == ()
    assert review.comment(IDS[0], "  ") == ()
    assert review.set_threshold(0.5) == ()
    assert not review.can_undo
    assert review.undo() is None
    assert review.redo() is None


# --- undo, redo -----------------------------------------------------------------------------------


def test_a_drag_of_the_slider_is_one_step(review: Review) -> None:
    review.judge(IDS[0], "accepted")
    for percent in range(50, 90):
        review.set_threshold(percent / 100)
    assert review.undo() == ()
    assert review.threshold == 0.5
    assert review.redo() == ()
    assert review.threshold == 0.89
    review.undo()
    assert review.undo() == (IDS[0],)
    assert not review.can_undo


def test_something_new_ends_what_was_undone(review: Review) -> None:
    review.judge(IDS[0], "accepted")
    review.undo()
    assert review.can_redo
    review.comment(IDS[1], "osteophyte")
    assert not review.can_redo
    assert review.item(IDS[0]).verdict == "unreviewed"


thresholds = st.floats(0.0, 1.0)
judge = st.tuples(st.sampled_from(IDS), st.sampled_from(VERDICTS)).map(lambda x: _judge(*x))
switch = st.sampled_from(IDS).map(lambda x: lambda review: review.switch_type(x))
comment = st.tuples(st.sampled_from(IDS), st.text(max_size=5)).map(lambda x: _comment(*x))
move = thresholds.map(lambda x: lambda review: review.set_threshold(x))
add = st.sampled_from(["T10", "T11"]).map(lambda x: lambda review: review.add_missed(x, "lytic"))
undo = st.just(lambda review: review.undo())
redo = st.just(lambda review: review.redo())
steps = st.lists(st.one_of(judge, switch, comment, move, add), max_size=25)
wanderings = st.lists(st.one_of(judge, switch, comment, move, add, undo, redo), max_size=25)


def _judge(identity: str, verdict: Any) -> Step:
    return lambda review: review.judge(identity, verdict)


def _comment(identity: str, text: str) -> Step:
    return lambda review: review.comment(identity, text)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_as_many_undos_lead_back_and_redos_forth(done: list[Step]) -> None:
    review = make_review()
    first = said(review)
    for step in done:
        step(review)
    last = said(review)
    for _ in done:
        review.undo()
    assert said(review) == first
    assert not review.can_undo
    for _ in done:
        review.redo()
    assert said(review) == last
    assert not review.can_redo


@settings(max_examples=60, deadline=None)
@given(wanderings, thresholds)
def test_the_threshold_never_changes_a_verdict(done: list[Step], threshold: float) -> None:
    review = make_review()
    for step in done:
        step(review)
    before = {x.id: (x.verdict, x.comment, x.type) for x in review.items}
    review.set_threshold(threshold)
    assert {x.id: (x.verdict, x.comment, x.type) for x in review.items} == before
    judged = {x.id for x in review.items if x.verdict != "unreviewed"}
    assert judged <= {x.id for x in review.shown()}


@settings(max_examples=60, deadline=None)
@given(wanderings)
def test_a_saved_review_goes_on_as_if_nothing_had_been(done: list[Step]) -> None:
    review = make_review()
    for step in done:
        step(review)
    back = Review.from_json(json.loads(json.dumps(review.to_json())))
    assert back.items == review.items
    assert (back.summary(), back.states()) == (review.summary(), review.states())
    assert (back.can_undo, back.can_redo) == (review.can_undo, review.can_redo)
    while review.can_undo:
        assert back.undo() == review.undo()
        assert said(back) == said(review)
    while review.can_redo:
        assert back.redo() == review.redo()
        assert said(back) == said(review)
    assert not back.can_redo


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.clear(),
        lambda data: data.update(schema=99),
        lambda data: data.update(undo=[{"do": "format the disk"}]),
        lambda data: data.update(threshold="high"),
        lambda data: data.update(opinions={IDS[0]: {"verdict": "maybe"}}),
        lambda data: data.update(lesions=[1]),
        lambda data: data["lesions"][0].update(type="mixed"),
        lambda data: data.update(held=[{"lesion": data["lesions"][0]}]),
    ],
)
def test_a_damaged_saved_review_is_told_in_one_line(
    damage: Callable[[dict[str, Any]], None], review: Review
) -> None:
    data = json.loads(json.dumps(review.to_json()))
    damage(data)
    with pytest.raises(ValueError, match="the saved review cannot be read") as refused:
        Review.from_json(data)
    assert "\n" not in str(refused.value)


def test_comment_that_is_kept_while_it_is_typed_is_one_step(review: Review) -> None:
    for words in ("a", "a rim", "a rim of bone"):
        review.comment(IDS[1], words)
    review.comment(IDS[3], "another")
    assert review.undo() == (IDS[3],) and review.undo() == (IDS[1],)
    assert review.item(IDS[1]).comment == "" and not review.can_undo
    assert review.redo() == (IDS[1],)
    assert review.item(IDS[1]).comment == "a rim of bone"
    review.judge(IDS[1], "accepted")
    review.comment(IDS[1], "sure")
    review.comment(IDS[1], "a rim of bone")
    review.undo()
    assert (review.item(IDS[1]).verdict, review.item(IDS[1]).comment) == (
        *("unreviewed", "a rim of bone"),
    )


# --- vertebrae that come again, or go -------------------------------------------------------------


def test_verdicts_stay_with_the_same_lesion_of_a_second_run(review: Review) -> None:
    review.judge("T10-blastic-1", "accepted")
    review.judge("T10-lytic-1", "rejected")
    review.judge("T10-lytic-2", "rejected")
    again = (candidate("T10-blastic-1", 0.8), candidate("T10-lytic-1", 0.7, at=30.0))
    review.add_vertebra(vertebra("T10", *again))
    assert verdicts(review) == {
        "T10-blastic-1": "accepted",
        "T10-lytic-1": "unreviewed",  # the same id for a lesion at another place
        "L1-lytic-1": "unreviewed",
        "L1-blastic-1": "unreviewed",
    }
    assert review.undo() == ("T10-blastic-1",), "steps of lesions that are gone are gone"
    assert not review.can_undo


def second_run(earlier: Review, *findings: VertebraFinding) -> Review:
    """A run of the same scan that has these vertebrae by now."""
    review = Review(0.5)
    review.hold(earlier)
    for finding in findings:
        review.add_vertebra(finding, earlier)
    return review


@pytest.mark.parametrize(
    "say",
    [
        lambda review: review.judge("T10-lytic-1", "accepted"),
        lambda review: review.comment("L1-lytic-1", "half of the body"),
        lambda review: review.switch_type("T10-lytic-2"),
    ],
)
def test_what_was_taken_over_from_an_earlier_run_is_work(say: Step, review: Review) -> None:
    review.set_threshold(0.3)
    assert not second_run(review, T10, L1).has_work, "nothing was said"
    say(review)
    again = second_run(review, T10, L1)
    assert again.has_work and not again.can_undo
    review.undo()
    assert not review.has_work and not second_run(review, T10, L1).has_work


def test_a_lesion_that_was_taken_over_is_work(review: Review) -> None:
    added = review.add_missed("T11", "lytic")
    review.judge(added, "unreviewed")
    again = second_run(review, T10, L1)
    assert not again.has_work
    again.adopt(review, added)
    assert again.has_work


def test_what_was_said_waits_for_vertebrae_that_a_run_did_not_reach(review: Review) -> None:
    """Stopped, crashed or left out: through saving, and until any later run has them."""
    review.judge("L1-lytic-1", "accepted")
    review.comment("L1-lytic-1", "half of the body")
    review.judge("T10-lytic-1", "rejected", "haemangioma")
    stopped = VertebraFinding("L1", Status.NOT_ANALYSED, "stopped before")
    second = second_run(review, T10, stopped)
    assert second.summary().endswith("1 to review, 1 not analysed, verdicts kept for L1")
    assert [x.id for x in second.items if x.level == "L1"] == []
    second = Review.from_json(json.loads(json.dumps(second.to_json())))
    second.judge("T10-lytic-1", "unreviewed")
    second.judge("T10-blastic-1", "accepted")
    third = second_run(Review.from_json(second_run(second, stopped).to_json()), T10)
    assert verdicts(third)["T10-blastic-1"] == "accepted"
    assert verdicts(third)["T10-lytic-1"] == "unreviewed"
    renamed = replace(candidate("L1-lytic-2", 0.6), id="L1-lytic-2")
    other = replace(candidate("L1-lytic-1", 0.9), box_lps=(40.0, 40.0, 40.0, 50.0, 50.0, 50.0))
    third.add_vertebra(vertebra("L1", other, renamed))  # alone, into these results
    item = third.item("L1-lytic-2")
    assert (item.verdict, item.comment) == ("accepted", "half of the body")
    assert third.item("L1-lytic-1").verdict == "unreviewed"
    assert "kept for" not in third.summary() and "held" not in third.to_json()


def test_what_was_taken_back_meanwhile_does_not_wait(review: Review) -> None:
    """The earlier review stays open in Slicer while the run goes on."""
    review.judge("L1-lytic-1", "accepted")
    second = second_run(review, T10)
    assert second.has_work
    review.undo()
    second.hold(review)
    assert not second.has_work and "kept for" not in second.summary()


def test_levels_that_change_places_take_along_what_was_said(review: Review) -> None:
    review.judge("L1-lytic-1", "accepted")
    review.comment("T10-lytic-1", "rim")
    review.judge("T10-lytic-2", "rejected")
    added = [review.add_missed(level, "lytic") for level in ("L1", "T10", "T10")]
    assert added == ["L1-added-1", "T10-added-1", "T10-added-2"]
    review.undo()
    aside = review.set_aside({"T10", "L1"})
    assert [v.level for v in aside.vertebrae.values()] == ["T10", "L1"]
    assert (list(review.vertebrae), review.items) == (["T11", "L2"], ())
    assert review.redo() is None, "it would come again in the level that it had"
    was_l1 = vertebra("T10", candidate("T10-lytic-1", 0.7))
    was_t10 = vertebra("L1", candidate("L1-lytic-1", 0.6))
    same = review.add_vertebra(was_l1, aside, "L1")
    same |= review.add_vertebra(was_t10, aside, "T10")
    assert review.adopt(aside, "L1-added-1", "T10") == "T10-added-1"
    assert review.adopt(aside, "T10-added-1", "L1") == "L1-added-1"
    said = {item.id: (item.level, item.verdict, item.comment) for item in review.items}
    assert said == {
        "T10-lytic-1": ("T10", "accepted", ""),
        "L1-lytic-1": ("L1", "unreviewed", "rim"),
        "T10-added-1": ("T10", "accepted", ""),
        "L1-added-1": ("L1", "accepted", ""),
    }
    taken = set(same.values())
    assert review.not_taken(aside, {"T10": "L1", "L1": "T10"}, taken) == ["T10 lytic 2"]
    assert review.not_taken(aside, {"L1": ""}, ()) == ["L1 lytic 1", "L1 lytic added 1"]
    back = Review.from_json(json.loads(json.dumps(review.to_json())))
    assert back.items == review.items


# --- speed without a clock ------------------------------------------------------------------------


class Untouchable:
    """Stands for voxels: whoever looks at it fails."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__deepcopy__", "__reduce_ex__", "__dict__"):
            return object.__getattribute__(self, name)
        raise AssertionError(f"voxels were touched: {name}")


def test_filtering_500_candidates_touches_no_voxel_and_makes_no_item_anew() -> None:
    review = Review()
    for n in range(10):
        level = f"T{n + 1}"
        found = [candidate(f"{level}-lytic-{k + 1}", 1 - k / 50) for k in range(50)]
        voxels: Any = Untouchable()
        review.add_vertebra(vertebra(level, *(replace(c, patch=voxels) for c in found)))
    items = review.items
    assert len(items) == 500
    review.set_threshold(0.8)
    assert review.items is items
    assert review.counts() == "100 of 500 shown"
    review.undo()
    assert review.items is items
