"""The gate (Eq. 6): thresholds derived by hand."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spring.method.gate import Past, effective_lambda, find_sigma, relevance_gate, scale_from, standing

GATES: tuple[Literal["strict", "soft"], ...] = ("strict", "soft")


def test_sigma_by_hand() -> None:
    """Of 0, 1, 2, 3, 4 the median is 2 and the third quartile 3; a number is taken as it is."""
    past = Past([3.0, 0.0, 4.0, 1.0, 2.0])
    assert [find_sigma(past, "q2"), find_sigma(past, "q3"), find_sigma(past, 0.0)] == [2.0, 3.0, 0.0]


def test_without_past_scores_the_gate_is_closed() -> None:
    sigma, scale = find_sigma(Past([]), "q3"), scale_from(Past([]))
    for gate in GATES:
        assert relevance_gate([99.0], gate=gate, sigma=sigma, scale=scale).tolist() == [0.0]
    assert find_sigma(Past([]), 0.0) == 0.0


def test_strict_is_strict() -> None:
    assert relevance_gate([2.9, 3.0, 3.1], gate="strict", sigma=3.0).tolist() == [0, 0, 1]
    assert relevance_gate([0.0, 1e-9], gate="strict", sigma=0.0).tolist() == [0, 1]


def test_no_gate_lets_everything_pass() -> None:
    assert relevance_gate([0.0, -1.0], gate=None, sigma=math.inf).tolist() == [1, 1]


def test_soft_at_the_quartiles() -> None:
    """With sigma = q2 the weights at the quartiles 1, 2, 3 are 1/4, 1/2, 3/4."""
    past = Past([0.0, 1.0, 2.0, 3.0, 4.0])
    weights = relevance_gate([1, 2, 3], gate="soft", sigma=find_sigma(past, "q2"), scale=scale_from(past))
    np.testing.assert_allclose(weights, [0.25, 0.5, 0.75])


def test_soft_with_equal_past_scores_is_the_strict_step() -> None:
    weights = relevance_gate([1, 2, 3], gate="soft", sigma=2.0, scale=scale_from(Past([2.0, 2.0])))
    assert weights.tolist() == [0, 0, 1]


def test_soft_does_not_overflow() -> None:
    assert relevance_gate([-1e6, 1e6], gate="soft", sigma=0.0, scale=1e-3).tolist() == [0, 1]


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 3)
)
def test_a_higher_threshold_lets_less_pass(
    scores: list[float], one: float, other: float, scale: float
) -> None:
    low, high = sorted((one, other))
    for gate in GATES:
        wide, tight = (relevance_gate(scores, gate=gate, sigma=s, scale=scale) for s in (low, high))
        assert (tight <= wide + 1e-12).all() and (tight >= 0).all() and (wide <= 1).all()


def test_effective_lambda() -> None:
    assert effective_lambda(0.5, [1.0, 1.0]) == 0.5
    assert effective_lambda(0.5, [1.0, 0.0]) == 0.5  # [paper] one item passes: lambda as it is
    assert effective_lambda(0.5, [0.0, 0.0]) == effective_lambda(0.5, []) == 0.0
    assert effective_lambda(0.5, [0.6, 0.2]) == pytest.approx(0.2)


def test_past_scores_that_are_not_finite_are_named() -> None:
    with pytest.raises(ValueError, match="score 1 is nan"):
        Past([0.0, math.nan])


@pytest.mark.parametrize("many", [1, 2, 3, 24, 25, 1000])
@pytest.mark.parametrize("digits", [1, 15])
def test_quantiles_of_the_first_scores_are_numpys(many: int, digits: int) -> None:
    """To the last bit, for every number of them, with many ties and with none."""
    scores = np.round(np.random.default_rng(many).gamma(2, 2, many), digits)
    past = Past(scores)
    assert past.quantile(0.5, 0) == math.inf
    for count in range(1, many + 1):
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            assert past.quantile(share, count) == np.quantile(scores[:count], share)


@pytest.mark.parametrize("many", [1, 3, 24, 25, 120])
@pytest.mark.parametrize("digits", [1, 15])
def test_standing_among_the_first_scores_is_that_among_a_list_of_them(many: int, digits: int) -> None:
    """To the last bit, for every number of them; asked for each of them, for neighbours and for extremes."""
    random = np.random.default_rng(many)
    scores = np.round(random.gamma(2, 2, many), digits)
    asked = np.concatenate([scores, scores + 0.1, np.round(random.gamma(2, 2, 9), digits), [-1.0, 1e9]])
    past = Past(scores)
    assert not standing(asked, past, 0).any()
    for count in range(1, many + 1):
        known = np.sort(scores[:count])
        places = np.searchsorted(known, asked, "left") + np.searchsorted(known, asked, "right")
        assert (standing(asked, past, count) == places / (2 * count)).all()


def test_standing_by_hand() -> None:
    """Past 1, 2, 2, 4: below 1 nothing, of the tie at 2 one quarter below and half of two quarters."""
    past = Past([2.0, 4.0, 1.0, 2.0])
    assert standing([0.5, 1.0, 2.0, 3.0, 9.0], past).tolist() == [0, 0.125, 0.5, 0.75, 1]
    assert standing([1.0, 2.0], Past([])).tolist() == [0, 0]
    assert standing([], Past([1.0])).tolist() == []


def test_above_the_third_quartile_is_a_standing_above_three_quarters() -> None:
    past = np.random.default_rng(0).normal(size=101)
    passed = past > find_sigma(Past(past), "q3")
    assert ((standing(past, Past(past)) > 0.75) == passed).all()
