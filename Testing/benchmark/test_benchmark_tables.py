"""Thresholds are the best of those tried, and tables say what was measured and how."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers.benchmark import toys
from hideseekseg.benchmark.cases import BenchmarkCase
from hideseekseg.benchmark.methods.method import ByMaps, Level, Maps, Tuned, run
from hideseekseg.benchmark.metrics import Outcome, lesions_of, recall_by_stratum
from hideseekseg.benchmark.report.table import About, MethodResult, describe, to_markdown
from hideseekseg.benchmark.threshold_choice import choose, worth
from hideseekseg.findings import LESION_TYPES


@pytest.fixture(scope="module")
def known() -> list[BenchmarkCase]:
    return toys(48)


def truth_with_noise(subject: BenchmarkCase) -> list[Maps]:
    """The truth at 0.6 and noise up to 0.5; a second variant that knows nothing."""
    rng = np.random.default_rng(len(subject.vertebra))
    noise = rng.uniform(0, 0.5, subject.case.body.shape).astype(np.float32)
    good = {kind: np.where(subject.case.truth[kind], 0.6, noise) for kind in LESION_TYPES}
    return [
        Maps(subject.case, dict.fromkeys(LESION_TYPES, noise), 0.5),
        Maps(subject.case, good, 0.5),
    ]


def test_chosen_setting_and_threshold_are_the_best_of_all(known: list[BenchmarkCase]) -> None:
    method = ByMaps("seer", "the truth", truth_with_noise, (0.2, 0.4, 0.55), variants=2)
    tuned = choose(method, known)
    for kind in LESION_TYPES:
        assert tuned.settings[kind] == Level(1, 0.55)
        best = worth(run(method, known, tuned.settings), kind, tuned.thresholds[kind])
        assert best == pytest.approx(1.0)
        for setting in method.settings:
            outcomes = run(method, known, dict.fromkeys(LESION_TYPES, setting))
            for threshold in (0.0, 0.3, 0.59):
                assert worth(outcomes, kind, threshold) <= best


# ---- tables


def rows_of(known: list[BenchmarkCase]) -> list[MethodResult]:
    level = {kind: Level(1, 0.55) for kind in LESION_TYPES}
    blind = {kind: Level(0, 0.45) for kind in LESION_TYPES}
    rows = []
    for name, setting, learnt in (
        ("seer", level, "the truth"),
        ("blind", blind, "nothing"),
        ("ceiling", level, "full masks"),
    ):
        method = ByMaps(name, learnt, truth_with_noise, (0.5,), variants=2)
        outcomes: list[Outcome] = run(method, known, setting)
        rows.append(
            MethodResult(name, learnt, Tuned(setting, dict.fromkeys(LESION_TYPES, 0.0)), outcomes)
        )
    return rows


def test_table_says_what_was_measured_and_how(known: list[BenchmarkCase]) -> None:
    rows = rows_of(known)
    weights = np.random.default_rng(1).multinomial(12, [1 / 12] * 12, 100).astype(float)
    data = describe(
        About("toys", "0123456789abcdef", ["A", "B"], {"absent": "not run: why"}), rows, weights
    )
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["vertebrae"], data["diseased"], data["patients"]) == (12, 6, ["A"])
    assert data["patients also used for thresholds"] == ["A"]
    gap = data["over the best baseline"]["lytic F1 (IoU >= 0.1)"]
    assert gap["baseline"] == "blind", "what saw the masks is a ceiling and no baseline"
    assert gap["value"] > 0.5 and gap["low"] <= gap["value"] <= gap["high"]
    text = to_markdown(data)
    assert "12 vertebrae (6 diseased; 3 lytic, 3 blastic lesions)" in text
    assert "0123456789ab" in text and data["matching"] in text and "one patient" in text
    assert "| absent | not run: why |" in text
    assert "| MedSAM | not run: its weights cannot be had here |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| seer | the")}
    heads = [line for line in text.splitlines() if line.startswith("| method | learnt")]
    assert widths == {heads[0].count("|")}


def test_healthy_set_has_no_lesion_columns(known: list[BenchmarkCase]) -> None:
    healthy = [s for s in known if not s.case.diseased]
    data = describe(About("healthy", "00", []), rows_of(healthy), np.ones((10, len(healthy))))
    text = to_markdown(data)
    assert "F1" not in text and "false per healthy vertebra" in text
    assert data["findings per patient"]["seer"] == {"A (n = 6)": 0.0}
    assert "| method | A (n = 6) |" in text


def test_recall_is_told_by_size_and_by_how_plain_a_lesion_is(known: list[BenchmarkCase]) -> None:
    """A seer finds every lesion, in each stratum; the blind one none; every lesion is counted."""
    plain = []
    for number, subject in enumerate(known):
        change = np.zeros(subject.hu.shape, np.float32)
        for kind in LESION_TYPES:
            change[subject.case.truth[kind]] = 90.0 if number % 4 == 1 else 150.0
        plain.append(replace(subject, twin_hu=subject.hu - change))
    lesions = [lesions_of(subject) for subject in plain]
    seer, blind, _ = rows_of(plain)
    seen = recall_by_stratum(lesions, seer.outcomes, seer.tuned.thresholds)
    for kind in LESION_TYPES:
        total = sum(len(subject.case.lesions(kind)) for subject in plain)
        contrasts = [seen[kind][name] for name in ("below 120 HU", "120 to 200 HU")]
        sizes = [n for name, (_, n) in seen[kind].items() if "HU" not in name]
        assert sum(n for _, n in contrasts) == sum(sizes) == total
        assert all(hits == n for hits, n in seen[kind].values())
    missed = recall_by_stratum(lesions, blind.outcomes, dict.fromkeys(LESION_TYPES, 2.0))
    assert all(hits == 0 for own in missed.values() for hits, _ in own.values())
    weights = np.ones((10, len(plain)))
    data = describe(About("toys", "00", []), [seer, blind], weights)
    assert "by size" not in to_markdown(data), "where twins are not known nothing is told"
    data["recall by stratum"] = {"seer": seen, "blind": missed}
    total = seen["lytic"]["below 120 HU"][1] + seen["lytic"]["120 to 200 HU"][1]
    assert total == 3 and f"| seer | {seen['lytic']['below 3 % of the body'][0]} of" in (
        to_markdown(data)
    )
