"""Batches adapt to the memory there is, and hide no other fault."""

from __future__ import annotations

import pytest
import torch

from helpers.models import CPU
from hideseekseg.model.inference import in_batches


def test_a_batch_that_does_not_fit_is_halved() -> None:
    sizes: list[int] = []

    def greedy(x: torch.Tensor, tick: object) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            torch.empty(1 << 60)  # really asks for an exbibyte
        return 2 * x

    x = torch.arange(7.0)[:, None]
    assert torch.equal(in_batches(greedy, [x], 1, CPU, batch=7), 2 * x)
    assert sizes == [7, 4, 2, 2, 2, 1]


def test_one_image_that_does_not_fit_and_other_faults_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="allocate"):
        in_batches(lambda x, tick: torch.empty(1 << 60), [torch.zeros(1, 1)], 1, CPU)
    with pytest.raises(RuntimeError, match="shape"):
        in_batches(lambda x, tick: x.view(9), [torch.zeros(4, 2)], 1, CPU)
