"""The five steps, against the published numbers and against pictures made by hand."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from helpers.models import FAST, golden, needs_reference, threads, tiny_images, tiny_model
from hideseekseg.attribution import (
    Edit,
    Latents,
    Mask,
    Proposal,
    Proposals,
    attribute,
    changed_pixels,
    edit,
    encode,
    hide_and_seek,
    propose,
    score,
    select,
    with_hidden,
)
from hideseekseg.findings import SliceCandidate
from hideseekseg.lesions import join_slices
from hideseekseg.model.profile import Decision
from hideseekseg.model.sampling import ddim_invert, ddim_render
from hideseekseg.model.weights import Model

# Of the published candidates, each of which costs 22 network calls (two minutes of a processor for
# all 18): the largest lytic and the smallest blastic one, or all with EVERY_CANDIDATE=1 in the
# environment.
EVERY = bool(os.environ.get("EVERY_CANDIDATE"))


@pytest.fixture(scope="module")
def ten_steps(published: Model) -> Model:
    """The published model with the steps of the golden values."""
    schedule = replace(published.profile.schedule, invert_steps=10, render_steps=10)
    return replace(published, profile=replace(published.profile, schedule=schedule))


def published_edit() -> tuple[Latents, Edit]:
    """What the published code had after step 2, for the steps that follow."""
    expected = golden("golden_pipeline_seed1")
    healthy = Edit(
        torch.from_numpy(expected["recon"]),
        torch.from_numpy(expected["edit"]),
        torch.tensor([float(expected["p_after"])], dtype=torch.float64),
    )
    p = torch.tensor([float(expected["p_before"])], dtype=torch.float64)
    return Latents(torch.zeros(1, 512), p, torch.full((1, 2), torch.nan)), healthy


def edit_of(difference: npt.NDArray[np.float32]) -> Edit:
    """An edit (N, H, W) that changes a black picture by this much."""
    change = torch.from_numpy(difference)[:, None]
    return Edit(torch.zeros_like(change), change, torch.zeros(len(change), dtype=torch.float64))


@pytest.mark.slow
def test_latents_and_edit_are_the_published_ones(ten_steps: Model) -> None:
    expected, model = golden("golden_pipeline_seed1"), ten_steps
    images = torch.from_numpy(expected["image"])
    with threads(2):
        latents = encode(images, model)
        healthy = edit(images, latents, model)
    assert float(latents.p[0]) == pytest.approx(float(expected["p_before"]), abs=1e-6)
    assert float(healthy.p_after[0]) == pytest.approx(float(expected["p_after"]), rel=1e-3)
    assert np.abs(healthy.reconstruction.numpy() - expected["recon"]).max() <= 1e-3
    assert np.abs(healthy.edited.numpy() - expected["edit"]).max() <= 1e-3


@needs_reference
def test_candidates_are_the_published_ones() -> None:
    expected = golden("golden_pipeline_seed1")
    _, healthy = published_edit()
    body = expected["body"][0]
    found = changed_pixels(healthy.difference[0], body[0], Decision())
    for kind, pixels in found.items():
        assert (pixels ^ expected[kind][0, 0]).sum() <= 5
    candidates = [
        (c.type, int(c.mask.sum()), *np.argwhere(c.mask).mean(0).tolist())
        for c in propose(healthy, body, Decision()).candidates
    ]
    published = [
        (c["type"], c["size"], *c["centroid"]) for c in json.loads(str(expected["candidates"]))
    ]
    assert sorted(candidates) == sorted(published)


@pytest.mark.slow
def test_scores_are_the_published_ones(ten_steps: Model) -> None:
    expected, model = golden("golden_pipeline_seed1"), ten_steps
    latents, healthy = published_edit()
    proposals = propose(healthy, expected["body"][0], Decision())
    if not EVERY:
        by_size = sorted(proposals.candidates, key=lambda c: int(c.mask.sum()))
        blastic = next(c for c in by_size if c.type == "blastic")
        lytic = next(c for c in reversed(by_size) if c.type == "lytic")
        proposals = replace(proposals, candidates=(lytic, blastic))
    scored = hide_and_seek(latents, healthy, proposals, model)
    published = {
        (c["type"], *c["centroid"]): c["delta"] for c in json.loads(str(expected["candidates"]))
    }
    assert len(scored) == (len(published) if EVERY else 2)
    for s in scored:
        place = (s.type, *np.argwhere(s.mask).mean(0).tolist())
        assert s.score == pytest.approx(published[place], abs=1e-4)


def test_added_density_is_lytic_and_removed_density_blastic() -> None:
    difference = np.zeros((2, 16, 16), np.float32)
    difference[0, 2:5, 2:5] = 0.4
    difference[1, 8:11, 8:12] = -0.3
    difference[1, 0:3, 0:3] = -0.9
    body = np.zeros((2, 16, 16), bool)
    body[:, 1:15, 1:15] = True
    body[1, :4] = False
    found = propose(edit_of(difference), body, Decision(candidate_quantile=0.0, lytic_floor=0.1))
    # A quantile of 0 is the least difference itself, and equal is not above.
    assert found.candidates == ()
    difference += np.linspace(0, 0.01, 16, dtype=np.float32) * np.sign(difference)
    found = propose(edit_of(difference), body, Decision(candidate_quantile=0.0))
    assert [(c.slice, c.type) for c in found.candidates] == [(0, "lytic"), (1, "blastic")]
    assert found.candidates[0].delta == pytest.approx(0.4, abs=0.01)
    assert found.candidates[1].delta == pytest.approx(-0.3, abs=0.01)
    assert not (found.changed & ~body).any()


def test_only_pixels_above_the_median_of_their_sign_count() -> None:
    difference = np.zeros((4, 10), np.float32)
    difference[1] = np.arange(1, 11)
    difference[3] = -np.arange(1, 11) / 100
    body = np.ones((4, 10), bool)
    found = changed_pixels(difference, body, Decision())
    assert np.argwhere(found["lytic"]).tolist() == [[1, c] for c in range(5, 10)]
    assert np.argwhere(found["blastic"]).tolist() == [[3, c] for c in range(5, 10)]


def test_floors_are_of_their_type() -> None:
    difference = np.tile(np.linspace(-1, 1, 21, dtype=np.float32), (3, 1))
    body = np.ones(difference.shape, bool)
    decision = Decision(candidate_quantile=0.0, lytic_floor=0.75, blastic_floor=0.35)
    found = changed_pixels(difference, body, decision)
    assert difference[found["lytic"]].min() == pytest.approx(0.8)
    assert difference[found["blastic"]].max() == pytest.approx(-0.4)


def test_specks_and_corners_make_no_candidate_but_are_hidden() -> None:
    difference = np.zeros((1, 16, 16), np.float32)
    difference[0, 1, 1:5] = difference[0, 2, 5:9] = difference[0, 10, 2:7] = 0.5
    difference[0, 15, 15] = 0.1
    body = np.ones((1, 16, 16), bool)
    found = propose(edit_of(difference), body, Decision(candidate_quantile=0.0))
    # Two rows of four touch at a corner only; five in a row are the least that counts.
    assert [np.argwhere(c.mask).tolist() for c in found.candidates] == [
        [[10, c] for c in range(2, 7)]
    ]
    assert found.changed.sum() == 13


def test_smoothing_removes_specks_and_keeps_areas() -> None:
    difference = np.zeros((1, 32, 32), np.float32)
    difference[0, 4, 4] = 0.5
    difference[0, 16:24, 16:24] = 0.5
    body = np.ones((1, 32, 32), bool)
    decision = Decision(lytic_floor=0.2, candidate_quantile=0.0, smooth_pixels=1.0)
    found = propose(edit_of(difference), body, decision)
    assert not found.changed[0, 4, 4]
    assert found.changed[0, 18:22, 18:22].all()


def test_no_body_and_no_change_give_no_candidate() -> None:
    flat = edit_of(np.zeros((2, 8, 8), np.float32))
    assert propose(flat, np.ones((2, 8, 8), bool), Decision()).candidates == ()
    changed = edit_of(np.ones((2, 8, 8), np.float32))
    assert propose(changed, np.zeros((2, 8, 8), bool), Decision()).candidates == ()


def test_score_is_the_share_of_malignancy() -> None:
    assert score(0.9, 0.9, 0.1, 1e-6) == 1.0
    assert score(0.1, 0.9, 0.1, 1e-6) == 0.0
    assert score(0.5, 0.9, 0.1, 1e-6) == pytest.approx(0.5)
    assert score(0.32, 0.32, 0.3, 0.2) == pytest.approx(0.1), "hiding all changes next to nothing"
    assert score(0.9, 0.2, 0.4, 1e-6) == 0.0, "a slice less malignant than its healthy edit"


def test_select_keeps_what_scores_above_the_threshold() -> None:
    mask = np.ones((2, 2), bool)
    scored = [SliceCandidate(0, "lytic", mask, value) for value in (0.2, 0.5, 0.8)]
    assert [s.score for s in select(scored, 0.5)] == [0.8]


@pytest.mark.parametrize("projection", ["none", "render"])
def test_what_is_hidden_is_the_edit_and_the_rest_the_reconstruction(projection: str) -> None:
    """Rebuild one revealed picture by hand and classify it by hand."""
    model = tiny_model(replace(FAST, edit="render", projection=projection))  # type: ignore[arg-type]
    images = tiny_images(3)
    latents = encode(images, model)
    healthy = edit(images, latents, model)
    proposals = propose(healthy, np.ones((3, 16, 16), bool), model.profile.decision)
    scored = hide_and_seek(latents, healthy, proposals, model)
    chosen = scored[-1]
    i = chosen.slice
    picture = healthy.reconstruction[i].clone()
    hidden = torch.from_numpy(proposals.changed[i] & ~chosen.mask)
    picture[:, hidden] = healthy.edited[i][:, hidden]
    if projection == "render":
        z, net = encode(picture[None], model).z, model.autoencoder
        picture = ddim_render(net, ddim_invert(net, picture[None], z, 5, 100), z, 4, 100)[0]
    p = float(encode(picture[None], model).p)
    p_healthy = float(healthy.p_after[i])
    assert chosen.p == pytest.approx(p, abs=1e-5)
    assert chosen.score == pytest.approx((p - p_healthy) / (float(latents.p[i]) - p_healthy), 1e-4)


@pytest.mark.parametrize("projection", ["none", "render"])
def test_p_without_is_that_of_the_picture_with_the_candidate_alone_hidden(projection: str) -> None:
    """Rebuilt by hand; scores and all other figures stay bit by bit."""
    model = tiny_model(replace(FAST, edit="render", projection=projection))  # type: ignore[arg-type]
    images = tiny_images(3)
    latents = encode(images, model)
    healthy = edit(images, latents, model)
    proposals = propose(healthy, np.ones((3, 16, 16), bool), model.profile.decision)
    plain = hide_and_seek(latents, healthy, proposals, model)
    # Between the scores, so that some candidates are above it and some below.
    middle = float(np.median([c.score for c in plain]))
    decision = replace(model.profile.decision, threshold=middle)
    model = replace(model, profile=replace(model.profile, decision=decision))
    told = with_hidden(plain, latents, healthy, model)
    for before, after in zip(plain, told, strict=True):
        assert replace(after, p_without=0.0) == replace(before, p_without=0.0)
        if projection == "render" and before.score <= middle:
            assert np.isnan(after.p_without), "two more renderings for what nobody is shown"
            continue
        i = before.slice
        picture = healthy.reconstruction[i].clone()
        picture[:, torch.from_numpy(before.mask)] = healthy.edited[i][:, before.mask]
        if projection == "render":
            z, net = encode(picture[None], model).z, model.autoencoder
            code = ddim_invert(net, picture[None], z, 5, 100)
            picture = ddim_render(net, code, z, 4, 100)[0]
        # Alone and in a batch, rendered pictures differ a little.
        assert after.p_without == pytest.approx(float(encode(picture[None], model).p), abs=1e-4)
    assert with_hidden((), latents, healthy, model) == ()


def test_a_lone_candidate_explains_all_of_a_single_shot_slice() -> None:
    """With nothing else to hide the picture is the image itself: p is P(malignant), the score 1."""
    model = tiny_model(decision=Decision(healthy_p=0.01, baseline="hidden"))
    images = tiny_images(3)
    latents = encode(images, model)
    healthy = edit(images, latents, model)
    mask = np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    malignant = int(latents.p.argmax())
    changed: Mask = np.zeros((3, 16, 16), bool)
    changed[malignant] = mask
    proposals = Proposals((Proposal(malignant, "lytic", mask, 0.1),), changed)
    (scored,) = hide_and_seek(latents, healthy, proposals, model)
    assert scored.p == pytest.approx(float(latents.p[malignant]), abs=1e-6)
    assert scored.score in (pytest.approx(1.0, abs=1e-5), 0.0)
    hidden = torch.where(torch.from_numpy(mask), healthy.edited, images)[malignant]
    assert (scored.score > 0) == bool(encode(hidden[None], model).p < latents.p[malignant])


def test_healthy_slices_cost_one_encoder_pass() -> None:
    model, images = tiny_model(), tiny_images(8)
    p = encode(images, model).p
    gate = float(p.median()) + 1e-9
    gated = replace(model, profile=replace(model.profile, decision=Decision(gate_p=gate)))
    told: list[tuple[str, int, int]] = []
    result = attribute(
        images, np.ones((8, 16, 16), bool), gated, on_progress=lambda *a: told.append(a)
    )
    below = (p < gate).numpy()
    assert 0 < below.sum() < 8
    assert not result.difference[below].any()
    assert result.difference[~below].any(axis=(1, 2)).all()
    assert all(not below[s.slice] for s in result.scored)
    assert max(total for step, _, total in told if step == "encode") == 8
    assert max(total for step, _, total in told if step == "edit") == 2 * FAST.draws * int(
        (~below).sum()
    )


@pytest.mark.parametrize("way", ["render", "single-shot"])
def test_no_slice_is_made_more_malignant(way: str) -> None:
    """Without a gate, a slice whose P is below ``healthy_p`` is left alone."""
    model, images = tiny_model(replace(FAST, edit=way)), tiny_images(8)  # type: ignore[arg-type]
    p = encode(images, model).p
    healthy_p = float(p.median())
    decision = Decision(healthy_p=healthy_p, gate_p=0.0)
    model = replace(model, profile=replace(model.profile, decision=decision))
    healthy = edit(images, encode(images, model), model)
    below = (p <= healthy_p).numpy()
    assert 0 < below.sum() < 8
    assert (healthy.p_after <= p + 1e-6).all()
    assert torch.equal(healthy.edited[below], images[below])
    assert not healthy.difference[below].any()
    assert healthy.difference[~below].any(axis=(1, 2)).all()


@pytest.mark.parametrize(("way", "tolerance"), [("render", 2e-3), ("single-shot", 1e-5)])
def test_same_input_same_output_whatever_the_batch_and_the_neighbours(
    way: str, tolerance: float
) -> None:
    """Batches of other sizes sum in other orders, which a rendering amplifies (see threads)."""
    projection = "render" if way == "render" else "none"
    model = tiny_model(replace(FAST, edit=way, projection=projection))  # type: ignore[arg-type]
    images, bodies = tiny_images(5), np.ones((5, 16, 16), bool)
    whole = attribute(images, bodies, model)
    again = attribute(images, bodies, model)
    small = attribute(images, bodies, model, batch=2)
    first = attribute(images[:2], bodies[:2], model)
    assert np.array_equal(whole.edited, again.edited)
    assert [s.score for s in whole.scored] == [s.score for s in again.scored]
    assert len(whole.scored) > 3
    np.testing.assert_allclose(small.edited, whole.edited, atol=tolerance)
    np.testing.assert_allclose(first.edited, whole.edited[:2], atol=tolerance)
    assert whole.selected == select(whole.scored, model.profile.decision.threshold)


@pytest.mark.parametrize("min_slices", [1, 2, 3])
def test_what_no_slice_continues_is_not_scored_and_the_lesions_stay(min_slices: int) -> None:
    """Hidden it is, as before: so the others' scores are the same."""
    model, images = tiny_model(), tiny_images(6)
    bodies = np.ones((6, 16, 16), bool)
    every = attribute(images, bodies, model)
    kept = attribute(images, bodies, model, min_slices=min_slices)
    before = join_slices(every.scored, min_slices)
    after = join_slices(kept.scored, min_slices)
    assert (len(kept.scored) < len(every.scored)) == (min_slices > 1)
    assert len(kept.scored) == sum(len(lesion.parts) for lesion in after)
    assert np.array_equal(kept.changed, every.changed)
    assert [lesion.slices for lesion in after] == [lesion.slices for lesion in before]
    for one, other in zip(after, before, strict=True):
        assert np.array_equal(one.whole((6, 16, 16)), other.whole((6, 16, 16)))
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_the_edit_brings_p_down() -> None:
    model = tiny_model()
    latents = encode(tiny_images(), model)
    assert edit(tiny_images(), latents, model).p_after.numpy() == pytest.approx(0.01, rel=1e-3)


def test_progress_counts_up_to_its_total_and_may_cancel() -> None:
    model, images = tiny_model(), tiny_images(5)
    told: list[tuple[str, int, int]] = []
    attribute(images, np.ones((5, 16, 16), bool), model, 2, lambda *a: told.append(a))
    assert list(dict.fromkeys(step for step, _, _ in told)) == [
        "encode",
        "edit",
        "scoring candidates",
        "hiding candidates",
    ]
    for step in ("encode", "edit", "scoring candidates", "hiding candidates"):
        done = [d for name, d, _ in told if name == step]
        assert done == sorted(done)
        assert done[-1] == next(total for name, _, total in told if name == step)

    def cancel(step: str, done: int, total: int) -> None:
        if step == "edit" and done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribute(images, np.ones((5, 16, 16), bool), model, 2, cancel)
