"""The learned gate: learns a plain rule, stays closed without both kinds of pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spring.learned_gate import Features, LearnedGate, features


def pair(score: float, *, rank: int = 1) -> Features:
    return features(score=score, standing=score / 10, rank=rank, query_words=4, item_words=9, days=3.0)


def test_lengths_and_age_are_logarithmic() -> None:
    assert pair(2.0) == Features(2.0, 0.2, 1, math.log(5), math.log(10), math.log(4))


def test_an_item_later_than_its_query_is_no_pair() -> None:
    with pytest.raises(AssertionError):
        features(score=1, standing=0, rank=1, query_words=1, item_words=1, days=-0.1)


def test_it_learns_that_high_scores_help() -> None:
    """Gains are positive exactly above 5; far from there the gate is sure, and weights are probabilities."""
    seen = [pair(score / 10) for score in range(100)]
    gate = LearnedGate(seen, [score / 10 - 5 for score in range(100)])
    asked = [pair(1.0), pair(4.0), pair(6.0), pair(9.0)]
    found = gate.probabilities(asked)
    assert (np.diff(found) > 0).all() and found[0] < 0.1 < 0.9 < found[3]
    assert gate.weights(asked).tolist() == [0.0, 0.0, found[2], found[3]]


def test_probabilities_are_calibrated_where_the_rule_is_noisy() -> None:
    """Scores of 0 help in 1 of 5 cases, scores of 1 in 4 of 5: the fitted odds are theirs."""
    seen = [pair(float(i % 2)) for i in range(1000)]
    gains = [1.0 if (i // 2) % 5 < (4 if i % 2 else 1) else -1.0 for i in range(1000)]
    np.testing.assert_allclose(
        LearnedGate(seen, gains).probabilities([pair(0.0), pair(1.0)]), [0.2, 0.8], atol=0.01
    )


@pytest.mark.parametrize("gains", [[], [1.0, 2.0], [-1.0, 0.0]])
def test_without_both_kinds_it_stays_closed(gains: list[float]) -> None:
    """A gain of exactly 0 is none."""
    gate = LearnedGate([pair(1.0 + i) for i in range(len(gains))], gains)
    assert gate.closed
    assert gate.weights([pair(9.0), pair(1.0)]).tolist() == [0, 0]


def test_nothing_retrieved_is_nothing_weighed() -> None:
    gate = LearnedGate([pair(1.0), pair(2.0)], [1.0, -1.0])
    assert not gate.closed and gate.weights([]).shape == (0,)
