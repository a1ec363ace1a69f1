"""Importing the published weights: nothing is lost on the way, and the folder says what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.models import golden, manifest, published_network
from helpers.published import FILES
from hideseekseg.model.published.importer import CARD, PROFILE
from hideseekseg.model.weights import Model


@pytest.mark.slow
def test_imported_weights_are_the_published_ones_to_the_last_bit(published: Model) -> None:
    found, expected = published.autoencoder.state_dict(), published_network().state_dict()
    assert {name: list(t.shape) for name, t in found.items()} == manifest()
    assert all(torch.equal(found[name], t) for name, t in expected.items())
    values = golden("golden_pipeline_seed1")
    for name in ("coef", "mean", "scale"):
        np.testing.assert_array_equal(getattr(published.classifier, name), values[name])
    assert published.classifier.intercept == float(values["intercept"])


@pytest.mark.slow
def test_folder_says_what_it_expects_and_where_it_came_from(published: Model) -> None:
    provenance = published.profile.provenance
    assert replace(published.profile, provenance={}) == PROFILE
    assert provenance["licence"] == "a test's"
    assert [f["name"] for f in provenance["files"]] == list(FILES)
    assert all(len(f["sha256"]) == 64 and f["bytes"] > 0 for f in provenance["files"])


@pytest.mark.slow
def test_folder_holds_a_card_and_no_leftovers(published_folder: Path, published: Model) -> None:
    names = {"autoencoder.safetensors", "classifier.safetensors", "profile.json", CARD}
    assert {path.name for path in published_folder.iterdir()} == names
    card = (published_folder / CARD).read_text("utf-8")
    assert published.hash in card
    assert "Licence under which the user obtained them: a test's" in card
    for file in published.profile.provenance["files"]:
        assert f"| {file['name']} | {file['bytes']} | {file['sha256']} |" in card
