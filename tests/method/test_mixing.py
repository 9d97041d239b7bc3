"""Weights of the two paths by confidence: by hand, and their limits."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from spring.method.mixing import CONFIDENCES, Confidence, heard

HALF = math.log(0.5)
CERTAIN = torch.tensor([[0.0, -math.inf, -math.inf, -math.inf]])
EVEN = torch.tensor([[HALF, HALF, -math.inf, -math.inf]])  # entropy ln 2, half of ln 4
UNIFORM = torch.full((1, 4), math.log(0.25))


def retrieval_weights(par: Tensor, ret: Tensor, *, lmbda: Tensor, by: Confidence) -> Tensor:
    """Weight of the path with context."""
    sure = torch.stack([CONFIDENCES[by](par), CONFIDENCES[by](ret)], -1)
    return heard(torch.stack([1 - lmbda, lmbda], -1), sure)[..., 1]


@pytest.mark.parametrize(
    ("by", "expected"), [("entropy", [1.0, 0.5, 0.0]), ("max-probability", [1.0, 0.5, 0.25])]
)
def test_confidences_by_hand(by: Confidence, expected: list[float]) -> None:
    found = [float(CONFIDENCES[by](logp)) for logp in (CERTAIN, EVEN, UNIFORM)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_weights_by_hand() -> None:
    """lambda 0.25, ret certain (1), par even (0.5): 0.25 / (0.25 + 0.75 * 0.5) = 0.4."""
    weight = retrieval_weights(EVEN, CERTAIN, lmbda=torch.tensor([0.25]), by="entropy")
    assert float(weight) == pytest.approx(0.4)


@pytest.mark.parametrize("by", get_args(Confidence))
def test_equally_sure_paths_are_mixed_with_lambda_itself(by: Confidence) -> None:
    lmbda = torch.tensor([0.0, 0.1, 0.5, 1.0])
    logp = torch.log_softmax(torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), -1)
    torch.testing.assert_close(retrieval_weights(logp, logp.flip(-1), lmbda=lmbda, by=by), lmbda)


@pytest.mark.parametrize("by", get_args(Confidence))
def test_lambda_0_and_1_stay_single_paths_and_the_surer_path_is_heard_more(by: Confidence) -> None:
    for lmbda in (0.0, 1.0):
        assert float(retrieval_weights(EVEN, CERTAIN, lmbda=torch.tensor([lmbda]), by=by)) == lmbda
    assert float(retrieval_weights(EVEN, CERTAIN, lmbda=torch.tensor([0.5]), by=by)) > 0.5
    assert float(retrieval_weights(CERTAIN, EVEN, lmbda=torch.tensor([0.5]), by=by)) < 0.5


def test_a_path_that_knows_nothing_is_not_heard_and_two_of_them_are_mixed_with_lambda() -> None:
    half = torch.tensor([0.5])
    assert float(retrieval_weights(EVEN, UNIFORM, lmbda=half, by="entropy")) == pytest.approx(0, abs=1e-6)
    both = retrieval_weights(UNIFORM, UNIFORM, lmbda=half, by="entropy")
    assert 0 <= float(both) <= 1 and not both.isnan().any()
    nothing = torch.full((1, 2), -math.inf)  # a confidence of exactly 0
    assert float(retrieval_weights(nothing, nothing, lmbda=half, by="max-probability")) == 0.5
