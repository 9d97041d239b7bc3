"""Drift score and selection (Eq. 1, 2): numbers derived by hand, and properties of the selection."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spring.method.drift import (
    drift_score,
    loss,
    novelty,
    quality,
    select_drift,
    share_count,
)

# Three responses of 2, 4 and 5 tokens. Per token: base -2, -3, -1; adapted -1, -3, -2.
ROWS = {"logp_base": [-4.0, -12.0, -5.0], "logp_adap": [-2.0, -12.0, -10.0], "tokens": [2, 4, 5]}


def test_terms_by_hand() -> None:
    """Novelty -(adap - base): -(-1+2) = -1, 0, -(-2+1) = 1. Quality: the base's own mean."""
    assert novelty(**ROWS, normalise="token").tolist() == [-1.0, 0.0, 1.0]
    assert quality(logp_base=ROWS["logp_base"], tokens=ROWS["tokens"], normalise="token").tolist() == [
        -2,
        -3,
        -1,
    ]
    assert loss(logp_adap=ROWS["logp_adap"], tokens=ROWS["tokens"], normalise="token").tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("alpha", "normalise", "expected"),
    [
        (1.0, "token", [-3.0, -3.0, 0.0]),  # -1-2, 0-3, 1-1
        (0.0, "token", [-1.0, 0.0, 1.0]),
        (0.5, "token", [-2.0, -1.5, 0.5]),
        (math.inf, "token", [-2.0, -3.0, -1.0]),
        (1.0, "sequence", [-6.0, -12.0, 0.0]),  # 2 base - adap: -8+2, -24+12, -10+10
    ],
)
def test_score_by_hand(alpha: float, normalise: Any, expected: list[float]) -> None:
    assert drift_score(**ROWS, alpha=alpha, normalise=normalise).tolist() == expected


def test_at_alpha_one_the_score_is_twice_base_less_adapted() -> None:
    base, adap, tokens = np.array([-7.3, -55.1]), np.array([-6.2, -60.9]), np.array([3, 17])
    actual = drift_score(logp_base=base, logp_adap=adap, tokens=tokens, alpha=1.0, normalise="token")
    np.testing.assert_allclose(actual, (2 * base - adap) / tokens)


def test_infinite_alpha_is_the_limit_of_the_ranking() -> None:
    rng = np.random.default_rng(0)
    rows = {"logp_base": -rng.random(30), "logp_adap": -rng.random(30), "tokens": np.ones(30)}
    limit = drift_score(**rows, alpha=math.inf, normalise="token")
    large = drift_score(**rows, alpha=1e9, normalise="token")
    assert np.argsort(limit).tolist() == np.argsort(large).tolist()


def test_a_response_without_tokens_is_named() -> None:
    with pytest.raises(ValueError, match=r"tokens of row 1 is 0"):
        drift_score(logp_base=[-1, -1], logp_adap=[-1, -1], tokens=[3, 0], alpha=1.0, normalise="token")


# --- selection --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "share", "expected"),
    [
        (10, 0.3, 3),
        (11, 0.3, 4),  # 3.3
        (100, 0.07, 7),  # 7.000000000000001 in floating point
        (100, 0.55, 55),  # 55.00000000000001
        (100, 0.29, 29),  # 28.999999999999996
        (10, 0.1 + 0.2, 3),  # a share that is itself off
        (1, 0.01, 1),
        (5, 1.0, 5),
        (5, 1e-12, 1),
        (0, 0.3, 0),
    ],
)
def test_how_many(n: int, share: float, expected: int) -> None:
    assert share_count(n, share=share) == expected
    assert len(select_drift(np.arange(n), share=share)) == expected


def test_the_highest_in_time_order_and_the_earlier_of_equals() -> None:
    assert select_drift([5.0, 1.0, 9.0, 7.0], share=0.5).tolist() == [2, 3]
    assert select_drift([1.0, 2.0, 2.0, 2.0, 0.0], share=0.4).tolist() == [1, 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match="row 2"):
        select_drift([1.0, 2.0, bad], share=0.3)


scores_lists = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)


@settings(deadline=None)
@given(scores_lists, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_share_only_adds(scores: list[float], one: float, other: float) -> None:
    few, many = sorted((one, other))
    assert set(select_drift(scores, share=few)) <= set(select_drift(scores, share=many))


@settings(deadline=None)
@given(scores_lists, st.floats(0.01, 1))
def test_nothing_left_out_scores_higher_than_what_is_in(scores: list[float], share: float) -> None:
    kept = select_drift(scores, share=share).tolist()
    left = sorted(set(range(len(scores))) - set(kept))
    assert kept == sorted(set(kept))
    assert all((scores[i], -i) > (scores[j], -j) for i in kept for j in left)


@pytest.mark.parametrize(
    "module",
    [
        "spring.method.drift",
        "spring.method.scorers",
        "spring.method.replay",
        "spring.method.policies",
        "spring.method.retrieval",
        "spring.engine.embedding",
    ],
)
def test_the_module_imports_without_torch(module: str) -> None:
    heavy = {"torch", "transformers", "faiss", "sklearn"}
    code = f"import sys, {module}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
