"""Other schedules against the exact one: with the bundled weights, on a few drawn slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hideseekseg.attribution import Attribution, edit, encode
from hideseekseg.benchmark.cases import draw_subjects
from hideseekseg.benchmark.speed_measurements import Crops, choose_crops, compare_schedules, judge
from hideseekseg.findings import SliceCandidate
from hideseekseg.model.weights import BUNDLE, Model, load_model, scheduled

SHAPE = (16, 16)


@pytest.fixture(scope="module")
def bundle() -> Model:
    return load_model(BUNDLE, "cpu")


@pytest.fixture(scope="module")
def crops(bundle: Model, tmp_path_factory: pytest.TempPathFactory) -> Crops:
    folder = tmp_path_factory.mktemp("agreement")
    subjects = draw_subjects(folder, 4, 7102, bundle.profile, lambda done, total: None)
    return choose_crops([s.case for s in subjects], bundle, 3)


@pytest.mark.slow
def test_few_steps_of_the_solver_make_the_exact_edit(bundle: Model, crops: Crops) -> None:
    """And the single shot, which the weights were tuned for, makes another."""
    latents = encode(crops.x, bundle)
    exact, few, fast = (
        edit(crops.x, latents, scheduled(bundle, name)).difference[crops.body]
        for name in ("exact", "multistep", "fast")
    )
    assert np.abs(exact).max() > 0.1, "there must be something to agree on"
    assert np.corrcoef(exact, few)[0, 1] > 0.98
    assert np.sqrt(np.mean((few - exact) ** 2)) < 0.2 * exact.std()
    assert np.corrcoef(exact, fast)[0, 1] < np.corrcoef(exact, few)[0, 1]


def test_a_schedule_agrees_with_itself(bundle: Model, crops: Crops) -> None:
    own = bundle.profile.schedule
    reference, again = compare_schedules(bundle, crops, [own, own], lambda line: None)
    assert (again.identical, again.of_all, again.score_difference) == (1.0, 1.0, 0.0)
    assert again.dice == reference.dice
    assert again.calls == (own.edit_calls, own.projection_calls)


def scored(row: int, score: float, kind: str = "lytic", size: int = 4) -> SliceCandidate:
    mask = np.zeros(SHAPE, bool)
    mask[row : row + size, 2:6] = True
    return SliceCandidate(0, kind, mask, score)  # type: ignore[arg-type]


def seen(*candidates: SliceCandidate) -> Attribution:
    none = np.zeros((1, *SHAPE), np.float32)
    kept = tuple(c for c in candidates if c.score > 0.5)
    return Attribution(np.ones(1), np.zeros(1), none, none, none > 0, candidates, kept)


def test_what_counts_as_the_same(bundle: Model) -> None:
    """One crop of two passes the gate: half of all agree at least."""
    body = np.ones((1, *SHAPE), bool)
    truth = {"lytic": scored(2, 1.0).mask[None], "blastic": np.zeros_like(body)}
    crops = Crops(torch.zeros(1, 1, *SHAPE), body, truth, 0.5)  # type: ignore[arg-type]
    schedule = replace(bundle.profile.schedule, name="other")
    reference = seen(scored(2, 0.9), scored(10, 0.2))

    def against(*candidates: SliceCandidate) -> tuple[float, float, float]:
        found = judge(schedule, seen(*candidates), reference, crops, 1.0)
        return found.identical, found.of_all, round(found.score_difference, 6)

    assert against(scored(2, 0.9), scored(10, 0.2)) == (1.0, 1.0, 0.0)
    assert against(scored(3, 0.8), scored(10, 0.2)) == (1.0, 1.0, 0.05)
    assert against(scored(2, 0.9)) == (1.0, 1.0, 0.1), "a candidate that is missing counts whole"
    assert against(scored(2, 0.9), scored(10, 0.7)) == (0.0, 0.5, 0.25), "one finding more"
    assert against(scored(2, 0.9, "blastic"), scored(10, 0.2))[0] == 0.0
    assert judge(schedule, reference, reference, crops, 1.0).dice == 1.0
