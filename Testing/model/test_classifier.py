"""The linear classifier finds the way to a wanted probability, however far."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hideseekseg.model.classifier import LinearClassifier


@given(
    logit=st.floats(-400, 400),
    p=st.sampled_from([1e-5, 1e-3, 0.5, 0.999]),
    seed=st.integers(0, 99),
)
def test_move_to_reaches_p_along_the_normal(logit: float, p: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coef, mean = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    scale = torch.rand(16, generator=generator, dtype=torch.float64) + 0.1
    classifier = LinearClassifier(coef, logit, mean, scale)
    z = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    moved = classifier.move_to(z, p)
    assert classifier.probability(moved).numpy() == pytest.approx(p, rel=1e-6)
    along = (moved - z) / scale @ coef / coef.norm()
    assert along.abs().numpy() == pytest.approx(((moved - z) / scale).norm(dim=1).numpy())


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("coef", torch.zeros(4), "coef must not be zero"),
        ("mean", torch.tensor([0.0, 1.0, 2.0, float("nan")]), "mean contains values"),
        ("scale", torch.ones(3), "scale has shape"),
        ("intercept", float("inf"), "intercept is not finite"),
    ],
)
def test_what_is_no_classifier_is_refused(name: str, value: Any, cause: str) -> None:
    parts: dict[str, Any] = {
        "coef": torch.ones(4),
        "intercept": 0.0,
        "mean": torch.zeros(4),
        "scale": torch.ones(4),
    }
    with pytest.raises(ValueError, match=cause):
        LinearClassifier(**{**parts, name: value})
