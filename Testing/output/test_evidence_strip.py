"""The pictures of one candidate are those that the method computed with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from helpers.findings import make_ct, make_grid, make_result
from helpers.findings import make_evidence as drawn_evidence
from helpers.models import FAST, tiny_images, tiny_model
from hideseekseg.anatomy.crop import Crop
from hideseekseg.anatomy.intensity import Calibration, network_input
from hideseekseg.attribution import attribute, encode
from hideseekseg.findings import Evidence
from hideseekseg.imaging.volume import Grid
from hideseekseg.model.profile import Decision, Intensity
from hideseekseg.output.figures.vertebra_row import make_strip, revealed_alone, slice_candidate
from hideseekseg.pipeline import make_evidence


def test_revealed_alone_is_what_was_classified() -> None:
    """Classify the pictures that are shown: each candidate's P must come back.

    Among the changed pixels are specks too small to be candidates, which were hidden as well.
    """
    decision = Decision(healthy_p=0.01, min_pixels=6, candidate_quantile=0.0)
    model = tiny_model(FAST, decision)
    x = tiny_images(6)
    image = 1000 * x[:, 0].numpy()
    body = np.ones(image.shape, bool)
    profile = replace(model.profile, intensity=Intensity("percentile", 0.0, 100.0))
    crop = Crop(image, body, Grid(image.shape, np.eye(4)))
    scale = Calibration(1.0, 0.0, is_hu=False)
    x = torch.from_numpy(network_input(crop, profile, scale))[:, None]
    seen = attribute(x, body, model)
    evidence = make_evidence(crop, np.arange(len(x)), seen, profile, scale)
    specks = evidence.changed & ~(evidence.lytic | evidence.blastic)
    touching = ndimage.binary_dilation(
        evidence.lytic, ndimage.generate_binary_structure(2, 1)[None]
    )
    assert specks.any() and (touching & evidence.blastic).any()
    low, high = image.min(axis=(1, 2)), image.max(axis=(1, 2))
    for candidate in seen.scored:
        s = candidate.slice
        kept = slice_candidate(evidence, candidate.mask, s)
        assert np.array_equal(kept, candidate.mask)
        shown = (revealed_alone(evidence, kept, s) - low[s]) / (high[s] - low[s])
        p = float(encode(torch.from_numpy(shown.astype(np.float32))[None, None], model).p)
        assert p == pytest.approx(candidate.p, abs=1e-4)


def test_a_candidate_is_found_again_by_voxels_that_were_resampled() -> None:
    shape = (3, 40, 40)
    blank = np.zeros(shape, bool)
    lytic, blastic = blank.copy(), blank.copy()
    lytic[1, 5:12, 5:12] = lytic[1, 20:24, 20:24] = True
    blastic[1, 12:20, 5:12] = True
    zeros = np.zeros(shape, np.float32)
    grid = Grid(shape, np.eye(4))
    evidence = Evidence(zeros, zeros, zeros, ~blank, grid, lytic, blastic, lytic | blastic)
    blurred = ndimage.binary_dilation(blastic[1], iterations=2)
    assert np.array_equal(slice_candidate(evidence, blurred, 1), blastic[1])
    small = np.zeros((40, 40), bool)
    small[21, 21] = True
    found = slice_candidate(evidence, small, 1)
    assert found.sum() == 16 and found[20:24, 20:24].all()
    assert not slice_candidate(evidence, np.zeros((40, 40), bool), 1).any()
    assert not slice_candidate(evidence, ~lytic[1] & ~blastic[1], 1).any()


def test_difference_has_one_scale_for_all_vertebrae_and_a_bar() -> None:
    """A change of 150 HU has the same colour beside a small change and beside a large one."""
    grid = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
    result, ct = make_result(grid), make_ct(grid)
    candidate = result.vertebrae[0].candidates[0]
    assert candidate.patch is not None
    evidence = drawn_evidence(ct, result)["T10"]
    louder = replace(evidence, difference=evidence.difference.copy())
    corner = tuple(np.argwhere(evidence.body & (evidence.difference == 0))[0])
    louder.difference[corner] = 2000.0
    plain, loud = (make_strip(e, candidate.patch, grid, "blastic") for e in (evidence, louder))
    assert "blue +300 HU" in plain.note and "orange -300 HU" in plain.note
    assert plain.note == loud.note
    pictures = plain.pictures["difference"], loud.pictures["difference"]
    same = (pictures[0] == pictures[1]).all(axis=2).mean()
    assert same > 0.99, "the scale follows the largest change"
    bar = pictures[0][:, -3].astype(int)
    assert bar[0, 2] > bar[0, 0] and bar[-1, 0] > bar[-1, 2], "blue above, orange below"
    assert bar[len(bar) // 2].max() < 10
